"""What the keys of a flavor and its image become, rule by rule."""

from __future__ import annotations

from typing import Any

import pytest
from tests.flavor.flavors import made

from earmark.core.fit.guest import guest_of, is_bound
from earmark.core.fit.request import check_request
from earmark.core.flavor.affinity import pci_affinity
from earmark.core.flavor.flavor import Flavor, Image
from earmark.core.flavor.placement import placement_wish
from earmark.core.model.request import GuestCell, Request
from earmark.core.model.units import GIB, MIB

ALL = (0, 1, 2, 3)


def test_a_plain_flavor_floats() -> None:
    """Without any key a flavor is vCPUs that share, ordinary memory and disk, and lies on no cell."""
    wish = made({}, root_gb=10, ephemeral_gb=5, swap_mb=512)
    assert wish == Request(vcpus=4, memory_bytes=4 * GIB, disk_bytes=15 * GIB + 512 * MIB)
    assert not is_bound(wish)


@pytest.mark.rule("N1")
@pytest.mark.parametrize(
    ("specs", "cells"),
    [
        ({"hw:numa_nodes": "2"}, 2),
        ({"hw:numa_nodes": "1"}, 1),
        ({"hw:mem_page_size": "large"}, 1),
        ({"hw:pmem": "SMALL"}, 1),
        ({"hw:cpu_policy": "dedicated"}, 1),
        ({"hw:cpu_policy": "mixed", "hw:cpu_dedicated_mask": "0"}, 1),
        ({"resources:PCPU": "4"}, 1),
        ({"hw:cpu_policy": "shared"}, None),
        ({"resources:VCPU": "4"}, None),
        ({"hw:cpu_sockets": "2"}, None),
        ({"hw:pci_numa_affinity_policy": "required"}, None),
        ({"hw:numa_cpus.0": "0-3", "hw:numa_mem.0": "4096"}, None),
        ({"hw:numa_nodes": ""}, None),
    ],
)
def test_what_gives_a_guest_cells(specs: dict[str, str], cells: int | None) -> None:
    """A guest has cells if their number, a page size, persistent memory or dedicated CPUs are asked for; else it floats."""
    wish = made(specs)
    assert wish.cells == cells
    assert is_bound(wish) == (cells is not None)


@pytest.mark.rule("N2")
def test_cells_are_even_and_consecutive() -> None:
    """A number of cells alone splits vCPUs and memory evenly, the vCPUs in order."""
    guest = guest_of(made({"hw:numa_nodes": "2", "hw:cpu_policy": "dedicated"}))
    assert [cell.dedicated for cell in guest.cells] == [(0, 1), (2, 3)]
    assert [cell.memory_bytes for cell in guest.cells] == [2 * GIB, 2 * GIB]


@pytest.mark.rule("N3")
@pytest.mark.parametrize("sign", ["hw:", "hw_"])
def test_cells_as_they_are_listed(sign: str) -> None:
    """Flavor or image may list the vCPUs and the memory of each cell; a cell may be without vCPUs, and the keys' order is the cells'."""
    listed = {f"{sign}numa_cpus.0": "0,^2,2-3", f"{sign}numa_cpus.1": " 1 , 2", f"{sign}numa_cpus.2": ""}
    listed |= {f"{sign}numa_mem.0": "1024", f"{sign}numa_mem.1": "3072", f"{sign}numa_mem.2": "0"}
    specs, image = {"hw:numa_nodes": "3", "hw:cpu_policy": "dedicated"}, dict[str, str]()
    (specs if sign == "hw:" else image).update(listed)
    assert made(specs, image).guest_cells == (
        GuestCell(vcpus=(0, 3), dedicated=(0, 3), memory_bytes=GIB),
        GuestCell(vcpus=(1, 2), dedicated=(1, 2), memory_bytes=3 * GIB),
        GuestCell(),
    )


