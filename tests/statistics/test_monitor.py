"""The monitor of a host: what its files say, what is made of two looks, and where samples are kept."""

from __future__ import annotations

import string
import tarfile
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.ledger.values import values_of

from earmark.core.model.ids import node_stream
from earmark.core.model.sample import COUNTER_MAX, CpuTimes, Load, Pressure, Sample, Stall, decode_sample, encode_sample, utilisation
from earmark.core.model.shape import machine_of
from earmark.drivers import monitor
from earmark.drivers.sysfs.observe import SysfsDriver
from earmark.errors import HostUnavailable, InvalidRecord, WrongUse
from earmark.stores.contract import SAMPLES_KEPT_MAX, Store
from earmark.stores.memory import MemoryStore
from earmark.stores.sqlite.store import SqliteStore
from earmark.testing import NODE_ONE, UNRESERVED, bench

STAT = """cpu  1000 20 300 40000 500 6 70 8 9 0
cpu0 500 10 150 20000 250 3 35 4 4 0
cpu1 500 10 150 20000 250 3 35 4 5 0
intr 123 0 9
ctxt 5
btime 1760000000"""
MEMINFO = """MemTotal:       16384 kB
MemFree:         1024 kB
MemAvailable:    8192 kB
SwapTotal:       2048 kB
SwapFree:        2048 kB
Active(anon):       1 kB
HugePages_Total:       4
Hugepagesize:       2048 kB"""
CPU_PRESSURE = "some avg10=0.39 avg60=0.29 avg300=0.43 total=1074612073\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0"
FILES = {
    "proc/stat": STAT,
    "proc/meminfo": MEMINFO,
    "proc/loadavg": "0.34 12.27 0.17 1/93 16485",
    "proc/uptime": "14521.86 21605.47",
    "proc/pressure/cpu": CPU_PRESSURE,
    "proc/pressure/memory": "some avg10=100.00 avg60=1.00 avg300=0.00 total=7",
    "proc/sys/kernel/random/boot_id": "11111111-2222-3333-4444-555555555555",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1200000",
    "sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq": "3600001",
    "sys/devices/system/cpu/cpufreq/boost": "1",
}


def host(folder: Path, **changed: str | None) -> Path:
    """Write a host below a folder; `changed` replaces files by the last part of their name (None: no such file)."""
    for name, text in FILES.items():
        words = changed.get(Path(name).name, text)
        if words is not None:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(words.encode("utf-8", "surrogatepass") + b"\n")
    return folder


