"""What a node or one of its cells is short of for a request, reason by reason.

Rules of this file: every function looks at one kind of resource and returns its reasons, none if there is enough; what is asked and what is
free stand in the pool's own unit.
"""

from __future__ import annotations

from earmark.core.fit.cpus import SharedRoom, cell_capacity, needed_for, shared_room
from earmark.core.fit.free import Supply
from earmark.core.fit.layout import ROOT_DISK, CellLayout, PageStock
from earmark.core.fit.memory import ordinary_used, stock_reasons
from earmark.core.fit.refusal import CPU, broken_rule, short
from earmark.core.model.ids import MEMORY, VCPU, class_pool, disk_pool
from earmark.core.model.refusal import Reason
from earmark.core.model.request import Request
from earmark.core.model.units import KIB, counted, format_ratio


def plain_reasons(request: Request, supply: Supply) -> list[Reason]:
    """Return what is wrong with traits, disk and plain classes."""
    layout, used = supply.layout, supply.free.used
    reasons = [
        Reason(code="trait", resource=f"trait:{trait}", detail="the node has it not")
        for trait in request.required_traits
        if trait not in layout.traits
    ]
    reasons += [
        Reason(code="trait", resource=f"trait:{trait}", detail="the node has it")
        for trait in request.forbidden_traits
        if trait in layout.traits
    ]
    if request.disk_bytes:
        pool = disk_pool(ROOT_DISK)
        disk = layout.disks.get(pool)
        if disk is None:
            reasons.append(short(pool, request.disk_bytes, 0, detail="the node hands out no disk"))
        else:
            reasons += stock_reasons(pool, disk, used.get(pool, 0), request.disk_bytes, size=True)
    for item in sorted(request.resources, key=lambda item: item.resource_class):
        stock = layout.classes.get(item.resource_class)
        pool = class_pool(item.resource_class)
        if stock is None:
            reasons.append(broken_rule(pool, item.amount, "the node has no inventory of this class", code="no_class"))
        else:
            reasons += stock_reasons(pool, stock, used.get(pool, 0), item.amount)
    return reasons


def floating_reasons(request: Request, supply: Supply) -> list[Reason]:
    """Return what is wrong with shared vCPUs and memory that may lie anywhere on the node."""
    reasons = []
    if request.vcpus:
        reasons += shared_reasons(request.vcpus, shared_room(supply), supply)
    if request.memory_bytes:
        reasons += stock_reasons(MEMORY, supply.layout.memory, ordinary_used(supply), request.memory_bytes, size=True)
    return reasons


def shared_reasons(vcpus: int, room: SharedRoom, supply: Supply) -> list[Reason]:
    """Return what is wrong with some shared vCPUs on the whole node: more than CPUs (N14), or than is left (C10)."""
    cpus = room.mask.bit_count()
    reasons = []
    if vcpus > cpus:
        detail = f"a guest never has more vCPUs than there are shared CPUs, {cpus} now, whatever the ratio"
        reasons.append(broken_rule(VCPU, vcpus, detail, code="self_overcommit"))
    if room.used + vcpus > room.capacity:
        detail = f"{counted(room.used, 'vCPU')} on {counted(cpus, 'CPU')} at a ratio of {format_ratio(supply.layout.cpu_ratio)}"
        reasons.append(short(VCPU, vcpus, room.capacity - room.used, detail=detail))
    return reasons


