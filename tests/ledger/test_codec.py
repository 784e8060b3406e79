"""Events as bytes: back again whatever they hold, chained so that nothing can be changed, strict towards what is not theirs."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.ledger.steps import STREAM, Life
from tests.ledger.values import values_of

from earmark.core.ledger import events as e
from earmark.core.ledger.codec import Batch, Head, Stamp, Stored, check_link, open_envelope, open_event, seal
from earmark.core.ledger.state import StateImage
from earmark.core.model.ids import StreamId
from earmark.errors import ChainBroken, InvalidRecord, LedgerBroken, SequenceConflict, StaleEpoch

STAMP = Stamp(actor="ann", command="c1", now_ms=1000)
NO_SECRET = {"token"}
"""A move's token ties its halves in two ledgers: whoever knows it learns what is moved and may do nothing; the redactor hides it as a whole."""
SECRET_WORDS = ("command_line", "cmdline", "argv", "args", "environ", "env", "xml", "password", "secret", "token")


@pytest.mark.parametrize("kind", e.EVENTS, ids=lambda kind: kind.type)
@settings(max_examples=25)
@given(draw=st.data())
@pytest.mark.long
def test_every_event_comes_back(kind: type[e.Event], draw: st.DataObject) -> None:
    """Whatever an event holds, its stored bytes give it back with its type and version, and the chain holds."""
    event = draw.draw(values_of(kind))
    sealed, head = seal(Batch(STREAM, 0, (event,)), Head(), STAMP)
    sequence, raw, digest = sealed[0]
    envelope = open_envelope(raw)
    assert (open_event(envelope), envelope.type, envelope.version) == (event, kind.type, kind.version)
    assert check_link(Stored(1, STREAM, sequence, raw, digest), Head()) == head


@settings(max_examples=20)
@given(values_of(StateImage))
def test_every_image_comes_back(image: StateImage) -> None:
    """A snapshot's image is JSON that gives back exactly the image."""
    assert msgspec.json.decode(msgspec.json.encode(image), type=StateImage) == image


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_any_changed_byte_breaks_the_chain(place: int, flip: int) -> None:
    """One byte of one event changed, wherever and however: verifying says so."""
    stored = Life().live(range(12)).stored
    number = place % len(stored)
    raw = bytearray(stored[number].raw)
    raw[place % len(raw)] ^= flip
    changed = [*stored[:number], stored[number]._replace(raw=bytes(raw)), *stored[number + 1 :]]
    with pytest.raises((ChainBroken, InvalidRecord)):
        _walk(changed)


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_rehashed_change_breaks_the_next_link(place: int, flip: int) -> None:
    """Who changes an event and its hash too is found at the event after it."""
    stored = Life().live(range(12)).stored
    number = place % (len(stored) - 1)
    raw = stored[number].raw.replace(b'"actor":"tester"', b'"actor":"t%02xter"' % flip)
    forged, _ = _rehashed(stored[number], raw)
    with pytest.raises(ChainBroken, match=rf"event {stored[number + 1].sequence} "):
        _walk([*stored[:number], forged, *stored[number + 1 :]])


def test_lost_and_moved_events_break_the_chain() -> None:
    """An event left out, doubled, or put in another order is found."""
    stored = Life().live(range(40)).stored
    assert len(stored) > 5
    _walk(stored)
    for wrong in (stored[1:], [*stored[:3], *stored[4:]], [stored[0], *stored], [stored[1], stored[0], *stored[2:]]):
        with pytest.raises(ChainBroken):
            _walk(wrong)


def test_an_event_of_another_stream_is_not_taken() -> None:
    """Bytes that belong to another stream or sequence do not fit where they are put."""
    first = Life().live(range(12)).stored[0]
    with pytest.raises(ChainBroken, match="another place"):
        check_link(first._replace(stream=StreamId(first.stream[:-1])), Head())


def test_a_writer_of_the_past_is_refused() -> None:
    """An append decided at another sequence, or under a lower epoch than the stream's, is refused and seals nothing."""
    event = e.NodeRehomed(reason="x")
    with pytest.raises(SequenceConflict) as conflict:
        seal(Batch(STREAM, 4, (event,)), Head(sequence=5), STAMP)
    assert conflict.value.facts == {"stream": STREAM, "expected": 4, "found": 5}
    with pytest.raises(StaleEpoch):
        seal(Batch(STREAM, 5, (event,)), Head(sequence=5, epoch=2), STAMP)


