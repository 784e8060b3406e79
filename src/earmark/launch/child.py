"""A command that waits at a gate until its identity is in the ledger: the runner's side.

Three processes: the runner (this one) forks the keeper, the keeper forks the child. The keeper leads a session of its own and is the
subreaper of all that the command starts, so that it lives exactly as long as something of it does, even after `kill -9` of the runner. The
child waits in that session at a pipe, as the leader of a process group of its own; it runs the command only after the whole go line.

Rules of this file: the fork happens first, while this process has one thread and no ledger open; a pipe that ends without the go line
(the runner is gone) means: do not start. The command has no controlling terminal, since what proves that nothing is left is its
session: it reads and writes the terminal, but job control and /dev/tty are not to be had. Signals go through the keeper, who alone reaps
the child and so never signals a stranger with its number.
"""

from __future__ import annotations

import os
import select
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from types import FrameType, TracebackType
from typing import NamedTuple, Self

import msgspec

from earmark.errors import HostUnavailable, InvalidRequest, WrongUse
from earmark.launch.keeper import (
    FORWARDED,
    LINE_BYTES_MAX,
    NOT_STARTED,
    Word,
    be_keeper,
    become_subreaper,
    exit_status,
    reap,
    reap_children,
    send,
    take_note,
    write_all,
)

END_TIMEOUT_S = 5.0
ADOPTED_POLL_S = 0.05
GATE_BYTES_MAX = 1 << 20


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

    def open_gate(self, environment: Mapping[str, str], *, groups: Sequence[str] = ()) -> None:
        """Let the command start with some variables added to this process's environment; signals are forwarded from here on.

        `groups` are cgroup folders that the keeper removes when nothing is left, should the runner not be there to do it.
        """
        if self._opened:
            raise WrongUse("the gate is open already", pid=self.pid)
        line = msgspec.json.encode(dict(environment)) + b"\n"
        if len(line) > GATE_BYTES_MAX:
            raise InvalidRequest(f"an environment of {len(line)} bytes is too large", limit=GATE_BYTES_MAX)
        self._listen()
        self._opened = True
        self._tell_keeper(Word(remove=tuple(groups)))
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
        self._tell_keeper(Word(signal=number))
        if number == signal.SIGTSTP:
            os.kill(os.getpid(), signal.SIGSTOP)
            self._tell_keeper(Word(signal=signal.SIGCONT))

    def _tell_keeper(self, word: Word) -> None:
        with suppress(BrokenPipeError):  # the keeper is gone; what it left is adopted, and the end comes from there
            write_all(self._control, msgspec.json.encode(word) + b"\n")

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
        """Wait for the command as this process's own child: the keeper was killed, and its orphans came here (prctl above).

        Its pipes close before its orphans move (Linux, kernel/exit.c: exit_files, then exit_notify), so its own end is awaited first.
        """
        reap(self.session, END_TIMEOUT_S)
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
        return Ended(exit_status(status), left=reap_children(0)[1])

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
