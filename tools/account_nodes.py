"""What a recorded host, flavor and placement are in Earmark: machine and settings, request and prescribed grant.

Rules of this file: everything is taken over as it was recorded, nothing is chosen; a device's kind is its PCI type; memory of a guest with CPUs of
its own is base pages of its cells, memory of one that shares and names no page size floats (Nova demands free pages of the first only, N13).
"""

from __future__ import annotations

from collections.abc import Sequence

from tools.account_format import Flavor, Host, HostCell, Limits, Node, Placed, PlacedCell

from earmark.core.fit.layout import ROOT_DISK, Layout
from earmark.core.model.cpuset import CPU_MAX
from earmark.core.model.grant import AmountRow, Grant, GrantCell, Pin, UnitRow
from earmark.core.model.ids import MEMORY, VCPU, PoolId, Slot, UnitId, cell_vcpu_pool, cpu_unit, disk_pool, pages_pool
from earmark.core.model.node import NodeSettings, ReservedPages
from earmark.core.model.request import CpuPolicy, DeviceRequest, GuestCell, PageWish, Request, ThreadPolicy
from earmark.core.model.topology import BASE_PAGE_KIB, Cell, Cpu, Device, Disk, Machine, PagePool
from earmark.core.model.units import GIB, KIB, MIB

KINDS = {"PF": "nic", "VF": "vf", "PCI": "accelerator", "VDPA": "vdpa"}
RATIO_MAX = 1_000_000
BASE_PAGE_KIB_MAX = 64
"""No architecture has base pages larger than this; a larger smallest size is a huge page."""
SPARE_CPUS = 256
SPARE_BYTES = 1 << 50
WISHES: dict[str, PageWish] = {"small": "small", "large": "large", "any": "any"}
THREADS: dict[str, ThreadPolicy] = {"prefer": "prefer", "require": "require", "isolate": "isolate"}


def base_page_kib(host: Host) -> int:
    """Return the size of the host's base pages in KiB."""
    smallest = min((cell.smallest_kib for cell in host.cells if cell.smallest_kib is not None), default=BASE_PAGE_KIB)
    return smallest if smallest <= BASE_PAGE_KIB_MAX else BASE_PAGE_KIB


def machine_of(node: Node, *, spare: bool = False) -> Machine:
    """Return the machine of a recorded node; CPUs in neither set are the host's own and left out.

    `spare` adds a cell and disk space that the machine has not, for what Nova's compute admits beyond the machine (L3: it leaves vCPUs,
    memory and disk to Placement); nothing recorded lies on that cell.
    """
    host, base = node.host, base_page_kib(node.host)
    cells = [_cell(cell, base) for cell in host.cells]
    cpus = [Cpu(id=cpu, core=min(core), cell=cell.id, package=cell.socket) for cell in host.cells for core in cell.cores for cpu in core]
    if spare:
        extra = spare_cpus(host)
        cells.append(Cell(id=max(cell.id for cell in host.cells) + 1, cpus=extra, memory_bytes=SPARE_BYTES))
        cpus += [Cpu(id=cpu, core=cpu, cell=cells[-1].id) for cpu in extra]
    devices = tuple(
        Device(
            unit=device_unit(pci.address), kind=KINDS[pci.type], address=pci.address.lower(), vendor_id=pci.vendor_id,
            product_id=pci.product_id, cell=pci.numa_node, parent=None if pci.parent is None else device_unit(pci.parent),
        )
        for pci in sorted(host.pci, key=lambda pci: pci.address)
    )  # fmt: skip
    disk = (node.local_gb * GIB) + (SPARE_BYTES if spare else 0)
    return Machine(
        cpus=tuple(sorted(cpus, key=lambda cpu: cpu.id)), cells=tuple(sorted(cells, key=lambda cell: cell.id)), devices=devices,
        disks=(Disk(name=ROOT_DISK, total_bytes=disk, free_bytes=disk),), offline_cpus=tuple(sorted(set(host.cpus_offline) - {cpu.id for cpu in cpus})),
        base_page_kib=base,
    )  # fmt: skip


def _cell(cell: HostCell, base: int) -> Cell:
    memory = sum(each.size_kb * each.total for each in cell.pages) * KIB if cell.pages else cell.memory_mb * MIB
    huge = sorted((each for each in cell.pages if each.size_kb != base), key=lambda each: each.size_kb)
    return Cell(
        id=cell.id, cpus=tuple(sorted({*cell.cpus.shared, *cell.cpus.dedicated})), memory_bytes=memory,
        pages=tuple(PagePool(size_kib=each.size_kb, total=each.total) for each in huge),
    )  # fmt: skip


