"""Events to bytes and back, and the chain of hashes over them.

Rules of this file: the stored bytes are JSON of `Envelope`, made once and never re-encoded; the hash is SHA-256 over exactly those bytes,
which contain the previous event's hash; the position is the store's own and not part of them. Decoding is strict.
"""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from earmark.core.ledger.events import KNOWN, Event, UnknownEvent
from earmark.core.model.ids import StreamId
from earmark.errors import ChainBroken, InvalidRecord, SequenceConflict, StaleEpoch

NO_HASH = ""
EVENT_BYTES_MAX = 16 * 1024 * 1024
NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for bytes that are no JSON of the type: also for text that is not UTF-8, and for nesting without end."""


class Stamp(msgspec.Struct, frozen=True, kw_only=True):
    """What the shell adds to an event: who, by which command, when, under which epoch; `boot_id` only for facts of this boot."""

    actor: str
    command: str
    now_ms: int
    correlation: str = ""
    epoch: int = 1
    boot_id: str | None = None


class Envelope(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """An event as it is stored."""

    stream: StreamId
    sequence: int
    at_ms: int
    type: str
    version: int
    actor: str
    command: str
    correlation: str = ""
    epoch: int
    boot_id: str | None = None
    previous: str
    data: msgspec.Raw


class Head(NamedTuple):
    """The end of a stream: the last sequence (0: empty), its epoch, time and hash."""

    sequence: int = 0
    epoch: int = 0
    at_ms: int = 0
    hash: str = NO_HASH


class Stored(NamedTuple):
    """An event in a store: `position` is its place in the total order of the store, `raw` the bytes under `hash`."""

    position: int
    stream: StreamId
    sequence: int
    raw: bytes
    hash: str


class Batch(NamedTuple):
    """What one append adds to one stream, if the stream still ends at `expected`."""

    stream: StreamId
    expected: int
    events: Sequence[Event]


_encoder = msgspec.json.Encoder()
_envelopes = msgspec.json.Decoder(Envelope)
_decoders = {known: msgspec.json.Decoder(kind) for known, kind in KNOWN.items()}


def seal(batch: Batch, head: Head, stamp: Stamp) -> tuple[list[tuple[int, bytes, str]], Head]:
    """Return (sequence, bytes, hash) for each event of a batch, and the stream's new head.

    The time is the stamp's, but never below the head's. Raises SequenceConflict if the stream does not end at `expected`, StaleEpoch
    if the stamp's epoch is below the head's.
    """
    if head.sequence != batch.expected:
        raise SequenceConflict(
            f"{batch.stream} is at {head.sequence}, the command was decided at {batch.expected}",
            stream=batch.stream, expected=batch.expected, found=head.sequence,
        )  # fmt: skip
    if stamp.epoch < head.epoch:
        raise StaleEpoch(
            f"{batch.stream} is at epoch {head.epoch}, this writer at {stamp.epoch}",
            stream=batch.stream,
            expected=stamp.epoch,
            found=head.epoch,
        )
    if not batch.events:
        return [], head
    at_ms = max(stamp.now_ms, head.at_ms)
    sequence, previous = head.sequence, head.hash
    sealed = []
    for event in batch.events:
        sequence += 1
        raw = _encoder.encode(
            Envelope(
                stream=batch.stream, sequence=sequence, at_ms=at_ms, type=event.type, version=event.version, actor=stamp.actor,
                command=stamp.command, correlation=stamp.correlation, epoch=stamp.epoch, boot_id=stamp.boot_id, previous=previous,
                data=msgspec.Raw(_encoder.encode(event)),
            )
        )  # fmt: skip
        previous = hashlib.sha256(raw).hexdigest()
        sealed.append((sequence, raw, previous))
    return sealed, Head(sequence, stamp.epoch, at_ms, previous)


def open_envelope(raw: bytes) -> Envelope:
    """Return the envelope of stored bytes; raises InvalidRecord."""
    try:
        return _envelopes.decode(raw)
    except NOT_JSON as error:
        raise InvalidRecord(f"an event's bytes are not an envelope: {error}", found=raw[:200].decode("utf-8", "replace")) from error


def open_event(envelope: Envelope) -> Event:
    """Return the event in an envelope; UnknownEvent where type and version are not known; raises InvalidRecord."""
    decoder = _decoders.get((envelope.type, envelope.version))
    if decoder is None:
        return UnknownEvent(found_type=envelope.type, found_version=envelope.version)
    try:
        return decoder.decode(envelope.data)
    except NOT_JSON as error:
        raise InvalidRecord(
            f"event {envelope.sequence} of {envelope.stream} is not a {envelope.type} v{envelope.version}: {error}",
            stream=envelope.stream, sequence=envelope.sequence,
        ) from error  # fmt: skip


def check_link(stored: Stored, head: Head) -> Head:
    """Return the head after one stored event; raises ChainBroken if bytes, hash, sequence or link do not fit."""
    envelope = open_envelope(stored.raw)
    digest = hashlib.sha256(stored.raw).hexdigest()
    problem = None
    if digest != stored.hash:
        problem = "its bytes do not have its hash"
    elif envelope.stream != stored.stream or envelope.sequence != stored.sequence:
        problem = "its bytes belong to another place"
    elif stored.sequence != head.sequence + 1:
        problem = f"it follows sequence {head.sequence}"
    elif envelope.previous != head.hash:
        problem = "it does not name its predecessor's hash"
    elif envelope.at_ms < head.at_ms:
        problem = "its time is before its predecessor's"
    elif envelope.epoch < head.epoch:
        problem = "its epoch is below its predecessor's"
    if problem:
        raise ChainBroken(f"event {stored.sequence} of {stored.stream}: {problem}", stream=stored.stream, sequence=stored.sequence)
    return Head(stored.sequence, envelope.epoch, envelope.at_ms, digest)
