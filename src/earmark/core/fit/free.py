"""What is taken: the index of a node's live grants, kept up to date row by row.

Rules of this file: a Free is never changed, only followed by another; the cost of a step is that of its grant's rows, whatever else is
live; the result equals `Free.recompute` over the grants (compared by the auditor). A row that contradicts the index is a broken ledger.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import immutables
import msgspec

from earmark.core.fit.devices.policy import crowded
from earmark.core.fit.layout import Layout
from earmark.core.model.cpuset import CPU_MAX
from earmark.core.model.grant import AmountRow, Grant, UnitRow
from earmark.core.model.ids import ClaimId, PoolId, Slot, UnitId, shared_unit
from earmark.errors import LedgerBroken

CPU_PREFIX = "cpu:"
CPU_DIGITS_MAX = len(str(CPU_MAX))


class Free(msgspec.Struct, frozen=True, kw_only=True):
    """What claims (and quarantines) hold: CPUs in unit rows as a mask, the holder of each exclusion slot, the sum of each pool.

    A pool of which nothing is used is not in `used`.
    """

    taken_cpus: int = 0
    slots: immutables.Map[Slot, ClaimId] = immutables.Map()
    used: immutables.Map[PoolId, int] = immutables.Map()

    def take(self, claim: ClaimId, grant: Grant) -> Free:
        """Return the index with a grant taken; raises LedgerBroken if a slot of it is held."""
        slots, mask = _held(self.slots, claim, grant.units)
        return Free(taken_cpus=self.taken_cpus | mask, slots=slots, used=_added(self.used, grant.amounts, 1))

    def give(self, claim: ClaimId, grant: Grant, units: frozenset[UnitId] | None = None) -> Free:
        """Return the index with a grant given back: all of it, or only the rows of some units (its amounts then stay).

        Raises LedgerBroken if the claim holds not what it gives back.
        """
        rows = grant.units if units is None else tuple(row for row in grant.units if row.unit in units)
        slots, mask = _freed(self.slots, claim, rows)
        used = self.used if units is not None else _added(self.used, grant.amounts, -1)
        return Free(taken_cpus=self.taken_cpus & ~mask, slots=slots, used=used)

    def passed(self, source: ClaimId, target: ClaimId, rows: Iterable[UnitRow]) -> Free:
        """Return the index with some unit rows passed from one claim to another, never through free; raises LedgerBroken."""
        listed = tuple(rows)
        freed, _ = _freed(self.slots, source, listed)
        slots, _ = _held(freed, target, listed)
        return Free(taken_cpus=self.taken_cpus, slots=slots, used=self.used)

    @staticmethod
    def recompute(grants: Iterable[tuple[ClaimId, Grant]]) -> Free:
        """Return the index of some grants, computed from nothing.

        Where two grants overlap, the first in the given order is the holder: `overlaps` tells of it, the ledger still opens.
        """
        slots: dict[Slot, ClaimId] = {}
        used: dict[PoolId, int] = {}
        mask = 0
        for claim, grant in grants:
            mask |= cpu_mask(grant.units)
            for row in grant.units:
                for slot in row.occupied:
                    slots.setdefault(slot, claim)
            for amount in grant.amounts:
                used[amount.pool] = used.get(amount.pool, 0) + amount.amount
        return Free(taken_cpus=mask, slots=immutables.Map(slots), used=immutables.Map(used))


EMPTY = Free()


class Overlap(NamedTuple):
    """Two live rows that share an exclusion slot: what must never be."""

    slot: Slot
    first: ClaimId
    first_unit: UnitId
    second: ClaimId
    second_unit: UnitId


class Supply(msgspec.Struct, frozen=True, kw_only=True):
    """All that fit and judge look at: the layout, what is taken, and what gets no new grants (cordoned, missing, foreign).

    `blocked_cpus` is a mask, `blocked_units` are other units.
    """

    layout: Layout
    free: Free = EMPTY
    blocked_cpus: int = 0
    blocked_units: frozenset[UnitId] = frozenset()

    @property
    def barred_units(self) -> frozenset[UnitId]:
        """The units other than CPUs that get no new grants: blocked ones, and what is held of a card in a way that its policy ended."""
        shared = (unit for pool in self.free.used if (unit := shared_unit(pool)) is not None)
        return self.blocked_units | crowded(self.layout.known, self.free.slots, shared)


def overlaps(grants: Iterable[tuple[ClaimId, Grant]]) -> tuple[Overlap, ...]:
    """Return each slot that occurs in two rows of some grants, in the order in which they are given."""
    holders: dict[Slot, tuple[ClaimId, UnitId]] = {}
    found = []
    for claim, grant in grants:
        for row in grant.units:
            for slot in row.occupied:
                first = holders.get(slot)
                if first is not None:
                    found.append(Overlap(slot, *first, claim, row.unit))
                else:
                    holders[slot] = (claim, row.unit)
    return tuple(found)


def cpu_of(unit: UnitId) -> int:
    """Return the number in `cpu:N`; raises LedgerBroken where there is none, as in no grant that was ever judged."""
    text = unit[4:]
    if not (text.isascii() and text.isdigit() and len(text) <= CPU_DIGITS_MAX and int(text) <= CPU_MAX):
        raise LedgerBroken(f"{unit!r} is not a CPU", unit=unit)
    return int(text)


def cpu_mask(rows: Iterable[UnitRow]) -> int:
    """Return the mask of the CPUs among some unit rows."""
    mask = 0
    for row in rows:
        if row.unit.startswith(CPU_PREFIX):
            mask |= 1 << cpu_of(row.unit)
    return mask


def _held(slots: immutables.Map[Slot, ClaimId], claim: ClaimId, rows: Iterable[UnitRow]) -> tuple[immutables.Map[Slot, ClaimId], int]:
    """Return the slots with some rows' added, and the mask of their CPUs."""
    mask = 0
    changed = slots.mutate()
    for row in rows:
        if row.unit.startswith(CPU_PREFIX):
            mask |= 1 << cpu_of(row.unit)
        for slot in row.occupied:
            holder = changed.get(slot)
            if holder is not None:
                tried = f"claim {claim} takes {row.unit}, but slot {slot} is held by claim {holder}"
                raise LedgerBroken(tried, claim=claim, unit=row.unit, holder=holder)
            changed[slot] = claim
    return changed.finish(), mask


