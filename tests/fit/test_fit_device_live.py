"""Devices of a live node: shares, IOMMU groups, prescribed grants, and what the auditor says of them."""

from __future__ import annotations

import immutables
import pytest
from msgspec.structs import replace
from tests.fit.worlds import BARE, World, machine

from earmark.core.fit.devices.rows import kept_out, stock_of
from earmark.core.fit.fit import fit
from earmark.core.fit.proof.judge import judge
from earmark.core.fit.proof.recheck import check_refusal
from earmark.core.ledger.audit import audit_node
from earmark.core.ledger.pairing import paired
from earmark.core.ledger.state import NodeState
from earmark.core.model.claim import Claim
from earmark.core.model.device_rule import DeviceRule
from earmark.core.model.grant import AmountRow, Grant, UnitRow
from earmark.core.model.ids import ClaimId, ConsumerId, NodeId, Owner, PoolId, ResourceClass, UnitId
from earmark.core.model.node import NodeSettings
from earmark.core.model.refusal import Refusal
from earmark.core.model.request import DeviceRequest, Request, ResourceAmount
from earmark.core.model.topology import Device

GPU = [UnitId(f"pci:0000:{n:02x}:00.0") for n in range(4)]
SOUND = [UnitId(f"pci:0000:{n:02x}:00.1") for n in range(4)]
SETTINGS = replace(BARE, device_kinds=("gpu", "vf"))


def gpu(n: int, **more: object) -> Device:
    """Return a GPU on cell n % 2."""
    made = Device(unit=GPU[n], kind="gpu", address=GPU[n][4:], vendor_id="10de", product_id="2330", cell=n % 2, iommu_group=n)
    return replace(made, **more)


def sound(n: int, **more: object) -> Device:
    """Return the sound function of GPU n, which nobody hands out."""
    made = Device(unit=SOUND[n], kind="other", address=SOUND[n][4:], cell=n % 2, iommu_group=n)
    return replace(made, **more)


def world(*devices: Device, settings: NodeSettings = SETTINGS) -> World:
    """Return a node of two cells with some devices."""
    return World(replace(machine(cells=2), devices=tuple(sorted(devices, key=lambda device: device.unit))), settings)


def granted(there: World, request: Request) -> Grant:
    """Return the grant of a request that must fit; the judge agrees with it."""
    found = fit(request, there.supply)
    assert isinstance(found, Grant), found
    assert judge(found, there.supply, request) is None
    return found


def refused(there: World, request: Request) -> Refusal:
    """Return the refusal of a request that must not fit; its reasons hold when they are checked again."""
    found = fit(request, there.supply)
    assert isinstance(found, Refusal), found
    assert check_refusal(found, request, there.supply) == []
    return found


def wish(*devices: DeviceRequest, **more: object) -> Request:
    """Return a request for devices."""
    return replace(Request(devices=devices), **more)


def held(grant: Grant, use: str = "device") -> list[str]:
    """Return the units of a grant in one use."""
    return [row.unit for row in grant.units if row.use == use]


# --- shares -----------------------------------------------------------------------------------------------------------------------

SHARED = replace(SETTINGS, device_rules=(DeviceRule(vendor_id="10de", kind="gpu", shares=True),))
HALF = wish(DeviceRequest(kind="gpu", share=500))


def test_shares_of_a_device_are_amounts_of_its_own_pool() -> None:
    """Two halves are one device, the third half another one; the whole is given of a device without shares only."""
    there = world(gpu(0), gpu(1), settings=SHARED)
    first = granted(there, HALF)
    assert (first.units, first.amounts) == ((), (AmountRow(pool=PoolId(f"share:{GPU[0]}"), amount=500),))
    there = there.with_grant(first)
    assert granted(there, HALF).amounts == first.amounts
    assert held(granted(there, wish(DeviceRequest(kind="gpu")))) == [GPU[1]]
    there = there.with_grant(granted(there, HALF))
    third = granted(there, HALF)
    assert third.amounts[0].pool == f"share:{GPU[1]}"
    both = there.with_grant(third).with_grant(granted(there.with_grant(third), HALF))
    (reason, *_) = refused(both, HALF).reasons
    assert (reason.code, reason.resource, reason.asked, reason.free) == ("short", "device:gpu", 1, 0)
    assert refused(there.with_grant(third), wish(DeviceRequest(kind="gpu"))).reasons


