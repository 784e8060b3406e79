"""The token that ties the two halves of a move between two ledgers: text that can be mailed, pasted and checked.

Rules of this file: it carries what the other ledger must know and nothing secret, but it names the consumer and the owner: it is not logged. A
checksum finds a token that was cut or mistyped; it proves nothing of who made it.
"""

import base64
import binascii
import hashlib

import msgspec

from earmark.core.model.ids import ClaimId, ConsumerId, MoveId, NodeId, Owner
from earmark.core.model.instance import MoveKind
from earmark.core.model.request import Request
from earmark.core.model.value import Value
from earmark.errors import InvalidRecord

PREFIX = "earmark-move-1."
TOKEN_BYTES_MAX = 65_536
CHECK_LETTERS = 16


class Half(Value, frozen=True):
    """The half of a move that the source's ledger knows."""

    ledger: str
    move: MoveId
    kind: MoveKind
    consumer: ConsumerId
    owner: Owner
    uuid: str
    node: NodeId
    claims: tuple[ClaimId, ...]
    requests: tuple[Request, ...]
    page_kib: int | None = None


_halves = msgspec.json.Decoder(Half)


def to_token(half: Half) -> str:
    """Return a half as a token."""
    body = base64.urlsafe_b64encode(msgspec.json.encode(half)).decode("ascii").rstrip("=")
    return f"{PREFIX}{body}.{_check(body)}"


def from_token(text: str) -> Half:
    """Return the half in a token; raises InvalidRecord for anything else."""
    body, _, check = text.strip().removeprefix(PREFIX).rpartition(".")
    if not text.strip().startswith(PREFIX) or len(text) > TOKEN_BYTES_MAX or not body.isascii():
        raise InvalidRecord(f"this is no token of a move: {PREFIX}… is", length=len(text))
    if check != _check(body):
        raise InvalidRecord("this token of a move is damaged: its checksum does not fit", length=len(text))
    try:
        half = _halves.decode(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    except (binascii.Error, ValueError, RecursionError) as error:
        raise InvalidRecord(f"this token of a move cannot be read: {error}", length=len(text)) from error
    if len(half.claims) != len(half.requests) or not half.claims:
        raise InvalidRecord("this token of a move does not say what each of its claims holds", length=len(text))
    return half


def _check(body: str) -> str:
    return hashlib.sha256(body.encode("ascii")).hexdigest()[:CHECK_LETTERS]
