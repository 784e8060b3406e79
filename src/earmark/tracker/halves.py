"""Moves between two ledgers: each knows its half, a token ties them.

Rules of this file: the source leg never expires; the destination leg may, but not while one of its holders is seen alive; that one consumer has one
main claim is not promised over two ledgers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from earmark.core.ledger import life_commands as lc
from earmark.core.ledger.kept import page_sizes
from earmark.core.ledger.state import NodeState
from earmark.core.model import ids
from earmark.core.model.claim import Holder
from earmark.core.model.grant import Grant
from earmark.core.model.instance import MoveKind
from earmark.core.model.request import Request
from earmark.core.model.token import Half, from_token, to_token
from earmark.errors import InvalidRequest, UnknownClaim
from earmark.tracker.fresh import new_claim, new_move

if TYPE_CHECKING:
    from earmark.tracker.lives import Lives


def out_command(tracker: Lives, consumer: str, kind: MoveKind, request: Request | None) -> lc.OpenMove:
    """Return the command that opens the source half of a move; a half that is open already is opened again with its own token."""
    claims = [claim for claim in tracker.claims_of(consumer) if claim.phase != "draining" and claim.purpose in ("main", "attach")]
    main = next((claim for claim in claims if claim.purpose == "main"), None)
    if main is None:
        raise UnknownClaim(f"consumer {consumer} holds no main claim that could be moved", found=consumer)
    if kind != "resize" and request is not None and request != main.request:
        raise InvalidRequest(f"a {kind.replace('_', ' ')} carries what there is; a resize changes it", claim=main.id)
    moved = [main, *(claim for claim in claims if claim.purpose == "attach" and claim.node == main.node)]
    known = tracker.instance_or_none(main.consumer)
    open_move = known.move if known is not None else None
    uuid = known.instance.uuid if known is not None else tracker.uuid_for(main.consumer)
    move = open_move.id if open_move is not None and open_move.destination is None else new_move()
    wanted = tuple((request or claim.request) if claim is main else claim.request for claim in moved)
    half = Half(
        ledger=tracker.store.ledger_id, move=move, kind=kind, consumer=main.consumer, owner=main.owner, uuid=uuid, node=main.node,
        claims=tuple(claim.id for claim in moved), requests=wanted, page_kib=next(iter(page_sizes(main.grant)), None),
    )  # fmt: skip
    plans = tuple(lc.LegPlan(source=claim.id, destination=None, purpose=claim.purpose) for claim in moved)
    return lc.OpenMove(
        consumer=main.consumer, nodes=(main.node,), move=move, kind=kind, source=main.node, destination=None, legs=plans, owner=main.owner,
        uuid=uuid, token=to_token(half),
    )  # fmt: skip


def in_command(
    tracker: Lives, token: str, state: NodeState, ttl_ms: int | None, grant: Grant | None, holders: Sequence[Holder]
) -> lc.OpenMove:  # fmt: skip
    """Return the command that holds the destination half of a move; raises InvalidRecord for a token that is none."""
    half = from_token(token)
    if half.ledger == tracker.store.ledger_id:
        raise InvalidRequest("this move began in this very ledger; move the consumer to another node of it instead", move=half.move)
    if ttl_ms is not None and ttl_ms <= 0:
        raise InvalidRequest(f"a leg cannot live {ttl_ms} ms", ttl_ms=ttl_ms)
    ids.move_id(half.move)
    plans = tuple(
        lc.LegPlan(source=None, destination=new_claim(), request=request, grant=grant if number == 0 else None)
        for number, request in enumerate(half.requests)
    )
    deadline_ms = None if ttl_ms is None else max(tracker.clock.now_ms(), state.at_ms) + ttl_ms
    return lc.OpenMove(
        consumer=ids_consumer(half), nodes=(state.node,), move=half.move, kind=half.kind, source=None, destination=state.node, legs=plans,
        owner=half.owner, uuid=ids.node_id(half.uuid), deadline_ms=deadline_ms, holders=tuple(holders), token=token.strip(),
        page_kib=half.page_kib,
    )  # fmt: skip


def ids_consumer(half: Half) -> ids.ConsumerId:
    """Return the consumer of a half, checked; raises InvalidRequest."""
    return ids.ConsumerId(ids.name(half.consumer, "consumer"))
