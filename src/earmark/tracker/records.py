"""What comes from outside: records of a compute service, compared with the ledger before anything is believed.

Rules of this file: all records are read and judged before the first is carried out; each is judged alone and gets exactly one verdict; a record
is matched by id, never by its time (W14); it never replaces what is accounted for. A listing ends what is not in it only on nodes for which
it is said to be complete, and only if every record of it was understood.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from earmark.core.ledger import commands as c
from earmark.core.ledger.consumer import ConsumerState
from earmark.core.model import ids
from earmark.core.model.claim import Claim
from earmark.core.model.guest import GUESTS_MAX, Guest
from earmark.core.model.ids import ConsumerId, NodeId
from earmark.core.model.instance import FREEING, Leg, Move
from earmark.core.model.record import (
    BEGUN,
    FINISHED,
    RECORD_BYTES_MAX,
    RECORDS_MAX,
    GuestRecord,
    InstanceRecord,
    Listing,
    MoveRecord,
    Record,
)
from earmark.errors import Conflict, EarmarkError, InvalidRecord, InvalidRequest, LedgerBroken, Unavailable, UnknownMove, UnknownNode
from earmark.tracker.fresh import new_claim
from earmark.tracker.remembering import remember
from earmark.tracker.verdicts import Judged, Kind, Known, Received, Verdict, about, shown, some
from earmark.tracker.work import encoded

if TYPE_CHECKING:
    from earmark.tracker.tracker import Tracker

ENDINGS: Mapping[str, str] = {
    "confirmed": "confirm", "completed": "confirm", "done": "confirm", "reverted": "revert", "aborted": "abort",
}  # fmt: skip
"""The words that end a move, and what is done about an open one if that is asked for.

That it failed, or was cancelled, does not say where its guest is now: both legs stay until somebody says so (S17).
"""
SAME_OUTCOME: Mapping[str, frozenset[str]] = {
    "confirmed": frozenset({"confirmed", "completed", "done"}),
    "reverted": frozenset({"reverted"}),
    "aborted": frozenset({"aborted", "failed", "cancelled"}),
    "expired": frozenset({"expired", "failed", "cancelled"}),
    "deleted": frozenset({"deleted", "cancelled"}),
}
"""The words that say the same as an outcome of ours."""

_decoder: msgspec.json.Decoder[Record] = msgspec.json.Decoder(Record)


def receive(
    tracker: Tracker, records: Iterable[object], *, complete: Sequence[str] = (), all_guests: Sequence[str] = (), apply: bool = False
) -> Received:  # fmt: skip
    """Judge records (JSON, dicts or structs) and carry out those that are accepted; see `Tracker.receive`."""
    listed = [tracker.node(ids.name(name, "node")).node for name in complete]
    looked_at = [tracker.node(ids.name(name, "node")).node for name in all_guests]
    states = tracker.instances()
    uuids = {state.instance.uuid: state.consumer for state in states}
    known = Known({state.consumer: state for state in states}, uuids, tracker.clock.now_ms())
    said: dict[str, Record] = {}
    guests: dict[NodeId, dict[str, Guest]] = {node: {} for node in looked_at}
    mentioned: set[ConsumerId] = set()
    judged = []
    for place, raw in enumerate(records, 1):
        if place > RECORDS_MAX:
            raise InvalidRecord(f"more than {RECORDS_MAX} records are given at once")
        verdict = _isolated(raw, lambda record: _judge(tracker, record, known, said, guests, mentioned, apply=apply))
        judged.append((place, verdict))
    lacking = "" if all(verdict.kind != "invalid" for _, verdict in judged) else "a record of it was not understood"
    leaving = _lacking(tracker, known, listed, mentioned, known.at_ms) if listed and not lacking else ()
    verdicts: dict[str, list[Verdict]] = {}
    ended = []
    for place, each in judged:
        kind, done = _carried_out(place, each)
        verdicts.setdefault(kind, []).append(done)
        ended.append((each, kind, done.reason))
    for consumer in leaving:
        act = _deletion(tracker, [consumer]) if apply else None
        kind, done = _carried_out(0, Judged("gone", f"instance {shown(consumer)}", "" if apply else "it stays, apply was not said", act))
        verdicts.setdefault(kind, []).append(done)
    if not (lacking and looked_at):
        for node, seen in guests.items():
            look = Judged("accepted", f"guests on {node}", act=_look(tracker, node, tuple(seen.values()), complete=node in looked_at))
            kind, done = _carried_out(0, look)
            verdicts.setdefault(kind, []).extend([] if kind == "accepted" else [done])
    remember(tracker, known, ended)
    found = {kind: tuple(each) for kind, each in verdicts.items()}
    return msgspec.structs.replace(Received(listing=lacking if listed or looked_at else ""), **found)


def guests_seen(tracker: Tracker, node: str, guests: Sequence[Guest], *, complete: bool) -> c.Answer:
    """Tell the ledger which guests run on a node; see `Tracker.guests_seen`."""
    for guest in guests:
        _checked_guest(guest)
    names = {guest.consumer for guest in guests}
    if len(names) != len(guests) or len(guests) > GUESTS_MAX:
        raise InvalidRequest(f"a look shows each guest once, and at most {GUESTS_MAX}", found=len(guests))
    at = tracker.node(node).node
    tracker.keep_look(at, names, complete=complete)
    return tracker.tell(c.SeeGuests(node=at, guests=tuple(guests), claims=tuple(new_claim() for _ in guests), complete=complete))


# --- judging one record -------------------------------------------------------------------------------------------------------------


def _isolated(raw: object, judge: Callable[[Record], Judged]) -> Judged:
    """Return the verdict on one record; whatever is wrong with it is a verdict, only the world's faults are raised."""
    try:
        record = _read(raw)
    except (msgspec.DecodeError, RecursionError, InvalidRequest, InvalidRecord, UnicodeError) as error:
        return Judged("invalid", "record", shown(str(error)))
    what = about(record)
    try:
        return judge(record)._replace(record=record)
    except Unavailable:
        raise
    except UnknownNode as error:
        return Judged("unknown", what, shown(error.message), record=record)
    except (InvalidRequest, InvalidRecord) as error:
        return Judged("invalid", what, shown(error.message), record=record)
    except (Conflict, LedgerBroken) as error:
        return Judged("contradictory", what, shown(error.message), record=record)


