"""The shapes of `--json`: what each command answers, documented in docs/reference/json.md.

Rules of this file: every key is always there; a moment is its milliseconds and its ISO text; an amount is in its base unit; names are as the
ledger has them, and JSON escapes what a terminal would obey. A key may be added, none changes its meaning.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from earmark.core.model.claim import Holder
from earmark.core.model.grant import AmountRow, Grant, UnitRow
from earmark.core.model.request import Request

UnitState = Literal[
    "free", "taken", "foreign", "cordoned", "quarantined", "missing", "reserved", "unusable", "faulty", "shared", "excluded"
]


Sign = Literal["+", "-", "~"]


class Out(msgspec.Struct, frozen=True, kw_only=True):
    """The base of all answers."""


class When(Out, frozen=True):
    """A moment: milliseconds since the epoch, and the same as ISO 8601 in UTC."""

    ms: int
    iso: str


class ClaimOut(Out, frozen=True):
    """A live claim. `cpus` are the CPUs it holds alone, `cells` the host cells it is bound to, `until` its end (null: none).

    In a move, `leg` says which of its legs this is; `passes` are units of the source leg that this destination leg takes over on confirm.
    """

    id: str
    node: str
    node_name: str
    consumer: str
    owner: str
    phase: str
    purpose: str
    move: str | None
    leg: str | None
    passes: list[str]
    generation: int
    held_at: When
    until: When | None
    draining_since: When | None
    cause: str | None
    holds: str
    cpus: list[int]
    cells: list[int]
    units: list[UnitRow]
    amounts: list[AmountRow]
    grant: Grant
    request: Request
    holders: list[Holder]


class QuarantineOut(Out, frozen=True):
    """What an ended claim held and nobody gets until `earmark return`."""

    claim: str
    node: str
    node_name: str
    consumer: str
    owner: str
    since: When
    reason: str
    holds: str
    units: list[UnitRow]
    amounts: list[AmountRow]


class CordonOut(Out, frozen=True):
    """A unit (null: the node) that gets no new grants."""

    unit: str | None
    reason: str
    since: When
    until: When | None


class AnswerOut(Out, frozen=True):
    """What a change led to: claim, confirm, abort, renew, release, return, node set, cordon, uncordon, rehome.

    `changed` false: it was so already. `claim` is null once it has ended.
    """

    outcome: str
    changed: bool
    node: str
    claim_id: str | None
    cause: str | None
    message: str
    differences: list[str]
    touched: list[str]
    claim: ClaimOut | None
    notices: list[str]


class EndedOut(Out, frozen=True):
    """A claim that has ended: the answer of show for one; `earmark log CLAIM` tells the rest."""

    id: str
    consumer: str
    purpose: str
    cause: str


class HoldingOut(Out, frozen=True):
    """A claim that holds some of what is short."""

    claim: str
    consumer: str
    owner: str
    amount: int
    what: str
    until: When | None


class ReasonOut(Out, frozen=True):
    """One cause of a no. `text` is the line a person reads; amounts are in the resource's base unit."""

    code: str
    resource: str
    asked: int
    free: int
    short: int
    cell: int | None
    guest_cell: int | None
    unit: str | None
    detail: str
    text: str
    holders: list[HoldingOut]
    holders_left_out: int


class ProofOut(Out, frozen=True):
    """Why no placement can exist (docs/howto/read-a-refusal.md). `text`: the same in words, "" where the reasons say all of it.

    `verified`: `fit` and `why-not` had it checked by other means; null where that was not done or would take too long.
    """

    kind: str
    guest_cells: list[int]
    host_cells: list[int]
    requirements: list[str]
    text: str
    verified: bool | None


class FitOut(Out, frozen=True):
    """The answer of fit and why-not, and of a claim that was refused: either a grant, or reasons.

    `fits_if` are changes each of which would make it fit, `fits_after` claims of which all must end for it to fit.
    """

    fits: bool
    node: str
    request: Request
    grant: Grant | None
    holds: str
    reasons: list[ReasonOut]
    fits_if: list[str]
    fits_after: list[HoldingOut]
    certificate: ProofOut | None


class SharerOut(Out, frozen=True):
    """A claim whose shared vCPUs may run on a CPU, or that has so many thousandths of a device; one in quarantine keeps them."""

    claim: str
    consumer: str
    owner: str
    vcpus: int
    thousandths: int


class WhoOut(Out, frozen=True):
    """Who holds a unit. `offered`: it may be handed out at all; `claim` is its holder, `quarantine` and `cordon` what keeps it back, `passes_to` the claim that takes it over when a move is confirmed, `shared_by` who may also run there or has a part of it; `excluded` is a device that goes only with another one which is not to be had, `fault` what is wrong with one."""

    unit: str
    node: str
    node_name: str
    at: When
    state: UnitState
    offered: bool
    claim: ClaimOut | None
    passes_to: str | None
    quarantine: QuarantineOut | None
    cordon: CordonOut | None
    shared_by: list[SharerOut]
    fault: str | None


class ListOut(Out, frozen=True):
    """All live claims and quarantines, by node, oldest first."""

    at: When
    claims: list[ClaimOut]
    quarantines: list[QuarantineOut]


class EventOut(Out, frozen=True):
    """One event of `log`, one per line. `text` is the line a person reads, `data` the event as stored."""

    position: int
    stream: str
    sequence: int
    at: When
    type: str
    version: int
    actor: str
    command: str
    text: str
    data: msgspec.Raw
    hash: str


class ChangeOut(Out, frozen=True):
    """One difference: `-` was, `+` is, `~` is otherwise."""

    sign: Sign
    what: str
    text: str


class DiffOut(Out, frozen=True):
    """What changed on a node between two moments."""

    node: str
    name: str
    before: When
    after: When
    changes: list[ChangeOut]


class FindingOut(Out, frozen=True):
    """One finding of the auditor."""

    code: str
    severity: str
    detail: str
    node: str | None
    claim: str | None
    unit: str | None


class AuditOut(Out, frozen=True):
    """The answer of audit; `clean`: nothing was found at all."""

    clean: bool
    errors: int
    warnings: int
    findings: list[FindingOut]


class VerifyOut(Out, frozen=True):
    """The answer of verify: how much was replayed."""

    clean: bool
    streams: int
    events: int
    message: str
    findings: list[FindingOut]


class FileOut(Out, frozen=True):
    """A file that was written or read: init, backup, export, import, archive."""

    path: str
    events: int | None
    bytes: int | None
    message: str


class SelftestOut(Out, frozen=True):
    """The answer of selftest."""

    clean: bool
    folder: str
    rounds: int
    kills: int
    acknowledged: int
    lost: int
    findings: list[str]


class CompletionOut(Out, frozen=True):
    """The answer of completion: the script, and how it is installed."""

    shell: str
    script: str
    how: str
