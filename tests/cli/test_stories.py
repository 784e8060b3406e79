"""Stories: a life in lines over all streams, in the order in which it happened, for a claim, an instance, a move and a node."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from tests.cli.conftest import Line
from tests.cli.lives import two_nodes
from tests.cli.test_commands import shaped

from earmark.cli import output_lives
from earmark.core.ledger.events import EVENTS
from earmark.core.ledger.story import line as told_line


@pytest.fixture
def two() -> Iterator[Line]:
    """Give a command line on two nodes, where web was resized on its node and then moved to the other one, and db stands by."""
    with two_nodes() as line:
        line.good("claim --cpus 1 --gpus 1 --consumer web --owner alice")
        line.good("claim --mem 1GiB --consumer db")
        for words in (
            "instance state web active", "move resize web --cpus 2 --gpus 1 --id m-0001", "move confirm web",
            "move migrate web --to n2 --id m-0002", "move finish web", "move confirm web", "instance delete web --reason done",
        ):  # fmt: skip
            line.bench.clock.move(60_000)
            line.good(words)
        yield line


def lines_of(line: Line, words: str) -> list[output_lives.StoryLineOut]:
    """Return the lines of a story as data."""
    found = shaped(line.good(f"story {words} --json"), output_lives.StoryOut)
    return list(found.lines)


def test_an_instance_is_told_over_all_its_streams(two: Line) -> None:
    """Its states, moves and claims on both nodes, in order, each with time, node, actor and reason; nobody else's events."""
    out = two.good("story web")
    parts = [
        "held 1 shared vCPU, gpu:GPU-0 for web", "was reported active", "became the source leg of move m-0001",
        "held 2 shared vCPUs for web, the destination leg of move m-0001", "will take over gpu:GPU-0", "resize m-0001 began: c-",
        "gpu:GPU-0 passed from c-", "ended (moved)", "move m-0001 was confirmed", "held 2 shared vCPUs, gpu:GPU-0 for web, the destination leg",
        "migration m-0002 began", "move m-0002 was confirmed", "ended (deleted)", "was reported deleted: done",
    ]  # fmt: skip
    at = [out.index(part) for part in parts]
    assert at == sorted(at)
    assert not re.search(r"\bdb\b", out)
    lines = lines_of(two, "web")
    assert [line.position for line in lines] == sorted(line.position for line in lines)
    assert {line.node_name for line in lines} == {"n1", "n2", None}
    assert {line.actor for line in lines} == {"tester"}
    assert [line.text for line in lines if line.why == "done"] == ["was reported deleted: done"]
    assert len(lines) == len(out.splitlines())


def test_an_instance_is_told_by_each_of_its_names(two: Line) -> None:
    """Consumer, uuid, and a consumer that has no record but claims, live or long gone."""
    uuid = two("instance show web --json").json()["uuid"]
    assert two.good(f"story {uuid}") == two.good("story web")
    two.good("release db")
    assert [line.type for line in lines_of(two, "db")] == ["claim.held", "claim.confirmed", "claim.ended"]
    assert two("story nobody").code == 2
    assert "no instance, claim, move or node" in two("story nobody").err


def test_a_claim_is_told_with_its_legs_and_the_units_that_passed(two: Line) -> None:
    """The first claim of web: held, source leg of the resize, its GPU passed on, ended; by id or the beginning of one."""
    first = lines_of(two, "web")[0].claim
    assert first is not None
    types = [line.type for line in lines_of(two, first)]
    assert types == [
        "claim.held", "claim.confirmed", "leg.opened", "units.named", "move.opened", "units.passed", "leg.closed", "claim.ended", "move.ended",
    ]  # fmt: skip
    assert two.good(f"story {first[:9]}") == two.good(f"story {first}")
    assert shaped(two.good(f"story {first} --json"), output_lives.StoryOut).what == "claim"
    assert two("story c-ffffffff").code == 2


def test_a_move_is_told_from_its_first_event_to_its_last(two: Line) -> None:
    """What happened to the legs before and after belongs to other stories."""
    lines = lines_of(two, "m-0002")
    assert (lines[0].type, lines[-1].type) == ("leg.opened", "move.ended")
    assert "m-0001" not in two.good("story m-0002")
    assert {line.node_name for line in lines} == {"n1", "n2", None}
    assert two("story m-ffff").code == 2


def test_a_node_is_told_by_its_own_events(two: Line) -> None:
    """All of its stream and nothing else, by name or uuid."""
    lines = lines_of(two, "n2")
    state = two.bench.tracker.node("n2")
    assert [line.sequence for line in lines] == list(range(1, state.sequence + 1))
    assert {line.node_name for line in lines} == {"n2"}
    assert two.good(f"story {state.node}") == two.good("story n2")


def test_a_story_since_a_time_still_knows_what_went_before(two: Line) -> None:
    """Only later lines are told, but those of claims that were held before; the future and nonsense are as elsewhere."""
    whole = two.good("story web").splitlines()
    late = two.good("story web --since -90s").splitlines()
    assert late == whole[-len(late) :]
    assert 0 < len(late) < len(whole)
    said = two("story web --since now")
    assert said.code == 0
    two.bench.clock.move(60_000)
    assert two("story web --since now").err == "nothing has happened since\n"
    assert two("story web --since soon").code == 2


def test_a_name_that_is_part_of_another_is_told_apart(two: Line) -> None:
    """The story of web has nothing of web-2, whose name and events contain it."""
    two.good("claim --mem 1MiB --consumer web-2")
    two.good("claim --mem 1MiB --consumer x --owner web")
    assert "web-2" not in two.good("story web")
    assert "for x" not in two.good("story web")
    assert len(lines_of(two, "web-2")) == 2


@pytest.mark.parametrize("name", ['quo"te', "back\\slash", "größe", "虚拟机", "$(reboot)", "[red]x[/red]"])
def test_odd_names_have_stories(two: Line, name: str) -> None:
    """Names that JSON escapes are found in the ledger and shown as they are."""
    assert two("claim --mem 1MiB --consumer", name).code == 0
    said = two("story", name)
    assert said.code == 0
    assert len(said.out.splitlines()) == 2
    assert name in said.out


def test_every_event_is_told_in_words() -> None:
    """No event of the ledger is told by its bare type, which is what line() falls back to."""
    import inspect

    source = inspect.getsource(told_line)
    assert [event.__name__ for event in EVENTS if f"e.{event.__name__}(" not in source] == []
