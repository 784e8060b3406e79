"""What somebody who looks found: a contradiction or an oddity, as data."""

from typing import Annotated, Literal

from msgspec import Meta

from earmark.core.model.ids import ClaimId, NodeId
from earmark.core.model.value import Value

Severity = Literal["error", "warning"]

FINDINGS_MAX = 1000
"""Findings of one source that a node remembers."""


class Finding(Value, frozen=True):
    """One contradiction or oddity.

    `code` is stable: double_grant, index_drift, layout_drift, guard_drift, snapshot_drift, chain, two_mains, no_deadline, no_cause,
    wrong_node, bad_amount, missing, overage, withdrawn, orphan, stray_leg, move_drift, held_by_deleted, foreign, overlap,
    contradicted, move_contradicted, unlisted.
    """

    code: str
    severity: Severity
    detail: str
    node: NodeId | None = None
    claim: ClaimId | None = None
    unit: str | None = None


Findings = Annotated[tuple[Finding, ...], Meta(max_length=FINDINGS_MAX)]
"""Findings that are remembered, sorted by code, unit and claim."""


def in_order(findings: tuple[Finding, ...]) -> tuple[Finding, ...]:
    """Return findings in their order, each once, at most FINDINGS_MAX."""
    ordered = sorted(set(findings), key=lambda each: (each.code, each.unit or "", each.claim or "", each.detail))
    return tuple(ordered[:FINDINGS_MAX])
