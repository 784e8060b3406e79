"""The driver of NVIDIA's GPUs: whether NVML is asked, and what a machine is with its answers.

Rules of this file: nothing heavy is loaded before a machine that has such GPUs is really looked at.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from earmark.core.model.topology import Machine

if TYPE_CHECKING:
    from collections.abc import Callable

    from earmark.drivers.nvml.facts import Seen

CONTROL = Path("/dev/nvidiactl")
"""The driver's own device file: there where containers hide the bus."""


class NvmlDriver:
    """Adds what NVML knows to a machine. `always` asks even where no GPU of NVIDIA is to be seen; `ask` stands for NVML in tests."""

    def __init__(self, *, always: bool = False, ask: Callable[[], Seen] | None = None) -> None:
        self.always = always
        self.ask = ask

    def enrich(self, machine: Machine) -> Machine:
        """Return the machine with UUIDs, memory, links, MIG instances and faults of its NVIDIA GPUs; what could not be had is a note."""
        from earmark.drivers.nvml.join import driven, joined  # noqa: PLC0415 - only where a machine is looked at

        if not (self.always or driven(machine) or os.path.lexists(CONTROL)):
            return machine
        if self.ask is not None:
            return joined(machine, self.ask())
        from earmark.drivers.nvml.asking import ask  # noqa: PLC0415 - a machine without such GPUs starts no process

        return joined(machine, ask())
