"""A machine under a node's settings: what may be handed out at all, precomputed for fit.

Rules of this file: nothing here depends on claims; everything is sorted by id, so that equal machines give equal layouts whatever the
order in which a driver listed them. CPU sets are masks (`core.model.cpuset`). CPU 0's core stands apart in its cell: it is handed out
last. Memory in huge-page pools is not ordinary memory a second time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Protocol

import immutables
import msgspec

from earmark.core.fit.devices import policy as device_policy
from earmark.core.fit.devices.groups import above_of, groups_of
from earmark.core.model.cpuset import cpus_of, format_cpu_list, mask_of
from earmark.core.model.exclusion import slot_table
from earmark.core.model.ids import (
    MEMORY,
    VCPU,
    PoolId,
    ResourceClass,
    Slot,
    UnitId,
    cell_vcpu_pool,
    class_pool,
    disk_pool,
    pages_pool,
    share_pool,
)
from earmark.core.model.inventory import RATIO_ONE, Inventory, Stock, checked, stock_of, withdrawn_class
from earmark.core.model.node import NodePolicy, NodeSettings, Provided
from earmark.core.model.topology import Cell, Cpu, Device, Machine
from earmark.core.model.units import KIB, THOUSAND, format_ratio
from earmark.errors import InvalidRequest

ROOT_DISK = "root"
NOTHING_PROVIDED = Provided()
OWN_CLASSES = device_policy.OWN_CLASSES
"""Classes that are counted from the machine itself: neither inventoried by hand nor asked for by name."""


class Taken(Protocol):
    """What `inventories` needs to know of the claims: the CPUs in unit rows and the sums of the amounts."""

    @property
    def taken_cpus(self) -> int:
        """The mask of CPUs in unit rows."""

    @property
    def used(self) -> immutables.Map[PoolId, int]:
        """The sum of each pool's amounts."""

    @property
    def slots(self) -> Mapping[Slot, object]:
        """The slots that are held."""


class PageStock(msgspec.Struct, frozen=True):
    """The pages of one size on one cell: how many there are, kept back, and may be given (`capacity`)."""

    pool: PoolId
    size_kib: int
    total: int
    reserved: int
    capacity: int


