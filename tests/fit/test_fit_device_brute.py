"""The device solver against every way to give devices, on small random stocks."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from tests.fit.device_brute import Case, chosen_key, key_of, random_case, ways
from tests.fit.worlds import SEEDS, random

from earmark.core.fit.devices import offered

CASES = SEEDS.map(lambda seed: random_case(random(seed)))


@settings(max_examples=1500)
@given(CASES)
@pytest.mark.rule("P10", "P11", "P12", "P13", "P14", "P15", "W22", "W23")
def test_devices_are_chosen_exactly_when_some_set_of_them_exists_and_the_best_one(case: Case) -> None:
    """None if and only if no way to give devices exists, and what is chosen has the smallest documented key of all ways."""
    chosen = offered(case.requests, case.stock).choose(case.cells)
    best = min((key_of(picks, case) for picks in ways(case)), default=None)
    assert (None if chosen is None else chosen_key(chosen, case)) == best
