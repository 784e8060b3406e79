"""The schema: what a fresh file holds, how an older one is brought to it, and what a newer one allows."""

from __future__ import annotations

import hashlib
from pathlib import Path

import apsw
import pytest
from tests.stores.making import A, audit, held, put, registered

from earmark.errors import LedgerBroken, LedgerNewer
from earmark.stores.sqlite.migrations import MIGRATIONS, SCHEMA, Migration, make_schema, migrate
from earmark.stores.sqlite.opening import Surroundings
from earmark.stores.sqlite.store import SqliteStore

RELEASED: dict[str, str] = {}
"""Steps that were released, with the hash of their text: they never change."""


NOW = MIGRATIONS[-1].version
"""The schema of this program; the steps after it are those of tests."""


def schema_of(connection: apsw.Connection) -> list[object]:
    """Return everything that a file's schema says."""
    return [connection.pragma("user_version"), connection.pragma("application_id"), *connection.execute("SELECT * FROM sqlite_schema")]


def step(folder: Path, version: int, sql: str) -> Migration:
    """Return a migration that only this test knows."""
    file = folder / f"{version:04}_test.sql"
    file.write_text(sql)
    return Migration(version, file)


def test_the_steps_are_the_files(path: Path) -> None:
    """Each file of the schema folder is a step, numbered from 1 without gaps; a released one is as it was."""
    files = sorted(SCHEMA.glob("*.sql"))
    assert [each.file for each in MIGRATIONS] == files
    assert [each.version for each in MIGRATIONS] == list(range(1, len(files) + 1)) == [int(file.name[:4]) for file in files]
    for name, digest in RELEASED.items():
        assert hashlib.sha256((SCHEMA / name).read_bytes()).hexdigest() == digest


def test_a_fresh_file_has_the_schema_of_all_steps(path: Path, tmp_path: Path) -> None:
    """What a new ledger has equals what an oldest ledger has after every migration, one by one."""
    SqliteStore(path).close()
    old = apsw.Connection(str(tmp_path / "old.db"))
    make_schema(old, MIGRATIONS[:1])
    migrate(old, tmp_path / "old.db", MIGRATIONS)
    fresh = apsw.Connection(str(path))
    assert schema_of(fresh) == schema_of(old)
    fresh.close()
    old.close()


def test_every_table_is_strict(path: Path) -> None:
    """No column takes a value of another type than its own, and references and checks are there."""
    SqliteStore(path).close()
    connection = apsw.Connection(str(path))
    tables = [row for row in connection.execute("PRAGMA table_list") if row[2] == "table" and not row[1].startswith("sqlite_")]
    assert len(tables) == 13
    assert all(row[5] for row in tables), [row[1] for row in tables if not row[5]]
    assert {row[1] for row in tables if row[4]} == {"claims", "slots", "answers", "moves"}
    connection.close()


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO slots VALUES (1, 'cpu:1', 'c-bbbb', 'cpu:1')",
        "INSERT INTO slots VALUES (1, 'cpu:9', 'c-none', 'cpu:9')",
        "INSERT INTO slots VALUES (7, 'cpu:9', 'c-bbbb', 'cpu:9')",
        "INSERT INTO slots VALUES (1, '', 'c-bbbb', 'cpu:9')",
        "INSERT INTO claims VALUES ('c-cccc', 1, 'vm-c-aaaa', 'main', NULL)",
        "INSERT INTO claims VALUES ('c-aaaa', 1, 'other', 'main', NULL)",
        "INSERT INTO claims VALUES ('c-cccc', 9, 'other', 'main', NULL)",
        "INSERT INTO events VALUES (9, 1, 3, 1, 1, zeroblob(32), x'00')",
        "INSERT INTO events VALUES (3, 1, 9, 1, 1, zeroblob(32), x'00')",
        "INSERT INTO events VALUES (9, 1, 9, 1, 1, zeroblob(31), x'00')",
        "INSERT INTO events VALUES (9, 1, 9, -1, 1, zeroblob(32), x'00')",
        "INSERT INTO events VALUES (9, 1, 9, 1, 'now', zeroblob(32), x'00')",
        "INSERT INTO streams VALUES (9, 'node:a')",
        "INSERT INTO ledger VALUES (2, '00000000-0000-0000-0000-000000000000', 0)",
        "DELETE FROM streams",
        "DELETE FROM claims WHERE claim = 'c-aaaa'",
    ],
)
def test_overlapping_states_cannot_be_written(sqlite: SqliteStore, sql: str) -> None:
    """Even a statement past all code is refused by the schema: two holders, two mains, two events in one place, rows that hang in the air."""
    put(sqlite, A, registered(), held("c-aaaa", [1]), held("c-bbbb", [2]))
    connection = sqlite._opened.write
    assert connection is not None
    with pytest.raises(apsw.ConstraintError):
        connection.execute(sql)


