"""Durable claims and releases a second, with 1, 4, 16 and 64 clients, as a ratio to apsw writing the same rows.

The reference does what the ledger does to the disk and nothing else: the same statements with rows of the same sizes, one transaction for all
that wait (group commit), no decision, no encoding, no hashing. Both run in turn, several rounds, on the same disk.
"""

from __future__ import annotations

import statistics
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import apsw

from earmark.core.model.request import Request
from earmark.core.model.units import GIB
from earmark.stores.sqlite import transaction as sql
from earmark.stores.sqlite.store import SqliteStore
from earmark.testing import bench
from ground import claimed, quick, report

CLIENTS = (1, 4, 16, 64)
ROUNDS = 1 if quick() else 3
SECONDS = 0.1 if quick() else 2.0
WISH = Request(vcpus=1, cpu_policy="dedicated", memory_bytes=GIB)
MACHINE = "2x64c 512G"


def rate(pair: Callable[[int], None], clients: int) -> float:
    """Return claim+release pairs a second that some threads get through in SECONDS."""
    counts = [0] * clients
    stop = threading.Event()

    def work(client: int) -> None:
        while not stop.is_set():
            pair(client)
            counts[client] += 1

    threads = [threading.Thread(target=work, args=(client,)) for client in range(clients)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    time.sleep(SECONDS)
    stop.set()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - start)


def earmark_rate(folder: Path, clients: int) -> tuple[float, list[int]]:
    """Return Earmark's pairs a second, and the sizes of the rows of one pair."""
    with SqliteStore(folder / "ledger.db") as store, bench(MACHINE, store=store, check=False) as world:
        tracker = world.tracker

        def pair(_client: int) -> None:
            claimed(tracker, WISH)

        before = store.last_position()
        pair(0)
        sizes = [len(stored.raw) for stored in store.follow(before)]
        return rate(pair, clients), sizes


class Bare:
    """The same rows with nothing but apsw: one connection, one queue, one commit for all that wait."""

    def __init__(self, folder: Path, sizes: list[int]) -> None:
        with SqliteStore(folder / "bare.db"):
            pass
        self._connection = apsw.Connection(str(folder / "bare.db"))
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute(sql.NEW_STREAM, ("node:bare",))
        self._position = 0
        self._sizes = sizes
        self._guard = threading.Lock()
        self._queue: deque[tuple[str, str, threading.Event]] = deque()
        self._leading = False

    def pair(self, client: int) -> None:
        """Write the rows of a claim, then those of its release."""
        claim = f"c-{client:04x}{time.perf_counter_ns():x}"
        self._submit("hold", claim)
        self._submit("end", claim)

    def _submit(self, kind: str, claim: str) -> None:
        done = threading.Event()
        with self._guard:
            self._queue.append((kind, claim, done))
            lead, self._leading = not self._leading, True
        if not lead:
            done.wait()
            return
        while True:
            with self._guard:
                group = list(self._queue)
                self._queue.clear()
                if not group:
                    self._leading = False
                    return
            self._connection.execute("BEGIN IMMEDIATE")
            for step, name, _ in group:
                self._write(step, name)
            self._connection.execute("COMMIT")
            for _, _, each in group:
                each.set()

    def _write(self, kind: str, claim: str) -> None:
        execute = self._connection.execute
        for size in self._sizes[:2] if kind == "hold" else self._sizes[2:]:
            self._position += 1
            execute(sql.NEW_EVENT, (self._position, 1, self._position, 1, 1, bytes(32), bytes(size)))
        if kind == "hold":
            execute(sql.NEW_CLAIM, (claim, 1, claim, "main"))
            execute(sql.NEW_SLOT, (1, "cpu:" + claim, claim, "cpu:1"))
        else:
            execute(sql.CLOSE_CLAIM, ("released", claim, 1))
            execute(sql.FREE_CLAIM, (claim,))

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


def main() -> None:
    """Measure and report."""
    rows = []
    for clients in CLIENTS:
        ours, bares = [], []
        for _ in range(ROUNDS):
            with tempfile.TemporaryDirectory(prefix="earmark-bench-") as name:
                mine, sizes = earmark_rate(Path(name), clients)
                bare = Bare(Path(name), sizes)
                bares.append(rate(bare.pair, clients))
                bare.close()
                ours.append(mine)
        ratio = statistics.median(one / other for one, other in zip(ours, bares, strict=True))
        rows.append(
            {
                "clients": clients,
                "earmark_pairs_per_s": round(statistics.median(ours)),
                "bare_pairs_per_s": round(statistics.median(bares)),
                "ratio": round(ratio, 3),
            }
        )
    report("durable", {"goal": "ratio 0.5 with 1 client, 0.25 with 64", "rows": rows})


if __name__ == "__main__":
    main()
