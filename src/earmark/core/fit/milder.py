"""The milder requests that could be tried in place of one that was refused, the most wanted of each kind first.

Rules of this file: nothing is tried here. A request changes in one thing: downwards, to a milder kind, or up to a whole number of pages, by what
the reasons and the node say is free. What hangs on it changes with it (the vCPUs that are still dedicated); the words are made of the difference
(`core.fit.differences`), so none of it goes unsaid.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Protocol

from msgspec.structs import replace

from earmark.core.fit.cpus import shared_room
from earmark.core.fit.free import Supply
from earmark.core.fit.ground import Ground, HostCell
from earmark.core.fit.guest import guest_of, is_bound
from earmark.core.fit.live_ground import ground_of
from earmark.core.fit.request import ENCRYPTION
from earmark.core.fit.search.places import PAIR, isolable
from earmark.core.model.ids import MEMORY
from earmark.core.model.refusal import Reason
from earmark.core.model.request import Request, ThreadPolicy
from earmark.core.model.units import KIB, MIB

AMOUNTS_MAX = 8
"""So many amounts of one resource are tried, the largest first."""
CELLS_TRIED = (1, 2, 3, 4, 6, 8)
"""The numbers of guest cells that are tried where another number would do."""

MILDER: dict[ThreadPolicy, tuple[ThreadPolicy, ...]] = {
    "isolate": ("prefer",),
    "require-strict": ("require", "prefer"),
    "require": ("prefer",),
}


class Changes(Protocol):
    """Requests in the order in which they are tried."""

    def __len__(self) -> int:
        """Return how many there are."""

    def __getitem__(self, place: int, /) -> Request:
        """Return one of them."""


class Made:
    """Requests that are made of some numbers, each when it is asked for."""

    def __init__(self, make: Callable[[int], Request], numbers: Sequence[int]) -> None:
        self._make = make
        self._numbers = numbers

    def __len__(self) -> int:
        """Return how many numbers there are."""
        return len(self._numbers)

    def __getitem__(self, place: int, /) -> Request:
        """Return the request that is made of one of the numbers."""
        return self._make(self._numbers[place])


# --- vCPUs --------------------------------------------------------------------------------------------------------------------------


def fewer_cpus(request: Request, supply: Supply, reasons: Sequence[Reason]) -> Changes:
    """Return the request with fewer vCPUs, from the most that could be free downwards, each number of them."""
    if request.guest_cells:
        return _fewer_in_a_cell(request, supply, reasons)
    cells = request.cells or 1
    most = min(request.vcpus - 1, _most_vcpus(request, supply))
    return Made(partial(_with_vcpus, request), range(most // cells * cells, 0, -cells))


def _most_vcpus(request: Request, supply: Supply) -> int:
    """Return a number of vCPUs such that the node surely has not room for more of this kind."""
    room = shared_room(supply)
    if not is_bound(request):
        return max(0, min(room.mask.bit_count(), room.capacity - room.used))
    ground, cells = _ground(request, supply), request.cells or 1
    free = _rooms(request, ground)
    most = free[cells - 1] * cells if cells <= len(free) else 0
    emulator = 1 if request.emulator_policy == "isolate" else 0
    if cells == 1:
        most -= emulator
    if request.cpu_policy == "dedicated" and ground.leaving_max is not None:
        most = min(most, ground.leaving_max - emulator)
    if request.cpu_policy == "shared":
        most = min(most, room.capacity - room.used)
    return max(0, most)


def _ground(request: Request, supply: Supply) -> Ground:
    return ground_of(request, guest_of(request), supply)


def _rooms(request: Request, ground: Ground) -> list[int]:
    """Return how many vCPUs, and CPUs for the emulator, each host cell has room for at the very most, the largest first."""
    return sorted((_room(request, cell, shrinks=ground.shrinks) for cell in ground.cells), reverse=True)


def _room(request: Request, cell: HostCell, *, shrinks: bool) -> int:
    free = cell.free.bit_count()
    if request.cpu_policy == "shared":
        return cell.shared_cpus
    if request.cpu_policy == "mixed":
        return max(free, cell.shared_cpus) if shrinks else free + cell.shared_cpus
    if request.thread_policy == "isolate":
        return sum(1 for _ in isolable(cell))
    if request.thread_policy in ("require", "require-strict") and request.emulator_policy != "isolate":
        return sum(size for core in cell.cores if (size := (core & cell.free).bit_count()) >= PAIR)
    return free


def _with_vcpus(request: Request, count: int) -> Request:
    """Return a request whose last vCPUs are gone."""
    return replace(
        request,
        vcpus=count,
        dedicated_vcpus=tuple(vcpu for vcpu in request.dedicated_vcpus if vcpu < count),
        realtime_vcpus=tuple(vcpu for vcpu in request.realtime_vcpus if vcpu < count),
        topology=None,
    )


def _fewer_in_a_cell(request: Request, supply: Supply, reasons: Sequence[Reason]) -> list[Request]:
    """Return the request with fewer vCPUs in one of its own cells, then in as many as the node's cells are too small for, then in all too large.

    None is returned that the free CPUs of the node's cells rule out. Of cells that are alike only the first is tried alone.
    """
    sizes = [len(cell.vcpus) for cell in request.guest_cells]
    rooms = _rooms(request, _ground(request, supply))[: len(sizes)]
    if len(rooms) < len(sizes) or not rooms[-1]:
        return []
    told = {(reason.guest_cell or 0, reason.free) for reason in reasons if reason.code == "short"}
    tried = set()
    for number in {
        (len(cell.vcpus), len(cell.dedicated), cell.memory_bytes): n for n, cell in reversed([*enumerate(request.guest_cells)])
    }.values():
        most = _most_in_a_cell(number, sizes, rooms)
        tried |= {(number, count) for count in (most, most - 1)} | {
            (number, free) for cell, free in told if cell == number and free <= most
        }
    changes = sorted(tried, key=lambda change: (-change[1], change[0]))
    changed = [_with_sizes(request, {number: count}) for number, count in changes if count > 0][:AMOUNTS_MAX]
    largest_first = sorted(range(len(sizes)), key=lambda number: -sizes[number])
    matched = {number: room for number, room in zip(largest_first, rooms, strict=True) if sizes[number] > room}
    capped = {number: rooms[-1] for number, size in enumerate(sizes) if size > rooms[-1]}
    several = [_with_sizes(request, cuts) for cuts in ((matched,) if matched == capped else (matched, capped)) if len(cuts) > 1]
    return [*changed, *several]


def _most_in_a_cell(number: int, sizes: Sequence[int], rooms: Sequence[int]) -> int:
    """Return the most vCPUs, fewer than it has, that one guest cell could have for all to find room; 0 if none is few enough."""
    low, high = 0, sizes[number] - 1
    while low < high:
        middle = (low + high + 1) // 2
        changed = sorted((*sizes[:number], middle, *sizes[number + 1 :]), reverse=True)
        low, high = (middle, high) if all(size <= room for size, room in zip(changed, rooms, strict=True)) else (low, middle - 1)
    return low


def _with_sizes(request: Request, sizes: Mapping[int, int]) -> Request:
    """Return a request of some of whose guest cells only the first vCPUs are left, so many; all vCPUs are numbered anew."""
    gone = {vcpu for number, count in sizes.items() for vcpu in request.guest_cells[number].vcpus[count:]}
    names = {vcpu: new for new, vcpu in enumerate(vcpu for vcpu in range(request.vcpus) if vcpu not in gone)}

    def renamed(vcpus: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(names[vcpu] for vcpu in vcpus if vcpu in names)

    cells = tuple(replace(cell, vcpus=renamed(cell.vcpus), dedicated=renamed(cell.dedicated)) for cell in request.guest_cells)
    return replace(
        request,
        vcpus=len(names),
        guest_cells=cells,
        dedicated_vcpus=renamed(request.dedicated_vcpus),
        realtime_vcpus=renamed(request.realtime_vcpus),
        topology=None,
    )


def milder_threads(request: Request) -> list[Request]:
    """Return the request with milder policies for threads, the nearest first, then for the emulator."""
    policies = MILDER.get(request.thread_policy, ()) if request.thread_policy is not None else ()
    milder = [replace(request, thread_policy=policy) for policy in policies]
    return [*milder, replace(request, emulator_policy="share")] if request.emulator_policy == "isolate" else milder


def shared_cpus(request: Request) -> list[Request]:
    """Return the request with CPUs that are shared, without all that only CPUs of one's own have."""
    if request.cpu_policy == "shared":
        return []
    cells = tuple(replace(cell, dedicated=()) for cell in request.guest_cells)
    return [
        replace(
            request, cpu_policy="shared", thread_policy=None, emulator_policy=None, dedicated_vcpus=(), realtime_vcpus=(), guest_cells=cells
        )
    ]


