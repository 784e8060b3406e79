"""Listings of a node's instances, and contradictions that are remembered until they are resolved."""

from __future__ import annotations

from pathlib import Path

import pytest

from earmark.core.ledger.commands import Answer
from earmark.core.ledger.figures import figures
from earmark.core.model.record import InstanceRecord, Listing, MoveRecord
from earmark.core.model.refusal import Refusal
from earmark.core.model.request import DeviceRequest, Request
from earmark.core.model.units import GIB
from earmark.stores.sqlite.store import SqliteStore
from earmark.testing import UNRESERVED, Bench, bench, machine

S = Request(vcpus=2, memory_bytes=2 * GIB, disk_bytes=20 * GIB)
WITH_VF = Request(vcpus=2, memory_bytes=2 * GIB, disk_bytes=20 * GIB, devices=(DeviceRequest(kind="vf"),))
HOST = "2x8c 32G disk:200G vf:4"


def built(world: Bench, *consumers: str, request: Request = S, node: str | None = None) -> None:
    """Hold and confirm claims of some consumers, and say that they are active; then time passes."""
    for consumer in consumers:
        assert isinstance(world.tracker.hold(request, consumer=consumer, owner="ann", node=node, confirm=True), Answer)
        world.tracker.report(consumer, "active")
    world.clock.move(1000)


def books(world: Bench, node: str | None = None) -> tuple[int, int, int]:
    """Return (vCPUs, GiB, devices) in use on a node."""
    found = figures(world.tracker.node(node))
    return found.vcpus, found.memory_bytes // GIB, len(found.devices)


def found(world: Bench) -> list[tuple[str, str]]:
    """Return the codes of what an audit finds, and what each is about."""
    return [(finding.code, finding.detail.split('"')[1]) for finding in world.tracker.audit()]


def second(world: Bench) -> None:
    """Enter a second node, B."""
    world.tracker.register("B", machine=machine(HOST), settings=UNRESERVED)


def begun(world: Bench, consumer: str, move_id: str) -> str:
    """Begin to migrate a consumer to B."""
    answer = world.tracker.open_move(consumer, "migration", to="B", move_id=move_id)
    assert not isinstance(answer, Refusal)
    return move_id


@pytest.mark.rule("S24", "L11", "A3")
def test_a_complete_listing_tells_who_is_missing_and_deletes_only_when_applied() -> None:
    """The record is gone, the device of its instance is held until somebody says apply; then it is free, and the finding is over."""
    with bench(HOST) as world:
        built(world, "i", "j", request=WITH_VF)
        listing = Listing(node="n1", consumers=("j",), complete=True)
        partial = Listing(node="n1", consumers=("j",))
        assert world.tracker.receive([partial], apply=True).clean
        told = world.tracker.receive([listing])
        assert [verdict.reason for verdict in told.contradictory] == ["i hold something there and are not listed"]
        assert (books(world), found(world)) == ((4, 4, 2), [("unlisted", "listing of n1")])
        done = world.tracker.receive([listing], apply=True)
        assert (done.clean, [verdict.changed for verdict in done.accepted]) == (True, [True])
        assert (books(world), found(world)) == ((2, 2, 1), [])
        assert world.tracker.instance("i").instance.state == "deleted"
        again = world.tracker.receive([listing], apply=True)
        assert (again.clean, [verdict.changed for verdict in again.accepted]) == (True, [False])


@pytest.mark.rule("S24", "M10", "L7")
def test_what_is_on_its_way_is_not_missing() -> None:
    """In a move, being built, held and not confirmed, claimed since the listing was read, on another node too, of no instance: all stay."""
    with bench(HOST) as world:
        second(world)
        built(world, "moving", "older")
        begun(world, "moving", "m-0001")
        assert isinstance(world.tracker.hold(S, consumer="building", owner="ann", confirm=True), Answer)
        world.tracker.report("building", "building")
        assert isinstance(world.tracker.hold(S, consumer="held", owner="ann"), Answer)
        world.tracker.report("held", "active")
        assert isinstance(world.tracker.hold(S, consumer="nobody", owner="ann", confirm=True), Answer)
        read_ms = world.clock.now_ms()
        built(world, "younger")
        received = world.tracker.receive([Listing(node="n1", consumers=(), complete=True, at_ms=read_ms)], apply=True)
        assert [verdict.reason for verdict in received.accepted] == ["deleted: older"]
        assert books(world) == (10, 10, 0)
        assert books(world, "B") == (2, 2, 0)


