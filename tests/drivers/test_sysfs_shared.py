"""The recorded machines of ../shared against what hwloc reads from the same files.

Where the kernel's files and hwloc's corrections differ, the kernel is right for us; each difference is listed here with its reason.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from earmark.drivers.sysfs.discovery import discovery_json
from earmark.drivers.sysfs.observe import SysfsDriver

pytestmark = pytest.mark.shared

MACHINES = (
    "128arm-2pa2n8cluster4co",
    "16amd64-4n4c-cgroup-distance-merge",
    "16amd64-8n2c-cpusets",
    "16em64t-4s2c2t-offlines",
    "16ia64-8n2s",
    "20s390-2g6s4c",
    "256ppc-8n8s4t",
    "2i386-2c-nohugepage",
    "2pa-pcidomain32bits",
    "32amd64-4s2n4c-cgroup2",
    "32intel64-2p8co2t+8ve",
    "40intel64-2g2n4c+pcilocality",
    "40intel64-4n10c+pci-conflicts",
    "4fake-4gr1nu1pu",
    "64amd64-4s2n4ca2co",
    "64fake-4n2s2ca2c2t",
    "8em64t-2s2ca2c-buggynuma",
    "8ia64-2n2s2c",
    "96em64t-4no4pa3ca2co",
    "fakeheterocpunuma",
    "fakememinitiators-1np2c+1npp+gi",
    "memorysidecaches",
    "nvidiagpunumanodes",
    "offline-cpu0-node0",
)
DIFFERENT = {
    "64amd64-4s2n4ca2co": {
        "cores": "family 15h modules: thread_siblings names both CPUs of a module as threads of one core; hwloc splits them by a quirk for AMD"
    },
    "8em64t-2s2ca2c-buggynuma": {
        "cells": "NUMA emulation: the cpumap of all eight nodes names all CPUs and each node has its own 2 GiB; hwloc drops seven nodes and 14 GiB with them"
    },
    "fakeheterocpunuma": {
        "cells": "the cpumaps of nodes 3, 4 and 5 overlap; hwloc drops nodes 4 and 5 with their memory, here each keeps the CPUs that no node before it has"
    },
}
"""What differs in cpus, cores or cells: at most three machines may."""
DIFFERENT_ELSEWHERE = {
    "40intel64-4n10c+pci-conflicts": {
        "l3": "CPU 3 is made to name CPUs 0-3 as its package and cache; hwloc drops what then conflicts, here CPUs with the same mask stay together",
        "packages": "the same conflict: physical_package_id still names four packages",
    },
}


def expected(shared: Path) -> dict[str, Any]:
    """Return what hwloc reads, by machine."""
    found: dict[str, Any] = json.loads((shared / "data/sysfs/expected.json").read_text())
    return found


READ = re.compile(
    r"/proc/(?:driver/nvidia/.*|meminfo|cpuinfo|stat)$|/sys/devices/system/cpu/(?:[a-z]+|cpu\d+/(?:online|cpu_capacity|topology/.*))$"
    r"|/sys/devices/system/cpu/cpu\d+/cache/index\d/(?:level|shared_.*)$|/sys/devices/cpu_.*|/sys/kernel/mm/.*|/sys/bus/pci/devices/"
    r"|/sys/devices/system/node/(?:online|node\d+/(?:cpulist|cpumap|meminfo|distance|hugepages/.*|access.*))$"
    r"|/sys/devices/pci.*:[^/]*/(?:class|vendor|device|subsystem_.*|numa_node|driver|reset|physfn|iommu_group|sriov_totalvfs|unique_id|mem_info_vram_total|nvme/.*)$"
)
"""The files that the driver looks at: unpacking the others takes most of the time."""


def unpacked(shared: Path, name: str, root: str, place: Path) -> Path:
    """Unpack what the driver looks at of one machine, and return the folder that stands for `/`."""
    with tarfile.open(shared / f"data/sysfs/{name}.tar.bz2") as archive:
        for member in archive:
            if member.isdir() or not READ.search("/" + member.name):
                continue
            target = place / member.name
            target.parent.mkdir(parents=True, exist_ok=True)
            if member.issym():
                target.symlink_to(member.linkname)
            elif member.isreg() and (content := archive.extractfile(member)) is not None:
                target.write_bytes(content.read())
    return place / root.partition("/")[2]


@pytest.mark.long
@pytest.mark.parametrize("name", MACHINES)
def test_a_recorded_machine(shared: Path, tmp_path: Path, name: str) -> None:
    """The machine is read without an error and equals hwloc's reading, but for what is listed here."""
    machine = expected(shared)[name]
    shown = discovery_json(SysfsDriver(unpacked(shared, name, machine["root"], tmp_path)).observe())
    assert isinstance(shown["cells"], list)
    cells = [{key: cell[key] for key in ("id", "memory_bytes", "cpus")} for cell in shown["cells"]]
    same = {
        "cpus": shown["cpus"] == machine["cpus"],
        "cores": shown["cores"] == sorted(machine["cores"]),
        "cells": cells == [{key: cell[key] for key in ("id", "memory_bytes", "cpus")} for cell in machine["numa"]],
        "l3": shown["l3"] == sorted(machine["l3"]),
        "packages": shown["packages"] == machine["packages"],
    }
    listed = {*DIFFERENT.get(name, {}), *DIFFERENT_ELSEWHERE.get(name, {})}
    assert {key for key, equal in same.items() if not equal} == listed


def test_all_machines_are_there(shared: Path) -> None:
    """All recorded machines are tried, and at most three may differ in cpus, cores or cells."""
    assert sorted(MACHINES) == sorted(expected(shared)) == sorted(path.name[:-8] for path in (shared / "data/sysfs").glob("*.tar.bz2"))
    assert len(DIFFERENT) <= 3
    assert {*DIFFERENT, *DIFFERENT_ELSEWHERE} <= set(MACHINES)


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("2pa-pcidomain32bits", {"bridge": 4, "nic": 1, "other": 1, "storage": 2, "usb": 1}),
        ("nvidiagpunumanodes", {"gpu": 6}),
        ("32intel64-2p8co2t+8ve", {"accelerator": 8, "bridge": 16, "nic": 4}),
    ],
)
def test_recorded_devices(shared: Path, tmp_path: Path, name: str, kinds: dict[str, int]) -> None:
    """The PCI devices of recorded machines are all read, in domains of 32 bits too: GPUs, vector engines, and a console that is no GPU."""
    devices = SysfsDriver(unpacked(shared, name, expected(shared)[name]["root"], tmp_path)).observe().machine.devices
    assert Counter(device.kind for device in devices) == kinds
    assert all(device.class_id for device in devices)
