"""Races: threads and processes on one node never get one thing twice, lose nothing, go nowhere negative, and all come to an end."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pytest
from tests.proof.racer import ONE, SHAPE
from tests.proof.worlds import Caller, callers, granted, wait_until

from earmark.core.ledger.commands import Answer
from earmark.core.ledger.events import ClaimConfirmed, ClaimEnded, ClaimHeld
from earmark.core.model.ids import ClaimId, ConsumerId
from earmark.core.model.request import Request
from earmark.errors import LedgerBusy, WrongUse
from earmark.stores.sqlite.store import SqliteStore
from earmark.testing import UNRESERVED, Bench, GivenClock, GivenHost, GivenProcesses, assert_sound, machine, on
from earmark.tracker.writer import Writer

pytestmark = pytest.mark.long

RACER = Path(__file__).with_name("racer.py")
PAIR = Request(vcpus=2, cpu_policy="dedicated")
PATIENCE_S = 60.0


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    """Return where the ledger of a race stands."""
    return tmp_path / "ledger" / "ledger.db"


@contextmanager
def opened(ledger: Path, shape: str = SHAPE) -> Iterator[Bench]:
    """Give a tracker on the ledger."""
    with SqliteStore(ledger) as store:
        yield on(store, GivenHost(machine(shape)), GivenClock(), GivenProcesses(), UNRESERVED)


@contextmanager
def racer(ledger: Path, mode: str, *rest: str) -> Iterator[subprocess.Popen[str]]:
    """Give a racing process; it is ended with the block."""
    command = [sys.executable, str(RACER), str(ledger), str(ledger.parents[1]), mode, *rest]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        try:
            yield child
        finally:
            child.kill()


def ready(child: subprocess.Popen[str]) -> None:
    """Wait until a racer stands at the line."""
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n", child.stderr.read() if child.stderr is not None else ""


def go(child: subprocess.Popen[str]) -> None:
    """Let a racer start."""
    assert child.stdin is not None
    child.stdin.write("\n")
    child.stdin.flush()


def counts(world: Bench) -> tuple[int, int]:
    """Return how many claims were held and how many ended, by the events."""
    events = [event for _, _, event in world.tracker.events()]
    return sum(isinstance(event, ClaimHeld) for event in events), sum(isinstance(event, ClaimEnded) for event in events)


def confirmed_at_once(world: Bench) -> int:
    """Return how many claims were held and confirmed by one command."""
    return sum(isinstance(event, ClaimConfirmed) for _, _, event in world.tracker.events())


def test_sixty_four_threads_share_eight_cpus(ledger: Path) -> None:
    """Each thread holds a CPU that nobody else holds, five times over; at the end all is free and every grant has its end."""
    having: set[str] = set()
    watch = threading.Lock()
    turns = 5

    def compete(world: Bench) -> int:
        won = 0
        while won < turns:
            answer = world.tracker.hold(ONE, confirm=bool(won % 2))
            if not isinstance(answer, Answer):
                time.sleep(0.001)
                continue
            claim = granted(answer)
            unit = claim.grant.units[0].unit
            with watch:
                assert unit not in having
                having.add(unit)
            won += 1
            with watch:
                having.remove(unit)
            assert world.tracker.release(claim.id).changed
        return won

    with opened(ledger) as world:
        racing = callers([lambda: compete(world)] * 64)
        assert [each.end() for each in racing] == [turns] * 64
        assert counts(world) == (64 * turns, 64 * turns)
        assert (dict(world.tracker.node().free.used), dict(world.tracker.node().free.slots)) == ({}, {})
        assert_sound(world.tracker)


@pytest.mark.long
def test_sixteen_processes_share_eight_cpus(ledger: Path) -> None:
    """Sixteen programs on one file: no CPU has two holders at a time, nothing is lost, nobody waits for ever."""
    turns = 12
    with opened(ledger) as world, ExitStack() as stack:
        racing = [stack.enter_context(racer(ledger, "race", str(turns))) for _ in range(16)]
        for child in racing:
            ready(child)
        for child in racing:
            go(child)
        for child in racing:
            out, errors = child.communicate(timeout=PATIENCE_S)
            assert (child.returncode, errors) == (0, "")
            assert int(out.split()[0]) == turns
        assert counts(world) == (16 * turns, 16 * turns)
        commands = [envelope.command for _, envelope, _ in world.tracker.events()]
        assert len(set(commands)) == len(commands) - confirmed_at_once(world)
        assert dict(world.tracker.node().free.slots) == {}
        assert_sound(world.tracker)


@pytest.mark.rule("S44")
def test_one_of_many_gets_the_last_cpus(ledger: Path) -> None:
    """Two CPUs are free and twelve callers through two openings of the file want both: one has them, the audit beside it changes nothing."""
    with opened(ledger, "2c 4G") as one, opened(ledger, "2c 4G") as other:
        for _ in range(8):
            start = threading.Barrier(13)

            def want(world: Bench, start: threading.Barrier = start) -> object:
                start.wait()
                return world.tracker.hold(PAIR)

            def look(start: threading.Barrier = start) -> object:
                start.wait()
                return [finding for finding in one.tracker.audit() if finding.severity == "error"]

            auditor = Caller(look)
            answers = [each.end() for each in [Caller(partial(want, world)) for world in (one, other) * 6]]
            assert auditor.end() == []
            won = [granted(answer) for answer in answers if isinstance(answer, Answer)]
            assert len(won) == 1
            assert {row.unit for row in won[0].grant.units} == {"cpu:0", "cpu:1"}
            assert one.tracker.node() == other.tracker.node()
            other.tracker.release(won[0].id)
        assert_sound(one.tracker)


def test_one_consumer_has_one_main_claim_over_two_openings(ledger: Path) -> None:
    """Ten callers want the main claim of one consumer: one gets it."""
    with opened(ledger) as one, opened(ledger) as other:
        racing = callers([lambda: one.tracker.hold(ONE, consumer="vm"), lambda: other.tracker.hold(ONE, consumer="vm")] * 5)
        assert sum(isinstance(each.end(), Answer) for each in racing) == 1
        assert_sound(one.tracker)


def test_one_key_makes_one_claim(ledger: Path) -> None:
    """Ten callers say the same under one key: one claim, and all get its answer."""
    with opened(ledger) as one, opened(ledger) as other:
        racing = callers([lambda: one.tracker.hold(ONE, key="k", confirm=True), lambda: other.tracker.hold(ONE, key="k", confirm=True)] * 5)
        assert len({granted(each.end()).id for each in racing}) == 1
        assert len(one.tracker.node().claims) == 1
        assert_sound(one.tracker)


def test_a_release_and_a_confirm_race_to_one_end(ledger: Path) -> None:
    """Release, abort and confirm of one claim at once: whatever order, the claim has one end and its units are free once."""
    with opened(ledger) as one, opened(ledger) as other:
        for _ in range(6):
            claim = granted(one.tracker.hold(ONE)).id

            def say(what: str, world: Bench, claim: ClaimId = claim) -> object:
                try:
                    return getattr(world.tracker, what)(claim)
                except Exception as error:  # noqa: BLE001 - a conflict is an answer here, anything else fails below
                    return error

            racing = [Caller(partial(say, what, world)) for what in ("confirm", "abort", "release") for world in (one, other)]
            answers = [each.end() for each in racing]
            assert {type(answer).__name__ for answer in answers} <= {"Answer", "Conflict"}
            one.tracker.release(claim)
            assert dict(one.tracker.node().free.slots) == {}
        assert counts(one)[1] == 6
        assert_sound(one.tracker)


def test_readers_never_see_half_of_anything(ledger: Path) -> None:
    """While claims come and go, every state that is read adds up by itself."""
    with opened(ledger) as world, opened(ledger) as reader:
        stop = threading.Event()

        def churn() -> None:
            while not stop.is_set():
                answer = world.tracker.hold(ONE)
                if isinstance(answer, Answer):
                    world.tracker.release(granted(answer).id)

        writing = callers([churn] * 3)
        last, looks = 0, 0
        try:
            while last < 400 and looks < 20_000:
                looks += 1
                state = reader.tracker.node()
                assert state.free == state.free.recompute(state.grants())
                assert state.sequence >= last
                last = state.sequence
        finally:
            stop.set()
        for each in writing:
            each.end()
        assert_sound(reader.tracker)


def test_use_after_fork_is_refused_and_a_new_opening_works(ledger: Path) -> None:
    """A forked child may not use its parent's tracker; one of its own it may, and the parent's goes on as if nothing was."""
    with opened(ledger) as world:
        granted(world.tracker.hold(ONE, consumer="parent"))
        child = os.fork()
        if child == 0:
            code = 70
            try:
                for use in (world.tracker.node, world.tracker.sweep, lambda: world.tracker.hold(ONE), world.tracker.audit):
                    try:
                        use()
                        os._exit(1)
                    except WrongUse:
                        continue
                with opened(ledger) as own:
                    granted(own.tracker.hold(ONE, consumer="child"))
                code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        granted(world.tracker.hold(ONE, consumer="after"))
        assert sorted(claim.consumer for claim in world.tracker.node().live()) == ["after", "child", "parent"]
        assert_sound(world.tracker)


def test_a_stopped_writer_is_named_and_its_death_frees_the_way(ledger: Path) -> None:
    """Who waits for a stopped process learns its pid; once it is dead the others go on, and its claim never was."""
    with opened(ledger) as world, racer(ledger, "stop") as child:
        ready(child)
        go(child)
        wait_until(lambda: Path(f"/proc/{child.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] == "T")
        impatient = Writer(world.store, world.clock, actor="tester", epoch=1, boot_id="boot-1", timeout_s=0.2)
        world.tracker._writer, patient = impatient, world.tracker._writer
        with pytest.raises(LedgerBusy, match=rf"pid {child.pid} .*stopped"):
            world.tracker.hold(ONE)
        assert not world.tracker.node().claims
        child.send_signal(signal.SIGKILL)
        child.wait(PATIENCE_S)
        world.tracker._writer = patient
        granted(world.tracker.hold(ONE))
        assert world.store.main_claim(ConsumerId("stopped")) is None
        assert_sound(world.tracker)


@pytest.mark.long
@pytest.mark.rule("W7")
def test_killed_writers_lose_nothing_that_they_said(ledger: Path) -> None:
    """Five times, three writers are killed at a random moment: all they said is in the ledger, and it verifies."""
    heard = 0
    chance = random.Random(20)  # noqa: S311 - moments of a test
    for _ in range(5):
        with ExitStack() as stack:
            writing = [stack.enter_context(racer(ledger, "write")) for _ in range(3)]
            for child in writing:
                ready(child)
                go(child)
            time.sleep(chance.uniform(0.01, 0.15))
            for child in writing:
                child.kill()
            said = [line for child in writing for line in whole_lines(child)]
            heard += len(said)
        with opened(ledger) as world:
            assert_sound(world.tracker)
            for line in said:
                sign, claim = line.split()
                row = world.store.claim(ClaimId(claim))
                assert row is not None, line
                assert sign != "-" or row.cause == "released", line
                live = world.tracker.node().claims.get(ClaimId(claim))
                assert sign != "=" or row.cause is not None or (live is not None and live.phase == "confirmed"), line
            for left in world.tracker.node().live():
                world.tracker.release(left.id)
            assert dict(world.tracker.node().free.slots) == {}
    assert heard


def whole_lines(child: subprocess.Popen[str]) -> list[str]:
    """Return the whole lines that a killed process has said."""
    assert child.stdout is not None
    text = child.stdout.read()
    return text[: text.rfind("\n") + 1].splitlines()
