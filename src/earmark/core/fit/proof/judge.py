"""Whether a prescribed grant is possible: its units exist and are free, it excludes nobody, its amounts are within capacity.

Rules of this file: any shape that the structs hold is judged; what it says of itself must agree (slots as the table says, pins on its
own CPUs, memory backed by amounts). Policies (threads, affinity, page choice) are not judged. Whatever fit chooses passes.
"""

from __future__ import annotations

from earmark.core.fit.cpus import cell_capacity, shared_room
from earmark.core.fit.devices.rows import blocked_slots
from earmark.core.fit.free import CPU_PREFIX, Supply, cpu_mask
from earmark.core.fit.memory import ordinary_used, stock_reasons
from earmark.core.fit.proof.agree import consistency_reasons, request_reasons
from earmark.core.fit.proof.judge_devices import device_reason, group_reasons, share_reasons
from earmark.core.fit.refusal import about_unit, broken_rule, mismatch, short
from earmark.core.fit.request import check_request
from earmark.core.model.cpuset import CPU_MAX
from earmark.core.model.grant import Grant, UnitRow
from earmark.core.model.ids import MEMORY, VCPU, PoolId, ResourceClass, Slot
from earmark.core.model.refusal import Reason, Refusal
from earmark.core.model.request import Request
from earmark.core.model.units import KIB, counted, format_ratio

CPU_DIGITS_MAX = len(str(CPU_MAX))


def judge(grant: Grant, supply: Supply, request: Request | None = None) -> Refusal | None:
    """Return None if a grant may be given on a node now, else the reasons why not.

    With a request the grant must also be what was requested: as many CPUs, bytes, pages of that size, devices, amounts. Raises
    InvalidRequest on a request that is empty or contradicts itself.
    """
    if request is not None:
        check_request(request)
    reasons = unit_reasons(grant, supply)
    reasons += amount_reasons(grant, supply)
    reasons += consistency_reasons(grant, supply.layout)
    if request is not None:
        reasons += request_reasons(grant, supply.layout, request)
    return Refusal(reasons=tuple(reasons)) if reasons else None


def unit_reasons(grant: Grant, supply: Supply) -> list[Reason]:
    """Return what is wrong with the units of a grant: unknown, not to be handed out, blocked, taken, excluded, given twice."""
    blocked = blocked_slots(supply)
    taken: dict[Slot, UnitRow] = {}
    reasons = []
    for row in grant.units:
        wrong = _cpu_reason(row, supply) if row.unit.startswith(CPU_PREFIX) else device_reason(row, supply, blocked)
        if wrong is not None:
            reasons.append(wrong)
            continue
        for slot in row.occupied:
            other = taken.setdefault(slot, row)
            if other is not row:
                twice = "the grant names it twice" if other.unit == row.unit else f"the grant also holds {other.unit}, which excludes it"
                reasons.append(mismatch(row.unit, twice, unit=row.unit))
                break
    return [*reasons, *group_reasons(grant.units, supply)]


def amount_reasons(grant: Grant, supply: Supply) -> list[Reason]:
    """Return what is wrong with the amounts of a grant: unknown pools, unit rules (C11), more than the capacity (C10)."""
    reasons = []
    asked: dict[PoolId, int] = {}
    for row in grant.amounts:
        if row.amount < 1:
            reasons.append(mismatch(row.pool, f"an amount of {row.amount} is no share"))
        elif row.pool in asked:
            reasons.append(mismatch(row.pool, "the grant has two rows of this pool"))
        else:
            asked[row.pool] = row.amount
    reasons += _vcpu_reasons(asked, cpu_mask(row for row in grant.units if _is_cpu(row, supply)), supply)
    reasons += _memory_reasons(asked, supply)
    reasons += share_reasons(asked, grant.units, supply, blocked_slots(supply))
    layout, used = supply.layout, supply.free.used
    for pool, amount in sorted(asked.items()):
        kind, _, name = pool.partition(":")
        if kind == "disk":
            stock = layout.disks.get(pool)
        elif kind == "class":
            stock = layout.classes.get(ResourceClass(name))
        else:
            continue
        if stock is None:
            reasons.append(broken_rule(pool, amount, "the node has no such pool", code="no_class" if kind == "class" else "unknown_unit"))
        else:
            reasons += stock_reasons(pool, stock, used.get(pool, 0), amount, size=kind == "disk")
    return reasons


def _is_cpu(row: UnitRow, supply: Supply) -> bool:
    return row.unit.startswith(CPU_PREFIX) and _cpu_number(row.unit) is not None and bool(supply.layout.online >> int(row.unit[4:]) & 1)


def _cpu_number(unit: str) -> int | None:
    """Return the number in `cpu:N`, None if it is not written as this node writes it."""
    text = unit[len(CPU_PREFIX) :]
    return int(text) if text.isascii() and text.isdigit() and len(text) <= CPU_DIGITS_MAX and str(int(text)) == text else None


