"""What deciding needs and what it leads to: facts in, a decision out."""

from typing import TypedDict

import msgspec

from earmark.core.ledger import commands as c
from earmark.core.ledger import events as e
from earmark.core.model.claim import Cause, Claim, Leg, Purpose
from earmark.core.model.ids import ClaimId, NodeId


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What deciding needs besides the state: the time, and what the guard rows say of the command's claim and consumer.

    `ended` is the cause with which the claim ended, None if it is open or never was; `main` the consumer's open main claim, anywhere
    in the ledger, and `elsewhere` that claim itself where it is on another node; `named` the node that has the name of one to be entered.
    """

    now_ms: int
    named: NodeId | None = None
    ended: str | None = None
    main: ClaimId | None = None
    elsewhere: Claim | None = None


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """Events to append (none: nothing to change) and what will then be true."""

    events: tuple[e.Event, ...] = ()
    outcome: c.Outcome
    claim_id: ClaimId | None = None
    cause: Cause | None = None
    message: str = ""
    differences: tuple[str, ...] = ()
    touched: tuple[ClaimId, ...] = ()


class About(TypedDict):
    """The fields that all events of a claim share."""

    claim: ClaimId
    purpose: Purpose
    move: str | None
    leg: Leg | None


def about(claim: Claim) -> About:
    """Return what each event of a claim says of it."""
    return About(claim=claim.id, purpose=claim.purpose, move=claim.move, leg=claim.leg)
