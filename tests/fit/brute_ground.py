"""Is there any placement on a ground at all: every permutation of host cells, every set of CPUs, every set of devices.

Rules of this file: nothing of `core.fit` but the nouns of the question; no cleverness, only for guests and grounds that are small enough
(`small`). The rules are those of the pair, the node and the devices as they are documented, written down once more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, combinations

from earmark.core.fit.ground import DeviceStock, Ground, HostCell
from earmark.core.fit.guest import Guest, GuestNeed
from earmark.core.model.request import DeviceRequest
from earmark.core.model.topology import Device

CELLS_MAX = 8
CPUS_MAX = 12
DEVICES_MAX = 10

Way = tuple[int, int]
"""What one way to place a guest cell on a host cell takes: CPUs that leave the shared set, bytes of ordinary memory."""


def small(guest: Guest | None, ground: Ground) -> bool:
    """Say whether a case can be answered here."""
    cells = guest.cells if guest is not None else ()
    cpus = all(cell.free.bit_count() <= CPUS_MAX for cell in ground.cells)
    return cpus and len(cells) <= CELLS_MAX and len(ground.cells) <= CELLS_MAX and len(ground.stock.devices) <= DEVICES_MAX


def possible(guest: Guest | None, ground: Ground, requests: Sequence[DeviceRequest] = ()) -> bool:
    """Say whether any placement exists."""
    if guest is None:
        return devices_exist(requests, ground.stock, None)
    known: dict[frozenset[int], bool] = {}
    for chosen in _placements(_table(guest, ground), ground, (), ()):
        cells = frozenset(chosen)
        if cells not in known:
            near = all(not there or there & cells for _, there in ground.networks)
            known[cells] = near and devices_exist(requests, ground.stock, cells)
        if known[cells]:
            return True
    return False


def _table(guest: Guest, ground: Ground) -> list[dict[int, Way]]:
    """Return, for each guest cell, the host cells on which it can lie, and the least that it takes there."""
    table = []
    for need in guest.cells:
        ways = {cell.id: pair_ways(need, cell, guest, ground) for cell in ground.cells}
        table.append({cell: (min(way[0] for way in some), min(way[1] for way in some)) for cell, some in ways.items() if some})
    return table


def _placements(
    table: Sequence[dict[int, Way]], ground: Ground, taken: tuple[Way, ...], chosen: tuple[int, ...]
) -> Iterator[tuple[int, ...]]:
    """Yield the permutations of host cells on which the guest cells can lie, pair by pair and within the limits of the node."""
    if len(chosen) == len(table):
        if _affordable(taken, ground):
            yield chosen
        return
    for cell, least in table[len(chosen)].items():
        if cell not in chosen:
            yield from _placements(table, ground, (*taken, least), (*chosen, cell))


def _affordable(taken: Sequence[Way], ground: Ground) -> bool:
    leaving, memory = sum(way[0] for way in taken), sum(way[1] for way in taken)
    return (ground.leaving_max is None or leaving <= ground.leaving_max) and (ground.ordinary_max is None or memory <= ground.ordinary_max)


def pair_ways(need: GuestNeed, cell: HostCell, guest: Guest, ground: Ground) -> set[Way]:
    """Return what each way to place one guest cell on one host cell takes, nothing if there is none."""
    if need.waived:
        return {(0, 0)}
    memories = _memories(need, cell, guest, ground)
    if not memories:
        return set()
    sets = {left for pins, emulator in cpu_sets(need, cell, guest) for left in [leaving(pins | emulator, cell, guest)]}
    return {(left, memory) for left in sets if _shares(len(need.shared), left, cell, guest, ground) for memory in memories}


def cpu_sets(need: GuestNeed, cell: HostCell, guest: Guest) -> Iterator[tuple[frozenset[int], frozenset[int]]]:
    """Yield every choice of CPUs for the dedicated vCPUs and for the emulator that the thread policy allows."""
    free = bits(cell.free)
    for pins in combinations(sorted(free), len(need.dedicated)):
        for emulator in combinations(sorted(free - set(pins)), need.emulator):
            if allowed(frozenset(pins), frozenset(emulator), cell, guest):
                yield frozenset(pins), frozenset(emulator)


def allowed(pins: frozenset[int], emulator: frozenset[int], cell: HostCell, guest: Guest) -> bool:
    """Say whether the thread policy allows these CPUs."""
    taken = pins | emulator
    if guest.threads == "isolate":
        return all((core_of(cpu, cell) - {cpu}).isdisjoint(bits(cell.busy) | taken) for cpu in taken)
    if guest.threads not in ("require", "require-strict"):
        return True
    used = {core_of(cpu, cell) for cpu in pins}
    alone = sum(1 for core in used if len(core & pins) == 1)
    return all(len(core & bits(cell.free)) > 1 for core in used) and alone <= (1 if guest.threads == "require" else 0)


def leaving(taken: frozenset[int], cell: HostCell, guest: Guest) -> int:
    """Return how many CPUs leave the free ones when these are taken: with isolate the free siblings too."""
    if guest.threads != "isolate":
        return len(taken)
    return len(frozenset(chain.from_iterable(core_of(cpu, cell) & bits(cell.free) for cpu in taken)))


def core_of(cpu: int, cell: HostCell) -> frozenset[int]:
    """Return the CPUs of a CPU's core, itself included."""
    return next((bits(core) for core in cell.cores if core >> cpu & 1), frozenset((cpu,)))


