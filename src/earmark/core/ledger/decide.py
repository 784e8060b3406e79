"""What a command leads to: events and an answer, or a refusal with its reasons.

Rules of this file: pure; nothing is written here and no state changed; a command that finds its wish already true is answered and writes
nothing; a claim ends freely only with proof (its holders are gone, or say so themselves), else it drains and keeps its units.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from earmark.core.fit.fit import fit
from earmark.core.ledger import commands as c
from earmark.core.ledger import events as e
from earmark.core.ledger.decide_foreign import record_findings, see_guests
from earmark.core.ledger.decide_node import configure, cordon_unit, host, observe, provide, register, rehome, restore, retire, uncordon
from earmark.core.ledger.decide_time import came_back, give_back, pids, sweep
from earmark.core.ledger.decision import Decision, Facts, about
from earmark.core.ledger.one_use import said, with_used_up
from earmark.core.ledger.reasons import with_holders
from earmark.core.ledger.remembering import identified
from earmark.core.ledger.state import NODE_CORDON, NodeState
from earmark.core.model.claim import Cause, Claim
from earmark.core.model.grant import Grant
from earmark.core.model.ids import ClaimId, Owner
from earmark.core.model.refusal import Holding, Reason, Refusal
from earmark.errors import Conflict, GenerationConflict, InvalidRequest, LedgerNewer, UnknownClaim, UnknownNode


def decide(state: NodeState | None, command: c.Command, facts: Facts) -> Decision | Refusal:
    """Decide a command on a state.

    Raises an Invalid… where the command names what does not exist or makes no sense, Conflict where the claim is in another phase or
    generation than the command needs.
    """
    if isinstance(command, c.RegisterNode):
        return register(state, command, facts)
    if state is None:
        raise UnknownNode(f"node {command.node} is not in this ledger", node=command.node)
    if state.unknown is not None:
        raise LedgerNewer(
            f"node {state.name} has an event {state.unknown} of a newer Earmark: it is read here and not written", node=state.node
        )
    decision = RULES[type(command)](state, command, facts)
    return _with_used_up(state, decision) if isinstance(decision, Decision) else decision


def _with_used_up(state: NodeState, decision: Decision) -> Decision:
    """Return a decision in which devices that are for one use stay in quarantine when their claims end."""
    if not any(isinstance(event, e.ClaimEnded) for event in decision.events):
        return decision
    events = with_used_up(state, decision.events)
    message = "; ".join(filter(None, (decision.message, *said(events))))
    return msgspec.structs.replace(decision, events=events, message=message)


def answer_of(decision: Decision, state: NodeState) -> c.Answer:
    """Return the answer that a decision gives once `state` is true."""
    claim = state.claims.get(decision.claim_id) if decision.claim_id is not None else None
    return c.Answer(
        outcome=decision.outcome, node=state.node, changed=bool(decision.events), claim_id=decision.claim_id, claim=claim,
        cause=decision.cause, message=decision.message, differences=decision.differences, touched=decision.touched,
    )  # fmt: skip


# --- claims -------------------------------------------------------------------------------------------------------------------------


def _hold(state: NodeState, command: c.HoldClaim, facts: Facts) -> Decision | Refusal:
    if command.claim in state.claims or command.claim in state.quarantines:
        raise Conflict(f"claim {command.claim} exists already", claim=command.claim)
    now_ms = max(facts.now_ms, state.at_ms)
    if command.deadline_ms is None and not command.confirm and command.purpose != "foreign":
        raise InvalidRequest(f"claim {command.claim} is to be held without a deadline", claim=command.claim)
    if command.deadline_ms is not None and command.deadline_ms <= now_ms:
        raise InvalidRequest(f"the deadline of claim {command.claim} has passed already", claim=command.claim)
    if command.purpose == "main" and facts.main is not None:
        return _refusal(state, _has_main(state, command, facts.main, facts.elsewhere))
    if command.purpose == "main" and not command.confirm and state.settings.max_concurrent_builds:
        building = sum(claim.phase == "held" and claim.purpose == "main" for claim in state.claims.values())
        if building >= state.settings.max_concurrent_builds:
            detail = f"{building} builds are in progress, max_concurrent_builds is {state.settings.max_concurrent_builds}"
            return _refusal(state, Reason(code="too_many_builds", resource="builds", asked=1, short=1, unit=state.name, detail=detail))
    if command.purpose == "leg":
        raise InvalidRequest(f"claim {command.claim}: a leg is held by a move", claim=command.claim)
    main = state.claims.get(facts.main) if facts.main is not None else None
    if main is not None and main.move is not None and main.phase != "draining":
        raise Conflict(f"consumer {command.consumer} is in move {main.move}; nothing is attached until it ends", move=main.move)
    found = place(state, command)
    if isinstance(found, Refusal):
        return found
    events: list[e.Event] = [
        e.ClaimHeld(
            claim=command.claim, consumer=command.consumer, owner=command.owner, request=command.request, grant=found,
            purpose=command.purpose, move=command.move, leg=command.leg, deadline_ms=command.deadline_ms, holders=command.holders,
        )
    ]  # fmt: skip
    if command.confirm:
        events.append(
            e.ClaimConfirmed(
                claim=command.claim,
                deadline_ms=command.deadline_ms,
                holders=command.holders,
                purpose=command.purpose,
                move=command.move,
                leg=command.leg,
            )
        )
    return Decision(events=tuple(events), outcome="confirmed" if command.confirm else "held", claim_id=command.claim)


def place(state: NodeState, command: c.HoldClaim) -> Grant | Refusal:
    """Return the grant that a hold would get on this state, or why not; also the what-if, as it writes nothing."""
    if state.retired is not None:
        return _refusal(state, Reason(code="node_closed", resource="node", unit=state.name, detail=f"retired: {state.retired}"))
    closed = state.cordons.get(NODE_CORDON)
    if closed is not None:
        return _refusal(state, Reason(code="node_closed", resource="node", unit=state.name, detail=f"cordoned: {closed.reason}"))
    supply = state.supply
    if supply is None:
        return _refusal(state, Reason(code="node_closed", resource="node", unit=state.name, detail="its machine was never observed"))
    if command.grant is None:
        found = fit(command.request, supply)
        return with_holders(found, state, command.request) if isinstance(found, Refusal) else identified(found, supply.layout)
    from earmark.core.fit.proof.judge import judge  # noqa: PLC0415 - only for grants that are prescribed

    refusal = judge(command.grant, supply, command.request)
    return with_holders(refusal, state, command.request) if refusal is not None else identified(command.grant, supply.layout)


def _has_main(state: NodeState, command: c.HoldClaim, main: ClaimId, elsewhere: Claim | None) -> Reason:
    holder = state.claims.get(main, elsewhere)
    where = "" if main in state.claims else " on another node"
    held = (
        Holding(
            claim=main,
            consumer=command.consumer,
            owner=holder.owner if holder else Owner("unknown"),
            amount=1,
            until_ms=holder.deadline_ms if holder else None,
        ),
    )
    return Reason(
        code="consumer_has_main", resource="consumer", asked=1, free=0, short=1, unit=command.consumer, holders=held,
        detail=f"consumer {command.consumer} holds its main claim {main}{where}; a further claim names a purpose",
    )  # fmt: skip


def _refusal(state: NodeState, *reasons: Reason) -> Refusal:
    return Refusal(reasons=reasons, node=state.name)


def _claim(state: NodeState, claim_id: ClaimId, facts: Facts, generation: int | None = None) -> Claim | str:
    """Return the live claim, or the cause with which it ended; raises UnknownClaim or GenerationConflict."""
    claim = state.claims.get(claim_id)
    if claim is None:
        if facts.ended is not None:
            return facts.ended
        raise UnknownClaim(f"claim {claim_id} is not on node {state.name}", claim=claim_id)
    if generation is not None and generation != claim.generation:
        raise GenerationConflict(
            f"claim {claim_id} has generation {claim.generation}, not {generation}",
            claim=claim_id,
            expected=generation,
            found=claim.generation,
        )
    return claim


def _confirm(state: NodeState, command: c.ConfirmClaim, facts: Facts) -> Decision:
    claim = _claim(state, command.claim, facts, command.generation)
    if isinstance(claim, str):
        raise Conflict(f"claim {command.claim} cannot be confirmed, it has ended ({claim})", claim=command.claim, cause=claim)
    if claim.phase == "draining":
        raise Conflict(f"claim {claim.id} cannot be confirmed, it is draining ({claim.cause})", claim=claim.id, cause=claim.cause)
    if claim.phase == "confirmed":
        return Decision(outcome="confirmed", claim_id=claim.id, message="was confirmed already")
    if claim.move is not None:
        raise Conflict(f"claim {claim.id} is the {claim.leg} leg of move {claim.move}: finish or end that", claim=claim.id, move=claim.move)
    if claim.deadline_ms is not None and max(facts.now_ms, state.at_ms) >= claim.deadline_ms:
        raise Conflict(f"claim {claim.id} cannot be confirmed, its deadline has passed", claim=claim.id, deadline_ms=claim.deadline_ms)
    event = e.ClaimConfirmed(**about(claim), deadline_ms=command.deadline_ms, holders=command.holders)
    return Decision(events=(event,), outcome="confirmed", claim_id=claim.id)


def _bind(state: NodeState, command: c.BindClaim, facts: Facts) -> Decision:
    claim = _claim(state, command.claim, facts, command.generation)
    if isinstance(claim, str) or claim.phase == "draining":
        raise Conflict(f"claim {command.claim} cannot be bound, it has ended or is draining", claim=command.claim)
    if claim.holders == command.holders:
        return Decision(outcome="bound", claim_id=claim.id, message="was bound so already")
    return Decision(events=(e.ClaimBound(**about(claim), holders=command.holders),), outcome="bound", claim_id=claim.id)


def _renew(state: NodeState, command: c.RenewClaim, facts: Facts) -> Decision:
    claim = _claim(state, command.claim, facts, command.generation)
    if isinstance(claim, str) or claim.phase == "draining":
        raise Conflict(f"claim {command.claim} cannot be renewed, it has ended or is draining", claim=command.claim)
    now_ms = max(facts.now_ms, state.at_ms)
    if command.deadline_ms is None and claim.phase == "held":
        raise InvalidRequest(f"claim {claim.id} is held and always has a deadline; confirm it", claim=claim.id)
    if command.deadline_ms is not None and command.deadline_ms <= now_ms:
        raise InvalidRequest(f"the new deadline of claim {claim.id} has passed already", claim=claim.id)
    if claim.deadline_ms is not None and now_ms >= claim.deadline_ms:
        raise Conflict(f"claim {claim.id} cannot be renewed, its deadline has passed", claim=claim.id, deadline_ms=claim.deadline_ms)
    if claim.deadline_ms == command.deadline_ms:
        return Decision(outcome="renewed", claim_id=claim.id, message="has that deadline already")
    return Decision(events=(e.ClaimRenewed(**about(claim), deadline_ms=command.deadline_ms),), outcome="renewed", claim_id=claim.id)


def _end(state: NodeState, command: c.EndClaim, facts: Facts) -> Decision:
    claim = _claim(state, command.claim, facts)
    if isinstance(claim, str):
        return Decision(outcome="released", claim_id=command.claim, cause=_as_cause(claim), message=f"had ended already ({claim})")
    _claim(state, command.claim, facts, command.generation)
    if claim.move is not None and claim.phase != "draining":
        raise Conflict(f"claim {claim.id} is the {claim.leg} leg of move {claim.move}: end that", claim=claim.id, move=claim.move)
    if command.cause == "aborted" and claim.phase == "confirmed":
        raise Conflict(f"claim {claim.id} cannot be aborted, it is confirmed; release it", claim=claim.id)
    left = tuple(holder for holder in claim.holders if holder not in command.gone)
    cause = claim.cause or command.cause
    proven = not left and (command.cause != "forced" or bool(claim.holders))
    if proven:
        event = e.ClaimEnded(**about(claim), cause=cause, evidence=_proof(claim, command.cause))
        return Decision(events=(event,), outcome="released", claim_id=claim.id, cause=cause)
    waiting = "no proof that its units are unused" if not left else f"still bound to {pids(left)}"
    if claim.phase == "draining":
        return Decision(outcome="draining", claim_id=claim.id, cause=cause, message=waiting)
    draining = e.ClaimDraining(**about(claim), cause=command.cause, evidence=waiting)
    return Decision(events=(draining,), outcome="draining", claim_id=claim.id, cause=command.cause, message=waiting)


def _as_cause(text: str) -> Cause:
    cause: Cause = msgspec.convert(text, Cause)
    return cause


def _proof(claim: Claim, cause: Cause) -> str:
    if not claim.holders:
        return "its holder said so"
    return "its processes are gone" if cause == "forced" else "its processes are gone or said so"


Rule = Callable[[NodeState, Any, Facts], Decision | Refusal]

RULES: dict[type[c.Command], Rule] = {
    c.HoldClaim: _hold,
    c.ConfirmClaim: _confirm,
    c.BindClaim: _bind,
    c.RenewClaim: _renew,
    c.EndClaim: _end,
    c.SweepNode: sweep,
    c.ReturnUnits: give_back,
    c.ReturnNode: came_back,
    c.SeeGuests: see_guests,
    c.RecordFindings: record_findings,
    c.RehomeNode: rehome,
    c.HostNode: host,
    c.RetireNode: retire,
    c.RestoreNode: restore,
    c.ProvideNode: provide,
    c.ObserveMachine: observe,
    c.ConfigureNode: configure,
    c.CordonUnit: cordon_unit,
    c.UncordonUnit: uncordon,
}
