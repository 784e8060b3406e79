"""What a device policy makes of a machine's devices: rules, mediated devices, named resources."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.devices.boxes import GPU, GPU_BOX, NICS, TYPES, box, card, drawn_rules, layout, ruled
from tests.fit.worlds import BARE, sriov

from earmark.core.fit.devices.policy import INSTANCES_MAX, applied, mdev_type_of, parent_local, policy_notes, unit_classes
from earmark.core.fit.layout import build_layout
from earmark.core.model.device_rule import DeviceRule, NamedResource
from earmark.core.model.ids import RESOURCE_CLASS, ResourceClass, Slot, Trait, UnitId
from earmark.core.model.inventory import Inventory
from earmark.core.model.node import NodeSettings, Provided
from earmark.core.model.topology import Device, MdevType
from earmark.errors import InvalidRequest

NIC = "0000:03:00.0"
VFS = {f"pci:0000:03:02.{number}" for number in range(3)}
PF = UnitId(f"pci:{NIC}")
PMEM = ResourceClass("CUSTOM_PMEM_NAMESPACE_4GB")


def granted(devices: tuple[Device, ...], *rules: DeviceRule, **more: object) -> set[str]:
    """Return the units that may be handed out."""
    return set(layout(devices, *rules, **more).grantable)


MATCHES: list[tuple[DeviceRule, set[str]]] = [
    (DeviceRule(), {str(device.unit) for device in NICS}),
    (DeviceRule(address=NIC), {PF, *VFS}),
    (DeviceRule(address="0000:03:*"), {PF, *VFS}),
    (DeviceRule(address="0000:03:02.?"), VFS),
    (DeviceRule(address=NIC, dev_type="VF"), VFS),
    (DeviceRule(address=NIC, dev_type="type-PF"), {PF}),
    (DeviceRule(address="*:02.1"), {"pci:0000:03:02.1", "pci:0000:04:02.1"}),
    (DeviceRule(observed_kind="nic"), {PF, "pci:0000:04:00.0"}),
    (DeviceRule(units=(PF, UnitId("pci:0000:04:02.0"))), {PF, "pci:0000:04:02.0"}),
    (DeviceRule(units=(PF,), dev_type="VF"), set()),
    (DeviceRule(vendor_id="*", dev_type="PF"), {PF, "pci:0000:04:00.0"}),
    (DeviceRule(vendor_id="8086"), set()),
    (DeviceRule(address="[0]000:03:00.0"), set()),
]


@pytest.mark.rule("P18")
@pytest.mark.parametrize(("rule", "units"), MATCHES)
def test_a_rule_matches_what_all_its_fields_match(rule: DeviceRule, units: set[str]) -> None:
    """Every field that is set must match; the address of a physical function matches its virtual ones; `*` and `?` are as in a shell."""
    if rule.address == "[0]000:03:00.0":
        with pytest.raises(InvalidRequest, match="not a PCI address"):
            granted(NICS, rule)
        return
    assert granted(NICS, rule, device_kinds=()) == units


@pytest.mark.rule("P18")
@pytest.mark.parametrize(
    ("vendor", "product", "hit"), [("10DE", None, True), ("0x10de", "1DB4", True), ("*", "*", True), ("10de", "2330", False)]
)
def test_ids_are_hexadecimal_in_either_case(vendor: str, product: str | None, hit: bool) -> None:
    """Vendor and product are compared as numbers are read: case and 0x do not count, * is any."""
    rule = DeviceRule(vendor_id=vendor, product_id=product)
    assert bool(granted(GPU_BOX, rule, device_kinds=())) is hit


@pytest.mark.rule("P18")
def test_the_first_match_wins() -> None:
    """A device is what the first rule that matches it says; later rules and the kinds of the node have no say."""
    rules = (DeviceRule(units=(GPU,), hand_out=False), DeviceRule(vendor_id="10de", kind="fast", tags={"b": "2", "a": "1"}))
    found = layout(GPU_BOX, *rules)
    assert found.grantable == {"pci:0000:42:00.0"}
    assert [device.kind for device in found.devices["fast"]] == ["fast"]
    assert found.known[UnitId("pci:0000:42:00.0")].tags == (("a", "1"), ("b", "2"))
    assert found.known[GPU].tags == ()


def test_what_a_rule_says_stands_in_the_layout() -> None:
    """Kind, tags, traits, class, shares and the two flags are the device's from then on; its type stays what the driver saw."""
    rule = DeviceRule(
        dev_type="VF", kind="fast-nic", tags={"physical_network": "physnet1"}, traits=(Trait("CUSTOM_B"), Trait("CUSTOM_A")),
        resource_class=ResourceClass("CUSTOM_VF"), live_migratable=True, one_time_use=True,
    )  # fmt: skip
    device = layout(NICS, rule).known[UnitId("pci:0000:03:02.1")]
    assert (device.kind, device.pci_type, device.resource_class, device.parent) == ("fast-nic", "VF", "CUSTOM_VF", PF)
    assert (device.traits, device.live_migratable, device.one_time_use, device.shares) == (("CUSTOM_A", "CUSTOM_B"), True, True, False)
    assert layout(GPU_BOX, DeviceRule(shares=True)).known[GPU].shares


