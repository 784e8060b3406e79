"""What a refusal of devices says: who holds what would have answered, what of it is cordoned, what waits for a person."""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from tests.devices.boxes import TYPES, card
from tests.devices.test_device_identity import held, look
from tests.devices.test_device_lives import ONE_VGPU, configured, refused
from tests.fit.worlds import sriov

from earmark.core.model.device_rule import DeviceRule
from earmark.core.model.ids import UnitId
from earmark.core.model.refusal import Refusal
from earmark.core.model.request import DeviceRequest, Request
from earmark.testing import Bench, bench

A, B = "0000:41:00.0", "0000:42:00.0"


def wish(kind: str = "gpu", count: int = 1, **more: object) -> Request:
    """Return a request for devices of one kind."""
    return Request(devices=(replace(DeviceRequest(kind=kind, count=count), **more),))


def holders(refusal: Refusal) -> dict[str, str]:
    """Return who is named in a refusal, with what he holds."""
    return {str(one.claim): one.what for reason in refusal.reasons for one in reason.holders}


def details(made: Bench, request: Request) -> str:
    """Return what the reasons of a refusal say beside their numbers."""
    return "; ".join(reason.detail for reason in refused(made, request).reasons)


def test_only_those_are_named_whose_devices_would_have_answered() -> None:
    """Who holds the instances of a card of which no shares are given is not in the way of a share."""
    with bench("1x2c 4G") as made:
        look(made, card(A, mdev_types=TYPES), card(B))
        configured(made, DeviceRule(address=A, mdev_type="nvidia-36", kind="gpu"), DeviceRule(shares=True))
        instance, half = held(made, ONE_VGPU), held(made, wish(share=500))
        assert holders(refused(made, wish(share=600))) == {half: f"500/1000 of pci:{B}"}
        assert holders(refused(made, wish(count=2))) == {instance: f"mdev:{A}/nvidia-36/0", half: f"500/1000 of pci:{B}"}


def test_holders_are_named_where_any_pci_device_was_asked_for() -> None:
    """The kind `pci` is none that a device has: its holders are those of the devices that it could be."""
    with bench("1x2c 4G") as made:
        look(made, card(A), card(B, product="2330"))
        claim, other = held(made, wish(match=({"product_id": "1db4"},))), held(made, wish(match=({"product_id": "2330"},)))
        assert holders(refused(made, wish("pci", match=({"product_id": "1db4"},)))) == {claim: f"pci:{A}"}
        assert set(holders(refused(made, wish("pci", count=3)))) == {claim, other}


@pytest.mark.rule("P8", "P9")
def test_a_function_is_named_where_its_card_was_asked_for() -> None:
    """What excludes a device that would have answered is in the way as well, and so is a card of its functions."""
    with bench("1x2c 4G") as made:
        look(made, *sriov(2))
        configured(made, DeviceRule(dev_type="PF", kind="card"), DeviceRule(dev_type="VF"))
        claim = held(made, wish("vf"))
        assert set(holders(refused(made, wish("card")))) == {claim}
        assert set(holders(refused(made, wish("pci", match=({"dev_type": "type-PF"},))))) == set()  # no device has that type
        assert set(holders(refused(made, wish("pci", match=({"dev_type": "PF"},))))) == {claim}


def test_whoever_is_refused_is_told_what_is_cordoned_and_why() -> None:
    """The reason of a cordon of one device or CPU stands in the refusal, if it would have answered."""
    with bench("1x2c 4G") as made:
        look(made, card(A), card(B))
        made.tracker.cordon(UnitId(f"pci:{A}"), "Xid 79")
        made.tracker.cordon(UnitId("cpu:1"), "too hot")
        assert details(made, wish(count=2)).endswith(f"; pci:{A} is cordoned: Xid 79")
        assert details(made, Request(vcpus=2, memory_bytes=1 << 20, cpu_policy="dedicated")).endswith("; cpu:1 is cordoned: too hot")
        assert "cordoned" not in details(made, wish("vf"))


def test_what_waits_for_a_person_is_called_so() -> None:
    """A device in quarantine has no holder who could end it: the refusal says where it is."""
    with bench("1x2c 4G") as made:
        look(made, card(A))
        configured(made, DeviceRule(one_time_use=True))
        claim = held(made, wish())
        made.tracker.release(claim)
        assert holders(refused(made, wish())) == {claim: f"pci:{A} in quarantine"}


@pytest.mark.rule("P11")
def test_what_is_too_far_is_counted_in_full() -> None:
    """Beside how many are near enough stands how many there are, not how many of them were asked for."""
    with bench("1x2c 4G") as made:
        look(made, *sriov(4, port=3), *sriov(2, port=4, cell=1))
        configured(made, DeviceRule(dev_type="VF"))
        near = Request(
            vcpus=1, memory_bytes=1 << 20, cpu_policy="dedicated", devices=(DeviceRequest(kind="vf", count=5, affinity="required"),)
        )
        assert "4 of the 6 that can be given now" in details(made, near)
