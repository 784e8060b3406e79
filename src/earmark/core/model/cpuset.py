"""Sets of CPUs as bit masks and as text.

Rules of this file: a mask is an int whose bit n is CPU n; the text is the kernel's list format ("0-3,8"), and on reading also Nova's
exclusions ("0-7,^3"; Nova 34, virt/hardware.py parse_cpu_spec).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Annotated

from msgspec import Meta

from earmark.errors import InvalidRequest

CPU_MAX = 8191
CpuNumber = Annotated[int, Meta(ge=0, le=CPU_MAX)]
"""The number of a logical CPU: a mask has a bit for it."""
ITEM = re.compile(r"(\^?)\s*([0-9]{1,5})\s*(?:-\s*([0-9]{1,5})\s*)?")


def mask_of(cpus: Iterable[int]) -> int:
    """Return the mask of some CPU numbers."""
    mask = 0
    for cpu in cpus:
        mask |= 1 << cpu
    return mask


def cpus_of(mask: int) -> tuple[int, ...]:
    """Return the CPU numbers of a mask, ascending."""
    return tuple(iterate(mask))


def iterate(mask: int) -> Iterator[int]:
    """Yield the CPU numbers of a mask, ascending."""
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low


def parse_cpu_list(text: str, *, what: str = "cpu list") -> tuple[int, ...]:
    """Return the CPU numbers of a list such as "0-3,^1,8", ascending; an empty text is an empty list.

    Raises InvalidRequest on anything else, on a backward range, and on a number above 8191.
    """
    take = leave = 0
    for part in text.split(","):
        item = part.strip()
        if not item:
            continue
        match = ITEM.fullmatch(item)
        if not match:
            raise InvalidRequest(f"{what} {text!r}: {item!r} is neither a number nor a range", what=what, found=text)
        low = int(match[2])
        high = int(match[3]) if match[3] else low
        if low > high or high > CPU_MAX:
            raise InvalidRequest(f"{what} {text!r}: {item!r} is not a range of CPUs up to {CPU_MAX}", what=what, found=text)
        bits = ((1 << (high - low + 1)) - 1) << low
        if match[1]:
            leave |= bits
        else:
            take |= bits
    return cpus_of(take & ~leave)


def format_cpu_list(cpus: Iterable[int]) -> str:
    """Return CPU numbers in the kernel's list format, "" for none."""
    parts: list[str] = []
    start = previous = -2
    for cpu in [*sorted(set(cpus)), -1]:
        if cpu == previous + 1:
            previous = cpu
            continue
        if start >= 0:
            parts.append(str(start) if start == previous else f"{start}-{previous}")
        start = previous = cpu
    return ",".join(parts)
