"""Which claims must end for a refused request to fit: as soon as their deadlines allow, and no more of them than needed.

Rules of this file: pure. Freeing never turns a yes into a no, so the first moment is found by halving; of the claims gone by then only those
without which it does not fit are named; of claims that end alike the older goes first. At most ENDINGS_TRIED_MAX questions are asked; beyond that
nothing is said.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from earmark.core.fit.free import Free, Supply
from earmark.core.ledger.state import NodeState
from earmark.core.ledger.story import describe
from earmark.core.ledger.turns import ends_at, fits
from earmark.core.model.claim import Claim
from earmark.core.model.refusal import Holding, Refusal
from earmark.core.model.request import Request

ENDINGS_TRIED_MAX = 64
OPEN_TRIED_MAX = 24
"""So many claims without a known end are tried each alone."""


class _Spent(Exception):
    """No further question may be asked."""


def with_endings(refusal: Refusal, request: Request, state: NodeState, now_ms: int) -> Refusal:
    """Return a refusal that names the claims of the node after whose end the request would fit."""
    supply = state.supply
    if supply is None or any(reason.code == "node_closed" for reason in refusal.reasons):
        return refusal
    oldest_first = sorted(state.live(), key=lambda claim: claim.held_at_ms)
    known = sorted((claim for claim in oldest_first if ends_at(claim, now_ms) is not None), key=lambda claim: claim.deadline_ms or 0)
    open_ended = [claim for claim in oldest_first if ends_at(claim, now_ms) is None]
    try:
        found = _Endings(request, supply, state.free).first(known, open_ended)
    except _Spent:
        return refusal
    return replace(refusal, fits_after=tuple(_holding(claim, now_ms) for claim in found))


class _Endings:
    """One search for the claims that must end; it counts its questions."""

    def __init__(self, request: Request, supply: Supply, free: Free) -> None:
        self.request, self.supply, self.free = request, supply, free
        self.tries = iter(range(ENDINGS_TRIED_MAX))

    def first(self, known: Sequence[Claim], open_ended: Sequence[Claim]) -> list[Claim]:
        """Return the claims that must end, the last one last; () if no end of a claim helps. Raises _Spent."""
        claims = [*known, *open_ended]
        if not claims or not self._fits(claims):
            return []
        few, enough = 0, len(claims)  # it does not fit without the first `few`, it does without the first `enough`
        while enough - few > 1:
            middle = (few + enough) // 2
            few, enough = (few, middle) if self._fits(claims[:middle]) else (middle, enough)
        if enough > len(known):
            for claim in open_ended[:OPEN_TRIED_MAX]:
                if self._fits([claim]):
                    return [claim]
        last = claims[enough - 1]
        return [*self._needed([last], claims[: enough - 1]), last]

    def _needed(self, gone: Sequence[Claim], claims: Sequence[Claim]) -> list[Claim]:
        """Return those of some claims without whose end it does not fit; with the end of all of them, and of those gone, it fits."""
        if not claims or self._fits(gone):
            return []
        if len(claims) == 1:
            return list(claims)
        middle = len(claims) // 2
        later = self._needed([*gone, *claims[:middle]], claims[middle:])
        return [*self._needed([*gone, *later], claims[:middle]), *later]

    def _fits(self, gone: Sequence[Claim]) -> bool:
        if next(self.tries, None) is None:
            raise _Spent
        free = self.free
        for claim in gone:
            free = free.give(claim.id, claim.grant)
        return fits(self.request, self.supply, free)


def _holding(claim: Claim, now_ms: int) -> Holding:
    return Holding(
        claim=claim.id,
        consumer=claim.consumer,
        owner=claim.owner,
        amount=len(claim.grant.units),
        until_ms=ends_at(claim, now_ms),
        what=describe(claim.grant),
    )
