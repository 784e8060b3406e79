"""The format of a case: one host as it is used, one request, and what should be true of both; one JSON object a line.

Rules of this file: types and ranges first, then what parts must agree in; a key that is not known is passed over, wherever it stands (recordings
carry what others found out), one that is needed is never. Numbers with a point are read as decimals and become what JSON's readers make of
them: the nearest double (`double`), so that two programs that multiply by a ratio agree to the last bit.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Iterable
from decimal import Decimal
from fractions import Fraction
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from earmark.core.model.cpuset import CpuNumber
from earmark.core.model.request import DEVICE_REQUESTS_MAX, Affinity
from earmark.core.model.topology import CELLS_MAX, DEVICES_MAX
from earmark.errors import InvalidRecord

LINE_BYTES_MAX = 16 << 20
"""A longer line is no case."""
VCPUS_MAX = 1 << 15
"""More than any hypervisor gives one guest."""
RATIO_LEAST, RATIO_MOST = Decimal("0.000001"), Decimal(1_000_000)
DIGITS_MAX = 400
"""A ratio with more digits is not one."""
MANTISSA = 53
"""The bits of a double's mantissa (IEEE 754 binary64)."""
PLACE = re.compile(r" - at `\$?\.?(.*)`$", re.DOTALL)

Natural = Annotated[int, Meta(ge=0, le=1 << 40)]
Count = Annotated[int, Meta(ge=0, le=1 << 20)]
Name = Annotated[str, Meta(min_length=1, max_length=256)]
CellNumber = Annotated[int, Meta(ge=0, le=1 << 20)]
CaseName = str | int
"""What a case is called: any text or whole number."""
Said = str | int | bool | None
"""A property as somebody wrote it: compared as text."""


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """What all parts of a case share."""


class Sets(Part, frozen=True):
    """The CPUs of a cell that may be shared, and those that may be dedicated."""

    shared: Annotated[tuple[CpuNumber, ...], Meta(max_length=8192)]
    dedicated: Annotated[tuple[CpuNumber, ...], Meta(max_length=8192)]


class Pages(Part, frozen=True):
    """The pages of one size on a cell."""

    size_kb: Annotated[int, Meta(ge=1, le=1 << 40)]
    total: Natural
    reserved: Natural
    used: Natural

    @property
    def free(self) -> int:
        """What is left; negative where more is promised than there is."""
        return self.total - self.reserved - self.used


class CellUse(Part, frozen=True):
    """What is used of a cell."""

    memory_mb: Natural
    pinned_cpus: tuple[CpuNumber, ...]
    shared_vcpus: Count


class CaseCell(Part, frozen=True):
    """One cell of the host; `distances` are in the order of the host's cells. One without CPUs has memory only."""

    id: CellNumber
    memory_mb: Natural
    cpus: Sets
    siblings: tuple[tuple[CpuNumber, ...], ...]
    pages: Annotated[tuple[Pages, ...], Meta(max_length=64)]
    used: CellUse
    socket: int | None = None
    distances: Annotated[tuple[Count, ...], Meta(max_length=CELLS_MAX)] = ()


class CaseDevice(Part, frozen=True):
    """One PCI device of the host; `parent` is the address of its physical function."""

    address: Name
    type: Literal["PF", "VF", "PCI", "VDPA"]
    status: Literal["available", "claimed", "allocated", "unclaimable", "unavailable"]
    vendor_id: str | None = None
    product_id: str | None = None
    numa_node: int | None = None
    parent: str | None = None
    tags: dict[str, Said] = msgspec.field(default_factory=dict)


class HostUse(Part, frozen=True):
    """What all tenants together use of a host."""

    vcpus: Natural
    pcpus: Natural
    memory_mb: Natural


class CaseHost(Part, frozen=True):
    """The host. Under `default` nothing is configured: every CPU is in both sets."""

    cpu_mode: Literal["split", "dedicated", "shared", "ragged", "default"]
    cells: Annotated[tuple[CaseCell, ...], Meta(max_length=CELLS_MAX)]
    pci: Annotated[tuple[CaseDevice, ...], Meta(max_length=DEVICES_MAX)]
    used: HostUse


class PciRequest(Part, frozen=True):
    """Some devices, each of which answers any of the alternatives."""

    count: Annotated[int, Meta(ge=0, le=1 << 20)]
    spec: Annotated[tuple[dict[str, Said], ...], Meta(max_length=64)]
    numa_policy: Affinity | None = None


