"""How one event leads from one state to the next.

Rules of this file: no clock, no choice, no check of policy: what was decided is only carried out. One function per event; the cost is that
of the event's own rows, never of the number of live claims. An event that contradicts the state is a broken ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from msgspec.structs import replace

from earmark.core.fit.free import CPU_PREFIX, cpu_of
from earmark.core.fit.layout import Layout, build_layout
from earmark.core.ledger import events as e
from earmark.core.ledger.codec import Head, Stored, open_envelope, open_event
from earmark.core.ledger.remembering import remembered
from earmark.core.ledger.state import NODE_CORDON, NodeState
from earmark.core.model.claim import Claim, Quarantine
from earmark.core.model.grant import Grant, UnitRow
from earmark.core.model.ids import ClaimId, UnitId
from earmark.core.model.node import NodeSettings, Provided
from earmark.core.model.topology import Machine
from earmark.errors import InvalidRequest, LedgerBroken

FAILED = frozenset({"aborted", "expired", "holder_gone"})
"""The causes with which a claim that was never confirmed counts as a failed build (T4)."""


def fold(state: NodeState | None, stored: Iterable[Stored]) -> NodeState | None:
    """Return the state after some stored events of one stream, in order; None stays None for no events."""
    for item in stored:
        envelope = open_envelope(item.raw)
        state = advance(state, open_event(envelope), Head(envelope.sequence, envelope.epoch, envelope.at_ms, item.hash), envelope.boot_id)
    return state


def advance(state: NodeState | None, event: e.Event, head: Head, boot_id: str | None = None) -> NodeState:
    """Return the state after one event that ends the stream at `head`.

    Raises LedgerBroken if the event cannot follow this state.
    """
    if state is None:
        if not isinstance(event, e.NodeRegistered):
            raise LedgerBroken(f"a node's stream begins with {event.type}, not with {e.NodeRegistered.type}", sequence=head.sequence)
        return NodeState(node=event.node, name=event.name, head=head, machine_ref=event.machine)
    changed = _carried_out(state, event, head)
    if isinstance(event, e.MachineObserved):
        return replace(changed, head=head, boot_id=boot_id)
    return replace(changed, head=head)


def _carried_out(state: NodeState, event: e.Event, head: Head) -> NodeState:
    """Return the state after an event's step. Behind an unknown event one that does not fit is passed over: the stream stays readable."""
    try:
        return STEPS[type(event)](state, event, head.at_ms)
    except LedgerBroken:
        if state.unknown is None:
            raise
        return state


def _registered(state: NodeState, event: e.NodeRegistered, _at_ms: int) -> NodeState:
    raise LedgerBroken(f"node {event.name} is entered in the stream of node {state.name}", node=state.node)


def _rehomed(state: NodeState, event: e.NodeRehomed, _at_ms: int) -> NodeState:
    return replace(state, machine_ref=event.machine)


def _observed(state: NodeState, event: e.MachineObserved, _at_ms: int) -> NodeState:
    layout = _layout(state, event.machine, state.settings, state.provided)
    known = remembered(state, layout)
    return replace(known, machine=event.machine, inventory_version=event.inventory_version, layout=layout)


def _configured(state: NodeState, event: e.NodeConfigured, _at_ms: int) -> NodeState:
    layout = _layout(state, state.machine, event.settings, state.provided) if state.machine is not None else None
    return replace(state, settings=event.settings, layout=layout)


def _layout(state: NodeState, machine: Machine, settings: NodeSettings, provided: Provided) -> Layout:
    try:
        return build_layout(machine, settings, provided, strict=False)
    except InvalidRequest as error:
        raise LedgerBroken(f"the settings of node {state.name} are impossible on any machine: {error}", node=state.node) from error


def _cordoned(state: NodeState, event: e.Cordoned, _at_ms: int) -> NodeState:
    if event.cordon.unit is not None and event.cordon.unit.startswith(CPU_PREFIX):
        cpu_of(event.cordon.unit)
    return replace(state, cordons=state.cordons.set(event.cordon.unit or NODE_CORDON, event.cordon))


def _uncordoned(state: NodeState, event: e.Uncordoned, _at_ms: int) -> NodeState:
    key = event.unit or NODE_CORDON
    if key not in state.cordons:
        raise LedgerBroken(f"{event.unit or 'the node'} is opened on node {state.name}, where it is not cordoned", unit=event.unit)
    return replace(state, cordons=state.cordons.delete(key))


