"""What is wanted. A request says nothing about where: that is the grant's part, and the two are never mixed."""

from typing import Annotated, Literal

from msgspec import Meta

from earmark.core.model.ids import ResourceClass, Trait, UnitId
from earmark.core.model.value import Value

Count = Annotated[int, Meta(ge=0, le=1 << 20)]
Amount = Annotated[int, Meta(ge=1, le=1 << 60)]
Bytes = Annotated[int, Meta(ge=0, le=1 << 60)]

CpuPolicy = Literal["shared", "dedicated", "mixed"]
ThreadPolicy = Literal["prefer", "require", "require-strict", "isolate"]
"""require-strict leaves no vCPU alone on a core; require, as Nova's, may leave one in each guest cell whose number is odd."""
EmulatorPolicy = Literal["share", "isolate"]
PageWish = Literal["small", "large", "any"]
Placement = Literal["pack", "spread"]
Affinity = Literal["required", "preferred", "legacy", "socket"]

GUEST_CELLS_MAX = 64
DEVICE_REQUESTS_MAX = 64
RESOURCES_MAX = 64


class GuestCell(Value, frozen=True):
    """One cell of the guest: its vCPU numbers, which of them are dedicated, and its memory in bytes."""

    vcpus: tuple[Count, ...] = ()
    dedicated: tuple[Count, ...] = ()
    memory_bytes: Bytes = 0


class DeviceRequest(Value, frozen=True):
    """`count` devices of one kind (gpu, nvme, vf, …; `pci` is any kind) of those that `match` any of the alternatives.

    The keys of an alternative are dev_type (PCI, PF, VF, VDPA), vendor_id, product_id, address (of the device or of its physical
    function), a tag of the device policy, or else profile (of a MIG instance); comparison ignores case (P10). Of kind `pci`, a PF or
    VDPA device is given only where its type is asked for (P9). `affinity` says how near to the guest's cells (None: legacy), `linked`
    that all are linked to each other. `within` names the only devices, or parents of devices, that may be given (P26). `share` asks for
    so many thousandths of one device instead of a whole one. `memory_bytes` is the least memory of its own that each device has, or what
    is given of it (None: any). `alias` is the name under which a flavor asked for it.
    """

    kind: str
    count: Annotated[int, Meta(ge=1, le=1024)] = 1
    match: Annotated[tuple[dict[str, str], ...], Meta(max_length=64)] = ()
    affinity: Affinity | None = None
    linked: bool = False
    share: Annotated[int, Meta(ge=1, le=1000)] | None = None
    within: Annotated[tuple[UnitId, ...], Meta(max_length=1024)] = ()
    required_traits: tuple[Trait, ...] = ()
    forbidden_traits: tuple[Trait, ...] = ()
    alias: str | None = None
    memory_bytes: Amount | None = None


class GuestTopology(Value, frozen=True):
    """The sockets, cores and threads that the guest is shown (N24); it takes nothing from the host."""

    sockets: Annotated[int, Meta(ge=1, le=1 << 16)] = 1
    cores: Annotated[int, Meta(ge=1, le=1 << 16)] = 1
    threads: Annotated[int, Meta(ge=1, le=1 << 16)] = 1


class ResourceAmount(Value, frozen=True):
    """An amount of a plain resource class."""

    resource_class: ResourceClass
    amount: Amount


class Request(Value, frozen=True):
    """A wish for resources of one node.

    `vcpus` under `cpu_policy`; `memory_bytes` from pages of `page_kib` KiB or a named choice of page size (None: ordinary memory);
    `cells` guest cells (a number to be split evenly, or the cells themselves in `guest_cells`); `disk_bytes`; plain classes;
    devices; traits. `networks` are the physical networks of the guest's ports and `tunnel` that it has tunnelled ones (N21).
    `realtime_vcpus`, `locked_memory` and `topology` are how the guest is run; they take nothing. `placement` is the ranking among fits.
    """

    vcpus: Count = 0
    cpu_policy: CpuPolicy = "shared"
    thread_policy: ThreadPolicy | None = None
    dedicated_vcpus: tuple[Count, ...] = ()
    realtime_vcpus: tuple[Count, ...] = ()
    emulator_policy: EmulatorPolicy | None = None
    memory_bytes: Bytes = 0
    page_kib: Annotated[int, Meta(ge=1, le=1 << 40)] | PageWish | None = None
    locked_memory: bool = False
    cells: Annotated[int, Meta(ge=1, le=GUEST_CELLS_MAX)] | None = None
    guest_cells: Annotated[tuple[GuestCell, ...], Meta(max_length=GUEST_CELLS_MAX)] = ()
    topology: GuestTopology | None = None
    disk_bytes: Bytes = 0
    resources: Annotated[tuple[ResourceAmount, ...], Meta(max_length=RESOURCES_MAX)] = ()
    devices: Annotated[tuple[DeviceRequest, ...], Meta(max_length=DEVICE_REQUESTS_MAX)] = ()
    networks: Annotated[tuple[str, ...], Meta(max_length=64)] = ()
    tunnel: bool = False
    required_traits: tuple[Trait, ...] = ()
    forbidden_traits: tuple[Trait, ...] = ()
    placement: Placement = "pack"
