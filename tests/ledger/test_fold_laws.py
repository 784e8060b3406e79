"""The fold: a state is what its events say and nothing else, whatever the events and wherever one begins."""

from __future__ import annotations

import hashlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.ledger.steps import LIVES, STREAM, Life, step_of

from earmark.core.ledger import events as e
from earmark.core.ledger.audit import audit_node
from earmark.core.ledger.audit_moves import audit_moves
from earmark.core.ledger.codec import Head, Stored, check_link, open_envelope, open_event
from earmark.core.ledger.consumer import decode_consumer, encode_consumer, fold_consumer
from earmark.core.ledger.decision import Decision
from earmark.core.ledger.fold import advance, fold, recomputed
from earmark.core.ledger.moves import Fate
from earmark.core.ledger.rows import slot_rows
from earmark.core.ledger.state import NodeState, decode_image, encode_image
from earmark.core.model.ids import ClaimId, NodeId, UnitId
from earmark.core.model.refusal import Refusal
from earmark.errors import LedgerBroken
from earmark.testing import machine


@pytest.mark.rule("S27", "X5")
@given(LIVES, st.integers(0, 200))
def test_folding_may_stop_anywhere(seeds: list[int], cut: int) -> None:
    """fold(a + b) is fold(b) on fold(a), for every life and every place to stop."""
    life = Life().live(seeds)
    first, rest = life.stored[:cut], life.stored[cut:]
    assert fold(fold(None, first), rest) == fold(None, life.stored) == life.state


@given(LIVES)
def test_stored_bytes_fold_to_the_published_state(seeds: list[int]) -> None:
    """Events advanced as a writer does, before they are bytes, give the state that the bytes give."""
    life = Life().live(seeds)
    state: NodeState | None = None
    head = Head()
    for stored in life.stored:
        head = check_link(stored, head)
        envelope = open_envelope(stored.raw)
        state = advance(state, open_event(envelope), head, envelope.boot_id)
    assert (state, head) == (life.state, life.head)


@given(LIVES)
def test_an_image_is_the_whole_state(seeds: list[int]) -> None:
    """A snapshot's image gives back the state with everything derived, and encodes to the same bytes again."""
    state = Life().live(seeds).state
    if state is not None:
        image = encode_image(state)
        assert decode_image(image) == state
        assert encode_image(decode_image(image)) == image


@given(LIVES)
def test_the_kept_index_is_the_recomputed_one(seeds: list[int]) -> None:
    """After every event the free index and layout equal those computed from nothing; after every append the auditor finds no error."""
    state: NodeState | None = None
    life = Life().live(seeds)
    for stored in life.stored:
        state = fold(state, [stored])
        assert state is not None
        assert recomputed(state) == state
        guard = sorted(row for claim, grant in state.grants() for row in slot_rows(claim, grant))
        if stored.sequence in life.ends:
            assert [finding for finding in audit_node(state, guard) if finding.severity == "error"] == []


@given(LIVES)
def test_usage_is_the_sum_of_live_rows(seeds: list[int]) -> None:
    """Counted by hand from the grants, each pool's use is exact and positive, and no unit has two holders."""
    state = Life().live(seeds).state
    if state is None:
        return
    used: dict[str, int] = {}
    slots: dict[str, str] = {}
    for claim, grant in state.grants():
        for amount in grant.amounts:
            used[amount.pool] = used.get(amount.pool, 0) + amount.amount
        for row in grant.units:
            for slot in row.occupied:
                assert slots.setdefault(slot, claim) == claim
    assert dict(state.free.used) == used
    assert dict(state.free.slots) == slots
    assert all(amount > 0 for amount in used.values())


@pytest.mark.rule("W39")
@given(LIVES, st.integers(0, (1 << 32) - 1))
def test_deciding_changes_nothing_and_says_the_same_again(seeds: list[int], last: int) -> None:
    """The same command on the same state gives the same events, and the state is what it was."""
    life = Life().live(seeds)
    before = encode_image(life.state) if life.state is not None else b""
    command = life.step(last, len(seeds)).command
    answers = []
    for _ in range(2):
        try:
            answers.append(repr(life.decided(command)))
        except Exception as error:  # noqa: BLE001 - whatever it is, it must be the same
            answers.append(repr(error))
    assert answers[0] == answers[1]
    assert (encode_image(life.state) if life.state is not None else b"") == before


