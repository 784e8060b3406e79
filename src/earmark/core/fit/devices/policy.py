"""A machine's devices under the node's device policy: which may be handed out, as what, and what else is handed out by name.

Rules of this file: pure; the order in which devices come does not matter; the first rule that matches a device counts, the others do not.
A device whose parent is split stays one unit with its parts: the slot table keeps them apart. What is more than allowed is capped, never
dropped. Sources: Nova 34, pci/devspec.py (P18), virt/libvirt/driver.py (V1, V2, V4, V6).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple, get_args

import msgspec
from msgspec.structs import replace

from earmark.core.model.device_rule import NAMED_MAX, RULES_MAX, DeviceRule, NamedResource
from earmark.core.model.ids import RESOURCE_CLASS, UNIT, ResourceClass, Slot, UnitId
from earmark.core.model.node import NodeSettings
from earmark.core.model.topology import DEVICES_MAX, MIG_PARENT, Device, Machine, MdevType
from earmark.core.model.units import counted
from earmark.errors import InvalidRequest

MDEV = "mdev:"
NAMED = "named:"
MDEV_TYPE_TAG = "mdev_type"
"""The tag that every mediated device has, so that a request can ask for one type."""
MDEV_CLASS = ResourceClass("VGPU")
INSTANCES_MAX = 4096
"""Mediated devices of one parent."""
PMEM = "CUSTOM_PMEM_NAMESPACE_"
OWN_CLASSES = frozenset({"VCPU", "PCPU", "MEMORY_MB", "MEMORY_BYTES", "DISK_GB", "DISK_BYTES", "PAGES"})
"""Classes that are counted from the machine itself: neither inventoried by hand, nor of units, nor asked for by name."""
PciType = Literal["PCI", "PF", "VF", "VDPA"]
DEV_TYPES = get_args(PciType)
ANY = "*"
UNREAD = "-"
"""A part of an identity that could not be read."""
KIND = re.compile(r"[a-z][a-z0-9_-]{0,31}")
MDEV_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,99}")
HEX = re.compile(r"[0-9a-fA-F]{4}")
ADDRESS = re.compile(r"[0-9a-fA-F:.*?]{1,32}")
TAG = re.compile(r"[!-~](?:[ -~]{0,98}[!-~])?")
TRAIT = re.compile(r"[A-Z][A-Z0-9_]{0,254}")
SAYING = ("kind", "tags", "traits", "resource_class", "mdev_type", "max_instances", "shares", "live_migratable", "one_time_use")
NO_RULE = DeviceRule()


class Applied(NamedTuple):
    """The devices of a node as its policy has them: all of them in order of address, and the units that may be handed out."""

    devices: tuple[Device, ...]
    granted: frozenset[UnitId]


def applied(machine: Machine, settings: NodeSettings) -> Applied:
    """Return the devices of a machine under a node's settings, with mediated devices and named resources as devices of their own.

    A device that no rule matches is handed out if `device_kinds` or `device_units` have it. One that is split into mediated devices is
    handed out as a whole only if its rule names a `kind` for that. Nothing is given of one whose driver reports a fault.
    """
    rules = Matchers.of(settings.device_rules)
    addresses = {device.unit: device.address for device in machine.devices} if settings.device_rules else {}
    found: list[Device] = []
    made: list[Device] = []
    granted: set[UnitId] = set()
    for device in sorted(machine.devices, key=lambda each: each.unit):
        number = rules.first(device, addresses)
        rule = settings.device_rules[number] if number is not None else None
        found.append(_said(device, rule) if rule is not None else device)
        if rule is None:
            whole = device.kind in settings.device_kinds or device.unit in settings.device_units
        else:
            whole = rule.hand_out and (rule.mdev_type is None or rule.kind is not None)
            if device.kind == MIG_PARENT:  # no use as a whole: only a rule that means just that hands it out
                whole = whole and (device.unit in rule.units or rule.observed_kind == MIG_PARENT)
        if device.fault is not None:
            continue
        if whole:
            granted.add(device.unit)
        if rule is not None and rule.hand_out and rule.mdev_type is not None:
            made += _instances(device, rule, DEVICES_MAX - len(made))
    seen = {device.unit for device in found}
    for part in (*made, *(_named(resource) for resource in settings.named_resources)):
        if part.unit not in seen:
            seen.add(part.unit)
            found.append(part)
            granted.add(part.unit)
    return Applied(tuple(sorted(found, key=lambda device: (device.address or "", device.unit))), frozenset(granted))


def unit_classes(settings: NodeSettings) -> frozenset[ResourceClass]:
    """Return the resource classes that are answered by units under these settings, whether or not the machine has any now."""
    named = {resource.resource_class for resource in settings.named_resources}
    ruled = {class_of(rule) for rule in settings.device_rules}
    return frozenset(named | {each for each in ruled if each is not None})


def class_of(rule: DeviceRule) -> ResourceClass | None:
    """Return the resource class in whose units a rule counts devices; mediated devices are of VGPU if nothing else is said (V1)."""
    return rule.resource_class or (MDEV_CLASS if rule.mdev_type is not None else None)


def mdev_type_of(unit: UnitId) -> str | None:
    """Return the type in the name of a mediated device, None for any other unit."""
    return unit.rsplit("/", 2)[1] if unit.startswith(MDEV) and unit.count("/") > 1 else None


def parent_local(unit: UnitId) -> str:
    """Return the local name of the parent in the name of a mediated device: what stands behind the kind in the parent's own name."""
    return unit.removeprefix(MDEV).rsplit("/", 2)[0]


