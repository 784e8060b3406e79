"""Any order of everything that can be done with a node, with a dictionary as a second opinion and the auditor after each step."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test
from msgspec.structs import replace
from tests.ledger.steps import BASE, MACHINES, SETTINGS, prescribed, random, request

from earmark.core.ledger.audit import audit_consumers, audit_node
from earmark.core.ledger.commands import Answer
from earmark.core.ledger.state import NodeState
from earmark.core.model.claim import Claim, Holder
from earmark.core.model.grant import Grant
from earmark.core.model.ids import ClaimId, node_stream
from earmark.core.model.refusal import Refusal
from earmark.errors import Conflict, EarmarkError, GenerationConflict, InvalidRequest, UnknownUnit
from earmark.stores.contract import Store
from earmark.stores.memory import MemoryStore
from earmark.stores.sqlite.store import SqliteStore
from earmark.testing import NODE_ONE, UNRESERVED, Bench, GivenClock, GivenHost, GivenProcesses, assert_sound, on
from earmark.tracker.tracker import Tracker

pytestmark = pytest.mark.long

GRACE_MS = 60_000
HOLD_MS = 600_000
PIDS = range(101, 106)
PICK = st.integers(0, 1 << 30)
STREAM = node_stream(NODE_ONE)


@dataclass
class Believed:
    """What the second opinion believes of one claim."""

    grant: Grant
    consumer: str
    main: bool
    phase: str = "held"
    deadline_ms: int | None = None
    holders: tuple[Holder, ...] = ()
    since_ms: int | None = None
    cause: str | None = None
    generation: int = 1


@dataclass
class Opinion:
    """The second opinion: dictionaries, and nothing from the program but the grants that it gave."""

    live: dict[ClaimId, Believed] = field(default_factory=dict)
    ended: dict[ClaimId, str] = field(default_factory=dict)
    kept: dict[ClaimId, Grant] = field(default_factory=dict)
    cordons: dict[str, int | None] = field(default_factory=dict)

    def used(self) -> dict[str, int]:
        """Return the sum of each pool."""
        sums: dict[str, int] = {}
        for grant in [*(claim.grant for claim in self.live.values()), *self.kept.values()]:
            for row in grant.amounts:
                sums[row.pool] = sums.get(row.pool, 0) + row.amount
        return sums

    def units(self) -> list[str]:
        """Return every unit that is held, as often as it is held."""
        return [row.unit for grant in [*(claim.grant for claim in self.live.values()), *self.kept.values()] for row in grant.units]


class NodeMachine(RuleBasedStateMachine):
    """A tracker, the world it lives in, and the opinion."""

    def make_store(self) -> Store:
        """Return an empty store."""
        return MemoryStore()

    def close(self) -> None:
        """Release what the store took."""

    @initialize()
    def begin(self) -> None:
        """Open a tracker on an empty ledger."""
        self.clock, self.host, self.processes = GivenClock(), GivenHost(BASE), GivenProcesses()
        self.world: Bench = on(self.make_store(), self.host, self.clock, self.processes, UNRESERVED)
        self.opinion = Opinion()
        self.number = 0
        self.everything: list[ClaimId] = []

    # --- what the world does --------------------------------------------------------------------------------------------------------

    @rule(ms=st.sampled_from((1, 500, 30_000, HOLD_MS, -1, -30_000, -HOLD_MS)))
    def time_passes(self, ms: int) -> None:
        """The clock moves, backwards too."""
        self.clock.move(ms)

    @rule(pid=st.sampled_from(PIDS), fate=st.sampled_from(("dead", "unknown", "alive")))
    def fate(self, pid: int, fate: str) -> None:
        """A process dies, or cannot be seen any more; the dead stay dead."""
        if self.processes.fates.get(pid) != "dead":
            self.processes.fates[pid] = fate  # type: ignore[assignment]  # drawn from the literal's values

    @rule(number=st.integers(0, len(MACHINES) - 1))
    def machine_changes(self, number: int) -> None:
        """The machine is another one when it is looked at."""
        self.host.seen = MACHINES[number]
        assert self.tracker.observe().outcome == "observed"
        assert not self.tracker.observe().changed

    @rule()
    def reopened(self) -> None:
        """Another program opens the same ledger: it sees the same node."""
        before = self.state
        other = self.world.reopened()
        after = other.tracker.node()
        if after.sequence == before.sequence:
            assert after == before
        else:
            self._swept(before, after)
        self.world = other

    # --- what callers do ------------------------------------------------------------------------------------------------------------

    @rule(seed=PICK, who=st.integers(0, 5), purpose=st.sampled_from(("main", "main", "attach")), confirm=st.booleans(),
          pids=st.lists(st.sampled_from(PIDS), max_size=2, unique=True), given=st.integers(0, 4))  # fmt: skip
    def hold(self, seed: int, who: int, purpose: str, confirm: bool, pids: list[int], given: int) -> None:
        """A claim is wanted, chosen or prescribed."""
        self.wanted(seed, who, purpose, confirm=confirm, pids=pids, given=given)

    @rule(seed=PICK, pids=st.lists(st.sampled_from(PIDS), max_size=1))
    def a_busy_moment(self, seed: int, pids: list[int]) -> None:
        """Several claims are wanted one after the other."""
        for number in range(5):
            self.wanted(seed + number, number, "attach", confirm=bool(number % 2), pids=pids, given=number)

    @rule()
    def a_long_silence(self) -> None:
        """Nobody says anything for so long that what was held is drained, and what drains is in quarantine."""
        for ms in (HOLD_MS, GRACE_MS):
            self.clock.move(ms)
            self.swept()

    def wanted(self, seed: int, who: int, purpose: str, *, confirm: bool, pids: list[int], given: int) -> None:
        """Ask for a claim and compare the answer."""
        rnd = random(seed)
        wish, grant = prescribed(rnd) if given == 0 else (request(rnd), None)
        self.number += 1
        claim_id = ClaimId(f"c-{self.number:06d}")
        before = self.state
        holders = [self.tracker.holder(pid) for pid in pids if self.processes.fates.get(pid) != "dead"]
        would: Grant | Refusal | None = self.tracker.fit(wish, grant=grant)
        answer = self.tracker.hold(
            wish, consumer=f"vm{who}", purpose=purpose, grant=grant, confirm=confirm, holders=holders, claim_id=claim_id  # type: ignore[arg-type]  # drawn from the literal's values
        )  # fmt: skip
        has_main = purpose == "main" and any(claim.main and claim.consumer == f"vm{who}" for claim in self.opinion.live.values())
        if has_main or isinstance(would, Refusal):  # a hold that cannot be lets what is due take effect, and is decided once more
            self.believe_swept(before)
            has_main = purpose == "main" and any(claim.main and claim.consumer == f"vm{who}" for claim in self.opinion.live.values())
            would = self.tracker.fit(wish, grant=grant) if isinstance(answer, Refusal) else None
        if isinstance(answer, Refusal):
            assert self.due(self.state) == []
            assert (self.state == before) == (self.state.sequence == before.sequence)
            assert answer.reasons
            assert has_main or isinstance(would, Refusal)
            return
        assert not has_main
        assert answer.claim is not None
        assert would is None or answer.claim.grant == would
        assert not {row.unit for row in answer.claim.grant.units} & set(self.opinion.units())
        deadline = None if confirm else self.now(before) + HOLD_MS
        self.everything.append(claim_id)
        self.opinion.live[claim_id] = Believed(
            answer.claim.grant, f"vm{who}", purpose == "main", "confirmed" if confirm else "held", deadline, tuple(holders),
            generation=2 if confirm else 1,
        )  # fmt: skip

    @precondition(lambda self: self.everything)
    @rule(pick=PICK, ttl=st.sampled_from((None, 1000, HOLD_MS)), generation=st.sampled_from((None, None, 1, 2)))
    def confirm(self, pick: int, ttl: int | None, generation: int | None) -> None:
        """A claim is confirmed, twice."""
        claim_id, claim = self.picked(pick)
        now = self.now(self.state)
        late = claim is not None and claim.phase == "held" and claim.deadline_ms is not None and now >= claim.deadline_ms
        if self.stale(claim, generation) or claim is None or claim.phase == "draining" or late:
            self.refused(lambda: self.tracker.confirm(claim_id, ttl_ms=ttl, generation=generation), Conflict)
            return
        answer = self.tracker.confirm(claim_id, ttl_ms=ttl, generation=generation)
        assert answer.changed == (claim.phase == "held")
        if answer.changed:
            self.moved(claim, phase="confirmed", deadline_ms=None if ttl is None else now + ttl, holders=())
        self.again(lambda: self.tracker.confirm(claim_id, ttl_ms=ttl))

    @precondition(lambda self: self.everything)
    @rule(pick=PICK, ttl=st.sampled_from((None, 1, 5000, HOLD_MS)))
    def renew(self, pick: int, ttl: int | None) -> None:
        """A claim gets another deadline."""
        claim_id, claim = self.picked(pick)
        now = self.now(self.state)
        if claim is None or claim.phase == "draining":
            self.refused(lambda: self.tracker.renew(claim_id, ttl), Conflict)
        elif ttl is None and claim.phase == "held":
            self.refused(lambda: self.tracker.renew(claim_id, ttl), InvalidRequest)
        elif claim.deadline_ms is not None and now >= claim.deadline_ms:
            self.refused(lambda: self.tracker.renew(claim_id, ttl), Conflict)
        else:
            deadline = None if ttl is None else now + ttl
            assert self.tracker.renew(claim_id, ttl).changed == (claim.deadline_ms != deadline)
            if claim.deadline_ms != deadline:
                self.moved(claim, deadline_ms=deadline)
            self.again(lambda: self.tracker.renew(claim_id, ttl))

    @precondition(lambda self: self.everything)
    @rule(pick=PICK, pids=st.lists(st.sampled_from(PIDS), max_size=3, unique=True))
    def bind(self, pick: int, pids: list[int]) -> None:
        """A claim is bound to other processes."""
        claim_id, claim = self.picked(pick)
        holders = tuple(self.tracker.holder(pid) for pid in pids if self.processes.fates.get(pid) != "dead")
        if claim is None or claim.phase == "draining":
            self.refused(lambda: self.tracker.bind(claim_id, holders), Conflict)
            return
        assert self.tracker.bind(claim_id, holders).changed == (claim.holders != holders)
        if claim.holders != holders:
            self.moved(claim, holders=holders)
        self.again(lambda: self.tracker.bind(claim_id, holders))

    @precondition(lambda self: self.everything)
    @rule(pick=PICK, how=st.sampled_from(("released", "released", "aborted", "forced")), generation=st.sampled_from((None, None, 1, 2)))
    def end(self, pick: int, how: str, generation: int | None) -> None:
        """A claim is released, aborted or forced, twice; only proof makes it end at once."""
        claim_id, claim = self.picked(pick)

        def say() -> Answer:
            if how == "aborted":
                return self.tracker.abort(claim_id, generation=generation)
            return self.tracker.release(claim_id, force=how == "forced", generation=generation)

        if claim is None:
            answer = self.again(say)
            assert (answer.outcome, answer.cause) == ("released", self.opinion.ended[claim_id])
            return
        if self.stale(claim, generation):
            self.refused(say, GenerationConflict)
            return
        if how == "aborted" and claim.phase == "confirmed":
            self.refused(say, Conflict)
            return
        left = [holder for holder in claim.holders if not self.dead(holder)]
        proven = not left and (how != "forced" or bool(claim.holders))
        now = self.now(self.state)
        answer = say()
        if proven:
            assert (answer.outcome, answer.changed) == ("released", True)
            self.over(claim_id, claim.cause or how)
        else:
            assert (answer.outcome, answer.changed) == ("draining", claim.phase != "draining")
            if claim.phase != "draining":
                self.moved(claim, phase="draining", since_ms=now, cause=how)
        generation = None
        self.again(say)

    @rule()
    def sweep(self) -> None:
        """Time and deaths take effect."""
        self.swept()

    def swept(self) -> None:
        """Sweep and compare."""
        before = self.state
        answer = self.tracker.sweep()
        if answer is None:
            assert self.due(before) == []
            assert self.state == before
        else:
            self._swept(before, self.state)
            assert sorted(answer.touched) == sorted(set(answer.touched))

    @precondition(lambda self: self.opinion.kept)
    @rule(pick=PICK, whole=st.booleans())
    def give_back(self, pick: int, whole: bool) -> None:
        """A person returns a unit, or everything that a claim left, from quarantine; twice."""
        claim_id = sorted(self.opinion.kept)[pick % len(self.opinion.kept)]
        rows = self.opinion.kept[claim_id].units
        if whole or not rows:
            assert self.tracker.give_back(claim_id, "looked at it").changed
            del self.opinion.kept[claim_id]
            self.again(lambda: self.tracker.give_back(claim_id, "looked at it"))
            return
        unit = rows[pick % len(rows)].unit
        assert self.tracker.give_back(unit, "looked at it").changed
        left = tuple(row for row in rows if row.unit != unit)
        if left:
            self.opinion.kept[claim_id] = replace(self.opinion.kept[claim_id], units=left)
        else:
            del self.opinion.kept[claim_id]
        self.again(lambda: self.tracker.give_back(unit, "looked at it"))

    @rule(unit=st.sampled_from((None, "cpu:1", "cpu:6", "gpu:GPU-0", "cpu:99")), life=st.sampled_from((None, 1000)))
    def cordon(self, unit: str | None, life: int | None) -> None:
        """A unit or the node is closed to new claims; whoever holds it keeps it."""
        until = None if life is None else self.now(self.state) + life
        try:
            self.tracker.cordon(unit, "sick", until)
        except UnknownUnit:
            assert unit is not None
            return
        self.opinion.cordons[unit or ""] = until
        self.again(lambda: self.tracker.cordon(unit, "sick", until))

    @rule(unit=st.sampled_from((None, "cpu:1", "cpu:6", "gpu:GPU-0")))
    def uncordon(self, unit: str | None) -> None:
        """A cordon ends; ending none is an answer."""
        known = unit or ""
        try:
            answer = self.tracker.uncordon(unit)
        except UnknownUnit:
            assert known not in self.opinion.cordons
            return
        assert answer.changed == (known in self.opinion.cordons)
        self.opinion.cordons.pop(known, None)

    @rule(number=st.integers(0, len(SETTINGS) - 1))
    def configure(self, number: int) -> None:
        """The node gets other settings; what is held stays held."""
        try:
            self.tracker.configure(SETTINGS[number])
        except InvalidRequest:
            return
        self.again(lambda: self.tracker.configure(SETTINGS[number]))

    # --- what must hold -------------------------------------------------------------------------------------------------------------

    @invariant()
    def sound(self) -> None:
        """The auditor finds no error, and the opinion and the node say the same."""
        if not hasattr(self, "world"):
            return
        state = self.state
        findings = (*audit_node(state, self.world.store.slots(STREAM)), *audit_consumers([state]))
        assert [finding for finding in findings if finding.severity == "error"] == []
        assert set(state.claims) == set(self.opinion.live)
        for claim_id, believed in self.opinion.live.items():
            agree(state.claims[claim_id], believed)
        assert {claim: kept.grant for claim, kept in state.quarantines.items()} == self.opinion.kept
        assert dict(state.free.used) == self.opinion.used()
        assert len(self.opinion.units()) == len(set(self.opinion.units()))
        assert sorted(state.cordons) == sorted(self.opinion.cordons)

    def teardown(self) -> None:
        """Verify the whole ledger, link by link."""
        if hasattr(self, "world"):
            assert_sound(self.tracker)
            self.world.store.close()
        self.close()

    # --- within ---------------------------------------------------------------------------------------------------------------------

    @property
    def tracker(self) -> Tracker:
        """The tracker."""
        return self.world.tracker

    @property
    def state(self) -> NodeState:
        """The node now."""
        return self.world.tracker.node()

    def now(self, state: NodeState) -> int:
        """Return the time as the ledger takes it."""
        return max(self.clock.now_ms(), state.at_ms)

    def dead(self, holder: Holder) -> bool:
        """Say whether a holder is proven gone."""
        return self.processes.status(holder) == "dead"

    def picked(self, pick: int) -> tuple[ClaimId, Believed | None]:
        """Return a claim that was ever made, and what is believed of it while it lives."""
        claim_id = self.everything[pick % len(self.everything)]
        return claim_id, self.opinion.live.get(claim_id)

    def stale(self, claim: Believed | None, generation: int | None) -> bool:
        """Say whether a caller names a generation that the claim has no more."""
        return claim is not None and generation is not None and generation != claim.generation

    def moved(self, claim: Believed, **changes: object) -> None:
        """Believe that a claim has made a step."""
        for name, value in changes.items():
            setattr(claim, name, value)
        claim.generation += 1

    def over(self, claim_id: ClaimId, cause: str) -> None:
        """Believe that a claim has ended."""
        del self.opinion.live[claim_id]
        self.opinion.ended[claim_id] = cause

    def again(self, say: Callable[[], Answer]) -> Answer:
        """Say something a second time: it is an answer and not a change."""
        before = self.state
        answer = say()
        assert not answer.changed
        assert self.state == before
        return answer

    def refused(self, say: Callable[[], Answer], kind: type[EarmarkError]) -> None:
        """Say something that cannot be: it is an error of that kind and changes nothing."""
        before = self.state
        with pytest.raises(kind):
            say()
        assert self.state == before

    def due(self, state: NodeState) -> list[ClaimId]:
        """Return the claims for which the opinion sees something to do."""
        now = self.now(state)
        found = []
        for claim_id, claim in self.opinion.live.items():
            left = [holder for holder in claim.holders if not self.dead(holder)]
            expired = claim.phase != "draining" and claim.deadline_ms is not None and now >= claim.deadline_ms
            waited = claim.phase == "draining" and now - (claim.since_ms or 0) >= GRACE_MS
            alive = any(self.processes.status(holder) == "alive" for holder in left)
            if expired or (claim.holders and not left) or (waited and not alive):
                found.append(claim_id)
        return found

    def _swept(self, before: NodeState, after: NodeState) -> None:
        """Believe what a sweep must have done, and compare."""
        self.believe_swept(before)
        assert set(after.claims) == set(self.opinion.live)

    def believe_swept(self, before: NodeState) -> None:
        """Believe what a sweep must have done."""
        now = self.now(before)
        for claim_id in self.due(before):
            claim = self.opinion.live[claim_id]
            left = [holder for holder in claim.holders if not self.dead(holder)]
            if claim.phase != "draining":
                expired = claim.deadline_ms is not None and now >= claim.deadline_ms
                self.moved(claim, phase="draining", since_ms=now, cause="expired" if expired else "holder_gone")
            if claim.holders and not left:
                self.over(claim_id, claim.cause or "")
            elif now - (claim.since_ms or 0) >= GRACE_MS and not any(self.processes.status(holder) == "alive" for holder in left):
                self.opinion.kept[claim_id] = claim.grant
                self.over(claim_id, claim.cause or "")
        for unit, until in list(self.opinion.cordons.items()):
            if until is not None and now >= until:
                del self.opinion.cordons[unit]


def agree(claim: Claim, believed: Believed) -> None:
    """Compare a claim with what is believed of it."""
    found = (claim.phase, claim.deadline_ms, claim.holders, claim.grant, claim.generation, claim.draining_since_ms, claim.cause)
    assert found == (
        believed.phase, believed.deadline_ms, believed.holders, believed.grant, believed.generation, believed.since_ms, believed.cause,
    )  # fmt: skip


class SqliteMachine(NodeMachine):
    """The same on a file."""

    def make_store(self) -> Store:
        """Return an empty ledger file."""
        self.folder = tempfile.mkdtemp(prefix="earmark-proof-")
        return SqliteStore(Path(self.folder, "ledger", "ledger.db"))

    def close(self) -> None:
        """Remove the file."""
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)


@pytest.mark.rule("L6", "W1", "W2", "W40")
def test_any_order_of_everything_in_memory() -> None:
    """Whatever is done in whatever order: no unit twice, sums exact, repeats are answers, refusals and errors change nothing."""
    run_state_machine_as_test(NodeMachine, settings=settings(max_examples=40, stateful_step_count=40, deadline=None))


@pytest.mark.long
def test_any_order_of_everything_on_disk() -> None:
    """The same on an SQLite file."""
    run_state_machine_as_test(SqliteMachine, settings=settings(max_examples=6, stateful_step_count=25, deadline=None))
