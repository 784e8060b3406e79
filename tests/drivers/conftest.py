"""Lets the tests of drivers import what they share by its full name, and gives each an empty root."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = str(Path(__file__).resolve().parents[2])
if ROOT not in sys.path:
    sys.path.insert(0, ROOT)

from tests.drivers.roots import Root  # noqa: E402 - after the path above

from earmark.drivers.processes import SystemProcesses  # noqa: E402 - the same


@pytest.fixture
def root(tmp_path: Path) -> Root:
    """Return an empty folder that stands for `/`."""
    return Root(tmp_path / "root")


@pytest.fixture(params=[True, False], ids=["pidfd", "no_pidfd"])
def processes(request: pytest.FixtureRequest) -> SystemProcesses:
    """Return a driver, once as usual and once as where pidfd_open is missing."""
    return SystemProcesses(pidfd=request.param)
