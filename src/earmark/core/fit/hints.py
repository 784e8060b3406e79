"""What small change would make a refused request fit: cheap proposals, each of which fit tries before it is said.

Rules of this file: a proposal changes one thing, downwards or to a milder kind, by what the reasons themselves say is free.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from earmark.core.fit.free import Supply
from earmark.core.fit.refusal import CPU
from earmark.core.model.ids import MEMORY, VCPU
from earmark.core.model.refusal import Reason
from earmark.core.model.request import DeviceRequest, Request
from earmark.core.model.units import KIB, format_bytes

Suggestion = tuple[str, Request]


def suggestions(request: Request, supply: Supply, reasons: Iterable[Reason]) -> list[Suggestion]:
    """Return changes that could make a refused request fit, in words and as a request; the caller tries them."""
    found = [reason for reason in reasons if reason.code in ("short", "self_overcommit")]
    return [*_cpus(request, supply, found), *_memory(request, supply, found), *_rest(request, found)]


def _cpus(request: Request, supply: Supply, reasons: list[Reason]) -> list[Suggestion]:
    if not any(reason.resource == CPU or reason.resource.startswith(VCPU) for reason in reasons):
        return []
    counts = {reason.free for reason in reasons if reason.code == "short" and (reason.resource == CPU or reason.resource.startswith(VCPU))}
    counts |= {reason.free for reason in reasons if reason.resource == VCPU}
    if request.cpu_policy == "shared":
        counts.add(supply.layout.shared.bit_count())
    fewer = sorted((count for count in counts if 0 < count < request.vcpus), reverse=True)
    changes = [(f"{count} vCPUs instead of {request.vcpus}", replace(request, vcpus=count)) for count in fewer[:1]]
    if request.cpu_policy == "dedicated":
        milder = replace(request, cpu_policy="shared", thread_policy=None, emulator_policy=None)
        changes.append(("shared CPUs instead of dedicated ones", milder))
    return changes


def _memory(request: Request, supply: Supply, reasons: list[Reason]) -> list[Suggestion]:
    size = supply.layout.base_page_kib if request.page_kib is None else request.page_kib
    if not isinstance(size, int):
        return []
    step = size * KIB
    bytes_free = [reason.free for reason in reasons if reason.resource == MEMORY]
    bytes_free += [reason.free * step for reason in reasons if reason.resource.startswith("pages:")]
    less = sorted({free // step * step for free in bytes_free if step <= free < request.memory_bytes}, reverse=True)
    changes = [
        (f"{format_bytes(free)} of memory instead of {format_bytes(request.memory_bytes)}", replace(request, memory_bytes=free))
        for free in less[:1]
    ]
    if request.page_kib is not None and bytes_free:
        changes.append((f"ordinary memory instead of pages of {size} KiB", replace(request, page_kib=None)))
    return changes


def _rest(request: Request, reasons: list[Reason]) -> list[Suggestion]:
    changes: list[Suggestion] = []
    for reason in reasons:
        if reason.free <= 0:
            continue
        kind, _, name = reason.resource.partition(":")
        if kind == "disk":
            text = f"{format_bytes(reason.free)} of disk instead of {format_bytes(request.disk_bytes)}"
            changes.append((text, replace(request, disk_bytes=reason.free)))
        elif kind == "class":
            kept = tuple(replace(item, amount=reason.free) if item.resource_class == name else item for item in request.resources)
            changes.append((f"{reason.free} of {name} instead of {reason.asked}", replace(request, resources=kept)))
        elif kind == "device":
            others = tuple(item for item in request.devices if item.kind != name)
            fewer = (*others, DeviceRequest(kind=name, count=reason.free))
            changes.append((f"{reason.free} of device {name} instead of {reason.asked}", replace(request, devices=fewer)))
    return changes
