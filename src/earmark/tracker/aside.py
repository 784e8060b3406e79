"""Audits in a process of their own: the ledger is held against itself while claims go on here undisturbed.

Rules of this file: the worker (`python -m earmark.auditor`) is started anew, never forked from this program; it opens a ledger file by itself
and only reads it, what has no file is given to it as images; it writes nothing but findings, and each line of it is checked. It ends when
its work or its time is over, and when this process ends; what it leaves or does wrong changes nothing here. No thread is started.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, runtime_checkable

import msgspec

from earmark.clock import SystemClock
from earmark.core.ledger.audit_moves import legs_looked_at
from earmark.core.ledger.consumer import ConsumerState
from earmark.core.ledger.rows import SlotRow
from earmark.core.ledger.state import NodeState
from earmark.core.model.finding import Finding
from earmark.core.model.ids import ClaimId, StreamId
from earmark.core.model.value import Value
from earmark.errors import EarmarkError, HostUnavailable, LedgerBroken, Unavailable, WrongUse
from earmark.stores.contract import ClaimRow, Store
from earmark.tracker.history import replayed
from earmark.tracker.snapshots import image_of

elapsed_s = SystemClock().monotonic_s
"""Processes are waited for in the machine's own time, whatever clock stamps the events."""
WORKER = "earmark.auditor"
AUDIT_TIMEOUT_S = 120.0
"""The longest time that an audit may take."""
END_TIMEOUT_S = 5.0
"""How long a worker that has closed its output, or was killed, may take to be gone."""
OUTPUT_BYTES_MAX = 32 * 1024 * 1024
"""What a worker may say, at most."""
SAID_BYTES_MAX = 2000
"""What is kept of its standard error, for the message."""
READ_BYTES = 64 * 1024


class Imaged(Value, frozen=True):
    """One stream of a ledger without a file: the image of its state, and the rows that guard it."""

    stream: StreamId
    image: bytes
    slots: tuple[SlotRow, ...] = ()


class Errand(Value, frozen=True):
    """What a worker is to do: look at the ledger file at `path` (shared by the group `gid`), or at some images and the rows of their claims.

    `parent` is the process that waits for it; without it the worker ends.
    """

    parent: int
    timeout_ms: int
    path: str | None = None
    gid: int | None = None
    images: tuple[Imaged, ...] = ()
    rows: tuple[ClaimRow, ...] = ()


class Found(Value, frozen=True, tag="found"):
    """A line of the worker: one finding."""

    finding: Finding


class Failed(Value, frozen=True, tag="failed"):
    """The last line of the worker: the ledger could not be looked at; `code` names the error."""

    code: str
    message: str


class Ended(Value, frozen=True, tag="ended"):
    """The last line of the worker: all was looked at, and so many findings were said."""

    findings: int


Line = Found | Failed | Ended
_lines = msgspec.json.Decoder(Line)


@runtime_checkable
class Filed(Protocol):
    """A store that stands in a file, which another process can open."""

    @property
    def path(self) -> Path:
        """Where the file stands, absolute."""

    @property
    def gid(self) -> int | None:
        """The group that shares it."""


