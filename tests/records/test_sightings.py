"""A leg of a move does not end by time alone while its own node's driver sees the guest there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from earmark.core.ledger.commands import Answer
from earmark.core.ledger.figures import figures
from earmark.core.model.claim import Holder
from earmark.core.model.guest import GUESTS_MAX, Guest
from earmark.core.model.ids import ConsumerId
from earmark.core.model.instance import MoveKind
from earmark.core.model.refusal import Refusal
from earmark.core.model.request import Request
from earmark.core.model.units import GIB
from earmark.stores.memory import MemoryStore
from earmark.stores.sqlite.store import SqliteStore
from earmark.testing import NODE_ONE, UNRESERVED, Bench, bench, machine
from earmark.tracker.sightings import keep_look, last_look, look_stream

S = Request(vcpus=2, memory_bytes=2 * GIB, disk_bytes=20 * GIB)
L = Request(vcpus=4, memory_bytes=4 * GIB, disk_bytes=40 * GIB)
HOST = "2x8c 32G disk:200G"
TTL_MS = 60_000


def seen(*names: str) -> list[Guest]:
    """Return guests of some names."""
    return [Guest(consumer=ConsumerId(name), vcpus=2, memory_bytes=2 * GIB, disk_bytes=20 * GIB) for name in names]


def moving(
    world: Bench, kind: MoveKind = "live_migration", to: str | None = "B", request: Request | None = None, holders: Sequence[Holder] = ()
) -> str:
    """Build i on the first node, begin to move it with a deadline, and return the move's id."""
    world.tracker.register("B", machine=machine(HOST), settings=UNRESERVED)
    assert isinstance(world.tracker.hold(S, consumer="i", confirm=True), Answer)
    answer = world.tracker.open_move("i", kind, to=to, request=request, ttl_ms=TTL_MS, holders=holders)
    assert not isinstance(answer, Refusal)
    assert answer.move is not None
    return answer.move.id


def status(world: Bench, move: str) -> str:
    """Return what the legs of a move say of it."""
    return world.tracker.move_status(world.tracker.find_move(move))


def late(world: Bench) -> None:
    """Let the deadline pass and time take effect on all nodes."""
    world.clock.move(2 * TTL_MS)
    for state in world.tracker.nodes():
        world.tracker.sweep(state.node)


def vcpus(world: Bench, node: str | None = None) -> int:
    """Return the vCPUs in use on a node."""
    return figures(world.tracker.node(node)).vcpus


@pytest.mark.rule("M18", "M20", "W16")
def test_a_leg_whose_guest_is_seen_does_not_expire_and_one_that_is_gone_does() -> None:
    """The deadline ends nothing while the last look at the destination saw the guest; after a whole look without it the leg expires."""
    with bench(HOST) as world:
        move = moving(world)
        world.tracker.guests_seen("B", seen("i"), complete=True)
        late(world)
        assert (status(world, move), vcpus(world), vcpus(world, "B")) == ("preparing", 2, 2)
        world.tracker.guests_seen("B", [])
        late(world)
        assert status(world, move) == "preparing", "a partial look says nothing of who is not in it"
        world.tracker.guests_seen("B", [], complete=True)
        late(world)
        assert (status(world, move), vcpus(world), vcpus(world, "B")) == ("expired", 2, 0)


@pytest.mark.rule("M18")
@pytest.mark.parametrize(("node", "names"), [("B", ()), ("B", ("j",)), ("n1", ("i",))])
def test_only_a_look_at_the_destination_that_saw_the_guest_keeps_the_leg(node: str, names: Sequence[str]) -> None:
    """A look that saw others, or saw the guest where it comes from, lets the leg expire."""
    with bench(HOST) as world:
        move = moving(world)
        world.tracker.guests_seen(node, seen(*names), complete=True)
        late(world)
        assert status(world, move) == "expired"
        assert vcpus(world) == 2


def test_a_leg_that_nobody_looks_for_expires() -> None:
    """Without any look the deadline holds, as on nodes that have no driver."""
    with bench(HOST) as world:
        move = moving(world)
        late(world)
        assert (status(world, move), vcpus(world, "B")) == ("expired", 0)


