"""The only reader of time."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """A source of wall time for stamps and of monotonic time for waiting."""

    def now_ms(self) -> int:
        """Return milliseconds since the Unix epoch."""

    def monotonic_s(self) -> float:
        """Return seconds that never go backwards."""


class SystemClock:
    """The machine's clock."""

    def now_ms(self) -> int:
        """Return milliseconds since the Unix epoch."""
        return time.time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        """Return seconds that never go backwards."""
        return time.monotonic()
