"""Fit the slow way: every cell, every set of CPUs, every set of devices, each counted from the machine and the grants alone.

Rules of this file: nothing of earmark.core.fit is used, so that two programs have to agree.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import combinations
from typing import NamedTuple

from tests.fit.worlds import World

from earmark.core.model.request import Request
from earmark.core.model.topology import Cell, Device


class Books(NamedTuple):
    """What a world comes to: CPU sets, what is held, the sums."""

    shared: frozenset[int]
    dedicated: frozenset[int]
    held: frozenset[int]
    blocked: frozenset[int]
    cell_of: dict[int, int]
    core_of: dict[int, int]
    used: dict[str, int]


def books(world: World) -> Books:
    """Return the books of a world."""
    machine, settings = world.machine, world.settings
    cell_of = {cpu.id: cpu.cell for cpu in machine.cpus}
    core_of = {cpu.id: cpu.core for cpu in machine.cpus}
    usable = set(cell_of) if machine.usable_cpus is None else set(cell_of) & set(machine.usable_cpus)
    first = core_of.get(0)
    usable -= set(sorted(usable, key=lambda cpu: (core_of[cpu] != first, core_of[cpu], cpu))[: settings.reserved_host_cpus])
    shared, dedicated = set(usable), set(usable)
    if settings.cpu_policy != "pool":
        if settings.cpu_shared_set is not None:
            shared &= set(settings.cpu_shared_set)
            dedicated = set(shared)
        if settings.cpu_dedicated_set is not None:
            dedicated = usable & set(settings.cpu_dedicated_set)
    held = {int(row.unit[4:]) for _, grant in world.grants for row in grant.units if row.unit.startswith("cpu:")}
    used: dict[str, int] = {}
    for _, grant in world.grants:
        for row in grant.amounts:
            used[row.pool] = used.get(row.pool, 0) + row.amount
    blocked = {n for n in range(64) if world.blocked_cpus >> n & 1}
    return Books(frozenset(shared), frozenset(dedicated), frozenset(held), frozenset(blocked), cell_of, core_of, used)


def possible(request: Request, world: World) -> bool:
    """Say whether any placement of a request exists."""
    if not _plain(request, world) or next(device_choices(request, world), None) is None:
        return False
    if request.cpu_policy == "shared" and request.page_kib is None and request.cells is None:
        memory = request.memory_bytes
        return _sharers_fit(request.vcpus, None, frozenset(), world) and _ordinary_fits(memory, world)
    return any(cpu_choices(request, cell.id, world) and _pages_fit(request, cell, world) for cell in world.machine.cells)


def cpu_choices(request: Request, cell: int, world: World) -> list[frozenset[int]]:
    """Return every set of CPUs that a bound request could get on a cell; the empty set if it shares."""
    sums = books(world)
    if request.cpu_policy == "shared":
        return [frozenset()] if _sharers_fit(request.vcpus, cell, frozenset(), world) else []
    there = sorted(cpu for cpu in sums.dedicated - sums.held - sums.blocked if sums.cell_of[cpu] == cell)
    sets = map(frozenset, combinations(there, request.vcpus))
    return [cpus for cpus in sets if _sharers_fit(0, None, cpus, world)]


def broken_cores(cpus: frozenset[int], world: World) -> tuple[int, int]:
    """Return how many CPUs are of CPU 0's core, and how many cores were wholly free and are partly taken afterwards."""
    sums = books(world)
    free = sums.dedicated - sums.held - sums.blocked
    cores = {core: {cpu for cpu in sums.dedicated if sums.core_of[cpu] == core} for core in set(sums.core_of.values())}
    broken = sum(1 for core in cores.values() if core and core <= free and core & cpus and not core <= cpus)
    return sum(1 for cpu in cpus if sums.core_of[cpu] == sums.core_of.get(0)), broken


def device_choices(request: Request, world: World) -> Iterator[tuple[Device, ...]]:
    """Yield every set of devices that a request could get."""
    wish: dict[str, int] = {}
    for item in request.devices:
        wish[item.kind] = wish.get(item.kind, 0) + item.count
    devices = {str(device.unit): device for device in world.machine.devices}
    held = {row.unit for _, grant in world.grants for row in grant.units} | world.blocked_units
    allowed = [
        d for d in devices.values() if d.kind in world.settings.device_kinds and not any(_related(d.unit, unit, devices) for unit in held)
    ]
    yield from _pick(list(wish.items()), allowed, devices)


def _pick(wish: list[tuple[str, int]], allowed: list[Device], devices: dict[str, Device]) -> Iterator[tuple[Device, ...]]:
    if not wish:
        yield ()
        return
    (kind, count), *rest = wish
    for some in combinations([device for device in allowed if device.kind == kind], count):
        if any(_related(a.unit, b.unit, devices) for a, b in combinations(some, 2)):
            continue
        left = [device for device in allowed if not any(_related(device.unit, one.unit, devices) for one in some)]
        for others in _pick(rest, left, devices):
            yield (*some, *others)


