"""`earmark scenario`: what it prints, how it ends, and that it keeps its hands off the user's ledger."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from earmark.cli.main import cli
from earmark.cli.output_scenario import BookOut, ScenarioOut
from earmark.scenario import book

GOOD = """scenario mine: a bug of mine
nova: does it too
node A 1x16c 32G disk:200G
flavor s 2/2048/20
build i on A as s
expect A 2/2048/20
"""


def run(*words: str) -> Result:
    """Run `earmark scenario WORDS`."""
    return CliRunner().invoke(cli, ["scenario", *words])


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """Give the file of a scenario that holds."""
    path = tmp_path / "good.scenario"
    path.write_text(GOOD)
    return path


def test_each_step_is_printed_with_a_tick(good: Path) -> None:
    """A scenario that holds ends with 0; every step stands there with its line, on both stores."""
    said = run(str(good))
    assert said.exit_code == 0
    assert said.output.count("expect A 2/2048/20") == 2
    assert "\u2713    6  expect A 2/2048/20" in said.output
    assert "Nova 34: does it too" in said.output
    assert said.output.endswith("1 scenario, 2 runs, 6 steps: all as expected\n")


def test_a_wrong_figure_ends_with_one(good: Path) -> None:
    """Expected and found stand side by side, and the exit code is 1."""
    good.write_text(GOOD.replace("2/2048/20\n", "2/2048/21\n", 2).replace("flavor s 2/2048/21", "flavor s 2/2048/20"))
    said = run(str(good), "--store", "memory")
    assert said.exit_code == 1
    assert "\u2717    6  expect A 2/2048/21" in said.output
    assert "expected  A 2/2048/21" in said.output
    assert "found     A 2/2048/20" in said.output
    said = run(str(good), "--store", "memory", "--crash")
    assert said.exit_code == 1
    assert "2 otherwise than expected" in said.output


def test_a_crash_at_every_place_is_counted(good: Path) -> None:
    """--crash runs the course again for each place between two steps."""
    said = run(str(good), "--crash", "-q")
    assert said.exit_code == 0
    assert said.output.count("with a crash at each of 2 places between two steps: all as expected") == 2
    assert "1 scenario, 6 runs" in said.output


def test_json_has_every_step(good: Path) -> None:
    """--json gives the courses with expected and found."""
    said = run(str(good), "--json", "--store", "memory", "--crash")
    answer = msgspec.json.decode(said.output, type=ScenarioOut)
    assert (answer.ok, answer.runs, answer.wrong, len(answer.courses)) == (True, 3, 0, 1)
    assert [each.text for each in answer.courses[0].steps][-1] == "expect A 2/2048/20"
    assert answer.courses[0].steps[-1].checks[0].found == "A 2/2048/20"
    listed = msgspec.json.decode(run("--list", "--json").output, type=list[BookOut])
    assert [each.id for each in listed] == list(book.names())


def test_the_book_is_listed_printed_and_run_by_name(tmp_path: Path) -> None:
    """Scenarios of the program go by name; a printed one is a file that can be run."""
    listed = run("--list").output
    assert all(name in listed for name in book.names())
    assert run("S11", "--store", "memory", "-q").exit_code == 0
    path = tmp_path / "mine.scenario"
    path.write_text(run("S11", "--print").output)
    assert run(str(path), "--store", "memory", "-q").exit_code == 0


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ((), "no scenario is named"),
        (("nowhere.scenario",), "cannot be read"),
        (("S99",), "cannot be read"),
        (("S11", "--store", "postgres"), "postgres"),
    ],
)
def test_what_cannot_be_run_is_said(words: tuple[str, ...], part: str) -> None:
    """No file, an unknown name and an unknown store end with 2 and one line."""
    said = run(*words)
    assert said.exit_code == 2
    assert part in said.output


def test_a_line_that_is_not_understood_is_named(good: Path) -> None:
    """File, line and column stand in the message; text that is no UTF-8 is refused too."""
    good.write_text(GOOD + "dance i\n")
    said = run(str(good))
    assert said.exit_code == 2
    assert f"{good}:7:1: 'dance' begins no step" in said.output
    good.write_bytes(GOOD.encode() + b"\xff\xfe")
    said = run(str(good))
    assert said.exit_code == 2
    assert "is not UTF-8" in said.output


def test_no_ledger_of_the_user_is_touched(good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is made in the user's folders, and no temporary folder is left behind."""
    home, scratch = tmp_path / "state", tmp_path / "scratch"
    home.mkdir()
    scratch.mkdir()
    monkeypatch.setenv("XDG_STATE_HOME", str(home))
    monkeypatch.setenv("TMPDIR", str(scratch))
    monkeypatch.setattr("tempfile.tempdir", None)
    assert run(str(good), "--crash").exit_code == 0
    assert list(home.iterdir()) == []
    assert list(scratch.iterdir()) == []
    assert os.environ["XDG_STATE_HOME"] == str(home)


def test_an_escape_in_a_file_does_not_reach_the_terminal(good: Path) -> None:
    """What a file holds is printed clean or refused."""
    good.write_text(GOOD.replace("a bug of mine", "a \u202ebug"))
    said = run(str(good))
    assert "\u202e" not in said.output


def decoded(text: str) -> Any:
    """Return JSON as it is."""
    return json.loads(text)
