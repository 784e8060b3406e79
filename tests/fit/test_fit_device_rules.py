"""The rules of the trade for devices, one by one, as the device solver keeps them."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from msgspec.structs import replace

from earmark.core.fit.devices.flow import Supply, Undecided
from earmark.core.fit.devices.offer import offered
from earmark.core.fit.ground import DeviceStock
from earmark.core.model.exclusion import slot_table
from earmark.core.model.ids import ResourceClass, Trait, UnitId
from earmark.core.model.request import Affinity, DeviceRequest
from earmark.core.model.topology import Device

INTEL = {"vendor_id": "8086"}
EVERYWHERE = frozenset({0, 1, 2, 3})


def card(functions: int, *, port: int = 0, cell: int | None = 0) -> list[Device]:
    """Return a network card as a physical function with virtual ones."""
    parent = UnitId(f"pci:0000:{port:02x}:00.0")
    listed = [
        Device(unit=parent, kind="nic", address=parent[4:], vendor_id="8086", product_id="1572", cell=cell, sriov_total=max(1, functions))
    ]
    for n in range(functions):
        address = f"0000:{port:02x}:{2 + n // 8:02x}.{n % 8}"
        unit = UnitId(f"pci:{address}")
        listed.append(
            Device(unit=unit, kind="vf", address=address, vendor_id="8086", product_id="154c", cell=cell, parent=parent, dev_type="VF")
        )
    return listed


def plain(n: int, cell: int | None = 0, **more: object) -> Device:
    """Return a device without children."""
    address = f"0000:{0x40 + n:02x}:00.0"
    made = Device(unit=UnitId(f"pci:{address}"), kind="gpu", address=address, vendor_id="10de", product_id="2330", cell=cell)
    return replace(made, **more)


def stock(
    *devices: Device, sockets: dict[int, int | None] | None = None, gone: Iterable[Device] = (), shares: dict[UnitId, int] | None = None
) -> DeviceStock:
    """Return the stock of some devices; `gone` are held by somebody."""
    held = {slot for device in gone for slot in slot_table(devices)[device.unit]}
    table = slot_table(devices)
    free = [device for device in devices if held.isdisjoint(table[device.unit])]
    return DeviceStock(
        devices=tuple(sorted(free, key=lambda device: (device.address or "", device.unit))),
        slots=table,
        sockets=sockets or {},
        shares=shares or {},
        addresses={device.unit: device.address or "" for device in devices},
    )


def wish(kind: str = "pci", count: int = 1, affinity: Affinity | None = "preferred", **more: object) -> DeviceRequest:
    """Return a wish; `dev_type` and the like make its only alternative."""
    match: dict[str, str] = {key: str(more.pop(key)) for key in ("dev_type", "vendor_id", "product_id", "address", "net") if key in more}
    made = DeviceRequest(kind=kind, count=count, affinity=affinity, match=(match,) if match else ())
    return replace(made, **more)


def units(there: DeviceStock, *wishes: DeviceRequest, cells: frozenset[int] | None = EVERYWHERE) -> list[list[str]] | None:
    """Return the addresses that are chosen for each wish, None if there are none."""
    chosen = offered(wishes, there).choose(cells)
    return None if chosen is None else [[device.address or "" for device in some] for some in chosen]


def most(there: DeviceStock, one: DeviceRequest, cells: frozenset[int] | None = EVERYWHERE) -> int:
    """Return how many devices a wish can get at most."""
    return max((n for n in range(1, 20) if units(there, replace(one, count=n), cells=cells) is not None), default=0)


# --- what excludes what -----------------------------------------------------------------------------------------------------------


@pytest.mark.rule("P1")
def test_each_type_is_given_to_who_asks_for_it() -> None:
    """PCI, PF, VF and VDPA devices are told apart, by what a driver says or by their parents and children."""
    vdpa = plain(3, dev_type="VDPA", vendor_id="15b3")
    there = stock(*card(1), plain(1), vdpa)
    found = {kind: units(there, wish(dev_type=kind)) for kind in ("PCI", "PF", "VF", "VDPA")}
    assert found == {"PCI": [["0000:41:00.0"]], "PF": [["0000:00:00.0"]], "VF": [["0000:00:02.0"]], "VDPA": [["0000:43:00.0"]]}


@pytest.mark.rule("P2", "P3", "P8", "S37")
def test_a_function_and_its_card_are_never_given_together() -> None:
    """A card of three functions gives either itself or up to three of them; while one is held, the card is not there."""
    devices = card(3)
    there = stock(*devices)
    assert (most(there, wish("vf")), most(there, wish("nic"))) == (3, 1)
    assert units(there, wish("nic"), wish("vf")) is None
    held = stock(*devices, gone=devices[1:2])
    assert (most(held, wish("vf")), most(held, wish("nic"))) == (2, 0)
    whole = stock(*devices, gone=devices[:1])
    assert (most(whole, wish("vf")), most(whole, wish("nic"))) == (0, 0)


def test_exclusion_reaches_through_all_levels() -> None:
    """A card with a function that has a part of its own: of card, function and part one is given, beside other functions."""
    listed = card(2)
    part = Device(unit=UnitId("mdev:1"), kind="mdev", parent=listed[1].unit, cell=0)
    there = stock(*listed, part)
    assert units(there, wish("mdev"), wish("vf")) == [[""], ["0000:00:02.1"]]
    assert units(there, wish("mdev"), wish("vf", 2)) is None
    assert units(there, wish("mdev"), wish("nic")) is None


@pytest.mark.rule("W23", "S38", "W8")
def test_all_requests_of_a_claim_are_served_together_or_none() -> None:
    """A card beside its only function is refused, each alone is given, and nothing of the stock has changed."""
    there = stock(*card(1))
    before = (there.devices, dict(there.slots))
    assert units(there, wish("nic"), wish("vf")) is None
    assert units(there, wish("vf"), wish("gpu")) is None
    assert units(there, wish("nic")) == [["0000:00:00.0"]]
    assert units(there, wish("vf")) == [["0000:00:02.0"]]
    assert (there.devices, dict(there.slots)) == before


@pytest.mark.rule("W9", "S41")
def test_two_requests_for_the_same_get_different_devices() -> None:
    """Two wishes for one function each get two functions, the third wish too, a fourth none."""
    there = stock(*card(3))
    assert units(there, *[wish("vf")] * 3) == [["0000:00:02.0"], ["0000:00:02.1"], ["0000:00:02.2"]]
    assert units(there, *[wish("vf")] * 4) is None


# --- eligibility ------------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("P9")
def test_cards_and_vdpa_devices_are_given_only_if_their_type_is_asked_for() -> None:
    """A wish for any device of a vendor gets no physical function, no VDPA device and none that is managed remotely."""
    remote = plain(2, vendor_id="8086", tags=(("remote_managed", "true"),))
    there = stock(*card(0), plain(1, vendor_id="8086", dev_type="VDPA"), remote)
    assert units(there, wish(vendor_id="8086")) is None
    assert units(there, wish(vendor_id="8086", dev_type="PF")) == [["0000:00:00.0"]]
    assert units(there, wish(match=({"vendor_id": "8086"}, {"dev_type": "VDPA", "vendor_id": "ffff"}))) == [["0000:41:00.0"]]
    assert units(there, wish(match=({"vendor_id": "8086", "remote_managed": "TRUE"},))) == [["0000:42:00.0"]]
    assert units(there, wish("nic")) == [["0000:00:00.0"]], "a live kind is not a type"


@pytest.mark.rule("P10", "P17")
def test_any_alternative_will_do_and_case_does_not_matter() -> None:
    """All keys of one alternative must be equal but for case; a key that the device has not is not equal."""
    tagged = plain(1, tags=(("net", "Blue"),))
    there = stock(*card(1), tagged)
    assert units(there, wish(net="bLUE", vendor_id="10DE")) == [["0000:41:00.0"]]
    assert units(there, wish(net="blue", vendor_id="8086")) is None
    assert units(there, wish(match=({"net": "red"}, {"product_id": "154C"}))) == [["0000:00:02.0"]]
    assert units(there, wish(match=({"colour": "none"},))) is None


@pytest.mark.rule("P7", "P10", "P18")
def test_an_address_is_that_of_the_parent_or_the_devices_own() -> None:
    """Asked for by the card's address come its functions; a function's own address names none; a parent need not be free."""
    devices = card(2, port=1)
    there = stock(*card(2), *devices, plain(1))
    assert units(there, wish(address="0000:01:00.0")) == [["0000:01:02.0"]]
    assert units(there, wish(address="0000:01:02.1")) is None
    assert units(there, wish(address="0000:41:00.0")) == [["0000:41:00.0"]]
    held = stock(*devices, gone=devices[1:2])
    assert units(held, wish(address="0000:01:00.0")) == [["0000:01:02.1"]]


@pytest.mark.rule("P26")
def test_within_names_the_only_devices_or_parents() -> None:
    """A wish that Placement has directed is served from the named devices, or functions of the named card, and from no other."""
    there = stock(*card(2), *card(2, port=1), plain(1))
    inside = (UnitId("pci:0000:01:00.0"),)
    assert units(there, wish("vf", 2, within=inside)) == [["0000:01:02.0", "0000:01:02.1"]]
    assert units(there, wish("vf", 3, within=inside)) is None
    assert units(there, wish("gpu", within=(UnitId("pci:0000:41:00.0"),))) == [["0000:41:00.0"]]
    assert units(there, wish("gpu", within=inside)) is None


def test_traits_are_the_devices_own() -> None:
    """A required trait must be one of the device's, a forbidden one must not."""
    fast = Trait("CUSTOM_FAST")
    there = stock(plain(1), plain(2, traits=(fast,)))
    assert units(there, wish("gpu", required_traits=(fast,))) == [["0000:42:00.0"]]
    assert units(there, wish("gpu", forbidden_traits=(fast,))) == [["0000:41:00.0"]]
    assert most(there, wish("gpu", required_traits=(fast,))) == 1


