"""Every shared thing that can change stands in docs/reference/shared-state.md with its guard."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase

import pytest
from tests.house.mutable import mutable_things
from tests.house.sources import ROOT, Source, sources

TABLE = ROOT / "docs/reference/shared-state.md"


def table() -> dict[str, str]:
    """Return what the table lists, with its guards."""
    rows = re.findall(r"^\| `([^`]+)` \| (.+?) \|$", TABLE.read_text(), re.MULTILINE)
    return dict(rows)


@pytest.mark.rule("W35")
def test_every_shared_mutable_thing_has_a_guard() -> None:
    """What the source can change while it is shared is in the table, and nothing is in the table that is not there."""
    listed = table()
    found = [thing for source in sources("src") for thing in mutable_things(source)]
    missing = [thing for thing in found if not any(fnmatchcase(thing, pattern) for pattern in listed)]
    gone = [pattern for pattern in listed if not any(fnmatchcase(thing, pattern) for thing in found)]
    assert (missing, gone) == ([], [])
    assert all(len(guard.split()) >= 3 for guard in listed.values()), "a guard is said in words"


def test_core_has_no_shared_mutable_state() -> None:
    """Nothing in core changes but one table of decoders that is only read, and what one call makes for itself and drops."""
    found = {thing for source in sources("src") if source.name.startswith("earmark.core") for thing in mutable_things(source)}
    scratch = [pattern for pattern, guard in table().items() if pattern.startswith("earmark.core.fit.") and guard.startswith("one call: ")]
    shared = {thing for thing in found if not any(fnmatchcase(thing, pattern) for pattern in scratch)}
    assert shared <= {"earmark.core.ledger.codec._decoders"}


PLANTED = """
import functools
import threading
TABLE = {"a": 1}
GROWING = {}
seen = []
count = 0
def grow():
    global count
    count += 1
    GROWING["x"] = 1
@functools.cache
def known(): return 1
class Thing:
    shared = []
    def __init__(self):
        self.fixed = {}
        self.filled = {}
        self.moved = 0
    def change(self, other):
        self.filled["x"] = 1
        self.moved, self.rest = 1, 2
        other.planted = 3
        with open("x") as self.file:
            pass
"""


def test_the_walk_finds_each_kind_of_shared_thing() -> None:
    """A planted file shows that rebound names, changed tables, filled containers, caches and outside assignments are found."""
    source = Source("planted.py", "planted", PLANTED)
    assert list(mutable_things(source)) == [
        "planted.GROWING", "planted.Thing.file", "planted.Thing.filled", "planted.Thing.moved", "planted.Thing.rest", "planted.Thing.shared",
        "planted.count", "planted.known", "planted.seen", "planted:other.planted",
    ]  # fmt: skip
