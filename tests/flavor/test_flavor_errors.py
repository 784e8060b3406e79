"""Every conflict is an error of a named kind, and of two the one that Nova names."""

from __future__ import annotations

from typing import Any

import pytest
from tests.flavor.flavors import kind_of, made

from earmark.core.flavor.affinity import pci_affinity
from earmark.core.flavor.alias import PciAlias
from earmark.core.flavor.flavor import Flavor, Image
from earmark.errors import InvalidFlavor, InvalidRequest

PINNED = {"hw:cpu_policy": "dedicated"}
MIXED = {"hw:cpu_policy": "mixed"}
TWO = {"hw:numa_nodes": "2"}


def cells(cpus: tuple[str, ...], mems: tuple[str, ...]) -> dict[str, str]:
    """Return two guest cells as a flavor lists them."""
    return TWO | {f"hw:numa_cpus.{n}": text for n, text in enumerate(cpus)} | {f"hw:numa_mem.{n}": text for n, text in enumerate(mems)}


EVEN = ("2048", "2048")
CASES: list[tuple[str, dict[str, str], dict[str, str]]] = [
    ("InvalidCPUAllocationPolicy", {"hw:cpu_policy": "pinned"}, {}),
    ("InvalidCPUAllocationPolicy", {"hw:cpu_policy": "DEDICATED"}, {}),
    ("InvalidCPUAllocationPolicy", PINNED, {"hw_cpu_policy": "own"}),
    ("ImageCPUPinningForbidden", {"hw:cpu_policy": "shared"}, {"hw_cpu_policy": "dedicated"}),
    ("ImageCPUPinningForbidden", {"hw:cpu_policy": "shared"}, {"hw_cpu_policy": "mixed"}),
    ("ImageCPUPinningForbidden", MIXED, {"hw_cpu_policy": "dedicated"}),
    ("InvalidCPUThreadAllocationPolicy", PINNED | {"hw:cpu_thread_policy": "own"}, {}),
    ("InvalidCPUThreadAllocationPolicy", PINNED | {"hw:cpu_thread_policy": "require-strict"}, {}),
    ("InvalidCPUThreadAllocationPolicy", PINNED, {"hw_cpu_thread_policy": "own"}),
    ("ImageCPUThreadPolicyForbidden", PINNED | {"hw:cpu_thread_policy": "isolate"}, {"hw_cpu_thread_policy": "require"}),
    ("ImageCPUThreadPolicyForbidden", PINNED | {"hw:cpu_thread_policy": "require"}, {"hw_cpu_thread_policy": "prefer"}),
    ("CPUThreadPolicyConfigurationInvalid", {"hw:cpu_thread_policy": "prefer"}, {}),
    ("CPUThreadPolicyConfigurationInvalid", {"hw:cpu_policy": "shared"}, {"hw_cpu_thread_policy": "require"}),
    ("CPUThreadPolicyConfigurationInvalid", {"trait:HW_CPU_HYPERTHREADING": "required"}, {}),
    ("InvalidEmulatorThreadsPolicy", PINNED | {"hw:emulator_threads_policy": "off"}, {}),
    ("BadRequirementEmulatorThreadsPolicy", {"hw:emulator_threads_policy": "isolate"}, {}),
    ("Invalid", MIXED | {"hw:cpu_dedicated_mask": "3-1"}, {}),
    ("Invalid", MIXED | {"hw:cpu_dedicated_mask": "0;1"}, {}),
    ("Invalid", cells(("0-1", "2-x"), EVEN), {}),
    ("InvalidMixedInstanceDedicatedMask", MIXED | {"hw:cpu_dedicated_mask": "0-3"}, {}),
    ("InvalidMixedInstanceDedicatedMask", MIXED | {"hw:cpu_dedicated_mask": "^0-3"}, {}),
    ("InvalidMixedInstanceDedicatedMask", MIXED | {"hw:cpu_dedicated_mask": "0,4"}, {}),
    ("InvalidMixedInstanceDedicatedMask", MIXED | {"hw:cpu_dedicated_mask": "0,999999999999"}, {}),
    ("InvalidMixedInstanceDedicatedMask", PINNED | {"hw:cpu_dedicated_mask": ","}, {}),
    ("RequiredMixedInstancePolicy", PINNED | {"hw:cpu_dedicated_mask": "0"}, {}),
    ("RequiredMixedInstancePolicy", {"hw:cpu_dedicated_mask": "0"}, {}),
    ("RequiredMixedOrRealtimeCPUMask", MIXED, {}),
    (
        "RequiredMixedOrRealtimeCPUMask",
        MIXED | {"hw:cpu_dedicated_mask": "0", "hw:cpu_realtime": "yes", "hw:cpu_realtime_mask": "0"},
        {},
    ),
    ("RealtimeMaskNotFoundOrInvalid", PINNED | {"hw:cpu_realtime": "yes"}, {}),
    ("RealtimeMaskNotFoundOrInvalid", PINNED | {"hw:cpu_realtime": "yes", "hw:cpu_realtime_mask": "0-3"}, {}),
    ("RealtimeMaskNotFoundOrInvalid", PINNED | {"hw:cpu_realtime": "yes", "hw:cpu_realtime_mask": "2-4"}, {}),
    ("RealtimeMaskNotFoundOrInvalid", PINNED | {"hw:cpu_realtime": "yes", "hw:cpu_realtime_mask": "^0-3"}, {}),
    ("RealtimeConfigurationInvalid", {"hw:cpu_realtime": "yes", "hw:cpu_realtime_mask": "0"}, {}),
    ("InvalidRequest", PINNED | {"resources:PCPU": "4"}, {}),
    ("InvalidRequest", {"resources:VCPU": "4"}, {"hw_cpu_policy": "shared"}),
    ("InvalidRequest", {"resources:VCPU": "2", "resources:PCPU": "2"}, {}),
    ("InvalidRequest", {"resources:PCPU": "3"}, {}),
    ("InvalidRequest", {"resources:PCPU": "4", "hw:emulator_threads_policy": "isolate"}, {}),
    ("InvalidRequest", {"resources:PCPU": "5", "hw:emulator_threads_policy": "share"}, {}),
    ("InvalidRequest", PINNED | {"hw:cpu_thread_policy": "isolate", "trait:HW_CPU_HYPERTHREADING": "forbidden"}, {}),
    ("InvalidRequest", PINNED, {"hw_cpu_thread_policy": "isolate", "trait:HW_CPU_HYPERTHREADING": "required"}),
    ("InvalidRequest", PINNED | {"trait:HW_CPU_HYPERTHREADING": "forbidden", "trait1:HW_CPU_HYPERTHREADING": "required"}, {}),
    ("ImageNUMATopologyForbidden", TWO, {"hw_numa_nodes": "2"}),
    ("ImageNUMATopologyForbidden", cells(("0-1", "2-3"), EVEN), {"hw_numa_mem.0": "2048"}),
    ("InvalidNUMANodesNumber", {"hw:numa_nodes": "0"}, {}),
    ("InvalidNUMANodesNumber", {"hw:numa_nodes": "-1"}, {}),
    ("InvalidNUMANodesNumber", {"hw:numa_nodes": "1.5"}, {}),
    ("InvalidNUMANodesNumber", {"hw:numa_nodes": "02"}, {}),  # the judge of ../shared is looser here than Nova
    ("InvalidNUMANodesNumber", {}, {"hw_numa_nodes": "two"}),
    ("ImageNUMATopologyAsymmetric", {"hw:numa_nodes": "3"}, {}),
    ("ImageNUMATopologyIncomplete", TWO | {"hw:numa_cpus.0": "0-3"}, {}),
    ("ImageNUMATopologyIncomplete", TWO, {"hw_numa_mem.0": "4096"}),
    ("ImageNUMATopologyIncomplete", cells(("0-3",), ("4096",)), {}),
    ("ImageNUMATopologyIncomplete", PINNED | cells(("0-1", "2-3"), EVEN) | {"hw:numa_nodes": "1"}, {}),
    ("ImageNUMATopologyCPUOutOfRange", cells(("0-1", "2-4"), EVEN), {}),
    ("ImageNUMATopologyCPUOutOfRange", cells(("0-99999999999999999", "0"), EVEN), {}),
    ("ImageNUMATopologyCPUDuplicates", cells(("0-1", "1-3"), EVEN), {}),
    ("ImageNUMATopologyCPUsUnassigned", cells(("0", "2-3"), EVEN), {}),
    ("ImageNUMATopologyMemoryOutOfRange", cells(("0-1", "2-3"), ("2048", "1024")), {}),
    ("ImageNUMATopologyMemoryOutOfRange", cells(("0-1", "2-3"), ("-1024", "5120")), {}),  # Nova takes memory below 0 if the sum is right
    ("Invalid", cells(("0-1", "2-3"), ("2048", "2G")), {}),
    ("MemoryPageSizeInvalid", {"hw:mem_page_size": "2 miles"}, {}),
    ("MemoryPageSizeInvalid", {"hw:mem_page_size": "-2MB"}, {}),
    ("MemoryPageSizeInvalid", {"hw:mem_page_size": "0"}, {}),  # Nova takes it for no page size, and divides by it later
    ("MemoryPageSizeInvalid", {"hw:mem_page_size": "1B"}, {}),
    ("MemoryPageSizeInvalid", {"hw:mem_page_size": "²"}, {}),
    ("MemoryPageSizeInvalid", {"hw:mem_page_size": "large"}, {"hw_mem_page_size": "huge"}),
    ("MemoryPageSizeForbidden", {"hw:mem_page_size": "2048"}, {"hw_mem_page_size": "2048"}),
    ("MemoryPageSizeForbidden", {"hw:mem_page_size": "small"}, {"hw_mem_page_size": "any"}),
    ("MemoryPageSizeForbidden", {}, {"hw_mem_page_size": "large"}),
    ("LockMemoryForbidden", {"hw:locked_memory": "true"}, {}),
    ("LockMemoryForbidden", {}, {"hw_locked_memory": "yes"}),
    ("FlavorImageLockedMemoryConflict", {"hw:mem_page_size": "any", "hw:locked_memory": "true"}, {"hw_locked_memory": "false"}),
    ("FlavorImageLockedMemoryConflict", {"hw:mem_page_size": "any", "hw:locked_memory": ""}, {"hw_locked_memory": "true"}),
    ("FlavorImageLockedMemoryConflict", {"hw:mem_page_size": "any", "hw:locked_memory": "true"}, {"hw_locked_memory": ""}),
    ("ImagePCINUMAPolicyForbidden", {"hw:pci_numa_affinity_policy": "legacy"}, {"hw_pci_numa_affinity_policy": "socket"}),
    ("InvalidPCINUMAAffinity", {"hw:pci_numa_affinity_policy": "near"}, {}),
    ("ValidationError", {"hw:cpu_realtime": "maybe"}, {}),
    ("ValidationError", {"hw:mem_page_size": "any", "hw:locked_memory": "maybe"}, {}),
    ("ValidationError", {"resources:VCPU": "many"}, {}),
    ("ValidationError", {"resources:VCPU": "-4"}, {}),
    ("ValidationError", {"resources:custom": "1"}, {}),
    ("ValidationError", {"resources:PAGES": "1"}, {}),
    ("ValidationError", {"trait:CUSTOM_X": "preferred"}, {}),
    ("ValidationError", {"trait:custom": "required"}, {}),
    ("ValidationError", {}, {"trait:CUSTOM_X": "forbidden"}),
    ("ValidationError", {}, {"trait:custom": "required"}),
    ("ValidationError", {"hw:pmem": "SMALL,a b"}, {}),
    ("ValidationError", {"group_policy": "other"}, {}),
    ("ValidationError", {"hw:mem_encryption": "true", "hw:mem_encryption_model": "tdx"}, {"hw_firmware_type": "uefi"}),
    ("Unsupported", {"group_policy": "isolate", "resources1:VGPU": "1", "resources2:VGPU": "1"}, {}),
    ("InvalidRequest", {"trait:CUSTOM_X": "forbidden"}, {"trait:CUSTOM_X": "required"}),
    ("InvalidRequest", {"trait1:CUSTOM_X": "forbidden", "trait2:CUSTOM_X": "required"}, {}),
    ("FlavorImageConflict", {"hw:mem_encryption": "true"}, {"hw_mem_encryption": "false", "hw_firmware_type": "uefi"}),
    ("FlavorImageConflict", {"hw:mem_encryption": "true"}, {}),
    ("FlavorImageConflict", {}, {"hw_mem_encryption": "true", "hw_firmware_type": "bios"}),
    (
        "FlavorImageConflict",
        {"hw:mem_encryption": "1", "hw:mem_encryption_model": "amd-sev"},
        {"hw_firmware_type": "uefi", "hw_mem_encryption_model": "amd-sev-es"},
    ),
    ("InvalidMachineType", {"hw:mem_encryption": "true"}, {"hw_firmware_type": "uefi", "hw_machine_type": "pc"}),
    ("ImageVCPULimitsRangeExceeded", {"hw:cpu_max_sockets": "2"}, {"hw_cpu_max_sockets": "4"}),
    ("ImageVCPUTopologyRangeExceeded", {"hw:cpu_max_cores": "2"}, {"hw_cpu_cores": "4"}),
    ("ImageVCPULimitsRangeImpossible", {"hw:cpu_max_sockets": "1", "hw:cpu_max_cores": "2", "hw:cpu_max_threads": "1"}, {}),
    ("InvalidRequest", {"hw:cpu_sockets": "two"}, {}),
    ("PciRequestAliasNotDefined", {"pci_passthrough:alias": "vf:1,gpu:1"}, {}),
    ("PciInvalidAlias", {"pci_passthrough:alias": "vf"}, {}),
    ("PciInvalidAlias", {"pci_passthrough:alias": "vf:0"}, {}),
    ("PciInvalidAlias", {"pci_passthrough:alias": "vf:1,"}, {}),
    ("PciInvalidAlias", {"pci_passthrough:alias": "vf:many"}, {}),
    ("BeyondBounds", {"pci_passthrough:alias": ",".join(["vf:1"] * 65)}, {}),
    ("BeyondBounds", {"resources:CUSTOM_X": "9" * 18}, {}),
    ("BeyondBounds", {"hw:mem_page_size": "1EB"}, {}),  # a page size for Nova, which no host has
    ("BeyondBounds", {"resources:MEMORY_MB": "9" * 18}, {}),
    ("BeyondBounds", {"resources:DISK_GB": "9" * 18}, {}),
    ("BeyondBounds", {"resources:VCPU": "9" * 18}, {}),
    ("BeyondBounds", {"resources1:VGPU": "2000", "trait1:CUSTOM_X": "required"}, {}),
]
"""The kind of the error, the extra specs, the image's properties."""


