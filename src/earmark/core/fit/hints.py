"""What small change would make a refused request fit: cheap proposals, each of which fit tries before it is said.

Rules of this file: a proposal changes one thing, downwards or to a milder kind, by what the reasons themselves say is free; it is always a
request that makes sense. Proposals come in groups, the most wanted first; of each group the first that fits is said. At most TRIES_MAX of them
are tried.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from earmark.core.fit.devices.match import policy_of
from earmark.core.fit.free import Supply
from earmark.core.fit.ground import WHOLE
from earmark.core.fit.guest import is_bound
from earmark.core.fit.refusal import CPU
from earmark.core.fit.request import check_request
from earmark.core.model.ids import MEMORY, VCPU
from earmark.core.model.refusal import Reason
from earmark.core.model.request import DeviceRequest, GuestCell, Request, ThreadPolicy
from earmark.core.model.units import GIB, KIB, MIB, counted, format_bytes
from earmark.errors import InvalidRequest

Suggestion = tuple[str, Request]

SUGGESTIONS_MAX = 8
"""So many amounts of one resource are tried, the largest first."""
TRIES_MAX = 48
"""So many changes of one request are tried in all."""
CELLS_TRIED = (1, 2, 3, 4, 6, 8)
"""The numbers of guest cells that are tried where another number would do."""

MILDER: dict[ThreadPolicy, ThreadPolicy] = {"isolate": "prefer", "require-strict": "require", "require": "prefer"}


def suggestions(request: Request, supply: Supply, reasons: Sequence[Reason]) -> list[list[Suggestion]]:
    """Return groups of changes that could make a refused request fit, in words and as a request; the caller tries them."""
    found = [reason for reason in reasons if reason.code in ("short", "self_overcommit")]
    cpus = [reason for reason in reasons if _about_cpus(reason)]
    memory = [reason for reason in found if reason.resource.partition(":")[0] in (MEMORY, "pages")]
    joint = any(reason.code in ("hall", "together") for reason in reasons)
    groups = [_fewer_cpus(request, supply, cpus), _milder_threads(request, cpus, joint=joint), _milder_cpus(request, cpus)]
    groups += [_less_memory(request, supply, memory), _other_pages(request, reasons)]
    far = any(reason.code == "affinity" for reason in reasons)
    groups += [_other_cells(request, supply)] if cpus or memory or joint or far else []
    groups += [_farther_devices(request, reasons), _smaller_devices(request, supply, reasons), _fewer_devices(request, reasons)]
    groups += [_less(request, reason) for reason in found if reason.free > 0]
    return [[change for change in group if _makes_sense(change[1])] for group in groups if group]


def _about_cpus(reason: Reason) -> bool:
    return reason.resource.partition(":")[0] in (CPU, VCPU, "cores", "threads") and reason.code in (
        "short",
        "self_overcommit",
        "units_rule",
    )


def _makes_sense(request: Request) -> bool:
    try:
        check_request(request)
    except InvalidRequest:
        return False
    return True


# --- vCPUs --------------------------------------------------------------------------------------------------------------------------


def _fewer_cpus(request: Request, supply: Supply, reasons: Sequence[Reason]) -> list[Suggestion]:
    if not reasons:
        return []
    if request.guest_cells:
        return _fewer_in_a_cell(request, reasons)
    cells = request.cells or 1
    emulator = 1 if request.emulator_policy == "isolate" else 0
    counts = {free for reason in reasons if reason.code == "short" for free in (reason.free * cells, (reason.free - emulator) * cells)}
    if any(reason.code == "self_overcommit" for reason in reasons):
        shared = supply.layout.shared & ~supply.blocked_cpus
        counts |= {(shared & cell.cpus & ~supply.free.taken_cpus).bit_count() * cells for cell in supply.layout.cells}
        counts.add((shared & ~supply.free.taken_cpus).bit_count())
    if cells > 1 or emulator or request.thread_policy is not None:
        counts.add(request.vcpus - cells)
    fewer = sorted((count for count in counts if 0 < count < request.vcpus), reverse=True)
    return [(f"{counted(count, 'vCPU')} instead of {request.vcpus}", _with_vcpus(request, count)) for count in fewer[:SUGGESTIONS_MAX]]


def _with_vcpus(request: Request, count: int) -> Request:
    """Return a request whose last vCPUs are gone."""
    return replace(
        request,
        vcpus=count,
        dedicated_vcpus=tuple(vcpu for vcpu in request.dedicated_vcpus if vcpu < count),
        realtime_vcpus=tuple(vcpu for vcpu in request.realtime_vcpus if vcpu < count),
        topology=None,
    )


def _fewer_in_a_cell(request: Request, reasons: Sequence[Reason]) -> list[Suggestion]:
    """Return the request with fewer vCPUs in one of its own cells: as many as some reason says are free, and one fewer."""
    tried = {(reason.guest_cell or 0, reason.free) for reason in reasons if reason.code == "short"}
    tried |= {(number, len(cell.vcpus) - 1) for number, cell in enumerate(request.guest_cells)}
    changes = []
    for number, count in sorted(tried, key=lambda change: (-change[1], change[0])):
        had = len(request.guest_cells[number].vcpus)
        if 0 < count < had:
            changes.append((f"{counted(count, 'vCPU')} instead of {had} in guest cell {number}", _without(request, number, count)))
    return changes[:SUGGESTIONS_MAX]


def _without(request: Request, number: int, count: int) -> Request:
    """Return a request of whose guest cell `number` only the first `count` vCPUs are left; all vCPUs are numbered anew."""
    gone = set(request.guest_cells[number].vcpus[count:])
    names = {vcpu: new for new, vcpu in enumerate(vcpu for vcpu in range(request.vcpus) if vcpu not in gone)}

    def renamed(vcpus: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(names[vcpu] for vcpu in vcpus if vcpu in names)

    cells = tuple(replace(cell, vcpus=renamed(cell.vcpus), dedicated=renamed(cell.dedicated)) for cell in request.guest_cells)
    return replace(
        request,
        vcpus=len(names),
        guest_cells=cells,
        dedicated_vcpus=renamed(request.dedicated_vcpus),
        realtime_vcpus=renamed(request.realtime_vcpus),
        topology=None,
    )


def _milder_threads(request: Request, reasons: Sequence[Reason], *, joint: bool) -> list[Suggestion]:
    if not reasons and not joint:
        return []
    milder = []
    policy = MILDER.get(request.thread_policy) if request.thread_policy is not None else None
    if policy is not None:
        milder.append((f"thread policy {policy} instead of {request.thread_policy}", replace(request, thread_policy=policy)))
    if request.emulator_policy == "isolate":
        milder.append(("emulator policy share instead of isolate", replace(request, emulator_policy="share")))
    return milder


def _milder_cpus(request: Request, reasons: Sequence[Reason]) -> list[Suggestion]:
    if request.cpu_policy == "shared" or not reasons:
        return []
    cells = tuple(replace(cell, dedicated=()) for cell in request.guest_cells)
    milder = replace(
        request, cpu_policy="shared", thread_policy=None, emulator_policy=None, dedicated_vcpus=(), realtime_vcpus=(), guest_cells=cells
    )
    return [(f"shared CPUs instead of {request.cpu_policy} ones", milder)]


def _other_cells(request: Request, supply: Supply) -> list[Suggestion]:
    """Return the request spread over another number of guest cells, the numbers next to its own first."""
    if request.guest_cells or not is_bound(request):
        return []
    own = request.cells or 1
    counts = [count for count in CELLS_TRIED if count != own and count <= len(supply.layout.cells)]
    counts.sort(key=lambda count: (abs(count - own), count))
    fitting = [count for count in counts if not request.vcpus % count and not request.memory_bytes % count]
    return [(f"{counted(count, 'guest cell')} instead of {own}", replace(request, cells=count)) for count in fitting]


# --- memory -------------------------------------------------------------------------------------------------------------------------


def _less_memory(request: Request, supply: Supply, reasons: Sequence[Reason]) -> list[Suggestion]:
    if request.guest_cells:
        return _less_in_a_cell(request, reasons)
    cells = request.cells or 1
    free = {amount if reason.resource == MEMORY else amount * cells for reason in reasons for amount in [_bytes(reason)]}
    page = (request.page_kib if isinstance(request.page_kib, int) else supply.layout.base_page_kib) * KIB * cells
    less = {amount // page * page for amount in free}
    less = {amount // MIB * MIB if amount > MIB and not MIB % page else amount for amount in less}
    fewer = sorted((amount for amount in less if 0 < amount < request.memory_bytes), reverse=True)
    before = _exactly(request.memory_bytes)
    return [
        (f"{_exactly(amount)} of memory instead of {before}", replace(request, memory_bytes=amount)) for amount in fewer[:SUGGESTIONS_MAX]
    ]


def _less_in_a_cell(request: Request, reasons: Sequence[Reason]) -> list[Suggestion]:
    changes = []
    for number, amount in sorted({(reason.guest_cell or 0, _bytes(reason)) for reason in reasons}, key=lambda each: (-each[1], each[0])):
        had = request.guest_cells[number].memory_bytes
        if 0 < amount < had:
            text = f"{_exactly(amount)} of memory instead of {_exactly(had)} in guest cell {number}"
            cells = tuple(_less_in(cell, amount) if place == number else cell for place, cell in enumerate(request.guest_cells))
            changes.append((text, replace(request, memory_bytes=request.memory_bytes - had + amount, guest_cells=cells)))
    return changes[:SUGGESTIONS_MAX]


def _less_in(cell: GuestCell, amount: int) -> GuestCell:
    return replace(cell, memory_bytes=amount)


def _bytes(reason: Reason) -> int:
    """Return the bytes that a reason about memory or pages says are free."""
    kind, _, rest = reason.resource.partition(":")
    size = rest.rpartition(":")[2]
    return reason.free * int(size) * KIB if kind == "pages" and size.isdigit() else reason.free


def _other_pages(request: Request, reasons: Sequence[Reason]) -> list[Suggestion]:
    if request.page_kib is None or not any(reason.resource.startswith("pages:") for reason in reasons):
        return []
    had = f"pages of {format_bytes(request.page_kib * KIB)}" if isinstance(request.page_kib, int) else f"{request.page_kib} pages"
    changes = [(f"pages of any size instead of {had}", replace(request, page_kib="any"))] if request.page_kib != "any" else []
    return [(f"ordinary memory instead of {had}", replace(request, page_kib=None, locked_memory=False)), *changes]


# --- devices and the rest -----------------------------------------------------------------------------------------------------------


def _farther_devices(request: Request, reasons: Sequence[Reason]) -> list[Suggestion]:
    """Return the request with devices that may be farther away: each of its wishes alone, then all of them."""
    if not any(reason.code in ("affinity", "together", "hall", "excluded") or reason.resource.startswith("device:") for reason in reasons):
        return []
    near = [number for number, wish in enumerate(request.devices) if policy_of(wish) != "preferred"]
    changes = []
    for number in near:
        wish = request.devices[number]
        text = f"{wish.alias or wish.kind} wherever it is (affinity preferred instead of {policy_of(wish)})"
        changes.append((text, _with_device(request, number, replace(wish, affinity="preferred"))))
    if len(near) > 1:
        wishes = tuple(replace(wish, affinity="preferred") if number in near else wish for number, wish in enumerate(request.devices))
        changes.append(("devices wherever they are (affinity preferred)", replace(request, devices=wishes)))
    return changes


def _smaller_devices(request: Request, supply: Supply, reasons: Sequence[Reason]) -> list[Suggestion]:
    """Return the request with less memory of the devices of one wish: as much as devices of the node have, the most first."""
    if not any(reason.resource.startswith("device:") or reason.code == "together" for reason in reasons):
        return []
    known = {supply.layout.known[unit].memory_bytes or 0 for unit in supply.layout.grantable}
    changes = []
    for number, wish in enumerate(request.devices):
        asked = wish.memory_bytes or 0
        sizes = {size * (wish.share or WHOLE) // WHOLE // MIB * MIB for size in known}
        for size in sorted((size for size in sizes if 0 < size < asked), reverse=True)[:SUGGESTIONS_MAX]:
            text = f"{wish.alias or wish.kind} with {_exactly(size)} instead of {_exactly(asked)}"
            changes.append((text, _with_device(request, number, replace(wish, memory_bytes=size))))
    return changes


def _fewer_devices(request: Request, reasons: Sequence[Reason]) -> list[Suggestion]:
    """Return the request with fewer devices of one wish, or with such as need not be linked."""
    if not any(reason.resource.startswith("device:") or reason.code == "together" for reason in reasons):
        return []
    changes = []
    for number, wish in enumerate(request.devices):
        name = wish.alias or wish.kind
        if wish.linked:
            changes.append((f"{name} that need not be linked", _with_device(request, number, replace(wish, linked=False))))
        free = {reason.free for reason in reasons if reason.resource == f"device:{wish.kind}"} | {wish.count - 1}
        for count in sorted((count for count in free if 0 < count < wish.count), reverse=True):
            text = f"{count} {name} {'device' if count == 1 else 'devices'} instead of {wish.count}"
            changes.append((text, _with_device(request, number, replace(wish, count=count))))
    return changes[:SUGGESTIONS_MAX]


def _with_device(request: Request, number: int, wish: DeviceRequest) -> Request:
    return replace(request, devices=(*request.devices[:number], wish, *request.devices[number + 1 :]))


def _less(request: Request, reason: Reason) -> list[Suggestion]:
    """Return the request with what is free of a disk or a class."""
    kind, _, name = reason.resource.partition(":")
    if kind == "disk":
        less = reason.free // MIB * MIB or reason.free
        return [(f"{_exactly(less)} of disk instead of {_exactly(request.disk_bytes)}", replace(request, disk_bytes=less))]
    if kind == "class" or (kind == "device" and name.startswith("class:")):
        name = name.removeprefix("class:")
        kept = tuple(replace(item, amount=reason.free) if item.resource_class == name else item for item in request.resources)
        return [(f"{reason.free} of {name} instead of {reason.asked}", replace(request, resources=kept))]
    return []


def _exactly(size: int) -> str:
    """Return a size in the largest binary unit of which it is a whole number."""
    name, unit = next(
        ((name, unit) for name, unit in (("GiB", GIB), ("MiB", MIB), ("KiB", KIB)) if size and size % unit == 0), ("bytes", 1)
    )
    return f"{size // unit} {name}"