class Auditing:
    """An audit on its way, in a process of its own. A context manager; leaving the block ends a worker that is still at work."""

    def __init__(self, store: Store, timeout_s: float = AUDIT_TIMEOUT_S) -> None:
        """Start to audit a ledger as it stands now; raises HostUnavailable if no process can be started, and what reading a store raises."""
        self._name = store.name
        self._timeout_s = timeout_s
        self._pid = os.getpid()
        self._until_s = elapsed_s() + timeout_s
        errand, self._known = errand_for(store, timeout_s)
        self._process = _started(errand, self._name)
        self._output = bytearray()
        self._said = bytearray()
        self._open = {pipe.fileno(): pipe for pipe in (self._process.stdout, self._process.stderr) if pipe is not None}
        self._result: tuple[Finding, ...] | EarmarkError | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def ended(self, wait_s: float = 0.0) -> bool:
        """Say whether the worker has ended, after waiting for that at most `wait_s`; its time over, it is ended."""
        self._own()
        if self._result is not None:
            return True
        until_s = min(elapsed_s() + wait_s, self._until_s)
        while self._open and self._read(max(0.0, until_s - elapsed_s())):
            pass
        if len(self._output) > OUTPUT_BYTES_MAX:
            self._fail(f"said more than {OUTPUT_BYTES_MAX} bytes")
        elif not self._open:
            self._finish()
        elif elapsed_s() >= self._until_s:
            self._fail(f"has not ended within {self._timeout_s:g} s")
        return self._result is not None

    def result(self) -> tuple[Finding, ...]:
        """Wait for the end and return the findings.

        Raises HostUnavailable if the worker died, ran out of time or said what it must not, and what kept it from reading the ledger.
        """
        while not self.ended(self._timeout_s):
            pass
        if isinstance(self._result, EarmarkError):
            raise self._result
        return self._result or ()

    def stop(self) -> None:
        """End the worker if it is still at work; may be repeated."""
        if self._result is None and os.getpid() == self._pid:
            self._fail("was stopped")

    # --- within ---------------------------------------------------------------------------------------------------------------------

    def _own(self) -> None:
        if os.getpid() != self._pid:
            raise WrongUse("this audit was started before a fork; its process is the parent's", opened_by=self._pid)

    def _read(self, wait_s: float) -> bool:
        """Take what the worker has said, waiting for it at most so long; false if there was nothing, or too much."""
        poll = select.poll()
        for descriptor in self._open:
            poll.register(descriptor, select.POLLIN)
        ready = poll.poll(wait_s * 1000)
        for descriptor, _ in ready:
            said = os.read(descriptor, READ_BYTES)
            pipe = self._open[descriptor]
            if not said:
                del self._open[descriptor]
            elif pipe is self._process.stdout:
                self._output += said
            else:
                self._said = (self._said + said)[-SAID_BYTES_MAX:]
        return bool(ready) and len(self._output) <= OUTPUT_BYTES_MAX

    def _finish(self) -> None:
        """Read the findings of a worker that has closed its output; whatever is wrong with them or with its end is a failure."""
        try:
            status = self._process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._fail("has closed its output and goes on")
            return
        self._close()
        if status != 0:
            self._result = self._failure(f"ended by signal {-status}" if status < 0 else f"ended with status {status}")
            return
        try:
            self._result = said_by(bytes(self._output), self._name, self._known)
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            self._result = self._failure(f"said what it must not: {error}")
        except EarmarkError as error:
            self._result = error

    def _fail(self, what: str) -> None:
        """End the worker and keep why."""
        self._process.kill()
        self._process.wait(END_TIMEOUT_S)
        self._close()
        self._result = self._failure(what)

    def _failure(self, what: str) -> HostUnavailable:
        last = bytes(self._said).decode("utf-8", "replace").strip().rpartition("\n")[2]
        return HostUnavailable(
            f"the audit of {self._name} in process {self._process.pid} {what}{f' ({last})' if last else ''}; nothing has changed", ledger=self._name
        )  # fmt: skip

    def _close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()
        self._open = {}


def errand_for(store: Store, timeout_s: float) -> tuple[Errand, tuple[Finding, ...]]:
    """Return what a worker is told about a store, and what was found already in making it."""
    timeout_ms = int(timeout_s * 1000)
    if isinstance(store, Filed):
        return Errand(parent=os.getpid(), timeout_ms=timeout_ms, path=str(store.path), gid=store.gid), ()
    images, broken, claims, consumers = list[Imaged](), list[Finding](), set[ClaimId](), list[ConsumerState]()
    with store.reading() as reader:
        for stream, state in replayed(reader):
            if isinstance(state, Finding):
                broken.append(state)
                continue
            images.append(Imaged(stream=stream, image=image_of(state), slots=tuple(reader.slots(stream))))
            if isinstance(state, NodeState):
                claims.update(state.claims, state.quarantines)
            else:
                consumers.append(state)
        claims.update(legs_looked_at(consumers))
        rows = tuple(row for claim in sorted(claims) if (row := reader.claim(claim)) is not None)
    return Errand(parent=os.getpid(), timeout_ms=timeout_ms, images=tuple(images), rows=rows), tuple(broken)


def said_by(output: bytes, name: str, known: tuple[Finding, ...] = ()) -> tuple[Finding, ...]:
    """Return the findings in a worker's output; raises what it says that it failed with, msgspec.DecodeError or ValueError for garbage."""
    lines = [_lines.decode(line) for line in output.splitlines()]
    last = lines[-1] if lines else None
    found = [line.finding for line in lines[:-1] if isinstance(line, Found)]
    if isinstance(last, Failed):
        raise named_error(last.code)(f"audit aside: {last.message}", ledger=name)
    if not isinstance(last, Ended) or len(found) != len(lines) - 1 or last.findings != len(found):
        raise ValueError(f"{len(lines)} lines without their end")
    return (*known, *found)


def named_error(code: str) -> type[EarmarkError]:
    """Return the error of the world or of the ledger with a code; HostUnavailable for any other."""
    waiting: list[type[EarmarkError]] = [Unavailable, LedgerBroken]
    while waiting:
        kind = waiting.pop()
        if kind.code == code:
            return kind
        waiting += kind.__subclasses__()
    return HostUnavailable


def _started(errand: Errand, name: str) -> subprocess.Popen[bytes]:
    """Start a worker on an errand: its standard input stays open as long as somebody waits for it, and says nothing."""
    try:
        with os.fdopen(os.memfd_create("earmark-errand"), "w+b") as file:
            file.write(msgspec.json.encode(errand))
            file.flush()
            file.seek(0)
            command = [sys.executable, "-P", "-m", WORKER, str(file.fileno())]
            return subprocess.Popen(  # noqa: S603 - this program's own module
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, pass_fds=(file.fileno(),), process_group=0
            )  # fmt: skip
    except (OSError, ValueError) as error:
        raise HostUnavailable(f"the audit of {name} cannot be started in a process of its own: {error}", ledger=name) from error
