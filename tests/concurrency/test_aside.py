"""Audits in a process of their own: the same findings, nothing left behind, and whatever the process does changes nothing here."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from tests.proof.worlds import made

from earmark import auditor
from earmark.core.ledger.codec import Batch, Stamp
from earmark.core.ledger.commands import Answer
from earmark.core.ledger.events import ClaimBound
from earmark.core.model.finding import Finding
from earmark.core.model.ids import ClaimId, ConsumerId, NodeId, StreamId, consumer_stream, node_stream
from earmark.core.model.request import Request
from earmark.core.model.units import MIB
from earmark.errors import EarmarkError, HostUnavailable, LedgerCorrupt, LedgerReadOnly, LedgerUnavailable
from earmark.stores.contract import Store
from earmark.stores.memory import MemoryStore
from earmark.stores.sqlite.store import SqliteStore
from earmark.testing import NODE_ONE, START_MS, UNRESERVED, Bench, GivenClock, GivenHost, GivenProcesses, machine, on
from earmark.tracker import aside

pytestmark = pytest.mark.long

WISH = Request(vcpus=1, memory_bytes=MIB)
SHAPE = "2x32c 64G"
OTHER = NodeId("00000000-0000-4000-8000-0000000000ff")
MANY = 700
"""Claims without their rows: more findings than a pipe holds."""


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """Return a ledger of each kind."""
    store = made(request.param, tmp_path)
    yield store
    store.close()


def opened(store: Store) -> Bench:
    """Return a tracker on a ledger."""
    return on(store, GivenHost(machine(SHAPE)), GivenClock(), GivenProcesses(), UNRESERVED)


def opened_as_it_is(store: Store) -> Bench:
    """Return a tracker on a ledger whose machine is the smaller one."""
    return on(store, GivenHost(machine("2x8c 64G")), GivenClock(), GivenProcesses(), UNRESERVED)


def spoil(store: Store, stream: StreamId) -> None:
    """Append an event that cannot follow."""
    with store.transaction(purpose="spoil") as tx:
        batch = Batch(stream, store.head(stream).sequence, [ClaimBound(claim=ClaimId("c-nobody"), holders=())])
        tx.append([batch], Stamp(actor="other", command="spoil", now_ms=START_MS))


def left() -> tuple[int, int]:
    """Return how many threads and open files this process has."""
    return threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))


def long_errand(timeout_s: float = 60) -> aside.Errand:
    """Return an errand whose worker stands still: nobody reads what it finds, and that is more than the pipe holds."""
    world = opened(MemoryStore())
    for _ in range(MANY):
        world.tracker.hold(Request(memory_bytes=MIB), confirm=True)
    errand, _ = aside.errand_for(world.store, timeout_s)
    return msgspec.structs.replace(errand, rows=())


def test_an_audit_aside_finds_the_same(store: Store) -> None:
    """What the worker finds is what the audit here finds, on a sound ledger, with claims, instances and moves; nothing of it stays."""
    world = opened(store)
    world.tracker.register("other", uuid=OTHER, machine=machine(SHAPE))
    world.tracker.hold(WISH, consumer="vm", confirm=True)
    world.tracker.create("vm")
    moved = world.tracker.open_move("vm", "migration", to=OTHER)
    before, sequence = left(), store.last_position()
    assert world.tracker.audit(aside=True) == world.tracker.audit() == ()
    assert (left(), store.last_position()) == (before, sequence)
    assert moved.__class__.__name__ == "LifeAnswer"


@pytest.mark.damaged
@pytest.mark.rule("W11")
@pytest.mark.parametrize("stream", [node_stream(OTHER), consumer_stream(ConsumerId("odd"))])
def test_one_broken_stream_stops_nobody(store: Store, stream: StreamId) -> None:
    """A stream that cannot be read is one finding; the others are audited, here and aside, and claims on other nodes go on."""
    world = opened(store)
    world.tracker.register("other", uuid=OTHER, machine=machine(SHAPE))
    world.tracker.create("odd")
    claim = world.tracker.hold(Request(vcpus=20, cpu_policy="dedicated"), consumer="vm", confirm=True)
    assert isinstance(claim, Answer)
    spoil(store, stream)
    world.tracker.observe(NODE_ONE, machine("2x8c 64G"))  # and an oddity elsewhere, to be found beside the break
    fresh = opened_as_it_is(store)
    for found in (fresh.tracker.audit(), fresh.tracker.audit(aside=True), fresh.tracker.verify().findings):
        assert {(finding.code, finding.severity) for finding in found} == {("chain", "error"), ("missing", "warning")}
        assert next(finding.detail for finding in found if finding.code == "chain").startswith(stream)
    with pytest.raises(EarmarkError):
        _ = fresh.tracker.hold(WISH, node=OTHER) if stream.startswith("node:") else fresh.tracker.report("odd", "active")
    another = fresh.tracker.hold(Request(memory_bytes=MIB), consumer="another", confirm=True)
    assert isinstance(another, Answer)
    assert fresh.tracker.release(str(another.claim_id)).changed
    assert fresh.tracker.report("vm", "active").changed


@pytest.mark.damaged
def test_what_is_wrong_is_found_aside(tmp_path: Path) -> None:
    """Guard rows that are missing in the file are found by the worker as they are here."""
    with SqliteStore(tmp_path / "ledger" / "ledger.db") as store:
        world = opened(store)
        world.tracker.hold(Request(vcpus=1, cpu_policy="dedicated"), confirm=True)
        with store.transaction(purpose="spoil") as tx:
            tx.connection.execute("DELETE FROM slots")
        here = world.tracker.audit()
        assert {finding.code for finding in here} == {"guard_drift"}
        assert world.tracker.audit(aside=True) == here


def test_a_shared_ledger_named_from_here_is_audited_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker opens a group's ledger as its group's, and one whose path is relative where it stands."""
    monkeypatch.chdir(tmp_path)
    with SqliteStore(Path("ledger", "ledger.db"), gid=os.getgid()) as store:
        world = opened(store)
        world.tracker.hold(WISH, confirm=True)
        assert world.tracker.audit(aside=True) == ()
    with SqliteStore(Path("ledger", "ledger.db"), gid=os.getgid(), write=False) as reader:
        world.tracker.store = reader
        assert world.tracker.audit(aside=True) == ()


