"""The ledger in one SQLite file, for many threads and processes.

Rules of this file: writers queue twice, threads at a lock of this process, processes at the lock file; only then SQLite is asked. Readers
have connections of their own and never wait for a writer. What was acknowledged is on the disk; what failed has not happened, and where
that cannot be known the error says so.
"""

from __future__ import annotations

import os
import weakref
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import apsw

from earmark.errors import EarmarkError, InvalidRequest, LedgerBusy, LedgerCorrupt, LedgerReadOnly, LockTimeout, OutcomeUnknown, WrongUse
from earmark.locks import NamedLock
from earmark.stores.contract import BUSY_TIMEOUT_S
from earmark.stores.delegating import Delegating
from earmark.stores.os_errors import os_translated
from earmark.stores.sqlite.errors import translated
from earmark.stores.sqlite.migrations import copy_database
from earmark.stores.sqlite.opening import Opened, Surroundings, connect_reader, open_file
from earmark.stores.sqlite.reader import SqliteReader
from earmark.stores.sqlite.transaction import SqliteTransaction

READERS_IDLE_MAX = 8
"""Read connections kept for the next reader."""
CHECKPOINT_PAGES = 1000
"""Pages in the write-ahead log after which it is copied into the file (SQLite's own default)."""
DAMAGES_MAX = 20


