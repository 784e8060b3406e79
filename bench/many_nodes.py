"""Claims a second against the number of nodes in one ledger (1 to 1,000), one process, 1 and 8 threads; and what an idle node weighs."""

from __future__ import annotations

import gc
import itertools
import statistics
import tempfile
import threading
import time
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from earmark.core.model.request import Request
from earmark.core.model.units import MIB
from earmark.stores.sqlite.store import SqliteStore
from earmark.testing import UNRESERVED, Bench, bench, machine
from ground import claimed, quick, report

NODES = (1, 5) if quick() else (1, 10, 100, 1_000)
THREADS = (1, 2) if quick() else (1, 8)
ROUNDS = 1 if quick() else 5
PAIRS = 24 if quick() else 600
SHAPE = "2x8c 64G"
WISH = Request(vcpus=1, cpu_policy="dedicated", memory_bytes=MIB)


def grown(world: Bench, names: Sequence[str], count: int) -> list[str]:
    """Return the names of so many nodes, entering those that are missing."""
    seen = machine(SHAPE)
    entered = [
        str(world.tracker.register(f"bench-{number}", machine=seen, settings=UNRESERVED).node) for number in range(len(names), count)
    ]
    return [*names, *entered]


def pair(world: Bench, node: str) -> None:
    """Claim on a node, and release."""
    claimed(world.tracker, WISH, node=node)


def rate(world: Bench, names: Sequence[str], threads: int) -> float:
    """Return pairs of claim and release a second, node after node."""
    turn = itertools.cycle(names)
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(PAIRS // threads):
                pair(world, next(turn))
        except BaseException as error:
            failures.append(error)
            raise

    crew = [threading.Thread(target=work) for _ in range(threads)]
    start = time.perf_counter()
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join()
    if failures:
        raise failures[0]
    return PAIRS / (time.perf_counter() - start)


def node_bytes(world: Bench, names: Sequence[str]) -> int:
    """Return how many bytes the state of one idle node takes, as a newly opened program holds it."""
    other = world.reopened()
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for name in names:
        other.tracker.node(name)
    gc.collect()
    taken = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    return round(taken / len(names))


def main() -> None:
    """Measure and report: in each round all numbers of nodes and threads in turn, against one node of the same round."""
    with (
        tempfile.TemporaryDirectory(prefix="earmark-bench-") as name,
        SqliteStore(Path(name, "ledger.db")) as store,
        bench(SHAPE, store=store, check=False) as world,
    ):
        names = grown(world, [], NODES[-1])
        for each in names:
            world.tracker.node(each)
        rates: dict[tuple[int, int], list[float]] = {(nodes, threads): [] for nodes in NODES for threads in THREADS}
        for _ in range(ROUNDS):
            for (nodes, threads), found in rates.items():
                found.append(rate(world, names[:nodes], threads))
        rows: list[dict[str, Any]] = []
        for (nodes, threads), found in rates.items():
            one = rates[1, threads]
            ratio = statistics.median(mine / other for mine, other in zip(found, one, strict=True))
            rows.append(
                {"nodes": nodes, "threads": threads, "pairs_per_s": round(statistics.median(found)), "ratio_to_one_node": round(ratio, 2)}
            )
        report(
            "many_nodes",
            {
                "goal": "claims on 1,000 nodes at the rate of one (ratio 0.75 or more)", "bytes_per_idle_node": node_bytes(world, names),
                "rows": rows,
            },
        )  # fmt: skip


if __name__ == "__main__":
    main()
