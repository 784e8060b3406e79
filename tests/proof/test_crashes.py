"""Crashes: the disk fails, is full, or loses power at every write and flush of a claim's life; then the ledger is opened again.

What was acknowledged is there, what was not is whole or absent, memory never ran ahead, and audit and verify find nothing.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.proof.worlds import OWN, granted
from tests.stores.faulty_vfs import FaultyVfs, Harm

from earmark.core.ledger.commands import Answer
from earmark.core.ledger.state import NodeState
from earmark.core.model.ids import ClaimId, node_stream
from earmark.core.model.request import Request
from earmark.core.model.units import GIB
from earmark.errors import Conflict, LedgerBroken, OutcomeUnknown, Unavailable, UnknownClaim
from earmark.stores.contract import Store
from earmark.stores.sqlite.opening import Surroundings
from earmark.stores.sqlite.store import SqliteStore
from earmark.testing import NODE_ONE, UNRESERVED, Bench, GivenClock, GivenHost, GivenProcesses, assert_sound, machine, on
from earmark.tracker import snapshots, writer

STREAM = node_stream(NODE_ONE)
FIRST, SECOND = ClaimId("c-first"), ClaimId("c-second")
OPERATIONS_MAX = 400


class Said(NamedTuple):
    """What came of a life until the disk failed: steps acknowledged, and whether one's outcome was left open."""

    done: tuple[str, ...]
    open: str | None


def steps(world: Bench) -> list[tuple[str, Callable[[], object]]]:
    """Return a short life: every kind of change that a claim goes through, and two of the node."""
    tracker = world.tracker
    return [
        ("held", lambda: tracker.hold(OWN, claim_id=FIRST, consumer="vm", key="k1")),
        ("confirmed", lambda: tracker.confirm(FIRST)),
        ("cordoned", lambda: tracker.cordon("cpu:7", "sick")),
        ("second", lambda: tracker.hold(Request(vcpus=2, memory_bytes=GIB), claim_id=SECOND, confirm=True)),
        ("refused", lambda: tracker.hold(Request(vcpus=500))),
        ("released", lambda: tracker.release(FIRST)),
        ("forced", lambda: tracker.release(SECOND, force=True)),
    ]


def opened(store: Store) -> Bench:
    """Return a tracker on a store."""
    return on(store, GivenHost(machine("2x4c 16G")), GivenClock(), GivenProcesses(), UNRESERVED)


def live(ledger: Path, vfs: str) -> Said:
    """Live the short life on a disk that fails somewhere, and check after each failure that memory has not run ahead."""
    done: list[str] = []
    left_open: list[str] = []
    with suppress(Unavailable, LedgerBroken), SqliteStore(ledger, around=Surroundings(vfs=vfs)) as store:
        left_open.append("opened")
        world = opened(store)
        left_open.clear()
        before = world.tracker.node()
        for name, say in steps(world):
            try:
                say()
                done.append(name)
                before = world.tracker.node()
            except OutcomeUnknown:
                left_open.append(name)
                break
            except Unavailable:
                unchanged(world, before)
            except (UnknownClaim, Conflict):
                assert not {"held", "confirmed", "second"} <= set(done), name
    return Said(tuple(done), left_open[0] if left_open else None)


def unchanged(world: Bench, before: NodeState) -> None:
    """Check that a failed step has left the published state alone; a disk that cannot even be read says so."""
    assert world.tracker._writer._states.get(STREAM) == before
    try:
        assert world.tracker.node() == before
    except Unavailable:
        return


def reopened(ledger: Path, said: Said) -> None:
    """Open the ledger on a sound disk and compare it with what was said."""
    with SqliteStore(ledger) as store:
        world = opened(store)
        assert_sound(world.tracker)
        state = world.tracker.node()
        row = store.claim(FIRST)
        done = set(said.done)
        if "held" in done:
            assert row is not None
        if "released" in done:
            assert row is not None
            assert row.cause == "released"
        elif "confirmed" in done and said.open != "released":
            assert state.claims[FIRST].phase == "confirmed"
        if "held" not in done and said.open != "held":
            assert row is None
        if "cordoned" in done:
            assert "cpu:7" in state.cordons
        if "second" in done:
            assert SECOND in state.claims
            if said.open != "forced":
                assert (state.claims[SECOND].phase == "draining") == ("forced" in done)
        goes_on(world)
        assert_sound(world.tracker)


def goes_on(world: Bench) -> None:
    """Check that a claim can be had and given back again."""
    claim = granted(world.tracker.hold(OWN))
    assert world.tracker.release(claim.id).changed


def total(folder: Path) -> int:
    """Return how many operations the whole life has on a sound disk."""
    vfs = FaultyVfs("sound")
    said = live(folder / "sound" / "ledger.db", vfs.vfs_name)
    assert said == Said(("held", "confirmed", "cordoned", "second", "refused", "released", "forced"), None)
    reopened(folder / "sound" / "ledger.db", said)
    return len(vfs.operations)


