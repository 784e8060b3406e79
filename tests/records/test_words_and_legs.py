"""What is said of instances and moves, in every state and in any order, and what the books are after each word."""

from __future__ import annotations

import itertools
import random
from typing import get_args

import msgspec
import pytest

from earmark.core.ledger.commands import Answer
from earmark.core.ledger.figures import figures
from earmark.core.model.instance import FREEING, InstanceState, MoveKind
from earmark.core.model.record import BEGUN, FINISHED, InstanceRecord, Listing, MoveRecord, StatusWord
from earmark.core.model.refusal import Refusal
from earmark.core.model.request import Request
from earmark.core.model.units import GIB
from earmark.stores.memory import MemoryStore
from earmark.testing import UNRESERVED, Bench, bench, machine

S = Request(vcpus=2, memory_bytes=2 * GIB, disk_bytes=20 * GIB)
L = Request(vcpus=4, memory_bytes=4 * GIB, disk_bytes=40 * GIB)
HOST = "2x8c 32G disk:200G"
HOUR_MS = 3_600_000
STATES: tuple[InstanceState, ...] = get_args(InstanceState)
WORDS: tuple[StatusWord, ...] = get_args(StatusWord)
HOLDING = tuple(state for state in STATES if state not in FREEING)
TASKS = (None, "resize_prep", "resize_migrating", "resize_finish", "migrating", "rebuilding", "rebuild_spawning", "powering-off")
SPOILED = 2000
NOTHING, SMALL, LARGE = (0, 0, 0), (2, 2048, 20), (4, 4096, 40)


def books(world: Bench, node: str | None = None) -> tuple[int, int, int]:
    """Return the figures of a node as the trade writes them: vCPUs, MiB, GiB."""
    found = figures(world.tracker.node(node))
    return found.vcpus, found.memory_mib, found.disk_gib


