"""Times as people write and read them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.cli.zones import local_time

from earmark.cli.times import about, clock, iso, parse_time, until
from earmark.errors import InvalidRequest

NOW = int(datetime(2026, 3, 11, 15, 30, tzinfo=UTC).timestamp() * 1000)
"""A Wednesday, half past three in the afternoon (UTC)."""


@pytest.fixture(autouse=True)
def zone() -> Iterator[None]:
    """Let local time be two hours east of UTC for a test."""
    with local_time("TST-2"):
        yield


def moment(*parts: int) -> int:
    """Return a moment given in UTC, in milliseconds."""
    return int(datetime(*parts, tzinfo=UTC).timestamp() * 1000)  # type: ignore[misc,arg-type]  # as many parts as the case gives


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("now", NOW),
        ("-2h", NOW - 7_200_000),
        ("-1h30m", NOW - 5_400_000),
        ("2h ago", NOW - 7_200_000),
        ("1700000000", 1_700_000_000_000),
        ("1700000000123", 1_700_000_000_123),
        ("1700000000.5", 1_700_000_000_500),
        ("02:00", moment(2026, 3, 11, 0, 0)),
        ("today", moment(2026, 3, 10, 22, 0)),
        ("today 02:30", moment(2026, 3, 11, 0, 30)),
        ("yesterday 02:00", moment(2026, 3, 10, 0, 0)),
        ("yesterday", moment(2026, 3, 9, 22, 0)),
        ("2026-03-01", moment(2026, 2, 28, 22, 0)),
        ("2026-03-01 02:00", moment(2026, 3, 1, 0, 0)),
        ("2026-03-01T02:00:00Z", moment(2026, 3, 1, 2, 0)),
        ("2026-03-01T02:00:00.250+05:00", moment(2026, 2, 28, 21, 0) + 250),
        ("-80000h", NOW - 288_000_000_000),
    ],
)
def test_a_time_is_understood(text: str, expected: int) -> None:
    """Relative, by the clock, ISO and epoch times name their moment; without a zone they are local."""
    assert parse_time(text, NOW) == expected


@pytest.mark.parametrize(
    "text", ["", " ", "2h", "tomorrow", "25:00", "yesterday 12", "12", "2026-02-30", "-", "- 2", "1e9", "nan", "\x1b[0m", "-٢h"]
)
def test_a_time_that_is_not_understood_is_an_error(text: str) -> None:
    """Nothing is guessed: any other text is InvalidRequest and says which texts are times."""
    with pytest.raises(InvalidRequest):
        parse_time(text, NOW)


@given(st.text(max_size=24))
def test_any_text_is_a_moment_or_an_error(text: str) -> None:
    """No text leads to another exception than InvalidRequest."""
    try:
        assert isinstance(parse_time(text, NOW), int)
    except InvalidRequest:
        return


@given(st.integers(min_value=-(1 << 62), max_value=1 << 62))
def test_every_number_can_be_shown(at_ms: int) -> None:
    """A number that no calendar has is shown as itself."""
    for text in (iso(at_ms), clock(at_ms, NOW), until(at_ms, NOW)):
        assert text.isprintable()


def test_moments_are_shown_as_people_near_them_read_them() -> None:
    """Today by the clock, within six days with the day of the week, else with the date; ISO is UTC with milliseconds."""
    assert clock(NOW - 3_600_000, NOW) == "16:30"
    assert clock(NOW - 5_000, NOW) == "17:29:55"
    assert clock(NOW - 2 * 86_400_000, NOW) == "Mon 17:30"
    assert clock(NOW - 30 * 86_400_000, NOW) == "2026-02-09 17:30"
    assert iso(NOW + 7) == "2026-03-11T15:30:00.007Z"


def test_an_end_says_how_long_it_still_is() -> None:
    """No end, an end with what is left, and one that has passed read differently; a fresh two hours are two hours."""
    assert until(None, NOW) == "no end"
    assert until(NOW + 7_199_000, NOW) == "until 19:29 (2h)"
    assert until(NOW - 60_000, NOW) == "overdue since 17:29"
    assert [about(ms) for ms in (1, 59_400, 601_000, 86_400_000 * 3)] == ["1s", "59s", "10m", "3d"]
