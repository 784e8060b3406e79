"""Errors of SQLite in Earmark's words; the one place where they enter.

Rules of this file: a translation keeps what was tried and on which ledger; callers raise it `from` the foreign error. A full disk, a
read-only place, a busy writer and a damaged file are four different answers.
"""

from __future__ import annotations

import errno

import apsw

from earmark.errors import (
    EarmarkError,
    LedgerBroken,
    LedgerBusy,
    LedgerCorrupt,
    LedgerForeign,
    LedgerFull,
    LedgerReadOnly,
    LedgerUnavailable,
    WrongUse,
)
from earmark.stores.os_errors import FULL_ERRNOS

KINDS: tuple[tuple[type[apsw.Error], type[EarmarkError], str], ...] = (
    (apsw.FullError, LedgerFull, "the disk is full"),
    (apsw.CorruptError, LedgerCorrupt, "the file is damaged; restore a backup, or look at it with 'earmark verify'"),
    (apsw.NotADBError, LedgerForeign, "the file is not a ledger of Earmark"),
    (apsw.ReadOnlyError, LedgerReadOnly, "it may not be written here"),
    (apsw.PermissionsError, LedgerReadOnly, "it may not be written here"),
    (apsw.BusyError, LedgerBusy, "a program that does not queue as Earmark's writers do holds SQLite's lock"),
    (apsw.LockedError, LedgerBusy, "a program that does not queue as Earmark's writers do holds SQLite's lock"),
    (apsw.ForkingViolationError, WrongUse, "it was opened before a fork"),
    (apsw.ThreadingViolationError, WrongUse, "it is in use by another thread"),
    (apsw.ConnectionClosedError, WrongUse, "it is closed"),
    (apsw.MisuseError, WrongUse, "SQLite was misused"),
    (apsw.SQLError, LedgerBroken, "its tables are not those of this program"),
    (apsw.ConstraintError, LedgerBroken, "a constraint does not hold"),
    (apsw.MismatchError, LedgerBroken, "a value has the wrong type"),
)


def translated(error: apsw.Error, tried: str, ledger: str, system_errno: int = 0) -> EarmarkError:
    """Return an SQLite error as one of Earmark's; `system_errno` is the operating system's number where there is one."""
    if isinstance(error, apsw.IOError | apsw.CantOpenError) and system_errno in FULL_ERRNOS:
        return LedgerFull(f"{tried} {ledger}: no space ({errno.errorcode[system_errno]}); nothing was written", ledger=ledger)
    for kind, ours, words in KINDS:
        if isinstance(error, kind):
            return ours(f"{tried} {ledger}: {words} (SQLite: {error})", ledger=ledger)
    return LedgerUnavailable(f"{tried} {ledger} failed (SQLite: {error})", ledger=ledger)