def test_no_shares_are_given_of_a_device_that_is_held_or_excluded() -> None:
    """A held device has no shares to give, neither has one whose child or parent is held, and the reverse."""
    child = Device(unit=UnitId("pci:0000:00:02.0"), kind="vf", address="0000:00:02.0", parent=GPU[0], cell=0)
    there = world(gpu(0), child, settings=SHARED)
    part = granted(there, wish(DeviceRequest(kind="vf")))
    assert refused(there.with_grant(part), HALF).reasons
    assert refused(there.with_grant(granted(there, HALF)), wish(DeviceRequest(kind="vf"))).reasons
    assert refused(there.with_grant(granted(there, wish(DeviceRequest(kind="gpu")))), HALF).reasons


@pytest.mark.parametrize(
    ("amount", "unit", "code"),
    [(501, GPU[0], "short"), (1, GPU[1], "unit_taken"), (1, GPU[2], "unit_blocked"), (1, UnitId("pci:nowhere"), "unknown_unit")],
)
def test_a_prescribed_share_must_be_there(amount: int, unit: UnitId, code: str) -> None:
    """More than is left, of a device that is held, of one that gives none, of none at all: each is refused with its reason."""
    rules = (DeviceRule(units=tuple(GPU[:2]), shares=True),)
    there = world(gpu(0), gpu(1), gpu(2), settings=replace(SETTINGS, device_rules=rules))
    there = there.with_grant(Grant(amounts=(AmountRow(pool=PoolId(f"share:{GPU[0]}"), amount=500),)))
    there = there.with_grant(Grant(units=(UnitRow(unit=GPU[1], use="device"),)))
    found = judge(Grant(amounts=(AmountRow(pool=PoolId(f"share:{unit}"), amount=amount),)), there.supply)
    assert found is not None
    assert [reason.code for reason in found.reasons] == [code]


def test_a_grant_may_not_hold_a_device_and_shares_of_it() -> None:
    """The whole and a part of it in one grant contradict each other; the whole of a device of which shares are held is taken."""
    there = world(gpu(0), settings=SHARED)
    whole = UnitRow(unit=GPU[0], use="device")
    share = AmountRow(pool=PoolId(f"share:{GPU[0]}"), amount=1)
    both = judge(Grant(units=(whole,), amounts=(share,)), there.supply)
    assert both is not None
    assert {reason.code for reason in both.reasons} == {"mismatch"}
    taken = judge(Grant(units=(whole,)), there.with_grant(Grant(amounts=(share,))).supply)
    assert taken is not None
    assert [reason.code for reason in taken.reasons] == ["unit_taken"]


def test_the_auditor_sees_shares_beyond_the_whole_and_beside_it() -> None:
    """More than a thousand thousandths of a device, or some beside the whole or its child, are errors; what fits is none."""
    child = Device(unit=UnitId("pci:0000:00:02.0"), kind="vf", address="0000:00:02.0", parent=GPU[0], cell=0)
    there = world(gpu(0), child, settings=SHARED)

    def found(*grants: Grant) -> list[str]:
        supply = there._replace(grants=tuple((ClaimId(f"c-{n:04}"), grant) for n, grant in enumerate(grants))).supply
        state = NodeState(node=NodeId("n"), name="n", layout=supply.layout, free=supply.free)
        return [finding.detail for finding in audit_node(state) if finding.code == "double_grant"]

    part = Grant(amounts=(AmountRow(pool=PoolId(f"share:{GPU[0]}"), amount=600),))
    assert found(part) == []
    assert found(part, part) == [f"1200 thousandths of {GPU[0]} are held"]
    assert found(part, Grant(units=(UnitRow(unit=child.unit, use="device"),))) == [
        f"shares of {GPU[0]} are held, and {child.unit} by c-0001"
    ]


# --- IOMMU groups -----------------------------------------------------------------------------------------------------------------

KEPT = replace(SETTINGS, keep_iommu_groups=True)


def test_what_shares_an_iommu_group_is_withheld_with_the_device() -> None:
    """The sound function beside a GPU is withheld, so that nobody else comes to it; without the setting it is not."""
    there = world(gpu(0), sound(0), gpu(1, iommu_group=1), settings=KEPT)
    grant = granted(there, wish(DeviceRequest(kind="gpu", count=2)))
    assert (held(grant), held(grant, "withheld")) == ([GPU[0], GPU[1]], [SOUND[0]])
    assert held(granted(there._replace(settings=SETTINGS), wish(DeviceRequest(kind="gpu", count=2))), "withheld") == []


