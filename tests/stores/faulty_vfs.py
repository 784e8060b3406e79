"""A disk that fails when it is told to: an SQLite file layer between the program and the real files.

Two kinds of harm: an operation fails with an error (once, or from then on), or the power goes: every later operation fails, and what was not
flushed is lost, all of it or a random part, in any order of its writes.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Literal

import apsw

Harm = Literal["io", "full", "power"]
Operation = Literal["write", "sync", "truncate"]


class FaultyVfs(apsw.VFS):
    """A file layer that counts writes, flushes and truncations, and fails at the `at`-th of them (0: never).

    `harm` io and full: that one fails (`lasting`: and all later ones). power: that one and everything after it fails; call `lose` then.
    `only`: files whose name does not end so are neither counted nor harmed.
    """

    def __init__(self, name: str, *, at: int = 0, harm: Harm = "io", lasting: bool = False) -> None:
        self.vfs_name = name
        self.at = at
        self.harm = harm
        self.lasting = lasting
        self.only = ""
        self.operations: list[Operation] = []
        self.dead = False
        self.pending: dict[str, list[tuple[int, bytes] | int]] = {}
        super().__init__(name, "")

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:  # noqa: N802  SQLite's name
        """Open a file of this layer."""
        return FaultyFile(self, name, flags)

    def count(self, operation: Operation, name: str | None) -> None:
        """Note an operation and raise if it is its turn to fail."""
        if name is None or not name.endswith(self.only):
            return
        self.operations.append(operation)
        if self.dead:
            raise apsw.IOError("the power is off")
        number = len(self.operations)
        if not self.at or number < self.at or (number > self.at and not self.lasting):
            return
        if self.harm == "power":
            self.dead = True
            raise apsw.IOError("the power goes off")
        if self.harm == "full" and operation == "write":
            raise apsw.FullError("no space is left")
        raise apsw.IOError("the disk does not answer")

    def heal(self) -> None:
        """Let everything succeed again."""
        self.at = 0
        self.dead = False

    def lose(self, chance: random.Random, share: float) -> None:
        """Take back what was never flushed, but for a random `share` of the writes."""
        for name, writes in self.pending.items():
            path = Path(name)
            if not path.exists():
                continue
            content = bytearray(path.read_bytes())
            images = [entry for entry in reversed(writes) if chance.random() >= share]
            for entry in images:
                if isinstance(entry, int):
                    del content[entry:]
                else:
                    offset, before = entry
                    content[offset : offset + len(before)] = before
            path.write_bytes(content)
        self.pending.clear()


class FaultyFile(apsw.VFSFile):
    """One file of the layer. It remembers what stood where an unflushed write went."""

    def __init__(self, vfs: FaultyVfs, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        self._vfs = vfs
        self._name = name.filename() if isinstance(name, apsw.URIFilename) else name
        super().__init__("", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802  SQLite's name
        """Write, or fail."""
        self._vfs.count("write", self._name)
        if self._name is not None:
            pending = self._vfs.pending.setdefault(self._name, [])
            size = self.xFileSize()
            if offset < size:
                pending.append((offset, self._before(offset, min(len(data), size - offset))))
            if offset + len(data) > size:
                pending.append(size)
        super().xWrite(data, offset)

    def _before(self, offset: int, length: int) -> bytes:
        return super().xRead(length, offset)

    def xSync(self, flags: int) -> None:  # noqa: N802  SQLite's name
        """Flush, or fail; what was written before is safe then."""
        self._vfs.count("sync", self._name)
        super().xSync(flags)
        if self._name is not None:
            self._vfs.pending.pop(self._name, None)

    def xTruncate(self, newsize: int) -> None:  # noqa: N802  SQLite's name
        """Cut the file, or fail."""
        self._vfs.count("truncate", self._name)
        super().xTruncate(newsize)