@pytest.mark.rule("V4")
def test_a_class_of_units_is_asked_for_by_its_name() -> None:
    """Units of a resource class are given for kind class:NAME, and none of another class."""
    dongle = ResourceClass("CUSTOM_DONGLE")
    named = [Device(unit=UnitId(f"named:CUSTOM_DONGLE/{n}"), kind="class:CUSTOM_DONGLE", resource_class=dongle) for n in (1, 2)]
    there = stock(*named, plain(1))
    chosen = offered([wish("class:CUSTOM_DONGLE", 2)], there).choose(None)
    assert chosen is not None
    assert [device.unit for device in chosen[0]] == ["named:CUSTOM_DONGLE/1", "named:CUSTOM_DONGLE/2"]
    assert units(there, wish("class:CUSTOM_OTHER")) is None
    assert units(there, wish("pci", 2)) is None, "a named thing is no PCI device"


# --- affinity ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("S39", "P11", "P12", "P13", "P14")
def test_so_many_devices_are_near_enough_under_each_policy() -> None:
    """Devices on cells 0, 1, none and 2 of two sockets: what a guest on cell 0, 1, 2 or 3 can have."""
    there = stock(plain(1, 0), plain(2, 1), plain(3, None), plain(4, 2), sockets={0: 0, 1: 0, 2: 1, 3: 1})
    policies: tuple[Affinity, ...] = ("required", "socket", "legacy", "preferred")
    found = {policy: [most(there, wish(affinity=policy), frozenset({cell})) for cell in range(4)] for policy in policies}
    assert found == {"required": [1, 1, 1, 0], "socket": [2, 2, 1, 1], "legacy": [2, 2, 2, 1], "preferred": [4, 4, 4, 4]}
    assert [most(there, wish(affinity=None), frozenset({cell})) for cell in range(4)] == found["legacy"]
    assert most(there, wish("gpu", affinity=None), frozenset({3})) == 4, "of other kinds any device will do where nothing is said"


