"""Devices under a policy in the life of a ledger: given, released, withdrawn, cordoned, used up, moved."""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from tests.devices.boxes import TYPES, card
from tests.devices.test_device_identity import box, held, look

from earmark.core.flavor.flavor import Flavor, Image
from earmark.core.flavor.translate import translate
from earmark.core.ledger.commands import ConfigureNode, ObserveMachine, RegisterNode, SeeGuests
from earmark.core.ledger.device_changes import device_changes
from earmark.core.ledger.life_commands import LifeAnswer
from earmark.core.model.device_rule import DeviceRule, NamedResource
from earmark.core.model.grant import Grant, UnitRow
from earmark.core.model.guest import Guest
from earmark.core.model.ids import ClaimId, ConsumerId, NodeId, Owner, ResourceClass, UnitId, class_pool
from earmark.core.model.inventory import Inventory
from earmark.core.model.node import NodeSettings
from earmark.core.model.refusal import Refusal
from earmark.core.model.request import DeviceRequest, Request, ResourceAmount
from earmark.core.model.topology import Device, MdevType
from earmark.core.model.units import MIB
from earmark.errors import InvalidRequest
from earmark.testing import NODE_ONE, UNRESERVED, Bench, bench, machine

A, B = "0000:41:00.0", "0000:42:00.0"
PMEM = ResourceClass("CUSTOM_PMEM_NAMESPACE_4GB")
VGPU = ResourceClass("VGPU")
NAMESPACES = tuple(NamedResource(resource_class=PMEM, name=f"ns{number}") for number in range(3))
ONE_SPACE = Request(vcpus=1, memory_bytes=MIB, resources=(ResourceAmount(resource_class=PMEM, amount=1),))
ONE_VGPU = Request(resources=(ResourceAmount(resource_class=VGPU, amount=1),))
SPLIT = DeviceRule(observed_kind="gpu", mdev_type="nvidia-35")
OTHER = NodeId("00000000-0000-4000-8000-00000000000b")


def configured(made: Bench, *rules: DeviceRule, **more: object) -> None:
    """Put some rules in force."""
    made.tracker.configure(replace(UNRESERVED, allow_resize_to_same_host=True, device_rules=rules, **more))


def units(made: Bench) -> set[str]:
    """Return the devices that live claims hold."""
    return {str(row.unit) for claim in made.tracker.node().live() for row in claim.grant.units if row.use == "device"}


def refused(made: Bench, request: Request) -> Refusal:
    """Return the refusal of what must not be granted."""
    answer = made.tracker.hold(request, confirm=True)
    assert isinstance(answer, Refusal)
    return answer


def codes(made: Bench) -> list[str]:
    """Return what an audit finds."""
    return [finding.code for finding in made.tracker.audit()]


# --- named resources and mediated devices -------------------------------------------------------------------------------------------


@pytest.mark.rule("S43", "V4", "V5", "V6", "W29", "W48")
def test_named_resources_through_a_resize() -> None:
    """Each is a unit: one to i, another while i is resized, one to j, none to k; what the policy withdraws is found by every audit."""
    with bench("1x16c 32G disk:200G") as made:
        configured(made, named_resources=NAMESPACES)
        claim = held(made, ONE_SPACE)
        assert len(units(made)) == 1
        consumer = made.tracker.node().claims[ClaimId(claim)].consumer
        moved = made.tracker.open_move(consumer, "resize", request=replace(ONE_SPACE, vcpus=2))
        assert isinstance(moved, LifeAnswer)
        assert len(units(made)) == 2
        assert codes(made) == []
        other = held(made, ONE_SPACE)
        assert units(made) == {f"named:{PMEM}/ns{number}" for number in range(3)}
        before = made.tracker.node().free
        reason = refused(made, ONE_SPACE).reasons[0]
        assert (reason.code, reason.short) == ("short", 1)
        assert made.tracker.node().free == before
        assert moved.move is not None
        made.tracker.finish_move(moved.move.id)
        made.tracker.confirm_move(moved.move.id)
        assert len(units(made)) == 2
        made.tracker.release(other)
        assert len(units(made)) == 1
        configured(made)
        assert codes(made) == codes(made) == ["withdrawn"]
        assert made.tracker.node().missing == frozenset()
        configured(made, named_resources=NAMESPACES)
        assert codes(made) == []


