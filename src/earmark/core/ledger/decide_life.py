"""What commands about a consumer lead to: its record, its reported states, the end of its moves (their beginning: decide_move).

Rules of this file: pure; what is decided spans the consumer's stream and those of the nodes it is on, and is appended whole or not at all; a
command that comes twice or late is answered and changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

import immutables
import msgspec
from msgspec.structs import replace

from earmark.core.ledger import events as e
from earmark.core.ledger import life_commands as lc
from earmark.core.ledger.codec import Head
from earmark.core.ledger.consumer import ConsumerState, advance_consumer
from earmark.core.ledger.decision import about
from earmark.core.ledger.fold import advance
from earmark.core.ledger.life_decision import LifeDecision, LifeFacts, World
from earmark.core.ledger.moves import Fate, Fates, status_of
from earmark.core.ledger.one_use import with_used_up
from earmark.core.ledger.state import NodeState
from earmark.core.model.claim import Cause, Claim, Holder, Purpose
from earmark.core.model.ids import ClaimId, NodeId, StreamId, consumer_stream, node_stream
from earmark.core.model.instance import FREEING, Leg, Move, MoveOutcome, MoveStatus
from earmark.errors import Conflict, InvalidRequest, LedgerBroken, LedgerNewer, UnknownInstance, UnknownNode


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """A decision as it is put together: `said` are the events so far, each folded into `world`, so that what follows is decided on it."""

    world: immutables.Map[StreamId, NodeState | ConsumerState | None]
    consumer_stream: StreamId
    now_ms: int
    said: tuple[tuple[StreamId, e.Event], ...] = ()

    @property
    def consumer(self) -> ConsumerState | None:
        """The consumer as it is after the events so far."""
        state = self.world.get(self.consumer_stream)
        return state if isinstance(state, ConsumerState) else None

    def node(self, node: NodeId) -> NodeState:
        """Return a node as it is after the events so far; raises UnknownNode, and LedgerNewer where it cannot be written."""
        state = self.world.get(node_stream(node))
        if not isinstance(state, NodeState):
            raise UnknownNode(f"node {node} is not in this ledger", node=node)
        if state.unknown is not None:
            raise LedgerNewer(f"node {state.name} has an event {state.unknown} of a newer Earmark: it is read here and not written")
        return state

    def say(self, event: e.Event) -> Draft:
        """Return the draft with one more event in the consumer's stream."""
        after = advance_consumer(self.consumer, event, self._head(self.consumer_stream))
        return self._with(self.consumer_stream, event, after)

    def note(self, node: NodeId, event: e.Event) -> Draft:
        """Return the draft with one more event in a node's stream; what a claim used up stays in quarantine."""
        draft, stream = self, node_stream(node)
        for each in with_used_up(self.node(node), (event,)):
            draft = draft._with(stream, each, advance(draft.node(node), each, draft._head(stream)))
        return draft

    def _with(self, stream: StreamId, event: e.Event, after: NodeState | ConsumerState) -> Draft:
        world = self.world
        return replace(self, world=world.set(stream, after), said=(*self.said, (stream, event)))

    def _head(self, stream: StreamId) -> Head:
        state = self.world.get(stream)
        head = state.head if state is not None else Head()
        return Head(head.sequence + 1, head.epoch, max(self.now_ms, head.at_ms), "")

    def decision(
        self, outcome: lc.LifeOutcome, message: str = "", touched: tuple[ClaimId, ...] = (), move: Move | None = None
    ) -> LifeDecision:
        """Return what was put together."""
        streams = dict.fromkeys(stream for stream, _ in self.said)
        batches = tuple((stream, tuple(event for of, event in self.said if of == stream)) for stream in streams)
        return LifeDecision(
            batches=batches, after=self.world, outcome=outcome, message=message, touched=touched,
            move=move.id if move is not None else None,
        )  # fmt: skip


