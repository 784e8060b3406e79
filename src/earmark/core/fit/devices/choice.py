"""Which devices exactly: the best set that answers all requests at once, on a board that is tried and thrown away.

Rules of this file: one key orders all ways to serve the requests, smaller is better: first the sum of the locality classes of all devices,
then what each pick costs, pick by pick: (locality class, devices that it newly excludes, links that it newly breaks, memory of the
device, thousandths left of a shared one, address of the parent or its own, address, unit). Linked requests pick first, then shares, then
the others, each in the order of the requests. Taking the best next pick is tried first; where that leads nowhere, or not to the least
sum, the oracle (`device_flow`) says before each pick whether the rest can still be had. Never a no without proof: at a bound Undecided is
raised.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from earmark.core.fit.devices.flow import SHORTAGE, Supply, Undecided
from earmark.core.fit.devices.pools import Pool
from earmark.core.model.request import DeviceRequest
from earmark.core.model.topology import Device

STEPS_MAX = 20000
"""So many partial choices of linked devices and shares are looked at in one question."""
FEW_PICKS = 32
"""So many devices are picked only to see whether they can be had; of more it is counted."""

Key = tuple[int, int, int, int, int, str, str, str]
"""What one pick costs; smaller is better."""


class Pick(NamedTuple):
    """One device for one request: by its pool, as the pool's next one."""

    request: int
    pool: int
    device: Device
    cost: int


class Wanted(NamedTuple):
    """One request on a board: its number, how many devices, and what each pool costs it (None: it may not have it)."""

    number: int
    need: int
    share: int | None
    linked: bool
    costs: tuple[int | None, ...]


class Choice(NamedTuple):
    """A way to serve requests: the sum of the locality classes, and the picks in their order."""

    cost: int
    picks: tuple[Pick, ...]


class Tally:
    """How many picks were weighed for one question, on all boards together."""

    def __init__(self) -> None:
        self.steps = 0


class Board:
    """What is left of the pools while picks are made."""

    def __init__(self, pools: Sequence[Pool], tally: Tally | None = None) -> None:
        self.pools = pools
        self.tally = Tally() if tally is None else tally
        self.taken = [0] * len(pools)
        self.dead = [False] * len(pools)
        self.shared = [pool.left is not None and not pool.whole for pool in pools]
        self.left = [0 if pool.left is None else pool.left for pool in pools]

    def copy(self) -> Board:
        """Return a board that can be changed by itself."""
        other = object.__new__(Board)
        other.pools, other.tally = self.pools, self.tally
        other.taken, other.dead, other.shared, other.left = self.taken[:], self.dead[:], self.shared[:], self.left[:]
        return other

    def free(self, number: int) -> int:
        """Return how many whole devices of a pool are left."""
        return 0 if self.dead[number] or self.shared[number] else len(self.pools[number].devices) - self.taken[number]

    def can(self, number: int, wanted: Wanted) -> bool:
        """Say whether a request can have the next device of a pool."""
        if wanted.costs[number] is None:
            return False
        if wanted.share is None:
            return self.free(number) > 0
        return not self.dead[number] and not self.taken[number] and self.left[number] >= wanted.share

    def key(self, number: int, wanted: Wanted) -> Key:
        """Return what it costs a request to have the next device of a pool, which it can."""
        self.tally.steps += 1
        pool = self.pools[number]
        device = pool.devices[self.taken[number]]
        excluded = broken = left = 0
        if not self.shared[number]:
            excluded = sum(map(self.free, pool.conflicts)) if pool.conflicts else 0
            broken = sum(self.free(other) > 0 for other in pool.links) if pool.links else 0
        if wanted.share is not None:
            excluded += not self.shared[number]
            left = self.left[number] - wanted.share
        address = device.address or ""
        anchor = address if device.parent is None else pool.anchor
        return (wanted.costs[number] or 0, excluded, broken, device.memory_bytes or 0, left, anchor, address, device.unit)

    def take(self, number: int, wanted: Wanted) -> Pick:
        """Give the next device of a pool to a request."""
        pool = self.pools[number]
        pick = Pick(wanted.number, number, pool.devices[self.taken[number]], wanted.costs[number] or 0)
        if wanted.share is None:
            self.taken[number] += 1
        else:
            self.shared[number] = True
            self.left[number] -= wanted.share
        if pool.conflicts:
            self._close(number)
        return pick

    def _close(self, number: int) -> None:
        for other in self.pools[number].conflicts:
            self.dead[other] = True


def best(wanted: Sequence[Wanted], board: Board) -> Choice | None:
    """Return the best way to serve some requests together, None if there is none. Raises Undecided."""
    plain = [each for each in wanted if not each.linked and each.share is None]
    special = [each for each in wanted if each.linked and each.share is None] + [each for each in wanted if each.share is not None]
    if not special:
        return _plain(plain, board)
    search = _Special(special, plain, board)
    if search.hopeless(board):
        return None
    search.go(board.copy(), 0, (), frozenset(), 0)
    if search.found is None and search.undecided is not None:
        raise search.undecided
    return search.found


