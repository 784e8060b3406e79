"""Deaths and deadlines take effect while a program runs, without anybody asking; where that is wanted the ledger is audited too.

Rules of this file: one thread, for the length of a `with` block; it only sweeps, as every opening of the ledger does, and audits in a process
of their own; an error of one round is logged and the next round tries again; the thread is always joined, and its process ended.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from earmark.clock import SystemClock
from earmark.errors import EarmarkError
from earmark.logs import log

if TYPE_CHECKING:
    from earmark.core.model.finding import Finding
    from earmark.tracker.aside import Auditing
    from earmark.tracker.keeping import Keeping
    from earmark.tracker.leases import Leases

elapsed_s = SystemClock().monotonic_s
"""Audits are apart in the machine's own time, whatever clock stamps the events."""
EVERY_S = 5.0
"""The longest time between two sweeps: deadlines are seen at least this often."""
LOOK_S = 0.5
"""The longest wait in one piece, so that the end of the block is not kept waiting."""
PAUSE_S = 0.2
"""The shortest time between two sweeps: a process that died and left children must not make the thread spin."""


@contextmanager
def watching(tracker: Keeping, leases: Leases, every_s: float = EVERY_S, audit_every_s: float | None = None) -> Iterator[None]:
    """Sweep when a holder of this machine's node dies (seen through its pidfd) and every `every_s` seconds, until the block ends.

    With `audit_every_s` the ledger is audited so often, in a process of its own, and findings that have changed are recorded.
    """
    stop = threading.Event()
    args = (tracker, leases, stop, every_s, audit_every_s)
    thread = threading.Thread(target=_rounds, args=args, name="earmark watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _rounds(tracker: Keeping, leases: Leases, stop: threading.Event, every_s: float, audit_every_s: float | None) -> None:
    """Wait and sweep until told to stop."""
    waited_s = every_s
    with closing(Audits(tracker, audit_every_s)) as audits:
        while not stop.is_set():
            try:
                evidence = leases.evidence(tracker.node().live())
                if evidence.gone or waited_s >= every_s:
                    tracker.sweep_used()
                    waited_s = 0.0
                died = leases.wait(evidence.alive, LOOK_S) if evidence.alive else stop.wait(LOOK_S)
                waited_s += 0.0 if died else LOOK_S
            except EarmarkError as error:
                log("watch.failed", level="warning", code=error.code)
                stop.wait(LOOK_S)
            audits.look()
            stop.wait(PAUSE_S)


class Audits:
    """Audits one after the other, each in a process of its own, begun `every_s` seconds apart at least; None: no audit."""

    def __init__(self, tracker: Keeping, every_s: float | None) -> None:
        self._tracker = tracker
        self._every_s = every_s
        self._due_s = elapsed_s()
        self._work: Auditing | None = None

    def look(self) -> None:
        """Begin an audit if one is due, and record what one has found that has ended; an error is logged and the next one tries again."""
        if self._every_s is None:
            return
        try:
            if self._work is not None and self._work.ended():
                work, self._work = self._work, None
                self._found(work.result())
            elif self._work is None and elapsed_s() >= self._due_s:
                self._due_s = elapsed_s() + self._every_s
                self._work = self._tracker.auditing()
        except EarmarkError as error:
            log("audit.failed", level="warning", code=error.code)

    def close(self) -> None:
        """End an audit that is still at work."""
        if self._work is not None:
            self._work.stop()

    def _found(self, found: tuple[Finding, ...]) -> None:
        self._tracker.record(found)
        log("audit.ended", level="error" if any(each.severity == "error" for each in found) else "info", count=len(found))
