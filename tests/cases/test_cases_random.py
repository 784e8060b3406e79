"""Random cases beside a search that tries everything, and beside the judge that came with the recordings."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tests.cases.asking import ask
from tests.cases.case_judging import possible, wrong
from tests.cases.case_making import drawn
from tests.flavor.flavors import judge

MANY = 250
Made = dict[str, Any]


def differences(made: Made, found: Made) -> list[str]:
    """Return where an answer is not what trying everything says."""
    if found["fits"] is not possible(made):
        return [f"{made['id']}: fits {found['fits']}: {found['error']} {found['reasons']}"]
    if found["fits"]:
        return [f"{made['id']}: {each}" for each in wrong(made, found)]
    proof = found["certificate"]
    return [] if proof is not None and proof["verified"] and found["reasons"] else [f"{made['id']}: a no without proof: {found}"]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.long
def test_random_cases_are_answered_as_trying_everything_answers_them(seed: int) -> None:
    """On any small host every answer is that of an exhaustive search, every placement keeps the rules, every no has a checked certificate."""
    seen: Counter[str] = Counter()
    trouble = []
    for number in range(seed * MANY, (seed + 1) * MANY):
        made = drawn(number)
        found = ask(made)
        trouble += differences(made, found)
        seen["fits" if found["fits"] else found["certificate"]["kind"] if found["certificate"] else "error"] += 1
    assert not trouble, "\n".join(trouble)
    assert min(seen[kind] for kind in ("fits", "shortfall", "hall", "together")) > 10, seen


def test_a_case_is_answered_the_same_every_time() -> None:
    """The same line gives the same answer, whatever was asked before it."""
    cases = [drawn(number) for number in range(60)]
    first = [ask(each) for each in cases]
    assert [ask(each) for each in reversed(cases)] == first[::-1]


def test_the_choice_never_changes_the_answer() -> None:
    """Whether full or empty cells come first changes where a guest lies, never whether it fits."""
    for number in range(120):
        made = drawn(number)
        answers = [ask({**made, "config": {"pack_cells": pack}})["fits"] for pack in (True, False)]
        assert answers[0] is answers[1], made


@pytest.mark.shared
def test_random_placements_pass_the_judge_of_the_recordings(shared: Path) -> None:
    """fit_check.py reads our random requests as they are meant, and finds nothing wrong with any placement."""
    check = judge(shared)
    for number in range(MANY):
        made = drawn(number)
        read = check.read_request(made["request"])
        cells = None if read.cells is None else [{key: sorted(each[key]) for key in ("vcpus", "dedicated")} for each in read.cells]
        meant = made["meant"]["cells"]
        assert cells == (None if meant is None else [{key: each[key] for key in ("vcpus", "dedicated")} for each in meant]), number
        found = ask(made)
        if found["fits"]:
            assert check.check(made, found) == [], number