def possible(wanted: Sequence[Wanted], board: Board) -> bool:
    """Say whether there is a way to serve some requests together, however near. Raises Undecided."""
    if any(each.linked or each.share is not None for each in wanted):
        return best(wanted, board) is not None
    if any(least_alone(each, board) >= SHORTAGE for each in wanted):
        return False
    need = sum(each.need for each in wanted)
    few = need <= FEW_PICKS
    return (few and len(_greedy(wanted, board.copy())) == need) or oracle(wanted, board, near=False) < SHORTAGE


def oracle(wanted: Sequence[Wanted], board: Board, *, exact: bool = False, near: bool = True) -> int:
    """Return the least sum of locality classes of serving requests for whole devices, as if none were linked; SHORTAGE for each missing.

    Not `near`: all classes that a request accepts are one to it.
    """
    supply = Supply([each.need for each in wanted])
    for number in range(len(board.pools)):
        there = board.free(number)
        if there:
            costs = tuple(each.costs[number] for each in wanted)
            if not near:
                costs = tuple(cost and 0 for cost in costs)
            if any(cost is not None for cost in costs):
                supply.add(number, costs, there, board.pools[number].conflicts)
    return supply.least(exact=exact)


def request_order(requests: Sequence[DeviceRequest]) -> list[int]:
    """Return the numbers of requests in the order in which they pick."""
    return sorted(range(len(requests)), key=lambda n: (_turn(requests[n]), n))


def _turn(request: DeviceRequest) -> int:
    return 1 if request.share is not None else 0 if request.linked else 2


def least_alone(wanted: Wanted, board: Board) -> int:
    """Return the least sum of locality classes that a request has alone, whatever excludes what; SHORTAGE for each missing device."""
    if wanted.share is not None:
        rooms = sorted(cost for number, cost in enumerate(wanted.costs) if cost is not None and board.can(number, wanted))
        return sum(rooms[: wanted.need]) + max(0, wanted.need - len(rooms)) * SHORTAGE
    by_cost: dict[int, int] = {}
    for number, cost in enumerate(wanted.costs):
        if cost is not None:
            by_cost[cost] = by_cost.get(cost, 0) + board.free(number)
    need, total = wanted.need, 0
    for cost in sorted(by_cost):
        amount = min(need, by_cost[cost])
        need, total = need - amount, total + amount * cost
    return total + need * SHORTAGE


def _plain(wanted: Sequence[Wanted], board: Board) -> Choice | None:
    """Return the best way to serve requests for whole devices that need not be linked."""
    lower = sum(least_alone(each, board) for each in wanted)
    if lower >= SHORTAGE:
        return None
    picks = _greedy(wanted, board.copy())
    complete = len(picks) == sum(each.need for each in wanted)
    first = Choice(sum(pick.cost for pick in picks), tuple(picks))
    if complete and first.cost == lower:
        return first
    try:
        if not complete and oracle(wanted, board, near=False) >= SHORTAGE:
            return None
        least = oracle(wanted, board)
        return first if complete and first.cost == least else _guided(wanted, board, least)
    except Undecided:
        if complete:
            return first
        raise


def _greedy(wanted: Sequence[Wanted], board: Board) -> list[Pick]:
    """Return what taking the best next pick gives, until a request finds none; the board is changed."""
    picks: list[Pick] = []
    for each in wanted:
        there = [number for number, cost in enumerate(each.costs) if cost is not None and board.free(number)]
        need = each.need
        while need:
            keys = sorted((board.key(number, each), number) for number in there if board.free(number))[:2]
            if not keys:
                return picks
            key, number = keys[0]
            picks.append(board.take(number, each))
            need -= 1
            if key[1] == key[2] == 0 and need:
                after = keys[1][0] if len(keys) > 1 else None
                while need and board.free(number) and (after is None or board.key(number, each) < after):
                    picks.append(board.take(number, each))
                    need -= 1
    return picks


def _guided(wanted: Sequence[Wanted], board: Board, least: int) -> Choice:
    """Return the best way that costs `least`, which exists: as far as taking the best next pick leads there, then the next best pick."""
    rest = [each for each in wanted if each.need]
    board = board.copy()
    done: list[Pick] = []
    while rest:
        trial = _greedy(rest, board.copy())
        low, high = 0, len(trial)  # the first `low` picks lead there
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if _leads(trial[:middle], rest, board, least) else (low, middle - 1)
        rest, least = _after(trial[:low], rest, board, least)
        done += trial[:low]
        if not rest:
            break
        one = rest[0]
        skip = trial[low].pool if low < len(trial) else -1
        order = sorted((board.key(number, one), number) for number in range(len(board.pools)) if number != skip and board.can(number, one))
        for _, number in order:
            pick = Pick(one.number, number, board.pools[number].devices[board.taken[number]], one.costs[number] or 0)
            if _leads([pick], rest, board, least):
                rest, least = _after([pick], rest, board, least)
                done.append(pick)
                break
        else:
            raise AssertionError("the oracle contradicts itself")
    return Choice(sum(pick.cost for pick in done), tuple(done))


