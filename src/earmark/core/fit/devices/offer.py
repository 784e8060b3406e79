"""What a stock can offer some requests, whichever cells the guest gets: the face of the device solver.

Rules of this file: an Offer is made once for a request and asked for many sets of cells; it is never changed by an answer. Requests that
can use or exclude no device of each other are solved by themselves. A guest without cells knows no locality (P15): its devices are
chosen near the one cell that has most of them.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from operator import gt
from typing import NamedTuple

from msgspec.structs import replace

from earmark.core.fit.devices.choice import Board, Choice, Pick, Tally, Wanted, best, possible, request_order
from earmark.core.fit.devices.match import ALLOWED, NEAR, nearness, policy_of
from earmark.core.fit.devices.pools import Pool, pools_of
from earmark.core.fit.devices.reasons import reasons_of
from earmark.core.fit.ground import DeviceStock
from earmark.core.model.refusal import Reason
from earmark.core.model.request import DeviceRequest
from earmark.core.model.topology import Device

Chosen = tuple[tuple[Device, ...], ...]


class Part(NamedTuple):
    """Requests that can be in each other's way, in the order in which they pick, and the pools that matter to them."""

    requests: tuple[int, ...]
    pools: tuple[Pool, ...]


class Offer:
    """What a stock can offer to some requests (read only).

    `useful` are the host cells whose membership in the guest's can matter to some request, `local`: some request depends on them.
    """

    def __init__(self, requests: Sequence[DeviceRequest], stock: DeviceStock, pools: tuple[Pool, ...]) -> None:
        self.requests = tuple(requests)
        self.stock, self._pools = stock, pools
        self.parts = parts = _parts(requests, pools)
        """The requests in groups that can be in each other's way."""
        self.sockets: Mapping[int, int | None] = stock.sockets
        self.policies = tuple(policy_of(request) for request in requests)
        self.local = any(policy != "preferred" for policy in self.policies)
        there = {pool.cell for part in parts for pool in part.pools if pool.cell is not None and pool.mask}
        near = {stock.sockets[cell] for cell in there if stock.sockets.get(cell) is not None}
        self.useful = frozenset(there | {cell for cell, socket in stock.sockets.items() if socket in near and self._by_socket})
        self.tally = Tally()
        """How many picks were weighed so far."""
        self._subsets: dict[tuple[int, ...], Offer] = {}
        self._kinds: dict[int, Hashable] | None = None
        self._possible: dict[frozenset[int] | None, bool] = {}
        self._known: dict[frozenset[int] | None, Choice | None] = {}

    @property
    def _by_socket(self) -> bool:
        return None not in self.sockets.values()

    def choose(self, cells: frozenset[int] | None) -> Chosen | None:
        """Return the devices of each request, best first, for a guest on exactly these cells (None: on no cell); None if there are none.

        Exact: None only if no distinct devices, none of which excludes another, answer all requests. Raises Undecided at a bound.
        """
        found = self._choice(cells)
        if found is None:
            return None
        given: list[list[Device]] = [[] for _ in self.requests]
        for pick in found.picks:
            given[pick.request].append(pick.device)
        return tuple(tuple(sorted(some, key=lambda device: (device.address or "", device.unit))) for some in given)

    def possible(self, cells: frozenset[int] | None) -> bool:
        """Say whether `choose` gives devices, without choosing any: quicker where they are scarce. Raises Undecided."""
        known = None if cells is None else cells & self.useful
        if known in self._known:
            return self._known[known] is not None
        if known not in self._possible:
            self._possible[known] = all(possible(self.wanted(part, known), Board(part.pools, self.tally)) for part in self.parts)
        return self._possible[known]

    def distance(self, cells: frozenset[int]) -> int | None:
        """Return how far the best devices for a guest on these cells are, smaller is nearer (0: all on its cells); None if none can be had."""
        found = self._choice(cells)
        return None if found is None else found.cost

    def kind_of(self, cell: int) -> Hashable:
        """Return what two cells have in common that are interchangeable for `choose`: devices alike, and the socket if others share it."""
        if self._kinds is None:
            self._kinds = _kinds(self.parts)
        kind, socket = self._kinds.get(cell, 0), self.sockets.get(cell)
        several = "socket" in self.policies and self._by_socket and list(self.sockets.values()).count(socket) > 1
        return (kind, socket) if several else kind

    def only(self, numbers: Sequence[int]) -> Offer:
        """Return the offer to some of the requests, by their numbers: nothing is matched again, what was found out of them is known."""
        if tuple(numbers) == tuple(range(len(self.requests))):
            return self
        if tuple(numbers) in self._subsets:
            return self._subsets[tuple(numbers)]
        masks = [sum(1 << place for place, number in enumerate(numbers) if pool.mask >> number & 1) for pool in self._pools]
        pools = tuple(pool._replace(mask=mask) for pool, mask in zip(self._pools, masks, strict=True))
        return self._subsets.setdefault(tuple(numbers), Offer([self.requests[number] for number in numbers], self.stock, pools))

    def reasons(self, cells: frozenset[int] | None) -> list[Reason]:
        """Return why `choose` answers None for a guest on some cells: short, affinity or excluded, with numbers."""
        return reasons_of(self, cells)

    def wanted(self, part: Part, cells: frozenset[int] | None) -> list[Wanted]:
        """Return the requests of a part with what each pool costs each, for a guest on some cells (None: nothing is near or far)."""
        class_of = None if cells is None else nearness(cells, self.sockets)
        classes = [NEAR if class_of is None else class_of(pool.cell) for pool in part.pools]
        made = []
        for number in part.requests:
            request, bit = self.requests[number], 1 << number
            allowed = ALLOWED["preferred" if cells is None else self.policies[number]]
            costs = tuple(cost if pool.mask & bit and cost in allowed else None for pool, cost in zip(part.pools, classes, strict=True))
            made.append(Wanted(number, request.count, request.share, request.linked, costs))
        return made

    def _choice(self, cells: frozenset[int] | None) -> Choice | None:
        known = None if cells is None else cells & self.useful
        if known not in self._known:
            self._known[known] = self._solved(known)
        return self._known[known]

    def _solved(self, cells: frozenset[int] | None) -> Choice | None:
        """Return the best way to serve all requests, part by part."""
        home = self._home() if cells is None else None
        cost, picks = 0, list[Pick]()
        for part in self.parts:
            wanted = self.wanted(part, cells)
            if home is not None:
                wanted = [each._replace(costs=_ranked(each, part, home, self.sockets)) for each in wanted]
            found = best(wanted, Board(part.pools, self.tally))
            if found is None:
                return None
            cost += found.cost
            picks += found.picks
        return Choice(cost, tuple(picks))

    def _home(self) -> int | None:
        """Return the cell that has most of what is wanted, the lowest of several; None if no device's cell is known."""
        there: dict[int, dict[int, int]] = {}
        for part in self.parts:
            for pool in part.pools:
                if pool.cell is not None and pool.mask:
                    counts = there.setdefault(pool.cell, {})
                    for number in part.requests:
                        if pool.mask >> number & 1:
                            counts[number] = counts.get(number, 0) + len(pool.devices)
        misses = {
            cell: sum(max(0, request.count - counts.get(number, 0)) for number, request in enumerate(self.requests))
            for cell, counts in there.items()
        }
        return min(misses, key=lambda cell: (misses[cell], cell), default=None)


