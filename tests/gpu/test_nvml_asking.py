"""NVML is asked through its real binding in a process of its own: what it tells, and that it can hang, crash or be absent."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from tests.gpu.boxes_of_gpus import ADDRESSES, MEMORY, at, box, lines, pairs, unit, uuid
from tests.gpu.conftest import Describe

from earmark.core.model.topology import MIG, MIG_PARENT, Machine
from earmark.drivers.nvml.asking import ask, seen_in
from earmark.drivers.nvml.driver import NvmlDriver
from earmark.drivers.nvml.facts import LIBRARY_NOT_FOUND, NO_BINDING, Seen
from earmark.drivers.sysfs.observe import SysfsDriver

SLICE = 10 * 1024**3


def looked(root: Path, timeout_s: float = 20.0) -> Machine:
    """Return what the whole driver sees of a made-up host."""
    return SysfsDriver(root, gpus=lambda: NvmlDriver(ask=lambda: ask(timeout_s))).observe().machine


def test_eight_gpus_in_pairs(describe: Describe, tmp_path: Path) -> None:
    """Whole GPUs are named by UUID, sit where the kernel says, have their memory and name, and are linked to their peers."""
    describe(lines() + pairs())
    machine = looked(box(tmp_path / "root").path)
    assert (machine.notes, machine.unread) == ((), ())
    for number in range(8):
        gpu = at(machine, number)
        assert (gpu.unit, gpu.kind, gpu.cell, gpu.memory_bytes) == (unit(number), "gpu", number // 4, MEMORY)
        assert (gpu.links, gpu.name, gpu.fault) == ((unit(number ^ 1),), "NVIDIA H100 80GB HBM3", None)
        assert gpu.identity == f"10de:2330:10de:16c1:{uuid(number)}"


def test_instances_are_devices_and_their_gpu_is_none(describe: Describe, tmp_path: Path) -> None:
    """A GPU that is cut is a `mig-parent` without links; each instance is a device of its own with its memory and its GPU's cell."""
    parts = "".join(f"part 4 {uuid(100 + part, 'MIG')} {SLICE} NVIDIA_H100_80GB_HBM3_MIG_1g.10gb\n" for part in range(2))
    describe(lines() + pairs() + "mig 4 1 1\n" + parts + "mig 5 1 0\nmig 6 0 1\n")
    machine = looked(box(tmp_path / "root").path)
    cut = at(machine, 4)
    assert (cut.kind, cut.links, at(machine, 5).links) == (MIG_PARENT, (), ())
    found = [device for device in machine.devices if device.kind == MIG]
    assert [(each.unit, each.parent, each.cell, each.memory_bytes, each.address) for each in found] == [
        (unit(100 + part, "MIG"), cut.unit, 1, SLICE, None) for part in range(2)
    ]
    assert {(each.name, each.profile) for each in found} == {("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "1g.10gb")}
    assert {device.profile for device in machine.devices if device.kind != MIG} == {None}
    assert machine.notes == (
        f"{unit(5)}: MIG is on and there is no instance: nothing of it can be handed out",
        f"{unit(5)}: MIG goes off when the GPU is reset next",
        f"{unit(6)}: MIG goes on when the GPU is reset next",
    )


def test_gpus_on_switches_are_linked_to_all_that_reach_one(describe: Describe, tmp_path: Path) -> None:
    """GPUs that reach the same NVSwitch are linked; a link that is down, or leads elsewhere, links nothing."""
    switches = "".join(f"link {number} 0 switch 0000:c{number // 4}:00.0\n" for number in range(8))
    describe(lines() + switches + f"link 0 1 down {ADDRESSES[7]}\nlink 0 2 other {ADDRESSES[6]}\n")
    machine = looked(box(tmp_path / "root").path)
    assert at(machine, 0).links == (unit(1), unit(2), unit(3))
    assert at(machine, 7).links == (unit(4), unit(5), unit(6))


def test_a_link_that_one_side_tells_is_there(describe: Describe, tmp_path: Path) -> None:
    """Links are symmetric, whichever side tells them."""
    describe(lines(3) + f"link 0 0 gpu {ADDRESSES[2]}\n")
    machine = looked(box(tmp_path / "root", 3).path)
    assert [at(machine, number).links for number in range(3)] == [(unit(2),), (), (unit(0),)]


@pytest.mark.parametrize("question", ["handle", "uuid", "memory"])
def test_a_lost_gpu_has_a_fault(describe: Describe, tmp_path: Path, question: str) -> None:
    """A GPU that fell off the bus keeps its place, has a fault and a note, whichever question it fails on; the others are as they were."""
    describe(lines(4) + f"error 2 15 {question}\n")
    machine = looked(box(tmp_path / "root", 4).path)
    fault = at(machine, 2).fault
    assert fault is not None
    assert "GPU is lost (NVML 15" in fault
    assert [at(machine, number).fault for number in (0, 1, 3)] == [None] * 3
    assert any("not handed out" in note for note in machine.notes)


def test_an_unknown_error_on_a_side_question_is_a_note_and_no_fault(describe: Describe, tmp_path: Path) -> None:
    """A GPU whose links cannot be read is handed out; what could not be read is said."""
    describe(lines(2) + "error 1 999 link\nerror 0 4 mig\n")
    machine = looked(box(tmp_path / "root", 2).path)
    assert [at(machine, number).fault for number in (0, 1)] == [None, None]
    assert [note.partition(": ")[2] for note in machine.notes] == [
        "its MIG mode could not be read: Insufficient Permissions (NVML 4)",
        "its link could not be read: Unknown Error (NVML 999)",
    ]
    assert machine.unread == (unit(0),)


def test_a_gpu_that_the_kernel_does_not_show_is_seen_through_nvml(describe: Describe, tmp_path: Path) -> None:
    """Where the bus is hidden, NVML's own address, ids and memory affinity make the device."""
    describe(lines(1) + "affinity 0 1\n")
    machine = NvmlDriver(always=True).enrich(box(tmp_path / "root", 0).machine())
    gpu = at(machine, 0)
    assert (gpu.unit, gpu.cell, gpu.vendor_id, gpu.product_id, gpu.identity) == (
        unit(0),
        1,
        "10de",
        "2330",
        f"10de:2330:10de:16c1:{uuid(0)}",
    )


@pytest.mark.long
def test_a_driver_that_hangs_is_not_waited_for(describe: Describe, tmp_path: Path) -> None:
    """What was told before the time was over counts; the GPUs behind are unread, with a note, and nothing hangs."""
    describe(lines(4) + "hang 2\n")
    began = time.monotonic()
    machine = looked(box(tmp_path / "root", 4).path, timeout_s=2.0)
    assert time.monotonic() - began < 10
    assert [at(machine, number).memory_bytes for number in range(4)] == [MEMORY, MEMORY, None, None]
    assert machine.unread == ("pci:0000:43:00.0", "pci:0000:44:00.0")
    assert "NVML told 2 of 4 GPUs: no end after 2 s" in machine.notes


@pytest.mark.long
def test_a_driver_that_hangs_at_once_tells_nothing(describe: Describe, tmp_path: Path) -> None:
    """Where not even the library starts, the GPUs are what the kernel says, unread, with a note."""
    describe(lines(1) + "hang -1\n")
    machine = looked(box(tmp_path / "root", 1).path, timeout_s=1.0)
    assert (at(machine, 0).unit, machine.unread) == ("pci:0000:41:00.0", ("pci:0000:41:00.0",))
    assert "NVML told 0 of unknown GPUs: no end after 1 s" in machine.notes


def test_a_library_that_crashes_takes_nothing_with_it(describe: Describe, tmp_path: Path) -> None:
    """A crash is the end of the process that asked; what it had told counts."""
    describe(lines(2) + "crash 1\n")
    machine = looked(box(tmp_path / "root", 2).path)
    assert [at(machine, number).memory_bytes for number in (0, 1)] == [MEMORY, None]
    assert any(note.startswith("NVML told 1 of 2 GPUs: its process ended by signal") for note in machine.notes)


def test_a_driver_of_another_version_is_a_note(describe: Describe, tmp_path: Path) -> None:
    """After an update of the driver the library cannot talk to it: said once, nothing guessed, nothing renamed."""
    describe("init 18\n")
    root = box(tmp_path / "root", 2)
    machine = looked(root.path)
    assert machine.devices == root.machine().devices
    assert machine.unread == ("pci:0000:41:00.0", "pci:0000:42:00.0")
    assert [note for note in machine.notes if "NVML 18" in note]


def test_a_library_that_cannot_be_loaded_is_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver without its library, or a broken one, is told apart from a binding that is not installed."""
    (tmp_path / "libnvidia-ml.so.1").write_text("no library")
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    seen = ask()
    assert seen.failure is not None
    assert seen.failure.code == LIBRARY_NOT_FOUND
    assert any("libnvidia-ml.so.1" in note for note in looked(box(tmp_path / "root", 1).path).notes)


def test_without_the_binding_the_note_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Earmark without its extra `gpu` works and says what it does not know and how to know it."""
    (tmp_path / "pynvml.py").write_text("raise ImportError('no binding')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    seen = ask()
    assert seen.failure is not None
    assert seen.failure.code == NO_BINDING
    assert any("pip install 'earmark[gpu]'" in note for note in looked(box(tmp_path / "root", 1).path).notes)


def test_a_machine_without_such_gpus_asks_nothing(tmp_path: Path) -> None:
    """Where no GPU is bound to NVIDIA's driver, no process is started and no note is made."""

    def never() -> Seen:
        raise AssertionError

    for root in (box(tmp_path / "none", 0), box(tmp_path / "vfio", 2, driver="vfio-pci"), box(tmp_path / "unbound", 2, driver=None)):
        machine = root.machine()
        assert NvmlDriver(ask=never).enrich(machine) == machine


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"{}",
        b"\xff\n",
        b'{"count": -1}\n',
        b'{"gpu": {"index": 0, "address": "somewhere"}}\n',
        b'{"more": 1}\n',
        b'{"count": 1}\n{"gpu"',
    ],
)
def test_what_is_not_understood_ends_the_telling(said: bytes) -> None:
    """A process that says nothing, half a line, or what no GPU can be, is no reason to fail and none to believe it."""
    seen = seen_in(said, None)
    assert seen.gpus == ()
    assert seen.cut is not None
