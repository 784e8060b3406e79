"""Guest cells onto host cells: who can lie where, all at once, and best.

Rules of this file: guest cells and host cells are numbers from 0; a row is the mask of the host cells that can serve a guest cell. Kuhn's
augmenting paths say whether all can be served, Hall's condition why not, the Hungarian method which way is best. Everything is polynomial.
Sources: H. W. Kuhn, "The Hungarian method for the assignment problem" (1955); P. Hall, "On representatives of subsets" (1935).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from earmark.core.model.cpuset import iterate


class Hall(NamedTuple):
    """Guest cells that together can be served by fewer host cells than they are: masks of both."""

    guests: int
    hosts: int


def matching(rows: Sequence[int], forced: int = 0) -> list[int] | Hall:
    """Return a host cell for each guest cell, all different, or why there is none.

    `forced` are host cells that must be among them; the caller has checked that they can be (`independent`).
    """
    served: dict[int, int] = {}  # host -> guest
    if forced:
        served = _forced(rows, forced)
    matched = set(served.values())
    for guest in range(len(rows)):
        if guest not in matched:
            reached = _augment(guest, rows, served)
            if reached is not None:
                return _violator(guest, reached, served)
    answer = [0] * len(rows)
    for host, guest in served.items():
        answer[guest] = host
    return answer


def independent(rows: Sequence[int], hosts: int) -> bool:
    """Say whether some host cells can all be used at once, each by another guest cell."""
    return len(_forced(rows, hosts)) == hosts.bit_count()


def _forced(rows: Sequence[int], hosts: int) -> dict[int, int]:
    """Return as many of some host cells as can be served at once, with their guest cells."""
    columns = {host: sum(1 << guest for guest, row in enumerate(rows) if row >> host & 1) for host in iterate(hosts)}
    order = list(columns)
    taken: dict[int, int] = {}  # guest -> index in order
    for index in range(len(order)):
        _augment(index, [columns[host] for host in order], taken)
    return {order[index]: guest for guest, index in taken.items()}


def _augment(start: int, rows: Sequence[int], served: dict[int, int]) -> int | None:
    """Serve one more left node by an augmenting path; return None if that is done, else the mask of what it could reach."""
    came: dict[int, int] = {}
    reached = 0
    queue = [start]
    for left in queue:
        for right in iterate(rows[left] & ~reached):
            reached |= 1 << right
            came[right] = left
            if right not in served:
                _flip(right, came, served)
                return None
            queue.append(served[right])
    return reached


def _flip(end: int, came: dict[int, int], served: dict[int, int]) -> None:
    """Follow an augmenting path back from its unserved end: each left node on it gets the right node by which it was left."""
    right: int | None = end
    while right is not None:
        left = came[right]
        before = next((other for other, owner in served.items() if owner == left), None)
        if before is not None:
            del served[before]
        served[right] = left
        right = before


def _violator(guest: int, reached: int, served: dict[int, int]) -> Hall:
    """Return the guest cells that fight for the host cells that an unserved one could reach."""
    guests = 1 << guest
    for host in iterate(reached):
        guests |= 1 << served[host]
    return Hall(guests, reached)


def cheapest(costs: Sequence[Sequence[int | None]]) -> list[int] | None:
    """Return the host cell of each guest cell in the assignment of the least total cost (None: not possible), None if there is none.

    Costs may be negative and as large as one likes: they are whole numbers, added exactly. Equal inputs give equal answers.
    """
    count = len(costs[0]) if costs else 0
    if len(costs) > count:
        return None
    finite = [cost for row in costs for cost in row if cost is not None]
    far = (max(finite, default=0) - min(finite, default=0) + 1) * (len(costs) + 1) + abs(max(finite, default=0))
    table = [[far if cost is None else cost for cost in row] for row in costs]
    found = _hungarian(table, count)
    if any(costs[guest][host] is None for guest, host in enumerate(found)):
        return None
    return found


def _hungarian(table: Sequence[Sequence[int]], count: int) -> list[int]:
    """Return the cheapest assignment of all rows to different columns, row by row with potentials."""
    rows = [0] * (len(table) + 1)
    columns = [0] * (count + 1)
    owner = [0] * (count + 1)  # column -> row, both from 1; 0 is nobody
    for row in range(1, len(table) + 1):
        owner[0] = row
        column, way = _shortest_path(table, rows, columns, owner)
        while column:
            before = way[column]
            owner[column] = owner[before]
            column = before
    answer = [0] * len(table)
    for column in range(1, count + 1):
        if owner[column]:
            answer[owner[column] - 1] = column - 1
    return answer


def _shortest_path(
    table: Sequence[Sequence[int]], rows: list[int], columns: list[int], owner: Sequence[int]
) -> tuple[int, Sequence[int]]:  # fmt: skip
    """Grow the tree of cheapest ways from column 0's row until it reaches a free column; return that and the ways, change the potentials."""
    far = len(columns)
    least: list[int | None] = [None] * far
    way = [0] * far
    open_columns = list(range(1, far))
    tree = [0]
    column = 0
    while owner[column] or not column:
        costs, base = table[owner[column] - 1], rows[owner[column]]
        best: int | None = None
        following = 0
        for other in open_columns:
            cost = costs[other - 1] - base - columns[other]
            known = least[other]
            if known is None or cost < known:
                least[other] = known = cost
                way[other] = column
            if best is None or known < best:
                best, following = known, other
        step = best or 0
        for used in tree:
            rows[owner[used]] += step
            columns[used] -= step
        open_columns.remove(following)
        for other in open_columns:
            least[other] = (least[other] or 0) - step
        tree.append(following)
        column = following
    return column, way
