"""Reads recorded lives of instances: JSON lines, plain or gzipped, one sequence of operations a line.

Rules of this file: nothing of a file is used before it is checked, types first, then what must agree; a line that is not understood is one
`Malformed` with its file, line and place, and the others are read all the same.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
from tools.account_checks import Disagrees, check
from tools.account_format import Sequence

LINE_BYTES_MAX = 64 << 20
GZIP_MAGIC = b"\x1f\x8b"
PLACE = re.compile(r" - at `\$?\.?(.*)`$")


class Malformed(NamedTuple):
    """A line that is not a sequence: where, and what is wrong."""

    file: str
    line: int
    place: str
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.place + ': ' if self.place else ''}{self.message}"


def read(path: Path) -> Iterator[Sequence | Malformed]:
    """Yield each sequence of a file, and what is wrong with each line that is none; raises OSError if it cannot be opened."""
    number = 0
    try:
        for number, raw in enumerate(_lines(path), 1):
            if raw.strip():
                yield _sequence(raw, str(path), number)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        yield Malformed(str(path), number + 1, "", f"the gzipped file breaks off or is damaged: {error}")


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as plain:
        zipped = plain.read(len(GZIP_MAGIC)) == GZIP_MAGIC
        plain.seek(0)
        stream = gzip.GzipFile(fileobj=plain) if zipped else plain
        while raw := stream.readline(LINE_BYTES_MAX):
            yield raw


def _sequence(raw: bytes, file: str, number: int) -> Sequence | Malformed:
    try:
        found = msgspec.json.decode(raw, type=Sequence)
        check(found)
    except Disagrees as error:
        return Malformed(file, number, error.place, str(error))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        match = PLACE.search(str(error))
        return Malformed(file, number, match[1] if match else "", PLACE.sub("", str(error)))
    return found
