"""Records a golden ledger: an export with every kind of event, and the state that it folds to.

    .venv/bin/python tools/golden.py tests/ledger/golden/v2

It makes a new folder and never overwrites one: what an earlier version wrote must fold to what it was, for ever.
"""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
from msgspec.structs import replace

from earmark.core.ledger import commands as c
from earmark.core.ledger import events as e
from earmark.core.ledger import life_commands as lc
from earmark.core.ledger.codec import open_envelope
from earmark.core.ledger.consumer import encode_consumer
from earmark.core.ledger.state import encode_image
from earmark.core.model.claim import Holder
from earmark.core.model.device_rule import DeviceRule, NamedResource
from earmark.core.model.finding import Finding
from earmark.core.model.grant import AmountRow, Grant, GrantCell, Pin, UnitRow
from earmark.core.model.ids import ClaimId, ConsumerId, MoveId, NodeId, Owner, PoolId, ResourceClass, Trait, UnitId, cpu_unit, node_stream
from earmark.core.model.instance import MoveKind
from earmark.core.model.inventory import Inventory
from earmark.core.model.node import NetworkCells, NodeSettings, Provided, ReservedPages
from earmark.core.model.refusal import Refusal
from earmark.core.model.request import DeviceRequest, Request, ResourceAmount
from earmark.core.model.topology import Machine, MdevType
from earmark.core.model.units import GIB, MIB
from earmark.stores.memory import MemoryStore
from earmark.stores.transfer import export_lines
from earmark.testing import NODE_ONE, GivenClock, machine
from earmark.tracker.writer import Writer

NODE_TWO = NodeId("00000000-0000-4000-8000-000000000002")
HOUR_MS = 3_600_000
LICENCES = Inventory(resource_class=ResourceClass("CUSTOM_LICENCE"), total=8, reserved=1, ratio=1500, max_unit=4)
SETTINGS = NodeSettings(
    allow_resize_to_same_host=True, resize_confirm_window_s=600, max_concurrent_builds=9,
    reserved_host_cpus=1, reserved_host_memory_bytes=GIB, cpu_allocation_ratio=2000, inventories=(LICENCES,), device_kinds=("gpu", "vf"),
    reserved_huge_pages=(ReservedPages(cell=1, size_kib=2048, count=16),),
)  # fmt: skip


def rich_machine() -> Machine:
    """Return a machine that has something in most fields."""
    plain = machine("2x4c/2t 32G 2M:1024 gpu:2 vf:3")
    cpus = tuple(replace(cpu, die=0, kind="efficiency" if cpu.cell else "performance", isolated=cpu.cell == 1) for cpu in plain.cpus)
    devices = tuple(
        replace(device, vendor_id="0x10de", product_id="0x20b0", class_id="0x030200", driver="vfio-pci", iommu_group=7, resettable=True)
        for device in plain.devices
    )
    return replace(
        plain, cpus=cpus, devices=devices, offline_cpus=(16, 17), traits=("HW_CPU_X86_AVX2",), notes=("no distances were readable",),
        usable_cpus=tuple(range(15)), memory_limit_bytes=28 * GIB,
    )  # fmt: skip


