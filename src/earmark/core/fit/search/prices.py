"""That no few cells have the devices of all requests, shown by prices: a bound on what any of them could give.

Each request has a price for a device. What a cell gives is worth at most what its devices fetch where each is sold to the request that pays
most, no request buying more of one parent's devices than it wants; some cells are worth no more than the best of them together. If that
is less than all that is wanted is worth, the devices cannot be had from them (duality of linear programs). A socket's devices that
need not be in a cell of the guest are worth something once any cell of the socket is.

Rules of this file: a bound, never a yes; whole numbers, so that it is exact. The prices are found by steps along the shortage (subgradients).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations
from operator import mul
from typing import NamedTuple

from earmark.core.fit.devices.match import ALLOWED, FAR, NEAR, NO_CELL_KNOWN, SAME_SOCKET
from earmark.core.fit.devices.offer import Offer, Part
from earmark.core.fit.devices.pools import Pool
from earmark.core.fit.ground import WHOLE

SCALE = 1 << 20
"""The price at which every request begins."""
KEPT_MAX = 8
"""So many lists of prices are tried before new ones are sought."""
LATER_STEPS = 6
"""So many new prices are sought in each later question."""
RIVALS_MAX = 40
"""So many sets of requests that are after the same devices are looked at each time."""
PATIENCE = 32
"""Where so many questions with the same number of further cells needed new prices and none was found that helps, none are sought."""

Group = tuple[int, int, int | None]
"""Devices that are alike: the bits of the requests that they answer, how many there are, thousandths that are left (None: not shared)."""
Shape = tuple[tuple[Group, ...], tuple[Group, ...]]
"""A parent and its children, of which either the first or the second can be given; where there is no parent the first is empty."""
Bought = tuple[int, ...]
"""How many devices each request buys."""
Sale = tuple[Bought, ...]
"""What can be sold of some devices: to a parent's buyers, or to its children's."""


def _never(_cells: Sequence[int]) -> bool:
    return False


class Goods(NamedTuple):
    """The devices on one cell (None: on none that is known) that sell alike, and how they sell from far, from the same socket and near."""

    cell: int | None
    times: int
    far: Sale
    socket: Sale
    near: Sale


class Priced(NamedTuple):
    """What things are worth at some prices.

    `asked` is all that is wanted, `base` what is there wherever the guest lies, `extra` what a cell adds on top of what its socket adds,
    `goods` all that can be sold where requests pay in the order of these prices, `bought` how it is sold at most.
    """

    prices: tuple[int, ...]
    asked: int
    base: int
    extra: Mapping[int, int]
    sockets: Mapping[int | None, int]
    goods: Sequence[Goods]
    bought: Mapping[Sale, Bought]


class Seats:
    """Which host cells can all be used at once: guest cells that lie on the same host cells are not told apart (scratch of one question)."""

    def __init__(self, free: Sequence[int]) -> None:
        self._free = list(free)
        self._taken: list[list[int]] = [[] for _ in free]

    def take(self, column: int) -> bool:
        """Seat one more host cell, which serves some kinds of guest cells (bits), if that can be; others move over for it."""
        came: dict[int, tuple[int, int] | None] = {kind: None for kind in range(len(self._free)) if column >> kind & 1}
        queue = list(came)
        for kind in queue:
            if self._free[kind]:
                self._free[kind] -= 1
                self._move(kind, came, column)
                return True
            for other in dict.fromkeys(self._taken[kind]):
                for next_kind in range(len(self._free)):
                    if other >> next_kind & 1 and next_kind not in came:
                        came[next_kind] = (kind, other)
                        queue.append(next_kind)
        return False

    def _move(self, kind: int, came: Mapping[int, tuple[int, int] | None], column: int) -> None:
        """Seat a column at the beginning of a way: each on it moves on to the next kind."""
        link = came[kind]
        while link is not None:
            before, moving = link
            self._taken[before].remove(moving)
            self._taken[kind].append(moving)
            kind, link = before, came[before]
        self._taken[kind].append(column)


class Prices:
    """The bound for one search: it remembers the prices that showed most (scratch of that search).

    `columns` says for each cell which kinds of guest cells it can serve (bits), `kinds` how many guest cells there are of each.
    """

    def __init__(self, offer: Offer, columns: Mapping[int, int], kinds: Sequence[int]) -> None:
        self._columns, self._kinds = columns, tuple(kinds)
        self._counts = [request.count for request in offer.requests]
        self._shares = [request.share or WHOLE for request in offer.requests]
        self._sockets: dict[int | None, int] = {cell: socket for cell, socket in offer.sockets.items() if socket is not None}
        if len(self._sockets) < len(offer.sockets):
            self._sockets = {}
        self._near_enough = [
            sum(1 << number for number, policy in enumerate(offer.policies) if place in ALLOWED[policy])
            for place in (NEAR, SAME_SOCKET, NO_CELL_KNOWN, FAR)
        ]
        self._there: Counter[tuple[Shape, int | None]] = Counter()
        for part in offer.parts:
            self._there.update(_shapes(part))
        self._goods: dict[tuple[int, ...], tuple[Sequence[Goods], Iterable[Sale]]] = {}
        self._fruitless: Counter[int] = Counter()
        self.kept = [self._priced((SCALE,) * len(self._counts))]
        self._rivals: list[Priced] | None = None

    def refuted(
        self,
        chosen: Sequence[int],
        left: Sequence[int],
        room: int,
        *,
        steps: int = LATER_STEPS,
        suffices: Callable[[Sequence[int]], bool] = _never,
    ) -> bool:
        """Say whether some cells and so many of those that are left are shown not to have the devices; no is no answer.

        `suffices` is asked of the richest cells at each prices that are sought; where it says yes, no more are.
        """
        for place, priced in enumerate(self.kept):
            if self._most(priced, chosen, left, room)[0] < priced.asked:
                self.kept.insert(0, self.kept.pop(place))
                return True
        priced = self.kept[0]
        for _ in range(steps if self._fruitless[room] < PATIENCE else 0):
            worth, cells = self._most(priced, chosen, left, room)
            if worth < priced.asked:
                self.kept = [priced, *self.kept[: KEPT_MAX - 1]]
                self._fruitless[room] = 0
                return True
            if suffices(cells):
                return False
            short = self._short(priced, cells)
            square = sum(each * each for each in short)
            if not square:
                return False
            gap = worth - priced.asked + SCALE
            moved = [max(0, price + 3 * gap * each // (2 * square)) for price, each in zip(priced.prices, short, strict=True)]
            top = max(moved)
            if not top:
                return False
            priced = self._priced(tuple(price * SCALE // top for price in moved))
        self._fruitless[room] += 1
        return False

    def worths(self, chosen: Sequence[int], left: Sequence[int]) -> dict[int, int]:
        """Return what each cell would add to those that are chosen, at the prices that showed most."""
        priced = self.kept[0]
        touched = {self._sockets.get(cell) for cell in chosen}
        fresh = {socket: bonus for socket, bonus in priced.sockets.items() if socket not in touched}
        return {cell: priced.extra[cell] + fresh.get(self._sockets.get(cell), 0) for cell in left}

    def helpful(self, chosen: Sequence[int], left: Iterable[int], room: int) -> list[int]:
        """Return those that are left of which each, with the best others that there is room for, is not shown to be too little."""
        touched: set[int | None] = {self._sockets[cell] for cell in chosen if cell in self._sockets}
        if self._rivals is None:
            self._rivals = [self._priced(tuple(SCALE * (mask >> one & 1) for one in range(len(self._counts)))) for mask in self._unions()]
        for priced in (*self._rivals, *self.kept):
            lacking = priced.asked - priced.base - sum(priced.extra[cell] for cell in chosen)
            lacking -= sum(priced.sockets.get(socket, 0) for socket in touched)
            fresh = {socket: bonus for socket, bonus in priced.sockets.items() if socket not in touched}
            gains = {cell: priced.extra[cell] + fresh.get(self._sockets.get(cell), 0) for cell in left}
            lacking -= sum(sorted(gains.values(), reverse=True)[: room - 1])
            left = [cell for cell, gain in gains.items() if gain >= lacking]
        return list(left)

    def _unions(self) -> list[int]:
        """Return sets of requests (bits) that are after the same devices: each alone, with those that can have no others, and two of these."""
        groups = {group[0] & enough for shape, _ in self._there for side in shape for group in side for enough in self._near_enough}
        several = range(len(self._counts))
        inner = [
            sum(1 << other for other in several if all(mask >> one & 1 or not mask >> other & 1 for mask in groups)) for one in several
        ]
        alone = [1 << one for one in range(len(self._counts))]
        two = [one | other for one, other in combinations(dict.fromkeys(inner), 2)]
        return list(dict.fromkeys([*alone, *inner, *two]))[:RIVALS_MAX]

    def _priced(self, prices: tuple[int, ...]) -> Priced:
        """Return what things are worth at some prices."""
        goods, sales = self._sold(tuple(sorted(range(len(prices)), key=lambda number: -prices[number])))
        bought: dict[Sale, Bought] = {}
        worth: dict[Sale, int] = {}
        for sale in sales:
            worth[sale], bought[sale] = max((sum(map(mul, way, prices)), way) for way in sale)
        base = 0
        extra: Counter[int] = Counter()
        sockets: Counter[int | None] = Counter()
        for cell, times, far, socket, near in goods:
            base += worth[far] * times
            if cell is not None:
                extra[cell] += (worth[near] - worth[socket]) * times
                if worth[socket] > worth[far]:
                    sockets[self._sockets[cell]] += (worth[socket] - worth[far]) * times
        return Priced(prices, sum(map(mul, prices, self._counts)), base, extra, sockets, goods, bought)

    def _sold(self, order: tuple[int, ...]) -> tuple[Sequence[Goods], Iterable[Sale]]:
        """Return what can be sold where requests pay in some order, and the different sales among it."""
        known = self._goods.get(order)
        if known is None:
            sale = {
                (shape, place): tuple(dict.fromkeys(self._bought(groups, place, order) for groups in shape))
                for shape in {shape for shape, _ in self._there}
                for place in (NEAR, SAME_SOCKET, NO_CELL_KNOWN, FAR)
            }
            goods = []
            for (shape, cell), times in self._there.items():
                far = sale[shape, NO_CELL_KNOWN if cell is None else FAR]
                goods.append(Goods(cell, times, far, sale[shape, SAME_SOCKET] if cell in self._sockets else far, sale[shape, NEAR]))
            known = self._goods[order] = goods, frozenset(sale.values())
        return known

    def _bought(self, groups: Iterable[Group], place: int, order: Iterable[int]) -> Bought:
        """Return how many devices each request buys, each group sold by itself to those who pay most."""
        bought = [0] * len(self._counts)
        for mask, there, left in groups:
            buyers, count = mask & self._near_enough[place], there
            for number in order if buyers else ():
                if buyers >> number & 1:
                    amount = min(count if left is None else left // self._shares[number], self._counts[number], there)
                    bought[number] += amount
                    count -= amount
        return tuple(bought)

    def _most(self, priced: Priced, chosen: Sequence[int], left: Sequence[int], room: int) -> tuple[int, list[int]]:
        """Return the most that some cells and so many of those that are left are worth, and the cells that are."""
        touched: set[int | None] = {self._sockets[cell] for cell in chosen if cell in self._sockets}
        worth = priced.base + sum(priced.extra[cell] for cell in chosen) + sum(priced.sockets.get(each, 0) for each in touched)
        best = sorted(left, key=lambda cell: -priced.extra[cell])
        seated = self._seated(chosen, best, room)
        bonuses = sorted((bonus for socket, bonus in priced.sockets.items() if socket not in touched), reverse=True)
        apart = worth + sum(priced.extra[cell] for cell in seated) + sum(bonuses[:room])
        if not bonuses:
            return apart, [*chosen, *seated]
        gains = []
        for cell in best:
            socket = self._sockets.get(cell)
            bonus = 0 if socket in touched else priced.sockets.get(socket, 0)
            touched.add(socket)
            gains.append((priced.extra[cell] + bonus, cell))
        gains.sort(key=lambda gain: -gain[0])
        joined = worth + sum(gain for gain, _ in gains[:room])
        return min(apart, joined), [*chosen, *(seated if apart < joined else (cell for _, cell in gains[:room]))]

    def _seated(self, chosen: Sequence[int], best: Sequence[int], room: int) -> list[int]:
        """Return the first cells, so many at most, that can all be used together with those that are chosen."""
        seats = Seats(self._kinds)
        for cell in chosen:
            seats.take(self._columns[cell])
        seated: list[int] = []
        for cell in best:
            if len(seated) == room:
                break
            if seats.take(self._columns[cell]):
                seated.append(cell)
        return seated

    def _short(self, priced: Priced, cells: Iterable[int]) -> list[int]:
        """Return how many devices each request is short of if each is sold at some prices; less than none: so many are left over."""
        there = frozenset(cells)
        touched = {self._sockets[cell] for cell in there if cell in self._sockets}
        sold: Counter[Sale] = Counter()
        for cell, times, far, socket, near in priced.goods:
            sold[near if cell in there else socket if self._sockets.get(cell) in touched else far] += times
        short = list(self._counts)
        for sale, times in sold.items():
            for request, amount in enumerate(priced.bought[sale]):
                short[request] -= amount * times
        return short


def _shapes(part: Part) -> Iterable[tuple[Shape, int | None]]:
    """Yield the pools of a part, a parent together with its children where all of them lie on one cell; other exclusions are left out."""
    done: set[int] = set()
    for number, pool in enumerate(part.pools):
        foes = [part.pools[other] for other in pool.conflicts]
        star = number not in done and all(part.pools[other].conflicts == (number,) for other in pool.conflicts)
        if foes and star and all(foe.cell == pool.cell and foe.left is None for foe in foes) and pool.left is None:
            done |= {number, *pool.conflicts}
            yield ((_group(pool),), tuple(sorted(map(_group, foes)))), pool.cell
    for number, pool in enumerate(part.pools):
        if number not in done and pool.mask:
            yield ((_group(pool),), ()), pool.cell


def _group(pool: Pool) -> Group:
    return pool.mask, len(pool.devices), pool.left
