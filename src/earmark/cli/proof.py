"""`earmark selftest`: writers are killed on the user's own disk, and everything they acknowledged must be there.

Rules of this file: it works in a new folder beside the ledger and never on the ledger itself; it ends only processes that it started. It
proves that the death of a process loses nothing; for the loss of power it relies on what the disk says of its flushes.
"""

from __future__ import annotations

import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import click

import earmark
from earmark.cli import phrases
from earmark.cli.ledgers import EXIT_FINDINGS
from earmark.cli.output import SelftestOut
from earmark.cli.session import Session
from earmark.cli.verb import Verb
from earmark.core.model.finding import Finding
from earmark.core.model.ids import ClaimId
from earmark.core.model.units import counted
from earmark.errors import HostUnavailable, UnsafePlace
from earmark.stores.place import resolve

ROUNDS_MAX = 10_000
WRITERS_MAX = 64
START_TIMEOUT_S = 30.0
DELAYS_MS = (5, 40, 90, 15, 150, 60, 1, 110)
"""How long the writers of a round may write before they are killed; taken in turn."""


class Round(NamedTuple):
    """What one round showed: answers acknowledged, writers killed, acknowledged answers that the ledger lacks, other findings."""

    acknowledged: int
    kills: int
    lost: tuple[str, ...]
    findings: tuple[str, ...]


@click.command(cls=Verb)
@click.option("--rounds", type=click.IntRange(1, ROUNDS_MAX), default=10, show_default=True, metavar="N", help="How often to kill.")
@click.option("--writers", type=click.IntRange(1, WRITERS_MAX), default=2, show_default=True, metavar="N", help="Writers at a time.")
@click.option("--keep", is_flag=True, help="Leave the folder of the test behind.")
@click.pass_obj
def selftest(session: Session, *, rounds: int, writers: int, keep: bool) -> int:
    """Kill writers on this disk and check what is left.

    Exit code 1: something was lost. In a new folder beside the ledger, processes claim and release without pause and are killed (SIGKILL). After each round the ledger is
    opened again: every answer that a writer gave must be in it, the audit must be clean and the hash chain whole.
    """
    beside = resolve(session.settings).folder
    done: list[Round] = []
    with new_folder(beside, keep=keep) as folder:
        ledger = folder / "ledger.db"
        earmark.open(str(ledger), private=True).close()
        if not session.quiet and not session.json:
            click.echo(f"{writers} writers, {rounds} rounds in {phrases.clean(str(folder))}")
        for number in range(rounds):
            done.append(one_round(ledger, writers, DELAYS_MS[number % len(DELAYS_MS)]))
            if not session.quiet and not session.json:
                click.echo(round_line(number + 1, rounds, done[-1]))
    lost = [claim for each in done for claim in each.lost]
    findings = [text for each in done for text in each.findings]
    acknowledged, kills = sum(each.acknowledged for each in done), sum(each.kills for each in done)
    sound = not lost and not findings
    if session.json:
        told = [f"lost: {claim}" for claim in lost] + findings
        session.emit(
            SelftestOut(
                clean=sound, folder=str(folder), rounds=rounds, kills=kills, acknowledged=acknowledged, lost=len(lost), findings=told
            )
        )  # fmt: skip
    else:
        for text in [*(f"lost: {claim}" for claim in lost), *findings]:
            click.echo(phrases.clean(text))
        verdict = "nothing that was acknowledged is lost, every audit is clean" if sound else "THE LEDGER DID NOT KEEP ITS WORD"
        click.echo(f"{counted(kills, 'writer')} killed, {counted(acknowledged, 'answer')} acknowledged: {verdict}")
    return 0 if sound else EXIT_FINDINGS


def one_round(ledger: Path, writers: int, delay_ms: int) -> Round:
    """Let writers write, kill them after a delay (milliseconds), open the ledger again and compare."""
    with ExitStack() as stack:
        started = [stack.enter_context(writing(ledger)) for _ in range(writers)]
        for each in started:
            wait_for_word(each)
        time.sleep(delay_ms / 1000)
        for each in started:
            each.kill()
        said = [line for each in started for line in rest_of(each)]
    return compare(ledger, said, kills=writers)


@contextmanager
def writing(ledger: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a writer for a block; it is killed at the end, whatever happens."""
    command = [sys.executable, "-m", "earmark.cli.selftest_writer", str(ledger)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:  # noqa: S603 - our own program
        try:
            yield child
        finally:
            child.kill()


def wait_for_word(child: subprocess.Popen[bytes]) -> None:
    """Wait until a writer has acknowledged something; raises HostUnavailable if it does not within 30 s."""
    assert child.stdout is not None  # noqa: S101 - it was started with a pipe
    ready, _, _ = select.select([child.stdout], [], [], START_TIMEOUT_S)
    if not ready or child.poll() is not None:
        child.kill()
        text = child.stderr.read().decode("utf-8", "replace") if child.stderr is not None else ""
        last = text.strip().splitlines()[-1:] or ["no word within 30 s"]
        raise HostUnavailable(f"a writer of the selftest could not start: {last[0]}", pid=child.pid)


def rest_of(child: subprocess.Popen[bytes]) -> list[str]:
    """Return the whole lines that a killed writer has said."""
    assert child.stdout is not None  # noqa: S101 - it was started with a pipe
    text = child.stdout.read().decode("ascii", "replace")
    return text[: text.rfind("\n") + 1].splitlines()


def compare(ledger: Path, said: Sequence[str], *, kills: int) -> Round:
    """Open the ledger as after a crash, hold it against what was said, and release what is left for the next round."""
    with earmark.open(str(ledger), private=True) as tracker:
        lost = []
        for line in said:
            sign, _, claim = line.partition(" ")
            row = tracker.store.claim(ClaimId(claim))
            if row is None or (sign == "-" and row.cause is None):
                lost.append(line)
        findings = {words(one) for one in (*tracker.audit(), *tracker.verify().findings) if one.severity == "error"}
        for claim_left in tracker.node().live():
            tracker.release(claim_left.id)
    return Round(len(said), kills, tuple(lost), tuple(sorted(findings)))


def words(one: Finding) -> str:
    """Return a finding in one line."""
    return f"{one.code}: {one.detail}"


def round_line(number: int, rounds: int, one: Round) -> str:
    """Return what a round showed in one line."""
    verdict = "sound" if not one.lost and not one.findings else f"{len(one.lost)} lost, {counted(len(one.findings), 'finding')}"
    return f"  {number:>{len(str(rounds))}}/{rounds}  {one.kills} killed  {one.acknowledged:>5} acknowledged  {verdict}"


@contextmanager
def new_folder(beside: Path, *, keep: bool) -> Iterator[Path]:
    """Give a new folder on the ledger's own file system; it goes with the block unless it fails or `keep`."""
    try:
        beside.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="selftest-", dir=beside))
    except OSError as error:
        raise UnsafePlace(f"selftest in {beside}: {error.strerror}", path=str(beside)) from error
    yield folder
    if not keep:
        shutil.rmtree(folder, ignore_errors=True)