def _read(raw: object) -> Record:
    if isinstance(raw, str):
        raw = raw.encode("utf-8", "surrogatepass")
    text = bytes(raw) if isinstance(raw, bytes | bytearray | memoryview) else encoded(raw)
    if len(text) > RECORD_BYTES_MAX:
        raise InvalidRecord(f"a record of {len(text)} bytes is longer than {RECORD_BYTES_MAX}")
    record = _decoder.decode(text)
    for what, value in _names(record):
        ids.name(value, what)
    if isinstance(record, MoveRecord):
        ids.move_id(record.move)
    return record


def _names(record: Record) -> Iterable[tuple[str, str]]:
    for what in ("consumer", "owner", "uuid", "name", "kind", "task", "node", "source", "destination"):
        value = getattr(record, what, None)
        if value is not None:
            yield what, value
    if isinstance(record, GuestRecord):
        _checked_guest(record.guest)
    if isinstance(record, Listing):
        yield from (("consumer", consumer) for consumer in record.consumers)


def _checked_guest(guest: Guest) -> None:
    ids.name(guest.consumer, "consumer")
    ids.name(guest.owner, "owner")
    for unit in guest.units:
        ids.unit_id(unit)


def _judge(
    tracker: Tracker, record: Record, known: Known, said: dict[str, Record], guests: dict[NodeId, dict[str, Guest]], mentioned: set[ConsumerId], *,
    apply: bool,
) -> Judged:  # fmt: skip
    if isinstance(record, Listing):
        mentioned.update(known.named(consumer) for consumer in record.consumers)
    elif not isinstance(record, GuestRecord):
        mentioned.add(known.named(record.consumer))
    what = about(record)
    first = said.setdefault(what, record)
    if first is not record:
        if first == record:
            return Judged("accepted", what, "was said before in the same batch")
        return Judged("contradictory", what, "another record of the same batch says otherwise")
    if isinstance(record, GuestRecord):
        seen = guests.setdefault(tracker.node(record.node).node, {})
        again = seen.setdefault(record.guest.consumer, record.guest) is not record.guest
        return Judged("contradictory" if again else "accepted", what, "it was seen before in the same batch" if again else "")
    if isinstance(record, InstanceRecord):
        return _instance(tracker, record, known)
    if isinstance(record, Listing):
        return _listing(tracker, record, known, apply=apply)
    return _move(tracker, record, known, apply=apply)