@pytest.mark.rule("W11", "L13")
def test_a_listing_of_strangers_is_told_and_counts_nothing() -> None:
    """Who is listed and never claimed, or holds something elsewhere, is named; no book changes, and being listed twice is no listing."""
    with bench(HOST) as world:
        second(world)
        built(world, "i")
        built(world, "b", node="B")
        before = (books(world), books(world, "B"))
        received = world.tracker.receive([Listing(node="n1", consumers=("i", "b", "ghost"), complete=True)], apply=True)
        assert [verdict.reason for verdict in received.contradictory] == ["b, ghost are listed and hold nothing there"]
        odd = [
            Listing(node="n1", consumers=("i", "i"), complete=True), Listing(node="n1", consumers=(" i",), complete=True),
            Listing(node="nowhere", consumers=(), complete=True),
        ]  # fmt: skip
        verdicts = [world.tracker.receive([each], apply=True) for each in odd]
        assert [len(each.invalid) for each in verdicts] == [1, 1, 0]
        assert len(verdicts[2].unknown) == 1
        assert (books(world), books(world, "B")) == before
        assert found(world) == [("unlisted", "listing of n1")]


def test_an_instance_is_listed_by_its_uuid_too() -> None:
    """A compute service that knows only uuids misses nobody."""
    uuid = "00000000-0000-4000-8000-0000000000aa"
    with bench(HOST) as world:
        world.tracker.create("i", uuid=uuid, owner="ann")
        built(world, "i")
        assert world.tracker.receive([Listing(node="n1", consumers=(uuid,), complete=True)], apply=True).clean
        assert books(world) == (2, 2, 0)


@pytest.mark.rule("W11", "M13")
def test_a_contradiction_is_remembered_until_a_record_agrees() -> None:
    """An audit names what was contradicted; a record about somebody else leaves it, one about the same that fits ends it."""
    with bench(HOST) as world:
        second(world)
        built(world, "i", 'i": x')
        wrong = InstanceRecord(consumer="i", owner="ann", state="active", node="B")
        assert len(world.tracker.receive([wrong]).contradictory) == 1
        assert found(world) == [("contradicted", "instance i")]
        position = world.store.last_position()
        world.tracker.receive([wrong])
        assert world.store.last_position() == position, "the same again writes nothing"
        world.tracker.receive([InstanceRecord(consumer='i": x', owner="ann", state="active"), b"{", {"record": "instance"}])
        assert found(world) == [("contradicted", "instance i")]
        world.tracker.receive([InstanceRecord(consumer="i", owner="ann", state="active", generation=1)])
        assert found(world) == [("contradicted", "instance i")], "what is stale settles nothing"
        uuid = world.tracker.instance("i").instance.uuid
        world.tracker.receive([InstanceRecord(consumer=uuid, owner="ann", state="active", node="n1")])
        assert found(world) == []


@pytest.mark.rule("M10", "M13", "S17")
def test_what_is_said_of_a_move_is_over_with_the_move(tmp_path: Path) -> None:
    """A word that the legs do not bear out is found by audits, after a restart too, until the move has ended by whatever command."""
    with SqliteStore(tmp_path / "ledger.db") as store, bench(HOST, store=store) as world:
        second(world)
        built(world, "i")
        move = begun(world, "i", "m-0001")
        failed = MoveRecord(move=move, consumer="i", status="failed")
        assert len(world.tracker.receive([failed], apply=True).contradictory) == 1
        assert (books(world), books(world, "B")) == ((2, 2, 0), (2, 2, 0))
        assert found(world.reopened()) == [("move_contradicted", "move m-0001")]
        world.tracker.confirm_move(move)
        assert found(world) == []
        assert (books(world), books(world, "B")) == ((0, 0, 0), (2, 2, 0))
        late = world.tracker.receive([failed], apply=True)
        assert (len(late.stale), found(world)) == (1, [])


def test_what_is_said_of_a_claim_is_over_with_the_claim() -> None:
    """Nothing is found of an instance that holds nothing any more."""
    with bench(HOST) as world:
        built(world, "i")
        world.tracker.receive([InstanceRecord(consumer="i", owner="eve", state="active")])
        assert found(world) == [("contradicted", "instance i")]
        world.tracker.delete("i")
        assert found(world) == []
        world.tracker.receive([])
        assert dict(world.tracker.node().findings) == {}


@pytest.mark.rule("M21", "W15")
def test_an_evacuated_host_that_speaks_up_is_contradicted() -> None:
    """The host is back and says that it still runs the guest: that is told, and the guest stays where it was evacuated to."""
    with bench(HOST) as world:
        second(world)
        built(world, "i")
        answer = world.tracker.open_move("i", "evacuation", to="B", move_id="m-0001")
        assert not isinstance(answer, Refusal)
        world.tracker.report("i", "error", task="rebuilding")
        world.tracker.confirm_move("m-0001")
        old = InstanceRecord(consumer="i", owner="ann", state="active", node="n1")
        assert len(world.tracker.receive([old]).contradictory) == 1
        assert (world.tracker.instance("i").instance.state, books(world, "B")) == ("error", (2, 2, 0))
        assert world.tracker.receive([InstanceRecord(consumer="i", owner="ann", state="active", node="B")]).clean
