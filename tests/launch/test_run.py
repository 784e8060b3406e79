"""`earmark run` for real: real processes, a real ledger, the command line as a person uses it.

Rules of this file: each test has a ledger of its own and ends only what it started; every wait is bounded.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import earmark
from earmark.core.ledger.state import NodeState
from earmark.launch.confine import confine

pytestmark = pytest.mark.long

SOURCE = Path(__file__).resolve().parents[2] / "src"
WAIT_S = 20.0
MINE = sorted(os.sched_getaffinity(0))


class House:
    """A ledger, and what was started on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ledger = folder / "ledger.db"
        self.started: list[subprocess.Popen[str]] = []
        self.pids: list[int] = []
        self.prefix: tuple[str, ...] = ()

    def start(self, *words: str, **options: Any) -> subprocess.Popen[str]:
        """Start `earmark --ledger … WORDS`."""
        command = [*self.prefix, sys.executable, "-m", "earmark.cli.main", "--ledger", str(self.ledger), *words]
        environment = {**os.environ, "PYTHONPATH": str(SOURCE), "XDG_STATE_HOME": str(self.folder)}
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, **options
        )
        self.started.append(process)
        return process

    def run(self, *words: str, **options: Any) -> tuple[int, str, str]:
        """Run `earmark run …` to its end; returns exit status, output and errors."""
        process = self.start("run", *words, **options)
        out, err = process.communicate(timeout=WAIT_S)
        return process.returncode, out, err

    @contextmanager
    def opened(self) -> Iterator[NodeState]:
        """Open the ledger, as the next command would, and give the node as it then is."""
        with earmark.open(self.ledger) as tracker:
            assert [finding for finding in tracker.audit() if finding.severity == "error"] == []
            yield tracker.node()

    def phases(self) -> list[str]:
        """Return the phases of the live claims after an opening."""
        with self.opened() as state:
            return [claim.phase for claim in state.live()]

    def events(self) -> list[str]:
        """Return the types of the claim events so far."""
        with earmark.open(self.ledger) as tracker:
            return [event.type for _, _, event in tracker.events() if event.type.startswith("claim.")]

    def pid_in(self, name: str) -> int:
        """Return the number that a command wrote into a file of the house, to be ended after the test."""
        file = self.folder / name
        assert until(lambda: file.exists() and file.read_text().strip() != "")
        self.pids.append(int(file.read_text()))
        return self.pids[-1]

    def close(self) -> None:
        """End all that was started, by number, while it is ours to end."""
        for process in self.started:
            if process.poll() is None:
                process.kill()
        for pid in self.pids:
            if "ORIGIN" in command_of(pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        for process in self.started:
            process.communicate(timeout=WAIT_S)


def command_of(pid: int) -> str:
    """Return the command line of a process, "" if it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def until(question: Callable[[], bool]) -> bool:
    """Ask until the answer is yes, within the time of a test."""
    end = time.monotonic() + WAIT_S
    while time.monotonic() < end:
        if question():
            return True
        time.sleep(0.02)
    return question()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """Return a house whose processes are ended after the test."""
    made = House(tmp_path)
    yield made
    made.close()


def python(source: str) -> Sequence[str]:
    """Return a command that runs some Python, marked so that the test knows it again."""
    return (sys.executable, "-S", "-c", f"# ORIGIN\n{source}")


def sleeper(file: Path) -> Sequence[str]:
    """Return a command that writes its number and sleeps."""
    return python(f"import os, time; open({str(file)!r}, 'w').write(str(os.getpid())); time.sleep(60)")


def daemon(file: Path) -> Sequence[str]:
    """Return a command that leaves a double-forked daemon in a session of its own behind, and ends with 3."""
    return python(f"""
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        null = os.open(os.devnull, os.O_RDWR)
        for n in (0, 1, 2):
            os.dup2(null, n)
        open({str(file)!r}, 'w').write(str(os.getpid()))
        time.sleep(60)
    os._exit(0)
while not os.path.exists({str(file)!r}) or not os.path.getsize({str(file)!r}):
    time.sleep(0.01)
os._exit(3)
""")


# --- the straight way --------------------------------------------------------------------------------------------------------------------


def test_a_command_runs_on_its_cpus_and_gives_them_back(house: House) -> None:
    """The command sees exactly its claim's CPU, is told what it has, its exit status comes back, and the claim has ended."""
    show = python("import os, json; print(json.dumps([sorted(os.sched_getaffinity(0)), dict(os.environ)])); raise SystemExit(7)")
    code, out, err = house.run("--cpus", "1", "--mem", "16MiB", "--", *show)
    assert code == 7, err
    cpus, told = json.loads(out)
    assert len(cpus) == 1
    assert told["EARMARK_CPUS"] == str(cpus[0])
    assert told["OMP_NUM_THREADS"] == "1"
    assert told["EARMARK_CLAIM"] in err
    assert "by " in err
    assert house.phases() == []
    assert house.events() == ["claim.held", "claim.confirmed", "claim.ended"]


def test_what_was_obtained_is_said_as_json(house: House) -> None:
    """With --json one object on standard error names claim, CPUs, confinement and the child; standard output is the command's."""
    code, out, err = house.run("--json", "--cpus", "1", "--", "sh", "-c", "echo $$; echo $EARMARK_CLAIM")
    assert code == 0, err
    said = json.loads(err)
    assert out.split() == [str(said["pid"]), said["claim"]]
    assert said["confined"] in ("cgroup v2 cpuset", "cgroup v1 cpuset", "affinity")
    assert said["cpus"] == [int(said["environment"]["EARMARK_CPUS"])]
    assert said["exclusive"] is True


def test_quiet_says_nothing(house: House) -> None:
    """With -q nothing of ours is printed beside the command's output."""
    assert house.run("-q", "--cpus", "1", "--", "echo", "hello") == (0, "hello\n", "")


def test_a_bare_number_of_cpus_means_dedicated_and_shared_can_be_said(house: House) -> None:
    """`--cpus 1` holds a CPU alone; `--cpus 1:shared` holds none and runs on what is shared."""
    code, out, err = house.run("--json", "--cpus", "1:shared", "--", *python("import os; print(sorted(os.sched_getaffinity(0)))"))
    said = json.loads(err)
    assert code == 0
    assert said["exclusive"] is False
    assert json.loads(out) == said["cpus"]


def test_a_refusal_starts_nothing(house: House) -> None:
    """What does not fit ends with 3 and its reasons; the command has not run, and nothing is in the ledger."""
    code, _, err = house.run("--cpus", "4000", "--", "touch", str(house.folder / "ran"))
    assert code == 3
    assert "refused" in err
    assert not (house.folder / "ran").exists()
    assert house.events() == []


@pytest.mark.parametrize(("command", "status"), [(("earmark-no-such-command",), 127), (("/etc/passwd",), 126)])
def test_a_command_that_cannot_start_gives_everything_back(house: House, command: tuple[str, ...], status: int) -> None:
    """Not found is 127, not executable 126, the reason is said, and the claim has ended."""
    code, _, err = house.run("--cpus", "1", "--", *command)
    assert code == status
    assert f"earmark: {command[0]}: " in err
    assert house.phases() == []


@pytest.mark.parametrize(
    "words", [("--cpus", "1"), ("--", "true"), ("--cpus", "x", "--", "true"), ("--cpus", "1", "--skip-ahead", "--", "true")]
)
def test_what_cannot_be_understood_ends_with_2(house: House, words: tuple[str, ...]) -> None:
    """No command, no request, a broken one, or --skip-ahead without --wait: exit status 2."""
    assert house.run(*words)[0] == 2


def test_a_run_for_another_node_is_refused(house: House) -> None:
    """A command cannot run elsewhere: another node's name is the caller's error, and nothing starts."""
    assert house.run("--node", "elsewhere", "--cpus", "1", "--", "touch", str(house.folder / "ran"))[0] == 2
    assert not (house.folder / "ran").exists()


# --- signals and deaths ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_command_and_the_claim(house: House, number: signal.Signals) -> None:
    """A signal to the runner ends the command, 128 + n comes back, and the claim has ended."""
    runner = house.start("run", "--cpus", "1", "--", *sleeper(house.folder / "pid"))
    house.pid_in("pid")
    runner.send_signal(number)
    runner.communicate(timeout=WAIT_S)
    assert runner.returncode in (128 + number, 1), "Python itself turns SIGINT into an exception and exit status 1 or 130"
    assert house.phases() == []


def test_killing_the_runner_does_not_free_the_cpus(house: House) -> None:
    """Kill -9 of the runner: the command lives, its claim drains and keeps its CPUs; when it dies the next opening frees them."""
    runner = house.start("run", "--cpus", str(len(MINE)), "--", *sleeper(house.folder / "pid"))
    child = house.pid_in("pid")
    runner.kill()
    runner.wait(timeout=WAIT_S)
    assert house.phases() == ["draining"]
    assert command_of(child)
    assert house.run("--cpus", "1", "--", "true")[0] == 3, "the CPUs are still in use"
    os.kill(child, signal.SIGKILL)
    assert until(lambda: house.phases() == [])
    assert house.run("--cpus", "1", "--", "true")[0] == 0


@pytest.mark.long
def test_a_daemon_keeps_the_cpus_until_it_ends(house: House) -> None:
    """The command ends with 3 and leaves a daemon: the runner returns at once, the claim drains until the daemon is gone."""
    code, _, err = house.run("--cpus", "1", "--", *daemon(house.folder / "pid"))
    left = house.pid_in("pid")
    assert code == 3
    assert "left processes behind" in err
    assert house.phases() == ["draining"]
    os.kill(left, signal.SIGKILL)
    assert until(lambda: house.phases() == [])
    assert "claim.draining" in house.events()


@pytest.mark.long
def test_a_killed_runner_and_a_daemon_in_another_session(house: House) -> None:
    """Kill -9 of the runner after its command has gone and a daemon is left elsewhere: the CPUs stay held until the daemon ends."""
    script = [*daemon(house.folder / "pid")]
    script[-1] = script[-1].replace("os._exit(3)", "time.sleep(60)")
    runner = house.start("run", "--cpus", "1", "--", *script)
    left = house.pid_in("pid")
    with house.opened() as state:
        child = next(holder.pid for holder in state.live()[0].holders if holder.role == "child")
    house.pids.append(child)
    runner.kill()
    runner.wait(timeout=WAIT_S)
    os.kill(child, signal.SIGKILL)
    assert until(lambda: command_of(child) == "")
    assert house.phases() == ["draining"]
    os.kill(left, signal.SIGKILL)
    assert until(lambda: house.phases() == [])


@pytest.mark.long
def test_its_time_over_the_claim_drains_and_the_command_lives(house: House) -> None:
    """A --ttl that passes ends no process and frees nothing: the claim drains until the command ends."""
    runner = house.start("run", "--cpus", "1", "--ttl", "300ms", "--", *sleeper(house.folder / "pid"))
    child = house.pid_in("pid")
    assert until(lambda: house.phases() == ["draining"])
    assert command_of(child)
    runner.send_signal(signal.SIGTERM)
    runner.communicate(timeout=WAIT_S)
    assert house.phases() == []


READ_ONLY = """
while read -r _ point kind _; do
  case $kind in cgroup*) mount -o remount,bind,ro "$point" || exit 99;; esac
done < /proc/mounts
exec "$@"
"""


def without_cgroups() -> tuple[str, ...]:
    """Return a prefix under which a command may write no cgroup, as an ordinary user in a container: none is needed where that is so."""
    probe = confine(f"c-probe{os.getpid()}", MINE[:1])
    if probe.remove() and probe.way == "none":
        return ()
    prefix = ("unshare", "--mount", "--propagation", "private", "sh", "-c", READ_ONLY, "sh")
    if subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("cgroups are writable here and cannot be made read-only: no mount namespace is to be had")
    return prefix


@pytest.mark.long
def test_without_cgroups_affinity_is_used_and_nothing_is_freed_early(house: House) -> None:
    """Where no cgroup can be written the CPU is bound by affinity and it is said; a daemon in a session of its own keeps the claim."""
    house.prefix = without_cgroups()
    code, out, err = house.run(
        "--json", "--cpus", "1", "--mem", "16MiB", "--", *python("import os; print(sorted(os.sched_getaffinity(0)))")
    )
    said = json.loads(err)
    assert (code, said["confined"], said["cgroup"], said["memory_limit_bytes"]) == (0, "affinity", None, None)
    assert json.loads(out) == said["cpus"]
    assert said["notes"]
    assert house.phases() == []
    script = [*daemon(house.folder / "pid")]
    script[-1] = script[-1].replace("os._exit(3)", "time.sleep(60)")
    runner = house.start("run", "--cpus", "1", "--", *script)
    left = house.pid_in("pid")
    with house.opened() as state:
        child = next(holder for holder in state.live()[0].holders if holder.role == "child")
    house.pids.append(child.pid)
    assert child.session is not None
    runner.kill()
    runner.wait(timeout=WAIT_S)
    os.kill(child.pid, signal.SIGKILL)
    assert until(lambda: command_of(child.pid) == "")
    assert house.phases() == ["draining"], "only the keeper knows of the daemon, and it stays in the session"
    os.kill(left, signal.SIGKILL)
    assert until(lambda: house.phases() == [])


def test_a_memory_limit_is_obtained_or_said_to_be_missing(house: House) -> None:
    """Where a memory cgroup can be had the limit is the claim's; where not, that is said."""
    probe = confine(f"c-probe{os.getpid()}", (), memory_limit_bytes=64 << 20)
    probe.remove()
    _, _, err = house.run("--cpus", "1", "--mem", "64MiB", "--", "true")
    assert ("memory limited to 64 MiB" if probe.memory_limit_bytes is not None else "memory not limited") in err


# --- waiting in line -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_waiting_starts_when_the_cpus_are_free(house: House) -> None:
    """A second run of the whole machine waits for the first, then runs; the first was not disturbed."""
    first = house.start("run", "--cpus", str(len(MINE)), "--", *sleeper(house.folder / "pid"))
    child = house.pid_in("pid")
    second = house.start("run", "--wait", "--cpus", str(len(MINE)), "--", "echo", "started")
    assert until(lambda: bool(tickets(house)))
    assert second.poll() is None
    os.kill(child, signal.SIGTERM)
    out, err = second.communicate(timeout=WAIT_S)
    assert (second.returncode, out) == (0, "started\n"), err
    assert "waiting" in err
    first.communicate(timeout=WAIT_S)
    assert tickets(house) == 0


def tickets(house: House) -> int:
    """Return how many wait."""
    with earmark.open(house.ledger) as tracker:
        return len(tracker.tickets())


def in_line(house: House, number: int) -> bool:
    """Say whether so many wait."""
    return tickets(house) == number


@pytest.mark.long
def test_the_line_is_in_order_of_arrival_and_the_dead_give_way(house: House) -> None:
    """Three wait; the first is killed with -9 and loses its place by proof, the others start in the order in which they came."""
    first = house.start("run", "--cpus", str(len(MINE)), "--", *sleeper(house.folder / "pid"))
    child = house.pid_in("pid")
    order = house.folder / "order"
    waiting = []
    for index in range(3):
        command = ["sh", "-c", f"echo {index} >> {order}"]
        waiting.append(house.start("run", "--wait", "--cpus", str(len(MINE)), "--", *command))
        assert until(partial(in_line, house, index + 1))
    waiting[0].kill()
    os.kill(child, signal.SIGTERM)
    for process in waiting:
        process.communicate(timeout=WAIT_S)
    first.communicate(timeout=WAIT_S)
    assert order.read_text().split() == ["1", "2"]
    assert tickets(house) == 0
    assert house.phases() == []


@pytest.mark.long
def test_waiting_in_vain_ends_with_the_reasons(house: House) -> None:
    """After its time-out a wait ends with 3 and why it does not fit; its ticket is gone and nothing ran."""
    house.start("run", "--cpus", str(len(MINE)), "--", *sleeper(house.folder / "pid"))
    house.pid_in("pid")
    code, _, err = house.run("--wait=300ms", "--cpus", "1", "--", "touch", str(house.folder / "ran"))
    assert code == 3
    assert "refused" in err
    assert not (house.folder / "ran").exists()
    assert tickets(house) == 0


def test_what_never_fits_is_not_waited_for(house: House) -> None:
    """A wait for more than the machine has is refused at once."""
    begun = time.monotonic()
    assert house.run("--wait", "--cpus", "4000", "--", "true")[0] == 3
    assert time.monotonic() - begun < WAIT_S / 2
