"""What the driver makes of PCI devices: names that stay, kinds that can be trusted, nothing guessed."""

from __future__ import annotations

import pytest
from tests.drivers.roots import PCI, Root, device, two_sockets

from earmark.core.model.ids import UNIT
from earmark.drivers.sysfs.discovery import discovery_json
from earmark.drivers.sysfs.observe import SysfsDriver

UUID = "GPU-8e94a1b2-0000-1111-2222-333344445555"
A, B, C = "0000:41:00.0", "0000:42:00.0", "0000:43:00.0"


def test_all_attributes_of_a_device(root: Root) -> None:
    """Class, vendor, product, subsystem, driver, cell, IOMMU group, possible VFs and reset are what the files say."""
    two_sockets(root).device(A, "020000", numa_node="1", sriov_totalvfs="64", sriov_offset="16", sriov_stride="1", reset="").link(
        f"{PCI}/{A}/driver", "../../../bus/pci/drivers/i40e"
    )
    found = device(root.link(f"{PCI}/{A}/iommu_group", "../../../kernel/iommu_groups/27").machine(), A)
    assert (found.unit, found.address, found.class_id, found.vendor_id, found.product_id) == (f"pci:{A}", A, "020000", "8086", "1572")
    assert (found.subsystem, found.driver, found.cell, found.iommu_group) == ("1028:0001", "i40e", 1, 27)
    assert (found.sriov_total, found.sriov_offset, found.sriov_stride) == (64, 16, 1)
    assert (found.resettable, found.identity) == (True, "8086:1572:1028:0001")


@pytest.mark.parametrize(
    ("class_id", "vendor", "kind"),
    [
        ("030200", "10de", "gpu"), ("030000", "1002", "gpu"), ("038000", "8086", "gpu"), ("120000", "1d0f", "accelerator"),
        ("0b4000", "1bcf", "accelerator"), ("010802", "144d", "nvme"), ("010700", "1000", "storage"), ("010601", "8086", "storage"), ("020000", "15b3", "nic"), ("020700", "15b3", "nic"),
        ("0c0330", "8086", "usb"), ("060400", "8086", "bridge"), ("080100", "8086", "other"), ("ffff00", "1af4", "other"),
        ("030000", "1a03", "other"), ("030000", "102b", "other"), ("030000", "1234", "other"), ("038000", "1af4", "other"),
    ],
)  # fmt: skip
def test_kinds_by_class_code(root: Root, class_id: str, vendor: str, kind: str) -> None:
    """The class code says what a device is for; a server's console display is not a GPU to be given away."""
    assert device(two_sockets(root).device(A, class_id, vendor).machine(), A).kind == kind


def test_virtual_functions_know_their_parent(root: Root) -> None:
    """A VF is a vf whatever its class, names its physical function's unit, and the JSON lists it as that one's child."""
    two_sockets(root).device(A, "020000", sriov_totalvfs="8").device("0000:41:02.0", "020000", product="154c")
    machine = root.link(f"{PCI}/0000:41:02.0/physfn", f"../{A}").machine()
    virtual = device(machine, "0000:41:02.0")
    assert (virtual.kind, virtual.parent, virtual.unit) == ("vf", f"pci:{A}", "pci:0000:41:02.0")
    shown = discovery_json(SysfsDriver(root.path).observe())["devices"]
    assert isinstance(shown, list)
    assert next(d["children"] for d in shown if d["address"] == A) == ["pci:0000:41:02.0"]


def test_a_virtual_function_of_a_named_gpu(root: Root) -> None:
    """The VF's parent is the GPU's unit by UUID, and the VF itself is named by its address although the driver gives it a UUID too."""
    two_sockets(root).device(A, "030200", "10de", "2335").device("0000:41:00.4", "030200", "10de", "2335")
    root.link(f"{PCI}/0000:41:00.4/physfn", f"../{A}")
    for address in (A, "0000:41:00.4"):
        root.write(f"proc/driver/nvidia/gpus/{address}/information", f"Model: \t\t NVIDIA H200\nGPU UUID: \t {UUID}")
    machine = root.machine()
    assert (device(machine, A).unit, device(machine, A).name) == (f"gpu:{UUID}", "NVIDIA H200")
    assert (device(machine, "0000:41:00.4").unit, device(machine, "0000:41:00.4").parent) == ("pci:0000:41:00.4", f"gpu:{UUID}")


def test_a_gpu_whose_uuid_is_not_known_yet(root: Root) -> None:
    """Before its first use the driver shows question marks: the GPU is named by its address."""
    two_sockets(root).device(A, "030200", "10de", "2330")
    root.write(f"proc/driver/nvidia/gpus/{A}/information", "Model: NVIDIA H100\nGPU UUID: \t GPU-????????-????-????-????-????????????")
    assert device(root.machine(), A).unit == f"pci:{A}"


