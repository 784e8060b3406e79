"""What is proposed to those who are refused: all that changes is said, the most that fits is found, and the tries are few."""

from __future__ import annotations

import re
from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given, settings
from msgspec.structs import replace
from tests.fit.test_fit_live_proof import bound_request
from tests.fit.worlds import BARE, SEEDS, World, amounts, machine, random, random_request, random_world, sriov, units

from earmark.core.fit.differences import difference
from earmark.core.fit.fit import answered, fit, has_room
from earmark.core.fit.hints import TRIES_MAX, Proposal, merged, proposals
from earmark.core.fit.request import check_request
from earmark.core.flavor.flavor import Flavor
from earmark.core.flavor.translate import translate
from earmark.core.model.grant import Grant
from earmark.core.model.ids import ResourceClass, UnitId
from earmark.core.model.inventory import Inventory
from earmark.core.model.refusal import Refusal
from earmark.core.model.request import Affinity, CpuPolicy, DeviceRequest, GuestCell, GuestTopology, Request, ResourceAmount, ThreadPolicy
from earmark.core.model.topology import Cell, Cpu, Device, Machine
from earmark.core.model.units import GIB, MIB, TIB, exact_bytes

EIGHT = World(machine(cores=8, threads=1, memory=16 * GIB, pages={2048: 128, 1 << 20: 2}, disk=200 * GIB), BARE)
"""One cell of eight CPUs, 13.75 GiB, 128 pages of 2 MiB and two of 1 GiB."""
EIGHT_IN_TWO = World(machine(cells=2, cores=4, threads=1), BARE)
OWN = Request(vcpus=2, cpu_policy="dedicated")
WORDS: dict[str, Callable[[Request, Request], str]] = {
    "vcpus": lambda _, after: rf"(^|\D){after.vcpus} vCPUs? instead of|in guest cell|in each guest cell",
    "cpu_policy": lambda before, after: f"{after.cpu_policy} CPUs instead of {before.cpu_policy}",
    "thread_policy": lambda before, after: f"thread policy {after.thread_policy or before.thread_policy}",
    "emulator_policy": lambda before, after: f"emulator policy {after.emulator_policy or before.emulator_policy}",
    "dedicated_vcpus": lambda before, after: "dedicated" if after.cpu_policy == before.cpu_policy else "shared CPUs instead of mixed",
    "realtime_vcpus": lambda _, after: "real-time",
    "memory_bytes": lambda _, after: f"{exact_bytes(after.memory_bytes)} of memory instead of|of memory instead of .* in guest cell",
    "page_kib": lambda _, after: "ordinary memory instead of" if after.page_kib is None else "pages of any size instead of",
    "locked_memory": lambda *_: "not locked",
    "cells": lambda _, after: f"{after.cells} (equal )?guest cell",
    "guest_cells": lambda *_: "guest cell|shared CPUs instead of",
    "topology": lambda *_: "without .*its topology",
    "disk_bytes": lambda _, after: f"{exact_bytes(after.disk_bytes)} of disk instead of",
    "resources": lambda before, _: "|".join(item.resource_class for item in before.resources),
    "devices": lambda before, _: "|".join([*(wish.alias or wish.kind for wish in before.devices), "devices wherever they are"]),
}
"""What the text of a proposal says at least, for each field of the request that differs."""


def proposed(request: Request, world: World) -> tuple[Proposal, ...]:
    """Return what is proposed to a refused request, as text and as request."""
    supply = world.supply
    answer = fit(request, supply)
    assert isinstance(answer, Refusal)
    found = proposals(request, supply, answer.reasons, lambda other: isinstance(answered(other, supply), Grant))
    assert tuple(each.text for each in found) == answer.fits_if
    return tuple(found)


def texts(request: Request, world: World) -> tuple[str, ...]:
    """Return what is proposed to a refused request, in words."""
    return tuple(each.text for each in proposed(request, world))


