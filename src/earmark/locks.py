"""Locks of this process: each has a name, a time-out, and says who holds it when it cannot be had.

Rules of this file: a lock is entered only by `with`; no I/O happens inside one except the ledger's own commit; a thread that asks twice for the
same lock is told so instead of waiting for itself.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from earmark.errors import LockTimeout, WrongUse

LOCK_TIMEOUT_S = 10.0


class NamedLock:
    """A mutual exclusion between threads. `name` and the holder's `purpose` are what a time-out reports."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._lock = threading.Lock()
        self._holder: tuple[int, str, str] | None = None

    @contextmanager
    def hold(self, purpose: str, timeout_s: float = LOCK_TIMEOUT_S) -> Iterator[None]:
        """Hold the lock for a block; raises LockTimeout naming the holder, WrongUse if this thread holds it already."""
        me = threading.get_ident()
        holder = self._holder
        if holder is not None and holder[0] == me:
            raise WrongUse(f"lock {self.name}: this thread holds it already, for {holder[2]}", lock=self.name)
        taken = False
        try:
            taken = self._lock.acquire(timeout=timeout_s)
            if not taken:
                raise self._timed_out(purpose, timeout_s)
            self._holder = (me, threading.current_thread().name, purpose)
            yield
        finally:
            if taken:
                self._holder = None
                self._lock.release()

    def _timed_out(self, purpose: str, timeout_s: float) -> LockTimeout:
        holder = self._holder
        who = f"thread {holder[1]} for {holder[2]}" if holder else "a thread that is just leaving"
        return LockTimeout(f"lock {self.name} was wanted for {purpose} and not free within {timeout_s} s: {who} holds it", lock=self.name)
