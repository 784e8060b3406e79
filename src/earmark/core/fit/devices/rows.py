"""The devices of a live node as the solver sees them, and the rows in which a grant holds what it chose.

Rules of this file: what is free is said by slots alone (`core.model.exclusion`); a share is an amount of the device's own pool. A device of which
shares are held is offered in what is left of it, never as a whole, and what excludes it is not offered at all. Where IOMMU groups are kept
together, a device is offered if all others of its group are free; those that were not chosen are withheld with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import immutables
from msgspec.structs import replace

from earmark.core.fit.devices.match import asked_of, suits
from earmark.core.fit.free import Supply
from earmark.core.fit.ground import WHOLE, DeviceStock
from earmark.core.fit.layout import Layout
from earmark.core.fit.refusal import about_unit
from earmark.core.model.grant import AmountRow, UnitRow, Use
from earmark.core.model.ids import PoolId, Slot, UnitId, share_pool, shared_unit
from earmark.core.model.refusal import Reason
from earmark.core.model.request import DeviceRequest
from earmark.core.model.topology import Device

NO_SHARES: Mapping[UnitId, int] = immutables.Map()


def stock_of(supply: Supply) -> DeviceStock:
    """Return the devices that could be given now: free, not blocked, to be handed out."""
    layout = supply.layout
    look = _look(supply)
    listed = [device for kind in sorted(layout.devices) for device in layout.devices[kind] if look.may_have(device.unit)]
    if len(layout.devices) > 1:
        listed.sort(key=lambda device: (device.address or "", device.unit))
    slots: Mapping[UnitId, tuple[Slot, ...]] = layout.slots
    if layout.groups:
        listed = [replace(device, shares=False) if device.shares and device.unit in layout.groups else device for device in listed]
        slots = _grouped(listed, layout)
    parents = {device.parent for device in listed if device.parent is not None}
    return DeviceStock(
        devices=tuple(listed),
        slots=slots,
        sockets=immutables.Map((cell.id, cell.socket) for cell in layout.cells if cell.online),
        shares=immutables.Map((unit, WHOLE - amount) for unit, amount in look.given.items()) if look.given else NO_SHARES,
        addresses=immutables.Map((unit, layout.known[unit].address or "") for unit in parents if unit in layout.known),
    )


def kept_out(wishes: Sequence[DeviceRequest], supply: Supply) -> list[Reason]:
    """Return the devices that answer a wish, are free, and are not offered because of another device of their IOMMU group."""
    layout = supply.layout
    if not layout.groups:
        return []
    look = _look(supply)
    asked = [asked_of(wish) for wish in wishes]
    reasons = []
    for unit in sorted(layout.grantable & set(layout.groups)):
        device = layout.known[unit]
        parent = layout.known.get(device.parent) if device.parent is not None else None
        anchor = (parent.address if parent is not None else device.address) or ""
        other = look.in_the_way(unit) if look.is_free(unit) and any(suits(each, device, anchor) for each in asked) else None
        if other is not None:
            detail = f"IOMMU group {device.iommu_group} is given as a whole, and {other}"
            reasons.append(about_unit("unit_blocked", unit, detail, cell=device.cell))
    return reasons


def device_rows(wishes: Sequence[DeviceRequest], devices: Sequence[Sequence[Device]], supply: Supply) -> tuple[UnitRow, ...]:
    """Return the unit rows of the devices chosen for some wishes, by unit, with what is withheld beside them; a share has none."""
    layout = supply.layout
    uses: dict[UnitId, Use] = {
        device.unit: "device" for wish, some in zip(wishes, devices, strict=True) if wish.share is None for device in some
    }
    if layout.groups:
        for other in [other for unit in uses for other in layout.groups.get(unit, ())]:
            uses.setdefault(other, "withheld")
    return tuple(device_row(layout.known[unit], layout, uses[unit]) for unit in sorted(uses))


def device_row(device: Device, layout: Layout, use: Use = "device") -> UnitRow:
    """Return the unit row of a device; its slots are named only when they are not simply itself."""
    slots = layout.slots[device.unit]
    return UnitRow(unit=device.unit, use=use, slots=slots if len(slots) > 1 else ())


def amount_rows(wishes: Sequence[DeviceRequest], devices: Sequence[Sequence[Device]]) -> tuple[AmountRow, ...]:
    """Return the amounts of the shares chosen for some wishes, by device."""
    units: dict[UnitId, int] = {}
    for wish, some in zip(wishes, devices, strict=True):
        if wish.share is not None:
            for device in some:
                units[device.unit] = units.get(device.unit, 0) + wish.share
    return tuple(AmountRow(pool=share_pool(unit), amount=units[unit]) for unit in sorted(units))


def given_shares(used: Mapping[PoolId, int]) -> dict[UnitId, int]:
    """Return the thousandths that are held of each device."""
    return {unit: amount for pool, amount in used.items() if amount and (unit := shared_unit(pool)) is not None}


def blocked_slots(supply: Supply) -> frozenset[Slot]:
    """Return the slots that blocked units occupy: a blocked unit blocks everything that shares a slot with it."""
    slots = supply.layout.slots
    return frozenset(slot for unit in supply.barred_units for slot in slots.get(unit, (Slot(unit),)))


class _Look(NamedTuple):
    """What stands in the way of devices: held and blocked slots, and the slots of devices of which shares are held, with those devices."""

    layout: Layout
    held: Mapping[Slot, object]
    blocked: frozenset[Slot]
    given: dict[UnitId, int]
    shared: dict[Slot, set[UnitId]]

    def is_free(self, unit: UnitId) -> bool:
        """Say whether nobody holds or blocks a unit or what excludes it; shares of itself do not count."""
        slots, above = self.layout.slots[unit], self.layout.above[unit]
        for slot in slots:
            if slot in self.held or slot in self.blocked:
                return False
        for slot in above:
            if slot in self.held or slot in self.blocked:
                return False
        return not self.shared or all(self.shared.get(slot, unit) in (unit, {unit}) for slot in (*slots, *above))

    def may_have(self, unit: UnitId) -> bool:
        """Say whether a unit can be offered, whole or what is left of it."""
        if not self.is_free(unit):
            return False
        given = self.given.get(unit, 0)
        if given >= WHOLE or (given and unit in self.layout.groups):  # of a group that goes to one claim no share is given
            return False
        return not self.layout.groups or self.in_the_way(unit) is None

    def in_the_way(self, unit: UnitId) -> str | None:
        """Say what of the rest of a unit's IOMMU group keeps it from being given, None if nothing does."""
        others = self.layout.groups.get(unit, ())
        taken: set[Slot] = set()
        for member in sorted((unit, *others)):
            slots = self.layout.slots[member]
            if others and not taken.isdisjoint(slots):
                return f"{member} is in it with its parent or child: they cannot be given together"
            taken.update(slots)
        for other in others:
            if not self.is_free(other) or other in self.given:
                return f"{other} is not free"
        return None


