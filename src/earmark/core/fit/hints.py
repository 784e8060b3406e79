"""What small change would make a refused request fit: cheap proposals, each of which fit tries before it is said.

Rules of this file: milder requests (`core.fit.milder`, `milder_devices`) come in groups, the most wanted first; of each group the first that fits is said, those
that change least first. Of a group only the first WALK_MAX are tried one after the other: from there on it is halved, as if what fits would go on
fitting when there is less of it. Where no group helps, the most devices of one wish that fit are found by halving; then a device or class is left
out; where that does not help either, what is short of two different things is changed in both, one group's milder requests with the other's. At
most TRIES_MAX requests are tried in all, at most PAIRS_MAX of them change two things.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations, zip_longest
from typing import NamedTuple

from msgspec.structs import replace

from earmark.core.fit.differences import difference
from earmark.core.fit.free import Supply
from earmark.core.fit.milder import (
    Changes,
    any_pages,
    fewer_cpus,
    less_memory,
    milder_threads,
    no_pages,
    other_cells,
    shared_cpus,
    whole_pages,
)
from earmark.core.fit.milder_devices import (
    as_many_devices,
    farther_devices,
    fewer_devices,
    less_stock,
    smaller_devices,
    smaller_shares,
    without_devices,
)
from earmark.core.fit.refusal import CPU
from earmark.core.fit.request import check_request
from earmark.core.model.ids import MEMORY, VCPU
from earmark.core.model.refusal import Reason
from earmark.core.model.request import Request
from earmark.errors import InvalidRequest

TRIES_MAX = 64
"""So many changes of one request are tried in all."""
WALK_MAX = 12
"""So many requests of one group are tried one after the other, before the rest is halved."""
PAIRS_MAX = 16
"""So many requests that change two things are tried."""
DEPTH = 4
"""So many requests about one thing are put together with those about another."""


class Group(NamedTuple):
    """Milder requests of one kind, the most wanted first, and what they are about: "cpus", "memory", "cells", "devices" or "stock"."""

    about: str
    requests: Changes


class Proposal(NamedTuple):
    """A request that fits, and in words what it changes."""

    text: str
    request: Request


class _Trier:
    """Tries requests that make sense, as often as it may."""

    def __init__(self, request: Request, fits: Callable[[Request], bool]) -> None:
        """Begin with no request tried."""
        self._request = request
        self._fits = fits
        self.left = TRIES_MAX

    def __call__(self, other: Request) -> bool:
        """Say whether a request makes sense, can be said shortly, and fits; False where as many were tried as may be."""
        if self.left < 1 or not _makes_sense(other) or not difference(self._request, other).text:
            return False
        self.left -= 1
        return self._fits(other)

    def first(self, requests: Changes, walk: int = WALK_MAX) -> Request | None:
        """Return the first request of a group that fits, as far as that is found; so many are tried one by one."""
        walked = min(walk, len(requests))
        found = next((other for place in range(walked) if self(other := requests[place])), None)
        low, high = walked, len(requests) if found is None else walked
        while low < high:
            middle = (low + high) // 2
            if self(requests[middle]):
                found, high = requests[middle], middle
            else:
                low = middle + 1
        return found


def proposals(request: Request, supply: Supply, reasons: Sequence[Reason], fits: Callable[[Request], bool]) -> list[Proposal]:
    """Return changes with which a refused request fits, those that change least first; `fits` says whether a request does."""
    trier = _Trier(request, fits)
    every = groups(request, supply, reasons)
    found = _found(every, trier)
    if not found and any(reason.resource.startswith("device:") for reason in reasons):
        found = [other for fewer in as_many_devices(request, supply) if (other := trier.first(fewer, walk=1)) is not None]
    if not found:
        last = last_resorts(request, supply, reasons)
        found = _found(last, trier) or _both(request, [*every, *last], trier)
    changes = [(difference(request, other), other) for other in found]
    return [Proposal(change.text, other) for change, other in sorted(changes, key=lambda each: each[0].size)]


def _found(every: Sequence[Group], trier: _Trier) -> list[Request]:
    return [other for group in every if (other := trier.first(group.requests)) is not None]


def groups(request: Request, supply: Supply, reasons: Sequence[Reason]) -> list[Group]:
    """Return the requests that could fit in place of one that was refused, each group about one thing."""
    found = [reason for reason in reasons if reason.code in ("short", "self_overcommit")]
    cpus = [reason for reason in reasons if _about_cpus(reason)]
    memory = [reason for reason in found if reason.resource.partition(":")[0] in (MEMORY, "pages")]
    joint = any(reason.code in ("hall", "together") for reason in reasons)
    made: list[tuple[str, Changes]] = []
    if cpus or (joint and request.vcpus):
        made += [("cpus", fewer_cpus(request, supply, cpus)), ("cpus", milder_threads(request))]
    made += [("cpus", shared_cpus(request))] if cpus else []
    if any(reason.resource.startswith("pages:") for reason in reasons):
        made.append(("memory", whole_pages(request, reasons)))
    made.append(("memory", less_memory(request, supply, memory)))
    if any(reason.resource.startswith("pages:") for reason in reasons):
        made += [("memory", any_pages(request)), ("memory", no_pages(request))]
    far = any(reason.code == "affinity" for reason in reasons)
    made += [("cells", other_cells(request, supply))] if cpus or memory or joint or far else []
    devices = any(reason.resource.startswith("device:") for reason in reasons)
    if devices or any(reason.code in ("affinity", "together", "hall", "excluded") for reason in reasons):
        made.append(("devices", farther_devices(request)))
    if devices or any(reason.code == "together" for reason in reasons):
        made += [
            ("devices", smaller_devices(request, supply)),
            ("devices", smaller_shares(request, supply)),
            ("devices", fewer_devices(request, supply, reasons)),
        ]
    made += [("stock", less_stock(request, reason)) for reason in found if reason.free > 0]
    return [Group(about, requests) for about, requests in made if len(requests)]


def last_resorts(request: Request, supply: Supply, reasons: Sequence[Reason]) -> list[Group]:
    """Return the requests without a device or a class of which the node has too few."""
    none = [reason for reason in reasons if reason.code == "no_class" or (reason.code == "short" and reason.free <= 0)]
    made = [Group("stock", less_stock(request, reason)) for reason in none if not reason.resource.startswith("disk")]
    if any(reason.resource.startswith("device:") for reason in reasons):
        made.append(Group("devices", without_devices(request, supply, reasons)))
    return [group for group in made if len(group.requests)]


def _about_cpus(reason: Reason) -> bool:
    return reason.resource.partition(":")[0] in (CPU, VCPU, "cores", "threads") and reason.code in (
        "short",
        "self_overcommit",
        "units_rule",
    )


def _makes_sense(request: Request) -> bool:
    try:
        check_request(request)
    except InvalidRequest:
        return False
    return True


# --- two things at once -------------------------------------------------------------------------------------------------------------


def _both(request: Request, every: Sequence[Group], trier: _Trier) -> list[Request]:
    """Return the first request that fits of those that change two things, the least changes of both first; [] if none does."""
    about: dict[str, list[Request]] = {}
    for name in dict.fromkeys(group.about for group in every if group.about != "cells"):
        tops = [[group.requests[place] for place in range(min(DEPTH, len(group.requests)))] for group in every if group.about == name]
        about[name] = [other for row in zip_longest(*tops) for other in row if other is not None][:DEPTH]
    pairs = [
        (place + there, one, other)
        for first, second in combinations(about.values(), 2)
        for place, one in enumerate(first)
        for there, other in enumerate(second)
    ]
    pairs.sort(key=lambda pair: pair[0])
    made = (merged(request, one, other) for _, one, other in pairs[:PAIRS_MAX])
    found = next((each for each in made if trier(each)), None)
    return [] if found is None else [found]


def merged(request: Request, one: Request, other: Request) -> Request:
    """Return a request changed in what either of two differs from it: in one the vCPUs, devices or classes, in the other what they leave as it is."""
    changed = {name: getattr(other, name) for name in Request.__struct_fields__ if getattr(other, name) != getattr(request, name)}
    if request.guest_cells not in (one.guest_cells, other.guest_cells):
        cells = zip(one.guest_cells, other.guest_cells, strict=True)
        changed["guest_cells"] = tuple(replace(cell, memory_bytes=there.memory_bytes) for cell, there in cells)
    return replace(one, **changed)
