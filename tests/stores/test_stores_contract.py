"""What every store promises, on both stores."""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import pairwise

import pytest
from tests.stores.making import (
    VM,
    A,
    B,
    confirmed,
    ended,
    held,
    known,
    move_begun,
    now_for,
    passed,
    picture,
    put,
    registered,
    returned,
    slots,
    snapshot_at,
    stamp,
)

from earmark.core.ledger.codec import Batch, open_envelope
from earmark.core.model.ids import ClaimId, ConsumerId, MoveId, StreamId
from earmark.errors import (
    Conflict,
    ConsumerTaken,
    EarmarkError,
    InvalidRequest,
    KeyReused,
    LedgerBroken,
    LedgerBusy,
    LedgerFull,
    SequenceConflict,
    StaleEpoch,
    UnitTaken,
    WrongUse,
)
from earmark.stores.contract import (
    ANSWERS_KEPT_MS,
    OBSERVATIONS_KEPT_MAX,
    REFUSALS_KEPT_MAX,
    SAMPLES_KEPT_MAX,
    TICKETS_MAX,
    ClaimRow,
    Remembered,
    Store,
)


def remembered(key: str = "k", digest: str = "d", at_ms: int = 1000) -> Remembered:
    """Return an answer under a key."""
    return Remembered("alice", key, digest, b'{"ok":true}', at_ms)


# --- appending ----------------------------------------------------------------------------------------------------------------------


def test_an_append_gives_sequences_positions_and_links(store: Store) -> None:
    """Two streams count their own sequences, share one order of positions, and each event names its predecessor's hash."""
    stored = store.append([Batch(A, 0, [registered("a"), held("c-aaaa", [1])]), Batch(B, 0, [registered("b")])], stamp())
    more = put(store, A, confirmed("c-aaaa"))
    assert [(each.stream, each.sequence, each.position) for each in [*stored, *more]] == [(A, 1, 1), (A, 2, 2), (B, 1, 3), (A, 3, 4)]
    assert open_envelope(more[0].raw).previous == stored[1].hash
    assert list(store.read(A)) == [stored[0], stored[1], more[0]]
    assert store.heads() == {A: store.head(A), B: store.head(B)}
    assert (store.head(A).sequence, store.head(A).hash, store.head(StreamId("node:none")).sequence) == (3, more[0].hash, 0)


@pytest.mark.rule("W7")
def test_an_append_of_two_nodes_that_fails_in_the_middle_changes_nothing(store: Store) -> None:
    """When the second stream of an append is refused, the first has not moved, and the next append works."""
    put(store, B, registered("b"), held("c-aaaa", [1]))
    before = picture(store)
    with pytest.raises(UnitTaken):
        store.append([Batch(A, 0, [registered("a"), held("c-bbbb", [1])]), Batch(B, 2, [held("c-cccc", [1])])], stamp(), remembered())
    assert picture(store) == before
    assert store.answer("alice", "k") is None
    assert put(store, A, registered("a"))[0].position == 3


def test_a_stream_that_moved_on_is_a_conflict(store: Store) -> None:
    """An append that was decided at an older sequence, or a future one, is refused and names both."""
    put(store, A, registered())
    for expected in (0, 2):
        with pytest.raises(SequenceConflict) as caught:
            store.append([Batch(A, expected, [held("c-aaaa")])], stamp())
        assert (caught.value.facts["expected"], caught.value.facts["found"]) == (expected, 1)


def test_a_writer_of_an_older_epoch_is_refused(store: Store) -> None:
    """Once an epoch has written to a stream, a lower one cannot."""
    store.append([Batch(A, 0, [registered()])], stamp(epoch=3))
    with pytest.raises(StaleEpoch):
        store.append([Batch(A, 1, [held("c-aaaa")])], stamp(epoch=2))
    assert store.head(A).epoch == 3
    store.append([Batch(A, 1, [held("c-aaaa")])], stamp(epoch=3))


