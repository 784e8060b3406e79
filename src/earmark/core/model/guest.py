"""What a driver saw running on a node, whoever knows of it."""

from typing import Annotated

from msgspec import Meta

from earmark.core.model.ids import ConsumerId, Owner, UnitId
from earmark.core.model.request import Bytes, Count
from earmark.core.model.value import Value

GUESTS_MAX = 65_536
GUEST_UNITS_MAX = 4096


class Guest(Value, frozen=True):
    """A guest, container or process that uses a node: under which name, whose, and what it uses.

    `vcpus` are all its vCPUs; `units` the CPUs and devices that it has for itself (each such CPU is one of the vCPUs).
    """

    consumer: ConsumerId
    owner: Owner = Owner("unknown")
    vcpus: Count = 0
    memory_bytes: Bytes = 0
    disk_bytes: Bytes = 0
    units: Annotated[tuple[UnitId, ...], Meta(max_length=GUEST_UNITS_MAX)] = ()
