"""How each step of a scenario is carried out on the tracker and its world.

Rules of this file: a step is one call of the tracker, as a caller would make it; what comes of it is returned, never judged here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from earmark.core.ledger.commands import Answer
from earmark.core.ledger.life_commands import LifeAnswer
from earmark.core.model.finding import Finding
from earmark.core.model.refusal import Refusal
from earmark.errors import EarmarkError, LedgerUnavailable
from earmark.scenario import steps as s
from earmark.scenario.laws import heads
from earmark.scenario.world import ACTOR, Died, World
from earmark.tracker.verdicts import Received

READS_MAX = 500
"""Reads of the ledger that an audit may need; after so many it is to come to its end."""
RACE_TIMEOUT_S = 30.0
ENDED = {"confirm": "confirm", "abort": "abort", "release": "release", "detach": "release"}


class Outcome(NamedTuple):
    """What came of a step: answers in order, a refusal, an error; `findings` of an audit, `granted` of a race; `wrongs` are broken promises."""

    answers: tuple[Answer | LifeAnswer, ...] = ()
    refusal: Refusal | None = None
    error: EarmarkError | None = None
    died: bool = False
    findings: tuple[Finding, ...] | None = None
    granted: int | None = None
    verdict: tuple[str, str] | None = None
    wrongs: tuple[str, ...] = ()

    @property
    def changed(self) -> bool:
        """Whether an answer says that something was changed."""
        return any(answer.changed for answer in self.answers)

    @property
    def words(self) -> str:
        """What came of it, in words."""
        if self.error is not None:
            return f"error {self.error.code}: {self.error.message}"
        if self.refusal is not None:
            return "refused " + "; ".join(
                f"{reason.code}: {reason.resource}, {reason.detail}".rstrip(", ") for reason in self.refusal.reasons
            )
        if self.died:
            return "the program died"
        if self.verdict is not None:
            return f"{self.verdict[0]}: {self.verdict[1]}" if self.verdict[1] else self.verdict[0]
        if self.granted is not None:
            return f"{self.granted} granted"
        messages = [answer.message for answer in self.answers if answer.message]
        return "; ".join(messages) or ("done" if self.changed or not self.answers else "nothing changed")


def act(world: World, step: s.Step) -> Outcome:
    """Carry out a step and return what came of it; an EarmarkError is an outcome too."""
    if isinstance(step.result, s.Dies):
        return _dying(world, step, step.result.when)
    try:
        return _told(ACTS[type(step)](world, step))
    except EarmarkError as error:
        return Outcome(error=error)


def _told(found: object) -> Outcome:
    """Return what an act gave back as an outcome."""
    if isinstance(found, Outcome):
        return found
    if isinstance(found, Refusal):
        return Outcome(refusal=found)
    if isinstance(found, Answer | LifeAnswer):
        return Outcome(answers=(found,))
    if isinstance(found, tuple):
        refusal = next((each for each in found if isinstance(each, Refusal)), None)
        return Outcome(answers=tuple(each for each in found if isinstance(each, Answer | LifeAnswer)), refusal=refusal)
    return Outcome()


def _dying(world: World, step: s.Step, when: str) -> Outcome:
    """Let the program die just before or after the append of a step, and open it again."""

    def die() -> None:
        raise Died(when)

    before = heads(world)
    if when == "before":
        world.book.before_commit = die
    else:
        world.book.after_commit = die
    try:
        ACTS[type(step)](world, step)
    except Died:
        nothing = when == "after" and heads(world) == before
        world.reopen()
        return Outcome(died=True, wrongs=("nothing was appended",) if nothing else ())
    except EarmarkError as error:
        return Outcome(error=error)
    finally:
        world.book.before_commit = world.book.after_commit = int
    return Outcome(wrongs=("it ended without a commit: there was nothing to die at",))


# --- nodes ----------------------------------------------------------------------------------------------------------------------------


def _make_node(world: World, step: s.MakeNode) -> object:
    return world.enter(step.node, step.machine, step.settings, step.host)


def _set_node(world: World, step: s.SetNode) -> object:
    state = world.node(step.node)
    return world.tracker.configure(world.settle(state.settings, step.settings), state.node)


def _keep_node(world: World, step: s.KeepNode) -> object:
    tracker, node = world.tracker, world.ids.get(step.node, step.node)
    match step.how:
        case "disable":
            return tracker.disable(step.reason, node)
        case "enable":
            return tracker.enable(node)
        case "retire":
            return tracker.retire(node, step.reason)
        case "restore":
            return tracker.restore(node, step.reason)
        case "report":
            return world.report(step.node, step.host)
        case "rehome":
            return world.rehome(step.node, step.host or step.node, step.reason)
        case "came-back":
            return tracker.came_back(node)


def _hardware(world: World, step: s.Hardware) -> object:
    if step.there:
        world.plug(step.node, step.what)
    else:
        world.unplug(step.node, step.what)
    return None


# --- consumers ------------------------------------------------------------------------------------------------------------------------


def _claim(world: World, step: s.Claim) -> object:
    holders = () if step.pid is None else (world.processes.identify(step.pid),)
    answers: list[object] = []
    if step.how == "unshelve":
        answers.append(world.tracker.report(step.consumer, "shelved_offloaded", task="spawning"))
    node = world.ids.get(step.node, step.node)
    keep = step.how == "attach"
    held = world.tracker.hold(
        step.request, consumer=step.consumer, node=node, ttl_ms=step.ttl_ms, holders=holders, claim_id=world.new_claim(step.name),
        purpose="attach" if keep else "main", confirm=keep,
    )  # fmt: skip
    answers.append(held)
    if isinstance(held, Answer) and step.how == "build":
        answers.append(world.tracker.confirm(world.claims[step.name], holders=holders))
        answers.append(world.tracker.report(step.consumer, "active"))
    return tuple(answers)


def _end_claim(world: World, step: s.EndClaim) -> object:
    claim = world.claim_named(step.what)
    ways: dict[str, Callable[[str], Answer]] = {
        "confirm": world.tracker.confirm,
        "abort": world.tracker.abort,
        "release": world.tracker.release,
    }
    return ways[ENDED[step.how]](claim)


def _report(world: World, step: s.ReportState) -> object:
    return world.tracker.report(step.consumer, step.state, task=step.task)


def _open_move(world: World, step: s.OpenMove) -> object:
    to = None if step.to is None else world.ids.get(step.to, step.to)
    move = world.new_move(step.name)
    return world.tracker.open_move(step.consumer, step.kind, to=to, request=step.request, ttl_ms=step.ttl_ms, move_id=move)


def _end_move(world: World, step: s.EndMove) -> object:
    move, tracker = world.move_named(step.what), world.tracker
    match step.how:
        case "finish":
            return tracker.finish_move(move)
        case "confirm":
            return tracker.confirm_move(move)
        case "revert":
            return tracker.revert_move(move)
        case "abort":
            return tracker.abort_move(move)
        case "drop source":
            return tracker.drop_move(move, "source")
        case "drop destination":
            return tracker.drop_move(move, "destination")


# --- the world ------------------------------------------------------------------------------------------------------------------------


def _audit(world: World, step: s.Audit) -> Outcome:
    """Look at the machines, let what is due take effect, and hold the ledger against itself."""
    names = [step.node] if step.node is not None else list(world.ids)
    if step.fails == "store":
        return _failing_reads(world, names)
    if step.fails == "publication":
        world.outer.away = True
        try:
            findings = _looked_at(world, names)
            told = world.publisher.publish()
        finally:
            world.outer.away = False
        return Outcome(findings=findings, wrongs=() if told.failure else ("there was nothing to publish",))
    if step.fails == "driver":
        world.fail_driver(names[-1], fails=True)
        try:
            return Outcome(findings=_looked_at(world, names))
        except EarmarkError as error:
            return Outcome(error=error)
        finally:
            world.fail_driver(names[-1], fails=False)
    return Outcome(findings=_looked_at(world, names))


def _looked_at(world: World, names: Sequence[str]) -> tuple[Finding, ...]:
    for name in names:
        if world.node(name).retired is None:
            world.look(name)
        world.see_guests(name)
        world.tracker.sweep(world.ids[name])
    return world.tracker.audit()


def _failing_reads(world: World, names: Sequence[str]) -> Outcome:
    """Let the first, the second, … read of an audit fail, until there are no more reads that could; each time nothing may have changed."""
    wrongs: list[str] = []
    failed = 0
    for reads in range(READS_MAX):
        before, states = heads(world), world.states()
        world.book.reads_left = reads
        try:
            findings = _looked_at(world, names)
        except LedgerUnavailable:
            failed += 1
            continue
        finally:
            world.book.reads_left = None
            if heads(world) != before or world.states() != states:
                wrongs.append(f"an audit whose read {reads + 1} failed has changed the ledger")
        wrongs += [] if failed else ["no read of the audit failed"]
        return Outcome(findings=findings, wrongs=tuple(wrongs))
    return Outcome(wrongs=(*wrongs, f"an audit does not end after {READS_MAX} reads"))


def _guest(world: World, step: s.Guest) -> object:
    world.host(step.node)
    guests = world.guests.setdefault(step.node, {})
    if step.request is None:
        guests.pop(step.guest, None)
    else:
        guests[step.guest] = step.request
    return None


def _record(world: World, step: s.Record) -> Outcome:
    """Let the tracker judge one record; numbers are written as numbers."""
    name = world.move_named(step.name) if step.kind == "move" else step.name
    fields: dict[str, object] = {key: int(value) if value.isdigit() else value for key, value in step.fields}
    received = world.tracker.receive([{"record": step.kind, step.kind.replace("instance", "consumer"): name, **fields}])
    return _judged(received)


def _listing(world: World, step: s.Listing) -> Outcome:
    """Let the tracker judge a complete listing of a node's instances, all of them active."""
    records = [{"record": "instance", "consumer": each, "owner": ACTOR, "state": "active", "node": step.node} for each in step.consumers]
    return _judged(world.tracker.receive(records, complete=[step.node], apply=True))


