"""Which of the placements that exist is the best one: one tuple for each pair, added up over the guest's cells, smaller is better.

In order: wished devices that are not near the cell; CPUs taken of CPU 0's core; under `spread` the emptiest cells (free CPUs, then free pages);
vCPUs alone on a core; whole cores broken; the page size. Then, for a guest of several cells, the distances between its host cells. Then
cache domains touched; devices near the cell that this guest does not want; under `pack` the fullest cells; the cells' numbers.

What devices lie near which cell is counted for each request alone, whatever excludes what, so the counts are never too low.

Rules of this file: the tuples are packed into whole numbers, whose sums compare as the sums of the tuples do. Everything but the distances is
exact (cheapest assignment); of the distances BALLS_MAX neighbourhoods are compared, each grown around one cell until the guest fits in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from earmark.core.fit.ground import Ground, HostCell
from earmark.core.fit.guest import Guest, GuestNeed, Kind
from earmark.core.fit.search.matching import Hall, cheapest, matching
from earmark.core.fit.search.pairs import Option
from earmark.core.fit.search.places import NOTHING, Choice, place
from earmark.core.model.cpuset import iterate
from earmark.core.model.inventory import RATIO_ONE
from earmark.core.model.request import DeviceRequest

if TYPE_CHECKING:
    from earmark.core.fit.devices.offer import Offer

BALLS_MAX = 8
FIELD = 64
"""Bits for each place of a tuple: more than any sum of its values over a guest's cells needs."""

Costs = tuple[tuple[int | None, ...], ...]


class Nearby(NamedTuple):
    """For each device request the number of devices that answer it by cell (None: without a cell)."""

    requests: tuple[DeviceRequest, ...]
    counts: tuple[Mapping[int | None, int], ...]

    def misses(self, cell: int) -> int:
        """Return how many wished devices a cell has not."""
        return sum(max(0, request.count - counts.get(cell, 0)) for request, counts in zip(self.requests, self.counts, strict=True))


class Ranking(NamedTuple):
    """The CPUs of each pair and its cost (None: not possible): what counts before the distances, and what counts after them."""

    ground: Ground
    choices: tuple[tuple[Choice, ...], ...]
    before: Costs
    after: Costs
    ranked: bool = True

    def order(self, guest: int, row: int) -> list[int]:
        """Return the host cells of a row (a mask of indices), the best first, for a guest cell that is alone."""
        return sorted(iterate(row), key=lambda host: (self.before[guest][host] or 0, self.after[guest][host] or 0))

    def best(self, rows: Sequence[int], forced: int) -> list[int] | None:
        """Return the best assignment that uses some host cells (a mask of indices), None if there is none."""
        if not self.ranked:
            some = matching(rows, forced)
            return None if isinstance(some, Hall) else some
        found = self._cheapest(rows, -1, forced)
        if found is None or len(rows) == 1:
            return found
        balls = self._balls(rows, forced)
        others = [other for ball in balls if (other := self._cheapest(rows, ball, forced)) is not None]
        return min((found, *others), key=self._value)

    def _value(self, hosts: Sequence[int]) -> tuple[int, int, int]:
        before = sum(self.before[guest][host] or 0 for guest, host in enumerate(hosts))
        after = sum(self.after[guest][host] or 0 for guest, host in enumerate(hosts))
        return (before, self._width(hosts), after)

    def _width(self, hosts: Sequence[int]) -> int:
        """Return the sum of the distances between some host cells, 0 where they are not known."""
        cells = self.ground.cells
        if any(len(cells[host].distances) != len(cells) for host in hosts):
            return 0
        return sum(cells[one].distances[other] for one in hosts for other in hosts if one != other)

    def _cheapest(self, rows: Sequence[int], ball: int, forced: int) -> list[int] | None:
        """Return the cheapest assignment within a mask of host cells that uses the forced ones (of which all can be used)."""
        bonus = 1 << FIELD * 14
        table = []
        for guest, row in enumerate(rows):
            before, after = self.before[guest], self.after[guest]
            table.append(
                [
                    ((before[host] or 0) << FIELD * 6) + (after[host] or 0) - (bonus if forced >> host & 1 else 0)
                    if row & ball & 1 << host
                    else None
                    for host in range(len(before))
                ]
            )
        return cheapest(table)

    def _balls(self, rows: Sequence[int], forced: int) -> list[int]:
        """Return the tightest neighbourhoods in which the guest fits (masks of indices), without repeats."""
        cells = self.ground.cells
        count = len(cells)
        if any(len(cell.distances) != count for cell in cells):
            return []
        far = {cells[one].distances[other] for one in range(count) for other in range(count) if one != other}
        if len(far) < 2:  # noqa: PLR2004 - all are equally far from each other
            return []
        found: dict[int, int] = {}
        for seed in range(count):
            ball, radius = _grown(rows, forced, cells[seed].distances)
            if ball:
                found[ball] = min(radius, found.get(ball, radius))
        return sorted(found, key=lambda ball: (found[ball], ball))[:BALLS_MAX]


