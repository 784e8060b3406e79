"""The milder requests about devices, disk and resource classes that could be tried in place of one that was refused.

Rules of this file: those of `core.fit.milder`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial

from msgspec.structs import replace

from earmark.core.fit.devices.match import ANY_PCI, asked_of, policy_of, suits
from earmark.core.fit.devices.rows import stock_of
from earmark.core.fit.free import Supply
from earmark.core.fit.ground import WHOLE, DeviceStock
from earmark.core.fit.guest import is_bound
from earmark.core.fit.milder import AMOUNTS_MAX, Changes, Made
from earmark.core.model.ids import share_pool
from earmark.core.model.refusal import Reason
from earmark.core.model.request import DeviceRequest, Request
from earmark.core.model.units import MIB


def farther_devices(request: Request) -> list[Request]:
    """Return the request with devices that may be farther away: each of its wishes alone, then all of them."""
    near = [number for number, wish in enumerate(request.devices) if policy_of(wish) != "preferred"]
    changes = [_with_device(request, number, replace(request.devices[number], affinity="preferred")) for number in near]
    if len(near) > 1:
        wishes = tuple(replace(wish, affinity="preferred") if number in near else wish for number, wish in enumerate(request.devices))
        changes.append(replace(request, devices=wishes))
    return changes


def smaller_devices(request: Request, supply: Supply) -> list[Request]:
    """Return the request with less memory of the devices of one wish: as much as devices of the node have, the most first."""
    known = {supply.layout.known[unit].memory_bytes or 0 for unit in supply.layout.grantable}
    changes = []
    for number, wish in enumerate(request.devices):
        sizes = {size * (wish.share or WHOLE) // WHOLE // MIB * MIB for size in known}
        smaller = sorted((size for size in sizes if 0 < size < (wish.memory_bytes or 0)), reverse=True)
        changes += [_with_device(request, number, replace(wish, memory_bytes=size)) for size in smaller[:AMOUNTS_MAX]]
    return changes


def smaller_shares(request: Request, supply: Supply) -> list[Request]:
    """Return the request with a smaller part of the devices of one wish, as much as is left of some, the most first; then of their memory too."""
    given = [unit for unit in supply.layout.grantable if supply.layout.known[unit].shares]
    left = {WHOLE - supply.free.used.get(share_pool(unit), 0) for unit in given}
    changes = []
    for number, wish in enumerate(request.devices):
        smaller = sorted((part for part in left if 0 < part < (wish.share or 0)), reverse=True)
        wishes = [replace(wish, share=part) for part in smaller[:AMOUNTS_MAX]]
        if wish.memory_bytes is not None:
            wishes += [
                replace(each, memory_bytes=max(MIB, wish.memory_bytes * (each.share or 0) // (wish.share or WHOLE) // MIB * MIB))
                for each in wishes
            ]
        changes += [_with_device(request, number, each) for each in wishes]
    return changes


def fewer_devices(request: Request, supply: Supply, reasons: Sequence[Reason]) -> list[Request]:
    """Return the request with fewer devices of one wish, or such as need not be linked; then with what is free shared out over all of a kind."""
    changes, shared = [], []
    for number, wish in enumerate(request.devices):
        if wish.linked:
            changes.append(_with_device(request, number, replace(wish, linked=False)))
        others = sum(other.count for other in request.devices if other.kind == wish.kind) - wish.count
        told = {reason.free for reason in reasons if reason.resource == f"device:{wish.kind}"}
        told = told or {len(supply.layout.devices.get(wish.kind, ()))}
        counts = told | {free - others for free in told} | {wish.count - 1}
        fewer = sorted((count for count in counts if 0 < count < wish.count), reverse=True)
        changes += [_with_device(request, number, replace(wish, count=count)) for count in fewer]
        shared += [request if others < 1 else _shared_out(request, wish.kind, free) for free in sorted(told, reverse=True)]
    several = [other for number, other in enumerate(shared) if other != request and other not in (*changes, *shared[:number])]
    return [*changes[:AMOUNTS_MAX], *several[:AMOUNTS_MAX]]


def as_many_devices(request: Request, supply: Supply) -> list[Changes]:
    """Return the request with each smaller number of devices of one wish that could be had, the most first, for each wish for several."""
    several = [number for number, wish in enumerate(request.devices) if wish.count > 1 and not wish.linked]
    stock = stock_of(supply)
    cells = (request.cells or len(request.guest_cells) or 1) if is_bound(request) else None
    changes: list[Changes] = []
    for number in several[:AMOUNTS_MAX]:
        wish = request.devices[number]
        most = min(wish.count - 1, _most_devices(wish, stock, cells))
        changes.append(Made(partial(_with_count, request, number), range(most, 0, -1)))
    return changes


def _with_count(request: Request, number: int, count: int) -> Request:
    return _with_device(request, number, replace(request.devices[number], count=count))


def _most_devices(wish: DeviceRequest, stock: DeviceStock, cells: int | None) -> int:
    """Return a number of devices such that a guest on so many cells (None: it has none) surely cannot have more of them for one wish."""
    asked = asked_of(wish)
    places = Counter(
        device.cell
        for device in stock.devices
        if suits(asked, device, stock.addresses.get(device.parent or device.unit) or device.address or "")
    )
    if cells is None or policy_of(wish) in ("preferred", "socket"):
        return places.total()
    nowhere = places.pop(None, 0)
    near = sum(count for _, count in places.most_common(cells))
    return near + (nowhere if policy_of(wish) == "legacy" else 0)


def _shared_out(request: Request, kind: str, free: int) -> Request:
    """Return a request whose wishes of a kind ask for so many devices together, the largest cut first; as it is if each cannot have one."""
    asked = [wish.count for wish in request.devices if wish.kind == kind]
    if not len(asked) <= free < sum(asked):
        return request
    level = max(cap for cap in range(1, max(asked) + 1) if sum(min(cap, count) for count in asked) <= free)
    left = free - sum(min(level, count) for count in asked)
    wishes = []
    for wish in request.devices:
        more = wish.kind == kind and wish.count > level and left > 0
        left -= more
        wishes.append(replace(wish, count=min(wish.count, level + more)) if wish.kind == kind else wish)
    return replace(request, devices=tuple(wishes))


def without_devices(request: Request, supply: Supply, reasons: Sequence[Reason]) -> list[Request]:
    """Return the request without one of its wishes for devices, then without all those that cannot have one, then with fewer others."""
    every = range(len(request.devices))
    one = [replace(request, devices=tuple(wish for other, wish in enumerate(request.devices) if other != number)) for number in every]
    none = {reason.resource for reason in reasons if reason.free <= 0}
    there = (*supply.layout.devices, ANY_PCI)
    left = tuple(wish for wish in request.devices if wish.kind in there and f"device:{wish.kind}" not in none)
    rest = replace(request, devices=left)
    without = [*one[:AMOUNTS_MAX], *([rest] if len(left) < len(every) - 1 else [])]
    return without if len(left) == len(every) else [*without, *fewer_devices(rest, supply, reasons)]


def _with_device(request: Request, number: int, wish: DeviceRequest) -> Request:
    return replace(request, devices=(*request.devices[:number], wish, *request.devices[number + 1 :]))


def less_stock(request: Request, reason: Reason) -> list[Request]:
    """Return the request with what is free of a disk or a class."""
    kind, _, name = reason.resource.partition(":")
    if kind == "disk" and reason.free > 0:
        return [replace(request, disk_bytes=reason.free // MIB * MIB or reason.free)]
    if kind == "class" or (kind == "device" and name.startswith("class:")):
        name = name.removeprefix("class:")
        if reason.free > 0:
            kept = tuple(replace(item, amount=reason.free) if item.resource_class == name else item for item in request.resources)
        else:
            kept = tuple(item for item in request.resources if item.resource_class != name)
        return [replace(request, resources=kept)]
    return []
