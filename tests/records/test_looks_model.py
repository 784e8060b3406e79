"""Any sequence of looks at a node's guests, beside claims that come and go, against a dictionary."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from earmark.core.ledger.commands import Answer
from earmark.core.ledger.figures import figures
from earmark.core.model.claim import Claim
from earmark.core.model.guest import Guest
from earmark.core.model.ids import ClaimId, ConsumerId, UnitId
from earmark.core.model.request import Request
from earmark.core.model.units import GIB
from earmark.testing import Bench, bench

HOST = "1x4c/2t 8G disk:100G"
NAMES = ("a", "b", "c", "d")
UNITS = tuple(UnitId(f"cpu:{number}") for number in range(9))
"""The host has eight CPUs: the last one is not there."""
STEPS_MAX = 12


class Look(NamedTuple):
    """A look: who is seen, and whether there is nobody else."""

    guests: tuple[Guest, ...]
    complete: bool


class Claims(NamedTuple):
    """A consumer claims some CPUs for itself, or gives back what it has."""

    consumer: str
    vcpus: int


def guests() -> st.SearchStrategy[Guest]:
    """Guests of few names that use some of the CPUs, and up to twice the memory of the host."""
    units = st.lists(st.sampled_from(UNITS), max_size=3, unique=True).map(tuple)
    names = st.sampled_from(NAMES).map(ConsumerId)
    return st.builds(Guest, consumer=names, vcpus=st.integers(3, 12), memory_bytes=st.integers(0, 16).map(lambda n: n * GIB), units=units)


LOOKS = st.builds(Look, st.lists(guests(), max_size=4, unique_by=lambda guest: guest.consumer).map(tuple), st.booleans())
CLAIMS = st.builds(Claims, st.sampled_from(NAMES), st.integers(1, 3))


def live(world: Bench, *, foreign: bool) -> dict[ConsumerId, Claim]:
    """Return the live claims of the node by consumer: the foreign ones, or all others."""
    return {claim.consumer: claim for claim in world.tracker.node().live() if (claim.purpose == "foreign") == foreign}


def units(claim: Claim) -> set[str]:
    """Return the units of a claim."""
    return {row.unit for row in claim.grant.units}


def looked(world: Bench, model: dict[ConsumerId, Guest], look: Look) -> None:
    """Let a look be told, and hold what came of it against the model."""
    before = live(world, foreign=False)
    world.tracker.guests_seen("n1", look.guests, complete=look.complete)
    seen = {guest.consumer: guest for guest in look.guests}
    kept = {name: guest for name, guest in model.items() if name not in before and (name in seen or not look.complete)}
    model.clear()
    model.update({**kept, **{name: guest for name, guest in seen.items() if name not in before}})
    assert live(world, foreign=False) == before, "what is claimed is not touched by a look"
    again = world.tracker.guests_seen("n1", tuple(reversed(look.guests)), complete=look.complete)
    assert not again.changed, "the same look again, in another order, changes nothing"
    overlaps = {(each.unit, each.detail.split(" ")[0]) for each in world.tracker.audit() if each.code == "overlap"}
    foreign = live(world, foreign=True)
    for name, guest in seen.items():
        if name in foreign:
            lost = {unit for unit in guest.units if unit != UNITS[-1]} - units(foreign[name])
            assert {(unit, name) for unit in lost} <= overlaps, "each unit that it uses is its own or named as contested"


def checked(world: Bench, model: dict[ConsumerId, Guest]) -> None:
    """Hold the books against the model: who is foreign, with how much, and that nobody has a unit of another."""
    foreign, proper = live(world, foreign=True), live(world, foreign=False)
    assert set(foreign) == set(model)
    held: dict[str, ClaimId] = {}
    for claim in (*foreign.values(), *proper.values()):
        for unit in units(claim):
            assert held.setdefault(unit, claim.id) == claim.id
    for name, claim in foreign.items():
        assert units(claim) <= set(model[name].units)
        assert claim.owner == "unknown"
    contested = sum(len({u for u in guest.units if u != UNITS[-1]} - units(foreign[name])) for name, guest in model.items())
    found = figures(world.tracker.node())
    assert found.memory_bytes == sum(claim.request.memory_bytes for claim in proper.values()) + sum(g.memory_bytes for g in model.values())
    assert found.vcpus == sum(claim.request.vcpus for claim in proper.values()) + sum(g.vcpus for g in model.values()) - contested
    assert {each.severity for each in world.tracker.audit()} <= {"warning"}


@pytest.mark.long
@pytest.mark.rule("S09", "L13", "A3", "W40")
@given(st.lists(st.one_of(LOOKS, CLAIMS), max_size=STEPS_MAX))
def test_any_looks_beside_any_claims(steps: list[Look | Claims]) -> None:
    """Who is foreign, with what, follows from the looks and the claims alone; what is claimed is never taken by a look."""
    model: dict[ConsumerId, Guest] = {}
    with bench(HOST) as world:
        for step in steps:
            if isinstance(step, Look):
                looked(world, model, step)
            elif ConsumerId(step.consumer) in live(world, foreign=False):
                world.tracker.release(live(world, foreign=False)[ConsumerId(step.consumer)].id)
            else:
                request = Request(vcpus=step.vcpus, cpu_policy="dedicated", memory_bytes=GIB)
                answer = world.tracker.hold(request, consumer=step.consumer, confirm=True)
                assert not isinstance(answer, Answer) or answer.claim is not None
            checked(world, model)
