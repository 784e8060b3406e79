"""The lives of consumers: instances with their reported states, and moves from claim to claim.

Rules of this file: a command names the nodes that the consumer is on; if it has come to another one in the meantime the question is asked again, a
bounded number of times. Nothing is decided here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from msgspec.structs import replace

from earmark.core.ledger import commands as c
from earmark.core.ledger.decide_time import due_leg
from earmark.core.ledger.state import NodeState
from earmark.core.model import ids
from earmark.core.model.claim import Claim, Holder
from earmark.core.model.grant import Grant
from earmark.core.model.ids import ClaimId, ConsumerId, MoveId, NodeId, Owner, UnitId
from earmark.core.model.instance import InstanceState, Labels, Move, MoveKind, MoveStatus
from earmark.core.model.refusal import Refusal
from earmark.core.model.request import Request
from earmark.errors import Conflict, InvalidRecord, InvalidRequest, LedgerBroken, UnknownClaim, UnknownInstance, UnknownMove, WrongUse
from earmark.logs import log
from earmark.stores.uuids import new_uuid as random_uuid
from earmark.tracker.fresh import new_claim, new_move
from earmark.tracker.keeping import Keeping
from earmark.tracker.questions import NODE_PREFIX

if TYPE_CHECKING:
    from earmark.core.ledger import life_commands as lc
    from earmark.core.ledger.consumer import ConsumerState
    from earmark.core.ledger.moves import Fates
    from earmark.core.ledger.statistics import Statistics
    from earmark.tracker.moving import MoveInHand

TRIES_MAX = 5
"""How often a command is made anew because the consumer has come to another node in the meantime."""
CONSUMER_PREFIX = "consumer:"


class Lives(Keeping):
    """A ledger that knows instances and moves."""

    # --- instances ------------------------------------------------------------------------------------------------------------------

    def create(
        self, consumer: str, *, uuid: str | None = None, name: str | None = None, owner: str | None = None, kind: str = "instance",
        labels: Labels = (),
    ) -> lc.LifeAnswer:  # fmt: skip
        """Make a consumer known by more than its claims; the same call again is answered.

        `uuid` None: the consumer's id if it is one, else a new one; `name` None: the consumer's id; `owner` None: that of its claims. Raises Conflict if it is known otherwise.
        """
        from earmark.core.ledger import life_commands as lc  # noqa: PLC0415 - a claim needs no instances

        who = ConsumerId(ids.name(consumer, "consumer"))
        known = self._writer.consumer(who)
        old = known.instance.uuid if known is not None and known.instance.state != "deleted" else ""
        claims = self.claims_of(who) if owner is None else ()
        command = lc.CreateInstance(
            consumer=who, uuid=ids.node_id(uuid) if uuid is not None else old or new_uuid(who), name=ids.name(name or consumer, "instance"),
            owner=claims[0].owner if claims else self._by(owner), kind=ids.name(kind, "kind"), labels=labels,
        )  # fmt: skip
        return self._life(lambda: command)

    def report(self, consumer: str, state: InstanceState, *, task: str | None = None, reason: str = "") -> lc.LifeAnswer:
        """Say what state an instance is in. `shelved_offloaded` and `deleted` give back all that it holds, on every node (L9-L12).

        A consumer that has claims and no record gets one. `task` says what is being done to it (T2), None: nothing.
        """
        from earmark.core.ledger import life_commands as lc  # noqa: PLC0415 - a claim needs no instances
        from earmark.tracker.life_turn import nodes_of  # noqa: PLC0415 - a claim needs no instances

        who = self._consumer_named(consumer)

        def made() -> lc.ReportState:
            claims = self.claims_of(who)
            return lc.ReportState(
                consumer=who, nodes=nodes_of(self.store, who), state=state, task=None if task is None else ids.name(task, "task"),
                reason=reason and ids.reason_text(reason), owner=claims[0].owner if claims else self._by(None), uuid=new_uuid(who),
                gone=self._gone(claims),
            )  # fmt: skip

        return self._life(made)

    def delete(self, consumer: str, *, reason: str = "") -> lc.LifeAnswer:
        """Say that an instance is gone: all that it holds is given back, both legs of an open move too (L11, M31)."""
        return self.report(consumer, "deleted", reason=reason)

    def rebuild(self, consumer: str, request: Request | None = None) -> lc.LifeAnswer:
        """Say that an instance is rebuilt in place: nothing is claimed and nothing may change (L15); raises Conflict for another request."""
        claims = [claim for claim in self.claims_of(consumer) if claim.purpose == "main"]
        if not claims:
            raise UnknownClaim(f"consumer {consumer} holds no main claim to be rebuilt", found=consumer)
        if request is not None and request != claims[0].request:
            raise Conflict(f"a rebuild of {consumer} keeps what it holds; a resize changes it", claim=claims[0].id)
        return self.report(consumer, self._state_of(consumer), task="rebuilding")

    def instance(self, text: str) -> ConsumerState:
        """Return what is known of a consumer, by its id, or by the uuid or name of its instance; raises UnknownInstance."""
        self._own()
        known = self._writer.consumer(ConsumerId(ids.name(text, "consumer")))
        if known is not None:
            return known
        named = [state for state in self.instances() if text in (state.instance.uuid, state.instance.name)]
        named = [state for state in named if state.instance.state != "deleted"] or named
        if len(named) != 1:
            raise UnknownInstance(f"{len(named) or 'no'} instances are named {text!r} in {self.store.name}", found=text)
        return named[0]

    def instances(self) -> tuple[ConsumerState, ...]:
        """Return all consumers that are known by more than their claims, by id; one whose stream is broken is left out, logged and audited."""
        self._own()
        found = []
        for stream in self.store.heads():
            if not stream.startswith(CONSUMER_PREFIX):
                continue
            consumer = ConsumerId(stream.removeprefix(CONSUMER_PREFIX))
            try:
                state = self._writer.consumer(consumer)
            except (InvalidRecord, LedgerBroken) as error:
                log("consumer.unreadable", level="error", consumer=consumer, code=error.code)
                continue
            found += [] if state is None else [state]
        return tuple(sorted(found, key=lambda state: state.consumer))

    def statistics(self, node: str | None = None) -> Statistics:
        """Return what runs, and what is in progress, on each node (or only on `node`) and altogether."""
        from earmark.core.ledger.statistics import statistics  # noqa: PLC0415 - few commands look at everything

        found = statistics(self.nodes(), self.instances())
        wanted = None if node is None else self.node(node).node
        return found if wanted is None else replace(found, nodes=tuple(each for each in found.nodes if each.node == wanted))

    def claims_of(self, consumer: str) -> tuple[Claim, ...]:
        """Return the live claims of a consumer on all nodes, by id."""
        self._own()
        found = []
        for row in self.store.claims_of(ConsumerId(consumer)):
            claim = self._known(NodeId(row.stream.removeprefix(NODE_PREFIX))).claims.get(row.claim)
            if claim is not None:
                found.append(claim)
        return tuple(found)

    # --- moves ----------------------------------------------------------------------------------------------------------------------

    def open_move(
        self, consumer: str, kind: MoveKind, *, to: str | None = None, request: Request | None = None, grant: Grant | None = None,
        ttl_ms: int | None = None, holders: Sequence[Holder] = (), move_id: str | None = None,
    ) -> lc.LifeAnswer | Refusal:  # fmt: skip
        """Begin to move a consumer: hold its destination leg, or say why not; the source leg stays until the move is confirmed.

        `to` is the destination node (None: the one it is on). `request` is what it is to be (a resize), None: what it is. `grant`
        prescribes the destination of the main claim. `ttl_ms`: the destination leg expires with it unless a holder is seen alive. Claims of
        purpose attach move along to another node. Raises UnknownClaim, Conflict if it is in another move, InvalidRequest.
        """
        from earmark.core.ledger import life_commands as lc  # noqa: PLC0415 - a claim needs no instances

        new = ids.move_id(move_id) if move_id is not None else new_move()
        destination = self._writable(to) if to is not None else None
        if ttl_ms is not None and ttl_ms <= 0:
            raise InvalidRequest(f"a leg cannot live {ttl_ms} ms", ttl_ms=ttl_ms)

        def made() -> lc.OpenMove:
            again = self._move_known(new)
            if again is not None and again.source is not None:
                if again.consumer != self._consumer_named(consumer):
                    raise Conflict(f"move {new} is of consumer {again.consumer}, not of {consumer}", move=new, consumer=again.consumer)
                return self._same_again(again, kind, destination)
            main, plans = self._plans(consumer, destination, request, grant)
            target = destination.node if destination is not None else main.node
            deadline_ms = None if ttl_ms is None else max(self.clock.now_ms(), self._known(target).at_ms) + ttl_ms
            return lc.OpenMove(
                consumer=main.consumer, nodes=tuple(dict.fromkeys((main.node, target))), move=new, kind=kind, source=main.node,
                destination=target, legs=plans, owner=main.owner, uuid=new_uuid(main.consumer), deadline_ms=deadline_ms,
                holders=tuple(holders),
            )  # fmt: skip

        found = self._life_or_refusal(made)
        if isinstance(found, Refusal) and found.node is not None and self._wake([self.node(found.node).node]):
            return self._life_or_refusal(made)
        return found

    def move(
        self, consumer: str, kind: MoveKind, *, to: str | None = None, request: Request | None = None, grant: Grant | None = None,
        ttl_ms: int | None = None,
    ) -> AbstractContextManager[MoveInHand]:  # fmt: skip
        """Move a consumer in a `with` block: any exception aborts the destination leg; a block that ends well leaves the move as it is.

        Inside, `move.confirm()`, `move.revert()` or `move.finish()` say what became of it. Raises Refused (with `.refusal`).
        """
        from earmark.tracker.moving import moving  # noqa: PLC0415 - the command line does not need it

        return moving(self, consumer, kind, to=to, request=request, grant=grant, ttl_ms=ttl_ms)

    def finish_move(self, move: str) -> lc.LifeAnswer:
        """Say that the instance runs at the destination and waits for confirm or revert; both legs stay."""
        return self._end_move(move, "finish")

    def confirm_move(self, move: str) -> lc.LifeAnswer:
        """End a move at its destination: the source legs end, the destination legs are the consumer's own (M15)."""
        return self._end_move(move, "confirm")

    def revert_move(self, move: str) -> lc.LifeAnswer:
        """End a move at its source: the destination legs end (M16)."""
        return self._end_move(move, "revert")

    def abort_move(self, move: str) -> lc.LifeAnswer:
        """Give a move up that was not finished: the destination legs end (M17)."""
        return self._end_move(move, "abort")

    def drop_move(self, move: str, leg: str) -> lc.LifeAnswer:
        """End one side of a move: its `source` legs (then it is confirmed) or its `destination` legs (then it is reverted)."""
        if leg not in ("source", "destination"):
            raise InvalidRequest(f"a move has a source and a destination leg, not {leg!r}", found=leg)
        return self._end_move(move, "confirm" if leg == "source" else "revert")

    def came_back(self, node: str, reason: str = "its old guests are destroyed") -> c.Answer:
        """Say that an evacuated host is back and its old guests are destroyed: what they held on it is free (M21)."""
        return self._answer(c.ReturnNode(node=self._writable(node).node, reason=ids.reason_text(reason)))

    def find_move(self, text: str) -> Move:
        """Return a move by its id, or the open (else the last) move of a consumer; raises UnknownMove."""
        self._own()
        if ids.MOVE.fullmatch(text):
            found = self._move_known(MoveId(text))
            if found is not None:
                return found
        known = self._writer.consumer(ConsumerId(text)) if text.isprintable() and text else None
        moves: tuple[Move, ...] = () if known is None else (*known.moves, *((known.move,) if known.move is not None else ()))
        if not moves:
            raise UnknownMove(f"no move {text!r} and no moved consumer of that name is in {self.store.name}", found=text)
        return moves[-1]

    def move_status(self, move: Move) -> MoveStatus:
        """Return what the legs of a move say of it, read from the ledger now."""
        from earmark.core.ledger.moves import status_of  # noqa: PLC0415 - a claim needs no instances

        return status_of(move, self._fates(move))

    def device_pairs(self, move: Move) -> tuple[tuple[UnitId, UnitId], ...]:
        """Return which device of an open move's source becomes which at its destination, for the launcher (M26, M27)."""
        from earmark.core.ledger.pairing import paired  # noqa: PLC0415 - a claim needs no instances

        claims = {claim.id: claim for claim in self.claims_of(move.consumer)}
        found: list[tuple[UnitId, UnitId]] = []
        for pair in move.legs:
            source = claims.get(pair.source.claim) if pair.source is not None else None
            destination = claims.get(pair.destination.claim) if pair.destination is not None else None
            if source is not None and destination is not None:
                found += paired(source, destination, self._known(source.node).layout, self._known(destination.node).layout)
        return tuple(found)

    def moves(self, *, open_only: bool = True) -> tuple[Move, ...]:
        """Return the open moves of all consumers, or all that are remembered, in order of their beginning."""
        found = [move for state in self.instances() for move in ((*state.moves, state.move) if not open_only else (state.move,)) if move]
        return tuple(sorted(found, key=lambda move: (move.opened_at_ms, move.id)))

    def sweep(self, node: str | None = None) -> c.Answer | None:
        """Let time and deaths take effect on a node (None: this machine's), and end the moves that are due there."""
        answer = super().sweep(node)
        if self._can_write():
            self.end_due_moves(self.node(node))
        return answer

    def end_due_moves(self, state: NodeState) -> tuple[MoveId, ...]:
        """End the moves whose destination leg on a node is due: expired, its holders gone, or finished for the confirm window (M30).

        A leg whose guest the node's own driver saw there at its last look ends neither by time nor with its holders.
        """
        legs = [claim for claim in state.live() if claim.leg == "destination" and claim.move is not None and claim.phase != "draining"]
        if not legs or state.unknown is not None:
            return ()
        evidence = self._leases.evidence(self._near(legs))
        now_ms = self._now(state)
        window_ms = state.settings.resize_confirm_window_s * 1000
        ended: list[MoveId] = []
        for claim in legs:
            how: lc.Ending | None = due_leg(claim, frozenset(evidence.gone), frozenset(evidence.alive), now_ms)
            if how is not None and self._sees_moved(state, claim):
                continue
            late = window_ms and claim.confirmed_at_ms is not None and now_ms - claim.confirmed_at_ms >= window_ms
            if how is None and late and self.find_move(str(claim.move)).kind in ("resize", "migration"):
                how = "confirm"
            if how is not None and claim.move not in ended and self._ended(claim, how):
                ended.append(MoveId(str(claim.move)))
        return tuple(ended)

    def _ended(self, leg: Claim, how: lc.Ending) -> bool:
        """End the move of a leg that is due; one whose legs contradict each other is logged and holds up no other (W11)."""
        try:
            self._end_move(str(leg.move), how)
        except LedgerBroken as error:
            log("move.skipped", node=leg.node, move=leg.move, error=error)
            return False
        return True

    def _sees_moved(self, state: NodeState, leg: Claim) -> bool:
        """Say whether the last look saw the guest of a destination leg; beside its source on one node that would say nothing of this leg."""
        from earmark.tracker.sightings import last_look  # noqa: PLC0415 - only a leg that is due is looked for

        if any(claim.move == leg.move and claim.leg == "source" for claim in state.live()):
            return False
        look = last_look(self.store, state.node)
        return look is not None and leg.consumer in look.consumers

    # --- between two ledgers --------------------------------------------------------------------------------------------------------

    def move_out(self, consumer: str, kind: MoveKind, request: Request | None = None) -> lc.LifeAnswer:
        """Begin a move to another ledger: the answer's move has a token for `move_in` there; the source leg never expires."""
        from earmark.tracker.halves import out_command  # noqa: PLC0415 - few moves leave the ledger

        return self._life(lambda: out_command(self, consumer, kind, request))

    def move_in(
        self, token: str, *, node: str | None = None, ttl_ms: int | None = None, grant: Grant | None = None, holders: Sequence[Holder] = ()
    ) -> lc.LifeAnswer | Refusal:  # fmt: skip
        """Hold the destination leg of a move that began in another ledger; `ttl_ms` ends it unless a holder is seen alive."""
        from earmark.tracker.halves import in_command  # noqa: PLC0415 - few moves come from another ledger

        return self._life_or_refusal(lambda: in_command(self, token, self._writable(node), ttl_ms, grant, holders))

    # --- within ---------------------------------------------------------------------------------------------------------------------

    def _end_move(self, move: str, how: lc.Ending) -> lc.LifeAnswer:
        from earmark.core.ledger import life_commands as lc  # noqa: PLC0415 - a claim needs no instances

        def made() -> lc.EndMove:
            found = self.find_move(move)
            legs = {leg.claim for pair in found.legs for leg in (pair.source, pair.destination) if leg}
            claims = [claim for claim in self.claims_of(found.consumer) if claim.id in legs]
            return lc.EndMove(consumer=found.consumer, nodes=found.nodes, move=found.id, how=how, gone=self._gone(claims))

        return self._life(made)

    def _plans(
        self, consumer: str, destination: NodeState | None, request: Request | None, grant: Grant | None
    ) -> tuple[Claim, tuple[lc.LegPlan, ...]]:  # fmt: skip
        """Return the main claim of a consumer, and what is to be held for it and for its attached claims."""
        from earmark.core.ledger import life_commands as lc  # noqa: PLC0415 - a claim needs no instances

        who = self._consumer_named(consumer)
        claims = [claim for claim in self.claims_of(who) if claim.phase != "draining"]
        main = next((claim for claim in claims if claim.purpose == "main"), None)
        if main is None:
            raise UnknownClaim(f"consumer {consumer} holds no main claim that could be moved", found=consumer)
        plans = [lc.LegPlan(source=main.id, destination=new_claim(), request=request, grant=grant)]
        if destination is not None and destination.node != main.node:
            attached = [claim for claim in claims if claim.purpose == "attach" and claim.node == main.node]
            plans += [lc.LegPlan(source=claim.id, destination=new_claim(), purpose="attach") for claim in attached]
        return main, tuple(plans)

    def instance_or_none(self, consumer: ConsumerId) -> ConsumerState | None:
        """Return what is known of a consumer by its id, None if there is no record of it."""
        return self._writer.consumer(consumer)

    def uuid_for(self, consumer: ConsumerId) -> str:
        """Return the uuid that a consumer's record would get now."""
        return new_uuid(consumer)

    def _same_again(self, again: Move, kind: MoveKind, destination: NodeState | None) -> lc.OpenMove:
        """Return the command for a move that is known already, for its answer."""
        from earmark.core.ledger import life_commands as lc  # noqa: PLC0415 - a claim needs no instances

        plans = tuple(
            lc.LegPlan(
                source=pair.source.claim if pair.source is not None else None,
                destination=pair.destination.claim if pair.destination is not None else None,
            )
            for pair in again.legs
        )
        return lc.OpenMove(
            consumer=again.consumer, nodes=again.nodes, move=again.id, kind=kind, source=again.source,
            destination=destination.node if destination is not None else again.destination, legs=plans, owner=self._by(None),
            uuid=new_uuid(again.consumer), token=again.token,
        )  # fmt: skip

    def _move_known(self, move: MoveId) -> Move | None:
        stream = self.store.move(move)
        known = self._writer.consumer(ConsumerId(stream.removeprefix(CONSUMER_PREFIX))) if stream is not None else None
        return known.known_move(move) if known is not None else None

    def _fates(self, move: Move) -> Fates:
        from earmark.core.ledger.moves import Fate  # noqa: PLC0415 - a claim needs no instances
        from earmark.tracker.life_turn import ended_legs  # noqa: PLC0415 - a claim needs no instances

        live = {claim.id: Fate(claim, claim.purpose, None) for claim in self.claims_of(move.consumer)}
        return {**ended_legs(self.store, move), **live}

    def _consumer_named(self, text: str) -> ConsumerId:
        """Return a consumer by its id, or by the uuid or name of its instance; a text that is neither names a new consumer."""
        who = ConsumerId(ids.name(text, "consumer"))
        if self._writer.consumer(who) is not None or self.store.claims_of(who):
            return who
        named = [state.consumer for state in self.instances() if text in (state.instance.uuid, state.instance.name)]
        return named[0] if len(named) == 1 else who

    def _state_of(self, consumer: str) -> InstanceState:
        known = self._writer.consumer(ConsumerId(consumer))
        return known.instance.state if known is not None else "active"

    def _by(self, owner: str | None) -> Owner:
        return Owner(ids.name(owner, "owner") if owner is not None else self.terms.actor)

    def _gone(self, claims: Sequence[Claim]) -> tuple[Holder, ...]:
        """Return the holders of some claims that are proven gone, or that this process speaks for."""
        return tuple({holder for claim in self._near(claims) for holder in self._leases.speaks_for(claim, os.getpid())})

    def _life(self, made: Callable[[], lc.LifeCommand]) -> lc.LifeAnswer:
        result = self._life_or_refusal(made)
        if isinstance(result, Refusal):
            raise WrongUse("a command that asks for nothing was refused", reasons=result.reasons)
        return result

    def _life_or_refusal(self, made: Callable[[], lc.LifeCommand]) -> lc.LifeAnswer | Refusal:
        """Carry out a command, made anew while the consumer's nodes change under it."""
        self._must_write()
        for _ in range(TRIES_MAX - 1):
            command = made()
            try:
                return self._writer.submit(command)
            except Conflict:
                if _ground(made()) == _ground(command):
                    raise
        return self._writer.submit(made())


def _ground(command: lc.LifeCommand) -> tuple[tuple[NodeId, ...], tuple[ClaimId | None, ...]]:
    """Return what a command was made from: the nodes that the consumer is on, and the claims that a move is to leave."""
    from earmark.core.ledger import life_commands as lc  # noqa: PLC0415 - a claim needs no instances

    return command.nodes, tuple(plan.source for plan in command.legs) if isinstance(command, lc.OpenMove) else ()


def new_uuid(consumer: ConsumerId) -> str:
    """Return the uuid for a consumer's instance: its own id if that is one, else a random one."""
    return consumer if ids.UUID.fullmatch(consumer) else random_uuid()
