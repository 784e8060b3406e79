"""What one claim costs while 0, 100, 1,000 and 10,000 shared claims are live on the node: it should not matter (within 2 times)."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from earmark.core.model.node import NodeSettings
from earmark.core.model.request import Request
from earmark.core.model.units import MIB
from earmark.stores.sqlite.store import SqliteStore
from earmark.testing import bench
from ground import claimed, microseconds, quick, report, spread

LIVE = (0, 100) if quick() else (0, 100, 1_000, 10_000)
TIMES = 20 if quick() else 400
SETTINGS = NodeSettings(reserved_host_memory_bytes=0, reserved_host_disk_bytes=0, cpu_allocation_ratio=1_000_000)
WISH = Request(vcpus=1, memory_bytes=16 * MIB)


def main() -> None:
    """Measure and report."""
    rows: list[dict[str, Any]] = []
    with (
        tempfile.TemporaryDirectory(prefix="earmark-bench-") as name,
        SqliteStore(Path(name, "ledger.db")) as store,
        bench("2x64c 512G", store=store, settings=SETTINGS, check=False) as world,
    ):
        tracker = world.tracker

        def pair() -> None:
            claimed(tracker, WISH)

        alive = 0
        for live in LIVE:
            while alive < live:
                tracker.hold(WISH, confirm=True)
                alive += 1
            rows.append({"live": live, "claim_and_release_us": spread(microseconds(pair, TIMES))})
    base = rows[0]["claim_and_release_us"]["median"]
    for row in rows:
        row["ratio_to_empty"] = round(row["claim_and_release_us"]["median"] / base, 2)
    report("live_claims", {"goal": "every ratio within 2", "rows": rows})


if __name__ == "__main__":
    main()
