"""Which claims must end: the earliest moment at which it fits, and no claim more than needed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.launch.test_turns import MINUTE, NOW, dedicated, node, replaced

from earmark.core.fit.fit import fit
from earmark.core.ledger.endings import with_endings
from earmark.core.ledger.reasons import with_holders
from earmark.core.ledger.state import NodeState
from earmark.core.ledger.turns import fits
from earmark.core.model.ids import ClaimId
from earmark.core.model.refusal import Refusal
from earmark.core.model.request import Request


def after(state: NodeState, request: Request) -> list[tuple[str, int | None]]:
    """Return the claims that must end, each with its end in minutes from now."""
    assert state.supply is not None
    refusal = fit(request, state.supply)
    assert isinstance(refusal, Refusal)
    ends = with_endings(refusal, request, state, NOW).fits_after
    return [(one.claim, None if one.until_ms is None else (one.until_ms - NOW) // MINUTE) for one in ends]


def test_the_claim_that_ends_first_and_suffices_is_named() -> None:
    """Of three claims each of which is large enough, the one with the earliest deadline."""
    assert after(node(8, (3, 60), (3, 20), (2, None)), dedicated(3)) == [("c-0001", 20)]
    assert after(node(8, (1, 5), (3, 60), (4, None)), dedicated(3)) == [("c-0001", 60)]


def test_the_smallest_set_by_deadline_is_named() -> None:
    """Where no single claim suffices, those that are needed by the first moment at which it fits, the last one last."""
    assert after(node(8, (2, 60), (2, 20), (4, None)), dedicated(4)) == [("c-0001", 20), ("c-0000", 60)]


def test_a_claim_without_a_known_end_comes_last() -> None:
    """Claims that nobody knows the end of are named only if all others do not help; one of them alone, if that suffices."""
    assert after(node(8, (1, 30), (3, None), (4, None)), dedicated(4)) == [("c-0002", None)]
    assert after(node(4, (2, None), (2, None)), dedicated(4)) == [("c-0000", None), ("c-0001", None)]


@pytest.mark.parametrize("minutes", [None, 10])
def test_of_claims_that_are_alike_the_oldest_is_named_first(minutes: int | None) -> None:
    """Neither who holds what is short nor whose end helps depends on ids, which are random."""
    state = node(6, (2, minutes), (2, minutes), (2, minutes))
    for age, claim in enumerate(("c-0001", "c-0002", "c-0000")):
        older = replace(state.claims[ClaimId(claim)], held_at_ms=NOW - 1000 + age)
        state = replaced(state, claims=state.claims.set(older.id, older))
    assert after(state, dedicated(1)) == [("c-0001", minutes)]
    assert state.supply is not None
    refusal = fit(dedicated(1), state.supply)
    assert isinstance(refusal, Refusal)
    (reason,) = with_holders(refusal, state, dedicated(1)).reasons
    assert [one.claim for one in reason.holders] == ["c-0001", "c-0002", "c-0000"]


def test_nothing_is_named_where_no_ending_helps() -> None:
    """A guest that is larger than the node waits for no claim, and a node that was never observed names none."""
    assert after(node(4, (2, 10)), dedicated(5)) == []
    state = NodeState(node=node(1).node, name="n1")
    refusal = Refusal(reasons=())
    assert with_endings(refusal, dedicated(1), state, NOW) == refusal


@given(st.lists(st.tuples(st.integers(1, 3), st.sampled_from((None, 5, 10, 10, 20))), min_size=1, max_size=6), st.integers(1, 9))
def test_the_moment_is_the_first_and_no_claim_is_named_in_vain(claims: list[tuple[int, int | None]], vcpus: int) -> None:
    """Against every moment: at the named end it fits and before it does not; with one of the named claims still there neither."""
    state = node(sum(size for size, _ in claims), *claims)
    supply, request = state.supply, dedicated(vcpus)
    assert supply is not None
    refusal = fit(request, supply)
    if not isinstance(refusal, Refusal):
        return
    ends = with_endings(refusal, request, state, NOW).fits_after

    def fits_without(gone: list[ClaimId]) -> bool:
        free = state.free
        for claim in gone:
            free = free.give(claim, state.claims[claim].grant)
        return fits(request, supply, free)

    moments = sorted({minutes for _, minutes in claims if minutes is not None})
    known = [
        at
        for at in moments
        if fits_without([c.id for c in state.live() if c.deadline_ms is not None and c.deadline_ms <= NOW + at * MINUTE])
    ]
    if not ends:
        assert not fits_without([claim.id for claim in state.live()])
        return
    named = [one.claim for one in ends]
    assert fits_without(named)
    assert not any(fits_without([other for other in named if other != claim]) for claim in named)
    assert ends[-1].until_ms == (NOW + known[0] * MINUTE if known else None)


def test_so_many_claims_that_the_set_cannot_be_found_are_not_named() -> None:
    """The number of questions is bounded: where they do not suffice nothing is said rather than something wrong."""
    state = node(200, *[(2, 1 + number) for number in range(100)])
    assert after(state, dedicated(120)) == []