def _look(supply: Supply) -> _Look:
    layout = supply.layout
    given = given_shares(supply.free.used)
    shared: dict[Slot, set[UnitId]] = {}
    for unit in given:
        for slot in layout.slots.get(unit, (Slot(unit),)):
            shared.setdefault(slot, set()).add(unit)
    return _Look(layout, supply.free.slots, blocked_slots(supply), given, shared)


def _grouped(devices: Sequence[Device], layout: Layout) -> Mapping[UnitId, tuple[Slot, ...]]:
    """Return the slots of devices so that one of a group also excludes what excludes another of its group, which is withheld with it."""
    users: dict[Slot, set[UnitId]] = {}
    for device in devices:
        for slot in layout.slots[device.unit]:
            users.setdefault(slot, set()).add(device.unit)
    more: dict[UnitId, set[Slot]] = {}
    for device in devices:
        others = layout.groups.get(device.unit, ())
        foes = {foe for other in others for slot in layout.slots[other] for foe in users.get(slot, ())}
        for foe in foes - {device.unit, *others}:
            both = Slot(f"{device.unit} beside {foe}")
            more.setdefault(device.unit, set()).add(both)
            more.setdefault(foe, set()).add(both)
    return (
        layout.slots.update({unit: tuple(sorted({*layout.slots[unit], *slots})) for unit, slots in more.items()}) if more else layout.slots
    )
