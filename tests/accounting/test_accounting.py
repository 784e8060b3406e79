"""The figures of the accounting, over every store: what is counted, exactly, and what a claim is."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from tests.accounting.grounds import NODE_TWO, STORES, figures, granted, ground, own, refused, shared

from earmark.core.ledger.commands import ObserveMachine, RegisterNode
from earmark.core.model.grant import Grant, UnitRow
from earmark.core.model.ids import PoolId, ResourceClass, UnitId, node_stream
from earmark.core.model.inventory import Inventory
from earmark.core.model.node import NodeSettings
from earmark.core.model.request import DeviceRequest, Placement, Request, ResourceAmount
from earmark.core.model.units import GIB, MIB
from earmark.testing import UNRESERVED, machine

stores = pytest.mark.parametrize("kind", STORES)


@stores
@pytest.mark.rule("L1", "X2", "W17")
def test_a_claim_is_one_event_and_known_from_it_on(kind: str, tmp_path: Path) -> None:
    """Holding writes exactly one event with the whole grant; a tracker opened a moment later knows the claim without any audit."""
    with ground(kind, tmp_path, "2x8c 32G gpu:2") as world:
        before = world.store.last_position()
        wish = Request(vcpus=2, cpu_policy="dedicated", memory_bytes=GIB, disk_bytes=GIB, devices=(DeviceRequest(kind="gpu"),))
        claim = granted(world.tracker.hold(wish, consumer="vm"))
        assert world.store.last_position() == before + 1
        assert [event.grant for _, _, event in world.tracker.events() if hasattr(event, "grant")] == [claim.grant]
        assert world.reopened().tracker.node().claims[claim.id].grant == claim.grant


@stores
@pytest.mark.rule("L3")
def test_a_refusal_names_everything_that_is_short(kind: str, tmp_path: Path) -> None:
    """CPUs, memory, disk and a class that is not there are all refused in one answer."""
    with ground(kind, tmp_path, "4c 8G disk:10G") as world:
        nothing = ResourceAmount(resource_class=ResourceClass("CUSTOM_X"), amount=1)
        refusal = refused(world.tracker.hold(Request(vcpus=5, memory_bytes=9 * GIB, disk_bytes=11 * GIB, resources=(nothing,))))
        assert {reason.resource for reason in refusal.reasons} == {"class:CUSTOM_X", "disk:root", "memory", "vcpu"}


@stores
@pytest.mark.rule("A8")
def test_a_claim_knows_its_node(kind: str, tmp_path: Path) -> None:
    """The claim's row names the stream of the node that holds it, open or ended."""
    with ground(kind, tmp_path, "4c 8G") as world:
        claim = granted(world.tracker.hold(own(1), confirm=True))
        row = world.store.claim(claim.id)
        assert row is not None
        assert (row.stream, claim.node) == (node_stream(world.tracker.home), world.tracker.home)
        world.tracker.release(claim.id)
        ended = world.store.claim(claim.id)
        assert ended is not None
        assert (ended.stream, ended.cause) == (row.stream, "released")


@stores
@pytest.mark.rule("A15")
def test_only_a_changed_inventory_is_written(kind: str, tmp_path: Path) -> None:
    """Looking again at the same machine writes nothing; another machine is one event with its differences in words."""
    with ground(kind, tmp_path, "4c 8G") as world:
        before = world.store.last_position()
        same = world.tracker.observe()
        assert (same.changed, world.store.last_position()) == (False, before)
        world.host.seen = machine("5c 8G")
        other = world.tracker.observe()
        assert (other.changed, world.store.last_position()) == (True, before + 1)
        assert any("4" in line for line in other.differences)


