"""Devices asked for by their memory, and MIG instances by their profile: which answer, which is taken, and what a no says."""

from __future__ import annotations

import pytest
from tests.fit.test_fit_device_live import SHARED, gpu, granted, held, refused, world
from tests.fit.test_fit_device_live import wish as request
from tests.fit.test_fit_device_rules import EVERYWHERE, plain, stock, units, wish

from earmark.core.fit.devices.offer import offered
from earmark.core.fit.proof.certify_devices import DeviceCheck, answers
from earmark.core.fit.proof.judge import judge
from earmark.core.fit.request import check_request
from earmark.core.model.ids import UnitId
from earmark.core.model.request import DeviceRequest
from earmark.core.model.topology import MIG, Device
from earmark.core.model.units import GIB
from earmark.errors import InvalidRequest

SIZES = (80 * GIB, 24 * GIB, None, 40 * GIB)
MIXED = stock(*(plain(n, memory_bytes=size) for n, size in enumerate(SIZES)))
"""Four GPUs: 40 of 80 GiB, 41 of 24 GiB, 42 of which nobody knows, 43 of 40 GiB."""
BUSES = {f"0000:{0x40 + n:02x}:00.0": n for n in range(len(SIZES))}


def chosen(*sizes: int | None, count: int = 1) -> list[list[int]] | None:
    """Return which of the four GPUs are chosen for wishes of so much memory each, by number."""
    found = units(MIXED, *(wish("gpu", count, memory_bytes=None if size is None else size * GIB) for size in sizes))
    return None if found is None else [[BUSES[address] for address in some] for some in found]


def test_the_smallest_device_that_suffices_is_taken() -> None:
    """Each wish gets the smallest GPU that has enough; whoever says nothing gets one that nobody can ask for by its memory."""
    assert chosen(41) == chosen(80) == [[0]]
    assert chosen(25) == chosen(40) == [[3]]
    assert chosen(24) == chosen(1) == [[1]]
    assert chosen(None) == [[2]]
    assert chosen(1, count=2) == [[1, 3]]
    assert chosen(None, 30, 80, 10) == [[2], [3], [0], [1]]


def test_a_device_has_enough_memory_or_is_not_given() -> None:
    """One byte more than the largest has is a no, and so are more devices than have enough; memory that is not known is none."""
    assert units(MIXED, wish("gpu", memory_bytes=80 * GIB + 1)) is None
    assert chosen(40, count=2) == [[0, 3]]
    assert chosen(40, count=3) is None
    assert chosen(1, count=4) is None
    assert chosen(None, count=4) == [[0, 1, 2, 3]]


def test_a_wish_that_says_nothing_leaves_large_devices_to_those_who_need_them() -> None:
    """In whichever order they ask, three small wishes and a large one are served together."""
    small = wish("gpu", 3)
    for wishes in ((small, wish("gpu", memory_bytes=80 * GIB)), (wish("gpu", memory_bytes=80 * GIB), small)):
        found = units(MIXED, *wishes)
        assert found is not None
        assert found[wishes.index(small)] == ["0000:41:00.0", "0000:42:00.0", "0000:43:00.0"]


def test_near_devices_and_whole_pairs_count_more_than_memory() -> None:
    """A larger GPU of the guest's own cell is nearer than a small one elsewhere, and no pair is broken to save memory."""
    far = stock(plain(0, cell=0, memory_bytes=80 * GIB), plain(1, cell=1, memory_bytes=24 * GIB))
    assert units(far, wish("gpu"), cells=frozenset({0})) == [["0000:40:00.0"]]
    assert units(far, wish("gpu"), cells=frozenset({1})) == [["0000:41:00.0"]]
    pair = [plain(n, memory_bytes=24 * GIB, links=(plain(1 - n).unit,)) for n in range(2)]
    assert units(stock(*pair, plain(2, memory_bytes=80 * GIB)), wish("gpu")) == [["0000:42:00.0"]]
    assert units(stock(*pair, plain(2, memory_bytes=80 * GIB)), wish("gpu", 2, linked=True, memory_bytes=25 * GIB)) is None


def test_a_share_brings_its_part_of_the_memory() -> None:
    """Half of an 80 GiB GPU has 40 GiB and not a byte more; the smallest GPU of which a part suffices is cut."""
    there = stock(*(plain(n, memory_bytes=size * GIB, shares=True) for n, size in enumerate((80, 40))))
    assert units(there, wish("gpu", share=500, memory_bytes=20 * GIB)) == [["0000:41:00.0"]]
    assert units(there, wish("gpu", share=500, memory_bytes=20 * GIB + 1)) == [["0000:40:00.0"]]
    assert units(there, wish("gpu", share=500, memory_bytes=40 * GIB)) == [["0000:40:00.0"]]
    assert units(there, wish("gpu", share=500, memory_bytes=40 * GIB + 1)) is None
    odd = plain(0, memory_bytes=100, shares=True)
    for share, memory in ((333, 33), (333, 34), (335, 33), (1, 1), (10, 1), (1000, 100), (999, 100)):
        one = wish("gpu", share=share, memory_bytes=memory)
        enough = share * 100 >= memory * 1000
        assert (units(stock(odd), one) is not None) == answers(one, odd, stock(odd)) == enough, (share, memory)


