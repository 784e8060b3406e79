"""The keeper and the child of a gated command: what runs between fork and exec or exit.

Rules of this file: nothing here returns into the program that was forked, and no exception leaves; no ledger, no lock, no log. The keeper
alone reaps the child; it holds nothing of the user's open, and ends when nothing of the command is left.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import shutil
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

import msgspec

NOT_FOUND = 127
NOT_EXECUTABLE = 126
NOT_STARTED = 125
BY_SIGNAL = 128
"""Exit statuses as a POSIX shell gives them (POSIX.1-2017, XCU 2.8.2); 125 as env(1) and nohup(1) do."""

PR_SET_CHILD_SUBREAPER = 36
"""linux/prctl.h; prctl(2): orphaned descendants become children of this process."""

SETTLE_S = 0.25
"""How long the keeper gives what the command left behind to end by itself before it reports that something is left."""
POLL_S = 0.02
LINE_BYTES_MAX = 4096

TO_GROUP = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTSTP, signal.SIGCONT, signal.SIGWINCH)
"""What a terminal sends to the whole foreground group goes to the child's whole group."""
TO_CHILD = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
FORWARDED = TO_GROUP + TO_CHILD


class Word(msgspec.Struct, frozen=True):
    """What the runner tells the keeper: to pass a signal on, or which folders to remove at the end."""

    signal: int | None = None
    remove: tuple[str, ...] = ()


def be_keeper(command: Sequence[str], gate: int, control: int, reports: int, *, closing: Sequence[int]) -> NoReturn:
    """Be the keeper: fork the child, pass signals on, reap; end when nothing of the command is left. Never returns."""
    try:
        for descriptor in closing:
            os.close(descriptor)
        os.setsid()
        become_subreaper()
        child = os.fork()
        if child == 0:
            be_child(command, gate, control, reports)
        os.close(gate)
        with suppress(PermissionError, ProcessLookupError):  # the child does it too; whoever comes first
            os.setpgid(child, child)
        os.write(reports, f"pid {child}\n".encode())
        keep(child, control, reports)
    finally:
        os._exit(0)


def keep(child: int, control: int, reports: int) -> None:
    """Pass signals on and reap until no descendant is left; report the child's end, and whether anything else was left then."""
    wake, noticed = os.pipe()
    os.set_blocking(noticed, False)
    signal.set_wakeup_fd(noticed, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, take_note)
    for number in FORWARDED:
        signal.signal(number, signal.SIG_IGN)
    leave_world((wake, noticed, control, reports))
    sources = [wake, control]
    told, folders = b"", list[str]()
    status: int | None = None
    reported_by: float | None = None
    while True:
        ended, left = reap_children(child)
        if ended is not None:
            status, reported_by = ended, time.monotonic() + SETTLE_S
        if not left:
            remove_folders(folders)
        if reported_by is not None and (not left or time.monotonic() >= reported_by):
            with suppress(BrokenPipeError):  # the runner is gone
                os.write(reports, f"end {status} {int(left)}\n".encode())
            os.close(reports)
            reported_by = None
        if not left:
            return
        ready, _, _ = select.select(sources, [], [], None if reported_by is None else POLL_S)
        if wake in ready:
            os.read(wake, 64)
        if control in ready:
            got = os.read(control, LINE_BYTES_MAX)
            if not got:
                sources.remove(control)  # the runner is gone; stay for the command's sake
            *lines, told = (told + got).split(b"\n")
            for word in (msgspec.json.decode(line, type=Word) for line in lines):
                folders.extend(word.remove)
                if word.signal is not None and status is None:
                    send(child, word.signal)


def remove_folders(folders: Sequence[str]) -> None:
    """Remove the command's cgroups: empty by now, unless somebody else moved into them."""
    for folder in folders:
        with suppress(OSError):
            Path(folder).rmdir()


def be_child(command: Sequence[str], gate: int, control: int, reports: int) -> NoReturn:
    """Be the child: wait at the gate, then become the command. Never returns."""
    try:
        os.setpgid(0, 0)
        os.close(control)
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)  # the interpreter ignores them, and a command would inherit that
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        line = bytearray()
        while not line.endswith(b"\n"):
            got = os.read(gate, LINE_BYTES_MAX)
            if not got:
                os._exit(NOT_STARTED)
            line += got
        environment = {**os.environ, **msgspec.json.decode(line, type=dict[str, str])}
        code = become(command, environment)
        os.write(reports, f"exec {code}\n".encode())
        os._exit(NOT_FOUND if code in (errno.ENOENT, errno.ENOTDIR) else NOT_EXECUTABLE)
    finally:
        os._exit(NOT_STARTED)


def become(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Exec a command, found by PATH; returns the error number if that cannot be. A script without #! goes to /bin/sh (execvp(3))."""
    try:
        os.execvpe(command[0], list(command), dict(environment))  # noqa: S606 - to become the user's command is what this is for
    except OSError as error:
        code = error.errno or errno.EACCES
    path = shutil.which(command[0], path=environment.get("PATH")) if code == errno.ENOEXEC else None
    if path is not None:
        with suppress(OSError):
            os.execve("/bin/sh", ["sh", path, *command[1:]], dict(environment))  # noqa: S606 - as above
    return code


def leave_world(needed: Sequence[int]) -> None:
    """Keep nothing of the user's open or busy: the keeper stays longer than the runner, and must not hold a pipe, a lock or a folder."""
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    with suppress(OSError):
        for descriptor in [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]:
            if descriptor > 2 and descriptor not in needed:  # noqa: PLR2004 - standard input, output and error
                with suppress(OSError):
                    os.close(descriptor)
    os.chdir("/")


# --- small steps ----------------------------------------------------------------------------------------------------------------------


def become_subreaper() -> bool:
    """Let orphaned descendants become children of this process (prctl(2), Linux 3.4); says whether the kernel does."""
    try:
        prctl = ctypes.CDLL(None, use_errno=True).prctl
    except (OSError, AttributeError):
        return False
    return bool(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)


def send(child: int, number: int) -> None:
    """Signal the child, or its whole group where a terminal would; no error if it has just ended."""
    with suppress(ProcessLookupError, PermissionError):  # a command that changed its user cannot be signalled by us
        if number in TO_GROUP:
            os.killpg(child, number)
        else:
            os.kill(child, number)


def reap_children(child: int) -> tuple[int | None, bool]:
    """Reap all that has ended; returns the child's wait status if it was among them, and whether any children are left."""
    status: int | None = None
    while True:
        try:
            found, code = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return status, False
        if not found:
            return status, True
        if found == child:
            status = code


def reap(pid: int, timeout_s: float) -> bool:
    """Reap one child within a time; says whether it has ended. No error if it is not our child."""
    until = time.monotonic() + timeout_s
    while True:
        try:
            if os.waitpid(pid, os.WNOHANG)[0]:
                return True
        except ChildProcessError:
            return True
        if time.monotonic() >= until:
            return False
        time.sleep(POLL_S / 4)


def exit_status(status: int) -> int:
    """Return a wait status as a shell's exit status: 128 + n for signal n."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else BY_SIGNAL - code


def write_all(descriptor: int, text: bytes) -> None:
    """Write all of a text."""
    while text:
        text = text[os.write(descriptor, text) :]


def take_note(number: int, frame: FrameType | None) -> None:
    """Do nothing: the signal's number stands in the wakeup pipe."""
