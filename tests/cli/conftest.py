"""A command line in a test's hand: it runs commands on the memory store, with a given clock, host and processes."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any, NamedTuple

import pytest
from click.testing import CliRunner

from earmark.cli.main import cli
from earmark.cli.session import Session
from earmark.testing import Bench, bench


class Said(NamedTuple):
    """How a command ended: its exit code, standard output, standard error."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """Return standard output as JSON."""
        return json.loads(self.out)


class Line(NamedTuple):
    """A command line on a bench."""

    bench: Bench

    def __call__(self, words: str, *more: str, stdin: str | None = None, env: dict[str, str] | None = None) -> Said:
        """Run `earmark WORDS MORE…`; the tracker stays open."""
        session = Session(opener=lambda _: nullcontext(self.bench.tracker), clock=self.bench.clock)
        result = CliRunner().invoke(cli, [*shlex.split(words), *more], obj=session, input=stdin, env=env)
        return Said(result.exit_code, result.stdout, result.stderr)

    def good(self, words: str, *more: str, stdin: str | None = None) -> str:
        """Run a command that must end with 0 and return its standard output."""
        said = self(words, *more, stdin=stdin)
        assert said.code == 0, said
        return said.out


Lines = Callable[..., Line]


@pytest.fixture
def earmark() -> Iterator[Line]:
    """Give a command line on two cells of eight cores; the auditor looks at the end."""
    with bench("2x8c 32G 2M:1024 gpu:2 vf:4") as made:
        yield Line(made)


@pytest.fixture
def tiny() -> Iterator[Line]:
    """Give a command line on one cell of two CPUs and 2 GiB."""
    with bench("1x2c 2G") as made:
        yield Line(made)