@pytest.mark.rule("V2", "V3", "W29")
def test_instances_are_given_one_by_one_and_survive_a_restart() -> None:
    """As many claims as instances, each with its own; the parent excludes them and they it; the ledger opens again with all of them."""
    with bench("1x2c 4G") as made:
        look(made, card(A, mdev_types=TYPES))
        configured(made, replace(SPLIT, max_instances=2, kind="gpu"))
        first = held(made, ONE_VGPU)
        refused(made, Request(devices=(DeviceRequest(kind="gpu"),)))
        held(made, ONE_VGPU)
        assert units(made) == {f"mdev:{A}/nvidia-35/0", f"mdev:{A}/nvidia-35/1"}
        assert refused(made, ONE_VGPU).reasons[0].short == 1
        again = made.reopened()
        assert units(again) == units(made)
        made.tracker.release(first)
        assert held(made, ONE_VGPU)


def test_a_smaller_policy_takes_nothing_away() -> None:
    """Instances beyond a lowered maximum stay held and are found withdrawn; a parent that vanished makes them missing instead."""
    with bench("1x2c 4G") as made:
        look(made, card(A, mdev_types=TYPES))
        configured(made, SPLIT)
        claims = [held(made, ONE_VGPU) for _ in range(3)]
        configured(made, replace(SPLIT, max_instances=1))
        assert made.tracker.node().withdrawn == {f"mdev:{A}/nvidia-35/{number}" for number in (1, 2)}
        state = look(made)
        assert (len(state.missing), state.withdrawn) == (3, frozenset())
        state = look(made, card(A, product="2222", mdev_types=TYPES))
        assert len(state.missing) == 3
        held(made, ONE_VGPU)
        refused(made, ONE_VGPU)
        assert f"mdev:{A}/10de:2222:10de:1212/nvidia-35/0" in units(made)
        for claim in claims:
            made.tracker.release(claim)


@pytest.mark.rule("V2", "P2")
@pytest.mark.parametrize(
    ("later", "types", "left"),
    [
        (replace(SPLIT, kind="gpu", max_instances=2), TYPES, 1),
        (replace(SPLIT, kind="gpu", max_instances=1), TYPES, 0),
        (replace(SPLIT, kind="gpu"), (replace(TYPES[0], total=3), TYPES[1]), 2),
        (replace(SPLIT, kind="gpu", mdev_type="nvidia-36"), TYPES, 0),
        (replace(SPLIT, kind="gpu"), TYPES[1:], 0),
        (DeviceRule(observed_kind="gpu"), TYPES, 0),
    ],
    ids=["fewer", "one", "the driver has fewer", "another type", "no such type now", "not split"],
)
def test_what_is_held_of_a_card_counts_whatever_its_policy_says_now(later: DeviceRule, types: tuple[MdevType, ...], left: int) -> None:
    """One instance is held that a later policy or look has no more: never are more held than are allowed, nor the card as a whole."""
    whole = Request(devices=(DeviceRequest(kind="gpu"),))
    with bench("1x2c 4G") as made:
        look(made, card(A, mdev_types=TYPES))
        configured(made, SPLIT)
        claims = [held(made, ONE_VGPU) for _ in range(4)]
        for claim in claims[:3]:
            made.tracker.release(claim)
        configured(made, later)
        look(made, card(A, mdev_types=types))
        assert refused(made, whole).reasons[0].holders[0].what == f"mdev:{A}/nvidia-35/3"
        for _ in range(left):
            held(made, ONE_VGPU)
        refused(made, ONE_VGPU)
        made.tracker.release(claims[3])
        assert held(made, whole if left == 0 else ONE_VGPU)


