"""What must be true after every step of every scenario, whatever it is about (I1-I6).

Rules of this file: each law is computed here once more, from the claims and the events alone, and compared with what the tracker says.
"""

from __future__ import annotations

from typing import NamedTuple

from earmark.core.ledger.codec import Head, open_envelope, open_event
from earmark.core.ledger.consumer import ConsumerState, fold_consumer
from earmark.core.ledger.events import FindingsChanged
from earmark.core.ledger.figures import figures
from earmark.core.ledger.fold import fold
from earmark.core.ledger.state import NodeState, decode_image, encode_image
from earmark.core.model.ids import ConsumerId, NodeId, Slot, StreamId
from earmark.core.model.units import GIB, MIB
from earmark.errors import EarmarkError
from earmark.scenario.world import World

NODE_PREFIX = "node:"
CONSUMER_PREFIX = "consumer:"
PAGES_PREFIX = "pages:"


class Tally(NamedTuple):
    """What is in use on a node: vCPUs, memory and disk in bytes, each with what is reserved."""

    vcpus: int
    memory_bytes: int
    disk_bytes: int

    @property
    def figure(self) -> tuple[int, int, int]:
        """The same as vCPUs, MB, GB; memory and disk rounded up once for the node."""
        return self.vcpus, -(-self.memory_bytes // MIB), -(-self.disk_bytes // GIB)


def heads(world: World) -> dict[StreamId, Head]:
    """Return where every stream of the ledger ends."""
    return dict(world.book.inner.heads())


def grown(world: World, before: dict[StreamId, Head]) -> bool:
    """Say whether anything came into the ledger since, but findings: what was found to be contradictory is remembered and changes no book."""
    store = world.book.inner
    for stream, head in heads(world).items():
        for stored in store.read(stream, before.get(stream, Head()).sequence) if before.get(stream) != head else ():
            if not isinstance(open_event(open_envelope(stored.raw)), FindingsChanged):
                return True
    return False


def tally(state: NodeState) -> Tally:
    """Return what is in use on a node, added up from what is reserved, its live claims and its quarantines (I1)."""
    vcpus = state.settings.reserved_host_cpus
    memory = state.layout.memory.reserved if state.layout is not None else 0
    disk = sum(each.reserved for each in state.layout.disks.values()) if state.layout is not None else 0
    for _, grant in state.grants():
        vcpus += sum(row.use == "vcpu" for row in grant.units)
        for row in grant.amounts:
            kind, *rest = row.pool.split(":")
            if kind == "vcpu":
                vcpus += row.amount
            elif kind == "memory":
                memory += row.amount
            elif kind == "pages":
                memory += row.amount * int(rest[1]) * 1024
            elif kind == "disk":
                disk += row.amount
    return Tally(vcpus, memory, disk)


def broken_laws(world: World) -> list[str]:
    """Return which laws do not hold now, each in a sentence; none if all do, or before the first node is there."""
    if not world.ready:
        return []
    try:
        return _broken(world)
    except EarmarkError as error:
        return [f"the ledger cannot be looked at: {error.code}: {error.message}"]


def _broken(world: World) -> list[str]:
    found: list[str] = []
    states = world.states()
    for name, state in states.items():
        found += _one_holder(name, state)
        found += _sums(name, state)
    found += _one_main(states)
    found += _audited(world, states)
    found += _rebuilt(world, states)
    return found


def _one_holder(name: str, state: NodeState) -> list[str]:
    """I2: a CPU, device, page or named unit belongs to at most one holder."""
    holders: dict[Slot, str] = {}
    found = []
    rows = [(claim.id, claim.grant) for claim in state.live()] + [(each.claim, each.grant) for each in state.quarantines.values()]
    for claim, grant in rows:
        for row in grant.units:
            for slot in row.occupied:
                first = holders.setdefault(slot, claim)
                if first != claim:
                    found.append(f"I2: {row.unit} of {name} belongs to {first} and to {claim}")
    return found


def _sums(name: str, state: NodeState) -> list[str]:
    """I1: what the node says is used is what its claims add up to; pages are never given twice."""
    sums: dict[str, int] = {}
    for _, grant in state.grants():
        for row in grant.amounts:
            sums[row.pool] = sums.get(row.pool, 0) + row.amount
    found = []
    shown = figures(state)
    if Tally(shown.vcpus, shown.memory_bytes, shown.disk_bytes) != tally(state):
        found.append(f"I1: {name} shows {shown.text}, its claims add up to {'/'.join(map(str, tally(state).figure))}")
    said = {pool: amount for pool, amount in state.free.used.items() if amount}
    if said != sums:
        found.append(f"I1: {name} says that {said} is in use, its claims add up to {sums}")
    if state.layout is not None:
        for pool, (_, stock) in state.layout.pages.items():
            if sums.get(pool, 0) > stock.total:
                found.append(f"I2: {sums[pool]} of {stock.total} pages of {pool} on {name} are held")
    return found


def _one_main(states: dict[str, NodeState]) -> list[str]:
    """No consumer holds two main claims."""
    mains: dict[ConsumerId, str] = {}
    found = []
    for state in states.values():
        for claim in state.live():
            if claim.purpose == "main" and claim.phase != "draining":
                first = mains.setdefault(claim.consumer, claim.id)
                if first != claim.id:
                    found.append(f"I2: {claim.consumer} holds two main claims, {first} and {claim.id}")
    return found


def _audited(world: World, states: dict[str, NodeState]) -> list[str]:
    """I3: an audit finds no error, and leaves everything as it was."""
    before = heads(world)
    findings = world.tracker.verify().findings  # what an audit looks at, and every link and replay besides
    found = [f"I3: the audit finds {one.code}: {one.detail}" for one in findings if one.severity == "error"]
    if heads(world) != before or world.states() != states:
        found.append("I3: the audit changed the ledger")
    return found


def _rebuilt(world: World, states: dict[str, NodeState]) -> list[str]:
    """I6: another process, the fold of all events, and the image of a snapshot each give the states that the tracker has."""
    found = []
    other = world.second()
    nodes = {state.node: name for name, state in states.items()}
    for stream in heads(world):
        local = stream.partition(":")[2]
        if stream.startswith(NODE_PREFIX):
            mine: NodeState | ConsumerState | None = states.get(nodes.get(NodeId(local), ""))
            theirs: NodeState | ConsumerState | None = other.node(local)
        elif stream.startswith(CONSUMER_PREFIX):
            mine, theirs = world.consumer(local), other.instance(local)
        else:
            continue
        events = world.book.inner.read(stream)
        folded: NodeState | ConsumerState | None = fold(None, events) if stream.startswith(NODE_PREFIX) else fold_consumer(None, events)
        if mine != theirs or mine != folded:
            found.append(f"I6: {stream} rebuilt from the ledger is not what the tracker has")
        if isinstance(mine, NodeState) and decode_image(encode_image(mine)) != mine:
            found.append(f"I6: the image of {stream} is not the state that it was made of")
    return found
