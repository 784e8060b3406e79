"""What the process that asks NVML says: one line of JSON for each thing that it found, decoded strictly.

Rules of this file: a field that could not be read is None and has its error beside it; addresses are written as sysfs writes them.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

NO_BINDING = -1
"""The code of an error before NVML could be asked at all: the Python binding is not installed."""
SUCCESS = 0
NO_PERMISSION = 4
DRIVER_NOT_LOADED = 9
LIBRARY_NOT_FOUND = 12
LOST = frozenset({15, 16})
"""NVML_ERROR_GPU_IS_LOST and NVML_ERROR_RESET_REQUIRED: whatever was asked, the GPU is of no use (nvml.h, nvmlReturn_t)."""
BROKEN = frozenset({8, 10, 11, 999})
"""External power, time-out, interrupt and unknown errors: the GPU is of no use if even its name or memory cannot be read."""
ESSENTIAL = frozenset({"handle", "UUID", "memory"})

GPUS_MAX = 256
INSTANCES_MAX = 64
PEERS_MAX = 64
Address = Annotated[str, Meta(pattern=r"^[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$")]
Uuid = Annotated[str, Meta(pattern=r"^(?:GPU|MIG)-[0-9A-Za-z][0-9A-Za-z-]{1,120}(?:/[0-9]{1,3}){0,2}$")]
Name = Annotated[str, Meta(pattern=r"^[ -~]{1,100}$")]
Hexadecimal = Annotated[str, Meta(pattern=r"^[0-9a-f]{4}$")]
Amount = Annotated[int, Meta(ge=0, le=1 << 60)]


class Failure(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was asked, NVML's code and its words."""

    what: Annotated[str, Meta(max_length=40)]
    code: Annotated[int, Meta(ge=NO_BINDING, le=1 << 31)]
    text: Annotated[str, Meta(max_length=200)]


class Peer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is at the other end of an active link."""

    kind: Literal["gpu", "switch", "other"]
    address: Address


class Instance(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One MIG instance."""

    uuid: Uuid
    name: Name | None = None
    memory_bytes: Amount | None = None


class Gpu(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One GPU in NVML's order. `cells` are the NUMA cells that its memory affinity names; `mig` None: it has no such mode, or it is unknown."""

    index: Annotated[int, Meta(ge=0, lt=GPUS_MAX)]
    address: Address | None = None
    uuid: Uuid | None = None
    name: Name | None = None
    memory_bytes: Amount | None = None
    product_id: Hexadecimal | None = None
    subsystem: Annotated[str, Meta(pattern=r"^[0-9a-f]{4}:[0-9a-f]{4}$")] | None = None
    cells: Annotated[tuple[int, ...], Meta(max_length=64)] = ()
    mig: bool | None = None
    mig_next: bool | None = None
    instances: Annotated[tuple[Instance, ...], Meta(max_length=INSTANCES_MAX)] = ()
    peers: Annotated[tuple[Peer, ...], Meta(max_length=PEERS_MAX)] = ()
    failures: Annotated[tuple[Failure, ...], Meta(max_length=64)] = ()

    @property
    def fault(self) -> str | None:
        """What makes the GPU unusable, None if nothing does."""
        for failure in self.failures:
            if failure.code in LOST or (failure.code in BROKEN and failure.what in ESSENTIAL):
                return f"{failure.text} (NVML {failure.code}, {failure.what})"
        return None


class Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One line: how many GPUs there are, that NVML could not be asked, one GPU, or that all have been told."""

    count: Annotated[int, Meta(ge=0, le=GPUS_MAX)] | None = None
    failure: Failure | None = None
    gpu: Gpu | None = None
    done: bool = False


class Seen(msgspec.Struct, frozen=True):
    """All that was told. `failure` is why NVML could not be asked, `cut` why it did not come to an end, None if it did."""

    gpus: tuple[Gpu, ...] = ()
    count: int | None = None
    failure: Failure | None = None
    cut: str | None = None