# --- which rule -----------------------------------------------------------------------------------------------------------------------


class Matchers(NamedTuple):
    """The rules of a node made ready to be compared with many devices."""

    rules: tuple[tuple[DeviceRule, re.Pattern[str] | None, frozenset[UnitId]], ...]

    @staticmethod
    def of(rules: Sequence[DeviceRule]) -> Matchers:
        """Return some rules made ready."""
        return Matchers(tuple((rule, _glob(rule.address), frozenset(rule.units)) for rule in rules))

    def first(self, device: Device, addresses: Mapping[UnitId, str | None]) -> int | None:
        """Return the number of the first rule that matches a device, None for none. `addresses` are those of all devices."""
        at = [device.address] if device.address is not None else []
        if device.parent is not None:
            parent = addresses.get(device.parent)
            at += [parent] if parent is not None else []
        for number, (rule, glob, units) in enumerate(self.rules):
            if (
                (not units or device.unit in units)
                and _same_id(rule.vendor_id, device.vendor_id)
                and _same_id(rule.product_id, device.product_id)
                and (glob is None or any(glob.fullmatch(address) for address in at))
                and rule.observed_kind in (None, device.kind)
                and (rule.dev_type is None or _type(rule.dev_type) == device.pci_type)
            ):
                return number
        return None


def could_match(rule: DeviceRule, unit: UnitId, identity: str | None) -> bool:
    """Say whether what is held of a device that is not there now could be what a rule hands out, by its name and what it was."""
    ids = zip((rule.vendor_id, rule.product_id), (identity or "").split(":"), strict=False)
    same = all(found in ("", UNREAD) or _same_id(wanted, found) for wanted, found in ids)
    named = not rule.units or unit in rule.units or unit.startswith(MDEV)
    return rule.mdev_type == mdev_type_of(unit) and same and named


def _glob(pattern: str | None) -> re.Pattern[str] | None:
    """Return an address pattern of the shell (`*` and `?` alone) as an expression, None for one that was not set."""
    if pattern is None:
        return None
    parts = {"*": ".*", "?": "."}
    return re.compile("".join(parts.get(letter, re.escape(letter)) for letter in pattern), re.IGNORECASE)


def _same_id(wanted: str | None, found: str | None) -> bool:
    if wanted is None or wanted == ANY:
        return True
    return found is not None and _digits(wanted) == _digits(found)


def _digits(text: str) -> str:
    return text.lower().removeprefix("0x")


def _type(text: str) -> str:
    return text.upper().removeprefix("TYPE-")


# --- what it says ---------------------------------------------------------------------------------------------------------------------


