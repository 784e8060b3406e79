"""The shapes of `--json` of stats and monitor; the rules are those of `output`.

A map such as `by_state` has a key only for what there is one of; a number ending in `_hundredths` has two decimals: 39 is 0.39.
"""

from __future__ import annotations

from earmark.cli.output import Out, When
from earmark.cli.output_machine import NodeStanding


class AmountsOut(Out, frozen=True):
    """vCPUs, memory and disk. MiB and GiB are rounded up once per node (`text`: 2/2048/20), bytes are exact."""

    vcpus: int
    memory_bytes: int
    memory_mib: int
    disk_bytes: int
    disk_gib: int
    text: str


class RoomOut(Out, frozen=True):
    """A stock in its base unit: `free` is the capacity less what is used, negative if more is held than there is now."""

    resource_class: str
    pool: str
    cell: int | None
    total: int
    reserved: int
    capacity: int
    used: int
    free: int


class PopulationOut(Out, frozen=True):
    """How many instances there are, of which kind each; `by_task` has those with a task."""

    instances: int
    by_state: dict[str, int]
    by_task: dict[str, int]
    by_owner: dict[str, int]
    by_kind: dict[str, int]


class WorkloadOut(Out, frozen=True):
    """What is in progress. `io_workload` is the sum of `io`, `current_workload` the instances with a task, `builds` main claims not yet confirmed.

    `moves_in` and `moves_out` are open moves by kind, by the side on which they are; of all nodes together a move between two counts on both.
    """

    io_workload: int
    io: dict[str, int]
    current_workload: int
    builds: int
    moves_in: dict[str, int]
    moves_out: dict[str, int]


class NodeStatsOut(Out, frozen=True):
    """One node: what is used (reserved and quarantined parts included), what it has, what runs on it.

    `pins` are the CPUs that somebody has alone; `emulator_cpus` and `withheld_cpus` those among them that are no vCPU's. `memory_free_bytes`
    and `disk_free_bytes` are total less used; of CPUs the rooms tell, VCPU and PCPU apart.
    """

    node: str
    name: str
    host: str
    state: NodeStanding
    used: AmountsOut
    reserved: AmountsOut
    quarantined: AmountsOut
    total: AmountsOut
    memory_free_bytes: int
    disk_free_bytes: int
    pins: list[int]
    emulator_cpus: list[int]
    withheld_cpus: list[int]
    devices: list[str]
    named: list[str]
    rooms: list[RoomOut]
    claims: int
    claims_by_phase: dict[str, int]
    claims_by_purpose: dict[str, int]
    quarantines: int
    population: PopulationOut
    workload: WorkloadOut
    failed_builds: int


class FleetStatsOut(Out, frozen=True):
    """All nodes together. `nowhere` are instances, not deleted, without a main claim; `moves` open moves by kind, each once."""

    nodes: int
    used: AmountsOut
    total: AmountsOut
    claims: int
    quarantines: int
    population: PopulationOut
    nowhere: PopulationOut
    workload: WorkloadOut
    moves: dict[str, int]
    failed_builds: int


class StatsOut(Out, frozen=True):
    """The answer of stats. `nodes` is empty with --fleet, `fleet` null with --node."""

    at: When
    nodes: list[NodeStatsOut]
    fleet: FleetStatsOut | None


class CpuUseOut(Out, frozen=True):
    """How the CPUs spent the time since the last sample, `over_ms` long, in whole percent that add up to 100; `busy` is all but idle."""

    user: int
    kernel: int
    idle: int
    iowait: int
    steal: int
    busy: int
    over_ms: int


class CpuTimesOut(Out, frozen=True):
    """The time of all CPUs since boot, in ticks: 100 a second."""

    user: int
    kernel: int
    idle: int
    iowait: int
    steal: int


class FrequencyOut(Out, frozen=True):
    """The frequencies of the CPUs that tell theirs, in kHz."""

    lowest_khz: int
    mean_khz: int
    highest_khz: int
    cpus: int


class MemoryNowOut(Out, frozen=True):
    """The memory of the host; null is what the kernel does not say."""

    total_bytes: int
    free_bytes: int
    available_bytes: int | None
    swap_total_bytes: int | None
    swap_free_bytes: int | None


class StallOut(Out, frozen=True):
    """The share of the last 10, 60 and 300 seconds in which tasks waited, in hundredths of a percent; and all of it since boot."""

    avg10_hundredths: int
    avg60_hundredths: int
    avg300_hundredths: int
    total_us: int


class PressureOut(Out, frozen=True):
    """The pressure on one resource: `some` task waited, or all did (`full`, null where the kernel does not say)."""

    some: StallOut
    full: StallOut | None


class LoadOut(Out, frozen=True):
    """The load averages of 1, 5 and 15 minutes, and how many of all threads run."""

    one_hundredths: int
    five_hundredths: int
    fifteen_hundredths: int
    running: int
    threads: int


class SampleOut(Out, frozen=True):
    """One sample of this machine, a line each. What is null is not there or could not be read; `notes` tell the latter.

    `use` is null for the first sample of a boot, for two in one tick, and where a counter went backwards.
    """

    at: When
    node: str
    node_name: str
    boot_id: str
    cpus: int | None
    use: CpuUseOut | None
    cpu: CpuTimesOut | None
    frequency: FrequencyOut | None
    memory: MemoryNowOut | None
    cpu_pressure: PressureOut | None
    memory_pressure: PressureOut | None
    io_pressure: PressureOut | None
    load: LoadOut | None
    uptime_s: int | None
    notes: list[str]
