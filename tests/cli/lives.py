"""Two nodes on a command line, and the figures that `earmark node show` tells of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.cli.conftest import Line

from earmark.testing import UNRESERVED, bench, machine

HOST = "2x8c 32G disk:200G gpu:2 vf:4"
SMALL = "--cpus 2 --mem 2GiB --disk 20GiB"
LARGE = "--cpus 4 --mem 4GiB --disk 40GiB"
NOTHING, S, L, BOTH = "0/0/0", "2/2048/20", "4/4096/40", "6/6144/60"


@contextmanager
def two_nodes(shape: str = HOST, **options: Any) -> Iterator[Line]:
    """Give a command line on node n1 in a ledger that has node n2 too, both alike, nothing kept back; the auditor looks at the end."""
    with bench(shape, **options) as made:
        made.tracker.register("n2", machine=machine(shape), settings=UNRESERVED)
        yield Line(made)


def books(line: Line, node: str) -> str:
    """Return what is used of a node, as the trade writes it: vCPUs/MB/GB; `node show`, `stats` and `list` must agree, the audit be clean."""
    assert line.good("audit").startswith("clean: ")
    pools = {pool["pool"]: pool["used"] for pool in line(f"node show {node} --json").json()["pools"]}
    cpus = pools.get("vcpu", 0) + pools.get("cpu", 0)
    shown = f"{cpus}/{pools['memory'] >> 20}/{-(-pools['disk:root'] >> 30)}"
    assert line(f"stats --node {node} --json").json()["nodes"][0]["used"]["text"] == shown
    listed = line(f"list --node {node} --json").json()["claims"]
    amounts = {pool: sum(row["amount"] for claim in listed for row in claim["amounts"] if row["pool"] == pool) for pool in pools}
    assert {pool: used for pool, used in pools.items() if pool in ("vcpu", "disk:root")} == {
        pool: amounts[pool] for pool in ("vcpu", "disk:root")
    }
    assert sum(len(claim["cpus"]) for claim in listed) == pools.get("cpu", 0)
    return shown


def both(line: Line) -> tuple[str, str]:
    """Return the figures of n1 and n2."""
    return books(line, "n1"), books(line, "n2")


def run_steps(line: Line, steps: list[tuple[str, tuple[str, str]]]) -> None:
    """Run commands that must all end with 0, and compare the figures of both nodes after each."""
    for words, expected in steps:
        line.good(words)
        assert both(line) == expected, words
