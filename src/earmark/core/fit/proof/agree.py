"""Whether a grant agrees with itself, and with the request it is for.

Rules of this file: only counts and places are compared, no policy is judged. A grant without cells says nothing of how it is used.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from earmark.core.fit.devices.match import CLASS_PREFIX, wanted
from earmark.core.fit.free import CPU_PREFIX
from earmark.core.fit.layout import ROOT_DISK, Layout
from earmark.core.fit.memory import pages_for
from earmark.core.fit.refusal import CPU, mismatch
from earmark.core.model.grant import Grant, GrantCell
from earmark.core.model.ids import MEMORY, VCPU, cell_vcpu_pool, class_pool, cpu_unit, disk_pool, pages_pool
from earmark.core.model.refusal import Reason
from earmark.core.model.request import Request
from earmark.core.model.units import KIB


def consistency_reasons(grant: Grant, layout: Layout) -> list[Reason]:
    """Return what a grant's cells contradict: each other, its unit rows, its amounts, or the node."""
    if not grant.cells:
        return []
    reasons = []
    for cell in grant.cells:
        if cell.host_cell not in layout.cell:
            detail = f"guest cell {cell.guest_cell} lies on host cell {cell.host_cell}, which the node has not"
            reasons.append(mismatch("cells", detail, cell=cell.host_cell))
    reasons += _twice("guest cell", (cell.guest_cell for cell in grant.cells))
    reasons += _twice("vCPU", (n for cell in grant.cells for n in (*(pin.vcpu for pin in cell.pins), *cell.shared_vcpus)))
    reasons += _twice("CPU", (cpu for cell in grant.cells for cpu in (*(pin.cpu for pin in cell.pins), *cell.emulator_cpus)))
    reasons += _pin_reasons(grant, layout)
    known = [cell for cell in grant.cells if cell.host_cell in layout.cell]
    reasons += _shared_backing(grant, known)
    reasons += _memory_backing(grant, known, layout)
    return reasons


def request_reasons(grant: Grant, layout: Layout, request: Request) -> list[Reason]:
    """Return where a grant is not what was requested: numbers of CPUs and vCPUs, bytes, page size, disk, classes, devices, traits."""
    dedicated = {"shared": 0, "dedicated": request.vcpus, "mixed": len(request.dedicated_vcpus)}[request.cpu_policy]
    own = sum(row.use == "vcpu" for row in grant.units)
    shared = sum(row.amount for row in grant.amounts if row.pool == VCPU or row.pool.startswith("vcpu:"))
    pairs = [(CPU, dedicated, own), (VCPU, request.vcpus - dedicated, shared)]
    pairs.append(("disk", request.disk_bytes, sum(row.amount for row in grant.amounts if row.pool.startswith("disk:"))))
    wishes = wanted(request, layout)
    units = {wish.kind for wish in wishes}
    plain = [item for item in request.resources if f"{CLASS_PREFIX}{item.resource_class}" not in units]
    asked = {class_pool(item.resource_class): item.amount for item in plain}
    given = {row.pool: row.amount for row in grant.amounts if row.pool.startswith("class:")}
    pairs += [(pool, asked.get(pool, 0), given.get(pool, 0)) for pool in sorted({*asked, *given})]
    reasons = [
        mismatch(what, f"{wished} are requested, the grant holds {found}", asked=wished, found=found)
        for what, wished, found in pairs
        if wished != found
    ]
    if wishes or any(row.use == "device" for row in grant.units) or any(row.pool.startswith("share:") for row in grant.amounts):
        from earmark.core.fit.proof.agree_devices import device_mismatches  # noqa: PLC0415 - the solver of devices, where there are some

        reasons += device_mismatches(grant, layout, request, wishes)
    if grant.amount(disk_pool(ROOT_DISK)) not in (0, request.disk_bytes):
        reasons.append(mismatch("disk", "the disk is taken from several places"))
    reasons += _requested_memory(grant, layout, request)
    for trait in (*request.required_traits, *request.forbidden_traits):
        if (trait in layout.traits) != (trait in request.required_traits):
            verb = "has it not" if trait in request.required_traits else "has it"
            reasons.append(Reason(code="trait", resource=f"trait:{trait}", detail=f"the node {verb}"))
    return reasons


