"""The tracker: claims on nodes, handed out once, given back always.

Rules of this file: it knows contracts, not implementations; every change goes through `Writer.submit`; the world (processes, the host, ids, time)
is asked before a command is made and never inside the transaction. Read next: core/ledger/decide.py, then core/fit/fit.py.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import msgspec

from earmark.clock import Clock
from earmark.core.ledger import commands as c
from earmark.core.ledger.codec import Envelope, Stored, open_envelope, open_event
from earmark.core.ledger.decide import due
from earmark.core.ledger.decide import place as placed
from earmark.core.ledger.events import Event
from earmark.core.ledger.state import NodeState
from earmark.core.model import ids
from earmark.core.model.claim import Cause, Holder, Purpose
from earmark.core.model.grant import Grant
from earmark.core.model.ids import ClaimId, ConsumerId, NodeId, Owner
from earmark.core.model.node import NodeSettings
from earmark.core.model.refusal import Reason, Refusal
from earmark.core.model.request import Request
from earmark.drivers.contract import HostDriver, Observation
from earmark.errors import InvalidRequest, LedgerBroken, LedgerForeign, LedgerReadOnly, UnknownClaim, UnknownNode, WrongUse
from earmark.stores.contract import ClaimRow, Store, Ticket
from earmark.tracker.leases import Leases
from earmark.tracker.snapshots import snapshot_of
from earmark.tracker.writer import Key, Writer, checked, encoded

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from earmark.core.ledger.audit import Finding
    from earmark.tracker.held import HeldClaim
    from earmark.tracker.history import Verified

CLAIM_ID_BYTES = 6
NODE_PREFIX = "node:"


class Terms(NamedTuple):
    """How a tracker works: who acts, the times it gives (milliseconds), and what stands against its granting or writing.

    `rival` names another announced ledger of this machine (exclusive grants are refused); `stranger` says why this ledger is not this
    machine's own (nothing is written until it is rehomed).
    """

    actor: str
    hold_timeout_ms: int
    default_ttl_ms: int | None
    drain_grace_ms: int
    rival: str | None = None
    stranger: str | None = None


class Asked(msgspec.Struct, frozen=True):
    """What an idempotency key stands for: the call as it was made, without what is made up for it."""

    what: str
    node: str
    request: Request
    consumer: str | None
    ttl_ms: int | None
    purpose: str
    grant: Grant | None
    confirm: bool


class Tracker:
    """Claims, reads and keeps a ledger. Safe for threads; made by `earmark.open()`; a context manager that closes it.

    `home` is the node of this machine. After fork it raises WrongUse: open another one in the child.
    """

    def __init__(
        self, store: Store, writer: Writer, leases: Leases, host: HostDriver, clock: Clock, *, home: NodeId, terms: Terms,
        rebind: Callable[[], object] | None = None,
    ) -> None:  # fmt: skip
        self.store = store
        self.clock = clock
        self.home = home
        self.terms = terms
        self._writer = writer
        self._leases = leases
        self._host = host
        self._rebind = rebind
        self._pid = os.getpid()

    # --- claims ---------------------------------------------------------------------------------------------------------------------

    def hold(
        self, request: Request, *, consumer: str | None = None, owner: str | None = None, node: str | None = None,
        ttl_ms: int | None = None, purpose: Purpose = "main", grant: Grant | None = None, confirm: bool = False,
        holders: Sequence[Holder] = (), key: str | None = None, claim_id: ClaimId | None = None,
    ) -> c.Answer | Refusal:  # fmt: skip
        """Claim resources and return the answer, or the refusal with its reasons.

        Without `confirm` the claim is held until it is confirmed or `ttl_ms` (default: the setting hold_timeout) passes; with it the
        claim stays until `ttl_ms` (default: the setting default_ttl) or release. `consumer` None makes one up from the claim's id. `grant`
        prescribes exactly what is to be given. `key` makes the call repeatable: the same call under it gets the first answer for 7 days.
        Raises an Invalid…, Conflict or …Unavailable.
        """
        state = self._target(node)
        by = Owner(ids.name(owner, "owner") if owner is not None else self.terms.actor)
        if self.terms.rival is not None and wants_exclusive(request, grant):
            detail = f"{self.terms.rival} is this machine's ledger; its users would not see this grant"
            return Refusal(reasons=(Reason(code="other_ledger", resource="ledger", unit=self.terms.rival, detail=detail),), node=state.name)
        new = ids.claim_id(claim_id) if claim_id is not None else ClaimId("c-" + os.urandom(CLAIM_ID_BYTES).hex())
        if ttl_ms is not None and ttl_ms <= 0:
            raise InvalidRequest(f"a claim cannot live {ttl_ms} ms", ttl_ms=ttl_ms)
        life_ms = ttl_ms if ttl_ms is not None else (self.terms.default_ttl_ms if confirm else self.terms.hold_timeout_ms)
        command = c.HoldClaim(
            node=state.node, claim=new, consumer=ConsumerId(ids.name(consumer, "consumer") if consumer is not None else new), owner=by,
            request=request, grant=grant, purpose=purpose, confirm=confirm, holders=tuple(holders),
            deadline_ms=None if life_ms is None else self._now(state) + life_ms,
        )  # fmt: skip
        kept = None
        if key is not None:
            asked = Asked("hold", state.node, request, consumer, ttl_ms, purpose, grant, confirm)
            kept = Key(by, ids.name(key, "key"), hashlib.sha256(encoded(asked)).hexdigest())
        return self._writer.submit(command, key=kept)

    def confirm(self, claim: str, *, ttl_ms: int | None = None, holders: Sequence[Holder] = (), generation: int | None = None) -> c.Answer:
        """Keep a held claim until it is released or `ttl_ms` passes (default: the setting default_ttl); `holders` replace its own."""
        state, claim_id = self._owner_of(claim)
        life_ms = ttl_ms if ttl_ms is not None else self.terms.default_ttl_ms
        deadline_ms = None if life_ms is None else self._now(state) + life_ms
        return self._answer(
            c.ConfirmClaim(node=state.node, claim=claim_id, deadline_ms=deadline_ms, holders=tuple(holders), generation=generation)
        )

    def bind(self, claim: str, holders: Sequence[Holder], *, generation: int | None = None) -> c.Answer:
        """Let exactly these processes keep a claim alive."""
        state, claim_id = self._owner_of(claim)
        return self._answer(c.BindClaim(node=state.node, claim=claim_id, holders=tuple(holders), generation=generation))

    def renew(self, claim: str, ttl_ms: int | None, *, generation: int | None = None) -> c.Answer:
        """Let a claim live for `ttl_ms` from now (None: without end, for a confirmed one)."""
        state, claim_id = self._owner_of(claim)
        deadline_ms = None if ttl_ms is None else self._now(state) + ttl_ms
        return self._answer(c.RenewClaim(node=state.node, claim=claim_id, deadline_ms=deadline_ms, generation=generation))

    def release(self, claim: str, *, force: bool = False, generation: int | None = None) -> c.Answer:
        """End a claim. It drains while other processes than this one are bound to it; `force` drains without the holder's word."""
        return self._end(claim, "forced" if force else "released", generation)

    def abort(self, claim: str, *, generation: int | None = None) -> c.Answer:
        """End a claim that was held and never confirmed."""
        return self._end(claim, "aborted", generation)

    def give_back(self, what: str, reason: str, *, node: str | None = None) -> c.Answer:
        """Return a unit, or all that a claim left, from quarantine."""
        state = self._writable(node)
        is_claim = ids.CLAIM.fullmatch(what) is not None
        if is_claim:
            state = self._writable(self._node_of(self.find(what)))
        return self._answer(
            c.ReturnUnits(
                node=state.node, claim=ClaimId(what) if is_claim else None, unit=None if is_claim else ids.unit_id(what),
                reason=ids.reason_text(reason),
            )
        )  # fmt: skip

    def claim(
        self, request: Request, *, consumer: str | None = None, owner: str | None = None, node: str | None = None,
        ttl_ms: int | None = None, purpose: Purpose = "main", grant: Grant | None = None,
    ) -> AbstractContextManager[HeldClaim]:  # fmt: skip
        """Hold a claim for a `with` block and confirm it when the block ends well; any exception rolls it back whole.

        Raises Refused (with `.refusal`) if the claim cannot be had. `ttl_ms` is the life after the confirmation.
        """
        from earmark.tracker.held import holding  # noqa: PLC0415 - the command line does not need it

        return holding(self, request, consumer=consumer, owner=owner, node=node, ttl_ms=ttl_ms, purpose=purpose, grant=grant, keep=True)

    def borrow(
        self, request: Request, *, consumer: str | None = None, owner: str | None = None, node: str | None = None,
        purpose: Purpose = "main", grant: Grant | None = None,
    ) -> AbstractContextManager[HeldClaim]:  # fmt: skip
        """Hold a claim for a `with` block and release it at its end, however it ends; raises Refused if it cannot be had."""
        from earmark.tracker.held import holding  # noqa: PLC0415 - the command line does not need it

        return holding(self, request, consumer=consumer, owner=owner, node=node, ttl_ms=None, purpose=purpose, grant=grant, keep=False)

    def aclaim(self, request: Request, **wishes: Any) -> AbstractAsyncContextManager[HeldClaim]:
        """Do what `claim` does, for `async with`; a cancelled task leaves nothing behind."""
        from earmark.tracker.aio import aholding  # noqa: PLC0415 - asyncio is loaded only for those who use it

        return aholding(self, request, keep=True, **wishes)

    def aborrow(self, request: Request, **wishes: Any) -> AbstractAsyncContextManager[HeldClaim]:
        """Do what `borrow` does, for `async with`; a cancelled task leaves nothing behind."""
        from earmark.tracker.aio import aholding  # noqa: PLC0415 - asyncio is loaded only for those who use it

        return aholding(self, request, keep=False, **wishes)

    # --- nodes ----------------------------------------------------------------------------------------------------------------------

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

    def observe(self) -> c.Answer:
        """Look at this machine and record it if it has changed."""
        seen = self._host.observe()
        answer = self._answer(c.ObserveMachine(node=self._writable(None).node, machine=seen.machine))
        with self._writer.exclusive("observation") as tx:
            tx.put_observation(ids.node_stream(self.home), self.clock.now_ms(), msgspec.json.encode(seen))
        return answer

    def rehome(self, reason: str) -> c.Answer:
        """Say that this copied ledger now belongs to this machine."""
        self._own()
        command = c.RehomeNode(node=self.home, machine_ref=self._host.machine_ref(), reason=ids.reason_text(reason))
        answer = self._answer(command)
        if self._rebind is not None:
            self._rebind()
        self.terms = self.terms._replace(stranger=None)
        return answer

    def sweep(self) -> c.Answer | None:
        """Let time and deaths take effect on this machine's node; None if nothing was due."""
        state = self._known(self.home)
        evidence = self._leases.evidence(state.live())
        command = c.SweepNode(node=state.node, gone=evidence.gone, alive=evidence.alive, grace_ms=self.terms.drain_grace_ms)
        if not self._can_write() or not due(state, command, self.clock.now_ms()):
            return None
        return self._answer(command)

    def watching(self, every_s: float = 5.0) -> AbstractContextManager[None]:
        """Sweep while a `with` block runs: when a holder dies, and every `every_s` seconds; for programs that keep a tracker open."""
        from earmark.tracker.watch import watching  # noqa: PLC0415 - only programs that stay need a thread

        return watching(self, self._leases, every_s)

    # --- questions ------------------------------------------------------------------------------------------------------------------

    def fit(self, request: Request, *, node: str | None = None, grant: Grant | None = None) -> Grant | Refusal:
        """Say what a claim would be given now, or why not; writes nothing."""
        state = self.node(node)
        probe = c.HoldClaim(
            node=state.node,
            claim=ClaimId("c-probe"),
            consumer=ConsumerId("probe"),
            owner=Owner(self.terms.actor),
            request=request,
            grant=grant,
        )
        return placed(state, checked(probe))

    def nodes(self) -> tuple[NodeState, ...]:
        """Return the nodes of the ledger by name."""
        self._own()
        states = (self._writer.state(stream) for stream in sorted(self.store.heads()) if stream.startswith(NODE_PREFIX))
        return tuple(sorted((state for state in states if state is not None), key=lambda state: (state.name, state.node)))

    def node(self, name_or_id: str | None = None) -> NodeState:
        """Return a node by uuid or name, None for this machine's; raises UnknownNode."""
        self._own()
        if name_or_id is None:
            return self._known(self.home)
        if ids.UUID.fullmatch(name_or_id):
            return self._known(NodeId(name_or_id))
        named = [state for state in self.nodes() if state.name == name_or_id]
        if len(named) != 1:
            raise UnknownNode(f"{len(named) or 'no'} nodes are named {name_or_id!r} in {self.store.name}", node=name_or_id)
        return named[0]

    def find(self, text: str) -> ClaimRow:
        """Return the row of a claim named by id, by the unique beginning of one, or by its consumer; raises UnknownClaim."""
        self._own()
        if not text or not text.isprintable():
            raise UnknownClaim(f"{text!r} is neither a claim nor a consumer", found=text)
        row = self.store.claim(ClaimId(text)) or self.store.main_claim(ConsumerId(text))
        if row is not None:
            return row
        rows = self.store.claims_like(text, 3) if text.startswith("c-") else ()
        if len(rows) > 1:
            raise UnknownClaim(f"{text!r} begins several claims: {', '.join(row.claim for row in rows)}…", found=text)
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

    def observation(self) -> Observation | None:
        """Return the last kept observation of this machine, None if there is none."""
        raw = self.store.observation(ids.node_stream(self.home))
        return None if raw is None else msgspec.json.decode(raw, type=Observation)

    def at(self, time_ms: int, node: str | None = None) -> NodeState:
        """Return a node as it was at a time in milliseconds since the epoch; raises UnknownNode if it was not yet there."""
        from earmark.tracker.history import state_at  # noqa: PLC0415 - few commands look back

        return state_at(self.store, self.node(node).node, time_ms)

    def audit(self) -> tuple[Finding, ...]:
        """Hold the ledger against itself and return what contradicts what."""
        from earmark.tracker.history import audit  # noqa: PLC0415 - few commands look at everything

        self._own()
        return audit(self.store)

    def verify(self) -> Verified:
        """Check every hash and link, replay every event, and compare the result with all that is kept beside the events."""
        from earmark.tracker.history import verify  # noqa: PLC0415 - few commands look at everything

        self._own()
        return verify(self.store)

    def archive(self, target: Path, node: str | None = None) -> int:
        """Move a node's older events into an archive file that ends with their hash; the ledger goes on from a verified snapshot.

        Returns how many events were moved. Raises LedgerBroken, and moves nothing, if the ledger does not verify.
        """
        state = self._writable(node)
        errors = [finding for finding in self.verify().findings if finding.severity == "error"]
        if errors:
            raise LedgerBroken(f"{self.store.name} is not archived, it does not verify: {errors[0].detail}", findings=len(errors))
        snapshot = snapshot_of(ids.node_stream(state.node), state, self.store.last_position())
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

    def _end(self, claim: str, cause: Cause, generation: int | None) -> c.Answer:
        state, claim_id = self._owner_of(claim)
        live = state.claims.get(claim_id)
        gone: tuple[Holder, ...] = ()
        if live is not None:
            gone = self._leases.evidence([live]).gone if cause == "forced" else self._leases.speaks_for(live, os.getpid())
        return self._answer(c.EndClaim(node=state.node, claim=claim_id, cause=cause, gone=gone, generation=generation))

    def _answer(self, command: c.Command) -> c.Answer:
        result = self._writer.submit(command)
        if isinstance(result, Refusal):
            raise WrongUse(f"{type(command).__name__} was refused although it asks for nothing", reasons=result.reasons)
        return result

    def _owner_of(self, claim: str) -> tuple[NodeState, ClaimId]:
        """Return the node of a claim and its id; the state may be a moment old, deciding looks again."""
        self._own()
        known = self._writer.known(ids.node_stream(self.home))
        if known is not None and claim in known.claims:
            return self._target(None), ClaimId(claim)
        row = self.find(claim)
        return self._writable(self._node_of(row)), row.claim

    def _target(self, node: str | None) -> NodeState:
        """Return a node that may be written, as this process last saw it where it is this machine's."""
        known = self._writer.known(ids.node_stream(self.home)) if node is None or node == self.home else None
        if known is None or not self._can_write():
            return self._writable(node)
        self._own()
        return known

    def _node_of(self, row: ClaimRow) -> NodeId:
        return NodeId(row.stream.removeprefix(NODE_PREFIX))

    def _writable(self, node: str | None) -> NodeState:
        state = self.node(node)
        if self.terms.stranger is not None:
            raise LedgerForeign(self.terms.stranger, ledger=self.store.name)
        if not self.store.writable:
            raise LedgerReadOnly(f"{self.store.name} can only be read here", ledger=self.store.name)
        return state

    def _can_write(self) -> bool:
        return self.store.writable and self.terms.stranger is None

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


def wants_exclusive(request: Request, grant: Grant | None) -> bool:
    """Say whether a claim would hold something that nobody else may."""
    if grant is not None:
        return bool(grant.units)
    return (request.vcpus > 0 and request.cpu_policy != "shared") or bool(request.devices)
