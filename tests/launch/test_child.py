"""The gated child, with real processes: the gate, the exit status, signals, what is left behind, and kill -9 of each part.

Rules of this file: each test starts a small runner program and ends only what it started; every wait is bounded.
"""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from earmark.errors import InvalidRequest, WrongUse
from earmark.launch.child import GatedChild

RUNNER = """
import os, sys
from earmark.launch.child import GatedChild
with GatedChild(sys.argv[2:]) as child:
    print(child.pid, child.session, flush=True)
    if sys.argv[1] == "hold":
        sys.stdin.readline()
    if sys.argv[1] != "never":
        child.open_gate({"EARMARK_CLAIM": "c-7f3a", "ODD": "a 'b'\\n$c"})
        ended = child.wait()
        print("ended", ended.status, ended.left, ended.problem, flush=True)
        sys.exit(ended.status)
"""
WAIT_S = 10.0


class Runner:
    """A runner program: its process, the child's and the keeper's numbers."""

    def __init__(self, mode: str, *command: str, **options: Any) -> None:
        source = str(Path(__file__).resolve().parents[2] / "src")
        self.child = self.keeper = 0
        options.setdefault("preexec_fn", as_at_a_terminal)
        self.process = subprocess.Popen(
            [sys.executable, "-c", RUNNER, mode, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, env={**os.environ, "PYTHONPATH": source}, **options,
        )  # fmt: skip
        words = self.line().split()
        self.child, self.keeper = int(words[0]), int(words[1])

    def line(self) -> str:
        """Return the next line of the output; a runner that says nothing for too long is ended."""
        assert self.process.stdout is not None
        with self.bounded():
            return str(self.process.stdout.readline()).rstrip("\n")

    @contextmanager
    def bounded(self) -> Iterator[None]:
        """End all that this runner started if the block takes too long: what it reads from ends, too."""
        timer = threading.Timer(3 * WAIT_S, self.kill)
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def ended(self) -> tuple[int, str]:
        """Return the exit status and the last line; what the runner said in its distress if it printed none.

        Read through the same buffer as `line`: it may hold the last line already, which communicate() would not see.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.process.stdin.close()
        with self.bounded():
            out, err = self.process.stdout.read(), self.process.stderr.read()
        self.process.wait(timeout=WAIT_S)
        return self.process.returncode, out.splitlines()[-1] if out else err

    def kill(self) -> None:
        """Kill the runner, the child and the keeper: these by their numbers, while they are still ours."""
        if self.process.poll() is None:
            self.process.kill()
        for pid in filter(None, (self.child, self.keeper)):
            if running(pid) and session_of(pid) == self.keeper:
                os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        """End all that this runner started."""
        self.kill()
        self.process.wait(timeout=WAIT_S)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                with suppress(BrokenPipeError):  # what was never read
                    stream.close()
        self.kill()


def as_at_a_terminal() -> None:
    """Take the signals as a shell at a terminal gives them: the suite may run under nohup or in the background, where some are ignored."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)


def session_of(pid: int) -> int | None:
    """Return the session of a process, None if it is gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[3])
    except (FileNotFoundError, ProcessLookupError):
        return None


def running(pid: int) -> bool:
    """Say whether a process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return False


def until(question: Callable[[], bool]) -> bool:
    """Ask until the answer is yes, ten seconds at most."""
    end = time.monotonic() + WAIT_S
    while time.monotonic() < end:
        if question():
            return True
        time.sleep(0.01)
    return question()


@pytest.fixture
def start() -> Iterator[Callable[..., Runner]]:
    """Return a starter of runners, all of which are ended after the test."""
    started: list[Runner] = []

    def begin(mode: str, *command: str, **options: Any) -> Runner:
        started.append(Runner(mode, *command, **options))
        return started[-1]

    yield begin
    for runner in started:
        runner.close()


Start = Callable[..., Runner]


# --- the gate ------------------------------------------------------------------------------------------------------------------------------


def test_nothing_runs_before_the_gate_is_open(start: Start, tmp_path: Path) -> None:
    """The child exists and waits, with the number that it keeps, and has done nothing; opened, it runs the command."""
    runner = start("hold", "sh", "-c", f"echo $$ > {tmp_path}/ran")
    assert running(runner.child)
    assert not (tmp_path / "ran").exists()
    out, _ = runner.process.communicate("go\n", timeout=WAIT_S)
    assert out.startswith("ended 0 False None")
    assert (tmp_path / "ran").read_text().strip() == str(runner.child)


def test_the_child_stands_in_the_keepers_session(start: Start) -> None:
    """Child and keeper share a session that is not the runner's, so that its emptiness proves the end."""
    runner = start("hold", "true")
    assert session_of(runner.child) == session_of(runner.keeper) == runner.keeper
    assert session_of(runner.process.pid) != runner.keeper


def test_a_gate_that_is_never_opened_starts_nothing(start: Start, tmp_path: Path) -> None:
    """Leaving the block without opening the gate ends child and keeper, and the command has not run."""
    runner = start("never", "touch", str(tmp_path / "ran"))
    assert runner.ended()[0] == 0
    assert until(lambda: not running(runner.child) and not running(runner.keeper))
    assert not (tmp_path / "ran").exists()


def test_a_runner_killed_before_the_gate_starts_nothing(start: Start, tmp_path: Path) -> None:
    """Kill -9 of the runner while the child waits: the child sees the end of the pipe and ends without exec."""
    runner = start("hold", "touch", str(tmp_path / "ran"))
    os.kill(runner.process.pid, signal.SIGKILL)
    assert until(lambda: not running(runner.child) and not running(runner.keeper))
    assert not (tmp_path / "ran").exists()


def test_environment_is_added_exactly(start: Start) -> None:
    """Variables reach the command with quotes, dollars and newlines as they are, beside the runner's own."""
    runner = start(
        "open", sys.executable, "-S", "-c", "import os; print(repr(os.environ['ODD']), os.environ['EARMARK_CLAIM'], 'PATH' in os.environ)"
    )
    assert runner.line() == repr("a 'b'\n$c") + " c-7f3a True"


# --- how it ends ---------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (("true",), 0),
        (("sh", "-c", "exit 7"), 7),
        (("sh", "-c", "kill -TERM $$"), 128 + signal.SIGTERM),
        (("sh", "-c", "kill -KILL $$"), 128 + signal.SIGKILL),
        (("earmark-no-such-command",), 127),
        (("/etc/passwd",), 126),
        (("/etc",), 126),
    ],
)
def test_exit_status_is_a_shells(start: Start, command: tuple[str, ...], status: int) -> None:
    """Exit codes pass through, a signal is 128 + n, not found is 127, not executable 126."""
    code, said = start("open", *command).ended()
    assert code == status
    assert said.startswith(f"ended {status} False")


