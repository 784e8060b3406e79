"""From statistics and samples to the shapes of `--json`.

Rules of this file: those of earmark.cli.views: nothing is counted here.
"""

from __future__ import annotations

from earmark.cli import output_statistics as o
from earmark.cli.output_machine import NodeStanding
from earmark.cli.views import when
from earmark.core.ledger.figures import Amounts, Room
from earmark.core.ledger.statistics import FleetStatistics, NodeStatistics, Population, Statistics, Workload
from earmark.core.model.sample import Pressure, Sample, Stall, Utilisation


def stats_out(found: Statistics, at_ms: int, *, fleet: bool) -> o.StatsOut:
    """Return the answer of stats: the nodes that were found, and all of them together if that was asked for."""
    return o.StatsOut(at=when(at_ms), nodes=[node_stats(one) for one in found.nodes], fleet=fleet_stats(found.fleet) if fleet else None)


def node_stats(one: NodeStatistics) -> o.NodeStatsOut:
    """Return one node."""
    figures = one.figures
    return o.NodeStatsOut(
        node=one.node, name=one.name, host=one.host, state=standing(one), used=amounts(figures), reserved=amounts(figures.reserved),
        quarantined=amounts(figures.quarantined), total=amounts(figures.total), memory_free_bytes=figures.memory_free_bytes,
        disk_free_bytes=figures.disk_free_bytes, pins=list(figures.pins), emulator_cpus=list(figures.emulator_cpus),
        withheld_cpus=list(figures.withheld_cpus), devices=list(figures.devices), named=list(figures.named),
        rooms=[room(each) for each in figures.rooms], claims=figures.claims, claims_by_phase=dict(figures.claims_by_phase),
        claims_by_purpose=dict(figures.claims_by_purpose), quarantines=figures.quarantines, population=population(one.population),
        workload=workload(one.workload), failed_builds=one.failed_builds,
    )  # fmt: skip


def standing(one: NodeStatistics) -> NodeStanding:
    """Return whether a node is open for grants, disabled, or retired."""
    if one.retired is not None:
        return "retired"
    return "open" if one.disabled is None else "disabled"


def fleet_stats(fleet: FleetStatistics) -> o.FleetStatsOut:
    """Return all nodes together."""
    return o.FleetStatsOut(
        nodes=fleet.nodes, used=amounts(fleet.used), total=amounts(fleet.total), claims=fleet.claims, quarantines=fleet.quarantines,
        population=population(fleet.population), nowhere=population(fleet.nowhere), workload=workload(fleet.workload),
        moves=dict(fleet.moves), failed_builds=fleet.failed_builds,
    )  # fmt: skip


def amounts(one: Amounts) -> o.AmountsOut:
    """Return three figures."""
    return o.AmountsOut(
        vcpus=one.vcpus, memory_bytes=one.memory_bytes, memory_mib=one.memory_mib, disk_bytes=one.disk_bytes, disk_gib=one.disk_gib, text=one.text
    )  # fmt: skip


def room(one: Room) -> o.RoomOut:
    """Return a stock."""
    return o.RoomOut(
        resource_class=one.resource_class, pool=one.pool, cell=one.cell, total=one.total, reserved=one.reserved, capacity=one.capacity,
        used=one.used, free=one.free,
    )  # fmt: skip


def population(one: Population) -> o.PopulationOut:
    """Return how many instances there are."""
    return o.PopulationOut(
        instances=one.instances, by_state=dict(one.by_state), by_task=dict(one.by_task), by_owner=dict(one.by_owner), by_kind=dict(one.by_kind)
    )  # fmt: skip


def workload(one: Workload) -> o.WorkloadOut:
    """Return what is in progress."""
    return o.WorkloadOut(
        io_workload=one.io_workload, io=dict(one.io), current_workload=one.tasks, builds=one.builds, moves_in=dict(one.moves_in),
        moves_out=dict(one.moves_out),
    )  # fmt: skip


def sample_out(sample: Sample, use: Utilisation | None, node: tuple[str, str]) -> o.SampleOut:
    """Return a sample of a node (its uuid and name), with how the CPUs spent the time since the last one."""
    cpu, frequency, memory, load = sample.cpu, sample.frequency, sample.memory, sample.load
    return o.SampleOut(
        at=when(sample.at_ms), node=node[0], node_name=node[1], boot_id=sample.boot_id, cpus=sample.cpus,
        use=None if use is None else o.CpuUseOut(
            user=use.user, kernel=use.kernel, idle=use.idle, iowait=use.iowait, steal=use.steal, busy=use.busy, over_ms=use.over_ms
        ),
        cpu=None if cpu is None else o.CpuTimesOut(user=cpu.user, kernel=cpu.kernel, idle=cpu.idle, iowait=cpu.iowait, steal=cpu.steal),
        frequency=None if frequency is None else o.FrequencyOut(
            lowest_khz=frequency.lowest_khz, mean_khz=frequency.mean_khz, highest_khz=frequency.highest_khz, cpus=frequency.cpus
        ),
        memory=None if memory is None else o.MemoryNowOut(
            total_bytes=memory.total_bytes, free_bytes=memory.free_bytes, available_bytes=memory.available_bytes,
            swap_total_bytes=memory.swap_total_bytes, swap_free_bytes=memory.swap_free_bytes,
        ),
        cpu_pressure=pressure(sample.cpu_pressure), memory_pressure=pressure(sample.memory_pressure), io_pressure=pressure(sample.io_pressure),
        load=None if load is None else o.LoadOut(
            one_hundredths=load.one, five_hundredths=load.five, fifteen_hundredths=load.fifteen, running=load.running, threads=load.threads
        ),
        uptime_s=sample.uptime_s, notes=list(sample.notes),
    )  # fmt: skip


def pressure(one: Pressure | None) -> o.PressureOut | None:
    """Return the pressure on a resource, None where it is not known."""
    return None if one is None else o.PressureOut(some=_stall(one.some), full=None if one.full is None else _stall(one.full))


def _stall(one: Stall) -> o.StallOut:
    return o.StallOut(avg10_hundredths=one.avg10, avg60_hundredths=one.avg60, avg300_hundredths=one.avg300, total_us=one.total_us)
