"""Opening a ledger file: what is refused, in which words, and that nothing is changed by it."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest
from tests.stores.making import A, audit, held, put, registered

from earmark.errors import (
    EarmarkError,
    LedgerCorrupt,
    LedgerForeign,
    LedgerFull,
    LedgerReadOnly,
    LedgerUnavailable,
    UnsafePlace,
)
from earmark.stores.sqlite.migrations import APPLICATION_ID, MIGRATIONS, make_schema
from earmark.stores.sqlite.opening import Surroundings, file_system
from earmark.stores.sqlite.store import SqliteStore

ROOT = Path(__file__).resolve().parents[2]
NOBODY = 65534


def filled(path: Path, claims: int = 3) -> None:
    """Make a ledger with a few claims."""
    with SqliteStore(path) as store:
        put(store, A, registered(), *[held(f"c-{number:04}", [number]) for number in range(claims)])


def refused(path: Path, kind: type[EarmarkError], around: Surroundings | None = None, *, create: bool = True) -> EarmarkError:
    """Open a ledger that must be refused, and check that no file of its folder has changed; returns the error."""
    before = contents(path.parent)
    with pytest.raises(kind) as caught:
        SqliteStore(path, around=around, create=create)
    after = contents(path.parent)
    assert {name: after.get(name) for name in before} == before
    assert set(after) <= {*before, *(path.name + suffix for suffix in ("-wal", "-shm", ".writer"))}
    return caught.value


def contents(folder: Path) -> dict[str, bytes]:
    """Return what the files of a folder hold, but for SQLite's shared memory."""
    if not folder.is_dir():
        return {}
    return {each.name: each.read_bytes() for each in folder.iterdir() if not each.name.endswith("-shm")}


def test_a_new_ledger_is_for_its_owner_alone(path: Path) -> None:
    """Folder 0700, files 0600 whatever the umask; header marked; WAL, full flushes and foreign keys on; one id for ever."""
    old = os.umask(0)
    try:
        with SqliteStore(path) as store:
            put(store, A, registered())
            ledger_id = store.ledger_id
            modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()}
            connection = store._opened.write
            assert connection is not None
            names = ("journal_mode", "synchronous", "foreign_keys", "application_id", "user_version")
            assert [connection.pragma(name) for name in names] == ["wal", 2, 1, APPLICATION_ID, MIGRATIONS[-1].version]
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert modes == dict.fromkeys(["ledger.db", "ledger.db-wal", "ledger.db-shm", "ledger.db.writer"], 0o600)
    with SqliteStore(path, create=False) as again:
        assert (again.ledger_id, again.name, again.head(A).sequence) == (ledger_id, str(path), 1)
        assert len(ledger_id) == 36


def test_a_group_ledger_is_open_to_its_group(path: Path) -> None:
    """With a group the folder is 2770 and every file 0660 of that group; without naming the group it is refused as unsafe."""
    gid = os.getgid() if os.getuid() else 12345
    with SqliteStore(path, gid=gid) as store:
        put(store, A, registered())
        assert {(stat.S_IMODE(each.stat().st_mode), each.stat().st_gid) for each in path.parent.iterdir()} == {(0o660, gid)}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o2770
    refused(path, UnsafePlace)
    SqliteStore(path, gid=gid).close()


def test_a_file_alone_is_the_whole_ledger_after_close(path: Path, tmp_path: Path) -> None:
    """After the last close the log is empty, so that a copy of the one file is complete."""
    filled(path)
    assert path.with_name("ledger.db-wal").stat().st_size == 0
    shutil.copy(path, tmp_path / "copy.db")
    with SqliteStore(tmp_path / "copy.db") as store:
        assert store.head(A).sequence == 4
        audit(store)


@pytest.mark.parametrize("version", ["3.7.0", "3.40.1", "3.44.6", "3.51.2"])
def test_a_broken_sqlite_is_refused(path: Path, version: str) -> None:
    """Libraries of the range whose WAL reset can lose commits are refused before a file is touched."""
    error = refused(path, UnsafePlace, Surroundings(sqlite_version=version))
    assert version in error.message
    assert not path.parent.exists()


@pytest.mark.parametrize("version", ["3.6.23", "3.51.3", "3.54.1"])
def test_a_sound_sqlite_is_accepted(path: Path, version: str) -> None:
    """Older and newer libraries than the broken ones do."""
    SqliteStore(path, around=Surroundings(sqlite_version=version)).close()


