"""`earmark instance`: who holds, in what state it is, and what that state frees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast, get_args

import click

from earmark.cli import life_lines, phrases
from earmark.cli.builds import build
from earmark.cli.claim import granted
from earmark.cli.life import answer_line, tell
from earmark.cli.moves import consumer_named, read_prescribed, refused
from earmark.cli.output_lives import InstanceOut, LifeOut
from earmark.cli.request_options import Asked, request_options
from earmark.cli.session import Session
from earmark.cli.units import unit_named
from earmark.cli.verb import VerbGroup
from earmark.cli.views import answer_out
from earmark.cli.views_lives import instance_out, life_out, names_of
from earmark.core.ledger.commands import Answer
from earmark.core.model import ids
from earmark.core.model.instance import LABELS_MAX, InstanceState, Labels
from earmark.core.model.refusal import Refusal
from earmark.core.model.request import Request
from earmark.errors import Conflict, InvalidRequest

if TYPE_CHECKING:
    from earmark.core.ledger.consumer import ConsumerState
    from earmark.core.ledger.life_commands import LifeAnswer
    from earmark.core.model.claim import Claim

STATES = get_args(InstanceState)


@click.group(cls=VerbGroup)
def instance() -> None:
    """Keep instances: who they are, in what state, what they hold.

    CONSUMER is what claims were made for; afterwards the instance's name and uuid name it too. An instance that was never created has a
    record from its first reported state or move on.
    """


# --- the record ---------------------------------------------------------------------------------------------------------------------


@instance.command(examples=("earmark instance create web --owner alice --label tier=front",))
@click.argument("consumer", metavar="CONSUMER")
@click.option("--uuid", metavar="UUID", help="Its uuid; else CONSUMER if that is one, else a new one.")
@click.option("--name", metavar="NAME", help="Its name; else CONSUMER.")
@click.option("--owner", metavar="NAME", help="Whose it is; else the user's name.")
@click.option("--kind", metavar="KIND", default="instance", show_default=True, help="What it is: instance, container, process, …")
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="Something to know it by.")
@click.pass_obj
def create(
    session: Session, *, consumer: str, uuid: str | None, name: str | None, owner: str | None, kind: str, labels: tuple[str, ...]
) -> int:  # fmt: skip
    """Make an instance known; it holds nothing yet.

    'earmark claim --consumer CONSUMER' claims for it.
    """
    called = None if name is None else ids.name(name, "instance")
    answer = session.tracker.create(consumer, uuid=uuid, name=called, owner=owner, kind=kind, labels=parse_labels(labels))
    return reported(session, answer, ())


def parse_labels(texts: Sequence[str]) -> Labels:
    """Return labels in KEY=VALUE, by key; raises InvalidRequest."""
    if len(texts) > LABELS_MAX:
        raise InvalidRequest(f"{len(texts)} labels are more than {LABELS_MAX}", found=len(texts))
    found: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key or not equals or not text.isprintable() or key in found:
            raise InvalidRequest(f"--label {text!r} is not a key and a value of its own: tier=front is", found=text)
        found[key] = value
    return tuple(sorted(found.items()))


@instance.command(
    examples=(
        "earmark instance state web active",
        "earmark instance state web shelved_offloaded",
        "earmark instance state web error --reason 'spawn failed'",
    )
)
@click.argument("consumer", metavar="CONSUMER")
@click.argument("state", metavar="STATE")
@click.option("--task", metavar="TEXT", help="What is being done to it, in the words of whoever runs it: spawning.")
@click.option("--reason", metavar="TEXT", default="", help="Why; kept in the ledger.")
@click.pass_obj
def state(session: Session, *, consumer: str, state: str, task: str | None, reason: str) -> int:
    """Report the state of an instance.

    STATE is building, active, paused, suspended, stopped, rescued, resized, error, shelved, shelved_offloaded, soft_deleted or deleted. Only
    shelved_offloaded and deleted free what it holds, on every node, both legs of a move included; all others keep it.
    """
    wanted = state.lower().replace("-", "_")
    if wanted not in STATES:
        raise InvalidRequest(f"{state!r} is no state of an instance: {', '.join(STATES)} are", found=state)
    before = session.tracker.claims_of(consumer_named(session, consumer))
    answer = session.tracker.report(consumer, cast("InstanceState", wanted), task=task, reason=reason)
    return reported(session, answer, before)


@instance.command()
@click.argument("consumers", nargs=-1, required=True, metavar="CONSUMER...")
@click.option("--reason", metavar="TEXT", default="", help="Why; kept in the ledger.")
@click.pass_obj
def delete(session: Session, *, consumers: tuple[str, ...], reason: str) -> int:
    """Say that an instance is gone: all that it holds is freed, both legs of a move included."""
    for consumer in consumers:
        before = session.tracker.claims_of(consumer_named(session, consumer))
        reported(session, session.tracker.delete(consumer, reason=reason), before)
    return 0


@instance.command()
@click.argument("consumer", metavar="CONSUMER")
@click.pass_obj
def rebuild(session: Session, *, consumer: str) -> int:
    """Say that an instance is rebuilt in place: nothing is claimed, nothing it holds changes."""
    return reported(session, session.tracker.rebuild(consumer_named(session, consumer)), ())


def reported(session: Session, answer: LifeAnswer, before: Sequence[Claim]) -> int:
    """Print what a report led to, and what it freed."""
    found = life_out(session, answer, before)
    if session.json:
        session.emit(found)
    elif not session.quiet:
        session.out(report_lines(found))
    return 0


def report_lines(found: LifeOut) -> list[str]:
    """Return what a report led to: the instance as it is now, then what was freed."""
    subject = phrases.name(found.consumer)
    if not found.changed:
        return [f"{subject} {phrases.clean(found.message) or 'was so already'}"]
    if found.outcome == "created" and found.instance is not None:
        return [
            f"{subject} created: {life_lines.kind(found.instance.kind)} {phrases.name(found.instance.name)}, uuid {found.instance.uuid}"
        ]
    words = life_lines.state_words(found.instance) if found.instance is not None else found.outcome
    return [
        f"{subject} is {words}" + ("" if found.freed else "; what it holds is kept" if held(found) else ""),
        *life_lines.freed_lines(found.freed),
    ]


def held(found: LifeOut) -> bool:
    """Say whether the instance of an answer still holds something."""
    return found.instance is not None and bool(found.instance.claims)


# --- looking ------------------------------------------------------------------------------------------------------------------------


@instance.command(name="list")
@click.option("--owner", metavar="NAME", help="Only those of this owner.")
@click.option("--kind", metavar="KIND", help="Only those of this kind.")
@click.option("--state", "wanted", metavar="STATE", help="Only those in this state.")
@click.option("--node", metavar="NODE", help="Only those that hold something on this node.")
@click.option("--all", "everything", is_flag=True, help="Deleted ones, too.")
@click.pass_obj
def list_instances(
    session: Session, *, owner: str | None, kind: str | None, wanted: str | None, node: str | None, everything: bool
) -> int:  # fmt: skip
    """List instances: whose they are, what state they are in, where they are."""
    on = None if node is None else session.tracker.node(node).node
    chosen = None if wanted is None else wanted.lower().replace("-", "_")
    if chosen is not None and chosen not in STATES:
        raise InvalidRequest(f"{wanted!r} is no state of an instance: {', '.join(STATES)} are", found=wanted)
    found = []
    for each in session.tracker.instances():
        one = each.instance
        gone = one.state == "deleted" and not everything and chosen != "deleted"
        if gone or (owner, kind, chosen) != (owner and one.owner, kind and one.kind, chosen and one.state):
            continue
        if on is not None and all(claim.node != on for claim in session.tracker.claims_of(each.consumer)):
            continue
        found.append(each)
    if session.json:
        session.emit([instance_out(session, each) for each in found])
        return 0
    if not found:
        session.note("no such instance is known")
        return 0
    from earmark.cli import drawing  # noqa: PLC0415 - only where something is drawn

    sheet = drawing.sheet(colour=session.draws_colour, wide=True)
    heads = ["instance", "name", "owner", "kind", "state", "node", "move"]
    sheet.draw(drawing.table(heads, [_row(session, each) for each in found], sheet.width))
    return 0


def _row(session: Session, known: ConsumerState) -> list[str]:
    one, move = known.instance, known.move
    claims = session.tracker.claims_of(known.consumer)
    words = life_lines.kind(one.state) + (f" ({phrases.name(one.task)})" if one.task else "")
    places = ", ".join(phrases.name(name) for name in names_of(session, claims)) or "-"
    moving = f"{move.id} {life_lines.kind(move.kind)}, {session.tracker.move_status(move)}" if move is not None else ""
    return [phrases.name(known.consumer), phrases.name(one.name), phrases.name(one.owner), phrases.name(one.kind), words, places, moving]


@instance.command(name="show")
@click.argument("consumer", metavar="CONSUMER")
@click.pass_obj
def show_instance(session: Session, *, consumer: str) -> int:
    """Show an instance: its record and state, what it holds and where, its open move and those that are over."""
    show_found(session, instance_out(session, session.tracker.instance(consumer)))
    return 0


def show_found(session: Session, found: InstanceOut) -> None:
    """Print everything about an instance."""
    if session.json:
        session.emit(found)
    else:
        session.out(life_lines.instance_page(found, session.now_ms))


# --- what it holds beside its main claim --------------------------------------------------------------------------------------------


@instance.command(examples=("earmark instance attach web --device vf=1", "earmark instance detach web 0000:81:02.3"))
@click.argument("consumer", metavar="CONSUMER")
@request_options("shared", required=False, address=())
@click.option("--grant", metavar="FILE", help="Exactly what is to be given, as JSON (judged, not chosen).")
@click.pass_obj
def attach(session: Session, *, consumer: str, asked: Asked, grant: str | None) -> int:
    """Claim something more for a running instance, on the node of its main claim.

    It is a claim of its own, with purpose attach; it moves along to another node, and ends with the instance or with detach.
    """
    if grant is None and asked.empty:
        raise InvalidRequest(f"nothing is asked for that could be attached to {consumer!r}: say --device, --gpus, --resource, …")
    who = consumer_named(session, consumer)
    known = session.tracker.instance_or_none(session.tracker.find(who).consumer)
    if known is not None and known.move is not None:
        raise Conflict(f"{consumer!r} is in move {known.move.id}: nothing is attached until that is over", consumer=who, move=known.move.id)
    result = session.tracker.attach(who, asked.request, grant=read_prescribed(grant))
    if isinstance(result, Refusal):
        return refused(session, result, f"attach to {phrases.name(consumer)}", asked.request)
    granted(session, result, None, None)
    return 0


@instance.command()
@click.argument("consumer", metavar="CONSUMER")
@click.argument("what", metavar="UNIT|CLAIM")
@click.pass_obj
def detach(session: Session, *, consumer: str, what: str) -> int:
    """Give back what was attached: a claim, or the claim that holds just this unit."""
    tracker = session.tracker
    who = consumer_named(session, consumer)
    if what.startswith("c-"):
        row = tracker.find(what)
        tell(session, tracker.detach(who, row.claim))
        return 0
    attached = [claim for claim in tracker.claims_of(who) if claim.purpose == "attach"]
    nodes = [*dict.fromkeys(claim.node for claim in attached)] or [
        tracker.node(row.stream.removeprefix("node:")).node for row in [tracker.find(who)]
    ]
    unit = unit_named(tracker.node(nodes[0]), what)
    holding = [claim for claim in attached if any(row.unit == unit for row in claim.grant.units)]
    if holding and len(holding[0].grant.units) + len(holding[0].grant.amounts) > 1:
        held_too = f"{holding[0].id} holds {phrases.what_is_held(holding[0].grant)}"
        raise InvalidRequest(f"{held_too}: name the claim to give all of it back", claim=holding[0].id)
    if holding:
        tell(session, tracker.detach(who, unit))
        return 0
    late = Answer(outcome="released", node=nodes[0], changed=False, message=f"is not attached to {who}")
    if session.json:
        session.emit(answer_out(late, tracker.node(nodes[0]).name, []))
    elif not session.quiet:
        session.out(answer_line(late, session.now_ms, what=unit))
    return 0


@instance.command(examples=("earmark instance unshelve web --to n2", "earmark instance state web active"))
@click.argument("consumer", metavar="CONSUMER")
@click.option("--to", metavar="NODE", help="The node, by name or uuid; else this machine.")
@request_options("shared", required=False, address=("ttl",))
@click.option("--grant", metavar="FILE", help="Exactly what is to be given, as JSON (judged, not chosen).")
@click.option("--hold", is_flag=True, help="Only hold: it expires after --ttl (10 min) unless 'earmark confirm' follows.")
@click.pass_obj
def unshelve(session: Session, *, consumer: str, to: str | None, asked: Asked, grant: str | None, hold: bool) -> int:
    """Claim for an instance that is shelved and offloaded, before it runs again.

    Without request options: what it held before. It stays shelved offloaded, with task spawning, until another state is reported. If it does
    not start, 'earmark release CONSUMER' gives the claim back.
    """
    tracker = session.tracker
    known = tracker.instance(consumer)
    main = next((claim for claim in tracker.claims_of(known.consumer) if claim.purpose == "main" and claim.phase != "draining"), None)
    if main is None and known.instance.state != "shelved_offloaded":
        raise Conflict(f"{consumer!r} is {life_lines.kind(known.instance.state)}, not shelved offloaded", consumer=known.consumer)
    if main is not None:
        node = tracker.node(main.node)
        answer = Answer(
            outcome="confirmed", node=main.node, changed=False, claim_id=main.id, claim=main, message=f"holds already, on {node.name}"
        )
        tell(session, answer)
        return 0
    prescribed = read_prescribed(grant)
    request = last_request(session, known.consumer) if asked.empty and prescribed is None else asked.request
    result = tracker.hold(
        request, consumer=known.consumer, owner=known.instance.owner, node=to, ttl_ms=asked.ttl_ms, grant=prescribed, confirm=not hold
    )
    if isinstance(result, Refusal):
        return refused(session, result, f"unshelve of {phrases.name(consumer)}", request)
    tracker.report(known.consumer, "shelved_offloaded", task="spawning")
    granted(session, result, None, None)
    return 0


def last_request(session: Session, consumer: str) -> Request:
    """Return what the last main claim of a consumer asked for, from the ledger; raises InvalidRequest if none is there."""
    from earmark.core.ledger import events as e  # noqa: PLC0415 - few commands look back
    from earmark.core.ledger.telling import of_consumer, tell  # noqa: PLC0415 - as above
    from earmark.core.model.ids import ConsumerId  # noqa: PLC0415 - as above

    asked: dict[str, Request] = {}
    last = None
    for told in tell(of_consumer(ConsumerId(consumer)), session.tracker.store.all_events()):
        if isinstance(told.event, e.ClaimHeld):
            asked[told.event.claim] = told.event.request
        elif isinstance(told.event, e.ClaimEnded | e.ClaimDraining) and told.event.purpose == "main" and told.event.claim in asked:
            last = asked[told.event.claim]
    if last is None:
        raise InvalidRequest(f"the ledger does not say what {consumer!r} held: say --cpus, --mem, …, --request FILE or --grant FILE")
    return last


instance.add_command(build)
