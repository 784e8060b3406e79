"""The shapes of `--json` that describe machines: the picture, the list of nodes, and discover.

Rules of this file: those of earmark.cli.output.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from earmark.cli.output import ClaimOut, CordonOut, Out, QuarantineOut, UnitState, When
from earmark.core.model.node import NodeSettings, Provided

NodeStanding = Literal["open", "disabled", "retired"]


class CpuOut(Out, frozen=True):
    """A logical CPU. `core` is the lowest CPU number of its core; `claim` who holds it, or whose quarantine it is in."""

    id: int
    core: int
    cell: int
    package: int | None
    kind: str | None
    isolated: bool
    state: UnitState
    claim: str | None


class PageOut(Out, frozen=True):
    """The huge pages of one size on one cell, in pages."""

    size_kib: int
    total: int
    capacity: int
    used: int


class CellOut(Out, frozen=True):
    """A NUMA cell of the host. `memory_bytes` is all of it, `bound_bytes` the ordinary memory that claims hold on this very cell."""

    id: int
    cpus: list[int]
    memory_bytes: int
    ordinary_bytes: int
    bound_bytes: int
    distances: list[int]
    pages: list[PageOut]


class PoolOut(Out, frozen=True):
    """A stock in its base unit (bytes, pages, CPUs, vCPUs); `capacity` = (total - reserved) x ratio, `ratio` in thousandths."""

    resource_class: str
    pool: str
    cell: int | None
    page_kib: int | None
    total: int
    reserved: int
    ratio: int
    capacity: int
    used: int


class DeviceOut(Out, frozen=True):
    """A device. `offered` says whether it may be handed out, `links` to which devices it is linked, `fault` what its driver says is wrong.

    `memory_bytes` is its own memory, `profile` how a MIG instance is cut: 1g.10gb.
    """

    unit: str
    kind: str
    name: str | None
    address: str | None
    cell: int | None
    driver: str | None
    iommu_group: int | None
    parent: str | None
    memory_bytes: int | None
    profile: str | None
    links: list[str]
    fault: str | None
    offered: bool
    state: UnitState
    claim: str | None


class LedgerOut(Out, frozen=True):
    """The ledger that answered. `kind`: named, machine, shared or user; `private`: other users of this machine do not see it."""

    place: str
    kind: str
    private: bool
    note: str


class DiskOut(Out, frozen=True):
    """A disk. `free_bytes` is the ledger's exact figure; `seen_free_bytes` what the file system had free when it was last looked at (null: never).

    The two differ by what guests have not written yet and by what others have written; only the ledger's figure decides.
    """

    disk: str
    pool: str
    total_bytes: int
    reserved_bytes: int
    ratio: int
    used_bytes: int
    free_bytes: int
    seen_free_bytes: int | None


class MachineOut(Out, frozen=True):
    """The whole node: the answer of `earmark`, `show` and `node show`.

    `host` runs the node; `state` is open, disabled or retired, for the `reason`; `provided` is what provider configuration adds.
    """

    node: str
    name: str
    at: When
    sequence: int
    model: str | None
    inventory_version: int
    observed: bool
    ledger: LedgerOut
    host: str
    state: NodeStanding
    reason: str | None
    traits: list[str]
    settings: NodeSettings
    provided: Provided
    disks: list[DiskOut]
    cpus: list[CpuOut]
    offline_cpus: list[int]
    cells: list[CellOut]
    pools: list[PoolOut]
    devices: list[DeviceOut]
    claims: list[ClaimOut]
    quarantines: list[QuarantineOut]
    cordons: list[CordonOut]
    missing: list[str]
    notes: list[str]


class NodeOut(Out, frozen=True):
    """One line of `node list`. `host` runs the node; `state` is open, disabled or retired, for the `reason`."""

    node: str
    name: str
    host: str
    state: NodeStanding
    reason: str | None
    cpus: int
    cpus_held: int
    cells: int
    memory_bytes: int
    claims: int
    quarantines: int
    cordons: int
    sequence: int
    at: When


class ProvidedOut(Out, frozen=True):
    """What provider configuration adds to a node from now on (with --check: would add); `changed` false: it has that already."""

    node: str
    name: str
    changed: bool
    provided: Provided


class ProvidersOut(Out, frozen=True):
    """The answer of node providers; `notes`: what was passed over, and why."""

    checked_only: bool
    nodes: list[ProvidedOut]
    notes: list[str]


class PowerOut(Out, frozen=True):
    """The answer of node power: the strategy, the dedicated CPUs to be kept awake, and those that may sleep."""

    node: str
    strategy: str
    awake: list[int]
    asleep: list[int]


class DiscoveredPages(Out, frozen=True):
    """A huge-page pool."""

    size_kib: int
    total: int


class DiscoveredCell(Out, frozen=True):
    """A NUMA cell as discovered; `memory_only`: it has no CPUs, and `cpus` are those nearest to its memory."""

    id: int
    cpus: list[int]
    memory_only: bool
    memory_bytes: int
    pages: list[DiscoveredPages]
    distances: list[int]


class DiscoverOut(Out, frozen=True):
    """The answer of discover. `cores`, `l3`, `dies`, `sockets`: lists of CPU numbers; `packages`: how many sockets.

    `cores` is empty where the kernel names none; `no_cell` are CPUs in no cell; devices are the struct Device and its `children`, `unread`
    those whose own driver could not be asked.
    """

    hostname: str
    boot_id: str
    machine_ref: str | None
    model: str | None
    traits: list[str]
    cpus: list[int]
    offline: list[int]
    isolated: list[int]
    usable: list[int]
    cores: list[list[int]]
    l3: list[list[int]]
    dies: list[list[int]]
    sockets: list[list[int]]
    packages: int
    kinds: dict[str, list[int]]
    no_cell: list[int]
    cells: list[DiscoveredCell]
    memory_limit_bytes: int | None
    base_page_kib: int
    devices: list[dict[str, Any]]
    disks: list[dict[str, Any]]
    notes: list[str]
    unread: list[str] = msgspec.field(default_factory=list)
