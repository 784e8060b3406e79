"""The devices of a live node as the solver sees them, and the rows in which a grant holds what it chose.

Rules of this file: what is free is said by slots alone (`core.model.exclusion`); a share is an amount of the device's own pool, and a device of
which shares are held is offered in what is left of it, never as a whole.
"""

from __future__ import annotations

from collections.abc import Sequence

import immutables

from earmark.core.fit.device_kinds import available
from earmark.core.fit.free import Supply
from earmark.core.fit.ground import DeviceStock
from earmark.core.fit.layout import Layout
from earmark.core.model.grant import AmountRow, UnitRow
from earmark.core.model.ids import UnitId, share_pool
from earmark.core.model.request import DeviceRequest
from earmark.core.model.topology import Device

WHOLE = 1000
"""Thousandths of a device."""


def stock_of(supply: Supply) -> DeviceStock:
    """Return the devices that could be given now: free, not blocked, to be handed out."""
    layout = supply.layout
    devices = sorted(available(supply, sorted(layout.devices)), key=lambda device: (device.address or "", device.unit))
    shares = {device.unit: WHOLE - supply.free.used.get(share_pool(device.unit), 0) for device in devices if device.shares}
    return DeviceStock(
        devices=tuple(devices),
        slots=layout.slots,
        sockets={cell.id: cell.socket for cell in layout.cells},
        shares=immutables.Map(shares),
        addresses={device.unit: device.address for device in layout.known.values() if device.address is not None},
    )


def device_rows(wishes: Sequence[DeviceRequest], devices: Sequence[Sequence[Device]], supply: Supply) -> tuple[UnitRow, ...]:
    """Return the unit rows of the devices chosen for some wishes, by unit; a share has none."""
    whole = [device for wish, some in zip(wishes, devices, strict=True) if wish.share is None for device in some]
    return tuple(device_row(device, supply.layout) for device in sorted(whole, key=lambda device: device.unit))


def device_row(device: Device, layout: Layout) -> UnitRow:
    """Return the unit row of a device; its slots are named only when they are not simply itself."""
    slots = layout.slots[device.unit]
    return UnitRow(unit=device.unit, use="device", slots=slots if len(slots) > 1 else ())


def amount_rows(wishes: Sequence[DeviceRequest], devices: Sequence[Sequence[Device]]) -> tuple[AmountRow, ...]:
    """Return the amounts of the shares chosen for some wishes, by device."""
    units: dict[UnitId, int] = {}
    for wish, some in zip(wishes, devices, strict=True):
        if wish.share is not None:
            for device in some:
                units[device.unit] = units.get(device.unit, 0) + wish.share
    return tuple(AmountRow(pool=share_pool(unit), amount=units[unit]) for unit in sorted(units))
