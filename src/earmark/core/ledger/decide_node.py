"""What commands about a node lead to: entering it, looking at it, its settings, its cordons."""

from __future__ import annotations

import msgspec

from earmark.core.fit.layout import build_layout
from earmark.core.ledger import commands as c
from earmark.core.ledger import events as e
from earmark.core.ledger.decision import Decision, Facts
from earmark.core.ledger.differences import differences, with_known_names
from earmark.core.ledger.state import NODE_CORDON, NodeState, present_units
from earmark.core.model.claim import Cordon
from earmark.core.model.ids import UnitId, resource_class
from earmark.core.model.topology import Machine
from earmark.errors import InvalidRequest, UnknownUnit


def register(state: NodeState | None, command: c.RegisterNode) -> Decision:
    """Enter a node; one that is there already is answered."""
    if state is not None:
        return Decision(outcome="registered", message=f"node {state.name} is in the ledger already")
    return Decision(events=(e.NodeRegistered(node=command.node, name=command.name, machine=command.machine_ref),), outcome="registered")


def rehome(state: NodeState, command: c.RehomeNode, _facts: Facts) -> Decision:
    """Bind the ledger to this machine; it is answered where that is so already."""
    if state.machine_ref == command.machine_ref:
        return Decision(outcome="rehomed", message="is at home here already")
    return Decision(events=(e.NodeRehomed(machine=command.machine_ref, reason=command.reason),), outcome="rehomed")


def observe(state: NodeState, command: c.ObserveMachine, _facts: Facts) -> Decision:
    """Record a machine that differs from the known one, devices under the names they had."""
    machine = with_known_names(state.machine, steady(command.machine))
    if state.machine == machine:
        return Decision(outcome="observed", message="nothing has changed")
    changes = differences(state.machine, machine)
    event = e.MachineObserved(machine=machine, inventory_version=state.inventory_version + 1, differences=changes)
    return Decision(events=(event,), outcome="observed", differences=changes)


def steady(machine: Machine) -> Machine:
    """Return a machine without the figures that change by themselves (free disk space): those are observations, not inventory."""
    return msgspec.structs.replace(machine, disks=tuple(msgspec.structs.replace(disk, free_bytes=None) for disk in machine.disks))


def configure(state: NodeState, command: c.ConfigureNode, _facts: Facts) -> Decision:
    """Replace the settings; raises InvalidRequest if they are impossible on the machine."""
    if state.settings == command.settings:
        return Decision(outcome="configured", message="has these settings already")
    for inventory in command.settings.inventories:
        resource_class(inventory.resource_class)
    build_layout(state.machine or Machine(), command.settings, strict=state.machine is not None)
    return Decision(events=(e.NodeConfigured(settings=command.settings),), outcome="configured")


def cordon_unit(state: NodeState, command: c.CordonUnit, facts: Facts) -> Decision:
    """Begin a cordon of a unit or the node; raises UnknownUnit, InvalidRequest for an end in the past."""
    _known_unit(state, command.unit)
    now_ms = max(facts.now_ms, state.at_ms)
    if command.until_ms is not None and command.until_ms <= now_ms:
        raise InvalidRequest("the end of a cordon must lie in the future", until_ms=command.until_ms)
    known = state.cordons.get(command.unit or NODE_CORDON)
    if known is not None and (known.reason, known.until_ms) == (command.reason, command.until_ms):
        return Decision(outcome="cordoned", message="is cordoned so already")
    cordon = Cordon(unit=command.unit, reason=command.reason, since_ms=now_ms, until_ms=command.until_ms)
    return Decision(events=(e.Cordoned(cordon=cordon),), outcome="cordoned")


def uncordon(state: NodeState, command: c.UncordonUnit, _facts: Facts) -> Decision:
    """End a cordon; one that is not there is answered."""
    if (command.unit or NODE_CORDON) not in state.cordons:
        _known_unit(state, command.unit)
        return Decision(outcome="uncordoned", message="is not cordoned")
    return Decision(events=(e.Uncordoned(unit=command.unit),), outcome="uncordoned")


def _known_unit(state: NodeState, unit: UnitId | None) -> None:
    if unit is None:
        return
    known = present_units(state.machine) if state.machine is not None else frozenset()
    if unit not in known and unit not in state.missing:
        raise UnknownUnit(f"node {state.name} has no unit {unit}", node=state.node, unit=unit)