def test_two_devices_of_one_group_go_to_one_claim() -> None:
    """Two GPUs in one group are given together, or one of them with the other withheld; then nobody gets the other one."""
    there = world(gpu(0), gpu(1, iommu_group=0), settings=KEPT)
    assert held(granted(there, wish(DeviceRequest(kind="gpu", count=2)))) == GPU[:2]
    one = granted(there, wish(DeviceRequest(kind="gpu")))
    assert (held(one), held(one, "withheld")) == (GPU[:1], GPU[1:2])
    assert refused(there.with_grant(one), wish(DeviceRequest(kind="gpu"))).reasons


def test_a_group_is_given_only_if_all_of_it_is_free() -> None:
    """A member that is held or blocked keeps the whole group back, and the refusal names it; bridges are no members."""
    bridge = Device(unit=UnitId("pci:0000:00:1c.0"), kind="bridge", address="0000:00:1c.0", iommu_group=0)
    there = world(gpu(0), sound(0), bridge, settings=KEPT)
    assert held(granted(there, wish(DeviceRequest(kind="gpu"))), "withheld") == [SOUND[0]]
    taken = there._replace(blocked_units=frozenset({SOUND[0]}))
    reason = refused(taken, wish(DeviceRequest(kind="gpu"))).reasons[-1]
    assert (reason.code, reason.unit) == ("unit_blocked", GPU[0])
    assert SOUND[0] in reason.detail
    assert kept_out((DeviceRequest(kind="vf"),), taken.supply) == []


def test_a_group_of_a_parent_and_its_child_is_not_offered() -> None:
    """A card and its function in one group can be given to nobody: the refusal says so."""
    child = Device(unit=UnitId("pci:0000:00:02.0"), kind="vf", address="0000:00:02.0", parent=GPU[0], cell=0, iommu_group=0)
    there = world(gpu(0), child, settings=KEPT)
    reason = refused(there, wish(DeviceRequest(kind="vf"))).reasons[-1]
    assert (reason.code, reason.unit) == ("unit_blocked", child.unit)
    assert "parent or child" in reason.detail


def test_what_is_withheld_excludes_its_own_children_too() -> None:
    """A device is not given beside a function of another card that its group withholds."""
    card = Device(unit=UnitId("pci:0000:09:00.0"), kind="nic", address="0000:09:00.0", iommu_group=0, sriov_total=1)
    function = Device(unit=UnitId("pci:0000:09:02.0"), kind="vf", address="0000:09:02.0", parent=card.unit, iommu_group=9)
    there = world(gpu(0), card, function, settings=KEPT)
    both = wish(DeviceRequest(kind="gpu"), DeviceRequest(kind="vf"))
    assert isinstance(fit(both, there.supply), Refusal)
    assert held(granted(there, wish(DeviceRequest(kind="vf")))) == [function.unit]
    assert held(granted(world(gpu(0), card, function, gpu(1), settings=KEPT), both)) == [GPU[1], function.unit]


def test_a_prescribed_grant_holds_whole_groups() -> None:
    """A device without the rest of its group, or a rest without a device, is not what a node gives whose groups are kept together."""
    there = world(gpu(0), sound(0), settings=KEPT)
    alone = judge(Grant(units=(UnitRow(unit=GPU[0], use="device"),)), there.supply)
    rest = judge(Grant(units=(UnitRow(unit=SOUND[0], use="withheld"),)), there.supply)
    assert alone is not None
    assert rest is not None
    assert [reason.unit for reason in (*alone.reasons, *rest.reasons)] == [GPU[0], SOUND[0]]
    free = judge(Grant(units=(UnitRow(unit=GPU[0], use="device"),)), there._replace(settings=SETTINGS).supply)
    assert free is None


# --- what was asked for -----------------------------------------------------------------------------------------------------------


