"""PCI aliases: names under which flavors ask for devices (P17), and pci_passthrough:alias, where they do.

Rules of this file: definitions of one name are alternatives; they agree in type, policy, class and traits, and a missing type is no trap
(W41). An alias becomes a wish for devices of kind pci, or of its resource class. Source: Nova 34, pci/request.py, pci/devspec.py (P18).
"""

import re
from collections.abc import Iterable, Mapping
from typing import Annotated

from msgspec import Meta

from earmark.core.flavor.texts import Texts, invalid, truth
from earmark.core.model.ids import RESOURCE_CLASS, Trait
from earmark.core.model.request import DEVICE_REQUESTS_MAX, Affinity, DeviceRequest
from earmark.core.model.value import Value
from earmark.errors import InvalidFlavor

ALIAS_KEY = "pci_passthrough:alias"
ALIASES_MAX = 1024
ALTERNATIVES_MAX = 64
COUNT_MAX = 1024
HEX_ID = re.compile(r"[0-9a-fA-F]{4}")
TYPES = {"pci": "PCI", "pf": "PF", "vf": "VF", "vdpa": "VDPA"}
ADDRESS = re.compile(r"([0-9a-fA-F]{1,8}):([0-9a-fA-F]{1,4}):([0-9a-fA-F]{1,4})\.([0-9a-fA-F]{1,2})")
ADDRESS_LIMITS = (("domain", 0xFFFF), ("bus", 0xFF), ("slot", 0x1F), ("function", 0x7))
"""The parts of a PCI address and the highest number of each (P18)."""
TRAIT = re.compile(r"[A-Z][A-Z0-9_]{0,254}")
COUNT = re.compile(r"[0-9]{1,9}")


class PciAlias(Value, frozen=True):
    """One definition of a name, as in Nova's [pci]alias: which devices answer it, and how near they must be.

    `device_type` is PCI, PF, VF or VDPA (type-PF and the like mean the same); without it any but PF and VDPA answers. Ids are four
    hexadecimal digits; both are needed unless a `resource_class` is named. `address` names one device, or the function whose children
    answer. `numa_policy` is legacy if it is not said. `traits` are texts, or one text with commas as Nova writes them.
    """

    name: Annotated[str, Meta(min_length=1, max_length=256)]
    vendor_id: str | None = None
    product_id: str | None = None
    device_type: str | None = None
    address: str | None = None
    numa_policy: Affinity | None = None
    resource_class: str | None = None
    traits: tuple[str, ...] | str = ()
    live_migratable: bool | str | None = None
    capability_type: str | None = None


def defined(aliases: Iterable[PciAlias]) -> dict[str, tuple[PciAlias, ...]]:
    """Return the definitions by name, those of one name being alternatives; raises InvalidFlavor (PciInvalidAlias)."""
    by_name: dict[str, list[PciAlias]] = {}
    for number, alias in enumerate(aliases):
        if number >= ALIASES_MAX:
            raise _wrong(alias, "name", alias.name, f"more than {ALIASES_MAX} aliases are defined")
        _check(alias)
        others = by_name.setdefault(alias.name, [])
        others.append(alias)
        first = others[0]
        for what, one, two in (
            ("device_type", _type(first), _type(alias)),
            ("numa_policy", first.numa_policy or "legacy", alias.numa_policy or "legacy"),
            ("resource_class", first.resource_class, alias.resource_class),
            ("traits", _traits(first), _traits(alias)),
        ):
            if one != two:
                raise _wrong(alias, what, two, f"another definition of the name says {one!r}: they must be equal")
        if len(others) > ALTERNATIVES_MAX:
            raise _wrong(alias, "name", alias.name, f"more than {ALTERNATIVES_MAX} alternatives")
    return {name: tuple(each) for name, each in by_name.items()}


def alias_requests(texts: Texts, names: Mapping[str, tuple[PciAlias, ...]], affinity: Affinity | None) -> tuple[DeviceRequest, ...]:
    """Return the devices that pci_passthrough:alias asks for ("a:2,b:1"), in its order; `affinity` replaces each alias's policy.

    Raises InvalidFlavor: PciRequestAliasNotDefined for a name without a definition, PciInvalidAlias for what cannot be read.
    """
    text = texts.specs.get(ALIAS_KEY) or ""
    parts = [part.strip() for part in text.split(",")] if text.strip() else []
    if len(parts) > DEVICE_REQUESTS_MAX:
        raise invalid("BeyondBounds", ALIAS_KEY, text, f"more than {DEVICE_REQUESTS_MAX} names")
    requests = []
    for part in parts:
        name, colon, number = (each.strip() for each in part.rpartition(":"))
        if not colon or not COUNT.fullmatch(number) or not 1 <= int(number) <= COUNT_MAX:
            raise invalid("PciInvalidAlias", ALIAS_KEY, text, f"{part!r} is not NAME:COUNT with a count from 1 to {COUNT_MAX}")
        if name not in names:
            known = ", ".join(sorted(names)[:8]) or "none"
            raise invalid("PciRequestAliasNotDefined", ALIAS_KEY, text, f"no alias {name!r} is defined; there are: {known}")
        requests.append(_request(name, int(number), names[name], affinity))
    return tuple(requests)


