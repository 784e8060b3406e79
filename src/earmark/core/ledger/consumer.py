"""What is true of one consumer, and how one event leads from one state to the next: the stream `consumer:ID`.

Rules of this file: as in state and fold: a state is never changed, nothing is decided here, an event that contradicts the state is a broken
ledger. What a consumer holds is not here: that is the sum of its live claims on nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from msgspec.structs import replace

from earmark.core.ledger import events as e
from earmark.core.ledger.codec import NOT_JSON, Head, Stored, open_envelope, open_event
from earmark.core.model.ids import ConsumerId, MoveId
from earmark.core.model.instance import MOVES_KEPT_MAX, Instance, Move
from earmark.core.model.value import Value
from earmark.errors import InvalidRecord, LedgerBroken


class ConsumerState(Value, frozen=True):
    """One consumer at one sequence of its stream: its instance record, its open move, and its ended moves, oldest first."""

    consumer: ConsumerId
    instance: Instance
    head: Head = Head()
    move: Move | None = None
    moves: tuple[Move, ...] = ()
    unknown: str | None = None

    @property
    def sequence(self) -> int:
        """The sequence of the last event folded in."""
        return self.head.sequence

    @property
    def at_ms(self) -> int:
        """The time of the last event folded in."""
        return self.head.at_ms

    def known_move(self, move: MoveId) -> Move | None:
        """Return a move of this consumer, open or ended; None if it never was, or too long ago (MOVES_KEPT_MAX)."""
        if self.move is not None and self.move.id == move:
            return self.move
        return next((each for each in reversed(self.moves) if each.id == move), None)


_images = msgspec.json.Decoder(ConsumerState)


def fold_consumer(state: ConsumerState | None, stored: Iterable[Stored]) -> ConsumerState | None:
    """Return the state after some stored events of one consumer's stream, in order."""
    for item in stored:
        envelope = open_envelope(item.raw)
        state = advance_consumer(state, open_event(envelope), Head(envelope.sequence, envelope.epoch, envelope.at_ms, item.hash))
    return state


def advance_consumer(state: ConsumerState | None, event: e.Event, head: Head) -> ConsumerState:
    """Return the state after one event that ends the stream at `head`; raises LedgerBroken if the event cannot follow this state."""
    if state is None:
        if not isinstance(event, e.InstanceCreated):
            raise LedgerBroken(f"a consumer's stream begins with {event.type}, not with {e.InstanceCreated.type}", sequence=head.sequence)
        return ConsumerState(consumer=event.consumer, instance=_instance(event, head.at_ms), head=head)
    step = STEPS.get(type(event))
    if step is None:
        if state.unknown is None:
            raise LedgerBroken(f"{event.type} stands in the stream of consumer {state.consumer}", consumer=state.consumer)
        return replace(state, head=head)
    try:
        return replace(step(state, event, head.at_ms), head=head)
    except LedgerBroken:
        if state.unknown is None:
            raise
        return replace(state, head=head)


def _instance(event: e.InstanceCreated, at_ms: int) -> Instance:
    return Instance(
        uuid=event.uuid, name=event.name, owner=event.owner, kind=event.kind, labels=event.labels, created_at_ms=at_ms, reported_at_ms=at_ms
    )  # fmt: skip


def _created(state: ConsumerState, event: e.InstanceCreated, at_ms: int) -> ConsumerState:
    if state.instance.state != "deleted":
        raise LedgerBroken(f"instance {event.consumer} is created twice", consumer=state.consumer)
    return replace(state, instance=_instance(event, at_ms))


def _reported(state: ConsumerState, event: e.StateReported, at_ms: int) -> ConsumerState:
    return replace(state, instance=replace(state.instance, state=event.state, task=event.task, reported_at_ms=at_ms))


def _opened(state: ConsumerState, event: e.MoveOpened, at_ms: int) -> ConsumerState:
    if state.move is not None:
        raise LedgerBroken(f"move {event.move} of {state.consumer} is opened while {state.move.id} is open", move=event.move)
    move = Move(id=event.move, consumer=state.consumer, kind=event.kind, legs=event.legs, token=event.token, opened_at_ms=at_ms)
    return replace(state, move=move)


def _ended(state: ConsumerState, event: e.MoveEnded, at_ms: int) -> ConsumerState:
    if state.move is None or state.move.id != event.move:
        raise LedgerBroken(f"move {event.move} of {state.consumer} is ended and is not open", move=event.move)
    over = replace(state.move, outcome=event.outcome, ended_at_ms=at_ms)
    return replace(state, move=None, moves=(*state.moves, over)[-MOVES_KEPT_MAX:])


def _not_understood(state: ConsumerState, event: e.UnknownEvent, _at_ms: int) -> ConsumerState:
    return replace(state, unknown=f"{event.found_type} v{event.found_version}")


STEPS: dict[type[e.Event], Callable[[ConsumerState, Any, int], ConsumerState]] = {
    e.InstanceCreated: _created,
    e.StateReported: _reported,
    e.MoveOpened: _opened,
    e.MoveEnded: _ended,
    e.UnknownEvent: _not_understood,
}


def encode_consumer(state: ConsumerState) -> bytes:
    """Return a consumer's state as JSON."""
    return msgspec.json.encode(state)


def decode_consumer(raw: bytes) -> ConsumerState:
    """Return the state of an encoded consumer; raises InvalidRecord."""
    try:
        return _images.decode(raw)
    except NOT_JSON as error:
        raise InvalidRecord(f"a snapshot of {len(raw)} bytes is not the image of a consumer: {error}") from error
