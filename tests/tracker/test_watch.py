"""A program that stays open sees deaths and deadlines without anybody asking."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable

from earmark.core.ledger.commands import Answer
from earmark.core.model.request import Request
from earmark.drivers.processes import SystemProcesses
from earmark.testing import bench

OWN = Request(vcpus=1, cpu_policy="dedicated")
PATIENCE_S = 10.0


def eventually(true: Callable[[], bool]) -> bool:
    """Return whether something becomes true within PATIENCE_S."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        if true():
            return True
        time.sleep(0.02)
    return False


def test_the_death_of_a_process_frees_its_claim() -> None:
    """A claim bound to a real process ends when that process does; no new claim and no call of ours is needed."""
    with bench(real=SystemProcesses()) as world, world.tracker.watching():
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        answer = world.tracker.hold(OWN, confirm=True, holders=[world.tracker.holder(child.pid)])
        assert isinstance(answer, Answer)
        assert world.tracker.node().claims
        child.communicate(b"\n")
        assert eventually(lambda: not world.tracker.node().claims)
        row = world.store.claim(answer.claim_id) if answer.claim_id else None
        assert row is not None
        assert row.cause == "holder_gone"


def test_a_deadline_takes_effect() -> None:
    """A hold that nobody confirms begins to drain when its time is over."""
    with bench() as world, world.tracker.watching(every_s=0.1):
        world.tracker.hold(OWN)
        world.clock.move(600_000)
        assert eventually(lambda: [claim.phase for claim in world.tracker.node().live()] == ["draining"])


def test_an_error_does_not_end_the_watch() -> None:
    """A round that fails is followed by another; the end of the block joins the thread."""
    with bench(check=False) as world, world.tracker.watching(every_s=0.1):
        world.store.close()
        time.sleep(0.3)
