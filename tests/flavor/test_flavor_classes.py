"""Resource classes, traits, persistent memory, encryption and aliases: what beside CPUs and memory a flavor asks for."""

from __future__ import annotations

import pytest
from tests.flavor.flavors import made

from earmark.core.flavor.alias import PciAlias, defined, whole_address
from earmark.core.model.ids import ResourceClass, Trait
from earmark.core.model.request import DeviceRequest, ResourceAmount
from earmark.core.model.units import GIB
from earmark.errors import InvalidFlavor

VF = PciAlias(name="vf", vendor_id="8086", product_id="154C", device_type="type-VF")
ANY_NIC = PciAlias(name="nic", vendor_id="15b3", product_id="1018")
OTHER_NIC = PciAlias(name="nic", vendor_id="8086", product_id="1889")


def amounts(*pairs: tuple[str, int]) -> tuple[ResourceAmount, ...]:
    """Return plain amounts."""
    return tuple(ResourceAmount(resource_class=ResourceClass(name), amount=amount) for name, amount in pairs)


def traits(*names: str) -> tuple[Trait, ...]:
    """Return traits."""
    return tuple(Trait(name) for name in names)


def test_plain_classes_are_added_up_over_groups() -> None:
    """Amounts of one class add up, whatever their group; a class of amount 0 is not asked for; classes are in order."""
    wish = made(
        {
            "resources:VGPU": "1",
            "resources1:VGPU": "2",
            "resources_X:CUSTOM_B": "1",
            "resources:CUSTOM_A": "4",
            "resources:SRIOV_NET_VF": "0",
        }
    )
    assert wish.resources == amounts(("CUSTOM_A", 4), ("CUSTOM_B", 1), ("VGPU", 3))
    assert wish.devices == ()


def test_amounts_of_the_node_replace_the_flavors() -> None:
    """resources:VCPU, MEMORY_MB and DISK_GB replace the figures of a guest that floats, with 0 too: bare metal takes its own class only."""
    wish = made({"resources:VCPU": "2", "resources:MEMORY_MB": "1024", "resources:DISK_GB": "3"}, root_gb=9)
    assert (wish.vcpus, wish.memory_bytes, wish.disk_bytes, wish.resources) == (2, GIB, 3 * GIB, ())
    iron = made({"resources:VCPU": "0", "resources:MEMORY_MB": "0", "resources:DISK_GB": "0", "resources:CUSTOM_IRON": "1"}, root_gb=9)
    assert (iron.vcpus, iron.memory_bytes, iron.disk_bytes, iron.resources) == (0, 0, 0, amounts(("CUSTOM_IRON", 1)))


def test_a_guest_with_cells_keeps_its_figures() -> None:
    """Where the guest lies on cells, its vCPUs and its memory are those of the cells, as the node counts them."""
    wish = made({"hw:numa_nodes": "2", "resources:VCPU": "2", "resources:MEMORY_MB": "1"})
    assert (wish.vcpus, wish.memory_bytes, wish.cpu_policy) == (4, 4 * GIB, "shared")


def test_traits_of_flavor_and_image() -> None:
    """The flavor requires or forbids traits, the image requires them; said twice is said once."""
    wish = made(
        {"trait:HW_CPU_X86_AVX2": "required", "trait:CUSTOM_SLOW": "forbidden", "trait1:CUSTOM_SLOW": "forbidden"},
        {"trait:CUSTOM_B": "required", "trait:HW_CPU_X86_AVX2": "required"},
    )
    assert wish.required_traits == traits("CUSTOM_B", "HW_CPU_X86_AVX2")
    assert wish.forbidden_traits == traits("CUSTOM_SLOW")


def test_traits_of_a_group_are_wanted_of_its_units() -> None:
    """A group of a class with traits is a wish for units that have them; without a class of its own its traits are the node's."""
    wish = made({"resources1:VGPU": "2", "trait1:CUSTOM_A100": "required", "trait1:CUSTOM_OLD": "forbidden", "resources:VGPU": "1"})
    unit = DeviceRequest(kind="class:VGPU", count=2, required_traits=traits("CUSTOM_A100"), forbidden_traits=traits("CUSTOM_OLD"))
    assert (wish.devices, wish.resources, wish.required_traits) == ((unit,), amounts(("VGPU", 1)), ())
    assert made({"resources1:VCPU": "4", "trait1:CUSTOM_A": "required"}).required_traits == traits("CUSTOM_A")


