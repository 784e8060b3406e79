"""Random lives of a node: commands drawn from a seed, decided and sealed without any store.

Rules of this file: a step is made from one integer, so a failing life shrinks to few steps; what a command needs to know of the world is
kept here as a store's guard rows would.
"""

from __future__ import annotations

from collections.abc import Iterable
from random import Random
from typing import NamedTuple

import immutables
from hypothesis import strategies as st
from msgspec.structs import replace

from earmark.core.ledger import commands as c
from earmark.core.ledger import events as e
from earmark.core.ledger import life_commands as lc
from earmark.core.ledger.codec import Batch, Head, Stamp, Stored, seal
from earmark.core.ledger.consumer import ConsumerState, fold_consumer
from earmark.core.ledger.decide import decide
from earmark.core.ledger.decide_move import decide_life
from earmark.core.ledger.decision import Decision, Facts
from earmark.core.ledger.fold import fold
from earmark.core.ledger.life_decision import LifeDecision, LifeFacts, Placed, World
from earmark.core.ledger.moves import Fate
from earmark.core.ledger.rows import ClaimClosed, ClaimOpened, PurposeChanged, row_change
from earmark.core.ledger.state import NodeState
from earmark.core.model.claim import Claim, Holder
from earmark.core.model.device_rule import DeviceRule
from earmark.core.model.finding import Finding
from earmark.core.model.grant import AmountRow, Grant, UnitRow
from earmark.core.model.ids import ClaimId, ConsumerId, MoveId, Owner, PoolId, ResourceClass, StreamId, Trait, UnitId, cpu_unit, node_stream
from earmark.core.model.instance import MoveKind
from earmark.core.model.inventory import Inventory
from earmark.core.model.node import NodeSettings, Provided, ReservedPages
from earmark.core.model.refusal import Refusal
from earmark.core.model.request import DeviceRequest, Request, ResourceAmount
from earmark.core.model.topology import Machine
from earmark.core.model.units import GIB, MIB
from earmark.errors import Conflict, Invalid
from earmark.testing import NODE_ONE, START_MS, UNRESERVED, machine

STREAM = node_stream(NODE_ONE)
HOUR_MS = 3_600_000
UUID = "00000000-0000-4000-8000-0000000000aa"
BASE = machine("2x2c/2t 8G 2M:256 gpu:2 vf:3")
LICENCES = Inventory(resource_class=ResourceClass("CUSTOM_LICENCE"), total=5, reserved=1, ratio=1500)

