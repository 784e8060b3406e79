"""What /proc shows of processes.

Rules of this file: a process that is not shown is not therefore gone (hidepid, another pid namespace); who reads must ask the kernel by
number before calling anything dead. Sources: proc_pid_stat(5), proc(5) on hidepid, pidfd_open(2), Linux 6.12.
"""

import errno
import os
import re
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import NamedTuple

READ_BYTES = 1 << 16
READS_MAX = 64
PID_MAX = 1 << 22
"""PID_MAX_LIMIT of the kernel: no pid is larger."""
NANOSECONDS = 1_000_000_000
CAP_SYS_PTRACE = 19
WHOLE_UID_MAP = ["0", "0", "4294967295"]
ENDED = frozenset("ZXx")
STAT_FIELDS_MIN = 20
MOUNT_FIELDS_MIN = 5
OPEN_HIDEPID = frozenset({"hidepid=0", "hidepid=off"})
OCTAL = re.compile(r"\\([0-7]{3})")


class Stat(NamedTuple):
    """The fields of /proc/PID/stat that say who a process is. `start_ticks` is in clock ticks since boot."""

    pid: int
    state: str
    parent: int
    session: int
    threads: int
    start_ticks: int

    @property
    def ended(self) -> bool:
        """Say whether nothing of it runs: a zombie without other threads (a dead leader's threads may live on)."""
        return self.state in ENDED and self.threads <= 1


class Unseen(Enum):
    """Why a process cannot be looked at: /proc does not show it, or does not let us read it."""

    ABSENT = "absent"
    DENIED = "denied"


def parse_stat(text: str) -> Stat | None:
    """Return the fields of a stat line; None if it is not one. The name between the brackets may hold anything, brackets too."""
    before, opened, rest = text.partition("(")
    _, closed, after = rest.rpartition(")")
    fields = after.split()
    if not opened or not closed or len(fields) < STAT_FIELDS_MIN or len(fields[0]) != 1:
        return None
    numbers = [before.strip(), fields[1], fields[3], fields[17], fields[19]]
    if not all(number.isascii() and number.lstrip("-").isdigit() and len(number) <= 20 for number in numbers):  # noqa: PLR2004 - digits of 2^64
        return None
    pid, parent, session, threads, start = (int(number) for number in numbers)
    return Stat(pid, fields[0], parent, session, threads, start) if pid > 0 and start >= 0 else None


class View(NamedTuple):
    """How we and a /proc stand to each other; it stays for the life of a process.

    `ours` says whether its numbers are those of our own pid namespace, whose inode is `namespace` (0: the kernel has none, None: cannot be
    read); `offset_ns` is what our time namespace adds to the start times that we are shown.
    """

    pid: int
    ours: bool
    namespace: int | None
    offset_ns: int


class ProcFolder:
    """The processes that the /proc mounted at `root` shows to us."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._first_view = self._look_around()

    @property
    def view(self) -> View:
        """How we stand to this /proc: as found at first, or, in a forked process, as it is now."""
        return self._first_view if self._first_view.pid == os.getpid() else self._look_around()

    def _look_around(self) -> View:
        return View(os.getpid(), self._is_ours(), self._namespace(), self._boot_offset_ns())

    def text(self, name: str) -> str:
        """Return a file's text, any byte as one character; raises OSError."""
        descriptor = os.open(f"{self.root}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            parts = [os.read(descriptor, READ_BYTES)]
            while parts[-1] and len(parts) < READS_MAX:
                parts.append(os.read(descriptor, READ_BYTES))
        finally:
            os.close(descriptor)
        return b"".join(parts).decode("latin-1")

    def _is_ours(self) -> bool:
        """Say whether its numbers are those of our own pid namespace: NSpid then has one number, the innermost."""
        try:
            numbers = re.search(r"^NSpid:((?:\s+[0-9]{1,7})+)$", self.text("self/status"), re.MULTILINE)
            if numbers:
                return len(numbers[1].split()) == 1
            return (self.root / "self").readlink().name == str(os.getpid())
        except OSError:  # not shown here at all: then its numbers mean nothing to us
            return False

    def _namespace(self) -> int | None:
        """Return the inode of our pid namespace; 0 if the kernel has none, None if it cannot be read."""
        try:
            return (self.root / "self/ns/pid").stat().st_ino
        except FileNotFoundError:
            return 0 if (self.root / "self").exists() else None
        except OSError:  # cannot be read: the caller treats it as a namespace that is not known
            return None

    def stat(self, pid: int | str) -> Stat | Unseen:
        """Return what is shown of one process (or of "self")."""
        try:
            found = parse_stat(self.text(f"{pid}/stat"))
        except OSError as error:
            return Unseen.ABSENT if error.errno in (errno.ENOENT, errno.ESRCH) else Unseen.DENIED
        return Unseen.DENIED if found is None else found

    def pids(self) -> Iterator[int]:
        """Yield the processes that are shown; raises OSError."""
        for entry in self.root.iterdir():
            if entry.name.isascii() and entry.name.isdigit():
                yield int(entry.name)

    def number_of(self, pidfd: int) -> int | None:
        """Return the pid that this /proc shows for a pidfd of ours; None if it shows none."""
        try:
            text = self.text(f"self/fdinfo/{pidfd}")
        except OSError:  # no fdinfo here: the process cannot be found in this /proc
            return None
        match = re.search(r"^Pid:\s+([0-9]{1,7})$", text, re.MULTILINE)
        return int(match[1]) or None if match else None

    def _boot_offset_ns(self) -> int:
        """Return what our time namespace adds to the start times shown to us, in nanoseconds (time_namespaces(7))."""
        try:
            text = self.text("self/timens_offsets")
        except OSError:  # a kernel without time namespaces adds nothing
            return 0
        match = re.search(r"^boottime\s+(-?[0-9]{1,18})\s+(-?[0-9]{1,9})\s*$", text, re.MULTILINE)
        return int(match[1]) * NANOSECONDS + int(match[2]) if match else 0

    def shows_all(self) -> bool:
        """Say whether every process of the namespace is shown to us: no hidepid, or we may see through it."""
        options = self._mount_options()
        if options is None:
            return False
        hidden = [option for option in options if option.startswith("hidepid=") and option not in OPEN_HIDEPID]
        return not hidden or self._sees_through()

    def _mount_options(self) -> frozenset[str] | None:
        """The options of the proc file system mounted at our root, None if none is mounted exactly there."""
        try:
            lines = self.text("self/mountinfo").splitlines()
            place = str(self.root.resolve(strict=True))
        except OSError:  # without the table nothing is known of the mount
            return None
        found = None
        for line in lines:
            before, _, after = line.partition(" - ")
            fields, kind = before.split(), after.split()
            if len(fields) < MOUNT_FIELDS_MIN or OCTAL.sub(lambda octal: chr(int(octal[1], 8)), fields[4]) != place:
                continue
            found = frozenset(",".join([*fields[5:6], *kind[2:3]]).split(",")) if kind[:1] == ["proc"] else None
        return found

    def _sees_through(self) -> bool:
        try:
            capable = re.search(r"^CapEff:\s+([0-9a-f]{16})$", self.text("self/status"), re.MULTILINE)
            whole = self.text("self/uid_map").split() == WHOLE_UID_MAP
        except OSError:  # what we may do is not known
            return False
        return whole and capable is not None and bool(int(capable[1], 16) >> CAP_SYS_PTRACE & 1)
