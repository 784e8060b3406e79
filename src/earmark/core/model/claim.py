"""A grant with a life: held, then confirmed, then draining, then gone; and who keeps it alive.

Rules of this file: expired, aborted, forced and the like are causes of a step, not phases. A claim that has ended is no longer in any
state; its events and the store's claim row remember it.
"""

from typing import Annotated, Literal

from msgspec import Meta

from earmark.core.model.grant import Grant
from earmark.core.model.ids import ClaimId, ConsumerId, NodeId, Owner, UnitId
from earmark.core.model.request import Request
from earmark.core.model.value import Value

Phase = Literal["held", "confirmed", "draining"]
Purpose = Literal["main", "attach", "leg", "foreign"]
Leg = Literal["source", "destination"]
Cause = Literal["released", "aborted", "reverted", "expired", "forced", "holder_gone", "moved", "evacuated", "deleted"]
Role = Literal["caller", "runner", "child"]
Liveness = Literal["alive", "dead", "unknown"]

HOLDERS_MAX = 16
MOMENT_MS_MAX = 253_402_300_799_999
"""The end of the year 9999, in milliseconds since the epoch: what every calendar can still show."""
Moment = Annotated[int, Meta(ge=0, le=MOMENT_MS_MAX)]


class Holder(Value, frozen=True):
    """What keeps a claim alive: one process, named so that no other can be mistaken for it.

    `start_ticks` is field 22 of /proc/PID/stat (Linux, proc(5)); `pid_namespace` the inode of /proc/PID/ns/pid. `cgroup` (absolute
    path) or `session` name what the process may have left behind: the holder is gone only when those are empty too.
    """

    boot_id: str
    pid_namespace: int
    pid: Annotated[int, Meta(ge=1)]
    start_ticks: Annotated[int, Meta(ge=0)]
    role: Role = "caller"
    cgroup: str | None = None
    session: int | None = None


class Claim(Value, frozen=True):
    """A live claim as the node's state holds it.

    `named` are units of the source leg on the same node that this destination leg will take over when the move is confirmed.

    `generation` grows with every step of this claim. `deadline_ms` (since the epoch) is when it expires, None: never.
    `draining_since_ms` and `cause` are set while it drains.
    """

    id: ClaimId
    node: NodeId
    consumer: ConsumerId
    owner: Owner
    request: Request
    grant: Grant
    phase: Phase = "held"
    generation: int = 1
    purpose: Purpose = "main"
    move: str | None = None
    leg: Leg | None = None
    named: tuple[UnitId, ...] = ()
    held_at_ms: int = 0
    confirmed_at_ms: int | None = None
    deadline_ms: Moment | None = None
    holders: tuple[Holder, ...] = ()
    draining_since_ms: int | None = None
    cause: Cause | None = None


class Quarantine(Value, frozen=True):
    """What a claim held when it ended without proof of being unused; nobody gets it until a person returns it."""

    claim: ClaimId
    consumer: ConsumerId
    owner: Owner
    grant: Grant
    since_ms: int
    reason: str


class Cordon(Value, frozen=True):
    """A unit (or, with unit None, the whole node) that gets no new grants; whoever holds it keeps it."""

    unit: UnitId | None
    reason: str
    since_ms: int
    until_ms: Moment | None = None
