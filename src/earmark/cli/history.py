"""Looking back: log, at, diff."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import click

from earmark.cli import phrases
from earmark.cli.output import ChangeOut, DiffOut, EventOut, Sign
from earmark.cli.session import Session
from earmark.cli.times import clock, parse_time
from earmark.cli.units import unit_named
from earmark.cli.verb import Verb
from earmark.cli.views import when
from earmark.core.ledger import events as e
from earmark.core.ledger.codec import Envelope, Stored, open_envelope
from earmark.core.ledger.differences import differences
from earmark.core.ledger.state import NodeState
from earmark.core.ledger.story import line as story
from earmark.core.model.ids import UnitId, node_stream
from earmark.errors import InvalidRequest

LOG_LINES = 40
LOG_LINES_MAX = 1_000_000
LOOKS = ("list", "show", "who")


class Entry(NamedTuple):
    """One event, opened."""

    stored: Stored
    envelope: Envelope
    event: e.Event


@click.command(cls=Verb, examples=("earmark log c-7f3a --all", "earmark log cpu:3 --since yesterday"))
@click.argument("what", required=False, metavar="[CLAIM|CONSUMER|UNIT]")
@click.option("--since", metavar="TIME", help="From this time on: -2h, 'yesterday 02:00', 2026-03-01.")
@click.option("--until", "before", metavar="TIME", help="Until this time.")
@click.option(
    "-n", "--lines", type=click.IntRange(1, LOG_LINES_MAX), metavar="N", help=f"The last N events (default {LOG_LINES}, with --since all)."
)
@click.option("--all", "everything", is_flag=True, help="All events.")
@click.option("--node", metavar="NODE", help="The node, by name or uuid; else this machine.")
@click.pass_obj
def log(
    session: Session, *, what: str | None, since: str | None, before: str | None, lines: int | None, everything: bool, node: str | None
) -> int:  # fmt: skip
    """Print what happened, oldest first.

    With --json one event a line.
    """
    now_ms = session.clock.now_ms()
    first_ms = 0 if since is None else parse_time(since, now_ms)
    last_ms = None if before is None else parse_time(before, now_ms)
    most = lines if lines is not None else None if everything or since is not None else LOG_LINES
    state = session.tracker.node(node)
    after = sequence_before(session, state, first_ms) if since is not None else 0
    if most is not None and what is None and before is None:
        after = max(after, state.sequence - most)
    found: Iterable[Entry] = entries(session, state, after)
    if last_ms is not None:
        found = (entry for entry in found if entry.envelope.at_ms <= last_ms)
    if what is not None:
        wanted = Wanted(session, state, what)
        found = (entry for entry in found if wanted.takes(entry.event))
    for entry in found if most is None else deque(found, maxlen=most):
        if session.json:
            session.emit(event_out(entry))
        else:
            session.out(event_line(entry, now_ms))
    return 0


def entries(session: Session, state: NodeState, after: int = 0) -> Iterator[Entry]:
    """Yield the events of a node after a sequence, oldest first."""
    return (Entry(*each) for each in session.tracker.events(state.node, after))


def sequence_before(session: Session, state: NodeState, time_ms: int) -> int:
    """Return the sequence of the last event before a time: a search by halves, since no event's time is below its predecessor's."""
    store, stream = session.tracker.store, node_stream(state.node)
    low, high = 0, state.sequence
    while low < high:
        middle = (low + high) // 2
        page = store.read(stream, middle, 1)
        if page and open_envelope(page[0].raw).at_ms < time_ms:
            low = page[0].sequence
        else:
            high = middle
    return low


class Wanted:
    """Which events concern a claim, a consumer, or a unit; it follows the claims that held the unit."""

    def __init__(self, session: Session, state: NodeState, text: str) -> None:
        self._unit: UnitId | None = None
        self._claims: set[str] = set()
        self._consumer = text
        if text.startswith("c-"):
            self._claims.add(session.tracker.find(text).claim)
        elif ":" in text or text.isdigit():
            self._unit = unit_named(state, text)

    def takes(self, event: e.Event) -> bool:
        """Say whether an event concerns what is asked about; events must be given in order."""
        if isinstance(event, e.ClaimHeld) and self._begins(event):
            self._claims.add(event.claim)
        if isinstance(event, e.UnitsPassed | e.UnitsNamed):
            if self._unit in event.units and isinstance(event, e.UnitsPassed):
                self._claims.add(event.target)
            return bool(self._claims & {event.source, event.target})
        if isinstance(event, e.Cordoned):
            return self._unit is not None and event.cordon.unit == self._unit
        if isinstance(event, e.Uncordoned):
            return self._unit is not None and event.unit == self._unit
        return getattr(event, "claim", None) in self._claims

    def _begins(self, event: e.ClaimHeld) -> bool:
        if self._unit is not None:
            return any(row.unit == self._unit for row in event.grant.units)
        return event.consumer == self._consumer


def event_line(entry: Entry, now_ms: int) -> str:
    """Return one event in one line: when, by whom, what."""
    at_ms = entry.envelope.at_ms
    return f"{clock(at_ms, now_ms):>16}  {phrases.clean(entry.envelope.actor, 16):<10}  {phrases.clean(story(entry.event))}"


def event_out(entry: Entry) -> EventOut:
    """Return one event for JSON."""
    stored, envelope, event = entry
    return EventOut(
        position=stored.position, stream=stored.stream, sequence=stored.sequence, at=when(envelope.at_ms), type=envelope.type,
        version=envelope.version, actor=envelope.actor, command=envelope.command, text=story(event), data=envelope.data, hash=stored.hash,
    )  # fmt: skip


# --- at -----------------------------------------------------------------------------------------------------------------------------


@click.command(
    cls=Verb,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    examples=(
        "earmark at 'yesterday 02:00' who cpu:3",
        "earmark at -2h list",
    ),
)
@click.argument("time", metavar="TIME")
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[list|show|who ...]")
@click.pass_context
def at(context: click.Context, *, time: str, words: tuple[str, ...]) -> int:
    """Look at an earlier time.

    TIME is -2h, 14:30, 'yesterday 02:00', 2026-03-01T02:00 or seconds since 1970. Without a command: the picture as it was.
    """
    session: Session = context.obj
    now_ms = session.clock.now_ms()
    moment = parse_time(time, now_ms)
    if moment > now_ms:
        raise InvalidRequest(f"time {time!r} lies in the future: the ledger knows what was, not what will be", found=time)
    session.at_ms = moment
    name, *rest = words or ("show",)
    if name not in LOOKS:
        raise InvalidRequest(f"at {time!r} can be asked {', '.join(LOOKS)}, not {name!r}", found=name)
    root = context.find_root().command
    if not isinstance(root, click.Group):
        raise InvalidRequest("at is a command of earmark", found=name)
    command = root.get_command(context, name)
    if command is None:
        raise InvalidRequest(f"there is no command {name!r}", found=name)
    with command.make_context(name, rest, parent=context) as inner:
        code = command.invoke(inner)
    return code if isinstance(code, int) else 0


# --- diff ---------------------------------------------------------------------------------------------------------------------------


@click.command(
    cls=Verb,
    context_settings={"ignore_unknown_options": True},
    examples=(
        "earmark diff -2h",
        "earmark diff 'yesterday 18:00' 'today 06:00'",
    ),
)
@click.argument("before", metavar="TIME")
@click.argument("after", required=False, metavar="[TIME]")
@click.option("--node", metavar="NODE", help="The node, by name or uuid; else this machine.")
@click.pass_obj
def diff(session: Session, *, before: str, after: str | None, node: str | None) -> int:
    """Print what changed between two times.

    Without the second TIME: until now.
    """
    now_ms = session.clock.now_ms()
    first_ms = parse_time(before, now_ms)
    last_ms = now_ms if after is None else parse_time(after, now_ms)
    if first_ms > last_ms:
        raise InvalidRequest(f"{before!r} is later than {after or 'now'!r}", found=before)
    known = session.tracker.node(node)
    old = session.tracker.at(first_ms, known.node)
    new = session.tracker.at(last_ms, known.node) if after is not None else known
    found = list(changes(old, new, last_ms))
    if session.json:
        session.emit(DiffOut(node=known.node, name=known.name, before=when(first_ms), after=when(last_ms), changes=found))
        return 0
    session.out([f"{change.sign} {phrases.clean(change.text)}" for change in found])
    if not found:
        session.note("nothing has changed")
    return 0


def changes(old: NodeState, new: NodeState, now_ms: int) -> Iterator[ChangeOut]:
    """Yield what is different between two states of one node: claims, quarantines, cordons, machine, settings."""
    every = {**dict(old.claims), **dict(new.claims)}
    for claim_id in sorted(every, key=lambda each: (every[each].held_at_ms, each)):
        was, now = old.claims.get(claim_id), new.claims.get(claim_id)
        one = now or was
        if one is None or was == now:
            continue
        whose = f"{phrases.whose(one.consumer, one.owner, claim_id)}: {phrases.what_is_held(one.grant)}"
        if was is None or now is None:
            yield ChangeOut(sign=sign_of(was is not None, now is not None), what="claim", text=whose)
        else:
            before, after = phrases.phase_and_leg(was, now_ms), phrases.phase_and_leg(now, now_ms)
            yield ChangeOut(
                sign="~", what="claim", text=f"{whose}: {before}, then {after}" if "→" in before + after else f"{whose}: {before} → {after}"
            )
    for claim_id in sorted({*old.quarantines, *new.quarantines}):
        if old.quarantines.get(claim_id) != new.quarantines.get(claim_id):
            kept = new.quarantines.get(claim_id) or old.quarantines[claim_id]
            sign = sign_of(claim_id in old.quarantines, claim_id in new.quarantines)
            yield ChangeOut(sign=sign, what="quarantine", text=f"quarantine of {claim_id}: {phrases.what_is_held(kept.grant)}")
    for key in sorted({*old.cordons, *new.cordons}):
        if old.cordons.get(key) != new.cordons.get(key):
            cordon = new.cordons.get(key) or old.cordons[key]
            sign = sign_of(key in old.cordons, key in new.cordons)
            yield ChangeOut(sign=sign, what="cordon", text=f"cordon of {cordon.unit or 'the node'}: {cordon.reason}")
    if new.machine is not None and new.machine != old.machine:
        yield from (ChangeOut(sign="~", what="machine", text=text) for text in differences(old.machine, new.machine))
    for field in old.settings.__struct_fields__:
        was_set, is_set = getattr(old.settings, field), getattr(new.settings, field)
        if was_set != is_set:
            yield ChangeOut(sign="~", what="settings", text=f"{field}: {was_set} → {is_set}")


def sign_of(was: bool, now: bool) -> Sign:
    """Return + for what is new, - for what is gone, ~ for what stayed and changed."""
    return "~" if was and now else "-" if was else "+"
