"""A machine written in one line, as people say it: "2x8c/2t 64G 2M:1024 disk:200G gpu:2 vf:4", or "8c/32G+4c/16G gpu:1@1".

Rules of this file: a text is parsed strictly, with named bounds; the same text is the same machine everywhere.
"""

import re
from typing import NamedTuple, NoReturn

from earmark.core.model.ids import UnitId
from earmark.core.model.topology import CELLS_MAX, CPUS_MAX, DEVICES_MAX, LOCAL_DISTANCE, Cell, Cpu, Device, Disk, Machine, PagePool
from earmark.core.model.units import GIB, KIB, parse_bytes
from earmark.errors import InvalidRequest

SHAPE = re.compile(r"(?:(?P<cells>[0-9]{1,5})[x\u00d7])?(?P<cores>[0-9]{1,5})c(?:/(?P<threads>[0-9]{1,2})t)?(?P<own>(?:/[^/]+)*)")
COUNT = re.compile(r"[0-9]{1,12}")
CELL = re.compile(r"[0-9]{1,5}")
KIND = re.compile(r"[a-z][a-z0-9]{0,15}")
FAR_DISTANCE = 21
CELL_MEMORY_BYTES = 16 * GIB
DISK_BYTES = 200 * GIB
BUSES = 256
VFS_PER_SLOT = 8
VFS_MAX = 255
"""Virtual functions of the one physical function: as many as its bus has addresses."""
PHYSICAL = "0000:0a:00.0"
MODEL = "a machine written in one line"


class Group(NamedTuple):
    """Cells that are alike; `memory` is what each has of its own, None: its part of the machine's."""

    cells: int
    cores: int
    threads: int
    memory: int | None
    pages: dict[int, PagePool]


