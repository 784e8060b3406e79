"""A whole machine, put together from what the readers find.

Rules of this file: loaded only when a host is really looked at; most commands of a ledger do not.
"""

from __future__ import annotations

import os

from earmark.core.model.cpuset import format_cpu_list
from earmark.core.model.topology import BASE_PAGE_KIB, NO_CELL, Cpu, Machine
from earmark.core.model.units import KIB
from earmark.drivers.sysfs.cpus import CpuFacts, read_cpus
from earmark.drivers.sysfs.disk import read_disks
from earmark.drivers.sysfs.memory import read_cells
from earmark.drivers.sysfs.pci import read_devices
from earmark.drivers.sysfs.traits import read_model, read_traits
from earmark.drivers.sysfs.tree import Tree
from earmark.drivers.sysfs.usable import Limits, own_affinity, read_limits


def read_machine(tree: Tree, disks: tuple[tuple[str, str | os.PathLike[str]], ...], *, process_limits: bool) -> Machine:
    """Return the machine below a root; `process_limits` applies affinity and cgroups. Raises HostUnavailable if not one CPU can be found."""
    facts = read_cpus(tree)
    cells = read_cells(tree, facts.online)
    cell_of = {cpu: cell.id for cell in cells for cpu in cell.cpus}
    cpus = tuple(_cpu(facts, cpu, cell_of.get(cpu, NO_CELL)) for cpu in facts.online)
    devices = read_devices(tree, (cell.id for cell in cells))
    limits = _limits(tree, facts, process_limits=process_limits)
    threads = len({cpu.core for cpu in cpus}) < len(cpus)
    return Machine(
        cpus=cpus,
        cells=cells,
        devices=devices,
        disks=read_disks(tree, disks),
        offline_cpus=facts.offline,
        usable_cpus=limits.cpus,
        memory_limit_bytes=limits.memory_bytes,
        base_page_kib=_base_page_kib(tree),
        cores_named=facts.cores_named,
        traits=read_traits(tree, os.uname().machine if tree.is_host else None, threads=threads),
        model=read_model(tree),
        notes=tree.notes,
    )


def _limits(tree: Tree, facts: CpuFacts, *, process_limits: bool) -> Limits:
    if not (process_limits and tree.is_host):
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
