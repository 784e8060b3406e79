"""In what one request differs from another, in words: what a proposal changes, all of it.

Rules of this file: every field that differs is named, or nothing is said at all. First what stands instead of something else, then what follows
from it (the vCPUs that are still dedicated, memory that is no longer locked), last what is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from earmark.core.fit.devices.match import policy_of
from earmark.core.model.cpuset import format_cpu_list
from earmark.core.model.request import DeviceRequest, GuestCell, Request
from earmark.core.model.units import KIB, THOUSAND, counted, exact_bytes, format_bytes

CHANGES_MAX = 3
"""So many things that stand instead of others are said in one proposal."""
LIST_MAX = 40
"""So long may a list of vCPUs be."""


class Difference(NamedTuple):
    """What stands instead of something else, what follows from it, and what is left out."""

    instead: tuple[str, ...] = ()
    then: tuple[str, ...] = ()
    without: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """All of it as one phrase; "" where it is too much for one."""
        if len(self.instead) > CHANGES_MAX or any(len(each) > LIST_MAX for each in self.then):
            return ""
        left = (f"without {_listed(self.without)}",) if self.without else ()
        return ", ".join((*((_listed(self.instead),) if self.instead else ()), *self.then, *left))

    @property
    def size(self) -> int:
        """How many things differ."""
        return sum(map(len, self))


def difference(before: Request, after: Request) -> Difference:
    """Return all that differs between two requests of which one was made from the other."""
    parts = [_cells(before, after), _policies(before, after), _vcpus(before, after), _memory(before, after), _rest(before, after)]
    parts.append(_devices(before.devices, after.devices))
    instead, then, without = (tuple(said for part in parts for said in part[place]) for place in range(len(Difference._fields)))
    return Difference(instead, then, without)


def _listed(words: Sequence[str]) -> str:
    """Return words as a list in a sentence: "a, b and c"."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _cells(before: Request, after: Request) -> Difference:
    """Return what differs in the number of cells, in the vCPUs and in the memory of the guest or of its cells."""
    instead = []
    old, new = before.cells or len(before.guest_cells) or 1, after.cells or len(after.guest_cells) or 1
    if before.guest_cells and after.guest_cells and old == new:
        return Difference(tuple(_in_cells(before.guest_cells, after.guest_cells)))
    if before.vcpus != after.vcpus:
        instead.append(f"{counted(after.vcpus, 'vCPU')} instead of {before.vcpus}")
    if before.memory_bytes != after.memory_bytes:
        instead.append(f"{exact_bytes(after.memory_bytes)} of memory instead of {exact_bytes(before.memory_bytes)}")
    if (before.cells, before.guest_cells) != (after.cells, after.guest_cells):
        kind = "equal guest cell" if len(before.guest_cells) > 1 and new > 1 else "guest cell"
        instead.append(f"{counted(new, kind)} instead of {old if old != new else 'unlike ones'}")
    return Difference(tuple(instead))


def _in_cells(before: Sequence[GuestCell], after: Sequence[GuestCell]) -> Iterator[str]:
    """Yield what differs in guest cells that are described one by one; those in which the same differs are said together."""
    where: dict[str, list[int]] = {}
    for number, (was, now) in enumerate(zip(before, after, strict=True)):
        if len(was.vcpus) != len(now.vcpus):
            where.setdefault(f"{counted(len(now.vcpus), 'vCPU')} instead of {len(was.vcpus)}", []).append(number)
        if was.memory_bytes != now.memory_bytes:
            memory = f"{exact_bytes(now.memory_bytes)} of memory instead of {exact_bytes(was.memory_bytes)}"
            where.setdefault(memory, []).append(number)
    together: dict[tuple[int, ...], list[str]] = {}
    for change, numbers in where.items():
        together.setdefault(tuple(numbers), []).append(change)
    for places, changes in together.items():
        cells = f"guest {'cell' if len(places) == 1 else 'cells'} {format_cpu_list(places)}"
        yield f"{_listed(changes)} in {'each guest cell' if len(places) == len(before) > 1 else cells}"


def _policies(before: Request, after: Request) -> Difference:
    """Return what differs in the policies for CPUs, threads and the emulator."""
    instead, without = [], []
    if before.cpu_policy != after.cpu_policy:
        instead.append(f"{after.cpu_policy} CPUs instead of {before.cpu_policy} ones")
    for name, was, now in (
        ("thread policy", before.thread_policy, after.thread_policy),
        ("emulator policy", before.emulator_policy, after.emulator_policy),
    ):
        if was != now and now is not None:
            instead.append(f"{name} {now} instead of {was}")
        elif was != now:
            without.append(f"{name} {was}")
    return Difference(tuple(instead), (), tuple(without))


