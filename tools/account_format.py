"""The format of recorded lives of instances: one sequence of operations on a few nodes is one JSON object.

Rules of this file: types and ranges only, and a field that is not known is an error; what parts must agree is in `account_checks`.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

CLAIMING = frozenset({"build_claim", "unshelve_claim", "resize_claim", "live_claim", "evacuate_claim"})
OF_NODES = frozenset({"audit", "node_down", "node_restart"})

Natural = Annotated[int, Meta(ge=0, le=1 << 40)]
Count = Annotated[int, Meta(ge=0, le=1 << 20)]
CpuNumber = Annotated[int, Meta(ge=0, le=8191)]
Gib = Annotated[float, Meta(ge=-(1 << 40), le=1 << 40)]
Name = Annotated[str, Meta(min_length=1, max_length=128)]
OpName = Literal[
    "build_claim", "build_done", "build_abort", "resize_claim", "resize_abort", "resize_off", "resize_switch", "resize_finish", "confirm",
    "revert_dest", "revert_source", "live_claim", "live_run", "live_done", "live_rollback", "node_down", "evacuate_claim", "evacuate_done",
    "evacuate_abort", "node_restart", "delete", "shelve_offload", "unshelve_claim", "unshelve_done", "unshelve_abort", "audit",
]  # fmt: skip


class Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What all parts of the format share: a field that is not known is an error."""


class Sets(Strict, frozen=True):
    """The CPUs of a cell that may be shared, and those that may be dedicated."""

    shared: tuple[CpuNumber, ...]
    dedicated: tuple[CpuNumber, ...]


class Pages(Strict, frozen=True):
    """The pages of one size on a cell."""

    size_kb: Annotated[int, Meta(ge=1, le=1 << 40)]
    total: Natural
    reserved: Natural
    used: Natural


class CellUse(Strict, frozen=True):
    """What is used of a cell at the start."""

    memory_mb: Natural
    pinned_cpus: tuple[CpuNumber, ...]
    shared_vcpus: Count


class HostCell(Strict, frozen=True):
    """One cell of a host."""

    id: Count
    socket: int | None
    memory_mb: Natural
    cpus: Sets
    siblings: tuple[tuple[CpuNumber, ...], ...]
    pages: tuple[Pages, ...]
    distances: tuple[int, ...]
    used: CellUse

    @property
    def cores(self) -> tuple[frozenset[int], ...]:
        """The CPUs of the cell core by core; one that no core names is a core of its own."""
        named = [frozenset(core) for core in self.siblings]
        known = frozenset[int]().union(*named)
        return (*named, *(frozenset({cpu}) for cpu in sorted({*self.cpus.shared, *self.cpus.dedicated} - known)))

    @property
    def smallest_kib(self) -> int | None:
        """The smallest page size, None if the cell has no pages."""
        return min((each.size_kb for each in self.pages), default=None)


class Pci(Strict, frozen=True):
    """One PCI device of a host."""

    address: Name
    vendor_id: str
    product_id: str
    type: Literal["PF", "VF", "PCI", "VDPA"]
    numa_node: int | None
    parent: str | None
    tags: dict[str, str]
    status: Literal["available", "claimed", "allocated", "unclaimable", "unavailable"]
    owner: str | None


class HostUse(Strict, frozen=True):
    """What all tenants together use of a host at the start."""

    vcpus: Count
    pcpus: Count
    memory_mb: Natural


class Host(Strict, frozen=True):
    """What a host consists of."""

    shape: str
    cpu_mode: Literal["split", "dedicated", "shared", "ragged", "default"]
    cpus_offline: tuple[CpuNumber, ...]
    used: HostUse
    cells: Annotated[tuple[HostCell, ...], Meta(min_length=1)]
    pci: tuple[Pci, ...]


class Node(Strict, frozen=True):
    """One node of a sequence."""

    name: Name
    local_gb: Natural
    reserved_memory_mb: Natural
    host: Host