def test_time_never_goes_back_in_a_stream(store: Store) -> None:
    """An event stamped before its predecessor gets its predecessor's time."""
    put(store, A, registered(), now_ms=5000)
    put(store, A, held("c-aaaa"), now_ms=4000)
    assert [open_envelope(each.raw).at_ms for each in store.read(A)] == [5000, 5000]
    assert store.head(A).at_ms == 5000


def test_an_empty_batch_makes_no_stream(store: Store) -> None:
    """Batches without events check the sequence and leave nothing."""
    assert list(store.append([Batch(A, 0, [])], stamp())) == []
    assert store.heads() == {}
    with pytest.raises(SequenceConflict):
        store.append([Batch(A, 1, [])], stamp())


# --- what can be held -----------------------------------------------------------------------------------------------------------------


def test_a_wrong_grant_past_the_decider_is_refused_by_the_store(store: Store) -> None:
    """An event that grants a CPU which has a holder, written without any decider, is refused and names unit and holder."""
    put(store, A, registered(), held("c-aaaa", [1, 2]))
    with pytest.raises(UnitTaken) as caught:
        put(store, A, held("c-bbbb", [3, 2]))
    assert {key: caught.value.facts[key] for key in ("unit", "holder", "claim")} == {"unit": "cpu:2", "holder": "c-aaaa", "claim": "c-bbbb"}
    assert slots(store) == {"cpu:1": "c-aaaa", "cpu:2": "c-aaaa"}
    put(store, B, registered("b"), held("c-bbbb", [1, 2]))
    assert slots(store, B) == {"cpu:1": "c-bbbb", "cpu:2": "c-bbbb"}


def test_a_grant_that_takes_a_slot_twice_is_refused(store: Store) -> None:
    """Two rows of one grant that exclude each other are no more possible than those of two."""
    with pytest.raises(UnitTaken):
        put(store, A, registered(), held("c-aaaa", ["pf=pf,vf1", "vf1"]))


def test_parent_and_child_exclude_each_other_by_their_slots(store: Store) -> None:
    """A physical function cannot be granted while one of its virtual ones is held, nor the other way round."""
    put(store, A, registered(), held("c-aaaa", ["vf1"]))
    with pytest.raises(UnitTaken):
        put(store, A, held("c-bbbb", ["pf=pf,vf1,vf2"]))
    put(store, A, ended("c-aaaa"), held("c-cccc", ["pf=pf,vf1,vf2"]))
    with pytest.raises(UnitTaken):
        put(store, A, held("c-dddd", ["vf2"]))


def test_a_consumer_has_one_open_main_claim_in_the_whole_ledger(store: Store) -> None:
    """A second main claim is refused on any node until the first has ended; claims of other purposes are not counted."""
    put(store, A, registered(), held("c-aaaa", consumer="vm"))
    put(store, B, registered("b"), held("c-bbbb", consumer="vm", purpose="leg"), held("c-cccc", consumer="vm", purpose="attach"))
    with pytest.raises(ConsumerTaken) as caught:
        put(store, B, held("c-dddd", consumer="vm"))
    assert caught.value.facts["holder"] == "c-aaaa"
    assert store.main_claim(ConsumerId("vm")) == ClaimRow(ClaimId("c-aaaa"), A, ConsumerId("vm"), "main", None)
    put(store, A, ended("c-aaaa"))
    assert store.main_claim(ConsumerId("vm")) is None
    put(store, B, held("c-dddd", consumer="vm"))
    row = store.main_claim(ConsumerId("vm"))
    assert row is not None
    assert (row.claim, row.stream) == ("c-dddd", B)


def test_main_passes_between_nodes_in_one_append(store: Store) -> None:
    """Batches count in the order given: the old main claim ends and the new one begins in the same append."""
    put(store, B, registered("b"), held("c-aaaa", consumer="vm"))
    store.append([Batch(B, 2, [ended("c-aaaa")]), Batch(A, 0, [registered("a"), held("c-bbbb", consumer="vm")])], stamp())
    row = store.main_claim(ConsumerId("vm"))
    assert row is not None
    assert row.claim == "c-bbbb"


