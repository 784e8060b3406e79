"""What small change would make a refused request fit: cheap proposals, each of which fit tries before it is said.

Rules of this file: a proposal changes one thing, downwards or to a milder kind, by what the reasons themselves say is free. Proposals
come in groups, the most wanted first; of each group the first that fits is said.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from earmark.core.fit.free import Supply
from earmark.core.fit.refusal import CPU
from earmark.core.model.ids import MEMORY, VCPU
from earmark.core.model.refusal import Reason
from earmark.core.model.request import DeviceRequest, Request
from earmark.core.model.units import GIB, KIB, MIB, counted

Suggestion = tuple[str, Request]

SUGGESTIONS_MAX = 8
"""So many amounts of one resource are tried, the largest first."""


def suggestions(request: Request, supply: Supply, reasons: Sequence[Reason]) -> list[list[Suggestion]]:
    """Return groups of changes that could make a refused request fit, in words and as a request; the caller tries them."""
    found = [reason for reason in reasons if reason.code in ("short", "self_overcommit")]
    cpus = [reason for reason in found if reason.resource == CPU or reason.resource.partition(":")[0] == VCPU]
    memory = [reason for reason in found if reason.resource == MEMORY or reason.resource.startswith("pages:")]
    groups = [_fewer_cpus(request, supply, cpus), _milder_cpus(request, cpus)]
    if isinstance(request.page_kib, int) or request.page_kib is None:
        size = supply.layout.base_page_kib if request.page_kib is None else request.page_kib
        groups += [_less_memory(request, size, memory), _ordinary_memory(request, reasons)]
    return groups + [_less(request, reason) for reason in found if reason.free > 0]


def _fewer_cpus(request: Request, supply: Supply, reasons: Sequence[Reason]) -> list[Suggestion]:
    counts = {reason.free for reason in reasons if reason.code == "short"}
    if any(reason.code == "self_overcommit" for reason in reasons):
        shared = supply.layout.shared & ~supply.blocked_cpus
        counts |= {(shared & cell.cpus & ~supply.free.taken_cpus).bit_count() for cell in supply.layout.cells}
        counts.add((shared & ~supply.free.taken_cpus).bit_count())
    fewer = sorted((count for count in counts if 0 < count < request.vcpus), reverse=True)
    return [(f"{counted(count, 'vCPU')} instead of {request.vcpus}", replace(request, vcpus=count)) for count in fewer[:SUGGESTIONS_MAX]]


def _milder_cpus(request: Request, reasons: Sequence[Reason]) -> list[Suggestion]:
    if request.cpu_policy != "dedicated" or not reasons:
        return []
    milder = replace(request, cpu_policy="shared", thread_policy=None, emulator_policy=None)
    return [("shared CPUs instead of dedicated ones", milder)]


def _less_memory(request: Request, size_kib: int, reasons: Sequence[Reason]) -> list[Suggestion]:
    page = size_kib * KIB
    free = {reason.free if reason.resource == MEMORY else reason.free * page for reason in reasons}
    less = {amount // page * page for amount in free}
    less = {amount // MIB * MIB if amount > MIB and not MIB % page else amount for amount in less}
    fewer = sorted((amount for amount in less if 0 < amount < request.memory_bytes), reverse=True)
    before = _exactly(request.memory_bytes)
    return [
        (f"{_exactly(amount)} of memory instead of {before}", replace(request, memory_bytes=amount)) for amount in fewer[:SUGGESTIONS_MAX]
    ]


def _ordinary_memory(request: Request, reasons: Sequence[Reason]) -> list[Suggestion]:
    if request.page_kib is None or not any(reason.resource.startswith("pages:") for reason in reasons):
        return []
    return [(f"ordinary memory instead of pages of {request.page_kib} KiB", replace(request, page_kib=None))]


def _less(request: Request, reason: Reason) -> list[Suggestion]:
    """Return the request with what is free of a disk, a class or a kind of device."""
    kind, _, name = reason.resource.partition(":")
    if kind == "disk":
        less = reason.free // MIB * MIB or reason.free
        return [(f"{_exactly(less)} of disk instead of {_exactly(request.disk_bytes)}", replace(request, disk_bytes=less))]
    if kind == "class":
        kept = tuple(replace(item, amount=reason.free) if item.resource_class == name else item for item in request.resources)
        return [(f"{reason.free} of {name} instead of {reason.asked}", replace(request, resources=kept))]
    if kind == "device":
        others = tuple(item for item in request.devices if item.kind != name)
        fewer = (*others, DeviceRequest(kind=name, count=reason.free))
        return [(f"{reason.free} {name} devices instead of {reason.asked}", replace(request, devices=fewer))]
    return []


def _exactly(size: int) -> str:
    """Return a size in the largest binary unit of which it is a whole number."""
    name, unit = next(
        ((name, unit) for name, unit in (("GiB", GIB), ("MiB", MIB), ("KiB", KIB)) if size and size % unit == 0), ("bytes", 1)
    )
    return f"{size // unit} {name}"
