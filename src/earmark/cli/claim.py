"""`earmark claim`: take resources and keep them.

Rules of this file: it starts fast; nothing is imported here that claiming does not need (a test counts).
"""

from __future__ import annotations

from typing import cast

import click
import msgspec

from earmark.cli import phrases
from earmark.cli.request_options import Asked, read_limited, request_options, shown
from earmark.cli.session import Session
from earmark.cli.verb import Verb
from earmark.core.ledger.commands import Answer
from earmark.core.model.claim import Purpose
from earmark.core.model.grant import Grant
from earmark.core.model.refusal import Refusal
from earmark.errors import InvalidRecord, InvalidRequest

FORMAT_NAMES = ("env", "systemd", "docker", "podman", "qm", "json")
EXIT_REFUSED = 3
PRIVATE = "private ledger: other users of this machine do not see this claim ({place})"


@click.command(
    cls=Verb,
    examples=(
        "earmark claim --cpus 4:dedicated --mem 8GiB --ttl 2h",
        "C=$(earmark claim -q --gpus 1)",
        'eval "$(earmark claim --cpus 2:dedicated --format env)"',
    ),
)
@request_options("shared", required=False)
@click.option("--hold", is_flag=True, help="Only hold: it expires after --ttl (10 min) unless 'earmark confirm' follows.")
@click.option("--pid", type=click.IntRange(1), metavar="PID", help="Bind the claim to a process: it ends with it.")
@click.option("--key", metavar="TEXT", help="Idempotency key: the same claim under it is made once.")
@click.option("--purpose", type=click.Choice(["main", "attach", "leg"]), default="main", help="What a further claim of a consumer is for.")
@click.option("--grant", metavar="FILE", help="Exactly what is to be given, as JSON (judged, not chosen).")
@click.option("--format", "form", type=click.Choice(FORMAT_NAMES), help="Print the claim for another launcher.")
@click.option("--private", is_flag=True, help="Grant from a private ledger although the machine has another.")
@click.option("--observe", is_flag=True, help="Look at the machine again first.")
@click.pass_obj
def claim(
    session: Session, *, asked: Asked, hold: bool, pid: int | None, key: str | None, purpose: str, grant: str | None, form: str | None,
    private: bool, observe: bool,
) -> int:  # fmt: skip
    """Claim resources of this machine.

    The claim is kept until 'earmark release' or its --ttl. With -q only its id is printed. Exit code 3: refused, with every reason.
    """
    if form is not None and session.json:
        raise InvalidRequest(f"--format {form} and --json are two answers: choose one", found=form)
    prescribed = None if grant is None else read_grant(grant)
    if prescribed is None and asked.empty:
        raise InvalidRequest(
            "nothing is asked for: say --cpus, --mem, --disk, --gpus, --device, --resource, --request FILE, --flavor FILE or --grant FILE"
        )
    session.private, session.observe = private, observe
    tracker = session.tracker
    result = tracker.hold(
        asked.request, consumer=asked.consumer, owner=asked.owner, node=asked.node, ttl_ms=asked.ttl_ms, purpose=purpose_of(purpose),
        grant=prescribed, confirm=not hold, holders=() if pid is None else (tracker.holder(pid),), key=key,
    )  # fmt: skip
    if isinstance(result, Refusal):
        refused(session, result, asked)
        return EXIT_REFUSED
    granted(session, result, asked.node, form)
    return 0


def refused(session: Session, refusal: Refusal, asked: Asked) -> None:
    """Print a refused claim."""
    if session.json:
        from earmark.cli.views import fit_out  # noqa: PLC0415 - the shapes of JSON cost time that others need not wait for

        session.emit(fit_out(refusal, asked.request, refusal.node or ""))
    else:
        session.refused(refusal, phrases.request_words(asked.request), err=True, request=asked.request)


def granted(session: Session, answer: Answer, node: str | None, form: str | None) -> None:
    """Print a claim that was granted, in the form that was asked for."""
    notices = [PRIVATE.format(place=phrases.clean(session.place.place))] if session.place.private else []
    state = session.tracker.node(answer.claim.node if answer.claim is not None else node)
    if form is not None and answer.claim is not None:
        from earmark.launch.formats import render  # noqa: PLC0415 - only for those who ask for a format

        rendering = render(form, answer.claim, state)
        click.echo(rendering.text, nl=False)
        for line in (*rendering.notes, *notices):
            session.note(f"earmark: {phrases.clean(line)}")
    elif session.json:
        from earmark.cli.views import answer_out  # noqa: PLC0415 - as above

        session.emit(answer_out(answer, state.name, notices))
    elif session.quiet or answer.claim is None:
        session.out(str(answer.claim_id))
    else:
        session.out(phrases.claim_lines(answer.claim, session.now_ms))
        for line in notices:
            session.note(f"  {line}")


def purpose_of(text: str) -> Purpose:
    """Return a purpose that click has checked."""
    return cast("Purpose", text)


def read_grant(source: str) -> Grant:
    """Return the Grant in a JSON file (`-`: standard input); raises InvalidRecord."""
    try:
        return msgspec.json.decode(read_limited(source, "grant"), type=Grant)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRecord(f"grant {shown(source)} is not a Grant: {error}", source=source) from error
