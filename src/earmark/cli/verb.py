"""The click class of every command: it takes --json, --ledger and -q wherever they stand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click


def _keep(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    if value and parameter.name is not None:
        setattr(context.obj, parameter.name, value)


def common_options() -> list[click.Option]:
    """Return the options that every command and the group take; they are kept in the session."""
    shared: dict[str, Any] = {"callback": _keep, "expose_value": False}
    return [
        click.Option(["--ledger"], metavar="PATH", help="Use this ledger.", **shared),
        click.Option(["--json"], is_flag=True, help="Answer in JSON.", **shared),
        click.Option(["-q", "--quiet", "quiet"], is_flag=True, help="Say only what was asked for.", **shared),
    ]


class Verb(click.Command):
    """A command of Earmark; its function returns the exit code (None: 0). `examples` are lines at the end of its help."""

    def __init__(self, *args: Any, examples: Sequence[str] = (), **options: Any) -> None:
        super().__init__(*args, **options)
        self.examples = tuple(examples)
        self.help = self.help.replace("\\b\n", "\b\n") if self.help else None
        self.params.extend(common_options())

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - as click calls it
        """Write the examples as they would be typed."""
        if self.examples:
            with formatter.section("Examples"):
                for line in self.examples:
                    formatter.write(" " * formatter.current_indent + line + "\n")


class VerbGroup(click.Group):
    """A group of commands that takes the common options too."""

    command_class = Verb

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.params.extend(common_options())
