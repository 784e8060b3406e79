"""What comes from outside: records of a compute service, compared with the ledger before anything is believed.

Rules of this file: all records are read and judged before the first is carried out; each is judged alone and gets exactly one verdict; a record
is matched by id, never by its time (W14); it never replaces what is accounted for. A listing ends what is not in it only on nodes for which
it is said to be complete, and only if every record of it was understood.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec

from earmark.core.ledger import commands as c
from earmark.core.ledger.consumer import ConsumerState
from earmark.core.model import ids
from earmark.core.model.claim import Claim
from earmark.core.model.guest import Guest
from earmark.core.model.ids import ConsumerId, NodeId
from earmark.core.model.instance import Leg, Move
from earmark.core.model.record import (
    BEGUN,
    FINISHED,
    RECORD_BYTES_MAX,
    RECORDS_MAX,
    GuestRecord,
    InstanceRecord,
    MoveRecord,
    Record,
)
from earmark.core.model.value import Value
from earmark.errors import Conflict, EarmarkError, InvalidRecord, InvalidRequest, LedgerBroken, Unavailable, UnknownMove, UnknownNode
from earmark.tracker.lives import new_claim
from earmark.tracker.work import encoded

if TYPE_CHECKING:
    from earmark.tracker.tracker import Tracker

Kind = Literal["accepted", "stale", "contradictory", "unknown", "invalid", "gone"]
ENDINGS: Mapping[str, str] = {
    "confirmed": "confirm", "completed": "confirm", "done": "confirm", "reverted": "revert", "failed": "abort", "cancelled": "abort",
    "aborted": "abort",
}  # fmt: skip
"""The words that end a move, and what is done about an open one if that is asked for."""
SAME_OUTCOME: Mapping[str, frozenset[str]] = {
    "confirmed": frozenset({"confirmed", "completed", "done"}),
    "reverted": frozenset({"reverted"}),
    "aborted": frozenset({"aborted", "failed", "cancelled"}),
    "expired": frozenset({"expired", "failed", "cancelled"}),
    "deleted": frozenset({"deleted", "cancelled"}),
}
"""The words that say the same as an outcome of ours."""
SHOWN_MAX = 300

_decoder: msgspec.json.Decoder[Record] = msgspec.json.Decoder(Record)


class Verdict(Value, frozen=True):
    """What became of one record: its place (1 is the first), what it is about, and why; `changed`: the ledger was written."""

    place: int
    about: str
    reason: str = ""
    changed: bool = False


class Received(Value, frozen=True):
    """The verdicts on all records, each in one list, in order of their places; `gone` are instances that a complete listing lacks.

    `listing` says why a listing that was said to be complete is not taken as one.
    """

    accepted: tuple[Verdict, ...] = ()
    stale: tuple[Verdict, ...] = ()
    contradictory: tuple[Verdict, ...] = ()
    unknown: tuple[Verdict, ...] = ()
    invalid: tuple[Verdict, ...] = ()
    gone: tuple[Verdict, ...] = ()
    listing: str = ""

    @property
    def clean(self) -> bool:
        """Whether every record was accepted."""
        return not (self.stale or self.contradictory or self.unknown or self.invalid or self.listing)


class Judged(NamedTuple):
    """A record's verdict before anything is done; `act` does what it asks for and says whether that changed anything, with a word on it."""

    kind: Kind
    about: str
    reason: str = ""
    act: Callable[[], tuple[bool, str]] | None = None


class Known(NamedTuple):
    """The consumers that are known when the records come, by id and by uuid."""

    consumers: Mapping[str, ConsumerState]
    uuids: Mapping[str, ConsumerId]

    def named(self, text: str) -> ConsumerId:
        """Return the consumer that a record names by id or uuid."""
        return ConsumerId(text) if text in self.consumers else self.uuids.get(text, ConsumerId(text))


def receive(
    tracker: Tracker, records: Iterable[object], *, complete: Sequence[str] = (), all_guests: Sequence[str] = (), apply: bool = False
) -> Received:  # fmt: skip
    """Judge records (JSON, dicts or structs) and carry out those that are accepted; see `Tracker.receive`."""
    listed = [tracker.node(ids.name(name, "node")).node for name in complete]
    looked_at = [tracker.node(ids.name(name, "node")).node for name in all_guests]
    states = tracker.instances()
    known = Known({state.consumer: state for state in states}, {state.instance.uuid: state.consumer for state in states})
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
    leaving = _lacking(tracker, known, listed, mentioned) if listed and not lacking else ()
    verdicts: dict[str, list[Verdict]] = {}
    for place, each in judged:
        kind, done = _carried_out(place, each)
        verdicts.setdefault(kind, []).append(done)
    for consumer in leaving:
        kind, done = _carried_out(0, Judged("gone", f"instance {_shown(consumer)}", act=_deletion(tracker, consumer)))
        verdicts.setdefault(kind, []).append(done)
    if not (lacking and looked_at):
        for node, seen in guests.items():
            look = Judged("accepted", f"guests on {node}", act=_look(tracker, node, tuple(seen.values()), complete=node in looked_at))
            kind, done = _carried_out(0, look)
            verdicts.setdefault(kind, []).extend([] if kind == "accepted" else [done])
    found = {kind: tuple(each) for kind, each in verdicts.items()}
    return msgspec.structs.replace(Received(listing=lacking if listed or looked_at else ""), **found)