class Flavor(Strict, frozen=True):
    """What an instance of this flavor is to have."""

    vcpus: Annotated[int, Meta(ge=1, le=1 << 20)]
    memory_mb: Natural
    root_gb: Natural
    ephemeral_gb: Natural
    swap_mb: Natural
    extra_specs: dict[str, str]

    def disk_mib(self, *, volume_backed: bool) -> int:
        """The local disk of an instance in MiB: one on a volume has no root disk here."""
        return (self.ephemeral_gb + (0 if volume_backed else self.root_gb)) * 1024 + self.swap_mb


class Limits(Strict, frozen=True):
    """The ratios that the claims were made under."""

    cpu_allocation_ratio: Annotated[float, Meta(gt=0, le=1000)]
    ram_allocation_ratio: Annotated[float, Meta(gt=0, le=1000)]


class PlacedCell(Strict, frozen=True):
    """One cell of a guest where it was placed."""

    guest_cell: Count
    host_cell: Count
    vcpus: tuple[Count, ...]
    shared_vcpus: tuple[Count, ...]
    cpu_pinning: dict[str, CpuNumber]
    pcpus: tuple[CpuNumber, ...]
    memory_mb: Natural
    pagesize_kb: Annotated[int, Meta(ge=1, le=1 << 40)] | None
    cpuset_reserved: tuple[CpuNumber, ...]


class Placed(Strict, frozen=True):
    """Where a claim was placed: its cells (None: it has no topology) and its devices."""

    cells: Annotated[tuple[PlacedCell, ...], Meta(min_length=1)] | None
    pci: tuple[Name, ...]


class CellBook(Strict, frozen=True):
    """The book of one cell."""

    pinned_cpus: tuple[CpuNumber, ...]
    memory_mb: int
    shared_vcpus: int
    pages: dict[str, int]


class PciBook(Strict, frozen=True):
    """A device that is not simply available."""

    status: Literal["available", "claimed", "allocated", "unclaimable", "unavailable"]
    instance: str | None


class NovaBook(Strict, frozen=True):
    """The book of a node as Nova has it."""

    vcpus_used: int
    memory_mb_used: int
    local_gb_used: Gib
    running_vms: int
    cells: dict[str, CellBook]
    pci: dict[str, PciBook]


class RightBook(Strict, frozen=True):
    """The book of a node as it ought to be."""

    vcpus_used: int
    memory_mb_used: int
    local_gb_used: Gib
    cells: dict[str, CellBook]
    pci: dict[str, str]


class Facts(Strict, frozen=True):
    """What the database says of an instance after an operation; nothing here uses it."""

    node: str | None
    vm_state: str | None
    task_state: str | None
    flavor: str | None
    deleted: bool
    migration: str | None


class Op(Strict, frozen=True, rename={"source": "from"}):
    """One operation and the books after it."""

    op: OpName
    after: dict[str, NovaBook]
    instance: Name | None = None
    node: Name | None = None
    source: Name | None = None
    to: Name | None = None
    flavor: Name | None = None
    volume_backed: bool | None = None
    result: Literal["ok", "refused", "error"] | None = None
    error: str | None = None
    placement: Placed | None = None
    facts: Facts | None = None
    audit_error: str | None = None
    record_only: bool = False
    ledger: dict[str, RightBook] = {}
    ledger_differs: dict[str, tuple[str, ...]] = {}
    ledger_cause: dict[str, tuple[str, ...]] = {}

    @property
    def done(self) -> bool:
        """Whether the operation succeeded; one without a result did."""
        return self.result in (None, "ok")


class Alias(Strict, frozen=True):
    """What an alias of the flavors asks for."""

    dev_type: str
    numa_policy: str
    product_id: str
    vendor_id: str


class Sequence(Strict, frozen=True):
    """The lives of some instances on some nodes."""

    id: Name
    nodes: Annotated[tuple[Node, ...], Meta(min_length=1, max_length=256)]
    flavors: dict[str, Flavor]
    pci_aliases: dict[str, Alias]
    limits: Limits | None
    start: dict[str, NovaBook]
    ops: tuple[Op, ...]
    tags: tuple[str, ...] = ()
    broke_off: str | None = None
