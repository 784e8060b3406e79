"""Where exactly does a request fit on a node, or why not.

Rules of this file: pure and total; the same request and supply give the same answer everywhere; never a no where a placement exists.
A request is bound to one host cell if it wants CPUs of its own, a page size, or one guest cell; otherwise it floats over the node.
"""

from collections.abc import Sequence
from typing import NamedTuple

from earmark.core.fit.cpus import (
    Choice,
    cell_capacity,
    choose,
    dedicated_free,
    ordered,
    shared_room,
)
from earmark.core.fit.devices import available, device_reasons, home, misses, pick, wish_of
from earmark.core.fit.free import Supply
from earmark.core.fit.hints import suggestions
from earmark.core.fit.layout import ROOT_DISK, CellLayout, Layout, PageStock
from earmark.core.fit.memory import pages_for
from earmark.core.fit.rank import Key, rank
from earmark.core.fit.refusal import CPU, short
from earmark.core.fit.request import check_request, unsupported
from earmark.core.fit.shortfalls import (
    cell_shared_reasons,
    dedicated_reasons,
    floating_reasons,
    node_reasons,
    pages_short,
    plain_reasons,
)
from earmark.core.model.grant import AmountRow, Grant, GrantCell, Pin, UnitRow
from earmark.core.model.ids import MEMORY, VCPU, class_pool, cpu_unit, disk_pool
from earmark.core.model.refusal import Reason, Refusal
from earmark.core.model.request import Request
from earmark.core.model.topology import Device

NO_CHOICE = Choice(0, 0, 0)


def fit(request: Request, supply: Supply) -> Grant | Refusal:
    """Return the best grant for a request on a node, or the reasons why there is none.

    Raises InvalidRequest on a request that is empty or contradicts itself.
    """
    check_request(request)
    answer = search(request, supply)
    if isinstance(answer, Grant):
        return answer
    return Refusal(reasons=tuple(answer), fits_if=_fits_if(request, supply, answer))


def _fits_if(request: Request, supply: Supply, reasons: Sequence[Reason]) -> tuple[str, ...]:
    """Return the changes to a refused request with which it does fit, in words."""
    said = []
    for group in suggestions(request, supply, reasons):
        fitting = (text for text, other in group if isinstance(search(other, supply), Grant))
        text = next(fitting, None)
        if text is not None:
            said.append(text)
    return tuple(said)


def search(request: Request, supply: Supply) -> Grant | list[Reason]:
    """Return the best grant for a checked request, or the reasons of the no."""
    beyond = unsupported(request)
    if beyond:
        return list(beyond)
    wish = wish_of(request.devices)
    devices = available(supply, wish) if wish else ()
    reasons = plain_reasons(request, supply)
    if wish:
        reasons += device_reasons(supply, wish, devices)
    if not is_bound(request):
        reasons += floating_reasons(request, supply)
        if reasons:
            return reasons
        chosen = pick(devices, wish, supply, home(devices, wish)) if wish else ()
        return _grant(request, supply, chosen, None)
    spots, missing = _spots(request, supply, devices)
    reasons += missing
    if reasons or not spots:
        return reasons
    spot = min(spots, key=lambda spot: spot.key)
    chosen = pick(devices, wish, supply, spot.cell.id) if wish else ()
    return _grant(request, supply, chosen, spot)


def is_bound(request: Request) -> bool:
    """Say whether a request must lie on one host cell."""
    return request.cpu_policy != "shared" or request.page_kib is not None or request.cells is not None


class Spot(NamedTuple):
    """One cell on which a bound request fits: its rank, the CPUs of one's own, and the pages (None: no memory is wanted)."""

    key: Key
    cell: CellLayout
    choice: Choice
    pages: PageStock | None


