"""What can happen: the events, their wire names and versions.

Rules of this file: past tense; an event holds what was decided, never what must be computed again; no command line, environment, XML
or secret. A field is added only with a new version of its event; an old version is read for ever (`docs/reference/events.md`).
"""

from typing import ClassVar

from earmark.core.model.claim import Cause, Cordon, Holder, Leg, Moment, Purpose
from earmark.core.model.finding import Findings
from earmark.core.model.grant import Grant
from earmark.core.model.ids import ClaimId, ConsumerId, MoveId, NodeId, Owner, UnitId
from earmark.core.model.instance import InstanceState, Labels, LegPair, MoveKind, MoveOutcome
from earmark.core.model.node import NodeSettings, Provided
from earmark.core.model.request import Request
from earmark.core.model.topology import Machine
from earmark.core.model.value import Value


class Event(Value, frozen=True):
    """The base of all events; `type` and `version` are the wire name."""

    type: ClassVar[str]
    version: ClassVar[int] = 1


class NodeRegistered(Event, frozen=True):
    """A node entered the ledger. `machine` is a keyed hash of the machine id, None for a node that is no local machine."""

    type: ClassVar[str] = "node.registered"
    node: NodeId
    name: str
    machine: str | None = None


class NodeRehomed(Event, frozen=True):
    """A node's ledger now belongs to this machine (a copy was noticed and a person said so)."""

    type: ClassVar[str] = "node.rehomed"
    machine: str | None = None
    reason: str = ""


class MachineObserved(Event, frozen=True):
    """The inventory changed: the whole machine as seen now; `inventory_version` counts from 1; `differences` in words."""

    type: ClassVar[str] = "machine.observed"
    machine: Machine
    inventory_version: int
    differences: tuple[str, ...] = ()


class NodeConfigured(Event, frozen=True):
    """The node's settings are now these."""

    type: ClassVar[str] = "node.configured"
    settings: NodeSettings


class Cordoned(Event, frozen=True):
    """A unit, or the node, gets no new grants from now on."""

    type: ClassVar[str] = "unit.cordoned"
    cordon: Cordon


class Uncordoned(Event, frozen=True):
    """A cordon ended. `cause` is "released" by a person or "expired"."""

    type: ClassVar[str] = "unit.uncordoned"
    unit: UnitId | None
    cause: Cause = "released"


class ClaimEvent(Event, frozen=True, kw_only=True):
    """The base of what happens to a claim: which one, for what purpose, and of which move it is which leg."""

    claim: ClaimId
    purpose: Purpose = "main"
    move: str | None = None
    leg: Leg | None = None


class ClaimHeld(ClaimEvent, frozen=True):
    """A claim took its grant."""

    type: ClassVar[str] = "claim.held"
    consumer: ConsumerId
    owner: Owner
    request: Request
    grant: Grant
    deadline_ms: Moment | None = None
    holders: tuple[Holder, ...] = ()


class ClaimConfirmed(ClaimEvent, frozen=True):
    """What was to be started has started; the claim stays until it is released or its new deadline passes."""

    type: ClassVar[str] = "claim.confirmed"
    deadline_ms: Moment | None = None
    holders: tuple[Holder, ...] = ()


class ClaimBound(ClaimEvent, frozen=True):
    """The claim is now kept alive by exactly these holders."""

    type: ClassVar[str] = "claim.bound"
    holders: tuple[Holder, ...]


class ClaimRenewed(ClaimEvent, frozen=True):
    """The claim has a new deadline (None: no end)."""

    type: ClassVar[str] = "claim.renewed"
    deadline_ms: Moment | None


class ClaimDraining(ClaimEvent, frozen=True):
    """The claim is to end; its units stay its own until they are proven unused."""

    type: ClassVar[str] = "claim.draining"
    cause: Cause
    evidence: str = ""


class ClaimEnded(ClaimEvent, frozen=True):
    """The claim is over. Its grant is free again, or in quarantine (all of it) if there was no proof of its being unused."""

    type: ClassVar[str] = "claim.ended"
    cause: Cause
    evidence: str = ""
    quarantined: bool = False


class UnitsReturned(Event, frozen=True):
    """A person gave quarantined units back. `units` empty: everything that is left of that quarantine, amounts included."""

    type: ClassVar[str] = "units.returned"
    claim: ClaimId
    reason: str
    units: tuple[UnitId, ...] = ()


