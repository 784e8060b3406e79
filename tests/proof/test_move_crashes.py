"""Crashes and interrupts in the middle of a move: both nodes and the consumer have changed, or none of them; a leg is never left without its move."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.proof.test_interrupts import Struck, strike_at
from tests.proof.worlds import granted
from tests.stores.faulty_vfs import FaultyVfs, Harm

from earmark.core.ledger.commands import ConfigureNode, ObserveMachine, RegisterNode
from earmark.core.ledger.life_commands import LifeAnswer
from earmark.core.model.ids import NodeId
from earmark.core.model.request import Request
from earmark.core.model.units import GIB
from earmark.errors import Conflict, LedgerUnavailable, OutcomeUnknown, Unavailable, UnknownClaim, UnknownMove, UnknownNode
from earmark.stores.contract import Store
from earmark.stores.memory import MemoryStore
from earmark.stores.sqlite.opening import Surroundings
from earmark.stores.sqlite.store import SqliteStore
from earmark.testing import UNRESERVED, Bench, FaultyStore, GivenClock, GivenHost, GivenProcesses, assert_sound, machine, on
from earmark.tracker.moving import MoveInHand

pytestmark = pytest.mark.long

B = NodeId("00000000-0000-4000-8000-00000000000b")
OWN = Request(vcpus=2, cpu_policy="dedicated", memory_bytes=GIB)
CONSUMERS = ("stays", "goes", "ends")
AFTER: dict[str, tuple[tuple[str, ...], ...]] = {
    "built": (("main n1",),),
    "opened": (("leg B", "main n1"),),
    "reverted": (("main n1",),),
    "confirmed": (("main B",),),
    "deleted": ((),),
}
"""What a consumer holds after each step, claim by claim."""
LIVES = {"stays": ("built", "opened", "reverted"), "goes": ("built", "opened", "confirmed"), "ends": ("built", "opened", "deleted")}


class Said(NamedTuple):
    """What came of a life until the disk failed: the steps that were acknowledged, and one whose outcome was left open."""

    done: tuple[tuple[str, str], ...]
    open: tuple[str, str] | None


def opened(store: Store) -> Bench:
    """Return a tracker on two nodes."""
    world = on(store, GivenHost(machine("8c 16G")), GivenClock(), GivenProcesses(), UNRESERVED)
    for command in (
        RegisterNode(node=B, name="B"),
        ObserveMachine(node=B, machine=machine("8c 16G")),
        ConfigureNode(node=B, settings=UNRESERVED),
    ):
        world.tracker._writer.submit(command)
    return world


def say(world: Bench, consumer: str, step: str) -> object:
    """Take one step of a life."""
    tracker = world.tracker
    acts: dict[str, Callable[[], object]] = {
        "built": lambda: tracker.hold(OWN, consumer=consumer, confirm=True),
        "opened": lambda: tracker.open_move(consumer, "migration", to="B"),
        "reverted": lambda: tracker.revert_move(consumer),
        "confirmed": lambda: tracker.confirm_move(consumer),
        "deleted": lambda: tracker.delete(consumer),
    }
    return acts[step]()


def live(ledger: Path, vfs: str) -> Said:
    """Live three lives, step by step beside each other, on a disk that fails somewhere."""
    done: list[tuple[str, str]] = []
    left_open: list[tuple[str, str]] = [("", "opened")]
    with suppress(Unavailable), SqliteStore(ledger, around=Surroundings(vfs=vfs)) as store:
        world = opened(store)
        left_open.clear()
        for consumer, step in ((consumer, LIVES[consumer][number]) for number in range(3) for consumer in CONSUMERS):
            try:
                say(world, consumer, step)
                done.append((consumer, step))
            except OutcomeUnknown:
                left_open.append((consumer, step))
                break
            except (Unavailable, UnknownClaim, UnknownMove, Conflict):
                continue  # this step failed, or the one before it did
    return Said(tuple(done), left_open[0] if left_open else None)


def held(world: Bench, consumer: str) -> tuple[str, ...]:
    """Return what a consumer holds: for what purpose, and where."""
    names = {world.tracker.home: "n1", B: "B"}
    return tuple(sorted(f"{claim.purpose} {names[claim.node]}" for claim in world.tracker.claims_of(consumer)))


def reopened(ledger: Path, said: Said) -> None:
    """Open the ledger on a sound disk: each life stands after its last acknowledged step, or after the one that was left open."""
    with SqliteStore(ledger) as store:
        world = opened(store)
        assert_sound(world.tracker)
        for consumer in CONSUMERS:
            steps = [step for name, step in said.done if name == consumer]
            stands = [AFTER[steps[-1]][0] if steps else ()]
            if said.open is not None and said.open[0] == consumer:
                stands.append(AFTER[said.open[1]][0])
            assert held(world, consumer) in stands
            assert [claim.move is None for claim in world.tracker.claims_of(consumer)].count(False) in (0, 2)
        for consumer in CONSUMERS:
            world.tracker.delete(consumer)
        assert dict(world.tracker.node().claims) == dict(world.tracker.node("B").claims) == {}
        assert_sound(world.tracker)


@pytest.mark.long
@pytest.mark.rule("W0", "W7", "W18", "W37")
@pytest.mark.parametrize(
    ("harm", "lasting", "step"),
    [
        ("io", False, 11),
        ("power", False, 13),
        pytest.param("io", False, 1, marks=pytest.mark.long),
        pytest.param("power", False, 1, marks=pytest.mark.long),
        pytest.param("full", True, 2, marks=pytest.mark.long),
    ],
)
def test_the_disk_fails_at_every_operation_of_a_move(tmp_path: Path, harm: Harm, step: int, *, lasting: bool) -> None:
    """At the n-th write or flush: open, confirm, revert and delete have happened on both nodes and in the consumer's stream, or on none."""
    sound = FaultyVfs("sound-moves")
    said = live(tmp_path / "sound" / "ledger.db", sound.vfs_name)
    assert len(said.done) == 9
    reopened(tmp_path / "sound" / "ledger.db", said)
    for at in range(1, len(sound.operations) + 1, step):
        ledger = tmp_path / f"{harm}{at}" / "ledger.db"
        vfs = FaultyVfs(f"moves-{harm}-{lasting}-{at}", at=at, harm=harm, lasting=lasting)
        said = live(ledger, vfs.vfs_name)
        if harm == "power":
            vfs.lose(random.Random(at), share=(0.0, 0.5, 1.0)[at % 3])  # noqa: S311 - a test case
        if ledger.exists():
            with suppress(UnknownNode):
                reopened(ledger, said)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("consumer", CONSUMERS)
