"""What a node's device policy says: which devices may be handed out, as what, and what else there is to hand out by name.

Sources: Nova 34, pci/devspec.py and pci/whitelist.py (P18), conf/devices.py (V1), virt/libvirt/driver.py (V4, V6).
"""

from typing import Annotated

import msgspec
from msgspec import Meta

from earmark.core.model.ids import ResourceClass, Trait, UnitId
from earmark.core.model.value import Value

RULES_MAX = 1024
NAMED_MAX = 4096


class DeviceRule(Value, frozen=True):
    """One rule: which devices it is about (every field that is set must match), and what it says of them.

    Matching: `units` by name, `vendor_id` and `product_id` in hexadecimal, `address` with `*` and `?` as in a shell (of the device, or of
    the physical function of a virtual one), `observed_kind` as the driver saw it, `dev_type`. Saying: `hand_out`, the `kind` it is asked
    for by, `tags`, `traits`, a `resource_class` in whose units it is counted, the `mdev_type` its instances are made of with at most
    `max_instances` of them, `shares` (thousandths may be given), `live_migratable`, `one_time_use` (quarantined when it comes back).
    """

    units: tuple[UnitId, ...] = ()
    vendor_id: str | None = None
    product_id: str | None = None
    address: str | None = None
    observed_kind: str | None = None
    dev_type: str | None = None
    hand_out: bool = True
    kind: str | None = None
    tags: dict[str, str] = msgspec.field(default_factory=dict)
    traits: tuple[Trait, ...] = ()
    resource_class: ResourceClass | None = None
    mdev_type: str | None = None
    max_instances: Annotated[int, Meta(ge=0, le=1 << 16)] | None = None
    shares: bool = False
    live_migratable: bool = False
    one_time_use: bool = False


class NamedResource(Value, frozen=True):
    """One thing that is handed out by name (V4): a persistent memory namespace (V6), a licence dongle, an encryption context (V7)."""

    resource_class: ResourceClass
    name: str
    cell: int | None = None
