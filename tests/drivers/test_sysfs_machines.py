"""What the driver makes of small hosts, each with one trap that real hosts have shown."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from tests.drivers.roots import BOOT, CPU, MACHINE_ID, NODE, Root, as_nobody, cell, cpu, two_sockets

from earmark.core.model.topology import NO_CELL, PagePool
from earmark.drivers.sysfs.discovery import discovery_json, nearest_cpus
from earmark.drivers.sysfs.observe import SysfsDriver
from earmark.drivers.sysfs.tree import NOTES_MAX, Tree
from earmark.errors import HostUnavailable

GIB = 1 << 30


def test_an_ordinary_host_is_read_without_a_note(root: Root) -> None:
    """Cores, packages, caches, cells, memory, pages and distances of a plain host are what its files say."""
    machine = two_sockets(root).machine()
    assert [(c.id, c.core, c.package, c.l3, c.cell) for c in machine.cpus] == [
        (0, 0, 0, 0, 0), (1, 1, 0, 0, 0), (2, 2, 1, 2, 1), (3, 3, 1, 2, 1), (4, 0, 0, 0, 0), (5, 1, 0, 0, 0), (6, 2, 1, 2, 1), (7, 3, 1, 2, 1)
    ]  # fmt: skip
    assert [c.id for c in machine.cells] == [0, 1]
    assert cell(machine, 0).memory_bytes == 8 * GIB
    assert cell(machine, 0).pages == (PagePool(size_kib=2048, total=512), PagePool(size_kib=1048576, total=2))
    assert cell(machine, 0).ordinary_bytes == 5 * GIB
    assert cell(machine, 1).distances == (21, 10)
    assert machine.notes == ()
    assert "HW_CPU_HYPERTHREADING" in machine.traits


def test_two_looks_are_equal(root: Root) -> None:
    """The same files give the same machine, so that nothing changed means nothing written."""
    assert two_sockets(root).machine() == root.machine()


def test_identity_of_host_and_boot(root: Root) -> None:
    """Boot id and host name are read, and the machine id leaves only as a keyed hash."""
    observation = SysfsDriver(two_sockets(root).path).observe()
    assert observation.boot_id == BOOT
    assert observation.hostname == "alpha"
    assert observation.machine_ref is not None
    assert len(observation.machine_ref) == 64
    assert MACHINE_ID not in repr(observation)


@pytest.mark.parametrize("text", ["", "uninitialized", "0" * 32, "0123", MACHINE_ID.upper(), "../../etc/passwd"])
def test_a_machine_id_that_is_none(root: Root, text: str) -> None:
    """An empty, unfinished or odd machine id gives no reference rather than a common one."""
    assert SysfsDriver(two_sockets(root).write("etc/machine-id", text).path).machine_ref() is None


def test_a_boot_id_laid_over_by_a_container_manager_is_none(root: Root) -> None:
    """A boot id that is a mount of its own says nothing about the host's boots and counts as none."""
    two_sockets(root).write("proc/self/mountinfo", "60 50 0:5 /id /proc/sys/kernel/random/boot_id ro - tmpfs none rw")
    assert SysfsDriver(root.path).boot_id() == ""


@pytest.mark.parametrize("text", ["", "x", "ABCDEF01" + BOOT[8:], BOOT + BOOT])
def test_a_boot_id_that_is_none(root: Root, text: str) -> None:
    """What is not a uuid is no boot id."""
    assert SysfsDriver(root.write("proc/sys/kernel/random/boot_id", text).path).boot_id() == ""


# --- CPUs ---------------------------------------------------------------------------------------------------------------------------


def test_sparse_numbers(root: Root) -> None:
    """CPU and cell numbers with holes stay as they are."""
    root.cores(["0-3", "88-91"]).node(0, "0-87", 1024).node(8, "88-175", 1024)
    machine = root.machine()
    assert [c.id for c in machine.cpus] == [0, 1, 2, 3, 88, 89, 90, 91]
    assert [(c.id, c.cpus) for c in machine.cells] == [(0, (0, 1, 2, 3)), (8, (88, 89, 90, 91))]
    assert cpu(machine, 90).core == 88