@pytest.mark.parametrize("later", [DeviceRule(), SPLIT, replace(SPLIT, kind="gpu")])
def test_a_card_of_which_shares_are_held_is_not_given_otherwise(later: DeviceRule) -> None:
    """A policy that gives no shares any more gives the card as a whole, or in instances, only once the last share is back."""
    whole, half = (Request(devices=(DeviceRequest(kind="gpu", share=share),)) for share in (None, 500))
    with bench("1x2c 4G") as made:
        look(made, card(A, mdev_types=TYPES))
        configured(made, DeviceRule(shares=True))
        claim = held(made, half)
        told = device_changes(made.tracker.node(), replace(UNRESERVED, device_rules=(later,))).kept
        assert told == (f"a share of pci:{A} is held by {claim} and none is given any more: nothing else of it is until that ends",)
        configured(made, later)
        for request in (whole, half, ONE_VGPU):
            refused(made, request)
        grant = Grant(units=(UnitRow(unit=UnitId(f"pci:{A}"), use="device"),))
        assert isinstance(made.tracker.hold(whole, grant=grant, confirm=True), Refusal)
        made.tracker.release(claim)
        assert held(made, ONE_VGPU if later.mdev_type else whole)


def test_a_card_of_which_a_share_is_held_comes_into_a_group() -> None:
    """Once groups go to one claim, neither the shared card nor its neighbour is given until the share is back."""
    with bench("1x2c 4G") as made:
        look(made, *(card(address, iommu_group=1) for address in (A, B)))
        configured(made, DeviceRule(shares=True))
        claim = held(made, Request(devices=(DeviceRequest(kind="gpu", share=400),)))
        configured(made, DeviceRule(shares=True), keep_iommu_groups=True)
        refused(made, WITH_GPU)
        for unit in (A, B):
            rows = tuple(UnitRow(unit=UnitId(f"pci:{each}"), use="device" if each == unit else "withheld") for each in (A, B))
            assert isinstance(made.tracker.hold(Request(devices=WITH_GPU.devices), grant=Grant(units=rows), confirm=True), Refusal)
        made.tracker.release(claim)
        assert held(made, WITH_GPU)


def test_a_policy_in_force_counts_a_class_once() -> None:
    """A class of units beside an inventory is refused, whichever comes second, and nothing has changed then."""
    with bench("1x2c 4G") as made:
        configured(made, named_resources=NAMESPACES)
        before = made.tracker.node()
        with pytest.raises(InvalidRequest, match="is counted by its units"):
            configured(made, named_resources=NAMESPACES, inventories=(Inventory(resource_class=PMEM, total=3),))
        assert made.tracker.node() == before


@pytest.mark.rule("V7")
def test_encryption_contexts_are_named_resources() -> None:
    """A guest whose flavor asks for memory encryption gets one context, as many guests as there are contexts."""
    contexts = tuple(NamedResource(resource_class=ResourceClass("MEM_ENCRYPTION_CONTEXT"), name=f"sev{number}") for number in range(2))
    flavor = Flavor(vcpus=1, memory_mb=64, extra_specs={"hw:mem_encryption": "true"})
    image = Image(properties={"hw_firmware_type": "uefi", "hw_machine_type": "q35"})
    request = replace(translate(flavor, image), required_traits=())
    with bench("1x4c 4G") as made:
        configured(made, named_resources=contexts)
        held(made, request)
        held(made, request)
        assert units(made) == {"named:MEM_ENCRYPTION_CONTEXT/sev0", "named:MEM_ENCRYPTION_CONTEXT/sev1"}
        assert refused(made, request).reasons[0].resource in ("class:MEM_ENCRYPTION_CONTEXT", "device:class:MEM_ENCRYPTION_CONTEXT")
        with pytest.raises(InvalidRequest, match="a guest has one"):
            made.tracker.hold(replace(request, resources=(replace(request.resources[0], amount=2),)))


