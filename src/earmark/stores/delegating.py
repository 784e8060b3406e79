"""The reads of a store, each through a view of its own.

Rules of this file: nothing is decided here; a store says how a view is lent, and everything else follows from the contract.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from earmark.core.ledger.codec import Batch, Head, Stamp, Stored
from earmark.core.ledger.rows import SlotRow
from earmark.core.model.ids import ClaimId, ConsumerId, MoveId, StreamId
from earmark.stores.contract import (
    BUSY_TIMEOUT_S,
    PAGE_ITEMS_MAX,
    SAMPLES_KEPT_MAX,
    ClaimRow,
    KeptRefusal,
    KeptSample,
    Reader,
    Remembered,
    Snapshot,
    Ticket,
    Transaction,
)


class Delegating(ABC):
    """What every store does alike."""

    @abstractmethod
    def _view(self) -> AbstractContextManager[Reader]:
        """Lend a view of the ledger for one read."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What messages call the store."""

    @property
    @abstractmethod
    def ledger_id(self) -> str:
        """The uuid given to the ledger when it was made."""

    @property
    @abstractmethod
    def writable(self) -> bool:
        """Whether this store may be written at all."""

    @abstractmethod
    def transaction(self, *, purpose: str = "write", timeout_s: float = BUSY_TIMEOUT_S) -> AbstractContextManager[Transaction]:
        """Enter the one write transaction."""

    @abstractmethod
    def reading(self) -> AbstractContextManager[Reader]:
        """Enter a consistent view."""

    @abstractmethod
    def backup(self, target: Path) -> None:
        """Write a complete, consistent copy to a new file."""

    @abstractmethod
    def close(self) -> None:
        """Release everything; may be repeated."""

    def append(self, batches: Sequence[Batch], stamp: Stamp, remember: Remembered | None = None) -> Sequence[Stored]:
        """Append in a transaction of its own."""
        with self.transaction(purpose="append") as tx:
            return tx.append(batches, stamp, remember)

    def seal(self, snapshot: Snapshot, archive: Path) -> int:
        """Move a stream's events up to a snapshot into a new archive file that ends with their hash; returns how many were moved.

        The snapshot must have been verified by the caller. Raises InvalidRequest if it does not stand on an event of the stream or the
        file exists, ChainBroken if the chain does not hold.
        """
        from earmark.stores.archive import seal_stream  # noqa: PLC0415 - few ledgers are ever archived, all are opened

        return seal_stream(self, snapshot, archive)

    def all_events(self) -> Iterator[Stored]:
        """Yield all events in order of position, page by page."""
        position = 0
        while page := self.follow(position):
            yield from page
            position = page[-1].position

    def heads(self) -> dict[StreamId, Head]:
        """Return the head of every stream, by name."""
        with self._view() as view:
            return view.heads()

    def head(self, stream: StreamId) -> Head:
        """Return the head of one stream; sequence 0 if it does not exist."""
        with self._view() as view:
            return view.head(stream)

    def last_position(self) -> int:
        """Return the position of the newest event, sealed ones included, 0 for none."""
        with self._view() as view:
            return view.last_position()

    def read(self, stream: StreamId, after: int = 0, limit: int = PAGE_ITEMS_MAX) -> Sequence[Stored]:
        """Return up to `limit` events of a stream with a sequence above `after`, in order."""
        with self._view() as view:
            return view.read(stream, after, limit)

    def follow(self, position: int, limit: int = PAGE_ITEMS_MAX) -> Sequence[Stored]:
        """Return up to `limit` events with a position above `position`, in order."""
        with self._view() as view:
            return view.follow(position, limit)

    def claim(self, claim: ClaimId) -> ClaimRow | None:
        """Return the row of a claim, open or ended; None if it never was."""
        with self._view() as view:
            return view.claim(claim)

    def claims_like(self, prefix: str, limit: int = 20) -> Sequence[ClaimRow]:
        """Return rows whose id begins with `prefix`, by id."""
        with self._view() as view:
            return view.claims_like(prefix, limit)

    def claims_of(self, consumer: ConsumerId) -> Sequence[ClaimRow]:
        """Return the open claims of a consumer, whatever their purpose, by id."""
        with self._view() as view:
            return view.claims_of(consumer)

    def ended_claim(self, consumer: ConsumerId) -> ClaimRow | None:
        """Return one claim of a consumer that has ended, None if it never had one; looks through all claims: for what comes late."""
        with self._view() as view:
            return view.ended_claim(consumer)

    def move(self, move: MoveId) -> StreamId | None:
        """Return the stream of the consumer whose move this is, None if it never was."""
        with self._view() as view:
            return view.move(move)

    def main_claim(self, consumer: ConsumerId) -> ClaimRow | None:
        """Return the open main claim of a consumer, None if there is none."""
        with self._view() as view:
            return view.main_claim(consumer)

    def slots(self, stream: StreamId) -> Sequence[SlotRow]:
        """Return the guard rows of a node, sorted by slot."""
        with self._view() as view:
            return view.slots(stream)

    def answer(self, owner: str, key: str) -> Remembered | None:
        """Return what is remembered of an idempotency key, None if nothing is."""
        with self._view() as view:
            return view.answer(owner, key)

    def snapshot(self, stream: StreamId, *, at_most_sequence: int | None = None) -> Snapshot | None:
        """Return the newest snapshot of a stream (not past a sequence), None if there is none."""
        with self._view() as view:
            return view.snapshot(stream, at_most_sequence=at_most_sequence)

    def tickets(self, stream: StreamId) -> Sequence[Ticket]:
        """Return the waiters of a stream in order of arrival."""
        with self._view() as view:
            return view.tickets(stream)

    def refusals(self, limit: int = 100) -> Sequence[KeptRefusal]:
        """Return the newest refusals, newest first."""
        with self._view() as view:
            return view.refusals(limit)

    def observation(self, stream: StreamId) -> bytes | None:
        """Return the last kept observation of a node as JSON, None if there is none."""
        with self._view() as view:
            return view.observation(stream)

    def samples(self, stream: StreamId, limit: int = SAMPLES_KEPT_MAX) -> Sequence[KeptSample]:
        """Return the newest samples of the host of a node, newest first."""
        with self._view() as view:
            return view.samples(stream, limit)

    def archived(self, stream: StreamId) -> Head | None:
        """Return the head at which a stream is sealed (the base of its chain), None if it is whole."""
        with self._view() as view:
            return view.archived(stream)
