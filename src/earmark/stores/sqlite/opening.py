"""Opening a ledger file: what must be true before the first byte is read or written.

Rules of this file: a refusal says what is wrong and leaves everything as it was. The ledger's own file is never opened here except by SQLite:
closing any other descriptor of it would drop SQLite's locks (POSIX). Nothing looks at events, so opening does not depend on their number.
"""

import array
import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import apsw

from earmark.errors import (
    EarmarkError,
    LedgerCorrupt,
    LedgerForeign,
    LedgerNewer,
    LedgerReadOnly,
    LedgerUnavailable,
    UnsafePlace,
)
from earmark.stores.contract import BUSY_TIMEOUT_S
from earmark.stores.os_errors import os_translated
from earmark.stores.safe_files import NO_TRICKS, flush_folder, judge_file, judge_folder, make_folder, set_access
from earmark.stores.sqlite.errors import translated
from earmark.stores.sqlite.lock import WriterLock
from earmark.stores.sqlite.migrations import APPLICATION_ID, MIGRATIONS, Migration, make_schema, migrate, newest

BROKEN_FIRST, BROKEN_LAST = (3, 7, 0), (3, 51, 2)
"""Releases whose WAL-reset bug can lose a committed transaction (sqlite.org/wal.html#walresetbug)."""
NETWORK_FILE_SYSTEMS = frozenset(
    {
        "9p", "acfs", "afs", "beegfs", "ceph", "cifs", "coda", "fuse.ceph", "fuse.cephfs", "fuse.curlftpfs", "fuse.davfs", "fuse.gcsfuse",
        "fuse.glusterfs", "fuse.juicefs", "fuse.rclone", "fuse.s3fs", "fuse.smbnetfs", "fuse.sshfs", "gfs2", "glusterfs", "gpfs", "lustre",
        "ncpfs", "nfs", "nfs4", "ocfs2", "orangefs", "smb3", "smbfs",
    }
)  # fmt: skip
"""File systems on which other machines may write the same file; WAL needs memory that all writers share."""
MOUNT_POINT = 4
"""The field of /proc/PID/mountinfo that holds the mount point (proc(5))."""
WRITER_SUFFIX = ".writer"
WAL_KEPT_BYTES = 16 * 1024 * 1024
MODE_FOLDER, MODE_FILE = 0o700, 0o600
MODE_GROUP_FOLDER, MODE_GROUP_FILE = 0o2770, 0o660


class Surroundings(NamedTuple):
    """What opening depends on beside the file; tests put other values in its place."""

    sqlite_version: str = apsw.sqlite_lib_version()
    mountinfo: Path = Path("/proc/self/mountinfo")
    vfs: str | None = None
    migrations: Sequence[Migration] = MIGRATIONS


class Opened(NamedTuple):
    """What opening found: `write` and `lock` are None where `unwritable` says why nothing may be written; `copies` of migrations."""

    ledger_id: str
    write: apsw.Connection | None
    lock: WriterLock | None
    immutable: bool = False
    unwritable: EarmarkError | None = None
    copies: tuple[Path, ...] = ()


def open_file(path: Path, *, gid: int | None, create: bool, around: Surroundings, write: bool = True) -> Opened:
    """Open a ledger, making it if it is missing or empty and `create` is on; without `write` it is opened to be read.

    Raises UnsafePlace, LedgerForeign, LedgerCorrupt, LedgerReadOnly, LedgerFull, LedgerBusy or LedgerUnavailable.
    """
    check_library(around.sqlite_version)
    check_file_system(path.parent, around.mountinfo)
    check_place(path, gid=gid, create=create)
    if not write:
        return _open_to_read(path, around, LedgerReadOnly(f"ledger {path} was opened to be read"))
    if not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)):
        what = "file" if not os.access(path, os.W_OK) else "folder"
        return _open_to_read(path, around, LedgerReadOnly(f"ledger {path}: its {what} may not be written by uid {os.geteuid()}"))
    connection = _connected(str(path), apsw.SQLITE_OPEN_READWRITE, around.vfs)
    lock = None
    try:
        version = _version(connection, path)
        if version > newest(around.migrations):
            connection.close()
            return _open_to_read(path, around, _too_new(path, version, around))
        lock = WriterLock(path.with_name(path.name + WRITER_SUFFIX), mode=MODE_GROUP_FILE if gid is not None else MODE_FILE, gid=gid)
        copies = _complete(connection, path, lock, around) if version < newest(around.migrations) else []
        prepare_connection(connection, writer=True)
        return Opened(_ledger_id(connection, path), connection, lock, copies=tuple(copies))
    except BaseException as error:
        if lock is not None:
            lock.close()
        failed_errno = connection.system_errno
        connection.close()
        if isinstance(error, apsw.Error):
            raise translated(error, "open", str(path), failed_errno) from error
        raise


