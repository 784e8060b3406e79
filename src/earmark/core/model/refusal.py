"""A no, as data: which resource, where, how much is short, who holds it.

Rules of this file: a refusal has at least one reason; each reason's numbers can be checked again from the node's state alone.
"""

from typing import Literal

from earmark.core.model.ids import ClaimId, ConsumerId, Owner
from earmark.core.model.value import Value

ReasonCode = Literal[
    "short",  # a pool or a set of units has less free than asked
    "unknown_unit",  # the node has no such unit, cell or pool
    "unit_taken",  # an exclusive unit has a holder
    "excluded",  # a unit shares an exclusion slot with one that is held
    "unit_blocked",  # cordoned, quarantined, foreign or missing
    "units_rule",  # min, max or step of an inventory (C11)
    "self_overcommit",  # more shared vCPUs than shared CPUs (N14)
    "trait",  # a required trait is absent or a forbidden one present
    "not_supported",  # of earlier versions only, which stored it: the request language had more than they could do
    "no_class",  # the node has no inventory of the class
    "node_closed",  # the node is cordoned, unknown, or may not be written
    "consumer_has_main",  # the consumer already holds a main claim
    "other_ledger",  # another ledger of this machine is announced
    "too_many_builds",  # as many builds are in progress on the node as may be (L17)
    "same_host",  # a move on one node, which its settings do not allow (M28)
    "not_live_migratable",  # a device that cannot move while it is in use (M26)
    "page_size",  # a live migration to other pages (M24)
    "affinity",  # devices are there, but not near enough to the cells that the guest can have (P11 to P14)
    "network",  # no cell of the guest could be one that its networks need (N21)
    "hall",  # guest cells that together need more host cells than can serve them
    "together",  # requirements each of which can be met, and all but one, but not all at once
    "undecided",  # the search was stopped at its bound: neither a yes nor a no
    "mismatch",  # a prescribed grant is not what was requested, or contradicts itself
]

HOLDERS_SHOWN_MAX = 20


class Holding(Value, frozen=True):
    """How much of what is short a claim holds, and until when (milliseconds since the epoch; None: no end is known)."""

    claim: ClaimId
    consumer: ConsumerId
    owner: Owner
    amount: int
    until_ms: int | None = None
    what: str = ""
    """The units or amount as a person reads it ("cpu 4-7", "8 GiB")."""


class Reason(Value, frozen=True):
    """One cause of a no. Amounts are in the resource's base unit; `cell` is a host cell; `unit` names what is in the way."""

    code: ReasonCode
    resource: str
    asked: int = 0
    free: int = 0
    short: int = 0
    cell: int | None = None
    guest_cell: int | None = None
    unit: str | None = None
    detail: str = ""
    holders: tuple[Holding, ...] = ()
    holders_left_out: int = 0


class Certificate(Value, frozen=True):
    """Why no placement can exist, in a form that can be checked without a search or by a small one.

    `shortfall`: the guest cell in `guest_cells` fits on no host cell, or (without guest cells) the node is short of what the reasons name.
    `hall`: the `guest_cells` together can lie on `host_cells` only, which are fewer. `together`: the `requirements` cannot all be met,
    and can be once any one of them is left out; they are `cell:N` (guest cell N), `device:N` (device request N), `network:NAME` (""
    for tunnelled ones), `cpus` (what the node's sharers keep) and `memory` (the node's ordinary memory). What is not named is left out; a
    guest cell that is left out still lies on a host cell of its own, and needs nothing of it.
    """

    kind: Literal["shortfall", "hall", "together"]
    guest_cells: tuple[int, ...] = ()
    host_cells: tuple[int, ...] = ()
    requirements: tuple[str, ...] = ()


class Refusal(Value, frozen=True):
    """A no with its reasons. `fits_if` are changes each of which would make it fit, as far as they were looked for.

    `fits_after` are claims of which all must end for it to fit, () if that was not looked for or does not help.
    """

    reasons: tuple[Reason, ...]
    node: str | None = None
    fits_if: tuple[str, ...] = ()
    certificate: Certificate | None = None
    fits_after: tuple[Holding, ...] = ()
