"""Which devices stay where they are when an instance is resized on its own node, and which pages a live migration keeps.

Rules of this file: pure. A device request that the resize leaves as it was is answered from the devices that the source leg holds (decision
0010, W24, S40): they pass over when the move is confirmed, and are never asked for twice. What cannot stay is asked for anew.
"""

from __future__ import annotations

from msgspec.structs import replace

from earmark.core.fit.fit import answered
from earmark.core.fit.free import CPU_PREFIX, Free, Supply
from earmark.core.fit.layout import ROOT_DISK
from earmark.core.fit.memory import limit
from earmark.core.fit.request import check_request
from earmark.core.ledger.remembering import identified
from earmark.core.ledger.state import NODE_CORDON, NodeState
from earmark.core.model.claim import Claim
from earmark.core.model.grant import Grant
from earmark.core.model.ids import MEMORY, VCPU, PoolId, UnitId, class_pool, disk_pool
from earmark.core.model.request import DeviceRequest, Request


def with_kept_devices(state: NodeState, here: Claim, request: Request) -> tuple[tuple[UnitId, ...], Grant] | None:
    """Return the devices of a source leg that stay and the rest of the destination leg's grant; None if none can stay."""
    check_request(request)
    supply = state.supply
    if supply is None or state.retired is not None or NODE_CORDON in state.cordons:
        return None
    held = tuple(sorted(row.unit for row in here.grant.units if not row.unit.startswith(CPU_PREFIX)))
    wishes, unchanged = _split(here.request, request, held)
    if not unchanged or not held:
        return None
    freed = state.free.give(here.id, here.grant, frozenset(held))
    asked = replace(request, devices=wishes)
    answer = answered(asked, replace(supply, free=freed, blocked_units=supply.blocked_units - frozenset(held)))
    found = answer if isinstance(answer, Grant) else not_worse(state, here, asked, freed)
    if found is None:
        return None
    named = tuple(row.unit for row in found.units if row.unit in held)
    rest = tuple(row for row in found.units if row.unit not in held)
    if not named or any(slot in state.free.slots for row in rest for slot in row.occupied):
        return None
    return named, identified(replace(found, units=rest), supply.layout)


def _split(before: Request, after: Request, held: tuple[UnitId, ...]) -> tuple[tuple[DeviceRequest, ...], bool]:
    """Return the device requests of a resize, those that are as before asked for among what is held; whether there is one."""
    known = list(before.devices)
    wishes: list[DeviceRequest] = []
    unchanged = False
    for wish in after.devices:
        old = next((each for each in known if replace(each, count=wish.count) == wish), None)
        if old is None or wish.share is not None or wish.within:
            wishes.append(wish)
            continue
        known.remove(old)
        unchanged = True
        kept = min(old.count, wish.count)
        wishes.append(replace(wish, count=kept, within=held))
        if wish.count > kept:
            wishes.append(replace(wish, count=wish.count - kept))
    return tuple(wishes), unchanged


def not_worse(state: NodeState, here: Claim, asked: Request, free: Free | None = None) -> Grant | None:
    """Return a grant for a resize on an overcommitted node that asks of no overcommitted pool for more than the instance holds now (S45).

    C10: what does not worsen an existing overage is admitted. Both legs count until the move ends. `free` stands for the node's index.
    """
    supply: Supply | None = state.supply
    if supply is None or NODE_CORDON in state.cordons:
        return None
    free = state.free if free is None else free
    wanted = _floating(asked)
    used = free.used
    for stock in supply.layout.inventories(state.free):
        pool = PoolId(stock.pool)
        if stock.admits(0, stock.used) or not wanted.get(pool):
            continue
        if wanted[pool] > here.grant.amount(pool):
            return None
        used = used.set(pool, limit(stock) - wanted[pool])
    if used is free.used:
        return None
    found = answered(asked, replace(supply, free=replace(free, used=used)))
    return identified(found, supply.layout) if isinstance(found, Grant) else None


def _floating(asked: Request) -> dict[PoolId, int]:
    """Return what a request takes from the pools that float over the node."""
    wanted = {
        VCPU: asked.vcpus if asked.cpu_policy == "shared" else 0,
        MEMORY: asked.memory_bytes if asked.page_kib is None else 0,
        disk_pool(ROOT_DISK): asked.disk_bytes,
    }
    return wanted | {class_pool(item.resource_class): item.amount for item in asked.resources}


def page_sizes(grant: Grant) -> tuple[int | None, ...]:
    """Return the sizes of a guest's pages in KiB, cell by cell; None for ordinary memory."""
    return tuple(cell.page_kib for cell in sorted(grant.cells, key=lambda cell: cell.guest_cell))


def same_pages(request: Request, before: tuple[int | None, ...]) -> Request:
    """Return the request with which a live migration keeps its pages (M24): the size that the guest has, where all its cells have one."""
    sizes = set(before)
    return replace(request, page_kib=sizes.pop()) if len(sizes) == 1 and isinstance(request.page_kib, str) else request
