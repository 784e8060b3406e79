"""Processes of this machine: who they are, and whether they are gone.

Rules of this file: dead needs proof, and these are the proofs: another boot; in our own pid namespace no process of that number, one that
began at another time, or one that has ended and only waits to be reaped. All else is unknown, and unknown is never dead. What the
process left in its cgroup or session must be gone too. No descriptor outlives a call.
"""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from earmark.clock import Clock, SystemClock
from earmark.core.model.claim import Holder, Liveness, Role
from earmark.drivers.procfs import NANOSECONDS, PID_MAX, ProcFolder, Stat, Unseen
from earmark.drivers.remains import cgroup_life, session_life
from earmark.drivers.sysfs.boot import read_boot_id
from earmark.errors import HostUnavailable

POLL_S = 0.05
"""How often a process is looked at that cannot be watched by pidfd."""
WAIT_S_MAX = 86_400.0


class SystemProcesses:
    """The processes that this process can see. `pidfd` False does without pidfd_open, as on kernels and sandboxes that lack it."""

    def __init__(self, proc_root: Path = Path("/proc"), *, pidfd: bool = True, clock: Clock | None = None) -> None:
        self._proc = ProcFolder(proc_root)
        self._pidfd = pidfd
        self._clock = clock or SystemClock()
        self._boot_id = read_boot_id(proc_root)

    def identify(self, pid: int, role: Role = "caller") -> Holder:
        """Return the identity of a live process, as counted in our own pid namespace; raises HostUnavailable if it cannot be read."""
        namespace = self._proc.view.namespace
        if namespace is None:
            raise HostUnavailable(f"process {pid}: our own pid namespace cannot be read from {self._proc.root}/self/ns/pid", pid=pid)
        with self._open(pid) as pidfd:
            seen = self._look(pid, pidfd)
        if not isinstance(seen, Stat) or seen.ended:
            found = "it has ended" if isinstance(seen, Stat) else f"it is {seen.value}"
            raise HostUnavailable(f"process {pid} cannot be identified: {self._proc.root}/{pid}/stat says that {found}", pid=pid)
        return Holder(boot_id=self._boot_id, pid_namespace=namespace, pid=pid, start_ticks=self._since_boot(seen), role=role)

    def status(self, holder: Holder) -> Liveness:
        """Say whether a holder (its process, then what is left in its cgroup and session) is alive, dead by proof, or unknown."""
        if self._other_boot(holder):
            return "dead"
        process = self._process(holder)
        if process != "dead":
            return process
        left: list[Liveness] = []
        if holder.cgroup is not None:
            left.append(cgroup_life(holder.cgroup))
        if holder.session is not None:
            left.append(self._session(holder, holder.session))
        return "alive" if "alive" in left else "unknown" if "unknown" in left else "dead"

    def wait(self, holders: Sequence[Holder], timeout_s: float) -> bool:
        """Wait until one of the holders' processes has ended (True) or the time is over (False); what they left behind does not count."""
        until = self._clock.monotonic_s() + min(max(0.0, timeout_s), WAIT_S_MAX)
        with ExitStack() as stack:
            poll = select.poll()
            unwatched = []
            for holder in holders:
                pidfd = stack.enter_context(self._open(holder.pid)) if self._is_local(holder) else None
                if pidfd is None:
                    unwatched.append(holder)
                else:
                    poll.register(pidfd, select.POLLIN)
            if any(self._ended(holder) for holder in holders):
                return True
            while True:
                left_s = max(0.0, until - self._clock.monotonic_s())
                if poll.poll(1000 * (min(left_s, POLL_S) if unwatched else left_s)):
                    return True
                if any(self._ended(holder) for holder in unwatched):
                    return True
                if self._clock.monotonic_s() >= until:
                    return False

    def descendants(self, pid: int) -> tuple[int, ...]:
        """Return the living processes below a process, as far as they are shown, ascending; raises HostUnavailable."""
        children: dict[int, list[int]] = {}
        try:
            for other in self._proc.pids():
                seen = self._proc.stat(other)
                if isinstance(seen, Stat) and not seen.ended:
                    children.setdefault(seen.parent, []).append(other)
        except OSError as error:
            raise HostUnavailable(f"processes below {pid}: {self._proc.root} cannot be listed: {error}", pid=pid) from error
        found: set[int] = set()
        below = list(children.get(pid, ()))
        while below:
            child = below.pop()
            if child not in found:
                found.add(child)
                below.extend(children.get(child, ()))
        return tuple(sorted(found))

    # --- one process ----------------------------------------------------------------------------------------------------------------

    def _other_boot(self, holder: Holder) -> bool:
        return bool(holder.boot_id and self._boot_id) and holder.boot_id != self._boot_id

    def _is_local(self, holder: Holder) -> bool:
        return not self._other_boot(holder) and 0 < holder.pid <= PID_MAX and holder.pid_namespace == self._proc.view.namespace

    def _ended(self, holder: Holder) -> bool:
        return self._other_boot(holder) or self._process(holder) == "dead"

    def _process(self, holder: Holder) -> Liveness:
        if not self._is_local(holder):
            return "unknown"
        with self._open(holder.pid) as pidfd:
            if not _exists(holder.pid) or _has_ended(pidfd):
                return "dead"
            seen = self._look(holder.pid, pidfd)
            if not _exists(holder.pid) or _has_ended(pidfd):
                return "dead"
        if not isinstance(seen, Stat):
            return "unknown"
        if seen.ended or not self._same_start(holder, seen):
            return "dead"
        return "alive"

    @contextmanager
    def _open(self, pid: int) -> Iterator[int | None]:
        """A pidfd of a process for the length of a block; None where there is none to be had."""
        pidfd = None
        if self._pidfd and 0 < pid <= PID_MAX:
            try:
                pidfd = os.pidfd_open(pid)
            except OSError:  # no such process, no such call, not allowed, too many files: the numbers and /proc decide
                pidfd = None
        try:
            yield pidfd
        finally:
            if pidfd is not None:
                os.close(pidfd)

    def _look(self, pid: int, pidfd: int | None) -> Stat | Unseen:
        """What /proc shows of a process of our namespace, whose own numbers may be another namespace's."""
        if pid == os.getpid():
            return self._proc.stat("self")
        if self._proc.view.ours:
            return self._proc.stat(pid)
        shown = None if pidfd is None else self._proc.number_of(pidfd)
        return Unseen.ABSENT if shown is None else self._proc.stat(shown)

    def _since_boot(self, seen: Stat) -> int:
        return max(0, seen.start_ticks - self._proc.view.offset_ns * _ticks_per_second() // NANOSECONDS)

    def _same_start(self, holder: Holder, seen: Stat) -> bool:
        """Compare start times; where our time namespace shifts them by parts of a tick, a neighbouring tick is the same."""
        uneven = self._proc.view.offset_ns * _ticks_per_second() % NANOSECONDS != 0
        return abs(self._since_boot(seen) - holder.start_ticks) <= (1 if uneven else 0)

    def _session(self, holder: Holder, session: int) -> Liveness:
        leads = session == holder.pid and self._proc.view.offset_ns == 0
        return session_life(self._proc, session, holder.start_ticks if leads else None)


def _exists(pid: int) -> bool:
    """Say whether the kernel knows a process or thread of that number; no permission is needed to learn that it does not."""
    try:
        os.kill(pid, 0)
    except OSError as error:
        return error.errno != errno.ESRCH
    return True


def _has_ended(pidfd: int | None) -> bool:
    """Say whether all threads of a process have ended (pidfd_open(2): then its descriptor is readable)."""
    if pidfd is None:
        return False
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def _ticks_per_second() -> int:
    return os.sysconf("SC_CLK_TCK")