def _cpu_reason(row: UnitRow, supply: Supply) -> Reason | None:
    layout, free = supply.layout, supply.free
    number = _cpu_number(row.unit)
    if number is None or not layout.online >> number & 1:
        return about_unit("unknown_unit", row.unit, "the node has no such CPU online")
    bit = 1 << number
    cell = next((cell.id for cell in layout.cells if cell.cpus & bit), None)
    if row.use == "device":
        return mismatch(row.unit, "a CPU is not a device", unit=row.unit, cell=cell)
    if row.slots and row.slots != (Slot(row.unit),):
        return mismatch(row.unit, f"it occupies itself alone, the grant says {', '.join(row.slots)}", unit=row.unit, cell=cell)
    if not layout.dedicated & bit:
        detail = "it is kept for the host" if layout.reserved & bit else "it is not among the CPUs for dedicated use"
        return about_unit("unit_blocked", row.unit, detail, cell=cell)
    if supply.blocked_cpus & bit:
        return about_unit("unit_blocked", row.unit, "it gets no new grants", cell=cell)
    if free.taken_cpus & bit or Slot(row.unit) in free.slots:
        return about_unit("unit_taken", row.unit, f"claim {free.slots.get(Slot(row.unit), '?')} holds it", cell=cell)
    return None


def _vcpu_reasons(asked: dict[PoolId, int], taking: int, supply: Supply) -> list[Reason]:
    """Return what is wrong with the shared vCPUs of a grant, and with its own CPUs where they leave the shared set."""
    layout, used = supply.layout, supply.free.used
    if not taking & layout.shared and not any(pool.startswith(VCPU) for pool in asked):
        return []
    now, after = shared_room(supply), shared_room(supply, taking)
    cells = {cell.vcpu_pool: cell for cell in layout.cells}
    shrunk = now.mask != after.mask
    reasons = [
        broken_rule(pool, amount, "the node has no such cell", code="unknown_unit")
        for pool, amount in sorted(asked.items())
        if pool.startswith("vcpu:") and pool not in cells
    ]
    wanted = sum(amount for pool, amount in asked.items() if pool == VCPU or pool in cells)
    cpus = after.mask.bit_count()
    if asked.get(VCPU, 0) > cpus:
        detail = f"a guest never has more vCPUs than there are shared CPUs, {cpus}"
        reasons.append(broken_rule(VCPU, asked[VCPU], detail, code="self_overcommit"))
    if (wanted or (shrunk and after.used)) and after.used + wanted > after.capacity:
        detail = f"{counted(after.used, 'vCPU')} on {counted(cpus, 'CPU')} at a ratio of {format_ratio(layout.cpu_ratio)} once the grant is given"
        reasons.append(short(VCPU, wanted, after.capacity - after.used, detail=detail))
    for pool, cell in cells.items():
        count, bound = asked.get(pool, 0), used.get(pool, 0)
        here = (after.mask & cell.cpus).bit_count()
        if count > here:
            detail = f"a guest cell never has more vCPUs than the host cell has shared CPUs, {here}"
            reasons.append(broken_rule(pool, count, detail, cell=cell.id, code="self_overcommit"))
        capacity = cell_capacity(after.mask, cell, layout.cpu_ratio)
        smaller = here != (now.mask & cell.cpus).bit_count()
        if (count or (smaller and bound)) and bound + count > capacity:
            detail = f"{counted(bound, 'vCPU')} on {counted(here, 'CPU')} of the cell at a ratio of {format_ratio(layout.cpu_ratio)} once the grant is given"
            reasons.append(short(pool, count, capacity - bound, cell=cell.id, detail=detail))
    return reasons


def _memory_reasons(asked: dict[PoolId, int], supply: Supply) -> list[Reason]:
    """Return what is wrong with the floating memory and the pages of a grant."""
    layout, used = supply.layout, supply.free.used
    reasons = []
    ordinary = asked.get(MEMORY, 0)
    for pool, amount in sorted(asked.items()):
        kind = pool.partition(":")[0]
        if kind != "pages":
            if kind not in ("vcpu", "memory", "disk", "class", "share") or (kind == "memory" and pool != MEMORY):
                reasons.append(broken_rule(pool, amount, "the node has no such pool", code="unknown_unit"))
            continue
        found = layout.pages.get(pool)
        if found is None:
            reasons.append(broken_rule(pool, amount, "the node has no such pages", code="unknown_unit"))
            continue
        cell, stock = found
        free = stock.capacity - used.get(pool, 0)
        if amount > free:
            detail = f"{stock.total} pages of {stock.size_kib} KiB, {stock.reserved} kept back"
            reasons.append(short(pool, amount, free, cell=cell, detail=detail))
        if stock.size_kib == layout.base_page_kib:
            ordinary += amount * stock.size_kib * KIB
    if ordinary:
        reasons += stock_reasons(MEMORY, layout.memory, ordinary_used(supply), ordinary, size=True)
    return reasons