def _related(first: str, second: str, devices: dict[str, Device]) -> bool:
    """Say whether two units are the same, or one lies below the other."""
    return first in _line(second, devices) or second in _line(first, devices)


def _line(unit: str, devices: dict[str, Device]) -> list[str]:
    line = [unit]
    while unit in devices and devices[unit].parent is not None:
        unit = str(devices[unit].parent)
        line.append(unit)
    return line


def _sharers_fit(more: int, cell: int | None, taking: frozenset[int], world: World) -> bool:
    """Say whether the shared vCPUs still fit, with some more (on a cell) and some CPUs taken away."""
    sums = books(world)
    gone = sums.blocked | (sums.held | taking if world.settings.cpu_policy != "overlap" else frozenset())
    before = sums.shared - sums.blocked - (sums.held if world.settings.cpu_policy != "overlap" else frozenset())
    now = sums.shared - gone
    ratio = world.settings.cpu_allocation_ratio
    numbers = {cell.id for cell in world.machine.cells}
    total = sum(amount for pool, amount in sums.used.items() if pool == "vcpu" or (pool.startswith("vcpu:") and int(pool[5:]) in numbers))
    places: list[tuple[set[int], set[int], int, int]] = [(set(before), set(now), total, more)]
    for number in numbers:
        here = {cpu for cpu, its in sums.cell_of.items() if its == number}
        places.append((here & before, here & now, sums.used.get(f"vcpu:{number}", 0), more if cell == number else 0))
    for was, cpus, used, extra in places:
        if extra > len(cpus):
            return False
        if (extra or (used and cpus != was)) and (used + extra) * 1000 > len(cpus) * ratio:
            return False
    return True


def _ordinary_fits(more: int, world: World) -> bool:
    """Say whether some more ordinary memory fits on the node."""
    if not more:
        return True
    machine, used = world.machine, books(world).used
    ordinary = sum(max(0, cell.memory_bytes - _huge(cell)) for cell in machine.cells)
    if machine.memory_limit_bytes is not None:
        ordinary = min(ordinary, machine.memory_limit_bytes)
    base = f":{machine.base_page_kib}"
    held = used.get("memory", 0)
    held += sum(n for pool, n in used.items() if pool.startswith("pages:") and pool.endswith(base)) * machine.base_page_kib * 1024
    kept = world.settings.reserved_memory(ordinary)
    return more <= ordinary and (held + more) * 1000 <= (ordinary - kept) * world.settings.ram_allocation_ratio


def _huge(cell: Cell) -> int:
    return sum(pool.size_kib * pool.total * 1024 for pool in cell.pages)


def _pages_fit(request: Request, cell: Cell, world: World) -> bool:
    """Say whether the memory of a bound request fits on a cell."""
    if not request.memory_bytes:
        return True
    base = world.machine.base_page_kib
    size = base if request.page_kib is None else int(request.page_kib)
    if request.page_kib is not None and request.memory_bytes % (size * 1024):
        return False
    pages = -(-request.memory_bytes // (size * 1024))
    totals = {pool.size_kib: pool.total for pool in cell.pages} | {base: max(0, cell.memory_bytes - _huge(cell)) // (base * 1024)}
    if size not in totals:
        return False
    kept = sum(item.count for item in world.settings.reserved_huge_pages if (item.cell, item.size_kib) == (cell.id, size))
    if pages > max(0, totals[size] - kept) - books(world).used.get(f"pages:{cell.id}:{size}", 0):
        return False
    return size != base or _ordinary_fits(pages * size * 1024, world)


def _plain(request: Request, world: World) -> bool:
    """Say whether traits, disk and classes are in order."""
    used, settings = books(world).used, world.settings
    if not set(request.required_traits) <= set(world.machine.traits) or set(request.forbidden_traits) & set(world.machine.traits):
        return False
    if request.disk_bytes:
        total = sum(disk.total_bytes for disk in world.machine.disks)
        kept = min(total, settings.reserved_host_disk_bytes)
        after = used.get("disk:root", 0) + request.disk_bytes
        if request.disk_bytes > total or after * 1000 > (total - kept) * settings.disk_allocation_ratio:
            return False
    return all(_class_fits(item.resource_class, item.amount, used, world) for item in request.resources)


def _class_fits(name: str, amount: int, used: dict[str, int], world: World) -> bool:
    stocks: Iterable[tuple[int, int, int]] = [
        (stock.total - stock.reserved, stock.ratio, int(stock.min_unit <= amount <= stock.max_unit and amount % stock.step_size == 0))
        for stock in world.settings.inventories
        if stock.resource_class == name
    ]
    return any(allowed and (used.get(f"class:{name}", 0) + amount) * 1000 <= most * ratio for most, ratio, allowed in stocks)