def create(draft: Draft, command: lc.CreateInstance, _facts: LifeFacts) -> LifeDecision:
    """Make a consumer known; raises Conflict if it is known as something else."""
    known = draft.consumer
    if known is not None and known.instance.state != "deleted":
        wanted = (command.uuid or known.instance.uuid, command.name, command.owner, command.kind, command.labels)
        instance = known.instance
        if wanted == (instance.uuid, instance.name, instance.owner, instance.kind, instance.labels):
            return draft.decision("created", "was created so already")
        raise Conflict(f"consumer {command.consumer} is known already, as {instance.kind} {instance.name}", consumer=command.consumer)
    if not command.uuid:
        raise InvalidRequest(f"instance {command.consumer} is to be created without a uuid", consumer=command.consumer)
    draft = draft.say(
        e.InstanceCreated(
            consumer=command.consumer, uuid=command.uuid, name=command.name, owner=command.owner, kind=command.kind, labels=command.labels
        )
    )  # fmt: skip
    return draft.decision("created")


def report(draft: Draft, command: lc.ReportState, facts: LifeFacts) -> LifeDecision:
    """Record a reported state; a freeing one ends all that the consumer holds, both legs of an open move included (L10, L11, M31)."""
    known = draft.consumer
    made = known is None
    if known is None:
        if command.owner is None or command.uuid is None:
            raise UnknownInstance(f"consumer {command.consumer} has no record in this ledger", consumer=command.consumer)
        draft = draft.say(
            e.InstanceCreated(consumer=command.consumer, uuid=command.uuid, name=command.consumer, owner=command.owner)
        )  # fmt: skip
        known = draft.consumer
    if known is None:
        raise LedgerBroken(f"consumer {command.consumer} was created and is not there")
    if not made and known.instance.state == "deleted" and command.state != "deleted":
        raise Conflict(f"instance {command.consumer} is deleted; create it anew", consumer=command.consumer)
    same = not made and (known.instance.state, known.instance.task) == (command.state, command.task)
    entered = made or known.instance.state != command.state
    frees = command.state in FREEING and (command.state == "deleted" or entered)
    _check_nodes(command, facts, all_of_them=frees)
    touched: tuple[ClaimId, ...] = ()
    if frees:
        draft, touched = _end_all(draft, command, facts)
    outcome: lc.LifeOutcome = "deleted" if command.state == "deleted" else "reported"
    if same and not touched:
        return draft.decision(outcome, f"was {command.state} already")
    if not same:
        draft = draft.say(e.StateReported(state=command.state, task=command.task, reason=command.reason))
    return draft.decision(outcome, touched=touched)


def _check_nodes(command: lc.LifeCommand, facts: LifeFacts, *, all_of_them: bool) -> None:
    """Raise Conflict if the consumer holds something on a node that the command does not name."""
    missed = sorted({placed.node for placed in facts.open} - set(command.nodes)) if all_of_them else []
    if missed:
        raise Conflict(
            f"consumer {command.consumer} has come to node {missed[0]} in the meantime", consumer=command.consumer, node=missed[0]
        )


def _end_all(draft: Draft, command: lc.ReportState, facts: LifeFacts) -> tuple[Draft, tuple[ClaimId, ...]]:
    """End every claim of the consumer, and its open move; a destination leg goes before the source that lends it devices.

    A foreign claim stays: it says what is seen on a host, and only a look at the host ends it.
    """
    mine = [placed for placed in facts.open if placed.purpose != "foreign"]
    order = sorted(mine, key=lambda placed: (placed.purpose != "leg", placed.claim))
    touched = []
    for placed in order:
        claim = draft.node(placed.node).claims.get(placed.claim)
        if claim is None:
            raise LedgerBroken(f"claim {placed.claim} is open and not on node {placed.node}", claim=placed.claim)
        after = draft
        if claim.phase != "draining":
            after = end_claim(draft, claim, "deleted" if command.state == "deleted" else "released", command.gone)
        elif claim.holders:
            after = end_claim(draft, claim, claim.cause or "deleted", command.gone, waits=True)
        if after is not draft:
            touched.append(claim.id)
        draft = after
    known = draft.consumer
    if known is not None and known.move is not None:
        draft = draft.say(e.MoveEnded(move=known.move.id, outcome="deleted"))
    return draft, tuple(touched)


