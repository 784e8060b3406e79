"""What one run of the command line shares: where the ledger is, how to answer, and the moment that is looked at.

Rules of this file: the tracker is opened once, when a command first needs it, and closed with the command; an answer goes to standard
output, everything beside it (notices, refusals, errors) to standard error.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, cast

import click
import msgspec

from earmark.cli import phrases
from earmark.clock import Clock, SystemClock
from earmark.errors import sayable

if TYPE_CHECKING:
    from earmark.cli.where import Where
    from earmark.core.ledger.state import NodeState
    from earmark.core.model.refusal import Refusal
    from earmark.core.model.request import Request
    from earmark.settings import Settings
    from earmark.tracker.tracker import Tracker

Opener = Callable[["Session"], AbstractContextManager[Any]]


class Session:
    """The options that all commands share, and what they open. `at_ms` is the moment looked at, None: now."""

    def __init__(self, opener: Opener | None = None, clock: Clock | None = None) -> None:
        self.ledger: str | None = None
        self.json = False
        self.quiet = False
        self.private = False
        self.observe = False
        self.at_ms: int | None = None
        self.clock: Clock = clock or SystemClock()
        self._opener = opener or open_ledger
        self._tracker: Tracker | None = None
        self._settings: Settings | None = None
        self._place: Where | None = None

    # --- what is looked at ---------------------------------------------------------------------------------------------------------

    @property
    def settings(self) -> Settings:
        """The settings in force for this command; raises InvalidSetting."""
        if self._settings is None:
            from earmark import settings  # noqa: PLC0415 - only commands that open a ledger or draw need them

            self._settings = settings.load({"ledger": self.ledger, "private": True if self.private else None})
        return self._settings

    def use(self, path: str, place: Where) -> None:
        """Use a ledger that was just made."""
        self.ledger, self._settings, self._place = path, None, place

    @property
    def tracker(self) -> Tracker:
        """The open tracker; raises what opening a ledger raises."""
        if self._tracker is None:
            opened = self._opener(self)
            self._tracker = cast("Tracker", click.get_current_context().find_root().with_resource(opened))
        return self._tracker

    @property
    def place(self) -> Where:
        """The ledger that answers, and who sees it."""
        if self._place is None:
            from earmark.cli.where import Where, where_is  # noqa: PLC0415 - with the stores, once they are needed

            prepared = self._opener is not open_ledger
            self._place = Where(self.tracker.store.name, "named", private=False, note="") if prepared else where_is(self.settings)
        return self._place

    @property
    def now_ms(self) -> int:
        """The moment that answers are about: the one asked for, else now."""
        return self.clock.now_ms() if self.at_ms is None else self.at_ms

    def state(self, node: str | None = None) -> NodeState:
        """Return one node (None: this machine) at the moment looked at; raises UnknownNode."""
        if self.at_ms is None:
            return self.tracker.up_to_date([self.tracker.node(node)])[0]
        return self.tracker.at(self.at_ms, node)

    def states(self, node: str | None = None) -> list[NodeState]:
        """Return the named node, or all of the ledger by name, at the moment looked at."""
        if node is not None:
            return [self.state(node)]
        known = sorted(self.tracker.nodes(), key=lambda each: (each.name, each.node))
        if self.at_ms is None:
            return list(self.tracker.up_to_date(known))
        from earmark.errors import UnknownNode  # noqa: PLC0415 - beside its only use

        found = []
        for each in known:
            try:
                found.append(self.tracker.at(self.at_ms, each.node))
            except UnknownNode:  # it was not yet in the ledger then
                continue
        return found

    # --- how to answer -------------------------------------------------------------------------------------------------------------

    def out(self, lines: Iterable[str] | str) -> None:
        """Print lines of an answer that are clean already."""
        for line in [lines] if isinstance(lines, str) else lines:
            click.echo(line)

    def emit(self, value: object) -> None:
        """Print an answer as JSON."""
        click.echo(encode(value))

    def note(self, text: str) -> None:
        """Print a clean notice beside the answer, unless quiet."""
        if not self.quiet:
            click.secho(text, err=True, dim=True, color=self.colour(sys.stderr))

    def refused(self, refusal: Refusal, asked: str, *, err: bool, request: Request | None = None) -> None:
        """Print a no with its reasons: what was asked, what is free, how much is short, who holds it."""
        from earmark.cli.refusals import refusal_lines  # noqa: PLC0415 - an answer that is no refusal does not wait for it

        where = f" on {phrases.name(refusal.node)}" if refusal.node else ""
        click.secho(f"earmark: refused: {asked}{where}", err=err, bold=True, color=self.colour(sys.stderr if err else sys.stdout))
        for line in refusal_lines(refusal, self.now_ms, request):
            click.echo(line, err=err)

    @property
    def draws_colour(self) -> bool:
        """Whether drawings on standard output are coloured."""
        return self.colour(sys.stdout)

    def colour(self, stream: Any) -> bool:
        """Say whether colours go to a stream: the setting `color`, and on a terminal only if that is "auto"."""
        chosen = self.settings.color
        return chosen == "always" or (chosen == "auto" and bool(stream.isatty()))


def open_ledger(session: Session) -> AbstractContextManager[Any]:
    """Return the tracker of the ledger that the settings name."""
    import earmark  # noqa: PLC0415 - what needs no ledger does not wait for it

    return earmark.open(session.ledger, private=session.private, observe=session.observe, settings=session.settings)


def encode(value: object) -> str:
    """Return a value as one line of JSON; what JSON does not know becomes its text."""
    try:
        return msgspec.json.encode(value, enc_hook=str).decode("utf-8")
    except UnicodeEncodeError:  # a path or argument that is no UTF-8
        return msgspec.json.encode(sayable(msgspec.to_builtins(value, enc_hook=str))).decode("utf-8")
