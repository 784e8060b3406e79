"""What keeps claims alive: which of their processes are gone by proof, which are alive, which nobody can tell.

Rules of this file: the world is asked outside every lock and transaction; only the node of this machine is asked about, because only here can a
death be proven; unknown is never gone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from earmark.core.model.claim import Claim, Holder, Role
from earmark.drivers.contract import ProcessDriver


class Evidence(NamedTuple):
    """The holders of a node's claims that are proven gone, and those seen alive; all others are unknown."""

    gone: tuple[Holder, ...]
    alive: tuple[Holder, ...]


class Leases:
    """Asks a process driver about holders."""

    def __init__(self, processes: ProcessDriver) -> None:
        self._processes = processes

    def me(self, pid: int, role: Role = "caller") -> Holder:
        """Return the identity of a process of this machine; raises HostUnavailable."""
        return self._processes.identify(pid, role)

    def evidence(self, claims: list[Claim]) -> Evidence:
        """Return what can be proven now about the holders of some claims."""
        gone: dict[Holder, None] = {}
        alive: dict[Holder, None] = {}
        for claim in claims:
            for holder in claim.holders:
                if holder in gone or holder in alive:
                    continue
                status = self._processes.status(holder)
                if status == "dead":
                    gone[holder] = None
                elif status == "alive":
                    alive[holder] = None
        return Evidence(tuple(gone), tuple(alive))

    def gone(self, holders: Sequence[Holder]) -> tuple[Holder, ...]:
        """Return those of some holders that are proven gone."""
        return tuple(holder for holder in holders if self._processes.status(holder) == "dead")

    def wait(self, holders: Sequence[Holder], timeout_s: float) -> bool:
        """Wait until one of some processes has ended (True) or the time is over (False)."""
        return self._processes.wait(holders, timeout_s)

    def speaks_for(self, claim: Claim, pid: int) -> tuple[Holder, ...]:
        """Return the holders of a claim that need no proof when process `pid` ends it: itself, and those proven gone."""
        own = [holder for holder in claim.holders if holder.pid == pid and holder.cgroup is None and holder.session is None]
        mine = self._processes.identify(pid) if own else None
        spoken = [holder for holder in own if mine is not None and same_process(holder, mine)]
        return (*spoken, *self.evidence([claim]).gone)


def same_process(one: Holder, other: Holder) -> bool:
    """Say whether two holders name the same process."""
    return (one.boot_id, one.pid_namespace, one.pid, one.start_ticks) == (other.boot_id, other.pid_namespace, other.pid, other.start_ticks)