# --- changes while in use -------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("P19", "P20", "W25")
def test_a_device_that_is_plugged_in_is_there_at_the_next_look() -> None:
    """New cards are handed out after the next look, without a restart; what changed while it was held counts when it is given again."""
    with bench("1x2c 4G") as made:
        refused(made, Request(devices=(DeviceRequest(kind="gpu"),)))
        look(made, card(A))
        claim = held(made)
        look(made, card(A, cell=None, driver="vfio-pci"))
        assert made.tracker.node().claims[ClaimId(claim)].grant.units[0].unit == f"pci:{A}"
        look(made, card(B, product="2222"))
        assert codes(made) == ["missing"]
        made.tracker.release(claim)
        assert codes(made) == []
        assert held(made)


@pytest.mark.rule("W48")
def test_a_policy_is_read_again_while_things_are_held() -> None:
    """A device that a new policy no longer hands out stays held, its release frees nothing for others, and the change is said."""
    with bench("1x2c 4G") as made:
        look(made, card(A), card(B))
        claim = held(made, grant=Grant(units=(UnitRow(unit=UnitId(f"pci:{A}"), use="device"),)))
        settings = replace(UNRESERVED, device_rules=(DeviceRule(address=A, hand_out=False), DeviceRule(address=B, tags={"a": "b"})))
        answer = made.tracker.configure(settings)
        assert answer.differences == (
            f"pci:{A}: no longer handed out",
            f"pci:{B}: tags none -> a=b",
            f"pci:{A} is held by {claim} and no longer handed out: it stays held until that ends",
        )
        assert units(made) == {f"pci:{A}"}
        made.tracker.release(claim)
        assert held(made)
        refused(made, Request(devices=(DeviceRequest(kind="gpu"),)))
        assert units(made) == {f"pci:{B}"}


# --- cordon and quarantine --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", [False, True], ids=["device", "instance"])
def test_one_sick_unit_is_cordoned_and_the_others_are_given(split: bool) -> None:
    """ray#27078, NVIDIA/k8s-device-plugin#1014: one unit gets no new grants, its neighbours do, and its end is one command."""
    with bench("1x2c 4G") as made:
        look(made, card(A, mdev_types=TYPES[1:]), card(B))
        configured(made, *([DeviceRule(address=A, mdev_type="nvidia-36"), DeviceRule(hand_out=False)] if split else []))
        request = ONE_VGPU if split else Request(devices=(DeviceRequest(kind="gpu"),))
        sick = f"mdev:{A}/nvidia-36/0" if split else f"pci:{A}"
        made.tracker.cordon(UnitId(sick), "Xid 79")
        others = {f"mdev:{A}/nvidia-36/{number}" for number in (1, 2, 3)} if split else {f"pci:{B}"}
        for _ in others:
            held(made, request)
        assert units(made) == others
        refused(made, request)
        made.tracker.uncordon(UnitId(sick))
        held(made, request)
        assert units(made) == {*others, sick}


@pytest.mark.parametrize("split", [False, True], ids=["device", "instance"])
def test_a_unit_in_quarantine_comes_back_by_a_person(split: bool) -> None:
    """A forced end leaves the unit in quarantine until it is returned."""
    with bench("1x2c 4G") as made:
        look(made, card(A, mdev_types=TYPES))
        configured(made, *([replace(SPLIT, max_instances=1)] if split else []))
        request = ONE_VGPU if split else Request(devices=(DeviceRequest(kind="gpu"),))
        made.tracker.release(held(made, request), force=True)
        made.clock.move(3_600_000)
        made.tracker.sweep()
        assert [len(each.grant.units) for each in made.tracker.node().quarantines.values()] == [1]
        refused(made, request)
        unit = next(iter(made.tracker.node().quarantines.values())).grant.units[0].unit
        made.tracker.give_back(unit, "looked at")
        assert held(made, request)


# --- for one use --------------------------------------------------------------------------------------------------------------------------

ONCE = DeviceRule(observed_kind="gpu", one_time_use=True)
WITH_GPU = Request(vcpus=1, memory_bytes=MIB, devices=(DeviceRequest(kind="gpu"),))