def test_a_network_file_system_is_refused(path: Path, tmp_path: Path) -> None:
    """The mount that holds the folder decides, the upper one where two share a point; local mounts within a network one do."""
    mounts = tmp_path / "mountinfo"
    root = "1 0 8:1 / / rw shared:1 - ext4 /dev/sda rw"
    for kind in ("nfs4", "cifs", "9p", "fuse.sshfs", "ceph"):
        mounts.write_text(f"{root}\n2 1 0:9 / {tmp_path} rw - {kind} server:/x rw\n")
        error = refused(path, UnsafePlace, Surroundings(mountinfo=mounts))
        assert kind in error.message
    assert not path.parent.exists()
    mounts.write_text(f"{root}\n2 1 0:9 / {tmp_path} rw - nfs s:/x rw\n3 2 8:2 / {path.parent} rw master:1 - xfs /dev/sdb rw\n")
    SqliteStore(path, around=Surroundings(mountinfo=mounts)).close()
    mounts.write_text(f"2 1 0:9 / /a\\040b rw - ext4 s rw\n3 1 0:9 / /a\\040b rw - nfs s rw\n\nodd\n{root}\n")
    assert [file_system(Path(place), mounts) for place in ("/a b/c", "/a bc", "/a")] == ["nfs", "ext4", "ext4"]
    assert file_system(Path("/"), tmp_path / "none") is None


@pytest.mark.damaged
def test_foreign_files_are_refused(path: Path, tmp_path: Path) -> None:
    """Text, another program's database and a folder are named as what they are and stay as they were."""
    path.parent.mkdir(mode=0o700)
    path.write_bytes(b"my notes\n" * 500)
    path.chmod(0o600)
    assert "not a ledger of Earmark" in refused(path, LedgerForeign).message
    for application in (0, 77):
        path.unlink()
        other = apsw.Connection(str(path))
        other.execute(f"PRAGMA application_id = {application}; CREATE TABLE contacts (name)")
        other.close()
        path.chmod(0o600)
        assert "another program" in refused(path, LedgerForeign).message
    path.unlink()
    path.mkdir()
    with pytest.raises(UnsafePlace, match="not a regular file"):
        SqliteStore(path)
    link = tmp_path / "link.db"
    filled(tmp_path / "real" / "ledger.db")
    link.symlink_to(tmp_path / "real" / "ledger.db")
    with pytest.raises(UnsafePlace, match="not a regular file"):
        SqliteStore(link)


def test_an_empty_file_becomes_a_ledger_if_it_may(path: Path) -> None:
    """A file of no bytes, as a place that was prepared has it, is made a ledger; a missing one is not if that was not asked for."""
    assert "No such file" in refused(path, LedgerUnavailable, create=False).message
    path.parent.mkdir(mode=0o700)
    path.touch(mode=0o600)
    filled(path)


def test_damaged_files_are_refused(path: Path) -> None:
    """A file cut short, with a broken header, without its own row, or with a broken page is called damaged, when it is read at the latest."""
    filled(path, claims=300)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    refused(path, LedgerCorrupt)
    path.write_bytes(b"\xff" * 40 + whole[40:])
    refused(path, LedgerForeign)
    filled(path.with_name("live.db"))
    with SqliteStore(path.with_name("live.db")) as live:
        put(live, A, held("c-more"))
        for suffix in ("", "-wal"):
            path.with_name(path.name + suffix).write_bytes(path.with_name("live.db" + suffix).read_bytes())
        path.write_bytes(b"\xff" * 40 + path.read_bytes()[40:])
        refused(path, LedgerForeign)
        assert path.with_name("ledger.db-wal").stat().st_size > 0
        path.with_name("ledger.db-wal").write_bytes(b"")
    path.write_bytes(whole[:4096] + b"\xa5" * (len(whole) - 4096))
    with pytest.raises(LedgerCorrupt):
        SqliteStore(path)
    path.write_bytes(whole)
    connection = apsw.Connection(str(path))
    connection.execute("DELETE FROM ledger")
    connection.close()
    with pytest.raises(LedgerCorrupt, match="its own row"):
        SqliteStore(path)
    path.write_bytes(whole)
    with SqliteStore(path) as store:
        assert store.damages() == ()
    page = whole.rindex(b"c-0007") // 4096
    path.write_bytes(whole[: page * 4096] + bytes(4096) + whole[(page + 1) * 4096 :])
    with SqliteStore(path) as store:
        assert store.damages()


@pytest.mark.damaged
def test_unsafe_modes_are_refused(path: Path) -> None:
    """A file or folder that everybody may write, and a file with two names, keep no ledger."""
    filled(path)
    for place, bad, good in ((path, 0o666, 0o600), (path, 0o660, 0o600), (path.parent, 0o777, 0o700)):
        place.chmod(bad)
        assert "written by others" in refused(path, UnsafePlace).message
        place.chmod(good)
    path.with_name("other.db").hardlink_to(path)
    assert "2 names" in refused(path, UnsafePlace).message


