"""Ids that nobody has: of a claim, of a move.

Rules of this file: an id exists before what it names, so that whatever interrupts can find and undo it.
"""

from __future__ import annotations

import os

from earmark.core.model.ids import ClaimId, MoveId

ID_BYTES = 6
"""Random bytes in an id; one that is used already is refused by the store."""


def new_claim() -> ClaimId:
    """Return a claim id that nobody has."""
    return ClaimId("c-" + os.urandom(ID_BYTES).hex())


def new_move() -> MoveId:
    """Return a move id that nobody has."""
    return MoveId("m-" + os.urandom(ID_BYTES).hex())
