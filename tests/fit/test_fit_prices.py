"""The bound on what a few cells can have of devices: it never refuses what some of them have, and it says no where counting does."""

from __future__ import annotations

from itertools import combinations
from operator import ge

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.fit.device_brute import Case, random_case
from tests.fit.grounds import stock_of
from tests.fit.worlds import SEEDS, random

from earmark.core.fit.devices.flow import undominated
from earmark.core.fit.devices.offer import offered
from earmark.core.fit.search.prices import Prices, Seats
from earmark.core.model.ids import UnitId
from earmark.core.model.request import DeviceRequest
from earmark.core.model.topology import Device

CASES = SEEDS.map(lambda seed: random_case(random(seed)))
COLUMNS = st.lists(st.integers(0, 7), max_size=7)


def seatable(columns: tuple[int, ...], kinds: list[int]) -> bool:
    """Say whether some host cells can all be used at once, by trying every way."""
    if not columns:
        return True
    ways = [kind for kind, free in enumerate(kinds) if free and columns[0] >> kind & 1]
    return any(seatable(columns[1:], [free - (kind == way) for kind, free in enumerate(kinds)]) for way in ways)


@given(COLUMNS, st.lists(st.integers(0, 3), min_size=3, max_size=3))
def test_seats_are_taken_exactly_when_all_find_one(columns: list[int], kinds: list[int]) -> None:
    """A host cell is seated if and only if it and those before it can all be used at once."""
    seats = Seats(kinds)
    seated: tuple[int, ...] = ()
    for column in columns:
        assert seats.take(column) == seatable((*seated, column), kinds)
        if seatable((*seated, column), kinds):
            seated = (*seated, column)


@pytest.mark.long
@settings(max_examples=1500)
@given(CASES, SEEDS)
@pytest.mark.rule("W6")
def test_what_some_cells_have_is_never_refuted(case: Case, seed: int) -> None:
    """Where the prices say no, no set of so many cells that can all be used has the devices; nor has one with a cell that is left out."""
    rnd = random(seed)
    offer = offered([request for request in case.requests if not request.linked], case.stock)
    columns = {cell: rnd.choice((1, 2, 3, 3, 3)) for cell in range(3)}
    kinds = rnd.choice(((1, 1), (2, 1), (1, 0), (3, 3)))
    chosen = tuple(cell for cell in range(3) if rnd.random() < 0.2 and seatable((columns[cell],), list(kinds)))[:1]
    left = [cell for cell in range(3) if cell not in chosen]
    room = rnd.randint(0, 2)
    prices = Prices(offer, columns, kinds)
    refuted = prices.refuted(chosen, left, room, steps=20)
    helpful = prices.helpful(chosen, left, room) if room else []
    for size in range(room + 1):
        for more in combinations(left, size):
            cells = (*chosen, *more)
            if seatable(tuple(columns[cell] for cell in cells), list(kinds)) and offer.possible(frozenset(cells)):
                assert not refuted, cells
                assert set(more) <= set(helpful), cells


def gpus(there: list[int]) -> tuple[Device, ...]:
    """Return so many GPUs of one kind on each cell."""
    units = [(cell, number) for cell, count in enumerate(there) for number in range(count)]
    return tuple(Device(unit=UnitId(f"gpu:{cell}-{number}"), kind="gpu", cell=cell, vendor_id="10de") for cell, number in units)


def test_two_cells_that_have_too_few_together_are_refuted() -> None:
    """Three GPUs and three cards: two cells have the ones or the others, three cells have both."""
    cards = tuple(replace(device, unit=UnitId(device.unit.replace("gpu", "nic")), kind="nic") for device in gpus([0, 0, 2, 2, 1]))
    stock = stock_of((*gpus([2, 2, 0, 0, 1]), *cards), {})
    wishes = [DeviceRequest(kind=kind, count=3, affinity="required") for kind in ("gpu", "nic")]
    prices = Prices(offered(wishes, stock), dict.fromkeys(range(5), 1), (3,))
    assert prices.refuted((), range(5), 2, steps=40)
    assert not prices.refuted((), range(5), 3, steps=40)
    for wish in wishes:
        assert not Prices(offered([wish], stock), dict.fromkeys(range(5), 1), (3,)).refuted((), range(5), 2, steps=40)