def test_a_function_and_its_virtual_ones_may_both_be_handed_out() -> None:
    """Both are grantable and share slots, so that only one side is ever given (unlike P23, which refuses to configure it)."""
    found = layout(NICS, DeviceRule(address=NIC))
    assert {PF, *VFS} <= found.grantable
    assert set(found.slots[PF]) >= {PF, *VFS}


def test_what_reports_a_fault_is_not_handed_out() -> None:
    """A device with a fault is known and not grantable, neither whole nor in parts, whatever a rule says."""
    sick = card("0000:41:00.0", mdev_types=TYPES, fault="Xid 79")
    for rule in (DeviceRule(), DeviceRule(mdev_type="nvidia-35")):
        found = layout((sick,), rule)
        assert not found.grantable
        assert set(found.known) == {GPU}


# --- mediated devices ---------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("V1", "V2")
def test_a_parent_is_split_into_instances_of_one_type() -> None:
    """Each parent has one type, as many instances as the kernel says there are or can be, each a unit of the class VGPU."""
    found = layout(
        GPU_BOX,
        DeviceRule(units=(GPU,), mdev_type="nvidia-35"),
        DeviceRule(mdev_type="nvidia-36", resource_class=ResourceClass("CUSTOM_HALF")),
    )
    assert {device.unit for device in found.devices["class:VGPU"]} == {f"mdev:0000:41:00.0/nvidia-35/{number}" for number in range(8)}
    assert {device.unit for device in found.devices["class:CUSTOM_HALF"]} == {
        f"mdev:0000:42:00.0/nvidia-36/{number}" for number in range(4)
    }
    one = found.devices["class:CUSTOM_HALF"][0]
    assert (one.parent, one.cell, one.identity) == ("pci:0000:42:00.0", 1, GPU_BOX[1].identity)
    assert (one.resource_class, one.tags, one.address) == ("CUSTOM_HALF", (("mdev_type", "nvidia-36"),), None)
    assert mdev_type_of(one.unit) == "nvidia-36"
    assert parent_local(one.unit) == "0000:42:00.0"


@pytest.mark.rule("V2", "W29")
@pytest.mark.parametrize(("most", "count"), [(None, 8), (8, 8), (3, 3), (0, 0), (100, 8)])
def test_more_than_allowed_is_capped_not_dropped(most: int | None, count: int) -> None:
    """Where a parent could have more than max_instances, that many are handed out: Nova drops the whole parent."""
    found = layout(GPU_BOX[:1], DeviceRule(mdev_type="nvidia-35", max_instances=most))
    assert len(found.devices.get("class:VGPU", ())) == count


def test_a_hostile_count_of_instances_is_bounded() -> None:
    """A parent that says it has 2**60 of them gives INSTANCES_MAX."""
    huge = card("0000:41:00.0", mdev_types=(MdevType(name="t", total=1 << 60),))
    assert len(layout((huge,), DeviceRule(mdev_type="t")).devices["class:VGPU"]) == INSTANCES_MAX


def test_a_split_parent_is_given_whole_only_if_a_kind_says_so() -> None:
    """Instances alone by default; with a kind the whole card is handed out too, and excludes its instances."""
    parts = layout(GPU_BOX[:1], DeviceRule(mdev_type="nvidia-36"))
    assert GPU not in parts.grantable
    both = layout(GPU_BOX[:1], DeviceRule(mdev_type="nvidia-36", kind="gpu"))
    assert GPU in both.grantable
    assert set(both.slots[GPU]) == {GPU, *(f"mdev:0000:41:00.0/nvidia-36/{number}" for number in range(4))}
    assert both.above[UnitId("mdev:0000:41:00.0/nvidia-36/0")] == (Slot(GPU),)


