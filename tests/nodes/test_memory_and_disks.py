"""File-backed memory (C14), the driver's disk figure (C15), and what is withdrawn while it is used (S42, S43, S45)."""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from tests.nodes.worlds import held

from earmark.core.ledger.audit import audit_node
from earmark.core.model.ids import ResourceClass
from earmark.core.model.inventory import Inventory
from earmark.core.model.node import NodeSettings, Provided, ReservedPages
from earmark.core.model.refusal import Refusal
from earmark.core.model.request import Request, ResourceAmount
from earmark.core.model.shape import machine_of
from earmark.core.model.topology import Disk
from earmark.core.model.units import GIB
from earmark.errors import InvalidRequest
from earmark.testing import UNRESERVED, bench

PMEM = ResourceClass("CUSTOM_PMEM_NAMESPACE_4GB")
ONE = Request(resources=(ResourceAmount(resource_class=PMEM, amount=1),))
FILES = replace(UNRESERVED, file_backed_memory_bytes=64 * GIB)


# --- file-backed memory ---------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("C14")
def test_file_backed_memory_stands_in_place_of_the_machines() -> None:
    """64 GiB of files on a machine of 32 GiB: 64 GiB are handed out, no more; what is reserved is of those 64."""
    with bench("2x8c 32G 2M:1024", settings=FILES) as made:
        held(made, Request(vcpus=1, memory_bytes=60 * GIB))
        refusal = made.tracker.hold(Request(vcpus=1, memory_bytes=5 * GIB))
        assert isinstance(refusal, Refusal)
        assert [(reason.resource, reason.free) for reason in refusal.reasons] == [("memory", 4 * GIB)]
        made.tracker.configure(replace(FILES, reserved_host_memory_bytes=2 * GIB))
        layout = made.tracker.node().layout
        assert layout is not None
        assert (layout.memory.total, layout.memory.reserved) == (64 * GIB, 2 * GIB)


@pytest.mark.rule("C14")
def test_no_huge_page_is_handed_out_beside_file_backed_memory() -> None:
    """A request for huge pages is refused and told why; without file-backed memory the same is granted."""
    wish = Request(vcpus=1, cpu_policy="dedicated", memory_bytes=GIB, page_kib=2048)
    with bench("2x8c 32G 2M:1024", settings=FILES) as made:
        refusal = made.tracker.hold(wish)
        assert isinstance(refusal, Refusal)
        assert any("file-backed" in reason.detail for reason in refusal.reasons)
        made.tracker.configure(UNRESERVED)
        claim = held(made, wish)
        made.tracker.configure(FILES)
        assert [(finding.code, finding.unit) for finding in made.tracker.audit()] == [("withdrawn", "pages:0:2048")]
        made.tracker.release(claim)
        assert made.tracker.audit() == ()


@pytest.mark.rule("C14")
def test_impossible_file_backed_memory_is_refused_clearly() -> None:
    """A ram ratio that is not 1 and huge pages kept back are errors that name both settings; nothing changes."""
    with bench("2x8c 32G 2M:1024") as made:
        with pytest.raises(InvalidRequest, match=r"beside ram_allocation_ratio 1\.5: with file-backed memory it must be 1\.0"):
            made.tracker.configure(replace(FILES, ram_allocation_ratio=1500))
        with pytest.raises(InvalidRequest, match="beside reserved_huge_pages"):
            made.tracker.configure(replace(FILES, reserved_huge_pages=(ReservedPages(cell=0, size_kib=2048, count=1),)))
        with pytest.raises(InvalidRequest, match="must be 1"):
            made.tracker.register("n2", settings=replace(FILES, ram_allocation_ratio=900))
        assert made.tracker.node().settings == UNRESERVED


# --- the driver's disk figure -----------------------------------------------------------------------------------------------------------