def test_a_command_that_cannot_start_says_why(start: Start) -> None:
    """The reason for 127 names the command and the system's error."""
    expected = "ended 127 False earmark-no-such-command: No such file or directory"
    assert start("open", "earmark-no-such-command").ended() == (127, expected)


def test_a_script_without_an_interpreter_line_runs_in_sh(start: Start, tmp_path: Path) -> None:
    """A script without #! is run by /bin/sh, as execvp(3) does."""
    script = tmp_path / "script"
    script.write_text('echo "got $1"; exit 4\n')
    script.chmod(0o755)
    runner = start("open", str(script), "a b")
    assert runner.line() == "got a b"
    assert runner.ended()[0] == 4


def test_ignored_and_default_signals_are_as_a_shell_would_leave_them(start: Start) -> None:
    """The interpreter's own ignored SIGPIPE is not inherited by the command."""
    runner = start("open", "grep", "SigIgn", "/proc/self/status")
    ignored = int(runner.line().split()[1], 16)
    assert not ignored & (1 << (signal.SIGPIPE - 1))


# --- signals -------------------------------------------------------------------------------------------------------------------------------

TRAP = """trap 'echo got %s; exit 9' %s; echo ready; while :; do sleep 0.05; done"""


@pytest.mark.parametrize("name", ["TERM", "INT", "HUP", "QUIT", "USR1", "USR2"])
def test_signals_to_the_runner_reach_the_command(start: Start, name: str) -> None:
    """A signal sent to the runner is felt by the command, whose exit status is the runner's."""
    runner = start("open", "sh", "-c", TRAP % (name, name))
    assert runner.line() == "ready"
    runner.process.send_signal(signal.Signals["SIG" + name])
    assert runner.line() == f"got {name}"
    assert runner.ended()[0] == 9


def test_an_interrupt_reaches_the_whole_group(start: Start) -> None:
    """SIGINT, which a terminal sends to all of the foreground, also ends what the command waits for."""
    runner = start("open", "sh", "-c", "echo ready; sleep 30; echo done")
    assert runner.line() == "ready"
    time.sleep(0.05)
    begun = time.monotonic()
    runner.process.send_signal(signal.SIGINT)
    assert runner.ended()[0] == 128 + signal.SIGINT
    assert time.monotonic() - begun < WAIT_S / 2


