"""The click class of every command: it takes --json, --ledger and -q wherever they stand."""

from __future__ import annotations

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
    """A command of Earmark; its function returns the exit code (None: 0)."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.params.extend(common_options())


class VerbGroup(click.Group):
    """A group of commands that takes the common options too."""

    command_class = Verb

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.params.extend(common_options())
