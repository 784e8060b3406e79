"""Resource classes and traits of a flavor: what is asked for beside vCPUs, memory and disk, and what replaces those.

Rules of this file: what Nova's scheduler would ask Placement for is asked of the node, with three differences. A guest with cells has
the vCPUs and the memory of its cells, whatever resources:VCPU or resources:MEMORY_MB say, as one ledger has no second figure. Traits of
a group with resources are wanted of its units. Groups without traits are added up. Source: Nova 34, scheduler/utils.py ResourceRequest.
"""

from collections.abc import Mapping
from typing import NamedTuple

from earmark.core.flavor.groups import HYPERTHREADING, TRAIT, Groups, Wanted
from earmark.core.flavor.texts import Texts, invalid
from earmark.core.model.ids import ResourceClass, Trait
from earmark.core.model.request import DEVICE_REQUESTS_MAX, RESOURCES_MAX, DeviceRequest, ResourceAmount

OF_THE_NODE = ("VCPU", "PCPU", "MEMORY_MB", "DISK_GB")
"""Classes that a node has by itself; a request has figures of its own for them."""
AMOUNT_MAX = 1 << 40
UNITS_MAX = 1024


class Classes(NamedTuple):
    """Plain amounts, wishes for units of a class with traits of their own, and the traits wanted of the node."""

    resources: tuple[ResourceAmount, ...]
    units: tuple[DeviceRequest, ...]
    required: tuple[Trait, ...]
    forbidden: tuple[Trait, ...]


def read_classes(texts: Texts, groups: Groups, more: Mapping[str, int], traits: tuple[str, ...]) -> Classes:
    """Return what groups, image traits, and `more` amounts and required `traits` ask for; raises InvalidFlavor.

    `more` is another spelling of the same: it replaces amounts without a suffix, so that a guest has one context of encryption (V7).
    """
    _group_policy(texts, groups)
    plain: dict[str, int] = dict(more)
    units: list[DeviceRequest] = []
    wanted: dict[str, Wanted] = {}
    for suffix, group in groups.by_suffix.items():
        own = {name: amount for name, amount in group.amounts.items() if name not in OF_THE_NODE and amount}
        said = {name: want for name, want in group.traits.items() if name != HYPERTHREADING}
        if suffix and own and said:
            units += [_units(name, amount, said, suffix) for name, amount in own.items()]
            continue
        for name, amount in own.items():
            if suffix or name not in more:
                plain[name] = plain.get(name, 0) + amount
        for name, want in said.items():
            _want(wanted, name, want, f"trait{suffix}:{name}")
    for name in traits:
        _want(wanted, name, "required", f"trait:{name}")
    for name in _image_traits(texts):
        _want(wanted, name, "required", f"trait:{name} of the image")
    for name, amount in plain.items():
        if amount > AMOUNT_MAX:
            raise invalid("BeyondBounds", f"resources:{name}", amount, f"more than {AMOUNT_MAX}")
    if len(plain) > RESOURCES_MAX or len(units) > DEVICE_REQUESTS_MAX:
        why = f"more than {RESOURCES_MAX} resource classes"
        raise invalid("BeyondBounds", "resources:", f"{len(plain)} classes and {len(units)} with traits", why)
    return Classes(
        resources=tuple(ResourceAmount(resource_class=ResourceClass(name), amount=plain[name]) for name in sorted(plain)),
        units=tuple(units),
        required=tuple(Trait(name) for name in sorted(wanted) if wanted[name] == "required"),
        forbidden=tuple(Trait(name) for name in sorted(wanted) if wanted[name] == "forbidden"),
    )


def _units(name: str, amount: int, said: Mapping[str, Wanted], suffix: str) -> DeviceRequest:
    """Return the wish for units of a class that have traits: those of one group are one wish."""
    if amount > UNITS_MAX:
        raise invalid("BeyondBounds", f"resources{suffix}:{name}", amount, f"more than {UNITS_MAX} units with traits")
    return DeviceRequest(
        kind=f"class:{name}",
        count=amount,
        required_traits=tuple(Trait(trait) for trait in sorted(said) if said[trait] == "required"),
        forbidden_traits=tuple(Trait(trait) for trait in sorted(said) if said[trait] == "forbidden"),
    )


def _want(wanted: dict[str, Wanted], name: str, want: Wanted, key: str) -> None:
    """Note what is wanted of a trait; raises InvalidFlavor if the contrary is wanted already."""
    if wanted.setdefault(name, want) != want:
        raise invalid("InvalidRequest", key, want, f"it is {wanted[name]} elsewhere in the flavor or its image")


def _image_traits(texts: Texts) -> list[str]:
    """Return the traits that an image requires, in order; it cannot forbid one."""
    names = []
    for key, value in sorted(texts.image.items()):
        if not key.startswith("trait:"):
            continue
        name = key.removeprefix("trait:")
        if not TRAIT.fullmatch(name):
            raise invalid("ValidationError", f"{key} of the image", value, f"{name!r} is not a trait")
        if value != "required":
            raise invalid("ValidationError", f"{key} of the image", value, "an image can only require a trait")
        if name != HYPERTHREADING:
            names.append(name)
    return names


def _group_policy(texts: Texts, groups: Groups) -> None:
    """Raise InvalidFlavor if groups are to come from different providers, which a request cannot say."""
    policy = texts.specs.get("group_policy") or "none"
    if policy not in ("none", "isolate"):
        raise invalid("ValidationError", "group_policy", policy, "not one of none, isolate")
    suffixes = [suffix for suffix, group in groups.by_suffix.items() if suffix and any(group.amounts.values())]
    if policy == "isolate" and len(suffixes) > 1:
        why = f"{len(suffixes)} groups from different providers cannot be asked for"
        raise invalid("Unsupported", "group_policy", policy, why)