def other_cells(request: Request, supply: Supply) -> list[Request]:
    """Return the request spread evenly over another number of guest cells, the numbers next to its own first."""
    if not is_bound(request):
        return []
    own = request.cells or len(request.guest_cells) or 1
    alike = len({(len(cell.vcpus), cell.memory_bytes) for cell in request.guest_cells}) < PAIR
    counts = [count for count in CELLS_TRIED if (count != own or not alike) and count <= len(supply.layout.cells)]
    counts.sort(key=lambda count: (abs(count - own), count))
    fitting = [count for count in counts if not request.vcpus % count and not request.memory_bytes % count]
    return [replace(request, cells=count, guest_cells=()) for count in fitting]


# --- memory -------------------------------------------------------------------------------------------------------------------------


def whole_pages(request: Request, reasons: Iterable[Reason]) -> list[Request]:
    """Return the request with memory that is a whole number of pages, for each size of which it is not: rounded up, then down."""
    sizes = {request.page_kib} if isinstance(request.page_kib, int) else set()
    for reason in reasons:
        kind, _, rest = reason.resource.partition(":")
        size = rest.rpartition(":")[2]
        if reason.code == "units_rule" and kind == "pages" and size.isdigit():
            sizes.add(int(size))
    rounded = [_in_pages(request, size * KIB, up=up) for size in sorted(sizes) for up in (True, False)]
    return [other for other in rounded if other.memory_bytes != request.memory_bytes]


