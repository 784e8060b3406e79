"""Confinement: what is obtained on which kind of host, on a simulated kernel's rules and on this real one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from earmark.core.model.cpuset import format_cpu_list, parse_cpu_list
from earmark.launch.cgroups import Kernel, NotObtained, Places, own_groups, places
from earmark.launch.confine import Confinement, confine

GIB = 1 << 30
MOUNT = "{number} 23 0:{number} {root} {point} rw,relatime - {kind} {kind} rw{options}\n"
MINE = sorted(os.sched_getaffinity(0))


class FakeKernel(Kernel):
    """cgroup files in a folder, with the kernel's rules as cgroup-v2.rst and cpusets.rst state them.

    `internal` are processes in this process's own v2 group: memory is then not handed down, and cpuset makes a threaded subtree.
    """

    def __init__(self, root: Path, *, internal: bool = False, refuses: tuple[str, ...] = ()) -> None:
        self.root = root
        self.internal = internal
        self.refuses = refuses

    def refuse(self, path: Path) -> None:
        """Fail like a kernel that does not allow this."""
        if any(str(path).endswith(each) for each in self.refuses):
            raise NotObtained(f"{path}: Permission denied")

    def mkdir(self, path: Path) -> None:
        """Make a group with the files that its parent's hierarchy gives it."""
        self.refuse(path)
        super().mkdir(path)
        if "cpuset" in path.parts:
            for name in ("cpuset.cpus", "cpuset.mems", "cgroup.procs"):
                (path / name).write_text("")
        elif "memory" in path.parts:
            (path / "memory.limit_in_bytes").write_text("9223372036854771712\n")
            (path / "cgroup.procs").write_text("")
        else:
            (path / "cgroup.procs").write_text("")
            self.hand_down(path.parent)

    def hand_down(self, place: Path) -> None:
        """Give the groups of a v2 place the files of the controllers that it hands down."""
        working = (place / "cgroup.subtree_control").read_text().split()
        for group in [entry for entry in place.iterdir() if entry.is_dir()]:
            threaded = self.internal and working
            (group / "cgroup.type").write_text("domain invalid\n" if threaded else "domain\n")
            if "cpuset" in working:
                for name in ("cpuset.cpus", "cpuset.mems"):
                    (group / name).touch()
                (group / "cpuset.cpus.effective").write_text((place / "cpuset.cpus.effective").read_text())
                (group / "cpuset.mems.effective").write_text((place / "cpuset.mems.effective").read_text())
            if "memory" in working:
                (group / "memory.max").write_text("max\n")

    def write(self, path: Path, text: str) -> None:
        """Write under the kernel's rules."""
        self.refuse(path)
        if path.name == "cgroup.subtree_control":
            self.control(path, text)
            return
        if path.name == "cgroup.procs" and (path.parent / "cgroup.type").exists():
            assert "invalid" not in (path.parent / "cgroup.type").read_text()
        if path.name == "cgroup.procs" and (path.parent / "cpuset.cpus").exists() and "cpuset" in path.parts:
            assert (path.parent / "cpuset.mems").read_text(), "a v1 cpuset without cells takes nobody (ENOSPC)"
        if not path.exists():
            raise NotObtained(f"{path}: No such file or directory")
        path.write_text(text)
        if path.name in ("cpuset.cpus", "cpuset.mems") and (path.parent / (path.name + ".effective")).exists():
            above = parse_cpu_list((path.parent.parent / (path.name + ".effective")).read_text())
            left = [number for number in parse_cpu_list(text) if number in above]
            (path.parent / (path.name + ".effective")).write_text(format_cpu_list(left or above))

    def control(self, path: Path, text: str) -> None:
        """Hand a controller down, or take it back."""
        working = set(path.read_text().split())
        if text == "+memory" and self.internal:
            raise NotObtained(f"{text!r} cannot be written to {path}: Device or resource busy")
        (working.add if text[0] == "+" else working.discard)(text[1:])
        path.write_text(" ".join(sorted(working)))
        self.hand_down(path.parent)

    def rmdir(self, path: Path) -> None:
        """Remove a group that nobody is in."""
        if (path / "cgroup.procs").read_text():
            raise NotObtained(f"group {path} cannot be removed: Device or resource busy")
        for entry in path.iterdir():
            entry.unlink()
        super().rmdir(path)


