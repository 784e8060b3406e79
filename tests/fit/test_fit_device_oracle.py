"""The device solver on hosts and requests that others wrote, judged by their own rules (../shared/oracle)."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tests.flavor.flavors import judge as judge_of

from earmark.core.fit.devices.offer import Offer, offered
from earmark.core.fit.ground import DeviceStock
from earmark.core.model.exclusion import slot_table
from earmark.core.model.ids import UnitId
from earmark.core.model.request import DeviceRequest
from earmark.core.model.topology import Device


def asking(shared: Path) -> Iterator[dict[str, Any]]:
    """Yield the cases that ask for devices."""
    with gzip.open(shared / "oracle" / "fit-dev.jsonl.gz", "rt", encoding="utf-8") as file:
        yield from (case for line in file if (case := json.loads(line))["request"]["pci_requests"])


def stock_of_host(host: dict[str, Any], judge: ModuleType) -> DeviceStock:
    """Return what a host of the oracle has to give, by its own rule of what is free."""
    by_address = {each["address"]: each for each in host["pci"]}
    devices = {each["address"]: device_of(each) for each in host["pci"]}
    in_use = {each["parent"] for each in host["pci"] if each["status"] in ("claimed", "allocated")}
    free = [each["address"] for each in host["pci"] if judge.device_free(each, by_address) and each["address"] not in in_use]
    return DeviceStock(
        devices=tuple(devices[address] for address in sorted(free)),
        slots=slot_table(devices.values()),
        sockets={cell["id"]: cell["socket"] for cell in host["cells"]},
    )


def device_of(each: dict[str, Any]) -> Device:
    """Return a device of the oracle as one of ours."""
    return Device(
        unit=UnitId(f"pci:{each['address']}"), kind="other", address=each["address"], vendor_id=each["vendor_id"],
        product_id=each["product_id"], cell=each["numa_node"], parent=each["parent"] and UnitId(f"pci:{each['parent']}"),
        dev_type=each["type"], tags=tuple(sorted(each["tags"].items())),
    )  # fmt: skip


def offer_of(case: dict[str, Any], guest: Any, judge: ModuleType) -> Offer:
    """Return what the host of a case offers to its requests."""
    wishes = [
        DeviceRequest(kind="pci", count=each["count"], match=tuple(each["spec"]), affinity=judge.pci_policy(guest, each))
        for each in case["request"]["pci_requests"]
    ]
    return offered(wishes, stock_of_host(case["host"], judge))


@pytest.mark.shared
@pytest.mark.rule("P9", "P10", "P11", "P12", "P13", "P14", "P15")
def test_wherever_devices_were_given_rightly_they_are_found(shared: Path) -> None:
    """On the cells of each valid placement devices are found, and the judge has nothing against them; a case without any is a no."""
    judge = judge_of(shared)
    seen: Counter[str] = Counter()
    for case in asking(shared):
        try:
            guest = judge.read_request(case["request"])
        except judge.Refused:
            continue
        offer = offer_of(case, guest, judge)
        nova = case["nova"]
        if nova["fits"] and nova["valid"]:
            cells = None if guest.cells is None else frozenset(each["host_cell"] for each in nova["cells"])
            chosen = offer.choose(cells)
            assert chosen is not None, case["id"]
            given = [[device.address for device in some] for some in chosen]
            assert judge.pci_problems(case, guest, given, cells) == [], case["id"]
            seen["found"] += 1
        elif not case["exact"]["feasible"]:
            everywhere = None if guest.cells is None else frozenset(each["id"] for each in case["host"]["cells"])
            assert bool(offer.reasons(everywhere)) == (offer.choose(everywhere) is None), case["id"]
            seen["refused"] += 1
    assert seen["found"] > 200
    assert seen["refused"] > 200
