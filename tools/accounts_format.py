"""The format of recorded lives of instances: one JSON object a line, strictly read.

Rules of this file: nothing is guessed; an unknown field, operation or type is an error that says where it stands; a bad line spoils no other.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec

LINE_BYTES_MAX = 64 * 1024 * 1024

Operation = Literal[
    "build_claim", "build_done", "build_abort", "resize_claim", "resize_abort", "resize_off", "resize_switch", "resize_finish", "confirm",
    "revert_dest", "revert_source", "live_claim", "live_run", "live_done", "live_rollback", "node_down", "evacuate_claim", "evacuate_done",
    "evacuate_abort", "node_restart", "delete", "shelve_offload", "unshelve_claim", "unshelve_done", "unshelve_abort", "audit",
]  # fmt: skip


class Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, rename=lambda name: name.rstrip("_")):
    """The base of all parts of a line."""


class Pages(Strict, frozen=True, kw_only=True):
    """The pages of one size on one cell."""

    size_kb: int
    total: int
    reserved: int = 0
    used: int = 0


class CpuSets(Strict, frozen=True, kw_only=True):
    """The CPUs of a cell that guests may share, and those that one guest may have alone."""

    shared: tuple[int, ...] = ()
    dedicated: tuple[int, ...] = ()


class HostCell(Strict, frozen=True, kw_only=True):
    """One cell of a host."""

    id: int
    memory_mb: int
    cpus: CpuSets
    siblings: tuple[tuple[int, ...], ...] = ()
    pages: tuple[Pages, ...] = ()
    socket: int | None = None
    distances: tuple[int, ...] = ()
    used: dict[str, Any] = {}


class HostDevice(Strict, frozen=True, kw_only=True):
    """One PCI device of a host."""

    address: str
    type: Literal["PF", "VF", "PCI", "VDPA"]
    vendor_id: str = ""
    product_id: str = ""
    numa_node: int | None = None
    parent: str | None = None
    tags: dict[str, Any] = {}
    status: str = "available"
    owner: str | None = None


class Host(Strict, frozen=True, kw_only=True):
    """A host, empty."""

    cells: tuple[HostCell, ...]
    pci: tuple[HostDevice, ...] = ()
    cpu_mode: Literal["split", "dedicated", "shared", "ragged", "default"]
    cpus_offline: tuple[int, ...] = ()
    shape: str = ""
    used: dict[str, Any] = {}


class RecordedNode(Strict, frozen=True, kw_only=True):
    """A node of the sequence."""

    name: str
    host: Host
    local_gb: int
    reserved_memory_mb: int


class Flavor(Strict, frozen=True, kw_only=True):
    """What an instance is made of."""

    vcpus: int
    memory_mb: int
    root_gb: int = 0
    ephemeral_gb: int = 0
    swap_mb: int = 0
    extra_specs: dict[str, str] = {}


class PlacedCell(Strict, frozen=True, kw_only=True):
    """Where one guest cell was put."""

    guest_cell: int
    host_cell: int
    memory_mb: int
    vcpus: tuple[int, ...] = ()
    shared_vcpus: tuple[int, ...] = ()
    cpu_pinning: dict[str, int] = {}
    pcpus: tuple[int, ...] = ()
    pagesize_kb: int | None = None
    cpuset_reserved: tuple[int, ...] = ()


class Placement(Strict, frozen=True, kw_only=True):
    """What a claim was given."""

    cells: tuple[PlacedCell, ...] | None = None
    pci: tuple[str, ...] = ()


class BookCell(Strict, frozen=True, kw_only=True):
    """What is used of one cell."""

    pinned_cpus: tuple[int, ...]
    memory_mb: int
    shared_vcpus: int
    pages: dict[str, int]


class BookDevice(Strict, frozen=True, kw_only=True):
    """A device that is not available, as the recorded program has it."""

    status: str
    instance: str | None = None


class RecordedBook(Strict, frozen=True, kw_only=True):
    """The books that the recorded program kept of a node."""

    vcpus_used: int
    memory_mb_used: int
    local_gb_used: float
    cells: dict[str, BookCell]
    pci: dict[str, BookDevice]
    running_vms: int = 0


class RightBook(Strict, frozen=True, kw_only=True):
    """The right books of a node."""

    vcpus_used: int
    memory_mb_used: int
    local_gb_used: float
    cells: dict[str, BookCell]
    pci: dict[str, str]


class Op(Strict, frozen=True, kw_only=True):
    """One operation, and the books after it where they changed."""

    op: Operation
    instance: str | None = None
    node: str | None = None
    from_: str | None = None
    to: str | None = None
    flavor: str | None = None
    volume_backed: bool = False
    record_only: bool = False
    result: Literal["ok", "refused", "error"] = "ok"
    error: str | None = None
    placement: Placement | None = None
    after: dict[str, RecordedBook] = {}
    facts: dict[str, Any] = {}
    audit_error: Any = None
    ledger: dict[str, RightBook] = {}
    ledger_differs: dict[str, Any] = {}
    ledger_cause: dict[str, Any] = {}


class Sequence(Strict, frozen=True, kw_only=True):
    """One recorded life of some nodes."""

    id: str
    nodes: tuple[RecordedNode, ...]
    flavors: dict[str, Flavor]
    ops: tuple[Op, ...]
    start: dict[str, RecordedBook]
    pci_aliases: dict[str, Any] = {}
    limits: dict[str, Any] | None = None
    tags: tuple[str, ...] = ()
    broke_off: str | None = None


class BadLine(msgspec.Struct, frozen=True):
    """A line that cannot be replayed, and why."""

    number: int
    why: str


_decoder = msgspec.json.Decoder(Sequence)


def sequences(path: Path) -> Iterator[tuple[int, Sequence | BadLine]]:
    """Yield the sequences of a file, plain or gzipped, with their line numbers; raises OSError if it cannot be read."""
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield number, _read(number, line)


def _read(number: int, line: bytes) -> Sequence | BadLine:
    if len(line) > LINE_BYTES_MAX:
        return BadLine(number, f"has {len(line)} bytes, at most {LINE_BYTES_MAX} are read")
    try:
        sequence = _decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return BadLine(number, str(error))
    wrong = next(_wrong(sequence), None)
    return sequence if wrong is None else BadLine(number, wrong)


def _wrong(sequence: Sequence) -> Iterator[str]:
    """Yield what a sequence names and does not have, or leaves out and needs."""
    nodes = {node.name for node in sequence.nodes}
    if len(nodes) != len(sequence.nodes) or nodes != set(sequence.start):
        yield "nodes and start do not name the same nodes, each once"
    for number, op in enumerate(sequence.ops):
        where = f"op {number} {op.op}"
        named = {name for name in (op.node, op.from_, op.to, *op.after, *op.ledger) if name is not None}
        if named - nodes:
            yield f"{where}: node {min(named - nodes)} is none of the sequence"
        if op.flavor is not None and op.flavor not in sequence.flavors:
            yield f"{where}: flavor {op.flavor} is none of the sequence"
        if op.op.endswith("_claim") and op.result == "ok" and (op.placement is None or op.flavor is None or op.node is None):
            yield f"{where}: a claim that went well has a node, a flavor and a placement"
        if op.op in ("node_down", "node_restart", "audit"):
            if op.node is None:
                yield f"{where}: names no node"
        elif op.instance is None:
            yield f"{where}: names no instance"
