"""Keeping nodes: settings, cordons, what the machine is, time and deaths, the archive, the line of waiters.

Rules of this file: nobody's resources are claimed here; every change is a command through the writer, the world is asked before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from earmark.core.ledger import commands as c
from earmark.core.ledger.state import NodeState
from earmark.core.model import ids
from earmark.core.model.claim import Holder
from earmark.core.model.ids import ConsumerId, NodeId
from earmark.core.model.node import NodeSettings
from earmark.core.model.request import Request
from earmark.drivers.contract import Observation
from earmark.errors import InvalidRequest, LedgerBroken, UnknownNode, WrongUse
from earmark.logs import log
from earmark.stores.contract import Ticket
from earmark.tracker.nodes import Nodes
from earmark.tracker.snapshots import snapshot_of
from earmark.tracker.work import encoded

if TYPE_CHECKING:
    from pathlib import Path

    from earmark.core.model.finding import Finding
    from earmark.core.model.sample import Sample
    from earmark.core.model.topology import Machine
    from earmark.tracker.sightings import Look

AUDIT_SOURCE = "audit"
"""The source under which a node remembers what an audit found."""


class Keeping(Nodes):
    """A ledger whose nodes can be kept."""

    def configure(self, settings: NodeSettings, node: str | None = None) -> c.Answer:
        """Replace a node's settings; raises InvalidRequest if they are impossible on its machine."""
        return self._answer(c.ConfigureNode(node=self._writable(node).node, settings=settings))

    def cordon(self, unit: str | None, reason: str, until_ms: int | None = None, node: str | None = None) -> c.Answer:
        """Give no new grants of a unit (None: of the node), until a time or `uncordon`; whoever holds it keeps it."""
        named = None if unit is None else ids.unit_id(unit)
        return self._answer(c.CordonUnit(node=self._writable(node).node, unit=named, reason=ids.reason_text(reason), until_ms=until_ms))

    def uncordon(self, unit: str | None, node: str | None = None) -> c.Answer:
        """End a cordon."""
        return self._answer(c.UncordonUnit(node=self._writable(node).node, unit=None if unit is None else ids.unit_id(unit)))

    def observe(self, node: str | None = None, machine: Machine | None = None) -> c.Answer:
        """Look at this machine and record it if it has changed; or record the `machine` that was reported for a node.

        What was seen is kept beside the ledger too, with the figures that change by themselves (free disk space). Raises InvalidRequest
        for another node without its machine.
        """
        state = self._writable(node)
        if machine is not None:
            seen = Observation(machine=machine, hostname=state.runs_on, boot_id="")
        elif state.node == self.home:
            seen = self._host.observe()
        else:
            raise InvalidRequest(f"node {state.name} is not this machine: only what is reported of it can be recorded", node=state.node)
        answer = self._answer(c.ObserveMachine(node=state.node, machine=seen.machine))
        with self._writer.exclusive("observation") as tx:
            tx.put_observation(ids.node_stream(state.node), self.clock.now_ms(), encoded(seen))
        return answer

    def last_look(self, node: str | None = None) -> Look | None:
        """Return whom the last look at the guests of a node saw there (None: of this machine's node), None if nobody has looked yet."""
        from earmark.tracker.sightings import last_look  # noqa: PLC0415 - no command that claims needs it

        return last_look(self.store, self.node(node).node)

    def keep_look(self, node: NodeId, seen: Iterable[ConsumerId], *, complete: bool) -> Look:
        """Keep whom a look at a node's guests saw, beside the ledger: a leg of a move whose guest is seen does not end by time alone."""
        from earmark.tracker.sightings import keep_look  # noqa: PLC0415 - no command that claims needs it

        self._must_write()
        with self._writer.exclusive("look") as tx:
            return keep_look(tx, node, seen, self.clock.now_ms(), complete=complete)

    def sample(self) -> Sample:
        """Look at the counters of this machine and keep what they show, for its own node; the oldest kept go.

        Raises HostUnavailable if nothing can be read, WrongUse for a tracker without a monitor.
        """
        from earmark.core.model.sample import encode_sample  # noqa: PLC0415 - no command that claims needs it

        state = self._writable(None)
        if self._monitor is None:
            raise WrongUse(f"{self.store.name} was opened without a monitor of the host", node=state.node)
        found = self._monitor.sample(self.clock.now_ms())
        if found.notes:
            log("sample.incomplete", node=state.node, count=len(found.notes))
        with self._writer.exclusive("sample") as tx:
            tx.put_sample(ids.node_stream(state.node), found.at_ms, encode_sample(found))
        return found

    def rehome(self, reason: str) -> c.Answer:
        """Say that this copied ledger now belongs to this machine."""
        self._own()
        command = c.RehomeNode(node=self.home, machine_ref=self._host.machine_ref(), reason=ids.reason_text(reason))
        answer = self._answer(command)
        if self._rebind is not None:
            self._rebind()
        self.terms = self.terms._replace(stranger=None)
        return answer

    def audit(self, *, aside: bool = False, record: bool = False) -> tuple[Finding, ...]:
        """Hold the ledger against itself and return what contradicts what; `aside`: in a process of its own, out of everybody's way.

        `record`: what is new in it since the last time is remembered in the ledger (see `record`).
        """
        found = super().audit(aside=aside)
        if record:
            self.record(found)
        return found

    def record(self, found: Sequence[Finding]) -> tuple[NodeId, ...]:
        """Remember what an audit of the whole ledger found, on the nodes where it is not known yet; return those nodes.

        What is of no node is remembered on this machine's. A node that cannot be read, or not be written, is passed over.
        """
        from earmark.core.model.finding import in_order  # noqa: PLC0415 - no command that claims needs it

        changed = []
        for state in self.survey().nodes:
            mine = in_order(tuple(each for each in found if (each.node or self.home) == state.node))
            if state.unknown is None and mine != state.findings.get(AUDIT_SOURCE, ()):
                self._answer(c.RecordFindings(node=state.node, source=AUDIT_SOURCE, findings=mine))
                changed.append(state.node)
        return tuple(changed)

    def watching(self, every_s: float = 5.0, *, audit_every_s: float | None = None) -> AbstractContextManager[None]:
        """Sweep while a `with` block runs: when a holder dies, and every `every_s` seconds; for programs that keep a tracker open.

        With `audit_every_s` the ledger is audited so often too, in a process of its own, and what it finds is remembered.
        """
        from earmark.tracker.watch import watching  # noqa: PLC0415 - only programs that stay need a thread

        return watching(self, self._leases, every_s, audit_every_s)

    def archive(self, target: Path, node: str | None = None, *, before_ms: int | None = None) -> int:
        """Move a node's older events into an archive file that ends with their hash; the ledger goes on from a verified snapshot.

        `before_ms` (since the epoch): only what is that old; None: all. Returns how many events were moved, 0 (and no file) if none is.
        Raises LedgerBroken, and moves nothing, if the ledger does not verify.
        """
        state = self._writable(node)
        base = self.store.archived(ids.node_stream(state.node))
        try:
            state = state if before_ms is None else self.at(before_ms, state.node)
        except UnknownNode:  # it was not yet there, or what was there is archived
            return 0
        if base is not None and state.sequence <= base.sequence:
            return 0
        errors = [finding for finding in self.verify().findings if finding.severity == "error"]
        if errors:
            raise LedgerBroken(f"{self.store.name} is not archived, it does not verify: {errors[0].detail}", findings=len(errors))
        last = self.store.read(ids.node_stream(state.node), state.sequence - 1, 1)[0]
        snapshot = snapshot_of(ids.node_stream(state.node), state, last.position)
        with self._writer.exclusive("archive") as tx:
            tx.put_snapshot(snapshot)
        return self.store.seal(snapshot, target)

    # --- waiting --------------------------------------------------------------------------------------------------------------------

    def take_ticket(self, request: Request, holder: Holder, owner: str | None = None, node: str | None = None) -> Ticket:
        """Take the next place in a node's line."""
        stream = ids.node_stream(self._writable(node).node)
        with self._writer.exclusive("take a ticket") as tx:
            return tx.take_ticket(
                stream,
                ids.name(owner, "owner") if owner is not None else self.terms.actor,
                encoded(request),
                encoded(holder),
                self.clock.now_ms(),
            )

    def drop_ticket(self, ticket: Ticket) -> None:
        """Give a place up; no error if it is gone."""
        with self._writer.exclusive("drop a ticket") as tx:
            tx.drop_ticket(ticket.stream, ticket.number)

    # --- within ---------------------------------------------------------------------------------------------------------------------

    def _target(self, node: str | None) -> NodeState:
        """Return a node that may be written, as this process last saw it where it is this machine's."""
        known = self._writer.known(ids.node_stream(self.home)) if node is None or node == self.home else None
        if known is None or not self._can_write():
            return self._writable(node)
        self._own()
        return known
