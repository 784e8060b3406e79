"""What an outer ledger would be told: who holds how much of which resource class on which node.

Rules of this file: pure, and a sum over live claims; amounts are those of OpenStack Placement 16: VCPU and PCPU apart, an emulator's own CPU is one
more PCPU (C13), MEMORY_MB and DISK_GB rounded up once for each holder (C4). While a move is open its source is held under the move's id and
its destination under the consumer's (M22); an evacuation holds both under the consumer's. Foreign claims are nobody's to report.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from earmark.core.ledger.consumer import ConsumerState
from earmark.core.ledger.state import NodeState
from earmark.core.model.claim import Claim
from earmark.core.model.grant import Grant
from earmark.core.model.ids import MEMORY, NodeId
from earmark.core.model.units import GIB, KIB, MIB

PCI_CLASS_PREFIX = "CUSTOM_PCI_"


class Allocation(NamedTuple):
    """What one holder (a consumer, or a move) has on one node: resource classes and amounts, sorted by class, none of them 0."""

    holder: str
    node: NodeId
    amounts: tuple[tuple[str, int], ...]


def allocations(states: Iterable[NodeState], consumers: Iterable[ConsumerState]) -> tuple[Allocation, ...]:
    """Return all allocations, by holder and node."""
    evacuating: frozenset[str] = frozenset(
        state.move.id for state in consumers if state.move is not None and state.move.kind == "evacuation"
    )
    held: dict[tuple[str, NodeId], list[tuple[NodeState, Grant]]] = {}
    for state in sorted(states, key=lambda each: each.node):
        for claim in state.live():
            if claim.purpose != "foreign":
                held.setdefault((_holder(claim, evacuating), state.node), []).append((state, claim.grant))
    return tuple(Allocation(holder, node, _summed(grants)) for (holder, node), grants in sorted(held.items()))


def _holder(claim: Claim, evacuating: frozenset[str]) -> str:
    """Return under whose name a claim is told: a source leg that is to be left, or was left and drains, under its move's."""
    leaving = claim.move is not None and claim.leg == "source"
    return str(claim.move) if leaving and claim.move not in evacuating and claim.cause != "evacuated" else str(claim.consumer)


def _summed(grants: list[tuple[NodeState, Grant]]) -> tuple[tuple[str, int], ...]:
    """Return the classes and amounts of the grants of one holder on one node."""
    amounts: dict[str, int] = {}
    memory = disk = 0
    for state, grant in grants:
        for row in grant.units:
            name = _class_of(state, row.unit, row.use)
            if name is not None:
                amounts[name] = amounts.get(name, 0) + 1
        for amount in grant.amounts:
            kind, _, rest = amount.pool.partition(":")
            if kind == "vcpu":
                amounts["VCPU"] = amounts.get("VCPU", 0) + amount.amount
            elif amount.pool == MEMORY:
                memory += amount.amount
            elif kind == "pages":
                memory += amount.amount * int(rest.partition(":")[2]) * KIB
            elif kind == "disk":
                disk += amount.amount
            elif kind == "class":
                amounts[rest] = amounts.get(rest, 0) + amount.amount
    amounts |= {name: -(-total // unit) for name, total, unit in (("MEMORY_MB", memory, MIB), ("DISK_GB", disk, GIB)) if total}
    return tuple(sorted(amounts.items()))


def _class_of(state: NodeState, unit: str, use: str) -> str | None:
    """Return the class under which a unit is told; None for a CPU that is only kept idle."""
    if unit.startswith("cpu:"):
        return None if use == "withheld" else "PCPU"
    if unit.startswith("named:"):
        return unit.removeprefix("named:").partition("/")[0]
    device = next((each for each in state.machine.devices if each.unit == unit), None) if state.machine is not None else None
    if device is None:
        return PCI_CLASS_PREFIX + "UNKNOWN"
    if device.kind == "gpu":
        return "PGPU"
    if device.kind == "vf" and device.vendor_id is None:
        return "SRIOV_NET_VF"
    return f"{PCI_CLASS_PREFIX}{(device.vendor_id or '0000').upper()}_{(device.product_id or '0000').upper()}"
