"""What is given: exactly which units and how much of which pools.

Rules of this file: a grant is rows, never counters. A unit row is exclusive and occupies its slots (`core.model.exclusion`); an amount
row is one claim's share of a pool and is summed.
"""

from typing import Annotated, Literal

from msgspec import Meta

from earmark.core.model.ids import PoolId, Slot, UnitId
from earmark.core.model.value import Value

Use = Literal["vcpu", "emulator", "withheld", "device"]

GRANT_ROWS_MAX = 65536


class UnitRow(Value, frozen=True):
    """One exclusive unit of a grant. `slots` are what it occupies when that is not simply itself (a PF, a whole sliced GPU).

    `identity` is what a device was when it was given (`Device.identity`), made fuller when its serial is read later: another card that
    comes to its address is not what was given.
    """

    unit: UnitId
    use: Use
    slots: tuple[Slot, ...] = ()
    identity: str | None = None

    @property
    def occupied(self) -> tuple[Slot, ...]:
        """The exclusion slots of this row: two live rows of one node never share one."""
        return self.slots or (Slot(self.unit),)


class AmountRow(Value, frozen=True):
    """This claim's share of a pool, in the pool's unit (bytes, pages, vCPUs, thousandths)."""

    pool: PoolId
    amount: Annotated[int, Meta(ge=1, le=1 << 60)]


class Pin(Value, frozen=True):
    """A dedicated vCPU of the guest and the host CPU it is pinned to."""

    vcpu: int
    cpu: int


class GrantCell(Value, frozen=True):
    """One guest cell on one host cell: pins, floating vCPUs, emulator CPUs, memory and the size of its pages (None: ordinary)."""

    guest_cell: int
    host_cell: int
    pins: tuple[Pin, ...] = ()
    shared_vcpus: tuple[int, ...] = ()
    emulator_cpus: tuple[int, ...] = ()
    memory_bytes: int = 0
    page_kib: int | None = None


class Grant(Value, frozen=True):
    """All that one claim holds. `units` and `amounts` are the books; `cells` say how a guest uses them."""

    units: Annotated[tuple[UnitRow, ...], Meta(max_length=GRANT_ROWS_MAX)] = ()
    amounts: Annotated[tuple[AmountRow, ...], Meta(max_length=GRANT_ROWS_MAX)] = ()
    cells: tuple[GrantCell, ...] = ()

    @property
    def cpus(self) -> tuple[int, ...]:
        """The CPUs given for vCPUs and emulator threads, ascending (withheld ones are not to be used)."""
        return tuple(sorted(int(row.unit[4:]) for row in self.units if row.use in ("vcpu", "emulator")))

    def amount(self, pool: PoolId) -> int:
        """The amount of one pool, 0 if the grant has none of it."""
        return sum(row.amount for row in self.amounts if row.pool == pool)
