"""What excludes what: the one table that fit, fold, auditor and stores share.

Rules of this file: two units that exclude each other share an exclusion slot. A unit without children occupies its own name; a
parent (a PF with VFs, a GPU with slices) occupies its own name and every slot of its children, so parent and child collide while
two children do not. An SR-IOV parent also occupies the names of all VFs that it could ever have (their addresses follow from its own),
so a VF that appears while its parent is held collides too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from earmark.core.model.ids import Slot, UnitId
from earmark.core.model.topology import Device

PCI_ADDRESS = re.compile(r"([0-9a-f]{4,8}):([0-9a-f]{2}):([0-9a-f]{2})\.([0-7])")
ROUTING_IDS = 0x10000


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
        slots = {Slot(device.unit), *future_functions(device)}
        seen: set[UnitId] = set()
        below = list(children.get(device.unit, ()))
        while below:
            child = below.pop()
            if child != device.unit and child not in seen:
                seen.add(child)
                slots.add(Slot(child))
                below.extend(children.get(child, ()))
        table[device.unit] = tuple(sorted(slots))
    return table


def future_functions(device: Device) -> tuple[Slot, ...]:
    """Return the names of all virtual functions that a physical one can have, () where offset or stride are not known.

    Source: PCI Express SR-IOV, "First VF Offset" and "VF Stride": the routing id of VF n is that of the PF + offset + n x stride.
    """
    own = routing_id(device.address)
    if own is None or device.address is None or not device.sriov_total or not device.sriov_offset:
        return ()
    domain = device.address.partition(":")[0]
    found = []
    for number in range(device.sriov_total):
        routing = own + device.sriov_offset + number * device.sriov_stride
        if routing < ROUTING_IDS:
            found.append(Slot(f"pci:{domain}:{routing >> 8:02x}:{routing >> 3 & 0x1F:02x}.{routing & 7:x}"))
    return tuple(found)


def routing_id(address: str | None) -> int | None:
    """Return bus, device and function of a PCI address as one number, None for what is no such address."""
    match = PCI_ADDRESS.fullmatch(address or "")
    return int(match[2], 16) << 8 | int(match[3], 16) << 3 | int(match[4], 16) if match else None


def place_on(parent: str | None, child: str | None) -> int | None:
    """Return how far the address of a function is from that of its card, None where one of them is not known."""
    card, own = routing_id(parent), routing_id(child)
    return None if card is None or own is None else own - card
