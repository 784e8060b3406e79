"""Replays recorded lives through the tracker, operation by operation, and compares every node's book after each.

Rules of this file: one ledger for each sequence; whatever was recorded as done is said to the tracker and never worked around. What it refuses is
looked up in the record: Nova's double grant, what Nova's compute leaves to Placement, or a fault of ours, which is never passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import msgspec
from tools.account_books import Book, Difference, differences, expected_book, own_book, without
from tools.account_format import CLAIMING, Node, NovaBook, Op, Sequence
from tools.account_nodes import can_keep_reserve, grant_of, machine_of, request_of, settings_of
from tools.account_record import GIVES_ALL, Reasons, Record

from earmark.core.ledger.commands import Answer
from earmark.core.ledger.life_commands import LifeAnswer
from earmark.core.model.grant import Grant
from earmark.core.model.ids import ClaimId, NodeId
from earmark.core.model.instance import InstanceState
from earmark.core.model.refusal import Refusal
from earmark.core.model.request import Request
from earmark.errors import EarmarkError
from earmark.scenario.given import GivenClock, GivenHost, GivenProcesses
from earmark.stores.contract import Store
from earmark.tracker.held import refused_words
from earmark.tracker.leases import Leases
from earmark.tracker.questions import Terms
from earmark.tracker.tracker import Tracker
from earmark.tracker.writer import Writer

ACTOR = "accounts"
SECOND_MS = 1000
HOLD_MS = 30 * 24 * 3600 * SECOND_MS
WAIT_S = 10.0


class Place(NamedTuple):
    """Where something happened: sequence, number of the operation, its name, node."""

    sequence: str
    number: int
    op: str
    node: str

    def __str__(self) -> str:
        return f"{self.sequence} op {self.number} {self.op} on {self.node}"


class WrongBook(NamedTuple):
    """A book that is not as expected."""

    place: Place
    differences: tuple[Difference, ...]


class DoubleGrant(NamedTuple):
    """Something that Nova gave to `instance` although `holders` had it."""

    place: Place
    instance: str
    units: tuple[str, ...]
    holders: tuple[str, ...]


class Beyond(NamedTuple):
    """A claim for more than the machine has of some resources, which Nova's compute does not look at."""

    place: Place
    instance: str
    resources: tuple[str, ...]


class Note(NamedTuple):
    """Something else that happened, to an instance ("" for none)."""

    place: Place
    instance: str
    text: str


class Report(msgspec.Struct):
    """What a replay found; `explained` are books from which an instance that Nova granted twice had to be taken out."""

    sequences: int = 0
    operations: int = 0
    books: int = 0
    explained: int = 0
    broke_off: int = 0
    wrong: list[WrongBook] = []
    doubles: list[DoubleGrant] = []
    beyond: list[Beyond] = []
    faults: list[Note] = []
    causes: dict[str, int] = {}
    nova_wrong: int = 0


