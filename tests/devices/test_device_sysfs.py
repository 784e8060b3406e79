"""Mediated devices and vDPA as /sys tells of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.drivers.roots import PCI, Root, device, two_sockets

from earmark.core.model.topology import Device, MdevType
from earmark.drivers.sysfs.mdev import TYPES_MAX, mdev_types
from earmark.drivers.sysfs.tree import Tree

A, B = "0000:41:00.0", "0000:41:00.4"
UUID = "GPU-8e94a1b2-0000-1111-2222-333344445555"
MADE = ("83b8f4f2-509f-382f-3c1e-e6bfe0fa1001", "83b8f4f2-509f-382f-3c1e-e6bfe0fa1002")


@pytest.fixture
def root(tmp_path: Path) -> Root:
    """Return an empty root."""
    return Root(tmp_path / "root")


def kind(root: Root, called: str, left: str | None, *made: str, **files: str) -> Root:
    """Write one type of mediated device of the card at A."""
    place = f"{PCI}/{A}/mdev_supported_types/{called}"
    root.folder(f"{place}/devices").write(f"{place}/device_api", "vfio-pci")
    for uuid in made:
        root.link(f"{place}/devices/{uuid}", f"../../../{uuid}")
    for file, text in ({} if left is None else {"available_instances": left}).items() | files.items():
        root.write(f"{place}/{file}", text)
    return root


def seen(root: Root, address: str = A) -> Device:
    """Return a device as a look sees it."""
    return device(root.machine(), address)


@pytest.mark.rule("V2")
def test_types_count_what_is_made_and_what_can_be_made(root: Root) -> None:
    """The stock of a type is its available instances and its existing devices together, so making one changes nothing."""
    two_sockets(root).device(A, "030200", "10de", "1db4")
    kind(root, "nvidia-36", "0", name="GRID V100-8Q")
    kind(root, "nvidia-35", "6", *MADE, description="num_heads=4, frl_config=60")
    assert seen(root).mdev_types == (
        MdevType(name="nvidia-35", total=8, label="num_heads=4, frl_config=60"),
        MdevType(name="nvidia-36", total=0, label="GRID V100-8Q"),
    )
    assert root.machine().notes == ()


@pytest.mark.parametrize("left", [None, "", "many", "-1", "99999999999999999999", "0x4"])
def test_a_type_without_a_number_is_left_out(root: Root, left: str | None) -> None:
    """What does not say how many there can be is no stock; a note says so, and the other types stand."""
    two_sockets(root).device(A, "030200", "10de", "1db4")
    kind(kind(root, "bad", left), "good", "2")
    machine = root.machine()
    assert [each.name for each in device(machine, A).mdev_types] == ["good"]
    assert any("mdev_supported_types/bad" in note for note in machine.notes)


def test_only_mediated_devices_count_as_made(root: Root) -> None:
    """What else lies in the folder of a type's devices is none, and a type's name must be one."""
    two_sockets(root).device(A, "030200", "10de", "1db4")
    kind(kind(root, "t", "1", MADE[0], "subsystem", "x"), "a b", "1")
    machine = root.machine()
    assert device(machine, A).mdev_types == (MdevType(name="t", total=2),)
    assert any("is not the name of a type" in note for note in machine.notes)


def test_a_card_without_them_offers_none(root: Root) -> None:
    """A device without the folder has no types and no notes."""
    two_sockets(root).device(A, "030200", "10de", "1db4")
    assert seen(root).mdev_types == ()
    assert root.machine().notes == ()


def test_types_are_bounded(root: Root) -> None:
    """More types than TYPES_MAX are noted and left out."""
    two_sockets(root).device(A, "030200", "10de", "1db4")
    for number in range(TYPES_MAX + 2):
        kind(root, f"t{number:03}", "1")
    machine = root.machine()
    assert len(device(machine, A).mdev_types) == TYPES_MAX
    assert any(f"only the first {TYPES_MAX}" in note for note in machine.notes)


@pytest.mark.rule("P1")
def test_a_function_that_carries_a_vdpa_device_is_of_that_type(root: Root) -> None:
    """By its child on the vDPA bus or by a driver that is there for nothing else; a physical function stays one."""
    two_sockets(root).device(A, "020000", sriov_totalvfs="8").device(B, "020000", product="101e")
    root.link(f"{PCI}/{B}/physfn", f"../{A}")
    assert seen(root, B).pci_type == "VF"
    root.folder(f"{PCI}/{B}/vdpa0").folder("sys/bus/vdpa/devices/vdpa0")
    assert (seen(root, B).pci_type, seen(root, A).pci_type) == ("VDPA", "PF")
    root.device("0000:43:00.0", "020000", "1af4", "1041").link(f"{PCI}/0000:43:00.0/driver", "../../bus/pci/drivers/vp-vdpa")
    assert seen(root, "0000:43:00.0").pci_type == "VDPA"


@pytest.mark.rule("P19")
def test_virtual_functions_are_told_by_their_parents_serial(root: Root) -> None:
    """A VF's identity has the serial of its parent and its place: the VFs of another card at the same address are others."""
    two_sockets(root).device(A, "030200", "10de", "2335").device(B, "030200", "10de", "2335")
    root.link(f"{PCI}/{B}/physfn", f"../{A}").write(f"proc/driver/nvidia/gpus/{A}/information", f"GPU UUID: \t {UUID}")
    assert seen(root, B).identity == f"10de:2335:1028:0001:{UUID}/4"
    assert seen(root, B).unit == f"pci:{B}"


@given(
    st.dictionaries(
        st.sampled_from(["t", "nvidia-35", "..x", "é", "a" * 120]),
        st.tuples(st.text(max_size=12), st.text(max_size=200)),
        max_size=3,
    )
)
def test_any_text_gives_types_or_notes(tmp_path_factory: pytest.TempPathFactory, types: dict[str, tuple[str, str]]) -> None:
    """Whatever stands in the files, the reader ends with types of sensible names, numbers and labels."""
    root = Root(tmp_path_factory.mktemp("root"))
    for name, (left, label) in types.items():
        root.raw(f"x/mdev_supported_types/{name}/available_instances", left.encode("utf-8", "surrogatepass"))
        root.raw(f"x/mdev_supported_types/{name}/name", label.encode("utf-8", "surrogatepass"))
    tree = Tree(root.path)
    for found in mdev_types(tree, "/x"):
        assert found.name in ("t", "nvidia-35")
        assert 0 <= found.total < 1 << 31
        assert found.label is None or (found.label.isprintable() and len(found.label) <= 100)
