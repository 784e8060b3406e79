"""What the record says is held at each moment, and whether it shows why Earmark refuses a recorded claim.

Rules of this file: this is the other side of the comparison: it knows nothing of Earmark's ledger, and Earmark's book is never read from it. Every
recorded claim counts from the claim until it is given back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tools.account_books import CellFigures, Share
from tools.account_format import Limits, Node, Op
from tools.account_format import Sequence as Recorded
from tools.account_nodes import machine_of, withheld

from earmark.core.model.ids import MEMORY, VCPU
from earmark.core.model.refusal import Reason, Refusal
from earmark.core.model.units import GIB, KIB, MIB

NEW, OLD = "new", "old"
OPENS = {"build_claim": OLD, "unshelve_claim": OLD, "resize_claim": NEW, "live_claim": NEW, "evacuate_claim": NEW}
ARRIVES = frozenset({"confirm", "live_done", "evacuate_done"})
GIVES_NEW = frozenset({"resize_abort", "revert_dest", "live_rollback", "evacuate_abort"})
GIVES_ALL = frozenset({"build_abort", "unshelve_abort", "delete", "shelve_offload"})
DISK = "disk:root"


class Held(NamedTuple):
    """One recorded claim: on which node, whether it is the new one of a move, what it takes."""

    node: str
    role: str
    share: Share


class Record:
    """The recorded claims, followed from operation to operation."""

    def __init__(self, sequence: Recorded) -> None:
        self.sequence = sequence
        self.nodes = {node.name: node for node in sequence.nodes}
        self.held: list[Held] = []
        self.backed: dict[str, bool] = {}

    def on(self, node: str) -> list[Share]:
        """Return what is held on a node."""
        return [held.share for held in self.held if held.node == node]

    def volume_backed(self, op: Op) -> bool:
        """Say whether the instance of a claim has its root disk on a volume: its first claim says so."""
        return self.backed.setdefault(op.instance or "", bool(op.volume_backed))

    def share(self, op: Op) -> Share:
        """Return what a claim takes of its node's book."""
        flavor, node = self.sequence.flavors[op.flavor or ""], self.nodes[op.node or ""]
        cells: dict[int, CellFigures] = {}
        pinned = sum(len(cell.pcpus) for cell in op.placement.cells or ()) if op.placement is not None else 0
        for placed in op.placement.cells or () if op.placement is not None else ():
            there = next(cell for cell in node.host.cells if cell.id == placed.host_cell)
            known = cells.get(there.id, CellFigures())
            size = placed.pagesize_kb or there.smallest_kib
            pages = dict(known.pages)
            if size is not None:
                pages[size] = pages.get(size, 0) + placed.memory_mb * KIB // size
            cells[there.id] = CellFigures(
                pinned_cpus=tuple(sorted({*known.pinned_cpus, *placed.pcpus, *placed.cpuset_reserved, *withheld(flavor, placed, there)})),
                memory_bytes=known.memory_bytes + placed.memory_mb * MIB, shared_vcpus=known.shared_vcpus + len(placed.shared_vcpus),
                pages=tuple(sorted(pages.items())),
            )  # fmt: skip
        return Share(
            instance=op.instance or "", vcpus=flavor.vcpus, shared=flavor.vcpus - pinned,
            memory_bytes=flavor.memory_mb * MIB,
            disk_bytes=flavor.disk_mib(volume_backed=self.volume_backed(op)) * MIB, cells=cells,
            pci=tuple(address.lower() for address in op.placement.pci) if op.placement is not None else (),
        )  # fmt: skip

    def apply(self, op: Op) -> None:
        """Follow one operation."""
        if not op.done:
            return
        if op.op in OPENS:
            self.held.append(Held(op.node or "", OPENS[op.op], self.share(op)))
        elif op.op in ARRIVES:
            self.held = [held for held in self.held if held.share.instance != op.instance or held.role == NEW]
            self.held = [held._replace(role=OLD) if held.share.instance == op.instance else held for held in self.held]
        elif op.op in GIVES_NEW or op.op in GIVES_ALL:
            roles = (NEW,) if op.op in GIVES_NEW else (NEW, OLD)
            self.held = [held for held in self.held if held.share.instance != op.instance or held.role not in roles]


