"""The life of nodes: entered, found again, run by a host, retired, restored, added to; and time on every one of them.

Rules of this file: a node is known by its uuid and keeps its name; nothing is taken over from another host without being told; what is held
on a node outlives everything that happens to it here. Only processes of this machine can be proven dead.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from earmark.core.ledger import commands as c
from earmark.core.ledger.decide_time import due
from earmark.core.ledger.state import NodeState
from earmark.core.model import ids
from earmark.core.model.claim import Claim
from earmark.core.model.ids import NodeId
from earmark.core.model.refusal import Refusal
from earmark.errors import InvalidRequest, LedgerForeign, LedgerReadOnly, WrongUse
from earmark.tracker.leases import Evidence
from earmark.tracker.questions import Questions
from earmark.tracker.work import Key

if TYPE_CHECKING:
    from earmark.core.model.node import NodeSettings, Provided
    from earmark.core.model.topology import Machine


class Nodes(Questions):
    """A ledger that nodes enter and leave."""

    def register(
        self, name: str, *, uuid: str | None = None, host: str | None = None, machine: Machine | None = None,
        settings: NodeSettings | None = None,
    ) -> c.Answer:  # fmt: skip
        """Enter a node, or find it again by its uuid, in one append with its host, machine and settings; `answer.node` is its uuid.

        A retired node that is reported again is restored. One that another host runs is answered and not taken over (`rehome_node`
        does that). `host` None: the node is a host of its own. `settings` None: a new node gets the configured ratios, a known one
        keeps what it has. Raises InvalidRequest for a name that another node has, or settings impossible on the machine.
        """
        self._must_write()
        named = ids.name(name, "node")
        if ids.UUID.fullmatch(named):
            raise InvalidRequest(f"{named!r} cannot be the name of a node: it has the form of a uuid", found=named)
        node = _new_uuid() if uuid is None else ids.node_id(uuid)
        known = self._writer.state(ids.node_stream(node))
        return self._answer(
            c.RegisterNode(
                node=node, name=named, host=None if host is None else ids.name(host, "host"), machine=machine,
                settings=self.terms.fresh if settings is None and known is None else settings,
            )
        )  # fmt: skip

    def rehome_node(self, node: str, host: str, reason: str) -> c.Answer:
        """Say that another host runs a node from now on: its claims count there."""
        command = c.HostNode(node=self._writable(node).node, host=ids.name(host, "host"), reason=ids.reason_text(reason))
        return self._answer(command)

    def disable(self, reason: str, node: str | None = None) -> c.Answer:
        """Give no new grants of a node until `enable`; it carries the trait COMPUTE_STATUS_DISABLED meanwhile."""
        return self._answer(c.CordonUnit(node=self._writable(node).node, unit=None, reason=ids.reason_text(reason)))

    def enable(self, node: str | None = None) -> c.Answer:
        """End what `disable` began."""
        return self._answer(c.UncordonUnit(node=self._writable(node).node, unit=None))

    def retire(self, node: str, reason: str) -> c.Answer:
        """Say that a node is gone: nothing new is granted; `answer.touched` are the claims left on it, which are orphans now."""
        return self._answer(c.RetireNode(node=self._writable(node).node, reason=ids.reason_text(reason)))

    def restore(self, node: str, reason: str = "") -> c.Answer:
        """Take a retired node back, with everything that was held on it."""
        return self._answer(c.RestoreNode(node=self._writable(node).node, reason=ids.reason_text(reason) if reason else ""))

    def provide(self, provided: Provided, node: str | None = None) -> c.Answer:
        """Replace what provider configuration adds to a node; `answer.differences` say what was left out, as the node has it itself."""
        return self._answer(c.ProvideNode(node=self._writable(node).node, provided=provided))

    def hosts(self) -> dict[str, tuple[NodeState, ...]]:
        """Return the nodes by the host that runs them, both by name."""
        found: dict[str, list[NodeState]] = {}
        for state in self.nodes():
            found.setdefault(state.runs_on, []).append(state)
        return {host: tuple(found[host]) for host in sorted(found)}

    # --- time -----------------------------------------------------------------------------------------------------------------------

    def sweep(self, node: str | None = None) -> c.Answer | None:
        """Let time and deaths take effect on a node (None: this machine's); None if nothing was due, or it can only be read here."""
        state = self.node(node)
        evidence = self._evidence(state)
        command = c.SweepNode(node=state.node, gone=evidence.gone, alive=evidence.alive, grace_ms=self.terms.drain_grace_ms)
        if not self._can_write() or state.unknown is not None or not due(state, command, self.clock.now_ms()):
            return None
        return self._answer(command)

    def sweep_used(self) -> None:
        """Let time and deaths take effect on this machine's node and on every other that this process has looked at or claimed on."""
        self.sweep()
        for state in self._writer.seen():
            if state.node != self.home and passing(state):
                self.sweep(state.node)

    def up_to_date(self, states: Iterable[NodeState]) -> tuple[NodeState, ...]:
        """Return some nodes with what was due on them done; this machine's was swept when the ledger was opened.

        A move that ends on one node ends on its other node too, so all are read again.
        """
        known = tuple(states)
        due_here = [state for state in known if state.node != self.home and passing(state)] if self._can_write() else []
        for state in due_here:
            self.sweep(state.node)
        return tuple(self._known(state.node) for state in known) if due_here else known

    def _in_time(self, command: c.HoldClaim, key: Key | None) -> c.Answer | Refusal:
        """Carry out a hold; if it is refused, let what is due take effect where it was refused, and decide once more if that was anything."""
        result = self._writer.submit(command, key=key)
        if not isinstance(result, Refusal):
            return result
        mains = [one.claim for reason in result.reasons if reason.code == "consumer_has_main" for one in reason.holders]
        rows = [self.store.claim(claim) for claim in mains]
        nodes = {command.node, *(NodeId(row.stream.removeprefix("node:")) for row in rows if row is not None)}
        return self._writer.submit(command, key=key) if self._wake(nodes) else result

    def _wake(self, nodes: Iterable[NodeId]) -> bool:
        """Sweep some nodes where something was refused, and say whether anything has changed there, so that asking again is worth it."""
        before = {node: self._known(node).sequence for node in sorted(nodes)}
        for node in before:
            self.sweep(node)
        return any(self._known(node).sequence != sequence for node, sequence in before.items())

    def _evidence(self, state: NodeState) -> Evidence:
        """Return what can be proven about the holders of a node's claims."""
        return self._leases.evidence(self._near(state.live()))

    def _near(self, claims: Sequence[Claim]) -> list[Claim]:
        """Return those of some claims whose holders can be judged here: on a node of another host, only if all are of this boot."""
        home = self._writer.known(ids.node_stream(self.home))
        boot = self._host.boot_id()
        found = []
        for claim in claims:
            state = self._known(claim.node) if claim.node != self.home else None
            here = state is None or (home is not None and state.runs_on == home.runs_on)
            if here or (boot and all(holder.boot_id == boot for holder in claim.holders)):
                found.append(claim)
        return found

    # --- within ---------------------------------------------------------------------------------------------------------------------

    def _answer(self, command: c.Command) -> c.Answer:
        result = self._writer.submit(command)
        if not isinstance(result, c.Answer):
            raise WrongUse(f"{type(command).__name__} was refused although it asks for nothing", result=str(result))
        return result

    def _writable(self, node: str | None) -> NodeState:
        state = self.node(node)
        self._must_write()
        return state

    def _must_write(self) -> None:
        """Raise LedgerForeign or LedgerReadOnly if nothing may be written here."""
        self._own()
        if self.terms.stranger is not None:
            raise LedgerForeign(self.terms.stranger, ledger=self.store.name)
        if not self.store.writable:
            raise LedgerReadOnly(f"{self.store.name} can only be read here", ledger=self.store.name)

    def _can_write(self) -> bool:
        return self.store.writable and self.terms.stranger is None


def passing(state: NodeState) -> bool:
    """Say whether time or a death could do anything to a node: cheap, and never no where it could."""
    if any(cordon.until_ms is not None for cordon in state.cordons.values()):
        return True
    return any(claim.deadline_ms is not None or claim.holders or claim.move or claim.phase == "draining" for claim in state.claims.values())


def _new_uuid() -> NodeId:
    import uuid  # noqa: PLC0415 - only where a node is entered without one

    return NodeId(str(uuid.uuid4()))
