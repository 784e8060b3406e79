"""Guest cells, devices and networks onto a node, all at once: the best way, or that there is none.

Rules of this file: exact and bounded, never by permutations. Pairs are judged once; a matching places the cells, Hall's condition refuses them;
what depends on the set of chosen cells (devices near them, networks, what the whole node allows) is searched over the few cells that
matter, each step pruned by what all that are left could give. A search that reaches STEPS_MAX says so: it never says no without proof.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from earmark.core.fit.ground import DeviceStock, Ground, HostCell, PageOffer
from earmark.core.fit.guest import Guest, GuestNeed, Kind
from earmark.core.fit.search.matching import Hall, cheapest, independent, matching
from earmark.core.fit.search.pairs import Option, ordinary_bytes, pair
from earmark.core.fit.search.places import Choice
from earmark.core.fit.search.ranking import Nearby, Ranking, nearby, ranking_of, unranked
from earmark.core.model.cpuset import iterate, mask_of
from earmark.core.model.request import DeviceRequest
from earmark.core.model.topology import Device

if TYPE_CHECKING:
    from earmark.core.fit.devices.offer import Chosen, Offer
    from earmark.core.fit.search.prices import Prices

FIRST_STEPS = 60
"""So many prices are tried before a search begins."""
STEPS_MAX = 4000
"""So many sets of cells are looked into before a search gives up."""


class Placed(NamedTuple):
    """One guest cell on its host cell: its CPUs, and what its memory is made of (None: no memory)."""

    need: GuestNeed
    cell: HostCell
    choice: Choice
    offer: PageOffer | None


class Found(NamedTuple):
    """A placement: the guest's cells in order, and the devices of each device request."""

    placed: tuple[Placed, ...]
    devices: tuple[tuple[Device, ...], ...]


class Undecided(NamedTuple):
    """The search was stopped at its bound."""

    steps: int


class Impossible(NamedTuple):
    """There is no placement; `hall` says so of the cells alone."""

    hall: Hall | None = None


class Problem(NamedTuple):
    """One question to the search, with every pair judged: `rows` are masks of the host cells (by index) that can serve a guest cell."""

    guest: Guest
    ground: Ground
    offer: Offer | None
    nearby: Nearby
    options: tuple[tuple[Option | None, ...], ...]
    rows: tuple[int, ...]


Steps = Iterator[int]
"""How many sets of cells may still be looked into: each takes one of them; None left means that the bound was reached."""

Costing = Callable[[GuestNeed, Option], int]


def problem_of(guest: Guest, ground: Ground, devices: Sequence[DeviceRequest] | Offer | None) -> Problem:
    """Judge every pair once; equal guest cells are judged together. `devices` are what is wanted, or already what is offered."""
    known: dict[Kind, tuple[Option | None, ...]] = {}
    options = []
    for need in guest.cells:
        if need.kind not in known:
            known[need.kind] = tuple(pair(need, cell, guest, ground) for cell in ground.cells)
        options.append(known[need.kind])
    rows = tuple(mask_of(index for index, option in enumerate(row) if option is not None) for row in options)
    offer = _offer(devices, ground.stock) if isinstance(devices, Sequence) else devices
    return Problem(guest, ground, offer, nearby(offer), tuple(options), rows)


def _offer(requests: Sequence[DeviceRequest], stock: DeviceStock) -> Offer | None:
    """Return what a stock offers to some requests, None where nothing is asked for."""
    if not requests:
        return None
    from earmark.core.fit.devices.offer import offered  # noqa: PLC0415 - the solver of devices, for those who ask for some

    return offered(requests, stock)


def solve(problem: Problem, *, ranked: bool = True) -> Found | Impossible | Undecided:
    """Return the best placement, or that there is none, or that the bound was reached.

    Not `ranked`: any placement will do, and its CPUs and devices are not chosen; that there is one is all that is asked.
    """
    fair = matching(problem.rows)
    if isinstance(fair, Hall):
        return Impossible(fair)
    everywhere = frozenset(cell.id for cell in problem.ground.cells)
    if not _local(problem, everywhere):
        return Impossible()
    ranking = (
        ranking_of(problem.guest, problem.ground, problem.nearby, problem.options) if ranked else unranked(problem.ground, problem.rows)
    )
    if len(problem.rows) == 1:
        return _single(problem, ranking)
    first = ranking.best(problem.rows, 0)
    if first is not None and _local(problem, _ids(problem, first)):
        answer = _afforded(problem, ranking, first)
        if answer is not None:
            return answer
    if _too_much(problem):
        return Impossible()
    steps = iter(range(STEPS_MAX))
    doubtful = False
    for forced in _anchors(problem, steps, any_will_do=not ranked):
        tried = _with_anchor(problem, ranking, forced)
        if isinstance(tried, Found):
            return tried
        doubtful = doubtful or tried is None
    return Undecided(STEPS_MAX) if doubtful or next(steps, None) is None else Impossible()


