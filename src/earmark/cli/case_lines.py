"""Reads lines of cases and answers them: here, or in several processes; the answers come in the order of the lines.

Rules of this file: nothing grows with the file: a line is bounded, lines go in bundles, so many bundles are under way. A line that is no case
has an answer too.
"""

from __future__ import annotations

import gzip
import signal
import sys
import zlib
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from io import BufferedReader, RawIOBase
from multiprocessing import get_context
from pathlib import Path
from typing import IO, NamedTuple, cast

import msgspec

from earmark.cli.output_cases import CaseCellOut, CaseOut, CertificateOut
from earmark.cli.phrases import reason_line
from earmark.cli.refusals import certificate_words
from earmark.cli.request_options import shown
from earmark.clock import SystemClock
from earmark.core.fit.cases.answers import Answer, answer, malformed
from earmark.core.fit.cases.format import LINE_BYTES_MAX, name_of, read_case
from earmark.errors import HostUnavailable, InvalidRecord

GZIP_MAGIC = b"\x1f\x8b"
BUNDLE_LINES, BUNDLE_BYTES = 32, 1 << 20
BUNDLES_AHEAD = 3
"""So many bundles are under way for each process."""

FITS, NO, INVALID, UNKNOWN, MALFORMED = "fits", "does not fit", "invalid request", "not known", "no case"
OUTCOMES = (FITS, NO, INVALID, UNKNOWN, MALFORMED)


class Line(NamedTuple):
    """One line that says something: its number from 1, and its bytes; `fault` says why it could not be read."""

    number: int
    raw: bytes
    fault: str | None = None


class Done(NamedTuple):
    """One answered line: what came of it, what it is counted under, how long it took, and its answer as JSON (b"": not wanted).

    `fault` says what is wrong with a line that is no case, `passed_over` which words of the request were not looked at.
    """

    line: int
    name: str
    outcome: str
    kinds: tuple[str, ...]
    took_us: int
    text: bytes
    fault: str = ""
    passed_over: tuple[str, ...] = ()


Bundle = list[Line]


@contextmanager
def opened(source: str) -> Iterator[IO[bytes]]:
    """Open a file of lines (`-`: standard input), plain or gzipped; raises InvalidRecord if it cannot be opened."""
    with _read(source):
        plain = sys.stdin.buffer if source == "-" else Path(source).open("rb")  # noqa: SIM115 - closed below, standard input never
    try:
        stream = plain if isinstance(plain, BufferedReader) else BufferedReader(cast("RawIOBase", plain))
        with _read(source):
            zipped = stream.peek(len(GZIP_MAGIC)).startswith(GZIP_MAGIC)
        yield cast("IO[bytes]", gzip.GzipFile(fileobj=stream) if zipped else stream)
    finally:
        if source != "-":
            plain.close()


@contextmanager
def _read(source: str) -> Iterator[None]:
    """Say of what goes wrong in the block that the source cannot be read: raises InvalidRecord."""
    try:
        yield
    except gzip.BadGzipFile:  # some lines of it can be read
        raise
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        raise InvalidRecord(f"cases {shown(source)} cannot be read: {reason or error}", source=source) from error


def lines_of(stream: IO[bytes], source: str) -> Iterator[Line]:
    """Yield the lines of a stream but for empty ones; a line that is too long, or where the file breaks off, has a fault.

    Raises InvalidRecord where the stream cannot be read, or is not UTF-8 from its head on.
    """
    number = 0
    while True:
        number += 1
        try:
            with _read(source):
                raw, long = _line(stream)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            yield Line(number, b"", f"the gzipped file breaks off or is damaged: {error}")
            return
        if not raw:
            return
        if number == 1:
            if raw.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) or raw[:2].count(b"\0") == 1:
                raise InvalidRecord(f"cases {shown(source)}: not UTF-8 but UTF-16 or UTF-32", source=source)
            raw = raw.removeprefix(BOM_UTF8)
        if long:
            yield Line(number, b"", f"the line is longer than {LINE_BYTES_MAX} bytes")
        elif raw.strip():
            yield Line(number, raw)


