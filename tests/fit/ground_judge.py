"""Is a placement right? Every rule looked at again for the one placement that the search gave.

Rules of this file: nothing of the search but the shape of its answer; the rules are those of `brute_ground`, asked for one choice.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from tests.fit.brute_ground import Chosen, agreeable, all_linked, allowed, bits, leaving, near, suits
from tests.fit.grounds import Case

from earmark.core.fit.ground import Ground
from earmark.core.fit.guest import Guest
from earmark.core.fit.search.find import Found, Placed


def problems(found: Found, case: Case) -> list[str]:
    """Return, in words, what is wrong with a placement."""
    guest, ground, _ = case
    if guest is None:
        return [*(["a guest without cells is placed"] if found.placed else []), *_devices(found, case, None)]
    cells = [placed.cell.id for placed in found.placed]
    wrong = [] if len(set(cells)) == len(cells) else ["two guest cells on one host cell"]
    if tuple(placed.need for placed in found.placed) != guest.cells:
        return [*wrong, "these are not the cells of the guest, in order"]
    if any(placed.cell not in ground.cells for placed in found.placed):
        return [*wrong, "a host cell that is not there"]
    for placed in found.placed:
        wrong += [
            f"guest cell {placed.need.number}: {text}" for text in chain(_cpus(placed, guest, ground), _memory(placed, guest, ground))
        ]
    wrong += [f"network {name}" for name, there in ground.networks if there and there.isdisjoint(cells)]
    leave = sum(_leaving(placed, guest) for placed in found.placed)
    if ground.leaving_max is not None and leave > ground.leaving_max:
        wrong.append(f"{leave} CPUs leave the shared set")
    ordinary = sum(_taken(placed) for placed in found.placed if placed.offer is not None and placed.offer.ordinary)
    if ground.ordinary_max is not None and ordinary > ground.ordinary_max:
        wrong.append(f"{ordinary} bytes of ordinary memory")
    return [*wrong, *_devices(found, case, frozenset(cells))]


def _leaving(placed: Placed, guest: Guest) -> int:
    return leaving(frozenset((*placed.choice.pins, *placed.choice.emulator)), placed.cell, guest)


def _taken(placed: Placed) -> int:
    size = placed.offer.size_kib * 1024 if placed.offer is not None else 1
    return -(-placed.need.memory_bytes // size) * size


def _cpus(placed: Placed, guest: Guest, ground: Ground) -> Iterator[str]:
    """Yield what is wrong with the CPUs of one guest cell and with its sharers."""
    need, cell, choice = placed.need, placed.cell, placed.choice
    pins, emulator = frozenset(choice.pins), frozenset(choice.emulator)
    taken = pins | emulator
    if (
        len(choice.pins) != len(need.dedicated)
        or len(choice.emulator) != need.emulator
        or len(taken) != len(pins) + need.emulator
        or len(pins) != len(choice.pins)
    ):
        yield f"{choice.pins} and {choice.emulator} for {need}"
    if not taken <= bits(cell.free):
        yield f"{sorted(taken)} are not all free"
    if not allowed(pins, emulator, cell, guest):
        yield f"the thread policy forbids {sorted(pins)} with {sorted(emulator)}"
    idle = frozenset[int]()
    if guest.threads == "isolate":
        idle = frozenset(cpu for core in cell.cores for cpu in bits(core & cell.free) if bits(core) & taken) - taken
    if bits(choice.withheld) != idle:
        yield f"{sorted(bits(choice.withheld))} are withheld, {sorted(idle)} are idle siblings"
    left, sharers = _leaving(placed, guest), len(need.shared)
    cpus = cell.shared_cpus - (left if ground.shrinks else 0)
    looked_at = sharers or (ground.shrinks and left and cell.shared_used) or (ground.strict and guest.policy != "dedicated")
    if sharers and sharers > cpus:
        yield f"{sharers} vCPUs on {cpus} shared CPUs"
    if cell.cpu_ratio is not None and looked_at and (cell.shared_used + sharers) * 1000 > cpus * cell.cpu_ratio:
        yield "the CPU ratio is exceeded"


def _memory(placed: Placed, guest: Guest, ground: Ground) -> Iterator[str]:
    """Yield what is wrong with the memory of one guest cell."""
    need, cell, offer = placed.need, placed.cell, placed.offer
    if not need.memory_bytes and not ground.strict:
        return
    if cell.memory_limit is not None and guest.policy != "dedicated" and need.memory_bytes > cell.memory_limit:
        yield "the memory ratio is exceeded"
    if offer is None or offer not in cell.offers:
        yield "its memory is made of nothing"
    elif (offer.whole and need.memory_bytes % (offer.size_kib * 1024)) or _taken(placed) > offer.free * offer.size_kib * 1024:
        yield f"{need.memory_bytes} bytes do not come from {offer}"


def _devices(found: Found, case: Case, cells: frozenset[int] | None) -> Iterator[str]:
    """Yield what is wrong with the devices."""
    stock = case.ground.stock
    if len(found.devices) != len(case.requests):
        yield "not one answer for each device request"
        return
    every: Chosen = tuple((request, device) for request, some in zip(case.requests, found.devices, strict=True) for device in some)
    for request, some in zip(case.requests, found.devices, strict=True):
        if len({device.unit for device in some}) != request.count or len(some) != request.count:
            yield f"{len(some)} devices instead of {request.count}"
        if request.linked and not all_linked(some):
            yield "devices that are not linked"
    for request, device in every:
        if device not in stock.devices or not suits(request, device, stock):
            yield f"{device.unit} is not what was asked for"
        if not near(request, device, stock, cells):
            yield f"{device.unit} is too far away"
    if not agreeable(every, stock):
        yield "devices that exclude each other, or more shares than there are"
