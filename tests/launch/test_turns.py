"""Whose turn it is: strict order of arrival, and skipping ahead only where the head starts no later, compared with every order of endings."""

from __future__ import annotations

from itertools import permutations
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from earmark.core.fit.fit import fit
from earmark.core.fit.layout import build_layout
from earmark.core.ledger.state import NodeState
from earmark.core.ledger.turns import Turn, Waiter, could_ever_fit, may_skip, turn
from earmark.core.model.claim import Claim, Phase, Quarantine
from earmark.core.model.grant import Grant
from earmark.core.model.ids import ClaimId, ConsumerId, NodeId, Owner
from earmark.core.model.node import NodeSettings
from earmark.core.model.refusal import Refusal
from earmark.core.model.request import Request
from earmark.core.model.topology import Cell, Cpu, Machine

NODE = NodeId("00000000-0000-4000-8000-000000000001")
NOW = 1_000_000
GIB = 1 << 30
MINUTE = 60_000


def dedicated(vcpus: int) -> Request:
    """Return a request for dedicated CPUs."""
    return Request(vcpus=vcpus, cpu_policy="dedicated")


def node(cpus: int, *claims: tuple[int, int | None], phase: Phase = "confirmed") -> NodeState:
    """Return a node of one cell on which claims of (CPUs, deadline in minutes from now or None) live."""
    machine = Machine(
        cpus=tuple(Cpu(id=cpu, core=cpu, cell=0) for cpu in range(cpus)), cells=(Cell(id=0, cpus=tuple(range(cpus)), memory_bytes=8 * GIB),)
    )
    settings = NodeSettings(reserved_host_memory_bytes=0)
    state = NodeState(node=NODE, name="n1", machine=machine, settings=settings, layout=build_layout(machine, settings))
    for index, (size, minutes) in enumerate(claims):
        assert state.supply is not None
        request = dedicated(size)
        grant = fit(request, state.supply)
        assert isinstance(grant, Grant)
        claim = Claim(
            id=ClaimId(f"c-{index:04}"), node=NODE, consumer=ConsumerId(f"k{index}"), owner=Owner("o"), request=request, grant=grant, phase=phase,
            deadline_ms=None if minutes is None else NOW + minutes * MINUTE,
        )  # fmt: skip
        state = replaced(state, free=state.free.take(claim.id, grant), claims=state.claims.set(claim.id, claim))
    return state


def replaced(state: NodeState, **changes: object) -> NodeState:
    """Return a state with some fields changed."""
    fields = {name: getattr(state, name) for name in NodeState.__struct_fields__}
    return NodeState(**{**fields, **changes})


def skip(state: NodeState, head: int, mine: int, *, minutes: int | None = None) -> bool:
    """Say whether `mine` CPUs may start before the head's, ending after some minutes."""
    return may_skip(dedicated(head), dedicated(mine), state, now_ms=NOW, end_ms=None if minutes is None else NOW + minutes * MINUTE)


# --- the line ------------------------------------------------------------------------------------------------------------------------------


def test_only_the_head_of_the_line_may_start() -> None:
    """In the order of arrival the first may try, and the others learn how many are ahead, whatever would fit."""
    state = node(8)
    line = [Waiter(9, dedicated(1)), Waiter(3, dedicated(8)), Waiter(5, dedicated(1))]
    assert turn(line, 3, state, now_ms=NOW) == Turn(now=True, ahead=0)
    assert turn(line, 5, state, now_ms=NOW) == Turn(now=False, ahead=1)
    assert turn(line, 9, state, now_ms=NOW) == Turn(now=False, ahead=2)


def test_nobody_skips_a_waiter_that_cannot_be_read() -> None:
    """A head whose wish this program does not understand keeps its place."""
    line = [Waiter(1, None), Waiter(2, dedicated(1))]
    assert turn(line, 2, node(8), now_ms=NOW, skip_ahead=True) == Turn(now=False, ahead=1)


def test_skipping_is_asked_for() -> None:
    """Without --skip-ahead the order is strict even where skipping would harm nobody."""
    line = [Waiter(1, dedicated(4)), Waiter(2, dedicated(1))]
    state = node(8, (6, 60))
    assert turn(line, 2, state, now_ms=NOW).now is False
    assert turn(line, 2, state, now_ms=NOW, skip_ahead=True).now is True


# --- skipping ahead ----------------------------------------------------------------------------------------------------------------------------


def test_a_head_that_fits_is_not_skipped() -> None:
    """Where the head fits now it is about to start, and nobody goes before it."""
    assert not skip(node(8), head=4, mine=1)


def test_a_wish_that_does_not_fit_cannot_skip() -> None:
    """What does not fit itself starts neither now nor ahead."""
    assert not skip(node(4, (4, 10)), head=4, mine=1)


def test_skipping_is_allowed_where_enough_is_left_for_the_head() -> None:
    """6 of 8 CPUs end in an hour, the head wants 4: one CPU more does not matter to it, for however long."""
    assert skip(node(8, (6, 60)), head=4, mine=1)


