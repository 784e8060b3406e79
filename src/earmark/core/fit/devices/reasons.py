"""Why devices cannot be had: which request is short, too far from its devices, or excluded by the others.

Rules of this file: each request is first looked at alone without its cells (short), then alone with them (affinity), then all together
(excluded). Requests for the same thing are one. Numbers are exact: `free` is the most that can be had at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec.structs import replace

from earmark.core.fit.devices.choice import Board, Wanted, oracle, possible
from earmark.core.fit.devices.flow import SHORTAGE, Undecided
from earmark.core.fit.devices.match import asked_of
from earmark.core.fit.devices.pools import pools_of
from earmark.core.fit.ground import WHOLE
from earmark.core.fit.refusal import short
from earmark.core.model.refusal import Reason
from earmark.core.model.request import DeviceRequest
from earmark.core.model.units import format_bytes

SIZES_SAID_MAX = 8
"""So many amounts of memory are said of the devices that have too little."""

if TYPE_CHECKING:
    from earmark.core.fit.devices.offer import Offer, Part


def reasons_of(offer: Offer, cells: frozenset[int] | None) -> list[Reason]:
    """Return why an offer has no devices for a guest on some cells, nothing if it has."""
    try:
        if offer.possible(cells):
            return []
        alone = [reason for group in _groups(offer) if (reason := _alone(offer, group, cells))]
        shortages = [reason for reason in alone if reason.code == "short"]
        return shortages or alone or [reason for part in offer.parts if (reason := _together(offer, part, cells))]
    except Undecided as error:
        kinds = "+".join(sorted({request.kind for request in offer.requests}))
        return [Reason(code="undecided", resource=f"device:{kinds}", detail=str(error))]


def words_of(request: DeviceRequest) -> str:
    """Return what a request asks of a device beyond its kind, in words; empty if nothing."""
    said = [" or ".join(" ".join(f"{key}={want}" for key, want in sorted(each.items())) for each in request.match)]
    said += [f"within {', '.join(request.within)}" if request.within else "", f"{request.share} thousandths each" if request.share else ""]
    said += [f"at least {format_bytes(request.memory_bytes)} each"] if request.memory_bytes is not None else []
    said += ["linked to each other" if request.linked else ""]
    said += [f"with {trait}" for trait in request.required_traits] + [f"without {trait}" for trait in request.forbidden_traits]
    return ", ".join(each for each in said if each)


def _groups(offer: Offer) -> list[list[int]]:
    """Return the requests in groups that ask for the same thing, in their order."""
    groups: dict[object, list[int]] = {}
    for number, request in enumerate(offer.requests):
        key: object = number
        if not request.linked and request.share is None:
            alike = replace(request, count=1, alias=None)
            key = (alike.kind, tuple(tuple(sorted(each.items())) for each in alike.match), replace(alike, match=()))
        groups.setdefault(key, []).append(number)
    return list(groups.values())


def _alone(offer: Offer, group: Sequence[int], cells: frozenset[int] | None) -> Reason | None:
    """Return why requests for one thing cannot be served even alone, None if they can."""
    part = next(part for part in offer.parts if group[0] in part.requests)
    request = offer.requests[group[0]]
    asked = sum(offer.requests[number].count for number in group)
    resource, said = f"device:{request.kind}", words_of(request)
    most = _most(_merged(offer, part, group, None), part)
    there = sum(len(pool.devices) for pool in part.pools if pool.mask >> group[0] & 1)
    if most < asked:
        detail = _there(part, group[0], there, request) if there else _none(offer, request)
        if 0 < there != most and (most or request.share is None):
            detail += f", {most} of them at once"
        return short(resource, asked, most, detail=(f"{detail} ({said})" if said else detail) + _smaller(offer, request))
    if cells is None:
        return None
    near = _most(_merged(offer, part, group, cells), part)
    if near >= asked:
        return None
    where = ", ".join(map(str, sorted(cells))) or "none"
    word = "cell" if len(cells) == 1 else "cells"
    detail = f"affinity {offer.policies[group[0]]} to {word} {where}: {near} of the {there} that can be given now may be used"
    detail = f"{detail} ({said})" if said else detail
    return Reason(code="affinity", resource=resource, asked=asked, free=near, short=asked - near, detail=detail)


def _there(part: Part, number: int, there: int, request: DeviceRequest) -> str:
    """Return, in words, how many devices answer a request, and of shares how large one can be."""
    if request.share is None:
        return f"{there} of this kind can be given now"
    left = max(pool.left or 0 for pool in part.pools if pool.mask >> number & 1)
    return f"shares of {there} can be given now, of one {left} thousandths at most"


def _none(offer: Offer, request: DeviceRequest) -> str:
    """Return, in words, why no device answers a request: there is none, or none of which shares are given."""
    whole = pools_of([replace(request, share=None)], offer.stock) if request.share is not None else ()
    count = sum(len(pool.devices) for pool in whole if pool.mask)
    few = "one that can be given now is" if count == 1 else f"{count} that can be given now are"
    return f"the {few} given as a whole: no device policy gives shares of them" if count else "the node has none that can be given now"


def _smaller(offer: Offer, request: DeviceRequest) -> str:
    """Return, in words, the memory of the devices that have too little for a request and answer it but for that."""
    if request.memory_bytes is None:
        return ""
    pools = pools_of([replace(request, memory_bytes=None)], offer.stock)
    enough = asked_of(request).memory_bytes
    sizes = {pool.devices[0].memory_bytes or 0 for pool in pools if pool.mask}
    part = request.share or WHOLE
    less = [
        format_bytes(size * part // WHOLE) if size else "no memory that is known" for size in sorted(sizes, reverse=True) if size < enough
    ]
    others = "the others have" if request.share is None else "such a part of the others has"
    return f"; {others} {', '.join(less[:SIZES_SAID_MAX])}" if less else ""


def _together(offer: Offer, part: Part, cells: frozenset[int] | None) -> Reason | None:
    """Return why the requests of a part, each of which can be served alone, cannot be served together; None if they can."""
    wanted = offer.wanted(part, cells)
    if possible(wanted, Board(part.pools)):
        return None
    local = possible(offer.wanted(part, None), Board(part.pools))
    asked = sum(each.need for each in wanted)
    most = _most(wanted, part)
    kinds = "+".join(sorted({offer.requests[each.number].kind for each in wanted}))
    detail = "each request could be served alone, not all together: a device is given once, and a parent never with its children"
    if local and cells is not None:
        detail += f"; on other cells than {', '.join(map(str, sorted(cells)))} they could"
    return Reason(
        code="affinity" if local else "excluded", resource=f"device:{kinds}", asked=asked, free=most, short=asked - most, detail=detail
    )


def _merged(offer: Offer, part: Part, group: Sequence[int], cells: frozenset[int] | None) -> list[Wanted]:
    """Return the requests of a group, which ask for the same thing, as one."""
    count = sum(offer.requests[number].count for number in group)
    return [each._replace(need=count) for each in offer.wanted(part, cells) if each.number == group[0]]


def _most(wanted: Sequence[Wanted], part: Part) -> int:
    """Return how many devices requests can get at once; with linked ones or shares, how many if all but one request get what they ask for."""
    asked = sum(each.need for each in wanted)
    if all(not each.linked and each.share is None for each in wanted):
        return asked - oracle(wanted, Board(part.pools), exact=True) // SHORTAGE
    best_so_far = 0
    for index, one in enumerate(wanted):
        low, high = 0, min(one.need, sum(len(pool.devices) for pool in part.pools))
        others = asked - one.need
        while low < high:
            middle = (low + high + 1) // 2
            tried = [*wanted[:index], one._replace(need=middle), *wanted[index + 1 :]]
            low, high = (middle, high) if possible(tried, Board(part.pools)) else (low, middle - 1)
        if low or possible([*wanted[:index], *wanted[index + 1 :]], Board(part.pools)):
            best_so_far = max(best_so_far, others + low)
    return best_so_far