class CellLayout(msgspec.Struct, frozen=True):
    """One host cell: its shared and dedicated CPUs, its cores, its pages.

    `cores` are the masks of dedicated CPUs core by core, ascending, without CPU 0's core, which is `zero` (0: not here). `threads` are all
    online CPUs core by core, whatever they are for; `caches` those of each last-level cache, () if there is only one; `socket` the
    package if all are of one (N22). `pages` maps page sizes in KiB, base included, `sizes` are those sizes, ascending. `distances` are
    those to each cell of the layout in order, () if not known; `devices` counts the grantable devices near.
    """

    id: int
    cpus: int
    shared: int
    dedicated: int
    cores: tuple[int, ...]
    zero: int
    vcpu_pool: PoolId
    base: PageStock
    pages: immutables.Map[int, PageStock]
    sizes: tuple[int, ...] = ()
    threads: tuple[int, ...] = ()
    online: int = 0
    caches: tuple[int, ...] = ()
    socket: int | None = None
    distances: tuple[int, ...] = ()
    devices: int = 0


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """What may be handed out on one node.

    `online`, `usable` (online and allowed), `reserved` (kept for the host), `shared`, `dedicated` and `zero` (CPU 0's core) are masks.
    `exclusive`: a dedicated CPU that is held is not a shared one. `shrinks`: the shared set is the pool less the dedicated CPUs.
    `devices` are those that may be handed out, by kind, in order of address; `known` all devices; `slots` what each occupies;
    `above` the own slots of its parents, which a parent that was given before this child appeared holds alone.
    `groups` are, for each device whose IOMMU group has others and is kept together, those others (bridges are no part of a group).
    `pages` are the page pools of all cells, each with its cell. `networks` are the cells of each network, "" the tunnelled ones.
    `file_backed`: guests' memory is files, and no huge page is handed out.
    """

    policy: NodePolicy
    exclusive: bool
    shrinks: bool
    online: int
    usable: int
    reserved: int
    shared: int
    dedicated: int
    zero: int
    cpu_ratio: int
    cells: tuple[CellLayout, ...]
    cell: immutables.Map[int, CellLayout]
    base_page_kib: int
    page_sizes: tuple[int, ...]
    pages: immutables.Map[PoolId, tuple[int, PageStock]]
    base_pools: tuple[PoolId, ...]
    vcpu_pools: tuple[PoolId, ...]
    memory: Inventory
    disks: immutables.Map[PoolId, Inventory]
    classes: immutables.Map[ResourceClass, Inventory]
    devices: immutables.Map[str, tuple[Device, ...]]
    known: immutables.Map[UnitId, Device]
    grantable: frozenset[UnitId]
    slots: immutables.Map[UnitId, tuple[Slot, ...]]
    above: immutables.Map[UnitId, tuple[Slot, ...]]
    traits: frozenset[str]
    groups: immutables.Map[UnitId, tuple[UnitId, ...]] = immutables.Map()
    networks: immutables.Map[str, frozenset[int]] = immutables.Map()
    file_backed: bool = False

    def inventories(self, free: Taken | None = None, blocked_cpus: int = 0) -> tuple[Stock, ...]:
        """Return the stocks for display, with what `free` says is used: VCPU, PCPU, memory, pages by cell and size, disks, classes, shares.

        CPUs that get no new grants count as reserved, and a CPU of somebody's own not as a shared one (but under `overlap`), so that
        capacity less use is what fit may still give. A pool that is used and has no stock any more is listed last, with a total of 0.
        """
        used: Mapping[PoolId, int] = free.used if free is not None else {}
        taken = free.taken_cpus if free is not None else 0
        kept = self.reserved.bit_count()
        shared = self.shared & ~taken if self.exclusive else self.shared
        stopped = (shared & blocked_cpus).bit_count()
        idle = (self.dedicated & ~taken & blocked_cpus).bit_count()
        stocks = [
            stock_of(
                "VCPU",
                "vcpu",
                shared.bit_count() + kept,
                kept + stopped,
                self.cpu_ratio,
                sum(used.get(pool, 0) for pool in (VCPU, *self.vcpu_pools)),
            ),
            stock_of("PCPU", "cpu", self.dedicated.bit_count() + kept, kept + idle, 1000, (taken & self.dedicated).bit_count()),
        ]
        base = sum(used.get(pool, 0) for pool in self.base_pools) * self.base_page_kib * KIB
        memory = self.memory
        stocks.append(stock_of("MEMORY_BYTES", "memory", memory.total, memory.reserved, memory.ratio, used.get(PoolId("memory"), 0) + base))
        stocks += [
            stock_of("PAGES", page.pool, page.total, page.reserved, 1000, used.get(page.pool, 0), cell=cell.id)
            for cell in self.cells
            for _, page in sorted(cell.pages.items())
        ]
        stocks += [
            stock_of("DISK_BYTES", pool, disk.total, disk.reserved, disk.ratio, used.get(pool, 0))
            for pool, disk in sorted(self.disks.items())
        ]
        for name, inventory in sorted(self.classes.items()):
            fields = msgspec.structs.asdict(inventory)
            stocks.append(Stock(**fields, pool=class_pool(name), used=used.get(class_pool(name), 0)))
        held: Mapping[Slot, object] = free.slots if free is not None else {}
        for device in self.parted:
            kept = THOUSAND if any(slot in held for slot in self.slots[device.unit]) else 0
            pool = share_pool(device.unit)
            stocks.append(stock_of("DEVICE_SHARE", pool, THOUSAND, kept, RATIO_ONE, used.get(pool, 0), cell=device.cell))
        return (*stocks, *(stock_of(withdrawn_class(pool), pool, 0, 0, 1000, used[pool]) for pool in self.withdrawn(used)))

    @property
    def parted(self) -> tuple[Device, ...]:
        """The devices of which shares may be given, in order of unit."""
        return tuple(sorted((each for some in self.devices.values() for each in some if each.shares), key=lambda each: each.unit))

    def withdrawn(self, used: Mapping[PoolId, int]) -> tuple[PoolId, ...]:
        """Return the pools that are used and that the node has no more, sorted: a class, disk, page size or cell that went away."""
        known = {VCPU, MEMORY, *self.vcpu_pools, *self.base_pools, *self.pages, *self.disks, *map(class_pool, self.classes)}
        known |= {share_pool(device.unit) for device in self.parted}
        return tuple(sorted(pool for pool, amount in used.items() if amount and pool not in known))


