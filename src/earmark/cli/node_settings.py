"""The settings of a node as `node set KEY=VALUE` takes them: Nova's option names, human units, one table.

Rules of this file: each key is parsed strictly by one function; "default" gives a setting its default back. Names and meanings:
Nova 34, conf/compute.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, cast, get_args

from msgspec.structs import replace

from earmark.core.model.cpuset import format_cpu_list, parse_cpu_list
from earmark.core.model.ids import UnitId, resource_class, unit_id
from earmark.core.model.inventory import Inventory, checked
from earmark.core.model.node import NetworkCells, NodePolicy, NodeSettings, PowerStrategy, ReservedPages
from earmark.core.model.units import KIB, MIB, THOUSAND, counted, format_bytes, format_duration, parse_bytes, parse_duration_ms, parse_ratio
from earmark.errors import InvalidRequest

NUMBER = re.compile(r"[0-9]{1,18}")
KIND = re.compile(r"[a-z][a-z0-9_-]{0,31}")
NETWORK = re.compile(r"[!-~]{1,128}")
TUNNEL = "tunnel"
"""How the tunnelled networks are called on the command line."""
INVENTORY_WORDS = ("reserved", "ratio", "min_unit", "max_unit", "step_size")


class Option(NamedTuple):
    """A key of `node set`: the field it sets, how a text becomes its value, how the value is shown, and what it is for."""

    field: str
    parse: Callable[[str, str], Any]
    show: Callable[[Any], str]
    help: str


def number(key: str, text: str) -> int:
    """Return a whole number; raises InvalidRequest."""
    if not NUMBER.fullmatch(text):
        raise InvalidRequest(f"{key} {text!r} is not a whole number", key=key, found=text)
    return int(text)


def policy(key: str, text: str) -> str:
    """Return a CPU policy; raises InvalidRequest."""
    if text not in get_args(NodePolicy):
        raise InvalidRequest(f"{key} {text!r} is none of {', '.join(get_args(NodePolicy))}", key=key, found=text)
    return text


def cpus(key: str, text: str) -> tuple[int, ...] | None:
    """Return a CPU set, None for "none"; raises InvalidRequest."""
    return None if text == "none" else parse_cpu_list(text, what=key)


def size(key: str, text: str) -> int:
    """Return a size in bytes; raises InvalidRequest."""
    return parse_bytes(text, what=key)


def mebibytes(key: str, text: str) -> int:
    """Return a number of MiB in bytes, as Nova's …_mb options count; raises InvalidRequest."""
    return number(key, text) * MIB


def ratio(key: str, text: str) -> int:
    """Return a ratio in thousandths; raises InvalidRequest."""
    return parse_ratio(text, what=key)


def truth(key: str, text: str) -> bool:
    """Return true or false; raises InvalidRequest."""
    if text not in ("true", "false"):
        raise InvalidRequest(f"{key} {text!r} is neither true nor false", key=key, found=text)
    return text == "true"


def seconds(key: str, text: str) -> int:
    """Return a duration, or a bare number of seconds as Nova's option has it, in seconds; raises InvalidRequest."""
    if NUMBER.fullmatch(text):
        return int(text)
    span_ms = parse_duration_ms(text, what=key)
    if span_ms % THOUSAND:
        raise InvalidRequest(f"{key} {text!r} is not a whole number of seconds", key=key, found=text)
    return span_ms // THOUSAND


def items(text: str) -> list[str]:
    """Return the parts of a list with commas, none for "none"."""
    return [] if text == "none" else [part for part in text.split(",") if part]


