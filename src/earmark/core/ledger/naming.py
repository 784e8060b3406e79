"""Which device of a new look is which of those that are known: names that stay with the card, whatever becomes of its address.

Rules of this file: pure and total; an address is an attribute, the identity (vendor:product:subsystem, then the serial) says which device
it is. A serial that only one of two looks could read contradicts nothing: it is there only while a driver is bound. What is held stays
known by its name and identity even while it is not there, so that no other card ever comes to that name. A name is given once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import NamedTuple

import immutables
from msgspec.structs import replace

from earmark.core.fit.devices.policy import MDEV, parent_local
from earmark.core.model.exclusion import PCI_ADDRESS, place_on
from earmark.core.model.ids import UNIT, UnitId
from earmark.core.model.topology import IDENTITY_PARTS, MIG, MIG_PARENT, Device, Machine, fuller, identities_contradict

UNKNOWN = "-"

Held = Mapping[UnitId, str | None]
"""The units that somebody holds, each with what it was when it was given."""
NOTHING_HELD: Held = immutables.Map()


def with_known_names(old: Machine | None, new: Machine, held: Held = NOTHING_HELD) -> Machine:
    """Return `new` with each device named as before, so that binding another driver or moving a card renames nothing that is held.

    A device is known again by its serial, then by a name that is not its address, then by where it sits (if it does not contradict what sat
    there) or sits on its card, then by being the only one of its identity that vanished and came elsewhere. Another device that would be named by the same
    address gets a name of its own, `pci:ADDRESS/IDENTITY`: the old unit is gone, not replaced. What only a device's own driver tells
    (memory, links, instances, faults) stands as it was told before where that driver could not be asked.
    """
    known = _known(old, held)
    if not known or not new.devices:
        return new
    listed = sorted(new.devices, key=lambda device: (device.unit, device.address or ""))
    named, names = _named(_Look.of(known, listed), listed)
    related = [_with_names(device, names) for device in named]
    unread = tuple(sorted({names.get(unit, unit) for unit in new.unread}))
    before = {device.unit: device for device in old.devices} if old is not None else {}
    devices = _with_what_was_told(before, related, unread) if unread else related
    return replace(new, devices=tuple(sorted(devices, key=lambda device: device.unit)), unread=unread)


def contradict(one: Device, other: Device) -> bool:
    """Say whether two looks cannot have seen the same device: vendor, product, subsystem or a serial that both know differ."""
    return identities_contradict(one.identity, other.identity)


class _Known(NamedTuple):
    """A device that is known: where it sat when it was last seen (None: it is not there), and whose child it is."""

    unit: UnitId
    identity: str | None
    address: str | None = None
    parent: UnitId | None = None
    movable: bool = False
    """It may be known again by its identity alone: it is no part of another device."""
    seat: int | None = None
    """How far from its parent's address its own is: a function of a card that moves moves along."""


def _known(old: Machine | None, held: Held) -> dict[UnitId, _Known]:
    """Return what is known by name: the devices of the last look, and what is held though it was not there. What is held has the last word."""
    devices = old.devices if old is not None else ()
    seats = _seats(devices)
    known = {
        device.unit: _Known(
            device.unit,
            device.identity,
            device.address,
            device.parent,
            device.parent is None and device.kind != "vf",
            seats.get(device.unit),
        )
        for device in devices
    }
    for unit, identity in sorted(held.items()):
        if unit.startswith(MDEV):
            local = parent_local(unit)
            unit = UnitId(f"pci:{local}" if PCI_ADDRESS.match(local) else f"gpu:{local}")  # noqa: PLW2901 - an instance holds its parent's name
        there = known.get(unit)
        if there is None:
            known[unit] = _Known(unit, identity, movable=unit.startswith("pci:"))
        elif identities_contradict(identity, there.identity):
            known[unit] = _Known(unit, identity)
        else:
            known[unit] = there._replace(identity=fuller(identity, there.identity))
    return known


def _seats(devices: Iterable[Device]) -> dict[UnitId, int | None]:
    """Return how far from its parent's address that of each device of a look is."""
    listed = tuple(devices)
    addresses = {device.unit: device.address for device in listed}
    return {device.unit: place_on(addresses.get(device.parent), device.address) for device in listed if device.parent is not None}


class _Look(NamedTuple):
    """What is known before a look, ready for finding each device in it; `serials` counts the full identities of the look itself."""

    known: Mapping[UnitId, _Known]
    places: Mapping[str, _Known]
    alike: Mapping[str, list[_Known]]
    serials: Mapping[str | None, int]
    on_cards: Mapping[tuple[UnitId, int], _Known]

    @staticmethod
    def of(known: Mapping[UnitId, _Known], devices: Iterable[Device]) -> _Look:
        """Return what is known, ready for a look at some devices."""
        alike: dict[str, list[_Known]] = {}
        for each in known.values():
            if each.identity is not None:
                alike.setdefault(each.identity, []).append(each)
        places = {each.address: each for each in known.values() if each.address is not None}
        on_cards = {(each.parent, each.seat): each for each in known.values() if each.parent is not None and each.seat is not None}
        return _Look(known, places, alike, Counter(device.identity for device in devices if _serial(device.identity)), on_cards)

    def by_serial(self, device: Device) -> _Known | None:
        """Return what has the same serial, where only one device had it and only one has it now."""
        found = self.alike.get(device.identity or "", [])
        return found[0] if _serial(device.identity) and self.serials[device.identity] == 1 and len(found) == 1 else None

    def by_name(self, device: Device) -> _Known | None:
        """Return what has the name that the driver gives the device, if that is not its address."""
        return self.known.get(device.unit) if not _named_by_address(device) else None

    def by_place(self, device: Device) -> _Known | None:
        """Return what sat where the device sits."""
        return self.places.get(device.address) if device.address is not None else None

    def by_old_name(self, device: Device) -> _Known | None:
        """Return what has the device's name, or the name that it would have as another device."""
        return next((self.known[name] for name in (device.unit, _own(device)) if name in self.known), None)