def end_claim(
    draft: Draft, claim: Claim, cause: Cause, gone: tuple[Holder, ...], *, evidence: str = "", waits: bool = False, proven: bool = True
) -> Draft:  # fmt: skip
    """End a claim, or let it drain while holders are left or nothing proves that it is unused; `waits`: it drains already."""
    left = tuple(holder for holder in claim.holders if holder not in gone)
    if proven and not left:
        said = evidence or ("its processes are gone or said so" if claim.holders else "its holder said so")
        return draft.note(claim.node, e.ClaimEnded(**about(claim), cause=cause, evidence=said))
    if waits:
        return draft
    said = evidence or "still bound to pid " + ", ".join(str(holder.pid) for holder in left)
    return draft.note(claim.node, e.ClaimDraining(**about(claim), cause=cause, evidence=said))


# --- the end of a move --------------------------------------------------------------------------------------------------------------

OUTCOMES: Mapping[str, MoveOutcome] = {"confirm": "confirmed", "revert": "reverted", "abort": "aborted", "expire": "expired"}


def end_move(draft: Draft, command: lc.EndMove, facts: LifeFacts) -> LifeDecision:
    """Confirm, revert, abort or expire a move (M15-M18); a move that is over is answered with what became of it."""
    known = draft.consumer
    move = known.known_move(command.move) if known is not None else None
    if known is None or move is None:
        raise InvalidRequest(f"move {command.move} is none of consumer {command.consumer}", move=command.move)
    wanted = OUTCOMES.get(command.how, "confirmed")
    if move.outcome is not None:
        late = f"was {move.outcome} already" + ("" if command.how == "finish" or move.outcome == wanted else f"; nothing is {wanted}")
        return draft.decision(move.outcome, late, move=move)
    if set(move.nodes) - set(command.nodes):
        raise Conflict(f"move {move.id} concerns other nodes than the command names", move=move.id)
    status = status_of(move, fates_of(draft, move, facts))
    if status == "contradictory":
        raise LedgerBroken(f"the legs of move {move.id} contradict each other; `earmark audit` tells more", move=move.id)
    if command.how == "finish":
        return _finish(draft, move)
    end = _confirm(draft, move, command) if command.how == "confirm" else _give_up(draft, move, command, wanted)
    draft, touched = end
    draft = draft.say(e.MoveEnded(move=move.id, outcome=wanted))
    return draft.decision(wanted, touched=touched, move=move)


def fates_of(draft: Draft, move: Move, facts: LifeFacts) -> Fates:
    """Return what became of the legs of a move."""
    fates: dict[ClaimId, Fate] = {}
    for pair in move.legs:
        for leg in (pair.source, pair.destination):
            if leg is None:
                continue
            claim = draft.node(leg.node).claims.get(leg.claim)
            if claim is not None:
                fates[leg.claim] = Fate(claim, claim.purpose, None)
            elif leg.claim in facts.ended:
                fates[leg.claim] = facts.ended[leg.claim]
    return fates


def _confirm(draft: Draft, move: Move, command: lc.EndMove) -> tuple[Draft, tuple[ClaimId, ...]]:
    """End the source legs and make the destination legs the consumer's own; named devices pass without ever being free."""
    touched: list[ClaimId] = []
    for number, pair in enumerate(move.legs):
        purpose: Purpose = "attach" if number else "main"
        if pair.source is not None and pair.destination is not None and pair.source.node == pair.destination.node:
            draft = _pass_named(draft, pair.destination.node, pair.source.claim, pair.destination.claim)
        source = draft.node(pair.source.node).claims.get(pair.source.claim) if pair.source is not None else None
        if source is not None:
            purpose = source.purpose
            draft = _leave(draft, move, source, command.gone)
            touched.append(source.id)
        if pair.destination is not None:
            draft = _stay(draft, move, pair.destination, "attach" if purpose == "attach" else "main")
            touched.append(pair.destination.claim)
    return draft, tuple(touched)


def _leave(draft: Draft, move: Move, source: Claim, gone: tuple[Holder, ...]) -> Draft:
    """End a source leg; one of an evacuation keeps its units until its host says that the old guest is gone (M21)."""
    draft = draft.note(source.node, e.LegClosed(claim=source.id, purpose="leg", move=move.id, leg="source"))
    source = draft.node(source.node).claims[source.id]
    if move.kind == "evacuation":
        return end_claim(
            draft, source, "evacuated", gone, evidence="its host is down; it ends when the host is back and the guest is gone", proven=False
        )
    return end_claim(draft, source, source.cause or "moved", gone, waits=source.phase == "draining")