def test_a_consumers_claims_are_found_on_all_nodes(store: Store) -> None:
    """Its open claims of every purpose, by id, whatever node they are on; ended ones and those of others are not among them."""
    put(store, A, registered(), held("c-dddd", consumer="vm-1"), held("c-bbbb", consumer="vm-1", purpose="attach"), held("c-xxxx"))
    put(store, B, registered("b"), held("c-aaaa", consumer="vm-1", purpose="leg"), held("c-cccc", consumer="vm-1", purpose="attach"))
    put(store, B, ended("c-cccc"))
    who = ConsumerId("vm-1")
    assert store.claims_of(who) == [
        ClaimRow(ClaimId("c-aaaa"), B, who, "leg", None),
        ClaimRow(ClaimId("c-bbbb"), A, who, "attach", None),
        ClaimRow(ClaimId("c-dddd"), A, who, "main", None),
    ]
    assert list(store.claims_of(ConsumerId("none"))) == []
    with store.reading() as view:
        assert view.claims_of(who) == store.claims_of(who)


def test_a_claim_changes_its_purpose(store: Store) -> None:
    """The source leg gives the consumer's main place up and the destination takes it, in one append over two nodes."""
    put(store, A, registered(), held("c-aaaa", consumer="vm-1"))
    put(store, B, registered("b"), held("c-bbbb", consumer="vm-1", purpose="leg"))
    store.append([Batch(A, 2, [now_for("c-aaaa", "leg")]), Batch(B, 2, [now_for("c-bbbb", "main")])], stamp())
    main = store.main_claim(ConsumerId("vm-1"))
    assert main is not None
    assert (main.claim, main.stream) == ("c-bbbb", B)
    assert [(row.claim, row.purpose) for row in store.claims_of(ConsumerId("vm-1"))] == [("c-aaaa", "leg"), ("c-bbbb", "main")]


def test_a_second_main_claim_by_another_purpose_is_refused(store: Store) -> None:
    """A leg cannot become the main claim while there is one, in whatever order the nodes come; nothing has changed."""
    put(store, A, registered(), held("c-aaaa", consumer="vm-1"))
    put(store, B, registered("b"), held("c-bbbb", consumer="vm-1", purpose="leg"))
    before = picture(store)
    with pytest.raises(ConsumerTaken) as caught:
        store.append([Batch(A, 2, [confirmed("c-aaaa")]), Batch(B, 2, [now_for("c-bbbb", "main")])], stamp())
    assert (caught.value.facts["claim"], caught.value.facts["holder"]) == ("c-bbbb", "c-aaaa")
    assert picture(store) == before


@pytest.mark.parametrize("claim", ["c-none", "c-done", "c-bbbb"])
def test_only_an_open_claim_of_the_node_changes_its_purpose(store: Store, claim: str) -> None:
    """What never was, has ended, or lives on another node has no purpose to change."""
    put(store, A, registered(), held("c-aaaa"), held("c-done"), ended("c-done"))
    put(store, B, registered("b"), held("c-bbbb"))
    before = picture(store)
    with pytest.raises(LedgerBroken):
        put(store, A, now_for(claim, "leg"))
    assert picture(store) == before


@pytest.mark.damaged
def test_a_move_id_is_used_once_in_the_whole_ledger(store: Store) -> None:
    """A move is found by its id in the stream of its consumer; a second use is refused, in the same stream too, and changes nothing."""
    assert store.move(MoveId("m-aaaa")) is None
    put(store, VM, known(), move_begun())
    other = StreamId("consumer:vm-2")
    put(store, other, known("vm-2"))
    before = picture(store)
    for stream in (VM, other):
        with pytest.raises(Conflict, match="m-aaaa"):
            store.append([Batch(A, 0, [registered()]), Batch(stream, store.head(stream).sequence, [move_begun()])], stamp())
        assert picture(store) == before
    put(store, other, move_begun("m-bbbb"))
    assert (store.move(MoveId("m-aaaa")), store.move(MoveId("m-bbbb"))) == (VM, other)