@pytest.mark.rule("P12")
def test_a_socket_counts_only_where_all_are_known() -> None:
    """With one cell of unknown socket, or none known at all, only a cell of the guest's is near enough."""
    for sockets in ({0: 0, 1: 0, 2: None}, {}):
        there = stock(plain(1, 0), plain(2, 1), sockets=sockets)
        assert most(there, wish(affinity="socket"), frozenset({0})) == 1


@pytest.mark.rule("P15")
def test_a_guest_without_cells_knows_no_locality() -> None:
    """Whatever the policy, every device will do; they are taken together from the cell that has most of them."""
    there = stock(plain(1, 0), plain(2, 1), plain(3, None), plain(4, 1))
    assert [most(there, wish(affinity=policy), None) for policy in ("required", "socket", "legacy", "preferred")] == [4] * 4
    assert units(there, wish(affinity="required", count=2), cells=None) == [["0000:42:00.0", "0000:44:00.0"]]


@pytest.mark.rule("W22", "S39")
def test_what_is_not_eligible_does_not_count_as_near() -> None:
    """A card on the guest's cell and a plain device on the next: the untyped wish gets the plain one."""
    there = stock(*card(0, cell=0), plain(1, 1, vendor_id="8086"))
    assert units(there, wish(vendor_id="8086"), cells=frozenset({0})) == [["0000:41:00.0"]]


