"""A case made into the ground of the search, so that exactly the documented rules of a case hold there.

Rules of this file: a case says everything itself; nothing of a live node is looked at. Guests without cells count against the whole host, never
against one of its cells. What the rules are: the README of the cases, in words; Nova 34, virt/hardware.py and pci/stats.py, where they
come from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import immutables

from earmark.core.fit.cases.format import Case, CaseCell, CaseDevice, CaseHost, Limits, Pages, PciRequest, Said, limit_of, text_of
from earmark.core.fit.ground import DeviceStock, Ground, HostCell, PageOffer
from earmark.core.fit.guest import Guest
from earmark.core.model.cpuset import cpus_of, mask_of
from earmark.core.model.ids import Slot, UnitId
from earmark.core.model.inventory import RATIO_ONE
from earmark.core.model.request import Affinity, DeviceRequest
from earmark.core.model.topology import Device
from earmark.core.model.units import KIB, MIB

HELD = ("claimed", "allocated")
"""What a device is that somebody has."""
REMOTE, REMOTE_TAG = "remote_managed", "tag:remote_managed"
"""A tag that means nothing in a case is given a name that means nothing either."""
DEV_TYPE = "dev_type"
ON_DEMAND = ("PF", "VDPA")
"""Types that are given only to a request that names them."""
NEVER: Mapping[str, str] = immutables.Map({DEV_TYPE: ""})
"""An alternative that no device answers."""


def ground_of_case(case: Case, guest: Guest | None) -> Ground:
    """Return the host of a case as the search sees it for a guest; None: one without cells, for which only the devices count."""
    host = case.host
    order = sorted(range(len(host.cells)), key=lambda index: host.cells[index].id)
    near = _near(host.pci)
    cells = tuple(_cell(host.cells[index], case.limits, guest, _row(host.cells[index], order), near) for index in order) if guest else ()
    return Ground(cells=cells, stock=_stock(host), strict=True)


def device_requests(requests: Iterable[PciRequest], override: Affinity | None) -> tuple[DeviceRequest, ...]:
    """Return the requests for devices of a case that ask for any; `override` replaces the policy of each."""
    return tuple(
        DeviceRequest(
            kind="pci",
            count=each.count,
            match=_alternatives(each) or (dict(NEVER),),
            affinity=override or each.numa_policy or "legacy",
        )
        for each in requests
        if each.count
    )


def _alternatives(request: PciRequest) -> tuple[dict[str, str], ...]:
    """Return what a request accepts. Case counts in one place, as in Nova: a PF or VDPA device is given only to who names it in capitals (P9)."""
    said = [{_key(key): text_of(want) for key, want in sorted(one.items())} for one in request.spec]
    named = {one.get(DEV_TYPE) for one in said}
    unnamed = {kind for kind in ON_DEMAND if kind not in named}
    return tuple(dict(NEVER) if one.get(DEV_TYPE, "").upper() in unnamed else one for one in said)


# --- cells --------------------------------------------------------------------------------------------------------------------------


def _cell(cell: CaseCell, limits: Limits | None, guest: Guest, distances: tuple[int, ...], near: Mapping[int, int]) -> HostCell:
    dedicated, shared, pinned = mask_of(cell.cpus.dedicated), mask_of(cell.cpus.shared), mask_of(cell.used.pinned_cpus)
    cores = _cores(cell, dedicated | shared | pinned)
    cpus, used = len(cell.cpus.shared), cell.used.shared_vcpus
    ratio = None
    if limits is not None:
        ratio, used = _within(cpus, used, limits)
    return HostCell(
        id=cell.id,
        free=dedicated & ~pinned,
        cores=cores,
        own=tuple(core & dedicated for core in cores if core & dedicated and not core & 1),
        busy=pinned | (shared & ~dedicated),
        zero=next((core & dedicated for core in cores if core & 1), 0),
        shared_cpus=cpus,
        shared_used=used,
        cpu_ratio=ratio,
        offers=_offers(cell, guest),
        memory_limit=None if limits is None else (limit_of(cell.memory_mb, limits.ram_allocation_ratio) - cell.used.memory_mb) * MIB,
        socket=cell.socket,
        devices=near.get(cell.id, 0),
        distances=distances,
    )


def _row(cell: CaseCell, order: list[int]) -> tuple[int, ...]:
    """Return a cell's distances in the order of the cells' numbers, () where they are not one for each cell."""
    return tuple(cell.distances[index] for index in order) if len(cell.distances) == len(order) else ()


def _cores(cell: CaseCell, known: int) -> tuple[int, ...]:
    """Return the masks of a cell's cores, ascending; a CPU that no core names is one itself."""
    cores = [mask_of(core) for core in cell.siblings if core]
    named = 0
    for core in cores:
        named |= core
    cores += [1 << cpu for cpu in cpus_of(known & ~named)]
    return tuple(sorted(cores, key=lambda core: core & -core))


