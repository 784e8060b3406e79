"""Does a guest with its devices and networks fit on a node: where exactly, or a certificate why not.

Rules of this file: a no names what cannot be: a guest cell that no host cell can serve, guest cells that fight for too few host cells (Hall), or
an irreducible set of requirements, found by leaving out one after the other; each certificate is checked by other means
(`core.fit.certify`). A search that was stopped at its bound is neither a yes nor a no, and says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from msgspec.structs import replace

from earmark.core.fit.ground import Ground
from earmark.core.fit.guest import Guest, Kind
from earmark.core.fit.refusal import CPU, short
from earmark.core.fit.search.matching import Hall
from earmark.core.fit.search.pairs import explain, ordinary_bytes
from earmark.core.fit.search.solving import Found, Impossible, Placed, Problem, Undecided, problem_of, solve
from earmark.core.model.cpuset import cpus_of, iterate
from earmark.core.model.ids import MEMORY
from earmark.core.model.refusal import Certificate, Reason, Refusal
from earmark.core.model.request import DeviceRequest
from earmark.core.model.units import counted

if TYPE_CHECKING:
    from earmark.core.fit.devices.offer import Offer

__all__ = ["Found", "Placed", "find", "placeable"]

UNLIKE_TOLD_MAX = 4
"""Of so many guest cells of different kinds it is told why they lie on no other host cell."""


def find(guest: Guest | None, ground: Ground, requests: Sequence[DeviceRequest] = ()) -> Found | Refusal:
    """Return the best placement of a guest with its devices, or a refusal with its certificate.

    `guest` None has no cells: only its devices are looked for, wherever they are (P15).
    """
    if not requests and guest is not None:
        return _found(guest, ground, ())
    from earmark.core.fit.devices.flow import Undecided as DevicesUndecided  # noqa: PLC0415 - the solver of devices, for those who ask for some

    try:
        return _floating(ground, requests) if guest is None else _found(guest, ground, requests)
    except DevicesUndecided as bound:
        return _undecided(str(bound))


def placeable(guest: Guest | None, ground: Ground, requests: Sequence[DeviceRequest] = ()) -> bool:
    """Say whether `find` surely finds a placement; which one is not asked, so it is quicker. A search that stops at its bound is no yes."""
    if not requests and guest is not None:
        return isinstance(solve(problem_of(guest, ground, ()), ranked=False), Found)
    from earmark.core.fit.devices.flow import Undecided as DevicesUndecided  # noqa: PLC0415 - as in find
    from earmark.core.fit.devices.offer import offered  # noqa: PLC0415 - as in find

    try:
        if guest is None:
            return offered(requests, ground.stock).possible(None)
        return isinstance(solve(problem_of(guest, ground, requests), ranked=False), Found)
    except DevicesUndecided:
        return False


def _undecided(why: str) -> Refusal:
    """Return what is neither a yes nor a no."""
    return Refusal(reasons=(Reason(code="undecided", resource="search", detail=f"stopped, not known: {why}"),))


def _found(guest: Guest, ground: Ground, requests: Sequence[DeviceRequest]) -> Found | Refusal:
    problem = problem_of(guest, ground, requests)
    answer = solve(problem)
    if isinstance(answer, Found):
        return answer
    if isinstance(answer, Undecided):
        return _undecided(f"more than {answer.steps} sets of cells")
    return _without_cells(problem, answer.hall) if answer.hall is not None else _together(guest, ground, problem.offer)


def _floating(ground: Ground, requests: Sequence[DeviceRequest]) -> Found | Refusal:
    """Look for the devices of a guest without cells."""
    from earmark.core.fit.devices.offer import offered  # noqa: PLC0415 - as above

    offer = offered(requests, ground.stock)
    chosen = offer.choose(None)
    if chosen is not None:
        return Found((), chosen)
    kept = tuple(range(len(requests)))
    for number in range(len(requests)):
        fewer = tuple(other for other in kept if other != number)
        if not offer.only(fewer).possible(None):
            kept = fewer
    certificate = Certificate(kind="together", requirements=tuple(f"device:{number}" for number in kept))
    return Refusal(reasons=tuple(offer.reasons(None)), certificate=certificate)


def _without_cells(problem: Problem, hall: Hall) -> Refusal:
    """Refuse guest cells that together have too few host cells, whatever else is wanted."""
    guest, ground = problem.guest, problem.ground
    guests, hosts = cpus_of(hall.guests), hall.hosts
    outside = [cell for index, cell in enumerate(ground.cells) if not hosts >> index & 1]
    everywhere = frozenset(cell.id for cell in ground.cells)
    reasons = problem.offer.reasons(everywhere) if problem.offer and not problem.offer.possible(everywhere) else []
    unlike = {guest.cells[number].kind: guest.cells[number] for number in reversed(guests)}
    told = sorted(unlike.values(), key=lambda need: need.number)[:UNLIKE_TOLD_MAX]
    reasons += [reason for need in told for cell in outside for reason in explain(need, cell, guest, ground)]
    if not ground.cells:
        own = sum(len(need.dedicated) for need in guest.cells)
        reasons.append(short(CPU if own else "cells", own or len(guest.cells), 0, detail="the host has no cells"))
    numbers = tuple(guest.cells[number].number for number in guests)
    if len(guests) == 1:
        return Refusal(reasons=tuple(reasons), certificate=Certificate(kind="shortfall", guest_cells=numbers))
    serving = tuple(ground.cells[index].id for index in iterate(hosts))
    few = counted(len(serving), "host cell")
    detail = f"guest cells {_list(numbers)} can lie only on {few}{': ' + _list(serving) if serving else ''}"
    first = Reason(code="hall", resource="cells", asked=len(guests), free=len(serving), short=len(guests) - len(serving), detail=detail)
    return Refusal(reasons=(first, *reasons), certificate=Certificate(kind="hall", guest_cells=numbers, host_cells=tuple(sorted(serving))))


def _list(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))


def _together(guest: Guest, ground: Ground, offer: Offer | None) -> Refusal:
    """Refuse requirements of which each could be met: leave out one after the other until none can be left out."""
    names = [  # those are left out first without which the question is easier
        *(f"device:{number}" for number in range(len(offer.requests) if offer else 0)),
        *(f"network:{name}" for name, cells in ground.networks if cells),
        *(("cpus",) if ground.leaving_max is not None else ()),
        *(("memory",) if ground.ordinary_max is not None else ()),
        *(f"cell:{need.number}" for need in guest.cells if not need.waived),
    ]
    kinds = {f"cell:{need.number}": need.kind for need in guest.cells}
    kept = tuple(name for name in names if name not in kinds)
    if not isinstance(solve(_limited(guest, ground, offer, kept), ranked=False), Impossible):
        kept = tuple(names)
    needed: set[Kind | None] = set()
    proven = True
    for name in kept:
        kind = kinds.get(name)
        if kind in needed:  # without a cell of its kind the others can be met, so they can without this one
            continue
        fewer = tuple(other for other in kept if other != name)
        answer = solve(_limited(guest, ground, offer, fewer), ranked=False)
        if isinstance(answer, Impossible):
            kept = fewer
        elif kind is not None:
            needed.add(kind)
        proven = proven and not isinstance(answer, Undecided)
    kept = tuple(sorted(kept, key=lambda name: (name not in kinds, names.index(name))))
    certificate = Certificate(kind="together", requirements=kept) if proven else None
    return Refusal(reasons=tuple(_reasons(guest, ground, offer, kept)), certificate=certificate)


def _limited(guest: Guest, ground: Ground, offer: Offer | None, names: Iterable[str]) -> Problem:
    """Return the problem with only some requirements."""
    kept = frozenset(names)
    cells = tuple(need if f"cell:{need.number}" in kept else replace(need, waived=True) for need in guest.cells)
    networks = tuple((name, there) for name, there in ground.networks if f"network:{name}" in kept)
    less = replace(
        ground,
        networks=networks,
        leaving_max=ground.leaving_max if "cpus" in kept else None,
        ordinary_max=ground.ordinary_max if "memory" in kept else None,
    )
    wanted = [number for number in range(len(offer.requests) if offer else 0) if f"device:{number}" in kept]
    rest = offer.only(wanted) if offer and wanted else None
    return problem_of(replace(guest, cells=cells), less, rest)


def _reasons(guest: Guest, ground: Ground, offered_all: Offer | None, kept: Sequence[str]) -> list[Reason]:
    """Return the reasons behind an irreducible set; the set itself last, where no other reason says it."""
    problem = _limited(guest, ground, offered_all, kept)
    reasons: list[Reason] = []
    offer = problem.offer
    if offer is not None:
        usable = 0
        for row in problem.rows:
            usable |= row
        near = [frozenset(ground.cells[index].id for index in iterate(usable))]
        if len(problem.rows) == 1:
            near += [frozenset((ground.cells[index].id,)) for index in iterate(usable)]
        reasons = next((found for cells in near if (found := offer.reasons(cells))), [])
    reasons += [
        Reason(code="network", resource=f"network:{name}", asked=1, short=1, detail=f"attached to {_cells(cells)}")
        for name, cells in problem.ground.networks
    ]
    if "cpus" in kept and ground.leaving_max is not None:
        asked = sum(len(need.dedicated) + need.emulator for need in guest.cells)
        if asked:  # a guest that only shares is told of its vCPUs by the node's own reasons
            reasons.append(short(CPU, asked, max(0, ground.leaving_max), detail="so many may leave the shared set of the whole node"))
    if "memory" in kept and ground.ordinary_max is not None:
        options = [next((option for option in row if option is not None), None) for row in problem.options]
        asked = sum(
            ordinary_bytes(need.memory_bytes, option.offer)
            for need, option in zip(problem.guest.cells, options, strict=True)
            if option is not None and not need.waived
        )
        reasons.append(short(MEMORY, asked, ground.ordinary_max, detail="the node has no more ordinary memory"))
    if len(kept) > 1 and any(name.startswith(("device:", "network:")) for name in kept):
        detail = f"{', '.join(kept)}: any but one of them can be met, not all at once"
        reasons.append(Reason(code="together", resource="requirements", asked=len(kept), free=len(kept) - 1, short=1, detail=detail))
    if not reasons:  # devices near some host cells suffice, but those are more than the guest has cells
        detail = f"{', '.join(kept)}: cannot be met from any {counted(len(guest.cells), 'host cell')}"
        reasons.append(Reason(code="together", resource="requirements", asked=1, short=1, detail=detail))
    return reasons


def _cells(cells: frozenset[int]) -> str:
    """Return cells of the host in words: "cell 0", or "cells" and their list."""
    return f"{'cell' if len(cells) == 1 else 'cells'} {_list(sorted(cells))}"