def test_what_is_kept_twice_is_equal(sqlite: SqliteStore) -> None:
    """Epoch and time in their columns are those of the stored bytes."""
    put(sqlite, A, registered(), held("c-aaaa", [1]))
    connection = sqlite._opened.write
    assert connection is not None
    sql = "SELECT count(*) FROM events WHERE epoch <> raw ->> '$.epoch' OR at_ms <> raw ->> '$.at_ms' OR sequence <> raw ->> '$.sequence'"
    assert connection.execute(sql).fetchall() == [(0,)]


def test_an_older_ledger_is_migrated_with_a_copy_before_each_step(path: Path, tmp_path: Path) -> None:
    """Two steps leave two complete copies of mode 0600, one of each older schema; the ledger itself has everything and the new tables."""
    with SqliteStore(path) as store:
        put(store, A, registered(), held("c-aaaa", [1]))
    steps = [
        *MIGRATIONS,
        step(tmp_path, NOW + 1, "CREATE TABLE two (x INTEGER) STRICT"),
        step(tmp_path, NOW + 2, "ALTER TABLE two ADD COLUMN y TEXT"),
    ]
    with SqliteStore(path, around=Surroundings(migrations=steps)) as store:
        copies = store.migration_copies
        put(store, A, held("c-bbbb", [2]))
        audit(store)
    assert [copy.name for copy in copies] == [f"ledger.db.schema-{version}.backup" for version in (NOW, NOW + 1)]
    assert [copy.stat().st_mode & 0o777 for copy in copies] == [0o600, 0o600]
    with SqliteStore(copies[0]) as copy:
        assert [row.claim for row in copy.claims_like("")] == ["c-aaaa"]
        audit(copy)
    with SqliteStore(path, around=Surroundings(migrations=steps)) as store:
        assert store.migration_copies == ()


def test_a_step_that_fails_changes_nothing(path: Path, tmp_path: Path) -> None:
    """A step that breaks off is rolled back whole; the ledger stays what it was, and the copy is there."""
    with SqliteStore(path) as store:
        put(store, A, registered())
    steps = [*MIGRATIONS, step(tmp_path, NOW + 1, "CREATE TABLE two (x INTEGER) STRICT; INSERT INTO nowhere VALUES (1)")]
    with pytest.raises(LedgerBroken):
        SqliteStore(path, around=Surroundings(migrations=steps))
    with SqliteStore(path) as store:
        put(store, A, held("c-aaaa", [1]))
        audit(store)
    assert path.with_name(f"ledger.db.schema-{NOW}.backup").exists()
    with pytest.raises(LedgerBroken):
        SqliteStore(path, around=Surroundings(migrations=steps))
    assert path.with_name(f"ledger.db.schema-{NOW}.backup-1").exists()


@pytest.mark.damaged
def test_a_newer_ledger_is_read_and_not_written(path: Path, tmp_path: Path) -> None:
    """A ledger that a newer program has migrated opens to read; a transaction names both schemas; where it cannot even be read it says why."""
    with SqliteStore(path) as store:
        put(store, A, registered(), held("c-aaaa", [1]))
    newer = [*MIGRATIONS, step(tmp_path, NOW + 1, "CREATE TABLE two (x INTEGER) STRICT")]
    SqliteStore(path, around=Surroundings(migrations=newer)).close()
    before = path.read_bytes()
    with SqliteStore(path) as store:
        assert not store.writable
        assert isinstance(store.unwritable, LedgerNewer)
        audit(store)
        with pytest.raises(LedgerNewer, match=f"schema {NOW + 1}, this program knows {NOW}"), store.transaction():
            pass
        store.backup(path.with_name("copy.db"))
    assert path.read_bytes() == before
    strange = [*newer, step(tmp_path, NOW + 2, "ALTER TABLE events RENAME TO happenings")]
    SqliteStore(path, around=Surroundings(migrations=strange)).close()
    with SqliteStore(path) as store, pytest.raises(LedgerBroken):
        store.follow(0)


def test_a_migration_waits_for_the_writer(path: Path, tmp_path: Path) -> None:
    """An older ledger is not migrated under a writer who is inside."""
    steps = [*MIGRATIONS, step(tmp_path, NOW + 1, "CREATE TABLE two (x INTEGER) STRICT")]
    with SqliteStore(path) as store:
        with store.transaction():
            other = apsw.Connection(str(path))
            with pytest.raises(apsw.BusyError):
                migrate(other, path, steps)
            other.close()
        put(store, A, registered())
