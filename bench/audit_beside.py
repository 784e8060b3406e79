"""What a claim and its release cost while 1,000 instances on the same node are audited without a pause: aside, and in a thread, against idle."""

from __future__ import annotations

import os
import statistics
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from earmark.core.model.node import NodeSettings
from earmark.core.model.request import Request
from earmark.core.model.units import MIB
from earmark.stores.sqlite.store import SqliteStore
from earmark.testing import bench
from ground import claimed, microseconds, quick, report, spread

LIVE = 50 if quick() else 1_000
TIMES = 20 if quick() else 800
ROUNDS = 1 if quick() else 5
SETTINGS = NodeSettings(reserved_host_memory_bytes=0, reserved_host_disk_bytes=0, cpu_allocation_ratio=1_000_000)
WISH = Request(vcpus=1, memory_bytes=16 * MIB)


def beside(audit: Callable[[], object] | None, pair: Callable[[], object]) -> tuple[list[float], int]:
    """Return how long each pair took while a thread audits again and again, and how many audits were ended in that time."""
    stop, ended = threading.Event(), 0

    def work() -> None:
        nonlocal ended
        while audit is not None and not stop.is_set():
            audit()
            ended += 1

    thread = threading.Thread(target=work)
    thread.start()
    try:
        samples = microseconds(pair, TIMES)
    finally:
        stop.set()
        thread.join()
    return samples, ended


def main() -> None:
    """Measure and report, the three in turn."""
    with (
        tempfile.TemporaryDirectory(prefix="earmark-bench-") as name,
        SqliteStore(Path(name, "ledger.db")) as store,
        bench("2x64c 512G", store=store, settings=SETTINGS, check=False) as world,
    ):
        tracker = world.tracker

        def pair() -> None:
            claimed(tracker, WISH)

        for number in range(LIVE):
            tracker.hold(WISH, consumer=f"vm-{number}", confirm=True)
            tracker.create(f"vm-{number}")
        ways: dict[str, Callable[[], object] | None] = {
            "idle": None,
            "aside": lambda: tracker.audit(aside=True),
            "in_thread": tracker.audit,
        }
        microseconds(pair, TIMES // 4)
        taken: dict[str, list[list[float]]] = {way: [] for way in ways}
        audits: dict[str, int] = dict.fromkeys(ways, 0)
        for _ in range(ROUNDS):
            for way, audit in ways.items():
                samples, ended = beside(audit, pair)
                taken[way].append(samples)
                audits[way] += ended
    rows: list[dict[str, Any]] = []
    for way, rounds in taken.items():
        figures = [spread(samples) for samples in rounds]
        ratios = {
            key: round(statistics.median(figure[key] / spread(idle)[key] for figure, idle in zip(figures, taken["idle"], strict=True)), 2)
            for key in ("median", "p99")
        }
        everything = spread([sample for samples in rounds for sample in samples])
        rows.append({"audit": way, "claim_and_release_us": everything, "ratio_to_idle": ratios, "audits_ended": audits[way]})
    report("audit_beside", {"goal": "aside: median and p99 within 2 times idle, with a core left free", "cores": os.cpu_count(), "live": LIVE, "rows": rows})  # fmt: skip


if __name__ == "__main__":
    main()
