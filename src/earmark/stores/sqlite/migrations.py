"""The schema of an SQLite ledger as numbered steps, and the way from an older one to this program's.

Rules of this file: a released step is never changed; a new file is made by all steps in order, so there is one truth. Before each step of an
existing ledger a complete copy is put beside it. A step is one transaction: it has happened or not.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import apsw

from earmark.stores.uuids import new_uuid

APPLICATION_ID = 0x4541524D
"""The four letters EARM in the header of every ledger (SQLite file format, offset 68)."""
SCHEMA = Path(__file__).parent / "schema"
COPIES_MAX = 100


class Migration(NamedTuple):
    """One step: `version` is what the ledger's user_version is after it, `file` the SQL."""

    version: int
    file: Path


MIGRATIONS = (Migration(1, SCHEMA / "0001_ledger.sql"), Migration(2, SCHEMA / "0002_lives.sql"))


def newest(migrations: Sequence[Migration]) -> int:
    """Return the schema version that some steps lead to."""
    return max(step.version for step in migrations)


def make_schema(connection: apsw.Connection, migrations: Sequence[Migration]) -> None:
    """Make the tables of a new ledger and give it its id, in one transaction; raises apsw.Error."""
    texts = [step.file.read_text(encoding="utf-8") for step in migrations]
    with connection:
        for text in texts:
            connection.execute(text)
        connection.execute("INSERT INTO ledger (one, id) VALUES (1, ?)", (new_uuid(),))
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {newest(migrations)}")


def migrate(connection: apsw.Connection, path: Path, migrations: Sequence[Migration]) -> list[Path]:
    """Bring an existing ledger to the newest version, a copy before each step; returns the copies. Raises apsw.Error, OSError.

    Only for a writer that holds the writers' lock.
    """
    copies = []
    version = int(connection.pragma("user_version"))
    for step in migrations:
        if step.version <= version:
            continue
        copy = free_name(path, version)
        copy_database(connection, copy)
        copies.append(copy)
        text = step.file.read_text(encoding="utf-8")
        with connection:
            connection.execute(text)
            connection.execute(f"PRAGMA user_version = {step.version}")
        version = step.version
    return copies


def free_name(path: Path, version: int) -> Path:
    """Return a name beside the ledger for a copy of schema `version` that no earlier copy has; raises FileExistsError after COPIES_MAX."""
    for number in range(COPIES_MAX):
        copy = path.with_name(f"{path.name}.schema-{version}.backup" + (f"-{number}" if number else ""))
        if not os.path.lexists(copy):
            return copy
    raise FileExistsError(f"there are {COPIES_MAX} copies of {path} already")


def copy_database(source: apsw.Connection, target: Path) -> None:
    """Write a complete, durable copy of a ledger as of now to a new file of mode 0600; raises FileExistsError, OSError, apsw.Error.

    The copy is made under another name and appears whole; writers are not held up.
    """
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    part = target.with_name(f".{target.name}.{os.getpid()}.{os.urandom(4).hex()}")
    try:
        os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        copy = apsw.Connection(str(part), flags=apsw.SQLITE_OPEN_READWRITE)
        try:
            with copy.backup("main", source, "main") as running:
                while not running.done:
                    running.step(-1)
        finally:
            copy.close()
        _flush(part)
        part.replace(target)
        _flush(target.parent)
    except BaseException:
        part.unlink(missing_ok=True)
        target.unlink(missing_ok=True)
        raise


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
