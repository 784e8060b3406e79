"""The device solver against every way to give devices, on small random stocks."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from msgspec.structs import replace
from tests.fit.device_brute import Case, chosen_key, key_of, random_case, ways
from tests.fit.worlds import SEEDS, random

from earmark.core.fit.devices.offer import offered

pytestmark = pytest.mark.long

CASES = SEEDS.map(lambda seed: random_case(random(seed)))


@settings(max_examples=1500)
@given(CASES)
@pytest.mark.rule("P10", "P11", "P12", "P13", "P14", "P15", "W22", "W23")
@pytest.mark.long
def test_devices_are_chosen_exactly_when_some_set_of_them_exists_and_the_best_one(case: Case) -> None:
    """None if and only if no way to give devices exists, and what is chosen has the smallest documented key of all ways."""
    chosen = offered(case.requests, case.stock).choose(case.cells)
    assert offered(case.requests, case.stock).possible(case.cells) == (chosen is not None)
    best = min((key_of(picks, case) for picks in ways(case)), default=None)
    assert (None if chosen is None else chosen_key(chosen, case)) == best


@settings(max_examples=500)
@given(CASES, SEEDS)
def test_more_cells_never_make_a_no(case: Case, seed: int) -> None:
    """What can be had for a guest on some cells can be had on more of them, and on none at all."""
    offer = offered(case.requests, case.stock)
    rnd = random(seed)
    small = frozenset(cell for cell in range(3) if rnd.random() < 0.5)
    large = small | {rnd.randrange(3)}
    if offer.choose(small) is not None:
        assert offer.choose(large) is not None
        assert offer.choose(None) is not None


@settings(max_examples=500)
@given(CASES, SEEDS)
@pytest.mark.rule("W39", "W6")
def test_the_order_of_devices_does_not_matter_and_nothing_is_changed(case: Case, seed: int) -> None:
    """A stock in another order gives the same devices, an offer asked twice the same answer, and its inputs stay as they were."""
    stock = case.stock
    before = (stock.devices, dict(stock.slots), dict(stock.shares), dict(stock.sockets), case.requests)
    mixed = replace(stock, devices=tuple(random(seed).sample(stock.devices, len(stock.devices))))
    offer = offered(case.requests, stock)
    assert offer.choose(case.cells) == offer.choose(case.cells) == offered(case.requests, mixed).choose(case.cells)
    assert before == (stock.devices, dict(stock.slots), dict(stock.shares), dict(stock.sockets), case.requests)


@settings(max_examples=300)
@given(CASES)
def test_an_offer_to_some_requests_is_that_of_the_requests_alone(case: Case) -> None:
    """Leaving requests out of an offer is the same as never having asked for them."""
    offer = offered(case.requests, case.stock)
    for left_out in range(len(case.requests)):
        numbers = [number for number in range(len(case.requests)) if number != left_out]
        fewer = offered([case.requests[number] for number in numbers], case.stock)
        assert offer.only(numbers).choose(case.cells) == fewer.choose(case.cells)


@settings(max_examples=300)
@given(CASES)
def test_cells_of_one_kind_are_interchangeable(case: Case) -> None:
    """Two cells that are said to be alike can stand for each other in any set of cells; cells that are not useful change nothing."""
    offer = offered(case.requests, case.stock)
    for one, other in ((0, 1), (1, 2), (0, 2)):
        if offer.kind_of(one) == offer.kind_of(other):
            rest = frozenset({3 - one - other})
            for extra in (frozenset[int](), rest):
                assert (offer.choose(extra | {one}) is None) == (offer.choose(extra | {other}) is None)
    if case.cells is not None:
        assert offer.choose(case.cells) == offer.choose(case.cells & offer.useful)


@settings(max_examples=500)
@given(CASES)
def test_the_numbers_of_reasons_are_the_most_that_can_be_had(case: Case) -> None:
    """A no has a reason, a yes has none; what a reason says of one request alone is what every way to give devices comes to."""
    reasons = offered(case.requests, case.stock).reasons(case.cells)
    assert bool(reasons) == (next(ways(case), None) is None)
    for reason in reasons:
        assert reason.short == reason.asked - reason.free > 0
        if reason.code in ("short", "affinity") and len(case.requests) == 1:
            (request,) = case.requests
            cells = None if reason.code == "short" else case.cells
            fewer = [Case(case.stock, (replace(request, count=count),), cells) for count in range(1, request.count + 1)]
            most = max((count for count, each in enumerate(fewer, 1) if next(ways(each), None) is not None), default=0)
            assert reason.free == most
