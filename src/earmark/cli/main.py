"""The entry of the command line: finds the command, and turns every way to end into one line and an exit code.

Rules of this file: nothing heavy is imported here; a command's module is imported when it is called; an EarmarkError never shows a
traceback; a fault of ours does, and ends with 70. What goes wrong with standard output is told apart from every other OSError where the bytes leave.
"""

from __future__ import annotations

import errno
import gc
import importlib
import io
import os
import sys
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

import click

from earmark import __version__
from earmark.cli.phrases import clean
from earmark.cli.session import Session, encode
from earmark.cli.verb import VerbGroup
from earmark.errors import EarmarkError, type_prefix

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

PROGRAM = "earmark"
GC_THRESHOLDS = (100_000, 50, 100)
EXIT_INVALID = 2
EXIT_INTERNAL = 70
EXIT_OUTPUT_LOST = 74
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141

SECTIONS: tuple[tuple[str, tuple[tuple[str, str, str], ...]], ...] = (
    ("Take and give back", (
        ("claim", "claim:claim", "Claim resources of this machine."),
        ("run", "run:run", "Run a command confined to what it claims; its exit status is returned."),
        ("release", "life:release", "Give a claim back."),
        ("confirm", "life:confirm", "Keep a held claim."),
        ("abort", "life:abort", "Give up a held claim."),
        ("renew", "life:renew", "Give a claim more time."),
        ("return", "life:give_back", "Give quarantined units back, with a reason."),
    )),
    ("Lives and moves", (
        ("instance", "instances:instance", "Keep instances: who they are, in what state, what they hold."),
        ("move", "moves:move", "Begin, end and look at moves: resize, migrate, evacuate."),
        ("receive", "records:receive", "Compare what a compute service says with the ledger."),
        ("story", "stories:story", "Tell the life of an instance, a claim, a move or a node."),
    )),
    ("Look", (
        ("list", "looks:list_claims", "List what is claimed, by whom, until when."),
        ("show", "looks:show", "Show the machine, a claim, a unit or a node."),
        ("who", "looks:who", "Say who holds a unit."),
        ("fit", "what_if:fit", "Say where a request would go."),
        ("why-not", "what_if:why_not", "Say why a request does not fit."),
        ("stats", "stats:stats", "Say what is used of each node, what runs there and what is in progress."),
    )),
    ("Look back", (
        ("log", "history:log", "Print what happened, oldest first."),
        ("at", "history:at", "Look at an earlier time."),
        ("diff", "history:diff", "Print what changed between two times."),
    )),
    ("The node", (
        ("node", "nodes:node", "List, show, set, cordon nodes."),
        ("discover", "discovery:discover", "Read the machine and print what is there."),
        ("monitor", "monitoring:monitor", "Take samples of this machine: CPUs, load, memory, pressure."),
    )),
    ("The ledger", (
        ("init", "ledgers:init", "Make a ledger for the machine or a group."),
        ("audit", "ledgers:audit", "Hold the ledger against itself; exit 1 on findings."),
        ("verify", "ledgers:verify", "Check the hash chain and replay every event."),
        ("backup", "ledgers:backup", "Write a complete copy to a new file."),
        ("export", "ledgers:export", "Write all events as JSON lines."),
        ("import", "ledgers:import_events", "Make a ledger from exported events."),
        ("archive", "ledgers:archive", "Move old events to an archive file."),
        ("scenario", "scenario:scenario", "Carry out scenarios in ledgers of their own; exit 1 if a figure is wrong."),
        ("selftest", "proof:selftest", "Kill writers on this disk and check what is left."),
        ("completion", "completion:completion", "Print the completion script of a shell."),
    )),
)  # fmt: skip
"""Each command: its name, `module:attribute` under earmark.cli, and its help in one line."""

PLACES = {name: place for _, commands in SECTIONS for name, place, _ in commands}


class OutputLost(Exception):
    """Standard output does not take what is written to it, for the reason of this OSError. No OSError, so that nobody takes it for his own."""

    def __init__(self, reason: OSError) -> None:
        super().__init__(f"the answer cannot be written to standard output: {reason.strerror}")
        self.unread = isinstance(reason, BrokenPipeError)


class Output(io.FileIO):
    """Where the bytes of standard output leave."""

    def write(self, some: ReadableBuffer, /) -> int:
        """Write some bytes; raises OutputLost."""
        try:
            count = super().write(some)
        except OSError as error:
            raise OutputLost(error) from error
        if count is None:  # another program has made it non-blocking, and it is full
            raise OutputLost(BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN)))
        return count


class Notices(io.FileIO):
    """Where the bytes of standard error leave. What it does not take is dropped: an answer counts more than what is said beside it."""

    def write(self, some: ReadableBuffer, /) -> int:
        """Write some bytes, or drop them."""
        try:
            count = super().write(some)
        except OSError:
            count = None
        return memoryview(some).nbytes if count is None else count