@stores
@pytest.mark.rule("C1", "C2", "C7")
def test_what_is_used_is_the_sum_of_the_claims(kind: str, tmp_path: Path) -> None:
    """Shared and own CPUs and memory add up claim by claim, bound memory on its cell, and go back to nothing."""
    with ground(kind, tmp_path, "2x8c 32G", msgspec.structs.replace(UNRESERVED, reserved_host_cpus=1)) as world:
        claims = [granted(world.tracker.hold(wish, confirm=True)) for wish in (shared(3, 1024), own(2, 2048), own(1, 512))]
        assert figures(world) == (3, 3, 3584, 0)
        state = world.tracker.node()
        assert state.layout is not None
        stocks = {(stock.resource_class, stock.cell): stock for stock in state.layout.inventories(state.free)}
        assert stocks[ResourceClass("VCPU"), None].used == 3
        assert stocks[ResourceClass("PCPU"), None].used == 3
        by_cell = {pool: count for pool, count in state.free.used.items() if pool.startswith("pages:")}
        assert sum(by_cell.values()) == 2560 * 256
        for claim in claims:
            world.tracker.release(claim.id)
        assert figures(world) == (0, 0, 0, 0)
        assert dict(world.tracker.node().free.used) == {}


@stores
@pytest.mark.rule("C3", "W10")
def test_disk_is_exact(kind: str, tmp_path: Path) -> None:
    """Two claims of 1.5 GiB and one of an odd number of bytes add up to the byte, and releasing all leaves zero."""
    with ground(kind, tmp_path, "4c 8G disk:20G") as world:
        sizes = (1536 * MIB, 1536 * MIB, 512 * MIB, 1234567891)
        claims = [granted(world.tracker.hold(Request(disk_bytes=size), confirm=True)) for size in sizes]
        assert figures(world).disk_bytes == sum(sizes)
        left = 20 * GIB - sum(sizes)
        assert refused(world.tracker.hold(Request(disk_bytes=left + 1))).reasons[0].short == 1
        claims.append(granted(world.tracker.hold(Request(disk_bytes=left), confirm=True)))
        for number, claim in enumerate(claims):
            world.tracker.release(claim.id)
            assert figures(world).disk_bytes == 20 * GIB - sum((*sizes, left)[: number + 1])
        assert figures(world).disk_bytes == 0


@stores
@pytest.mark.rule("C6", "C8", "C9")
def test_ratios_count_where_they_are_set_and_free_may_be_negative(kind: str, tmp_path: Path) -> None:
    """Unset ratios are 1.0; a set one widens its class only; lowered again, what is free is negative and said so."""
    token = Inventory(resource_class=ResourceClass("CUSTOM_T"), total=2, ratio=2000)
    wide = msgspec.structs.replace(UNRESERVED, cpu_allocation_ratio=2000, inventories=(token,))
    four = Request(vcpus=8, resources=(ResourceAmount(resource_class=ResourceClass("CUSTOM_T"), amount=4),))
    with ground(kind, tmp_path, "8c 8G", wide) as world:
        granted(world.tracker.hold(four, confirm=True))
        granted(world.tracker.hold(shared(8), confirm=True))
        assert refused(world.tracker.hold(shared(0, 8 * 1024 + 1))).reasons[0].code == "short"
        world.tracker.configure(UNRESERVED)
        reason = refused(world.tracker.hold(shared(1))).reasons[0]
        assert (reason.free, reason.short) == (-8, 9)


@stores
@pytest.mark.rule("N13")
def test_memory_without_a_page_size_is_the_cells_for_own_cpus_and_the_nodes_for_shared_ones(kind: str, tmp_path: Path) -> None:
    """A guest with CPUs of its own must find its memory on their cell; one with shared CPUs may take it from anywhere."""
    with ground(kind, tmp_path, "2x4c 8G") as world:
        reason = refused(world.tracker.hold(own(2, 5 * 1024))).reasons[0]
        assert reason.code == "short"
        granted(world.tracker.hold(shared(2, 5 * 1024), confirm=True))
        granted(world.tracker.hold(own(2, 3 * 1024), confirm=True))
        refused(world.tracker.hold(shared(1, 1)))


