"""Ledgers of earlier versions fold to the states that were recorded with them, for ever."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from earmark.core.ledger.events import EVENTS
from earmark.core.ledger.state import decode_image, encode_image
from earmark.core.model.ids import node_stream
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
    for recorded in sorted(folder.glob("*.json")):
        image = recorded.read_bytes()
        expected = decode_image(image)
        with store.reading() as reader:
            state = replay(reader, node_stream(expected.node))
        assert state is not None
        assert msgspec.json.format(encode_image(state), indent=1) + b"\n" == image
        assert state == expected
    assert {finding.severity for finding in (*verify(store).findings, *audit(store))} <= {"warning"}


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