def _line(stream: IO[bytes]) -> tuple[bytes, bool]:
    """Return the next line, and whether it is too long: then it is passed over to its end."""
    raw = rest = stream.readline(LINE_BYTES_MAX + 1)
    long = len(raw) > LINE_BYTES_MAX and not raw.endswith(b"\n")
    while long and rest and not rest.endswith(b"\n"):
        rest = stream.readline(LINE_BYTES_MAX)
    return raw, long


def answers(lines: Iterable[Line], *, jobs: int, texts: bool) -> Iterator[Done]:
    """Yield the answers to lines, in their order, from so many processes (1: this one)."""
    if jobs == 1:
        for line in lines:
            yield _done(line, texts=texts)
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_deaf) as workers:
        under_way: deque[Future[list[Done]]] = deque()
        try:
            for bundle in _bundles(lines):
                under_way.append(workers.submit(answer_bundle, bundle, texts))
                if len(under_way) >= jobs * BUNDLES_AHEAD:
                    yield from under_way.popleft().result()
            while under_way:
                yield from under_way.popleft().result()
        except BrokenExecutor as error:
            raise HostUnavailable(f"one of the {jobs} processes that answer cases died: {error}", jobs=jobs) from error
        finally:
            workers.shutdown(wait=False, cancel_futures=True)


def _deaf() -> None:
    """Leave Ctrl-C to the process that reads the lines."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def answer_bundle(bundle: Bundle, texts: bool) -> list[Done]:
    """Answer some lines."""
    return [_done(line, texts=texts) for line in bundle]


def _bundles(lines: Iterable[Line]) -> Iterator[Bundle]:
    bundle: Bundle = []
    size = 0
    for line in lines:
        bundle.append(line)
        size += len(line.raw)
        if len(bundle) >= BUNDLE_LINES or size >= BUNDLE_BYTES:
            yield bundle
            bundle, size = [], 0
    if bundle:
        yield bundle


def _done(line: Line, *, texts: bool) -> Done:
    clock = SystemClock()
    began = clock.monotonic_s()
    found = _answer(line)
    took = int((clock.monotonic_s() - began) * 1_000_000)
    outcome, kinds = kinds_of(found)
    name = f"line {line.number}" if found.id is None else str(found.id)
    text = msgspec.json.encode(case_out(line.number, found)) if texts else b""
    fault = found.message if outcome == MALFORMED else ""
    return Done(line.number, name, outcome, kinds, took, text, fault, found.passed_over)


def _answer(line: Line) -> Answer:
    if line.fault is not None:
        return malformed(None, InvalidRecord(line.fault))
    try:
        return answer(read_case(line.raw))
    except InvalidRecord as error:
        return malformed(name_of(line.raw), error)


def kinds_of(found: Answer) -> tuple[str, tuple[str, ...]]:
    """Return what came of a case, and the kinds of reasons or errors that it counts under."""
    if found.fits:
        return FITS, ()
    if found.error is not None:
        return (MALFORMED, ()) if found.fits is None else (INVALID, (found.error,))
    reasons = found.refusal.reasons if found.refusal is not None else ()
    kinds = dict.fromkeys(f"{reason.code.replace('_', ' ')}: {reason.resource.partition(':')[0]}" for reason in reasons)
    return (UNKNOWN if found.fits is None else NO), tuple(kinds)


def case_out(line: int, found: Answer) -> CaseOut:
    """Return the answer to a case in the shape of --json."""
    refusal = found.refusal
    words = [found.message] if found.message else []
    certificate = None
    if refusal is not None:
        proof = refusal.certificate
        said = certificate_words(proof) if proof is not None and proof.kind != "shortfall" else ""
        words += [said] if said else []
        words += [reason_line(reason) for reason in refusal.reasons if not said or reason.code not in ("hall", "together")]
        if proof is not None:
            certificate = CertificateOut(
                kind=proof.kind, guest_cells=list(proof.guest_cells), host_cells=list(proof.host_cells),
                requirements=list(proof.requirements), verified=bool(found.verified),
            )  # fmt: skip
    return CaseOut(
        line=line, id=found.id, fits=found.fits, error=found.error,
        cells=None if found.cells is None else msgspec.convert(found.cells, list[CaseCellOut], from_attributes=True),
        pci=None if found.pci is None else [list(group) for group in found.pci], reasons=words, certificate=certificate,
        passed_over=list(found.passed_over),
    )  # fmt: skip
