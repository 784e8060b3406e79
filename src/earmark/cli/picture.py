"""What the picture of a machine says: each CPU, pool and device with its state and holder, worked out once for map and JSON.

Rules of this file: a node's state in, plain facts out; nothing is drawn here. Claims have an order (oldest first, then by id), and what
is blocked has one state: missing, quarantined, taken, cordoned, faulty, unusable, reserved, free, in this order of weight.
"""

from __future__ import annotations

from typing import NamedTuple

from earmark.cli.output import UnitState
from earmark.core.ledger.state import NodeState
from earmark.core.model.claim import Claim, Quarantine
from earmark.core.model.grant import Grant
from earmark.core.model.ids import MEMORY, VCPU, ClaimId, UnitId, cpu_unit
from earmark.core.model.inventory import Stock
from earmark.core.model.topology import Cell, Cpu, Device, Machine
from earmark.core.model.units import KIB


class Tile(NamedTuple):
    """One exclusive thing: its state, and the claim that holds it or whose quarantine it is in."""

    state: UnitState
    claim: ClaimId | None = None


class Core(NamedTuple):
    """One core: its lowest CPU number, its last-level cache, and its CPUs."""

    id: int
    l3: int | None
    cpus: tuple[int, ...]


class CellPicture(NamedTuple):
    """A host cell and its cores, by cache and number."""

    cell: Cell
    cores: tuple[Core, ...]


class Share(NamedTuple):
    """How much of a pool one claim (or quarantine) holds."""

    claim: ClaimId
    amount: int


class PoolPicture(NamedTuple):
    """A stock in its base unit, and who holds how much of it; the memory pool counts ordinary memory bound to cells too."""

    stock: Stock
    shares: tuple[Share, ...]


class DevicePicture(NamedTuple):
    """A device, whether it may be handed out, and its state."""

    device: Device
    offered: bool
    tile: Tile


class Picture(NamedTuple):
    """A node as it is looked at; `claims` and `quarantines` oldest first."""

    state: NodeState
    cpus: dict[int, Tile]
    cells: tuple[CellPicture, ...]
    pools: dict[str, PoolPicture]
    devices: tuple[DevicePicture, ...]
    claims: tuple[Claim, ...]
    quarantines: tuple[Quarantine, ...]
    missing: tuple[tuple[UnitId, ClaimId | None], ...]


def picture_of(state: NodeState) -> Picture:
    """Return what there is to see of a node."""
    holders, kept = _rows(state)
    machine = state.machine
    cpus = {} if machine is None else {cpu.id: _cpu_tile(state, cpu, holders, kept) for cpu in machine.cpus}
    everywhere = {**kept, **holders}
    return Picture(
        state=state,
        cpus=cpus,
        cells=() if machine is None else tuple(CellPicture(cell, cores_of(machine, cell.id)) for cell in cells_of(machine)),
        pools=_pools(state),
        devices=tuple(_device(state, device, holders, kept) for device in devices_of(state)),
        claims=tuple(sorted(state.claims.values(), key=lambda claim: (claim.held_at_ms, claim.id))),
        quarantines=tuple(sorted(state.quarantines.values(), key=lambda each: (each.since_ms, each.claim))),
        missing=tuple((unit, everywhere.get(unit)) for unit in sorted(state.missing)),
    )


def unit_tile(state: NodeState, unit: UnitId) -> Tile | None:
    """Return the state of one unit, None if the node neither has nor remembers it."""
    holders, kept = _rows(state)
    if unit in state.missing:
        return Tile("missing", holders.get(unit) or kept.get(unit))
    if state.machine is None:
        return None
    for cpu in state.machine.cpus:
        if cpu_unit(cpu.id) == unit:
            return _cpu_tile(state, cpu, holders, kept)
    if state.layout is not None and unit in state.layout.known:
        return _tile(state, unit, holders, kept)
    known = holders.get(unit) or kept.get(unit)
    return None if known is None else _tile(state, unit, holders, kept)


def devices_of(state: NodeState) -> tuple[Device, ...]:
    """Return the devices of a node as its device policy has them: those of the machine by unit, then mediated ones and named resources."""
    if state.machine is None or state.layout is None:
        return ()
    known = state.layout.known
    seen = [device.unit for device in state.machine.devices]
    return tuple(known[unit] for unit in (*seen, *sorted(frozenset(known) - frozenset(seen))))


def cells_of(machine: Machine) -> tuple[Cell, ...]:
    """Return the machine's cells, and one more for each cell that CPUs name and nothing describes."""
    known = {cell.id for cell in machine.cells}
    return (*machine.cells, *(Cell(id=number) for number in sorted({cpu.cell for cpu in machine.cpus} - known)))


