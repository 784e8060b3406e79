"""What a PCI device offers beside itself: types of mediated devices, and whether it carries a vDPA device.

Rules of this file: a type is counted as what exists of it and what can still be made together, so that making one changes nothing. Sources:
Documentation/ABI/testing/sysfs-bus-vfio-mdev (Linux 6.12); drivers/vdpa (Linux 6.12): a vDPA device is a child of its PCI device.
"""

from __future__ import annotations

import re
from collections.abc import Set as AbstractSet

from earmark.core.model.topology import MdevType
from earmark.drivers.sysfs import parse
from earmark.drivers.sysfs.tree import Tree

VDPA = "/sys/bus/vdpa/devices"
VDPA_DRIVERS = frozenset({"ifcvf", "octep_vdpa", "vp-vdpa"})
"""Drivers of PCI devices that are there for vDPA alone."""
TYPES_MAX = 256
LABEL_LETTERS_MAX = 100
TYPE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,99}")


def mdev_types(tree: Tree, folder: str) -> tuple[MdevType, ...]:
    """Return the types of mediated devices that a device offers, by name; a type whose number cannot be read is left out with a note."""
    place = f"{folder}/mdev_supported_types"
    names = tree.names(place)
    if len(names) > TYPES_MAX:
        tree.note(f"{place}: only the first {TYPES_MAX} of {len(names)} types were looked at")
    found = []
    for name in names[:TYPES_MAX]:
        if not TYPE_NAME.fullmatch(name):
            tree.note(f"{place}/{name}: is not the name of a type")
            continue
        left = tree.parsed(f"{place}/{name}/available_instances", _instances, "a number of instances")
        if left is None:
            tree.note(f"{place}/{name}: does not say how many there can be; left out")
            continue
        made = sum(parse.uuid(each) is not None for each in tree.names(f"{place}/{name}/devices"))
        found.append(MdevType(name=name, total=left + made, label=_label(tree, f"{place}/{name}")))
    return tuple(sorted(found, key=lambda each: each.name))


def vdpa_names(tree: Tree) -> frozenset[str]:
    """Return the names of the host's vDPA devices."""
    return frozenset(tree.names(VDPA))


def carries_vdpa(tree: Tree, folder: str, driver: str | None, names: AbstractSet[str]) -> bool:
    """Say whether a PCI device is for vDPA: its driver is one for that, or one of the host's vDPA devices is its child."""
    return driver in VDPA_DRIVERS or (bool(names) and not names.isdisjoint(tree.names(folder)))


def _instances(text: str) -> int | None:
    number = parse.count(text)
    return number if number is not None and number < 1 << 31 else None


def _label(tree: Tree, folder: str) -> str | None:
    """Return what people call a type: its name, else its description, in one printable line."""
    for file in ("name", "description"):
        text = " ".join((tree.text(f"{folder}/{file}") or "").split())[:LABEL_LETTERS_MAX]
        if text and text.isprintable():
            return text
    return None
