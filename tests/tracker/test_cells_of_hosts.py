"""What a guest's cells ask of a host: that there are cells, whose sockets are known, and pages that a live migration keeps."""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from tests.fit.worlds import BARE, World, machine, sriov
from tests.tracker.test_instances_and_moves import B, built, opened, with_second

from earmark.core.fit.fit import fit
from earmark.core.fit.layout import build_layout
from earmark.core.fit.proof.judge import judge
from earmark.core.model.grant import Grant
from earmark.core.model.refusal import Refusal
from earmark.core.model.request import DeviceRequest, Request
from earmark.core.model.topology import Machine
from earmark.core.model.units import GIB, MIB
from earmark.testing import bench

SOCKET = Request(vcpus=2, cpu_policy="dedicated", devices=(DeviceRequest(kind="vf", affinity="socket"),))


@pytest.mark.rule("L4", "W13")
def test_a_guest_that_needs_cells_is_refused_where_there_are_none() -> None:
    """A host that tells of no cells and no CPUs grants no pins, pages or cells, with a reason; what floats is not concerned."""
    supply = World(Machine(), replace(BARE, file_backed_memory_bytes=GIB)).supply
    for wish in (
        Request(vcpus=2, cpu_policy="dedicated"),
        Request(vcpus=1, cells=1),
        Request(memory_bytes=2 * MIB, page_kib=2048),
        Request(vcpus=2, cpu_policy="mixed", dedicated_vcpus=(0,)),
    ):
        answer = fit(wish, supply)
        assert isinstance(answer, Refusal)
        assert answer.reasons
        assert answer.certificate is not None
    assert isinstance(fit(Request(memory_bytes=MIB), supply), Grant)


@pytest.mark.rule("N22", "P12")
def test_the_socket_of_a_cell_is_that_of_all_its_cpus() -> None:
    """A cell whose CPUs are of one package has its socket; of several, it has none, and then no socket is near for anybody."""
    plain = replace(machine(cells=4, cores=2), devices=sriov(2, cell=1))
    told = replace(plain, cpus=tuple(replace(cpu, package=cpu.cell // 2) for cpu in plain.cpus))
    settings = replace(BARE, device_kinds=("vf",))
    assert [cell.socket for cell in build_layout(told, settings).cells] == [0, 0, 1, 1]
    assert [cell.socket for cell in build_layout(plain, settings).cells] == [None] * 4
    torn = replace(told, cpus=tuple(replace(cpu, package=1) if cpu.id == 0 else cpu for cpu in told.cpus))
    assert [cell.socket for cell in build_layout(torn, settings).cells] == [None, 0, 1, 1]
    free = {id(host): World(host, settings, blocked_cpus=0b11110000).supply for host in (told, torn)}  # cell 1 gives no CPUs
    near = fit(SOCKET, free[id(told)])
    assert isinstance(near, Grant)
    assert near.cells[0].host_cell == 0
    assert judge(near, free[id(told)], SOCKET) is None
    far = fit(SOCKET, free[id(torn)])
    assert isinstance(far, Refusal)
    assert "affinity" in {reason.code for reason in far.reasons}


@pytest.mark.rule("H5", "M24")
@pytest.mark.parametrize(("there", "fits"), [("2x4c 16G 2M:512", True), ("2x4c 16G 1G:8", False)])
def test_a_live_migration_keeps_the_size_of_all_cells_pages(there: str, fits: bool) -> None:
    """A guest that asked for any size and got large pages asks the destination for those, and for no others."""
    wish = Request(vcpus=2, cells=2, memory_bytes=2 * GIB, page_kib="any")
    with bench("2x4c 4G 2M:1024") as world:
        with_second(world, there)
        claim = built(world, request=wish)
        assert {cell.page_kib for cell in claim.grant.cells} == {2048}
        answer = world.tracker.open_move("i", "live_migration", to="B")
        if not fits:
            assert isinstance(answer, Refusal)
            return
        opened(answer)
        leg = next(each for each in world.tracker.claims_of("i") if each.node == B)
        assert {cell.page_kib for cell in leg.grant.cells} == {2048}
        assert leg.request == wish
