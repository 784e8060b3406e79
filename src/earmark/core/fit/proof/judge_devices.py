"""Whether the devices of a prescribed grant may be given: they are there, free, exclude nobody, their groups are whole, their shares are left.

Rules of this file: every reason stands alone; the rows and amounts of the grant itself are compared with each other too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from earmark.core.fit.devices.rows import given_shares
from earmark.core.fit.free import Supply
from earmark.core.fit.ground import WHOLE
from earmark.core.fit.refusal import about_unit, broken_rule, mismatch, short
from earmark.core.model.grant import UnitRow
from earmark.core.model.ids import PoolId, Slot, UnitId
from earmark.core.model.refusal import Reason
from earmark.core.model.topology import identities_contradict


def device_reason(row: UnitRow, supply: Supply, blocked: frozenset[Slot]) -> Reason | None:
    """Return what is wrong with one row of a device: unknown, of a wrong use, not to be handed out, blocked, taken or excluded."""
    layout = supply.layout
    device = layout.known.get(row.unit)
    if device is None:
        return about_unit("unknown_unit", row.unit, "the node has no such unit")
    slots = layout.slots[row.unit]
    if row.use != "device" and not (row.use == "withheld" and row.unit in layout.groups):
        return mismatch(row.unit, f"a device is given as {row.use}", unit=row.unit, cell=device.cell)
    if row.occupied != slots:
        return mismatch(
            row.unit, f"it occupies {', '.join(slots)}, the grant says {', '.join(row.occupied)}", unit=row.unit, cell=device.cell
        )
    if row.identity is not None and identities_contradict(row.identity, device.identity):
        return mismatch(row.unit, f"it is {device.identity}, the grant says {row.identity}", unit=row.unit, cell=device.cell)
    if row.use == "device" and row.unit not in layout.grantable:
        detail = f"devices of kind {device.kind} are not handed out on this node"
        return about_unit("unit_blocked", row.unit, detail, cell=device.cell)
    shared = _shared_slots(supply)
    other = next((shared[slot] for slot in (*slots, *layout.above[row.unit]) if slot in shared), None)
    if other is not None:
        if other == row.unit:
            return about_unit("unit_taken", row.unit, "shares of it are held", cell=device.cell)
        return about_unit("excluded", row.unit, f"shares of {other} are held, which excludes it", cell=device.cell)
    return _in_the_way(row.unit, supply, blocked)


def group_reasons(rows: Iterable[UnitRow], supply: Supply) -> Iterator[Reason]:
    """Yield the devices whose IOMMU group is kept together and not held as a whole, and those that are withheld beside no device."""
    layout = supply.layout
    if not layout.groups:
        return
    uses = {row.unit: row.use for row in rows if row.unit in layout.groups}
    for unit, use in sorted(uses.items()):
        others = layout.groups[unit]
        missing = [other for other in others if other not in uses]
        if use == "device" and missing:
            yield mismatch(unit, f"its IOMMU group is given as a whole, but {', '.join(missing)} is not in the grant", unit=unit)
        if use == "withheld" and not any(uses.get(other) == "device" for other in others):
            yield mismatch(unit, "it is withheld beside no device of its IOMMU group", unit=unit)


def share_reasons(asked: Mapping[PoolId, int], rows: Iterable[UnitRow], supply: Supply, blocked: frozenset[Slot]) -> Iterator[Reason]:
    """Yield what is wrong with the shares of devices in a grant."""
    layout = supply.layout
    wanted = given_shares(asked)
    if not wanted:
        return
    given = given_shares(supply.free.used)
    held = {slot for row in rows for slot in row.occupied}
    for unit, amount in sorted(wanted.items()):
        pool = PoolId(f"share:{unit}")
        device = layout.known.get(unit)
        if device is None:
            yield broken_rule(pool, amount, "the node has no such device", code="unknown_unit")
            continue
        if unit not in layout.grantable or not device.shares:
            yield about_unit("unit_blocked", unit, "no shares of it are handed out on this node", cell=device.cell)
            continue
        if layout.groups.get(unit):
            yield about_unit("unit_blocked", unit, "its IOMMU group has others and is given as a whole", cell=device.cell)
            continue
        stopped = _in_the_way(unit, supply, blocked)
        if stopped is not None:
            yield stopped
        left = WHOLE - given.get(unit, 0)
        if amount > left:
            yield short(pool, amount, left, cell=device.cell, detail=f"{given.get(unit, 0)} of {WHOLE} thousandths are held")
        line = {*layout.slots[unit], *layout.above[unit]}
        if not held.isdisjoint(line):
            yield mismatch(unit, "the grant holds it, or what excludes it, as a whole too", unit=unit, cell=device.cell)
        for other in sorted(wanted.keys() | given.keys()):
            if other != unit and not line.isdisjoint(layout.slots.get(other, (Slot(other),))):
                yield about_unit("excluded", unit, f"shares of {other} are held or asked for, which excludes it", cell=device.cell)


def _in_the_way(unit: UnitId, supply: Supply, blocked: frozenset[Slot]) -> Reason | None:
    """Return what blocks, holds or excludes a device as a whole."""
    layout, free = supply.layout, supply.free
    slots, above, cell = layout.slots[unit], layout.above[unit], layout.known[unit].cell
    for slot in (*slots, *above):
        if slot in blocked:
            detail = "it gets no new grants" if unit in supply.barred_units else f"{slot} gets no new grants"
            return about_unit("unit_blocked", unit, detail, cell=cell)
    own = Slot(unit)
    for slot in (*above, own, *slots):
        holder = free.slots.get(slot)
        if holder is not None and slot == own:
            return about_unit("unit_taken", unit, f"claim {holder} holds it", cell=cell)
        if holder is not None:
            return about_unit("excluded", unit, f"claim {holder} holds {slot}, which excludes it", cell=cell)
    return None


def _shared_slots(supply: Supply) -> dict[Slot, UnitId]:
    """Return the slots of the devices of which shares are held, each with that device."""
    slots = supply.layout.slots
    return {slot: unit for unit in given_shares(supply.free.used) for slot in slots.get(unit, (Slot(unit),))}
