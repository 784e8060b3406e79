"""Thousands of spoiled records: every one gets a verdict, and nobody else's books change."""

from __future__ import annotations

import random

import msgspec
import pytest

from earmark.core.ledger.commands import Answer
from earmark.core.model.refusal import Refusal
from earmark.core.model.request import Request
from earmark.core.model.units import GIB
from earmark.testing import UNRESERVED, bench, machine

HOST = "2x8c 32G disk:200G"
S = Request(vcpus=2, memory_bytes=2 * GIB, disk_bytes=20 * GIB)
INPUTS = 6000
BATCH = 50
WORDS: tuple[object, ...] = (
    "i", "j", "k", "ann", "eve", "B", "n1", "m-0000", "", " ", "x" * 129, "\x1b[2J", "\u202e", "\x00", "é", "c-0000", "deleted", "active", "confirmed",
    "failed", "shelved_offloaded", None, True, False, 0, 1, 2, 3, -1, 1 << 53, 1 << 64, 1.5, [], {}, ["i"], {"consumer": "i"},
)  # fmt: skip


def spoiled(draw: random.Random, records: list[dict[str, object]]) -> object:
    """Return one of the records with something changed, added, removed, cut or flipped."""
    record = dict(draw.choice(records))
    for _ in range(draw.randint(1, 3)):
        key = draw.choice([*record, "consumer", "owner", "generation", "node", "state", "status", "record", "guest", "what"])
        if draw.random() < 0.2:
            record.pop(key, None)
        else:
            record[key] = draw.choice(WORDS)
    if draw.random() < 0.3:
        return record
    raw = bytearray(msgspec.json.encode({key: value for key, value in record.items() if value != 1 << 64}))
    if draw.random() < 0.5:
        for _ in range(draw.randint(1, 4)):
            raw[draw.randrange(len(raw))] = draw.randrange(256)
    return bytes(raw[: draw.randint(0, len(raw))]) if draw.random() < 0.2 else bytes(raw)


@pytest.mark.long
@pytest.mark.rule("W11", "W14", "L13", "M13", "M14")
def test_spoiled_records_get_verdicts_and_nothing_else() -> None:
    """No unhandled error comes of any, and k, whom none of them can name rightly, keeps exactly what it has."""
    draw = random.Random(20)  # noqa: S311 - a reproducible test
    with bench(HOST) as world:
        world.tracker.register("B", machine=machine(HOST), settings=UNRESERVED)
        for consumer, owner in (("i", "ann"), ("j", "ann"), ("k", "kim")):
            assert isinstance(world.tracker.hold(S, consumer=consumer, owner=owner, confirm=True), Answer)
            world.tracker.report(consumer, "active")
        opened = world.tracker.open_move("j", "migration", to="B")
        assert not isinstance(opened, Refusal)
        assert opened.move is not None
        others = (world.tracker.claims_of("k"), world.tracker.instance("k"))
        records: list[dict[str, object]] = [
            {"record": "instance", "consumer": "i", "owner": "ann", "state": "active", "node": "n1", "generation": 2},
            {"record": "move", "consumer": "j", "owner": "ann", "move": opened.move.id, "status": "running", "destination": "B"},
            {"record": "guest", "node": "B", "guest": {"consumer": "g", "vcpus": 1}},
        ]
        for number in range(INPUTS // BATCH):
            batch = [spoiled(draw, records) for _ in range(BATCH)]
            received = world.tracker.receive(batch, apply=number % 2 == 0)
            kinds = (received.accepted, received.stale, received.contradictory, received.unknown, received.invalid)
            assert sorted(verdict.place for kind in kinds for verdict in kind) == list(range(1, BATCH + 1))
            assert all(verdict.about.isprintable() and verdict.reason.isprintable() for kind in kinds for verdict in kind)
        assert (world.tracker.claims_of("k"), world.tracker.instance("k")) == others
