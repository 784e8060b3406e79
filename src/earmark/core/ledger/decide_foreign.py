"""What was seen on a node and what the ledger makes of it: foreign claims, overlaps, remembered findings.

Rules of this file: what is used is a fact, not a wish: a foreign claim is never refused, it may exceed every capacity, and it takes only units that
nobody holds. A unit that somebody holds is contested: a finding names both, nothing is taken away. Who is not in a complete look is gone;
a partial look ends nothing. A consumer that claims properly loses its foreign claim at the next look.
"""

from __future__ import annotations

from collections.abc import Mapping

from earmark.core.fit.free import CPU_PREFIX
from earmark.core.fit.layout import ROOT_DISK
from earmark.core.ledger import commands as c
from earmark.core.ledger import events as e
from earmark.core.ledger.decision import Decision, Facts, about
from earmark.core.ledger.one_use import end_of, used_up
from earmark.core.ledger.remembering import identified
from earmark.core.ledger.state import NodeState
from earmark.core.model.claim import Claim
from earmark.core.model.finding import Finding, in_order
from earmark.core.model.grant import AmountRow, Grant, UnitRow, Use
from earmark.core.model.guest import Guest
from earmark.core.model.ids import MEMORY, VCPU, ClaimId, ConsumerId, Slot, UnitId, disk_pool
from earmark.core.model.request import Request
from earmark.errors import InvalidRequest

GUESTS_SOURCE = "guests"
"""The source of the findings that looking at guests leads to."""


def see_guests(state: NodeState, command: c.SeeGuests, _facts: Facts) -> Decision:
    """Turn guests that hold no claim here into foreign claims, end those of guests that are gone, and name what is contested."""
    if len(command.claims) < len(command.guests):
        raise InvalidRequest(f"{len(command.guests)} guests are seen with {len(command.claims)} claim ids", found=len(command.claims))
    seen = {guest.consumer: guest for guest in command.guests}
    if len(seen) != len(command.guests):
        raise InvalidRequest("a guest is seen twice in one look", found=len(command.guests))
    proper = {claim.consumer for claim in state.claims.values() if claim.purpose != "foreign"}
    foreign = {claim.consumer: claim for claim in state.live() if claim.purpose == "foreign"}
    events: list[e.Event] = []
    taken = dict(state.free.slots)
    touched: list[ClaimId] = []
    for consumer, claim in sorted(foreign.items()):
        why = _over(claim, seen.get(consumer), known=consumer in proper, complete=command.complete)
        if why is not None:
            ended = e.ClaimEnded(**about(claim), cause="released", evidence=why)
            over = consumer not in proper and consumer not in seen
            events += end_of(state, claim, ended) if over else (ended,)
            touched.append(claim.id)
            kept = {slot for row in claim.grant.units if over and row.unit in used_up(state, claim) for slot in row.occupied}
            taken = {slot: holder for slot, holder in taken.items() if holder != claim.id or slot in kept}
            del foreign[consumer]
    overlaps: list[Finding] = []
    names = {claim.id: claim.consumer for claim in state.claims.values()}
    for guest, new in zip(sorted(command.guests, key=lambda each: each.consumer), command.claims, strict=False):
        if guest.consumer in proper:
            continue
        held = foreign.get(guest.consumer)
        grant, contested = _grant(state, guest, taken, own=held.id if held is not None else None)
        overlaps += [_overlap(state, guest, unit, holder, names.get(holder)) for unit, holder in contested]
        if held is not None and grant != held.grant:  # what it uses is no longer contested, or is there again
            events.append(e.ClaimEnded(**about(held), cause="released", evidence="more of what it uses is free"))
            touched.append(held.id)
            taken = {slot: holder for slot, holder in taken.items() if holder != held.id}
            held = None
        if held is None:
            events.append(
                e.ClaimHeld(
                    claim=new, consumer=guest.consumer, owner=guest.owner, request=asked(guest), grant=grant, purpose="foreign", deadline_ms=None
                )
            )  # fmt: skip
            touched.append(new)
            names[new] = guest.consumer
            taken |= {slot: new for row in grant.units for slot in row.occupied}
    known = overlaps if command.complete else [*_others(state, seen), *overlaps]
    remembered = in_order(tuple(known))
    if remembered != state.findings.get(GUESTS_SOURCE, ()):
        events.append(e.FindingsChanged(source=GUESTS_SOURCE, findings=remembered))
    said = "" if events else "nothing new is seen"
    return Decision(events=tuple(events), outcome="observed", message=said, touched=tuple(touched))


