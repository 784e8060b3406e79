"""The benches still run: a measurement that nobody can repeat is none. Their figures are not judged here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"
NAMES = sorted(path.stem for path in BENCH.glob("*.py") if path.stem not in {"all", "ground"})


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_a_bench_runs(name: str) -> None:
    """A short run of each bench ends well and prints its result with machine, commit and goal."""
    done = subprocess.run([sys.executable, str(BENCH / f"{name}.py"), "quick"], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert {"bench", "machine", "commit", "goal"} <= set(result)
    assert result["bench"] == name


def test_all_benches_are_in_the_report() -> None:
    """`make bench` leaves none out."""
    listed = subprocess.run(
        [sys.executable, "-c", "import all; print(*sorted(all.BENCHES))"], capture_output=True, text=True, check=True, cwd=BENCH
    )
    assert listed.stdout.split() == NAMES
