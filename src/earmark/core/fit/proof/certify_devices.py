"""Are there devices for all requests of a guest on these cells? The part of a certificate's check that is about devices.

Rules of this file: nothing of the choice of devices is used. Device after device, every way to give it is tried; what is remembered is only
how many devices each request still lacks, and the slots taken that a later device could want. Exact, and bounded by WAYS_MAX: beyond it TooLarge is
raised. Sources: Nova 34, pci/stats.py, pci/utils.py (P9 to P15).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from operator import mul

from earmark.core.fit.ground import DeviceStock
from earmark.core.fit.proof.certify_cells import KEPT, ROUNDS, SCALE, Need, dearer
from earmark.core.model.exclusion import PCI_ADDRESS
from earmark.core.model.ids import Slot
from earmark.core.model.request import DeviceRequest
from earmark.core.model.topology import Device

WAYS_MAX = 20_000
"""So many ways to serve a part of the requests are remembered at once, and so many sets of linked devices are tried."""
FEW_WAYS = 40
"""So many are followed at first."""
ALL = 1000
"""The thousandths of a whole device."""

Lacking = tuple[int, ...]
"""How many devices each request still lacks."""
Asking = tuple[int, ...]
"""The requests that may have a device."""
Look = tuple[tuple[Asking, ...], tuple[tuple[Asking, int], ...]]
"""Who may have the one device of a group that excludes each of the others (nothing where there is none), and so many others."""


class TooLarge(Exception):
    """A question is larger than the bounds of the check: neither a yes nor a no."""


def answers(request: DeviceRequest, device: Device, stock: DeviceStock) -> bool:
    """Say whether a device is of the kind that a request asks for, wherever it is (P9, P10)."""
    if request.kind.startswith("class:"):
        kind = f"class:{device.resource_class}" == request.kind
    elif request.kind == "pci":
        kind = device.dev_type is not None or PCI_ADDRESS.fullmatch(device.address or "") is not None
    else:
        kind = device.kind == request.kind
    named = not request.within or device.unit in request.within or device.parent in request.within
    traits = set(request.required_traits) <= set(device.traits) and not set(request.forbidden_traits) & set(device.traits)
    shares = request.share is None or device.shares
    room = request.memory_bytes is None or (device.memory_bytes or 0) * (request.share or ALL) >= request.memory_bytes * ALL
    if not (kind and named and traits and shares and room):
        return False
    facts = _facts(device, stock)
    if request.match and not any(all(facts.get(key) == want.lower() for key, want in each.items()) for each in request.match):
        return False
    if request.kind != "pci":
        return True
    by_type = device.pci_type not in ("PF", "VDPA") or any(each.get("dev_type", "").upper() == device.pci_type for each in request.match)
    remote = facts.get("remote_managed") in ("1", "true", "yes", "on")
    return by_type and (not remote or any("remote_managed" in each for each in request.match))


def _facts(device: Device, stock: DeviceStock) -> dict[str, str]:
    """Return all that an alternative can name of a device, in lower case."""
    anchor = device.address
    if device.parent is not None:
        above = (other.address for other in stock.devices if other.unit == device.parent)
        anchor = stock.addresses.get(device.parent) or next(above, None) or device.parent.removeprefix("pci:")
    facts = {"live_migratable": "true"} if device.live_migratable else {}
    facts |= {"profile": device.profile.lower()} if device.profile is not None else {}
    facts |= {key: value.lower() for key, value in device.tags}
    own = {"dev_type": device.pci_type, "vendor_id": device.vendor_id, "product_id": device.product_id, "address": anchor}
    for key in own:
        facts.pop(key, None)
    return facts | {key: value.lower() for key, value in own.items() if value is not None}


def policy(request: DeviceRequest) -> str:
    """Return how near a request's devices must be where it says nothing: legacy for PCI devices, preferred for others."""
    return request.affinity or ("legacy" if request.kind == "pci" else "preferred")


