"""What holds: an instance with its reported state, and a move of it as one object with two sides.

Rules of this file: a state is what whoever runs the instance reported, never inferred; only `FREEING` states give resources back (Nova 34,
compute/vm_states.py allow_resource_removal, rules L9-L14). What became of a move is read from its legs (`core.ledger.moves.status_of`).
"""

from typing import Annotated, Literal

from msgspec import Meta

from earmark.core.model.claim import Moment
from earmark.core.model.ids import ClaimId, ConsumerId, MoveId, NodeId, Owner
from earmark.core.model.value import Value

InstanceState = Literal[
    "building", "active", "paused", "suspended", "stopped", "rescued", "resized", "error", "shelved", "shelved_offloaded", "soft_deleted",
    "deleted",
]  # fmt: skip
FREEING: frozenset[InstanceState] = frozenset({"shelved_offloaded", "deleted"})
"""The states whose report ends everything that the instance holds (L10, L11); in all others it keeps it (L9, L12)."""

MoveKind = Literal["resize", "migration", "live_migration", "evacuation"]
MoveOutcome = Literal["confirmed", "reverted", "aborted", "expired", "deleted"]
MoveStatus = Literal["preparing", "finished", "confirmed", "reverted", "aborted", "expired", "deleted", "contradictory"]

LABELS_MAX = 64
LEGS_MAX = 64
MOVES_KEPT_MAX = 256
"""Ended moves of a consumer that are still answered for."""

Label = tuple[Annotated[str, Meta(min_length=1, max_length=128)], Annotated[str, Meta(max_length=256)]]
Labels = Annotated[tuple[Label, ...], Meta(max_length=LABELS_MAX)]


class Instance(Value, frozen=True):
    """Who the consumer is: `uuid`, `name`, `owner`, `kind` (instance, process, container, …), `labels`; its reported `state` and `task`.

    `task` is what is being done to it, in the words of whoever runs it (Nova: task_state); None for nothing.
    """

    uuid: str
    name: str
    owner: Owner
    kind: str = "instance"
    labels: Labels = ()
    state: InstanceState = "building"
    task: str | None = None
    created_at_ms: Moment = 0
    reported_at_ms: Moment = 0


class Leg(Value, frozen=True):
    """One claim of a move: on which node, and which claim."""

    node: NodeId
    claim: ClaimId


class LegPair(Value, frozen=True):
    """What is moved from where to where; a side that lives in another ledger is None."""

    source: Leg | None = None
    destination: Leg | None = None


class Move(Value, frozen=True):
    """A move of a consumer: its pairs of legs, the main one first. `token` ties it to the half in another ledger; `outcome` None: open."""

    id: MoveId
    consumer: ConsumerId
    kind: MoveKind
    legs: Annotated[tuple[LegPair, ...], Meta(min_length=1, max_length=LEGS_MAX)]
    token: str | None = None
    opened_at_ms: Moment = 0
    outcome: MoveOutcome | None = None
    ended_at_ms: Moment | None = None

    @property
    def source(self) -> NodeId | None:
        """The node that is left, None if it is in another ledger."""
        return self.legs[0].source.node if self.legs[0].source is not None else None

    @property
    def destination(self) -> NodeId | None:
        """The node that is moved to, None if it is in another ledger."""
        return self.legs[0].destination.node if self.legs[0].destination is not None else None

    @property
    def nodes(self) -> tuple[NodeId, ...]:
        """The nodes of this ledger that the move concerns, the source first."""
        return tuple(dict.fromkeys(node for node in (self.source, self.destination) if node is not None))
