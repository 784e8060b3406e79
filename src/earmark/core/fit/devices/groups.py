"""Which devices hang together on a machine: parents above their children, and those that one IOMMU group holds together.

Rules of this file: facts of the machine alone, nothing of claims.
"""

from __future__ import annotations

from collections.abc import Iterable

import immutables

from earmark.core.model.ids import Slot, UnitId
from earmark.core.model.topology import Device

BRIDGE = "bridge"


def above_of(devices: Iterable[Device]) -> immutables.Map[UnitId, tuple[Slot, ...]]:
    """Return the own slots of each device's parents, the nearest first; a circle of parents ends where it closes."""
    parents = {device.unit: device.parent for device in devices}
    lines: dict[UnitId, tuple[Slot, ...]] = {}
    for unit, nearest in parents.items():
        line: list[Slot] = []
        parent = nearest
        while parent is not None and parent != unit and Slot(parent) not in line:
            line.append(Slot(parent))
            parent = parents.get(parent)
        lines[unit] = tuple(line)
    return immutables.Map(lines)


def groups_of(devices: Iterable[Device]) -> immutables.Map[UnitId, tuple[UnitId, ...]]:
    """Return the other members of each device's IOMMU group: what can reach its memory if they are not given together (Linux, vfio)."""
    members: dict[int, list[UnitId]] = {}
    for device in devices:
        if device.iommu_group is not None and device.kind != BRIDGE:
            members.setdefault(device.iommu_group, []).append(device.unit)
    return immutables.Map(
        (unit, tuple(sorted(other for other in group if other != unit))) for group in members.values() if len(group) > 1 for unit in group
    )
