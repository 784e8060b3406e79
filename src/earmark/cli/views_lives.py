"""From instances and moves to the shapes of `--json`, which the lines for people are made from too.

Rules of this file: nothing is decided here; what a leg holds is read from its live claim, how it ended from the claim's row.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from earmark.cli import output_lives as o
from earmark.cli.session import Session
from earmark.cli.views import claim_out, maybe, when
from earmark.core.ledger.consumer import ConsumerState
from earmark.core.ledger.figures import amounts_of
from earmark.core.ledger.life_commands import LifeAnswer
from earmark.core.ledger.story import describe
from earmark.core.model.claim import Claim
from earmark.core.model.grant import Grant
from earmark.core.model.ids import NodeId
from earmark.core.model.instance import Leg, LegPair, Move

NOWHERE = o.LegOut(
    node=None, node_name=None, claim=None, state="in another ledger", cause=None, vcpus=None, cpus=[], memory_bytes=None, disk_bytes=None,
    devices=[], passes=[], holds=None, since=None, until=None,
)  # fmt: skip
"""A leg that this ledger knows nothing of."""


def node_name(session: Session, node: str) -> str:
    """Return a node's name."""
    return session.tracker.node(node).name


def devices_of(grant: Grant) -> list[str]:
    """Return the devices of a grant."""
    return sorted(row.unit for row in grant.units if not row.unit.startswith("cpu:"))


def leg_out(session: Session, leg: Leg | None, live: dict[str, Claim]) -> o.LegOut:
    """Return one leg of a move; `live` are the consumer's claims by id."""
    if leg is None:
        return NOWHERE
    name = node_name(session, leg.node)
    claim = live.get(leg.claim)
    if claim is None:
        row = session.tracker.store.claim(leg.claim)
        cause = row.cause if row is not None else None
        return o.LegOut(
            node=leg.node, node_name=name, claim=leg.claim, state="ended", cause=cause, vcpus=None, cpus=[], memory_bytes=None,
            disk_bytes=None, devices=[], passes=[], holds=None, since=None, until=None,
        )  # fmt: skip
    used = amounts_of([claim.grant])
    return o.LegOut(
        node=leg.node, node_name=name, claim=leg.claim, state=claim.phase, cause=claim.cause, vcpus=used.vcpus,
        cpus=list(claim.grant.cpus), memory_bytes=used.memory_bytes, disk_bytes=used.disk_bytes, devices=devices_of(claim.grant),
        passes=list(claim.named), holds=describe(claim.grant), since=when(claim.held_at_ms), until=maybe(claim.deadline_ms),
    )  # fmt: skip


def move_out(session: Session, move: Move) -> o.MoveOut:
    """Return a move with what its legs are now."""
    live = {str(claim.id): claim for claim in session.tracker.claims_of(move.consumer)}
    pairs = [_pair(session, pair, live, first=number == 0) for number, pair in enumerate(move.legs)]
    return o.MoveOut(
        id=move.id, consumer=move.consumer, kind=move.kind, status=session.tracker.move_status(move), opened_at=when(move.opened_at_ms),
        ended_at=maybe(move.ended_at_ms), legs=pairs, token=move.token,
    )  # fmt: skip


def _pair(session: Session, pair: LegPair, live: dict[str, Claim], *, first: bool) -> o.LegPairOut:
    return o.LegPairOut(
        purpose="main" if first else "attach", source=leg_out(session, pair.source, live), destination=leg_out(session, pair.destination, live)
    )  # fmt: skip


def instance_out(session: Session, state: ConsumerState) -> o.InstanceOut:
    """Return an instance with all that it holds now, its open move and its ended ones."""
    tracker, instance = session.tracker, state.instance
    claims = tracker.claims_of(state.consumer)
    return o.InstanceOut(
        consumer=state.consumer, uuid=instance.uuid, name=instance.name, owner=instance.owner, kind=instance.kind,
        labels=dict(instance.labels), state=instance.state, task=instance.task, created_at=when(instance.created_at_ms),
        reported_at=when(instance.reported_at_ms), nodes=names_of(session, claims),
        claims=[claim_out(claim, node_name(session, claim.node)) for claim in claims],
        move=None if state.move is None else move_out(session, state.move), moves=[move_out(session, move) for move in state.moves],
    )  # fmt: skip


def names_of(session: Session, claims: Sequence[Claim]) -> list[str]:
    """Return the names of the nodes that some claims are on, each once."""
    nodes: list[NodeId] = list(dict.fromkeys(claim.node for claim in claims))
    return [node_name(session, node) for node in nodes]


def freed(session: Session, answer: LifeAnswer, before: Sequence[Claim]) -> list[o.FreedOut]:
    """Return which of the claims that were there before a command it ended, or let drain, and what of them is in quarantine since.

    Units that passed to another claim are not freed.
    """
    now = {claim.id: claim for claim in session.tracker.claims_of(answer.consumer)}
    kept = {(claim.node, row.unit) for claim in now.values() if claim.phase != "draining" for row in claim.grant.units}
    found = []
    for claim in before:
        left = now.get(claim.id)
        if claim.id not in answer.touched or (left is not None and (left.phase != "draining" or claim.phase == "draining")):
            continue
        state = session.tracker.node(claim.node)
        quarantine = state.quarantines.get(claim.id)
        stays = {row.unit for row in quarantine.grant.units} if quarantine is not None else set()
        units = tuple(row for row in claim.grant.units if (claim.node, row.unit) not in kept and row.unit not in stays)
        parts = [(replace(claim.grant, units=units), "ended" if left is None else "draining")]
        parts += [(quarantine.grant, "quarantined")] if quarantine is not None else []
        found += [
            o.FreedOut(claim=claim.id, node=claim.node, node_name=state.name, holds=describe(grant), state=how)
            for grant, how in parts
            if how != "ended" or not stays or grant.units or grant.amounts
        ]
    return found


def life_out(session: Session, answer: LifeAnswer, before: Sequence[Claim] = ()) -> o.LifeOut:
    """Return the answer to a command about an instance or a move; `before` are the consumer's claims as they were."""
    known = session.tracker.instance_or_none(answer.consumer)
    return o.LifeOut(
        outcome=answer.outcome, changed=answer.changed, consumer=answer.consumer, message=answer.message, touched=list(answer.touched),
        freed=freed(session, answer, before), instance=None if known is None else instance_out(session, known),
        move=None if answer.move is None else move_out(session, answer.move),
    )  # fmt: skip
