"""What other settings would change for the devices of a node, in words, and who holds what would no longer be handed out.

Rules of this file: pure; nothing that is held is taken away by a policy, it is only told. Mediated devices are counted by parent and type.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from earmark.core.fit.devices.policy import MDEV, Applied, applied, mdev_type_of, policy_notes
from earmark.core.ledger.state import NodeState
from earmark.core.model.ids import UnitId, shared_unit
from earmark.core.model.node import NodeSettings
from earmark.core.model.topology import Device, Machine

LINES_MAX = 200


class DeviceChanges(NamedTuple):
    """`lines` say what changes, `kept` what is held and no longer handed out, `notes` what the new policy names and the machine has not."""

    lines: tuple[str, ...]
    kept: tuple[str, ...]
    notes: tuple[str, ...]


def device_changes(state: NodeState, settings: NodeSettings) -> DeviceChanges:
    """Return what changes for the devices of a node if it is run by other settings."""
    machine = state.machine or Machine()
    before, after = applied(machine, state.settings), applied(machine, settings)
    lines = [*_settings(state.settings, settings), *_units(before, after), *_instances(before, after)]
    if len(lines) > LINES_MAX:
        lines[LINES_MAX - 1 :] = [f"and {len(lines) - LINES_MAX + 1} more changes"]
    return DeviceChanges(tuple(lines), tuple(_kept(state, before, after)), policy_notes(machine, settings))


def _settings(old: NodeSettings, new: NodeSettings) -> Iterator[str]:
    if old.keep_iommu_groups != new.keep_iommu_groups:
        yield "the devices of an IOMMU group " + ("go to one claim together" if new.keep_iommu_groups else "are handed out one by one")
    was, now = ({each.network: each.cells for each in settings.network_cells} for settings in (old, new))
    for network in sorted({*was, *now}):
        if was.get(network) != now.get(network):
            name = f"network {network}" if network else "tunnelled networks"
            yield f"{name}: cells {_numbers(was.get(network))} -> {_numbers(now.get(network))}"


def _numbers(cells: tuple[int, ...] | None) -> str:
    return "any" if cells is None else ",".join(map(str, cells)) or "none"


def _units(before: Applied, after: Applied) -> Iterator[str]:
    """Yield a line for each device, but for mediated ones, of which something is said that was not."""
    was, now = _by_unit(before), _by_unit(after)
    for unit in sorted({*was, *now}):
        if unit not in now:
            yield f"{unit}: withdrawn"
        elif unit not in was:
            yield f"{unit}: handed out as {now[unit].resource_class or now[unit].kind}"
        else:
            said = list(_said(was[unit], now[unit]))
            if (unit in before.granted) != (unit in after.granted):
                said.insert(0, f"handed out as {now[unit].kind}" if unit in after.granted else "no longer handed out")
            if said:
                yield f"{unit}: {', '.join(said)}"


def _by_unit(one: Applied) -> dict[UnitId, Device]:
    return {device.unit: device for device in one.devices if not device.unit.startswith(MDEV)}


def _said(was: Device, now: Device) -> Iterator[str]:
    for name, old, new in (
        ("kind", was.kind, now.kind),
        ("class", was.resource_class, now.resource_class),
        ("tags", _tags(was), _tags(now)),
        ("traits", " ".join(was.traits), " ".join(now.traits)),
        ("cell", was.cell, now.cell),
    ):
        if old != new:
            yield f"{name} {_or_none(old)} -> {_or_none(new)}"
    for name, before, after in (
        ("shares of it", was.shares, now.shares),
        ("live-migratable", was.live_migratable, now.live_migratable),
        ("for one use", was.one_time_use, now.one_time_use),
    ):
        if before != after:
            yield name if after else f"not {name}"


def _tags(device: Device) -> str:
    return " ".join(f"{name}={value}" for name, value in device.tags)


def _or_none(value: object) -> str:
    return "none" if value in (None, "") else str(value)


def _instances(before: Applied, after: Applied) -> Iterator[str]:
    """Yield a line for each parent and type of which there are more or fewer mediated devices, or others."""
    was, now = (Counter(_group(device) for device in one.devices if device.unit.startswith(MDEV)) for one in (before, after))
    for parent, kind, name in sorted({*was, *now}):
        old, new = was[parent, kind, name], now[parent, kind, name]
        if old != new:
            yield f"{parent}: {old} -> {new} of {kind} ({name})"


def _group(device: Device) -> tuple[str, str, str]:
    return str(device.parent), str(mdev_type_of(device.unit)), str(device.resource_class)


def _kept(state: NodeState, before: Applied, after: Applied) -> Iterator[str]:
    lost = before.granted - after.granted
    sharing = {device.unit for device in before.devices if device.shares} - {device.unit for device in after.devices if device.shares}
    for claim, grant in state.grants():
        for row in grant.units:
            if row.unit in lost:
                yield f"{row.unit} is held by {claim} and no longer handed out: it stays held until that ends"
        for amount in grant.amounts:
            unit = shared_unit(amount.pool)
            if unit in sharing:
                yield f"a share of {unit} is held by {claim} and none is given any more: nothing else of it is until that ends"
