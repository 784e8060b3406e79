"""docs/reference/events.md says what the events are."""

from __future__ import annotations

from tools import events_page

from earmark.core.ledger import events


def test_the_page_of_events_is_up_to_date() -> None:
    """The page is what tools/events_page.py makes of the events that are here."""
    assert events_page.PAGE.read_text() == events_page.page(), "make docs"


def test_every_event_and_field_is_on_the_page() -> None:
    """Each event of each version has its heading, and each of its fields a line."""
    text = events_page.page()
    for kind in events.EVENTS:
        _, found = text.split(f"\n## {kind.type}\n")
        section = found.split("\n## ")[0]
        assert f"version {kind.version}." in section
        assert all(f"| `{name}` |" in section for name in kind.__struct_fields__)