@pytest.mark.rule("P14")
def test_the_nearest_devices_are_taken_first() -> None:
    """In a cell of the guest, then on the same socket, then without a cell, then elsewhere."""
    there = stock(plain(1, 2), plain(2, None), plain(3, 1), plain(4, 0), sockets={0: 0, 1: 0, 2: 1})
    order = [units(there, wish("gpu", n), cells=frozenset({0})) for n in (1, 2, 3)]
    assert order == [[["0000:44:00.0"]], [["0000:43:00.0", "0000:44:00.0"]], [["0000:42:00.0", "0000:43:00.0", "0000:44:00.0"]]]


def test_one_request_leaves_the_near_device_to_the_one_that_needs_it() -> None:
    """The sum of distances counts: a wish that any near device serves does not take the only one for another wish."""
    there = stock(plain(1, 0), plain(2, 0, vendor_id="1002"), plain(3, 1))
    found = units(there, wish("gpu"), wish("gpu", vendor_id="10de"), cells=frozenset({0}))
    assert found == [["0000:42:00.0"], ["0000:41:00.0"]]


# --- what is left for others ------------------------------------------------------------------------------------------------------


def test_whole_cards_stay_whole() -> None:
    """A function of a card that is broken already is taken before one of a whole card, whatever their addresses."""
    first, second = card(2), card(2, port=1)
    there = stock(*first, *second, gone=second[1:2])
    assert units(there, wish("vf")) == [["0000:01:02.1"]]
    assert units(there, wish("vf", 2)) == [["0000:00:02.0", "0000:01:02.1"]]
    assert units(stock(*first, *second), wish("vf", 2)) == [["0000:00:02.0", "0000:00:02.1"]]


PAIRS = [
    plain(n, links=(UnitId(f"pci:0000:{0x40 + other:02x}:00.0"),)) for n, other in ((1, 3), (2, 4), (3, 1), (4, 2))
]  # 1 with 3, 2 with 4


