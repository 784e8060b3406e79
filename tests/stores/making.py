"""Events and batches as the tests of the stores write them, and the audit that ends each test."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from earmark.core.ledger.codec import Batch, Head, Stamp, Stored, check_link, open_envelope, open_event
from earmark.core.ledger.events import (
    ClaimConfirmed,
    ClaimEnded,
    ClaimHeld,
    Event,
    InstanceCreated,
    LegClosed,
    MoveOpened,
    NodeRegistered,
    UnitsPassed,
    UnitsReturned,
)
from earmark.core.ledger.rows import ClaimClosed, ClaimOpened, MoveBegun, PurposeChanged, SlotRow, SlotsFreed, SlotsPassed, row_change
from earmark.core.model.claim import Cause, Purpose
from earmark.core.model.grant import AmountRow, Grant, UnitRow
from earmark.core.model.ids import ClaimId, ConsumerId, MoveId, NodeId, Owner, PoolId, Slot, StreamId, UnitId
from earmark.core.model.instance import Leg, LegPair
from earmark.core.model.request import Request
from earmark.stores.contract import Reader, Snapshot, Store

A, B, VM = StreamId("node:a"), StreamId("node:b"), StreamId("consumer:vm-1")
CLAIM = "c-aaaa"


def stamp(now_ms: int = 1000, *, epoch: int = 1) -> Stamp:
    """Return a stamp."""
    return Stamp(actor="tester", command="cmd-1", now_ms=now_ms, epoch=epoch)


def registered(name: str = "a") -> NodeRegistered:
    """Return the event that begins a node."""
    return NodeRegistered(node=NodeId(f"00000000-0000-0000-0000-00000000000{name}"), name=name)


def held(claim: str, units: Iterable[str | int] = (), *, consumer: str | None = None, purpose: Purpose = "main") -> ClaimHeld:
    """Return the event of a claim that holds CPUs (numbers), units (texts) or units with their slots ("pf=pf,vf1,vf2")."""
    rows = []
    for unit in units:
        text = f"cpu:{unit}" if isinstance(unit, int) else unit
        name, _, slots = text.partition("=")
        rows.append(UnitRow(unit=UnitId(name), use="vcpu", slots=tuple(Slot(slot) for slot in slots.split(",") if slot)))
    return ClaimHeld(
        claim=ClaimId(claim), consumer=ConsumerId(consumer or f"vm-{claim}"), owner=Owner("alice"), request=Request(vcpus=len(rows)),
        grant=Grant(units=tuple(rows), amounts=(AmountRow(pool=PoolId("memory"), amount=4096),)), purpose=purpose, deadline_ms=5000,
    )  # fmt: skip


def confirmed(claim: str) -> ClaimConfirmed:
    """Return the event that keeps a claim."""
    return ClaimConfirmed(claim=ClaimId(claim))


def ended(claim: str, *, cause: Cause = "released", quarantined: bool = False) -> ClaimEnded:
    """Return the event that ends a claim."""
    return ClaimEnded(claim=ClaimId(claim), cause=cause, quarantined=quarantined)


def returned(claim: str, *units: int) -> UnitsReturned:
    """Return the event that frees quarantined CPUs, all that are left if none is named."""
    return UnitsReturned(claim=ClaimId(claim), reason="looked at", units=tuple(UnitId(f"cpu:{unit}") for unit in units))


def passed(source: str, target: str, *units: int | str) -> UnitsPassed:
    """Return the event that moves units between claims."""
    names = tuple(UnitId(f"cpu:{unit}" if isinstance(unit, int) else unit) for unit in units)
    return UnitsPassed(source=ClaimId(source), target=ClaimId(target), units=names)


def known(consumer: str = "vm-1") -> InstanceCreated:
    """Return the event that begins a consumer's stream."""
    return InstanceCreated(
        consumer=ConsumerId(consumer), uuid="00000000-0000-4000-8000-0000000000aa", name="web 名", owner=Owner("alice"),
        labels=(("tier", "front"),),
    )  # fmt: skip


def now_for(claim: str, purpose: Purpose) -> LegClosed:
    """Return the event after which a claim has another purpose."""
    return LegClosed(claim=ClaimId(claim), purpose=purpose)