def test_one_group_may_be_isolated() -> None:
    """A policy for groups is harmless where there is nothing to keep apart."""
    assert made({"group_policy": "isolate", "resources1:VGPU": "1"}).resources == amounts(("VGPU", 1))
    assert made({"group_policy": "none", "resources1:VGPU": "1", "resources2:VGPU": "1"}).resources == amounts(("VGPU", 2))


@pytest.mark.rule("V6")
def test_persistent_memory_is_a_class_for_each_label() -> None:
    """Each label in hw:pmem is one namespace of its class; letter case and marks are those of the class."""
    wish = made({"hw:pmem": "SMALL,6GB, small ,my-big.one,,"})
    small, own, big = "CUSTOM_PMEM_NAMESPACE_6GB", "CUSTOM_PMEM_NAMESPACE_MY_BIG_ONE", "CUSTOM_PMEM_NAMESPACE_SMALL"
    assert wish.resources == amounts((small, 1), (own, 1), (big, 2))
    assert wish.cells == 1
    assert made({"hw:pmem": " , "}).cells is None


@pytest.mark.rule("V7", "H6")
def test_encrypted_memory_is_locked_and_takes_a_context() -> None:
    """Memory encryption takes one context and locks the memory, with or without a page size; a model adds the processor's trait."""
    uefi = {"hw_firmware_type": "uefi", "hw_machine_type": "pc-q35-8.0"}
    wish = made({"hw:mem_encryption": "true"}, uefi)
    assert (wish.locked_memory, wish.resources, wish.required_traits) == (True, amounts(("MEM_ENCRYPTION_CONTEXT", 1)), ())
    assert wish.cells is None
    wish = made({"hw:mem_encryption_model": "amd-sev-es"}, uefi | {"hw_mem_encryption": "yes"})
    assert wish.required_traits == traits("HW_CPU_X86_AMD_SEV_ES")
    assert not made({"hw:mem_encryption": "no", "hw:mem_encryption_model": "amd-sev"}, {}).resources
    assert made({"hw:mem_encryption": "true"}).locked_memory, "without an image nothing is known of its firmware"


@pytest.mark.rule("V6", "V7")
def test_two_spellings_of_one_wish_are_one_wish() -> None:
    """A class that hw:mem_encryption or hw:pmem stands for is not asked for once more where resources: names it as well."""
    uefi = {"hw_firmware_type": "uefi"}
    assert made({"hw:mem_encryption": "1", "resources:MEM_ENCRYPTION_CONTEXT": "1"}, uefi).resources == amounts(
        ("MEM_ENCRYPTION_CONTEXT", 1)
    )
    both = {"hw:pmem": "A,A", "resources:CUSTOM_PMEM_NAMESPACE_A": "1", "resources1:CUSTOM_PMEM_NAMESPACE_A": "1"}
    assert made(both).resources == amounts(("CUSTOM_PMEM_NAMESPACE_A", 3))


@pytest.mark.rule("P17")
def test_an_alias_becomes_a_wish_for_devices() -> None:
    """pci_passthrough:alias asks for counts of names, in its order; a name twice is two wishes; each has its policy and its name."""
    far = PciAlias(
        name="far", vendor_id="10de", product_id="20b0", numa_policy="preferred", traits="CUSTOM_B, CUSTOM_A", live_migratable="yes"
    )
    wish = made({"pci_passthrough:alias": "vf:2, far:1 ,vf:1"}, aliases=(far, VF))
    vf = {"dev_type": "VF", "vendor_id": "8086", "product_id": "154c"}
    gpu = {"vendor_id": "10de", "product_id": "20b0", "live_migratable": "true"}
    assert wish.devices == (
        DeviceRequest(kind="pci", count=2, match=(vf,), affinity="legacy", alias="vf"),
        DeviceRequest(kind="pci", match=(gpu,), affinity="preferred", alias="far", required_traits=traits("CUSTOM_A", "CUSTOM_B")),
        DeviceRequest(kind="pci", match=(vf,), affinity="legacy", alias="vf"),
    )


@pytest.mark.rule("P16")
def test_the_guests_affinity_replaces_that_of_each_alias() -> None:
    """hw:pci_numa_affinity_policy, or the image's, replaces what the aliases say, for all devices of the guest."""
    near = PciAlias(name="near", vendor_id="8086", product_id="154c", numa_policy="required")
    for specs, image in (({"hw:pci_numa_affinity_policy": "socket"}, {}), ({}, {"hw_pci_numa_affinity_policy": "socket"})):
        wish = made({"pci_passthrough:alias": "near:1,nic:1", **specs}, image, aliases=(near, ANY_NIC))
        assert [each.affinity for each in wish.devices] == ["socket", "socket"]