def test_nothing_sealed_moves_nothing() -> None:
    """A batch without events leaves the head where it was, its time too."""
    head = Head(sequence=5, epoch=1, at_ms=7, hash="ab")
    assert seal(Batch(STREAM, 5, ()), head, STAMP) == ([], head)


def test_a_clock_that_goes_back_is_not_believed() -> None:
    """An event is stamped with its predecessor's time if the clock says less."""
    sealed, head = seal(Batch(STREAM, 1, (e.NodeRehomed(),)), Head(sequence=1, epoch=1, at_ms=5000), STAMP)
    assert (open_envelope(sealed[0][1]).at_ms, head.at_ms) == (5000, 5000)


@pytest.mark.parametrize("kind", e.EVENTS, ids=lambda kind: kind.type)
def test_a_key_that_is_not_known_is_refused(kind: type[e.Event]) -> None:
    """An event with a field that its version has not is no event of that version."""
    raw = msgspec.json.encode({"stream": STREAM, "sequence": 1, "at_ms": 1, "type": kind.type, "version": kind.version, "actor": "a",
                               "command": "c", "epoch": 1, "previous": "", "data": {"surprise": 1}})  # fmt: skip
    with pytest.raises(InvalidRecord, match=kind.type):
        open_event(open_envelope(raw))


@pytest.mark.parametrize(
    "raw", [b"", b"{}", b"[]", b"nonsense", b'{"stream":1}', b"\xff\xfe", b'"' * 40, b"[" * 200_000, b'{"a":' * 100_000]
)
def test_what_is_no_envelope_is_refused(raw: bytes) -> None:
    """Bytes that are no envelope raise InvalidRecord, however they are broken or nested."""
    with pytest.raises(InvalidRecord):
        open_envelope(raw)


@pytest.mark.parametrize("data", [b"[" * 100_000 + b"]" * 100_000, b'{"a":' * 100_000 + b"1" + b"}" * 100_000], ids=["lists", "objects"])
def test_deep_nesting_is_refused(data: bytes) -> None:
    """An event nested a hundred thousand deep is an invalid record, not a crash."""
    raw = (
        b'{"stream":"node:x","sequence":1,"at_ms":1,"type":"node.rehomed","version":1,"actor":"a","command":"c","epoch":1,"previous":"","data":'
        + data
        + b"}"
    )
    with pytest.raises(InvalidRecord):
        open_event(open_envelope(raw))


def test_no_event_has_room_for_a_command_line_or_secret() -> None:
    """No field of any event, however deep, is named like a command line, an environment, XML or a secret."""
    schemas, components = msgspec.json.schema_components(e.EVENTS)
    assert len(schemas) == len(e.EVENTS)
    assert {key for key in _keys(json.loads(json.dumps(components))) if key in SECRET_WORDS} == NO_SECRET
    assert [kind.type for kind in e.EVENTS if "token" in kind.__struct_fields__] == ["move.opened"]


def test_wire_names_are_unique_and_past() -> None:
    """Each (type, version) names one event, as `room.happened`."""
    assert len(e.KNOWN) == len(e.EVENTS)
    assert all(kind.type.count(".") == 1 and kind.type.endswith(("ed", "ld", "nd", "ing")) for kind in e.EVENTS)


def _keys(node: Any) -> list[str]:
    if isinstance(node, dict):
        return [*map(str, node.get("properties", ())), *(key for value in node.values() for key in _keys(value))]
    return [key for each in node for key in _keys(each)] if isinstance(node, list) else []


def _walk(stored: list[Stored]) -> Head:
    head = Head()
    for each in stored:
        head = check_link(each, head)
    return head


def _rehashed(stored: Stored, raw: bytes) -> tuple[Stored, str]:
    digest = hashlib.sha256(raw).hexdigest()
    assert digest != stored.hash
    return stored._replace(raw=raw, hash=digest), digest


def test_a_broken_chain_is_our_fault() -> None:
    """A chain that does not hold is a broken ledger (exit 6), not a request that makes no sense."""
    assert issubclass(ChainBroken, LedgerBroken)
