"""How a node is run: its CPU policy, what is kept back, its ratios, its own resource classes.

The names follow Nova's options (Nova 34, conf/compute.py): reserved_host_cpus, reserved_host_memory_mb, reserved_host_disk_mb,
cpu_shared_set, cpu_dedicated_set, cpu/ram/disk_allocation_ratio, reserved_huge_pages. The defaults are safe: nothing is overcommitted
unless it is asked for.
"""

from typing import Annotated, Literal

from msgspec import Meta

from earmark.core.model.cpuset import CpuNumber
from earmark.core.model.device_rule import DeviceRule, NamedResource
from earmark.core.model.ids import Trait, UnitId
from earmark.core.model.inventory import Inventory
from earmark.core.model.units import GIB, MIB
from earmark.core.model.value import Value

NodePolicy = Literal["pool", "split", "overlap"]
PowerStrategy = Literal["none", "cpu_state", "governor"]
"""What may be done to dedicated CPUs that nobody holds (N23): nothing, taking them offline, or a saving governor."""

RESERVED_MEMORY_LEAST = 512 * MIB
RESERVED_MEMORY_SHARE = 50
"""One fiftieth (2 %) of the memory is kept for the host if that is more."""

Ratio = Annotated[int, Meta(ge=1, le=1_000_000)]


class ReservedPages(Value, frozen=True):
    """Huge pages kept back on one cell (H3)."""

    cell: int
    size_kib: int
    count: Annotated[int, Meta(ge=0)]


class Provided(Value, frozen=True):
    """What provider configuration files add to a node: inventories of custom classes, and custom traits (K1), sorted by name."""

    inventories: tuple[Inventory, ...] = ()
    traits: tuple[Trait, ...] = ()


class NetworkCells(Value, frozen=True):
    """The cells to which a physical network is attached (Nova 34, `[neutron]physnets`, N21); "" is the tunnelled networks."""

    network: str
    cells: tuple[int, ...]


class NodeSettings(Value, frozen=True):
    """The settings of one node. Ratios are thousandths. `device_kinds` and `device_units` say which devices may be handed out.

    `reserved_host_memory_bytes` None means the larger of 512 MiB and 2 %. The CPU sets None mean: not set. `max_concurrent_builds` and
    `resize_confirm_window_s` 0 mean: no limit, no automatic confirmation. Devices of `live_migratable_kinds` move while in use.
    `file_backed_memory_bytes` more than 0 stands in place of the machine's memory: guests' memory is files then (C14).
    `device_rules` (the first that matches a device counts) and `named_resources` are the node's device policy, `keep_iommu_groups` gives
    all devices of an IOMMU group to one claim; `network_cells` say where networks are attached (N21). `cpu_power_management` says what a
    power manager may do to idle CPUs; it is told which (`earmark node power`), and never done here.
    """

    cpu_policy: NodePolicy = "pool"
    cpu_shared_set: tuple[CpuNumber, ...] | None = None
    cpu_dedicated_set: tuple[CpuNumber, ...] | None = None
    reserved_host_cpus: Annotated[int, Meta(ge=0)] = 0
    reserved_host_memory_bytes: Annotated[int, Meta(ge=0)] | None = None
    reserved_host_disk_bytes: Annotated[int, Meta(ge=0)] = GIB
    cpu_allocation_ratio: Ratio = 1000
    ram_allocation_ratio: Ratio = 1000
    disk_allocation_ratio: Ratio = 1000
    reserved_huge_pages: tuple[ReservedPages, ...] = ()
    inventories: tuple[Inventory, ...] = ()
    device_kinds: tuple[str, ...] = ("accelerator", "gpu", "mig", "vf")
    device_units: tuple[UnitId, ...] = ()
    file_backed_memory_bytes: Annotated[int, Meta(ge=0)] = 0
    max_concurrent_builds: Annotated[int, Meta(ge=0)] = 0
    allow_resize_to_same_host: bool = True
    allow_migrate_to_same_host: bool = False
    live_migratable_kinds: tuple[str, ...] = ()
    network_cells: tuple[NetworkCells, ...] = ()
    keep_iommu_groups: bool = False
    cpu_power_management: PowerStrategy = "none"
    device_rules: tuple[DeviceRule, ...] = ()
    named_resources: tuple[NamedResource, ...] = ()
    resize_confirm_window_s: Annotated[int, Meta(ge=0)] = 0

    def reserved_memory(self, total_bytes: int) -> int:
        """The memory kept for the host, in bytes, never more than there is."""
        wanted = self.reserved_host_memory_bytes
        if wanted is None:
            wanted = max(RESERVED_MEMORY_LEAST, total_bytes // RESERVED_MEMORY_SHARE)
        return min(wanted, total_bytes)
