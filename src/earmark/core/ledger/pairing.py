"""Which device of a move's source leg becomes which of its destination leg.

Rules of this file: pure. Where both legs ask for the same, a device becomes one that answers the same wish: a function of one network does not
become one of another. Where that cannot be told, kind by kind (`moves.device_pairs`).
"""

from __future__ import annotations

from earmark.core.fit.layout import Layout
from earmark.core.fit.proof.agree_devices import dealt
from earmark.core.ledger.moves import Kinds, device_pairs
from earmark.core.ledger.same_types import pairing_kind
from earmark.core.model.claim import Claim
from earmark.core.model.ids import UnitId


def paired(source: Claim, destination: Claim, before: Layout | None, after: Layout | None) -> tuple[tuple[UnitId, UnitId], ...]:
    """Return which device of the source leg becomes which of the destination leg (M26, M27); the layouts are those of their nodes."""
    olds, news = _by_wish(source, before), _by_wish(destination, after)
    if source.request.devices != destination.request.devices or not olds or not news:
        olds, news = {}, {}
    return device_pairs(source, destination, _kinds(before, olds), _kinds(after, news))


def _by_wish(claim: Claim, layout: Layout | None) -> dict[UnitId, int]:
    """Return which wish of a claim's request each of its devices answers; nothing where that cannot be told."""
    wishes = [wish for wish in claim.request.devices if wish.share is None]
    units = [row.unit for row in claim.grant.units if row.use == "device"]
    if layout is None or not wishes or any(unit not in layout.known for unit in units):
        return {}
    return dealt(units, layout, wishes)


def _kinds(layout: Layout | None, wishes: dict[UnitId, int]) -> Kinds:
    """Return by what each device of a node is paired: its kind, and the wish that it answers."""
    known = layout.known.items() if layout is not None else ()
    return {unit: f"{pairing_kind(device)} {wishes[unit]}" if unit in wishes else pairing_kind(device) for unit, device in known}
