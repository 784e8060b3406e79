"""`earmark receive`: what a compute service says of its instances, moves and guests, compared with the ledger."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from earmark.cli import phrases
from earmark.cli.output_lives import ReceivedOut, VerdictOut
from earmark.cli.session import Session
from earmark.cli.verb import Verb
from earmark.core.model.record import RECORD_BYTES_MAX
from earmark.errors import InvalidRequest

if TYPE_CHECKING:
    from earmark.tracker.verdicts import Received

STDIN = "-"
EXIT_NOT_ALL = 1
KINDS = ("accepted", "stale", "contradictory", "unknown", "invalid", "gone")


@click.command(
    cls=Verb,
    examples=(
        "earmark receive records.jsonl",
        "earmark receive listing.jsonl --complete n1 --apply",
        "earmark receive guests.jsonl --all-guests n1",
        "earmark receive moves.jsonl --apply",
    ),
)
@click.argument("file", metavar="FILE")
@click.option(
    "--complete",
    multiple=True,
    metavar="NODE",
    help="FILE lists all instances of NODE: one that is missing is told, with --apply deleted; repeatable.",
)
@click.option("--all-guests", multiple=True, metavar="NODE", help="FILE lists all guests seen on NODE; repeatable.")
@click.option(
    "--apply", is_flag=True, help="Delete what a complete listing lacks; confirm, revert or abort an open move whose record says so."
)
@click.pass_obj
def receive(session: Session, *, file: str, complete: tuple[str, ...], all_guests: tuple[str, ...], apply: bool) -> int:
    """Compare what a compute service says with the ledger.

    FILE has one record a line, each a JSON object (- for standard input). Each line gets a verdict. What is stale, contradictory, unknown or invalid changes nothing and stops no other; the exit code is 1 then.
    """
    numbers: list[int] = []
    received = session.tracker.receive(lines_of(file, numbers), complete=complete, all_guests=all_guests, apply=apply)
    rows = rows_of(received, numbers)
    if session.json:
        session.emit(ReceivedOut(verdicts=rows, listing=received.listing or None))
    else:
        if received.listing:
            session.note(f"earmark: the listing is not taken as complete: {phrases.clean(received.listing)}")
        shown = [row for row in rows if not session.quiet or row.verdict != "accepted"]
        session.out([line_of(row) for row in shown] or ([] if session.quiet else "no records"))
    return 0 if received.clean else EXIT_NOT_ALL


def lines_of(file: str, numbers: list[int]) -> Iterator[bytes]:
    """Yield the lines of a file that are not empty, and note the number of each; raises InvalidRequest if it cannot be read."""
    if file == STDIN:
        yield from numbered(sys.stdin.buffer, numbers)
        return
    try:
        with Path(file).open("rb") as opened:
            yield from numbered(opened, numbers)
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"{file!r} cannot be read: {error}", found=file) from error


def numbered(opened: BinaryIO, numbers: list[int]) -> Iterator[bytes]:
    """Yield the lines that are not empty; of one that is longer than a record may be only so much that it is found to be."""
    number = 0
    while line := opened.readline(RECORD_BYTES_MAX + 2):
        number += 1
        rest = line
        while len(rest) > RECORD_BYTES_MAX + 1 and not rest.endswith(b"\n"):
            rest = opened.readline(RECORD_BYTES_MAX + 2)
        if line.strip():
            numbers.append(number)
            yield line.rstrip(b"\r\n")


def rows_of(received: Received, numbers: Sequence[int]) -> list[VerdictOut]:
    """Return all verdicts in order of their places, which are line numbers, the instances that are gone last."""
    rows = [
        VerdictOut(
            place=numbers[each.place - 1] if each.place else None, verdict=kind, about=each.about, reason=each.reason, changed=each.changed
        )
        for kind in KINDS
        for each in getattr(received, kind)
    ]
    return sorted(rows, key=lambda row: (row.place is None, row.place or 0, row.about))


def line_of(row: VerdictOut) -> str:
    """Return one verdict as a line."""
    place = f"{row.place}: " if row.place is not None else ""
    if row.verdict == "gone":
        done = "deleted" if row.changed else "not deleted"
        return f"{phrases.clean(row.about)}: {done}, it is not in the complete listing" + ("" if row.changed else " (--apply deletes it)")
    done = "" if row.changed or row.verdict != "accepted" else " (nothing changed)"
    reason = f": {phrases.clean(row.reason)}" if row.reason else ""
    return f"{place}{phrases.clean(row.about)} is {row.verdict}{reason}{done}"
