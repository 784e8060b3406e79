"""How many devices requests can have at once: the exact oracle behind the choice of devices.

Rules of this file: only counts, never devices. Pools that exclude each other are either opened or not; all ways to open them that matter
are tried (a parent, or what its branches give), those that another way beats are dropped. For each way the requests are served as a flow
of least cost. The search is bounded by PLANS_MAX; beyond it the answer is Undecided, never a false no.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from operator import add, ge

PLANS_MAX = 200_000
"""So many ways to open pools are looked at in one question."""
FEW_PLANS = 64
"""Up to so many plans are each compared with each other one."""
PAIR = 2
SHORTAGE = 1 << 24
"""The cost of a device that cannot be had: more than any sum of locality classes."""

Costs = tuple[int | None, ...]
"""What a device costs each request (None: it cannot have it)."""
Plan = tuple[int, ...]
"""How many devices of each kind of costs are there."""


class Undecided(Exception):
    """A bound was reached before it was known whether devices can be had: neither a yes nor a no."""


class Supply:
    """What pools offer some requests now: how many devices with which costs, and which pools exclude each other.

    `counted` is how many ways to open pools were looked at.
    """

    def __init__(self, demands: Sequence[int]) -> None:
        self.demands = tuple(demands)
        self.counted = 0
        self._kinds: dict[Costs, int] = {}
        self._caps: list[int] = []
        self._tied: dict[int, tuple[int, int, frozenset[int]]] = {}

    def add(self, pool: int, costs: Costs, count: int, foes: Iterable[int]) -> None:
        """Add `count` devices of a pool; `foes` are the pools that it excludes, as far as they are added too."""
        kind = self._kinds.get(costs)
        if kind is None:
            kind = self._kinds[costs] = len(self._caps)
            self._caps.append(sum(demand for demand, cost in zip(self.demands, costs, strict=True) if cost is not None))
        self._tied[pool] = (kind, min(count, self._caps[kind]), frozenset(foes))

    def least(self, *, exact: bool = False) -> int:
        """Return the least cost of serving the requests; each device that cannot be had costs a SHORTAGE. Raises Undecided.

        Unless `exact`, it is enough for a no that some device cannot be had: then the number of them may be larger than said.
        """
        demands, kinds = merged(self.demands, list(self._kinds))
        everything = [0] * len(kinds)
        for kind, count, _ in self._tied.values():
            everything[kind] += count
        relaxed = flow(demands, kinds, everything)
        if all(foes.isdisjoint(self._tied) for _, _, foes in self._tied.values()) or (relaxed >= SHORTAGE and not exact):
            return relaxed
        best: int | None = None
        cheap = [
            sorted((cost, kind) for kind, costs in enumerate(kinds) if (cost := costs[number]) is not None)
            for number in range(len(demands))
        ]
        bounds = sorted((lowest(demands, cheap, plan), tuple(-count for count in plan)) for plan in self._plans(frozenset(self._tied)))
        for bound, plan in bounds:
            if best is not None and bound >= best:
                break
            if bound >= SHORTAGE and not exact:
                return bound
            cost = flow(demands, kinds, [-count for count in plan])
            best = cost if best is None else min(best, cost)
            if best == relaxed:
                break
        return relaxed if best is None else best

    def _plans(self, pools: frozenset[int]) -> set[Plan]:
        """Return what some pools can offer together, without what another way to open them beats."""
        flat = [0] * len(self._caps)
        parts: dict[object, list[frozenset[int]]] = {}
        for part in self._components(pools):
            if len(part) == 1:
                kind, count, _ = self._tied[next(iter(part))]
                flat[kind] += count
            else:
                parts.setdefault(self._shape(part), []).append(part)
        found = {self._capped(flat)}
        for plans in (plans for alike in parts.values() for plans in self._times(self._opened(alike[0]), len(alike))):
            self._count(len(found) * len(plans))
            found = undominated({tuple(map(min, map(add, one, other), self._caps)) for one in found for other in plans})
        return found

    def _shape(self, part: frozenset[int]) -> object:
        """Return in what way pools hang together: those of one shape offer the same."""
        order = {pool: index for index, pool in enumerate(sorted(part))}
        return tuple((*self._tied[pool][:2], tuple(sorted(order[foe] for foe in self._tied[pool][2] & part))) for pool in order)

    def _times(self, plans: set[Plan], times: int) -> list[set[Plan]]:
        """Return what to join for so many parts that offer the same; of two plans, how often the first is taken is all that matters."""
        if len(plans) != PAIR:
            return [plans] * times
        one, other = sorted(plans)
        return [{self._capped([a * n + b * (times - n) for a, b in zip(one, other, strict=True)]) for n in range(times + 1)}]

    def _opened(self, part: frozenset[int]) -> set[Plan]:
        """Return what pools that hang together offer: with the pool that excludes most, or without it."""
        self._count()
        root = min(part, key=lambda pool: (-len(self._tied[pool][2] & part), pool))
        kind, count, foes = self._tied[root]
        taken = set()
        for plan in self._plans(part - foes - {root}):
            more = list(plan)
            more[kind] += count
            taken.add(self._capped(more))
        return undominated(taken | self._plans(part - {root}))

    def _components(self, pools: frozenset[int]) -> list[frozenset[int]]:
        """Return the pools in groups that exclude nothing of each other, in a fixed order."""
        left = set(pools)
        groups = []
        for pool in sorted(pools):
            if pool not in left:
                continue
            group: set[int] = set()
            edge = {pool}
            while edge:
                one = edge.pop()
                group.add(one)
                edge |= (self._tied[one][2] & left) - group
            left -= group
            groups.append(frozenset(group))
        return groups

    def _capped(self, plan: Sequence[int]) -> Plan:
        return tuple(map(min, plan, self._caps))

    def _count(self, ways: int = 1) -> None:
        self.counted += ways
        if self.counted > PLANS_MAX:
            raise Undecided(f"more than {PLANS_MAX} ways to give devices that exclude each other")


def undominated(plans: set[Plan]) -> set[Plan]:
    """Return the plans without those that are beaten by one that differs in a single number, or (if they are few) in any."""
    for place in range(len(next(iter(plans), ()))):
        best: dict[tuple[Plan, Plan], Plan] = {}
        for plan in plans:
            others = plan[:place], plan[place + 1 :]
            best[others] = max(best.get(others, plan), plan)
        plans = set(best.values())
    if len(plans) > FEW_PLANS:
        return plans
    return {plan for plan in plans if not any(other != plan and all(map(ge, other, plan)) for other in plans)}


def merged(demands: Sequence[int], kinds: Sequence[Costs]) -> tuple[list[int], list[Costs]]:
    """Return demands and kinds with the requests made one that each kind costs the same."""
    together: dict[tuple[int | None, ...], int] = {}
    for number, demand in enumerate(demands):
        column = tuple(costs[number] for costs in kinds)
        together[column] = together.get(column, 0) + demand
    columns = list(together)
    return list(together.values()), [tuple(column[kind] for column in columns) for kind in range(len(kinds))]


def lowest(demands: Sequence[int], cheap: Sequence[Sequence[tuple[int, int]]], plan: Plan) -> int:
    """Return a cost below which no flow can be: what each request would cost if all of a plan were its own.

    `cheap` are, for each request, the kinds that it can have with what they cost it, the cheapest first.
    """
    total = missing = 0
    for demand, kinds in zip(demands, cheap, strict=True):
        need = demand
        for cost, kind in kinds:
            amount = min(need, plan[kind])
            need -= amount
            total += amount * cost
            if not need:
                break
        missing += need
    return total + max(missing, sum(demands) - sum(plan)) * SHORTAGE


def flow(demands: Sequence[int], kinds: Sequence[Costs], counts: Sequence[int]) -> int:
    """Return the least cost of serving demands from kinds of devices, a device that cannot be had at SHORTAGE.

    Successive shortest paths over the requests: each path is as cheap as any, so the sum is the least.
    """
    left = list(counts)
    given: list[dict[int, int]] = [{} for _ in demands]
    total = 0
    for start, demand in enumerate(demands):
        need = demand
        while need:
            cost, path, kind = _path(start, kinds, left, given)
            if path is None or cost >= SHORTAGE:
                total += need * SHORTAGE
                break
            amount = min(need, left[kind], *(given[after][via] for after, via in path[1:]))
            for (request, via), takes in zip(path, [*(via for _, via in path[1:]), kind], strict=True):
                if request != start:
                    given[request][via] -= amount
                    if not given[request][via]:
                        del given[request][via]
                given[request][takes] = given[request].get(takes, 0) + amount
            left[kind] -= amount
            need -= amount
            total += amount * cost
    return total


Path = list[tuple[int, int]]
"""Requests, each with the kind that it gives up to the one before (-1 for the first)."""


def _path(start: int, kinds: Sequence[Costs], left: Sequence[int], given: Sequence[Mapping[int, int]]) -> tuple[int, Path | None, int]:
    """Return the cheapest way for one request to get one more device: its cost, who passes what on, and the kind with some left."""
    far = SHORTAGE
    cost = [far] * len(given)
    before: list[tuple[int, int] | None] = [None] * len(given)
    cost[start] = 0
    changed = [start]
    while changed:
        one = changed.pop(0)
        for other, has in enumerate(given):
            for kind in has if other != one else ():
                price, saved = kinds[kind][one], kinds[kind][other]
                if price is not None and saved is not None and cost[one] + price - saved < cost[other]:
                    cost[other] = cost[one] + price - saved
                    before[other] = (one, kind)
                    changed.append(other)
    best: tuple[int, int, int] | None = None
    open_kinds = [kind for kind, count in enumerate(left) if count]
    for one, so_far in enumerate(cost):
        for kind in open_kinds if so_far < far else ():
            price = kinds[kind][one]
            if price is not None and (best is None or so_far + price < best[0]):
                best = (so_far + price, one, kind)
    if best is None:
        return far, None, -1
    path: Path = []
    at: int | None = best[1]
    while at is not None:
        link = before[at]
        path.append((at, -1 if link is None else link[1]))
        at = None if link is None else link[0]
    path.reverse()
    return best[0], path, best[2]