def rich(rnd: Random) -> Request:
    """Return a request with what hangs on others: real-time vCPUs, locked memory, a topology, odd memory."""
    request = bound_request(rnd) if rnd.random() < 0.7 else random_request(rnd)
    real = tuple(range(rnd.randint(0, request.vcpus))) if request.cpu_policy == "dedicated" and rnd.random() < 0.4 else ()
    if request.cpu_policy == "mixed" and rnd.random() < 0.4:
        real = request.dedicated_vcpus
    memory = request.memory_bytes
    if memory and not request.guest_cells and request.cells in (None, 1) and rnd.random() < 0.3:
        memory += rnd.choice((1, MIB))
    return replace(
        request,
        realtime_vcpus=real,
        memory_bytes=memory,
        locked_memory=request.page_kib is not None and rnd.random() < 0.5,
        topology=GuestTopology(sockets=request.vcpus) if request.vcpus and rnd.random() < 0.3 else None,
    )


@settings(max_examples=200)
@given(SEEDS)
def test_each_proposal_says_every_field_that_it_changes_and_fits(seed: int) -> None:
    """The request that a proposal stands for is without contradiction and fits, and no field of it differs that the text does not name."""
    rnd = random(seed)
    world, request = random_world(rnd), rich(rnd)
    if isinstance(fit(request, world.supply), Grant):
        return
    sizes = []
    for text, other in proposed(request, world):
        check_request(other)
        assert isinstance(answered(other, world.supply), Grant), text
        changed = [name for name in Request.__struct_fields__ if getattr(request, name) != getattr(other, name)]
        assert changed
        for name in changed:
            assert re.search(WORDS[name](request, other), text), (name, text, request, other)
        sizes.append(difference(request, other).size)
    assert sizes == sorted(sizes)


@settings(max_examples=150)
@given(SEEDS)
def test_the_most_vcpus_that_fit_are_found(seed: int) -> None:
    """On small nodes, where every number is tried, no number of vCPUs between the one proposed and the one asked for fits."""
    rnd = random(seed)
    world = random_world(rnd)
    threads: tuple[ThreadPolicy | None, ...] = (None, "isolate", "isolate", "require", "require-strict")
    policy: CpuPolicy = rnd.choice(("dedicated", "dedicated", "mixed", "shared"))
    cells = rnd.choice((None, None, 1, 2))
    request = Request(
        vcpus=rnd.randint(2, 8) if cells != 2 else rnd.choice((2, 4, 6, 8, 10)),
        cpu_policy=policy,
        dedicated_vcpus=(0,) if policy == "mixed" else (),
        thread_policy=rnd.choice(threads) if policy != "shared" else None,
        emulator_policy=rnd.choice((None, "isolate")) if policy != "shared" else None,
        memory_bytes=rnd.choice((0, 2 * MIB)),
        cells=cells,
    )
    supply = world.supply
    answer = fit(request, supply)
    if isinstance(answer, Grant) or not any(
        reason.resource.partition(":")[0] in ("cpu", "vcpu", "cores", "threads") for reason in answer.reasons
    ):
        return
    fitting = [
        count
        for count in range(cells or 1, request.vcpus, cells or 1)
        if (count > 1 or policy != "mixed") and isinstance(answered(replace(request, vcpus=count), supply), Grant)
    ]
    found = [each.request.vcpus for each in proposed(request, world) if each.request == replace(request, vcpus=each.request.vcpus)]
    assert found == fitting[-1:]


def flavor(vcpus: int, **specs: str) -> Request:
    """Return the request of a flavor with 512 MiB."""
    return translate(
        Flavor(
            vcpus=vcpus, memory_mb=512, extra_specs={name.replace("__", ":").replace("_dot_", "."): text for name, text in specs.items()}
        ),
        None,
    )


def test_memory_that_is_no_longer_locked_is_said() -> None:
    """Ordinary memory instead of huge pages drops what only pages can be, and says so; pages of any size stay locked."""
    request = flavor(2, hw__mem_page_size="2MB", hw__locked_memory="true")
    assert texts(request, EIGHT) == (
        "256 MiB of memory instead of 512 MiB",
        "pages of any size instead of pages of 2 MiB",
        "ordinary memory instead of pages of 2 MiB, not locked",
    )


