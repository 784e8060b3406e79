"""Archiving is no change: a ledger whose older events were moved away goes on, is verified, and comes back whole with its archives."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.ledger.steps import BASE, STREAM, step_of
from tests.proof.worlds import made

from earmark.core.ledger.state import NodeState, encode_image
from earmark.errors import EarmarkError, UnknownNode
from earmark.stores.contract import Store
from earmark.stores.memory import MemoryStore
from earmark.stores.transfer import export_lines, import_lines
from earmark.testing import GivenClock, GivenHost, GivenProcesses, assert_sound, on
from earmark.tracker.history import Replay, replay


class Living:
    """A tracker on a store, and the number of its next step."""

    def __init__(self, store: Store) -> None:
        self.clock = GivenClock()
        self.world = on(store, GivenHost(BASE), self.clock, GivenProcesses())
        self.number = 0

    def live(self, seeds: range) -> None:
        """Carry out the steps of some seeds."""
        store, writer = self.world.store, self.world.tracker._writer
        for seed in seeds:
            self.number += 1
            known = [row.claim for row in store.claims_like("c-", 1000)]
            step = step_of(seed, writer.state(STREAM), known, self.number, self.clock.now_ms())
            self.clock.move(step.moved_ms)
            try:
                writer.submit(step.command)
            except EarmarkError as error:
                assert error.code in ("invalid-request", "conflict", "generation-conflict", "unknown-claim", "unknown-unit"), error


@pytest.fixture(params=["memory", "sqlite"])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Store, Store]]:
    """Return two empty stores of one kind."""
    one, other = made(request.param, tmp_path / "one"), made(request.param, tmp_path / "other")
    yield one, other
    one.close()
    other.close()


@pytest.mark.parametrize("base", [0, 7000, 42000])
def test_archiving_is_no_change(stores: tuple[Store, Store], tmp_path: Path, base: int) -> None:
    """Two nodes live the same life, one is archived twice in between: same state, same rows, same next events, both verify."""
    plain, archived = Living(stores[0]), Living(stores[1])
    files = [tmp_path / "first.archive", tmp_path / "second.archive"]
    for part, file in zip((range(base, base + 60), range(base + 60, base + 100)), files, strict=True):
        for each in (plain, archived):
            each.live(part)
        assert archived.world.tracker.archive(file) > 0
        assert_sound(archived.world.tracker)
    for each in (plain, archived):
        each.live(range(base + 100, base + 150))
        assert_sound(each.world.tracker)
    whole, short = plain.world.store, archived.world.store
    assert short.heads() == whole.heads()
    assert list(short.slots(STREAM)) == list(whole.slots(STREAM))
    assert short.claims_like("c-", 1000) == whole.claims_like("c-", 1000)
    base_head = short.archived(STREAM)
    assert base_head is not None
    assert [stored.raw for stored in short.read(STREAM)] == [stored.raw for stored in whole.read(STREAM, base_head.sequence)]
    with whole.reading() as reader, short.reading() as other:
        one, two = replay(reader, STREAM), replay(other, STREAM)
    assert isinstance(one, NodeState)
    assert isinstance(two, NodeState)
    assert encode_image(one) == encode_image(two)
    assert list(export_lines(short, archives=files))[1:] == list(export_lines(whole))[1:]
    back = MemoryStore()
    import_lines(export_lines(short, archives=reversed(files)), back, check=Replay())
    assert back.heads() == whole.heads()
    assert archived.world.reopened().tracker.node() == archived.world.tracker.node()


def test_looking_back_ends_where_the_archive_begins(stores: tuple[Store, Store], tmp_path: Path) -> None:
    """A time after the archive's end is answered as before; one before it is said to be archived, not answered wrongly."""
    living = Living(stores[0])
    living.live(range(60))
    living.clock.move(100_000_000)
    early = living.world.tracker.node().at_ms - 1
    living.world.tracker.archive(tmp_path / "a.archive")
    sealed_at = living.world.tracker.node().at_ms
    living.clock.move(1000)
    living.live(range(60, 90))
    assert living.world.tracker.at(sealed_at).at_ms <= sealed_at
    with pytest.raises(UnknownNode, match="archived"):
        living.world.tracker.at(early - 200_000_000)