@given(LIVES, st.integers(0, 20))
def test_a_consumer_is_a_fold_too(seeds: list[int], cut: int) -> None:
    """Of each consumer: folding may stop anywhere, an image is the whole state, and every event of its stream links to the one before."""
    life = Life().live(seeds)
    for stream, state in life.known.items():
        stored = [each for each in life.told if each.stream == stream]
        half = fold_consumer(None, stored[:cut])
        assert fold_consumer(half, stored[cut:]) == fold_consumer(None, stored) == state
        assert half is None or decode_consumer(encode_consumer(half)) == half
        head = Head()
        for each in stored:
            head = check_link(each, head)
        assert head == state.head


@given(LIVES)
def test_moves_agree_with_their_legs(seeds: list[int]) -> None:
    """After any life, what each move is recorded as is what its legs say, and no leg is without its move."""
    life = Life().live(seeds)
    if life.state is not None:
        ended = {claim: Fate(None, life.purposes[claim], cause) for claim, cause in life.ended.items()}
        found = audit_moves([life.state], life.known.values(), ended)
        assert [finding for finding in found if finding.severity == "error"] == []


@given(LIVES)
def test_time_never_goes_back_in_a_stream(seeds: list[int]) -> None:
    """Whatever the clock does, no event is stamped before its predecessor."""
    times = [open_envelope(stored.raw).at_ms for stored in Life().live(seeds).stored]
    assert times == sorted(times)


def test_a_refused_request_decides_nothing() -> None:
    """A refusal comes with reasons and no event."""
    life = Life().live([1, 2])
    seeds = iter(range(1000, 3000))
    while not isinstance(refused := life.do(step_of(next(seeds), life.state, life.consumers, 7, life.now_ms).command), Refusal):
        pass
    assert refused.reasons


@pytest.mark.parametrize(
    "event",
    [
        e.ClaimConfirmed(claim=ClaimId("c-none")),
        e.ClaimEnded(claim=ClaimId("c-none"), cause="released"),
        e.ClaimBound(claim=ClaimId("c-none"), holders=()),
        e.ClaimRenewed(claim=ClaimId("c-none"), deadline_ms=None),
        e.ClaimDraining(claim=ClaimId("c-none"), cause="expired"),
        e.UnitsReturned(claim=ClaimId("c-none"), reason="x"),
        e.UnitsPassed(source=ClaimId("c-none"), target=ClaimId("c-none"), units=(UnitId("cpu:0"),)),
        e.Uncordoned(unit=UnitId("cpu:0")),
        e.NodeRegistered(node=NodeId("00000000-0000-4000-8000-000000000002"), name="again"),
    ],
    ids=lambda event: event.type,
)
def test_an_event_that_contradicts_the_state_breaks_the_fold(event: e.Event) -> None:
    """Events about what is not there are a broken ledger, said as such and never passed over."""
    life = Life().live([1, 2])
    with pytest.raises(LedgerBroken):
        life.write((event,))


def test_a_stream_begins_with_its_node() -> None:
    """The first event of a node's stream enters the node."""
    with pytest.raises(LedgerBroken, match=r"node\.registered"):
        advance(None, e.MachineObserved(machine=machine("2c"), inventory_version=1), Head(1))


@given(LIVES)
def test_a_restart_from_any_snapshot_gives_the_same(seeds: list[int]) -> None:
    """Image at any point, then the rest of the events: always the state that all events give."""
    life = Life().live(seeds)
    for cut in range(1, len(life.stored), 5):
        state = fold(None, life.stored[:cut])
        assert state is not None
        assert fold(decode_image(encode_image(state)), life.stored[cut:]) == life.state


def test_a_life_is_worth_testing() -> None:
    """The random lives reach every event that commands can lead to, so the laws above are about all of them."""
    seen: set[str] = set()
    for seed in range(60):
        life = Life().live(range(seed * 1000, seed * 1000 + 120))
        seen |= {open_envelope(stored.raw).type for stored in (*life.stored, *life.told)}
    assert seen == {event.type for event in e.EVENTS}


def test_bytes_are_hashed_as_they_are_stored() -> None:
    """The hash of an event is SHA-256 over exactly its stored bytes."""
    for stored in Life().live(range(40)).stored:
        assert stored.hash == hashlib.sha256(stored.raw).hexdigest()
        assert msgspec.json.decode(stored.raw)["stream"] == STREAM


def test_a_decision_without_events_is_an_answer() -> None:
    """Entering a node twice decides nothing and says so."""
    life = Life().live([1, 2])
    again = life.do(step_of(1, None, (), 0, life.now_ms).command)
    assert isinstance(again, Decision)
    assert (again.events, again.outcome) == ((), "registered")


def test_lives_hold_real_stored_events() -> None:
    """A stored event knows its stream, sequence and position."""
    stored = Life().live([1]).stored[0]
    assert stored == Stored(1, STREAM, 1, stored.raw, stored.hash)