def _request(name: str, count: int, alternatives: tuple[PciAlias, ...], affinity: Affinity | None) -> DeviceRequest:
    first = alternatives[0]
    match = tuple(_keys(each) for each in alternatives)
    return DeviceRequest(
        kind="pci" if first.resource_class is None else f"class:{first.resource_class}",
        count=count,
        match=match if all(match) else (),
        affinity=affinity or first.numa_policy or "legacy",
        required_traits=_traits(first),
        alias=name,
    )


def _keys(alias: PciAlias) -> dict[str, str]:
    """Return the keys that a device must have for one alternative."""
    keys = {
        "dev_type": _type(alias),
        "vendor_id": alias.vendor_id and alias.vendor_id.lower(),
        "product_id": alias.product_id and alias.product_id.lower(),
        "address": None if alias.address is None else whole_address(alias.address),
        "live_migratable": "true" if _live(alias) else None,
    }
    return {key: value for key, value in keys.items() if value is not None}


def whole_address(text: str) -> str | None:
    """Return a PCI address with all its digits ("0:3:0.1" is 0000:03:00.1), None if it is none or a part is out of range (P18)."""
    match = ADDRESS.fullmatch(text)
    parts = [int(part, 16) for part in match.groups()] if match else []
    if not parts or any(part > most for part, (_, most) in zip(parts, ADDRESS_LIMITS, strict=True)):
        return None
    domain, bus, slot, function = parts
    return f"{domain:04x}:{bus:02x}:{slot:02x}.{function:x}"


def _check(alias: PciAlias) -> None:
    """Raise InvalidFlavor (PciInvalidAlias) if a definition is wrong by itself."""
    for what, text in (("vendor_id", alias.vendor_id), ("product_id", alias.product_id)):
        if text is not None and not HEX_ID.fullmatch(text):
            raise _wrong(alias, what, text, "not four hexadecimal digits")
        if text is None and alias.resource_class is None:
            raise _wrong(alias, what, text, "needed, unless a resource_class is named")
    _type(alias)
    _live(alias)
    if alias.address is not None and whole_address(alias.address) is None:
        ranges = ", ".join(f"{part} up to {most:x}" for part, most in ADDRESS_LIMITS)
        raise _wrong(alias, "address", alias.address, f"not a PCI address: {ranges}")
    if alias.resource_class is not None and not RESOURCE_CLASS.fullmatch(alias.resource_class):
        raise _wrong(alias, "resource_class", alias.resource_class, f"not a resource class: is it {_custom(alias.resource_class)}?")
    for trait in _traits(alias):
        if not TRAIT.fullmatch(trait):
            raise _wrong(alias, "traits", trait, f"not a trait: is it {_custom(trait)}?")


def _type(alias: PciAlias) -> str | None:
    """Return the PCI type as matching knows it, None where any will do."""
    if alias.device_type is None:
        return None
    word = alias.device_type.lower().removeprefix("type-")
    if word not in TYPES:
        raise _wrong(alias, "device_type", alias.device_type, f"not one of {', '.join(TYPES.values())}")
    return TYPES[word]


def _traits(alias: PciAlias) -> tuple[Trait, ...]:
    """Return the traits of a definition, each once and in order."""
    texts = alias.traits.split(",") if isinstance(alias.traits, str) else alias.traits
    return tuple(sorted({Trait(text.strip()) for text in texts if text.strip()}))


def _custom(text: str) -> str:
    """Return the name of Placement that Nova makes of any text."""
    name = re.sub(r"[^A-Z0-9_]+", "_", text.upper())
    return name if name.startswith("CUSTOM_") else f"CUSTOM_{name}"


def _live(alias: PciAlias) -> bool:
    """Return whether only devices are wanted that can be moved while the guest runs."""
    said = alias.live_migratable
    return bool(truth(said or None, f"alias {alias.name!r}: live_migratable", "PciInvalidAlias") if isinstance(said, str) else said)


def _wrong(alias: PciAlias, what: str, found: object, why: str) -> InvalidFlavor:
    return invalid("PciInvalidAlias", f"alias {alias.name!r}: {what}", found, why)
