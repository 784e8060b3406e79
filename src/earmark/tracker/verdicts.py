"""What becomes of records from outside: the verdict on each, before and after it is carried out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

from earmark.core.ledger.consumer import ConsumerState
from earmark.core.model.ids import ConsumerId
from earmark.core.model.record import GuestRecord, InstanceRecord, Listing, MoveRecord, Record
from earmark.core.model.value import Value

Kind = Literal["accepted", "stale", "contradictory", "unknown", "invalid", "gone"]
SHOWN_MAX = 300
NAMES_MAX = 5
"""Names that one reason lists."""


class Verdict(Value, frozen=True):
    """What became of one record: its place (1 is the first), what it is about, and why; `changed`: the ledger was written."""

    place: int
    about: str
    reason: str = ""
    changed: bool = False


class Received(Value, frozen=True):
    """The verdicts on all records, each in one list, in order of their places.

    `gone` are instances that a complete listing lacks, deleted where that was applied. `listing` says why a listing that was said to be
    complete is not taken as one.
    """

    accepted: tuple[Verdict, ...] = ()
    stale: tuple[Verdict, ...] = ()
    contradictory: tuple[Verdict, ...] = ()
    unknown: tuple[Verdict, ...] = ()
    invalid: tuple[Verdict, ...] = ()
    gone: tuple[Verdict, ...] = ()
    listing: str = ""

    @property
    def clean(self) -> bool:
        """Whether every record was accepted, and whoever a listing lacks was deleted."""
        left = any(not each.changed for each in self.gone)
        return not (self.stale or self.contradictory or self.unknown or self.invalid or self.listing or left)


class Judged(NamedTuple):
    """A record's verdict before anything is done; `act` does what it asks for and says whether that changed anything, with a word on it.

    `record` is what was judged, None where it could not be read.
    """

    kind: Kind
    about: str
    reason: str = ""
    act: Callable[[], tuple[bool, str]] | None = None
    record: Record | None = None


class Known(NamedTuple):
    """The consumers that are known when the records come, by id and by uuid, and when that was (milliseconds since the epoch)."""

    consumers: Mapping[str, ConsumerState]
    uuids: Mapping[str, ConsumerId]
    at_ms: int

    def named(self, text: str) -> ConsumerId:
        """Return the consumer that a record names by id or uuid."""
        return ConsumerId(text) if text in self.consumers else self.uuids.get(text, ConsumerId(text))


def about(record: Record) -> str:
    """Return what a record speaks of, in words."""
    match record:
        case InstanceRecord():
            return f"instance {shown(record.consumer)}"
        case MoveRecord():
            return f"move {shown(record.move)}"
        case Listing():
            return f"listing of {shown(record.node)}"
        case GuestRecord():
            return f"guest {shown(record.guest.consumer)} on {shown(record.node)}"


def shown(text: str) -> str:
    """Return a text from outside so that it can be printed: what is not printable is escaped, too much is cut."""
    clean = "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)
    return clean if len(clean) <= SHOWN_MAX else clean[: SHOWN_MAX - 1] + "…"


def some(names: list[str]) -> str:
    """Return the first few of some names, and how many more there are."""
    told = ", ".join(shown(name) for name in names[:NAMES_MAX])
    return told if len(names) <= NAMES_MAX else f"{told} and {len(names) - NAMES_MAX} more"
