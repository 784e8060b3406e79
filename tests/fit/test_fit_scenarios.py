"""The figures that everybody must show: scenarios and rules of the trade, as far as choosing a place is concerned."""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from tests.fit.worlds import BARE, World, amounts, machine, sriov, units

from earmark.core.fit.fit import fit
from earmark.core.model.cpuset import mask_of
from earmark.core.model.grant import Grant
from earmark.core.model.ids import MEMORY, VCPU, PoolId, ResourceClass, UnitId
from earmark.core.model.inventory import Inventory
from earmark.core.model.node import NodeSettings, ReservedPages
from earmark.core.model.refusal import Reason, Refusal
from earmark.core.model.request import DeviceRequest, Request, ResourceAmount
from earmark.core.model.topology import Cell, Cpu, Machine
from earmark.core.model.units import GIB, MIB

SMALL = Request(vcpus=2, memory_bytes=2 * GIB)


def granted(world: World, request: Request) -> tuple[World, Grant]:
    """Return the grant that a request must get, and the world with it held."""
    answer = fit(request, world.supply)
    assert isinstance(answer, Grant), answer
    return world.with_grant(answer), answer


def refused(world: World, request: Request) -> Refusal:
    """Return the refusal that a request must get."""
    answer = fit(request, world.supply)
    assert isinstance(answer, Refusal), answer
    return answer


def pinned(*cpus: int) -> World:
    """Return one cell of four cores with two threads, some CPUs busy."""
    return World(machine(cores=4), BARE).with_grant(units(cpus))


def shown(world: World) -> tuple[int, int, int]:
    """Return the node's figures: vCPUs, MB and GB in use or reserved, the disk rounded up once."""
    stocks = {stock.pool: stock.reserved + stock.used for stock in world.supply.layout.inventories(world.supply.free)}
    return stocks["vcpu"], stocks["memory"] // MIB, -(-stocks["disk:root"] // GIB)


@pytest.mark.rule("S02", "C10", "C12")
def test_what_is_reserved_is_shown_and_outside_the_capacity() -> None:
    """1/512/2 is reserved; a guest makes it 3/2560/22 and leaves it as it was; 15 CPUs at a ratio of 4 hold 60 vCPUs, not a 61st."""
    settings = NodeSettings(
        reserved_host_cpus=1, reserved_host_memory_bytes=512 * MIB, reserved_host_disk_bytes=1500 * MIB, cpu_allocation_ratio=4000
    )
    empty = World(machine(cores=8, memory=512 * GIB, disk=200 * GIB), settings)
    assert shown(empty) == (1, 512, 2)
    world, _ = granted(empty, replace(SMALL, disk_bytes=20 * GIB))
    assert shown(world) == (3, 2560, 22)
    world = world._replace(grants=())
    assert shown(world) == (1, 512, 2)
    for _ in range(30):
        world, _ = granted(world, SMALL)
    assert world.supply.free.used[VCPU] == 60
    (reason,) = refused(world, replace(SMALL, vcpus=1)).reasons
    assert (reason.code, reason.resource, reason.asked, reason.free, reason.short) == ("short", "vcpu", 1, 0, 1)


@pytest.mark.rule("N16")
def test_prefer_takes_siblings_where_it_can_and_any_thread_where_it_must() -> None:
    """With 0, 2 and 4 busy: two CPUs are 6 and 7, three are of those left, five are all that is left, six do not fit."""
    world = pinned(0, 2, 4)
    wish = Request(vcpus=2, cpu_policy="dedicated", thread_policy="prefer")
    assert granted(world, wish)[1].cpus == (6, 7)
    three = granted(world, replace(wish, vcpus=3))[1].cpus
    assert {6, 7} < set(three) < {1, 3, 5, 6, 7}
    assert granted(world, replace(wish, vcpus=5))[1].cpus == (1, 3, 5, 6, 7)
    (reason,) = refused(world, replace(wish, vcpus=6)).reasons
    assert (reason.resource, reason.cell, reason.asked, reason.free, reason.short) == ("cpu", 0, 6, 5, 1)


