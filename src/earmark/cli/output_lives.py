"""The shapes of `--json` of instances, moves and stories; the rules are those of `output`."""

from __future__ import annotations

from earmark.cli.output import ClaimOut, Out, When


class LegOut(Out, frozen=True):
    """One leg of a move. `state` is held, confirmed, draining or ended, then `cause` says how; figures are null once it has ended.

    `node` is null where the leg is in another ledger. `devices` are those it holds; `passes` those of the source leg on the same node that
    the destination leg takes over unchanged when the move is confirmed.
    """

    node: str | None
    node_name: str | None
    claim: str | None
    state: str
    cause: str | None
    vcpus: int | None
    cpus: list[int]
    memory_bytes: int | None
    disk_bytes: int | None
    devices: list[str]
    passes: list[str]
    holds: str | None
    since: When | None
    until: When | None


class LegPairOut(Out, frozen=True):
    """What is moved from where to where: first the main claim, then each attached one."""

    purpose: str
    source: LegOut
    destination: LegOut


class MoveOut(Out, frozen=True):
    """A move. `status` is what its legs say of it; `token` ties it to its half in another ledger."""

    id: str
    consumer: str
    kind: str
    status: str
    opened_at: When
    ended_at: When | None
    legs: list[LegPairOut]
    token: str | None


class InstanceOut(Out, frozen=True):
    """An instance: who it is, the state that was last reported and since when, what it holds, its open move and those that ended."""

    consumer: str
    uuid: str
    name: str
    owner: str
    kind: str
    labels: dict[str, str]
    state: str
    task: str | None
    created_at: When
    reported_at: When
    nodes: list[str]
    claims: list[ClaimOut]
    move: MoveOut | None
    moves: list[MoveOut]


class FreedOut(Out, frozen=True):
    """What a command freed of a claim (`state` ended), or what it keeps since: draining, or quarantined until a person returns it."""

    claim: str
    node: str
    node_name: str
    holds: str
    state: str


class LifeOut(Out, frozen=True):
    """What a command about an instance or a move led to. `changed` false: it was so already, and `message` says what is true."""

    outcome: str
    changed: bool
    consumer: str
    message: str
    touched: list[str]
    freed: list[FreedOut]
    instance: InstanceOut | None
    move: MoveOut | None


class StoryLineOut(Out, frozen=True):
    """One event of a story. `node` is null for what is written of the instance itself; `text` is the line a person reads, `why` its reason."""

    at: When
    node: str | None
    node_name: str | None
    actor: str
    type: str
    text: str
    why: str
    claim: str | None
    stream: str
    sequence: int
    position: int


class StoryOut(Out, frozen=True):
    """A life in lines, oldest first. `what` is instance, claim, move or node."""

    what: str
    name: str
    lines: list[StoryLineOut]


class VerdictOut(Out, frozen=True):
    """What became of one record. `verdict` is accepted, stale, contradictory, unknown, invalid, or gone (a complete listing lacks it)."""

    place: int | None
    verdict: str
    about: str
    reason: str
    changed: bool


class ReceivedOut(Out, frozen=True):
    """The verdicts on all records; `listing` says why a listing that was said to be complete was not taken as one."""

    verdicts: list[VerdictOut]
    listing: str | None
