"""The notation of CPU lists: the kernel's, and Nova's exclusions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from earmark.core.model.cpuset import CPU_MAX, cpus_of, format_cpu_list, mask_of, parse_cpu_list
from earmark.errors import InvalidRequest

CPUS = st.sets(st.integers(0, CPU_MAX), max_size=40)


@pytest.mark.rule("N10")
@pytest.mark.parametrize(
    ("text", "cpus"),
    [("", ()), ("0", (0,)), ("1-4,^3,6", (1, 2, 4, 6)), ("^1-2,0-3", (0, 3)), (" 1 - 2 , , 4", (1, 2, 4)), ("3,1-2,2", (1, 2, 3)), ("0-3,^0-3", ())],
)  # fmt: skip
def test_lists_are_read_as_the_trade_writes_them(text: str, cpus: tuple[int, ...]) -> None:
    """Ranges, exclusions in any place, blanks and empty items are understood."""
    assert parse_cpu_list(text) == cpus


@pytest.mark.rule("N10")
@pytest.mark.parametrize(
    "text", ["a", "1-", "-1", "3-1", "1--2", "^", "^^1", "1.5", "0x1", "1;2", "9" * 6, str(CPU_MAX + 1), "\uff11", "1-2-3", "\n1\x00"]
)
def test_what_is_no_list_is_an_error_with_its_text(text: str) -> None:
    """Backward ranges, numbers beyond the bound and everything else are refused with the text and the item."""
    with pytest.raises(InvalidRequest) as caught:
        parse_cpu_list(text, what="cpu_shared_set")
    assert "cpu_shared_set" in caught.value.message


@given(CPUS)
def test_writing_and_reading_are_inverse_to_each_other(cpus: set[int]) -> None:
    """A set written as a list or as a mask is read back as it was."""
    assert parse_cpu_list(format_cpu_list(cpus)) == cpus_of(mask_of(cpus)) == tuple(sorted(cpus))
