"""A claim for the length of a `with` block.

Rules of this file: the claim's id exists before the claim, so whatever interrupts (any BaseException, wherever Python raises one) it can be rolled
back; the first error is the one that is raised; if the rollback fails too, a note on that error says so and the lease (deadline and
calling process) ends the claim.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from earmark.core.ledger.commands import Answer
from earmark.core.model.claim import Claim
from earmark.core.model.cpuset import format_cpu_list
from earmark.core.model.grant import Grant
from earmark.core.model.ids import ClaimId
from earmark.core.model.refusal import Refusal
from earmark.core.model.request import Request
from earmark.errors import Conflict, EarmarkError, LedgerBroken, OutcomeUnknown, Refused, UnknownClaim
from earmark.tracker.fresh import new_claim

if TYPE_CHECKING:
    from earmark.tracker.tracker import Tracker


class HeldClaim:
    """A claim inside its `with` block: what it holds, and what may be done with it. Not shared between threads."""

    def __init__(self, tracker: Tracker, claim: Claim) -> None:
        self._tracker = tracker
        self.taken = claim

    @property
    def id(self) -> ClaimId:
        """The claim's id."""
        return self.taken.id

    @property
    def grant(self) -> Grant:
        """Exactly what is held."""
        return self.taken.grant

    @property
    def cpus(self) -> tuple[int, ...]:
        """The dedicated CPUs, ascending."""
        return self.taken.grant.cpus

    @property
    def cpuset(self) -> str:
        """The dedicated CPUs in the kernel's list format."""
        return format_cpu_list(self.cpus)

    @property
    def mems(self) -> str:
        """The host cells of the grant in the kernel's list format, "" if it floats."""
        return format_cpu_list(cell.host_cell for cell in self.taken.grant.cells)

    @property
    def devices(self) -> tuple[str, ...]:
        """The devices, as unit names."""
        return tuple(row.unit for row in self.taken.grant.units if row.use == "device")

    def bind(self, *pids: int) -> Answer:
        """Let processes of this machine keep the claim alive instead of the caller; after the block it drains when they are gone."""
        answer = self._tracker.bind(self.id, [self._tracker.holder(pid) for pid in pids])
        if answer.claim is not None:
            self.taken = answer.claim
        return answer

    def renew(self, ttl_ms: int) -> Answer:
        """Let the claim live `ttl_ms` from now on."""
        return self._tracker.renew(self.id, ttl_ms)


@contextmanager
def holding(tracker: Tracker, request: Request, *, keep: bool, ttl_ms: int | None = None, **wishes: Any) -> Iterator[HeldClaim]:
    """Hold a claim for a block; `keep` confirms it when the block ends well, otherwise it is released at the end."""
    claim_id = new_claim()
    try:
        held = begin(tracker, request, claim_id, keep=keep, **wishes)
        yield held
        finish(tracker, held, keep=keep, ttl_ms=ttl_ms)
    except BaseException as first:
        roll_back(tracker, claim_id, first)
        raise


def begin(tracker: Tracker, request: Request, claim_id: ClaimId, *, keep: bool, **wishes: Any) -> HeldClaim:
    """Take the claim with the calling process as its holder; raises Refused.

    A claim to be kept is held (and expires with its deadline); a borrowed one is confirmed and lives as long as this process.
    """
    answer = tracker.hold(request, claim_id=claim_id, confirm=not keep, holders=(tracker.holder(os.getpid()),), **wishes)
    if isinstance(answer, Refusal):
        raise Refused(f"node {answer.node} refuses: " + "; ".join(refused_words(answer)), answer)
    if answer.claim is None:
        raise LedgerBroken(f"claim {claim_id} was granted and is not in the state", claim=claim_id)
    return HeldClaim(tracker, answer.claim)


def refused_words(refusal: Refusal) -> list[str]:
    """Return the reasons in words: where, what was asked, what is free, how much is short, and why."""
    found = []
    for reason in refusal.reasons:
        where = "" if reason.cell is None else f" on cell {reason.cell}"
        figures = f"{reason.asked} asked, {reason.free} free, {reason.short} short" if reason.short else ""
        found.append(f"{reason.resource}{where}: " + ", ".join(part for part in (figures, reason.detail) if part))
    return found


def finish(tracker: Tracker, held: HeldClaim, *, keep: bool, ttl_ms: int | None) -> None:
    """Confirm or release a claim whose block ended well; processes bound inside the block stay its holders."""
    if not keep:
        tracker.release(held.id)
        return
    bound = tuple(holder for holder in held.taken.holders if holder.pid != os.getpid())
    tracker.confirm(held.id, ttl_ms=ttl_ms, holders=bound)


def roll_back(tracker: Tracker, claim_id: ClaimId, first: BaseException) -> None:
    """End a claim after `first` was raised, whatever became of it; what fails here is noted on `first` and left to the lease."""
    try:
        try:
            tracker.abort(claim_id)
        except UnknownClaim:
            if isinstance(first, OutcomeUnknown):
                first.add_note(f"claim {claim_id} may still come to be; its lease will end it")
        except Conflict:  # confirmed already: a borrowed claim, or the interrupt came after the confirmation
            tracker.release(claim_id)
    except EarmarkError as second:
        first.add_note(f"claim {claim_id} could not be rolled back ({second}); its lease will end it")
