"""What all measurements share: where they ran, how a time is taken, how a result is written.

Rules of this file: a result is a ratio to a reference of the same run, next to the absolute figures; it names machine, commit and day.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from earmark.core.ledger.commands import Answer
from earmark.core.model.request import Request
from earmark.tracker.tracker import Tracker

RESULTS = Path(__file__).resolve().parent / "results"
ROOT = Path(__file__).resolve().parent.parent


def scene() -> dict[str, Any]:
    """Return the machine, the commit and the day of this run."""
    model = next(
        (line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")),
        platform.processor(),
    )
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False, cwd=ROOT).stdout.strip()
    return {
        "machine": f"{model}, {os.cpu_count()} CPUs",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "commit": commit or "unknown",
        "day": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def quick() -> bool:
    """Say whether this is only a try of the bench ("quick" on the command line): small, and its result is printed and not kept."""
    return "quick" in sys.argv[1:]


def spread(samples: list[float]) -> dict[str, float]:
    """Return median, 99th percentile and worst of some samples, rounded to a tenth of their unit."""
    ordered = sorted(samples)
    last = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    return {"median": round(statistics.median(ordered), 1), "p99": round(last, 1), "worst": round(ordered[-1], 1)}


def microseconds(step: Callable[[], object], times: int) -> list[float]:
    """Return how long each of some calls took, in microseconds."""
    samples = []
    for _ in range(times):
        start = time.perf_counter_ns()
        step()
        samples.append((time.perf_counter_ns() - start) / 1000)
    return samples


def claimed(tracker: Tracker, wish: Request, *, node: str | None = None) -> None:
    """Claim on a node (None: this one) and release; raises TypeError if the claim is refused."""
    answer = tracker.hold(wish, node=node, confirm=True)
    if not isinstance(answer, Answer) or answer.claim_id is None:
        raise TypeError(f"refused: {answer}")
    tracker.release(answer.claim_id)


def report(name: str, result: dict[str, Any]) -> None:
    """Print a result as one line of JSON and keep it as results/NAME.json."""
    whole = {"bench": name, **scene(), **result}
    if not quick():
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{name}.json").write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")
    sys.stdout.write(json.dumps(whole) + "\n")