# --- what the files say ---------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("T5", "T6")
def test_a_host_is_sampled(tmp_path: Path) -> None:
    """CPU times with niced, interrupt and stolen ones where they belong, frequencies, memory, pressure, load, uptime: each as its file says."""
    found = SysfsDriver(host(tmp_path)).sample(5)
    assert found.notes == ()
    assert (found.at_ms, found.boot_id, found.cpus, found.uptime_s) == (5, "11111111-2222-3333-4444-555555555555", 2, 14521)
    assert found.cpu == CpuTimes(user=1020, kernel=376, idle=40000, iowait=500, steal=8)
    assert found.load == Load(one=34, five=1227, fifteen=17, running=1, threads=93)
    assert found.frequency is not None
    assert msgspec.structs.astuple(found.frequency) == (1200000, 2400000, 3600001, 2)
    assert found.memory is not None
    assert [number and number // 1024 for number in msgspec.structs.astuple(found.memory)] == [16384, 1024, 8192, 2048, 2048]
    assert found.cpu_pressure == Pressure(
        some=Stall(avg10=39, avg60=29, avg300=43, total_us=1074612073), full=Stall(avg10=0, avg60=0, avg300=0, total_us=0)
    )
    assert found.memory_pressure is not None
    assert (found.memory_pressure.some.avg10, found.memory_pressure.full) == (10000, None)
    assert found.io_pressure is None


@pytest.mark.rule("T6")
def test_what_is_absent_is_absent_and_what_is_wrong_is_noted(tmp_path: Path) -> None:
    """Without pressure, frequency and uptime they are None, without a note; a file that is not understood is None, named in a note."""
    bare = monitor.read_sample(0, host(tmp_path / "bare", uptime=None, cpu=None, memory=None, scaling_cur_freq=None))
    assert (bare.uptime_s, bare.cpu_pressure, bare.memory_pressure, bare.frequency, bare.notes) == (None, None, None, None, ())
    assert bare.memory is not None
    odd = monitor.read_sample(
        0, host(tmp_path / "odd", stat="cpu  1 2 x 4 5 6 7", loadavg="", cpu="some avg10=100.01 avg60=0.00 avg300=0.00 total=1")
    )
    assert (odd.cpu, odd.cpus, odd.load, odd.cpu_pressure) == (None, None, None, None)
    assert odd.memory is not None
    assert [note.split(":")[0] for note in odd.notes] == ["/proc/stat", "/proc/pressure/cpu", "/proc/loadavg"]
    assert "'x' is not a number" in odd.notes[0]


@pytest.mark.rule("T6")
def test_a_host_that_shows_nothing_is_unavailable(tmp_path: Path) -> None:
    """An empty root, and one in which nothing is understood, raise HostUnavailable, which says what was looked for, or found."""
    with pytest.raises(HostUnavailable, match="neither /proc/stat nor"):
        monitor.read_sample(0, tmp_path)
    with pytest.raises(HostUnavailable, match="/proc/meminfo: 'x' is not a line of meminfo"):
        monitor.read_sample(0, host(tmp_path / "odd", stat="", meminfo="x", loadavg="-"))


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (monitor.cpu_times, ""),
        (monitor.cpu_times, "cpu0 1 2 3 4 5 6 7\ncpu0 1 2 3 4 5 6 7"),
        (monitor.cpu_times, "cpu  1 2 3 4 5 6\ncpu0 1 2 3 4 5 6"),
        (monitor.cpu_times, "cpu  1 2 3 4 5 6 7 8"),
        (monitor.cpu_times, "cpu  1 2 3 -4 5 6 7 8\ncpu0 1 2 3 4 5 6 7"),
        (monitor.cpu_times, "cpu  1 2 3 4 5 6 7 18446744073709551616\ncpu0 1 2 3 4 5 6 7"),
        (monitor.cpu_times, f"cpu  {COUNTER_MAX} 1 3 4 5 6 7\ncpu0 1 2 3 4 5 6 7"),
        (monitor.memory, "MemTotal: 5 kB"),
        (monitor.memory, "MemTotal: 5 kB\nMemFree: 6 kB"),
        (monitor.memory, "MemTotal: 5 kB\nMemFree: 1 kB\nMemFree: 2 kB"),
        (monitor.memory, "MemTotal: 5 MB\nMemFree: 1 kB"),
        (monitor.memory, "MemTotal: 99999999999999999 kB\nMemFree: 1 kB"),
        (monitor.pressure, "full avg10=0.00 avg60=0.00 avg300=0.00 total=0"),
        (monitor.pressure, "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\nsome avg10=0.00 avg60=0.00 avg300=0.00 total=0"),
        (monitor.pressure, "some avg10=0.0 avg60=0.00 avg300=0.00 total=0"),
        (monitor.pressure, "some avg10=nan avg60=0.00 avg300=0.00 total=0"),
        (monitor.load, "0.34 0.27 1/93 16485"),
        (monitor.load, "0.34 0.27 0.1e1 1/93 16485"),
        (monitor.uptime, "-1.00 2.00"),
        (monitor.frequency_khz, "0"),
        (monitor.frequency_khz, "\u0661\u0662"),
    ],
)
def test_what_is_not_the_format_is_an_error_that_names_the_file(parse: Callable[[str], object], text: str) -> None:
    """Nothing unread counts as zero: each is InvalidRecord, and says in which file."""
    with pytest.raises(InvalidRecord, match=r"^/(proc|sys)/"):
        parse(text)


LIKE = st.text(alphabet=string.digits + "cpusomefultavg=./: kB\nMemTotalF-+_\0", max_size=120)
LINES = st.sampled_from([*FILES.values(), *STAT.split("\n"), *MEMINFO.split("\n"), *CPU_PRESSURE.split("\n")])


@st.composite
def texts(draw: st.DrawFn) -> str:
    """Any text, and what the kernel writes with some of it replaced, doubled or left out."""
    text = draw(st.one_of(st.text(max_size=80), LIKE, LINES, LINES))
    for _ in range(draw(st.integers(0, 3))):
        start, end = sorted((draw(st.integers(0, len(text))), draw(st.integers(0, len(text)))))
        text = text[:start] + draw(st.one_of(LIKE, st.sampled_from(["", "9" * 30, text[start:end] * 2, "\u0663"]))) + text[end:]
    return text


PARSERS: tuple[Callable[[str], object], ...] = (
    monitor.cpu_times, monitor.memory, monitor.pressure, monitor.load, monitor.uptime, monitor.frequency_khz,
)  # fmt: skip


