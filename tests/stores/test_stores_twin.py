"""The two stores do the same: random operations give equal answers, equal errors and equal ledgers."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from tests.stores.making import (
    VM,
    A,
    B,
    audit,
    confirmed,
    ended,
    held,
    known,
    move_begun,
    now_for,
    passed,
    picture,
    registered,
    returned,
    stamp,
)

from earmark.core.ledger.codec import Batch
from earmark.core.ledger.events import Event
from earmark.core.model.ids import ConsumerId, StreamId
from earmark.errors import EarmarkError
from earmark.stores.contract import Remembered, Snapshot, Store, Transaction
from earmark.stores.memory import MemoryStore
from earmark.stores.sqlite.store import SqliteStore

MEMORY_DISK = Path("/dev/shm")
"""Where flushing costs nothing; what is compared here are answers."""
CLAIMS = [f"c-{letter * 4}" for letter in "abcdefghij"]
UNITS: list[str | int] = [1, 2, 3, "pf=pf,vf1,vf2", "vf1", "vf2"]

claims = st.sampled_from(CLAIMS)
unit_lists = st.lists(st.sampled_from(UNITS), max_size=3)
numbers = st.lists(st.integers(1, 3), max_size=2, unique=True)
holds = st.builds(
    held, claims, unit_lists, consumer=st.sampled_from([None, None, "vm-1", "vm-2"]), purpose=st.sampled_from(["main", "leg", "attach"])
)
events = st.one_of(
    holds,
    holds,
    holds,
    st.builds(ended, claims, quarantined=st.booleans()),
    st.builds(lambda claim, units: returned(claim, *units), claims, numbers),
    st.builds(lambda source, target, units: passed(source, target, *units), claims, claims, numbers),
    st.builds(confirmed, claims),
    st.builds(now_for, claims, st.sampled_from(["main", "leg", "attach"])),
    st.builds(now_for, claims, st.sampled_from(["main", "leg", "attach"])),
    st.just(registered()),
)
told = st.one_of(st.just(known()), st.builds(move_begun, st.sampled_from(["m-aaaa", "m-bbbb"]), claims, claims))


@st.composite
def lives(draw: st.DrawFn) -> list[Event]:
    """Return the whole life of two claims with some steps left out, so that deep rows are reached and then contradicted."""
    one, two = draw(st.permutations(CLAIMS))[:2]
    steps = [
        held(one, [1, 2, "pf=pf,vf1,vf2"], consumer="vm-1"), held(two, [3], consumer="vm-2"), confirmed(one), passed(one, two, 1, "pf"),
        ended(one, cause="forced", quarantined=True), ended(two, quarantined=draw(st.booleans())), returned(one, 2), returned(two, 3),
        passed(two, one, 3), returned(two), returned(one),
    ]  # fmt: skip
    kept = draw(st.lists(st.booleans(), min_size=len(steps), max_size=len(steps)))
    return [step for step, keep in zip(steps, kept, strict=True) if keep] or steps


singles = st.tuples(st.just(A), st.just(0), events.map(lambda event: [event]))
parts = st.tuples(
    st.sampled_from([A, B]), st.sampled_from([0, 0, 1, 0, -1, 0]), st.lists(events, min_size=1, max_size=3) | lives()
) | st.tuples(st.just(VM), st.just(0), st.lists(told, min_size=1, max_size=2))  # fmt: skip
batches = st.lists(singles, min_size=1, max_size=1) | st.lists(parts, min_size=1, max_size=3)
walks = lives().map(lambda life: ([("append", [(A, 0, [event])], 1000, 0, None) for event in life], "commit"))
answers = st.none() | st.builds(
    lambda key, digest, days: Remembered("alice", key, digest, b"{}", days * 86_400_000),
    st.sampled_from("kl"),
    st.sampled_from("de"),
    st.integers(0, 9),
)
appends = st.tuples(st.just("append"), batches, st.integers(0, 5000), st.sampled_from([0, 0, 0, 0, 1, -1]), answers)
operations = st.one_of(
    appends,
    appends,
    appends,
    st.tuples(st.just("snapshot"), st.sampled_from([A, B]), st.integers(0, 12), st.booleans()),
    st.tuples(st.just("ticket"), st.sampled_from([A, B]), st.integers(0, 9)),
    st.tuples(st.just("leave"), st.sampled_from([A, B]), st.integers(1, 4)),
    st.tuples(st.just("refusal"), st.sampled_from([A, B]), st.integers(0, 9)),
    st.tuples(st.just("observation"), st.sampled_from([A, B]), st.binary(max_size=3)),
    st.tuples(st.just("sample"), st.sampled_from([A, B]), st.integers(0, 9), st.binary(max_size=3)),
    st.tuples(st.just("forget"), st.integers(0, 9)),
)
plain = st.tuples(st.lists(operations, min_size=2, max_size=6), st.sampled_from(["commit", "commit", "fail"]))
groups = st.lists(st.one_of(plain, plain, walks), min_size=2, max_size=7)


class Stopped(Exception):
    """A block that ends badly on purpose."""


def append(tx: Transaction, parts: list[tuple[StreamId, int, list[Event]]], now_ms: int, newer: int, remember: Remembered | None) -> object:
    """Append batches, each decided at its stream's end or a little beside it."""
    ends: dict[StreamId, int] = {}
    given_batches = []
    for stream, off, listed in parts:
        at = ends.get(stream, tx.head(stream).sequence)
        given_batches.append(Batch(stream, at + off, listed))
        ends[stream] = at + len(listed)
    epoch = max(1, *(tx.head(stream).epoch for stream in (A, B, VM))) + newer
    return list(tx.append(given_batches, stamp(now_ms, epoch=max(1, epoch)), remember))


