"""Claims, moves, reports, deletions and audits at once, by threads and programs, on five nodes: all come to an end, and the ledger is sound."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import pytest
from tests.concurrency.fleet import NODES, WISHES, fleet, live
from tests.house.sources import sources
from tests.proof.worlds import JOIN_TIMEOUT_S, Caller, callers, granted, wait_until

from earmark.core.model.ids import NodeId
from earmark.drivers.contract import Observation
from earmark.stores.memory import MemoryStore
from earmark.stores.sqlite.store import SqliteStore
from earmark.testing import UNRESERVED, Bench, GivenClock, GivenHost, GivenProcesses, assert_sound, machine, on

FLEET = Path(__file__).with_name("fleet.py")
THREADS, PROGRAMS, AUDITS = 8, 2, 3
STEPS = 12
PATIENCE_S = 100.0


def at_work(ledger: Path, who: str) -> subprocess.Popen[str]:
    """Return a program that will live on the ledger, standing at the line."""
    child = subprocess.Popen(
        [sys.executable, str(FLEET), str(ledger), who, str(STEPS)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    return child


@pytest.mark.long
@pytest.mark.rule("W3", "W30", "W35", "W36", "X1", "X2")
def test_threads_and_programs_live_beside_each_other(tmp_path: Path) -> None:
    """Eight threads, two other programs and audits aside: nothing is lost or held twice, no audit sees half of anything, nothing stays behind."""
    ledger = tmp_path / "ledger" / "ledger.db"
    with SqliteStore(ledger) as store:
        world = fleet(store)
        before = threading.active_count()
        others = [at_work(ledger, f"program-{number}") for number in range(PROGRAMS)]
        for child in others:
            assert child.stdin is not None
            child.stdin.write("\n")
            child.stdin.flush()
        lives = callers([partial(live, world.tracker, f"thread-{number}", STEPS) for number in range(THREADS)])
        auditor = Caller(lambda: [world.tracker.audit(aside=True) for _ in range(AUDITS)])
        begun = [each.end() for each in lives]
        for child in others:
            out, errors = child.communicate(timeout=PATIENCE_S)
            assert (child.returncode, errors) == (0, "")
            begun.append(int(out))
        assert sum(int(str(each)) for each in begun) > (THREADS + PROGRAMS) * STEPS // 2
        seen = auditor.end()
        assert isinstance(seen, list)
        assert [finding for found in seen for finding in found if finding.severity == "error"] == []
        assert_sound(world.tracker)
        assert_sound(fleet(store).tracker)
        assert threading.active_count() == before
        with store.transaction(purpose="look", timeout_s=0.5):
            pass
        with pytest.raises(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)


def test_a_failing_thread_leaves_the_others_at_work() -> None:
    """A caller that fails inside its blocks, again and again, holds nothing afterwards and up nobody."""
    world = fleet(MemoryStore())

    def fail() -> int:
        failed = 0
        for _ in range(10):
            with pytest.raises(KeyboardInterrupt), world.tracker.claim(WISHES[0], node=NODES[1]):
                raise KeyboardInterrupt
            failed += 1
        return failed

    mixed = callers([fail, lambda: live(world.tracker, "steady", 6), fail, lambda: live(world.tracker, "other", 6)])
    results = [each.end() for each in mixed]
    assert results[::2] == [10, 10]
    assert all(int(str(each)) > 0 for each in results[1::2])
    assert_sound(world.tracker)


def there_and_back(world: Bench, node: NodeId | None) -> bool:
    """Claim and release."""
    return world.tracker.release(granted(world.tracker.hold(WISHES[0], node=node)).id).changed


class SlowHost(GivenHost):
    """A host that is looked at slowly once it is told to."""

    stuck: threading.Event | None = None
    go_on = threading.Event()

    def observe(self) -> Observation:
        """Return what is seen, when it is time."""
        if self.stuck is not None:
            self.stuck.set()
            assert self.go_on.wait(JOIN_TIMEOUT_S)
        return super().observe()


@pytest.mark.rule("W30", "X1")
def test_a_slow_look_at_a_host_holds_up_no_claim() -> None:
    """While one thread is stuck in looking at this machine, claims on it and on another node are answered, and audits end."""
    host = SlowHost(machine("2x4c 32G"))
    world = on(MemoryStore(), host, GivenClock(), GivenProcesses(), UNRESERVED)
    other = NodeId(world.tracker.register("other", machine=machine("2x4c 32G"), settings=UNRESERVED).node)
    host.stuck = threading.Event()
    slow = Caller(world.tracker.observe)
    try:
        wait_until(host.stuck.is_set)
        for node in (other, None):
            quick = callers([partial(there_and_back, world, node)] * 4)
            assert all(each.end() for each in quick)
        assert world.tracker.audit(aside=True) == ()
        assert slow.is_alive()
    finally:
        host.go_on.set()
    slow.end()
    assert_sound(world.tracker)


@pytest.mark.rule("W3", "W30")
def test_no_lock_of_ours_spans_nodes() -> None:
    """There are three locks in the program: the writer's queue, which is not held over any decision or I/O, and one commit lock per store."""
    makers = {source.name for source in sources("src") if "NamedLock(" in source.text and source.name != "earmark.locks"}
    assert makers == {"earmark.tracker.writer", "earmark.stores.memory", "earmark.stores.sqlite.store"}
    bare = {
        source.name
        for source in sources("src")
        if any(word in source.text for word in ("threading.Lock(", "threading.RLock(", "Condition("))
    }
    assert bare <= {"earmark.locks", "earmark.scenario.given", "earmark.testing"}
