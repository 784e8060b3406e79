"""What the tests of flavors share: a flavor in one line, the kind of an error, the judge of ../shared, and random requests."""

from __future__ import annotations

import importlib.util
import random
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from earmark.core.fit.guest import guest_of, is_bound
from earmark.core.flavor.affinity import pci_affinity
from earmark.core.flavor.alias import PciAlias
from earmark.core.flavor.flavor import Flavor, Image
from earmark.core.flavor.translate import translate
from earmark.core.model.request import Request
from earmark.core.model.units import MIB
from earmark.errors import InvalidFlavor

Texts = Mapping[str, str]


def made(specs: Texts, image: Texts | None = None, *, vcpus: int = 4, memory_mb: int = 4096, **more: Any) -> Request:
    """Return the request for a flavor of four vCPUs and 4 GiB with some extra specs and image properties."""
    aliases: tuple[PciAlias, ...] = more.pop("aliases", ())
    from_volume: bool = more.pop("boot_from_volume", False)
    flavor = Flavor(vcpus=vcpus, memory_mb=memory_mb, extra_specs=dict(specs), **more)
    return translate(flavor, None if image is None else Image(properties=dict(image)), boot_from_volume=from_volume, aliases=aliases)


def kind_of(specs: Texts, image: Texts | None = None, **more: Any) -> str | None:
    """Return the kind of the error that some texts lead to, None for none."""
    try:
        made(specs, image, **more)
    except InvalidFlavor as error:
        return error.kind
    return None