@pytest.mark.rule("N4")
@pytest.mark.parametrize(
    ("specs", "image", "policy"),
    [
        ({"hw:cpu_policy": "dedicated"}, {"hw_cpu_policy": "shared"}, "dedicated"),
        ({"hw:cpu_policy": "dedicated"}, {"hw_cpu_policy": "mixed"}, "dedicated"),
        ({"hw:cpu_policy": "shared"}, {"hw_cpu_policy": "shared"}, "shared"),
        ({"hw:cpu_policy": "mixed", "hw:cpu_dedicated_mask": "0"}, {"hw_cpu_policy": "shared"}, "mixed"),
        ({}, {"hw_cpu_policy": "dedicated"}, "dedicated"),
        ({"hw:cpu_dedicated_mask": "0"}, {"hw_cpu_policy": "mixed"}, "mixed"),
        ({"resources:PCPU": "4"}, {}, "dedicated"),
        ({"resources1:PCPU": "1", "resources2:PCPU": "3"}, {}, "dedicated"),
        ({"resources_A:PCPU": "4"}, {}, "dedicated"),
        ({"resources:PCPU": "5", "hw:emulator_threads_policy": "isolate"}, {}, "dedicated"),
        ({"resources:VCPU": "4"}, {}, "shared"),
        ({"resources:VCPU": "0", "hw:cpu_policy": "dedicated"}, {}, "dedicated"),
    ],
)
def test_the_cpu_policy(specs: dict[str, str], image: dict[str, str], policy: str) -> None:
    """The flavor's policy stands, the image's fills a gap, and resources:PCPU or resources:VCPU are another way to say it."""
    assert made(specs, image).cpu_policy == policy


@pytest.mark.rule("N5")
@pytest.mark.parametrize(
    ("specs", "image", "threads"),
    [
        ({"hw:cpu_thread_policy": "prefer"}, {"hw_cpu_thread_policy": "isolate"}, "prefer"),
        ({"hw:cpu_thread_policy": "isolate"}, {"hw_cpu_thread_policy": "isolate"}, "isolate"),
        ({"hw:cpu_thread_policy": "require"}, {}, "require"),
        ({}, {"hw_cpu_thread_policy": "isolate"}, "isolate"),
        ({"trait:HW_CPU_HYPERTHREADING": "required"}, {}, "require"),
        ({"trait1:HW_CPU_HYPERTHREADING": "forbidden"}, {}, "isolate"),
        ({}, {"trait:HW_CPU_HYPERTHREADING": "required"}, "require"),
        ({"trait:HW_CPU_HYPERTHREADING": "forbidden"}, {"trait:HW_CPU_HYPERTHREADING": "required"}, "isolate"),
    ],
)
def test_the_thread_policy(specs: dict[str, str], image: dict[str, str], threads: str) -> None:
    """A flavor that says prefer stands, the image fills a gap, and the hyperthreading trait is another way to say require or isolate."""
    wish = made({"hw:cpu_policy": "dedicated", **specs}, image)
    assert wish.thread_policy == threads
    assert (wish.required_traits, wish.forbidden_traits) == ((), ())


@pytest.mark.rule("N6")
@pytest.mark.parametrize(
    ("mask", "dedicated"), [("0", (0,)), ("^0", (1, 2, 3)), ("^0-1,3", (2, 3)), ("0-3,^1", (0, 2, 3)), (" ^1 , ^2", (0, 3))]
)
def test_a_mixed_guest_has_dedicated_vcpus(mask: str, dedicated: tuple[int, ...]) -> None:
    """The mask names the dedicated vCPUs of a mixed guest, and a leading ^ means all but; the others share."""
    wish = made({"hw:cpu_policy": "mixed", "hw:cpu_dedicated_mask": mask, "hw:numa_nodes": "2"})
    assert wish.dedicated_vcpus == dedicated
    cells = guest_of(wish).cells
    assert tuple(sorted(vcpu for cell in cells for vcpu in cell.dedicated)) == dedicated
    assert sorted(vcpu for cell in cells for vcpu in (*cell.dedicated, *cell.shared)) == [*ALL]