# --- why a recorded claim is refused ------------------------------------------------------------------------------------------------


class Reasons(NamedTuple):
    """What the record knows when a recorded claim (`share`) is refused: what the `others` hold on the node."""

    share: Share
    others: Sequence[Share]
    node: Node
    limits: Limits | None

    def left_to_placement(self, refusal: Refusal) -> bool:
        """Say whether a refusal is only about what Nova's compute never looks at (L3: vCPUs, memory, disk), and the record bears it out."""
        return all(self._over(reason) for reason in refusal.reasons)

    def taken_twice(self, refusal: Refusal) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
        """Return the units of the claim that others hold, and who: None unless the record shows that all that is refused is so."""
        units: dict[str, None] = {}
        holders: dict[str, None] = {}
        for other in self.others:
            found = self._shared_units(other)
            if found:
                units |= dict.fromkeys(found)
                holders[other.instance] = None
        for reason in refusal.reasons:
            users = self._pool_users(reason.resource)
            units |= dict.fromkeys((reason.resource,) if users else ())
            holders |= dict.fromkeys(users)
        shown = all(reason.unit in units or reason.resource in units or self._over(reason) for reason in refusal.reasons)
        return (tuple(units), tuple(holders)) if units and shown else None

    def _shared_units(self, other: Share) -> list[str]:
        """Return the units of the claim that another has, or that exclude one that it has (a PF and its VFs)."""
        parents = {pci.address.lower(): (pci.parent or "").lower() for pci in self.node.host.pci}
        devices = [own for own in self.share.pci if any(held in (own, parents[own]) or parents[held] == own for held in other.pci)]
        return [*(f"cpu:{cpu}" for cpu in sorted(self.share.cpus & other.cpus)), *(f"pci:{own}" for own in devices)]

    def _pool_users(self, pool: str) -> tuple[str, ...]:
        """Return who holds pages or shared vCPUs of a cell, if the recorded claims together hold more than there is of them."""
        for cell in self.node.host.cells:
            room = {f"pages:{cell.id}:{each.size_kb}": float(each.total - each.reserved) for each in cell.pages}
            if self.limits is not None:
                room[f"vcpu:{cell.id}"] = len(cell.cpus.shared) * self.limits.cpu_allocation_ratio
            if pool in room:
                users = [each for each in self.others if _amount(each, pool, cell.id)]
                if sum(_amount(each, pool, cell.id) for each in (*users, self.share)) > room[pool]:
                    return tuple(each.instance for each in users)
        return ()

    def _over(self, reason: Reason) -> bool:
        """Say whether the recorded claims together are more than the machine has of a resource, under the ratio; or this one alone."""
        both = [*self.others, self.share]
        if reason.resource == DISK:
            return sum(each.disk_bytes for each in both) > self.node.local_gb * GIB
        if reason.resource == VCPU:
            cpus = len({cpu for cell in self.node.host.cells for cpu in cell.cpus.shared})
            ratio = self.limits.cpu_allocation_ratio if self.limits is not None else 1.0
            return self.share.shared > cpus or sum(each.shared for each in both) > cpus * ratio
        if reason.resource == MEMORY:
            cells = machine_of(self.node).cells
            ordinary = sum(cell.ordinary_bytes for cell in cells)
            huge = {cell.id: {pool.size_kib for pool in cell.pages} for cell in cells}
            used = [each.memory_bytes - _huge_bytes(each, huge) for each in both]
            return used[-1] > ordinary or sum(used) > ordinary - self.node.reserved_memory_mb * MIB
        return False


def _amount(share: Share, pool: str, cell: int) -> int:
    there = share.cells.get(cell, CellFigures())
    return there.shared_vcpus if pool.startswith("vcpu:") else dict(there.pages).get(int(pool.rpartition(":")[2]), 0)


def _huge_bytes(share: Share, huge: Mapping[int, set[int]]) -> int:
    return sum(count * size * KIB for number, cell in share.cells.items() for size, count in cell.pages if size in huge[number])