def carry_out(tx: Transaction, operation: tuple[Any, ...]) -> object:
    """Carry out one operation and return its answer, or what was wrong with it."""
    try:
        match operation:
            case ("append", parts, now_ms, newer, remember):
                return append(tx, parts, now_ms, newer, remember)
            case ("snapshot", stream, sequence, honest):
                found = tx.read(stream, sequence - 1, 1)
                digest = found[0].hash if found and honest else "0" * 64
                return tx.put_snapshot(Snapshot(stream, sequence, 1, digest, 1, b"%d" % sequence))  # type: ignore[func-returns-value]  # None is the answer
            case ("ticket", stream, now_ms):
                return tx.take_ticket(stream, "alice", b"{}", b"{}", now_ms)
            case ("leave", stream, number):
                return tx.drop_ticket(stream, number)  # type: ignore[func-returns-value]  # None is the answer
            case ("refusal", stream, now_ms):
                return tx.put_refusal(stream, "alice", now_ms, b"{}")  # type: ignore[func-returns-value]  # None is the answer
            case ("observation", stream, image):
                return tx.put_observation(stream, 1, image)  # type: ignore[func-returns-value]  # None is the answer
            case ("sample", stream, now_ms, seen):
                return tx.put_sample(stream, now_ms, seen)  # type: ignore[func-returns-value]  # None is the answer
            case _:
                return tx.forget_answers(operation[1] * 86_400_000)
    except EarmarkError as error:
        return (type(error), error.message, error.facts)


def end(how: str) -> None:
    """Let a block go on, or fail it."""
    if how == "fail":
        raise Stopped


def play(store: Store, group: tuple[list[tuple[Any, ...]], str]) -> list[object]:
    """Carry out a group in one transaction that commits or fails; returns the answers and what is to be seen inside and after."""
    seen: list[object] = []
    try:
        with store.transaction() as tx:
            seen += [carry_out(tx, operation) for operation in group[0]]
            seen.append(picture(tx))
            end(group[1])
    except Stopped:
        seen.append("stopped")
    return [*seen, look(store)]


def look(store: Store) -> list[object]:
    """Return everything that can be asked of a store."""
    with store.reading() as view:
        return [
            picture(view),
            [view.answer("alice", key) for key in "kl"],
            [view.main_claim(ConsumerId(name)) for name in ("vm-1", "vm-2", "vm-c-aaaa", "none")],
            [view.snapshot(stream, at_most_sequence=at) for stream in (A, B) for at in (None, 0, 3, 9)],
            [view.claims_like(prefix, 3) for prefix in ("", "c-", "c-b", "x")],
            [view.tickets(stream) for stream in (A, B)],
            [view.observation(stream) for stream in (A, B)],
            [view.samples(stream, limit) for stream in (A, B) for limit in (0, 2, 100)],
            [view.archived(stream) for stream in (A, B)],
        ]


@given(groups)
def test_both_stores_do_the_same(played: list[tuple[list[tuple[Any, ...]], str]]) -> None:
    """Groups of operations, right and wrong, committed and failed, are answered alike, and both ledgers pass the audit."""
    with (
        tempfile.TemporaryDirectory(dir=MEMORY_DISK if MEMORY_DISK.is_dir() else None) as folder,
        SqliteStore(Path(folder) / "ledger.db") as sqlite,
    ):
        memory = MemoryStore()
        for group in played:
            assert play(sqlite, group) == play(memory, group)
        audit(sqlite)
        audit(memory)
