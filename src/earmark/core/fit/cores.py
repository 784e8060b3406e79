"""So many CPUs of some cores: whole cores first, then the best-fitting partial core.

Rules of this file: masks in, masks out; at most one whole core is broken, and none where that is possible; CPU 0's core is touched only
when the rest does not suffice, CPU 0 itself last.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from earmark.core.model.cpuset import iterate


class Cores(NamedTuple):
    """The CPUs chosen (`mask`), how many whole cores they newly break, how many are of CPU 0's core."""

    mask: int
    broken: int
    zero: int


def chosen(own: Sequence[int], zero: int, free: int, count: int) -> Cores:
    """Return `count` of the free CPUs (there are as many) of some cores and of CPU 0's core."""
    rest = free & ~zero
    missing = count - rest.bit_count()
    if missing > 0:
        left = free & zero
        last = sorted(iterate(left), reverse=True)[:missing]
        broken = int(left == zero and missing < left.bit_count())
        return Cores(rest | sum(1 << cpu for cpu in last), broken, missing)
    whole = []
    partial = []
    for core in own:
        left = rest & core
        if left == core:
            whole.append(core)
        elif left:
            partial.append(left)
    spare = sum(left.bit_count() for left in partial)
    mask = 0
    for core in _whole_cores(whole, count, spare):
        mask |= core
    missing = count - mask.bit_count()
    if missing == 0:
        return Cores(mask, 0, 0)
    if missing <= spare:
        return Cores(mask | _from_partial(partial, missing), 0, 0)
    fresh = min((core for core in whole if not core & mask and core.bit_count() > missing), key=lambda core: (core.bit_count(), core))
    return Cores(mask | lowest(fresh, missing), 1, 0)


def lowest(mask: int, count: int) -> int:
    """Return the mask of the `count` lowest CPUs of a mask."""
    taken = 0
    for _ in range(count):
        low = mask & -mask
        taken |= low
        mask ^= low
    return taken


def _whole_cores(whole: Sequence[int], count: int, spare: int) -> Sequence[int]:
    """Return the whole cores to take: as many CPUs as fit in `count`, but so that at most `spare` are missing if that can be."""
    sizes = {core.bit_count() for core in whole}
    if len(sizes) == 1:
        return whole[: count // sizes.pop()]
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
    taken = []
    for index in range(len(cores), 0, -1):
        if not reach[index - 1] >> total & 1:
            taken.append(cores[index - 1])
            total -= cores[index - 1].bit_count()
    return taken


def _from_partial(partial: Sequence[int], count: int) -> int:
    """Return `count` CPUs from partly free cores: from the smallest one that suffices, else from the largest on."""
    mask = 0
    left = sorted(partial, key=lambda core: (core.bit_count(), core))
    while count:
        core = next((core for core in left if core.bit_count() >= count), left[-1])
        left.remove(core)
        take = min(count, core.bit_count())
        mask |= lowest(core, take)
        count -= take
    return mask