@pytest.mark.rule("V1")
def test_a_parent_without_the_type_gives_nothing_and_is_named() -> None:
    """A parent that does not offer its rule's type has no instances; the policy's notes say what it offers."""
    machine = box(*GPU_BOX, card("0000:43:00.0"))
    settings = ruled(DeviceRule(mdev_type="nvidia-35", max_instances=2, observed_kind="gpu"), DeviceRule(units=(UnitId("pci:gone"),)))
    assert len(build_layout(machine, settings).devices["class:VGPU"]) == 4
    assert policy_notes(machine, settings) == (
        "device rule 1: pci:0000:41:00.0 has 8 of nvidia-35, 2 instances may be handed out",
        "device rule 1: pci:0000:42:00.0 has 8 of nvidia-35, 2 instances may be handed out",
        "device rule 1: pci:0000:43:00.0 offers no nvidia-35 (it offers none)",
        "device rule 2: there is no unit pci:gone now",
    )


def test_instances_are_named_by_what_names_their_parent() -> None:
    """A parent that is known by its UUID gives its instances that name: another card at its address has other instances."""
    gpu = card("0000:41:00.0", unit=UnitId("gpu:GPU-1"), mdev_types=TYPES)
    assert layout((gpu,), DeviceRule(mdev_type="nvidia-36")).devices["class:VGPU"][0].unit == "mdev:GPU-1/nvidia-36/0"


# --- named resources ----------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("V4", "V6")
def test_named_resources_are_units() -> None:
    """Each named thing is a unit of its own class, on its cell if one is named."""
    named = (NamedResource(resource_class=PMEM, name="ns0", cell=1), NamedResource(resource_class=PMEM, name="ns1"))
    found = layout((), named_resources=named)
    assert [(device.unit, device.cell) for device in found.devices[f"class:{PMEM}"]] == [
        (f"named:{PMEM}/ns0", 1),
        (f"named:{PMEM}/ns1", None),
    ]
    assert unit_classes(ruled(named_resources=named)) == {PMEM}


def test_a_class_of_units_beats_what_files_provide() -> None:
    """A class that the node's own policy counts by units is not also an inventory of provider configuration."""
    settings = ruled(DeviceRule(mdev_type="nvidia-35"), named_resources=(NamedResource(resource_class=PMEM, name="a"),))
    files = Provided(inventories=(Inventory(resource_class=PMEM, total=5), Inventory(resource_class=ResourceClass("CUSTOM_B"), total=1)))
    assert set(build_layout(box(*GPU_BOX), settings, files).classes) == {"CUSTOM_B"}


# --- what cannot be -----------------------------------------------------------------------------------------------------------------

X = ResourceClass("CUSTOM_X")
NAMED = NamedResource(resource_class=X, name="a")
CONTRADICTIONS: list[tuple[NodeSettings, str]] = [
    (ruled(DeviceRule(hand_out=False, kind="gpu")), "rule 1: hand_out false beside kind"),
    (ruled(DeviceRule(hand_out=False, mdev_type="x", one_time_use=True)), "beside mdev_type, one_time_use"),
    (ruled(DeviceRule(max_instances=2)), "max_instances without mdev_type"),
    (ruled(DeviceRule(shares=True, one_time_use=True)), "shares beside one_time_use"),
    (ruled(DeviceRule(shares=True, mdev_type="x")), "shares beside mdev_type"),
    (ruled(DeviceRule(mdev_type="x", tags={"mdev_type": "y"})), "given by mdev_type itself"),
    (ruled(DeviceRule(vendor_id="10DE"), DeviceRule(), DeviceRule(vendor_id="0x10de", kind="b")), "rule 3 matches exactly what rule 1"),
    (ruled(DeviceRule(), DeviceRule(vendor_id="*", address="**")), "rule 2 matches exactly what rule 1"),
    (ruled(DeviceRule(units=(GPU, PF)), DeviceRule(units=(PF,), dev_type="PF")), f"names {PF}, of which rule 1"),
    (ruled(DeviceRule(vendor_id="intel")), "vendor_id 'intel' is not four hexadecimal digits"),
    (ruled(DeviceRule(product_id="12345")), "product_id '12345'"),
    (ruled(DeviceRule(address="")), "address '' is not"),
    (ruled(DeviceRule(units=(UnitId("nonsense"),))), "units 'nonsense'"),
    (ruled(DeviceRule(kind="GPU")), "kind 'GPU'"),
    (ruled(DeviceRule(kind="pci")), "any PCI device in a request"),
    (ruled(DeviceRule(dev_type="USB")), "dev_type 'USB' is none of PCI, PF, VF, VDPA"),
    (ruled(DeviceRule(tags={"a b": "c\n"})), "a tag's value"),
    (ruled(DeviceRule(traits=(Trait("low"),))), "traits 'low'"),
    (ruled(DeviceRule(resource_class=ResourceClass("x"))), "resource_class 'x'"),
    (ruled(DeviceRule(resource_class=ResourceClass("PCPU"))), "PCPU is counted from the machine"),
    (ruled(DeviceRule(mdev_type="a/b")), "mdev_type 'a/b'"),
    (ruled(DeviceRule(mdev_type="a", resource_class=ResourceClass("PGPU"))), "are of VGPU or of a CUSTOM_ class"),
    (ruled(*[DeviceRule(units=(UnitId(f"pci:{n}"),)) for n in range(1025)]), "1025 device rules are more than 1024"),
    (ruled(named_resources=(NAMED, NAMED)), "CUSTOM_X/a is there twice"),
    (ruled(named_resources=(replace(NAMED, cell=7),)), "on cell 7, which the machine has not"),
    (ruled(named_resources=(replace(NAMED, name="a b"),)), "a name without spaces"),
    (ruled(named_resources=(replace(NAMED, name=""),)), "a name without spaces"),
    (ruled(named_resources=(replace(NAMED, resource_class=ResourceClass("VCPU")),)), "VCPU is counted"),
    (
        ruled(
            named_resources=(
                NamedResource(resource_class=PMEM, name="a"),
                NamedResource(resource_class=ResourceClass("CUSTOM_PMEM_NAMESPACE_B"), name="a"),
            )
        ),
        "the namespace is of CUSTOM_PMEM_NAMESPACE_4GB already",
    ),
    (
        ruled(named_resources=(NAMED,), inventories=(Inventory(resource_class=X, total=2),)),
        "CUSTOM_X is counted by its units and has an inventory",
    ),
    (
        ruled(DeviceRule(mdev_type="a"), inventories=(Inventory(resource_class=ResourceClass("VGPU"), total=2),)),
        "VGPU is counted by its units",
    ),
]