def _held(state: NodeState, event: e.ClaimHeld, at_ms: int) -> NodeState:
    if event.claim in state.claims:
        raise LedgerBroken(f"claim {event.claim} is held twice on node {state.name}", claim=event.claim)
    claim = Claim(
        id=event.claim, node=state.node, consumer=event.consumer, owner=event.owner, request=event.request, grant=event.grant,
        purpose=event.purpose, move=event.move, leg=event.leg, held_at_ms=at_ms, deadline_ms=event.deadline_ms, holders=event.holders,
    )  # fmt: skip
    return replace(state, claims=state.claims.set(claim.id, claim), free=state.free.take(claim.id, claim.grant))


def _live(state: NodeState, claim_id: ClaimId, event: e.Event) -> Claim:
    claim = state.claims.get(claim_id)
    if claim is None:
        raise LedgerBroken(f"{event.type} for claim {claim_id}, which is not live on node {state.name}", claim=claim_id)
    return claim


def _step(state: NodeState, claim: Claim, **changes: Any) -> NodeState:
    stepped = replace(claim, generation=claim.generation + 1, **changes)
    return replace(state, claims=state.claims.set(claim.id, stepped))


def _confirmed(state: NodeState, event: e.ClaimConfirmed, at_ms: int) -> NodeState:
    claim = _live(state, event.claim, event)
    after = _step(state, claim, phase="confirmed", deadline_ms=event.deadline_ms, holders=event.holders, confirmed_at_ms=at_ms)
    return replace(after, failed_builds=0) if claim.purpose == "main" and state.failed_builds else after


def _bound(state: NodeState, event: e.ClaimBound, _at_ms: int) -> NodeState:
    return _step(state, _live(state, event.claim, event), holders=event.holders)


def _renewed(state: NodeState, event: e.ClaimRenewed, _at_ms: int) -> NodeState:
    return _step(state, _live(state, event.claim, event), deadline_ms=event.deadline_ms)


def _draining(state: NodeState, event: e.ClaimDraining, at_ms: int) -> NodeState:
    return _step(state, _live(state, event.claim, event), phase="draining", cause=event.cause, draining_since_ms=at_ms)


def _ended(state: NodeState, event: e.ClaimEnded, at_ms: int) -> NodeState:
    claim = _live(state, event.claim, event)
    claims = state.claims.delete(claim.id)
    if claim.purpose == "main" and claim.confirmed_at_ms is None and event.cause in FAILED:
        state = replace(state, failed_builds=state.failed_builds + 1)
    if not event.quarantined:
        return replace(state, claims=claims, free=state.free.give(claim.id, claim.grant))
    kept = Quarantine(
        claim=claim.id, consumer=claim.consumer, owner=claim.owner, grant=claim.grant, since_ms=at_ms, reason=event.evidence or event.cause
    )
    return replace(state, claims=claims, quarantines=state.quarantines.set(claim.id, kept))


def _returned(state: NodeState, event: e.UnitsReturned, _at_ms: int) -> NodeState:
    kept = state.quarantines.get(event.claim)
    if kept is None:
        raise LedgerBroken(f"units of claim {event.claim} are returned to node {state.name}, which has them not in quarantine")
    units = frozenset(event.units)
    left = tuple(row for row in kept.grant.units if row.unit not in units)
    if not units or not left:
        return replace(state, quarantines=state.quarantines.delete(event.claim), free=state.free.give(event.claim, kept.grant))
    smaller = replace(kept, grant=replace(kept.grant, units=left))
    return replace(
        state, quarantines=state.quarantines.set(event.claim, smaller), free=state.free.give(event.claim, kept.grant, units=units)
    )


def _units_kept(state: NodeState, event: e.UnitsRetained, _at_ms: int) -> NodeState:
    kept = state.quarantines.get(event.claim)
    stay, gone = _split(kept.grant, frozenset(event.units)) if kept is not None else ((), ())
    if kept is None or {row.unit for row in stay} != set(event.units):
        raise LedgerBroken(f"units of claim {event.claim} are to stay in quarantine on node {state.name}, which has them not there")
    smaller = replace(kept, grant=Grant(units=stay), reason=event.reason or kept.reason)
    free = state.free.give(event.claim, Grant(units=gone, amounts=kept.grant.amounts))
    return replace(state, quarantines=state.quarantines.set(event.claim, smaller), free=free)


