"""An observation as `earmark discover --json` shows it."""

from __future__ import annotations

import msgspec

from earmark.core.model.topology import Cell, Cpu, Device, Machine
from earmark.drivers.contract import Observation


def discovery_json(observation: Observation) -> dict[str, object]:
    """Return an observation as plain lists, numbers and texts, sizes in bytes (docs/reference: the schema of `discover`).

    `cpus` are the online CPUs, `cores` and `l3` lists of them; `cores` is empty where the kernel names none. `packages` is a number. A
    cell without CPUs lists under `cpus` those nearest to its memory and has `memory_only` true.
    """
    machine = observation.machine
    return {
        "hostname": observation.hostname,
        "boot_id": observation.boot_id,
        "machine_ref": observation.machine_ref,
        "model": machine.model,
        "traits": list(machine.traits),
        "cpus": [cpu.id for cpu in machine.cpus],
        "offline": list(machine.offline_cpus),
        "isolated": [cpu.id for cpu in machine.cpus if cpu.isolated],
        "usable": [cpu.id for cpu in machine.cpus] if machine.usable_cpus is None else list(machine.usable_cpus),
        "cores": _groups([(cpu.core, cpu.id) for cpu in machine.cpus]) if machine.cores_named else [],
        "l3": _groups([(cpu.l3, cpu.id) for cpu in machine.cpus if cpu.l3 is not None]),
        "dies": _groups([((cpu.package, cpu.die), cpu.id) for cpu in machine.cpus if cpu.die is not None]),
        "sockets": _groups([(cpu.package, cpu.id) for cpu in machine.cpus if cpu.package is not None]),
        "packages": len({cpu.package for cpu in machine.cpus if cpu.package is not None}),
        "kinds": {kind: [cpu.id for cpu in machine.cpus if cpu.kind == kind] for kind in _kinds(machine.cpus)},
        "no_cell": sorted({cpu.id for cpu in machine.cpus} - {cpu for cell in machine.cells for cpu in cell.cpus}),
        "cells": [_cell(machine, cell) for cell in machine.cells],
        "memory_limit_bytes": machine.memory_limit_bytes,
        "base_page_kib": machine.base_page_kib,
        "devices": [_device(machine, device) for device in machine.devices],
        "disks": [{"name": disk.name, "total_bytes": disk.total_bytes, "free_bytes": disk.free_bytes} for disk in machine.disks],
        "notes": list(machine.notes),
        "unread": list(machine.unread),
    }


def nearest_cpus(machine: Machine, cell: Cell) -> tuple[int, ...]:
    """Return the CPUs of a cell, or, if it has none, those of its initiators, or else of the cells at the least distance."""
    if cell.cpus:
        return cell.cpus
    near = set(cell.initiators)
    if not near and len(cell.distances) == len(machine.cells):
        far = [(distance, other) for distance, other in zip(cell.distances, machine.cells, strict=True) if other.cpus]
        least = min((distance for distance, _ in far), default=None)
        near = {other.id for distance, other in far if distance == least}
    return tuple(sorted(cpu for other in machine.cells if other.id in near for cpu in other.cpus))


def _groups(pairs: list[tuple[object, int]]) -> list[list[int]]:
    groups: dict[object, list[int]] = {}
    for key, cpu in pairs:
        groups.setdefault(key, []).append(cpu)
    return sorted(sorted(group) for group in groups.values())


def _kinds(cpus: tuple[Cpu, ...]) -> list[str]:
    return sorted({cpu.kind for cpu in cpus if cpu.kind is not None})


def _cell(machine: Machine, cell: Cell) -> dict[str, object]:
    return {
        "id": cell.id,
        "cpus": list(nearest_cpus(machine, cell)),
        "memory_only": not cell.cpus,
        "memory_bytes": cell.memory_bytes,
        "pages": [{"size_kib": pool.size_kib, "total": pool.total} for pool in cell.pages],
        "distances": list(cell.distances),
    }


def _device(machine: Machine, device: Device) -> dict[str, object]:
    shown: dict[str, object] = msgspec.structs.asdict(device)
    shown["children"] = [child.unit for child in machine.devices if child.parent == device.unit]
    return shown
