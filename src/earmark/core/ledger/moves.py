"""What became of a move, read from its legs.

Rules of this file: pure; a status is derived from the legs, never the reverse (Nova's races between both are W5, W14, W18). Only where the
leg that would tell lives in another ledger does the recorded outcome speak.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from earmark.core.model.claim import Claim
from earmark.core.model.ids import ClaimId, UnitId
from earmark.core.model.instance import Leg, Move, MoveOutcome, MoveStatus

LEFT = frozenset({"moved", "evacuated"})
"""The causes with which a confirmed move ends its source legs."""
GIVEN_UP: Mapping[str, MoveStatus] = {"reverted": "reverted", "aborted": "aborted", "expired": "expired"}
"""The causes with which a move that is not confirmed ends its destination legs."""


class Fate(NamedTuple):
    """What became of one claim: the live claim, or the purpose and the cause with which it ended."""

    claim: Claim | None
    purpose: str
    cause: str | None


Fates = Mapping[ClaimId, Fate]
Kinds = Mapping[UnitId, str]
"""The kind of each device that a node has."""


def status_of(move: Move, fates: Fates) -> MoveStatus:
    """Return what the main legs of a move say of it; `contradictory` if they cannot both be so.

    The destination speaks first: the source claim of a move that was given up may have left by a later one. A destination that has itself
    left by a later move was the main claim in between.
    """
    pair = move.legs[0]
    source = _fate(pair.source, fates)
    destination = _fate(pair.destination, fates)
    if pair.destination is None:
        return _of_source(move, source)
    if destination is None or (pair.source is not None and source is None):
        return "contradictory"
    cause = destination.claim.cause if destination.claim is not None else destination.cause
    if destination.purpose != "leg" or cause in LEFT:
        return "contradictory" if source is not None and _in(move, source) else "confirmed"
    if cause is not None:
        return GIVEN_UP.get(cause, "deleted")
    if source is not None and not _in(move, source):
        return "contradictory"
    return "finished" if destination.claim is not None and destination.claim.phase == "confirmed" else "preparing"


def outcome_of(status: MoveStatus) -> MoveOutcome | None:
    """Return the outcome that a status is, None while the move is open."""
    return status if status in ("confirmed", "reverted", "aborted", "expired", "deleted") else None


def _fate(leg: Leg | None, fates: Fates) -> Fate | None:
    return fates.get(leg.claim) if leg is not None else None


def _left(fate: Fate) -> bool:
    return (fate.claim.cause if fate.claim is not None else fate.cause) in LEFT


def _in(move: Move, fate: Fate) -> bool:
    """Say whether a claim is still an open leg of the move."""
    return fate.claim is not None and fate.claim.move == move.id and not _left(fate)


def _of_source(move: Move, source: Fate | None) -> MoveStatus:
    if source is None:
        return "contradictory"
    if _in(move, source):
        return "preparing"
    return move.outcome or ("confirmed" if _left(source) else "deleted")


def device_pairs(source: Claim, destination: Claim, before: Kinds, after: Kinds) -> tuple[tuple[UnitId, UnitId], ...]:
    """Return which device of the source leg becomes which of the destination leg: kind by kind, in order of their names (M26, M27).

    A named device, which stays where it is, becomes itself. A kind of which there are fewer on one side is paired as far as it goes.
    """
    pairs = [(unit, unit) for unit in destination.named]
    for kind in sorted(set(before.values())):
        olds = [unit for unit in _devices(source, before, kind) if unit not in destination.named]
        pairs += zip(olds, _devices(destination, after, kind), strict=False)
    return tuple(sorted(pairs))


def _devices(claim: Claim, kinds: Kinds, kind: str) -> list[UnitId]:
    return sorted(row.unit for row in claim.grant.units if row.use == "device" and kinds.get(row.unit) == kind)