@pytest.mark.rule("T6")
@pytest.mark.long
@settings(max_examples=2500)
@given(texts())
def test_every_parser_gives_a_value_or_the_documented_error(text: str) -> None:
    """Of 2500 texts, garbage and nearly right ones, each parser makes a value that survives its codec, or InvalidRecord; nothing else."""
    for parse in PARSERS:
        try:
            found = parse(text)
        except InvalidRecord as error:
            assert error.facts["path"]
            continue
        numbers = msgspec.json.decode(msgspec.json.encode(found))
        assert _least(numbers) >= 0


def _least(value: object) -> int:
    """Return the smallest number in a value."""
    if isinstance(value, dict):
        return min([0, *(_least(each) for each in value.values())])
    if isinstance(value, list):
        return min([0, *(_least(each) for each in value)])
    return value if isinstance(value, int) else 0


@pytest.mark.rule("T6")
@pytest.mark.long
@settings(max_examples=150)
@given(st.dictionaries(st.sampled_from([Path(name).name for name in FILES]), st.none() | texts(), max_size=len(FILES)))
def test_a_host_of_garbage_is_sampled_or_unavailable(changed: dict[str, str | None]) -> None:
    """Whatever stands in the files: a sample that can be kept and read again, or HostUnavailable."""
    with tempfile.TemporaryDirectory(prefix="earmark-") as folder:
        try:
            found = monitor.read_sample(7, host(Path(folder), **changed))
        except HostUnavailable:
            assert {"stat", "meminfo", "loadavg"} <= set(changed)
            return
    assert decode_sample(encode_sample(found)) == found
    utilisation(found, replace(found, at_ms=8))


@pytest.mark.long
@pytest.mark.shared
def test_recorded_machines_are_sampled(shared: Path, tmp_path: Path) -> None:
    """Machines from 2 to 256 CPUs, of six architectures and twenty years: what their files have is understood, with no note."""
    wanted = ("proc/stat", "proc/meminfo", "scaling_cur_freq")
    seen = 0
    for file in sorted((shared / "data/sysfs").glob("*.tar.bz2")):
        folder = tmp_path / file.name
        with tarfile.open(file) as archive:
            members = [member for member in archive.getmembers() if member.isfile() and member.name.endswith(wanted)]
            archive.extractall(folder, members, filter="data")
        for root in sorted(folder.iterdir()) if folder.exists() else []:
            found = monitor.read_sample(0, root)
            assert found.notes == (), file.name
            seen += 1
    assert seen >= 15


# --- what is made of two looks --------------------------------------------------------------------------------------------------------


def sample(*times: int, at_ms: int = 0, boot: str = "b", cpus: int = 2) -> Sample:
    """Return a sample of five times: user, kernel, idle, iowait, steal."""
    user, kernel, idle, iowait, steal = times
    return Sample(at_ms=at_ms, boot_id=boot, cpus=cpus, cpu=CpuTimes(user=user, kernel=kernel, idle=idle, iowait=iowait, steal=steal))


ONE = sample(100, 50, 1000, 10, 0)


@pytest.mark.rule("T6", "W45")
def test_how_busy_it_was_since_the_last_sample() -> None:
    """Of 200 ticks 100 were user, 50 kernel, 40 idle, 10 waiting: 50, 25, 20 and 5 percent, 80 busy, over the seconds between."""
    found = utilisation(ONE, sample(200, 100, 1040, 20, 0, at_ms=1000))
    assert found is not None
    assert (found.user, found.kernel, found.idle, found.iowait, found.steal, found.busy, found.over_ms) == (50, 25, 20, 5, 0, 80, 1000)


@pytest.mark.rule("W45")
@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, ONE),
        (ONE, ONE),
        (ONE, replace(ONE, at_ms=60_000)),
        (ONE, sample(5, 5, 50, 0, 0)),
        (ONE, sample(200, 50, 999, 10, 0)),
        (ONE, sample(200, 100, 2000, 20, 0, boot="other")),
        (ONE, sample(200, 100, 2000, 20, 0, cpus=3)),
        (ONE, replace(ONE, cpu=None)),
        (replace(ONE, cpu=None), ONE),
    ],
    ids=["first", "same", "same tick", "reboot", "backwards", "other boot", "more CPUs", "unread now", "unread before"],
)
def test_of_what_nothing_can_be_said_nothing_is_said(before: Sample | None, after: Sample) -> None:
    """The first sample of all, two in one tick, a reboot, a counter that went backwards, CPUs that came: none of them is a percentage."""
    assert utilisation(before, after) is None


times = st.lists(st.integers(0, 1 << 50), min_size=5, max_size=5)


