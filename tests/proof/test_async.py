"""`async with`: cancelled at any point, or ended by any exception, a claim leaves nothing behind and the loop goes on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
from tests.proof.worlds import HUGE, JOIN_TIMEOUT_S, OWN

from earmark.core.model.request import Request
from earmark.errors import LedgerFull, Refused
from earmark.stores.memory import MemoryStore
from earmark.testing import UNRESERVED, Bench, FaultyStore, GivenClock, GivenHost, GivenProcesses, assert_sound, machine, on
from earmark.tracker.held import HeldClaim

Take = Callable[[Bench], AbstractAsyncContextManager[HeldClaim]]
TAKES: dict[str, Take] = {"aclaim": lambda world: world.tracker.aclaim(OWN), "aborrow": lambda world: world.tracker.aborrow(OWN)}


@pytest.fixture
def faulty() -> FaultyStore:
    """Return a store whose commits can be stopped."""
    return FaultyStore(MemoryStore())


@pytest.fixture
def world(faulty: FaultyStore) -> Iterator[Bench]:
    """Return a tracker on it; audited at the end."""
    made = on(faulty.as_store(), GivenHost(machine("2x4c 32G")), GivenClock(), GivenProcesses(), UNRESERVED)
    yield made
    assert_sound(made.tracker)


@pytest.fixture(params=sorted(TAKES))
def take(request: pytest.FixtureRequest) -> Take:
    """Return each of the two."""
    return TAKES[request.param]


def empty(world: Bench) -> bool:
    """Say whether nothing is held."""
    state = world.tracker.node()
    return not state.claims and not state.quarantines and not state.free.slots and not state.free.used


class Stop:
    """Stops the `number`-th commit from now, inside the transaction or when it stands, until it is let go."""

    def __init__(self, faulty: FaultyStore, number: int, *, after: bool) -> None:
        self.reached = threading.Event()
        self.go = threading.Event()
        self._left = number
        if after:
            faulty.after_commit = self._come
        else:
            faulty.before_commit = self._come

    def _come(self) -> None:
        self._left -= 1
        if self._left == 0:
            self.reached.set()
            assert self.go.wait(JOIN_TIMEOUT_S)


async def held_for_ever(world: Bench, take: Take) -> None:
    """Hold a claim until cancelled."""
    async with take(world):
        await asyncio.Event().wait()


async def reached(event: threading.Event) -> None:
    """Wait for an event of a thread without stopping the loop."""
    while not event.is_set():  # noqa: ASYNC110 - a thread sets it
        await asyncio.sleep(0.001)


@pytest.mark.rule("L5")
@pytest.mark.parametrize("after", [False, True], ids=["inside", "behind"])
def test_cancelled_while_it_is_being_held(world: Bench, faulty: FaultyStore, take: Take, *, after: bool) -> None:
    """Cancelled while the hold is at its commit, or just behind it: the claim that came of it is rolled back before the task ends."""

    async def main() -> None:
        stop = Stop(faulty, 1, after=after)
        task = asyncio.create_task(held_for_ever(world, take))
        await reached(stop.reached)
        task.cancel()
        await asyncio.sleep(0.01)
        assert not task.done()
        stop.go.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert empty(world)


def test_cancelled_inside_the_block(world: Bench, take: Take) -> None:
    """Cancelled while the block waits: everything is given back."""

    async def main() -> None:
        task = asyncio.create_task(held_for_ever(world, take))
        while not world.tracker.node().claims:  # noqa: ASYNC110 - a thread makes it so
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert empty(world)


@pytest.mark.parametrize("after", [False, True], ids=["inside", "behind"])
def test_cancelled_while_it_is_finished(world: Bench, faulty: FaultyStore, take: Take, *, after: bool) -> None:
    """Cancelled while the end of the block is at its commit: the cancelled task leaves nothing."""

    async def brief() -> None:
        async with take(world):
            pass

    async def main() -> None:
        stop = Stop(faulty, 2, after=after)
        task = asyncio.create_task(brief())
        await reached(stop.reached)
        task.cancel()
        stop.go.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert empty(world)


def test_cancelled_again_during_the_rollback(world: Bench, faulty: FaultyStore, take: Take) -> None:
    """Cancelled twice: the rollback is still carried out to its end."""

    async def main() -> None:
        task = asyncio.create_task(held_for_ever(world, take))
        while not world.tracker.node().claims:  # noqa: ASYNC110 - a thread makes it so
            await asyncio.sleep(0.001)
        stop = Stop(faulty, 1, after=False)
        task.cancel()
        await reached(stop.reached)
        task.cancel()
        await asyncio.sleep(0.01)
        stop.go.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert empty(world)


def test_a_loop_that_ends_waits_for_the_rollback(world: Bench, faulty: FaultyStore, take: Take) -> None:
    """The main task ends while another is at its commit: the loop cancels what is left, and nothing stays behind."""
    stop = Stop(faulty, 1, after=False)
    tasks = []

    async def main() -> None:
        tasks.append(asyncio.create_task(held_for_ever(world, take)))
        await reached(stop.reached)
        asyncio.get_running_loop().call_later(0.05, stop.go.set)

    asyncio.run(main())
    assert tasks[0].cancelled()
    assert empty(world)


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt, asyncio.CancelledError])
def test_any_exception_rolls_back(world: Bench, take: Take, error: type[BaseException]) -> None:
    """Whatever ends the block is what comes out, and everything is given back."""

    async def main() -> None:
        async with take(world):
            raise error

    with pytest.raises(error):
        asyncio.run(main())
    assert empty(world)


def test_a_block_that_ends_well(world: Bench) -> None:
    """`aclaim` keeps, `aborrow` gives back."""

    async def main() -> None:
        async with world.tracker.aborrow(OWN) as borrowed:
            assert len(borrowed.cpus) == 1
        assert empty(world)
        async with world.tracker.aclaim(OWN, consumer="vm") as held:
            assert world.tracker.node().claims[held.id].phase == "held"
        assert world.tracker.node().claims[held.id].phase == "confirmed"

    asyncio.run(main())


def test_a_refusal_is_raised(world: Bench, take: Take) -> None:
    """What cannot be had raises Refused and the block never runs."""

    async def main() -> None:
        async with world.tracker.aclaim(HUGE):
            pytest.fail("the block must not run")

    with pytest.raises(Refused):
        asyncio.run(main())
    assert empty(world)


def test_a_rollback_that_fails_keeps_the_first_error(world: Bench, faulty: FaultyStore) -> None:
    """The first error comes out with a note; the lease ends the claim."""

    def fail() -> None:
        raise LedgerFull("no space is left")

    async def main() -> None:
        async with world.tracker.aclaim(OWN):
            faulty.before_commit = fail
            raise ValueError("first")

    with pytest.raises(ValueError, match="first") as caught:
        asyncio.run(main())
    assert "could not be rolled back" in caught.value.__notes__[0]
    faulty.before_commit = int
    world.clock.move(600_000)
    world.tracker.sweep()
    assert [claim.phase for claim in world.tracker.node().live()] == ["draining"]


def test_many_at_once_never_hold_one_cpu_twice(world: Bench) -> None:
    """Forty tasks share eight CPUs: each has its own while it has it, half of them are cancelled, and all is free at the end."""
    having: set[int] = set()

    @asynccontextmanager
    async def one() -> AsyncIterator[None]:
        async with world.tracker.aborrow(Request(vcpus=1, cpu_policy="dedicated")) as held:
            assert not having & set(held.cpus)
            having.update(held.cpus)
            try:
                yield
            finally:
                having.difference_update(held.cpus)

    async def worker(number: int) -> None:
        for _ in range(3):
            try:
                async with one():
                    await asyncio.sleep(0.001 * (number % 3))
            except Refused:
                await asyncio.sleep(0.001)

    async def main() -> None:
        tasks = [asyncio.create_task(worker(number)) for number in range(40)]
        await asyncio.sleep(0.02)
        for task in tasks[::2]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert all(task.cancelled() or task.exception() is None for task in tasks)

    asyncio.run(main())
    assert empty(world)
    assert having == set()


def test_the_loop_is_never_stopped(world: Bench, faulty: FaultyStore) -> None:
    """While the disk does not answer, other tasks of the loop go on."""

    async def main() -> None:
        stop = Stop(faulty, 1, after=False)
        task = asyncio.create_task(held_for_ever(world, TAKES["aborrow"]))
        await reached(stop.reached)
        for _ in range(20):
            await asyncio.sleep(0)
        stop.go.set()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(main())
    assert empty(world)
