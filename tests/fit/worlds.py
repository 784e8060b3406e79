"""Small nodes for the tests of fit: built by hand, or drawn at random together with what is taken on them."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random
from typing import NamedTuple, TypeVar

from hypothesis import strategies as st
from msgspec.structs import replace

from earmark.core.fit.free import Free, Supply
from earmark.core.fit.layout import build_layout
from earmark.core.model.exclusion import slot_table
from earmark.core.model.grant import AmountRow, Grant, UnitRow
from earmark.core.model.ids import ClaimId, PoolId, ResourceClass, Trait, UnitId, cpu_unit
from earmark.core.model.inventory import Inventory
from earmark.core.model.node import NodePolicy, NodeSettings, ReservedPages
from earmark.core.model.request import CpuPolicy, DeviceRequest, Request, ResourceAmount
from earmark.core.model.topology import Cell, Cpu, Device, Disk, Machine, PagePool
from earmark.core.model.units import GIB, KIB, MIB

T = TypeVar("T")

BARE = NodeSettings(reserved_host_memory_bytes=0, reserved_host_disk_bytes=0)
"""Nothing kept for the host."""


class World(NamedTuple):
    """A machine, its settings, what is held on it, and what gets no new grants."""

    machine: Machine
    settings: NodeSettings
    grants: tuple[tuple[ClaimId, Grant], ...] = ()
    blocked_cpus: int = 0
    blocked_units: frozenset[UnitId] = frozenset()

    @property
    def supply(self) -> Supply:
        """What fit sees of it."""
        return Supply(
            layout=build_layout(self.machine, self.settings),
            free=Free.recompute(self.grants),
            blocked_cpus=self.blocked_cpus,
            blocked_units=self.blocked_units,
        )

    def with_grant(self, grant: Grant) -> World:
        """Return the world with one more grant held."""
        return self._replace(grants=(*self.grants, (ClaimId(f"c-{len(self.grants):04}"), grant)))


def machine(
    cells: int = 1, cores: int = 4, threads: int = 2, memory: int = 4 * GIB, pages: dict[int, int] | None = None, disk: int = 0
) -> Machine:
    """Return a machine of equal cells: cores of consecutive CPUs, memory per cell, huge pages per cell by size."""
    size = cores * threads
    cpus = tuple(Cpu(id=n, core=n - n % threads, cell=n // size) for n in range(cells * size))
    pools = tuple(PagePool(size_kib=kib, total=total) for kib, total in sorted((pages or {}).items()))
    rows = tuple(Cell(id=n, cpus=tuple(range(n * size, (n + 1) * size)), memory_bytes=memory, pages=pools) for n in range(cells))
    return Machine(cpus=cpus, cells=rows, disks=(Disk(name="root", total_bytes=disk),) if disk else ())


def sriov(virtual: int, *, port: int = 0, cell: int | None = 0) -> tuple[Device, ...]:
    """Return one physical function and its virtual ones."""
    parent = UnitId(f"pci:0000:{port:02x}:00.0")
    functions = [
        Device(unit=UnitId(f"pci:0000:{port:02x}:02.{n}"), kind="vf", address=f"0000:{port:02x}:02.{n}", cell=cell, parent=parent)
        for n in range(virtual)
    ]
    return (Device(unit=parent, kind="nic", address=f"0000:{port:02x}:00.0", cell=cell, sriov_total=virtual), *functions)


def units(cpus: Iterable[int]) -> Grant:
    """Return a grant of some CPUs of one's own and nothing else."""
    return Grant(units=tuple(UnitRow(unit=cpu_unit(cpu), use="vcpu") for cpu in sorted(cpus)))


def amounts(**pools: int) -> Grant:
    """Return a grant of amounts; `__` stands for the colon of a pool's name."""
    return Grant(amounts=tuple(AmountRow(pool=PoolId(name.replace("__", ":")), amount=amount) for name, amount in pools.items() if amount))


# --- drawn at random ----------------------------------------------------------------------------------------------------------------

SIZES = (2048, 4096)
RATIOS = (500, 1000, 1500, 2000, 4000)
TRAITS = (Trait("HW_A"), Trait("HW_B"))
CUSTOM = ResourceClass("CUSTOM_X")
KINDS = ("gpu", "nic", "vf")
MEMORIES = (None, 24 * MIB, 40 * MIB, 80 * MIB)
"""What devices have of their own."""


def random(seed: int) -> Random:
    """Return the source of a test case."""
    return Random(seed)  # noqa: S311 - a test case, not a secret


SEEDS = st.integers(0, (1 << 32) - 1)
"""A seed makes a whole case: many more small nodes a second than drawing each number would give."""


def worlds() -> st.SearchStrategy[World]:
    """Nodes of up to 8 CPUs and 2 cells with something taken on them."""
    return SEEDS.map(lambda seed: random_world(random(seed)))


