"""`earmark fit --cases FILE` as a person or a program uses it: tables, lines of JSON, exit codes, broken files."""

from __future__ import annotations

import codecs
import errno
import gzip
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tests.cases.case_making import drawn

from earmark.cli import case_lines
from earmark.cli.main import cli
from earmark.errors import InvalidRecord

Made = dict[str, Any]
CASES = [drawn(number) for number in range(40)]
LINES = [json.dumps(each).encode() for each in CASES]
INVALID = {"vcpus": 1, "memory_mb": 2, "extra_specs": {"hw:cpu_policy": "pinned"}, "image_properties": {}, "pci_requests": []}


def run(*words: str, stdin: bytes | None = None) -> Result:
    """Run `earmark fit WORDS…` in this process, without any ledger."""
    return CliRunner().invoke(cli, ["fit", *words], input=stdin)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Give a file of forty cases."""
    path = tmp_path / "cases.jsonl"
    path.write_bytes(b"\n".join(LINES) + b"\n")
    return path


def test_json_gives_one_answer_a_line_in_the_order_of_the_lines(file: Path) -> None:
    """Each line has its answer: number, id, yes or no, and why."""
    said = run("--cases", str(file), "--json")
    assert said.exit_code == 0
    answers = [json.loads(line) for line in said.stdout.splitlines()]
    assert [each["id"] for each in answers] == [each["id"] for each in CASES]
    assert [each["line"] for each in answers] == list(range(1, 41))
    keys = {"line", "id", "fits", "error", "cells", "pci", "reasons", "certificate", "passed_over"}
    assert all(set(each) == keys and (each["fits"] is True or each["reasons"]) for each in answers)


def test_every_way_to_read_and_every_number_of_processes_gives_the_same(file: Path, tmp_path: Path) -> None:
    """Plain, gzipped, from standard input, by one process or two: the same lines come out."""
    zipped = tmp_path / "cases.gz"
    zipped.write_bytes(gzip.compress(file.read_bytes()))
    plain = run("--cases", str(file), "--json").stdout
    assert plain
    assert run("--cases", str(zipped), "--json").stdout == plain
    assert run("--cases", "-", "--json", stdin=zipped.read_bytes()).stdout == plain
    assert run("--cases", "-", "--json", stdin=file.read_bytes()).stdout == plain
    assert run("--cases", str(file), "--json", "--jobs", "2").stdout == plain


def test_without_json_it_counts(file: Path) -> None:
    """A person sees what became of the cases, the reasons of the refusals, and the slowest case."""
    said = run("--cases", str(file))
    assert said.exit_code == 0
    lines = said.stdout.splitlines()
    fits = sum(1 for each in CASES if json.loads(run("--cases", "-", "--json", stdin=json.dumps(each).encode()).stdout)["fits"])
    assert lines[0].split() == ["CASES", "OUTCOME", "SHARE"]
    assert lines[1].split()[:2] == [str(fits), "fits"]
    assert lines[2].split()[:4] == [str(40 - fits), "does", "not", "fit"]
    assert any(line.split()[-2:] == ["short:", "cpu"] for line in lines)
    assert lines[-1].startswith("40 cases in ")
    assert "slowest made-" in lines[-1]


def test_an_invalid_request_is_an_answer() -> None:
    """A request that contradicts itself is answered with Nova's name for it, and the program ends with 0."""
    said = run("--cases", "-", "--json", stdin=json.dumps({**CASES[0], "request": INVALID}).encode())
    found = json.loads(said.stdout)
    assert (said.exit_code, found["fits"], found["error"]) == (0, False, "InvalidCPUAllocationPolicy")
    assert "InvalidCPUAllocationPolicy" in run("--cases", "-", stdin=json.dumps({**CASES[0], "request": INVALID}).encode()).stdout


def test_a_broken_line_leaves_the_others_alone() -> None:
    """Each broken line has an answer of its own, and the program ends with 2."""
    said = run("--cases", "-", "--json", stdin=b"\n".join([LINES[0], b"", b"{broken", LINES[1]]))
    answers = [json.loads(line) for line in said.stdout.splitlines()]
    assert said.exit_code == 2
    assert [(each["line"], each["error"]) for each in answers] == [(1, None), (3, "MalformedCase"), (4, None)]
    told = run("--cases", "-", stdin=b"{broken")
    assert told.exit_code == 2
    assert "no case" in told.stdout
    assert "line 1 is no case: " in told.stderr