def test_a_claim_id_is_used_once_for_ever(store: Store) -> None:
    """The id of an ended claim cannot be held again, on no node."""
    put(store, A, registered(), held("c-aaaa"), ended("c-aaaa", cause="expired"))
    with pytest.raises(Conflict):
        put(store, B, registered("b"), held("c-aaaa", consumer="other"))
    assert store.claim(ClaimId("c-aaaa")) == ClaimRow(ClaimId("c-aaaa"), A, ConsumerId("vm-c-aaaa"), "main", "expired")
    assert store.claim(ClaimId("c-none")) is None


def test_claims_are_found_by_the_beginning_of_their_id(store: Store) -> None:
    """Prefixes find open and ended claims in order, as many as asked for."""
    put(store, A, registered(), *[held(f"c-{name}") for name in ("abca", "abcb", "abdd")], ended("c-abcb"))
    assert [row.claim for row in store.claims_like("c-abc")] == ["c-abca", "c-abcb"]
    assert [row.claim for row in store.claims_like("c-", 2)] == ["c-abca", "c-abcb"]
    assert list(store.claims_like("c-abcd")) == []


@pytest.mark.parametrize(
    "events",
    [
        [ended("c-none")],
        [ended("c-done")],
        [returned("c-live")],
        [returned("c-none")],
        [returned("c-done", 7)],
        [passed("c-live", "c-none", 1)],
        [passed("c-done", "c-live", 1)],
        [passed("c-live", "c-more", 9)],
    ],
)
def test_events_that_contradict_the_rows_are_refused(store: Store, events: list[object]) -> None:
    """Ending what is not open, returning what is not in quarantine and passing what is not held is a broken promise, and changes nothing."""
    put(store, A, registered(), held("c-live", [1]), held("c-more", [2]), held("c-done", [3]), ended("c-done", quarantined=True))
    before = picture(store)
    with pytest.raises(LedgerBroken):
        put(store, A, *events)  # type: ignore[arg-type]  # the parameters are events
    assert picture(store) == before


def test_a_claim_ends_on_its_own_node_only(store: Store) -> None:
    """An event of another node's stream cannot end a claim."""
    put(store, A, registered(), held("c-aaaa", [1]))
    with pytest.raises(LedgerBroken):
        put(store, B, registered("b"), ended("c-aaaa"))


def test_quarantine_keeps_the_slots_until_they_are_returned(store: Store) -> None:
    """A claim that ends in quarantine keeps its rows; a return frees one unit, or all that is left."""
    put(store, A, registered(), held("c-aaaa", [1, 2, 3]), ended("c-aaaa", cause="forced", quarantined=True))
    with pytest.raises(UnitTaken):
        put(store, A, held("c-bbbb", [1]))
    put(store, A, returned("c-aaaa", 1))
    assert slots(store) == {"cpu:2": "c-aaaa", "cpu:3": "c-aaaa"}
    put(store, A, held("c-bbbb", [1]), returned("c-aaaa"))
    assert slots(store) == {"cpu:1": "c-bbbb"}


def test_slots_pass_from_claim_to_claim_without_being_free(store: Store) -> None:
    """Units go to another claim in one event with all their slots, and leave with it."""
    put(store, A, registered(), held("c-aaaa", [1, 2, "pf=pf,vf1"]), held("c-bbbb", [3]))
    put(store, A, passed("c-aaaa", "c-bbbb", 2, "pf"))
    assert slots(store) == {"cpu:1": "c-aaaa", "cpu:2": "c-bbbb", "cpu:3": "c-bbbb", "pf": "c-bbbb", "vf1": "c-bbbb"}
    put(store, A, ended("c-bbbb"))
    assert slots(store) == {"cpu:1": "c-aaaa"}


# --- keys ---------------------------------------------------------------------------------------------------------------------------


