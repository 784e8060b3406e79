"""What this process may use: affinity and cgroups, on made-up trees and on the running kernel."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.drivers.living import in_program
from tests.drivers.roots import Root, two_sockets

from earmark.drivers.sysfs.disk import _wholes, read_disks
from earmark.drivers.sysfs.observe import SysfsDriver
from earmark.drivers.sysfs.tree import Tree
from earmark.drivers.sysfs.usable import Limits, read_limits

V2 = "30 20 0:30 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate"
V1 = (
    "31 20 0:31 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"
    "32 20 0:32 / /sys/fs/cgroup/memory rw shared:9 - cgroup cgroup rw,memory\n"
    "33 20 0:33 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd"
)


def limits(root: Root, affinity: frozenset[int] | None = None) -> Limits:
    """Return the limits that a tree shows."""
    return read_limits(Tree(root.path), affinity)


def test_version_two_takes_the_tightest_of_all_ancestors(root: Root) -> None:
    """memory.max of the smallest ancestor counts, and the nearest effective cpuset."""
    root.write("proc/self/cgroup", "0::/a/b/c").write("proc/self/mountinfo", V2)
    root.write("sys/fs/cgroup/cpuset.cpus.effective", "0-7").write("sys/fs/cgroup/a/cpuset.cpus.effective", "2-5")
    root.write("sys/fs/cgroup/a/memory.max", "1073741824").write("sys/fs/cgroup/a/b/memory.max", "max").write(
        "sys/fs/cgroup/a/b/c/memory.max", "2147483648"
    )
    assert limits(root) == Limits((2, 3, 4, 5), 1 << 30)
    assert limits(root, frozenset({0, 4, 5, 9})) == Limits((4, 5), 1 << 30)


def test_version_one_has_a_hierarchy_for_each(root: Root) -> None:
    """The cpuset and memory lie in their own hierarchies; the number that means "no limit" is none."""
    root.write("proc/self/cgroup", "4:memory:/x/y\n3:cpuset:/p\n1:name=systemd:/z\n0::/").write("proc/self/mountinfo", V1)
    root.write("sys/fs/cgroup/cpuset/p/cpuset.effective_cpus", "1").write("sys/fs/cgroup/cpuset/p/cpuset.cpus", "1-3")
    root.write("sys/fs/cgroup/memory/x/y/memory.limit_in_bytes", "9223372036854771712").write(
        "sys/fs/cgroup/memory/x/memory.limit_in_bytes", "4096"
    )
    assert limits(root) == Limits((1,), 4096)


def test_a_container_sees_its_own_part_of_the_hierarchy(root: Root) -> None:
    """Where a folder of the hierarchy is mounted (no cgroup namespace), the process's path is taken relative to it."""
    root.write("proc/self/cgroup", "3:cpuset:/docker/abc/sub").write(
        "proc/self/mountinfo", "31 20 0:31 /docker/abc /sys/fs/cgroup/cpuset ro - cgroup cgroup rw,cpuset"
    )
    root.write("sys/fs/cgroup/cpuset/cpuset.cpus", "0-3").write("sys/fs/cgroup/cpuset/sub/cpuset.cpus", "2")
    assert limits(root).cpus == (2,)


@pytest.mark.parametrize("path", ["/../../other", "/elsewhere"])
def test_a_cgroup_outside_of_the_mount_is_said(root: Root, path: str) -> None:
    """A path outside of what is mounted leaves only the mount point to look at, and that is said."""
    root.write("proc/self/cgroup", f"0::{path}").write("proc/self/mountinfo", V2.replace(" / /sys", " /mine /sys"))
    root.write("sys/fs/cgroup/memory.max", "8192")
    tree = Tree(root.path)
    assert read_limits(tree) == Limits(None, 8192)
    assert "lies outside of what is mounted at /sys/fs/cgroup" in tree.notes[0]


@pytest.mark.parametrize(
    ("cgroup", "mounts", "notes"),
    [
        ("", "", 0),
        ("0::/a", "", 0),
        ("no lines\n0:x", V2, 2),
        ("0::/a", "garbage - cgroup2\n - \n1 2 3 4", 0),
        ("0::/" + "d/" * 500, V2, 0),
    ],
)
def test_no_limits_where_nothing_says_any(root: Root, cgroup: str, mounts: str, notes: int) -> None:
    """Missing, foreign or endless tables limit nothing and raise nothing."""
    tree = Tree(root.write("proc/self/cgroup", cgroup).write("proc/self/mountinfo", mounts).path)
    assert read_limits(tree) == Limits()
    assert len(tree.notes) == notes


def test_limits_that_cannot_be_understood_are_said(root: Root) -> None:
    """A limit that is no number limits nothing and is noted."""
    root.write("proc/self/cgroup", "0::/").write("proc/self/mountinfo", V2).write("sys/fs/cgroup/memory.max", "plenty")
    tree = Tree(root.write("sys/fs/cgroup/cpuset.cpus.effective", "x").path)
    assert read_limits(tree) == Limits()
    assert [note.split(":")[0] for note in tree.notes] == ["/sys/fs/cgroup/cpuset.cpus.effective", "/sys/fs/cgroup/memory.max"]


