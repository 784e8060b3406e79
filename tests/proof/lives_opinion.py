"""The second opinion about lives of instances: what is asked for, what is believed of each claim and move, and the sums that follow.

Rules of this file: nothing here comes from the program but its vocabulary; a claim counts what its request says, wherever it was put.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from msgspec.structs import replace as with_fields

from earmark.core.ledger.state import NodeState
from earmark.core.model.ids import MEMORY, VCPU, PoolId
from earmark.core.model.instance import InstanceState, MoveKind
from earmark.core.model.request import DeviceRequest, Request
from earmark.core.model.units import GIB, KIB, MIB
from earmark.testing import UNRESERVED

GRACE_MS = 60_000
HOLD_MS = 600_000
WINDOW_MS = 900_000
REPLAY_EVERY = 25
"""Steps after which the auditor folds the whole ledger anew; after each of the others it looks at the states as they are published."""
PIDS = range(101, 107)
CONSUMERS = tuple(f"vm{number}" for number in range(5))
SHAPES = {"n1": "2x4c 16G 2M:512 vf:4 disk:200G", "plain": "8c 16G disk:200G", "tiny": "3c 4G disk:60G"}
SETTINGS = with_fields(
    UNRESERVED, allow_resize_to_same_host=True, allow_migrate_to_same_host=True, resize_confirm_window_s=WINDOW_MS // 1000,
    live_migratable_kinds=("vf",),
)  # fmt: skip
PLAIN = with_fields(UNRESERVED, cpu_allocation_ratio=2000, allow_migrate_to_same_host=True)
REQUESTS = (
    Request(vcpus=1, memory_bytes=GIB, disk_bytes=10 * GIB),
    Request(vcpus=2, memory_bytes=2 * GIB, disk_bytes=20 * GIB + 512 * MIB),
    Request(vcpus=1, cpu_policy="dedicated", memory_bytes=GIB),
    Request(vcpus=2, cpu_policy="dedicated", memory_bytes=2 * GIB, disk_bytes=5 * GIB),
    Request(vcpus=1, memory_bytes=256 * MIB, page_kib=2048),
    Request(vcpus=1, memory_bytes=GIB, devices=(DeviceRequest(kind="vf"),)),
    Request(vcpus=2, cpu_policy="dedicated", memory_bytes=GIB, devices=(DeviceRequest(kind="vf", count=2),)),
    Request(vcpus=2, memory_bytes=GIB, devices=(DeviceRequest(kind="vf"),)),
    Request(vcpus=9, memory_bytes=GIB),
)
STATES: tuple[InstanceState, ...] = (
    "building", "active", "paused", "suspended", "stopped", "rescued", "resized", "error", "shelved", "soft_deleted", "shelved_offloaded",
    "deleted",
)  # fmt: skip
KINDS: tuple[MoveKind, ...] = ("resize", "resize", "migration", "live_migration", "evacuation")
OUTCOMES = {"confirm": "confirmed", "revert": "reverted", "abort": "aborted", "expire": "expired"}


class Books(NamedTuple):
    """What a node gives out: vCPUs and dedicated CPUs, bytes of memory and of disk, devices."""

    cpus: int = 0
    memory: int = 0
    disk: int = 0
    devices: int = 0

    def plus(self, other: Books) -> Books:
        """Return the sum."""
        return Books(*(one + two for one, two in zip(self, other, strict=True)))


def asked(request: Request, named: int = 0) -> Books:
    """Return what a request takes wherever it is granted, less the devices that stay with another claim."""
    return Books(request.vcpus, request.memory_bytes, request.disk_bytes, sum(device.count for device in request.devices) - named)


def books(state: NodeState) -> Books:
    """Return what a node says that is used."""
    free = state.free
    devices = sum(not slot.startswith("cpu:") for slot in free.slots)
    pages = sum(amount * int(pool.rsplit(":", 1)[1]) * KIB for pool, amount in free.used.items() if pool.startswith("pages:"))
    shared = sum(amount for pool, amount in free.used.items() if pool == VCPU or pool.startswith(f"{VCPU}:"))
    return Books(shared + free.taken_cpus.bit_count(), free.used.get(MEMORY, 0) + pages, free.used.get(PoolId("disk:root"), 0), devices)


@dataclass
class Held:
    """What is believed of one claim that lives."""

    node: str
    consumer: str
    request: Request
    purpose: str
    phase: str = "held"
    deadline_ms: int | None = None
    holders: tuple[int, ...] = ()
    move: str | None = None
    leg: str | None = None
    named: int = 0
    passed: int = 0
    since_ms: int = 0
    confirmed_ms: int | None = None
    cause: str | None = None

    @property
    def books(self) -> Books:
        """What it holds now."""
        return asked(self.request, self.named + self.passed)


@dataclass
class Moving:
    """What is believed of a move: pairs of source and destination claims, the main one first; `outcome` None while it is open."""

    consumer: str
    kind: MoveKind
    pairs: list[tuple[str, str]]
    target: str
    outcome: str | None = None


@dataclass
class Opinion:
    """All that is believed of the ledger."""

    live: dict[str, Held] = field(default_factory=dict)
    ended: dict[str, str] = field(default_factory=dict)
    kept: dict[str, Held] = field(default_factory=dict)
    known: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    moves: dict[str, Moving] = field(default_factory=dict)
    closed: set[str] = field(default_factory=set)
    retired: set[str] = field(default_factory=set)

    def of(self, consumer: str) -> dict[str, Held]:
        """Return the live claims of a consumer, by id."""
        return {key: claim for key, claim in sorted(self.live.items()) if claim.consumer == consumer}

    def main(self, consumer: str) -> str | None:
        """Return the claim that a move of the consumer would leave."""
        return next((key for key, claim in self.of(consumer).items() if claim.purpose == "main" and claim.phase != "draining"), None)

    def open_move(self, consumer: str) -> str | None:
        """Return the open move of a consumer."""
        return next((key for key, move in self.moves.items() if move.consumer == consumer and move.outcome is None), None)

    def used(self, node: str) -> Books:
        """Return the sum of all that is held and kept on a node (I1)."""
        total = Books()
        for claim in (*self.live.values(), *self.kept.values()):
            if claim.node == node:
                total = total.plus(claim.books)
        return total