def judge(shared: Path) -> ModuleType:
    """Return ../shared/oracle/fit_check.py as a module."""
    spec = importlib.util.spec_from_file_location("fit_check", shared / "oracle" / "fit_check.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def as_read(check: ModuleType, request: dict[str, Any]) -> object:
    """Return what the judge reads in a request of a case: the name of an error, or the guest in plain values."""
    try:
        guest = check.read_request(request)
    except check.Refused as refused:
        return str(refused)
    if guest.cells is None:
        return None, guest.affinity
    cells = [
        (sorted(cell["dedicated"]), sorted(cell["shared"]), cell["memory_mb"], int(number == 0 and guest.emulator == "isolate"))
        for number, cell in enumerate(guest.cells)
    ]
    return cells, guest.policy or "shared", guest.threads, guest.emulator, guest.page, guest.affinity


def as_translated(request: dict[str, Any]) -> object:
    """Return the same of what `translate` makes of it."""
    flavor = Flavor(vcpus=request["vcpus"], memory_mb=request["memory_mb"], extra_specs=request["extra_specs"])
    image = Image(properties=request["image_properties"])
    try:
        wish = translate(flavor, image)
    except InvalidFlavor as error:
        return error.kind
    affinity = pci_affinity(flavor, image)
    if not is_bound(wish):
        return None, affinity
    guest = guest_of(wish)
    cells = [(list(cell.dedicated), list(cell.shared), cell.memory_bytes // MIB, cell.emulator) for cell in guest.cells]
    return cells, guest.policy, guest.threads, wish.emulator_policy, wish.page_kib, affinity


LISTS = ("0", "1", "0-1", "2-3", "0-3", "^0", "^0-1", "0,2", "^3", "", "0-3,^1", "3-1", "x", "4", "0-7", "1-2,,3", " 0 - 1 ", "^0-3", ",")
SPECS: dict[str, tuple[str, ...]] = {
    "hw:cpu_policy": ("shared", "dedicated", "mixed", "dedicated", "mixed", "pinned", ""),
    "hw:cpu_thread_policy": ("prefer", "isolate", "require", "own", ""),
    "hw:emulator_threads_policy": ("share", "isolate", "off", ""),
    "hw:cpu_realtime": ("yes", "true", "no", "0", "1", ""),
    "hw:cpu_realtime_mask": LISTS,
    "hw:cpu_dedicated_mask": LISTS,
    "hw:numa_nodes": ("1", "2", "2", "2", "3", "4", "0", "-1", "two", "1.5", ""),
    "hw:mem_page_size": (
        "small",
        "large",
        "any",
        "large",
        "any",
        "2048",
        "4",
        "2MB",
        "1GB",
        "1 GB",
        "2MiB",
        "0.5GB",
        ".5MB",
        "8Kb",
        "9Kbit",
        "x",
        "",
    ),
    "hw:locked_memory": ("true", "false", "1", "no"),
    "hw:pci_numa_affinity_policy": ("required", "preferred", "legacy", "socket", "near", ""),
    "resources:VCPU": ("4", "0", "2"),
    "resources:PCPU": ("4", "5", "0", "3"),
    "resources1:PCPU": ("4", "1", "2"),
    "trait:HW_CPU_HYPERTHREADING": ("required", "forbidden"),
}
"""Extra specs that the judge reads too, and values for them, wrong ones among them."""
PROPERTIES: dict[str, tuple[str, ...]] = {
    "hw_cpu_policy": ("shared", "dedicated", "mixed", "none"),
    "hw_cpu_thread_policy": ("prefer", "isolate", "require", "x"),
    "hw_cpu_realtime_mask": ("0", "^0", "0-3", "9"),
    "hw_numa_nodes": ("1", "2", "2", "3", "4", "x"),
    "hw_mem_page_size": ("small", "large", "any", "2048", "2MB", "x"),
    "hw_locked_memory": ("true", "false"),
    "hw_pci_numa_affinity_policy": ("required", "preferred", "legacy", "socket", "near"),
    "trait:HW_CPU_HYPERTHREADING": ("required",),
}
SHAPES = (
    (("0-1", "2-3"), ("2048", "2048")),
    (("0", "1-3"), ("1024", "3072")),
    (("0-3", ""), ("2048", "2048")),
    (("0-1", "1-3"), ("2048", "2048")),
    (("0-1", "2-4"), ("2048", "2048")),
    (("0-1", "2"), ("2048", "2048")),
    (("0-1", "2-3"), ("2048", "1024")),
    (("0-1", "2-3"), ("2048",)),
    (("0-3",), ("4096",)),
    (("0", "1", "2-3"), ("1024", "1024", "2048")),
)
"""The vCPUs and the memory of each guest cell, right and wrong ones, for four vCPUs and 4096 MiB."""


def random_request(dice: random.Random) -> dict[str, Any]:
    """Return a request of a case: sensible texts with up to two random ones put over them, about half valid, or random ones only."""
    specs: dict[str, str] = {}
    image: dict[str, str] = {}
    if dice.random() < 0.8:
        _sensible(dice, specs, image)
        for _ in range(dice.choice((0, 0, 1, 1, 2))):
            side, pool = (specs, SPECS) if dice.random() < 0.7 else (image, PROPERTIES)
            key = dice.choice(sorted(pool))
            side[key] = dice.choice(pool[key])
    else:
        specs |= {key: dice.choice(values) for key, values in SPECS.items() if dice.random() < 0.2}
        image |= {key: dice.choice(values) for key, values in PROPERTIES.items() if dice.random() < 0.08}
    if dice.random() < 0.35:
        _listed(dice, specs, image)
    vcpus = 4 if dice.random() < 0.9 else dice.choice((1, 2, 3, 6, 8))
    memory = 4096 if dice.random() < 0.9 else dice.choice((1, 4095, 6144))
    return {"vcpus": vcpus, "memory_mb": memory, "extra_specs": specs, "image_properties": image}


def _sensible(dice: random.Random, specs: dict[str, str], image: dict[str, str]) -> None:
    """Add texts that go together."""
    policy = dice.choice(("", "shared", "dedicated", "dedicated", "mixed", "mixed", "resources"))
    if policy == "resources":
        specs["hw:emulator_threads_policy"] = dice.choice(("isolate", "share", ""))
        specs["resources:PCPU"] = "5" if specs["hw:emulator_threads_policy"] == "isolate" else "4"
    elif policy:
        _said(dice, specs, image, "cpu_policy", policy)
    if policy not in ("", "shared"):
        specs["hw:emulator_threads_policy"] = specs.get("hw:emulator_threads_policy") or dice.choice(("isolate", "share", ""))
        if dice.random() < 0.6:
            specs["hw:cpu_thread_policy"] = dice.choice(("prefer", "isolate", "require"))
        if dice.random() < 0.3:
            specs |= {"hw:cpu_realtime": "yes", "hw:cpu_realtime_mask": dice.choice(("^0", "1-2", "0"))}
        elif policy == "mixed":
            specs["hw:cpu_dedicated_mask"] = dice.choice(("0", "^0", "0-2", "1,3", "^1-2"))
    if dice.random() < 0.5:
        _said(dice, specs, image, "numa_nodes", dice.choice("124"))
    if dice.random() < 0.5:
        specs["hw:mem_page_size"] = dice.choice(("large", "any", "small", "2048", "1GB"))
        if specs["hw:mem_page_size"] in ("large", "any") and dice.random() < 0.5:
            image["hw_mem_page_size"] = dice.choice(("2MB", "2048", "large", "1048576"))


def _said(dice: random.Random, specs: dict[str, str], image: dict[str, str], name: str, text: str) -> None:
    """Let the flavor say something, or now and then the image."""
    if dice.random() < 0.75:
        specs["hw:" + name] = text
    else:
        image["hw_" + name] = text


def _listed(dice: random.Random, specs: dict[str, str], image: dict[str, str]) -> None:
    """Add the vCPUs and the memory of each cell, now and then with one of them left out."""
    cpus, mems = dice.choice(SHAPES)
    side, sign, other = (specs, "hw:", image) if dice.random() < 0.7 else (image, "hw_", specs)
    side |= {f"{sign}numa_cpus.{number}": text for number, text in enumerate(cpus) if dice.random() < 0.98}
    side |= {f"{sign}numa_mem.{number}": text for number, text in enumerate(mems) if dice.random() < 0.98}
    if dice.random() < 0.1:
        other |= {f"{'hw_' if sign == 'hw:' else 'hw:'}numa_mem.0": "4096"}
    if "hw_numa_nodes" not in image:
        specs["hw:numa_nodes"] = str(len(cpus))
