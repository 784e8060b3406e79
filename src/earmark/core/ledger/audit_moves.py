"""Instances and moves held against the claims that they are about.

Rules of this file: pure and total, as in audit; a move's recorded outcome must be what its legs say, and each leg must belong to an open move.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from earmark.core.ledger.consumer import ConsumerState
from earmark.core.ledger.moves import Fate, status_of
from earmark.core.ledger.state import NodeState
from earmark.core.model.claim import Claim
from earmark.core.model.finding import Finding
from earmark.core.model.ids import ClaimId, ConsumerId
from earmark.core.model.instance import Move


def audit_moves(
    states: Iterable[NodeState], consumers: Iterable[ConsumerState], ended: Mapping[ClaimId, Fate]
) -> tuple[Finding, ...]:  # fmt: skip
    """Return what contradicts what between consumers and nodes; `ended` tells of the legs that have ended."""
    claims = {claim.id: claim for state in sorted(states, key=lambda each: each.node) for claim in state.live()}
    known = {state.consumer: state for state in consumers}
    found = [finding for claim in claims.values() if (finding := _stray(claim, known)) is not None]
    for state in sorted(known.values(), key=lambda each: each.consumer):
        found += [_drift(move, claims, ended) for move in _looked_at(state) if not _agrees(move, claims, ended)]
    found += [
        Finding(
            code="held_by_deleted",
            severity="warning",
            node=claim.node,
            claim=claim.id,
            detail=f"{claim.consumer} is deleted and holds {claim.id}",
        )
        for claim in claims.values()
        if claim.phase != "draining" and claim.consumer in known and known[claim.consumer].instance.state == "deleted"
    ]
    return tuple(found)


def legs_looked_at(consumers: Iterable[ConsumerState]) -> tuple[ClaimId, ...]:
    """Return the claims that `audit_moves` needs to know about."""
    return tuple(
        leg.claim
        for state in consumers
        for move in _looked_at(state)
        for pair in move.legs
        for leg in (pair.source, pair.destination)
        if leg
    )


def _looked_at(state: ConsumerState) -> tuple[Move, ...]:
    """Return the open move and the last ended one: older ones had their turn."""
    return (*state.moves[-1:], *((state.move,) if state.move is not None else ()))


def _stray(claim: Claim, known: Mapping[ConsumerId, ConsumerState]) -> Finding | None:
    """Say if a claim is a leg of no open move."""
    if claim.move is None or claim.phase == "draining":
        return None
    state = known.get(claim.consumer)
    if state is not None and state.move is not None and state.move.id == claim.move:
        return None
    detail = f"claim {claim.id} is the {claim.leg} leg of move {claim.move}, which is not open"
    return Finding(code="stray_leg", severity="error", node=claim.node, claim=claim.id, detail=detail)


def _agrees(move: Move, claims: Mapping[ClaimId, Claim], ended: Mapping[ClaimId, Fate]) -> bool:
    fates = {
        leg.claim: fate
        for pair in move.legs
        for leg in (pair.source, pair.destination)
        if leg and (fate := _fate(leg.claim, claims, ended))
    }
    status = status_of(move, fates)
    return status in ("preparing", "finished") if move.outcome is None else status == move.outcome


def _fate(claim: ClaimId, claims: Mapping[ClaimId, Claim], ended: Mapping[ClaimId, Fate]) -> Fate | None:
    live = claims.get(claim)
    return Fate(live, live.purpose, None) if live is not None else ended.get(claim)


def _drift(move: Move, claims: Mapping[ClaimId, Claim], ended: Mapping[ClaimId, Fate]) -> Finding:
    fates = {
        leg.claim: fate
        for pair in move.legs
        for leg in (pair.source, pair.destination)
        if leg and (fate := _fate(leg.claim, claims, ended))
    }
    detail = f"move {move.id} of {move.consumer} is recorded as {move.outcome or 'open'}, its legs say {status_of(move, fates)}"
    return Finding(code="move_drift", severity="error", node=move.source or move.destination, claim=None, detail=detail)
