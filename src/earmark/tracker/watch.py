"""Deaths and deadlines take effect while a program runs, without anybody asking.

Rules of this file: one thread, for the length of a `with` block; it only sweeps, as every opening of the ledger does; an error of one round is logged and
the next round tries again; the thread is always joined.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from earmark.errors import EarmarkError
from earmark.logs import log

if TYPE_CHECKING:
    from earmark.tracker.keeping import Keeping
    from earmark.tracker.leases import Leases

EVERY_S = 5.0
"""The longest time between two sweeps: deadlines are seen at least this often."""
LOOK_S = 0.5
"""The longest wait in one piece, so that the end of the block is not kept waiting."""
PAUSE_S = 0.2
"""The shortest time between two sweeps: a process that died and left children must not make the thread spin."""


@contextmanager
def watching(tracker: Keeping, leases: Leases, every_s: float = EVERY_S) -> Iterator[None]:
    """Sweep when a holder of this machine's node dies (seen through its pidfd) and every `every_s` seconds, until the block ends."""
    stop = threading.Event()
    thread = threading.Thread(target=_rounds, args=(tracker, leases, stop, every_s), name="earmark watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _rounds(tracker: Keeping, leases: Leases, stop: threading.Event, every_s: float) -> None:
    """Wait and sweep until told to stop."""
    waited_s = every_s
    while not stop.is_set():
        try:
            evidence = leases.evidence(tracker.node().live())
            if evidence.gone or waited_s >= every_s:
                tracker.sweep()
                waited_s = 0.0
            died = leases.wait(evidence.alive, LOOK_S) if evidence.alive else stop.wait(LOOK_S)
            waited_s += 0.0 if died else LOOK_S
        except EarmarkError as error:
            log("watch.failed", level="warning", code=error.code)
            stop.wait(LOOK_S)
        stop.wait(PAUSE_S)
