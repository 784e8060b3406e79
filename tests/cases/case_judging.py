"""What a case allows, by the rules of its README, tried out one by one: a second answer to every small case.

Rules of this file: nothing of Earmark is used. An answer is looked at as a person would, a placement is looked for by trying every set of CPUs,
every order of cells and every device. Slow, and only for small hosts.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import Any

Made = dict[str, Any]
HELD = ("claimed", "allocated")


# --- one answer ---------------------------------------------------------------------------------------------------------------------


def wrong(case: Made, answer: Made) -> list[str]:
    """Return what is wrong with a placement, nothing if it is right."""
    meant, host = case["meant"], case["host"]
    if meant["cells"] is None:
        found = ["cells for a guest without them"] if answer["cells"] else []
        return found + ([] if has_room(case) else ["the host is full"]) + list(_wrong_devices(case, answer["pci"], None))
    found = []
    cells = {cell["id"]: cell for cell in host["cells"]}
    if sorted(each["guest_cell"] for each in answer["cells"]) != list(range(len(meant["cells"]))):
        return ["not every guest cell is there once"]
    homes = [each["host_cell"] for each in answer["cells"]]
    if len(set(homes)) != len(homes) or not set(homes) <= set(cells):
        return ["host cells are taken twice or unknown"]
    for each in answer["cells"]:
        want = meant["cells"][each["guest_cell"]]
        pins = {int(vcpu): cpu for vcpu, cpu in each["cpu_pinning"].items()}
        if each["vcpus"] != want["vcpus"] or each["memory_mb"] != want["memory_mb"] or sorted(pins) != want["dedicated"]:
            found.append("it is not what was asked for")
        if sorted(pins.values()) != each["pcpus"] or sorted({*want["vcpus"]} - set(pins)) != each["shared_vcpus"]:
            found.append("it contradicts itself")
        if len(each["cpuset_reserved"]) != _emulator(meant, each["guest_cell"]):
            found.append("CPUs of the emulator")
        if not good_cpus(cells[each["host_cell"]], meant["threads"], list(pins.values()), each["cpuset_reserved"]):
            found.append(f"CPUs of guest cell {each['guest_cell']}")
        if not shares_well(case, cells[each["host_cell"]], want):
            found.append(f"shared vCPUs of guest cell {each['guest_cell']}")
        if each["pagesize_kb"] not in sizes_for(case, cells[each["host_cell"]], want):
            found.append(f"memory of guest cell {each['guest_cell']}")
    return found + list(_wrong_devices(case, answer["pci"], set(homes)))


def _wrong_devices(case: Made, groups: list[list[str]], homes: set[int] | None) -> Iterator[str]:
    every = [address for group in groups for address in group]
    devices = {device["address"]: device for device in case["host"]["pci"]}
    if len(groups) != len(case["request"]["pci_requests"]) or len(set(every)) != len(every) or not set(every) <= set(devices):
        yield "devices are not one group each, twice, or unknown"
        return
    for request, group in zip(case["request"]["pci_requests"], groups, strict=True):
        if len(group) != request["count"]:
            yield "another number of devices"
        yield from (f"device {address}" for address in group if address not in candidates(case, request, homes))
    if any(devices[address]["parent"] in every for address in every):
        yield "a device beside its parent"


# --- what is possible ---------------------------------------------------------------------------------------------------------------


def possible(case: Made) -> bool:
    """Say whether there is any placement at all."""
    if case["meant"]["cells"] is None:
        return has_room(case) and devices_there(case, None)
    return any(devices_there(case, set(homes)) for homes in _homes(case, []))


def _homes(case: Made, chosen: list[int]) -> Iterator[tuple[int, ...]]:
    """Yield every way to put the guest cells on different host cells, once for each set of them."""
    able = [[cell["id"] for cell in case["host"]["cells"] if lies_on(case, number, cell)] for number in range(len(case["meant"]["cells"]))]
    seen: set[frozenset[int]] = set()

    def more(chosen: list[int]) -> Iterator[tuple[int, ...]]:
        if len(chosen) == len(able):
            if frozenset(chosen) not in seen:
                seen.add(frozenset(chosen))
                yield tuple(chosen)
            return
        for home in able[len(chosen)]:
            if home not in chosen:
                yield from more([*chosen, home])

    yield from more(chosen)


def lies_on(case: Made, number: int, cell: Made) -> bool:
    """Say whether one guest cell can lie on one host cell."""
    meant = case["meant"]
    want = meant["cells"][number]
    return shares_well(case, cell, want) and bool(sizes_for(case, cell, want)) and _cpus_there(cell, meant, len(want["dedicated"]), number)


def _cpus_there(cell: Made, meant: Made, pins: int, number: int) -> bool:
    free = [cpu for cpu in cell["cpus"]["dedicated"] if cpu not in cell["used"]["pinned_cpus"]]
    emulator = _emulator(meant, number)
    for taken in combinations(free, pins):
        rest = [cpu for cpu in free if cpu not in taken]
        if any(good_cpus(cell, meant["threads"], list(taken), list(more)) for more in combinations(rest, emulator)):
            return True
    return False


def _emulator(meant: Made, number: int) -> int:
    return int(meant["emulator"] == "isolate" and number == 0)


def good_cpus(cell: Made, threads: str | None, pins: list[int], emulator: list[int]) -> bool:
    """Say whether some CPUs of a cell may become a guest's own under a thread policy."""
    pinned, dedicated = set(cell["used"]["pinned_cpus"]), set(cell["cpus"]["dedicated"])
    taken = pins + emulator
    if len(set(taken)) != len(taken) or not set(taken) <= dedicated - pinned:
        return False
    core = {cpu: set(group) for group in cell["siblings"] for cpu in group}
    if threads == "isolate":
        elsewhere = pinned | (set(cell["cpus"]["shared"]) - dedicated)
        return not any((core[cpu] - {cpu}) & (elsewhere | set(taken)) for cpu in taken)
    if threads == "require":
        alone = [cpu for cpu in pins if not core[cpu] & (set(pins) - {cpu})]
        return len(alone) < 2 and all(len(core[cpu] & (dedicated - pinned)) >= 2 for cpu in pins)
    return True