def _vcpus(before: Request, after: Request) -> Difference:
    """Return what differs in which vCPUs are dedicated and real-time, and in the topology that the guest is shown."""
    own, real = after.dedicated_vcpus != before.dedicated_vcpus, after.realtime_vcpus != before.realtime_vcpus
    then, without = [], []
    if own and real and after.dedicated_vcpus == after.realtime_vcpus and after.dedicated_vcpus:
        then.append(f"{_named(after.dedicated_vcpus)} dedicated and real-time")
    else:
        then += [f"{_named(after.dedicated_vcpus)} dedicated"] if own and after.dedicated_vcpus else []
        then += [f"{_named(after.realtime_vcpus)} real-time"] if real and after.realtime_vcpus else []
    if own and not after.dedicated_vcpus and after.cpu_policy == before.cpu_policy:
        without.append("dedicated vCPUs")
    if real and not after.realtime_vcpus:
        without.append("real-time vCPUs")
    if after.topology != before.topology:
        without.append("its topology")
    return Difference((), tuple(then), tuple(without))


def _named(vcpus: Sequence[int]) -> str:
    return f"{'vCPU' if len(vcpus) == 1 else 'vCPUs'} {format_cpu_list(sorted(vcpus))}"


def _memory(before: Request, after: Request) -> Difference:
    """Return what differs in the pages that memory is made of."""
    instead = []
    if before.page_kib != after.page_kib:
        instead.append(f"{_pages(after)} instead of {_pages(before)}")
    return Difference(tuple(instead), ("not locked",) if before.locked_memory and not after.locked_memory else ())


def _pages(request: Request) -> str:
    size = request.page_kib
    if isinstance(size, int):
        return f"pages of {format_bytes(size * KIB)}"
    return "ordinary memory" if size is None else f"{size} pages" if size != "any" else "pages of any size"


def _rest(before: Request, after: Request) -> Difference:
    """Return what differs in disk and resource classes."""
    instead, without = [], []
    if before.disk_bytes != after.disk_bytes:
        instead.append(f"{exact_bytes(after.disk_bytes)} of disk instead of {exact_bytes(before.disk_bytes)}")
    now = {item.resource_class: item.amount for item in after.resources}
    for item in before.resources:
        if item.resource_class not in now:
            without.append(item.resource_class)
        elif now[item.resource_class] != item.amount:
            instead.append(f"{now[item.resource_class]} of {item.resource_class} instead of {item.amount}")
    return Difference(tuple(instead), (), tuple(without))


# --- devices ------------------------------------------------------------------------------------------------------------------------


def _devices(before: Sequence[DeviceRequest], after: Sequence[DeviceRequest]) -> Difference:
    """Return what differs in the wishes for devices: of as many, or with some of them left out."""
    kept = [number for number, _ in enumerate(before)]
    if len(before) != len(after):
        kept = _kept(before, after) or _kept([replace(wish, count=1) for wish in before], [replace(wish, count=1) for wish in after])
    names = [wish.alias or wish.kind for wish in before]
    gone = [number for number, _ in enumerate(before) if number not in kept]
    without = tuple(f"{before[number].count} {names[number]}" if names.count(names[number]) > 1 else names[number] for number in gone)
    changed = [(before[number], now) for number, now in zip(kept, after, strict=True) if before[number] != now]
    farther = [(was, now) for was, now in changed if was.affinity != now.affinity]
    instead: list[str] = []
    if len(farther) > 1:
        instead.append("devices wherever they are (affinity preferred)")
    elif farther:
        was, now = farther[0]
        instead.append(f"{was.alias or was.kind} wherever it is (affinity {policy_of(now)} instead of {policy_of(was)})")
    fewer: dict[str, list[tuple[int, int]]] = {}
    for was, now in changed:
        name = was.alias or was.kind
        if was.linked and not now.linked:
            instead.append(f"{name} that need not be linked")
        if was.memory_bytes != now.memory_bytes:
            instead.append(f"{name} with {exact_bytes(now.memory_bytes or 0)} instead of {exact_bytes(was.memory_bytes or 0)}")
        if was.share != now.share:
            instead.append(f"{now.share}/{THOUSAND} of a {name} instead of {was.share}/{THOUSAND}")
        if was.count != now.count:
            fewer.setdefault(name, []).append((was.count, now.count))
    for name, counts in fewer.items():
        one = len(counts) == 1 and counts[0][1] == 1
        had, have = (_listed([str(pair[place]) for pair in counts]) for place in range(2))
        instead.append(f"{have} {name} {'device' if one else 'devices'} instead of {had}")
    return Difference(tuple(instead), (), without)


def _kept(before: Sequence[DeviceRequest], after: Sequence[DeviceRequest]) -> list[int]:
    """Return which wishes are still there, by number; [] where those that are there are not some of those that were."""
    kept: list[int] = []
    for number, wish in enumerate(before):
        if len(kept) < len(after) and wish == after[len(kept)]:
            kept.append(number)
    return kept if len(kept) == len(after) else []