def test_an_answer_that_is_not_known_ends_with_1(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the search stopped at its bound the answer is neither yes nor no, and the program says so."""
    monkeypatch.setattr("earmark.core.fit.search.solving.STEPS_MAX", 0)
    doubtful = [run("--cases", "-", "--json", stdin=line) for line in (json.dumps(drawn(number)).encode() for number in range(180, 200))]
    codes = {(json.loads(each.stdout)["fits"], each.exit_code) for each in doubtful}
    assert codes == {(True, 0), (False, 0), (None, 1)}


def test_a_line_too_long_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line beyond the bound is passed over in pieces; the next one is read."""
    longest = max(len(line) for line in LINES[:3]) + 1
    monkeypatch.setattr(case_lines, "LINE_BYTES_MAX", longest)
    said = run("--cases", "-", "--json", stdin=b"\n".join([LINES[0], b'{"id": "' + b"x" * (3 * longest) + b'"}', LINES[1]]))
    answers = [json.loads(line) for line in said.stdout.splitlines()]
    assert [(each["line"], each["error"]) for each in answers] == [(1, None), (2, "MalformedCase"), (3, None)]
    assert "longer than" in answers[1]["reasons"][0]


def test_a_damaged_file_is_answered_as_far_as_it_goes(file: Path) -> None:
    """Where a gzipped file breaks off, the lines before it have their answers."""
    zipped = gzip.compress(file.read_bytes(), compresslevel=0)
    said = run("--cases", "-", "--json", stdin=zipped[: len(zipped) // 2])
    answers = [json.loads(line) for line in said.stdout.splitlines()]
    assert said.exit_code == 2
    assert [each["id"] for each in answers[:-1]] == [each["id"] for each in CASES[: len(answers) - 1]]
    assert "breaks off" in answers[-1]["reasons"][0]
    assert len(answers) > 5


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """What cannot be opened, or is a folder, is one line on standard error."""
    for path in (tmp_path / "none", tmp_path):
        said = run("--cases", str(path))
        assert (said.exit_code, said.stdout) == (2, "")
        assert "cannot be read" in said.stderr


class Failing(io.BytesIO):
    """A stream of a disk that fails behind the first case."""

    def readline(self, size: int | None = -1, /) -> bytes:
        """Return the first line; raise OSError for those behind it."""
        if self.tell():
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return super().readline(size)


def test_a_disk_that_fails_is_the_input_s_fault() -> None:
    """What is read is answered; where reading fails, the file and the reason are named."""
    lines = case_lines.lines_of(Failing(b"\n".join(LINES)), "cases.jsonl")
    assert next(lines).number == 1
    with pytest.raises(InvalidRecord, match=r"'cases\.jsonl' cannot be read: Input/output error"):
        next(lines)


def test_what_goes_wrong_with_the_answers_is_not_told_of_the_file(file: Path) -> None:
    """An OSError of the block in which the file is open passes as it is."""
    with pytest.raises(OSError, match="the output"), case_lines.opened(str(file)):
        raise OSError("the output")


@pytest.mark.long
@pytest.mark.parametrize("words", [(), ("--json",), ("--json", "--jobs", "2")])
def test_an_output_that_takes_nothing_is_not_told_of_the_file(words: tuple[str, ...], file: Path) -> None:
    """A reader that is gone ends it quietly with 141; a full disk behind the output is named as such, with 74."""
    command = [sys.executable, "-m", "earmark.cli.main", "fit", "--cases", str(file), *words]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 74
    assert done.stderr.count(b"\n") == 1
    assert b"cannot be written to standard output: No space left on device" in done.stderr
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_byte_order_mark_is_passed_over(file: Path) -> None:
    """A file that an editor has begun with the mark of UTF-8 is answered as without it; a mark elsewhere is no case."""
    plain = run("--cases", str(file), "--json")
    marked = codecs.BOM_UTF8 + file.read_bytes()
    for raw in (marked, gzip.compress(marked)):
        assert run("--cases", "-", "--json", stdin=raw).stdout == plain.stdout
    assert run("--cases", "-", "--json", stdin=codecs.BOM_UTF8).stdout == ""
    assert run("--cases", "-", stdin=LINES[0] + b"\n" + codecs.BOM_UTF8 + LINES[1]).exit_code == 2


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_a_file_in_another_encoding_is_one_error(encoding: str, file: Path) -> None:
    """A file of UTF-16, with its mark or without, is said to be not UTF-8, once and not for every line."""
    said = run("--cases", "-", stdin=file.read_text().encode(encoding))
    assert (said.exit_code, said.stdout) == (2, "")
    assert said.stderr == "earmark: cases from standard input: not UTF-8 but UTF-16 or UTF-32\n"


@pytest.mark.parametrize(
    ("broken", "last"), [(20, None), (21, "and 1 more line that is no case"), (25, "and 5 more lines that are no case")]
)
def test_lines_that_are_no_case_are_counted_where_they_are_no_longer_named(broken: int, last: str | None) -> None:
    """The first twenty are named; how many more there are is said behind them."""
    told = run("--cases", "-", stdin=b"{broken\n" * broken).stderr.splitlines()
    assert [line for line in told if " is no case: " in line] == told[:20]
    assert told[20:] == ([last] if last else [])


def test_a_file_of_nothing_is_answered_with_nothing() -> None:
    """No lines, no answers."""
    assert run("--cases", "-", "--json", stdin=b"").stdout == ""
    assert run("--cases", "-", stdin=b"\n\n").stdout.splitlines()[-1].startswith("0 cases")


@pytest.mark.parametrize("words", [("--cpus", "2"), ("--node", "n"), ("--grant", "g"), ("--gpus", "1")])
def test_cases_stand_alone(words: tuple[str, str], file: Path) -> None:
    """A case says all of it: no other wish stands beside --cases; --jobs is for cases only."""
    said = run("--cases", str(file), *words)
    assert said.exit_code == 2
    assert "stands beside it" in said.stderr
    assert "--jobs N is for --cases" in run("--jobs", "2").stderr


def test_answers_come_while_the_lines_come(tmp_path: Path) -> None:
    """The file is never held: the first answer is there before the second line; no ledger is made."""
    environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path), "HOME": str(tmp_path)}
    words = [sys.executable, "-m", "earmark.cli.main", "fit", "--cases", "-", "--json"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as program:
        assert program.stdin is not None
        assert program.stdout is not None
        for line in LINES[:3]:
            program.stdin.write(line + b"\n")
            program.stdin.flush()
            assert json.loads(program.stdout.readline())["id"] == json.loads(line)["id"]
        program.stdin.close()
        assert program.wait() == 0
    assert list(tmp_path.iterdir()) == []
