"""What the pages point at is there: files, headings, tests."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

from earmark.core.model.refusal import ReasonCode

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").glob("*.md")])
LINK = re.compile(r"\[(?:[^\]\[]|\[[^\]]*\])*\]\(([^)\s]+)\)")
NODE_ID = re.compile(r"tests/[\w/]+\.py::(?:\w+::)?(test_\w+)")
TEST_FILE = re.compile(r"(tests/[\w/]+\.py)::((?:\w+::)?test_\w+)")
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def headings(path: Path) -> set[str]:
    """Return the anchors of a page's headings, as forges make them."""
    titles = re.findall(r"^#+ (.+)$", FENCED.sub("", path.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_resolve(page: Path) -> None:
    """Each link to a file of the repository names one that is there, and a heading that it has."""
    broken = []
    for target in LINK.findall(FENCED.sub("", page.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        found = (page.parent / name) if name else page
        if not found.exists() or (anchor and found.suffix == ".md" and anchor not in headings(found)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_named_tests_exist(page: Path) -> None:
    """Each test that a page names by file and function is there."""
    missing = []
    for file, test in TEST_FILE.findall(page.read_text()):
        path = ROOT / file
        name = test.rsplit("::", 1)[-1]
        if not path.exists() or not re.search(rf"^\s*(?:async )?def {name}\(", path.read_text(), re.MULTILINE):
            missing.append(f"{file}::{test}")
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_named_files_exist(page: Path) -> None:
    """Each file of the source, the tools or the examples that a page names is there."""
    named = re.findall(r"`((?:src|tools|examples|bench)/[\w./-]+)`", page.read_text())
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_eight_points_and_the_six_laws_name_tests() -> None:
    """docs/explanation/review.md has eight points and ARCHITECTURE.md six laws, each with at least one test."""
    review = (ROOT / "docs/explanation/review.md").read_text()
    points = re.split(r"^## \d\. ", review, flags=re.MULTILINE)[1:]
    assert len(points) == 8
    assert all(NODE_ID.search(point) for point in points)
    laws = re.findall(r"^\| \d \|.*$", (ROOT / "ARCHITECTURE.md").read_text(), re.MULTILINE)
    assert len(laws) == 6
    assert all(NODE_ID.search(law) for law in laws)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pictures_are_the_recorded_ones(page: Path) -> None:
    """A picture of a test machine in a page is what the drawing of today gives."""
    for name, shown in re.findall(r"<!-- picture: (\S+) -->\n```text\n(.*?)```", page.read_text(), re.DOTALL):
        assert (ROOT / name).read_text() == shown


def test_every_code_of_a_reason_is_explained() -> None:
    """The page on refusals has each code that a reason can have, and no other."""
    rows = re.findall(r"^\| (`.+?`) \|", (ROOT / "docs/howto/read-a-refusal.md").read_text(), re.MULTILINE)
    assert sorted(code for row in rows for code in re.findall(r"`(\w+)`", row)) == sorted(get_args(ReasonCode))


def test_the_reading_order_is_there_and_short() -> None:
    """The three files of the reading order are named in ARCHITECTURE.md, exist, and are under 800 lines together."""
    files = ("src/earmark/tracker/tracker.py", "src/earmark/core/ledger/decide.py", "src/earmark/core/fit/fit.py")
    text = (ROOT / "ARCHITECTURE.md").read_text()
    assert [name for name in files if name not in text or not (ROOT / name).exists()] == []
    assert sum(len((ROOT / name).read_text().splitlines()) for name in files) < 800
