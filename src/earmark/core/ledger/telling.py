"""Which events tell the life of a consumer, a claim, a move or a node, over all streams that know of it.

Rules of this file: pure; events come in the order of the ledger and leave in it; an event is opened only if its bytes can concern the subject. What
each event says is in `story`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import msgspec

from earmark.core.ledger import events as e
from earmark.core.ledger import story
from earmark.core.ledger.codec import Envelope, Stored, open_envelope, open_event
from earmark.core.model.ids import ClaimId, ConsumerId, StreamId, consumer_stream


class Subject(NamedTuple):
    """Whose life is told: a stream, and what else is known of it beforehand.

    A consumer brings all claims that it ever held along; `claims` are those that are known already, since the beginning of the ledger
    may be archived. A node is its stream alone.
    """

    stream: StreamId | None = None
    consumer: ConsumerId | None = None
    claims: frozenset[ClaimId] = frozenset()
    moves: frozenset[str] = frozenset()


class Told(NamedTuple):
    """One event of a life."""

    stored: Stored
    envelope: Envelope
    event: e.Event

    @property
    def text(self) -> str:
        """What happened, in one line."""
        return story.line(self.event)

    @property
    def why(self) -> str:
        """The reason or evidence that was given for it, "" if none was."""
        return reason_of(self.event)


def of_consumer(consumer: ConsumerId, claims: Iterable[ClaimId] = ()) -> Subject:
    """Return a consumer as the subject of a story."""
    return Subject(stream=consumer_stream(consumer), consumer=consumer, claims=frozenset(claims))


def tell(subject: Subject, stored: Iterable[Stored]) -> Iterator[Told]:
    """Yield the events of a life out of all events of a ledger, both in order."""
    known = _Known(subject)
    for item in stored:
        if item.stream != subject.stream and not known.may_concern(item.raw):
            continue
        envelope = open_envelope(item.raw)
        event = open_event(envelope)
        if known.takes(item.stream, event):
            yield Told(item, envelope, event)


def reason_of(event: e.Event) -> str:
    """Return the reason or evidence that an event carries, "" for none."""
    if isinstance(event, e.Cordoned):
        return event.cordon.reason
    return str(getattr(event, "reason", "") or getattr(event, "evidence", "") or "")


class _Known:
    """What is known of a subject so far; it grows with the claims and moves that are met. Lives for one call of `tell`."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._claims: set[str] = set(subject.claims)
        self._moves: set[str] = set(subject.moves)
        self._words = {name.encode() for name in (*subject.claims, *subject.moves)}
        if subject.consumer is not None:
            self._words.add(msgspec.json.encode(subject.consumer))

    def may_concern(self, raw: bytes) -> bool:
        """Say whether an event's bytes name anything that is known: cheaper than opening it."""
        return any(word in raw for word in self._words)

    def takes(self, stream: StreamId, event: e.Event) -> bool:
        """Say whether an event belongs to the story, and learn from it."""
        if stream == self._subject.stream:
            return True
        if isinstance(event, e.MoveOpened):
            legs = {leg.claim for pair in event.legs for leg in (pair.source, pair.destination) if leg is not None}
            if event.move in self._moves or legs & self._claims:
                self._learn(self._moves, event.move)
                return True
            return False
        if isinstance(event, e.MoveEnded):
            return event.move in self._moves
        if isinstance(event, e.ClaimHeld) and event.consumer == self._subject.consumer:
            self._learn(self._claims, event.claim)
        if isinstance(event, e.UnitsPassed | e.UnitsNamed):
            return bool(self._claims & {event.source, event.target})
        return getattr(event, "claim", None) in self._claims

    def _learn(self, known: set[str], name: str) -> None:
        known.add(name)
        self._words.add(name.encode())
