"""Random cases: small hosts of every kind with something on them, and requests that may just fit.

Rules of this file: a case is a plain dict in the format of the files. What the request means stands beside it under `meant` (a key that the format
passes over), so that no reader of flavors is needed to judge an answer.
"""

from __future__ import annotations

from random import Random
from typing import Any

Made = dict[str, Any]
MODES = ("split", "dedicated", "shared", "ragged", "default")
RATIOS = (1.0, 1.0, 1.15, 1.5, 2.0, 4.0, 16.0)
STATUSES = ("available",) * 20 + ("claimed", "allocated", "allocated", "unclaimable", "unavailable")
AFFINITIES = ("required", "preferred", "legacy", "socket", None)
MIX = 0.3
"""How often something out of the ordinary is done."""


def drawn(seed: int) -> Made:
    """Return the random case of a number, always the same."""
    rng = Random(seed)  # noqa: S311 - nobody is to be surprised
    host = _host(rng, rng.choice((1, 2, 2, 3, 3, 4, 5, 6, 8)))
    request, meant = _request(rng, host)
    limits = None if rng.random() < MIX else {"cpu_allocation_ratio": rng.choice(RATIOS), "ram_allocation_ratio": rng.choice(RATIOS[:4])}
    return {
        "id": f"made-{seed}", "host": host, "limits": limits, "request": request, "config": {"pack_cells": rng.random() < 0.5}, "meant": meant,
        "tags": ["made"],
    }  # fmt: skip


# --- hosts --------------------------------------------------------------------------------------------------------------------------


