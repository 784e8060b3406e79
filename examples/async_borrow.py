"""Borrowing in asyncio: tasks share one tracker, and a cancelled task leaves nothing behind.

python examples/async_borrow.py        (works on a ledger in a scratch folder)
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import earmark
from earmark.errors import Refused

PATIENCE_S = 30.0
REQUEST = earmark.Request(vcpus=1, cpu_policy="dedicated")


async def job(tracker: earmark.Tracker, number: int) -> str:
    """Do some work on a CPU of its own; wait while there is none."""
    while True:
        try:
            async with tracker.aborrow(REQUEST, consumer=f"job-{number}") as claim:
                await asyncio.sleep(0.05)  # the work
                return f"job {number} ran on CPU {claim.cpuset}"
        except Refused:
            await asyncio.sleep(0.02)


async def main() -> None:
    """Run more jobs than there may be CPUs, then cancel one in the middle."""
    with tempfile.TemporaryDirectory(prefix="earmark-async-") as scratch, earmark.open(Path(scratch, "ledger.db"), private=True) as tracker:
        async with asyncio.timeout(PATIENCE_S):
            for line in await asyncio.gather(*(job(tracker, number) for number in range(4))):
                print(line)

            begun = asyncio.Event()

            async def endless() -> None:
                async with tracker.aborrow(REQUEST, consumer="endless"):
                    begun.set()
                    await asyncio.sleep(3600)

            task = asyncio.create_task(endless())
            await begun.wait()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        print(f"cancelled: {task.cancelled()}, claims that live: {len(tracker.node().claims)}, findings: {len(tracker.audit())}")


if __name__ == "__main__":
    asyncio.run(main())