def _said(device: Device, rule: DeviceRule) -> Device:
    """Return a device as its rule has it. What a rule says of a split device it says of its parts, but for the kind."""
    if rule.kind is not None:  # its type follows from the kind that a driver saw
        device = replace(device, kind=rule.kind, dev_type=msgspec.convert(device.pci_type, PciType) if device.address else device.dev_type)
    if rule.mdev_type is not None:
        return device
    return replace(
        device, tags=tuple(sorted(rule.tags.items())), traits=tuple(sorted(set(rule.traits))),
        resource_class=rule.resource_class, shares=rule.shares, live_migratable=rule.live_migratable, one_time_use=rule.one_time_use,
    )  # fmt: skip


def offered(device: Device, rule: DeviceRule) -> MdevType | None:
    """Return the type of mediated device that a rule makes of a device, None if the device does not offer it."""
    return next((each for each in device.mdev_types if each.name == rule.mdev_type), None)


def instances(device: Device, rule: DeviceRule) -> int:
    """Return how many mediated devices of its rule's type a device gives: what is there, at most what is allowed (V2, W29)."""
    there = offered(device, rule)
    if there is None:
        return 0
    most = INSTANCES_MAX if rule.max_instances is None else min(rule.max_instances, INSTANCES_MAX)
    return min(there.total, most)


def _instances(device: Device, rule: DeviceRule, room: int) -> list[Device]:
    """Return the mediated devices of a parent: one type, each a unit that excludes the whole parent and no other part."""
    kind = f"class:{class_of(rule)}"
    local = device.unit.partition(":")[2]
    tags = tuple(sorted({**rule.tags, MDEV_TYPE_TAG: str(rule.mdev_type)}.items()))
    made = []
    for number in range(min(instances(device, rule), max(0, room))):
        unit = UnitId(f"{MDEV}{local}/{rule.mdev_type}/{number}")
        if not UNIT.fullmatch(unit):
            break
        made.append(
            Device(
                unit=unit, kind=kind, vendor_id=device.vendor_id, product_id=device.product_id,
                subsystem=device.subsystem, cell=device.cell, parent=device.unit, identity=device.identity, name=device.name, tags=tags,
                traits=tuple(sorted(set(rule.traits))), resource_class=class_of(rule), live_migratable=rule.live_migratable,
                one_time_use=rule.one_time_use,
            )
        )  # fmt: skip
    return made


def crowded(known: Mapping[UnitId, Device], taken: Mapping[Slot, object], shared: Iterable[UnitId]) -> frozenset[UnitId]:
    """Return what is not to be given because of what is held of the same card in a way that its policy or its driver has ended (V2).

    Where mediated devices are held that the card has no more, it gives that many fewer of their type, the last free ones first, and none of
    another type; it is not given whole. Where shares are held and no more are given, nothing else of it is given.
    """
    found = {unit for unit in shared if unit in known and not known[unit].shares}
    gone = [unit for slot in taken if slot.startswith(MDEV) and (unit := UnitId(slot)) not in known]
    lost = Counter((parent_local(unit), mdev_type_of(unit)) for unit in gone)
    places = {place for place, _ in lost}
    for parent in [unit for unit in known if places and not unit.startswith(MDEV) and unit.partition(":")[2] in places]:
        parts = [unit for unit in known if unit.startswith(MDEV) and known[unit].parent == parent]
        free = sorted((unit for unit in parts if Slot(unit) not in taken), key=lambda unit: int(unit.rpartition("/")[2]), reverse=True)
        types = {name: count for (place, name), count in lost.items() if place == parent.partition(":")[2]}
        same = types.pop(mdev_type_of(parts[0]), 0) if parts else 0
        found.update(free[:same] if parts and not types else free or [parent])
    return frozenset(found)


def named_unit(resource: NamedResource) -> UnitId:
    """Return the unit of a named resource."""
    return UnitId(f"{NAMED}{resource.resource_class}/{resource.name}")


def _named(resource: NamedResource) -> Device:
    return Device(
        unit=named_unit(resource), kind=f"class:{resource.resource_class}", cell=resource.cell, name=resource.name,
        resource_class=resource.resource_class,
    )  # fmt: skip


# --- what cannot be -------------------------------------------------------------------------------------------------------------------


