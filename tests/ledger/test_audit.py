"""The auditor is audited: each contradiction that it knows is put into a state, and it finds that one and says where."""

from __future__ import annotations

from collections.abc import Callable

import immutables
import pytest
from msgspec.structs import replace

from earmark.core.fit.free import EMPTY
from earmark.core.ledger import events as e
from earmark.core.ledger.audit import audit_consumers, audit_node
from earmark.core.ledger.codec import Batch, Stamp
from earmark.core.ledger.commands import Answer
from earmark.core.ledger.rows import SlotRow, slot_rows
from earmark.core.ledger.state import NodeState
from earmark.core.model.claim import Claim
from earmark.core.model.finding import Finding
from earmark.core.model.grant import AmountRow, Grant, UnitRow
from earmark.core.model.ids import ClaimId, ConsumerId, NodeId, Owner, PoolId, Slot, UnitId, cpu_unit, node_stream
from earmark.core.model.request import Request
from earmark.core.model.units import GIB
from earmark.errors import LedgerBroken, UnitTaken
from earmark.stores.memory import MemoryStore
from earmark.testing import NODE_ONE, START_MS, Bench, bench, machine
from earmark.tracker.history import audit, verify

OWN = Request(vcpus=1, cpu_policy="dedicated", memory_bytes=GIB)
TWO = NodeId("00000000-0000-4000-8000-000000000002")


def claim(number: int, cpu: int, **changes: object) -> Claim:
    """Return a live claim of one CPU."""
    grant = Grant(units=(UnitRow(unit=cpu_unit(cpu), use="vcpu"),), amounts=(AmountRow(pool=PoolId("memory"), amount=GIB),))
    made = Claim(
        id=ClaimId(f"c-{number:04d}"), node=NODE_ONE, consumer=ConsumerId(f"vm{number}"), owner=Owner("ann"), request=OWN, grant=grant,
        phase="confirmed", held_at_ms=START_MS,
    )  # fmt: skip
    return replace(made, **changes)


def state_with(*claims: Claim) -> NodeState:
    """Return the state of a node that has these claims, its index computed from them."""
    with bench("2c 8G") as world:
        bare = world.tracker.node()
    held = replace(bare, claims=immutables.Map((each.id, each) for each in claims))
    return replace(held, free=EMPTY.recompute(held.grants()))


def codes(state: NodeState, guard: list[SlotRow] | None = None) -> list[str]:
    """Return the codes of what is found."""
    return [finding.code for finding in audit_node(state, guard)]


def test_a_sound_state_has_no_findings() -> None:
    """Two claims of two CPUs and their guard rows: nothing."""
    state = state_with(claim(1, 0), claim(2, 1))
    guard = [row for claim_id, grant in state.grants() for row in slot_rows(claim_id, grant)]
    assert codes(state, guard) == []


WRONG: dict[str, Callable[[], NodeState]] = {
    "double_grant": lambda: state_with(claim(1, 0), claim(2, 0)),
    "index_drift": lambda: replace(state_with(claim(1, 0)), free=EMPTY),
    "layout_drift": lambda: replace(state_with(claim(1, 0)), machine=machine("4c 8G")),
    "no_deadline": lambda: state_with(claim(1, 0, phase="held")),
    "no_cause": lambda: state_with(claim(1, 0, phase="draining")),
    "wrong_node": lambda: state_with(claim(1, 0, node=TWO)),
    "bad_amount": lambda: state_with(claim(1, 0, grant=Grant(amounts=(AmountRow(pool=PoolId("memory"), amount=-5),)))),
    "missing": lambda: state_with(claim(1, 7)),
    "overage": lambda: state_with(claim(1, 0, grant=Grant(amounts=(AmountRow(pool=PoolId("memory"), amount=99 * GIB),)))),
}


@pytest.mark.rule("W40")
@pytest.mark.parametrize("code", WRONG)
def test_each_contradiction_is_found(code: str) -> None:
    """One thing is wrong: the auditor says which, and names the claim or unit; nothing is clamped or put right in silence."""
    found = [finding for finding in audit_node(WRONG[code]()) if finding.code == code]
    assert len(found) == 1
    assert found[0].node == NODE_ONE
    assert found[0].detail
    assert found[0].severity == ("warning" if code in ("missing", "overage") else "error")