@pytest.mark.rule("N7")
@pytest.mark.parametrize(
    ("specs", "image", "realtime", "dedicated"),
    [
        ({"hw:cpu_policy": "dedicated", "hw:cpu_realtime": "yes", "hw:cpu_realtime_mask": "^0"}, {}, (1, 2, 3), ()),
        ({"hw:cpu_policy": "mixed", "hw:cpu_realtime": "true", "hw:cpu_realtime_mask": "0-1"}, {}, (0, 1), (0, 1)),
        ({"hw:cpu_policy": "dedicated", "hw:cpu_realtime": "1", "hw:cpu_realtime_mask": "0"}, {"hw_cpu_realtime_mask": "3"}, (3,), ()),
        ({"hw:cpu_policy": "dedicated", "hw:cpu_realtime": "on", "hw:emulator_threads_policy": "share"}, {}, ALL, ()),
        ({"hw:cpu_policy": "mixed", "hw:cpu_realtime": "on", "hw:emulator_threads_policy": "share"}, {}, ALL, ALL),
        ({"hw:cpu_policy": "dedicated", "hw:cpu_realtime": "no", "hw:cpu_realtime_mask": "nonsense"}, {}, (), ()),
        ({"hw:cpu_policy": "dedicated", "hw:cpu_realtime_mask": "nonsense"}, {}, (), ()),
    ],
)
def test_real_time_vcpus(specs: dict[str, str], image: dict[str, str], realtime: tuple[int, ...], dedicated: tuple[int, ...]) -> None:
    """Real-time vCPUs come from a mask, the image's before the flavor's; in a mixed guest they are the dedicated ones."""
    wish = made(specs, image)
    assert (wish.realtime_vcpus, wish.dedicated_vcpus) == (realtime, dedicated)
    check_request(wish)


def test_the_emulator_has_a_cpu_beside_the_first_cell() -> None:
    """The policy isolate adds one CPU, with guest cell 0 only; an image has no say in it."""
    wish = made({"hw:cpu_policy": "dedicated", "hw:numa_nodes": "2", "hw:emulator_threads_policy": "isolate"})
    assert [cell.emulator for cell in guest_of(wish).cells] == [1, 0]
    assert made({"hw:cpu_policy": "dedicated"}, {"hw_emulator_threads_policy": "isolate"}).emulator_policy is None


@pytest.mark.rule("H1", "H5")
@pytest.mark.parametrize(
    ("flavor", "image", "page"),
    [
        ("small", None, "small"), ("large", None, "large"), ("any", None, "any"), ("2048", None, 2048), ("2MB", None, 2048),
        ("2MiB", None, 2048), ("1GB", None, 1048576), ("0.5GB", None, 524288), (".5MB", None, 512),
        ("16384b", None, 2), ("16Kb", None, 2), ("16Kbit", None, 2), ("large", "2048", 2048), ("any", "small", "small"),
        ("large", "1GB", 1048576), ("any", "any", "any"), ("1025B", None, 1),
    ],
)  # fmt: skip
def test_the_page_size(flavor: str, image: str | None, page: int | str) -> None:
    """A page size is a name, KiB, or a size with its unit; an image chooses only under any or large; it holds for all cells."""
    specs = {"hw:mem_page_size": flavor, "hw:numa_nodes": "2"}
    assert made(specs, {} if image is None else {"hw_mem_page_size": image}).page_kib == page


@pytest.mark.rule("H6")
@pytest.mark.parametrize(
    ("flavor", "image", "locked"),
    [("true", None, True), ("yes", "1", True), (None, "true", True), ("false", None, False), (None, "no", False), ("", "", False)],
)
def test_locked_memory(flavor: str | None, image: str | None, locked: bool) -> None:
    """Memory is locked if the flavor or the image says so."""
    specs = {"hw:mem_page_size": "large"} | ({} if flavor is None else {"hw:locked_memory": flavor})
    assert made(specs, {} if image is None else {"hw_locked_memory": image}).locked_memory == locked


@pytest.mark.rule("P16")
@pytest.mark.parametrize(
    ("flavor", "image", "policy"),
    [
        (None, None, None),
        ("socket", None, "socket"),
        (None, "preferred", "preferred"),
        ("required", "required", "required"),
        ("", "legacy", "legacy"),
    ],
)
def test_the_affinity_of_devices(flavor: str | None, image: str | None, policy: str | None) -> None:
    """The flavor or its image may say how near devices must be; where both do they are equal."""
    specs = {} if flavor is None else {"hw:pci_numa_affinity_policy": flavor}
    properties = {} if image is None else {"hw_pci_numa_affinity_policy": image}
    assert pci_affinity(Flavor(extra_specs=specs), Image(properties=properties)) == policy


