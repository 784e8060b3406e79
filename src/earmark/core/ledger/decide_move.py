"""How a move begins: which legs it has, what is held for it, and what it may not change on the way.

Rules of this file: pure; both legs keep their vectors while the move is open; a refused move changes nothing. On one host CPUs, pages and
amounts are claimed anew; a device that is wanted unchanged stays where it is, unless a grant is prescribed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import immutables

from earmark.core.fit.devices.policy import NAMED
from earmark.core.ledger import commands as c
from earmark.core.ledger import events as e
from earmark.core.ledger import life_commands as lc
from earmark.core.ledger.decide import place
from earmark.core.ledger.decide_life import Draft, create, end_move, report
from earmark.core.ledger.kept import not_worse, page_sizes, same_pages, with_kept_devices
from earmark.core.ledger.life_decision import LifeDecision, LifeFacts, World
from earmark.core.ledger.same_types import in_words, same_types, types_held
from earmark.core.ledger.state import NodeState
from earmark.core.model.claim import Claim
from earmark.core.model.grant import Grant
from earmark.core.model.ids import ClaimId, NodeId, UnitId, consumer_stream
from earmark.core.model.instance import Leg, LegPair
from earmark.core.model.refusal import Reason, ReasonCode, Refusal
from earmark.core.model.request import Request
from earmark.errors import Conflict, InvalidRequest, UnknownClaim

UNCHANGING = frozenset({"migration", "live_migration", "evacuation"})
"""Kinds of move that carry what there is: only a resize asks for something else (M3)."""


def decide_life(world: World, command: lc.LifeCommand, facts: LifeFacts) -> LifeDecision | Refusal:
    """Decide a command about a consumer on the states of all streams that it names.

    Raises an Invalid… where the command names what does not exist or makes no sense, Conflict where the world has moved on.
    """
    draft = Draft(world=immutables.Map(world), consumer_stream=consumer_stream(command.consumer), now_ms=facts.now_ms)
    return LIFE_RULES[type(command)](draft, command, facts)


def open_move(draft: Draft, command: lc.OpenMove, facts: LifeFacts) -> LifeDecision | Refusal:
    """Open a move and hold its destination legs (M1); the same move asked for again is answered."""
    known = draft.consumer
    if known is not None and (again := known.known_move(command.move)) is not None:
        if again.kind != command.kind or (again.source, again.destination) != (command.source, command.destination):
            raise Conflict(f"move {command.move} of {command.consumer} is another one", move=command.move)
        return draft.decision(again.outcome or "opened", f"was {again.outcome or 'opened'} already", move=again)
    if known is not None and known.move is not None:
        raise Conflict(
            f"consumer {command.consumer} is in move {known.move.id}; end that first", consumer=command.consumer, move=known.move.id
        )
    if command.source is None and command.destination is None:
        raise InvalidRequest(f"move {command.move} names no node of this ledger", move=command.move)
    held = _hold_legs(draft, command, facts)
    if isinstance(held, Refusal):
        return held
    draft = held
    if draft.consumer is None:
        draft = _made_known(draft, command)
    pairs = tuple(
        LegPair(
            source=Leg(node=command.source, claim=plan.source) if command.source is not None and plan.source is not None else None,
            destination=Leg(node=command.destination, claim=plan.destination)
            if command.destination is not None and plan.destination is not None
            else None,
        )
        for plan in command.legs
    )
    draft = draft.say(e.MoveOpened(move=command.move, kind=command.kind, legs=pairs, token=command.token))
    move = draft.consumer.move if draft.consumer is not None else None
    return draft.decision("opened", touched=tuple(leg.claim for pair in pairs for leg in (pair.source, pair.destination) if leg), move=move)


def _made_known(draft: Draft, command: lc.OpenMove) -> Draft:
    """Make a record for a consumer that had none; one whose claim was confirmed has been started."""
    draft = draft.say(e.InstanceCreated(consumer=command.consumer, uuid=command.uuid, name=command.consumer, owner=command.owner))
    main = draft.node(command.source).claims.get(command.legs[0].source or ClaimId("")) if command.source is not None else None
    started = main is not None and main.phase == "confirmed"
    return draft.say(e.StateReported(state="active", reason="its claim is confirmed")) if started else draft


def _hold_legs(draft: Draft, command: lc.OpenMove, facts: LifeFacts) -> Draft | Refusal:
    """Open the source legs and hold the destination legs, or return why that cannot be."""
    if command.source is not None:
        _check_sources(draft, command, facts)
    wrong = _policy(draft, command)
    if wrong is not None:
        return wrong
    for plan in command.legs:
        source = _source(draft, command, plan)
        if source is not None:
            draft = draft.note(source.node, e.LegOpened(claim=source.id, purpose=source.purpose, move=command.move, leg="source"))
        if command.destination is None or plan.destination is None:
            continue
        held = _hold_leg(draft, command, plan, source)
        if isinstance(held, Refusal):
            return held
        draft = held
    return draft


def _check_sources(draft: Draft, command: lc.OpenMove, facts: LifeFacts) -> None:
    """Raise Conflict unless the move takes along all that the consumer holds on the source node (on one host: its main claim)."""
    named = {plan.source for plan in command.legs}
    here = [placed for placed in facts.open if placed.node == command.source and placed.purpose in ("main", "attach")]
    if command.source == command.destination:
        here = [placed for placed in here if placed.purpose == "main"]
    missed = [placed.claim for placed in here if placed.claim not in named and not _drains(draft, placed.node, placed.claim)]
    if missed:
        raise Conflict(f"consumer {command.consumer} holds {missed[0]} too, which the move does not name", claim=missed[0])


def _drains(draft: Draft, node: NodeId, claim: ClaimId) -> bool:
    live = draft.node(node).claims.get(claim)
    return live is not None and live.phase == "draining"


def _source(draft: Draft, command: lc.OpenMove, plan: lc.LegPlan) -> Claim | None:
    """Return the claim that a leg leaves; raises UnknownClaim or Conflict if it cannot be left."""
    if command.source is None or plan.source is None:
        return None
    state = draft.node(command.source)
    claim = state.claims.get(plan.source)
    if claim is None:
        raise UnknownClaim(f"claim {plan.source} is not live on node {state.name}", claim=plan.source)
    if claim.consumer != command.consumer:
        raise InvalidRequest(f"claim {claim.id} is not of consumer {command.consumer}", claim=claim.id)
    if claim.phase == "draining" or claim.purpose not in ("main", "attach") or claim.move is not None:
        what = "draining" if claim.phase == "draining" else f"in move {claim.move}" if claim.move else f"of purpose {claim.purpose}"
        raise Conflict(f"claim {claim.id} cannot be moved, it is {what}", claim=claim.id)
    return claim


def _policy(draft: Draft, command: lc.OpenMove) -> Refusal | None:
    """Return why a move of this kind is not done between these nodes (M24, M26, M28), None if it may be tried."""
    source = draft.node(command.source) if command.source is not None else None
    destination = draft.node(command.destination) if command.destination is not None else None
    if source is not None and destination is not None and source.node == destination.node:
        if command.kind in ("live_migration", "evacuation"):
            raise InvalidRequest(f"a {command.kind.replace('_', ' ')} needs another node than {source.name}", node=source.node)
        allowed = {"resize": destination.settings.allow_resize_to_same_host, "migration": destination.settings.allow_migrate_to_same_host}
        if not allowed[command.kind]:
            setting = "allow_resize_to_same_host" if command.kind == "resize" else "allow_migrate_to_same_host"
            return _refusal(destination, "same_host", f"{command.kind} on one node is off: setting {setting}")
    for plan in command.legs:
        claim = _source(draft, command, plan)
        if claim is None:
            continue
        if command.kind in UNCHANGING and plan.request is not None and plan.request != claim.request:
            raise InvalidRequest(f"a {command.kind.replace('_', ' ')} carries what there is; a resize changes it", claim=claim.id)
        if command.kind == "live_migration" and source is not None:
            stuck = _stuck_devices(claim, source)
            if stuck:
                return _refusal(
                    source,
                    "not_live_migratable",
                    f"{', '.join(stuck)} cannot be live-migrated: setting live_migratable_kinds, or live_migratable of the device policy",
                )
    return None


def _stuck_devices(claim: Claim, source: NodeState) -> list[UnitId]:
    """Return the devices of a claim that cannot move while in use, by their kind or the node's device policy (M26). Named resources are given anew."""
    known = source.layout.known if source.layout is not None else {}
    devices = [known[row.unit] for row in claim.grant.units if row.unit in known and not row.unit.startswith(NAMED)]
    kinds = source.settings.live_migratable_kinds
    return sorted(device.unit for device in devices if not device.live_migratable and device.kind not in kinds)


