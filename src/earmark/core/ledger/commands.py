"""What can be asked of a node's ledger: the commands, imperative, and the answers.

Rules of this file: a command carries everything that deciding needs from the world (ids, times, which processes are proven gone); an
answer says what is true now and whether this command changed it.
"""

from typing import Annotated, Literal

from msgspec import Meta

from earmark.core.model.claim import HOLDERS_MAX, Cause, Claim, Holder, Leg, Moment, Purpose
from earmark.core.model.finding import Findings
from earmark.core.model.grant import Grant
from earmark.core.model.guest import GUESTS_MAX, Guest
from earmark.core.model.ids import ClaimId, ConsumerId, NodeId, Owner, UnitId
from earmark.core.model.node import NodeSettings, Provided
from earmark.core.model.request import Request
from earmark.core.model.topology import Machine
from earmark.core.model.value import Value

Holders = Annotated[tuple[Holder, ...], Meta(max_length=HOLDERS_MAX)]


class Command(Value, frozen=True):
    """The base of all commands; each concerns one node."""

    node: NodeId


class RegisterNode(Command, frozen=True):
    """Enter a node into the ledger, or find it again: with the host that runs it, its machine and its settings, as far as they are known."""

    name: str
    machine_ref: str | None = None
    host: str | None = None
    machine: Machine | None = None
    settings: NodeSettings | None = None


class RehomeNode(Command, frozen=True):
    """Say that the ledger now belongs to this machine."""

    machine_ref: str | None
    reason: str


class HostNode(Command, frozen=True):
    """Say that another host runs a node from now on."""

    host: str
    reason: str


class RetireNode(Command, frozen=True):
    """Say that a node is gone: nothing new is granted, what is held is left as orphans."""

    reason: str


class RestoreNode(Command, frozen=True):
    """Say that a retired node is back."""

    reason: str = ""


class ProvideNode(Command, frozen=True):
    """Replace what provider configuration adds to a node."""

    provided: Provided


class ObserveMachine(Command, frozen=True):
    """Record what a driver saw, if it differs from what is known."""

    machine: Machine


class ConfigureNode(Command, frozen=True):
    """Replace the node's settings."""

    settings: NodeSettings


class CordonUnit(Command, frozen=True):
    """Give no new grants of a unit (None: of the node)."""

    unit: UnitId | None
    reason: str
    until_ms: Moment | None = None


class UncordonUnit(Command, frozen=True):
    """End a cordon."""

    unit: UnitId | None


class HoldClaim(Command, frozen=True):
    """Claim resources: chosen by fit, or exactly `grant` if it is given. With `confirm` the claim is confirmed in the same append.

    `deadline_ms` is the hold's deadline (required without `confirm`), or the confirmed claim's end.
    """

    claim: ClaimId
    consumer: ConsumerId
    owner: Owner
    request: Request
    grant: Grant | None = None
    purpose: Purpose = "main"
    move: str | None = None
    leg: Leg | None = None
    deadline_ms: Moment | None = None
    confirm: bool = False
    holders: Holders = ()


class ConfirmClaim(Command, frozen=True):
    """Keep a held claim; `deadline_ms` is its new end (None: none), `holders` replace the old ones."""

    claim: ClaimId
    deadline_ms: Moment | None = None
    holders: Holders = ()
    generation: int | None = None


class BindClaim(Command, frozen=True):
    """Name the processes that keep a claim alive."""

    claim: ClaimId
    holders: Holders
    generation: int | None = None


class RenewClaim(Command, frozen=True):
    """Move a claim's deadline."""

    claim: ClaimId
    deadline_ms: Moment | None
    generation: int | None = None


class EndClaim(Command, frozen=True):
    """End a claim. `gone` are the holders that are proven gone or say so themselves; if others are left the claim drains.

    `cause` is released, aborted or forced; a forced end drains too and never frees without proof.
    """

    claim: ClaimId
    cause: Cause
    gone: tuple[Holder, ...] = ()
    generation: int | None = None


class SweepNode(Command, frozen=True):
    """Let time and deaths take effect: expire, drain, end with proof, quarantine after `grace_ms`, end cordons.

    `gone` are holders proven gone, `alive` those seen alive; all others are unknown.
    """

    grace_ms: int
    gone: tuple[Holder, ...] = ()
    alive: tuple[Holder, ...] = ()


class ReturnUnits(Command, frozen=True):
    """Give quarantined units back: all of a claim's quarantine, or one unit of it."""

    claim: ClaimId | None
    unit: UnitId | None
    reason: str


class ReturnNode(Command, frozen=True):
    """Say that an evacuated host is back and that its old guests are destroyed: what they held is free."""

    reason: str


class SeeGuests(Command, frozen=True):
    """Say which guests run on a node. `complete`: there are no others; `claims` are unused ids, one for each guest."""

    guests: Annotated[tuple[Guest, ...], Meta(max_length=GUESTS_MAX)]
    claims: tuple[ClaimId, ...]
    complete: bool = False


class RecordFindings(Command, frozen=True):
    """Remember what a source found about a node."""

    source: str
    findings: Findings


Outcome = Literal[
    "registered", "rehomed", "hosted", "retired", "restored", "provided", "observed", "configured", "cordoned", "uncordoned",
    "held", "confirmed", "bound", "renewed", "draining", "released", "quarantined", "returned", "swept",
]  # fmt: skip


class Answer(Value, frozen=True):
    """What is true after a command. `changed` False: it was so already, and nothing was written.

    `claim` is the claim as it is now (None once it has ended), `cause` why it ended or drains, `touched` the claims a sweep moved on.
    """

    outcome: Outcome
    node: NodeId
    changed: bool = True
    claim_id: ClaimId | None = None
    claim: Claim | None = None
    cause: Cause | None = None
    message: str = ""
    differences: tuple[str, ...] = ()
    touched: tuple[ClaimId, ...] = ()