@stores
@pytest.mark.rule("N11")
@pytest.mark.parametrize(("placement", "cells"), [("pack", [0, 0, 0]), ("spread", [0, 1, 2])])
def test_the_order_of_cells_is_named_and_total(kind: str, tmp_path: Path, placement: Placement, cells: list[int]) -> None:
    """Among equal cells the lowest number wins; then pack goes on filling it, and spread takes the emptiest."""
    with ground(kind, tmp_path, "3x4c 12G") as world:
        wish = msgspec.structs.replace(own(1, 64), placement=placement)
        assert [granted(world.tracker.hold(wish, confirm=True)).grant.cells[0].host_cell for _ in range(3)] == cells


@stores
@pytest.mark.rule("N20", "W29", "P4")
def test_an_exclusive_thing_is_a_row_with_one_holder(kind: str, tmp_path: Path) -> None:
    """What claims hold, while held, confirmed or draining, are the store's rows; a second holder is refused, and only the holder frees."""
    with ground(kind, tmp_path, "4c 8G gpu:2") as world:
        holder = world.processes.identify(77)
        wish = Request(vcpus=2, cpu_policy="dedicated", devices=(DeviceRequest(kind="gpu"),))
        claim = granted(world.tracker.hold(wish, holders=[holder]))
        slots = sorted(str(slot) for row in claim.grant.units for slot in row.occupied)

        def rows() -> list[str]:
            return [str(row.slot) for row in world.store.slots(node_stream(world.tracker.home))]

        again = Grant(units=tuple(UnitRow(unit=row.unit, use=row.use) for row in claim.grant.units[:1]))
        for step in (
            lambda: None,
            lambda: world.tracker.confirm(claim.id, holders=[holder]),
            lambda: world.tracker.release(claim.id, force=True),
        ):
            step()
            assert rows() == slots
            assert refused(world.tracker.hold(own(1), grant=again)).reasons[0].code == "unit_taken"
        assert world.tracker.node().claims[claim.id].phase == "draining"
        world.processes.fates[77] = "dead"
        world.tracker.sweep()
        assert rows() == []


@stores
@pytest.mark.rule("N25")
def test_a_refused_request_carries_nothing_over(kind: str, tmp_path: Path) -> None:
    """A request that was refused, held and aborted is unchanged, and fits another node as if it had never been tried."""
    with ground(kind, tmp_path, "4c 8G 1G:4") as world:
        second = machine("4c 8G 2M:1024")
        submit = world.tracker._writer.submit
        submit(RegisterNode(node=NODE_TWO, name="n2"))
        submit(ObserveMachine(node=NODE_TWO, machine=second))
        wish = Request(vcpus=2, cpu_policy="dedicated", memory_bytes=2 * GIB, page_kib=2048)
        before = msgspec.json.encode(wish)
        refused(world.tracker.hold(wish, consumer="vm"))
        world.tracker.abort(granted(world.tracker.hold(wish, consumer="vm", node="n2")).id)
        claim = granted(world.tracker.hold(wish, consumer="vm", node="n2"))
        assert msgspec.json.encode(wish) == before
        assert claim.grant.amount(PoolId("pages:0:2048")) == 1024


@stores
@pytest.mark.rule("P2", "P3", "P5", "P21", "S37")
def test_a_function_and_its_parent_exclude_each_other(kind: str, tmp_path: Path) -> None:
    """While virtual functions are held their card is not given, and the other way round; the last one given back frees it."""
    both = msgspec.structs.replace(UNRESERVED, device_kinds=("nic", "vf"))
    card, vf = Request(devices=(DeviceRequest(kind="nic"),)), Request(devices=(DeviceRequest(kind="vf"),))
    with ground(kind, tmp_path, "4c 8G vf:3", both) as world:
        one, two = (granted(world.tracker.hold(vf, confirm=True)) for _ in range(2))
        assert refused(world.tracker.hold(card)).reasons
        world.tracker.release(one.id)
        assert refused(world.tracker.hold(card)).reasons
        world.tracker.release(two.id)
        whole = granted(world.tracker.hold(card, confirm=True))
        assert refused(world.tracker.hold(vf)).reasons
        assert set(world.tracker.node().free.slots.values()) == {whole.id}
        world.tracker.release(whole.id)
        granted(world.tracker.hold(vf))


