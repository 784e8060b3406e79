"""The ledger held against itself: what contradicts what.

Rules of this file: pure and total; it compares and never repairs; a finding says which claim and unit, and what was expected. `error` is a
broken promise, `warning` a fact that a person should know (a vanished unit that is held, usage above a shrunk capacity).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from earmark.core.fit.devices.rows import given_shares
from earmark.core.fit.ground import WHOLE
from earmark.core.ledger.fold import recomputed
from earmark.core.ledger.rows import SlotRow, slot_rows
from earmark.core.ledger.state import NodeState
from earmark.core.model.finding import Finding
from earmark.core.model.ids import ClaimId, ConsumerId, Slot

RECORDS_SOURCE = "records"
"""The source of the findings that records from outside lead to."""
MOVE_CONTRADICTED = "move_contradicted"


def audit_node(state: NodeState, guard: Sequence[SlotRow] | None = None) -> tuple[Finding, ...]:
    """Return what is wrong with one node's state; `guard` are the store's slot rows to compare with (None: not compared)."""
    found = [*_double_grants(state), *_shares(state), *_drift(state), *_claims(state), *_overages(state), *_orphans(state)]
    found += [
        Finding(code="missing", severity="warning", node=state.node, unit=unit, detail=f"{unit} is held and the machine no longer has it")
        for unit in sorted(state.missing)
    ]
    found += _withdrawn(state)
    found += _foreign(state)
    if guard is not None:
        found += _guard(state, guard)
    return tuple(found)


def audit_consumers(states: Iterable[NodeState]) -> tuple[Finding, ...]:
    """Return the consumers that hold more than one main claim over several nodes."""
    mains: dict[ConsumerId, ClaimId] = {}
    found = []
    for state in sorted(states, key=lambda each: each.node):
        for claim in state.live():
            if claim.purpose != "main":
                continue
            first = mains.setdefault(claim.consumer, claim.id)
            if first != claim.id:
                detail = f"consumer {claim.consumer} holds two main claims, {first} and {claim.id}"
                found.append(Finding(code="two_mains", severity="error", node=state.node, claim=claim.id, detail=detail))
    return tuple(found)


def _double_grants(state: NodeState) -> list[Finding]:
    holders: dict[Slot, ClaimId] = {}
    found = []
    for claim_id, grant in state.grants():
        for row in grant.units:
            for slot in row.occupied:
                first = holders.setdefault(slot, claim_id)
                if first != claim_id:
                    detail = f"{row.unit} is held by {first} and by {claim_id}"
                    found.append(
                        Finding(code="double_grant", severity="error", node=state.node, claim=claim_id, unit=row.unit, detail=detail)
                    )
    return found


def _shares(state: NodeState) -> list[Finding]:
    """Return the devices of which more shares are held than there are, or shares beside the whole or what excludes it."""
    found = []
    table = state.layout.slots if state.layout is not None else {}
    above = state.layout.above if state.layout is not None else {}
    for unit, amount in sorted(given_shares(state.free.used).items()):
        holders = {
            slot: state.free.slots[slot] for slot in (*table.get(unit, (Slot(unit),)), *above.get(unit, ())) if slot in state.free.slots
        }
        detail = f"{amount} thousandths of {unit} are held" if amount > WHOLE else None
        if holders:
            slot, holder = min(holders.items())
            detail = f"shares of {unit} are held, and {slot} by {holder}"
        if detail is not None:
            found.append(Finding(code="double_grant", severity="error", node=state.node, unit=unit, detail=detail))
    return found


def _drift(state: NodeState) -> list[Finding]:
    fresh = recomputed(state)
    found = []
    if fresh.free != state.free:
        detail = "the maintained free index is not the one that the live claims add up to"
        found.append(Finding(code="index_drift", severity="error", node=state.node, detail=detail))
    if fresh.layout != state.layout:
        detail = "the maintained layout is not the one that machine and settings give"
        found.append(Finding(code="layout_drift", severity="error", node=state.node, detail=detail))
    return found


def _claims(state: NodeState) -> list[Finding]:
    found = []
    for claim in state.live():
        problem = None
        if claim.phase == "held" and claim.deadline_ms is None and claim.purpose not in ("leg", "foreign"):
            problem = ("no_deadline", "is held without a deadline")
        elif claim.phase == "draining" and (claim.cause is None or claim.draining_since_ms is None):
            problem = ("no_cause", "drains without a cause")
        elif claim.node != state.node:
            problem = ("wrong_node", f"says that it is on node {claim.node}")
        elif any(row.amount <= 0 for row in claim.grant.amounts):
            problem = ("bad_amount", "holds an amount that is not positive")
        if problem:
            found.append(
                Finding(code=problem[0], severity="error", node=state.node, claim=claim.id, detail=f"claim {claim.id} {problem[1]}")
            )
    return found


def _overages(state: NodeState) -> list[Finding]:
    if state.layout is None:
        return []
    found = []
    gone = frozenset(state.layout.withdrawn(state.free.used))
    for stock in state.layout.inventories(state.free):
        if stock.pool in gone:
            detail = f"{stock.pool}: {stock.used} in use and the node has no such inventory any more; what is held stays held"
            found.append(Finding(code="withdrawn", severity="warning", node=state.node, unit=stock.pool, detail=detail))
        elif not stock.admits(0, stock.used):
            detail = f"{stock.pool}: {stock.used} in use of {stock.capacity}; legal after capacity shrank, nothing more is granted"
            found.append(Finding(code="overage", severity="warning", node=state.node, unit=stock.pool, detail=detail))
    return found


def _withdrawn(state: NodeState) -> list[Finding]:
    """Return the named resources and mediated devices that are held and that the node's device policy has no more (S43, W48)."""
    detail = "is held and the node's device policy has it no more; what is held stays held"
    return [
        Finding(code="withdrawn", severity="warning", node=state.node, unit=unit, detail=f"{unit} {detail}")
        for unit in sorted(state.withdrawn)
    ]


