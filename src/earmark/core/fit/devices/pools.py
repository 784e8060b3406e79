"""The devices of a stock in pools (P7): those of one pool answer the same requests, lie on the same cell and exclude the same others.

Rules of this file: what excludes what is the stock's slot table and nothing else. The devices of one pool never exclude each other, and
have as much memory. A device with children, links or shares is a pool of its own. What excludes a device of which shares are given is left
out. Nothing here depends on the guest's cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from earmark.core.fit.devices.match import ANY_PCI, asked_of, is_pci, suits
from earmark.core.fit.ground import WHOLE, DeviceStock
from earmark.core.model.ids import Slot, UnitId
from earmark.core.model.request import DeviceRequest
from earmark.core.model.topology import Device

PCI_PREFIX = "pci:"


class Pool(NamedTuple):
    """Interchangeable devices in order of address. `mask` has a bit for each request that they answer.

    `conflicts` are the pools of which each device excludes each of this one, `links` those to which it has a link. `left` are the
    thousandths of a device whose shares may be given (None: of this one they may not), `whole`: none of them is given.
    """

    devices: tuple[Device, ...]
    mask: int
    cell: int | None
    anchor: str
    conflicts: tuple[int, ...] = ()
    links: tuple[int, ...] = ()
    left: int | None = None

    @property
    def whole(self) -> bool:
        """Nothing of it is given in shares."""
        return self.left is None or self.left >= WHOLE


def pools_of(requests: Sequence[DeviceRequest], stock: DeviceStock) -> tuple[Pool, ...]:
    """Return the pools of a stock for some requests, without those that matter to none of them."""
    anchors = _anchors(stock)
    masks = _masks(requests, stock, anchors)
    slots_of = [stock.slots.get(device.unit) or (Slot(device.unit),) for device in stock.devices]
    foes_of = _foes(slots_of)
    friends_of = _friends(stock)
    shared = (number for number, device in enumerate(stock.devices) if device.shares and stock.shares.get(device.unit, WHOLE) < WHOLE)
    gone = {foe for number in shared for foe in foes_of[number]}
    groups: dict[object, list[int]] = {}
    for number, device in enumerate(stock.devices):
        foes = foes_of[number]
        if number in gone or not (masks[number] or foes or number in friends_of):
            continue
        alone = len(slots_of[number]) > 1 or number in friends_of or device.shares
        key: object = number if alone else (masks[number], device.cell, device.parent, device.memory_bytes, foes)
        groups.setdefault(key, []).append(number)
    place = {number: index for index, members in enumerate(groups.values()) for number in members}
    pools = []
    for members in groups.values():
        first = members[0]
        device = stock.devices[first]
        pools.append(
            Pool(
                devices=tuple(stock.devices[number] for number in members),
                mask=masks[first],
                cell=device.cell,
                anchor=anchors[first],
                conflicts=tuple(sorted({place[number] for number in foes_of[first] if number in place})),
                links=tuple(sorted({place[number] for number in friends_of.get(first, ()) if number in place})),
                left=stock.shares.get(device.unit, WHOLE) if device.shares else None,
            )
        )
    return tuple(pools)


def _anchors(stock: DeviceStock) -> list[str]:
    """Return the address of each device's parent, or else its own: the name of a parent that is not in the stock tells its address."""
    known: dict[UnitId, str] = {device.unit: device.address or "" for device in stock.devices}
    found = []
    for device in stock.devices:
        if device.parent is None:
            found.append(device.address or "")
        else:
            address = stock.addresses.get(device.parent) or known.get(device.parent)
            found.append(address if address is not None else device.parent.removeprefix(PCI_PREFIX))
    return found


def _masks(requests: Sequence[DeviceRequest], stock: DeviceStock, anchors: Sequence[str]) -> list[int]:
    """Return, for each device, the bits of the requests that it answers; devices that are alike are looked at once."""
    asked = [asked_of(request) for request in requests]
    single = any(each.local for each in asked)
    pci = any(each.kind == ANY_PCI for each in asked)
    seen: dict[object, int] = {}
    masks = []
    for device, anchor in zip(stock.devices, anchors, strict=True):
        whole = not device.shares or stock.shares.get(device.unit, WHOLE) >= WHOLE
        alike: object = (
            device.kind, device.vendor_id, device.product_id, device.dev_type or device.sriov_total > 0, pci and is_pci(device), device.tags,
            device.traits, device.resource_class, device.shares, device.live_migratable, device.memory_bytes, device.profile, whole,
        )  # fmt: skip
        if single:
            alike = (device.unit, device.parent)
        mask = seen.get(alike)
        if mask is None:
            bits = (1 << bit for bit, each in enumerate(asked) if (whole or each.share) and suits(each, device, anchor))
            mask = seen[alike] = sum(bits)
        masks.append(mask)
    return masks


def _friends(stock: DeviceStock) -> dict[int, set[int]]:
    """Return the devices to which each one is linked, by number; a link that one of both names is one."""
    if not any(device.links for device in stock.devices):
        return {}
    numbers = {device.unit: number for number, device in enumerate(stock.devices)}
    friends: dict[int, set[int]] = {}
    for number, device in enumerate(stock.devices):
        for other in {numbers[unit] for unit in device.links if unit in numbers} - {number}:
            friends.setdefault(number, set()).add(other)
            friends.setdefault(other, set()).add(number)
    return friends


def _foes(slots_of: Sequence[Sequence[Slot]]) -> list[tuple[int, ...]]:
    """Return the devices that share a slot with each one, by number."""
    owners: dict[Slot, tuple[int, ...]] = {}
    single: dict[Slot, int] = {}
    for number, slots in enumerate(slots_of):
        if len(slots) == 1 and slots[0] not in single:
            single[slots[0]] = number
        else:
            for slot in slots:
                owners[slot] = (*owners.get(slot, ()), number)
    found: list[tuple[int, ...]] = []
    for number, slots in enumerate(slots_of):
        if len(slots) == 1 and single[slots[0]] == number:
            found.append(owners.get(slots[0], ()))
        else:
            foes = {other for slot in slots for other in owners[slot]} | {single[slot] for slot in slots if slot in single}
            found.append(tuple(sorted(foes - {number})))
    return found