def test_shared_slots_are_double_grants_too() -> None:
    """Two different units that exclude each other are one thing held twice."""
    parent = Grant(units=(UnitRow(unit=UnitId("pci:pf"), use="device", slots=(Slot("pci:pf"), Slot("pci:vf1"))),))
    child = Grant(units=(UnitRow(unit=UnitId("pci:vf1"), use="device"),))
    state = state_with(claim(1, 0, grant=parent), claim(2, 0, grant=child))
    assert "double_grant" in codes(state)


def test_guard_rows_are_compared_both_ways() -> None:
    """A row that is missing from the store and one that is left over are both found, each with its claim."""
    state = state_with(claim(1, 0))
    stray = SlotRow(Slot("cpu:1"), ClaimId("c-9999"), "cpu:1")
    found: list[Finding] = [finding for finding in audit_node(state, [stray]) if finding.code == "guard_drift"]
    assert [(finding.claim, finding.unit) for finding in found] == [("c-0001", "cpu:0"), ("c-9999", "cpu:1")]


def test_two_main_claims_of_one_consumer_are_found_over_all_nodes() -> None:
    """A consumer that holds a main claim on each of two nodes is a finding of the ledger, not of a node."""
    one = state_with(claim(1, 0))
    other = replace(state_with(claim(2, 1, consumer=ConsumerId("vm1"), node=TWO)), node=TWO, name="n2")
    assert [finding.code for finding in audit_consumers([other, one])] == ["two_mains"]
    leg = replace(state_with(claim(2, 1, consumer=ConsumerId("vm1"), purpose="leg", node=TWO)), node=TWO)
    assert audit_consumers([one, leg]) == ()


def past_the_decider(world: Bench, *events: e.Event) -> None:
    """Write events that no command was decided to."""
    stream = node_stream(NODE_ONE)
    stamp = Stamp(actor="mallory", command="m", now_ms=START_MS)
    world.store.append([Batch(stream, world.store.head(stream).sequence, events)], stamp)


def test_a_wrong_grant_past_the_decider_is_refused_by_the_store() -> None:
    """The memory twin too has its UNIQUE rows: a second holder of a CPU is refused whoever decided it, and nothing is written."""
    with bench("2c 8G") as world:
        answer = world.tracker.hold(OWN, confirm=True)
        assert isinstance(answer, Answer)
        held = answer.claim
        assert held is not None
        before = world.store.last_position()
        forged = e.ClaimHeld(
            claim=ClaimId("c-6666"), consumer=ConsumerId("thief"), owner=Owner("m"), request=OWN, grant=held.grant, deadline_ms=START_MS + 9
        )
        with pytest.raises(UnitTaken, match=held.id):
            past_the_decider(world, forged)
        assert world.store.last_position() == before


@pytest.mark.rule("W11")
def test_one_broken_stream_does_not_stop_the_audit_of_the_others() -> None:
    """A node whose events contradict each other is a finding; the other nodes are audited, read and written as ever."""
    with bench("2c 8G", check=False) as world:
        store = world.store
        assert isinstance(store, MemoryStore)
        writer = world.tracker._writer
        from earmark.core.ledger import commands as c

        writer.submit(c.RegisterNode(node=TWO, name="n2"))
        writer.submit(c.ObserveMachine(node=TWO, machine=machine("2c 8G")))
        past_the_decider(world, e.Uncordoned(unit=UnitId("cpu:1")))
        with pytest.raises(LedgerBroken, match="not cordoned"):
            world.tracker.node()
        for found in (audit(store), verify(store).findings):
            assert [(finding.code, NODE_ONE in finding.detail) for finding in found if finding.severity == "error"] == [("chain", True)]
        assert len(world.tracker.node(TWO).claims) == 0
        assert getattr(world.tracker.hold(OWN, node=TWO), "outcome", None) == "held"
        assert len(world.tracker.node(TWO).claims) == 1
