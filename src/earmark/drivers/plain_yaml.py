"""Reads YAML as mappings, lists and texts, and nothing else: a value stays as it was written ("yes", 0-3, 08 are texts).

Rules of this file: no tag is followed, no alias is expanded, size and depth are bounded, a key stands once; every error has its line and
column. Unlike provider files (`drivers.provider_files`), the meaning is left to the caller.
"""

from __future__ import annotations

import re

from earmark.errors import InvalidRecord

try:
    import yaml
except ImportError as missing:
    raise InvalidRecord("the file is YAML, and PyYAML is not installed: pip install 'earmark[yaml]', or write it as JSON") from missing

DEPTH_MAX = 16
VALUES_MAX = 100_000
NULL = "tag:yaml.org,2002:null"
STEP = re.compile(r"\.([A-Za-z_][A-Za-z0-9_]*)|\[([0-9]{1,9})\]|\['(.*)'\]$", re.DOTALL)

Plain = None | str | list["Plain"] | dict[str, "Plain"]
"""What a document is made of; an empty value is None."""


def read_yaml(text: str, source: str) -> Plain:
    """Return the one document of a text; raises InvalidRecord, which names `source`, line and column."""
    try:
        _bounded(text, source)
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise _at(source, line, error.position - text.rfind("\n", 0, error.position), "a character that YAML does not allow") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
        raise _at(source, line, column, f"is not YAML: {error.problem or error.context}") from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise _at(source, 1, 1, f"is not YAML: {error}") from error
    if root is None:
        raise _at(source, 1, 1, "is empty")
    return _plain(root, source)


def place_in(text: str, path: str) -> tuple[int, int]:
    """Return line and column of what a path (`$.rules[0].kind`, as msgspec writes it, or `$.a['any key']`) leads to, or of the last step that is there."""
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    for word, index, quoted in STEP.findall(path.removeprefix("$")):
        key = word or quoted
        if index and isinstance(node, yaml.SequenceNode) and int(index) < len(node.value):
            node = node.value[int(index)]
        elif key and isinstance(node, yaml.MappingNode):
            found = [value for name, value in node.value if isinstance(name, yaml.ScalarNode) and name.value == key]
            if not found:
                break
            node = found[0]
        else:
            break
    return (node.start_mark.line + 1, node.start_mark.column + 1) if node is not None else (1, 1)


def _bounded(text: str, source: str) -> None:
    """Go through the events of a text before anything is built of them."""
    depth = 0
    for number, event in enumerate(yaml.parse(text, Loader=yaml.SafeLoader)):
        mark = event.start_mark
        line, column = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
        tag = getattr(event, "tag", None)
        if tag is not None:
            raise _at(source, line, column, f"the tag {tag!r} is not followed: plain values only")
        if isinstance(event, yaml.AliasEvent):
            raise _at(source, line, column, "aliases of YAML (*name) are not followed")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEPTH_MAX:
            raise _at(source, line, column, f"is nested deeper than {DEPTH_MAX}")
        if number > 2 * VALUES_MAX:
            raise _at(source, line, column, f"has more than {VALUES_MAX} values")


def _plain(node: yaml.Node, source: str) -> Plain:
    """Return what a node holds."""
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, source) for item in node.value]
    if isinstance(node, yaml.MappingNode):
        found: dict[str, Plain] = {}
        for key, value in node.value:
            line, column = key.start_mark.line + 1, key.start_mark.column + 1
            if not isinstance(key, yaml.ScalarNode):
                raise _at(source, line, column, "a key is not a text")
            if key.value in found:
                raise _at(source, line, column, f"{key.value!r} stands twice")
            found[key.value] = _plain(value, source)
        return found
    return None if node.tag == NULL else str(node.value)


def _at(source: str, line: int, column: int, detail: str) -> InvalidRecord:
    return InvalidRecord(f"{source}:{line}:{column}: {detail}", file=source, line=line, column=column)
