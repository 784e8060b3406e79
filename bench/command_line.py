"""How long `earmark claim` takes as a whole program, as a ratio to `python3 -c pass`; the goal is under 10 times."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ground import quick, report

RUNS = 2 if quick() else 25
EARMARK = str(Path(sys.executable).with_name("earmark"))


def seconds(command: list[str], environment: dict[str, str]) -> float:
    """Return the wall time of one run; raises CalledProcessError if it fails."""
    start = time.perf_counter()
    subprocess.run(command, env=environment, check=True, capture_output=True)
    return time.perf_counter() - start


def main() -> None:
    """Measure and report, the two commands in turn."""
    with tempfile.TemporaryDirectory(prefix="earmark-bench-") as name:
        inherited = {
            key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"
        }  # an installed program has its bytecode
        environment = {**inherited, "EARMARK_LEDGER": str(Path(name, "ledger.db")), "EARMARK_MACHINE_ROOT": name}
        claim = [EARMARK, "claim", "--mem", "1MiB", "--ttl", "1h"]
        seconds(claim, environment)
        ours, bare = [], []
        for _ in range(RUNS):
            bare.append(seconds([sys.executable, "-c", "pass"], environment))
            ours.append(seconds(claim, environment))
    ratios = [one / other for one, other in zip(ours, bare, strict=True)]
    report(
        "command_line",
        {
            "goal": "median ratio under 10", "earmark_claim_ms": round(statistics.median(ours) * 1000, 1),
            "python_pass_ms": round(statistics.median(bare) * 1000, 1), "ratio": round(statistics.median(ratios), 2),
        },
    )  # fmt: skip


if __name__ == "__main__":
    main()
