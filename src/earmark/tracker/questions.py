"""What can be asked of a ledger; nothing here writes.

Rules of this file: a question asks the ledger each time, so that its answer is true for all processes; what looks at everything is loaded only then.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Self

import msgspec

from earmark.clock import Clock
from earmark.core.ledger.codec import Envelope, Stored, open_envelope, open_event
from earmark.core.ledger.events import Event
from earmark.core.ledger.state import NodeState
from earmark.core.model import ids
from earmark.core.model.claim import Holder
from earmark.core.model.ids import ClaimId, ConsumerId, NodeId
from earmark.core.model.node import NodeSettings
from earmark.drivers.contract import HostDriver, Monitor, Observation
from earmark.errors import EarmarkError, InvalidRecord, LedgerBroken, UnknownClaim, UnknownNode, WrongUse
from earmark.logs import log
from earmark.stores.contract import SAMPLES_KEPT_MAX, ClaimRow, Store, Ticket
from earmark.tracker.leases import Leases
from earmark.tracker.writer import Writer

if TYPE_CHECKING:
    from earmark.core.model.finding import Finding
    from earmark.core.model.sample import Sample
    from earmark.tracker.aside import Auditing
    from earmark.tracker.history import Verified

NODE_PREFIX = "node:"


class Terms(NamedTuple):
    """How a tracker works: who acts, the times it gives (milliseconds), and what stands against its granting or writing.

    `rival` names another announced ledger of this machine (exclusive grants are refused); `stranger` says why this ledger is not this
    machine's own (nothing is written until it is rehomed); `fresh` are the settings of a node that is entered without any.
    """

    actor: str
    hold_timeout_ms: int
    default_ttl_ms: int | None
    drain_grace_ms: int
    rival: str | None = None
    stranger: str | None = None
    fresh: NodeSettings = NodeSettings()


class Survey(NamedTuple):
    """The nodes that can be read, by name, and the errors of those that cannot, by uuid."""

    nodes: tuple[NodeState, ...]
    broken: dict[NodeId, EarmarkError]


class Questions:
    """A ledger that can be asked. Safe for threads; a context manager that closes it. `home` is the node of this machine."""

    def __init__(
        self, store: Store, writer: Writer, leases: Leases, host: HostDriver, clock: Clock, *, home: NodeId, terms: Terms,
        rebind: Callable[[], object] | None = None, monitor: Monitor | None = None,
    ) -> None:  # fmt: skip
        self.store = store
        self.clock = clock
        self.home = home
        self.terms = terms
        self._writer = writer
        self._leases = leases
        self._host = host
        self._rebind = rebind
        self._monitor = monitor
        self._pid = os.getpid()

    def nodes(self) -> tuple[NodeState, ...]:
        """Return the nodes of the ledger by name."""
        return self.survey().nodes

    def survey(self) -> Survey:
        """Return the nodes of the ledger by name, and those whose stream cannot be read: one that is broken stands in no other's way."""
        self._own()
        states: list[NodeState] = []
        broken: dict[NodeId, EarmarkError] = {}
        for stream in sorted(self.store.heads()):
            if not stream.startswith(NODE_PREFIX):
                continue
            node = NodeId(stream.removeprefix(NODE_PREFIX))
            try:
                state = self._writer.state(stream)
            except (InvalidRecord, LedgerBroken) as error:
                log("node.unreadable", level="error", node=node, code=error.code)
                broken[node] = error
                continue
            if state is not None:
                states.append(state)
        return Survey(tuple(sorted(states, key=lambda state: (state.name, state.node))), broken)

    def node(self, name_or_id: str | None = None) -> NodeState:
        """Return a node by uuid or name, None for this machine's; raises UnknownNode."""
        self._own()
        if name_or_id is None:
            return self._known(self.home)
        if ids.UUID.fullmatch(name_or_id):
            return self._known(NodeId(name_or_id))
        named = self._writer.names.named(self.store, name_or_id)
        if len(named) != 1:
            raise UnknownNode(f"{len(named) or 'no'} nodes are named {name_or_id!r} in {self.store.name}", node=name_or_id)
        return self._known(named[0])

    def find(self, text: str) -> ClaimRow:
        """Return the row of a claim named by id, by the unique beginning of one, or by its consumer; raises UnknownClaim.

        A consumer that holds nothing any more is known by a claim that has ended, so that a late command is answered.
        """
        self._own()
        if not text or not text.isprintable():
            raise UnknownClaim(f"{text!r} is neither a claim nor a consumer", found=text)
        row = self.store.claim(ClaimId(text)) or self.store.main_claim(ConsumerId(text))
        if row is not None:
            return row
        rows = self.store.claims_like(text, 3) if text.startswith("c-") else ()
        if len(rows) > 1:
            raise UnknownClaim(f"{text!r} begins several claims: {', '.join(row.claim for row in rows)}…", found=text)
        if not rows and (ended := self.store.ended_claim(ConsumerId(text))) is not None:
            return ended
        if not rows:
            raise UnknownClaim(f"no claim {text!r} and no consumer of that name is in {self.store.name}", found=text)
        return rows[0]

    def events(self, node: str | None = None, after: int = 0) -> Iterator[tuple[Stored, Envelope, Event]]:
        """Yield the events of a node in order, from the archive's end or `after` a sequence on."""
        stream = ids.node_stream(self.node(node).node)
        while page := self.store.read(stream, after):
            for stored in page:
                envelope = open_envelope(stored.raw)
                yield stored, envelope, open_event(envelope)
            after = page[-1].sequence

    def observation(self, node: str | None = None) -> Observation | None:
        """Return the last kept observation of a node (None: of this machine's), None if there is none."""
        raw = self.store.observation(ids.node_stream(self.home if node is None else self.node(node).node))
        return None if raw is None else msgspec.json.decode(raw, type=Observation)

    def samples(self, limit: int = SAMPLES_KEPT_MAX, node: str | None = None) -> tuple[Sample, ...]:
        """Return the newest samples of a node's host (None: of this machine), newest first; a host's samples belong to its own node only.

        One that this program cannot read (another version wrote it) is left out, and logged.
        """
        from earmark.core.model.sample import decode_sample  # noqa: PLC0415 - no command that claims needs it

        of = self.home if node is None else self.node(node).node
        found = []
        for kept in self.store.samples(ids.node_stream(of), limit):
            try:
                found.append(decode_sample(kept.sample))
            except InvalidRecord as error:
                log("sample.unreadable", level="warning", node=of, code=error.code)
        return tuple(found)

    def at(self, time_ms: int, node: str | None = None) -> NodeState:
        """Return a node as it was at a time in milliseconds since the epoch; raises UnknownNode if it was not yet there."""
        from earmark.tracker.history import state_at  # noqa: PLC0415 - few commands look back

        return state_at(self.store, self.node(node).node, time_ms)

    def audit(self, *, aside: bool = False) -> tuple[Finding, ...]:
        """Hold the ledger against itself and return what contradicts what; `aside`: in a process of its own, out of everybody's way."""
        if aside:
            with self.auditing() as work:
                return work.result()
        from earmark.tracker.history import audit  # noqa: PLC0415 - few commands look at everything

        self._own()
        return audit(self.store)

    def auditing(self, *, timeout_s: float | None = None) -> Auditing:
        """Begin an audit in a process of its own and return it: `with tracker.auditing() as work: … work.result()`.

        The ledger is audited as it stands now, claims go on meanwhile. Raises HostUnavailable if no process can be started; `result()` does
        if the process fails or takes longer than `timeout_s` (default AUDIT_TIMEOUT_S).
        """
        from earmark.tracker.aside import AUDIT_TIMEOUT_S, Auditing  # noqa: PLC0415 - only who wants one pays for it

        self._own()
        return Auditing(self.store, AUDIT_TIMEOUT_S if timeout_s is None else timeout_s)

    def verify(self) -> Verified:
        """Check every hash and link, replay every event, and compare the result with all that is kept beside the events."""
        from earmark.tracker.history import verify  # noqa: PLC0415 - few commands look at everything

        self._own()
        return verify(self.store)

    def tickets(self, node: str | None = None) -> Sequence[Ticket]:
        """Return who waits for a node, in order of arrival."""
        return self.store.tickets(ids.node_stream(self.node(node).node))

    def holder(self, pid: int) -> Holder:
        """Return the identity of a process of this machine, to bind a claim to; raises HostUnavailable."""
        return self._leases.me(pid)

    def gone(self, holders: Sequence[Holder]) -> tuple[Holder, ...]:
        """Return those of some holders that are proven gone."""
        return self._leases.gone(holders)

    # --- life -----------------------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the ledger; may be repeated. Claims live on."""
        self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    # --- within ---------------------------------------------------------------------------------------------------------------------

    def _node_of(self, row: ClaimRow) -> NodeId:
        return NodeId(row.stream.removeprefix(NODE_PREFIX))

    def _known(self, node: NodeId) -> NodeState:
        state = self._writer.state(ids.node_stream(node))
        if state is None:
            raise UnknownNode(f"node {node} is not in {self.store.name}", node=node)
        return state

    def _now(self, state: NodeState) -> int:
        return max(self.clock.now_ms(), state.at_ms)

    def _own(self) -> None:
        if os.getpid() != self._pid:
            raise WrongUse("this tracker was opened before a fork; open another one in the child", opened_by=self._pid)
