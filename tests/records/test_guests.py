"""Guests that run without having claimed: what is counted for them, what is taken from nobody."""

from __future__ import annotations

import pytest

from earmark.core.ledger.commands import Answer
from earmark.core.ledger.figures import figures
from earmark.core.model.guest import Guest
from earmark.core.model.ids import ConsumerId, UnitId
from earmark.core.model.instance import InstanceState
from earmark.core.model.refusal import Refusal
from earmark.core.model.request import Request
from earmark.core.model.units import GIB
from earmark.errors import HostUnavailable, InvalidRequest, LedgerUnavailable
from earmark.stores.memory import MemoryStore
from earmark.testing import Bench, FaultyStore, bench

S = Request(vcpus=2, memory_bytes=2 * GIB, disk_bytes=20 * GIB)
PINNED = Request(vcpus=2, cpu_policy="dedicated", memory_bytes=2 * GIB)
HOST = "2x8c 32G disk:200G"


def guest(name: str = "g", *units: str, vcpus: int = 2) -> Guest:
    """Return a guest of the usual size that has some units for itself."""
    return Guest(
        consumer=ConsumerId(name), vcpus=vcpus, memory_bytes=2 * GIB, disk_bytes=20 * GIB, units=tuple(UnitId(unit) for unit in units)
    )


def used(world: Bench) -> tuple[int, int, int]:
    """Return the figures of the node: vCPUs, GiB of memory, GiB of disk."""
    found = figures(world.tracker.node())
    return found.vcpus, found.memory_bytes // GIB, found.disk_bytes // GIB


def codes(world: Bench) -> list[str]:
    """Return the codes of what an audit finds."""
    return [finding.code for finding in world.tracker.audit()]


@pytest.mark.rule("S09", "L13", "A3")
def test_who_never_claimed_is_counted_when_seen() -> None:
    """What is said of it counts nothing, seeing it does, seeing it again changes nothing, and its absence from a whole look ends it."""
    with bench(HOST) as world:
        home = world.tracker.home
        world.tracker.report("g", "active")
        assert used(world) == (0, 0, 0)
        assert world.tracker.guests_seen(home, [guest()], complete=True).changed
        assert (used(world), codes(world)) == ((2, 2, 20), ["foreign"])
        assert not world.tracker.guests_seen(home, [guest()], complete=True).changed
        said: tuple[InstanceState, ...] = ("paused", "deleted")
        for state in said:
            world.tracker.report("g", state)
            assert used(world) == (2, 2, 20)
        assert not world.tracker.guests_seen(home, []).changed, "a partial look ends nothing"
        world.tracker.guests_seen(home, [], complete=True)
        assert (used(world), codes(world)) == ((0, 0, 0), [])


@pytest.mark.rule("S09")
def test_a_fact_is_above_every_capacity() -> None:
    """Guests that use more than there is are counted all the same, and nothing more is granted."""
    with bench("1x2c 4G disk:50G") as world:
        world.tracker.guests_seen(world.tracker.home, [guest("a", vcpus=30), guest("b", vcpus=30), guest("c", vcpus=30)], complete=True)
        assert used(world) == (90, 6, 60)
        assert isinstance(world.tracker.hold(S, consumer="i"), Refusal)
        assert {finding.severity for finding in world.tracker.audit()} == {"warning"}


@pytest.mark.rule("S09", "W40")
def test_units_of_others_are_contested_and_pass_when_they_are_free() -> None:
    """A finding names both, the holder keeps its unit; when it lets go, the next look counts the unit as the guest's."""
    with bench(HOST) as world:
        held = world.tracker.hold(PINNED, consumer="i", confirm=True)
        assert isinstance(held, Answer)
        assert held.claim is not None
        mine = [row.unit for row in held.claim.grant.units]
        seen = guest("g", mine[0], "cpu:15")
        world.tracker.guests_seen(world.tracker.home, [seen], complete=True)
        overlap = next(finding for finding in world.tracker.audit() if finding.code == "overlap")
        assert (overlap.unit, overlap.claim) == (mine[0], held.claim_id)
        assert "g uses" in overlap.detail
        assert "i holds" in overlap.detail
        assert figures(world.tracker.node()).pins == tuple(sorted({15} | {int(unit.split(":")[1]) for unit in mine}))
        world.tracker.release(held.claim.id)
        world.tracker.guests_seen(world.tracker.home, [seen], complete=True)
        assert codes(world) == ["foreign"]
        other = world.tracker.hold(PINNED, consumer="k", confirm=True)
        assert isinstance(other, Answer)
        assert other.claim is not None
        assert {row.unit for row in other.claim.grant.units}.isdisjoint({mine[0], "cpu:15"})


