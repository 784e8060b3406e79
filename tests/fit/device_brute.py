"""Devices the slow way: every way to give devices to requests, each judged by the rules alone, and small random stocks to try it on.

Rules of this file: nothing of earmark.core.fit but the stock is used, so that two programs have to agree.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import permutations
from random import Random
from typing import NamedTuple

from earmark.core.fit.ground import DeviceStock
from earmark.core.model.exclusion import slot_table
from earmark.core.model.ids import ResourceClass, Trait, UnitId
from earmark.core.model.request import DeviceRequest
from earmark.core.model.topology import Device

Way = tuple[tuple[Device, ...], ...]
"""One ordered tuple of devices for each request."""
Cells = frozenset[int] | None
FAST = Trait("CUSTOM_FAST")
DONGLE = ResourceClass("CUSTOM_DONGLE")


class Case(NamedTuple):
    """A stock, requests, and the cells of the guest."""

    stock: DeviceStock
    requests: tuple[DeviceRequest, ...]
    cells: Cells


# --- the rules --------------------------------------------------------------------------------------------------------------------


def answers(request: DeviceRequest, device: Device, stock: DeviceStock) -> bool:
    """Say whether a device is of the right kind and has the properties."""
    right = request.kind in ("pci", device.kind, f"class:{device.resource_class}")
    have = {"dev_type": device.pci_type, "vendor_id": device.vendor_id, "product_id": device.product_id}
    have |= {"address": anchor_of(device, stock), "profile": device.profile, **dict(device.tags)}
    fits = [all(str(have.get(key)).lower() == want.lower() for key, want in each.items()) for each in request.match]
    right = right and (any(fits) or not request.match)
    if request.kind == "pci" and device.pci_type in ("PF", "VDPA"):
        right = right and any(each.get("dev_type", "").upper() == device.pci_type for each in request.match)
    if request.within:
        right = right and (device.unit in request.within or device.parent in request.within)
    if request.share is not None:
        right = right and device.shares
    if request.memory_bytes is not None:
        right = right and (device.memory_bytes or 0) * Fraction(request.share or 1000, 1000) >= request.memory_bytes
    return right and set(request.required_traits) <= set(device.traits) and not set(request.forbidden_traits) & set(device.traits)


def anchor_of(device: Device, stock: DeviceStock) -> str:
    """Return the address of a device's parent, or else its own."""
    return (device.address or "") if device.parent is None else stock.addresses[device.parent]


def locality(device: Device, stock: DeviceStock, cells: frozenset[int]) -> int:
    """Return 0 in a cell of the guest, 1 on a socket of one, 2 in no known cell, 3 elsewhere."""
    if device.cell in cells:
        return 0
    if device.cell is None:
        return 2
    sockets = stock.sockets
    if any(socket is None for socket in sockets.values()) or device.cell not in sockets:
        return 3
    return 1 if sockets[device.cell] in [sockets.get(cell) for cell in cells] else 3


NEAR_ENOUGH = {"required": {0}, "legacy": {0, 2}, "socket": {0, 1}, "preferred": {0, 1, 2, 3}}


def may_have(request: DeviceRequest, device: Device, stock: DeviceStock, cells: Cells) -> bool:
    """Say whether a device could be given to a request, were it the only one."""
    if not answers(request, device, stock):
        return False
    policy = request.affinity or ("legacy" if request.kind == "pci" else "preferred")
    return cells is None or locality(device, stock, cells) in NEAR_ENOUGH[policy]


def exclude(one: Device, other: Device, stock: DeviceStock) -> bool:
    """Say whether two devices share a slot."""
    return one.unit != other.unit and bool(set(stock.slots[one.unit]) & set(stock.slots[other.unit]))


def linked(one: Device, other: Device) -> bool:
    """Say whether two devices are linked."""
    return other.unit in one.links or one.unit in other.links


def left_of(device: Device, stock: DeviceStock) -> int:
    """Return the thousandths that are left of a device."""
    return stock.shares.get(device.unit, 1000)


def may_add(
    request: DeviceRequest, device: Device, mine: Sequence[Device], given: Sequence[tuple[DeviceRequest, Device]], stock: DeviceStock
) -> bool:
    """Say whether a request may have one more device beside those given to it (`mine`) and to all."""
    if device in mine or (request.linked and not all(linked(device, other) for other in mine)):
        return False
    if any(exclude(device, other, stock) for _, other in given):
        return False
    if any(left_of(other, stock) < 1000 and exclude(device, other, stock) for other in stock.devices):
        return False
    same = [who for who, other in given if other == device]
    if request.share is None:
        return not same and left_of(device, stock) == 1000
    return all(who.share for who in same) and sum(who.share or 0 for who in same) + request.share <= left_of(device, stock)