@pytest.mark.rule("N2", "N3", "N4", "N5", "N6", "N7", "N24", "H1", "H6", "P16", "P17", "V6", "V7")
@pytest.mark.parametrize(("kind", "specs", "image"), CASES)
def test_each_fault_has_its_kind(kind: str, specs: dict[str, str], image: dict[str, str]) -> None:
    """A fault in four vCPUs and 4 GiB is an InvalidFlavor of the kind that Nova names it by."""
    alias = PciAlias(name="vf", vendor_id="8086", product_id="154c")
    assert kind_of(specs, image, aliases=(alias,)) == kind


@pytest.mark.parametrize(
    ("kind", "specs", "more"),
    [
        ("BeyondBounds", {"hw:numa_nodes": "65"}, {"vcpus": 65, "memory_mb": 650}),
        ("InvalidRequest", {}, {"vcpus": 0, "memory_mb": 0}),
        ("InvalidRequest", {"resources:VCPU": "0", "resources:MEMORY_MB": "0", "resources:CUSTOM_X": "0"}, {}),
        ("InvalidRequest", PINNED, {"vcpus": 0}),
        ("InvalidRequest", {"hw:mem_page_size": "large"}, {"memory_mb": 0}),
    ],
)
def test_a_flavor_of_a_strange_size(kind: str, specs: dict[str, str], more: dict[str, Any]) -> None:
    """A flavor that asks for nothing, or for more cells than any host has, is an error too."""
    assert kind_of(specs, **more) == kind


