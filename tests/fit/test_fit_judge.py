"""Prescribed grants of any shape are judged: units, amounts, agreement with themselves and with the request."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from msgspec.structs import replace
from tests.fit.worlds import BARE, World, amounts, machine, requests, sriov, units, worlds

from earmark.core.fit.fit import fit
from earmark.core.fit.proof.judge import judge
from earmark.core.model.cpuset import mask_of
from earmark.core.model.exclusion import slot_table
from earmark.core.model.grant import AmountRow, Grant, GrantCell, Pin, UnitRow
from earmark.core.model.ids import PoolId, ResourceClass, Slot, UnitId
from earmark.core.model.inventory import Inventory
from earmark.core.model.refusal import Refusal
from earmark.core.model.request import DeviceRequest, Request, ResourceAmount
from earmark.core.model.units import GIB, MIB
from earmark.errors import InvalidRequest

CARD_DEVICES = sriov(2)
CARD, FIRST, SECOND = (
    UnitRow(unit=unit, use="device", slots=slots if len(slots) > 1 else ()) for unit, slots in sorted(slot_table(CARD_DEVICES).items())
)


def node() -> World:
    """Return two cells of four cores with 2 GiB, 256 huge pages, a card with two functions, a class and a disk."""
    host = replace(machine(cells=2, memory=2 * GIB, pages={2048: 256}, disk=GIB), devices=CARD_DEVICES)
    stock = Inventory(resource_class=ResourceClass("CUSTOM_X"), total=4, step_size=2)
    return World(host, replace(BARE, device_kinds=("nic", "vf"), inventories=(stock,)))


def codes(grant: Grant, world: World, request: Request | None = None) -> list[tuple[str, str]]:
    """Return code and resource of each reason against a grant."""
    refusal = judge(grant, world.supply, request)
    return [(reason.code, reason.resource) for reason in refusal.reasons] if refusal else []


TWO_CELLS = Grant(
    units=(
        *(UnitRow(unit=UnitId(f"cpu:{n}"), use="vcpu") for n in (2, 3, 10)),
        UnitRow(unit=UnitId("cpu:4"), use="emulator"),
        UnitRow(unit=UnitId("cpu:11"), use="withheld"),
        SECOND,
    ),
    amounts=(
        AmountRow(pool=PoolId("vcpu:1"), amount=1),
        AmountRow(pool=PoolId("pages:0:2048"), amount=128),
        AmountRow(pool=PoolId("pages:1:4"), amount=1024),
        AmountRow(pool=PoolId("disk:root"), amount=5),
        AmountRow(pool=PoolId("class:CUSTOM_X"), amount=2),
    ),
    cells=(
        GrantCell(
            guest_cell=0,
            host_cell=0,
            pins=(Pin(vcpu=0, cpu=2), Pin(vcpu=1, cpu=3)),
            emulator_cpus=(4,),
            memory_bytes=256 * MIB,
            page_kib=2048,
        ),
        GrantCell(guest_cell=1, host_cell=1, pins=(Pin(vcpu=2, cpu=10),), shared_vcpus=(3,), memory_bytes=4 * MIB - 1),
    ),
)


def test_a_grant_of_a_shape_that_fit_cannot_choose_yet_is_judged() -> None:
    """Two cells, mixed CPUs, an emulator CPU, a withheld sibling, pages of two sizes and a device pass together."""
    request = Request(
        vcpus=4, cpu_policy="mixed", dedicated_vcpus=(0, 1, 2), emulator_policy="isolate", thread_policy="isolate", cells=2,
        memory_bytes=260 * MIB, disk_bytes=5, devices=(DeviceRequest(kind="vf"),),
        resources=(ResourceAmount(resource_class=ResourceClass("CUSTOM_X"), amount=2),),
    )  # fmt: skip
    assert judge(TWO_CELLS, node().supply) is None
    assert judge(TWO_CELLS, node().supply, request) is None


@settings(max_examples=150)
@given(worlds(), requests())
def test_what_fit_gives_passes_and_passes_only_once(world: World, request: Request) -> None:
    """A grant that fit chose has nothing against it; once held, its units are somebody's."""
    grant = fit(request, world.supply)
    if isinstance(grant, Refusal):
        return
    assert judge(grant, world.supply, request) is None
    again = codes(grant, world.with_grant(grant))
    assert {resource for code, resource in again if code == "unit_taken"} == {row.unit for row in grant.units}


