"""The shape of `earmark scenario --json`; the rules are those of output.py."""

from __future__ import annotations

from typing import Literal

from earmark.cli.output import Out


class CheckOut(Out, frozen=True):
    """One expectation: what was expected and what was found; `ok` if they are the same."""

    ok: bool
    expected: str
    found: str


class StepOut(Out, frozen=True):
    """One step as it went: its line and text, what was expected and found, and which laws of every step it broke."""

    line: int
    text: str
    ok: bool
    checks: list[CheckOut]
    broken: list[str]


class CourseOut(Out, frozen=True):
    """One course of a scenario on one store; `crash_at` is the line before which the program died (null: it did not)."""

    scenario: str
    title: str
    variant: str
    source: str
    store: Literal["memory", "sqlite"]
    crash_at: int | None
    ok: bool
    steps: list[StepOut]


class ScenarioOut(Out, frozen=True):
    """The answer of scenario: how many courses ran, how many ended otherwise than expected, and each of them (`courses`).

    With `--crash` only those runs with a crash are listed that ended otherwise than expected.
    """

    ok: bool
    runs: int
    wrong: int
    courses: list[CourseOut]


class BookOut(Out, frozen=True):
    """A scenario that comes with the program (`scenario --list`): its name, title, and what Nova does instead."""

    id: str
    title: str
    nova: str
    variants: list[str]
