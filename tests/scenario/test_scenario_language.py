"""The scenario language: what is understood, and where and how everything else is refused."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from earmark.core.model.request import DeviceRequest, Request
from earmark.core.model.units import GIB, MIB
from earmark.errors import InvalidRecord
from earmark.scenario import book
from earmark.scenario import steps as s
from earmark.scenario.language import STEPS_MAX, parse
from earmark.scenario.words import LINE_LENGTH_MAX, bare

MUTATIONS = 2500
HEAD = "scenario T: a test\nflavor s 2/2048/20\nnode A 1x4c 8G\n"
SIGNS = '#"|,=>/: \t-0189azAZ_.\u2713\u202e\x00\x1b\ud800'


def step(line: str) -> s.Step:
    """Return the step of a line."""
    return parse(HEAD + line).variants[0].steps[-1]


def test_a_flavor_is_exact() -> None:
    """Root, ephemeral and swap disk add up in bytes; a volume takes the root away; devices, classes and policies are kept."""
    text = "scenario T: t\nflavor v 1/1024/50 ephemeral 10 swap 1024 boot-from-volume\nflavor p 4/4096/40 dedicated pages 2M vf=1 CUSTOM_X=2\nnode A 1x4c 8G"
    volume, pinned = (each.request for each in parse(text).flavors)
    assert volume == Request(vcpus=1, memory_bytes=1024 * MIB, disk_bytes=11 * GIB)
    assert pinned.cpu_policy == "dedicated"
    assert pinned.page_kib == 2048
    assert pinned.devices == (DeviceRequest(kind="vf", count=1),)
    assert [(each.resource_class, each.amount) for each in pinned.resources] == [("CUSTOM_X", 2)]


def test_variants_share_what_stands_before_them() -> None:
    """Each variant is the opening and its own steps; without one the file is a single course."""
    scenario = parse(HEAD + "build i on A as s\nvariant: one\ndelete i\nvariant: two\nrelease i")
    assert [(each.title, [item.text for item in each.steps]) for each in scenario.variants] == [
        ("one", ["node A 1x4c 8G", "build i on A as s", "delete i"]),
        ("two", ["node A 1x4c 8G", "build i on A as s", "release i"]),
    ]
    assert [each.title for each in parse(HEAD).variants] == [""]


def test_results_are_kept() -> None:
    """What a step is to lead to is read from behind the arrow."""
    assert step("build i on A as s").result == s.Done()
    assert step('abort i => already "ended already"').result == s.Already(text="ended already")
    assert step("build i on A as s => refused short").result == s.Refused(code="short")
    assert step('build i on x as s => error unknown-node "x"').result == s.Failed(code="unknown-node", text="x")
    assert step("build i on A as s => crash after append").result == s.Dies(when="after")
    assert step("race build i on A as s | audit => 1 granted").result == s.Granted(count=1)


def test_comments_and_quotes() -> None:
    """A comment begins with # at the beginning or after a space, and not inside quotes."""
    assert bare("# all of it") == ""
    assert bare("delete i # the rest") == "delete i"
    assert bare('retire A "no # comment"  # but this') == 'retire A "no # comment"'
    assert bare("i#1") == "i#1"
    assert step('retire A "gone # for good"').text == 'retire A "gone # for good"'


