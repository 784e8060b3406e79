"""Each test of the contract runs on both stores, and ends with an audit of what it left."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from earmark.stores.contract import Store
from earmark.stores.memory import MemoryStore
from earmark.stores.sqlite.store import SqliteStore

ROOT = str(Path(__file__).resolve().parents[2])
if ROOT not in sys.path:
    sys.path.insert(0, ROOT)

KINDS = ("memory", "sqlite")


@pytest.fixture(params=KINDS)
def bare(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], Store]:
    """Return a maker of stores of one kind, by name; whoever makes one closes it."""

    def maker(name: str) -> Store:
        return MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / name / "ledger.db")

    return maker


@pytest.fixture
def make(bare: Callable[[str], Store]) -> Iterator[Callable[[str], Store]]:
    """Return a maker of stores of one kind, by name; all are audited (those that were never sealed) and closed."""
    from tests.stores.making import audit

    made: list[Store] = []

    def maker(name: str) -> Store:
        made.append(bare(name))
        return made[-1]

    yield maker
    for store in made:
        if not any(store.archived(stream) for stream in store.heads()):
            audit(store)
        store.close()


@pytest.fixture
def store(make: Callable[[str], Store]) -> Store:
    """Return an empty ledger."""
    return make("ledger")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where an SQLite ledger will be."""
    return tmp_path / "ledger" / "ledger.db"


@pytest.fixture
def sqlite(path: Path) -> Iterator[SqliteStore]:
    """Return an empty SQLite ledger at `path`; audited and closed at the end."""
    from tests.stores.making import audit

    with SqliteStore(path) as opened:
        yield opened
        audit(opened)