def spare_cpus(host: Host) -> tuple[int, ...]:
    """Return the numbers of CPUs that the host has not."""
    used = {cpu for cell in host.cells for cpu in (*cell.cpus.shared, *cell.cpus.dedicated)} | {*host.cpus_offline}
    first = max(used, default=-1) + 1
    return tuple(range(first, min(first + SPARE_CPUS, CPU_MAX + 1)))


def device_unit(address: str) -> UnitId:
    """Return the unit of a recorded PCI address."""
    return UnitId("pci:" + address.lower())


def settings_of(node: Node, limits: Limits | None, *, spare: bool = False) -> NodeSettings:
    """Return the settings of a recorded node: Nova's two sets, exclusive among themselves only in mode default (N8); the ratios given.

    Placement counts huge pages as memory for everybody (W26), Earmark does not: the ratio of ordinary memory is widened by that much.
    """
    host = node.host
    extra = spare_cpus(host) if spare else ()
    shared = tuple(sorted({cpu for cell in host.cells for cpu in cell.cpus.shared} | {*extra}))
    dedicated = tuple(sorted({cpu for cell in host.cells for cpu in cell.cpus.dedicated}))
    kept = tuple(
        ReservedPages(cell=cell.id, size_kib=each.size_kb, count=each.reserved)
        for cell in host.cells
        for each in cell.pages
        if each.reserved
    )
    cpu_ratio = RATIO_MAX if limits is None or spare else _thousandths(limits.cpu_allocation_ratio)
    return NodeSettings(
        cpu_policy="overlap" if host.cpu_mode == "default" else "split", cpu_shared_set=shared, cpu_dedicated_set=dedicated,
        reserved_host_memory_bytes=node.reserved_memory_mb * MIB, reserved_host_disk_bytes=0, cpu_allocation_ratio=cpu_ratio,
        ram_allocation_ratio=RATIO_MAX if limits is None else ram_ratio(node, limits), reserved_huge_pages=kept,
        device_kinds=tuple(sorted(KINDS.values())), live_migratable_kinds=tuple(sorted(KINDS.values())), allow_migrate_to_same_host=True,
    )  # fmt: skip


def can_keep_reserve(node: Node) -> bool:
    """Say whether the ordinary memory covers what is kept for the host; Nova takes that from huge pages too where it does not."""
    return sum(cell.ordinary_bytes for cell in machine_of(node).cells) >= node.reserved_memory_mb * MIB


