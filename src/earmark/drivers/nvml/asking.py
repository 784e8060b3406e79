"""Asking NVML in a process of its own, with a bound: a driver that hangs or crashes takes nothing with it.

Rules of this file: each line is checked as it comes; what was told before the time was over counts. A process that cannot even be killed
(it hangs in the kernel) is left behind, never waited for.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
from contextlib import suppress

import msgspec

from earmark.clock import SystemClock
from earmark.drivers.nvml.facts import Failure, Gpu, Line, Seen

elapsed_s = SystemClock().monotonic_s
PROGRAM = "earmark.drivers.nvml.look"
TIMEOUT_S = 30.0
"""A driver without persistence initialises one GPU after the other, some seconds each."""
END_TIMEOUT_S = 1.0
OUTPUT_BYTES_MAX = 4 * 1024 * 1024
READ_BYTES = 64 * 1024
_line = msgspec.json.Decoder(Line)


def ask(timeout_s: float = TIMEOUT_S) -> Seen:
    """Return what NVML says of this machine's GPUs within a time; never raises for what NVML or its process does."""
    try:
        process = subprocess.Popen(  # noqa: S603 - this program's own module
            [sys.executable, "-P", "-m", PROGRAM], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, process_group=0
        )  # fmt: skip
    except (OSError, ValueError) as error:
        return Seen(cut=f"no process could be started: {error}")
    output = process.stdout
    if output is None:
        return Seen(cut="the process has no output")
    with output:
        said, cut = _said(output.fileno(), timeout_s)
    if cut is not None:
        process.kill()
    with suppress(subprocess.TimeoutExpired):
        status = process.wait(END_TIMEOUT_S)
        if cut is None and status != 0:
            cut = f"its process ended by signal {-status}" if status < 0 else f"its process ended with status {status}"
    return seen_in(said, cut)


def _said(descriptor: int, timeout_s: float) -> tuple[bytes, str | None]:
    """Return what a process writes until it closes its output, and why that was not waited for (None: it was)."""
    until_s = elapsed_s() + timeout_s
    said = bytearray()
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    while len(said) <= OUTPUT_BYTES_MAX:
        if not poll.poll(max(0.0, until_s - elapsed_s()) * 1000):
            return bytes(said), f"no end after {timeout_s:g} s"
        more = os.read(descriptor, READ_BYTES)
        if not more:
            return bytes(said), None
        said += more
    return bytes(said), f"more than {OUTPUT_BYTES_MAX} bytes"


def seen_in(said: bytes, cut: str | None) -> Seen:
    """Return what the lines of a process say; a line that is not understood ends them."""
    gpus: list[Gpu] = []
    count: int | None = None
    failure: Failure | None = None
    done = False
    for raw in said.splitlines(keepends=True):
        try:
            line = _line.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            cut = cut or f"a line that is not understood: {error}"
            break
        count = line.count if line.count is not None else count
        failure = line.failure or failure
        done = done or line.done
        if line.gpu is not None:
            gpus.append(line.gpu)
    if not done and failure is None:
        cut = cut or "it ended before its end"
    return Seen(gpus=tuple(gpus), count=count, failure=failure, cut=cut)