def order_of(requests: Sequence[DeviceRequest]) -> list[int]:
    """Return the order in which requests pick: linked ones, shares, the others."""
    turn = [1 if request.share is not None else 0 if request.linked else 2 for request in requests]
    return sorted(range(len(requests)), key=lambda number: (turn[number], number))


def ways(case: Case) -> Iterator[list[tuple[int, Device]]]:
    """Yield every way to serve all requests, as picks in the order in which they are made."""
    slots = [number for number in order_of(case.requests) for _ in range(case.requests[number].count)]

    def go(picks: list[tuple[int, Device]]) -> Iterator[list[tuple[int, Device]]]:
        if len(picks) == len(slots):
            yield list(picks)
            return
        number = slots[len(picks)]
        request = case.requests[number]
        mine = [device for who, device in picks if who == number]
        given = [(case.requests[who], device) for who, device in picks]
        for device in case.stock.devices:
            if may_have(request, device, case.stock, case.cells) and may_add(request, device, mine, given, case.stock):
                yield from go([*picks, (number, device)])

    yield from go([])


# --- the ranking ------------------------------------------------------------------------------------------------------------------


def home(case: Case) -> int | None:
    """Return the cell that has most of what is wanted, for a guest without cells."""
    stock, best = case.stock, []
    for cell in sorted({device.cell for device in stock.devices if device.cell is not None}):
        fitting = [[d for d in stock.devices if d.cell == cell and _ever(request, d, stock)] for request in case.requests]
        if any(fitting):
            best.append((sum(max(0, each.count - len(some)) for each, some in zip(case.requests, fitting, strict=True)), cell))
    return min(best)[1] if best else None


def _ever(request: DeviceRequest, device: Device, stock: DeviceStock) -> bool:
    shared = any(left_of(other, stock) < 1000 and exclude(device, other, stock) for other in stock.devices)
    return may_have(request, device, stock, None) and not shared and (request.share is not None or left_of(device, stock) == 1000)


def key_of(picks: Sequence[tuple[int, Device]], case: Case) -> tuple[object, ...]:
    """Return the documented key of some picks."""
    stock = case.stock
    near = case.cells
    if near is None:
        place = home(case)
        near = None if place is None else frozenset({place})
    steps = []
    open_ = {device.unit for device in stock.devices if left_of(device, stock) == 1000}
    for device in stock.devices:
        if left_of(device, stock) < 1000:
            open_ -= {other.unit for other in stock.devices if exclude(device, other, stock)}
    left = {device.unit: left_of(device, stock) for device in stock.devices}
    for number, device in picks:
        request = case.requests[number]
        fresh = device.unit in open_
        out = {other.unit for other in stock.devices if other.unit in open_ and exclude(device, other, stock)} if fresh else set()
        broken = sum(other.unit in open_ and linked(device, other) for other in stock.devices if other != device) if fresh else 0
        rest = 0
        if request.share is not None:
            rest = left[device.unit] = left[device.unit] - request.share
        away = 0 if near is None else locality(device, stock, near)
        steps.append(
            (
                away,
                len(out) + (request.share is not None and fresh),
                broken,
                device.memory_bytes or 0,
                rest,
                anchor_of(device, stock),
                device.address or "",
                device.unit,
            )
        )
        open_ -= {device.unit, *out}
    return (sum(step[0] for step in steps), *steps)


def chosen_key(chosen: Way, case: Case) -> tuple[object, ...]:
    """Return the key of devices that were chosen: that of the best order in which they could have been picked."""
    orders: list[list[tuple[int, Device]]] = [[]]
    for number in order_of(case.requests):
        orders = [[*before, *((number, device) for device in order)] for before in orders for order in permutations(chosen[number])]
    return min(key_of(picks, case) for picks in orders)


# --- small random stocks ----------------------------------------------------------------------------------------------------------