def _requested_memory(grant: Grant, layout: Layout, request: Request) -> Iterator[Reason]:
    """Yield where the memory of a grant is not what was requested; each pool of pages may be rounded up to a whole page."""
    given = grant.amount(MEMORY)
    slack = 0
    for row in grant.amounts:
        parts = row.pool.split(":")
        if parts[0] != "pages" or len(parts) != 3 or not parts[2].isdecimal():  # noqa: PLR2004 - pages:CELL:SIZE
            continue
        size = int(parts[2])
        given += row.amount * size * KIB
        slack += size * KIB - 1 if size == layout.base_page_kib else 0
        if isinstance(request.page_kib, int) and size != request.page_kib:
            yield mismatch(row.pool, f"pages of {request.page_kib} KiB are requested", asked=request.page_kib, found=size)
    if not request.memory_bytes <= given <= request.memory_bytes + slack:
        yield mismatch(
            MEMORY, f"{request.memory_bytes} bytes are requested, the grant holds {given}", asked=request.memory_bytes, found=given
        )
    if isinstance(request.page_kib, int) and grant.amount(MEMORY):
        yield mismatch(MEMORY, f"pages of {request.page_kib} KiB are requested, the grant holds floating memory")


def _twice(what: str, numbers: Iterable[int]) -> list[Reason]:
    seen: set[int] = set()
    reasons = []
    for number in numbers:
        if number in seen:
            reasons.append(mismatch("cells", f"{what} {number} is placed twice"))
        seen.add(number)
    return reasons


def _pin_reasons(grant: Grant, layout: Layout) -> Iterator[Reason]:
    """Yield the pins and emulator CPUs that are not CPUs of the grant for that use, or not of the host cell."""
    uses = {row.unit: row.use for row in grant.units if row.unit.startswith(CPU_PREFIX)}
    for cell in grant.cells:
        host = layout.cell.get(cell.host_cell)
        placed = [(pin.cpu, "vcpu", f"vCPU {pin.vcpu}") for pin in cell.pins] + [
            (cpu, "emulator", "an emulator") for cpu in cell.emulator_cpus
        ]
        for cpu, use, who in placed:
            unit = f"cpu:{cpu}"
            if cpu < 0 or uses.get(cpu_unit(cpu)) != use:
                yield mismatch(unit, f"{who} of guest cell {cell.guest_cell} is pinned to it, but the grant has no such row", unit=unit)
            elif host is not None and not host.cpus >> cpu & 1:
                yield mismatch(unit, f"{who} is pinned to it, but it is not of host cell {cell.host_cell}", unit=unit, cell=cell.host_cell)


def _shared_backing(grant: Grant, cells: list[GrantCell]) -> Iterator[Reason]:
    """Yield where the shared vCPUs of the cells have no amounts behind them, or amounts no vCPU."""
    floating = 0
    for host in sorted({cell.host_cell for cell in cells}):
        count = sum(len(cell.shared_vcpus) for cell in cells if cell.host_cell == host)
        bound = grant.amount(cell_vcpu_pool(host))
        if bound > count:
            detail = f"{bound} shared vCPUs are bound to host cell {host}, the guest cells there name {count}"
            yield mismatch(cell_vcpu_pool(host), detail, asked=count, found=bound, cell=host)
        floating += max(0, count - bound)
    there = grant.amount(VCPU)
    if floating > there:
        yield mismatch(VCPU, f"{floating} shared vCPUs of the cells are backed by an amount of {there}", asked=floating, found=there)


def _memory_backing(grant: Grant, cells: list[GrantCell], layout: Layout) -> Iterator[Reason]:
    """Yield where the memory of the cells is not backed by pages of their host cell, or by floating memory if no size is named."""
    base = layout.base_page_kib
    floating = 0
    sizes = sorted({(cell.host_cell, cell.page_kib or base) for cell in cells})
    for host, size in sizes:
        here = [cell for cell in cells if cell.host_cell == host and (cell.page_kib or base) == size]
        given = grant.amount(pages_pool(host, size))
        named = sum(pages_for(cell.memory_bytes, size) for cell in here if cell.page_kib is not None)
        loose = [cell for cell in here if cell.page_kib is None]
        if named > given:
            detail = f"{named} pages of {size} KiB are used on host cell {host}, the grant holds {given}"
            yield mismatch(pages_pool(host, size), detail, asked=named, found=given, cell=host)
        left = max(0, given - named) * size * KIB
        floating += max(0, sum(cell.memory_bytes for cell in loose) - left)
    there = grant.amount(MEMORY)
    if floating > there:
        yield mismatch(MEMORY, f"{floating} bytes of the cells' memory are backed by an amount of {there}", asked=floating, found=there)
