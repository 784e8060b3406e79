"""A whole ledger as JSON lines, out and in again.

Rules of this file: an export is every event in its order with its own bytes and hash; an import checks all of them, takes them unchanged into an
empty ledger, all or nothing. Answers, refusals, tickets, observations and snapshots stay behind: they are no part of what is true.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec

from earmark.core.ledger.codec import Envelope, Head, Stored, open_envelope, open_event
from earmark.core.ledger.events import ClaimHeld, Event
from earmark.core.model.ids import StreamId, claim_id, name
from earmark.errors import Conflict, EarmarkError, Invalid, InvalidRecord, InvalidRequest, LedgerBroken
from earmark.stores.archive import archive_of, archived_events
from earmark.stores.contract import Reader, Store, Transaction
from earmark.stores.lines import FORMAT_VERSION, EventLine, ExportEnd, ExportHeader, decode_line, encode_line, stream_end

STREAM_KINDS = ("node", "consumer", "owner", "group")
STREAM_LENGTH_MAX = 200
NUMBER_MAX = 2**53
IMPORT_TIMEOUT_S = 10.0

Scrub = Callable[[bytes], bytes]
"""Maps an envelope's JSON to one without what can identify a tenant."""
Check = Callable[[Stored, Envelope, Event], None]
"""A further look at each event of an import; raises an EarmarkError to refuse it."""


class _Named(msgspec.Struct):
    """The part of a scrubbed event that says of which stream it is: the name by which the end of the export has to call it too."""

    stream: StreamId


def export_lines(store: Store, *, archives: Iterable[Path] = (), scrub: Scrub | None = None) -> Iterator[bytes]:
    """Yield a ledger as JSON lines: a header, every event in order of position, an end with the last hash of each stream.

    A sealed stream needs its archive files (InvalidRequest names the stream that lacks one). With `scrub` the lines are a report that
    import refuses: events are changed and hashes left out.
    """
    with store.reading() as reader:
        heads = reader.heads()
        sources = [archived_events(path) for path in _archives(reader, heads, list(archives))]
        yield encode_line(ExportHeader(version=FORMAT_VERSION, ledger=store.ledger_id, scrubbed=scrub is not None))
        events = 0
        said: dict[StreamId, StreamId] = {}
        for stored in heapq.merge(*sources, _live(reader), key=lambda stored: stored.position):
            events += 1
            if scrub is None:
                yield encode_line(EventLine(position=stored.position, hash=stored.hash, event=msgspec.Raw(stored.raw)))
            else:
                scrubbed = scrub(stored.raw)
                said[stored.stream] = msgspec.json.decode(scrubbed, type=_Named).stream
                yield encode_line(EventLine(position=stored.position, hash="", event=msgspec.Raw(scrubbed)))
        if scrub is None:
            ends = {stream: stream_end(head) for stream, head in heads.items()}
        else:
            ends = {said[stream]: stream_end(head._replace(hash="")) for stream, head in heads.items()}
        yield encode_line(ExportEnd(events=events, streams=ends))


def _live(reader: Reader) -> Iterator[Stored]:
    position = 0
    while page := reader.follow(position):
        yield from page
        position = page[-1].position


def _archives(reader: Reader, heads: dict[StreamId, Head], paths: list[Path]) -> list[Path]:
    """Return the archive files in order if they are exactly what the sealed streams lack; raises InvalidRequest, InvalidRecord."""
    known = sorted((archive_of(path) for path in paths), key=lambda archive: (archive.stream, archive.base.sequence))
    for stream in heads:
        base = reader.archived(stream)
        at = Head()
        for archive in known:
            if archive.stream == stream and archive.base.sequence == at.sequence and archive.base.hash == at.hash:
                at = _end_of(archive.path)
        if base is not None and (at.sequence, at.hash) != (base.sequence, base.hash):
            raise InvalidRequest(
                f"export: {stream} is sealed at {base.sequence}, the archive files given reach {at.sequence}; name all of them",
                stream=stream, sealed=base.sequence, found=at.sequence,
            )  # fmt: skip
    unknown = [archive.path for archive in known if archive.stream not in heads or reader.archived(archive.stream) is None]
    if unknown:
        raise InvalidRequest(f"export: {unknown[0]} is no archive of this ledger", path=str(unknown[0]))
    return [archive.path for archive in known]


