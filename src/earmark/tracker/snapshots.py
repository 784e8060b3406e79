"""Snapshots: states kept beside the events so that opening does not read them all.

Rules of this file: a snapshot is a help and never the truth; one that cannot be used (another fold's, torn, of another event) is passed over for an
older one, and what it spoiled is found by `verify`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from earmark.core.ledger.codec import Stored
from earmark.core.ledger.fold import fold
from earmark.core.ledger.state import FOLD_VERSION, FOLDS_READ, NodeState, decode_image, encode_image
from earmark.core.model.ids import StreamId
from earmark.errors import InvalidRecord
from earmark.stores.contract import Reader, Snapshot

if TYPE_CHECKING:
    from earmark.core.ledger.consumer import ConsumerState

    State = NodeState | ConsumerState

NODE_PREFIX = "node:"


def folded(stream: StreamId, known: State | None, page: list[Stored]) -> State | None:
    """Return the state of a stream of either kind after some more of its events."""
    if stream.startswith(NODE_PREFIX):
        return fold(known if isinstance(known, NodeState) else None, page)
    from earmark.core.ledger.consumer import fold_consumer  # noqa: PLC0415 - only where consumers are known by more than their claims

    return fold_consumer(None if isinstance(known, NodeState) else known, page)


def snapshot_of(stream: StreamId, state: State, position: int) -> Snapshot:
    """Return a snapshot of a state."""
    return Snapshot(stream, state.sequence, FOLD_VERSION, state.head.hash, position, image_of(state))


def image_of(state: State) -> bytes:
    """Return the image of a state of either kind."""
    if isinstance(state, NodeState):
        return encode_image(state)
    from earmark.core.ledger.consumer import encode_consumer  # noqa: PLC0415 - only where consumers are known by more than their claims

    return encode_consumer(state)


def state_in(stream: StreamId, image: bytes) -> State:
    """Return the state that an image of a stream of either kind holds; raises InvalidRecord."""
    if stream.startswith(NODE_PREFIX):
        return decode_image(image)
    from earmark.core.ledger.consumer import decode_consumer  # noqa: PLC0415 - only where consumers are known by more than their claims

    return decode_consumer(image)


def weight(state: State) -> int:
    """Return how many claims or moves an image of a state holds."""
    return len(state.claims) if isinstance(state, NodeState) else len(state.moves)


def opened(snapshot: Snapshot, *, older: bool = False) -> State | None:
    """Return the state that a snapshot holds, None if it is no state of that event by this fold; `older` folds may be allowed too."""
    if snapshot.fold_version != FOLD_VERSION and not (older and snapshot.fold_version in FOLDS_READ):
        return None
    try:
        state = state_in(snapshot.stream, snapshot.image)
    except InvalidRecord:
        return None
    return state if (state.sequence, state.head.hash) == (snapshot.sequence, snapshot.hash) else None


def newest(reader: Reader, stream: StreamId, *, at_most_sequence: int | None = None, at_most_ms: int | None = None) -> State | None:
    """Return the newest kept state of a stream that can be used, not past a sequence or a time; None if there is none."""
    base = reader.archived(stream)
    while (snapshot := reader.snapshot(stream, at_most_sequence=at_most_sequence)) is not None:
        state = opened(snapshot, older=base is not None and snapshot.sequence == base.sequence)
        if state is not None and (at_most_ms is None or state.at_ms <= at_most_ms):
            return state
        if snapshot.sequence <= 1:
            break
        at_most_sequence = snapshot.sequence - 1
    return None
