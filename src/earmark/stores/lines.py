"""The lines of export and archive files: JSON, one value each, every event with its own bytes unchanged.

Rules of this file: strict both ways; `event` is the stored bytes themselves, not a translation, so its hash can be checked by anybody
(sha256 of the text between the braces, braces included).
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from earmark.core.ledger.codec import EVENT_BYTES_MAX, Head
from earmark.core.model.ids import StreamId
from earmark.errors import InvalidRecord

FORMAT_VERSION = 1
LINE_BYTES_MAX = EVENT_BYTES_MAX + 4096

Number = Annotated[int, Meta(ge=0, le=2**53)]


class Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="line"):
    """The base of all lines; `line` names the kind."""


class ExportHeader(Line, frozen=True, tag="export"):
    """The first line of an export. A scrubbed one has changed events and empty hashes: a report, not a copy."""

    version: int
    ledger: str
    scrubbed: bool = False


class ArchiveHeader(Line, frozen=True, tag="archive"):
    """The first line of an archive: which stream, and the sequence and hash that its first event follows."""

    version: int
    ledger: str
    stream: StreamId
    after: Number
    previous: str


class EventLine(Line, frozen=True, tag="event"):
    """One event: where it stood in its ledger's order, its hash, its bytes."""

    position: Number
    hash: str
    event: msgspec.Raw


class StreamEnd(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The end of one stream."""

    sequence: Number
    hash: str


class ExportEnd(Line, frozen=True, tag="export-end"):
    """The last line of an export: how many events there were, and where each stream ends."""

    events: Number
    streams: dict[StreamId, StreamEnd]


class ArchiveEnd(Line, frozen=True, tag="archive-end"):
    """The last line of an archive: how many events there were, and the sequence and hash of the last."""

    events: Number
    sequence: Number
    hash: str


AnyLine = ExportHeader | ArchiveHeader | EventLine | ExportEnd | ArchiveEnd

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(AnyLine)


def encode_line(line: AnyLine) -> bytes:
    """Return a line as bytes, with its line feed."""
    return _encoder.encode(line) + b"\n"


def decode_line(raw: bytes, number: int, source: str) -> AnyLine:
    """Return what a line says; raises InvalidRecord with the number of the line."""
    if len(raw) > LINE_BYTES_MAX:
        raise InvalidRecord(f"{source}, line {number}: {len(raw)} bytes, at most {LINE_BYTES_MAX} are read", line=number)
    try:
        line: AnyLine = _decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRecord(f"{source}, line {number} is not a line of an export or archive: {error}", line=number) from error
    if isinstance(line, ExportHeader | ArchiveHeader) and line.version != FORMAT_VERSION:
        raise InvalidRecord(f"{source} has format {line.version}, this program reads {FORMAT_VERSION}", line=number, found=line.version)
    return line


def stream_end(head: Head) -> StreamEnd:
    """Return the end of a stream as a line says it."""
    return StreamEnd(sequence=head.sequence, hash=head.hash)