@pytest.mark.rule("T6", "W45")
@given(times, times, st.integers(0, 1 << 40), st.integers(0, 1 << 40))
def test_percentages_add_up(first: list[int], second: list[int], start_ms: int, end_ms: int) -> None:
    """For any two samples: none, or five parts from 0 to 100 that add up to 100, each less than one from the exact share."""
    before, after = sample(*first, at_ms=start_ms), sample(*second, at_ms=end_ms)
    found = utilisation(before, after)
    spent = [later - earlier for earlier, later in zip(first, second, strict=True)]
    assert (found is None) == (min(spent) < 0 or sum(spent) == 0)
    grown = utilisation(before, sample(*(a + b for a, b in zip(first, second, strict=True)), at_ms=end_ms))
    for one, deltas in ((found, spent), (grown, second)):
        if one is not None:
            parts = [one.user, one.kernel, one.idle, one.iowait, one.steal]
            assert sum(parts) == 100
            assert one.busy == 100 - one.idle
            assert one.over_ms == max(0, end_ms - start_ms)
            for part, delta in zip(parts, deltas, strict=True):
                assert abs(part * sum(deltas) - 100 * delta) < sum(deltas)


@given(values_of(Sample))
def test_a_sample_is_read_as_it_was_kept(found: Sample) -> None:
    """Any sample survives its codec; what is none is InvalidRecord."""
    assert decode_sample(encode_sample(found)) == found
    with pytest.raises(InvalidRecord):
        decode_sample(encode_sample(found)[:-1])


# --- where samples are kept -----------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """Each kind of store."""
    return MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "ledger.db")


@pytest.mark.rule("T6", "W45", "W44")
def test_samples_belong_to_the_node_of_the_host(store: Store) -> None:
    """A sample is kept for this machine's node and no other, newest first, bounded, and outside the ledger's events."""
    with bench("2c 4G", store=store) as made:
        made.tracker.register("n2", machine=machine_of("2c 4G"), settings=UNRESERVED, host="n1")
        before = store.last_position()
        for number in range(3):
            made.host.counters = sample(100 + 10 * number, 0, 1000 + 30 * number, 0, 0, boot=made.host.boot)
            assert made.tracker.sample().at_ms == made.clock.now_ms()
            made.clock.move(1000)
        found = made.tracker.samples()
        assert [one.cpu.user for one in found if one.cpu is not None] == [120, 110, 100]
        assert made.tracker.samples(1) == found[:1]
        assert made.tracker.samples(node="n2") == ()
        use = utilisation(found[1], found[0])
        assert use is not None
        assert (use.user, use.idle, use.over_ms) == (25, 75, 1000)
        assert store.last_position() == before
        assert made.reopened().tracker.samples() == found
        with store.transaction() as tx:
            for number in range(SAMPLES_KEPT_MAX):
                tx.put_sample(node_stream(NODE_ONE), number, encode_sample(ONE))
        assert len(made.tracker.samples()) == SAMPLES_KEPT_MAX
    store.close()


@pytest.mark.rule("T6", "W41")
def test_a_host_that_cannot_be_sampled_leaves_no_sample() -> None:
    """The driver's error reaches the caller, nothing is kept, and the next sample is as if nothing had been."""
    with bench("2c 4G") as made:
        made.host.fault = HostUnavailable("no /proc here")
        with pytest.raises(HostUnavailable):
            made.tracker.sample()
        assert made.tracker.samples() == ()
        made.host.fault = None
        made.tracker.sample()
        assert len(made.tracker.samples()) == 1


def test_a_sample_that_cannot_be_read_stands_in_nobodys_way(store: Store) -> None:
    """A row of another version or of garbage is left out; the samples around it are there, and new ones are taken."""
    with bench("2c 4G", store=store) as made:
        made.tracker.sample()
        with store.transaction() as tx:
            for raw in (b"", b"\xff", b"[]", b'{"at_ms":1,"moon_phase":3}', b'{"at_ms":-1}'):
                tx.put_sample(node_stream(NODE_ONE), 1, raw)
        made.tracker.sample()
        assert len(made.tracker.samples()) == 2
    store.close()


def test_a_tracker_without_a_monitor_says_so() -> None:
    """Whoever made the tracker without one gets WrongUse, not an empty sample."""
    with bench("2c 4G") as made:
        made.tracker._monitor = None
        with pytest.raises(WrongUse, match="without a monitor"):
            made.tracker.sample()


@pytest.mark.rule("W35")
def test_samples_are_taken_by_several_threads(store: Store) -> None:
    """Four threads take ten samples each: all forty are kept, none twice."""
    with bench("2c 4G", store=store) as made:
        threads = [threading.Thread(target=lambda: [made.tracker.sample() for _ in range(10)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(made.tracker.samples()) == 40
    store.close()