class Earmark(VerbGroup):
    """The command `earmark`; its commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - as click calls it
        """Return the names of all commands, in the order of the help."""
        return list(PLACES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - as click calls it
        """Return a command, importing its module."""
        place = PLACES.get(cmd_name)
        if place is None:
            return None
        module, _, attribute = place.partition(":")
        found = getattr(importlib.import_module("earmark.cli." + module), attribute)
        assert isinstance(found, click.Command)  # noqa: S101 - a slip in the table above, found by its test
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - as click calls it
        """Write the commands by section, without importing them."""
        for title, commands in SECTIONS:
            with formatter.section(title):
                formatter.write_dl([(name, text) for name, _, text in commands])

    def main(self, args: Sequence[str] | None = None, *_: Any, **extra: Any) -> NoReturn:
        """Run the command line and exit; `obj` may carry a prepared Session."""
        arguments = list(sys.argv[1:] if args is None else args)
        session = extra.pop("obj", None) or Session()
        self._main_shell_completion({}, PROGRAM, "_EARMARK_COMPLETE")

        def run() -> int | None:
            with self.make_context(PROGRAM, list(arguments), obj=session) as context:
                result = self.invoke(context)
                sys.stdout.flush()
                return result if isinstance(result, int) else 0

        sys.exit(guarded(run, as_json=lambda: session.json or "--json" in own_words(arguments)))


def own_words(arguments: Sequence[str]) -> Sequence[str]:
    """Return the arguments before `--`: those behind it are another program's."""
    return arguments[: arguments.index("--")] if "--" in arguments else arguments


def guarded(run: Callable[[], int | None], as_json: Callable[[], bool]) -> int:
    """Run a command and return its exit code, with every foreseen end told on standard error."""
    try:
        with OurFault():
            return run() or 0
    except click.exceptions.Exit as end:
        return end.exit_code
    except EarmarkError as error:
        tell(error.message, error.problem(), as_json=as_json())
        return error.exit_code
    except click.ClickException as error:
        text = error.format_message()
        if isinstance(error, click.UsageError) and error.ctx is not None:
            text = f"{text} (see '{error.ctx.command_path} --help')"
        problem: dict[str, object] = {"type": type_prefix + "invalid-usage", "title": "invalid usage", "detail": text, "facts": {}}
        tell(text, problem, as_json=as_json())
        return EXIT_INVALID
    except (click.Abort, KeyboardInterrupt):
        click.echo("earmark: interrupted", err=True)
        return EXIT_INTERRUPTED
    except OutputLost as lost:
        if lost.unread:
            return EXIT_BROKEN_PIPE
        problem = {"type": type_prefix + "output-lost", "title": "output lost", "detail": str(lost), "facts": {}}
        tell(str(lost), problem, as_json=as_json())
        return EXIT_OUTPUT_LOST
    except BrokenPipeError:  # whoever read our notices has seen enough
        return EXIT_BROKEN_PIPE


def tell(text: str, problem: dict[str, object], *, as_json: bool) -> None:
    """Print an error on standard error: one line, or a problem+json object (RFC 9457)."""
    click.echo(encode(problem) if as_json else "earmark: " + clean(text), err=True)


class OurFault:
    """A block whose unforeseen exceptions are a fault of Earmark: the traceback is printed, and the program ends with 70."""

    def __enter__(self) -> None:
        """Enter the block."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None:
        """Let foreseen exceptions pass; print any other and raise SystemExit(70)."""
        foreseen = (EarmarkError, click.ClickException, click.Abort, click.exceptions.Exit, OutputLost, BrokenPipeError)
        if error is None or not isinstance(error, Exception) or isinstance(error, foreseen):
            return
        import traceback  # noqa: PLC0415 - only where something is wrong with us

        traceback.print_exception(kind, error, where)
        click.echo("earmark: this is a fault of Earmark, not of yours; nothing more was written", err=True)
        raise SystemExit(EXIT_INTERNAL) from error


@click.command(cls=Earmark, invoke_without_command=True, context_settings={"help_option_names": ["--help"], "max_content_width": 100})
@click.option("--version", is_flag=True, help="Print the version.")
@click.pass_context
def cli(context: click.Context, version: bool) -> int:
    """Earmark: who holds what on this machine. Without a command: the picture of it."""
    if version:
        click.echo(f"earmark {__version__}")
        return 0
    if context.invoked_subcommand is None:
        from earmark.cli.looks import picture  # noqa: PLC0415 - drawing is not needed by commands

        return picture(context.obj, None)
    return 0


def main() -> NoReturn:
    """Run `earmark` with the arguments of the process.

    A command lives for a moment: collecting garbage while modules load, and once more at the end, would be a tenth of its time.
    """
    gc.set_threshold(*GC_THRESHOLDS)
    if sys.stdout is sys.__stdout__:
        sys.stdout = standard(sys.stdout, Output, 1)
        sys.stderr = standard(sys.stderr, Notices, 2)
    try:
        cli.main()
    finally:
        settle(sys.stdout)
        gc.freeze()


def standard(given: TextIO | None, leaves: type[io.FileIO], number: int) -> TextIO:
    """Return standard output or error with another way out. One that is closed takes nothing, and no file that is opened gets its number."""
    if given is None:
        os.dup2(os.open(os.devnull, os.O_RDONLY), number)
    out = io.BufferedWriter(leaves(number, "w", closefd=False))
    if given is None:
        return io.TextIOWrapper(out, encoding="utf-8", errors="backslashreplace", line_buffering=True)
    return io.TextIOWrapper(out, encoding=given.encoding, errors=given.errors, line_buffering=bool(given.line_buffering))


def settle(stream: TextIO) -> None:
    """Write out what a stream still holds; what it does not take is dropped, so that the interpreter does not try once more and complain."""
    try:
        stream.flush()
    except (OutputLost, OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


if __name__ == "__main__":
    main()