def both(world: Bench) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Return the figures of both nodes, looked at after an audit of each that found no error."""
    for node in ("n1", "B"):
        world.tracker.guests_seen(node, [])
        world.tracker.sweep(node)
    assert [finding for finding in world.tracker.audit() if finding.severity == "error"] == []
    return books(world), books(world, "B")


def moving(world: Bench, kind: MoveKind, request: Request | None = None) -> str:
    """Build i on n1 and begin to move it to B."""
    world.tracker.register("B", machine=machine(HOST), settings=UNRESERVED)
    assert isinstance(world.tracker.hold(S, consumer="i", owner="ann", confirm=True), Answer)
    world.tracker.report("i", "active")
    answer = world.tracker.open_move("i", kind, to="B", request=request, move_id="m-0001")
    assert not isinstance(answer, Refusal)
    return "m-0001"


@pytest.mark.rule("M10", "M11", "W15", "W16", "S17", "S19", "S20")
@pytest.mark.parametrize(("kind", "request_"), [("resize", L), ("migration", None), ("live_migration", None), ("evacuation", None)])
def test_no_state_task_or_word_moves_a_leg(kind: MoveKind, request_: Request | None) -> None:
    """Both legs count in full with every state and task of the instance and every word for the move, whatever an audit sees in between."""
    with bench(HOST) as world:
        move = moving(world, kind, request_)
        legs = (SMALL, LARGE if request_ is not None else SMALL)
        for state, task in itertools.product(HOLDING, TASKS):
            assert world.tracker.receive([InstanceRecord(consumer="i", owner="ann", state=state, task=task)], apply=True).clean
            assert both(world) == legs, (state, task)
        for word in WORDS:
            world.tracker.receive([MoveRecord(move=move, consumer="i", status=word)])
            assert both(world) == legs, word
        world.tracker.finish_move(move)
        for word in (*BEGUN, *FINISHED, "failed", "cancelled", "aborted", "expired", "deleted"):
            world.tracker.receive([MoveRecord(move=move, consumer="i", status=word)], apply=True)
            assert both(world) == legs, word


@pytest.mark.rule("M12", "M13", "W14", "S22")
@pytest.mark.parametrize("order", list(itertools.permutations(("m-0000", "m-0001", "m-0002"))))
def test_of_several_moves_the_one_that_is_open_counts(order: tuple[str, ...]) -> None:
    """Whatever of three moves was touched last, and in whatever order they are told: the closed ones are stale, the open one is untouched."""
    with bench(HOST) as world:
        world.tracker.register("B", machine=machine(HOST), settings=UNRESERVED)
        assert isinstance(world.tracker.hold(S, consumer="i", owner="ann", confirm=True), Answer)
        for move in ("m-0000", "m-0001", "m-0002"):
            assert not isinstance(world.tracker.open_move("i", "resize", to="B", request=L, move_id=move), Refusal)
            if move != "m-0002":
                world.tracker.revert_move(move)
        records = [
            MoveRecord(move=move, consumer="i", status="migrating", kind="resize", updated_at_ms=world.clock.now_ms() + number * HOUR_MS)
            for number, move in enumerate(order)
        ]
        received = world.tracker.receive(records, apply=True)
        assert [verdict.about for verdict in received.accepted] == ["move m-0002"]
        assert sorted(verdict.about for verdict in received.stale) == ["move m-0000", "move m-0001"]
        assert both(world) == (SMALL, LARGE)
        assert world.tracker.audit() == ()


@pytest.mark.rule("W17", "W18", "S21", "M17", "M18")
@pytest.mark.parametrize("word", ["confirmed", "completed", "done", "reverted", "aborted"])
def test_an_ending_that_is_applied_is_one_step(word: StatusWord) -> None:
    """No audit sees half of it: the legs are as before or as after, and a delete right afterwards frees all."""
    with bench(HOST) as world:
        move = moving(world, "live_migration")
        record = MoveRecord(move=move, consumer="i", status=word)
        before = world.store.last_position()
        assert world.tracker.receive([record], apply=True).clean
        after = {stored.raw.split(b'"correlation"')[0].split(b'"command":"')[1].split(b'"')[0] for stored in world.store.follow(before)}
        assert len(after) == 1, "one command, one append"
        assert both(world) == ((NOTHING, SMALL) if word in ("confirmed", "completed", "done") else (SMALL, NOTHING))
        for late in WORDS:
            world.tracker.receive([MoveRecord(move=move, consumer="i", status=late)], apply=True)
        assert both(world) in ((NOTHING, SMALL), (SMALL, NOTHING))
        assert world.tracker.receive([InstanceRecord(consumer="i", owner="ann", state="deleted")]).clean
        assert both(world) == (NOTHING, NOTHING)


@pytest.mark.rule("M14", "W11")
def test_a_record_without_its_size_stops_nobody() -> None:
    """A move whose size nobody knows any more is what its legs hold; a record that lacks what it must have is invalid, the next is heard."""
    with bench(HOST) as world:
        move = moving(world, "resize", L)
        records: list[object] = [
            {"record": "move", "move": move, "consumer": "i"}, {"record": "move", "move": move, "consumer": "i", "status": "running", "flavor": None},
            {"record": "move", "move": move, "consumer": "i", "status": "running"}, {"record": "instance", "consumer": "i", "owner": "ann", "state": "paused"},
        ]  # fmt: skip
        received = world.tracker.receive(records)
        assert [verdict.place for verdict in received.invalid] == [1, 2]
        assert [verdict.place for verdict in received.accepted] == [3, 4]
        assert both(world) == (SMALL, LARGE)


@pytest.mark.rule("W11", "X5")
def test_an_instance_that_cannot_be_read_stops_nobody() -> None:
    """A stream that is broken makes the record about it a verdict; the others are carried out."""
    store = MemoryStore()
    with bench(HOST, store=store, check=False) as world:
        for consumer in ("i", "j"):
            assert isinstance(world.tracker.hold(S, consumer=consumer, owner="ann", confirm=True), Answer)
            world.tracker.report(consumer, "active")
        first = next(stored for stored in store.follow(0) if stored.stream == "consumer:i")
        ledger = store._ledger
        spoiled = first._replace(raw=first.raw.replace(b'"kind"', b'"dnik"').replace(b'"name"', b'"eman"'))
        store._ledger = ledger._replace(events=ledger.events.set(first.position, spoiled))
        tracker = world.reopened().tracker
        records = [InstanceRecord(consumer=consumer, owner="ann", state="paused") for consumer in ("i", "j")]
        received = tracker.receive([*records, Listing(node="n1", consumers=("j",), complete=True)], apply=True)
        assert ([verdict.place for verdict in received.contradictory], [verdict.place for verdict in received.accepted]) == ([1], [2, 3])
        assert tracker.instance("j").instance.state == "paused"
        assert len(tracker.claims_of("i")) == len(tracker.claims_of("j")) == 1


@pytest.mark.long
@pytest.mark.rule("W11", "S24")
def test_spoiled_listings_change_no_book() -> None:
    """Of thousands of listings with something wrong in them, none that is only told ends or counts anything, and each gets a verdict."""
    draw = random.Random(24)  # noqa: S311 - a reproducible test
    odd: tuple[object, ...] = (
        "i",
        "j",
        "k",
        "ghost",
        "n1",
        "B",
        "",
        " ",
        "x" * 129,
        "\x00",
        None,
        True,
        False,
        0,
        -1,
        1 << 53,
        1.5,
        [],
        ["i"],
        {},
    )
    with bench(HOST) as world:
        move = moving(world, "migration")
        for consumer in ("j", "k"):
            assert isinstance(world.tracker.hold(S, consumer=consumer, owner="ann", confirm=True), Answer)
            world.tracker.report(consumer, "active")
        world.clock.move(HOUR_MS)
        before = [(world.tracker.instance(each), world.tracker.claims_of(each)) for each in ("i", "j", "k")]
        base = msgspec.to_builtins(Listing(node="n1", consumers=("i", "j", "k"), complete=True, at_ms=world.clock.now_ms()))
        for _ in range(SPOILED):
            record = {**base, draw.choice([*base, "more"]): draw.choice(odd)}
            record["consumers"] = draw.choice([record["consumers"], draw.sample(odd, 3), ["i", "j"]])
            raw = bytearray(msgspec.json.encode(record))
            if draw.random() < 0.3:
                raw[draw.randrange(len(raw))] = draw.randrange(256)
            received = world.tracker.receive([bytes(raw)])
            verdicts = [received.accepted, received.stale, received.contradictory, received.unknown, received.invalid]
            assert sum(len(each) for each in verdicts) == 1
            assert not any(each.changed for each in received.accepted)
        assert [(world.tracker.instance(each), world.tracker.claims_of(each)) for each in ("i", "j", "k")] == before
        assert world.tracker.move_status(world.tracker.find_move(move)) == "preparing"
