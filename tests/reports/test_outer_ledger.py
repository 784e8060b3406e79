"""What an outer ledger is told, when, and what is to become of what it has that nobody knows."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from earmark.core.ledger.allocations import Allocation, allocations
from earmark.core.ledger.commands import Answer
from earmark.core.ledger.orphans import Held, Verdict, judge_allocations, known_of
from earmark.core.model.grant import AmountRow, Grant, UnitRow
from earmark.core.model.ids import MEMORY, VCPU, NodeId, UnitId
from earmark.core.model.refusal import Refusal
from earmark.core.model.request import Request
from earmark.core.model.units import GIB, MIB
from earmark.errors import LedgerUnavailable
from earmark.testing import UNRESERVED, Bench, bench, machine
from earmark.tracker.outbox import WAIT_FIRST_MS, Outbox

S = Request(vcpus=2, memory_bytes=2 * GIB, disk_bytes=20 * GIB)
HOST = "2x8c 32G disk:200G"
SMALL = (("DISK_GB", 20), ("MEMORY_MB", 2048), ("VCPU", 2))


class Outer:
    """An outer ledger that keeps what it is told, and does not answer while it is down."""

    def __init__(self) -> None:
        self.name = "outer"
        self.down = False
        self.held: dict[tuple[str, NodeId], tuple[tuple[str, int], ...]] = {}
        self.told = 0

    def tell(self, node: NodeId, allocations: Sequence[Allocation]) -> None:
        """Take note of all allocations on a node."""
        if self.down:
            raise LedgerUnavailable("the outer ledger does not answer")
        self.told += 1
        self.held = {key: amounts for key, amounts in self.held.items() if key[1] != node}
        self.held |= {(each.holder, each.node): each.amounts for each in allocations}


def two(world: Bench) -> NodeId:
    """Return the uuid of a second node, B."""
    return world.tracker.register("B", machine=machine(HOST), settings=UNRESERVED).node


def held(world: Bench, consumer: str, request: Request = S, node: str | None = None) -> None:
    """Hold and confirm a claim."""
    assert isinstance(world.tracker.hold(request, consumer=consumer, node=node, confirm=True), Answer)


@pytest.mark.rule("S07", "X4", "W37")
def test_an_outer_ledger_that_is_down_holds_up_nothing() -> None:
    """The claim is granted and counted, telling fails and is tried again later, and in the end it is told once and right."""
    outer = Outer()
    outer.down = True
    with bench(HOST) as world:
        outbox = Outbox(world.tracker, outer)
        held(world, "i")
        failed = outbox.tell()
        assert (failed.failure is not None, outer.held, outbox.position) == (True, {}, 0)
        assert world.tracker.audit() == ()
        outer.down = False
        assert outbox.tell().failure is not None, "it is left alone for a while"
        world.clock.move(WAIT_FIRST_MS)
        assert outbox.tell().failure is None
        assert outer.held == {("i", world.tracker.home): SMALL}
        assert (outbox.lag, outbox.tell().nodes) == (0, 0)


@pytest.mark.rule("S07")
def test_waits_grow_and_are_jittered() -> None:
    """Each failure doubles the wait up to a bound, a share of it by the given jitter; a success ends it."""
    outer = Outer()
    outer.down = True
    with bench(HOST) as world:
        outbox = Outbox(world.tracker, outer, jitter=lambda: 0.5)
        waits = []
        for _ in range(12):
            outbox.tell()
            waits.append(outbox.not_before_ms - world.clock.now_ms())
            world.clock.move(waits[-1])
        assert waits[:4] == [750, 1500, 3000, 6000]
        assert waits[-1] == waits[-2] == 225_000
        outer.down = False
        assert outbox.tell().failure is None
        assert outbox.failures == 0


@pytest.mark.rule("S10", "S11", "S12", "M22", "S15")
def test_a_move_is_told_under_two_names_until_it_ends() -> None:
    """The source under the move, the destination under the consumer; after confirm or revert the consumer has one, offloading removes it."""
    outer = Outer()
    with bench(HOST) as world:
        there = two(world)
        outbox = Outbox(world.tracker, outer)
        held(world, "i")
        for end, left in (("revert_move", world.tracker.home), ("confirm_move", there)):
            move = world.tracker.open_move("i", "migration", to="B")
            assert not isinstance(move, Refusal)
            assert move.move is not None
            outbox.tell()
            assert outer.held == {(move.move.id, world.tracker.home): SMALL, ("i", there): SMALL}
            getattr(world.tracker, end)("i")
            outbox.tell()
            assert outer.held == {("i", left): SMALL}
        world.tracker.report("i", "shelved_offloaded")
        outbox.tell()
        assert outer.held == {}


@pytest.mark.rule("M22", "S18", "S19")
def test_an_evacuation_is_told_twice_under_one_name_until_the_host_is_back() -> None:
    """Both sides are the consumer's, as nobody has given the first one back."""
    outer = Outer()
    with bench(HOST) as world:
        there = two(world)
        outbox = Outbox(world.tracker, outer)
        held(world, "i")
        world.tracker.open_move("i", "evacuation", to="B")
        world.tracker.confirm_move("i")
        outbox.tell()
        assert outer.held == {("i", world.tracker.home): SMALL, ("i", there): SMALL}
        world.tracker.came_back(world.tracker.home)
        outbox.tell()
        assert outer.held == {("i", there): SMALL}