def asked(guest: Guest) -> Request:
    """Return what a guest uses as if it had asked for it."""
    return Request(vcpus=guest.vcpus, memory_bytes=guest.memory_bytes, disk_bytes=guest.disk_bytes)


def _over(claim: Claim, guest: Guest | None, *, known: bool, complete: bool) -> str | None:
    """Return why a foreign claim ends, None if it stays."""
    if known:
        return "it holds a claim of its own now"
    if guest is None:
        return "it is not seen any more" if complete else None
    mine = {row.unit for row in claim.grant.units}
    other = asked(guest) != claim.request or not mine <= set(guest.units)
    return "it is seen with other resources" if other else None


def _grant(state: NodeState, guest: Guest, taken: dict[Slot, ClaimId], own: ClaimId | None) -> tuple[Grant, list[tuple[UnitId, ClaimId]]]:
    """Return what a guest takes of what nobody holds, and the units that it uses although somebody holds them."""
    present = state.present
    slots = state.layout.slots if state.layout is not None else {}
    rows: list[UnitRow] = []
    contested = []
    mine: set[Slot] = set()
    for unit in sorted(set(guest.units)):
        if unit not in present:
            continue
        occupied = slots.get(unit, (Slot(unit),))
        holder = next((taken[slot] for slot in occupied if slot in taken and taken[slot] != own), None)
        if holder is not None:
            contested.append((unit, holder))
        elif mine.isdisjoint(occupied):
            mine.update(occupied)
            use: Use = "vcpu" if unit.startswith(CPU_PREFIX) else "device"
            rows.append(UnitRow(unit=unit, use=use, slots=() if occupied == (Slot(unit),) else tuple(occupied)))
    dedicated = sum(unit.startswith(CPU_PREFIX) for unit in dict.fromkeys(guest.units) if unit in present)
    amounts = {VCPU: guest.vcpus - dedicated, MEMORY: guest.memory_bytes, disk_pool(ROOT_DISK): guest.disk_bytes}
    listed = tuple(AmountRow(pool=pool, amount=amount) for pool, amount in sorted(amounts.items()) if amount > 0)
    return identified(Grant(units=tuple(rows), amounts=listed), state.layout), contested


def _others(state: NodeState, seen: Mapping[ConsumerId, Guest]) -> list[Finding]:
    """Return what is remembered of guests that were not seen now; what is contested of those that were is judged anew."""
    old = state.findings.get(GUESTS_SOURCE, ())
    return [each for each in old if not any(each.detail.startswith(_uses(name, each.unit)) for name in seen)]


def _uses(consumer: ConsumerId, unit: str | None) -> str:
    """Return how the finding that a guest uses a unit of somebody else begins."""
    return f"{consumer} uses {unit}, which "


def _overlap(state: NodeState, guest: Guest, unit: UnitId, holder: ClaimId, owner: ConsumerId | None) -> Finding:
    who = f"the quarantine of {holder}" if owner is None else owner
    detail = f"{_uses(guest.consumer, unit)}{who} holds ({holder})"
    return Finding(code="overlap", severity="warning", node=state.node, claim=holder, unit=unit, detail=detail)


def record_findings(state: NodeState, command: c.RecordFindings, _facts: Facts) -> Decision:
    """Remember what a source found about a node; the same findings again change nothing."""
    if command.source == GUESTS_SOURCE:
        raise InvalidRequest(f"the findings of {GUESTS_SOURCE} follow from a look at the guests", found=command.source)
    found = in_order(command.findings)
    if found == state.findings.get(command.source, ()):
        return Decision(outcome="observed", message="nothing new is found")
    return Decision(events=(e.FindingsChanged(source=command.source, findings=found),), outcome="observed")
