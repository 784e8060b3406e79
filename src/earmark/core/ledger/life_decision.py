"""What deciding about a consumer needs and what it leads to: a world of several streams in, batches for several streams out."""

from collections.abc import Mapping
from typing import NamedTuple

import immutables
import msgspec

from earmark.core.ledger import events as e
from earmark.core.ledger.consumer import ConsumerState
from earmark.core.ledger.life_commands import LifeOutcome
from earmark.core.ledger.moves import Fate
from earmark.core.ledger.state import NodeState
from earmark.core.model.ids import ClaimId, MoveId, NodeId, StreamId


class Placed(NamedTuple):
    """Where an open claim of a consumer lives, and for what purpose."""

    claim: ClaimId
    node: NodeId
    purpose: str


class LifeFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What deciding about a consumer needs besides the states: the time, its open claims anywhere in the ledger, and how ended legs ended."""

    now_ms: int
    open: tuple[Placed, ...] = ()
    ended: immutables.Map[ClaimId, Fate] = immutables.Map()


World = Mapping[StreamId, NodeState | ConsumerState | None]
"""The states of all streams that a command concerns; None: the stream does not exist yet."""


class LifeDecision(msgspec.Struct, frozen=True, kw_only=True):
    """Events to append to several streams, in this order, the states `after` them (heads without hashes), and what will then be true."""

    batches: tuple[tuple[StreamId, tuple[e.Event, ...]], ...] = ()
    after: World = immutables.Map()
    outcome: LifeOutcome
    message: str = ""
    touched: tuple[ClaimId, ...] = ()
    move: MoveId | None = None
