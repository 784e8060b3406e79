"""A build that is tried on one node after the other (L7).

Rules of this file: each try is a claim of its own, held while its block runs: confirmed when the block ends well, aborted when it fails, which the node
counts (T4); the last failure is raised and names those before it. What is no `Exception` (an interrupt) ends the whole build.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any

from earmark.core.model.refusal import Reason, Refusal
from earmark.core.model.request import Request
from earmark.errors import Refused, UnknownInstance
from earmark.tracker.held import HeldClaim, holding, refused_words

if TYPE_CHECKING:
    from earmark.tracker.tracker import Tracker


class Attempt:
    """One try of a build on one node: a context manager that gives the held claim; its failure is kept unless it is the last."""

    def __init__(self, node: str, held: AbstractContextManager[HeldClaim], claim: HeldClaim, *, last: bool) -> None:
        self.node = node
        self.claim = claim
        self.built = False
        self.failure: Exception | None = None
        self._held = held
        self._last = last

    def __enter__(self) -> HeldClaim:
        return self.claim

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> bool:
        """Confirm or abort the claim; a failure that is not the last is kept in `failure`, and the build goes on elsewhere."""
        self._held.__exit__(kind, error, trace)
        self.built = error is None
        if not isinstance(error, Exception):
            return False
        self.failure = error
        return not self._last


def building(tracker: Tracker, request: Request, *, consumer: str, nodes: Sequence[str], **wishes: Any) -> Iterator[Attempt]:
    """Yield an attempt for each node that grants the claim, until one of them is built.

    Raises Refused with the reasons of all nodes if none grants it; where granted tries failed, the last failure left its own block, and the
    instance, if it has a record, is reported in error.
    """
    reasons: list[Reason] = []
    failures: list[str] = []
    failed: Exception | None = None
    for number, node in enumerate(nodes, 1):
        held = holding(tracker, request, keep=True, consumer=consumer, node=node, **wishes)
        try:
            claim = held.__enter__()
        except Refused as refused:
            reasons += refused.refusal.reasons
            failures.append(f"{node}: " + "; ".join(refused_words(refused.refusal)))
            continue
        attempt = Attempt(node, held, claim, last=number == len(nodes))
        try:
            yield attempt
        finally:
            if number == len(nodes) and not attempt.built:
                _report_error(tracker, consumer, failures)
        if attempt.built:
            return
        failed = attempt.failure or failed
        failures.append(f"{node}: {attempt.failure}")
    _report_error(tracker, consumer, failures)
    raise Refused(f"no node builds {consumer}: " + " | ".join(failures), Refusal(reasons=tuple(reasons))) from failed


def _report_error(tracker: Tracker, consumer: str, failures: Sequence[str]) -> None:
    """Report an instance in error, if it has a record."""
    try:
        tracker.instance(consumer)
    except UnknownInstance:
        return
    tracker.report(consumer, "error", reason=f"{len(failures) or 1} nodes tried")
