"""The inside of one SQLite write transaction: appending events with their guard rows, and the side tables.

Rules of this file: each append is a savepoint, so a refused one leaves no trace; any error of SQLite itself (a full disk, a failed read)
poisons the whole transaction, because SQLite may have rolled it back. The guards are SQLite's constraints; the queries after a failure
only find out which one it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import apsw

from earmark.core.ledger.codec import Batch, Head, Stamp, Stored, check_link, open_envelope, open_event, seal
from earmark.core.ledger.events import Event, UnknownEvent
from earmark.core.ledger.rows import ClaimClosed, ClaimOpened, MoveBegun, PurposeChanged, SlotsFreed, SlotsPassed, row_change
from earmark.core.model.ids import ClaimId, StreamId
from earmark.errors import EarmarkError, InvalidRecord, LedgerBroken
from earmark.stores import guards
from earmark.stores.contract import OBSERVATIONS_KEPT_MAX, REFUSALS_KEPT_MAX, SAMPLES_KEPT_MAX, Remembered, Snapshot, Ticket
from earmark.stores.sqlite.reader import SqliteReader

NEW_STREAM = "INSERT INTO streams (name) VALUES (?)"
NEW_EVENT = "INSERT INTO events (position, stream, sequence, epoch, at_ms, hash, raw) VALUES (?, ?, ?, ?, ?, ?, ?)"
EVENT_HASH = "SELECT hash FROM events WHERE stream = ? AND sequence = ?"
NEW_CLAIM = "INSERT INTO claims (claim, stream, consumer, purpose) VALUES (?, ?, ?, ?)"
CLOSE_CLAIM = "UPDATE claims SET cause = ? WHERE claim = ? AND stream = ? AND cause IS NULL"
CHANGE_PURPOSE = "UPDATE claims SET purpose = ? WHERE claim = ? AND stream = ? AND cause IS NULL"
NEW_MOVE = "INSERT INTO moves (move, stream) VALUES (?, ?)"
NEW_SLOT = "INSERT INTO slots (stream, slot, claim, unit) VALUES (?, ?, ?, ?)"
SLOT_HOLDER = "SELECT claim FROM slots WHERE stream = ? AND slot = ?"
FREE_CLAIM = "DELETE FROM slots WHERE claim = ?"
FREE_UNIT = "DELETE FROM slots WHERE claim = ? AND unit = ?"
MOVE_UNIT = "UPDATE slots SET claim = ? WHERE claim = ? AND unit = ?"
NEW_ANSWER = "INSERT INTO answers (owner, key, digest, answer, at_ms) VALUES (?, ?, ?, ?, ?)"
FORGET_ANSWER = "DELETE FROM answers WHERE owner = ? AND key = ?"
FORGET_ANSWERS = "DELETE FROM answers WHERE at_ms < ?"
NEW_SNAPSHOT = "INSERT OR REPLACE INTO snapshots (stream, sequence, fold_version, hash, position, image) VALUES (?, ?, ?, ?, ?, ?)"
SNAPSHOT_SEQUENCES = "SELECT sequence FROM snapshots WHERE stream = ?"
DROP_SNAPSHOT = "DELETE FROM snapshots WHERE stream = ? AND sequence = ?"
NEW_REFUSAL = "INSERT INTO refusals (stream, owner, at_ms, refusal) VALUES (?, ?, ?, ?)"
DROP_REFUSALS = "DELETE FROM refusals WHERE number <= ?"
NEW_OBSERVATION = "INSERT INTO observations (stream, at_ms, observation) VALUES (?, ?, ?)"
DROP_OBSERVATIONS = (
    "DELETE FROM observations WHERE stream = ?1 AND number <= (SELECT number FROM observations WHERE stream = ?1"
    " ORDER BY number DESC LIMIT 1 OFFSET ?2)"
)
NEW_SAMPLE = "INSERT INTO samples (stream, at_ms, sample) VALUES (?, ?, ?)"
DROP_SAMPLES = (
    "DELETE FROM samples WHERE stream = ?1 AND number <= (SELECT number FROM samples WHERE stream = ?1"
    " ORDER BY number DESC LIMIT 1 OFFSET ?2)"
)
SEAL = "INSERT OR REPLACE INTO sealed (stream, sequence, epoch, at_ms, hash, position) VALUES (?, ?, ?, ?, ?, ?)"
DROP_EVENTS = "DELETE FROM events WHERE stream = ? AND sequence <= ?"
DROP_OLDER_SNAPSHOTS = "DELETE FROM snapshots WHERE stream = ? AND sequence < ?"
WAITING = "SELECT count(*) FROM tickets WHERE stream = ?"
NEW_TICKET = "INSERT INTO tickets (stream, owner, request, holder, at_ms) VALUES (?, ?, ?, ?, ?)"
DROP_TICKET = "DELETE FROM tickets WHERE stream = ? AND number = ?"

Known = dict[StreamId, tuple[int, Head]]


class SqliteTransaction(SqliteReader):
    """One write transaction; `failure` is set once SQLite itself has failed, and nothing more is done then."""

    def __init__(self, connection: apsw.Connection, ledger: str) -> None:
        super().__init__(connection, ledger)
        self.failure: EarmarkError | None = None
        self._known: Known = {}
        self._position = -1

    def finish(self) -> None:
        """End the block before its commit; raises the failure of SQLite that has made a commit impossible."""
        self.end()
        if self.failure is not None:
            raise self.failure

    # --- events ---------------------------------------------------------------------------------------------------------------------

    def append(self, batches: Sequence[Batch], stamp: Stamp, remember: Remembered | None = None) -> Sequence[Stored]:
        """Append all batches, in the order given, or raise and change nothing; returns the stored events in order."""
        return self._atomically(lambda known: self._append(known, batches, stamp, remember))

    def append_sealed(self, events: Sequence[Stored]) -> Sequence[Stored]:
        """Append events whose bytes and hashes were made elsewhere; positions are given anew.

        Raises ChainBroken where a hash or link does not hold, InvalidRecord for an event that this program does not understand.
        """
        return self._atomically(lambda known: [self._append_sealed(known, each) for each in events])

    def _atomically(self, change: Callable[[Known], list[Stored]]) -> list[Stored]:
        """Carry out a change whole or not at all; `known` collects the heads that it moves."""
        if self.failure is not None:
            raise self.failure
        if self._over:
            raise self._misused()
        known: Known = {}
        before = self._position if self._position >= 0 else self.last_position()
        self._position = before
        try:
            self._execute("SAVEPOINT append")
            try:
                stored = change(known)
            except apsw.Error:
                raise
            except BaseException:
                self._position = before
                if self.failure is None:
                    self._execute("ROLLBACK TO append")
                    self._execute("RELEASE append")
                raise
            self._execute("RELEASE append")
        except apsw.Error as error:
            raise self._failed(error, "write") from error
        self._known.update(known)
        return stored

    def _append(self, known: Known, batches: Sequence[Batch], stamp: Stamp, remember: Remembered | None) -> list[Stored]:
        stored: list[Stored] = []
        for batch in batches:
            number, head = self._stream(known, batch.stream)
            sealed, after = seal(batch, head, stamp)
            if not sealed:
                continue
            number = self._moved(known, batch.stream, number, after)
            position = self._position
            rows = []
            for sequence, raw, digest in sealed:
                guards.check_size(batch.stream, sequence, raw)
                position += 1
                rows.append((position, number, sequence, after.epoch, after.at_ms, bytes.fromhex(digest), raw))
                stored.append(Stored(position, batch.stream, sequence, raw, digest))
            self._position = position
            self._insert(NEW_EVENT, rows)
            for event in batch.events:
                self._guard(batch.stream, number, event)
        if remember is not None:
            self._remember(remember)
        return stored

    def _append_sealed(self, known: Known, event: Stored) -> Stored:
        number, head = self._stream(known, event.stream)
        guards.check_next(event.stream, head, event.sequence)
        guards.check_size(event.stream, event.sequence, event.raw)
        after = check_link(event, head)
        opened = open_event(open_envelope(event.raw))
        if isinstance(opened, UnknownEvent):
            raise InvalidRecord(
                f"event {event.sequence} of {event.stream} is a {opened.found_type} v{opened.found_version}, not known here"
            )
        number = self._moved(known, event.stream, number, after)
        self._position += 1
        digest = bytes.fromhex(event.hash)
        self._insert(NEW_EVENT, [(self._position, number, event.sequence, after.epoch, after.at_ms, digest, event.raw)])
        self._guard(event.stream, number, opened)
        return event._replace(position=self._position)

    def _stream(self, known: Known, stream: StreamId) -> tuple[int | None, Head]:
        """Return a stream's number and head as this transaction has left it."""
        found = known.get(stream) or self._known.get(stream)
        return found if found is not None else self._numbered(stream)

    def _moved(self, known: Known, stream: StreamId, number: int | None, after: Head) -> int:
        """Note the new head of a stream, making the stream if need be; returns its number."""
        if number is None:
            self._execute(NEW_STREAM, (stream,))
            number = self.connection.last_insert_rowid()
        known[stream] = (number, after)
        return number

    def _insert(self, sql: str, rows: list[tuple[Any, ...]]) -> None:
        if len(rows) == 1:
            self._execute(sql, rows[0])
        elif rows:
            self.connection.executemany(sql, rows)

    # --- guard rows -----------------------------------------------------------------------------------------------------------------

    def _guard(self, stream: StreamId, number: int, event: Event) -> None:
        """Change the guard rows as an event says; raises what the guards raise."""
        change = row_change(event)
        if change is None:
            return
        if isinstance(change, ClaimOpened):
            self._open(stream, number, change)
        elif isinstance(change, ClaimClosed):
            self._execute(CLOSE_CLAIM, (change.cause, change.claim, number))
            if self.connection.changes() != 1:
                raise guards.claim_not_open(change.claim, stream, event.type)
            if not change.keep_slots:
                self._execute(FREE_CLAIM, (change.claim,))
        elif isinstance(change, SlotsFreed):
            self._free(stream, change)
        elif isinstance(change, SlotsPassed):
            self._pass(stream, change, event.type)
        elif isinstance(change, PurposeChanged):
            self._rename(stream, number, change, event.type)
        else:
            self._begin(number, change)

    def _rename(self, stream: StreamId, number: int, change: PurposeChanged, tried: str) -> None:
        try:
            self._execute(CHANGE_PURPOSE, (change.purpose, change.claim, number))
        except apsw.ConstraintError as error:
            row = self.claim(change.claim)
            main = self.main_claim(row.consumer) if row is not None else None
            if row is None or main is None:
                raise
            raise guards.consumer_taken(row.consumer, change.claim, main.claim) from error
        if self.connection.changes() != 1:
            raise guards.claim_not_open(change.claim, stream, tried)

    def _begin(self, number: int, change: MoveBegun) -> None:
        try:
            self._execute(NEW_MOVE, (change.move, number))
        except apsw.ConstraintError as error:
            raise guards.move_exists(change.move) from error

    def _open(self, stream: StreamId, number: int, change: ClaimOpened) -> None:
        try:
            self._execute(NEW_CLAIM, (change.claim, number, change.consumer, change.purpose))
            self._insert(NEW_SLOT, [(number, row.slot, row.claim, row.unit) for row in change.slots])
        except apsw.ConstraintError as error:
            raise self._which(stream, number, change, error) from error

    def _which(self, stream: StreamId, number: int, change: ClaimOpened, error: apsw.ConstraintError) -> EarmarkError:
        """Return which guard refused a claim; asked after the fact."""
        if "claims" in str(error):
            if self.claim(change.claim) is not None:
                return guards.claim_exists(change.claim)
            main = self.main_claim(change.consumer)
            if main is not None:
                return guards.consumer_taken(change.consumer, change.claim, main.claim)
        seen = set()
        for row in change.slots:
            holder = self._rows(SLOT_HOLDER, (number, row.slot))
            if row.slot in seen or (holder and holder[0][0] != row.claim):
                return guards.unit_taken(stream, row, ClaimId(holder[0][0]) if holder else row.claim)
            seen.add(row.slot)
        return LedgerBroken(f"claim {change.claim} of {stream} breaks a constraint: {error}", claim=change.claim, stream=stream)

    def _free(self, stream: StreamId, change: SlotsFreed) -> None:
        row = self.claim(change.claim)
        if row is None or row.stream != stream or row.cause is None:
            raise guards.claim_not_ended(change.claim, stream)
        if not change.units:
            self._execute(FREE_CLAIM, (change.claim,))
        self._each(FREE_UNIT, ((change.claim, unit) for unit in change.units), change.claim, stream)

    def _pass(self, stream: StreamId, change: SlotsPassed, tried: str) -> None:
        for claim in (change.source, change.target):
            row = self.claim(claim)
            if row is None or row.stream != stream or row.cause is not None:
                raise guards.claim_not_open(claim, stream, tried)
        self._each(MOVE_UNIT, ((change.target, change.source, unit) for unit in change.units), change.source, stream)

    def _each(self, sql: str, bindings: Iterable[tuple[str, ...]], claim: ClaimId, stream: StreamId) -> None:
        """Carry out a statement for each unit (the last binding), which must concern at least one row."""
        for binding in bindings:
            self._execute(sql, binding)
            if self.connection.changes() == 0:
                raise guards.unit_not_held(claim, binding[-1], stream)

    # --- side tables ----------------------------------------------------------------------------------------------------------------

    def _remember(self, remember: Remembered) -> None:
        known = self.answer(remember.owner, remember.key)
        if known is not None:
            refusal = guards.key_refusal(known, remember)
            if refusal is not None:
                raise refusal
            self._execute(FORGET_ANSWER, (remember.owner, remember.key))
        self._execute(NEW_ANSWER, remember)

    def _write(self, sql: str, bindings: Sequence[Any]) -> None:
        """Carry out a statement on a side table; raises the translated error."""
        if self.failure is not None:
            raise self.failure
        if self._over:
            raise self._misused()
        try:
            self._execute(sql, bindings)
        except apsw.Error as error:
            raise self._failed(error, "write") from error

    def _failed(self, error: apsw.Error, tried: str) -> EarmarkError:
        """Return the translated error; the transaction is over with it."""
        self.failure = super()._failed(error, tried)
        return self.failure

    def put_snapshot(self, snapshot: Snapshot) -> None:
        """Keep a snapshot and thin out older ones of the stream; raises InvalidRequest if it does not stand on an event."""
        number, head = self._stream({}, snapshot.stream)
        base = self.archived(snapshot.stream) or Head()
        found = self._rows(EVENT_HASH, (number, snapshot.sequence))
        guards.check_snapshot(snapshot, head, base, found[0][0].hex() if found else None)
        digest = bytes.fromhex(snapshot.hash)
        self._write(NEW_SNAPSHOT, (number, snapshot.sequence, snapshot.fold_version, digest, snapshot.position, snapshot.image))
        sequences = [row[0] for row in self._rows(SNAPSHOT_SEQUENCES, (number,))]
        kept = guards.kept_snapshots(sequences, base.sequence)
        for sequence in sequences:
            if sequence not in kept:
                self._write(DROP_SNAPSHOT, (number, sequence))

    def drop_archived(self, snapshot: Snapshot, base: Head, end: Head, position: int) -> int:
        """Delete the events between `base` and `end`, which is at the snapshot, and let the chain begin there; returns how many went.

        Raises SequenceConflict if the stream is not sealed at `base` any more.
        """
        number, _ = self._stream({}, snapshot.stream)
        guards.check_base(snapshot.stream, self.archived(snapshot.stream) or Head(), base)
        self.put_snapshot(snapshot)
        self._write(SEAL, (number, end.sequence, end.epoch, end.at_ms, bytes.fromhex(end.hash), position))
        self._write(DROP_OLDER_SNAPSHOTS, (number, end.sequence))
        self._write(DROP_EVENTS, (number, end.sequence))
        return self.connection.changes()

    def put_refusal(self, stream: StreamId, owner: str, at_ms: int, refusal: bytes) -> None:
        """Keep a refusal; the oldest above REFUSALS_KEPT_MAX go."""
        self._write(NEW_REFUSAL, (stream, owner, at_ms, refusal))
        self._write(DROP_REFUSALS, (self.connection.last_insert_rowid() - REFUSALS_KEPT_MAX,))

    def put_observation(self, stream: StreamId, at_ms: int, observation: bytes) -> None:
        """Keep the last observation of a node; the oldest above OBSERVATIONS_KEPT_MAX go."""
        self._write(NEW_OBSERVATION, (stream, at_ms, observation))
        self._write(DROP_OBSERVATIONS, (stream, OBSERVATIONS_KEPT_MAX))

    def put_sample(self, stream: StreamId, at_ms: int, sample: bytes) -> None:
        """Keep a sample of the host of a node; its oldest above SAMPLES_KEPT_MAX go."""
        self._write(NEW_SAMPLE, (stream, at_ms, sample))
        self._write(DROP_SAMPLES, (stream, SAMPLES_KEPT_MAX))

    def take_ticket(self, stream: StreamId, owner: str, request: bytes, holder: bytes, at_ms: int) -> Ticket:
        """Give the next place in a stream's line; raises LedgerFull above TICKETS_MAX."""
        guards.check_line(stream, self._rows(WAITING, (stream,))[0][0])
        self._write(NEW_TICKET, (stream, owner, request, holder, at_ms))
        return Ticket(stream, self.connection.last_insert_rowid(), owner, request, holder, at_ms)

    def drop_ticket(self, stream: StreamId, number: int) -> None:
        """Give a place up; no error if it is gone."""
        self._write(DROP_TICKET, (stream, number))

    def forget_answers(self, before_ms: int) -> int:
        """Drop remembered answers older than a time; returns how many."""
        self._write(FORGET_ANSWERS, (before_ms,))
        return self.connection.changes()
