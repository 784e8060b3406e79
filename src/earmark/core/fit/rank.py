"""Which of the cells that fit is the best one: one tuple, smaller is better, ending in the cell's id.

In order: wished devices that are not on the cell; CPUs taken of CPU 0's core; under `spread` the emptiest cell; whole cores that would
be broken; under `pack` the fullest cell (fewest free CPUs, then fewest free pages of the size); the id.
"""

from __future__ import annotations

from earmark.core.model.request import Placement

Key = tuple[int, int, int, int, int, int, int, int]


def rank(
    placement: Placement, *, missed_devices: int, zero_cpus: int, broken_cores: int, free_cpus: int, free_pages: int, cell: int
) -> Key:
    """Return the rank of a cell on which a request fits; `free_cpus` and `free_pages` are those before the grant."""
    if placement == "spread":
        return (missed_devices, zero_cpus, -free_cpus, -free_pages, broken_cores, 0, 0, cell)
    return (missed_devices, zero_cpus, 0, 0, broken_cores, free_cpus, free_pages, cell)
