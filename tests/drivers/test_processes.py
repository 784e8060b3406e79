"""Who a process is, and the proofs that it is gone, with real processes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from msgspec.structs import replace
from tests.drivers.living import ANOTHER_BOOT, eventually, sleeper
from tests.drivers.roots import NOBODY

from earmark.drivers.processes import SystemProcesses
from earmark.errors import HostUnavailable


def descriptors() -> int:
    """Return how many descriptors this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


# --- identity and the proofs --------------------------------------------------------------------------------------------------------


def test_this_process_is_alive(processes: SystemProcesses) -> None:
    """A process identifies itself, and is the same at the second look."""
    me = processes.identify(os.getpid(), "runner")
    assert (me.pid, me.role, me.cgroup, me.session) == (os.getpid(), "runner", None, None)
    assert me.boot_id == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert me.pid_namespace == Path("/proc/self/ns/pid").stat().st_ino
    assert me == processes.identify(os.getpid(), "runner")
    assert processes.status(me) == "alive"


def test_a_child_lives_and_is_dead_when_reaped(processes: SystemProcesses) -> None:
    """No process of that number is a proof."""
    with sleeper() as child:
        holder = processes.identify(child.pid)
        assert processes.status(holder) == "alive"
        child.kill()
        child.wait()
        assert processes.status(holder) == "dead"
    with pytest.raises(HostUnavailable, match=f"process {child.pid} cannot be identified"):
        processes.identify(child.pid)


def test_a_zombie_is_dead_and_has_no_identity(processes: SystemProcesses) -> None:
    """A child that has ended and was not reaped holds nothing, though it still has its number."""
    with sleeper() as child:
        holder = processes.identify(child.pid)
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert Path(f"/proc/{child.pid}").exists()
        assert processes.status(holder) == "dead"
        with pytest.raises(HostUnavailable, match="it has ended"):
            processes.identify(child.pid)


THREAD_LIVES_ON = """
import ctypes, threading, time
threading.Thread(target=time.sleep, args=(60,)).start()
print("ready", flush=True)
ctypes.CDLL(None).pthread_exit(None)
"""


def test_a_dead_leader_whose_threads_live_on_is_alive(processes: SystemProcesses) -> None:
    """The first thread shows as a zombie while another one runs: the process uses its CPUs and is not dead."""
    with subprocess.Popen([sys.executable, "-c", THREAD_LIVES_ON], stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout is not None
            holder = processes.identify(child.pid)
            child.stdout.readline()
            assert eventually(lambda: ") Z " in Path(f"/proc/{child.pid}/stat").read_text())
            assert processes.status(holder) == "alive"
        finally:
            child.kill()
            child.wait()
        assert processes.status(holder) == "dead"


@pytest.mark.parametrize("ticks", [-1, 1, 10**9])
def test_a_number_that_another_process_bears_now(processes: SystemProcesses, ticks: int) -> None:
    """A living process with that number that began at another time is another one: the holder is dead."""
    with sleeper() as child:
        holder = processes.identify(child.pid)
        assert processes.status(replace(holder, start_ticks=holder.start_ticks + ticks)) == "dead"


def test_another_boot_is_a_proof(processes: SystemProcesses) -> None:
    """Nothing survives a reboot: even a number that lives now, in whatever namespace, with whatever cgroup."""
    me = processes.identify(os.getpid())
    gone = replace(me, boot_id=ANOTHER_BOOT, cgroup="/sys/fs/cgroup", session=os.getsid(0))
    assert processes.status(gone) == "dead"
    assert processes.status(replace(gone, pid_namespace=1)) == "dead"


def test_a_boot_that_nobody_knows_proves_nothing(processes: SystemProcesses) -> None:
    """A holder without a boot id is judged by its number and start alone."""
    me = replace(processes.identify(os.getpid()), boot_id="")
    assert processes.status(me) == "alive"
    assert processes.status(replace(me, start_ticks=0)) == "dead"


def test_a_foreign_namespace_is_unknown(processes: SystemProcesses) -> None:
    """Numbers of another pid namespace mean nothing here, whether they exist or not."""
    me = processes.identify(os.getpid())
    assert processes.status(replace(me, pid_namespace=me.pid_namespace + 1)) == "unknown"
    assert processes.status(replace(me, pid_namespace=me.pid_namespace + 1, pid=4_000_000)) == "unknown"


@pytest.mark.parametrize("pid", [4_194_305, 1 << 31, 1 << 80])
def test_a_number_that_no_process_can_have(processes: SystemProcesses, pid: int) -> None:
    """A hostile number is no error and no proof."""
    me = processes.identify(os.getpid())
    assert processes.status(replace(me, pid=pid)) == "unknown"
    with pytest.raises(HostUnavailable):
        processes.identify(pid)


def test_a_process_of_another_user(processes: SystemProcesses) -> None:
    """Without permission to signal it a process can still be seen, identified and watched: EPERM is not death."""
    seen = [asked_as_nobody(processes, os.getpid(), start) for start in (0, 1)]
    assert seen == ["alive", "dead"]


def asked_as_nobody(processes: SystemProcesses, pid: int, later: int) -> str:
    """Return what a process of another user says of one of ours, taken for one that began `later` ticks after it."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            become_nobody()
            holder = processes.identify(pid)
            os.write(writer, processes.status(replace(holder, start_ticks=holder.start_ticks + later)).encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    answer = os.read(reader, 100).decode()
    os.close(reader)
    return answer


def become_nobody() -> None:
    """Give up root's rights where there are any."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)


# --- waiting ------------------------------------------------------------------------------------------------------------------------


def test_waiting_ends_with_the_process(processes: SystemProcesses) -> None:
    """A wait ends soon after one of the processes ends, reaped or not."""
    with sleeper() as one, sleeper() as other:
        holders = [processes.identify(one.pid), processes.identify(other.pid)]
        assert not processes.wait(holders, 0.05)
        assert not processes.wait(holders, 0)
        timer = threading.Timer(0.1, other.kill)
        timer.start()
        began = time.monotonic()
        assert processes.wait(holders, 10)
        assert time.monotonic() - began < 5
        timer.join()


@pytest.mark.parametrize("change", [{"start_ticks": 1}, {"boot_id": ANOTHER_BOOT}, {"pid": 4_194_304}])
def test_waiting_for_the_dead_ends_at_once(processes: SystemProcesses, change: dict[str, int | str]) -> None:
    """A holder that is dead already is not waited for, though another process may bear its number."""
    me = processes.identify(os.getpid())
    assert processes.wait([me, replace(me, **change)], 10)


def test_waiting_for_strangers_ends_with_the_time(processes: SystemProcesses) -> None:
    """What cannot be watched is not called ended; nobody to wait for means waiting for the time."""
    me = processes.identify(os.getpid())
    assert not processes.wait([replace(me, pid_namespace=1)], 0.06)
    assert not processes.wait([], 0.01)
    assert not processes.wait([me], -1)


def test_no_descriptor_outlives_a_call(processes: SystemProcesses) -> None:
    """A thousand looks and waits leave no descriptor open."""
    with sleeper() as child:
        holder = processes.identify(child.pid)
        before = descriptors()
        for _ in range(250):
            processes.identify(child.pid)
            processes.status(holder)
            processes.status(replace(holder, start_ticks=1))
            processes.wait([holder], 0)
        assert descriptors() == before