def node_reasons(request: Request, supply: Supply, size: int, pages: int) -> list[Reason]:
    """Return what the whole node is short of for a bound request: pages of that size at all, ordinary memory, room for sharers."""
    layout = supply.layout
    reasons = []
    if request.memory_bytes:
        if request.page_kib is not None and request.memory_bytes % (size * KIB):
            detail = f"{request.memory_bytes} bytes are not a whole number of pages of {size} KiB"
            reasons.append(broken_rule(f"pages:{size}", request.memory_bytes, detail))
        if size not in layout.page_sizes:
            sizes = ", ".join(str(known) for known in layout.page_sizes) or "none"
            files = "; its memory is file-backed, no huge page is handed out" if layout.file_backed else ""
            detail = f"the node has no pages of {size} KiB, its sizes are: {sizes}{files}"
            reasons.append(broken_rule(f"pages:{size}", pages, detail, code="unknown_unit"))
        if size == layout.base_page_kib:
            reasons += stock_reasons(MEMORY, layout.memory, ordinary_used(supply), pages * size * KIB, size=True)
    if request.cpu_policy == "shared" and request.vcpus:
        room = shared_room(supply)
        if room.used + request.vcpus > room.capacity:
            reasons += [reason for reason in shared_reasons(request.vcpus, room, supply) if reason.code == "short"]
    if request.cpu_policy == "dedicated" and layout.shrinks:
        room = shared_room(supply)
        spare = room.mask.bit_count() - needed_for(room.used, layout.cpu_ratio)
        if room.used and request.vcpus > spare:
            keep = counted(needed_for(room.used, layout.cpu_ratio), "CPU")
            detail = f"kept for {counted(room.used, 'shared vCPU')}: {keep} of the shared set, which has {room.mask.bit_count()}"
            reasons.append(short(CPU, request.vcpus, max(0, spare), detail=detail))
    return reasons


def dedicated_reasons(count: int, cell: CellLayout, free: int, room: SharedRoom, supply: Supply) -> list[Reason]:
    """Return why a cell cannot give some CPUs of one's own: too few are free, or its bound sharers keep them."""
    reasons = []
    there = (free & cell.dedicated).bit_count()
    if count > there:
        total = cell.dedicated.bit_count()
        reasons.append(short(CPU, count, there, cell=cell.id, detail=f"the cell has {counted(total, 'CPU')} for dedicated use"))
    bound = supply.free.used.get(cell.vcpu_pool, 0)
    if bound and supply.layout.shrinks:
        keep = needed_for(bound, supply.layout.cpu_ratio)
        spare = (room.mask & cell.cpus).bit_count() - keep
        if count > spare:
            reasons.append(
                short(
                    cell.vcpu_pool,
                    count,
                    max(0, spare),
                    cell=cell.id,
                    detail=f"kept for {counted(bound, 'shared vCPU')}: {counted(keep, 'CPU')} of the cell",
                )
            )
    return reasons


def cell_shared_reasons(count: int, cell: CellLayout, room: SharedRoom, supply: Supply) -> list[Reason]:
    """Return why a cell cannot hold some shared vCPUs (N14, N15)."""
    cpus = (room.mask & cell.cpus).bit_count()
    used = supply.free.used.get(cell.vcpu_pool, 0)
    capacity = cell_capacity(room.mask, cell, supply.layout.cpu_ratio)
    reasons = []
    if count > cpus:
        detail = f"a guest cell never has more vCPUs than the host cell has shared CPUs, {cpus} now"
        reasons.append(broken_rule(cell.vcpu_pool, count, detail, cell=cell.id, code="self_overcommit"))
    if used + count > capacity:
        detail = f"{counted(used, 'vCPU')} on {counted(cpus, 'CPU')} of the cell at a ratio of {format_ratio(supply.layout.cpu_ratio)}"
        reasons.append(short(cell.vcpu_pool, count, capacity - used, cell=cell.id, detail=detail))
    return reasons


def pages_short(pages: int, size: int, free: int, cell: CellLayout, stock: PageStock | None) -> Reason:
    """Return the reason that a cell has too few pages of a size."""
    if stock is None:
        return short(f"pages:{cell.id}:{size}", pages, 0, cell=cell.id, detail=f"the cell has no pages of {size} KiB")
    detail = f"{stock.total} pages of {size} KiB, {stock.reserved} kept back"
    return short(stock.pool, pages, free, cell=cell.id, detail=detail)
