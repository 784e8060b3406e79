"""Cases that Nova gets wrong, each by its defect: small enough to be read, and answered as a person would."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest
from tests.cases.asking import ask
from tools import fits_page

Made = dict[str, Any]
GIB_KIB = 1 << 20


def cell(number: int, cores: str, *, memory: int = 4096, shared: str = "", pages: dict[int, int] | None = None, pinned: str = "") -> Made:
    """Return a host cell: its cores with their CPUs ("0,4 1,5"), of which some are shared and some pinned; free pages by size."""
    siblings = [[int(cpu) for cpu in core.split(",")] for core in cores.split()]
    floating = [int(cpu) for cpu in shared.split()]
    sizes = {4: memory * 256} if pages is None else pages
    return {
        "id": number, "socket": number, "memory_mb": memory, "distances": [], "siblings": siblings,
        "cpus": {"shared": floating, "dedicated": [cpu for core in siblings for cpu in core if cpu not in floating]},
        "pages": [{"size_kb": size, "total": total, "reserved": 0, "used": 0} for size, total in sorted(sizes.items())],
        "used": {"memory_mb": 0, "pinned_cpus": [int(cpu) for cpu in pinned.split()], "shared_vcpus": 0},
    }  # fmt: skip


def device(address: str, kind: str, node: int | None, parent: str | None = None, **tags: str) -> Made:
    """Return a device that is free."""
    return {
        "address": address, "vendor_id": "8086", "product_id": "154c" if kind == "VF" else "1572", "type": kind, "numa_node": node,
        "parent": parent, "tags": tags, "status": "available", "owner": None,
    }  # fmt: skip


def case(cells: list[Made], vcpus: int, memory: int, *, pci: Any = (), wanted: Any = (), **specs: str) -> Made:
    """Return a case of some host cells and a request without limits; `specs` are extra specs without their `hw:`."""
    host = {"cpu_mode": "split", "cells": cells, "pci": list(pci), "used": {"vcpus": 0, "pcpus": 0, "memory_mb": 0}}
    words = {f"hw:{key.replace('__', '.')}": value for key, value in specs.items()}
    request = {"vcpus": vcpus, "memory_mb": memory, "extra_specs": words, "image_properties": {}, "pci_requests": list(wanted)}
    return {"id": "one", "host": host, "request": request, "limits": None}


def homes(found: Made) -> list[int]:
    """Return the host cells of a guest's cells."""
    assert found["fits"] is True, found
    return [each["host_cell"] for each in found["cells"]]


def singles(first: int, count: int) -> str:
    """Return so many cores of one CPU each."""
    return " ".join(str(cpu) for cpu in range(first, first + count))


@pytest.mark.rule("W6")
def test_unequal_guest_cells_find_their_cells() -> None:
    """A guest of 2 and 3 vCPUs fits on cells of 2, 5 and 1 CPUs with the memory that only one order has."""
    cells = [cell(0, singles(0, 2)), cell(1, singles(2, 5)), cell(2, singles(7, 1), memory=3072)]
    asked = {"numa_nodes": "2", "numa_cpus__0": "0-1", "numa_mem__0": "1024", "numa_cpus__1": "2-4", "numa_mem__1": "3072"}
    assert homes(ask(case(cells, 5, 4096, cpu_policy="dedicated", **asked))) == [0, 1]


@pytest.mark.rule("W6")
def test_what_does_not_fit_is_not_accepted() -> None:
    """A guest of 3, 1 and 4 vCPUs does not fit on cells of 5, 3 and 2 CPUs with this memory: no guest cell is left without its CPUs."""
    cells = [cell(0, singles(0, 5)), cell(1, singles(5, 3), memory=3072), cell(2, singles(8, 2))]
    asked = {f"numa_cpus__{n}": cpus for n, cpus in enumerate(("0-2", "3", "4-7"))} | {
        f"numa_mem__{n}": memory for n, memory in enumerate(("1024", "3072", "4096"))
    }
    found = ask(case(cells, 8, 8192, cpu_policy="dedicated", numa_nodes="3", **asked))
    assert homes(found) == [1, 2, 0]
    assert [len(each["pcpus"]) for each in found["cells"]] == [3, 1, 4]
    less = [cell(0, singles(0, 5)), cell(1, singles(5, 3), memory=1024), cell(2, singles(8, 2), memory=2048)]
    refused = ask(case(less, 8, 8192, cpu_policy="dedicated", numa_nodes="3", **asked))
    assert (refused["fits"], refused["certificate"]["verified"]) == (False, True)