def build_layout(machine: Machine, settings: NodeSettings, provided: Provided = NOTHING_PROVIDED, *, strict: bool = True) -> Layout:
    """Return what may be handed out on a machine under a node's settings, with what provider configuration adds to it.

    A class that the settings have as well is the settings', be it an inventory or one of units. Memory may be file-backed: then no huge
    page is handed out (C14).

    Raises InvalidRequest on settings that contradict each other (sets under `pool`, none under `split`, overlapping `split` sets,
    reserved_host_cpus beside sets: Nova 34, virt/libvirt/driver.py; a device policy that cannot be) and, if `strict`, on settings that
    name a CPU, cell or page size which the machine has not. With `strict` False those are passed over: a machine may lose a CPU that its settings still name.
    """
    online = mask_of(cpu.id for cpu in machine.cpus)
    usable = online if machine.usable_cpus is None else online & mask_of(machine.usable_cpus)
    check_sets(machine, settings, strict=strict)
    check_memory(machine, settings, strict=strict)
    zero = _core_zero(machine.cpus)
    reserved = _reserved(machine.cpus, usable, zero, settings.reserved_host_cpus)
    shared, dedicated = _sets(settings, usable & ~reserved)
    kept = _reserved_pages(machine, settings, strict=strict)
    by_cell: dict[int, list[Cpu]] = {}
    for cpu in sorted(machine.cpus, key=lambda cpu: (cpu.core, cpu.id)):
        by_cell.setdefault(cpu.cell, []).append(cpu)
    device_policy.check_policy(machine, settings, strict=strict)
    devices, units = device_policy.applied(machine, settings)
    granted = [device for device in devices if device.unit in units]
    near = Counter(device.cell for device in granted)
    cells = tuple(
        _cell(
            cell,
            by_cell.get(cell.id, []),
            machine.base_page_kib,
            usable=usable,
            shared=shared,
            dedicated=dedicated,
            zero=zero,
            kept=kept,
            huge=not settings.file_backed_memory_bytes,
            devices=near[cell.id],
        )
        for cell in _cells(machine)
    )
    return Layout(
        policy=settings.cpu_policy, exclusive=settings.cpu_policy != "overlap", shrinks=settings.cpu_policy == "pool",
        online=online, usable=usable, reserved=reserved, shared=shared, dedicated=dedicated, zero=zero,
        cpu_ratio=settings.cpu_allocation_ratio, cells=cells, cell=immutables.Map((cell.id, cell) for cell in cells),
        base_page_kib=machine.base_page_kib, page_sizes=tuple(sorted({size for cell in cells for size in cell.pages})),
        pages=immutables.Map((stock.pool, (cell.id, stock)) for cell in cells for stock in cell.pages.values()),
        base_pools=tuple(cell.base.pool for cell in cells), vcpu_pools=tuple(cell.vcpu_pool for cell in cells),
        memory=_memory(machine, settings), disks=_disks(machine, settings), classes=_classes(settings, provided),
        devices=immutables.Map({kind: tuple(d for d in granted if d.kind == kind) for kind in {d.kind for d in granted}}),
        known=immutables.Map((device.unit, device) for device in devices), grantable=units,
        slots=immutables.Map(slot_table(devices)), above=above_of(devices), groups=groups_of(devices) if settings.keep_iommu_groups else immutables.Map(),
        traits=frozenset((*machine.traits, *provided.traits)), networks=_networks(machine, settings, strict=strict), file_backed=bool(settings.file_backed_memory_bytes),
    )  # fmt: skip


def check_sets(machine: Machine, settings: NodeSettings, *, strict: bool = True) -> None:
    """Raise InvalidRequest if the CPU sets of some settings contradict each other or, if `strict`, name a CPU the machine has not.

    An offline CPU may be named: it counts again when it is back.
    """
    shared, dedicated = settings.cpu_shared_set, settings.cpu_dedicated_set
    named = {name: cpus for name, cpus in (("cpu_shared_set", shared), ("cpu_dedicated_set", dedicated)) if cpus is not None}
    policy = settings.cpu_policy
    if named and settings.reserved_host_cpus:
        raise InvalidRequest(
            f"reserved_host_cpus {settings.reserved_host_cpus} beside {' and '.join(named)}: leave the host's CPUs out of the sets instead",
            found=settings.reserved_host_cpus,
        )
    if named and policy == "pool":
        raise InvalidRequest(f"cpu_policy pool has no sets, but {' and '.join(named)} is given: split or overlap has", found=policy)
    if not named and policy == "split":
        raise InvalidRequest("cpu_policy split needs cpu_shared_set or cpu_dedicated_set, found neither", found=policy)
    both = mask_of(shared or ()) & mask_of(dedicated or ())
    if both and policy == "split":
        raise InvalidRequest(f"CPU {format_cpu_list(cpus_of(both))} is in cpu_shared_set and in cpu_dedicated_set", found=cpus_of(both))
    if strict:
        there = mask_of(cpu.id for cpu in machine.cpus) | mask_of(machine.offline_cpus)
        for name, cpus in named.items():
            unknown = mask_of(cpus) & ~there
            if unknown:
                text = format_cpu_list(cpus_of(unknown))
                raise InvalidRequest(f"{name} names CPU {text}; the machine has {format_cpu_list(cpus_of(there)) or 'none'}", found=text)


