"""Telling an outer ledger what is held, after the fact: from a cursor, in batches, as often as it takes.

Rules of this file: the cursor moves only after the reporter has taken everything up to it; a reporter that fails is asked again after a growing,
jittered wait, and nothing here waits for it (S07). Nothing is written to the ledger.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from earmark.core.ledger.allocations import allocations
from earmark.core.ledger.state import NodeState
from earmark.core.model.ids import NodeId
from earmark.errors import InvalidRecord, LedgerBroken, Unavailable
from earmark.logs import log

if TYPE_CHECKING:
    from earmark.reports.contract import Reporter
    from earmark.tracker.lives import Lives

NODE_PREFIX = "node:"
BATCH_EVENTS = 1000
WAIT_FIRST_MS = 1000
WAIT_MOST_MS = 300_000
DOUBLINGS_MAX = 16


class Told(NamedTuple):
    """What one round of telling did: up to which position of the ledger, about how many nodes; `failure` None if all went well."""

    position: int
    nodes: int
    failure: str | None = None


class Outbox:
    """Tells one reporter, from one cursor. One thread uses it; `jitter` gives a share from 0 to 1 of each wait."""

    def __init__(self, tracker: Lives, reporter: Reporter, *, position: int = 0, jitter: Callable[[], float] = lambda: 1.0) -> None:
        self._tracker = tracker
        self._reporter = reporter
        self._jitter = jitter
        self.position = position
        self.failures = 0
        self.not_before_ms = 0

    @property
    def lag(self) -> int:
        """How many positions of the ledger the reporter was not told of yet."""
        return max(0, self._tracker.store.last_position() - self.position)

    def tell(self) -> Told:
        """Tell what has changed since the cursor, unless the reporter is to be left alone for a while; never raises for its failures."""
        now_ms = self._tracker.clock.now_ms()
        if now_ms < self.not_before_ms:
            return Told(self.position, 0, f"{self._reporter.name} is asked again in {self.not_before_ms - now_ms} ms")
        nodes = 0
        while stored := self._tracker.store.follow(self.position, BATCH_EVENTS):
            changed = {NodeId(item.stream.removeprefix(NODE_PREFIX)) for item in stored if item.stream.startswith(NODE_PREFIX)}
            try:
                nodes += self._tell(changed)
            except Unavailable as error:
                return self._failed(error, now_ms, nodes)
            self.position = stored[-1].position
        self.failures, self.not_before_ms = 0, 0
        return Told(self.position, nodes)

    def _tell(self, changed: set[NodeId]) -> int:
        consumers = self._tracker.instances()
        told = 0
        for node in sorted(changed):
            try:
                state: NodeState = self._tracker.node(node)
            except (InvalidRecord, LedgerBroken) as error:  # the audit tells of it; the others are told all the same
                log("report.skipped", level="error", reporter=self._reporter.name, node=node, code=error.code)
                continue
            self._reporter.tell(node, allocations([state], consumers))
            told += 1
        return told

    def _failed(self, error: Unavailable, now_ms: int, nodes: int) -> Told:
        self.failures += 1
        wait_ms = min(WAIT_MOST_MS, WAIT_FIRST_MS << min(self.failures - 1, DOUBLINGS_MAX))
        self.not_before_ms = now_ms + wait_ms // 2 + int(wait_ms // 2 * self._jitter())
        log("report.failed", reporter=self._reporter.name, failures=self.failures, waited_ms=wait_ms, error=error)
        return Told(self.position, nodes, str(error))