def test_the_death_of_who_moves_it_does_not_end_a_leg_in_use() -> None:
    """The holder of the leg is gone and the guest is seen at the destination: its units are not free."""
    with bench(HOST) as world:
        move = moving(world, holders=(world.processes.identify(7),))
        world.tracker.guests_seen("B", seen("i"), complete=True)
        world.processes.fates[7] = "dead"
        late(world)
        assert (status(world, move), vcpus(world, "B")) == ("preparing", 2)
        world.tracker.guests_seen("B", [], complete=True)
        late(world)
        assert (status(world, move), vcpus(world, "B")) == ("aborted", 0)


def test_on_one_host_a_look_does_not_tell_the_legs_apart() -> None:
    """A guest that is seen where both legs are may run in either: the deadline holds there."""
    with bench(HOST) as world:
        move = moving(world, "resize", to=None, request=L)
        world.tracker.guests_seen("n1", seen("i"), complete=True)
        late(world)
        assert (status(world, move), vcpus(world)) == ("expired", 2)


@pytest.mark.rule("M30")
def test_a_finished_move_is_confirmed_by_its_window_although_its_guest_is_seen() -> None:
    """Seeing the guest at the destination holds up nothing but an end of that leg."""
    with bench(HOST, settings=UNRESERVED) as world:
        move = moving(world, "resize", request=L)
        world.tracker.finish_move(move)
        world.tracker.guests_seen("B", seen("i"), complete=True)
        late(world)
        assert status(world, move) == "finished"
        world.tracker.confirm_move(move)
        assert (vcpus(world), vcpus(world, "B")) == (0, 4)


def test_the_half_of_another_ledger_is_kept_while_its_guest_is_seen() -> None:
    """What came in with a token does not expire while the guest is seen here; the other ledger's half never does."""
    with bench(HOST) as world, bench(HOST) as other:
        world.tracker.hold(S, consumer="i", confirm=True)
        out = world.tracker.move_out("i", "migration")
        assert out.move is not None
        assert out.move.token is not None
        half = other.tracker.move_in(out.move.token, ttl_ms=TTL_MS)
        assert not isinstance(half, Refusal)
        other.tracker.guests_seen(NODE_ONE, seen("i"), complete=True)
        late(world)
        late(other)
        assert (vcpus(world), vcpus(other)) == (2, 2)
        other.tracker.guests_seen(NODE_ONE, [], complete=True)
        late(other)
        assert (vcpus(world), vcpus(other)) == (2, 0)


def test_a_look_is_kept_over_a_restart(tmp_path: Path) -> None:
    """A program that opens the ledger again knows who was seen last, and since when."""
    with SqliteStore(tmp_path / "ledger.db") as store, bench(HOST, store=store) as world:
        move = moving(world)
        world.tracker.guests_seen("B", seen("i", "j"), complete=True)
        first = world.tracker.last_look("B")
        assert first is not None
        assert (first.consumers, first.complete) == (("i", "j"), True)
        world.clock.move(1000)
        world.tracker.guests_seen("B", seen("j", "i"), complete=True)
        assert world.reopened().tracker.last_look("B") == first, "what shows nothing new is not written again"
        assert world.tracker.last_look() is None
        late(world.reopened())
        assert status(world, move) == "preparing"


def test_looks_are_bounded_and_an_unreadable_one_is_none() -> None:
    """Partial looks add up to GUESTS_MAX guests at most, the newest among them; what cannot be read keeps no leg."""
    with bench(HOST) as world:
        tracker = world.tracker
        tracker.keep_look(NODE_ONE, [ConsumerId(f"a{number}") for number in range(GUESTS_MAX)], complete=True)
        look = tracker.keep_look(NODE_ONE, [ConsumerId("z")], complete=False)
        assert len(look.consumers) == GUESTS_MAX
        assert look.consumers[-1] == "z"
        store = MemoryStore()
        with store.transaction() as tx:
            tx.put_observation(look_stream(NODE_ONE), 0, b'{"at_ms":')
            assert last_look(tx, NODE_ONE) is None
            assert keep_look(tx, NODE_ONE, [ConsumerId("i")], 5, complete=False).consumers == ("i",)
