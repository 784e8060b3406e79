"""Claims that stand in the way, for the tests of what is said of them."""

from __future__ import annotations

from earmark.core.model.ids import ClaimId, ConsumerId, Owner
from earmark.core.model.refusal import Holding


def holding(number: int, until_ms: int | None = None) -> Holding:
    """Return a claim that stands in the way."""
    return Holding(
        claim=ClaimId(f"c-{number:04}"),
        consumer=ConsumerId(f"vm-{number}"),
        owner=Owner("bob"),
        amount=2,
        until_ms=until_ms,
        what="cpu 4-5",
    )
