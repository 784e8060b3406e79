"""What the command line says of a device that is given in parts, and of one that goes only with another: who, show, node devices, why-not."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace
from tests.cli.conftest import Line

SHAPE = "1x4c/16G gpu:3 vf:2"


@pytest.fixture
def box(earmark: Line, tmp_path: Path) -> Line:
    """Return a command line with a node `box` of three GPUs, of which the first two are given in parts: a quarter and a half of the first are."""
    policy = tmp_path / "devices.json"
    policy.write_text('{"version": 1, "rules": [{"units": ["gpu:GPU-0", "gpu:GPU-1"], "shares": true}]}')
    policy.chmod(0o644)
    earmark.good(f"node add box --shape '{SHAPE}'")
    earmark.good(f"node devices box --policy {policy}")
    earmark.good("claim --node box --gpu gpu:GPU-0 --gpu-share 0.25 --consumer notebook --owner ann")
    earmark.bench.clock.move(1000)
    earmark.good("claim --node box --gpu gpu:GPU-0 --gpu-share 500 --consumer service --owner ben")
    return earmark


def test_who_has_a_part_of_a_device_is_said(box: Line) -> None:
    """A device of which parts are held is not free: who and show name those who have them, oldest first, and how much."""
    said = box.good("who --node box gpu:GPU-0").splitlines()
    assert said[0] == "gpu:GPU-0 is shared, 750 of 1000 are held"
    assert [line.split(" (")[0].strip() for line in said[1:]] == ["shared by notebook of ann", "shared by service of ben"]
    assert [line.rsplit(" ", 1)[1] for line in said[1:]] == ["250/1000", "500/1000"]
    assert box.good("show --node box gpu:GPU-0").splitlines() == said
    found = box("who --node box gpu:GPU-0 --json").json()
    assert (found["state"], [one["thousandths"] for one in found["shared_by"]]) == ("shared", [250, 500])
    assert box.good("who --node box gpu:GPU-1") == "gpu:GPU-1 is free\n"


def test_a_cordon_is_seen_beside_what_is_held(box: Line) -> None:
    """A device that is shared or taken and cordoned is shown as both."""
    box.good("claim --node box --gpu gpu:GPU-2 --consumer whole")
    for unit, state in (("gpu:GPU-0", "shared 750/1000, cordoned"), ("gpu:GPU-2", "taken, cordoned"), ("gpu:GPU-1", "cordoned gpu ")):
        box.good(f"node cordon --node box {unit} --reason 'XID 79'")
        assert f"{unit} {state}" in " ".join(box.good("node devices box").split()) + " "
        assert "cordoned: XID 79" in box.good(f"who --node box {unit}")


def test_a_device_that_goes_only_with_another_is_no_free_one(box: Line) -> None:
    """The physical function of a virtual one that is held is excluded, and it is said whose doing that is."""
    box.good("claim --node box --device vf=1 --consumer net --owner ann")
    said = box.good("who --node box pci:0000:0a:00.0")
    assert said.startswith("pci:0000:0a:00.0 is excluded: what it goes with is held by net of ann (")
    assert "\n  with pci:0000:0a:00.1, since " in said


def test_why_a_part_cannot_be_had_is_said_with_what_is_left(box: Line) -> None:
    """A refusal says how large a part is left, and the part that would fit."""
    box.good("claim --node box --gpu gpu:GPU-1 --gpu-share 0.4 --consumer third")
    box.good("claim --node box --gpus 1")
    said = box.good("why-not --node box --gpu-share 0.7")
    assert "shares of 2 can be given now, of one 600 thousandths at most (700 thousandths each)" in said
    assert "  fits if 600/1000 of a gpu instead of 700/1000\n" in said


def test_a_device_that_the_node_has_not_is_named(box: Line) -> None:
    """Who names a device gets to know that there is none of that name."""
    refused = box("claim --node box --gpu gpu:GPU-7 --gpu gpu:GPU-8")
    assert refused.code == 3
    assert "the node has no gpu:GPU-7, gpu:GPU-8" in refused.err


def test_what_is_there_and_kept_back_is_counted(box: Line) -> None:
    """Of devices that would do, those that are not handed out are said, and whoever names one in place of a kind is told how to."""
    refused = box("claim --node box --device nic=1")
    assert "the node has none that can be given now; 1 that would do is not handed out (earmark node devices)" in refused.err
    named = box("claim --node box --device pci:0000:0a:00.1=1")
    assert (named.code, "gpu=2 is, or a kind and within=pci:0000:0a:00.1" in named.err) == (2, True)
    assert box.good("claim --node box --device vf=1,within=pci:0000:0a:00.1 -q")


def test_what_is_wrong_with_a_device_is_said_of_a_held_one_too(box: Line) -> None:
    """A fault that its driver tells is shown of a device that nobody holds, and beside the holder of one that is held."""
    box.good("claim --node box --gpu gpu:GPU-2 --consumer whole")
    machine = box.bench.tracker.node("box").machine
    assert machine is not None
    broken = [replace(device, fault="lost") if device.unit in ("gpu:GPU-1", "gpu:GPU-2") else device for device in machine.devices]
    box.bench.tracker.observe("box", replace(machine, devices=tuple(broken)))
    assert box.good("who --node box gpu:GPU-1") == "gpu:GPU-1 is faulty\n  faulty: lost\n"
    held = box.good("who --node box gpu:GPU-2").splitlines()
    assert held[0].startswith("gpu:GPU-2 is held by whole of ")
    assert held[-1] == "  faulty: lost"
    assert "gpu:GPU-2 taken, faulty gpu " in " ".join(box.good("node devices box").split())
    assert "2 that would do are faulty" in box.good("why-not --node box --gpus 2")
