"""What an audit finds is remembered in the ledger where it is new, and forgotten where it is gone; programs that stay audit by themselves."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.proof.worlds import granted, made, wait_until

from earmark.core.ledger.events import FindingsChanged
from earmark.core.model.ids import NodeId
from earmark.core.model.request import Request
from earmark.stores.contract import Store
from earmark.testing import UNRESERVED, Bench, GivenClock, GivenHost, GivenProcesses, machine, on
from earmark.tracker import aside
from earmark.tracker.keeping import AUDIT_SOURCE
from earmark.tracker.watch import Audits

pytestmark = pytest.mark.long

WHOLE, HALF = "2x8c 32G", "1x8c 32G"
ALL = Request(vcpus=8, cpu_policy="dedicated")


@pytest.fixture(params=["memory", "sqlite"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    """Return a tracker on a ledger of each kind, on a machine that has lost half of what was handed out."""
    store: Store = made(request.param, tmp_path)
    world = on(store, GivenHost(machine(WHOLE)), GivenClock(), GivenProcesses(), UNRESERVED)
    for _ in range(2):
        granted(world.tracker.hold(ALL, confirm=True))
    world.host.seen = machine(HALF)
    world.tracker.observe()
    yield world
    store.close()


def remembered(world: Bench, node: str | None = None) -> int:
    """Return how many findings of audits a node remembers."""
    return len(world.tracker.node(node).findings.get(AUDIT_SOURCE, ()))


def changes(world: Bench) -> int:
    """Return how often findings were recorded."""
    return sum(isinstance(event, FindingsChanged) for _, _, event in world.tracker.events())


@pytest.mark.parametrize("beside", [False, True])
def test_findings_are_recorded_once(world: Bench, beside: bool) -> None:
    """An audit that records leaves what it found on the node; the same again writes nothing; what is gone is forgotten."""
    other = NodeId(world.tracker.register("other", machine=machine(HALF), settings=UNRESERVED).node)
    found = world.tracker.audit(aside=beside)
    assert changes(world) == 0
    assert world.tracker.audit(aside=beside, record=True) == found
    assert (remembered(world), remembered(world, other), changes(world)) == (len(found), 0, 1)
    assert world.tracker.record(found) == ()
    assert changes(world) == 1
    world.host.seen = machine(WHOLE)
    world.tracker.observe()
    assert world.tracker.audit(aside=beside, record=True) == ()
    assert (remembered(world), changes(world)) == (0, 2)


@pytest.mark.long
def test_a_program_that_stays_audits_by_itself(world: Bench) -> None:
    """While it watches, audits run aside and new findings are recorded; none runs where it is not asked for; nothing is left at the end."""
    before = threading.active_count()
    with world.tracker.watching(every_s=60, audit_every_s=0.1):
        wait_until(lambda: remembered(world) > 0)
    assert changes(world) == 1
    assert threading.active_count() == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_an_audit_that_fails_is_followed_by_another(world: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that dies, or cannot be what it should, is passed over; the next round audits; the end of the watch ends one at work."""
    audits = Audits(world.tracker, 0.0)
    monkeypatch.setattr(aside, "WORKER", "this")
    audits.look()
    wait_until(lambda: _looked(audits))
    assert remembered(world) == 0
    monkeypatch.undo()
    audits.look()
    wait_until(lambda: _looked(audits))
    assert remembered(world) > 0
    audits.look()
    work = audits._work
    assert work is not None
    os.kill(work._process.pid, signal.SIGSTOP)
    audits.close()
    assert work._process.returncode == -signal.SIGKILL
    idle = Audits(world.tracker, None)
    idle.look()
    assert idle._work is None


def _looked(audits: Audits) -> bool:
    """Look until the audit at work has ended."""
    if audits._work is not None:
        audits.look()
    return audits._work is None