@pytest.mark.parametrize(
    ("kind", "specs"),
    [
        ("InvalidCPUAllocationPolicy", {"hw:cpu_policy": "x", "hw:cpu_thread_policy": "x"}),
        ("InvalidCPUThreadAllocationPolicy", {"hw:cpu_thread_policy": "x", "hw:emulator_threads_policy": "x"}),
        ("InvalidEmulatorThreadsPolicy", {"hw:cpu_realtime": "yes", "hw:emulator_threads_policy": "x", "hw:cpu_dedicated_mask": "9"}),
        ("InvalidMixedInstanceDedicatedMask", {"hw:emulator_threads_policy": "x", "hw:cpu_dedicated_mask": "9"}),
        ("InvalidRequest", {"resources:PCPU": "2", "hw:numa_nodes": "x"}),
        ("CPUThreadPolicyConfigurationInvalid", {"hw:cpu_thread_policy": "isolate", "hw:cpu_dedicated_mask": "0"}),
        ("InvalidNUMANodesNumber", {"hw:numa_nodes": "x", "hw:mem_page_size": "x"}),
        ("MemoryPageSizeInvalid", {"hw:mem_page_size": "x", "hw:numa_nodes": "3"}),
        ("LockMemoryForbidden", {"hw:locked_memory": "1", "hw:numa_nodes": "3"}),
        ("ImageNUMATopologyAsymmetric", {"hw:numa_nodes": "3", "hw:pci_numa_affinity_policy": "x"}),
        ("InvalidPCINUMAAffinity", {"hw:pci_numa_affinity_policy": "x", "resources:CUSTOM_X": "x"}),
        ("ImageNUMATopologyAsymmetric", {"hw:numa_nodes": "3", "resources:VCPU": "x", "pci_passthrough:alias": "x"}),
    ],
)
def test_of_two_faults_the_first_is_named(kind: str, specs: dict[str, str]) -> None:
    """Where two things are wrong, the one is named that Nova comes upon first."""
    assert kind_of(specs) == kind