def shares_well(case: Made, cell: Made, want: Made) -> bool:
    """Say whether a cell can carry the shared vCPUs of a guest cell."""
    if case["meant"]["policy"] == "dedicated":
        return True
    cpus, count = len(cell["cpus"]["shared"]), len(want["vcpus"]) - len(want["dedicated"])
    limits = case["limits"]
    over = limits is not None and cell["used"]["shared_vcpus"] + count > cpus * limits["cpu_allocation_ratio"]
    return count <= cpus and not over


def sizes_for(case: Made, cell: Made, want: Made) -> list[int | None]:
    """Return the page sizes that a cell can give a guest cell its memory in; None where none was asked for."""
    meant, limits = case["meant"], case["limits"]
    asked = want["memory_mb"]
    shares = meant["policy"] != "dedicated"
    if limits is not None and shares and cell["used"]["memory_mb"] + asked > cell["memory_mb"] * limits["ram_allocation_ratio"]:
        return []
    pages = sorted(cell["pages"], key=lambda each: each["size_kb"])
    free = {each["size_kb"]: each["total"] - each["reserved"] - each["used"] for each in pages}
    sizes = list(free)
    pinned = meant["policy"] in ("dedicated", "mixed")
    if meant["page"] is not None:
        wanted = {"small": sizes[:1], "large": sizes[1:], "any": sizes}.get(meant["page"], [s for s in sizes if s == meant["page"]])
        return [size for size in wanted if asked * 1024 % size == 0 and asked * 1024 <= free[size] * size]
    if not pages:
        return [None] if asked <= cell["memory_mb"] - (cell["used"]["memory_mb"] if pinned else 0) else []
    there = free[sizes[0]] if pinned else pages[0]["total"]
    return [None] if asked * 1024 % sizes[0] == 0 and asked * 1024 <= there * sizes[0] else []


def has_room(case: Made) -> bool:
    """Say whether the host as a whole has room for a guest without cells."""
    limits, host, request = case["limits"], case["host"], case["request"]
    if limits is None:
        return True
    cpus = sum(len(cell["cpus"]["shared"]) for cell in host["cells"])
    memory = sum(cell["memory_mb"] for cell in host["cells"])
    floating = host["used"]["vcpus"] + (host["used"]["pcpus"] if host["cpu_mode"] == "default" else 0) + request["vcpus"]
    then = host["used"]["memory_mb"] + request["memory_mb"]
    fits = request["vcpus"] <= cpus and request["memory_mb"] <= memory
    return bool(fits and floating <= cpus * limits["cpu_allocation_ratio"] and then <= memory * limits["ram_allocation_ratio"])


# --- devices ------------------------------------------------------------------------------------------------------------------------


def devices_there(case: Made, homes: set[int] | None) -> bool:
    """Say whether all requests for devices can be met at once for a guest on these host cells (None: it has no cells)."""
    requests = case["request"]["pci_requests"]
    pools = [candidates(case, request, homes) for request in requests]
    parents = {device["address"]: device["parent"] for device in case["host"]["pci"]}

    def more(number: int, taken: tuple[str, ...]) -> bool:
        if number == len(requests):
            return True
        for group in combinations(pools[number], requests[number]["count"]):
            every = (*taken, *group)
            if len(set(every)) == len(every) and not any(parents[address] in every for address in every) and more(number + 1, every):
                return True
        return False

    return more(0, ())


def candidates(case: Made, request: Made, homes: set[int] | None) -> list[str]:
    """Return the addresses of the devices that answer a request for a guest on some host cells."""
    devices = case["host"]["pci"]
    policy = case["meant"]["affinity"] or request["numa_policy"] or "legacy"
    return [
        device["address"]
        for device in devices
        if _is_free(device, devices) and _answers(device, request["spec"]) and _is_near(device, policy, case["host"], homes)
    ]


def _is_free(device: Made, devices: list[Made]) -> bool:
    above = [other for other in devices if other["address"] == device["parent"]]
    below = [other for other in devices if other["parent"] == device["address"]] if device["type"] == "PF" else []
    return device["status"] == "available" and not any(other["status"] in HELD for other in (*above, *below))


def _answers(device: Made, spec: list[Made]) -> bool:
    has = {
        **device["tags"], "dev_type": device["type"], "vendor_id": device["vendor_id"], "product_id": device["product_id"],
        "address": device["parent"] or device["address"],
    }  # fmt: skip
    if device["type"] in ("PF", "VDPA") and not any(one.get("dev_type") == device["type"] for one in spec):
        return False
    return any(all(key in has and str(has[key]).lower() == str(want).lower() for key, want in one.items()) for one in spec)


def _is_near(device: Made, policy: str, host: Made, homes: set[int] | None) -> bool:
    node = device["numa_node"]
    if homes is None or policy == "preferred" or node in homes:
        return True
    if policy == "legacy":
        return node is None
    sockets = {cell["id"]: cell["socket"] for cell in host["cells"]}
    known = None not in sockets.values()
    return policy == "socket" and known and node in sockets and sockets[node] in {sockets[home] for home in homes}
