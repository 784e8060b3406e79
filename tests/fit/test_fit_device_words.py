"""What is said of devices that cannot be had: what would help, and what they are not given as."""

from __future__ import annotations

from msgspec.structs import replace
from tests.fit.worlds import BARE, World, machine

from earmark.core.fit.fit import fit
from earmark.core.model.ids import UnitId
from earmark.core.model.refusal import Refusal
from earmark.core.model.request import DeviceRequest, Request
from earmark.core.model.topology import Device

GPUS = tuple(Device(unit=UnitId(f"gpu:{cell}"), kind="gpu", address=f"0000:0{cell}:00.0", cell=cell) for cell in range(2))
WORLD = World(replace(machine(2), devices=GPUS), BARE)


def test_more_guest_cells_are_proposed_where_they_bring_devices_near() -> None:
    """Two GPUs of two cells are not near a guest of one; the refusal says that two cells would do."""
    wish = Request(vcpus=4, cpu_policy="dedicated", devices=(DeviceRequest(kind="gpu", count=2, affinity="required"),))
    answer = fit(wish, WORLD.supply)
    assert isinstance(answer, Refusal)
    assert "2 guest cells instead of 1" in answer.fits_if
    assert not isinstance(fit(replace(wish, cells=2), WORLD.supply), Refusal)


def test_a_share_of_what_is_given_only_as_a_whole_is_refused_with_that_reason() -> None:
    """A share of a GPU is refused with the number of GPUs that are given as a whole; where there is none, it says that."""
    answer = fit(Request(devices=(DeviceRequest(kind="gpu", share=500),)), WORLD.supply)
    assert isinstance(answer, Refusal)
    assert "the 2 that can be given now are given as a whole: no device policy gives shares of them" in answer.reasons[0].detail
    none = fit(Request(devices=(DeviceRequest(kind="gpu", share=500),)), World(machine(1), BARE).supply)
    assert isinstance(none, Refusal)
    assert "the node has none that can be given now" in none.reasons[0].detail
