"""A move for the length of a `with` block.

Rules of this file: the move's id exists before the move, so whatever interrupts (any BaseException) the destination leg can be aborted; the first
error is the one that is raised; if the abort fails too, a note on it says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from earmark.core.ledger.life_commands import LifeAnswer
from earmark.core.model.claim import Claim
from earmark.core.model.grant import Grant
from earmark.core.model.ids import MoveId
from earmark.core.model.instance import Move, MoveKind, MoveStatus
from earmark.core.model.refusal import Refusal
from earmark.core.model.request import Request
from earmark.errors import EarmarkError, LedgerBroken, Refused, UnknownMove
from earmark.tracker.fresh import new_move
from earmark.tracker.held import refused_words

if TYPE_CHECKING:
    from earmark.tracker.lives import Lives


class MoveInHand:
    """A move inside its `with` block: its legs, and what may be said of it. Not shared between threads."""

    def __init__(self, tracker: Lives, move: Move, claims: tuple[Claim, ...]) -> None:
        self._tracker = tracker
        self.move = move
        self.claims = claims

    @property
    def id(self) -> MoveId:
        """The move's id."""
        return self.move.id

    @property
    def status(self) -> MoveStatus:
        """What its legs say of it now."""
        return self._tracker.move_status(self.move)

    @property
    def source(self) -> Claim:
        """The main claim that is left, as it was at the beginning."""
        return self._leg("source")

    @property
    def destination(self) -> Claim:
        """The claim that is moved to, as it was at the beginning."""
        return self._leg("destination")

    def finish(self) -> LifeAnswer:
        """Say that the instance runs at the destination and waits for confirm or revert."""
        return self._tracker.finish_move(self.id)

    def confirm(self) -> LifeAnswer:
        """End the source legs."""
        return self._tracker.confirm_move(self.id)

    def revert(self) -> LifeAnswer:
        """End the destination legs."""
        return self._tracker.revert_move(self.id)

    def _leg(self, side: str) -> Claim:
        pair = self.move.legs[0]
        leg = pair.source if side == "source" else pair.destination
        found = next((claim for claim in self.claims if leg is not None and claim.id == leg.claim), None)
        if found is None:
            raise LedgerBroken(f"move {self.id} has no {side} leg in this ledger", move=self.id)
        return found


@contextmanager
def moving(
    tracker: Lives, consumer: str, kind: MoveKind, *, to: str | None, request: Request | None, grant: Grant | None, ttl_ms: int | None
) -> Iterator[MoveInHand]:  # fmt: skip
    """Open a move for a block; whatever is raised in it aborts the destination leg, unless the move was ended in the block."""
    move_id = new_move()
    try:
        answer = tracker.open_move(consumer, kind, to=to, request=request, grant=grant, ttl_ms=ttl_ms, move_id=move_id)
        yield _begun(tracker, answer)
    except BaseException as first:
        roll_back(tracker, move_id, first)
        raise


def _begun(tracker: Lives, answer: LifeAnswer | Refusal) -> MoveInHand:
    if isinstance(answer, Refusal):
        raise Refused(f"node {answer.node} refuses: " + "; ".join(refused_words(answer)), answer)
    if answer.move is None:
        raise LedgerBroken(f"a move of {answer.consumer} was opened and is not there", consumer=answer.consumer)
    return MoveInHand(tracker, answer.move, answer.claims)


def roll_back(tracker: Lives, move_id: MoveId, first: BaseException) -> None:
    """Abort a move after `first` was raised, if it is open; what fails here is noted on `first`."""
    try:
        tracker.abort_move(move_id)
    except UnknownMove:
        return  # it never began
    except EarmarkError as second:
        first.add_note(f"move {move_id} could not be aborted ({second}); both its legs are held until it is ended")