def requests() -> st.SearchStrategy[Request]:
    """Requests of the kinds that fit supports, of a size that such nodes may have."""
    return SEEDS.map(lambda seed: random_request(random(seed)))


def device_cases() -> st.SearchStrategy[tuple[World, Request]]:
    """Nodes with nested devices of which none is held, and wishes for nothing but devices."""
    return SEEDS.map(lambda seed: random_device_case(random(seed)))


def random_device_case(rnd: Random) -> tuple[World, Request]:
    """Return a node with devices and a wish for up to three kinds of them."""
    host = replace(machine(), devices=random_devices(rnd))
    kinds = rnd.choices(KINDS, k=rnd.choice((1, 2, 2, 3)))
    wish = tuple(DeviceRequest(kind=kind, count=rnd.choice((1, 1, 1, 2, 3))) for kind in kinds)
    return World(host, replace(BARE, device_kinds=KINDS)), Request(devices=wish)


def random_machine(rnd: Random) -> Machine:
    """Return a machine: cells without CPUs, memory or pages, cores of 1 to 4 threads, nested devices, cgroup limits."""
    count = rnd.randint(1, 2)
    cpus: list[Cpu] = []
    cells = []
    for number in range(count):
        here: list[int] = []
        for size in rnd.choices((1, 2, 2, 2, 3, 4), k=rnd.choice((0, 1, 2, 3, 3, 4, 4))):
            first = len(cpus)
            if first + size <= 8 - 2 * (count - 1 - number):
                cpus += [Cpu(id=first + n, core=first, cell=number) for n in range(size)]
                here += range(first, first + size)
        pools = tuple(PagePool(size_kib=size, total=rnd.randint(0, 6)) for size in SIZES if rnd.random() < 0.7)
        memory = sum(pool.size_kib * pool.total * KIB for pool in pools) + rnd.randint(0, 24) * MIB
        cells.append(Cell(id=number, cpus=tuple(here), memory_bytes=memory if rnd.random() < 0.9 else 0, pages=pools))
    return Machine(
        cpus=tuple(cpus),
        cells=tuple(cells),
        devices=random_devices(rnd),
        disks=(Disk(name="root", total_bytes=rnd.randint(0, 12) * MIB),) if rnd.random() < 0.8 else (),
        traits=tuple(trait for trait in TRAITS if rnd.random() < 0.5),
        memory_limit_bytes=rnd.choice((None, None, None, None, rnd.randint(0, 16) * MIB)),
        usable_cpus=rnd.choice((None, None, None, tuple(n for n in range(8) if rnd.random() < 0.8))),
    )


def random_devices(rnd: Random) -> tuple[Device, ...]:
    """Return up to 9 devices in trees of up to three levels, on either cell or none."""
    listed: list[Device] = []
    for n in range(rnd.choice((0, rnd.randint(1, 9)))):
        parent = rnd.choice(listed).unit if listed and rnd.random() < 0.5 else None
        place = f"0000:{rnd.randint(0, 3):02x}:00.{n}"
        kind = rnd.choice((*KINDS, "other"))
        listed.append(
            Device(
                unit=UnitId(f"pci:{n}"), kind=kind, address=place, cell=rnd.choice((None, 0, 1)), parent=parent, memory_bytes=MEMORIES[n % len(MEMORIES)]
            )
        )  # fmt: skip
    return tuple(listed)


def random_settings(rnd: Random, host: Machine) -> NodeSettings:
    """Return settings of any policy that are possible on a machine."""
    pools = [(cell.id, pool.size_kib) for cell in host.cells for pool in cell.pages]
    stock = Inventory(
        resource_class=CUSTOM, total=rnd.randint(3, 8), reserved=rnd.randint(0, 3), ratio=rnd.choice(RATIOS), min_unit=rnd.randint(1, 2),
        max_unit=rnd.randint(2, 6), step_size=rnd.randint(1, 2),
    )  # fmt: skip
    plain = NodeSettings(
        cpu_allocation_ratio=rnd.choice(RATIOS),
        ram_allocation_ratio=rnd.choice(RATIOS),
        disk_allocation_ratio=rnd.choice(RATIOS),
        reserved_host_memory_bytes=rnd.randint(0, 3) * MIB,
        reserved_host_disk_bytes=rnd.randint(0, 2) * MIB,
        device_kinds=KINDS,
        inventories=(stock,) if rnd.random() < 0.8 else (),
        reserved_huge_pages=tuple(ReservedPages(cell=cell, size_kib=size, count=rnd.randint(0, 2)) for cell, size in pools),
    )
    numbers = [cpu.id for cpu in host.cpus]
    policy: NodePolicy = rnd.choice(("pool", "pool", "split", "overlap"))
    if policy == "pool" or not numbers:
        return replace(plain, reserved_host_cpus=rnd.choice((0, 0, 1, 2, 3)))
    if policy == "overlap" and rnd.random() < 0.5:
        return replace(plain, cpu_policy="overlap")
    roles = {cpu: rnd.choice((0, 1, 1, 2, 3)) for cpu in numbers}
    shared = tuple(cpu for cpu, role in roles.items() if role == 0 or (role == 2 and policy == "overlap"))
    dedicated = tuple(cpu for cpu, role in roles.items() if role in (1, 2))
    return replace(plain, cpu_policy=policy, cpu_shared_set=shared, cpu_dedicated_set=dedicated)


