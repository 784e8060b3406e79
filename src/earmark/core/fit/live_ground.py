"""A live node made into the ground of the search: its cells now, what its sharers and its ordinary memory still allow.

Rules of this file: nothing is decided here. What the whole node allows is a number each: CPUs that may leave the shared set, bytes of ordinary
memory. Floating guests count against the whole node, not against a cell (W26): they may lie anywhere on it.
"""

from __future__ import annotations

from typing import NamedTuple

from earmark.core.fit.cpus import SharedRoom, dedicated_free, needed_for, shared_room
from earmark.core.fit.devices.match import wanted
from earmark.core.fit.devices.rows import stock_of
from earmark.core.fit.free import Supply
from earmark.core.fit.ground import DeviceStock, Ground, HostCell, PageOffer
from earmark.core.fit.guest import Guest, guest_of, is_bound
from earmark.core.fit.layout import CellLayout, Layout, PageStock
from earmark.core.fit.memory import limit, ordinary_used
from earmark.core.model.request import DeviceRequest, PageWish, Request

NO_STOCK = DeviceStock()


class Question(NamedTuple):
    """What is put to the search: a guest (None: without cells), the node, and the devices wished for."""

    guest: Guest | None
    ground: Ground
    wishes: tuple[DeviceRequest, ...]


def question_of(request: Request, supply: Supply, stock: DeviceStock | None = None) -> Question:
    """Return the question that a checked request is on a live node. `stock` is the supply's, for who knows it already."""
    wishes = wanted(request, supply.layout)
    stock = (stock or stock_of(supply)) if wishes else NO_STOCK
    if not is_bound(request):
        return Question(None, Ground(cells=(), stock=stock), wishes)
    guest = guest_of(request)
    return Question(guest, ground_of(request, guest, supply, stock), wishes)


def ground_of(request: Request, guest: Guest, supply: Supply, stock: DeviceStock = NO_STOCK) -> Ground:
    """Return the ground for a bound request on a live node."""
    layout = supply.layout
    room = shared_room(supply)
    free = dedicated_free(supply)
    cells = tuple(_cell(cell, free & cell.dedicated, room, request.page_kib, supply) for cell in layout.cells)
    return Ground(
        cells=cells,
        stock=stock,
        leaving_max=leaving_max(guest, room, layout),
        shrinks=layout.shrinks,
        ordinary_max=max(0, limit(layout.memory) - ordinary_used(supply)) if request.memory_bytes else None,
        networks=networks_of(request, layout),
    )


def leaving_max(guest: Guest, room: SharedRoom, layout: Layout) -> int | None:
    """Return how many CPUs may leave the node's shared set for a guest, -1 if it shares more than is left; None: as many as there are."""
    sharing = sum(len(need.shared) for need in guest.cells)
    if layout.shrinks:
        spare = room.mask.bit_count() - needed_for(room.used + sharing, layout.cpu_ratio)
        return spare if sharing else max(0, spare)
    return -1 if sharing and room.used + sharing > room.capacity else None


def networks_of(request: Request, layout: Layout) -> tuple[tuple[str, frozenset[int]], ...]:
    """Return the networks of a request whose cells are known (N21): of others nothing is demanded."""
    names = (*sorted(set(request.networks)), *(("",) if request.tunnel else ()))
    return tuple((name, layout.networks[name]) for name in names if layout.networks.get(name))


def _cell(cell: CellLayout, free: int, room: SharedRoom, wish: int | PageWish | None, supply: Supply) -> HostCell:
    return HostCell(
        id=cell.id,
        free=free,
        cores=cell.threads,
        own=cell.cores,
        busy=cell.online & ~free,
        zero=cell.zero,
        caches=cell.caches,
        shared_cpus=(room.mask & cell.cpus).bit_count(),
        shared_used=supply.free.used.get(cell.vcpu_pool, 0),
        cpu_ratio=supply.layout.cpu_ratio,
        vcpu_pool=cell.vcpu_pool,
        offers=_offers(cell, wish, supply),
        socket=cell.socket,
        devices=cell.devices,
        distances=cell.distances,
    )


def _offers(cell: CellLayout, wish: int | PageWish | None, supply: Supply) -> tuple[PageOffer, ...]:
    """Return the pages that answer a wish (H1), the smallest first; without a wish the base pages, rounded up."""
    if wish is None:
        return (_offer(cell.base, supply, whole=False, named=False, ordinary=True),)
    if wish == "small":
        sizes: tuple[int, ...] = (cell.sizes[0],)
    elif wish == "any":
        sizes = cell.sizes
    elif wish == "large":
        sizes = cell.sizes[1:]
    else:
        sizes = (wish,) if wish in cell.pages else ()
    return tuple(_offer(cell.pages[size], supply, whole=True, named=True, ordinary=size == cell.base.size_kib) for size in sizes)


def _offer(stock: PageStock, supply: Supply, *, whole: bool, named: bool, ordinary: bool) -> PageOffer:
    free = stock.capacity - supply.free.used.get(stock.pool, 0)
    return PageOffer(size_kib=stock.size_kib, free=free, whole=whole, named=named, ordinary=ordinary, pool=stock.pool)
