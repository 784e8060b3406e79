"""Who holds what a refusal says is short, and what of it is cordoned.

Rules of this file: the numbers of a reason are fit's; the holders are added from the live claims and quarantines, largest first, then the oldest, at
most HOLDERS_SHOWN_MAX of them and a count of the rest. Of devices only those count that answer what was asked for, or exclude one that does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet

from msgspec.structs import replace

from earmark.core.fit.devices.policy import MDEV, parent_local
from earmark.core.fit.free import CPU_PREFIX, cpu_of
from earmark.core.fit.layout import Layout
from earmark.core.fit.refusal import CPU
from earmark.core.ledger.state import NodeState
from earmark.core.ledger.story import amount_words
from earmark.core.model.cpuset import cpus_of, format_cpu_list
from earmark.core.model.grant import AmountRow, Grant
from earmark.core.model.ids import MEMORY, VCPU, ClaimId, ConsumerId, Owner, PoolId, Slot, UnitId, shared_unit
from earmark.core.model.refusal import HOLDERS_SHOWN_MAX, Holding, Reason, Refusal
from earmark.core.model.request import Request

BY_CPU = (CPU, "cores", "threads")
"""Resources of reasons that are about CPUs of one's own: those who have some hold the difference."""
CORDONS_SHOWN_MAX = 5
UNKNOWN_SHOWN_MAX = 5
HELD_CODES = frozenset({"short", "unit_taken", "excluded", "unit_blocked"})


def with_holders(refusal: Refusal, state: NodeState, request: Request) -> Refusal:
    """Return the refusal of a request whose reasons name the node's claims that hold the difference, and what of it is cordoned."""
    return replace(refusal, node=state.name, reasons=tuple(_with_holders(reason, state, request) for reason in refusal.reasons))


def _with_holders(reason: Reason, state: NodeState, request: Request) -> Reason:
    if reason.code not in HELD_CODES or state.layout is None:
        return reason
    kind, _, kinds = reason.resource.partition(":")
    devices = kind == "device"
    slots = _slots(kinds, state, state.layout, request) if devices else frozenset()
    found = [
        Holding(claim=claim, consumer=consumer, owner=owner, amount=amount, until_ms=until_ms, what=what)
        for claim, consumer, owner, grant, until_ms in _holders(state)
        for amount, what in [_devices(grant, slots) if devices else _share(reason, grant, state)]
        if amount > 0
    ]
    found.sort(key=lambda holding: -holding.amount)
    shown = [_as_kept(holding) if holding.claim in state.quarantines else holding for holding in found[:HOLDERS_SHOWN_MAX]]
    not_given = _not_given(kinds, state.layout, request) if devices else ()
    detail = "; ".join(part for part in (reason.detail, *not_given, *_cordons(reason, state, slots)) if part)
    return replace(reason, detail=detail, holders=tuple(shown), holders_left_out=max(0, len(found) - HOLDERS_SHOWN_MAX))


def _holders(state: NodeState) -> Iterator[tuple[ClaimId, ConsumerId, Owner, Grant, int | None]]:
    """Yield who holds what of a node, and until when: claims from the oldest on, then what is in quarantine."""
    for claim in sorted(state.live(), key=lambda claim: claim.held_at_ms):
        yield claim.id, claim.consumer, claim.owner, claim.grant, claim.deadline_ms
    for kept in sorted(state.quarantines.values(), key=lambda kept: (kept.since_ms, kept.claim)):
        yield kept.claim, kept.consumer, kept.owner, kept.grant, None


def _as_kept(holding: Holding) -> Holding:
    return replace(holding, what=f"{holding.what} in quarantine")


