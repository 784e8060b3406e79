"""The book of a node: as Earmark's ledger has it, as the record expects it, and where the two differ.

Rules of this file: our book is read from the live claims of a node's state and from nothing else; the expected one is Nova's, or the right one where
Nova's is wrong. Disk is compared in bytes, so that a fraction of a GiB counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import NamedTuple

from msgspec.structs import replace
from tools.account_format import Node as RecordedNode
from tools.account_format import NovaBook, Op, RightBook

from earmark.core.fit.free import CPU_PREFIX, cpu_of
from earmark.core.ledger.figures import figures
from earmark.core.ledger.state import NodeState
from earmark.core.model.claim import Claim
from earmark.core.model.cpuset import format_cpu_list
from earmark.core.model.ids import cell_vcpu_pool, pages_pool
from earmark.core.model.units import GIB, KIB, MIB
from earmark.core.model.value import Value

TAKEN = ("claimed", "allocated")
PCI_PREFIX = "pci:"


class CellFigures(Value, frozen=True):
    """What is used of one cell. `pages` are (size in KiB, number), every size that the cell has."""

    pinned_cpus: tuple[int, ...] = ()
    memory_bytes: int = 0
    shared_vcpus: int = 0
    pages: tuple[tuple[int, int], ...] = ()


class Book(Value, frozen=True):
    """What is used of one node, what is reserved included. `cells` and `pci` (address, holder) are sorted."""

    vcpus: int
    memory_bytes: int
    disk_bytes: int
    cells: tuple[tuple[int, CellFigures], ...]
    pci: tuple[tuple[str, str], ...]


class Difference(NamedTuple):
    """One figure of a book that is not as expected."""

    figure: str
    expected: str
    found: str

    def __str__(self) -> str:
        return f"{self.figure}: expected {self.expected}, found {self.found}"


# --- ours ---------------------------------------------------------------------------------------------------------------------------


def own_book(state: NodeState, node: RecordedNode) -> Book:
    """Return the book of a node as its live claims make it, for the cells that were recorded."""
    used = figures(state)
    claims = state.live()
    pci = [(row.unit.removeprefix(PCI_PREFIX), str(claim.consumer)) for claim in claims for row in claim.grant.units if row.use == "device"]
    cells = {cell.id: {*cell.cpus.shared, *cell.cpus.dedicated} for cell in node.host.cells}
    sizes = {cell.id: sorted(each.size_kb for each in cell.pages) for cell in node.host.cells}
    return Book(
        vcpus=used.vcpus, memory_bytes=used.memory_bytes, disk_bytes=used.disk_bytes,
        cells=tuple((number, _own_cell(number, cells[number], sizes[number], claims)) for number in sorted(cells)),
        pci=tuple(sorted(pci)),
    )  # fmt: skip


def _own_cell(number: int, cpus: set[int], sizes: list[int], claims: Iterable[Claim]) -> CellFigures:
    pinned: set[int] = set()
    pages = dict.fromkeys(sizes, 0)
    memory = vcpus = 0
    for claim in claims:
        grant = claim.grant
        pinned |= {cpu_of(row.unit) for row in grant.units if row.unit.startswith(CPU_PREFIX)} & cpus
        vcpus += grant.amount(cell_vcpu_pool(number))
        held = {size: grant.amount(pages_pool(number, size)) for size in sizes}
        for size, count in held.items():
            pages[size] += count
        here = sum(cell.memory_bytes for cell in grant.cells if cell.host_cell == number)
        memory += here
        floating = here - sum(count * size * KIB for size, count in held.items())
        if floating > 0 and sizes:
            pages[sizes[0]] += floating // (sizes[0] * KIB)
    return CellFigures(pinned_cpus=tuple(sorted(pinned)), memory_bytes=memory, shared_vcpus=vcpus, pages=tuple(sorted(pages.items())))


# --- the record's -------------------------------------------------------------------------------------------------------------------


def expected_book(op: Op, last: NovaBook, name: str) -> Book:
    """Return the book that is right after an operation: the ledger's where Nova's is wrong, else Nova's last one."""
    right: NovaBook | RightBook = op.ledger.get(name, last)
    if isinstance(right, NovaBook):
        pci = {address: str(held.instance) for address, held in right.pci.items() if held.status in TAKEN}
    else:
        pci = right.pci
    return Book(
        vcpus=right.vcpus_used, memory_bytes=right.memory_mb_used * MIB, disk_bytes=_bytes(right.local_gb_used),
        cells=tuple(
            (
                int(number),
                CellFigures(
                    pinned_cpus=tuple(sorted(cell.pinned_cpus)), memory_bytes=cell.memory_mb * MIB, shared_vcpus=cell.shared_vcpus,
                    pages=tuple(sorted((int(size), count) for size, count in cell.pages.items())),
                ),
            )
            for number, cell in sorted(right.cells.items(), key=lambda item: int(item[0]))
        ),
        pci=tuple(sorted((address.lower(), holder) for address, holder in pci.items())),
    )  # fmt: skip


