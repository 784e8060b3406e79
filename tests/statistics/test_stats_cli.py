"""`earmark stats` and `earmark monitor` as people and programs see them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cli.conftest import Line

from earmark.core.model.sample import CpuTimes, MemoryNow, Pressure, Sample, Stall
from earmark.core.model.shape import machine_of
from earmark.testing import UNRESERVED, bench


@pytest.fixture
def earmark() -> Iterator[Line]:
    """Give a command line on a node with some instances of some owners, beside an empty node."""
    with bench("16c 32G 2M:1024 disk:200G") as made:
        made.tracker.register("n2", machine=machine_of("8c 16G disk:100G"), settings=UNRESERVED)
        line = Line(made)
        line.good("claim --cpus 2 --mem 2GiB --disk 20GiB --consumer web --owner ann")
        line.good("claim --cpus 2:dedicated --mem 2GiB --disk 20GiB --consumer db --owner 'b[red]ob'")
        made.tracker.report("web", "active", task="rescuing")
        made.tracker.open_move("web", "migration", to="n2")
        yield line


def table(text: str) -> list[list[str]]:
    """Return the cells of a table's lines, up to the first empty one."""
    lines = text.split("\n\n", maxsplit=1)[0].split("\n")
    return [re.split(r"\s{2,}", line.strip()) for line in lines]


@pytest.mark.rule("T1", "T2", "T3", "C6", "W27")
def test_people_see_what_is_used_and_what_runs(earmark: Line) -> None:
    """A line for each node, VCPU and PCPU apart, then all together: by state, owner and kind, what is in progress."""
    out = earmark.good("stats")
    heads, one, other = table(out)
    assert heads[:4] == ["node", "used", "VCPU", "PCPU"]
    assert one == ["n1", "4/4096/40", "2/14", "2/16", "4 GiB of 32 GiB", "40 GiB of 200 GiB", "0", "2", "2", "1", "0"]
    assert other == ["n2", "2/2048/20", "2/8", "0/8", "2 GiB of 16 GiB", "20 GiB of 100 GiB", "0", "0", "1", "0", "0"]
    for words in ("active 1, unreported 1", "ann 1, b[red]ob 1", "rescuing 1", "migration 1"):
        assert words in out
    assert "n1" not in earmark.good("stats --fleet")


def test_one_node_is_told_with_its_stocks(earmark: Line) -> None:
    """Its line, its stocks with what is left of each, its figures and its part of the moves."""
    out = earmark.good("stats --node n1")
    assert "n2" not in out
    assert re.search(r"^disk:root +DISK_BYTES +200 GiB +0 B +200 GiB +40 GiB +160 GiB$", out, re.MULTILINE)
    assert re.search(r"^used +4/4096/40$", out, re.MULTILINE)
    assert re.search(r"^of that +0/0/0 reserved, 0/0/0 quarantined$", out, re.MULTILINE)
    assert re.search(r"^moves +leaving: migration 1$", out, re.MULTILINE)
    assert re.search(r"^claims +confirmed 2 \(main 2\)$", out, re.MULTILINE)
    assert re.search(r"^moves +coming: migration 1$", earmark.good("stats --node n2"), re.MULTILINE)


@pytest.mark.rule("T1", "T2", "T3", "T4")
def test_programs_get_every_key(earmark: Line) -> None:
    """JSON has nodes and fleet, exact bytes, both roundings, and maps without zeros; a node or the fleet alone leaves the other out."""
    found = earmark("stats --json").json()
    one = found["nodes"][0]
    assert one["used"] == {
        "vcpus": 4, "memory_bytes": 4 << 30, "memory_mib": 4096, "disk_bytes": 40 << 30, "disk_gib": 40, "text": "4/4096/40"
    }  # fmt: skip
    assert (len(one["pins"]), one["population"]["by_owner"], one["failed_builds"]) == (2, {"ann": 1, "b[red]ob": 1}, 0)
    assert one["workload"] == {
        "io_workload": 1, "io": {"rescuing": 1}, "current_workload": 1, "builds": 0, "moves_in": {}, "moves_out": {"migration": 1}
    }  # fmt: skip
    assert (found["fleet"]["moves"], found["fleet"]["population"]["instances"], found["fleet"]["used"]["text"]) == (
        {"migration": 1},
        2,
        "6/6144/60",
    )
    assert earmark("stats --fleet --json").json() == {**found, "nodes": []}
    assert earmark("stats --node n1 --json").json() == {**found, "nodes": [one], "fleet": None}


def test_one_of_both_is_asked_for(earmark: Line) -> None:
    """A node and the fleet together are invalid usage, and so is a node that is not there."""
    assert (earmark("stats --node n1 --fleet").code, earmark("stats --node n9").code) == (2, 2)
    assert "only one of both" in earmark("stats --node n1 --fleet").err


def test_an_empty_ledger_has_statistics() -> None:
    """Nothing runs, and the lines that would list it are not there."""
    with bench("2c 4G") as made:
        out = Line(made).good("stats")
        assert re.search(r"^instances +0$", out, re.MULTILINE)
        assert "by state" not in out


def test_of_many_owners_the_first_are_shown() -> None:
    """A node with thirty owners shows twenty and counts the rest; JSON has all."""
    with bench("64c 64G") as made:
        line = Line(made)
        for number in range(30):
            line.good(f"claim --cpus 1 --consumer vm-{number} --owner owner-{number:02}")
        assert "owner-19 1, and 10 more" in line.good("stats")
        assert len(line("stats --json").json()["fleet"]["population"]["by_owner"]) == 30