class CaseRequest(Part, frozen=True):
    """What is wanted, as a flavor and an image say it. What `pci_passthrough:alias` stands for is in `pci_requests`."""

    vcpus: Annotated[int, Meta(ge=0, le=VCPUS_MAX)]
    memory_mb: Natural
    extra_specs: dict[str, Said]
    image_properties: dict[str, Said]
    pci_requests: Annotated[tuple[PciRequest, ...], Meta(max_length=DEVICE_REQUESTS_MAX)]


class Limits(Part, frozen=True):
    """How far the host may be overcommitted."""

    cpu_allocation_ratio: Decimal
    ram_allocation_ratio: Decimal


class Config(Part, frozen=True):
    """How the host chooses; it changes no yes or no."""

    pack_cells: bool = True


class Case(Part, frozen=True):
    """One question: whether the request fits on the host."""

    id: CaseName
    host: CaseHost
    request: CaseRequest
    limits: Limits | None
    config: Config | None = None


class Named(Part, frozen=True):
    """As much of a line as is needed to say which one it is."""

    id: CaseName | None = None


DECODER = msgspec.json.Decoder(Case)
NAMED = msgspec.json.Decoder(Named)


def read_case(line: bytes) -> Case:
    """Return the case of a line; raises InvalidRecord with the place and what is wrong there."""
    if len(line) > LINE_BYTES_MAX:
        raise InvalidRecord(f"the line is longer than {LINE_BYTES_MAX} bytes", place="")
    try:
        case = DECODER.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
        match = PLACE.search(str(error))
        place = match[1] if match else ""
        raise InvalidRecord(f"{place + ': ' if place else ''}{PLACE.sub('', str(error))}", place=place) from error
    for place, message in disagreements(case):
        raise InvalidRecord(f"{place}: {message}", place=place)
    return case


def name_of(line: bytes) -> CaseName | None:
    """Return the id of a line that is no case, None if it has none that can be read."""
    try:
        return NAMED.decode(line).id
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError):
        return None


def disagreements(case: Case) -> Iterable[tuple[str, str]]:
    """Yield where the parts of a case contradict each other: the place, and what is wrong there."""
    cells = case.host.cells
    yield from _twice("host.cells", "cell", (cell.id for cell in cells))
    yield from _twice("host.cells", "CPU", (cpu for cell in cells for cpu in {*cell.cpus.shared, *cell.cpus.dedicated}))
    for number, cell in enumerate(cells):
        place = f"host.cells[{number}]"
        yield from _twice(f"{place}.cpus.shared", "CPU", cell.cpus.shared)
        yield from _twice(f"{place}.cpus.dedicated", "CPU", cell.cpus.dedicated)
        yield from _twice(f"{place}.siblings", "CPU", (cpu for core in cell.siblings for cpu in core))
        yield from _twice(f"{place}.pages", "size", (pages.size_kb for pages in cell.pages))
    yield from _twice("host.pci", "address", (device.address for device in case.host.pci))
    if case.limits is not None:
        for name in ("cpu_allocation_ratio", "ram_allocation_ratio"):
            ratio: Decimal = getattr(case.limits, name)
            if not ratio.is_finite() or len(ratio.as_tuple().digits) > DIGITS_MAX or (ratio and not RATIO_LEAST <= ratio <= RATIO_MOST):
                yield f"limits.{name}", f"not a ratio between {RATIO_LEAST} and {RATIO_MOST}"


def _twice(place: str, what: str, values: Iterable[Hashable]) -> Iterable[tuple[str, str]]:
    for value, count in Counter(values).items():
        if count > 1:
            yield place, f"{what} {value} is there {count} times"


def text_of(said: Said) -> str:
    """Return a property as text, as Python's JSON readers write it."""
    return str(said)


def limit_of(amount: int, ratio: Decimal) -> int:
    """Return the most that may be used of an amount under a ratio: what does not exceed their product as doubles."""
    return int(double(amount * double(Fraction(ratio))) // 1)


def double(value: Fraction) -> Fraction:
    """Return the double that is nearest to a positive number, as a fraction; of two equally near ones the even one (IEEE 754)."""
    if not value:
        return value
    shift = MANTISSA - (value.numerator.bit_length() - value.denominator.bit_length())
    scale = Fraction(2) ** (shift if value * Fraction(2) ** shift < 1 << MANTISSA else shift - 1)
    return Fraction(round(value * scale), 1) * scale**-1
