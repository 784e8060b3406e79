"""The reasons of a refusal that are about devices, checked again by other means than those that found them.

Rules of this file: nothing of the choice of devices is used: what is free is read from the books, what can be had is counted by the check of
certificates (`certify_devices`). What is too large for that check is not doubted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

import immutables
from msgspec.structs import replace

from earmark.core.fit.free import Supply
from earmark.core.fit.ground import DeviceStock
from earmark.core.fit.proof.certify_devices import DeviceCheck, TooLarge
from earmark.core.model.ids import Slot, UnitId
from earmark.core.model.refusal import Reason
from earmark.core.model.request import DeviceRequest, Request, ResourceAmount

DEVICE = "device:"
SHARE = "share:"
SUBSETS_MAX = 12
"""Up to so many requests it is looked at which of them a reason may be about."""


def check_short_devices(reason: Reason, request: Request, supply: Supply) -> Iterator[str]:
    """Yield what is wrong with a reason that too few devices can be had, or that too few are near (then `free` may be less than all)."""
    if reason.short != reason.asked - reason.free or reason.short < 1:
        yield f"asked {reason.asked} less free {reason.free} is not a shortage of {reason.short}"
    stock = books_of(supply)
    kind = reason.resource.removeprefix(DEVICE)
    groups = [group for group in _alike(request, supply, kind) if reason.asked in _sums(group)]
    if not groups:
        yield f"{reason.asked} is asked for by no wish for {kind}"
        return
    near = reason.code == "affinity"
    try:
        if not any(_most_is(group[0], reason.free, stock, at_least=near) for group in groups):
            yield f"it is not {reason.free} of {kind} that can be had"
    except TooLarge:
        return


def check_excluded(reason: Reason, request: Request, supply: Supply) -> Iterator[str]:
    """Yield what is wrong with a reason that devices exclude each other."""
    if reason.asked - reason.free != reason.short or reason.short < 1:
        yield f"asked {reason.asked} less free {reason.free} is not a shortage of {reason.short}"
    kinds = reason.resource.removeprefix(DEVICE).split("+")
    wishes = [wish for wish in wishes_of(request, supply) if wish.kind in kinds]
    stock = books_of(supply)
    try:
        if any(not DeviceCheck([wish], stock).enough(None) for wish in wishes):
            yield "one of the wishes is short by itself"
        if DeviceCheck(wishes, stock).enough(None):
            yield "all of them can be had at once"
    except TooLarge:
        return


def check_kept_out(reason: Reason, request: Request, supply: Supply) -> Iterator[str]:
    """Yield what is wrong with a reason that a device is not offered because of others of its IOMMU group."""
    units = {device.unit for device in books_of(supply).devices}
    if reason.unit is None or reason.unit in units or UnitId(reason.unit) not in supply.layout.groups:
        yield f"{reason.unit} is not kept out by its IOMMU group"
    if not request.devices and not request.resources:
        yield "no device is asked for"


def wishes_of(request: Request, supply: Supply) -> list[DeviceRequest]:
    """Return the devices that a request asks for, with those classes that the node counts in units."""
    units = {supply.layout.known[unit].resource_class for unit in supply.layout.grantable}
    named: list[ResourceAmount] = [item for item in request.resources if item.resource_class in units]
    return [*request.devices, *(DeviceRequest(kind=f"class:{item.resource_class}", count=item.amount) for item in named)]


def books_of(supply: Supply) -> DeviceStock:
    """Return the devices that could be given now, read from the books one by one."""
    layout = supply.layout
    stopped = set(supply.free.slots)
    for unit in supply.barred_units:
        stopped.update(layout.slots.get(unit, (Slot(unit),)))
    shared = {UnitId(pool.removeprefix(SHARE)): amount for pool, amount in supply.free.used.items() if pool.startswith(SHARE)}
    there = []
    for unit in sorted(layout.grantable, key=lambda unit: (layout.known[unit].address or "", unit)):
        line = {*layout.slots[unit], *layout.above[unit]}
        others = {slot for other in shared if other != unit for slot in layout.slots.get(other, (Slot(other),))}
        if stopped.isdisjoint(line) and others.isdisjoint(line) and not _group_stops(unit, stopped | others, shared, supply):
            there.append(layout.known[unit])
    return DeviceStock(
        devices=tuple(there),
        slots=layout.slots,
        sockets=immutables.Map((cell.id, cell.socket) for cell in layout.cells if cell.online),
        shares=immutables.Map((unit, 1000 - amount) for unit, amount in shared.items()),
        addresses=immutables.Map((device.unit, device.address or "") for device in layout.known.values()),
    )


def _group_stops(unit: UnitId, stopped: set[Slot], shared: Mapping[UnitId, int], supply: Supply) -> bool:
    """Say whether a unit's IOMMU group cannot be given as a whole."""
    layout = supply.layout
    members = [unit, *layout.groups.get(unit, ())]
    slots = [slot for member in members for slot in layout.slots[member]]
    taken = any(not stopped.isdisjoint((*layout.slots[other], *layout.above[other])) for other in members[1:])
    taken = taken or not shared.keys().isdisjoint(members)
    return len(members) > 1 and (taken or len(set(slots)) != len(slots))


def _alike(request: Request, supply: Supply, kind: str) -> list[list[DeviceRequest]]:
    """Return the wishes for a kind, those for the same thing together."""
    groups: dict[str, list[DeviceRequest]] = {}
    for number, wish in enumerate(wishes_of(request, supply)):
        if wish.kind == kind:
            alone = f" {number}" if wish.linked or wish.share is not None else ""
            groups.setdefault(repr(replace(wish, count=1, alias=None)) + alone, []).append(wish)
    return list(groups.values())


def _sums(group: Sequence[DeviceRequest]) -> set[int]:
    """Return how many devices some of a few wishes ask for together."""
    counts = [wish.count for wish in group]
    if len(counts) > SUBSETS_MAX:
        return set(range(1, sum(counts) + 1))
    return {sum(some) for size in range(1, len(counts) + 1) for some in combinations(counts, size)}


def _most_is(wish: DeviceRequest, free: int, stock: DeviceStock, *, at_least: bool) -> bool:
    """Say whether exactly so many devices can be had for a wish (or at least so many)."""
    if free and not DeviceCheck([replace(wish, count=free)], stock).enough(None):
        return False
    return at_least or not DeviceCheck([replace(wish, count=free + 1)], stock).enough(None)