def test_linked_devices_are_all_linked_to_each_other() -> None:
    """Two linked ones come from one pair, whatever their addresses; three that are all linked are nowhere."""
    there = stock(*PAIRS)
    assert units(there, wish("gpu", 2, linked=True)) == [["0000:41:00.0", "0000:43:00.0"]]
    assert units(there, wish("gpu", 3, linked=True)) is None
    assert units(there, wish("gpu", 2, linked=True), wish("gpu", 2, linked=True)) is not None
    assert units(stock(*PAIRS, gone=(PAIRS[0], PAIRS[1])), wish("gpu", 2, linked=True)) is None


def test_singles_come_from_pairs_that_are_broken_already() -> None:
    """One device is taken from a broken pair; two that need no link come from one pair all the same."""
    assert units(stock(*PAIRS, gone=PAIRS[1:2]), wish("gpu")) == [["0000:44:00.0"]]
    assert units(stock(*PAIRS), wish("gpu", 2)) == [["0000:41:00.0", "0000:43:00.0"]]


def test_sixteen_devices_all_linked_are_found() -> None:
    """The largest set of linked devices is found among others, and one more is refused."""
    names = [UnitId(f"pci:0000:{0x40 + n:02x}:00.0") for n in range(17)]
    full = [plain(n, links=tuple(name for name in names[:16] if name != names[n])) for n in range(16)]
    loose = plain(16, links=tuple(names[:15]))
    chosen = units(stock(*full, loose), wish("gpu", 16, linked=True))
    assert chosen == [[device.address for device in full]]
    assert units(stock(*full, loose), wish("gpu", 17, linked=True)) is None


def test_shares_are_packed_and_never_mixed_with_the_whole() -> None:
    """A share comes from the device that has least left of it; a device of which shares are given is not given as a whole."""
    gpus = [plain(n, shares=True) for n in (1, 2, 3)]
    there = stock(*gpus, shares={gpus[1].unit: 300, gpus[2].unit: 600})
    assert units(there, wish("gpu", share=250)) == [["0000:42:00.0"]]
    assert units(there, wish("gpu", share=500)) == [["0000:43:00.0"]]
    assert units(there, wish("gpu", share=700)) == [["0000:41:00.0"]]
    assert units(there, wish("gpu")) == [["0000:41:00.0"]]
    assert units(there, wish("gpu"), wish("gpu", share=700)) is None
    assert units(there, wish("gpu", share=300), wish("gpu", share=500), wish("gpu", share=100)) == [
        ["0000:42:00.0"], ["0000:43:00.0"], ["0000:43:00.0"]
    ]  # fmt: skip
    assert units(stock(plain(1)), wish("gpu", share=1)) is None, "of this one no shares are given"


# --- how much work it is ----------------------------------------------------------------------------------------------------------


@pytest.mark.rule("W33", "P7")
def test_five_hundred_functions_take_few_trials() -> None:
    """512 functions of 16 cards are 16 pools: a yes, a no and sixteen requests each weigh few picks."""
    there = stock(*(device for port in range(16) for device in card(32, port=port, cell=port % 4)), sockets={0: 0, 1: 0, 2: 1, 3: 1})
    for wishes in ([wish("vf")], [wish("vf", 512)], [wish("vf", 200, affinity="required")], [wish("vf", 8)] * 16):
        offer = offered(wishes, there)
        offer.choose(frozenset({2}))
        assert sum(len(part.pools) for part in offer.parts) == 32
        assert offer.tally.steps <= 1500


@pytest.mark.rule("W33")
def test_linked_devices_and_shares_that_are_alike_are_not_tried_one_by_one() -> None:
    """Eight linked GPUs twice of sixteen, eight pairs, and shares that just do not fit take few trials."""
    names = [UnitId(f"pci:0000:{0x40 + n:02x}:00.0") for n in range(16)]
    full = stock(*(plain(n, n % 2, links=tuple(name for name in names if name != names[n])) for n in range(16)))
    pairs = stock(*(plain(n, n % 2, links=(names[n ^ 1],)) for n in range(16)))
    parts = stock(*(plain(n, shares=True) for n in range(8)))
    asked = [
        (full, [wish("gpu", 8, linked=True)] * 2, True), (pairs, [wish("gpu", 2, linked=True)] * 8, True),
        (parts, [wish("gpu", share=600)] * 9, False), (parts, [wish("gpu", share=334)] * 17, False),
    ]  # fmt: skip
    for there, wishes, fits in asked:
        offer = offered(wishes, there)
        assert (offer.choose(frozenset({0})) is not None) == fits
        assert offer.tally.steps <= 3000