def test_a_worker_that_dies_is_an_error_and_changes_nothing(store: Store) -> None:
    """Killed at its work, the worker's end is named; claims go on, and the next audit is well."""
    world = opened(store)
    before = left()
    with world.tracker.auditing() as work:
        work._process.kill()
        with pytest.raises(HostUnavailable, match=r"ended by signal 9.*nothing has changed"):
            work.result()
        with pytest.raises(HostUnavailable, match="ended by signal 9"):
            work.result()
    assert left() == before
    assert isinstance(world.tracker.hold(WISH), Answer)
    assert world.tracker.audit(aside=True) == ()


def test_a_worker_that_stands_still_runs_out_of_time(store: Store) -> None:
    """Stopped, it is ended when its time is over; nothing of it stays."""
    world = opened(store)
    before = left()
    work = world.tracker.auditing(timeout_s=0.6)
    os.kill(work._process.pid, signal.SIGSTOP)
    assert not work.ended()
    with pytest.raises(HostUnavailable, match=r"not ended within 0\.6 s"):
        work.result()
    assert work._process.returncode == -signal.SIGKILL
    assert left() == before


def test_an_audit_that_nobody_wants_any_more_is_ended(store: Store) -> None:
    """Leaving the block ends a worker at work; stopping twice is no error."""
    world = opened(store)
    before = left()
    with world.tracker.auditing() as work:
        pass
    work.stop()
    assert work._process.returncode == -signal.SIGKILL
    assert left() == before


@pytest.mark.parametrize(("module", "said"), [("this", "said what it must not"), ("earmark.no_such_module", "status 1 .*No module named")])
def test_garbage_is_no_finding(monkeypatch: pytest.MonkeyPatch, module: str, said: str) -> None:
    """A worker that says something else, or nothing, is an error that says so."""
    monkeypatch.setattr(aside, "WORKER", module)
    with pytest.raises(HostUnavailable, match=said):
        opened(MemoryStore()).tracker.audit(aside=True)


FOUND = msgspec.json.encode(aside.Found(finding=Finding(code="chain", severity="error", detail="x")))
ENDED = msgspec.json.encode(aside.Ended(findings=1))


