"""The queue of writers over all processes: a lock on a file beside the ledger, in which the writer says who it is and what it does.

Rules of this file: SQLite's own lock cannot say who holds it; this one is taken before it. It dies with its process. The file's text is
only for messages, nothing is decided from it. Polled, because a lock that is waited for in the kernel has no time-out.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from earmark.errors import LedgerBusy
from earmark.stores.os_errors import os_translated
from earmark.stores.safe_files import NO_TRICKS, judge_file, set_access

POLL_FIRST_S = 0.0002
POLL_LONGEST_S = 0.008
POLL_GROWTH = 1.6
RECORD_BYTES = 160


class Writer(NamedTuple):
    """Who is writing, as far as can be seen: `state` is the letter of /proc/PID/stat, "" if there is no such process here."""

    pid: int
    purpose: str
    state: str

    @property
    def stopped(self) -> bool:
        """Whether the process is stopped (SIGSTOP, a debugger) and so cannot finish."""
        return self.state in ("T", "t")


class WriterLock:
    """The lock of one ledger, opened once. Threads of one process share it and must exclude each other before they take it."""

    def __init__(self, path: Path, *, mode: int, gid: int | None) -> None:
        self._path = path
        self._pid = os.getpid()
        try:
            self._file = os.fdopen(_opened(path, mode, gid), "r+b", buffering=0)
        except OSError as error:
            raise os_translated(error, "open the writers' lock", str(path)) from error
        self._descriptor = self._file.fileno()

    @contextmanager
    def hold(self, purpose: str, timeout_s: float, ledger: str) -> Iterator[None]:
        """Hold the lock for a block; raises LedgerBusy, naming the writer, if it is not free within `timeout_s`.

        Letting go of what was not taken changes nothing, so that an interrupt between taking and using leaves nothing held.
        """
        try:
            if not self._taken(ledger):
                self._wait(purpose, timeout_s, ledger)
            self._sign(purpose, ledger)
            yield
        finally:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def _wait(self, purpose: str, timeout_s: float, ledger: str) -> None:
        """Take the lock when it gets free; polls with growing pauses."""
        deadline_s = time.monotonic() + timeout_s
        pause_s = POLL_FIRST_S
        while not self._taken(ledger):
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                raise busy(ledger, purpose, timeout_s, self.writer())
            time.sleep(min(pause_s, left_s))
            pause_s = min(pause_s * POLL_GROWTH, POLL_LONGEST_S)

    def _taken(self, ledger: str) -> bool:
        """Take the lock if it is free and return whether it was."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            raise os_translated(error, "lock", ledger) from error
        return True

    def _sign(self, purpose: str, ledger: str) -> None:
        """Write who holds the lock and what for."""
        text = f"{self._pid} {purpose}".replace("\n", " ").encode("utf-8", "replace")[: RECORD_BYTES - 1]
        try:
            os.pwrite(self._descriptor, text.ljust(RECORD_BYTES - 1) + b"\n", 0)
        except OSError as error:
            raise os_translated(error, "sign the writers' lock of", ledger) from error

    def writer(self) -> Writer | None:
        """Return who signed last, None if nobody did or the text cannot be read."""
        try:
            text = os.pread(self._descriptor, RECORD_BYTES, 0).decode("utf-8", "replace")
        except OSError:
            return None
        pid, _, purpose = text.strip().partition(" ")
        return Writer(int(pid), purpose, process_state(int(pid))) if pid.isascii() and pid.isdigit() else None

    def close(self) -> None:
        """Close the file; may be repeated."""
        self._file.close()


def _opened(path: Path, mode: int, gid: int | None) -> int:
    """Return a descriptor of the lock file, made with the ledger's mode if it is missing; raises OSError, UnsafePlace."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | NO_TRICKS, 0o600)
    except FileExistsError:
        descriptor = os.open(path, os.O_RDWR | NO_TRICKS)
        try:
            judge_file(path, os.fstat(descriptor), owners={0, os.geteuid()}, gid=gid)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor
    set_access(descriptor, mode, gid)
    return descriptor


def process_state(pid: int) -> str:
    """Return the state letter of a process (proc(5), field 3 of /proc/PID/stat), "" if it cannot be seen."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return text.rpartition(")")[2].strip()[:1]


def busy(ledger: str, purpose: str, timeout_s: float, writer: Writer | None) -> LedgerBusy:
    """Return the error that names the writer who did not let this one in."""
    if writer is None:
        return LedgerBusy(f"{purpose} on {ledger} waited {timeout_s:g} s for another writer, which has not said who it is", ledger=ledger)
    condition = "is stopped: continue it (kill -CONT) or end it" if writer.stopped else "is at work"
    if not writer.state:
        condition = "cannot be seen from here"
    return LedgerBusy(
        f"{purpose} on {ledger} waited {timeout_s:g} s: pid {writer.pid} is writing ({writer.purpose}) and {condition}",
        ledger=ledger, pid=writer.pid, purpose=writer.purpose, stopped=writer.stopped, waited_s=timeout_s,
    )  # fmt: skip
