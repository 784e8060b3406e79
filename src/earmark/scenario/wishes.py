"""What a flavor of a scenario asks for: the words after its figures.

Rules of this file: a word means what the option of the same name means on the command line; the limits of a request are those of its model.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast, get_args

from msgspec.structs import replace

from earmark.core.model import ids
from earmark.core.model.cpuset import parse_cpu_list
from earmark.core.model.request import (
    GUEST_CELLS_MAX,
    Affinity,
    CpuPolicy,
    DeviceRequest,
    EmulatorPolicy,
    GuestCell,
    PageWish,
    Placement,
    Request,
    ResourceAmount,
    ThreadPolicy,
)
from earmark.core.model.units import GIB, KIB, MIB
from earmark.errors import Invalid
from earmark.scenario.expectations import CLASS, KIND
from earmark.scenario.words import Words

DEVICES_MAX = 1024
CELL = re.compile(r"[0-9]{1,4}/[0-9]{1,9}")
KNOWN = (
    "ephemeral GB, swap MB, boot-from-volume, shared, dedicated, mixed CPUS, threads POLICY, emulator isolate, pages SIZE, cells N, "
    "cells VCPUS/MB+VCPUS/MB, affinity POLICY, pack, spread, KIND=N, CLASS=N"
)


@contextmanager
def placed(words: Words) -> Iterator[None]:
    """Give an error of the model, raised within, the place of the words that were read."""
    at = words.column
    try:
        yield
    except Invalid as error:
        if "column" in error.facts:
            raise
        words.wrong(error.message, at)


def wish(words: Words) -> Request:
    """Read vCPUs/MB/GB and what else a flavor says: disks are root, ephemeral and swap, exactly (C4, C5)."""
    vcpus, memory_mib, root_gib = words.figure("flavor")
    fields: dict[str, Any] = {"vcpus": vcpus, "memory_bytes": memory_mib * MIB}
    disk_bytes = root_gib * GIB
    seen: set[str] = set()
    while not words.over:
        at = words.column
        pair = words.pair("amount")
        word = pair[0] if pair is not None else words.take("part of a flavor").text
        if word in seen:
            words.wrong(f"{word} stands here twice", at)
        seen.add(word)
        if pair is not None:
            with placed(words):
                _amount(words, fields, pair, at)
        elif word == "ephemeral":
            disk_bytes += words.number("GB of the ephemeral disk") * GIB
        elif word == "swap":
            disk_bytes += words.number("MB of swap") * MIB
        elif word == "boot-from-volume":
            disk_bytes -= root_gib * GIB
        elif word in PARTS:
            PARTS[word](words, fields)
        elif word in get_args(CpuPolicy):
            _policy(words, fields, cast("CpuPolicy", word), at)
        elif word in get_args(Placement):
            fields["placement"] = word
        else:
            words.wrong(f"a flavor has no {word!r}: {KNOWN}", at)
    with placed(words):
        _bound(fields)
        return Request(disk_bytes=disk_bytes, **fields)


def _bound(fields: dict[str, Any]) -> None:
    """Make what was said of the cells and of the devices one, whichever word came first."""
    affinity = fields.pop("affinity", None)
    if affinity is not None:
        fields["devices"] = tuple(replace(device, affinity=affinity) for device in fields.get("devices", ()))
    own = {"dedicated": range(fields["vcpus"]), "mixed": fields.get("dedicated_vcpus", ())}.get(fields.get("cpu_policy", ""), ())
    if "guest_cells" in fields:
        cells = fields["guest_cells"]
        fields["guest_cells"] = tuple(replace(cell, dedicated=tuple(each for each in cell.vcpus if each in own)) for cell in cells)


def _policy(words: Words, fields: dict[str, Any], policy: CpuPolicy, at: int) -> None:
    """Read the CPU policy, and of `mixed` which vCPUs are dedicated."""
    if "cpu_policy" in fields:
        words.wrong(f"{policy} is a second CPU policy: {fields['cpu_policy']} stands before it", at)
    fields["cpu_policy"] = policy
    if policy == "mixed":
        with placed(words):
            fields["dedicated_vcpus"] = parse_cpu_list(words.take("which vCPUs are dedicated, as in 0-1,").text, what="mixed")


def _emulator(words: Words, fields: dict[str, Any]) -> None:
    fields["emulator_policy"] = words.one_of("where the emulator runs", get_args(EmulatorPolicy))


def _threads(words: Words, fields: dict[str, Any]) -> None:
    fields["thread_policy"] = words.one_of("thread policy", get_args(ThreadPolicy))


def _cells(words: Words, fields: dict[str, Any]) -> None:
    """Read how many cells there are, or for each its vCPUs and MB, as in 2/1024+3/3072: all the flavor's vCPUs and memory."""
    at = words.column
    text = words.peek() or ""
    if "/" not in text:
        fields["cells"] = max(1, min(words.number("number of cells"), GUEST_CELLS_MAX))
        return
    parts = words.take("cells").text.split("+")
    if not all(map(CELL.fullmatch, parts)) or len(parts) > GUEST_CELLS_MAX:
        words.wrong(f"{text!r} is not VCPUS/MB for each of at most {GUEST_CELLS_MAX} cells, as in 2/1024+3/3072", at)
    cells: list[GuestCell] = []
    first = 0
    for vcpus, mebibytes in (part.split("/") for part in parts):
        cells.append(GuestCell(vcpus=tuple(range(first, first + int(vcpus))), memory_bytes=int(mebibytes) * MIB))
        first += int(vcpus)
    if first != fields["vcpus"] or sum(cell.memory_bytes for cell in cells) != fields["memory_bytes"]:
        words.wrong(f"{text!r} is not all of {fields['vcpus']}/{fields['memory_bytes'] // MIB}, vCPUs and MB", at)
    fields["guest_cells"] = tuple(cells)


def _affinity(words: Words, fields: dict[str, Any]) -> None:
    fields["affinity"] = words.one_of("how near the devices are", get_args(Affinity))


def _paged(words: Words, fields: dict[str, Any]) -> None:
    fields["page_kib"] = _pages(words)


def _pages(words: Words) -> int | PageWish:
    if words.peek() in get_args(PageWish):
        return cast("PageWish", words.take("page size").text)
    at = words.column
    size = words.bytes("page size")
    if size == 0 or size % KIB:
        words.wrong("a page is a whole number of KiB", at)
    return size // KIB


def _amount(words: Words, fields: dict[str, Any], pair: tuple[str, str], at: int) -> None:
    """Add `vf=1` or `CUSTOM_X=1` to the fields of a request."""
    name, number = pair
    if not number.isascii() or not number.isdigit() or not 1 <= int(number) <= DEVICES_MAX:
        words.wrong(f"{name}={number} is not a number from 1 to {DEVICES_MAX}", at)
    if CLASS.fullmatch(name):
        fields["resources"] = (*fields.get("resources", ()), ResourceAmount(resource_class=ids.resource_class(name), amount=int(number)))
    elif KIND.fullmatch(name):
        fields["devices"] = (*fields.get("devices", ()), DeviceRequest(kind=name, count=int(number)))
    else:
        words.wrong(f"{name!r} is neither a kind of device (vf, gpu) nor a resource class", at)


PARTS: dict[str, Callable[[Words, dict[str, Any]], None]] = {
    "pages": _paged,
    "cells": _cells,
    "emulator": _emulator,
    "threads": _threads,
    "affinity": _affinity,
}
