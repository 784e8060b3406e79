"""`earmark discover`: read the machine and print what is there; no ledger is needed."""

from __future__ import annotations

from pathlib import Path

import click

from earmark.cli import phrases
from earmark.cli.session import Session
from earmark.cli.verb import Verb
from earmark.core.model.cpuset import format_cpu_list
from earmark.core.model.topology import Device, Machine
from earmark.core.model.units import counted, format_bytes
from earmark.drivers.contract import Observation
from earmark.errors import InvalidRequest
from earmark.wiring import look_at

GROUPS_SHOWN_MAX = 8
DEVICES_SHOWN_MAX = 60
BRIDGES = ("bridge", "other")


@click.command(cls=Verb)
@click.option("--root", metavar="DIR", help="The folder that stands for /: a machine's copied /sys and /proc.")
@click.pass_obj
def discover(session: Session, *, root: str | None) -> int:
    """Read the machine and print what is there.

    The ledger is neither needed nor changed.
    """
    if root is not None and not Path(root).is_dir():
        raise InvalidRequest(f"--root {root!r} is not a folder", found=root)
    seen, shown = look_at(session.settings, None if root is None else Path(root))
    if session.json:
        session.emit(shown)
    else:
        session.out(discovered_lines(seen))
    return 0


def discovered_lines(seen: Observation) -> list[str]:
    """Return what was seen, a fact a line."""
    machine = seen.machine
    lines = [phrases.clean(f"{seen.hostname or 'a machine'}  {machine.model or ''}".rstrip())]
    lines += [f"  {label:<9} {phrases.clean(text)}" for label, text in facts(machine) if text]
    for cell in machine.cells:
        pools = ", ".join(f"{pool.total} x {phrases.pages(pool.size_kib)}" for pool in cell.pages if pool.total)
        cpus = f"cpu {format_cpu_list(cell.cpus)}" if cell.cpus else "no CPUs"
        distances = " ".join(str(each) for each in cell.distances) if len(machine.cells) > 1 else ""
        parts = [cpus, format_bytes(cell.memory_bytes), f"pages {pools}" if pools else "", f"distances {distances}" if distances else ""]
        lines.append(f"  {f'cell {cell.id}':<9} " + " · ".join(part for part in parts if part))
    lines += device_lines(machine.devices)
    lines += [
        f"  {'disk':<9} {phrases.name(disk.name)}: {format_bytes(disk.total_bytes)}{_free(disk.free_bytes)}" for disk in machine.disks
    ]
    lines += [f"  {'note':<9} {phrases.clean(note)}" for note in machine.notes]
    return lines


def facts(machine: Machine) -> list[tuple[str, str]]:
    """Return what is said of the CPUs and of what this process may use."""
    cores: dict[int, list[int]] = {}
    for cpu in machine.cpus:
        cores.setdefault(cpu.core, []).append(cpu.id)
    threads = max((len(cpus) for cpus in cores.values()), default=1)
    packages = {cpu.package for cpu in machine.cpus if cpu.package is not None}
    dies = {(cpu.package, cpu.die) for cpu in machine.cpus if cpu.die is not None}
    caches = {cpu.l3 for cpu in machine.cpus if cpu.l3 is not None}
    kinds = sorted({cpu.kind for cpu in machine.cpus if cpu.kind is not None})
    return [
        ("cpus", f"{format_cpu_list(cpu.id for cpu in machine.cpus)} ({len(machine.cpus)} online)"),
        ("offline", format_cpu_list(machine.offline_cpus)),
        ("isolated", format_cpu_list(cpu.id for cpu in machine.cpus if cpu.isolated)),
        ("usable", format_cpu_list(machine.usable_cpus) + " by this process" if machine.usable_cpus is not None else ""),
        ("cores", f"{len(cores)}, up to {threads} threads each" if threads > 1 else f"{len(cores)}"),
        ("kinds", ", ".join(f"{kind}: cpu {format_cpu_list(cpu.id for cpu in machine.cpus if cpu.kind == kind)}" for kind in kinds)),
        (
            "packages",
            f"{len(packages)}" + (f", {counted(len(dies), 'die')}" if len(dies) > len(packages) else "") if packages else "",
        ),
        ("l3", counted(len(caches), "domain") if caches else ""),
        ("memory", format_bytes(sum(cell.memory_bytes for cell in machine.cells)) + _limit(machine)),
    ]


def device_lines(devices: tuple[Device, ...]) -> list[str]:
    """Return the devices a line each, without bridges and the like, which are counted."""
    shown = [device for device in devices if device.kind not in BRIDGES]
    lines = []
    for device in shown[:DEVICES_SHOWN_MAX]:
        parts = [
            device.unit, ":".join(each for each in (device.vendor_id, device.product_id) if each), device.name or "",
            f"cell {device.cell}" if device.cell is not None else "", f"driver {device.driver}" if device.driver else "",
            f"iommu {device.iommu_group}" if device.iommu_group is not None else "", f"of {device.parent}" if device.parent else "",
            f"up to {device.sriov_total} VFs" if device.sriov_total else "",
        ]  # fmt: skip
        lines.append(f"  {phrases.clean(device.kind, 9):<9} " + phrases.clean(" · ".join(part for part in parts if part)))
    rest = len(devices) - min(len(shown), DEVICES_SHOWN_MAX)
    if rest:
        lines.append(f"  {'devices':<9} {rest} more: earmark discover --json")
    return lines


def _free(free_bytes: int | None) -> str:
    return "" if free_bytes is None else f", {format_bytes(free_bytes)} free now"


def _limit(machine: Machine) -> str:
    return "" if machine.memory_limit_bytes is None else f", this process may use {format_bytes(machine.memory_limit_bytes)}"
