"""The turn of one command about a consumer: what deciding reads of several streams, and the states after it.

Rules of this file: as in the writer: everything is read and appended inside its transaction; nothing is published here.
"""

from __future__ import annotations

from collections.abc import Callable

import immutables
from msgspec.structs import replace

from earmark.core.ledger.codec import Batch, Stored
from earmark.core.ledger.consumer import ConsumerState
from earmark.core.ledger.decide_move import decide_life
from earmark.core.ledger.life_commands import EndMove, LifeCommand
from earmark.core.ledger.life_decision import LifeDecision, LifeFacts, Placed, World
from earmark.core.ledger.moves import Fate
from earmark.core.ledger.state import NodeState
from earmark.core.model.ids import ClaimId, ConsumerId, NodeId, StreamId, consumer_stream, node_stream
from earmark.core.model.instance import Move
from earmark.core.model.refusal import Refusal
from earmark.stores.contract import Reader

NODE_PREFIX = "node:"
State = NodeState | ConsumerState


def decide_turn(
    reader: Reader, command: LifeCommand, current: Callable[[StreamId], State | None], now_ms: int
) -> tuple[World, LifeDecision | Refusal]:  # fmt: skip
    """Return the states that a command concerns and what it leads to."""
    world: World = {stream: current(stream) for stream in command.streams}
    return world, decide_life(world, command, facts_of(reader, command, world, now_ms))


def facts_of(reader: Reader, command: LifeCommand, world: World, now_ms: int) -> LifeFacts:
    """Read what deciding needs from the guard rows: the consumer's open claims, and how the ended legs of a move ended."""
    open_rows = tuple(
        Placed(row.claim, NodeId(row.stream.removeprefix(NODE_PREFIX)), row.purpose) for row in reader.claims_of(command.consumer)
    )
    known = world.get(consumer_stream(command.consumer))
    move = known.known_move(command.move) if isinstance(command, EndMove) and isinstance(known, ConsumerState) else None
    return LifeFacts(
        now_ms=now_ms, open=open_rows, ended=ended_legs(reader, move) if move is not None and move.outcome is None else immutables.Map()
    )


def ended_legs(reader: Reader, move: Move) -> immutables.Map[ClaimId, Fate]:
    """Return how those legs of a move ended that have ended."""
    found = {}
    for pair in move.legs:
        for leg in (pair.source, pair.destination):
            row = reader.claim(leg.claim) if leg is not None else None
            if row is not None and row.cause is not None:
                found[row.claim] = Fate(None, row.purpose, row.cause)
    return immutables.Map(found)


def batches_of(world: World, decided: LifeDecision) -> list[Batch]:
    """Return what is to be appended."""
    found = []
    for stream, events in decided.batches:
        state = world.get(stream)
        found.append(Batch(stream, state.head.sequence if state is not None else 0, events))
    return found


def after_append(decided: LifeDecision, stored: list[Stored], epoch: int) -> dict[StreamId, State]:
    """Return the new states, their heads completed by what was stored."""
    last = {item.stream: item for item in stored}
    after: dict[StreamId, State] = {}
    for stream, item in last.items():
        state = decided.after.get(stream)
        if state is not None:
            head = state.head._replace(sequence=item.sequence, epoch=max(epoch, state.head.epoch), hash=item.hash)
            after[stream] = replace(state, head=head)
    return after


def nodes_of(reader: Reader, consumer: ConsumerId) -> tuple[NodeId, ...]:
    """Return the nodes on which a consumer holds something now."""
    return tuple(sorted({NodeId(row.stream.removeprefix(NODE_PREFIX)) for row in reader.claims_of(consumer)}))


def refusal_stream(command: LifeCommand) -> StreamId:
    """Return the stream under which a refusal of a command is kept: the destination's node, else the first node."""
    destination = getattr(command, "destination", None) or (command.nodes[0] if command.nodes else None)
    return node_stream(destination) if destination is not None else consumer_stream(command.consumer)