def _bytes(gib: float) -> int:
    """Return GiB as bytes, exactly: the record's fractions are of 1024."""
    return int(Fraction(gib) * GIB)


class Share(NamedTuple):
    """What one recorded claim takes of a node's book; `shared` of its vCPUs have no CPU of their own."""

    instance: str
    vcpus: int
    shared: int
    memory_bytes: int
    disk_bytes: int
    cells: Mapping[int, CellFigures]
    pci: tuple[str, ...]

    @property
    def cpus(self) -> frozenset[int]:
        """All CPUs that the claim has for itself, those kept idle included."""
        return frozenset(cpu for cell in self.cells.values() for cpu in cell.pinned_cpus)


def without(book: Book, gone: Iterable[Share], others: Iterable[Share]) -> Book:
    """Return a book without some recorded claims; what `others` hold too stays, as theirs."""
    left = list(others)
    kept_cpus = frozenset[int]().union(*(share.cpus for share in left))
    holders = {address: share.instance for share in left for address in share.pci}
    for share in gone:
        pci = dict(book.pci)
        for address in share.pci:
            if address in holders:
                pci[address] = holders[address]
            elif pci.get(address) == share.instance:
                del pci[address]
        cells = tuple((number, _less(cell, share.cells.get(number), kept_cpus)) for number, cell in book.cells)
        book = Book(
            vcpus=book.vcpus - share.vcpus, memory_bytes=book.memory_bytes - share.memory_bytes, disk_bytes=book.disk_bytes - share.disk_bytes,
            cells=cells, pci=tuple(sorted(pci.items())),
        )  # fmt: skip
    return book


def _less(cell: CellFigures, share: CellFigures | None, kept: frozenset[int]) -> CellFigures:
    if share is None:
        return cell
    pages = dict(share.pages)
    return replace(
        cell, pinned_cpus=tuple(cpu for cpu in cell.pinned_cpus if cpu not in share.pinned_cpus or cpu in kept),
        memory_bytes=cell.memory_bytes - share.memory_bytes, shared_vcpus=cell.shared_vcpus - share.shared_vcpus,
        pages=tuple((size, count - pages.get(size, 0)) for size, count in cell.pages),
    )  # fmt: skip


# --- both ---------------------------------------------------------------------------------------------------------------------------


def differences(expected: Book, found: Book) -> tuple[Difference, ...]:
    """Return each figure that differs, in the record's names and units."""
    pairs = [
        ("vcpus_used", str(expected.vcpus), str(found.vcpus)),
        ("memory_mb_used", _number(expected.memory_bytes, MIB), _number(found.memory_bytes, MIB)),
        ("local_gb_used", _number(expected.disk_bytes, GIB), _number(found.disk_bytes, GIB)),
    ]
    others = dict(found.cells)
    for number, cell in expected.cells:
        other = others.get(number, CellFigures())
        here = f"cells.{number}"
        pairs += [
            (f"{here}.pinned_cpus", _cpus(cell), _cpus(other)),
            (f"{here}.memory_mb", _number(cell.memory_bytes, MIB), _number(other.memory_bytes, MIB)),
            (f"{here}.shared_vcpus", str(cell.shared_vcpus), str(other.shared_vcpus)),
        ]
        there = dict(other.pages)
        pairs += [(f"{here}.pages.{size}", str(count), str(there.get(size, 0))) for size, count in cell.pages]
    wanted, held = dict(expected.pci), dict(found.pci)
    pairs += [(f"pci.{address}", wanted.get(address, "free"), held.get(address, "free")) for address in sorted({*wanted, *held})]
    return tuple(Difference(*pair) for pair in pairs if pair[1] != pair[2])


def _number(amount: int, unit: int) -> str:
    exact = Fraction(amount, unit)
    return str(exact.numerator) if exact.denominator == 1 else f"{exact.numerator}/{exact.denominator}"


def _cpus(cell: CellFigures) -> str:
    return format_cpu_list(cell.pinned_cpus) or "none"
