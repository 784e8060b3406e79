"""What the picture shows below its map: bars of what is summed, and devices.

Rules of this file: a bar's letters are the claims that hold it, in the order of the legend; what is wholly free is said in few words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from rich.cells import cell_len
from rich.text import Text

from earmark.cli import drawing
from earmark.cli.drawing import DIM, MARK_STYLES, Glyphs, Key
from earmark.cli.phrases import clean, pages
from earmark.cli.picture import DevicePicture, Picture, PoolPicture, Share, page_size
from earmark.core.model.cpuset import format_cpu_list
from earmark.core.model.ids import UnitId, pages_pool, share_pool
from earmark.core.model.topology import MIG, Device
from earmark.core.model.units import KIB, counted, format_bytes

LABEL = 11
"""Where the drawing begins, right of the labels."""
BAR_MOST = 40
CELL_ROWS_MAX = 4
DEVICES_NAMED_MAX = 8
GROUPS_NAMED_MAX = 8
PAIR = 2
UUID = re.compile(r"((?:GPU|MIG)-[0-9a-f]{8})-[0-9a-f]{4}-")


class Easel(NamedTuple):
    """What the parts of one picture are drawn with."""

    picture: Picture
    width: int
    glyphs: Glyphs
    key: Key
    now_ms: int


def stock_block(easel: Easel) -> Iterator[Text]:
    """Yield bars: shared vCPUs where they are used, memory by cell, huge pages, disks, plain classes."""
    pools = easel.picture.pools
    shared = pools.get("vcpu")
    if shared is not None and shared.stock.used:
        capacity = shared.stock.capacity
        yield stock_row(easel, "shared", shared.shares, capacity, f"{counted(shared.stock.used, 'shared vCPU')} of {capacity}")
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
            text = f"{pool.stock.used} of {counted(pool.stock.capacity, 'page')} held"
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
        parts.append(Text(f"{counted(capacity, 'page')} free{where if len(easel.picture.cells) > 1 else ''}"))
    return parts


# --- devices -----------------------------------------------------------------------------------------------------------------------------


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
            line.append(f"  {clean(each.device.unit, 48)}").append(where, DIM).append(f"  {described(each)}", DIM)
            yield line
            yield from share_row(easel, each)
    yield from link_rows(easel)


def share_row(easel: Easel, each: DevicePicture) -> Iterator[Text]:
    """Yield who holds which part of a device of which parts are given."""
    pool = easel.picture.pools.get(share_pool(each.device.unit))
    if pool is not None and pool.stock.used:
        yield stock_row(easel, "  shares", pool.shares, pool.stock.total, f"{pool.stock.used} of {pool.stock.total} held")


def link_rows(easel: Easel) -> Iterator[Text]:
    """Yield the groups of devices that are linked to each other: how many are wholly free, and which."""
    groups = linked_groups([each.device for each in easel.picture.devices])
    if not groups:
        return
    tiles = {each.device.unit: each for each in easel.picture.devices}
    pools = easel.picture.pools
    used = {unit for unit in tiles if (pool := pools.get(share_pool(unit))) is not None and pool.stock.used}
    free = {unit for unit, each in tiles.items() if each.offered and each.tile.state == "free"} - used
    whole = [group for group in groups if free.issuperset(group)]
    what = "pair" if all(len(group) == PAIR for group in groups) else "group"
    short = {unit: short_name(unit) for group in groups for unit in group}
    if len(set(short.values())) < len(short):
        short = {unit: unit.partition(":")[2] for unit in short}
    parts = [Text(f"{len(whole)} of {counted(len(groups), what)} left")]
    parts += [Text(" + ".join(clean(short[unit], 48) for unit in group), DIM) for group in whole[:GROUPS_NAMED_MAX]]
    if len(whole) > GROUPS_NAMED_MAX:
        parts.append(Text(f"and {len(whole) - GROUPS_NAMED_MAX} more", DIM))
    yield from drawing.wrapped(parts, easel.width, LABEL, Text(" linked"), gap=f" {easel.glyphs.between} ")


def linked_groups(devices: Sequence[Device]) -> list[tuple[UnitId, ...]]:
    """Return the devices that are linked to each other, directly or by others, as groups in order of their first name."""
    links = {device.unit: device.links for device in devices if device.links}
    groups = []
    seen: set[UnitId] = set()
    for unit in sorted(links):
        group: set[UnitId] = set()
        ahead = [unit] if unit not in seen else []
        while ahead:
            one = ahead.pop()
            if one not in group:
                group.add(one)
                ahead += [other for other in links.get(one, ()) if other in links]
        seen |= group
        if len(group) > 1:
            groups.append(tuple(sorted(group)))
    return groups


def short_name(unit: UnitId) -> str:
    """Return the beginning of a UUID, which mostly tells GPUs apart; another name as it is."""
    local = unit.partition(":")[2]
    match = UUID.match(local)
    return match[1] if match else local


def described(each: DevicePicture) -> str:
    """Return what a device is: its name, else vendor and product; its profile, its memory, whose instance it is, what is wrong with it."""
    device = each.device
    parts = [device.name or (":".join(each for each in (device.vendor_id, device.product_id) if each))]
    if device.profile is not None and device.profile not in parts[0]:
        parts.append(device.profile)
    if device.memory_bytes is not None:
        parts.append(format_bytes(device.memory_bytes))
    if device.kind == MIG and device.parent is not None:
        parts.append(f"of {short_name(device.parent)}")
    if device.fault is not None:
        parts.append(device.fault)
    return clean("  ".join(part for part in parts if part), 100)