@pytest.mark.rule("V6")
@pytest.mark.parametrize(("settings", "words"), CONTRADICTIONS)
def test_a_policy_that_contradicts_itself_is_refused(settings: NodeSettings, words: str) -> None:
    """Each contradiction names the rule or resource, and what is wrong with it."""
    with pytest.raises(InvalidRequest, match=words):
        build_layout(box(), settings)


def test_a_machine_may_lose_what_its_policy_names() -> None:
    """A cell or unit that is gone is no error once the settings are in force."""
    settings = ruled(DeviceRule(units=(UnitId("pci:gone"),)), named_resources=(replace(NAMED, cell=7),))
    assert build_layout(box(), settings, strict=False).known[UnitId("named:CUSTOM_X/a")].cell == 7


# --- laws ---------------------------------------------------------------------------------------------------------------------------


@given(st.lists(drawn_rules(), max_size=4), st.randoms(use_true_random=False))
def test_it_is_blind_to_the_order_of_devices_and_changes_nothing(rules: Sequence[DeviceRule], order: random.Random) -> None:
    """Devices in any order give the same answer; the machine is left as it was, and asked twice it answers the same."""
    devices = [*GPU_BOX, *NICS]
    settings = ruled(*rules, named_resources=(NAMED,))
    first = applied(box(*devices), settings)
    order.shuffle(devices)
    machine = box(*devices)
    before = machine.devices
    assert applied(machine, settings) == applied(machine, settings) == first
    assert machine.devices is before
    assert first.granted <= {device.unit for device in first.devices}
    assert len({device.unit for device in first.devices}) == len(first.devices)


@given(st.lists(drawn_rules(), max_size=4))
def test_each_device_is_as_its_first_matching_rule_alone_would_have_it(rules: Sequence[DeviceRule]) -> None:
    """Taking the rules one at a time, from the last to the first, gives the same as all of them at once."""
    machine = box(*GPU_BOX, *NICS)
    whole = applied(machine, ruled(*rules, device_kinds=()))
    expected: dict[str, bool] = {}
    for rule in reversed(rules):
        opened = replace(rule, hand_out=True)
        for unit in applied(machine, ruled(opened, device_kinds=())).granted:
            expected[unit] = rule.hand_out
    assert whole.granted == {unit for unit, out in expected.items() if out}


@given(st.permutations([*GPU_BOX, *NICS, *sriov(1, port=9)]), st.sets(st.sampled_from(["gpu", "vf", "nic", "accelerator"])))
def test_without_rules_nothing_is_other_than_before(devices: list[Device], kinds: set[str]) -> None:
    """Devices stay themselves, and those of the node's kinds and units are handed out."""
    settings = replace(BARE, device_kinds=tuple(sorted(kinds)), device_units=(GPU,))
    found = build_layout(box(*devices), settings)
    assert dict(found.known) == {device.unit: device for device in devices}
    assert found.grantable == {device.unit for device in devices if device.kind in kinds or device.unit == GPU}
    assert all(RESOURCE_CLASS.fullmatch(name) for name in found.classes)
