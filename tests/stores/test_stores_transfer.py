"""Whole ledgers out and in again: export, import, backup, sealed streams and their archives."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
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
    picture,
    put,
    registered,
    returned,
    slots,
    snapshot_at,
    stamp,
)

from earmark.core.ledger.codec import Batch, Envelope, Head, Stored, check_link
from earmark.core.ledger.events import Event
from earmark.core.model.ids import MoveId, StreamId
from earmark.errors import ChainBroken, Conflict, InvalidRecord, InvalidRequest, LedgerUnavailable, SequenceConflict
from earmark.redactor import Redactor
from earmark.stores import archive
from earmark.stores.archive import archive_of, archived_events
from earmark.stores.contract import Remembered, Store
from earmark.stores.memory import MemoryStore
from earmark.stores.sqlite.store import SqliteStore
from earmark.stores.transfer import export_lines, import_lines

Make = Callable[[str], Store]


def fill(store: Store) -> None:
    """Write a history with everything that guard rows know."""
    put(store, A, registered(), held("c-aaaa", [1, "pf=pf,vf1"]), held("c-bbbb", [2]))
    put(store, B, registered("b"), held("c-cccc", [1], consumer="vm"), now_ms=2000)
    put(store, A, ended("c-aaaa"), confirmed("c-bbbb"), ended("c-bbbb", cause="forced", quarantined=True), now_ms=3000)
    store.append([], stamp(), Remembered("alice", "k", "d", b"{}", 1))


def resumed(store: Store) -> list[object]:
    """Return all events and guard rows."""
    return [list(store.all_events()), list(store.claims_like("", 1000)), {stream: slots(store, stream) for stream in store.heads()}]


# --- export and import ----------------------------------------------------------------------------------------------------------------


def test_an_import_equals_what_was_exported(make: Make) -> None:
    """Every event has its bytes, hash and position, guard rows are the same, and the copy goes on from there; side tables stay behind."""
    store, copy = make("one"), make("two")
    fill(store)
    lines = list(export_lines(store))
    assert import_lines(lines, copy) == store.last_position() == 8
    assert resumed(copy) == resumed(store)
    assert copy.answer("alice", "k") is None
    assert copy.ledger_id != store.ledger_id
    assert list(export_lines(copy))[1:] == lines[1:]
    put(copy, A, returned("c-bbbb"), held("c-dddd", [1, 2]))


def moved(store: Store) -> None:
    """Write a move from node A to node B that was confirmed."""
    put(store, A, registered(), held("c-aaaa", [1], consumer="vm-1"))
    put(store, B, registered("b"), held("c-bbbb", [1], consumer="vm-1", purpose="leg"))
    put(store, VM, known(), move_begun("m-aaat"))
    batches: list[tuple[StreamId, list[Event]]] = [
        (A, [now_for("c-aaaa", "leg"), ended("c-aaaa", cause="moved")]),
        (B, [now_for("c-bbbb", "main")]),
    ]
    store.append([Batch(stream, store.head(stream).sequence, events) for stream, events in batches], stamp())


@pytest.mark.damaged
def test_streams_of_both_kinds_are_carried_over(make: Make) -> None:
    """A consumer's record and its move come back with the claims on the nodes: who holds what, for what purpose, and which move is whose."""
    store, copy = make("one"), make("two")
    moved(store)
    assert import_lines(export_lines(store), copy) == store.last_position() == 9
    assert resumed(copy) == resumed(store)
    assert picture(copy) == picture(store)
    assert copy.move(MoveId("m-aaat")) == VM
    with pytest.raises(Conflict):
        put(copy, StreamId("consumer:vm-2"), known("vm-2"), move_begun("m-aaat"))
    audit(copy)


@pytest.mark.damaged
def test_a_scrubbed_export_names_no_tenant(store: Store) -> None:
    """Neither the consumer, its instance's name, uuid, owner and labels, nor the token that ties a move is in a scrubbed export."""
    moved(store)
    text = b"".join(export_lines(store, scrub=Redactor(b"k").envelope)).decode()
    for secret in ("vm-1", "web", "名", "alice", "00000000-0000-4000-8000-0000000000aa", "front", "tier", '"tie"'):
        assert secret not in text
    assert {"instance.created", "move.opened"} <= {json.loads(line)["event"]["type"] for line in text.splitlines()[1:-1]}


