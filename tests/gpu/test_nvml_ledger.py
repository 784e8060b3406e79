"""A ledger on a machine whose GPUs NVML describes: names that stay, instances, links, faults, and looks without NVML."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace
from tests.drivers.roots import PCI, Root
from tests.gpu.boxes_of_gpus import ADDRESSES, MEMORY, at, box, unit, uuid

from earmark.cli.machine_file import machine_from
from earmark.core.model.device_rule import DeviceRule
from earmark.core.model.ids import UnitId, share_pool
from earmark.core.model.refusal import Refusal
from earmark.core.model.request import DeviceRequest, Request
from earmark.core.model.topology import MIG, MIG_PARENT, Device, Machine
from earmark.core.model.units import GIB
from earmark.drivers.contract import Observation
from earmark.drivers.nvml.facts import NO_BINDING, Failure, Gpu, Instance, Peer, Seen
from earmark.drivers.nvml.join import joined
from earmark.drivers.sysfs.discovery import discovery_json
from earmark.testing import Bench, bench

UNASKED = Seen(failure=Failure(what="binding", code=NO_BINDING, text="No module named 'pynvml'"))
LOST = Failure(what="handle", code=15, text="GPU is lost")
CUT = (Instance(uuid=uuid(100, "MIG"), memory_bytes=MEMORY // 8), Instance(uuid=uuid(101, "MIG"), memory_bytes=MEMORY // 8))


def gpu(number: int, *, named: int | None = None, parts: tuple[Instance, ...] = (), pair: bool = True, **more: object) -> Gpu:
    """Return what NVML says of the GPU at an address; `named` is the number in its UUID, `parts` cut it into instances."""
    facts = Gpu(
        index=number,
        address=ADDRESSES[number],
        uuid=uuid(number if named is None else named),
        memory_bytes=MEMORY,
        name="NVIDIA H100 80GB HBM3",
        mig=bool(parts),
        mig_next=bool(parts),
        instances=parts,
        peers=(Peer(kind="gpu", address=ADDRESSES[number ^ 1]),) if pair else (),
    )
    return replace(facts, **more)


def told(gpus: Iterable[Gpu]) -> Seen:
    """Return what NVML told to the end."""
    all_of_them = tuple(gpus)
    return Seen(gpus=all_of_them, count=len(all_of_them))


def look(made: Bench, root: Root, seen: Seen) -> Machine:
    """Let the node be looked at, and return the machine as it knows it."""
    made.tracker.observe(machine=joined(root.machine(), seen))
    machine = made.tracker.node().machine
    assert machine is not None
    return machine


def asked(made: Bench, **wish: object) -> tuple[str, ...] | None:
    """Claim devices and return their units, None if that was refused."""
    answer = made.tracker.hold(Request(devices=(replace(DeviceRequest(kind="gpu"), **wish),)), confirm=True)
    if isinstance(answer, Refusal):
        return None
    assert answer.claim is not None
    return tuple(row.unit for row in answer.claim.grant.units)


def devices_of_kind(machine: Machine, kind: str) -> list[Device]:
    """Return the devices of one kind."""
    return [device for device in machine.devices if device.kind == kind]


@pytest.fixture
def root(tmp_path: Path) -> Root:
    """Return a machine with four GPUs in two pairs."""
    return box(tmp_path / "root", 4)


@pytest.mark.parametrize(
    ("name", "profile"),
    [
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", "1g.5gb"),
        ("A100-SXM4-40GB MIG 3g.20gb", "3g.20gb"),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb+me", "1g.10gb+me"),
        ("NVIDIA GH200 480GB MIG 1c.3g.48gb", "1c.3g.48gb"),
        ("NVIDIA RTX PRO 6000 Blackwell MIG 4g.96gb+gfx", "4g.96gb+gfx"),
        ("NVIDIA RTX PRO 6000 Blackwell MIG 1g.24gb-me", "1g.24gb-me"),
        ("NVIDIA H100 80GB HBM3", None),
        ("MIG 1g.10gb", None),
        ("NVIDIA H100 MIG", None),
        ("NVIDIA H100 MIG 1g", None),
        ("NVIDIA H100 MIG 1g.10gb and more", None),
        (None, None),
    ],
)
def test_an_instance_is_cut_as_its_name_says(root: Root, name: str | None, profile: str | None) -> None:
    """The profile of an instance is the end of the name that NVML gives it; where the name ends otherwise, nobody guesses."""
    part = Instance(uuid=uuid(100, "MIG"), name=name, memory_bytes=10 * GIB)
    machine = joined(root.machine(), told([gpu(0, parts=(part,))]))
    (found,) = devices_of_kind(machine, MIG)
    assert (found.profile, found.memory_bytes) == (profile, 10 * GIB)


def test_instances_are_claimed_by_profile_and_gpus_by_memory(root: Root) -> None:
    """What NVML tells is what can be asked for: the instance that is cut so, and a GPU that has so much memory."""
    parts = tuple(
        Instance(uuid=uuid(100 + n, "MIG"), name=f"NVIDIA H100 80GB HBM3 MIG {profile}", memory_bytes=size * GIB)
        for n, (profile, size) in enumerate((("3g.40gb", 40), ("1g.10gb", 10)))
    )
    with bench() as made:
        look(made, root, told([gpu(0, parts=parts), gpu(1), gpu(2, memory_bytes=24 * GIB), gpu(3, memory_bytes=24 * GIB)]))
        assert asked(made, kind=MIG, match=({"profile": "2g.20gb"},)) is None
        assert asked(made, kind=MIG, match=({"profile": "1g.10gb"},)) == (unit(101, "MIG"),)
        assert asked(made, kind=MIG, memory_bytes=11 * GIB) == (unit(100, "MIG"),)
        assert asked(made, memory_bytes=MEMORY + 1) is None
        assert asked(made, memory_bytes=25 * GIB) == (unit(1),)
        assert asked(made, memory_bytes=25 * GIB) is None
        assert asked(made, count=2, memory_bytes=24 * GIB) == (unit(2), unit(3))
        answer = made.tracker.hold(Request(devices=(DeviceRequest(kind="gpu", memory_bytes=25 * GIB),)))
        assert isinstance(answer, Refusal)
        assert [holding.what for holding in answer.reasons[0].holders] == [unit(1)]


def test_a_gpu_that_is_held_by_its_address_is_not_renamed(root: Root) -> None:
    """A GPU that was first seen without NVML keeps its name, with its UUID in its identity; its peer's links name it so."""
    with bench() as made:
        look(made, root, UNASKED)
        assert asked(made, within=(UnitId("pci:0000:41:00.0"),)) == ("pci:0000:41:00.0",)
        machine = look(made, root, told(map(gpu, range(4))))
        assert not made.tracker.node().missing
        held = at(machine, 0)
        assert (held.unit, held.identity, held.memory_bytes) == ("pci:0000:41:00.0", f"10de:2330:10de:16c1:{uuid(0)}", MEMORY)
        assert at(machine, 1).links == (held.unit,)
        assert held.links == (at(machine, 1).unit,)


