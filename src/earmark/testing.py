"""Public helpers for tests: machines in one line, a given clock, hosts and processes that do what a test says, a tracker on any store.

Rules of this file: no mocks: each of these is a small, honest implementation of a contract, and used by the project's own tests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

from earmark.core.ledger.audit import Finding
from earmark.core.ledger.commands import ConfigureNode, ObserveMachine, RegisterNode
from earmark.core.model.claim import Holder, Liveness, Role
from earmark.core.model.ids import NodeId
from earmark.core.model.node import NodeSettings
from earmark.core.model.shape import machine_of
from earmark.core.model.topology import Machine
from earmark.drivers.contract import Observation, ProcessDriver
from earmark.errors import HostUnavailable
from earmark.stores.contract import BUSY_TIMEOUT_S, Store, Transaction
from earmark.stores.memory import MemoryStore
from earmark.tracker.leases import Leases
from earmark.tracker.questions import Terms
from earmark.tracker.tracker import Tracker
from earmark.tracker.writer import Writer

NODE_ONE = NodeId("00000000-0000-4000-8000-000000000001")
START_MS = 1_750_000_000_000
machine = machine_of
"""A machine written in one line: "2x8c/2t 64G 2M:1024 disk:200G gpu:2 vf:4"."""
UNRESERVED = NodeSettings(reserved_host_memory_bytes=0, reserved_host_disk_bytes=0)
"""Settings that keep nothing back: for figures that come out round."""


class GivenClock:
    """A clock that stands until it is moved; read by any thread, moved by one."""

    def __init__(self, now_ms: int = START_MS) -> None:
        self._now_ms = now_ms

    def now_ms(self) -> int:
        """Return the given time."""
        return self._now_ms

    def monotonic_s(self) -> float:
        """Return the given time in seconds."""
        return self.now_ms() / 1000

    def move(self, ms: int) -> None:
        """Move the clock by some milliseconds, backwards too."""
        self._now_ms += ms


class GivenHost:
    """A host that is what a test says it is."""

    def __init__(self, seen: Machine, *, name: str = "n1", boot: str = "boot-1", ref: str | None = "machine-1") -> None:
        self.seen = seen
        self.name = name
        self.boot = boot
        self.ref = ref

    def observe(self) -> Observation:
        """Return the machine as it is now."""
        return Observation(machine=self.seen, hostname=self.name, boot_id=self.boot, machine_ref=self.ref)

    def boot_id(self) -> str:
        """Return the given boot id."""
        return self.boot

    def machine_ref(self) -> str | None:
        """Return the given machine."""
        return self.ref

    def hostname(self) -> str:
        """Return the given name."""
        return self.name


class GivenProcesses:
    """Processes that live and die when a test says so; a pid that was never mentioned is alive."""

    def __init__(self, boot: str = "boot-1") -> None:
        self.boot = boot
        self.fates: dict[int, Liveness] = {}

    def identify(self, pid: int, role: Role = "caller") -> Holder:
        """Return the identity of a process; raises HostUnavailable for a dead one."""
        if self.fates.get(pid) == "dead":
            raise HostUnavailable(f"pid {pid} is gone", pid=pid)
        return Holder(boot_id=self.boot, pid_namespace=1, pid=pid, start_ticks=pid * 7, role=role)

    def status(self, holder: Holder) -> Liveness:
        """Return the fate of a holder; one of another boot is dead."""
        return "dead" if holder.boot_id != self.boot else self.fates.get(holder.pid, "alive")

    def wait(self, holders: Sequence[Holder], timeout_s: float) -> bool:
        """Say whether one of the holders is dead; nobody dies while a test waits, so `timeout_s` is not spent."""
        return timeout_s >= 0 and any(self.status(holder) == "dead" for holder in holders)


class FaultyStore:
    """A store that counts its commits and fails or waits around them as a test says; everything else is the inner store's.

    `before_commit` is called inside each write transaction, at its end: what it raises rolls everything back. `after_commit` is called
    when the commit stands and nobody was told yet. Use `as_store()` where a Store is wanted.
    """

    def __init__(self, inner: Store) -> None:
        self.inner = inner
        self.commits = 0
        self.before_commit: Callable[[], object] = int
        self.after_commit: Callable[[], object] = int

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def as_store(self) -> Store:
        """Return this as what it stands for."""
        return cast("Store", self)

    @contextmanager
    def transaction(self, *, purpose: str = "write", timeout_s: float = BUSY_TIMEOUT_S) -> Iterator[Transaction]:
        """Enter the inner store's write transaction, with the faults at its end."""
        with self.inner.transaction(purpose=purpose, timeout_s=timeout_s) as tx:
            yield tx
            self.before_commit()
        self.commits += 1
        self.after_commit()


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
    tracker = Tracker(store, writer, Leases(real or processes), host, clock, home=NODE_ONE, terms=given)
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
