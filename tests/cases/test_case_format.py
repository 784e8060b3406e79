"""Lines that are no cases, lines that just are, and numbers with a point."""

from __future__ import annotations

import json
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.cases.asking import ask, ask_line
from tests.cases.case_making import drawn

from earmark.core.fit.cases.format import double, limit_of

Made = dict[str, Any]
WHOLE: Made = {**drawn(4), "id": "a case"}
LIMITS = {"cpu_allocation_ratio": 1.0, "ram_allocation_ratio": 1.0}


def changed(**parts: Any) -> Made:
    """Return a case with some parts replaced: `host__cells` is the part `cells` of `host`."""
    made: Made = json.loads(json.dumps(WHOLE))
    for path, value in parts.items():
        *way, last = path.split("__")
        place: Any = made
        for step in way:
            place = place[int(step)] if step.isdigit() else place[step]
        place[int(last) if last.isdigit() else last] = value
    return made


BROKEN: dict[str, tuple[bytes, str]] = {
    "nothing of a case": (b"{}", "missing required field `id`"),
    "a list": (b"[1, 2]", "Expected `object`"),
    "cut off": (json.dumps(WHOLE).encode()[:300], "truncated"),
    "no UTF-8": (b'{"id": "\xff\xfe"}', "utf-8"),
    "no JSON": (b"\x00\x01", "malformed"),
    "nested without end": (b'{"id": "x", "more": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "recursion"),
    "a number for a text": (json.dumps(changed(host__cells__0__memory_mb="12")).encode(), "host.cells[0].memory_mb: Expected `int`"),
    "not a number": (json.dumps(changed(limits={**LIMITS, "ram_allocation_ratio": float("nan")})).encode(), "malformed"),
    "an endless ratio": (
        json.dumps(changed(limits={**LIMITS, "cpu_allocation_ratio": 77})).replace("77", "1e999999").encode(), "limits.cpu_allocation_ratio: not a ratio",
    ),
    "a ratio below nothing": (json.dumps(changed(limits={**LIMITS, "cpu_allocation_ratio": -1})).encode(), "limits.cpu_allocation_ratio: not a ratio"),
    "no ratio": (json.dumps(changed(limits={"cpu_allocation_ratio": 1.0})).encode(), "limits: Object missing required field `ram_allocation_ratio`"),
    "limits left out": (json.dumps({key: value for key, value in WHOLE.items() if key != "limits"}).encode(), "missing required field `limits`"),
    "a huge number": (json.dumps(changed(request__memory_mb=10**300)).encode(), "request.memory_mb: Expected `int`"),
    "very many vCPUs": (json.dumps(changed(request__vcpus=1 << 20)).encode(), "request.vcpus: Expected `int` <= 32768"),
    "a CPU beyond all": (json.dumps(changed(host__cells__0__cpus={"shared": [], "dedicated": [9999]})).encode(), "host.cells[0].cpus.dedicated[0]"),
    "memory below nothing": (json.dumps(changed(host__cells__0__memory_mb=-1)).encode(), "host.cells[0].memory_mb: Expected `int` >= 0"),
    "a cell twice": (json.dumps(changed(host__cells=[WHOLE["host"]["cells"][0]] * 2)).encode(), "host.cells: cell 5 is there 2 times"),
    "a mode that is none": (json.dumps(changed(host__cpu_mode="pool")).encode(), "host.cpu_mode: Invalid enum value 'pool'"),
    "a wish that is none": (json.dumps(changed(request__extra_specs={"hw:numa_nodes": [1]})).encode(), "request.extra_specs[...]"),
    "no name": (json.dumps(changed(id=None)).encode(), "id: Expected `int | str`"),
}  # fmt: skip


@pytest.mark.parametrize("what", BROKEN)
def test_a_line_that_is_no_case_is_an_error_with_its_place(what: str) -> None:
    """A line that cannot be read is neither a yes nor a no: its answer names the error and says where it is."""
    raw, expected = BROKEN[what]
    found = ask_line(raw)
    assert (found["fits"], found["error"], found["cells"], found["pci"], found["certificate"]) == (None, "MalformedCase", None, None, None)
    assert expected in found["reasons"][0]


def test_a_line_that_is_no_case_keeps_its_name() -> None:
    """Where the id can be read the answer has it."""
    assert ask(changed(host__cpu_mode="pool"))["id"] == "a case"
    assert ask_line(b"{}")["id"] is None


@pytest.mark.parametrize(
    ("part", "value", "place"),
    [
        ("cpus", {"shared": [0, 0], "dedicated": []}, "host.cells[0].cpus.shared: CPU 0"),
        ("cpus", {"shared": [], "dedicated": [0, 1, 0]}, "host.cells[0].cpus.dedicated: CPU 0"),
        ("siblings", [[0, 1], [1, 2]], "host.cells[0].siblings: CPU 1"),
        ("pages", [{"size_kb": 4, "total": 1, "reserved": 0, "used": 0}] * 2, "host.cells[0].pages: size 4"),
    ],
)
def test_parts_that_contradict_each_other_are_an_error(part: str, value: object, place: str) -> None:
    """A CPU, page size or address that is there twice in one place is named."""
    cell = {**WHOLE["host"]["cells"][0], "cpus": {"shared": [], "dedicated": []}, "siblings": [], part: value}
    assert ask(changed(host__cells=[cell]))["reasons"] == [f"{place} is there 2 times"]


def test_what_is_not_known_is_passed_over() -> None:
    """Keys that the format does not know change nothing, wherever they stand."""
    made = changed(nova={"fits": True}, exact=None, request__remark="x", host__cells__0__note=[1])
    assert ask(made) == ask(WHOLE)


def test_small_liberties_are_taken() -> None:
    """Ids may be numbers, properties numbers or truths, a ratio 0, a host without cells: each has an answer."""
    assert ask(changed(id=7))["id"] == 7
    wish = {"vcpus": 1, "memory_mb": 2, "extra_specs": {"hw:numa_nodes": 1}, "image_properties": {}, "pci_requests": []}
    assert ask(changed(request=wish))["error"] is None
    assert ask(changed(request={**wish, "image_properties": {"hw_cpu_policy": None}}, tags=[1])) == ask(changed(request=wish))
    assert ask(changed(request=wish, host__cells=[]))["fits"] is False
    assert ask(changed(request={**wish, "extra_specs": {}}, limits={"cpu_allocation_ratio": 0, "ram_allocation_ratio": 0}))["fits"] is False


def test_a_request_for_no_device_is_met_by_none() -> None:
    """A count of 0 is answered with no address, a request without alternatives by no device."""
    none: Made = {"count": 0, "spec": [], "numa_policy": None}
    wish = {"vcpus": 1, "memory_mb": 2, "extra_specs": {}, "image_properties": {}, "pci_requests": [none]}
    roomy = changed(request=wish, limits=None)
    assert ask(roomy)["pci"] == [[]]
    assert ask({**roomy, "request": {**wish, "pci_requests": [none, {**none, "count": 1}]}})["fits"] is False


@given(st.integers(0, 1 << 40), st.floats(0.000001, 1_000_000))
def test_a_limit_is_the_product_of_doubles(amount: int, ratio: float) -> None:
    """What may be used under a ratio is what a program that multiplies JSON's numbers finds."""
    assert limit_of(amount, Decimal(repr(ratio))) == int(amount * ratio // 1)
    assert double(Fraction(Decimal(repr(ratio)))) == Fraction(ratio)


def test_a_hundred_under_1_15_is_not_115() -> None:
    """The nearest double of 1.15 is below it, and so is its product with 100."""
    assert limit_of(100, Decimal("1.15")) == 114
    assert limit_of(20, Decimal("1.15")) == 23
    assert limit_of(0, Decimal(16)) == 0


@pytest.mark.parametrize("name", ["", "x" * 300, -3, 10**30])
def test_any_text_or_whole_number_is_a_name(name: object) -> None:
    """A case may be called what its file calls it; the answer gives the name back as it is."""
    assert (found := ask(changed(id=name)))["id"] == name
    assert found == {**ask(WHOLE), "id": name}
    assert ask(changed(id=name, host__cpu_mode="pool"))["id"] == name


PLAIN: Made = {"vcpus": 1, "memory_mb": 2, "extra_specs": {}, "image_properties": {}, "pci_requests": []}


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({}, []),
        ({"extra_specs": {"hw:numa_nodes": "1", "hw:cpu_policy": "shared", "aggregate:x": "y"}}, []),
        ({"extra_specs": {"resources:CUSTOM_GPU": "1", "trait:CUSTOM_X": "forbidden"}}, ["resources:CUSTOM_GPU", "trait:CUSTOM_X"]),
        ({"extra_specs": {"resources1:VGPU": 2, "trait1:CUSTOM_A": "required"}}, ["resources:VGPU", "trait:CUSTOM_A"]),
        ({"image_properties": {"trait:CUSTOM_X": "required"}}, ["trait:CUSTOM_X"]),
        ({"extra_specs": {"resources:VCPU": "400", "resources:MEMORY_MB": "2", "resources:DISK_GB": 3}}, ["resources:DISK_GB", "resources:VCPU"]),
        ({"extra_specs": {"hw:pmem": "fast"}}, ["resources:CUSTOM_PMEM_NAMESPACE_FAST"]),
        ({"extra_specs": {"hw:numa_node": "2", "hw_cpu_policy": "x"}}, ["hw:numa_node", "hw_cpu_policy"]),
        ({"extra_specs": {"pci_passthrough:alias": "gpu:1"}}, ["pci_passthrough:alias"]),
        ({"extra_specs": {"pci_passthrough:alias": "gpu:1"}, "pci_requests": [{"count": 1, "spec": [{"vendor_id": "10de"}], "numa_policy": None}]}, []),
    ],
)  # fmt: skip
def test_what_an_answer_does_not_speak_of_is_named(parts: Made, words: list[str]) -> None:
    """A case has no stock of classes, traits and disk, and of misspelled keys nothing is made: the answer stays, and names them."""
    made = ask(changed(request={**PLAIN, **parts}, limits=None))
    assert made["passed_over"] == words
    assert made["fits"] is ("pci_requests" not in parts), "there is room for everything but a device"