def test_offline_cpus_are_listed_apart(root: Root) -> None:
    """CPUs that are present but off are offline; numbers that are only possible do not exist."""
    root.cores(["0,2", "1"]).write(f"{CPU}/present", "0-3").write(f"{CPU}/possible", "0-63").node(0, "0-3", 1024)
    machine = root.machine()
    assert [c.id for c in machine.cpus] == [0, 1, 2]
    assert machine.offline_cpus == (3,)
    assert cell(machine, 0).cpus == (0, 1, 2)


def test_an_offline_sibling_is_no_part_of_a_core(root: Root) -> None:
    """A thread mask that still names an offline CPU counts only those that are online, and the core is named by one of them."""
    root.cores(["4-5"]).write(f"{CPU}/cpu4/topology/core_cpus_list", "0,4-5").write(f"{CPU}/cpu5/topology/core_cpus_list", "0,4-5")
    assert [(c.id, c.core) for c in root.node(0, "0-7", 1024).machine().cpus] == [(4, 4), (5, 4)]


def test_without_the_online_file_the_folders_count(root: Root) -> None:
    """An old kernel without cpu/online: the CPUs are the folders that do not say 0, and that is said."""
    root.write(f"{CPU}/cpu0/topology/thread_siblings", "00000001").write(f"{CPU}/cpu1/online", "0").write(f"{CPU}/cpu2/online", "1")
    machine = root.machine()
    assert [c.id for c in machine.cpus] == [0, 2]
    assert machine.offline_cpus == (1,)
    assert root.said("cpu/online: absent")


@pytest.mark.parametrize(
    ("name", "text"), [("proc/stat", "cpu  1 2\ncpu0 1 2\ncpu1 1 2\nintr 5"), ("proc/cpuinfo", "processor\t: 0\n\nprocessor\t: 1\n")]
)
def test_without_any_sysfs_proc_counts_the_cpus(root: Root, name: str, text: str) -> None:
    """A container without /sys still has CPUs: /proc says which, each is a core, all in one cell, and all of it is said."""
    root.write(name, text).write("proc/meminfo", "MemTotal:  1048576 kB")
    machine = root.machine()
    assert [(c.id, c.core, c.cell) for c in machine.cpus] == [(0, 0, 0), (1, 1, 0)]
    assert [(c.id, c.cpus, c.memory_bytes) for c in machine.cells] == [(0, (0, 1), GIB)]
    assert root.said(f"the CPUs are those of /{name}")
    assert root.said("counts as a core")
    assert root.said("taken as one cell")


def test_no_cpu_at_all_is_unavailable(root: Root) -> None:
    """Only a root without any CPU is refused, and the message says where was looked."""
    with pytest.raises(HostUnavailable, match="/proc/cpuinfo"):
        root.machine()


def test_no_topology_files_make_each_cpu_a_core(root: Root) -> None:
    """Without topology folders each CPU is a core, which is said, and the JSON lists them."""
    root.write(f"{CPU}/online", "0-2").node(0, "0-2", 1024)
    assert [c.core for c in root.machine().cpus] == [0, 1, 2]
    assert root.said("no file names the core of CPUs 0-2")
    assert discovery_json(SysfsDriver(root.path).observe())["cores"] == [[0], [1], [2]]


def test_topology_that_names_no_core(root: Root) -> None:
    """Where the kernel names packages but no cores, the JSON lists none, and each CPU is handed out as one."""
    root.write(f"{CPU}/online", "0-1").node(0, "0-1", 1024)
    for number in (0, 1):
        root.write(f"{CPU}/cpu{number}/topology/core_siblings", "3").write(f"{CPU}/cpu{number}/topology/physical_package_id", "0")
    machine = root.machine()
    assert [c.core for c in machine.cpus] == [0, 1]
    assert not machine.cores_named
    shown = discovery_json(SysfsDriver(root.path).observe())
    assert (shown["cores"], shown["packages"]) == ([], 1)