def _spots(request: Request, supply: Supply, devices: Sequence[Device]) -> tuple[list[Spot], list[Reason]]:
    """Return the cells on which a bound request fits; else, and for what the whole node is short of, the reasons."""
    layout = supply.layout
    size = layout.base_page_kib if request.page_kib is None else int(request.page_kib)
    pages = pages_for(request.memory_bytes, size)
    overall = node_reasons(request, supply, size, pages)
    dedicated = request.vcpus if request.cpu_policy == "dedicated" else 0
    shared = request.vcpus - dedicated
    room = shared_room(supply)
    free_cpus = dedicated_free(supply)
    wish = wish_of(request.devices)
    spots = []
    reasons: list[Reason] = []
    for cell in layout.cells:
        stock = cell.pages.get(size)
        problems = []
        free_pages = 0
        if dedicated:
            problems += dedicated_reasons(dedicated, cell, free_cpus, room, supply)
        if shared:
            problems += cell_shared_reasons(shared, cell, room, supply)
        if pages:
            free_pages = stock.capacity - supply.free.used.get(stock.pool, 0) if stock is not None else 0
            if pages > free_pages:
                problems.append(pages_short(pages, size, free_pages, cell, stock))
        if problems or overall:
            reasons += problems
            continue
        choice, here = NO_CHOICE, free_cpus & cell.dedicated
        if dedicated:
            choice = choose(cell, here, dedicated)
        load = here.bit_count() if dedicated else cell_capacity(room.mask, cell, layout.cpu_ratio) - supply.free.used.get(cell.vcpu_pool, 0)
        key = rank(
            request.placement, missed_devices=misses(devices, wish, cell.id) if wish else 0, zero_cpus=choice.zero,
            broken_cores=choice.broken, free_cpus=load, free_pages=free_pages, cell=cell.id,
        )  # fmt: skip
        spots.append(Spot(key, cell, choice, stock if pages else None))
    if spots:
        return spots, []
    if dedicated and not layout.cells:
        reasons.append(short(CPU, dedicated, 0, detail="the node has no cells"))
    return [], overall + reasons


def _grant(request: Request, supply: Supply, devices: Sequence[Device], spot: Spot | None) -> Grant:
    """Return the rows of a placement that fits, in a fixed order: CPUs, devices; vCPUs, memory, disk, classes."""
    units = []
    amounts = []
    cells: tuple[GrantCell, ...] = ()
    if spot is None:
        if request.vcpus:
            amounts.append(AmountRow(pool=VCPU, amount=request.vcpus))
        if request.memory_bytes:
            amounts.append(AmountRow(pool=MEMORY, amount=request.memory_bytes))
    else:
        pins = tuple(Pin(vcpu=vcpu, cpu=cpu) for vcpu, cpu in enumerate(ordered(spot.cell, spot.choice.mask)))
        units = [UnitRow(unit=cpu_unit(cpu), use="vcpu") for cpu in sorted(pin.cpu for pin in pins)]
        shared = () if pins else tuple(range(request.vcpus))
        if shared:
            amounts.append(AmountRow(pool=spot.cell.vcpu_pool, amount=len(shared)))
        if spot.pages is not None:
            amounts.append(AmountRow(pool=spot.pages.pool, amount=pages_for(request.memory_bytes, spot.pages.size_kib)))
        page_kib = spot.pages.size_kib if spot.pages is not None and request.page_kib is not None else None
        cell = GrantCell(
            guest_cell=0, host_cell=spot.cell.id, pins=pins, shared_vcpus=shared, memory_bytes=request.memory_bytes, page_kib=page_kib
        )
        cells = (cell,)
    units += [device_row(device, supply.layout) for device in devices]
    if request.disk_bytes:
        amounts.append(AmountRow(pool=disk_pool(ROOT_DISK), amount=request.disk_bytes))
    classes = sorted(request.resources, key=lambda item: item.resource_class)
    amounts += [AmountRow(pool=class_pool(item.resource_class), amount=item.amount) for item in classes]
    return Grant(units=tuple(units), amounts=tuple(amounts), cells=cells)


def device_row(device: Device, layout: Layout) -> UnitRow:
    """Return the unit row of a device; its slots are named only when they are not simply itself."""
    slots = layout.slots[device.unit]
    return UnitRow(unit=device.unit, use="device", slots=slots if len(slots) > 1 else ())
