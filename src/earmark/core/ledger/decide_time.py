"""What time and deaths do to claims, and what a person gives back.

Rules of this file: an end without proof is not free: the claim drains, and after the grace time all it held is quarantined; whoever is seen alive keeps
what it uses.
"""

from __future__ import annotations

from typing import Literal

from earmark.core.ledger import commands as c
from earmark.core.ledger import events as e
from earmark.core.ledger.decision import Decision, Facts, about
from earmark.core.ledger.state import NodeState
from earmark.core.model.claim import Claim, Holder
from earmark.errors import InvalidRequest


def sweep(state: NodeState, command: c.SweepNode, facts: Facts) -> Decision:
    """Let what is due take effect, on the evidence that the command carries."""
    found = due(state, command, facts.now_ms)
    touched = tuple(dict.fromkeys(event.claim for event in found if isinstance(event, e.ClaimDraining | e.ClaimEnded)))
    return Decision(events=found, outcome="swept", touched=touched)


def due(state: NodeState, command: c.SweepNode, clock_ms: int) -> tuple[e.Event, ...]:
    """Return what a sweep would record now; () if time and deaths have changed nothing."""
    now_ms = max(clock_ms, state.at_ms)
    found: list[e.Event] = []
    for claim in state.live():
        if claim.cause == "evacuated" or (claim.move is not None and claim.phase != "draining"):
            continue  # its host will say what is left of it; an open move is ended as a whole, on both nodes
        if claim.holders or claim.deadline_ms is not None or claim.phase == "draining":
            found.extend(_sweep_claim(claim, command, now_ms))
    for key in sorted(state.cordons):
        cordon = state.cordons[key]
        if cordon.until_ms is not None and now_ms >= cordon.until_ms:
            found.append(e.Uncordoned(unit=cordon.unit, cause="expired"))
    return tuple(found)


def due_leg(claim: Claim, gone: frozenset[Holder], alive: frozenset[Holder], now_ms: int) -> Literal["expire", "abort"] | None:
    """Return how the move of a destination leg is to end now: expired, or aborted as all its holders are gone; None: it stays.

    A deadline does not end a leg while one of its holders is seen alive; a source leg is never ended so, and of a move that was finished
    nothing: which side the instance is to have is somebody's decision then (S17).
    """
    if claim.leg != "destination" or claim.move is None or claim.phase != "held":
        return None
    if claim.holders and all(holder in gone for holder in claim.holders):
        return "abort"
    late = claim.deadline_ms is not None and now_ms >= claim.deadline_ms
    return "expire" if late and not any(holder in alive for holder in claim.holders) else None


def came_back(state: NodeState, command: c.ReturnNode, _facts: Facts) -> Decision:
    """End the claims of instances that were evacuated from a host which is back, its old guests destroyed (M21)."""
    found = [claim for claim in state.live() if claim.phase == "draining" and claim.cause == "evacuated"]
    events = tuple(e.ClaimEnded(**about(claim), cause="evacuated", evidence=command.reason) for claim in found)
    return Decision(events=events, outcome="returned", touched=tuple(claim.id for claim in found))


def _sweep_claim(claim: Claim, command: c.SweepNode, now_ms: int) -> list[e.Event]:
    """Return what time and deaths do to one claim: begin to drain, end with proof, or go to quarantine after the grace."""
    gone = frozenset(command.gone)
    alive = frozenset(command.alive)
    left = [holder for holder in claim.holders if holder not in gone]
    found: list[e.Event] = []
    since, cause = claim.draining_since_ms, claim.cause
    if claim.phase != "draining":
        lost = [holder for holder in claim.holders if holder in gone]
        runner_lost = any(holder.role == "runner" for holder in lost)
        if claim.deadline_ms is not None and now_ms >= claim.deadline_ms:
            cause, evidence = "expired", "its deadline has passed"
        elif lost and (runner_lost or not left):
            cause, evidence = "holder_gone", f"{pids(tuple(lost))} is gone"
        else:
            return []
        since = now_ms
        found.append(e.ClaimDraining(**about(claim), cause=cause, evidence=evidence))
    if cause is None or since is None:
        return found
    if claim.holders and not left:
        found.append(e.ClaimEnded(**about(claim), cause=cause, evidence="its processes are gone"))
    elif now_ms - since >= command.grace_ms and not any(holder in alive for holder in left):
        evidence = f"{cause}, and no proof within the grace time that its units are unused"
        found.append(e.ClaimEnded(**about(claim), cause=cause, evidence=evidence, quarantined=True))
    return found


def give_back(state: NodeState, command: c.ReturnUnits, _facts: Facts) -> Decision:
    """Return quarantined units to free; what is not in quarantine is answered."""
    if command.claim is None and command.unit is None:
        raise InvalidRequest("a return names a unit or a claim")
    kept = [
        quarantine
        for _, quarantine in sorted(state.quarantines.items())
        if (command.claim is None or quarantine.claim == command.claim)
        and (command.unit is None or any(row.unit == command.unit for row in quarantine.grant.units))
    ]
    if not kept:
        what = command.unit or command.claim
        return Decision(outcome="returned", claim_id=command.claim, message=f"{what} is not in quarantine on node {state.name}")
    units = () if command.unit is None else (command.unit,)
    events = tuple(e.UnitsReturned(claim=quarantine.claim, reason=command.reason, units=units) for quarantine in kept)
    return Decision(events=events, outcome="returned", claim_id=kept[0].claim)


def pids(holders: tuple[Holder, ...]) -> str:
    """Return some holders in words: "pid 12, 13"."""
    return "pid " + ", ".join(str(holder.pid) for holder in holders)