@pytest.mark.parametrize(
    ("line", "column", "problem"),
    [
        ("dance i", 1, "'dance' begins no step"),
        ("build i A as s", 9, "'on' is expected here, not 'A'"),
        ("build i on", 11, "node is missing"),
        ("build i on A as t", 17, "there is no flavor t; known: s"),
        ("build i on A as s gladly", 19, "'gladly' is not expected here"),
        ("build A on A as s", 7, "A is a node, not a consumer"),
        ("build i on A as s => perhaps", 22, "result 'perhaps' is none of"),
        ("build i on A as s => crash after lunch", 34, "'append' is expected here"),
        ("state i dizzy", 9, "state 'dizzy' is none of"),
        ("expect A 2/2048", 10, "of node A one expects"),
        ("expect i 2/2048/20", 10, "what consumer i is or has"),
        ("expect A pins two", 15, "number 'two' is not a whole number"),
        ("expect A 0/0/0 => already", 19, "what is expected leads to nothing"),
        ("expect i pins not 3", 19, "'not' is followed by 'as NAME'"),
        ("flavor f 5/4096/1 cells 2/1024+2/3072", 25, "is not all of 5/4096"),
        ("flavor f 5/4096/1 cells 2/1024+3", 25, "is not VCPUS/MB for each"),
        ("flavor f 5/4096/1 gpu=1 affinity close", 34, "how near the devices are 'close' is none of"),
        ("node B 9x9q 3G", 8, "is not CELLSxCORESc"),
        ("node B", 7, "is not CELLSxCORESc"),
        ("wait long", 6, "is not a duration"),
        ("process 0 dies", 9, "is not a process"),
        ("resize i to A", 14, "a resize says to what"),
        ("drop move i both", 13, "is none of source, destination"),
        ("revert i", 8, "followed by 'move'"),
        ("release move i", 15, "a move is not release"),
        ("retire A", 9, "a reason in quotes is missing"),
        ("race build i on A as s => 1 granted", 24, "a race is between 2 and"),
        ("unplug it from A", 8, "'it' is not a unit"),
        ('retire A "open', 10, "has no closing quote"),
        ("  delete  i  twice", 14, "'twice' is not expected here"),
        ("flavor s 1/1/1", 8, "flavor s stands here twice"),
        ("flavor t 1/1/1 vf=0", 16, "is not a number from 1"),
        ("flavor t 1/1/1 swap 1 swap 2", 23, "swap stands here twice"),
        ("flavor t 1/1/1 big", 16, "a flavor has no 'big': ephemeral GB, swap MB, boot-from-volume, shared, dedicated, mixed CPUS"),
        ("flavor t 1/1/1 dedicated shared", 26, "shared is a second CPU policy"),
        ("flavor t 2/1/1 mixed", 21, "which vCPUs are dedicated"),
        ("flavor t 2/1/1 mixed x", 22, "mixed"),
        ("flavor t 1/1/1 dedicated emulator away", 35, "is none of share, isolate"),
        ("flavor t 1/1/1 dedicated threads odd", 34, "is none of prefer, require"),
        ("set A", 6, "KEY=VALUE is missing"),
        ("scenario U: again", 1, "a file holds one scenario"),
        ("variant one", 1, "followed by a colon"),
        ("delete \x1bi", 8, "cannot be printed"),
        ("delete " + "i" * LINE_LENGTH_MAX, 1, "longer than"),
    ],
)
def test_what_is_not_understood_is_refused_with_its_place(line: str, column: int, problem: str) -> None:
    """Each malformed line is InvalidRecord that names file, line and column, and says what is wrong."""
    with pytest.raises(InvalidRecord, match=re.escape(problem)) as caught:
        parse(HEAD + line, "bug.scenario")
    assert caught.value.facts["line"] == 4
    assert caught.value.facts["column"] == column
    assert caught.value.message.startswith(f"bug.scenario:4:{column}: ")


@pytest.mark.parametrize(
    "text", ["", "# nothing\n", "node A 1x4c\n", "nova: before\n", "scenario : x", "scenario S 1: x", "scenario S1: x\n"]
)
def test_a_file_without_title_or_steps_is_refused(text: str) -> None:
    """A file has a title first, and steps after it."""
    with pytest.raises(InvalidRecord):
        parse(text)


def test_a_file_is_bounded() -> None:
    """More steps than STEPS_MAX, or more than the largest file, are refused."""
    with pytest.raises(InvalidRecord, match="more than"):
        parse(HEAD + "delete i\n" * STEPS_MAX)
    with pytest.raises(InvalidRecord, match="larger than"):
        parse(HEAD + "#" * (1 << 20))


@pytest.mark.long
def test_mutated_lines_give_the_documented_error_or_are_understood() -> None:
    """Thousands of lines of the book, each with a sign or word added, lost, doubled or exchanged: parsed, or InvalidRecord with its place."""
    chance = random.Random(34)  # noqa: S311 - a fixed choice of examples
    lines = [(name, number, line) for name in book.names() for number, line in enumerate(book.text(name).splitlines()) if line.strip()]
    refused = 0
    for _ in range(MUTATIONS):
        name, number, line = chance.choice(lines)
        text = book.text(name).splitlines()
        text[number] = mutated(line, chance)
        try:
            parse("\n".join(text), name)
        except InvalidRecord as error:
            refused += 1
            assert {"source", "line", "column"} <= set(error.facts), text[number]
    assert refused > MUTATIONS // 4


def mutated(line: str, chance: random.Random) -> str:
    """Return a line with one thing changed."""
    at = chance.randrange(len(line) + 1)
    words = line.split(" ")
    word = chance.randrange(len(words))
    return chance.choice(
        (
            line[:at] + chance.choice(SIGNS) + line[at:],
            line[:at] + line[at + 1 :],
            line[:at],
            " ".join(words[:word] + words[word + 1 :]),
            " ".join([*words[:word], words[word], *words[word:]]),
            " ".join(chance.sample(words, len(words))),
            line[:at] + "9" * chance.randrange(1, 30) + line[at:],
        )
    )


def test_no_text_at_all_makes_it_fall_over(tmp_path: Path) -> None:
    """Random signs are refused like everything else."""
    chance = random.Random(35)  # noqa: S311 - a fixed choice of examples
    for _ in range(300):
        text = "".join(chance.choice(SIGNS + "\n") for _ in range(200))
        with pytest.raises(InvalidRecord):
            parse(text)