def check_policy(machine: Machine, settings: NodeSettings, *, strict: bool = True) -> None:
    """Raise InvalidRequest for a device policy that contradicts itself or, if `strict`, names a cell that the machine has not."""
    _bounded(settings)
    seen: dict[tuple[object, ...], int] = {}
    alone: dict[UnitId, int] = {}
    for number, rule in enumerate(settings.device_rules):
        where = f"device rule {number + 1}"
        _check_rule(rule, where)
        key = _key(rule)
        if key in seen:
            raise InvalidRequest(f"{where} matches exactly what rule {seen[key] + 1} matches: it would never count", found=number)
        seen[key] = number
        twice = next((unit for unit in rule.units if unit in alone), None)
        if twice is not None:
            raise InvalidRequest(f"{where} names {twice}, of which rule {alone[twice] + 1} says everything already", found=twice)
        if rule.units and key[1:] == _key(NO_RULE)[1:]:
            alone |= dict.fromkeys(rule.units, number)
    cells = {cell.id for cell in machine.cells} | {cpu.cell for cpu in machine.cpus}
    _check_named(settings, cells if strict else None)
    counted_twice = unit_classes(settings) & {inventory.resource_class for inventory in settings.inventories}
    if counted_twice:
        name = min(counted_twice)
        raise InvalidRequest(f"{name} is counted by its units and has an inventory too: one of them", resource_class=name)


def _bounded(settings: NodeSettings) -> None:
    for what, items, most in (("device rules", settings.device_rules, RULES_MAX), ("named resources", settings.named_resources, NAMED_MAX)):
        if len(items) > most:
            raise InvalidRequest(f"{len(items)} {what} are more than {most}", found=len(items))


def _key(rule: DeviceRule) -> tuple[object, ...]:
    """Return all that a rule matches by, written in one way."""
    ids = (None if wanted in (None, ANY) else _digits(wanted) for wanted in (rule.vendor_id, rule.product_id))
    address = None if rule.address is None or not rule.address.strip(ANY) else rule.address.lower()
    return (frozenset(rule.units), *ids, address, rule.observed_kind, None if rule.dev_type is None else _type(rule.dev_type))


def _check_rule(rule: DeviceRule, where: str) -> None:
    """Raise InvalidRequest for one rule that says what cannot be, or what contradicts the rest of it."""
    said = [name for name in SAYING if getattr(rule, name) != getattr(NO_RULE, name)]
    if not rule.hand_out and said:
        raise InvalidRequest(f"{where}: hand_out false beside {', '.join(said)}: what is not handed out is nothing else", found=said)
    if rule.max_instances is not None and rule.mdev_type is None:
        raise InvalidRequest(f"{where}: max_instances without mdev_type", found=rule.max_instances)
    if rule.shares and (rule.mdev_type is not None or rule.one_time_use):
        other = "mdev_type" if rule.mdev_type is not None else "one_time_use"
        raise InvalidRequest(f"{where}: shares beside {other}: thousandths are given of a device that is whole and stays", found=other)
    if rule.mdev_type is not None and MDEV_TYPE_TAG in rule.tags:
        raise InvalidRequest(f"{where}: the tag {MDEV_TYPE_TAG} is given by mdev_type itself", found=MDEV_TYPE_TAG)
    checks: list[tuple[str, Iterable[str], re.Pattern[str], str]] = [
        ("units", rule.units, UNIT, "a unit (kind:name)"),
        ("vendor_id", _set(rule.vendor_id), HEX, "four hexadecimal digits or *"),
        ("product_id", _set(rule.product_id), HEX, "four hexadecimal digits or *"),
        ("address", () if rule.address is None else (rule.address,), ADDRESS, "a PCI address, with * and ? as in a shell"),
        ("observed_kind", () if rule.observed_kind is None else (rule.observed_kind,), KIND, "a kind of device, as gpu or vf"),
        ("kind", () if rule.kind is None else (rule.kind,), KIND, "a kind of device, as gpu or fast-nic"),
        ("a tag's name", rule.tags, TAG, "1 to 100 printable characters"),
        ("a tag's value", rule.tags.values(), TAG, "1 to 100 printable characters"),
        ("traits", rule.traits, TRAIT, "a trait: capital letters, digits and _"),
        ("resource_class", () if rule.resource_class is None else (rule.resource_class,), RESOURCE_CLASS, "a resource class"),
        ("mdev_type", () if rule.mdev_type is None else (rule.mdev_type,), MDEV_NAME, "a type of mediated device, as nvidia-35"),
    ]
    for field, texts, form, what in checks:
        wrong = next((text for text in texts if not form.fullmatch(text)), None)
        if wrong is not None:
            raise InvalidRequest(f"{where}: {field} {wrong!r} is not {what}", found=wrong)
    if rule.kind == "pci":
        raise InvalidRequest(f"{where}: kind 'pci' is any PCI device in a request; a device needs a kind of its own", found=rule.kind)
    if rule.dev_type is not None and _type(rule.dev_type) not in DEV_TYPES:
        raise InvalidRequest(f"{where}: dev_type {rule.dev_type!r} is none of {', '.join(DEV_TYPES)}", found=rule.dev_type)
    _check_class(rule.resource_class, where)
    if rule.mdev_type is not None and rule.resource_class not in (None, MDEV_CLASS) and not str(rule.resource_class).startswith("CUSTOM_"):
        raise InvalidRequest(f"{where}: mediated devices are of {MDEV_CLASS} or of a CUSTOM_ class, not of {rule.resource_class}")


