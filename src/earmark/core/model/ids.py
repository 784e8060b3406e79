"""Names of things: which texts are accepted as a node, claim, consumer, owner, unit, pool or stream.

Rules of this file: an id is a checked string; the check stands here once. Units are `kind:local` (`cpu:12`, `pci:0000:41:00.0`,
`gpu:GPU-8e94…`, `named:CUSTOM_X/ns0`), pools are what is summed (`vcpu`, `memory`, `pages:0:2048`, `disk:root`, `class:CUSTOM_X`,
`share:gpu:GPU-8e94…`).
"""

import re
from typing import NewType

from earmark.errors import InvalidRequest

NodeId = NewType("NodeId", str)
ClaimId = NewType("ClaimId", str)
MoveId = NewType("MoveId", str)
ConsumerId = NewType("ConsumerId", str)
Owner = NewType("Owner", str)
UnitId = NewType("UnitId", str)
PoolId = NewType("PoolId", str)
Slot = NewType("Slot", str)
StreamId = NewType("StreamId", str)
ResourceClass = NewType("ResourceClass", str)
Trait = NewType("Trait", str)

NAME_LENGTH_MAX = 128
REASON_LENGTH_MAX = 500

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
CLAIM = re.compile(r"c-[0-9a-z]{4,26}")
MOVE = re.compile(r"m-[0-9a-z]{4,26}")
RESOURCE_CLASS = re.compile(r"[A-Z][A-Z0-9_]{0,254}")
UNIT = re.compile(r"[a-z][a-z0-9]{0,15}:[!-~]{1,200}")


def name(text: str, what: str) -> str:
    """Return `text` if it can be a name of `what`: 1 to 128 printable characters, no space at either end.

    Raises InvalidRequest. Quotes, `$` and `;` are allowed: whoever prints a name escapes it.
    """
    if not 1 <= len(text) <= NAME_LENGTH_MAX or not text.isprintable() or text != text.strip():
        raise InvalidRequest(f"{what} {text!r} is not a name: 1 to {NAME_LENGTH_MAX} printable characters are", what=what, found=text)
    return text


def node_id(text: str) -> NodeId:
    """Return `text` as the uuid of a node (lower case, 36 characters); raises InvalidRequest."""
    if not UUID.fullmatch(text):
        raise InvalidRequest(f"node id {text!r} is not a uuid", found=text)
    return NodeId(text)


def claim_id(text: str) -> ClaimId:
    """Return `text` as a claim id (`c-` and 4 to 26 of 0-9a-z); raises InvalidRequest."""
    if not CLAIM.fullmatch(text):
        raise InvalidRequest(f"{text!r} is not a claim id: c-… is", found=text)
    return ClaimId(text)


def move_id(text: str) -> MoveId:
    """Return `text` as a move id (`m-` and 4 to 26 of 0-9a-z); raises InvalidRequest."""
    if not MOVE.fullmatch(text):
        raise InvalidRequest(f"{text!r} is not a move id: m-… is", found=text)
    return MoveId(text)


def resource_class(text: str) -> ResourceClass:
    """Return `text` as the name of a resource class (A-Z, 0-9 and _, as in os-resource-classes); raises InvalidRequest."""
    if not RESOURCE_CLASS.fullmatch(text):
        raise InvalidRequest(f"{text!r} is not a resource class: capital letters, digits and _ are", found=text)
    return ResourceClass(text)


def unit_id(text: str) -> UnitId:
    """Return `text` as a unit id (`kind:local`); raises InvalidRequest."""
    if not UNIT.fullmatch(text):
        raise InvalidRequest(f"{text!r} is not a unit: kind:name is, as in cpu:3", found=text)
    return UnitId(text)


def reason_text(text: str) -> str:
    """Return `text` if it can be a reason given by a person: 1 to 500 printable characters; raises InvalidRequest."""
    if not 1 <= len(text) <= REASON_LENGTH_MAX or not text.isprintable():
        raise InvalidRequest(f"a reason has 1 to {REASON_LENGTH_MAX} printable characters, this one {len(text)}", found=text[:80])
    return text


def cpu_unit(cpu: int) -> UnitId:
    """Return the unit of a logical CPU."""
    return UnitId(f"cpu:{cpu}")


def node_stream(node: NodeId) -> StreamId:
    """Return the stream that holds a node's events."""
    return StreamId("node:" + node)


def consumer_stream(consumer: ConsumerId) -> StreamId:
    """Return the stream that holds what is known of a consumer beyond its claims: its reported states and its moves."""
    return StreamId("consumer:" + consumer)


def pages_pool(cell: int, size_kib: int) -> PoolId:
    """Return the pool of one page size on one cell; its amounts are numbers of pages."""
    return PoolId(f"pages:{cell}:{size_kib}")


def cell_vcpu_pool(cell: int) -> PoolId:
    """Return the pool of shared vCPUs bound to one cell."""
    return PoolId(f"vcpu:{cell}")


def class_pool(name_of_class: ResourceClass) -> PoolId:
    """Return the pool of a plain resource class."""
    return PoolId("class:" + name_of_class)


def disk_pool(name_of_disk: str) -> PoolId:
    """Return the pool of a configured disk path, in bytes."""
    return PoolId("disk:" + name_of_disk)


def share_pool(unit: UnitId) -> PoolId:
    """Return the pool of one device's shares, in thousandths of it."""
    return PoolId("share:" + unit)


def shared_unit(pool: PoolId) -> UnitId | None:
    """Return the device whose shares a pool holds, None for another pool."""
    return UnitId(pool[6:]) if pool.startswith("share:") else None


VCPU = PoolId("vcpu")
"""Shared vCPUs that float over the node's shared CPUs."""
MEMORY = PoolId("memory")
"""Bytes of ordinary memory that float over the node's cells."""
