"""The disk fails at every point where it is written: what was acknowledged stands, and nothing else is half there."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.stores.faulty_vfs import FaultyVfs, Harm
from tests.stores.making import A, B, audit, ended, held, put, registered, stamp

from earmark.core.ledger.codec import Batch
from earmark.errors import EarmarkError, LedgerFull, LedgerUnavailable, OutcomeUnknown, Unavailable
from earmark.stores.sqlite import store as sqlite_store
from earmark.stores.sqlite.opening import Surroundings
from earmark.stores.sqlite.store import SqliteStore

ROUNDS = 3
MEMORY_DISK = Path("/dev/shm")
"""The faulty layer decides what a flush is worth; a real one would only cost time."""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Return a folder on a disk in memory where there is one."""
    if not os.access(MEMORY_DISK, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="earmark-faults-", dir=MEMORY_DISK) as name:
        yield Path(name)


@pytest.fixture
def faulty() -> Iterator[Callable[..., FaultyVfs]]:
    """Return a maker of faulty file layers that are gone after the test."""
    made: list[FaultyVfs] = []

    def maker(at: int = 0, harm: Harm = "io", *, lasting: bool = False) -> FaultyVfs:
        made.append(FaultyVfs(f"faulty-{id(made)}-{len(made)}", at=at, harm=harm, lasting=lasting))
        return made[-1]

    yield maker
    for vfs in made:
        vfs.unregister()


def work(store: SqliteStore) -> tuple[list[int], list[int]]:
    """Append pairs of nodes in rounds; returns which rounds were acknowledged and which have an unknown outcome."""
    acknowledged, unknown = [], []
    for number in range(ROUNDS):
        claim = f"c-{number:04}"
        try:
            with store.transaction(purpose="work", timeout_s=1) as tx:
                for stream in (A, B):
                    first = [registered(stream[-1])] if tx.head(stream).sequence == 0 else []
                    events = [*first, held(claim + stream[-1], [number])]
                    tx.append([Batch(stream, tx.head(stream).sequence, events)], stamp())
                tx.put_refusal(A, "alice", number, b"{}")
        except OutcomeUnknown:
            unknown.append(number)
        except Unavailable:
            continue
        else:
            acknowledged.append(number)
    return acknowledged, unknown


def check(path: Path, acknowledged: list[int], unknown: list[int]) -> None:
    """Open with a sound disk: acknowledged rounds are whole, others are not there (or whole, if their outcome is unknown)."""
    with SqliteStore(path) as store:
        audit(store)
        assert store.damages() == ()
        for number in range(ROUNDS):
            found = [store.claim(held(f"c-{number:04}{name}").claim) is not None for name in "ab"]
            kept = [refusal.at_ms for refusal in store.refusals()].count(number)
            assert found in ([True, True], [False, False]), f"round {number} is half there"
            assert kept == found[0]
            if number in acknowledged:
                assert all(found), f"acknowledged round {number} is lost"
            elif number not in unknown:
                assert not any(found), f"refused round {number} is there"
        put(store, A, *([] if store.head(A).sequence else [registered()]), held("c-after", [99]))
        audit(store)


def opened(path: Path, vfs: FaultyVfs) -> SqliteStore | None:
    """Open or make a ledger on a faulty disk; None if that is refused in our words."""
    try:
        return SqliteStore(path, around=Surroundings(vfs=vfs.vfs_name))
    except EarmarkError:
        return None


def abandon(store: SqliteStore | None) -> None:
    """Close what may be closed; a disk that fails then has nothing more to lose."""
    if store is not None:
        with contextlib.suppress(LedgerUnavailable):
            store.close()


def operations(path: Path, faulty: Callable[..., FaultyVfs]) -> tuple[int, int]:
    """Return how many operations opening takes, and opening, work and closing together."""
    vfs = faulty()
    store = opened(path, vfs)
    assert store is not None
    opening = len(vfs.operations)
    assert work(store) == (list(range(ROUNDS)), [])
    store.close()
    return opening, len(vfs.operations)


@pytest.mark.long
@pytest.mark.parametrize("lasting", [False, True], ids=["once", "lasting"])
@pytest.mark.parametrize("harm", ["io", "full"])
def test_an_error_at_every_write_and_flush(folder: Path, faulty: Callable[..., FaultyVfs], harm: Harm, lasting: bool) -> None:
    """Whatever operation fails, once or from then on, an append is whole or absent after reopening, and absent if it was refused."""
    _, count = operations(folder / "whole" / "ledger.db", faulty)
    assert count > 30
    refused = 0
    for at in range(1, count + 1):
        path = folder / str(at) / "ledger.db"
        vfs = faulty(at, harm, lasting=lasting)
        store = opened(path, vfs)
        acknowledged, unknown = work(store) if store is not None else ([], [])
        refused += ROUNDS - len(acknowledged)
        abandon(store)
        check(path, acknowledged, unknown)
    assert refused > 10


