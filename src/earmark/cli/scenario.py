"""`earmark scenario`: a sequence of operations is carried out in a ledger of its own, each step with what was expected and found.

Rules of this file: the user's ledger is neither read nor written; a scenario that ends otherwise than expected ends the program with 1.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import click

from earmark.cli import phrases
from earmark.cli.ledgers import EXIT_FINDINGS
from earmark.cli.node_settings import changed
from earmark.cli.output_scenario import BookOut, CheckOut, CourseOut, ScenarioOut, StepOut
from earmark.cli.request_options import read_limited
from earmark.cli.session import Session
from earmark.cli.verb import Verb
from earmark.core.model.units import counted
from earmark.errors import InvalidRecord, InvalidRequest
from earmark.scenario import book
from earmark.scenario import steps as s
from earmark.scenario.language import parse
from earmark.scenario.runner import STORES, Played, Run, StoreKind, runs

TICK, CROSS = "\u2713", "\u2717"
PLAIN = {TICK: "ok", CROSS: "NO"}


@click.command(
    cls=Verb, examples=("earmark scenario S11", "earmark scenario --list", "earmark scenario bug.scenario --store sqlite --crash")
)
@click.argument("files", nargs=-1, metavar="FILE|NAME...")
@click.option("--store", type=click.Choice(["memory", "sqlite", "both"]), default="both", show_default=True, help="Where the ledger rests.")
@click.option("--crash", is_flag=True, help="Run it again with a crash between any two steps.")
@click.option("--list", "listing", is_flag=True, help="List the scenarios that come with the program.")
@click.option("--print", "printing", is_flag=True, help="Print a scenario that comes with the program, to be changed.")
@click.pass_obj
def scenario(session: Session, files: Sequence[str], *, store: str, crash: bool, listing: bool, printing: bool) -> int:
    """Carry out scenarios in ledgers of their own; exit 1 if a figure is wrong.

    Each FILE is a text in the scenario language, or the NAME of a scenario that comes with the program (S11). Every step is printed
    with what it was to lead to and what it led to. Exit code 1: a figure was wrong, or a law of every step was broken.
    """
    if listing:
        return _list(session)
    if not files:
        raise InvalidRequest("no scenario is named: give a FILE or the NAME of one; 'earmark scenario --list' lists them")
    texts = [_text(name) for name in files]
    if printing:
        session.out(line for text, _ in texts for line in text.splitlines())
        return 0
    scenarios = [parse(text, source) for text, source in texts]
    stores: tuple[StoreKind, ...] = STORES if store == "both" else tuple(kind for kind in STORES if kind == store)
    done: list[Run] = []
    for each in scenarios:
        if not session.json:
            _head(session, each)
        for course in _courses(each, stores, crash=crash):
            done += course
            if not session.json:
                session.out(_course_lines(course, quiet=session.quiet))
    wrong = sum(not run.ok for run in done)
    if session.json:
        shown = [_course(run) for run in done if run.crash_at is None or not run.ok]
        session.emit(ScenarioOut(ok=not wrong, runs=len(done), wrong=wrong, courses=shown))
    else:
        steps = sum(len(run.played) for run in done)
        verdict = "all as expected" if not wrong else f"{wrong} otherwise than expected"
        session.out(f"{counted(len(scenarios), 'scenario')}, {counted(len(done), 'run')}, {counted(steps, 'step')}: {verdict}")
    return EXIT_FINDINGS if wrong else 0


def _list(session: Session) -> int:
    known = [book.scenario(name) for name in book.names()]
    if session.json:
        session.emit([BookOut(id=each.id, title=each.title, nova=each.nova, variants=[v.title for v in each.variants]) for each in known])
    else:
        session.out(f"{each.id:<5} {each.title}" for each in known)
    return 0


def _text(name: str) -> tuple[str, str]:
    """Return the text of a file, or of a scenario of the book where no file has that name, and how messages call it."""
    if name in book.names() and not Path(name).exists():
        return book.text(name), name
    raw = read_limited(name, "scenario")
    try:
        return raw.decode("utf-8"), name
    except UnicodeDecodeError as error:
        raise InvalidRecord(f"scenario {name!r} is not UTF-8 text: {error.reason} at byte {error.start}", source=name) from error


def _courses(each: s.Scenario, stores: Sequence[StoreKind], *, crash: bool) -> Iterator[list[Run]]:
    """Yield, for each variant and store, its run and the ones with a crash."""
    group: list[Run] = []
    for run in runs(each, changed, stores=stores, crash=crash):
        if run.crash_at is None and group:
            yield group
            group = []
        group.append(run)
    yield group


def _head(session: Session, each: s.Scenario) -> None:
    session.out(phrases.clean(f"{each.id}  {each.title}"))
    if each.nova and not session.quiet:
        session.out(phrases.clean(f"     Nova 34: {each.nova}"))


def _course_lines(course: Sequence[Run], *, quiet: bool) -> Iterator[str]:
    """Yield one course in lines: its steps, then what became of it with a crash at each place."""
    plain, crashed = course[0], course[1:]
    title = f": {phrases.clean(plain.variant.title)}" if plain.variant.title else ""
    yield f"  {plain.store}{title}"
    if not quiet or not plain.ok:
        for played in plain.played:
            yield from _step_lines(played)
    missing = len(plain.variant.steps) - len(plain.played)
    if missing:
        yield f"     {counted(missing, 'step')} after it not carried out"
    bad = [run for run in crashed if not run.ok]
    for run in bad:
        if _told(run) == _told(plain):
            continue
        yield f"  {plain.store}{title}, with a crash before line {_line_at(run)}"
        for played in run.played:
            if not played.ok:
                yield from _step_lines(played)
    if crashed:
        verdict = "all as expected" if not bad else f"{len(bad)} otherwise than expected"
        yield f"  {_mark(ok=not bad)} and again with a crash at each of {counted(len(crashed), 'place')} between two steps: {verdict}"


def _told(run: Run) -> list[tuple[int, tuple[str, ...], tuple[str, ...]]]:
    """Return what was otherwise than expected in a run: with a crash it is told only where it differs from the run without one."""
    return [(each.step.line, tuple(check.found for check in each.checks), each.wrongs) for each in run.played if not each.ok]


def _step_lines(played: Played) -> Iterator[str]:
    yield f"  {_mark(ok=played.ok)} {played.step.line:>4}  {phrases.clean(played.step.text)}"
    for each in played.checks:
        if not each.ok:
            yield f"           expected  {phrases.clean(each.expected)}"
            yield f"           found     {phrases.clean(each.found)}"
    for wrong in played.wrongs:
        yield f"           {phrases.clean(wrong)}"


def _mark(*, ok: bool) -> str:
    """Return a tick or a cross, in words where standard output has no such signs."""
    sign = TICK if ok else CROSS
    try:
        sign.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return PLAIN[sign]
    return sign


def _line_at(run: Run) -> int:
    """Return the line before which a run's program died."""
    return run.variant.steps[(run.crash_at or 1) - 1].line


def _course(run: Run) -> CourseOut:
    return CourseOut(
        scenario=run.scenario.id, title=run.scenario.title, variant=run.variant.title, source=run.scenario.source, store=run.store,
        crash_at=None if run.crash_at is None else _line_at(run), ok=run.ok, steps=list(_steps(run.played)),
    )  # fmt: skip


def _steps(played: Iterable[Played]) -> Iterator[StepOut]:
    for each in played:
        checks = [CheckOut(ok=check.ok, expected=check.expected, found=check.found) for check in each.checks]
        yield StepOut(line=each.step.line, text=each.step.text, ok=each.ok, checks=checks, broken=list(each.wrongs))
