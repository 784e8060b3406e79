"""Makes docs/reference/events.md from the events and their envelope; with --check only says whether it is up to date."""

from __future__ import annotations

import ast
import inspect
import re
import sys
from pathlib import Path

import msgspec
from tools.made import written

from earmark.core.ledger import codec, events

PAGE = Path(__file__).resolve().parents[1] / "docs/reference/events.md"
HEAD = """# Events

<!-- made by tools/events_page.py from src/earmark/core/ledger/events.py and codec.py; do not edit -->

What can happen to a node, in the past tense. An event holds what was decided, never what must be computed again, and no command line,
environment or secret. Fields that have their default are left out. A field is added only with a new version of its event; an old version
is read for ever. A program that meets an event which it does not know reads the stream and does not write it.

`earmark export` writes events in this form, one a line. The structs that fields name (Grant, Request, Machine, Holder, …) are
those of `src/earmark/core/model/`.

"""
ENVELOPE_WORDS = {
    "stream": "whose history this belongs to: `node:` and the node's uuid",
    "sequence": "its place in the stream, from 1, without gaps; this is the order",
    "at_ms": "when it was written, in milliseconds since 1970; never below its predecessor's",
    "type": "the name of the event, as below",
    "version": "the version of that event",
    "actor": "the user who did it",
    "command": "the command it came from; the events of one command share it",
    "correlation": "what links commands of one undertaking; absent if nothing does",
    "epoch": "the writer's epoch; an event below the stream's is refused",
    "boot_id": "the boot in which a local fact was true",
    "previous": 'the hash of the event before it in the stream, "" for the first',
    "data": "the event itself: its fields, as below",
}


def shown_type(annotation: str) -> str:
    """Return a type as the page shows it."""
    return "`" + re.sub(r"\s+", " ", annotation).replace("|", "or") + "`"


def default_of(field: msgspec.structs.FieldInfo) -> str:
    """Return what a field is when it is left out; raises TypeError for a default that the page cannot say."""
    if field.default is not msgspec.NODEFAULT:
        value = field.default
        return {None: "null", (): "none", "": '""'}.get(value, f"`{str(value).lower() if isinstance(value, bool) else value}`")
    if field.default_factory is not msgspec.NODEFAULT:
        raise TypeError(f"field {field.name} has a default factory")
    return "always given"


def annotations_of(kind: type) -> dict[str, str]:
    """Return the annotations of a struct's fields, inherited ones too, as they are written."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if not issubclass(base, msgspec.Struct) or base.__module__.startswith("msgspec"):
            continue
        tree = ast.parse(inspect.getsource(base))
        (made,) = (node for node in tree.body if isinstance(node, ast.ClassDef))
        for node in made.body:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                found[node.target.id] = ast.unparse(node.annotation)
    return found


def fields_table(kind: type[msgspec.Struct]) -> str:
    """Return the table of a struct's fields."""
    named = annotations_of(kind)
    rows = [f"| `{field.name}` | {shown_type(named[field.name])} | {default_of(field)} |" for field in msgspec.structs.fields(kind)]
    return "\n".join(["| field | type | if left out |", "|---|---|---|", *rows]) + "\n"


def page() -> str:
    """Return the whole page; raises KeyError for a field of the envelope that has no words here."""
    parts = [HEAD, "## The envelope\n\nEach event is stored as the JSON of its envelope; its hash is SHA-256 over exactly those bytes.\n\n"]
    parts.append("| field | what |\n|---|---|\n")
    parts += [f"| `{field.name}` | {ENVELOPE_WORDS[field.name]} |\n" for field in msgspec.structs.fields(codec.Envelope)]
    for kind in events.EVENTS:
        said = inspect.cleandoc(kind.__doc__ or "")
        parts.append(f"\n## {kind.type}\n\n`{kind.__name__}`, version {kind.version}. {said}\n\n{fields_table(kind)}")
    return "".join(parts)


if __name__ == "__main__":
    sys.exit(written({PAGE: page()}, sys.argv[1:]))
