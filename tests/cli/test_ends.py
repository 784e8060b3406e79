"""How commands end: exit codes, one line or problem+json, hostile values, broken pipes, Ctrl-C, faults of our own."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import pytest
from click.testing import CliRunner
from tests.cli.conftest import Line, Said

from earmark import errors
from earmark.cli.main import Output, OutputLost, cli
from earmark.cli.session import Session

HOSTILE = [
    "[red]boo[/red]",
    "$(touch /tmp/owned)",
    "`id`; rm -rf /",
    "\"quoted\" 'twice'",
    "ünïcödé 虚拟机",
    "-rf",
    "x" * 128,
    "[link=file:///etc/passwd]x",
]
UNPRINTABLE = ["\x1b[31mred", "two\nlines", "\u202egnp", "bell\x07", "nul\x00"]


def tree(root: type[errors.EarmarkError]) -> Iterator[type[errors.EarmarkError]]:
    """Yield all errors of the tree but Refused, which has its reasons as a second argument."""
    for kind in root.__subclasses__():
        if kind is not errors.Refused:
            yield kind
        yield from tree(kind)


ERRORS: list[type[errors.EarmarkError]] = sorted(tree(errors.EarmarkError), key=lambda kind: kind.code)


def ended_with(error: BaseException, *words: str) -> Said:
    """Run a command whose ledger cannot be opened because of an error."""

    def opener(_: Session) -> NoReturn:
        raise error

    result = CliRunner().invoke(cli, [*words], obj=Session(opener=opener))
    return Said(result.exit_code, result.stdout, result.stderr)


@pytest.mark.parametrize("kind", ERRORS, ids=[kind.code for kind in ERRORS])
def test_every_error_is_one_line_and_its_exit_code(kind: type[errors.EarmarkError]) -> None:
    """Each error of the tree ends with its documented code, one clean line on standard error, and no traceback."""
    said = ended_with(kind("open \x1b[31m/x\n: found y", path="/x"), "list")
    assert (said.code, said.out) == (kind.exit_code, "")
    assert said.err == "earmark: open \\x1b[31m/x\\n: found y\n"
    assert kind.exit_code in (2, 4, 5, 6)


def test_an_error_in_json_is_a_problem() -> None:
    """With --json, wherever it stands, an error is a problem+json object (RFC 9457) on standard error."""
    for words in (("--json", "list"), ("list", "--json")):
        said = ended_with(errors.LedgerBusy("append to x: pid 7 writes", pid=7, path=Path("/x")), *words)
        assert said.code == 5
        problem = json.loads(said.err)
        assert problem["type"].endswith("/ledger-busy")
        assert problem["detail"] == "append to x: pid 7 writes"
        assert problem["facts"] == {"pid": 7, "path": "/x"}
    assert json.loads(ended_with(errors.Invalid("x"), "list", "--foo", "--json").err)["type"].endswith("/invalid-usage")
    assert ended_with(errors.Invalid("x"), "run", "--foo", "--", "--json").err.startswith("earmark: ")


def test_a_fault_of_our_own_shows_its_traceback_and_ends_with_70() -> None:
    """What nobody foresaw is not dressed up as an answer: traceback, one line that says whose fault it is, code 70."""
    said = ended_with(RuntimeError("impossible"), "list")
    assert said.code == 70
    assert "Traceback" in said.err
    assert "RuntimeError: impossible" in said.err
    assert said.err.endswith("earmark: this is a fault of Earmark, not of yours; nothing more was written\n")


def test_ctrl_c_ends_with_130() -> None:
    """An interrupted command says so and ends as shells expect."""
    said = ended_with(KeyboardInterrupt(), "list")
    assert (said.code, said.out, said.err) == (130, "", "earmark: interrupted\n")


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_only_text(earmark: Line, name: str) -> None:
    """A name with markup, shell words or another alphabet is claimed, shown everywhere as it is, and correct in JSON."""
    claim = earmark.good("claim -q --cpus 1:dedicated", f"--consumer={name}", f"--owner={name}").strip()
    for words in ("list", "", f"show {claim}", "log", "why-not --cpus 99:dedicated", f"at {earmark.bench.clock.now_ms()} list"):
        said = earmark(words)
        assert said.code == 0
        assert all(line.isprintable() for line in said.out.splitlines())
        assert name[:12] in said.out
    assert earmark("list --json").json()["claims"][0]["consumer"] == name
    if not name.startswith("-"):
        assert earmark.good("show", name).startswith(claim)
    assert earmark("show", "--", name).code == 0


@pytest.mark.parametrize("name", UNPRINTABLE)
def test_unprintable_names_are_refused_in_a_clean_line(earmark: Line, name: str) -> None:
    """A name or reason with a control character is refused, and the error does not carry it to the terminal."""
    for words, value in (
        ("claim --mem 1MiB --consumer", name),
        ("claim --mem 1MiB --owner", name),
        ("node cordon 3 --reason", name),
        ("who", name),
    ):
        said = earmark(words, value)
        assert said.code == 2, (words, said)
        assert said.err.rstrip("\n").isprintable()
        assert said.out == ""


def test_hostile_reasons_reach_the_refused_as_text(earmark: Line) -> None:
    """A cordon's reason with markup and shell words is shown as it is in picture, refusal and JSON."""
    reason = "[bold]fan[/bold] $(reboot) \\x1b[31m"
    earmark.good("node cordon --reason", reason)
    assert reason in earmark.good("")
    said = earmark("claim --mem 1MiB")
    assert reason in said.err
    assert earmark("--json").json()["cordons"][0]["reason"] == reason


