"""`earmark receive` on the command line: a verdict for each line, and the exit code."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from earmark.cli.main import cli
from earmark.cli.session import Session
from earmark.core.model.request import Request
from earmark.core.model.units import GIB
from earmark.testing import Bench, bench

S = Request(vcpus=2, memory_bytes=2 * GIB)


def run(world: Bench, *words: str, stdin: str | None = None) -> Result:
    """Run a command on a bench's tracker."""
    session = Session(opener=lambda _: nullcontext(world.tracker), clock=world.clock)
    return CliRunner().invoke(cli, list(words), obj=session, input=stdin)


def line(consumer: str, state: str = "active") -> str:
    """Return a record as a line."""
    return json.dumps({"record": "instance", "consumer": consumer, "owner": "ann", "state": state})


@pytest.mark.rule("W11", "S24")
def test_each_line_gets_a_verdict(tmp_path: Path) -> None:
    """Good lines are carried out, a broken one is named by its place and makes the exit code 1."""
    file = tmp_path / "records.jsonl"
    with bench() as world:
        for consumer in ("i", "j"):
            world.tracker.hold(S, consumer=consumer, owner="ann", confirm=True)
            world.tracker.report(consumer, "active")
        file.write_text("\n".join((line("i", "paused"), "{\x1b[2J", line("ghost"))), encoding="utf-8")
        told = run(world, "receive", str(file))
        assert told.exit_code == 1
        assert told.stdout.splitlines()[0] == "1: instance i is accepted"
        assert "2: record is invalid" in told.stdout
        assert "3: instance ghost is unknown" in told.stdout
        assert "\x1b" not in told.stdout
        home = world.tracker.node().name
        told = run(world, "receive", "-", "--complete", home, stdin=line("i", "paused"))
        assert (told.exit_code, len(world.tracker.claims_of("j"))) == (1, 1)
        assert "instance j: not deleted" in told.stdout
        found = run(world, "receive", "-", "--complete", home, "--apply", "--json", stdin=line("i", "paused"))
        assert found.exit_code == 0, found.output
        verdicts = [(row["verdict"], row["about"]) for row in json.loads(found.stdout)["verdicts"]]
        assert verdicts == [("accepted", "instance i"), ("gone", "instance j")]
        assert world.tracker.claims_of("j") == ()


def test_a_file_that_cannot_be_read_changes_nothing(tmp_path: Path) -> None:
    """It is an error of the caller, told in one line."""
    with bench() as world:
        position = world.store.last_position()
        assert run(world, "receive", str(tmp_path / "none")).exit_code == 2
        assert run(world, "receive", str(tmp_path)).exit_code == 2
        assert world.store.last_position() == position
