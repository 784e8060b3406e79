"""Which allocation ratio a node has: what is configured, what it was made with, what it has already (rules C8 and C9).

Rules of this file: ratios are thousandths; None is "not configured". Source: Nova 34, compute/resource_tracker.py (the record of a node) and
virt/driver.py (the inventories), which follow one precedence; Nova makes a node with 4.0, 1.0 and 1.0, Earmark with 1.0 for all three.
"""

from msgspec.structs import replace

from earmark.core.model.inventory import RATIO_ONE
from earmark.core.model.node import NodeSettings, Ratio
from earmark.core.model.value import Value

OVERCOMMITTED = {
    "VCPU": "cpu", "MEMORY_MB": "ram", "MEMORY_BYTES": "ram", "DISK_GB": "disk", "DISK_BYTES": "disk",
}  # fmt: skip
"""The classes that may be overcommitted, and whose ratio each takes; PCPU, devices and all others are handed out once."""


class Ratios(Value, frozen=True):
    """The configuration: ratios that override what nodes have (None: none does), and those that a new node is made with."""

    cpu: Ratio | None = None
    ram: Ratio | None = None
    disk: Ratio | None = None
    initial_cpu: Ratio = RATIO_ONE
    initial_ram: Ratio = RATIO_ONE
    initial_disk: Ratio = RATIO_ONE


def ratio_of(configured: int | None, initial: int, known: int | None) -> int:
    """Return the ratio that holds: the configured one, else the one that is known already, else the initial one."""
    if configured is not None:
        return configured
    return initial if known is None else known


def settings_under(ratios: Ratios, known: NodeSettings | None) -> NodeSettings:
    """Return the settings of a node under a configuration: `known` as they are but for what is configured; None: of a new node."""
    old = known if known is not None else NodeSettings()
    return replace(
        old,
        cpu_allocation_ratio=ratio_of(ratios.cpu, ratios.initial_cpu, old.cpu_allocation_ratio if known is not None else None),
        ram_allocation_ratio=ratio_of(ratios.ram, ratios.initial_ram, old.ram_allocation_ratio if known is not None else None),
        disk_allocation_ratio=ratio_of(ratios.disk, ratios.initial_disk, old.disk_allocation_ratio if known is not None else None),
    )


def inventory_ratio(resource_class: str, ratios: Ratios, known: int | None) -> int:
    """Return the ratio of one class's inventory; `known` is what the inventory has, None where there is no inventory of it yet."""
    match OVERCOMMITTED.get(resource_class):
        case "cpu":
            return ratio_of(ratios.cpu, ratios.initial_cpu, known)
        case "ram":
            return ratio_of(ratios.ram, ratios.initial_ram, known)
        case "disk":
            return ratio_of(ratios.disk, ratios.initial_disk, known)
        case _:
            return RATIO_ONE
