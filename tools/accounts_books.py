"""Books: what is used of a node, from Earmark's state or from a recording, in one form that can be compared.

Rules of this file: Earmark's books are sums over the grants of live claims and nothing else; disk is compared in whole MiB.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from tools.accounts_format import RecordedBook, RecordedNode, RightBook

from earmark.core.ledger.state import NodeState
from earmark.core.model.grant import Grant
from earmark.core.model.ids import MEMORY
from earmark.core.model.units import KIB, MIB


class CellBook(msgspec.Struct, frozen=True, kw_only=True):
    """What is used of one cell."""

    pinned: frozenset[int] = frozenset()
    memory_mib: int = 0
    shared_vcpus: int = 0
    pages: tuple[tuple[int, int], ...] = ()


class Book(msgspec.Struct, frozen=True, kw_only=True):
    """What is used of one node; `devices` maps the address of each held device to its holder."""

    vcpus: int
    memory_mib: int
    disk_mib: int
    cells: tuple[tuple[int, CellBook], ...]
    devices: tuple[tuple[str, str], ...]


def book_of(state: NodeState, node: RecordedNode) -> Book:
    """Return Earmark's book of a node: what is reserved, and the sum over its live claims."""
    return summed(node, [(str(claim.consumer), claim.grant) for claim in state.live()])


def summed(node: RecordedNode, grants: Iterable[tuple[str, Grant]]) -> Book:
    """Return the book of a node on which these grants are held."""
    vcpus, memory, disk = 0, node.reserved_memory_mb * MIB, 0
    pinned: dict[int, set[int]] = {cell.id: set() for cell in node.host.cells}
    bound = dict.fromkeys(pinned, 0)
    shared = dict.fromkeys(pinned, 0)
    pages = {cell.id: {each.size_kb: 0 for each in cell.pages} for cell in node.host.cells}
    where = {cpu: cell.id for cell in node.host.cells for cpu in (*cell.cpus.shared, *cell.cpus.dedicated)}
    devices: dict[str, str] = {}
    for holder, grant in grants:
        for row in grant.units:
            kind, _, name = row.unit.partition(":")
            if kind == "cpu":
                pinned[where[int(name)]].add(int(name))
                vcpus += row.use == "vcpu"
            else:
                devices[name] = holder
        for amount in grant.amounts:
            kind, _, rest = amount.pool.partition(":")
            vcpus += amount.amount if kind == "vcpu" else 0
            disk += amount.amount if kind == "disk" else 0
            memory += (
                amount.amount if amount.pool == MEMORY else amount.amount * int(rest.partition(":")[2]) * KIB if kind == "pages" else 0
            )
        for cell in grant.cells:
            bound[cell.host_cell] += cell.memory_bytes
            shared[cell.host_cell] += len(cell.shared_vcpus)
            sizes = pages[cell.host_cell]
            size = cell.page_kib or min(sizes, default=0)
            if size in sizes:
                sizes[size] += cell.memory_bytes // (size * KIB)
    cells = {
        cell: CellBook(
            pinned=frozenset(pinned[cell]),
            memory_mib=bound[cell] // MIB,
            shared_vcpus=shared[cell],
            pages=tuple(sorted(pages[cell].items())),
        )
        for cell in pinned
    }
    return Book(
        vcpus=vcpus, memory_mib=memory // MIB, disk_mib=disk // MIB, cells=tuple(sorted(cells.items())), devices=tuple(sorted(devices.items()))
    )  # fmt: skip


def recorded(book: RecordedBook | RightBook) -> Book:
    """Return a recorded book; of the recorded program's own only devices that somebody holds."""
    if isinstance(book, RightBook):
        devices = dict(book.pci)
    else:
        devices = {address: device.instance or "" for address, device in book.pci.items() if device.status in ("claimed", "allocated")}
    cells = {
        int(cell): CellBook(
            pinned=frozenset(each.pinned_cpus), memory_mib=each.memory_mb, shared_vcpus=each.shared_vcpus,
            pages=tuple(sorted((int(size), used) for size, used in each.pages.items())),
        )
        for cell, each in book.cells.items()
    }  # fmt: skip
    return Book(
        vcpus=book.vcpus_used, memory_mib=book.memory_mb_used, disk_mib=round(book.local_gb_used * 1024), cells=tuple(sorted(cells.items())),
        devices=tuple(sorted(devices.items())),
    )  # fmt: skip


def less(book: Book, taken_out: Book, bare: Book, kept: Book) -> Book:
    """Return a book without what `taken_out` has above the `bare` node; a CPU or device that `kept` has too stays."""
    cells = dict(book.cells)
    gone, nothing, left = dict(taken_out.cells), dict(bare.cells), dict(kept.cells)
    for number, cell in gone.items():
        pages = dict(cells[number].pages)
        for size, used in cell.pages:
            pages[size] = pages.get(size, 0) - used
        cells[number] = CellBook(
            pinned=cells[number].pinned - (cell.pinned - left[number].pinned),
            memory_mib=cells[number].memory_mib - cell.memory_mib + nothing[number].memory_mib,
            shared_vcpus=cells[number].shared_vcpus - cell.shared_vcpus,
            pages=tuple(sorted(pages.items())),
        )
    held = dict(kept.devices)
    out = {address for address, _ in taken_out.devices}
    devices = {address: holder for address, holder in book.devices if address not in out}
    devices |= {address: held[address] for address in out if address in held}
    return Book(
        vcpus=book.vcpus - taken_out.vcpus + bare.vcpus, memory_mib=book.memory_mib - taken_out.memory_mib + bare.memory_mib,
        disk_mib=book.disk_mib - taken_out.disk_mib + bare.disk_mib, cells=tuple(sorted(cells.items())), devices=tuple(sorted(devices.items())),
    )  # fmt: skip


def differences(expected: Book, found: Book) -> list[str]:
    """Return where two books differ, in words."""
    said = [
        f"{name}: expected {getattr(expected, name)}, found {getattr(found, name)}"
        for name in ("vcpus", "memory_mib", "disk_mib", "devices")
        if getattr(expected, name) != getattr(found, name)
    ]
    mine = dict(found.cells)
    for number, cell in expected.cells:
        other = mine.get(number, CellBook())
        said += [
            f"cell {number} {name}: expected {_shown(getattr(cell, name))}, found {_shown(getattr(other, name))}"
            for name in ("pinned", "memory_mib", "shared_vcpus", "pages")
            if getattr(cell, name) != getattr(other, name)
        ]
    return said


def _shown(value: object) -> object:
    return sorted(value) if isinstance(value, frozenset) else value
