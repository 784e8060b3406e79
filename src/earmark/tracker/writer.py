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
from typing import TypeVar, overload

import msgspec

from earmark.clock import Clock
from earmark.core.ledger.codec import Batch, Head, Stamp
from earmark.core.ledger.commands import Answer, Command, HoldClaim, RegisterNode
from earmark.core.ledger.consumer import ConsumerState
from earmark.core.ledger.decide import answer_of, decide
from earmark.core.ledger.decide_life import life_answer
from earmark.core.ledger.decision import Decision, Facts
from earmark.core.ledger.fold import advance
from earmark.core.ledger.life_commands import LifeAnswer, LifeCommand
from earmark.core.ledger.state import NodeState
from earmark.core.model.ids import ClaimId, ConsumerId, StreamId, consumer_stream, node_stream
from earmark.core.model.refusal import Refusal
from earmark.errors import EarmarkError, InvalidRequest, KeyReused, LedgerUnavailable, LockTimeout, OutcomeUnknown
from earmark.locks import NamedLock
from earmark.logs import log
from earmark.stores.contract import ANSWERS_KEPT_MS, Reader, Remembered, Store, Transaction
from earmark.tracker import life_turn, snapshots
from earmark.tracker.life_turn import State
from earmark.tracker.names import NodeNames

GROUP_MAX = 256
"""Commands in one commit, at most."""
SNAPSHOT_EVERY = 1000
"""Events of a stream between two snapshots, at least."""
SNAPSHOT_PER_CLAIM = 2
"""And at least this many events for each live claim, so that the cost of an image stays a constant share."""
CONSUMERS_KEPT_MAX = 4096
"""States of consumers that a process remembers."""

Result = Answer | LifeAnswer | Refusal
AnyCommand = TypeVar("AnyCommand", bound=Command | LifeCommand)


class Key(msgspec.Struct, frozen=True):
    """An idempotency key of an owner, and the digest of what was asked under it."""

    owner: str
    key: str
    digest: str


class Work:
    """One command on its way through the queue; `done` is set when it was answered or when its caller is to lead.

    `taken`: a leader has it; `decided`: its group goes to the commit; `handed_on`: its caller leads no more.
    """

    __slots__ = ("command", "correlation", "decided", "done", "error", "handed_on", "key", "lead", "result", "taken")

    def __init__(self, command: Command | LifeCommand, key: Key | None, correlation: str) -> None:
        self.command = command
        self.key = key
        self.correlation = correlation
        self.done = threading.Event()
        self.lead = False
        self.taken = False
        self.decided = False
        self.handed_on = False
        self.result: Result | None = None
        self.error: BaseException | None = None

    @property
    def answered(self) -> bool:
        """Whether there is a result or an error."""
        return self.result is not None or self.error is not None


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
        work = Work(checked(command), key, correlation)
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
        if work.error is not None:
            raise work.error
        if work.result is None:
            raise OutcomeUnknown("the writer ended without an answer; ask again with an idempotency key")
        return work.result

    def state(self, stream: StreamId) -> NodeState | None:
        """Return the state of a node's stream as the ledger has it now, None for no such stream."""
        state = self._now(stream)
        return state if isinstance(state, NodeState) else None

    def consumer(self, consumer: ConsumerId) -> ConsumerState | None:
        """Return what the ledger knows of a consumer beyond its claims now, None for nothing."""
        state = self._now(consumer_stream(consumer))
        return state if isinstance(state, ConsumerState) else None

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
                    work.error = _interrupted(work)
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
                    except EarmarkError as error:
                        results.append((work, error))
                kept = self._keep(tx, states)
                for work in group:
                    work.decided = True
        except EarmarkError as error:
            for work in group:
                work.error = _own(error)
            return
        self._publish(states)
        self._snapshots.update(kept)
        for work, result in results:
            if isinstance(result, EarmarkError):
                work.error = result
            else:
                work.result = result
                _say(work.command, result)

    def _one(self, tx: Transaction, states: dict[StreamId, State], work: Work) -> Result:
        """Decide one command and append what it leads to; `states` moves on only if the append succeeded."""
        command, key = work.command, work.key
        now_ms = self._clock.now_ms()
        kind = LifeAnswer if isinstance(command, LifeCommand) else Answer
        if key is not None and (known := _known_answer(tx, key, now_ms, kind)) is not None:
            return known
        if isinstance(command, LifeCommand):
            return self._life(tx, states, work, command, now_ms)
        stream = node_stream(command.node)
        state = self._node(tx, stream, states)
        decided = decide(state, command, self._facts(tx, state, command, now_ms, states))
        if isinstance(decided, Refusal):
            owner = command.owner if isinstance(command, HoldClaim) else self._actor
            tx.put_refusal(stream, owner, now_ms, msgspec.json.encode(decided))
            return decided
        head = state.head if state is not None else Head()
        stamp = self._stamp(stream, head, work, now_ms)
        after = _after(state, decided, stamp)
        answer = answer_of(decided, after) if after is not None else _bare_answer(decided, command)
        remember = _remembered(key, answer, now_ms) if key is not None else None
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
        world, decided = life_turn.decide_turn(tx, command, lambda stream: self._current(tx, stream, states), now_ms)
        if isinstance(decided, Refusal):
            tx.put_refusal(life_turn.refusal_stream(command), self._actor, now_ms, msgspec.json.encode(decided))
            return decided
        answer = life_answer(decided, command, decided.after)
        remember = _remembered(work.key, answer, now_ms) if work.key is not None else None
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
            asks = command.purpose == "main" and str(command.consumer) != command.claim  # a consumer made up for this claim has no other
            main = tx.main_claim(command.consumer) if asks else None
            return Facts(now_ms=now_ms, main=main.claim if main is not None else None)
        claim: ClaimId | None = getattr(command, "claim", None)
        if claim is None or (state is not None and claim in state.claims):
            return Facts(now_ms=now_ms)
        row = tx.claim(claim)
        return Facts(now_ms=now_ms, ended=row.cause if row is not None else None)

    def _node(self, reader: Reader, stream: StreamId, states: dict[StreamId, State]) -> NodeState | None:
        state = self._current(reader, stream, states)
        return state if isinstance(state, NodeState) else None

    def _current(self, reader: Reader, stream: StreamId, states: dict[StreamId, State]) -> State | None:
        """Return the state at the stream's end: from this group, else the published one and what came since, else from a snapshot."""
        known: State | None = states.get(stream)
        if known is not None:
            return known
        known = self._states.get(stream) or self._consumers.get(stream)
        head = reader.head(stream)
        if head.sequence == 0:
            return None
        if known is None:
            known = snapshots.newest(reader, stream)
            self._snapshots[stream] = known.sequence if known is not None else 0
        while known is None or known.head.sequence < head.sequence:
            page = reader.read(stream, known.head.sequence if known is not None else 0)
            if not page:
                break
            known = life_turn.folded(stream, known, list(page))
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