def _too_much(problem: Problem) -> bool:
    """Say whether the guest cells (they can all be placed) take more of the whole node than it has, wherever they lie."""
    ground = problem.ground
    for most, first, second in ((ground.leaving_max, _leaving, _ordinary), (ground.ordinary_max, _ordinary, _leaving)):
        if most is not None and _total(problem, _frugal(problem, 0, first, second), first) > most:
            return True
    return False


def _single(problem: Problem, ranking: Ranking) -> Found | Impossible:
    """Place a guest of one cell: the best host cell that has all it needs."""
    for host in ranking.order(0, problem.rows[0]):
        if _local(problem, frozenset((problem.ground.cells[host].id,))):
            answer = _afforded(problem, ranking, [host])
            if answer is not None:
                return answer
    return Impossible()


def _local(problem: Problem, cells: frozenset[int]) -> bool:
    """Say whether some host cells have the guest's networks and devices near them."""
    if not all(not there or there & cells for _, there in problem.ground.networks):
        return False
    return problem.offer is None or problem.offer.possible(cells)


def _ids(problem: Problem, hosts: Sequence[int]) -> frozenset[int]:
    return frozenset(problem.ground.cells[host].id for host in hosts)


def _afforded(problem: Problem, ranking: Ranking, hosts: Sequence[int]) -> Found | None:
    """Return the placement on some host cells if the whole node has what it takes, None if not."""
    ground = problem.ground
    options = [problem.options[guest][host] or Option() for guest, host in enumerate(hosts)]
    if ground.leaving_max is not None and sum(option.leaving for option in options) > ground.leaving_max:
        return None
    offers = _offers(problem, options)
    if offers is None:
        return None
    devices: Chosen | None = ()
    if problem.offer is not None:
        there = _ids(problem, hosts)
        devices = problem.offer.choose(there) if ranking.ranked else () if problem.offer.possible(there) else None
    if devices is None:
        return None
    placed = tuple(
        Placed(need, ground.cells[host], ranking.choices[guest][host], offer)
        for guest, (need, host, offer) in enumerate(zip(problem.guest.cells, hosts, offers, strict=True))
    )
    return Found(placed, devices)


def _offers(problem: Problem, options: Sequence[Option]) -> list[PageOffer | None] | None:
    """Return what each guest cell's memory is made of so that the node's ordinary memory suffices, None if it cannot."""
    offers = [option.offer for option in options]
    most = problem.ground.ordinary_max
    if most is None:
        return offers
    sizes = [ordinary_bytes(need.memory_bytes, option.offer) for need, option in zip(problem.guest.cells, options, strict=True)]
    total = sum(sizes)
    for index in sorted(range(len(sizes)), key=lambda index: (-sizes[index], index)):
        if total <= most:
            break
        if options[index].spare is not None:
            offers[index] = options[index].spare
            total -= sizes[index]
    return offers if total <= most else None


def _with_anchor(problem: Problem, ranking: Ranking, forced: int) -> Found | Impossible | None:
    """Return the best placement that uses some host cells, that there is none, or None: not known."""
    best = ranking.best(problem.rows, forced)
    if best is None:
        return Impossible()
    answer = _afforded(problem, ranking, best)
    if answer is not None:
        return answer
    ground = problem.ground
    leaving = _frugal(problem, forced, _leaving, _ordinary)
    if ground.leaving_max is not None and _total(problem, leaving, _leaving) > ground.leaving_max:
        return Impossible()
    ordinary = _frugal(problem, forced, _ordinary, _leaving)
    if ground.ordinary_max is not None and _total(problem, ordinary, _ordinary) > ground.ordinary_max:
        return Impossible()
    for hosts in (leaving, ordinary):
        answer = _afforded(problem, ranking, hosts)
        if answer is not None:
            return answer
    return _both(problem, ranking, forced)


def _leaving(_need: GuestNeed, option: Option) -> int:
    return option.leaving


def _ordinary(need: GuestNeed, option: Option) -> int:
    return 0 if option.spare is not None else ordinary_bytes(need.memory_bytes, option.offer)


SCALE = 1 << 80
"""More than any sum of the lesser cost: the greater one decides first."""


def _frugal(problem: Problem, forced: int, first: Costing, second: Costing) -> list[int]:
    """Return the assignment (there is one) that costs the least of one kind, then of another."""
    rows = []
    for need, row in zip(problem.guest.cells, problem.options, strict=True):
        rows.append(
            [
                None if option is None else first(need, option) * SCALE + second(need, option) - (SCALE << 80 if forced >> host & 1 else 0)
                for host, option in enumerate(row)
            ]
        )
    return cheapest(rows) or []


def _total(problem: Problem, hosts: Sequence[int], costing: Costing) -> int:
    return sum(
        costing(need, problem.options[guest][host] or Option())
        for guest, (need, host) in enumerate(zip(problem.guest.cells, hosts, strict=True))
    )


