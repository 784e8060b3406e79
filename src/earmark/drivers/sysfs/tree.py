"""Small files below a root that stands for `/`.

Rules of this file: nothing here raises for what a file holds or for a file that is not there: absent is None, and what is there but
cannot be read or understood is None with a note that says where and why. Reads are bounded and never block.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

FILE_BYTES_MAX = 16 * 1024 * 1024
READ_BYTES = 65536
"""One read: sysctl files refuse buffers that the kernel cannot allocate in one piece."""
NAMES_MAX = 65536
NOTES_MAX = 100
NOTE_LENGTH_MAX = 300
QUOTED_MAX = 40

ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENODEV, errno.ENXIO, errno.ESRCH})
"""What the kernel answers for a thing that does not exist or has just gone."""

T = TypeVar("T")


class Tree:
    """One look at the files below `root`. `notes` collects, in order and once each, what could not be read or is odd."""

    def __init__(self, root: Path = Path("/")) -> None:
        self.root = root
        self.is_host = os.path.realpath(root) == "/"
        self._notes: dict[str, None] = {}
        self._unsaid = 0

    @property
    def notes(self) -> tuple[str, ...]:
        """What was noted so far; if more than NOTES_MAX, the last one counts the rest."""
        more = (f"and {self._unsaid} more notes",) if self._unsaid else ()
        return (*self._notes, *more)

    def note(self, text: str) -> None:
        """Note something once; unprintable characters are shown escaped."""
        shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text[:NOTE_LENGTH_MAX])
        if shown in self._notes:
            return
        if len(self._notes) < NOTES_MAX:
            self._notes[shown] = None
        else:
            self._unsaid += 1

    def text(self, path: str) -> str | None:
        """Return a file's text without outer white space and NULs; None if it is absent or, with a note, unreadable."""
        try:
            raw = self._read(path)
            return None if raw is None else raw.decode("utf-8").strip(" \t\r\n\0")
        except UnicodeDecodeError:
            self.note(f"{path}: is not text")
        except (OSError, ValueError) as error:
            self._unreadable(path, error)
        return None

    def parsed(self, path: str, parse: Callable[[str], T | None], what: str) -> T | None:
        """Return what `parse` makes of a file; None if it is absent or, with a note, unreadable or not `what`."""
        text = self.text(path)
        if text is None:
            return None
        value = parse(text)
        if value is None:
            self.note(f"{path}: {text[:QUOTED_MAX]!r} is not {what}")
        return value

    def names(self, path: str) -> tuple[str, ...]:
        """Return the names in a folder, sorted; none if it is absent or, with a note, unreadable."""
        try:
            names = sorted(entry.name for entry in self._place(path).iterdir())
        except (OSError, ValueError) as error:
            self._unreadable(path, error)
            return ()
        if len(names) > NAMES_MAX:
            self.note(f"{path}: only the first {NAMES_MAX} of {len(names)} names were looked at")
        return tuple(names[:NAMES_MAX])

    def link(self, path: str) -> str | None:
        """Return the last part of what a symbolic link points to; None if it is absent or, with a note, no link."""
        try:
            return self._place(path).readlink().name
        except (OSError, ValueError) as error:
            self._unreadable(path, error)
            return None

    def exists(self, path: str) -> bool:
        """Say whether something is at a path; a place that cannot be looked at is noted and counts as absent."""
        try:
            self._place(path).lstat()
        except (OSError, ValueError) as error:
            self._unreadable(path, error)
            return False
        return True

    def _place(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    def _read(self, path: str) -> bytes | None:
        descriptor = os.open(self._place(path), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                self.note(f"{path}: is not a regular file")
                return None
            parts = bytearray()
            while len(parts) <= FILE_BYTES_MAX:
                part = os.read(descriptor, READ_BYTES)
                if not part:
                    return bytes(parts)
                parts += part
        finally:
            os.close(descriptor)
        self.note(f"{path}: is larger than {FILE_BYTES_MAX} bytes")
        return None

    def _unreadable(self, path: str, error: OSError | ValueError) -> None:
        if isinstance(error, OSError) and error.errno in ABSENT:
            return
        reason = (error.strerror or type(error).__name__) if isinstance(error, OSError) else str(error)
        self.note(f"{path}: {reason}")
