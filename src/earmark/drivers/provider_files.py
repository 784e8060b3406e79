"""Reads provider configuration files: YAML, schema 1.x, every error with file, line and column.

Rules of this file: no tag is followed, nothing is constructed but texts and numbers; size, depth and repetition are bounded; what is not
understood is an error, or, in a file of a newer minor version, a note. Source: Nova 34, compute/provider_config.py and
compute/schemas/provider_config_v1.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from earmark.core.model import ids
from earmark.core.model.ids import NodeId, ResourceClass, Trait
from earmark.core.model.inventory import Inventory, checked
from earmark.core.model.node import Provided
from earmark.core.model.provider import EVERY_NODE, ProviderEntry, told_apart
from earmark.core.model.units import parse_ratio
from earmark.errors import InvalidRecord, InvalidRequest

try:
    import yaml
except ImportError as missing:
    raise InvalidRecord("provider configuration is YAML, and PyYAML is not installed: pip install 'earmark[yaml]'") from missing

FILE_BYTES_MAX = 1024 * 1024
FILES_MAX = 1000
DEPTH_MAX = 16
NODES_MAX = 100_000
"""Values in one file, those that aliases repeat included."""
AMOUNT_MAX = (1 << 31) - 1
"""The largest amount that Placement keeps."""
PREFIX = "tag:yaml.org,2002:"
VERSION = re.compile(r"([0-9]{1,4})\.([0-9]{1,4})")
CUSTOM = re.compile(r"CUSTOM_[A-Z0-9_]{1,248}")
NUMBER = re.compile(r"[0-9]{1,10}")
UUID_FORM = re.compile(r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}")
AMOUNTS = {"total": 1, "reserved": 0, "min_unit": 1, "max_unit": 1, "step_size": 1}
"""The whole numbers of an inventory, and the least that each may be."""


class ProviderFiles(NamedTuple):
    """The entries of some files, and what a person should know of them."""

    entries: tuple[ProviderEntry, ...]
    notes: tuple[str, ...]


def read_provider_files(paths: Iterable[Path]) -> ProviderFiles:
    """Return the entries of some files; a folder stands for its *.yaml files by name. Raises InvalidRecord on the first error of any."""
    entries: list[ProviderEntry] = []
    notes: list[str] = []
    for number, path in enumerate(_files(paths)):
        if number >= FILES_MAX:
            raise InvalidRecord(f"{path}: more than {FILES_MAX} files of provider configuration", file=str(path))
        read = Reading(str(path), _text(path))
        entries += read.entries()
        notes += read.notes
    return ProviderFiles(told_apart(entries), tuple(notes))


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from sorted(path.glob("*.yaml"))
        else:
            yield path


def _text(path: Path) -> str:
    """Return a regular file's text; raises InvalidRecord."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise InvalidRecord(f"{path}: is not a regular file", file=str(path))
        with path.open("rb") as file:
            raw = file.read(FILE_BYTES_MAX + 1)
    except (OSError, ValueError) as error:
        raise InvalidRecord(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}", file=str(path)) from error
    if len(raw) > FILE_BYTES_MAX:
        raise InvalidRecord(f"{path}: is larger than {FILE_BYTES_MAX} bytes", file=str(path))
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise InvalidRecord(f"{path}:{line}:1: is not UTF-8: {error.reason}", file=str(path), line=line) from error


