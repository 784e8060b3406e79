"""Random lives of instances over three nodes: every step predicted by a dictionary of claims, audited, and said again from its seed.

`make prove` walks further: EARMARK_TEST_STEPS says how many steps, EARMARK_TEST_SEED takes one walk alone (its number stands in every failure).
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from pathlib import Path

import pytest
from tests.proof.lives_walk import Walk, seeds
from tests.proof.worlds import granted

from earmark.core.ledger.life_commands import LifeAnswer
from earmark.core.model.claim import Holder
from earmark.core.model.instance import Move
from earmark.core.model.request import Request
from earmark.core.model.units import GIB
from earmark.errors import Conflict
from earmark.stores.memory import MemoryStore
from earmark.stores.sqlite.store import SqliteStore
from earmark.testing import UNRESERVED, bench, machine

STEPS = int(os.environ.get("EARMARK_TEST_STEPS", "10000"))
"""What `make prove` makes greater."""
SEED = os.environ.get("EARMARK_TEST_SEED")
STEPS_EACH = 250
PROGRESS_EVERY = 10_000
SMALL = Request(vcpus=1, memory_bytes=GIB, disk_bytes=10 * GIB)


@pytest.mark.long
@pytest.mark.rule(
    "L10", "L11", "W1", "W2", "W3", "W4", "W5", "W14", "W15", "W16", "W17", "W18", "M15", "M16", "M17", "M18", "M21", "M30", "M31", "X5"
)
def test_any_life_over_three_nodes() -> None:
    """Whatever is said, in whatever order, twice, late, interrupted or after a crash: the books of all nodes are those of the opinion."""
    taken, outcomes = 0, Counter[str]()
    todo = seeds(0, STEPS, STEPS_EACH) if SEED is None else iter([(int(SEED), STEPS_EACH)])
    for seed, steps in todo:
        walk = Walk(seed, MemoryStore()).walk(steps)
        walk.close()
        before, taken = taken, taken + walk.steps
        outcomes.update(move.outcome or "open" for move in walk.opinion.moves.values())
        if taken // PROGRESS_EVERY > before // PROGRESS_EVERY and STEPS > PROGRESS_EVERY:
            sys.stderr.write(f"{taken} of {STEPS} steps, the last from seed {seed}: {dict(outcomes)}\n")
    assert taken == (STEPS if SEED is None else STEPS_EACH)
    if SEED is None:
        assert set(outcomes) == {"confirmed", "reverted", "aborted", "expired", "deleted", "open"}


@pytest.mark.long
def test_any_life_on_disk(tmp_path: Path) -> None:
    """The same on SQLite files."""
    for seed in range(4):
        walk = Walk(50_000 + seed, SqliteStore(tmp_path / str(seed) / "ledger.db")).walk(100)
        assert walk.steps == 100
        walk.close()


def test_a_walk_is_its_seed() -> None:
    """The same seed takes the same steps, so that a failure can be had again from its number."""
    one, two = (Walk(7, MemoryStore()).walk(60) for _ in range(2))
    assert one.trace == two.trace
    assert [one.opinion.used(node) for node in one.ids] == [two.opinion.used(node) for node in two.ids]


def test_a_walk_notices_what_is_wrong() -> None:
    """A claim that the opinion does not know of, and a book that is one off, end a walk with its seed."""
    walk = Walk(3, MemoryStore()).walk(10)
    granted(walk.tracker.hold(SMALL, consumer="nobody", node=walk.ids["plain"], confirm=True))
    with pytest.raises(AssertionError) as caught:
        walk.walk(1)
    assert "walk 3, step 11" in caught.value.__notes__[0]


def opened(answer: object) -> Move:
    """Return the move of an answer that must be a yes."""
    assert isinstance(answer, LifeAnswer), answer
    assert answer.move is not None
    return answer.move


def test_a_leg_is_confirmed_by_its_move_only() -> None:
    """A claim in the middle of a move cannot be confirmed by itself: the move would be finished behind its back; a repeat is an answer."""
    with bench() as world:
        source = granted(world.tracker.hold(SMALL, consumer="vm", confirm=True))
        pair = opened(world.tracker.open_move("vm", "resize")).legs[0]
        assert pair.destination is not None
        with pytest.raises(Conflict, match="m-"):
            world.tracker.confirm(pair.destination.claim)
        assert world.tracker.confirm(source.id).message == "was confirmed already"
        assert world.tracker.confirm_move("vm").changed


def test_a_move_id_of_another_consumer_is_a_conflict() -> None:
    """The id of a move is its consumer's: said for another one it is no repetition, and nothing is told as opened."""
    with bench() as world:
        for consumer in ("vm", "other"):
            granted(world.tracker.hold(SMALL, consumer=consumer, confirm=True))
        world.tracker.open_move("vm", "resize", move_id="m-0001")
        with pytest.raises(Conflict, match="vm"):
            world.tracker.open_move("other", "resize", move_id="m-0001")


@pytest.mark.rule("L6", "W5")
@pytest.mark.parametrize("how", ["sweep", "abort", "delete", "release"])
def test_a_guest_of_another_host_is_not_dead_because_it_is_not_here(how: str) -> None:
    """A holder of another boot on a node that another host runs cannot be judged here: its leg stays, or drains, and is never free at once."""
    with bench() as world:
        tracker = world.tracker
        far = Holder(boot_id="boot-far", pid_namespace=1, pid=9, start_ticks=9)
        there = tracker.register("far", host="far-host", machine=machine("8c 32G"), settings=UNRESERVED).node
        if how == "release":
            claim = granted(tracker.hold(SMALL, consumer="vm", node=there, confirm=True, holders=[far]))
            assert tracker.release(claim.id).outcome == "draining"
        else:
            granted(tracker.hold(SMALL, consumer="vm", confirm=True))
            move = opened(tracker.open_move("vm", "migration", to="far", holders=[far]))
            if how == "sweep":
                tracker.sweep(there)
            elif how == "abort":
                tracker.abort_move(move.id)
            else:
                tracker.delete("vm")
        assert [claim.phase for claim in tracker.node(there).live()] == ["held" if how == "sweep" else "draining"]


def test_a_deleted_instance_is_in_no_move() -> None:
    """Deleted in the middle of a move with its process alive, its main claim drains; nobody is told that a move were open."""
    with bench() as world:
        tracker = world.tracker
        granted(tracker.hold(SMALL, consumer="vm", confirm=True, holders=[tracker.holder(101)]))
        opened(tracker.open_move("vm", "resize"))
        tracker.delete("vm")
        assert [claim.phase for claim in tracker.claims_of("vm")] == ["draining"]
        assert tracker.moves() == ()
        granted(tracker.hold(SMALL, consumer="vm", purpose="attach", confirm=True))


@pytest.mark.parametrize("kind", ["migration", "evacuation"])
def test_a_move_stays_confirmed_when_a_later_one_leaves_its_destination(kind: str) -> None:
    """What became of the first move does not change with the second, whose source leg is the first one's destination."""
    walk = Walk(0, MemoryStore())
    tracker = walk.tracker
    granted(tracker.hold(SMALL, consumer="vm", confirm=True))
    first = opened(tracker.open_move("vm", "migration", to="plain"))
    tracker.confirm_move(first.id)
    second = opened(tracker.open_move("vm", kind, to="tiny"))
    assert tracker.move_status(first) == "confirmed"
    tracker.confirm_move(second.id)
    assert (tracker.move_status(first), tracker.move_status(second)) == ("confirmed", "confirmed")
    tracker.delete("vm")
    assert (tracker.move_status(first), tracker.move_status(second)) == ("confirmed", "confirmed")
    walk.close()