def test_policies_that_shared_cpus_have_not_are_said() -> None:
    """Shared CPUs instead of dedicated ones: the policies for threads and the emulator and the real-time vCPUs go, and are named."""
    world = World(machine(cores=4, threads=2, memory=16 * GIB), BARE).with_grant(units(range(2, 7)))
    isolated = replace(OWN, thread_policy="isolate")
    assert "shared CPUs instead of dedicated ones, without thread policy isolate" in texts(isolated, world)
    all_of_it = replace(isolated, emulator_policy="isolate", realtime_vcpus=(0, 1))
    said = "shared CPUs instead of dedicated ones, without thread policy isolate, emulator policy isolate and real-time vCPUs"
    assert said in texts(all_of_it, world)


def test_which_vcpus_stay_dedicated_or_real_time_is_said() -> None:
    """Fewer vCPUs take the end of a mask with them: the proposal names those that are left of it."""
    mixed = Request(vcpus=16, cpu_policy="mixed", dedicated_vcpus=(0, 15))
    assert texts(mixed, EIGHT) == ("8 vCPUs instead of 16, vCPU 0 dedicated",)
    real = flavor(12, hw__cpu_policy="mixed", hw__cpu_realtime="yes", hw__cpu_realtime_mask="0,9")
    assert texts(real, EIGHT) == ("8 vCPUs instead of 12, vCPU 0 dedicated and real-time",)
    late = replace(mixed, dedicated_vcpus=(0, 1), realtime_vcpus=(15,), topology=GuestTopology(cores=16))
    assert texts(late, EIGHT) == ("8 vCPUs instead of 16, without real-time vCPUs and its topology",)


def test_a_list_that_is_too_long_is_not_proposed() -> None:
    """What cannot be said shortly is not said: a mask of many single vCPUs."""
    mixed = Request(vcpus=60, cpu_policy="mixed", dedicated_vcpus=tuple(range(0, 60, 2)))
    assert difference(mixed, replace(mixed, vcpus=58, dedicated_vcpus=mixed.dedicated_vcpus[:-1])).text == ""