@pytest.mark.parametrize(
    ("row", "code"),
    [
        (UnitRow(unit=UnitId("cpu:99"), use="vcpu"), "unknown_unit"),
        (UnitRow(unit=UnitId("cpu:02"), use="vcpu"), "unknown_unit"),
        (UnitRow(unit=UnitId("cpu:x"), use="vcpu"), "unknown_unit"),
        (UnitRow(unit=UnitId("cpu:0"), use="vcpu"), "unit_blocked"),
        (UnitRow(unit=UnitId("cpu:5"), use="vcpu"), "unit_blocked"),
        (UnitRow(unit=UnitId("cpu:6"), use="vcpu"), "unit_taken"),
        (UnitRow(unit=UnitId("cpu:2"), use="device"), "mismatch"),
        (UnitRow(unit=UnitId("cpu:2"), use="vcpu", slots=(Slot("cpu:3"),)), "mismatch"),
        (UnitRow(unit=UnitId("pci:nowhere"), use="device"), "unknown_unit"),
        (UnitRow(unit=UnitId("named:CUSTOM_X/0"), use="device"), "unknown_unit"),
        (replace(CARD, slots=()), "mismatch"),
        (replace(FIRST, use="vcpu"), "mismatch"),
        (CARD, "excluded"),
        (FIRST, "unit_taken"),
        (SECOND, "unit_blocked"),
    ],
)
def test_a_unit_that_may_not_be_given_is_named_with_the_reason(row: UnitRow, code: str) -> None:
    """Unknown, kept for the host, cordoned, held, excluded, misused or misdescribed units are refused one by one."""
    world = node()._replace(settings=replace(node().settings, reserved_host_cpus=1), blocked_cpus=mask_of([5]))
    if row.unit not in (CARD.unit, FIRST.unit):
        world = world._replace(blocked_units=frozenset({SECOND.unit}))
    world = world.with_grant(replace(units([6]), units=(*units([6]).units, FIRST)))
    assert codes(Grant(units=(row,)), world) == [(code, row.unit)]


def test_devices_that_are_not_handed_out_on_the_node_are_blocked() -> None:
    """A known device of a kind that the settings do not list is refused, unless it is listed by name."""
    world = node()._replace(settings=replace(BARE, device_kinds=("vf",)))
    assert codes(Grant(units=(CARD,)), world) == [("unit_blocked", CARD.unit)]
    named = world._replace(settings=replace(BARE, device_kinds=(), device_units=(CARD.unit,)))
    assert codes(Grant(units=(CARD,)), named) == []


def test_a_function_that_appears_later_is_excluded_by_its_card() -> None:
    """A card that was given when it had no functions keeps those that appear afterwards from everybody else, chosen or prescribed."""
    bare = node()._replace(machine=replace(node().machine, devices=CARD_DEVICES[:1]))
    card = fit(Request(devices=(DeviceRequest(kind="nic"),)), bare.supply)
    assert isinstance(card, Grant)
    assert card.units == (UnitRow(unit=CARD.unit, use="device"),)
    later = node().with_grant(card)
    assert codes(Grant(units=(FIRST,)), later) == [("excluded", FIRST.unit)]
    assert isinstance(fit(Request(devices=(DeviceRequest(kind="vf"),)), later.supply), Refusal)
    assert codes(Grant(units=(CARD,)), node().with_grant(Grant(units=(FIRST,)))) == [("excluded", CARD.unit)]
    assert codes(Grant(units=(FIRST,)), node().with_grant(Grant(units=(CARD,)))) == [("excluded", FIRST.unit)]


