"""Moving old events to an archive: which snapshot a stream is sealed at.

Rules of this file: only a state that verified is sealed; nothing is deleted before the archive file is durable (the store sees to that).
"""

from __future__ import annotations

from pathlib import Path

from earmark.core.ledger.state import FOLD_VERSION, encode_image
from earmark.core.model.ids import NodeId, node_stream
from earmark.errors import InvalidRequest, LedgerBroken, UnknownNode
from earmark.stores.contract import Snapshot
from earmark.tracker.tracker import Tracker


def seal_before(tracker: Tracker, node: NodeId, time_ms: int, archive: Path) -> int:
    """Move a node's events up to a time (milliseconds since the epoch) into a new file; returns how many, 0 if none is that old.

    Raises InvalidRequest if the file exists, LedgerBroken if the ledger does not verify.
    """
    if archive.exists():
        raise InvalidRequest(f"archive to {str(archive)!r}: the file is there already", found=str(archive))
    errors = [one for one in tracker.verify().findings if one.severity == "error"]
    if errors:
        raise LedgerBroken(f"nothing is archived: verify finds {errors[0].detail}", findings=len(errors))
    stream, store = node_stream(node), tracker.store
    base = store.archived(stream)
    try:
        state = tracker.at(time_ms, node)
    except UnknownNode:
        return 0
    if base is not None and state.sequence <= base.sequence:
        return 0
    last = store.read(stream, state.sequence - 1, 1)[0]
    snapshot = Snapshot(
        stream=stream, sequence=state.sequence, fold_version=FOLD_VERSION, hash=state.head.hash, position=last.position, image=encode_image(state)
    )  # fmt: skip
    with store.transaction(purpose="snapshot before archiving") as tx:
        tx.put_snapshot(snapshot)
    return store.seal(snapshot, archive)
