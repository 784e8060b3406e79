"""Which card a claim holds, whatever becomes of addresses, drivers and looks."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import example, given, settings
from msgspec.structs import replace
from tests.devices.boxes import card, drawn_life

from earmark.core.fit.layout import build_layout
from earmark.core.ledger.naming import with_known_names
from earmark.core.ledger.remembering import remembered
from earmark.core.ledger.state import NodeState
from earmark.core.model.device_rule import DeviceRule
from earmark.core.model.grant import Grant, UnitRow
from earmark.core.model.ids import UnitId, share_pool
from earmark.core.model.refusal import Refusal
from earmark.core.model.request import DeviceRequest, Request
from earmark.core.model.topology import Device, Machine, identities_contradict
from earmark.testing import NODE_ONE, Bench, bench, machine

A, B, C = "0000:41:00.0", "0000:42:00.0", "0000:43:00.0"
PLACES = (A, B, C)
ONE_GPU = Request(devices=(DeviceRequest(kind="gpu"),))
PLAIN = machine("1x2c 4G")


def box(*devices: Device) -> Machine:
    """Return a small machine with some devices."""
    return replace(PLAIN, devices=tuple(sorted(devices, key=lambda device: device.unit)))


def gpu(address: str, serial: str, *, seen: bool = True, product: str = "2330") -> Device:
    """Return a GPU as a driver names it: by its serial while that can be read, else by its address."""
    if not seen:
        return card(address, product=product)
    return card(address, serial=serial, product=product, unit=UnitId(f"gpu:{serial}"))


def look(made: Bench, *devices: Device) -> NodeState:
    """Let the node be looked at."""
    made.host.seen = box(*devices)
    made.tracker.observe()
    return made.tracker.node()


def held(made: Bench, request: Request = ONE_GPU, grant: Grant | None = None) -> str:
    """Claim a device and return the claim."""
    answer = made.tracker.hold(request, confirm=True, grant=grant)
    assert not isinstance(answer, Refusal), answer
    return str(answer.claim_id)


def rows(made: Bench) -> dict[str, UnitRow]:
    """Return the one device row of each live claim."""
    return {str(claim.id): claim.grant.units[0] for claim in made.tracker.node().live()}


# --- what was given -------------------------------------------------------------------------------------------------------------------


def test_a_row_says_what_the_device_was() -> None:
    """A grant that is chosen and one that is prescribed both record the identity of the device as it is when it is given."""
    with bench() as made:
        look(made, gpu(A, "S1"), gpu(B, "S2", seen=False))
        first = held(made)
        second = held(made, grant=Grant(units=(UnitRow(unit=UnitId(f"pci:{B}"), use="device"),)))
        assert rows(made)[first] == UnitRow(unit=UnitId("gpu:S1"), use="device", identity="10de:2330:10de:1212:S1")
        assert rows(made)[second].identity == "10de:2330:10de:1212"
        look(made, gpu(A, "S1"), card(B, serial="S2", product="2330"))
        assert rows(made)[second].identity == "10de:2330:10de:1212:S2"


@pytest.mark.rule("P19", "S42")
def test_a_card_that_vanished_is_not_the_one_that_comes_to_its_address() -> None:
    """QubesOS/qubes-issues#7792: gone at one look, another card at its address at a later one: the claim's unit is missing, not that card."""
    with bench() as made:
        look(made, card(A, product="1111"))
        claim = held(made)
        state = look(made)
        assert state.missing == {f"pci:{A}"}
        state = look(made, card(A, product="2222"))
        other = UnitId(f"pci:{A}/10de:2222:10de:1212")
        assert state.machine is not None
        assert [device.unit for device in state.machine.devices] == [other]
        assert state.missing == {f"pci:{A}"}
        second = held(made)
        assert rows(made)[second].unit == other
        state = look(made, card(A, product="1111"))
        assert state.missing == {other}
        assert rows(made)[claim].unit == f"pci:{A}"
        findings = [finding.code for finding in made.tracker.audit()]
        assert "missing" in findings


def test_a_serial_learnt_after_the_grant_tells_two_equal_cards_apart() -> None:
    """Given while its serial could not be read, read at one look, gone at the next: an equal card with another serial is another card."""
    with bench() as made:
        look(made, gpu(A, "S1", seen=False))
        held(made)
        look(made, card(A, serial="S1", product="2330"))
        look(made)
        state = look(made, card(A, serial="S2", product="2330"))
        assert state.missing == {f"pci:{A}"}
        state = look(made, card(B, serial="S1", product="2330"), card(A, serial="S2", product="2330"))
        assert not state.missing
        assert state.layout is not None
        assert state.layout.known[UnitId(f"pci:{A}")].address == B


def test_renumbering_keeps_the_name_of_what_has_no_serial() -> None:
    """The only one of its identity that vanished and the only one that came are the same card at another address, also looks later."""
    with bench() as made:
        look(made, card(A, product="1111"), card(B, product="2222"))
        held(made)
        state = look(made, card(B, product="1111"), card(C, product="2222"))
        assert state.machine is not None
        assert {device.unit: device.address for device in state.machine.devices} == {f"pci:{A}": B, f"pci:{B}": C}
        look(made, card(C, product="2222"))
        state = look(made, card(C, product="2222"), card(A, product="1111"))
        assert not state.missing


