"""Whether the certificate of a live refusal holds: the question that was put to the search is put to those who check by other means.

Rules of this file: nothing of the search is used; guest, ground and wishes are those that it was asked with.
"""

from __future__ import annotations

from earmark.core.fit.free import Supply
from earmark.core.fit.live_ground import question_of
from earmark.core.fit.proof.certify import NOT_CHECKED, check
from earmark.core.model.refusal import Certificate
from earmark.core.model.request import Request


def confirmed(certificate: Certificate, request: Request, supply: Supply) -> bool | None:
    """Say whether a certificate of a live refusal holds by the independent check, None where it was too large to be checked."""
    wrong = check(certificate, *question_of(request, supply))
    return None if wrong and wrong[0].startswith(NOT_CHECKED) else not wrong