class Course:
    """The replay of one sequence on a ledger of its own."""

    def __init__(self, sequence: Sequence, opened: Callable[[], Store], report: Report) -> None:
        self.sequence = sequence
        self.opened = opened
        self.report = report
        self.nodes = {node.name: node for node in sequence.nodes}
        self.ids = {node.name: NodeId(f"00000000-0000-4000-8000-{number:012d}") for number, node in enumerate(sequence.nodes, 1)}
        self.clock = GivenClock()
        self.record = Record(sequence)
        self.last: dict[str, NovaBook] = dict(sequence.start)
        self.down: set[str] = set()
        self.spare = {node.name for node in sequence.nodes if not can_keep_reserve(node)}
        self.excluded: set[str] = set()
        self.lost: set[str] = set()
        self.store = opened()
        self.tracker = self._tracker()
        for node in sequence.nodes:
            self._enter(node)

    def run(self) -> None:
        """Replay all operations; the ledger is audited wherever Nova's was, and at the end."""
        for number, op in enumerate(self.sequence.ops):
            self.clock.move(SECOND_MS)
            place = Place(self.sequence.id, number, op.op, op.node or op.to or "no node")
            try:
                self._carry_out(op, place)
            except EarmarkError as error:
                self.report.faults.append(Note(place, op.instance or "", f"{type(error).__name__}: {error}"))
            self.record.apply(op)
            self.last |= op.after
            self._compare(op, place)
            self.report.operations += 1
        self._audit(Place(self.sequence.id, len(self.sequence.ops), "end", "all nodes"), verify=True)
        self.report.sequences += 1
        self.report.broke_off += self.sequence.broke_off is not None

    # --- operations -----------------------------------------------------------------------------------------------------------------

    def _carry_out(self, op: Op, place: Place) -> None:
        """Say one operation to the tracker."""
        name = op.node or ""
        if op.op == "audit":
            self._audit(place)
        elif op.op == "node_down":
            self.down.add(name)
        elif op.op == "node_restart":
            self._restart()
            self.down.discard(name)
            self.tracker.came_back(self.ids[name])
        elif op.instance is not None and op.done:
            self._live(op, op.instance, place)

    def _live(self, op: Op, who: str, place: Place) -> None:
        """Say one operation of an instance; one that is left out comes back when it has given back everything."""
        if op.op in GIVES_ALL:
            self.excluded.discard(who)
            self.lost.discard(who)
        if who in self.excluded or who in self.lost:
            return
        if op.op in CLAIMING:
            self._claim(op, who, place)
        else:
            self._step(op, who)

    def _step(self, op: Op, who: str) -> None:
        """Say what became of an instance or its move."""
        tracker = self.tracker
        if op.op in ("build_done", "unshelve_done"):
            for claim in self._building(who):
                tracker.confirm(claim)
            tracker.report(who, "active")
        elif op.op in ("build_abort", "unshelve_abort"):
            for claim in self._building(who):
                tracker.abort(claim)
        elif op.op in ENDS:
            end, state = ENDS[op.op]
            end(tracker, who)
            if state is not None:
                tracker.report(who, state)
            if op.op == "evacuate_done":
                self._guests_destroyed()
        elif op.op in STATES:
            state, task = STATES[op.op]
            tracker.report(who, state, task=task)

    def _building(self, who: str) -> list[ClaimId]:
        """Return the claims that a build holds; what was evacuated from a host that is down drains and is none of it."""
        return [claim.id for claim in self.tracker.claims_of(who) if claim.purpose == "main" and claim.phase != "draining"]

    def _guests_destroyed(self) -> None:
        """Say that the old guests are gone, where an evacuated host is up already."""
        for name in self.nodes:
            if name not in self.down:
                self.tracker.came_back(self.ids[name])

    def _claim(self, op: Op, who: str, place: Place) -> None:
        """Claim what was recorded; look a refusal up in the record."""
        share = self.record.share(op)
        answer = self._asked(op, who)
        node = self.nodes[place.node]
        others = [each for each in self.record.on(place.node) if each.instance not in self.excluded]
        why = Reasons(share, others, node, self.sequence.limits)
        if isinstance(answer, Refusal) and why.left_to_placement(answer):
            self.report.beyond.append(Beyond(place, who, tuple(sorted({reason.resource for reason in answer.reasons}))))
            self.spare.add(place.node)
            self._enter(node)
            answer = self._asked(op, who)
        if not isinstance(answer, Refusal):
            return
        twice = why.taken_twice(answer)
        if twice is not None:
            self.report.doubles.append(DoubleGrant(place, who, *twice))
            self.excluded.add(who)
            self.tracker.report(who, "shelved_offloaded")
            return
        self.lost.add(who)
        self.report.faults.append(Note(place, who, "Earmark refuses what was granted: " + "; ".join(refused_words(answer))))

    def _asked(self, op: Op, who: str) -> Answer | LifeAnswer | Refusal:
        """Hold what an operation claims, as a build or as the destination of a move."""
        request, grant = self._wish(op, who)
        tracker, to = self.tracker, self.ids[op.node or ""]
        if op.op in ("build_claim", "unshelve_claim"):
            return tracker.hold(request, consumer=who, node=to, grant=grant, ttl_ms=HOLD_MS)
        if op.op == "live_claim":
            return tracker.open_move(who, "live_migration", to=to, grant=grant)
        if op.op == "evacuate_claim":
            return tracker.open_move(who, "evacuation", to=to, grant=grant)
        return tracker.open_move(who, "resize", to=to, request=request, grant=grant)

    def _wish(self, op: Op, who: str) -> tuple[Request, Grant]:
        node, flavor, placed = self.nodes[op.node or ""], self.sequence.flavors[op.flavor or ""], op.placement
        layout = self.tracker.node(self.ids[node.name]).layout
        if placed is None or layout is None:
            raise AssertionError(f"{op.op} of {who} was not checked")
        backed = self.record.volume_backed(op)
        return (
            request_of(flavor, placed, node.host, volume_backed=backed),
            grant_of(flavor, placed, node, layout, volume_backed=backed),
        )

    # --- books ----------------------------------------------------------------------------------------------------------------------

    def _compare(self, op: Op, place: Place) -> None:
        """Compare the book of every node that is up with what is expected after an operation."""
        for name, causes in op.ledger_cause.items():
            for cause in causes if name not in self.down else ():
                self.report.causes[cause] = self.report.causes.get(cause, 0) + 1
        for name, node in self.nodes.items():
            if name in self.down:
                continue
            self.report.books += 1
            self.report.nova_wrong += name in op.ledger_differs
            expected = expected_book(op, self.last[name], name)
            reduced = self._reduced(expected, name)
            self.report.explained += reduced != expected
            found = differences(reduced, own_book(self.tracker.node(self.ids[name]), node))
            if found:
                self.report.wrong.append(WrongBook(place._replace(node=name), found))

    def _reduced(self, book: Book, name: str) -> Book:
        """Return an expected book without the instances that Nova granted what others had."""
        if not self.excluded:
            return book
        shares = self.record.on(name)
        return without(
            book,
            [share for share in shares if share.instance in self.excluded],
            [share for share in shares if share.instance not in self.excluded],
        )

    def _audit(self, place: Place, *, verify: bool = False) -> None:
        """Let the auditor look, and at the end the verifier too: what it calls an error is a fault."""
        findings = [*self.tracker.audit(), *(self.tracker.verify().findings if verify else ())]
        self.report.faults += [
            Note(place, "", f"the auditor found {each.code}: {each.detail}") for each in findings if each.severity == "error"
        ]

    # --- the ledger -----------------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the ledger."""
        self.tracker.close()

    def _tracker(self) -> Tracker:
        first = self.sequence.nodes[0]
        host = GivenHost(machine_of(first), name=first.name)
        writer = Writer(self.store, self.clock, actor=ACTOR, epoch=1, boot_id=host.boot, timeout_s=WAIT_S)
        terms = Terms(actor=ACTOR, hold_timeout_ms=HOLD_MS, default_ttl_ms=None, drain_grace_ms=HOLD_MS)
        return Tracker(self.store, writer, Leases(GivenProcesses()), host, self.clock, home=self.ids[first.name], terms=terms)

    def _restart(self) -> None:
        """Let the program end and begin again on the same ledger: the new one knows nothing but what is in it."""
        again = self.opened()
        if again is not self.store:
            self.tracker.close()
        self.store = again
        self.tracker = self._tracker()

    def _enter(self, node: Node) -> None:
        spare = node.name in self.spare
        self.tracker.register(
            node.name, uuid=self.ids[node.name], host=node.name, machine=machine_of(node, spare=spare),
            settings=settings_of(node, self.sequence.limits, spare=spare),
        )  # fmt: skip