def _in_pages(request: Request, page: int, *, up: bool) -> Request:
    """Return a request of whose guest cells each has a whole number of pages."""

    def rounded(size: int) -> int:
        return -(-size // page) * page if up else size // page * page

    if request.guest_cells:
        cells = tuple(replace(cell, memory_bytes=rounded(cell.memory_bytes)) for cell in request.guest_cells)
        return replace(request, guest_cells=cells, memory_bytes=sum(cell.memory_bytes for cell in cells))
    cells_of = request.cells or 1
    return replace(request, memory_bytes=rounded(request.memory_bytes // cells_of) * cells_of)


def less_memory(request: Request, supply: Supply, reasons: Iterable[Reason]) -> list[Request]:
    """Return the request with as much memory as reasons say is free, the most first."""
    if request.guest_cells:
        return _less_in_a_cell(request, reasons)
    cells = request.cells or 1
    less = set()
    for reason in reasons:
        amount, size = _bytes(reason)
        wanted = request.page_kib if isinstance(request.page_kib, int) else size or supply.layout.base_page_kib
        page = wanted * KIB * cells
        amount = (amount if reason.resource == MEMORY else amount * cells) // page * page
        less.add(amount // MIB * MIB if amount > MIB and not MIB % page else amount)
    fewer = sorted((amount for amount in less if 0 < amount < request.memory_bytes), reverse=True)
    return [replace(request, memory_bytes=amount) for amount in fewer[:AMOUNTS_MAX]]


def _less_in_a_cell(request: Request, reasons: Iterable[Reason]) -> list[Request]:
    """Return the request with less memory in one of its own cells, as much as is free somewhere, then in all that have more."""
    told = sorted({(reason.guest_cell or 0, _bytes(reason)[0]) for reason in reasons}, key=lambda each: (-each[1], each[0]))
    one = [_with_memory(request, (number,), amount) for number, amount in told]
    every = range(len(request.guest_cells))
    several = [_with_memory(request, every, amount) for amount in sorted({amount for _, amount in told}, reverse=True)]
    changes = dict.fromkeys(other for other in (*one[:AMOUNTS_MAX], *several[:AMOUNTS_MAX]) if other is not None)
    return list(changes)


def _with_memory(request: Request, numbers: Iterable[int], most: int) -> Request | None:
    """Return a request of whose guest cells some have at most so many bytes of memory, None if that is none or they have no more."""
    cells = list(request.guest_cells)
    for number in numbers:
        cells[number] = replace(cells[number], memory_bytes=min(most, cells[number].memory_bytes))
    memory = sum(cell.memory_bytes for cell in cells)
    return replace(request, memory_bytes=memory, guest_cells=tuple(cells)) if most > 0 and memory < request.memory_bytes else None


def _bytes(reason: Reason) -> tuple[int, int]:
    """Return the bytes that a reason about memory or pages says are free, and the size of these pages in KiB (0: of none)."""
    kind, _, rest = reason.resource.partition(":")
    size = rest.rpartition(":")[2]
    return (reason.free * int(size) * KIB, int(size)) if kind == "pages" and size.isdigit() else (reason.free, 0)


def any_pages(request: Request) -> list[Request]:
    """Return the request with pages of whatever size does."""
    return [replace(request, page_kib="any")] if request.page_kib not in (None, "any") else []


def no_pages(request: Request) -> list[Request]:
    """Return the request with ordinary memory, which is locked only where it is encrypted."""
    if request.page_kib is None:
        return []
    encrypted = any(item.resource_class == ENCRYPTION for item in request.resources)
    return [replace(request, page_kib=None, locked_memory=request.locked_memory and encrypted)]