def _both(problem: Problem, ranking: Ranking, forced: int) -> Found | Impossible | None:
    """Try every assignment that uses some host cells, pruned by both sums, up to the bound; None: it was reached."""
    steps = iter(range(STEPS_MAX))
    cpus, memory = problem.ground.leaving_max or 0, problem.ground.ordinary_max or 0
    for hosts in _assignments(problem, [], cpus, memory, steps):
        if not forced & ~mask_of(hosts):
            answer = _afforded(problem, ranking, hosts)
            if answer is not None:
                return answer
    return None if next(steps, None) is None else Impossible()


def _assignments(problem: Problem, hosts: list[int], cpus: int, memory: int, steps: Steps) -> Iterator[list[int]]:
    """Yield the assignments of the guest cells from the next one on that keep within both sums."""
    guest = len(hosts)
    if guest == len(problem.rows):
        yield hosts
        return
    need = problem.guest.cells[guest]
    for host in iterate(problem.rows[guest] & ~mask_of(hosts)):
        option = problem.options[guest][host] or Option()
        rest, left = cpus - option.leaving, memory - _ordinary(need, option)
        if rest < 0 or left < 0:
            continue
        if next(steps, None) is None:
            return
        yield from _assignments(problem, [*hosts, host], rest, left, steps)


def _anchors(problem: Problem, steps: Steps, *, any_will_do: bool) -> Iterator[int]:
    """Yield sets of host cells (masks of indices) that have the guest's devices and networks near them and can all be used at once.

    Every placement's cells contain one of them. Cells that are alike in all that matters are tried once. Where `any_will_do`, the richest
    cells come first by which a bound was sought.
    """
    if _local(problem, frozenset()):
        yield 0
        return
    ground = problem.ground
    there = (problem.offer.useful if problem.offer else frozenset()) | {cell for _, cells in ground.networks for cell in cells}
    usable = 0
    for row in problem.rows:
        usable |= row
    hosts = [host for host in iterate(usable) if ground.cells[host].id in there]
    prices = _prices(problem)
    if prices is not None:
        index = {ground.cells[host].id: host for host in hosts}
        richest: list[int] = []

        def suffices(cells: Sequence[int]) -> bool:
            mask = mask_of(index[cell] for cell in cells)
            if any_will_do and independent(problem.rows, mask) and _local(problem, frozenset(cells)):
                richest.append(mask)
            return bool(richest)

        if prices.refuted((), list(index), len(problem.rows), steps=FIRST_STEPS, suffices=suffices):
            return
        yield from richest
    hosts.sort(key=lambda host: (problem.nearby.misses(ground.cells[host].id), host))
    kinds = {host: _kind(problem, host) for host in hosts}
    yield from _more_anchors(problem, prices, 0, hosts, kinds, steps)


def _prices(problem: Problem) -> Prices | None:
    """Return what bounds the devices that some cells can have, None where none are asked for."""
    if problem.offer is None:
        return None
    from earmark.core.fit.search.prices import Prices  # noqa: PLC0415 - for those who ask for devices

    rows = Counter(problem.rows)
    columns = {
        cell.id: sum(1 << kind for kind, row in enumerate(rows) if row >> index & 1) for index, cell in enumerate(problem.ground.cells)
    }
    return Prices(problem.offer, columns, tuple(rows.values()))


def _more_anchors(
    problem: Problem, prices: Prices | None, chosen: int, left: Sequence[int], kinds: Mapping[int, Hashable], steps: Steps
) -> Iterator[int]:
    """Yield sets that contain some host cells and have more of those that are left: one after the other with it, then without all of its kind."""
    cells = problem.ground.cells
    there, rest = [cells[host].id for host in iterate(chosen)], [cells[host].id for host in left]
    ids = frozenset(there)
    if _local(problem, ids):
        yield chosen
        return
    room = len(problem.rows) - chosen.bit_count()
    if not room or not _local(problem, ids | frozenset(rest)):
        return
    if prices is not None:
        worths = prices.worths(there, rest)
        helpful = frozenset(prices.helpful(there, rest, room))
        left = [host for host in left if cells[host].id in helpful]
        left = sorted(left, key=lambda host: -worths[cells[host].id])
    while left:
        host, *others = left
        if independent(problem.rows, chosen | 1 << host):
            rest = [cells[other].id for other in left]
            if next(steps, None) is None or (prices is not None and prices.refuted(there, rest, room)):
                return
            yield from _more_anchors(problem, prices, chosen | 1 << host, others, kinds, steps)
            others = [other for other in others if kinds[other] != kinds[host]]
        left = others


def _kind(problem: Problem, host: int) -> tuple[object, ...]:
    """Return what matters of a host cell to the search: two cells of one kind can stand for each other."""
    cell = problem.ground.cells[host]
    served = tuple(None if option is None else (option.leaving, option.spare is None) for option in (row[host] for row in problem.options))
    networks = tuple(cell.id in cells for _, cells in problem.ground.networks)
    return (problem.offer and problem.offer.kind_of(cell.id), networks, served)