def test_skipping_is_refused_where_the_head_needs_those_very_cpus() -> None:
    """6 of 8 CPUs end in an hour and the head wants all 8: who stays longer would delay it, who ends before would not."""
    state = node(8, (6, 60))
    assert not skip(state, head=8, mine=1)
    assert not skip(state, head=8, mine=1, minutes=61)
    assert skip(state, head=8, mine=1, minutes=59)
    assert skip(state, head=8, mine=1, minutes=60)


def test_the_earliest_known_end_counts() -> None:
    """The head fits after the first of two ends: skipping must leave room then, not only after the second."""
    state = node(8, (3, 10), (4, 60))
    assert not skip(state, head=4, mine=1)
    assert skip(state, head=4, mine=1, minutes=10)
    assert not skip(state, head=4, mine=1, minutes=11)


def test_a_claim_without_an_end_may_end_at_any_time() -> None:
    """3 and 4 of 8 CPUs without a known end, the head wants 4: if the 3 go first, a skipper would be in the way."""
    assert not skip(node(8, (3, None), (4, None)), head=4, mine=1)
    assert not skip(node(8, (3, None), (4, None)), head=4, mine=1, minutes=1)
    assert skip(node(8, (4, None), (3, None)), head=2, mine=1), "after either end there is room for both"


def test_unknown_ends_are_fine_where_each_leaves_room() -> None:
    """Two claims of 3 CPUs without an end on 8: whichever goes, the head's 3 fit beside the skipper's 1."""
    assert skip(node(8, (3, None), (3, None)), head=3, mine=1)


def test_a_draining_claim_has_no_known_end() -> None:
    """A deadline says nothing of a claim that drains: it may end now, so the skipper's own end does not help."""
    state = node(8, (6, 60), phase="draining")
    assert not skip(state, head=8, mine=1, minutes=1)


def test_too_many_cases_mean_no() -> None:
    """What cannot be shown within the bound is not allowed."""
    claims = tuple((1, None) for _ in range(10))
    assert not skip(node(16, *claims), head=7, mine=1)


def finish(state: NodeState, head: Request, skipper: Grant | None, order: tuple[Claim, ...]) -> int | None:
    """Return after how many endings, in an order, the head fits beside a skipper; None: never."""
    free = state.free if skipper is None else state.free.take(ClaimId("c-me"), skipper)
    for number in range(len(order) + 1):
        supply = state.supply
        assert supply is not None
        if not isinstance(fit(head, type(supply)(layout=supply.layout, free=free)), Refusal):
            return number
        if number < len(order):
            free = free.give(order[number].id, order[number].grant)
    return None


@given(st.integers(0, 10_000))
def test_whoever_may_skip_delays_the_head_in_no_order_of_endings(seed: int) -> None:
    """For small nodes and claims of unknown end: a yes means that in every order the head starts at the same ending as without."""
    draw = Random(seed)  # noqa: S311 - a reproducible draw of cases
    sizes = [draw.randint(1, 3) for _ in range(draw.randint(1, 4))]
    state = node(sum(sizes) + draw.randint(1, 3), *((size, None) for size in sizes))
    head, mine = dedicated(draw.randint(1, 6)), dedicated(draw.randint(1, 2))
    assert state.supply is not None
    own = fit(mine, state.supply)
    if not may_skip(head, mine, state, now_ms=NOW, end_ms=None):
        return
    assert isinstance(own, Grant)
    for order in permutations(state.live()):
        assert finish(state, head, None, order) == finish(state, head, own, order)


# --- what never fits -----------------------------------------------------------------------------------------------------------------------


def test_what_cannot_ever_fit_is_not_waited_for() -> None:
    """9 CPUs of 8 never fit; 8 do once all claims have ended; a quarantine stays in the way until a person returns it."""
    state = node(8, (8, None))
    assert isinstance(could_ever_fit(dedicated(9), state), Refusal)
    assert isinstance(could_ever_fit(dedicated(8), state), Grant)
    claim = state.live()[0]
    kept = Quarantine(claim=claim.id, consumer=claim.consumer, owner=claim.owner, grant=claim.grant, since_ms=NOW, reason="test")
    stuck = replaced(state, claims=state.claims.delete(claim.id), quarantines=state.quarantines.set(claim.id, kept))
    assert isinstance(could_ever_fit(dedicated(1), stuck), Refusal)


def test_a_node_that_was_never_looked_at_refuses() -> None:
    """Without a machine there is nothing to wait for, and the refusal says so."""
    found = could_ever_fit(dedicated(1), NodeState(node=NODE, name="n1"))
    assert isinstance(found, Refusal)
    assert found.reasons[0].detail == "its machine was never observed"
    assert not may_skip(dedicated(1), dedicated(1), NodeState(node=NODE, name="n1"), now_ms=NOW, end_ms=None)
