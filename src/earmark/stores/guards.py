"""What every store says when one of its guards refuses, and which snapshots it keeps.

Rules of this file: pure; both stores raise exactly these, so that a caller cannot tell them apart. The guards are checked in this order:
claim id, main claim of the consumer, slots in the order of the grant.
"""

from __future__ import annotations

from collections.abc import Iterable

from earmark.core.ledger.codec import EVENT_BYTES_MAX, Head
from earmark.core.ledger.rows import SlotRow
from earmark.core.model.ids import ClaimId, ConsumerId, MoveId, StreamId
from earmark.errors import (
    Conflict,
    ConsumerTaken,
    InvalidRecord,
    InvalidRequest,
    KeyReused,
    LedgerBroken,
    LedgerFull,
    SequenceConflict,
    UnitTaken,
)
from earmark.stores.contract import ANSWERS_KEPT_MS, TICKETS_MAX, Remembered, Snapshot

SNAPSHOTS_PER_DISTANCE = 2
"""Snapshots kept for each power of two of the distance from the newest one."""


def claim_exists(claim: ClaimId) -> Conflict:
    """Return the error for a claim id that was used before."""
    return Conflict(f"claim {claim} exists already", claim=claim)


def move_exists(move: MoveId) -> Conflict:
    """Return the error for a move id that was used before."""
    return Conflict(f"move {move} exists already", move=move)


def consumer_taken(consumer: ConsumerId, claim: ClaimId, holder: ClaimId) -> ConsumerTaken:
    """Return the error for a second open main claim of one consumer."""
    return ConsumerTaken(
        f"claim {claim}: consumer {consumer} has an open main claim already, {holder}", consumer=consumer, claim=claim, holder=holder
    )


def unit_taken(stream: StreamId, row: SlotRow, holder: ClaimId) -> UnitTaken:
    """Return the error for a slot that has a holder."""
    return UnitTaken(
        f"claim {row.claim}: {row.unit} of {stream} needs slot {row.slot}, which {holder} holds",
        stream=stream, claim=row.claim, unit=row.unit, slot=row.slot, holder=holder,
    )  # fmt: skip


def claim_not_open(claim: ClaimId, stream: StreamId, tried: str) -> LedgerBroken:
    """Return the error for an event that needs an open claim of its stream."""
    return LedgerBroken(f"{tried}: claim {claim} is not open on {stream}", claim=claim, stream=stream)


def claim_not_ended(claim: ClaimId, stream: StreamId) -> LedgerBroken:
    """Return the error for a return from quarantine of a claim that has not ended."""
    return LedgerBroken(f"units are returned from {claim}, which has not ended on {stream}", claim=claim, stream=stream)


def unit_not_held(claim: ClaimId, unit: str, stream: StreamId) -> LedgerBroken:
    """Return the error for a unit that its claim does not hold."""
    return LedgerBroken(f"claim {claim} does not hold {unit} on {stream}", claim=claim, unit=unit, stream=stream)


def key_refusal(known: Remembered, asked: Remembered) -> KeyReused | Conflict | None:
    """Return why an answer cannot be remembered beside a known one; None if the known one is too old to count."""
    if known.at_ms < asked.at_ms - ANSWERS_KEPT_MS:
        return None
    if known.digest != asked.digest:
        return KeyReused(f"key {asked.key!r} of {asked.owner} was used for another command", key=asked.key, owner=asked.owner)
    return Conflict(f"the command under key {asked.key!r} of {asked.owner} was answered already", key=asked.key, owner=asked.owner)


def check_size(stream: StreamId, sequence: int, raw: bytes) -> None:
    """Raise InvalidRecord for an event above EVENT_BYTES_MAX."""
    if len(raw) > EVENT_BYTES_MAX:
        raise InvalidRecord(f"event {sequence} of {stream} has {len(raw)} bytes, at most {EVENT_BYTES_MAX} are kept", stream=stream)


def check_line(stream: StreamId, waiting: int) -> None:
    """Raise LedgerFull if a stream's line has TICKETS_MAX waiters."""
    if waiting >= TICKETS_MAX:
        raise LedgerFull(f"{waiting} are waiting for {stream} already, at most {TICKETS_MAX} may", stream=stream, limit=TICKETS_MAX)


def check_snapshot(snapshot: Snapshot, head: Head, base: Head, event_hash: str | None) -> None:
    """Raise InvalidRequest unless a snapshot stands on an event of its stream: `event_hash` at its sequence, None for no event there."""
    expected = base.hash if snapshot.sequence == base.sequence else event_hash
    if not 1 <= snapshot.sequence <= head.sequence or snapshot.sequence < base.sequence or expected != snapshot.hash:
        raise InvalidRequest(
            f"a snapshot of {snapshot.stream} at {snapshot.sequence} does not fit: the stream is sealed at {base.sequence}, ends at"
            f" {head.sequence}, and the hash there is {expected or 'none'}",
            stream=snapshot.stream, sequence=snapshot.sequence,
        )  # fmt: skip


def check_next(stream: StreamId, head: Head, sequence: int) -> None:
    """Raise SequenceConflict unless an already sealed event comes right after the head."""
    if sequence != head.sequence + 1:
        raise SequenceConflict(f"{stream} is at {head.sequence}, the sealed event is number {sequence}", stream=stream, found=head.sequence)


def check_base(stream: StreamId, found: Head, expected: Head) -> None:
    """Raise SequenceConflict if a stream was sealed further while its archive was written."""
    if found != expected:
        raise SequenceConflict(
            f"{stream} is sealed at {found.sequence}, the archive begins after {expected.sequence}", stream=stream, found=found.sequence
        )


def kept_snapshots(sequences: Iterable[int], base: int = 0) -> frozenset[int]:
    """Return which snapshots of a stream stay: the newest, the one it is sealed at (`base`), and a few at every power of two of distance.

    The kept ones are at most SNAPSHOTS_PER_DISTANCE for each doubling of the distance, so replay to any time stays within a constant
    factor of its age and their number within the logarithm of the stream's length.
    """
    ordered = sorted(set(sequences), reverse=True)
    groups: dict[int, list[int]] = {}
    for sequence in ordered:
        groups.setdefault((ordered[0] - sequence).bit_length(), []).append(sequence)
    kept = {base} & set(ordered)
    for group in groups.values():
        kept.add(group[0])
        kept.update(group[len(group) - (SNAPSHOTS_PER_DISTANCE - 1) :])
    return frozenset(kept)
