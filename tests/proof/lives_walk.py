"""Random lives of instances over three nodes, with a dictionary of claims as a second opinion that predicts everything but the places.

Rules of this file: a walk is made from its seed alone, so that every failure can be said again; the opinion knows requests, times and holders, and
nothing of grants but which claim was granted; after every step the whole ledger is compared with it and audited (invariants I1-I6).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any, NamedTuple

from msgspec.structs import replace as with_fields

from earmark.core.ledger.commands import Answer, ConfigureNode, ObserveMachine, RegisterNode
from earmark.core.ledger.life_commands import LifeAnswer
from earmark.core.ledger.state import NodeState
from earmark.core.model.ids import MEMORY, VCPU, ClaimId, NodeId, PoolId, StreamId, consumer_stream, node_stream
from earmark.core.model.instance import FREEING, InstanceState, Move, MoveKind
from earmark.core.model.refusal import Refusal
from earmark.core.model.request import DeviceRequest, Request
from earmark.core.model.units import GIB, KIB, MIB
from earmark.errors import Conflict, EarmarkError, InvalidRequest, LedgerUnavailable, UnknownClaim, UnknownMove
from earmark.stores.contract import Store
from earmark.testing import UNRESERVED, FaultyStore, GivenClock, GivenHost, GivenProcesses, assert_sound, machine, on
from earmark.tracker.history import State, judged
from earmark.tracker.leases import Leases
from earmark.tracker.tracker import Tracker
from earmark.tracker.writer import Writer

GRACE_MS = 60_000
HOLD_MS = 600_000
WINDOW_MS = 900_000
REPLAY_EVERY = 25
"""Steps after which the auditor folds the whole ledger anew; after each of the others it looks at the states as they are published."""
PIDS = range(101, 107)
CONSUMERS = tuple(f"vm{number}" for number in range(5))
SHAPES = {"n1": "2x4c 16G 2M:512 vf:4 disk:200G", "plain": "8c 16G disk:200G", "tiny": "3c 4G disk:60G"}
SETTINGS = with_fields(
    UNRESERVED, allow_resize_to_same_host=True, allow_migrate_to_same_host=True, resize_confirm_window_s=WINDOW_MS // 1000,
    live_migratable_kinds=("vf",),
)  # fmt: skip
PLAIN = with_fields(UNRESERVED, cpu_allocation_ratio=2000, allow_migrate_to_same_host=True)
REQUESTS = (
    Request(vcpus=1, memory_bytes=GIB, disk_bytes=10 * GIB),
    Request(vcpus=2, memory_bytes=2 * GIB, disk_bytes=20 * GIB + 512 * MIB),
    Request(vcpus=1, cpu_policy="dedicated", memory_bytes=GIB),
    Request(vcpus=2, cpu_policy="dedicated", memory_bytes=2 * GIB, disk_bytes=5 * GIB),
    Request(vcpus=1, memory_bytes=256 * MIB, page_kib=2048),
    Request(vcpus=1, memory_bytes=GIB, devices=(DeviceRequest(kind="vf"),)),
    Request(vcpus=2, cpu_policy="dedicated", memory_bytes=GIB, devices=(DeviceRequest(kind="vf", count=2),)),
    Request(vcpus=2, memory_bytes=GIB, devices=(DeviceRequest(kind="vf"),)),
    Request(vcpus=9, memory_bytes=GIB),
)
STATES: tuple[InstanceState, ...] = (
    "building", "active", "paused", "suspended", "stopped", "rescued", "resized", "error", "shelved", "soft_deleted", "shelved_offloaded",
    "deleted",
)  # fmt: skip
KINDS: tuple[MoveKind, ...] = ("resize", "resize", "migration", "live_migration", "evacuation")
OUTCOMES = {"confirm": "confirmed", "revert": "reverted", "abort": "aborted", "expire": "expired"}


class Died(BaseException):
    """The program dies here."""


class Books(NamedTuple):
    """What a node gives out: vCPUs and dedicated CPUs, bytes of memory and of disk, devices."""

    cpus: int = 0
    memory: int = 0
    disk: int = 0
    devices: int = 0

    def plus(self, other: Books) -> Books:
        """Return the sum."""
        return Books(*(one + two for one, two in zip(self, other, strict=True)))


def asked(request: Request, named: int = 0) -> Books:
    """Return what a request takes wherever it is granted, less the devices that stay with another claim."""
    return Books(request.vcpus, request.memory_bytes, request.disk_bytes, sum(device.count for device in request.devices) - named)


def books(state: NodeState) -> Books:
    """Return what a node says that is used."""
    free = state.free
    devices = sum(not slot.startswith("cpu:") for slot in free.slots)
    pages = sum(amount * int(pool.rsplit(":", 1)[1]) * KIB for pool, amount in free.used.items() if pool.startswith("pages:"))
    shared = sum(amount for pool, amount in free.used.items() if pool == VCPU or pool.startswith(f"{VCPU}:"))
    return Books(shared + free.taken_cpus.bit_count(), free.used.get(MEMORY, 0) + pages, free.used.get(PoolId("disk:root"), 0), devices)


@dataclass
class Held:
    """What is believed of one claim that lives."""

    node: str
    consumer: str
    request: Request
    purpose: str
    phase: str = "held"
    deadline_ms: int | None = None
    holders: tuple[int, ...] = ()
    move: str | None = None
    leg: str | None = None
    named: int = 0
    passed: int = 0
    since_ms: int = 0
    confirmed_ms: int | None = None
    cause: str | None = None

    @property
    def books(self) -> Books:
        """What it holds now."""
        return asked(self.request, self.named + self.passed)


@dataclass
class Moving:
    """What is believed of a move: pairs of source and destination claims, the main one first; `outcome` None while it is open."""

    consumer: str
    kind: MoveKind
    pairs: list[tuple[str, str]]
    target: str
    outcome: str | None = None


@dataclass
class Opinion:
    """All that is believed of the ledger."""

    live: dict[str, Held] = field(default_factory=dict)
    ended: dict[str, str] = field(default_factory=dict)
    kept: dict[str, Held] = field(default_factory=dict)
    known: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    moves: dict[str, Moving] = field(default_factory=dict)
    closed: set[str] = field(default_factory=set)
    retired: set[str] = field(default_factory=set)

    def of(self, consumer: str) -> dict[str, Held]:
        """Return the live claims of a consumer, by id."""
        return {key: claim for key, claim in sorted(self.live.items()) if claim.consumer == consumer}

    def main(self, consumer: str) -> str | None:
        """Return the claim that a move of the consumer would leave."""
        return next((key for key, claim in self.of(consumer).items() if claim.purpose == "main" and claim.phase != "draining"), None)

    def open_move(self, consumer: str) -> str | None:
        """Return the open move of a consumer."""
        return next((key for key, move in self.moves.items() if move.consumer == consumer and move.outcome is None), None)

    def used(self, node: str) -> Books:
        """Return the sum of all that is held and kept on a node (I1)."""
        total = Books()
        for claim in (*self.live.values(), *self.kept.values()):
            if claim.node == node:
                total = total.plus(claim.books)
        return total


class Walk:
    """One life of three nodes, made from a seed; `trace` says what was done."""

    def __init__(self, seed: int, store: Store) -> None:
        self.seed = seed
        self.rnd = Random(seed)  # noqa: S311 - a test case, not a secret
        self.store = store
        self.faulty = FaultyStore(store)
        self.clock, self.processes = GivenClock(), GivenProcesses()
        self.host = GivenHost(machine(SHAPES["n1"]))
        self.world = on(self.faulty.as_store(), self.host, self.clock, self.processes, SETTINGS)
        self.ids: dict[str, NodeId] = {"n1": self.world.tracker.home}
        for number, name in enumerate(("plain", "tiny"), 2):
            self.ids[name] = NodeId(f"00000000-0000-4000-8000-{number:012d}")
            for command in (
                RegisterNode(node=self.ids[name], name=name),
                ObserveMachine(node=self.ids[name], machine=machine(SHAPES[name])),
                ConfigureNode(node=self.ids[name], settings=PLAIN),
            ):
                self.world.tracker._writer.submit(command)
        self.opinion = Opinion()
        self.number = 0
        self.steps = 0
        self.trace: list[str] = []
        self.serials: dict[str, int] = {}

    @property
    def tracker(self) -> Any:
        """The tracker that is open now."""
        return self.world.tracker

    # --- walking --------------------------------------------------------------------------------------------------------------------

    def walk(self, steps: int) -> Walk:
        """Take some steps, checking everything after each; a failure says how it can be had again."""
        try:
            for _ in range(steps):
                self.step()
        except BaseException as error:
            error.add_note(f"walk {self.seed}, step {self.steps}; the last of it:\n  " + "\n  ".join(self.trace[-12:]))
            raise
        return self

    def step(self) -> None:
        """Take one step."""
        self.steps += 1
        act = self.rnd.choices(ACTS, WEIGHTS)[0]
        self.trace.append(act.__name__)
        act(self)
        self.check()

    def said(self, text: str) -> None:
        """Write down what a step does."""
        self.trace[-1] += " " + text

    # --- saying it to the tracker ---------------------------------------------------------------------------------------------------

    def say(self, command: Callable[[], Any]) -> tuple[Any, bool]:
        """Say a command whose commit may fail or kill the program, then again; returns its answer or error, and whether it is the first one."""
        fault = self.rnd.choices(("", "before", "after"), (8, 1, 1))[0]
        if not fault:
            return self.answer(command), True
        before = self.heads()
        dies = self.rnd.random() < 0.4
        self.said(f"[{'dies' if dies else 'fails'} {fault} the commit]")

        def strike() -> None:
            self.faulty.before_commit = self.faulty.after_commit = int
            if dies:
                raise Died
            raise LedgerUnavailable("the disk fails in this test")

        if fault == "before":
            self.faulty.before_commit = strike
        else:
            self.faulty.after_commit = strike
        struck = False
        found: Any = None
        try:
            found = self.answer(command, (LedgerUnavailable,))
        except Died:
            struck = True
            self.begin_anew()
        struck = struck or isinstance(found, LedgerUnavailable)
        self.faulty.before_commit = self.faulty.after_commit = int
        if not struck:
            return found, True
        first = self.heads() == before
        assert first or fault == "after", "a commit that failed has changed something"
        return self.answer(command), first

    def begin_anew(self) -> None:
        """Let another program open the ledger, which knows nothing but that."""
        self.faulty = FaultyStore(self.store)
        store = self.faulty.as_store()
        old = self.tracker
        writer = Writer(store, self.clock, actor="tester", epoch=1, boot_id=self.host.boot, timeout_s=10.0)
        tracker = Tracker(store, writer, Leases(self.processes), self.host, self.clock, home=old.home, terms=old.terms, monitor=self.host)
        self.world = self.world._replace(tracker=tracker, store=store)

    def answer(self, command: Callable[[], Any], more: tuple[type[EarmarkError], ...] = ()) -> Any:
        """Return the answer, or the error that is an answer too."""
        try:
            return command()
        except EarmarkError as error:
            if not isinstance(error, (Conflict, InvalidRequest, UnknownClaim, UnknownMove, *more)):
                raise
            return error

    def heads(self) -> dict[str, int]:
        """Return how far each stream is."""
        return {stream: head.sequence for stream, head in self.store.heads().items()}

    def unchanged(self, command: Callable[[], Any]) -> Any:
        """Say something that is so already: an answer that changes nothing (I4)."""
        before = self.heads()
        found = self.answer(command)
        assert self.heads() == before
        assert not getattr(found, "changed", False)
        return found

    # --- time -----------------------------------------------------------------------------------------------------------------------

    def now(self, *nodes: str) -> int:
        """Return the time as the ledger takes it on some nodes."""
        times: list[int] = [self.tracker.node(self.ids[node]).at_ms for node in nodes]
        return max(self.clock.now_ms(), *times)

    def dead(self, pid: int) -> bool:
        """Say whether a process is proven gone."""
        return self.processes.fates.get(pid) == "dead"

    def believe_swept(self, node: str, now: int) -> None:
        """Believe what time and deaths do to a node."""
        for key, claim in sorted(self.opinion.live.items()):
            if claim.node != node or claim.cause == "evacuated" or (claim.move and claim.phase != "draining"):
                continue
            self._believe_due(key, claim, now)
        for claim in [claim for _, claim in sorted(self.opinion.live.items()) if claim.node == node and claim.leg == "destination"]:
            if claim.phase == "draining" or claim.move is None or self.opinion.moves[claim.move].outcome is not None:
                continue
            alive = any(self.processes.fates.get(pid, "alive") == "alive" for pid in claim.holders)
            window = self.opinion.moves[claim.move].kind in ("resize", "migration") and node == "n1"
            if claim.holders and all(map(self.dead, claim.holders)):
                self.believe_ended(claim.move, "abort")
            elif claim.deadline_ms is not None and now >= claim.deadline_ms and not alive:
                self.believe_ended(claim.move, "expire")
            elif window and claim.confirmed_ms is not None and now - claim.confirmed_ms >= WINDOW_MS:
                self.believe_ended(claim.move, "confirm")

    def _believe_due(self, key: str, claim: Held, now: int) -> None:
        left = [pid for pid in claim.holders if not self.dead(pid)]
        if claim.phase != "draining":
            if claim.deadline_ms is not None and now >= claim.deadline_ms:
                cause = "expired"
            elif claim.holders and not left:
                cause = "holder_gone"
            else:
                return
            claim.phase, claim.cause, claim.since_ms = "draining", cause, now
        if claim.holders and not left:
            self.over(key, str(claim.cause))
        elif now - claim.since_ms >= GRACE_MS and not any(self.processes.fates.get(pid, "alive") == "alive" for pid in left):
            self.opinion.kept[key] = claim
            self.over(key, str(claim.cause))

    def over(self, key: str, cause: str) -> None:
        """Believe that a claim has ended."""
        del self.opinion.live[key]
        self.opinion.ended[key] = cause

    def end(self, key: str, cause: str) -> None:
        """Believe that a claim is to end: at once if no process is left that holds it."""
        claim = self.opinion.live[key]
        if any(not self.dead(pid) for pid in claim.holders):
            claim.phase, claim.cause, claim.since_ms = "draining", cause, self.now(claim.node)
        else:
            self.over(key, cause)

    def believe_ended(self, move_id: str, how: str) -> bool:
        """Believe that a move was ended so; says whether that changes anything."""
        move = self.opinion.moves[move_id]
        if move.outcome is not None:
            return False
        pairs = [(self.opinion.live[one], one, self.opinion.live[two], two) for one, two in move.pairs]
        if how == "finish":
            held = [target for _, _, target, _ in pairs if target.phase == "held"]
            for target in held:
                target.phase, target.deadline_ms, target.confirmed_ms = "confirmed", None, self.now(target.node)
            return bool(held)
        move.outcome = OUTCOMES[how]
        for source, source_id, target, target_id in pairs:
            if how == "confirm":
                source.passed, target.named = source.passed + target.named, 0
                if move.kind == "evacuation":
                    source.phase, source.cause, source.since_ms, source.purpose = "draining", "evacuated", self.now(source.node), "leg"
                else:
                    purpose, source.purpose = source.purpose, "leg"
                    target.purpose = purpose
                    self.end(source_id, "moved")
                target.purpose = "attach" if target is not pairs[0][2] else "main"
                if target.phase == "held" or target.deadline_ms is not None:
                    target.phase, target.deadline_ms, target.confirmed_ms = "confirmed", None, self.now(target.node)
                target.move = target.leg = None
            else:
                self.end(target_id, OUTCOMES[how])
                source.move = source.leg = None
        return True

    # --- what must hold -------------------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Compare the ledger with the opinion, and let the auditor look."""
        before = self.heads()
        states: list[tuple[StreamId, State]] = []
        live: set[str] = set()
        for name, node in self.ids.items():
            state = self.tracker.node(node)
            self._agree(name, state)
            states.append((node_stream(node), state))
            live.update(state.claims)
            slots = [slot for _, grant in state.grants() for row in grant.units for slot in row.occupied]
            assert len(slots) == len(set(slots)), "a unit has two holders (I2)"
        assert live == set(self.opinion.live)
        newest = list(self.opinion.moves)[-3:]
        for key, move in self.opinion.moves.items():
            if move.outcome is None or key in newest:
                self._agree_move(key, move)
        for consumer, (state_name, task) in self.opinion.known.items():
            known = self.tracker.instance(consumer)
            assert (known.instance.state, known.instance.task) == (state_name, task)
            states.append((consumer_stream(known.consumer), known))
        found = self.tracker.audit() if self.steps % REPLAY_EVERY == 0 else tuple(judged(self.store, states))
        assert [finding for finding in found if finding.severity == "error"] == []
        assert self.heads() == before, "looking has changed something (I3)"

    def _agree(self, name: str, state: NodeState) -> None:
        assert books(state) == self.opinion.used(name), f"books of {name} are {books(state)}, not {self.opinion.used(name)} (I1)"
        for key, claim in state.claims.items():
            held = self.opinion.live[key]
            one = (claim.phase, claim.purpose, claim.consumer, claim.move, claim.leg, claim.deadline_ms, claim.cause)
            assert one == (held.phase, held.purpose, held.consumer, held.move, held.leg, held.deadline_ms, held.cause), key
            assert tuple(holder.pid for holder in claim.holders) == held.holders
            assert (held.node, len(claim.named)) == (name, held.named)
        assert set(state.quarantines) == {key for key, kept in self.opinion.kept.items() if kept.node == name}
        assert (state.retired is not None, state.disabled is not None) == (name in self.opinion.retired, name in self.opinion.closed)

    def _agree_move(self, key: str, move: Moving) -> None:
        status = self.tracker.move_status(self.tracker.find_move(key))
        if move.outcome is not None:
            assert status == move.outcome, f"status of {key}"
            return
        target = self.opinion.live[move.pairs[0][1]]
        assert status == ("finished" if target.phase == "confirmed" else "preparing"), f"status of {key}"

    # --- the steps ------------------------------------------------------------------------------------------------------------------

    def time_passes(self) -> None:
        """The clock moves, backwards too."""
        self.clock.move(self.rnd.choice((1, 500, 30_000, GRACE_MS, HOLD_MS, WINDOW_MS, -1, -30_000)))

    def fate(self) -> None:
        """A process dies or cannot be seen any more; now and then all dead ones are other processes again."""
        pid = self.rnd.choice(PIDS)
        if self.dead(pid) and not any(pid in claim.holders for claim in (*self.opinion.live.values(), *self.opinion.kept.values())):
            self.processes.fates[pid] = "alive"
        elif not self.dead(pid):
            self.processes.fates[pid] = self.rnd.choice(("dead", "unknown", "alive"))

    def reopened(self) -> None:
        """The program ends and another one opens the same ledger: it sees the same (I6)."""
        before = [self.tracker.node(node) for node in self.ids.values()]
        self.begin_anew()
        assert [self.tracker.node(node) for node in self.ids.values()] == before

    def sweep(self) -> None:
        """Time and deaths take effect on a node."""
        self.sweep_one(self.rnd.choice(tuple(self.ids)))

    def sweep_one(self, node: str) -> None:
        """Sweep a node and believe it."""
        now = self.now(node)
        self.tracker.sweep(self.ids[node])
        self.believe_swept(node, now)

    def settle(self) -> None:
        """Sweep all nodes until nothing is due anywhere."""
        while True:
            before = self.heads()
            for node in self.ids:
                self.sweep_one(node)
            if self.heads() == before:
                return

    def holders(self) -> list[Any]:
        """Return some living processes."""
        pids = [pid for pid in PIDS if not self.dead(pid)]
        count = self.rnd.choices((0, 1, 2), (6, 2, 1))[0]
        return [self.tracker.holder(pid) for pid in self.rnd.sample(pids, min(count, len(pids)))]

    def hold(self) -> None:
        """A claim is wanted on a node: a build, or something attached."""
        self.settle()
        consumer, node = self.some_consumer(moving=False), self.rnd.choice(tuple(self.ids))
        purpose = self.rnd.choice(("main", "main", "main", "attach"))
        request, confirm, holders = self.rnd.choice(REQUESTS), self.rnd.random() < 0.7, self.holders()
        self.number += 1
        key = ClaimId(f"c-{self.number:06d}")
        self.serials[key] = len(self.serials)
        self.said(f"{self.serial(key)} {purpose} {consumer} on {node} {request}")
        now = self.now(node)
        found, _ = self.say(
            lambda: self.tracker.hold(
                request, consumer=consumer, node=self.ids[node], purpose=purpose, confirm=confirm, holders=holders, claim_id=key, key=key
            )
        )
        has_main = any(claim.purpose == "main" for claim in self.opinion.of(consumer).values())
        main = self.opinion.live.get(self.opinion.main(consumer) or "")
        if purpose == "attach" and main is not None and main.move is not None and main.node == node:
            assert isinstance(found, Conflict | Refusal), "something is attached in the middle of a move"
            return
        if isinstance(found, Refusal):
            assert found.reasons
            return
        assert isinstance(found, Answer), found
        assert not (purpose == "main" and has_main)
        assert node not in self.opinion.closed | self.opinion.retired
        self.opinion.live[key] = Held(
            node, consumer, request, purpose, "confirmed" if confirm else "held", None if confirm else now + HOLD_MS,
            tuple(holder.pid for holder in holders), confirmed_ms=now if confirm else None,
        )  # fmt: skip

    def some_consumer(self, *, moving: bool) -> str:
        """Return a consumer, mostly one that can be moved, or one that can be built."""
        fit = [each for each in CONSUMERS if (self.opinion.main(each) is not None and self.opinion.open_move(each) is None) == moving]
        return self.rnd.choice(fit if fit and self.rnd.random() < 0.8 else CONSUMERS)

    def picked(self) -> str | None:
        """Return a claim that lives or lived."""
        everything = [*self.in_order(self.opinion.live), *self.in_order(self.opinion.live), *self.in_order(self.opinion.ended)]
        return self.rnd.choice(everything) if everything else None

    def in_order(self, claims: Iterable[str]) -> list[str]:
        """Return some claims in the order in which they came to be: their ids may differ from one walk to the next."""
        return sorted(claims, key=self.serials.__getitem__)

    def serial(self, key: str) -> str:
        """Return what a step calls a claim."""
        return f"#{self.serials[key]}"

    def confirm_claim(self) -> None:
        """A claim is confirmed, twice."""
        key = self.picked()
        if key is None:
            return
        claim = self.opinion.live.get(key)
        self.said(self.serial(key))
        now = self.now(claim.node) if claim is not None else 0
        found, first = self.say(lambda: self.tracker.confirm(key))
        late = claim is not None and claim.deadline_ms is not None and now >= claim.deadline_ms
        if claim is None or claim.phase == "draining" or (claim.phase == "held" and (late or claim.move is not None)):
            assert isinstance(found, Conflict)
            return
        assert isinstance(found, Answer), found
        assert found.changed == (first and claim.phase == "held")
        if claim.phase == "held":
            claim.phase, claim.deadline_ms, claim.holders, claim.confirmed_ms = "confirmed", None, (), now
        self.unchanged(lambda: self.tracker.confirm(key))

    def release(self) -> None:
        """A claim is released or aborted, twice; a leg of an open move is not."""
        key = self.picked()
        if key is None:
            return
        claim = self.opinion.live.get(key)
        how = self.rnd.choice(("release", "release", "abort"))
        self.said(f"{how} {self.serial(key)}")
        found, first = self.say(lambda: getattr(self.tracker, how)(key))
        if claim is None:
            assert (found.outcome, found.changed, found.cause) == ("released", False, self.opinion.ended[key])
            return
        if (claim.move is not None and claim.phase != "draining") or (how == "abort" and claim.phase == "confirmed"):
            assert isinstance(found, Conflict)
            return
        assert isinstance(found, Answer), found
        drains = claim.phase == "draining"
        left = any(not self.dead(pid) for pid in claim.holders)
        assert found.changed == (first and not (drains and left))
        if not drains:
            self.end(key, "released" if how == "release" else "aborted")
        elif not left:
            self.over(key, str(claim.cause))

    def open_move(self) -> None:
        """A consumer is to move, to another node or on its own; said twice. What is refused lets what is due take effect, so that comes first."""
        self.settle()
        consumer, kind = self.some_consumer(moving=True), self.rnd.choice(KINDS)
        to = self.rnd.choice((None, None, *self.ids, *self.ids))
        request = self.rnd.choice((None, *REQUESTS)) if kind == "resize" else None
        ttl = self.rnd.choice((None, None, HOLD_MS, 1000))
        holders = self.holders()
        self.number += 1
        move_id = f"m-{self.number:06d}"
        main = self.opinion.main(consumer)
        held = self.opinion.live[main] if main is not None else None
        target = (to or held.node) if held is not None else None
        self.said(f"{move_id} {kind} {consumer} to {to} {request}")
        now = self.now(target) if target is not None else 0

        def command() -> Any:
            return self.tracker.open_move(
                consumer, kind, to=self.ids[to] if to is not None else None, request=request, ttl_ms=ttl, holders=holders, move_id=move_id
            )

        found, first = self.say(command)
        if held is None or main is None or target is None:
            assert isinstance(found, UnknownClaim)
        elif self.opinion.open_move(consumer) is not None:
            assert isinstance(found, Conflict)
        elif held.node == target and kind in ("live_migration", "evacuation"):
            assert isinstance(found, InvalidRequest)
        elif isinstance(found, Refusal):
            assert found.reasons
        else:
            assert isinstance(found, LifeAnswer), found
            assert (found.outcome, found.changed, found.status) == ("opened", first, "preparing")
            assert target not in self.opinion.closed | self.opinion.retired
            assert found.move is not None
            self.believe_opened(found.move, main, target, request, None if ttl is None else now + ttl, holders)
            again = self.unchanged(command)
            assert (again.outcome, again.changed) == ("opened", False)

    def believe_opened(
        self, move: Move, main: str, target: str, request: Request | None, deadline_ms: int | None, holders: list[Any]
    ) -> None:  # fmt: skip
        """Believe that a move was opened: which claims it leaves, and what it takes for them."""
        held = self.opinion.live[main]
        expected = [main]
        if target != held.node:
            others = self.opinion.of(held.consumer).items()
            expected += [key for key, one in others if one.purpose == "attach" and one.node == held.node and one.phase != "draining"]
        pairs = [
            (pair.source.claim, pair.destination.claim) for pair in move.legs if pair.source is not None and pair.destination is not None
        ]
        assert [source for source, _ in pairs] == expected
        if held.consumer not in self.opinion.known:
            self.opinion.known[held.consumer] = ("active" if held.phase == "confirmed" else "building", None)
        self.opinion.moves[move.id] = Moving(held.consumer, move.kind, [(str(one), str(two)) for one, two in pairs], target)
        for source_id, new in sorted(pairs, key=lambda pair: self.serials[pair[0]]):
            self.serials[new] = len(self.serials)
            source = self.opinion.live[source_id]
            wish = request if request is not None and source_id == main else source.request
            named = 0
            if source.node == target:
                have, want = (sum(device.count for device in each.devices) for each in (source.request, wish))
                named = min(have, want)
            source.move, source.leg = move.id, "source"
            self.opinion.live[new] = Held(
                target, held.consumer, wish, "leg", deadline_ms=deadline_ms, holders=tuple(holder.pid for holder in holders), move=move.id,
                leg="destination", named=named,
            )  # fmt: skip

    def end_move(self) -> None:
        """A move, open or long over, is stepped on, in any order and twice."""
        if not self.opinion.moves:
            return
        everything = list(self.opinion.moves)
        running = [key for key in everything if self.opinion.moves[key].outcome is None]
        key = self.rnd.choice(running) if running and self.rnd.random() < 0.8 else self.rnd.choice(everything)
        move = self.opinion.moves[key]
        how, say = self.rnd.choice(
            (
                ("finish", lambda: self.tracker.finish_move(key)), ("confirm", lambda: self.tracker.confirm_move(key)),
                ("confirm", lambda: self.tracker.drop_move(key, "source")), ("revert", lambda: self.tracker.revert_move(key)),
                ("revert", lambda: self.tracker.drop_move(key, "destination")), ("abort", lambda: self.tracker.abort_move(key)),
            )
        )  # fmt: skip
        self.said(f"{how} {key} of {move.consumer}, {move.outcome or 'open'}")
        was = move.outcome
        found, first = self.say(say)
        changes = self.believe_ended(key, how)
        assert isinstance(found, LifeAnswer), found
        assert found.outcome == (was or ("finished" if how == "finish" else OUTCOMES[how]))
        assert found.changed == (changes and first)
        assert changes == (first and found.changed) or not first
        again = self.unchanged(say)
        assert again.outcome == (move.outcome or "finished")

    def report(self) -> None:
        """A state of an instance is reported; only two of them free anything."""
        consumer = self.rnd.choice(CONSUMERS)
        state = self.rnd.choice((*STATES, "deleted"))
        task = self.rnd.choice((None, None, "rebuilding"))
        self.said(f"{consumer} {state} {task}")
        known = self.opinion.known.get(consumer)
        found, first = self.say(lambda: self.tracker.report(consumer, state, task=task))
        if known is not None and known[0] == "deleted" and state != "deleted":
            assert isinstance(found, Conflict)
            return
        assert isinstance(found, LifeAnswer), found
        freed = False
        if state in FREEING and (state == "deleted" or known is None or known[0] != state):
            freed = self.believe_freed(consumer, "deleted" if state == "deleted" else "released")
        assert found.changed == (first and (freed or known != (state, task)))
        if known != (state, task) and not (freed and known is not None and known == (state, task)):
            self.opinion.known[consumer] = (state, task)
        self.unchanged(lambda: self.tracker.report(consumer, state, task=task))

    def believe_freed(self, consumer: str, cause: str) -> bool:
        """Believe that all that a consumer holds was given back; says whether that changes a claim."""
        changed = False
        for key, claim in self.opinion.of(consumer).items():
            left = any(not self.dead(pid) for pid in claim.holders)
            if claim.phase != "draining":
                self.end(key, cause)
                changed = True
            elif claim.holders and not left:
                self.over(key, str(claim.cause))
                changed = True
        move = self.opinion.open_move(consumer)
        if move is not None:
            self.opinion.moves[move].outcome = "deleted"
        return changed

    def create(self) -> None:
        """An instance is made known, or made anew."""
        consumer = self.rnd.choice(CONSUMERS)
        known = self.opinion.known.get(consumer)
        found, first = self.say(lambda: self.tracker.create(consumer))
        assert isinstance(found, LifeAnswer), found
        new = known is None or known[0] == "deleted"
        assert found.changed == (first and new)
        if new:
            self.opinion.known[consumer] = ("building", None)

    def came_back(self) -> None:
        """An evacuated host is back: what was evacuated from it is free."""
        node = self.rnd.choice(tuple(self.ids))
        found, first = self.say(lambda: self.tracker.came_back(self.ids[node]))
        gone = [key for key, claim in self.opinion.live.items() if claim.node == node and claim.cause == "evacuated"]
        assert found.changed == (first and bool(gone))
        for key in gone:
            self.over(key, "evacuated")

    def give_back(self) -> None:
        """A person returns what is in quarantine."""
        if self.opinion.kept:
            key = self.rnd.choice(self.in_order(self.opinion.kept))
            found, first = self.say(lambda: self.tracker.give_back(key, "looked at it"))
            assert found.changed == first
            del self.opinion.kept[key]

    def close_node(self) -> None:
        """A node is disabled or retired, or open again."""
        node = self.rnd.choice(tuple(self.ids))
        kinds: dict[str, tuple[set[str], str]] = {"closed": (self.opinion.closed, "disable"), "retired": (self.opinion.retired, "retire")}
        chosen, verb = kinds[self.rnd.choice(("closed", "retired"))]
        if node in chosen:
            self.say(lambda: self.tracker.enable(self.ids[node]) if verb == "disable" else self.tracker.restore(self.ids[node]))
            chosen.discard(node)
        elif self.rnd.random() < 0.3:
            self.say(
                lambda: self.tracker.disable("sick", self.ids[node]) if verb == "disable" else self.tracker.retire(self.ids[node], "old")
            )
            chosen.add(node)

    def close(self) -> None:
        """Verify the whole ledger, link by link, and fold it anew (I6); every move is still what it was."""
        for key, move in self.opinion.moves.items():
            self._agree_move(key, move)
        assert_sound(self.tracker)
        self.store.close()


ACTS: tuple[Callable[[Walk], None], ...] = (
    Walk.time_passes, Walk.fate, Walk.reopened, Walk.sweep, Walk.hold, Walk.confirm_claim, Walk.release, Walk.open_move, Walk.end_move,
    Walk.report, Walk.create, Walk.came_back, Walk.give_back, Walk.close_node,
)  # fmt: skip
WEIGHTS = (7, 3, 2, 6, 18, 4, 5, 24, 28, 7, 2, 3, 4, 2)


def seeds(first: int, steps: int, each: int) -> Iterator[tuple[int, int]]:
    """Yield seeds and how many steps to walk with each, until there are enough steps."""
    while steps > 0:
        yield first, min(each, steps)
        first, steps = first + 1, steps - each