@pytest.mark.rule("S33", "N14", "N15")
@pytest.mark.parametrize("cells", [None, 1])
def test_shared_vcpus_and_their_limits(cells: int | None) -> None:
    """4 CPUs at a ratio of 2 hold two guests of 4 vCPUs, not a third; a guest of 5 fits at no ratio, bound to the cell or not."""
    world = World(machine(cores=2, memory=4 * GIB), replace(BARE, cpu_allocation_ratio=2000))
    guest = Request(vcpus=4, memory_bytes=2 * GIB, cells=cells)
    (reason,) = refused(world, replace(guest, vcpus=5)).reasons
    assert reason.code == "self_overcommit"
    world, first = granted(world, guest)
    assert first.amount(VCPU if cells is None else PoolId("vcpu:0")) == 4
    world, _ = granted(world, guest)
    third = refused(world, guest)
    assert {(reason.resource.partition(":")[0], reason.free) for reason in third.reasons} >= {("vcpu", 0), ("memory", 0)}
    assert isinstance(fit(guest, World(machine(cores=2), replace(BARE, cpu_allocation_ratio=1000)).with_grant(first).supply), Refusal)


@pytest.mark.rule("H2", "H3", "H4")
def test_huge_pages_of_a_given_size() -> None:
    """Two cells of 1024 pages, 64 of each reserved, hold one guest of 512 pages each; a size must divide the memory and exist."""
    kept = tuple(ReservedPages(cell=cell, size_kib=2048, count=64) for cell in (0, 1))
    world = World(machine(cells=2, memory=8 * GIB, pages={2048: 1024}), replace(BARE, reserved_huge_pages=kept))
    guest = Request(vcpus=1, memory_bytes=GIB, page_kib=2048)
    odd = refused(world, replace(guest, memory_bytes=1025 * MIB))
    assert [reason.code for reason in odd.reasons] == ["units_rule"]
    even = granted(world, replace(guest, memory_bytes=1026 * MIB))[1]
    assert even.amount(PoolId("pages:0:2048")) == 513
    assert refused(world, replace(guest, page_kib=1 << 20)).reasons[0].code == "unknown_unit"
    world, first = granted(world, guest)
    world, second = granted(world, guest)
    assert {cell.host_cell for cell in (*first.cells, *second.cells)} == {0, 1}
    third = refused(world, guest)
    assert [(reason.resource, reason.asked, reason.free, reason.short) for reason in third.reasons] == [
        ("pages:0:2048", 512, 448, 64),
        ("pages:1:2048", 512, 448, 64),
    ]
    assert "ordinary memory instead of pages of 2 MiB" in third.fits_if
    assert world.supply.free.used.get(MEMORY, 0) == 0


NIC = Request(devices=(DeviceRequest(kind="nic"),))
VF = Request(devices=(DeviceRequest(kind="vf"),))


def card(virtual: int) -> World:
    """Return a node with one card of some virtual functions, the card itself grantable too."""
    return World(replace(machine(), devices=sriov(virtual)), replace(BARE, device_kinds=("nic", "vf")))


def free_devices(world: World) -> tuple[int, int]:
    """Return how many cards and virtual functions could be had at once, each for itself."""
    counts = []
    for kind in ("nic", "vf"):
        fitting = [n for n in range(1, 5) if isinstance(fit(Request(devices=(DeviceRequest(kind=kind, count=n),)), world.supply), Grant)]
        counts.append(max(fitting, default=0))
    return counts[0], counts[1]


@pytest.mark.rule("S37", "P8")
def test_a_card_and_its_virtual_functions_exclude_each_other() -> None:
    """While a virtual function is held its card is not to be had, and the other way round; given back, all are free again."""
    world = card(3)
    assert free_devices(world) == (1, 3)
    two, first = granted(world, Request(devices=(DeviceRequest(kind="vf", count=2),)))
    assert free_devices(two) == (0, 1)
    assert refused(two, NIC).reasons[0].resource == "device:nic"
    three, last = granted(two, VF)
    assert free_devices(three) == (0, 0)
    assert not {row.unit for row in first.units} & {row.unit for row in last.units}
    assert free_devices(three._replace(grants=three.grants[:1])) == (0, 1)
    whole, _ = granted(world, NIC)
    assert free_devices(whole) == (0, 0)
    assert free_devices(whole._replace(grants=())) == (1, 3)


@pytest.mark.rule("S38", "W8", "W23")
def test_a_request_that_gets_not_all_its_devices_gets_none() -> None:
    """A free function beside an impossible device, or a card with its only function: refused, and everything is as free as before."""
    world = card(3)
    supply = world.supply
    both = Request(devices=(DeviceRequest(kind="vf"), DeviceRequest(kind="gpu")))
    assert [reason.resource for reason in refused(world, both).reasons] == ["device:gpu"]
    assert free_devices(world) == (1, 3)
    assert world.supply == supply
    only = card(1)
    (reason,) = refused(only, Request(devices=(*NIC.devices, *VF.devices))).reasons
    assert (reason.code, reason.resource, reason.asked, reason.free) == ("excluded", "device:nic+vf", 2, 1)
    assert free_devices(only) == (1, 1)


