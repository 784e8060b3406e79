"""How long one fit takes: 4 dedicated vCPUs and 8 GiB on 2 cells of 32 CPUs, against a search that tries every set of CPUs.

Prints one JSON line. Times are medians in microseconds; `ratio` is the exhaustive search's time divided by fit's, in the same run.
Run it with the project's interpreter: python bench/fit_latency.py [ROUNDS]
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from itertools import combinations

from earmark.core.fit.fit import fit
from earmark.core.fit.free import Free, Supply
from earmark.core.fit.layout import build_layout
from earmark.core.fit.proof.judge import judge
from earmark.core.model.cpuset import mask_of
from earmark.core.model.grant import AmountRow, Grant, UnitRow
from earmark.core.model.ids import VCPU, ClaimId, cpu_unit
from earmark.core.model.node import NodeSettings
from earmark.core.model.request import Request
from earmark.core.model.topology import Cell, Cpu, Machine
from earmark.core.model.units import GIB
from ground import microseconds, quick, report

ROUNDS = 2000
SHARED_CLAIMS = 10_000
WISH = Request(vcpus=4, cpu_policy="dedicated", memory_bytes=8 * GIB)
GOAL_US = 100


def machine(cells: int, cores: int) -> Machine:
    """Return a machine of some cells, each of some cores with two threads and 256 GiB."""
    size = cores * 2
    cpus = tuple(Cpu(id=n, core=n - n % 2, cell=n // size) for n in range(cells * size))
    rows = tuple(Cell(id=n, cpus=tuple(range(n * size, (n + 1) * size)), memory_bytes=256 * GIB) for n in range(cells))
    return Machine(cpus=cpus, cells=rows)


def held(machine: Machine, every: int) -> Free:
    """Return an index in which one of `every` CPUs is somebody's own."""
    rows = tuple(UnitRow(unit=cpu_unit(cpu.id), use="vcpu") for cpu in machine.cpus if cpu.id % every == 1)
    return Free.recompute([(ClaimId("c-0000"), Grant(units=rows))])


def exhaustive(supply: Supply, count: int) -> tuple[int, int]:
    """Return the least (CPUs of CPU 0's core, whole cores broken) over every set of CPUs of every cell."""
    layout = supply.layout
    best = (count + 1, count + 1)
    for cell in layout.cells:
        free = cell.dedicated & ~supply.free.taken_cpus
        cores = [*cell.cores, *([cell.zero] if cell.zero else [])]
        core_of = {cpu: core for core in cores for cpu in range(layout.online.bit_length()) if core >> cpu & 1}
        for some in combinations([cpu for cpu in core_of if free >> cpu & 1], count):
            mask = mask_of(some)
            touched = {core_of[cpu] for cpu in some}
            broken = sum(1 for core in touched if core & free == core and core & mask != core)
            best = min(best, ((mask & cell.zero).bit_count(), broken))
    return best


def main() -> int:
    """Measure and print."""
    rounds = 20 if quick() else ROUNDS
    host = machine(2, 16)
    layout = build_layout(host, NodeSettings(cpu_allocation_ratio=16_000, cpu_policy="pool"))
    empty = Supply(layout=layout)
    crowd = Free.recompute((ClaimId(f"c-{n:05}"), Grant(amounts=(AmountRow(pool=VCPU, amount=1),))) for n in range(SHARED_CLAIMS))
    wide = build_layout(host, NodeSettings(cpu_allocation_ratio=1_000_000))
    broken = Supply(layout=layout, free=held(host, 3))
    large = machine(8, 64)
    grant = fit(WISH, empty)
    if not isinstance(grant, Grant):
        raise SystemExit(f"the wish does not fit an empty node: {grant}")
    cases: dict[str, Callable[[], object]] = {
        "fit_us": lambda: fit(WISH, empty),
        "fit_fragmented_us": lambda: fit(WISH, broken),
        "fit_10000_shared_us": lambda: fit(WISH, Supply(layout=wide, free=crowd)),
        "fit_8x128_us": lambda: fit(WISH, big),
        "fit_shared_us": lambda: fit(Request(vcpus=4, memory_bytes=8 * GIB), empty),
        "refusal_us": lambda: fit(Request(vcpus=40, cpu_policy="dedicated", memory_bytes=8 * GIB), empty),
        "judge_us": lambda: judge(grant, empty, WISH),
        "take_and_give_us": lambda: empty.free.take(ClaimId("c-0000"), grant).give(ClaimId("c-0000"), grant),
    }
    big = Supply(layout=build_layout(large, NodeSettings()), free=held(large, 3))
    times = {name: microseconds(work, rounds) for name, work in cases.items()}
    figures = {name: round(statistics.median(each), 1) for name, each in times.items()}
    figures["fit_p99_us"] = round(statistics.quantiles(times["fit_us"], n=100)[98], 1)
    start = time.perf_counter_ns()
    best = exhaustive(empty, WISH.vcpus)
    figures["exhaustive_us"] = round((time.perf_counter_ns() - start) / 1000, 1)
    figures["ratio"] = round(figures["exhaustive_us"] / figures["fit_us"], 1)
    if best != (0, 0):
        raise SystemExit(f"the exhaustive search finds {best} on an empty node")
    report("fit_latency", {"goal": f"fit_us under {GOAL_US}", "rounds": rounds, **figures})
    return 0


if __name__ == "__main__":
    sys.exit(main())
