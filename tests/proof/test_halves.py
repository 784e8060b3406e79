"""Moves between two ledgers: a token that is changed anywhere is no token, time ends only the destination, and the halves end in any order."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import ExitStack
from random import Random
from typing import NamedTuple

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.ledger.values import values_of
from tests.proof.worlds import granted

from earmark.core.ledger.life_commands import LifeAnswer
from earmark.core.model.instance import Move
from earmark.core.model.refusal import Refusal
from earmark.core.model.request import DeviceRequest, Request
from earmark.core.model.token import PREFIX, Half, from_token, to_token
from earmark.core.model.units import GIB
from earmark.errors import Conflict, Invalid, InvalidRecord, InvalidRequest
from earmark.testing import Bench, bench

SHAPE = "8c 32G vf:4"
SMALL = Request(vcpus=2, memory_bytes=2 * GIB)
CARD = Request(devices=(DeviceRequest(kind="vf"),))
HOUR_MS = 3_600_000
CHANGES = 3000


class Two(NamedTuple):
    """Two hosts, each with its own ledger, and the token of a move from left to right."""

    left: Bench
    right: Bench
    out: Move
    token: str

    def held(self) -> tuple[int, int]:
        """Return the vCPUs that are held on both."""
        left, right = (sum(claim.request.vcpus for claim in world.tracker.claims_of("vm")) for world in (self.left, self.right))
        return left, right


@pytest.fixture
def two() -> Iterator[Two]:
    """Return two hosts and a consumer that is leaving the left one, with a device attached to it."""
    with ExitStack() as stack:
        left, right = stack.enter_context(bench(SHAPE)), stack.enter_context(bench(SHAPE))
        granted(left.tracker.hold(SMALL, consumer="vm", confirm=True))
        granted(left.tracker.hold(CARD, consumer="vm", purpose="attach", confirm=True))
        out = move_of(left.tracker.move_out("vm", "migration"))
        assert out.token is not None
        yield Two(left, right, out, out.token)


def move_of(answer: LifeAnswer | Refusal) -> Move:
    """Return the move of an answer that must be a yes."""
    assert isinstance(answer, LifeAnswer), answer
    assert answer.move is not None
    return answer.move


def changed(token: str, rnd: Random) -> str:
    """Return a token with something in it changed: letters, places, a piece too much or too little."""
    at = rnd.randrange(len(token))
    letter = rnd.choice("ABCxyz019-_.=é\x00 \n😀")
    kind = rnd.randrange(6)
    if kind == 0:
        return token[:at] + letter + token[at + 1 :]
    if kind == 1:
        return token[:at] + token[at + 1 :]
    if kind == 2:
        return token[:at] + letter + token[at:]
    if kind == 3:
        return token[:at]
    if kind == 4:
        other = rnd.randrange(len(token))
        one, two = min(at, other), max(at, other)
        return token[:one] + token[two:] + token[one:two]
    return token + token[: rnd.randint(1, 40)]


@pytest.mark.rule("M12", "M13", "W14")
def test_a_token_that_was_changed_is_none(two: Two) -> None:
    """Thousands of changes to a token: each is refused as a record that is none, and nothing is written; what is only blank around it is let be."""
    rnd = Random(1)  # noqa: S311 - test cases, not secrets
    before = two.right.store.last_position()
    tried = 0
    while tried < CHANGES:
        text = changed(two.token, rnd)
        if text.strip() == two.token:
            continue
        tried += 1
        with pytest.raises(InvalidRecord):
            two.right.tracker.move_in(text)
    assert two.right.store.last_position() == before
    assert move_of(two.right.tracker.move_in(f"  {two.token}\n")).token == two.token


@settings(max_examples=150)
@given(values_of(Half))
@pytest.mark.long
def test_any_half_is_answered(half: Half) -> None:
    """A token with a right checksum may say anything: it is held, refused with reasons, or an Invalid…; the ledger is sound after it."""
    text = to_token(half)
    with bench(SHAPE) as world:
        try:
            answer = world.tracker.move_in(text)
        except (Invalid, Conflict):
            assert world.tracker.node().claims == type(world.tracker.node().claims)()
            return
        assert isinstance(answer, LifeAnswer | Refusal)


@settings(max_examples=150)
@given(st.binary(max_size=200))
def test_any_bytes_in_a_token_are_answered(raw: bytes) -> None:
    """What is no half at all inside a token with a right checksum is a record that is none."""
    from earmark.core.model.token import _check

    body = base64.urlsafe_b64encode(raw).decode().rstrip("=")
    with pytest.raises(InvalidRecord):
        from_token(f"{PREFIX}{body}.{_check(body)}")


def test_a_deep_token_is_none() -> None:
    """Nesting without end is refused like anything else that is no half."""
    from earmark.core.model.token import _check

    body = base64.urlsafe_b64encode(b"[" * 30_000).decode().rstrip("=")
    with pytest.raises(InvalidRecord):
        from_token(f"{PREFIX}{body}.{_check(body)}")


def test_a_token_comes_back(two: Two) -> None:
    """What a token says is what was put into it: the claims, what they want, and whose they are."""
    half = from_token(two.token)
    assert (half.consumer, half.kind, half.requests) == ("vm", "migration", (SMALL, CARD))
    assert to_token(half) == two.token
    assert msgspec.json.decode(msgspec.json.encode(half), type=Half) == half


@pytest.mark.rule("L16", "M15")
@pytest.mark.parametrize("first", ["left", "right"])
def test_the_halves_are_confirmed_in_any_order(two: Two, first: str) -> None:
    """Source first or destination first: the left ledger frees all, the right one has the main claim and the attached one as its own."""
    came = move_of(two.right.tracker.move_in(two.token, ttl_ms=HOUR_MS))
    assert came.id == two.out.id
    assert two.held() == (2, 2)
    worlds = {"left": two.left, "right": two.right}
    order = [first, "right" if first == "left" else "left"]
    for name in (*order, *order):
        assert worlds[name].tracker.confirm_move(two.out.id).outcome == "confirmed"
    assert two.held() == (0, 2)
    assert sorted(claim.purpose for claim in two.right.tracker.claims_of("vm")) == ["attach", "main"]
    assert {claim.move for claim in two.right.tracker.claims_of("vm")} == {None}
    for world in (two.left, two.right):
        assert world.tracker.move_status(world.tracker.find_move(two.out.id)) == "confirmed"
        assert world.tracker.revert_move(two.out.id).outcome == "confirmed"


@pytest.mark.rule("M16", "M17")
@pytest.mark.parametrize("how", ["revert", "abort", "delete"])
def test_the_halves_are_given_up(two: Two, how: str) -> None:
    """Given up on both sides in any order: the left ledger has the consumer as before, the right one nothing."""
    two.right.tracker.move_in(two.token)
    for world in (two.right, two.left, two.right, two.left):
        if how == "delete" and world is two.right:
            world.tracker.delete("vm")
        else:
            (world.tracker.abort_move if how == "abort" else world.tracker.revert_move)(two.out.id)
    assert two.held() == (2, 0)
    assert sorted(claim.purpose for claim in two.left.tracker.claims_of("vm")) == ["attach", "main"]
    assert two.left.tracker.move_status(two.left.tracker.find_move(two.out.id)) == ("aborted" if how == "abort" else "reverted")


@pytest.mark.rule("L6")
@pytest.mark.parametrize(("fate", "ended"), [("alive", False), ("dead", True), ("unknown", True)])
def test_time_ends_the_destination_alone(two: Two, fate: str, *, ended: bool) -> None:
    """The destination leg expires unless its guest is seen alive; the source leg never does, however long it takes."""
    holder = two.right.tracker.holder(77)
    two.right.tracker.move_in(two.token, ttl_ms=HOUR_MS, holders=[holder])
    two.right.processes.fates[77] = fate  # type: ignore[assignment]  # from the table
    for world in (two.left, two.right):
        world.clock.move(100 * HOUR_MS)
        world.tracker.sweep()
    assert two.held()[0] == 2
    assert two.left.tracker.move_status(two.left.tracker.find_move(two.out.id)) == "preparing"
    move = two.right.tracker.find_move(two.out.id)
    assert (move.outcome is not None) == ended
    assert [claim.phase for claim in two.right.tracker.claims_of("vm")] == {"alive": ["held"] * 2, "dead": [], "unknown": ["draining"] * 2}[
        fate
    ]


def test_a_token_is_taken_once(two: Two) -> None:
    """The same token again is answered with the move that is there; after its end too, and nothing is held anew."""
    first = move_of(two.right.tracker.move_in(two.token))
    again = two.right.tracker.move_in(two.token)
    assert isinstance(again, LifeAnswer)
    assert (again.changed, again.move) == (False, first)
    two.right.tracker.revert_move(first.id)
    late = two.right.tracker.move_in(two.token)
    assert isinstance(late, LifeAnswer)
    assert (late.changed, late.outcome) == (False, "reverted")
    assert two.held() == (2, 0)


def test_a_token_does_not_come_home(two: Two) -> None:
    """Where the move began there is another way to move within."""
    with pytest.raises(InvalidRequest):
        two.left.tracker.move_in(two.token)
    assert two.held() == (2, 0)


def test_a_token_cannot_take_the_place_of_another_move(two: Two) -> None:
    """A half that names a move of another consumer of this ledger is a conflict and changes nothing."""
    granted(two.right.tracker.hold(SMALL, consumer="other", confirm=True))
    there = move_of(two.right.tracker.open_move("other", "resize"))
    forged = to_token(replace(from_token(two.token), move=there.id))
    before = two.right.store.last_position()
    with pytest.raises(Conflict):
        two.right.tracker.move_in(forged)
    assert two.right.store.last_position() == before