@pytest.mark.rule("W0", "W7", "W37")
@pytest.mark.parametrize(
    ("harm", "lasting", "step"),
    [
        ("io", False, 9),
        ("full", True, 17),
        ("power", False, 7),
        pytest.param("io", False, 1, marks=pytest.mark.long),
        pytest.param("io", True, 2, marks=pytest.mark.long),
        pytest.param("full", False, 1, marks=pytest.mark.long),
        pytest.param("power", False, 1, marks=pytest.mark.long),
    ],
)
def test_the_disk_fails_at_every_operation(tmp_path: Path, harm: Harm, step: int, *, lasting: bool) -> None:
    """At the n-th write or flush of everything from the opening on, for every n (or some of them)."""
    operations = total(tmp_path)
    assert 20 < operations < OPERATIONS_MAX
    for at in range(1, operations + 1, step):
        ledger = tmp_path / f"{harm}{at}" / "ledger.db"
        vfs = FaultyVfs(f"{harm}-{lasting}-{at}", at=at, harm=harm, lasting=lasting)
        said = live(ledger, vfs.vfs_name)
        if harm == "power":
            vfs.lose(random.Random(at), share=(0.0, 0.5, 1.0)[at % 3])  # noqa: S311 - a test case
        if ledger.exists():
            reopened(ledger, said)


@pytest.mark.parametrize("image", [b"", b"{", b"[]", b'{"node":1}', b"\xff\xfe\x00", b"[" * 100_000], ids=lambda image: repr(image[:6]))
def test_a_torn_snapshot_is_passed_over(tmp_path: Path, image: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A snapshot that is damaged costs only time: the events say what is true, and verify says that it is damaged."""
    monkeypatch.setattr(writer, "SNAPSHOT_EVERY", 4)
    monkeypatch.setattr(writer, "SNAPSHOT_PER_CLAIM", 0)
    with SqliteStore(tmp_path / "l" / "ledger.db") as store:
        world = opened(store)
        for name, say in steps(world):
            assert say() is not None, name
        before = world.tracker.node()
        kept = store.snapshot(STREAM)
        assert kept is not None
        assert snapshots.opened(kept) is not None
        with store.transaction(purpose="tear a snapshot") as tx:
            tx.put_snapshot(kept._replace(image=image))
        torn = store.snapshot(STREAM)
        assert torn is not None
        assert snapshots.opened(torn) is None
        assert [finding.code for finding in world.tracker.verify().findings if finding.severity == "error"] == ["snapshot_drift"]
        again = opened(store)
        assert again.tracker.node() == before
        goes_on(again)
        assert_sound(again.tracker)


@pytest.mark.damaged
def test_a_snapshot_of_another_event_is_passed_over(tmp_path: Path) -> None:
    """A snapshot whose image is of another event than it says is not believed."""
    with SqliteStore(tmp_path / "l" / "ledger.db") as store:
        world = opened(store)
        early = world.tracker.node()
        granted(world.tracker.hold(OWN))
        late = world.tracker.node()
        forged = snapshots.snapshot_of(STREAM, late, store.last_position())._replace(image=snapshots.snapshot_of(STREAM, early, 1).image)
        with store.transaction(purpose="forge a snapshot") as tx:
            tx.put_snapshot(forged)
        assert opened(store).tracker.node() == late


def test_another_folds_snapshot_is_passed_over(tmp_path: Path) -> None:
    """A snapshot made by another version of the fold is not used."""
    with SqliteStore(tmp_path / "l" / "ledger.db") as store:
        world = opened(store)
        state = world.tracker.node()
        other = snapshots.snapshot_of(STREAM, state, store.last_position())._replace(fold_version=99, image=b"from the future")
        with store.transaction(purpose="another fold") as tx:
            tx.put_snapshot(other)
        assert snapshots.opened(other) is None
        assert opened(store).tracker.node() == state
        assert_sound(world.tracker)


def test_snapshots_make_no_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opened from a snapshot at any point, or from none, the node is the same."""
    monkeypatch.setattr(writer, "SNAPSHOT_PER_CLAIM", 0)
    for every in (1, 3, 10_000):
        monkeypatch.setattr(writer, "SNAPSHOT_EVERY", every)
        with SqliteStore(tmp_path / str(every) / "ledger.db") as store:
            world = opened(store)
            for name, say in steps(world):
                answer = say()
                assert isinstance(answer, Answer) == (name != "refused")
                assert opened(store).tracker.node() == world.tracker.node()
            assert_sound(world.tracker)
            assert (store.snapshot(STREAM) is None) == (every == 10_000)
