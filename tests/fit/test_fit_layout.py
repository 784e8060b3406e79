"""What may be handed out on a machine under a node's settings."""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from tests.fit.worlds import BARE, World, amounts, machine, units

from earmark.core.fit.layout import build_layout
from earmark.core.model.cpuset import cpus_of, mask_of
from earmark.core.model.ids import ResourceClass
from earmark.core.model.inventory import Inventory
from earmark.core.model.node import NodeSettings, ReservedPages
from earmark.core.model.topology import Cell, Cpu, Machine
from earmark.core.model.units import GIB, MIB
from earmark.errors import InvalidRequest


def test_the_pool_is_every_usable_cpu_less_the_reserved_ones() -> None:
    """Online and allowed CPUs form the pool, shared and dedicated alike."""
    layout = build_layout(replace(machine(cells=2), usable_cpus=(2, 3, 9, 99)), BARE)
    assert cpus_of(layout.shared) == cpus_of(layout.dedicated) == (2, 3, 9)
    assert layout.cell[1].dedicated == mask_of([9])
    assert layout.shrinks


@pytest.mark.rule("C12")
@pytest.mark.parametrize(("count", "kept"), [(1, (0,)), (2, (0, 4)), (3, (0, 1, 4)), (8, tuple(range(8))), (9, tuple(range(8)))])
def test_reserved_cpus_are_taken_core_by_core_from_cpu_zero_on(count: int, kept: tuple[int, ...]) -> None:
    """CPU 0's core goes first, then the next core, whatever the numbering of siblings; never more than there are."""
    cpus = tuple(Cpu(id=n, core=n % 4, cell=0) for n in range(8))
    layout = build_layout(Machine(cpus=cpus), replace(BARE, reserved_host_cpus=count))
    assert cpus_of(layout.reserved) == kept
    assert not layout.dedicated & layout.reserved


@pytest.mark.rule("C12", "N8")
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (NodeSettings(cpu_policy="split", cpu_dedicated_set=(1,), reserved_host_cpus=1), "reserved_host_cpus"),
        (NodeSettings(cpu_shared_set=(1,)), "cpu_policy pool has no sets"),
        (NodeSettings(cpu_policy="split"), "found neither"),
        (NodeSettings(cpu_policy="split", cpu_shared_set=(0, 1, 2), cpu_dedicated_set=(1, 2, 3)), "CPU 1-2 is in"),
        (NodeSettings(cpu_policy="split", cpu_shared_set=(7, 8, 9)), "CPU 8-9; the machine has 0-7"),
        (NodeSettings(reserved_huge_pages=(ReservedPages(cell=1, size_kib=2048, count=1),)), "no such pages"),
        (NodeSettings(reserved_huge_pages=(ReservedPages(cell=0, size_kib=4, count=1),) * 2), "twice"),
        (NodeSettings(inventories=(Inventory(resource_class=ResourceClass("VCPU"), total=1),)), "counted from the machine"),
        (NodeSettings(inventories=(Inventory(resource_class=ResourceClass("CUSTOM_X"), total=1),) * 2), "twice"),
        (NodeSettings(inventories=(Inventory(resource_class=ResourceClass("CUSTOM_X"), total=1, reserved=2),)), "reserved 2"),
    ],
)
def test_impossible_settings_are_refused_by_name(settings: NodeSettings, words: str) -> None:
    """Each contradiction names the setting and what was found."""
    with pytest.raises(InvalidRequest, match=words):
        build_layout(machine(), settings)


@pytest.mark.rule("N8")
def test_split_sets_may_name_offline_cpus_and_outlive_lost_ones() -> None:
    """An offline CPU may stay in a set; when a CPU is gone for good the layout is still built, not strictly, without it."""
    settings = replace(BARE, cpu_policy="split", cpu_shared_set=(0, 1), cpu_dedicated_set=(2, 3, 9))
    host = replace(machine(cores=2), offline_cpus=(9,))
    layout = build_layout(host, settings)
    assert (cpus_of(layout.shared), cpus_of(layout.dedicated)) == ((0, 1), (2, 3))
    assert not layout.shrinks
    gone = replace(host, offline_cpus=())
    with pytest.raises(InvalidRequest, match="CPU 9"):
        build_layout(gone, settings)
    assert build_layout(gone, settings, strict=False).dedicated == layout.dedicated


