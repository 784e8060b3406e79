"""Whether a request makes sense at all.

Rules of this file: a contradiction is the caller's fault (InvalidRequest, the same on every node). Sources: Nova 34, virt/hardware.py (N2, N3,
N5, N6, N7, N19, H6), Placement (C11).
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from earmark.core.fit.layout import OWN_CLASSES
from earmark.core.model.ids import resource_class
from earmark.core.model.request import DeviceRequest, Request
from earmark.errors import InvalidRequest

ENCRYPTION = "MEM_ENCRYPTION_CONTEXT"
"""The class of a guest whose memory is encrypted, which is locked whatever its pages are (V7)."""


def check_request(request: Request) -> None:
    """Raise InvalidRequest if a request is empty, contradicts itself, or has a field of a wrong type or beyond its bounds.

    A request that was decoded has the right types already; one that was made in Python has never been looked at.
    """
    try:
        msgspec.convert(msgspec.to_builtins(request), Request)
    except (msgspec.ValidationError, TypeError) as error:
        raise InvalidRequest(f"request: {error}", found=str(error)) from error
    wrong = next(_contradictions(request), None)
    if wrong is not None:
        raise InvalidRequest(f"request: {wrong}", found=wrong)


def _contradictions(request: Request) -> Iterator[str]:
    """Yield what is wrong with a request, in words."""
    if not (request.vcpus or request.memory_bytes or request.disk_bytes or request.resources or request.devices):
        yield "it asks for nothing"
    if request.page_kib is not None and not request.memory_bytes:
        yield f"pages of {request.page_kib} are asked for, but no memory"
    encrypted = sum(item.amount for item in request.resources if item.resource_class == ENCRYPTION)
    if encrypted > 1:
        yield f"{encrypted} encryption contexts are asked for, and a guest has one"
    if request.locked_memory and request.page_kib is None and not encrypted:
        yield "locked memory needs a page size"
    yield from _policies(request)
    if request.cells is not None or request.guest_cells:
        yield from _cells(request)
    if request.resources or request.devices:
        yield from _amounts(request)
    for trait in request.required_traits:
        if trait in request.forbidden_traits:
            yield f"trait {trait} is both required and forbidden"


def _policies(request: Request) -> Iterator[str]:
    if request.cpu_policy != "shared":
        if not request.vcpus:
            yield f"CPU policy {request.cpu_policy} without a vCPU"
    elif request.thread_policy is not None:
        yield f"thread policy {request.thread_policy} is for dedicated CPUs, the CPU policy is shared"
    elif request.emulator_policy == "isolate":
        yield "emulator policy isolate is for dedicated CPUs, the CPU policy is shared"
    if request.dedicated_vcpus or request.cpu_policy == "mixed":
        yield from _mixed(request)
    unknown = sorted(vcpu for vcpu in request.realtime_vcpus if not 0 <= vcpu < request.vcpus)
    if unknown:
        yield f"realtime_vcpus names vCPU {unknown[0]}, the guest has {request.vcpus}"
    shown = request.topology
    if shown is not None and shown.sockets * shown.cores * shown.threads != request.vcpus:
        yield f"{shown.sockets} sockets of {shown.cores} cores of {shown.threads} threads are not {request.vcpus} vCPUs"


def _mixed(request: Request) -> Iterator[str]:
    """Yield what is wrong with the dedicated vCPUs; all may be, if they are the real-time ones, as Nova has it (N7)."""
    wanted = request.dedicated_vcpus
    if request.cpu_policy != "mixed":
        yield f"dedicated_vcpus are for CPU policy mixed, found {request.cpu_policy}"
    elif not wanted or (len(wanted) >= request.vcpus and set(wanted) != set(request.realtime_vcpus)):
        yield f"CPU policy mixed needs some but not all of {request.vcpus} vCPUs in dedicated_vcpus, found {len(wanted)}"
    elif len(set(wanted)) != len(wanted) or not all(0 <= vcpu < request.vcpus for vcpu in wanted):
        yield f"dedicated_vcpus {wanted} are not different numbers from 0 to {request.vcpus - 1}"


def _cells(request: Request) -> Iterator[str]:
    cells, own = request.cells, request.guest_cells
    if own:
        if cells is not None and cells != len(own):
            yield f"{cells} cells are asked for, but {len(own)} are described"
        if sorted(vcpu for cell in own for vcpu in cell.vcpus) != list(range(request.vcpus)):
            yield f"the guest cells do not name each of {request.vcpus} vCPUs once"
        if sum(cell.memory_bytes for cell in own) != request.memory_bytes:
            yield f"the guest cells have {sum(cell.memory_bytes for cell in own)} bytes together, the request {request.memory_bytes}"
    elif cells is not None and (request.vcpus % cells or request.memory_bytes % cells):
        memory = f" and {request.memory_bytes} bytes" if request.memory_bytes else ""
        yield f"{request.vcpus} vCPUs{memory} cannot be split evenly over {cells} cells: ask for a multiple, or describe each cell in --request"


def _amounts(request: Request) -> Iterator[str]:
    seen = set()
    for item in request.resources:
        name = resource_class(item.resource_class)
        if name in OWN_CLASSES:
            yield f"resource class {name} is asked for by vcpus, memory_bytes, page_kib or disk_bytes"
        if name in seen:
            yield f"resource class {name} is asked for twice"
        seen.add(name)
    for device in request.devices:
        yield from _device(device)


def _device(device: DeviceRequest) -> Iterator[str]:
    if not device.kind:
        yield "devices of no kind are asked for"
    if device.share is not None and device.count != 1:
        yield f"a share of one {device.kind} is asked for {device.count} times: ask once for each"
    if device.share is not None and device.linked:
        yield f"a share of a {device.kind} has no links"
    both = sorted(set(device.required_traits) & set(device.forbidden_traits))
    if both:
        yield f"trait {both[0]} of a {device.kind} is both required and forbidden"