@pytest.mark.rule("N18")
def test_isolate_keeps_siblings_idle_on_a_split_host() -> None:
    """Two isolated vCPUs fit on two idle cores beside a shared one; a third has no idle core left."""
    cells = [cell(0, "0,4 1,5 2,6 3,7", shared="0 4", pinned="1")]
    asked = {"cpu_policy": "dedicated", "cpu_thread_policy": "isolate"}
    found = ask(case(cells, 2, 512, **asked))
    assert found["cells"][0]["pcpus"] == [2, 3]
    assert ask(case(cells, 3, 512, **asked))["fits"] is False


@pytest.mark.rule("N18")
def test_isolate_beside_a_shared_sibling_is_no_isolation() -> None:
    """A core of which the other thread is in the shared set only isolates nobody."""
    cells = [cell(0, "0,4 1,5", shared="4")]
    asked = {"cpu_policy": "dedicated", "cpu_thread_policy": "isolate"}
    assert ask(case(cells, 1, 512, **asked))["cells"][0]["pcpus"] == [1]
    assert ask(case(cells, 2, 512, **asked))["fits"] is False


@pytest.mark.rule("N17", "W38")
def test_cores_need_not_all_give_the_same_number_of_threads() -> None:
    """Under require six vCPUs fit on a core with four free threads and one with two, and an odd one may be alone."""
    cells = [cell(0, "0,1,2,3 4,5 6,7", pinned="7")]
    asked = {"cpu_policy": "dedicated", "cpu_thread_policy": "require"}
    assert ask(case(cells, 6, 512, **asked))["cells"][0]["pcpus"] == [0, 1, 2, 3, 4, 5]
    assert ask(case(cells, 5, 512, **asked))["fits"] is True
    assert ask(case(cells, 7, 512, **asked))["fits"] is False


@pytest.mark.rule("W21")
def test_a_page_size_is_found_for_each_cell_anew() -> None:
    """A cell with pages of 1 GiB and no core to share, one with 2 MiB pages and a free core: `large` with require fits on the second."""
    cells = [cell(0, singles(0, 4), pages={4: 1000, GIB_KIB: 4}), cell(1, "4,5 6,7", pages={4: 1000, 2048: 2048})]
    found = ask(case(cells, 2, 1024, cpu_policy="dedicated", cpu_thread_policy="require", mem_page_size="large"))
    assert homes(found) == [1]
    assert found["cells"][0]["pagesize_kb"] == 2048


@pytest.mark.rule("H1", "W38")
def test_the_smallest_size_that_suffices_is_taken() -> None:
    """Where any size answers, a small guest leaves the pages of 1 GiB to those who need them."""
    cells = [cell(0, singles(0, 4), pages={4: 1 << 18, 2048: 512, GIB_KIB: 4})]
    assert ask(case(cells, 1, 1024, cpu_policy="dedicated", mem_page_size="any"))["cells"][0]["pagesize_kb"] == 4
    assert (
        ask(case([cell(0, "0 1", shared="0 1", pages={4: 10, GIB_KIB: 4})], 1, 1024, mem_page_size="any"))["cells"][0]["pagesize_kb"]
        == GIB_KIB
    )


@pytest.mark.rule("W12", "N13")
def test_a_cell_without_page_information_has_memory() -> None:
    """Where a host tells nothing of pages, free memory counts for pinned guests and all memory for those that share."""
    bare = cell(0, "0 1 2 3", shared="0 1", pages={})
    used = {**bare, "used": {"memory_mb": 3072, "pinned_cpus": [], "shared_vcpus": 0}}
    assert ask(case([bare], 1, 4096, cpu_policy="dedicated"))["fits"] is True
    assert ask(case([used], 1, 1025, cpu_policy="dedicated"))["fits"] is False
    assert ask(case([used], 1, 4096, numa_nodes="1"))["fits"] is True
    assert ask(case([used], 1, 1024, cpu_policy="dedicated", mem_page_size="small"))["fits"] is False


@pytest.mark.rule("W22", "P9")
def test_a_card_that_is_not_asked_for_by_type_is_in_nobodys_way() -> None:
    """A plain device elsewhere answers `preferred` although a card of the same kind is nearer."""
    pci = (device("0000:10:00.0", "PF", 0, physical_network="net"), device("0000:20:00.0", "PCI", 1, physical_network="net"))
    wanted = ({"count": 1, "spec": [{"physical_network": "net"}], "numa_policy": "preferred"},)
    cells = [cell(0, singles(0, 4)), cell(1, singles(4, 1), pinned="4")]
    found = ask(case(cells, 2, 512, pci=pci, wanted=wanted, cpu_policy="dedicated"))
    assert (homes(found), found["pci"]) == ([0], [["0000:20:00.0"]])


