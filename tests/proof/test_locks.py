"""The one kind of lock: it names its holder, refuses to be taken twice by one thread, and is free again after any exception."""

from __future__ import annotations

import threading

import pytest
from tests.proof.worlds import JOIN_TIMEOUT_S, Caller, callers

from earmark.errors import LockTimeout, WrongUse
from earmark.locks import NamedLock


def free(lock: NamedLock) -> bool:
    """Say whether another thread can have the lock at once."""

    def take() -> bool:
        with lock.hold("look", timeout_s=1.0):
            return True

    return Caller(take).end() is True


def test_who_waits_too_long_learns_who_holds_it() -> None:
    """The error names the lock, the purpose that waited, the thread that holds it and what for."""
    lock = NamedLock("the cupboard")
    inside, done = threading.Event(), threading.Event()

    def keep() -> None:
        with lock.hold("count the spoons"):
            inside.set()
            assert done.wait(JOIN_TIMEOUT_S)

    keeper = Caller(keep, name="the-keeper")
    assert inside.wait(JOIN_TIMEOUT_S)
    with pytest.raises(LockTimeout) as caught, lock.hold("a fork", timeout_s=0.05):
        pytest.fail("it is held")
    for word in ("the cupboard", "a fork", "the-keeper", "count the spoons"):
        assert word in caught.value.message
    assert caught.value.facts == {"lock": "the cupboard"}
    done.set()
    keeper.end()
    assert free(lock)


def test_a_thread_that_asks_twice_is_told() -> None:
    """Re-entry is an error at once, not a wait for oneself, and does not give the lock up."""
    lock = NamedLock("l")
    with lock.hold("first"):
        with pytest.raises(WrongUse, match="for first"), lock.hold("second"):
            pytest.fail("it is held")
        with pytest.raises(LockTimeout):
            Caller(lambda: lock.hold("other", timeout_s=0.01).__enter__()).end()
    assert free(lock)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError, StopIteration])
def test_it_is_free_after_any_exception(error: type[BaseException]) -> None:
    """Whatever ends the block, the next has the lock."""
    lock = NamedLock("l")
    with pytest.raises((error, RuntimeError)), lock.hold("a block that fails"):
        raise error
    assert free(lock)
    with lock.hold("again"):
        assert lock._holder is not None
    assert lock._holder is None


def test_only_one_is_inside() -> None:
    """Twenty threads count to a thousand together and lose nothing."""
    lock = NamedLock("counter")
    count = 0

    def add() -> None:
        nonlocal count
        for _ in range(50):
            with lock.hold("add"):
                seen = count
                threading.Event().wait(0)
                count = seen + 1

    for each in callers([add] * 20):
        each.end()
    assert count == 1000
