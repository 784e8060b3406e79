"""Memory: what floats over the node, what is bound to a cell in pages of one size.

Rules of this file: ordinary memory is counted once, node-wide: floating bytes plus all base pages, within (total - reserved) x ratio;
base pages also within their cell, where nothing is overcommitted. Huge pages are never ordinary memory.
"""

from __future__ import annotations

from earmark.core.fit.free import Supply
from earmark.core.fit.refusal import broken_rule, short
from earmark.core.model.ids import MEMORY
from earmark.core.model.inventory import RATIO_ONE, Inventory
from earmark.core.model.refusal import Reason
from earmark.core.model.units import KIB, format_bytes


def ordinary_used(supply: Supply) -> int:
    """Return the ordinary memory that is held, floating or as base pages, in bytes."""
    used = supply.free.used
    pages = 0
    for pool in supply.layout.base_pools:
        pages += used.get(pool, 0)
    return used.get(MEMORY, 0) + pages * supply.layout.base_page_kib * KIB


def pages_for(memory_bytes: int, size_kib: int) -> int:
    """Return how many pages hold some memory, rounded up."""
    return -(-memory_bytes // (size_kib * KIB))


def limit(inventory: Inventory) -> int:
    """Return the exact capacity rounded down, not clamped: an integer use is admitted up to here."""
    return (inventory.total - inventory.reserved) * inventory.ratio // RATIO_ONE


def stock_reasons(resource: str, inventory: Inventory, used: int, amount: int, *, size: bool = False) -> list[Reason]:
    """Return why an amount may not be taken from an inventory: a unit rule (C11) or too little free (C10); `size`: it is bytes."""
    if inventory.admits(used, used + amount):
        rule = inventory.misfit(amount)
        return [] if rule is None else [broken_rule(resource, amount, rule)]
    capacity = limit(inventory)
    shown = format_bytes if size else str
    reasons = [short(resource, amount, capacity - used, detail=f"{shown(used)} of {shown(capacity)} is in use")]
    rule = None if amount > inventory.total else inventory.misfit(amount)
    return reasons if rule is None else [*reasons, broken_rule(resource, amount, rule)]