def test_instances_are_asked_for_by_their_profile() -> None:
    """`profile` is how a MIG instance is cut, in either case; a tag of that name that the policy gives counts instead."""
    parts = [
        Device(unit=UnitId(f"gpu:MIG-{n}"), kind=MIG, parent=UnitId("gpu:GPU-0"), memory_bytes=size * GIB, profile=profile)
        for n, (size, profile) in enumerate(((20, "2g.20gb"), (10, "1g.10gb"), (10, None)))
    ]
    own = Device(unit=UnitId("gpu:MIG-9"), kind=MIG, parent=UnitId("gpu:GPU-1"), profile="1g.10gb", tags=(("profile", "gold"),))
    there = stock(*parts, own)

    def named(profile: str, count: int = 1) -> list[str] | None:
        """Return the instances that are chosen for a profile."""
        one = DeviceRequest(kind=MIG, count=count, match=({"profile": profile},))
        found = offered((one,), there).choose(EVERYWHERE)
        assert DeviceCheck((one,), there).enough(EVERYWHERE) == (found is not None)
        return None if found is None else [device.unit for device in found[0]]

    assert named("1G.10gb") == ["gpu:MIG-1"]
    assert named("2g.20gb") == ["gpu:MIG-0"]
    assert named("gold") == ["gpu:MIG-9"]
    assert named("1g.10gb", 2) is named("3g.40gb") is None


def test_a_no_says_how_much_the_others_have_and_what_would_fit() -> None:
    """The refusal names the memory that was asked for, what the GPUs that are there have, and the most that could be asked for instead."""
    there = world(gpu(0, memory_bytes=24 * GIB), gpu(1, memory_bytes=24 * GIB), gpu(2, memory_bytes=16 * GIB), gpu(3))
    answer = refused(there, request(DeviceRequest(kind="gpu", count=2, memory_bytes=40 * GIB)))
    (reason,) = answer.reasons
    assert (reason.code, reason.resource, reason.asked, reason.free) == ("short", "device:gpu", 2, 0)
    assert reason.detail == (
        "the node has none that can be given now (at least 40 GiB each); the others have 24 GiB, 16 GiB, no memory that is known"
    )
    assert answer.fits_if == ("gpu with 24 GiB instead of 40 GiB",)
    three = refused(there, request(DeviceRequest(kind="gpu", count=3, memory_bytes=20 * GIB)))
    assert (
        three.reasons[0].detail == "2 of this kind can be given now (at least 20 GiB each); the others have 16 GiB, no memory that is known"
    )
    assert three.fits_if == ("gpu with 16 GiB instead of 20 GiB", "2 gpu devices instead of 3")


def test_a_no_for_a_share_says_how_large_a_part_would_fit() -> None:
    """What would fit is the part of the memory that the share brings."""
    there = world(gpu(0, memory_bytes=24 * GIB), settings=SHARED)
    answer = refused(there, request(DeviceRequest(kind="gpu", share=500, memory_bytes=20 * GIB)))
    assert answer.fits_if == ("gpu with 12 GiB instead of 20 GiB",)


def test_a_prescribed_grant_is_judged_by_memory_too() -> None:
    """A grant of a GPU that is too small is not what was asked for."""
    there = world(gpu(0, memory_bytes=24 * GIB), gpu(1, memory_bytes=80 * GIB))
    large, any_size = request(DeviceRequest(kind="gpu", memory_bytes=25 * GIB)), request(DeviceRequest(kind="gpu"))
    assert held(granted(there, large)) == ["pci:0000:01:00.0"]
    small = granted(there, any_size)
    assert held(small) == ["pci:0000:00:00.0"]
    answer = judge(small, there.supply, large)
    assert answer is not None
    assert [reason.code for reason in answer.reasons] == ["mismatch"]


@pytest.mark.parametrize("size", [0, -1, (1 << 60) + 1])
def test_memory_of_devices_is_an_amount(size: int) -> None:
    """None of it, less than none and more than can be are no wishes."""
    with pytest.raises(InvalidRequest, match="memory_bytes"):
        check_request(request(DeviceRequest(kind="gpu", memory_bytes=size)))
