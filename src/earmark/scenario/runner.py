"""A scenario carried out: each step, what it was to lead to, what it led to, and the laws of every step.

Rules of this file: a course begins with an empty ledger of its own; after every step all laws are looked at (laws.py), what was refused has
changed nothing, and what ends something can be said twice. A crash between two steps changes nothing that is expected; in a run with a crash
the laws are looked at from the crash on, as the steps before it are those of the run without one.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

from earmark.core.model.finding import Finding
from earmark.errors import EarmarkError
from earmark.scenario import steps as s
from earmark.scenario.acts import Outcome, act
from earmark.scenario.checking import Checked, check, units_of
from earmark.scenario.laws import broken_laws, grown, heads
from earmark.scenario.world import Opener, Settle, World, file_ledger, memory_ledger

StoreKind = Literal["memory", "sqlite"]
STORES: tuple[StoreKind, ...] = ("memory", "sqlite")
REPEATED = s.EndClaim | s.EndMove | s.ReportState
"""Steps that may be said twice: the second time they are answered and change nothing (I4)."""


class Played(NamedTuple):
    """A step as it went: what was expected and found, and which laws it broke; `crashed`: after a crash before this step."""

    step: s.Step
    checks: tuple[Checked, ...]
    wrongs: tuple[str, ...]
    crashed: bool = False

    @property
    def ok(self) -> bool:
        """Whether everything was as expected and no law was broken."""
        return not self.wrongs and all(each.ok for each in self.checks)


class Run(NamedTuple):
    """One course of a scenario on one store, with a crash before one step (`crash_at`, counted from 1) or none (None)."""

    scenario: s.Scenario
    variant: s.Variant
    store: StoreKind
    crash_at: int | None
    played: tuple[Played, ...]

    @property
    def ok(self) -> bool:
        """Whether every step was carried out and each was as expected."""
        return len(self.played) == len(self.variant.steps) and all(each.ok for each in self.played)


def play(variant: s.Variant, opener: Opener, settle: Settle, *, crash_at: int | None = None) -> tuple[Played, ...]:
    """Carry out a course on a ledger and return its steps as they went, up to the first that ends otherwise than it was to.

    `crash_at` is the step (from 1) before which the program dies and is opened again.
    """
    world = World(opener, settle)
    played: list[Played] = []
    findings: tuple[Finding, ...] = ()
    broken: tuple[str, ...] = ()
    try:
        for number, step in enumerate(variant.steps, 1):
            crashed = number == crash_at and world.ready
            if crashed:
                world.reopen()
                broken = tuple(broken_laws(world))
            done, seen = _one(world, step, findings, watched=crash_at is None or number >= crash_at)
            findings = seen if seen is not None else findings
            if crashed:
                done = done._replace(crashed=True, wrongs=(*broken, *done.wrongs))
            played.append(done)
            if not done.ok and not isinstance(step, s.Expect):
                break
    finally:
        world.close()
    return tuple(played)


def _one(world: World, step: s.Step, findings: Sequence[Finding], *, watched: bool) -> tuple[Played, tuple[Finding, ...] | None]:
    """Carry out one step and hold what it leads to against what it was to lead to."""
    if isinstance(step, s.Expect):
        return Played(step, tuple(_checked(world, what, findings) for what in step.checks), ()), None
    if isinstance(step, s.Remember):
        world.remembered[step.name] = units_of(world, step.consumer, step.what)
        return Played(step, (), ()), None
    before = heads(world) if world.ready else {}
    outcome = act(world, step)
    wrongs = [*outcome.wrongs]
    denied = outcome.refusal is not None or outcome.error is not None or (outcome.verdict is not None and outcome.verdict[0] != "accepted")
    if denied and grown(world, before) and not _partial(step):
        wrongs.append("I5: it was refused and has changed the ledger")
    checked = _result(step, outcome)
    if watched:
        if checked.ok and outcome.changed and isinstance(step, REPEATED):
            wrongs += _said_twice(world, step)
        wrongs += broken_laws(world)
    return Played(step, (checked,), tuple(wrongs)), outcome.findings


def _partial(step: s.Step) -> bool:
    """Say whether a step is more than one call, so that the first may stand where the second is refused."""
    return isinstance(step, s.Claim) and step.how == "unshelve"


def _checked(world: World, what: s.Check, findings: Sequence[Finding]) -> Checked:
    try:
        return check(world, what, findings)
    except EarmarkError as error:
        return Checked("an answer", f"error {error.code}: {error.message}")


def _said_twice(world: World, step: s.Step) -> list[str]:
    """I4: the same step again is answered and changes nothing."""
    before = heads(world)
    again = act(world, step)
    if again.error is not None or again.refusal is not None:
        return [f"I4: said again, it is not answered: {again.words}"]
    if again.changed or heads(world) != before:
        return ["I4: said again, it changed something"]
    return []


def _result(step: s.Step, outcome: Outcome) -> Checked:
    """Return what a step was to lead to, and what it led to."""
    found = outcome.words
    result = step.result
    if isinstance(result, s.Done):
        plain = outcome.error is None and outcome.refusal is None and (outcome.verdict is None or outcome.verdict[0] == "accepted")
        expected = "done"
        silent = not outcome.answers or outcome.changed
        return Checked(expected, expected if plain and silent else f"already: {found}" if plain else found)
    if isinstance(result, s.Already):
        expected = _with("already", result.text)
        true = outcome.error is None and outcome.refusal is None and bool(outcome.answers) and not outcome.changed and result.text in found
        return Checked(expected, expected if true else found)
    if isinstance(result, s.Refused):
        expected = _with(f"refused {result.code}", result.text)
        reasons = outcome.refusal.reasons if outcome.refusal is not None else ()
        true = any(reason.code == result.code for reason in reasons) and result.text in found
        return Checked(expected, expected if true else found)
    if isinstance(result, s.Failed):
        expected = _with(f"error {result.code}", result.text)
        true = outcome.error is not None and outcome.error.code == result.code and result.text in outcome.error.message
        return Checked(expected, expected if true else found)
    if isinstance(result, s.Judged):
        expected = _with(result.kind, result.text)
        true = outcome.verdict is not None and outcome.verdict[0] == result.kind and result.text in outcome.verdict[1]
        return Checked(expected, expected if true else found)
    if isinstance(result, s.Dies):
        return Checked(f"crash {result.when} append", f"crash {result.when} append" if outcome.died else found)
    return Checked(f"{result.count} granted", found)


def _with(begin: str, text: str) -> str:
    return f'{begin} "{text}"' if text else begin


# --- many runs ------------------------------------------------------------------------------------------------------------------------


def runs(
    scenario: s.Scenario, settle: Settle, *, stores: Sequence[StoreKind] = STORES, crash: bool = False, beside: Path | None = None
) -> Iterator[Run]:  # fmt: skip
    """Yield each course of a scenario on each store; with `crash`, also once for each place between two of its steps.

    Ledger files are made in a temporary folder (in `beside` if it is given) and are gone afterwards.
    """
    for variant in scenario.variants:
        for kind in stores:
            yield one_run(scenario, variant, kind, settle, beside=beside)
            for place in crash_places(variant) if crash else ():
                yield one_run(scenario, variant, kind, settle, crash_at=place, beside=beside)


def crash_places(variant: s.Variant) -> tuple[int, ...]:
    """Return the steps (from 1) before which the program may die: all but the first."""
    return tuple(range(2, len(variant.steps) + 1))


def one_run(
    scenario: s.Scenario, variant: s.Variant, kind: StoreKind, settle: Settle, *, crash_at: int | None = None, beside: Path | None = None
) -> Run:  # fmt: skip
    """Carry out one course on one store."""
    with _ledger(kind, beside) as opener:
        return Run(scenario, variant, kind, crash_at, play(variant, opener, settle, crash_at=crash_at))


@contextmanager
def _ledger(kind: StoreKind, beside: Path | None) -> Iterator[Opener]:
    if kind == "memory":
        yield memory_ledger()
        return
    folder = Path(tempfile.mkdtemp(prefix="earmark-scenario-", dir=beside))
    try:
        yield file_ledger(folder / "ledger.db")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
