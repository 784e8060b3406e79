"""A command on its way to the ledger: checked, queued, said in the log, remembered under its key.

Rules of this file: a work belongs to its caller until a leader takes it, then to the leader until its event is set.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, TypeVar

import msgspec

from earmark.core.ledger.codec import Head
from earmark.core.ledger.commands import Answer, Command
from earmark.core.model.ids import StreamId
from earmark.core.model.refusal import Refusal
from earmark.errors import EarmarkError, InvalidRequest, KeyReused, LedgerUnavailable, OutcomeUnknown
from earmark.logs import log
from earmark.stores.contract import ANSWERS_KEPT_MS, Reader, Remembered

if TYPE_CHECKING:
    from earmark.core.ledger.life_commands import LifeAnswer, LifeCommand

    Result = Answer | LifeAnswer | Refusal
AnyAnswer = TypeVar("AnyAnswer", bound="Answer | LifeAnswer")
AnyCommand = TypeVar("AnyCommand", bound="Command | LifeCommand")


class Key(msgspec.Struct, frozen=True):
    """An idempotency key of an owner, and the digest of what was asked under it."""

    owner: str
    key: str
    digest: str


class Work:
    """One command on its way through the queue; `done` is set when it was answered or when its caller is to lead.

    `taken`: a leader has it; `decided`: its group goes to the commit; `handed_on`: its caller leads no more; `behind`: nothing was done,
    because too much would have had to be folded first; `whole`: it is carried out whatever there is to fold.
    """

    __slots__ = (
        "behind", "command", "correlation", "decided", "done", "error", "handed_on", "key", "lead", "result", "taken", "whole",
    )  # fmt: skip

    def __init__(self, command: Command | LifeCommand, key: Key | None, correlation: str, *, whole: bool = False) -> None:
        self.command = command
        self.key = key
        self.correlation = correlation
        self.whole = whole
        self.behind = False
        self.done = threading.Event()
        self.lead = False
        self.taken = False
        self.decided = False
        self.handed_on = False
        self.result: Result | None = None
        self.error: BaseException | None = None

    @property
    def answered(self) -> bool:
        """Whether there is a result or an error, or nothing can be done yet."""
        return self.result is not None or self.error is not None or self.behind


def checked(command: AnyCommand) -> AnyCommand:
    """Return a command made of exactly what its types allow, as if it had come from outside; raises InvalidRequest."""
    try:
        return msgspec.json.decode(encoded(command), type=type(command))
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidRequest(f"{type(command).__name__}: {error}", found=str(error)) from error


def encoded(value: object) -> bytes:
    """Return a value as JSON; raises InvalidRequest for what JSON cannot hold (numbers past 64 bits, lone surrogates, strange types)."""
    try:
        return msgspec.json.encode(value)
    except (OverflowError, TypeError, ValueError, RecursionError) as error:
        raise InvalidRequest(f"{type(value).__name__}: {error}") from error


def command_id(stream: StreamId, head: Head) -> str:
    """Return the id of the command whose first event follows a head: no two commands of any writer share it."""
    return f"{stream}@{head.sequence + 1}"


def say(command: Command | LifeCommand, result: Result) -> None:
    """Log one line about a decision that is durable now (an answer that changed nothing is none)."""
    if isinstance(result, Refusal):
        log("claim.refused", node=result.node, reasons=len(result.reasons), code=result.reasons[0].code)
    elif not result.changed:
        return
    elif isinstance(result, Answer):
        noun = "claim" if result.claim_id is not None else "node"
        log(f"{noun}.{result.outcome}", node=result.node, claim=result.claim_id, cause=result.cause)
    else:
        noun = "move" if result.move is not None else "instance"
        consumer = None if isinstance(command, Command) else command.consumer
        log(f"{noun}.{result.outcome}", consumer=consumer, move=result.move.id if result.move else None)


def own_error(error: EarmarkError) -> EarmarkError:
    """Return an error of its own for one of several callers, so that no thread writes notes or a traceback on another's."""
    same = type(error)(error.message, **error.facts)
    same.__cause__ = error
    return same


def interrupted(work: Work) -> EarmarkError:
    """Return the error for a work whose leader was interrupted: it says whether anything can have happened."""
    name = type(work.command).__name__
    if work.decided:
        return OutcomeUnknown(f"{name}: the writer was interrupted at the commit; the ledger shows whether it has happened")
    return LedgerUnavailable(f"{name}: the writer was interrupted before the commit; nothing has happened")


def known_answer(tx: Reader, key: Key, now_ms: int, kind: type[AnyAnswer]) -> AnyAnswer | None:
    """Return the first answer to the same command under a key; raises KeyReused for another command."""
    known = tx.answer(key.owner, key.key)
    if known is None or known.at_ms < now_ms - ANSWERS_KEPT_MS:
        return None
    if known.digest != key.digest:
        raise KeyReused(f"key {key.key!r} of {key.owner} was used for another command", key=key.key, owner=key.owner)
    return msgspec.json.decode(known.answer, type=kind)


def remembered(key: Key, answer: Answer | LifeAnswer, now_ms: int) -> Remembered:
    """Return what is kept of an answer under its key."""
    return Remembered(key.owner, key.key, key.digest, msgspec.json.encode(answer), now_ms)
