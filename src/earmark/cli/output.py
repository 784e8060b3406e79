"""The shapes of `--json`: what each command answers, documented in docs/reference/json.md.

Rules of this file: every key is always there; a moment is its milliseconds and its ISO text; an amount is in its base unit; names are as the
ledger has them, and JSON escapes what a terminal would obey. A key may be added, none changes its meaning.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from earmark.core.model.claim import Holder
from earmark.core.model.grant import AmountRow, Grant, UnitRow
from earmark.core.model.node import NodeSettings
from earmark.core.model.request import Request

UnitState = Literal["free", "taken", "foreign", "cordoned", "quarantined", "missing", "reserved", "unusable"]


Sign = Literal["+", "-", "~"]


class Out(msgspec.Struct, frozen=True, kw_only=True):
    """The base of all answers."""


class When(Out, frozen=True):
    """A moment: milliseconds since the epoch, and the same as ISO 8601 in UTC."""

    ms: int
    iso: str


class ClaimOut(Out, frozen=True):
    """A live claim. `cpus` are the CPUs it holds alone, `cells` the host cells it is bound to, `until` its end (null: none)."""

    id: str
    node: str
    node_name: str
    consumer: str
    owner: str
    phase: str
    purpose: str
    generation: int
    held_at: When
    until: When | None
    draining_since: When | None
    cause: str | None
    holds: str
    cpus: list[int]
    cells: list[int]
    units: list[UnitRow]
    amounts: list[AmountRow]
    grant: Grant
    request: Request
    holders: list[Holder]


class QuarantineOut(Out, frozen=True):
    """What an ended claim held and nobody gets until `earmark return`."""

    claim: str
    node: str
    node_name: str
    consumer: str
    owner: str
    since: When
    reason: str
    holds: str
    units: list[UnitRow]
    amounts: list[AmountRow]


class CordonOut(Out, frozen=True):
    """A unit (null: the node) that gets no new grants."""

    unit: str | None
    reason: str
    since: When
    until: When | None


class AnswerOut(Out, frozen=True):
    """What a change led to: claim, confirm, abort, renew, release, return, node set, cordon, uncordon, rehome.

    `changed` false: it was so already. `claim` is null once it has ended.
    """

    outcome: str
    changed: bool
    node: str
    claim_id: str | None
    cause: str | None
    message: str
    differences: list[str]
    touched: list[str]
    claim: ClaimOut | None
    notices: list[str]


class HoldingOut(Out, frozen=True):
    """A claim that holds some of what is short."""

    claim: str
    consumer: str
    owner: str
    amount: int
    what: str
    until: When | None


class ReasonOut(Out, frozen=True):
    """One cause of a no. `text` is the line a person reads; amounts are in the resource's base unit."""

    code: str
    resource: str
    asked: int
    free: int
    short: int
    cell: int | None
    unit: str | None
    detail: str
    text: str
    holders: list[HoldingOut]
    holders_left_out: int


class FitOut(Out, frozen=True):
    """The answer of fit and why-not, and of a claim that was refused: either a grant, or reasons."""

    fits: bool
    node: str
    request: Request
    grant: Grant | None
    holds: str
    reasons: list[ReasonOut]
    fits_if: list[str]


class SharerOut(Out, frozen=True):
    """A claim whose shared vCPUs may run on a CPU."""

    claim: str
    consumer: str
    owner: str
    vcpus: int


class WhoOut(Out, frozen=True):
    """Who holds a unit. `offered`: it may be handed out at all; `claim` is its holder, `quarantine` and `cordon` what keeps it back, `shared_by` who may also run there."""

    unit: str
    node: str
    node_name: str
    at: When
    state: UnitState
    offered: bool
    claim: ClaimOut | None
    quarantine: QuarantineOut | None
    cordon: CordonOut | None
    shared_by: list[SharerOut]


class ListOut(Out, frozen=True):
    """All live claims and quarantines, by node, oldest first."""

    at: When
    claims: list[ClaimOut]
    quarantines: list[QuarantineOut]


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
    """A device. `offered` says whether it may be handed out."""

    unit: str
    kind: str
    name: str | None
    address: str | None
    cell: int | None
    driver: str | None
    iommu_group: int | None
    parent: str | None
    offered: bool
    state: UnitState
    claim: str | None


class LedgerOut(Out, frozen=True):
    """The ledger that answered. `kind`: named, machine, shared or user; `private`: other users of this machine do not see it."""

    place: str
    kind: str
    private: bool
    note: str


class MachineOut(Out, frozen=True):
    """The whole node: the answer of `earmark`, `show` and `node show`."""

    node: str
    name: str
    at: When
    sequence: int
    model: str | None
    inventory_version: int
    observed: bool
    ledger: LedgerOut | None
    settings: NodeSettings
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
    """One line of `node list`."""

    node: str
    name: str
    cpus: int
    cpus_held: int
    cells: int
    memory_bytes: int
    claims: int
    quarantines: int
    cordons: int
    sequence: int
    at: When


class EventOut(Out, frozen=True):
    """One event of `log`, one per line. `text` is the line a person reads, `data` the event as stored."""

    position: int
    stream: str
    sequence: int
    at: When
    type: str
    version: int
    actor: str
    command: str
    text: str
    data: msgspec.Raw
    hash: str


class ChangeOut(Out, frozen=True):
    """One difference: `-` was, `+` is, `~` is otherwise."""

    sign: Sign
    what: str
    text: str


class DiffOut(Out, frozen=True):
    """What changed on a node between two moments."""

    node: str
    name: str
    before: When
    after: When
    changes: list[ChangeOut]


class FindingOut(Out, frozen=True):
    """One finding of the auditor."""

    code: str
    severity: str
    detail: str
    node: str | None
    claim: str | None
    unit: str | None


class AuditOut(Out, frozen=True):
    """The answer of audit; `clean`: nothing was found at all."""

    clean: bool
    errors: int
    warnings: int
    findings: list[FindingOut]


class VerifyOut(Out, frozen=True):
    """The answer of verify: how much was replayed."""

    clean: bool
    streams: int
    events: int
    message: str
    findings: list[FindingOut]


class FileOut(Out, frozen=True):
    """A file that was written or read: init, backup, export, import, archive."""

    path: str
    events: int | None
    bytes: int | None
    message: str


class SelftestOut(Out, frozen=True):
    """The answer of selftest."""

    clean: bool
    folder: str
    rounds: int
    kills: int
    acknowledged: int
    lost: int
    findings: list[str]


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

    `cores` is empty where the kernel names none; `no_cell` are CPUs in no cell; devices are the struct Device and its `children`.
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


ANSWERS: tuple[tuple[str, type[Out]], ...] = (
    ("earmark, show, node show", MachineOut),
    ("list", ListOut),
    ("show CLAIM", ClaimOut),
    ("who", WhoOut),
    ("fit, why-not, a refused claim", FitOut),
    ("claim, confirm, abort, renew, release, return, node set, cordon, uncordon, rehome", AnswerOut),
    ("node list", NodeOut),
    ("log", EventOut),
    ("diff", DiffOut),
    ("audit", AuditOut),
    ("verify", VerifyOut),
    ("init, backup, export, import, archive", FileOut),
    ("selftest", SelftestOut),
    ("discover", DiscoverOut),
)
"""Which command answers in which shape, for docs/reference/json.md."""
