"""One recorded life, carried out on a ledger of Earmark operation by operation, every book compared after each.

Rules of this file: each operation is said through the tracker as a user would say it; a placement that the tracker refuses is never forced. An
instance whose recorded placement collides with a live holder is left out from then on, and its share is taken out of what is expected.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import msgspec
from tools.accounts_books import Book, book_of, differences, less, recorded, summed
from tools.accounts_format import Op, Placement, RecordedNode, Sequence
from tools.accounts_host import grant_of, request_of

from earmark.core.ledger.commands import Answer
from earmark.core.ledger.life_commands import LifeAnswer
from earmark.core.ledger.state import NodeState
from earmark.core.model.finding import Finding
from earmark.core.model.grant import Grant
from earmark.core.model.instance import MoveKind
from earmark.core.model.refusal import Reason, Refusal
from earmark.errors import EarmarkError, LedgerBroken
from earmark.stores.contract import Store
from earmark.tracker.tracker import Tracker

COLLISIONS = frozenset({"unit_taken", "excluded"})
KINDS: dict[str, MoveKind] = {"resize_claim": "resize", "live_claim": "live_migration", "evacuate_claim": "evacuation"}
NEVER_MS = 10 * 365 * 24 * 3600 * 1000
"""A held claim's life that no replay outlasts, in milliseconds."""


class Wrong(NamedTuple):
    """A book that is not as expected."""

    sequence: str
    op: int
    what: str
    node: str
    differences: tuple[str, ...]


class Left(NamedTuple):
    """An instance that is not replayed further, from which operation on, and why; `double` if two would hold one unit."""

    sequence: str
    op: int
    what: str
    instance: str
    node: str
    why: str
    double: bool


class Share(NamedTuple):
    """What an instance that was left out would hold: where, and as which side of a move."""

    instance: str
    node: str
    role: str
    grant: Grant


class Told(msgspec.Struct):
    """What a replay found."""

    books: int = 0
    explained: int = 0
    wrong: list[Wrong] = []
    left: list[Left] = []
    causes: dict[str, int] = {}


def words(reason: Reason) -> str:
    """Return a reason of a refusal: for a collision the unit and its holder's name."""
    holders = ", ".join(sorted({str(holder.consumer) for holder in reason.holders}))
    if reason.code in COLLISIONS and holders:
        return f"{reason.unit} is held by {holders}"
    return f"{reason.resource}: {reason.detail or reason.code}"


