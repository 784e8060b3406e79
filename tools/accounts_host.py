"""Recorded hosts and placements in the words of Earmark: machines, settings, requests, prescribed grants.

Rules of this file: what is replayed is the accounting, not the admission: ratios are wide open, every CPU may be shared, and each machine gets a
cell of spare CPUs and memory, because the recorded program asks somebody else whether there is room. Exclusive units (CPUs, devices) and pages
that are asked for by size are judged as always.
"""

from __future__ import annotations

from tools.accounts_format import Flavor, HostCell, Placement, RecordedNode

from earmark.core.fit.layout import Layout
from earmark.core.model.grant import AmountRow, Grant, GrantCell, Pin, UnitRow
from earmark.core.model.ids import MEMORY, VCPU, PoolId, UnitId, cpu_unit, disk_pool, pages_pool
from earmark.core.model.node import NodeSettings, ReservedPages
from earmark.core.model.request import DeviceRequest, Request
from earmark.core.model.topology import Cell, Cpu, Device, Disk, Machine, PagePool
from earmark.core.model.units import GIB, MIB

WIDE_OPEN = 1_000_000
"""A ratio of 1000, in thousandths: the replay does not ask whether there is room."""
SPARE_CPUS = 512
SPARE_BYTES = 1 << 50
"""What the spare cell of each machine has, so that no floating guest is too large for it."""
KINDS = {"PF": "nic", "VF": "vf", "PCI": "accelerator", "VDPA": "vdpa"}


def machine_of(node: RecordedNode) -> Machine:
    """Return the machine of a recorded host."""
    cpus = []
    for cell in node.host.cells:
        core = {cpu: min(group) for group in cell.siblings for cpu in group}
        listed = sorted({*cell.cpus.shared, *cell.cpus.dedicated, *core})
        cpus += [Cpu(id=cpu, core=core.get(cpu, cpu), cell=cell.id, package=cell.socket) for cpu in listed]
    devices = tuple(
        Device(
            unit=device_unit(device.address), kind=KINDS[device.type], address=device.address, vendor_id=device.vendor_id or None,
            product_id=device.product_id or None, cell=device.numa_node,
            parent=device_unit(device.parent) if device.parent is not None else None,
        )
        for device in sorted(node.host.pci, key=lambda each: each.address)
    )  # fmt: skip
    first = max((cpu.id for cpu in cpus), default=-1) + 1
    beyond = max((cell.id for cell in node.host.cells), default=-1) + 1
    cpus += [Cpu(id=cpu, core=cpu, cell=beyond) for cpu in range(first, first + SPARE_CPUS)]
    spare = Cell(id=beyond, cpus=tuple(range(first, first + SPARE_CPUS)), memory_bytes=SPARE_BYTES)
    return Machine(
        cpus=tuple(sorted(cpus, key=lambda cpu: cpu.id)),
        cells=(
            *(_cell(cell, [cpu.id for cpu in cpus if cpu.cell == cell.id]) for cell in sorted(node.host.cells, key=lambda each: each.id)),
            spare,
        ),
        devices=devices,
        disks=(Disk(name="root", total_bytes=max(node.local_gb * GIB, SPARE_BYTES)),),
    )


def _cell(cell: HostCell, cpus: list[int]) -> Cell:
    huge = tuple(PagePool(size_kib=pages.size_kb, total=pages.total) for pages in cell.pages if pages.size_kb != 4)  # noqa: PLR2004 - base pages
    return Cell(id=cell.id, cpus=tuple(sorted(cpus)), memory_bytes=cell.memory_mb * MIB, pages=huge)


def settings_of(node: RecordedNode) -> NodeSettings:
    """Return the settings under which a recorded host is replayed."""
    dedicated = sorted(cpu for cell in node.host.cells for cpu in cell.cpus.dedicated)
    shared = [cpu.id for cpu in machine_of(node).cpus]
    return NodeSettings(
        cpu_policy="overlap", cpu_shared_set=tuple(shared), cpu_dedicated_set=tuple(dedicated), cpu_allocation_ratio=WIDE_OPEN,
        ram_allocation_ratio=WIDE_OPEN, disk_allocation_ratio=WIDE_OPEN, reserved_host_memory_bytes=node.reserved_memory_mb * MIB,
        reserved_host_disk_bytes=0, device_kinds=tuple(sorted(KINDS.values())), live_migratable_kinds=tuple(sorted(KINDS.values())),
        allow_migrate_to_same_host=True,
        reserved_huge_pages=tuple(
            ReservedPages(cell=cell.id, size_kib=pages.size_kb, count=pages.reserved)
            for cell in node.host.cells
            for pages in cell.pages
            if pages.reserved and pages.size_kb != 4  # noqa: PLR2004 - base pages are not kept back by count
        ),
    )  # fmt: skip


