"""What excludes what, as exclusion slots."""

from __future__ import annotations

import pytest

from earmark.core.model.exclusion import slot_table
from earmark.core.model.ids import Slot, UnitId
from earmark.core.model.topology import Device

PF = Device(unit=UnitId("pci:0000:3b:00.0"), kind="nic", address="0000:3b:00.0", sriov_total=4, sriov_offset=0x10, sriov_stride=1)
VFS = tuple(Device(unit=UnitId(f"pci:0000:3b:02.{n}"), kind="vf", address=f"0000:3b:02.{n}", parent=PF.unit) for n in range(4))


def test_a_parent_collides_with_each_child_and_children_with_none() -> None:
    """A physical function shares a slot with each of its virtual ones; two virtual ones share none."""
    table = {unit: set(slots) for unit, slots in slot_table([PF, *VFS]).items()}
    assert all(table[PF.unit] & table[vf.unit] for vf in VFS)
    assert not table[VFS[0].unit] & table[VFS[1].unit]


@pytest.mark.rule("P8")
def test_a_parent_collides_with_a_child_that_appears_later() -> None:
    """The slots of a physical function granted before its virtual ones existed are those of the ones that come."""
    before = set(slot_table([PF])[PF.unit])
    after = slot_table([PF, *VFS])
    assert all(before & set(after[vf.unit]) for vf in VFS)
    assert set(after[PF.unit]) == before


def test_an_unknown_offset_leaves_what_is_seen() -> None:
    """Without offset and stride a parent occupies itself and the children that are there."""
    bare = Device(unit=PF.unit, kind="nic", address=PF.address, sriov_total=4)
    assert slot_table([bare])[bare.unit] == (Slot(bare.unit),)
    assert len(slot_table([bare, *VFS])[bare.unit]) == 5
