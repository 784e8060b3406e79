"""Times as people write and read them.

Rules of this file: inside, milliseconds since the epoch; a text without a zone is local time; nothing is guessed.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone

from earmark.core.model.units import format_duration, parse_duration_ms
from earmark.errors import InvalidRequest

EPOCH = re.compile(r"[0-9]{9,14}(?:\.[0-9]{1,3})?")
SECONDS_BELOW = 100_000_000_000
"""A bare number below this is in seconds (until the year 5138), else in milliseconds."""
CLOCK = re.compile(r"(?:(today|yesterday)\s*)?(?:([0-9]{1,2}):([0-9]{2})(?::([0-9]{2}))?)?")
AGO = re.compile(r"-\s*(\S+)|(\S+) ago")
DAY_MS = 86_400_000
MINUTE_MS = 60_000


def parse_time(text: str, now_ms: int) -> int:
    """Return the moment that a text names, in milliseconds since the epoch.

    Understood: now, -2h, "2h ago", 14:30, today, "yesterday 02:00", 2026-03-01, "2026-03-01 02:00[:30][+01:00|Z]", seconds or milliseconds
    since the epoch. Raises InvalidRequest.
    """
    words = text.strip()
    if words == "now":
        return now_ms
    if match := AGO.fullmatch(words):
        return max(0, now_ms - parse_duration_ms(match[1] or match[2], what="time"))
    if EPOCH.fullmatch(words):
        number = float(words)
        return int(number * 1000) if number < SECONDS_BELOW else int(number)
    try:
        if words and (match := CLOCK.fullmatch(words)):
            return _by_the_clock(match[1], match[2], match[3], match[4], now_ms)
        return to_ms(datetime.fromisoformat(words))
    except (ValueError, OverflowError, OSError) as error:
        raise InvalidRequest(
            f"time {text!r} is not understood: -2h, 14:30, 'yesterday 02:00', 2026-03-01T02:00 or seconds since 1970 are", found=text
        ) from error


def _by_the_clock(day: str | None, hour: str | None, minute: str | None, second: str | None, now_ms: int) -> int:
    base = local(now_ms)
    if day == "yesterday":
        base -= timedelta(days=1)
    moment = datetime(base.year, base.month, base.day, int(hour or 0), int(minute or 0), int(second or 0))  # noqa: DTZ001 - local on purpose
    return to_ms(moment)


def to_ms(moment: datetime) -> int:
    """Return a datetime (without a zone: local time) in milliseconds since the epoch."""
    return round(moment.timestamp() * 1000)


def local(at_ms: int) -> datetime:
    """Return a moment in the local zone."""
    return datetime.fromtimestamp(at_ms / 1000, tz=timezone.utc).astimezone()  # noqa: UP017 - datetime.UTC hides the word


def iso(at_ms: int) -> str:
    """Return a moment as ISO 8601 in UTC with milliseconds: 2026-03-01T02:00:00.000Z; the number itself if no calendar has it."""
    try:
        moment = datetime.fromtimestamp(at_ms // 1000, tz=timezone.utc)  # noqa: UP017 - as above
    except (ValueError, OverflowError, OSError):
        return str(at_ms)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{at_ms % 1000:03d}Z"


def clock(at_ms: int, now_ms: int) -> str:
    """Return a moment as a person near `now_ms` reads it: 14:30 today, "Mon 14:30" within six days, else the date."""
    try:
        then, now = local(at_ms), local(now_ms)
    except (ValueError, OverflowError, OSError):
        return str(at_ms)
    if then.date() == now.date():
        return f"{then:%H:%M}" if abs(at_ms - now_ms) >= MINUTE_MS else f"{then:%H:%M:%S}"
    if abs(at_ms - now_ms) < 6 * DAY_MS:
        return f"{then:%a %H:%M}"
    return f"{then:%Y-%m-%d %H:%M}"


def until(deadline_ms: int | None, now_ms: int) -> str:
    """Return an end as a person reads it: "no end", "until 17:40 (2h10m)", "overdue since 17:40"."""
    if deadline_ms is None:
        return "no end"
    if deadline_ms <= now_ms:
        return f"overdue since {clock(deadline_ms, now_ms)}"
    return f"until {clock(deadline_ms, now_ms)} ({about(deadline_ms - now_ms)})"


def about(ms: int) -> str:
    """Return a duration as people say it: whole minutes above ten minutes, whole seconds below."""
    unit = MINUTE_MS if ms > 10 * MINUTE_MS else 1000
    return format_duration(max(unit, (ms + unit // 2) // unit * unit))