def offered(requests: Sequence[DeviceRequest], stock: DeviceStock) -> Offer:
    """Return what a stock can offer to some requests: which devices answer which is settled here, once (P9, P10, P26)."""
    if not requests:
        return Offer(requests, stock, ())
    order = [(device.address or "", device.unit) for device in stock.devices]
    if any(map(gt, order, order[1:])):
        stock = replace(stock, devices=tuple(sorted(stock.devices, key=lambda device: (device.address or "", device.unit))))
    return Offer(requests, stock, pools_of(requests, stock))


def _ranked(wanted: Wanted, part: Part, home: int, sockets: Mapping[int, int | None]) -> tuple[int | None, ...]:
    """Return what pools cost a request of a guest without cells: their locality to its home, none of them is refused."""
    class_of = nearness(frozenset({home}), sockets)
    return tuple(class_of(pool.cell) if pool.mask >> wanted.number & 1 else None for pool in part.pools)


def _parts(requests: Sequence[DeviceRequest], pools: Sequence[Pool]) -> tuple[Part, ...]:
    """Return the requests in groups that share no device, no exclusion and no link, each with its pools."""
    groups: list[int] = [1 << number for number in range(len(requests))]
    for pool in pools:
        mask = pool.mask
        for other in (*pool.conflicts, *pool.links):
            mask |= pools[other].mask
        touched = [group for group in groups if group & mask]
        if len(touched) > 1:
            groups = [group for group in groups if not group & mask] + [sum(touched)]
    order = request_order(requests)
    parts = []
    for group in sorted(groups, key=lambda group: group & -group):
        inside = [
            number
            for number, pool in enumerate(pools)
            if pool.mask & group or any(pools[other].mask & group for other in (*pool.conflicts, *pool.links))
        ]
        place = {number: index for index, number in enumerate(inside)}
        own = tuple(
            pools[number]._replace(
                conflicts=tuple(place[other] for other in pools[number].conflicts if other in place),
                links=tuple(place[other] for other in pools[number].links if other in place),
            )
            for number in inside
        )
        parts.append(Part(tuple(number for number in order if group >> number & 1), own))
    return tuple(parts)


def _kinds(parts: Sequence[Part]) -> dict[int, Hashable]:
    """Return what the devices of each cell are like; a cell with links, or with exclusions that reach farther than one parent, is its own kind."""
    found: dict[int, list[Hashable]] = {}
    for part in parts:
        for number, pool in enumerate(part.pools):
            if pool.cell is None or not pool.mask:
                continue
            there = found.setdefault(pool.cell, [])
            others = [other for other in pool.conflicts if part.pools[other].mask]
            foes = [part.pools[other] for other in others]
            if pool.links or pool.left is not None or any(foe.cell != pool.cell for foe in foes) or not _is_star(number, part):
                there.append(("alone", pool.cell))
            elif len(foes) != 1 or number < others[0]:
                there.append((pool.mask, len(pool.devices), tuple(sorted((foe.mask, len(foe.devices)) for foe in foes))))
    return {cell: tuple(sorted(some, key=repr)) for cell, some in found.items()}


def _is_star(number: int, part: Part) -> bool:
    """Say whether a pool and those that it excludes are one parent and its children, and nothing more."""
    foes = [other for other in part.pools[number].conflicts if part.pools[other].mask]
    inner = [other for other in foes if sum(bool(part.pools[each].mask) for each in part.pools[other].conflicts) > 1]
    return not foes or not inner or (len(foes) == 1 and len(inner) == 1 and _is_star(inner[0], part))