def _complete(connection: apsw.Connection, path: Path, lock: WriterLock, around: Surroundings) -> list[Path]:
    """Make or migrate the tables while no other writer is inside; raises apsw.Error."""
    with lock.hold("make or migrate the tables", BUSY_TIMEOUT_S, str(path)):
        version = _version(connection, path)
        if version == 0:
            if connection.pragma("journal_mode", "wal") != "wal":
                raise UnsafePlace(f"ledger {path}: SQLite cannot keep a write-ahead log on this file system", path=str(path))
            make_schema(connection, around.migrations)
            flush_folder(path.parent)
            return []
        try:
            return migrate(connection, path, around.migrations)
        except OSError as error:
            raise os_translated(error, "copy before a migration", str(path)) from error


def _open_to_read(path: Path, around: Surroundings, unwritable: EarmarkError) -> Opened:
    """Open a ledger that may not be written; without side files that can be made, as a file that nobody changes meanwhile."""
    immutable = False
    try:
        connection = connect_reader(path, around.vfs)
    except LedgerUnavailable as error:
        if not isinstance(error.__cause__, apsw.CantOpenError | apsw.ReadOnlyError):
            raise
        immutable = True
        connection = connect_reader(path, around.vfs, immutable=True)
    try:
        if _version(connection, path) == 0:
            raise LedgerForeign(f"ledger {path} is empty, and it cannot be made here: {unwritable.message}", path=str(path))
        return Opened(_ledger_id(connection, path), None, None, immutable, unwritable)
    except apsw.Error as error:
        raise translated(error, "open", str(path), connection.system_errno) from error
    finally:
        connection.close()


def connect_reader(path: Path, vfs: str | None, *, immutable: bool = False) -> apsw.Connection:
    """Return a connection that only reads. `immutable`: no locks and no side files, for a file that nobody here can write.

    Raises LedgerUnavailable and the other translations of apsw.Error.
    """
    if immutable:
        log = path.with_name(path.name + "-wal")
        if log.exists() and log.stat().st_size:
            raise LedgerUnavailable(f"ledger {path}: newer events are in {log.name}, which cannot be read here", path=str(path))
        connection = _connected(path.absolute().as_uri() + "?immutable=1", apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI, vfs)
    else:
        connection = _connected(str(path), apsw.SQLITE_OPEN_READWRITE if os.access(path, os.W_OK) else apsw.SQLITE_OPEN_READONLY, vfs)
    try:
        prepare_connection(connection, writer=False)
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()
    except apsw.Error as error:
        failed_errno = connection.system_errno
        connection.close()
        raise translated(error, "open", str(path), failed_errno) from error
    return connection


def _connected(name: str, flags: int, vfs: str | None) -> apsw.Connection:
    """Return a bare connection; raises the translation of apsw.Error."""
    try:
        connection = apsw.Connection(name, flags=flags, vfs=vfs)
    except apsw.Error as error:
        raise translated(error, "open", name) from error
    # Until the file is accepted, closing must not copy a log into it.
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    connection.set_busy_timeout(int(BUSY_TIMEOUT_S * 1000))
    return connection


def prepare_connection(connection: apsw.Connection, *, writer: bool) -> None:
    """Set what every connection needs; raises apsw.Error.

    The schema of a file from elsewhere is not trusted: no triggers, no views, no functions with side effects.
    """
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_FKEY, 1)
    connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
    connection.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 0)
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_VIEW, 0)
    # A statement keeps its plan whatever is bound to it; else ranges are planned anew at each call, three times as dear as the call itself.
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
    if writer:
        if connection.pragma("journal_mode") != "wal":
            connection.pragma("journal_mode", "wal")
        connection.pragma("synchronous", "full")
        connection.pragma("journal_size_limit", WAL_KEPT_BYTES)
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0)
    else:
        connection.pragma("query_only", 1)
    # The log's files stay when the last user leaves, so that those who may only read can still open the ledger.
    keep = array.array("i", [1])
    connection.file_control("main", apsw.SQLITE_FCNTL_PERSIST_WAL, keep.buffer_info()[0])


