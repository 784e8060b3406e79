"""Processes seen through hidepid, from other namespaces, by other users: nothing unseen is called dead."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.drivers.living import AS_ROOT, PRELUDE, in_program
from tests.drivers.roots import NOBODY

from earmark.drivers.processes import SystemProcesses
from earmark.drivers.procfs import ProcFolder

# --- hidepid ---------------------------------------------------------------------------------------------------------------


HIDDEN = """
import subprocess
place = "{place}"
if subprocess.run(["mount", "-t", "proc", "-o", "hidepid={mode}", "proc", place]).returncode:
    sys.exit("NOT ALLOWED")
seen = SystemProcesses()
root_holder = seen.identify({pid})
os.setgroups([]); os.setgid({nobody}); os.setuid({nobody})
own = subprocess.Popen(["sh", "-c", "echo up; read line"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
own.stdout.readline()  # until its exec is over it still counts as one that changed its user, and is hidden
for pidfd in (True, False):
    hidden = SystemProcesses(Path(place), pidfd=pidfd)
    me = hidden.identify(os.getpid())
    answers = [hidden.status(root_holder), hidden.status(replace(root_holder, start_ticks=1)), hidden.status(me)]
    answers.append(hidden.status(hidden.identify(own.pid)))
    answers.append(hidden.status(replace(root_holder, pid=4194304)))
    answers.append(hidden.status(replace(root_holder, pid=4194304, session=4194304)))
    try:
        hidden.identify({pid})
    except Exception as error:
        answers.append(type(error).__name__)
    print(*answers)
own.kill(); own.wait()
"""


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Return a folder that every user can enter."""
    with tempfile.TemporaryDirectory(prefix="earmark-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.mark.skipif(not AS_ROOT, reason="only root can mount a /proc of its own")
@pytest.mark.parametrize("mode", [1, 2, 4])
def test_hidepid_hides_and_proves_nothing(open_folder: Path, mode: int) -> None:
    """Under hidepid another user's process is unknown, not dead; one that the kernel does not know is dead; a session cannot be proven empty."""
    program = HIDDEN.format(place=open_folder, pid=os.getpid(), nobody=NOBODY, mode=mode)
    words = in_program(program, "unshare", "-m", "--propagation", "private")
    assert words == ["unknown", "unknown", "alive", "alive", "dead", "unknown", "HostUnavailable"] * 2


ROOT_SEES_THROUGH = """
import subprocess
if subprocess.run(["mount", "-t", "proc", "-o", "hidepid=2", "proc", "{place}"]).returncode:
    sys.exit("NOT ALLOWED")
from earmark.drivers.procfs import ProcFolder
print(ProcFolder(Path("{place}")).shows_all(), ProcFolder(Path("/proc")).shows_all())
"""


@pytest.mark.skipif(not AS_ROOT, reason="only root can mount a /proc of its own")
def test_root_sees_through_hidepid(tmp_path: Path) -> None:
    """With CAP_SYS_PTRACE everything is shown, and a scan proves something again."""
    assert in_program(ROOT_SEES_THROUGH.format(place=tmp_path), "unshare", "-m", "--propagation", "private") == ["True", "True"]


NAMESPACE = """
import subprocess
inside = SystemProcesses()
me = inside.identify(os.getpid())
child = subprocess.Popen(["sleep", "60"])
born = inside.identify(child.pid)
outer = replace(me, pid_namespace={namespace}, pid={pid})
print(os.getpid(), me.pid_namespace != {namespace}, inside.status(me), inside.status(born), inside.status(outer))
child.kill(); child.wait()
print(inside.status(born), inside.status(replace(born, session=born.pid)))
"""


@pytest.mark.skipif(not AS_ROOT, reason="only root can make a pid namespace")
def test_a_pid_namespace_counts_for_itself() -> None:
    """Inside a pid namespace its own processes are proven alive and dead, and those of the outside are unknown."""
    program = NAMESPACE.format(namespace=Path("/proc/self/ns/pid").stat().st_ino, pid=os.getpid())
    words = in_program(program, "unshare", "-pf", "--mount-proc")
    assert words == ["1", "True", "alive", "alive", "unknown", "dead", "dead"]


FOREIGN_PROC = """
import subprocess
for pidfd in (True, False):
    inside = SystemProcesses(pidfd=pidfd)
    me = inside.identify(os.getpid())
    child = subprocess.Popen(["sleep", "60"])
    try:
        born = inside.identify(child.pid)
    except Exception as error:
        born = replace(me, pid=child.pid)
        print(type(error).__name__)
    print(inside.status(me), inside.status(born), inside.status(replace(born, start_ticks=1)), inside.status(replace(me, pid=4194304, session=1)))
    child.kill(); child.wait()
    print(inside.status(born))
"""


@pytest.mark.skipif(not AS_ROOT, reason="only root can make a pid namespace")
def test_a_proc_of_another_namespace_is_not_taken_for_ours() -> None:
    """Where /proc still shows the outer numbers, a pidfd finds the right ones; without it others are unknown, and no number is mistaken."""
    words = in_program(FOREIGN_PROC, "unshare", "-pf")
    assert words[:5] == ["alive", "alive", "dead", "unknown", "dead"]
    assert words[5:] == ["HostUnavailable", "alive", "unknown", "unknown", "unknown", "dead"]


def test_no_descriptors_left_is_no_death() -> None:
    """With no descriptor to be had a living process is not called dead."""
    program = """
import resource
processes = SystemProcesses()
me = processes.identify(os.getpid())
resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
print(processes.status(me), processes.status(replace(me, pid=os.getppid(), session=1)))
"""
    assert in_program(program) == ["unknown", "unknown"]


# --- what /proc shows ---------------------------------------------------------------------------------------------------------------


def made_up(tmp_path: Path, status: str, offsets: str = "") -> ProcFolder:
    """Make a folder that looks like a /proc with a `self`."""
    (tmp_path / "self").mkdir()
    (tmp_path / "self/status").write_text(status)
    (tmp_path / "self/timens_offsets").write_text(offsets)
    return ProcFolder(tmp_path)


@pytest.mark.parametrize(("status", "ours"), [("NSpid:\t7\n", True), ("NSpid:\t812\t7\n", False), ("Name:\tx\n", False)])
def test_whose_numbers_a_proc_shows(tmp_path: Path, status: str, ours: bool) -> None:
    """A /proc whose numbers for us have more than one level belongs to a namespace above ours."""
    assert made_up(tmp_path, status).view.ours is ours


@pytest.mark.parametrize(
    ("offsets", "ns"), [("", 0), ("monotonic 5 0\nboottime  86400  500000000\n", 86_400_500_000_000), ("boottime x 1\n", 0)]
)
def test_the_shift_of_a_time_namespace(tmp_path: Path, offsets: str, ns: int) -> None:
    """Start times in a time namespace are shifted by its boottime offset."""
    assert made_up(tmp_path, "", offsets).view.offset_ns == ns


TIME_NAMESPACE = """
for line in sys.stdin:
    pid, boot, namespace, ticks = line.split()
    from earmark.core.model.claim import Holder
    holder = Holder(boot_id=boot, pid_namespace=int(namespace), pid=int(pid), start_ticks=int(ticks))
    inside = SystemProcesses()
    print(inside.status(holder), inside.status(replace(holder, start_ticks=int(ticks) + 5)), inside.identify(int(pid)) == holder)
"""


@pytest.mark.skipif(not AS_ROOT, reason="only root can make a time namespace")
def test_a_time_namespace_does_not_kill(processes: SystemProcesses) -> None:
    """A process seen from a time namespace, where its start reads later, is still the same process."""
    me = processes.identify(os.getpid())
    done = subprocess.run(
        ["unshare", "-T", "--boottime", "100000", sys.executable, "-c", PRELUDE + TIME_NAMESPACE],
        input=f"{me.pid} {me.boot_id} {me.pid_namespace} {me.start_ticks}\n", capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    if "unshare" in done.stderr:
        pytest.skip(f"no time namespaces here: {done.stderr.strip()[-200:]}")
    assert done.stdout.split() == ["alive", "dead", "True"], done.stderr
