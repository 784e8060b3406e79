"""What an event changes in the guard rows that every store keeps beside the events.

Rules of this file: stores apply these changes in the transaction of the append and enforce three things: one holder per (stream, slot),
one open claim per id, one open main claim per consumer and one use of a move id in the whole ledger. Nothing is ever decided from these
rows except which stream a claim or move lives in and whether a claim has ended.
"""

from typing import NamedTuple

from earmark.core.ledger.events import ClaimEnded, ClaimHeld, Event, LegClosed, MoveOpened, UnitsPassed, UnitsRetained, UnitsReturned
from earmark.core.model.grant import Grant
from earmark.core.model.ids import ClaimId, ConsumerId, MoveId, Slot


class SlotRow(NamedTuple):
    """One guard row: `slot` is held by `claim` because of `unit`."""

    slot: Slot
    claim: ClaimId
    unit: str


class ClaimOpened(NamedTuple):
    """A claim row appears, open, with its slot rows."""

    claim: ClaimId
    consumer: ConsumerId
    purpose: str
    slots: tuple[SlotRow, ...]


class ClaimClosed(NamedTuple):
    """The claim row is closed with a cause; its slots go, unless they are in quarantine."""

    claim: ClaimId
    cause: str
    keep_slots: bool


class SlotsFreed(NamedTuple):
    """Slots of a closed claim go (returned from quarantine); an empty tuple means all that are left."""

    claim: ClaimId
    units: tuple[str, ...]


class SlotsPassed(NamedTuple):
    """Units change their claim; a slot row carries the unit it belongs to."""

    source: ClaimId
    target: ClaimId
    units: tuple[str, ...]


class PurposeChanged(NamedTuple):
    """An open claim has another purpose from now on."""

    claim: ClaimId
    purpose: str


class MoveBegun(NamedTuple):
    """A move id is used, by the consumer whose stream this is."""

    move: MoveId


RowChange = ClaimOpened | ClaimClosed | SlotsFreed | SlotsPassed | PurposeChanged | MoveBegun


def slot_rows(claim: ClaimId, grant: Grant) -> tuple[SlotRow, ...]:
    """Return the guard rows of a grant."""
    return tuple(SlotRow(slot, claim, row.unit) for row in grant.units for slot in row.occupied)


def row_change(event: Event) -> RowChange | None:
    """Return what an event changes in the guard rows, None for nothing."""
    if isinstance(event, ClaimHeld):
        return ClaimOpened(event.claim, event.consumer, event.purpose, slot_rows(event.claim, event.grant))
    if isinstance(event, ClaimEnded):
        return ClaimClosed(event.claim, event.cause, event.quarantined)
    if isinstance(event, UnitsReturned):
        return SlotsFreed(event.claim, event.units)
    if isinstance(event, UnitsRetained):
        return SlotsFreed(event.claim, event.freed) if event.freed else None
    if isinstance(event, UnitsPassed):
        return SlotsPassed(event.source, event.target, event.units)
    if isinstance(event, LegClosed):
        return PurposeChanged(event.claim, event.purpose)
    if isinstance(event, MoveOpened):
        return MoveBegun(event.move)
    return None
