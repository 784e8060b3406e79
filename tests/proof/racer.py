"""A process of the races: `python racer.py LEDGER FOLDER MODE [TURNS]`. It says `ready`, waits for a line, then claims and releases.

Modes: `open`, `confirm_move`, `revert_move` and `delete` say that once of the consumer vm and print what came of it; `race` claims one CPU at a time and marks it in FOLDER, where a second holder of the same CPU would be seen; `write` says each
answer aloud once it has it and goes on until it is killed; `stop` stops itself (SIGSTOP) inside its write transaction.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from earmark.core.ledger.commands import Answer
from earmark.core.ledger.life_commands import LifeAnswer
from earmark.core.model.ids import ClaimId
from earmark.core.model.request import Request
from earmark.core.model.units import MIB
from earmark.errors import Conflict
from earmark.stores.sqlite.store import SqliteStore
from earmark.testing import UNRESERVED, Bench, FaultyStore, GivenClock, GivenHost, GivenProcesses, machine, on

SHAPE = "2x4c 32G"
ONE = Request(vcpus=1, cpu_policy="dedicated", memory_bytes=MIB)


@contextmanager
def world(ledger: Path) -> Iterator[tuple[Bench, FaultyStore]]:
    """Give a tracker on the ledger that all racers share."""
    with SqliteStore(ledger) as store:
        faulty = FaultyStore(store)
        yield on(faulty.as_store(), GivenHost(machine(SHAPE)), GivenClock(), GivenProcesses(), UNRESERVED), faulty


def race(bench: Bench, folder: Path, turns: int) -> None:
    """Claim one CPU at a time, mark it, unmark it, release it; says how often it was granted and refused."""
    granted = refused = 0
    while granted < turns:
        answer = bench.tracker.hold(ONE, confirm=bool(granted % 2))
        if not isinstance(answer, Answer) or answer.claim is None:
            refused += 1
            continue
        granted += 1
        mark = folder / answer.claim.grant.units[0].unit
        os.close(os.open(mark, os.O_CREAT | os.O_EXCL))  # a second holder fails here
        mark.unlink()
        ended = bench.tracker.release(answer.claim.id)
        assert ended.changed, ended
    sys.stdout.write(f"{granted} {refused}\n")


def write(bench: Bench) -> None:
    """Claim, confirm and release until killed; each answer is said only once it is there."""
    number = 0
    while True:
        number += 1
        claim = ClaimId(f"c-{os.getpid()}x{number:08d}")
        answer = bench.tracker.hold(ONE, claim_id=claim)
        if not isinstance(answer, Answer):
            raise SystemExit(f"refused: {answer}")
        for sign, say in (("+", None), ("=", bench.tracker.confirm), ("-", bench.tracker.release)):
            if say is not None:
                say(claim)
            sys.stdout.write(f"{sign} {claim}\n")
            sys.stdout.flush()


def once(bench: Bench, mode: str) -> str:
    """Say one thing about the consumer vm and return what came of it."""
    tracker = bench.tracker
    try:
        if mode == "open":
            answer = tracker.open_move("vm", "resize")
        elif mode == "delete":
            answer = tracker.delete("vm")
        else:
            answer = tracker.confirm_move("vm") if mode == "confirm_move" else tracker.revert_move("vm")
    except Conflict:
        return "conflict"
    return f"{answer.outcome} {answer.changed}" if isinstance(answer, LifeAnswer) else "refused"


def main(ledger: Path, folder: Path, mode: str, turns: int) -> None:
    """Do as the mode says."""
    with world(ledger) as (bench, faulty):
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        sys.stdin.readline()
        if mode == "race":
            race(bench, folder, turns)
        elif mode == "write":
            write(bench)
        elif mode in ("open", "confirm_move", "revert_move", "delete"):
            sys.stdout.write(once(bench, mode) + "\n")
        elif mode == "stop":
            faulty.before_commit = lambda: os.kill(os.getpid(), signal.SIGSTOP)
            bench.tracker.hold(ONE, consumer="stopped")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]) if len(sys.argv) > 4 else 0)
