"""CPUs that the kernel isolates are told of where shared vCPUs would be put on them."""

from __future__ import annotations

from msgspec.structs import replace
from tests.cli.conftest import Line

from earmark.testing import bench


def test_isolated_cpus_among_the_shared_ones_are_named() -> None:
    """The picture names them under the default policy and is silent once they are in the dedicated set alone."""
    with bench("4c 8G") as made:
        machine = made.tracker.node().machine
        assert machine is not None
        cpus = tuple(replace(cpu, isolated=cpu.id >= 2) for cpu in machine.cpus)
        made.tracker.observe(machine=replace(machine, cpus=cpus))
        line = Line(made)
        said = " ".join(line.good("").split())
        assert "cpu 2-3 are isolated by the kernel" in said
        line.good("node set cpu_policy=split cpu_shared_set=0-1 cpu_dedicated_set=2-3")
        assert "isolated by the kernel" not in " ".join(line.good("").split())
