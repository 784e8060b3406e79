"""Which CPUs of a host cell a guest cell gets: exact, and the least harmful ones.

So many CPUs of some cores are whole cores first, then the best-fitting partial core; at most one whole core is broken, and none where that is
possible; CPU 0's core is touched only when the rest does not suffice, CPU 0 itself last.

Rules of this file: in order, the choice takes as little of CPU 0's core, leaves as few vCPUs alone on a core, breaks as few whole cores and
touches as few cache domains as it can; then the lowest CPUs. Isolated vCPUs take the cores that withhold the fewest siblings. Sources: Nova
34, virt/hardware.py (N14 to N19); N18's refusal of split sets is Nova's limit, not ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from earmark.core.fit.ground import HostCell
from earmark.core.model.cpuset import iterate
from earmark.core.model.request import ThreadPolicy

PAIR = 2
"""Thread policy require takes cores with at least so many free threads."""


class Choice(NamedTuple):
    """The CPUs of one guest cell: for its dedicated vCPUs in order, for its emulator, and the masked siblings that nobody may use.

    `zero` counts CPUs of CPU 0's core, `lone` the vCPUs alone on a core under require, `broken` the whole cores that are now partly taken,
    `caches` the cache domains touched.
    """

    pins: tuple[int, ...] = ()
    emulator: tuple[int, ...] = ()
    withheld: int = 0
    zero: int = 0
    lone: int = 0
    broken: int = 0
    caches: int = 0

    @property
    def harm(self) -> tuple[int, int, int]:
        """What the choice costs the cell, smaller is better."""
        return (self.zero, self.lone, self.broken)


NOTHING = Choice()


def can_place(cell: HostCell, pins: int, emulator: int, threads: ThreadPolicy | None) -> bool:
    """Say whether a cell has CPUs for so many dedicated vCPUs and emulator threads under a thread policy."""
    count = pins + emulator
    if count > cell.free.bit_count():
        return False
    if threads == "isolate":
        return count <= sum(1 for _ in isolable(cell))
    if threads is None or threads == "prefer" or not pins:
        return True
    sizes = [size for core in cell.cores if (size := (core & cell.free).bit_count()) >= PAIR]
    return pins <= sum(sizes) and (threads == "require" or bool(_sums(sizes) >> pins & 1))


def least_leaving(cell: HostCell, pins: int, emulator: int, threads: ThreadPolicy | None) -> int:
    """Return how many CPUs at least leave the free ones of a cell for a guest cell that it has CPUs for."""
    count = pins + emulator
    if threads != "isolate":
        return count
    return sum(sorted((core & cell.free).bit_count() for core in isolable(cell))[:count])


def isolable(cell: HostCell) -> Iterable[int]:
    """Yield the cores of a cell on which nothing runs or may run, and of which a CPU is free."""
    return (core for core in cell.cores if core & cell.free and not core & cell.busy)


def place(cell: HostCell, pins: int, emulator: int, threads: ThreadPolicy | None) -> Choice:
    """Return the CPUs that a cell gives (it has them): the least harmful ones, in as few cache domains as that allows."""
    if not pins + emulator:
        return NOTHING
    best = _place(cell, cell.free, pins, emulator, threads)
    if len(cell.caches) < PAIR:
        return best
    best = best._replace(caches=_touched(cell, best))
    for domains in _fewer_domains(cell, pins + emulator, best.caches):
        within = cell.free & domains
        if can_place(_limited(cell, within), pins, emulator, threads):
            other = _place(cell, within, pins, emulator, threads)
            touched = _touched(cell, other)
            if other.harm == best.harm and other.withheld.bit_count() == best.withheld.bit_count() and touched < best.caches:
                return other._replace(caches=touched)
    return best


def _limited(cell: HostCell, free: int) -> HostCell:
    return HostCell(id=cell.id, free=free, cores=cell.cores, busy=cell.busy)


def _touched(cell: HostCell, choice: Choice) -> int:
    mask = 0
    for cpu in (*choice.pins, *choice.emulator):
        mask |= 1 << cpu
    return sum(1 for domain in cell.caches if domain & mask)


def _fewer_domains(cell: HostCell, count: int, most: int) -> Iterable[int]:
    """Yield masks of fewer than `most` cache domains that have enough free CPUs: the tightest single ones, then the emptiest together."""
    sized = sorted(((domain & cell.free).bit_count(), domain) for domain in cell.caches)
    if most > 1:
        yield from (domain for size, domain in sized if size >= count)
    mask = 0
    for number, (_, domain) in enumerate(reversed(sized), start=1):
        mask |= domain
        if PAIR <= number < most and (mask & cell.free).bit_count() >= count:
            yield mask


def _place(cell: HostCell, free: int, pins: int, emulator: int, threads: ThreadPolicy | None) -> Choice:
    if threads == "isolate":
        return _isolated(cell, free, pins, emulator)
    if pins and threads in ("require", "require-strict"):
        return _paired(cell, free, pins, emulator, strict=threads == "require-strict")
    found = chosen(cell.own, cell.zero, free, pins + emulator)
    order = _ordered(cell, found.mask)
    rest = _rest_of(cell, found.mask, order, emulator)
    taken = set(rest)
    return Choice(tuple(cpu for cpu in order if cpu not in taken), rest, 0, found.zero, 0, found.broken)


def _rest_of(cell: HostCell, mask: int, order: Sequence[int], count: int) -> tuple[int, ...]:
    """Return the CPUs of a choice that go to the emulator: those of the least used cores, so that vCPUs stay together."""
    if not count:
        return ()
    sizes = {cpu: (core & mask).bit_count() for core in (*cell.own, cell.zero) for cpu in iterate(core & mask)}
    return tuple(sorted(sorted(order, key=lambda cpu: (sizes[cpu], -cpu))[:count]))


def _ordered(cell: HostCell, mask: int) -> tuple[int, ...]:
    """Return the CPUs of a mask core by core, so that neighbouring vCPUs are siblings; CPU 0's core last."""
    order: list[int] = []
    for core in (*cell.own, cell.zero):
        if mask & core:
            order.extend(iterate(mask & core))
    return tuple(order)


