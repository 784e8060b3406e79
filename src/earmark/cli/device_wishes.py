"""The devices of a request as a command line asks for them: `--gpus`, `--gpu-memory`, `--linked`, `--gpu`, `--gpu-share`, `--device`.

Rules of this file: a wish is parsed once, strictly, and names no device of the machine that the user has not named.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, cast, get_args

from earmark.core.model import ids
from earmark.core.model.request import DEVICE_REQUESTS_MAX, Affinity, DeviceRequest
from earmark.core.model.topology import MIG
from earmark.core.model.units import THOUSAND, parse_bytes
from earmark.errors import InvalidRequest

COUNT_MAX = 1024
GPU = "gpu"
MEMORY = "memory"
NUMBER = re.compile(r"[0-9]{1,5}")
FRACTION = re.compile(r"([01])\.([0-9]{1,3})")
KIND = re.compile(r"[a-z][a-z0-9_-]{0,31}")
KEY = re.compile(r"[a-z][a-z0-9_]{0,63}")
MIG_NAME = re.compile(r"(gpu:)?MIG-.*")
PAIRS_MAX = 32
WITHIN = "within"
HEX_ID = re.compile(r"[0-9a-f]{4}")
DEV_TYPES = ("PCI", "PF", "VF", "VDPA")


def device_wishes(words: Mapping[str, Any]) -> tuple[DeviceRequest, ...]:
    """Return the devices that options ask for; `words` are the options by name. Raises InvalidRequest."""
    wishes = (
        *gpu_wishes(words["gpus"], words["gpu"], words["gpu_share"], words["gpu_memory"], linked=bool(words["linked"])),
        *map(parse_device, words["device"]),
    )
    if len(wishes) > DEVICE_REQUESTS_MAX:
        raise InvalidRequest(f"{len(wishes)} requests for devices, at most {DEVICE_REQUESTS_MAX} can be made", found=len(wishes))
    return wishes


def gpu_wishes(
    count: int | None, names: tuple[str, ...], share: str | None, memory: str | None = None, *, linked: bool
) -> tuple[DeviceRequest, ...]:
    """Return the wish for GPUs: `count` of them, all that are named, or `count` of those named; raises InvalidRequest.

    A name is that of a whole GPU or of an instance (MIG-…); with an instance's name instances are asked for.
    """
    units = tuple(dict.fromkeys(gpu_unit(name) for name in names))
    cut = [unit for unit in units if MIG_NAME.fullmatch(unit)]
    if cut and len(cut) < len(units):
        raise InvalidRequest(
            "--gpu names whole GPUs and instances: ask for them in separate claims, or with --request FILE", found=list(units)
        )
    number = (1 if share is not None else len(units)) if count is None else count
    if share is not None and number != 1:
        raise InvalidRequest(f"--gpu-share is a part of one GPU, and --gpus {number} are asked for", found=number)
    if units and not 1 <= number <= len(units):
        raise InvalidRequest(f"--gpus {number} of the {len(units)} that --gpu names cannot be given", found=number)
    if linked and number < 2:  # noqa: PLR2004 - one GPU is linked to nothing
        raise InvalidRequest("--linked is about several GPUs: say --gpus 2, or name them with --gpu", found=number)
    if memory is not None and not number:
        raise InvalidRequest("--gpu-memory is about GPUs that are asked for: say --gpus 1 beside it", found=memory)
    if not number:
        return ()
    memory_bytes = None if memory is None else parse_memory(memory, "--gpu-memory")
    thousandths = None if share is None else parse_share(share)
    kind = MIG if cut else GPU
    return (DeviceRequest(kind=kind, count=number, linked=linked, share=thousandths, within=units, memory_bytes=memory_bytes),)


def gpu_unit(name: str) -> ids.UnitId:
    """Return the unit of a GPU that is named by its UUID (GPU-…, MIG-…, amd-…) or by its whole unit (pci:…); raises InvalidRequest."""
    text = name if name.startswith(("gpu:", "pci:")) else f"gpu:{name}"
    if not name or name.isdigit() or not ids.UNIT.fullmatch(text):
        raise InvalidRequest(f"--gpu {name!r} is not a GPU's name: a UUID such as GPU-8e94…, or a unit as earmark shows it is", found=name)
    return ids.UnitId(text)


def parse_share(text: str) -> int:
    """Return the thousandths in "0.25" or "250"; raises InvalidRequest. A bare "1" could be either and is neither."""
    fraction = FRACTION.fullmatch(text)
    if fraction is not None:
        thousandths = int(fraction[1]) * THOUSAND + int(fraction[2].ljust(3, "0"))
    else:
        thousandths = int(text) if NUMBER.fullmatch(text) and text != "1" else 0
    if not 1 <= thousandths <= THOUSAND:
        raise InvalidRequest(f"--gpu-share {text!r} is not a part of a GPU: 0.25, or 250 of 1000, is; 1.0 is all of it", found=text)
    return thousandths


def parse_memory(text: str, what: str) -> int:
    """Return the bytes that each device has at least, in "40GiB" or "40G"; raises InvalidRequest, also for none at all."""
    size = parse_bytes(text, what=what)
    if not size:
        raise InvalidRequest(f"{what} {text!r} asks for no memory: leave it away", found=text)
    return size


def parse_device(text: str) -> DeviceRequest:
    """Return the wish in "vf=2", "gpu=2,memory=40GiB" or "vf=2,vendor_id=8086,physical_network=net1:required"; raises InvalidRequest.

    A kind and a number, what each device must match, and behind the last colon how near it must be, if that is an affinity: addresses have
    colons too. `memory` is the least that each has; `within`, which may stand several times, names a device, or one whose children are meant.
    """
    rest, colon, word = text.rpartition(":")
    near = colon and word in get_args(Affinity)
    first, *pairs = (rest if near else text).split(",")
    kind, equals, number = first.partition("=")
    if not KIND.fullmatch(kind) or (equals and not NUMBER.fullmatch(number)) or not 1 <= int(number or "1") <= COUNT_MAX:
        raise InvalidRequest(f"--device {text!r} is not a kind and a number up to {COUNT_MAX}: gpu=2 is{_named(text)}", found=text)
    match: dict[str, str] = {}
    within: list[ids.UnitId] = []
    for pair in pairs:
        key, _, value = pair.partition("=")
        if key == WITHIN and ids.UNIT.fullmatch(value) and len(pairs) <= PAIRS_MAX:
            within.append(ids.UnitId(value))
            continue
        if key == WITHIN or not KEY.fullmatch(key) or not value or not value.isprintable() or key in match or len(pairs) > PAIRS_MAX:
            raise InvalidRequest(f"--device {text!r}: {pair!r} is not KEY=VALUE, each key once: vendor_id=10de is", found=pair)
        match[key] = _spelt(key, value)
    memory = match.pop(MEMORY, None)
    return DeviceRequest(
        kind=kind,
        count=int(number or "1"),
        match=(match,) if match else (),
        within=tuple(dict.fromkeys(within)),
        affinity=cast("Affinity", word) if near else None,
        memory_bytes=None if memory is None else parse_memory(memory, f"--device {kind}: {MEMORY}"),
    )


def _named(text: str) -> str:
    """Return how one device is asked for, for who has written its name in place of a kind."""
    unit = text.partition("=")[0].partition(",")[0]
    return f", or a kind and within={unit}" if ":" in unit and ids.UNIT.fullmatch(unit) else ""


def _spelt(key: str, value: str) -> str:
    """Return what a device must match as devices have it: ids without 0x, types as PF; raises InvalidRequest for what none can have."""
    if key == "dev_type":
        value = value.upper().removeprefix("TYPE-")
        if value not in DEV_TYPES:
            raise InvalidRequest(f"--device: dev_type {value!r} is none of {', '.join(DEV_TYPES)}", found=value)
    elif key in ("vendor_id", "product_id"):
        value = value.lower().removeprefix("0x")
        if not HEX_ID.fullmatch(value):
            raise InvalidRequest(f"--device: {key} {value!r} is not four hexadecimal digits", found=value)
    return value
