"""Races about moves, by threads, by several openings of one ledger and by processes: exactly one wins, the others are answered, nothing is lost."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest
from tests.proof.test_move_crashes import opened
from tests.proof.test_races import go, racer, ready
from tests.proof.worlds import callers, granted

from earmark.core.ledger.life_commands import LifeAnswer
from earmark.core.model.instance import Move
from earmark.core.model.refusal import Refusal
from earmark.core.model.request import Request
from earmark.core.model.units import GIB, MIB
from earmark.errors import Conflict
from earmark.stores.sqlite.store import SqliteStore
from earmark.testing import Bench, assert_sound

pytestmark = pytest.mark.long

SMALL = Request(vcpus=2, cpu_policy="dedicated", memory_bytes=GIB)
HALF = Request(vcpus=4, cpu_policy="dedicated", memory_bytes=GIB)
ROUNDS = 12


@pytest.fixture(params=["one opening", "two openings"])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Bench, Bench]]:
    """Return two trackers on one file: the same one twice, or two as two programs have them."""
    with ExitStack() as stack:
        one = opened(stack.enter_context(SqliteStore(tmp_path / "l" / "ledger.db")))
        two = one if request.param == "one opening" else opened(stack.enter_context(SqliteStore(tmp_path / "l" / "ledger.db")))
        yield one, two
        assert_sound(one.tracker)


def at_once(*says: Callable[[], object]) -> list[object]:
    """Say things at the same moment and return what came of each; a conflict is an answer here."""
    line = threading.Barrier(len(says))

    def started(say: Callable[[], object]) -> object:
        line.wait(30)
        try:
            return say()
        except Conflict as error:
            return error

    return [each.end() for each in callers([lambda say=say: started(say) for say in says])]  # type: ignore[misc]  # a default binds the turn's own value


def move_of(answer: object) -> Move:
    """Return the move of an answer that must be a yes."""
    assert isinstance(answer, LifeAnswer), answer
    assert answer.move is not None
    return answer.move


def cpus(world: Bench, *consumers: str) -> list[str]:
    """Return every CPU that some consumers hold, by node, as often as it is held."""
    return [f"{claim.node} {cpu}" for each in consumers for claim in world.tracker.claims_of(each) for cpu in claim.grant.cpus]


@pytest.mark.rule("S44", "W5")
def test_two_openings_of_a_move_for_one_consumer(pair: tuple[Bench, Bench]) -> None:
    """One is opened; the other is told of it, and holds nothing."""
    one, two = pair
    for number in range(ROUNDS):
        who = f"vm{number}"
        granted(one.tracker.hold(SMALL, consumer=who, confirm=True))
        found = at_once(partial(one.tracker.open_move, who, "migration", to="B"), partial(two.tracker.open_move, who, "resize"))
        assert sorted(type(each).__name__ for each in found) == ["Conflict", "LifeAnswer"]
        assert len(one.tracker.claims_of(who)) == 2
        assert len(one.tracker.moves()) == 1
        one.tracker.delete(who)


@pytest.mark.rule("W5", "M15", "M16")
def test_confirm_against_revert(pair: tuple[Bench, Bench]) -> None:
    """One of them ends the move; the other is answered with what became of it; the consumer has one main claim where that says."""
    one, two = pair
    for number in range(ROUNDS):
        who = f"vm{number}"
        granted(one.tracker.hold(SMALL, consumer=who, confirm=True))
        move = move_of(one.tracker.open_move(who, "migration", to="B"))
        found = at_once(partial(one.tracker.confirm_move, move.id), partial(two.tracker.revert_move, move.id))
        answers = [each for each in found if isinstance(each, LifeAnswer)]
        assert len(answers) == 2
        assert sorted(answer.changed for answer in answers) == [False, True]
        assert len({answer.outcome for answer in answers}) == 1
        claims = one.tracker.claims_of(who)
        there = answers[0].outcome == "confirmed"
        assert [(claim.purpose, claim.node == move.destination) for claim in claims] == [("main", there)]
        one.tracker.delete(who)


@pytest.mark.rule("M31")
def test_delete_against_confirm(pair: tuple[Bench, Bench]) -> None:
    """Whichever comes first, at the end nothing is held on either node."""
    one, two = pair
    for number in range(ROUNDS):
        who = f"vm{number}"
        granted(one.tracker.hold(SMALL, consumer=who, confirm=True))
        move = move_of(one.tracker.open_move(who, "migration", to="B"))
        found = at_once(partial(one.tracker.delete, who), partial(two.tracker.confirm_move, move.id))
        assert all(isinstance(each, LifeAnswer) for each in found), found
        assert one.tracker.claims_of(who) == ()
        assert two.tracker.move_status(two.tracker.find_move(move.id)) in ("deleted", "confirmed")


@pytest.mark.rule("S44")
def test_two_moves_want_the_last_cpus(pair: tuple[Bench, Bench]) -> None:
    """Two consumers are to move to where only one has room: one is, the other is refused and stays as it was."""
    one, two = pair
    granted(one.tracker.hold(HALF, consumer="there", node="B", confirm=True))
    for _ in range(ROUNDS):
        before = [granted(one.tracker.hold(HALF, consumer=who, confirm=True)) for who in ("a", "b")]
        found = at_once(lambda: one.tracker.open_move("a", "migration", to="B"), lambda: two.tracker.open_move("b", "migration", to="B"))
        assert sorted(type(each).__name__ for each in found) == ["LifeAnswer", "Refusal"]
        held = cpus(one, "a", "b", "there")
        assert len(held) == len(set(held)) == 16
        loser = "ab"[[isinstance(each, Refusal) for each in found].index(True)]
        assert one.tracker.claims_of(loser) == tuple(claim for claim in before if claim.consumer == loser)
        for who in ("a", "b"):
            one.tracker.delete(who)
            one.tracker.create(who)


@pytest.mark.rule("S44")
def test_a_hold_against_a_destination_leg(pair: tuple[Bench, Bench]) -> None:
    """A new claim and a destination leg want the same last CPUs: exactly one of them has them."""
    one, two = pair
    granted(one.tracker.hold(HALF, consumer="there", node="B", confirm=True))
    for _ in range(ROUNDS):
        granted(one.tracker.hold(HALF, consumer="a", confirm=True))
        found = at_once(
            lambda: one.tracker.open_move("a", "migration", to="B"), lambda: two.tracker.hold(HALF, consumer="new", node="B", confirm=True)
        )
        assert [isinstance(each, Refusal) for each in found].count(True) == 1
        held = cpus(one, "a", "new", "there")
        assert len(held) == len(set(held)) == 12
        for who in ("a", "new"):
            one.tracker.delete(who)
            one.tracker.create(who)


@pytest.mark.parametrize(
    ("modes", "expected"),
    [
        (("open", "open"), [["conflict", "opened True"]]),
        (("confirm_move", "revert_move"), [["confirmed False", "confirmed True"], ["reverted False", "reverted True"]]),
        (("delete", "confirm_move"), [["confirmed True", "deleted True"], ["deleted False", "deleted True"]]),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "",
)
def test_processes_race_about_one_move(tmp_path: Path, modes: tuple[str, str], expected: list[list[str]]) -> None:
    """Two programs say it at the same time: one wins and the other hears what is true."""
    ledger = tmp_path / "l" / "ledger.db"
    with SqliteStore(ledger) as store:
        world = opened(store)
        granted(world.tracker.hold(Request(vcpus=1, cpu_policy="dedicated", memory_bytes=MIB), consumer="vm", confirm=True))
        if modes != ("open", "open"):
            move_of(world.tracker.open_move("vm", "resize"))
        with racer(ledger, modes[0]) as one, racer(ledger, modes[1]) as two:
            for child in (one, two):
                ready(child)
            for child in (one, two):
                go(child)
            said = sorted(child.stdout.readline().strip() for child in (one, two) if child.stdout is not None)
        assert said in expected
        assert len(world.tracker.claims_of("vm")) == {"open": 2, "confirm_move": 1, "delete": 0}[modes[0]]
        assert_sound(world.tracker)
