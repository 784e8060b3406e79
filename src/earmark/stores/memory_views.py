"""What can be read from a ledger in memory, and the inside of its write transaction.

Rules of this file: the ledger is one immutable value; a transaction makes a new one of its own, so a rollback is forgetting and readers never
see half of it. Guard rows change by the same `row_change` as in SQLite, and the guards raise the same errors.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from immutables import Map

from earmark.core.ledger.codec import Batch, Head, Stamp, Stored, check_link, open_envelope, open_event, seal
from earmark.core.ledger.events import Event, UnknownEvent
from earmark.core.ledger.rows import ClaimClosed, ClaimOpened, MoveBegun, PurposeChanged, SlotRow, SlotsFreed, SlotsPassed, row_change
from earmark.core.model.ids import ClaimId, ConsumerId, MoveId, Slot, StreamId
from earmark.errors import InvalidRecord, WrongUse
from earmark.stores import guards
from earmark.stores.contract import (
    OBSERVATIONS_KEPT_MAX,
    PAGE_ITEMS_MAX,
    REFUSALS_KEPT_MAX,
    SAMPLES_KEPT_MAX,
    ClaimRow,
    KeptRefusal,
    KeptSample,
    Remembered,
    Snapshot,
    Ticket,
)

SlotMap = Map[Slot, SlotRow]


class Ledger(NamedTuple):
    """Everything that the ledger holds, as one value.

    `held` are the slots of each claim; `mains` the open main claims,
    `others` the open claims of other purposes.
    """

    heads: Map[StreamId, Head] = Map()
    events: Map[int, Stored] = Map()
    places: Map[tuple[StreamId, int], int] = Map()
    position: int = 0
    bases: Map[StreamId, Head] = Map()
    claims: Map[ClaimId, ClaimRow] = Map()
    mains: Map[ConsumerId, ClaimId] = Map()
    others: Map[ConsumerId, frozenset[ClaimId]] = Map()
    moves: Map[MoveId, StreamId] = Map()
    slots: Map[StreamId, SlotMap] = Map()
    held: Map[ClaimId, tuple[SlotRow, ...]] = Map()
    answers: Map[tuple[str, str], Remembered] = Map()
    snapshots: Map[StreamId, tuple[Snapshot, ...]] = Map()
    tickets: Map[StreamId, tuple[Ticket, ...]] = Map()
    ticket: int = 0
    refusals: tuple[KeptRefusal, ...] = ()
    refusal: int = 0
    observations: Map[StreamId, tuple[bytes, ...]] = Map()
    samples: Map[StreamId, tuple[KeptSample, ...]] = Map()


class MemoryReader:
    """One view of the ledger."""

    def __init__(self, ledger: Ledger, name: str) -> None:
        self._ledger = ledger
        self._name = name
        self._pid = os.getpid()
        self._over = False

    def end(self) -> None:
        """Make every later use an error."""
        self._over = True

    def _now(self) -> Ledger:
        """Return what this view sees; raises WrongUse after its block or a fork."""
        if os.getpid() != self._pid:
            raise WrongUse(f"{self._name} was opened before a fork (by pid {self._pid}): open it again in pid {os.getpid()}")
        if self._over:
            raise WrongUse(f"a view of {self._name} is used after its block has ended", ledger=self._name)
        return self._ledger

    def heads(self) -> dict[StreamId, Head]:
        """Return the head of every stream, by name."""
        return dict(sorted(self._now().heads.items()))

    def head(self, stream: StreamId) -> Head:
        """Return the head of one stream; sequence 0 if it does not exist."""
        return self._now().heads.get(stream, Head())

    def last_position(self) -> int:
        """Return the position of the newest event, sealed ones included, 0 for none."""
        return self._now().position

    def read(self, stream: StreamId, after: int = 0, limit: int = PAGE_ITEMS_MAX) -> Sequence[Stored]:
        """Return up to `limit` events of a stream with a sequence above `after`, in order."""
        ledger = self._now()
        first = max(after, ledger.bases.get(stream, Head()).sequence) + 1
        last = ledger.heads.get(stream, Head()).sequence
        return [ledger.events[ledger.places[stream, number]] for number in range(first, min(last, first + max(0, limit) - 1) + 1)]

    def follow(self, position: int, limit: int = PAGE_ITEMS_MAX) -> Sequence[Stored]:
        """Return up to `limit` events with a position above `position`, in order."""
        ledger = self._now()
        found: list[Stored] = []
        for place in range(max(0, position) + 1, ledger.position + 1):
            if len(found) >= limit:
                break
            if place in ledger.events:
                found.append(ledger.events[place])
        return found

    def claim(self, claim: ClaimId) -> ClaimRow | None:
        """Return the row of a claim, open or ended; None if it never was."""
        return self._now().claims.get(claim)

    def claims_like(self, prefix: str, limit: int = 20) -> Sequence[ClaimRow]:
        """Return rows whose id begins with `prefix`, by id."""
        claims = self._now().claims
        return [claims[claim] for claim in sorted(claim for claim in claims if claim.startswith(prefix))[: max(0, limit)]]

    def main_claim(self, consumer: ConsumerId) -> ClaimRow | None:
        """Return the open main claim of a consumer, None if there is none."""
        ledger = self._now()
        claim = ledger.mains.get(consumer)
        return ledger.claims[claim] if claim is not None else None

    def claims_of(self, consumer: ConsumerId) -> Sequence[ClaimRow]:
        """Return the open claims of a consumer, whatever their purpose, by id."""
        ledger = self._now()
        main = ledger.mains.get(consumer)
        found = ledger.others.get(consumer, frozenset()) | (frozenset() if main is None else {main})
        return [ledger.claims[claim] for claim in sorted(found)]

    def ended_claim(self, consumer: ConsumerId) -> ClaimRow | None:
        """Return one claim of a consumer that has ended, None if it never had one; looks through all claims: for what comes late."""
        claims = self._now().claims
        ended = [row for row in claims.values() if row.consumer == consumer and row.cause is not None]
        return min(ended, default=None)

    def move(self, move: MoveId) -> StreamId | None:
        """Return the stream of the consumer whose move this is, None if it never was."""
        return self._now().moves.get(move)

    def slots(self, stream: StreamId) -> Sequence[SlotRow]:
        """Return the guard rows of a node, sorted by slot."""
        return sorted(self._now().slots.get(stream, Map()).values())

    def answer(self, owner: str, key: str) -> Remembered | None:
        """Return what is remembered of an idempotency key, None if nothing is."""
        return self._now().answers.get((owner, key))

    def snapshot(self, stream: StreamId, *, at_most_sequence: int | None = None) -> Snapshot | None:
        """Return the newest snapshot of a stream (not past a sequence), None if there is none."""
        for snapshot in reversed(self._now().snapshots.get(stream, ())):
            if at_most_sequence is None or snapshot.sequence <= at_most_sequence:
                return snapshot
        return None

    def tickets(self, stream: StreamId) -> Sequence[Ticket]:
        """Return the waiters of a stream in order of arrival."""
        return list(self._now().tickets.get(stream, ()))

    def refusals(self, limit: int = 100) -> Sequence[KeptRefusal]:
        """Return the newest refusals, newest first."""
        return list(reversed(self._now().refusals))[: max(0, limit)]

    def observation(self, stream: StreamId) -> bytes | None:
        """Return the last kept observation of a node as JSON, None if there is none."""
        kept = self._now().observations.get(stream, ())
        return kept[-1] if kept else None

    def samples(self, stream: StreamId, limit: int = SAMPLES_KEPT_MAX) -> Sequence[KeptSample]:
        """Return the newest samples of the host of a node, newest first."""
        return list(reversed(self._now().samples.get(stream, ())))[: max(0, limit)]

    def archived(self, stream: StreamId) -> Head | None:
        """Return the head at which a stream is sealed, None if it is whole."""
        return self._now().bases.get(stream)


class MemoryTransaction(MemoryReader):
    """The inside of one write transaction; `_ledger` is its own until the commit."""

    @property
    def result(self) -> Ledger:
        """What the ledger becomes when this commits."""
        return self._ledger

    @contextmanager
    def _atomically(self) -> Iterator[None]:
        """Undo everything of the block if it fails."""
        before = self._now()
        try:
            yield
        except BaseException:
            self._ledger = before
            raise

    # --- events ---------------------------------------------------------------------------------------------------------------------

    def append(self, batches: Sequence[Batch], stamp: Stamp, remember: Remembered | None = None) -> Sequence[Stored]:
        """Append all batches, in the order given, or raise and change nothing; returns the stored events in order."""
        stored: list[Stored] = []
        with self._atomically():
            for batch in batches:
                sealed, after = seal(batch, self.head(batch.stream), stamp)
                for sequence, raw, digest in sealed:
                    guards.check_size(batch.stream, sequence, raw)
                    stored.append(self._put(batch.stream, sequence, raw, digest))
                if sealed:
                    self._ledger = self._ledger._replace(heads=self._ledger.heads.set(batch.stream, after))
                for event in batch.events:
                    self._guard(batch.stream, event)
            if remember is not None:
                self._remember(remember)
        return stored

    def append_sealed(self, events: Sequence[Stored]) -> Sequence[Stored]:
        """Append events whose bytes and hashes were made elsewhere; positions are given anew.

        Raises ChainBroken where a hash or link does not hold, InvalidRecord for an event that this program does not understand.
        """
        with self._atomically():
            return [self._append_sealed(event) for event in events]

    def _append_sealed(self, event: Stored) -> Stored:
        head = self.head(event.stream)
        guards.check_next(event.stream, head, event.sequence)
        guards.check_size(event.stream, event.sequence, event.raw)
        after = check_link(event, head)
        opened = open_event(open_envelope(event.raw))
        if isinstance(opened, UnknownEvent):
            raise InvalidRecord(
                f"event {event.sequence} of {event.stream} is a {opened.found_type} v{opened.found_version}, not known here"
            )
        stored = self._put(event.stream, event.sequence, event.raw, event.hash)
        self._ledger = self._ledger._replace(heads=self._ledger.heads.set(event.stream, after))
        self._guard(event.stream, opened)
        return stored

    def _put(self, stream: StreamId, sequence: int, raw: bytes, digest: str) -> Stored:
        ledger = self._ledger
        stored = Stored(ledger.position + 1, stream, sequence, raw, digest)
        self._ledger = self._ledger._replace(
            events=ledger.events.set(stored.position, stored),
            places=ledger.places.set((stream, sequence), stored.position),
            position=stored.position,
        )
        return stored

    # --- guard rows -----------------------------------------------------------------------------------------------------------------

    def _guard(self, stream: StreamId, event: Event) -> None:
        """Change the guard rows as an event says; raises what the guards raise."""
        change = row_change(event)
        if isinstance(change, ClaimOpened):
            self._open(stream, change)
        elif isinstance(change, ClaimClosed):
            self._close(stream, change, event.type)
        elif isinstance(change, SlotsFreed):
            self._free(stream, change)
        elif isinstance(change, SlotsPassed):
            self._pass(stream, change, event.type)
        elif isinstance(change, PurposeChanged):
            row = self._open_row(change.claim, stream, event.type)
            self._unlist(row)
            self._list(row._replace(purpose=change.purpose))
        elif isinstance(change, MoveBegun):
            if change.move in self._ledger.moves:
                raise guards.move_exists(change.move)
            self._ledger = self._ledger._replace(moves=self._ledger.moves.set(change.move, stream))

    def _list(self, row: ClaimRow) -> None:
        """Enter an open claim under its consumer; raises ConsumerTaken for a second main one."""
        ledger = self._ledger
        mains, others = ledger.mains, ledger.others
        if row.purpose == "main":
            holder = mains.get(row.consumer)
            if holder is not None:
                raise guards.consumer_taken(row.consumer, row.claim, holder)
            mains = mains.set(row.consumer, row.claim)
        else:
            others = others.set(row.consumer, others.get(row.consumer, frozenset()) | {row.claim})
        self._ledger = ledger._replace(claims=ledger.claims.set(row.claim, row), mains=mains, others=others)

    def _unlist(self, row: ClaimRow) -> None:
        """Take an open claim from under its consumer."""
        ledger = self._ledger
        if row.purpose == "main":
            self._ledger = ledger._replace(mains=ledger.mains.delete(row.consumer))
            return
        left = ledger.others[row.consumer] - {row.claim}
        others = ledger.others.set(row.consumer, left) if left else ledger.others.delete(row.consumer)
        self._ledger = ledger._replace(others=others)

    def _open(self, stream: StreamId, change: ClaimOpened) -> None:
        ledger = self._ledger
        if change.claim in ledger.claims:
            raise guards.claim_exists(change.claim)
        self._list(ClaimRow(change.claim, stream, change.consumer, change.purpose, None))
        ledger = self._ledger
        slots = ledger.slots.get(stream, Map())
        for row in change.slots:
            taken = slots.get(row.slot)
            if taken is not None:
                raise guards.unit_taken(stream, row, taken.claim)
            slots = slots.set(row.slot, row)
        self._ledger = ledger._replace(slots=ledger.slots.set(stream, slots), held=ledger.held.set(change.claim, change.slots))

    def _close(self, stream: StreamId, change: ClaimClosed, tried: str) -> None:
        row = self._open_row(change.claim, stream, tried)
        self._unlist(row)
        ledger = self._ledger
        self._ledger = ledger._replace(claims=ledger.claims.set(change.claim, row._replace(cause=change.cause)))
        if not change.keep_slots:
            self._drop(stream, change.claim, ledger.held[change.claim])

    def _free(self, stream: StreamId, change: SlotsFreed) -> None:
        row = self._ledger.claims.get(change.claim)
        if row is None or row.stream != stream or row.cause is None:
            raise guards.claim_not_ended(change.claim, stream)
        if not change.units:
            self._drop(stream, change.claim, self._ledger.held[change.claim])
        for unit in change.units:
            self._drop(stream, change.claim, self._rows_of(stream, change.claim, unit))

    def _pass(self, stream: StreamId, change: SlotsPassed, tried: str) -> None:
        for claim in (change.source, change.target):
            self._open_row(claim, stream, tried)
        for unit in change.units:
            rows = self._rows_of(stream, change.source, unit)
            self._drop(stream, change.source, rows)
            ledger = self._ledger
            passed = tuple(row._replace(claim=change.target) for row in rows)
            slots = ledger.slots[stream].update({row.slot: row for row in passed})
            self._ledger = self._ledger._replace(
                slots=ledger.slots.set(stream, slots), held=ledger.held.set(change.target, ledger.held[change.target] + passed)
            )

    def _open_row(self, claim: ClaimId, stream: StreamId, tried: str) -> ClaimRow:
        row = self._ledger.claims.get(claim)
        if row is None or row.stream != stream or row.cause is not None:
            raise guards.claim_not_open(claim, stream, tried)
        return row

    def _rows_of(self, stream: StreamId, claim: ClaimId, unit: str) -> tuple[SlotRow, ...]:
        rows = tuple(row for row in self._ledger.held[claim] if row.unit == unit)
        if not rows:
            raise guards.unit_not_held(claim, unit, stream)
        return rows

    def _drop(self, stream: StreamId, claim: ClaimId, rows: tuple[SlotRow, ...]) -> None:
        ledger = self._ledger
        slots = ledger.slots.get(stream, Map())
        for row in rows:
            slots = slots.delete(row.slot)
        left = tuple(row for row in ledger.held[claim] if row not in rows)
        self._ledger = self._ledger._replace(slots=ledger.slots.set(stream, slots), held=ledger.held.set(claim, left))

    # --- side tables ----------------------------------------------------------------------------------------------------------------

    def _remember(self, remember: Remembered) -> None:
        known = self.answer(remember.owner, remember.key)
        refusal = guards.key_refusal(known, remember) if known is not None else None
        if refusal is not None:
            raise refusal
        self._ledger = self._ledger._replace(answers=self._ledger.answers.set((remember.owner, remember.key), remember))

    def put_snapshot(self, snapshot: Snapshot) -> None:
        """Keep a snapshot and thin out older ones of the stream; raises InvalidRequest if it does not stand on an event."""
        ledger = self._now()
        base = ledger.bases.get(snapshot.stream, Head())
        place = ledger.places.get((snapshot.stream, snapshot.sequence))
        at = ledger.events[place].hash if place is not None else None
        guards.check_snapshot(snapshot, self.head(snapshot.stream), base, at)
        others = [each for each in ledger.snapshots.get(snapshot.stream, ()) if each.sequence != snapshot.sequence]
        listed = sorted([*others, snapshot], key=lambda each: each.sequence)
        kept = guards.kept_snapshots((each.sequence for each in listed), base.sequence)
        self._ledger = self._ledger._replace(
            snapshots=ledger.snapshots.set(snapshot.stream, tuple(each for each in listed if each.sequence in kept))
        )

    def drop_archived(self, snapshot: Snapshot, base: Head, end: Head, position: int) -> int:  # noqa: ARG002  SQLite keeps the position
        """Delete the events between `base` and `end`, which is at the snapshot, and let the chain begin there; returns how many went.

        Raises SequenceConflict if the stream is not sealed at `base` any more.
        """
        stream = snapshot.stream
        with self._atomically():
            guards.check_base(stream, self.archived(stream) or Head(), base)
            self.put_snapshot(snapshot)
            ledger = self._ledger
            events, places = ledger.events, ledger.places
            for sequence in range(base.sequence + 1, end.sequence + 1):
                events = events.delete(places[stream, sequence])
                places = places.delete((stream, sequence))
            younger = tuple(each for each in ledger.snapshots[stream] if each.sequence >= end.sequence)
            self._ledger = self._ledger._replace(
                events=events, places=places, bases=ledger.bases.set(stream, end), snapshots=ledger.snapshots.set(stream, younger)
            )
        return end.sequence - base.sequence

    def put_refusal(self, stream: StreamId, owner: str, at_ms: int, refusal: bytes) -> None:
        """Keep a refusal; the oldest above REFUSALS_KEPT_MAX go."""
        ledger = self._now()
        number = ledger.refusal + 1
        kept = (*ledger.refusals, KeptRefusal(number, stream, owner, at_ms, refusal))[-REFUSALS_KEPT_MAX:]
        self._ledger = self._ledger._replace(refusals=kept, refusal=number)

    def put_observation(self, stream: StreamId, at_ms: int, observation: bytes) -> None:  # noqa: ARG002  SQLite keeps the time
        """Keep the last observation of a node; the oldest above OBSERVATIONS_KEPT_MAX go."""
        ledger = self._now()
        kept = (*ledger.observations.get(stream, ()), observation)[-OBSERVATIONS_KEPT_MAX:]
        self._ledger = self._ledger._replace(observations=ledger.observations.set(stream, kept))

    def put_sample(self, stream: StreamId, at_ms: int, sample: bytes) -> None:
        """Keep a sample of the host of a node; its oldest above SAMPLES_KEPT_MAX go."""
        ledger = self._now()
        kept = (*ledger.samples.get(stream, ()), KeptSample(at_ms, sample))[-SAMPLES_KEPT_MAX:]
        self._ledger = self._ledger._replace(samples=ledger.samples.set(stream, kept))

    def take_ticket(self, stream: StreamId, owner: str, request: bytes, holder: bytes, at_ms: int) -> Ticket:
        """Give the next place in a stream's line; raises LedgerFull above TICKETS_MAX."""
        ledger = self._now()
        line = ledger.tickets.get(stream, ())
        guards.check_line(stream, len(line))
        ticket = Ticket(stream, ledger.ticket + 1, owner, request, holder, at_ms)
        self._ledger = self._ledger._replace(tickets=ledger.tickets.set(stream, (*line, ticket)), ticket=ticket.number)
        return ticket

    def drop_ticket(self, stream: StreamId, number: int) -> None:
        """Give a place up; no error if it is gone."""
        ledger = self._now()
        line = tuple(ticket for ticket in ledger.tickets.get(stream, ()) if ticket.number != number)
        self._ledger = self._ledger._replace(tickets=ledger.tickets.set(stream, line))

    def forget_answers(self, before_ms: int) -> int:
        """Drop remembered answers older than a time; returns how many."""
        ledger = self._now()
        kept = Map((key, each) for key, each in ledger.answers.items() if each.at_ms >= before_ms)
        self._ledger = self._ledger._replace(answers=kept)
        return len(ledger.answers) - len(kept)
