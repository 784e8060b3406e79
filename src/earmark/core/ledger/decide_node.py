"""What commands about a node lead to: entering it, looking at it, its settings, its cordons."""

from __future__ import annotations

import re

import msgspec

from earmark.core.fit.devices.policy import unit_classes
from earmark.core.fit.layout import build_layout
from earmark.core.ledger import commands as c
from earmark.core.ledger import events as e
from earmark.core.ledger.decision import Decision, Facts
from earmark.core.ledger.differences import differences
from earmark.core.ledger.naming import with_known_names
from earmark.core.ledger.state import NODE_CORDON, NodeState
from earmark.core.model.claim import Cordon
from earmark.core.model.ids import UnitId, resource_class
from earmark.core.model.node import NodeSettings, Provided
from earmark.core.model.topology import Machine
from earmark.core.model.units import counted
from earmark.errors import InvalidRequest, UnknownUnit

CUSTOM = re.compile(r"CUSTOM_[A-Z0-9_]{1,248}")


def register(state: NodeState | None, command: c.RegisterNode, facts: Facts) -> Decision:
    """Enter a node, or find it again by its uuid: a retired one is restored, another host's is not taken over (A10).

    Raises InvalidRequest if the name is another node's or the node has another name, or for settings that are impossible on its machine.
    """
    if state is not None:
        return _found(state, command, facts)
    if facts.named is not None:
        raise InvalidRequest(
            f"there is a node {command.name!r} already, with the uuid {facts.named}: report it under that, or choose another name",
            node=facts.named,
        )
    events: list[e.Event] = [e.NodeRegistered(node=command.node, name=command.name, machine=command.machine_ref)]
    if command.host is not None:
        events.append(e.NodeHosted(host=command.host))
    if command.machine is not None:
        machine = steady(command.machine)
        events.append(e.MachineObserved(machine=machine, inventory_version=1, differences=differences(None, machine)))
    if command.settings is not None and command.settings != NodeSettings():
        possible(command.settings, command.machine)
        events.append(e.NodeConfigured(settings=command.settings))
    return Decision(events=tuple(events), outcome="registered")


def _found(state: NodeState, command: c.RegisterNode, facts: Facts) -> Decision:
    """Answer for a node that is there already, with what its own host says anew."""
    if command.name != state.name:
        raise InvalidRequest(
            f"the node with the uuid {state.node} is named {state.name!r}, not {command.name!r}: a node keeps its name", node=state.node
        )
    if state.unknown is not None:
        return Decision(outcome="registered", message="is in the ledger already")
    if command.host is not None and state.host is not None and command.host != state.host:
        message = f"is run by host {state.host}; it is not taken over by {command.host} until it is rehomed"
        return Decision(outcome="registered", message=message)
    events: list[e.Event] = []
    if command.host is not None and state.host is None:
        events.append(e.NodeHosted(host=command.host))
    if state.retired is not None:
        events.append(e.NodeRestored(reason="it was reported again"))
    changes: tuple[str, ...] = ()
    if command.machine is not None:
        seen = observe(state, c.ObserveMachine(node=state.node, machine=command.machine), facts)
        events += seen.events
        changes = seen.differences
    if command.settings is not None:
        seen_now = msgspec.structs.replace(state, machine=command.machine or state.machine)
        events += configure(seen_now, c.ConfigureNode(node=state.node, settings=command.settings), facts).events
    restored = any(isinstance(event, e.NodeRestored) for event in events)
    return Decision(
        events=tuple(events), outcome="restored" if restored else "registered", message="is in the ledger already", differences=changes
    )


def host(state: NodeState, command: c.HostNode, _facts: Facts) -> Decision:
    """Let another host run the node, with everything that is held on it; it is answered where that is so already."""
    if state.runs_on == command.host:
        return Decision(outcome="hosted", message=f"is run by host {command.host} already")
    event = e.NodeHosted(host=command.host, reason=command.reason)
    return Decision(events=(event,), outcome="hosted", message=f"host {command.host} runs it now")


def retire(state: NodeState, command: c.RetireNode, _facts: Facts) -> Decision:
    """Retire a node; the claims that are left on it are named: nothing is dropped (A13)."""
    left = tuple(claim_id for claim_id, _ in state.grants())
    orphans = f"{counted(len(left), 'claim')} left on it as {'orphans' if len(left) != 1 else 'an orphan'}" if left else ""
    if state.retired is not None:
        message = f"was retired already: {state.retired}" + (f"; {orphans}" if orphans else "")
        return Decision(outcome="retired", message=message, touched=left)
    return Decision(events=(e.NodeRetired(reason=command.reason),), outcome="retired", message=orphans, touched=left)


