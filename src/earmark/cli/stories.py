"""`earmark story`: a life in lines."""

from __future__ import annotations

from typing import NamedTuple

import click

from earmark.cli import phrases
from earmark.cli.output_lives import StoryLineOut, StoryOut
from earmark.cli.session import Session
from earmark.cli.times import clock, parse_time
from earmark.cli.verb import Verb
from earmark.cli.views import when
from earmark.core.ledger.telling import Subject, Told, of_consumer, tell
from earmark.core.model import ids
from earmark.core.model.ids import ConsumerId, node_stream
from earmark.errors import UnknownInstance, UnknownNode

NODE_PREFIX = "node:"
ACTOR_WIDTH = 10
ACTOR_SHOWN_MAX = 16
NODE_SHOWN_MAX = 24


class Named(NamedTuple):
    """Whose story it is: what it is, its name, and how its events are found."""

    what: str
    name: str
    subject: Subject


@click.command(cls=Verb, examples=("earmark story web", "earmark story c-7f3a --since -2h", "earmark story n1 --since yesterday"))
@click.argument("name", metavar="CLAIM|INSTANCE|NODE")
@click.option("--since", metavar="TIME", help="From this time on: -2h, 'yesterday 02:00', 2026-03-01.")
@click.pass_obj
def story(session: Session, *, name: str, since: str | None) -> int:
    """Tell the life of an instance, a claim, a move or a node.

    Of an instance: its states and moves, and what happened to its claims on every node. Of a claim: its steps, the moves it was a leg of, the units
    that passed. Of a node: all that happened there. A move is told by its id.
    """
    now_ms = session.clock.now_ms()
    first_ms = 0 if since is None else parse_time(since, now_ms)
    named = named_subject(session, name)
    found = within_move(named, list(tell(named.subject, session.tracker.store.all_events())))
    if not found:
        raise UnknownInstance(f"nothing in {session.tracker.store.name} is named {name!r}: no instance, claim, move or node", found=name)
    nodes = {state.node: state.name for state in session.tracker.nodes()}
    lines = [line_out(told, nodes) for told in found if told.envelope.at_ms >= first_ms]
    if session.json:
        session.emit(StoryOut(what=named.what, name=named.name, lines=lines))
        return 0
    width = max((len(place(line)) for line in lines), default=0)
    session.out(story_line(line, width, now_ms) for line in lines)
    if not lines:
        session.note("nothing has happened since")
    return 0


def named_subject(session: Session, text: str) -> Named:
    """Return whose story a text asks for: a claim, a move, an instance, a node, else a consumer that is known by its claims only."""
    tracker = session.tracker
    if text.startswith("c-"):
        row = tracker.find(text)
        return Named("claim", row.claim, Subject(claims=frozenset({row.claim})))
    if ids.MOVE.fullmatch(text):
        move = tracker.find_move(text)
        legs = frozenset(leg.claim for pair in move.legs for leg in (pair.source, pair.destination) if leg is not None)
        return Named("move", move.id, Subject(claims=legs, moves=frozenset({str(move.id)})))
    try:
        consumer = tracker.instance(text).consumer
    except UnknownInstance:
        try:
            state = tracker.node(text)
        except UnknownNode:
            consumer = ConsumerId(text)
        else:
            return Named("node", state.name, Subject(stream=node_stream(state.node)))
    return Named("instance", consumer, of_consumer(consumer, (claim.id for claim in tracker.claims_of(consumer))))


def within_move(named: Named, found: list[Told]) -> list[Told]:
    """Return what belongs to a move, where the story is one: its consumer is in no other one from its first event to its last."""
    if named.what != "move":
        return found
    own = [index for index, told in enumerate(found) if getattr(told.event, "move", None) == named.name]
    return found[own[0] : own[-1] + 1] if own else []


def line_out(told: Told, nodes: dict[ids.NodeId, str]) -> StoryLineOut:
    """Return one event of a story."""
    stored, envelope, event = told
    node = ids.NodeId(stored.stream.removeprefix(NODE_PREFIX)) if stored.stream.startswith(NODE_PREFIX) else None
    return StoryLineOut(
        at=when(envelope.at_ms), node=node, node_name=None if node is None else nodes.get(node, node), actor=envelope.actor,
        type=envelope.type, text=told.text, why=told.why, claim=getattr(event, "claim", None), stream=stored.stream,
        sequence=stored.sequence, position=stored.position,
    )  # fmt: skip


def place(line: StoryLineOut) -> str:
    """Return where something happened, as it is shown: a node, "-" for what is about the instance itself."""
    return "-" if line.node_name is None else phrases.clean(line.node_name, NODE_SHOWN_MAX)


def story_line(line: StoryLineOut, width: int, now_ms: int) -> str:
    """Return one event in one line: when, where, by whom, what and why."""
    who = phrases.clean(line.actor, ACTOR_SHOWN_MAX)
    return f"{clock(line.at.ms, now_ms):>16}  {place(line):<{width}}  {who:<{ACTOR_WIDTH}}  {phrases.clean(line.text)}"