@pytest.mark.parametrize(
    ("specs", "image", "message"),
    [
        ({}, {"hw_cpu_thread_policy": "isolate"}, "hw_cpu_thread_policy = 'isolate': needs dedicated CPUs"),
        ({"trait:HW_CPU_HYPERTHREADING": "forbidden"}, {}, "trait:HW_CPU_HYPERTHREADING = 'forbidden': needs dedicated CPUs"),
        (PINNED | {"hw:cpu_realtime": "yes"}, {}, "hw:cpu_realtime = 'yes': all 4 vCPUs are real-time: leave some out by hw:cpu_realtime"),
        (PINNED | {"hw:cpu_realtime": "yes"}, {"hw_cpu_realtime_mask": "0-3"}, "hw_cpu_realtime_mask = '0-3': all 4 vCPUs are"),
        ({"resources1:PCPU": "1", "resources2:PCPU": "2"}, {}, "resources1:PCPU + resources2:PCPU = 3: not 4: one for each of 4 vCPUs"),
        (PINNED | {"resources_X:VCPU": "4"}, {}, "resources_X:VCPU = 4: hw:cpu_policy or hw_cpu_policy says dedicated already"),
        (TWO, {"hw_numa_mem.0": "1"}, "hw_numa_mem.0 = '1': needs numa_cpus.0 too"),
        (TWO | {"hw:numa_cpus.0": "0"}, {}, "hw:numa_cpus.0 = '0': needs numa_mem.0 too"),
        (
            cells(("0-3",), ("4096",)) | {"hw:numa_cpus.2": "3", "hw:numa_mem.1": "1"},
            {},
            "hw:numa_nodes = 2: needs numa_cpus.N and numa_mem.N for each N below 2, found 1 and 2 without a gap",
        ),
        (PINNED | {"hw:numa_cpus.0": "0-3", "hw:numa_mem.0": "1", "hw:numa_mem.1": "1"}, {}, "hw:numa_nodes = 1: needs numa_cpus.N and"),
        (cells(("0-2", "2,3"), EVEN), {}, "hw:numa_cpus.1 = '2,3': vCPU 2 is in a cell already"),
        (cells(("0-2", "3-4"), EVEN), {}, "hw:numa_cpus.1 = '3-4': vCPU 4 is not one of the flavor's 4"),
        (PINNED, {"hw_numa_cpus.0": "4", "hw_numa_mem.0": "4096"}, "hw_numa_cpus.0 = '4': vCPU 4 is not one of the flavor's 4"),
        (cells(("0", "2,3"), EVEN), {}, "hw:numa_cpus.N = '0 and 2,3': no cell has vCPU 1, each belongs to one"),
        (cells(("0-1", "2-3"), ("2048", "1024")), {}, "the sum of hw:numa_mem.N = 3072: not the flavor's 4096 MiB"),
        ({"hw:cpu_sockets": "-1"}, {}, "hw:cpu_sockets = '-1': not a whole number from 0 on"),
        ({"hw:mem_page_size": "1EB"}, {}, "hw:mem_page_size = '1EB': a page has at most 1099511627776 KiB"),
    ],
)
def test_an_error_names_the_key_that_was_written(specs: dict[str, str], image: dict[str, str], message: str) -> None:
    """The key in a message is the one that stands in the flavor or the image, in its own spelling, with its own value."""
    with pytest.raises(InvalidFlavor) as raised:
        made(specs, image)
    assert str(raised.value).startswith("flavor: " + message)


