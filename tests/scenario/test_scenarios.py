"""The scenarios of the accounting: every figure after every step, on each store, and with a crash between any two steps."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from earmark.cli.node_settings import changed
from earmark.scenario import book
from earmark.scenario.runner import STORES, Run, StoreKind, crash_places, one_run

MEMORY = Path("/dev/shm")


@pytest.fixture
def light(tmp_path: Path) -> Iterator[Path]:
    """Give a folder in memory where there is one: these tests are about programs that die, not about disks."""
    if not os.access(MEMORY, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="earmark-scenarios-", dir=MEMORY) as folder:
        yield Path(folder)


def told(run: Run) -> str:
    """Return a run that ended otherwise than expected, in lines."""
    lines = [f"{run.scenario.source}, {run.variant.title or 'its only course'}, {run.store}, crash before step {run.crash_at}"]
    for each in run.played:
        if not each.ok:
            lines += [f"  line {each.step.line}: {each.step.text}"]
            lines += [f"    expected {check.expected}; found {check.found}" for check in each.checks if not check.ok]
            lines += [f"    {wrong}" for wrong in each.wrongs]
    return "\n".join(lines)


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize(
    "name",
    [
        pytest.param("S01", marks=pytest.mark.rule("S01", "L9", "L12")),
        pytest.param("S02", marks=pytest.mark.rule("S02", "C1", "C2", "C3", "C10")),
        pytest.param("S03", marks=pytest.mark.rule("S03", "C3", "C4", "W10")),
        pytest.param("S04", marks=pytest.mark.rule("S04", "C5")),
        pytest.param("S05", marks=pytest.mark.rule("S05", "L6", "L7", "T4", "W1")),
        pytest.param("S06", marks=pytest.mark.rule("S06", "W7")),
        pytest.param("S07", marks=pytest.mark.rule("S07", "W7")),
        pytest.param("S08", marks=pytest.mark.rule("S08", "L2")),
        pytest.param("S09", marks=pytest.mark.rule("S09", "L13")),
        pytest.param("S10", marks=pytest.mark.rule("S10", "L8", "L9", "L10")),
        pytest.param("S11", marks=pytest.mark.rule("S11", "A4", "M7", "M8", "M15", "W2", "W16")),
        pytest.param("S12", marks=pytest.mark.rule("S12", "M16", "W5")),
        pytest.param("S13", marks=pytest.mark.rule("S13", "M5", "M6", "M18", "W17")),
        pytest.param("S14", marks=pytest.mark.rule("S14", "M5", "W17")),
        pytest.param("S15", marks=pytest.mark.rule("S15", "M17", "M22", "W2")),
        pytest.param("S16", marks=pytest.mark.rule("S16", "M10")),
        pytest.param("S17", marks=pytest.mark.rule("S17", "M32")),
        pytest.param("S18", marks=pytest.mark.rule("S18", "M20", "M21")),
        pytest.param("S19", marks=pytest.mark.rule("S19", "M20", "W15")),
        pytest.param("S20", marks=pytest.mark.rule("S20", "M23", "M25", "W15")),
        pytest.param("S21", marks=pytest.mark.rule("S21", "M24", "M25", "W13", "W18")),
        pytest.param("S22", marks=pytest.mark.rule("S22", "M12", "M13", "W14")),
        pytest.param("S23", marks=pytest.mark.rule("S23", "M31")),
        pytest.param("S24", marks=pytest.mark.rule("S24")),
        pytest.param("S25", marks=pytest.mark.rule("S25", "A7", "W19")),
        pytest.param("S26", marks=pytest.mark.rule("S26", "W3")),
        pytest.param("S27", marks=pytest.mark.rule("S27", "X5")),
        pytest.param("S28", marks=pytest.mark.rule("S28", "A10", "A11", "A13")),
        pytest.param("S29", marks=pytest.mark.rule("S29", "W4")),
        pytest.param("S30", marks=pytest.mark.rule("S30", "W5")),
        pytest.param("S31", marks=pytest.mark.rule("S31", "N6", "N19", "C13")),
        pytest.param("S32", marks=pytest.mark.rule("S32", "N16", "N17", "N18")),
        pytest.param("S33", marks=pytest.mark.rule("S33")),
        pytest.param("S34", marks=pytest.mark.rule("S34", "H1", "H2", "H3")),
        pytest.param("S35", marks=pytest.mark.rule("S35", "W21")),
        pytest.param("S36", marks=pytest.mark.rule("S36", "W6")),
        pytest.param("S37", marks=pytest.mark.rule("S37", "P8")),
        pytest.param("S38", marks=pytest.mark.rule("S38", "W8")),
        pytest.param("S39", marks=pytest.mark.rule("S39", "P11", "P12", "P13", "P14")),
        pytest.param("S40", marks=pytest.mark.rule("S40", "M2", "W24")),
        pytest.param("S41", marks=pytest.mark.rule("S41", "L16", "W9")),
        pytest.param("S42", marks=pytest.mark.rule("S42", "P20", "W25")),
        pytest.param("S43", marks=pytest.mark.rule("S43", "V5")),
        pytest.param("S44", marks=pytest.mark.rule("S44", "X1")),
        pytest.param("S45", marks=pytest.mark.rule("S45", "C6", "C10", "W40", "X6")),
        pytest.param("S46", marks=pytest.mark.rule("S46", "W0", "W11")),
    ],
)
def test_a_scenario_holds(name: str, store: StoreKind, tmp_path: Path) -> None:
    """Each step of each course leads to what it is to lead to, and no law of every step is broken."""
    scenario = book.scenario(name)
    assert scenario.id == name
    for variant in scenario.variants:
        run = one_run(scenario, variant, store, changed, beside=tmp_path)
        assert run.ok, told(run)


@pytest.mark.long
@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("name", book.names())
def test_a_scenario_survives_a_crash_in_its_middle(name: str, store: StoreKind, tmp_path: Path) -> None:
    """A crash in the middle of each course changes no figure."""
    scenario = book.scenario(name)
    for variant in scenario.variants:
        places = crash_places(variant)
        run = one_run(scenario, variant, store, changed, crash_at=places[len(places) // 2], beside=tmp_path)
        assert run.ok, told(run)


@pytest.mark.long
@pytest.mark.parametrize("name", book.names())
def test_a_scenario_survives_a_crash_between_any_two_steps(name: str) -> None:
    """A crash at any place between two steps, each as a run of its own, changes no figure."""
    scenario = book.scenario(name)
    for variant in scenario.variants:
        for place in crash_places(variant):
            run = one_run(scenario, variant, "memory", changed, crash_at=place)
            assert run.ok, told(run)


@pytest.mark.long
@pytest.mark.parametrize("name", book.names())
def test_a_scenario_on_a_file_survives_a_crash_between_any_two_steps(name: str, light: Path) -> None:
    """The same on a file, which is left open by the crash and opened anew."""
    scenario = book.scenario(name)
    for variant in scenario.variants:
        for place in crash_places(variant):
            run = one_run(scenario, variant, "sqlite", changed, crash_at=place, beside=light)
            assert run.ok, told(run)


def test_every_scenario_says_what_nova_does() -> None:
    """Each scenario of the book has a title, a line about Nova 34, and figures to be wrong about."""
    for name in book.names():
        scenario = book.scenario(name)
        assert scenario.title
        assert scenario.nova
        for variant in scenario.variants:
            assert any(step.text.startswith("expect ") for step in variant.steps), (name, variant.title)
