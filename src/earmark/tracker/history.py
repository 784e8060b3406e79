"""The ledger looked at whole: as it was at a time, against itself, and link by link.

Rules of this file: nothing here writes; each answer is computed from the events, and what is kept beside them (snapshots, guard rows) is compared with
that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

from earmark.core.ledger.audit import audit_consumers, audit_node
from earmark.core.ledger.audit_moves import audit_moves, legs_looked_at
from earmark.core.ledger.codec import Envelope, Head, Stored, check_link, open_envelope, open_event
from earmark.core.ledger.consumer import ConsumerState, advance_consumer
from earmark.core.ledger.events import Event
from earmark.core.ledger.fold import advance
from earmark.core.ledger.moves import Fate
from earmark.core.ledger.rows import SlotRow
from earmark.core.ledger.state import FOLD_VERSION, NodeState
from earmark.core.model.finding import Finding
from earmark.core.model.ids import ClaimId, NodeId, StreamId, node_stream
from earmark.errors import ChainBroken, InvalidRecord, LedgerBroken, UnknownNode
from earmark.stores.contract import ClaimRow, Reader, Store
from earmark.tracker import snapshots
from earmark.tracker.snapshots import folded

NODE_PREFIX = "node:"
CONSUMER_PREFIX = "consumer:"
State = NodeState | ConsumerState


class Verified(NamedTuple):
    """What verifying found: events checked per stream, and everything that does not hold."""

    events: dict[StreamId, int]
    findings: tuple[Finding, ...]


class Replay:
    """Folds the events of an import as they come, so that what nothing can follow from is refused before it is in the ledger."""

    def __init__(self) -> None:
        self._states: dict[StreamId, NodeState] = {}
        self._consumers: dict[StreamId, ConsumerState] = {}

    def __call__(self, stored: Stored, envelope: Envelope, event: Event) -> None:
        """Fold one event in; raises LedgerBroken if it cannot follow the ones before it."""
        head = Head(envelope.sequence, envelope.epoch, envelope.at_ms, stored.hash)
        if stored.stream.startswith(NODE_PREFIX):
            self._states[stored.stream] = advance(self._states.get(stored.stream), event, head, envelope.boot_id)
        elif stored.stream.startswith(CONSUMER_PREFIX):
            self._consumers[stored.stream] = advance_consumer(self._consumers.get(stored.stream), event, head)


def state_at(store: Store, node: NodeId, time_ms: int) -> NodeState:
    """Return a node as it was at a time (milliseconds since the epoch), from the nearest snapshot before it; raises UnknownNode."""
    stream = node_stream(node)
    with store.reading() as reader:
        kept = snapshots.newest(reader, stream, at_most_ms=time_ms)
        state = kept if isinstance(kept, NodeState) else None
        while page := reader.read(stream, state.sequence if state is not None else 0):
            for stored in page:
                envelope = open_envelope(stored.raw)
                if envelope.at_ms > time_ms:
                    return _known(state, node, store)
                head = Head(envelope.sequence, envelope.epoch, envelope.at_ms, stored.hash)
                state = advance(state, open_event(envelope), head, envelope.boot_id)
    return _known(state, node, store)


def _known(state: NodeState | None, node: NodeId, store: Store) -> NodeState:
    if state is None:
        raise UnknownNode(f"node {node} was not yet in {store.name} at that time (or its events of then are archived)", node=node)
    return state


class Rows(Protocol):
    """The rows that guard a ledger, as its stores give them."""

    def slots(self, stream: StreamId) -> Sequence[SlotRow]:
        """Return the guard rows of a node."""

    def claim(self, claim: ClaimId) -> ClaimRow | None:
        """Return the row of a claim, None if it never was."""


def audit(store: Store) -> tuple[Finding, ...]:
    """Return what contradicts what in the ledger as it stands: states, derived figures, guard rows, main claims, moves."""
    return tuple(findings(store))


def findings(store: Store) -> Iterator[Finding]:
    """Yield what contradicts what, over one view of the ledger."""
    with store.reading() as reader:
        yield from judged(reader, replayed(reader))


def replayed(reader: Reader) -> Iterator[tuple[StreamId, State | Finding]]:
    """Yield the state of every stream, or what is wrong with one that cannot be read: a broken stream stands in no other's way (W11)."""
    for stream in _streams(reader):
        try:
            state = replay(reader, stream)
        except (InvalidRecord, LedgerBroken) as error:
            yield stream, Finding(code="chain", severity="error", detail=f"{stream}: {error}")
        else:
            if state is not None:
                yield stream, state


def judged(rows: Rows, seen: Iterable[tuple[StreamId, State | Finding]]) -> Iterator[Finding]:
    """Yield what contradicts what in some states and the rows that guard them: each by itself, then all together."""
    states: list[State] = []
    for stream, state in seen:
        if isinstance(state, Finding):
            yield state
        else:
            states.append(state)
            yield from _node(rows, stream, state)
    yield from _together(rows, states)


