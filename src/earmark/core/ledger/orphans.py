"""Allocations that an outer ledger has and nobody here may stand behind: which to keep, which to take back (A7, S25).

Rules of this file: pure; nothing is taken back at the first look at a new node; who is unknown is kept for a grace time, since it may be on its way;
an open move keeps what it names. Each verdict says why.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

from earmark.core.ledger.consumer import ConsumerState
from earmark.core.ledger.state import NodeState
from earmark.core.model.ids import ConsumerId, MoveId


class Held(NamedTuple):
    """An allocation on a node's provider as the outer ledger has it: under which name, and since when it is known here (milliseconds)."""

    holder: str
    first_seen_ms: int


class Verdict(NamedTuple):
    """What is to become of an allocation, and why."""

    holder: str
    keep: bool
    why: str


class Known(NamedTuple):
    """What is known beyond the node: consumers by id and by their instance's uuid, all moves, and who holds a claim on any node."""

    consumers: Mapping[str, ConsumerState]
    moves: Mapping[MoveId, Literal["open", "over"]]
    holding: frozenset[ConsumerId]


def known_of(states: Iterable[NodeState], consumers: Iterable[ConsumerState]) -> Known:
    """Return what the ledger as a whole knows of holders."""
    named: dict[str, ConsumerState] = {}
    moves: dict[MoveId, Literal["open", "over"]] = {}
    for state in consumers:
        named.setdefault(state.instance.uuid, state)
        named[state.consumer] = state
        moves |= {move.id: "over" for move in state.moves}
        if state.move is not None:
            moves[state.move.id] = "open"
    holding = frozenset(claim.consumer for state in states for claim in state.claims.values())
    return Known(named, moves, holding)


def judge_allocations(
    node: NodeState, allocations: Iterable[Held], known: Known, *, now_ms: int, grace_ms: int, first_audit: bool = False
) -> tuple[Verdict, ...]:
    """Return what is to become of each allocation on a node's provider, in order of the holder's name."""
    here = {str(claim.consumer) for claim in node.claims.values()} | {str(claim.move) for claim in node.claims.values() if claim.move}
    return tuple(
        _judged(node, each, known, here, now_ms=now_ms, grace_ms=grace_ms, first_audit=first_audit)
        for each in sorted(allocations, key=lambda each: each.holder)
    )


def _judged(
    node: NodeState, held: Held, known: Known, here: set[str], *, now_ms: int, grace_ms: int, first_audit: bool
) -> Verdict:  # fmt: skip
    who = held.holder
    state = known.consumers.get(who)
    name = str(state.consumer) if state is not None else who
    if who in here or name in here:
        return Verdict(who, keep=True, why="it holds a claim here")
    if first_audit:
        return Verdict(who, keep=True, why=f"node {node.name} is looked at for the first time")
    move = known.moves.get(MoveId(who))
    if move is not None:
        return Verdict(who, keep=move == "open", why="its move is open" if move == "open" else "its move is over")
    if state is not None and state.instance.state == "deleted":
        return Verdict(who, keep=False, why="it is deleted")
    if state is not None and state.move is not None and node.node in state.move.nodes:
        return Verdict(who, keep=True, why=f"its move {state.move.id} is open")
    if ConsumerId(name) in known.holding:
        return Verdict(who, keep=False, why="it lives on another node, and no move of it is open here")
    if state is not None:
        return Verdict(who, keep=True, why="it is known and was placed nowhere yet")
    unknown_ms = now_ms - held.first_seen_ms
    if unknown_ms < grace_ms:
        return Verdict(who, keep=True, why=f"nobody knows it; it is kept for {grace_ms - unknown_ms} ms more")
    return Verdict(who, keep=False, why=f"nobody has known it for {unknown_ms} ms")
