"""Lists of vCPUs as flavors write them: "0-3,^1", and masks that begin with ^, which mean all but.

Rules of this file: a number is never expanded beyond the flavor's vCPUs; whether a list reaches further is known all the same.
Source: Nova 34, virt/hardware.py parse_cpu_spec (N10) and get_dedicated_cpu_constraint (N6).
"""

import re
from bisect import bisect_right
from typing import NamedTuple

from earmark.core.flavor.texts import invalid

ITEM = re.compile(r"(\^?)\s*([0-9]{1,18})\s*(?:-\s*([0-9]{1,18})\s*)?")
TEXT_MAX = 8 * 1024

Span = tuple[int, int]
"""A range of numbers, both ends in it."""


class Vcpus(NamedTuple):
    """The vCPUs of a list: those of the flavor as a mask, and the lowest of the numbers that it does not have (None: there are none)."""

    mask: int
    beyond: int | None

    @property
    def numbers(self) -> tuple[int, ...]:
        """The vCPUs of the flavor, ascending."""
        return numbers_of(self.mask)

    @property
    def empty(self) -> bool:
        """Whether the list names nothing at all."""
        return not self.mask and self.beyond is None


def every(count: int) -> int:
    """Return the mask of all vCPUs of a flavor."""
    return (1 << count) - 1


def numbers_of(mask: int) -> tuple[int, ...]:
    """Return the numbers in a mask, ascending; in one pass, as a flavor may have a million vCPUs."""
    return tuple(number for number, bit in enumerate(bin(mask)[:1:-1]) if bit == "1")


def lowest(mask: int) -> int:
    """Return the lowest number in a mask that is not empty."""
    return (mask & -mask).bit_length() - 1


def read_mask(text: str, count: int, key: str) -> Vcpus:
    """Return the vCPUs of a mask for a flavor of `count` vCPUs: a leading ^ means all but. Raises InvalidFlavor (Invalid)."""
    return read_list(f"0-{count - 1},{text}" if text.strip().startswith("^") else text, count, key)


def read_list(text: str, count: int, key: str) -> Vcpus:
    """Return the vCPUs of a list; raises InvalidFlavor (Invalid) on what is neither a number nor a forward range."""
    if len(text) > TEXT_MAX:
        raise invalid("Invalid", key, text, f"longer than {TEXT_MAX} characters")
    take = leave = 0
    taken: list[Span] = []
    left: list[Span] = []
    for part in text.split(","):
        item = part.strip()
        if not item:
            continue
        match = ITEM.fullmatch(item)
        low, high = (int(match[2]), int(match[3] or match[2])) if match else (1, 0)
        if match is None or low > high:
            raise invalid("Invalid", key, text, f"{item!r} is neither a number nor a range")
        bits = every(min(high + 1, count)) & ~every(min(low, count))
        if match[1]:
            leave |= bits
            left.append((low, high))
        else:
            take |= bits
            taken.append((low, high))
    return Vcpus(take & ~leave, _beyond(taken, left, count))


def _beyond(taken: list[Span], left: list[Span], count: int) -> int | None:
    """Return the lowest number from `count` on that is taken and not left out."""
    gaps = _joined(left)
    starts = [start for start, _ in gaps]
    found: int | None = None
    for low, high in taken:
        lowest = max(low, count)
        before = bisect_right(starts, lowest) - 1
        if before >= 0:
            lowest = max(lowest, gaps[before][1] + 1)
        if lowest <= high and (found is None or lowest < found):
            found = lowest
    return found


def _joined(spans: list[Span]) -> list[Span]:
    """Return ranges in order, those that overlap or touch as one."""
    joined: list[Span] = []
    for low, high in sorted(spans):
        if joined and low <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(joined[-1][1], high))
        else:
            joined.append((low, high))
    return joined
