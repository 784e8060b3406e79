"""Ledgers of earlier versions fold to the states that were recorded with them, for ever."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from earmark.core.ledger.consumer import decode_consumer, fold_consumer
from earmark.core.ledger.events import EVENTS
from earmark.core.ledger.state import NodeState, decode_image, encode_image
from earmark.core.model.ids import consumer_stream, node_stream
from earmark.core.model.instance import MoveOutcome
from earmark.stores.contract import Store
from earmark.stores.memory import MemoryStore
from earmark.stores.sqlite.store import SqliteStore
from earmark.stores.transfer import export_lines, import_lines
from earmark.tracker.history import audit, replay, verify

GOLDEN = Path(__file__).parent / "golden"
VERSIONS = sorted(GOLDEN.iterdir())
KINDS_OF_V1 = {
    "node.registered", "node.rehomed", "machine.observed", "node.configured", "unit.cordoned", "unit.uncordoned", "claim.held",
    "claim.confirmed", "claim.bound", "claim.renewed", "claim.draining", "claim.ended", "units.returned", "units.passed",
}  # fmt: skip


@pytest.fixture(params=VERSIONS, ids=lambda folder: folder.name)
def folder(request: pytest.FixtureRequest) -> Path:
    """Return each golden ledger."""
    return Path(request.param)


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """Return an empty store of each kind."""
    made: Store = MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "ledger" / "ledger.db")
    yield made
    made.close()


def lines(folder: Path) -> list[bytes]:
    """Return the export's lines."""
    return (folder / "events.jsonl").read_bytes().splitlines(keepends=True)


def test_it_folds_to_the_recorded_state(folder: Path, store: Store) -> None:
    """Imported into any store, each node has exactly the image that was recorded, and the ledger verifies."""
    import_lines(lines(folder), store)
    for recorded in sorted(folder.glob("n*.json")):
        image = recorded.read_bytes()
        expected = decode_image(image)
        with store.reading() as reader:
            state = replay(reader, node_stream(expected.node))
        assert isinstance(state, NodeState)
        assert added_only(msgspec.json.decode(image), msgspec.json.decode(encode_image(state)))
        if folder == VERSIONS[-1]:
            assert msgspec.json.format(encode_image(state), indent=1) + b"\n" == image
            assert state == expected
    assert {finding.severity for finding in (*verify(store).findings, *audit(store))} <= {"warning"}


def added_only(recorded: Any, now: Any) -> bool:
    """Say whether what was recorded is all there still, unchanged; a later version may have added fields, never changed or dropped one."""
    if isinstance(recorded, dict):
        return isinstance(now, dict) and all(key in now and added_only(value, now[key]) for key, value in recorded.items())
    if isinstance(recorded, list):
        return isinstance(now, list) and len(now) == len(recorded) and all(map(added_only, recorded, now))
    return bool(recorded == now)


def test_consumers_fold_to_what_was_recorded(folder: Path, store: Store) -> None:
    """Each consumer's stream gives the record and the moves that it gave when it was written."""
    import_lines(lines(folder), store)
    path = folder / "consumers.jsonl"
    recorded = [decode_consumer(line) for line in path.read_bytes().splitlines()] if path.exists() else []
    found = [stream for stream in store.heads() if stream.startswith("consumer:")]
    assert [consumer_stream(state.consumer) for state in recorded] == sorted(found)
    for state in recorded:
        assert fold_consumer(None, store.read(consumer_stream(state.consumer))) == state
    assert {move.outcome for state in recorded for move in state.moves} == ({*get_args(MoveOutcome)} - {"deleted"} if recorded else set())


def test_it_leaves_as_it_came(folder: Path, store: Store) -> None:
    """Exported again, every event has its bytes, its hash and its place."""
    import_lines(lines(folder), store)
    assert list(export_lines(store))[1:] == lines(folder)[1:]


def test_the_first_has_every_event_of_its_time() -> None:
    """The golden ledger of the first version holds every kind of event that there was."""
    found = {msgspec.json.decode(line)["event"]["type"] for line in lines(GOLDEN / "v1")[1:-1]}
    assert found == KINDS_OF_V1


def test_the_newest_has_every_event_of_today() -> None:
    """A new kind of event, or a new version of one, needs a new golden ledger (tools/golden.py)."""
    found = set()
    for line in lines(VERSIONS[-1])[1:-1]:
        envelope = msgspec.json.decode(line)["event"]
        found.add((envelope["type"], envelope["version"]))
    assert found == {(kind.type, kind.version) for kind in EVENTS}


def test_a_golden_ledger_is_never_overwritten() -> None:
    """The recorder refuses a folder that exists."""
    from tools import golden

    with pytest.raises(FileExistsError):
        golden.main(GOLDEN / "v1")