def move_begun(move: str = "m-aaaa", source: str = "c-aaaa", destination: str = "c-bbbb") -> MoveOpened:
    """Return the event that begins a move from node A to node B."""
    pair = LegPair(source=Leg(node=NodeId("a"), claim=ClaimId(source)), destination=Leg(node=NodeId("b"), claim=ClaimId(destination)))
    return MoveOpened(move=MoveId(move), kind="resize", legs=(pair,), token="tie" if move.endswith("t") else None)


def put(store: Store, stream: StreamId, *events: Event, now_ms: int = 1000) -> Sequence[Stored]:
    """Append events at the end of a stream."""
    return store.append([Batch(stream, store.head(stream).sequence, events)], stamp(now_ms))


def slots(store: Reader, stream: StreamId = A) -> dict[str, str]:
    """Return who holds which slot."""
    return {row.slot: row.claim for row in store.slots(stream)}


def snapshot_at(store: Reader, stream: StreamId, sequence: int, image: bytes = b"{}") -> Snapshot:
    """Return a snapshot that stands on an event."""
    stored = store.read(stream, sequence - 1, 1)[0]
    return Snapshot(stream, sequence, 1, stored.hash, stored.position, image)


def picture(reader: Reader) -> list[object]:
    """Return all that can be read of a ledger, for comparison."""
    heads = reader.heads()
    claims = reader.claims_like("", 1000)
    streams = [[reader.read(stream), reader.slots(stream), reader.tickets(stream), reader.observation(stream)] for stream in heads]
    held_by = [reader.claims_of(consumer) for consumer in sorted({row.consumer for row in claims})]
    moves = [reader.move(MoveId(move)) for move in ("m-aaaa", "m-bbbb", "m-none")]
    return [heads, reader.last_position(), reader.follow(0), claims, streams, reader.refusals(1000), held_by, moves]


def audit(store: Store) -> None:
    """Compare a store with itself: every link, the order of positions, and the guard rows against those that its events give."""
    heads: dict[StreamId, Head] = {}
    claims: dict[ClaimId, tuple[StreamId, str, str, str | None]] = {}
    rows: dict[StreamId, dict[Slot, SlotRow]] = {}
    moves: dict[MoveId, StreamId] = {}
    position = 0
    for stored in store.all_events():
        assert stored.position > position
        position = stored.position
        heads[stored.stream] = check_link(stored, heads.get(stored.stream, Head()))
        taken = rows.setdefault(stored.stream, {})
        change = row_change(open_event(open_envelope(stored.raw)))
        if isinstance(change, ClaimOpened):
            assert change.claim not in claims
            claims[change.claim] = (stored.stream, change.consumer, change.purpose, None)
            assert not set(taken) & {row.slot for row in change.slots}
            taken.update({row.slot: row for row in change.slots})
        elif isinstance(change, ClaimClosed):
            claims[change.claim] = (*claims[change.claim][:3], change.cause)
            if not change.keep_slots:
                rows[stored.stream] = {slot: row for slot, row in taken.items() if row.claim != change.claim}
        elif isinstance(change, SlotsFreed):
            gone = {slot for slot, row in taken.items() if row.claim == change.claim and (not change.units or row.unit in change.units)}
            rows[stored.stream] = {slot: row for slot, row in taken.items() if slot not in gone}
        elif isinstance(change, PurposeChanged):
            stream, consumer, _, cause = claims[change.claim]
            assert cause is None
            claims[change.claim] = (stream, consumer, change.purpose, None)
        elif isinstance(change, MoveBegun):
            assert moves.setdefault(change.move, stored.stream) == stored.stream
        elif isinstance(change, SlotsPassed):
            for slot, row in taken.items():
                if row.claim == change.source and row.unit in change.units:
                    taken[slot] = row._replace(claim=change.target)
    assert store.heads() == dict(sorted(heads.items()))
    assert store.last_position() == position
    assert {row.claim: tuple(row[1:]) for row in store.claims_like("", 10**6)} == claims
    for stream, taken in rows.items():
        assert list(store.slots(stream)) == sorted(taken.values())
    for move, stream in moves.items():
        assert store.move(move) == stream
    for who in {row[1] for row in claims.values()}:
        open_ids = sorted(claim for claim, row in claims.items() if row[1] == who and row[3] is None)
        assert [row.claim for row in store.claims_of(ConsumerId(who))] == open_ids
    mains = [row[1] for row in claims.values() if row[2] == "main" and row[3] is None]
    assert len(mains) == len(set(mains))