def test_a_type_of_devices_is_named_in_capitals() -> None:
    """A physical function goes only to who names its type as it is written; where it is named, other alternatives ignore case (P9, P10)."""
    device = {"address": "0000:81:00.0", "type": "PF", "status": "available", "vendor_id": "8086", "product_id": "10fb"}
    small, large = {"dev_type": "pf", "vendor_id": "8086"}, {"dev_type": "PF", "vendor_id": "ffff"}

    def answered(*spec: Made, kind: str = "PF") -> object:
        wish = {**PLAIN, "pci_requests": [{"count": 1, "spec": list(spec), "numa_policy": None}]}
        return ask(changed(request=wish, limits=None, host__pci=[{**device, "type": kind}]))["fits"]

    assert not answered(small)
    assert answered(small, large)
    assert answered({"dev_type": "PF"})
    assert answered({"dev_type": "pci"}, kind="PCI")


@pytest.mark.parametrize(
    ("specs", "told"), [({}, "1 cell asked · 0 cells free · 1 cell short"), ({"hw:cpu_policy": "dedicated"}, "1 CPU asked · 0 CPUs free")]
)
def test_a_host_without_cells_has_none_for_a_guest_with_some(specs: Made, told: str) -> None:
    """The reason counts what is wanted: CPUs of its own, or else cells; never nothing."""
    found = ask(changed(request={**PLAIN, "extra_specs": {"hw:numa_nodes": 1, **specs}}, host__cells=[]))
    assert (found["fits"], found["certificate"]["verified"]) == (False, True)
    assert found["reasons"][0].startswith(told)
