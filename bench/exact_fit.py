"""How long a fit of several guest cells takes, whether it fits or not, and one with virtual functions, against walking the permutations.

Prints one JSON line. Each row is a number of host cells (8 cores of two threads each, a third of the threads busy at random) and of guest
cells, with and without thread policies: median and worst in milliseconds over ROUNDS random nodes, for those that fit and those that do not.
`refused` are made too large for the node: one guest cell more than it has cells with room; `answer_ms` is the no with its reasons and
certificate, `refused_ms` that and the proposals of what would fit, each of which is tried. `walk` is what trying one assignment after the
other takes on the same refused cases (only where there are few enough; it stops after WALK_MAX assignments). Rows with `vfs` ask for
virtual functions near the guest, of 8, 64 and 512. Run it with the project's interpreter: python bench/exact_fit.py [quick]
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from itertools import permutations
from random import Random

from earmark.core.fit.fit import answered, fit
from earmark.core.fit.free import Free, Supply
from earmark.core.fit.layout import build_layout
from earmark.core.model.grant import Grant, UnitRow
from earmark.core.model.ids import ClaimId, UnitId, cpu_unit
from earmark.core.model.node import NodeSettings
from earmark.core.model.refusal import Refusal
from earmark.core.model.request import DeviceRequest, GuestCell, Request, ThreadPolicy
from earmark.core.model.topology import Cell, Cpu, Device, Machine, PagePool
from earmark.core.model.units import GIB, MIB
from ground import quick, report

SHAPES = ((1, 1), (2, 1), (2, 2), (4, 2), (4, 4), (8, 1), (8, 4), (8, 8), (16, 4), (16, 16), (64, 1), (64, 4), (64, 16))
THREADS: tuple[ThreadPolicy | None, ...] = (None, "require", "isolate")
FUNCTIONS = (8, 64, 512)
ROUNDS = 30
CORES = 8
WALK_MAX = 50_000
GOAL = "median < 1 ms and worst < 20 ms for 8 guest cells on 8 host cells, < 50 ms for 16 on 64, < 2 ms with 512 VFs"


def machine(cells: int, devices: tuple[Device, ...] = ()) -> Machine:
    """Return a machine of some cells: 8 cores of two threads, 64 GiB and 4,096 pages of 2 MiB each; eight cells are a socket."""
    size = CORES * 2
    cpus = tuple(Cpu(id=n, core=n - n % 2, cell=n // size, package=n // size // 8, l3=n - n % 8) for n in range(cells * size))
    rows = tuple(
        Cell(
            id=n,
            cpus=tuple(range(n * size, (n + 1) * size)),
            memory_bytes=64 * GIB,
            pages=(PagePool(size_kib=2048, total=4096),),
            distances=tuple(10 if n == other else 12 if n // 8 == other // 8 else 32 for other in range(cells)),
        )
        for n in range(cells)
    )
    return Machine(cpus=cpus, cells=rows, devices=devices)


def supply(cells: int, rnd: Random, devices: tuple[Device, ...] = (), busy: float = 0.33) -> Supply:
    """Return a node on which some threads, chosen at random, are somebody's own."""
    host = machine(cells, devices)
    rows = tuple(UnitRow(unit=cpu_unit(cpu.id), use="vcpu") for cpu in host.cpus if rnd.random() < busy)
    settings = NodeSettings(reserved_host_memory_bytes=0, device_kinds=("vf",))
    return Supply(layout=build_layout(host, settings), free=Free.recompute([(ClaimId("c-busy"), Grant(units=rows))]))


def guest(sizes: list[int], threads: ThreadPolicy | None, devices: tuple[DeviceRequest, ...] = ()) -> Request:
    """Return a guest whose cells have so many dedicated vCPUs and 1 GiB in pages of any size each."""
    cells = []
    first = 0
    for size in sizes:
        cells.append(GuestCell(vcpus=tuple(range(first, first + size)), memory_bytes=512 * MIB))
        first += size
    return Request(
        vcpus=first, cpu_policy="dedicated", thread_policy=threads, memory_bytes=512 * MIB * len(sizes), page_kib="any",
        guest_cells=tuple(cells), devices=devices,
    )  # fmt: skip


def timed(request: Request, node: Supply, ask: Callable[[Request, Supply], Grant | Refusal] = fit) -> tuple[bool, float]:
    """Return whether a request fits and how many milliseconds the answer took."""
    begin = time.perf_counter()
    answer = ask(request, node)
    return isinstance(answer, Grant), (time.perf_counter() - begin) * 1000