@pytest.mark.rule("P25")
def test_a_device_for_one_use_is_quarantined_when_its_claim_ends() -> None:
    """Everything else of the claim is free at once, the device only when a person returns it."""
    with bench("1x2c 4G") as made:
        look(made, card(A))
        configured(made, ONCE)
        claim = held(made, WITH_GPU)
        answer = made.tracker.release(claim)
        assert answer.message == f"pci:{A} stays in quarantine: it is for one use; earmark return gives it back"
        state = made.tracker.node()
        kept = state.quarantines[ClaimId(claim)]
        assert [row.unit for row in kept.grant.units] == [f"pci:{A}"]
        assert kept.grant.amounts == ()
        assert state.free.used == type(state.free.used)()
        refused(made, WITH_GPU)
        assert units(made.reopened()) == set()
        assert made.tracker.release(claim).changed is False
        made.tracker.give_back(f"pci:{A}", "flashed anew")
        assert held(made, WITH_GPU)


@pytest.mark.rule("P25")
@pytest.mark.parametrize("end", ["aborted", "expired", "deleted", "holder"])
def test_however_its_claim_ends(end: str) -> None:
    """Abort, expiry with proof, the death of a holder and a deleted instance all leave it in quarantine."""
    with bench("1x2c 4G") as made:
        look(made, card(A))
        configured(made, ONCE)
        if end == "deleted":
            made.tracker.create("vm")
            made.tracker.hold(WITH_GPU, consumer="vm", confirm=True)
            made.tracker.report("vm", "deleted")
        elif end == "holder":
            answer = made.tracker.hold(WITH_GPU, confirm=True, holders=(made.processes.identify(77),))
            assert not isinstance(answer, Refusal)
            made.processes.fates[77] = "dead"
            made.tracker.sweep()
        else:
            answer = made.tracker.hold(WITH_GPU, ttl_ms=60_000)
            assert not isinstance(answer, Refusal)
            if end == "aborted":
                made.tracker.abort(str(answer.claim_id))
            else:
                made.clock.move(3_600_000)
                made.tracker.sweep()
                made.clock.move(3_600_000)
                made.tracker.sweep()
        assert [[row.unit for row in each.grant.units if row.use == "device"] for each in made.tracker.node().quarantines.values()] == [
            [f"pci:{A}"]
        ]
        refused(made, WITH_GPU)


def test_a_card_for_one_use_that_vanished_is_not_free_when_it_comes_back() -> None:
    """Its claim ends while the card is out: nobody can say that it is not used up, so it is in quarantine when it is back."""
    with bench("1x2c 4G") as made:
        look(made, card(A))
        configured(made, ONCE)
        claim = held(made, WITH_GPU)
        look(made)
        assert "it may be for one use and was not there" in str(made.tracker.release(claim).message)
        look(made, card(A))
        refused(made, WITH_GPU)


@pytest.mark.rule("P25")
@pytest.mark.parametrize(
    "rule", [DeviceRule(product_id="2330"), DeviceRule(units=(UnitId(f"pci:{B}"),)), DeviceRule(address=B, mdev_type="nvidia-35")]
)
def test_a_card_that_vanished_and_is_not_for_one_use_is_free(rule: DeviceRule) -> None:
    """A rule for one use that is about other products, units or instances says nothing of a card that is out when its claim ends."""
    with bench("1x2c 4G") as made:
        look(made, card(A))
        configured(made, replace(rule, one_time_use=True))
        claim = held(made, WITH_GPU)
        look(made)
        assert not made.tracker.release(claim).message
        assert not made.tracker.node().quarantines
        look(made, card(A))
        assert held(made, WITH_GPU)


def test_a_guest_that_never_claimed_uses_it_up_too() -> None:
    """A foreign guest with the device leaves it in quarantine once the guest is gone, and a later guest finds it contested."""
    with bench("1x2c 4G") as made:
        look(made, card(A))
        configured(made, ONCE)
        guest = Guest(consumer=ConsumerId("squatter"), owner=Owner("ann"), units=(UnitId(f"pci:{A}"),), memory_bytes=MIB)
        for number, one in enumerate((guest, replace(guest, consumer=ConsumerId("another")))):
            claims = (ClaimId(f"c-0000{number}"),)
            made.tracker._writer.submit(SeeGuests(node=NODE_ONE, guests=(one,), claims=claims, complete=True))
            assert units(made) == ({f"pci:{A}"} if number == 0 else set())
        assert {code for code in codes(made) if code != "foreign"} == {"overlap"}
        refused(made, WITH_GPU)