def test_texts_that_end_in_nul_are_read(root: Root) -> None:
    """Files copied from old kernels may end in a NUL after the new line."""
    root.write(f"{CPU}/online", "0-1").node(0, "0-1", 1024)
    for number in (0, 1):
        root.raw(f"{CPU}/cpu{number}/topology/thread_siblings", b"00000003\n\0")
    assert [c.core for c in root.machine().cpus] == [0, 0]


def test_a_mask_file_serves_where_the_list_is_broken(root: Root) -> None:
    """A list that cannot be understood is noted with its path and text, and the next file is asked."""
    root.cores(["0-1"]).node(0, "0-1", 1024)
    for number in (0, 1):
        root.write(f"{CPU}/cpu{number}/topology/core_cpus_list", "0-").write(f"{CPU}/cpu{number}/topology/thread_siblings", "3")
    assert [c.core for c in root.machine().cpus] == [0, 0]
    assert root.said("cpu0/topology/core_cpus_list: '0-' is not a set of CPUs")


def test_masks_that_contradict_each_other(root: Root) -> None:
    """CPU 0 claims CPU 1 as its sibling and CPU 1 does not: they are two cores, and that is said."""
    root.cores(["0", "1"]).write(f"{CPU}/cpu0/topology/core_cpus_list", "0-1").node(0, "0-1", 1024)
    assert [c.core for c in root.machine().cpus] == [0, 1]
    assert root.said("the masks of the core contradict each other on CPUs 0")


def test_a_mask_without_its_own_cpu_is_not_used(root: Root) -> None:
    """A cache that names only others is the CPU's own."""
    root.cores(["0", "1"], l3=["0-1"]).write(f"{CPU}/cpu1/cache/index3/shared_cpu_list", "0").node(0, "0-1", 1024)
    assert [c.l3 for c in root.machine().cpus] == [0, 1]
    assert root.said("does not name the CPU itself on CPUs 1")


def test_caches_of_level_three_only(root: Root) -> None:
    """The cache's own level counts, not its folder's number; without a level 3 there is no domain."""
    root.cores(["0", "1"]).node(0, "0-1", 1024)
    root.write(f"{CPU}/cpu0/cache/index3/level", "2").write(f"{CPU}/cpu0/cache/index3/shared_cpu_list", "0-1")
    root.write(f"{CPU}/cpu1/cache/index4/level", "3").write(f"{CPU}/cpu1/cache/index4/shared_cpu_list", "1")
    assert [c.l3 for c in root.machine().cpus] == [None, 1]


def test_packages_that_share_a_number_are_told_apart(root: Root) -> None:
    """Where physical_package_id is -1 or used twice, packages are numbered by their lowest CPU, and that is said."""
    root.cores(["0", "1", "2", "3"], packages=["0-1", "2-3"]).node(0, "0-3", 1024)
    for number in range(4):
        root.write(f"{CPU}/cpu{number}/topology/physical_package_id", "-1")
    assert [c.package for c in root.machine().cpus] == [0, 0, 2, 2]
    assert root.said("does not tell the 2 packages apart")


def test_dies(root: Root) -> None:
    """Die numbers are the kernel's, -1 is none, and the JSON keeps dies of two packages apart."""
    root.cores(["0", "1", "2"], packages=["0-1", "2"]).node(0, "0-2", 1024)
    for number, die in enumerate(("0", "1", "0")):
        root.write(f"{CPU}/cpu{number}/topology/die_id", die)
    assert [c.die for c in root.machine().cpus] == [0, 1, 0]
    assert discovery_json(SysfsDriver(root.path).observe())["dies"] == [[0], [1], [2]]
    assert cpu(root.write(f"{CPU}/cpu0/topology/die_id", "-1").machine(), 0).die is None


