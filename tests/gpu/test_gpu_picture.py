"""GPUs on the picture of a machine: memory, links and what is left of them, instances, shares, faults."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace
from tests.drivers.roots import Root
from tests.gpu.boxes_of_gpus import box, unit, uuid
from tests.gpu.test_nvml_ledger import CUT, LOST, gpu, look, told

from earmark.cli.drawing import FANCY
from earmark.cli.machine_map import machine_map
from earmark.cli.map_stocks import described, linked_groups, short_name
from earmark.cli.picture import picture_of
from earmark.core.model.device_rule import DeviceRule
from earmark.core.model.ids import UnitId
from earmark.core.model.request import DeviceRequest, Request
from earmark.core.model.topology import MIG, Device
from earmark.testing import Bench, bench


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Bench]:
    """Give a ledger on three pairs of GPUs, one of which is cut, one lost, and one given in parts."""
    with bench() as found:
        root: Root = box(tmp_path / "root", 8)
        rule = DeviceRule(units=(UnitId(unit(0)),), shares=True)
        found.tracker.configure(replace(found.tracker.node().settings, device_rules=(rule,)))
        lost = gpu(7, failures=(LOST,), uuid=None, memory_bytes=None, peers=())
        look(found, root, told([*map(gpu, range(6)), gpu(6, parts=CUT), lost]))
        yield found


def drawn(made: Bench, width: int = 120) -> list[str]:
    """Return the lines of the picture below the map of CPUs."""
    lines = machine_map(picture_of(made.tracker.node()), width=width, glyphs=FANCY, now_ms=made.clock.now_ms())
    return [line.plain.rstrip() for line in lines]


def hold(made: Bench, consumer: str, **wish: object) -> None:
    """Claim devices in somebody's name."""
    made.tracker.hold(Request(devices=(replace(DeviceRequest(kind="gpu"), **wish),)), consumer=consumer, confirm=True)


def line_of(lines: list[str], text: str) -> str:
    """Return the only line that contains a text."""
    found = [line for line in lines if text in line]
    assert len(found) == 1, found
    return found[0]


def test_gpus_say_what_they_are(made: Bench) -> None:
    """A GPU's line has its memory, an instance's whose it is, a lost one's what is wrong with it; a mark says that it is faulty."""
    lines = drawn(made)
    assert line_of(lines, f"·  {unit(1)}").endswith("cell 0  NVIDIA H100 80GB HBM3  80 GiB")
    assert "10 GiB  of GPU-8e94a1c2" in line_of(lines, unit(100, "MIG"))
    assert line_of(lines, "#  pci:0000:84:00.0").endswith("GPU is lost (NVML 15, handle)")
    assert any("# faulty" in line for line in lines)


def test_the_profile_of_an_instance_is_shown_once(made: Bench) -> None:
    """Where an instance's name ends in its profile, that is enough; of one without a name the profile stands beside its memory."""
    node = made.tracker.node()
    part = next(device for device in picture_of(node).devices if device.device.kind == MIG)
    named = replace(part.device, name="NVIDIA H100 80GB HBM3 MIG 1g.10gb", profile="1g.10gb")
    assert described(part._replace(device=named)) == "NVIDIA H100 80GB HBM3 MIG 1g.10gb  10 GiB  of GPU-8e94a1c2"
    assert described(part._replace(device=replace(named, name=None))) == "1g.10gb  10 GiB  of GPU-8e94a1c2"


def test_pairs_that_are_left_are_counted(made: Bench) -> None:
    """A pair is left while nothing of either GPU is held, not even a share."""
    assert "3 of 3 pairs left" in line_of(drawn(made), " linked ")
    hold(made, "one", within=(UnitId(unit(3)),))
    assert "2 of 3 pairs left" in line_of(drawn(made), " linked ")
    hold(made, "two", share=250)
    line = line_of(drawn(made, 200), " linked ")
    assert "1 of 3 pairs left" in line
    assert f"{uuid(4)} + {uuid(5)}" in line


def test_shares_have_a_bar_with_their_holders(made: Bench) -> None:
    """The parts of a GPU that are given stand below it, each with its claim's letter, and the claims are named in the legend."""
    hold(made, "first", share=250)
    hold(made, "second", share=500)
    lines = drawn(made)
    bar = line_of(lines, "750 of 1000 held")
    assert sorted(bar.count(letter) for letter in "AB") == [10, 20]
    assert f"500/1000 of {unit(0)}" in line_of(lines, "second")


def test_groups_are_what_links_connect() -> None:
    """Groups are found through any of their links; a device without links, and a link to nothing, is in no group."""
    units = [UnitId(unit(number)) for number in range(5)]
    links = {0: (1,), 1: (0, 2), 2: (1,), 3: (9,)}
    devices = [
        Device(unit=each, kind=MIG, links=tuple(UnitId(unit(other)) for other in links.get(number, ())))
        for number, each in enumerate(units)
    ]
    assert linked_groups(devices) == [tuple(units[:3])]


def test_short_names_are_the_beginning_of_a_uuid() -> None:
    """A UUID is cut behind its first part; any other name stays whole."""
    assert short_name(UnitId(unit(1))) == "GPU-8e94a1c2"
    assert short_name(UnitId(unit(1, "MIG"))) == "MIG-8e94a1c2"
    assert short_name(UnitId("pci:0000:41:00.0")) == "0000:41:00.0"
    assert short_name(UnitId("gpu:amd-0123456789abcdef")) == "amd-0123456789abcdef"
