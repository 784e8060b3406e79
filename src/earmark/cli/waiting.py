"""`--wait`: a place in the line of a node, kept until it is this command's turn.

Rules of this file: a ticket is given up on every way out; the ticket of a waiter that is proven gone is dropped by whoever stands behind it;
the ledger is asked again in short steps, which also lets deaths and deadlines take effect.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from earmark.core.ledger.commands import Answer
from earmark.core.ledger.turns import Waiter, could_ever_fit, turn
from earmark.core.model.claim import Holder
from earmark.core.model.refusal import Refusal
from earmark.core.model.request import Request

if TYPE_CHECKING:
    from earmark.stores.contract import Ticket
    from earmark.tracker.tracker import Tracker

HEAD_STEP_S = 0.1
LINE_STEP_S = 0.4
"""How often the head of the line asks the ledger again, and how often those behind it do."""


class Patience(NamedTuple):
    """How to wait: `timeout_s` None is for ever; `skip_ahead` starts before the head of the line where it does not start later for it."""

    timeout_s: float | None
    skip_ahead: bool = False


def hold_in_turn(
    tracker: Tracker, request: Request, attempt: Callable[[], Answer | Refusal], patience: Patience, *, owner: str | None,
    ttl_ms: int | None, tell: Callable[[int], None],
) -> Answer | Refusal:  # fmt: skip
    """Take a ticket, wait for its turn, and return the answer of `attempt`; after the time-out, its last refusal.

    A request that does not fit even on the empty node is refused at once. `tell` is called with the number of those ahead, whenever it
    changes.
    """
    never = could_ever_fit(request, tracker.node())
    if isinstance(never, Refusal):
        return never
    until = None if patience.timeout_s is None else tracker.clock.monotonic_s() + patience.timeout_s
    ticket = tracker.take_ticket(request, tracker.holder(os.getpid()), owner=owner)
    told: int | None = None
    try:
        while True:
            mine = turn(
                waiters(tracker, ticket), ticket.number, tracker.node(), now_ms=tracker.clock.now_ms(), skip_ahead=patience.skip_ahead,
                end_ms=None if ttl_ms is None else tracker.clock.now_ms() + ttl_ms,
            )  # fmt: skip
            answer = attempt() if mine.now else None
            if isinstance(answer, Answer):
                return answer
            over = until is not None and tracker.clock.monotonic_s() >= until
            if over:
                return answer or last_word(tracker, request)
            if mine.ahead != told:
                told = mine.ahead
                tell(mine.ahead)
            step_s = LINE_STEP_S if mine.ahead else HEAD_STEP_S
            time.sleep(step_s if until is None else max(0.0, min(step_s, until - tracker.clock.monotonic_s())))
            tracker.sweep()
    finally:
        tracker.drop_ticket(ticket)


def last_word(tracker: Tracker, request: Request) -> Refusal:
    """Return why a request that waited in vain was not started: what it lacks, or that others stand ahead."""
    found = tracker.fit(request)
    if isinstance(found, Refusal):
        return found
    from earmark.core.model.refusal import Reason  # noqa: PLC0415 - beside its only use

    ahead = "it fits, but others have waited longer; see --skip-ahead"
    return Refusal(reasons=(Reason(code="node_closed", resource="turn", detail=ahead),), node=tracker.node().name)


def waiters(tracker: Tracker, mine: Ticket) -> list[Waiter]:
    """Return who waits up to and with this ticket; the tickets of processes that are proven gone are dropped."""
    found = []
    for ticket in tracker.tickets():
        if ticket.number < mine.number and tracker.gone((msgspec.json.decode(ticket.holder, type=Holder),)):
            tracker.drop_ticket(ticket)
        elif ticket.number <= mine.number:
            found.append(Waiter(ticket.number, wish(ticket)))
    return found


def wish(ticket: Ticket) -> Request | None:
    """Return what a waiter wants, None if this program cannot read it."""
    try:
        return msgspec.json.decode(ticket.request, type=Request)
    except msgspec.DecodeError:
        return None