def test_stores_take_each_others_exports(tmp_path: Path) -> None:
    """What memory exports SQLite imports, and the other way round."""
    with SqliteStore(tmp_path / "one" / "ledger.db") as one:
        memory, again = MemoryStore(), MemoryStore()
        fill(memory)
        import_lines(export_lines(memory), one)
        import_lines(export_lines(one), again)
        assert resumed(again) == resumed(one) == resumed(memory)
        for store in (one, again):
            audit(store)


def test_an_export_is_readable_json_with_the_stored_bytes(store: Store) -> None:
    """Each line is JSON; an event line shows the event itself, byte for byte as it was hashed."""
    fill(store)
    lines = [json.loads(line) for line in export_lines(store)]
    assert lines[0] == {"line": "export", "version": 1, "ledger": store.ledger_id, "scrubbed": False}
    assert (lines[2]["line"], lines[2]["position"], lines[2]["event"]["type"]) == ("event", 2, "claim.held")
    assert lines[-1]["events"] == 8
    assert lines[-1]["streams"][A] == {"sequence": 6, "hash": store.head(A).hash}
    stored = next(iter(store.follow(1, 1)))
    assert stored.raw in list(export_lines(store))[2]


def test_only_an_empty_ledger_takes_an_import(make: Make) -> None:
    """A ledger with events is not mixed with another."""
    store, other = make("one"), make("two")
    fill(store)
    put(other, A, registered())
    before = picture(other)
    with pytest.raises(InvalidRequest, match="empty"):
        import_lines(export_lines(store), other)
    assert picture(other) == before


def test_an_empty_ledger_is_exported_and_imported(make: Make) -> None:
    """No events make a header and an end."""
    lines = list(export_lines(make("one")))
    assert len(lines) == 2
    assert import_lines(lines, make("two")) == 0


def edited(line: bytes, **changes: object) -> bytes:
    """Return a line with some keys changed."""
    return json.dumps({**json.loads(line), **changes}).encode()


def event_edited(line: bytes, **changes: object) -> bytes:
    """Return an event line with some keys of its envelope changed."""
    envelope = json.loads(line)["event"]
    return edited(line, event={**envelope, **changes})


def resealed(line: bytes, **changes: object) -> bytes:
    """Return an event line whose envelope was changed and hashed again, as a forger would."""
    parts = json.loads(line)
    raw = msgspec.json.encode({**parts["event"], **changes})
    shell = {"line": "event", "position": parts["position"], "hash": hashlib.sha256(raw).hexdigest()}
    return json.dumps(shell).encode()[:-1] + b', "event": ' + raw + b"}"


