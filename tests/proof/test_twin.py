"""Memory and SQLite are twins: the same life gives the same answers, the same bytes, the same rows and states."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.ledger.steps import STREAM, random, step_of

from earmark.core.ledger.commands import Answer, Command, HoldClaim
from earmark.core.ledger.life_commands import LifeAnswer, LifeCommand
from earmark.core.ledger.state import encode_image
from earmark.core.model.refusal import Refusal
from earmark.errors import EarmarkError
from earmark.stores.contract import Store
from earmark.stores.memory import MemoryStore
from earmark.stores.sqlite.store import SqliteStore
from earmark.testing import GivenClock
from earmark.tracker.history import audit, verify
from earmark.tracker.work import Key
from earmark.tracker.writer import Writer

SEEDS = st.integers(0, (1 << 32) - 1)


class Twin(NamedTuple):
    """One of the two: a store, its clock, and a writer on them."""

    store: Store
    clock: GivenClock
    writer: Writer

    def say(self, command: Command | LifeCommand, key: Key | None) -> Answer | LifeAnswer | Refusal | tuple[str, str]:
        """Carry out a command and return its answer, or its error as code and words."""
        try:
            if isinstance(command, LifeCommand):
                return self.writer.submit(command, key=key)
            return self.writer.submit(command, key=key)
        except EarmarkError as error:
            return error.code, error.message

    def rows(self) -> tuple[object, ...]:
        """Return everything that can be read."""
        store = self.store
        snapshot = store.snapshot(STREAM)
        return (
            store.heads(), store.last_position(), list(store.follow(0)), list(store.slots(STREAM)), list(store.claims_like("c-", 1000)),
            [kept._replace(position=0) for kept in store.refusals(1000)], list(store.tickets(STREAM)), snapshot,
            {kept.claim: store.main_claim(kept.consumer) for kept in store.claims_like("c-", 1000)},
        )  # fmt: skip


@contextmanager
def twins() -> Iterator[tuple[Twin, Twin]]:
    """Give both, empty."""
    with TemporaryDirectory(prefix="earmark-twin-") as folder, SqliteStore(Path(folder, "ledger", "ledger.db")) as sqlite:
        stores: tuple[Store, Store] = (MemoryStore(), sqlite)
        clocks = GivenClock(), GivenClock()
        one, other = (
            Twin(store, clock, Writer(store, clock, actor="tester", epoch=1, boot_id="boot-1", timeout_s=10.0))
            for store, clock in zip(stores, clocks, strict=True)
        )
        yield one, other


def live(all_of_them: tuple[Twin, ...], seeds: list[int]) -> None:
    """Let all live through the same steps and compare after each."""
    one = all_of_them[0]
    for number, seed in enumerate(seeds):
        state = one.writer.state(STREAM)
        known = [row.claim for row in one.store.claims_like("c-", 1000)]
        step = step_of(seed, state, known, number, one.clock.now_ms())
        for twin in all_of_them:
            twin.clock.move(step.moved_ms)
        rnd = random(seed + 1)
        keyed = isinstance(step.command, HoldClaim) and rnd.random() < 0.3
        key = Key("ann", f"k{rnd.randrange(4)}", f"digest-{rnd.randrange(2)}") if keyed else None
        answers = [twin.say(step.command, key) for twin in all_of_them]
        states = [twin.writer.state(STREAM) for twin in all_of_them]
        assert all((answer, after) == (answers[0], states[0]) for answer, after in zip(answers, states, strict=True)), step


def compare(both: tuple[Twin, Twin]) -> None:
    """Compare everything that the two hold, and verify both."""
    one, other = both
    assert one.rows() == other.rows()
    assert verify(one.store) == verify(other.store)
    assert audit(one.store) == audit(other.store)
    assert [finding for finding in verify(one.store).findings if finding.severity == "error"] == []


@pytest.mark.rule("W39")
@settings(max_examples=15)
@given(st.lists(SEEDS, min_size=5, max_size=50))
def test_the_twins_agree(seeds: list[int]) -> None:
    """Random lives: each answer, refusal and error word for word, each event byte for byte, each row."""
    with twins() as both:
        live(both, seeds)
        compare(both)


@pytest.mark.long
@settings(max_examples=25)
@given(SEEDS)
def test_the_twins_agree_for_long(seed: int) -> None:
    """Long lives, with claims that meet, end and come back."""
    rnd = random(seed)
    with twins() as both:
        live(both, [rnd.getrandbits(32) for _ in range(200)])
        compare(both)


def test_another_writer_sees_what_the_first_wrote() -> None:
    """Two writers on one store, taking turns: each decides on what the other left, and both publish the same state."""
    with twins() as both:
        for twin in both:
            second = Writer(twin.store, twin.clock, actor="other", epoch=1, boot_id="boot-1", timeout_s=10.0)
            turns = itertools.cycle((twin.writer, second))
            for number, seed in enumerate(range(100, 180)):
                state = twin.writer.state(STREAM)
                assert second.state(STREAM) == state
                known = [row.claim for row in twin.store.claims_like("c-", 1000)]
                step = step_of(seed, state, known, number, twin.clock.now_ms())
                twin.clock.move(step.moved_ms)
                Twin(twin.store, twin.clock, next(turns)).say(step.command, None)
        one, other = both
        assert one.rows() == other.rows()


@pytest.mark.rule("S27")
def test_a_state_from_the_file_is_the_state_in_memory(tmp_path: Path) -> None:
    """Closed and opened again, the file folds to the image that the program had before."""
    path = tmp_path / "ledger" / "ledger.db"
    clock = GivenClock()
    with SqliteStore(path) as store:
        twin = Twin(store, clock, Writer(store, clock, actor="tester", epoch=1, boot_id="boot-1", timeout_s=10.0))
        live((twin,), list(range(500, 560)))
        before = twin.writer.state(STREAM)
    with SqliteStore(path) as store:
        after = Writer(store, clock, actor="tester", epoch=1, boot_id="boot-1", timeout_s=10.0).state(STREAM)
    assert before is not None
    assert after is not None
    assert (after, encode_image(after)) == (before, encode_image(before))
    assert msgspec.json.decode(encode_image(after))["name"] == "n1"