def host(root: Path, *, groups: str, mounts: list[tuple[str, str, str, str]]) -> Path:
    """Make /proc/self of a host: its cgroup lines, and mounts as (root, point, kind, options)."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(groups)
    lines = [MOUNT.format(number=30 + n, root=r, point=p, kind=k, options=o) for n, (r, p, k, o) in enumerate(mounts)]
    (root / "proc/self/mountinfo").write_text("".join(["22 1 8:1 / / rw - ext4 /dev/vda1 rw\n", *lines]))
    return root


def v2_host(root: Path, *, controllers: str = "cpuset memory pids", handed_down: str = "") -> Path:
    """Make a host with only cgroup v2, this process in /user/app."""
    host(root, groups="0::/user/app\n", mounts=[("/", "/sys/fs/cgroup", "cgroup2", ",nsdelegate")])
    own = root / "sys/fs/cgroup/user/app"
    own.mkdir(parents=True)
    (own / "cgroup.controllers").write_text(controllers)
    (own / "cgroup.subtree_control").write_text(handed_down)
    (own / "cpuset.cpus.effective").write_text("0-63")
    (own / "cpuset.mems.effective").write_text("0-1")
    return own


def v1_host(root: Path) -> tuple[Path, Path]:
    """Make a host with cpuset and memory as cgroup v1, this process in /batch."""
    mounts = [("/", "/sys/fs/cgroup/cpuset", "cgroup", ",cpuset"), ("/", "/sys/fs/cgroup/memory", "cgroup", ",memory")]
    host(root, groups="4:memory:/batch\n3:cpuset:/batch\n1:name=systemd:/\n0::/\n", mounts=mounts)
    own = root / "sys/fs/cgroup/cpuset/batch", root / "sys/fs/cgroup/memory/batch"
    for folder in own:
        folder.mkdir(parents=True)
    (own[0] / "cpuset.mems").write_text("0-1\n")
    return own


def obtained(
    root: Path, kernel: Kernel, *, cpus: tuple[int, ...] = tuple(MINE[:1]), cells: tuple[int, ...] = (), limit: int | None = GIB
) -> Confinement:
    """Confine a claim on a made-up host."""
    return confine("c-1a2b", cpus, memory_cells=cells, memory_limit_bytes=limit, root=root, kernel=kernel)


# --- cgroup v2 --------------------------------------------------------------------------------------------------------------------------


def test_v2_confines_cpus_cells_and_memory(tmp_path: Path) -> None:
    """Where both controllers can be handed down, a child group named after the claim has cpus, mems and memory.max."""
    own = v2_host(tmp_path)
    found = obtained(tmp_path, FakeKernel(tmp_path), cells=(1,))
    group = own / "earmark-c-1a2b"
    assert found.way == "cgroup v2 cpuset"
    assert found.cgroup == str(group)
    assert found.cpus == tuple(MINE[:1])
    assert found.memory_cells == (1,)
    assert (group / "memory.max").read_text() == str(GIB)
    assert found.describe()[0] == "by cgroup v2 cpuset, memory limited to 1 GiB"
    assert found.remove()
    assert not group.exists()
    assert (own / "cgroup.subtree_control").read_text() == "", "what was handed down is taken back"


def test_v2_with_processes_of_its_own_gives_a_threaded_cpuset_and_says_no_memory(tmp_path: Path) -> None:
    """While our own group has processes the kernel hands no memory down: the CPUs are confined, and the missing limit is said."""
    own = v2_host(tmp_path)
    found = obtained(tmp_path, FakeKernel(tmp_path, internal=True))
    assert found.way == "cgroup v2 cpuset"
    assert (own / "earmark-c-1a2b/cgroup.type").read_text() == "threaded"
    assert found.memory_limit_bytes is None
    assert "memory not limited" in found.summary()
    assert any("Device or resource busy" in note for note in found.notes)


def test_v2_leaves_what_was_handed_down_before(tmp_path: Path) -> None:
    """A controller that our parent's manager handed down is used and not taken back."""
    own = v2_host(tmp_path, handed_down="cpuset memory")
    assert obtained(tmp_path, FakeKernel(tmp_path)).remove()
    assert (own / "cgroup.subtree_control").read_text() == "cpuset memory"


def test_v2_with_another_claim_keeps_the_controllers(tmp_path: Path) -> None:
    """What was handed down is not taken back while another claim's group needs it."""
    own = v2_host(tmp_path)
    kernel = FakeKernel(tmp_path)
    first = obtained(tmp_path, kernel)
    second = confine("c-3c4d", MINE[:1], root=tmp_path, kernel=kernel)
    assert first.remove()
    assert "cpuset" in (own / "cgroup.subtree_control").read_text()
    assert second.remove()


def test_v2_without_controllers_still_gives_a_group_as_evidence(tmp_path: Path) -> None:
    """A delegated group without cpuset confines nothing, but its emptiness proves the end; affinity does the rest."""
    own = v2_host(tmp_path, controllers="pids")
    found = obtained(tmp_path, FakeKernel(tmp_path))
    assert found.cgroup == str(own / "earmark-c-1a2b")
    with sleeper() as child:
        found.add(child.pid)
        assert found.way == "affinity"
        assert os.sched_getaffinity(child.pid) == set(MINE[:1])
        child.kill()
    assert any("does not offer the cpuset controller" in note for note in found.notes)


