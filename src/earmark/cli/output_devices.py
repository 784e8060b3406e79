"""The shapes of `--json` that describe the devices of a node and what a device policy changes.

Rules of this file: those of earmark.cli.output.
"""

from __future__ import annotations

from typing import Literal

from earmark.cli.output import Out, When
from earmark.core.model.topology import MdevType

DeviceState = Literal[
    "free", "taken", "foreign", "shared", "excluded", "cordoned", "quarantined", "faulty", "missing", "withdrawn", "reserved"
]


class NodeDeviceOut(Out, frozen=True):
    """A device, mediated device or named resource of a node, as its device policy has it.

    `state`: `excluded` is a device of which a parent or a part is held, `shared` one of which thousandths are given (`share_used`),
    `reserved` one that is not handed out, `withdrawn` what is held and that the policy has no more. `claim` holds it, or left it in
    quarantine; `cordoned` stands beside any state, `reason` is the cordon's or what its driver says is wrong; `identity` is what must stay
    equal for it to be the same device, `memory_bytes` its own memory, `profile` how a MIG instance is cut.
    """

    unit: str
    kind: str
    state: DeviceState
    offered: bool
    resource_class: str | None
    tags: dict[str, str]
    traits: list[str]
    cell: int | None
    address: str | None
    parent: str | None
    dev_type: str | None
    identity: str | None
    name: str | None
    memory_bytes: int | None
    profile: str | None
    mdev_types: list[MdevType]
    shares: bool
    share_used: int
    live_migratable: bool
    one_time_use: bool
    claim: str | None
    consumer: str | None
    cordoned: bool
    reason: str | None


class NodeDevicesOut(Out, frozen=True):
    """The answer of node devices, units in order of address."""

    node: str
    name: str
    at: When
    devices: list[NodeDeviceOut]


class DevicePolicyOut(Out, frozen=True):
    """The answer of node devices --policy: what changes (with --check: would change).

    `kept`: what is held and no longer handed out; `notes`: what the policy names and the machine has not, or has not in full.
    """

    node: str
    name: str
    checked_only: bool
    changed: bool
    differences: list[str]
    kept: list[str]
    notes: list[str]