@pytest.mark.parametrize(
    ("memory", "page", "up", "down"),
    [(129, 2048, "130 MiB of memory instead of 129 MiB", "128 MiB of memory instead of 129 MiB"),
     (1500, 1 << 20, "2 GiB of memory instead of 1500 MiB", "1 GiB of memory instead of 1500 MiB")],
)  # fmt: skip
def test_memory_that_pages_do_not_divide_is_rounded(memory: int, page: int, up: str, down: str) -> None:
    """The next whole number of pages is proposed; where that is too much, the one below; then pages of any size, then ordinary memory."""
    odd = replace(OWN, memory_bytes=memory * MIB, page_kib=page)
    said = texts(odd, EIGHT)
    assert said[0] == up
    assert [text.partition(" instead")[0] for text in said[1:]] == ["pages of any size", "ordinary memory"]
    size = page * 1024
    free = 2 if page == 1 << 20 else 128
    short = EIGHT.with_grant(amounts(**{f"pages__0__{page}": free - memory * MIB // size}))
    assert down in texts(odd, short)
    assert up not in texts(odd, short)


def test_memory_of_guest_cells_that_pages_do_not_divide_is_rounded() -> None:
    """Each cell of the guest gets a whole number of pages, whether they are alike or described one by one."""
    world = World(machine(cells=2, cores=4, threads=1, memory=4 * GIB, pages={2048: 128}), BARE)
    even = replace(OWN, memory_bytes=6 * MIB, page_kib=2048, cells=2)
    assert texts(even, world)[0] == "8 MiB of memory instead of 6 MiB"
    cells = (GuestCell(vcpus=(0,), memory_bytes=3 * MIB), GuestCell(vcpus=(1,), memory_bytes=4 * MIB))
    own = replace(OWN, memory_bytes=7 * MIB, page_kib=2048, guest_cells=cells)
    assert texts(own, world)[0] == "4 MiB of memory instead of 3 MiB in guest cell 0"


def three_cells() -> Machine:
    """Return a machine of unlike cells: four cores of four threads, two cores of one, four cores of one; 2 GiB each."""
    cpus = [Cpu(id=n, core=n - n % 4, cell=0) for n in range(16)]
    cpus += [Cpu(id=n, core=n, cell=1 if n < 18 else 2) for n in range(16, 22)]
    rows = [Cell(id=each, cpus=tuple(cpu.id for cpu in cpus if cpu.cell == each), memory_bytes=2 * GIB) for each in range(3)]
    return Machine(cpus=tuple(cpus), cells=tuple(rows))


@pytest.mark.parametrize(
    ("world", "request_", "count"),
    [
        (World(machine(cells=2, cores=1, threads=2, memory=8 * GIB), BARE), Request(vcpus=6, cpu_policy="dedicated", thread_policy="isolate", memory_bytes=64 * MIB), 1),
        (World(machine(cores=1, threads=4), BARE), Request(vcpus=6, cpu_policy="mixed", dedicated_vcpus=(0, 1), emulator_policy="isolate", memory_bytes=128 * MIB), 3),
        (World(three_cells(), BARE).with_grant(amounts(vcpu=7)).with_grant(units((18, 19))), Request(vcpus=6, cpu_policy="dedicated", thread_policy="isolate", memory_bytes=64 * MIB), 3),
        (World(machine(cores=40, threads=2), BARE).with_grant(amounts(vcpu=37)), Request(vcpus=80, cpu_policy="dedicated", thread_policy="isolate"), 21),
    ],
)  # fmt: skip
def test_the_largest_number_that_fits_is_proposed(world: World, request_: Request, count: int) -> None:
    """Neither thread policies nor an emulator CPU nor those who share keep the largest number of vCPUs from being found."""
    assert texts(request_, world)[0] == f"{count} vCPU{'s' * (count > 1)} instead of {request_.vcpus}"


def test_strict_threads_may_become_preferred_ones() -> None:
    """On cores of one thread neither require-strict nor require can be had: prefer is proposed at once."""
    strict = replace(OWN, thread_policy="require-strict")
    assert "thread policy prefer instead of require-strict" in texts(strict, EIGHT)


TWO_GPUS = World(
    replace(EIGHT.machine, devices=tuple(Device(unit=UnitId(f"pci:{n}"), kind="gpu", address=f"0000:0{n}:00.0", cell=0) for n in range(2))),
    replace(BARE, device_kinds=("gpu",)),
)


@pytest.mark.parametrize(
    ("wishes", "words"),
    [
        (((1, "gpu"), (3, "gpu")), ("1 gpu device instead of 3",)),
        (((3, "gpu"), (3, "gpu")), ("1 and 1 gpu devices instead of 3 and 3",)),
        (((1, "gpu"), (1, "gpu"), (1, "gpu")), ("without 1 gpu",)),
        (((1, "nvme"),), ("without nvme",)),
        (((1, "nvme"), (1, "fpga"), (1, "gpu")), ("without nvme and fpga",)),
        (((1, "nvme"), (3, "gpu")), ("2 gpu devices instead of 3, without nvme",)),
        (((1, "nvme"), (8, "gpu")), ("2 gpu devices instead of 8, without nvme",)),
    ],
)
def test_what_is_free_is_shared_out_over_wishes(wishes: tuple[tuple[int, str], ...], words: tuple[str, ...]) -> None:
    """Wishes for one kind share what is free of it; a device of which the node has none is left out."""
    request = replace(OWN, devices=tuple(DeviceRequest(kind=kind, count=count) for count, kind in wishes))
    assert texts(request, TWO_GPUS) == words


def test_a_class_that_the_node_has_not_is_left_out() -> None:
    """A resource class without an inventory is proposed to be left out, one that is short to be less."""
    stock = Inventory(resource_class=ResourceClass("CUSTOM_X"), total=4)
    world = EIGHT._replace(settings=replace(BARE, inventories=(stock,)))
    wish = [ResourceAmount(resource_class=ResourceClass(f"CUSTOM_{name}"), amount=6) for name in "XY"]
    assert texts(replace(OWN, resources=(wish[1],)), world) == ("without CUSTOM_Y",)
    assert texts(replace(OWN, resources=(wish[0],)), world) == ("4 of CUSTOM_X instead of 6",)
    full = world.with_grant(amounts(class__CUSTOM_X=4))
    assert texts(replace(OWN, resources=(wish[0],)), full) == ("without CUSTOM_X",)


def test_guest_cells_that_are_named_by_hand_may_be_fewer() -> None:
    """A guest that says what each of its cells has may have one instead, or equal ones."""
    by_hand = flavor(4, hw__cpu_policy="dedicated", hw__numa_nodes="2", hw__numa_cpus_dot_0="0,1,2", hw__numa_cpus_dot_1="3",
                     hw__numa_mem_dot_0="384", hw__numa_mem_dot_1="128")  # fmt: skip
    assert "1 guest cell instead of 2" in texts(by_hand, EIGHT)
    small = World(machine(cells=2, cores=2, threads=1), replace(BARE, cpu_policy="split", cpu_dedicated_set=(0, 1, 2, 3)))
    assert "2 equal guest cells instead of unlike ones" in texts(by_hand, small)


def test_several_guest_cells_that_are_too_large_are_made_smaller() -> None:
    """Where it does not help to make one cell of the guest smaller, each is as small as the host cell that is left for it, the largest first."""
    world = World(machine(cells=2, cores=4, threads=1), BARE).with_grant(units((7,)))
    cells = (GuestCell(vcpus=tuple(range(5))), GuestCell(vcpus=tuple(range(5, 11))))
    own = Request(vcpus=11, cpu_policy="dedicated", guest_cells=cells)
    assert texts(own, world) == ("3 vCPUs instead of 5 in guest cell 0 and 4 vCPUs instead of 6 in guest cell 1",)
    even = Request(vcpus=10, cpu_policy="dedicated", guest_cells=(GuestCell(vcpus=tuple(range(5))), GuestCell(vcpus=tuple(range(5, 10)))))
    assert texts(even, EIGHT_IN_TWO) == ("4 vCPUs instead of 5 in each guest cell",)
    threes = tuple(GuestCell(vcpus=tuple(range(first, first + 3)), memory_bytes=512 * MIB) for first in (0, 3, 6))
    small = World(machine(cells=3, cores=3, threads=1), BARE).with_grant(units((0, 3)))
    assert texts(Request(vcpus=9, cpu_policy="dedicated", memory_bytes=1536 * MIB, guest_cells=threes), small) == (
        "2 vCPUs instead of 3 in guest cells 1-2",
    )


def test_several_guest_cells_with_too_much_memory_are_made_smaller() -> None:
    """Where every cell of the guest has more memory than any host cell, all of them have what is free."""
    cells = tuple(GuestCell(vcpus=(vcpu,), memory_bytes=64 * GIB) for vcpu in range(2))
    large = Request(vcpus=2, cpu_policy="dedicated", memory_bytes=128 * GIB, guest_cells=cells)
    (text,) = texts(large, EIGHT_IN_TWO)
    assert text.endswith(" of memory instead of 64 GiB in each guest cell")


@pytest.mark.parametrize(
    ("count", "affinity", "cells", "words"),
    [
        (25, "required", 1, ("6 vf devices instead of 25",)),
        (25, "required", 2, ("10 vf devices instead of 25",)),
        (25, "legacy", 1, ("11 vf devices instead of 25",)),
        (25, "preferred", 1, ("15 vf devices instead of 25",)),
    ],
)
def test_of_devices_near_the_guest_as_many_are_proposed_as_there_are(
    count: int, affinity: Affinity, cells: int, words: tuple[str, ...]
) -> None:
    """More devices than a node has, near a guest of some cells: it is proposed how many there are near so many, in few tries."""
    spread = tuple(
        device for port, (number, cell) in enumerate(((6, 0), (4, 1), (5, None))) for device in sriov(number, port=port, cell=cell)
    )
    world = World(replace(EIGHT_IN_TWO.machine, devices=spread), replace(BARE, device_kinds=("vf",)))
    wish = DeviceRequest(kind="vf", count=count, affinity=affinity)
    asked = Request(vcpus=2, cpu_policy="dedicated", cells=cells, devices=(wish,))
    refusal = answered(asked, world.supply)
    assert isinstance(refusal, Refusal)
    tried: list[Request] = []

    def fits(other: Request) -> bool:
        tried.append(other)
        return has_room(other, world.supply)

    assert tuple(each.text for each in proposals(asked, world.supply, refusal.reasons, fits)) == words
    assert len(tried) <= 5, "the bound is exact, so nothing is halved"


def test_two_things_that_are_short_are_changed_together() -> None:
    """Where no single change does, one is proposed that changes both: CPUs and memory, memory and disk, also in guests with cells of their own."""
    assert texts(Request(vcpus=20, cpu_policy="dedicated", memory_bytes=64 * GIB), EIGHT) == (
        "8 vCPUs instead of 20 and 14080 MiB of memory instead of 64 GiB",
    )
    assert texts(Request(vcpus=20, memory_bytes=64 * GIB), EIGHT) == ("8 vCPUs instead of 20 and 14080 MiB of memory instead of 64 GiB",)
    disk = replace(OWN, memory_bytes=64 * GIB, disk_bytes=TIB)
    assert texts(disk, EIGHT) == ("14080 MiB of memory instead of 64 GiB and 200 GiB of disk instead of 1 TiB",)
    cells = (GuestCell(vcpus=tuple(range(9)), memory_bytes=512 * MIB),)
    own = Request(vcpus=9, cpu_policy="dedicated", memory_bytes=512 * MIB, page_kib=2048, guest_cells=cells)
    assert texts(own, EIGHT) == ("8 vCPUs instead of 9 and 256 MiB of memory instead of 512 MiB in guest cell 0",)


def test_merged_requests_keep_both_changes() -> None:
    """What one request changes in a guest's cells and what another does stand side by side."""
    one = GuestCell(vcpus=(0, 1), memory_bytes=2 * GIB)
    base = replace(OWN, memory_bytes=2 * GIB, guest_cells=(one,))
    fewer = replace(base, vcpus=1, guest_cells=(replace(one, vcpus=(0,)),))
    less = replace(base, memory_bytes=GIB, guest_cells=(replace(one, memory_bytes=GIB),))
    assert merged(base, fewer, less) == replace(base, vcpus=1, memory_bytes=GIB, guest_cells=(GuestCell(vcpus=(0,), memory_bytes=GIB),))


def test_sizes_are_said_in_the_largest_unit() -> None:
    """The memory that is no whole number of pages and the disk that was asked for are said as a person writes them."""
    odd = fit(replace(OWN, memory_bytes=129 * MIB, page_kib=2048), EIGHT.supply)
    assert isinstance(odd, Refusal)
    assert odd.reasons[0].detail == "129 MiB are not a whole number of pages of 2 MiB"
    assert texts(Request(disk_bytes=1000 * TIB), EIGHT) == ("200 GiB of disk instead of 1000 TiB",)
    assert [exact_bytes(size) for size in (0, 4097, 4096, 3 * MIB)] == ["0 bytes", "4097 bytes", "4 KiB", "3 MiB"]


def test_the_tries_are_bounded() -> None:
    """However much is asked for, no more than TRIES_MAX requests are tried."""
    world = World(machine(cells=4, cores=64, threads=2, memory=16 * GIB, pages={2048: 64}), BARE)
    wishes = tuple(DeviceRequest(kind="nvme", count=8, affinity="required", linked=True, memory_bytes=GIB) for _ in range(32))
    request = Request(
        vcpus=1024, cpu_policy="dedicated", thread_policy="require-strict", emulator_policy="isolate", memory_bytes=TIB + MIB, page_kib=2048, devices=wishes
    )  # fmt: skip
    tried: list[Request] = []

    def never(other: Request) -> bool:
        tried.append(other)
        return False

    answer = fit(request, world.supply)
    assert isinstance(answer, Refusal)
    assert proposals(request, world.supply, answer.reasons, never) == []
    assert 0 < len(tried) <= TRIES_MAX