def test_v2_with_none_of_the_cpus_is_not_believed(tmp_path: Path) -> None:
    """A cpuset whose effective CPUs are not the claim's (the parent has none of them) is not called a confinement."""
    own = v2_host(tmp_path)
    (own / "cpuset.cpus.effective").write_text("62-63")
    found = obtained(tmp_path, FakeKernel(tmp_path))
    assert found.way == "none"
    assert any("was to have CPUs" in note and "62-63" in note for note in found.notes)


# --- cgroup v1 --------------------------------------------------------------------------------------------------------------------------


def test_v1_confines_cpus_and_memory_each_in_its_hierarchy(tmp_path: Path) -> None:
    """On cgroup v1 the child groups stand in both hierarchies; unbound memory gets the parent's cells, since a cpuset needs some."""
    cpuset, memory = v1_host(tmp_path)
    found = obtained(tmp_path, FakeKernel(tmp_path))
    assert found.way == "cgroup v1 cpuset"
    assert found.cgroup == str(cpuset / "earmark-c-1a2b")
    assert (cpuset / "earmark-c-1a2b/cpuset.mems").read_text() == "0-1"
    assert (memory / "earmark-c-1a2b/memory.limit_in_bytes").read_text().startswith(str(GIB))
    assert found.memory_limit_bytes is not None
    found.remove()
    assert sorted(path.name for path in cpuset.iterdir()) == ["cpuset.mems"]


@pytest.mark.parametrize("refused", ["cpuset/batch/earmark-c-1a2b", "cpuset.cpus", "cpuset.mems"])
def test_v1_that_refuses_falls_back_to_affinity_and_leaves_no_group(tmp_path: Path, refused: str) -> None:
    """Whichever step a v1 hierarchy refuses, its group is removed again, the refusal is noted and the affinity is used."""
    cpuset, _ = v1_host(tmp_path)
    found = obtained(tmp_path, FakeKernel(tmp_path, refuses=(refused,)), limit=None)
    assert found.way == "none"
    assert not (cpuset / "earmark-c-1a2b").exists()
    assert any("Permission denied" in note for note in found.notes)


def test_a_group_that_cannot_be_entered_is_given_up(tmp_path: Path) -> None:
    """A process that may not be moved into the groups is bound by affinity, the groups are removed, and it is said."""
    cpuset, _ = v1_host(tmp_path)
    found = obtained(tmp_path, FakeKernel(tmp_path, refuses=("cgroup.procs",)))
    with sleeper() as child:
        found.add(child.pid)
        child.kill()
    assert found.way == "affinity"
    assert found.cgroup is None
    assert found.memory_limit_bytes is None
    assert not (cpuset / "earmark-c-1a2b").exists()
    assert found.summary() == "by affinity, memory not limited"


def test_groups_that_nobody_is_in_are_swept_after_ten_minutes(tmp_path: Path) -> None:
    """The empty group of a runner that was killed goes with the next run; one in use and a young one stay."""
    cpuset, _ = v1_host(tmp_path)
    kernel = FakeKernel(tmp_path)
    for name, procs in (("earmark-c-old", ""), ("earmark-c-used", "77\n"), ("earmark-c-young", "")):
        kernel.mkdir(cpuset / name)
        (cpuset / name / "cgroup.procs").write_text(procs)
        if name != "earmark-c-young":
            os.utime(cpuset / name, (1, 1))
    obtained(tmp_path, kernel, limit=None)
    assert sorted(path.name for path in cpuset.iterdir() if path.is_dir()) == ["earmark-c-1a2b", "earmark-c-used", "earmark-c-young"]


# --- no cgroup, and odd hosts --------------------------------------------------------------------------------------------------------------


def test_a_place_like_a_container_is_confined_by_affinity(tmp_path: Path) -> None:
    """Without any cgroup file the CPUs are bound by affinity; memory is not limited, and both are said."""
    host(tmp_path, groups="0::/\n", mounts=[])
    found = obtained(tmp_path, Kernel())
    with sleeper() as child:
        found.add(child.pid)
        assert os.sched_getaffinity(child.pid) == set(MINE[:1])
        child.kill()
    assert found.summary() == "by affinity, memory not limited"
    assert found.cgroup is None
    assert found.remove()


def test_an_unreadable_proc_is_a_note(tmp_path: Path) -> None:
    """A host without /proc gets no group, and the reason is kept."""
    found = obtained(tmp_path, Kernel())
    assert found.way == "none"
    assert any("proc/self/cgroup cannot be read" in note for note in found.notes)


