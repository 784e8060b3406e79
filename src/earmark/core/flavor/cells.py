"""The guest's own cells: how many, which vCPUs and how much memory each has (N1 to N3).

Rules of this file: the order of the checks is Nova's. Source: Nova 34, virt/hardware.py (_get_numa_node_count_constraint,
_get_numa_topology_auto, _get_numa_topology_manual).
"""

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeVar

from earmark.core.flavor.flavor import Flavor
from earmark.core.flavor.texts import Texts, conflict, invalid
from earmark.core.flavor.vcpus import Vcpus, every, lowest, numbers_of, read_list
from earmark.core.model.request import GUEST_CELLS_MAX, GuestCell
from earmark.core.model.units import MIB

T = TypeVar("T")

FLAVOR_NUMBER = re.compile(r"[1-9][0-9]{0,17}")
IMAGE_NUMBER = re.compile(r"[0-9]{1,18}")
SIGNED = re.compile(r"\s*[-+]?[0-9]{1,18}\s*", re.ASCII)
LISTED_MAX = 128
"""Nova reads so many cells and no more (objects/image_meta.py NUMA_NODES_MAX)."""


class Cells(NamedTuple):
    """The guest's cells: their number, and what each is where the flavor or the image says so (None: all alike)."""

    number: int
    own: tuple[GuestCell, ...] | None


def cell_count(texts: Texts) -> int | None:
    """Return how many cells are asked for, None if none are; raises InvalidFlavor."""
    flavor, image = texts.both("numa_nodes")
    if flavor is not None and image is not None:
        raise conflict("ImageNUMATopologyForbidden", "numa_nodes", flavor, image, "only one of them may say it")
    text = flavor or image
    if text is None:
        return None
    form = FLAVOR_NUMBER if flavor is not None else IMAGE_NUMBER
    if not form.fullmatch(text) or not int(text):
        raise invalid("InvalidNUMANodesNumber", texts.source("numa_nodes"), text, "not a whole number from 1 on")
    return int(text)


def guest_cells(flavor: Flavor, texts: Texts, count: int, dedicated: int) -> Cells:
    """Return the guest's cells; `dedicated` is the mask of its dedicated vCPUs. Raises InvalidFlavor."""
    cpus = _listed(texts, "numa_cpus", lambda text, key: read_list(text, flavor.vcpus, key))
    mems = _listed(texts, "numa_mem", _mebibytes)
    if (cpus is None) != (mems is None):
        there, missing = ("numa_mem.0", "numa_cpus.0") if cpus is None else ("numa_cpus.0", "numa_mem.0")
        key = _written(there, texts)
        found = texts.specs.get(key, texts.image.get(key))
        raise invalid("ImageNUMATopologyIncomplete", key, found, f"needs {missing} too, of the flavor or the image")
    if cpus is None or mems is None:
        if flavor.vcpus % count or flavor.memory_mb % count:
            why = f"{flavor.vcpus} vCPUs and {flavor.memory_mb} MiB cannot be split evenly"
            raise invalid("ImageNUMATopologyAsymmetric", texts.source("numa_nodes"), count, why)
        return Cells(_bounded(count, texts), None)
    if len(cpus) != count or len(mems) != count:
        why = f"needs numa_cpus.N and numa_mem.N for each N below {count}, found {len(cpus)} and {len(mems)} without a gap"
        raise invalid("ImageNUMATopologyIncomplete", texts.source("numa_nodes"), count, why)
    _each_once(cpus, flavor.vcpus, texts)
    if sum(mems) != flavor.memory_mb or min(mems) < 0:
        why = f"not the flavor's {flavor.memory_mb} MiB in amounts from 0 on"
        raise invalid("ImageNUMATopologyMemoryOutOfRange", f"the sum of {_written('numa_mem.0', texts)[:-1]}N", sum(mems), why)
    _bounded(count, texts)
    cells = zip(cpus, mems, strict=True)
    return Cells(count, tuple(_cell(vcpus.mask, vcpus.mask & dedicated, mebibytes) for vcpus, mebibytes in cells))


def _cell(vcpus: int, dedicated: int, mebibytes: int) -> GuestCell:
    return GuestCell(vcpus=numbers_of(vcpus), dedicated=numbers_of(dedicated), memory_bytes=mebibytes * MIB)


def _written(name: str, texts: Texts) -> str:
    """Return the key under which a list stands, which is in the flavor or in the image."""
    return f"hw:{name}" if f"hw:{name}" in texts.specs else f"hw_{name}"


def _each_once(cells: list[Vcpus], count: int, texts: Texts) -> None:
    """Raise InvalidFlavor unless the cells name each vCPU of the flavor once; a cell is looked through from its lowest number on.

    Nova takes the numbers of one cell as its set gives them: where one cell has both a number too high and one named before, and the
    set gives the higher first, Nova names the other fault.
    """
    seen, said = 0, []
    for number, cell in enumerate(cells):
        again, key = seen & cell.mask, _written(f"numa_cpus.{number}", texts)
        said.append(texts.specs.get(key) or texts.image.get(key) or "")
        if again:
            raise invalid("ImageNUMATopologyCPUDuplicates", key, said[-1], f"vCPU {lowest(again)} is in a cell already")
        if cell.beyond is not None:
            raise invalid("ImageNUMATopologyCPUOutOfRange", key, said[-1], f"vCPU {cell.beyond} is not one of the flavor's {count}")
        seen |= cell.mask
    left = every(count) & ~seen
    if left:
        key, why = f"{_written('numa_cpus.0', texts)[:-1]}N", f"no cell has vCPU {lowest(left)}, each belongs to one"
        raise invalid("ImageNUMATopologyCPUsUnassigned", key, " and ".join(said), why)


def _bounded(count: int, texts: Texts) -> int:
    """Return the number of cells if a request can have so many."""
    if count > GUEST_CELLS_MAX:
        raise invalid("BeyondBounds", texts.source("numa_nodes"), count, f"a guest has at most {GUEST_CELLS_MAX} cells")
    return count


def _listed(texts: Texts, name: str, read: Callable[[str, str], T]) -> list[T] | None:
    """Return what NAME.0, NAME.1, … say, None if there is no NAME.0; raises InvalidFlavor if flavor and image both say it."""
    flavor = _numbered(texts.specs, f"hw:{name}.", read)
    image = _numbered(texts.image, f"hw_{name}.", read)
    if flavor and image:
        raise conflict(
            "ImageNUMATopologyForbidden", name + ".N", texts.specs[f"hw:{name}.0"], texts.image[f"hw_{name}.0"], "only one may say it"
        )
    return flavor or image or None


def _numbered(texts: Mapping[str, str], prefix: str, read: Callable[[str, str], T]) -> list[T]:
    values: list[T] = []
    while (key := f"{prefix}{len(values)}") in texts and len(values) < LISTED_MAX:
        values.append(read(texts[key], key))
    return values


def _mebibytes(text: str, key: str) -> int:
    """Return an amount of memory in MiB, which may be negative: the sum of all is looked at later."""
    if not SIGNED.fullmatch(text):
        raise invalid("Invalid", key, text, "not a whole number of MiB")
    return int(text)
