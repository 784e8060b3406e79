"""What can be asked for a consumer: instances and moves, which concern its own stream and those of some nodes at once.

Rules of this file: a command names every node that it concerns, as its maker saw it; deciding checks that against what is true, and raises
Conflict if another node has come into it since. An answer says what is true now, and whether this command changed it.
"""

from typing import Annotated, Literal

from msgspec import Meta

from earmark.core.ledger.commands import Holders
from earmark.core.model.claim import Claim, Holder, Moment, Purpose
from earmark.core.model.grant import Grant
from earmark.core.model.ids import ClaimId, ConsumerId, MoveId, NodeId, Owner, StreamId, consumer_stream, node_stream
from earmark.core.model.instance import LEGS_MAX, Instance, InstanceState, Labels, Move, MoveKind, MoveStatus
from earmark.core.model.request import Request
from earmark.core.model.value import Value

Ending = Literal["finish", "confirm", "revert", "abort", "expire"]


class LifeCommand(Value, frozen=True, kw_only=True):
    """The base of all commands about a consumer; `nodes` are those that it concerns besides the consumer's own stream."""

    consumer: ConsumerId
    nodes: tuple[NodeId, ...] = ()

    @property
    def streams(self) -> tuple[StreamId, ...]:
        """All streams that deciding reads and may append to, in id order (consumers before nodes)."""
        return (consumer_stream(self.consumer), *sorted({node_stream(node) for node in self.nodes}))


class CreateInstance(LifeCommand, frozen=True, kw_only=True):
    """Make a consumer known; one that is known with the same description is answered."""

    uuid: str
    name: str
    owner: Owner
    kind: str = "instance"
    labels: Labels = ()


class ReportState(LifeCommand, frozen=True, kw_only=True):
    """Say what state an instance is in. A freeing state ends all it holds on `nodes`; `gone` are holders proven gone.

    `owner` and `uuid` are for an instance that the ledger has no record of yet.
    """

    state: InstanceState
    task: str | None = None
    reason: str = ""
    owner: Owner | None = None
    uuid: str | None = None
    gone: tuple[Holder, ...] = ()


class LegPlan(Value, frozen=True, kw_only=True):
    """One claim to be moved: the claim that is left (None: in another ledger), the id of the new one (None: in another ledger).

    `request` is what the new one is to be; None: what the old one was. `grant` prescribes it.
    """

    source: ClaimId | None
    destination: ClaimId | None
    request: Request | None = None
    grant: Grant | None = None
    purpose: Purpose = "main"


class OpenMove(LifeCommand, frozen=True, kw_only=True):
    """Open a move: hold the destination legs, and keep the source legs until the move ends.

    `source` and `destination` are nodes of this ledger, None: in another one, then `token` ties the halves. `deadline_ms` is for the
    destination leg only. `uuid` is for a consumer that the ledger has no record of yet, `page_kib`
    the size of pages at a source in another ledger.
    """

    move: MoveId
    kind: MoveKind
    source: NodeId | None
    destination: NodeId | None
    legs: Annotated[tuple[LegPlan, ...], Meta(min_length=1, max_length=LEGS_MAX)]
    owner: Owner
    uuid: str
    deadline_ms: Moment | None = None
    holders: Holders = ()
    token: str | None = None
    page_kib: int | None = None


class EndMove(LifeCommand, frozen=True, kw_only=True):
    """Step a move on. Finish ends nothing, confirm the source legs, all others the destination legs; `gone` are holders proven gone."""

    move: MoveId
    how: Ending
    gone: tuple[Holder, ...] = ()


LifeOutcome = Literal["created", "reported", "opened", "finished", "confirmed", "reverted", "aborted", "expired", "deleted"]


class LifeAnswer(Value, frozen=True, kw_only=True):
    """What is true after a command. `changed` False: it was so already, and nothing was written.

    `claims` are the consumer's live claims on the nodes concerned, `touched` the claims that this command moved on, `status` what the
    move's legs say of it.
    """

    outcome: LifeOutcome
    consumer: ConsumerId
    changed: bool = True
    message: str = ""
    instance: Instance | None = None
    move: Move | None = None
    status: MoveStatus | None = None
    claims: tuple[Claim, ...] = ()
    touched: tuple[ClaimId, ...] = ()