class Row(NamedTuple):
    """The choices and costs of one guest cell on each host cell."""

    choices: tuple[Choice, ...]
    before: tuple[int | None, ...]
    after: tuple[int | None, ...]


def ranking_of(guest: Guest, ground: Ground, nearby: Nearby, options: Sequence[Sequence[Option | None]]) -> Ranking:
    """Return the costs of all pairs that are possible; equal guest cells share theirs."""
    known: dict[Kind, Row] = {}
    missed = [nearby.misses(cell.id) for cell in ground.cells] if nearby.counts else [0] * len(ground.cells)
    for need, row in zip(guest.cells, options, strict=True):
        if need.kind not in known:
            choices = tuple(
                NOTHING if option is None else choice_of(need, cell, guest) for cell, option in zip(ground.cells, row, strict=True)
            )
            costs = [
                (None, None) if option is None else _costs(need, cell, guest, option, choices[index], missed[index], near=not nearby.counts)
                for index, (cell, option) in enumerate(zip(ground.cells, row, strict=True))
            ]
            known[need.kind] = Row(choices, tuple(cost for cost, _ in costs), tuple(cost for _, cost in costs))
    rows = [known[need.kind] for need in guest.cells]
    return Ranking(ground, tuple(row.choices for row in rows), tuple(row.before for row in rows), tuple(row.after for row in rows))


def unranked(ground: Ground, rows: Sequence[int]) -> Ranking:
    """Return the ranking of a search to which every placement is as good as any other."""
    count = len(ground.cells)
    costs = (tuple(0 for _ in range(count)),) * len(rows)
    return Ranking(ground, ((NOTHING,) * count,) * len(rows), costs, costs, ranked=False)


def choice_of(need: GuestNeed, cell: HostCell, guest: Guest) -> Choice:
    """Return the CPUs that a guest cell gets on a host cell."""
    return NOTHING if need.waived else place(cell, len(need.dedicated), need.emulator, guest.threads)


def _costs(
    need: GuestNeed, cell: HostCell, guest: Guest, option: Option, choice: Choice, missed: int, *, near: bool
) -> tuple[int, int]:  # fmt: skip
    """Return what a pair costs before and after the distances; `near`: devices near the cell are left for others."""
    free_pages = option.offer.free if option.offer is not None else 0
    load = cell.free.bit_count() if need.dedicated or need.emulator else _room(cell)
    page = option.offer.size_kib.bit_length() if option.offer is not None and option.offer.named else 0
    spread = guest.placement == "spread"
    before = _packed(missed, choice.zero, -load if spread else 0, -free_pages if spread else 0, choice.lone, choice.broken, page)
    after = _packed(choice.caches, cell.devices if near else 0, 0 if spread else load, 0 if spread else free_pages, cell.id)
    return before, after


def _room(cell: HostCell) -> int:
    """Return how many shared vCPUs a cell can still carry."""
    return cell.shared_cpus * (cell.cpu_ratio or RATIO_ONE) // RATIO_ONE - cell.shared_used


def _packed(*fields: int) -> int:
    value = 0
    for field in fields:
        value = (value << FIELD) + field
    return value


def _grown(rows: Sequence[int], forced: int, distances: Sequence[int]) -> tuple[int, int]:
    """Return the smallest neighbourhood of a cell in which the guest fits, and the sum of its distances; 0 if there is none."""
    ball = forced
    radius = 0
    usable = 0
    for row in rows:
        usable |= row
    for host in sorted(iterate(usable), key=lambda host: (distances[host], host)):
        ball |= 1 << host
        radius += distances[host]
        if ball.bit_count() >= len(rows) and not isinstance(matching([row & ball for row in rows]), Hall):
            return ball, radius
    return 0, 0


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