def walk(request: Request, node: Supply) -> float | None:
    """Return the milliseconds that trying one assignment after the other takes to say no, None if it was stopped."""
    free = [(cell.dedicated & ~node.free.taken_cpus).bit_count() for cell in node.layout.cells]
    begin = time.perf_counter()
    for number, hosts in enumerate(permutations(range(len(free)), len(request.guest_cells))):
        if number == WALK_MAX:
            return None
        if all(len(cell.vcpus) <= free[host] for cell, host in zip(request.guest_cells, hosts, strict=True)):
            return None
    return (time.perf_counter() - begin) * 1000


def row(cells: int, guests: int, threads: ThreadPolicy | None, rounds: int) -> dict[str, object]:
    """Measure one shape."""
    fits: list[float] = []
    refused: list[float] = []
    bare: list[float] = []
    walks: list[float | None] = []
    for seed in range(rounds):
        rnd = Random(seed)  # noqa: S311 - a drawn node, not a secret
        node = supply(cells, rnd)
        free = sorted((cell.dedicated & ~node.free.taken_cpus).bit_count() for cell in node.layout.cells)
        for sizes in ([rnd.randint(1, 4) for _ in range(guests)], [max(1, free[-guests]) + 1] * guests):
            request = guest(sizes, threads)
            yes, took = timed(request, node)
            (fits if yes else refused).append(took)
            if not yes:
                bare.append(timed(request, node, answered)[1])
            if not yes and threads is None and guests > 1:
                walks.append(walk(request, node))
    figures: dict[str, object] = {"cells": cells, "guest_cells": guests, "threads": threads or "any"}
    for name, times in (("fits", fits), ("refused", refused)):
        if times:
            figures |= {f"{name}": len(times), f"{name}_ms": round(statistics.median(times), 2), f"{name}_worst_ms": round(max(times), 2)}
    if bare:
        figures |= {"answer_ms": round(statistics.median(bare), 2), "answer_worst_ms": round(max(bare), 2)}
    done = [took for took in walks if took is not None]
    if done and refused:
        figures["walk_ratio"] = round(statistics.median(done) / statistics.median(refused), 1)
    elif walks:
        figures["walk"] = f"stopped after {WALK_MAX} assignments"
    return figures


def functions(count: int, rounds: int) -> dict[str, object]:
    """Measure a guest of two cells that wants four virtual functions near it, on 8 cells with so many of them, and one too many."""
    rnd = Random(count)  # noqa: S311 - as above
    devices: list[Device] = []
    for number in range(count):
        port = number // 8
        parent = UnitId(f"pci:0000:{port:02x}:00.0")
        if number % 8 == 0:
            devices.append(Device(unit=parent, kind="nic", address=parent[4:], cell=port % 8, sriov_total=8))
        unit = UnitId(f"pci:0000:{port:02x}:02.{number % 8}")
        devices.append(Device(unit=unit, kind="vf", address=unit[4:], cell=port % 8, parent=parent, vendor_id="15b3", product_id="1018"))
    node = supply(8, rnd, tuple(devices))
    figures: dict[str, object] = {"cells": 8, "guest_cells": 2, "vfs": count}
    for name, wanted, ask in (("fits", 4, fit), ("refused", count + 1, fit), ("answer", count + 1, answered)):
        wish = DeviceRequest(kind="pci", count=min(1024, wanted), match=({"vendor_id": "15b3", "dev_type": "VF"},), affinity="required")
        times = [timed(guest([2, 2], None, (wish,)), node, ask) for _ in range(rounds)]
        took = [each for _, each in times]
        figures |= {name: sum(yes == (name == "fits") for yes, _ in times), f"{name}_ms": round(statistics.median(took), 2)}
        figures[f"{name}_worst_ms"] = round(max(took), 2)
    return figures


def main() -> int:
    """Measure and print."""
    rounds = 2 if quick() else ROUNDS
    shapes = SHAPES[:6] if quick() else SHAPES
    rows = [row(cells, guests, threads, rounds) for cells, guests in shapes for threads in THREADS]
    rows += [functions(count, rounds) for count in FUNCTIONS]
    report("exact_fit", {"goal": GOAL, "rounds": rounds, "rows": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())