def _within(cpus: int, used: int, limits: Limits) -> tuple[int, int]:
    """Return the ratio of a cell in thousandths and its used vCPUs, so that as many more fit as under the exact ratio."""
    most = limit_of(cpus, limits.cpu_allocation_ratio)
    ratio = int(limits.cpu_allocation_ratio * RATIO_ONE)
    if cpus * ratio // RATIO_ONE != most and cpus:
        ratio = -(-most * RATIO_ONE // cpus)
    return ratio, used + cpus * ratio // RATIO_ONE - most


def _offers(cell: CaseCell, guest: Guest) -> tuple[PageOffer, ...]:
    """Return the pages that answer the guest's wish, the smallest first; a cell without pages offers its memory to who wishes for none."""
    sizes = sorted(cell.pages, key=lambda pages: pages.size_kb)
    pinned = guest.policy in ("dedicated", "mixed")
    match guest.page_kib:
        case None if sizes:
            smallest = sizes[0]
            return (PageOffer(size_kib=smallest.size_kb, free=smallest.free if pinned else smallest.total, named=False),)
        case None:
            free = cell.memory_mb - (cell.used.memory_mb if pinned else 0)
            return (PageOffer(size_kib=MIB // KIB, free=free, whole=False, named=False),)
        case "small":
            return _named(sizes[:1])
        case "large":
            return _named(sizes[1:])
        case "any":
            return _named(sizes)
        case wish:
            return _named(pages for pages in sizes if pages.size_kb == wish)


def _named(pages: Iterable[Pages]) -> tuple[PageOffer, ...]:
    return tuple(PageOffer(size_kib=each.size_kb, free=each.free) for each in pages)


# --- devices ------------------------------------------------------------------------------------------------------------------------


def _stock(host: CaseHost) -> DeviceStock:
    """Return the devices that can be given: available, and neither their parent nor, of a physical function, a child is somebody's."""
    by_address = {device.address: device for device in host.pci}
    children: dict[str, list[CaseDevice]] = {}
    for device in host.pci:
        if device.parent:
            children.setdefault(device.parent, []).append(device)
    free = [device for device in host.pci if _is_free(device, by_address, children)]
    free.sort(key=lambda device: device.address)
    return DeviceStock(
        devices=tuple(_device(device) for device in free),
        slots=immutables.Map((_unit(device.address), _slots(device, children)) for device in free),
        sockets=immutables.Map((cell.id, cell.socket) for cell in sorted(host.cells, key=lambda cell: cell.id)),
        addresses=immutables.Map((_unit(device.parent), device.parent) for device in free if device.parent),
    )


def _is_free(device: CaseDevice, by_address: Mapping[str, CaseDevice], children: Mapping[str, Iterable[CaseDevice]]) -> bool:
    if device.status != "available" or device.parent == device.address:
        return False
    parent = by_address.get(device.parent) if device.parent else None
    if parent is not None and parent.status in HELD:
        return False
    return device.type != "PF" or all(child.status not in HELD for child in children.get(device.address, ()))


def _device(device: CaseDevice) -> Device:
    return Device(
        unit=_unit(device.address),
        kind="vf" if device.type == "VF" else "other",
        address=device.address,
        vendor_id=device.vendor_id,
        product_id=device.product_id,
        cell=device.numa_node,
        parent=_unit(device.parent) if device.parent else None,
        dev_type=device.type,
        tags=tuple((_key(key), text_of(said)) for key, said in sorted(device.tags.items()) if said is not None),
    )


def _slots(device: CaseDevice, children: Mapping[str, Iterable[CaseDevice]]) -> tuple[Slot, ...]:
    """Return what a device occupies: itself and its children, so that it is never given with one of them."""
    return (Slot(_unit(device.address)), *sorted(Slot(_unit(child.address)) for child in children.get(device.address, ())))


def _unit(address: str) -> UnitId:
    return UnitId(f"pci:{address}")


def _key(key: str) -> str:
    return REMOTE_TAG if key == REMOTE else key


def _near(devices: Iterable[CaseDevice]) -> Mapping[int, int]:
    """Return how many available devices each cell has."""
    near: dict[int, int] = {}
    for device in devices:
        if device.status == "available" and device.numa_node is not None:
            near[device.numa_node] = near.get(device.numa_node, 0) + 1
    return near


def said_texts(properties: Mapping[str, Said], without: Iterable[str] = ()) -> dict[str, str]:
    """Return extra specs or image properties as texts, but for some and for those of which nothing is said (null)."""
    left_out = frozenset(without)
    return {key: text_of(said) for key, said in properties.items() if said is not None and key not in left_out}