def _stay(draft: Draft, move: Move, leg: Leg, purpose: Purpose) -> Draft:
    """Make a destination leg the consumer's own claim."""
    target = _live(draft, leg.node, leg.claim, move)
    draft = draft.note(target.node, e.LegClosed(claim=target.id, purpose=purpose))
    if target.phase == "held" or target.deadline_ms is not None:
        draft = draft.note(target.node, e.ClaimConfirmed(claim=target.id, purpose=purpose, deadline_ms=None, holders=target.holders))
    return draft


def _finish(draft: Draft, move: Move) -> LifeDecision:
    """Record that the instance runs at the destination: its legs stay without a deadline until somebody confirms or reverts."""
    touched = []
    if move.destination is None:
        return draft.decision("opened", "its destination is in another ledger; it is finished there", move=move)
    for pair in move.legs:
        leg = pair.destination
        claim = draft.node(leg.node).claims.get(leg.claim) if leg is not None else None
        if claim is not None and claim.phase == "held":
            draft = draft.note(claim.node, e.ClaimConfirmed(**about(claim), deadline_ms=None, holders=claim.holders))
            touched.append(claim.id)
    return draft.decision("finished", "" if touched else "was finished already", tuple(touched), move)


def _pass_named(draft: Draft, node: NodeId, source: ClaimId, target: ClaimId) -> Draft:
    claim = draft.node(node).claims.get(target)
    if claim is None or not claim.named:
        return draft
    return draft.note(node, e.UnitsPassed(source=source, target=target, units=claim.named))


def _give_up(draft: Draft, move: Move, command: lc.EndMove, cause: MoveOutcome) -> tuple[Draft, tuple[ClaimId, ...]]:
    """End the destination legs and let the source legs be the consumer's own again."""
    causes: Mapping[MoveOutcome, Cause] = {"reverted": "reverted", "aborted": "aborted", "expired": "expired"}
    touched = []
    for pair in move.legs:
        if pair.destination is not None:
            target = draft.node(pair.destination.node).claims.get(pair.destination.claim)
            if target is not None and target.phase != "draining":
                said = "its deadline has passed" if cause == "expired" and not target.holders else ""
                draft = end_claim(draft, target, causes[cause], command.gone, evidence=said)
                touched.append(target.id)
        if pair.source is not None:
            source = _live(draft, pair.source.node, pair.source.claim, move)
            draft = draft.note(source.node, e.LegClosed(claim=source.id, purpose=source.purpose))
            touched.append(source.id)
    return draft, tuple(touched)


def _live(draft: Draft, node: NodeId, claim_id: ClaimId, move: Move) -> Claim:
    claim = draft.node(node).claims.get(claim_id)
    if claim is None:
        raise LedgerBroken(f"leg {claim_id} of move {move.id} is not live on node {node}", claim=claim_id, move=move.id)
    return claim


# --- the answer ---------------------------------------------------------------------------------------------------------------------


def life_answer(decision: LifeDecision, command: lc.LifeCommand, world: World) -> lc.LifeAnswer:
    """Return the answer that a decision gives once `world` is true."""
    known = world.get(consumer_stream(command.consumer))
    nodes = [state for _, state in sorted(world.items()) if isinstance(state, NodeState)]
    claims = tuple(claim for state in nodes for claim in state.live() if claim.consumer == command.consumer)
    consumer = known if isinstance(known, ConsumerState) else None
    move = consumer.known_move(decision.move) if consumer is not None and decision.move is not None else None
    return lc.LifeAnswer(
        outcome=decision.outcome, consumer=command.consumer, changed=bool(decision.batches), message=decision.message,
        instance=consumer.instance if consumer is not None else None, move=move, status=_status(move, claims), claims=claims,
        touched=decision.touched,
    )  # fmt: skip


def _status(move: Move | None, claims: tuple[Claim, ...]) -> MoveStatus | None:
    """Return a move's status as it stands right after a command: its outcome, or what its live legs say."""
    if move is None or move.outcome is not None:
        return None if move is None else move.outcome
    fates = {claim.id: Fate(claim, claim.purpose, None) for claim in claims}
    return status_of(move, fates)