def test_names_by_uuid_stay_without_nvml(root: Root) -> None:
    """What NVML told stands at a look that could not ask it: names, memory and links."""
    with bench() as made:
        first = look(made, root, told(map(gpu, range(4))))
        second = look(made, root, UNASKED)
        assert second.devices == first.devices
        assert second.unread == tuple(sorted(unit(number) for number in range(4)))
        assert any("pip install" in note for note in second.notes)


def test_a_card_that_was_exchanged_is_missing_to_its_holder(root: Root) -> None:
    """Another UUID at the same address is another card: the held one is missing, and the new one can be claimed under its own name."""
    with bench() as made:
        look(made, root, told(gpu(number, pair=False) for number in range(4)))
        assert asked(made, within=(UnitId(unit(0)),)) == (unit(0),)
        look(made, root, told(gpu(number, pair=False, named=77 if number == 0 else None) for number in range(4)))
        assert made.tracker.node().missing == {unit(0)}
        assert asked(made, within=(UnitId(unit(77)),)) == (unit(77),)


def test_a_card_that_moved_is_the_same_one(root: Root) -> None:
    """Two cards that changed their slots keep their names and holders."""
    with bench() as made:
        look(made, root, told(gpu(number, pair=False) for number in range(4)))
        assert asked(made, within=(UnitId(unit(0)),)) == (unit(0),)
        machine = look(made, root, told(gpu(number, pair=False, named=number ^ 1 if number < 2 else None) for number in range(4)))
        assert not made.tracker.node().missing
        assert at(machine, 1).unit == unit(0)
        assert asked(made, count=3) == tuple(sorted(unit(number) for number in (1, 2, 3)))


def test_a_gpu_in_instances_is_not_given_as_a_whole(root: Root) -> None:
    """`gpu` means whole GPUs: one that is cut is none of them; its instances are asked for as `mig`, by name or by their GPU's name."""
    with bench() as made:
        look(made, root, told([gpu(0, parts=CUT), *map(gpu, range(1, 4))]))
        assert asked(made, count=4) is None
        assert asked(made, kind=MIG, within=(UnitId(unit(0)),)) in {(unit(100, "MIG"),), (unit(101, "MIG"),)}
        assert asked(made, within=(UnitId(unit(0)),)) is None
        assert asked(made, kind=MIG) is not None
        assert asked(made, kind=MIG) is None
        assert asked(made, count=3) is not None