def _instance(tracker: Tracker, record: InstanceRecord, known: Known) -> Judged:
    what = about(record)
    consumer = known.named(record.consumer)
    state = known.consumers.get(consumer)
    claims = [claim for claim in tracker.claims_of(consumer) if claim.purpose != "foreign"]
    node = tracker.node(record.node).node if record.node is not None else None
    if state is None and not claims:
        return Judged("unknown", what, "it has claimed nothing here and has no record; nothing is counted for it")
    wrong = _other_identity(record, state, claims)
    if wrong:
        return Judged("contradictory", what, wrong)
    if state is not None and state.instance.state == "deleted" and record.state != "deleted":
        return Judged("stale", what, "it is deleted")
    if node is not None:
        lasting = [claim for claim in claims if claim.phase != "draining"]
        here = [claim for claim in lasting if claim.node == node]
        if not here and (lasting or record.state not in FREEING):
            places = ", ".join(sorted({claim.node for claim in lasting})) or "nowhere"
            return Judged("contradictory", what, f"it holds nothing on node {shown(str(record.node))}, but {places}")
    else:
        here = claims
    main = next((claim for claim in here if claim.purpose == "main"), here[0] if here else None)
    aged = _aged(record.generation, main)
    if aged is not None:
        return Judged(aged[0], what, aged[1])

    def act() -> tuple[bool, str]:
        answer = tracker.report(consumer, record.state, task=record.task)
        return answer.changed, answer.message

    return Judged("accepted", what, act=act)


def _other_identity(record: InstanceRecord, state: ConsumerState | None, claims: Sequence[Claim]) -> str:
    """Return what a record says of who the instance is, and the ledger otherwise."""
    owners = {state.instance.owner} if state is not None else {claim.owner for claim in claims}
    if record.owner not in owners:
        return "it is not of that owner"
    if state is not None and record.uuid is not None and record.uuid != state.instance.uuid:
        return f"its uuid is {state.instance.uuid}"
    if state is not None and record.kind is not None and record.kind != state.instance.kind:
        return f"it is known as {shown(state.instance.kind)}"
    return ""


def _aged(generation: int | None, claim: Claim | None) -> tuple[Kind, str] | None:
    """Return what is wrong with the generation that a record names, None if nothing is."""
    if generation is None or (claim is not None and generation == claim.generation):
        return None
    if claim is None:
        return "stale", f"it knows generation {generation} of a claim that is over"
    what = f"claim {claim.id} has generation {claim.generation}, the record knows {generation}"
    return ("stale" if generation < claim.generation else "contradictory"), what


def _move(tracker: Tracker, record: MoveRecord, known: Known, *, apply: bool) -> Judged:
    what = about(record)
    consumer = known.named(record.consumer)
    state = known.consumers.get(consumer)
    nodes = [tracker.node(name).node if name is not None else None for name in (record.source, record.destination)]
    try:
        found = tracker.find_move(record.move)
        move = found if found.id == record.move else None  # else a consumer has that name
    except UnknownMove:
        move = None
    if move is None:
        now = f"; its open move is {state.move.id}" if state is not None and state.move is not None else ""
        return Judged("unknown", what, f"no such move is known{now}; nothing is counted for it")
    if move.consumer != consumer:
        return Judged("contradictory", what, "it is a move of another instance")
    if state is not None and record.owner is not None and record.owner != state.instance.owner:
        return Judged("contradictory", what, "its instance is not of that owner")
    if record.kind is not None and record.kind != move.kind:
        return Judged("contradictory", what, f"it is a {move.kind}")
    for given, own, side in zip(nodes, (move.source, move.destination), ("source", "destination"), strict=True):
        if given is not None and given != own:
            return Judged("contradictory", what, f"its {side} is {own or 'in another ledger'}")
    if move.outcome is not None:
        if record.status in SAME_OUTCOME[move.outcome]:
            return Judged("accepted", what, f"was {move.outcome} already")
        return Judged("stale", what, f"it was {move.outcome}; nothing is counted for it")
    return _aged_legs(tracker, move, record) or _compared(tracker, move, record, apply=apply)


def _aged_legs(tracker: Tracker, move: Move, record: MoveRecord) -> Judged | None:
    live = {claim.id: claim for claim in tracker.claims_of(move.consumer)}
    pair = move.legs[0]
    sides: tuple[tuple[int | None, Leg | None], ...] = (
        (record.source_generation, pair.source),
        (record.destination_generation, pair.destination),
    )
    for generation, leg in sides:
        aged = _aged(generation, live.get(leg.claim)) if leg is not None else None
        if aged is not None:
            return Judged(aged[0], about(record), aged[1])
    return None


