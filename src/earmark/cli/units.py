"""Units as people name them: cpu:3, cpu3, 3, 0000:41:00.0, gpu:GPU-8e94…, or the end of such a name."""

from __future__ import annotations

import re

from earmark.core.ledger.state import NodeState
from earmark.core.model.ids import UnitId, cpu_unit
from earmark.errors import InvalidRequest, UnknownUnit

CPU = re.compile(r"(?:cpu[: ]?)?([0-9]{1,5})")
PCI = re.compile(r"(?:[0-9a-f]{4,8}:)?[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")


def unit_named(state: NodeState, text: str) -> UnitId:
    """Return the unit of a node that a text names; raises UnknownUnit, or InvalidRequest where it could be several."""
    if match := CPU.fullmatch(text):
        unit = cpu_unit(int(match[1]))
        if unit in known_units(state):
            return unit
        raise UnknownUnit(f"node {state.name} has no CPU {match[1]}", node=state.node, unit=unit)
    units = known_units(state)
    if text in units:
        return UnitId(text)
    devices = state.machine.devices if state.machine is not None else ()
    address = text.removeprefix("pci:")
    address = address if not PCI.fullmatch(address) or address.count(":") > 1 else "0000:" + address
    at = [device.unit for device in devices if device.address == address]
    ends = at or [unit for unit in sorted(units) if unit.partition(":")[2].startswith(text)]
    if len(ends) > 1:
        raise InvalidRequest(f"{text!r} could be {', '.join(ends[:5])} on node {state.name}", found=text)
    if not ends:
        forms = "cpu:3, 3, a PCI address or what earmark node devices lists"
        raise UnknownUnit(f"node {state.name} has no unit {text!r}; a unit is {forms}", node=state.node, unit=text)
    return ends[0]


def known_units(state: NodeState) -> frozenset[UnitId]:
    """Return every exclusive unit that a node has, or that a claim or quarantine still holds."""
    held = frozenset(row.unit for _, grant in state.grants() for row in grant.units)
    if state.machine is None:
        return held
    return held | state.present