def _passed(state: NodeState, event: e.UnitsPassed, _at_ms: int) -> NodeState:
    source, target = _live(state, event.source, event), _live(state, event.target, event)
    units = frozenset(event.units)
    gone, stay = _split(source.grant, units)
    after = _step(state, source, grant=replace(source.grant, units=stay))
    named = tuple(unit for unit in target.named if unit not in units)
    after = _step(after, target, grant=replace(target.grant, units=target.grant.units + gone), named=named)
    return replace(after, free=state.free.passed(source.id, target.id, gone))


def _split(grant: Grant, units: frozenset[UnitId]) -> tuple[tuple[UnitRow, ...], tuple[UnitRow, ...]]:
    """Return the unit rows of a grant that are in `units`, and the others."""
    return tuple(row for row in grant.units if row.unit in units), tuple(row for row in grant.units if row.unit not in units)


def _named(state: NodeState, event: e.UnitsNamed, _at_ms: int) -> NodeState:
    source, target = _live(state, event.source, event), _live(state, event.target, event)
    unheld = set(event.units) - {row.unit for row in source.grant.units}
    if unheld:
        raise LedgerBroken(f"claim {target.id} names {', '.join(sorted(unheld))}, which {source.id} does not hold", claim=target.id)
    return replace(state, claims=state.claims.set(target.id, replace(target, named=event.units)))


def _leg_opened(state: NodeState, event: e.LegOpened, _at_ms: int) -> NodeState:
    return _step(state, _live(state, event.claim, event), move=event.move, leg=event.leg)


def _leg_closed(state: NodeState, event: e.LegClosed, _at_ms: int) -> NodeState:
    return _step(state, _live(state, event.claim, event), purpose=event.purpose, move=event.move, leg=event.leg)


def _retired(state: NodeState, event: e.NodeRetired, _at_ms: int) -> NodeState:
    return replace(state, retired=event.reason)


def _restored(state: NodeState, _event: e.NodeRestored, _at_ms: int) -> NodeState:
    return replace(state, retired=None)


def _hosted(state: NodeState, event: e.NodeHosted, _at_ms: int) -> NodeState:
    return replace(state, host=event.host)


def _provided(state: NodeState, event: e.NodeProvided, _at_ms: int) -> NodeState:
    layout = _layout(state, state.machine, state.settings, event.provided) if state.machine is not None else None
    return replace(state, provided=event.provided, layout=layout)


def _found(state: NodeState, event: e.FindingsChanged, _at_ms: int) -> NodeState:
    if not event.findings:
        return replace(state, findings=state.findings.delete(event.source)) if event.source in state.findings else state
    return replace(state, findings=state.findings.set(event.source, event.findings))


def _elsewhere(state: NodeState, event: e.Event, _at_ms: int) -> NodeState:
    raise LedgerBroken(f"{event.type} stands in the stream of node {state.name}, it is about a consumer", node=state.node)


def _not_understood(state: NodeState, event: e.UnknownEvent, _at_ms: int) -> NodeState:
    return replace(state, unknown=f"{event.found_type} v{event.found_version}")


STEPS: dict[type[e.Event], Callable[[NodeState, Any, int], NodeState]] = {
    e.NodeRegistered: _registered,
    e.NodeRehomed: _rehomed,
    e.MachineObserved: _observed,
    e.NodeConfigured: _configured,
    e.Cordoned: _cordoned,
    e.Uncordoned: _uncordoned,
    e.ClaimHeld: _held,
    e.ClaimConfirmed: _confirmed,
    e.ClaimBound: _bound,
    e.ClaimRenewed: _renewed,
    e.ClaimDraining: _draining,
    e.ClaimEnded: _ended,
    e.UnitsReturned: _returned,
    e.UnitsRetained: _units_kept,
    e.UnitsPassed: _passed,
    e.UnitsNamed: _named,
    e.LegOpened: _leg_opened,
    e.LegClosed: _leg_closed,
    e.NodeRetired: _retired,
    e.NodeRestored: _restored,
    e.NodeHosted: _hosted,
    e.NodeProvided: _provided,
    e.FindingsChanged: _found,
    e.InstanceCreated: _elsewhere,
    e.StateReported: _elsewhere,
    e.MoveOpened: _elsewhere,
    e.MoveEnded: _elsewhere,
    e.UnknownEvent: _not_understood,
}


def recomputed(state: NodeState) -> NodeState:
    """Return the state with everything derived computed anew from claims, quarantines, machine and settings."""
    layout = build_layout(state.machine, state.settings, state.provided, strict=False) if state.machine is not None else None
    return msgspec.structs.replace(state, layout=layout, free=state.free.recompute(state.grants()))
