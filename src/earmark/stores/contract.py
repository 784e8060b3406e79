"""What every store promises. The memory twin and SQLite pass the same tests (`tests/stores/`).

The promises:

1. `append` is one transaction over any number of streams: all batches or none; durable when it returns.
2. A batch is refused with SequenceConflict if its stream does not end at `expected`, StaleEpoch if the stamp's epoch is below the
   stream's, UnitTaken if a slot of its node has a holder, ConsumerTaken if the consumer has an open main claim, KeyReused if
   (owner, key) stands for another command. After a refusal nothing has changed.
3. `follow(position)` is a total order; nothing ever appears at or before a position that was returned.
4. A transaction is a context manager: it commits when its block ends well and rolls back otherwise. Inside it, each `append` is atomic
   by itself (one refused command does not spoil the group). Only one writer is inside at a time, over all processes; who waits longer
   than `timeout_s` gets LedgerBusy, which names the writer's pid.
5. Use after fork raises WrongUse; so does use after close. All methods may be called from any thread.
6. The side tables (answers, refusals, tickets, observations, samples, snapshots) are bounded and outside the chain.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple, Protocol

from earmark.core.ledger.codec import Batch, Head, Stamp, Stored
from earmark.core.ledger.rows import SlotRow
from earmark.core.model.ids import ClaimId, ConsumerId, MoveId, StreamId

ANSWERS_KEPT_MS = 7 * 24 * 3600 * 1000
REFUSALS_KEPT_MAX = 1000
OBSERVATIONS_KEPT_MAX = 16
SAMPLES_KEPT_MAX = 1440
"""Samples of a host monitor that are kept for each node: a day at one a minute."""
TICKETS_MAX = 4096
PAGE_ITEMS_MAX = 10_000
BUSY_TIMEOUT_S = 10.0


class ClaimRow(NamedTuple):
    """Where a claim lives and whether it has ended (`cause` None: open)."""

    claim: ClaimId
    stream: StreamId
    consumer: ConsumerId
    purpose: str
    cause: str | None


class Remembered(NamedTuple):
    """The answer to a command that came with an idempotency key. `digest` is over the command, `answer` JSON."""

    owner: str
    key: str
    digest: str
    answer: bytes
    at_ms: int


class Snapshot(NamedTuple):
    """A state's image at a sequence (`hash`: of that event), with the version of the fold that made it."""

    stream: StreamId
    sequence: int
    fold_version: int
    hash: str
    position: int
    image: bytes


class Ticket(NamedTuple):
    """A waiter's place: `number` is the order of arrival on the stream; `request` JSON; `holder` JSON of the waiting process."""

    stream: StreamId
    number: int
    owner: str
    request: bytes
    holder: bytes
    at_ms: int


class KeptRefusal(NamedTuple):
    """A refusal with its reasons, for `why-not` and the dashboard. `refusal` is JSON."""

    position: int
    stream: StreamId
    owner: str
    at_ms: int
    refusal: bytes


class KeptSample(NamedTuple):
    """What a host monitor saw at a time in milliseconds since the epoch. `sample` is JSON."""

    at_ms: int
    sample: bytes


class Reader(Protocol):
    """What can be read, inside a transaction or outside one."""

    def heads(self) -> dict[StreamId, Head]:
        """Return the head of every stream."""

    def head(self, stream: StreamId) -> Head:
        """Return the head of one stream; sequence 0 if it does not exist."""

    def last_position(self) -> int:
        """Return the position of the newest event, 0 for none."""

    def read(self, stream: StreamId, after: int = 0, limit: int = PAGE_ITEMS_MAX) -> Sequence[Stored]:
        """Return up to `limit` events of a stream with a sequence above `after`, in order."""

    def follow(self, position: int, limit: int = PAGE_ITEMS_MAX) -> Sequence[Stored]:
        """Return up to `limit` events with a position above `position`, in order."""

    def claim(self, claim: ClaimId) -> ClaimRow | None:
        """Return the row of a claim, open or ended; None if it never was."""

    def claims_like(self, prefix: str, limit: int = 20) -> Sequence[ClaimRow]:
        """Return rows whose id begins with `prefix`, by id."""

    def claims_of(self, consumer: ConsumerId) -> Sequence[ClaimRow]:
        """Return the open claims of a consumer, whatever their purpose, by id."""

    def ended_claim(self, consumer: ConsumerId) -> ClaimRow | None:
        """Return one claim of a consumer that has ended, None if it never had one; looks through all claims: for what comes late."""

    def move(self, move: MoveId) -> StreamId | None:
        """Return the stream of the consumer whose move this is, None if it never was."""

    def main_claim(self, consumer: ConsumerId) -> ClaimRow | None:
        """Return the open main claim of a consumer, None if there is none."""

    def slots(self, stream: StreamId) -> Sequence[SlotRow]:
        """Return the guard rows of a node, sorted by slot."""

    def answer(self, owner: str, key: str) -> Remembered | None:
        """Return what is remembered of an idempotency key, None if nothing is."""

    def snapshot(self, stream: StreamId, *, at_most_sequence: int | None = None) -> Snapshot | None:
        """Return the newest snapshot of a stream (not past a sequence), None if there is none."""

    def tickets(self, stream: StreamId) -> Sequence[Ticket]:
        """Return the waiters of a stream in order of arrival."""

    def refusals(self, limit: int = 100) -> Sequence[KeptRefusal]:
        """Return the newest refusals, newest first."""

    def observation(self, stream: StreamId) -> bytes | None:
        """Return the last kept observation of a node as JSON, None if there is none."""

    def samples(self, stream: StreamId, limit: int = SAMPLES_KEPT_MAX) -> Sequence[KeptSample]:
        """Return the newest samples of the host of a node, newest first."""

    def archived(self, stream: StreamId) -> Head | None:
        """Return the head at which a stream is sealed (the base of its chain), None if it is whole."""


