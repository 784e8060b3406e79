"""Nodes to be drawn: machines, claims, cordons and quarantines put together by hand, so that no choice of fit moves a picture."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from earmark.core.ledger.state import NodeState, StateImage, state_of
from earmark.core.model.claim import Claim, Cordon, Phase, Quarantine
from earmark.core.model.grant import AmountRow, Grant, UnitRow
from earmark.core.model.ids import ClaimId, ConsumerId, NodeId, Owner, PoolId, UnitId
from earmark.core.model.inventory import Inventory
from earmark.core.model.node import NodeSettings
from earmark.core.model.request import Request
from earmark.core.model.topology import Cell, Cpu, Device, Disk, Machine, PagePool
from earmark.core.model.units import GIB

NODE = NodeId("6a0ad3de-2ad5-44e3-8a6e-09e5e0b8c001")
NOW = 1_767_229_200_000
"""2026-01-01 01:00 UTC, a Thursday."""
DAY, HOUR, MINUTE = 86_400_000, 3_600_000, 60_000


def machine(
    cells: int, cores: int, threads: int, gib: int, *, pages: Sequence[tuple[int, int]] = (), cache: int = 0, devices: Iterable[Device] = (),
    model: str | None = "AMD EPYC 9354 32-Core Processor", notes: tuple[str, ...] = (),
) -> Machine:  # fmt: skip
    """Return a machine whose second threads come after all first ones; `gib` a cell, `cache` cores to a last-level cache (0: not known)."""
    total = cells * cores
    cpus = [
        Cpu(id=core + thread * total, core=core, cell=core // cores, package=core // cores, l3=core // cache * cache if cache else None)
        for thread in range(threads)
        for core in range(total)
    ]
    return Machine(
        cpus=tuple(cpus),
        cells=tuple(
            Cell(
                id=cell, cpus=tuple(cpu.id for cpu in cpus if cpu.cell == cell), memory_bytes=gib * GIB,
                pages=tuple(PagePool(size_kib=size, total=count) for size, count in pages),
            )
            for cell in range(cells)
        ),
        devices=tuple(devices), disks=(Disk(name="root", total_bytes=400 * GIB),), model=model, notes=notes,
    )  # fmt: skip


def grant(cpus: Iterable[int] = (), amounts: Iterable[tuple[str, int]] = (), devices: Iterable[str] = ()) -> Grant:
    """Return a grant of CPUs, shares of pools, and devices."""
    rows = [UnitRow(unit=UnitId(f"cpu:{cpu}"), use="vcpu") for cpu in cpus] + [UnitRow(unit=UnitId(unit), use="device") for unit in devices]
    return Grant(units=tuple(rows), amounts=tuple(AmountRow(pool=PoolId(pool), amount=amount) for pool, amount in amounts))


def claim(name: str, owner: str, given: Grant, number: int, *, phase: Phase = "confirmed", until: int | None = None) -> Claim:
    """Return a claim; `number` gives its id and its age, a draining one had expired."""
    return Claim(
        id=ClaimId(f"c-{number:012x}"), node=NODE, consumer=ConsumerId(name), owner=Owner(owner), request=Request(vcpus=1), grant=given,
        phase=phase, held_at_ms=NOW - HOUR + number, deadline_ms=until, cause="expired" if phase == "draining" else None,
        draining_since_ms=NOW if phase == "draining" else None,
    )  # fmt: skip


def node(
    seen: Machine | None, claims: Sequence[Claim] = (), *, settings: NodeSettings | None = None, cordons: Sequence[Cordon] = (),
    quarantines: Sequence[Quarantine] = (), name: str = "gpu1",
) -> NodeState:  # fmt: skip
    """Return the state of a node."""
    return state_of(
        StateImage(
            node=NODE,
            name=name,
            sequence=10,
            epoch=1,
            at_ms=NOW,
            hash="",
            machine=seen,
            inventory_version=1,
            settings=settings or NodeSettings(),
            claims=tuple(claims),
            quarantines=tuple(quarantines),
            cordons=tuple(cordons),
        )
    )


def least() -> NodeState:
    """Return a container-like place: one CPU, no NUMA folder, nothing held."""
    seen = machine(1, 1, 1, 2, model=None, notes=("no NUMA folder: all memory is one cell",))
    return node(seen, name="box")


def two_cells() -> NodeState:
    """Return two cells of eight cores of two threads with a bit of everything."""
    gpus = [
        Device(unit=UnitId(f"gpu:GPU-8e94000{n}"), kind="gpu", address=f"0000:4{n}:00.0", cell=n // 2, name="NVIDIA H100 80GB HBM3")
        for n in range(4)
    ]
    vfs = [Device(unit=UnitId(f"pci:0000:81:02.{n:x}"), kind="vf", address=f"0000:81:02.{n:x}", cell=1) for n in range(16)]
    claims = [
        claim(
            "vm-web",
            "alice",
            grant((1, 17, 2, 18), (("pages:0:4", 1 << 21), ("pages:0:1048576", 3)), ("gpu:GPU-8e940000",)),
            1,
            until=NOW + 130 * MINUTE,
        ),
        claim("vm-database", "bob", grant((8, 24, 9), (("pages:1:4", 1 << 20),), ("gpu:GPU-8e940003", "pci:0000:81:02.3")), 2),
        claim("nightly", "ci", grant((), (("vcpu", 6), ("memory", 4 * GIB), ("disk:root", 20 * GIB))), 3, phase="held", until=NOW + MINUTE),
        claim("old", "carol", grant((5,), (("memory", GIB), ("class:CUSTOM_LICENCE", 2))), 4, phase="draining", until=NOW - MINUTE),
    ]
    kept = Quarantine(
        claim=ClaimId("c-0dd09b01c2d4"), consumer=ConsumerId("crashed"), owner=Owner("dan"), grant=grant((7,)), since_ms=NOW - HOUR,
        reason="holder_gone, and no proof within the grace time that its units are unused",
    )  # fmt: skip
    cordons = [
        Cordon(unit=UnitId("cpu:12"), reason="machine check errors", since_ms=NOW, until_ms=NOW + 3 * DAY),
        Cordon(unit=UnitId("gpu:GPU-8e940002"), reason="XID 79", since_ms=NOW),
    ]
    seen = machine(2, 8, 2, 32, pages=((2048, 1024), (1048576, 8)), devices=[*gpus, *vfs])
    licences = Inventory(resource_class="CUSTOM_LICENCE", total=5)  # type: ignore[arg-type]  # plain text for a NewType
    settings = NodeSettings(reserved_host_cpus=2, inventories=(licences,))
    return node(seen, claims, settings=settings, cordons=cordons, quarantines=[kept])


def eight_cells() -> NodeState:
    """Return 256 CPUs in eight cells, ten machines of eight CPUs on them."""
    claims = [
        claim(f"vm-{n}", "alice", grant((*range(4 * n, 4 * n + 4), *range(128 + 4 * n, 132 + 4 * n)), ((f"pages:{n // 4}:4", 1 << 20),)), n)
        for n in range(10)
    ]
    return node(machine(8, 16, 2, 192, pages=((1048576, 32),), cache=8, model="AMD EPYC 9754"), claims)


def sixty_four_cells() -> NodeState:
    """Return 2,048 CPUs in 64 cells, too many to be drawn one by one."""
    claims = [claim("big", "alice", grant(range(8, 40)), 1), claim("small", "bob", grant((100, 1124)), 2)]
    return node(machine(64, 16, 2, 64, model=None), claims)
