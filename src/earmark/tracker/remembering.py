"""What records contradict is remembered on the node concerned, so that an audit names it until it is resolved.

Rules of this file: a contradiction is remembered under what its record was about; the next record about the same replaces it, and it is dropped
when the claim that it speaks of is over. Nothing that is held depends on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from earmark.core.ledger import commands as c
from earmark.core.ledger.audit import MOVE_CONTRADICTED, RECORDS_SOURCE, standing
from earmark.core.model.claim import Claim
from earmark.core.model.finding import Finding, in_order
from earmark.core.model.ids import ClaimId, NodeId
from earmark.core.model.record import GuestRecord, InstanceRecord, Listing, MoveRecord, Record
from earmark.errors import EarmarkError, Unavailable
from earmark.tracker.verdicts import Judged, Kind, Known, about, shown

if TYPE_CHECKING:
    from earmark.core.ledger.state import NodeState
    from earmark.tracker.tracker import Tracker


def remember(tracker: Tracker, known: Known, ended: Sequence[tuple[Judged, Kind, str]]) -> None:
    """Remember the contradictions among some verdicts, each with its reason, and drop those that are resolved."""
    spoken: set[str] = set()
    found: dict[NodeId, dict[str, Finding]] = {}
    for judged, kind, reason in ended:
        if judged.record is None or isinstance(judged.record, GuestRecord) or kind not in ("accepted", "contradictory"):
            continue
        node, claim = _place(tracker, known, judged.record)
        subject = _subject(tracker, known, judged.record, node)
        spoken.add(subject)
        if kind == "contradictory" and node is not None:
            one = Finding(code=_code(judged.record), severity="warning", node=node, claim=claim, detail=subject + reason)
            found.setdefault(node, {})[subject] = one
    for state in tracker.survey().nodes:
        _replace(tracker, state, spoken, found.get(state.node, {}))


def _replace(tracker: Tracker, state: NodeState, spoken: set[str], new: dict[str, Finding]) -> None:
    old = state.findings.get(RECORDS_SOURCE, ())
    if state.unknown is not None or not (old or new):
        return
    kept = [each for each in standing(state) if not any(each.detail.startswith(subject) for subject in spoken)]
    after = in_order((*kept, *new.values()))
    if after != old:
        tracker.tell(c.RecordFindings(node=state.node, source=RECORDS_SOURCE, findings=after))


def _code(record: Record) -> str:
    match record:
        case MoveRecord():
            return MOVE_CONTRADICTED
        case Listing():
            return "unlisted"
    return "contradicted"


def _subject(tracker: Tracker, known: Known, record: Record, node: NodeId | None) -> str:
    """Return how a finding about something begins: by its one name, quoted so that none can be taken for the beginning of another."""
    named = about(record)
    if isinstance(record, InstanceRecord):
        named = f"instance {shown(known.named(record.consumer))}"
    elif isinstance(record, Listing) and node is not None:
        named = f"listing of {tracker.node(node).name}"
    return msgspec.json.encode(named).decode() + ": "


def _place(tracker: Tracker, known: Known, record: Record) -> tuple[NodeId | None, ClaimId | None]:
    """Return the node that a contradiction concerns, and the claim that it speaks of: where the ledger has it, else where the record has it."""
    try:
        match record:
            case InstanceRecord():
                claims = [claim for claim in tracker.claims_of(known.named(record.consumer)) if claim.purpose != "foreign"]
                return _main(claims) if claims else (tracker.node(record.node).node if record.node is not None else None, None)
            case MoveRecord():
                pair = tracker.find_move(record.move).legs[0]
                leg = pair.destination or pair.source
                return (leg.node, leg.claim) if leg is not None else (None, None)
            case Listing():
                return tracker.node(record.node).node, None
    except Unavailable:
        raise
    except EarmarkError:  # what cannot be read has no place
        return None, None
    return None, None


def _main(claims: Sequence[Claim]) -> tuple[NodeId, ClaimId]:
    main = next((claim for claim in claims if claim.purpose == "main"), claims[0])
    return main.node, main.id
