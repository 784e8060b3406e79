"""The writer's queue: groups share a commit, nobody spoils another's command, everybody is answered whatever happens."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.proof.worlds import HUGE, JOIN_TIMEOUT_S, OWN, SHARED, Caller, callers, granted, made, refused, stopped, wait_until
from tests.stores.faulty_vfs import FaultyVfs

from earmark.core.ledger.commands import HoldClaim
from earmark.core.model.claim import Holder
from earmark.core.model.grant import AmountRow, Grant
from earmark.core.model.ids import ClaimId, ConsumerId, Owner, PoolId
from earmark.core.model.request import Request
from earmark.errors import InvalidRequest, LedgerFull, LedgerUnavailable, LockTimeout, OutcomeUnknown
from earmark.stores.contract import Store
from earmark.stores.memory import MemoryStore
from earmark.testing import NODE_ONE, UNRESERVED, Bench, FaultyStore, GivenClock, GivenHost, GivenProcesses, assert_sound, machine, on
from earmark.tracker import snapshots, writer
from earmark.tracker.work import Work, interrupted
from earmark.tracker.writer import Writer


def world_on(store: Store, timeout_s: float = 10.0) -> Bench:
    """Return a tracker with room for many claims, whose writer waits so long."""
    clock, host, processes = BrittleClock(), GivenHost(machine("2x32c 512G")), GivenProcesses()
    world = on(store, host, clock, processes, UNRESERVED)
    world.tracker._writer = Writer(store, clock, actor="tester", epoch=1, boot_id="boot-1", timeout_s=timeout_s)
    return world


class BrittleClock(GivenClock):
    """A clock that does something else first when the writer asks it."""

    before_telling: Callable[[], object] = int

    def now_ms(self) -> int:
        """Return the given time."""
        if threading.current_thread() is not threading.main_thread():
            self.before_telling()
        return super().now_ms()


@pytest.fixture
def faulty() -> FaultyStore:
    """Return a store in memory that fails when it is told to."""
    return FaultyStore(MemoryStore())


@pytest.fixture
def world(faulty: FaultyStore) -> Iterator[Bench]:
    """Return a tracker on it; audited at the end."""
    made_world = world_on(faulty.as_store())
    yield made_world
    faulty.before_commit = faulty.after_commit = int
    assert_sound(made_world.tracker)


def queued(world: Bench) -> int:
    """Return how many commands wait for a leader."""
    return len(world.tracker._writer._queue)


def test_who_waits_shares_one_commit(world: Bench, faulty: FaultyStore) -> None:
    """While one commit is under way sixteen callers queue; one commit serves them all."""
    before = faulty.commits
    with stopped(faulty) as gate:
        first = Caller(lambda: world.tracker.hold(OWN))
        wait_until(lambda: gate.came == 1)
        rest = callers([lambda: world.tracker.hold(OWN)] * 16)
        wait_until(lambda: queued(world) == 16)
    claims = {granted(each.end()).id for each in [first, *rest]}
    assert (len(claims), faulty.commits - before) == (17, 2)


def test_a_group_is_one_flush_of_the_disk(tmp_path: Path) -> None:
    """Counted at the file: sixteen callers in one group cost as many flushes as one caller alone."""
    vfs = FaultyVfs("counting")
    faulty = FaultyStore(made("sqlite", tmp_path, vfs.vfs_name))
    world = world_on(faulty.as_store())

    def flushes() -> int:
        return vfs.operations.count("sync")

    before = flushes()
    granted(world.tracker.hold(OWN))
    alone = flushes() - before
    with stopped(faulty) as gate:
        first = Caller(lambda: world.tracker.hold(OWN))
        wait_until(lambda: gate.came == 1)
        rest = callers([lambda: world.tracker.hold(OWN)] * 16)
        wait_until(lambda: queued(world) == 16)
        before = flushes()
    for each in [first, *rest]:
        granted(each.end())
    assert alone >= 1
    assert flushes() - before == 2 * alone
    assert_sound(world.tracker)
    world.store.close()


def test_a_group_has_a_bound(world: Bench, faulty: FaultyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """No commit takes more than GROUP_MAX commands; the rest go with the next leader."""
    monkeypatch.setattr(writer, "GROUP_MAX", 4)
    before = faulty.commits
    with stopped(faulty) as gate:
        first = Caller(lambda: world.tracker.hold(OWN))
        wait_until(lambda: gate.came == 1)
        rest = callers([lambda: world.tracker.hold(OWN)] * 10)
        wait_until(lambda: queued(world) == 10)
    for each in [first, *rest]:
        granted(each.end())
    assert faulty.commits - before == 1 + 3


def test_one_bad_command_does_not_spoil_its_group(world: Bench, faulty: FaultyStore) -> None:
    """Refusals and errors are answered to those who asked; the others of the same commit get their claims."""
    with stopped(faulty) as gate:
        first = Caller(lambda: world.tracker.hold(OWN))
        wait_until(lambda: gate.came == 1)
        good = callers([lambda: world.tracker.hold(OWN)] * 3)
        no = Caller(lambda: world.tracker.hold(HUGE))
        wrong = Caller(lambda: world.tracker.hold(Request()))
        more = callers([lambda: world.tracker.hold(SHARED)] * 3)
        wait_until(lambda: queued(world) == 8)
    for each in [first, *good, *more]:
        granted(each.end())
    refused(no.end())
    with pytest.raises(InvalidRequest, match="asks for nothing"):
        wrong.end()


def test_each_command_of_a_group_is_decided_on_what_the_one_before_left(world: Bench, faulty: FaultyStore) -> None:
    """Of six callers in one group who want the only room, one gets it, and the others are told that he has."""
    grant = Grant(amounts=(AmountRow(pool=PoolId("vcpu"), amount=40),))
    wish = Request(vcpus=40)
    with stopped(faulty) as gate:
        first = Caller(lambda: world.tracker.hold(SHARED))
        wait_until(lambda: gate.came == 1)
        rest = callers([lambda: world.tracker.hold(wish, grant=grant)] * 6)
        wait_until(lambda: queued(world) == 6)
    granted(first.end())
    answers = [each.end() for each in rest]
    holder = [granted(answer).id for answer in answers if not hasattr(answer, "reasons")]
    assert len(holder) == 1
    for answer in answers:
        if hasattr(answer, "reasons"):
            assert holder[0] in {holding.claim for reason in refused(answer).reasons for holding in reason.holders}


@pytest.mark.rule("W0", "W7", "W37")
def test_a_failed_commit_answers_all_and_changes_nothing(world: Bench, faulty: FaultyStore) -> None:
    """The disk is full at the commit: everybody of the group is told, the old state stands, and the next commit is as if nothing was."""
    before = world.tracker.node()
    written = world.store.last_position()
    with stopped(faulty) as gate:
        first = Caller(lambda: world.tracker.hold(OWN))
        wait_until(lambda: gate.came == 1)
        rest = callers([lambda: world.tracker.hold(OWN, consumer="vm")] * 5)
        wait_until(lambda: queued(world) == 5)

        def fail() -> None:
            raise LedgerFull("no space is left")

        faulty.before_commit = fail
    errors = []
    for each in rest:
        with pytest.raises(LedgerFull) as caught:
            each.end()
        errors.append(caught.value)
    assert len({id(error) for error in errors}) == len(rest), "a note that one caller makes on its error would stand on another's"
    taken = granted(first.end())
    faulty.before_commit = int
    assert set(world.tracker.node().claims) == {*before.claims, taken.id}
    assert world.store.last_position() == written + 1
    granted(world.tracker.hold(OWN, consumer="vm"))


def test_a_snapshot_of_a_failed_commit_is_not_believed(world: Bench, faulty: FaultyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A snapshot that was due in a commit that failed is due again in the next."""
    monkeypatch.setattr(writer, "SNAPSHOT_EVERY", 1)
    monkeypatch.setattr(writer, "SNAPSHOT_PER_CLAIM", 0)

    def fail() -> None:
        raise LedgerFull("no space is left")

    faulty.before_commit = fail
    with pytest.raises(LedgerFull):
        world.tracker.hold(OWN)
    assert world.store.snapshot(snapshot_stream(world)) is None
    faulty.before_commit = int
    granted(world.tracker.hold(OWN))
    kept = world.store.snapshot(snapshot_stream(world))
    assert kept is not None
    assert snapshots.opened(kept) == world.tracker.node()