def test_overlap_shares_all_and_dedicates_what_is_named() -> None:
    """Without sets every CPU is in both; a dedicated set narrows only the dedicated ones; both respect what is reserved."""
    every = build_layout(machine(cores=2), NodeSettings(cpu_policy="overlap", reserved_host_cpus=1))
    assert cpus_of(every.shared) == cpus_of(every.dedicated) == (1, 2, 3)
    some = build_layout(machine(cores=2), NodeSettings(cpu_policy="overlap", cpu_dedicated_set=(2, 3)))
    assert (cpus_of(some.shared), cpus_of(some.dedicated)) == ((0, 1, 2, 3), (2, 3))
    assert not some.exclusive


@pytest.mark.rule("H3")
def test_reserved_pages_are_outside_the_capacity_and_never_below_zero() -> None:
    """Pages kept back reduce what may be given, at most to nothing; base pages are what huge pages leave."""
    kept = (ReservedPages(cell=0, size_kib=2048, count=100), ReservedPages(cell=1, size_kib=2048, count=9999))
    layout = build_layout(machine(cells=2, memory=2 * GIB, pages={2048: 512}), replace(BARE, reserved_huge_pages=kept))
    assert [layout.cell[n].pages[2048].capacity for n in (0, 1)] == [412, 0]
    assert layout.cell[0].base.total == GIB // 4096


@pytest.mark.rule("C12")
def test_the_host_keeps_its_memory_and_disk() -> None:
    """By default the larger of 512 MiB and 2 % of the memory, and 1 GiB of the root disk, or all where there is less."""
    layout = build_layout(machine(memory=4 * GIB, disk=10 * GIB), NodeSettings())
    assert layout.memory.reserved == 512 * MIB
    assert [disk.reserved for disk in layout.disks.values()] == [GIB]
    big = build_layout(machine(cells=2, memory=100 * GIB, disk=GIB // 2), NodeSettings())
    assert big.memory.reserved == 4 * GIB
    assert [disk.capacity for disk in big.disks.values()] == [0]


@pytest.mark.rule("W27")
def test_vcpus_and_own_cpus_are_separate_stocks() -> None:
    """Shared vCPUs and CPUs of one's own are counted apart; a CPU of one's own leaves the shared stock; memory counts both ways."""
    settings = replace(BARE, reserved_host_cpus=1, cpu_allocation_ratio=2000)
    world = World(machine(cells=2, memory=GIB, pages={2048: 10}, disk=GIB), settings)
    world = world.with_grant(units([2, 3])).with_grant(
        amounts(vcpu=3, vcpu__1=1, memory=MIB, pages__0__4=256, pages__1__2048=2, disk__root=5)
    )
    stocks = {stock.pool: stock for stock in world.supply.layout.inventories(world.supply.free)}
    figures = {pool: (stock.total, stock.reserved, stock.used) for pool, stock in stocks.items()}
    assert figures["vcpu"] == (14, 1, 4)
    assert stocks["vcpu"].capacity == 26
    assert figures["cpu"] == (16, 1, 2)
    assert figures["memory"] == (2 * GIB - 40 * MIB, 0, 2 * MIB)
    assert figures["pages:1:2048"] == (10, 0, 2)
    assert figures["disk:root"] == (GIB, 0, 5)
    assert world.supply.layout.inventories(world.supply.free, blocked_cpus=0b1110000)[0].capacity == 20
    assert list(stocks) == [stock.pool for stock in world.supply.layout.inventories()]


def test_memory_only_cells_and_cpus_without_a_described_cell_are_cells_too() -> None:
    """A cell without CPUs keeps its pages; a CPU of an undescribed cell makes one without memory."""
    host = Machine(cpus=(Cpu(id=3, core=3, cell=7),), cells=(Cell(id=2, memory_bytes=GIB),))
    layout = build_layout(host, BARE)
    assert [cell.id for cell in layout.cells] == [2, 7]
    assert layout.cell[2].dedicated == 0
    assert layout.cell[7].base.capacity == 0