def guests_seen(tracker: Tracker, node: str, guests: Sequence[Guest], *, complete: bool) -> c.Answer:
    """Tell the ledger which guests run on a node; see `Tracker.guests_seen`."""
    for guest in guests:
        _checked_guest(guest)
    command = c.SeeGuests(
        node=tracker.node(node).node, guests=tuple(guests), claims=tuple(new_claim() for _ in guests), complete=complete
    )  # fmt: skip
    answer = tracker.tell(command)
    tracker.keep_look(command.node, [guest.consumer for guest in guests], complete=complete)
    return answer


# --- judging one record -------------------------------------------------------------------------------------------------------------


def _isolated(raw: object, judge: Callable[[Record], Judged]) -> Judged:
    """Return the verdict on one record; whatever is wrong with it is a verdict, only the world's faults are raised."""
    try:
        record = _read(raw)
    except (msgspec.DecodeError, RecursionError, InvalidRequest, InvalidRecord, UnicodeError) as error:
        return Judged("invalid", "record", _shown(str(error)))
    about = _about(record)
    try:
        return judge(record)
    except Unavailable:
        raise
    except UnknownNode as error:
        return Judged("unknown", about, _shown(error.message))
    except (InvalidRequest, InvalidRecord) as error:
        return Judged("invalid", about, _shown(error.message))
    except (Conflict, LedgerBroken) as error:
        return Judged("contradictory", about, _shown(error.message))


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


def _checked_guest(guest: Guest) -> None:
    ids.name(guest.consumer, "consumer")
    ids.name(guest.owner, "owner")
    for unit in guest.units:
        ids.unit_id(unit)


def _judge(
    tracker: Tracker, record: Record, known: Known, said: dict[str, Record], guests: dict[NodeId, dict[str, Guest]], mentioned: set[ConsumerId], *,
    apply: bool,
) -> Judged:  # fmt: skip
    if not isinstance(record, GuestRecord):
        mentioned.add(known.named(record.consumer))
    about = _about(record)
    first = said.setdefault(about, record)
    if first is not record:
        if first == record:
            return Judged("accepted", about, "was said before in the same batch")
        return Judged("contradictory", about, "another record of the same batch says otherwise")
    if isinstance(record, GuestRecord):
        seen = guests.setdefault(tracker.node(record.node).node, {})
        again = seen.setdefault(record.guest.consumer, record.guest) is not record.guest
        return Judged("contradictory" if again else "accepted", about, "it was seen before in the same batch" if again else "")
    if isinstance(record, InstanceRecord):
        return _instance(tracker, record, known)
    return _move(tracker, record, known, apply=apply)


def _instance(tracker: Tracker, record: InstanceRecord, known: Known) -> Judged:
    about = _about(record)
    consumer = known.named(record.consumer)
    state = known.consumers.get(consumer)
    claims = [claim for claim in tracker.claims_of(consumer) if claim.purpose != "foreign"]
    node = tracker.node(record.node).node if record.node is not None else None
    if state is None and not claims:
        return Judged("unknown", about, "it has claimed nothing here and has no record; nothing is counted for it")
    wrong = _other_identity(record, state, claims)
    if wrong:
        return Judged("contradictory", about, wrong)
    if state is not None and state.instance.state == "deleted" and record.state != "deleted":
        return Judged("stale", about, "it is deleted")
    if node is not None:
        here = [claim for claim in claims if claim.node == node]
        if not here and (claims or record.state not in ("deleted", "shelved_offloaded")):
            places = ", ".join(sorted({claim.node for claim in claims})) or "nowhere"
            return Judged("contradictory", about, f"it holds nothing on node {_shown(str(record.node))}, but {places}")
    else:
        here = claims
    main = next((claim for claim in here if claim.purpose == "main"), here[0] if here else None)
    aged = _aged(record.generation, main)
    if aged is not None:
        return Judged(aged[0], about, aged[1])

    def act() -> tuple[bool, str]:
        answer = tracker.report(consumer, record.state, task=record.task)
        return answer.changed, answer.message

    return Judged("accepted", about, act=act)