def random_world(rnd: Random) -> World:
    """Return a node with CPUs, shared vCPUs (also more than there is room for), memory, pages, devices taken, and cordons."""
    host = random_machine(rnd)
    share = rnd.choice((0, 0, 0.2, 0.5))
    held = units(cpu.id for cpu in host.cpus if rnd.random() < share)
    table = slot_table(host.devices)
    taken: set[str] = set()
    for device in host.devices:
        slots = table[device.unit]
        if rnd.random() < 0.2 and taken.isdisjoint(slots):
            taken.update(slots)
            held = replace(held, units=(*held.units, UnitRow(unit=device.unit, use="device", slots=slots if len(slots) > 1 else ())))
    pools = {"vcpu": 5, "vcpu:0": 2, "vcpu:1": 2, "memory": 6 * MIB, "disk:root": 4 * MIB, "class:CUSTOM_X": 4}
    pools |= {f"pages:{cell.id}:{pool.size_kib}": 2 for cell in host.cells for pool in cell.pages}
    pools |= {f"pages:{cell.id}:4": 1024 for cell in host.cells}
    used = {name: rnd.randint(0, most) for name, most in pools.items() if rnd.random() < 0.2}
    rows = tuple(AmountRow(pool=PoolId(name), amount=amount) for name, amount in used.items() if amount)
    return World(
        machine=host,
        settings=random_settings(rnd, host),
        grants=((ClaimId("c-cpus"), held), (ClaimId("c-sums"), Grant(amounts=rows))),
        blocked_cpus=rnd.choice((0, 0, 0, 0b1, 0b1010)),
        blocked_units=frozenset(device.unit for device in host.devices if rnd.random() < 0.08),
    )


def random_request(rnd: Random) -> Request:
    """Return a request; it asks for something."""
    policy: CpuPolicy = rnd.choice(("shared", "dedicated", "dedicated"))
    memory = rnd.choice((0, 0, 1, MIB, 2 * MIB, 4 * MIB, 4 * MIB + 1, 8 * MIB)) if rnd.random() < 0.5 else 0
    devices = rnd.choice((0, 0, 0, 0, 1, 2))
    wish = tuple(DeviceRequest(kind=rnd.choice(KINDS), count=rnd.choice((1, 1, 2, 3))) for _ in range(devices))
    classes = rnd.choice((0, 0, 0, 0, 0, 1, 2, 3))
    disk = rnd.choice((0, 0, 0, 0, 0, MIB, 3 * MIB))
    least = 0 if policy == "shared" and (memory or wish or classes or disk) else 1
    paged = memory > 0 and (memory % (2 * MIB) == 0 or rnd.random() < 0.2)
    return Request(
        vcpus=max(least, rnd.choice((0, 1, 1, 2, 2, 3, 4, 5))),
        cpu_policy=policy,
        thread_policy=rnd.choice((None, "prefer")) if policy == "dedicated" else None,
        memory_bytes=memory,
        page_kib=rnd.choice((None, None, 4, *SIZES, *SIZES, 1 << 20)) if paged else None,
        cells=rnd.choice((None, None, 1)),
        disk_bytes=disk,
        resources=(ResourceAmount(resource_class=CUSTOM, amount=classes),) if classes else (),
        devices=wish,
        required_traits=TRAITS[:1] if rnd.random() < 0.1 else (),
        forbidden_traits=TRAITS[1:] if rnd.random() < 0.1 else (),
        placement=rnd.choice(("pack", "spread")),
    )


def shuffled(host: Machine, rnd: Random) -> Machine:
    """Return the same machine as a driver might list it in another order."""

    def mixed(things: tuple[T, ...]) -> tuple[T, ...]:
        return tuple(rnd.sample(things, len(things)))

    cells = tuple(replace(cell, cpus=mixed(cell.cpus), pages=mixed(cell.pages)) for cell in host.cells)
    return replace(
        host, cpus=mixed(host.cpus), cells=mixed(cells), devices=mixed(host.devices), disks=mixed(host.disks), traits=mixed(host.traits)
    )