@pytest.mark.rule("C4", "C5", "S03", "S04", "W10")
def test_disk_is_rounded_up_once_for_each_holder() -> None:
    """10 GiB and 1536 MiB of swap are 12 for each consumer, although two of them are 23 on the node; a volume takes none."""
    swap = Request(vcpus=1, memory_bytes=GIB, disk_bytes=10 * GIB + 1536 * MIB)
    volume = Request(vcpus=1, memory_bytes=GIB, disk_bytes=11 * GIB)
    with bench(HOST) as world:
        for name, request in (("a", swap), ("b", swap), ("v", volume)):
            held(world, name, request)
        told = {each.holder: dict(each.amounts)["DISK_GB"] for each in allocations(world.tracker.nodes(), ())}
        assert told == {"a": 12, "b": 12, "v": 11}


@pytest.mark.rule("C13", "W27")
def test_an_emulators_cpu_is_one_more_and_an_idle_sibling_none() -> None:
    """Dedicated CPUs are PCPU, shared ones VCPU; a mixed guest has both; withheld CPUs are nobody's to report."""
    grant = Grant(
        units=(
            UnitRow(unit=UnitId("cpu:1"), use="vcpu"), UnitRow(unit=UnitId("cpu:2"), use="emulator"),
            UnitRow(unit=UnitId("cpu:3"), use="withheld"),
        ),
        amounts=(AmountRow(pool=VCPU, amount=3), AmountRow(pool=MEMORY, amount=GIB)),
    )  # fmt: skip
    request = Request(vcpus=4, cpu_policy="mixed", dedicated_vcpus=(0,), memory_bytes=GIB)
    with bench(HOST) as world:
        answer = world.tracker.hold(request, consumer="i", grant=grant, confirm=True)
        assert isinstance(answer, Answer), answer
        (told,) = allocations(world.tracker.nodes(), ())
        assert told.amounts == (("MEMORY_MB", 1024), ("PCPU", 2), ("VCPU", 3))


@pytest.mark.rule("S25", "A7", "W19")
def test_what_becomes_of_allocations_that_nobody_here_holds() -> None:
    """The seven cases, at a later look and at the first one of a new node, where nothing is taken back."""
    with bench(HOST) as world:
        two(world)
        for consumer in ("i", "h", "o"):
            held(world, consumer, node="B" if consumer == "h" else None)
        world.tracker.create("j")
        world.tracker.delete("j")
        world.tracker.create("k")
        held(world, "m")
        over = world.tracker.open_move("m", "migration", to="B")
        assert not isinstance(over, Refusal)
        assert over.move is not None
        world.tracker.confirm_move("m")
        running = world.tracker.open_move("o", "migration", to="B")
        assert not isinstance(running, Refusal)
        world.tracker.release("m")
        states, consumers = world.tracker.nodes(), world.tracker.instances()
        now_ms = world.clock.now_ms()
        asked = [Held(name, now_ms - 1000) for name in ("i", "j", "k", "g", over.move.id, "h", "o")]
        found = judge_allocations(world.tracker.node(), asked, known_of(states, consumers), now_ms=now_ms, grace_ms=5000)
        keeps = {verdict.holder: verdict.keep for verdict in found}
        assert keeps == {"i": True, "j": False, "k": True, "g": True, over.move.id: False, "h": False, "o": True}
        later = judge_allocations(world.tracker.node(), asked, known_of(states, consumers), now_ms=now_ms + 5000, grace_ms=5000)
        assert {verdict.holder: verdict.keep for verdict in later} == keeps | {"g": False}
        first = judge_allocations(world.tracker.node(), asked, known_of(states, consumers), now_ms=now_ms, grace_ms=0, first_audit=True)
        assert all(verdict.keep and verdict.why for verdict in first)
        assert all(isinstance(verdict, Verdict) for verdict in first)
