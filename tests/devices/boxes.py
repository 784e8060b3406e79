"""What the tests of device policy share: cards, a machine of them, and devices drawn at random."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st
from msgspec.structs import replace
from tests.fit.worlds import BARE, machine, sriov

from earmark.core.fit.layout import Layout, build_layout
from earmark.core.model.device_rule import DeviceRule
from earmark.core.model.ids import UnitId
from earmark.core.model.node import NodeSettings
from earmark.core.model.topology import Device, Machine, MdevType

GPU = UnitId("pci:0000:41:00.0")
TYPES = (MdevType(name="nvidia-35", total=8, label="GRID V100-4Q"), MdevType(name="nvidia-36", total=4))


def card(address: str, kind: str = "gpu", serial: str | None = None, product: str = "1db4", **more: object) -> Device:
    """Return a card named by its address, with what a driver knows of it."""
    identity = f"10de:{product}:10de:1212"
    device = Device(
        unit=UnitId(f"pci:{address}"), kind=kind, address=address, vendor_id="10de", product_id=product, subsystem="10de:1212", cell=0,
        identity=identity if serial is None else f"{identity}:{serial}",
    )  # fmt: skip
    return replace(device, **more)


def box(*devices: Device) -> Machine:
    """Return a machine of two cells with some devices, in the order in which they are given."""
    return replace(machine(cells=2), devices=devices)


def ruled(*rules: DeviceRule, **more: object) -> NodeSettings:
    """Return settings with some device rules."""
    return replace(BARE, device_rules=rules, **more)


def layout(devices: tuple[Device, ...], *rules: DeviceRule, **more: object) -> Layout:
    """Return the layout of some devices under some rules."""
    return build_layout(box(*devices), ruled(*rules, **more))


GPU_BOX = (card("0000:41:00.0", mdev_types=TYPES), card("0000:42:00.0", mdev_types=TYPES, cell=1))
NICS = (*sriov(3, port=3), *sriov(2, port=4, cell=1))


def drawn_rules() -> st.SearchStrategy[DeviceRule]:
    """Draw rules that match much: few values, so that devices and rules meet."""
    return st.builds(
        DeviceRule,
        vendor_id=st.sampled_from([None, "*", "10DE", "8086"]),
        product_id=st.sampled_from([None, "1DB4", "2330"]),
        address=st.sampled_from([None, "*", "0000:41:*", "0000:03:00.0", "*:02.?", "????:42:00.0"]),
        observed_kind=st.sampled_from([None, "gpu", "vf", "nic"]),
        dev_type=st.sampled_from([None, "VF", "PF", "type-PCI"]),
        hand_out=st.booleans(),
        units=st.sampled_from([(), (GPU,), (UnitId("pci:0000:03:02.1"), GPU)]),
    )


def drawn_life(cards: Sequence[object], places: Sequence[str]) -> st.SearchStrategy[list[tuple[str, object]]]:
    """Draw looks at cards in some places (each with whether its serial can be read), claims and releases, in any order."""
    looks = st.lists(st.tuples(st.sampled_from(cards), st.booleans()), max_size=len(places), unique_by=lambda item: item[0]).flatmap(
        lambda found: st.permutations(places).map(lambda order: dict(zip(order, found, strict=False)))
    )
    steps: st.SearchStrategy[tuple[str, object]] = st.one_of(
        st.tuples(st.just("look"), looks), st.tuples(st.just("claim"), st.just(0)), st.tuples(st.just("release"), st.integers(0, 3))
    )
    return st.lists(steps, max_size=16)
