"""What a node or one of its cells is short of for a request, reason by reason.

Rules of this file: every function looks at one kind of resource and returns its reasons, none if there is enough; what is asked and what is
free stand in the pool's own unit.
"""

from __future__ import annotations

from earmark.core.fit.cpus import SharedRoom, needed_for, shared_room
from earmark.core.fit.free import Supply
from earmark.core.fit.guest import Guest
from earmark.core.fit.layout import ROOT_DISK
from earmark.core.fit.memory import ordinary_used, pages_for, stock_reasons
from earmark.core.fit.refusal import CPU, broken_rule, short
from earmark.core.model.ids import MEMORY, VCPU, class_pool, disk_pool
from earmark.core.model.refusal import Reason
from earmark.core.model.request import Request
from earmark.core.model.units import KIB, counted, exact_bytes, format_bytes, format_ratio


def plain_reasons(request: Request, supply: Supply, of_units: frozenset[str] = frozenset()) -> list[Reason]:
    """Return what is wrong with traits, disk and plain classes; not with those that are counted in units."""
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
        if item.resource_class in of_units:
            continue
        stock = layout.classes.get(item.resource_class)
        pool = class_pool(item.resource_class)
        if stock is None:
            reasons.append(
                broken_rule(pool, item.amount, "the node has no inventory of this class, and none of its units now", code="no_class")
            )
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


def node_reasons(request: Request, guest: Guest, supply: Supply) -> list[Reason]:
    """Return what the whole node is short of for a bound guest: pages of a size at all, ordinary memory, room for sharers."""
    reasons = _page_reasons(request, guest, supply) if request.memory_bytes else []
    sharing = sum(len(need.shared) for need in guest.cells)
    own = sum(len(need.dedicated) + need.emulator for need in guest.cells)
    room = shared_room(supply)
    if sharing and room.used + sharing > room.capacity:
        reasons += [reason for reason in shared_reasons(sharing, room, supply) if reason.code == "short"]
    if own and supply.layout.shrinks and room.used + sharing:
        needed = needed_for(room.used + sharing, supply.layout.cpu_ratio)
        spare = room.mask.bit_count() - needed
        if own > spare:
            keep = counted(needed, "CPU")
            detail = f"kept for {counted(room.used + sharing, 'shared vCPU')}: {keep} of the shared set, which has {room.mask.bit_count()}"
            reasons.append(short(CPU, own, max(0, spare), detail=detail))
    return reasons


def _page_reasons(request: Request, guest: Guest, supply: Supply) -> list[Reason]:
    """Return what is wrong with a page size on the whole node, and with the ordinary memory that base pages are taken from."""
    layout, wish = supply.layout, request.page_kib
    if wish in ("large", "any"):
        return []
    size = wish if isinstance(wish, int) else layout.base_page_kib
    reasons = []
    odd = next((need.memory_bytes for need in guest.cells if need.memory_bytes % (size * KIB)), None)
    if wish is not None and odd is not None:
        reasons.append(
            broken_rule(f"pages:{size}", odd, f"{exact_bytes(odd)} are not a whole number of pages of {format_bytes(size * KIB)}")
        )
    if size not in layout.page_sizes:
        sizes = ", ".join(format_bytes(known * KIB) for known in layout.page_sizes) or "none"
        files = "; its memory is file-backed, no huge page is handed out" if layout.file_backed else ""
        detail = f"the node has no pages of {format_bytes(size * KIB)}, its sizes are: {sizes}{files}"
        pages = sum(pages_for(need.memory_bytes, size) for need in guest.cells)
        reasons.append(broken_rule(f"pages:{size}", pages, detail, code="unknown_unit"))
    if size == layout.base_page_kib:
        amount = sum(pages_for(need.memory_bytes, size) for need in guest.cells) * size * KIB
        reasons += stock_reasons(MEMORY, layout.memory, ordinary_used(supply), amount, size=True)
    return reasons