def test_an_answer_is_remembered_with_its_command(store: Store) -> None:
    """The answer stands in the same append; another command under the key is refused, the same one too, and nothing of it is done."""
    store.append([Batch(A, 0, [registered()])], stamp(), remembered())
    assert store.answer("alice", "k") == remembered()
    assert store.answer("bob", "k") is None
    with pytest.raises(KeyReused):
        store.append([Batch(A, 1, [held("c-aaaa")])], stamp(), remembered(digest="other"))
    with pytest.raises(Conflict):
        store.append([Batch(A, 1, [held("c-aaaa")])], stamp(), remembered())
    assert store.head(A).sequence == 1
    store.append([], stamp(), remembered(key="without events"))
    assert store.answer("alice", "without events") is not None


def test_answers_are_forgotten_after_seven_days(store: Store) -> None:
    """An old answer makes room for a new command, and can be swept."""
    store.append([], stamp(), remembered())
    late = remembered(digest="other", at_ms=1001 + ANSWERS_KEPT_MS)
    store.append([], stamp(), late)
    assert store.answer("alice", "k") == late
    store.append([], stamp(), remembered(key="old", at_ms=5))
    with store.transaction() as tx:
        assert tx.forget_answers(1000) == 1
    assert (store.answer("alice", "old"), store.answer("alice", "k")) == (None, late)


# --- transactions and views -----------------------------------------------------------------------------------------------------------


def test_a_refused_append_does_not_spoil_its_group(store: Store) -> None:
    """Inside one transaction every append is whole by itself: the second is refused, the first and third stay."""
    with store.transaction(purpose="group") as tx:
        tx.append([Batch(A, 0, [registered(), held("c-aaaa", [1])])], stamp())
        with pytest.raises(UnitTaken):
            tx.append([Batch(A, 2, [held("c-bbbb", [2]), held("c-cccc", [1])])], stamp(), remembered())
        assert tx.claim(ClaimId("c-bbbb")) is None
        last = tx.append([Batch(A, 2, [held("c-dddd", [2])])], stamp())
        assert (last[0].sequence, last[0].position, tx.last_position()) == (3, 3, 3)
        assert slots(tx) == {"cpu:1": "c-aaaa", "cpu:2": "c-dddd"}
    assert [row.claim for row in store.claims_like("")] == ["c-aaaa", "c-dddd"]
    assert store.answer("alice", "k") is None