def _compared(tracker: Tracker, move: Move, record: MoveRecord, *, apply: bool) -> Judged:
    """Compare the word of an open move with what its legs say; an ending is carried out only if that was asked for."""
    what = about(record)
    status = tracker.move_status(move)
    if status == "contradictory":
        return Judged("contradictory", what, "its legs contradict each other; earmark audit tells more")
    if record.status in BEGUN:
        same = status == "preparing" or record.status == "error"
        return Judged("accepted", what) if same else Judged("stale", what, f"its legs say {status}")
    if record.status in FINISHED and status == "finished":
        return Judged("accepted", what)
    how = ENDINGS.get(record.status)
    if how is None or not apply or (how == "abort" and status == "finished"):
        return Judged("contradictory", what, f"the record says {record.status}, its legs say {status}; nothing is moved by a word")
    steps = {"confirm": tracker.confirm_move, "revert": tracker.revert_move, "abort": tracker.abort_move}

    def act() -> tuple[bool, str]:
        answer = steps[how](move.id)
        return answer.changed, answer.message

    return Judged("accepted", what, act=act)


def _listing(tracker: Tracker, record: Listing, known: Known, *, apply: bool) -> Judged:
    """Compare which instances are on a node with what holds something there; who is missing in a complete listing is deleted with `apply`."""
    what = about(record)
    node = tracker.node(record.node).node
    listed = {known.named(consumer) for consumer in record.consumers}
    if len(listed) != len(record.consumers):
        return Judged("invalid", what, "an instance is listed twice")
    here = {claim.consumer for claim in tracker.node(node).live() if claim.purpose != "foreign" and claim.phase != "draining"}
    at_ms = known.at_ms if record.at_ms is None else record.at_ms - 1
    missing = _lacking(tracker, known, [node], listed, at_ms) if record.complete else ()
    strangers = sorted(listed - here)
    reasons = [f"{some(list(missing))} hold something there and are not listed"] if missing and not apply else []
    reasons += [f"{some([str(each) for each in strangers])} are listed and hold nothing there"] if strangers else []
    act = _deletion(tracker, missing) if missing and apply else None
    return Judged("contradictory" if reasons else "accepted", what, "; ".join(reasons), act)


# --- carrying out -------------------------------------------------------------------------------------------------------------------


def _carried_out(place: int, judged: Judged) -> tuple[Kind, Verdict]:
    """Do what an accepted record asks for; what has changed since it was judged is a verdict too."""
    if judged.act is None:
        return judged.kind, Verdict(place=place, about=judged.about, reason=judged.reason)
    try:
        changed, message = judged.act()
    except Unavailable:
        raise
    except EarmarkError as error:
        return "contradictory", Verdict(place=place, about=judged.about, reason=shown(error.message))
    return judged.kind, Verdict(place=place, about=judged.about, reason="; ".join(filter(None, (judged.reason, message))), changed=changed)


def _deletion(tracker: Tracker, consumers: Sequence[ConsumerId]) -> Callable[[], tuple[bool, str]]:
    def act() -> tuple[bool, str]:
        done = [tracker.delete(consumer, reason="it is not in a complete listing of its node") for consumer in consumers]
        return any(answer.changed for answer in done), f"deleted: {some(list(consumers))}"

    return act


def _look(tracker: Tracker, node: NodeId, guests: tuple[Guest, ...], *, complete: bool) -> Callable[[], tuple[bool, str]]:
    def act() -> tuple[bool, str]:
        answer = guests_seen(tracker, node, guests, complete=complete)
        return answer.changed, answer.message

    return act


def _lacking(
    tracker: Tracker, known: Known, listed: Sequence[NodeId], mentioned: set[ConsumerId], at_ms: int
) -> tuple[ConsumerId, ...]:  # fmt: skip
    """Return the instances that hold something confirmed on the listed nodes, and on no other, and that the listing lacks.

    Claims of consumers without a record are no business of a compute service; what is still being built, or was claimed after
    `at_ms`, may be younger than the listing; what is in a move is on two nodes, or on its way.
    """
    found = []
    for consumer, state in sorted(known.consumers.items()):
        if consumer in mentioned or state.instance.kind != "instance" or state.instance.state in ("deleted", "building"):
            continue
        if state.move is not None:
            continue
        try:
            claims = [claim for claim in tracker.claims_of(consumer) if claim.purpose != "foreign"]
        except (LedgerBroken, InvalidRecord):
            continue
        known_then = all(claim.node in listed and claim.held_at_ms <= at_ms for claim in claims)
        if claims and known_then and any(claim.phase == "confirmed" for claim in claims):
            found.append(ConsumerId(consumer))
    return tuple(found)
