"""The steps of a claim after it was made: release, abort, confirm, renew, and return from quarantine."""

from __future__ import annotations

import click

from earmark.cli import phrases
from earmark.cli.session import Session
from earmark.cli.units import unit_named
from earmark.cli.verb import Verb
from earmark.cli.views import answer_out
from earmark.core.ledger.commands import Answer
from earmark.core.model.ids import CLAIM
from earmark.core.model.units import parse_duration_ms
from earmark.errors import InvalidRequest

generation_option = click.option("--generation", type=click.IntRange(1), metavar="N", help="Only if the claim is at this generation.")


@click.command(cls=Verb)
@click.argument("claims", nargs=-1, required=True, metavar="CLAIM...")
@click.option("--force", is_flag=True, help="Without the holder's word: drains, then quarantines; never frees what is in use.")
@generation_option
@click.pass_obj
def release(session: Session, *, claims: tuple[str, ...], force: bool, generation: int | None) -> int:
    """Give a claim back.

    CLAIM is its id, the beginning of one, or its consumer. While other processes are bound to it, it drains and keeps its units. Releasing
    twice is no error.
    """
    for claim in claims:
        tell(session, session.tracker.release(claim, force=force, generation=generation))
        if not session.json:
            _still_held(session, claim)
    return 0


def _still_held(session: Session, consumer: str) -> None:
    """Say which other claims a consumer holds still: its name stood for one of them."""
    if CLAIM.fullmatch(consumer):
        return
    rest = [each.id for each in session.tracker.claims_of(consumer) if each.draining_since_ms is None]
    if rest:
        session.note(f"{phrases.name(consumer)} still holds {', '.join(rest)}: earmark release {' '.join(rest)}")


@click.command(cls=Verb)
@click.argument("claims", nargs=-1, required=True, metavar="CLAIM...")
@generation_option
@click.pass_obj
def abort(session: Session, *, claims: tuple[str, ...], generation: int | None) -> int:
    """Give up a held claim."""
    for claim in claims:
        tell(session, session.tracker.abort(claim, generation=generation))
    return 0


@click.command(cls=Verb)
@click.argument("claim", metavar="CLAIM")
@click.option("--ttl", metavar="TIME", help="How long it is kept at most: 2h.")
@click.option("--pid", type=click.IntRange(1), metavar="PID", help="Bind the claim to a process: it ends with it.")
@generation_option
@click.pass_obj
def confirm(session: Session, *, claim: str, ttl: str | None, pid: int | None, generation: int | None) -> int:
    """Keep a held claim."""
    tracker = session.tracker
    holders = () if pid is None else (tracker.holder(pid),)
    tell(session, tracker.confirm(claim, ttl_ms=duration(ttl), holders=holders, generation=generation))
    return 0


@click.command(cls=Verb)
@click.argument("claim", metavar="CLAIM")
@click.option("--ttl", metavar="TIME", help="From now on: 2h.")
@click.option("--no-end", is_flag=True, help="Until it is released.")
@generation_option
@click.pass_obj
def renew(session: Session, *, claim: str, ttl: str | None, no_end: bool, generation: int | None) -> int:
    """Give a claim more time."""
    if (ttl is None) == (not no_end):
        raise InvalidRequest("renew needs one of --ttl TIME and --no-end", found=ttl)
    tell(session, session.tracker.renew(claim, duration(ttl), generation=generation))
    return 0


@click.command(cls=Verb, name="return")
@click.argument("what", metavar="UNIT|CLAIM")
@click.option("--reason", required=True, metavar="TEXT", help="Why it is known to be unused; kept in the ledger.")
@click.option("--node", metavar="NODE", help="The node, by name or uuid; else this machine.")
@click.pass_obj
def give_back(session: Session, *, what: str, reason: str, node: str | None) -> int:
    """Give quarantined units back, with a reason.

    UNIT is one unit (cpu:3, 3, 0000:41:00.0), CLAIM all that an ended claim left in quarantine.
    """
    tracker = session.tracker
    named = tracker.find(what).claim if what.startswith("c-") else unit_named(tracker.node(node), what)
    tell(session, tracker.give_back(named, reason, node=node))
    return 0


def duration(text: str | None) -> int | None:
    """Return a --ttl in milliseconds, None for None; raises InvalidRequest."""
    return None if text is None else parse_duration_ms(text, what="--ttl")


def tell(session: Session, answer: Answer, what: str = "") -> None:
    """Print what a step led to; `what` names its subject where that is no claim."""
    if session.json:
        session.emit(answer_out(answer, session.tracker.node(answer.node).name, []))
    elif not session.quiet:
        session.out(answer_line(answer, session.now_ms, what))


def answer_line(answer: Answer, now_ms: int, what: str = "") -> str:
    """Return a step's outcome in one line."""
    words = phrases.clean(answer.message)
    if answer.claim is not None and answer.outcome in ("held", "confirmed", "bound", "renewed"):
        line = f"{answer.claim.id} is {phrases.phase(answer.claim, now_ms)}"
        return f"{line} ({words})" if words else line
    subject = f"{answer.claim_id or phrases.clean(what)} ".lstrip()
    if answer.outcome == "draining":
        return f"{subject}is draining: {words}; it keeps its units until they are proven unused"
    if not answer.changed:
        return f"{subject}{words or 'nothing changed'}"
    return (
        f"{subject}{answer.outcome}"
        + (f" ({answer.cause})" if answer.cause and answer.cause != answer.outcome else "")
        + (f": {words}" if words else "")
    )
