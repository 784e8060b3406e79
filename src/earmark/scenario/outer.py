"""An outer ledger that is what a scenario says it is: it is told what is held, may be away, and may have what nobody here stands behind.

Rules of this file: no mock: a small, honest reporter. It remembers what it was told last of each node, and since when it has the rest.
"""

from __future__ import annotations

from collections.abc import Sequence

from earmark.core.ledger.allocations import Allocation
from earmark.core.ledger.orphans import Held, Verdict, judge_allocations, known_of
from earmark.core.model.ids import NodeId
from earmark.errors import LedgerUnavailable
from earmark.tracker.outbox import Outbox, Told
from earmark.tracker.tracker import Tracker

GRACE_MS = 3_600_000
"""How long an allocation that nobody knows is kept: an hour."""
Amounts = tuple[tuple[str, int], ...]


class OuterLedger:
    """An outer ledger in memory; made for one course and dropped after it."""

    def __init__(self) -> None:
        self.away = False
        self.told: dict[NodeId, dict[str, Amounts]] = {}
        self.others: dict[NodeId, dict[str, int]] = {}

    @property
    def name(self) -> str:
        """What messages call it."""
        return "the outer ledger"

    def tell(self, node: NodeId, allocations: Sequence[Allocation]) -> None:
        """Take note of all allocations on a node; raises LedgerUnavailable while it is away."""
        if self.away:
            raise LedgerUnavailable("the outer ledger is away in this scenario")
        self.told[node] = {each.holder: each.amounts for each in allocations}

    def put(self, node: NodeId, holder: str, now_ms: int) -> None:
        """Have an allocation from somebody else from now on."""
        self.others.setdefault(node, {})[holder] = now_ms

    def holders(self, node: NodeId) -> dict[str, Amounts | None]:
        """Return who has an allocation on a node, with the amounts as far as they were told here."""
        return {**dict.fromkeys(self.others.get(node, {})), **self.told.get(node, {})}


class Publisher:
    """Tells the outer ledger, and heals it; opened again with the program: it may tell twice."""

    def __init__(self, tracker: Tracker, outer: OuterLedger) -> None:
        self._tracker = tracker
        self._outer = outer
        self._outbox = Outbox(tracker, outer)

    def publish(self) -> Told:
        """Tell what the outer ledger was not told of yet."""
        return self._outbox.tell()

    def heal(self, node: NodeId, *, first: bool) -> tuple[Verdict, ...]:
        """Judge every allocation on a node and take back what nobody stands behind; return the verdicts."""
        consumers = self._tracker.instances()
        now_ms = self._tracker.clock.now_ms()
        since = self._outer.others.get(node, {})
        held = [Held(holder, since.get(holder, now_ms)) for holder in self._outer.holders(node)]
        verdicts = judge_allocations(
            self._tracker.node(node), held, known_of(self._tracker.nodes(), consumers), now_ms=now_ms, grace_ms=GRACE_MS, first_audit=first
        )  # fmt: skip
        for verdict in verdicts:
            if not verdict.keep:
                since.pop(verdict.holder, None)
                self._outer.told.get(node, {}).pop(verdict.holder, None)
        return verdicts
