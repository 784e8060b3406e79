"""The steps of a scenario by their first word.

Rules of this file: a verb is the trade's own; each function reads the words of its step and returns it, text and result are added by the caller.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast, get_args

from msgspec.structs import replace

from earmark.core.model import ids
from earmark.core.model.instance import MoveKind
from earmark.core.model.request import Request
from earmark.core.model.shape import machine_of
from earmark.core.model.topology import Machine
from earmark.errors import Invalid
from earmark.scenario import steps as s
from earmark.scenario.expectations import KIND, STATES, checks_of
from earmark.scenario.wishes import wish
from earmark.scenario.words import ARROW, Words

NODES_MAX = 64
PID = 1 << 22
NO_TOPOLOGY = "no-topology"
MOVES: dict[str, MoveKind] = {
    "resize": "resize",
    "migrate": "migration",
    "live-migrate": "live_migration",
    "evacuate": "evacuation",
}


class Reading:
    """What a file has named so far: flavors, nodes, consumers."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.flavors: dict[str, s.Flavor] = {}
        self.nodes: set[str] = set()

    def is_node(self, name: str) -> bool:
        """Say whether a name is one of a node."""
        return name in self.nodes

    def consumer(self, words: Words) -> str:
        """Read the name of a consumer, which no node has."""
        at = words.column
        name = words.name("consumer")
        if name in self.nodes:
            words.wrong(f"{name} is a node, not a consumer", at)
        return name

    def flavor(self, words: Words) -> None:
        """Read `flavor NAME 2/2048/20 …`."""
        at = words.column
        name = words.name("flavor")
        if name in self.flavors:
            words.wrong(f"flavor {name} stands here twice", at)
        self.flavors[name] = s.Flavor(name=name, request=wish(words))
        words.end()

    def request(self, words: Words) -> Request:
        """Read `as FLAVOR`."""
        words.keyword("as")
        at = words.column
        name = words.name("flavor")
        if name not in self.flavors:
            words.wrong(f"there is no flavor {name}; known: {', '.join(self.flavors) or 'none'}", at)
        return self.flavors[name].request


# --- a node and its settings ------------------------------------------------------------------------------------------------------------


def machine(words: Words) -> Machine:
    """Read the machine of a node: words of `machine_of`, up to the first KEY=VALUE or `on`."""
    parts: list[str] = []
    flat = False
    at = words.column
    while words.peek() is not None and words.peek() != "on" and "=" not in (words.peek() or ""):
        word = words.take("machine").text
        if word == NO_TOPOLOGY:
            flat = True
        else:
            parts.append(word)
    try:
        made = machine_of(" ".join(parts))
    except Invalid as error:
        words.wrong(error.message, at)
    return without_topology(made) if flat else made


def without_topology(whole: Machine) -> Machine:
    """Return a machine of which only CPUs, memory and disks are known: its CPUs are in no cell."""
    cpus = tuple(replace(cpu, cell=-1, package=None, l3=None) for cpu in whole.cpus)
    return replace(whole, cpus=cpus)


def settings(words: Words) -> tuple[str, ...]:
    """Read KEY=VALUE …, as `earmark node set` takes them."""
    found = []
    while (pair := words.pair("setting")) is not None:
        found.append("=".join(pair))
    return tuple(found)


# --- the steps ------------------------------------------------------------------------------------------------------------------------


def _at(words: Words) -> dict[str, Any]:
    return {"line": words.line, "text": ""}


def node(reading: Reading, words: Words, _verb: str) -> s.Step:
    """`node A 2x8c 32G disk:200G [on HOST] [KEY=VALUE …]`."""
    name = words.name("node")
    made = machine(words)
    host = words.name("host") if words.maybe("on") else None
    if len(reading.nodes) >= NODES_MAX:
        words.wrong(f"there are more than {NODES_MAX} nodes")
    reading.nodes.add(name)
    return s.MakeNode(**_at(words), node=name, machine=made, host=host, settings=settings(words))


def set_node(_reading: Reading, words: Words, _verb: str) -> s.Step:
    """`set A KEY=VALUE …`."""
    name = words.name("node")
    found = settings(words)
    if not found:
        words.wrong("KEY=VALUE is missing, as in cpu_allocation_ratio=4.0")
    return s.SetNode(**_at(words), node=name, settings=found)


def keep_node(_reading: Reading, words: Words, verb: str) -> s.Step:
    """`disable A "reason"`, `enable A`, `retire A "reason"`, `restore A`, `report A [from HOST]`, `rehome A to HOST`, `came-back A`."""
    name = words.name("node")
    host = words.name("host") if verb == "report" and words.maybe("from") else None
    if verb == "rehome":
        words.keyword("to")
        host = words.name("host")
    reason = words.quoted() or ""
    if verb in ("disable", "retire") and not reason:
        words.wrong('a reason in quotes is missing, as in "new memory"')
    return s.KeepNode(**_at(words), how=cast("s.NodeHow", verb), node=name, host=host, reason=reason)