def restore(state: NodeState, command: c.RestoreNode, _facts: Facts) -> Decision:
    """Take a retired node back, with everything that was held on it."""
    if state.retired is None:
        return Decision(outcome="restored", message="is not retired")
    return Decision(events=(e.NodeRestored(reason=command.reason),), outcome="restored")


def provide(state: NodeState, command: c.ProvideNode, _facts: Facts) -> Decision:
    """Record what provider configuration adds to a node; a class that its settings have is left out and said so (K3).

    Raises InvalidRequest for what is no custom class or trait, or an impossible inventory.
    """
    for name in (*(each.resource_class for each in command.provided.inventories), *command.provided.traits):
        if not CUSTOM.fullmatch(name):
            raise InvalidRequest(f"{name!r} is not a custom class or trait: CUSTOM_ and capital letters, digits and _ are", found=name)
    kept, notes = kept_of(state, command.provided)
    if kept == state.provided:
        return Decision(outcome="provided", message="has that already", differences=notes)
    build_layout(state.machine or Machine(), state.settings, kept, strict=False)
    return Decision(events=(e.NodeProvided(provided=kept),), outcome="provided", differences=notes)


def rehome(state: NodeState, command: c.RehomeNode, _facts: Facts) -> Decision:
    """Bind the ledger to this machine; it is answered where that is so already."""
    if state.machine_ref == command.machine_ref:
        return Decision(outcome="rehomed", message="is at home here already")
    return Decision(events=(e.NodeRehomed(machine=command.machine_ref, reason=command.reason),), outcome="rehomed")


def observe(state: NodeState, command: c.ObserveMachine, _facts: Facts) -> Decision:
    """Record a machine that differs from the known one, devices under the names they had; no other card comes to a name that is held."""
    machine = with_known_names(state.machine, steady(command.machine), state.held_devices)
    if state.machine == machine:
        return Decision(outcome="observed", message="nothing has changed")
    changes = differences(state.machine, machine)
    event = e.MachineObserved(machine=machine, inventory_version=state.inventory_version + 1, differences=changes)
    return Decision(events=(event,), outcome="observed", differences=changes)


def steady(machine: Machine) -> Machine:
    """Return a machine without the figures that change by themselves (free disk space): those are observations, not inventory."""
    return msgspec.structs.replace(machine, disks=tuple(msgspec.structs.replace(disk, free_bytes=None) for disk in machine.disks))


def kept_of(state: NodeState, provided: Provided) -> tuple[Provided, tuple[str, ...]]:
    """Return what a node takes of what is provided, and in words what it leaves: classes that its own settings count (K3)."""
    own = {each.resource_class for each in state.settings.inventories} | unit_classes(state.settings)
    taken = sorted((each for each in provided.inventories if each.resource_class not in own), key=lambda each: each.resource_class)
    left = sorted(each.resource_class for each in provided.inventories if each.resource_class in own)
    units = unit_classes(state.settings)
    where = {name: "counted by the units of its device policy" if name in units else "in the node's own inventory" for name in left}
    notes = tuple(f"{name} is {where[name]}, which stands" for name in left)
    return Provided(inventories=tuple(taken), traits=tuple(sorted(set(provided.traits)))), notes


def configure(state: NodeState, command: c.ConfigureNode, _facts: Facts) -> Decision:
    """Replace the settings; raises InvalidRequest if they are impossible on the machine. What changes for its devices is told."""
    if state.settings == command.settings:
        return Decision(outcome="configured", message="has these settings already")
    from earmark.core.ledger.device_changes import device_changes  # noqa: PLC0415 - a claim configures nothing

    possible(command.settings, state.machine)
    changes = device_changes(state, command.settings)
    event = e.NodeConfigured(settings=command.settings)
    return Decision(events=(event,), outcome="configured", differences=(*changes.lines, *changes.kept))


def possible(settings: NodeSettings, machine: Machine | None) -> None:
    """Raise InvalidRequest for settings that are impossible, on the machine if it is known."""
    for inventory in settings.inventories:
        resource_class(inventory.resource_class)
    build_layout(machine or Machine(), settings, strict=machine is not None)


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
    if unit not in state.present and unit not in state.missing:
        raise UnknownUnit(f"node {state.name} has no unit {unit}", node=state.node, unit=unit)
