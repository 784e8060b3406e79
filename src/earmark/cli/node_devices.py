"""`earmark node devices`: what a node may hand out and who holds it, and the device policy that says so, read from a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from earmark.cli import phrases
from earmark.cli.output_devices import DevicePolicyOut, DeviceState, NodeDeviceOut, NodeDevicesOut
from earmark.cli.session import Session
from earmark.cli.verb import Verb
from earmark.cli.views import when
from earmark.core.model.units import THOUSAND, format_bytes
from earmark.errors import InvalidRequest

if TYPE_CHECKING:
    from earmark.core.ledger.state import NodeState
    from earmark.core.model.grant import UnitRow
    from earmark.core.model.ids import ClaimId, UnitId
    from earmark.core.model.topology import Device


@click.command(
    cls=Verb,
    examples=(
        "earmark node devices",
        "earmark node devices --policy /etc/earmark/devices.yaml --check",
        "earmark node devices n2 --policy devices.toml",
    ),
)
@click.argument("name", required=False, metavar="[NODE]")
@click.option("--policy", "file", metavar="FILE", help="Read this device policy (.yaml, .json, .toml) and put it in force.")
@click.option("--check", is_flag=True, help="With --policy: only say what it would change.")
@click.pass_obj
def devices(session: Session, *, name: str | None, file: str | None, check: bool) -> int:
    """List the devices of a node, or put a device policy in force.

    A policy file is the whole policy of the node: what an earlier one said and it does not is not said any more. What is held stays held.
    """
    if check and file is None:
        raise InvalidRequest("--check says what a --policy FILE would change: name one", found="--check")
    if file is not None:
        return put_in_force(session, name, Path(file), check=check)
    return list_devices(session, name)


def put_in_force(session: Session, node: str | None, file: Path, *, check: bool) -> int:
    """Read a device policy, say what it changes, and configure the node unless that was only asked."""
    from earmark.core.ledger.decide_node import possible  # noqa: PLC0415 - as below
    from earmark.core.ledger.device_changes import device_changes  # noqa: PLC0415 - only where a policy is read
    from earmark.wiring import read_policy  # noqa: PLC0415 - as above

    state = session.tracker.node(node)
    settings = read_policy(file).over(state.settings)
    possible(settings, state.machine)
    changes = device_changes(state, settings)
    fresh = settings != state.settings
    if fresh and not check:
        session.tracker.configure(settings, node=state.node)
    if session.json:
        session.emit(
            DevicePolicyOut(
                node=state.node, name=state.name, checked_only=check, changed=fresh, differences=list(changes.lines), kept=list(changes.kept),
                notes=list(changes.notes),
            )
        )  # fmt: skip
        return 0
    for note in (*changes.notes, *changes.kept):
        session.note(f"earmark: {phrases.clean(note)}")
    if session.quiet:
        return 0
    if not fresh:
        session.out(f"nothing changes: node {phrases.name(state.name)} has this policy already")
        return 0
    session.out(f"node {phrases.name(state.name)} {'would have' if check else 'has'} this device policy now")
    session.out([f"  {phrases.clean(line)}" for line in changes.lines] or "  it changes nothing for the devices that are there")
    return 0


def list_devices(session: Session, node: str | None) -> int:
    """List the devices of a node as they are now."""
    state = session.state(node)
    rows = device_rows(state)
    if session.json:
        session.emit(NodeDevicesOut(node=state.node, name=state.name, at=when(session.now_ms), devices=rows))
        return 0
    if not rows:
        session.out(f"node {phrases.name(state.name)} has no devices")
        return 0
    from earmark.cli import drawing  # noqa: PLC0415 - only where something is drawn

    sheet = drawing.sheet(colour=session.draws_colour, wide=True)
    sized = any(row.memory_bytes is not None for row in rows)
    shown = [
        [
            phrases.clean(unit_words(row)), state_words(row), phrases.clean(row.kind), "-" if row.cell is None else str(row.cell),
            *([] if not sized else ["-"] if row.memory_bytes is None else [format_bytes(row.memory_bytes)]),
            phrases.name(row.consumer or row.claim or "") or "-", phrases.clean(tag_words(row)) or "-",
        ]
        for row in rows
    ]  # fmt: skip
    heads = ["unit", "state", "kind", "cell", *(["memory"] if sized else []), "holder", "tags"]
    sheet.draw(drawing.table(heads, shown, sheet.width))
    return 0


def unit_words(row: NodeDeviceOut) -> str:
    """Return a device as the table names it: with its address, where its name tells an older one."""
    named_by_address = row.unit.startswith("pci:")
    return row.unit if not named_by_address or row.address is None or row.address in row.unit else f"{row.unit} at {row.address}"


def state_words(row: NodeDeviceOut) -> str:
    """Return the state of a device as the table has it: with the thousandths that are given of a shared one, and what else keeps it back."""
    words = f"shared {row.share_used}/{THOUSAND}" if row.state == "shared" else row.state
    if row.cordoned:
        return words if row.state == "cordoned" else f"{words}, cordoned"
    return words if row.reason is None or row.state == "faulty" else f"{words}, faulty"


def tag_words(row: NodeDeviceOut) -> str:
    """Return what can be asked of a device beside its kind: class, tags and a MIG instance's profile, traits, flags."""
    said = [row.resource_class] if row.resource_class is not None and row.kind != f"class:{row.resource_class}" else []
    tags = ({} if row.profile is None else {"profile": row.profile}) | row.tags
    said += [f"{name}={value}" for name, value in sorted(tags.items())]
    said += row.traits
    said += [
        word for word, is_so in (("shares", row.shares), ("live-migratable", row.live_migratable), ("one use", row.one_time_use)) if is_so
    ]
    return " ".join(said)


