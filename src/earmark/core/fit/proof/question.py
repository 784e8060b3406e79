"""A live request as the question that is put to the search: for those who check its answer by other means.

Rules of this file: the same guest, ground and wishes that `fit.answered` searches with; a test compares the certificates of both.
"""

from __future__ import annotations

from typing import NamedTuple

from earmark.core.fit.devices.match import wanted
from earmark.core.fit.devices.rows import stock_of
from earmark.core.fit.free import Supply
from earmark.core.fit.ground import Ground
from earmark.core.fit.guest import Guest, guest_of, is_bound
from earmark.core.fit.live_ground import NO_STOCK, ground_of
from earmark.core.fit.proof.certify import NOT_CHECKED, check
from earmark.core.model.refusal import Certificate
from earmark.core.model.request import DeviceRequest, Request


class Question(NamedTuple):
    """A guest (None: without cells), the node, and the devices wished for."""

    guest: Guest | None
    ground: Ground
    wishes: tuple[DeviceRequest, ...]


def question_of(request: Request, supply: Supply) -> Question:
    """Return the question that a request is on a node."""
    wishes = wanted(request, supply.layout)
    stock = stock_of(supply) if wishes else NO_STOCK
    if not is_bound(request):
        return Question(None, Ground(cells=(), stock=stock), wishes)
    guest = guest_of(request)
    return Question(guest, ground_of(request, guest, supply, stock), wishes)


def confirmed(certificate: Certificate, request: Request, supply: Supply) -> bool | None:
    """Say whether a certificate of a live refusal holds by the independent check, None where it was too large to be checked."""
    wrong = check(certificate, *question_of(request, supply))
    return None if wrong and wrong[0].startswith(NOT_CHECKED) else not wrong