@pytest.mark.rule("P17", "W41")
def test_definitions_of_one_name_are_alternatives() -> None:
    """Two definitions of a name without a device type are two alternatives, where Nova stumbles over the missing type."""
    wish = made({"pci_passthrough:alias": "nic:1"}, aliases=(ANY_NIC, OTHER_NIC))
    assert wish.devices[0].match == ({"vendor_id": "15b3", "product_id": "1018"}, {"vendor_id": "8086", "product_id": "1889"})


@pytest.mark.rule("P17", "W41")
@pytest.mark.parametrize(
    "alias",
    [
        PciAlias(name="nic", vendor_id="8086", product_id="1889", device_type="VF"),
        PciAlias(name="nic", vendor_id="8086", product_id="1889", numa_policy="required"),
        PciAlias(name="nic", vendor_id="8086", product_id="1889", traits=("CUSTOM_A",)),
        PciAlias(name="nic", vendor_id="8086", product_id="1889", resource_class="CUSTOM_NIC"),
        PciAlias(name="x", vendor_id="808", product_id="1889"),
        PciAlias(name="x", vendor_id="8086"),
        PciAlias(name="x", product_id="1889"),
        PciAlias(name="x"),
        PciAlias(name="x", vendor_id="8086", product_id="1889", device_type="NIC"),
        PciAlias(name="x", vendor_id="8086", product_id="1889", live_migratable="perhaps"),
        PciAlias(name="x", vendor_id="8086", product_id="1889", traits=("custom",)),
        PciAlias(name="x", resource_class="custom"),
        PciAlias(name="x", vendor_id="8086", product_id="1889", address="0000:81:20.0"),
    ],
)
def test_a_wrong_alias_is_named(alias: PciAlias) -> None:
    """A definition that is wrong by itself, or unlike another of its name, is an error although no flavor asks for it."""
    with pytest.raises(InvalidFlavor, match=f"alias '{alias.name}': ") as raised:
        defined((ANY_NIC, alias))
    assert raised.value.kind == "PciInvalidAlias"


@pytest.mark.rule("P17")
def test_a_name_of_an_alias_is_suggested_as_placement_has_it() -> None:
    """A class or a trait that Nova would turn into Placement's spelling is refused with that spelling."""
    for alias, name in (
        (PciAlias(name="x", resource_class="my gpu-A"), "CUSTOM_MY_GPU_A"),
        (PciAlias(name="x", resource_class="Custom_gpu"), "CUSTOM_GPU"),
        (PciAlias(name="x", resource_class="VGPU", traits="CUSTOM_A,fast"), "CUSTOM_FAST"),
    ):
        with pytest.raises(InvalidFlavor, match=rf": is it {name}\?$"):
            defined((alias,))


def test_an_alias_may_name_a_resource_class() -> None:
    """With a resource class an alias is a wish for units of that class; ids and an address narrow it."""
    bare, one = PciAlias(name="gpu", resource_class="CUSTOM_GPU"), PciAlias(name="one", resource_class="CUSTOM_GPU", address="0:81:0.1")
    wish = made({"pci_passthrough:alias": "gpu:1,one:1"}, aliases=(bare, one))
    assert wish.devices == (
        DeviceRequest(kind="class:CUSTOM_GPU", affinity="legacy", alias="gpu"),
        DeviceRequest(kind="class:CUSTOM_GPU", match=({"address": "0000:81:00.1"},), affinity="legacy", alias="one"),
    )


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("0000:81:00.0", "0000:81:00.0"), ("0:3:1f.7", "0000:03:1f.7"), ("FFFF:FF:1F.7", "ffff:ff:1f.7"), ("10000:00:00.0", None),
        ("0000:100:00.0", None), ("0000:00:20.0", None), ("0000:00:00.8", None), ("81:00.0", None), ("0000:81:00", None), ("", None),
    ],
)  # fmt: skip
def test_the_parts_of_an_address_have_limits(text: str, whole: str | None) -> None:
    """Domain, bus, slot and function of a PCI address end at FFFF, FF, 1F and 7; an address is compared with all its digits (P18)."""
    assert whole_address(text) == whole


def test_order_of_definitions_does_not_hide_one() -> None:
    """The names of a flavor are looked for among all definitions, wherever they stand."""
    for aliases in ((VF, ANY_NIC, OTHER_NIC), (OTHER_NIC, VF, ANY_NIC)):
        assert len(made({"pci_passthrough:alias": "vf:1,nic:3"}, aliases=aliases).devices) == 2
