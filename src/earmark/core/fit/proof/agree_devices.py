"""Whether the devices and shares of a grant are those that its request asks for.

Rules of this file: only the grant's own devices are looked at, as if they were all that the node has; who holds what else does not matter. That
the devices are near enough to the grant's cells is part of what was asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import immutables

from earmark.core.fit.devices.flow import Undecided
from earmark.core.fit.devices.match import ANY_PCI, CLASS_PREFIX, policy_of
from earmark.core.fit.devices.offer import offered
from earmark.core.fit.devices.rows import given_shares
from earmark.core.fit.ground import DeviceStock
from earmark.core.fit.guest import is_bound
from earmark.core.fit.layout import Layout
from earmark.core.fit.refusal import mismatch
from earmark.core.model.grant import Grant
from earmark.core.model.ids import Slot, UnitId
from earmark.core.model.refusal import Reason
from earmark.core.model.request import DeviceRequest, Request
from earmark.core.model.topology import Device


def device_mismatches(grant: Grant, layout: Layout, request: Request, wishes: Sequence[DeviceRequest]) -> Iterator[Reason]:
    """Yield where the devices of a grant are not what was requested: how many of which kind, which ones, how near, how much of them."""
    whole = [wish for wish in wishes if wish.share is None]
    parts = [wish for wish in wishes if wish.share is not None]
    units = [row.unit for row in grant.units if row.use == "device" and row.unit in layout.known]
    shares = given_shares({row.pool: row.amount for row in grant.amounts})
    cells = frozenset(cell.host_cell for cell in grant.cells) if is_bound(request) and grant.cells else None
    counts = list(_counts(whole, [layout.known[unit] for unit in units]))
    yield from counts
    if not counts:
        yield from _assignment(whole, units, {}, layout, cells)
    asked, given = sum(wish.share or 0 for wish in parts for _ in range(wish.count)), sum(shares.values())
    if asked != given:
        yield mismatch("share", f"{asked} thousandths are requested, the grant holds {given}", asked=asked, found=given)
    else:
        yield from _assignment(parts, [unit for unit in shares if unit in layout.known], shares, layout, cells)


def _counts(wishes: Sequence[DeviceRequest], devices: Sequence[Device]) -> Iterator[Reason]:
    """Yield the kinds of which there are more or fewer than requested; if a wish is not for a kind, only the sum can be compared."""
    if any(wish.kind == ANY_PCI or wish.kind.startswith(CLASS_PREFIX) for wish in wishes):
        asked = sum(wish.count for wish in wishes)
        if asked != len(devices):
            what = "device:" + "+".join(sorted({wish.kind for wish in wishes}))
            yield mismatch(what, f"{asked} are requested, the grant holds {len(devices)}", asked=asked, found=len(devices))
        return
    wanted: dict[str, int] = {}
    for wish in wishes:
        wanted[wish.kind] = wanted.get(wish.kind, 0) + wish.count
    kinds = [device.kind for device in devices]
    for kind in sorted({*wanted, *kinds}):
        asked, found = wanted.get(kind, 0), kinds.count(kind)
        if asked != found:
            yield mismatch(f"device:{kind}", f"{asked} are requested, the grant holds {found}", asked=asked, found=found)


def dealt(units: Sequence[UnitId], layout: Layout, wishes: Sequence[DeviceRequest]) -> dict[UnitId, int]:
    """Return which wish each of some devices answers, by the wish's number; nothing if they cannot be dealt out, whatever their cells."""
    try:
        chosen = offered(wishes, _stock(units, {}, layout)).choose(None)
    except Undecided:
        return {}
    return {} if chosen is None else {device.unit: number for number, some in enumerate(chosen) for device in some}


def _assignment(
    wishes: Sequence[DeviceRequest], units: Sequence[UnitId], shares: Mapping[UnitId, int], layout: Layout, cells: frozenset[int] | None
) -> Iterator[Reason]:
    """Yield a reason if the devices, which are as many as requested, cannot be dealt out to the wishes."""
    if not wishes:
        return
    what = "device:" + "+".join(sorted({wish.kind for wish in wishes}))
    try:
        offer = offered(wishes, _stock(units, shares, layout))
        if offer.choose(cells) is not None:
            return
        if cells is not None and offer.choose(None) is not None:
            policies = "+".join(sorted({policy_of(wish) for wish in wishes}))
            yield mismatch(what, f"{', '.join(units)} are not near enough to cells {', '.join(map(str, sorted(cells)))} ({policies})")
            return
    except Undecided:
        return
    yield mismatch(what, f"{', '.join(units)} are not what is requested")


def _stock(units: Sequence[UnitId], shares: Mapping[UnitId, int], layout: Layout) -> DeviceStock:
    """Return some devices as if they were all that the node has, none of them excluding another."""
    devices = sorted((layout.known[unit] for unit in units), key=lambda device: (device.address or "", device.unit))
    return DeviceStock(
        devices=tuple(devices),
        slots=immutables.Map((device.unit, (Slot(device.unit),)) for device in devices),
        sockets=immutables.Map((cell.id, cell.socket) for cell in layout.cells if cell.online),
        shares=immutables.Map(shares),
        addresses=immutables.Map((unit, device.address or "") for unit, device in layout.known.items()),
    )
