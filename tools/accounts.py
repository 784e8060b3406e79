"""`make accounts FILE=…`: recorded lives of instances on another tracker, replayed here, every book compared.

Rules of this file: it ends with one line, "N wrong of M books, K explained", and with 1 if N is above 0 or a line could not be read. A book is
explained if it was right once an instance was taken out of it whose recorded placement would have given one unit to two holders.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tools.accounts_format import BadLine, RecordedNode, sequences
from tools.accounts_format import Sequence as Recorded
from tools.accounts_host import machine_of, settings_of
from tools.accounts_replay import Left, Replay, Told

from earmark.core.ledger.commands import ConfigureNode, ObserveMachine, RegisterNode
from earmark.core.model.ids import NodeId
from earmark.drivers.processes import SystemProcesses
from earmark.scenario.given import GivenClock, GivenHost
from earmark.stores.contract import Store
from earmark.stores.memory import MemoryStore
from earmark.stores.sqlite.store import SqliteStore
from earmark.tracker.leases import Leases
from earmark.tracker.questions import Terms
from earmark.tracker.tracker import Tracker
from earmark.tracker.writer import Writer

SHOWN_MAX = 20
EVERY = 10


def main(arguments: Sequence[str] | None = None) -> int:
    """Replay a file and say how many books are wrong; return the exit status."""
    parser = argparse.ArgumentParser(prog="accounts", description="Replay recorded lives of instances and compare every book.")
    parser.add_argument("file", type=Path, help="the recording: one JSON object a line, plain or .gz")
    parser.add_argument("--store", choices=("memory", "sqlite"), default="memory")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    given = parser.parse_args(arguments)
    told, bad, count = Told(), [], 0
    try:
        for number, line in sequences(given.file):
            if isinstance(line, BadLine):
                bad.append(line)
                continue
            count += 1
            with ledger(given.store) as store:
                replay(line, store, told)
            if sys.stderr.isatty() and count % EVERY == 0:
                print(f"\r{count} lives, {told.books} books, line {number}", end="", file=sys.stderr, flush=True)
    except (OSError, EOFError) as error:
        print(f"accounts: {given.file}: {error}", file=sys.stderr)
        return 2
    if sys.stderr.isatty():
        print("\r", end="", file=sys.stderr)
    print(as_json(told, bad, count) if given.json else as_text(given.file, told, bad, count))
    return 1 if told.wrong or bad else 0


def replay(sequence: Recorded, store: Store, told: Told) -> None:
    """Replay one sequence on an empty store."""
    clock, host = GivenClock(), GivenHost(machine_of(sequence.nodes[0]))
    home = node_id(0)

    def opened(on: Store) -> Tracker:
        writer = Writer(on, clock, actor="replay", epoch=1, boot_id=host.boot, timeout_s=10.0)
        terms = Terms(actor="replay", hold_timeout_ms=600_000, default_ttl_ms=None, drain_grace_ms=60_000)
        tracker = Tracker(on, writer, Leases(SystemProcesses()), host, clock, home=home, terms=terms)
        for number, node in enumerate(sequence.nodes):
            enter(writer, number, node)
        return tracker

    Replay(sequence, store, opened, told).run()


def enter(writer: Writer, number: int, node: RecordedNode) -> None:
    """Enter a node; one that is there is answered."""
    uuid = node_id(number)
    writer.submit(RegisterNode(node=uuid, name=node.name))
    writer.submit(ObserveMachine(node=uuid, machine=machine_of(node)))
    writer.submit(ConfigureNode(node=uuid, settings=settings_of(node)))


def node_id(number: int) -> NodeId:
    """Return the uuid of a node of a sequence."""
    return NodeId(f"00000000-0000-4000-8000-{number:012x}")


@contextmanager
def ledger(kind: str) -> Iterator[Store]:
    """Give an empty store, and throw it away."""
    if kind == "memory":
        yield MemoryStore()
        return
    with tempfile.TemporaryDirectory(prefix="earmark-accounts-") as folder:
        store = SqliteStore(Path(folder) / "ledger.db")
        try:
            yield store
        finally:
            store.close()


def as_text(file: Path, told: Told, bad: Sequence[BadLine], count: int) -> str:
    """Return the result for a person."""
    lines = [f"{file}:{line.number}: {line.why}" for line in bad]
    doubles = [left for left in told.left if left.double]
    others = [left for left in told.left if not left.double]
    lines += [_left(left, "double grant of the recorded program") for left in doubles]
    lines += [_left(left, "recorded as granted, refused here") for left in others]
    for wrong in told.wrong[:SHOWN_MAX]:
        lines.append(f"WRONG {wrong.sequence} op {wrong.op} {wrong.what} {wrong.node}")
        lines += [f"    {difference}" for difference in wrong.differences]
    if len(told.wrong) > SHOWN_MAX:
        lines.append(f"… and {len(told.wrong) - SHOWN_MAX} wrong books more")
    if told.causes:
        lines.append("where the recorded program's own books begin to be wrong (compared with the right ones instead):")
        lines += [f"    {number:6} {cause}" for cause, number in sorted(told.causes.items(), key=lambda pair: (-pair[1], pair[0]))]
    lines.append(f"{count} lives, {len(told.left)} instances left out, {len(doubles)} of them double grants, {len(bad)} lines not read")
    lines.append(f"{len(told.wrong)} wrong of {told.books} books, {told.explained} explained")
    return "\n".join(lines)


def _left(left: Left, what: str) -> str:
    return f"{left.sequence} op {left.op} {left.what} {left.instance} on {left.node}: {what}: {left.why}"


def as_json(told: Told, bad: Sequence[BadLine], count: int) -> str:
    """Return the result for a program."""
    return json.dumps(
        {
            "lives": count,
            "books": told.books,
            "wrong": [wrong._asdict() for wrong in told.wrong],
            "explained": told.explained,
            "left_out": [left._asdict() for left in told.left],
            "causes": told.causes,
            "unreadable": [{"line": line.number, "why": line.why} for line in bad],
        }
    )


if __name__ == "__main__":
    sys.exit(main())
