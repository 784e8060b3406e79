"""What becomes of devices that are for one use when their claim ends: they are quarantined, and only a person gives them back (P25).

Rules of this file: pure; a claim's other units and amounts are free in the same append. A device that is not there when its claim ends is
treated as one of these if a rule for such devices could match it, by what is known of it: its name, vendor and product.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from earmark.core.fit.devices.policy import NAMED, could_match
from earmark.core.ledger import events as e
from earmark.core.ledger.state import NodeState
from earmark.core.model.claim import Claim
from earmark.core.model.grant import UnitRow
from earmark.core.model.ids import UnitId

REASON = "it is for one use; earmark return gives it back"
GONE_REASON = "it may be for one use and was not there when its claim ended; earmark return gives it back"


def with_used_up(state: NodeState, events: Iterable[e.Event]) -> tuple[e.Event, ...]:
    """Return events with each free end of a claim that holds devices for one use made one that keeps those in quarantine."""
    found: list[e.Event] = []
    for event in events:
        claim = state.claims.get(event.claim) if isinstance(event, e.ClaimEnded) and not event.quarantined else None
        if isinstance(event, e.ClaimEnded) and claim is not None and claim.purpose != "foreign":  # decide_foreign knows what of it is over
            found += end_of(state, claim, event)
        else:
            found.append(event)
    return tuple(found)


def end_of(state: NodeState, claim: Claim, event: e.ClaimEnded) -> tuple[e.Event, ...]:
    """Return what is recorded for the free end of a claim: the end alone, or with what stays in quarantine."""
    kept = used_up(state, claim)
    if not kept:
        return (event,)
    ended = e.ClaimEnded(
        claim=event.claim,
        purpose=event.purpose,
        move=event.move,
        leg=event.leg,
        cause=event.cause,
        evidence=event.evidence,
        quarantined=True,
    )
    freed = tuple(row.unit for row in claim.grant.units if row.unit not in kept)
    reason = REASON if state.missing.isdisjoint(kept) else GONE_REASON
    return ended, e.UnitsRetained(claim=claim.id, units=kept, freed=freed, reason=reason)


def used_up(state: NodeState, claim: Claim) -> tuple[UnitId, ...]:
    """Return the devices of a claim that are for one use."""
    if not any(rule.one_time_use for rule in state.settings.device_rules):
        return ()
    return tuple(row.unit for row in claim.grant.units if _is_used_up(state, row))


def said(events: Iterable[e.Event]) -> Iterator[str]:
    """Yield, for an answer, what stays in quarantine."""
    for event in events:
        if isinstance(event, e.UnitsRetained):
            yield f"{', '.join(event.units)} {'stays' if len(event.units) == 1 else 'stay'} in quarantine: {event.reason}"


def _is_used_up(state: NodeState, row: UnitRow) -> bool:
    if row.use != "device" or row.unit.startswith(NAMED):
        return False
    device = state.layout.known.get(row.unit) if state.layout is not None else None
    if device is not None:
        return device.one_time_use
    rules = state.settings.device_rules
    return row.unit in state.missing and any(rule.one_time_use and could_match(rule, row.unit, row.identity) for rule in rules)