def _set(wanted: str | None) -> tuple[str, ...]:
    return () if wanted in (None, ANY) else (_digits(str(wanted)),)


def _check_class(name: str | None, where: str) -> None:
    if name in OWN_CLASSES:
        raise InvalidRequest(f"{where}: {name} is counted from the machine itself", resource_class=name)


def _check_named(settings: NodeSettings, cells: set[int] | None) -> None:
    """Raise InvalidRequest for named resources that cannot be, are there twice, or lie on a cell that is not one of `cells`."""
    seen: set[UnitId] = set()
    spaces: dict[str, str] = {}
    for resource in settings.named_resources:
        where = f"named resource {resource.resource_class}/{resource.name}"
        _check_class(resource.resource_class, where)
        unit = named_unit(resource)
        if not RESOURCE_CLASS.fullmatch(resource.resource_class) or not resource.name or not UNIT.fullmatch(unit):
            raise InvalidRequest(f"{where}: a class in capital letters and a name without spaces is one", found=unit)
        if unit in seen:
            raise InvalidRequest(f"{where} is there twice", found=unit)
        seen.add(unit)
        if resource.resource_class.startswith(PMEM):
            other = spaces.setdefault(resource.name, resource.resource_class)
            if other != resource.resource_class:
                raise InvalidRequest(f"{where}: the namespace is of {other} already", found=resource.name)
        if cells is not None and resource.cell is not None and resource.cell not in cells:
            raise InvalidRequest(f"{where} is on cell {resource.cell}, which the machine has not", found=resource.cell)


def policy_notes(machine: Machine, settings: NodeSettings) -> tuple[str, ...]:
    """Say, in order, what a policy names that this machine has not, and what it could not have in full; nothing of it is an error."""
    rules = settings.device_rules
    units = {device.unit for device in machine.devices}
    addresses = {device.unit: device.address for device in machine.devices}
    ready = Matchers.of(rules)
    matched: dict[int, list[Device]] = {}
    for device in sorted(machine.devices, key=lambda each: each.unit):
        number = ready.first(device, addresses)
        if number is not None:
            matched.setdefault(number, []).append(device)
    notes = []
    for number, rule in enumerate(rules):
        unknown = [unit for unit in rule.units if unit not in units]
        notes += [f"device rule {number + 1}: there is no unit {unit} now" for unit in unknown]
        mine = matched.get(number, [])
        if not mine and not unknown:
            notes.append(f"device rule {number + 1} matches no device now")
        if rule.mdev_type is None:
            continue
        for device in mine:
            there = offered(device, rule)
            if there is None:
                types = ", ".join(each.name for each in device.mdev_types) or "none"
                notes.append(f"device rule {number + 1}: {device.unit} offers no {rule.mdev_type} (it offers {types})")
            elif instances(device, rule) < there.total:
                kept = counted(instances(device, rule), "instance")
                notes.append(f"device rule {number + 1}: {device.unit} has {there.total} of {rule.mdev_type}, {kept} may be handed out")
    return tuple(notes)
