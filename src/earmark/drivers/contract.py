"""What a driver promises: facts about a host and its processes, and an honest "could not see".

Rules of this file: drivers observe and never decide; an observation may be partial and says so in `machine.notes`; a process is dead only by
proof, everything else is unknown.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from earmark.core.model.claim import Holder, Liveness, Role
from earmark.core.model.topology import Machine
from earmark.core.model.value import Value

if TYPE_CHECKING:
    from earmark.core.model.sample import Sample


class Observation(Value, frozen=True):
    """What one look at a host found. `machine_ref` is a one-way hash of the machine id, None where there is none."""

    machine: Machine
    hostname: str
    boot_id: str
    machine_ref: str | None = None


class HostDriver(Protocol):
    """Sees what exists on a host."""

    def observe(self) -> Observation:
        """Look at the whole host; raises HostUnavailable only if not even its CPUs can be read."""

    def boot_id(self) -> str:
        """Return the id of this boot ("" where the kernel gives none)."""

    def machine_ref(self) -> str | None:
        """Return the one-way hash of the machine id."""

    def hostname(self) -> str:
        """Return the host's name."""


class GpuDriver(Protocol):
    """Knows more of some devices than the kernel's files say."""

    def enrich(self, machine: Machine) -> Machine:
        """Return the machine with what the GPUs' own driver says of them; what could not be had is a note and in `unread`. Never raises."""


class Monitor(Protocol):
    """Sees what a host is doing."""

    def sample(self, at_ms: int) -> "Sample":
        """Look at the counters of the host at a time; what cannot be read is None. Raises HostUnavailable if nothing can."""


class ProcessDriver(Protocol):
    """Sees processes."""

    def identify(self, pid: int, role: Role = "caller") -> Holder:
        """Return the identity of a live process; raises HostUnavailable if it cannot be read."""

    def status(self, holder: Holder) -> Liveness:
        """Say whether a holder (process, then its cgroup or session) is alive, dead by proof, or unknown."""

    def wait(self, holders: Sequence[Holder], timeout_s: float) -> bool:
        """Wait until one of the holders' processes has ended (True) or the time is over (False)."""
