"""A machine written in one line, as people say it: "2x8c/2t 64G 2M:1024 disk:200G gpu:2 vf:4".

Rules of this file: a text is parsed strictly, with named bounds; the same text is the same machine everywhere.
"""

import re

from earmark.core.model.ids import UnitId
from earmark.core.model.topology import CELLS_MAX, CPUS_MAX, DEVICES_MAX, LOCAL_DISTANCE, Cell, Cpu, Device, Disk, Machine, PagePool
from earmark.core.model.units import GIB, KIB, parse_bytes
from earmark.errors import InvalidRequest

SHAPE = re.compile(r"(?:(?P<cells>[0-9]{1,5})[x\u00d7])?(?P<cores>[0-9]{1,5})c(?:/(?P<threads>[0-9]{1,2})t)?")
COUNT = re.compile(r"[0-9]{1,12}")
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


def machine_of(text: str) -> Machine:
    """Return the machine that a line describes.

    Cells x cores per cell / threads per core; all memory, split evenly over the cells (huge pages are part of it); pages per cell as
    SIZE:COUNT; `disk:SIZE` (0: none); devices as KIND:COUNT, dealt to the cells in turn (`vf:N` also makes the one PF they belong to).
    What is left out: one cell, one thread, 16 GiB per cell, a disk of 200 GiB. Threads of a core are neighbours (0,1), (2,3), …
    Raises InvalidRequest.
    """
    shape, *rest = text.split() or [""]
    match = SHAPE.fullmatch(shape)
    if not match:
        raise InvalidRequest(f"machine {text!r}: {shape!r} is not CELLSxCORESc/THREADSt, as in 2x8c/2t", found=text)
    cells, cores, threads = int(match["cells"] or 1), int(match["cores"]), int(match["threads"] or 1)
    if not (0 < cells <= CELLS_MAX and cores > 0 and threads > 0 and cells * cores * threads <= CPUS_MAX):
        raise InvalidRequest(f"machine {text!r}: {shape!r} is not 1 to {CELLS_MAX} cells of together 1 to {CPUS_MAX} CPUs", found=text)
    memory = CELL_MEMORY_BYTES * cells
    pools: dict[int, PagePool] = {}
    devices: dict[str, list[Device]] = {}
    disk = DISK_BYTES
    for part in rest:
        name, colon, value = part.partition(":")
        if not colon:
            memory = parse_bytes(name, what=f"memory of machine {text!r}")
        elif name == "disk":
            disk = parse_bytes(value, what=f"disk of machine {text!r}")
        elif name[:1].isdigit():
            kib = parse_bytes(name, what=f"page size of machine {text!r}") // KIB
            if kib < 1 or kib in pools:
                raise InvalidRequest(f"machine {text!r}: {part!r} is not a page size of its own", found=text)
            pools[kib] = PagePool(size_kib=kib, total=_count(text, part, value))
        elif not KIND.fullmatch(name) or name in devices:
            raise InvalidRequest(f"machine {text!r}: {part!r} is not SIZE:COUNT, disk:SIZE or KIND:COUNT, once each", found=text)
        else:
            devices[name] = _devices(text, name, _count(text, part, value), cells)
    _fits(text, memory // cells, pools, sum(len(each) for each in devices.values()))
    per_cell = cores * threads
    return Machine(
        cpus=tuple(
            Cpu(id=n, core=n - n % threads, cell=n // per_cell, package=n // per_cell, l3=n // per_cell * per_cell)
            for n in range(cells * per_cell)
        ),
        cells=tuple(
            Cell(
                id=n, cpus=tuple(range(n * per_cell, (n + 1) * per_cell)), memory_bytes=memory // cells,
                pages=tuple(pools[kib] for kib in sorted(pools)),
                distances=tuple(LOCAL_DISTANCE if n == other else FAR_DISTANCE for other in range(cells)),
            )
            for n in range(cells)
        ),
        devices=tuple(device for kind in devices.values() for device in kind),
        disks=(Disk(name="root", total_bytes=disk),) if disk else (), model=MODEL,
    )  # fmt: skip


def _count(text: str, part: str, value: str) -> int:
    if not COUNT.fullmatch(value):
        raise InvalidRequest(f"machine {text!r}: {part!r} does not end with a number", found=text)
    return int(value)


def _fits(text: str, cell_bytes: int, pools: dict[int, PagePool], devices: int) -> None:
    if sum(pool.size_kib * pool.total * KIB for pool in pools.values()) > cell_bytes:
        raise InvalidRequest(f"machine {text!r}: its huge pages are more than the memory of a cell", found=text)
    if devices > DEVICES_MAX:
        raise InvalidRequest(f"machine {text!r}: {devices} devices are more than {DEVICES_MAX}", found=text)


def _devices(text: str, kind: str, count: int, cells: int) -> list[Device]:
    if count > (VFS_MAX if kind == "vf" else DEVICES_MAX):
        raise InvalidRequest(f"machine {text!r}: {count} of {kind} are more than {VFS_MAX if kind == 'vf' else DEVICES_MAX}", found=text)
    if kind == "vf":
        parent = Device(
            unit=UnitId(f"pci:{PHYSICAL}"), kind="nic", address=PHYSICAL, cell=0, sriov_total=count, sriov_offset=1, sriov_stride=1
        )
        vfs = [f"0000:0a:{n // VFS_PER_SLOT:02x}.{n % VFS_PER_SLOT}" for n in range(1, count + 1)]
        return [parent] + [Device(unit=UnitId(f"pci:{at}"), kind="vf", address=at, cell=0, parent=parent.unit) for at in vfs]
    first, unit = (0x40, "gpu:GPU-") if kind == "gpu" else (0x80, f"{kind}:")
    return [Device(unit=UnitId(f"{unit}{n}"), kind=kind, address=_address(first + n), cell=n % cells) for n in range(count)]


def _address(slot: int) -> str:
    """Return the address of a numbered slot: buses first, then domains."""
    return f"{slot // BUSES:04x}:{slot % BUSES:02x}:00.0"
