"""Finds what can change after it was made and be seen by more than one function: attributes, and objects of modules.

A thing is `module.Class.attribute` or `module.name`. Found are: instance attributes that are assigned, deleted or changed in place by a
method other than `__init__`, or from outside (`module:variable.attribute`); class attributes that hold something mutable; names of modules that are rebound by `global`, or that hold
anything else than a constant; caches of functions.
"""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import PurePath
from types import MappingProxyType
from typing import TypeVar

import msgspec
from immutables import Map
from tests.house.sources import Source, dotted

CHANGING = {
    "add", "append", "appendleft", "clear", "discard", "extend", "extendleft", "insert", "pop", "popitem", "popleft", "remove", "reverse",
    "setdefault", "sort", "update", "put", "put_nowait", "set", "notify", "notify_all",
}  # fmt: skip
FROZEN = (
    str, bytes, int, float, tuple, frozenset, range, re.Pattern, PurePath, Fraction, Map, MappingProxyType, TypeVar,
    msgspec.json.Encoder, msgspec.json.Decoder,
)  # fmt: skip
"""Kinds whose objects cannot change; msgspec's encoders and decoders keep no state between calls."""
CACHES = {"functools.cache", "functools.lru_cache", "cache", "lru_cache", "functools.cached_property", "cached_property"}
DISPLAYS = (ast.Dict, ast.List, ast.Set, ast.DictComp, ast.ListComp, ast.SetComp)


def mutable_things(source: Source) -> Iterator[str]:
    """Yield the names of everything in a file that can change while it is shared, each once, sorted."""
    yield from sorted({*_of_module(source), *_of_classes(source), *_of_others(source), *_caches(source)})


def _of_module(source: Source) -> Iterator[str]:
    changed = {dotted(target) for target in _changed(source.tree)}
    rebound = {name for node in ast.walk(source.tree) if isinstance(node, ast.Global) for name in node.names}
    for node in source.tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
        for name in (target.id for target in targets if isinstance(target, ast.Name)):
            if name == "__all__" or value is None:
                continue
            if name in rebound or name in changed or not _is_constant(source, value, name):
                yield f"{source.name}.{name}"


def _is_constant(source: Source, value: ast.expr, name: str) -> bool:
    """Say whether a value can never change, or is a table in capitals that nothing in its file changes (the caller has looked)."""
    if isinstance(value, DISPLAYS):
        return name.isupper()
    return not isinstance(value, ast.Call) or _is_frozen(getattr(importlib.import_module(source.name), name, None))


def _is_frozen(value: object) -> bool:
    """Say whether an object is of a kind that cannot change."""
    if isinstance(value, msgspec.Struct):
        return bool(type(value).__struct_config__.frozen)
    return value is None or isinstance(value, FROZEN) or callable(value)


def _of_classes(source: Source) -> Iterator[str]:
    for node in ast.walk(source.tree):
        if not isinstance(node, ast.ClassDef):
            continue
        for part in node.body:
            if isinstance(part, ast.Assign | ast.AnnAssign) and part.value is not None and isinstance(part.value, DISPLAYS):
                targets = part.targets if isinstance(part, ast.Assign) else [part.target]
                yield from (f"{source.name}.{node.name}.{dotted(target)}" for target in targets)
            if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef) and part.name not in ("__init__", "__new__", "__post_init__"):
                me = part.args.args[0].arg if part.args.args else ""
                for target in _changed(part):
                    name = dotted(target)
                    if me in ("self", "cls") and name.startswith(f"{me}."):
                        yield f"{source.name}.{node.name}.{name.split('.')[1]}"


def _of_others(source: Source) -> Iterator[str]:
    """Yield the attributes that are assigned on something else than the method's own object."""
    for node in ast.walk(source.tree):
        targets = node.targets if isinstance(node, ast.Assign | ast.Delete) else [node.target] if isinstance(node, ast.AugAssign) else []
        for target in (part for whole in targets for part in _targets(whole)):
            head, _, attribute = dotted(target).partition(".")
            if attribute and head not in ("self", "cls"):
                yield f"{source.name}:{head}.{attribute}"


def _changed(tree: ast.AST) -> Iterator[ast.expr]:
    """Yield the things below a node that are assigned, deleted or changed in place."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign | ast.Delete):
            yield from (part for target in node.targets for part in _targets(target))
        elif isinstance(node, ast.AugAssign | ast.AnnAssign):
            if not (isinstance(node, ast.AnnAssign) and node.value is None):
                yield from _targets(node.target)
        elif isinstance(node, ast.For | ast.AsyncFor):
            yield from _targets(node.target)
        elif isinstance(node, ast.withitem) and node.optional_vars is not None:
            yield from _targets(node.optional_vars)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CHANGING:
            yield node.func.value


def _targets(target: ast.expr) -> Iterator[ast.expr]:
    """Yield what an assignment to `target` changes: attributes themselves, containers of subscripts, parts of tuples; plain names not."""
    if isinstance(target, ast.Attribute):
        yield target
    elif isinstance(target, ast.Subscript):
        yield target.value
    elif isinstance(target, ast.Starred):
        yield from _targets(target.value)
    elif isinstance(target, ast.Tuple | ast.List):
        for part in target.elts:
            yield from _targets(part)


def _caches(source: Source) -> Iterator[str]:
    for node in ast.walk(source.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names = {dotted(d.func if isinstance(d, ast.Call) else d) for d in node.decorator_list}
            if names & CACHES:
                yield f"{source.name}.{node.name}"
