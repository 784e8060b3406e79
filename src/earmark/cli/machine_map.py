"""The picture of a machine: cells x cores with who holds each, memory, pages, disk, devices, and the legend.

Rules of this file: lines of rich Text, of at most the sheet's width, top to bottom in the order in which a person asks: what is it, what
is free, who has the rest. What would not fit is folded into ranges, never left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from rich.cells import cell_len
from rich.text import Text

from earmark.cli import drawing, phrases
from earmark.cli.drawing import DIM, HEAD, MARK_STYLES, Glyphs, Key
from earmark.cli.output import UnitState
from earmark.cli.phrases import clean, name, pages, plural, what_is_held
from earmark.cli.picture import CellPicture, Core, DevicePicture, Picture, PoolPicture, Share, Tile, page_size
from earmark.cli.times import until
from earmark.core.model.claim import Claim
from earmark.core.model.cpuset import format_cpu_list
from earmark.core.model.ids import pages_pool
from earmark.core.model.units import KIB, format_bytes

LABEL = 11
"""Where the drawing begins, right of the labels."""
GROUP = 4
"""Cores drawn together where caches do not group them."""
MAP_LINES_MAX = 40
BAR_MOST = 40
STATS_WIDTH = 17
INDEX_WIDTH = 5
CELL_ROWS_MAX = 4
DEVICES_NAMED_MAX = 8
LEGEND_ROWS_MAX = 52
NOTES_MAX = 5
MEANINGS: dict[UnitState, str] = {
    "free": "free", "reserved": "kept for the host", "unusable": "not allowed to this process", "cordoned": "cordoned",
    "quarantined": "quarantined", "missing": "missing", "foreign": "in use by others",
}  # fmt: skip


class Easel(NamedTuple):
    """What the parts of one picture are drawn with."""

    picture: Picture
    width: int
    glyphs: Glyphs
    key: Key
    now_ms: int


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


# --- what it is ---------------------------------------------------------------------------------------------------------------------


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
    facts = [plural(packages, "package")] if packages > 1 else []
    facts += [plural(cores, "core")] if cores < len(machine.cpus) else []
    facts += [
        plural(len(machine.cpus), "CPU"),
        plural(len(machine.cells), "cell"),
        format_bytes(sum(cell.memory_bytes for cell in machine.cells)),
    ]
    parts = [Text(clean(machine.model, 60))] if machine.model else []
    parts += [Text(fact) for fact in facts]
    yield from drawing.wrapped(parts, easel.width, cell_len(first.plain) + 2, first, gap=f" {easel.glyphs.between} ")


# --- CPUs ---------------------------------------------------------------------------------------------------------------------------


def cpu_block(easel: Easel) -> Iterator[Text]:
    """Yield the map of cells x cores."""
    picture = easel.picture
    free = sum(each.state == "free" for each in picture.cpus.values())
    first = Text(" CPUs".ljust(LABEL), HEAD).append(f"{free} of {len(picture.cpus)} free")
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
        label = f" cell {cell.cell.id}" if number == 0 else ""
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
        yield from drawing.wrapped(parts, easel.width, LABEL, Text(f" cell {cell.cell.id}"))
    yield from _free_run(easel, run)


def _free_run(easel: Easel, run: Sequence[CellPicture]) -> Iterator[Text]:
    if not run:
        return
    cpus = [cpu for cell in run for core in cell.cores for cpu in core.cpus]
    ids = format_cpu_list(cell.cell.id for cell in run)
    label = Text(f" cell {ids}" if len(run) == 1 else f" cells {ids}")
    part = Text(easel.glyphs.marks["free"], MARK_STYLES["free"]).append(f" cpu {format_cpu_list(cpus)} ({len(cpus)})")
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


# --- what is summed -----------------------------------------------------------------------------------------------------------------


def stock_block(easel: Easel) -> Iterator[Text]:
    """Yield bars: shared vCPUs where they are used, memory by cell, huge pages, disks, plain classes."""
    pools = easel.picture.pools
    shared = pools.get("vcpu")
    if shared is not None and shared.stock.used:
        capacity = shared.stock.capacity
        yield stock_row(easel, "shared", shared.shares, capacity, f"{plural(shared.stock.used, 'shared vCPU')} of {capacity}")
    memory = pools.get("memory")
    if memory is not None:
        kept = f" ({format_bytes(memory.stock.reserved)} kept for the host)" if memory.stock.reserved else ""
        yield stock_row(easel, "memory", memory.shares, memory.stock.capacity, _of_bytes(memory.stock.used, memory.stock.capacity), kept)
        yield from cell_memory_rows(easel)
    yield from page_rows(easel)
    for pool in sorted(pools):
        each = pools[pool]
        kind, _, rest = pool.partition(":")
        if kind == "disk":
            yield stock_row(
                easel,
                "disk" if rest == "root" else f"disk {rest}",
                each.shares,
                each.stock.capacity,
                _of_bytes(each.stock.used, each.stock.capacity),
            )
        elif kind == "class":
            text = f"{each.stock.used} of {each.stock.capacity} held"
            yield stock_row(easel, rest.removeprefix("CUSTOM_").lower(), each.shares, each.stock.capacity, text, f" ({rest})")


def stock_row(easel: Easel, label: str, shares: Sequence[Share], capacity: int, text: str, beside: str = "") -> Text:
    """Return one bar with its label, its numbers, and a remark where there is room for it."""
    length = max(12, min(BAR_MOST, easel.width - LABEL - 34))
    line = Text(drawing.padded(f" {label}", LABEL - 1) + " ")
    if capacity <= length and label not in ("memory", "disk"):
        drawn = Text()
        for share in shares:
            drawn.append(easel.key.letter(share.claim) * share.amount, easel.key.style(share.claim))
        drawn.append(easel.glyphs.marks["free"] * max(0, capacity - len(drawn)), MARK_STYLES["free"])
        drawn.append(" " * (length - len(drawn)))
    else:
        drawn = drawing.bar(shares, capacity, length, easel.key, easel.glyphs)
    line.append_text(drawn).append(f"  {text}")
    if cell_len(line.plain) + cell_len(beside) <= easel.width:
        line.append(beside, DIM)
    return line


def _of_bytes(used: int, capacity: int) -> str:
    return f"{format_bytes(used)} of {format_bytes(capacity)} held" if used else f"{format_bytes(capacity)} free"


def cell_memory_rows(easel: Easel) -> Iterator[Text]:
    """Yield the ordinary memory that is bound to each cell, where there are several cells and any is bound; of many cells, those."""
    layout, machine = easel.picture.state.layout, easel.picture.state.machine
    if layout is None or machine is None or len(machine.cells) < 2:  # noqa: PLR2004 - one cell is the node itself
        return
    unit = layout.base_page_kib * KIB
    bound = [(cell, easel.picture.pools[pages_pool(cell.id, layout.base_page_kib)]) for cell in machine.cells]
    if not any(pool.stock.used for _, pool in bound):
        return
    for cell, pool in bound:
        if pool.stock.used or len(bound) <= CELL_ROWS_MAX:
            shares = [Share(share.claim, share.amount * unit) for share in pool.shares]
            capacity = pool.stock.capacity * unit
            text = f"{format_bytes(pool.stock.used * unit)} of {format_bytes(capacity)} bound"
            yield stock_row(easel, f" cell {cell.id}", shares, capacity, text)


def page_rows(easel: Easel) -> Iterator[Text]:
    """Yield the huge-page pools: a bar each, or one line a size where there are many."""
    layout = easel.picture.state.layout
    if layout is None:
        return
    found: dict[int, list[PoolPicture]] = {}
    for pool in easel.picture.pools.values():
        size = page_size(pool)
        if size is not None and size != layout.base_page_kib and pool.stock.total:
            found.setdefault(size, []).append(pool)
    for size in sorted(found, reverse=True):
        pools = sorted(found[size], key=lambda pool: pool.stock.cell or 0)
        used = [pool for pool in pools if pool.stock.used]
        for pool in used:
            text = f"{pool.stock.used} of {plural(pool.stock.capacity, 'page')} held"
            where = f" on cell {pool.stock.cell}" if len(easel.picture.cells) > 1 else ""
            yield stock_row(easel, f"{pages(size)}", pool.shares, pool.stock.capacity, text + where)
        rest = [pool for pool in pools if not pool.stock.used]
        if rest:
            label = Text(f" {pages(size)}" if not used else "")
            yield from drawing.wrapped(_free_pages(easel, rest), easel.width, LABEL, label)


def _free_pages(easel: Easel, pools: Sequence[PoolPicture]) -> list[Text]:
    """Return "8 pages free on each of cells 1-7" for the cells whose pages are all free."""
    alike: dict[int, list[int]] = {}
    for pool in pools:
        alike.setdefault(pool.stock.capacity, []).append(pool.stock.cell or 0)
    parts = []
    for capacity, cells in alike.items():
        where = f" on cell {cells[0]}" if len(cells) == 1 else f" on each of cells {format_cpu_list(cells)}"
        parts.append(Text(f"{plural(capacity, 'page')} free{where if len(easel.picture.cells) > 1 else ''}"))
    return parts


# --- devices ------------------------------------------------------------------------------------------------------------------------


def device_block(easel: Easel) -> Iterator[Text]:
    """Yield the devices that may be handed out (or are held), by kind: a line each, or tiles where there are many."""
    shown: dict[str, list[DevicePicture]] = {}
    for each in easel.picture.devices:
        if each.offered or each.tile.state not in ("free", "cordoned"):
            shown.setdefault(each.device.kind, []).append(each)
    for kind in sorted(shown):
        devices = shown[kind]
        free = sum(each.tile.state == "free" for each in devices)
        if len(devices) > DEVICES_NAMED_MAX:
            tiles = Text()
            for each in devices:
                drawing.tile(tiles, each.tile, easel.key, easel.glyphs)
            count = Text(f"{free} of {len(devices)} free")
            yield from drawing.wrapped([*tiles.divide(range(40, len(tiles), 40)), count], easel.width, LABEL, Text(f" {clean(kind)}"))
            continue
        for number, each in enumerate(devices):
            line = Text(drawing.padded(f" {kind}" if number == 0 else "", LABEL - 1) + " ")
            drawing.tile(line, each.tile, easel.key, easel.glyphs)
            where = f"  cell {each.device.cell}" if each.device.cell is not None else ""
            line.append(f"  {clean(each.device.unit, 48)}").append(where, DIM).append(f"  {clean(each.device.name or '', 60)}", DIM)
            yield line


# --- who has it, and what else there is to say --------------------------------------------------------------------------------------


def legend(easel: Easel) -> Iterator[Text]:
    """Yield who each letter is, until when, and what the marks mean that were used."""
    rows: list[list[str | Text]] = []
    for claim in easel.picture.claims[:LEGEND_ROWS_MAX]:
        holds = Text(what_is_held(claim.grant))
        rows.append(
            [
                _letter(easel, claim.id),
                claim.id,
                *_whose(easel, phrases.consumer_of(claim.consumer, claim.id), claim.owner),
                _end(claim, easel.now_ms),
                holds,
            ]
        )
    for each in easel.picture.quarantines[: LEGEND_ROWS_MAX - len(rows)]:
        mark = Text(easel.glyphs.marks["quarantined"], MARK_STYLES["quarantined"])
        rows.append(
            [
                mark,
                each.claim,
                *_whose(easel, phrases.consumer_of(each.consumer, each.claim), each.owner),
                "quarantined",
                Text(what_is_held(each.grant)),
            ]
        )
    if not rows:
        yield Text(" nothing is held yet", DIM)
    for line in drawing.table(["", "claim", "consumer", "owner", "until", "holds"], rows, easel.width - 1) if rows else []:
        yield Text(" ").append_text(line)
    more = len(easel.picture.claims) + len(easel.picture.quarantines) - len(rows)
    if more > 0:
        yield Text(f" {drawing.OTHERS} {plural(more, 'more claim')}: earmark list", DIM)
    yield from _meanings(easel)


def _whose(easel: Easel, consumer: str, owner: str) -> tuple[str, str]:
    return clean(consumer, easel.width // 5), clean(owner, easel.width // 8)


def _end(claim: Claim, now_ms: int) -> str:
    if claim.phase == "draining":
        return "draining"
    end = until(claim.deadline_ms, now_ms).removeprefix("until ")
    return f"held, {end}" if claim.phase == "held" else end


def _letter(easel: Easel, claim: str) -> Text:
    found = next((known for known in easel.key.letters if known == claim), None)
    return Text(easel.key.letter(found), easel.key.style(found))


def _meanings(easel: Easel) -> Iterator[Text]:
    """Yield one line that says what the marks mean; free explains itself."""
    tiles = [*easel.picture.cpus.values(), *(each.tile for each in easel.picture.devices)]
    used = {tile.state for tile in tiles} - {"free", "taken"}
    parts = [
        Text(easel.glyphs.marks[state], MARK_STYLES[state]).append(f" {words}", DIM) for state, words in MEANINGS.items() if state in used
    ]
    if parts:
        yield from drawing.wrapped(parts, easel.width, 1, Text(" "))


def remarks(easel: Easel) -> Iterator[Text]:
    """Yield cordons, missing units, what the driver could not see, and the first step where nothing is held."""
    state = easel.picture.state
    for key in sorted(state.cordons):
        cordon = state.cordons[key]
        end = "" if cordon.until_ms is None else f", {until(cordon.until_ms, easel.now_ms)}"
        what = clean(cordon.unit) if cordon.unit else "the node gives no new grants"
        yield from _marked(easel, "cordoned", f"{what}: {clean(cordon.reason, 200)}{end}")
    for each in easel.picture.quarantines:
        yield from _marked(
            easel, "quarantined", f"{each.claim}: {clean(each.reason, 200)}; give it back: earmark return {each.claim} --reason …"
        )
    for unit, claim in easel.picture.missing:
        yield from _marked(easel, "missing", f"{clean(unit)} is held by {claim} and the machine no longer has it")
    machine = state.machine
    if machine is None:
        return
    if machine.offline_cpus:
        yield Text(f" offline: cpu {format_cpu_list(machine.offline_cpus)}", DIM)
    for note in machine.notes[:NOTES_MAX]:
        yield from _words(easel, Text(" note:", DIM), clean(note, 300), DIM)
    if len(machine.notes) > NOTES_MAX:
        yield Text(f" and {plural(len(machine.notes) - NOTES_MAX, 'more note')}: earmark discover", DIM)
    if not easel.picture.claims:
        yield Text(" take some:    earmark claim --cpus 1 --mem 512MiB", DIM)
        yield Text(" run in some:  earmark run --cpus 1 -- COMMAND", DIM)


def _marked(easel: Easel, state: UnitState, text: str) -> Iterator[Text]:
    yield from _words(easel, Text(" ").append(easel.glyphs.marks[state], MARK_STYLES[state]), text, "")


def _words(easel: Easel, first: Text, text: str, style: str) -> Iterator[Text]:
    """Yield a text broken at its spaces, behind `first`."""
    yield from drawing.wrapped([Text(word, style) for word in text.split(" ")], easel.width, cell_len(first.plain) + 1, first, gap=" ")
