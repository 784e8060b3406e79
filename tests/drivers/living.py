"""Real processes for the tests of those who watch them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

PRELUDE = """
import os, sys
from pathlib import Path
from msgspec.structs import replace
from earmark.drivers.processes import SystemProcesses
"""
AS_ROOT = os.geteuid() == 0
ANOTHER_BOOT = "00000000-0000-0000-0000-000000000000"


@contextmanager
def sleeper(**more: object) -> Iterator[subprocess.Popen[bytes]]:
    """Start a process that sleeps, and end it afterwards."""
    child = subprocess.Popen(["sleep", "60"], **more)  # type: ignore[call-overload]  # whatever Popen takes
    try:
        yield child
    finally:
        child.kill()
        child.wait()


def eventually(question: Callable[[], bool], timeout_s: float = 10.0) -> bool:
    """Ask until the answer is yes or the time is over."""
    until = time.monotonic() + timeout_s
    while not question():
        if time.monotonic() > until:
            return False
        time.sleep(0.005)
    return True


def in_program(program: str, *before: str) -> list[str]:
    """Run a program with another view of the system, and return the words that it prints; skip where the system forbids that."""
    done = subprocess.run([*before, sys.executable, "-c", PRELUDE + program], capture_output=True, text=True, timeout=60, check=False)
    if done.returncode != 0 and ("unshare:" in done.stderr or "NOT ALLOWED" in done.stderr):
        pytest.skip(f"this system does not let us make namespaces: {done.stderr.strip()[-200:]}")
    assert done.returncode == 0, done.stderr
    return done.stdout.split()
