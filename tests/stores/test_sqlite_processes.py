"""Several processes at one ledger: killed, stopped, forked, and simply many."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.stores.making import A, B, audit, held, put, registered

from earmark.core.model.ids import ClaimId
from earmark.errors import LedgerBusy, WrongUse
from earmark.stores.contract import Store
from earmark.stores.place import Place, prepare
from earmark.stores.sqlite.store import SqliteStore

ROOT = Path(__file__).resolve().parents[2]
KILLS = 15
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(path: Path) -> Iterator[Start]:
    """Return a starter of writer processes; none outlives the test."""
    started: list[subprocess.Popen[str]] = []

    def starter(name: str, turns: int, *more: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tests.stores.writer_process", str(path), name, str(turns), *more]
        started.append(subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield starter
    for each in started:
        each.kill()
        each.wait()
        if each.stdout is not None:
            each.stdout.close()


def line(writer: subprocess.Popen[str]) -> str:
    """Return the next line of a writer."""
    assert writer.stdout is not None
    return writer.stdout.readline().strip()


@pytest.mark.long
def test_killed_writers_lose_nothing_that_was_acknowledged(path: Path, start: Start) -> None:
    """Writers are killed with SIGKILL at random moments; every acknowledged append of both nodes is there, the rest whole or absent."""
    chance = random.Random(11)  # noqa: S311  a reproducible choice, no secret
    for round_number in range(KILLS):
        writer = start(f"r{round_number}", 100_000)
        assert line(writer) == "open"
        acknowledged = [int(line(writer)) for _ in range(chance.randrange(1, 20))]
        threading.Event().wait(chance.random() * 0.01)
        writer.kill()
        assert writer.stdout is not None
        acknowledged += [int(text) for text in writer.stdout.read().split()]
        writer.wait()
        with SqliteStore(path) as store:
            for turn in range(acknowledged[-1] + 2):
                rows = [store.claim(ClaimId(f"c-r{round_number}x{turn:05}{node}")) for node in "ab"]
                assert (rows[0] is None) == (rows[1] is None)
                assert turn > acknowledged[-1] or rows[0] is not None
    with SqliteStore(path) as store:
        assert store.damages() == ()
        audit(store)


def test_a_stopped_writer_is_named(path: Path, start: Start) -> None:
    """A writer stopped with SIGSTOP inside its transaction yields LedgerBusy with its pid, purpose and state; readers go on."""
    with SqliteStore(path) as store:
        put(store, A, registered())
        writer = start("s", 1, "inside")
        assert line(writer) == "inside"
        with pytest.raises(LedgerBusy) as caught, store.transaction(purpose="mine", timeout_s=0.05):
            pass
        assert (caught.value.facts["pid"], caught.value.facts["stopped"]) == (writer.pid, False)
        os.kill(writer.pid, signal.SIGSTOP)
        os.waitpid(writer.pid, os.WUNTRACED)
        with pytest.raises(LedgerBusy) as caught, store.transaction(purpose="mine", timeout_s=0.05):
            pass
        assert (caught.value.facts["pid"], caught.value.facts["stopped"]) == (writer.pid, True)
        assert f"pid {writer.pid} is writing (a stopped hold) and is stopped" in caught.value.message
        assert store.head(A).sequence == 1
        with SqliteStore(path) as second:
            assert second.head(A).sequence == 1
        writer.kill()
        writer.wait()
        put(store, A, held("c-after"))
        audit(store)


def test_many_processes_write_at_once(path: Path, start: Start) -> None:
    """Four processes and this one write in turns: every append of each is there, in one order without gaps."""
    turns = 12
    writers = [start(f"p{number}", turns) for number in range(4)]
    with SqliteStore(path) as store:
        seen: list[int] = []
        while any(writer.poll() is None for writer in writers):
            seen += [stored.position for stored in store.follow(seen[-1] if seen else 0)]
        assert [writer.wait() for writer in writers] == [0] * 4
        seen += [stored.position for stored in store.follow(seen[-1])]
        assert seen == list(range(1, store.last_position() + 1))
        claims = {row.claim for row in store.claims_like("", 10_000)}
        assert claims == {f"c-p{number}x{turn:05}{node}" for number in range(4) for turn in range(turns) for node in "ab"}
        assert store.heads().keys() == {A, B}
        audit(store)


def test_two_stores_of_one_process_share_a_file(path: Path) -> None:
    """Two openings in one process exclude each other as processes do, and closing one does not disturb the other."""
    with SqliteStore(path) as one:
        with SqliteStore(path) as two:
            put(one, A, registered())
            put(two, A, held("c-aaaa", [1]))
            with one.transaction(purpose="first"):
                with pytest.raises(LedgerBusy) as caught, two.transaction(timeout_s=0.02):
                    pass
                assert caught.value.facts["pid"] == os.getpid()
        put(one, A, held("c-bbbb", [2]))
        audit(one)


def locked(path: Path) -> bool:
    """Ask the kernel whether some process has a POSIX lock on a file."""
    inode = path.stat().st_ino
    return any("POSIX" in text and text.split()[5].endswith(f":{inode}") for text in Path("/proc/locks").read_text().splitlines())


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="the kernel does not list its locks here")
def test_looking_at_the_place_leaves_the_locks(path: Path) -> None:
    """Preparing a place a second time in one process does not drop SQLite's locks on the ledger that is open there."""
    place = Place(path=path, kind="named")
    with SqliteStore(prepare(place)) as store:
        put(store, A, registered())
        with store.reading() as view:
            assert view.head(A).sequence == 1
            assert locked(path)
            prepare(place)
            with SqliteStore(path) as second:
                assert second.head(A).sequence == 1
            assert locked(path)


