"""What the runner notices: a figure that is wrong, an answer that is another one, a law that is broken."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from msgspec.structs import replace

from earmark.cli.node_settings import changed
from earmark.core.ledger.figures import figures
from earmark.core.model.ids import ClaimId
from earmark.scenario import book, laws
from earmark.scenario.acts import act
from earmark.scenario.language import parse
from earmark.scenario.runner import Run, one_run, runs
from earmark.scenario.world import World, memory_ledger

HEAD = (
    "scenario T: a test\nnode A 2x8c 32G disk:200G vf:4\nnode B 2x8c 32G disk:200G\nflavor s 2/2048/20\nflavor p 2/2048/20 dedicated vf=1\n"
)
FIGURE = re.compile(r"([0-9]+)/([0-9]+)/([0-9]+)")


def only(text: str, *, crash_at: int | None = None) -> Run:
    """Return the run of a scenario's one course in memory."""
    scenario = parse(HEAD + text)
    (variant,) = scenario.variants
    return one_run(scenario, variant, "memory", changed, crash_at=crash_at)


def wrong(run: Run) -> list[str]:
    """Return what was found where something else was expected, and the broken laws."""
    return [word for each in run.played for word in (*(c.found for c in each.checks if not c.ok), *each.wrongs)]


@pytest.mark.parametrize("name", ["S01", "S11", "S13", "S29"][:3])
def test_every_figure_counts(name: str) -> None:
    """Whichever single figure of a scenario is changed by one, the run finds exactly that."""
    text = book.text(name)
    places = [match for line in re.finditer(r"^expect.*$", text, re.MULTILINE) for match in FIGURE.finditer(text, line.start(), line.end())]
    assert len(places) > 5
    for match in places[::4]:
        spoiled = text[: match.start()] + f"{int(match[1]) + 1}/{match[2]}/{match[3]}" + text[match.end() :]
        bad = [run for run in runs(parse(spoiled), changed, stores=("memory",)) if not run.ok]
        assert bad
        assert all(wrong(run) == [found for found in wrong(run) if match[0] in found] for run in bad), match[0]


@pytest.mark.parametrize(
    ("step", "found"),
    [
        ("claim i on A as s => refused short", "done"),
        ("claim i on A as s => already", "done"),
        ("claim i on A as s => error conflict", "done"),
        ("claim i on x as s", "error unknown-node"),
        ("release i", "error unknown-claim"),
        ("enable A", "already: is not cordoned"),
        ("audit fails at driver", "error host-unavailable"),
        ("expect A is disabled", "A is not disabled"),
        ("expect i active", "error unknown-instance"),
        ("expect finding missing on A", "no finding missing"),
        ("expect i pins as P", "nothing is remembered"),
        ("expect A free vf 3", "A free vf 4"),
        ("expect disjoint i j", "i holds no unit"),
        ("expect move i confirmed", "error unknown-move"),
        ("race claim i on A as s | claim j on A as s => 1 granted", "2 granted"),
        ("audit => crash after append", "nothing was appended"),
        ("unplug pci:0000:ff:00.0 from A", "error invalid-request"),
        ("rehome x to y", "error invalid-request"),
        ("expect x 0/0/0", "error unknown-node"),
    ],
)
def test_another_outcome_is_found(step: str, found: str) -> None:
    """A step that leads to something else than it says fails, and what it led to is told."""
    if step.startswith("expect x"):
        step = 'retire x "gone" => error unknown-node\nexpect i nowhere\nexpect i on A'
        found = "i nowhere"
    run = only(step)
    assert not run.ok
    assert any(found in word for word in wrong(run)), wrong(run)


def test_a_course_ends_where_a_step_fails_and_goes_on_after_a_wrong_figure() -> None:
    """A wrong figure is told with all that follow; after a step that went otherwise nothing more is carried out."""
    assert len(only("expect A 1/1/1\nclaim i on A as s\nexpect A 2/2048/20").played) == 5
    assert len(only("claim i on x as s\nexpect A 0/0/0").played) == 3


def test_what_ends_something_is_said_twice() -> None:
    """I4 is looked at after each step that ends something: an instance that can be deleted only once would be found."""
    run = only("build i on A as s\ndelete i\nexpect A 0/0/0")
    assert run.ok, wrong(run)


def test_a_crash_around_an_append_leaves_all_or_nothing() -> None:
    """Before the commit nothing stands, after it everything does, although nobody was told."""
    text = """
claim i on A as s => crash before append
expect A 0/0/0, i nowhere
claim i on A as s => crash after append
expect A 2/2048/20, i on A
confirm i
resize i to B as p => crash before append
expect A 2/2048/20, B 0/0/0
migrate i to B named m => crash after append
expect A 2/2048/20, B 2/2048/20, move m preparing
confirm move m => crash before append
expect A 2/2048/20, B 2/2048/20, move m preparing
confirm move m => crash after append
expect A 0/0/0, B 2/2048/20, move m confirmed
"""
    run = only(text)
    assert run.ok, wrong(run)


@pytest.mark.rule("S44")
def test_a_race_of_many_threads_grants_no_unit_twice() -> None:
    """Eight threads claim the four devices of a node, with an audit beside them: four are granted, whoever comes first."""
    racers = " | ".join(f"claim r{number} on A as p" for number in range(8))
    run = only(f"race {racers} | audit => 4 granted\nexpect A devices 4, A free vf 0, A pins 8")
    assert run.ok, wrong(run)


def test_a_broken_law_is_found() -> None:
    """A unit in two live claims, a sum that is not its claims', and two main claims of a consumer are each named."""
    world = World(memory_ledger(), changed)
    for step in parse(HEAD + "build i on A as p").variants[0].steps:
        assert act(world, step).error is None
    assert laws.broken_laws(world) == []
    state = world.node("A")
    (claim,) = state.live()
    twin = replace(claim, id=ClaimId("c-twin"))
    twice = replace(state, claims=state.claims.set(twin.id, twin))
    assert any(word.startswith("I2: cpu:") for word in laws._one_holder("A", twice))
    assert any("I1: A says" in word for word in laws._sums("A", twice))
    assert laws._one_main({"A": twice}) == [f"I2: i holds two main claims, {claim.id} and c-twin"]
    assert figures(state).text == "2/2048/20"
    assert any(word.startswith("I6: node:") for word in laws._rebuilt(world, {**world.states(), "A": replace(state, failed_builds=7)}))
    world.close()


@pytest.mark.parametrize("crash_at", [None, 4])
def test_a_file_ledger_is_a_scenarios_own(crash_at: int | None, tmp_path: Path) -> None:
    """A run on a file makes its ledger in a folder of its own and leaves nothing behind, after a crash too."""
    scenario = parse(HEAD + "build i on A as s\nrestart\nexpect A 2/2048/20\ncrash\nexpect A 2/2048/20")
    run = one_run(scenario, scenario.variants[0], "sqlite", changed, crash_at=crash_at, beside=tmp_path)
    assert run.ok, wrong(run)
    assert list(tmp_path.iterdir()) == []