def _host(rng: Random, count: int) -> Made:
    mode = rng.choice(MODES)
    ids = sorted(rng.sample(range(count + 3), count)) if rng.random() < MIX else list(range(count))
    if rng.random() < 0.1:
        rng.shuffle(ids)
    threads, cores = rng.choice(((1, 6), (2, 2), (2, 3), (2, 4), (4, 2)))
    sizes = rng.choice(((), (4,), (4, 2048), (4, 2048, 1048576), (64, 2048), (2048,)))
    sockets = rng.choice(("none", "own", "pairs", "one", "holes"))
    cells = []
    for place, number in enumerate(ids):
        groups = [[(place * cores + core) * threads + thread for thread in range(threads)] for core in range(cores)]
        if rng.random() < 0.08:
            groups = []
        socket = {"none": None, "own": place, "pairs": place // 2, "one": 0, "holes": place if rng.random() < 0.7 else None}[sockets]
        cells.append(_cell(rng, number, mode, groups, sizes, {"socket": socket, "distances": _distances(rng, count)}))
    pinned = sum(len(cell["used"]["pinned_cpus"]) for cell in cells)
    used = {"vcpus": rng.randrange(6), "pcpus": pinned, "memory_mb": rng.randrange(600)}
    return {"shape": "made", "cpu_mode": mode, "cpus_offline": [], "used": used, "cells": cells, "pci": _devices(rng, ids)}


def _cell(rng: Random, number: int, mode: str, groups: list[list[int]], sizes: tuple[int, ...], more: Made) -> Made:
    shared: list[int] = []
    dedicated: list[int] = []
    for group in groups:
        whole = rng.random() < 0.4
        for cpu in group:
            if rng.random() < 0.05:
                continue
            if mode in ("shared", "default") or (mode == "split" and whole) or (mode == "ragged" and rng.random() < 0.35):
                shared.append(cpu)
            if (
                mode in ("dedicated", "default")
                or (mode == "split" and not whole)
                or (mode == "ragged" and cpu not in shared and rng.random() < 0.9)
            ):
                dedicated.append(cpu)
    known = {*shared, *dedicated}
    siblings = [there for group in groups if (there := [cpu for cpu in group if cpu in known])]
    memory = rng.choice((256, 512, 1024))
    busy = rng.choice((0, 0, 0.2, 0.4))
    return {
        **more, "id": number, "memory_mb": memory, "cpus": {"shared": shared, "dedicated": dedicated}, "siblings": siblings,
        "pages": [_pages(rng, size, memory) for size in sizes if rng.random() < 0.95],
        "used": {
            "memory_mb": rng.choice((0, 0, 0, memory // 4, memory // 2, memory)),
            "pinned_cpus": [cpu for cpu in dedicated if rng.random() < busy],
            "shared_vcpus": rng.choice((0, 0, 0, 1, 3)),
        },
    }  # fmt: skip


def _distances(rng: Random, count: int) -> list[int]:
    """Return a row of distances: none, all alike, all kinds, or too few."""
    rows: tuple[list[int], ...] = ([], [10] * count, [10 + 5 * (place % 3) for place in range(count)], [10])
    return rng.choice(rows)


def _pages(rng: Random, size: int, memory: int) -> Made:
    total = rng.choice((memory, memory // 2, 2048)) * 1024 // size
    used = rng.choice((0, 0, 0, 0, total // 2, total))
    return {"size_kb": size, "total": total, "reserved": rng.choice((0, 0, 0, total // 8, 3)), "used": used}


def _devices(rng: Random, ids: list[int]) -> list[Made]:
    if rng.random() < 0.4:
        return []
    devices = []
    for slot in range(rng.randrange(1, 4)):
        node = rng.choice((*ids, *ids, None, 77))
        kind = rng.choice(("PF", "PF", "PCI"))
        tags: dict[str, Any] = {}
        if rng.random() < MIX:
            tags["physical_network"] = rng.choice(("net0", "net1"))
        if rng.random() < 0.1:
            tags["remote_managed"] = "true"
        parent = f"0000:{slot:02x}:00.0"
        listed = rng.random() < 0.8 or kind == "PCI"
        if listed:
            devices.append(_device(rng, parent, kind, {"numa_node": node, "parent": None, "tags": dict(tags)}))
        if kind == "PF":
            for number in range(rng.randrange(4)):
                child = rng.choice(("VF", "VF", "VF", "VDPA"))
                place = {"numa_node": node, "parent": parent, "tags": dict(tags)}
                devices.append(_device(rng, f"0000:{slot:02x}:02.{number}", child, place))
    if rng.random() < 0.2:
        rng.shuffle(devices)
    return devices


def _device(rng: Random, address: str, kind: str, place: Made) -> Made:
    status = rng.choice(STATUSES)
    product = {"PF": "1572", "PCI": "2330"}.get(kind, "154c")
    return {
        **place, "address": address, "vendor_id": rng.choice(("8086", "8086", "10de")), "product_id": product, "type": kind, "status": status,
        "owner": "somebody" if status == "allocated" else None,
    }  # fmt: skip


# --- requests -----------------------------------------------------------------------------------------------------------------------


def _request(rng: Random, host: Made) -> tuple[Made, Made]:
    policy = _policy(rng, host)
    count = rng.choice((1, 1, 2, 2, 3, 4))
    if rng.random() < 0.8:
        count = min(count, len(host["cells"]))
    own = rng.random() < 0.4
    each = rng.choice((1, 1, 2, 2, 3))
    memory = rng.choice((2, 2, 16, 64, 128, 200))
    if policy == "mixed" and each * count == 1:
        each = 2
    specs: Made = {}
    image: Made = {}
    vcpus = each * count
    cells: list[Made] = [{"vcpus": list(range(n * each, n * each + each)), "memory_mb": memory} for n in range(count)]
    if own:
        cells = _own_cells(rng, count, vcpus, memory)
        for number, cell in enumerate(cells):
            specs[f"hw:numa_cpus.{number}"] = ",".join(str(cpu) for cpu in cell["vcpus"])
            specs[f"hw:numa_mem.{number}"] = str(cell["memory_mb"])
    if own or count > 1 or rng.random() < 0.2:
        specs["hw:numa_nodes"] = str(count)
    if policy is not None and rng.random() < 0.8:
        specs["hw:cpu_policy"] = policy
    elif policy is not None:
        image["hw_cpu_policy"] = policy
    meant = _policies(rng, policy, vcpus, specs)
    page = _page(rng, host, specs)
    bound = "hw:numa_nodes" in specs or page is not None or policy in ("dedicated", "mixed")
    dedicated = set(meant["dedicated"])
    meant["cells"] = [{**cell, "dedicated": [cpu for cpu in cell["vcpus"] if cpu in dedicated]} for cell in cells] if bound else None
    meant["page"] = page
    affinity = rng.choice((None, None, None, None, *AFFINITIES))
    if affinity is not None:
        specs["hw:pci_numa_affinity_policy"] = affinity
    meant["affinity"] = affinity
    request = {
        "vcpus": vcpus, "memory_mb": sum(cell["memory_mb"] for cell in cells), "extra_specs": specs, "image_properties": image,
        "pci_requests": _pci_requests(rng, host),
    }  # fmt: skip
    return request, meant


def _page(rng: Random, host: Made, specs: Made) -> str | int | None:
    """Return a wish for pages, mostly of a size that the host has, and add it to the extra specs."""
    sizes = [each["size_kb"] for cell in host["cells"] for each in cell["pages"]]
    page: str | int | None = rng.choice(
        (None, None, None, None, "small", "large", "any", *sizes[:3], 1048576 if rng.random() < MIX else None)
    )
    if page is not None:
        spellings: Made = {"2048": rng.choice(("2048", "2MB")), "1048576": "1GB"}
        specs["hw:mem_page_size"] = spellings.get(str(page), str(page))
    return page


def _policy(rng: Random, host: Made) -> str | None:
    """Return a CPU policy, mostly one that the host has CPUs for."""
    usual = {"shared": (None, "shared"), "dedicated": ("dedicated",), "split": (None, "dedicated", "mixed")}
    return rng.choice((*usual.get(host["cpu_mode"], (None, "dedicated", "mixed")) * 3, None, "shared", "dedicated", "mixed"))


def _own_cells(rng: Random, count: int, vcpus: int, memory: int) -> list[Made]:
    order = list(range(vcpus))
    rng.shuffle(order)
    cuts = sorted(rng.randrange(vcpus + 1) for _ in range(count - 1))
    bounds = zip((0, *cuts), (*cuts, vcpus), strict=True)
    return [{"vcpus": sorted(order[low:high]), "memory_mb": max(1, memory + rng.choice((0, 2, -1, 64)))} for low, high in bounds]


def _policies(rng: Random, policy: str | None, vcpus: int, specs: Made) -> Made:
    """Add the policies of threads and emulator to the extra specs, and return what all of them mean."""
    meant: Made = {"policy": policy or "shared", "threads": None, "emulator": None, "dedicated": []}
    if policy == "dedicated":
        meant["dedicated"] = list(range(vcpus))
    if policy == "mixed":
        meant["dedicated"] = sorted(rng.sample(range(vcpus), rng.randrange(1, vcpus)))
        specs["hw:cpu_dedicated_mask"] = ",".join(map(str, meant["dedicated"]))
    if policy in ("dedicated", "mixed"):
        meant["threads"] = rng.choice((None, "prefer", "require", "require", "isolate", "isolate"))
        if meant["threads"] is not None:
            specs["hw:cpu_thread_policy"] = meant["threads"]
        meant["emulator"] = rng.choice((None, None, "share", "isolate"))
        if meant["emulator"] is not None:
            specs["hw:emulator_threads_policy"] = meant["emulator"]
    return meant


def _pci_requests(rng: Random, host: Made) -> list[Made]:
    free = [device for device in host["pci"] if device["status"] == "available" or rng.random() < 0.1]
    if not free or rng.random() < 0.2:
        return []
    return [_pci_request(rng, free) for _ in range(rng.choice((1, 1, 2, 2, 3)))]


def _pci_request(rng: Random, devices: list[Made]) -> Made:
    spec = []
    for _ in range(rng.choice((1, 1, 2))):
        model = rng.choice(devices)
        one = {key: model[key] for key in ("vendor_id", "product_id") if rng.random() < 0.4}
        if rng.random() < 0.7 or model["type"] in ("PF", "VDPA"):
            one["dev_type"] = model["type"]
        if rng.random() < 0.1:
            one["address"] = model["parent"] or model["address"]
        if rng.random() < 0.1:
            one["physical_network"] = rng.choice(("NET0", "net1"))
        spec.append(one)
    return {"count": rng.choice((1, 1, 1, 1, 2, 3)), "spec": spec, "numa_policy": rng.choice(AFFINITIES)}