def check_memory(machine: Machine, settings: NodeSettings, *, strict: bool = True) -> None:
    """Raise InvalidRequest if file-backed memory stands beside overcommit or, if `strict`, huge pages kept back (Nova 34, virt/libvirt)."""
    size, ratio = settings.file_backed_memory_bytes, settings.ram_allocation_ratio
    if size and ratio != RATIO_ONE:
        raise InvalidRequest(
            f"file_backed_memory {size} bytes beside ram_allocation_ratio {format_ratio(ratio)}: with file-backed memory it must be 1.0",
            found=ratio,
        )
    huge = [each for each in settings.reserved_huge_pages if each.size_kib != machine.base_page_kib]
    if size and huge and strict:
        raise InvalidRequest(
            f"file_backed_memory {size} bytes beside reserved_huge_pages: with file-backed memory no huge page is handed out", found=size
        )


def _sets(settings: NodeSettings, free: int) -> tuple[int, int]:
    """Return the shared and the dedicated set within the CPUs that may be handed out."""
    shared = None if settings.cpu_shared_set is None else mask_of(settings.cpu_shared_set)
    dedicated = None if settings.cpu_dedicated_set is None else mask_of(settings.cpu_dedicated_set)
    if settings.cpu_policy == "pool":
        return free, free
    if settings.cpu_policy == "split":
        return free & (shared or 0), free & (dedicated or 0)
    floor = free if shared is None else free & shared
    return floor, floor if dedicated is None else free & dedicated


def _core_zero(cpus: Iterable[Cpu]) -> int:
    """Return the mask of the core that CPU 0 belongs to, 0 if CPU 0 is not online."""
    cores = {cpu.id: cpu.core for cpu in cpus}
    return mask_of(cpu for cpu, core in cores.items() if 0 in cores and core == cores[0])


def _reserved(cpus: Iterable[Cpu], usable: int, zero: int, count: int) -> int:
    """Return the mask of CPUs kept for the host: core by core, CPU 0's core first, at most all that are usable."""
    order = sorted((cpu for cpu in cpus if usable >> cpu.id & 1), key=lambda cpu: (not zero >> cpu.id & 1, cpu.core, cpu.id))
    return mask_of(cpu.id for cpu in order[:count])


def _cells(machine: Machine) -> list[Cell]:
    """Return the machine's cells by id; a CPU whose cell is not described makes one without memory."""
    cells = {cell.id: cell for cell in machine.cells}
    for cpu in machine.cpus:
        if cpu.cell not in cells:
            cells[cpu.cell] = Cell(id=cpu.cell)
    return [cells[number] for number in sorted(cells)]


def _cell(
    cell: Cell,
    members: list[Cpu],
    base_kib: int,
    *,
    usable: int,
    shared: int,
    dedicated: int,
    zero: int,
    kept: Mapping[tuple[int, int], int],
    huge: bool,
    devices: int,
) -> CellLayout:
    """Return the layout of one cell; `members` are its CPUs, core by core; `huge`: huge pages are handed out."""
    cpus = mask_of(cpu.id for cpu in members) & usable
    by_core: dict[int, int] = {}
    threads: dict[int, int] = {}
    caches: dict[int | None, int] = {}
    for cpu in members:
        threads[cpu.core] = threads.get(cpu.core, 0) | 1 << cpu.id
        caches[cpu.l3] = caches.get(cpu.l3, 0) | 1 << cpu.id
        if cpus & dedicated & ~zero & 1 << cpu.id:
            by_core[cpu.core] = by_core.get(cpu.core, 0) | 1 << cpu.id
    packages = {cpu.package for cpu in members}
    totals = {pool.size_kib: pool.total for pool in cell.pages if huge and pool.size_kib != base_kib}
    totals[base_kib] = cell.base_pages(base_kib)
    pages = {size: _page_stock(cell.id, size, total, kept.get((cell.id, size), 0)) for size, total in totals.items()}
    return CellLayout(
        id=cell.id, cpus=cpus, shared=shared & cpus, dedicated=dedicated & cpus, cores=tuple(by_core.values()), zero=zero & dedicated & cpus,
        vcpu_pool=cell_vcpu_pool(cell.id), base=pages[base_kib], pages=immutables.Map(pages), sizes=tuple(sorted(pages)),
        threads=tuple(threads.values()), online=mask_of(cpu.id for cpu in members),
        caches=tuple(sorted(caches.values())) if len(caches) > 1 and None not in caches else (),
        socket=packages.pop() if len(packages) == 1 else None, distances=cell.distances, devices=devices,
    )  # fmt: skip