class UnitsRetained(Event, frozen=True):
    """Of what an ended claim left in quarantine only `units` stay there; the `freed` units and all amounts are free."""

    type: ClassVar[str] = "units.retained"
    claim: ClaimId
    units: tuple[UnitId, ...]
    freed: tuple[UnitId, ...] = ()
    reason: str = ""


class UnitsPassed(Event, frozen=True):
    """Units went from one live claim to another in one step, never through free."""

    type: ClassVar[str] = "units.passed"
    source: ClaimId
    target: ClaimId
    units: tuple[UnitId, ...]


class UnitsNamed(Event, frozen=True):
    """A destination leg will take over these units of its source leg, on the same node, when the move is confirmed."""

    type: ClassVar[str] = "units.named"
    source: ClaimId
    target: ClaimId
    units: tuple[UnitId, ...]


class LegOpened(ClaimEvent, frozen=True, kw_only=True):
    """A claim became the source leg of a move: from now on only the end of the move ends it."""

    type: ClassVar[str] = "leg.opened"


class LegClosed(ClaimEvent, frozen=True, kw_only=True):
    """The move is over for this claim, which lives on; `purpose`, `move` and `leg` are what it is from now on."""

    type: ClassVar[str] = "leg.closed"


class NodeRetired(Event, frozen=True):
    """The node is gone for good, or until it is reported again; claims that are left are orphans, and nothing new is granted."""

    type: ClassVar[str] = "node.retired"
    reason: str


class NodeRestored(Event, frozen=True):
    """A retired node is back, with everything that was held on it."""

    type: ClassVar[str] = "node.restored"
    reason: str = ""


class NodeHosted(Event, frozen=True):
    """This host runs the node from now on; a node of which none was ever named is a host of its own."""

    type: ClassVar[str] = "node.hosted"
    host: str
    reason: str = ""


class NodeProvided(Event, frozen=True):
    """What provider configuration files add to the node is now this, all of it."""

    type: ClassVar[str] = "node.provided"
    provided: Provided


class FindingsChanged(Event, frozen=True):
    """What somebody who looks (`source`: the audit, the guests) finds about the node is now this; none: nothing any more."""

    type: ClassVar[str] = "findings.changed"
    source: str
    findings: Findings = ()


# --- streams of consumers -----------------------------------------------------------------------------------------------------------


class InstanceCreated(Event, frozen=True):
    """A consumer is known by more than its claims from now on; of a deleted one: it is made anew."""

    type: ClassVar[str] = "instance.created"
    consumer: ConsumerId
    uuid: str
    name: str
    owner: Owner
    kind: str = "instance"
    labels: Labels = ()


class StateReported(Event, frozen=True):
    """Whoever runs the instance said what state it is in; a freeing state ended its claims in the same append."""

    type: ClassVar[str] = "instance.reported"
    state: InstanceState
    task: str | None = None
    reason: str = ""


class MoveOpened(Event, frozen=True):
    """A move began; its legs were opened and held in the same append."""

    type: ClassVar[str] = "move.opened"
    move: MoveId
    kind: MoveKind
    legs: tuple[LegPair, ...]
    token: str | None = None


class MoveEnded(Event, frozen=True):
    """A move is over; what became of its legs was appended with this."""

    type: ClassVar[str] = "move.ended"
    move: MoveId
    outcome: MoveOutcome


class UnknownEvent(Event, frozen=True):
    """An event of a type or version that this program does not know: the stream can be read, not written."""

    type: ClassVar[str] = "unknown"
    found_type: str
    found_version: int


EVENTS: tuple[type[Event], ...] = (
    NodeRegistered,
    NodeRehomed,
    MachineObserved,
    NodeConfigured,
    Cordoned,
    Uncordoned,
    ClaimHeld,
    ClaimConfirmed,
    ClaimBound,
    ClaimRenewed,
    ClaimDraining,
    ClaimEnded,
    UnitsReturned,
    UnitsRetained,
    UnitsPassed,
    UnitsNamed,
    LegOpened,
    LegClosed,
    NodeRetired,
    NodeRestored,
    NodeHosted,
    NodeProvided,
    FindingsChanged,
    InstanceCreated,
    StateReported,
    MoveOpened,
    MoveEnded,
)
KNOWN: dict[tuple[str, int], type[Event]] = {(event.type, event.version): event for event in EVENTS}
