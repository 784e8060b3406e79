"""May this guest cell lie on this host cell, how, and if not: why not.

Rules of this file: one pair at a time, whatever else the guest wants; `pair` is quick and says yes or no, `explain` gives every reason of a
no, with numbers that can be checked again. Sources: Nova 34, virt/hardware.py (N13 to N19, H1 to H3).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from earmark.core.fit.ground import Ground, HostCell, PageOffer
from earmark.core.fit.guest import Guest, GuestNeed
from earmark.core.fit.refusal import CPU, broken_rule, short
from earmark.core.fit.search.places import PAIR, can_place, isolable, least_leaving
from earmark.core.model.inventory import RATIO_ONE
from earmark.core.model.refusal import Reason
from earmark.core.model.units import KIB, counted, exact_bytes, format_bytes, format_ratio


class Option(NamedTuple):
    """How a guest cell can lie on a host cell: the CPUs that leave the shared set, and what its memory is made of (None: no memory).

    `spare` is an offer that takes no ordinary memory, where `offer` does and there is one.
    """

    leaving: int = 0
    offer: PageOffer | None = None
    spare: PageOffer | None = None


def pages_of(memory_bytes: int, offer: PageOffer) -> int:
    """Return how many pages of an offer hold some memory, rounded up."""
    return -(-memory_bytes // (offer.size_kib * KIB))


def ordinary_bytes(memory_bytes: int, offer: PageOffer | None) -> int:
    """Return the bytes of the node's ordinary memory that some memory takes, in whole pages."""
    return pages_of(memory_bytes, offer) * offer.size_kib * KIB if offer is not None and offer.ordinary else 0


def holds(memory_bytes: int, offer: PageOffer) -> bool:
    """Say whether an offer can give some memory (H2)."""
    return not (offer.whole and memory_bytes % (offer.size_kib * KIB)) and pages_of(memory_bytes, offer) <= offer.free


def pair(need: GuestNeed, cell: HostCell, guest: Guest, ground: Ground) -> Option | None:
    """Return how a guest cell can lie on a host cell, None if it cannot."""
    if need.waived:
        return Option()
    pins = len(need.dedicated)
    leaving = 0
    if pins or need.emulator:
        if not can_place(cell, pins, need.emulator, guest.threads):
            return None
        leaving = least_leaving(cell, pins, need.emulator, guest.threads)
    if not _shares(len(need.shared), leaving, cell, guest, ground):
        return None
    if not need.memory_bytes and not ground.strict:
        return Option(leaving)
    if cell.memory_limit is not None and guest.policy != "dedicated" and need.memory_bytes > cell.memory_limit:
        return None
    offer = next((offer for offer in cell.offers if holds(need.memory_bytes, offer)), None)
    if offer is None:
        return None
    spare = None
    if offer.ordinary and len(cell.offers) > 1:
        spare = next((other for other in cell.offers if not other.ordinary and holds(need.memory_bytes, other)), None)
    return Option(leaving, offer, spare)


def _shares(count: int, leaving: int, cell: HostCell, guest: Guest, ground: Ground) -> bool:
    """Say whether a cell can carry some more shared vCPUs once some CPUs have left its shared set (N14, N15)."""
    cpus = cell.shared_cpus - leaving if ground.shrinks else cell.shared_cpus
    if count > max(0, cpus):
        return False
    if cell.cpu_ratio is None or not _looked_at(count, leaving, cell, guest, ground):
        return True
    return (cell.shared_used + count) * RATIO_ONE <= cpus * cell.cpu_ratio


def _looked_at(count: int, leaving: int, cell: HostCell, guest: Guest, ground: Ground) -> bool:
    return bool(count or (ground.shrinks and leaving and cell.shared_used) or (ground.strict and guest.policy != "dedicated"))


def explain(need: GuestNeed, cell: HostCell, guest: Guest, ground: Ground) -> list[Reason]:
    """Return every reason why a guest cell cannot lie on a host cell, none if it can."""
    if need.waived:
        return []
    reasons = [*_about_cpus(need, cell, guest, ground), *_about_memory(need, cell, guest, ground)]
    return [_of(reason, cell, need, guest) for reason in reasons]


def _of(reason: Reason, cell: HostCell, need: GuestNeed, guest: Guest) -> Reason:
    number = need.number if len(guest.cells) > 1 else None
    return Reason(
        code=reason.code, resource=reason.resource, asked=reason.asked, free=reason.free, short=reason.short, cell=cell.id,
        guest_cell=number, detail=reason.detail,
    )  # fmt: skip