def test_virtual_functions_are_not_told_by_their_identity() -> None:
    """Virtual functions are all alike: one that vanished is not another that appeared, and those of another parent are others."""
    parent = card(A, kind="nic", product="1111", sriov_total=4)
    one, two = (card(f"0000:41:00.{n}", kind="vf", product="1112", parent=parent.unit) for n in (1, 2))
    old = box(parent, one)
    assert with_known_names(old, box(parent, two)) == box(parent, two)
    changed = card(A, kind="nic", product="3333", sriov_total=4)
    new = with_known_names(old, box(changed, one), {one.unit: one.identity})
    assert {device.unit for device in new.devices} == {f"pci:{A}/{changed.identity}", f"{one.unit}/{one.identity}"}


def test_functions_move_along_with_their_card() -> None:
    """A card without a serial that is known again elsewhere has its functions where they were on it, held or not."""
    with bench() as made:
        parent = card(A, kind="nic", product="1111", sriov_total=4)
        functions = [card(f"0000:41:00.{n}", kind="vf", product="1112", parent=parent.unit) for n in (1, 2)]
        look(made, parent, *functions)
        claim = held(made, Request(devices=(DeviceRequest(kind="vf", within=(functions[1].unit,)),)))
        there = card(C, kind="nic", product="1111", sriov_total=4)
        moved = [card(f"0000:43:00.{n}", kind="vf", product="1112", parent=there.unit) for n in (1, 2, 3)]
        state = look(made, there, *moved)
        assert not state.missing
        assert rows(made)[claim].unit == functions[1].unit
        assert state.machine is not None
        assert {each.unit: each.address for each in state.machine.devices if each.kind == "vf"} == {
            functions[0].unit: "0000:43:00.1",
            functions[1].unit: "0000:43:00.2",
            moved[2].unit: "0000:43:00.3",
        }


def test_names_are_given_once_whatever_a_machine_says() -> None:
    """Two devices of one name, as a file might list them, get two names."""
    twice = replace(PLAIN, devices=(card(A), card(A), card(A)))
    new = with_known_names(box(card(B)), twice)
    assert len({device.unit for device in new.devices}) == 3


def test_a_held_instance_keeps_the_name_of_its_parent_from_another_card() -> None:
    """Whoever holds an instance of a card that vanished does not get one of the card that comes to its address."""
    unit = UnitId(f"mdev:{A}/t/0")
    new = with_known_names(box(), box(card(A, product="2222")), {unit: card(A, product="1111").identity})
    assert [device.unit for device in new.devices] == [f"pci:{A}/10de:2222:10de:1212"]


def test_a_grant_of_an_earlier_version_learns_what_it_holds() -> None:
    """A row without an identity gets the one that the last look knew as soon as there is another look."""
    with bench() as made:
        look(made, card(A, product="1111"))
        held(made)
        now = made.tracker.node()
        bare = replace(now.live()[0], grant=Grant(units=(UnitRow(unit=UnitId(f"pci:{A}"), use="device"),)))
        after = remembered(replace(now, claims=now.claims.set(bare.id, bare)), build_layout(box(), now.settings))
        assert after.claims[bare.id].grant.units[0].identity == "10de:1111:10de:1212"


def test_shares_of_a_card_are_not_of_the_one_that_comes_to_its_address() -> None:
    """What holds thousandths of a card that vanished holds nothing of another card there; the same card back is found again."""
    with bench() as made:
        look(made, card(A, product="1111"))
        made.tracker.configure(replace(made.tracker.node().settings, device_rules=(DeviceRule(shares=True),)))
        share = Request(devices=(DeviceRequest(kind="gpu", share=600),))
        held_share = made.tracker.hold(share, confirm=True)
        assert not isinstance(held_share, Refusal)
        assert look(made).missing == {f"pci:{A}"}
        state = look(made, card(A, product="2222"))
        assert state.missing == {f"pci:{A}"}
        other = made.tracker.hold(share, confirm=True)
        assert not isinstance(other, Refusal)
        assert other.claim is not None
        assert [row.pool for row in other.claim.grant.amounts] == [share_pool(UnitId(f"pci:{A}/10de:2222:10de:1212"))]
        again = made.reopened()
        assert again.tracker.node().missing == {f"pci:{A}"}
        made.tracker.release(str(other.claim_id))
        assert not look(made, card(A, product="1111")).missing
        assert isinstance(made.tracker.hold(share, confirm=True), Refusal)


def test_what_is_withheld_beside_a_device_keeps_its_name_too() -> None:
    """The other functions of an IOMMU group, withheld with one that is given, are not another card's either."""
    with bench() as made:
        look(made, card(A, iommu_group=7), card(B, kind="nic", product="3333", iommu_group=7))
        made.tracker.configure(replace(made.tracker.node().settings, keep_iommu_groups=True))
        held(made)
        assert {row.use for row in made.tracker.node().live()[0].grant.units} == {"device", "withheld"}
        look(made)
        state = look(made, card(B, kind="nic", product="4444"))
        assert state.missing == {f"pci:{A}", f"pci:{B}"}