def _own(error: EarmarkError) -> EarmarkError:
    """Return an error of its own for one of several callers, so that no thread writes notes or a traceback on another's."""
    same = type(error)(error.message, **error.facts)
    same.__cause__ = error
    return same


def _say(command: Command | LifeCommand, result: Result) -> None:
    """Log one line about a decision that is durable now (an answer that changed nothing is none)."""
    if isinstance(result, Refusal):
        log("claim.refused", node=result.node, reasons=len(result.reasons), code=result.reasons[0].code)
    elif isinstance(result, LifeAnswer):
        if result.changed:
            noun = "move" if result.move is not None else "instance"
            log(
                f"{noun}.{result.outcome}",
                consumer=command.consumer if isinstance(command, LifeCommand) else None,
                move=result.move.id if result.move else None,
            )
    elif result.changed:
        noun = "claim" if result.claim_id is not None else "node"
        log(f"{noun}.{result.outcome}", node=result.node, claim=result.claim_id, cause=result.cause)


def command_id(stream: StreamId, head: Head) -> str:
    """Return the id of the command whose first event follows a head: no two commands of any writer share it."""
    return f"{stream}@{head.sequence + 1}"


def encoded(value: object) -> bytes:
    """Return a value as JSON; raises InvalidRequest for what JSON cannot hold (numbers past 64 bits, lone surrogates, strange types)."""
    try:
        return msgspec.json.encode(value)
    except (OverflowError, TypeError, ValueError, RecursionError) as error:
        raise InvalidRequest(f"{type(value).__name__}: {error}") from error


def checked(command: AnyCommand) -> AnyCommand:
    """Return a command made of exactly what its types allow, as if it had come from outside; raises InvalidRequest."""
    try:
        return msgspec.json.decode(encoded(command), type=type(command))
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidRequest(f"{type(command).__name__}: {error}", found=str(error)) from error


def _interrupted(work: Work) -> EarmarkError:
    name = type(work.command).__name__
    if work.decided:
        return OutcomeUnknown(f"{name}: the writer was interrupted at the commit; the ledger shows whether it has happened")
    return LedgerUnavailable(f"{name}: the writer was interrupted before the commit; nothing has happened")


def _after(state: NodeState | None, decided: Decision, stamp: Stamp) -> NodeState | None:
    """Return the state after the decision's events (its head is completed once they are stored)."""
    head = state.head if state is not None else Head()
    at_ms = max(stamp.now_ms, head.at_ms)
    for number, event in enumerate(decided.events, head.sequence + 1):
        state = advance(state, event, Head(number, max(stamp.epoch, head.epoch), at_ms, ""), stamp.boot_id)
    return state


def _bare_answer(decided: Decision, command: Command) -> Answer:
    return Answer(outcome=decided.outcome, node=command.node, changed=False, claim_id=decided.claim_id, message=decided.message)


def _known_answer(tx: Reader, key: Key, now_ms: int, kind: type[Answer | LifeAnswer]) -> Answer | LifeAnswer | None:
    """Return the first answer to the same command under a key; raises KeyReused for another command."""
    known = tx.answer(key.owner, key.key)
    if known is None or known.at_ms < now_ms - ANSWERS_KEPT_MS:
        return None
    if known.digest != key.digest:
        raise KeyReused(f"key {key.key!r} of {key.owner} was used for another command", key=key.key, owner=key.owner)
    return msgspec.json.decode(known.answer, type=kind)


def _remembered(key: Key, answer: Answer | LifeAnswer, now_ms: int) -> Remembered:
    return Remembered(key.owner, key.key, key.digest, msgspec.json.encode(answer), now_ms)
