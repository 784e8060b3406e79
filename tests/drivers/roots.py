"""Small made-up roots: folders of text files that stand for the /sys and /proc of a host."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Self

from earmark.core.model.cpuset import parse_cpu_list
from earmark.core.model.topology import Cell, Cpu, Device, Machine
from earmark.drivers.sysfs.observe import SysfsDriver

CPU = "sys/devices/system/cpu"
NODE = "sys/devices/system/node"
PCI = "sys/bus/pci/devices"
BOOT = "11111111-2222-3333-4444-555555555555"
MACHINE_ID = "0123456789abcdef0123456789abcdef"
NOBODY = 65534


class Root:
    """A folder that stands for `/`; the methods write files and return it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)

    def write(self, name: str, text: str) -> Self:
        """Write one file, with the new line that the kernel ends it with."""
        return self.raw(name, text.encode() + b"\n")

    def raw(self, name: str, content: bytes) -> Self:
        """Write one file as it is."""
        place = self.path / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
        return self

    def folder(self, name: str) -> Self:
        """Make an empty folder."""
        (self.path / name).mkdir(parents=True, exist_ok=True)
        return self

    def link(self, name: str, target: str) -> Self:
        """Make a symbolic link."""
        place = self.path / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(target)
        return self

    def cores(self, cores: Iterable[str], *, packages: Iterable[str] = (), l3: Iterable[str] = ()) -> Self:
        """Write the topology files of cores ("0,4"), packages ("0-7", numbered from 0) and level 3 caches, and who is online."""
        listed = [parse_cpu_list(core) for core in cores]
        online = sorted(cpu for core in listed for cpu in core)
        self.write(f"{CPU}/online", ",".join(map(str, online)))
        self.write(f"{CPU}/present", ",".join(map(str, online)))
        for core in listed:
            for cpu in core:
                self.write(f"{CPU}/cpu{cpu}/topology/core_cpus_list", ",".join(map(str, core)))
        for number, package in enumerate(packages):
            for cpu in parse_cpu_list(package):
                self.write(f"{CPU}/cpu{cpu}/topology/package_cpus_list", package)
                self.write(f"{CPU}/cpu{cpu}/topology/physical_package_id", str(number))
        for cache in l3:
            for cpu in parse_cpu_list(cache):
                self.write(f"{CPU}/cpu{cpu}/cache/index3/level", "3").write(f"{CPU}/cpu{cpu}/cache/index3/shared_cpu_list", cache)
        return self

    def node(self, number: int, cpus: str, kib: int, *, distance: str | None = None, pages: Mapping[int, int] | None = None) -> Self:
        """Write one NUMA node: its CPUs, memory, distances and numbers of pages by size in KiB."""
        folder = f"{NODE}/node{number}"
        self.write(f"{folder}/cpulist", cpus)
        self.write(f"{folder}/meminfo", f"Node {number} MemTotal:       {kib} kB\nNode {number} MemFree:  1 kB")
        if distance is not None:
            self.write(f"{folder}/distance", distance)
        for size, count in (pages or {}).items():
            self.write(f"{folder}/hugepages/hugepages-{size}kB/nr_hugepages", str(count))
        return self

    def device(self, address: str, class_id: str, vendor: str = "8086", product: str = "1572", **files: str) -> Self:
        """Write one PCI device; further files by name."""
        folder = f"{PCI}/{address}"
        texts = {"class": f"0x{class_id}", "vendor": f"0x{vendor}", "device": f"0x{product}", "subsystem_vendor": "0x1028"}
        for name, text in {**texts, "subsystem_device": "0x0001", "numa_node": "-1", **files}.items():
            self.write(f"{folder}/{name}", text)
        return self

    def machine(self) -> Machine:
        """Return what the driver sees here."""
        return SysfsDriver(self.path).observe().machine

    def said(self, text: str) -> bool:
        """Say whether one of the driver's notes contains a text."""
        return any(text in note for note in self.machine().notes)


def two_sockets(root: Root) -> Root:
    """Two packages of two cores of two threads, a cell each, with 2 MiB and 1 GiB pages."""
    root.cores(["0,4", "1,5", "2,6", "3,7"], packages=["0-1,4-5", "2-3,6-7"], l3=["0-1,4-5", "2-3,6-7"])
    root.node(0, "0-1,4-5", 8 << 20, distance="10 21", pages={2048: 512, 1048576: 2})
    root.node(1, "2-3,6-7", 8 << 20, distance="21 10", pages={2048: 0, 1048576: 1})
    root.write("proc/sys/kernel/random/boot_id", BOOT).write("etc/machine-id", MACHINE_ID).write("proc/sys/kernel/hostname", "alpha")
    return root


def cpu(machine: Machine, number: int) -> Cpu:
    """Return one CPU of a machine."""
    return next(cpu for cpu in machine.cpus if cpu.id == number)


def cell(machine: Machine, number: int) -> Cell:
    """Return one cell of a machine."""
    return next(cell for cell in machine.cells if cell.id == number)


def device(machine: Machine, address: str) -> Device:
    """Return the device at an address."""
    return next(device for device in machine.devices if device.address == address)


def as_nobody(question: Callable[[], bool]) -> bool:
    """Ask a question in a forked process without root's rights; False if it fails there."""
    child = os.fork()
    if child == 0:
        answer = 1
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            answer = 0 if question() else 1
        finally:
            os._exit(answer)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