def _end_of(path: Path) -> Head:
    """Return the head after an archive's last event, all of it checked."""
    end = Head()
    for stored in archived_events(path):
        end = Head(sequence=stored.sequence, hash=stored.hash)
    return end


# --- in -----------------------------------------------------------------------------------------------------------------------------


def import_lines(lines: Iterable[bytes], target: Store, *, check: Check | None = None, source: str = "import") -> int:
    """Take an export into an empty ledger, bytes and hashes unchanged; returns the number of events.

    All or nothing. Raises InvalidRequest if the ledger is not empty, InvalidRecord with the number of the line that does not hold.
    """
    with target.transaction(purpose="import", timeout_s=IMPORT_TIMEOUT_S) as tx:
        if tx.last_position() or tx.heads():
            raise InvalidRequest(f"import into {target.name}: it has events already, only an empty ledger takes an import")
        return _take(lines, tx, check, source)


def _take(lines: Iterable[bytes], tx: Transaction, check: Check | None, source: str) -> int:
    events, position, number, ended = 0, 0, 0, False
    for number, raw in enumerate(lines, 1):
        line = decode_line(raw, number, source)
        if number == 1:
            _check_header(line, source)
            continue
        if ended:
            raise InvalidRecord(f"{source}, line {number} stands after the end", line=number)
        if isinstance(line, EventLine):
            if line.position <= position:
                raise InvalidRecord(f"{source}, line {number}: position {line.position} does not follow {position}", line=number)
            position = line.position
            try:
                _take_event(line, tx, check)
            except (Invalid, Conflict, LedgerBroken) as error:
                raise InvalidRecord(f"{source}, line {number}: {error.message}", line=number, **_facts(error)) from error
            events += 1
        elif isinstance(line, ExportEnd):
            found = {stream: stream_end(head) for stream, head in tx.heads().items()}
            if line.events != events or line.streams != found:
                raise InvalidRecord(f"{source}, line {number}: the end does not fit the {events} events before it", line=number)
            ended = True
        else:
            raise InvalidRecord(f"{source}, line {number} is neither an event nor the end", line=number)
    if not ended:
        raise InvalidRecord(f"{source} is cut short after line {number}: it has no end", line=number)
    return events


def _check_header(line: object, source: str) -> None:
    if not isinstance(line, ExportHeader):
        raise InvalidRecord(f"{source} is not an export: its first line is no header", line=1)
    if line.scrubbed:
        raise InvalidRecord(f"{source} was scrubbed: it is a report, its events are not the ledger's", line=1)


def _take_event(line: EventLine, tx: Transaction, check: Check | None) -> None:
    """Check one event and append it; raises what is wrong with it."""
    raw = bytes(line.event)
    try:
        envelope = open_envelope(raw)
        event = open_event(envelope)
    except UnicodeDecodeError as error:
        raise InvalidRecord(f"the event is not UTF-8: {error}") from error
    kind, _, rest = envelope.stream.partition(":")
    if kind not in STREAM_KINDS or not rest or not envelope.stream.isprintable() or len(envelope.stream) > STREAM_LENGTH_MAX:
        raise InvalidRecord(f"{envelope.stream!r} is not a stream", found=envelope.stream)
    if not (0 <= envelope.at_ms <= NUMBER_MAX and 0 <= envelope.epoch <= NUMBER_MAX):
        raise InvalidRecord(f"time {envelope.at_ms} or epoch {envelope.epoch} is out of bounds")
    if isinstance(event, ClaimHeld):
        claim_id(event.claim)
        name(event.consumer, "consumer")
        name(event.owner, "owner")
    stored = Stored(line.position, envelope.stream, envelope.sequence, raw, line.hash)
    tx.append_sealed([stored])
    if check is not None:
        check(stored, envelope, event)


def _facts(error: EarmarkError) -> dict[str, object]:
    return {key: value for key, value in error.facts.items() if key != "line"}
