"""What the accounting does when callers race, an audit or a commit fails, or a ledger grows: over every store."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from tests.accounting.grounds import STORES, figures, granted, ground, own, refused, shared, store_of

from earmark.core.ledger.commands import Answer
from earmark.core.ledger.state import encode_image
from earmark.core.model.claim import Holder, Liveness
from earmark.core.model.ids import node_stream
from earmark.core.model.refusal import Refusal
from earmark.drivers.contract import Observation
from earmark.errors import LedgerUnavailable
from earmark.stores.contract import REFUSALS_KEPT_MAX, Store, Transaction
from earmark.testing import GivenClock, GivenHost, GivenProcesses, bench, machine, on

stores = pytest.mark.parametrize("kind", STORES)


@stores
@pytest.mark.rule("S44", "W36")
def test_of_two_callers_one_gets_the_last_cpus(kind: str, tmp_path: Path) -> None:
    """Two threads that want the last two CPUs while a third audits: exactly one is granted, the other is told who holds them."""
    with ground(kind, tmp_path, "2c 4G") as world:
        for _ in range(10):
            gate = threading.Barrier(3)
            answers: list[Answer | Refusal] = []
            findings: list[object] = []

            def want(gate: threading.Barrier = gate, answers: list[Answer | Refusal] = answers) -> None:
                gate.wait(10)
                answers.append(world.tracker.hold(own(2), confirm=True))

            def look(gate: threading.Barrier = gate, findings: list[object] = findings) -> None:
                gate.wait(10)
                findings.extend(world.tracker.audit())

            threads = [threading.Thread(target=act) for act in (want, want, look)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(20)
            (yes,) = [answer for answer in answers if isinstance(answer, Answer)]
            (no,) = [answer for answer in answers if isinstance(answer, Refusal)]
            assert findings == []
            assert yes.claim_id is not None
            assert no.reasons[0].holders[0].claim == yes.claim_id
            world.tracker.release(yes.claim_id)


@pytest.fixture(name="inner")
def _inner(kind: str, tmp_path: Path) -> Iterator[Store]:
    """Give an empty store of the kind, closed at the end."""
    store = store_of(kind, tmp_path)
    yield store
    store.close()


class Failing:
    """A store whose reads of events fail while `broken` is set; everything else is the store's own."""

    def __init__(self, inner: Store) -> None:
        self.inner = inner
        self.broken = False

    def __getattr__(self, name: str) -> Any:
        if self.broken and name in ("read", "follow", "all_events", "reading", "slots"):
            raise LedgerUnavailable(f"the disk under {name} is gone for a moment")
        return getattr(self.inner, name)


@stores
@pytest.mark.rule("S46", "W0")
def test_an_audit_that_fails_half_way_changes_nothing(inner: Store) -> None:
    """The ledger cannot be read during an audit: usage and pins stay, and the next claim gets other CPUs."""
    store = Failing(inner)
    with bench("2x8c 32G", store=store) as world:
        first = granted(world.tracker.hold(own(2, 2048), confirm=True))
        before = figures(world)
        store.broken = True
        with pytest.raises(LedgerUnavailable):
            world.tracker.audit()
        store.broken = False
        assert figures(world) == before
        second = granted(world.tracker.hold(own(2, 2048), confirm=True))
        assert set(first.grant.cpus).isdisjoint(second.grant.cpus)
        assert world.tracker.audit() == ()


class Uncommitted:
    """A store whose transactions fail at their end while `broken` is set, as a full disk makes them."""

    def __init__(self, inner: Store) -> None:
        self.inner = inner
        self.broken = False
        self.inside = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    @contextmanager
    def transaction(self, **wishes: Any) -> Iterator[Transaction]:
        """Enter the inner store's transaction; count who is inside; fail before the commit if `broken`."""
        with self.inner.transaction(**wishes) as tx:
            self.inside += 1
            try:
                yield tx
                if self.broken:
                    raise LedgerUnavailable("the commit failed")
            finally:
                self.inside -= 1