def _judged(received: Received) -> Outcome:
    """Return the first verdict that is not an acceptance, else what was accepted."""
    for kind in ("invalid", "contradictory", "stale", "unknown", "accepted"):
        for verdict in getattr(received, kind):
            return Outcome(verdict=(kind, verdict.reason))
    return Outcome(verdict=("accepted", ""))


def _outer(world: World, step: s.Outer) -> object:
    match step.how:
        case "away" | "back":
            world.outer.away = step.how == "away"
        case "publish":
            world.publisher.publish()
        case "holds":
            world.outer.put(world.node(step.node).node, world.holder(step.holder, is_move=step.is_move), world.clock.now_ms())
        case "heal":
            world.publisher.heal(world.node(step.node).node, first=step.first)
    return None


def _wait(world: World, step: s.Wait) -> object:
    world.clock.move(step.ms)
    for node in world.ids.values():
        world.tracker.sweep(node)
    return None


def _dead(world: World, step: s.Dead) -> object:
    world.processes.fates[step.pid] = "dead"
    for node in world.ids.values():
        world.tracker.sweep(node)
    return None


def _reopen(world: World, step: s.Reopen) -> object:
    world.reopen(orderly=step.orderly)
    return None


def _race(world: World, step: s.Race) -> Outcome:
    """Carry out some steps at once, each in a thread of its own."""
    outcomes: list[Outcome | None] = [None] * len(step.steps)
    start = threading.Barrier(len(step.steps))

    def run(number: int) -> None:
        start.wait(RACE_TIMEOUT_S)
        outcomes[number] = act(world, step.steps[number])

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(len(step.steps))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(RACE_TIMEOUT_S)
    claims = [found for racer, found in zip(step.steps, outcomes, strict=True) if isinstance(racer, s.Claim | s.OpenMove)]
    wrongs = [
        f"{racer.text or type(racer).__name__} did not end" for racer, found in zip(step.steps, outcomes, strict=True) if found is None
    ]
    wrongs += [found.words for found in outcomes if found is not None and found.error is not None]
    return Outcome(granted=sum(found is not None and found.refusal is None for found in claims), wrongs=tuple(wrongs))


Act = Callable[[World, Any], object]
ACTS: dict[type[s.Step], Act] = {
    s.MakeNode: _make_node,
    s.SetNode: _set_node,
    s.KeepNode: _keep_node,
    s.Hardware: _hardware,
    s.Claim: _claim,
    s.EndClaim: _end_claim,
    s.ReportState: _report,
    s.OpenMove: _open_move,
    s.EndMove: _end_move,
    s.Audit: _audit,
    s.Guest: _guest,
    s.Record: _record,
    s.Listing: _listing,
    s.Outer: _outer,
    s.Wait: _wait,
    s.Dead: _dead,
    s.Reopen: _reopen,
    s.Race: _race,
}
