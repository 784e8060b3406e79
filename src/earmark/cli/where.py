"""Which ledger answers, and who sees it, in words."""

from __future__ import annotations

from earmark.cli.output_machine import LedgerOut
from earmark.settings import Settings
from earmark.stores.place import is_private, resolve

KINDS = {"named": "named by --ledger or a setting", "machine": "the machine's", "shared": "shared by its group", "user": "your own"}


def ledger_out(settings: Settings) -> LedgerOut:
    """Return the ledger that some settings lead to; raises UnsafePlace."""
    place = resolve(settings)
    private = is_private(place)
    note = KINDS[place.kind]
    if private:
        note += "; private: other users of this machine do not see it"
    for path in place.passed_over:
        note += f"; {path} is announced on this machine and not open to you"
    for doubt in place.doubts:
        note += f"; not believed: {doubt}"
    return LedgerOut(place=str(place.path), kind=place.kind, private=private, note=note)
