"""The lines that begin with `expect`: what must be true now, one thing after the other, with commas between."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import cast, get_args

from earmark.core.model.instance import InstanceState, MoveStatus
from earmark.scenario import steps as s
from earmark.scenario.words import ARROW, Words

STATES = cast("tuple[str, ...]", get_args(InstanceState))
STATUSES = cast("tuple[str, ...]", get_args(MoveStatus))
CLASS = re.compile(r"[A-Z][A-Z0-9_]{0,254}")
KIND = re.compile(r"[a-z][a-z0-9]{0,15}")
NODE_COUNTS = ("pins", "devices", "claims", "failed_builds")
NODE_WORDS = ("enabled", "disabled", "retired", "same", "home")
CHECKS_MAX = 64


def checks_of(words: Words, is_node: Callable[[str], bool]) -> tuple[s.Check, ...]:
    """Read what is expected, up to a result or the end; `is_node` says whether a name is one of a node."""
    found = [_check(words, is_node)]
    while words.maybe(","):
        found.append(_check(words, is_node))
        if len(found) > CHECKS_MAX:
            words.wrong(f"more than {CHECKS_MAX} expectations stand in one line")
    return tuple(found)


def _check(words: Words, is_node: Callable[[str], bool]) -> s.Check:
    rule = WORDS.get(words.peek() or "")
    if rule is not None:
        words.take("an expectation")
        return rule(words)
    name = words.name("node or consumer")
    return _of_node(words, name) if is_node(name) else _of_consumer(words, name)


def _of_node(words: Words, node: str) -> s.Check:
    if words.is_figure():
        return s.NodeFigure(node=node, figure=words.figure("figure"))
    if words.maybe("free"):
        return s.NodeFree(node=node, what=_stock(words), count=words.signed("number"))
    if words.maybe("is"):
        what = words.one_of("what a node is", NODE_WORDS)
        return s.NodeIs(node=node, what=cast("s.NodeWord", what))
    word = words.peek() or ""
    if word not in NODE_COUNTS and not CLASS.fullmatch(word):
        choices = "2/2048/20, free KIND N, is WORD, CLASS N, " + ", ".join(f"{each} N" for each in NODE_COUNTS)
        words.wrong(f"of node {node} one expects {choices}")
    return s.NodeCount(node=node, what=words.take("what is counted").text, count=words.number("number"))


def _stock(words: Words) -> str:
    word = words.take("kind of device or class")
    if word.quoted or not (KIND.fullmatch(word.text) or CLASS.fullmatch(word.text)):
        words.wrong(f"{word.text!r} is neither a kind of device (vf, gpu) nor a resource class", word.column)
    return word.text


def _of_consumer(words: Words, consumer: str) -> s.Check:
    if words.maybe("on"):
        return s.ConsumerOn(consumer=consumer, node=words.name("node"))
    if words.maybe("nowhere"):
        return s.ConsumerOn(consumer=consumer, node=None)
    if words.peek() in get_args(s.UnitWord):
        what = cast("s.UnitWord", words.one_of("what it holds", get_args(s.UnitWord)))
        node = words.name("node") if words.maybe("on") else None
        return _units(words, consumer, what, node)
    state = words.one_of(
        f"what consumer {consumer} is or has (on NODE, nowhere, pins, emulator, devices, cells, pages, or a state)", STATES
    )
    return s.ConsumerState(consumer=consumer, state=cast("InstanceState", state))


def _units(words: Words, consumer: str, what: s.UnitWord, node: str | None) -> s.Check:
    """Read `N`, `as NAME`, `not as NAME`, or the units themselves."""
    differ = words.maybe("not")
    if words.maybe("as"):
        return s.Units(consumer=consumer, what=what, node=node, remembered=words.name("remembered name"), differ=differ)
    if differ:
        words.wrong("'not' is followed by 'as NAME'")
    if (words.peek() or "").isdigit():
        return s.Units(consumer=consumer, what=what, node=node, count=words.number("number"))
    units = []
    while not words.over and words.peek() not in (",", ARROW):
        units.append(words.take("unit").text)
    if not units:
        words.wrong(f"of {what} one expects N, as NAME, not as NAME, or the units themselves")
    return s.Units(consumer=consumer, what=what, node=node, units=tuple(sorted(units)))


def _disjoint(words: Words) -> s.Check:
    names = [words.name("consumer"), words.name("consumer")]
    while not words.over and words.peek() not in (",", ARROW):
        names.append(words.name("consumer"))
    return s.Disjoint(consumers=tuple(names))


def _move(words: Words) -> s.Check:
    return s.MoveIs(move=words.name("move or consumer"), status=words.one_of("status of a move", STATUSES))


def _host(words: Words) -> s.Check:
    return s.HostFigure(host=words.name("host"), figure=words.figure("figure"))


def _finding(words: Words) -> s.Check:
    return s.Found(code=words.name("code of a finding"), node=words.name("node") if words.maybe("on") else None)


def _no(words: Words) -> s.Check:
    words.keyword("findings")
    return s.Found(code=None)


def _allocation(words: Words) -> s.Check:
    return _allocated(words, outer=False)


def _outer(words: Words) -> s.Check:
    return _allocated(words, outer=True)


def _allocated(words: Words, *, outer: bool) -> s.Check:
    """Read `[move] NAME on NODE [CLASS=AMOUNT …]` or `[move] NAME nowhere`."""
    is_move = words.maybe("move")
    holder = words.name("consumer or move")
    if words.maybe("nowhere"):
        return s.Allocated(holder=holder, is_move=is_move, outer=outer)
    words.keyword("on")
    node = words.name("node")
    amounts = []
    while (pair := words.pair("amount")) is not None:
        if not CLASS.fullmatch(pair[0]) or not (pair[1].isascii() and pair[1].isdigit()):
            words.wrong(f"{pair[0]}={pair[1]} is not CLASS=AMOUNT, as in VCPU=2")
        amounts.append((pair[0], int(pair[1])))
    return s.Allocated(holder=holder, is_move=is_move, outer=outer, node=node, amounts=tuple(sorted(amounts)) or None)


WORDS: dict[str, Callable[[Words], s.Check]] = {
    "disjoint": _disjoint,
    "move": _move,
    "host": _host,
    "finding": _finding,
    "no": _no,
    "allocation": _allocation,
    "outer": _outer,
}