HURTS: dict[str, tuple[int, Callable[[list[bytes]], list[bytes]]]] = {
    "no header": (1, lambda lines: lines[1:]),
    "nothing": (0, lambda lines: []),
    "a newer format": (1, lambda lines: [edited(lines[0], version=2), *lines[1:]]),
    "an unknown key": (1, lambda lines: [edited(lines[0], more=1), *lines[1:]]),
    "no JSON": (3, lambda lines: [*lines[:2], b"{{{", *lines[3:]]),
    "not UTF-8": (3, lambda lines: [*lines[:2], lines[2].replace(b"alice", b"al\xffce"), *lines[3:]]),
    "an event less": (3, lambda lines: [*lines[:2], *lines[3:]]),
    "two events changed places": (2, lambda lines: [lines[0], lines[2], lines[1], *lines[3:]]),
    "an event twice": (3, lambda lines: [*lines[:2], lines[1], *lines[2:]]),
    "changed bytes": (3, lambda lines: [*lines[:2], lines[2].replace(b"alice", b"mallo"), *lines[3:]]),
    "changed spaces": (3, lambda lines: [*lines[:2], lines[2].replace(b'"type":', b'"type": '), *lines[3:]]),
    "another stream": (3, lambda lines: [*lines[:2], event_edited(lines[2], stream="node:x"), *lines[3:]]),
    "a forged event": (4, lambda lines: [*lines[:2], resealed(lines[2], actor="mallory"), *lines[3:]]),
    "a forged sequence": (2, lambda lines: [lines[0], resealed(lines[1], sequence=2), *lines[2:]]),
    "a forged stream": (2, lambda lines: [lines[0], resealed(lines[1], stream="nonsense"), *lines[2:]]),
    "a huge time": (2, lambda lines: [lines[0], resealed(lines[1], at_ms=2**60), *lines[2:]]),
    "a huge epoch": (2, lambda lines: [lines[0], resealed(lines[1], epoch=2**70), *lines[2:]]),
    "an unknown event": (2, lambda lines: [lines[0], resealed(lines[1], type="node.exploded"), *lines[2:]]),
    "a newer event": (2, lambda lines: [lines[0], resealed(lines[1], version=99), *lines[2:]]),
    "no event inside": (2, lambda lines: [lines[0], resealed(lines[1], data={"x": 1}), *lines[2:]]),
    "no end": (9, lambda lines: lines[:-1]),
    "a wrong count": (10, lambda lines: [*lines[:-1], edited(lines[-1], events=7)]),
    "a wrong end": (10, lambda lines: [*lines[:-1], edited(lines[-1], streams={})]),
    "more after the end": (11, lambda lines: [*lines, lines[1]]),
    "a second header": (2, lambda lines: [lines[0], *lines]),
}


@pytest.mark.parametrize("name", HURTS)
def test_a_hurt_export_is_refused_with_its_line(make: Make, name: str) -> None:
    """Whatever is wrong with an export, the import names the line, and the ledger stays empty and usable."""
    store, target = make("one"), make("two")
    fill(store)
    number, hurt = HURTS[name]
    with pytest.raises(InvalidRecord) as caught:
        import_lines(hurt(list(export_lines(store))), target)
    assert caught.value.facts["line"] == number
    assert (target.last_position(), target.heads(), list(target.claims_like(""))) == (0, {}, [])
    fill(target)


def test_a_forged_double_grant_is_refused(make: Make) -> None:
    """A chain that is whole and grants one CPU twice is refused by the guards, with the line."""
    forged = MemoryStore()
    put(forged, A, registered(), held("c-aaaa", [1]))
    put(forged, B, registered("b"), held("c-bbbb", [1], consumer="vm-c-bbbb"))
    lines = list(export_lines(forged))
    stream_b = [resealed(line, stream=A) if b'"stream":"node:b"' in line else line for line in lines]
    head = forged.head(A)
    second = resealed(resealed(stream_b[4], sequence=3), previous=head.hash)
    with pytest.raises(InvalidRecord, match="which c-aaaa holds") as caught:
        import_lines([*stream_b[:3], second, stream_b[5]], make("two"))
    assert caught.value.facts["line"] == 4


@pytest.mark.parametrize("claim", ["", "c-A", "c-\x1b[31m", "c-" + "x" * 99])
def test_hostile_names_are_refused(make: Make, claim: str) -> None:
    """Names that no command could have given are not taken from a file either."""
    forged = MemoryStore()
    put(forged, A, registered(), held(claim))
    with pytest.raises(InvalidRecord) as caught:
        import_lines(export_lines(forged), make("two"))
    assert caught.value.facts["line"] == 3


def test_a_further_check_can_refuse(make: Make) -> None:
    """A caller's own look at each event sees all of it and can stop the import."""
    store = make("one")
    fill(store)
    seen = []

    def check(stored: Stored, envelope: Envelope, event: Event) -> None:
        seen.append((stored.sequence, envelope.type, event.type))
        if envelope.type == "claim.ended":
            raise InvalidRecord("no endings, please")

    with pytest.raises(InvalidRecord, match="line 7: no endings"):
        import_lines(export_lines(store), make("two"), check=check)
    assert seen[0] == (1, "node.registered", "node.registered")