class Transaction(Reader, Protocol):
    """The inside of one write transaction; reads see its own writes."""

    def append(self, batches: Sequence[Batch], stamp: Stamp, remember: Remembered | None = None) -> Sequence[Stored]:
        """Append all batches or raise and change nothing (promise 2); returns the stored events in order."""

    def append_sealed(self, events: Sequence[Stored]) -> Sequence[Stored]:
        """Append events whose bytes and hashes were made elsewhere (import), all or none; positions are given anew.

        Raises SequenceConflict, ChainBroken, InvalidRecord for an event that this program does not know, and what the guards raise.
        """

    def drop_archived(self, snapshot: Snapshot, base: Head, end: Head, position: int) -> int:
        """Delete the events after `base` up to `end` (at the snapshot), which an archive holds; returns how many.

        `position` is that of the last one. Raises SequenceConflict if the stream is not sealed at `base` any more.
        """

    def put_snapshot(self, snapshot: Snapshot) -> None:
        """Keep a snapshot; older ones of the stream may be thinned out. Raises InvalidRequest if it does not stand on an event."""

    def put_refusal(self, stream: StreamId, owner: str, at_ms: int, refusal: bytes) -> None:
        """Keep a refusal; the oldest above REFUSALS_KEPT_MAX go."""

    def put_observation(self, stream: StreamId, at_ms: int, observation: bytes) -> None:
        """Keep the last observation of a node."""

    def put_sample(self, stream: StreamId, at_ms: int, sample: bytes) -> None:
        """Keep a sample of the host of a node; its oldest above SAMPLES_KEPT_MAX go."""

    def take_ticket(self, stream: StreamId, owner: str, request: bytes, holder: bytes, at_ms: int) -> Ticket:
        """Give the next place in a stream's line; raises LedgerFull above TICKETS_MAX."""

    def drop_ticket(self, stream: StreamId, number: int) -> None:
        """Give a place up; no error if it is gone."""

    def forget_answers(self, before_ms: int) -> int:
        """Drop remembered answers older than a time; returns how many."""


class Store(Reader, Protocol):
    """A place where events rest."""

    @property
    def name(self) -> str:
        """What messages call it: a path, or "memory"."""

    @property
    def ledger_id(self) -> str:
        """The uuid given to the ledger when it was made."""

    @property
    def writable(self) -> bool:
        """Whether this store may be written at all."""

    def transaction(self, *, purpose: str = "write", timeout_s: float = BUSY_TIMEOUT_S) -> AbstractContextManager[Transaction]:
        """Enter the one write transaction (promise 4). `purpose` is what a waiting writer is told about this one."""

    def append(self, batches: Sequence[Batch], stamp: Stamp, remember: Remembered | None = None) -> Sequence[Stored]:
        """Append in a transaction of its own."""

    def reading(self) -> AbstractContextManager[Reader]:
        """Enter a consistent view: all reads inside see one point of the order."""

    def seal(self, snapshot: Snapshot, archive: Path) -> int:
        """Move a stream's events up to a snapshot into an archive file that ends with their hash; returns how many were moved."""

    def all_events(self) -> Iterator[Stored]:
        """Yield all events in order of position, page by page."""

    def backup(self, target: Path) -> None:
        """Write a complete, consistent copy to a new file."""

    def close(self) -> None:
        """Release everything; may be repeated."""
