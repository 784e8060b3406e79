"""`earmark instance build`: a build that goes on elsewhere where it is refused or fails."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import click

from earmark.cli import phrases
from earmark.cli.claim import EXIT_REFUSED, granted
from earmark.cli.moves import consumer_named, refused
from earmark.cli.request_options import Asked, request_options
from earmark.cli.session import Session
from earmark.cli.verb import Verb
from earmark.core.ledger.commands import Answer
from earmark.core.model.refusal import Refusal
from earmark.errors import Refused
from earmark.launch.formats import environment
from earmark.launch.portion import portion_of

STARTS_NOTHING = 127
"""The exit status of a command that could not be started (POSIX shells, 2.8.2)."""


class BuildFailedError(Exception):
    """The command of a try ended with another status than 0."""

    def __init__(self, status: int) -> None:
        super().__init__(f"exit status {status}")
        self.status = status


@click.command(
    cls=Verb,
    examples=(
        "earmark instance build web --on n2 --on n3 --cpus 2 --mem 2GiB -- ssh-start.sh",
        "earmark instance build web --on n1 --on n2 --cpus 2 --mem 2GiB",
    ),
)
@click.argument("consumer", metavar="CONSUMER")
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[-- COMMAND [ARGUMENT]...]")
@click.option("--on", "nodes", multiple=True, required=True, metavar="NODE", help="A node to try; repeatable, in this order.")
@request_options("shared", address=("owner",))
@click.pass_obj
def build(session: Session, *, consumer: str, command: tuple[str, ...], nodes: tuple[str, ...], asked: Asked) -> int:
    """Build an instance on the first node that can: claim there, and start it with COMMAND.

    COMMAND is told EARMARK_CLAIM, EARMARK_NODE and what was given, as by 'earmark run'; it is not confined. If it ends with 0 the claim is
    confirmed; else the claim is aborted, the node counts a failed build, and the next node is tried. The last exit status is returned.
    Without COMMAND the first node that grants the claim has it.
    """
    tracker = session.tracker
    for node in nodes:
        tracker.node(node)
    who = consumer_named(session, consumer)
    try:
        for attempt in tracker.building(asked.request, consumer=who, nodes=nodes, owner=asked.owner):
            with attempt as held:
                state = tracker.node(held.taken.node)
                given = {**environment(portion_of(held.taken, state)), "EARMARK_NODE": state.name}
                start(session, command, given, f"{phrases.name(who)} was not built on {phrases.name(state.name)}")
    except BuildFailedError as error:
        return error.status
    except Refused as error:
        if not isinstance(error.refusal, Refusal):
            raise
        refused(session, error.refusal, f"build of {phrases.name(who)}", asked.request)
        return error.__cause__.status if isinstance(error.__cause__, BuildFailedError) else EXIT_REFUSED
    row = tracker.find(who)
    claim = next(claim for claim in tracker.claims_of(who) if claim.id == row.claim)
    granted(session, Answer(outcome="confirmed", node=claim.node, claim_id=claim.id, claim=claim), None, None)
    return 0


def start(session: Session, command: Sequence[str], given: Mapping[str, str], otherwise: str) -> None:
    """Start an instance by a command; raises BuildFailedError, and says `otherwise`, if it does not end with 0."""
    status = exit_status(command, given)
    if status:
        session.note(f"earmark: {otherwise}: exit status {status}")
        raise BuildFailedError(status)


def exit_status(command: Sequence[str], given: Mapping[str, str]) -> int:
    """Run a command with some variables more, its output beside ours, and return its exit status; none at all has ended well."""
    if not command:
        return 0
    import subprocess  # noqa: PLC0415 - only for builds that start something

    words = ["/usr/bin/env", *(f"{name}={value}" for name, value in given.items()), *command]
    try:
        status = subprocess.run(words, check=False).returncode  # noqa: S603 - the user's own command
    except OSError:
        return STARTS_NOTHING
    return status if status >= 0 else 128 - status