class SqliteStore(Delegating):
    """A ledger file. Close it, or use it as a context manager."""

    def __init__(
        self, path: Path, *, gid: int | None = None, create: bool = True, write: bool = True, around: Surroundings | None = None
    ) -> None:
        """Open or make a ledger; `gid` is the group that shares it (None: 0600, only the owner); without `write` it is only read.

        Raises UnsafePlace, LedgerForeign, LedgerCorrupt, LedgerFull, LedgerReadOnly, LedgerBusy or LedgerUnavailable.
        """
        self._path = path
        self.gid = gid
        self._pid = os.getpid()
        self._around = around or Surroundings()
        opened = open_file(path, gid=gid, create=create, write=write, around=self._around)
        self._opened: Opened = opened
        self._threads = NamedLock(f"writers of {path}")
        self._idle: deque[apsw.Connection] = deque()
        self._connections: set[apsw.Connection] = {opened.write} if opened.write is not None else set()
        self._closed = False
        self._log_pages = 0
        self._committed = False
        self.checkpoint_failure: str | None = None
        """Why the last copying of the log into the file failed; nothing is lost by it, the log only grows."""
        if opened.write is not None:
            opened.write.set_wal_hook(self._after_commit)
        _stores.add(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def name(self) -> str:
        """The path of the ledger."""
        return str(self._path)

    @property
    def path(self) -> Path:
        """Where the file stands: another process can open it there."""
        return self._path.absolute()

    @property
    def ledger_id(self) -> str:
        """The uuid given to the ledger when it was made."""
        return self._opened.ledger_id

    @property
    def writable(self) -> bool:
        """Whether this ledger may be written here."""
        return self._opened.unwritable is None

    @property
    def unwritable(self) -> EarmarkError | None:
        """Why it may not be written (LedgerReadOnly, LedgerNewer), None if it may."""
        return self._opened.unwritable

    @property
    def migration_copies(self) -> tuple[Path, ...]:
        """The copies made before this opening's migrations."""
        return self._opened.copies

    # --- writing --------------------------------------------------------------------------------------------------------------------

    @contextmanager
    def transaction(self, *, purpose: str = "write", timeout_s: float = BUSY_TIMEOUT_S) -> Iterator[SqliteTransaction]:
        """Enter the one write transaction of all processes; committed when the block ends well, else rolled back.

        Raises LedgerBusy naming the writer after `timeout_s`, LedgerReadOnly or LedgerNewer where nothing may be written, LedgerFull or
        LedgerUnavailable if the commit failed (it has not happened), OutcomeUnknown if that cannot be told.
        """
        self._check()
        opened = self._opened
        if opened.write is None or opened.lock is None:
            refusal = opened.unwritable or LedgerReadOnly(f"ledger {self._path} may not be written here")
            raise type(refusal)(f"{purpose}: {refusal.message}", **refusal.facts)
        entered = False
        try:
            with self._threads.hold(purpose, timeout_s):
                entered = True
                self._check()
                with opened.lock.hold(purpose, timeout_s, self.name):
                    yield from self._inside(opened.write, purpose)
        except LockTimeout as error:
            if entered:
                raise
            raise LedgerBusy(f"{purpose} on {self._path}, pid {self._pid}: {error.message}", ledger=self.name, pid=self._pid) from error

    def _inside(self, connection: apsw.Connection, purpose: str) -> Iterator[SqliteTransaction]:
        """Begin, let the block work, and commit or roll back; an interrupt at any moment leaves no transaction open."""
        tx = SqliteTransaction(connection, self.name)
        try:
            self._begin(connection, purpose)
            yield tx
            tx.finish()
            self._commit(connection, purpose)
        except BaseException as error:
            tx.end()
            try:
                self._roll_back(connection)
            except EarmarkError as second:
                error.add_note(f"and the rollback failed: {second.message}")
            raise
        if self._log_pages >= CHECKPOINT_PAGES:
            self._checkpoint(connection)

    def _begin(self, connection: apsw.Connection, purpose: str) -> None:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except apsw.Error as error:
            raise translated(error, f"{purpose}: begin on", self.name, connection.system_errno) from error

    def _commit(self, connection: apsw.Connection, purpose: str) -> None:
        self._committed = False  # _after_commit, which COMMIT calls, sets it
        try:
            connection.execute("COMMIT")
        except apsw.Error as error:
            if self._is_committed():
                return
            failed_errno = connection.system_errno
            self._roll_back(connection)
            if isinstance(error, apsw.IOError) and getattr(error, "extendedresult", 0) != apsw.SQLITE_IOERR_WRITE:
                self._cover(connection, error, purpose)
            raise translated(error, f"{purpose}: commit to", self.name, failed_errno) from error

    def _cover(self, connection: apsw.Connection, cause: apsw.Error, purpose: str) -> None:
        """Write over a transaction whose flush failed: its bytes may stand in the log, and the next opening would take them as valid."""
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("UPDATE ledger SET failed_commits = failed_commits + 1")
            connection.execute("COMMIT")
        except apsw.Error as error:
            self._roll_back(connection)
            raise OutcomeUnknown(
                f"{purpose}: commit to {self._path} failed ({cause}), and so did taking it back ({error}): the next opening shows whether it stands",
                ledger=self.name,
            ) from cause

    def _roll_back(self, connection: apsw.Connection) -> None:
        if connection.in_transaction:
            try:
                connection.execute("ROLLBACK")
            except apsw.Error as error:
                raise translated(error, "roll back on", self.name, connection.system_errno) from error

    def _after_commit(self, _connection: apsw.Connection, _name: str, pages: int) -> int:
        """Note the length of the log; SQLite calls this after each commit (sqlite3_wal_hook)."""
        self._committed = True
        self._log_pages = pages
        return apsw.SQLITE_OK

    def _is_committed(self) -> bool:
        return self._committed

    def _checkpoint(self, connection: apsw.Connection) -> None:
        """Copy the log into the file as far as readers allow; a failure is kept for who asks, the commit stands."""
        try:
            connection.wal_checkpoint(None, apsw.SQLITE_CHECKPOINT_PASSIVE)
            self.checkpoint_failure = None
        except apsw.Error as error:
            self.checkpoint_failure = str(translated(error, "checkpoint", self.name, connection.system_errno))

    # --- reading --------------------------------------------------------------------------------------------------------------------

    @contextmanager
    def reading(self) -> Iterator[SqliteReader]:
        """Enter a consistent view: all reads inside see one point of the order, whatever is written meanwhile."""
        with self._view() as reader:
            connection = reader.connection
            try:
                connection.execute("BEGIN")
                connection.execute("SELECT one FROM ledger").fetchall()
            except apsw.Error as error:
                raise translated(error, "read", self.name, connection.system_errno) from error
            yield reader
            try:
                connection.execute("COMMIT")
            except apsw.Error as error:
                raise translated(error, "end reading", self.name, connection.system_errno) from error

    @contextmanager
    def _view(self) -> Iterator[SqliteReader]:
        """Lend a read connection for a block."""
        self._check()
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = connect_reader(self._path, self._around.vfs, immutable=self._opened.immutable)
            self._connections.add(connection)
        reader = SqliteReader(connection, self.name)
        try:
            yield reader
        finally:
            reader.end()
            self._give_back(connection)

    def _give_back(self, connection: apsw.Connection) -> None:
        """Keep a connection for the next reader if there are few and its block ended well; a closed store keeps none."""
        if os.getpid() != self._pid:
            return
        if connection.in_transaction or self._opened.immutable or len(self._idle) >= READERS_IDLE_MAX:
            self._connections.discard(connection)
            connection.close()
            return
        self._idle.append(connection)
        if self._closed:
            self._close_idle()

    # --- the whole ledger -----------------------------------------------------------------------------------------------------------

    def backup(self, target: Path) -> None:
        """Write a complete, consistent copy to a new file of mode 0600; raises InvalidRequest if it exists. Writers are not held up."""
        with self._view() as reader:
            try:
                copy_database(reader.connection, target)
            except FileExistsError as error:
                raise InvalidRequest(f"backup of {self._path}: {target} exists, choose another name", path=str(target)) from error
            except OSError as error:
                raise os_translated(error, f"backup of {self._path} to", str(target)) from error
            except apsw.Error as error:
                raise translated(error, f"backup to {target} of", self.name) from error

    def damages(self) -> tuple[str, ...]:
        """Return what SQLite's own check finds wrong with the file, at most DAMAGES_MAX lines; reads all of it."""
        try:
            with self._view() as reader:
                found = reader.integrity(DAMAGES_MAX)
        except LedgerCorrupt as error:
            return (error.message,)
        return tuple(line for line in found if line != "ok")

    def close(self) -> None:
        """Close everything; may be repeated. In a child after fork nothing of the parent's is touched."""
        if self._closed or os.getpid() != self._pid:
            self._closed = True
            return
        with self._threads.hold("close"):
            self._closed = True
            _stores.discard(self)
            try:
                self._close_idle()
                if self._opened.write is not None:
                    self._connections.discard(self._opened.write)
                    self._opened.write.close()
            except apsw.Error as error:
                raise translated(error, "close", self.name) from error
            finally:
                if self._opened.lock is not None:
                    self._opened.lock.close()

    def _close_idle(self) -> None:
        while self._idle:
            connection = self._idle.pop()
            self._connections.discard(connection)
            connection.close()

    def _check(self) -> None:
        """Raise WrongUse after fork or close."""
        if os.getpid() != self._pid:
            raise WrongUse(
                f"ledger {self._path} was opened by pid {self._pid} before a fork: open it again in pid {os.getpid()}", ledger=self.name
            )
        if self._closed:
            raise WrongUse(f"ledger {self._path} is closed", ledger=self.name)

    def _abandon(self) -> None:
        """In a child after fork: keep SQLite's objects for ever, because closing them would touch the parent's files; drop the lock file."""
        import ctypes  # noqa: PLC0415  only a forked child needs it

        for connection in self._connections:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))
        if self._opened.lock is not None:
            self._opened.lock.close()


_stores: weakref.WeakSet[SqliteStore] = weakref.WeakSet()


def _after_fork() -> None:
    """Let go of all stores of the parent."""
    for store in list(_stores):
        store._abandon()  # noqa: SLF001  the same module
    _stores.clear()


os.register_at_fork(after_in_child=_after_fork)
