"""Which node a name means, without folding every node's stream: names never change, so each is read once.

Rules of this file: the first event of a stream names its node, or, where that is archived, the oldest snapshot; a stream that cannot be read
names nothing here and is the auditor's business.
"""

from __future__ import annotations

from collections.abc import Collection

from earmark.core.ledger.codec import open_envelope, open_event
from earmark.core.ledger.events import NodeRegistered
from earmark.core.ledger.state import NodeState
from earmark.core.model.ids import NodeId, StreamId
from earmark.errors import InvalidRecord, LedgerBroken
from earmark.stores.contract import Reader
from earmark.tracker import snapshots

NODE_PREFIX = "node:"
NAMES_KEPT_MAX = 65_536
"""Names that a process remembers; further nodes are looked up each time."""


class NodeNames:
    """The names of the nodes of one ledger, as far as they were read."""

    def __init__(self) -> None:
        self._names: dict[StreamId, str] = {}
        self._nodes: dict[str, tuple[NodeId, ...]] = {}

    def named(self, reader: Reader, name: str, unsure: Collection[StreamId] = ()) -> tuple[NodeId, ...]:
        """Return the nodes of a name by id: remembered ones, else what a look at the streams not yet read gives.

        Streams that are `unsure` (of a commit to come) are read and not remembered.
        """
        known = self._nodes.get(name)
        if known is not None:
            return known
        found = []
        for stream in sorted(reader.heads()):
            if stream in self._names or not stream.startswith(NODE_PREFIX):
                continue
            node, read = NodeId(stream.removeprefix(NODE_PREFIX)), name_in(reader, stream)
            if read == name:
                found.append(node)
            if read is not None and stream not in unsure and len(self._names) < NAMES_KEPT_MAX:
                self._nodes[read] = tuple(sorted({*self._nodes.get(read, ()), node}))
                self._names[stream] = read
        return tuple(found)


def name_in(reader: Reader, stream: StreamId) -> str | None:
    """Return the name of a stream's node, None where it cannot be read."""
    try:
        for stored in reader.read(stream, 0, 1):
            event = open_event(open_envelope(stored.raw))
            if isinstance(event, NodeRegistered):
                return event.name
        state = snapshots.newest(reader, stream)
    except (InvalidRecord, LedgerBroken):
        return None
    return state.name if isinstance(state, NodeState) else None
