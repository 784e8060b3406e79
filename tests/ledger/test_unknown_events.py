"""A ledger of a newer Earmark: it opens, it is read, and not written."""

from __future__ import annotations

import hashlib

import msgspec
import pytest
from tests.ledger.steps import STREAM, Life, step_of

from earmark.core.ledger import commands as c
from earmark.core.ledger import events as e
from earmark.core.ledger.codec import Head, Stored, check_link, open_envelope, open_event
from earmark.core.ledger.decide import RULES, decide
from earmark.core.ledger.decision import Facts
from earmark.core.ledger.fold import fold
from earmark.core.ledger.state import NodeState, decode_image, encode_image
from earmark.core.model.ids import ClaimId, UnitId
from earmark.errors import LedgerBroken, LedgerNewer
from earmark.testing import NODE_ONE


def appended(life: Life, kind: str, version: int, content: object) -> Stored:
    """Append an event that another version of the program wrote."""
    envelope = open_envelope(life.stored[-1].raw)
    sequence = life.head.sequence + 1
    fields = {field: getattr(envelope, field) for field in ("stream", "at_ms", "actor", "command", "epoch")}
    raw = msgspec.json.encode(
        {**fields, "sequence": sequence, "type": kind, "version": version, "previous": life.head.hash, "data": content}
    )
    stored = Stored(sequence, STREAM, sequence, raw, hashlib.sha256(raw).hexdigest())
    life.head = check_link(stored, life.head)
    life.stored.append(stored)
    life.state = fold(life.state, [stored])
    return stored


def newer() -> tuple[Life, NodeState]:
    """Return a life whose stream has an event that this program does not know, and its state."""
    life = Life().live(range(50))
    appended(life, "claim.split", 1, {"claim": "c-1", "parts": [1, 2]})
    assert life.state is not None
    return life, life.state


def test_an_unknown_event_is_read() -> None:
    """The stream folds to its end, keeps everything that was known, and says which event it is."""
    life, state = newer()
    before = fold(None, life.stored[:-1])
    assert before is not None
    assert (state.unknown, state.claims, state.sequence) == ("claim.split v1", before.claims, before.sequence + 1)
    assert isinstance(open_event(open_envelope(life.stored[-1].raw)), e.UnknownEvent)


def test_a_newer_version_of_a_known_event_is_unknown() -> None:
    """A known type with a higher version is not guessed at."""
    life = Life().live(range(50))
    appended(life, "claim.ended", 99, {"claim": "c-1", "cause": "released"})
    assert life.state is not None
    assert life.state.unknown == "claim.ended v99"


@pytest.mark.parametrize("command", RULES, ids=lambda kind: kind.__name__)
def test_every_command_is_refused_behind_an_unknown_event(command: type[c.Command]) -> None:
    """Nothing is written to a stream that is not understood."""
    _, state = newer()
    with pytest.raises(LedgerNewer, match=r"claim\.split v1"):
        decide(state, _some(command), Facts(now_ms=state.at_ms))


def _some(kind: type[c.Command]) -> c.Command:
    life = Life().live([1, 2])
    for seed in range(20_000):
        command = step_of(seed, life.state, (), 5, life.now_ms).command
        if type(command) is kind:
            return command
    return c.ReturnUnits(node=NODE_ONE, claim=ClaimId("c-1"), unit=None, reason="x")


def test_what_follows_an_unknown_event_is_still_read() -> None:
    """Later known events that contradict the state (because the unknown one made them possible) are passed over, not fatal."""
    life, state = newer()
    for event in (
        e.ClaimEnded(claim=ClaimId("c-split"), cause="released"),
        e.Uncordoned(unit=UnitId("cpu:42")),
        e.NodeRegistered(node=NODE_ONE, name="n1"),
    ):
        appended(life, event.type, event.version, event)
    assert life.state is not None
    assert (life.state.claims, life.state.sequence, life.state.unknown) == (state.claims, state.sequence + 3, state.unknown)


def test_an_unknown_state_survives_its_image() -> None:
    """A snapshot of such a state keeps saying so."""
    _, state = newer()
    assert decode_image(encode_image(state)) == state


def test_without_an_unknown_event_nothing_is_passed_over() -> None:
    """The same contradictions in a stream that is understood are a broken ledger."""
    life = Life().live(range(50))
    with pytest.raises(LedgerBroken):
        appended(life, "claim.ended", 1, {"claim": "c-split", "cause": "released"})
    assert life.head != Head()
