"""The PCI devices of a host.

Rules of this file: a device is named by its serial or UUID where a file that everybody may read gives one, else by its address; the
address is an attribute. A virtual function is always named by its address: it has no serial of its own, it is told by its parent's. Sources:
Documentation/ABI/testing/sysfs-bus-pci (Linux 6.12) and the class codes of the PCI Code and ID Assignment specification 1.15.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

import msgspec
from msgspec.structs import replace

from earmark.core.model.exclusion import place_on
from earmark.core.model.ids import UnitId
from earmark.core.model.topology import DEVICES_MAX, IDENTITY_PARTS, Device
from earmark.drivers.sysfs import mdev, parse
from earmark.drivers.sysfs.tree import Tree

PCI = "/sys/bus/pci/devices"
NVIDIA = "/proc/driver/nvidia/gpus"
NVIDIA_UUID = re.compile(r"^GPU UUID:[ \t]+(GPU-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})[ \t]*$", re.MULTILINE)
"""Until the GPU was first used the driver shows question marks, which are no UUID."""
NVIDIA_MODEL = re.compile(r"^Model:[ \t]+([ -~]{1,100}?)[ \t]*$", re.MULTILINE)
NVME_CONTROLLER = re.compile(r"nvme[0-9]{1,5}")
UNKNOWN = "-"
AMD = "1002"

KIND_BY_CLASS = (
    ("0302", "gpu"),
    ("03", "gpu"),
    ("12", "accelerator"),
    ("0b40", "accelerator"),
    ("0108", "nvme"),
    ("01", "storage"),
    ("02", "nic"),
    ("0c03", "usb"),
    ("06", "bridge"),
)
"""The beginning of the class code and the kind; the first that matches counts."""
PICTURE_ONLY = frozenset({"1013", "102b", "1234", "126f", "15ad", "19e5", "1a03", "1af4", "1b36", "80ee"})
"""Vendors whose displays draw a server's console or are emulated (Cirrus, Matrox, Bochs, Silicon Motion, VMware, Huawei's board
controller, ASPEED, virtio, QXL, VirtualBox): class 03, but no GPU that anybody wants to be given."""


class Serial(msgspec.Struct, frozen=True):
    """What names a device for ever: the unit kind, the serial, and a product name if one was found with it."""

    kind: str
    text: str
    name: str | None = None


def read_devices(tree: Tree, cells: Iterable[int]) -> tuple[Device, ...]:
    """Return the PCI devices of a host, sorted by unit. `cells` are the numbers of its cells."""
    addresses = [name for name in tree.names(PCI) if parse.PCI_ADDRESS.fullmatch(name)]
    if len(addresses) > DEVICES_MAX:
        tree.note(f"{PCI}: only the first {DEVICES_MAX} of {len(addresses)} devices were looked at")
    known, vdpa = frozenset(cells), mdev.vdpa_names(tree)
    devices = [_device(tree, address, known, vdpa) for address in addresses[:DEVICES_MAX]]
    names = {device.address: device.unit for device in _told_apart(tree, devices)}
    parents = {by_address(device.address): device for device in devices if device.address is not None}
    told = (_of_parent(device, parents.get(device.parent)) if device.parent is not None else device for device in devices)
    named = (replace(device, unit=names[device.address], parent=_parent(device, names)) for device in told)
    return tuple(sorted(named, key=lambda device: device.unit))


def by_address(address: str) -> UnitId:
    """Return the unit of a device that has no serial."""
    return UnitId(f"pci:{address}")


def _told_apart(tree: Tree, devices: list[Device]) -> list[Device]:
    """Devices that share one serial are named by their addresses."""
    seen = Counter(device.unit for device in devices)
    apart: list[Device] = []
    for device in devices:
        if seen[device.unit] > 1 and device.address is not None:
            tree.note(f"{PCI}/{device.address}: shares the serial {device.unit} with another device; named by its address")
            apart.append(replace(device, unit=by_address(device.address)))
        else:
            apart.append(device)
    return apart


def _of_parent(device: Device, parent: Device | None) -> Device:
    """Return a virtual function that is told by its parent's serial and its place among the functions, where the parent has a serial."""
    serial = parent.identity.split(":", IDENTITY_PARTS)[IDENTITY_PARTS:] if parent is not None and parent.identity is not None else []
    if parent is None or parent.address is None or device.address is None or not serial or device.identity is None:
        return device
    return replace(device, identity=f"{device.identity}:{serial[0]}/{place_on(parent.address, device.address)}")


def _parent(device: Device, names: dict[str | None, UnitId]) -> UnitId | None:
    """The unit of the physical function; until here `parent` holds its address as a unit."""
    if device.parent is None:
        return None
    return names.get(device.parent.removeprefix("pci:"))


