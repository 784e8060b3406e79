"""What a node offers of each resource class, and the one rule that says whether an amount may be taken.

Source: OpenStack Placement 16, objects/allocation.py (capacity, units) and handlers/inventory.py (defaults); compared here exactly,
in thousandths, where Placement compares floats.
"""

from earmark.core.model.ids import PoolId, ResourceClass
from earmark.core.model.value import Value
from earmark.errors import InvalidRequest

UNIT_MAX = (1 << 63) - 1
RATIO_ONE = 1000


class Inventory(Value, frozen=True):
    """The stock of one class on one node. `ratio` is the allocation ratio in thousandths; amounts are in the class's base unit."""

    resource_class: ResourceClass
    total: int
    reserved: int = 0
    ratio: int = RATIO_ONE
    min_unit: int = 1
    max_unit: int = UNIT_MAX
    step_size: int = 1

    @property
    def capacity(self) -> int:
        """(total - reserved) x ratio, rounded down; for people. The comparison is `admits`."""
        return max(0, (self.total - self.reserved) * self.ratio // RATIO_ONE)

    def admits(self, used: int, used_after: int) -> bool:
        """Say whether usage may go from `used` to `used_after`: within capacity, or not worse than an existing overage (C10, X6)."""
        return used_after <= used or used_after * RATIO_ONE <= (self.total - self.reserved) * self.ratio

    def misfit(self, amount: int) -> str | None:
        """Say which unit rule (C11) an amount breaks, None if it breaks none."""
        if amount < self.min_unit:
            return f"{amount} is below the smallest amount {self.min_unit}"
        if amount > self.max_unit:
            return f"{amount} is above the largest amount {self.max_unit}"
        if amount % self.step_size:
            return f"{amount} is not a multiple of {self.step_size}"
        return None


class Stock(Inventory, frozen=True, kw_only=True):
    """An inventory as people look at it: with its pool, its cell if it has one, and what is used of it."""

    pool: str
    cell: int | None = None
    used: int = 0


def stock_of(name: str, pool: str, total: int, reserved: int, ratio: int, used: int, *, cell: int | None = None) -> Stock:
    """Return a stock of which no consumer may have more than there is."""
    return Stock(
        resource_class=ResourceClass(name), total=total, reserved=reserved, ratio=ratio, max_unit=total, pool=pool, cell=cell, used=used
    )


def withdrawn_class(pool: PoolId) -> str:
    """Return the resource class of a pool that has no stock any more."""
    kind, _, rest = pool.partition(":")
    classes = {"class": rest, "disk": "DISK_BYTES", "pages": "PAGES", "vcpu": "VCPU", "share": "DEVICE_SHARE"}
    return classes.get(kind, kind.upper())


def checked(inventory: Inventory) -> Inventory:
    """Return the inventory if its numbers make sense together (C11); raises InvalidRequest."""
    i = inventory
    problem = None
    if i.total < 1:
        problem = f"total {i.total} is below 1 (leave the class out instead)"
    elif not 0 <= i.reserved <= i.total:
        problem = f"reserved {i.reserved} is not between 0 and total {i.total}"
    elif i.ratio < 1:
        problem = f"ratio {i.ratio}/1000 is not positive"
    elif not 1 <= i.min_unit <= i.max_unit:
        problem = f"units {i.min_unit} to {i.max_unit} are not a range from 1"
    elif i.step_size < 1:
        problem = f"step {i.step_size} is below 1"
    if problem:
        raise InvalidRequest(f"inventory of {i.resource_class}: {problem}", resource_class=i.resource_class)
    return inventory