def claim(reading: Reading, words: Words, verb: str) -> s.Step:
    """`claim|build|unshelve i on A as s [named NAME] [for TIME] [by PID]`."""
    consumer = reading.consumer(words)
    words.keyword("on")
    where = words.name("node")
    request = reading.request(words)
    return _claim(words, consumer, where, request, cast("s.ClaimHow", verb), consumer)


def _claim(words: Words, consumer: str, where: str, request: Request, how: s.ClaimHow, name: str) -> s.Step:
    ttl_ms = pid = None
    while True:
        if words.maybe("named"):
            name = words.name("name of the claim")
        elif words.maybe("for"):
            ttl_ms = words.duration_ms("time")
        elif words.maybe("by"):
            pid = _pid(words)
        else:
            return s.Claim(
                **_at(words), consumer=consumer, node=where, request=request, name=name, how=how, ttl_ms=ttl_ms, pid=pid
            )  # fmt: skip


def _pid(words: Words) -> int:
    at = words.column
    pid = words.number("process")
    if not 1 <= pid <= PID:
        words.wrong(f"{pid} is not a process from 1 to {PID}", at)
    return pid


def attach(reading: Reading, words: Words, _verb: str) -> s.Step:
    """`attach x to i on A as FLAVOR`."""
    name = words.name("name of what is attached")
    words.keyword("to")
    consumer = reading.consumer(words)
    words.keyword("on")
    where = words.name("node")
    return _claim(words, consumer, where, reading.request(words), "attach", name)


def end_claim(_reading: Reading, words: Words, verb: str) -> s.Step:
    """`confirm|abort|release|detach NAME`, and for moves `confirm|abort|revert|finish move NAME`, `drop move NAME source`."""
    if words.maybe("move"):
        what = words.name("move or consumer")
        how = verb
        if verb == "drop":
            how = "drop " + words.one_of("side of the move", ("source", "destination"))
        if verb in ("release", "detach"):
            words.wrong(f"a move is not {verb}d: finish, confirm, revert, abort or drop it")
        return s.EndMove(**_at(words), how=cast("s.MoveEnd", how), what=what)
    if verb in ("finish", "revert", "drop"):
        words.wrong(f"{verb} is followed by 'move' and its name or its consumer")
    return s.EndClaim(**_at(words), how=cast("s.EndHow", verb), what=words.name("claim or consumer"))


def state(reading: Reading, words: Words, _verb: str) -> s.Step:
    """`state i active [task NAME]`."""
    consumer = reading.consumer(words)
    word = words.one_of("state", STATES)
    task = words.name("task") if words.maybe("task") else None
    return s.ReportState(**_at(words), consumer=consumer, state=cast("Any", word), task=task)


def delete(reading: Reading, words: Words, _verb: str) -> s.Step:
    """`delete i`."""
    return s.ReportState(**_at(words), consumer=reading.consumer(words), state="deleted")


def move(reading: Reading, words: Words, verb: str) -> s.Step:
    """`resize i [to B] as l`, `migrate i [to B]`, `live-migrate i to B`, `evacuate i to B`, each with [named NAME] [for TIME]."""
    consumer = reading.consumer(words)
    to = words.name("node") if words.maybe("to") else None
    request = reading.request(words) if words.peek() == "as" else None
    if verb == "resize" and request is None:
        words.wrong("a resize says to what: as FLAVOR")
    name, ttl_ms = consumer, None
    while True:
        if words.maybe("named"):
            name = words.name("name of the move")
        elif words.maybe("for"):
            ttl_ms = words.duration_ms("time")
        else:
            return s.OpenMove(
                **_at(words), kind=MOVES[verb], consumer=consumer, to=to, request=request, name=name, ttl_ms=ttl_ms
            )  # fmt: skip


def audit(_reading: Reading, words: Words, _verb: str) -> s.Step:
    """`audit [A]`, `audit [A] fails at driver|store|publication`."""
    name = words.name("node") if words.peek() not in (None, "fails", "=>", "|") else None
    fails = None
    if words.maybe("fails"):
        words.keyword("at")
        fails = cast("Any", words.one_of("what fails", ("driver", "store", "publication")))
    return s.Audit(**_at(words), node=name, fails=fails)


