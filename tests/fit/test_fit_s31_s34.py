"""Mixed CPUs and emulator threads, thread policies, huge pages: the scenarios S31, S32 and S34, figure by figure."""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from tests.fit.worlds import BARE, World, machine, units

from earmark.core.fit.fit import fit
from earmark.core.ledger.allocations import allocations
from earmark.core.model.grant import Grant
from earmark.core.model.ids import PoolId
from earmark.core.model.node import NodeSettings, ReservedPages
from earmark.core.model.refusal import Refusal
from earmark.core.model.request import Request, ThreadPolicy
from earmark.core.model.units import GIB, MIB
from earmark.testing import bench

SPLIT = NodeSettings(cpu_policy="split", cpu_shared_set=(0, 1, 2, 3), cpu_dedicated_set=(4, 5, 6, 7), reserved_host_memory_bytes=0)


def own(vcpus: int, threads: ThreadPolicy | None = None, *, emulator: bool = False) -> Request:
    """Return a guest with CPUs of its own."""
    return Request(vcpus=vcpus, cpu_policy="dedicated", thread_policy=threads, emulator_policy="isolate" if emulator else None)


def cpus(grant: Grant, *uses: str) -> set[int]:
    """Return the CPUs that a grant has for some uses, all of them if none is named."""
    return {int(row.unit[4:]) for row in grant.units if row.unit.startswith("cpu:") and (row.use in uses or not uses)}


def granted(world: World, request: Request) -> tuple[World, Grant]:
    """Return the world with a request granted, which must fit, and the grant."""
    answer = fit(request, world.supply)
    assert isinstance(answer, Grant), answer
    return world.with_grant(answer), answer


@pytest.mark.rule("S31", "N6", "N19", "C13")
def test_s31_mixed_and_emulator() -> None:
    """A mixed guest takes two shared and two dedicated CPUs; three dedicated of two left are refused; an emulator's CPU is one more PCPU."""
    with bench("1x8c 16384M", settings=SPLIT) as world:
        mixed = Request(vcpus=4, cpu_policy="mixed", dedicated_vcpus=(0, 1), memory_bytes=GIB)
        first = world.tracker.hold(mixed, consumer="m", confirm=True)
        assert not isinstance(first, Refusal)
        state = world.tracker.node()
        assert state.free.used[PoolId("vcpu:0")] == 2
        assert state.free.taken_cpus == 0b110000
        told = dict(allocations([state], [])[0].amounts)
        assert (told["VCPU"], told["PCPU"]) == (2, 2)
        refused = world.tracker.hold(own(2, emulator=True), consumer="r", confirm=True)
        assert isinstance(refused, Refusal)
        assert [(reason.resource, reason.asked, reason.free) for reason in refused.reasons] == [("cpu", 3, 2)]
        second = world.tracker.hold(own(1, emulator=True), consumer="e", confirm=True)
        assert not isinstance(second, Refusal)
        assert second.claim is not None
        assert cpus(second.claim.grant) == {6, 7}
        assert len(cpus(second.claim.grant, "emulator")) == 1
        state = world.tracker.node()
        assert state.free.taken_cpus == 0b11110000
        amounts = {allocation.holder: dict(allocation.amounts) for allocation in allocations([state], [])}
        assert amounts["e"] == {"PCPU": 2}
        world.tracker.release("e")
        assert world.tracker.node().free.taken_cpus == 0b110000


@pytest.mark.rule("S32", "N16", "N17", "N18")
def test_s32_isolate_takes_whole_cores() -> None:
    """Two isolated vCPUs make four CPUs of two cores unavailable, two more the rest, and then there is no room for one."""
    world = World(machine(cores=4), BARE)
    for unavailable in (4, 8):
        world, grant = granted(world, own(2, "isolate"))
        assert {cpu // 2 for cpu in cpus(grant, "vcpu")} == {cpu // 2 for cpu in cpus(grant)}
        assert len({cpu // 2 for cpu in cpus(grant, "vcpu")}) == 2
        assert world.supply.free.taken_cpus.bit_count() == unavailable
    assert isinstance(fit(own(1, "isolate"), world.supply), Refusal)


@pytest.mark.rule("S32", "N16", "N17")
@pytest.mark.parametrize(
    ("vcpus", "threads", "given"),
    [
        (2, "prefer", {6, 7}), (2, "require", {6, 7}), (3, "require", None), (5, "prefer", {1, 3, 5, 6, 7}), (6, "prefer", None),
    ],
)  # fmt: skip
def test_s32_with_single_threads_busy(vcpus: int, threads: ThreadPolicy, given: set[int] | None) -> None:
    """With CPUs 0, 2 and 4 busy, each policy finds exactly what the table of S32 says."""
    supply = World(machine(cores=4), BARE).with_grant(units((0, 2, 4))).supply
    answer = fit(own(vcpus, threads), supply)
    assert (cpus(answer) if isinstance(answer, Grant) else None) == given


@pytest.mark.rule("S32", "N16")
def test_s32_prefer_three_is_three_of_the_free_ones() -> None:
    """Where no pair and a single thread are asked for together, prefer takes three of the five that are free."""
    supply = World(machine(cores=4), BARE).with_grant(units((0, 2, 4))).supply
    answer = fit(own(3, "prefer"), supply)
    assert isinstance(answer, Grant)
    assert cpus(answer) < {1, 3, 5, 6, 7}
    assert len(cpus(answer)) == 3


@pytest.mark.rule("S34", "H1", "H2", "H3")
def test_s34_huge_pages_and_those_kept_back() -> None:
    """Of 1,024 pages with 64 kept back on each of two cells, a guest of 1 GiB takes 512 of one cell, the next of the other, the third none."""
    kept = replace(
        BARE, reserved_huge_pages=(ReservedPages(cell=0, size_kib=2048, count=64), ReservedPages(cell=1, size_kib=2048, count=64))
    )
    world = World(machine(cells=2, memory=4 * GIB, pages={2048: 1024}), kept)
    wish = Request(vcpus=1, memory_bytes=GIB, page_kib=2048, placement="spread")
    cells = []
    for _ in range(2):
        world, grant = granted(world, wish)
        cells.append(grant.cells[0].host_cell)
        stock = world.supply.layout.cell[cells[-1]].pages[2048]
        assert world.supply.free.used[stock.pool] == 512
        assert stock.capacity - 512 == 448
    assert sorted(cells) == [0, 1]
    third = fit(wish, world.supply)
    assert isinstance(third, Refusal)
    assert {(reason.cell, reason.asked, reason.free) for reason in third.reasons} == {(0, 512, 448), (1, 512, 448)}


@pytest.mark.rule("S34", "H1", "H2")
def test_s34_large_pages_are_whole_and_small_ones_are_base_pages() -> None:
    """1,025 MiB are no whole number of large pages, 1,026 are 513, and `small` means the base pages of the machine."""
    supply = World(machine(memory=8 * GIB, pages={2048: 1024}), BARE).supply
    odd = fit(Request(vcpus=1, memory_bytes=1025 * MIB, page_kib="large"), supply)
    assert isinstance(odd, Refusal)
    assert "units_rule" in {reason.code for reason in odd.reasons}
    even = fit(Request(vcpus=1, memory_bytes=1026 * MIB, page_kib="large"), supply)
    assert isinstance(even, Grant)
    assert (even.cells[0].page_kib, even.amount(supply.layout.cells[0].pages[2048].pool)) == (2048, 513)
    small = fit(Request(vcpus=1, memory_bytes=1025 * MIB, page_kib="small"), supply)
    assert isinstance(small, Grant)
    assert small.cells[0].page_kib == 4
