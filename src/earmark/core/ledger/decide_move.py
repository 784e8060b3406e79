"""How a move begins: which legs it has, what is held for it, and what it may not change on the way.

Rules of this file: pure; both legs keep their vectors while the move is open; a refused move changes nothing. On one host CPUs, pages and
amounts are claimed anew; a device that is wanted unchanged stays where it is, unless a grant is prescribed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import immutables
from msgspec.structs import replace

from earmark.core.fit.fit import fit
from earmark.core.fit.layout import ROOT_DISK
from earmark.core.fit.memory import limit
from earmark.core.ledger import commands as c
from earmark.core.ledger import events as e
from earmark.core.ledger import life_commands as lc
from earmark.core.ledger.decide import place
from earmark.core.ledger.decide_life import Draft, create, end_move, report
from earmark.core.ledger.life_decision import LifeDecision, LifeFacts, World
from earmark.core.ledger.remembering import identified
from earmark.core.ledger.state import NODE_CORDON, NodeState
from earmark.core.model.claim import Claim
from earmark.core.model.grant import Grant
from earmark.core.model.ids import MEMORY, VCPU, ClaimId, NodeId, PoolId, UnitId, class_pool, consumer_stream, disk_pool
from earmark.core.model.instance import Leg, LegPair
from earmark.core.model.refusal import Reason, ReasonCode, Refusal
from earmark.core.model.request import DeviceRequest, Request
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
                return _refusal(source, "not_live_migratable", f"{', '.join(stuck)} cannot be live-migrated: setting live_migratable_kinds")
    return None


def _stuck_devices(claim: Claim, source: NodeState) -> list[UnitId]:
    """Return the devices of a claim whose kind is not among those that can move while in use (M26)."""
    known = source.layout.known if source.layout is not None else {}
    kinds = {row.unit: known[row.unit].kind for row in claim.grant.units if row.unit in known}
    return sorted(unit for unit, kind in kinds.items() if kind not in source.settings.live_migratable_kinds)


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
    named = kept_devices(request, here, state) if here is not None and plan.grant is None else ()
    found = _placed(state, command, plan, request, here, named)
    if isinstance(found, Refusal):
        return found
    before = page_size(source.grant) if source is not None else command.page_kib
    if command.kind == "live_migration" and page_size(found) != before:
        return _refusal(
            state, "page_size", f"a live migration keeps the size of pages: {_pages(before)} now, {_pages(page_size(found))} there"
        )
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
    state: NodeState, command: lc.OpenMove, plan: lc.LegPlan, request: Request, here: Claim | None, named: tuple[UnitId, ...]
) -> Grant | Refusal:  # fmt: skip
    """Return the grant of a destination leg, without the devices that it takes over, or why there is none."""
    if plan.destination is None:
        raise InvalidRequest(f"move {command.move} has a leg without a claim", move=command.move)
    asked = without_devices(request, named, state) if named else request
    if named and is_nothing(asked):
        return Grant()
    wish = c.HoldClaim(
        node=state.node, claim=plan.destination, consumer=command.consumer, owner=command.owner, request=asked, grant=plan.grant,
        purpose="leg", move=command.move, leg="destination",
    )  # fmt: skip
    found = place(state, wish)
    if isinstance(found, Refusal) and here is not None and plan.grant is None and state.supply is not None and state.retired is None:
        return not_worse(state, here, asked) or found
    return found


def not_worse(state: NodeState, here: Claim, asked: Request) -> Grant | None:
    """Return a grant for a resize on an overcommitted node that asks of no overcommitted pool for more than the instance holds now (S45).

    C10: what does not worsen an existing overage is admitted. Both legs count until the move ends.
    """
    supply = state.supply
    if supply is None or NODE_CORDON in state.cordons:
        return None
    wanted = _floating(asked)
    used = state.free.used
    for stock in supply.layout.inventories(state.free):
        pool = PoolId(stock.pool)
        if stock.admits(0, stock.used) or not wanted.get(pool):
            continue
        if wanted[pool] > here.grant.amount(pool):
            return None
        used = used.set(pool, limit(stock) - wanted[pool])
    if used is state.free.used:
        return None
    found = fit(asked, replace(supply, free=replace(state.free, used=used)))
    return identified(found, supply.layout) if isinstance(found, Grant) else None


def _floating(asked: Request) -> dict[PoolId, int]:
    """Return what a request takes from the pools that float over the node."""
    wanted = {
        VCPU: asked.vcpus if asked.cpu_policy == "shared" else 0,
        MEMORY: asked.memory_bytes if asked.page_kib is None else 0,
        disk_pool(ROOT_DISK): asked.disk_bytes,
    }
    return wanted | {class_pool(item.resource_class): item.amount for item in asked.resources}


def page_size(grant: Grant) -> int | None:
    """Return the size of a guest's pages in KiB as its first cell has it (M24, H5), None for ordinary memory."""
    return grant.cells[0].page_kib if grant.cells else None


def _pages(size_kib: int | None) -> str:
    return "ordinary ones" if size_kib is None else f"{size_kib} KiB"


def kept_devices(request: Request, here: Claim, state: NodeState) -> tuple[UnitId, ...]:
    """Return the devices of the source leg that a resize on the same node wants unchanged: they stay where they are (W24, S40)."""
    known = state.layout.known if state.layout is not None else {}
    wanted = _once(request)
    had = _once(here.request)
    kept: list[UnitId] = []
    for kind, device in sorted(wanted.items()):
        before = had.get(kind)
        if before is None or replace(before, count=device.count) != device:
            continue
        held = sorted(row.unit for row in here.grant.units if row.unit in known and known[row.unit].kind == kind)
        kept += held[: device.count]
    return tuple(kept)


def _once(request: Request) -> dict[str, DeviceRequest]:
    """Return the devices of each kind that a request names in one place only: of others it cannot be told which device is whose."""
    kinds = [device.kind for device in request.devices]
    return {device.kind: device for device in request.devices if kinds.count(device.kind) == 1}


def without_devices(request: Request, named: tuple[UnitId, ...], state: NodeState) -> Request:
    """Return a request less the devices that are there already."""
    known = state.layout.known if state.layout is not None else {}
    kinds = [known[unit].kind for unit in named if unit in known]
    left = [(device, device.count - kinds.count(device.kind)) for device in request.devices]
    return replace(request, devices=tuple(replace(device, count=count) for device, count in left if count > 0))


def is_nothing(request: Request) -> bool:
    """Say whether a request asks for no amount and no unit at all."""
    return not (request.vcpus or request.memory_bytes or request.disk_bytes or request.resources or request.devices)


def _refusal(state: NodeState, code: ReasonCode, detail: str) -> Refusal:
    return Refusal(reasons=(Reason(code=code, resource="move", unit=state.name, detail=detail),), node=state.name)


LifeRule = Callable[[Draft, Any, LifeFacts], LifeDecision | Refusal]

LIFE_RULES: dict[type[lc.LifeCommand], LifeRule] = {
    lc.CreateInstance: create,
    lc.ReportState: report,
    lc.OpenMove: open_move,
    lc.EndMove: end_move,
}