def _node(rows: Rows, stream: StreamId, state: State) -> list[Finding]:
    """Hold one node against itself and its guard rows."""
    if isinstance(state, ConsumerState):
        return []
    return [*audit_node(state, rows.slots(stream)), *_rows(rows, stream, state)]


def _together(rows: Rows, states: list[State]) -> list[Finding]:
    """Hold all streams against each other."""
    nodes = [state for state in states if isinstance(state, NodeState)]
    consumers = [state for state in states if isinstance(state, ConsumerState)]
    legs = (rows.claim(claim) for claim in legs_looked_at(consumers))
    ended = {row.claim: Fate(None, row.purpose, row.cause) for row in legs if row is not None and row.cause is not None}
    return [*audit_consumers(nodes), *audit_moves(nodes, consumers, ended)]


def _rows(rows: Rows, stream: StreamId, state: NodeState) -> list[Finding]:
    """Compare the claim rows of the live claims with the state."""
    found = []
    for claim in state.live():
        row = rows.claim(claim.id)
        if row is None or row.cause is not None or row.stream != stream or row.consumer != claim.consumer or row.purpose != claim.purpose:
            detail = f"claim {claim.id} is live and its row says {row}"
            found.append(Finding(code="guard_drift", severity="error", node=state.node, claim=claim.id, detail=detail))
    for quarantine in state.quarantines.values():
        row = rows.claim(quarantine.claim)
        if row is None or row.cause is None:
            detail = f"claim {quarantine.claim} is in quarantine and its row says {row}"
            found.append(Finding(code="guard_drift", severity="error", node=state.node, claim=quarantine.claim, detail=detail))
    return found


def replay(reader: Reader, stream: StreamId) -> State | None:
    """Return a stream's state from the newest usable snapshot and the events after it."""
    state = snapshots.newest(reader, stream)
    while page := reader.read(stream, state.sequence if state is not None else 0):
        state = folded(stream, state, list(page))
    return state


def verify(store: Store) -> Verified:
    """Check every link of every chain, replay everything, and compare the result with snapshots, heads and guard rows."""
    counts: dict[StreamId, int] = {}
    found: list[Finding] = []
    states: list[State] = []
    with store.reading() as reader:
        for stream in _streams(reader):
            try:
                counts[stream], state = _verify_stream(store, reader, stream)
            except (ChainBroken, InvalidRecord, LedgerBroken) as error:
                found.append(Finding(code="chain", severity="error", detail=f"{stream}: {error}"))
                continue
            states.append(state)
            found += _node(reader, stream, state)
            found += _snapshots(reader, stream, state, store.archived(stream))
        found += _together(reader, states)
    return Verified(counts, tuple(found))


def _verify_stream(store: Store, reader: Reader, stream: StreamId) -> tuple[int, State]:
    base = store.archived(stream)
    state: State | None = None
    head = Head()
    if base is not None:
        head = base
        snapshot = reader.snapshot(stream, at_most_sequence=base.sequence)
        if snapshot is None or snapshot.sequence != base.sequence or snapshot.hash != base.hash:
            raise ChainBroken(f"{stream} is sealed at {base.sequence} and has no snapshot there", stream=stream)
        state = snapshots.opened(snapshot, older=True)
        if state is None:
            raise ChainBroken(f"{stream} is sealed at {base.sequence} and its snapshot there cannot be read", stream=stream)
    count = 0
    while page := reader.read(stream, head.sequence):
        for stored in page:
            head = check_link(stored, head)
        state = folded(stream, state, list(page))
        count += len(page)
    if reader.head(stream) != head:
        raise ChainBroken(f"{stream} ends at {head.sequence} and its head says {reader.head(stream).sequence}", stream=stream)
    if state is None:
        raise ChainBroken(f"{stream} has no events", stream=stream)
    return count, state


def _snapshots(reader: Reader, stream: StreamId, final: State, base: Head | None) -> list[Finding]:
    """Say whether the newest snapshot is what the events up to it fold to (replayed from the one before, or from the start)."""
    newest = reader.snapshot(stream)
    if newest is None or newest.fold_version != FOLD_VERSION or (base is not None and newest.sequence <= base.sequence):
        return []
    state = snapshots.newest(reader, stream, at_most_sequence=newest.sequence - 1)
    for stored in _until(reader, stream, state.sequence if state is not None else 0, newest.sequence):
        state = folded(stream, state, [stored])
    if state is None or snapshots.snapshot_of(stream, state, 0).image != newest.image:
        detail = f"the snapshot at {newest.sequence} of {stream} is not what its events fold to"
        return [Finding(code="snapshot_drift", severity="error", node=final.node if isinstance(final, NodeState) else None, detail=detail)]
    return []


def _until(reader: Reader, stream: StreamId, after: int, last: int) -> Iterator[Stored]:
    while after < last and (page := reader.read(stream, after)):
        for stored in page:
            if stored.sequence > last:
                return
            yield stored
        after = page[-1].sequence


def _streams(reader: Reader) -> list[StreamId]:
    return [stream for stream in sorted(reader.heads()) if stream.startswith((NODE_PREFIX, CONSUMER_PREFIX))]