class Replay:
    """The replay of one sequence."""

    def __init__(self, sequence: Sequence, store: Store, opened: Callable[[Store], Tracker], told: Told) -> None:
        self.sequence = sequence
        self.nodes = {node.name: node for node in sequence.nodes}
        self.opened = opened
        self.store = store
        self.tracker = opened(store)
        self.told = told
        self.last: dict[str, Book] = {name: recorded(book) for name, book in sequence.start.items()}
        self.down: set[str] = set()
        self.volume: dict[str, bool] = {}
        self.shares: list[Share] = []
        self.out: set[str] = set()
        self.bare = {node.name: summed(node, ()) for node in sequence.nodes}

    def run(self) -> None:
        """Carry out every operation and compare every book after it."""
        for number, op in enumerate(self.sequence.ops):
            self._step(number, op)
            self.last.update((name, recorded(book)) for name, book in op.after.items())
            for causes in op.ledger_cause.values():
                for cause in causes if isinstance(causes, list) else [causes]:
                    self.told.causes[str(cause)] = self.told.causes.get(str(cause), 0) + 1
            self._compare(number, op)

    # --- the operations -------------------------------------------------------------------------------------------------------------

    def _step(self, number: int, op: Op) -> None:
        if op.op == "node_down" and op.node is not None:
            self.down.add(op.node)
        elif op.op == "node_restart" and op.node is not None:
            self.down.discard(op.node)
            self.tracker = self.opened(self.store)
            self.tracker.came_back(op.node)
        elif op.op == "audit":
            self._audit()
        elif op.result == "ok" and op.instance is not None:
            self._shadow(op)
            if op.instance not in self.out:
                self._live(number, op, op.instance)

    def _audit(self) -> None:
        """Audit; an error would be Earmark's own contradiction."""
        errors: list[Finding] = [finding for finding in self.tracker.audit() if finding.severity == "error"]
        if errors:
            raise LedgerBroken(f"the audit of {self.sequence.id} finds {errors[0].detail}", findings=len(errors))

    def _live(self, number: int, op: Op, who: str) -> None:
        try:
            refusal = self._said(op, who)
        except EarmarkError as error:
            self._leave(number, op, who, f"{type(error).__name__}: {error.message}", double=False)
            return
        if refusal is not None:
            why = "; ".join(words(reason) for reason in refusal.reasons)
            self._leave(number, op, who, why, double=all(reason.code in COLLISIONS for reason in refusal.reasons))

    def _said(self, op: Op, who: str) -> Refusal | None:
        """Say an operation to the tracker; return its refusal, None if it went well."""
        tracker = self.tracker
        answer: Answer | LifeAnswer | Refusal | None = None
        match op.op:
            case "build_claim" | "unshelve_claim":
                node, grant = self._grant(op, who)
                request = request_of(self.sequence.flavors[op.flavor or ""], self._placement(op), node, volume_backed=self.volume[who])
                answer = tracker.hold(request, consumer=who, node=node.name, grant=grant, ttl_ms=NEVER_MS)
            case "resize_claim" | "live_claim" | "evacuate_claim":
                answer = self._move(op, who)
            case "build_done" | "unshelve_done":
                tracker.confirm(who)
                tracker.report(who, "active")
            case "build_abort" | "unshelve_abort":
                tracker.abort(who)
            case "resize_off" | "resize_switch" | "live_run":
                tracker.report(who, tracker.instance(who).instance.state, task=op.op)
            case "resize_finish":
                tracker.finish_move(who)
                tracker.report(who, "resized")
            case "confirm" | "live_done" | "evacuate_done":
                self._confirmed(who)
            case "revert_dest":
                tracker.revert_move(who)
            case "resize_abort" | "live_rollback" | "evacuate_abort":
                tracker.abort_move(who)
            case "revert_source":
                tracker.report(who, "active")
            case "delete":
                tracker.delete(who)
            case "shelve_offload":
                tracker.report(who, "shelved_offloaded")
            case _:
                raise LedgerBroken(f"operation {op.op} is not carried out", op=op.op)
        return answer if isinstance(answer, Refusal) else None

    def _move(self, op: Op, who: str) -> LifeAnswer | Refusal:
        node, grant = self._grant(op, who)
        kind = KINDS[op.op]
        request = request_of(self.sequence.flavors[op.flavor or ""], self._placement(op), node, volume_backed=self.volume[who])
        main = next(claim for claim in self.tracker.claims_of(who) if claim.purpose == "main")
        if kind != "resize" or (request == main.request and main.node != self.tracker.node(node.name).node):
            return self.tracker.open_move(who, kind, to=node.name, grant=grant)
        return self.tracker.open_move(who, "resize", to=node.name, request=request, grant=grant)

    def _confirmed(self, who: str) -> None:
        """Confirm a move; the old guest of an evacuation is gone at once where its host is up."""
        move = self.tracker.confirm_move(who).move
        if move is not None and move.kind == "evacuation" and move.source is not None:
            name = self.tracker.node(move.source).name
            if name not in self.down:
                self.tracker.came_back(name)

    def _grant(self, op: Op, who: str) -> tuple[RecordedNode, Grant]:
        self.volume.setdefault(who, op.volume_backed)
        node = self.nodes[op.node or ""]
        return node, self._recorded_grant(op, who)

    def _recorded_grant(self, op: Op, who: str) -> Grant:
        node = self.nodes[op.node or ""]
        layout = self._state(node.name).layout
        if layout is None:
            raise LedgerBroken(f"node {node.name} has no layout", node=node.name)
        return grant_of(
            self.sequence.flavors[op.flavor or ""], self._placement(op), node, layout, volume_backed=self.volume.get(who, op.volume_backed)
        )

    def _placement(self, op: Op) -> Placement:
        if op.placement is None:
            raise LedgerBroken(f"operation {op.op} of {op.instance} has no placement", op=op.op)
        return op.placement

    def _state(self, name: str) -> NodeState:
        return self.tracker.node(name)

    # --- what is left out -----------------------------------------------------------------------------------------------------------

    def _leave(self, number: int, op: Op, who: str, why: str, *, double: bool) -> None:
        """Leave an instance out from now on: what it holds ends, and what it would hold is taken out of what is expected."""
        self.told.left.append(Left(self.sequence.id, number, op.op, who, op.node or "", why, double))
        for claim in self.tracker.claims_of(who):
            role = "new" if claim.leg == "destination" else "old"
            self.shares.append(Share(who, self.tracker.node(claim.node).name, role, claim.grant))
        if op.placement is not None:
            role = "old" if op.op in ("build_claim", "unshelve_claim") else "new"
            self.shares.append(Share(who, op.node or "", role, self._recorded_grant(op, who)))
        self.out.add(who)
        if self.tracker.claims_of(who):
            self.tracker.delete(who)
            for name in self.nodes:
                self.tracker.came_back(name)

    def _shadow(self, op: Op) -> None:
        """Follow what an instance that was left out would hold: a claim adds, giving back removes, arriving ends the old side."""
        who = op.instance or ""
        if who not in self.out:
            return
        if op.placement is not None:
            role = "old" if op.op in ("build_claim", "unshelve_claim") else "new"
            self.shares.append(Share(who, op.node or "", role, self._recorded_grant(op, who)))
        elif op.op in ("confirm", "live_done", "evacuate_done"):
            self.shares = [share for share in self.shares if share.instance != who or share.role != "old"]
            self.shares = [share._replace(role="old") if share.instance == who else share for share in self.shares]
        elif op.op in ("resize_abort", "revert_dest", "live_rollback", "evacuate_abort"):
            self.shares = [share for share in self.shares if share.instance != who or share.role != "new"]
        elif op.op in ("build_abort", "unshelve_abort", "delete", "shelve_offload"):
            self.shares = [share for share in self.shares if share.instance != who]

    # --- the books ------------------------------------------------------------------------------------------------------------------

    def _compare(self, number: int, op: Op) -> None:
        for name, node in self.nodes.items():
            if name in self.down:
                continue
            right = op.ledger.get(name)
            expected = recorded(right) if right is not None else self.last[name]
            found = book_of(self._state(name), node)
            out = [(share.instance, share.grant) for share in self.shares if share.node == name]
            if out:
                expected = less(expected, summed(node, out), self.bare[name], found)
            self.told.books += 1
            said = differences(expected, found)
            if said:
                self.told.wrong.append(Wrong(self.sequence.id, number, op.op, name, tuple(said)))
            elif out:
                self.told.explained += 1
