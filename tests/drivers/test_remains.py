"""What a process leaves behind: its session and its cgroup, with real processes and real cgroups."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
from msgspec.structs import replace
from tests.drivers.living import eventually, sleeper

from earmark.drivers.processes import SystemProcesses

V1_GROUP = Path("/sys/fs/cgroup/cpuset")
V2_GROUPS = [Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified")]


class Runner(NamedTuple):
    """A process in a session of its own, which leaves a grandchild there."""

    process: subprocess.Popen[str]
    grandchild: int


LEAVES_A_GRANDCHILD = """
import os, subprocess, sys
child = os.fork()
if child == 0:
    grandchild = subprocess.Popen(["sleep", "60"], stdout=subprocess.DEVNULL, start_new_session=len(sys.argv) > 1)
    print(grandchild.pid, flush=True)
    os._exit(0)
os.waitpid(child, 0)
sys.stdin.readline()
"""


@pytest.fixture
def runner() -> Iterator[Runner]:
    """Start a session leader whose child forked once more and ended."""
    process = subprocess.Popen(
        [sys.executable, "-c", LEAVES_A_GRANDCHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    grandchild = int(process.stdout.readline())
    try:
        yield Runner(process, grandchild)
    finally:
        process.kill()
        process.communicate()
        if eventually(lambda: Path(f"/proc/{grandchild}").exists(), 0.01):
            os.kill(grandchild, signal.SIGKILL)


def test_a_grandchild_keeps_the_session(processes: SystemProcesses, runner: Runner) -> None:
    """After the leader's death a double-forked grandchild keeps the holder alive until it ends too."""
    holder = replace(processes.identify(runner.process.pid), session=runner.process.pid)
    assert processes.status(holder) == "alive"
    runner.process.kill()
    runner.process.wait()
    assert processes.status(replace(holder, session=None)) == "dead"
    assert processes.status(holder) == "alive"
    os.kill(runner.grandchild, signal.SIGKILL)
    assert eventually(lambda: processes.status(holder) == "dead")


def test_a_session_whose_number_was_given_anew(processes: SystemProcesses) -> None:
    """A number in use by a process that began at another time was free before, so the old session is empty."""
    with sleeper(start_new_session=True) as child:
        holder = processes.identify(child.pid)
        old = replace(holder, session=child.pid, start_ticks=holder.start_ticks - 1)
        assert processes.status(old) == "dead"
        assert processes.status(replace(old, session=os.getsid(0))) == "alive"


def test_descendants_are_found(processes: SystemProcesses, runner: Runner) -> None:
    """All living processes below one are listed; the orphaned grandchild belongs to whoever reaps it."""
    assert runner.process.pid in processes.descendants(os.getpid())
    assert processes.descendants(runner.grandchild) == ()


def writable_group(folder: Path) -> bool:
    """Say whether cgroups can be made in a folder."""
    return (folder / "cgroup.procs").exists() and os.access(folder, os.W_OK)


GROUPS = [folder for folder in (V1_GROUP, *V2_GROUPS) if writable_group(folder)]


@pytest.fixture(params=[*map(str, GROUPS)] or [""], ids=str)
def group(request: pytest.FixtureRequest) -> Iterator[Path]:
    """Make a cgroup with a nested one in it, in each hierarchy that is writable here."""
    if not request.param:
        pytest.skip("no writable cgroup hierarchy here")
    outer = Path(request.param, f"earmark-test-{os.getpid()}")
    inner = outer / "inner"
    try:
        inner.mkdir(parents=True)
    except OSError as error:
        pytest.skip(f"{outer}: {error}")
    for folder in (outer, inner):
        for name in ("cpuset.cpus", "cpuset.mems"):
            if (folder / name).exists():
                (folder / name).write_text((folder.parent / name).read_text())
    yield outer
    for folder in (inner, outer):
        if folder.exists():
            assert eventually(partial(gone, folder))


def gone(folder: Path) -> bool:
    """Try to remove a cgroup."""
    try:
        folder.rmdir()
    except OSError:
        return False
    return True


def test_a_nested_cgroup_keeps_the_holder(processes: SystemProcesses, group: Path) -> None:
    """With the process gone, one in a nested cgroup keeps the holder alive; empty groups and removed ones are a proof."""
    with sleeper() as child:
        holder = replace(processes.identify(child.pid), cgroup=str(group))
    assert processes.status(holder) == "dead"
    with sleeper() as other:
        (group / "inner/cgroup.procs").write_text(str(other.pid))
        assert processes.status(holder) == "alive"
    assert eventually(lambda: processes.status(holder) == "dead")
    (group / "inner").rmdir()
    group.rmdir()
    assert processes.status(holder) == "dead"


@pytest.mark.parametrize("path", ["earmark", "/nowhere/at/all", "/etc", "/sys/fs/cgroup/../cgroup/x", "/etc/hostname", "/proc/1/x\0y"])
def test_a_cgroup_that_cannot_be_seen_is_unknown(processes: SystemProcesses, path: str) -> None:
    """A folder that is no cgroup, or is gone where no cgroup file system can be seen, proves nothing."""
    with sleeper() as child:
        holder = processes.identify(child.pid)
    assert processes.status(replace(holder, cgroup=path)) == "unknown"


def test_an_unreadable_cgroup_is_unknown(tmp_path: Path, processes: SystemProcesses) -> None:
    """A list of processes that cannot be read may hold anybody."""
    with sleeper() as child:
        holder = replace(processes.identify(child.pid), cgroup=str(tmp_path))
    (tmp_path / "cgroup.procs").mkdir()
    assert processes.status(holder) == "unknown"
