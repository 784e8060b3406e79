"""Boxes of GPUs for tests: as the kernel's files show them, and as the stand-in for NVML is told to describe them."""

from __future__ import annotations

from pathlib import Path

from tests.drivers.roots import PCI, Root, two_sockets

from earmark.core.model.topology import Device, Machine
from earmark.core.model.units import GIB

MEMORY = 80 * GIB
NAME = "NVIDIA_H100_80GB_HBM3"
BUSES = ("41", "42", "43", "44", "81", "82", "83", "84")
ADDRESSES = tuple(f"0000:{bus}:00.0" for bus in BUSES)


def uuid(number: int, kind: str = "GPU") -> str:
    """Return the UUID of a GPU or of an instance by its number."""
    return f"{kind}-8e94a1c2-0001-4000-8000-{number:012x}"


def lines(count: int = 8, first: int = 0) -> str:
    """Return the lines of GPUs for the stand-in; the UUIDs count from `first`."""
    return "".join(f"gpu {ADDRESSES[number]} {uuid(first + number)} {MEMORY} {NAME}\n" for number in range(count))


def pairs(count: int = 8) -> str:
    """Return the lines of links that make pairs: 0-1, 2-3 and so on."""
    return "".join(f"link {number} {link} gpu {ADDRESSES[number ^ 1]}\n" for number in range(count) for link in range(2))


def box(path: Path, count: int = 8, driver: str | None = "nvidia") -> Root:
    """Return a machine of two sockets with some GPUs, the second half of which sits at the second socket."""
    root = two_sockets(Root(path))
    for number in range(count):
        root.device(
            ADDRESSES[number], "030200", "10de", "2330", numa_node=str(number // 4), subsystem_vendor="0x10de", subsystem_device="0x16c1"
        )
        if driver is not None:
            root.link(f"{PCI}/{ADDRESSES[number]}/driver", f"../../../../bus/pci/drivers/{driver}")
    return root


def at(machine: Machine, number: int) -> Device:
    """Return the GPU that sits at the address of a number."""
    return next(device for device in machine.devices if device.address == ADDRESSES[number])


def unit(number: int, kind: str = "GPU") -> str:
    """Return the unit of a GPU or of an instance by its number."""
    return f"gpu:{uuid(number, kind)}"
