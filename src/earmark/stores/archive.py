"""Archive files: where a stream's sealed events are moved to, and how they are read again.

Rules of this file: a file holds a header, the events with their bytes unchanged, and an end with their number and the last hash. It is complete
and durable before anything is deleted, and the deletion is one transaction that first checks that nothing has moved.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from earmark.core.ledger.codec import Head, Stored, check_link, open_envelope
from earmark.core.model.ids import StreamId
from earmark.errors import InvalidRecord, InvalidRequest, OutcomeUnknown
from earmark.stores.contract import Reader, Snapshot, Store
from earmark.stores.guards import check_snapshot
from earmark.stores.lines import FORMAT_VERSION, LINE_BYTES_MAX, ArchiveEnd, ArchiveHeader, EventLine, decode_line, encode_line
from earmark.stores.os_errors import os_translated
from earmark.stores.safe_files import NO_TRICKS, flush_folder


class Written(NamedTuple):
    """What an archive file holds: its last event's position and the head there."""

    position: int
    end: Head


def seal_stream(store: Store, snapshot: Snapshot, archive: Path) -> int:
    """Move a stream's events up to a snapshot into a new file; returns how many were moved, 0 if it is sealed there already.

    Raises InvalidRequest if the snapshot does not stand on an event or the file exists, ChainBroken if the chain does not hold,
    SequenceConflict if another process sealed the stream meanwhile.
    """
    with store.reading() as reader:
        base = reader.archived(snapshot.stream) or Head()
        found = reader.read(snapshot.stream, snapshot.sequence - 1, 1)
        at = found[0].hash if found and found[0].sequence == snapshot.sequence else None
        check_snapshot(snapshot, reader.head(snapshot.stream), base, at)
        if snapshot.sequence == base.sequence:
            return 0
        written = write_archive(archive, store.ledger_id, reader, snapshot, base)
    try:
        with store.transaction(purpose=f"seal {snapshot.stream}") as tx:
            return tx.drop_archived(snapshot, base, written.end, written.position)
    except OutcomeUnknown:
        raise
    except BaseException:
        archive.unlink(missing_ok=True)
        raise


def write_archive(archive: Path, ledger_id: str, reader: Reader, snapshot: Snapshot, base: Head) -> Written:
    """Write the events after `base` up to the snapshot, checking each link; the file is durable when this returns.

    Raises InvalidRequest if the file exists, ChainBroken, LedgerFull, LedgerReadOnly.
    """
    stream = snapshot.stream
    head, position, events = base, 0, 0
    try:
        with os.fdopen(os.open(archive, os.O_WRONLY | os.O_CREAT | os.O_EXCL | NO_TRICKS, 0o600), "wb") as file:
            try:
                file.write(
                    encode_line(
                        ArchiveHeader(version=FORMAT_VERSION, ledger=ledger_id, stream=stream, after=base.sequence, previous=base.hash)
                    )
                )
                while head.sequence < snapshot.sequence:
                    for stored in reader.read(stream, head.sequence, min(1000, snapshot.sequence - head.sequence)):
                        head, position, events = check_link(stored, head), stored.position, events + 1
                        file.write(encode_line(EventLine(position=position, hash=stored.hash, event=msgspec.Raw(stored.raw))))
                file.write(encode_line(ArchiveEnd(events=events, sequence=head.sequence, hash=head.hash)))
                file.flush()
                os.fsync(file.fileno())
                flush_folder(archive.parent)
            except BaseException:
                archive.unlink(missing_ok=True)
                raise
    except FileExistsError as error:
        raise InvalidRequest(f"seal {stream}: {archive} exists, choose another name", path=str(archive)) from error
    except OSError as error:
        raise os_translated(error, f"seal {stream} into", str(archive)) from error
    return Written(position, head)


class Archive(NamedTuple):
    """What the header of an archive file says."""

    path: Path
    ledger: str
    stream: StreamId
    base: Head


def archive_of(path: Path) -> Archive:
    """Return what an archive's first line says; raises InvalidRecord."""
    for number, raw in _raw_lines(path):
        line = decode_line(raw, number, str(path))
        if not isinstance(line, ArchiveHeader):
            break
        return Archive(path, line.ledger, line.stream, Head(sequence=line.after, hash=line.previous))
    raise InvalidRecord(f"{path} is not an archive: its first line is no header", path=str(path), line=1)


def archived_events(path: Path) -> Iterator[Stored]:
    """Yield the events of an archive file in order, checking every hash and link, and at last the end; raises InvalidRecord, ChainBroken."""
    header = archive_of(path)
    head = header.base
    events, ended = 0, False
    for number, raw in _raw_lines(path):
        line = decode_line(raw, number, str(path))
        if number == 1:
            continue
        if ended:
            raise InvalidRecord(f"{path}, line {number} stands after the end", path=str(path), line=number)
        if isinstance(line, EventLine):
            envelope = open_envelope(bytes(line.event))
            stored = Stored(line.position, header.stream, envelope.sequence, bytes(line.event), line.hash)
            head, events = check_link(stored, head), events + 1
            yield stored
        elif isinstance(line, ArchiveEnd) and (line.events, line.sequence, line.hash) == (events, head.sequence, head.hash):
            ended = True
        else:
            raise InvalidRecord(f"{path}, line {number} is neither an event nor the end that fits", path=str(path), line=number)
    if not ended:
        raise InvalidRecord(f"{path} is cut short: it has no end", path=str(path), line=events + 2)


def _raw_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the lines of a file with their numbers from 1, reading no more of one than is allowed."""
    try:
        with path.open("rb") as file:
            number = 0
            while raw := file.readline(LINE_BYTES_MAX + 2):
                number += 1
                yield number, raw
    except OSError as error:
        raise os_translated(error, "read the archive", str(path)) from error
