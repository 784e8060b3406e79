"""Which host cells could give a guest all that must be near it? The part of a certificate's check that is about sets of cells.

Where no limit of the whole node counts, it does not matter which guest cell lies where: a set of host cells will do if they can all be used at
once and have the devices and networks. So only sets are looked at, cells that are alike by how many of them are used.

Rules of this file: nothing of the search is used. A set is given up only where some wishes together (`Need`) cannot be met by the richest cells
that are left and can still be used beside it: in a matroid the greedy choice is the richest one. Which wishes count how much is found by making
dearer, again and again, what the richest cells lack; any weights would be true. Exact, and bounded by the steps.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

SCALE = 1 << 16
"""The weight of the dearest wish."""
ROUNDS = 40
"""So often wishes are made dearer."""
KEPT = 6
"""Of the weights that were found so many are used."""


class Need(NamedTuple):
    """How many things some wishes ask for, and the most that is there: anywhere, more with a cell, more with any cell of a socket."""

    asked: int
    anywhere: int
    cells: Mapping[int, int]
    sockets: Mapping[int, int]


class Able(NamedTuple):
    """A host cell: its socket (None: not known), which kinds of guest cells it can serve, and all that matters of its devices."""

    cell: int
    socket: int | None
    kinds: frozenset[int]
    form: object


class Wishes(Protocol):
    """The devices that are asked for: by weights of the requests, what they need, and what they lack on some cells."""

    def need(self, weights: Sequence[int]) -> Need:
        """Return what all of them ask for by some weights, and the most that is there."""

    def lacking(self, weights: Sequence[int], used: frozenset[int]) -> Sequence[int]:
        """Return what each of them lacks on some cells if things go where they weigh most."""


def dearer(weights: Sequence[int], lacks: Sequence[int], over: int) -> list[int]:
    """Return weights by which wishes weigh more that lack things (one does); `over` is what there was beyond all that is asked for."""
    square = sum(lack * lack for lack in lacks)
    moved = [max(0, weight + (over + SCALE) * lack * 3 // (2 * square)) for weight, lack in zip(weights, lacks, strict=True)]
    return [weight * SCALE // max(1, *moved) for weight in moved]


class CellSets:
    """One search for a set of host cells; `counts` are the guest cells of each kind, which can all be placed."""

    def __init__(self, cells: Sequence[Able], counts: Sequence[int], needs: Sequence[Need], wishes: Wishes, number: int) -> None:
        self.counts = counts
        self.room = sum(counts)
        self.wishes, self.number = wishes, number
        alone = [wishes.need([int(one == other) for other in range(number)]) for one in range(number)]
        self.needs = [*needs, *alone]
        self.cells = cells
        self.weights: list[list[int]] = []

    def found(self, suffices: Callable[[frozenset[int]], bool], steps: Iterator[int]) -> bool | None:
        """Say whether some set suffices, None where the steps do not: `suffices` says so of one."""
        if self._weighed(suffices):
            return True
        if not suffices(frozenset(one.cell for one in self.cells)):
            return False
        cells = sorted(self.cells, key=lambda each: (-self._worth(each), repr(each.form), sorted(each.kinds), each.cell))
        answer = self._from([], cells, suffices, steps)
        return None if next(steps, None) is None and not answer else answer

    def _weighed(self, suffices: Callable[[frozenset[int]], bool]) -> bool:
        """Seek the weights that come nearest to a no (or are one); say whether the richest cells by some of them suffice."""
        weights = [SCALE] * self.number
        found: dict[tuple[int, ...], tuple[int, Need]] = {}
        least: int | None = None
        for _ in range(ROUNDS if self.number > 1 else self.number):
            need = self.wishes.need(weights)
            usable, richest = self._usable(need, (), self.cells)
            over = min(self._most(need, (), self.cells, self.room), usable) - need.asked
            found[tuple(weights)] = over, need
            used = frozenset(one.cell for one in richest)
            lacks = self.wishes.lacking(weights, used)
            if over < 0:
                break
            short = sum(lack for lack in lacks if lack > 0)
            self.weights = [weights]
            if least is None or short < least:
                least = short
                if self.matched([one.kinds for one in richest]) and suffices(used):
                    return True
            if not any(lacks):
                break
            weights = dearer(weights, lacks, over)
        nearest = sorted(found.items(), key=lambda each: each[1][0])[:KEPT]
        self.weights = [list(weights) for weights, _ in nearest]
        self.needs = [*self.needs, *(need for _, (_, need) in nearest)]
        return False

    def _worth(self, able: Able) -> int:
        return sum(need.cells.get(able.cell, 0) + (0 if able.socket is None else need.sockets.get(able.socket, 0)) for need in self.needs)

    def _from(self, used: Sequence[Able], left: Sequence[Able], suffices: Callable[[frozenset[int]], bool], steps: Iterator[int]) -> bool:
        """Say whether some cells with more of those that are left suffice."""
        lacking = [(need, short) for need in self.needs if (short := need.asked - self._most(need, used, (), 0)) > 0]
        if not lacking and suffices(frozenset(one.cell for one in used)):
            return True
        room = self.room - len(used)
        if not room or not left or any(self._most(need, used, left, room) < need.asked for need, _ in lacking):
            return False
        sockets = {one.socket for one in used}
        for need, short in lacking:  # a cell must bring what is short beside the best others
            gains = [self._gain(need, one, sockets) for one in left]
            least = short - sum(sorted(gains, reverse=True)[: room - 1])
            left = [one for one, gain in zip(left, gains, strict=True) if gain >= least]
        if not left:
            return False
        helpful = [sum(min(short, self._gain(need, one, sockets)) for need, short in lacking) for one in left]
        if sum(sorted(helpful, reverse=True)[:room]) < sum(short for _, short in lacking):
            return False
        if any(self._usable(need, used, left)[0] < need.asked for need, _ in lacking):
            return False
        if next(steps, None) is None:
            return False
        first = left[helpful.index(max(helpful))]
        rest = [one for one in left if one is not first]
        if self.matched([*(one.kinds for one in used), first.kinds]) and self._from([*used, first], rest, suffices, steps):
            return True
        return self._from(used, [one for one in rest if one[1:] != first[1:]], suffices, steps)

    def _gain(self, need: Need, one: Able, touched: Collection[int | None]) -> int:
        """Return what a further cell adds at most."""
        fresh = one.socket is not None and one.socket not in touched
        return need.cells.get(one.cell, 0) + (need.sockets.get(one.socket or 0, 0) if fresh else 0)

    def _gains(self, need: Need, used: Sequence[Able], left: Sequence[Able]) -> list[tuple[int, Able]]:
        """Return what each further cell adds at most, the most first: a socket's share comes with its richest cell."""
        touched = {one.socket for one in used}
        gains = []
        for one in sorted(left, key=lambda one: -need.cells.get(one.cell, 0)):
            gain = need.cells.get(one.cell, 0)
            if one.socket is not None and one.socket not in touched:
                touched.add(one.socket)
                gain += need.sockets.get(one.socket, 0)
            if gain:
                gains.append((gain, one))
        return sorted(gains, key=lambda each: -each[0])

    def _most(self, need: Need, used: Sequence[Able], left: Sequence[Able], room: int) -> int:
        """Return the most that some cells and so many more give."""
        sockets = {one.socket for one in used if one.socket is not None}
        there = sum(need.cells.get(one.cell, 0) for one in used) + sum(need.sockets.get(socket, 0) for socket in sockets)
        return need.anywhere + there + sum(gain for gain, _ in self._gains(need, used, left)[:room])

    def _usable(self, need: Need, used: Sequence[Able], left: Sequence[Able]) -> tuple[int, list[Able]]:
        """Return the most that some cells and more give that can all be used at once, and which more: any cell of a socket stands for each of it."""
        kinds: dict[int | None, frozenset[int]] = {}
        if need.sockets:
            for one in left:
                kinds[one.socket] = kinds.get(one.socket, frozenset()) | one.kinds
        most = self._most(need, used, (), 0)
        seats = Seats(self.counts)
        room = self.room - sum(seats.take(one.kinds) for one in used)
        richest: list[Able] = []
        for gain, one in self._gains(need, used, left):
            serving = one.kinds if one.socket is None else kinds.get(one.socket, one.kinds)
            if len(richest) == room:
                break
            if seats.take(serving):
                richest.append(one)
                most += gain
        return most, richest

    def matched(self, cells: Sequence[frozenset[int]]) -> bool:
        """Say whether some host cells can all be used at once, given the kinds of guest cells that each can serve."""
        seats = Seats(self.counts)
        return all(seats.take(kinds) for kinds in cells)


class Seats:
    """Host cells that are all used at once, each by a guest cell of a kind that it can serve; `counts` are the guest cells of each kind."""

    def __init__(self, counts: Sequence[int]) -> None:
        self._counts = counts
        self._taken: list[list[frozenset[int]]] = [[] for _ in counts]

    def take(self, kinds: frozenset[int]) -> bool:
        """Seat one more host cell, if need be by moving others; if that cannot be, nothing has changed."""
        return self._take(kinds, set())

    def _take(self, kinds: frozenset[int], seen: set[int]) -> bool:
        fresh = sorted(kinds - seen)
        for kind in fresh:
            if len(self._taken[kind]) < self._counts[kind]:
                self._taken[kind].append(kinds)
                return True
        for kind in fresh:
            seen.add(kind)
            for place, other in enumerate(self._taken[kind]):
                if self._take(other, seen):
                    self._taken[kind][place] = kinds
                    return True
        return False