def huge_pages(key: str, text: str) -> tuple[ReservedPages, ...]:
    """Return "0:2MiB:64,1:1GiB:2" (cell:size:count) as reserved pages, "" as none; raises InvalidRequest."""
    found = []
    for item in items(text):
        parts = item.split(":")
        if len(parts) != 3:  # noqa: PLR2004 - cell, size, count
            raise InvalidRequest(f"{key} {item!r} is not CELL:SIZE:COUNT, as in 0:2MiB:64", key=key, found=item)
        found.append(ReservedPages(cell=number(key, parts[0]), size_kib=size(key, parts[1]) // KIB, count=number(key, parts[2])))
    return tuple(found)


def kinds(key: str, text: str) -> tuple[str, ...]:
    """Return device kinds, sorted; raises InvalidRequest."""
    names = sorted(items(text))
    for name in names:
        if not KIND.fullmatch(name):
            raise InvalidRequest(f"{key} {name!r} is not a kind of device: gpu, vf or nvme is", key=key, found=name)
    return tuple(names)


def units(_key: str, text: str) -> tuple[UnitId, ...]:
    """Return device units, sorted; raises InvalidRequest."""
    return tuple(sorted(unit_id(name) for name in items(text)))


def networks(key: str, text: str) -> tuple[NetworkCells, ...]:
    """Return the cells of networks in "physnet0:0-1,tunnel:0"; raises InvalidRequest."""
    found = {}
    for item in items(text):
        name, colon, cells = item.rpartition(":")
        if not colon or not NETWORK.fullmatch(name):
            raise InvalidRequest(f"{key} {item!r} is not NAME:CELLS, as in physnet0:0-1", key=key, found=item)
        if name in found:
            raise InvalidRequest(f"{key}: {name} is named twice", key=key, found=name)
        found[name] = NetworkCells(network="" if name == TUNNEL else name, cells=parse_cpu_list(cells.replace("+", ","), what=key))
    return tuple(found[name] for name in sorted(found))


def power(key: str, text: str) -> PowerStrategy:
    """Return a strategy of CPU power management; raises InvalidRequest."""
    if text not in get_args(PowerStrategy):
        raise InvalidRequest(f"{key} {text!r} is none of {', '.join(get_args(PowerStrategy))}", key=key, found=text)
    return cast("PowerStrategy", text)


def show_networks(value: tuple[NetworkCells, ...]) -> str:
    """Return the cells of networks as they are set."""
    shown = (f"{each.network or TUNNEL}:{format_cpu_list(each.cells).replace(',', '+')}" for each in value)
    return ",".join(shown) or "none"


def show_ratio(value: int) -> str:
    """Return thousandths as a decimal."""
    return f"{value / 1000:g}"


def show_truth(value: bool) -> str:
    """Return true or false."""
    return str(value).lower()


def show_seconds(value: int) -> str:
    """Return a duration."""
    return "0" if value == 0 else format_duration(value * THOUSAND)


def show_cpus(value: tuple[int, ...] | None) -> str:
    """Return a CPU set."""
    return "none" if value is None else format_cpu_list(value)


def show_pages(value: tuple[ReservedPages, ...]) -> str:
    """Return reserved pages as they are set."""
    return ",".join(f"{each.cell}:{format_bytes(each.size_kib * KIB).replace(' ', '')}:{each.count}" for each in value) or "none"


def show_bytes(value: int | None) -> str:
    """Return a size, "auto" for None."""
    return "auto" if value is None else format_bytes(value).replace(" ", "")


def show_size(value: int) -> str:
    """Return a size, "0" for nothing."""
    return show_bytes(value) if value else "0"


def show_names(value: Iterable[str]) -> str:
    """Return names with commas."""
    return ",".join(value) or "none"


OPTIONS: dict[str, Option] = {
    "cpu_policy": Option("cpu_policy", policy, str, "pool, split (named sets) or overlap (exclusive only among dedicated)"),
    "cpu_shared_set": Option("cpu_shared_set", cpus, show_cpus, "CPUs for shared vCPUs, under split and overlap: 0-3,^1"),
    "cpu_dedicated_set": Option("cpu_dedicated_set", cpus, show_cpus, "CPUs to be dedicated, under split and overlap"),
    "reserved_host_cpus": Option("reserved_host_cpus", number, str, "CPUs kept for the host, CPU 0's core first"),
    "reserved_host_memory": Option(
        "reserved_host_memory_bytes", size, show_bytes, "memory kept for the host; auto: the larger of 512MiB and 2 %"
    ),
    "reserved_host_memory_mb": Option("reserved_host_memory_bytes", mebibytes, show_bytes, "the same in MiB, as Nova names it"),
    "reserved_host_disk": Option("reserved_host_disk_bytes", size, show_bytes, "disk space kept for the host"),
    "reserved_host_disk_mb": Option("reserved_host_disk_bytes", mebibytes, show_bytes, "the same in MiB, as Nova names it"),
    "cpu_allocation_ratio": Option("cpu_allocation_ratio", ratio, show_ratio, "shared vCPUs per shared CPU"),
    "ram_allocation_ratio": Option("ram_allocation_ratio", ratio, show_ratio, "ordinary memory handed out per memory"),
    "disk_allocation_ratio": Option("disk_allocation_ratio", ratio, show_ratio, "disk space handed out per space"),
    "reserved_huge_pages": Option("reserved_huge_pages", huge_pages, show_pages, "pages kept for the host, as CELL:SIZE:COUNT,…"),
    "file_backed_memory": Option("file_backed_memory_bytes", size, show_size, "memory as files, in place of the machine's; 0: not so"),
    "max_concurrent_builds": Option("max_concurrent_builds", number, str, "builds at a time, held and not yet confirmed; 0: no limit"),
    "allow_resize_to_same_host": Option("allow_resize_to_same_host", truth, show_truth, "whether an instance may be resized where it is"),
    "allow_migrate_to_same_host": Option("allow_migrate_to_same_host", truth, show_truth, "whether it may be migrated to where it is"),
    "live_migratable_kinds": Option("live_migratable_kinds", kinds, show_names, "kinds of devices that move while they are in use"),
    "resize_confirm_window": Option(
        "resize_confirm_window_s", seconds, show_seconds, "a finished resize or migration is confirmed after this time; 0: never"
    ),
    "network_cells": Option("network_cells", networks, show_networks, "cells of each physical network, as NAME:0-1+3,…; tunnel:CELLS"),
    "keep_iommu_groups": Option("keep_iommu_groups", truth, show_truth, "whether all devices of an IOMMU group go to one claim"),
    "cpu_power_management": Option("cpu_power_management", power, str, "none, cpu_state or governor: hints for a power manager"),
    "device_kinds": Option("device_kinds", kinds, show_names, "kinds of devices that are handed out"),
    "device_units": Option("device_units", units, show_names, "single devices that are handed out as well, by unit"),
}
"""Every key but `inventory.CLASS`, in the order of the listing."""
ALIASES = ("reserved_host_memory_mb", "reserved_host_disk_mb")
DEFAULTS = NodeSettings()


def changed(settings: NodeSettings, pairs: Iterable[str]) -> NodeSettings:
    """Return settings with some KEY=VALUE applied, in order; raises InvalidRequest."""
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals:
            raise InvalidRequest(f"{pair!r} is not KEY=VALUE, as in reserved_host_cpus=2", found=pair)
        if key.startswith("inventory."):
            settings = with_inventory(settings, key, text)
            continue
        option = OPTIONS.get(key)
        if option is None:
            raise InvalidRequest(f"there is no setting {key!r} of a node; 'earmark node set' lists them", key=key)
        if text == "default" or (text == "auto" and getattr(DEFAULTS, option.field) is None):
            settings = replace(settings, **{option.field: getattr(DEFAULTS, option.field)})
        else:
            settings = replace(settings, **{option.field: option.parse(key, text)})
    return settings


def with_inventory(settings: NodeSettings, key: str, text: str) -> NodeSettings:
    """Return settings with the inventory of one class: `inventory.CUSTOM_X=8[,reserved=1,ratio=2.0,…]`, or =0 to drop it."""
    name = resource_class(key.removeprefix("inventory."))
    total, *words = text.split(",")
    others = tuple(each for each in settings.inventories if each.resource_class != name)
    if number(key, total) == 0:
        return replace(settings, inventories=others)
    fields: dict[str, int] = {}
    for word in words:
        part, equals, value = word.partition("=")
        if part not in INVENTORY_WORDS or not equals:
            raise InvalidRequest(f"{key} {word!r} is none of {', '.join(INVENTORY_WORDS)} with a number", key=key, found=word)
        fields[part] = ratio(key, value) if part == "ratio" else number(key, value)
    made = checked(Inventory(resource_class=name, total=int(total), **fields))
    return replace(settings, inventories=tuple(sorted((*others, made), key=lambda each: each.resource_class)))


def listing(settings: NodeSettings) -> list[tuple[str, str, str, str]]:
    """Return (key, value, default, help) of every setting."""
    rows = [
        (key, option.show(getattr(settings, option.field)), option.show(getattr(DEFAULTS, option.field)), option.help)
        for key, option in OPTIONS.items()
        if key not in ALIASES
    ]
    if settings.device_rules or settings.named_resources:
        said = f"{counted(len(settings.device_rules), 'rule')}, {counted(len(settings.named_resources), 'named resource')}"
        rows.append(("device policy", said, "none", "what is handed out as what: 'earmark node devices --policy FILE'"))
    for each in settings.inventories:
        extra = f", reserved {each.reserved}" if each.reserved else ""
        rows.append((f"inventory.{each.resource_class}", f"{each.total}{extra}", "0", "a plain resource class"))
    return rows