def test_a_scrubbed_export_is_a_report(make: Make) -> None:
    """Events are changed by the given function, hashes are left out, the header says so, and import refuses it."""
    store = make("one")
    fill(store)
    lines = list(export_lines(store, scrub=lambda raw: raw.replace(b"alice", b"owner-1")))
    text = b"".join(lines)
    assert b"alice" not in text
    assert json.loads(lines[0])["scrubbed"] is True
    assert {json.loads(line)["hash"] for line in lines[1:-1]} == {""}
    with pytest.raises(InvalidRecord, match="scrubbed"):
        import_lines(lines, make("two"))


# --- backup ---------------------------------------------------------------------------------------------------------------------------


def test_a_backup_is_a_whole_ledger(sqlite: SqliteStore, path: Path) -> None:
    """The copy is one file of mode 0600 with everything in it, made while a writer is inside, and never over another file."""
    fill(sqlite)
    target = path.with_name("copy.db")
    with sqlite.transaction() as tx:
        tx.append([Batch(A, 6, [held("c-later", [7])])], stamp(4000))
        sqlite.backup(target)
    assert target.stat().st_mode & 0o777 == 0o600
    assert sorted(each.name for each in path.parent.iterdir() if "copy" in each.name) == ["copy.db"]
    with SqliteStore(target) as copy:
        assert copy.ledger_id == sqlite.ledger_id
        assert copy.last_position() == 8
        assert copy.answer("alice", "k") is not None
        audit(copy)
    with pytest.raises(InvalidRequest, match="exists"):
        sqlite.backup(target)
    with pytest.raises(LedgerUnavailable):
        sqlite.backup(path.parent / "none" / "copy.db")
    with pytest.raises(LedgerUnavailable, match="export"):
        MemoryStore().backup(path.with_name("memory.db"))


# --- sealing --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.damaged
def test_a_sealed_stream_begins_at_its_snapshot(store: Store, tmp_path: Path) -> None:
    """Older events are in the archive and gone from the ledger; positions, sequences, guard rows and later appends go on."""
    fill(store)
    everything = list(store.all_events())
    snapshot = snapshot_at(store, A, 4, b"image")
    file = tmp_path / "a.archive"
    assert store.seal(snapshot, file) == 4
    assert store.archived(A) == Head(4, 1, 3000, everything[5].hash)
    assert store.archived(B) is None
    assert list(store.all_events()) == [each for each in everything if each.stream != A or each.sequence > 4]
    assert [each.sequence for each in store.read(A)] == [5, 6]
    assert store.snapshot(A) == snapshot
    assert list(archived_events(file)) == [each for each in everything if each.stream == A and each.sequence <= 4]
    assert file.stat().st_mode & 0o777 == 0o600
    assert slots(store) == {"cpu:2": "c-bbbb"}
    added = put(store, A, returned("c-bbbb"), now_ms=4000)
    assert (added[0].sequence, added[0].position) == (7, 9)
    head = store.archived(A)
    assert head is not None
    for stored in store.read(A):
        head = check_link(stored, head)
    assert head == store.head(A)


@pytest.mark.damaged
def test_a_stream_sealed_to_its_end_keeps_its_head(store: Store, tmp_path: Path) -> None:
    """With no event left the head, the order of positions and the epoch are still known."""
    put(store, A, registered(), held("c-aaaa", [1]))
    head = store.head(A)
    assert store.seal(snapshot_at(store, A, 2), tmp_path / "a.archive") == 2
    assert (store.head(A), store.heads(), store.last_position(), list(store.follow(0))) == (head, {A: head}, 2, [])
    added = put(store, A, held("c-bbbb", [2]))
    assert (added[0].sequence, added[0].position) == (3, 3)