def test_hybrid_cores_by_their_counters(root: Root) -> None:
    """The two PMUs of a hybrid x86 processor name the kinds."""
    root.cores(["0-1", "2", "3"]).node(0, "0-3", 1024)
    root.write("sys/devices/cpu_core/cpus", "0-1").write("sys/devices/cpu_atom/cpus", "2-3")
    assert [c.kind for c in root.machine().cpus] == ["performance", "performance", "efficiency", "efficiency"]


def test_one_pmu_alone_is_no_hybrid(root: Root) -> None:
    """A processor with one kind of core has no kinds."""
    root.cores(["0", "1"]).node(0, "0-1", 1024).write("sys/devices/cpu_core/cpus", "0-1")
    assert [c.kind for c in root.machine().cpus] == [None, None]


@pytest.mark.parametrize("name", ["cpu_capacity", "acpi_cppc/nominal_perf"])
@pytest.mark.parametrize(
    ("strengths", "kinds"),
    [(("1024", "446"), ["performance", "efficiency"]), (("512", "512"), [None, None]), (("1024", "x"), [None, None])],
)
def test_hybrid_cores_by_their_strength(root: Root, name: str, strengths: tuple[str, str], kinds: list[str | None]) -> None:
    """Strengths that differ make kinds; equal or unreadable ones make none."""
    root.cores(["0", "1"]).node(0, "0-1", 1024)
    for number, strength in enumerate(strengths):
        root.write(f"{CPU}/cpu{number}/{name}", strength)
    assert [c.kind for c in root.machine().cpus] == kinds


def test_isolated_cpus(root: Root) -> None:
    """The list of isolated CPUs is read, and an empty file isolates nobody."""
    root.cores(["0", "1"]).node(0, "0-1", 1024).write(f"{CPU}/isolated", "1")
    assert [c.isolated for c in root.machine().cpus] == [False, True]
    assert not any(c.isolated for c in root.write(f"{CPU}/isolated", "").machine().cpus)


# --- cells --------------------------------------------------------------------------------------------------------------------------


