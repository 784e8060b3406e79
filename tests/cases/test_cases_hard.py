"""Cases for which the search of sets of cells once took thousands of steps or gave up: each is answered within a thousand now.

Rules of this file: the cases are random ones, made hard by several device requests that are about as large as what some of 32 or 64 cells
have. Steps are counted, not seconds.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from tests.cases.asking import ask
from tests.flavor.flavors import judge

CASES = [json.loads(line) for line in gzip.decompress((Path(__file__).parent / "recorded" / "hard.jsonl.gz").read_bytes()).splitlines()]
FIT = ("hard-04", "hard-05", "hard-07", "hard-10")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
@pytest.mark.rule("W6")
def test_a_hard_case_is_answered_within_a_thousand_sets_of_cells(case: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer is the known one, and a no has a checked certificate."""
    monkeypatch.setattr("earmark.core.fit.search.solving.STEPS_MAX", 1000)
    found = ask(case)
    assert found["fits"] is (case["id"] in FIT), found["reasons"]
    assert found["fits"] or found["certificate"]["verified"]


@pytest.mark.shared
def test_the_placements_pass_the_judge_of_the_recordings(shared: Path) -> None:
    """fit_check.py finds nothing wrong with the placements of those that fit."""
    check = judge(shared)
    placed = [(case, found) for case in CASES if (found := ask(case))["fits"]]
    assert len(placed) == len(FIT)
    assert not [check.check(case, found) for case, found in placed if check.check(case, found)]
