"""What each held device was: the identity in a grant's rows, from the moment it is given and fuller when a look reads its serial.

Rules of this file: pure; an identity is only ever made fuller, never another one. The cost is that of the machine's devices.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import immutables
from msgspec.structs import replace

from earmark.core.fit.free import CPU_PREFIX
from earmark.core.fit.layout import Layout
from earmark.core.ledger.state import NodeState
from earmark.core.model.grant import Grant, UnitRow
from earmark.core.model.ids import Slot, UnitId, shared_unit
from earmark.core.model.topology import Device, fuller


def identified(grant: Grant, layout: Layout | None) -> Grant:
    """Return a grant whose device rows say what each device is now; what they say already stands, if nothing contradicts it."""
    if layout is None or all(row.unit.startswith(CPU_PREFIX) for row in grant.units):
        return grant
    rows = tuple(_filled(row, layout.known) for row in grant.units)
    return grant if rows == grant.units else replace(grant, units=rows)


def remembered(state: NodeState, layout: Layout) -> NodeState:
    """Return a state whose held devices are known as fully as the last look knew them and the one behind `layout` does."""
    looks = [look.known for look in (state.layout, layout) if look is not None]
    holders = {
        holder
        for known in looks
        for device in known.values()
        if device.identity is not None and (holder := state.free.slots.get(Slot(device.unit))) is not None
    }
    claims, quarantines = state.claims, state.quarantines
    for holder in sorted(holders):
        claim, kept = claims.get(holder), quarantines.get(holder)
        if claim is not None:
            grant = _known_by(claim.grant, looks)
            claims = claims if grant is claim.grant else claims.set(holder, replace(claim, grant=grant))
        if kept is not None:
            grant = _known_by(kept.grant, looks)
            quarantines = quarantines if grant is kept.grant else quarantines.set(holder, replace(kept, grant=grant))
    shared = {unit for pool in state.free.used if (unit := shared_unit(pool)) is not None}
    identities = {unit: _identity(state.identities.get(unit), unit, looks) for unit in shared}
    return replace(
        state, claims=claims, quarantines=quarantines,
        identities=immutables.Map({unit: identity for unit, identity in sorted(identities.items()) if identity is not None}),
    )  # fmt: skip


def _identity(identity: str | None, unit: UnitId, looks: Sequence[Mapping[UnitId, Device]]) -> str | None:
    """Return what a device is known to be after some looks."""
    for known in looks:
        if unit in known:
            identity = fuller(identity, known[unit].identity)
    return identity


def _known_by(grant: Grant, looks: Sequence[Mapping[UnitId, Device]]) -> Grant:
    rows = grant.units
    for known in looks:
        rows = tuple(_filled(row, known) for row in rows)
    return grant if rows == grant.units else replace(grant, units=rows)


def _filled(row: UnitRow, known: Mapping[UnitId, Device]) -> UnitRow:
    device = known.get(row.unit) if not row.unit.startswith(CPU_PREFIX) else None
    if device is None or device.identity is None or device.identity == row.identity:
        return row
    return replace(row, identity=fuller(row.identity, device.identity))