@pytest.mark.rule("S09")
def test_who_claims_at_last_is_counted_once_from_the_next_look_on() -> None:
    """The foreign claim of a guest ends at the first look at it after its own claim."""
    with bench(HOST) as world:
        world.tracker.guests_seen(world.tracker.home, [guest()], complete=True)
        assert isinstance(world.tracker.hold(S, consumer="g", confirm=True), Answer)
        assert used(world) == (4, 4, 40)
        world.tracker.guests_seen(world.tracker.home, [guest()])
        assert (used(world), codes(world)) == ((2, 2, 20), [])


@pytest.mark.rule("S42")
def test_a_unit_that_the_machine_does_not_have_is_not_counted() -> None:
    """A guest that is said to use what is not there, or what makes no sense, spoils nothing."""
    with bench(HOST) as world:
        world.tracker.guests_seen(world.tracker.home, [guest("g", "cpu:900", "gpu:none")], complete=True)
        assert (figures(world.tracker.node()).pins, used(world)) == ((), (2, 2, 20))
        for wrong in ([guest("h", "no unit")], [guest("h"), guest("h")], [guest(" h")]):
            with pytest.raises(InvalidRequest):
                world.tracker.guests_seen(world.tracker.home, wrong, complete=True)
        assert used(world) == (2, 2, 20)


@pytest.mark.rule("S09", "W11")
def test_guests_come_as_records_too() -> None:
    """Guests among records are looked at together; with all_guests those that are not listed are gone, a broken record ends nobody."""
    with bench(HOST) as world:
        node = world.tracker.node().name
        seen = {"record": "guest", "node": node, "guest": {"consumer": "g", "vcpus": 2, "memory_bytes": 2 * GIB, "disk_bytes": 20 * GIB}}
        assert world.tracker.receive([seen]).clean
        assert used(world) == (2, 2, 20)
        assert len(world.tracker.receive([seen, {**seen, "node": world.tracker.home}]).contradictory) == 1
        assert world.tracker.receive([b"?"], all_guests=[node]).listing
        assert used(world) == (2, 2, 20)
        assert world.tracker.receive([], all_guests=[node]).clean
        assert used(world) == (0, 0, 0)


@pytest.mark.rule("S46", "W0", "A14")
def test_a_look_that_fails_half_way_changes_nothing() -> None:
    """A store that cannot be read, an append that fails, a host that does not answer: the claims stand, and the next look is right."""

    def fail() -> None:
        raise LedgerUnavailable("the disk does not answer")

    store = FaultyStore(MemoryStore())
    with bench(HOST, store=store.as_store()) as world:
        held = world.tracker.hold(PINNED, consumer="i", confirm=True)
        assert isinstance(held, Answer)
        pins = figures(world.tracker.node()).pins
        store.before_commit = fail
        with pytest.raises(LedgerUnavailable):
            world.tracker.guests_seen(world.tracker.home, [guest()], complete=True)
        store.before_commit = int
        world.host.fault = HostUnavailable("the host does not answer")
        with pytest.raises(HostUnavailable):
            world.tracker.observe()
        world.host.fault = None
        assert figures(world.tracker.node()).pins == pins
        other = world.tracker.hold(PINNED, consumer="y", confirm=True)
        assert isinstance(other, Answer)
        assert len(figures(world.tracker.node()).pins) == 4
        assert codes(world) == []
