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
    known = _Known(subject, subject.claims, subject.moves, _words(subject))
    for item in stored:
        if item.stream != subject.stream and not any(word in item.raw for word in known.words):
            continue  # its bytes name nothing that is known: cheaper than opening it
        envelope = open_envelope(item.raw)
        event = open_event(envelope)
        known = known.after(event)
        if item.stream == subject.stream or known.concerns(event):
            yield Told(item, envelope, event)


def reason_of(event: e.Event) -> str:
    """Return the reason or evidence that an event carries, "" for none."""
    if isinstance(event, e.Cordoned):
        return event.cordon.reason
    return str(getattr(event, "reason", "") or getattr(event, "evidence", "") or "")


class _Known(NamedTuple):
    """What is known of a subject so far, and the bytes by which events name it; it grows with the claims and moves that are met."""

    subject: Subject
    claims: frozenset[str]
    moves: frozenset[str]
    words: frozenset[bytes]

    def after(self, event: e.Event) -> _Known:
        """Return what is known after an event."""
        if isinstance(event, e.ClaimHeld) and event.consumer == self.subject.consumer:
            return self._replace(claims=self.claims | {event.claim}, words=self.words | {event.claim.encode()})
        if isinstance(event, e.MoveOpened) and self.claims & _legs(event):
            return self._replace(moves=self.moves | {event.move}, words=self.words | {event.move.encode()})
        return self

    def concerns(self, event: e.Event) -> bool:
        """Say whether an event of another stream belongs to the story."""
        if isinstance(event, e.MoveOpened | e.MoveEnded):
            return event.move in self.moves
        if isinstance(event, e.UnitsPassed | e.UnitsNamed):
            return bool(self.claims & {event.source, event.target})
        return getattr(event, "claim", None) in self.claims


def _legs(event: e.MoveOpened) -> frozenset[str]:
    return frozenset(leg.claim for pair in event.legs for leg in (pair.source, pair.destination) if leg is not None)


def _words(subject: Subject) -> frozenset[bytes]:
    """Return how events name a subject: claims and moves as they are, a consumer as JSON writes it."""
    named = frozenset(name.encode() for name in (*subject.claims, *subject.moves))
    return named if subject.consumer is None else named | {msgspec.json.encode(subject.consumer)}
