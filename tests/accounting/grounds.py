"""The ground of the accounting tests: a tracker on a made machine, over each store, and the figures that a person would read off it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from earmark.core.ledger.commands import Answer
from earmark.core.model.claim import Claim
from earmark.core.model.ids import MEMORY, VCPU, NodeId
from earmark.core.model.node import NodeSettings
from earmark.core.model.refusal import Refusal
from earmark.core.model.request import Request
from earmark.core.model.units import MIB
from earmark.stores.contract import Store
from earmark.stores.memory import MemoryStore
from earmark.stores.sqlite.store import SqliteStore
from earmark.testing import UNRESERVED, Bench, bench

STORES = ("memory", "sqlite")
NODE_TWO = NodeId("00000000-0000-4000-8000-000000000002")


class Figures(NamedTuple):
    """What the claims of a node hold: shared vCPUs, CPUs of their own, MiB, bytes of the root disk."""

    vcpus: int
    pcpus: int
    memory_mib: int
    disk_bytes: int


def store_of(kind: str, folder: Path) -> Store:
    """Return an empty store of a kind."""
    return MemoryStore() if kind == "memory" else SqliteStore(folder / "ledger.db")


@contextmanager
def ground(kind: str, folder: Path, shape: str, settings: NodeSettings = UNRESERVED, *, check: bool = True) -> Iterator[Bench]:
    """Give a tracker on a machine over a store, audited at the end, and close the store."""
    store = store_of(kind, folder)
    try:
        with bench(shape, settings=settings, store=store, check=check) as world:
            yield world
    finally:
        store.close()


def granted(result: Answer | Refusal) -> Claim:
    """Return the claim of an answer that must be a yes."""
    assert isinstance(result, Answer), result
    assert result.claim is not None
    return result.claim


def refused(result: Answer | Refusal) -> Refusal:
    """Return a refusal, which the result must be."""
    assert isinstance(result, Refusal), result
    return result


def figures(world: Bench, node: str | None = None) -> Figures:
    """Return what the claims of a node hold."""
    free = world.tracker.node(node).free
    base = sum(count * 4 * 1024 for pool, count in free.used.items() if pool.startswith("pages:") and pool.endswith(":4"))
    shared = sum(count for pool, count in free.used.items() if pool == VCPU or pool.startswith("vcpu:"))
    return Figures(shared, free.taken_cpus.bit_count(), (free.used.get(MEMORY, 0) + base) // MIB, sum_of_disk(world, node))


def sum_of_disk(world: Bench, node: str | None = None) -> int:
    """Return the bytes of the root disk that are given."""
    return sum(count for pool, count in world.tracker.node(node).free.used.items() if pool == "disk:root")


def own(count: int, memory_mib: int = 0) -> Request:
    """Return a request for CPUs of one's own."""
    return Request(vcpus=count, cpu_policy="dedicated", memory_bytes=memory_mib * MIB)


def shared(count: int, memory_mib: int = 0, disk_bytes: int = 0) -> Request:
    """Return a request for shared vCPUs."""
    return Request(vcpus=count, memory_bytes=memory_mib * MIB, disk_bytes=disk_bytes)