def _not_given(kinds: str, layout: Layout, request: Request) -> Iterator[str]:
    """Yield, in words, which devices that wishes of some kinds name are not there, and how many that would do are faulty or not handed out."""
    named = dict.fromkeys(unit for wish in request.devices if wish.kind in kinds.split("+") for unit in wish.within)
    missing = [unit for unit in named if unit not in layout.known]
    if missing:
        more = f" and {len(missing) - UNKNOWN_SHOWN_MAX} more of those named" if len(missing) > UNKNOWN_SHOWN_MAX else ""
        yield f"the node has no {', '.join(missing[:UNKNOWN_SHOWN_MAX])}{more}"
    kept = [layout.known[unit] for unit in _answering(kinds, layout, request, frozenset(layout.known) - layout.grantable)]
    faulty = sum(1 for device in kept if device.fault is not None)
    if faulty:
        yield f"{faulty} that would do {'is' if faulty == 1 else 'are'} faulty"
    if len(kept) > faulty:
        left = len(kept) - faulty
        yield f"{left} that would do {'is' if left == 1 else 'are'} not handed out (earmark node devices)"


def _cordons(reason: Reason, state: NodeState, slots: AbstractSet[Slot]) -> Iterator[str]:
    """Yield, in words, the cordons of single units that a reason is about: whoever is refused is told why."""
    layout = state.layout
    cpus = -1 if layout is None or reason.cell is None or reason.cell not in layout.cell else layout.cell[reason.cell].cpus
    found = [
        f"{unit} is cordoned: {cordon.reason}"
        for unit, cordon in sorted(state.cordons.items())
        if Slot(unit) in slots or (reason.resource in BY_CPU and unit.startswith(CPU_PREFIX) and cpus >> cpu_of(UnitId(unit)) & 1)
    ]
    yield from found[:CORDONS_SHOWN_MAX]
    if len(found) > CORDONS_SHOWN_MAX:
        yield f"{len(found) - CORDONS_SHOWN_MAX} more are cordoned"


def _share(reason: Reason, grant: Grant, state: NodeState) -> tuple[int, str]:
    """Return how much of a reason's resource a grant holds, and that in words."""
    resource = reason.resource
    if resource in BY_CPU:
        cpus, text = _cpus(grant, state, reason.cell)
        sharers = _shared(grant) if reason.cell is None else ()
        return cpus + sum(row.amount for row in sharers), ", ".join(part for part in (text, *map(amount_words, sharers)) if part)
    kind, _, rest = resource.partition(":")
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


def _slots(kinds: str, state: NodeState, layout: Layout, request: Request) -> frozenset[Slot]:
    """Return the slots of the devices that could answer what a request asks for of some kinds ("gpu", "gpu+vf"), and of what crowds them."""
    found: set[Slot] = set()
    places: set[str] = set()
    for unit in _answering(kinds, layout, request, layout.grantable):
        device = layout.known[unit]
        parent = layout.known.get(device.parent) if device.parent is not None else None
        found.update(layout.slots[unit])
        places.add((parent or device).unit.partition(":")[2])
    return frozenset(found).union(Slot(unit) for unit in state.withdrawn if unit.startswith(MDEV) and parent_local(unit) in places)


def _answering(kinds: str, layout: Layout, request: Request, units: Iterable[UnitId]) -> Iterator[UnitId]:
    """Yield those of some units that answer a wish of a request for devices of some kinds."""
    from earmark.core.fit.devices.match import asked_of, suits, wanted  # noqa: PLC0415 - only where devices are refused

    asked = [asked_of(wish) for wish in wanted(request, layout) if wish.kind in kinds.split("+")]
    for unit in units:
        device = layout.known[unit]
        parent = layout.known.get(device.parent) if device.parent is not None else None
        if any(suits(each, device, (parent or device).address or "") for each in asked):
            yield unit


def _devices(grant: Grant, slots: AbstractSet[Slot]) -> tuple[int, str]:
    """Return how many units and shares of a grant are in the way of devices that occupy some slots, and these in words."""
    held = [str(row.unit) for row in grant.units if not slots.isdisjoint(row.occupied)]
    shares = [row for row in grant.amounts if (unit := shared_unit(row.pool)) is not None and Slot(unit) in slots]
    return len(held) + len(shares), ", ".join([*held, *map(amount_words, shares)])