MACHINES: tuple[Machine, ...] = (
    BASE,
    replace(BASE, cpus=BASE.cpus[:-1], offline_cpus=(BASE.cpus[-1].id,)),
    replace(BASE, devices=BASE.devices[1:]),
    replace(BASE, cells=tuple(replace(cell, memory_bytes=cell.memory_bytes // 2) for cell in BASE.cells)),
    machine("3x2c/2t 12G 2M:128 gpu:3"),
)
SETTINGS: tuple[NodeSettings, ...] = (
    UNRESERVED,
    replace(UNRESERVED, inventories=(LICENCES,), cpu_allocation_ratio=2000, allow_migrate_to_same_host=True),
    replace(UNRESERVED, reserved_host_cpus=1, reserved_huge_pages=(ReservedPages(cell=0, size_kib=2048, count=64),)),
    replace(UNRESERVED, cpu_policy="split", cpu_shared_set=(0, 1, 4, 5), cpu_dedicated_set=(2, 3, 6, 7), inventories=(LICENCES,)),
    replace(UNRESERVED, cpu_policy="overlap", disk_allocation_ratio=1500),
    replace(UNRESERVED, device_rules=(DeviceRule(observed_kind="vf", one_time_use=True), DeviceRule(dev_type="PCI", tags={"a": "b"}))),
)
CONSUMERS = tuple(ConsumerId(f"vm{number}") for number in range(6))


def random(seed: int) -> Random:
    """Return the source of a step."""
    return Random(seed)  # noqa: S311 - a test case, not a secret


SEEDS = st.integers(0, (1 << 32) - 1)


def long_life(seed: int) -> list[int]:
    """Return the steps of a life that is long enough for claims to meet, end and come back."""
    rnd = random(seed)
    return [rnd.getrandbits(32) for _ in range(rnd.randint(20, 80))]


LIVES = st.one_of(st.lists(SEEDS, max_size=30), SEEDS.map(long_life))
"""One integer for each step."""


class Step(NamedTuple):
    """A command, and how far the clock moves before it (backwards too)."""

    command: c.Command | lc.LifeCommand
    moved_ms: int


def request(rnd: Random) -> Request:
    """Return a request that a small node may have room for."""
    kind = rnd.randrange(7)
    if kind == 0:
        return Request(vcpus=rnd.randint(1, 3), memory_bytes=rnd.randint(0, 2) * GIB)
    if kind in (1, 2):
        return Request(vcpus=rnd.randint(1, 3), cpu_policy="dedicated", memory_bytes=rnd.randint(0, 4) * 256 * MIB)
    if kind == 3:
        return Request(vcpus=1, memory_bytes=rnd.randint(1, 100) * 2 * MIB, page_kib=2048)
    if kind == 4:
        return Request(devices=(DeviceRequest(kind=rnd.choice(("gpu", "vf")), count=rnd.randint(1, 2)),))
    if kind == 5:
        return Request(disk_bytes=rnd.randint(1, 120) * GIB)
    return Request(resources=(ResourceAmount(resource_class=LICENCES.resource_class, amount=rnd.randint(1, 3)),), memory_bytes=MIB)


def holder(rnd: Random) -> Holder:
    """Return one of a few processes."""
    role = rnd.choice(("caller", "runner", "child"))
    return Holder(boot_id="boot-1", pid_namespace=1, pid=rnd.randint(1, 5), start_ticks=7, role=role)  # type: ignore[arg-type]  # a text chosen at random from the literal's values


def prescribed(rnd: Random) -> tuple[Request, Grant]:
    """Return a grant that names its CPU and memory, with the request that it is for; it may be impossible."""
    cpu = rnd.randrange(14)
    wish = Request(vcpus=1, cpu_policy="dedicated", memory_bytes=GIB)
    rows = (UnitRow(unit=cpu_unit(cpu), use="vcpu"),)
    return wish, Grant(units=rows, amounts=(AmountRow(pool=PoolId("memory"), amount=GIB),))


def step_of(seed: int, state: NodeState | None, known: Iterable[ClaimId], number: int, now_ms: int) -> Step:
    """Return the step that a seed stands for on a state; `known` are the claims that ever were, `number` makes a new id."""
    rnd = random(seed)
    moved = rnd.choice((0, 0, 1, 1000, HOUR_MS, -1000, -HOUR_MS))
    return Step(_command(rnd, state, sorted(known), ClaimId(f"c-{number:06d}"), now_ms + moved), moved)


def life_step(seed: int, state: NodeState, known: Iterable[ClaimId], number: int, now_ms: int) -> lc.LifeCommand:
    """Return the command about a consumer that a seed stands for; the node is the only one, so every move is on it."""
    rnd = random(seed)
    kind = rnd.randrange(10)
    consumer = rnd.choice(CONSUMERS)
    open_legs = [claim for claim in state.live() if claim.leg == "destination" and claim.move is not None and claim.phase != "draining"]
    if kind < 4 and open_legs:
        leg = rnd.choice(open_legs)
        gone = leg.holders if rnd.random() < 0.6 else ()
        how: lc.Ending = rnd.choice(("finish", "confirm", "confirm", "revert", "abort", "expire"))
        return lc.EndMove(consumer=leg.consumer, nodes=(NODE_ONE,), move=MoveId(str(leg.move)), how=how, gone=gone)
    mains = [claim for claim in state.live() if claim.purpose == "main" and claim.phase != "draining"]
    if kind < 8 and mains:
        return _open_move(rnd, rnd.choice(mains), number, now_ms)
    if kind == 8:
        labels = rnd.choice(((), (("tier", "front"), ("empty", ""))))
        return lc.CreateInstance(consumer=consumer, uuid=UUID, name=rnd.choice(("web", "db")), owner=Owner("ann"), labels=labels)
    held = [claim for claim in state.live() if claim.consumer == consumer]
    gone = tuple(holder for claim in held for holder in claim.holders if rnd.random() < 0.6)
    said = rnd.choice(("building", "active", "stopped", "error", "shelved", "shelved_offloaded", "deleted"))
    task = rnd.choice((None, None, "rebuilding"))
    return lc.ReportState(consumer=consumer, nodes=(NODE_ONE,), state=said, task=task, owner=Owner("ann"), uuid=UUID, gone=gone)  # type: ignore[arg-type]  # a text chosen at random from the literal's values


def _open_move(rnd: Random, claim: Claim, number: int, now_ms: int) -> lc.OpenMove:
    wish = rnd.choice((None, claim.request, replace(claim.request, memory_bytes=claim.request.memory_bytes // 2), request(rnd)))
    kind: MoveKind = "resize" if rnd.random() < 0.8 else "migration"
    plan = lc.LegPlan(source=claim.id, destination=ClaimId(f"c-{number:06d}"), request=wish)
    return lc.OpenMove(
        consumer=claim.consumer, nodes=(NODE_ONE,), move=MoveId(f"m-{number:06d}"), kind=kind, source=NODE_ONE, destination=NODE_ONE,
        legs=(plan,), owner=claim.owner, uuid=UUID, deadline_ms=now_ms + HOUR_MS if rnd.random() < 0.5 else None,
        holders=tuple(holder(rnd) for _ in range(rnd.choice((0, 0, 1)))),
    )  # fmt: skip


def _command(rnd: Random, state: NodeState | None, known: list[ClaimId], new: ClaimId, now_ms: int) -> c.Command:
    if state is None or rnd.random() < 0.02:
        return c.RegisterNode(node=NODE_ONE, name="n1", machine_ref="machine-1")
    if state.machine is None:
        return c.ObserveMachine(node=NODE_ONE, machine=BASE)
    now_ms = max(now_ms, state.at_ms)
    if rnd.random() < 0.45:
        return _hold(rnd, new, now_ms)
    if rnd.random() < 0.3:
        return _node_command(rnd, state, now_ms)
    live = sorted(state.claims)
    pool = live if live and rnd.random() < 0.8 else [*known, ClaimId("c-nobody")]
    return _claim_command(rnd, rnd.choice(pool), state, now_ms)


def _hold(rnd: Random, new: ClaimId, now_ms: int) -> c.HoldClaim:
    wish, grant = prescribed(rnd) if rnd.random() < 0.2 else (request(rnd), None)
    confirm = rnd.random() < 0.4
    deadline = now_ms + rnd.choice((1000, HOUR_MS, 10 * HOUR_MS))
    return c.HoldClaim(
        node=NODE_ONE, claim=new, consumer=rnd.choice(CONSUMERS), owner=Owner(rnd.choice(("ann", "bob"))), request=wish, grant=grant,
        purpose=rnd.choice(("main", "main", "attach", "leg")), confirm=confirm,
        deadline_ms=None if confirm and rnd.random() < 0.7 else deadline,
        holders=tuple(holder(rnd) for _ in range(rnd.choice((0, 0, 1, 2)))),
    )  # fmt: skip


def _claim_command(rnd: Random, claim: ClaimId, state: NodeState, now_ms: int) -> c.Command:
    kind = rnd.randrange(8)
    generation = rnd.choice((None, None, None, 1, 2))
    if kind == 0:
        deadline = rnd.choice((None, now_ms + HOUR_MS))
        return c.ConfirmClaim(node=NODE_ONE, claim=claim, deadline_ms=deadline, generation=generation)
    if kind == 1:
        return c.BindClaim(node=NODE_ONE, claim=claim, holders=(holder(rnd),), generation=generation)
    if kind == 2:
        return c.RenewClaim(node=NODE_ONE, claim=claim, deadline_ms=rnd.choice((None, now_ms - 1, now_ms + HOUR_MS)), generation=generation)
    live = state.claims.get(claim)
    gone = live.holders if live is not None and rnd.random() < 0.6 else ()
    cause = rnd.choice(("released", "released", "aborted", "forced"))
    return c.EndClaim(node=NODE_ONE, claim=claim, cause=cause, gone=gone, generation=generation)  # type: ignore[arg-type]  # a text chosen at random from the literal's values


def _node_command(rnd: Random, state: NodeState, now_ms: int) -> c.Command:
    units: list[UnitId | None] = [None, UnitId("cpu:1"), UnitId("cpu:7"), UnitId("gpu:GPU-0"), UnitId("cpu:99")]
    kind = rnd.randrange(10)
    if kind == 8:
        return rnd.choice(
            (
                c.RetireNode(node=NODE_ONE, reason="sold"), c.RestoreNode(node=NODE_ONE), c.RestoreNode(node=NODE_ONE, reason="back"),
                c.HostNode(node=NODE_ONE, host=rnd.choice(("host-1", "host-2")), reason="moved"),
                c.ReturnNode(node=NODE_ONE, reason="up again"), c.RestoreNode(node=NODE_ONE),
            )
        )  # fmt: skip
    if kind == 9 and rnd.random() < 0.5:
        found = Finding(code="foreign", severity="warning", detail="a guest that nobody claimed", node=NODE_ONE)
        return c.RecordFindings(node=NODE_ONE, source="audit", findings=rnd.choice(((), (found,))))
    if kind == 9:
        return c.ProvideNode(node=NODE_ONE, provided=rnd.choice((Provided(), Provided(traits=(Trait("CUSTOM_TRAIT"),)))))
    if kind == 0:
        return c.ObserveMachine(node=NODE_ONE, machine=rnd.choice(MACHINES))
    if kind == 1:
        return c.ConfigureNode(node=NODE_ONE, settings=rnd.choice(SETTINGS))
    if kind == 2:
        until = rnd.choice((None, now_ms + 1000, now_ms - 5))
        return c.CordonUnit(node=NODE_ONE, unit=rnd.choice(units), reason=rnd.choice(("sick", "old")), until_ms=until)
    if kind == 3:
        return c.UncordonUnit(node=NODE_ONE, unit=rnd.choice([*units, *(cordon.unit for cordon in state.cordons.values())]))
    if kind == 4:
        return c.RehomeNode(node=NODE_ONE, machine_ref=rnd.choice(("machine-1", "machine-2")), reason="moved")
    if kind == 5 and state.quarantines:
        kept = state.quarantines[rnd.choice(sorted(state.quarantines))]
        rows = [row.unit for row in kept.grant.units]
        unit = rnd.choice(rows) if rows and rnd.random() < 0.5 else None
        return c.ReturnUnits(node=NODE_ONE, claim=kept.claim if unit is None or rnd.random() < 0.5 else None, unit=unit, reason="looked")
    every = sorted({each for claim in state.claims.values() for each in claim.holders}, key=lambda each: (each.pid, each.role))
    gone = tuple(each for each in every if rnd.random() < 0.3)
    alive = tuple(each for each in every if each not in gone and rnd.random() < 0.5)
    return c.SweepNode(node=NODE_ONE, grace_ms=rnd.choice((0, 60_000)), gone=gone, alive=alive)


class Life:
    """One node's stream made without a store: what was written (`ends`: after each append), what a writer would have published, what the guard rows would say."""

    def __init__(self) -> None:
        self.stored: list[Stored] = []
        self.ends: set[int] = set()
        self.head = Head()
        self.state: NodeState | None = None
        self.now_ms = START_MS
        self.ended: dict[ClaimId, str] = {}
        self.mains: dict[ConsumerId, ClaimId] = {}
        self.consumers: dict[ClaimId, ConsumerId] = {}
        self.purposes: dict[ClaimId, str] = {}
        self.known: dict[StreamId, ConsumerState] = {}
        self.told: list[Stored] = []

    def live(self, seeds: Iterable[int]) -> Life:
        """Carry out the steps of some seeds and return this life."""
        for number, seed in enumerate(seeds):
            step = self.step(seed, number)
            self.now_ms += step.moved_ms
            self.do(step.command)
            if seed % 7 == 0:
                self.hand_over(random(seed))
        return self

    def step(self, seed: int, number: int) -> Step:
        """Return the step that a seed stands for now: every third one is about a consumer."""
        step = step_of(seed, self.state, self.consumers, number, self.now_ms)
        if self.state is not None and self.state.machine is not None and seed % 3 == 0:
            return Step(life_step(seed, self.state, self.consumers, number, self.now_ms + step.moved_ms), step.moved_ms)
        return step

    def do(self, command: c.Command | lc.LifeCommand) -> Decision | LifeDecision | Refusal | Invalid | Conflict:
        """Decide a command and write what it leads to."""
        try:
            decided = self.decided(command)
        except (Invalid, Conflict) as error:
            return error
        if isinstance(decided, Decision):
            self.write(decided.events)
        elif isinstance(decided, LifeDecision):
            for stream, events in decided.batches:
                if stream == STREAM:
                    self.write(events)
                else:
                    self.tell(stream, events)
            assert all(self._bare(stream) == replace(state, head=Head()) for stream, state in decided.after.items() if state is not None)
        return decided

    def decided(self, command: c.Command | lc.LifeCommand) -> Decision | LifeDecision | Refusal:
        """Decide a command on what is true now; raises what deciding raises."""
        if isinstance(command, lc.LifeCommand):
            world: World = {stream: self.state if stream == STREAM else self.known.get(stream) for stream in command.streams}
            placed = tuple(
                Placed(claim, NODE_ONE, self.purposes[claim])
                for claim, consumer in sorted(self.consumers.items())
                if consumer == command.consumer and claim not in self.ended
            )
            ended = immutables.Map({claim: Fate(None, self.purposes[claim], cause) for claim, cause in self.ended.items()})
            return decide_life(world, command, LifeFacts(now_ms=self.now_ms, open=placed, ended=ended))
        claim = getattr(command, "claim", None)
        main = self.mains.get(command.consumer) if isinstance(command, c.HoldClaim) else None
        facts = Facts(now_ms=self.now_ms, ended=self.ended.get(claim) if claim is not None else None, main=main)
        return decide(self.state, command, facts)

    def hand_over(self, rnd: Random) -> None:
        """Pass a unit from one live claim to another, as a change of hands will."""
        holding = [claim for claim in self.state.live() if claim.grant.units] if self.state is not None else []
        if self.state is not None and holding and len(self.state.claims) > 1:
            source = rnd.choice(holding)
            target = rnd.choice([claim for claim in self.state.live() if claim.id != source.id])
            self.write((e.UnitsPassed(source=source.id, target=target.id, units=(source.grant.units[0].unit,)),))

    def write(self, events: tuple[e.Event, ...]) -> None:
        """Seal events, keep them, and fold them in."""
        stamp = Stamp(actor="tester", command="1", now_ms=self.now_ms, epoch=1, boot_id="boot-1")
        sealed, self.head = seal(Batch(STREAM, self.head.sequence, events), self.head, stamp)
        new = [Stored(sequence, STREAM, sequence, raw, digest) for sequence, raw, digest in sealed]
        self.stored += new
        self.ends.add(self.head.sequence)
        self.state = fold(self.state, new)
        for event in events:
            self._guard(event)

    def tell(self, stream: StreamId, events: tuple[e.Event, ...]) -> None:
        """Seal events of a consumer, keep them, and fold them in."""
        stamp = Stamp(actor="tester", command="1", now_ms=self.now_ms, epoch=1, boot_id="boot-1")
        head = self.known[stream].head if stream in self.known else Head()
        sealed, _ = seal(Batch(stream, head.sequence, events), head, stamp)
        new = [Stored(sequence, stream, sequence, raw, digest) for sequence, raw, digest in sealed]
        self.told += new
        state = fold_consumer(self.known.get(stream), new)
        assert state is not None
        self.known[stream] = state

    def _bare(self, stream: StreamId) -> NodeState | ConsumerState:
        state = self.state if stream == STREAM else self.known[stream]
        assert state is not None
        return replace(state, head=Head())

    def _guard(self, event: e.Event) -> None:
        change = row_change(event)
        if isinstance(change, PurposeChanged):
            consumer = self.consumers[change.claim]
            if self.mains.get(consumer) == change.claim:
                del self.mains[consumer]
            if change.purpose == "main":
                assert consumer not in self.mains
                self.mains[consumer] = change.claim
            self.purposes[change.claim] = change.purpose
        if isinstance(change, ClaimOpened):
            self.consumers[change.claim] = change.consumer
            self.purposes[change.claim] = change.purpose
            if change.purpose == "main":
                assert change.consumer not in self.mains
                self.mains[change.consumer] = change.claim
        elif isinstance(change, ClaimClosed):
            self.ended[change.claim] = change.cause
            if self.mains.get(self.consumers[change.claim]) == change.claim:
                del self.mains[self.consumers[change.claim]]
