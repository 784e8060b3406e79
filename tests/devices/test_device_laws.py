"""Random lives of a node: policies, looks, claims and ends in any order; whatever happens, no card is given twice."""

from __future__ import annotations

import random

import pytest
from msgspec.structs import replace
from tests.devices.boxes import TYPES, card
from tests.devices.test_device_identity import box

from earmark.core.fit.devices.policy import MDEV, parent_local
from earmark.core.model.device_rule import DeviceRule
from earmark.core.model.ids import ResourceClass, shared_unit
from earmark.core.model.request import DeviceRequest, Request, ResourceAmount
from earmark.core.model.topology import Device
from earmark.testing import UNRESERVED, Bench, bench

PLACES = tuple(f"0000:4{number}:00.0" for number in range(1, 5))
SPLIT = DeviceRule(observed_kind="gpu", mdev_type="nvidia-35", max_instances=3, kind="gpu")
CARDS = DeviceRule(dev_type="PF", kind="nic")
POLICIES: tuple[tuple[DeviceRule, ...], ...] = (
    (),
    (DeviceRule(shares=True),),
    (replace(SPLIT, address=PLACES[0]), DeviceRule(address=PLACES[1], shares=True), CARDS, DeviceRule()),
    (replace(SPLIT, max_instances=1), CARDS),
    (replace(SPLIT, mdev_type="nvidia-36", max_instances=None), DeviceRule()),
    (DeviceRule(observed_kind="gpu", one_time_use=True), CARDS, DeviceRule()),
)
VGPU = ResourceAmount(resource_class=ResourceClass("VGPU"), amount=1)
GPU = DeviceRequest(kind="gpu")
WISHES = (
    Request(devices=(GPU,)),
    Request(devices=(replace(GPU, share=400),)),
    Request(devices=(DeviceRequest(kind="vf", count=2), GPU)),
    Request(devices=(DeviceRequest(kind="nic"),)),
    Request(resources=(VGPU,)),
    Request(devices=(GPU,), resources=(replace(VGPU, amount=2),)),
)


def cards(draw: random.Random) -> list[Device]:
    """Draw what a look sees: up to three cards, moved and with or without a readable serial, and a network card with functions."""
    serials = draw.sample(("S1", "S2", "S3"), draw.randint(0, 3))
    found = [
        card(
            place, product="2330", serial=serial if draw.random() < 2 / 3 else None, iommu_group=draw.choice((None, 1, 2)),
            mdev_types=draw.choice(((), TYPES, (replace(TYPES[0], total=1), TYPES[1]))),
        )
        for serial, place in zip(serials, draw.sample(PLACES, len(serials)), strict=True)
    ]  # fmt: skip
    bus = draw.choice(("51", "52"))
    nic = card(f"0000:{bus}:00.0", kind="nic", product="1111", sriov_total=4, sriov_offset=16, sriov_stride=1)
    functions = [card(f"0000:{bus}:02.{number}", kind="vf", product="1112", parent=nic.unit) for number in range(draw.choice((0, 2, 4)))]
    return [*found, nic, *functions] if draw.random() < 2 / 3 else found


def step(made: Bench, draw: random.Random) -> None:
    """Let one thing happen."""
    tracker = made.tracker
    match draw.choice(("look", "policy", "claim", "claim", "claim", "end", "return")):
        case "look":
            made.host.seen = box(*cards(draw))
            tracker.observe()
        case "policy":
            tracker.configure(replace(UNRESERVED, device_rules=draw.choice(POLICIES), keep_iommu_groups=draw.random() < 1 / 2))
        case "claim":
            tracker.hold(draw.choice(WISHES), confirm=True)
        case "end" if tracker.node().claims:
            tracker.release(draw.choice(sorted(tracker.node().claims)), force=draw.random() < 1 / 2)
            made.clock.move(3_600_000)
            tracker.sweep()
        case "return" if tracker.node().quarantines:
            tracker.give_back(min(tracker.node().quarantines), "as new")


def given_twice(made: Bench) -> set[str]:
    """Return the cards that are held as a whole while an instance or a share of them is held as well."""
    whole, parts = set(), set()
    for _, grant in made.tracker.node().grants():
        whole |= {str(row.unit).partition(":")[2] for row in grant.units if row.use == "device" and not row.unit.startswith(MDEV)}
        parts |= {parent_local(row.unit) for row in grant.units if row.unit.startswith(MDEV)}
        parts |= {str(unit).partition(":")[2] for row in grant.amounts if (unit := shared_unit(row.pool)) is not None}
    return whole & parts


@pytest.mark.long
@pytest.mark.rule("P2", "P3", "P19", "V2", "W25", "S43")
@pytest.mark.parametrize("seed", range(8))
def test_no_life_gives_a_card_twice(seed: int) -> None:
    """Policies change, cards come, go and move, and nothing that is held is given to another, nor does the auditor find an error."""
    draw = random.Random(seed)  # noqa: S311 - a reproducible test
    for _ in range(40):
        with bench("1x2c 4G") as made:
            for _ in range(25):
                step(made, draw)
                assert given_twice(made) == set()
            assert [finding for finding in made.tracker.audit() if finding.severity == "error"] == []
