"""The file that `--flavor` names: a flavor with its image, how it boots, and the PCI aliases, in YAML or JSON.

Rules of this file: both forms give the same; numbers and truth values are the texts that Nova keeps of them. A file that begins with {
is JSON and needs no PyYAML. What is not known is an error with its path.
"""

import re
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta

from earmark.core.flavor.affinity import AFFINITIES
from earmark.core.flavor.alias import ALIASES_MAX, PciAlias
from earmark.core.flavor.flavor import Flavor, Image
from earmark.core.flavor.texts import truth
from earmark.core.flavor.translate import translate
from earmark.core.flavor.unread import unread
from earmark.core.model.request import Request
from earmark.core.model.value import Value
from earmark.drivers.plain_json import read_plain
from earmark.errors import InvalidRecord

SHOWN_MAX = 8
"""How many keys a note names."""
PLACE = re.compile(r" - at `([^`]*)`$")
UNKNOWN = re.compile(r"unknown field `([^`]*)`")


class FlavorFile(Value, frozen=True):
    """What one guest is made of; `boot_from_volume` says that its root disk is a volume."""

    flavor: Flavor
    image: Image | None = None
    boot_from_volume: bool = False
    aliases: Annotated[tuple[PciAlias, ...], Meta(max_length=ALIASES_MAX)] = ()


class ReadFlavor(NamedTuple):
    """The request that a flavor file describes, and what a person should know of the file."""

    request: Request
    notes: tuple[str, ...]


def read_flavor(raw: bytes, source: str) -> ReadFlavor:
    """Return what a flavor file describes; raises InvalidRecord for its form, InvalidFlavor for what it says."""
    file = read_file(raw, source)
    request = translate(file.flavor, file.image, boot_from_volume=file.boot_from_volume, aliases=file.aliases)
    passed = unread(file.flavor, file.image, request)
    shown = ", ".join(passed[:SHOWN_MAX]) + (", …" if len(passed) > SHOWN_MAX else "")
    return ReadFlavor(request, (f"flavor {source}: passed over, as no request depends on it: {shown}",) if passed else ())


def read_file(raw: bytes, source: str) -> FlavorFile:
    """Return what a flavor file holds; raises InvalidRecord."""
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidRecord(f"flavor {source}: is not UTF-8: {error.reason}", source=source) from error
    is_json = text.lstrip().startswith("{")
    if is_json:
        plain = _read_json(text, source)
    else:
        from earmark.drivers.plain_yaml import read_yaml  # noqa: PLC0415 - YAML is loaded only where it is read

        plain = read_yaml(text, source)
    if isinstance(plain, dict) and isinstance(said := plain.get("boot_from_volume"), str):
        plain = plain | {"boot_from_volume": truth(said, "boot_from_volume")}
    try:
        return msgspec.convert(plain, FlavorFile, strict=False)
    except msgspec.ValidationError as error:
        said, path = _explained(str(error), plain)
        if is_json:
            raise InvalidRecord(f"flavor {source}: {said}", source=source) from error
        from earmark.drivers.plain_yaml import place_in  # noqa: PLC0415 - as above

        line, column = place_in(text, path)
        raise InvalidRecord(f"{source}:{line}:{column}: {said}", source=source) from error


def _explained(said: str, plain: Any) -> tuple[str, str]:
    """Return msgspec's words with what they leave out, which fields there are and the key of a value that is no text; and the path."""
    match, unknown = PLACE.search(said), UNKNOWN.search(said)
    path = match[1] if match is not None else "$"
    if unknown is not None:
        there = {"$": FlavorFile, "$.flavor": Flavor, "$.image": Image}.get(path, PciAlias)
        return f"{said}; there are: {', '.join(there.__struct_fields__)}", f"{path}.{unknown[1]}"
    if "Invalid enum value" in said:
        return f"{said}; there are: {', '.join(AFFINITIES)}", path
    if path.endswith("[...]"):
        texts = plain["image"]["properties"] if path.startswith("$.image") else plain["flavor"]["extra_specs"]
        key = next(key for key, value in texts.items() if not isinstance(value, str))
        return said.replace("[...]", f"[{key!r}]"), path.replace("...", f"'{key}'")
    return said, path


def _read_json(text: str, source: str) -> Any:
    try:
        return _texts(read_plain(text, parse_float=str))
    except (ValueError, RecursionError) as error:
        raise InvalidRecord(f"flavor {source}: is not JSON: {error}", source=source) from error


def _texts(value: Any) -> Any:
    """Return JSON with its numbers and truth values as texts."""
    if isinstance(value, dict):
        return {key: _texts(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_texts(each) for each in value]
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int) else value