def test_a_cell_that_cannot_help_is_left_out() -> None:
    """Four GPUs on two of five cells: with the richest other a cell of one GPU is too little."""
    prices = Prices(
        offered([DeviceRequest(kind="gpu", count=4, affinity="required")], stock_of(gpus([2, 2, 1, 1, 3]), {})),
        dict.fromkeys(range(5), 1),
        (2,),
    )
    assert prices.helpful((), range(5), 2) == [0, 1, 2, 3, 4]
    assert prices.helpful((0,), (1, 2, 3, 4), 1) == [1, 4]
    assert prices.helpful((4,), (1, 2, 3), 1) == [1, 2, 3]


def test_wishes_for_the_same_devices_are_counted_together() -> None:
    """Two and three GPUs must be near, one may be anywhere: with two on the cell that is chosen, a cell of two is too little for five."""
    wishes = [
        DeviceRequest(kind="gpu", count=2, affinity="required"),
        DeviceRequest(kind="gpu", count=1, affinity="preferred"),
        DeviceRequest(kind="gpu", count=3, affinity="required"),
    ]
    prices = Prices(offered(wishes, stock_of(gpus([2, 2, 3, 1]), {})), dict.fromkeys(range(4), 1), (2,))
    assert prices.helpful((0,), (1, 2, 3), 1) == [2]
    alone = Prices(offered(wishes[1:], stock_of(gpus([2, 2, 3, 1]), {})), dict.fromkeys(range(4), 1), (2,))
    assert alone.helpful((0,), (1, 2, 3), 1) == [1, 2, 3]


@given(st.sets(st.tuples(*[st.integers(0, 3)] * 4), max_size=120))
def test_a_plan_is_dropped_only_for_one_that_has_no_less(plans: set[tuple[int, ...]]) -> None:
    """Each plan has one among the kept that has as much of every kind, and none that is kept is beaten by another that differs in one kind."""
    kept = undominated(plans)
    assert kept <= plans
    assert all(any(all(map(ge, other, plan)) for other in kept) for plan in plans)
    apart = [(one, other) for one in kept for other in kept if sum(a != b for a, b in zip(one, other, strict=True)) == 1]
    assert not apart


def test_a_socket_is_worth_what_it_has_once() -> None:
    """GPUs that need only be on a socket of the guest: one cell brings those of all its socket, a second one nothing more."""
    sockets = {0: 0, 1: 0, 2: 1, 3: 1}
    offer = offered([DeviceRequest(kind="gpu", count=4, affinity="socket")], stock_of(gpus([2, 1, 1, 2]), sockets))
    prices = Prices(offer, dict.fromkeys(range(4), 1), (4,))
    assert prices.refuted((), range(4), 1)
    assert prices.refuted((0,), (1,), 1)
    assert not prices.refuted((0,), (1, 2), 1)


@pytest.mark.parametrize("sockets", [dict.fromkeys(range(32), 0) | {31: None}, {cell: cell for cell in range(32)}])
def test_a_socket_tells_cells_apart_only_where_others_share_it(sockets: dict[int, int | None]) -> None:
    """Cells whose sockets are not all known, or are alone on theirs, are alike: one of each kind is looked at, and the answer is found."""
    offer = offered([DeviceRequest(kind="gpu", count=2, affinity="socket")], stock_of(gpus([1] * 32), sockets))
    assert len({offer.kind_of(cell) for cell in range(32)}) == 1
    shared = offered([DeviceRequest(kind="gpu", count=2, affinity="socket")], stock_of(gpus([1] * 4), {0: 0, 1: 0, 2: 1, 3: 1}))
    assert len({shared.kind_of(cell) for cell in range(4)}) == 2