def _about_cpus(need: GuestNeed, cell: HostCell, guest: Guest, ground: Ground) -> Iterator[Reason]:
    pins, count = len(need.dedicated), len(need.dedicated) + need.emulator
    if count and not can_place(cell, pins, need.emulator, guest.threads):
        yield _too_few(count, pins, cell, guest)
        leaving = count
    else:
        leaving = least_leaving(cell, pins, need.emulator, guest.threads) if count else 0
    sharers = len(need.shared)
    pool = cell.vcpu_pool or f"vcpu:{cell.id}"
    cpus = max(0, cell.shared_cpus - leaving) if ground.shrinks else cell.shared_cpus
    if sharers > cpus:
        detail = f"a guest cell never has more vCPUs than the host cell has shared CPUs, {cpus} now"
        yield broken_rule(pool, sharers, detail, code="self_overcommit")
    if cell.cpu_ratio is None or not _looked_at(sharers, leaving, cell, guest, ground):
        return
    if (cell.shared_used + sharers) * RATIO_ONE <= cpus * cell.cpu_ratio:
        return
    if leaving and ground.shrinks:
        keep = -(-(cell.shared_used + sharers) * RATIO_ONE // cell.cpu_ratio)
        detail = f"kept for {counted(cell.shared_used + sharers, 'shared vCPU')}: {counted(keep, 'CPU')} of the cell"
        spare = max(0, cell.shared_cpus - keep)
        if leaving > spare:
            yield short(pool, leaving, spare, detail=detail)
        return
    capacity = cpus * cell.cpu_ratio // RATIO_ONE
    detail = f"{counted(cell.shared_used, 'vCPU')} on {counted(cpus, 'CPU')} of the cell at a ratio of {format_ratio(cell.cpu_ratio)}"
    yield short(pool, sharers, capacity - cell.shared_used, detail=detail)


def _too_few(count: int, pins: int, cell: HostCell, guest: Guest) -> Reason:
    """Return the reason that a cell cannot give some CPUs of one's own under the thread policy."""
    free = cell.free.bit_count()
    total = sum(core.bit_count() for core in cell.own) + cell.zero.bit_count()
    if count > free:
        return short(CPU, count, free, detail=f"the cell has {counted(total, 'CPU')} for dedicated use")
    if guest.threads == "isolate":
        cores = sum(1 for _ in isolable(cell))
        return short(
            "cores", count, cores, detail=f"{counted(free, 'CPU')} of the cell are free, idle cores are counted: isolate shares none"
        )
    sizes = [size for core in cell.cores if (size := (core & cell.free).bit_count()) >= PAIR]
    if pins > sum(sizes):
        detail = f"{counted(free, 'CPU')} of the cell are free, those on cores with two free threads are counted"
        return short("threads", pins, sum(sizes), detail=detail)
    detail = f"{counted(pins, 'vCPU')} cannot be placed without one alone on a core: free threads by core {', '.join(map(str, sizes))}"
    return broken_rule("threads", pins, detail)


def _about_memory(need: GuestNeed, cell: HostCell, guest: Guest, ground: Ground) -> Iterator[Reason]:
    amount = need.memory_bytes
    if not amount and not ground.strict:
        return
    if cell.memory_limit is not None and guest.policy != "dedicated" and amount > cell.memory_limit:
        yield short(
            f"memory:{cell.id}", amount, cell.memory_limit, detail=f"{format_bytes(cell.memory_limit)} are left within the memory ratio"
        )
    if any(holds(amount, offer) for offer in cell.offers):
        return
    if not cell.offers:
        wish = guest.page_kib
        if isinstance(wish, int):
            pages = -(-amount // (wish * KIB))
            yield short(f"pages:{cell.id}:{wish}", pages, 0, detail=f"the cell has no pages of {format_bytes(wish * KIB)}")
        else:
            yield broken_rule(f"pages:{cell.id}:{wish}", amount, f"the cell has no pages that answer {wish}", code="unknown_unit")
        return
    for offer in cell.offers:
        pool = offer.pool or f"pages:{cell.id}:{offer.size_kib}"
        size = offer.size_kib * KIB
        if offer.whole and amount % size:
            yield broken_rule(pool, amount, f"{exact_bytes(amount)} are not a whole number of pages of {format_bytes(size)}")
        elif pages_of(amount, offer) > offer.free:
            yield short(pool, pages_of(amount, offer), offer.free, detail=f"{offer.free} pages of {format_bytes(size)} are free")