def _isolated(cell: HostCell, free: int, pins: int, emulator: int) -> Choice:
    """Return one CPU of each of the cores that withhold the fewest siblings; CPU 0's core last among equals."""
    cores = [core & free for core in isolable(cell) if core & free]
    order = sorted(cores, key=lambda core: (core.bit_count(), bool(core & cell.zero), core & -core))[: pins + emulator]
    cpus = sorted((lowest(core, 1).bit_length() - 1 for core in order), key=lambda cpu: (bool(cell.zero >> cpu & 1), cpu))
    taken = 0
    withheld = 0
    for core in order:
        taken |= lowest(core, 1)
        withheld |= core
    zero = sum(1 for cpu in cpus if cell.zero >> cpu & 1)
    return Choice(tuple(cpus[:pins]), tuple(cpus[pins:]), withheld & ~taken, zero)


def _paired(cell: HostCell, free: int, pins: int, emulator: int, *, strict: bool) -> Choice:
    """Return pins on cores with at least two free threads, at most one of them alone; the emulator beside that one, or on a single thread."""
    parts = [(core & free, core) for core in cell.own if (core & free).bit_count() >= PAIR]
    if not _reaches([part.bit_count() for part, _ in parts], pins, strict=strict) and (cell.zero & free).bit_count() >= PAIR:
        parts.append((cell.zero & free, cell.zero))
    mask, lone = _fill(parts, pins, strict=strict)
    order = _ordered(cell, mask)
    rest = 0
    for _ in range(emulator):
        rest |= _spare(cell, free & ~(mask | rest), mask | rest)
    taken = mask | rest
    broken = sum(1 for core in cell.own if core & free == core and core & taken and core & ~taken)
    broken += int(bool(cell.zero) and cell.zero & free == cell.zero and bool(cell.zero & taken) and bool(cell.zero & ~taken))
    return Choice(order, tuple(iterate(rest)), 0, (taken & cell.zero).bit_count(), int(lone), broken)


def _spare(cell: HostCell, left: int, taken: int) -> int:
    """Return the mask of one CPU for the emulator: on a core that is partly taken, else on one that is not whole, else the lowest."""

    def cost(cpu: int) -> tuple[bool, bool, bool, int]:
        core = next((core for core in cell.own if core >> cpu & 1), cell.zero)
        return (bool(cell.zero >> cpu & 1), not core & taken, core & left == core, cpu)

    return 1 << min(iterate(left), key=cost)


def _fill(parts: Sequence[tuple[int, int]], pins: int, *, strict: bool) -> tuple[int, bool]:
    """Return the mask of `pins` CPUs of some partly free cores (they reach it), and whether one of them is alone on its core."""
    if all(part.bit_count() == PAIR for part, _ in parts):
        whole, odd = divmod(pins, PAIR)
        mask = 0
        for part, _ in parts[:whole]:
            mask |= part
        return (mask | lowest(parts[whole][0], 1), True) if odd else (mask, False)
    best: dict[tuple[int, bool], tuple[int, tuple[tuple[int, int], ...]]] = {(0, False): (0, ())}
    for part, core in parts:
        following = dict(best)
        for (count, lone), (broken, taken) in best.items():
            for take in range(1, min(part.bit_count(), pins - count) + 1):
                alone = lone or take == 1
                if take == 1 and (lone or strict):
                    continue
                cost = broken + int(part == core and take < part.bit_count())
                known = following.get((count + take, alone))
                if known is None or cost < known[0]:
                    following[count + take, alone] = (cost, (*taken, (part, take)))
        best = following
    _, lone = min((key for key in best if key[0] == pins), key=lambda key: (key[1], best[key][0]))
    mask = 0
    for part, take in best[pins, lone][1]:
        mask |= lowest(part, take)
    return mask, lone


def _reaches(sizes: Sequence[int], pins: int, *, strict: bool) -> bool:
    return pins <= sum(sizes) and (not strict or bool(_sums(sizes) >> pins & 1))


def _sums(sizes: Iterable[int]) -> int:
    """Return, as a mask of numbers, what cores of some sizes can give when each gives none or at least two."""
    reach = 1
    for size in sizes:
        more = reach
        for take in range(PAIR, size + 1):
            more |= reach << take
        reach = more
    return reach


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
    whole = [core for core in own if rest & core == core]
    partial = [left for core in own if 0 != (left := rest & core) != core]
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
    sizes = set(map(int.bit_count, whole))
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