def _other_identity(record: InstanceRecord, state: ConsumerState | None, claims: Sequence[Claim]) -> str:
    """Return what a record says of who the instance is, and the ledger otherwise."""
    owners = {state.instance.owner} if state is not None else {claim.owner for claim in claims}
    if record.owner not in owners:
        return "it is not of that owner"
    if state is not None and record.uuid is not None and record.uuid != state.instance.uuid:
        return f"its uuid is {state.instance.uuid}"
    if state is not None and record.kind is not None and record.kind != state.instance.kind:
        return f"it is known as {_shown(state.instance.kind)}"
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
    about = _about(record)
    consumer = known.named(record.consumer)
    state = known.consumers.get(consumer)
    nodes = [tracker.node(name).node if name is not None else None for name in (record.source, record.destination)]
    try:
        move = tracker.find_move(record.move)
    except UnknownMove:
        now = f"; its open move is {state.move.id}" if state is not None and state.move is not None else ""
        return Judged("unknown", about, f"no such move is known{now}; nothing is counted for it")
    if move.consumer != consumer:
        return Judged("contradictory", about, "it is a move of another instance")
    if state is not None and record.owner is not None and record.owner != state.instance.owner:
        return Judged("contradictory", about, "its instance is not of that owner")
    if record.kind is not None and record.kind != move.kind:
        return Judged("contradictory", about, f"it is a {move.kind}")
    for given, own, what in zip(nodes, (move.source, move.destination), ("source", "destination"), strict=True):
        if given is not None and given != own:
            return Judged("contradictory", about, f"its {what} is {own or 'in another ledger'}")
    if move.outcome is not None:
        if record.status in SAME_OUTCOME[move.outcome]:
            return Judged("accepted", about, f"was {move.outcome} already")
        return Judged("stale", about, f"it was {move.outcome}; nothing is counted for it")
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
            return Judged(aged[0], _about(record), aged[1])
    return None


def _compared(tracker: Tracker, move: Move, record: MoveRecord, *, apply: bool) -> Judged:
    """Compare the word of an open move with what its legs say; an ending is carried out only if that was asked for."""
    about = _about(record)
    status = tracker.move_status(move)
    if status == "contradictory":
        return Judged("contradictory", about, "its legs contradict each other; earmark audit tells more")
    if record.status in BEGUN:
        same = status == "preparing" or record.status == "error"
        return Judged("accepted", about) if same else Judged("stale", about, f"its legs say {status}")
    if record.status in FINISHED and status == "finished":
        return Judged("accepted", about)
    how = ENDINGS.get(record.status)
    if how is None or not apply:
        return Judged("contradictory", about, f"the record says {record.status}, its legs say {status}; nothing is moved by a word")
    steps = {"confirm": tracker.confirm_move, "revert": tracker.revert_move, "abort": tracker.abort_move}

    def act() -> tuple[bool, str]:
        answer = steps[how](move.id)
        return answer.changed, answer.message

    return Judged("accepted", about, act=act)


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
        return "contradictory", Verdict(place=place, about=judged.about, reason=_shown(error.message))
    return judged.kind, Verdict(place=place, about=judged.about, reason=message, changed=changed)


def _deletion(tracker: Tracker, consumer: ConsumerId) -> Callable[[], tuple[bool, str]]:
    def act() -> tuple[bool, str]:
        answer = tracker.delete(consumer, reason="it is not in a complete listing of its node")
        return answer.changed, answer.message

    return act


def _look(tracker: Tracker, node: NodeId, guests: tuple[Guest, ...], *, complete: bool) -> Callable[[], tuple[bool, str]]:
    def act() -> tuple[bool, str]:
        answer = guests_seen(tracker, node, guests, complete=complete)
        return answer.changed, answer.message

    return act


def _lacking(tracker: Tracker, known: Known, listed: Sequence[NodeId], mentioned: set[ConsumerId]) -> tuple[ConsumerId, ...]:
    """Return the instances that hold something confirmed on the listed nodes, and on no other, and that the listing does not mention.

    Claims of consumers without a record are no business of a compute service; what is still being built may be younger than the listing.
    """
    found = []
    for consumer, state in sorted(known.consumers.items()):
        if consumer in mentioned or state.instance.kind != "instance" or state.instance.state == "deleted":
            continue
        try:
            claims = [claim for claim in tracker.claims_of(consumer) if claim.purpose != "foreign"]
        except (LedgerBroken, InvalidRecord):
            continue
        if claims and all(claim.node in listed for claim in claims) and any(claim.phase == "confirmed" for claim in claims):
            found.append(ConsumerId(consumer))
    return tuple(found)


def _about(record: Record) -> str:
    match record:
        case InstanceRecord():
            return f"instance {_shown(record.consumer)}"
        case MoveRecord():
            return f"move {_shown(record.move)}"
    return f"guest {_shown(record.guest.consumer)} on {_shown(record.node)}"


def _shown(text: str) -> str:
    """Return a text from outside so that it can be printed: what is not printable is escaped, too much is cut."""
    clean = "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)
    return clean if len(clean) <= SHOWN_MAX else clean[: SHOWN_MAX - 1] + "…"
