"""What a machine consists of, as a driver saw it: CPUs, cells, page pools, devices, disks.

Rules of this file: facts only, no policy; integers in base units; every tuple is sorted by its id, so that equal machines are equal.
"""

from typing import Annotated, Literal

from msgspec import Meta

from earmark.core.model.cpuset import CpuNumber
from earmark.core.model.ids import ResourceClass, Trait, UnitId
from earmark.core.model.value import Value

BASE_PAGE_KIB = 4
LOCAL_DISTANCE = 10
NO_CELL = -1
"""The cell of a CPU that the kernel puts in no online NUMA node (its own node is offline), as the kernel's NUMA_NO_NODE."""
CELLS_MAX = 1024
Quantity = Annotated[int, Meta(ge=0, le=1 << 62)]
PageKib = Annotated[int, Meta(ge=1, le=1 << 40)]
CPUS_MAX = 8192
MIG = "mig"
"""The kind of an instance of a GPU, which has a name and memory of its own."""
MIG_PARENT = "mig-parent"
"""The kind of a GPU that is cut into instances."""
DEVICES_MAX = 16384
IDENTITY_PARTS = 4
"""Vendor, product, subsystem vendor, subsystem product; what follows in an identity is the serial."""


class Cpu(Value, frozen=True):
    """One logical CPU that is online. `core` is the lowest CPU number of its core; numbers that the kernel does not give are None.

    `cell` is NO_CELL where the CPU is in none of the machine's cells.
    """

    id: CpuNumber
    core: int
    cell: int
    package: int | None = None
    die: int | None = None
    l3: int | None = None
    """The lowest CPU number that shares the last-level cache."""
    kind: str | None = None
    """"performance" or "efficiency" on hybrid processors."""
    isolated: bool = False


class PagePool(Value, frozen=True):
    """The pages of one size on one cell. `size_kib` is the page size in KiB, `total` a number of pages."""

    size_kib: PageKib
    total: Quantity


class Cell(Value, frozen=True):
    """One NUMA cell of the host.

    `memory_bytes` is all its memory, huge pages included; `pages` are its huge-page pools, smallest first (the base pages are what is
    left: `base_pages`). `distances` is the cell's row of the kernel's matrix, in the order of the cells; empty if it is not known.
    `initiators` are, for a cell without CPUs, the cells whose CPUs the kernel calls its nearest (access1 or access0, Linux numaperf).
    """

    id: int
    cpus: tuple[CpuNumber, ...] = ()
    memory_bytes: Quantity = 0
    pages: tuple[PagePool, ...] = ()
    distances: tuple[int, ...] = ()
    initiators: tuple[int, ...] = ()

    @property
    def ordinary_bytes(self) -> int:
        """The memory outside huge-page pools, in bytes, never negative."""
        return max(0, self.memory_bytes - sum(pool.size_kib * pool.total * 1024 for pool in self.pages))

    def base_pages(self, size_kib: int = BASE_PAGE_KIB) -> int:
        """The number of base pages in the ordinary memory."""
        return self.ordinary_bytes // (size_kib * 1024)


class MdevType(Value, frozen=True):
    """One type of mediated device that a parent offers: `total` is how many there are, existing and still to be made, together."""

    name: str
    total: Quantity
    label: str | None = None


class Device(Value, frozen=True):
    """One device that could be handed out.

    `unit` is its stable name (by serial or UUID where it has one, else by address), `address` where it sits today. `parent` is the
    physical function of a virtual one, or the GPU of a MIG instance. `kind` is the coarse use: gpu, mig (an instance), mig-parent (a GPU
    that is cut into instances and no use as a whole), accelerator, nvme, storage, nic, usb, vf, bridge, other.
    """

    unit: UnitId
    kind: str
    address: str | None = None
    class_id: str | None = None
    vendor_id: str | None = None
    product_id: str | None = None
    subsystem: str | None = None
    driver: str | None = None
    cell: int | None = None
    iommu_group: int | None = None
    parent: UnitId | None = None
    sriov_total: int = 0
    sriov_offset: int = 0
    sriov_stride: int = 0
    resettable: bool | None = None
    identity: str | None = None
    """What must stay equal for the device to be the same one (vendor:product:subsystem:serial as far as known)."""
    name: str | None = None
    memory_bytes: Quantity | None = None
    """The device's own memory."""
    links: tuple[UnitId, ...] = ()
    """The devices to which it has a direct link (NVLink), sorted."""
    fault: str | None = None
    """What its driver says is wrong with it; such a device is not handed out."""
    mdev_types: tuple[MdevType, ...] = ()
    dev_type: Literal["PCI", "PF", "VF", "VDPA"] | None = None
    """The PCI type where a driver knows it; else it follows from `kind` and `sriov_total`: `pci_type`."""
    profile: str | None = None
    """How a MIG instance is cut, as NVIDIA names it: 1g.10gb."""
    tags: tuple[tuple[str, str], ...] = ()
    """This and what follows are said by the node's device policy, never by a driver."""
    traits: tuple[Trait, ...] = ()
    resource_class: ResourceClass | None = None
    shares: bool = False
    """Thousandths of it may be given to several claims."""
    live_migratable: bool = False
    one_time_use: bool = False

    @property
    def pci_type(self) -> str:
        """PCI, PF, VF or VDPA (P1)."""
        if self.dev_type is not None:
            return self.dev_type
        return "VF" if self.kind == "vf" else "PF" if self.sriov_total else "PCI"


def identities_contradict(one: str | None, other: str | None) -> bool:
    """Say whether two identities cannot be of the same device; one that is not known contradicts nothing."""
    if one is None or other is None:
        return False
    return any(a != b for a, b in zip(one.split(":", IDENTITY_PARTS), other.split(":", IDENTITY_PARTS), strict=False))


def fuller(one: str | None, other: str | None) -> str | None:
    """Return the identity of two that says more; the first if they contradict each other."""
    return one if identities_contradict(one, other) else max(one or "", other or "", key=len) or None


class Disk(Value, frozen=True):
    """One configured path whose file system is handed out: `total_bytes` of it, `free_bytes` when it was looked at."""

    name: str
    total_bytes: Quantity
    free_bytes: int | None = None


class Machine(Value, frozen=True):
    """All that one look at a host found.

    `usable_cpus` are the CPUs this process may use (affinity and cpuset), None if it may use all that are online.
    `memory_limit_bytes` is the cgroup's limit, None if there is none. `cores_named` is False where the kernel has topology files that name
    no cores: each CPU then counts as a core. `notes` say what could not be read or is odd. `unread` are devices whose own driver could not
    be asked this time: what it told of them before still stands.
    """

    cpus: tuple[Cpu, ...] = ()
    cells: tuple[Cell, ...] = ()
    devices: tuple[Device, ...] = ()
    disks: tuple[Disk, ...] = ()
    offline_cpus: tuple[CpuNumber, ...] = ()
    usable_cpus: tuple[CpuNumber, ...] | None = None
    memory_limit_bytes: Quantity | None = None
    base_page_kib: PageKib = BASE_PAGE_KIB
    cores_named: bool = True
    traits: tuple[str, ...] = ()
    model: str | None = None
    notes: tuple[str, ...] = ()
    unread: tuple[UnitId, ...] = ()