@pytest.mark.rule("W33")
def test_cards_against_functions_are_weighed_by_numbers() -> None:
    """Eight whole cards beside 256 functions of sixteen are found, one function more is refused, by few ways to open cards."""
    there = stock(*(device for port in range(16) for device in card(32, port=port)))
    assert units(there, wish("nic", 8), wish("vf", 256)) is not None
    assert units(there, wish("nic", 8), wish("vf", 257)) is None
    (reason,) = offered([wish("nic", 8), wish("vf", 257)], there).reasons(EVERYWHERE)
    assert (reason.code, reason.resource, reason.asked, reason.free, reason.short) == ("excluded", "device:nic+vf", 265, 264, 1)


def test_beyond_its_bound_the_oracle_says_undecided(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there are more ways to give devices than may be looked at, the answer is neither yes nor no."""

    def trees() -> Supply:
        supply = Supply([1] * 20)
        for tree in range(20):
            for leaf in range(3):
                costs = tuple(0 if (tree * 7 + leaf * 5 + n) % 3 == 0 else None for n in range(20))
                supply.add(tree * 4 + leaf, costs, 1, (tree * 4 + 3,))
            supply.add(tree * 4 + 3, tuple(0 if n % 2 == tree % 2 else None for n in range(20)), 1, range(tree * 4, tree * 4 + 3))
        return supply

    supply = trees()
    answer = supply.least(exact=True)
    needed = supply.counted
    monkeypatch.setattr("earmark.core.fit.devices.flow.PLANS_MAX", needed)
    assert trees().least(exact=True) == answer
    monkeypatch.setattr("earmark.core.fit.devices.flow.PLANS_MAX", needed - 1)
    with pytest.raises(Undecided, match=str(needed - 1)):
        trees().least(exact=True)


# --- reasons ----------------------------------------------------------------------------------------------------------------------


def test_reasons_tell_short_from_too_far() -> None:
    """Too few at all is short, enough but not near is affinity, with numbers; what can be had has no reason."""
    there = stock(plain(1, 0), plain(2, 1), plain(3, 1))
    (far,) = offered([wish(affinity="required", count=2)], there).reasons(frozenset({0}))
    assert (far.code, far.resource, far.asked, far.free, far.short) == ("affinity", "device:pci", 2, 1, 1)
    (few,) = offered([wish("gpu", 3, vendor_id="10de"), wish("gpu", 1, vendor_id="10de")], there).reasons(frozenset({0}))
    assert (few.code, few.asked, few.free, few.detail) == ("short", 4, 3, "3 of this kind can be given now (vendor_id=10de)")
    assert offered([wish("gpu", 3)], there).reasons(frozenset({0})) == []


def test_only_what_matters_is_told_to_the_search() -> None:
    """Cells with devices are useful, cells alike are of one kind, and an offer says whether it depends on cells at all."""
    there = stock(*card(4, port=0, cell=0), *card(4, port=1, cell=1), *card(3, port=2, cell=2), sockets={0: 0, 1: 0, 2: 1, 3: 1})
    offer = offered([wish("vf", affinity="required")], there)
    assert offer.local
    assert offer.kind_of(0) == offer.kind_of(1) != offer.kind_of(2) != offer.kind_of(3)
    assert {0, 1, 2} <= offer.useful
    assert not offered([wish("vf")], there).local
    assert offered([], there).choose(frozenset({1})) == ()
