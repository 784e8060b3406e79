"""What changed between two looks at a machine: units that vanished, and the change in words.

Rules of this file: pure and total; which device of one look is which of the other was settled before (`naming`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from earmark.core.ledger.naming import contradict
from earmark.core.model.cpuset import format_cpu_list
from earmark.core.model.ids import UnitId, cpu_unit
from earmark.core.model.topology import Cell, Device, Machine
from earmark.core.model.units import KIB, format_bytes

LINES_MAX = 100
TEXT_LENGTH_MAX = 200


def differences(old: Machine | None, new: Machine) -> tuple[str, ...]:
    """Say in readable lines what changed from `old` to `new`, at most LINES_MAX; nothing changed is no line.

    The order is that of the machine: CPUs, cells, devices, disks, limits, notes; the last line counts what was left out.
    """
    if old is None:
        return (_first_seen(new),)
    if old == new:
        return ()
    lines = [*_cpus(old, new), *_cells(old, new), *_devices(old, new), *_disks(old, new), *_limits(old, new), *_notes(old, new)]
    if not lines:
        lines = ["details of the machine that no line names"]
    if len(lines) > LINES_MAX:
        lines[LINES_MAX - 1 :] = [f"and {len(lines) - LINES_MAX + 1} more differences"]
    return tuple(lines)


def vanished_units(old: Machine | None, new: Machine) -> frozenset[UnitId]:
    """Return the units (online CPUs, devices) that `old` has and `new` has not, or has as another device under the same name."""
    if old is None:
        return frozenset()
    there = {cpu.id for cpu in new.cpus}
    devices = {device.unit: device for device in new.devices}
    gone = [cpu_unit(cpu.id) for cpu in old.cpus if cpu.id not in there]
    gone += [device.unit for device in old.devices if device.unit not in devices or contradict(device, devices[device.unit])]
    return frozenset(gone)


# --- in words -----------------------------------------------------------------------------------------------------------------------


def _first_seen(new: Machine) -> str:
    cores = len({cpu.core for cpu in new.cpus})
    memory = format_bytes(sum(cell.memory_bytes for cell in new.cells))
    return f"first seen: {_count(len(new.cpus), 'CPU')} in {_count(cores, 'core')}, {_count(len(new.cells), 'cell')} with {memory}, {_count(len(new.devices), 'device')}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _cpus(old: Machine, new: Machine) -> Iterator[str]:
    was, now = {cpu.id: cpu for cpu in old.cpus}, {cpu.id: cpu for cpu in new.cpus}
    was_off, now_off = set(old.offline_cpus), set(new.offline_cpus)
    both = was.keys() & now.keys()
    yield from _group("gone", (was.keys() | was_off) - now.keys() - now_off)
    yield from _group("added", now.keys() - was.keys() - was_off)
    yield from _group("offline now", now_off & was.keys())
    yield from _group("added, offline", now_off - was.keys() - was_off)
    yield from _group("online now", now.keys() & was_off)
    yield from _group("in another core", (cpu for cpu in both if was[cpu].core != now[cpu].core))
    yield from _group("in another cell", (cpu for cpu in both if was[cpu].cell != now[cpu].cell))
    yield from _group("in another package or die", (c for c in both if (was[c].package, was[c].die) != (now[c].package, now[c].die)))
    yield from _group("with another last-level cache", (cpu for cpu in both if was[cpu].l3 != now[cpu].l3))
    yield from _group("of another kind", (cpu for cpu in both if was[cpu].kind != now[cpu].kind))
    yield from _group("isolated now", (cpu for cpu in both if now[cpu].isolated and not was[cpu].isolated))
    yield from _group("no longer isolated", (cpu for cpu in both if was[cpu].isolated and not now[cpu].isolated))


def _group(what: str, cpus: Iterable[int]) -> Iterator[str]:
    listed = sorted(cpus)
    if listed:
        yield _short(f"CPU{'s' if len(listed) > 1 else ''} {format_cpu_list(listed)} {what}")


def _cells(old: Machine, new: Machine) -> Iterator[str]:
    was, now = {cell.id: cell for cell in old.cells}, {cell.id: cell for cell in new.cells}
    for number in sorted(was.keys() | now.keys()):
        if number not in now:
            yield f"cell {number} gone ({format_bytes(was[number].memory_bytes)})"
        elif number not in was:
            yield f"cell {number} added ({_count(len(now[number].cpus), 'CPU')}, {format_bytes(now[number].memory_bytes)})"
        else:
            yield from _cell(was[number], now[number], same_cells=was.keys() == now.keys())


def _cell(was: Cell, now: Cell, *, same_cells: bool) -> Iterator[str]:
    if was.memory_bytes != now.memory_bytes:
        yield f"cell {now.id}: memory {_sizes(was.memory_bytes, now.memory_bytes)}"
    before, after = {pool.size_kib: pool.total for pool in was.pages}, {pool.size_kib: pool.total for pool in now.pages}
    for size in sorted(before.keys() | after.keys()):
        if before.get(size) != after.get(size):
            yield f"cell {now.id}: pages of {format_bytes(size * KIB)} {_or_none(before.get(size))} -> {_or_none(after.get(size))}"
    if was.distances != now.distances and same_cells:
        yield f"cell {now.id}: other distances"


def _devices(old: Machine, new: Machine) -> Iterator[str]:
    was, now = {device.unit: device for device in old.devices}, {device.unit: device for device in new.devices}
    for unit in sorted(was.keys() | now.keys()):
        if unit not in now:
            yield f"device {unit} gone ({_about(was[unit])})"
        elif unit not in was:
            yield f"device {unit} added ({_about(now[unit])})"
        elif contradict(was[unit], now[unit]):
            yield _short(f"device {unit} is another device now: {was[unit].identity} -> {now[unit].identity}")
        else:
            yield from _device(was[unit], now[unit])


ATTRIBUTES: tuple[tuple[str, Callable[[Device], object]], ...] = (
    ("driver", lambda device: device.driver),
    ("cell", lambda device: device.cell),
    ("IOMMU group", lambda device: device.iommu_group),
    ("parent", lambda device: device.parent),
    ("possible VFs", lambda device: device.sriov_total),
    ("resettable", lambda device: device.resettable),
    ("kind", lambda device: device.kind),
    ("name", lambda device: device.name),
    ("memory", lambda device: None if device.memory_bytes is None else format_bytes(device.memory_bytes)),
    ("links", lambda device: ", ".join(device.links) or None),
    ("fault", lambda device: device.fault),
    ("mediated devices", lambda device: ", ".join(f"{each.total} {each.name}" for each in device.mdev_types) or None),
    ("type", lambda device: device.dev_type),
    ("profile", lambda device: device.profile),
    ("identity", lambda device: device.identity),
)


def _device(was: Device, now: Device) -> Iterator[str]:
    if was.address != now.address:
        yield f"device {now.unit} moved from {_or_none(was.address)} to {_or_none(now.address)}"
    for name, attribute in ATTRIBUTES:
        if attribute(was) != attribute(now):
            yield _short(f"device {now.unit}: {name} {_or_none(attribute(was))} -> {_or_none(attribute(now))}")


def _about(device: Device) -> str:
    number = f"{device.vendor_id}:{device.product_id}" if device.vendor_id and device.product_id else None
    return ", ".join(part for part in (device.kind, number, device.address) if part)


def _disks(old: Machine, new: Machine) -> Iterator[str]:
    was, now = {disk.name: disk.total_bytes for disk in old.disks}, {disk.name: disk.total_bytes for disk in new.disks}
    for name in sorted(was.keys() | now.keys()):
        if name not in now:
            yield f"disk {name} gone ({format_bytes(was[name])})"
        elif name not in was:
            yield f"disk {name} added ({format_bytes(now[name])})"
        elif was[name] != now[name]:
            yield f"disk {name}: {_sizes(was[name], now[name])}"


def _limits(old: Machine, new: Machine) -> Iterator[str]:
    if old.usable_cpus != new.usable_cpus:
        yield _short(f"usable CPUs {_usable(old)} -> {_usable(new)}")
    if old.memory_limit_bytes != new.memory_limit_bytes:
        before, after = old.memory_limit_bytes, new.memory_limit_bytes
        both = before is not None and after is not None
        yield "memory limit " + (_sizes(before or 0, after or 0) if both else f"{_size_or_none(before)} -> {_size_or_none(after)}")
    if old.base_page_kib != new.base_page_kib:
        yield f"base page size {old.base_page_kib} KiB -> {new.base_page_kib} KiB"
    if old.model != new.model:
        yield _short(f"model {_or_none(old.model)} -> {_or_none(new.model)}")
    for trait in sorted(set(old.traits) ^ set(new.traits)):
        yield f"trait {trait} {'gone' if trait in old.traits else 'added'}"


def _notes(old: Machine, new: Machine) -> Iterator[str]:
    was, now = set(old.notes), set(new.notes)
    yield from (_short(f"new note: {note}") for note in new.notes if note not in was)
    yield from (_short(f"no longer: {note}") for note in old.notes if note not in now)


def _sizes(before: int, after: int) -> str:
    change = after - before
    return f"{format_bytes(before)} -> {format_bytes(after)} ({'+' if change >= 0 else ''}{format_bytes(change)})"


def _usable(machine: Machine) -> str:
    return "all" if machine.usable_cpus is None else format_cpu_list(machine.usable_cpus) or "none"


def _size_or_none(size: int | None) -> str:
    return "none" if size is None else format_bytes(size)


def _or_none(value: object) -> str:
    return "none" if value is None else str(value)


def _short(line: str) -> str:
    return line if len(line) <= TEXT_LENGTH_MAX else line[: TEXT_LENGTH_MAX - 1] + "…"