# --- monitor --------------------------------------------------------------------------------------------------------------------------


def ticking(made_host: object, ticks: int) -> Sample:
    """Return counters of a host that was busy half of some ticks."""
    return Sample(
        at_ms=0, boot_id=str(getattr(made_host, "boot", "")), cpus=2, cpu=CpuTimes(user=ticks, kernel=0, idle=ticks, iowait=0),
        memory=MemoryNow(total_bytes=4 << 30, free_bytes=1 << 30, available_bytes=3 << 30),
        cpu_pressure=Pressure(some=Stall(avg10=150, avg60=0, avg300=0, total_us=9)),
    )  # fmt: skip


@pytest.mark.rule("T6", "W45")
def test_the_first_sample_is_no_average_since_boot() -> None:
    """The first line has no percentage; the next run's first line counts since the last one of this run; the same tick has none again."""
    with bench("2c 4G") as made:
        line = Line(made)
        made.host.counters = ticking(made.host, 100)
        first = line.good("monitor --count 1").splitlines()
        assert first[0].split()[:3] == ["time", "busy", "user"]
        assert first[1].split()[1:7] == ["-", "-", "-", "-", "-", "-"]
        assert first[1].split()[7:] == ["3", "GiB/4", "GiB", "1.50%", "-", "-", "-"]
        made.host.counters = ticking(made.host, 150)
        second, third = line.good("monitor --count 2 --every 100ms").splitlines()[1:]
        assert second.split()[1:6] == ["50%", "50%", "0%", "0%", "0%"]
        assert third.split()[1:6] == ["-"] * 5
        assert len(made.tracker.samples()) == 3


@pytest.mark.rule("T6")
def test_each_sample_is_a_line_of_json() -> None:
    """Every key is there, what is not known is null; two samples are two lines."""
    with bench("2c 4G") as made:
        made.host.counters = ticking(made.host, 100)
        lines = Line(made).good("monitor --count 2 --every 100ms --json").splitlines()
        first, second = (json.loads(line) for line in lines)
        assert (first["use"], first["load"], first["io_pressure"], first["notes"]) == (None, None, None, [])
        assert first["cpu"] == {"user": 100, "kernel": 0, "idle": 100, "iowait": 0, "steal": 0}
        assert first["cpu_pressure"]["some"]["avg10_hundredths"] == 150
        assert (first["node_name"], second["use"]) == ("n1", None)


def test_what_could_not_be_read_is_said_beside_the_line() -> None:
    """A note of the driver stands on standard error, cleaned, once for as long as it is the same; -q keeps it quiet."""
    with bench("2c 4G") as made:
        made.host.counters = Sample(at_ms=0, notes=("/proc/stat: '\x1b[31m' is not a number",))
        said = Line(made)("monitor --count 2 --every 100ms")
        assert said.err.count("\\x1b[31m") == 1
        assert Line(made)("monitor --count 1 -q").err == ""


@pytest.mark.parametrize("words", ["--every 10ms", "--every soon", "--every 2d", "--count 0"])
def test_impossible_intervals_are_refused(words: str) -> None:
    """Less than 100ms, more than a day, no duration, no sample: invalid, and nothing is sampled."""
    with bench("2c 4G") as made:
        assert Line(made)(f"monitor {words}").code == 2
        assert made.tracker.samples() == ()


@pytest.mark.long
def test_an_interrupt_ends_it_cleanly(tmp_path: Path) -> None:
    """Ctrl-C ends `earmark monitor` on this very machine with 0 and no trace; what was taken is kept, and is the next run's last sample."""
    env = {**os.environ, "XDG_STATE_HOME": str(tmp_path)}
    start = "import sys; from earmark.cli.main import main; main()"
    program = [sys.executable, "-c", start, "monitor", "--every", "100ms", "--json"]
    with subprocess.Popen(program, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        lines = [running.stdout.readline() for _ in range(3)]
        running.send_signal(signal.SIGINT)
        rest, err = running.communicate(timeout=30)
    assert (running.returncode, err) == (0, "")
    taken = [json.loads(line) for line in (*lines, *rest.splitlines())]
    assert all(each["cpu"]["idle"] > 0 and each["memory"]["total_bytes"] > 0 and each["notes"] == [] for each in taken)
    assert taken[0]["use"] is None
    done = subprocess.run([*program, "--count", "1"], env=env, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["use"]["over_ms"] > 0


@pytest.mark.rule("W42")
@pytest.mark.long
def test_log_lines_name_no_owner(tmp_path: Path) -> None:
    """Statistics show owners to who asked for them; the log lines of the same commands do not."""
    env = {**os.environ, "XDG_STATE_HOME": str(tmp_path), "EARMARK_LOG_LEVEL": "debug"}
    start = "import sys; from earmark.cli.main import main; main()"
    said = ""
    for words in ("claim --cpus 1 --consumer web --owner secret-tenant", "stats", "monitor --count 1"):
        done = subprocess.run([sys.executable, "-c", start, *words.split()], env=env, capture_output=True, text=True, check=True)
        said = done.stdout if words == "stats" else said
        assert all("secret-tenant" not in line for line in done.stderr.splitlines())
    assert "secret-tenant 1" in said
