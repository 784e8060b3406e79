"""One look at a whole Linux host.

Rules of this file: facts of the running process (affinity, cgroups, page size, file systems, name) are asked only where the root is
the host's own; a recorded root gets what its files say. The machine id leaves this file only as a keyed hash.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from pathlib import Path

from earmark.core.model.cpuset import format_cpu_list
from earmark.core.model.topology import BASE_PAGE_KIB, NO_CELL, Cpu, Machine
from earmark.core.model.units import KIB
from earmark.drivers.contract import Observation
from earmark.drivers.sysfs.boot import read_boot_id
from earmark.drivers.sysfs.cpus import CpuFacts, read_cpus
from earmark.drivers.sysfs.disk import read_disks
from earmark.drivers.sysfs.memory import read_cells
from earmark.drivers.sysfs.pci import read_devices
from earmark.drivers.sysfs.traits import read_model, read_traits
from earmark.drivers.sysfs.tree import Tree
from earmark.drivers.sysfs.usable import Limits, own_affinity, read_limits

MACHINE_IDS = ("/etc/machine-id", "/var/lib/dbus/machine-id")
MACHINE_ID = re.compile(r"[0-9a-f]{32}")
MACHINE_KEY = b"earmark: the machine under a ledger"
"""The application's key, as machine-id(5) asks for: the id itself is confidential and never stored."""
HOSTNAMES = ("/proc/sys/kernel/hostname", "/etc/hostname")
HOSTNAME_LENGTH_MAX = 253


class SysfsDriver:
    """Sees the host below `root`. `disks` are (name, path) pairs; `use_process_limits` False ignores affinity and cgroups."""

    def __init__(
        self, root: Path = Path("/"), disks: tuple[tuple[str, str | os.PathLike[str]], ...] = (), *, use_process_limits: bool = True
    ) -> None:
        self.root = root
        self.disks = disks
        self.use_process_limits = use_process_limits

    def observe(self) -> Observation:
        """Look at the whole host; raises HostUnavailable only if not even one CPU can be found."""
        tree = Tree(self.root)
        facts = read_cpus(tree)
        cells = read_cells(tree, facts.online)
        cell_of = {cpu: cell.id for cell in cells for cpu in cell.cpus}
        cpus = tuple(_cpu(facts, cpu, cell_of.get(cpu, NO_CELL)) for cpu in facts.online)
        devices = read_devices(tree, (cell.id for cell in cells))
        limits = self._limits(tree, facts)
        threads = len({cpu.core for cpu in cpus}) < len(cpus)
        machine = Machine(
            cpus=cpus,
            cells=cells,
            devices=devices,
            disks=read_disks(tree, self.disks),
            offline_cpus=facts.offline,
            usable_cpus=limits.cpus,
            memory_limit_bytes=limits.memory_bytes,
            base_page_kib=_base_page_kib(tree),
            cores_named=facts.cores_named,
            traits=read_traits(tree, os.uname().machine if tree.is_host else None, threads=threads),
            model=read_model(tree),
            notes=tree.notes,
        )
        return Observation(machine=machine, hostname=self.hostname(), boot_id=self.boot_id(), machine_ref=self.machine_ref())

    def boot_id(self) -> str:
        """Return the id of this boot ("" where the kernel gives none)."""
        return read_boot_id(self.root / "proc")

    def machine_ref(self) -> str | None:
        """Return the keyed SHA-256 of the machine id in hexadecimal; None where there is no machine id."""
        tree = Tree(self.root)
        for path in MACHINE_IDS:
            text = tree.text(path)
            if text is not None and MACHINE_ID.fullmatch(text) and text.strip("0"):
                return hmac.new(MACHINE_KEY, text.encode("ascii"), hashlib.sha256).hexdigest()
        return None

    def hostname(self) -> str:
        """Return the host's name; "" where a recorded root does not tell it."""
        tree = Tree(self.root)
        names = (os.uname().nodename,) if tree.is_host else (tree.text(path) for path in HOSTNAMES)
        return next((name for name in names if name and len(name) <= HOSTNAME_LENGTH_MAX and name.isprintable()), "")

    def _limits(self, tree: Tree, facts: CpuFacts) -> Limits:
        if not (self.use_process_limits and tree.is_host):
            return Limits()
        found = read_limits(tree, own_affinity(tree))
        if found.cpus is None:
            return found
        usable = tuple(cpu for cpu in found.cpus if cpu in facts.groups)
        if not usable:
            tree.note(
                f"affinity and cpuset allow CPUs {format_cpu_list(found.cpus) or 'none'} only, of which none is online; they are not applied"
            )
        return found._replace(cpus=None if usable in ((), facts.online) else usable)


def _cpu(facts: CpuFacts, cpu: int, cell: int) -> Cpu:
    group = facts.groups[cpu]
    return Cpu(
        id=cpu, core=group.core, cell=cell, package=group.package, die=group.die, l3=group.l3, kind=group.kind, isolated=group.isolated
    )  # fmt: skip


def _base_page_kib(tree: Tree) -> int:
    if not tree.is_host:
        return BASE_PAGE_KIB
    try:
        return os.sysconf("SC_PAGE_SIZE") // KIB
    except (OSError, ValueError) as error:
        tree.note(f"page size: {error}; {BASE_PAGE_KIB} KiB is assumed")
        return BASE_PAGE_KIB
