"""The index of what is taken: kept row by row, equal to its recomputation, never changed in place."""

from __future__ import annotations

import pytest
from hypothesis import given
from msgspec.structs import replace
from tests.fit.worlds import SEEDS, amounts, random, sriov, units

from earmark.core.fit.free import EMPTY, Free, overlaps
from earmark.core.model.exclusion import slot_table
from earmark.core.model.grant import AmountRow, Grant, UnitRow
from earmark.core.model.ids import VCPU, ClaimId, PoolId, Slot, UnitId, cpu_unit
from earmark.errors import LedgerBroken

A, B = ClaimId("c-aaaa"), ClaimId("c-bbbb")
TABLE = slot_table(sriov(2))
CARD, FUNCTION = (UnitRow(unit=unit, use="device", slots=TABLE[unit]) for unit in sorted(TABLE)[:2])


@given(SEEDS)
def test_the_kept_index_equals_the_recomputed_one(seed: int) -> None:
    """After any steps (take, give, give in part, pass) the index is what the live grants add up to; old values stay as they were."""
    rnd = random(seed)
    free, live = EMPTY, dict[ClaimId, Grant]()
    for n in range(25):
        before, copy = free, Free.recompute(sorted(live.items()))
        step = rnd.choice(("take", "take", "give", "part", "pass"))
        claim = rnd.choice(sorted(live)) if live else None
        if step == "take":
            new = ClaimId(f"c-{n:04}")
            cpus = [cpu for cpu in range(12) if rnd.random() < 0.2 and not free.taken_cpus >> cpu & 1]
            grant = replace(units(cpus), amounts=tuple(AmountRow(pool=PoolId(p), amount=rnd.randint(1, 9)) for p in ("vcpu", "memory")))
            free, live[new] = free.take(new, grant), grant
        elif claim is not None and step == "give":
            free = free.give(claim, live.pop(claim))
        elif claim is not None and step == "part":
            some = frozenset(row.unit for row in live[claim].units if rnd.random() < 0.5)
            free = free.give(claim, live[claim], some)
            live[claim] = replace(live[claim], units=tuple(row for row in live[claim].units if row.unit not in some))
        elif claim is not None and step == "pass":
            target = rnd.choice(sorted(live))
            rows = live[claim].units[:1]
            if target != claim:
                free = free.passed(claim, target, rows)
                live[claim] = replace(live[claim], units=live[claim].units[1:])
                live[target] = replace(live[target], units=(*live[target].units, *rows))
        assert free == Free.recompute(sorted(live.items()))
        assert before == copy
    for claim, grant in live.items():
        free = free.give(claim, grant)
    assert free == EMPTY


def test_a_slot_is_never_taken_twice() -> None:
    """Taking a CPU, or a card whose function is held, is a broken ledger; the message names both claims and the slot."""
    free = EMPTY.take(A, units([1]))
    with pytest.raises(LedgerBroken, match="c-bbbb takes cpu:1, but slot cpu:1 is held by claim c-aaaa"):
        free.take(B, units([1]))
    held = EMPTY.take(A, Grant(units=(FUNCTION,)))
    with pytest.raises(LedgerBroken, match=r"held by claim c-aaaa"):
        held.take(B, Grant(units=(CARD,)))
    assert held.slots == EMPTY.take(A, Grant(units=(FUNCTION,))).slots


@pytest.mark.rule("W40")
def test_giving_back_what_is_not_held_is_an_error_and_never_clamped() -> None:
    """A foreign slot, a free slot and a sum that would be negative are broken ledgers."""
    free = EMPTY.take(A, replace(units([1]), amounts=amounts(vcpu=2).amounts))
    with pytest.raises(LedgerBroken, match="held by c-aaaa"):
        free.give(B, units([1]))
    with pytest.raises(LedgerBroken, match="held by nobody"):
        free.give(A, units([2]))
    with pytest.raises(LedgerBroken, match="3 of vcpu is given back, but only 2 is held"):
        free.give(A, amounts(vcpu=3))
    with pytest.raises(LedgerBroken, match="held by c-aaaa"):
        free.passed(B, A, units([1]).units)


def test_units_given_back_alone_leave_the_amounts() -> None:
    """Giving back some units keeps the other units and all amounts; giving back all ends both."""
    grant = replace(units([1, 2]), amounts=amounts(vcpu=2).amounts)
    part = EMPTY.take(A, grant).give(A, grant, frozenset({cpu_unit(1)}))
    assert (part.taken_cpus, part.used[VCPU], set(part.slots)) == (0b100, 2, {"cpu:2"})
    assert part.give(A, replace(grant, units=grant.units[1:])) == EMPTY


def test_units_pass_from_claim_to_claim_without_ever_being_free() -> None:
    """After passing, the CPU is still taken and the slot has the new holder."""
    free = EMPTY.take(A, units([1])).passed(A, B, units([1]).units)
    assert free == EMPTY.take(B, units([1]))


def test_overlapping_grants_are_told_and_still_make_an_index() -> None:
    """Two grants with one CPU, and a card beside its function, are found with both claims; the first stays the holder."""
    grants = [(A, replace(units([1]), units=(*units([1]).units, CARD))), (B, replace(units([1]), units=(*units([1]).units, FUNCTION)))]
    found = overlaps(grants)
    assert [(item.slot, item.first, item.first_unit, item.second, item.second_unit) for item in found] == [
        (Slot("cpu:1"), A, UnitId("cpu:1"), B, UnitId("cpu:1")),
        (Slot(FUNCTION.unit), A, CARD.unit, B, FUNCTION.unit),
    ]
    assert Free.recompute(grants).slots[Slot("cpu:1")] == A
    assert overlaps(grants[:1]) == ()