@stores
@pytest.mark.rule("S41", "W9", "P21")
def test_two_device_claims_of_one_consumer_are_two_claims(kind: str, tmp_path: Path) -> None:
    """A second device for the same consumer is its own claim: each is released alone, and none stays behind."""
    vf = Request(devices=(DeviceRequest(kind="vf"),))
    with ground(kind, tmp_path, "4c 8G vf:3") as world:
        first = granted(world.tracker.hold(vf, consumer="vm", confirm=True))
        second = granted(world.tracker.hold(vf, consumer="vm", purpose="attach", confirm=True))
        assert {row.unit for row in first.grant.units}.isdisjoint(row.unit for row in second.grant.units)
        world.tracker.release(first.id)
        assert {row.claim for row in world.store.slots(node_stream(world.tracker.home))} == {second.id}
        world.tracker.release(second.id)
        assert list(world.store.slots(node_stream(world.tracker.home))) == []


@stores
@pytest.mark.rule("S26", "W3")
def test_two_nodes_of_one_ledger_share_nothing(kind: str, tmp_path: Path) -> None:
    """An audit of one node and an abort on the other leave each with its own figures."""
    with ground(kind, tmp_path, "16c 32G disk:200G") as world:
        submit = world.tracker._writer.submit
        submit(RegisterNode(node=NODE_TWO, name="n2"))
        submit(ObserveMachine(node=NODE_TWO, machine=machine("16c 32G disk:200G")))
        granted(world.tracker.hold(shared(1, 1024, 10 * GIB), consumer="i", confirm=True))
        j = granted(world.tracker.hold(shared(2, 2048, 20 * GIB), consumer="j", node="n2"))
        assert world.tracker.audit() == ()
        assert (figures(world), figures(world, "n2")) == ((1, 0, 1024, 10 * GIB), (2, 0, 2048, 20 * GIB))
        world.tracker.abort(j.id)
        world.tracker.abort(j.id)
        assert world.tracker.audit() == ()
        assert (figures(world), figures(world, "n2")) == ((1, 0, 1024, 10 * GIB), (0, 0, 0, 0))


@stores
@pytest.mark.rule("W38")
def test_packing_breaks_few_cores(kind: str, tmp_path: Path) -> None:
    """A single CPU goes to a core that is broken already; an even number takes whole cores."""
    with ground(kind, tmp_path, "4c/2t 8G") as world:
        one, two, three = (granted(world.tracker.hold(own(count), confirm=True)).grant.cpus for count in (1, 2, 1))
        assert two[0] // 2 == two[1] // 2
        assert one[0] // 2 == three[0] // 2


@pytest.mark.rule("W6")
def test_fit_changes_no_input() -> None:
    """Asking twice gives the same grant, and neither the request nor the supply is another afterwards."""
    with ground("memory", Path(), "2x4c/2t 16G 2M:512 gpu:2") as world:
        wish = Request(vcpus=3, cpu_policy="dedicated", memory_bytes=GIB, page_kib=2048, devices=(DeviceRequest(kind="gpu"),))
        before = msgspec.json.encode(wish), world.tracker.node().free, world.store.last_position()
        first, second = world.tracker.fit(wish), world.tracker.fit(wish)
        assert first == second
        assert (msgspec.json.encode(wish), world.tracker.node().free, world.store.last_position()) == before
        assert granted(world.tracker.hold(wish)).grant == first


def test_the_defaults_keep_something_for_the_host() -> None:
    """With the safe defaults a whole machine cannot be given away."""
    with ground("memory", Path(), "4c 8G disk:10G", NodeSettings()) as world:
        refused(world.tracker.hold(shared(0, 8 * 1024)))
        refused(world.tracker.hold(Request(disk_bytes=10 * GIB)))
        assert UnitId("cpu:0") not in {row.unit for row in granted(world.tracker.hold(own(3))).grant.units}
