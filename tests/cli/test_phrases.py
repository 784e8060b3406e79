"""Words for people: nothing reaches a terminal that a terminal obeys, and a no says everything."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.cli.holdings import holding

from earmark.cli.phrases import amount, clean, name, reason_line, request_words
from earmark.cli.refusals import refusal_lines
from earmark.core.model.refusal import Reason, Refusal
from earmark.core.model.request import DeviceRequest, Request
from earmark.core.model.units import GIB, MIB

NOW = 1_750_000_000_000
HOSTILE = ["\x1b[31mred\x1b[0m", "a\nb\r\nc", "\x9b31m", "\u202egnp.exe", "\x07\x08\x7f", "\ud800", "\u2028", "tab\tbed", "\x00"]


@given(st.text(alphabet=st.characters(), max_size=200))
def test_clean_text_has_no_character_that_a_terminal_obeys(text: str) -> None:
    """Whatever goes in: no control, format, surrogate or separator character comes out, and the length is bounded."""
    shown = clean(text, 80)
    assert len(shown) <= 80
    assert not any(unicodedata.category(each) in ("Cc", "Cf", "Cs", "Zl", "Zp") for each in shown)
    shown.encode("utf-8")


@pytest.mark.parametrize("text", HOSTILE)
def test_what_was_hostile_can_still_be_read(text: str) -> None:
    """An escape is shown as an escape, so that a person sees what somebody tried."""
    shown = clean(text)
    assert shown.isprintable()
    assert "\\" in shown


def test_ordinary_names_are_shown_as_they_are() -> None:
    """Markup, shell words and other alphabets are only text."""
    for text in ("[red]x[/red]", "$(reboot)", "`id`", "größe", "虚拟机", "a b"):
        assert clean(text) == text
    assert name("x" * 100) == "x" * 59 + "…"


@pytest.mark.parametrize(
    ("resource", "number", "text"),
    [
        ("cpu", 1, "1 CPU"), ("vcpu", 2, "2 shared vCPUs"), ("vcpu:0", 1, "1 shared vCPU"), ("memory", 8 * GIB, "8 GiB"),
        ("disk:root", GIB, "1 GiB"), ("class:CUSTOM_X", 3, "3 CUSTOM_X"), ("gpu", 2, "2 gpu"), ("pages:1:1048576", 3, "3 pages of 1 GiB"),
        ("pages:0:4", 1 << 18, "1 GiB"), ("pages:x", 1, "1 x"), ("odd\x1b", 1, "1 odd\\x1b"),
    ],
)  # fmt: skip
def test_amounts_are_read_in_their_unit(resource: str, number: int, text: str) -> None:
    """Each kind of resource is shown in the unit that a person thinks in."""
    assert amount(resource, number) == text


def test_a_request_is_said_in_words() -> None:
    """A request reads as what was asked for."""
    request = Request(
        vcpus=4, cpu_policy="dedicated", memory_bytes=8 * GIB, page_kib=1 << 20, devices=(DeviceRequest(kind="gpu", count=2),)
    )
    assert request_words(request) == "4 dedicated CPUs, 8 GiB memory in 1GiB pages, 2 gpu"
    assert request_words(Request(vcpus=1, networks=("physnet1",), tunnel=True)) == "1 shared vCPU, on physnet1, on tunnelled networks"
    mixed = Request(
        vcpus=4,
        cpu_policy="mixed",
        dedicated_vcpus=(0, 1),
        realtime_vcpus=(1,),
        thread_policy="isolate",
        emulator_policy="isolate",
        memory_bytes=2 * MIB,
        page_kib="large",
        locked_memory=True,
    )
    assert (
        request_words(mixed)
        == "4 mixed vCPUs (2 dedicated, isolate threads, 1 real-time), a CPU for the emulator, 2 MiB locked memory in large pages"
    )
    assert request_words(Request()) == "nothing"


def test_a_no_says_what_is_short_where_and_who_holds_it_until_when() -> None:
    """Each reason names cell, asked, free and short; each holder its claim, owner, units and end; the rest is counted."""
    reason = Reason(
        code="short", resource="cpu", asked=8, free=2, short=6, cell=1, detail="the cell has 8", holders_left_out=3,
        holders=tuple(holding(number, NOW + 3_600_000 if number == 1 else None) for number in range(1, 11)),
    )  # fmt: skip
    lines = refusal_lines(Refusal(reasons=(reason,), node="n1", fits_if=("2 CPUs are asked for",)), NOW)
    assert lines[0] == "  cell 1: 8 CPUs asked · 2 CPUs free · 6 CPUs short · the cell has 8"
    assert lines[1].startswith("      held by vm-1 of bob (c-0001): cpu 4-5, until ")
    assert lines[1].endswith("(1h)")
    assert lines[2] == "      held by vm-2 of bob (c-0002): cpu 4-5, no end"
    assert lines[-2] == "      and 5 more claims"
    assert lines[-1] == "  fits if 2 CPUs are asked for"


def test_dedicated_cpus_that_sharers_keep_are_called_cpus() -> None:
    """What is asked of a cell whose sharers keep its last CPUs is CPUs, not shared vCPUs."""
    kept = Reason(code="short", resource="vcpu:1", cell=1, asked=4, free=0, short=4, detail="kept for 2 shared vCPUs: 2 CPUs of the cell")
    assert reason_line(kept) == "cell 1: 4 CPUs asked · 0 CPUs free · 4 CPUs short · kept for 2 shared vCPUs: 2 CPUs of the cell"


def test_a_reason_without_numbers_is_a_sentence() -> None:
    """A blocked unit, an unsupported wish and a reason without detail are still said."""
    assert (
        reason_line(Reason(code="unit_blocked", resource="cpu", unit="cpu:3", detail="cordoned: fan broken"))
        == "cpu:3: cordoned: fan broken"
    )
    assert reason_line(Reason(code="not_supported", resource="cells")) == "cells: not supported"
    assert reason_line(Reason(code="network", resource="network:", detail="too far")) == "tunnelled networks: too far"
    assert reason_line(Reason(code="self_overcommit", resource="vcpu", cell=-1)) == "CPUs of no cell: shared vCPUs: self overcommit"
    assert reason_line(Reason(code="unknown_unit", resource="pages:1048576")) == "pages of 1 GiB: unknown unit"
    assert reason_line(Reason(code="unknown_unit", resource="pages:0:large", cell=0)) == "cell 0: large pages: unknown unit"
    assert "\x1b" not in reason_line(Reason(code="trait", resource="\x1b[2J", detail="\x1b[2J"))
