"""What the tests of the proof share: threads that must end, claims that must be granted."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from earmark.core.ledger.commands import Answer
from earmark.core.model.claim import Claim
from earmark.core.model.refusal import Refusal
from earmark.core.model.request import Request
from earmark.core.model.units import GIB
from earmark.stores.contract import Store
from earmark.stores.memory import MemoryStore
from earmark.stores.sqlite.opening import Surroundings
from earmark.stores.sqlite.store import SqliteStore
from earmark.testing import FaultyStore

OWN = Request(vcpus=1, cpu_policy="dedicated", memory_bytes=GIB)
SHARED = Request(vcpus=1, memory_bytes=GIB)
HUGE = Request(vcpus=999)
JOIN_TIMEOUT_S = 30.0


class Caller(threading.Thread):
    """A thread whose result or error is kept."""

    def __init__(self, say: Callable[[], object], name: str = "caller") -> None:
        super().__init__(name=name, daemon=True)
        self._say = say
        self.result: object = None
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        """Carry it out and keep what comes of it."""
        try:
            self.result = self._say()
        except BaseException as error:  # noqa: BLE001 - it is looked at by the test
            self.error = error

    def end(self) -> object:
        """Wait for the end and return the result; raises the error, or AssertionError if it does not end."""
        self.join(JOIN_TIMEOUT_S)
        assert not self.is_alive(), f"{self.name} did not end in {JOIN_TIMEOUT_S} s"
        if self.error is not None:
            raise self.error
        return self.result


def callers(says: Sequence[Callable[[], object]]) -> list[Caller]:
    """Start a thread for each."""
    return [Caller(say, f"caller-{number}") for number, say in enumerate(says)]


def granted(result: object) -> Claim:
    """Return the claim of an answer that must be a yes."""
    assert isinstance(result, Answer), result
    assert result.claim is not None
    return result.claim


def refused(result: object) -> Refusal:
    """Return an answer that must be a no."""
    assert isinstance(result, Refusal), result
    return result


def wait_until(true: Callable[[], bool]) -> None:
    """Wait until something is true; AssertionError if it does not become so."""
    deadline = time.monotonic() + JOIN_TIMEOUT_S
    while not true():
        assert time.monotonic() < deadline, "it did not become true"
        time.sleep(0.001)


class Gate:
    """Stops whoever comes until it is opened; says how many came."""

    def __init__(self, store: FaultyStore) -> None:
        self.store = store
        self.came = 0
        self.open = threading.Event()
        store.before_commit = self._come

    def _come(self) -> None:
        self.came += 1
        assert self.open.wait(JOIN_TIMEOUT_S)


@contextmanager
def stopped(store: FaultyStore) -> Iterator[Gate]:
    """Stop every commit of a block; they go on at its end."""
    gate = Gate(store)
    try:
        yield gate
    finally:
        gate.open.set()


def made(kind: str, folder: Path, vfs: str | None = None) -> Store:
    """Return an empty store of a kind."""
    return MemoryStore() if kind == "memory" else SqliteStore(folder / "ledger" / "ledger.db", around=Surroundings(vfs=vfs))