def test_a_prescribed_grant_may_say_which_card_it_means() -> None:
    """QubesOS/qubes-issues#7792: a grant that names another card than the one that sits there is refused."""
    with bench() as made:
        look(made, card(A, product="1111"))
        for product, fits in (("2222", False), ("1111", True)):
            row = UnitRow(unit=UnitId(f"pci:{A}"), use="device", identity=f"10de:{product}:10de:1212")
            answer = made.tracker.hold(ONE_GPU, confirm=True, grant=Grant(units=(row,)))
            assert isinstance(answer, Refusal) is not fits
            if isinstance(answer, Refusal):
                assert answer.reasons[0].detail == "it is 10de:1111:10de:1212, the grant says 10de:2222:10de:1212"


# --- laws ---------------------------------------------------------------------------------------------------------------------------


class Card(NamedTuple):
    """A card as it is, whatever can be read of it."""

    serial: str
    product: str


SERIALLED = tuple(Card(f"S{number}", "2330") for number in range(4))
PLAIN_CARDS = tuple(Card("", f"{number}000") for number in range(1, 5))


def as_seen(address: str, one: Card, *, seen: bool) -> Device:
    """Return a card as a look shows it at an address."""
    return gpu(address, one.serial, seen=seen and bool(one.serial), product=one.product)


@pytest.mark.rule("P19", "W25")
@settings(max_examples=80)
@given(drawn_life(SERIALLED, PLACES))
@example([("look", {A: (SERIALLED[0], True)}), ("claim", 0), ("look", {}), ("look", {A: (SERIALLED[1], True)}), ("claim", 0)])
def test_no_order_of_looks_and_claims_hands_over_the_wrong_card(life: list[tuple[str, object]]) -> None:
    """Cards come, go, change places; whatever the order with claims and releases, a claim's unit is the card it was given, or missing."""
    _lived(life, always_seen=True)


@settings(max_examples=80)
@given(drawn_life(PLAIN_CARDS, PLACES))
def test_nor_does_it_where_no_card_has_a_serial(life: list[tuple[str, object]]) -> None:
    """The same holds for cards that are told apart by vendor and product alone."""
    _lived(life, always_seen=True)


@settings(max_examples=80)
@given(drawn_life(SERIALLED, PLACES))
def test_serials_that_come_and_go_never_contradict_a_claim(life: list[tuple[str, object]]) -> None:
    """Where drivers are bound and unbound, what a claim holds is never contradicted, and a serial is never held twice."""
    _lived(life, always_seen=False)


def _lived(life: list[tuple[str, object]], *, always_seen: bool) -> None:
    """Live through some looks, claims and releases, and check after each what the claims hold."""
    with bench("1x2c 4G") as made:
        truth: dict[str, Card] = {}
        said: dict[str, str | None] = {}
        places: dict[str, tuple[Card, bool]] = {}
        for step, what in life:
            if step == "look":
                assert isinstance(what, dict)
                places = what
                look(made, *(as_seen(address, one, seen=seen or always_seen) for address, (one, seen) in places.items()))
            elif step == "claim":
                answer = made.tracker.hold(ONE_GPU, confirm=True)
                if not isinstance(answer, Refusal):
                    given_row = rows(made)[str(answer.claim_id)]
                    layout = made.tracker.node().layout
                    assert layout is not None
                    truth[str(answer.claim_id)] = places[str(layout.known[given_row.unit].address)][0]
            elif truth:
                claim = sorted(truth)[int(str(what)) % len(truth)]
                made.tracker.release(claim)
                del truth[claim]
            said = _check(made, truth, said, places, always_seen=always_seen)


def _check(
    made: Bench, truth: dict[str, Card], said: dict[str, str | None], places: dict[str, tuple[Card, bool]], *, always_seen: bool
) -> dict[str, str | None]:  # fmt: skip
    """Check what the claims hold now; return what each is said to be."""
    state = made.tracker.node(NODE_ONE)
    known = state.layout.known if state.layout is not None else {}
    now = {claim: row.identity for claim, row in rows(made).items()}
    full = [identity for identity in now.values() if identity is not None and identity.count(":") == 4]
    assert len(full) == len(set(full))
    assert len({row.unit for row in rows(made).values()}) == len(now)
    for claim, row in rows(made).items():
        assert not identities_contradict(said.get(claim), row.identity)
        assert len(row.identity or "") >= len(said.get(claim) or "")
        device = known.get(row.unit)
        assert (row.unit in state.missing) == (device is None or identities_contradict(row.identity, device.identity))
        if device is not None:
            assert not identities_contradict(row.identity, device.identity)
            if always_seen:
                assert places[str(device.address)][0] == truth[claim]
        elif always_seen:
            assert truth[claim] not in [one for one, _ in places.values()]
    return now
