"""What a host is doing: one look at its counters, and how busy it was between two looks.

Rules of this file: what could not be read is None, never 0; counters are as the kernel has them, since boot; a share of time exists only
between two samples of one boot (Nova's monitor divides by zero for two in one tick and takes the first as an average since boot: W45).
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from earmark.core.model.claim import Moment
from earmark.core.model.value import Value
from earmark.errors import InvalidRecord

HUNDRED = 100
COUNTER_MAX = (1 << 63) - 1
Counter = Annotated[int, Meta(ge=0, le=COUNTER_MAX)]
Hundredths = Annotated[int, Meta(ge=0, le=COUNTER_MAX)]
"""A number with two decimals, in hundredths: 39 is 0.39."""


class CpuTimes(Value, frozen=True):
    """The time that all CPUs together have spent since boot, in ticks (100 a second on Linux).

    `user` with niced programs and guests, `kernel` with interrupts (as libvirt's virNodeGetCPUStats adds them up), `idle`, `iowait`, and
    `steal`: what a hypervisor gave to others.
    """

    user: Counter
    kernel: Counter
    idle: Counter
    iowait: Counter
    steal: Counter = 0


class Frequency(Value, frozen=True):
    """The frequencies of the CPUs that tell theirs, in kHz."""

    lowest_khz: Counter
    mean_khz: Counter
    highest_khz: Counter
    cpus: Counter


class MemoryNow(Value, frozen=True):
    """The memory of the host in bytes; `available_bytes` is what programs could have without swapping, by the kernel's estimate."""

    total_bytes: Counter
    free_bytes: Counter
    available_bytes: Counter | None = None
    swap_total_bytes: Counter | None = None
    swap_free_bytes: Counter | None = None


class Stall(Value, frozen=True):
    """How much of the time tasks waited: in the last 10, 60 and 300 seconds, in hundredths of a percent, and since boot in microseconds."""

    avg10: Hundredths
    avg60: Hundredths
    avg300: Hundredths
    total_us: Counter


class Pressure(Value, frozen=True):
    """The pressure on one resource: `some` task waited; all of them did (`full`), None where the kernel does not say."""

    some: Stall
    full: Stall | None = None


class Load(Value, frozen=True):
    """The load averages of 1, 5 and 15 minutes in hundredths, and how many threads run now, of how many."""

    one: Hundredths
    five: Hundredths
    fifteen: Hundredths
    running: Counter
    threads: Counter


class Sample(Value, frozen=True):
    """One look at a host's counters, `at_ms` since the epoch, under the boot `boot_id` ("" where the kernel gives none).

    What is None is not there, or could not be read; `notes` say which of both where it was the latter. `cpus` is how many CPUs `cpu` sums up.
    """

    at_ms: Moment
    boot_id: str = ""
    cpus: Counter | None = None
    cpu: CpuTimes | None = None
    frequency: Frequency | None = None
    memory: MemoryNow | None = None
    cpu_pressure: Pressure | None = None
    memory_pressure: Pressure | None = None
    io_pressure: Pressure | None = None
    load: Load | None = None
    uptime_s: Counter | None = None
    notes: tuple[str, ...] = ()


class Utilisation(Value, frozen=True):
    """How the CPUs spent the time between two samples, in whole percent that add up to 100; `busy` is all but idle.

    `over_ms` is how long that was, by the clock; 0 if the clock was set back meanwhile.
    """

    user: int
    kernel: int
    idle: int
    iowait: int
    steal: int
    over_ms: int

    @property
    def busy(self) -> int:
        """The percentage in which a CPU was not idle; waiting for a disk counts as busy, as in Nova's cpu.percent."""
        return HUNDRED - self.idle


_samples = msgspec.json.Decoder(Sample)


def utilisation(before: Sample | None, after: Sample) -> Utilisation | None:
    """Return how the CPUs spent the time from one sample to the next.

    None for the first sample of all, for two samples in one tick, after a reboot, where a counter went backwards, where CPUs came or
    went, and where the times could not be read: none of these says anything.
    """
    if before is None or before.cpu is None or after.cpu is None or (before.boot_id, before.cpus) != (after.boot_id, after.cpus):
        return None
    old, new = msgspec.structs.astuple(before.cpu), msgspec.structs.astuple(after.cpu)
    spent = [later - earlier for earlier, later in zip(old, new, strict=True)]
    total = sum(spent)
    if total == 0 or min(spent) < 0:
        return None
    user, kernel, idle, iowait, steal = _percents(spent, total)
    return Utilisation(user=user, kernel=kernel, idle=idle, iowait=iowait, steal=steal, over_ms=max(0, after.at_ms - before.at_ms))


def _percents(parts: list[int], total: int) -> list[int]:
    """Return the parts in whole percent that add up to 100: rounded down, and what is missing given to the largest remainders."""
    shares = [part * HUNDRED // total for part in parts]
    order = sorted(range(len(parts)), key=lambda index: (-(parts[index] * HUNDRED % total), index))
    for index in order[: HUNDRED - sum(shares)]:
        shares[index] += 1
    return shares


def encode_sample(sample: Sample) -> bytes:
    """Return a sample as JSON."""
    return msgspec.json.encode(sample)


def decode_sample(raw: bytes) -> Sample:
    """Return the sample of its JSON; raises InvalidRecord."""
    try:
        return _samples.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRecord(f"{len(raw)} bytes are no sample of a host: {error}") from error