def _named(look: _Look, listed: list[Device]) -> tuple[list[Device], dict[UnitId, UnitId]]:
    """Return the devices of a look, each under a name of its own, and what each was called by its driver with the name it has now."""
    named: list[Device] = []
    names: dict[UnitId, UnitId] = {}
    taken: set[UnitId] = set()

    def give(device: Device, unit: UnitId) -> None:
        known = look.known.get(unit)
        taken.add(unit)
        names.setdefault(device.unit, unit)
        named.append(replace(device, unit=unit, identity=device.identity if known is None else fuller(device.identity, known.identity)))

    def takes(device: Device, known: _Known | None) -> bool:
        """Give a device the name of what it is known as, if it can be that one and nobody else is."""
        if known is None or known.unit in taken or identities_contradict(known.identity, device.identity):
            return False
        if known.parent is not None and device.parent is not None and names.get(device.parent, device.parent) != known.parent:
            return False
        give(device, known.unit)
        return True

    seats = _seats(listed)

    def by_seat(device: Device) -> _Known | None:
        """Return what sat on the same card where the device sits on it."""
        seat = seats.get(device.unit)
        return None if device.parent is None or seat is None else look.on_cards.get((names.get(device.parent, device.parent), seat))

    for left in ([each for each in listed if each.parent is None], [each for each in listed if each.parent is not None]):
        rest = left
        for way in (look.by_serial, look.by_name, look.by_place, by_seat, look.by_old_name):
            rest = [device for device in rest if not takes(device, way(device))]
        new = Counter(device.identity for device in rest)
        for device in rest:
            gone = [each for each in look.alike.get(device.identity or "", []) if each.movable and each.unit not in taken]
            if not (len(gone) == 1 and new[device.identity] == 1 and _is_movable(device) and takes(device, gone[0])):
                give(device, _fresh(device, look, taken))
    return named, names


def _is_movable(device: Device) -> bool:
    """Say whether a device may be known again by its identity alone: the only one that vanished and the only one that came."""
    return device.parent is None and device.kind != "vf" and _says(device.identity)


def _fresh(device: Device, look: _Look, taken: AbstractSet[UnitId]) -> UnitId:
    """Return a name that nothing has or had: its own, or one with its identity where another device has, had or holds that."""

    def is_new(unit: UnitId) -> bool:
        return unit not in look.known and unit not in taken and UNIT.fullmatch(unit) is not None

    there = look.by_place(device)
    replaced = there is not None and identities_contradict(there.identity, device.identity) and _named_by_address(device)
    if not replaced and is_new(device.unit):
        return device.unit
    most = len(look.known) + len(taken) + 3
    return _first((_own(device), *(UnitId(f"{device.unit}/{number}") for number in range(2, most))), is_new)


def _first(units: Iterable[UnitId], good: Callable[[UnitId], bool]) -> UnitId:
    """Return the first of some names that is good, else the last: a name too long for a suffix keeps its own form."""
    last = UnitId("")
    for unit in units:
        last = unit
        if good(unit):
            break
    return last


def _named_by_address(device: Device) -> bool:
    return device.address is not None and device.unit.endswith(f":{device.address}")


def _own(device: Device) -> UnitId:
    return UnitId(f"{device.unit}/{device.identity}")


def _serial(identity: str | None) -> bool:
    return identity is not None and identity.count(":") >= IDENTITY_PARTS


def _says(identity: str | None) -> bool:
    """Say whether an identity names at least a vendor and a product."""
    return identity is not None and UNKNOWN not in identity.split(":", IDENTITY_PARTS)[:2]


def _with_names(device: Device, names: Mapping[UnitId, UnitId]) -> Device:
    """Return a device whose parent and links have the names that are used from now on."""
    if device.parent is None and not device.links:
        return device
    parent = names.get(device.parent, device.parent) if device.parent else None
    return replace(device, parent=parent, links=tuple(sorted(names.get(unit, unit) for unit in device.links)))


def _with_what_was_told(old: Mapping[UnitId, Device], devices: list[Device], unread: tuple[UnitId, ...]) -> list[Device]:
    """Return the devices with what the drivers of the unread ones told before: facts, and instances that are children of them.

    Without this an instance that is held would be lost, and its GPU handed out as a whole, because somebody without the driver's library
    looked at the machine.
    """
    there = {device.unit for device in devices}
    kept = [_told(old[each.unit], each) if each.unit in unread and each.unit in old else each for each in devices]
    cut = {each.unit: each for each in kept if each.unit in unread and each.kind == MIG_PARENT}
    parts = [each for unit, each in sorted(old.items()) if each.kind == MIG and each.parent in cut and unit not in there]
    return kept + [replace(each, fault=cut[each.parent].fault) if each.parent in cut else each for each in parts]


def _told(old: Device, new: Device) -> Device:
    """Return a device with what its own driver told before of what it does not tell now; a fault stands until the driver answers again."""
    return replace(
        new,
        kind=MIG_PARENT if old.kind == MIG_PARENT else new.kind,
        name=new.name or old.name,
        memory_bytes=new.memory_bytes if new.memory_bytes is not None else old.memory_bytes,
        links=new.links or old.links,
        fault=new.fault or (old.fault if new.memory_bytes is None else None),
    )
