"""Every example of the pages about scenarios is carried out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from earmark.cli.node_settings import changed
from earmark.scenario.expectations import NODE_COUNTS, NODE_WORDS, WORDS
from earmark.scenario.language import parse
from earmark.scenario.runner import runs
from earmark.scenario.verbs import VERBS

DOCS = Path(__file__).resolve().parents[2] / "docs"
REFERENCE = DOCS / "reference/scenario-language.md"
FENCE = re.compile(r"```scenario\n(.*?)```", re.DOTALL)


def examples(page: Path) -> list[str]:
    """Return the examples of a page as whole files: those that have no title begin as the page's first one does."""
    found = FENCE.findall(page.read_text())
    return [text if text.startswith("scenario ") else found[0] + text for text in found]


@pytest.mark.parametrize("page", [REFERENCE, DOCS / "howto/reproduce-a-bug.md"], ids=lambda page: page.stem)
def test_every_example_holds(page: Path) -> None:
    """Each example runs as it says, on both stores."""
    texts = examples(page)
    assert texts
    for text in texts:
        for run in runs(parse(text, page.name), changed):
            wrong = [(each.step.text, each.checks, each.wrongs) for each in run.played if not each.ok]
            assert run.ok, wrong


def test_every_word_of_the_language_is_explained() -> None:
    """Each verb, each expectation and each thing that is counted stands on the page, and each verb in one of its examples."""
    page = REFERENCE.read_text()
    for word in (*VERBS, *WORDS, *NODE_COUNTS, *NODE_WORDS):
        assert re.search(rf"[`| ]{word}\b", page), word