@pytest.mark.long
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0], ids=["nothing", "half", "all"])
def test_the_power_goes_at_every_write_and_flush(folder: Path, faulty: Callable[..., FaultyVfs], share: float) -> None:
    """When the machine stops at any operation and none, some or all of what was not flushed survives, acknowledged appends are there."""
    _, count = operations(folder / "whole" / "ledger.db", faulty)
    chance = random.Random(7)  # noqa: S311  a reproducible choice, no secret
    for at in range(1, count + 1):
        path = folder / str(at) / "ledger.db"
        vfs = faulty(at, "power")
        store = opened(path, vfs)
        acknowledged = work(store)[0] if store is not None else []
        abandon(store)
        vfs.lose(chance, share)
        path.with_name("ledger.db-shm").unlink(missing_ok=True)
        check(path, acknowledged, list(range(ROUNDS)))


def test_a_flush_that_fails_is_taken_back_at_once(path: Path, faulty: Callable[..., FaultyVfs]) -> None:
    """A commit whose bytes stand in the log but could not be flushed does not come to life at the next opening."""
    vfs = faulty()
    store = opened(path, vfs)
    assert store is not None
    put(store, A, registered())
    vfs.operations.clear()
    put(store, A, held("c-aaaa", [1]))
    vfs.at = len(vfs.operations) + vfs.operations.index("sync") + 1
    with pytest.raises(LedgerUnavailable):
        put(store, A, held("c-bbbb", [2]))
    copy = path.parent / "after-the-crash" / "ledger.db"
    copy.parent.mkdir(mode=0o700)
    for suffix in ("", "-wal"):
        copy.with_name(copy.name + suffix).write_bytes(path.with_name(path.name + suffix).read_bytes())
    copy.chmod(0o600)
    store.close()
    for place in (copy, path):
        with SqliteStore(place) as again:
            assert [row.claim for row in again.claims_like("")] == ["c-aaaa"]
            audit(again)


def test_a_flush_that_cannot_be_taken_back_says_so(path: Path, faulty: Callable[..., FaultyVfs]) -> None:
    """If the disk fails for good in the flush, the error says that the outcome is not known, not that nothing happened."""
    vfs = faulty(lasting=True)
    store = opened(path, vfs)
    assert store is not None
    put(store, A, registered())
    vfs.operations.clear()
    put(store, A, held("c-aaaa", [1]))
    vfs.at = len(vfs.operations) + vfs.operations.index("sync") + 1
    with pytest.raises(OutcomeUnknown):
        put(store, A, held("c-bbbb", [2]))
    vfs.heal()
    put(store, A, held("c-cccc", [3]))
    audit(store)
    store.close()


@pytest.mark.long
def test_a_group_is_lost_whole_if_the_disk_fails_inside_it(path: Path, faulty: Callable[..., FaultyVfs]) -> None:
    """An error of the disk before the commit ends the whole transaction, even for a caller who goes on after it."""
    vfs = faulty()
    store = opened(path, vfs)
    assert store is not None
    put(store, A, registered())
    big = [held(f"c-{number:05}", [number]) for number in range(9000)]

    def fill() -> None:
        with store.transaction() as tx:
            tx.append([Batch(A, 1, [held("c-aaaa", [9999])])], stamp())
            vfs.operations.clear()
            vfs.at, vfs.harm, vfs.lasting = 1, "full", True
            for _ in range(2):
                with pytest.raises(LedgerFull):
                    tx.append([Batch(A, 2, big)], stamp())

    with pytest.raises(LedgerFull):
        fill()
    vfs.heal()
    assert (store.head(A).sequence, list(store.claims_like(""))) == (1, [])
    put(store, A, held("c-bbbb", [1]))
    audit(store)
    store.close()


def test_a_failed_copy_of_the_log_does_not_fail_the_commit(
    path: Path, faulty: Callable[..., FaultyVfs], monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the log cannot be copied into the file, the append stands, the failure is kept for who asks, and later copying mends it."""
    monkeypatch.setattr(sqlite_store, "CHECKPOINT_PAGES", 1)
    vfs = faulty()
    store = opened(path, vfs)
    assert store is not None
    put(store, A, registered())
    vfs.only, vfs.at, vfs.lasting = "ledger.db", len(vfs.operations) + 1, True
    put(store, A, held("c-aaaa", [1]))
    assert "does not answer" in (store.checkpoint_failure or "")
    put(store, A, ended("c-aaaa"))
    vfs.heal()
    put(store, A, held("c-bbbb", [1]))
    assert store.checkpoint_failure is None
    audit(store)
    store.close()


FILLER = """
import resource, sys
from pathlib import Path
from tests.stores.making import A, held, put, registered
from earmark.errors import LedgerFull
from earmark.stores.sqlite.store import SqliteStore
store = SqliteStore(Path(sys.argv[1]))
put(store, A, registered())
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
number = 0
try:
    while number < 5000:
        put(store, A, held(f"c-{number:05}", range(number * 20, number * 20 + 20)))
        number += 1
except LedgerFull as error:
    print(number, store.head(A).sequence)
"""


@pytest.mark.rule("W7")
def test_a_file_that_may_not_grow_is_a_full_disk(path: Path) -> None:
    """Under a real limit of the file size appends end with LedgerFull, and exactly the acknowledged ones are there afterwards."""
    root = str(Path(__file__).resolve().parents[2])
    done = subprocess.run(
        [sys.executable, "-c", FILLER, str(path)], capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": root}
    )
    appended, sequence = (int(word) for word in done.stdout.split())
    assert appended > 5
    assert sequence == appended + 1
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    with SqliteStore(path) as store:
        assert len(store.claims_like("", 10_000)) == appended
        put(store, A, held("c-after"))
        audit(store)
