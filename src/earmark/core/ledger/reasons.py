"""Who holds what a refusal says is short.

Rules of this file: the numbers of a reason are fit's; the holders are added from the live claims and quarantines, largest first, then by id, at most
HOLDERS_SHOWN_MAX of them and a count of the rest.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from earmark.core.fit.refusal import CPU
from earmark.core.ledger.state import NodeState
from earmark.core.ledger.story import amount_words
from earmark.core.model.cpuset import cpus_of, format_cpu_list
from earmark.core.model.grant import AmountRow, Grant
from earmark.core.model.ids import MEMORY, VCPU, ClaimId, ConsumerId, Owner, PoolId, Slot, shared_unit
from earmark.core.model.refusal import HOLDERS_SHOWN_MAX, Holding, Reason, Refusal

BY_CPU = (CPU, "cores", "threads")
"""Resources of reasons that are about CPUs of one's own: those who have some hold the difference."""
HELD_CODES = frozenset({"short", "unit_taken", "excluded", "unit_blocked"})


def with_holders(refusal: Refusal, state: NodeState) -> Refusal:
    """Return a refusal whose reasons name the node's claims that hold the difference."""
    return replace(refusal, node=state.name, reasons=tuple(_with_holders(reason, state) for reason in refusal.reasons))


def _with_holders(reason: Reason, state: NodeState) -> Reason:
    if reason.code not in HELD_CODES or state.layout is None:
        return reason
    found = [
        Holding(claim=claim, consumer=consumer, owner=owner, amount=amount, until_ms=until_ms, what=what)
        for claim, consumer, owner, grant, until_ms in _holders(state)
        for amount, what in [_share(reason, grant, state)]
        if amount > 0
    ]
    found.sort(key=lambda holding: (-holding.amount, holding.claim))
    return replace(reason, holders=tuple(found[:HOLDERS_SHOWN_MAX]), holders_left_out=max(0, len(found) - HOLDERS_SHOWN_MAX))


def _holders(state: NodeState) -> Iterator[tuple[ClaimId, ConsumerId, Owner, Grant, int | None]]:
    for claim in state.claims.values():
        yield claim.id, claim.consumer, claim.owner, claim.grant, claim.deadline_ms
    for kept in state.quarantines.values():
        yield kept.claim, kept.consumer, kept.owner, kept.grant, None


def _share(reason: Reason, grant: Grant, state: NodeState) -> tuple[int, str]:
    """Return how much of a reason's resource a grant holds, and that in words."""
    resource = reason.resource
    if resource in BY_CPU:
        cpus, text = _cpus(grant, state, reason.cell)
        sharers = _shared(grant) if reason.cell is None else ()
        return cpus + sum(row.amount for row in sharers), ", ".join(part for part in (text, *map(amount_words, sharers)) if part)
    kind, _, rest = resource.partition(":")
    if kind == "device":
        return _devices(grant, state, rest)
    if reason.unit is not None:
        held = [
            row.unit
            for row in grant.units
            if reason.unit == row.unit or reason.unit in row.occupied or _excludes(row.unit, reason.unit, state)
        ]
        return len(held), ", ".join(held)
    pools = _pools(resource, state)
    rows = [row for row in grant.amounts if row.pool in pools]
    amount = sum(row.amount * pools[row.pool] for row in rows)
    words = ", ".join(amount_words(row) for row in rows)
    if kind == "vcpu" and state.layout is not None and state.layout.shrinks:
        cpus, text = _cpus(grant, state, int(rest) if rest else None)
        return amount + cpus, ", ".join(part for part in (words, text) if part)
    return amount, words


def _shared(grant: Grant) -> tuple[AmountRow, ...]:
    """Return a grant's shared vCPUs: they keep CPUs from being dedicated where both come from one pool."""
    return tuple(row for row in grant.amounts if row.pool == VCPU or row.pool.startswith("vcpu:"))


def _excludes(held: str, wanted: str, state: NodeState) -> bool:
    """Say whether two units of the machine share an exclusion slot."""
    if state.layout is None:
        return False
    slots = {str(unit): each for unit, each in state.layout.slots.items() if unit in (held, wanted)}
    return bool(frozenset(slots.get(held, ())) & frozenset(slots.get(wanted, ())))


def _pools(resource: str, state: NodeState) -> dict[PoolId, int]:
    """Return the pools that a resource is the sum of, and how much of the resource one of each is."""
    layout = state.layout
    if layout is None:
        return {}
    if resource == MEMORY:
        return {MEMORY: 1} | dict.fromkeys(layout.base_pools, layout.base_page_kib * 1024)
    if resource == VCPU:
        return {VCPU: 1} | dict.fromkeys(layout.vcpu_pools, 1)
    return {PoolId(resource): 1}


def _cpus(grant: Grant, state: NodeState, cell: int | None) -> tuple[int, str]:
    mask = 0
    for row in grant.units:
        if row.unit.startswith("cpu:"):
            mask |= 1 << int(row.unit[4:])
    if cell is not None and state.layout is not None and cell in state.layout.cell:
        mask &= state.layout.cell[cell].cpus
    return mask.bit_count(), f"cpu {format_cpu_list(cpus_of(mask))}" if mask else ""


def _devices(grant: Grant, state: NodeState, kind: str) -> tuple[int, str]:
    layout = state.layout
    if layout is None:
        return 0, ""
    slots = {slot for device in layout.devices.get(kind, ()) for slot in layout.slots[device.unit]}
    held = [str(row.unit) for row in grant.units if slots.intersection(row.occupied)]
    shares = [row for row in grant.amounts if (unit := shared_unit(row.pool)) is not None and Slot(unit) in slots]
    return len(held) + len(shares), ", ".join([*held, *map(amount_words, shares)])