def machine_of(text: str) -> Machine:
    """Return the machine that a line describes.

    Cells x cores per cell / threads per core; all memory, split evenly over the cells (huge pages are part of it); pages per cell as
    SIZE:COUNT; `disk:SIZE` (0: none); devices as KIND:COUNT, dealt to the cells in turn (`vf:N` also makes the one PF they belong to),
    or KIND:COUNT@CELL, as often as there are places (`none`: on no cell that is known). Cells that are not alike are joined with `+`,
    each with memory and pages of its own: `8c/2t/32G/2M:1024+4c/16G`. `sockets:N` deals the cells to so many sockets, else each has its own.
    What is left out: one cell, one thread, 16 GiB per cell, a disk of 200 GiB. Threads of a core are neighbours (0,1), (2,3), …
    Raises InvalidRequest.
    """
    shape, *rest = text.split() or [""]
    groups = [_group(text, part) for part in shape.split("+")]
    cells = sum(group.cells for group in groups)
    if not (0 < cells <= CELLS_MAX and 0 < sum(group.cells * group.cores * group.threads for group in groups) <= CPUS_MAX):
        _wrong(text, f"{shape!r} is not 1 to {CELLS_MAX} cells of together 1 to {CPUS_MAX} CPUs")
    memory, disk, sockets = CELL_MEMORY_BYTES * cells, DISK_BYTES, cells
    devices: dict[str, list[Device]] = {}
    for part in rest:
        name, colon, value = part.partition(":")
        if not colon:
            memory = parse_bytes(name, what=f"memory of machine {text!r}")
            if any(group.memory is not None for group in groups):
                _wrong(text, f"{part!r}: a cell has memory of its own")
        elif name == "disk":
            disk = parse_bytes(value, what=f"disk of machine {text!r}")
        elif name == "sockets":
            sockets = _count(text, part, value)
            if not 0 < sockets <= cells:
                _wrong(text, f"{part!r} is not 1 to {cells} sockets: no more than cells")
        elif name[:1].isdigit():
            for group in groups:
                _add_pages(text, part, group.pages)
        else:
            devices[name] = devices.get(name, []) + _devices(text, part, len(devices.get(name, ())), cells)
    if (number := sum(len(each) for each in devices.values())) > DEVICES_MAX:
        _wrong(text, f"{number} devices are more than {DEVICES_MAX}")
    made, cpus = _cells(text, groups, memory // cells, sockets)
    return Machine(
        cpus=cpus, cells=made, devices=tuple(device for kind in devices.values() for device in kind),
        disks=(Disk(name="root", total_bytes=disk),) if disk else (), model=MODEL,
    )  # fmt: skip


def _cells(text: str, groups: list[Group], memory: int, sockets: int) -> tuple[tuple[Cell, ...], tuple[Cpu, ...]]:
    """Return the cells of some groups with their CPUs; `memory` is what a cell has that has none of its own."""
    cells = sum(group.cells for group in groups)
    made: list[Cell] = []
    cpus: list[Cpu] = []
    for group in groups:
        own = memory if group.memory is None else group.memory
        if sum(pool.size_kib * pool.total * KIB for pool in group.pages.values()) > own:
            _wrong(text, "its huge pages are more than the memory of a cell")
        for number in range(len(made), len(made) + group.cells):
            first = len(cpus)
            ids = range(first, first + group.cores * group.threads)
            package = number * sockets // cells
            cpus += [Cpu(id=n, core=n - (n - first) % group.threads, cell=number, package=package, l3=first) for n in ids]
            made.append(
                Cell(
                    id=number,
                    cpus=tuple(ids),
                    memory_bytes=own,
                    pages=tuple(group.pages[kib] for kib in sorted(group.pages)),
                    distances=tuple(LOCAL_DISTANCE if number == other else FAR_DISTANCE for other in range(cells)),
                )
            )
    return tuple(made), tuple(cpus)


def _wrong(text: str, problem: str) -> NoReturn:
    raise InvalidRequest(f"machine {text!r}: {problem}", found=text)


def _group(text: str, part: str) -> Group:
    """Read CELLSxCORESc/THREADSt/MEMORY/SIZE:COUNT, of which only the cores must be there."""
    match = SHAPE.fullmatch(part)
    if not match:
        _wrong(text, f"{part!r} is not CELLSxCORESc/THREADSt, as in 2x8c/2t")
    cells, cores, threads = int(match["cells"] or 1), int(match["cores"]), int(match["threads"] or 1)
    if not (cells and cores and threads):
        _wrong(text, f"{part!r} is not 1 to {CELLS_MAX} cells of together 1 to {CPUS_MAX} CPUs")
    memory: int | None = None
    pages: dict[int, PagePool] = {}
    for own in filter(None, match["own"].split("/")):
        if ":" in own:
            _add_pages(text, own, pages)
        elif memory is not None:
            _wrong(text, f"{part!r} has two sizes of memory")
        else:
            memory = parse_bytes(own, what=f"memory of a cell of machine {text!r}")
    return Group(cells, cores, threads, memory, pages)


def _devices(text: str, part: str, first: int, cells: int) -> list[Device]:
    """Read KIND:COUNT, once, or KIND:COUNT@CELL; `first` of the kind are there already."""
    kind, _, value = part.partition(":")
    number, at, cell = value.partition("@")
    if not KIND.fullmatch(kind) or (first and not at):
        _wrong(text, f"{part!r} is not SIZE:COUNT, disk:SIZE, sockets:COUNT or KIND:COUNT, once each, or KIND:COUNT@CELL")
    count, most = _count(text, part, number), VFS_MAX if kind == "vf" else DEVICES_MAX
    if count > most:
        _wrong(text, f"{count} of {kind} are more than {most}")
    if kind == "vf":
        if at:
            _wrong(text, f"{part!r}: virtual functions lie where their card is, on cell 0")
        return _virtual(count)
    if at and cell != "none" and not (CELL.fullmatch(cell) and int(cell) < cells):
        _wrong(text, f"{part!r}: {cell!r} is no cell from 0 to {cells - 1}, nor none")
    slot, unit = (0x40, "gpu:GPU-") if kind == "gpu" else (0x80, f"{kind}:")
    places = [None if cell == "none" else int(cell) if at else n % cells for n in range(count)]
    return [Device(unit=UnitId(f"{unit}{n}"), kind=kind, address=_address(slot + n), cell=place) for n, place in enumerate(places, first)]


def _add_pages(text: str, part: str, pages: dict[int, PagePool]) -> None:
    """Read SIZE:COUNT of one size that is not there yet."""
    name, _, value = part.partition(":")
    kib = parse_bytes(name, what=f"page size of machine {text!r}") // KIB
    if kib < 1 or kib in pages:
        _wrong(text, f"{part!r} is not a page size of its own")
    pages[kib] = PagePool(size_kib=kib, total=_count(text, part, value))


def _count(text: str, part: str, value: str) -> int:
    if not COUNT.fullmatch(value):
        _wrong(text, f"{part!r} does not end with a number")
    return int(value)


def _virtual(count: int) -> list[Device]:
    """Return a card and so many virtual functions of it."""
    parent = Device(unit=UnitId(f"pci:{PHYSICAL}"), kind="nic", address=PHYSICAL, cell=0, sriov_total=count, sriov_offset=1, sriov_stride=1)
    vfs = [f"0000:0a:{n // VFS_PER_SLOT:02x}.{n % VFS_PER_SLOT}" for n in range(1, count + 1)]
    return [parent] + [Device(unit=UnitId(f"pci:{at}"), kind="vf", address=at, cell=0, parent=parent.unit) for at in vfs]


def _address(slot: int) -> str:
    """Return the address of a numbered slot: buses first, then domains."""
    return f"{slot // BUSES:04x}:{slot % BUSES:02x}:00.0"