def test_mount_points_with_spaces(root: Root) -> None:
    """Octal escapes of mountinfo are undone."""
    root.write("proc/self/cgroup", "0::/").write("proc/self/mountinfo", V2.replace("/sys/fs/cgroup", "/sys/fs/c\\040g"))
    assert limits(root.write("sys/fs/c g/memory.max", "1")).memory_bytes == 1


def test_a_recorded_root_has_no_limits_of_ours(root: Root) -> None:
    """The limits of the running process say nothing about another root, nor do its disks, page size or architecture."""
    observation = SysfsDriver(two_sockets(root).path, disks=(("root", "/"),)).observe()
    assert (observation.machine.usable_cpus, observation.machine.memory_limit_bytes, observation.machine.disks) == (None, None, ())
    assert not any(trait.startswith("HW_ARCH") for trait in observation.machine.traits)


USABLE = (
    "from earmark.drivers.sysfs.observe import SysfsDriver as D; m = D({}).observe().machine; print(m.usable_cpus, m.memory_limit_bytes)"
)


def look(arguments: str = "", *, prepare: str = "") -> str:
    """Return what a fresh process sees of its limits after some preparation."""
    program = f"import os; {prepare}\nfrom pathlib import Path\n{USABLE.format(arguments)}"
    return subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60).stdout.strip()


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one CPU only")
def test_the_affinity_of_this_process_counts() -> None:
    """A process bound to one CPU may use that one; asked to ignore limits, it sees the whole machine."""
    first = min(os.sched_getaffinity(0))
    assert look(prepare=f"os.sched_setaffinity(0, {{{first}}})").startswith(f"({first},) ")
    assert look("use_process_limits=False", prepare=f"os.sched_setaffinity(0, {{{first}}})") == "None None"


@pytest.mark.skipif(not os.access("/sys/fs/cgroup/memory/cgroup.procs", os.W_OK), reason="no writable cgroup v1 of memory")
def test_the_memory_limit_of_a_real_cgroup_counts() -> None:
    """A process in a cgroup with a limit sees it, and the limit of the group above when that is tighter."""
    outer = Path(f"/sys/fs/cgroup/memory/earmark-test-{os.getpid()}")
    inner = outer / "inner"
    inner.mkdir(parents=True)
    try:
        (outer / "memory.limit_in_bytes").write_text(str(256 << 20))
        enter = f"open('{inner}/cgroup.procs', 'w').write(str(os.getpid()))"
        assert look(prepare=enter).endswith(f" {256 << 20}")
    finally:
        inner.rmdir()
        outer.rmdir()


def test_disks_of_this_host(tmp_path: Path) -> None:
    """Configured paths are measured in bytes, a file system named twice counts once, and a path that is not there is said."""
    tree = Tree()
    disks = read_disks(tree, (("work", str(tmp_path)), ("again", str(tmp_path)), ("gone", f"{tmp_path}/gone"), ("odd", "a\0b")))
    assert [disk.name for disk in disks] == ["work"]
    assert disks[0].total_bytes >= (disks[0].free_bytes or 0) > 0
    assert "shares its space with disk work" in tree.notes[0]
    assert "No such file" in tree.notes[1]
    assert len(tree.notes) == 3


def test_parts_of_one_pool_are_one_space(root: Root) -> None:
    """Subvolumes of one btrfs and data sets of one ZFS pool have numbers of their own and one space."""
    root.write(
        "proc/self/mountinfo",
        "30 1 0:31 /a /a rw - btrfs /dev/sda1 rw\n31 1 0:32 /b /b rw - btrfs /dev/sda1 rw\n"
        "32 1 0:33 / /c rw - zfs tank/c rw\n33 1 0:34 / /d rw - zfs tank/d/e rw\n34 1 8:1 / / rw - ext4 /dev/sda2 rw\n - x",
    )
    assert _wholes(Tree(root.path)) == {
        "0:31": ("btrfs", "/dev/sda1"), "0:32": ("btrfs", "/dev/sda1"), "0:33": ("zfs", "tank"), "0:34": ("zfs", "tank")
    }  # fmt: skip


BARE = """
import subprocess
from earmark.drivers.sysfs.discovery import discovery_json
from earmark.drivers.sysfs.observe import SysfsDriver
if any(subprocess.run(["mount", "-t", "tmpfs", "none", place]).returncode for place in ("/sys", "/proc/driver")):
    sys.exit("NOT ALLOWED")
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
os.setgroups([]); os.setgid(65534); os.setuid(65534)
seen = SysfsDriver(disks=(("root", "/"),)).observe()
shown = discovery_json(seen)
print(len(shown["usable"]), len(shown["cells"]), shown["cells"][0]["memory_bytes"] > 0, len(shown["disks"]), len(seen.boot_id), len(shown["notes"]) > 1)
processes = SystemProcesses(pidfd=False)
print(processes.status(processes.identify(os.getpid())))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can lay an empty folder over /sys")
def test_an_ordinary_user_without_sysfs_cgroups_or_pidfd() -> None:
    """In a container-like place with nothing but /proc an ordinary user still sees one usable CPU, a cell with memory and himself."""
    assert in_program(BARE, "unshare", "-m", "--propagation", "private") == ["1", "1", "True", "1", "36", "True", "alive"]