def random_stock(rnd: Random) -> DeviceStock:
    """Return up to seven devices on up to three cells: trees of up to three levels, links, shares, tags, traits, classes."""
    listed: list[Device] = []
    linky, sharing, sized = rnd.random() < 0.4, rnd.random() < 0.3, rnd.random() < 0.5
    for n in range(rnd.randint(2, 7)):
        parent = rnd.choice(listed) if listed and rnd.random() < 0.5 else None
        kind = rnd.choice(("PCI", "PF", "VDPA")) if parent is None else rnd.choice(("VF", "VF", "VDPA"))
        listed.append(
            Device(
                unit=UnitId(f"pci:{rnd.randint(0, 9)}-{n}"), kind=rnd.choice(("gpu", "gpu", "vf")), address=f"0000:{rnd.randint(0, 3):02x}:00.{n}",
                vendor_id=rnd.choice(("10de", "8086", None)), product_id="1572", cell=rnd.choice((None, 0, 0, 1, 1, 2)),
                parent=parent.unit if parent else None, dev_type=kind,  # type: ignore[arg-type]  # one of four texts
                tags=rnd.choice(((), (("physical_network", "Net0"),), (("physical_network", "net1"),))),
                traits=rnd.choice(((), (FAST,))), resource_class=rnd.choice((None, DONGLE, DONGLE)), shares=sharing and rnd.random() < 0.7,
                links=tuple(sorted(other.unit for other in listed if linky and rnd.random() < 0.5)),
                memory_bytes=rnd.choice((None, 24, 40, 40, 80)) if sized else None, profile=rnd.choice((None, "1g.10gb", "2g.20gb")) if sized else None,
            )
        )  # fmt: skip
    table = slot_table(listed)
    gone = {device.unit for device in listed if rnd.random() < 0.1}
    there = sorted((device for device in listed if device.unit not in gone), key=lambda device: (device.address or "", device.unit))
    return DeviceStock(
        devices=tuple(there),
        slots=table,
        sockets=rnd.choice(({}, {0: 0, 1: 0, 2: 1}, {0: 0, 1: 1, 2: 1}, {0: None, 1: 0, 2: 1})),
        shares={device.unit: rnd.choice((200, 500, 900)) for device in there if device.shares and rnd.random() < 0.4},
        addresses={device.unit: device.address or "" for device in listed},
    )


MATCHES: tuple[tuple[dict[str, str], ...], ...] = (
    (), (), ({"vendor_id": "10DE"},), ({"dev_type": "pf"}, {"physical_network": "NET0"}), ({"dev_type": "VF", "product_id": "1572"},),
    ({"vendor_id": "8086"}, {"vendor_id": "10de", "dev_type": "VDPA"}), ({"physical_network": "net0"}, {"physical_network": "net1"}),
    ({"profile": "1G.10GB"},),
)  # fmt: skip


def random_requests(rnd: Random, stock: DeviceStock) -> tuple[DeviceRequest, ...]:
    """Return one to three requests for up to four devices together."""
    made = []
    room = 4
    for _ in range(rnd.choice((1, 1, 1, 2, 2, 3))):
        count = min(room, rnd.choice((1, 1, 1, 1, 2, 3)))
        room -= count
        if not count:
            break
        kind = rnd.choice(("pci", "gpu", "gpu", "vf", "vf", "class:CUSTOM_DONGLE"))
        inside = tuple(rnd.choice(stock.devices).unit for _ in range(3)) if stock.devices and rnd.random() < 0.1 else ()
        share = rnd.choice((100, 400, 600, 1000)) if rnd.random() < 0.2 else None
        made.append(
            DeviceRequest(
                kind=kind, count=count, match=rnd.choice(MATCHES) if rnd.random() < 0.5 else (), affinity=rnd.choice((None, None, "required", "legacy", "socket", "preferred", "preferred")),
                linked=share is None and rnd.random() < 0.25, share=share, within=inside,
                required_traits=(FAST,) if rnd.random() < 0.1 else (), forbidden_traits=(FAST,) if rnd.random() < 0.1 else (),
                memory_bytes=rnd.choice((1, 8, 25, 40, 41, 80, 81)) if rnd.random() < 0.2 else None,
            )
        )  # fmt: skip
    return tuple(made)


def random_case(rnd: Random) -> Case:
    """Return a stock, requests and cells."""
    stock = random_stock(rnd)
    cells = rnd.choice((None, *(frozenset(n for n in range(3) if rnd.random() < 0.6) for _ in range(5))))
    return Case(stock, random_requests(rnd, stock), cells)
