"""Snapshots: states kept beside the events so that opening does not read them all.

Rules of this file: a snapshot is a help and never the truth; one that cannot be used (another fold's, torn, of another event) is passed over for an
older one, and what it spoiled is found by `verify`.
"""

from __future__ import annotations

from earmark.core.ledger.consumer import ConsumerState, decode_consumer, encode_consumer
from earmark.core.ledger.state import FOLD_VERSION, FOLDS_READ, NodeState, decode_image, encode_image
from earmark.core.model.ids import StreamId
from earmark.errors import InvalidRecord
from earmark.stores.contract import Reader, Snapshot

NODE_PREFIX = "node:"


def snapshot_of(stream: StreamId, state: NodeState | ConsumerState, position: int) -> Snapshot:
    """Return a snapshot of a state."""
    image = encode_image(state) if isinstance(state, NodeState) else encode_consumer(state)
    return Snapshot(stream, state.sequence, FOLD_VERSION, state.head.hash, position, image)


def weight(state: NodeState | ConsumerState) -> int:
    """Return how many claims or moves an image of a state holds."""
    return len(state.claims) if isinstance(state, NodeState) else len(state.moves)


def opened(snapshot: Snapshot, *, older: bool = False) -> NodeState | ConsumerState | None:
    """Return the state that a snapshot holds, None if it is no state of that event by this fold; `older` folds may be allowed too."""
    if snapshot.fold_version != FOLD_VERSION and not (older and snapshot.fold_version in FOLDS_READ):
        return None
    try:
        node = snapshot.stream.startswith(NODE_PREFIX)
        state: NodeState | ConsumerState = decode_image(snapshot.image) if node else decode_consumer(snapshot.image)
    except InvalidRecord:
        return None
    return state if (state.sequence, state.head.hash) == (snapshot.sequence, snapshot.hash) else None


def newest(
    reader: Reader, stream: StreamId, *, at_most_sequence: int | None = None, at_most_ms: int | None = None
) -> NodeState | ConsumerState | None:
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
