"""The picture of a machine: cells x cores with who holds each, memory, pages, disk, devices, and the legend.

Rules of this file: lines of rich Text, of at most the sheet's width, top to bottom in the order in which a person asks: what is it, what
is free, who has the rest. What would not fit is folded into ranges, never left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.cells import cell_len
from rich.text import Text

from earmark.cli import drawing
from earmark.cli.drawing import DIM, HEAD, MARK_STYLES, Glyphs
from earmark.cli.map_legend import legend, remarks
from earmark.cli.map_stocks import LABEL, Easel, device_block, stock_block
from earmark.cli.phrases import clean, name
from earmark.cli.picture import CellPicture, Core, Picture, Tile
from earmark.core.model.cpuset import format_cpu_list
from earmark.core.model.topology import NO_CELL
from earmark.core.model.units import counted, format_bytes

GROUP = 4
"""Cores drawn together where caches do not group them."""
MAP_LINES_MAX = 40
STATS_WIDTH = 17
INDEX_WIDTH = 5


def machine_map(picture: Picture, *, width: int, glyphs: Glyphs, now_ms: int) -> list[Text]:
    """Return the picture of one node as lines of at most `width` cells; `now_ms` is the moment that "until" is reckoned from."""
    holders = [claim.id for claim in picture.claims] + [each.claim for each in picture.quarantines]
    easel = Easel(picture, width, glyphs, drawing.key_of(holders), now_ms)
    blocks = [list(headline(easel))]
    if picture.state.machine is not None:
        blocks += [list(cpu_block(easel)), list(stock_block(easel)), list(device_block(easel))]
    blocks += [list(legend(easel)), list(remarks(easel))]
    lines: list[Text] = []
    for block in blocks:
        if block and lines:
            lines.append(Text())
        lines += block
    return lines


# --- what it is --------------------------------------------------------------------------------------------------------------------------


def headline(easel: Easel) -> Iterator[Text]:
    """Yield the node's name and what the machine consists of."""
    state = easel.picture.state
    first = Text(" ").append(name(state.name), HEAD)
    machine = state.machine
    if machine is None:
        yield first.append("  its machine has not been observed yet", DIM)
        return
    cores = len({cpu.core for cpu in machine.cpus})
    packages = len({cpu.package for cpu in machine.cpus if cpu.package is not None})
    facts = [counted(packages, "package")] if packages > 1 else []
    facts += [counted(cores, "core")] if cores < len(machine.cpus) else []
    facts += [
        counted(len(machine.cpus), "CPU"),
        counted(len(machine.cells), "cell"),
        format_bytes(sum(cell.memory_bytes for cell in machine.cells)),
    ]
    parts = [Text(clean(machine.model, 60))] if machine.model else []
    parts += [Text(fact) for fact in facts]
    yield from drawing.wrapped(parts, easel.width, cell_len(first.plain) + 2, first, gap=f" {easel.glyphs.between} ")


# --- CPUs --------------------------------------------------------------------------------------------------------------------------------


def cpu_block(easel: Easel) -> Iterator[Text]:
    """Yield the map of cells x cores."""
    picture = easel.picture
    free = sum(each.state == "free" for each in picture.cpus.values())
    first = Text().append(" CPUs".ljust(LABEL), HEAD).append(f"{free} of {len(picture.cpus)} free")
    policy = picture.state.settings.cpu_policy
    if policy == "overlap":
        first.append(f" {easel.glyphs.between} policy overlap: a dedicated CPU may also be a shared one", "yellow")
    elif policy == "split":
        first.append(f" {easel.glyphs.between} policy split: {easel.glyphs.floating} is for shared vCPUs", DIM)
    yield first
    cells = [cell for cell in picture.cells if cell.cores]
    rows = [cell_rows(easel, cell) for cell in cells]
    if sum(len(each) for each in rows) <= MAP_LINES_MAX:
        for row in rows:
            yield from row
    else:
        yield from folded_cells(easel, cells)


def cell_rows(easel: Easel, cell: CellPicture) -> list[Text]:
    """Return a cell's lines: cores side by side, the threads of a core together, the cores of a cache together."""
    threads = max(len(core.cpus) for core in cell.cores)
    gap = "" if threads == 1 else " "
    groups = cache_groups(cell.cores)
    room = easel.width - LABEL - STATS_WIDTH
    lines = break_lines(groups, threads + len(gap), 1, room)
    if len(lines) > 1:
        lines = break_lines(groups, threads + len(gap), 1, room - INDEX_WIDTH)
    drawn = []
    for number, groups_of_line in enumerate(lines):
        label = cell_label(cell) if number == 0 else ""
        line = Text(label.ljust(LABEL))
        if len(lines) > 1:
            line.append(f"{groups_of_line[0][0].id:>4} ", DIM)
        for index, group in enumerate(groups_of_line):
            line.append(" " + gap if index else "")
            for position, core in enumerate(group):
                line.append(gap if position else "")
                draw_core(easel, line, core, threads)
        drawn.append(line)
    _with_stats(easel, cell, drawn)
    return drawn


