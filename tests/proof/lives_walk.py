"""Random lives of instances over three nodes, with a dictionary of claims as a second opinion that predicts everything but the places.

Rules of this file: a walk is made from its seed alone, so that every failure can be said again; the opinion knows requests, times and holders, and
nothing of grants but which claim was granted; after every step the whole ledger is compared with it and audited (invariants I1-I6).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from tests.proof.lives_opinion import (
    CONSUMERS,
    GRACE_MS,
    HOLD_MS,
    KINDS,
    OUTCOMES,
    PIDS,
    REPLAY_EVERY,
    REQUESTS,
    STATES,
    WINDOW_MS,
    Held,
    Moving,
    books,
)
from tests.proof.lives_told import Told

from earmark.core.ledger.commands import Answer
from earmark.core.ledger.life_commands import LifeAnswer
from earmark.core.ledger.state import NodeState
from earmark.core.model.ids import ClaimId, StreamId, consumer_stream, node_stream
from earmark.core.model.instance import FREEING, Move
from earmark.core.model.refusal import Refusal
from earmark.core.model.request import Request
from earmark.errors import Conflict, InvalidRequest, UnknownClaim
from earmark.testing import assert_sound
from earmark.tracker.history import State, judged


class Walk(Told):
    """One life of three nodes, made from a seed; `trace` says what was done."""

    # --- walking --------------------------------------------------------------------------------------------------------------------

    def walk(self, steps: int) -> Walk:
        """Take some steps, checking everything after each; a failure says how it can be had again."""
        try:
            for _ in range(steps):
                self.step()
        except BaseException as error:
            error.add_note(f"walk {self.seed}, step {self.steps}; the last of it:\n  " + "\n  ".join(self.trace[-12:]))
            raise
        return self

    def step(self) -> None:
        """Take one step."""
        self.steps += 1
        act = self.rnd.choices(ACTS, WEIGHTS)[0]
        self.trace.append(act.__name__)
        act(self)
        self.check()

    # --- time -----------------------------------------------------------------------------------------------------------------------

    def now(self, *nodes: str) -> int:
        """Return the time as the ledger takes it on some nodes."""
        times: list[int] = [self.tracker.node(self.ids[node]).at_ms for node in nodes]
        return max(self.clock.now_ms(), *times)

    def dead(self, pid: int) -> bool:
        """Say whether a process is proven gone."""
        return self.processes.fates.get(pid) == "dead"

    def believe_swept(self, node: str, now: int) -> None:
        """Believe what time and deaths do to a node."""
        for key, claim in sorted(self.opinion.live.items()):
            if claim.node != node or claim.cause == "evacuated" or (claim.move and claim.phase != "draining"):
                continue
            self._believe_due(key, claim, now)
        for claim in [claim for _, claim in sorted(self.opinion.live.items()) if claim.node == node and claim.leg == "destination"]:
            if claim.phase == "draining" or claim.move is None or self.opinion.moves[claim.move].outcome is not None:
                continue
            alive = any(self.processes.fates.get(pid, "alive") == "alive" for pid in claim.holders)
            window = self.opinion.moves[claim.move].kind in ("resize", "migration") and node == "n1"
            begun = claim.phase == "held"  # of a finished move it is somebody's decision which side is to stay
            if begun and claim.holders and all(map(self.dead, claim.holders)):
                self.believe_ended(claim.move, "abort")
            elif begun and claim.deadline_ms is not None and now >= claim.deadline_ms and not alive:
                self.believe_ended(claim.move, "expire")
            elif window and claim.confirmed_ms is not None and now - claim.confirmed_ms >= WINDOW_MS:
                self.believe_ended(claim.move, "confirm")

    def _believe_due(self, key: str, claim: Held, now: int) -> None:
        left = [pid for pid in claim.holders if not self.dead(pid)]
        if claim.phase != "draining":
            if claim.deadline_ms is not None and now >= claim.deadline_ms:
                cause = "expired"
            elif claim.holders and not left:
                cause = "holder_gone"
            else:
                return
            claim.phase, claim.cause, claim.since_ms = "draining", cause, now
        if claim.holders and not left:
            self.over(key, str(claim.cause))
        elif now - claim.since_ms >= GRACE_MS and not any(self.processes.fates.get(pid, "alive") == "alive" for pid in left):
            self.opinion.kept[key] = claim
            self.over(key, str(claim.cause))

    def over(self, key: str, cause: str) -> None:
        """Believe that a claim has ended."""
        del self.opinion.live[key]
        self.opinion.ended[key] = cause

    def end(self, key: str, cause: str) -> None:
        """Believe that a claim is to end: at once if no process is left that holds it."""
        claim = self.opinion.live[key]
        if any(not self.dead(pid) for pid in claim.holders):
            claim.phase, claim.cause, claim.since_ms = "draining", cause, self.now(claim.node)
        else:
            self.over(key, cause)

    def believe_ended(self, move_id: str, how: str) -> bool:
        """Believe that a move was ended so; says whether that changes anything."""
        move = self.opinion.moves[move_id]
        if move.outcome is not None:
            return False
        pairs = [(self.opinion.live[one], one, self.opinion.live[two], two) for one, two in move.pairs]
        if how == "finish":
            held = [target for _, _, target, _ in pairs if target.phase == "held"]
            for target in held:
                target.phase, target.deadline_ms, target.confirmed_ms = "confirmed", None, self.now(target.node)
            return bool(held)
        move.outcome = OUTCOMES[how]
        for source, source_id, target, target_id in pairs:
            if how == "confirm":
                source.passed, target.named = source.passed + target.named, 0
                if move.kind == "evacuation":
                    source.phase, source.cause, source.since_ms, source.purpose = "draining", "evacuated", self.now(source.node), "leg"
                else:
                    purpose, source.purpose = source.purpose, "leg"
                    target.purpose = purpose
                    self.end(source_id, "moved")
                target.purpose = "attach" if target is not pairs[0][2] else "main"
                if target.phase == "held" or target.deadline_ms is not None:
                    target.phase, target.deadline_ms, target.confirmed_ms = "confirmed", None, self.now(target.node)
                target.move = target.leg = None
            else:
                self.end(target_id, OUTCOMES[how])
                source.move = source.leg = None
        return True

    # --- what must hold -------------------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Compare the ledger with the opinion, and let the auditor look."""
        before = self.heads()
        states: list[tuple[StreamId, State]] = []
        live: set[str] = set()
        for name, node in self.ids.items():
            state = self.tracker.node(node)
            self._agree(name, state)
            states.append((node_stream(node), state))
            live.update(state.claims)
            slots = [slot for _, grant in state.grants() for row in grant.units for slot in row.occupied]
            assert len(slots) == len(set(slots)), "a unit has two holders (I2)"
        assert live == set(self.opinion.live)
        newest = list(self.opinion.moves)[-3:]
        for key, move in self.opinion.moves.items():
            if move.outcome is None or key in newest:
                self._agree_move(key, move)
        for consumer, (state_name, task) in self.opinion.known.items():
            known = self.tracker.instance(consumer)
            assert (known.instance.state, known.instance.task) == (state_name, task)
            states.append((consumer_stream(known.consumer), known))
        found = self.tracker.audit() if self.steps % REPLAY_EVERY == 0 else tuple(judged(self.store, states))
        assert [finding for finding in found if finding.severity == "error"] == []
        assert self.heads() == before, "looking has changed something (I3)"

    def _agree(self, name: str, state: NodeState) -> None:
        assert books(state) == self.opinion.used(name), f"books of {name} are {books(state)}, not {self.opinion.used(name)} (I1)"
        for key, claim in state.claims.items():
            held = self.opinion.live[key]
            one = (claim.phase, claim.purpose, claim.consumer, claim.move, claim.leg, claim.deadline_ms, claim.cause)
            assert one == (held.phase, held.purpose, held.consumer, held.move, held.leg, held.deadline_ms, held.cause), key
            assert tuple(holder.pid for holder in claim.holders) == held.holders
            assert (held.node, len(claim.named)) == (name, held.named)
        assert set(state.quarantines) == {key for key, kept in self.opinion.kept.items() if kept.node == name}
        assert (state.retired is not None, state.disabled is not None) == (name in self.opinion.retired, name in self.opinion.closed)

    def _agree_move(self, key: str, move: Moving) -> None:
        status = self.tracker.move_status(self.tracker.find_move(key))
        if move.outcome is not None:
            assert status == move.outcome, f"status of {key}"
            return
        target = self.opinion.live[move.pairs[0][1]]
        assert status == ("finished" if target.phase == "confirmed" else "preparing"), f"status of {key}"

    # --- the steps ------------------------------------------------------------------------------------------------------------------

    def time_passes(self) -> None:
        """The clock moves, backwards too."""
        self.clock.move(self.rnd.choice((1, 500, 30_000, GRACE_MS, HOLD_MS, WINDOW_MS, -1, -30_000)))

    def fate(self) -> None:
        """A process dies or cannot be seen any more; now and then all dead ones are other processes again."""
        pid = self.rnd.choice(PIDS)
        if self.dead(pid) and not any(pid in claim.holders for claim in (*self.opinion.live.values(), *self.opinion.kept.values())):
            self.processes.fates[pid] = "alive"
        elif not self.dead(pid):
            self.processes.fates[pid] = self.rnd.choice(("dead", "unknown", "alive"))

    def reopened(self) -> None:
        """The program ends and another one opens the same ledger: it sees the same (I6)."""
        before = [self.tracker.node(node) for node in self.ids.values()]
        self.begin_anew()
        assert [self.tracker.node(node) for node in self.ids.values()] == before

    def sweep(self) -> None:
        """Time and deaths take effect on a node."""
        self.sweep_one(self.rnd.choice(tuple(self.ids)))

    def sweep_one(self, node: str) -> None:
        """Sweep a node and believe it."""
        now = self.now(node)
        self.tracker.sweep(self.ids[node])
        self.believe_swept(node, now)

    def settle(self) -> None:
        """Sweep all nodes until nothing is due anywhere."""
        while True:
            before = self.heads()
            for node in self.ids:
                self.sweep_one(node)
            if self.heads() == before:
                return

    def holders(self) -> list[Any]:
        """Return some living processes."""
        pids = [pid for pid in PIDS if not self.dead(pid)]
        count = self.rnd.choices((0, 1, 2), (6, 2, 1))[0]
        return [self.tracker.holder(pid) for pid in self.rnd.sample(pids, min(count, len(pids)))]

    def hold(self) -> None:
        """A claim is wanted on a node: a build, or something attached."""
        self.settle()
        consumer, node = self.some_consumer(moving=False), self.rnd.choice(tuple(self.ids))
        purpose = self.rnd.choice(("main", "main", "main", "attach"))
        request, confirm, holders = self.rnd.choice(REQUESTS), self.rnd.random() < 0.7, self.holders()
        self.number += 1
        key = ClaimId(f"c-{self.number:06d}")
        self.serials[key] = len(self.serials)
        self.said(f"{self.serial(key)} {purpose} {consumer} on {node} {request}")
        now = self.now(node)
        found, _ = self.say(
            lambda: self.tracker.hold(
                request, consumer=consumer, node=self.ids[node], purpose=purpose, confirm=confirm, holders=holders, claim_id=key, key=key
            )
        )
        has_main = any(claim.purpose == "main" for claim in self.opinion.of(consumer).values())
        main = self.opinion.live.get(self.opinion.main(consumer) or "")
        if purpose == "attach" and main is not None and main.move is not None and main.node == node:
            assert isinstance(found, Conflict | Refusal), "something is attached in the middle of a move"
            return
        if isinstance(found, Refusal):
            assert found.reasons
            return
        assert isinstance(found, Answer), found
        assert not (purpose == "main" and has_main)
        assert node not in self.opinion.closed | self.opinion.retired
        self.opinion.live[key] = Held(
            node, consumer, request, purpose, "confirmed" if confirm else "held", None if confirm else now + HOLD_MS,
            tuple(holder.pid for holder in holders), confirmed_ms=now if confirm else None,
        )  # fmt: skip

    def some_consumer(self, *, moving: bool) -> str:
        """Return a consumer, mostly one that can be moved, or one that can be built."""
        fit = [each for each in CONSUMERS if (self.opinion.main(each) is not None and self.opinion.open_move(each) is None) == moving]
        return self.rnd.choice(fit if fit and self.rnd.random() < 0.8 else CONSUMERS)

    def picked(self) -> str | None:
        """Return a claim that lives or lived."""
        everything = [*self.in_order(self.opinion.live), *self.in_order(self.opinion.live), *self.in_order(self.opinion.ended)]
        return self.rnd.choice(everything) if everything else None

    def in_order(self, claims: Iterable[str]) -> list[str]:
        """Return some claims in the order in which they came to be: their ids may differ from one walk to the next."""
        return sorted(claims, key=self.serials.__getitem__)

    def serial(self, key: str) -> str:
        """Return what a step calls a claim."""
        return f"#{self.serials[key]}"

    def confirm_claim(self) -> None:
        """A claim is confirmed, twice."""
        key = self.picked()
        if key is None:
            return
        claim = self.opinion.live.get(key)
        self.said(self.serial(key))
        now = self.now(claim.node) if claim is not None else 0
        found, first = self.say(lambda: self.tracker.confirm(key))
        late = claim is not None and claim.deadline_ms is not None and now >= claim.deadline_ms
        if claim is None or claim.phase == "draining" or (claim.phase == "held" and (late or claim.move is not None)):
            assert isinstance(found, Conflict)
            return
        assert isinstance(found, Answer), found
        assert found.changed == (first and claim.phase == "held")
        if claim.phase == "held":
            claim.phase, claim.deadline_ms, claim.holders, claim.confirmed_ms = "confirmed", None, (), now
        self.unchanged(lambda: self.tracker.confirm(key))

    def release(self) -> None:
        """A claim is released or aborted, twice; a leg of an open move is not."""
        key = self.picked()
        if key is None:
            return
        claim = self.opinion.live.get(key)
        how = self.rnd.choice(("release", "release", "abort"))
        self.said(f"{how} {self.serial(key)}")
        found, first = self.say(lambda: getattr(self.tracker, how)(key))
        if claim is None:
            assert (found.outcome, found.changed, found.cause) == ("released", False, self.opinion.ended[key])
            return
        if (claim.move is not None and claim.phase != "draining") or (how == "abort" and claim.phase == "confirmed"):
            assert isinstance(found, Conflict)
            return
        assert isinstance(found, Answer), found
        drains = claim.phase == "draining"
        left = any(not self.dead(pid) for pid in claim.holders)
        assert found.changed == (first and not (drains and left))
        if not drains:
            self.end(key, "released" if how == "release" else "aborted")
        elif not left:
            self.over(key, str(claim.cause))

    def open_move(self) -> None:
        """A consumer is to move, to another node or on its own; said twice. What is refused lets what is due take effect, so that comes first."""
        self.settle()
        consumer, kind = self.some_consumer(moving=True), self.rnd.choice(KINDS)
        to = self.rnd.choice((None, None, *self.ids, *self.ids))
        request = self.rnd.choice((None, *REQUESTS)) if kind == "resize" else None
        ttl = self.rnd.choice((None, None, HOLD_MS, 1000))
        holders = self.holders()
        self.number += 1
        move_id = f"m-{self.number:06d}"
        main = self.opinion.main(consumer)
        held = self.opinion.live[main] if main is not None else None
        target = (to or held.node) if held is not None else None
        self.said(f"{move_id} {kind} {consumer} to {to} {request}")
        now = self.now(target) if target is not None else 0

        def command() -> Any:
            return self.tracker.open_move(
                consumer, kind, to=self.ids[to] if to is not None else None, request=request, ttl_ms=ttl, holders=holders, move_id=move_id
            )

        found, first = self.say(command)
        if held is None or main is None or target is None:
            assert isinstance(found, UnknownClaim)
        elif self.opinion.open_move(consumer) is not None:
            assert isinstance(found, Conflict)
        elif held.node == target and kind in ("live_migration", "evacuation"):
            assert isinstance(found, InvalidRequest)
        elif isinstance(found, Refusal):
            assert found.reasons
        else:
            assert isinstance(found, LifeAnswer), found
            assert (found.outcome, found.changed, found.status) == ("opened", first, "preparing")
            assert target not in self.opinion.closed | self.opinion.retired
            assert found.move is not None
            self.believe_opened(found.move, main, target, request, None if ttl is None else now + ttl, holders)
            again = self.unchanged(command)
            assert (again.outcome, again.changed) == ("opened", False)

    def believe_opened(
        self, move: Move, main: str, target: str, request: Request | None, deadline_ms: int | None, holders: list[Any]
    ) -> None:  # fmt: skip
        """Believe that a move was opened: which claims it leaves, and what it takes for them."""
        held = self.opinion.live[main]
        expected = [main]
        if target != held.node:
            others = self.opinion.of(held.consumer).items()
            expected += [key for key, one in others if one.purpose == "attach" and one.node == held.node and one.phase != "draining"]
        pairs = [
            (pair.source.claim, pair.destination.claim) for pair in move.legs if pair.source is not None and pair.destination is not None
        ]
        assert [source for source, _ in pairs] == expected
        if held.consumer not in self.opinion.known:
            self.opinion.known[held.consumer] = ("active" if held.phase == "confirmed" else "building", None)
        self.opinion.moves[move.id] = Moving(held.consumer, move.kind, [(str(one), str(two)) for one, two in pairs], target)
        for source_id, new in sorted(pairs, key=lambda pair: self.serials[pair[0]]):
            self.serials[new] = len(self.serials)
            source = self.opinion.live[source_id]
            wish = request if request is not None and source_id == main else source.request
            named = 0
            if source.node == target:
                have, want = (sum(device.count for device in each.devices) for each in (source.request, wish))
                named = min(have, want)
            source.move, source.leg = move.id, "source"
            self.opinion.live[new] = Held(
                target, held.consumer, wish, "leg", deadline_ms=deadline_ms, holders=tuple(holder.pid for holder in holders), move=move.id,
                leg="destination", named=named,
            )  # fmt: skip

    def end_move(self) -> None:
        """A move, open or long over, is stepped on, in any order and twice."""
        if not self.opinion.moves:
            return
        everything = list(self.opinion.moves)
        running = [key for key in everything if self.opinion.moves[key].outcome is None]
        key = self.rnd.choice(running) if running and self.rnd.random() < 0.8 else self.rnd.choice(everything)
        move = self.opinion.moves[key]
        how, say = self.rnd.choice(
            (
                ("finish", lambda: self.tracker.finish_move(key)), ("confirm", lambda: self.tracker.confirm_move(key)),
                ("confirm", lambda: self.tracker.drop_move(key, "source")), ("revert", lambda: self.tracker.revert_move(key)),
                ("revert", lambda: self.tracker.drop_move(key, "destination")), ("abort", lambda: self.tracker.abort_move(key)),
            )
        )  # fmt: skip
        self.said(f"{how} {key} of {move.consumer}, {move.outcome or 'open'}")
        was = move.outcome
        found, first = self.say(say)
        changes = self.believe_ended(key, how)
        assert isinstance(found, LifeAnswer), found
        assert found.outcome == (was or ("finished" if how == "finish" else OUTCOMES[how]))
        assert found.changed == (changes and first)
        assert changes == (first and found.changed) or not first
        again = self.unchanged(say)
        assert again.outcome == (move.outcome or "finished")

    def report(self) -> None:
        """A state of an instance is reported; only two of them free anything."""
        consumer = self.rnd.choice(CONSUMERS)
        state = self.rnd.choice((*STATES, "deleted"))
        task = self.rnd.choice((None, None, "rebuilding"))
        self.said(f"{consumer} {state} {task}")
        known = self.opinion.known.get(consumer)
        found, first = self.say(lambda: self.tracker.report(consumer, state, task=task))
        if known is not None and known[0] == "deleted" and state != "deleted":
            assert isinstance(found, Conflict)
            return
        assert isinstance(found, LifeAnswer), found
        freed = False
        if state in FREEING and (state == "deleted" or known is None or known[0] != state):
            freed = self.believe_freed(consumer, "deleted" if state == "deleted" else "released")
        assert found.changed == (first and (freed or known != (state, task)))
        if known != (state, task) and not (freed and known is not None and known == (state, task)):
            self.opinion.known[consumer] = (state, task)
        self.unchanged(lambda: self.tracker.report(consumer, state, task=task))

    def believe_freed(self, consumer: str, cause: str) -> bool:
        """Believe that all that a consumer holds was given back; says whether that changes a claim."""
        changed = False
        for key, claim in self.opinion.of(consumer).items():
            left = any(not self.dead(pid) for pid in claim.holders)
            if claim.phase != "draining":
                self.end(key, cause)
                changed = True
            elif claim.holders and not left:
                self.over(key, str(claim.cause))
                changed = True
        move = self.opinion.open_move(consumer)
        if move is not None:
            self.opinion.moves[move].outcome = "deleted"
        return changed

    def create(self) -> None:
        """An instance is made known, or made anew."""
        consumer = self.rnd.choice(CONSUMERS)
        known = self.opinion.known.get(consumer)
        found, first = self.say(lambda: self.tracker.create(consumer))
        assert isinstance(found, LifeAnswer), found
        new = known is None or known[0] == "deleted"
        assert found.changed == (first and new)
        if new:
            self.opinion.known[consumer] = ("building", None)

    def came_back(self) -> None:
        """An evacuated host is back: what was evacuated from it is free."""
        node = self.rnd.choice(tuple(self.ids))
        found, first = self.say(lambda: self.tracker.came_back(self.ids[node]))
        gone = [key for key, claim in self.opinion.live.items() if claim.node == node and claim.cause == "evacuated"]
        assert found.changed == (first and bool(gone))
        for key in gone:
            self.over(key, "evacuated")

    def give_back(self) -> None:
        """A person returns what is in quarantine."""
        if self.opinion.kept:
            key = self.rnd.choice(self.in_order(self.opinion.kept))
            found, first = self.say(lambda: self.tracker.give_back(key, "looked at it"))
            assert found.changed == first
            del self.opinion.kept[key]

    def close_node(self) -> None:
        """A node is disabled or retired, or open again."""
        node = self.rnd.choice(tuple(self.ids))
        kinds: dict[str, tuple[set[str], str]] = {"closed": (self.opinion.closed, "disable"), "retired": (self.opinion.retired, "retire")}
        chosen, verb = kinds[self.rnd.choice(("closed", "retired"))]
        if node in chosen:
            self.say(lambda: self.tracker.enable(self.ids[node]) if verb == "disable" else self.tracker.restore(self.ids[node]))
            chosen.discard(node)
        elif self.rnd.random() < 0.3:
            self.say(
                lambda: self.tracker.disable("sick", self.ids[node]) if verb == "disable" else self.tracker.retire(self.ids[node], "old")
            )
            chosen.add(node)

    def close(self) -> None:
        """Verify the whole ledger, link by link, and fold it anew (I6); every move is still what it was."""
        for key, move in self.opinion.moves.items():
            self._agree_move(key, move)
        assert_sound(self.tracker)
        self.store.close()


ACTS: tuple[Callable[[Walk], None], ...] = (
    Walk.time_passes, Walk.fate, Walk.reopened, Walk.sweep, Walk.hold, Walk.confirm_claim, Walk.release, Walk.open_move, Walk.end_move,
    Walk.report, Walk.create, Walk.came_back, Walk.give_back, Walk.close_node,
)  # fmt: skip
WEIGHTS = (7, 3, 2, 6, 18, 4, 5, 24, 28, 7, 2, 3, 4, 2)


def seeds(first: int, steps: int, each: int) -> Iterator[tuple[int, int]]:
    """Yield seeds and how many steps to walk with each, until there are enough steps."""
    while steps > 0:
        yield first, min(each, steps)
        first, steps = first + 1, steps - each