def _orphans(state: NodeState) -> list[Finding]:
    """Return what is still held on a retired node: nobody may be there to end it (A13)."""
    if state.retired is None:
        return []
    detail = f"is left on node {state.name}, which was retired: {state.retired}"
    return [
        Finding(code="orphan", severity="warning", node=state.node, claim=claim_id, detail=f"claim {claim_id} {detail}")
        for claim_id, _ in state.grants()
    ]


def _foreign(state: NodeState) -> list[Finding]:
    """Name who uses the node without having claimed, and what a look at the guests found contested."""
    seen = [
        Finding(
            code="foreign", severity="warning", node=state.node, claim=claim.id,
            detail=f"{claim.consumer} uses the node and never claimed ({claim.id})",
        )
        for claim in state.live()
        if claim.purpose == "foreign"
    ]  # fmt: skip
    return [*seen, *state.findings.get("guests", ()), *standing(state)]


def standing(state: NodeState) -> tuple[Finding, ...]:
    """Return what records from outside contradict on a node and is not over: with the claim that it speaks of, or with its move."""
    found = []
    for each in state.findings.get(RECORDS_SOURCE, ()):
        claim = state.claims.get(each.claim) if each.claim is not None else None
        if each.claim is None or (claim is not None and (each.code != MOVE_CONTRADICTED or claim.move is not None)):
            found.append(each)
    return tuple(found)


def _guard(state: NodeState, guard: Sequence[SlotRow]) -> list[Finding]:
    expected = {row for claim_id, grant in state.grants() for row in slot_rows(claim_id, grant)}
    stored = set(guard)
    found = []
    for row in sorted(expected ^ stored):
        where = "missing from" if row in expected else "left over in"
        detail = f"guard row {row.slot} of {row.claim} is {where} the store"
        found.append(Finding(code="guard_drift", severity="error", node=state.node, claim=row.claim, unit=row.unit, detail=detail))
    return found
