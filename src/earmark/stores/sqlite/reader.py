"""What can be read from an SQLite ledger, over one connection.

Rules of this file: every statement is a constant; nothing is written. A reader stands for one view of the ledger and is worthless after the
block that gave it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import apsw

from earmark.core.ledger.codec import NO_HASH, Head, Stored
from earmark.core.ledger.rows import SlotRow
from earmark.core.model.ids import ClaimId, ConsumerId, MoveId, Slot, StreamId
from earmark.errors import EarmarkError, InvalidRequest, WrongUse
from earmark.stores.contract import PAGE_ITEMS_MAX, SAMPLES_KEPT_MAX, ClaimRow, KeptRefusal, KeptSample, Remembered, Snapshot, Ticket
from earmark.stores.sqlite.errors import translated

HEADS = (
    "SELECT s.name, e.sequence, e.epoch, e.at_ms, e.hash FROM streams AS s CROSS JOIN events AS e ON e.stream = s.number"
    " AND e.sequence = (SELECT max(sequence) FROM events WHERE stream = s.number)"
)
SEALED_HEADS = "SELECT s.name, z.sequence, z.epoch, z.at_ms, z.hash FROM sealed AS z JOIN streams AS s ON s.number = z.stream"
STREAM = "SELECT number FROM streams WHERE name = ?"
HEAD = (
    "SELECT s.number, e.sequence, e.epoch, e.at_ms, e.hash FROM streams AS s CROSS JOIN events AS e ON e.stream = s.number"
    " WHERE s.name = ? ORDER BY e.sequence DESC LIMIT 1"
)
LAST_POSITION = (
    "SELECT max(ifnull((SELECT position FROM events ORDER BY position DESC LIMIT 1), 0),"
    " ifnull((SELECT position FROM sealed ORDER BY position DESC LIMIT 1), 0))"
)
READ = (
    "SELECT position, sequence, raw, hash FROM events"
    " WHERE stream = (SELECT number FROM streams WHERE name = ?) AND sequence > ? ORDER BY sequence LIMIT ?"
)
FOLLOW = (
    "SELECT e.position, s.name, e.sequence, e.raw, e.hash FROM events AS e CROSS JOIN streams AS s"
    " ON s.number = e.stream WHERE e.position > ? ORDER BY e.position LIMIT ?"
)
CLAIM = "SELECT c.claim, s.name, c.consumer, c.purpose, c.cause FROM claims AS c JOIN streams AS s ON s.number = c.stream"
CLAIM_BY_ID = f"{CLAIM} WHERE c.claim = ?"
CLAIMS_LIKE = f"{CLAIM} WHERE c.claim >= ? AND c.claim < ? ORDER BY c.claim LIMIT ?"
MAIN_CLAIM = f"{CLAIM} WHERE c.consumer = ? AND c.purpose = 'main' AND c.cause IS NULL"
CLAIMS_OF = f"{MAIN_CLAIM} UNION ALL {CLAIM} WHERE c.consumer = ? AND c.purpose <> 'main' AND c.cause IS NULL"
ENDED_CLAIM = f"{CLAIM} WHERE c.consumer = ? AND c.cause IS NOT NULL ORDER BY c.claim LIMIT 1"
MOVE = "SELECT s.name FROM moves AS m JOIN streams AS s ON s.number = m.stream WHERE m.move = ?"
SLOTS = "SELECT slot, claim, unit FROM slots WHERE stream = (SELECT number FROM streams WHERE name = ?) ORDER BY slot"
ANSWER = "SELECT digest, answer, at_ms FROM answers WHERE owner = ? AND key = ?"
SNAPSHOT = (
    "SELECT sequence, fold_version, hash, position, image FROM snapshots"
    " WHERE stream = (SELECT number FROM streams WHERE name = ?) AND sequence <= ? ORDER BY sequence DESC LIMIT 1"
)
TICKETS = "SELECT number, owner, request, holder, at_ms FROM tickets WHERE stream = ? ORDER BY number"
REFUSALS = "SELECT number, stream, owner, at_ms, refusal FROM refusals ORDER BY number DESC LIMIT ?"
SAMPLES = "SELECT at_ms, sample FROM samples WHERE stream = ? ORDER BY number DESC LIMIT ?"
OBSERVATION = "SELECT observation FROM observations WHERE stream = ? ORDER BY number DESC LIMIT 1"
SEALED = "SELECT sequence, epoch, at_ms, hash FROM sealed WHERE stream = (SELECT number FROM streams WHERE name = ?)"

SEQUENCE_MAX = 2**63 - 1
LAST_CHARACTER = "\U0010ffff"


class SqliteReader:
    """One view of the ledger."""

    def __init__(self, connection: apsw.Connection, ledger: str) -> None:
        self.connection = connection
        self._execute = connection.execute
        self._ledger = ledger
        self._pid = os.getpid()
        self._over = False

    def end(self) -> None:
        """Make every later use an error."""
        self._over = True

    # --- how it is asked ------------------------------------------------------------------------------------------------------------

    def _rows(self, sql: str, bindings: Sequence[Any] = ()) -> list[Any]:
        """Return the rows of a statement, each a tuple; raises the translated error."""
        if self._over or os.getpid() != self._pid:
            raise self._misused()
        try:
            return self._execute(sql, bindings).fetchall()
        except apsw.Error as error:
            raise self._failed(error, "read") from error
        except UnicodeEncodeError as error:
            raise InvalidRequest(f"look up in {self._ledger}: {bindings[0]!r} is not text", found=ascii(bindings)) from error

    def _failed(self, error: apsw.Error, tried: str) -> EarmarkError:
        """Return the translated error."""
        return translated(error, tried, self._ledger, self.connection.system_errno)

    def _misused(self) -> WrongUse:
        if os.getpid() != self._pid:
            return WrongUse(f"{self._ledger} was opened before a fork (by pid {self._pid}): open it again in pid {os.getpid()}")
        return WrongUse(f"a view of {self._ledger} is used after its block has ended", ledger=self._ledger)

    # --- the contract ---------------------------------------------------------------------------------------------------------------

    def heads(self) -> dict[StreamId, Head]:
        """Return the head of every stream, by name."""
        rows = self._rows(SEALED_HEADS) + self._rows(HEADS)
        found = {name: Head(sequence, epoch, at_ms, digest.hex()) for name, sequence, epoch, at_ms, digest in rows}
        return {StreamId(name): found[name] for name in sorted(found)}

    def head(self, stream: StreamId) -> Head:
        """Return the head of one stream; sequence 0 if it does not exist."""
        return self._numbered(stream)[1]

    def _numbered(self, stream: StreamId) -> tuple[int | None, Head]:
        """Return a stream's row number (None: it does not exist) and its head."""
        rows = self._rows(HEAD, (stream,))
        if not rows:
            numbers = self._rows(STREAM, (stream,))
            return (numbers[0][0], self.archived(stream) or Head()) if numbers else (None, Head())
        number, sequence, epoch, at_ms, digest = rows[0]
        return number, Head(sequence, epoch, at_ms, digest.hex())

    def last_position(self) -> int:
        """Return the position of the newest event, sealed ones included, 0 for none."""
        position: int = self._rows(LAST_POSITION)[0][0]
        return position

    def read(self, stream: StreamId, after: int = 0, limit: int = PAGE_ITEMS_MAX) -> Sequence[Stored]:
        """Return up to `limit` events of a stream with a sequence above `after`, in order."""
        rows = self._rows(READ, (stream, after, max(0, limit)))
        return [Stored(position, stream, sequence, raw, digest.hex()) for position, sequence, raw, digest in rows]

    def follow(self, position: int, limit: int = PAGE_ITEMS_MAX) -> Sequence[Stored]:
        """Return up to `limit` events with a position above `position`, in order."""
        rows = self._rows(FOLLOW, (position, max(0, limit)))
        return [Stored(place, StreamId(name), sequence, raw, digest.hex()) for place, name, sequence, raw, digest in rows]

    def claim(self, claim: ClaimId) -> ClaimRow | None:
        """Return the row of a claim, open or ended; None if it never was."""
        rows = self._rows(CLAIM_BY_ID, (claim,))
        return ClaimRow(*rows[0]) if rows else None

    def claims_like(self, prefix: str, limit: int = 20) -> Sequence[ClaimRow]:
        """Return rows whose id begins with `prefix`, by id."""
        return [ClaimRow(*row) for row in self._rows(CLAIMS_LIKE, (prefix, prefix + LAST_CHARACTER, max(0, limit)))]

    def main_claim(self, consumer: ConsumerId) -> ClaimRow | None:
        """Return the open main claim of a consumer, None if there is none."""
        rows = self._rows(MAIN_CLAIM, (consumer,))
        return ClaimRow(*rows[0]) if rows else None

    def claims_of(self, consumer: ConsumerId) -> Sequence[ClaimRow]:
        """Return the open claims of a consumer, whatever their purpose, by id."""
        return sorted(ClaimRow(*row) for row in self._rows(CLAIMS_OF, (consumer, consumer)))

    def ended_claim(self, consumer: ConsumerId) -> ClaimRow | None:
        """Return one claim of a consumer that has ended, None if it never had one; looks through all claims: for what comes late."""
        rows = self._rows(ENDED_CLAIM, (consumer,))
        return ClaimRow(*rows[0]) if rows else None

    def move(self, move: MoveId) -> StreamId | None:
        """Return the stream of the consumer whose move this is, None if it never was."""
        rows = self._rows(MOVE, (move,))
        return StreamId(rows[0][0]) if rows else None

    def slots(self, stream: StreamId) -> Sequence[SlotRow]:
        """Return the guard rows of a node, sorted by slot."""
        return [SlotRow(Slot(slot), ClaimId(claim), unit) for slot, claim, unit in self._rows(SLOTS, (stream,))]

    def answer(self, owner: str, key: str) -> Remembered | None:
        """Return what is remembered of an idempotency key, None if nothing is."""
        rows = self._rows(ANSWER, (owner, key))
        return Remembered(owner, key, *rows[0]) if rows else None

    def snapshot(self, stream: StreamId, *, at_most_sequence: int | None = None) -> Snapshot | None:
        """Return the newest snapshot of a stream (not past a sequence), None if there is none."""
        rows = self._rows(SNAPSHOT, (stream, SEQUENCE_MAX if at_most_sequence is None else at_most_sequence))
        if not rows:
            return None
        sequence, fold_version, digest, position, image = rows[0]
        return Snapshot(stream, sequence, fold_version, digest.hex(), position, image)

    def tickets(self, stream: StreamId) -> Sequence[Ticket]:
        """Return the waiters of a stream in order of arrival."""
        return [Ticket(stream, *row) for row in self._rows(TICKETS, (stream,))]

    def refusals(self, limit: int = 100) -> Sequence[KeptRefusal]:
        """Return the newest refusals, newest first."""
        return [KeptRefusal(*row) for row in self._rows(REFUSALS, (max(0, limit),))]

    def observation(self, stream: StreamId) -> bytes | None:
        """Return the last kept observation of a node as JSON, None if there is none."""
        rows = self._rows(OBSERVATION, (stream,))
        return rows[0][0] if rows else None

    def samples(self, stream: StreamId, limit: int = SAMPLES_KEPT_MAX) -> Sequence[KeptSample]:
        """Return the newest samples of the host of a node, newest first."""
        return [KeptSample(*row) for row in self._rows(SAMPLES, (stream, max(0, limit)))]

    def archived(self, stream: StreamId) -> Head | None:
        """Return the head at which a stream is sealed, None if it is whole."""
        rows = self._rows(SEALED, (stream,))
        if not rows:
            return None
        sequence, epoch, at_ms, digest = rows[0]
        return Head(sequence, epoch, at_ms, digest.hex() or NO_HASH)

    def integrity(self, limit: int) -> list[str]:
        """Return the lines of SQLite's own check of the whole file ("ok" if it is sound)."""
        return [str(row[0]) for row in self._rows(f"PRAGMA integrity_check({int(limit)})")]
