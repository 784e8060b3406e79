"""Other versions and other writers: what a newer program wrote is read and not written, an older epoch writes nothing, and the past stays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import pytest
from tests.ledger.steps import BASE, STREAM, step_of
from tests.proof.worlds import OWN, granted, made

from earmark.core.ledger import events as e
from earmark.core.ledger.codec import Batch, Stamp, open_envelope
from earmark.core.ledger.fold import fold
from earmark.core.ledger.state import NodeState
from earmark.core.model.grant import Grant
from earmark.errors import InvalidSetting, LedgerNewer, StaleEpoch
from earmark.settings import Settings
from earmark.stores import place
from earmark.stores.contract import Store
from earmark.stores.sqlite.store import SqliteStore
from earmark.testing import GivenClock, GivenHost, GivenProcesses, machine, on
from earmark.tracker import writer
from earmark.tracker.writer import Writer
from earmark.wiring import tracker_on


class ClaimSplit(e.Event, frozen=True):
    """An event that only a newer program knows."""

    type: ClassVar[str] = "claim.split"
    claim: str


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """Return an empty store of each kind."""
    opened = made(request.param, tmp_path)
    yield opened
    opened.close()


def by_a_newer_program(store: Store, stream: str, event: e.Event) -> None:
    """Append what a newer program appends."""
    known = next(each for each in store.heads() if each == stream)
    store.append([Batch(known, store.head(known).sequence, (event,))], Stamp(actor="newer", command="n", now_ms=1))


def test_what_a_newer_program_wrote_is_read_and_not_written(store: Store) -> None:
    """Behind an unknown event every look works, every change is refused as LedgerNewer, and time changes nothing."""
    world = on(store, GivenHost(machine("2c 8G")), GivenClock(), GivenProcesses())
    tracker = world.tracker
    held = granted(tracker.hold(OWN, consumer="vm"))
    by_a_newer_program(store, STREAM, ClaimSplit(claim=held.id))
    before = tracker.node()
    changes: tuple[Callable[[], object], ...] = (
        lambda: tracker.hold(OWN), lambda: tracker.release(held.id), lambda: tracker.confirm(held.id), lambda: tracker.cordon(None, "x"),
        lambda: tracker.give_back("cpu:0", "x"), tracker.observe, lambda: tracker.renew(held.id, 1000), lambda: tracker.bind(held.id, ()),
    )  # fmt: skip
    for change in changes:
        with pytest.raises(LedgerNewer, match=r"claim\.split"):
            change()
    world.clock.move(10_000_000)
    assert tracker.sweep() is None
    assert tracker.node() == before
    assert before.unknown == "claim.split v1"
    assert tracker.find("vm").claim == held.id
    assert tracker.audit() == ()
    assert [finding for finding in tracker.verify().findings if finding.severity == "error"] == []
    assert [event.type for _, _, event in tracker.events()][-1] == "unknown"
    assert isinstance(tracker.fit(OWN), Grant)


def test_a_newer_ledger_opens_after_a_reboot(tmp_path: Path) -> None:
    """Where the opening itself would write (another boot, a deadline that has passed) it does not, and the node can be looked at."""
    path = tmp_path / "ledger" / "ledger.db"
    settings = Settings(ledger=str(path), state_home=str(tmp_path), machine_root=str(tmp_path / "root"))
    with pytest.raises(InvalidSetting, match="machine_root"):
        place.resolve(settings)
    (tmp_path / "root").mkdir()
    host, clock = GivenHost(machine("2c 8G")), GivenClock()
    where = place.resolve(settings)
    place.prepare(where)
    with SqliteStore(path) as store:
        tracker = tracker_on(store, where, host, settings, clock, observe=False)
        held = granted(tracker.hold(OWN))
        by_a_newer_program(store, f"node:{tracker.home}", ClaimSplit(claim=held.id))
    host.boot = "boot-2"
    clock.move(10_000_000)
    with SqliteStore(path) as store:
        again = tracker_on(store, where, host, settings, clock, observe=False)
        assert again.node().claims[held.id].phase == "held"
        with pytest.raises(LedgerNewer):
            again.hold(OWN)
        with pytest.raises(LedgerNewer):
            tracker_on(store, where, host, settings, clock, observe=True)


def test_a_writer_of_an_older_epoch_writes_nothing(store: Store) -> None:
    """Once a writer of a higher epoch has written, one of a lower is refused and nothing has changed; the higher goes on."""
    world = on(store, GivenHost(machine("2c 8G")), GivenClock(), GivenProcesses())
    mine = world.tracker._writer
    world.tracker._writer = Writer(store, world.clock, actor="successor", epoch=2, boot_id="boot-1", timeout_s=10.0)
    claim = granted(world.tracker.hold(OWN))
    successor, world.tracker._writer = world.tracker._writer, mine
    before = world.tracker.node()
    changes: tuple[Callable[[], object], ...] = (lambda: world.tracker.hold(OWN), lambda: world.tracker.release(claim.id))
    for change in changes:
        with pytest.raises(StaleEpoch):
            change()
    assert world.tracker.node() == before
    world.tracker._writer = successor
    assert world.tracker.release(claim.id).changed
    assert {open_envelope(stored.raw).epoch for stored in store.read(STREAM, before.sequence)} == {2}


def test_the_past_is_what_the_events_up_to_then_say(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """At every time in a life, with snapshots in between or not, the node was what its events until then fold to."""
    monkeypatch.setattr(writer, "SNAPSHOT_EVERY", 7)
    monkeypatch.setattr(writer, "SNAPSHOT_PER_CLAIM", 0)
    world = on(store, GivenHost(BASE), GivenClock(), GivenProcesses())
    for number, seed in enumerate(range(90_000, 90_150)):
        known = [row.claim for row in store.claims_like("c-", 1000)]
        step = step_of(seed, world.tracker.node(), known, number, world.clock.now_ms())
        world.clock.move(abs(step.moved_ms) + number % 3)
        try:
            world.tracker._writer.submit(step.command)
        except Exception as error:  # noqa: BLE001 - a random command may be impossible; it must be said as such
            assert type(error).__module__ == "earmark.errors", error
    events = store.read(STREAM)
    times = sorted({open_envelope(stored.raw).at_ms for stored in events})
    assert len(times) > 10
    for time_ms in times:
        until: NodeState | None = fold(None, [stored for stored in events if open_envelope(stored.raw).at_ms <= time_ms])
        assert world.tracker.at(time_ms) == until