def ram_ratio(node: Node, limits: Limits) -> int:
    """Return the ratio, in thousandths, under which ordinary memory holds what Placement would grant of all the memory."""
    ratio, kept = _thousandths(limits.ram_allocation_ratio), node.reserved_memory_mb * MIB
    machine = machine_of(node)
    ordinary = sum(cell.ordinary_bytes for cell in machine.cells) - kept
    total = sum(cell.memory_bytes for cell in machine.cells) - kept
    return min(RATIO_MAX, max(ratio, -(-total * ratio // ordinary))) if ordinary > 0 else RATIO_MAX


def _thousandths(ratio: float) -> int:
    return max(1, round(ratio * 1000))


# --- what is claimed ----------------------------------------------------------------------------------------------------------------


def request_of(flavor: Flavor, placed: Placed, host: Host, *, volume_backed: bool) -> Request:
    """Return what an instance asked for, read from its flavor and from the shape of its placement."""
    cells = placed.cells or ()
    pinned = tuple(sorted(int(vcpu) for cell in cells for vcpu in cell.cpu_pinning))
    policy: CpuPolicy = "shared" if not pinned else "dedicated" if len(pinned) == flavor.vcpus else "mixed"
    kinds = [KINDS[pci.type] for pci in host.pci if pci.address in placed.pci]
    return Request(
        vcpus=flavor.vcpus, cpu_policy=policy, thread_policy=THREADS.get(flavor.extra_specs.get("hw:cpu_thread_policy", "")) if pinned else None,
        dedicated_vcpus=pinned if policy == "mixed" else (), emulator_policy="isolate" if any(cell.cpuset_reserved for cell in cells) else None,
        memory_bytes=flavor.memory_mb * MIB, page_kib=_page_wish(flavor, cells),
        guest_cells=tuple(
            GuestCell(
                vcpus=tuple(sorted(cell.vcpus)), dedicated=tuple(sorted(int(vcpu) for vcpu in cell.cpu_pinning)),
                memory_bytes=cell.memory_mb * MIB,
            )
            for cell in sorted(cells, key=lambda cell: cell.guest_cell)
        ),
        disk_bytes=flavor.disk_mib(volume_backed=volume_backed) * MIB,
        devices=tuple(DeviceRequest(kind=kind, count=kinds.count(kind)) for kind in sorted(set(kinds))),
    )  # fmt: skip


def _page_wish(flavor: Flavor, cells: Sequence[PlacedCell]) -> int | PageWish | None:
    sizes = {cell.pagesize_kb for cell in cells}
    if not flavor.memory_mb or sizes <= {None}:
        return None
    named = WISHES.get(flavor.extra_specs.get("hw:mem_page_size", ""))
    if named is not None or len(sizes) > 1:
        return named or "any"
    return sizes.pop()


def grant_of(flavor: Flavor, placed: Placed, node: Node, layout: Layout, *, volume_backed: bool) -> Grant:
    """Return a recorded placement as the grant that is prescribed."""
    host = {cell.id: cell for cell in node.host.cells}
    base = base_page_kib(node.host)
    units: dict[UnitId, UnitRow] = {}
    amounts: dict[PoolId, int] = {}
    cells = []
    for cell in placed.cells or ():
        there = host[cell.host_cell]
        units |= {cpu_unit(cpu): UnitRow(unit=cpu_unit(cpu), use="vcpu") for cpu in cell.pcpus}
        units |= {cpu_unit(cpu): UnitRow(unit=cpu_unit(cpu), use="emulator") for cpu in cell.cpuset_reserved}
        for cpu in sorted(withheld(flavor, cell, there)):
            units.setdefault(cpu_unit(cpu), UnitRow(unit=cpu_unit(cpu), use="withheld"))
        size = page_size(cell, there)
        share = {cell_vcpu_pool(cell.host_cell): len(cell.shared_vcpus)}
        if size is None:
            share[MEMORY] = cell.memory_mb * MIB
        else:
            share[pages_pool(cell.host_cell, size)] = -(-cell.memory_mb * KIB // size)
        for pool, amount in share.items():
            amounts[pool] = amounts.get(pool, 0) + amount
        cells.append(_grant_cell(cell, None if cell.pagesize_kb is None and size in (None, base) else size))
    if placed.cells is None:
        amounts |= {VCPU: flavor.vcpus, MEMORY: flavor.memory_mb * MIB}
    amounts[disk_pool(ROOT_DISK)] = flavor.disk_mib(volume_backed=volume_backed) * MIB
    for unit in sorted(device_unit(address) for address in placed.pci):
        slots = layout.slots.get(unit, ())
        units[unit] = UnitRow(unit=unit, use="device", slots=() if slots == (Slot(unit),) else slots)
    rows = tuple(AmountRow(pool=pool, amount=amount) for pool, amount in sorted(amounts.items()) if amount)
    return Grant(units=tuple(units.values()), amounts=rows, cells=tuple(sorted(cells, key=lambda cell: cell.guest_cell)))


def _grant_cell(cell: PlacedCell, page_kib: int | None) -> GrantCell:
    pins = sorted((int(vcpu), cpu) for vcpu, cpu in cell.cpu_pinning.items())
    return GrantCell(
        guest_cell=cell.guest_cell, host_cell=cell.host_cell, pins=tuple(Pin(vcpu=vcpu, cpu=cpu) for vcpu, cpu in pins),
        shared_vcpus=tuple(sorted(cell.shared_vcpus)), emulator_cpus=tuple(sorted(cell.cpuset_reserved)),
        memory_bytes=cell.memory_mb * MIB, page_kib=page_kib,
    )  # fmt: skip


def page_size(cell: PlacedCell, there: HostCell) -> int | None:
    """Return the size of the pages that a guest cell holds in KiB, None if its memory floats."""
    return cell.pagesize_kb or (there.smallest_kib if cell.cpu_pinning else None)


def isolated(flavor: Flavor) -> bool:
    """Say whether a guest's CPUs are to have their cores for themselves: by policy, or by the trait that stands for it (N5)."""
    policy = flavor.extra_specs.get("hw:cpu_thread_policy")
    return policy == "isolate" or (policy is None and flavor.extra_specs.get("trait:HW_CPU_HYPERTHREADING") == "forbidden")


def withheld(flavor: Flavor, cell: PlacedCell, there: HostCell) -> frozenset[int]:
    """Return the CPUs kept idle beside an isolated guest: the other threads of its cores (N18)."""
    if not isolated(flavor):
        return frozenset()
    own = {*cell.pcpus, *cell.cpuset_reserved}
    return frozenset[int]().union(*(core for core in there.cores if core & own)) - own
