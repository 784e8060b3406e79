"""A command that waits at a gate until its identity is in the ledger, and a keeper that stays until all it left behind is gone.

Three processes: the runner (this one) forks the keeper, the keeper forks the child. The keeper leads a session of its own and is the
subreaper of all that the command starts, so that it lives exactly as long as something of it does, even after `kill -9` of the runner. The
child waits in that session at a pipe, as the leader of a process group of its own; it runs the command only after the whole go line.

Rules of this file: the fork happens first, while this process has one thread and no ledger open; a pipe that ends without the go line
(the runner is gone) means: do not start. The command has no controlling terminal, since what proves that nothing is left is its
session: it reads and writes the terminal, but job control and /dev/tty are not to be had. Signals go through the keeper, who alone reaps
the child and so never signals a stranger with its number.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import shutil
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import NamedTuple, NoReturn, Self

import msgspec

from earmark.errors import HostUnavailable, InvalidRequest, WrongUse

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
ADOPTED_POLL_S = 0.05
END_TIMEOUT_S = 5.0
GATE_BYTES_MAX = 1 << 20
LINE_BYTES_MAX = 4096

TO_GROUP = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTSTP, signal.SIGCONT, signal.SIGWINCH)
"""What a terminal sends to the whole foreground group goes to the child's whole group."""
TO_CHILD = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
FORWARDED = TO_GROUP + TO_CHILD


class Ended(NamedTuple):
    """How the command ended: its exit status as a shell gives it, whether processes of it are left, and why it could not be started."""

    status: int
    left: bool
    problem: str | None = None


