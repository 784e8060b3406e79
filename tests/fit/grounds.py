"""Small grounds, guests and wishes for devices, drawn at random, for the tests of exact fits.

Rules of this file: a seed makes a whole case, the same one each time; everything is small enough for `brute_ground`; amounts are tight, so
that about half of the cases fit and every kind of no occurs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import NamedTuple

from msgspec.structs import replace

from earmark.core.fit.ground import DeviceStock, Ground, HostCell, PageOffer
from earmark.core.fit.guest import Guest, GuestNeed
from earmark.core.model.cpuset import mask_of
from earmark.core.model.exclusion import slot_table
from earmark.core.model.ids import Trait, UnitId
from earmark.core.model.request import Affinity, CpuPolicy, DeviceRequest, ThreadPolicy
from earmark.core.model.topology import Device
from earmark.core.model.units import MIB

THREADS: tuple[ThreadPolicy | None, ...] = (None, "prefer", "isolate", "require", "require", "require-strict")
AFFINITIES: tuple[Affinity | None, ...] = (None, "required", "required", "legacy", "socket", "preferred")
FAST = Trait("CUSTOM_FAST")


class Case(NamedTuple):
    """One question: a guest (None: without cells), a node, and the devices wished for."""

    guest: Guest | None
    ground: Ground
    requests: tuple[DeviceRequest, ...] = ()


def random(seed: int) -> Random:
    """Return the source of a case."""
    return Random(seed)  # noqa: S311 - a test case, not a secret


def random_case(seed: int) -> Case:
    """Return a whole case; some guests have no cells."""
    rnd = random(seed)
    policy: CpuPolicy = rnd.choice(("shared", "dedicated", "dedicated", "mixed"))
    hosts = rnd.choice((1, 1, 2, 2, 3, 3, 4, 4, 5, 6, 8))
    guest = random_guest(rnd, policy, hosts)
    cells = random_cells(rnd, hosts, guest, roomy=rnd.random() < 0.5)
    devices = random_devices(rnd, [cell.id for cell in cells]) if rnd.random() < 0.6 else ()
    ground = Ground(
        cells=cells,
        stock=stock_of(devices, random_sockets(rnd, cells), {d.unit: rnd.choice((1000, 700, 300)) for d in devices if d.shares}),
        leaving_max=rnd.choice((None, None, None, rnd.randint(0, 10))),
        shrinks=rnd.random() < 0.4,
        strict=rnd.random() < 0.3,
        ordinary_max=rnd.choice((None, None, None, rnd.randint(0, 10) * MIB)),
        networks=random_networks(rnd, [cell.id for cell in cells]),
    )
    requests = tuple(random_request(rnd, devices) for _ in range(rnd.choice((0, 1, 1, 2, 3)))) if devices else ()
    return Case(None if requests and rnd.random() < 0.05 else guest, ground, requests)


def random_large_case(seed: int) -> Case:
    """Return a case that only a search can answer: up to 16 guest cells on up to 64 host cells, with up to a hundred devices."""
    rnd = random(seed)
    hosts = rnd.choice((16, 32, 64))
    some = random_guest(rnd, rnd.choice(("shared", "dedicated", "dedicated", "mixed")), 8)
    drawn = [rnd.choice(some.cells) for _ in range(rnd.choice((4, 8, 12, 16)))]
    needs = tuple(replace(need, number=number, emulator=0 if number else need.emulator) for number, need in enumerate(drawn))
    guest = replace(some, cells=needs)
    cells = random_cells(rnd, hosts, guest, roomy=rnd.random() < 0.7)
    ids = [cell.id for cell in cells]
    devices = tuple(device for domain in range(rnd.choice((0, 2, 6, 12))) for device in _in_domain(random_devices(rnd, ids), domain))
    cpus = sum(len(need.dedicated) + need.emulator for need in needs)
    memory = sum(need.memory_bytes for need in needs)
    ground = Ground(
        cells=cells,
        stock=stock_of(devices, random_sockets(rnd, cells), {d.unit: rnd.choice((1000, 700)) for d in devices if d.shares}),
        leaving_max=rnd.choice((None, None, max(0, cpus + rnd.choice((-1, 0, 1, 3))))),
        shrinks=rnd.random() < 0.4,
        strict=rnd.random() < 0.3,
        ordinary_max=rnd.choice((None, None, max(0, memory - rnd.choice((0, 1, 2, 4)) * MIB))),
        networks=random_networks(rnd, ids),
    )
    wishes = [random_request(rnd, devices) for _ in range(rnd.choice((0, 1, 2, 3)))] if devices else []
    more = [
        wish if wish.linked or wish.share is not None else replace(wish, count=rnd.choice((wish.count, wish.count, 4, 8)))
        for wish in wishes
    ]
    return Case(guest, ground, tuple(more))


def _in_domain(devices: Sequence[Device], domain: int) -> list[Device]:
    """Return devices as they would be in another PCI domain, so that several sets of them have different addresses."""

    def moved(text: str) -> str:
        return text.replace("0000:", f"{domain:04x}:")

    return [
        replace(
            device,
            unit=UnitId(moved(device.unit)),
            address=moved(device.address or ""),
            parent=None if device.parent is None else UnitId(moved(device.parent)),
            links=tuple(UnitId(moved(unit)) for unit in device.links),
        )
        for device in devices
    ]


def random_guest(rnd: Random, policy: CpuPolicy, hosts: int) -> Guest:
    """Return a guest of at most as many cells as there are host cells, and seldom one more; equal cells or mixed ones."""
    count = min(8, max(1, rnd.choice((1, 1, 2, 2, 3, hosts - 1, hosts, hosts + (rnd.random() < 0.2)))))
    threads = rnd.choice(THREADS) if policy != "shared" else None
    emulator = policy != "shared" and rnd.random() < 0.3
    equal = rnd.random() < 0.4
    needs: list[GuestNeed] = []
    first = 0
    size, memory = rnd.choice((1, 1, 2, 3)), rnd.choice((0, MIB, 2 * MIB, 3 * MIB))
    for number in range(count):
        if not equal:
            size, memory = rnd.choice((0, 1, 1, 2, 2, 3, 4)), rnd.choice((0, 0, MIB, 2 * MIB, 2 * MIB, 4 * MIB, MIB + 1))
        vcpus = tuple(range(first, first + size))
        first += size
        own = {"shared": 0, "dedicated": size, "mixed": rnd.randint(0, size)}[policy]
        isolated = int(emulator and number == 0)
        needs.append(GuestNeed(number=number, dedicated=vcpus[:own], shared=vcpus[own:], emulator=isolated, memory_bytes=memory))
    return Guest(cells=tuple(needs), policy=policy, threads=threads, placement=rnd.choice(("pack", "pack", "spread")))


def random_cells(rnd: Random, count: int, guest: Guest, *, roomy: bool) -> tuple[HostCell, ...]:
    """Return host cells with ragged cores, holes in the numbers of cells and CPUs, some without CPUs or memory; roomy ones have more of all."""
    ids = sorted(rnd.sample(range(count + 2), count))
    wish = rnd.choice((None, None, "small", "pages", "any"))
    mode = rnd.choice(("pool", "split", "overlap"))
    first = 0
    far = rnd.random() < 0.6
    apart = {(one, other): rnd.choice((16, 21, 32)) for one in range(count) for other in range(one)}
    cells = []
    for place, number in enumerate(ids):
        cores = random_cores(rnd, first, roomy=roomy)
        first = max([cpu for core in cores for cpu in core], default=first) + rnd.choice((1, 1, 3))
        row = tuple(10 if other == place else apart[max(place, other), min(place, other)] for other in range(count)) if far else ()
        cell = _cell(rnd, number, cores, mode, random_offers(rnd, wish, guest), row)
        if roomy:
            offers = tuple(replace(offer, free=offer.free + 4) for offer in cell.offers)
            cell = replace(cell, offers=offers, memory_limit=None, cpu_ratio=cell.cpu_ratio and 4000)
        cells.append(cell)
    return tuple(cells)


def random_cores(rnd: Random, first: int, *, roomy: bool) -> list[list[int]]:
    """Return the CPUs of some cores of 1 to 4 threads, at most 9 in all, with holes and threads that do not follow each other."""
    if rnd.random() < 0.1 and not roomy:
        return []
    sizes = rnd.choice(([2], [2, 2], [2, 2, 2], [1, 1, 1], [1, 2, 2], [4, 2], [3, 3], [4, 4], [1], [2, 1, 1, 2]))
    sizes = [2, 2, 2, 2] if roomy and sum(sizes) < 6 else sizes
    numbers = list(range(first, first + sum(sizes) + rnd.choice((0, 0, 2))))
    if len(numbers) > sum(sizes):
        numbers = sorted(rnd.sample(numbers, sum(sizes)))
    if rnd.random() < 0.5:  # siblings far apart, as most servers number them
        numbers = [*numbers[::2], *numbers[1::2]]
    cores = []
    for size in sizes:
        cores.append(sorted(numbers[:size]))
        numbers = numbers[size:]
    return sorted(cores)


def _cell(
    rnd: Random, number: int, cores: Sequence[Sequence[int]], mode: str, offers: tuple[PageOffer, ...], distances: tuple[int, ...]
) -> HostCell:
    cpus = [cpu for core in cores for cpu in core]
    share = rnd.choice((0, 0, 0.2, 0.4))
    held = {cpu for cpu in cpus if rnd.random() < share}
    shared = {cpu for cpu in cpus if rnd.random() < 0.3} if mode == "split" else set(cpus)
    dedicated = set(cpus) - shared if mode == "split" else set(cpus)
    free = dedicated - held
    if mode == "pool":
        shared -= held
    own = [mask_of(cpu for cpu in core if cpu in dedicated) for core in cores]
    zero = next((part for part in own if part & 1), 0)
    middle = len(cpus) // 2
    return HostCell(
        id=number,
        free=mask_of(free),
        cores=tuple(mask_of(core) for core in cores),
        own=tuple(part for part in own if part and part != zero),
        busy=mask_of(held | (shared - dedicated)),
        zero=zero,
        caches=(mask_of(cpus[:middle]), mask_of(cpus[middle:])) if middle and rnd.random() < 0.3 else (),
        shared_cpus=len(shared),
        shared_used=rnd.choice((0, 0, 0, 1, 2, 4)),
        cpu_ratio=rnd.choice((None, None, 1000, 1000, 500, 2000)),
        offers=offers,
        memory_limit=rnd.choice((None, None, None, rnd.randint(-1, 5) * MIB)),
        distances=distances,
    )


def random_offers(rnd: Random, wish: str | None, guest: Guest) -> tuple[PageOffer, ...]:
    """Return what a cell can give memory from, by what is wished: ordinary memory, or pages of up to three sizes."""
    if rnd.random() < 0.08:
        return ()
    bound = guest.policy != "shared"
    base = PageOffer(
        size_kib=1024, free=rnd.randint(0, 8), whole=wish is not None, named=wish is not None, ordinary=bound or rnd.random() < 0.8
    )
    huge = tuple(PageOffer(size_kib=size, free=rnd.choice((-1, 0, 1, 2, 3))) for size in (2048, 4096) if rnd.random() < 0.8)
    return {None: (base,), "small": (base,), "pages": huge, "any": (base, *huge)}[wish]


def random_sockets(rnd: Random, cells: Sequence[HostCell]) -> dict[int, int | None]:
    """Return the socket of each cell: two cells on each, sometimes one that is not known, sometimes none."""
    unknown = rnd.random() < 0.15
    return {cell.id: None if unknown and place == 0 else place // 2 for place, cell in enumerate(cells)}


def random_networks(rnd: Random, ids: Sequence[int]) -> tuple[tuple[str, frozenset[int]], ...]:
    """Return up to two networks with the cells they are attached to, which may be none."""
    if rnd.random() < 0.7:
        return ()
    names = rnd.choice((("",), ("blue",), ("blue", "red"), ("", "red")))
    return tuple((name, frozenset(rnd.sample(ids, min(len(ids), rnd.choice((0, 1, 1, 2)))))) for name in names)


def random_devices(rnd: Random, ids: Sequence[int]) -> tuple[Device, ...]:
    """Return up to 8 devices: physical functions with virtual ones, plain cards, GPUs with links or shares, in order of address."""
    devices: list[Device] = []
    for bus in range(rnd.choice((1, 2, 3))):
        cell = rnd.choice((*ids, *ids, None))
        kind = rnd.choice(("nic", "nic", "card", "gpus"))
        if kind == "nic":
            port = UnitId(f"pci:0000:{bus:02x}:00.0")
            virtual = rnd.randint(1, 3)
            devices.append(_device(rnd, bus, 0, "nic", cell, sriov_total=virtual))
            devices += [_device(rnd, bus, n, "vf", cell, parent=port) for n in range(1, virtual + 1)]
        elif kind == "card":
            devices += [_device(rnd, bus, n, rnd.choice(("accelerator", "nvme")), cell) for n in range(rnd.randint(1, 2))]
        else:
            names = [UnitId(f"pci:0000:{bus:02x}:00.{n}") for n in range(rnd.choice((2, 3)))]
            shares = rnd.random() < 0.3
            linked = rnd.random() < 0.5
            for n, unit in enumerate(names):
                friends = tuple(other for other in names if other != unit and linked)
                card = _device(rnd, bus, n, "gpu", rnd.choice((cell, *ids)), shares=shares)
                devices.append(replace(card, links=friends, memory_bytes=rnd.choice((None, 24, 40, 80))))
    return tuple(devices[:8])


def _device(
    rnd: Random,
    bus: int,
    function: int,
    kind: str,
    cell: int | None,
    *,
    parent: UnitId | None = None,
    sriov_total: int = 0,
    shares: bool = False,
) -> Device:
    address = f"0000:{bus:02x}:00.{function}"
    return Device(
        unit=UnitId(f"pci:{address}"), kind=kind, address=address, vendor_id="8086", product_id=rnd.choice(("1111", "2222")), cell=cell,
        parent=parent, sriov_total=sriov_total, shares=shares, traits=(FAST,) if rnd.random() < 0.2 else (),
        tags=(("physical_network", "Blue"),) if rnd.random() < 0.2 else (),
    )  # fmt: skip


def stock_of(devices: Sequence[Device], sockets: Mapping[int, int | None], shares: Mapping[UnitId, int] | None = None) -> DeviceStock:
    """Return the stock of some free devices."""
    return DeviceStock(
        devices=tuple(devices),
        slots=slot_table(devices),
        sockets=sockets,
        shares=shares or {},
        addresses={device.unit: device.address or "" for device in devices},
    )


def random_request(rnd: Random, devices: Sequence[Device]) -> DeviceRequest:
    """Return a wish for one to three devices, mostly of a kind that is there."""
    near = rnd.choice(AFFINITIES)
    count = rnd.choice((1, 1, 1, 2, 2, 3))
    kind = rnd.choice([*(device.kind for device in devices), "pci", "pci", "pci"])
    if kind == "gpu" and rnd.random() < 0.5:
        share = rnd.choice((None, 300, 500)) if any(device.shares for device in devices) else None
        memory = rnd.choice((None, None, 12, 24, 40, 41))
        return DeviceRequest(kind=kind, count=count, affinity=near, linked=rnd.random() < 0.5, share=share, memory_bytes=memory)
    if kind == "pci":
        choices = ({"dev_type": "VF"}, {"dev_type": "PF"}, {"product_id": "1111"}, {"vendor_id": "8086"}, {"physical_network": "blue"})
        match = tuple(dict(each) for each in rnd.sample(choices, rnd.choice((0, 1, 1, 2))))
        return DeviceRequest(kind=kind, count=count, match=match, affinity=near)
    wanted = (FAST,) if rnd.random() < 0.1 else ()
    parent = next((device.unit for device in devices if device.sriov_total), None)
    within = (parent,) if parent is not None and kind == "vf" and rnd.random() < 0.2 else ()
    return DeviceRequest(kind=kind, count=count, affinity=near, required_traits=wanted, within=within)