@pytest.mark.rule("S45", "C10", "X6")
def test_capacity_that_shrank_is_shown_and_never_clamped() -> None:
    """32 vCPUs on 16 CPUs after the ratio fell from 4 to 1: one more is 17 short, less is no worse, and with 15 held one fits."""
    world = World(machine(cores=8), replace(BARE, cpu_allocation_ratio=1000)).with_grant(amounts(vcpu=32))
    (reason,) = refused(world, Request(vcpus=1)).reasons
    assert (reason.asked, reason.free, reason.short) == (1, -16, 17)
    stock = world.supply.layout.inventories(world.supply.free)[0]
    assert (stock.used, stock.capacity) == (32, 16)
    assert stock.admits(32, 30)
    assert not stock.admits(30, 31)
    granted(world._replace(grants=()).with_grant(amounts(vcpu=15)), Request(vcpus=1))


@pytest.mark.rule("C10")
def test_a_dedicated_cpu_leaves_the_shared_set_unless_sharers_would_exceed_the_ratio() -> None:
    """8 CPUs at 1.5 with 9 shared vCPUs give two CPUs away, not three; at an existing overage none; without sharers all."""
    settings = replace(BARE, cpu_allocation_ratio=1500)
    world = World(machine(cores=4), settings).with_grant(amounts(vcpu=9))
    own = Request(vcpus=2, cpu_policy="dedicated")
    taken, _ = granted(world, own)
    (reason,) = refused(taken, replace(own, vcpus=1)).reasons
    assert (reason.resource, reason.asked, reason.free) == ("cpu", 1, 0)
    refused(World(machine(cores=4), settings).with_grant(amounts(vcpu=13)), replace(own, vcpus=1))
    granted(World(machine(cores=4), settings), replace(own, vcpus=8))
    refused(taken, Request(vcpus=1))


@pytest.mark.rule("C11")
def test_the_units_of_a_class_are_kept() -> None:
    """An amount below the smallest, above the largest or off the step is refused with the rule; others fit."""
    stock = Inventory(resource_class=ResourceClass("CUSTOM_X"), total=20, min_unit=2, max_unit=8, step_size=2)
    world = World(machine(), replace(BARE, inventories=(stock,)))
    for amount, fits in ((1, False), (2, True), (3, False), (8, True), (10, False)):
        wish = Request(resources=(ResourceAmount(resource_class=ResourceClass("CUSTOM_X"), amount=amount),))
        answer = fit(wish, world.supply)
        assert isinstance(answer, Grant) == fits
        if isinstance(answer, Refusal):
            assert [reason.code for reason in answer.reasons] == ["units_rule"]
    other = Request(resources=(ResourceAmount(resource_class=ResourceClass("CUSTOM_Y"), amount=1),))
    assert [reason.code for reason in refused(world, other).reasons] == ["no_class"]


@pytest.mark.rule("W13")
@pytest.mark.parametrize(
    "world",
    [
        World(Machine(), BARE),
        World(Machine(cells=(Cell(id=0, memory_bytes=GIB),)), BARE),
        World(machine(), replace(BARE, cpu_policy="split", cpu_shared_set=tuple(range(8)))),
        World(machine(), replace(BARE, reserved_host_cpus=8)),
    ],
)
def test_dedicated_cpus_where_there_are_none_are_refused_with_a_reason(world: World) -> None:
    """A node without CPUs for dedicated use refuses them, and says so; it never gives an unpinned guest instead."""
    reasons = refused(world, Request(vcpus=1, cpu_policy="dedicated")).reasons
    assert [(reason.code, reason.resource, reason.asked, reason.free, reason.short) for reason in reasons] == [("short", "cpu", 1, 0, 1)]