def test_a_signal_that_the_runner_ignores_stays_ignored(start: Start) -> None:
    """Under nohup the hangup is neither forwarded nor felt by the command."""
    runner = start("open", "sh", "-c", "echo ready; sleep 0.3; exit 5", preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    assert runner.line() == "ready"
    runner.process.send_signal(signal.SIGHUP)
    assert runner.ended()[0] == 5


def state_of(pid: int) -> str:
    """Return the state letter of a process."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_stop_and_continue_take_the_command_along(start: Start) -> None:
    """SIGTSTP stops the command and then the runner; SIGCONT continues both."""
    runner = start("open", "sh", "-c", "echo ready; exec sleep 30")
    assert runner.line() == "ready"
    runner.process.send_signal(signal.SIGTSTP)
    assert until(lambda: state_of(runner.child) == "T" and state_of(runner.process.pid) == "T")
    runner.process.send_signal(signal.SIGCONT)
    assert until(lambda: state_of(runner.child) == "S" and state_of(runner.process.pid) == "S")
    runner.process.send_signal(signal.SIGTERM)
    assert runner.ended()[0] == 128 + signal.SIGTERM


def test_a_program_on_a_terminal_reads_and_writes_it(start: Start) -> None:
    """On a terminal the command's standard streams are that terminal; it just is not its controlling one."""
    ours, theirs = pty.openpty()
    try:
        source = str(Path(__file__).resolve().parents[2] / "src")
        command = [sys.executable, "-c", RUNNER, "open", "sh", "-c", "test -t 0 && test -t 1 && read line && echo got $line"]
        process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env={**os.environ, "PYTHONPATH": source})
        os.write(ours, b"hello\n")
        assert process.wait(timeout=WAIT_S) == 0
        seen = b""
        while select.select([ours], [], [], 0.2)[0] and b"ended" not in seen:
            seen += os.read(ours, 4096)
        assert b"got hello" in seen
    finally:
        os.close(ours)
        os.close(theirs)


# --- what is left behind -------------------------------------------------------------------------------------------------------------------

DAEMON = "(setsid sh -c 'echo $$ > {file}; exec sleep 30' >/dev/null 2>&1 &) ; while ! test -s {file}; do sleep 0.01; done; exit 3"


def read_pid(file: Path) -> int:
    """Return the number that a program wrote into a file."""
    assert until(lambda: file.exists() and file.read_text().strip() != "")
    return int(file.read_text())


def test_a_daemon_left_behind_is_noticed_and_kept_count_of(start: Start, tmp_path: Path) -> None:
    """A double-forked daemon in a session of its own is reported as left; the keeper lives exactly as long as it does."""
    runner = start("open", "sh", "-c", DAEMON.format(file=tmp_path / "pid"))
    assert runner.ended() == (3, "ended 3 True None")
    daemon = read_pid(tmp_path / "pid")
    assert running(daemon)
    assert running(runner.keeper)
    os.kill(daemon, signal.SIGKILL)
    assert until(lambda: not running(runner.keeper))


def test_children_that_end_at_once_are_not_called_left(start: Start) -> None:
    """What the command has started and what ends with it is given a moment before it counts as left."""
    assert start("open", "sh", "-c", "sleep 0.05 & exit 2").ended() == (2, "ended 2 False None")


def test_the_keeper_holds_none_of_the_users_pipes(start: Start, tmp_path: Path) -> None:
    """A daemon that closed its streams does not keep the reader of the runner's output waiting."""
    runner = start("open", "sh", "-c", DAEMON.format(file=tmp_path / "pid"))
    runner.process.communicate(timeout=WAIT_S)
    os.kill(read_pid(tmp_path / "pid"), signal.SIGKILL)


def test_killing_the_runner_leaves_command_and_keeper(start: Start) -> None:
    """Kill -9 of the runner: the command runs on, the keeper stays in its session until the command ends, then nothing is left."""
    runner = start("open", "sh", "-c", "echo ready; exec sleep 30")
    assert runner.line() == "ready"
    runner.process.kill()
    runner.process.wait(timeout=WAIT_S)
    time.sleep(0.1)
    assert running(runner.child)
    assert running(runner.keeper)
    os.kill(runner.child, signal.SIGKILL)
    assert until(lambda: not running(runner.child) and not running(runner.keeper))


def test_killing_the_keeper_does_not_lose_the_command(start: Start) -> None:
    """Kill -9 of the keeper: its orphans come to the runner, which waits for the command and returns its exit status."""
    runner = start("open", "sh", "-c", "sleep 0.4; exit 6")
    os.kill(runner.keeper, signal.SIGKILL)
    assert runner.ended() == (6, "ended 6 False None")


# --- refusals ------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [[], [""], ["a\0b"]])
def test_a_command_that_is_none_is_refused(command: list[str]) -> None:
    """No command, an empty name and a NUL are the caller's error; nothing is forked."""
    with pytest.raises(InvalidRequest, match="no command"):
        GatedChild(command)


def test_forking_beside_threads_is_refused() -> None:
    """A process with several threads is not forked: the child could wait for a lock that nobody gives back."""
    done = threading.Event()
    other = threading.Thread(target=done.wait, args=(WAIT_S,))
    other.start()
    try:
        with pytest.raises(WrongUse, match="before threads are started"):
            GatedChild(["true"])
    finally:
        done.set()
        other.join()
