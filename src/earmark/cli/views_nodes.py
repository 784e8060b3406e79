"""What is said of a node beside its picture: where it stands, its traits, its disks twice.

Rules of this file: those of earmark.cli.views.
"""

from __future__ import annotations

from earmark.cli import phrases
from earmark.cli.output_machine import DiskOut, NodeStanding
from earmark.core.fit.memory import limit
from earmark.core.ledger.state import NodeState
from earmark.core.model.units import format_bytes
from earmark.drivers.contract import Observation

TRAITS_SHOWN_MAX = 12


def standing(state: NodeState) -> NodeStanding:
    """Return whether a node is open for grants, disabled, or retired."""
    if state.retired is not None:
        return "retired"
    return "open" if state.disabled is None else "disabled"


def closed_for(state: NodeState) -> str | None:
    """Return the reason for which a node is not open, None if it is."""
    return state.retired if state.retired is not None else state.disabled


def disks_out(state: NodeState, seen: Observation | None) -> list[DiskOut]:
    """Return the disks of a node: the ledger's exact figures, and beside them what was free at the last look (C15)."""
    if state.layout is None:
        return []
    free = {f"disk:{disk.name}": disk.free_bytes for disk in seen.machine.disks} if seen is not None else {}
    found = []
    for pool, stock in sorted(state.layout.disks.items()):
        used = state.free.used.get(pool, 0)
        found.append(
            DiskOut(
                disk=pool.removeprefix("disk:"), pool=pool, total_bytes=stock.total, reserved_bytes=stock.reserved, ratio=stock.ratio,
                used_bytes=used, free_bytes=limit(stock) - used, seen_free_bytes=free.get(pool),
            )
        )  # fmt: skip
    return found


def node_lines(state: NodeState, seen: Observation | None) -> list[str]:
    """Return where a node stands, its traits and its disks, a line each."""
    lines = [f"  {'host':<9} {phrases.name(state.runs_on)}"]
    reason = closed_for(state)
    if reason is not None:
        lines.append(f"  {'state':<9} {standing(state)}: {phrases.clean(reason)}")
    own = sorted(trait for trait in state.traits if not trait.startswith("HW_"))
    if own:
        more = f" and {len(own) - TRAITS_SHOWN_MAX} more" if len(own) > TRAITS_SHOWN_MAX else ""
        lines.append(f"  {'traits':<9} {', '.join(own[:TRAITS_SHOWN_MAX])}{more}")
    for disk in disks_out(state, seen):
        beside = "" if disk.seen_free_bytes is None else f"; its file system had {format_bytes(disk.seen_free_bytes)} free when last seen"
        lines.append(f"  {'disk':<9} {phrases.name(disk.disk)}: {format_bytes(disk.free_bytes)} free in the ledger{beside}")
    return lines + [
        f"  {'provided':<9} {each.resource_class}: {each.total}" + (f", {each.reserved} reserved" if each.reserved else "")
        for each in state.provided.inventories
    ]
