"""What excludes what: the one table that fit, fold, auditor and stores share.

Rules of this file: two units that exclude each other share an exclusion slot. A unit without children occupies its own name; a
parent (a PF with VFs, a GPU with slices) occupies its own name and every slot of its children, so parent and child collide while
two children do not. An SR-IOV parent occupies the numbered slots of all VFs that it could ever have, so a VF that appears later
collides too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from earmark.core.model.ids import Slot, UnitId
from earmark.core.model.topology import Device


def own_slots(unit: UnitId) -> tuple[Slot, ...]:
    """Return the slots of a unit that has neither parent nor children (a CPU, a named unit, a plain device)."""
    return (Slot(unit),)


def slot_table(devices: Iterable[Device]) -> Mapping[UnitId, tuple[Slot, ...]]:
    """Return the slots that each device occupies, sorted.

    A child's slot is its own unit name; a parent has its own, its children's, and those of its children's children.
    """
    listed = list(devices)
    children: dict[UnitId, list[UnitId]] = {}
    for device in listed:
        if device.parent is not None:
            children.setdefault(device.parent, []).append(device.unit)
    table: dict[UnitId, tuple[Slot, ...]] = {}
    for device in listed:
        slots = {Slot(device.unit)}
        below = list(children.get(device.unit, ()))
        while below:
            child = below.pop()
            if child != device.unit and Slot(child) not in slots:
                slots.add(Slot(child))
                below.extend(children.get(child, ()))
        table[device.unit] = tuple(sorted(slots))
    return table