@pytest.mark.damaged
def test_sealing_goes_on_from_the_last_seal(store: Store, tmp_path: Path) -> None:
    """A second archive follows the first; the same snapshot again moves nothing; what stands on nothing is refused."""
    put(store, A, registered(), *[held(f"c-{number:04}", [number]) for number in range(9)])
    with store.transaction() as tx:
        for sequence in (2, 3, 8):
            tx.put_snapshot(snapshot_at(tx, A, sequence))
    first, second = snapshot_at(store, A, 3), snapshot_at(store, A, 7)
    assert store.seal(first, tmp_path / "1") == 3
    assert store.snapshot(A, at_most_sequence=2) is None
    assert store.seal(first, tmp_path / "again") == 0
    with pytest.raises(InvalidRequest, match="exists"):
        store.seal(second, tmp_path / "1")
    for wrong in (second._replace(hash="0" * 64), second._replace(sequence=99), first._replace(sequence=2), second._replace(stream=B)):
        with pytest.raises(InvalidRequest):
            store.seal(wrong, tmp_path / "wrong")
    assert store.seal(second, tmp_path / "2") == 4
    assert archive_of(tmp_path / "2").base == Head(sequence=3, hash=first.hash)
    assert sorted(each.name for each in tmp_path.iterdir() if each.is_file()) == ["1", "2"]
    assert [found.sequence for at in (3, 7, 8) if (found := store.snapshot(A, at_most_sequence=at))] == [7, 8]


@pytest.mark.damaged
def test_a_seal_that_lost_a_race_leaves_no_archive(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If another process seals the stream between the copy and the deletion, nothing more is deleted and the new file goes."""
    put(store, A, registered(), *[held(f"c-{number:04}", [number]) for number in range(9)])

    def overtaken(*arguments: Any) -> archive.Written:
        monkeypatch.undo()
        written = archive.write_archive(*arguments)
        store.seal(snapshot_at(store, A, 3), tmp_path / "winner")
        return written

    monkeypatch.setattr(archive, "write_archive", overtaken)
    with pytest.raises(SequenceConflict):
        store.seal(snapshot_at(store, A, 5), tmp_path / "loser")
    assert [each.sequence for each in store.read(A)] == list(range(4, 11))
    assert [(tmp_path / name).exists() for name in ("winner", "loser")] == [True, False]


@pytest.mark.damaged
def test_a_sealed_ledger_is_exported_with_its_archives(make: Make, tmp_path: Path) -> None:
    """With all archive files an export equals that of the whole ledger; a missing or foreign one is named."""
    store, whole, copy = make("one"), MemoryStore(), make("two")
    fill(store)
    import_lines(export_lines(store), whole)
    store.seal(snapshot_at(store, A, 2), tmp_path / "1")
    store.seal(snapshot_at(store, A, 5), tmp_path / "2")
    lines = list(export_lines(store, archives=[tmp_path / "2", tmp_path / "1"]))
    assert lines[1:] == list(export_lines(whole))[1:]
    import_lines(lines, copy)
    assert resumed(copy) == resumed(whole)
    for given in ([], [tmp_path / "1"], [tmp_path / "2"]):
        with pytest.raises(InvalidRequest, match=f"{A} is sealed at 5"):
            list(export_lines(store, archives=given))
    with pytest.raises(InvalidRequest, match="no archive of this ledger"):
        list(export_lines(whole, archives=[tmp_path / "1"]))


@pytest.mark.parametrize("hurt", ["cut", "header", "event", "end", "more", "text"])
def test_a_hurt_archive_is_refused(tmp_path: Path, hurt: str) -> None:
    """An archive that was cut short, changed or mixed up is not read as if it were whole."""
    store = MemoryStore()
    fill(store)
    path = tmp_path / "archive"
    store.seal(snapshot_at(store, A, 4), path)
    lines = path.read_bytes().splitlines(keepends=True)
    changed = {
        "cut": lines[:-1],
        "header": lines[1:],
        "event": [*lines[:2], lines[2].replace(b"alice", b"mallo"), *lines[3:]],
        "end": [*lines[:-1], lines[-1].replace(b'"events":4', b'"events":3')],
        "more": [*lines, lines[1]],
        "text": [b"hello\n"],
    }
    path.write_bytes(b"".join(changed[hurt]))
    with pytest.raises((InvalidRecord, ChainBroken)):
        list(archived_events(path))
    with pytest.raises(LedgerUnavailable):
        archive_of(tmp_path / "none")


def test_streams_are_named(store: Store) -> None:
    """Streams of every kind live side by side."""
    streams = [StreamId(f"{kind}:x") for kind in ("consumer", "group", "owner")]
    for stream in streams:
        put(store, stream, known("x") if stream.startswith("consumer:") else registered())
    assert list(store.heads()) == streams
