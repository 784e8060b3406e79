"""`earmark node devices`: a table of what there is and who holds it, and a policy put in force from a file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from tests.cli.conftest import Line
from tests.devices.boxes import TYPES, card
from tests.devices.test_device_identity import box
from tests.devices.test_device_policy_files import file

from earmark.cli.device_wishes import parse_device
from earmark.cli.output_devices import DevicePolicyOut, NodeDevicesOut
from earmark.core.model.ids import UnitId
from earmark.core.model.request import DeviceRequest
from earmark.errors import InvalidRequest
from earmark.testing import bench

A, B = "0000:41:00.0", "0000:42:00.0"
POLICY = """\
version: 1
rules:
  - address: 0000:41:00.0
    mdev_type: nvidia-36
    max_instances: 2
    tags: {size: half}
  - observed_kind: gpu
    one_time_use: true
named_resources:
  CUSTOM_LICENCE: [dongle-1]
"""


@pytest.fixture
def earmark() -> Iterator[Line]:
    """Give a command line on a machine with two cards; the auditor looks at the end."""
    with bench("1x2c 4G") as made:
        made.host.seen = box(card(A, mdev_types=TYPES), card(B, name="a card\x1b[31m"))
        made.tracker.observe()
        yield Line(made)


def listed(earmark: Line) -> dict[str, tuple[str, str | None]]:
    """Return the state and holder of each unit."""
    found = msgspec.json.decode(earmark.good("node devices --json"), type=NodeDevicesOut, strict=True)
    return {row.unit: (row.state, row.consumer) for row in found.devices}


def test_devices_are_listed_with_state_and_holder(earmark: Line) -> None:
    """Free, taken, cordoned, quarantined, missing: each device says how it stands and who holds it, in the table and as JSON."""
    assert listed(earmark) == {f"pci:{A}": ("free", None), f"pci:{B}": ("free", None)}
    earmark.good("claim --gpus 1 --consumer vm-1")
    earmark.good(f"node cordon pci:{B} --reason 'Xid 79'")
    table = earmark.good("node devices n1")
    assert [line.split() for line in table.splitlines()] == [
        ["unit", "state", "kind", "cell", "holder", "tags"],
        [f"pci:{A}", "taken", "gpu", "0", "vm-1", "-"],
        [f"pci:{B}", "cordoned", "gpu", "0", "-", "-"],
    ]
    earmark.bench.host.seen = box(card(B))
    earmark.bench.tracker.observe()
    assert listed(earmark) == {f"pci:{B}": ("cordoned", None), f"pci:{A}": ("missing", "vm-1")}
    with bench("1x2c 4G") as bare:
        assert Line(bare).good("node devices") == "node n1 has no devices\n"


@pytest.mark.rule("W48")
def test_a_policy_is_looked_at_put_in_force_and_read_again(earmark: Line, tmp_path: Path) -> None:
    """--check changes nothing and says the same; the second reading changes nothing; what the file names and the machine has not is noted."""
    path = str(file(tmp_path, "devices.yaml", POLICY))
    checked = earmark("node devices --check --policy", path)
    assert (checked.code, checked.err) == (0, f"earmark: device rule 1: pci:{A} has 4 of nvidia-36, 2 instances may be handed out\n")
    assert checked.out.splitlines() == [
        "node n1 would have this device policy now",
        "  named:CUSTOM_LICENCE/dongle-1: handed out as CUSTOM_LICENCE",
        f"  pci:{A}: no longer handed out",
        f"  pci:{B}: for one use",
        f"  pci:{A}: 0 -> 2 of nvidia-36 (VGPU)",
    ]
    assert set(listed(earmark)) == {f"pci:{A}", f"pci:{B}"}
    done = earmark.good("node devices n1 --policy", path)
    assert done.replace(" has ", " would have ", 1) == checked.out
    assert listed(earmark) == {
        f"mdev:{A}/nvidia-36/0": ("free", None), f"mdev:{A}/nvidia-36/1": ("free", None), "named:CUSTOM_LICENCE/dongle-1": ("free", None),
        f"pci:{A}": ("reserved", None), f"pci:{B}": ("free", None),
    }  # fmt: skip
    again = earmark("node devices -q --policy", path)
    assert (again.code, again.out, again.err) == (0, "", "")
    assert "nothing changes: node n1 has this policy already" in earmark.good("node devices --policy", path)


def test_what_is_held_and_no_longer_handed_out_is_told(earmark: Line, tmp_path: Path) -> None:
    """The claim keeps its unit; a notice names both; the parent of a held instance is excluded, not free."""
    earmark.good("node devices --policy", str(file(tmp_path, "a.yaml", POLICY)))
    earmark.good("claim --resource VGPU=1 --resource CUSTOM_LICENCE=1 --consumer vm-1")
    assert listed(earmark)[f"pci:{A}"] == ("excluded", "vm-1")
    said = earmark("node devices --json --policy", str(file(tmp_path, "b.json", '{"version": 1}')))
    found = msgspec.json.decode(said.out, type=DevicePolicyOut, strict=True)
    assert (found.changed, found.checked_only, len(found.kept)) == (True, False, 2)
    assert found.kept[0].startswith(f"mdev:{A}/nvidia-36/0 is held by c-")
    assert listed(earmark) == {
        f"pci:{A}": ("excluded", None), f"pci:{B}": ("free", None), f"mdev:{A}/nvidia-36/0": ("withdrawn", "vm-1"),
        "named:CUSTOM_LICENCE/dongle-1": ("withdrawn", "vm-1"),
    }  # fmt: skip
    found_by_audit = json.loads(earmark("audit --json").out)
    assert [each["code"] for each in found_by_audit["findings"]] == ["withdrawn", "withdrawn"]


@pytest.mark.rule("P25")
def test_a_device_for_one_use_is_returned_by_a_person(earmark: Line, tmp_path: Path) -> None:
    """Release says what stays in quarantine, the list shows it, `earmark return` gives it back."""
    earmark.good("node devices --policy", str(file(tmp_path, "a.yaml", POLICY)))
    earmark.good("claim --gpus 1 --consumer vm-1")
    assert f"pci:{B} stays in quarantine: it is for one use; earmark return gives it back" in earmark.good("release vm-1")
    assert listed(earmark)[f"pci:{B}"][0] == "quarantined"
    assert earmark("claim --gpus 1").code == 3
    earmark.good(f"return pci:{B} --reason 'flashed anew'")
    assert listed(earmark)[f"pci:{B}"][0] == "free"


@pytest.mark.rule("P25", "L11")
def test_what_a_deleted_instance_used_up_is_not_called_free(earmark: Line, tmp_path: Path) -> None:
    """Of what an instance held, the answer says apart what is free and what waits in quarantine for a person."""
    earmark.good("node devices --policy", str(file(tmp_path, "a.yaml", POLICY)))
    earmark.good("instance create vm-1")
    earmark.good("claim --cpus 1 --gpus 1 --consumer vm-1")
    said = earmark.good("instance delete vm-1").splitlines()[1:]
    assert [line.partition(" (")[0] for line in said] == ["  freed on n1: 1 shared vCPU", f"  in quarantine on n1: pci:{B}"]
    earmark.good(f"return pci:{B} --reason 'flashed anew'")
    earmark.good("instance create vm-2")
    earmark.good("claim --gpus 1 --consumer vm-2")
    found = json.loads(earmark.good("instance delete vm-2 --json"))["freed"]
    assert [(each["holds"], each["state"]) for each in found] == [(f"pci:{B}", "quarantined")]


def test_units_of_a_policy_are_named_like_any_other(earmark: Line, tmp_path: Path) -> None:
    """An instance and a named resource can be asked after, cordoned and opened by name."""
    earmark.good("node devices --policy", str(file(tmp_path, "a.yaml", POLICY)))
    for unit in (f"mdev:{A}/nvidia-36/1", "named:CUSTOM_LICENCE/dongle-1"):
        assert "free" in earmark.good(f"who {unit}")
        earmark.good(f"node cordon {unit} --reason odd")
        assert listed(earmark)[unit][0] == "cordoned"
        earmark.good(f"node uncordon {unit}")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("node devices --check", "--check says what a --policy FILE would change: name one"),
        ("node devices --policy /nowhere/x.yaml", "/nowhere/x.yaml: cannot be read: No such file or directory"),
        ("node devices nowhere", "nowhere"),
    ],
)
def test_mistakes_are_told(earmark: Line, words: str, said: str) -> None:
    """A mistake ends with 2, says what is wrong, and changes nothing."""
    before = earmark.bench.tracker.node()
    found = earmark(words)
    assert (found.code, said in found.err) == (2, True), found
    assert earmark.bench.tracker.node() == before


def test_a_policy_that_the_node_cannot_have_changes_nothing(earmark: Line, tmp_path: Path) -> None:
    """A class that the node has an inventory of, or a cell that it has not, is refused before anything is said to have changed."""
    earmark.good("node set inventory.CUSTOM_LICENCE=4")
    clash = earmark("node devices --policy", str(file(tmp_path, "a.yaml", POLICY)))
    assert (clash.code, clash.out) == (2, "")
    assert "CUSTOM_LICENCE is counted by its units and has an inventory too" in clash.err
    cell = earmark("node devices --policy", str(file(tmp_path, "a.json", '{"version": 1, "tunnel_cells": [7]}')))
    assert (cell.code, "cell 7" in cell.err) == (2, True)


@pytest.mark.rule("P10", "P26")
def test_a_wish_names_devices_and_spells_ids_as_a_policy_may() -> None:
    """Ids may have 0x and types `type-`; one device, or the card whose functions are meant, is named by `within`."""
    assert parse_device("pci,vendor_id=0x10DE,dev_type=type-PF").match == ({"vendor_id": "10de", "dev_type": "PF"},)
    assert parse_device(f"vf=2,within=pci:{A},within=pci:{B}:required") == DeviceRequest(
        kind="vf", count=2, within=(UnitId(f"pci:{A}"), UnitId(f"pci:{B}")), affinity="required"
    )
    for wrong in ("vf,vendor_id=intel", "vf,product_id=*", "vf,dev_type=sriov", "vf,within=", "vf,within=a b"):
        with pytest.raises(InvalidRequest):
            parse_device(wrong)


def test_one_card_is_claimed_by_its_name(earmark: Line) -> None:
    """What was asked for by name is given, and nothing else in its place."""
    assert f"pci:{B}" in earmark.good(f"claim --device gpu,within=pci:{B}")
    assert f"of pci:{B}" in earmark.good(f"why-not --device gpu,within=pci:{B}")


def test_a_card_is_found_where_it_sits_though_its_name_is_older(earmark: Line) -> None:
    """A card that is known again elsewhere is listed with its address, and found by it."""
    moved = "0000:43:00.0"
    earmark.bench.host.seen = box(card(moved, mdev_types=TYPES), card(B))
    earmark.bench.tracker.observe()
    assert f"pci:{A} at {moved}" in earmark.good("node devices")
    assert f"pci:{B} at" not in earmark.good("node devices")
    for text in (moved, f"pci:{moved}", "43:00.0", f"pci:{A}"):
        assert f"pci:{A} is free" in earmark.good(f"who {text}")
    assert "what earmark node devices lists" in earmark("who pci:0000:99:00.0").err
