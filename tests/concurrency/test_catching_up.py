"""Long streams are caught up with before the write transaction, by the caller who needs them: nobody else waits for that."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import pytest
from tests.proof.worlds import JOIN_TIMEOUT_S, Caller, callers, granted, wait_until

from earmark.core.ledger.codec import Batch, Head, Stamp, Stored
from earmark.core.ledger.commands import HoldClaim
from earmark.core.ledger.events import ClaimBound, Event
from earmark.core.model.ids import ClaimId, ConsumerId, NodeId, Owner, StreamId, node_stream
from earmark.core.model.request import Request
from earmark.core.model.units import MIB
from earmark.stores.contract import PAGE_ITEMS_MAX, Reader, Store, Transaction
from earmark.stores.memory import MemoryStore
from earmark.testing import NODE_ONE, Bench, GivenClock, GivenHost, GivenProcesses, assert_sound, machine, on
from earmark.tracker import writer

WISH = Request(vcpus=1, memory_bytes=MIB)
LONG = 700
SHAPE = "2x8c 32G"
OTHER = NodeId("00000000-0000-4000-8000-0000000000ff")


class Counting:
    """A reader or transaction that notes how many events were read through it; everything else is the inner one's."""

    def __init__(self, inner: Reader, seen: Counted, *, inside: bool) -> None:
        self._inner = inner
        self._seen = seen
        self._inside = inside

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def read(self, stream: StreamId, after: int = 0, limit: int = PAGE_ITEMS_MAX) -> Sequence[Stored]:
        """Read, and note how much was read and where."""
        self._seen.before_reading(stream, self._inside)
        page = self._inner.read(stream, after, limit)
        (self._seen.inside if self._inside else self._seen.outside).append(len(page))
        return page


class Counted:
    """A store that notes how many events were read inside its write transactions and outside them."""

    def __init__(self, inner: Store) -> None:
        self._inner = inner
        self.inside: list[int] = []
        self.outside: list[int] = []
        self.before_reading: Callable[[StreamId, bool], object] = lambda stream, inside: None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    @contextmanager
    def transaction(self, *, purpose: str = "write", timeout_s: float = 10.0) -> Iterator[Transaction]:
        """Enter the inner store's write transaction and count what is read in it."""
        with self._inner.transaction(purpose=purpose, timeout_s=timeout_s) as tx:
            yield cast("Transaction", Counting(tx, self, inside=True))

    @contextmanager
    def reading(self) -> Iterator[Reader]:
        """Enter a view and count what is read in it."""
        with self._inner.reading() as reader:
            yield cast("Reader", Counting(reader, self, inside=False))


@pytest.fixture
def store() -> MemoryStore:
    """Return the ledger of a test."""
    return MemoryStore()


def opened(store: Store) -> Bench:
    """Return a tracker that has read nothing yet but its own node."""
    return on(store, GivenHost(machine(SHAPE)), GivenClock(), GivenProcesses())


def lengthen(store: Store, node: NodeId, events: int) -> None:
    """Let another program write so many events to a node's stream."""
    world = opened(store)
    claim = granted(world.tracker.hold(WISH, node=node, confirm=True)).id
    sides = [(world.processes.identify(1),), (world.processes.identify(2),)]
    more: list[Event] = [ClaimBound(claim=claim, holders=sides[number % 2]) for number in range(events)]
    head: Head = store.head(node_stream(node))
    with store.transaction(purpose="lengthen") as tx:
        tx.append([Batch(node_stream(node), head.sequence, more)], Stamp(actor="other", command="many", now_ms=world.clock.now_ms()))


@pytest.mark.rule("W30")
def test_a_long_stream_is_folded_before_the_transaction(store: MemoryStore) -> None:
    """A claim on a node whose stream another program made long folds it outside; under the transaction no more than FOLD_MAX events are read."""
    counted = Counted(store)
    world = opened(cast("Store", counted))
    lengthen(store, NODE_ONE, LONG)
    counted.inside.clear()
    counted.outside.clear()
    granted(world.tracker._writer.submit(_hold(world)))
    assert sum(counted.inside) <= writer.FOLD_MAX
    assert sum(counted.outside) >= LONG
    counted.outside.clear()
    granted(world.tracker._writer.submit(_hold(world)))
    assert sum(counted.outside) == 0, "who is near the end catches up inside, at no other cost"
    assert_sound(world.tracker)


@pytest.mark.rule("W30")
def test_a_stream_never_seen_is_opened_before_the_transaction(store: MemoryStore) -> None:
    """The first claim on a long stream that this program has not read opens it outside the transaction too."""
    opened(store).tracker.register("other", uuid=OTHER, machine=machine(SHAPE))
    lengthen(store, OTHER, LONG)
    counted = Counted(store)
    world = opened(cast("Store", counted))
    counted.inside.clear()
    granted(world.tracker._writer.submit(_hold(world, OTHER)))
    assert sum(counted.inside) <= writer.FOLD_MAX
    assert_sound(world.tracker)


@pytest.mark.rule("W3", "W30")
def test_who_catches_up_holds_up_nobody(store: MemoryStore) -> None:
    """While one caller is stuck in reading a long stream of one node, claims on another node are answered."""
    opened(store).tracker.register("other", uuid=OTHER, machine=machine(SHAPE))
    counted = Counted(store)
    world = opened(cast("Store", counted))
    granted(world.tracker.hold(WISH, node=OTHER))
    lengthen(store, OTHER, LONG)
    stuck, go_on = threading.Event(), threading.Event()

    def wait(stream: StreamId, inside: bool) -> None:
        assert not (inside and stream == node_stream(OTHER))
        if stream == node_stream(OTHER):
            stuck.set()
            assert go_on.wait(JOIN_TIMEOUT_S)

    counted.before_reading = wait
    slow = Caller(lambda: world.tracker._writer.submit(_hold(world, OTHER)))
    try:
        wait_until(stuck.is_set)
        quick = callers([lambda: world.tracker.release(granted(world.tracker.hold(WISH)).id)] * 8)
        assert all(each.end() for each in quick)
        assert slow.is_alive()
    finally:
        go_on.set()
    counted.before_reading = lambda stream, inside: None
    granted(slow.end())
    assert_sound(world.tracker)


def test_who_is_left_behind_again_and_again_gets_its_turn(store: MemoryStore) -> None:
    """A stream that grows faster than a caller catches up is folded inside at last: the command is carried out."""
    counted = Counted(store)
    world = opened(cast("Store", counted))
    lengthen(store, NODE_ONE, LONG)
    rounds: list[int] = []

    def grow(stream: StreamId, inside: bool) -> None:
        if not inside:
            rounds.append(1)
            lengthen(store, NODE_ONE, writer.FOLD_MAX + 1)

    counted.before_reading = grow
    granted(world.tracker._writer.submit(_hold(world)))
    counted.before_reading = lambda stream, inside: None
    assert len(rounds) == writer.CATCH_UPS_MAX
    assert_sound(world.tracker)


def _hold(world: Bench, node: NodeId = NODE_ONE) -> HoldClaim:
    """Return the command of a claim, made without asking the ledger first."""
    number = world.clock.now_ms()
    world.clock.move(1)
    claim = ClaimId(f"c-{number:x}")
    return HoldClaim(node=node, claim=claim, consumer=ConsumerId(claim), owner=Owner("o"), request=WISH, confirm=True)
