"""The exceptions of Earmark, by whose fault it is.

Rules of this file: `Invalid…` is the caller's fault, `Conflict` a lost race, `…Unavailable` the world's, `LedgerBroken` ours or the
disk's. A refusal is an answer and not in this tree, except for `Refused`, which a `with` block raises because it cannot start.
Every message says what was tried, on what, and what was found; the same facts stand in `facts`.
"""

from __future__ import annotations

from typing import Any, ClassVar

type_prefix = "https://earmark.dev/errors/"


class EarmarkError(Exception):
    """The root of all errors that Earmark raises on purpose.

    `code` is a stable name (the last part of a problem+json `type`), `exit_code` what the command line ends with.
    """

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 70

    def __init__(self, message: str, **facts: object) -> None:
        super().__init__(message)
        self.message = message
        self.facts = facts

    def problem(self) -> dict[str, object]:
        """Return the error as a problem+json object (RFC 9457); text that is no UTF-8 (of an argument, a path) is shown escaped."""
        facts = {name: sayable(value) for name, value in self.facts.items()}
        return {"type": type_prefix + self.code, "title": self.code.replace("-", " "), "detail": sayable(self.message), "facts": facts}


def sayable(value: object) -> object:
    """Return a value whose texts can be written as UTF-8: a lone surrogate, as Python reads undecodable bytes, becomes its escape."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, list | tuple | set | frozenset):
        return [sayable(each) for each in value]
    if isinstance(value, dict):
        return {str(sayable(key)): sayable(each) for key, each in value.items()}
    return value


# --- the caller's fault -------------------------------------------------------------------------------------------------------------


class Invalid(EarmarkError):
    """What was asked for cannot be understood or makes no sense; asking again will not help."""

    code = "invalid"
    exit_code = 2


class InvalidRequest(Invalid):
    """A request, command or argument breaks its own rules."""

    code = "invalid-request"


class InvalidFlavor(InvalidRequest):
    """A flavor, its image or a PCI alias contradicts itself or the others; `kind` is the name of the exception that Nova raises for it."""

    code = "invalid-flavor"

    def __init__(self, message: str, *, kind: str = "Invalid", **facts: object) -> None:
        super().__init__(message, kind=kind, **facts)
        self.kind = kind


class InvalidSetting(Invalid):
    """A setting is unknown, of the wrong type, or impossible."""

    code = "invalid-setting"


class InvalidRecord(Invalid):
    """Data from outside (a file, an import, a host) does not have the form it must have."""

    code = "invalid-record"


class UnknownNode(Invalid):
    """No node of that name or uuid is in this ledger."""

    code = "unknown-node"


class UnknownClaim(Invalid):
    """No claim of that id is in this ledger."""

    code = "unknown-claim"


class UnknownInstance(Invalid):
    """No consumer of that id, uuid or name is known in this ledger beyond its claims."""

    code = "unknown-instance"


class UnknownMove(Invalid):
    """No move of that id is in this ledger."""

    code = "unknown-move"


class UnknownUnit(Invalid):
    """The node has no such unit."""

    code = "unknown-unit"


class KeyReused(Invalid):
    """The idempotency key was used before for another command."""

    code = "key-reused"


class WrongUse(Invalid):
    """The library is used in a way that cannot be made safe (after fork, after close, inside its own lock)."""

    code = "wrong-use"


# --- an answer, raised where a with block cannot start ------------------------------------------------------------------------------


class Refused(EarmarkError):
    """A `with` block could not start because the claim was refused; `refusal` holds the reasons."""

    code = "refused"
    exit_code = 3

    def __init__(self, message: str, refusal: Any) -> None:
        super().__init__(message)
        self.refusal = refusal


# --- a lost race --------------------------------------------------------------------------------------------------------------------


class Conflict(EarmarkError):
    """What the command was decided on is no longer true; decide again."""

    code = "conflict"
    exit_code = 4


class SequenceConflict(Conflict):
    """The stream has moved on since it was read."""

    code = "sequence-conflict"


class GenerationConflict(Conflict):
    """The claim has another generation than the caller believes."""

    code = "generation-conflict"


class StaleEpoch(Conflict):
    """The writer's epoch is below the stream's: another writer has taken over."""

    code = "stale-epoch"


class UnitTaken(Conflict):
    """The store refused a grant because one of its units already has a holder."""

    code = "unit-taken"


class ConsumerTaken(Conflict):
    """The store refused a second live main claim of one consumer."""

    code = "consumer-taken"


# --- the world's fault --------------------------------------------------------------------------------------------------------------


class Unavailable(EarmarkError):
    """Something outside does not answer; nothing was changed, the same call may succeed later."""

    code = "unavailable"
    exit_code = 5


class LedgerUnavailable(Unavailable):
    """The ledger cannot be read or written now; what was tried has not happened."""

    code = "ledger-unavailable"


class LedgerBusy(LedgerUnavailable):
    """Another writer holds the ledger longer than the time-out; the message names it."""

    code = "ledger-busy"


class LedgerReadOnly(LedgerUnavailable):
    """The ledger may be read but not written here."""

    code = "ledger-read-only"


class LedgerFull(LedgerUnavailable):
    """The disk under the ledger is full."""

    code = "ledger-full"


class LockTimeout(Unavailable):
    """A lock of this process was not free in time; the message names its holder."""

    code = "lock-timeout"


class OutcomeUnknown(Unavailable):
    """The command was handed to the writer and no answer came in time: it may or may not have happened; ask with its key."""

    code = "outcome-unknown"


class UnsafePlace(Unavailable):
    """This SQLite, file system or set of file modes cannot keep a ledger safe."""

    code = "unsafe-place"


class HostUnavailable(Unavailable):
    """A fact of this host that the command needs cannot be read."""

    code = "host-unavailable"


# --- our fault, or the disk's -------------------------------------------------------------------------------------------------------


class LedgerBroken(EarmarkError):
    """The ledger contradicts itself; nothing more is written to it until a person has looked."""

    code = "ledger-broken"
    exit_code = 6


class LedgerCorrupt(LedgerBroken):
    """The file is damaged."""

    code = "ledger-corrupt"


class LedgerForeign(LedgerBroken):
    """The file is not a ledger of Earmark, or belongs to another machine."""

    code = "ledger-foreign"


class LedgerNewer(LedgerBroken):
    """The ledger was written by a newer Earmark; this one may read what it understands and writes nothing."""

    code = "ledger-newer"


class ChainBroken(LedgerBroken):
    """The hash chain of a stream does not hold."""

    code = "chain-broken"
