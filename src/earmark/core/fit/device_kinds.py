"""Devices by kind and count alone: which of them, never one together with what it excludes (`devices.py` knows all wishes).

Rules of this file: what excludes what is the layout's slot table and nothing else. The plain way (nearest first, then what excludes
fewest, then by address) is tried first; only if it fails and devices are nested, an exact search over the trees of parents and children
follows. A blocked unit blocks everything that shares a slot with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from earmark.core.fit.free import Supply
from earmark.core.fit.refusal import short
from earmark.core.model.ids import Slot, UnitId
from earmark.core.model.refusal import Reason
from earmark.core.model.request import DeviceRequest
from earmark.core.model.topology import Device

Wish = Mapping[str, int]
"""How many devices of each kind."""


def wish_of(requests: Iterable[DeviceRequest]) -> dict[str, int]:
    """Return the number of devices of each kind that a request asks for, kinds in order."""
    wish: dict[str, int] = {}
    for item in requests:
        wish[item.kind] = wish.get(item.kind, 0) + item.count
    return dict(sorted(wish.items()))


def available(supply: Supply, kinds: Iterable[str]) -> tuple[Device, ...]:
    """Return the devices of some kinds that are free and not blocked, in order of address."""
    layout, held = supply.layout, supply.free.slots
    blocked = blocked_slots(supply)
    return tuple(
        device
        for kind in kinds
        for device in layout.devices.get(kind, ())
        if not any(slot in held or slot in blocked for slot in (*layout.slots[device.unit], *layout.above[device.unit]))
    )


def blocked_slots(supply: Supply) -> frozenset[Slot]:
    """Return the slots that blocked units occupy."""
    slots = supply.layout.slots
    return frozenset(slot for unit in supply.blocked_units for slot in slots.get(unit, (Slot(unit),)))


def device_reasons(supply: Supply, wish: Wish, devices: Sequence[Device]) -> list[Reason]:
    """Return why a wish cannot be met from the available devices, nothing if it can."""
    reasons = []
    for kind, count in wish.items():
        most = len(_best([device for device in devices if device.kind == kind], {kind: count}, supply, None))
        if most < count:
            there = len(supply.layout.devices.get(kind, ()))
            detail = f"{there} of this kind may be handed out" if there else "the node has none that may be handed out"
            reasons.append(short(f"device:{kind}", count, most, detail=detail))
    if not reasons and len(wish) > 1:
        asked, most = sum(wish.values()), len(_best(devices, wish, supply, None))
        if most < asked:
            kinds = "+".join(wish)
            detail = "some exclude each other: a parent is not given together with its children"
            reasons.append(Reason(code="excluded", resource=f"device:{kinds}", asked=asked, free=most, short=asked - most, detail=detail))
    return reasons


def misses(devices: Sequence[Device], wish: Wish, cell: int) -> int:
    """Return how many wished devices the available ones of a cell cannot provide."""
    there = dict.fromkeys(wish, 0)
    for device in devices:
        if device.cell == cell:
            there[device.kind] += 1
    return sum(max(0, count - there[kind]) for kind, count in wish.items())


def home(devices: Sequence[Device], wish: Wish) -> int | None:
    """Return the cell that has most of the wished devices, None if no device's cell is known."""
    cells = sorted({device.cell for device in devices if device.cell is not None})
    return min(cells, key=lambda cell: (misses(devices, wish, cell), cell), default=None)


def pick(devices: Sequence[Device], wish: Wish, supply: Supply, cell: int | None) -> tuple[Device, ...]:
    """Return the devices that meet a wish (it can be met), near `cell` first, sorted by unit."""
    return tuple(sorted(_best(devices, wish, supply, cell), key=lambda device: device.unit))


def _best(devices: Sequence[Device], wish: Wish, supply: Supply, cell: int | None) -> tuple[Device, ...]:
    """Return devices that meet a wish or, if it cannot be met, as many of them as can be had together."""
    slots = supply.layout.slots
    order = sorted(devices, key=lambda d: (d.cell != cell, len(slots[d.unit]), d.address or "", d.unit))
    chosen = _plain(order, wish, slots)
    if len(chosen) == sum(wish.values()) or all(len(slots[device.unit]) == 1 for device in devices):
        return chosen
    return _exact(order, wish, slots)


def _plain(order: Iterable[Device], wish: Wish, slots: Mapping[UnitId, tuple[Slot, ...]]) -> tuple[Device, ...]:
    """Return what taking the first that still fits gives."""
    left = dict(wish)
    taken: set[Slot] = set()
    chosen = []
    for device in order:
        if left[device.kind] and taken.isdisjoint(slots[device.unit]):
            chosen.append(device)
            left[device.kind] -= 1
            taken.update(slots[device.unit])
    return tuple(chosen)


Plans = dict[tuple[int, ...], tuple[Device, ...]]
"""For each number of devices by kind that can be had together, the first way to have them; more than wished counts as wished."""


def _exact(order: Sequence[Device], wish: Wish, slots: Mapping[UnitId, tuple[Slot, ...]]) -> tuple[Device, ...]:
    """Return the most devices that a wish can get, by going through the trees of parents and children.

    Each device belongs to the tree of the largest device that excludes it; a tree gives either its root or what its branches give.
    """
    plans: Plans = {(0,) * len(wish): ()}
    for root, below in _trees(order, slots):
        plans = _joined(plans, _tree_plans(root, below, wish, slots), wish)
    best = max(plans, key=lambda counts: (sum(counts), counts))
    left = dict(wish)
    chosen = []
    for device in plans[best]:
        if left[device.kind]:
            left[device.kind] -= 1
            chosen.append(device)
    return tuple(chosen)


def _trees(order: Sequence[Device], slots: Mapping[UnitId, tuple[Slot, ...]]) -> list[tuple[Device, list[Device]]]:
    """Return the roots among some devices, each with the devices that it excludes, both in the given order."""
    root_of: dict[Slot, Device] = {}
    below: dict[UnitId, list[Device]] = {}
    for device in sorted(order, key=lambda device: -len(slots[device.unit])):
        if Slot(device.unit) not in root_of:
            below[device.unit] = []
            root_of.update((slot, device) for slot in slots[device.unit])
    for device in order:
        root = root_of[Slot(device.unit)]
        if root is not device:
            below[root.unit].append(device)
    return [(device, below[device.unit]) for device in order if device.unit in below]


def _tree_plans(root: Device, below: Sequence[Device], wish: Wish, slots: Mapping[UnitId, tuple[Slot, ...]]) -> Plans:
    """Return what one tree can give: without its root, or its root alone."""
    plans: Plans = {(0,) * len(wish): ()}
    for child, deeper in _trees(below, slots):
        plans = _joined(plans, _tree_plans(child, deeper, wish, slots), wish)
    plans.setdefault(tuple(int(kind == root.kind) for kind in wish), (root,))
    return _undominated(plans)


def _joined(first: Plans, second: Plans, wish: Wish) -> Plans:
    """Return what two separate sets of devices can give together."""
    plans: Plans = {}
    for counts, devices in first.items():
        for more, others in second.items():
            both = tuple(min(a + b, most) for a, b, most in zip(counts, more, wish.values(), strict=True))
            plans.setdefault(both, devices + others)
    return _undominated(plans)


def _undominated(plans: Plans) -> Plans:
    """Return the plans without those that another one beats in some kind and equals in the rest."""
    return {
        counts: devices
        for counts, devices in plans.items()
        if not any(other != counts and all(a >= b for a, b in zip(other, counts, strict=True)) for other in plans)
    }
