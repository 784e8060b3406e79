"""`earmark receive` on the command line: a verdict for each line, and the exit code."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from earmark.cli.main import cli
from earmark.cli.session import Session
from earmark.core.model.record import RECORD_BYTES_MAX
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


@pytest.mark.rule("S24")
def test_a_listing_is_told_and_then_applied(tmp_path: Path) -> None:
    """Without --apply the exit code is 1 and audit names the listing; with it the instance is deleted and all is clean."""
    file = tmp_path / "listing.jsonl"
    with bench() as world:
        for consumer in ("i", "j"):
            world.tracker.hold(S, consumer=consumer, owner="ann", confirm=True)
            world.tracker.report(consumer, "active")
        record = {"record": "listing", "node": "n1", "consumers": ["j"], "complete": True}
        file.write_text(json.dumps(record), encoding="utf-8")
        told = run(world, "receive", str(file))
        assert (told.exit_code, told.stdout) == (1, "1: listing of n1 is contradictory: i hold something there and are not listed\n")
        assert "unlisted" in run(world, "audit").output
        done = run(world, "receive", str(file), "--apply")
        assert (done.exit_code, done.stdout) == (0, "1: listing of n1 is accepted: deleted: i\n")
        assert run(world, "audit").exit_code == 0
        assert run(world, "receive", str(file), "--apply").stdout == "1: listing of n1 is accepted (nothing changed)\n"


@pytest.mark.rule("W11")
def test_lines_have_their_numbers_and_a_bounded_length() -> None:
    """Empty lines count and are no records; a line that is longer than a record may be is invalid, and the one after it is heard."""
    with bench() as world:
        world.tracker.hold(S, consumer="i", owner="ann", confirm=True)
        endless = "x" * (3 * RECORD_BYTES_MAX)
        told = run(world, "receive", "-", "--json", stdin=f"\n{endless}\n\r\n  \n{line('i', 'paused')}\n{line('ghost')}")
        rows = [(row["place"], row["verdict"]) for row in json.loads(told.stdout)["verdicts"]]
        assert rows == [(2, "invalid"), (5, "accepted"), (6, "unknown")]
        assert told.exit_code == 1
