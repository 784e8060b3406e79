"""Which devices answer a request at all (eligibility), and how near a cell is to a guest's (locality).

Rules of this file: eligibility knows nothing of cells, locality nothing of kinds (W22: eligibility first, affinity last). Comparison
ignores case (P10). Sources: Nova 34, pci/request.py, pci/stats.py, pci/utils.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from earmark.core.fit.ground import WHOLE
from earmark.core.fit.layout import Layout
from earmark.core.model.exclusion import PCI_ADDRESS
from earmark.core.model.request import Affinity, DeviceRequest, Request
from earmark.core.model.topology import Device

ANY_PCI = "pci"
"""The kind that is any PCI device: what a flavor's alias asks for."""
CLASS_PREFIX = "class:"
ASKED_BY_TYPE = ("pf", "vdpa")
"""Types that a request of kind `pci` gets only if one of its alternatives names them (P9)."""
REMOTE = "remote_managed"
TRUE = ("1", "true", "yes", "on")

NEAR, SAME_SOCKET, NO_CELL_KNOWN, FAR = range(4)
"""The classes of locality, the nearest first."""

Sockets = Mapping[int, int | None]


class Asked(NamedTuple):
    """A request made ready for comparison: what may answer it, in lower case where case does not count."""

    kind: str
    alternatives: tuple[tuple[tuple[str, str], ...], ...]
    types: frozenset[str]
    remote: bool
    within: frozenset[str]
    required: frozenset[str]
    forbidden: frozenset[str]
    share: bool
    memory_bytes: int
    """The memory that a whole device has at least: a share brings its part of it."""
    local: bool
    """Something is asked of each single device, not of what it is alike with: an address, or `within`."""


def wanted(request: Request, layout: Layout) -> tuple[DeviceRequest, ...]:
    """Return the devices that a request asks for, then one wish for each of its resource classes that has units on the node (V4)."""
    if not request.resources:
        return request.devices
    classes = {layout.known[unit].resource_class for unit in layout.grantable}
    named = [item for item in request.resources if item.resource_class in classes]
    units = [DeviceRequest(kind=f"{CLASS_PREFIX}{item.resource_class}", count=item.amount) for item in named]
    return (*request.devices, *units)


def policy_of(request: DeviceRequest) -> Affinity:
    """Return the affinity policy of a request: where none is named, legacy for kind `pci` (P13), preferred for the others."""
    return request.affinity or ("legacy" if request.kind == ANY_PCI else "preferred")


def asked_of(request: DeviceRequest) -> Asked:
    """Return a request made ready for comparison."""
    alternatives = tuple(tuple((key, want.lower()) for key, want in sorted(each.items())) for each in request.match)
    keys = {key for each in alternatives for key, _ in each}
    return Asked(
        kind=request.kind,
        alternatives=alternatives,
        types=frozenset(want for each in alternatives for key, want in each if key == "dev_type"),
        remote=REMOTE in keys,
        within=frozenset(request.within),
        required=frozenset(request.required_traits),
        forbidden=frozenset(request.forbidden_traits),
        share=request.share is not None,
        memory_bytes=-(-(request.memory_bytes or 0) * WHOLE // (request.share or WHOLE)),
        local=bool(request.within) or "address" in keys,
    )


def suits(asked: Asked, device: Device, anchor: str) -> bool:
    """Say whether a device answers a request, wherever it lies; `anchor` is the address of its parent or else its own (P7, P10)."""
    if not _is_kind(asked.kind, device):
        return False
    if asked.share and not device.shares:
        return False
    if asked.memory_bytes and (device.memory_bytes or 0) < asked.memory_bytes:
        return False
    if asked.within and device.unit not in asked.within and device.parent not in asked.within:
        return False
    if asked.alternatives and not any(_matches(each, device, anchor) for each in asked.alternatives):
        return False
    if asked.kind == ANY_PCI:
        kind = device.pci_type.lower()
        if kind in ASKED_BY_TYPE and kind not in asked.types:
            return False
        if not asked.remote and (_tag(device, REMOTE) or "").lower() in TRUE:
            return False
    return asked.required.issubset(device.traits) and asked.forbidden.isdisjoint(device.traits)


def is_pci(device: Device) -> bool:
    """Say whether a device is one on a PCI bus: a driver names its type, or its address is of that form."""
    return device.dev_type is not None or (device.address is not None and PCI_ADDRESS.fullmatch(device.address) is not None)


def nearness(cells: frozenset[int], sockets: Sockets) -> Callable[[int | None], int]:
    """Return what tells the locality class of a device's cell for a guest on some cells.

    A socket counts only where the sockets of all cells of the host are known (P12).
    """
    known = None not in sockets.values()
    there = {sockets[cell] for cell in cells if cell in sockets} if known else set()

    def class_of(cell: int | None) -> int:
        if cell is None:
            return NO_CELL_KNOWN
        if cell in cells:
            return NEAR
        return SAME_SOCKET if cell in sockets and sockets[cell] in there else FAR

    return class_of


ALLOWED: Mapping[Affinity, tuple[int, ...]] = {
    "required": (NEAR,),
    "legacy": (NEAR, NO_CELL_KNOWN),
    "socket": (NEAR, SAME_SOCKET),
    "preferred": (NEAR, SAME_SOCKET, NO_CELL_KNOWN, FAR),
}
"""The classes of locality that each policy accepts (P11 to P14)."""


def _is_kind(kind: str, device: Device) -> bool:
    if kind.startswith(CLASS_PREFIX):
        return device.resource_class == kind[len(CLASS_PREFIX) :]
    return is_pci(device) if kind == ANY_PCI else device.kind == kind


def _matches(alternative: Iterable[tuple[str, str]], device: Device, anchor: str) -> bool:
    """Say whether all keys of an alternative are equal; a key that the device has not is not."""
    return all((have := _value(device, key, anchor)) is not None and have.lower() == want for key, want in alternative)


def _value(device: Device, key: str, anchor: str) -> str | None:
    match key:
        case "dev_type":
            return device.pci_type
        case "vendor_id":
            return device.vendor_id
        case "product_id":
            return device.product_id
        case "address":
            return anchor
        case _:
            have = _tag(device, key)
            return have if have is not None else _fact(device, key)


def _fact(device: Device, key: str) -> str | None:
    """Return what a key says of a device whose policy has no such tag."""
    if key == "profile":
        return device.profile
    return "true" if key == "live_migratable" and device.live_migratable else None


def _tag(device: Device, key: str) -> str | None:
    return next((have for name, have in device.tags if name == key), None)