def test_a_look_without_nvml_keeps_instances_and_gives_no_whole(root: Root) -> None:
    """Somebody without the library looks while an instance is held: it is not missing, and its GPU is not handed out as a whole."""
    with bench() as made:
        look(made, root, told([gpu(0, parts=CUT), *map(gpu, range(1, 4))]))
        assert asked(made, kind=MIG) is not None
        machine = look(made, root, UNASKED)
        assert not made.tracker.node().missing
        assert [device.unit for device in devices_of_kind(machine, MIG_PARENT)] == [unit(0)]
        assert asked(made, within=(UnitId(unit(0)),)) is None
        assert asked(made, kind=MIG) is not None
        look(made, root, told(map(gpu, range(4))))
        assert len(made.tracker.node().missing) == 2


def test_a_whole_gpu_that_is_held_keeps_its_instances_from_others(root: Root) -> None:
    """Instances that appear on a GPU while it is held as a whole are given to nobody until it comes back."""
    with bench() as made:
        look(made, root, told(map(gpu, range(4))))
        assert asked(made, within=(UnitId(unit(0)),)) is not None
        look(made, root, told([gpu(0, parts=CUT), *map(gpu, range(1, 4))]))
        assert not made.tracker.node().missing
        assert asked(made, kind=MIG) is None
        made.tracker.release(next(iter(made.tracker.node().claims)))
        assert asked(made, kind=MIG) is not None


@pytest.mark.parametrize("address", [True, False])
def test_a_lost_gpu_is_not_handed_out_until_it_answers_again(root: Root, address: bool) -> None:
    """A lost GPU is given to nobody, whether NVML tells its address or not; who holds it keeps it; when it answers, it is given again."""
    with bench() as made:
        look(made, root, told(map(gpu, range(4))))
        assert asked(made, within=(UnitId(unit(3)),)) is not None
        lost = gpu(2, failures=(LOST,), uuid=None, memory_bytes=None, mig=None, peers=(), address=ADDRESSES[2] if address else None)
        machine = look(made, root, told([gpu(0), gpu(1), lost, gpu(3)]))
        assert at(machine, 2).fault is not None
        assert at(machine, 2).unit == unit(2)
        assert not made.tracker.node().missing
        assert asked(made, count=3) is None
        look(made, root, UNASKED)
        assert asked(made, count=3) is None
        look(made, root, told(map(gpu, range(4))))
        assert asked(made, count=3) == (unit(0), unit(1), unit(2))


def test_instances_of_a_lost_gpu_are_not_handed_out(root: Root) -> None:
    """A GPU that is lost tells nothing of its instances: those that were known stay known, and none is given."""
    with bench() as made:
        look(made, root, told([gpu(0, parts=CUT), *map(gpu, range(1, 4))]))
        assert asked(made, kind=MIG) is not None
        look(made, root, told([gpu(0, failures=(LOST,), uuid=None, memory_bytes=None, mig=None, peers=()), *map(gpu, range(1, 4))]))
        assert not made.tracker.node().missing
        assert asked(made, kind=MIG) is None


def test_a_gpu_that_nvml_does_not_list_is_a_note(root: Root) -> None:
    """In a container NVML lists some GPUs only: of the others what was known stands, which is said."""
    with bench() as made:
        first = look(made, root, told(map(gpu, range(4))))
        second = look(made, root, told(map(gpu, range(2))))
        assert second.devices == first.devices
        assert second.unread == (unit(2), unit(3))
        assert [note for note in second.notes if "does not list" in note]


def test_two_gpus_with_one_uuid_are_named_by_their_addresses(root: Root) -> None:
    """A UUID that two GPUs claim names neither."""
    machine = joined(root.machine(), told([gpu(0), gpu(1, named=0), gpu(2), gpu(3)]))
    assert [at(machine, number).unit for number in range(3)] == ["pci:0000:41:00.0", "pci:0000:42:00.0", unit(2)]
    assert any("several GPUs have the UUID" in note for note in machine.notes)


def test_virtual_functions_follow_their_gpu_to_its_name(tmp_path: Path) -> None:
    """A GPU that is named by its UUID stays the parent of its virtual functions."""
    root = box(tmp_path / "root", 1).device("0000:41:00.4", "030200", "10de", "2330").link(f"{PCI}/0000:41:00.4/physfn", "../0000:41:00.0")
    machine = joined(root.machine(), told([gpu(0)]))
    assert [device.parent for device in devices_of_kind(machine, "vf")] == [unit(0)]


