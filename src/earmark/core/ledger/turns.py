"""Whose turn it is among those who wait for a node.

Rules of this file: pure; strict order of arrival: only the head of the line may start. Who skips ahead must not let the head start later:
whatever of today's claims end, and in whichever order, if the head would fit then, it must fit beside the skipper too. A claim with a
deadline is taken to end then (as a batch scheduler's backfill does), one without at any time or never. What cannot be shown within
SKIP_CASES_MAX cases is not allowed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import NamedTuple

import msgspec

from earmark.core.fit.fit import fit, has_room
from earmark.core.fit.free import Free, Supply
from earmark.core.ledger.state import NodeState
from earmark.core.model.claim import Claim
from earmark.core.model.grant import Grant
from earmark.core.model.ids import ClaimId
from earmark.core.model.refusal import Reason, Refusal
from earmark.core.model.request import Request

SKIP_CASES_MAX = 512
SKIPPER = ClaimId("c-skipper")


class Waiter(NamedTuple):
    """A place in the line: its number and what is wanted (None: it cannot be read, so nobody skips past it)."""

    number: int
    request: Request | None


class Turn(NamedTuple):
    """Whether to try now, and how many stand ahead."""

    now: bool
    ahead: int


def turn(
    waiters: Sequence[Waiter], mine: int, state: NodeState, *, now_ms: int, skip_ahead: bool = False, end_ms: int | None = None
) -> Turn:
    """Say whether the waiter number `mine` may try to start now.

    `end_ms` (since the epoch) is when its claim would end at the latest, None if that is open.
    """
    ahead = sorted((waiter for waiter in waiters if waiter.number < mine), key=lambda waiter: waiter.number)
    own = next((waiter for waiter in waiters if waiter.number == mine), None)
    if not ahead:
        return Turn(now=True, ahead=0)
    head = ahead[0].request
    if not skip_ahead or head is None or own is None or own.request is None:
        return Turn(now=False, ahead=len(ahead))
    return Turn(now=may_skip(head, own.request, state, now_ms=now_ms, end_ms=end_ms), ahead=len(ahead))


def may_skip(head: Request, mine: Request, state: NodeState, *, now_ms: int, end_ms: int | None) -> bool:
    """Say whether `mine` may start now although `head` waits: it fits, the head does not, and starts no later for it."""
    supply = state.supply
    if supply is None:
        return False
    grant = fit(mine, supply)
    if isinstance(grant, Refusal) or fits(head, supply, state.free):
        return False
    known = sorted(
        (claim for claim in state.live() if ends_at(claim, now_ms) is not None), key=lambda claim: (claim.deadline_ms or 0, claim.id)
    )
    open_ended = [claim for claim in state.live() if ends_at(claim, now_ms) is None]
    if (len(known) + 1) << len(open_ended) > SKIP_CASES_MAX:
        return False
    for at_ms, free in moments(state.free, known, now_ms):
        if end_ms is not None and end_ms <= at_ms:
            return True  # from here on the skipper is gone
        for later in endings(free, open_ended):
            if fits(head, supply, later) and not fits(head, supply, later.take(SKIPPER, grant)):
                return False
    return True


def could_ever_fit(request: Request, state: NodeState) -> Grant | Refusal:
    """Return where a request would go if every claim and cordon of the node ended, or why not even then; quarantines stay."""
    supply = state.supply
    if supply is None:
        reason = Reason(code="node_closed", resource="node", unit=state.name, detail="its machine was never observed")
        return Refusal(reasons=(reason,), node=state.name)
    kept = Free.recompute([(quarantine.claim, quarantine.grant) for _, quarantine in sorted(state.quarantines.items())])
    found = fit(request, Supply(layout=supply.layout, free=kept))
    return msgspec.structs.replace(found, node=state.name) if isinstance(found, Refusal) else found


def fits(request: Request, supply: Supply, free: Free) -> bool:
    """Say whether a request fits when this is what is taken."""
    return has_room(request, msgspec.structs.replace(supply, free=free))


def ends_at(claim: Claim, now_ms: int) -> int | None:
    """Return when a claim ends as far as that is known; a draining or overdue one ends when its processes do."""
    return claim.deadline_ms if claim.phase != "draining" and claim.deadline_ms is not None and claim.deadline_ms > now_ms else None


def moments(free: Free, known: Sequence[Claim], now_ms: int) -> Iterator[tuple[int, Free]]:
    """Yield each moment at which a claim with a known end is gone, with what is then taken; now first."""
    yield now_ms, free
    for index, claim in enumerate(known):
        free = free.give(claim.id, claim.grant)
        last = index + 1 == len(known) or known[index + 1].deadline_ms != claim.deadline_ms
        if last and claim.deadline_ms is not None:
            yield claim.deadline_ms, free


def endings(free: Free, claims: Sequence[Claim]) -> Iterator[Free]:
    """Yield what is taken after each possible set of endings of some claims, the empty set first."""
    for number in range(len(claims) + 1):
        for gone in combinations(claims, number):
            later = free
            for claim in gone:
                later = later.give(claim.id, claim.grant)
            yield later