def device_unit(address: str) -> UnitId:
    """Return the unit of a device by its address."""
    return UnitId(f"pci:{address}")


def is_isolated(flavor: Flavor) -> bool:
    """Say whether the siblings of a flavor's CPUs are kept idle (N5, N18)."""
    return (
        flavor.extra_specs.get("hw:cpu_thread_policy") == "isolate" or flavor.extra_specs.get("trait:HW_CPU_HYPERTHREADING") == "forbidden"
    )


def disk_bytes(flavor: Flavor, *, volume_backed: bool) -> int:
    """Return the exact local disk of an instance (C3, C5)."""
    return (0 if volume_backed else flavor.root_gb * GIB) + flavor.ephemeral_gb * GIB + flavor.swap_mb * MIB


def request_of(flavor: Flavor, placement: Placement, node: RecordedNode, *, volume_backed: bool) -> Request:
    """Return what an instance of a flavor asks for; which vCPUs are dedicated and what devices, as the placement has it."""
    cells = placement.cells or ()
    pinned = sorted(int(vcpu) for cell in cells for vcpu in cell.cpu_pinning)
    mixed = 0 < len(pinned) < flavor.vcpus
    kinds = [KINDS[device.type] for address in placement.pci for device in node.host.pci if device.address == address]
    sizes = {cell.pagesize_kb for cell in cells} - {None}
    return Request(
        vcpus=flavor.vcpus,
        cpu_policy="mixed" if mixed else "dedicated" if pinned else "shared",
        dedicated_vcpus=tuple(pinned) if mixed else (),
        memory_bytes=flavor.memory_mb * MIB,
        page_kib=next(iter(sizes)) if len(sizes) == 1 and flavor.memory_mb else None,
        disk_bytes=disk_bytes(flavor, volume_backed=volume_backed),
        devices=tuple(DeviceRequest(kind=kind, count=kinds.count(kind)) for kind in sorted(set(kinds))),
    )


def grant_of(flavor: Flavor, placement: Placement, node: RecordedNode, layout: Layout, *, volume_backed: bool) -> Grant:
    """Return the grant that a recorded placement is."""
    units: list[UnitRow] = []
    amounts: dict[PoolId, int] = {}
    cells = []
    floating = flavor.memory_mb * MIB
    shared = flavor.vcpus
    for cell in placement.cells or ():
        pins = tuple(Pin(vcpu=int(vcpu), cpu=cpu) for vcpu, cpu in sorted(cell.cpu_pinning.items(), key=lambda pair: int(pair[0])))
        emulator = tuple(sorted(set(cell.cpuset_reserved) - {pin.cpu for pin in pins}))
        units += [UnitRow(unit=cpu_unit(pin.cpu), use="vcpu") for pin in pins]
        units += [UnitRow(unit=cpu_unit(cpu), use="emulator") for cpu in emulator]
        if is_isolated(flavor):
            used = {*(pin.cpu for pin in pins), *emulator}
            units += [UnitRow(unit=cpu_unit(cpu), use="withheld") for cpu in sorted(_siblings(node, cell.host_cell, used) - used)]
        shared -= len(pins)
        if cell.pagesize_kb is not None:
            pool = pages_pool(cell.host_cell, cell.pagesize_kb)
            amounts[pool] = amounts.get(pool, 0) + cell.memory_mb * 1024 // cell.pagesize_kb
            floating -= cell.memory_mb * MIB
        cells.append(
            GrantCell(
                guest_cell=cell.guest_cell, host_cell=cell.host_cell, pins=pins, shared_vcpus=tuple(sorted(cell.shared_vcpus)),
                emulator_cpus=emulator, memory_bytes=cell.memory_mb * MIB, page_kib=cell.pagesize_kb,
            )
        )  # fmt: skip
    for address in placement.pci:
        unit = device_unit(address)
        slots = layout.slots.get(unit, ())
        units.append(UnitRow(unit=unit, use="device", slots=() if len(slots) == 1 else slots))
    floats = {VCPU: shared, MEMORY: floating, disk_pool("root"): disk_bytes(flavor, volume_backed=volume_backed)}
    amounts |= {pool: amount for pool, amount in floats.items() if amount > 0}
    rows = tuple(AmountRow(pool=pool, amount=amount) for pool, amount in sorted(amounts.items()))
    return Grant(units=tuple(units), amounts=rows, cells=tuple(cells))


def _siblings(node: RecordedNode, host_cell: int, used: set[int]) -> set[int]:
    cell = next(each for each in node.host.cells if each.id == host_cell)
    return {cpu for group in cell.siblings if used & set(group) for cpu in group}