def snapshot_stream(world: Bench):  # type: ignore[no-untyped-def]  # noqa: ANN201 - the stream of the one node
    """Return the stream of the node."""
    return next(iter(world.store.heads()))


def test_whose_turn_does_not_come_is_told_and_has_done_nothing(faulty: FaultyStore) -> None:
    """A follower that was not taken in time leaves the queue with an error that names the leader; nothing of it happens later."""
    world = world_on(faulty.as_store(), timeout_s=0.3)
    with stopped(faulty) as gate:
        first = Caller(lambda: world.tracker.hold(OWN), name="the-slow-one")
        wait_until(lambda: gate.came == 1)
        late = Caller(lambda: world.tracker.hold(OWN, consumer="late"))
        with pytest.raises(LockTimeout, match=r"the-slow-one.*nothing has happened"):
            late.end()
        assert queued(world) == 0
    granted(first.end())
    assert world.store.main_claim(ConsumerId("late")) is None


def test_who_was_taken_and_not_answered_does_not_know(faulty: FaultyStore) -> None:
    """A follower whose group does not end in time is told that the outcome is unknown; the ledger shows it later."""
    world = world_on(faulty.as_store(), timeout_s=0.3)
    second = threading.Event()
    with stopped(faulty) as gate:
        first = Caller(lambda: world.tracker.hold(OWN))
        wait_until(lambda: gate.came == 1)
        heir = Caller(lambda: world.tracker.hold(OWN, consumer="a"))
        wait_until(lambda: queued(world) == 1)
        follower = Caller(lambda: world.tracker.hold(OWN, consumer="b"))
        wait_until(lambda: queued(world) == 2)
        faulty.before_commit = lambda: second.wait(JOIN_TIMEOUT_S)
    granted(first.end())
    with pytest.raises(OutcomeUnknown, match="not answered within"):
        follower.end()
    second.set()
    granted(heir.end())
    assert all(world.store.main_claim(ConsumerId(name)) is not None for name in "ab")


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, MemoryError])
def test_an_interrupted_leader_answers_everybody(world: Bench, faulty: FaultyStore, error: type[BaseException]) -> None:
    """Interrupted while it decides: nothing has happened, everybody is told so, and the next in line leads."""
    clock = world.clock
    assert isinstance(clock, BrittleClock)
    with stopped(faulty) as gate:
        first = Caller(lambda: world.tracker.hold(OWN))
        wait_until(lambda: gate.came == 1)
        rest = callers([lambda: world.tracker.hold(OWN)] * 3)
        wait_until(lambda: queued(world) == 3)

        def interrupt() -> None:
            clock.before_telling = int
            raise error

        clock.before_telling = interrupt
    granted(first.end())
    errors = []
    for each in rest:
        with pytest.raises(BaseException) as caught:  # noqa: PT011 - which one is looked at below
            each.end()
        errors.append(type(caught.value))
    assert sorted(kind.__name__ for kind in errors) == sorted([error.__name__, "LedgerUnavailable", "LedgerUnavailable"])
    assert len(world.tracker.node().claims) == 1
    granted(world.tracker.hold(OWN))