def cores_of(machine: Machine, cell: int) -> tuple[Core, ...]:
    """Return the cores of a cell, those of one cache together, by number."""
    threads: dict[int, list[int]] = {}
    caches: dict[int, int | None] = {}
    for cpu in machine.cpus:
        if cpu.cell == cell:
            threads.setdefault(cpu.core, []).append(cpu.id)
            caches.setdefault(cpu.core, cpu.l3)
    cores = [Core(core, caches[core], tuple(sorted(cpus))) for core, cpus in threads.items()]
    first: dict[int | None, int] = {}
    for core in cores:
        first[core.l3] = min(first.get(core.l3, core.id), core.id)
    return tuple(sorted(cores, key=lambda core: (first[core.l3], core.id)))


def _rows(state: NodeState) -> tuple[dict[UnitId, ClaimId], dict[UnitId, ClaimId]]:
    """Return who holds each unit, and whose quarantine each unit is in; a unit also counts where only its slot is held (a PF's VFs)."""
    holders: dict[UnitId, ClaimId] = {}
    kept: dict[UnitId, ClaimId] = {}
    for claim_id, claim in sorted(state.claims.items()):
        _enter(holders, claim_id, claim.grant)
    for claim_id, quarantine in sorted(state.quarantines.items()):
        _enter(kept, claim_id, quarantine.grant)
    return holders, kept


def _enter(rows: dict[UnitId, ClaimId], claim: ClaimId, grant: Grant) -> None:
    for row in grant.units:
        rows[row.unit] = claim
        for slot in row.occupied:
            rows.setdefault(UnitId(slot), claim)


def _tile(state: NodeState, unit: UnitId, holders: dict[UnitId, ClaimId], kept: dict[UnitId, ClaimId]) -> Tile:
    if unit in kept:
        return Tile("quarantined", kept[unit])
    if unit in holders:
        return Tile("taken", holders[unit])
    return Tile("cordoned" if unit in state.cordons else "free")


def _cpu_tile(state: NodeState, cpu: Cpu, holders: dict[UnitId, ClaimId], kept: dict[UnitId, ClaimId]) -> Tile:
    tile = _tile(state, cpu_unit(cpu.id), holders, kept)
    if tile.state != "free" or state.machine is None or state.layout is None:
        return tile
    layout = state.layout
    if not layout.usable >> cpu.id & 1:
        return Tile("unusable")
    return tile if (layout.shared | layout.dedicated) >> cpu.id & 1 else Tile("reserved")


def _device(state: NodeState, device: Device, holders: dict[UnitId, ClaimId], kept: dict[UnitId, ClaimId]) -> DevicePicture:
    offered = state.layout is not None and device.unit in state.layout.grantable
    tile = _tile(state, device.unit, holders, kept)
    return DevicePicture(device, offered, Tile("faulty") if device.fault is not None and tile.state == "free" else tile)


def _pools(state: NodeState) -> dict[str, PoolPicture]:
    if state.layout is None:
        return {}
    base_bytes = state.layout.base_page_kib * KIB
    shares: dict[str, dict[ClaimId, int]] = {}
    for claim_id, grant in state.grants():
        for row in grant.amounts:
            _add(shares, row.pool, claim_id, row.amount)
            if row.pool in state.layout.base_pools:
                _add(shares, MEMORY, claim_id, row.amount * base_bytes)
            elif row.pool in state.layout.vcpu_pools:
                _add(shares, VCPU, claim_id, row.amount)
    oldest = {claim.id: claim.held_at_ms for claim in state.claims.values()}
    oldest |= {kept.claim: kept.since_ms for kept in state.quarantines.values()}
    pools = {}
    for stock in state.layout.inventories(state.free):
        held = sorted(shares.get(stock.pool, {}).items(), key=lambda item: (item[0] in state.quarantines, oldest[item[0]], item[0]))
        pools[stock.pool] = PoolPicture(stock, tuple(Share(claim, amount) for claim, amount in held))
    return pools


def _add(shares: dict[str, dict[ClaimId, int]], pool: str, claim: ClaimId, amount: int) -> None:
    of_pool = shares.setdefault(pool, {})
    of_pool[claim] = of_pool.get(claim, 0) + amount


def page_size(pool: PoolPicture) -> int | None:
    """Return the page size in KiB of a pages pool, None for another pool."""
    kind, _, rest = pool.stock.pool.partition(":")
    return int(rest.partition(":")[2]) if kind == "pages" else None
