"""Is a certificate true? A second opinion on each no, by other means than those that found it.

Rules of this file: nothing of the search, its pairs, places, matching or devices is used; everything is read anew from guest, ground and requests,
with plain sets. A shortfall and a Hall set are checked pair by pair. For requirements that cannot be met together a small search of its
own goes host cell by host cell (by sets of them where the node has no limits, `certify_cells`); it is exact, and where STEPS_MAX or HOSTS_MAX do
not suffice it says NOT_CHECKED, never that all is well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from earmark.core.fit.ground import Ground, HostCell
from earmark.core.fit.guest import Guest, GuestNeed, Kind
from earmark.core.fit.proof.certify_cells import Able, CellSets, Need
from earmark.core.fit.proof.certify_devices import DeviceCheck, TooLarge
from earmark.core.model.cpuset import cpus_of
from earmark.core.model.refusal import Certificate
from earmark.core.model.request import DeviceRequest, ThreadPolicy

NOT_CHECKED = "not checked: too large"
"""How an answer begins that neither confirms nor refutes a certificate."""
STEPS_MAX = 20_000
"""So many partial placements are looked into for one question."""
HOSTS_MAX = 256
"""On nodes of more cells requirements are not checked together."""


class Cost(NamedTuple):
    """What a guest cell takes at least on a host cell: CPUs that leave the shared set, bytes of ordinary memory."""

    leaving: int = 0
    ordinary: int = 0


def check(certificate: Certificate, guest: Guest | None, ground: Ground, requests: Sequence[DeviceRequest] = ()) -> list[str]:
    """Return, in words, what is wrong with a certificate; nothing if it holds. One text that begins with NOT_CHECKED: it is not known.

    A shortfall of the node itself (no guest cells are named) has nothing to check here: its reasons are checked by `recheck.py`.
    """
    match certificate.kind:
        case "shortfall":
            return list(_shortfall(certificate, guest, ground))
        case "hall":
            return list(_hall(certificate, guest, ground))
        case "together":
            try:
                return list(_together(certificate, guest, ground, requests))
            except TooLarge as bound:
                return [f"{NOT_CHECKED} ({bound})"]


def _shortfall(certificate: Certificate, guest: Guest | None, ground: Ground) -> Iterator[str]:
    yield from _misnamed(certificate, guest, ground)
    for need in _named(certificate, guest):
        for cell in ground.cells:
            if guest is not None and lies(need, cell, guest, ground) is not None:
                yield f"guest cell {need.number} fits on cell {cell.id}"


def _hall(certificate: Certificate, guest: Guest | None, ground: Ground) -> Iterator[str]:
    yield from _misnamed(certificate, guest, ground)
    if len(certificate.host_cells) >= len(certificate.guest_cells):
        yield f"{len(certificate.host_cells)} host cells are not fewer than {len(certificate.guest_cells)} guest cells"
    outside = [cell for cell in ground.cells if cell.id not in certificate.host_cells]
    for need in _named(certificate, guest):
        for cell in outside:
            if guest is not None and lies(need, cell, guest, ground) is not None:
                yield f"guest cell {need.number} fits on cell {cell.id} too"


def _misnamed(certificate: Certificate, guest: Guest | None, ground: Ground) -> Iterator[str]:
    """Yield what a certificate names twice, or names although it is not there."""
    numbers = {need.number for need in guest.cells} if guest is not None else set[int]()
    ids = {cell.id for cell in ground.cells}
    for what, named, there in (("guest", certificate.guest_cells, numbers), ("host", certificate.host_cells, ids)):
        if len(set(named)) != len(named):
            yield f"a {what} cell is named twice"
        for number in sorted(set(named) - there):
            yield f"there is no {what} cell {number}"


def _named(certificate: Certificate, guest: Guest | None) -> list[GuestNeed]:
    return [need for need in guest.cells if need.number in certificate.guest_cells] if guest is not None else []


def _together(certificate: Certificate, guest: Guest | None, ground: Ground, requests: Sequence[DeviceRequest]) -> Iterator[str]:
    """Yield what is wrong with a set of requirements: it can be met, or it cannot although one of them is left out."""
    named = certificate.requirements
    known = _requirements(guest, ground, requests)
    unknown = sorted(set(named) - known)
    if unknown or len(set(named)) != len(named):
        yield from (f"there is no requirement {name}" for name in unknown)
        if len(set(named)) != len(named):
            yield "a requirement is named twice"
        return
    question = limited(guest, ground, requests, named)
    devices = DeviceCheck(question[-1], ground.stock)
    if possible(*question, devices):
        yield "the requirements can all be met at once"
    kinds = {f"cell:{need.number}": need.kind for need in guest.cells} if guest is not None else {}
    alike = {kinds.get(name, name): name for name in reversed(named)}  # without one guest cell or an equal one: the same question
    for name in alike.values():
        less = limited(guest, ground, requests, [other for other in named if other != name])
        if not possible(*less, devices if less[-1] == question[-1] else None):
            yield f"without {name} the others cannot be met either"


def _requirements(guest: Guest | None, ground: Ground, requests: Sequence[DeviceRequest]) -> set[str]:
    names = {f"device:{number}" for number in range(len(requests))}
    if guest is not None:
        names |= {f"cell:{need.number}" for need in guest.cells} | {f"network:{name}" for name, _ in ground.networks}
        names |= {name for name, most in (("cpus", ground.leaving_max), ("memory", ground.ordinary_max)) if most is not None}
    return names


def limited(
    guest: Guest | None, ground: Ground, requests: Sequence[DeviceRequest], names: Sequence[str]
) -> tuple[Guest | None, Ground, tuple[DeviceRequest, ...]]:
    """Return the question with only some requirements; a guest cell that is left out lies somewhere and needs nothing."""
    if guest is not None:
        guest = replace(guest, cells=tuple(replace(need, waived=need.waived or f"cell:{need.number}" not in names) for need in guest.cells))
    ground = replace(
        ground,
        networks=tuple((name, cells) for name, cells in ground.networks if f"network:{name}" in names),
        leaving_max=ground.leaving_max if "cpus" in names else None,
        ordinary_max=ground.ordinary_max if "memory" in names else None,
    )
    return guest, ground, tuple(request for number, request in enumerate(requests) if f"device:{number}" in names)


# --- one guest cell on one host cell ------------------------------------------------------------------------------------------------


def lies(need: GuestNeed, cell: HostCell, guest: Guest, ground: Ground) -> Cost | None:
    """Return what a guest cell takes at least on a host cell, None if it cannot lie there."""
    if need.waived:
        return Cost()
    leaving = _leaving(len(need.dedicated), need.emulator, cell, guest.threads)
    if leaving is None or not _shares(len(need.shared), leaving, cell, guest, ground):
        return None
    if not need.memory_bytes and not ground.strict:
        return Cost(leaving)
    if cell.memory_limit is not None and guest.policy != "dedicated" and need.memory_bytes > cell.memory_limit:
        return None
    ordinary = [bytes_taken if counted else 0 for bytes_taken, counted in _memories(need.memory_bytes, cell)]
    return Cost(leaving, min(ordinary)) if ordinary else None


def _memories(wanted: int, cell: HostCell) -> Iterator[tuple[int, bool]]:
    """Yield the bytes that each offer which suffices would take, and whether they are ordinary memory."""
    for offer in cell.offers:
        page = offer.size_kib * 1024
        count, rest = divmod(wanted, page)
        if rest and offer.whole:
            continue
        count += 1 if rest else 0
        if count <= offer.free:
            yield count * page, offer.ordinary


def _cpus(mask: int) -> frozenset[int]:
    return frozenset(cpus_of(mask))


def _leaving(pins: int, emulator: int, cell: HostCell, threads: ThreadPolicy | None) -> int | None:
    """Return how many CPUs at least leave the free ones of a cell, None if it has not enough that suit."""
    count = pins + emulator
    free, busy = _cpus(cell.free), _cpus(cell.busy)
    if count > len(free):
        return None
    cores = [_cpus(core) for core in cell.cores]
    cores += [frozenset((cpu,)) for cpu in free if not any(cpu in core for core in cores)]
    if threads == "isolate":
        idle = [core & free for core in cores if any((core - {cpu}).isdisjoint(busy) for cpu in core & free)]
        return sum(sorted(len(threads_of) for threads_of in idle)[:count]) if count <= len(idle) else None
    if threads in ("require", "require-strict"):
        sizes = [len(core & free) for core in cores if len(core & free) > 1]
        if not _in_pairs(pins, sizes, lone=threads == "require"):
            return None
    return count


def _in_pairs(pins: int, sizes: Sequence[int], *, lone: bool) -> bool:
    """Say whether some vCPUs can lie on cores of these sizes so that none, or with `lone` at most one, is alone on its core."""
    reached = {(0, 0)}
    for size in sizes:
        reached |= {
            (placed + here, alone + (here == 1)) for placed, alone in reached for here in range(1, size + 1) if placed + here <= pins
        }
        reached = {(placed, alone) for placed, alone in reached if alone <= (1 if lone else 0)}
    return any(placed == pins for placed, _ in reached)


def _shares(count: int, leaving: int, cell: HostCell, guest: Guest, ground: Ground) -> bool:
    """Say whether a cell carries some more shared vCPUs after some CPUs have left its shared set."""
    cpus = cell.shared_cpus - (leaving if ground.shrinks else 0)
    if count and count > cpus:
        return False
    shrunk = ground.shrinks and leaving > 0 and cell.shared_used > 0
    looked_at = count > 0 or shrunk or (ground.strict and guest.policy != "dedicated")
    return cell.cpu_ratio is None or not looked_at or (cell.shared_used + count) * 1000 <= cpus * cell.cpu_ratio


# --- all of them at once ------------------------------------------------------------------------------------------------------------


def possible(guest: Guest | None, ground: Ground, requests: Sequence[DeviceRequest] = (), devices: DeviceCheck | None = None) -> bool:
    """Say whether a guest with its devices has any placement. Raises TooLarge where that is not found out within the bounds.

    `devices` is the check of these requests of another question to the same stock: what it found out of sets of cells is known here, too.
    """
    devices = devices or DeviceCheck(requests, ground.stock)
    if guest is None:
        return devices.enough(None)
    if len(ground.cells) > HOSTS_MAX:
        raise TooLarge(f"{len(ground.cells)} cells of more than {HOSTS_MAX}")
    return _Placing(guest, ground, devices).found()


class _Left(NamedTuple):
    """A partial placement: how many guest cells of each kind are left, the cells used that matter, and what was taken."""

    counts: tuple[int, ...]
    used: frozenset[int]
    leaving: int
    ordinary: int


class _Notes(NamedTuple):
    """What one search remembers: what led nowhere, which counts have host cells; and the steps it has left."""

    failed: dict[object, list[Cost]]
    servable: dict[tuple[int, tuple[int, ...]], bool]
    steps: Iterator[int]


class _Placing:
    """One search for any placement: host cell after host cell, each given to one of the kinds of guest cells or left empty.

    Guest cells of one kind are not told apart; what led nowhere is noted by all that matters of it.
    """

    def __init__(self, guest: Guest, ground: Ground, devices: DeviceCheck) -> None:
        self.ground, self.devices = ground, devices
        kinds: dict[Kind | None, GuestNeed] = {None if need.waived else need.kind: need for need in guest.cells}
        sizes = Counter(None if need.waived else need.kind for need in guest.cells)
        self.counts = tuple(sizes[kind] for kind in kinds)
        near = {cell for _, cells in ground.networks for cell in cells} | devices.relevant
        self.hosts = sorted(ground.cells, key=lambda cell: (cell.id not in near, cell.id))
        self.matters = near
        self.costs: list[list[Cost | None]] = [[lies(need, cell, guest, ground) for need in kinds.values()] for cell in self.hosts]
        self.rest = [frozenset(cell.id for cell in self.hosts[index:] if cell.id in near) for index in range(len(self.hosts) + 1)]

    def found(self) -> bool:
        """Say whether there is a placement: the cheapest ones first, which prove a no where they take too much and a yes where they suffice."""
        notes = _Notes({}, {}, iter(range(STEPS_MAX)))
        for pick in (_leaving_of, _ordinary_of):
            taken = cheapest([[None if pair is None else pick(pair) for pair in row] for row in self.costs], self.counts)
            if taken is None:
                return False
            pairs = [pair for host, kind in taken.items() if (pair := self.costs[host][kind]) is not None]
            leaving, ordinary = sum(pair.leaving for pair in pairs), sum(pair.ordinary for pair in pairs)
            if not self._within(leaving if pick is _leaving_of else 0, ordinary if pick is _ordinary_of else 0):
                return False
            used = frozenset(self.hosts[host].id for host in taken) & self.matters
            if self._within(leaving, ordinary) and self._near(used):
                return True
        if self.ground.leaving_max is None and self.ground.ordinary_max is None:
            return self._by_sets(notes)
        return self._from(0, _Left(self.counts, frozenset(), 0, 0), notes)

    def _by_sets(self, notes: _Notes) -> bool:
        """Say whether there is a placement where the node has no limits: some set of host cells that has all that must be near."""
        sockets = self.devices.sockets
        able = [
            Able(host.id, sockets.get(host.id), frozenset(kind for kind, pair in enumerate(row) if pair is not None), self._form(host.id))
            for host, row in zip(self.hosts, self.costs, strict=True)
            if host.id in self.matters
        ]
        networks = [Need(1, 0, dict.fromkeys(cells, 1), {}) for _, cells in self.ground.networks if cells]
        sets = CellSets(able, self.counts, networks, self.devices, len(self.devices.requests))
        found = sets.found(lambda used: self._near(used, sets.weights), notes.steps)
        if found is None:
            raise TooLarge(f"more than {STEPS_MAX} sets of cells")
        return found

    def _form(self, cell: int) -> object:
        return tuple(cell in cells for _, cells in self.ground.networks), self.devices.form(frozenset((cell,)))

    def _from(self, index: int, left: _Left, notes: _Notes) -> bool:
        """Say whether the guest cells that are left can lie on the host cells from `index` on."""
        if not any(left.counts):
            return self._within(left.leaving, left.ordinary) and self._near(left.used)
        if not self._hopeful(index, left, notes):
            return False
        key = (index, left.counts, self._key(left.used))
        cost = Cost(left.leaving, left.ordinary)
        if any(known.leaving <= cost.leaving and known.ordinary <= cost.ordinary for known in notes.failed.get(key, ())):
            return False
        if next(notes.steps, None) is None:
            raise TooLarge(f"more than {STEPS_MAX} partial placements")
        host = self.hosts[index]
        used = left.used | {host.id} if host.id in self.matters else left.used
        for kind, pair in enumerate(self.costs[index]):
            if pair is not None and left.counts[kind]:
                counts = (*left.counts[:kind], left.counts[kind] - 1, *left.counts[kind + 1 :])
                if self._from(index + 1, _Left(counts, used, left.leaving + pair.leaving, left.ordinary + pair.ordinary), notes):
                    return True
        if self._from(index + 1, left, notes):
            return True
        notes.failed.setdefault(key, []).append(cost)
        return False

    def _near(self, used: frozenset[int], weights: Sequence[Sequence[int]] = ()) -> bool:
        """Say whether some cells have the networks and the devices."""
        if any(cells and cells.isdisjoint(used) for _, cells in self.ground.networks):
            return False
        return self.devices.suffices(used, weights)

    def _key(self, used: frozenset[int]) -> object:
        """Return all that matters of the cells used: nothing, once networks and devices are there."""
        if self._near(used):
            return None
        return tuple(bool(cells & used) for _, cells in self.ground.networks), self.devices.form(used)

    def _hopeful(self, index: int, left: _Left, notes: _Notes) -> bool:
        """Say whether nothing yet forbids that the rest can be placed: each limit taken alone."""
        if not self._matched(index, left.counts, notes) or not self._near(left.used | self.rest[index]):
            return False
        leaving, ordinary = left.leaving, left.ordinary
        if self.ground.leaving_max is None and self.ground.ordinary_max is None:
            return True
        for kind, count in enumerate(left.counts):
            if count:
                costs = [pair for row in self.costs[index:] if (pair := row[kind]) is not None]
                leaving += sum(sorted(pair.leaving for pair in costs)[:count])
                ordinary += sum(sorted(pair.ordinary for pair in costs)[:count])
        return self._within(leaving, ordinary)

    def _within(self, leaving: int, ordinary: int) -> bool:
        """Say whether the whole node has so much."""
        cpus, memory = self.ground.leaving_max, self.ground.ordinary_max
        return (cpus is None or leaving <= cpus) and (memory is None or ordinary <= memory)

    def _matched(self, index: int, counts: tuple[int, ...], notes: _Notes) -> bool:
        """Say whether so many guest cells of each kind have host cells of their own from `index` on: one augmenting path for each."""
        known = notes.servable.get((index, counts))
        if known is not None:
            return known
        guests = [kind for kind, count in enumerate(counts) for _ in range(count)]
        taken: dict[int, int] = {}
        answer = all(self._augmented(number, guests, index, taken, set()) for number in range(len(guests)))
        return notes.servable.setdefault((index, counts), answer)

    def _augmented(self, number: int, guests: Sequence[int], first: int, taken: dict[int, int], seen: set[int]) -> bool:
        for host in range(first, len(self.hosts)):
            if host not in seen and self.costs[host][guests[number]] is not None:
                seen.add(host)
                if host not in taken or self._augmented(taken[host], guests, first, taken, seen):
                    taken[host] = number
                    return True
        return False


def _leaving_of(cost: Cost) -> int:
    return cost.leaving


def _ordinary_of(cost: Cost) -> int:
    return cost.ordinary


def cheapest(costs: Sequence[Sequence[int | None]], counts: Sequence[int]) -> dict[int, int] | None:
    """Return which kind of guest cell takes which host cell (by index) so that the sum is the least; None if they cannot all be placed.

    One guest cell after the other is added on the cheapest way, on which kinds may pass host cells on to each other.
    """
    owner: dict[int, int] = {}
    for kind, count in enumerate(counts):
        for _ in range(count):
            price = {kind: 0}
            way: dict[int, tuple[int, int]] = {}
            shorter = True
            while shorter:
                shorter = False
                for host, loser in owner.items():
                    for one in [one for one in price if one != loser]:
                        paid, saved = costs[host][one], costs[host][loser]
                        if paid is None or saved is None:
                            continue
                        if loser not in price or price[one] + paid - saved < price[loser]:
                            price[loser], way[loser] = price[one] + paid - saved, (one, host)
                            shorter = True
            ends = [
                (price[one] + paid, host, one)
                for host, row in enumerate(costs)
                if host not in owner
                for one in price
                if (paid := row[one]) is not None
            ]
            if not ends:
                return None
            _, host, one = min(ends)
            owner[host] = one
            while one in way:
                one, host = way[one]
                owner[host] = one
    return owner


__all__ = ["NOT_CHECKED", "Cost", "TooLarge", "check", "lies", "limited", "possible"]
