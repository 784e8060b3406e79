"""Groups of resources and traits: resources:CLASS and trait:NAME, and the same with a suffix (resources1:, trait_GPU:).

Rules of this file: amounts and traits are collected here, what they mean is said elsewhere. The order of the keys does not matter.
Source: Nova 34, scheduler/utils.py ResourceRequest, which reads any suffix, as this file does; its virt/hardware.py knows only numbers.
"""

import re
from collections.abc import Mapping
from typing import Literal, NamedTuple, cast

from earmark.core.flavor.texts import Texts, invalid, whole
from earmark.core.model.ids import RESOURCE_CLASS
from earmark.errors import InvalidFlavor

KEY = re.compile(r"(resources|trait)([a-zA-Z0-9_-]{1,64})?:(.*)", re.DOTALL)
TRAIT = re.compile(r"[A-Z][A-Z0-9_]{0,254}")
HYPERTHREADING = "HW_CPU_HYPERTHREADING"
NOT_ASKED_FOR = ("MEMORY_BYTES", "DISK_BYTES", "PAGES")
"""Names that Earmark's own stocks have; no class of Placement is called so."""

Wanted = Literal["required", "forbidden"]


class Group(NamedTuple):
    """The amounts by class, and the traits with what is said of each, that belong together; an amount may be 0."""

    amounts: Mapping[str, int]
    traits: Mapping[str, Wanted]


class Groups(NamedTuple):
    """The groups of a flavor by suffix ("" for none), in order, and what is wrong with keys that could not be read."""

    by_suffix: Mapping[str, Group]
    faults: tuple[InvalidFlavor, ...]

    def total(self, name: str) -> int | None:
        """Return the sum of a class over all groups, None where none has it."""
        found = [group.amounts[name] for group in self.by_suffix.values() if name in group.amounts]
        return sum(found) if found else None

    def source(self, name: str) -> str:
        """Return the keys under which a class is asked for."""
        keys = [f"resources{suffix}:{name}" for suffix, group in self.by_suffix.items() if group.amounts.get(name)]
        return " + ".join(keys) or f"resources:{name}"


def read_groups(texts: Texts) -> Groups:
    """Return the groups of a flavor. Faults (ValidationError) are kept, as Nova passes over such keys and may name another first."""
    amounts: dict[str, dict[str, int]] = {}
    traits: dict[str, dict[str, Wanted]] = {}
    faults = []
    for key, value in sorted(texts.specs.items()):
        match = KEY.fullmatch(key)
        if match is None:
            continue
        suffix, name = match[2] or "", match[3]
        try:
            if match[1] == "resources":
                amounts.setdefault(suffix, {})[name] = _amount(name, value, key)
            else:
                traits.setdefault(suffix, {})[name] = _wanted(name, value, key)
        except InvalidFlavor as fault:
            faults.append(fault)
    groups = {suffix: Group(amounts.get(suffix, {}), traits.get(suffix, {})) for suffix in sorted({*amounts, *traits})}
    return Groups(groups, tuple(faults))


def _amount(name: str, value: str, key: str) -> int:
    if not RESOURCE_CLASS.fullmatch(name) or name in NOT_ASKED_FOR:
        raise invalid("ValidationError", key, value, f"{name!r} is not a resource class")
    return whole(value, key, "ValidationError")


def _wanted(name: str, value: str, key: str) -> Wanted:
    if not TRAIT.fullmatch(name):
        raise invalid("ValidationError", key, value, f"{name!r} is not a trait")
    if value not in ("required", "forbidden"):
        raise invalid("ValidationError", key, value, "a trait is required or forbidden")
    return cast("Wanted", value)
