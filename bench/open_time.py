"""How long a ledger of a million events takes to open and to be read, next to reading a page of the same file with apsw alone."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import apsw

from earmark.core.ledger.codec import Batch, Stamp
from earmark.core.ledger.commands import Answer
from earmark.core.ledger.events import ClaimBound, Event
from earmark.core.model.ids import node_stream
from earmark.core.model.request import Request
from earmark.stores.sqlite.store import SqliteStore
from earmark.testing import NODE_ONE, GivenClock, GivenHost, GivenProcesses, bench, machine, on
from ground import quick, report

EVENTS = 12_000 if quick() else 1_000_000
PER_COMMIT = 5_000
LIVE = 64


def fill(path: Path) -> int:
    """Make a ledger of EVENTS events that a tracker wrote or could have written; return its size in bytes."""
    with SqliteStore(path) as store, bench("2x64c 512G", store=store, check=False) as world:
        tracker = world.tracker
        claims = [answer for _ in range(LIVE) if isinstance(answer := tracker.hold(Request(vcpus=1), confirm=True), Answer)]
        first = claims[0].claim_id
        if first is None:
            raise TypeError("the first claim was refused")
        stream = node_stream(NODE_ONE)
        sides = [(world.processes.identify(1),), (world.processes.identify(2),)]
        count = store.head(stream).sequence
        while count < EVENTS - PER_COMMIT:
            events: list[Event] = [ClaimBound(claim=first, holders=sides[number % 2]) for number in range(PER_COMMIT)]
            stamp = Stamp(actor="bench", command="fill", now_ms=world.clock.now_ms())
            with store.transaction(purpose="fill") as tx:
                tx.append([Batch(stream, count, events)], stamp)
            count += PER_COMMIT
            tracker.bind(first, [world.processes.identify(3 + count % 5)])
            count = store.head(stream).sequence
    return path.stat().st_size


def main() -> None:
    """Measure and report."""
    with tempfile.TemporaryDirectory(prefix="earmark-bench-") as name:
        path = Path(name, "ledger.db")
        size = fill(path)
        ours, bares = [], []
        sequence = 0
        for _ in range(5):
            start = time.perf_counter()
            with SqliteStore(path) as store:
                made = on(store, GivenHost(machine("2x64c 512G")), GivenClock(), GivenProcesses())
                sequence = made.tracker.node().sequence
            ours.append(time.perf_counter() - start)
            start = time.perf_counter()
            connection = apsw.Connection(str(path))
            connection.execute("SELECT raw FROM events ORDER BY position DESC LIMIT 1").fetchall()
            connection.close()
            bares.append(time.perf_counter() - start)
    report(
        "open_time",
        {
            "goal": "about a second", "events": sequence, "file_bytes": size,
            "open_s": round(statistics.median(ours), 3), "bare_open_s": round(statistics.median(bares), 4),
        },
    )  # fmt: skip


if __name__ == "__main__":
    main()
