"""Which requests make no sense, and that all others are answered."""

from __future__ import annotations

import pytest
from tests.fit.worlds import BARE, World, machine

from earmark.core.fit.fit import fit
from earmark.core.fit.proof.judge import judge
from earmark.core.fit.request import check_request
from earmark.core.model.grant import Grant
from earmark.core.model.ids import ResourceClass, Trait
from earmark.core.model.refusal import Refusal
from earmark.core.model.request import DeviceRequest, GuestCell, Request, ResourceAmount
from earmark.core.model.units import MIB
from earmark.errors import InvalidRequest

X = ResourceAmount(resource_class=ResourceClass("CUSTOM_X"), amount=1)


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (Request(), "asks for nothing"),
        (Request(required_traits=(Trait("HW_A"),)), "asks for nothing"),
        (Request(vcpus=-1), "vcpus"),
        (Request(vcpus=1, memory_bytes=-5), "memory_bytes"),
        (Request(vcpus=2.5), "vcpus"),  # type: ignore[arg-type]  # a wrong type on purpose
        (Request(vcpus=True), "vcpus"),
        (Request(vcpus=1, cpu_policy="own"), "cpu_policy"),  # type: ignore[arg-type]  # a wrong type on purpose
        (Request(vcpus=1, memory_bytes=1, page_kib="huge"), "page_kib"),  # type: ignore[arg-type]  # a wrong type on purpose
        (Request(vcpus=1, placement="tight"), "placement"),  # type: ignore[arg-type]  # a wrong type on purpose
        (Request(vcpus=object()), "type"),  # type: ignore[arg-type]  # a wrong type on purpose
        (Request(vcpus=1, page_kib=2048), "but no memory"),
        (Request(vcpus=1, thread_policy="prefer"), "is for dedicated CPUs"),
        (Request(vcpus=1, thread_policy="isolate"), "is for dedicated CPUs"),
        (Request(vcpus=1, emulator_policy="isolate"), "is for dedicated CPUs"),
        (Request(memory_bytes=1, cpu_policy="dedicated"), "without a vCPU"),
        (Request(vcpus=2, cpu_policy="dedicated", dedicated_vcpus=(0,)), "are for CPU policy mixed"),
        (Request(vcpus=2, cpu_policy="mixed"), "some but not all"),
        (Request(vcpus=2, cpu_policy="mixed", dedicated_vcpus=(0, 1)), "some but not all"),
        (Request(vcpus=2, cpu_policy="mixed", dedicated_vcpus=(0, 1), realtime_vcpus=(1,)), "some but not all"),
        (Request(vcpus=3, cpu_policy="mixed", dedicated_vcpus=(1, 1)), "different numbers"),
        (Request(vcpus=3, cpu_policy="mixed", dedicated_vcpus=(3,)), "different numbers"),
        (Request(vcpus=3, cells=2), "evenly"),
        (Request(vcpus=2, memory_bytes=3, cells=2), "evenly"),
        (Request(vcpus=1, cells=0), "cells"),
        (Request(vcpus=2, cells=1, guest_cells=(GuestCell(vcpus=(0,)), GuestCell(vcpus=(1,)))), "2 are described"),
        (Request(vcpus=3, guest_cells=(GuestCell(vcpus=(0,)), GuestCell(vcpus=(1,)))), "each of 3 vCPUs"),
        (Request(vcpus=1, memory_bytes=2, guest_cells=(GuestCell(vcpus=(0,), memory_bytes=1),)), "1 bytes together"),
        (Request(resources=(X, X)), "twice"),
        (Request(resources=(ResourceAmount(resource_class=ResourceClass("VCPU"), amount=1),)), "is asked for by vcpus"),
        (Request(resources=(ResourceAmount(resource_class=ResourceClass("custom"), amount=1),)), "not a resource class"),
        (Request(resources=(ResourceAmount(resource_class=ResourceClass("CUSTOM_X"), amount=0),)), "amount"),
        (Request(devices=(DeviceRequest(kind=""),)), "no kind"),
        (Request(devices=(DeviceRequest(kind="gpu", count=0),)), "count"),
        (Request(vcpus=1, required_traits=(Trait("HW_A"),), forbidden_traits=(Trait("HW_A"),)), "both required and forbidden"),
    ],
)
def test_contradictions_are_the_callers_fault(request_: Request, words: str) -> None:
    """An empty or contradictory request, or one with a field of a wrong type, is an error that says what is wrong, on any node."""
    with pytest.raises(InvalidRequest, match=words):
        check_request(request_)


@pytest.mark.parametrize(
    "request_",
    [
        Request(vcpus=2, cells=2),
        Request(vcpus=1, guest_cells=(GuestCell(vcpus=(0,)),)),
        Request(vcpus=2, cpu_policy="mixed", dedicated_vcpus=(0,)),
        Request(vcpus=1, cpu_policy="dedicated", thread_policy="require"),
        Request(vcpus=2, cpu_policy="dedicated", thread_policy="require-strict"),
        Request(vcpus=1, cpu_policy="dedicated", thread_policy="isolate"),
        Request(vcpus=1, cpu_policy="dedicated", emulator_policy="isolate"),
        *(Request(memory_bytes=MIB, page_kib=size) for size in ("small", "any")),
        Request(vcpus=1, networks=("physnet0",), tunnel=True, cells=1),
    ],
)
def test_all_that_the_language_holds_is_fitted(request_: Request) -> None:
    """Each policy that a request can name is granted on a node that can do it, and the judge has nothing against the grant."""
    supply = World(machine(cells=2), BARE).supply
    answer = fit(request_, supply)
    assert isinstance(answer, Grant)
    assert judge(answer, supply, request_) is None


def test_one_cell_and_shared_emulator_threads_are_supported() -> None:
    """A guest of one cell is bound to a cell; emulator threads that are shared cost nothing."""
    answer = fit(Request(vcpus=2, cells=1, memory_bytes=MIB, emulator_policy="share"), World(machine(), BARE).supply)
    assert not isinstance(answer, Refusal)
    assert answer.cells[0].shared_vcpus == (0, 1)
    assert [row.pool for row in answer.amounts] == ["vcpu:0", "pages:0:4"]