def test_units_that_exclude_each_other_within_one_grant_are_found() -> None:
    """The same CPU twice, and a card beside its own function, contradict themselves."""
    twice = Grant(units=(*units([2]).units, *units([2]).units))
    assert codes(twice, node()) == [("mismatch", "cpu:2")]
    assert codes(Grant(units=(CARD, FIRST)), node()) == [("mismatch", FIRST.unit)]


@pytest.mark.rule("W46", "C10", "C11")
@pytest.mark.parametrize(
    ("pools", "expected"),
    [
        ({"vcpu": 17}, [("self_overcommit", "vcpu"), ("short", "vcpu")]),
        ({"vcpu__0": 9}, [("self_overcommit", "vcpu:0"), ("short", "vcpu:0")]),
        ({"vcpu": 9, "vcpu__0": 8}, [("short", "vcpu")]),
        ({"memory": 3 * GIB + 1}, [("short", "memory")]),
        ({"memory": 2 * GIB + GIB // 2, "pages__0__4": 131073}, [("short", "memory")]),
        ({"pages__0__4": (3 * GIB // 2) // 4096 + 1}, [("short", "pages:0:4")]),
        ({"pages__1__2048": 257}, [("short", "pages:1:2048")]),
        ({"disk__root": GIB + 1}, [("short", "disk:root")]),
        ({"class__CUSTOM_X": 3}, [("units_rule", "class:CUSTOM_X")]),
        ({"class__CUSTOM_X": 6}, [("short", "class:CUSTOM_X") ]),
        ({"class__CUSTOM_Y": 1}, [("no_class", "class:CUSTOM_Y")]),
        ({"disk__other": 1}, [("unknown_unit", "disk:other")]),
        ({"pages__0__16": 1}, [("unknown_unit", "pages:0:16")]),
        ({"pages__x": 1}, [("unknown_unit", "pages:x")]),
        ({"vcpu__7": 1}, [("unknown_unit", "vcpu:7")]),
        ({"memory__0": 1}, [("unknown_unit", "memory:0")]),
        ({"frobs": 1}, [("unknown_unit", "frobs")]),
        ({"vcpu": 16, "memory": 3 * GIB, "pages__1__2048": 256, "disk__root": GIB, "class__CUSTOM_X": 4}, []),
    ],
)  # fmt: skip
def test_amounts_are_held_to_the_capacity(pools: dict[str, int], expected: list[tuple[str, str]]) -> None:
    """Every pool is checked, prescribed or not: capacity, unit rules, self-overcommit, and that there is such a pool."""
    assert codes(amounts(**pools), node()) == expected


def test_two_rows_of_one_pool_and_empty_rows_are_no_books() -> None:
    """One claim has one row of a pool, of at least one."""
    double = Grant(amounts=(*amounts(vcpu=1).amounts, *amounts(vcpu=1).amounts))
    assert codes(double, node()) == [("mismatch", "vcpu")]
    assert codes(Grant(amounts=(AmountRow(pool=PoolId("vcpu"), amount=0),)), node()) == [("mismatch", "vcpu")]


@pytest.mark.rule("C10")
def test_a_prescribed_cpu_may_not_squeeze_the_sharers() -> None:
    """On a pool node CPUs that leave the shared set must leave enough, per node and per cell; where nobody shares, all may go."""
    world = node().with_grant(amounts(vcpu__1=8, vcpu=7))
    assert codes(units([2]), world) == []
    assert codes(units([2, 3]), world) == [("short", "vcpu")]
    assert codes(units([9]), world) == [("short", "vcpu:1")]
    assert codes(units(range(16)), node()) == []
    squeezed = node().with_grant(amounts(vcpu=40))
    assert codes(units([2]), squeezed) == [("short", "vcpu")]
    assert codes(Grant(amounts=amounts(disk__root=1).amounts), squeezed) == []
    overlap = squeezed._replace(settings=replace(squeezed.settings, cpu_policy="overlap"))
    assert codes(units([2]), overlap) == []


@pytest.mark.parametrize(
    ("changes", "resource"),
    [
        ({"host_cell": 9}, "cells"),
        ({"guest_cell": 1}, "cells"),
        ({"pins": (Pin(vcpu=2, cpu=2),)}, "cells"),
        ({"pins": (Pin(vcpu=0, cpu=2), Pin(vcpu=1, cpu=2))}, "cells"),
        ({"pins": (Pin(vcpu=0, cpu=10),)}, "cells"),
        ({"pins": (Pin(vcpu=0, cpu=7),)}, "cpu:7"),
        ({"pins": (Pin(vcpu=0, cpu=4),), "emulator_cpus": ()}, "cpu:4"),
        ({"pins": (Pin(vcpu=0, cpu=-1),)}, "cpu:-1"),
        ({"emulator_cpus": (2,), "pins": ()}, "cpu:2"),
        ({"host_cell": 1}, "cpu:2"),
        ({"shared_vcpus": (8, 9)}, "vcpu"),
        ({"memory_bytes": 257 * MIB}, "pages:0:2048"),
        ({"page_kib": None, "memory_bytes": MIB}, "memory"),
    ],
)
def test_cells_that_contradict_the_rows_are_found(changes: dict[str, object], resource: str) -> None:
    """A pin outside the rows or the host cell, a number twice, memory or vCPUs without an amount: each is a mismatch."""
    first = replace(TWO_CELLS.cells[0], **changes)
    found = codes(replace(TWO_CELLS, cells=(first, TWO_CELLS.cells[1])), node())
    assert ("mismatch", resource) in found
    assert {code for code, _ in found} == {"mismatch"}


def test_bound_amounts_without_a_vcpu_in_the_cells_are_found() -> None:
    """Shared vCPUs that are bound to a cell must be named by a guest cell there, if the grant says anything of cells."""
    second = replace(TWO_CELLS.cells[1], shared_vcpus=())
    assert codes(replace(TWO_CELLS, cells=(TWO_CELLS.cells[0], second)), node()) == [("mismatch", "vcpu:1")]


@pytest.mark.parametrize(
    ("changes", "resource"),
    [
        ({"vcpus": 3}, "cpu"),
        ({"cpu_policy": "shared"}, "vcpu"),
        ({"memory_bytes": MIB}, "memory"),
        ({"memory_bytes": 4 * MIB, "page_kib": 2048}, "pages:0:4"),
        ({"disk_bytes": 1}, "disk"),
        ({"devices": (DeviceRequest(kind="vf"),)}, "device:vf"),
        ({"resources": (ResourceAmount(resource_class=ResourceClass("CUSTOM_X"), amount=2),)}, "class:CUSTOM_X"),
        ({"required_traits": ("HW_A",)}, "trait:HW_A"),
    ],
)
def test_a_grant_must_be_what_was_requested(changes: dict[str, object], resource: str) -> None:
    """More, less or other than the request is a mismatch that names the resource."""
    request = Request(vcpus=2, cpu_policy="dedicated", memory_bytes=4 * MIB)
    grant = replace(units([2, 3]), amounts=amounts(pages__0__4=1024).amounts)
    assert codes(grant, node(), request) == []
    assert resource in [found for _, found in codes(grant, node(), replace(request, **changes))]


def test_a_request_that_contradicts_itself_is_the_callers_fault() -> None:
    """The request beside a prescribed grant is checked like any other."""
    with pytest.raises(InvalidRequest, match="asks for nothing"):
        judge(Grant(), node().supply, Request())