@pytest.mark.rule("W12")
def test_nodes_without_memory_pages_or_cells_get_answers() -> None:
    """Cells without memory, without pages, without CPUs, and a node without cells: an answer each time, never a crash."""
    bare = Machine(cpus=(Cpu(id=0, core=0, cell=0), Cpu(id=1, core=1, cell=0)))
    dry = Machine(cpus=bare.cpus, cells=(Cell(id=0, cpus=(0, 1)), Cell(id=5, memory_bytes=GIB)))
    own = Request(vcpus=1, cpu_policy="dedicated")
    for host in (Machine(), bare, dry):
        for wish in (
            own,
            replace(own, memory_bytes=MIB),
            Request(vcpus=1, memory_bytes=MIB),
            replace(own, memory_bytes=2 * MIB, page_kib=2048),
        ):
            answer = fit(wish, World(host, BARE).supply)
            expected = (
                host is not Machine() and bool(host.cpus) and (not wish.memory_bytes or (host is dry and wish.cpu_policy == "shared"))
            )
            assert isinstance(answer, Grant) == expected
    far = granted(World(dry, BARE), Request(memory_bytes=MIB, page_kib=4))[1]
    assert far.cells[0].host_cell == 5


@pytest.mark.rule("W26")
def test_floating_and_bound_guests_share_one_memory() -> None:
    """Memory that floats and memory that is bound to a cell are counted together, less what is kept for the host."""
    world = World(machine(cells=2, memory=2 * GIB), replace(BARE, reserved_host_memory_bytes=GIB))
    world, _ = granted(world, Request(vcpus=1, memory_bytes=2 * GIB))
    bound = Request(vcpus=1, cpu_policy="dedicated", memory_bytes=GIB + 1)
    (reason,) = refused(world, bound).reasons
    assert (reason.resource, reason.asked, reason.free) == ("memory", GIB + 4096, GIB)
    world, grant = granted(world, replace(bound, memory_bytes=GIB))
    assert grant.amount(PoolId("pages:0:4")) == GIB // 4096
    assert [reason.free for reason in refused(world, Request(memory_bytes=1)).reasons] == [0]


def test_huge_pages_are_not_ordinary_memory_a_second_time() -> None:
    """2 GiB of which 1 GiB is huge pages has 1 GiB for ordinary use, and a cgroup limit caps that further."""
    host = machine(memory=2 * GIB, pages={2048: 512})
    assert [reason.free for reason in refused(World(host, BARE), Request(memory_bytes=GIB + 1)).reasons] == [GIB]
    capped = World(replace(host, memory_limit_bytes=300 * MIB), BARE)
    assert [reason.free for reason in refused(capped, Request(memory_bytes=GIB)).reasons] == [300 * MIB]
    granted(capped, Request(memory_bytes=GIB, page_kib=2048))


def test_cpu_zeros_core_is_handed_out_last_and_cpu_zero_at_the_very_end() -> None:
    """Single CPUs come from other cores first, on either cell; then CPU 0's sibling, then CPU 0."""
    world = World(machine(cells=2, cores=2), BARE)
    got: list[int] = []
    for _ in range(8):
        world, grant = granted(world, Request(vcpus=1, cpu_policy="dedicated"))
        got += grant.cpus
    assert got[-2:] == [1, 0]
    assert sorted(got) == list(range(8))


def test_partly_taken_cores_are_used_up_before_whole_ones_are_broken() -> None:
    """Of cores with four threads, three free here and one free there, each wish takes the core that fits it best."""
    world = World(machine(cores=4, threads=4), BARE).with_grant(units([4, 8, 9, 10]))
    own = Request(vcpus=1, cpu_policy="dedicated")
    assert granted(world, own)[1].cpus == (11,)
    assert granted(world, replace(own, vcpus=2))[1].cpus == (5, 6)
    assert granted(world, replace(own, vcpus=3))[1].cpus == (5, 6, 7)
    assert granted(world, replace(own, vcpus=5))[1].cpus == (11, 12, 13, 14, 15)


def test_a_cell_where_nothing_is_broken_comes_before_a_fuller_one() -> None:
    """One CPU goes to the cell that has a half-taken core, although the other cell has less left; spread looks at what is left."""
    world = World(machine(cells=3), BARE).with_grant(units([8, 16, 17, 18, 19]))
    own = Request(vcpus=1, cpu_policy="dedicated")
    assert granted(world, own)[1].cpus == (9,)
    assert granted(world, replace(own, placement="spread"))[1].cells[0].host_cell == 0


def test_vcpus_that_are_neighbours_are_siblings() -> None:
    """VCPU 0 and 1 lie on one core and 2 and 3 on the next, also where the kernel numbers siblings far apart."""
    cpus = tuple(Cpu(id=n, core=n % 4, cell=0) for n in range(8))
    world = World(Machine(cpus=cpus, cells=(Cell(id=0, cpus=tuple(range(8))),)), BARE)
    _, grant = granted(world, Request(vcpus=4, cpu_policy="dedicated"))
    assert [(pin.vcpu, pin.cpu) for pin in grant.cells[0].pins] == [(0, 1), (1, 5), (2, 2), (3, 6)]


