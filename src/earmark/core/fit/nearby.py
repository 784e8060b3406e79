"""How many devices for each request lie near which cell: what the search prunes and ranks by, before it asks for the devices themselves.

Rules of this file: counts only, each request alone, whatever excludes what; so they are never too low.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from earmark.core.fit.device_match import policy_of
from earmark.core.model.request import DeviceRequest

if TYPE_CHECKING:
    from earmark.core.fit.devices import Offer


class Nearby(NamedTuple):
    """For each device request the number of devices that answer it by cell (None: without a cell)."""

    requests: tuple[DeviceRequest, ...]
    counts: tuple[Mapping[int | None, int], ...]

    def misses(self, cell: int) -> int:
        """Return how many wished devices a cell has not."""
        return sum(max(0, request.count - counts.get(cell, 0)) for request, counts in zip(self.requests, self.counts, strict=True))

    def enough(self, chosen: Iterable[int], left: Sequence[int], room: int) -> bool:
        """Say whether some cells and so many more could suffice, counting each request alone and taking the richest cells."""
        listed = tuple(chosen)
        for request, counts in zip(self.requests, self.counts, strict=True):
            policy = policy_of(request)
            if policy not in ("required", "legacy"):
                continue
            have = sum(counts.get(cell, 0) for cell in listed) + (counts.get(None, 0) if policy == "legacy" else 0)
            more = sorted((counts.get(cell, 0) for cell in left), reverse=True)[:room]
            if have + sum(more) < request.count:
                return False
        return True


def nearby(offer: Offer | None) -> Nearby:
    """Count the devices of an offer (None: none are asked for)."""
    if offer is None:
        return Nearby((), ())
    counts: list[dict[int | None, int]] = [{} for _ in offer.requests]
    for part in offer.parts:
        for number in part.requests:
            for pool in part.pools:
                if pool.mask >> number & 1:
                    counts[number][pool.cell] = counts[number].get(pool.cell, 0) + len(pool.devices)
    return Nearby(offer.requests, tuple(counts))
