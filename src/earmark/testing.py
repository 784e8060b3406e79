"""Public helpers for tests: machines in one line, a given clock, hosts and processes that do what a test says, a tracker on any store.

Rules of this file: no mocks: each of these is a small, honest implementation of a contract, and used by the project's own tests.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from earmark.core.ledger.commands import ConfigureNode, ObserveMachine, RegisterNode
from earmark.core.model.finding import Finding
from earmark.core.model.ids import NodeId
from earmark.core.model.node import NodeSettings
from earmark.core.model.shape import machine_of
from earmark.drivers.contract import ProcessDriver
from earmark.scenario.given import START_MS, FaultyStore, GivenClock, GivenHost, GivenProcesses
from earmark.scenario.language import parse as parse_scenario
from earmark.scenario.runner import one_run, play, runs
from earmark.scenario.world import UNRESERVED
from earmark.stores.contract import Store
from earmark.stores.memory import MemoryStore
from earmark.tracker.leases import Leases
from earmark.tracker.questions import Terms
from earmark.tracker.tracker import Tracker
from earmark.tracker.writer import Writer

NODE_ONE = NodeId("00000000-0000-4000-8000-000000000001")
machine = machine_of
"""A machine written in one line: "2x8c/2t 64G 2M:1024 disk:200G gpu:2 vf:4"."""
__all__ = [
    "NODE_ONE", "START_MS", "UNRESERVED", "Bench", "FaultyStore", "GivenClock", "GivenHost", "GivenProcesses", "assert_sound", "bench",
    "machine", "on", "one_run", "parse_scenario", "play", "runs",
]  # fmt: skip


class Bench(NamedTuple):
    """A tracker and the world that a test holds in its hand."""

    tracker: Tracker
    store: Store
    clock: GivenClock
    host: GivenHost
    processes: GivenProcesses

    def reopened(self, store: Store | None = None) -> Bench:
        """Return a second tracker on the same world, as after a restart of the program."""
        return on(store or self.store, self.host, self.clock, self.processes)


@contextmanager
def bench(
    shape: str = "2x8c 32G", *, settings: NodeSettings = UNRESERVED, store: Store | None = None, check: bool = True,
    real: ProcessDriver | None = None,
) -> Iterator[Bench]:  # fmt: skip
    """Give a tracker on a machine (text of `machine`) and, at the end, let the auditor look: raises AssertionError on an error found.

    `real` are the processes that are asked instead of the given ones.
    """
    clock, host, processes = GivenClock(), GivenHost(machine(shape)), GivenProcesses()
    made = on(store or MemoryStore(), host, clock, processes, settings, real=real)
    yield made
    if check:
        assert_sound(made.tracker)


def on(
    store: Store,
    host: GivenHost,
    clock: GivenClock,
    processes: GivenProcesses,
    settings: NodeSettings | None = None,
    *,
    real: ProcessDriver | None = None,
    **terms: Any,
) -> Bench:
    """Return a tracker on a store, with its node registered, configured, observed and swept."""
    given = Terms(actor="tester", hold_timeout_ms=600_000, default_ttl_ms=None, drain_grace_ms=60_000)._replace(**terms)
    writer = Writer(store, clock, actor="tester", epoch=1, boot_id=host.boot, timeout_s=10.0)
    tracker = Tracker(store, writer, Leases(real or processes), host, clock, home=NODE_ONE, terms=given, monitor=host)
    writer.submit(RegisterNode(node=NODE_ONE, name=host.name, machine_ref=host.ref))
    writer.submit(ObserveMachine(node=NODE_ONE, machine=host.seen))
    if settings is not None:
        writer.submit(ConfigureNode(node=NODE_ONE, settings=settings))
    tracker.sweep()
    return Bench(tracker, store, clock, host, processes)


def assert_sound(tracker: Tracker) -> None:
    """Raise AssertionError if the auditor or the verifier finds an error in the ledger (warnings are allowed)."""
    errors = [finding for finding in (*tracker.audit(), *tracker.verify().findings) if finding.severity == "error"]
    if errors:
        raise AssertionError("\n".join(_words(finding) for finding in errors))


def _words(finding: Finding) -> str:
    return f"{finding.code}: {finding.detail}"
