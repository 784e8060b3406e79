"""A machine from a file: what `earmark discover --json` printed somewhere else, made a machine again.

Rules of this file: the file is decoded strictly; what is not the answer of discover is an error that names the file.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from earmark.cli.output_machine import DiscoverOut
from earmark.core.model.cpuset import CPU_MAX
from earmark.core.model.ids import UnitId
from earmark.core.model.topology import (
    CELLS_MAX,
    CPUS_MAX,
    DEVICES_MAX,
    NO_CELL,
    Cell,
    Cpu,
    Device,
    Disk,
    Machine,
    PagePool,
)
from earmark.drivers.contract import Observation
from earmark.errors import InvalidRecord

FILE_BYTES_MAX = 64 * 1024 * 1024


def machine_in(path: Path) -> Observation:
    """Return what a file of `earmark discover --json` saw; raises InvalidRecord."""
    try:
        with path.open("rb") as file:
            raw = file.read(FILE_BYTES_MAX + 1)
    except (OSError, ValueError) as error:
        raise InvalidRecord(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}", file=str(path)) from error
    if len(raw) > FILE_BYTES_MAX:
        raise InvalidRecord(f"{path} is larger than {FILE_BYTES_MAX} bytes", file=str(path))
    return machine_from(raw, str(path))


def machine_from(raw: bytes, source: str) -> Observation:
    """Return what an answer of `earmark discover --json` says was seen; raises InvalidRecord."""
    try:
        found = msgspec.json.decode(raw, type=DiscoverOut)
        machine = _machine(found)
        return msgspec.convert(
            msgspec.to_builtins(Observation(machine=machine, hostname=found.hostname, boot_id="", machine_ref=found.machine_ref)),
            Observation,
        )
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRecord(f"{source} is not what `earmark discover --json` prints: {error}", file=source) from error


def _machine(found: DiscoverOut) -> Machine:
    """Return the machine of an answer; raises ValidationError for groups of CPUs that contradict each other."""
    _bounded(found)
    online = sorted(found.cpus)
    core = _least(found.cores, online)
    if found.cores and set(core) != set(online):
        raise msgspec.ValidationError("cores: every CPU is in one, or there are none")
    l3, package = _least(found.l3, online), _numbered(found.sockets, online)
    die = _numbered(found.dies, online)
    kinds = {cpu: kind for kind, cpus in found.kinds.items() for cpu in cpus}
    cells = {cpu: cell.id for cell in found.cells if not cell.memory_only for cpu in cell.cpus}
    isolated = set(found.isolated)
    return Machine(
        cpus=tuple(
            Cpu(
                id=cpu, core=core.get(cpu, cpu), cell=cells.get(cpu, NO_CELL), package=package.get(cpu), die=die.get(cpu), l3=l3.get(cpu),
                kind=kinds.get(cpu), isolated=cpu in isolated,
            )
            for cpu in online
        ),
        cells=tuple(
            Cell(
                id=cell.id, cpus=() if cell.memory_only else tuple(sorted(cell.cpus)), memory_bytes=cell.memory_bytes,
                pages=tuple(sorted((PagePool(size_kib=p.size_kib, total=p.total) for p in cell.pages), key=lambda pool: pool.size_kib)),
                distances=tuple(cell.distances),
            )
            for cell in sorted(found.cells, key=lambda cell: cell.id)
        ),
        devices=tuple(sorted((_device(each) for each in found.devices), key=lambda device: device.unit)),
        disks=tuple(msgspec.convert(each, Disk) for each in found.disks), offline_cpus=tuple(sorted(found.offline)),
        usable_cpus=None if sorted(found.usable) == online else tuple(sorted(found.usable)), memory_limit_bytes=found.memory_limit_bytes,
        base_page_kib=found.base_page_kib, cores_named=bool(found.cores) or not online, traits=tuple(sorted(found.traits)),
        model=found.model, notes=tuple(found.notes),
        unread=tuple(sorted(UnitId(unit) for unit in found.unread)),
    )  # fmt: skip


def _bounded(found: DiscoverOut) -> None:
    for what, items, most in (("cpus", found.cpus, CPUS_MAX), ("cells", found.cells, CELLS_MAX), ("devices", found.devices, DEVICES_MAX)):
        if len(items) > most:
            raise msgspec.ValidationError(f"{what}: {len(items)} are more than {most}")
    if len(set(found.cpus)) != len(found.cpus) or len({cell.id for cell in found.cells}) != len(found.cells):
        raise msgspec.ValidationError("a CPU or a cell stands twice")
    if any(not 0 <= cpu <= CPU_MAX for cpu in (*found.cpus, *found.offline, *found.usable)):
        raise msgspec.ValidationError(f"a CPU is not a number from 0 to {CPU_MAX}")


def _least(groups: list[list[int]], online: list[int]) -> dict[int, int]:
    """Return each CPU's group by the lowest CPU in it; raises ValidationError for a CPU in two groups or unknown."""
    found: dict[int, int] = {}
    known = set(online)
    for group in groups:
        for cpu in group:
            if cpu in found or cpu not in known:
                raise msgspec.ValidationError(f"CPU {cpu} is in two groups of one kind, or in one and not online")
            found[cpu] = min(group)
    return found


def _numbered(groups: list[list[int]], online: list[int]) -> dict[int, int]:
    """Return each CPU's group by number, in the order of their lowest CPUs."""
    least = _least(groups, online)
    numbers = {first: number for number, first in enumerate(sorted(set(least.values())))}
    return {cpu: numbers[first] for cpu, first in least.items()}


def _device(shown: dict[str, object]) -> Device:
    return msgspec.convert({key: value for key, value in shown.items() if key != "children"}, Device)
