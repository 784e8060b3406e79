"""`earmark monitor`: samples of this machine, one line each, as they are taken."""

from __future__ import annotations

import time

import click

from earmark.cli import phrases
from earmark.cli.session import Session
from earmark.cli.times import local
from earmark.cli.verb import Verb
from earmark.cli.views_statistics import sample_out
from earmark.core.model.sample import Frequency, MemoryNow, Pressure, Sample, Utilisation, utilisation
from earmark.core.model.units import format_bytes, parse_duration_ms
from earmark.errors import InvalidRequest

EVERY_LEAST_MS = 100
EVERY_MOST_MS = 24 * 3600 * 1000
UNKNOWN = "-"
COLUMNS = (
    ("time", 8), ("busy", 5), ("user", 5), ("kernel", 6), ("iowait", 6), ("steal", 5), ("load", 7), ("available", 20), ("waits cpu", 9),
    ("memory", 7), ("io", 7), ("MHz", 6),
)  # fmt: skip


@click.command(cls=Verb, examples=("earmark monitor", "earmark monitor --every 1s --count 10", "earmark monitor --count 1 --json"))
@click.option("--every", metavar="DURATION", default="5s", show_default=True, help="How long from one sample to the next.")
@click.option("--count", metavar="N", type=click.IntRange(min=1), help="Stop after so many samples; else Ctrl-C stops it.")
@click.pass_obj
def monitor(session: Session, *, every: str, count: int | None) -> int:
    """Take samples of this machine: CPUs, load, memory, pressure.

    Each is kept beside the ledger, for this machine's node; the newest 1440 are. How busy the CPUs were is counted since the last sample, also
    since one that an earlier run took; "-" is what nothing can be said of.
    """
    every_ms = parse_duration_ms(every, what="every")
    if not EVERY_LEAST_MS <= every_ms <= EVERY_MOST_MS:
        raise InvalidRequest(f"--every {every!r} is not between 100ms and 1d", found=every)
    state = session.tracker.node()
    kept = session.tracker.samples(1)
    last = kept[0] if kept else None
    taken = 0
    try:
        while True:
            sample = session.tracker.sample()
            use = utilisation(last, sample)
            if session.json:
                session.emit(sample_out(sample, use, (state.node, state.name)))
            else:
                session.out(([head()] if not taken else []) + [row(sample, use)])
            for note in sample.notes:
                if taken == 0 or last is None or note not in last.notes:
                    session.note(f"earmark: {phrases.clean(note)}")
            last = sample
            taken += 1
            if count is not None and taken >= count:
                return 0
            time.sleep(every_ms / 1000)
    except KeyboardInterrupt:  # this is how it is stopped: what was taken is kept
        return 0


def head() -> str:
    """Return the line above the samples."""
    return "  ".join(f"{name:>{width}}" for name, width in COLUMNS)


def row(sample: Sample, use: Utilisation | None) -> str:
    """Return the line of one sample."""
    percents = [UNKNOWN] * 5 if use is None else [f"{part}%" for part in (use.busy, use.user, use.kernel, use.iowait, use.steal)]
    cells = [
        f"{local(sample.at_ms):%H:%M:%S}", *percents, UNKNOWN if sample.load is None else decimals(sample.load.one), available(sample.memory),
        *(waits(one) for one in (sample.cpu_pressure, sample.memory_pressure, sample.io_pressure)), megahertz(sample.frequency),
    ]  # fmt: skip
    return "  ".join(f"{cell:>{width}}" for cell, (_, width) in zip(cells, COLUMNS, strict=True))


def available(memory: MemoryNow | None) -> str:
    """Return how much memory programs could have, and of how much."""
    if memory is None or memory.available_bytes is None:
        return UNKNOWN
    return f"{format_bytes(memory.available_bytes)}/{format_bytes(memory.total_bytes)}"


def waits(one: Pressure | None) -> str:
    """Return in which share of the last ten seconds some task waited."""
    return UNKNOWN if one is None else decimals(one.some.avg10) + "%"


def megahertz(frequency: Frequency | None) -> str:
    """Return the mean frequency."""
    return UNKNOWN if frequency is None else str(frequency.mean_khz // 1000)


def decimals(hundredths: int) -> str:
    """Return hundredths with two decimals."""
    return f"{hundredths // 100}.{hundredths % 100:02d}"
