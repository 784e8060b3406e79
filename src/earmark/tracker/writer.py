"""The one path by which anything becomes true: read, decide, append, commit, answer.

Rules of this file: commands of one process queue here; the first caller to come leads, takes all that wait, opens one write transaction, reads
what other processes appended, decides and appends each command on the state that the one before it left, commits once, publishes the
states and answers all. If the commit fails all are answered with the error and the old states stand. There is no thread of our own.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, overload

import msgspec

from earmark.clock import Clock
from earmark.core.ledger.codec import Batch, Head, Stamp
from earmark.core.ledger.commands import Answer, Command, HoldClaim, RegisterNode
from earmark.core.ledger.decide import answer_of, decide
from earmark.core.ledger.decision import Decision, Facts
from earmark.core.ledger.fold import advance
from earmark.core.ledger.state import NodeState
from earmark.core.model.claim import Claim
from earmark.core.model.ids import ClaimId, ConsumerId, StreamId, consumer_stream, node_stream
from earmark.core.model.refusal import Refusal
from earmark.errors import EarmarkError, InvalidRecord, LedgerBroken, LockTimeout, OutcomeUnknown
from earmark.locks import NamedLock
from earmark.logs import log
from earmark.stores.contract import ANSWERS_KEPT_MS, ClaimRow, Reader, Store, Transaction
from earmark.tracker import snapshots
from earmark.tracker.names import NodeNames
from earmark.tracker.work import Key, Work, checked, command_id, interrupted, known_answer, own_error, remembered, say

if TYPE_CHECKING:
    from earmark.core.ledger.consumer import ConsumerState
    from earmark.core.ledger.life_commands import LifeAnswer, LifeCommand
    from earmark.tracker.snapshots import State
    from earmark.tracker.work import Result

GROUP_MAX = 256
"""Commands in one commit, at most."""
SNAPSHOT_EVERY = 1000
"""Events of a stream between two snapshots, at least."""
SNAPSHOT_PER_CLAIM = 2
"""And at least this many events for each live claim, so that the cost of an image stays a constant share."""
CONSUMERS_KEPT_MAX = 4096
"""States of consumers that a process remembers."""
FOLD_MAX = 64
"""Events that are folded under the write transaction, at most: who needs more catches up before and comes again."""
CATCH_UPS_MAX = 3
"""How often a caller catches up before its command is carried out whatever there is to fold, so that it gets its turn at last."""


class Behind(Exception):
    """A state is too far behind its stream to be caught up with under the write transaction."""


class Writer:
    """Carries out commands on a store, in groups."""

    def __init__(self, store: Store, clock: Clock, *, actor: str, epoch: int, boot_id: str, timeout_s: float) -> None:
        self._store = store
        self._clock = clock
        self._actor = actor
        self._epoch = epoch
        self._boot_id = boot_id
        self._timeout_s = timeout_s
        self._guard = NamedLock("writer queue")
        self._queue: deque[Work] = deque()
        self._leader: str | None = None
        self._states: dict[StreamId, NodeState] = {}
        self._consumers: dict[StreamId, ConsumerState] = {}
        self._snapshots: dict[StreamId, int] = {}
        self.names = NodeNames()

    @overload
    def submit(self, command: Command, *, key: Key | None = None, correlation: str = "") -> Answer | Refusal: ...

    @overload
    def submit(self, command: LifeCommand, *, key: Key | None = None, correlation: str = "") -> LifeAnswer | Refusal: ...

    def submit(self, command: Command | LifeCommand, *, key: Key | None = None, correlation: str = "") -> Result:
        """Carry out one command durably and return its answer or refusal.

        Raises what deciding or the store raises; InvalidRequest for a command that is none; LockTimeout if its turn did not come in time
        (nothing happened), OutcomeUnknown if its group did not end in time. Who is interrupted leaves nothing in the queue.
        """
        command = checked(command)
        work = self._through(Work(command, key, correlation))
        for turn in range(1, CATCH_UPS_MAX + 1):
            if not work.behind or work.error is not None:
                break
            for stream in _streams(command):
                self._now(stream)
            work = self._through(Work(command, key, correlation, whole=turn == CATCH_UPS_MAX))
        if work.error is not None:
            raise work.error
        if work.result is None:
            raise OutcomeUnknown("the writer ended without an answer; ask again with an idempotency key")
        return work.result

    def _through(self, work: Work) -> Work:
        """Bring one work through the queue, leading where it is this caller's turn."""
        try:
            with self._guard.hold("enqueue"):
                self._queue.append(work)
                if self._leader is None:
                    work.lead = True
                    self._leader = threading.current_thread().name
            if not work.lead and not work.done.wait(self._timeout_s):
                self._give_up(work)
            if work.lead and not work.answered:
                self._lead(work)
        except (LockTimeout, OutcomeUnknown):  # it has waited long enough, and is in no queue
            raise
        except BaseException:
            self._leave(work)
            raise
        return work

    def state(self, stream: StreamId) -> NodeState | None:
        """Return the state of a node's stream as the ledger has it now, None for no such stream."""
        state = self._now(stream)
        return state if isinstance(state, NodeState) else None

    def consumer(self, consumer: ConsumerId) -> ConsumerState | None:
        """Return what the ledger knows of a consumer beyond its claims now, None for nothing."""
        state = self._now(consumer_stream(consumer))
        return None if isinstance(state, NodeState) else state

    def _now(self, stream: StreamId) -> State | None:
        with self._store.reading() as reader:
            state = self._current(reader, stream, {})
        if state is not None:
            self._publish({stream: state})
        return state

    def known(self, stream: StreamId) -> NodeState | None:
        """Return the state as this process last saw it, without asking the ledger; None if it never did.

        Good enough for what deciding checks again (times, evidence), never for an answer.
        """
        return self._states.get(stream)

    def seen(self) -> tuple[NodeState, ...]:
        """Return the nodes that this process has seen, as it last saw them."""
        return tuple(self._states.copy().values())

    # --- the queue ------------------------------------------------------------------------------------------------------------------

    def _give_up(self, work: Work) -> None:
        """Withdraw work whose time is over, unless it was taken or is to lead."""
        with self._guard.hold("give up"):
            if work.answered or work.lead:
                return
            waiting = not work.taken
            if waiting:
                self._queue.remove(work)
            leader = self._leader
        name = type(work.command).__name__
        if waiting:
            raise LockTimeout(f"{name} waited {self._timeout_s} s for the writer, which thread {leader} leads; nothing has happened")
        raise OutcomeUnknown(f"{name} was taken by the writer (thread {leader}) and not answered within {self._timeout_s} s")

    def _leave(self, work: Work) -> None:
        """Withdraw interrupted work, or wait for the end of a group that has it; give a lead up that was not taken."""
        with self._guard.hold("leave"):
            if work in self._queue:
                self._queue.remove(work)
        if work.lead:
            self._hand_on(work)
        elif work.taken:
            work.done.wait(self._timeout_s)

    def _lead(self, own: Work) -> None:
        """Carry out what waits, then hand the lead on; whatever happens, everybody who was taken is answered."""
        group: list[Work] = []
        try:
            with self._guard.hold("take a group"):
                while self._queue and len(group) < GROUP_MAX:
                    taken = self._queue.popleft()
                    taken.taken = True
                    group.append(taken)
            self._carry_out(group)
        finally:
            for work in group:
                if not work.answered:
                    work.error = interrupted(work)
                work.done.set()
            self._hand_on(own)

    def _hand_on(self, own: Work) -> None:
        """Let the next in line lead; once for each leader."""
        with self._guard.hold("hand the lead on"):
            if own.handed_on:
                return
            own.handed_on = True
            heir = self._queue[0] if self._queue else None
            self._leader = "the next in line" if heir is not None else None
            if heir is not None:
                heir.lead = True
                heir.done.set()

    # --- one group ------------------------------------------------------------------------------------------------------------------

    def _carry_out(self, group: list[Work]) -> None:
        """Decide and append a group in one transaction; publish and answer after the commit."""
        states: dict[StreamId, State] = {}
        results: list[tuple[Work, Result | EarmarkError]] = []
        try:
            with self._store.transaction(purpose=f"{len(group)} commands", timeout_s=self._timeout_s) as tx:
                for work in group:
                    try:
                        results.append((work, self._one(tx, states, work)))
                    except Behind:
                        work.behind = True
                    except EarmarkError as error:
                        results.append((work, error))
                kept = self._keep(tx, states)
                for work in group:
                    work.decided = True
        except EarmarkError as error:
            for work in group:
                work.error = own_error(error)
            return
        self._publish(states)
        self._snapshots.update(kept)
        for work, result in results:
            if isinstance(result, EarmarkError):
                work.error = result
            else:
                work.result = result
                say(work.command, result)

    def _one(self, tx: Transaction, states: dict[StreamId, State], work: Work) -> Result:
        """Decide one command and append what it leads to; `states` moves on only if the append succeeded."""
        command, key = work.command, work.key
        now_ms = self._clock.now_ms()
        if not isinstance(command, Command):
            return self._life(tx, states, work, command, now_ms)
        if key is not None and (known := known_answer(tx, key, now_ms, Answer)) is not None:
            return known
        stream = node_stream(command.node)
        current = self._current(tx, stream, states, None if work.whole else FOLD_MAX)
        state = current if isinstance(current, NodeState) else None
        decided = decide(state, command, self._facts(tx, state, command, now_ms, states))
        if isinstance(decided, Refusal):
            owner = command.owner if isinstance(command, HoldClaim) else self._actor
            tx.put_refusal(stream, owner, now_ms, msgspec.json.encode(decided))
            return decided
        head = state.head if state is not None else Head()
        stamp = self._stamp(stream, head, work, now_ms)
        after = _after(state, decided, stamp)
        answer = answer_of(decided, after) if after is not None else _bare_answer(decided, command)
        remember = remembered(key, answer, now_ms) if key is not None else None
        if decided.events or remember is not None:
            stored = tx.append([Batch(stream, head.sequence, decided.events)] if decided.events else [], stamp, remember)
            if stored and after is not None:
                last = stored[-1]
                at_ms = max(now_ms, head.at_ms)
                after = msgspec.structs.replace(after, head=Head(last.sequence, max(self._epoch, head.epoch), at_ms, last.hash))
        if after is not None:
            states[stream] = after
        return answer

    def _stamp(self, stream: StreamId, head: Head, work: Work, now_ms: int) -> Stamp:
        return Stamp(
            actor=self._actor, command=command_id(stream, head), now_ms=now_ms, correlation=work.correlation, epoch=self._epoch,
            boot_id=self._boot_id,
        )  # fmt: skip

    def _life(self, tx: Transaction, states: dict[StreamId, State], work: Work, command: LifeCommand, now_ms: int) -> Result:
        """Decide a command about a consumer and append what it leads to on all its streams at once."""
        from earmark.core.ledger.decide_life import life_answer  # noqa: PLC0415 - a claim without an instance does not need it
        from earmark.core.ledger.life_commands import LifeAnswer  # noqa: PLC0415 - nor this
        from earmark.tracker import life_turn  # noqa: PLC0415 - nor this

        if work.key is not None and (known := known_answer(tx, work.key, now_ms, LifeAnswer)) is not None:
            return known
        fold_max = None if work.whole else FOLD_MAX
        world, decided = life_turn.decide_turn(tx, command, lambda stream: self._current(tx, stream, states, fold_max), now_ms)
        if isinstance(decided, Refusal):
            tx.put_refusal(life_turn.refusal_stream(command), self._actor, now_ms, msgspec.json.encode(decided))
            return decided
        answer = life_answer(decided, command, decided.after)
        remember = remembered(work.key, answer, now_ms) if work.key is not None else None
        if decided.batches or remember is not None:
            batches = life_turn.batches_of(world, decided)
            first = batches[0] if batches else Batch(consumer_stream(command.consumer), 0, ())
            stamp = self._stamp(first.stream, Head(first.expected), work, now_ms)
            stored = tx.append(batches, stamp, remember)
            states.update(life_turn.after_append(decided, list(stored), self._epoch))
        return answer

    def _facts(
        self, tx: Reader, state: NodeState | None, command: Command, now_ms: int, states: dict[StreamId, State]
    ) -> Facts:  # fmt: skip
        """Read what deciding needs from the guard rows: only what the state cannot say."""
        if isinstance(command, RegisterNode):
            named = self.names.named(tx, command.name, states) if state is None else ()
            return Facts(now_ms=now_ms, named=named[0] if named else None)
        if isinstance(command, HoldClaim):
            asks = (
                command.purpose in ("main", "attach") and str(command.consumer) != command.claim
            )  # a consumer made up for this claim has no other
            main = tx.main_claim(command.consumer) if asks else None
            if main is None or (state is not None and main.claim in state.claims):
                return Facts(now_ms=now_ms, main=main.claim if main is not None else None)
            return Facts(now_ms=now_ms, main=main.claim, elsewhere=self._elsewhere(tx, main, states))
        claim: ClaimId | None = getattr(command, "claim", None)
        if claim is None or (state is not None and claim in state.claims):
            return Facts(now_ms=now_ms)
        row = tx.claim(claim)
        return Facts(now_ms=now_ms, ended=row.cause if row is not None else None)

    def _elsewhere(self, tx: Reader, main: ClaimRow, states: dict[StreamId, State]) -> Claim | None:
        """Return a claim of another node, for a refusal that names it; None where that node cannot be read."""
        try:
            other = self._current(tx, main.stream, states)
        except (InvalidRecord, LedgerBroken) as error:
            log("node.skipped", stream=main.stream, error=error)
            return None
        return other.claims.get(main.claim) if isinstance(other, NodeState) else None

    def _current(
        self, reader: Reader, stream: StreamId, states: dict[StreamId, State], fold_max: int | None = None
    ) -> State | None:  # fmt: skip
        """Return the state at the stream's end: from this group, else the published one and what came since, else from a snapshot.

        Raises Behind where more than `fold_max` events would have to be folded.
        """
        known: State | None = states.get(stream)
        if known is not None:
            return known
        known = self._states.get(stream) or self._consumers.get(stream)
        head = reader.head(stream)
        if head.sequence == 0:
            return None
        if fold_max is not None and head.sequence - (known.sequence if known is not None else 0) > fold_max:
            raise Behind(stream)
        if known is None:
            known = snapshots.newest(reader, stream)
            self._snapshots[stream] = known.sequence if known is not None else 0
        while known is None or known.sequence < head.sequence:
            page = reader.read(stream, known.sequence if known is not None else 0)
            if not page:
                break
            known = snapshots.folded(stream, known, list(page))
        return known

    def _keep(self, tx: Transaction, states: dict[StreamId, State]) -> dict[StreamId, int]:
        """Keep snapshots of streams that have grown enough since the last one, and return where."""
        kept = {}
        for stream, state in states.items():
            last = self._snapshots.get(stream, 0)
            if state.sequence - last >= max(SNAPSHOT_EVERY, SNAPSHOT_PER_CLAIM * snapshots.weight(state)):
                tx.put_snapshot(snapshots.snapshot_of(stream, state, tx.last_position()))
                tx.forget_answers(self._clock.now_ms() - ANSWERS_KEPT_MS)
                kept[stream] = state.sequence
        return kept

    def _publish(self, states: dict[StreamId, State]) -> None:
        """Let readers see states that are in the ledger; never an older one over a newer one."""
        with self._guard.hold("publish"):
            for stream, state in states.items():
                known = self._states.get(stream) or self._consumers.get(stream)
                if known is not None and known.sequence >= state.sequence:
                    continue
                if isinstance(state, NodeState):
                    self._states[stream] = state
                else:
                    self._consumers.pop(stream, None)
                    self._consumers[stream] = state
            while len(self._consumers) > CONSUMERS_KEPT_MAX:
                gone = next(iter(self._consumers))
                del self._consumers[gone]
                self._snapshots.pop(gone, None)

    @contextmanager
    def exclusive(self, purpose: str) -> Iterator[Transaction]:
        """Enter a write transaction for what is not a command (tickets, snapshots, observations)."""
        with self._store.transaction(purpose=purpose, timeout_s=self._timeout_s) as tx:
            yield tx


def _streams(command: Command | LifeCommand) -> tuple[StreamId, ...]:
    """Return the streams whose states deciding a command needs."""
    return (node_stream(command.node),) if isinstance(command, Command) else command.streams


def _after(state: NodeState | None, decided: Decision, stamp: Stamp) -> NodeState | None:
    """Return the state after the decision's events (its head is completed once they are stored)."""
    head = state.head if state is not None else Head()
    at_ms = max(stamp.now_ms, head.at_ms)
    for number, event in enumerate(decided.events, head.sequence + 1):
        state = advance(state, event, Head(number, max(stamp.epoch, head.epoch), at_ms, ""), stamp.boot_id)
    return state


def _bare_answer(decided: Decision, command: Command) -> Answer:
    return Answer(outcome=decided.outcome, node=command.node, changed=False, claim_id=decided.claim_id, message=decided.message)
