"""Interrupts: whenever they come, what was begun is rolled back whole or stands whole, and the tracker goes on."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import FrameType

import pytest
from tests.proof.worlds import OWN, granted

from earmark import locks
from earmark.stores.sqlite.store import SqliteStore
from earmark.testing import Bench, bench
from earmark.tracker.held import HeldClaim

SOURCES = str(Path(locks.__file__).parent) + os.sep
SPARED = {locks.__file__}
"""Not interrupted: a lock of Python code cannot give itself back between two of its own lines."""
ROLLING_BACK = {"roll_back", "_leave", "_hand_on"}
"""The clean-up itself: a second interrupt there is left to the lease (`tracker/held.py`). `_lead` itself has tests of its own."""


class Struck(BaseException):
    """The interrupt of these tests: no code of ours can know it."""


@contextmanager
def strike_at(number: int) -> Iterator[Callable[[], bool]]:
    """Raise Struck at the `number`-th moment of the product in this thread; gives a question whether it was raised.

    A moment is where CPython looks for signals: at the beginning of a function and after a call.
    """
    count = 0
    struck = False

    def watch(frame: FrameType, event: str, _: object) -> None:
        nonlocal count, struck
        code = frame.f_code
        if struck or event not in ("call", "c_return") or not code.co_filename.startswith(SOURCES) or code.co_name == "_lead":
            return
        caller: FrameType | None = frame
        while caller is not None:
            if caller.f_code.co_filename in SPARED or caller.f_code.co_name in ROLLING_BACK:
                return
            caller = caller.f_back
        count += 1
        if count == number:
            struck = True
            raise Struck

    sys.setprofile(watch)
    try:
        yield lambda: struck
    finally:
        sys.setprofile(None)


def whole(world: Bench, take: Callable[[], AbstractContextManager[HeldClaim]], number: int) -> bool:
    """Strike a `with` block at one moment; say whether it was reached. The world must be as before, or as after a block that ended well."""
    with strike_at(number) as struck:
        try:
            with take():
                pass
        except Struck:
            pass
    state = world.tracker.node()
    assert all(claim.phase == "confirmed" and not claim.holders for claim in state.live())
    for claim in state.live():
        world.tracker.release(claim.id)
    assert dict(world.tracker.node().free.slots) == {}
    assert world.tracker._writer._leader is None
    assert len(world.tracker._writer._queue) == 0
    return struck()


@pytest.mark.filterwarnings("ignore:Exception ignored in. <generator:pytest.PytestUnraisableExceptionWarning")  # struck as one is dropped
@pytest.mark.rule("L5", "W7")
@pytest.mark.parametrize("step", [7, pytest.param(1, marks=pytest.mark.long)])
@pytest.mark.parametrize("kind", ["claim", "borrow"])
def test_an_interrupt_at_any_moment_leaves_nothing_half_done(kind: str, step: int) -> None:
    """Struck at every moment (or every seventh) of holding and finishing: afterwards nothing is held that was not kept by the block."""
    with bench("2c 8G") as world:
        take = {"claim": lambda: world.tracker.claim(OWN), "borrow": lambda: world.tracker.borrow(OWN)}[kind]
        number = 1
        while whole(world, take, number):
            number += step
        assert number > 100
        assert threading.active_count() >= 1
        granted(world.tracker.hold(OWN))


@pytest.mark.filterwarnings("ignore:Exception ignored in. <generator:pytest.PytestUnraisableExceptionWarning")  # as above
@pytest.mark.long
def test_an_interrupt_at_any_moment_on_disk_leaves_nothing_half_done(tmp_path: Path) -> None:
    """The same on a file: no transaction stays open, no lock of the file stays taken, and another opening can write at once."""
    path = tmp_path / "l" / "ledger.db"
    with SqliteStore(path) as store, SqliteStore(path) as other, bench("2c 8G", store=store) as world:
        number = 1
        while whole(world, lambda: world.tracker.claim(OWN), number):
            with other.transaction(purpose="look", timeout_s=1.0):
                pass
            number += 3
        assert number > 100


def test_an_interrupt_inside_the_block_rolls_back() -> None:
    """The interrupt of the person at the keyboard ends the claim and comes out as itself."""
    with bench("2c 8G") as world:
        with pytest.raises(KeyboardInterrupt), world.tracker.claim(OWN):
            raise KeyboardInterrupt
        assert dict(world.tracker.node().claims) == {}