def _leads(picks: Sequence[Pick], rest: Sequence[Wanted], board: Board, least: int) -> bool:
    """Say whether requests can still be served at the least cost after some picks."""
    after = board.copy()
    left, budget = _after(picks, rest, after, least)
    return budget >= 0 and oracle(left, after) == budget


def _after(picks: Sequence[Pick], rest: Sequence[Wanted], board: Board, least: int) -> tuple[list[Wanted], int]:
    """Make some picks on a board and return what is still wanted, and what may still be spent."""
    by_number = {each.number: each for each in rest}
    counts = {each.number: each.need for each in rest}
    for pick in picks:
        board.take(pick.pool, by_number[pick.request])
        counts[pick.request] -= 1
        least -= pick.cost
    return [each._replace(need=counts[each.number]) for each in rest if counts[each.number]], least


class _Special:
    """The search over linked devices and shares: the best way so far is `found`, the first among equals."""

    def __init__(self, special: Sequence[Wanted], plain: Sequence[Wanted], board: Board) -> None:
        self.special, self.plain = special, plain
        self.found: Choice | None = None
        self.lower = sum(least_alone(each, board) for each in (*special, *plain))
        self.tail = [sum(least_alone(each, board) for each in (*special[turn:], *plain)) for turn in range(len(special) + 1)]
        self.seen: set[object] = set()
        self.visited: dict[object, int] = {}
        wanted = (*special, *plain)
        self.alike: dict[int, object] = {
            number: tuple(each.costs[number] for each in wanted)
            for number, pool in enumerate(board.pools)
            if len(pool.devices) == 1 and not pool.conflicts and not pool.links
        }
        self.steps = 0
        self.undecided: Undecided | None = None

    def hopeless(self, board: Board) -> bool:
        """Say whether a request, or those for whole devices together, cannot be served even if no links were asked for."""
        whole = [*(each for each in self.special if each.share is None), *self.plain]
        shares = sum(least_alone(each, board) for each in self.special if each.share is not None)
        try:
            self.lower = max(self.lower, oracle(whole, board) + shares)
        except Undecided:
            return False
        return self.lower >= SHORTAGE

    def go(self, board: Board, turn: int, picks: tuple[Pick, ...], mine: frozenset[int], cost: int) -> None:
        """Look at all ways that begin with some picks, of which those in the pools `mine` are of the request whose turn it is."""
        if turn == len(self.special):
            self._end(board, picks, cost)
            return
        if not mine:
            state = (turn, self._form(board))
            if self.visited.get(state, cost + 1) <= cost:
                return
            self.visited[state] = cost
        one = self.special[turn]
        if len(mine) == one.need:
            self.go(board, turn + 1, picks, frozenset(), cost)
            return
        self.steps += 1
        if self.steps > STEPS_MAX:
            self.undecided = Undecided(f"more than {STEPS_MAX} ways to choose linked devices or shares")
            return
        for number in self._order(one, board, mine):
            picked = (turn, frozenset((*((p.request, p.pool) for p in picks), (one.number, number))))
            if picked in self.seen:
                continue
            self.seen.add(picked)
            after = board.copy()
            pick = after.take(number, one)
            if self.found is not None and cost + pick.cost + self._rest(turn, mine, after) >= self.found.cost:
                continue
            self.go(after, turn, (*picks, pick), mine | {number}, cost + pick.cost)
            if self.found is not None and self.found.cost == self.lower:
                return

    def _form(self, board: Board) -> object:
        """Return all that matters of a board for what is still to be picked: devices that are alike count by what is left of them."""
        alike: dict[object, list[tuple[int, int, bool, bool]]] = {}
        for number, left in enumerate(board.left):
            here = (board.taken[number], left, board.dead[number], board.shared[number])
            alike.setdefault(self.alike.get(number, number), []).append(here)
        return tuple(tuple(sorted(some)) for some in alike.values())

    def _end(self, board: Board, picks: tuple[Pick, ...], cost: int) -> None:
        """Serve the other requests once all linked devices and shares are chosen."""
        try:
            rest = _plain(self.plain, board)
        except Undecided as error:
            self.undecided = error
            return
        if rest is not None and (self.found is None or cost + rest.cost < self.found.cost):
            self.found = Choice(cost + rest.cost, picks + rest.picks)

    def _rest(self, turn: int, mine: frozenset[int], board: Board) -> int:
        """Return the least that is still to be spent after a pick of the request whose turn it is."""
        one = self.special[turn]
        return least_alone(one._replace(need=one.need - len(mine) - 1), board) + self.tail[turn + 1]

    def _order(self, one: Wanted, board: Board, mine: frozenset[int]) -> Iterator[int]:
        """Yield the pools that can give the next device, best first: linked to those given, and each with links enough."""
        there = [number for number in range(len(board.pools)) if number not in mine and board.can(number, one)]
        if one.linked:
            there = [number for number in there if mine.issubset(board.pools[number].links)]
            need = one.need - len(mine) - 1
            among = set(there)
            there = [number for number in there if len(among.intersection(board.pools[number].links)) >= need]
            if len(there) <= need:
                return
        for _, number in sorted((board.key(number, one), number) for number in there):
            yield number