def _hold_leg(draft: Draft, command: lc.OpenMove, plan: lc.LegPlan, source: Claim | None) -> Draft | Refusal:
    """Hold one destination leg."""
    if command.destination is None or plan.destination is None:
        return draft
    state = draft.node(command.destination)
    request = plan.request if plan.request is not None else source.request if source is not None else None
    if request is None:
        raise InvalidRequest(f"move {command.move} does not say what is to be held", move=command.move)
    if plan.destination in state.claims or plan.destination in state.quarantines:
        raise Conflict(f"claim {plan.destination} exists already", claim=plan.destination)
    if command.deadline_ms is not None and command.deadline_ms <= max(draft.now_ms, state.at_ms):
        raise InvalidRequest(f"the deadline of move {command.move} has passed already", move=command.move)
    here = source if source is not None and source.node == state.node else None
    before = page_sizes(source.grant) if source is not None else (command.page_kib,)
    live = command.kind == "live_migration"
    asked = same_pages(request, before) if live else request
    if live and source is not None:
        asked = same_types(asked, source, draft.node(source.node))
    named, found = _placed(state, command, plan, asked, here)
    if isinstance(found, Refusal):
        return found
    if live and source is not None and (types_held(source.grant) != types_held(found)):
        was, now = in_words(types_held(source.grant)), in_words(types_held(found))
        return _refusal(state, "not_live_migratable", f"a live migration keeps the types of mediated devices: {was} now, {now} there")
    after = page_sizes(found) if source is not None else page_sizes(found)[:1] or (None,)
    if live and after != before:
        return _refusal(state, "page_size", f"a live migration keeps the size of pages: {_pages(before)} now, {_pages(after)} there")
    draft = draft.note(
        state.node,
        e.ClaimHeld(
            claim=plan.destination, consumer=command.consumer, owner=command.owner, request=request, grant=found, purpose="leg",
            move=command.move, leg="destination", deadline_ms=command.deadline_ms, holders=command.holders,
        ),
    )  # fmt: skip
    if here is not None and named:
        draft = draft.note(state.node, e.UnitsNamed(source=here.id, target=plan.destination, units=named))
    return draft