def in_child(work: Callable[[], None]) -> str:
    """Run something in a forked child and return what went wrong there, "" for nothing."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        problem = ""
        try:
            work()
        except BaseException as error:  # noqa: BLE001  the parent reads what it was
            problem = f"{type(error).__name__}: {error}"
        os.write(writing, problem.encode() or b"-")
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        problem = pipe.read()
    assert os.waitpid(pid, 0)[1] == 0
    return "" if problem == "-" else problem


def test_use_after_fork_is_refused(store: Store) -> None:
    """A child may not use its parent's store, view or transaction; closing there is harmless, and the parent goes on."""
    put(store, A, registered())

    def use() -> None:
        for attempt in (store.heads, lambda: put(store, A, held("c-child")), store.last_position):
            with pytest.raises(WrongUse, match="fork"):
                attempt()
        store.close()
        store.close()

    assert in_child(use) == ""
    with store.transaction() as tx, store.reading() as view:

        def use_inside() -> None:
            for attempt in (tx.heads, view.heads, store.heads):
                with pytest.raises(WrongUse, match="fork"):
                    attempt()

        assert in_child(use_inside) == ""
    put(store, A, held("c-aaaa"))
    assert store.head(A).sequence == 2


FORKER = """
import os, sys
from pathlib import Path
from tests.stores.making import A, held, put, registered
from earmark.stores.sqlite.store import SqliteStore
store = SqliteStore(Path(sys.argv[1]))
put(store, A, registered())
if os.fork() == 0:
    sys.exit()
os.wait()
put(store, A, held("c-aaaa"))
tx = store.transaction(purpose="parent dies inside")
tx.__enter__()
if os.fork() == 0:
    os.setsid()
    os.close(1)
    import time; time.sleep(1.5)
    sys.exit()
os._exit(0)
"""


def test_a_forked_child_neither_harms_nor_holds_the_ledger(path: Path) -> None:
    """A child that ends normally leaves its parent's ledger usable, and one that outlives its parent does not keep the writers' lock."""
    subprocess.run([sys.executable, "-c", FORKER, str(path)], check=True, cwd=ROOT, stdout=subprocess.PIPE)
    with SqliteStore(path) as store:
        assert store.head(A).sequence == 2
        with store.transaction(timeout_s=0.5) as tx:
            assert tx.head(A).sequence == 2
        audit(store)


def test_no_descriptor_is_left_open(path: Path) -> None:
    """Opening, writing, reading from many threads and closing leaves no descriptor behind."""
    with SqliteStore(path) as store:
        put(store, A, registered())
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        with SqliteStore(path) as store:
            threads = [threading.Thread(target=store.heads) for _ in range(20)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            with store.reading() as view:
                view.heads()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
