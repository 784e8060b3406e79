"""The project's own source, each file parsed once, for the tests that look at it."""

from __future__ import annotations

import ast
import functools
import gc
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]


class Source(NamedTuple):
    """A Python file: its path from the root, its dotted name and its text."""

    path: str
    name: str
    text: str

    @property
    def tree(self) -> ast.Module:
        """Its syntax tree, made when it is first asked for."""
        return parsed(self.text)


class Function(NamedTuple):
    """A function: where it is, its dotted name inside the file, its node, and whether all names on the way are public."""

    source: Source
    name: str
    node: ast.FunctionDef | ast.AsyncFunctionDef
    public: bool

    @property
    def where(self) -> str:
        """The place as messages name it."""
        return f"{self.source.path}:{self.node.lineno} {self.name}"


@functools.cache
def parsed(text: str) -> ast.Module:
    """Return the tree of a text. No garbage is looked for meanwhile: of the many nodes none is garbage."""
    looked = gc.isenabled()
    gc.disable()
    try:
        return ast.parse(text)
    finally:
        if looked:
            gc.enable()


@functools.cache
def sources(*folders: str) -> tuple[Source, ...]:
    """Return every Python file below the folders (src, tests, tools, …), by path."""
    found = []
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            text = path.read_text()
            inside = path.relative_to(ROOT)
            parts = [part for part in inside.with_suffix("").parts if part != "__init__"]
            found.append(Source(str(inside), ".".join(parts[1:] if parts[0] == "src" else parts), text))
    return tuple(found)


@functools.cache
def functions(source: Source) -> tuple[Function, ...]:
    """Return every function and method of a file, nested ones too."""

    def below(body: list[ast.stmt], prefix: str, *, public: bool) -> Iterator[Function]:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                name = f"{prefix}{node.name}"
                yield Function(source, name, node, public and not node.name.startswith("_"))
                yield from below(node.body, f"{name}.", public=False)
            elif isinstance(node, ast.ClassDef):
                yield from below(node.body, f"{prefix}{node.name}.", public=public and not node.name.startswith("_"))
            else:
                inner = [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt)]
                yield from below(inner, prefix, public=public)

    return tuple(below(source.tree.body, "", public=True))


def classes(source: Source) -> Iterator[ast.ClassDef]:
    """Yield every class of a file."""
    yield from (node for node in ast.walk(source.tree) if isinstance(node, ast.ClassDef))


def comments(source: Source) -> Iterator[tuple[int, str]]:
    """Yield (line, text) of every comment of a file."""
    for token in tokenize.generate_tokens(io.StringIO(source.text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def dotted(node: ast.AST) -> str:
    """Return an expression such as os.environ as text, "" for one that is no chain of names."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        head = dotted(node.value)
        return f"{head}.{node.attr}" if head else ""
    return ""


def enclosing(source: Source, line: int) -> str:
    """Return the name of the innermost function around a line, "" at the level of the module."""
    around = [f for f in functions(source) if f.node.lineno <= line <= (f.node.end_lineno or f.node.lineno)]
    return max(around, key=lambda f: f.node.lineno).name if around else ""


def words(name: str) -> list[str]:
    """Return the words of a snake_case or CamelCase name, in lower case."""
    return [word.lower() for word in re.findall(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])", name)]