def cell_label(cell: CellPicture) -> str:
    """Return how a cell is called at the left."""
    return " no cell" if cell.cell.id == NO_CELL else f" cell {cell.cell.id}"


def _with_stats(easel: Easel, cell: CellPicture, drawn: list[Text]) -> None:
    """Append how many CPUs of the cell are free, and where there is room which ones it has."""
    cpus = [cpu for core in cell.cores for cpu in core.cpus]
    free = sum(easel.picture.cpus[cpu].state == "free" for cpu in cpus)
    widest = max(cell_len(line.plain) for line in drawn)
    drawn[0].append(" " * (widest - cell_len(drawn[0].plain)) + f"   {free} of {len(cpus)} free")
    numbers = f"   cpu {format_cpu_list(cpus)}"
    if cell_len(drawn[0].plain) + len(numbers) <= easel.width:
        drawn[0].append(numbers, DIM)


def draw_core(easel: Easel, line: Text, core: Core, threads: int) -> None:
    """Append the threads of one core."""
    layout = easel.picture.state.layout
    for cpu in core.cpus:
        tile = easel.picture.cpus[cpu]
        if tile.state == "free" and layout is not None and layout.policy == "split" and not layout.dedicated >> cpu & 1:
            line.append(easel.glyphs.floating, MARK_STYLES["free"])
        else:
            drawing.tile(line, tile, easel.key, easel.glyphs)
    line.append(" " * (threads - len(core.cpus)))


def cache_groups(cores: Sequence[Core]) -> list[list[Core]]:
    """Return the cores that share a last-level cache together, or fours where caches say nothing."""
    groups: list[list[Core]] = []
    for core in cores:
        if groups and core.l3 is not None and groups[-1][0].l3 == core.l3:
            groups[-1].append(core)
        else:
            groups.append([core])
    if len(groups) == 1 or all(len(group) == 1 for group in groups):
        return [list(cores[start : start + GROUP]) for start in range(0, len(cores), GROUP)]
    return groups


def break_lines(groups: Sequence[Sequence[Core]], step: int, gap: int, room: int) -> list[list[list[Core]]]:
    """Return lines of groups of cores that fit into `room` cells at `step` cells a core; a group longer than a line is broken."""
    per_line = max(1, room // step)
    per_line -= per_line % GROUP if per_line > GROUP else 0
    pieces = [list(group[start : start + per_line]) for group in groups for start in range(0, len(group), per_line)]
    fullest = max((len(piece) for piece in pieces), default=1)
    per_row = max(1, room // (fullest * step + gap))
    if per_row < len(pieces):
        per_row = 1 << (per_row.bit_length() - 1)
    return [pieces[start : start + per_row] for start in range(0, len(pieces), per_row)]


def folded_cells(easel: Easel, cells: Sequence[CellPicture]) -> Iterator[Text]:
    """Yield cells as ranges of CPUs by holder; neighbours that are wholly free share a line."""
    run: list[CellPicture] = []
    for cell in cells:
        parts = folded(easel, cell)
        if len(parts) == 1 and all(easel.picture.cpus[cpu].state == "free" for core in cell.cores for cpu in core.cpus):
            run.append(cell)
            continue
        yield from _free_run(easel, run)
        run = []
        yield from drawing.wrapped(parts, easel.width, LABEL, Text(cell_label(cell)))
    yield from _free_run(easel, run)


def _free_run(easel: Easel, run: Sequence[CellPicture]) -> Iterator[Text]:
    if not run:
        return
    cpus = [cpu for cell in run for core in cell.cores for cpu in core.cpus]
    ids = format_cpu_list(cell.cell.id for cell in run)
    label = Text(f" cell {ids}" if len(run) == 1 else f" cells {ids}")
    part = Text().append(easel.glyphs.marks["free"], MARK_STYLES["free"]).append(f" cpu {format_cpu_list(cpus)} ({len(cpus)})")
    yield from drawing.wrapped([part], easel.width, max(LABEL, cell_len(label.plain) + 2), label)


def folded(easel: Easel, cell: CellPicture) -> list[Text]:
    """Return a cell's CPUs as ranges, by holder and state in the order of their first CPU."""
    ranges: dict[Tile, list[int]] = {}
    for cpu in sorted(cpu for core in cell.cores for cpu in core.cpus):
        ranges.setdefault(easel.picture.cpus[cpu], []).append(cpu)
    parts = []
    for tile, cpus in ranges.items():
        part = Text()
        drawing.tile(part, tile, easel.key, easel.glyphs)
        parts.append(part.append(f" cpu {format_cpu_list(cpus)} ({len(cpus)})"))
    return parts
