"""A machine in one line: what it says, and that every other text is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from earmark.core.fit.layout import build_layout
from earmark.core.model.node import NodeSettings
from earmark.core.model.shape import machine_of
from earmark.core.model.units import GIB
from earmark.errors import InvalidRequest


def test_a_line_is_a_machine() -> None:
    """Cells, cores, threads, memory split evenly, pages per cell, a disk, devices dealt to the cells, a PF with its VFs."""
    machine = machine_of("2x8c/2t 64G 2M:1024 1G:2 disk:1T gpu:3 vf:2")
    assert (len(machine.cpus), len(machine.cells), machine.cpus[3].core, machine.cpus[16].cell) == (32, 2, 2, 1)
    assert [cell.memory_bytes for cell in machine.cells] == [32 * GIB, 32 * GIB]
    assert [(pool.size_kib, pool.total) for pool in machine.cells[1].pages] == [(2048, 1024), (1 << 20, 2)]
    assert machine.disks[0].total_bytes == 1024 * GIB
    assert [device.cell for device in machine.devices if device.kind == "gpu"] == [0, 1, 0]
    vfs = [device for device in machine.devices if device.kind == "vf"]
    assert [device.parent for device in vfs] == ["pci:0000:0a:00.0"] * 2


def test_what_is_left_out_has_a_default() -> None:
    """One cell, one thread, 16 GiB a cell, a disk of 200 GiB; `disk:0` is no disk."""
    machine = machine_of("4c")
    assert (len(machine.cpus), len(machine.cells), machine.cells[0].memory_bytes) == (4, 1, 16 * GIB)
    assert machine.disks[0].total_bytes == 200 * GIB
    assert machine_of("4c disk:0").disks == ()


def test_cells_that_are_not_alike_are_joined() -> None:
    """Each has cores, threads, memory and pages of its own; devices lie where it is said, sockets have as many cells each."""
    machine = machine_of("8c/2t/32G/2M:1024+4c/16G+2x1c 1G:2 gpu:1@1 gpu:2@0 nvme:1@none nvme:1@3 sockets:2")
    assert [len(cell.cpus) for cell in machine.cells] == [16, 4, 1, 1]
    assert [cell.memory_bytes // GIB for cell in machine.cells] == [32, 16, 16, 16]
    assert [[pool.size_kib for pool in cell.pages] for cell in machine.cells] == [[2048, 1 << 20], *[[1 << 20]] * 3]
    assert [machine.cpus[n].package for n in (0, 16, 20, 21)] == [0, 0, 1, 1]
    assert [machine.cpus[n].core for n in (0, 1, 16, 17)] == [0, 0, 16, 17]
    assert [(device.unit, device.cell) for device in machine.devices] == [
        ("gpu:GPU-0", 1), ("gpu:GPU-1", 0), ("gpu:GPU-2", 0), ("nvme:0", None), ("nvme:1", 3),
    ]  # fmt: skip
    assert machine_of("2x8c/2t 64G") == machine_of("8c/2t/32G+8c/2t/32G")


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "8", "0c", "8c/0t", "0x8c", "2000x1c", "1x99999c", "8c -1G", "8c x", "8c 2M:", "8c 2M:x", "8c 2M:1 2M:1", "8c 1G 2M:1024",
        "8c+", "+8c", "8c/1G+8c 4G", "8c/1G/2G", "8c/q", "8c/1G/2M:1000", "8c/2M:1/2M:1", "8c/2M:1 2M:2", "0c+8c", "8c sockets:0", "8c sockets:2",
        "8c gpu:1@1", "8c gpu:1@x", "8c gpu:1@", "8c gpu:@0", "8c gpu:1@0 gpu:1", "8c gpu:1 gpu:1@0 gpu:1", "8c vf:1@0", "8c gpu:99999@0",
        "8c gpu:-1", "8c gpu:1 gpu:2", "8c GPU:1", "8c g-u:1", "8c vf:256", "8c gpu:99999", "8c :", "8c disk:", "8c disk:x", "8c 1:5", "8c a:1:2",
    ],
)  # fmt: skip
def test_another_text_is_refused(text: str) -> None:
    """The error shows the whole text; nothing is guessed."""
    with pytest.raises(InvalidRequest) as caught:
        machine_of(text)
    assert repr(text)[1:-1] in caught.value.message


@given(st.text(alphabet="0123456789xc/tGM:disk gpuvf-.+@\u0660\u00d7", max_size=30))
def test_any_text_is_a_machine_or_refused(text: str) -> None:
    """Whatever is typed ends with a machine on which a layout can be built, or with InvalidRequest."""
    try:
        machine = machine_of(text)
    except InvalidRequest:
        return
    build_layout(machine, NodeSettings())
