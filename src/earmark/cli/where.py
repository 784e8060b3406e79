"""Which ledger answers, and who sees it, in words."""

from __future__ import annotations

from typing import NamedTuple

from earmark.settings import Settings
from earmark.stores.place import Place, is_private, resolve

KINDS = {"named": "named by --ledger or a setting", "machine": "the machine's", "shared": "shared by its group", "user": "your own"}


class Where(NamedTuple):
    """A ledger: its place, how it is meant (named, machine, shared, user), whether other users do not see it, and that in words."""

    place: str
    kind: str
    private: bool
    note: str


def where_is(settings: Settings) -> Where:
    """Return the ledger that some settings lead to; raises UnsafePlace."""
    return where_of(resolve(settings))


def where_of(place: Place) -> Where:
    """Return a ledger's place in words."""
    private = is_private(place)
    note = KINDS[place.kind]
    if private:
        note += "; private: other users of this machine do not see it"
    for path in place.passed_over:
        note += f"; {path} is announced on this machine and not open to you"
    for doubt in place.doubts:
        note += f"; not believed: {doubt}"
    return Where(place=str(place.path), kind=place.kind, private=private, note=note)
