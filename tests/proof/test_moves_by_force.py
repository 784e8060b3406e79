"""Every order of up to four commands about a move, each said twice, against tables written by hand: what a move is, and what each answer says."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import NamedTuple

import pytest
from msgspec.structs import replace
from tests.proof.worlds import granted, made

from earmark.core.ledger.commands import ConfigureNode, ObserveMachine, RegisterNode
from earmark.core.ledger.life_commands import LifeAnswer
from earmark.core.ledger.moves import Fate, status_of
from earmark.core.model.claim import Cause, Claim
from earmark.core.model.grant import Grant
from earmark.core.model.ids import ClaimId, ConsumerId, MoveId, NodeId, Owner
from earmark.core.model.instance import Leg, LegPair, Move, MoveKind
from earmark.core.model.request import Request
from earmark.core.model.units import GIB
from earmark.testing import UNRESERVED, Bench, GivenClock, GivenHost, GivenProcesses, assert_sound, machine, on

B = NodeId("00000000-0000-4000-8000-00000000000b")
SMALL = Request(vcpus=2, memory_bytes=2 * GIB)
COMMANDS = ("finish", "confirm", "revert", "abort", "expire", "delete")
ANSWERED = {
    "finish": "finished",
    "confirm": "confirmed",
    "revert": "reverted",
    "abort": "aborted",
    "expire": "expired",
    "delete": "deleted",
}
AFTER: dict[tuple[str, str], str] = {
    ("preparing", "finish"): "finished", ("preparing", "confirm"): "confirmed", ("preparing", "revert"): "reverted",
    ("preparing", "abort"): "aborted", ("preparing", "expire"): "expired", ("preparing", "delete"): "deleted",
    ("finished", "finish"): "finished", ("finished", "confirm"): "confirmed", ("finished", "revert"): "reverted",
    ("finished", "abort"): "aborted", ("finished", "expire"): "finished", ("finished", "delete"): "deleted",
}  # fmt: skip
"""What a move is after a command; a finished move has no deadline that could pass; a move that is over stays what it is."""
HOLDS: dict[str, tuple[int, int]] = {
    "preparing": (2, 2), "finished": (2, 2), "confirmed": (0, 2), "reverted": (2, 0), "aborted": (2, 0), "expired": (2, 0), "deleted": (0, 0),
}  # fmt: skip
"""The vCPUs that are held at the source and at the destination."""
MOVES: tuple[tuple[MoveKind, bool], ...] = (
    ("resize", False), ("resize", True), ("migration", False), ("migration", True), ("live_migration", False), ("evacuation", False),
)  # fmt: skip


class Course(NamedTuple):
    """A world with one consumer in one move."""

    world: Bench
    move: MoveId
    same: bool
    kind: MoveKind


def begun(kind: MoveKind, folder: Path, store: str, *, same: bool) -> Course:
    """Open a move in a new world."""
    settings = replace(UNRESERVED, allow_migrate_to_same_host=True)
    world = on(made(store, folder), GivenHost(machine("8c 32G")), GivenClock(), GivenProcesses(), settings)
    for command in (
        RegisterNode(node=B, name="B"),
        ObserveMachine(node=B, machine=machine("8c 32G")),
        ConfigureNode(node=B, settings=settings),
    ):
        world.tracker._writer.submit(command)
    granted(world.tracker.hold(SMALL, consumer="vm", confirm=True))
    answer = world.tracker.open_move("vm", kind, to=None if same else "B", ttl_ms=1000)
    assert isinstance(answer, LifeAnswer)
    assert answer.move is not None
    return Course(world, answer.move.id, same, kind)


def say(course: Course, command: str) -> LifeAnswer | None:
    """Say one command; time alone is no command and has no answer."""
    tracker = course.world.tracker
    if command == "expire":
        course.world.clock.move(1001)
        tracker.sweep()
        tracker.sweep("B")
        return None
    if command == "delete":
        return tracker.delete("vm")
    end: dict[str, Callable[[str], LifeAnswer]] = {
        "finish": tracker.finish_move, "confirm": tracker.confirm_move, "revert": tracker.revert_move, "abort": tracker.abort_move,
    }  # fmt: skip
    return end[command](course.move)


def holds(course: Course) -> tuple[int, int]:
    """Return the vCPUs held by source legs (or what stayed) and by destination legs, wherever they are."""
    counts = {"source": 0, "destination": 0}
    pair = course.world.tracker.find_move(course.move).legs[0]
    for claim in course.world.tracker.claims_of("vm"):
        counts["source" if pair.source is not None and claim.id == pair.source.claim else "destination"] += claim.request.vcpus
    return counts["source"], counts["destination"]


def expected_holds(status: str, over: str | None, kind: MoveKind) -> tuple[int, int]:
    """Return what is to be held: an evacuated source stays until its host is back, and an instance that is deleted later holds nothing else."""
    kept = 2 if kind == "evacuation" and status == "confirmed" else 0
    return (kept, 0) if over == "deleted" and status != "deleted" else (kept or HOLDS[status][0], HOLDS[status][1])


def play(course: Course, commands: tuple[str, ...]) -> None:
    """Say each command twice and compare status, answer and books with the tables."""
    status, deleted = "preparing", None
    tracker = course.world.tracker
    for command in commands:
        over = status not in ("preparing", "finished")
        after = status if over else AFTER[status, command]
        changes = not over and (after != status)
        first_delete = command == "delete" and deleted is None
        deleted = "deleted" if command == "delete" else deleted
        for turn in range(2):
            before = course.world.store.last_position()
            answer = say(course, command)
            written = course.world.store.last_position() != before
            assert written == (turn == 0 and (changes or first_delete)), (commands, command, turn)
            if answer is not None:
                assert answer.changed == written
                assert answer.outcome == (ANSWERED[command] if not over or command == "delete" else status)
            assert tracker.move_status(tracker.find_move(course.move)) == after
            assert holds(course) == expected_holds(after, deleted, course.kind), (commands, command)
        status = after
    assert_sound(tracker)


@pytest.mark.long
@pytest.mark.rule("W1", "W2", "M15", "M16", "M17", "M18", "M31")
@pytest.mark.parametrize(("kind", "same"), MOVES, ids=str)
def test_every_order_of_commands_in_memory(kind: MoveKind, tmp_path: Path, *, same: bool) -> None:
    """All sequences of three commands, each said twice: the status is that of the table, the second time nothing is written."""
    for commands in product(COMMANDS, repeat=3):
        play(begun(kind, tmp_path, "memory", same=same), commands)


@pytest.mark.long
@pytest.mark.parametrize(("kind", "same"), MOVES, ids=str)
def test_every_order_of_four_commands(kind: MoveKind, tmp_path: Path, *, same: bool) -> None:
    """The same with four, beginning with every pair that leaves the move open or has just ended it."""
    for commands in product(("finish", "confirm", "revert", "delete"), COMMANDS, COMMANDS, ("finish", "confirm", "revert", "delete")):
        play(begun(kind, tmp_path, "memory", same=same), commands)


@pytest.mark.long
@pytest.mark.parametrize(("kind", "same"), MOVES, ids=str)
def test_every_order_of_commands_on_disk(kind: MoveKind, tmp_path: Path, *, same: bool) -> None:
    """All sequences of two on SQLite files."""
    for number, commands in enumerate(product(COMMANDS, repeat=2)):
        course = begun(kind, tmp_path / str(number), "sqlite", same=same)
        play(course, commands)
        course.world.store.close()


# --- the function alone -------------------------------------------------------------------------------------------------------------

MOVE = MoveId("m-1")


def leg(name: str) -> Leg:
    """Return a leg."""
    return Leg(node=B, claim=ClaimId(name))


def claim(name: str, *, mine: bool, phase: str = "held", purpose: str = "main", cause: Cause | None = None) -> Claim:
    """Return a live claim, in this move or not."""
    return Claim(
        id=ClaimId(name), node=B, consumer=ConsumerId("vm"), owner=Owner("ann"), request=SMALL, grant=Grant(), phase=phase, purpose=purpose,  # type: ignore[arg-type]  # from the tables
        move=MOVE if mine else None, cause=cause,
    )  # fmt: skip


SOURCES: dict[str, Fate | None] = {
    "in the move": Fate(claim("c-s", mine=True), "main", None),
    "its own": Fate(claim("c-s", mine=False), "main", None),
    "draining, moved": Fate(claim("c-s", mine=True, phase="draining", purpose="leg", cause="moved"), "leg", None),
    "draining, evacuated": Fate(claim("c-s", mine=True, phase="draining", purpose="leg", cause="evacuated"), "leg", None),
    "ended, moved": Fate(None, "leg", "moved"),
    "ended, released": Fate(None, "main", "released"),
    "unknown": None,
}
TARGETS: dict[str, Fate | None] = {
    "held": Fate(claim("c-d", mine=True, purpose="leg"), "leg", None),
    "confirmed": Fate(claim("c-d", mine=True, purpose="leg", phase="confirmed"), "leg", None),
    "main": Fate(claim("c-d", mine=False, phase="confirmed"), "main", None),
    "ended as main": Fate(None, "main", "released"),
    "left later": Fate(None, "leg", "moved"),
    "evacuated later": Fate(claim("c-d", mine=False, phase="draining", purpose="leg", cause="evacuated"), "leg", None),
    "draining, reverted": Fate(claim("c-d", mine=True, phase="draining", purpose="leg", cause="reverted"), "leg", None),
    "reverted": Fate(None, "leg", "reverted"),
    "aborted": Fate(None, "leg", "aborted"),
    "expired": Fate(None, "leg", "expired"),
    "deleted": Fate(None, "leg", "deleted"),
    "released": Fate(None, "leg", "released"),
    "unknown": None,
}
CONFIRMED = {"main", "ended as main", "left later", "evacuated later"}
ENDED = {
    "draining, reverted": "reverted",
    "reverted": "reverted",
    "aborted": "aborted",
    "expired": "expired",
    "deleted": "deleted",
    "released": "deleted",
}


def by_hand(source: str, target: str) -> str:
    """Say what two legs mean, in words of the table."""
    if source == "unknown" or target == "unknown":
        return "contradictory"
    if target in CONFIRMED:
        return "contradictory" if source == "in the move" else "confirmed"
    if target in ENDED:
        return ENDED[target]
    if source != "in the move":
        return "contradictory"
    return "preparing" if target == "held" else "finished"


@pytest.mark.rule("W5", "W14", "W18", "M10")
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("source", SOURCES)
def test_two_legs_say_what_a_move_is(source: str, target: str) -> None:
    """Every state of one leg with every state of the other: one status, and `contradictory` where both cannot be."""
    move = Move(id=MOVE, consumer=ConsumerId("vm"), kind="resize", legs=(LegPair(source=leg("c-s"), destination=leg("c-d")),))
    fates = {ClaimId(name): fate for name, fate in (("c-s", SOURCES[source]), ("c-d", TARGETS[target])) if fate is not None}
    assert status_of(move, fates) == by_hand(source, target)


@pytest.mark.parametrize("target", TARGETS)
def test_a_half_speaks_for_itself(target: str) -> None:
    """Where the source lives in another ledger the destination alone says what the move is."""
    move = Move(id=MOVE, consumer=ConsumerId("vm"), kind="resize", legs=(LegPair(destination=leg("c-d")),))
    fate = TARGETS[target]
    expected = by_hand("in the move", target) if target not in CONFIRMED else "confirmed"
    assert status_of(move, {ClaimId("c-d"): fate} if fate is not None else {}) == expected


@pytest.mark.parametrize(
    ("source", "outcome", "status"),
    [
        ("in the move", None, "preparing"), ("its own", "reverted", "reverted"), ("its own", "aborted", "aborted"),
        ("draining, moved", None, "confirmed"), ("ended, moved", "confirmed", "confirmed"), ("ended, released", None, "deleted"),
        ("unknown", None, "contradictory"),
    ],
)  # fmt: skip
def test_a_half_at_the_source_speaks_for_itself(source: str, outcome: str | None, status: str) -> None:
    """Where the destination lives in another ledger the source says what the move is, with the recorded outcome once it is its own again."""
    move = Move(
        id=MOVE, consumer=ConsumerId("vm"), kind="resize", legs=(LegPair(source=leg("c-s")),), outcome=outcome  # type: ignore[arg-type]  # from the table
    )  # fmt: skip
    fate = SOURCES[source]
    assert status_of(move, {ClaimId("c-s"): fate} if fate is not None else {}) == status
