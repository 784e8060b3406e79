"""What is used of a node, as the trade writes it (2/2048/20: vCPUs, MB, GB), and what is left of each class.

Rules of this file: a sum over the rows of live claims and quarantines, computed anew each time and kept nowhere; what is reserved is in the
figures and outside the capacities (C1, C2, C10); bytes are exact, and rounded up once per node where they are shown; VCPU and PCPU are
never one number but in the trade's own first figure (W27). What is left may be negative (C6).
"""

from __future__ import annotations

from collections.abc import Iterable

from earmark.core.fit.free import CPU_PREFIX, cpu_of
from earmark.core.fit.layout import Layout
from earmark.core.ledger.state import NodeState
from earmark.core.model.grant import AmountRow, Grant
from earmark.core.model.ids import ResourceClass, UnitId
from earmark.core.model.inventory import Stock
from earmark.core.model.units import GIB, KIB, MIB
from earmark.core.model.value import Value

NAMED_PREFIX = "named:"
Counts = tuple[tuple[str, int], ...]
"""How many of each, sorted by name; nothing is listed of which there is none."""


class Amounts(Value, frozen=True):
    """vCPUs (shared and dedicated), bytes of memory (ordinary and in pages), bytes of disk."""

    vcpus: int = 0
    memory_bytes: int = 0
    disk_bytes: int = 0

    @property
    def memory_mib(self) -> int:
        """The memory in MiB, rounded up."""
        return -(-self.memory_bytes // MIB)

    @property
    def disk_gib(self) -> int:
        """The disk in GiB, rounded up."""
        return -(-self.disk_bytes // GIB)

    @property
    def text(self) -> str:
        """The three figures as the trade writes them: 2/2048/20."""
        return f"{self.vcpus}/{self.memory_mib}/{self.disk_gib}"

    def plus(self, other: Amounts) -> Amounts:
        """Return the sum of both."""
        return Amounts(
            vcpus=self.vcpus + other.vcpus,
            memory_bytes=self.memory_bytes + other.memory_bytes,
            disk_bytes=self.disk_bytes + other.disk_bytes,
        )


class Room(Value, frozen=True):
    """One stock of a node: `capacity` is (total - reserved) x ratio rounded down, `used` what claims and quarantines hold of it."""

    resource_class: ResourceClass
    pool: str
    total: int
    reserved: int
    capacity: int
    used: int
    cell: int | None = None

    @property
    def free(self) -> int:
        """What is left of the capacity, negative if more is held than there is now (C6)."""
        return self.capacity - self.used


class Figures(Amounts, frozen=True, kw_only=True):
    """What is used of one node: what is reserved, all live claims (foreign ones too) and all quarantines.

    `vcpus` are the host's reserved CPUs and the shared and dedicated vCPUs of guests, without emulator and withheld CPUs. `pins` are all
    CPUs that somebody has for himself; `emulator_cpus` and `withheld_cpus` are those among them that are no vCPU's. `devices` and `named`
    are the other units held. `reserved` and `quarantined` say which part of the three figures is the host's, and which belongs to no
    live claim. `main_claims` is the number of instances placed here. `cpus_total`, `memory_total_bytes` (ordinary memory and huge pages)
    and `disk_total_bytes` are what the node has; `rooms` its stocks, as fit sees them.
    """

    pins: tuple[int, ...] = ()
    emulator_cpus: tuple[int, ...] = ()
    withheld_cpus: tuple[int, ...] = ()
    devices: tuple[UnitId, ...] = ()
    named: tuple[UnitId, ...] = ()
    reserved: Amounts = Amounts()
    quarantined: Amounts = Amounts()
    claims: int = 0
    main_claims: int = 0
    claims_by_phase: Counts = ()
    claims_by_purpose: Counts = ()
    quarantines: int = 0
    cpus_total: int = 0
    memory_total_bytes: int = 0
    disk_total_bytes: int = 0
    rooms: tuple[Room, ...] = ()

    @property
    def total(self) -> Amounts:
        """What the node has: its usable CPUs, its memory, its disks."""
        return Amounts(vcpus=self.cpus_total, memory_bytes=self.memory_total_bytes, disk_bytes=self.disk_total_bytes)

    @property
    def memory_free_bytes(self) -> int:
        """Total less used (C6): negative under overcommitment, or where the machine has become smaller."""
        return self.memory_total_bytes - self.memory_bytes

    @property
    def disk_free_bytes(self) -> int:
        """Total less used (C6)."""
        return self.disk_total_bytes - self.disk_bytes

    def room(self, name: str) -> Room | None:
        """Return the stock of a pool (`disk:root`), else the first of a resource class (`PCPU`); None if there is none."""
        found = [room for room in self.rooms if name in (room.pool, room.resource_class)]
        return min(found, key=lambda room: room.pool != name, default=None)


def figures(state: NodeState) -> Figures:
    """Return what is used of a node now. A node whose machine was never observed has no totals, and nothing reserved."""
    live = [claim.grant for claim in state.claims.values()]
    kept = [quarantine.grant for quarantine in state.quarantines.values()]
    reserved = reserved_of(state.layout) if state.layout is not None else Amounts()
    quarantined = amounts_of(kept)
    used = reserved.plus(amounts_of(live)).plus(quarantined)
    rows = [row for grant in (*live, *kept) for row in grant.units]
    cpus = {use: {cpu_of(row.unit) for row in rows if row.use == use and _is_cpu(row.unit)} for use in ("vcpu", "emulator", "withheld")}
    others = sorted({row.unit for row in rows if not _is_cpu(row.unit)})
    supply = state.supply
    stocks = supply.layout.inventories(supply.free, supply.blocked_cpus) if supply is not None else ()
    purposes = counted_by(claim.purpose for claim in state.claims.values())
    return Figures(
        vcpus=used.vcpus, memory_bytes=used.memory_bytes, disk_bytes=used.disk_bytes,
        pins=tuple(sorted(set().union(*cpus.values()))), emulator_cpus=tuple(sorted(cpus["emulator"])),
        withheld_cpus=tuple(sorted(cpus["withheld"])),
        devices=tuple(unit for unit in others if not unit.startswith(NAMED_PREFIX)),
        named=tuple(unit for unit in others if unit.startswith(NAMED_PREFIX)),
        reserved=reserved, quarantined=quarantined, claims=len(live), main_claims=dict(purposes).get("main", 0),
        claims_by_phase=counted_by(claim.phase for claim in state.claims.values()), claims_by_purpose=purposes, quarantines=len(kept),
        cpus_total=state.layout.usable.bit_count() if state.layout is not None else 0,
        memory_total_bytes=memory_total(state.layout) if state.layout is not None else 0,
        disk_total_bytes=sum(disk.total for disk in state.layout.disks.values()) if state.layout is not None else 0,
        rooms=tuple(_room(stock) for stock in stocks),
    )  # fmt: skip


def amounts_of(grants: Iterable[Grant]) -> Amounts:
    """Return the three figures of some grants together."""
    vcpus = memory = disk = 0
    for grant in grants:
        vcpus += sum(1 for row in grant.units if row.use == "vcpu" and _is_cpu(row.unit))
        for row in grant.amounts:
            kind = row.pool.partition(":")[0]
            if kind == "vcpu":
                vcpus += row.amount
            elif kind in ("memory", "pages"):
                memory += memory_of(row)
            elif kind == "disk":
                disk += row.amount
    return Amounts(vcpus=vcpus, memory_bytes=memory, disk_bytes=disk)


def memory_of(row: AmountRow) -> int:
    """Return the bytes of an amount of memory: ordinary memory is in bytes, a page pool (`pages:CELL:KIB`) in pages."""
    kind, _, rest = row.pool.partition(":")
    return row.amount * int(rest.rpartition(":")[2]) * KIB if kind == "pages" else row.amount


def reserved_of(layout: Layout) -> Amounts:
    """Return what is kept for the host (C12). Huge pages kept back are no part of it: they stand in the stock of their size (H3)."""
    return Amounts(
        vcpus=layout.reserved.bit_count(),
        memory_bytes=layout.memory.reserved,
        disk_bytes=sum(disk.reserved for disk in layout.disks.values()),
    )


def memory_total(layout: Layout) -> int:
    """Return the memory of a node in bytes: what is ordinary, and what stands in huge pages."""
    huge = sum(page.total * page.size_kib for _, page in layout.pages.values() if page.size_kib != layout.base_page_kib)
    return layout.memory.total + huge * KIB


def counted_by(keys: Iterable[str]) -> Counts:
    """Return how often each key occurs, sorted by key."""
    counts: dict[str, int] = {}
    for key in keys:
        counts[key] = counts.get(key, 0) + 1
    return tuple(sorted(counts.items()))


def _is_cpu(unit: UnitId) -> bool:
    return unit.startswith(CPU_PREFIX)


def _room(stock: Stock) -> Room:
    return Room(
        resource_class=stock.resource_class, pool=stock.pool, total=stock.total, reserved=stock.reserved, capacity=stock.capacity,
        used=stock.used, cell=stock.cell,
    )  # fmt: skip
