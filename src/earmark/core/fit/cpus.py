"""CPUs: what the shared holders keep, how many dedicated ones a cell can give, and which.

Rules of this file: exact in integers; ratios are thousandths. Choosing breaks at most one whole core, and none where that is possible;
CPU 0's core is touched only when the rest of the cell does not suffice, CPU 0 itself last.
"""

from collections.abc import Sequence
from typing import NamedTuple

from earmark.core.fit.free import Supply
from earmark.core.fit.layout import CellLayout
from earmark.core.model.cpuset import iterate
from earmark.core.model.ids import VCPU
from earmark.core.model.inventory import RATIO_ONE


class SharedRoom(NamedTuple):
    """The shared set now (`mask`), the sum of shared vCPUs on the node (`used`), and how many there may be (`capacity`)."""

    mask: int
    used: int
    capacity: int


class Choice(NamedTuple):
    """The CPUs chosen on a cell (`mask`), how many whole cores they newly break, how many are of CPU 0's core."""

    mask: int
    broken: int
    zero: int


def shared_room(supply: Supply, taking: int = 0) -> SharedRoom:
    """Return the room for shared vCPUs, once the CPUs in `taking` are dedicated too."""
    layout, free = supply.layout, supply.free
    mask = layout.shared & ~supply.blocked_cpus
    if layout.exclusive:
        mask &= ~(free.taken_cpus | taking)
    used = free.used.get(VCPU, 0)
    for pool in layout.vcpu_pools:
        used += free.used.get(pool, 0)
    return SharedRoom(mask, used, mask.bit_count() * layout.cpu_ratio // RATIO_ONE)


def cell_capacity(mask: int, cell: CellLayout, ratio: int) -> int:
    """Return how many shared vCPUs may be bound to a cell, given the shared set now."""
    return (mask & cell.cpus).bit_count() * ratio // RATIO_ONE


def needed_for(vcpus: int, ratio: int) -> int:
    """Return the smallest number of CPUs that holds some shared vCPUs under a ratio in thousandths."""
    return -(-vcpus * RATIO_ONE // ratio)


def dedicated_free(supply: Supply) -> int:
    """Return the mask of CPUs that may become somebody's own."""
    return supply.layout.dedicated & ~(supply.free.taken_cpus | supply.blocked_cpus)


def choose(cell: CellLayout, free: int, count: int) -> Choice:
    """Return `count` CPUs of the free ones of a cell (there are as many): whole cores first, then the best-fitting partial core."""
    rest = free & ~cell.zero
    missing = count - rest.bit_count()
    if missing > 0:
        left = free & cell.zero
        last = sorted(iterate(left), reverse=True)[:missing]
        broken = int(left == cell.zero and missing < left.bit_count())
        return Choice(rest | sum(1 << cpu for cpu in last), broken, missing)
    whole = []
    partial = []
    for core in cell.cores:
        left = rest & core
        if left == core:
            whole.append(core)
        elif left:
            partial.append(left)
    spare = sum(left.bit_count() for left in partial)
    taken = _whole_cores(whole, count, spare, 0)
    mask = 0
    for core in taken:
        mask |= core
    missing = count - mask.bit_count()
    if missing == 0:
        return Choice(mask, 0, 0)
    if missing <= spare:
        return Choice(mask | _from_partial(partial, missing), 0, 0)
    fresh = min((core for core in whole if not core & mask and core.bit_count() > missing), key=lambda core: (core.bit_count(), core))
    return Choice(mask | _lowest(fresh, missing), 1, 0)


def ordered(cell: CellLayout, mask: int) -> tuple[int, ...]:
    """Return the CPUs of a mask core by core, so that neighbouring vCPUs are siblings; CPU 0's core last."""
    order: list[int] = []
    for core in (*cell.cores, cell.zero):
        order.extend(iterate(mask & core))
    return tuple(order)


def _whole_cores(whole: Sequence[int], count: int, spare: int, size: int) -> Sequence[int]:
    """Return the whole cores to take: as many CPUs as fit in `count`, but so that at most `spare` are missing if that can be."""
    if size:
        return whole[: count // size]
    taken = []
    missing = count
    for core in sorted(whole, key=lambda core: (-core.bit_count(), core)):
        if core.bit_count() <= missing:
            taken.append(core)
            missing -= core.bit_count()
    if missing <= spare:
        return taken
    better = _subset(whole, count - spare, count)
    return taken if better is None else better


def _subset(cores: Sequence[int], least: int, most: int) -> list[int] | None:
    """Return cores whose sizes add up to the largest sum from `least` to `most` that can be had, None if none can (subset sum)."""
    reach = [1]
    for core in cores:
        reach.append((reach[-1] | reach[-1] << core.bit_count()) & ((1 << (most + 1)) - 1))
    total = reach[-1].bit_length() - 1
    if total < max(least, 0):
        return None
    chosen = []
    for index in range(len(cores), 0, -1):
        if not reach[index - 1] >> total & 1:
            chosen.append(cores[index - 1])
            total -= cores[index - 1].bit_count()
    return chosen


def _from_partial(partial: Sequence[int], count: int) -> int:
    """Return `count` CPUs from partly free cores: from the smallest one that suffices, else from the largest on."""
    mask = 0
    left = sorted(partial, key=lambda core: (core.bit_count(), core))
    while count:
        core = next((core for core in left if core.bit_count() >= count), left[-1])
        left.remove(core)
        take = min(count, core.bit_count())
        mask |= _lowest(core, take)
        count -= take
    return mask


def _lowest(mask: int, count: int) -> int:
    """Return the mask of the `count` lowest CPUs of a mask."""
    taken = 0
    for _ in range(count):
        low = mask & -mask
        taken |= low
        mask ^= low
    return taken