def home_of(path: Path) -> dict[str, str]:
    """Return an environment with a home of its own."""
    return {**os.environ, "XDG_STATE_HOME": str(path)}


def ended_process(words: str, home: Path, *, stdout: int) -> subprocess.CompletedProcess[bytes]:
    """Run `earmark WORDS` to its end, its answer going to a file that is open."""
    command = [sys.executable, "-m", "earmark.cli.main", *words.split()]
    return subprocess.run(command, env=home_of(home), stdout=stdout, stderr=subprocess.PIPE, check=False)


def earmark_process(*words: str, home: Path, **more: str) -> subprocess.Popen[bytes]:
    """Start `earmark WORDS` with a home of its own."""
    environment = {**os.environ, "XDG_STATE_HOME": str(home), **more}
    command = [sys.executable, "-m", "earmark.cli.main", *words]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.long
def test_a_reader_that_goes_away_is_no_error_of_ours(tmp_path: Path) -> None:
    """`earmark … | head` ends quietly with 141 where the reader is gone, without a traceback."""
    with earmark_process("--help", home=tmp_path) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.close()
        assert child.stderr.read() == b""
        assert child.wait() == 141


@pytest.mark.long
@pytest.mark.parametrize("words", ["--help", "node list", "list --json", "log", "export"])
def test_an_answer_that_is_drawn_copied_or_listed_ends_quietly_too(words: str, tmp_path: Path) -> None:
    """However a command writes its answer, a reader that is gone ends it with 141 and without a word."""
    pipe = unread_pipe()
    done = ended_process(words, tmp_path, stdout=pipe)
    os.close(pipe)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.long
@pytest.mark.parametrize("words", ["--help", "node list", "log", "export"])
def test_an_output_that_takes_nothing_is_named_in_one_line(words: str, tmp_path: Path) -> None:
    """On a full disk the line says that it was the output, and why, not that Earmark is at fault; the code is 74."""
    with Path("/dev/full").open("wb") as full:
        done = ended_process(words, tmp_path, stdout=full.fileno())
        assert done.stderr == b"earmark: the answer cannot be written to standard output: No space left on device\n"
        assert done.returncode == 74
        told = json.loads(ended_process(words + " --json", tmp_path, stdout=full.fileno()).stderr)
    assert told["type"].endswith("/output-lost")


