"""A world that is what a scenario or a test says it is: a clock, hosts, processes, and a store that fails where it is told to.

Rules of this file: no mocks: each of these is a small, honest implementation of a contract.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

from msgspec.structs import replace

from earmark.core.model.claim import Holder, Liveness, Role
from earmark.core.model.sample import Sample
from earmark.core.model.topology import Machine
from earmark.drivers.contract import Observation
from earmark.errors import HostUnavailable
from earmark.stores.contract import BUSY_TIMEOUT_S, Store, Transaction

START_MS = 1_750_000_000_000


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
    """A host that is what a test says it is; `fault` is raised by every look at it while it is set."""

    def __init__(self, seen: Machine, *, name: str = "n1", boot: str = "boot-1", ref: str | None = "machine-1") -> None:
        self.seen = seen
        self.name = name
        self.boot = boot
        self.ref = ref
        self.fault: HostUnavailable | None = None
        self.counters = Sample(at_ms=0, boot_id=boot)

    def observe(self) -> Observation:
        """Return the machine as it is now."""
        if self.fault is not None:
            raise self.fault
        return Observation(machine=self.seen, hostname=self.name, boot_id=self.boot, machine_ref=self.ref)

    def sample(self, at_ms: int) -> Sample:
        """Return the given counters, as of a time."""
        if self.fault is not None:
            raise self.fault
        return replace(self.counters, at_ms=at_ms)

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