def test_prescribed_devices_must_be_what_is_asked_for() -> None:
    """Another vendor, too far from the grant's cells, not linked: as many devices as asked for are still not the right ones."""
    there = world(gpu(0, links=(GPU[2],)), gpu(1), gpu(2, links=(GPU[0],)))
    two = Grant(units=tuple(UnitRow(unit=GPU[n], use="device") for n in (0, 2)))
    wrong = Grant(units=tuple(UnitRow(unit=GPU[n], use="device") for n in (0, 1)))
    linked = wish(DeviceRequest(kind="gpu", count=2, linked=True))
    assert judge(two, there.supply, linked) is None
    assert judge(wrong, there.supply, linked) is not None
    other = wish(DeviceRequest(kind="pci", count=2, match=({"vendor_id": "8086"},)))
    assert judge(two, there.supply, other) is not None
    assert judge(two, there.supply, wish(DeviceRequest(kind="pci", count=2, match=({"vendor_id": "10DE"},)))) is None
    near = wish(DeviceRequest(kind="gpu", affinity="required"), vcpus=2, cpu_policy="dedicated")
    grant = granted(there, near)
    far = replace(grant, units=(*(row for row in grant.units if row.use != "device"), UnitRow(unit=GPU[1], use="device")))
    assert grant.cells[0].host_cell == 0
    (reason,) = (judge(far, there.supply, near) or Refusal(reasons=())).reasons
    assert (reason.code, reason.resource) == ("mismatch", "device:gpu")


@pytest.mark.rule("V4")
def test_a_class_that_devices_are_counted_in_is_given_in_units() -> None:
    """An amount of such a class is that many devices, and a prescribed grant must hold as many."""
    name = ResourceClass("CUSTOM_ACCELERATOR")
    there = world(gpu(0), gpu(1), settings=replace(SETTINGS, device_rules=(DeviceRule(vendor_id="10de", resource_class=name),)))
    two = Request(resources=(ResourceAmount(resource_class=name, amount=2),))
    grant = granted(there, two)
    assert (held(grant), grant.amounts) == (GPU[:2], ())
    assert judge(replace(grant, units=grant.units[:1]), there.supply, two) is not None
    assert refused(there.with_grant(grant), two).reasons


def test_devices_of_a_dead_parent_are_not_in_the_stock() -> None:
    """What is held, what excludes it and what is blocked is not offered; parents that are not offered still have their address."""
    child = Device(unit=UnitId("pci:0000:00:02.0"), kind="vf", address="0000:00:02.0", parent=SOUND[0], cell=0)
    there = world(sound(0), child, gpu(1))
    stock = stock_of(there.supply)
    assert [device.unit for device in stock.devices] == [child.unit, GPU[1]]
    assert dict(stock.addresses) == {SOUND[0]: SOUND[0][4:]}
    taken = there.with_grant(Grant(units=(UnitRow(unit=SOUND[0], use="device", slots=there.supply.layout.slots[SOUND[0]]),)))
    assert [device.unit for device in stock_of(taken.supply).devices] == [GPU[1]]


# --- moves ------------------------------------------------------------------------------------------------------------------------


def leg(request: Request, *units: UnitId) -> Claim:
    """Return a leg of a move that holds some devices."""
    grant = Grant(units=tuple(UnitRow(unit=unit, use="device") for unit in sorted(units)))
    return Claim(
        id=ClaimId("c-0001"), node=NodeId("n"), consumer=ConsumerId("vm"), owner=Owner("o"), request=request, grant=grant, purpose="leg"
    )


@pytest.mark.rule("M26", "W24")
def test_a_device_becomes_one_that_answers_the_same_wish() -> None:
    """A GPU of each network moves to one of its own network, whatever their names; a resize pairs kind by kind."""
    nets = [gpu(n, tags=(("net", net),)) for n, net in enumerate(("red", "blue", "blue", "red"))]
    layout = world(*nets).supply.layout
    layout = replace(layout, known=immutables.Map((device.unit, device) for device in nets))
    both = wish(*(DeviceRequest(kind="gpu", match=({"net": net},)) for net in ("red", "blue")))
    pairs = paired(leg(both, GPU[0], GPU[1]), leg(both, GPU[2], GPU[3]), layout, layout)
    assert pairs == ((GPU[0], GPU[3]), (GPU[1], GPU[2]))
    other = paired(leg(both, GPU[0], GPU[1]), leg(wish(DeviceRequest(kind="gpu", count=2)), GPU[2], GPU[3]), layout, layout)
    assert other == ((GPU[0], GPU[2]), (GPU[1], GPU[3]))
