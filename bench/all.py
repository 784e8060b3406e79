"""All measurements, one after the other, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
BENCHES = ("fit_latency", "durable", "live_claims", "open_time", "memory", "command_line")


def main() -> int:
    """Run every bench; return how many failed."""
    failed = 0
    for name in BENCHES:
        failed += subprocess.run([sys.executable, str(HERE / f"{name}.py")], check=False).returncode != 0
    return failed


if __name__ == "__main__":
    sys.exit(main())
