"""What `earmark run` undoes: on a world in a test's hand, each in a process of its own, since a command is forked from one thread only."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src"

WORLD = """
import json, os, signal, sys
from contextlib import nullcontext
from earmark.cli.main import cli
from earmark.cli.session import Session
from earmark.errors import HostUnavailable
from earmark.testing import GivenProcesses, bench

class Processes(GivenProcesses):
    def identify(self, pid, role="caller"):
        if pid != os.getpid():
            if MODE == "unseen":
                raise HostUnavailable(f"pid {pid} cannot be read", pid=pid)
            if MODE == "interrupted":
                os.kill(os.getpid(), signal.SIGINT)
        return super().identify(pid, role)

    def status(self, holder):
        if MODE == "hidden" and holder.pid != os.getpid():
            return "unknown"
        return super().status(holder)

MODE = sys.argv[1]
with bench("1x2c 4G") as world:
    world.tracker._leases._processes = Processes()
    try:
        cli.main(sys.argv[2:], obj=Session(opener=lambda session: nullcontext(world.tracker)))
    except SystemExit as end:
        code = end.code
    events = [event.type for _, _, event in world.tracker.events() if event.type.startswith("claim.")]
    print(json.dumps({"code": code, "events": events, "live": len(world.tracker.node().claims)}))
"""


def world(mode: str, *words: str) -> dict[str, object]:
    """Run the command line in a world of one mode and return how it ended and what the ledger says."""
    done = subprocess.run(
        [sys.executable, "-c", WORLD, mode, *words], env={**os.environ, "PYTHONPATH": str(SOURCE)}, capture_output=True, text=True, check=True,
        timeout=30,
    )  # fmt: skip
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize(("mode", "code"), [("unseen", 5), ("interrupted", 130)])
def test_what_fails_before_the_gate_is_undone(tmp_path: Path, mode: str, code: int) -> None:
    """If the child cannot be identified, or Ctrl-C comes in between, the claim is given up whole and the command has not run."""
    found = world(mode, "run", "--cpus", "1", "--", "touch", str(tmp_path / "ran"))
    assert found == {"code": code, "events": ["claim.held", "claim.ended"], "live": 0}
    assert not (tmp_path / "ran").exists()


def test_a_proc_that_hides_processes_leaves_nothing_behind() -> None:
    """Where /proc proves nothing, the keeper's word that it reaped everything ends the claim, and nothing goes to quarantine."""
    found = world("hidden", "run", "--cpus", "1", "--", "true")
    assert found == {"code": 0, "events": ["claim.held", "claim.confirmed", "claim.bound", "claim.ended"], "live": 0}


def test_the_straight_way_in_the_same_world() -> None:
    """With nothing in the way the same world sees a claim held, confirmed and ended, with the command's exit status."""
    found = world("plain", "run", "--cpus", "1", "--", "sh", "-c", "exit 6")
    assert found["code"] == 6
    assert found["live"] == 0
