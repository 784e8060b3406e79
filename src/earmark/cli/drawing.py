"""Drawing for terminals: glyphs, colours, bars, tables. The only module that imports rich, and only commands that draw import it.

Rules of this file: all text is rich Text, never markup, so that a name cannot colour or link anything; texts are cleaned where they enter
a line; without colour every fact is still there as a letter or a mark.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import IO, NamedTuple

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from earmark.cli.output import UnitState
from earmark.cli.phrases import clean
from earmark.cli.picture import Share, Tile
from earmark.core.model.ids import ClaimId

WIDTH_LEAST = 40
WIDTH_MOST = 160
PIPE_WIDTH = 100
TABLE_PIPE_WIDTH = 10_000
COLUMN_LEAST = 12
BELOW_INDENT = 4
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
OTHERS = "*"
PALETTE = (110, 180, 108, 175, 216, 73, 186, 139, 152, 173, 150, 147)
"""Backgrounds (of the 256 colours) on which black letters read well; neighbours differ in hue."""

DIM = "bright_black"
HEAD = "bold"
MARK_STYLES: dict[UnitState, str] = {
    "free": "green", "reserved": DIM, "unusable": DIM, "cordoned": "bold yellow", "quarantined": "bold white on red",
    "missing": "bold red", "foreign": "bold magenta", "faulty": "bold red",
}  # fmt: skip


class Glyphs(NamedTuple):
    """The marks of the picture in an encoding."""

    marks: dict[UnitState, str]
    between: str
    floating: str


CROSS = "\N{MULTIPLICATION SIGN}"
FANCY = Glyphs(
    marks={
        "free": "·",
        "reserved": "=",
        "unusable": "-",
        "cordoned": CROSS,
        "quarantined": "!",
        "missing": "?",
        "foreign": "&",
        "faulty": "#",
    },
    between="·",
    floating="~",
)
PLAIN = Glyphs(marks={**FANCY.marks, "free": ".", "cordoned": "%"}, between="-", floating="~")


class Key(NamedTuple):
    """Which letter and colour stands for which claim."""

    letters: dict[ClaimId, str]

    def letter(self, claim: ClaimId | None) -> str:
        """Return a claim's letter, * for those after the fifty-second."""
        return OTHERS if claim is None else self.letters.get(claim, OTHERS)

    def style(self, claim: ClaimId | None) -> str:
        """Return a claim's style: black on its colour."""
        letter = self.letter(claim)
        index = LETTERS.find(letter)
        return "bold black on white" if index < 0 else f"bold black on color({PALETTE[index % len(PALETTE)]})"


def key_of(claims: Iterable[ClaimId]) -> Key:
    """Return letters for claims in their order."""
    return Key(dict(zip(claims, LETTERS, strict=False)))


def tile(text: Text, one: Tile, key: Key, glyphs: Glyphs) -> None:
    """Append one exclusive thing to a line."""
    if one.state == "taken":
        text.append(key.letter(one.claim), key.style(one.claim))
    else:
        text.append(glyphs.marks[one.state], MARK_STYLES[one.state])