def _freed(slots: immutables.Map[Slot, ClaimId], claim: ClaimId, rows: Iterable[UnitRow]) -> tuple[immutables.Map[Slot, ClaimId], int]:
    """Return the slots without some rows', and the mask of their CPUs."""
    mask = 0
    changed = slots.mutate()
    for row in rows:
        if row.unit.startswith(CPU_PREFIX):
            mask |= 1 << cpu_of(row.unit)
        for slot in row.occupied:
            holder = changed.pop(slot, None)
            if holder != claim:
                tried = f"claim {claim} gives back {row.unit}, but slot {slot} is held by {holder or 'nobody'}"
                raise LedgerBroken(tried, claim=claim, unit=row.unit)
    return changed.finish(), mask


def _added(used: immutables.Map[PoolId, int], rows: tuple[AmountRow, ...], sign: int) -> immutables.Map[PoolId, int]:
    """Return the sums with some amounts added or taken away; raises LedgerBroken if a sum would be negative."""
    if not rows:
        return used
    changed = used.mutate()
    for row in rows:
        held = changed.get(row.pool, 0)
        amount = held + sign * row.amount
        if amount < 0:
            raise LedgerBroken(f"{row.amount} of {row.pool} is given back, but only {held} is held", pool=row.pool)
        if amount:
            changed[row.pool] = amount
        else:
            changed.pop(row.pool, None)
    return changed.finish()
