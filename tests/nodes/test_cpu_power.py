"""Hints for a power manager of CPUs, and where networks are attached: two settings of a node."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.cli.conftest import Line
from tests.nodes.worlds import held

from earmark.core.ledger.power import power_hints
from earmark.core.model.node import NodeSettings
from earmark.core.model.refusal import Refusal
from earmark.core.model.request import Request
from earmark.testing import Bench, bench

SPLIT = NodeSettings(cpu_policy="split", cpu_shared_set=(0, 1), cpu_dedicated_set=tuple(range(2, 8)), cpu_power_management="cpu_state")


@pytest.fixture
def line() -> Iterator[Line]:
    """Give a command line on two cells of two cores."""
    with bench("2x2c/2t 8G") as made:
        yield Line(made)


def hints(made: Bench) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the CPUs to be kept awake and those that may sleep."""
    found = power_hints(made.tracker.node())
    return found.awake, found.asleep


@pytest.mark.rule("N23")
def test_held_cpus_stay_awake_idle_and_withheld_ones_may_sleep() -> None:
    """Pins and the emulator's CPU are awake; what nobody holds and what isolation keeps idle may sleep; a release lets all sleep."""
    with bench("1x4c/2t 8G", settings=SPLIT) as made:
        assert hints(made) == ((), (2, 3, 4, 5, 6, 7))
        claim = held(made, Request(vcpus=1, cpu_policy="dedicated", thread_policy="isolate", emulator_policy="isolate"))
        assert hints(made) == ((2, 4), (3, 5, 6, 7))
        made.tracker.release(claim)
        assert hints(made) == ((), (2, 3, 4, 5, 6, 7))


@pytest.mark.rule("N23")
def test_without_a_strategy_nothing_is_hinted_and_a_pool_keeps_its_sharers_awake() -> None:
    """The default says nothing; where every free CPU is a shared one too, only withheld siblings may sleep; CPU 0 never."""
    with bench("1x4c/2t 8G") as made:
        held(made, Request(vcpus=1, cpu_policy="dedicated", thread_policy="isolate"))
        assert hints(made) == ((), ())
        made.tracker.configure(NodeSettings(cpu_power_management="governor"))
        assert hints(made) == ((2,), (3,))


def test_the_command_line_sets_and_shows_it(line: Line) -> None:
    """`node power` names the strategy and both sets; `node set` shows networks as they are written."""
    assert "cpu_power_management none" in line.good("node power")
    line.good("node set cpu_policy=split cpu_dedicated_set=4-7 cpu_power_management=cpu_state network_cells=physnet0:1,tunnel:0-1")
    said = line("node power --json").json()
    assert (said["strategy"], said["awake"], said["asleep"]) == ("cpu_state", [], [4, 5, 6, 7])
    assert "physnet0:1,tunnel:0-1" in line.good("node set")
    for wrong in (
        "cpu_power_management=off",
        "network_cells=physnet0",
        "network_cells=a:0,a:1",
        "network_cells=a:9",
        "keep_iommu_groups=maybe",
    ):
        assert line(f"node set {wrong}").code == 2


@pytest.mark.rule("N21")
def test_a_guest_has_a_cell_that_its_networks_need() -> None:
    """A required network draws the guest to its cells, is refused where none of them has room, and does not matter where it is unknown."""
    settings = {"network_cells=physnet0:1,tunnel:0-1"}
    with bench("2x4c 8G") as made:
        line = Line(made)
        line.good(f"node set {settings.pop()}")
        wish = Request(vcpus=3, cpu_policy="dedicated", networks=("physnet0",), tunnel=True)
        first = made.tracker.hold(wish, confirm=True)
        assert not isinstance(first, Refusal)
        assert first.claim is not None
        assert [cell.host_cell for cell in first.claim.grant.cells] == [1]
        second = made.tracker.hold(wish, confirm=True)
        assert isinstance(second, Refusal)
        assert second.certificate is not None
        assert second.certificate.requirements == ("cell:0", "network:physnet0")
        assert "network" in {reason.code for reason in second.reasons}
        assert not isinstance(made.tracker.hold(Request(vcpus=3, cpu_policy="dedicated", networks=("other",)), confirm=True), Refusal)