def hardware(_reading: Reading, words: Words, verb: str) -> s.Step:
    """`plug KIND into A`, `unplug UNIT from A`."""
    at = words.column
    what = words.take("kind of device" if verb == "plug" else "unit").text
    if not (KIND.fullmatch(what) if verb == "plug" else ids.UNIT.fullmatch(what)):
        words.wrong(f"{what!r} is not {'a kind of device, as vf is' if verb == 'plug' else 'a unit, as pci:0000:0a:00.1 is'}", at)
    words.keyword("into" if verb == "plug" else "from")
    return s.Hardware(**_at(words), node=words.name("node"), what=what, there=verb == "plug")


def guest(reading: Reading, words: Words, _verb: str) -> s.Step:
    """`guest g on A as s`, `guest g gone from A`."""
    name = words.name("guest")
    if words.maybe("gone"):
        words.keyword("from")
        return s.Guest(**_at(words), guest=name, node=words.name("node"), request=None)
    words.keyword("on")
    where = words.name("node")
    return s.Guest(**_at(words), guest=name, node=where, request=reading.request(words))


def record(_reading: Reading, words: Words, _verb: str) -> s.Step:
    """`record instance i KEY=VALUE …`, `record move m KEY=VALUE …`."""
    kind = words.one_of("kind of record", ("instance", "move"))
    name = words.name("consumer or move")
    fields = []
    while (pair := words.pair("field")) is not None:
        fields.append(pair)
    return s.Record(**_at(words), kind="move" if kind == "move" else "instance", name=name, fields=tuple(fields))


def listing(reading: Reading, words: Words, _verb: str) -> s.Step:
    """`listing A is i j`, `listing A is empty`."""
    where = words.name("node")
    words.keyword("is")
    found: list[str] = []
    if not words.maybe("empty"):
        found.append(reading.consumer(words))
        while words.peek() not in (None, ARROW):
            found.append(reading.consumer(words))
    return s.Listing(**_at(words), node=where, consumers=tuple(found))


def outer(_reading: Reading, words: Words, verb: str) -> s.Step:
    """`outer away`, `outer back`, `outer holds [move] NAME on A`, `publish`, `heal A [first]`."""
    if verb == "publish":
        return s.Outer(**_at(words), how="publish")
    if verb == "heal":
        return s.Outer(**_at(words), how="heal", node=words.name("node"), first=words.maybe("first"))
    how = cast("s.OuterHow", words.one_of("what the outer ledger does", ("away", "back", "holds")))
    if how != "holds":
        return s.Outer(**_at(words), how=how)
    is_move = words.maybe("move")
    holder = words.name("consumer or move")
    words.keyword("on")
    return s.Outer(**_at(words), how=how, holder=holder, is_move=is_move, node=words.name("node"))


def wait(_reading: Reading, words: Words, _verb: str) -> s.Step:
    """`wait 10m`."""
    return s.Wait(**_at(words), ms=words.duration_ms("time"))


def dies(_reading: Reading, words: Words, _verb: str) -> s.Step:
    """`process 100 dies`."""
    pid = _pid(words)
    words.keyword("dies")
    return s.Dead(**_at(words), pid=pid)


def reopen(_reading: Reading, words: Words, verb: str) -> s.Step:
    """`crash`, `restart`."""
    return s.Reopen(**_at(words), orderly=verb == "restart")


def remember(reading: Reading, words: Words, _verb: str) -> s.Step:
    """`remember pins|emulator|devices|cells|pages of i as NAME`."""
    what = cast("s.UnitWord", words.one_of("what is remembered", get_args(s.UnitWord)))
    words.keyword("of")
    consumer = reading.consumer(words)
    words.keyword("as")
    return s.Remember(**_at(words), what=what, consumer=consumer, name=words.name("name"))


def expect(reading: Reading, words: Words, _verb: str) -> s.Step:
    """`expect CHECK, CHECK …`."""
    return s.Expect(**_at(words), checks=checks_of(words, reading.is_node))


Verb = Callable[[Reading, Words, str], s.Step]
VERBS: dict[str, Verb] = {
    "node": node,
    "set": set_node,
    **dict.fromkeys(get_args(s.NodeHow), keep_node),
    **dict.fromkeys(("claim", "build", "unshelve"), claim),
    "attach": attach,
    **dict.fromkeys(("confirm", "abort", "release", "detach", "finish", "revert", "drop"), end_claim),
    "state": state,
    "delete": delete,
    **dict.fromkeys(MOVES, move),
    "audit": audit,
    "plug": hardware,
    "unplug": hardware,
    "guest": guest,
    "record": record,
    "listing": listing,
    **dict.fromkeys(("outer", "publish", "heal"), outer),
    "wait": wait,
    "process": dies,
    "crash": reopen,
    "restart": reopen,
    "remember": remember,
    "expect": expect,
}