def test_cpus_that_do_not_exist_are_not_claimed_to_be_used() -> None:
    """An affinity that the kernel refuses leaves "CPUs not confined", with the reason."""
    found = Confinement("c-1a2b", [8000], (), None, Kernel())
    with sleeper() as child:
        found.add(child.pid)
        child.kill()
    assert found.summary() == "CPUs not confined"
    assert any("Invalid argument" in note for note in found.notes)


def test_only_the_part_of_the_cpus_that_can_be_had_is_said(tmp_path: Path) -> None:
    """Where the kernel gives fewer CPUs than the claim has, those few are named."""
    found = Confinement("c-1a2b", [MINE[0], 8000], (), None, Kernel())
    with sleeper() as child:
        found.add(child.pid)
        child.kill()
    assert found.cpus == (MINE[0],)
    assert f"only CPUs {MINE[0]}" in found.summary()


def test_places_follow_mounts_with_a_root_of_their_own(tmp_path: Path) -> None:
    """In a container the mount shows the group's subtree as its root; a mount that does not show our group is not used."""
    host(tmp_path, groups="3:cpuset:/docker/abc/x\n0::/elsewhere\n", mounts=[
        ("/docker/abc", "/sys/fs/cgroup/cpuset", "cgroup", ",cpuset"), ("/docker/abc", "/sys/fs/cgroup/a\\040b", "cgroup2", ""),
    ])  # fmt: skip
    assert places(Kernel(), tmp_path) == Places(cpuset=tmp_path / "sys/fs/cgroup/cpuset/x")


def test_a_run_inside_a_run_stands_beside_it(tmp_path: Path) -> None:
    """The group of a claim that is taken inside another claim's group is made beside that, whose CPUs it does not have."""
    cpuset, _ = v1_host(tmp_path)
    (tmp_path / "proc/self/cgroup").write_text("4:memory:/batch\n3:cpuset:/batch/earmark-c-outer\n")
    found = obtained(tmp_path, FakeKernel(tmp_path))
    assert found.cgroup == str(cpuset / "earmark-c-1a2b")


@pytest.mark.parametrize("text", ["", "garbage\n", "x:y:z\n", "3:cpuset:relative\n", ":::\n"])
def test_odd_cgroup_lines_are_not_believed(text: str) -> None:
    """A line of /proc/self/cgroup that is not number:controllers:/path is not used."""
    assert own_groups(text) == {}


# --- this real kernel ----------------------------------------------------------------------------------------------------------------------


def sleeper() -> subprocess.Popen[bytes]:
    """Start a process that sleeps a short while."""
    return subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(20)"])


@pytest.fixture
def real() -> Iterator[Confinement]:
    """Confine to one CPU and 64 MiB on this host's own cgroups; skips with the reason where none can be had."""
    found = confine(f"c-test{os.getpid()}", MINE[:1], memory_limit_bytes=64 << 20)
    if found.way == "none":
        found.remove()
        pytest.skip("no cpuset cgroup can be had here: " + "; ".join(found.notes))
    yield found
    assert found.remove(), found.notes


def test_a_real_cgroup_holds_the_process_and_its_children(real: Confinement) -> None:
    """A process in the group sees one CPU, cannot leave it by affinity, and what it starts stands in the group too."""
    script = f"""
import os, subprocess, sys
sys.stdin.readline()
try:
    os.sched_setaffinity(0, {MINE!r})
except OSError:
    pass
print(sorted(os.sched_getaffinity(0)), flush=True)
print(subprocess.run(["cat", "/proc/self/cgroup"], capture_output=True, text=True).stdout.count("earmark-c-test"), flush=True)
"""
    with subprocess.Popen([sys.executable, "-S", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        real.add(child.pid)
        out, _ = child.communicate("go\n", timeout=10)
    lines = out.splitlines()
    assert lines[0] == str(MINE[:1])
    assert int(lines[1]) >= 1
    assert real.way.startswith("cgroup")


def test_a_real_group_in_use_is_not_removed_and_nobody_is_killed(real: Confinement) -> None:
    """`remove` while a process is inside says no, keeps the group, and the process lives on."""
    with sleeper() as child:
        real.add(child.pid)
        assert not real.remove()
        assert child.poll() is None
        assert real.cgroup is not None
        assert str(child.pid) in Path(real.cgroup, "cgroup.procs").read_text().split()
        child.kill()


def test_a_real_memory_limit_is_felt(real: Confinement) -> None:
    """A process that takes far more than the limit is stopped by the kernel; the limit said is the kernel's."""
    if real.memory_limit_bytes is None:
        pytest.skip("no memory cgroup can be had here: " + "; ".join(real.notes))
    script = "import sys; sys.stdin.readline(); print(len(bytearray(400 << 20)))"
    with subprocess.Popen([sys.executable, "-S", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        real.add(child.pid)
        out, _ = child.communicate("go\n", timeout=20)
    assert out == ""
    assert child.returncode != 0
