"""Reads a device policy file: what a node may hand out, as what, and what else there is by name. YAML, JSON or TOML, by the file's ending.

Rules of this file: all three forms mean the same and are checked as strictly; size, depth and repetition are bounded; what is not understood
is an error that names the file and the place. Nobody but root or the user may be able to write the file.
"""

import json
import os
import re
import stat
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from earmark.core.fit.devices.policy import check_policy
from earmark.core.model.device_rule import NAMED_MAX, RULES_MAX, DeviceRule, NamedResource
from earmark.core.model.ids import ResourceClass
from earmark.core.model.node import NetworkCells, NodeSettings
from earmark.core.model.topology import CELLS_MAX, Machine
from earmark.core.model.value import Value
from earmark.drivers.plain_json import read_plain
from earmark.errors import InvalidRecord, InvalidRequest

FILE_BYTES_MAX = 1024 * 1024
NETWORKS_MAX = 1024
NETWORK_LETTERS_MAX = 100
ENDINGS = {".yaml": "YAML", ".yml": "YAML", ".json": "JSON", ".toml": "TOML"}
PLACE = re.compile(r" - at `([^`]*)`$")
RULE = re.compile(r"^device rule ([0-9]+)")

Name = Annotated[str, Meta(min_length=1, max_length=NETWORK_LETTERS_MAX)]
CellNumber = Annotated[int, Meta(ge=0, lt=1 << 31)]
Cells = Annotated[tuple[CellNumber, ...], Meta(max_length=CELLS_MAX)]


class NamedThing(Value, frozen=True):
    """A named resource that lies on a cell; one that does not is its name alone."""

    name: Name
    cell: CellNumber | None = None


class PolicyFile(Value, frozen=True):
    """What a device policy file says, in the file's own form."""

    version: Literal[1, "1"]
    rules: Annotated[tuple[DeviceRule, ...], Meta(max_length=RULES_MAX)] = ()
    named_resources: dict[str, Annotated[tuple[NamedThing | Name, ...], Meta(max_length=NAMED_MAX)]] = msgspec.field(default_factory=dict)
    network_cells: Annotated[dict[Name, Cells], Meta(max_length=NETWORKS_MAX)] = msgspec.field(default_factory=dict)
    tunnel_cells: Cells | None = None
    keep_iommu_groups: bool = False


class DevicePolicy(NamedTuple):
    """A device policy: all that a file says of a node's settings."""

    rules: tuple[DeviceRule, ...]
    named_resources: tuple[NamedResource, ...]
    network_cells: tuple[NetworkCells, ...]
    keep_iommu_groups: bool

    def over(self, settings: NodeSettings) -> NodeSettings:
        """Return settings with this policy in the place of the one they had: what the file does not say is not said any more."""
        return replace(
            settings, device_rules=self.rules, named_resources=self.named_resources, network_cells=self.network_cells,
            keep_iommu_groups=self.keep_iommu_groups,
        )  # fmt: skip


def read_device_policy(path: Path) -> DevicePolicy:
    """Return what a device policy file says; raises InvalidRecord with the file and the place of what is wrong."""
    source = str(path)
    form = ENDINGS.get(path.suffix.lower())
    if form is None:
        raise InvalidRecord(f"{source}: a device policy file ends in one of {', '.join(ENDINGS)}", file=source)
    text = _text(path)
    plain = _parsed(text, source, form)
    try:
        said = msgspec.convert(plain, PolicyFile, strict=form != "YAML")
        policy = _policy(said)
        check_policy(Machine(), policy.over(NodeSettings()), strict=False)
    except msgspec.ValidationError as error:
        raise _located(str(error), text, source, form) from error
    except InvalidRequest as error:
        number = RULE.match(error.message)
        path_of = f"$.rules[{int(number[1]) - 1}]" if number else "$.named_resources"
        raise _located(f"{error.message} - at `{path_of}`", text, source, form) from error
    return policy


def _policy(said: PolicyFile) -> DevicePolicy:
    named = []
    for name, things in said.named_resources.items():
        for thing in things:
            one = NamedThing(name=thing) if isinstance(thing, str) else thing
            named.append(NamedResource(resource_class=ResourceClass(name), name=one.name, cell=one.cell))
    networks = [NetworkCells(network=name, cells=tuple(sorted(set(cells)))) for name, cells in sorted(said.network_cells.items())]
    if said.tunnel_cells is not None:
        networks.insert(0, NetworkCells(network="", cells=tuple(sorted(set(said.tunnel_cells)))))
    return DevicePolicy(said.rules, tuple(named), tuple(networks), said.keep_iommu_groups)


# --- the file -----------------------------------------------------------------------------------------------------------------------


def _text(path: Path) -> str:
    """Return the text of a regular file that nobody else can write; raises InvalidRecord."""
    source = str(path)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except (OSError, ValueError) as error:
        raise InvalidRecord(f"{source}: cannot be read: {getattr(error, 'strerror', None) or error}", file=source) from error
    try:
        _check_owner(os.fstat(descriptor), source)
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            raw = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise InvalidRecord(f"{source}: cannot be read: {error.strerror}", file=source) from error
    finally:
        os.close(descriptor)
    if len(raw) > FILE_BYTES_MAX:
        raise InvalidRecord(f"{source}: is larger than {FILE_BYTES_MAX} bytes", file=source)
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise InvalidRecord(f"{source}:{line}:1: is not UTF-8: {error.reason}", file=source, line=line) from error


def _check_owner(found: os.stat_result, source: str) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise InvalidRecord(f"{source}: is not a regular file", file=source)
    if found.st_uid not in (0, os.geteuid()):
        raise InvalidRecord(f"{source}: belongs to uid {found.st_uid}, neither to root nor to you", file=source)
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        mode = f"{stat.S_IMODE(found.st_mode):04o}"
        raise InvalidRecord(f"{source}: may be written by others (mode {mode}): chmod go-w it", file=source)


def _parsed(text: str, source: str, form: str) -> Any:
    """Return the values of a text of one of the three forms; raises InvalidRecord."""
    if form == "YAML":
        from earmark.drivers.plain_yaml import read_yaml  # noqa: PLC0415 - YAML is loaded only where it is read

        return read_yaml(text, source)
    try:
        if form == "JSON":
            return read_plain(text)
        import tomllib  # noqa: PLC0415 - only for a file in TOML

        return tomllib.loads(text)
    except json.JSONDecodeError as error:
        raise InvalidRecord(f"{source}:{error.lineno}:{error.colno}: is not JSON: {error.msg}", file=source, line=error.lineno) from error
    except (ValueError, RecursionError) as error:
        raise InvalidRecord(f"{source}: is not {form}: {error}", file=source) from error


def _located(message: str, text: str, source: str, form: str) -> InvalidRecord:
    """Return the error with the place of what is wrong: its path in the document, and for YAML its line and column."""
    match = PLACE.search(message)
    path = match[1] if match else "$"
    detail = message[: match.start()] if match else message
    inner = path.removeprefix("$").removeprefix(".")
    words = detail if not inner or detail.startswith("device rule") else f"{inner}: {detail}"
    if form == "YAML":
        from earmark.drivers.plain_yaml import place_in  # noqa: PLC0415 - as above

        line, column = place_in(text, path)
        return InvalidRecord(f"{source}:{line}:{column}: {words}", file=source, line=line, column=column)
    return InvalidRecord(f"{source}: {words}", file=source)