@pytest.mark.long
@pytest.mark.parametrize(("words", "code"), [("node list", 74), ("bogus", 2), ("release none", 2)])
def test_a_closed_output_is_missed_only_where_there_is_an_answer(words: str, code: int, tmp_path: Path) -> None:
    """Behind `>&-` an answer has nowhere to go, and that is said; what has no answer ends as ever."""
    shell = f"exec {sys.executable} -m earmark.cli.main {words} >&-"
    done = subprocess.run(["/bin/sh", "-c", shell], env=home_of(tmp_path), stderr=subprocess.PIPE, check=False)
    assert done.returncode == code
    assert done.stderr.startswith(b"earmark: ")
    assert done.stderr.endswith(b"Bad file descriptor\n") == (code == 74)


@pytest.mark.long
@pytest.mark.parametrize("where", ["2>/dev/full", "2>&-"])
@pytest.mark.parametrize(("words", "code"), [("claim --mem 1MiB --consumer x", 0), ("bogus", 2)])
def test_notices_that_nobody_takes_change_nothing(words: str, code: int, where: str, tmp_path: Path) -> None:
    """Where standard error takes nothing, a command does what it does, answers, and ends as ever."""
    shell = f"exec {sys.executable} -m earmark.cli.main {words} {where}"
    done = subprocess.run(["/bin/sh", "-c", shell], env=home_of(tmp_path), stdout=subprocess.PIPE, check=False)
    assert done.returncode == code
    assert (done.stdout != b"") == (code == 0)


def full_disk() -> int:
    """Return an open file on a disk that is full."""
    return os.open("/dev/full", os.O_WRONLY)


def unread_pipe() -> int:
    """Return a pipe whose reader is gone."""
    read, write = os.pipe()
    os.close(read)
    return write


def full_pipe() -> int:
    """Return a pipe that is full and that nobody waits for; its reader stays."""
    _, write = os.pipe()
    os.set_blocking(write, False)
    with suppress(BlockingIOError):
        while True:
            os.write(write, bytes(4096))
    return write


@pytest.mark.parametrize(("made", "number"), [(full_disk, errno.ENOSPC), (unread_pipe, errno.EPIPE), (full_pipe, errno.EAGAIN)])
def test_what_the_output_does_not_take_is_no_oserror(made: Callable[[], int], number: int) -> None:
    """Nobody who foresees an OSError of his own takes the output's for it; the reason is said."""
    with Output(made(), "w") as output, pytest.raises(OutputLost, match=os.strerror(number)) as told:
        output.write(b"x")
    assert not isinstance(told.value, OSError)
    assert told.value.unread == (number == errno.EPIPE)


def test_a_full_disk_elsewhere_is_not_told_of_the_output() -> None:
    """An OSError that nobody foresaw and that is not the output's stays a fault with its traceback."""
    said = ended_with(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "list")
    assert said.code == 70
    assert "Traceback" in said.err
    assert "standard output" not in said.err


@pytest.mark.long
def test_the_version_is_printed_without_a_ledger(tmp_path: Path) -> None:
    """`earmark --version` prints the version and makes nothing."""
    with earmark_process("--version", home=tmp_path / "none") as child:
        out, err = child.communicate()
    assert (child.returncode, out.decode().split()[0], err) == (0, "earmark", b"")
    assert not (tmp_path / "none").exists()


def test_colour_is_there_only_where_it_was_asked_for(earmark: Line) -> None:
    """No escape goes to a pipe; the setting `always` colours, NO_COLOR does not, and the text is the same."""
    earmark.good("claim --cpus 2:dedicated")
    plain = earmark("").out
    assert "\x1b" not in plain
    assert "\x1b" not in earmark("", env={"EARMARK_COLOR": "auto"}).out
    coloured = earmark("", env={"EARMARK_COLOR": "always", "NO_COLOR": ""}).out
    assert "\x1b[" in coloured
    assert "\x1b" not in earmark("", env={"NO_COLOR": "1"}).out


@pytest.mark.parametrize("columns", ["10", "40", "80", "1000"])
def test_any_width_of_a_terminal_will_do(earmark: Line, columns: str) -> None:
    """A very narrow or very wide terminal gets a picture, not an error."""
    earmark.good("claim --cpus 2:dedicated --mem 1GiB")
    assert " cell 0" in earmark("", env={"COLUMNS": columns}).out