@pytest.mark.rule("C4", "C5")
def test_disk_is_exact_in_bytes() -> None:
    """Root, ephemeral disk and swap add up to the byte; a guest that boots from a volume has no root disk of the node's."""
    disks: dict[str, Any] = {"root_gb": 20, "ephemeral_gb": 5, "swap_mb": 1536}
    assert made({}, **disks).disk_bytes == 25 * GIB + 1536 * MIB
    assert made({}, boot_from_volume=True, **disks).disk_bytes == 5 * GIB + 1536 * MIB
    assert made({"resources:DISK_GB": "7"}, **disks).disk_bytes == 7 * GIB
    assert made({"resources:DISK_GB": "0"}, **disks).disk_bytes == 0


@pytest.mark.rule("C4")
def test_placement_counts_whole_gibibytes_of_disk() -> None:
    """The same flavor in Placement's words: swap is rounded up to a whole GiB, once; root is left out for a volume."""
    flavor = Flavor(vcpus=1, memory_mb=512, root_gb=20, ephemeral_gb=5, swap_mb=1536)
    assert placement_wish(flavor).amounts == {"DISK_GB": 27, "MEMORY_MB": 512, "VCPU": 1}
    assert placement_wish(flavor, boot_from_volume=True).amounts["DISK_GB"] == 7  # type: ignore[index]  # plain text for a NewType


@pytest.mark.rule("C13")
@pytest.mark.parametrize(
    ("specs", "amounts", "required", "forbidden"),
    [
        ({"hw:cpu_policy": "dedicated"}, {"PCPU": 4}, (), ()),
        ({"hw:cpu_policy": "dedicated", "hw:emulator_threads_policy": "isolate"}, {"PCPU": 5}, (), ()),
        ({"resources:PCPU": "5", "hw:emulator_threads_policy": "isolate"}, {"PCPU": 5}, (), ()),
        ({"hw:cpu_policy": "mixed", "hw:cpu_dedicated_mask": "0"}, {"PCPU": 1, "VCPU": 3}, (), ()),
        ({"hw:cpu_policy": "mixed", "hw:cpu_dedicated_mask": "0", "hw:emulator_threads_policy": "isolate"}, {"PCPU": 2, "VCPU": 3}, (), ()),
        ({"hw:cpu_policy": "dedicated", "hw:cpu_thread_policy": "isolate"}, {"PCPU": 4}, (), ("HW_CPU_HYPERTHREADING",)),
        ({"hw:cpu_policy": "dedicated", "hw:cpu_thread_policy": "require"}, {"PCPU": 4}, ("HW_CPU_HYPERTHREADING",), ()),
        ({"hw:cpu_policy": "shared", "hw:pci_numa_affinity_policy": "socket"}, {"VCPU": 4}, ("COMPUTE_SOCKET_PCI_NUMA_AFFINITY",), ()),
        ({"resources:VCPU": "2", "resources1:VGPU": "1", "trait1:CUSTOM_FAST": "required"}, {"VCPU": 2, "VGPU": 1}, (), ()),
        ({"resources:MEMORY_MB": "0", "resources:VCPU": "0", "resources:CUSTOM_IRON": "1"}, {"CUSTOM_IRON": 1, "MEMORY_MB": 0}, (), ()),
        ({"pci_passthrough:alias": "unknown:1"}, {"VCPU": 4}, (), ()),
    ],
)
def test_cpus_in_the_words_of_placement(specs: dict[str, str], amounts: dict[str, int], required: Any, forbidden: Any) -> None:
    """Dedicated vCPUs are PCPU, the others VCPU, the emulator's CPU one PCPU more; thread policies and sockets are traits of the node."""
    wish = placement_wish(Flavor(vcpus=4, memory_mb=4096, extra_specs=specs))
    assert wish.amounts == {name: amount for name, amount in ({"MEMORY_MB": 4096} | amounts).items() if amount}
    assert (wish.required, wish.forbidden) == (required, forbidden)