def test_serials_name_devices(root: Root) -> None:
    """NVMe drives and AMD GPUs are named by serial, which ends their identity."""
    two_sockets(root).device(A, "010802", "144d", "a808", **{"nvme/nvme0/serial": "S64FNE0R  ", "nvme/nvme0/model": "SAMSUNG  MZVL2  "})
    root.device(B, "030000", "1002", "74a1", unique_id="a1b2c3d4e5f60718")
    machine = root.machine()
    drive, card = device(machine, A), device(machine, B)
    assert (drive.unit, drive.name, drive.identity) == ("nvme:S64FNE0R", "SAMSUNG MZVL2", "144d:a808:1028:0001:S64FNE0R")
    assert (card.unit, card.identity) == ("gpu:amd-a1b2c3d4e5f60718", "1002:74a1:1028:0001:amd-a1b2c3d4e5f60718")
    assert [d.unit for d in machine.devices] == sorted(d.unit for d in machine.devices)


@pytest.mark.parametrize(
    ("text", "memory"), [("206141652992\n", 206141652992), ("0", None), ("-1", None), ("much", None), ("9" * 19, None)]
)
def test_a_gpu_of_amd_tells_its_memory(root: Root, text: str, memory: int | None) -> None:
    """What amdgpu says of a card's memory is its memory; what is no number of bytes is none. Other vendors' cards are not asked."""
    two_sockets(root).device(A, "030000", "1002", "74a1", mem_info_vram_total=text)
    root.device(B, "030000", "10de", "2330", mem_info_vram_total=text)
    assert [device(root.machine(), address).memory_bytes for address in (A, B)] == [memory, None]


@pytest.mark.parametrize("serial", ["", "00000000", "---", "0xffffffff", "two words", "é1", "x" * 65, "a\nb"])
def test_a_serial_that_says_nothing(root: Root, serial: str) -> None:
    """Fillers, blanks inside, other alphabets and endless serials name nothing: the address does."""
    two_sockets(root).device(A, "010802", **{"nvme/nvme0/serial": serial})
    assert device(root.machine(), A).unit == f"pci:{A}"


def test_devices_that_share_a_serial_are_named_by_address(root: Root) -> None:
    """Two drives with one serial are two units, and that is said."""
    for address in (A, B):
        two_sockets(root).device(address, "010802", **{"nvme/nvme0/serial": "SAME"})
    machine = root.machine()
    assert [d.unit for d in machine.devices] == [f"pci:{A}", f"pci:{B}"]
    assert root.said("shares the serial nvme:SAME")


def test_long_domains(root: Root) -> None:
    """PCI domains of 32 bits (VMD, Hyper-V) are addresses too."""
    two_sockets(root).device("10000:00:02.0", "060400").device("a1b2c3d4:00:00.0", "020000")
    assert [d.unit for d in root.machine().devices] == ["pci:10000:00:02.0", "pci:a1b2c3d4:00:00.0"]
    assert all(UNIT.fullmatch(d.unit) for d in root.machine().devices)


def test_names_that_are_no_addresses_are_passed_over(root: Root) -> None:
    """A stray name among the devices is no device."""
    assert two_sockets(root).device("0000:41:00.8", "020000").device("../evil", "020000").machine().devices == ()


@pytest.mark.parametrize(("node", "note"), [("-1", None), ("7", "7 is no cell of this host"), ("x", "is not the number of a NUMA node")])
def test_devices_without_a_cell(root: Root, node: str, note: str | None) -> None:
    """-1 is no cell; a cell that does not exist and an unreadable number are none either, and said."""
    assert device(two_sockets(root).device(A, "020000", numa_node=node).machine(), A).cell is None
    assert note is None or root.said(note)


def test_a_device_full_of_nonsense_is_still_a_device(root: Root) -> None:
    """Files that cannot be understood leave their attributes unknown, each noted; the device is listed."""
    two_sockets(root).device(A, "zz", "10de99", "", subsystem_vendor="0x", sriov_totalvfs="-3", sriov_offset="65536", numa_node="")
    found = device(root.machine(), A)
    assert (found.kind, found.class_id, found.vendor_id, found.product_id, found.sriov_total) == ("other", None, None, None, 0)
    assert found.identity == "-:-:-:0001"
    for name in ("class", "vendor", "device", "subsystem_vendor", "sriov_totalvfs", "sriov_offset", "numa_node"):
        assert root.said(f"/{PCI}/{A}/{name}: ")


def test_a_bare_device_has_no_notes(root: Root) -> None:
    """Attributes whose files do not exist are unknown without a word: many devices lack them."""
    two_sockets(root).folder(f"{PCI}/{C}")
    machine = root.machine()
    assert machine.notes == ()
    assert (device(machine, C).kind, device(machine, C).identity, device(machine, C).subsystem) == ("other", "-:-:-:-", None)