def test_a_disk_without_room_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ledger that cannot be made for want of space says so, and the place can be used once there is room."""
    path = tmp_path / "ledger.db"
    script = (
        "import resource, sys; from pathlib import Path; from earmark.errors import LedgerFull\n"
        "from earmark.stores.sqlite.store import SqliteStore\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))\n"
        "try: SqliteStore(Path(sys.argv[1]))\n"
        "except LedgerFull as error: print(error.message)\n"
    )
    tmp_path.chmod(0o700)
    done = subprocess.run([sys.executable, "-c", script, str(path)], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "no space" in done.stdout
    filled(path)
    assert issubclass(LedgerFull, LedgerUnavailable)


# --- read only ----------------------------------------------------------------------------------------------------------------------


def as_nobody(work: Callable[[], None]) -> str:
    """Run something in a child as a user without rights; returns what went wrong, "" for nothing."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        problem = "-"
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            work()
        except BaseException as error:  # noqa: BLE001  the parent reads what it was
            problem = f"{type(error).__name__}: {error}"
        os.write(writing, problem.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        problem = pipe.read()
    os.waitpid(pid, 0)
    return "" if problem == "-" else problem


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("side_files", ["kept", "gone", "in use"])
def test_who_may_only_read_reads(tmp_path: Path, side_files: str) -> None:
    """A user who may not write opens the ledger to read, sees everything, also beside a writer, and is refused a transaction by name."""
    path = Path("/tmp") / f"earmark-{os.getpid()}-{tmp_path.name}" / "ledger.db"
    try:
        filled(path)
        path.parent.chmod(0o755)
        for each in path.parent.iterdir():
            each.chmod(0o644)
        if side_files == "gone":
            for suffix in ("-wal", "-shm", ".writer"):
                path.with_name("ledger.db" + suffix).unlink()
        writer = SqliteStore(path) if side_files == "in use" else None
        if writer is not None:
            put(writer, A, held("c-more", [99]))
        before = path.read_bytes()

        def read() -> None:
            with SqliteStore(path) as store:
                assert not store.writable
                audit(store)
                assert store.head(A).sequence == (5 if writer is not None else 4)
                with pytest.raises(LedgerReadOnly, match="mine"), store.transaction(purpose="mine"):
                    pass

        assert as_nobody(read) == ""
        assert path.read_bytes() == before
        if writer is not None:
            put(writer, A, held("c-last"))
            writer.close()
    finally:
        shutil.rmtree(path.parent, ignore_errors=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_who_may_not_even_read_is_told(tmp_path: Path) -> None:
    """A ledger whose folder is closed is refused as not accessible, not as missing or damaged."""
    path = Path("/tmp") / f"earmark-{os.getpid()}-{tmp_path.name}" / "ledger.db"
    try:
        filled(path)
        path.parent.chmod(0o755)
        problem = as_nobody(lambda: SqliteStore(path).close())
        assert problem.startswith(("LedgerUnavailable", "LedgerReadOnly"))
        path.parent.chmod(0o700)
        problem = as_nobody(lambda: SqliteStore(path).close())
        assert problem.startswith("LedgerReadOnly")
        assert "Permission denied" in problem
    finally:
        shutil.rmtree(path.parent, ignore_errors=True)


READ_ONLY_MOUNT = """
mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && exec "$2" -c '
import sys; from pathlib import Path; from tests.stores.making import A, audit
from earmark.stores.sqlite.store import SqliteStore
with SqliteStore(Path(sys.argv[1])) as store:
    audit(store); print(store.writable, store.head(A).sequence)
' "$1/ledger.db"
"""


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="needs root and unshare for a mount of its own")
def test_a_read_only_file_system_is_read(path: Path) -> None:
    """On a file system mounted read-only the ledger opens to read."""
    filled(path)
    command = ["unshare", "-m", "sh", "-c", READ_ONLY_MOUNT, "sh", str(path.parent), sys.executable]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode and "mount" in done.stderr:
        pytest.skip(f"mounting is not allowed here: {done.stderr.strip()}")
    assert (done.stdout.split(), done.stderr) == (["False", "4"], "")


# --- size ---------------------------------------------------------------------------------------------------------------------------


@pytest.mark.damaged
def test_opening_does_not_look_at_events(path: Path) -> None:
    """A ledger of a hundred thousand events opens as fast as an empty one: in milliseconds."""
    path.parent.mkdir(mode=0o700)
    connection = apsw.Connection(str(path))
    connection.pragma("journal_mode", "wal")
    make_schema(connection, MIGRATIONS)
    connection.pragma("synchronous", "off")
    connection.execute("INSERT INTO streams VALUES (1, 'node:a')")
    connection.execute(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000)"
        " INSERT INTO events SELECT i, 1, i, 1, i, zeroblob(32), zeroblob(300) FROM n"
    )
    connection.close()
    path.chmod(0o600)
    begun = time.perf_counter()
    with SqliteStore(path) as store:
        assert (store.head(A).sequence, store.last_position(), len(store.heads())) == (100_000, 100_000, 1)
    assert time.perf_counter() - begun < 0.5