STATES: dict[str, tuple[InstanceState, str | None]] = {
    "resize_off": ("active", "resize_migrating"), "resize_switch": ("active", "resize_migrated"), "live_run": ("active", "migrating"),
    "revert_source": ("active", None), "delete": ("deleted", None), "shelve_offload": ("shelved_offloaded", None),
}  # fmt: skip
ENDS: dict[str, tuple[Callable[[Tracker, str], LifeAnswer], InstanceState | None]] = {
    "resize_finish": (Tracker.finish_move, "resized"), "confirm": (Tracker.confirm_move, "active"),
    "live_done": (Tracker.confirm_move, "active"), "evacuate_done": (Tracker.confirm_move, "active"),
    "resize_abort": (Tracker.abort_move, "active"), "live_rollback": (Tracker.abort_move, "active"),
    "evacuate_abort": (Tracker.abort_move, None), "revert_dest": (Tracker.revert_move, None),
}  # fmt: skip


def replays(sequences: Iterator[Sequence], opener: Callable[[], Callable[[], Store]], report: Report) -> Iterator[Sequence]:
    """Replay each sequence, each on a ledger that a new `opener()` opens, and yield it when it is done."""
    for sequence in sequences:
        try:
            course = Course(sequence, opener(), report)
            try:
                course.run()
            finally:
                course.close()
        except EarmarkError as error:
            report.faults.append(Note(Place(sequence.id, 0, "replay", "all nodes"), "", f"{type(error).__name__}: {error}"))
        yield sequence