def device_rows(state: NodeState) -> list[NodeDeviceOut]:
    """Return the devices of a node in order of address, parts behind their parent, then what has no place, then what is gone and held."""
    known = state.layout.known if state.layout is not None else {}
    rows = {row.unit: (claim, row) for claim, grant in state.grants() for row in grant.units if not row.unit.startswith("cpu:")}
    places = {device.unit: device.address for device in known.values()}

    def place(device: Device) -> tuple[bool, str, bool, str]:
        parent = places.get(device.parent) if device.parent is not None else None
        address = device.address or parent
        return (address is None, address or "", device.address is None, device.unit)

    blocked = state.supply.barred_units if state.supply is not None else frozenset()
    found = [_row(state, device, rows, blocked) for device in sorted(known.values(), key=place)]
    gone = sorted((state.missing | state.withdrawn) & (frozenset(rows) - frozenset(known)))
    return found + [_gone(state, *rows[unit]) for unit in gone]


def device_row(state: NodeState, unit: UnitId) -> NodeDeviceOut | None:
    """Return one device of a node, None where the unit is none that the node has now."""
    return next((row for row in device_rows(state) if row.unit == unit and row.state not in ("missing", "withdrawn")), None)


def _row(state: NodeState, device: Device, rows: dict[UnitId, tuple[ClaimId, UnitRow]], blocked: frozenset[str]) -> NodeDeviceOut:
    from earmark.core.model.ids import share_pool  # noqa: PLC0415 - only where devices are listed

    layout = state.layout
    offered = layout is not None and device.unit in layout.grantable
    held = rows.get(device.unit)
    used = state.free.used.get(share_pool(device.unit), 0)
    slots = (*layout.slots[device.unit], *layout.above[device.unit]) if layout is not None else ()
    holder = held[0] if held is not None else next((state.free.slots[slot] for slot in slots if slot in state.free.slots), None)
    cordon = state.cordons.get(device.unit)
    standing: DeviceState
    if held is not None:
        standing = _held_state(state, device.unit, held[0]) if held[1].use == "device" else "excluded"
    elif holder is not None:
        standing = "excluded"
    elif used:
        standing = "shared"
    elif cordon is not None:
        standing = "cordoned"
    elif not blocked.isdisjoint(slots):
        standing = "excluded"
    elif device.fault is not None:
        standing = "faulty"
    else:
        standing = "free" if offered else "reserved"
    claim = state.claims.get(holder) if holder is not None else None
    return NodeDeviceOut(
        unit=device.unit, kind=device.kind, state=standing, offered=offered, resource_class=device.resource_class, tags=dict(device.tags),
        traits=list(device.traits), cell=device.cell, address=device.address, parent=device.parent,
        dev_type=device.pci_type if device.address is not None else None, identity=device.identity, name=device.name,
        memory_bytes=device.memory_bytes, profile=device.profile,
        mdev_types=list(device.mdev_types), shares=device.shares, share_used=used, live_migratable=device.live_migratable,
        one_time_use=device.one_time_use, claim=holder, consumer=None if claim is None else claim.consumer,
        cordoned=cordon is not None, reason=cordon.reason if cordon is not None else device.fault,
    )  # fmt: skip


def _held_state(state: NodeState, unit: UnitId, holder: ClaimId) -> DeviceState:
    if unit in state.missing:
        return "missing"
    if holder in state.quarantines:
        return "quarantined"
    claim = state.claims.get(holder)
    return "foreign" if claim is not None and claim.purpose == "foreign" else "taken"


def _gone(state: NodeState, holder: ClaimId, row: UnitRow) -> NodeDeviceOut:
    claim = state.claims.get(holder)
    return NodeDeviceOut(
        unit=row.unit, kind=row.unit.partition(":")[0], state="withdrawn" if row.unit in state.withdrawn else "missing", offered=False,
        resource_class=None, tags={}, traits=[], cell=None, address=None, parent=None, dev_type=None, identity=row.identity, name=None,
        memory_bytes=None, profile=None, mdev_types=[], shares=False, share_used=0, live_migratable=False, one_time_use=False, claim=holder,
        consumer=None if claim is None else claim.consumer, cordoned=row.unit in state.cordons, reason=None,
    )  # fmt: skip
