"""Lives of instances on five nodes, as many threads and programs live them at once: `python fleet.py LEDGER WHO STEPS`.

Rules of this file: what is done is drawn from a seed; every step ends by itself; a refusal or a lost race is an answer, anything else fails.
"""

from __future__ import annotations

import random
import sys
from contextlib import suppress
from pathlib import Path

from earmark.core.ledger.commands import Answer
from earmark.core.ledger.life_commands import LifeAnswer
from earmark.core.model.ids import NodeId
from earmark.core.model.request import Request
from earmark.core.model.units import MIB
from earmark.errors import Conflict, InvalidRequest, Refused, UnknownClaim, UnknownInstance, UnknownMove
from earmark.stores.contract import Store
from earmark.stores.sqlite.store import SqliteStore
from earmark.testing import NODE_ONE, UNRESERVED, Bench, GivenClock, GivenHost, GivenProcesses, machine, on
from earmark.tracker.tracker import Tracker

SHAPE = "2x4c 32G gpu:2"
NODES = (NODE_ONE, *(NodeId(f"00000000-0000-4000-8000-0000000000f{number}") for number in range(1, 5)))
WISHES = (Request(vcpus=1, cpu_policy="dedicated", memory_bytes=MIB), Request(vcpus=1, memory_bytes=MIB))
SHARED = 3
"""Consumers that all lives fight for."""


class OnPurposeError(RuntimeError):
    """What a block raises to see that it is rolled back."""


def fleet(store: Store) -> Bench:
    """Return a tracker on a ledger with the five nodes."""
    world = on(store, GivenHost(machine(SHAPE)), GivenClock(), GivenProcesses(), UNRESERVED)
    for number, node in enumerate(NODES[1:], 2):
        world.tracker.register(f"n{number}", uuid=node, machine=machine(SHAPE), settings=UNRESERVED)
    return world


def live(tracker: Tracker, who: str, steps: int) -> int:
    """Live so many short lives and return how many of them were begun."""
    draw = random.Random(who)  # noqa: S311 - a course that can be repeated
    begun = 0
    for step in range(steps):
        fight(tracker, f"shared-{draw.randrange(SHARED)}", draw)
        consumer = f"{who}-{step}"
        held = tracker.hold(draw.choice(WISHES), consumer=consumer, node=draw.choice(NODES), confirm=True)
        if not isinstance(held, Answer):
            continue
        begun += 1
        if draw.random() < 0.5:
            tracker.create(consumer)
        if draw.random() < 0.6:
            move(tracker, consumer, draw)
        if draw.random() < 0.3:
            assert tracker.report(consumer, "shelved_offloaded").changed
        elif draw.random() < 0.9:
            assert tracker.delete(consumer).changed
        assert not tracker.delete(consumer).changed or tracker.instance(consumer).instance.state == "deleted"
    return begun


def move(tracker: Tracker, consumer: str, draw: random.Random) -> None:
    """Move a consumer somewhere, and end that in one of the ways there are, twice."""
    if draw.random() < 0.3:
        with suppress(OnPurposeError, Refused, Conflict, InvalidRequest), tracker.move(consumer, "migration", to=draw.choice(NODES)):
            raise OnPurposeError
        return
    opened = tracker.open_move(consumer, "evacuation" if draw.random() < 0.2 else "migration", to=elsewhere(tracker, consumer, draw))
    if not isinstance(opened, LifeAnswer) or opened.move is None:
        return
    end = draw.choice((tracker.confirm_move, tracker.revert_move, tracker.abort_move))
    if end is tracker.revert_move:
        tracker.finish_move(opened.move.id)
    assert end(opened.move.id).changed
    assert not end(opened.move.id).changed


def elsewhere(tracker: Tracker, consumer: str, draw: random.Random) -> NodeId:
    """Return a node that a consumer is not on."""
    there = {claim.node for claim in tracker.claims_of(consumer)}
    return draw.choice([node for node in NODES if node not in there])


def fight(tracker: Tracker, consumer: str, draw: random.Random) -> None:
    """Do something to a consumer to which others do something too."""
    try:
        match draw.randrange(5):
            case 0 | 1:
                tracker.hold(WISHES[1], consumer=consumer, node=draw.choice(NODES), confirm=True)
            case 2:
                tracker.open_move(consumer, "migration", to=draw.choice(NODES))
            case 3:
                draw.choice((tracker.confirm_move, tracker.revert_move, tracker.abort_move))(consumer)
            case _:
                tracker.report(consumer, draw.choice(("active", "stopped", "deleted")))
    except (Conflict, UnknownClaim, UnknownMove, UnknownInstance):
        return


def main(ledger: Path, who: str, steps: int) -> None:
    """Live on a ledger file beside others."""
    with SqliteStore(ledger) as store:
        world = fleet(store)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        sys.stdin.readline()
        sys.stdout.write(f"{live(world.tracker, who, steps)}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
