"""Whatever the files hold, the driver answers: parsers are total, and a host of garbage is at worst unavailable."""

from __future__ import annotations

import string
import tempfile
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.drivers.roots import CPU, NODE, PCI, Root, two_sockets

from earmark.core.model.cpuset import CPU_MAX, format_cpu_list, mask_of
from earmark.core.model.ids import UNIT
from earmark.core.model.topology import NO_CELL, Machine
from earmark.drivers.procfs import Stat, parse_stat
from earmark.drivers.sysfs import parse
from earmark.drivers.sysfs.discovery import discovery_json
from earmark.drivers.sysfs.observe import SysfsDriver
from earmark.drivers.sysfs.tree import NOTES_MAX, Tree
from earmark.drivers.sysfs.usable import read_limits
from earmark.errors import HostUnavailable

LOOKALIKES = st.text(alphabet=string.hexdigits + ",-x:. \n\0^", max_size=40)
TEXTS = st.one_of(
    st.text(max_size=60),
    LOOKALIKES,
    st.sampled_from(["", "0-8191", "0-99999999999", "-1", "0", "7-3", "ffffffff,ffffffff", "\u0663", "1" * 5000]),
)
CPUS = st.frozensets(st.integers(0, CPU_MAX), max_size=40)


@settings(max_examples=300)
@given(TEXTS)
def test_every_parser_is_total(text: str) -> None:
    """Any text gives a value within its bounds or None, never an exception."""
    number = parse.whole(text)
    assert number is None or abs(number) < 1 << 63
    assert (parse.count(text) or 0) >= 0
    assert (parse.identifier(text) or 0) >= -1
    for cpus in (parse.cpu_list(text), parse.cpu_mask(text)):
        assert cpus is None or all(0 <= cpu <= CPU_MAX for cpu in cpus)
    assert (parse.mem_total_bytes(text) or 0) >= 0
    assert parse.numbers(text) != ()
    assert parse.uuid(text) is None or len(text) == 36
    assert len(parse.serial(text) or "") <= 64
    assert len(parse.hexadecimal(text, 4) or "0000") == 4


@given(CPUS)
def test_lists_and_masks_are_read_back(cpus: frozenset[int]) -> None:
    """What the kernel would write for a set of CPUs is read as that set, as a list and as a mask."""
    mask = mask_of(cpus)
    words = [f"{mask >> shift & 0xFFFFFFFF:08x}" for shift in range((max(mask.bit_length() - 1, 0) // 32) * 32, -1, -32)]
    assert parse.cpu_list(format_cpu_list(cpus)) == tuple(sorted(cpus))
    assert parse.cpu_mask(",".join(words)) == tuple(sorted(cpus))


@pytest.mark.parametrize("text", ["0-3,^1", "1,2 3", "0-", "-3", "3-1", "8192", "a", "0x3", "1--2", "\u0660-\u0663"])
def test_lists_that_the_kernel_does_not_write(text: str) -> None:
    """Exclusions, backward ranges, other alphabets and numbers beyond the bound are no CPU list."""
    assert parse.cpu_list(text) is None


@pytest.mark.parametrize("text", ["", "g", "0x", "1,", ",1", "1,123456789", "-1", "f" * 2049])
def test_masks_that_the_kernel_does_not_write(text: str) -> None:
    """Empty words, words beyond 32 bits after the first, and other characters are no mask."""
    assert parse.cpu_mask(text) is None


@settings(max_examples=300)
@given(st.one_of(st.text(max_size=80), st.tuples(st.text(max_size=20), LOOKALIKES).map(lambda pair: f"1 ({pair[0]}) S {pair[1]}")))
def test_stat_lines_are_total(text: str) -> None:
    """Any text is a stat line with sane numbers or none."""
    found = parse_stat(text)
    assert found is None or (found.pid > 0 and found.start_ticks >= 0)


@given(st.text(max_size=30), st.integers(1, 1 << 22), st.integers(0, 1 << 60))
def test_stat_lines_are_read_after_the_last_bracket(name: str, pid: int, ticks: int) -> None:
    """A command may be named anything, closing brackets and numbers included; the fields after it are found."""
    line = f"{pid} ({name}) S 7 8 9 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 3 0 {ticks} 1 2 3\n"
    assert parse_stat(line) == Stat(pid, "S", 7, 9, 3, ticks)


FILES = [
    *(f"{CPU}/{name}" for name in ("online", "present", "isolated", "cpu0/online", "cpu0/topology/core_cpus_list", "cpu1/topology/core_siblings")),
    *(f"{CPU}/cpu0/{name}" for name in ("topology/physical_package_id", "topology/die_id", "cache/index3/level", "cache/index3/shared_cpu_map", "cpu_capacity")),
    *(f"{NODE}/node0/{name}" for name in ("cpulist", "cpumap", "meminfo", "distance", "hugepages/hugepages-2048kB/nr_hugepages")),
    *(f"{NODE}/node9/{name}" for name in ("cpulist", "meminfo")),
    *(f"{PCI}/0000:41:00.0/{name}" for name in ("class", "vendor", "device", "numa_node", "sriov_totalvfs", "nvme/nvme0/serial", "unique_id", "physfn")),
    "sys/devices/cpu_core/cpus", "sys/devices/cpu_atom/cpus", "proc/driver/nvidia/gpus/0000:41:00.0/information", "proc/meminfo", "proc/cpuinfo",
    "proc/driver/nvidia/gpus/0000:41:00.0/numa_status", "proc/sys/kernel/random/boot_id", "proc/sys/kernel/hostname", "etc/machine-id",
    "proc/self/cgroup", "proc/self/mountinfo",
]  # fmt: skip
CONTENTS = st.one_of(TEXTS.map(lambda text: text.encode("utf-8", "surrogatepass")), st.binary(max_size=40))


@settings(max_examples=60)
@given(st.dictionaries(st.sampled_from(FILES), CONTENTS, max_size=len(FILES)), st.booleans())
def test_a_host_of_garbage_is_read(files: dict[str, bytes], whole: bool) -> None:
    """Garbage in any file gives a consistent machine that survives the codec, or HostUnavailable where no CPU is left."""
    with tempfile.TemporaryDirectory(prefix="earmark-") as folder:
        root = Root(Path(folder))
        if whole:
            two_sockets(root)
        for name, content in files.items():
            root.raw(name, content)
        driver = SysfsDriver(root.path)
        read_limits(Tree(root.path))
        try:
            observation = driver.observe()
        except HostUnavailable:
            assert not whole
            return
    machine = observation.machine
    assert machine.cpus
    assert len(machine.notes) <= NOTES_MAX + 1
    assert all(UNIT.fullmatch(device.unit) for device in machine.devices)
    cells = {cell.id for cell in machine.cells}
    assert all(cpu.cell in cells or cpu.cell == NO_CELL for cpu in machine.cpus)
    assert sorted(cpu for cell in machine.cells for cpu in cell.cpus) == [cpu.id for cpu in machine.cpus if cpu.cell != NO_CELL]
    assert msgspec.json.decode(msgspec.json.encode(machine), type=Machine) == machine
    msgspec.json.encode(discovery_json(observation))