def test_pack_fills_the_fullest_cell_and_spread_the_emptiest() -> None:
    """With two CPUs of cell 1 taken, pack goes to cell 1 and spread to cell 2; equal cells go by their number."""
    world = World(machine(cells=3), BARE).with_grant(units([8, 9]))
    wish = Request(vcpus=2, cpu_policy="dedicated")
    assert granted(world, wish)[1].cells[0].host_cell == 1
    assert granted(world, replace(wish, placement="spread"))[1].cells[0].host_cell == 0
    elsewhere = world.with_grant(units([2]))
    assert granted(elsewhere, replace(wish, placement="spread"))[1].cells[0].host_cell == 2


def test_a_device_draws_the_cpus_to_its_cell() -> None:
    """Where CPUs fit on either cell, the one with the wished device is taken, and of devices the one on that cell."""
    devices = (*sriov(1, port=1, cell=0), *sriov(2, port=2, cell=1))
    world = World(replace(machine(cells=2), devices=devices), NodeSettings())
    wish = Request(vcpus=2, cpu_policy="dedicated", devices=(DeviceRequest(kind="vf", count=2),))
    grant = granted(world, wish)[1]
    assert grant.cells[0].host_cell == 1
    assert [row.unit for row in grant.units if row.use == "device"] == ["pci:0000:02:02.0", "pci:0000:02:02.1"]
    floating = granted(world, Request(devices=(DeviceRequest(kind="vf", count=2),)))[1]
    assert [row.unit for row in floating.units] == ["pci:0000:02:02.0", "pci:0000:02:02.1"]


def test_cordoned_units_get_no_new_grants() -> None:
    """A cordoned CPU is neither given away nor shared; a cordoned function blocks its card, a cordoned card its functions."""
    world = World(machine(cores=1), BARE, blocked_cpus=mask_of([1]))
    assert granted(world, Request(vcpus=1, cpu_policy="dedicated"))[1].cpus == (0,)
    assert {reason.free for reason in refused(world, Request(vcpus=2)).reasons if reason.code == "short"} == {1}
    assert free_devices(card(2)._replace(blocked_units=frozenset({UnitId("pci:0000:00:02.0")}))) == (0, 1)
    assert free_devices(card(2)._replace(blocked_units=frozenset({UnitId("pci:0000:00:00.0")}))) == (0, 0)


def test_traits_are_compared_with_the_machines() -> None:
    """A required trait that is absent and a forbidden one that is there are reasons."""
    host = replace(machine(), traits=("HW_A",))
    wish = Request(vcpus=1, required_traits=("HW_A", "HW_B"), forbidden_traits=("HW_A",)[:0])  # type: ignore[arg-type]  # plain text for a NewType
    assert [reason.resource for reason in refused(World(host, BARE), wish).reasons] == ["trait:HW_B"]
    other = replace(wish, required_traits=(), forbidden_traits=("HW_A",))
    assert [reason.resource for reason in refused(World(host, BARE), other).reasons] == ["trait:HW_A"]


def test_a_refusal_names_everything_that_is_short_and_what_would_fit() -> None:
    """CPUs on each cell, disk and devices are named at once; the hints name an amount that does fit."""
    world = World(machine(cells=2, disk=GIB), BARE).with_grant(units([2, 3]))
    answer = refused(world, Request(vcpus=9, cpu_policy="dedicated", disk_bytes=2 * GIB, devices=(DeviceRequest(kind="gpu"),)))
    found: list[tuple[str, int | None, int]] = [(reason.resource, reason.cell, reason.short) for reason in answer.reasons]
    assert found == [("disk:root", None, GIB), ("device:gpu", None, 1), ("cpu", 0, 3), ("cpu", 1, 1)]
    assert answer.fits_if == ()
    alone = refused(world, Request(vcpus=9, cpu_policy="dedicated"))
    assert alone.fits_if == ("8 vCPUs instead of 9", "shared CPUs instead of dedicated ones")


def test_reasons_are_data() -> None:
    """A reason of fit has no holders yet, and its numbers add up."""
    reasons = refused(pinned(0), Request(vcpus=8, cpu_policy="dedicated")).reasons
    assert reasons == (
        Reason(code="short", resource="cpu", asked=8, free=7, short=1, cell=0, detail="the cell has 8 CPUs for dedicated use"),
    )
