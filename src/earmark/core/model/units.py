"""Amounts as people write them: bytes and durations.

Rules of this file: binary units only (KiB, MiB, GiB, TiB; K, M, G, T mean the same); integers in base units inside; a fraction is
accepted only where it is a whole number of bytes or milliseconds.
"""

from __future__ import annotations

import re
from fractions import Fraction

from earmark.errors import InvalidRequest

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
TIB = 1024 * GIB
THOUSAND = 1000
BYTES_MAX = 1 << 60
DURATION_MS_MAX = 10 * 366 * 24 * 3600 * 1000

SIZE = re.compile(r"([0-9]{1,19}(?:\.[0-9]{1,9})?)\s*([KMGTP]?)(?:i?B)?", re.IGNORECASE)
SIZES = {"": 1, "K": KIB, "M": MIB, "G": GIB, "T": TIB, "P": 1024 * TIB}
SPAN = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,3})?)(ms|s|m|h|d|w)")
SPANS_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}


def parse_bytes(text: str, *, what: str = "size") -> int:
    """Return a size such as "8GiB", "512M" or "1.5T" in bytes; raises InvalidRequest."""
    match = SIZE.fullmatch(text.strip())
    if not match:
        raise InvalidRequest(f"{what} {text!r} is not a size: 512MiB, 8GiB or a number of bytes is", what=what, found=text)
    size = Fraction(match[1]) * SIZES[match[2].upper()]
    if size.denominator != 1 or size > BYTES_MAX:
        raise InvalidRequest(f"{what} {text!r} is not a whole number of bytes up to 2^60", what=what, found=text)
    return int(size)


def format_bytes(size: int) -> str:
    """Return a size in the largest binary unit that shows it well: "8 GiB", "11.5 GiB", "512 MiB"."""
    sign, rest = ("-", -size) if size < 0 else ("", size)
    for name, unit in (("TiB", TIB), ("GiB", GIB), ("MiB", MIB), ("KiB", KIB)):
        if rest >= unit:
            tenths = (rest * 10 + unit // 2) // unit
            return f"{sign}{tenths // 10}{'' if tenths % 10 == 0 else '.' + str(tenths % 10)} {name}"
    return f"{sign}{rest} B"


def exact_bytes(size: int) -> str:
    """Return a size in the largest binary unit of which it is a whole number: "129 MiB", "1000 TiB", "4097 bytes"."""
    units = (("TiB", TIB), ("GiB", GIB), ("MiB", MIB), ("KiB", KIB))
    name, unit = next(((name, unit) for name, unit in units if size and size % unit == 0), ("bytes", 1))
    return f"{size // unit} {name}"


def parse_duration_ms(text: str, *, what: str = "duration") -> int:
    """Return a duration such as "2h", "90s" or "1h30m" in milliseconds; raises InvalidRequest."""
    rest = text.strip()
    total = Fraction(0)
    while rest:
        match = SPAN.match(rest)
        if not match:
            break
        total += Fraction(match[1]) * SPANS_MS[match[2]]
        rest = rest[match.end() :]
    if rest or not text.strip() or total.denominator != 1 or not 0 < total <= DURATION_MS_MAX:
        raise InvalidRequest(f"{what} {text!r} is not a duration: 90s, 2h or 1h30m is, up to ten years", what=what, found=text)
    return int(total)


def format_duration(ms: int) -> str:
    """Return a duration in its two largest units: "2h", "1h30m", "45s", "350ms"."""
    if ms < 0:
        return "-" + format_duration(-ms)
    if ms < THOUSAND:
        return f"{ms}ms"
    seconds = ms // 1000
    parts = [(seconds // 86400, "d"), (seconds // 3600 % 24, "h"), (seconds // 60 % 60, "m"), (seconds % 60, "s")]
    while parts[0][0] == 0 and len(parts) > 1:
        parts.pop(0)
    return "".join(f"{n}{u}" for n, u in parts[:2] if n) or "0s"


def parse_ratio(text: str, *, what: str = "ratio") -> int:
    """Return an allocation ratio such as "1.5" in thousandths (1500); raises InvalidRequest below 0.001 or above 1000."""
    if not re.fullmatch(r"[0-9]{1,4}(\.[0-9]{1,3})?", text.strip()):
        raise InvalidRequest(f"{what} {text!r} is not a ratio with at most three decimals", what=what, found=text)
    thousandths = int(Fraction(text.strip()) * THOUSAND)
    if not 0 < thousandths <= THOUSAND * THOUSAND:
        raise InvalidRequest(f"{what} {text!r} is not a ratio between 0.001 and 1000", what=what, found=text)
    return thousandths


def format_ratio(thousandths: int) -> str:
    """Return an allocation ratio as people write it: 1500 is "1.5", 1000 is "1"."""
    whole, rest = divmod(thousandths, THOUSAND)
    return f"{whole}.{rest:03}".rstrip("0").rstrip(".")


def counted(number: int, one: str, many: str | None = None) -> str:
    """Return a number with its noun, in the plural (`many`, else with an s) unless it is one: "1 CPU", "2 CPUs"."""
    return f"{number} {one if number == 1 else many or one + 's'}"
