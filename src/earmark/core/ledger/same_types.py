"""Which mediated devices a live migration needs at its destination: as many of each type as it holds (M27).

Rules of this file: pure; a type is the parent's own word for it (`nvidia-35`), equal on both nodes or it is another type. Source: Nova 34,
virt/libvirt/driver.py (the destination must have every source type, each mediated device maps to one of its type).
"""

from __future__ import annotations

from collections import Counter

from msgspec.structs import replace

from earmark.core.fit.devices.policy import MDEV_TYPE_TAG, mdev_type_of
from earmark.core.ledger.state import NodeState
from earmark.core.model.claim import Claim
from earmark.core.model.grant import Grant
from earmark.core.model.request import DeviceRequest, Request
from earmark.core.model.topology import Device


def types_held(grant: Grant) -> Counter[str]:
    """Return the types of the mediated devices in a grant, each with its number."""
    return Counter(kind for row in grant.units if (kind := mdev_type_of(row.unit)) is not None)


def in_words(types: Counter[str]) -> str:
    """Return some types with their numbers: "2 nvidia-35, 1 nvidia-36"."""
    return ", ".join(f"{number} {kind}" for kind, number in sorted(types.items())) or "none"


def same_types(request: Request, claim: Claim, source: NodeState) -> Request:
    """Return the request of a live migration with each class of mediated devices asked for by the types that the source leg holds."""
    known = source.layout.known if source.layout is not None else {}
    held: dict[str, Counter[str]] = {}
    for row in claim.grant.units:
        kind, device = mdev_type_of(row.unit), known.get(row.unit)
        if kind is not None and device is not None:
            held.setdefault(str(device.resource_class), Counter())[kind] += 1
    for name, types in sorted(held.items()):
        request = _typed(request, name, types)
    return request


def _typed(request: Request, name: str, types: Counter[str]) -> Request:
    """Return a request with all that it asks for of one class asked for by type; as it is if that is not what is held."""
    kind = f"class:{name}"
    amount = sum(item.amount for item in request.resources if item.resource_class == name)
    plain = [each for each in request.devices if each.kind == kind]
    if amount + sum(each.count for each in plain) != sum(types.values()) or any(each.match or each.within for each in plain):
        return request
    wishes = tuple(DeviceRequest(kind=kind, count=number, match=({MDEV_TYPE_TAG: each},)) for each, number in sorted(types.items()))
    return replace(
        request,
        resources=tuple(item for item in request.resources if item.resource_class != name),
        devices=(*(each for each in request.devices if each.kind != kind), *wishes),
    )


def pairing_kind(device: Device) -> str:
    """Return by what a device of one leg is paired with one of the other: its kind, of a mediated one with its type."""
    kind = mdev_type_of(device.unit)
    return device.kind if kind is None else f"{device.kind}/{kind}"