def test_no_numa_folder_is_one_cell(root: Root) -> None:
    """Without NUMA nodes all CPUs, the host's memory and the host's pages are in cell 0, and that is said."""
    root.cores(["0", "1"]).write("proc/meminfo", "MemTotal:       2097152 kB\nMemFree: 5 kB")
    root.write("sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "100")
    machine = root.machine()
    assert [(c.id, c.cpus, c.memory_bytes) for c in machine.cells] == [(0, (0, 1), 2 * GIB)]
    assert machine.cells[0].pages == (PagePool(size_kib=2048, total=100),)
    assert machine.notes == ("/sys/devices/system/node: shows no NUMA node; the host is taken as one cell",)


def test_memory_that_nobody_tells_is_said(root: Root) -> None:
    """Unknown memory counts as none, and a note says that it is not known."""
    assert root.cores(["0"]).machine().cells[0].memory_bytes == 0
    assert root.said("/proc/meminfo: the memory of the host is not known")
    root.node(0, "0", 1024).node(1, "", 1024).write(f"{NODE}/node1/meminfo", "Node 1 MemTotal: lots kB")
    assert cell(root.machine(), 1).memory_bytes == 0
    assert root.said("the memory of cell 1 is not known")


def test_a_missing_cpulist_gives_way_to_the_map_then_to_the_links(root: Root) -> None:
    """A node without cpulist has a cpumap, and one without both still has links to its CPUs."""
    root.cores(["0", "1", "33"]).node(0, "", 1024).node(1, "", 1024)
    (root.path / NODE / "node0/cpulist").unlink()
    (root.path / NODE / "node1/cpulist").unlink()
    root.write(f"{NODE}/node0/cpumap", "00000002,00000001").link(f"{NODE}/node1/cpu1", "../../cpu/cpu1")
    assert [c.cpus for c in root.machine().cells] == [(0, 33), (1,)]
    assert root.said("node1: neither cpulist nor cpumap")


def test_memory_only_cells_know_their_nearest_cpus(root: Root) -> None:
    """A cell without CPUs keeps its memory; its initiators of class 1 are its nearest, before those of class 0."""
    two_sockets(root).node(2, "", 4 << 20, distance="17 28 10").node(0, "0-1,4-5", 8 << 20, distance="10 21 17")
    root.node(1, "2-3,6-7", 8 << 20, distance="21 10 28")
    machine = root.machine()
    assert (cell(machine, 2).cpus, cell(machine, 2).memory_bytes, cell(machine, 2).initiators) == ((), 4 * GIB, ())
    assert nearest_cpus(machine, cell(machine, 2)) == (0, 1, 4, 5)
    root.link(f"{NODE}/node2/access0/initiators/node0", "../../../node0").link(f"{NODE}/node2/access1/initiators/node1", "../../../node1")
    machine = root.machine()
    assert cell(machine, 2).initiators == (1,)
    assert nearest_cpus(machine, cell(machine, 2)) == (2, 3, 6, 7)
    shown = discovery_json(SysfsDriver(root.path).observe())["cells"]
    assert isinstance(shown, list)
    assert [(c["id"], c["cpus"], c["memory_only"]) for c in shown] == [
        (0, [0, 1, 4, 5], False), (1, [2, 3, 6, 7], False), (2, [2, 3, 6, 7], True)
    ]  # fmt: skip


def test_the_memory_of_a_gpu_is_no_cell(root: Root) -> None:
    """A NUMA node that the NVIDIA driver made of GPU memory is left out with its distances, and that is said."""
    root.cores(["0", "1"]).node(0, "0-1", 1 << 20, distance="10 80").node(255, "", 15 << 20, distance="80 10")
    root.write("proc/driver/nvidia/gpus/0004:05:00.0/numa_status", "Node:      255\nStatus:    online")
    root.device("0004:05:00.0", "030200", "10de", "1db1", numa_node="255")
    machine = root.machine()
    assert [(c.id, c.distances) for c in machine.cells] == [(0, (10,))]
    assert machine.devices[0].cell is None
    assert root.said("node255: is memory of the GPU 0004:05:00.0 (15 GiB)")


def test_cpus_of_an_offline_node_are_in_no_cell(root: Root) -> None:
    """CPUs whose node is offline stay usable, are in no cell, and that is said."""
    root.cores(["4", "5"]).node(1, "1,3,5", 1 << 20, distance="21 10")
    machine = root.machine()
    assert [(c.id, c.cell) for c in machine.cpus] == [(4, NO_CELL), (5, 1)]
    assert [(c.id, c.cpus, c.distances) for c in machine.cells] == [(1, (5,), ())]
    assert root.said("no online node has the CPUs 4")
    assert root.said("node1/distance: 2 distances where 1 are due")


def test_overlapping_nodes_keep_their_memory_and_one_of_them_the_cpus(root: Root) -> None:
    """A CPU that two nodes claim is in the first one; the other keeps its memory, and that is said."""
    root.cores(["0", "1"]).node(0, "0-1", 1 << 20).node(1, "0-1", 1 << 20)
    assert [(c.cpus, c.memory_bytes) for c in root.machine().cells] == [((0, 1), GIB), ((), GIB)]
    assert root.said("node1: shares CPUs 0-1 with a node before it")


def test_surplus_pages_are_left_out(root: Root) -> None:
    """nr_hugepages counts surplus pages too, and those do not stay."""
    root.cores(["0"]).node(0, "0", 1 << 20, pages={2048: 12})
    root.write(f"{NODE}/node0/hugepages/hugepages-2048kB/surplus_hugepages", "4")
    assert root.machine().cells[0].pages == (PagePool(size_kib=2048, total=8),)


def test_a_pool_that_cannot_be_counted_is_left_out_and_said(root: Root) -> None:
    """A pool without a number is not zero pages: it is left out, and a note says so."""
    root.cores(["0"]).node(0, "0", 1 << 20, pages={2048: 12}).folder(f"{NODE}/node0/hugepages/hugepages-1048576kB")
    root.folder(f"{NODE}/node0/hugepages/hugepages-0kB").folder(f"{NODE}/node0/hugepages/hugepages-64")
    assert root.machine().cells[0].pages == (PagePool(size_kib=2048, total=12),)
    assert root.said("hugepages-1048576kB/nr_hugepages: the number of these pages is not known")


def test_no_huge_pages_at_all(root: Root) -> None:
    """A kernel without huge pages has no pools and needs no note."""
    machine = root.cores(["0"]).node(0, "0", 1 << 20).machine()
    assert machine.cells[0].pages == ()
    assert machine.notes == ()


def test_pages_that_no_node_shows_are_said(root: Root) -> None:
    """On an old kernel pages are known for the whole host only: on several cells they are left out, and that is said."""
    root.cores(["0", "1"]).node(0, "0", 1 << 20).node(1, "1", 1 << 20)
    root.write("sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "513")
    assert all(c.pages == () for c in root.machine().cells)
    assert root.said("513 pages of 2048 KiB are on no node")


def test_pages_of_the_host_belong_to_its_only_node(root: Root) -> None:
    """With one node the host's pages are that node's."""
    root.cores(["0"]).node(0, "0", 4 << 20).write("sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "7")
    assert root.machine().cells[0].pages == (PagePool(size_kib=2048, total=7),)


# --- files that cannot be read ------------------------------------------------------------------------------------------------------


def test_what_cannot_be_read_is_said_with_path_and_reason(root: Root) -> None:
    """A folder where a file should be, a pipe and bytes that are no text are noted, and nothing waits."""
    two_sockets(root).folder(f"{CPU}/isolated").raw(f"{NODE}/node0/distance", b"\xff\xfe")
    os.mkfifo(root.path / f"{CPU}/cpu0/topology/die_id")
    machine = root.machine()
    assert "/sys/devices/system/cpu/isolated: is not a regular file" in machine.notes
    assert "/sys/devices/system/cpu/cpu0/topology/die_id: is not a regular file" in machine.notes
    assert "/sys/devices/system/node/node0/distance: is not text" in machine.notes
    assert cell(machine, 0).distances == ()


def test_a_file_without_permission_is_said() -> None:
    """A file that this user may not read is a note, not a zero."""
    with tempfile.TemporaryDirectory(prefix="earmark-") as folder:
        root = two_sockets(Root(Path(folder, "root")))
        Path(folder).chmod(0o755)
        (root.path / CPU / "isolated").touch(mode=0o000)
        assert as_nobody(lambda: root.said("/sys/devices/system/cpu/isolated: Permission denied"))


def test_notes_are_bounded(tmp_path: Path) -> None:
    """A host with a thousand oddities gives NOTES_MAX notes and the number of the others; hostile characters are shown escaped."""
    tree = Tree(tmp_path)
    for number in range(1000):
        tree.note(f"oddity {number} \x1b[31m" + "x" * 1000)
    assert len(tree.notes) == NOTES_MAX + 1
    assert tree.notes[-1] == f"and {1000 - NOTES_MAX} more notes"
    assert all(note.isprintable() and len(note) < 320 for note in tree.notes)


# --- this very host -----------------------------------------------------------------------------------------------------------------


def test_this_host_is_read() -> None:
    """On the machine that runs the tests CPUs, memory, the disk and the name are found, as an ordinary user too."""
    observation = SysfsDriver(disks=(("root", "/"),)).observe()
    machine = observation.machine
    assert set(machine.usable_cpus or [c.id for c in machine.cpus]) <= {c.id for c in machine.cpus}
    assert sum(c.memory_bytes for c in machine.cells) > 0
    assert machine.base_page_kib * 1024 == os.sysconf("SC_PAGE_SIZE")
    assert machine.disks[0].total_bytes > 0
    assert observation.hostname == os.uname().nodename
