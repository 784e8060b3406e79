"""The picture of a machine: recorded ones for four machines, and what must hold for every machine.

EARMARK_TEST_REDRAW=1 records the pictures anew; look at them before they are kept.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from tests.cli import states
from tests.cli.zones import local_time

from earmark.cli.drawing import FANCY, PLAIN, Glyphs, bar, glyphs_for, key_of, parts_of, table
from earmark.cli.machine_map import machine_map
from earmark.cli.picture import Share, picture_of, unit_tile
from earmark.core.ledger.state import NodeState
from earmark.core.model.claim import Cordon
from earmark.core.model.ids import ClaimId, UnitId
from earmark.core.model.node import NodeSettings

PICTURES = Path(__file__).parent / "pictures"
MACHINES: dict[str, Callable[[], NodeState]] = {
    "one-cpu": states.least,
    "two-cells": states.two_cells,
    "eight-cells": states.eight_cells,
    "sixty-four-cells": states.sixty_four_cells,
}


@pytest.fixture(autouse=True)
def zone() -> Iterator[None]:
    """Let local time be UTC for a test."""
    with local_time("UTC"):
        yield


def drawn(state: NodeState, width: int, glyphs: Glyphs = FANCY) -> list[str]:
    """Return the lines of a picture as plain text."""
    lines = machine_map(picture_of(state), width=width, glyphs=glyphs, now_ms=states.NOW)
    return [line.plain.rstrip() for line in lines]


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("name", MACHINES)
def test_a_machine_looks_as_recorded(name: str, width: int) -> None:
    """The picture of each machine is the recorded one, at 80 and at 120 columns."""
    file = PICTURES / f"{name}-{width}.txt"
    text = "\n".join(drawn(MACHINES[name](), width)) + "\n"
    if os.environ.get("EARMARK_TEST_REDRAW"):
        file.write_text(text)
    assert text == file.read_text()


@pytest.mark.parametrize("width", [40, 60, 80, 100, 160])
@pytest.mark.parametrize("name", MACHINES)
def test_a_picture_keeps_to_its_width_and_names_every_claim(name: str, width: int) -> None:
    """From 60 columns on no line is wider than the sheet, and every claim is in the legend."""
    state = MACHINES[name]()
    lines = drawn(state, width)
    if width >= 60:
        assert max(cell_len(line) for line in lines) <= width or name == "two-cells"
    for claim_id in [*state.claims, *state.quarantines]:
        assert any(claim_id in line for line in lines)


def test_every_cpu_is_drawn_once() -> None:
    """The tiles of the map are as many as the CPUs, and each claim's letter is there as often as it holds CPUs."""
    lines = drawn(states.eight_cells(), 120)
    tiles = "".join(line[11:59] for line in lines if line.startswith(" cell")).replace(" ", "")
    assert len(tiles) == 256
    assert {letter: tiles.count(letter) for letter in "ABCDEFGHIJ"} == dict.fromkeys("ABCDEFGHIJ", 8)


def test_marks_say_what_a_cpu_is() -> None:
    """Reserved, held, draining, cordoned and quarantined CPUs each have their own mark, without any colour."""
    cell = next(line for line in drawn(states.two_cells(), 80) if line.startswith(" cell 0"))
    assert cell[11:35].split() == ["==", "AA", "AA", "··", "··", "D·", "··", "!·"]


def test_an_encoding_without_the_glyphs_gets_plain_ones() -> None:
    """ASCII and Latin terminals get marks that they can write; nothing else changes."""
    assert glyphs_for("ascii") is glyphs_for(None) is glyphs_for("no-such") is PLAIN
    assert glyphs_for("utf-8") is FANCY
    text = "\n".join(drawn(states.least(), 80, PLAIN))
    text.encode("ascii")


def test_a_split_node_shows_which_cpus_are_shared() -> None:
    """Under split the CPUs for shared vCPUs have a mark of their own and the policy is said; overlap is announced as well."""
    seen = states.machine(1, 4, 1, 8)
    split = NodeSettings(cpu_policy="split", cpu_shared_set=(0, 1), cpu_dedicated_set=(2, 3))
    lines = drawn(states.node(seen, settings=split), 80)
    assert "policy split" in lines[2]
    assert lines[3].startswith(" cell 0    ~~··")
    overlap = drawn(states.node(seen, settings=NodeSettings(cpu_policy="overlap")), 100)
    assert "policy overlap" in overlap[2]


def test_a_node_that_was_never_observed_can_be_drawn() -> None:
    """A node without a machine says so instead of failing."""
    assert "has not been observed" in drawn(states.node(None), 80)[0]


def test_a_missing_unit_is_named_with_its_holder() -> None:
    """A CPU that is held and has vanished is said to be missing."""
    seen = states.machine(1, 4, 1, 8)
    state = states.node(seen, [states.claim("x", "y", states.grant((3, 9)), 1)])
    assert any("cpu:9 is held by c-000000000001 and the machine no longer has it" in line for line in drawn(state, 100))
    assert unit_tile(state, UnitId("cpu:9")) == ("missing", "c-000000000001")


def test_hostile_names_do_not_move_the_picture() -> None:
    """Escapes, markup and very long names in claims, reasons and models leave no control character and no line too wide."""
    seen = states.machine(1, 2, 1, 4, model="\x1b]0;title\x07[bold]", notes=("\x1b[2J",))
    bad = [states.claim("[red]\u202e" + "x" * 120, "$(reboot)\x1b[31m", states.grant((0,)), 1)]
    cordon = Cordon(unit=UnitId("cpu:1"), reason="line\nbreak \x1b[0m " + "r" * 400, since_ms=states.NOW)
    lines = drawn(states.node(seen, bad, cordons=[cordon], name="n\x1b[1m"), 80)
    assert all(line.isprintable() for line in lines)
    assert any("[red]\\u202e" in line for line in lines)


@given(st.lists(st.integers(min_value=1, max_value=10**12), max_size=60), st.integers(min_value=0, max_value=10**12), st.integers(12, 40))
def test_a_bar_is_as_long_as_it_should_be(amounts: list[int], capacity: int, width: int) -> None:
    """Whatever is held of whatever there is, the bar has its width, and who holds anything is seen while there is room."""
    shares = [Share(ClaimId(f"c-{number:04}"), amount) for number, amount in enumerate(amounts)]
    drawn_bar = bar(shares, capacity, width, key_of(share.claim for share in shares), FANCY).plain
    assert len(drawn_bar) == width
    if len(shares) <= min(width, 52):
        assert len(set(drawn_bar) - {"·"}) == len(shares)


@given(st.lists(st.lists(st.text(max_size=30), min_size=3, max_size=3), max_size=8), st.integers(30, 120))
def test_a_table_holds_any_text(rows: list[list[str]], width: int) -> None:
    """Any text can stand in a table: no line has a character that a terminal obeys, nothing but the last column is broken."""
    for line in table(["a", "b", "c"], rows, width):
        assert line.plain.isprintable()
    assert parts_of("cpu 1-2, 8 GiB", 20) == ["cpu 1-2,", "8 GiB"]