def test_a_leader_interrupted_after_the_commit_leaves_the_outcome_open(world: Bench, faulty: FaultyStore) -> None:
    """Interrupted when the commit stands and nobody was told: the others are told to look, not that nothing happened."""
    with stopped(faulty) as gate:
        first = Caller(lambda: world.tracker.hold(OWN))
        wait_until(lambda: gate.came == 1)
        rest = callers([lambda: world.tracker.hold(OWN)] * 3)
        wait_until(lambda: queued(world) == 3)

        def interrupt() -> None:
            if faulty.commits > committed + 1:
                faulty.after_commit = int
                raise KeyboardInterrupt

        committed = faulty.commits
        faulty.after_commit = interrupt
    granted(first.end())
    errors = []
    for each in rest:
        with pytest.raises((KeyboardInterrupt, OutcomeUnknown)) as caught:
            each.end()
        errors.append(type(caught.value).__name__)
    assert sorted(errors) == ["KeyboardInterrupt", "OutcomeUnknown", "OutcomeUnknown"]
    assert len(world.tracker.node().claims) == 4


def test_an_interrupted_follower_leaves_nothing_in_the_queue(world: Bench, faulty: FaultyStore) -> None:
    """A signal ends the waiting of the main thread: its command is withdrawn and never carried out behind its back."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    earlier = signal.signal(signal.SIGUSR1, interrupted)
    try:
        with stopped(faulty) as gate:
            first = Caller(lambda: world.tracker.hold(OWN))
            wait_until(lambda: gate.came == 1)

            def shoot() -> None:
                wait_until(lambda: queued(world) == 1)
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

            shooter = Caller(shoot)
            with pytest.raises(KeyboardInterrupt):
                world.tracker.hold(OWN, consumer="gone")
            shooter.end()
            assert queued(world) == 0
        granted(first.end())
    finally:
        signal.signal(signal.SIGUSR1, earlier)
    assert world.store.main_claim(ConsumerId("gone")) is None
    granted(world.tracker.hold(OWN))


@pytest.mark.parametrize(
    "wrong",
    [
        {"deadline_ms": 1 << 70},
        {"deadline_ms": 1.5},
        {"consumer": "\ud800"},
        {"holders": ("me",)},
        {"holders": (Holder(boot_id="b", pid_namespace=1, pid=1, start_ticks=1),) * 17},
        {"holders": (Holder(boot_id="b", pid_namespace=1, pid=-1, start_ticks=1),)},
        {"request": Request(vcpus=-1)},
        {"request": Request(vcpus=1 << 62)},
        {"grant": Grant(amounts=(AmountRow(pool=PoolId("vcpu"), amount=1 << 80),))},
        {"grant": Grant(amounts=(AmountRow(pool=PoolId("vcpu"), amount=-1),))},
        {"purpose": "sport"},
        {"leg": object()},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_a_command_that_is_none_never_joins_a_group(world: Bench, wrong: dict[str, object]) -> None:
    """What was made in Python with wrong types or beyond bounds is the caller's fault, before it can meet anybody else's command."""
    fields = {
        "node": NODE_ONE, "claim": ClaimId("c-1234"), "consumer": ConsumerId("vm"), "owner": Owner("ann"), "request": OWN,
        "deadline_ms": 1 << 50,
    }  # fmt: skip
    with pytest.raises(InvalidRequest):
        world.tracker._writer.submit(HoldClaim(**{**fields, **wrong}))  # type: ignore[arg-type]  # a wrong type on purpose
    assert world.store.claim(ClaimId("c-1234")) is None


def test_the_unavailable_tell_the_truth() -> None:
    """Before the commit the error says that nothing has happened; at the commit it does not."""
    work = Work(HoldClaim(node=NODE_ONE, claim=ClaimId("c-1"), consumer=ConsumerId("v"), owner=Owner("o"), request=OWN), None, "")
    assert isinstance(interrupted(work), LedgerUnavailable)
    work.decided = True
    assert isinstance(interrupted(work), OutcomeUnknown)