class DeviceCheck:
    """The requests of one guest and the devices that answer any of them.

    `relevant` are the cells that matter to whether there are enough, `known` what was found out of sets of cells, by their form.
    """

    def __init__(self, requests: Sequence[DeviceRequest], stock: DeviceStock) -> None:
        self.requests = tuple(requests)
        self.stock = stock
        known = stock.sockets if None not in stock.sockets.values() else {}
        sizes = Counter(known.values())
        self.sockets = {cell: socket for cell, socket in known.items() if sizes[socket] > 1}  # alone on a socket: near or not at all
        self.by_socket = bool(self.sockets) and any(policy(request) == "socket" for request in requests)
        self.suited: dict[int, tuple[int, ...]] = {}
        for number, device in enumerate(stock.devices):
            suited = tuple(index for index, request in enumerate(requests) if answers(request, device, stock))
            if suited:
                self.suited[number] = suited
        self.slots = {number: frozenset(stock.slots.get(unit := stock.devices[number].unit) or (Slot(unit),)) for number in self.suited}
        self.sharing = frozenset(index for index, request in enumerate(requests) if request.share is not None)
        self.linked = [index for index, request in enumerate(requests) if request.linked and request.count > 1]
        self.parts = self._parts()
        self.stars = frozenset(part[0] for part in self.parts if self._is_star(part))
        self.groups = list(self._groups())
        self.reach = {
            place: {number: [index for index in suited if self._reaches(number, index, place)] for number, suited in self.suited.items()}
            for place in ("far", "socket", "near")
        }
        self.looks = [(cell, {place: self._look(group, reach) for place, reach in self.reach.items()}) for group, cell in self.groups]
        self.forms = self._forms()
        self.relevant = frozenset(self.forms)
        self.known: dict[object, bool] = {}

    def enough(self, cells: frozenset[int] | None, weights: Sequence[Sequence[int]] = ()) -> bool:
        """Say whether there are devices for all requests of a guest on exactly these cells (None: a guest without cells).

        What lacks more than all that is left could give, counted by any of some weights of the requests, is not followed.
        """
        allowed = {number: tuple(index for index in suited if self._near(number, index, cells)) for number, suited in self.suited.items()}
        if not self.linked and self._served(allowed, {}, weights, FEW_WAYS):
            return True
        own = [] if cells is None else self._weighed(cells)
        return own is not None and any(
            self._served(allowed, spent, [*weights, *own], None) for spent in self._links(allowed, {}, self.linked)
        )

    def _weighed(self, cells: frozenset[int]) -> list[list[int]] | None:
        """Return weights of the requests that come near to showing that some cells have too little, None if some do."""
        weights = [SCALE] * len(self.requests)
        found: list[tuple[int, list[int]]] = []
        for _ in range(ROUNDS):
            lacks = self.lacking(weights, cells)
            over = -sum(map(mul, lacks, weights))
            if over < 0:
                return None
            found.append((over, weights))
            if not any(lacks):
                break
            weights = dearer(weights, lacks, over)
        return [weights for _, weights in sorted(found)[:KEPT]]

    def suffices(self, cells: frozenset[int], weights: Sequence[Sequence[int]] = ()) -> bool:
        """Say `enough` of some cells, and remember it for all of equal form."""
        form = self.form(cells)
        known = self.known.get(form)
        return self.known.setdefault(form, self.enough(cells, weights)) if known is None else known

    def form(self, cells: frozenset[int]) -> object:
        """Return all that matters of some cells: those of equal form have enough devices or not alike."""
        most = sum(request.count for request in self.requests)
        counts = Counter(form for cell in cells for form in self.forms.get(cell, ()))
        return frozenset((form, min(count, most)) for form, count in counts.items())

    def need(self, weights: Sequence[int]) -> Need:
        """Return what all requests ask for, each device counted by a weight of its request, and the most that could be theirs (links left out)."""
        worth = {look: self._value(look, weights) for look in {look for _, looks in self.looks for look in looks.values()}}
        anywhere, cells, sockets = 0, Counter[int](), Counter[int]()
        for cell, looks in self.looks:
            far, socket, near = (worth[looks[place]] for place in ("far", "socket", "near"))
            known = cell is not None and cell in self.sockets
            anywhere += far
            if cell is not None:
                cells[cell] += near - (socket if known else far)
                if known and (number := self.sockets[cell]) is not None:
                    sockets[number] += socket - far
        return Need(sum(request.count * weight for request, weight in zip(self.requests, weights, strict=True)), anywhere, cells, sockets)

    def lacking(self, weights: Sequence[int], used: frozenset[int]) -> Lacking:
        """Return what each request lacks (less than nothing: it has too many) if devices go where they weigh most."""
        near = {self.sockets[cell] for cell in used if cell in self.sockets}
        seen = Counter[Look]()
        for cell, looks in self.looks:
            by = cell is not None and cell in self.sockets and self.sockets[cell] in near
            seen[looks["near" if cell in used else "socket" if by else "far"]] += 1
        lacking = [request.count for request in self.requests]
        for look, times in seen.items():
            for index, count in self._sold(look, weights):
                lacking[index] -= count * times
        return tuple(lacking)

    def _look(self, group: Sequence[int], allowed: Mapping[int, Sequence[int]]) -> Look:
        """Return all that matters of a group where some requests may have its devices."""
        asking = [tuple(allowed[number]) for number in group]
        if len(group) > 1 and group[0] in self.stars:
            return (asking[0],), tuple(Counter(asking[1:]).items())
        return (), tuple(Counter(asking).items())

    def _sold(self, look: Look, weights: Sequence[int]) -> list[tuple[int, int]]:
        """Return how many devices of a group requests get where they weigh most: the first, or the others that it excludes."""
        first, others = look
        sold = [(index, count) for asking, count in others for index in self._buyers(asking, weights)]
        if not first:
            return sold
        instead = [(index, 1) for index in self._buyers(first[0], weights)]
        return max(instead, sold, key=lambda way: sum(weights[index] * count for index, count in way))

    def _value(self, look: Look, weights: Sequence[int]) -> int:
        """Return the most that the devices of a group weigh: the first, or the others that it excludes."""
        first, others = look
        worth = sum(count * sum(weights[index] for index in self._buyers(asking, weights)) for asking, count in others)
        return max(worth, sum(weights[index] for index in self._buyers(first[0], weights))) if first else worth

    def _buyers(self, asking: Sequence[int], weights: Sequence[int]) -> Sequence[int]:
        """Return to whom a device goes that some requests ask for: to the one that weighs most, or to all that ask for shares."""
        one = max(asking, key=weights.__getitem__, default=None)
        sharing = [index for index in asking if index in self.sharing]
        if one is None or (len(sharing) > 1 and sum(weights[index] for index in sharing) > weights[one]):
            return sharing
        return (one,)

    def _is_star(self, group: Sequence[int]) -> bool:
        """Say whether the first device of a group excludes each of the others."""
        first = self.slots[group[0]]
        return all(not first.isdisjoint(self.slots[other]) for other in group[1:])

    def _reaches(self, number: int, index: int, place: str) -> bool:
        wanted = policy(self.requests[index])
        if wanted == "preferred" or (wanted == "legacy" and self.stock.devices[number].cell is None):
            return True
        return place == "near" or (place == "socket" and wanted == "socket")

    def _near(self, number: int, index: int, cells: frozenset[int] | None) -> bool:
        """Say whether a device is near enough for a request of a guest on some cells (P11 to P15)."""
        cell = self.stock.devices[number].cell
        wanted = policy(self.requests[index])
        if cells is None or wanted == "preferred" or cell in cells:
            return True
        if wanted == "legacy":
            return cell is None
        if wanted == "socket" and cell is not None and cell in self.sockets:
            return self.sockets[cell] in {self.sockets[other] for other in cells if other in self.sockets}
        return False

    def _parts(self) -> list[list[int]]:
        """Return the devices in parts that exclude nothing of each other; in a part those that exclude most come first."""
        users: dict[Slot, list[int]] = {}
        for number, slots in self.slots.items():
            for slot in slots:
                users.setdefault(slot, []).append(number)
        seen: set[int] = set()
        parts = []
        for number in self.slots:
            edge = [] if number in seen else [number]
            part: list[int] = []
            seen.add(number)
            while edge:
                one = edge.pop()
                part.append(one)
                fresh = {other for slot in self.slots[one] for other in users[slot]} - seen
                seen |= fresh
                edge += sorted(fresh)
            if part:
                parts.append(sorted(part, key=lambda one: (-len(self.slots[one]), one)))
        return parts

    def _groups(self) -> Iterator[tuple[Sequence[int], int | None]]:
        """Yield the parts with the cell on which all of their devices lie; devices of other parts one by one."""
        for part in self.parts:
            homes = {self.stock.devices[number].cell for number in part}
            yield from [(part, homes.pop())] if len(homes) == 1 else (([one], self.stock.devices[one].cell) for one in part)

    def _forms(self) -> dict[int, list[object]]:
        """Return, for each cell, what it gives a guest that lies there, each thing in a form that is equal for equal things."""
        forms: dict[int, list[object]] = {}
        local = {index for index, request in enumerate(self.requests) if policy(request) != "preferred"}
        for part in self.parts:
            cells = {cell for number in part if (cell := self.stock.devices[number].cell) is not None}
            if not any(local & set(self.suited[number]) for number in part):
                continue
            for cell in sorted(cells):
                form = self._form(part) if len(cells) == 1 and all(self.stock.devices[n].cell == cell for n in part) else ("cell", cell)
                forms.setdefault(cell, []).append((self.sockets.get(cell) if self.by_socket else None, form))
        if self.by_socket:
            for cell, socket in self.sockets.items():
                forms.setdefault(cell, []).append(("socket", socket))
        return forms

    def _form(self, part: Sequence[int]) -> object:
        first, rest = part[0], part[1:]
        devices = self.stock.devices
        if any(devices[number].shares or (self.linked and devices[number].links) for number in part):
            return ("own", first)
        apart = all(self.slots[one].isdisjoint(self.slots[other]) for one, other in combinations(rest, 2))
        if apart and not any(self.slots[first].isdisjoint(self.slots[other]) for other in rest):
            return (self.suited[first], *sorted(self.suited[number] for number in rest))
        return ("own", first)

    def _links(self, allowed: dict[int, tuple[int, ...]], spent: dict[int, int], requests: Sequence[int]) -> Iterator[dict[int, int]]:
        """Yield each way to serve requests for linked devices: the thousandths taken of devices."""
        if not requests:
            yield spent
            return
        request = self.requests[requests[0]]
        there = [number for number in allowed if requests[0] in allowed[number] and self._open(number, spent, request.share)]
        for tried, chosen in enumerate(self._cliques(there, request.count)):
            if tried > WAYS_MAX:
                raise TooLarge(f"more than {WAYS_MAX} sets of linked devices")
            if request.share is None and any(not self.slots[a].isdisjoint(self.slots[b]) for a, b in combinations(chosen, 2)):
                continue
            more = {number: spent.get(number, 0) + (request.share or ALL) for number in chosen}
            yield from self._links(allowed, spent | more, requests[1:])

    def _cliques(self, there: Sequence[int], count: int) -> Iterator[tuple[int, ...]]:
        """Yield the sets of so many devices of which each is linked to each other one."""
        if not count:
            yield ()
            return
        devices = self.stock.devices
        for place, number in enumerate(there):
            one = devices[number]
            friends = [n for n in there[place + 1 :] if devices[n].unit in one.links or one.unit in devices[n].links]
            for others in self._cliques(friends, count - 1):
                yield (number, *others)

    def _open(self, number: int, spent: dict[int, int], share: int | None) -> bool:
        """Say whether a device, or a share of it, can be taken beside what is."""
        if any(other != number and not self.slots[number].isdisjoint(self.slots[other]) for other in spent):
            return False
        return self._left(number) - spent.get(number, 0) >= (share or ALL)

    def _left(self, number: int) -> int:
        device = self.stock.devices[number]
        return self.stock.shares.get(device.unit, ALL) if device.shares else ALL

    def _served(
        self, allowed: dict[int, tuple[int, ...]], spent: dict[int, int], weights: Sequence[Sequence[int]], few: int | None
    ) -> bool:
        """Say whether the other requests can be served beside what is spent, part after part; of many ways only a few (None: all) are followed."""
        lacking = tuple(0 if index in self.linked else request.count for index, request in enumerate(self.requests))
        ways = {lacking}
        looks = [self._look(part, allowed) for part in self.parts]
        known = {look: [self._value(look, weighing) for weighing in weights] for look in dict.fromkeys(looks)}
        worths = [known[look] for look in looks]
        rests = [sum(worth) for worth in zip(*worths, strict=True)]
        later = Counter(index for asking in allowed.values() for index in asking)
        alike: Counter[object] = Counter()
        for part, worth in zip(self.parts, worths, strict=True):
            for weighing, rest in zip(weights, rests, strict=True):
                ways = {way for way in ways if _sum(way, weighing) <= rest}
            rests = [rest - some for rest, some in zip(rests, worth, strict=True)]
            if not any(allowed[number] for number in part):
                continue
            later.subtract(index for number in part for index in allowed[number])
            if len(part) == 1 and not self.stock.devices[part[0]].shares:
                if part[0] in spent:
                    continue
                asking = allowed[part[0]]
                alike[asking] += 1
                if alike[asking] > sum(lacking[index] for index in asking):
                    continue
            ways = self._with_part(ways, part, allowed, spent)
            if few is not None and len(ways) > few:
                scarce = [ALL * ALL // (1 + later[index]) for index in range(len(lacking))]
                ways = set(sorted(ways, key=lambda way: (_sum(way, scarce), way))[:few])
        return (0,) * len(lacking) in ways

    def _with_part(
        self, ways: set[Lacking], part: Sequence[int], allowed: dict[int, tuple[int, ...]], spent: dict[int, int]
    ) -> set[Lacking]:
        """Return what can still be lacking after every way to give the devices of one part."""
        blocked = frozenset(slot for number in part if number in spent for slot in self.slots[number])
        states: set[tuple[Lacking, frozenset[Slot]]] = {(way, blocked) for way in ways}
        for place, number in enumerate(part):
            later = frozenset(slot for other in part[place + 1 :] for slot in self.slots[other])
            slots = self.slots[number]
            following = set()
            for way, taken in states:
                given = set()
                if number in spent or taken.isdisjoint(slots):
                    given = {(less, (taken | slots) & later) for less in self._given(way, number, allowed[number], spent)}
                following |= given
                if not given or not slots.isdisjoint(later):  # whoever lacks less is never worse off
                    following.add((way, taken & later))
            states = following
            if len(states) > WAYS_MAX:
                raise TooLarge(f"more than {WAYS_MAX} ways to give devices that exclude each other")
        return _least({way for way, _ in states})

    def _given(self, way: Lacking, number: int, asking: Sequence[int], spent: dict[int, int]) -> Iterator[Lacking]:
        """Yield what is lacking after each way to give one device: to one request, or shares of it to several."""
        left = self._left(number) - spent.get(number, 0)
        wanting = [index for index in asking if way[index]]
        if left == ALL:
            yield from ((*way[:index], way[index] - 1, *way[index + 1 :]) for index in wanting if self.requests[index].share is None)
        if not self.stock.devices[number].shares:
            return
        sharing = [(index, share) for index in wanting if (share := self.requests[index].share) is not None]
        for size in range(1, len(sharing) + 1):
            for some in combinations(sharing, size):
                if sum(share for _, share in some) <= left:
                    yield _less(way, [index for index, _ in some])


def _least(ways: set[Lacking]) -> set[Lacking]:
    """Return some ways without those that lack as much as another but for one request, of which they lack more."""
    for place in range(len(next(iter(ways), ()))):
        best: dict[Lacking, Lacking] = {}
        for way in ways:
            others = (*way[:place], *way[place + 1 :])
            best[others] = min(way, best.get(others, way))
        ways = set(best.values())
    return ways


def _worth(given: Mapping[int, int], weights: Sequence[int]) -> int:
    return sum(count * weights[index] for index, count in given.items())


def _sum(way: Lacking, weights: Sequence[int]) -> int:
    return sum(map(mul, way, weights))


def _less(way: Lacking, given: Sequence[int]) -> Lacking:
    return tuple(count - (index in given) for index, count in enumerate(way))