def test_a_failed_commit_of_a_move(consumer: str, when: str) -> None:
    """Before the commit nothing has changed in the ledger or in memory; after it everything has; said again it is answered either way."""

    def fail() -> None:
        raise LedgerUnavailable("the disk fails in this test")

    faulty = FaultyStore(MemoryStore())
    world = opened(faulty.as_store())
    for number, step in enumerate(LIVES[consumer]):
        before = held(world, consumer)
        setattr(faulty, f"{when}_commit", fail)
        with pytest.raises(LedgerUnavailable):
            say(world, consumer, step)
        setattr(faulty, f"{when}_commit", int)
        assert held(world, consumer) == (before if when == "before" else AFTER[step][0])
        if when == "before":
            say(world, consumer, step)
        elif number == 2:
            again = say(world, consumer, step)
            assert isinstance(again, LifeAnswer)
            assert not again.changed
        assert held(world, consumer) == AFTER[step][0]
        assert_sound(world.tracker)


# --- interrupts ---------------------------------------------------------------------------------------------------------------------


def moved(world: Bench, act: Callable[[MoveInHand], object], number: int) -> bool:
    """Strike a block that moves an instance at one moment; say whether it was reached. Then no leg is without its open move."""
    came_out = False
    with strike_at(number) as struck:
        try:
            with world.tracker.move("vm", "migration", to="B") as move:
                act(move)
        except Struck:
            came_out = True
    assert world.tracker._writer._leader is None
    claims = world.tracker.claims_of("vm")
    open_moves = world.tracker.moves()
    legs = [claim for claim in claims if claim.move is not None]
    assert len(legs) == 2 * len(open_moves)
    assert {claim.move for claim in legs} == {move.id for move in open_moves}
    if came_out:  # in a generator that Python is just throwing away nobody hears of it
        known = world.tracker.instance_or_none(claims[0].consumer)
        assert known is None or (known.move is None and {move.outcome for move in known.moves} <= {"aborted", "confirmed", "deleted"})
    assert [claim.purpose for claim in claims if claim.leg != "destination"] == ["main"]
    world.tracker.delete("vm")
    world.tracker.create("vm")
    granted(world.tracker.hold(OWN, consumer="vm", confirm=True))
    return struck()


@pytest.mark.rule("W7", "W18")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("how", ["stay", "confirm"])
@pytest.mark.parametrize("step", [17, pytest.param(1, marks=pytest.mark.long)])
def test_an_interrupt_at_any_moment_of_a_move_leaves_nothing_half_done(how: str, step: int) -> None:
    """Struck at every moment (or some) of opening and confirming: the move was aborted, was confirmed, or never began."""
    world = opened(MemoryStore())
    granted(world.tracker.hold(OWN, consumer="vm", confirm=True))
    number = 1
    while moved(world, (lambda move: move.confirm()) if how == "confirm" else (lambda move: move.status), number):
        number += step
    assert number > 100
    assert_sound(world.tracker)