@pytest.mark.rule("W23", "P4")
def test_a_card_and_a_function_never_come_from_one_card() -> None:
    """A card and a function of the other card are given together; with one card only they are refused, not promised."""
    first, second = "0000:10:00.0", "0000:10:00.1"
    pci = (device(first, "PF", 0), device("0000:10:02.0", "VF", 0, first), device(second, "PF", 0))
    card, function = ({"count": 1, "spec": [{"dev_type": kind}], "numa_policy": None} for kind in ("PF", "VF"))
    cells = [cell(0, singles(0, 4))]
    assert ask(case(cells, 1, 512, pci=pci, wanted=(card, function)))["pci"] == [[second], ["0000:10:02.0"]]
    refused = ask(case(cells, 1, 512, pci=pci[:2], wanted=(card, function)))
    assert (refused["fits"], refused["certificate"]["verified"]) == (False, True)


@pytest.mark.rule("W23")
def test_requests_that_compete_are_served_together() -> None:
    """A request that any device answers leaves the only one to the request that needs it."""
    pci = tuple(device(f"0000:0{number}:00.0", "PCI", 0, role="odd" if number == 1 else "even") for number in (1, 2))
    anything: Made = {"count": 1, "spec": [{"vendor_id": "8086"}], "numa_policy": None}
    odd: Made = {"count": 1, "spec": [{"role": "ODD"}], "numa_policy": None}
    assert ask(case([cell(0, "0 1")], 1, 512, pci=pci, wanted=(anything, odd)))["pci"] == [["0000:02:00.0"], ["0000:01:00.0"]]


@pytest.mark.rule("W26", "P15")
def test_guests_without_cells_count_against_the_host_alone() -> None:
    """What floating guests use is not on any cell of a case; a guest without cells needs room on the host, and devices wherever they are."""
    busy = case([cell(0, "0 1 2 3", shared="0 1")], 2, 4096, cpu_policy="dedicated")
    busy["host"]["used"] = {"vcpus": 2, "pcpus": 0, "memory_mb": 4096}
    busy["limits"] = {"cpu_allocation_ratio": 1.0, "ram_allocation_ratio": 1.0}
    assert ask(busy)["fits"] is True
    pci = (device("0000:10:00.0", "PCI", 7),)
    wanted = ({"count": 1, "spec": [{}], "numa_policy": "required"},)
    floating = case([cell(0, "0 1", shared="0 1")], 2, 4096, pci=pci, wanted=wanted)
    found = ask({**floating, "limits": busy["limits"]})
    assert (found["fits"], found["cells"], found["pci"]) == (True, None, [["0000:10:00.0"]])
    floating["host"]["used"]["vcpus"] = 1
    refused = ask({**floating, "limits": busy["limits"]})
    assert (refused["fits"], refused["certificate"]["verified"]) == (False, True)


@pytest.mark.rule("W33", "N12")
def test_eight_guest_cells_and_a_device_that_is_not_there() -> None:
    """What takes Nova a minute of permutations is refused at once, with its certificate."""
    cells = [cell(number, singles(4 * number, 4)) for number in range(8)]
    wanted = ({"count": 1, "spec": [{"dev_type": "PF"}], "numa_policy": "required"},)
    began = perf_counter()
    refused = ask(case(cells, 8, 512, wanted=wanted, pci=(device("0000:10:00.0", "PF", 77),), cpu_policy="dedicated", numa_nodes="8"))
    assert perf_counter() - began < 1
    assert (refused["fits"], refused["certificate"]["verified"]) == (False, True)


@pytest.mark.shared
@pytest.mark.long
def test_the_page_of_differences_is_what_the_recordings_give(shared: Path, tmp_path: Path) -> None:
    """docs/explanation/fits-that-nova-misses.md is made by tools/fits_page.py; every difference is of a sort that is explained."""
    recorded = shared / "oracle/fit-dev.jsonl.gz"
    assert fits_page.main([str(recorded), "--check"]) == 0
    assert "DIFFERS" not in fits_page.PAGE.read_text()
    some = tmp_path / "some.jsonl"
    with gzip.open(recorded) as lines:
        some.write_bytes(b"".join(line for line, _ in zip(lines, range(20), strict=False)))
    assert fits_page.main([str(some), "--check"]) == 1
    assert all(json.loads(line) for line in some.read_text().splitlines())