@pytest.mark.rule("C15")
def test_the_drivers_disk_figure_is_kept_beside_and_decides_nothing() -> None:
    """A file system that is nearly full by its own account still gives what the ledger has, and its figure is no event."""
    full = replace(machine_of("16c 32G"), disks=(Disk(name="root", total_bytes=200 * GIB, free_bytes=1),))
    with bench("16c 32G") as made:
        made.tracker.register("n2", machine=machine_of("16c 32G"), settings=UNRESERVED)
        sequence = made.tracker.node("n2").sequence
        assert not made.tracker.observe(node="n2", machine=full).changed
        assert made.tracker.node("n2").sequence == sequence
        seen = made.tracker.observation("n2")
        assert seen is not None
        assert seen.machine.disks[0].free_bytes == 1
        held(made, Request(disk_bytes=200 * GIB), "n2")


# --- withdrawn while it is used -----------------------------------------------------------------------------------------------------------


def with_namespaces(count: int) -> NodeSettings:
    """Return settings that offer some namespaces, none at all for 0."""
    return replace(UNRESERVED, inventories=(Inventory(resource_class=PMEM, total=count),) if count else ())


@pytest.mark.rule("S43")
def test_withdrawn_namespaces_are_flagged_at_every_audit() -> None:
    """3 namespaces: 1, 2 and 3 are held, a fourth is refused; withdrawn they stay held and flagged until the last is given back."""
    with bench(settings=with_namespaces(3)) as made:
        claims = [held(made, ONE) for _ in range(3)]
        refusal = made.tracker.hold(ONE)
        assert isinstance(refusal, Refusal)
        made.tracker.configure(with_namespaces(0))
        found = made.tracker.audit()
        for _ in range(3):
            assert made.tracker.audit() == found
            assert [(finding.code, finding.severity, finding.unit) for finding in found] == [("withdrawn", "warning", f"class:{PMEM}")]
            assert "3 in use" in found[0].detail
        assert made.reopened().tracker.audit() == found
        refusal = made.tracker.hold(ONE)
        assert isinstance(refusal, Refusal)
        assert [reason.code for reason in refusal.reasons] == ["no_class"]
        for claim in claims:
            made.tracker.release(claim)
        assert made.tracker.audit() == ()


@pytest.mark.rule("S43", "W28")
def test_a_class_that_provider_configuration_withdraws_is_flagged_too() -> None:
    """What a file added and takes away again while it is used is the same finding."""
    with bench() as made:
        made.tracker.provide(Provided(inventories=(Inventory(resource_class=PMEM, total=2),)))
        held(made, ONE)
        made.tracker.provide(Provided())
        assert [finding.code for finding in audit_node(made.tracker.node())] == ["withdrawn"]


@pytest.mark.rule("S42", "S45")
def test_vanished_capacity_is_listed_with_what_is_used_of_it() -> None:
    """A disk and a cell that are gone are stocks with a total of 0 and their use: nothing is clamped, nothing new is granted there."""
    with bench("2x8c 32G disk:200G") as made:
        held(made, Request(disk_bytes=20 * GIB))
        held(made, Request(vcpus=2, cpu_policy="dedicated", memory_bytes=GIB, cells=1))
        machine = made.tracker.node().machine
        assert machine is not None
        made.host.seen = replace(machine, disks=(), cells=machine.cells[1:], cpus=tuple(cpu for cpu in machine.cpus if cpu.cell == 1))
        made.tracker.observe()
        layout = made.tracker.node().layout
        assert layout is not None
        gone = [stock for stock in layout.inventories(made.tracker.node().free) if stock.total == 0 and stock.used]
        assert [(stock.pool, stock.used) for stock in gone] == [("disk:root", 20 * GIB), ("pages:0:4", GIB // 4096)]
        codes = sorted(finding.code for finding in made.tracker.audit())
        assert codes == ["missing", "missing", "withdrawn", "withdrawn"]
        refusal = made.tracker.hold(Request(disk_bytes=GIB))
        assert isinstance(refusal, Refusal)
        assert refusal.reasons[0].detail == "the node hands out no disk"