def _device(tree: Tree, address: str, cells: frozenset[int], vdpa: frozenset[str]) -> Device:
    folder = f"{PCI}/{address}"
    physical = _physical(tree, folder)
    class_id, vendor, product, *subsystem = (
        _number(tree, f"{folder}/{name}", digits)
        for name, digits in (("class", 6), ("vendor", 4), ("device", 4), ("subsystem_vendor", 4), ("subsystem_device", 4))
    )
    serial = None if physical else _serial(tree, address, folder)
    identity = ":".join(part or UNKNOWN for part in (vendor, product, *subsystem))
    driver = tree.link(f"{folder}/driver")
    virtual = tree.parsed(f"{folder}/sriov_totalvfs", parse.functions, "a number of functions") or 0
    return Device(
        unit=UnitId(f"{serial.kind}:{serial.text}") if serial else by_address(address),
        kind="vf" if physical else _kind(class_id, vendor),
        address=address,
        class_id=class_id,
        vendor_id=vendor,
        product_id=product,
        subsystem=":".join(part or UNKNOWN for part in subsystem) if any(subsystem) else None,
        driver=driver,
        cell=_cell(tree, folder, cells),
        iommu_group=_iommu_group(tree, folder),
        parent=by_address(physical) if physical else None,
        sriov_total=virtual,
        sriov_offset=tree.parsed(f"{folder}/sriov_offset", parse.functions, "a distance of functions") or 0,
        sriov_stride=tree.parsed(f"{folder}/sriov_stride", parse.functions, "a distance of functions") or 0,
        resettable=tree.exists(f"{folder}/reset"),
        identity=f"{identity}:{serial.text}" if serial else identity,
        name=serial.name if serial else None,
        memory_bytes=_memory(tree, folder) if vendor == AMD else None,
        mdev_types=mdev.mdev_types(tree, folder),
        dev_type="VDPA" if not virtual and mdev.carries_vdpa(tree, folder, driver, vdpa) else None,
    )


def _number(tree: Tree, path: str, digits: int) -> str | None:
    return tree.parsed(path, lambda text: parse.hexadecimal(text, digits), f"a number of {digits} hexadecimal digits")


def _kind(class_id: str | None, vendor: str | None) -> str:
    code = class_id or ""
    kind = next((kind for beginning, kind in KIND_BY_CLASS if code.startswith(beginning)), "other")
    return "other" if kind == "gpu" and vendor in PICTURE_ONLY else kind


def _physical(tree: Tree, folder: str) -> str | None:
    address = tree.link(f"{folder}/physfn")
    return address if address is not None and parse.PCI_ADDRESS.fullmatch(address) else None


def _cell(tree: Tree, folder: str, cells: frozenset[int]) -> int | None:
    """The NUMA node; None where the kernel says -1, none, or one that is no cell of the host."""
    node = tree.parsed(f"{folder}/numa_node", parse.identifier, "the number of a NUMA node")
    if node is None or node < 0:
        return None
    if node not in cells:
        tree.note(f"{folder}/numa_node: {node} is no cell of this host")
        return None
    return node


def _iommu_group(tree: Tree, folder: str) -> int | None:
    group = tree.link(f"{folder}/iommu_group")
    return None if group is None else parse.count(group)


def _serial(tree: Tree, address: str, folder: str) -> Serial | None:
    return _nvidia(tree, address) or _amd(tree, folder) or _nvme(tree, folder)


def _nvidia(tree: Tree, address: str) -> Serial | None:
    text = tree.text(f"{NVIDIA}/{address}/information")
    match = NVIDIA_UUID.search(text or "")
    model = NVIDIA_MODEL.search(text or "")
    return Serial("gpu", match[1], model[1] if model else None) if match else None


def _amd(tree: Tree, folder: str) -> Serial | None:
    """The unique_id of amdgpu: 16 hexadecimal digits (drivers/gpu/drm/amd/pm)."""
    text = tree.text(f"{folder}/unique_id")
    return Serial("gpu", f"amd-{text}") if text and re.fullmatch(r"[0-9a-f]{16}", text) and text.strip("0") else None


def _memory(tree: Tree, folder: str) -> int | None:
    """The video memory that amdgpu tells in bytes (Linux, GPU driver developer's guide, mem_info_vram_total)."""
    return tree.parsed(f"{folder}/mem_info_vram_total", parse.size, "a number of bytes") or None


def _nvme(tree: Tree, folder: str) -> Serial | None:
    for controller in tree.names(f"{folder}/nvme"):
        if NVME_CONTROLLER.fullmatch(controller):
            text = tree.text(f"{folder}/nvme/{controller}/serial")
            model = " ".join((tree.text(f"{folder}/nvme/{controller}/model") or "").split())
            serial = parse.serial(text) if text else None
            if serial:
                return Serial("nvme", serial, model[:100] if model.isprintable() and model else None)
    return None
