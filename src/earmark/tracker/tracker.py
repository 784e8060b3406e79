"""The tracker: claims on nodes, handed out once, given back always.

Rules of this file: it knows contracts, not implementations; every change goes through `Writer.submit`; the world (processes, the host, ids, time)
is asked before a command is made and never inside the transaction. Read next: core/ledger/decide.py, then core/fit/fit.py.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import msgspec

from earmark.core.ledger import commands as c
from earmark.core.ledger.decide import place as placed
from earmark.core.ledger.state import NodeState
from earmark.core.model import ids
from earmark.core.model.claim import Cause, Holder, Purpose
from earmark.core.model.grant import Grant
from earmark.core.model.ids import ClaimId, ConsumerId, Owner
from earmark.core.model.refusal import Reason, Refusal
from earmark.core.model.request import Request
from earmark.errors import InvalidRequest, UnknownClaim
from earmark.tracker.fresh import new_claim
from earmark.tracker.lives import Lives
from earmark.tracker.work import Key, checked, encoded

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from earmark.core.model.guest import Guest
    from earmark.tracker.building import Attempt
    from earmark.tracker.held import HeldClaim
    from earmark.tracker.verdicts import Received


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


class Tracker(Lives):
    """Claims, reads and keeps a ledger. Safe for threads; made by `earmark.open()`; a context manager that closes it.

    `home` is the node of this machine. After fork it raises WrongUse: open another one in the child.
    """

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
        new = ids.claim_id(claim_id) if claim_id is not None else new_claim()
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
        return self._in_time(command, kept)

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
        self, *what: Request | str | None, node: str | None = None, consumer: str | None = None, owner: str | None = None,
        ttl_ms: int | None = None, purpose: Purpose = "main", grant: Grant | None = None,
    ) -> AbstractContextManager[HeldClaim]:  # fmt: skip
        """Hold a claim for a `with` block and confirm it when the block ends well; any exception rolls it back whole.

        `what` is the request, or the node (uuid, name, None for this machine's) and the request. Raises Refused (with `.refusal`) if the
        claim cannot be had. `ttl_ms` is the life after the confirmation.
        """
        from earmark.tracker.held import holding  # noqa: PLC0415 - the command line does not need it

        where, request = addressed(what, node)
        return holding(self, request, consumer=consumer, owner=owner, node=where, ttl_ms=ttl_ms, purpose=purpose, grant=grant, keep=True)

    def borrow(
        self, *what: Request | str | None, node: str | None = None, consumer: str | None = None, owner: str | None = None,
        purpose: Purpose = "main", grant: Grant | None = None,
    ) -> AbstractContextManager[HeldClaim]:  # fmt: skip
        """Hold a claim for a `with` block and release it at its end, however it ends; `what` and Refused as for `claim`."""
        from earmark.tracker.held import holding  # noqa: PLC0415 - the command line does not need it

        where, request = addressed(what, node)
        return holding(self, request, consumer=consumer, owner=owner, node=where, ttl_ms=None, purpose=purpose, grant=grant, keep=False)

    def aclaim(self, *what: Request | str | None, node: str | None = None, **wishes: Any) -> AbstractAsyncContextManager[HeldClaim]:
        """Do what `claim` does, for `async with`; a cancelled task leaves nothing behind."""
        from earmark.tracker.aio import aholding  # noqa: PLC0415 - asyncio is loaded only for those who use it

        where, request = addressed(what, node)
        return aholding(self, request, keep=True, node=where, **wishes)

    def aborrow(self, *what: Request | str | None, node: str | None = None, **wishes: Any) -> AbstractAsyncContextManager[HeldClaim]:
        """Do what `borrow` does, for `async with`; a cancelled task leaves nothing behind."""
        from earmark.tracker.aio import aholding  # noqa: PLC0415 - asyncio is loaded only for those who use it

        where, request = addressed(what, node)
        return aholding(self, request, keep=False, node=where, **wishes)

    def attach(self, consumer: str, request: Request, *, grant: Grant | None = None) -> c.Answer | Refusal:
        """Claim something more for a running consumer, on the node of its main claim (L16); raises UnknownClaim if it has none."""
        main = next((claim for claim in self.claims_of(consumer) if claim.purpose == "main"), None)
        if main is None:
            raise UnknownClaim(f"consumer {consumer} holds no main claim that something could be attached to", found=consumer)
        return self.hold(request, consumer=consumer, owner=main.owner, node=main.node, purpose="attach", grant=grant, confirm=True)

    def detach(self, consumer: str, what: str) -> c.Answer:
        """Give back what was attached to a consumer: a claim, or the claim that holds just this unit (L16); raises UnknownClaim."""
        for claim in self.claims_of(consumer):
            if claim.purpose == "attach" and (claim.id == what or [row.unit for row in claim.grant.units] == [what]):
                return self.release(claim.id)
        if ids.CLAIM.fullmatch(what) is not None and (row := self.find(what)).consumer == consumer and row.purpose == "attach":
            return self.release(row.claim)
        raise UnknownClaim(f"nothing attached to {consumer} is {what} alone", found=what)

    def building(self, request: Request, *, consumer: str, nodes: Sequence[str], owner: str | None = None) -> Iterator[Attempt]:
        """Yield tries of a build, node after node: `for attempt in …: with attempt as claim: start(claim)`; ends at the first that succeeds.

        A try whose block fails is aborted and counted as a failed build of its node (L7, T4); the last failure is raised.
        """
        from earmark.tracker.building import building  # noqa: PLC0415 - the command line does not need it

        return building(self, request, consumer=consumer, nodes=nodes, owner=owner)

    def guests_seen(self, node: str, guests: Sequence[Guest], *, complete: bool = False) -> c.Answer:
        """Say which guests were seen running on a node; who of them never claimed is counted as foreign from now on (S09).

        `complete`: there are no others, so that a foreign claim of a guest that is not among them ends. What a guest uses although
        somebody holds it is a finding (`overlap`), and taken from nobody.
        """
        from earmark.tracker.records import guests_seen  # noqa: PLC0415 - the command line of a claim does not need it

        return guests_seen(self, node, guests, complete=complete)

    def receive(
        self, records: Iterable[object], *, complete: Sequence[str] = (), all_guests: Sequence[str] = (), apply: bool = False
    ) -> Received:  # fmt: skip
        """Compare records of a compute service (JSON, dicts or structs of core.model.record) with the ledger; every one gets a verdict.

        Accepted states of instances are reported. Only with `apply` a move's word moves something, and only one that ends it, and an
        instance that is missing in a complete listing is deleted (S24): a record `listing`, or all records for the nodes that
        `complete` names. `all_guests` names the nodes of which they list all guests. What is contradictory is remembered, and audits
        name it until it is resolved. Nothing is carried out before all are read; raises UnknownNode and what reading raises.
        """
        from earmark.tracker.records import receive  # noqa: PLC0415 - the command line of a claim does not need it

        return receive(self, records, complete=complete, all_guests=all_guests, apply=apply)

    def tell(self, command: c.Command) -> c.Answer:
        """Carry out a command that asks for nothing and so cannot be refused."""
        self._must_write()
        return self._answer(command)

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

    def _end(self, claim: str, cause: Cause, generation: int | None) -> c.Answer:
        state, claim_id = self._owner_of(claim)
        live = state.claims.get(claim_id)
        gone: tuple[Holder, ...] = ()
        if live is not None and self._near([live]):
            gone = self._leases.evidence([live]).gone if cause == "forced" else self._leases.speaks_for(live, os.getpid())
        return self._answer(c.EndClaim(node=state.node, claim=claim_id, cause=cause, gone=gone, generation=generation))

    def _owner_of(self, claim: str) -> tuple[NodeState, ClaimId]:
        """Return the node of a claim and its id; the state may be a moment old, deciding looks again."""
        self._own()
        known = self._writer.known(ids.node_stream(self.home))
        if known is not None and claim in known.claims:
            return self._target(None), ClaimId(claim)
        row = self.find(claim)
        return self._writable(self._node_of(row)), row.claim


def wants_exclusive(request: Request, grant: Grant | None) -> bool:
    """Say whether a claim would hold something that nobody else may."""
    if grant is not None:
        return bool(grant.units)
    return (request.vcpus > 0 and request.cpu_policy != "shared") or bool(request.devices)


def addressed(what: tuple[Request | str | None, ...], node: str | None) -> tuple[str | None, Request]:
    """Return the node and the request of a call that names them as (request), or as (node, request); raises InvalidRequest."""
    match what:
        case (Request() as request,):
            return node, request
        case (str() | None as where, Request() as request) if node is None:
            return where, request
    raise InvalidRequest(f"a claim is asked for with a request, or with a node and a request, not with {what!r}")
