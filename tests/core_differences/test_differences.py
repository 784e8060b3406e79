"""What changed between two looks at a machine: in words, in units, and in names that must stay."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from earmark.core.ledger.differences import LINES_MAX, differences, vanished_units
from earmark.core.ledger.naming import contradict, with_known_names
from earmark.core.model.ids import UNIT, UnitId
from earmark.core.model.topology import Cell, Cpu, Device, Disk, Machine, PagePool

GIB = 1 << 30
A, B = "0000:41:00.0", "0000:42:00.0"
UUID = "GPU-8e94a1b2-0000-1111-2222-333344445555"


def gpu(address: str, serial: str | None = None, product: str = "2330", **more: object) -> Device:
    """Return a GPU, named as a driver names it."""
    identity = f"10de:{product}:10de:1626"
    device = Device(
        unit=UnitId(f"gpu:{serial}" if serial else f"pci:{address}"),
        kind="gpu",
        address=address,
        vendor_id="10de",
        product_id=product,
        identity=f"{identity}:{serial}" if serial else identity,
    )
    return replace(device, **more)


def machine(**more: object) -> Machine:
    """Return a machine of four CPUs and one cell."""
    plain = Machine(
        cpus=tuple(Cpu(id=cpu, core=cpu // 2 * 2, cell=0) for cpu in range(4)),
        cells=(Cell(id=0, cpus=(0, 1, 2, 3), memory_bytes=16 * GIB, pages=(PagePool(size_kib=2048, total=512),)),),
        disks=(Disk(name="root", total_bytes=100 * GIB),),
    )
    return replace(plain, **more)


OLD = machine()


def test_the_first_look_is_summed_up() -> None:
    """The first inventory is one line that says how much there is."""
    assert differences(None, OLD) == ("first seen: 4 CPUs in 2 cores, 1 cell with 16 GiB, 0 devices",)
    assert vanished_units(None, OLD) == frozenset()


def test_nothing_changed_is_no_line() -> None:
    """Equal machines have no difference."""
    assert differences(OLD, machine()) == ()
    assert vanished_units(OLD, machine()) == frozenset()
    assert with_known_names(OLD, OLD) == OLD


CASES: list[tuple[Machine, Machine, tuple[str, ...]]] = [
    (OLD, machine(cpus=OLD.cpus[:2]), ("CPUs 2-3 gone",)),
    (OLD, machine(cpus=OLD.cpus[:3], offline_cpus=(3,)), ("CPU 3 offline now",)),
    (machine(cpus=OLD.cpus[:3], offline_cpus=(3,)), OLD, ("CPU 3 online now",)),
    (machine(cpus=OLD.cpus[:1]), machine(offline_cpus=(9,)), ("CPUs 1-3 added", "CPU 9 added, offline")),
    (machine(offline_cpus=(7,)), OLD, ("CPU 7 gone",)),
    (OLD, machine(cpus=tuple(replace(cpu, core=cpu.id) for cpu in OLD.cpus)), ("CPUs 1,3 in another core",)),
    (OLD, machine(cpus=tuple(replace(cpu, isolated=cpu.id > 1) for cpu in OLD.cpus)), ("CPUs 2-3 isolated now",)),
    (OLD, machine(cpus=tuple(replace(cpu, kind="efficiency", l3=0, die=1) for cpu in OLD.cpus)), (
        "CPUs 0-3 in another package or die", "CPUs 0-3 with another last-level cache", "CPUs 0-3 of another kind",
    )),
    (OLD, machine(cells=(replace(OLD.cells[0], memory_bytes=16 * GIB - (40 << 20)),)), ("cell 0: memory 16 GiB -> 16 GiB (-40 MiB)",)),
    (OLD, machine(cells=(replace(OLD.cells[0], pages=(PagePool(size_kib=1048576, total=2),)),)), (
        "cell 0: pages of 2 MiB 512 -> none", "cell 0: pages of 1 GiB none -> 2",
    )),
    (OLD, machine(cells=(*OLD.cells, Cell(id=3, memory_bytes=GIB))), ("cell 3 added (0 CPUs, 1 GiB)",)),
    (machine(cells=(*OLD.cells, Cell(id=3, memory_bytes=GIB))), OLD, ("cell 3 gone (1 GiB)",)),
    (OLD, machine(devices=(gpu(A),)), (f"device pci:{A} added (gpu, 10de:2330, {A})",)),
    (machine(devices=(gpu(A),)), OLD, (f"device pci:{A} gone (gpu, 10de:2330, {A})",)),
    (machine(devices=(gpu(A, UUID),)), machine(devices=(gpu(B, UUID),)), (f"device gpu:{UUID} moved from {A} to {B}",)),
    (machine(devices=(gpu(A),)), machine(devices=(gpu(A, product="2901"),)), (
        f"device pci:{A} is another device now: 10de:2330:10de:1626 -> 10de:2901:10de:1626",
    )),
    (machine(devices=(gpu(A, driver="nvidia", cell=0),)), machine(devices=(gpu(A, driver="vfio-pci"),)), (
        f"device pci:{A}: driver nvidia -> vfio-pci", f"device pci:{A}: cell 0 -> none",
    )),
    (OLD, machine(disks=(Disk(name="root", total_bytes=110 * GIB), Disk(name="s", total_bytes=GIB))), (
        "disk root: 100 GiB -> 110 GiB (+10 GiB)", "disk s added (1 GiB)",
    )),
    (OLD, machine(usable_cpus=(0, 1), memory_limit_bytes=8 * GIB), ("usable CPUs all -> 0-1", "memory limit none -> 8 GiB")),
    (machine(memory_limit_bytes=8 * GIB), machine(memory_limit_bytes=4 * GIB), ("memory limit 8 GiB -> 4 GiB (-4 GiB)",)),
    (machine(notes=("x",), traits=("A",)), machine(notes=("y",), traits=("B",)), ("trait A gone", "trait B added", "new note: y", "no longer: x")),
    (OLD, machine(cores_named=False), ("details of the machine that no line names",)),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "lines"), CASES)
def test_each_change_has_its_line(old: Machine, new: Machine, lines: tuple[str, ...]) -> None:
    """Every kind of change is one readable line, in the order of the machine."""
    assert differences(old, new) == lines


def test_lines_are_bounded() -> None:
    """A thousand changes are LINES_MAX lines, the last of which counts the rest; a line has a bound too."""
    many = machine(
        devices=tuple(sorted((gpu(f"0000:{bus:02x}:00.0") for bus in range(250)), key=lambda device: device.unit)), notes=("n" * 5000,)
    )
    lines = differences(OLD, many)
    assert len(lines) == LINES_MAX
    assert lines[-1] == f"and {251 - LINES_MAX + 1} more differences"
    assert max(map(len, differences(OLD, machine(notes=("n" * 5000,))))) <= 200


def test_vanished_units() -> None:
    """CPUs that are gone or offline, devices that are gone, and devices replaced by another under their name have vanished."""
    old = machine(devices=(gpu(A), gpu(B, UUID)))
    new = machine(cpus=OLD.cpus[:2], offline_cpus=(2,), devices=(gpu(A, product="2901"),))
    assert vanished_units(old, new) == {"cpu:2", "cpu:3", f"pci:{A}", f"gpu:{UUID}"}
    assert vanished_units(new, machine(devices=new.devices)) == frozenset()


# --- names that stay ----------------------------------------------------------------------------------------------------------------


def test_binding_another_driver_renames_nothing() -> None:
    """A GPU bound to vfio-pci shows no UUID any more: it keeps its name and serial, and nothing vanishes."""
    old = machine(devices=(gpu(A, UUID, driver="nvidia"),))
    new = with_known_names(old, machine(devices=(gpu(A, driver="vfio-pci"),)))
    assert [device.unit for device in new.devices] == [f"gpu:{UUID}"]
    assert new.devices[0].identity == f"10de:2330:10de:1626:{UUID}"
    assert vanished_units(old, new) == frozenset()
    assert differences(old, new) == (f"device gpu:{UUID}: driver nvidia -> vfio-pci",)


def test_a_serial_that_shows_later_renames_nothing() -> None:
    """A GPU first seen without its UUID keeps the name by which it may be held, and learns its serial."""
    old = machine(devices=(gpu(A),))
    new = with_known_names(old, machine(devices=(gpu(A, UUID),)))
    assert [(device.unit, device.identity) for device in new.devices] == [(f"pci:{A}", f"10de:2330:10de:1626:{UUID}")]
    assert with_known_names(new, machine(devices=(gpu(A),))).devices == new.devices


def test_a_card_that_moved_keeps_its_name() -> None:
    """A serial goes with the card to another address, also when another card takes its old place."""
    other = "GPU-ffffffff-0000-1111-2222-333344445555"
    old = machine(devices=(gpu(A, UUID),))
    new = with_known_names(old, machine(devices=tuple(sorted((gpu(B, UUID), gpu(A, other)), key=lambda device: device.unit))))
    assert {device.unit: device.address for device in new.devices} == {f"gpu:{UUID}": B, f"gpu:{other}": A}
    assert vanished_units(old, new) == frozenset()


def test_another_device_at_the_same_address_is_another_unit() -> None:
    """A new card where an old one was named by its address gets its own name, stays under it, and the old unit has vanished."""
    old = machine(devices=(gpu(A),))
    new = with_known_names(old, machine(devices=(gpu(A, product="2901"),)))
    assert [device.unit for device in new.devices] == [f"pci:{A}/10de:2901:10de:1626"]
    assert vanished_units(old, new) == {f"pci:{A}"}
    assert with_known_names(new, machine(devices=(gpu(A, product="2901"),))) == new
    back = with_known_names(new, old)
    assert [device.unit for device in back.devices] == [f"pci:{A}/10de:2330:10de:1626"]


def test_children_follow_the_name_of_their_parent() -> None:
    """Virtual functions name their parent by the name that it keeps."""
    old = machine(devices=(gpu(A, UUID),))
    child = Device(unit=UnitId("pci:0000:41:00.4"), kind="vf", address="0000:41:00.4", parent=UnitId(f"pci:{A}"))
    new = with_known_names(old, machine(devices=(gpu(A), child)))
    assert {device.unit: device.parent for device in new.devices} == {f"gpu:{UUID}": None, "pci:0000:41:00.4": f"gpu:{UUID}"}


@pytest.mark.parametrize(
    ("one", "other", "answer"),
    [
        ("a:b:c:d", "a:b:c:d", False), ("a:b:c:d", "a:b:c:d:S", False), ("a:b:c:d:S", "a:b:c:d:S", False), ("a:b:c:d:S", "a:b:c:d:T", True),
        ("a:b:c:d", "a:b:c:e", True), ("a:b:c:d:S", "a:x:c:d", True), (None, "a:b:c:d", False), ("a:b:c:d:S:1", "a:b:c:d:S:2", True),
    ],
)  # fmt: skip
def test_what_contradicts(one: str | None, other: str | None, answer: bool) -> None:
    """Known parts that differ contradict; a serial that only one look could read does not."""
    first, second = (Device(unit=UnitId("pci:x"), kind="gpu", identity=identity) for identity in (one, other))
    assert contradict(first, second) is answer
    assert contradict(second, first) is answer


SERIALS = st.sampled_from([None, "S1", "S2", "S3"])
DEVICES = st.dictionaries(st.sampled_from([A, B, "0000:43:00.0"]), st.tuples(SERIALS, st.sampled_from(["2330", "2901"]))).map(
    lambda found: tuple(
        sorted((gpu(address, serial, product) for address, (serial, product) in found.items()), key=lambda device: device.unit)
    )
)
UNAMBIGUOUS = DEVICES.filter(lambda devices: len({device.unit for device in devices}) == len(devices))


@given(UNAMBIGUOUS, UNAMBIGUOUS, UNAMBIGUOUS)
def test_names_are_unique_and_kept(first: tuple[Device, ...], second: tuple[Device, ...], third: tuple[Device, ...]) -> None:
    """Over any three looks names stay unique and well-formed, looking twice changes nothing, and no name passes to another device."""
    before = machine(devices=first)
    for devices in (second, third):
        after = with_known_names(before, machine(devices=devices))
        assert len({device.unit for device in after.devices}) == len(devices)
        assert all(UNIT.fullmatch(device.unit) for device in after.devices)
        assert sorted(device.address or "" for device in after.devices) == sorted(device.address or "" for device in devices)
        assert with_known_names(after, machine(devices=devices)) == after
        known = {device.unit: device for device in before.devices}
        assert not any(device.unit in known and contradict(device, known[device.unit]) for device in after.devices)
        assert bool(differences(before, after)) == (before != after)
        before = after
