"""The twin of the SQLite store, in memory: the same promises and the same errors, except that it ends with the process.

Rules of this file: the ledger is one immutable value, put in place by one assignment at the commit.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from earmark.errors import LedgerBusy, LedgerUnavailable, LockTimeout, WrongUse
from earmark.locks import NamedLock
from earmark.stores.contract import BUSY_TIMEOUT_S
from earmark.stores.delegating import Delegating
from earmark.stores.memory_views import Ledger, MemoryReader, MemoryTransaction
from earmark.stores.uuids import new_uuid


class MemoryStore(Delegating):
    """A ledger in memory, for tests, what-if and short-lived use."""

    def __init__(self, *, ledger_id: str | None = None) -> None:
        """Make an empty ledger."""
        self._pid = os.getpid()
        self._id = ledger_id or new_uuid()
        self._threads = NamedLock("writers of memory")
        self._ledger = Ledger()
        self._closed = False

    @property
    def name(self) -> str:
        """What messages call it."""
        return "memory"

    @property
    def ledger_id(self) -> str:
        """The uuid given to the ledger when it was made."""
        return self._id

    @property
    def writable(self) -> bool:
        """Always true."""
        return True

    @contextmanager
    def transaction(self, *, purpose: str = "write", timeout_s: float = BUSY_TIMEOUT_S) -> Iterator[MemoryTransaction]:
        """Enter the one write transaction; in place when the block ends well, else forgotten.

        Raises LedgerBusy naming the thread that holds it after `timeout_s`.
        """
        self._check()
        entered = False
        try:
            with self._threads.hold(purpose, timeout_s):
                entered = True
                self._check()
                tx = MemoryTransaction(self._ledger, self.name)
                try:
                    yield tx
                finally:
                    tx.end()
                self._ledger = tx.result
        except LockTimeout as error:
            if entered:
                raise
            raise LedgerBusy(f"{purpose} on {self.name}, pid {self._pid}: {error.message}", ledger=self.name, pid=self._pid) from error

    @contextmanager
    def reading(self) -> Iterator[MemoryReader]:
        """Enter a consistent view: all reads inside see one point of the order, whatever is written meanwhile."""
        self._check()
        reader = MemoryReader(self._ledger, self.name)
        try:
            yield reader
        finally:
            reader.end()

    _view = reading

    def backup(self, target: Path) -> None:
        """Memory has no file to copy: raises LedgerUnavailable; an export works."""
        raise LedgerUnavailable(f"backup of {self.name} to {target}: a ledger in memory is no file; export it instead", path=str(target))

    def close(self) -> None:
        """Forget everything; may be repeated."""
        self._closed = True

    def _check(self) -> None:
        """Raise WrongUse after fork or close."""
        if os.getpid() != self._pid:
            raise WrongUse(
                f"ledger {self.name} was opened by pid {self._pid} before a fork: open it again in pid {os.getpid()}", ledger=self.name
            )
        if self._closed:
            raise WrongUse(f"ledger {self.name} is closed", ledger=self.name)