def test_the_joined_machine_is_the_same_whatever_the_order(root: Root) -> None:
    """NVML's order is not the machine's: equal facts make equal machines."""
    gpus = [gpu(0, parts=CUT), *map(gpu, range(1, 4))]
    assert joined(root.machine(), told(gpus)).devices == joined(root.machine(), told(reversed(gpus))).devices


def test_linked_gpus_are_given_together(root: Root) -> None:
    """Two linked GPUs are of one pair, and where no pair is whole there are none, whatever is free."""
    with bench() as made:
        look(made, root, told(map(gpu, range(4))))
        assert asked(made, count=2, linked=True) in {(unit(0), unit(1)), (unit(2), unit(3))}
        assert asked(made) is not None
        assert asked(made, count=2, linked=True) is None


def test_shares_of_one_gpu(root: Root) -> None:
    """Thousandths of a GPU are given while there are any, and then the GPU is not given as a whole."""
    with bench() as made:
        made.tracker.configure(
            replace(made.tracker.node().settings, device_rules=(DeviceRule(vendor_id="10de", units=(UnitId(unit(0)),), shares=True),))
        )
        look(made, root, told(map(gpu, range(4))))
        answer = made.tracker.hold(Request(devices=(DeviceRequest(kind="gpu", share=600),)), confirm=True)
        assert not isinstance(answer, Refusal)
        assert answer.claim is not None
        assert answer.claim.grant.amount(share_pool(UnitId(unit(0)))) == 600
        assert asked(made, share=500) is None
        assert asked(made, share=400) is not None
        assert asked(made, count=4) is None
        assert asked(made, count=3) is not None


def test_a_machine_from_a_file_knows_what_was_not_read(root: Root) -> None:
    """What `discover --json` prints of GPUs is the same machine again elsewhere: memory, links, instances, faults, what was not read."""
    seen = Seen(gpus=(gpu(0, parts=CUT), gpu(1), gpu(2, failures=(LOST,), uuid=None, memory_bytes=None)), count=4, cut="no end after 30 s")
    machine = joined(root.machine(), seen)
    shown = discovery_json(Observation(machine=machine, hostname="gpu1", boot_id=""))
    assert machine_from(msgspec.json.encode(shown), "gpu1.json").machine == machine
    assert machine.unread == ("pci:0000:43:00.0", "pci:0000:44:00.0")


def test_a_refusal_names_those_who_hold_shares(root: Root) -> None:
    """Who wants the whole of a GPU, or more of it than is left, is told who has parts of it, and how much."""
    with bench() as made:
        rule = DeviceRule(units=(UnitId(unit(0)),), shares=True)
        made.tracker.configure(replace(made.tracker.node().settings, device_rules=(rule,)))
        look(made, root, told(map(gpu, range(4))))
        made.tracker.hold(Request(devices=(DeviceRequest(kind="gpu", share=600),)), consumer="notebook", confirm=True)
        for wish in (DeviceRequest(kind="gpu", share=500), DeviceRequest(kind="gpu", count=4)):
            refused = made.tracker.hold(Request(devices=(wish,)), confirm=True)
            assert isinstance(refused, Refusal)
            holders = [holder for reason in refused.reasons for holder in reason.holders]
            assert [(holder.consumer, holder.what) for holder in holders] == [("notebook", f"600/1000 of {unit(0)}")]


def test_a_rule_about_a_model_is_about_whole_gpus(root: Root) -> None:
    """A rule that names a vendor gives neither a GPU that is cut nor its instances another kind to be asked for by."""
    with bench() as made:
        rule = DeviceRule(vendor_id="10de", kind="h100")
        made.tracker.configure(replace(made.tracker.node().settings, device_rules=(rule,)))
        look(made, root, told([gpu(0, parts=CUT), *map(gpu, range(1, 4))]))
        assert asked(made, kind="h100", count=4) is None
        assert asked(made, kind="h100", count=3) == (unit(1), unit(2), unit(3))
        assert asked(made, kind=MIG) is not None
    with bench() as made:
        rule = DeviceRule(observed_kind=MIG_PARENT, kind="cut")
        made.tracker.configure(replace(made.tracker.node().settings, device_rules=(rule,)))
        look(made, root, told([gpu(0, parts=CUT), *map(gpu, range(1, 4))]))
        assert asked(made, kind="cut") == (unit(0),)
        assert asked(made, kind=MIG) is None