@stores
@pytest.mark.rule("X2", "W7")
def test_a_failed_commit_leaves_no_trace(inner: Store) -> None:
    """The caller is told, nothing is visible to anybody, and the same claim succeeds afterwards."""
    store = Uncommitted(inner)
    with bench("4c 8G", store=store) as world:
        store.broken = True
        with pytest.raises(LedgerUnavailable, match="the commit failed"):
            world.tracker.hold(own(2), consumer="vm")
        assert figures(world) == (0, 0, 0, 0)
        store.broken = False
        assert figures(world.reopened()) == (0, 0, 0, 0)
        granted(world.tracker.hold(own(2), consumer="vm"))


class Watched(GivenHost, GivenProcesses):
    """A host and its processes that fail if they are asked while a transaction is open."""

    def __init__(self, store: Uncommitted) -> None:
        GivenHost.__init__(self, machine("4c 8G"))
        GivenProcesses.__init__(self)
        self.store = store
        self.asked = 0

    def observe(self) -> Observation:
        """Look at the machine, outside every transaction."""
        self._check()
        return super().observe()

    def status(self, holder: Holder) -> Liveness:
        """Look at a process, outside every transaction."""
        self._check()
        return super().status(holder)

    def _check(self) -> None:
        self.asked += 1
        assert self.store.inside == 0, "asked while the ledger's transaction was open"


@stores
@pytest.mark.rule("W30")
def test_nothing_foreign_is_asked_under_the_ledgers_lock(inner: Store) -> None:
    """The host and its processes are looked at before a transaction is opened, never inside one."""
    store = Uncommitted(inner)
    world_of = Watched(store)
    world = on(store, world_of, GivenClock(), world_of)
    holder = world_of.identify(7)
    claim = granted(world.tracker.hold(own(1), holders=[holder]))
    world.tracker.confirm(claim.id, holders=[holder])
    world.tracker.observe()
    world_of.fates[7] = "dead"
    world.tracker.sweep()
    assert world.tracker.node().claims.get(claim.id) is None
    assert world_of.asked >= 2


def calls_of_a_claim(live: int) -> int:
    """Return how many Python functions one claim and release call on a node with some live shared claims."""
    count = 0

    def counted(frame: FrameType, event: str, _: object) -> None:
        nonlocal count
        count += event == "call"

    with ground("memory", Path(), "64c 64G", check=False) as world:
        for _ in range(live):
            world.tracker.hold(shared(0, 1), confirm=True)
        warm = granted(world.tracker.hold(shared(0, 1), confirm=True))
        world.tracker.release(warm.id)
        sys.setprofile(counted)
        try:
            claim = granted(world.tracker.hold(shared(0, 1), confirm=True))
            world.tracker.release(claim.id)
        finally:
            sys.setprofile(None)
    return count


@pytest.mark.rule("W34")
def test_the_work_of_a_claim_does_not_grow_with_the_claims_that_live() -> None:
    """With 400 live shared claims a claim and its release call hardly more functions than with none."""
    alone, among = calls_of_a_claim(0), calls_of_a_claim(400)
    assert among <= alone * 1.3 + 20, (alone, among)


@stores
@pytest.mark.rule("W44")
def test_what_is_remembered_is_bounded(kind: str, tmp_path: Path) -> None:
    """After many claims have come and gone the state is as large as before; of many refusals only the newest are kept."""
    with ground(kind, tmp_path, "4c 8G") as world:
        granted(world.tracker.hold(own(1), consumer="stays", confirm=True))
        sizes = []
        for _ in range(3):
            for _ in range(20):
                world.tracker.release(granted(world.tracker.hold(shared(1), confirm=True)).id)
            sizes.append(len(encode_image(world.tracker.node())))
        assert max(sizes) - min(sizes) <= 8
        with world.store.transaction() as tx:
            for number in range(REFUSALS_KEPT_MAX + 50):
                tx.put_refusal(node_stream(world.tracker.home), "x", number, b"{}")
        refused(world.tracker.hold(own(9)))
        assert len(world.store.refusals(REFUSALS_KEPT_MAX * 2)) == REFUSALS_KEPT_MAX