class Recorder:
    """Says commands one after the other, an hour apart."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.clock = GivenClock()
        self.writer = Writer(self.store, self.clock, actor="ann", epoch=1, boot_id="11111111-2222-4333-8444-555555555555", timeout_s=10.0)
        self.claims = 0

    def say(self, command: c.Command) -> c.Answer:
        """Carry out a command that must be answered."""
        self.clock.move(HOUR_MS)
        answer = self.writer.submit(command, correlation=f"golden-{self.store.last_position()}")
        if isinstance(answer, Refusal):
            raise SystemExit(f"{command} was refused: {answer.reasons}")
        return answer

    def hold(self, request: Request, *, grant: Grant | None = None, confirm: bool = True, holders: tuple[Holder, ...] = ()) -> ClaimId:
        """Hold a claim and return its id."""
        self.claims += 1
        claim = ClaimId(f"c-{self.claims:012d}")
        self.say(
            c.HoldClaim(
                node=NODE_ONE, claim=claim, consumer=ConsumerId(f"vm {self.claims} 名"), owner=Owner("ann"), request=request, grant=grant,
                confirm=confirm, deadline_ms=None if confirm else self.clock.now_ms() + 3 * HOUR_MS, holders=holders,
            )
        )  # fmt: skip
        return claim

    def tell(self, command: lc.LifeCommand) -> lc.LifeAnswer:
        """Carry out a command about a consumer that must be answered."""
        self.clock.move(HOUR_MS)
        answer = self.writer.submit(command, correlation=f"golden-{self.store.last_position()}")
        if isinstance(answer, Refusal):
            raise SystemExit(f"{command} was refused: {answer.reasons}")
        return answer

    def move(
        self, number: int, source: ClaimId, to: NodeId, *ends: lc.Ending, kind: MoveKind = "resize", request: Request | None = None,
        token: str | None = None,
    ) -> ClaimId:  # fmt: skip
        """Open a move of a claim on the first node, end it as is said, and return its destination leg."""
        state = self.writer.state(node_stream(NODE_ONE))
        if state is None:
            raise SystemExit("the node is gone")
        claim, leg = state.claims[source], ClaimId(f"c-leg{number:09d}")
        nodes = (NODE_ONE, to) if to != NODE_ONE else (NODE_ONE,)
        uuid = f"00000000-0000-4000-8000-{number:012d}"
        self.tell(
            lc.OpenMove(
                consumer=claim.consumer, nodes=nodes, move=MoveId(f"m-{number:04d}"), kind=kind, source=NODE_ONE, destination=to,
                legs=(lc.LegPlan(source=source, destination=leg, request=request),), owner=claim.owner, uuid=uuid, token=token,
                deadline_ms=self.clock.now_ms() + 100 * HOUR_MS,
            )
        )  # fmt: skip
        for how in ends:
            self.tell(lc.EndMove(consumer=claim.consumer, nodes=nodes, move=MoveId(f"m-{number:04d}"), how=how))
        return leg


def record() -> Recorder:
    """Return a ledger of two nodes in which everything has happened."""
    r = Recorder()
    seen = rich_machine()
    holder = Holder(boot_id="11111111-2222-4333-8444-555555555555", pid_namespace=4026531836, pid=4711, start_ticks=815, role="runner",
                    cgroup="/earmark/c-1", session=4711)  # fmt: skip
    r.say(c.RegisterNode(node=NODE_ONE, name="n1", machine_ref="m-1"))
    r.say(c.RegisterNode(node=NODE_TWO, name="n2"))
    r.say(c.ConfigureNode(node=NODE_ONE, settings=SETTINGS))
    r.say(c.ObserveMachine(node=NODE_ONE, machine=seen))
    r.say(c.ObserveMachine(node=NODE_TWO, machine=machine("4c 8G")))
    own = r.hold(Request(vcpus=4, cpu_policy="dedicated", thread_policy="prefer", memory_bytes=4 * GIB, disk_bytes=20 * GIB))
    r.hold(Request(vcpus=3, memory_bytes=1536 * MIB, resources=(ResourceAmount(resource_class=LICENCES.resource_class, amount=2),)))
    r.hold(Request(memory_bytes=256 * MIB, vcpus=1, page_kib=2048, placement="spread"))
    device = r.hold(Request(devices=(DeviceRequest(kind="gpu", count=2), DeviceRequest(kind="vf"))), holders=(holder,))
    pinned = Grant(
        units=(UnitRow(unit=cpu_unit(5), use="vcpu"), UnitRow(unit=cpu_unit(6), use="vcpu")),
        amounts=(AmountRow(pool=PoolId("memory"), amount=GIB),),
        cells=(GrantCell(guest_cell=0, host_cell=0, pins=(Pin(vcpu=0, cpu=5), Pin(vcpu=1, cpu=6)), memory_bytes=GIB),),
    )
    given = r.hold(Request(vcpus=2, cpu_policy="dedicated", memory_bytes=GIB), grant=pinned, confirm=False)
    r.say(c.RenewClaim(node=NODE_ONE, claim=given, deadline_ms=r.clock.now_ms() + 9 * HOUR_MS))
    r.say(c.ConfirmClaim(node=NODE_ONE, claim=given, deadline_ms=r.clock.now_ms() + 99 * HOUR_MS, holders=(holder,)))
    r.say(c.BindClaim(node=NODE_ONE, claim=own, holders=(holder, replace(holder, role="child", pid=4712))))
    r.say(c.EndClaim(node=NODE_ONE, claim=r.hold(Request(vcpus=1)), cause="released"))
    r.say(c.EndClaim(node=NODE_ONE, claim=r.hold(Request(vcpus=1, cpu_policy="dedicated"), confirm=False), cause="aborted"))
    lives(r)
    lost = r.hold(Request(vcpus=2, cpu_policy="dedicated", memory_bytes=MIB), confirm=False)
    r.clock.move(10 * HOUR_MS)
    r.say(c.SweepNode(node=NODE_ONE, grace_ms=60_000))
    r.say(c.SweepNode(node=NODE_ONE, grace_ms=60_000))
    kept = r.writer.state(node_stream(NODE_ONE))
    if kept is None or lost not in kept.quarantines:
        raise SystemExit("nothing is in quarantine")
    r.say(c.ReturnUnits(node=NODE_ONE, claim=None, unit=kept.quarantines[lost].grant.units[0].unit, reason="looked at it"))
    r.say(c.CordonUnit(node=NODE_ONE, unit=UnitId("cpu:5"), reason='"sick" & <odd>', until_ms=r.clock.now_ms() + 2 * HOUR_MS))
    r.say(c.CordonUnit(node=NODE_ONE, unit=None, reason="maintenance"))
    r.say(c.UncordonUnit(node=NODE_ONE, unit=None))
    r.say(c.EndClaim(node=NODE_ONE, claim=device, cause="forced"))
    r.say(c.RehomeNode(node=NODE_ONE, machine_ref="m-2", reason="a new board"))
    r.say(c.ObserveMachine(node=NODE_ONE, machine=replace(seen, cpus=seen.cpus[:-1], offline_cpus=(15, 16, 17))))
    r.say(c.RetireNode(node=NODE_TWO, reason="sold"))
    r.say(c.RestoreNode(node=NODE_TWO, reason="bought again"))
    r.say(c.HostNode(node=NODE_TWO, host="host-2", reason="another controller"))
    found = Finding(code="foreign", severity="warning", detail="a guest that nobody claimed", node=NODE_TWO)
    r.say(c.RecordFindings(node=NODE_TWO, source="audit", findings=(found,)))
    r.say(c.ProvideNode(node=NODE_TWO, provided=Provided(inventories=(LICENCES,), traits=(Trait("CUSTOM_TRAIT"),))))
    policy(r)
    return r


def policy(r: Recorder) -> None:
    """Let a device policy hand out a device for one use, named resources and parts of a device."""
    seen = rich_machine()
    types = (MdevType(name="nvidia-35", total=4, label="a quarter"),)
    parts = tuple(replace(device, mdev_types=types) if device.kind == "gpu" else device for device in seen.devices)
    r.say(c.ObserveMachine(node=NODE_ONE, machine=replace(seen, devices=parts)))
    named = NamedResource(resource_class=ResourceClass("CUSTOM_DONGLE"), name="dongle-1", cell=0)
    once = DeviceRule(observed_kind="vf", one_time_use=True, kind="one-shot", tags={"physical_network": "physnet1"})
    split = DeviceRule(units=(parts[0].unit,), mdev_type="nvidia-35", max_instances=2, live_migratable=True)
    settings = replace(
        SETTINGS, device_rules=(once, split), named_resources=(named,), network_cells=(NetworkCells(network="physnet1", cells=(0,)),),
        keep_iommu_groups=False,
    )  # fmt: skip
    r.say(c.ConfigureNode(node=NODE_ONE, settings=settings))
    wish = Request(vcpus=1, memory_bytes=MIB, devices=(DeviceRequest(kind="one-shot"), DeviceRequest(kind="class:CUSTOM_DONGLE")))
    r.say(c.EndClaim(node=NODE_ONE, claim=r.hold(wish), cause="released"))
    r.hold(replace(wish, devices=wish.devices[1:]))


def lives(r: Recorder) -> None:
    """Let instances be created, move in every way and be deleted."""
    small = Request(vcpus=1, memory_bytes=256 * MIB)
    consumer = ConsumerId(f"vm {r.claims + 1} 名")
    r.tell(
        lc.CreateInstance(
            consumer=consumer, uuid="00000000-0000-4000-8000-00000000aaaa", name="web 名", owner=Owner("ann"), kind="process",
            labels=(("tier", "front"), ("empty", "")),
        )
    )  # fmt: skip
    moved = r.move(1, r.hold(small), NODE_TWO, "finish", "finish", "confirm", request=replace(small, vcpus=2))
    r.tell(lc.ReportState(consumer=consumer, nodes=(NODE_TWO,), state="active", task="rebuilding", reason="as it was said"))
    r.move(2, r.hold(small), NODE_TWO, "revert", kind="migration")
    r.move(3, r.hold(small), NODE_TWO, "abort", kind="live_migration", token="a tie")  # noqa: S106 - it ties two halves and opens nothing
    r.move(4, r.hold(small), NODE_TWO, "expire")
    r.move(5, r.hold(small), NODE_TWO, "confirm", kind="evacuation")
    device = Request(vcpus=1, memory_bytes=256 * MIB, devices=(DeviceRequest(kind="vf"),))
    r.move(6, r.hold(device), NODE_ONE, "finish", "confirm", request=replace(device, vcpus=2))
    r.move(7, r.hold(small), NODE_TWO)
    r.tell(lc.ReportState(consumer=consumer, nodes=(NODE_TWO,), state="deleted"))
    if moved in (state.claims if (state := r.writer.state(node_stream(NODE_TWO))) is not None else ()):
        raise SystemExit("a deleted instance holds something")


def main(folder: Path) -> None:
    """Write a golden ledger into a new folder."""
    recorded = record()
    found = {(envelope.type, envelope.version) for envelope in (open_envelope(stored.raw) for stored in recorded.store.all_events())}
    if found != set(e.KNOWN):
        raise SystemExit(f"not recorded: {sorted(set(e.KNOWN) - found)}")
    folder.mkdir(parents=True)
    (folder / "events.jsonl").write_bytes(b"".join(export_lines(recorded.store)))
    for node, name in ((NODE_ONE, "n1"), (NODE_TWO, "n2")):
        state = recorded.writer.state(node_stream(node))
        if state is None:
            raise SystemExit(f"node {name} is gone")
        (folder / f"{name}.json").write_bytes(msgspec.json.format(encode_image(state), indent=1) + b"\n")
    consumers = sorted(stream.removeprefix("consumer:") for stream in recorded.store.heads() if stream.startswith("consumer:"))
    states = [recorded.writer.consumer(ConsumerId(consumer)) for consumer in consumers]
    known = b"".join(encode_consumer(state) + b"\n" for state in states if state is not None)
    (folder / "consumers.jsonl").write_bytes(known)
    print(f"{folder}: {recorded.store.last_position()} events")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