def bar(shares: Sequence[Share], capacity: int, width: int, key: Key, glyphs: Glyphs) -> Text:
    """Return a bar of `width` characters in which each claim's letters take its share; what is held shows even if it is little."""
    text = Text()
    scale = max(capacity, sum(share.amount for share in shares), 1)
    lengths = [max(1, share.amount * width // scale) for share in shares]
    while sum(lengths) > width and max(lengths) > 1:
        lengths[lengths.index(max(lengths))] -= 1
    room = width
    for share, length in zip(shares, lengths, strict=True):
        shown = min(length, room)
        text.append(key.letter(share.claim) * shown, key.style(share.claim))
        room -= shown
    text.append(glyphs.marks["free"] * room, MARK_STYLES["free"])
    return text


def fit(text: Text, width: int) -> Text:
    """Return a text cut or filled to `width` cells, with … where it was cut."""
    if cell_len(text.plain) > width:
        text = text.copy()
        text.truncate(max(0, width), overflow="ellipsis")
    filled = text.copy()
    filled.append(" " * (width - cell_len(filled.plain)))
    return filled


def padded(text: str, width: int) -> str:
    """Return a cleaned text cut or filled to `width` cells."""
    words = clean(text)
    return set_cell_size(words if cell_len(words) <= width else set_cell_size(words, max(0, width - 1)).rstrip() + "…", width)


def wrapped(parts: Sequence[Text], width: int, indent: int, first: Text, gap: str = "   ") -> list[Text]:
    """Return parts set one after another in lines of `width`, the first behind `first`, the others indented."""
    lines = [first.copy()]
    lines[0].append(" " * max(0, indent - cell_len(first.plain)))
    for part in parts:
        line = lines[-1]
        begun = cell_len(line.plain) > indent
        if begun and cell_len(line.plain) + len(gap) + cell_len(part.plain) > width:
            lines.append(Text(" " * indent))
            begun = False
        lines[-1].append_text(Text(gap) + part if begun else part)
    return lines


def table(heads: Sequence[str], rows: Sequence[Sequence[str | Text]], width: int) -> list[Text]:
    """Return a table without rules: columns as wide as they need, the last one broken where the width ends.

    Where hardly anything is left for the last column it stands below its row.
    """
    cells = [[each if isinstance(each, Text) else Text(clean(each)) for each in row] for row in rows]
    widths = [max([cell_len(head), *(cell_len(row[index].plain) for row in cells)]) for index, head in enumerate(heads)]
    indent = sum(widths[:-1]) + 2 * (len(widths) - 1)
    below = indent + min(widths[-1], COLUMN_LEAST) > width
    indent = BELOW_INDENT if below else indent
    shown = heads[:-1] if below else heads
    lines = [_row([Text(head, DIM) for head in shown], widths)] if any(heads) else []
    for row in cells:
        parts = [Text(part, row[-1].style) for part in parts_of(row[-1].plain, width - indent)]
        first = _row(row[:-1], widths)
        if below:
            lines.append(first)
            first = Text(" " * indent)
        lines += wrapped(parts, width, indent, first, gap=" ")
    return lines


def parts_of(text: str, width: int) -> list[str]:
    """Return the parts at which a text may be broken: behind commas, and at spaces where a part is still wider than `width`."""
    parts: list[str] = []
    for part in text.replace(", ", ",\n").split("\n"):
        parts += [part] if cell_len(part) <= width else part.split(" ")
    return parts


def _row(cells: Sequence[Text], widths: Sequence[int]) -> Text:
    line = Text()
    for index, (cell, width) in enumerate(zip(cells, widths, strict=False)):
        line.append_text(fit(cell, width))
        if index < len(widths) - 1:
            line.append("  ")
    line.rstrip()
    return line


class Sheet(NamedTuple):
    """What is drawn on: its width, and whether its encoding has the fancy glyphs."""

    console: Console
    width: int
    glyphs: Glyphs

    def draw(self, lines: Iterable[Text]) -> None:
        """Print lines, each cut at the width."""
        for line in lines:
            line.rstrip()
            self.console.print(line, no_wrap=True, overflow="ellipsis", crop=True, soft_wrap=False, highlight=False)


def sheet(stream: IO[str] | None = None, *, colour: bool, wide: bool = False) -> Sheet:
    """Return the sheet for a stream (standard output). `wide`: not cut where it is no terminal, for tables that a program reads."""
    target = stream or sys.stdout
    terminal = target.isatty()
    colour = colour and not Console(file=target).is_dumb_terminal
    console = Console(
        file=target,
        force_terminal=colour,
        no_color=not colour,
        color_system="256" if colour else None,
        markup=False,
        emoji=False,
        highlight=False,
    )
    width = console.width if terminal or not wide else TABLE_PIPE_WIDTH
    if not terminal and not wide and "COLUMNS" not in console._environ:  # noqa: SLF001 - what rich reads the width from
        width = PIPE_WIDTH
    if not wide:
        width = max(WIDTH_LEAST, min(width, WIDTH_MOST))
    console.width = width
    return Sheet(console, width, glyphs_for(getattr(target, "encoding", None)))


def glyphs_for(encoding: str | None) -> Glyphs:
    """Return the glyphs that an encoding can write."""
    try:
        ("".join(FANCY.marks.values()) + "…").encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return PLAIN
    return FANCY