def _version(connection: apsw.Connection, path: Path) -> int:
    """Return the schema version of an open file, 0 for an empty one; raises LedgerForeign, apsw.Error."""
    application = int(connection.pragma("application_id"))
    version = int(connection.pragma("user_version"))
    tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()[0][0]
    if application == APPLICATION_ID and version >= 1:
        return version
    if application == 0 and version == 0 and not tables:
        return 0
    raise LedgerForeign(
        f"{path} is an SQLite database of another program (application id {application:#x}, {tables} tables), not a ledger of Earmark",
        path=str(path), application_id=application,
    )  # fmt: skip


def _ledger_id(connection: apsw.Connection, path: Path) -> str:
    rows = connection.execute("SELECT id FROM ledger WHERE one = 1").fetchall()
    if not rows:
        raise LedgerCorrupt(f"ledger {path} has lost its own row; restore a backup", path=str(path))
    return str(rows[0][0])


def _too_new(path: Path, version: int, around: Surroundings) -> LedgerNewer:
    return LedgerNewer(
        f"ledger {path} has schema {version}, this program knows {newest(around.migrations)}: it can read it and writes nothing",
        path=str(path), found=version, known=newest(around.migrations),
    )  # fmt: skip


# --- the place ----------------------------------------------------------------------------------------------------------------------


def check_library(version: str) -> None:
    """Raise UnsafePlace for an SQLite library that can lose committed transactions."""
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:3])
    if BROKEN_FIRST <= numbers <= BROKEN_LAST:
        raise UnsafePlace(
            f"SQLite {version} can lose committed transactions (all of 3.7.0 to 3.51.2 can): install apsw 3.54 or newer", found=version
        )


def check_file_system(folder: Path, mountinfo: Path) -> None:
    """Raise UnsafePlace if a folder, or the nearest one above it that exists, is on a network file system."""
    kind = file_system(folder, mountinfo)
    if kind in NETWORK_FILE_SYSTEMS:
        raise UnsafePlace(
            f"{folder} is on a network file system ({kind}), where SQLite cannot keep a ledger safe: choose a local disk with --ledger",
            path=str(folder), found=kind,
        )  # fmt: skip


def file_system(folder: Path, mountinfo: Path) -> str | None:
    """Return the type of the file system that holds a folder (proc(5), /proc/PID/mountinfo), None if it cannot be known."""
    try:
        lines = mountinfo.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None
    place = os.path.realpath(folder)
    found: tuple[int, str | None] = (-1, None)
    for line in lines:
        before, _, after = line.partition(" - ")
        fields, kinds = before.split(" "), after.split(" ")
        if len(fields) <= MOUNT_POINT or not kinds[0]:
            continue
        point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), fields[MOUNT_POINT])
        inside = place == point or place.startswith(point.rstrip("/") + "/")
        # Of two mounts on one point the later line is the upper one.
        if inside and len(point) >= found[0]:
            found = (len(point), kinds[0])
    return found[1]


def check_place(path: Path, *, gid: int | None, create: bool) -> None:
    """Make what is missing of folder and file (if `create`), and raise UnsafePlace where others could write or exchange them."""
    owners = {0, os.geteuid()}
    try:
        if not path.parent.exists():
            if not create:
                raise LedgerUnavailable(f"open {path}: No such file or directory", path=str(path))
            make_folder(path.parent, mode=MODE_GROUP_FOLDER if gid is not None else MODE_FOLDER, gid=gid)
        judge_folder(path.parent, owners=owners, gid=gid, chosen=True)
        try:
            status = path.lstat()
        except FileNotFoundError:
            if not create:
                raise
            _make_file(path, gid)
            status = path.lstat()
    except OSError as error:
        raise os_translated(error, "open", str(path)) from error
    if not stat.S_ISREG(status.st_mode):
        raise UnsafePlace(f"ledger {path} is not a regular file", path=str(path))
    judge_file(path, status, owners=owners, gid=gid)


def _make_file(path: Path, gid: int | None) -> None:
    """Make an empty file with the ledger's mode; that another process made it meanwhile is as good. Raises OSError."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | NO_TRICKS, 0o600)
    except FileExistsError:
        return
    try:
        set_access(descriptor, MODE_GROUP_FILE if gid is not None else MODE_FILE, gid)
    finally:
        os.close(descriptor)
