"""Which dedicated CPUs a power manager may put to sleep, and which it has to keep awake (N23).

Rules of this file: pure, and hints only: nothing is powered here, because a tracker that changes what it observes cannot be believed. Who
follows the events asks again after each. Source: Nova 34, virt/libvirt/cpu/api.py: dedicated CPUs without CPU 0 are managed.
"""

from __future__ import annotations

from typing import NamedTuple

from earmark.core.fit.cpus import shared_room
from earmark.core.fit.free import CPU_PREFIX, cpu_of
from earmark.core.ledger.state import NodeState
from earmark.core.model.cpuset import cpus_of
from earmark.core.model.node import PowerStrategy


class PowerHints(NamedTuple):
    """The CPUs to be kept awake and those that may sleep, both without CPU 0; a strategy of "none" has neither."""

    strategy: PowerStrategy
    awake: tuple[int, ...] = ()
    asleep: tuple[int, ...] = ()


def power_hints(state: NodeState) -> PowerHints:
    """Return what a power manager of a node's CPUs may do now.

    Awake are those of live claims and of what is still being proven free; asleep those that nobody holds and no shared vCPU may float on,
    and siblings that are withheld.
    """
    strategy, supply = state.settings.cpu_power_management, state.supply
    if strategy == "none" or supply is None:
        return PowerHints(strategy)
    managed = supply.layout.dedicated & ~1
    used = withheld = 0
    for claim in state.live():
        for row in claim.grant.units:
            if row.unit.startswith(CPU_PREFIX):
                bit = 1 << cpu_of(row.unit)
                used, withheld = (used, withheld | bit) if row.use == "withheld" else (used | bit, withheld)
    held = state.free.taken_cpus & ~withheld
    asleep = managed & ~(used | held | (shared_room(supply).mask & ~withheld))
    return PowerHints(strategy, cpus_of(managed & (used | held)), cpus_of(asleep))
