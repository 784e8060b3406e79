"""Each reason of a refusal, checked again from the node alone, by other means than those that found it.

Rules of this file: nothing of fit's own arithmetic is used; an empty answer means that every number and every claim of the refusal holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from earmark.core.fit.free import Supply
from earmark.core.fit.proof.recheck_devices import DEVICE, check_excluded, check_kept_out, check_short_devices
from earmark.core.model.ids import PoolId, ResourceClass
from earmark.core.model.inventory import Inventory
from earmark.core.model.refusal import Reason, Refusal
from earmark.core.model.request import Request
from earmark.errors import LedgerBroken


def check_refusal(refusal: Refusal, request: Request, supply: Supply) -> list[str]:
    """Return, in words, what is wrong with the reasons of a refusal that fit gave for a request on a supply."""
    wrong = [] if refusal.reasons else ["a refusal without a reason"]
    for reason in refusal.reasons:
        wrong += [f"{reason.code} {reason.resource} (cell {reason.cell}): {text}" for text in CHECKS[reason.code](reason, request, supply)]
    return wrong


def _short(reason: Reason, request: Request, supply: Supply) -> Iterator[str]:
    if reason.resource.startswith(DEVICE):
        yield from check_short_devices(reason, request, supply)
        return
    if reason.short != reason.asked - reason.free or reason.short < 1:
        yield f"asked {reason.asked} less free {reason.free} is not a shortage of {reason.short}"
    free = _free(reason, request, supply)
    if reason.free != free:
        yield f"{free} is free, not {reason.free}"
    asked = _asked(reason, request, supply)
    if reason.asked != asked:
        yield f"{asked} is asked for, not {reason.asked}"


def _asked(reason: Reason, request: Request, supply: Supply) -> int:
    kind, _, name = reason.resource.partition(":")
    if kind in ("cpu", "vcpu"):
        return request.vcpus
    if kind == "memory":
        bound = request.cpu_policy == "dedicated" or request.page_kib is not None or request.cells is not None
        page = supply.layout.base_page_kib * 1024
        return -(-request.memory_bytes // page) * page if bound else request.memory_bytes
    if kind == "pages":
        return -(-request.memory_bytes // (int(name.partition(":")[2]) * 1024))
    if kind == "disk":
        return request.disk_bytes
    return sum(item.amount for item in request.resources if item.resource_class == name)


def _free(reason: Reason, request: Request, supply: Supply) -> int:
    layout, free = supply.layout, supply.free
    kind, _, name = reason.resource.partition(":")
    if kind == "cpu" and reason.cell is None and layout.cells:  # what sharers leave of the pool
        cpus = _shared_cpus(reason, supply)
        used = sum(free.used.get(PoolId(pool), 0) for pool in ("vcpu", *(f"vcpu:{cell.id}" for cell in layout.cells)))
        return max((n for n in range(cpus + 1) if (cpus - n) * layout.cpu_ratio >= used * 1000), default=0)
    if kind == "cpu":
        return _count(
            n for n in _cell_cpus(reason, supply) if layout.dedicated >> n & 1 and not (free.taken_cpus | supply.blocked_cpus) >> n & 1
        )
    if kind == "vcpu":
        cpus = _shared_cpus(reason, supply)
        pools = [reason.resource] if name else ["vcpu", *(f"vcpu:{cell.id}" for cell in layout.cells)]
        used = sum(free.used.get(PoolId(pool), 0) for pool in pools)
        if request.cpu_policy == "shared":
            return cpus * layout.cpu_ratio // 1000 - used
        return max((n for n in range(cpus + 1) if (cpus - n) * layout.cpu_ratio >= used * 1000), default=0)
    if kind == "memory":
        pages = sum(free.used.get(PoolId(f"pages:{cell.id}:{layout.base_page_kib}"), 0) for cell in layout.cells)
        return _room(layout.memory) - free.used.get(PoolId("memory"), 0) - pages * layout.base_page_kib * 1024
    if kind == "pages":
        cell, _, size = name.partition(":")
        stock = layout.cell[int(cell)].pages.get(int(size))
        return stock.total - stock.reserved - free.used.get(stock.pool, 0) if stock else 0
    if kind == "disk":
        disk = layout.disks.get(PoolId(reason.resource))
        return _room(disk) - free.used.get(PoolId(reason.resource), 0) if disk else 0
    if kind == "class":
        return _room(layout.classes[ResourceClass(name)]) - free.used.get(PoolId(reason.resource), 0)
    raise LedgerBroken(f"{reason.resource} is no pool", found=reason.resource)


def _room(inventory: Inventory) -> int:
    return (inventory.total - inventory.reserved) * inventory.ratio // 1000


def _cell_cpus(reason: Reason, supply: Supply) -> list[int]:
    cpus = [n for n in range(supply.layout.online.bit_length()) if supply.layout.usable >> n & 1]
    return cpus if reason.cell is None else [n for n in cpus if supply.layout.cell[reason.cell].cpus >> n & 1]


def _shared_cpus(reason: Reason, supply: Supply) -> int:
    layout = supply.layout
    gone = supply.blocked_cpus | (supply.free.taken_cpus if layout.policy != "overlap" else 0)
    return _count(n for n in _cell_cpus(reason, supply) if layout.shared >> n & 1 and not gone >> n & 1)


def _count(things: Iterator[object]) -> int:
    return sum(1 for _ in things)


def _overcommit(reason: Reason, request: Request, supply: Supply) -> Iterator[str]:
    cpus = _shared_cpus(reason, supply)
    if request.vcpus <= cpus:
        yield f"{request.vcpus} vCPUs are not more than {cpus} shared CPUs"


def _rule(reason: Reason, request: Request, supply: Supply) -> Iterator[str]:
    kind, _, name = reason.resource.partition(":")
    if kind == "pages":
        if request.memory_bytes % (int(name) * 1024) == 0:
            yield f"{request.memory_bytes} bytes are whole pages of {name} KiB"
        return
    stock = {"memory": supply.layout.memory}.get(kind) or supply.layout.disks.get(PoolId(reason.resource))
    stock = stock or supply.layout.classes[ResourceClass(name)]
    if stock.min_unit <= reason.asked <= stock.max_unit and reason.asked % stock.step_size == 0:
        yield f"{reason.asked} is from {stock.min_unit} to {stock.max_unit} in steps of {stock.step_size}"


def _unknown(reason: Reason, _request: Request, supply: Supply) -> Iterator[str]:
    size = int(reason.resource.partition(":")[2])
    if any(size in cell.pages for cell in supply.layout.cells):
        yield f"a cell has pages of {size} KiB"


def _no_class(reason: Reason, _request: Request, supply: Supply) -> Iterator[str]:
    if ResourceClass(reason.resource.partition(":")[2]) in supply.layout.classes:
        yield "the node has the class"


def _trait(reason: Reason, request: Request, supply: Supply) -> Iterator[str]:
    name = reason.resource.partition(":")[2]
    wanted = name in request.required_traits
    if wanted == (name in supply.layout.traits) or not (wanted or name in request.forbidden_traits):
        yield "the node and the request agree on the trait"


def _nothing(_reason: Reason, _request: Request, _supply: Supply) -> Iterator[str]:
    yield from ()


def _not_fits(_reason: Reason, _request: Request, _supply: Supply) -> Iterator[str]:
    yield "fit gives no such reason"


CHECKS: dict[str, Callable[[Reason, Request, Supply], Iterator[str]]] = {
    "short": _short,
    "self_overcommit": _overcommit,
    "units_rule": _rule,
    "unknown_unit": _unknown,
    "no_class": _no_class,
    "trait": _trait,
    "excluded": check_excluded,
    "affinity": check_short_devices,
    "unit_blocked": check_kept_out,
    **dict.fromkeys(("not_supported", "network", "hall", "together", "undecided"), _nothing),  # a certificate speaks for these
    **dict.fromkeys(("unit_taken", "node_closed", "consumer_has_main", "other_ledger", "mismatch"), _not_fits),
}
