"""CPUs: what the shared holders keep, and what may become somebody's own.

Rules of this file: exact in integers; ratios are thousandths.
"""

from typing import NamedTuple

from earmark.core.fit.free import Supply
from earmark.core.fit.layout import CellLayout
from earmark.core.model.ids import VCPU
from earmark.core.model.inventory import RATIO_ONE


class SharedRoom(NamedTuple):
    """The shared set now (`mask`), the sum of shared vCPUs on the node (`used`), and how many there may be (`capacity`)."""

    mask: int
    used: int
    capacity: int


def shared_room(supply: Supply, taking: int = 0) -> SharedRoom:
    """Return the room for shared vCPUs, once the CPUs in `taking` are dedicated too."""
    layout, free = supply.layout, supply.free
    mask = layout.shared & ~supply.blocked_cpus
    if layout.exclusive:
        mask &= ~(free.taken_cpus | taking)
    used = free.used.get(VCPU, 0)
    for pool in layout.vcpu_pools:
        used += free.used.get(pool, 0)
    return SharedRoom(mask, used, mask.bit_count() * layout.cpu_ratio // RATIO_ONE)


def cell_capacity(mask: int, cell: CellLayout, ratio: int) -> int:
    """Return how many shared vCPUs may be bound to a cell, given the shared set now."""
    return (mask & cell.cpus).bit_count() * ratio // RATIO_ONE


def needed_for(vcpus: int, ratio: int) -> int:
    """Return the smallest number of CPUs that holds some shared vCPUs under a ratio in thousandths."""
    return -(-vcpus * RATIO_ONE // ratio)


def dedicated_free(supply: Supply) -> int:
    """Return the mask of CPUs that may become somebody's own."""
    return supply.layout.dedicated & ~(supply.free.taken_cpus | supply.blocked_cpus)