class Reading:
    """One file while it is read; `notes` collect what is passed over."""

    def __init__(self, source: str, text: str) -> None:
        self.source = source
        self.notes: list[str] = []
        self._text = text
        self._left = NODES_MAX
        self._strict = True

    def entries(self) -> list[ProviderEntry]:
        """Return the file's entries; raises InvalidRecord."""
        root = self._composed()
        top = self._mapping(root, "a provider configuration", ("meta", "providers"), sure=False)
        if "meta" not in top:
            raise self._error(root, "has no meta: schema_version")
        self._version(top["meta"])
        self._known(root, "a provider configuration", ("meta", "providers"))
        if "providers" not in top:
            raise self._error(root, "has no providers")
        return [self._entry(node) for node in self._items(top["providers"], "providers")]

    # --- the document ---------------------------------------------------------------------------------------------------------------

    def _composed(self) -> yaml.Node:
        """Return the one document of the text; raises InvalidRecord."""
        try:
            self._bounded()
            root = yaml.compose(self._text, Loader=yaml.SafeLoader)
        except yaml.reader.ReaderError as error:
            line = self._text.count("\n", 0, error.position) + 1
            column = error.position - self._text.rfind("\n", 0, error.position)
            raise self._at(line, column, f"a character that YAML does not allow: U+{ord(_letter(error.character)):04X}") from error
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line, column = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
            raise self._at(line, column, f"is not YAML: {error.problem or error.context}") from error
        except (yaml.YAMLError, ValueError, OverflowError) as error:
            raise self._at(1, 1, f"is not YAML: {error}") from error
        if root is None:
            raise self._at(1, 1, "is empty")
        return root

    def _bounded(self) -> None:
        """Go through the events of the text before anything is built of them: no tags, no depth, not too many."""
        depth = 0
        for number, event in enumerate(yaml.parse(self._text, Loader=yaml.SafeLoader)):
            if number > 2 * NODES_MAX:
                raise self._marked(event.start_mark, f"has more than {NODES_MAX} values")
            tag = getattr(event, "tag", None)
            if tag is not None:
                raise self._marked(event.start_mark, f"the tag {tag!r} is not followed: plain values only")
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
            if depth > DEPTH_MAX:
                raise self._marked(event.start_mark, f"is nested deeper than {DEPTH_MAX}")

    def _version(self, meta: yaml.Node) -> None:
        """Check `meta.schema_version`; a minor version above 0 is noted, and then keys that are not known are too."""
        fields = self._mapping(meta, "meta", ("schema_version",), sure=False)
        if "schema_version" not in fields:
            raise self._error(meta, "meta has no schema_version")
        node = fields["schema_version"]
        version = self._string(node, "schema_version", hint="'1.0', in quotes")
        match = VERSION.fullmatch(version)
        if match is None or match[1] != "1":
            raise self._error(node, f"schema_version {version!r} is not 1.x")
        if int(match[2]) > 0:
            self._strict = False
            self.notes.append(f"{self._where(node)}: schema_version {version} is newer than 1.0: keys that 1.0 has not are passed over")
        self._known(meta, "meta", ("schema_version",))

    # --- entries --------------------------------------------------------------------------------------------------------------------

    def _entry(self, node: yaml.Node) -> ProviderEntry:
        fields = self._mapping(node, "a provider", ("identification", "inventories", "traits"))
        if "identification" not in fields:
            raise self._error(node, "a provider has no identification")
        uuid, name = self._identification(fields["identification"])
        inventories: tuple[Inventory, ...] = ()
        traits: tuple[Trait, ...] = ()
        if "inventories" in fields:
            inventories = tuple(sorted(self._inventories(fields["inventories"]), key=lambda each: each.resource_class))
        if "traits" in fields:
            traits = tuple(sorted(self._traits(fields["traits"])))
        where = self._where(node)
        if not inventories and not traits:
            self.notes.append(f"{where}: provider {uuid or name or EVERY_NODE!r} adds nothing; its entry is passed over")
        return ProviderEntry(where=where, uuid=uuid, name=name, provided=Provided(inventories=inventories, traits=traits))

    def _identification(self, node: yaml.Node) -> tuple[NodeId | None, str | None]:
        """Return the uuid or the name of a provider, neither for every node."""
        fields = self._mapping(node, "identification", ("uuid", "name"))
        if len(fields) != 1:
            raise self._error(node, "identification is by uuid or by name: exactly one of them")
        key, value = next(iter(fields.items()))
        text = self._string(value, key, hint="in quotes")
        if key == "uuid" and text == EVERY_NODE:
            return None, None
        if key == "uuid":
            if not UUID_FORM.fullmatch(text):
                raise self._error(value, f"uuid {text!r} is neither a uuid nor {EVERY_NODE}")
            return NodeId(text.lower()), None
        if text == EVERY_NODE:
            raise self._error(value, f"{EVERY_NODE} stands in the place of a uuid, not of a name")
        try:
            return None, ids.name(text, "provider")
        except InvalidRequest as error:
            raise self._error(value, error.message) from error

    def _inventories(self, node: yaml.Node) -> Iterator[Inventory]:
        seen: set[str] = set()
        for item in self._additional(node, "inventories"):
            for key, value in self._pairs(item, "an additional inventory"):
                name = self._string(key, "a resource class")
                if not CUSTOM.fullmatch(name):
                    raise self._error(key, f"{name!r} is not a custom resource class: CUSTOM_ and capital letters, digits and _ are")
                if name in seen:
                    raise self._error(key, f"{name} is given twice")
                seen.add(name)
                yield self._inventory(name, value)

    def _inventory(self, name: str, node: yaml.Node) -> Inventory:
        fields = self._mapping(node, name, (*AMOUNTS, "allocation_ratio"))
        if "total" not in fields:
            raise self._error(node, f"{name} has no total")
        numbers = {key: self._number(value, f"{key} of {name}", AMOUNTS[key]) for key, value in fields.items() if key in AMOUNTS}
        try:
            if "allocation_ratio" in fields:
                numbers["ratio"] = parse_ratio(
                    self._scalar(fields["allocation_ratio"], ("int", "float")), what=f"allocation_ratio of {name}"
                )
            return checked(Inventory(resource_class=ResourceClass(name), **numbers))
        except InvalidRequest as error:
            raise self._error(fields.get("allocation_ratio", node) if "ratio" in error.message else node, error.message) from error

    def _traits(self, node: yaml.Node) -> Iterator[Trait]:
        seen: set[str] = set()
        for item in self._additional(node, "traits"):
            name = self._string(item, "a trait")
            if not CUSTOM.fullmatch(name):
                raise self._error(item, f"{name!r} is not a custom trait: CUSTOM_ and capital letters, digits and _ are")
            if name in seen:
                raise self._error(item, f"{name} is given twice")
            seen.add(name)
            yield Trait(name)

    def _additional(self, node: yaml.Node, what: str) -> list[yaml.Node]:
        fields = self._mapping(node, what, ("additional",))
        return self._items(fields["additional"], f"{what}.additional") if "additional" in fields else []

    # --- values ---------------------------------------------------------------------------------------------------------------------

    def _pairs(self, node: yaml.Node, what: str) -> list[tuple[yaml.Node, yaml.Node]]:
        if not isinstance(node, yaml.MappingNode):
            raise self._error(node, f"{what} is not a mapping of keys to values")
        self._spend(node, len(node.value))
        return list(node.value)

    def _mapping(self, node: yaml.Node, what: str, known: tuple[str, ...], *, sure: bool = True) -> dict[str, yaml.Node]:
        """Return the known keys of a mapping with their values; others are errors, or notes where `sure` and the file is newer."""
        found: dict[str, yaml.Node] = {}
        for key, value in self._pairs(node, what):
            name = self._string(key, f"a key of {what}")
            if name in found:
                raise self._error(key, f"{name!r} stands twice in {what}")
            if name in known:
                found[name] = value
            elif sure:
                self._unknown(key, name, what)
        return found

    def _known(self, node: yaml.Node, what: str, known: tuple[str, ...]) -> None:
        """Look for unknown keys in a mapping that had to be read before the version was known."""
        for key, _ in self._pairs(node, what):
            name = self._string(key, f"a key of {what}")
            if name not in known:
                self._unknown(key, name, what)

    def _unknown(self, key: yaml.Node, name: str, what: str) -> None:
        if self._strict:
            raise self._error(key, f"{name!r} is no key of {what}")
        self.notes.append(f"{self._where(key)}: {name!r} is no key of {what} in 1.0; it is passed over")

    def _items(self, node: yaml.Node, what: str) -> list[yaml.Node]:
        if not isinstance(node, yaml.SequenceNode):
            raise self._error(node, f"{what} is not a list")
        self._spend(node, len(node.value))
        return list(node.value)

    def _scalar(self, node: yaml.Node, kinds: tuple[str, ...], what: str = "a value") -> str:
        if not isinstance(node, yaml.ScalarNode) or node.tag.removeprefix(PREFIX) not in kinds:
            raise self._error(node, f"{what} is not {' or '.join(kinds)}")
        return str(node.value)

    def _string(self, node: yaml.Node, what: str, *, hint: str = "") -> str:
        if not isinstance(node, yaml.ScalarNode) or node.tag != PREFIX + "str":
            raise self._error(node, f"{what} is not a text" + (f" ({hint})" if hint else ""))
        return str(node.value)

    def _number(self, node: yaml.Node, what: str, least: int) -> int:
        text = self._scalar(node, ("int",), what)
        if not NUMBER.fullmatch(text) or not least <= int(text) <= AMOUNT_MAX:
            raise self._error(node, f"{what} {text!r} is not a whole number from {least} to {AMOUNT_MAX}")
        return int(text)

    def _spend(self, node: yaml.Node, values: int) -> None:
        """Count values that are walked through, again for each alias that repeats them."""
        self._left -= values + 1
        if self._left < 0:
            raise self._error(node, f"has more than {NODES_MAX} values, aliases included")

    # --- places ---------------------------------------------------------------------------------------------------------------------

    def _where(self, node: yaml.Node) -> str:
        return f"{self.source}:{node.start_mark.line + 1}:{node.start_mark.column + 1}"

    def _error(self, node: yaml.Node, detail: str) -> InvalidRecord:
        return self._marked(node.start_mark, detail)

    def _marked(self, mark: object, detail: str) -> InvalidRecord:
        return self._at(getattr(mark, "line", 0) + 1, getattr(mark, "column", 0) + 1, detail)

    def _at(self, line: int, column: int, detail: str) -> InvalidRecord:
        return InvalidRecord(f"{self.source}:{line}:{column}: {detail}", file=self.source, line=line, column=column)


def _letter(character: object) -> str:
    """Return the offending character of a ReaderError, which has it as a number or as a text."""
    return chr(character) if isinstance(character, int) else str(character)[:1] or "\0"