class GatedChild:
    """A command that has been forked and has not been started; a context manager that starts nothing if the gate was not opened.

    `pid` is the command's process (before and after exec), `session` the session that all of it stands in.
    """

    def __init__(self, command: Sequence[str]) -> None:
        """Fork; raises InvalidRequest for an empty command, WrongUse in a process with several threads, HostUnavailable if fork fails."""
        if not command or "" in command[:1] or any("\0" in word for word in command):
            raise InvalidRequest("there is no command to run: earmark run [request] -- COMMAND", found=list(command))
        if threading.active_count() > 1:
            raise WrongUse("a command is forked before threads are started and the ledger is opened", threads=threading.active_count())
        self.command = tuple(command)
        self.pid = 0
        self.subreaper = become_subreaper()
        self._opened = False
        self._ended: Ended | None = None
        self._problem: str | None = None
        self._restore: dict[signal.Signals, Callable[[int, FrameType | None], object] | int | None] = {}
        self._wake: tuple[int, int] | None = None
        self._lines = b""
        gate, self._gate = os.pipe()
        control, self._control = os.pipe()
        self._reports, reports = os.pipe()
        try:
            self.session = os.fork()
        except OSError as error:
            raise HostUnavailable(f"a process for {command[0]!r} cannot be forked: {error.strerror}") from error
        if self.session == 0:
            be_keeper(self.command, gate, control, reports, closing=(self._gate, self._control, self._reports))
        for descriptor in (gate, control, reports):
            os.close(descriptor)
        self.pid = self._read_pid()

    # --- the gate -------------------------------------------------------------------------------------------------------------------

    def open_gate(self, environment: Mapping[str, str]) -> None:
        """Let the command start with some variables added to this process's environment; signals are forwarded from here on."""
        if self._opened:
            raise WrongUse("the gate is open already", pid=self.pid)
        line = msgspec.json.encode(dict(environment)) + b"\n"
        if len(line) > GATE_BYTES_MAX:
            raise InvalidRequest(f"an environment of {len(line)} bytes is too large", limit=GATE_BYTES_MAX)
        self._listen()
        self._opened = True
        with suppress(BrokenPipeError):  # the child has been killed at the gate: its end is reported like any other
            write_all(self._gate, line)
        os.close(self._gate)

    def close(self) -> None:
        """Close all pipes and give the signals back; a command whose gate is not open ends without having run. May be repeated."""
        if not self._opened:
            self._opened = True
            os.close(self._gate)
            reap(self.session, END_TIMEOUT_S)
        for descriptor in (self._control, self._reports):
            if descriptor >= 0:
                os.close(descriptor)
        self._control = self._reports = -1
        self._stop_listening()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    # --- the end --------------------------------------------------------------------------------------------------------------------

    def wait(self) -> Ended:
        """Wait for the command's end and forward signals meanwhile; raises WrongUse before the gate is open."""
        if not self._opened or self._wake is None:
            raise WrongUse("a command is waited for after its gate was opened", pid=self.pid)
        while self._ended is None:
            ready, _, _ = select.select([self._wake[0], self._reports], [], [])
            if self._wake[0] in ready:
                for number in os.read(self._wake[0], 64):
                    self._forward(number)
            if self._reports in ready and not self._read_reports():
                self._ended = self._adopt()
        if not self._ended.left:
            reap(self.session, END_TIMEOUT_S)
        return self._ended._replace(problem=self._problem)

    def _forward(self, number: int) -> None:
        """Pass a signal on; a stop stops the command first and then this process, which continues the command when it is continued."""
        if number not in FORWARDED:
            return
        self._tell_keeper(number)
        if number == signal.SIGTSTP:
            os.kill(os.getpid(), signal.SIGSTOP)
            self._tell_keeper(signal.SIGCONT)

    def _tell_keeper(self, number: int) -> None:
        with suppress(BrokenPipeError):  # the keeper is gone; what it left is adopted, and the end comes from there
            os.write(self._control, bytes([number]))

    def _read_pid(self) -> int:
        self._read_reports()
        if not self.pid:
            reap(self.session, END_TIMEOUT_S)
            raise HostUnavailable(f"the process for {self.command[0]!r} ended before it stood at the gate")
        return self.pid

    def _read_reports(self) -> bool:
        """Read what keeper and child have to say; False at the end of their pipe."""
        got = os.read(self._reports, LINE_BYTES_MAX)
        self._lines += got
        *lines, self._lines = self._lines.split(b"\n")
        for line in lines:
            word, *numbers = line.decode("ascii", "replace").split()
            if word == "pid":
                self.pid = int(numbers[0])
            elif word == "exec":
                self._problem = f"{self.command[0]}: {os.strerror(int(numbers[0]))}"
            elif word == "end":
                self._ended = Ended(exit_status(int(numbers[0])), left=numbers[1] == "1")
        return bool(got)

    def _adopt(self) -> Ended:
        """Wait for the command as this process's own child: the keeper was killed, and its orphans came here (prctl above)."""
        wake = self._wake[0] if self._wake else -1
        while True:
            try:
                found, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:
                return Ended(NOT_STARTED, left=True, problem="its keeper was killed and its exit status is lost")
            if found:
                break
            ready, _, _ = select.select([wake], [], [], ADOPTED_POLL_S)
            for number in os.read(wake, 64) if ready else b"":
                if number in FORWARDED:
                    send(self.pid, number)
        return Ended(exit_status(status), left=reap_all() > 0)

    def _listen(self) -> None:
        """Collect the signals that are to be forwarded in a pipe; one that is ignored (nohup) stays ignored."""
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        self._wake = (reader, writer)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in FORWARDED:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._restore[number] = signal.signal(number, take_note)

    def _stop_listening(self) -> None:
        if self._wake is None:
            return
        for number, before in self._restore.items():
            signal.signal(number, signal.SIG_DFL if before is None else before)
        signal.set_wakeup_fd(-1)
        for descriptor in self._wake:
            os.close(descriptor)
        self._restore, self._wake = {}, None


# --- the keeper and the child: between fork and exec or exit; no exception leaves them -------------------------------------------------


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
    status: int | None = None
    reported_by: float | None = None
    while True:
        ended, left = reap_children(child)
        if ended is not None:
            status, reported_by = ended, time.monotonic() + SETTLE_S
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
            numbers = os.read(control, 64)
            if not numbers:
                sources.remove(control)  # the runner is gone; stay for the command's sake
            for wanted in numbers if status is None else b"":
                send(child, wanted)


def be_child(command: Sequence[str], gate: int, control: int, reports: int) -> NoReturn:
    """Be the child: wait at the gate, then become the command. Never returns."""
    try:
        os.setpgid(0, 0)
        os.close(control)
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)  # the interpreter ignores them, and a command would inherit that
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


def reap_all() -> int:
    """Reap all that has ended; returns 1 if children are left, 0 if not."""
    return int(reap_children(0)[1])


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
