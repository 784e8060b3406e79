"""The last look at a node's guests: who is seen running there, so that time alone ends no leg of a move that is in use.

Rules of this file: a look is an observation, kept beside the ledger and bounded; a complete look replaces what was seen, a partial one adds to it,
since it says nothing of who is not in it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import msgspec
from msgspec import Meta

from earmark.core.ledger.codec import NOT_JSON
from earmark.core.model.claim import Moment
from earmark.core.model.guest import GUESTS_MAX
from earmark.core.model.ids import ConsumerId, NodeId, StreamId
from earmark.core.model.value import Value
from earmark.logs import log
from earmark.stores.contract import Reader, Transaction


class Look(Value, frozen=True):
    """Whom the node's driver sees there, by name, since `at_ms`; `complete`: the last look was at all guests."""

    at_ms: Moment
    consumers: Annotated[tuple[ConsumerId, ...], Meta(max_length=GUESTS_MAX)] = ()
    complete: bool = False


_looks = msgspec.json.Decoder(Look)


def look_stream(node: NodeId) -> StreamId:
    """Return under which name the looks at a node's guests are kept, beside those at its machine."""
    return StreamId("guests:" + node)


def last_look(reader: Reader, node: NodeId) -> Look | None:
    """Return the last look at a node's guests, None if there was none, or none that this program can read (that is logged)."""
    raw = reader.observation(look_stream(node))
    if raw is None:
        return None
    try:
        return _looks.decode(raw)
    except NOT_JSON:
        log("look.unreadable", level="warning", node=node)
        return None


def keep_look(tx: Transaction, node: NodeId, seen: Iterable[ConsumerId], now_ms: int, *, complete: bool) -> Look:
    """Keep a look at a node's guests and return it; one that shows what the last one showed is not written again."""
    old = last_look(tx, node)
    known = set(old.consumers) if old is not None and not complete else set()
    room = GUESTS_MAX - len(found := set(seen))
    consumers = tuple(sorted(found | set(sorted(known - found)[:room])))
    if old is not None and (old.consumers, old.complete) == (consumers, complete):
        return old
    look = Look(at_ms=now_ms, consumers=consumers, complete=complete)
    tx.put_observation(look_stream(node), now_ms, msgspec.json.encode(look))
    return look
