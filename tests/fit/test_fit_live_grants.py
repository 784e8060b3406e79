"""Live grants of guests with several cells, thread policies, emulator threads, any pages and devices: each keeps its promises for ever."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from tests.fit.test_fit_live_proof import bound_request
from tests.fit.worlds import SEEDS, World, random, random_world

from earmark.core.fit.fit import fit
from earmark.core.fit.proof.judge import judge
from earmark.core.model.grant import Grant
from earmark.core.model.request import Request
from earmark.core.model.topology import Machine

Held = tuple[Request, Grant]


def cpus(grant: Grant, *uses: str) -> set[int]:
    """Return the CPUs that a grant has for some uses."""
    return {int(row.unit[4:]) for row in grant.units if row.unit.startswith("cpu:") and row.use in uses}


def cores(machine: Machine) -> list[set[int]]:
    """Return the cores of a machine."""
    found: dict[int, set[int]] = {}
    for cpu in machine.cpus:
        found.setdefault(cpu.core, set()).add(cpu.id)
    return list(found.values())


def check_threads(request: Request, grant: Grant, machine: Machine) -> None:
    """Assert what the thread policy promises about the cores of a grant."""
    used = cpus(grant, "vcpu", "emulator")
    for core in cores(machine):
        if request.thread_policy == "isolate" and core & used:
            assert len(core & used) == 1, "two threads of one core"
            assert core <= cpus(grant, "vcpu", "emulator", "withheld"), "a sibling is anybody's"
    if request.thread_policy in ("require", "require-strict"):
        for cell in grant.cells:
            pins = {pin.cpu for pin in cell.pins}
            alone = sum(len(core & pins) == 1 for core in cores(machine))
            assert alone <= (1 if request.thread_policy == "require" and len(pins) % 2 else int(request.thread_policy == "require"))


def check_cells(request: Request, grant: Grant, world: World) -> None:
    """Assert that every vCPU and byte of the guest is placed once, each guest cell on a host cell of its own and on its CPUs."""
    layout = world.supply.layout
    assert sorted([pin.vcpu for cell in grant.cells for pin in cell.pins] + [v for cell in grant.cells for v in cell.shared_vcpus]) == list(
        range(request.vcpus)
    )
    assert sum(cell.memory_bytes for cell in grant.cells) == request.memory_bytes
    assert len({cell.host_cell for cell in grant.cells}) == len(grant.cells)
    assert sum(len(cell.emulator_cpus) for cell in grant.cells) == int(request.emulator_policy == "isolate")
    for cell in grant.cells:
        for cpu in (*(pin.cpu for pin in cell.pins), *cell.emulator_cpus):
            assert layout.cell[cell.host_cell].dedicated >> cpu & 1


@settings(max_examples=200, deadline=None)
@given(SEEDS)
@pytest.mark.long
def test_grants_keep_their_promises_beside_each_other(seed: int) -> None:
    """Up to eight guests one after the other: each passes the judge, and no later one touches what an earlier one holds."""
    rnd = random(seed)
    world = random_world(rnd)
    held: list[Held] = []
    for _ in range(8):
        request = bound_request(rnd)
        answer = fit(request, world.supply)
        if isinstance(answer, Grant):
            assert judge(answer, world.supply, request) is None
            check_cells(request, answer, world)
            world = world.with_grant(answer)
            held.append((request, answer))
    for request, grant in held:
        check_threads(request, grant, world.machine)
    units = Counter(slot for _, grant in world.grants for row in grant.units for slot in row.occupied)
    assert all(count == 1 for count in units.values())
    for request, grant in held:
        if request.thread_policy != "isolate" or not world.supply.layout.exclusive:
            continue
        mine = cpus(grant, "vcpu", "emulator", "withheld")
        assert not any(mine & cpus(other, "vcpu", "emulator", "withheld") for _, other in world.grants if other is not grant)


@pytest.mark.long
def test_all_kinds_of_grants_are_among_them() -> None:
    """The random guests above are not refused all: each policy, several cells and each size of page are granted often."""
    seen: Counter[str] = Counter()
    for seed in range(3000):
        rnd = random(seed)
        world = random_world(rnd)
        request = bound_request(rnd)
        answer = fit(request, world.supply)
        if isinstance(answer, Grant):
            seen.update((request.cpu_policy, str(request.thread_policy), f"emulator {request.emulator_policy}"))
            seen.update(f"pages {cell.page_kib}" for cell in answer.cells)
            seen.update(("cells",) if len(answer.cells) > 1 else ())
            seen.update(("devices",) if request.devices else ())
    wanted = ("shared", "dedicated", "mixed", "isolate", "require", "require-strict", "emulator isolate", "pages 2048", "cells", "devices")
    assert all(seen[name] >= 5 for name in wanted), seen