def _placed(
    state: NodeState, command: lc.OpenMove, plan: lc.LegPlan, request: Request, here: Claim | None
) -> tuple[tuple[UnitId, ...], Grant | Refusal]:
    """Return the devices that a destination leg takes over and the rest of its grant, or why there is none."""
    if plan.destination is None:
        raise InvalidRequest(f"move {command.move} has a leg without a claim", move=command.move)
    if here is not None and plan.grant is None:
        kept = with_kept_devices(state, here, request)
        if kept is not None:
            return kept
    wish = c.HoldClaim(
        node=state.node, claim=plan.destination, consumer=command.consumer, owner=command.owner, request=request, grant=plan.grant,
        purpose="leg", move=command.move, leg="destination",
    )  # fmt: skip
    found = place(state, wish)
    if isinstance(found, Refusal) and here is not None and plan.grant is None and state.supply is not None and state.retired is None:
        return (), not_worse(state, here, request) or found
    return (), found


def _pages(sizes: tuple[int | None, ...]) -> str:
    return ", ".join("ordinary ones" if size is None else f"{size} KiB" for size in dict.fromkeys(sizes or (None,)))


def _refusal(state: NodeState, code: ReasonCode, detail: str) -> Refusal:
    return Refusal(reasons=(Reason(code=code, resource="move", unit=state.name, detail=detail),), node=state.name)


LifeRule = Callable[[Draft, Any, LifeFacts], LifeDecision | Refusal]

LIFE_RULES: dict[type[lc.LifeCommand], LifeRule] = {
    lc.CreateInstance: create,
    lc.ReportState: report,
    lc.OpenMove: open_move,
    lc.EndMove: end_move,
}