def _page_stock(cell: int, size_kib: int, total: int, reserved: int) -> PageStock:
    kept = min(reserved, total)
    return PageStock(pool=pages_pool(cell, size_kib), size_kib=size_kib, total=total, reserved=kept, capacity=total - kept)


def _reserved_pages(machine: Machine, settings: NodeSettings, *, strict: bool) -> dict[tuple[int, int], int]:
    """Return the pages kept back by (cell, size) (H3); raises InvalidRequest on a pool named twice or, if strict, unknown."""
    there = {(cell.id, pool.size_kib) for cell in machine.cells for pool in cell.pages}
    there |= {(cell.id, machine.base_page_kib) for cell in machine.cells}
    kept: dict[tuple[int, int], int] = {}
    for item in settings.reserved_huge_pages:
        key = (item.cell, item.size_kib)
        where = f"reserved_huge_pages: {item.count} pages of {item.size_kib} KiB on cell {item.cell}"
        if key in kept:
            raise InvalidRequest(f"{where} are named twice", found=key)
        if strict and key not in there:
            raise InvalidRequest(f"{where}, but that cell has no such pages", found=key)
        kept[key] = item.count
    return kept


def _networks(machine: Machine, settings: NodeSettings, *, strict: bool) -> immutables.Map[str, frozenset[int]]:
    """Return the cells of each network (N21); raises InvalidRequest on a network named twice or, if strict, on an unknown cell."""
    there = {cell.id for cell in machine.cells}
    networks: dict[str, frozenset[int]] = {}
    for item in settings.network_cells:
        where = f"network_cells: {item.network or 'the tunnelled networks'}"
        if item.network in networks:
            raise InvalidRequest(f"{where} are named twice", found=item.network)
        unknown = sorted(set(item.cells) - there)
        if strict and unknown:
            raise InvalidRequest(f"{where} on cell {unknown[0]}, which the machine has not", found=unknown)
        networks[item.network] = frozenset(item.cells)
    return immutables.Map(networks)


def _memory(machine: Machine, settings: NodeSettings) -> Inventory:
    """Return the ordinary memory of the node in bytes, no more than the process may use; file-backed memory stands in its place (C14)."""
    total = settings.file_backed_memory_bytes or sum(cell.ordinary_bytes for cell in machine.cells)
    if machine.memory_limit_bytes is not None and not settings.file_backed_memory_bytes:
        total = min(total, machine.memory_limit_bytes)
    return _inventory("MEMORY_BYTES", total, settings.reserved_memory(total), settings.ram_allocation_ratio)


def _disks(machine: Machine, settings: NodeSettings) -> immutables.Map[PoolId, Inventory]:
    kept = settings.reserved_host_disk_bytes
    return immutables.Map(
        (
            disk_pool(disk.name),
            _inventory(
                "DISK_BYTES",
                disk.total_bytes,
                min(disk.total_bytes, kept if disk.name == ROOT_DISK else 0),
                settings.disk_allocation_ratio,
            ),
        )
        for disk in machine.disks
    )


def _classes(settings: NodeSettings, provided: Provided) -> immutables.Map[ResourceClass, Inventory]:
    """Return the plain classes by name; raises InvalidRequest on one named twice, impossible (C11), or counted by the machine itself."""
    classes: dict[ResourceClass, Inventory] = {}
    own = {inventory.resource_class for inventory in settings.inventories} | device_policy.unit_classes(settings)
    for inventory in (*settings.inventories, *(each for each in provided.inventories if each.resource_class not in own)):
        name = inventory.resource_class
        if name in OWN_CLASSES:
            raise InvalidRequest(f"inventory of {name}: that class is counted from the machine itself", resource_class=name)
        if name in classes:
            raise InvalidRequest(f"inventory of {name} is given twice", resource_class=name)
        classes[name] = checked(inventory)
    return immutables.Map(classes)


def _inventory(name: str, total: int, reserved: int, ratio: int) -> Inventory:
    """Return an inventory counted from the machine: no consumer may have more than there is (Nova 34: max_unit = total)."""
    return Inventory(resource_class=ResourceClass(name), total=total, reserved=reserved, ratio=ratio, max_unit=total)