def bits(mask: int) -> frozenset[int]:
    """Return the numbers of a mask."""
    return frozenset(number for number in range(mask.bit_length()) if mask >> number & 1)


def _shares(count: int, left: int, cell: HostCell, guest: Guest, ground: Ground) -> bool:
    cpus = cell.shared_cpus
    if ground.shrinks:
        cpus -= left
    if count and count > cpus:
        return False
    if cell.cpu_ratio is None:
        return True
    if count or (ground.shrinks and left and cell.shared_used) or (ground.strict and guest.policy != "dedicated"):
        return (cell.shared_used + count) * 1000 <= cpus * cell.cpu_ratio
    return True


def _memories(need: GuestNeed, cell: HostCell, guest: Guest, ground: Ground) -> set[int]:
    """Return the bytes of ordinary memory that each way to give the memory takes."""
    wanted = need.memory_bytes
    if not wanted and not ground.strict:
        return {0}
    if guest.policy != "dedicated" and cell.memory_limit is not None and wanted > cell.memory_limit:
        return set()
    found = set()
    for offer in cell.offers:
        for pages in range(offer.free + 1):
            size = pages * offer.size_kib * 1024
            if size == wanted or (not offer.whole and 0 <= size - wanted < offer.size_kib * 1024):
                found.add(size if offer.ordinary else 0)
    return found


# --- devices ------------------------------------------------------------------------------------------------------------------------


def devices_exist(requests: Sequence[DeviceRequest], stock: DeviceStock, cells: frozenset[int] | None) -> bool:
    """Say whether distinct devices that exclude nothing of each other answer all requests of a guest on exactly these cells."""
    return next(device_choices(requests, stock, cells), None) is not None


Chosen = tuple[tuple[DeviceRequest, Device], ...]


def device_choices(
    requests: Sequence[DeviceRequest], stock: DeviceStock, cells: frozenset[int] | None, chosen: Chosen = ()
) -> Iterator[Chosen]:
    """Yield every choice of devices, request after request."""
    if not requests:
        yield chosen
        return
    request = requests[0]
    there = [device for device in stock.devices if suits(request, device, stock) and near(request, device, stock, cells)]
    for some in combinations(there, request.count):
        more = (*chosen, *((request, device) for device in some))
        if agreeable(more, stock) and (not request.linked or all_linked(some)):
            yield from device_choices(requests[1:], stock, cells, more)


def agreeable(chosen: Chosen, stock: DeviceStock) -> bool:
    """Say whether some devices can be had at once: no two exclude each other, and the shares of one do not exceed what it has left."""
    for device in {device.unit: device for _, device in chosen}.values():
        takers = [request for request, other in chosen if other.unit == device.unit]
        left = stock.shares.get(device.unit, 1000) if device.shares else 1000
        if sum(request.share or 1000 for request in takers) > left:
            return False
    slots = [(device.unit, frozenset(stock.slots.get(device.unit, (device.unit,)))) for _, device in chosen]
    return all(one == other or mine.isdisjoint(theirs) for (one, mine), (other, theirs) in combinations(slots, 2))


def all_linked(devices: Sequence[Device]) -> bool:
    """Say whether each of some devices has a link to each other one."""
    return all(one.unit in other.links or other.unit in one.links for one, other in combinations(devices, 2))


def suits(request: DeviceRequest, device: Device, stock: DeviceStock) -> bool:
    """Say whether a device is one of those that a request names, wherever it lies (P9, P10)."""
    if request.share is not None and not device.shares:
        return False
    if request.memory_bytes is not None and 1000 * request.memory_bytes > (device.memory_bytes or 0) * (request.share or 1000):
        return False
    if request.within and not {device.unit, device.parent} & set(request.within):
        return False
    if not set(request.required_traits).issubset(device.traits) or set(request.forbidden_traits).intersection(device.traits):
        return False
    if request.match and not any(_matches(each, device, stock) for each in request.match):
        return False
    if request.kind.startswith("class:"):
        return request.kind == f"class:{device.resource_class}"
    if request.kind != "pci":
        return request.kind == device.kind
    if device.dev_type is None and (device.address is None or device.address.count(":") < 2):
        return False
    if dict(device.tags).get("remote_managed", "").lower() == "true" and not any("remote_managed" in each for each in request.match):
        return False
    return device.pci_type not in ("PF", "VDPA") or any(each.get("dev_type", "").upper() == device.pci_type for each in request.match)


def _matches(alternative: dict[str, str], device: Device, stock: DeviceStock) -> bool:
    parent = next((stock.addresses.get(each.unit, each.address) for each in stock.devices if each.unit == device.parent), None)
    own = {"dev_type": device.pci_type, "vendor_id": device.vendor_id, "product_id": device.product_id, "address": parent or device.address}
    have = dict(device.tags) | own
    return all((have.get(key) or "").lower() == want.lower() for key, want in alternative.items())


def near(request: DeviceRequest, device: Device, stock: DeviceStock, cells: frozenset[int] | None) -> bool:
    """Say whether a device is near enough for a guest on some cells (P11 to P15)."""
    affinity = request.affinity or ("legacy" if request.kind == "pci" else "preferred")
    if cells is None or affinity == "preferred" or device.cell in cells:
        return True
    if affinity == "legacy":
        return device.cell is None
    if affinity == "required" or device.cell is None or None in stock.sockets.values():
        return False
    return device.cell in stock.sockets and stock.sockets[device.cell] in {stock.sockets.get(cell) for cell in cells}