def test_the_affinity_alone_has_the_same_errors() -> None:
    """Who asks for the affinity only is told the same."""
    with pytest.raises(InvalidFlavor) as raised:
        pci_affinity(Flavor(extra_specs={"hw:pci_numa_affinity_policy": "near"}), Image())
    assert raised.value.kind == "InvalidPCINUMAAffinity"


def test_an_error_says_what_was_tried_and_found() -> None:
    """The message names the key, the value and what would do; the same stands in the facts; it is the caller's fault."""
    with pytest.raises(InvalidRequest) as raised:
        made({"hw:cpu_policy": "pinned"})
    assert str(raised.value) == "flavor: hw:cpu_policy = 'pinned': not one of shared, dedicated, mixed"
    assert raised.value.facts == {"kind": "InvalidCPUAllocationPolicy", "key": "hw:cpu_policy", "found": "'pinned'"}
    assert raised.value.problem()["title"] == "invalid flavor"
    with pytest.raises(InvalidFlavor, match=r"hw:cpu_policy = 'shared' of the flavor and hw_cpu_policy = 'mixed': an image may not ask"):
        made({"hw:cpu_policy": "shared"}, {"hw_cpu_policy": "mixed"})


def test_a_long_text_is_cut_in_messages() -> None:
    """A message does not repeat a text without end."""
    with pytest.raises(InvalidFlavor) as raised:
        made({"hw:numa_nodes": "9" * 100_000})
    assert len(str(raised.value)) < 300