def test_a_block_that_fails_leaves_nothing(store: Store) -> None:
    """An exception out of a transaction takes everything with it, side tables too."""
    put(store, A, registered())
    before = picture(store)

    def fail() -> None:
        with store.transaction() as tx:
            tx.append([Batch(A, 1, [held("c-aaaa", [1])])], stamp(), remembered())
            tx.put_refusal(A, "alice", 1, b"{}")
            tx.take_ticket(A, "alice", b"{}", b"{}", 1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert picture(store) == before
    assert put(store, A, held("c-bbbb"))[0].position == 2


def test_readers_see_whole_commits_and_views_stand_still(store: Store) -> None:
    """While a writer is inside, readers see the state before; a view keeps its point of the order after the commit."""
    put(store, A, registered())
    with store.reading() as view:
        with store.transaction() as tx:
            tx.append([Batch(A, 1, [held("c-aaaa", [1])])], stamp())
            assert (store.head(A).sequence, tx.head(A).sequence) == (1, 2)
        assert store.head(A).sequence == 2
        assert (view.head(A).sequence, view.last_position(), list(view.slots(A))) == (1, 1, [])
    with pytest.raises(WrongUse):
        view.head(A)
    with pytest.raises(WrongUse):
        tx.append([Batch(A, 2, [confirmed("c-aaaa")])], stamp())
    with pytest.raises(WrongUse):
        tx.put_refusal(A, "alice", 1, b"{}")


def test_a_writer_that_stays_inside_is_named_to_those_who_wait(store: Store) -> None:
    """Another thread gets LedgerBusy with the thread and its purpose; the same thread is told so at once."""
    found: list[EarmarkError] = []

    def wait() -> None:
        try:
            with store.transaction(purpose="second", timeout_s=0.05):
                pass
        except LedgerBusy as error:
            found.append(error)

    with store.transaction(purpose="a long look"):
        thread = threading.Thread(target=wait)
        thread.start()
        thread.join()
        with pytest.raises(WrongUse), store.transaction():
            pass
    assert "a long look" in found[0].message
    assert "MainThread" in found[0].message
    assert put(store, A, registered())


def test_nothing_appears_behind_a_cursor(store: Store) -> None:
    """Four threads write to two streams while one follows: it sees every event once, in order, and never one behind its cursor."""
    rounds, writers = 25, 4
    put(store, A, registered("a"))
    put(store, B, registered("b"))

    def write(number: int) -> None:
        for turn in range(rounds):
            stream = (A, B)[(number + turn) % 2]
            with store.transaction() as tx:
                tx.append([Batch(stream, tx.head(stream).sequence, [held(f"c-{number}x{turn:03}")])], stamp())

    threads = [threading.Thread(target=write, args=(number,)) for number in range(writers)]
    for thread in threads:
        thread.start()
    seen: list[int] = []
    while len(seen) < 2 + rounds * writers:
        page = store.follow(seen[-1] if seen else 0, 7)
        seen += [stored.position for stored in page]
    for thread in threads:
        thread.join()
    assert seen == list(range(1, 3 + rounds * writers))
    assert [stored.position for stored in store.all_events()] == seen


def test_pages_are_as_long_as_asked(store: Store) -> None:
    """Limits and starting points cut pages exactly."""
    put(store, A, registered(), *[held(f"c-{number:04}") for number in range(9)])
    assert [each.sequence for each in store.read(A, 3, 4)] == [4, 5, 6, 7]
    assert [each.position for each in store.follow(8, 5)] == [9, 10]
    assert [list(store.read(A, 10)), list(store.read(A, 0, 0)), list(store.follow(99)), list(store.read(B))] == [[], [], [], []]


def test_use_after_close_is_refused_and_close_can_be_said_twice(bare: Callable[[str], Store]) -> None:
    """A closed store reads and writes nothing; closing it again is no error."""
    store = bare("closed")
    assert store.writable
    store.close()
    store.close()
    for use in (store.heads, store.last_position, lambda: put(store, A, registered())):
        with pytest.raises(WrongUse):
            use()


# --- side tables ----------------------------------------------------------------------------------------------------------------------


def test_tickets_keep_the_order_of_arrival(store: Store) -> None:
    """Numbers grow and are not given again, even when the last in line leaves."""
    with store.transaction() as tx:
        first, second = (tx.take_ticket(A, "alice", b"{}", b"{}", now) for now in (1, 2))
        other = tx.take_ticket(B, "bob", b"{}", b"{}", 3)
        tx.drop_ticket(A, second.number)
        tx.drop_ticket(A, second.number)
        third = tx.take_ticket(A, "carol", b"[1]", b"[2]", 4)
    assert first.number < second.number < third.number
    assert list(store.tickets(A)) == [first, third]
    assert list(store.tickets(B)) == [other]


def test_a_line_has_an_end(store: Store) -> None:
    """Above TICKETS_MAX waiters nobody more is let into the line."""
    with store.transaction() as tx:
        for _ in range(TICKETS_MAX):
            tx.take_ticket(A, "alice", b"{}", b"{}", 1)
        with pytest.raises(LedgerFull):
            tx.take_ticket(A, "alice", b"{}", b"{}", 1)
        tx.take_ticket(B, "alice", b"{}", b"{}", 1)


def test_the_newest_refusals_are_kept(store: Store) -> None:
    """Refusals come newest first; the oldest go."""
    with store.transaction() as tx:
        for number in range(REFUSALS_KEPT_MAX + 5):
            tx.put_refusal(A, "alice", number, b"%d" % number)
    kept = store.refusals(REFUSALS_KEPT_MAX + 100)
    assert len(kept) == REFUSALS_KEPT_MAX
    assert [kept[0].refusal, kept[0].at_ms, kept[-1].at_ms] == [b"%d" % (REFUSALS_KEPT_MAX + 4), REFUSALS_KEPT_MAX + 4, 5]
    assert [each.at_ms for each in store.refusals(2)] == [REFUSALS_KEPT_MAX + 4, REFUSALS_KEPT_MAX + 3]


def test_the_last_observation_is_kept_for_each_node(store: Store) -> None:
    """An observation replaces the one before, node by node."""
    with store.transaction() as tx:
        for number in range(OBSERVATIONS_KEPT_MAX + 3):
            tx.put_observation(A, number, b"%d" % number)
        tx.put_observation(B, 1, b"b")
    assert (store.observation(A), store.observation(B)) == (b"%d" % (OBSERVATIONS_KEPT_MAX + 2), b"b")
    assert store.observation(StreamId("node:none")) is None


@pytest.mark.rule("W44", "W45")
def test_samples_are_bounded_and_belong_to_one_node(store: Store) -> None:
    """The newest are given, newest first; a node's oldest go, another node has its own."""
    with store.transaction() as tx:
        for number in range(SAMPLES_KEPT_MAX + 3):
            tx.put_sample(A, number, b"%d" % number)
        tx.put_sample(B, 1, b"b")
        assert len(tx.samples(A)) == SAMPLES_KEPT_MAX
    assert [each.at_ms for each in store.samples(A)] == list(range(SAMPLES_KEPT_MAX + 2, 2, -1))
    assert [tuple(each) for each in store.samples(A, 1)] == [(SAMPLES_KEPT_MAX + 2, b"%d" % (SAMPLES_KEPT_MAX + 2))]
    assert [tuple(each) for each in store.samples(B)] == [(1, b"b")]
    assert (list(store.samples(A, 0)), list(store.samples(A, -1)), list(store.samples(StreamId("node:none")))) == ([], [], [])


@pytest.mark.damaged
def test_snapshots_stand_on_events_and_are_found_by_sequence(store: Store) -> None:
    """The newest is given, or the newest not past a sequence; one that fits no event is refused; the same place is replaced."""
    put(store, A, registered(), *[held(f"c-{number:04}") for number in range(9)])
    with store.transaction() as tx:
        for sequence in (2, 5, 10):
            tx.put_snapshot(snapshot_at(tx, A, sequence, b"%d" % sequence))
        for wrong in (snapshot_at(tx, A, 3)._replace(sequence=4), snapshot_at(tx, A, 3)._replace(sequence=11)):
            with pytest.raises(InvalidRequest):
                tx.put_snapshot(wrong)
        with pytest.raises(InvalidRequest):
            tx.put_snapshot(snapshot_at(tx, A, 3)._replace(stream=B))
        tx.put_snapshot(snapshot_at(tx, A, 10, b"again"))
    found = [store.snapshot(A), *(store.snapshot(A, at_most_sequence=at) for at in (9, 5, 4, 1))]
    assert [each.sequence if each else None for each in found] == [10, 5, 5, 2, None]
    assert found[0] is not None
    assert (found[0].image, found[0].position, found[0].fold_version) == (b"again", 10, 1)
    assert store.snapshot(B) is None


@pytest.mark.damaged
def test_snapshots_are_thinned_to_a_logarithm(store: Store) -> None:
    """After a hundred snapshots few are left, and every sequence has one within its distance from the end."""
    put(store, A, registered(), *[held(f"c-{number:04}") for number in range(99)])
    with store.transaction() as tx:
        for sequence in range(1, 101):
            tx.put_snapshot(snapshot_at(tx, A, sequence))
    kept = sorted({found.sequence for at in range(1, 101) if (found := store.snapshot(A, at_most_sequence=at))})
    assert kept[-1] == 100
    assert len(kept) <= 16
    for older, newer in pairwise(kept):
        assert newer - older <= max(2, 100 - older)
