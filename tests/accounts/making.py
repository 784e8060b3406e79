"""Lives of instances written by hand, in the format of the recordings, with the books that a person would write beside them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

Made = dict[str, Any]
PF, VF_ONE, VF_TWO = "0000:20:00.0", "0000:20:02.0", "0000:20:02.1"
SWAP_CAUSE = "swap of part of a GiB is cut off"
FLAVORS: Made = {
    "small": {"vcpus": 1, "memory_mb": 512, "root_gb": 2, "ephemeral_gb": 1, "swap_mb": 0, "extra_specs": {}},
    "swapped": {"vcpus": 1, "memory_mb": 512, "root_gb": 2, "ephemeral_gb": 0, "swap_mb": 512, "extra_specs": {}},
    "own": {
        "vcpus": 2, "memory_mb": 64, "root_gb": 1, "ephemeral_gb": 0, "swap_mb": 0,
        "extra_specs": {"hw:cpu_policy": "dedicated", "hw:mem_page_size": "2MB"},
    },
    "alone": {
        "vcpus": 1, "memory_mb": 128, "root_gb": 1, "ephemeral_gb": 0, "swap_mb": 0,
        "extra_specs": {"hw:cpu_policy": "dedicated", "hw:cpu_thread_policy": "isolate"},
    },
    "two cells": {
        "vcpus": 4, "memory_mb": 128, "root_gb": 1, "ephemeral_gb": 0, "swap_mb": 0,
        "extra_specs": {"hw:cpu_policy": "mixed", "hw:numa_nodes": "2", "hw:emulator_threads_policy": "isolate"},
    },
    "huge": {"vcpus": 1, "memory_mb": 2048, "root_gb": 1, "ephemeral_gb": 0, "swap_mb": 0, "extra_specs": {"hw:mem_page_size": "2048"}},
    "wide": {"vcpus": 6, "memory_mb": 512, "root_gb": 1, "ephemeral_gb": 0, "swap_mb": 0, "extra_specs": {}},
}  # fmt: skip
"""A node has 2 cells of 8 CPUs (4 cores of 2 threads), 4096 MB each, 1024 MB of it in pages of 2 MB; the first core of a cell is shared."""


def node(name: str, mode: str = "split") -> Made:
    """Return a node: cell 0 has the CPUs 0-3 and 8-11, cell 1 the rest; CPU n and n+8 are a core."""
    cells = []
    for number in (0, 1):
        cpus = [*range(4 * number, 4 * number + 4), *range(4 * number + 8, 4 * number + 12)]
        first = [4 * number, 4 * number + 8]
        sets = {
            "split": (first, [cpu for cpu in cpus if cpu not in first]),
            "dedicated": ([], cpus),
            "shared": (cpus, []),
            "default": (cpus, cpus),
        }
        cells.append(
            {
                "id": number, "socket": number, "memory_mb": 4096, "distances": [10, 20], "cpus": dict(zip(("shared", "dedicated"), sets[mode], strict=True)),
                "siblings": [[cpu, cpu + 8] for cpu in range(4 * number, 4 * number + 4)],
                "pages": [
                    {"size_kb": 4, "total": 3072 * 256, "reserved": 0, "used": 0}, {"size_kb": 2048, "total": 512, "reserved": 0, "used": 0},
                ],
                "used": {"memory_mb": 0, "pinned_cpus": [], "shared_vcpus": 0},
            }
        )  # fmt: skip
    devices = [(PF, "PF", None), (VF_ONE, "VF", PF), (VF_TWO, "VF", PF)]
    pci: list[Made] = [
        {
            "address": address, "vendor_id": "8086", "product_id": "1572", "type": kind, "numa_node": 0, "parent": parent, "tags": {},
            "status": "available", "owner": None,
        }
        for address, kind, parent in devices
    ]  # fmt: skip
    used = {"vcpus": 0, "pcpus": 0, "memory_mb": 0}
    host = {"shape": "2x4c-smt", "cpu_mode": mode, "cpus_offline": [], "used": used, "cells": cells, "pci": pci}
    return {"name": name, "local_gb": 100, "reserved_memory_mb": 512, "host": host}


def cell(pinned: str = "", memory: int = 0, shared: int = 0, small: int = 0, large: int = 0) -> Made:
    """Return the book of one cell; `pinned` are CPU numbers with spaces between."""
    return {
        "pinned_cpus": [int(cpu) for cpu in pinned.split()], "memory_mb": memory, "shared_vcpus": shared, "pages": {"4": small, "2048": large},
    }  # fmt: skip


def book(vcpus: int = 0, memory: int = 0, disk: float = 0, cells: tuple[Made, ...] = (), pci: Made | None = None) -> Made:
    """Return the book of a node as Nova has it; `memory` is without the 512 MB of the host; `pci` says who has which address."""
    both = (*cells, *(cell() for _ in range(2 - len(cells))))
    return {
        "vcpus_used": vcpus, "memory_mb_used": memory + 512, "local_gb_used": disk, "running_vms": 0,
        "cells": {str(number): each for number, each in enumerate(both)},
        "pci": {address: {"status": "allocated", "instance": who} for address, who in (pci or {}).items()},
    }  # fmt: skip


def right(made: Made) -> Made:
    """Return a book as it ought to be, in the form of `ledger`."""
    return {key: value for key, value in made.items() if key != "running_vms"} | {
        "pci": {address: held["instance"] for address, held in made["pci"].items()}
    }


def placed(*cells: Made, pci: tuple[str, ...] = ()) -> Made:
    """Return a placement; without cells the guest floats."""
    return {"cells": list(cells) or None, "pci": list(pci)}


def guest_cell(host_cell: int, pins: Made, *, memory: int, page: int | None = None, shared: tuple[int, ...] = (), emulator: tuple[int, ...] = (), number: int = 0) -> Made:  # fmt: skip
    """Return one cell of a placement; `pins` maps vCPUs to CPUs."""
    vcpus = sorted((*map(int, pins), *shared))
    return {
        "guest_cell": number, "host_cell": host_cell, "vcpus": vcpus, "shared_vcpus": list(shared), "cpu_pinning": pins,
        "pcpus": sorted(pins.values()), "memory_mb": memory, "pagesize_kb": page, "cpuset_reserved": list(emulator),
    }  # fmt: skip


def claim(op: str, who: str, where: str, flavor: str, placement: Any = None, **more: Any) -> Made:
    """Return a claiming operation that succeeded."""
    backed = {"volume_backed": False} if op in ("build_claim", "unshelve_claim") else {}
    return {
        "op": op, "instance": who, "node": where, "flavor": flavor, "result": "ok", "placement": placement or placed(), "after": {},
        **backed, **more,
    }  # fmt: skip


def step(op: str, who: str, where: str | None = None, **more: Any) -> Made:
    """Return another operation of an instance."""
    return {"op": op, "instance": who, "after": {}, **({"node": where} if where is not None else {}), **more}


def at(op: str, where: str, **more: Any) -> Made:
    """Return an operation of a node."""
    return {"op": op, "node": where, "after": {}, **more}


def sequence(name: str, *ops: Made, nodes: tuple[Made, ...] = (), cpu_ratio: float = 2.0) -> Made:
    """Return a sequence; without `nodes` on n0 and n1."""
    there = nodes or (node("n0"), node("n1"))
    return {
        "id": name, "nodes": list(there), "flavors": FLAVORS, "pci_aliases": {}, "tags": [],
        "limits": {"cpu_allocation_ratio": cpu_ratio, "ram_allocation_ratio": 1.0},
        "start": {each["name"]: book() for each in there}, "ops": list(ops),
    }  # fmt: skip


OWN = guest_cell(0, {"0": 1, "1": 9}, memory=64, page=2048)
OWN_BOOK = book(2, 64, 1, (cell("1 9", 64, 0, 0, 32),))
OTHER = guest_cell(1, {"0": 5, "1": 13}, memory=64, page=2048)
OTHER_BOOK = book(2, 64, 1, (cell(), cell("5 13", 64, 0, 0, 32)))


def building() -> Made:
    """Return builds, a failed one, a shelved one, a deletion; Nova cuts off half a GiB of swap."""
    cut, true = book(2, 1024, 5), right(book(2, 1024, 5.5))
    wrong: Made = {"ledger": {"n0": true}, "ledger_differs": {"n0": ["local_gb_used"]}}
    return sequence(
        "built",
        claim("build_claim", "i1", "n0", "small", after={"n0": book(1, 512, 3)}),
        step("build_done", "i1"),
        claim("build_claim", "i2", "n0", "swapped", after={"n0": cut}, **wrong, ledger_cause={"n0": [SWAP_CAUSE]}),
        {**claim("build_claim", "i3", "n1", "own"), "result": "refused", "placement": None, "error": "ComputeResourcesUnavailable", **wrong},
        step("build_abort", "i2", "n0", after={"n0": book(1, 512, 3)}),
        claim("build_claim", "i2", "n1", "own", placed(OTHER, pci=(VF_ONE,)), after={"n1": {**OTHER_BOOK, "pci": book(pci={VF_ONE: "i2"})["pci"]}}),
        step("build_done", "i2"),
        at("audit", "n0"),
        step("shelve_offload", "i2", "n1", after={"n1": book()}),
        claim("unshelve_claim", "i2", "n0", "own", placed(OWN), after={"n0": book(3, 576, 4, (cell("1 9", 64, 0, 0, 32),))}),
        step("unshelve_done", "i2"),
        step("delete", "i1", "n0", after={"n0": OWN_BOOK}, record_only=True),
        at("node_restart", "n0"),
        step("delete", "i2", "n0", after={"n0": book()}),
    )  # fmt: skip


def moving() -> Made:
    """Return resizes (confirmed, reverted, aborted, on one node), a live migration, one rolled back, an isolated guest and one of two cells."""
    both = guest_cell(0, {"0": 2}, memory=64, shared=(1,), emulator=(10,)), guest_cell(1, {"2": 6}, memory=64, shared=(3,), number=1)
    two = book(4, 128, 1, (cell("2 10", 64, 1, 64 * 256), cell("6", 64, 1, 64 * 256)))
    alone = guest_cell(0, {"0": 3}, memory=128)
    four = book(4, 128, 2, (cell("1 2 9 10", 128, 0, 0, 64),))
    return sequence(
        "moved",
        claim("build_claim", "i1", "n0", "own", placed(OWN), after={"n0": OWN_BOOK}),
        step("build_done", "i1"),
        claim("resize_claim", "i1", "n1", "two cells", placed(*both), after={"n1": two}, **{"from": "n0"}),
        step("resize_off", "i1", "n0"), step("resize_switch", "i1", "n0"), step("resize_finish", "i1", "n1"),
        step("revert_dest", "i1", "n1", after={"n1": book()}, to="n0"), step("revert_source", "i1", "n0"),
        claim("resize_claim", "i1", "n0", "own", placed(guest_cell(0, {"0": 2, "1": 10}, memory=64, page=2048)), after={"n0": four}, **{"from": "n0"}),
        step("resize_finish", "i1", "n0"),
        step("confirm", "i1", "n0", to="n0", after={"n0": book(2, 64, 1, (cell("2 10", 64, 0, 0, 32),))}),
        claim("live_claim", "i1", "n1", "own", placed(OTHER), after={"n1": OTHER_BOOK}, **{"from": "n0"}),
        step("live_run", "i1", "n0"), step("live_rollback", "i1", "n0", after={"n1": book()}),
        claim("live_claim", "i1", "n1", "own", placed(OTHER), after={"n1": OTHER_BOOK}, **{"from": "n0"}),
        step("live_run", "i1", "n0"), step("live_done", "i1", "n0", to="n1", after={"n0": book()}),
        claim("resize_claim", "i1", "n0", "alone", placed(alone), after={"n0": book(1, 128, 1, (cell("3 11", 128, 0, 128 * 256),))}, **{"from": "n1"}),
        step("resize_abort", "i1", "n0", after={"n0": book()}),
        claim("resize_claim", "i1", "n0", "alone", placed(alone), after={"n0": book(1, 128, 1, (cell("3 11", 128, 0, 128 * 256),))}, **{"from": "n1"}),
        step("delete", "i1", "n1", after={"n0": book(), "n1": book()}),
    )  # fmt: skip


def fleeing() -> Made:
    """Return an evacuation; while its host is down nothing is compared there, and when it is back it is empty."""
    return sequence(
        "fled",
        claim("build_claim", "i1", "n0", "own", placed(OWN), after={"n0": OWN_BOOK}),
        step("build_done", "i1"),
        at("node_down", "n0", after={"n0": book(99)}),
        claim("evacuate_claim", "i1", "n1", "own", placed(OTHER), after={"n1": OTHER_BOOK}, **{"from": "n0"}),
        step("evacuate_done", "i1", "n1", **{"from": "n0"}),
        step("shelve_offload", "i1", "n1", after={"n1": book()}),
        claim("unshelve_claim", "i1", "n1", "own", placed(OTHER), after={"n1": OTHER_BOOK}),
        step("unshelve_done", "i1"),
        at("node_restart", "n0", after={"n0": book()}),
        step("delete", "i1", "n1", after={"n1": book()}),
    )  # fmt: skip


def double(cause: str = "the audit lost it") -> Made:
    """Return a life in which Nova gives the CPUs of i1 to i2 as well, and i3 goes on beside them."""
    again = guest_cell(0, {"0": 1, "1": 2}, memory=64, page=2048)
    both = book(4, 128, 2, (cell("1 2 9", 128, 0, 0, 64),))
    return sequence(
        "twice",
        claim("build_claim", "i1", "n0", "own", placed(OWN, pci=(VF_ONE,)), after={"n0": {**OWN_BOOK, "pci": book(pci={VF_ONE: "i1"})["pci"]}}),
        step("build_done", "i1"),
        claim("build_claim", "i2", "n0", "own", placed(again, pci=(PF,)), after={"n0": {**both, "pci": book(pci={VF_ONE: "i1", PF: "i2"})["pci"]}}),
        step("build_done", "i2"),
        claim("build_claim", "i3", "n1", "small", after={"n1": book(1, 512, 3)}),
        step("delete", "i1", "n0", after={"n0": {**book(2, 64, 1, (cell("1 2", 64, 0, 0, 32),)), "pci": book(pci={PF: "i2"})["pci"]}}),
        step("delete", "i2", "n0", after={"n0": book()}),
        nodes=(node("n0"), node("n1")),
    ) | {"tags": [cause]}  # fmt: skip


def beyond() -> Made:
    """Return guests that float on a node without shared CPUs, and one with more vCPUs than there are shared CPUs: Placement would refuse both."""
    return sequence(
        "beyond",
        claim("build_claim", "i1", "n0", "small", after={"n0": book(1, 512, 3)}),
        step("build_done", "i1"),
        claim("build_claim", "i2", "n1", "wide", after={"n1": book(6, 512, 1)}),
        step("build_done", "i2"),
        claim("live_claim", "i1", "n1", "small", after={"n1": book(7, 1024, 4)}, **{"from": "n0"}),
        step("live_done", "i1", "n0", to="n1", after={"n0": book()}),
        nodes=(node("n0", "dedicated"), node("n1")),
    )


def all_of_them() -> list[Made]:
    """Return every life that Nova and Earmark agree on in the end."""
    return [building(), moving(), fleeing(), beyond()]


def written(folder: Path, *lines: Made | str, zipped: bool = False) -> Path:
    """Write sequences, or lines as they are, to a file and return its path."""
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines).encode()
    path = folder / ("lives.jsonl.gz" if zipped else "lives.jsonl")
    path.write_bytes(gzip.compress(text) if zipped else text)
    return path