@pytest.mark.parametrize(
    "output",
    [b"", FOUND, ENDED, FOUND + b"\n" + FOUND, ENDED + b"\n" + FOUND, FOUND + b"\n" + ENDED[:-3], b'{"type":"ended","findings":0,"x":1}', b"[1]", b"\xff"],
)  # fmt: skip
def test_half_an_answer_is_none(output: bytes) -> None:
    """Lines without their end, with a wrong count, or of another form are not taken for findings."""
    with pytest.raises((msgspec.DecodeError, ValueError)):
        aside.said_by(output, "ledger")


def test_what_kept_the_worker_from_reading_is_raised_here(tmp_path: Path) -> None:
    """An error of the worker keeps its kind: a ledger that is gone is unavailable, one that is damaged is corrupt."""
    failed = msgspec.json.encode(aside.Failed(code="ledger-corrupt", message="torn"))
    with pytest.raises(LedgerCorrupt, match="torn"):
        aside.said_by(failed, "ledger")
    with pytest.raises(HostUnavailable):
        aside.said_by(msgspec.json.encode(aside.Failed(code="invalid-record", message="odd")), "ledger")
    with SqliteStore(tmp_path / "ledger" / "ledger.db") as store:
        world = opened(store)
        for path in (tmp_path / "ledger").iterdir():
            path.unlink()
        with pytest.raises(LedgerUnavailable):
            world.tracker.audit(aside=True)


@pytest.mark.long
def test_a_worker_gives_way_and_ends_with_its_parent() -> None:
    """It is nicer than its parent, ends when the parent's pipe closes, when its time is over, and when it has another parent."""
    with aside._started(long_errand(), "memory") as child:
        _until(lambda: os.getpriority(os.PRIO_PROCESS, child.pid) >= os.getpriority(os.PRIO_PROCESS, 0) + auditor.NICENESS)
        time.sleep(0.2)
        assert child.poll() is None
        _end_of_pipe(child)
        assert child.wait(10) == auditor.ALONE
    with aside._started(long_errand(0.3), "memory") as child:
        assert child.wait(10) == -signal.SIGALRM
    with aside._started(msgspec.structs.replace(long_errand(), parent=1), "memory") as child:
        assert child.wait(10) == auditor.ALONE


def test_a_ledger_opened_to_be_read_is_not_written(tmp_path: Path) -> None:
    """The worker's opening refuses every write, makes no file and no table, and takes no lock that a writer would meet."""
    path = tmp_path / "ledger" / "ledger.db"
    with SqliteStore(path) as store, SqliteStore(path, create=False, write=False) as reader:
        assert not reader.writable
        with pytest.raises(LedgerReadOnly), reader.transaction():
            pass
        with reader.reading() as view:
            world = opened(store)
            assert isinstance(world.tracker.hold(WISH), Answer)
            assert view.last_position() == 0
        assert reader.last_position() == store.last_position()
    with pytest.raises(LedgerUnavailable):
        SqliteStore(tmp_path / "nothing" / "ledger.db", create=False, write=False)
    assert not (tmp_path / "nothing").exists()


def test_claims_go_on_while_an_audit_stands_still(tmp_path: Path) -> None:
    """A stopped worker, whatever view of the ledger it has open, holds up no claim, no release and no other audit."""
    with SqliteStore(tmp_path / "ledger" / "ledger.db") as store:
        world = opened(store)
        with world.tracker.auditing() as work:
            _until(lambda: _has_open(work._process.pid, store.path))
            os.kill(work._process.pid, signal.SIGSTOP)
            for _ in range(20):
                answer = world.tracker.hold(WISH, confirm=True)
                assert isinstance(answer, Answer)
                assert world.tracker.release(str(answer.claim_id)).changed
            assert world.tracker.audit(aside=True) == ()
            os.kill(work._process.pid, signal.SIGCONT)
            assert work.result() == ()


def _has_open(pid: int, path: Path) -> bool:
    """Say whether a child has a file open, or has had it: it may be at its end already."""
    opened_files: list[Path] = []
    with suppress(OSError):  # it ends, or closes what it had open while we look
        opened_files.extend(file.readlink() for file in Path(f"/proc/{pid}/fd").iterdir())
    return path in opened_files or not opened_files


def _end_of_pipe(child: subprocess.Popen[bytes]) -> None:
    """Close this end of the pipe that says that somebody waits."""
    assert child.stdin is not None
    child.stdin.close()


def _until(true: object) -> None:
    """Wait until something is true, for ten seconds at most."""
    until = time.monotonic() + 10
    assert callable(true)
    while not true():
        assert time.monotonic() < until, "it did not become true"
        time.sleep(0.01)
