"""What-if: fit says where a request would go, why-not says what is in its way. Neither can write."""

from __future__ import annotations

import click

from earmark.cli import phrases
from earmark.cli.claim import EXIT_REFUSED, read_grant
from earmark.cli.refusals import refusal_lines
from earmark.cli.request_options import Asked, request_options
from earmark.cli.session import Session
from earmark.cli.verb import Verb
from earmark.cli.views import fit_out
from earmark.core.fit.proof.question import confirmed
from earmark.core.ledger.endings import with_endings
from earmark.core.model.grant import Grant
from earmark.core.model.refusal import Refusal
from earmark.errors import InvalidRequest

JOBS_MAX = 256


@click.command(cls=Verb)
@request_options("shared", required=False)
@click.option("--grant", metavar="FILE", help="Judge exactly this grant, as JSON.")
@click.option("--cases", metavar="FILE", help="Answer a file of hosts and requests, one a line (- is standard input).")
@click.option("--jobs", type=click.IntRange(1, JOBS_MAX), metavar="N", help="With --cases: so many processes (1).")
@click.pass_obj
def fit(session: Session, *, asked: Asked, grant: str | None, cases: str | None, jobs: int | None) -> int:
    """Say where a request would go.

    Nothing is taken. Exit code 0: it fits, 3: it does not, with every reason. With --cases: 0: every line is answered, 1: some answer
    is not known, 2: some line is no case.
    """
    if cases is not None:
        if not asked.empty or grant is not None or asked.node is not None:
            raise InvalidRequest("--cases FILE says both what is wanted and where: no other wish, --grant or --node stands beside it")
        from earmark.cli.fit_cases import fit_cases  # noqa: PLC0415 - what a single question does not need

        return fit_cases(session, cases, jobs or 1)
    if jobs is not None:
        raise InvalidRequest("--jobs N is for --cases FILE")
    found = try_it(session, asked, grant)
    return EXIT_REFUSED if isinstance(found, Refusal) else 0


@click.command(cls=Verb, name="why-not")
@request_options("shared", required=False)
@click.option("--grant", metavar="FILE", help="Judge exactly this grant, as JSON.")
@click.pass_obj
def why_not(session: Session, *, asked: Asked, grant: str | None) -> int:
    """Say why a request does not fit.

    What is short, where, who holds it, until when. Exit code 0 whenever the question was answered, also where it fits.
    """
    try_it(session, asked, grant)
    return 0


def try_it(session: Session, asked: Asked, grant: str | None) -> Grant | Refusal:
    """Ask for a fit, print the answer, and return it."""
    prescribed = None if grant is None else read_grant(grant)
    if prescribed is None and asked.empty:
        raise InvalidRequest(
            "nothing is asked for: say --cpus, --mem, --disk, --gpus, --device, --resource, --request FILE, --flavor FILE or --grant FILE"
        )
    state = session.tracker.node(asked.node)
    found = session.tracker.fit(asked.request, node=state.node, grant=prescribed)
    verified = None
    if isinstance(found, Refusal) and prescribed is None:
        found = with_endings(found, asked.request, state, session.now_ms)
        supply = state.supply
        if found.certificate is not None and supply is not None:
            verified = confirmed(found.certificate, asked.request, supply)
    words = phrases.request_words(asked.request) if prescribed is None else "the prescribed grant"
    if session.json:
        session.emit(fit_out(found, asked.request, state.name, verified=verified))
    elif isinstance(found, Grant):
        session.out(f"fits on {phrases.name(state.name)}: {words}")
        session.out(f"  would be {phrases.placed(found)}")
    else:
        session.out(f"does not fit on {phrases.name(state.name)}: {words}")
        session.out(refusal_lines(found, session.now_ms, asked.request))
    return found
