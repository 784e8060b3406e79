"""The monitor of a host: what its CPUs, memory and disks are doing, read from /proc and /sys.

Rules of this file: each parser takes the text of one file and returns what it says, or raises InvalidRecord that names the file and what
is wrong; nothing is guessed and nothing unread counts as 0. A source that fails stands in nobody's way: it is None in the sample, with
a note. Sources: proc_stat(5), proc_meminfo(5), proc_loadavg(5), Documentation/accounting/psi.rst and admin-guide/pm/cpufreq.rst, Linux 6.12.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from earmark.core.model.sample import COUNTER_MAX, CpuTimes, Frequency, Load, MemoryNow, Pressure, Sample, Stall
from earmark.core.model.topology import CPUS_MAX
from earmark.core.model.units import KIB
from earmark.drivers.sysfs.boot import read_boot_id
from earmark.drivers.sysfs.tree import QUOTED_MAX, Tree
from earmark.errors import HostUnavailable, InvalidRecord

STAT = "/proc/stat"
MEMINFO = "/proc/meminfo"
LOADAVG = "/proc/loadavg"
UPTIME = "/proc/uptime"
PRESSURE = "/proc/pressure"
CPU_FOLDERS = "/sys/devices/system/cpu"
CPU_TIMES_MIN = 7
"""user, nice, system, idle, iowait, irq and softirq are there since Linux 2.6; steal (2.6.11) and guest (2.6.24) may follow."""
STEAL = 7

NUMBER = re.compile(r"[0-9]{1,20}")
CPU_LINE = re.compile(r"cpu[0-9]{1,5} ")
CPU_FOLDER = re.compile(r"cpu([0-9]{1,5})")
MEMORY_LINE = re.compile(r"([A-Za-z0-9_()]{1,60}): +([0-9]{1,17}) kB")
STALL_LINE = re.compile(r"(some|full) avg10=([0-9.]{1,9}) avg60=([0-9.]{1,9}) avg300=([0-9.]{1,9}) total=([0-9]{1,20})")
LOAD_LINE = re.compile(r"([0-9.]{1,12}) ([0-9.]{1,12}) ([0-9.]{1,12}) ([0-9]{1,10})/([0-9]{1,10}) [0-9]{1,10}")
UPTIME_LINE = re.compile(r"([0-9]{1,15})\.[0-9]{2} [0-9]{1,20}\.[0-9]{2}")
TWO_DECIMALS = re.compile(r"([0-9]{1,9})\.([0-9]{2})")

T = TypeVar("T")


def read_sample(at_ms: int, root: Path = Path("/")) -> Sample:
    """Return what the host below `root` shows now; raises HostUnavailable if it shows nothing at all."""
    tree = Tree(root)
    cpus, cpu = read(tree, STAT, cpu_times) or (None, None)
    pressures = {name: read(tree, f"{PRESSURE}/{name}", pressure) for name in ("cpu", "memory", "io")}
    sample = Sample(
        at_ms=at_ms, boot_id=read_boot_id(root / "proc"), cpus=cpus, cpu=cpu, frequency=read_frequency(tree),
        memory=read(tree, MEMINFO, memory), cpu_pressure=pressures["cpu"], memory_pressure=pressures["memory"], io_pressure=pressures["io"],
        load=read(tree, LOADAVG, load), uptime_s=read(tree, UPTIME, uptime), notes=tree.notes,
    )  # fmt: skip
    if sample.cpu is None and sample.memory is None and sample.load is None:
        why = "; ".join(sample.notes) or f"neither {STAT} nor {MEMINFO} nor {LOADAVG} is there"
        raise HostUnavailable(f"host below {root}: {why}", path=str(root))
    return sample


def read(tree: Tree, path: str, parse: Callable[[str, str], T]) -> T | None:
    """Return what a file says; None if it is absent or, with a note, unreadable or not understood."""
    text = tree.text(path)
    if text is None:
        return None
    try:
        return parse(text, path)
    except InvalidRecord as error:
        tree.note(error.message)
        return None


def cpu_times(text: str, path: str = STAT) -> tuple[int, CpuTimes]:
    """Return how many CPUs /proc/stat lists, and their times together; raises InvalidRecord."""
    lines = text.split("\n")
    first = lines[0].split()
    if not first or first[0] != "cpu" or len(first) <= CPU_TIMES_MIN:
        raise _wrong(path, lines[0], "the line of all CPUs: cpu and at least 7 times")
    times = [_counter(word, path) for word in first[1:]]
    user, nice, system, idle, iowait, irq, softirq = times[:CPU_TIMES_MIN]
    cpus = sum(1 for line in lines[1:] if CPU_LINE.match(line))
    if not 1 <= cpus <= CPUS_MAX:
        raise InvalidRecord(f"{path}: {cpus} CPUs are listed where 1 to {CPUS_MAX} are due", path=path, found=cpus)
    steal = times[STEAL] if len(times) > STEAL else 0
    sums = (user + nice, system + irq + softirq)
    if max(sums) > COUNTER_MAX:
        raise _wrong(path, lines[0], "times of 63 bits")
    return cpus, CpuTimes(user=sums[0], kernel=sums[1], idle=idle, iowait=iowait, steal=steal)


def memory(text: str, path: str = MEMINFO) -> MemoryNow:
    """Return the memory as /proc/meminfo has it; raises InvalidRecord if a line of it is none, or total or free are missing."""
    found: dict[str, int] = {}
    for line in text.split("\n"):
        match = MEMORY_LINE.fullmatch(line.rstrip())
        if match is None:
            if line.startswith("HugePages_"):
                continue
            raise _wrong(path, line, "a line of meminfo")
        if match[1] in found:
            raise _wrong(path, line, f"the only line of {match[1]}")
        found[match[1]] = _counter(match[2], path) * KIB
        if found[match[1]] > COUNTER_MAX:
            raise _wrong(path, line, "an amount of 63 bits")
    total, free = found.get("MemTotal"), found.get("MemFree")
    if total is None or free is None or free > total:
        raise InvalidRecord(f"{path}: MemTotal {total} and MemFree {free} are no memory of a host", path=path)
    return MemoryNow(
        total_bytes=total, free_bytes=free, available_bytes=found.get("MemAvailable"), swap_total_bytes=found.get("SwapTotal"),
        swap_free_bytes=found.get("SwapFree"),
    )  # fmt: skip


def pressure(text: str, path: str = PRESSURE) -> Pressure:
    """Return one file of /proc/pressure; raises InvalidRecord."""
    found: dict[str, Stall] = {}
    for line in text.split("\n"):
        match = STALL_LINE.fullmatch(line)
        if match is None or match[1] in found:
            raise _wrong(path, line, "a line of pressure: some or full, each once, with three averages and a total")
        found[match[1]] = Stall(
            avg10=_percent(match[2], path),
            avg60=_percent(match[3], path),
            avg300=_percent(match[4], path),
            total_us=_counter(match[5], path),
        )
    if "some" not in found:
        raise _wrong(path, text, "a pressure with the line `some`")
    return Pressure(some=found["some"], full=found.get("full"))


def load(text: str, path: str = LOADAVG) -> Load:
    """Return the load averages; raises InvalidRecord."""
    match = LOAD_LINE.fullmatch(text)
    if match is None:
        raise _wrong(path, text, "three averages, RUNNING/THREADS and a pid")
    one, five, fifteen = (_hundredths(match[number], path) for number in (1, 2, 3))
    return Load(one=one, five=five, fifteen=fifteen, running=int(match[4]), threads=int(match[5]))


def uptime(text: str, path: str = UPTIME) -> int:
    """Return for how many whole seconds the host has been up; raises InvalidRecord."""
    match = UPTIME_LINE.fullmatch(text)
    if match is None:
        raise _wrong(path, text, "two numbers of seconds")
    return int(match[1])


def frequency_khz(text: str, path: str = CPU_FOLDERS) -> int:
    """Return the frequency of one CPU (scaling_cur_freq) in kHz; raises InvalidRecord."""
    found = _counter(text, path)
    if not found:
        raise _wrong(path, text, "a frequency above 0")
    return found


def read_frequency(tree: Tree) -> Frequency | None:
    """Return the frequencies of the CPUs whose driver tells them, None if there is no such CPU (most virtual machines)."""
    found = []
    for name in tree.names(CPU_FOLDERS):
        if CPU_FOLDER.fullmatch(name):
            khz = read(tree, f"{CPU_FOLDERS}/{name}/cpufreq/scaling_cur_freq", frequency_khz)
            found += [] if khz is None else [khz]
    if not found:
        return None
    return Frequency(lowest_khz=min(found), mean_khz=sum(found) // len(found), highest_khz=max(found), cpus=len(found))


def _counter(text: str, path: str) -> int:
    if not NUMBER.fullmatch(text) or int(text) > COUNTER_MAX:
        raise _wrong(path, text, "a number of 63 bits")
    return int(text)


def _hundredths(text: str, path: str) -> int:
    match = TWO_DECIMALS.fullmatch(text)
    if match is None:
        raise _wrong(path, text, "a number with two decimals")
    return int(match[1]) * 100 + int(match[2])


def _percent(text: str, path: str) -> int:
    found = _hundredths(text, path)
    if found > 100 * 100:
        raise _wrong(path, text, "a percentage up to 100.00")
    return found


def _wrong(path: str, text: str, wanted: str) -> InvalidRecord:
    return InvalidRecord(f"{path}: {text[:QUOTED_MAX]!r} is not {wanted}", path=path, found=text[:QUOTED_MAX])
