"""What a compute service says of instances and moves, and what is believed of it."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest

from earmark.core.ledger.commands import Answer
from earmark.core.ledger.figures import figures
from earmark.core.model.ids import ConsumerId, NodeId
from earmark.core.model.record import InstanceRecord, MoveRecord
from earmark.core.model.refusal import Refusal
from earmark.core.model.request import DeviceRequest, Request
from earmark.core.model.units import GIB
from earmark.errors import LedgerUnavailable, UnknownNode
from earmark.stores.memory import MemoryStore
from earmark.testing import UNRESERVED, Bench, FaultyStore, bench, machine

S = Request(vcpus=2, memory_bytes=2 * GIB, disk_bytes=20 * GIB)
L = Request(vcpus=4, memory_bytes=4 * GIB, disk_bytes=40 * GIB)
HOST = "2x8c 32G disk:200G"


def two(world: Bench) -> NodeId:
    """Return the uuid of a second node, B."""
    return world.tracker.register("B", machine=machine(HOST), settings=UNRESERVED).node


def built(world: Bench, consumer: str, request: Request = S) -> None:
    """Hold and confirm a claim on the home node, and say that the instance is active."""
    assert isinstance(world.tracker.hold(request, consumer=consumer, owner="ann", confirm=True), Answer)
    world.tracker.report(consumer, "active")


def moved(world: Bench, consumer: str, request: Request | None = L) -> str:
    """Begin a move to B and return its id."""
    answer = world.tracker.open_move(consumer, "resize" if request else "migration", to="B", request=request)
    assert not isinstance(answer, Refusal)
    assert answer.move is not None
    return answer.move.id


def vcpus(world: Bench, node: str | None = None) -> int:
    """Return the vCPUs in use on a node."""
    return figures(world.tracker.node(node)).vcpus


def said(consumer: str = "i", **more: object) -> dict[str, object]:
    """Return an instance record as it comes from outside."""
    return {"record": "instance", "consumer": consumer, "owner": "ann", "state": "paused", **more}


@pytest.mark.rule("L12", "W11")
def test_a_good_record_is_reported_and_a_bad_one_stops_nobody() -> None:
    """Each record gets one verdict at its place, and those around a broken one are carried out."""
    with bench(HOST) as world:
        built(world, "i")
        built(world, "j")
        records = [said("i"), b"{", said("j", state="on fire"), said("nobody"), b"\xff\xff", said("j", state="stopped")]
        received = world.tracker.receive(records)
        assert [verdict.place for verdict in received.accepted] == [1, 6]
        assert [verdict.place for verdict in received.invalid] == [2, 3, 5]
        assert [verdict.place for verdict in received.unknown] == [4]
        assert [state.instance.state for state in world.tracker.instances()] == ["paused", "stopped"]
        again = world.tracker.receive(records)
        assert [verdict.changed for verdict in again.accepted] == [False, False]
        assert vcpus(world) == 4


@pytest.mark.rule("L13")
def test_a_record_of_who_never_claimed_changes_nothing() -> None:
    """No claim, no record, no figure comes of it."""
    with bench(HOST) as world:
        position = world.store.last_position()
        received = world.tracker.receive([said("g", state="active", node=world.tracker.home)])
        assert len(received.unknown) == 1
        assert world.store.last_position() == position


@pytest.mark.parametrize(
    ("record", "kind"),
    [
        (said(owner="eve"), "contradictory"),
        (said(node="B"), "contradictory"),
        (said(node="nowhere"), "unknown"),
        (said(generation=1), "stale"),
        (said(generation=99), "contradictory"),
        (said(generation=2), "accepted"),
        (said(kind="container"), "contradictory"),
        (said(uuid="00000000-0000-4000-8000-00000000000a"), "contradictory"),
        (said(owner="eve", state="deleted"), "contradictory"),
        (said(generation=1, state="deleted"), "stale"),
        (said(consumer=" i"), "invalid"),
        (said(generation=0), "invalid"),
        (said(generation=True), "invalid"),
        (said(more="than asked"), "invalid"),
        (said(name="\ud800"), "invalid"),
    ],
)
@pytest.mark.rule("W11", "M13")
def test_whose_where_and_how_old_is_checked(record: dict[str, object], kind: str) -> None:
    """Owner, node, generation, uuid and kind are compared, and what does not fit changes nothing."""
    with bench(HOST) as world:
        two(world)
        built(world, "i")
        claim = world.tracker.claims_of("i")[0]
        assert isinstance(world.tracker.renew(claim.id, None), Answer)
        state = world.tracker.instance("i")
        received = world.tracker.receive([record])
        assert [len(verdicts) for verdicts in (getattr(received, kind),)] == [1]
        assert received.clean == (kind == "accepted")
        if kind != "accepted":
            assert world.tracker.instance("i") == state
        assert vcpus(world) == 2


@pytest.mark.rule("S22", "W14", "M12", "M13")
def test_a_stale_move_is_closed_and_the_real_one_untouched() -> None:
    """The old move was touched last; it is answered stale, and the destination stays held by the real one."""
    with bench(HOST) as world:
        two(world)
        built(world, "i")
        old = moved(world, "i")
        world.tracker.abort_move(old)
        real = moved(world, "i")
        late = world.clock.now_ms() + 3_600_000
        position = world.store.last_position()
        received = world.tracker.receive(
            [
                MoveRecord(move=old, consumer="i", status="error", kind="resize", destination="B", updated_at_ms=late),
                MoveRecord(move=real, consumer="i", status="migrating", kind="resize", destination="B", updated_at_ms=1),
                MoveRecord(move="m-0000", consumer="i", status="error", updated_at_ms=late),
            ],
            apply=True,
        )
        assert [verdict.place for verdict in received.stale] == [1]
        assert [verdict.place for verdict in received.accepted] == [2]
        assert real in received.unknown[0].reason
        assert world.store.last_position() == position
        assert (vcpus(world), vcpus(world, "B")) == (2, 4)
        assert world.tracker.audit() == ()


@pytest.mark.rule("M10", "W18", "W16", "W15")
def test_a_word_moves_no_leg_unless_an_ending_is_asked_for() -> None:
    """A status word is compared with the legs; only an ending, and only with apply, confirms, reverts or aborts."""
    with bench(HOST) as world:
        two(world)
        built(world, "i")
        for word, left in (("aborted", (2, 0)), ("reverted", (2, 0)), ("confirmed", (0, 4))):
            move = moved(world, "i")
            record = {"record": "move", "move": move, "consumer": "i", "status": word}
            for same in ("error", "accepted"):
                assert world.tracker.receive([{**record, "status": same}], apply=True).clean
            for other in (word, "finished", "reverting"):
                assert len(world.tracker.receive([{**record, "status": other}]).contradictory) == 1
            for other in ("failed", "cancelled"):
                assert len(world.tracker.receive([{**record, "status": other}], apply=True).contradictory) == 1
            assert [finding.code for finding in world.tracker.audit()] == ["move_contradicted"]
            assert (vcpus(world), vcpus(world, "B")) == (2, 4)
            done = world.tracker.receive([record], apply=True)
            assert [verdict.changed for verdict in done.accepted] == [True]
            assert (vcpus(world), vcpus(world, "B")) == left
            assert world.tracker.receive([record], apply=True).clean
            assert len(world.tracker.receive([{**record, "status": "running"}], apply=True).stale) == 1
        assert world.tracker.audit() == ()


@pytest.mark.parametrize(
    ("more", "kind"),
    [
        ({"kind": "evacuation"}, "contradictory"),
        ({"source": "B"}, "contradictory"),
        ({"destination": "nowhere"}, "unknown"),
        ({"consumer": "j"}, "contradictory"),
        ({"owner": "eve"}, "contradictory"),
        ({"destination_generation": 7}, "contradictory"),
        ({"source_generation": 1}, "stale"),
        ({"status": "exploded"}, "invalid"),
        ({"move": "17"}, "invalid"),
        ({"status": "confirmed", "owner": "eve"}, "contradictory"),
    ],
)
@pytest.mark.rule("M13", "M14", "W14", "W17")
def test_a_move_record_that_does_not_fit_ends_nothing(more: dict[str, object], kind: str) -> None:
    """Kind, nodes, consumer, owner and generations of a move are compared before its word is looked at."""
    with bench(HOST) as world:
        two(world)
        built(world, "i")
        built(world, "j")
        record = {"record": "move", "move": moved(world, "i"), "consumer": "i", "status": "confirmed", **more}
        before = [world.tracker.claims_of(consumer) for consumer in ("i", "j")]
        assert len(getattr(world.tracker.receive([record], apply=True), kind)) == 1
        assert [world.tracker.claims_of(consumer) for consumer in ("i", "j")] == before


def test_two_records_of_one_batch_that_disagree() -> None:
    """The first is believed, the second isolated; the same twice is no disagreement."""
    with bench(HOST) as world:
        built(world, "i")
        received = world.tracker.receive([said(state="stopped"), said(state="stopped"), said(state="active")])
        assert ([v.place for v in received.accepted], [v.place for v in received.contradictory]) == ([1, 2], [3])
        assert world.tracker.instance("i").instance.state == "stopped"


@pytest.mark.rule("S24", "L11")
def test_only_a_complete_listing_ends_what_it_lacks() -> None:
    """A partial listing, a listing of another node and one with an unreadable record end nothing; a complete one frees the device."""
    one = Request(vcpus=2, memory_bytes=2 * GIB, devices=(DeviceRequest(kind="vf"),))
    with bench(HOST + " vf:4") as world:
        world.tracker.register("B", machine=machine(HOST + " vf:4"), settings=UNRESERVED)
        for consumer in ("i", "j", "k"):
            built(world, consumer, one)
        world.tracker.hold(S, consumer="somebody", confirm=True)
        moved(world, "k", None)
        assert len(figures(world.tracker.node()).devices) == 3
        home = world.tracker.node().name
        listing: list[object] = [InstanceRecord(consumer="j", owner="ann", state="active")]
        assert world.tracker.receive(listing).gone == ()
        assert world.tracker.receive(listing, complete=["B"]).gone == ()
        broken = world.tracker.receive([*listing, b"?"], complete=[home])
        assert (broken.gone, bool(broken.listing)) == ((), True)
        assert vcpus(world) == 8
        told = world.tracker.receive(listing, complete=[home])
        assert ([(verdict.about, verdict.changed) for verdict in told.gone], told.clean) == ([("instance i", False)], False)
        assert vcpus(world) == 8, "it is only told without apply"
        received = world.tracker.receive(listing, complete=[home], apply=True)
        assert [(verdict.about, verdict.changed) for verdict in received.gone] == [("instance i", True)]
        assert (vcpus(world), world.tracker.instance("i").instance.state) == (6, "deleted")
        assert len(figures(world.tracker.node()).devices) == 2
        both = world.tracker.receive(listing, complete=[home, "B"], apply=True)
        assert (both.gone, vcpus(world), vcpus(world, "B")) == ((), 6, 2), "k is in a move between both"
        world.tracker.abort_move("k")
        last = world.tracker.receive(listing, complete=[home, "B"], apply=True)
        assert [verdict.about for verdict in last.gone] == ["instance k"]
        assert (vcpus(world), vcpus(world, "B")) == (4, 0)
        assert world.tracker.receive(listing, complete=[home, "B"], apply=True).gone == ()


def test_a_listing_of_an_unknown_node_is_refused_whole() -> None:
    """Nothing is carried out if it is not known what the listing is complete for."""
    with bench(HOST) as world:
        built(world, "i")
        with pytest.raises(UnknownNode):
            world.tracker.receive([said()], complete=["nowhere"])
        assert world.tracker.instance("i").instance.state == "active"


@pytest.mark.rule("S46", "W0")
def test_records_that_cannot_be_read_to_the_end_change_nothing() -> None:
    """All is read before the first is carried out: a source that fails in the middle has changed nothing."""

    def source() -> Iterator[object]:
        yield said()
        raise OSError("the connection was lost")

    with bench(HOST) as world:
        built(world, "i")
        position = world.store.last_position()
        with pytest.raises(OSError, match="lost"):
            world.tracker.receive(source())
        assert world.store.last_position() == position
        assert world.tracker.receive([msgspec.json.encode(said())]).clean


class Unreadable(FaultyStore):
    """A store whose claims cannot be looked up after some look-ups."""

    left = 1 << 30

    def claims_of(self, consumer: ConsumerId) -> object:
        """Return the claims of a consumer, as long as reading works."""
        self.left -= 1
        if self.left < 0:
            raise LedgerUnavailable("the disk does not answer")
        return self.inner.claims_of(consumer)


@pytest.mark.rule("S46", "W0")
def test_a_ledger_that_cannot_be_read_half_way_changes_nothing() -> None:
    """Where reading fails at the second record, the first is not carried out either, and the same records are right later."""
    store = Unreadable(MemoryStore())
    with bench(HOST, store=store.as_store()) as world:
        for consumer in ("i", "j"):
            built(world, consumer)
        position = world.store.last_position()
        store.left = 1
        with pytest.raises(LedgerUnavailable):
            world.tracker.receive([said("i"), said("j")], complete=[world.tracker.home])
        assert world.store.last_position() == position
        store.left = 1 << 30
        assert world.tracker.receive([said("i"), said("j")], complete=[world.tracker.home]).clean
