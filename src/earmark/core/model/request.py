"""What is wanted. A request says nothing about where: that is the grant's part, and the two are never mixed."""

from typing import Annotated, Literal

from msgspec import Meta

from earmark.core.model.ids import ResourceClass, Trait
from earmark.core.model.value import Value

Count = Annotated[int, Meta(ge=0, le=1 << 20)]
Amount = Annotated[int, Meta(ge=1, le=1 << 60)]
Bytes = Annotated[int, Meta(ge=0, le=1 << 60)]

CpuPolicy = Literal["shared", "dedicated", "mixed"]
ThreadPolicy = Literal["prefer", "require", "isolate"]
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
    """`count` devices of one kind (gpu, nvme, vf, …); `match` narrows by attribute (any of the alternatives), `affinity` by place."""

    kind: str
    count: Annotated[int, Meta(ge=1, le=1024)] = 1
    match: tuple[dict[str, str], ...] = ()
    affinity: Affinity | None = None
    linked: bool = False


class ResourceAmount(Value, frozen=True):
    """An amount of a plain resource class."""

    resource_class: ResourceClass
    amount: Amount


class Request(Value, frozen=True):
    """A wish for resources of one node.

    `vcpus` under `cpu_policy`; `memory_bytes` from pages of `page_kib` KiB or a named choice of page size (None: ordinary memory);
    `cells` guest cells (a number to be split evenly, or the cells themselves in `guest_cells`); `disk_bytes`; plain classes;
    devices; traits. `placement` is the ranking among fits. What later issues bring is held here already and refused by fit as not
    yet supported.
    """

    vcpus: Count = 0
    cpu_policy: CpuPolicy = "shared"
    thread_policy: ThreadPolicy | None = None
    dedicated_vcpus: tuple[Count, ...] = ()
    emulator_policy: EmulatorPolicy | None = None
    memory_bytes: Bytes = 0
    page_kib: Annotated[int, Meta(ge=1, le=1 << 40)] | PageWish | None = None
    cells: Annotated[int, Meta(ge=1, le=GUEST_CELLS_MAX)] | None = None
    guest_cells: Annotated[tuple[GuestCell, ...], Meta(max_length=GUEST_CELLS_MAX)] = ()
    disk_bytes: Bytes = 0
    resources: Annotated[tuple[ResourceAmount, ...], Meta(max_length=RESOURCES_MAX)] = ()
    devices: Annotated[tuple[DeviceRequest, ...], Meta(max_length=DEVICE_REQUESTS_MAX)] = ()
    required_traits: tuple[Trait, ...] = ()
    forbidden_traits: tuple[Trait, ...] = ()
    placement: Placement = "pack"