# --- moves ------------------------------------------------------------------------------------------------------------------------------


def second(made: Bench, devices: tuple[Device, ...], settings: NodeSettings) -> None:
    """Enter a second node."""
    for command in (
        RegisterNode(node=OTHER, name="B"),
        ObserveMachine(node=OTHER, machine=replace(box(*devices))),
        ConfigureNode(node=OTHER, settings=settings),
    ):
        made.tracker._writer.submit(command)


@pytest.mark.rule("M26", "M27")
def test_mediated_devices_of_a_live_migration_are_mapped_by_type() -> None:
    """The destination gives as many of each type, whatever class they share; where it has not that type the move is refused."""
    two = (
        DeviceRule(address=A, mdev_type="nvidia-35", live_migratable=True),
        DeviceRule(address=B, mdev_type="nvidia-36", live_migratable=True),
    )
    cards = (card(A, mdev_types=TYPES), card(B, mdev_types=TYPES))
    request = replace(ONE_VGPU, resources=(ResourceAmount(resource_class=VGPU, amount=2),), vcpus=1, memory_bytes=MIB)
    with bench("1x2c 4G") as made:
        look(made, *cards)
        configured(made, *two)
        rows = tuple(UnitRow(unit=UnitId(unit), use="device") for unit in (f"mdev:{A}/nvidia-35/3", f"mdev:{B}/nvidia-36/1"))
        chosen = made.tracker.hold(request, consumer="vm", confirm=True)
        assert not isinstance(chosen, Refusal)
        grant = replace(made.tracker.node().live()[0].grant, units=rows)
        made.tracker.release(str(chosen.claim_id))
        claim = made.tracker.hold(request, consumer="vm", confirm=True, grant=grant)
        assert not isinstance(claim, Refusal), claim
        second(made, cards[:1], replace(UNRESERVED, device_rules=two[:1]))
        refusal = made.tracker.open_move("vm", "live_migration", to="B")
        assert isinstance(refusal, Refusal)
        second(made, cards, replace(UNRESERVED, device_rules=two))
        answer = made.tracker.open_move("vm", "live_migration", to="B")
        assert isinstance(answer, LifeAnswer)
        assert answer.move is not None
        assert made.tracker.device_pairs(answer.move) == (
            (UnitId(f"mdev:{A}/nvidia-35/3"), UnitId(f"mdev:{A}/nvidia-35/0")),
            (UnitId(f"mdev:{B}/nvidia-36/1"), UnitId(f"mdev:{B}/nvidia-36/0")),
        )


@pytest.mark.rule("M26")
def test_what_the_policy_calls_live_migratable_moves_while_in_use() -> None:
    """A device moves live if its kind or its rule says so, and only then."""
    with bench("1x2c 4G") as made:
        look(made, card(A))
        second(made, (card(A),), UNRESERVED)
        made.tracker.hold(WITH_GPU, consumer="vm", confirm=True)
        refusal = made.tracker.open_move("vm", "live_migration", to="B")
        assert isinstance(refusal, Refusal)
        assert refusal.reasons[0].code == "not_live_migratable"
        configured(made, DeviceRule(observed_kind="gpu", live_migratable=True))
        assert isinstance(made.tracker.open_move("vm", "live_migration", to="B"), LifeAnswer)


def test_a_shape_without_devices_has_none() -> None:
    """A node whose machine was never seen with devices lists none and withdraws none."""
    with bench("1x2c 4G") as made:
        assert made.tracker.node().present == {f"cpu:{number}" for number in range(2)}
        assert class_pool(VGPU) not in made.tracker.node().free.used
        assert machine("1x2c 4G").devices == ()
