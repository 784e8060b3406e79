"""The NUMA cells of a host: their CPUs, memory, huge pages and distances.

Rules of this file: a CPU is in one cell; where nodes overlap the first one keeps it. Memory that belongs to a GPU and shows as a NUMA
node is no cell, because nothing of the host may be put there. Sources: Documentation/ABI/stable/sysfs-devices-node and
admin-guide/mm/{hugetlbpage,numaperf}.rst, Linux 6.12.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from earmark.core.model.cpuset import cpus_of, format_cpu_list, mask_of
from earmark.core.model.topology import CELLS_MAX, Cell, PagePool
from earmark.core.model.units import format_bytes
from earmark.drivers.sysfs import parse
from earmark.drivers.sysfs.tree import Tree

NODE = "/sys/devices/system/node"
HUGE_PAGES = "/sys/kernel/mm/hugepages"
MEMINFO = "/proc/meminfo"
NVIDIA = "/proc/driver/nvidia/gpus"
NODE_FOLDER = re.compile(r"node([0-9]{1,4})")
POOL_FOLDER = re.compile(r"hugepages-([0-9]{1,12})kB")
GPU_NODE = re.compile(r"^Node:[ \t]+([0-9]{1,4})[ \t]*$", re.MULTILINE)
INITIATORS = ("access1/initiators", "access0/initiators")
"""Class 1 counts CPUs only; class 0 may name an accelerator instead."""


def read_cells(tree: Tree, online: tuple[int, ...]) -> tuple[Cell, ...]:
    """Return the cells of a host by number; one cell 0 with all CPUs where the kernel shows no NUMA nodes."""
    nodes = _nodes(tree)
    gpu_nodes = _gpu_nodes(tree)
    kept = tuple(node for node in nodes if node not in gpu_nodes)
    if not kept:
        return (_only_cell(tree, online),)
    for node in nodes:
        if node in gpu_nodes:
            memory = format_bytes(_memory(tree, node, alone=False))
            tree.note(f"{NODE}/node{node}: is memory of the GPU {gpu_nodes[node]} ({memory}), not a cell of the host")
    free = mask_of(online)
    cells: list[Cell] = []
    for node in kept:
        wanted = _cpus(tree, node) & mask_of(online)
        if wanted & ~free:
            tree.note(f"{NODE}/node{node}: shares CPUs {format_cpu_list(cpus_of(wanted & ~free))} with a node before it, which keeps them")
        cells.append(_cell(tree, node, wanted & free, nodes, kept))
        free &= ~wanted
    if free:
        tree.note(f"{NODE}: no online node has the CPUs {format_cpu_list(cpus_of(free))}; they are in no cell")
    if len(kept) > 1:
        _say_unplaced_pages(tree, cells)
    with_cpus = {cell.id for cell in cells if cell.cpus}
    return tuple(_with_initiators(tree, cell, with_cpus) for cell in cells)


def _nodes(tree: Tree) -> tuple[int, ...]:
    matches = (NODE_FOLDER.fullmatch(name) for name in tree.names(NODE))
    nodes = sorted({int(match[1]) for match in matches if match})
    if len(nodes) > CELLS_MAX:
        tree.note(f"{NODE}: only the first {CELLS_MAX} of {len(nodes)} nodes were looked at")
    return tuple(nodes[:CELLS_MAX])


def _gpu_nodes(tree: Tree) -> dict[int, str]:
    """The NUMA nodes that the NVIDIA driver made of GPU memory, with the GPU's address (numa_status of each GPU)."""
    found: dict[int, str] = {}
    for address in tree.names(NVIDIA):
        match = GPU_NODE.search(tree.text(f"{NVIDIA}/{address}/numa_status") or "")
        if match:
            found[int(match[1])] = address
    return found


def _only_cell(tree: Tree, online: tuple[int, ...]) -> Cell:
    tree.note(f"{NODE}: shows no NUMA node; the host is taken as one cell")
    return Cell(id=0, cpus=online, memory_bytes=_host_memory(tree), pages=_pools(tree, HUGE_PAGES))


def _cell(tree: Tree, node: int, mask: int, nodes: tuple[int, ...], kept: tuple[int, ...]) -> Cell:
    folder = f"{NODE}/node{node}/hugepages"
    alone = len(nodes) == 1
    return Cell(
        id=node,
        cpus=cpus_of(mask),
        memory_bytes=_memory(tree, node, alone=alone),
        pages=_pools(tree, HUGE_PAGES if alone and not tree.names(folder) else folder),
        distances=_distances(tree, node, nodes, kept),
    )


def _cpus(tree: Tree, node: int) -> int:
    """The node's list, else its mask, else the CPUs linked in its folder."""
    folder = f"{NODE}/node{node}"
    for name, parser in (("cpulist", parse.cpu_list), ("cpumap", parse.cpu_mask)):
        cpus = tree.parsed(f"{folder}/{name}", parser, "a set of CPUs")
        if cpus is not None:
            return mask_of(cpus)
    matches = (re.fullmatch(r"cpu([0-9]{1,4})", name) for name in tree.names(folder))
    tree.note(f"{folder}: neither cpulist nor cpumap says its CPUs; those linked there were taken")
    return mask_of(int(match[1]) for match in matches if match)


def _memory(tree: Tree, node: int, *, alone: bool) -> int:
    total = tree.parsed(f"{NODE}/node{node}/meminfo", parse.mem_total_bytes, "a node's meminfo with MemTotal")
    if total is not None:
        return total
    if alone:
        return _host_memory(tree)
    tree.note(f"{NODE}/node{node}/meminfo: the memory of cell {node} is not known and counts as none")
    return 0


def _host_memory(tree: Tree) -> int:
    total = tree.parsed(MEMINFO, parse.mem_total_bytes, "a meminfo with MemTotal")
    if total is None:
        tree.note(f"{MEMINFO}: the memory of the host is not known and counts as none")
    return total or 0


def _pools(tree: Tree, folder: str) -> tuple[PagePool, ...]:
    """Pages of the persistent pool: nr_hugepages counts surplus pages too, which go when they are freed and are left out."""
    pools: list[PagePool] = []
    for name in tree.names(folder):
        match = POOL_FOLDER.fullmatch(name)
        if not match or not int(match[1]):
            continue
        total = tree.parsed(f"{folder}/{name}/nr_hugepages", parse.count, "a number of pages")
        if total is None:
            tree.note(f"{folder}/{name}/nr_hugepages: the number of these pages is not known and they are left out")
            continue
        surplus = tree.parsed(f"{folder}/{name}/surplus_hugepages", parse.count, "a number of pages") or 0
        pools.append(PagePool(size_kib=int(match[1]), total=max(0, total - surplus)))
    return tuple(sorted(pools, key=lambda pool: pool.size_kib))


def _say_unplaced_pages(tree: Tree, cells: Iterable[Cell]) -> None:
    placed = {pool.size_kib for cell in cells for pool in cell.pages}
    for pool in _pools(tree, HUGE_PAGES):
        if pool.total and pool.size_kib not in placed:
            tree.note(f"{HUGE_PAGES}: {pool.total} pages of {pool.size_kib} KiB are on no node that says so and are left out")


def _distances(tree: Tree, node: int, nodes: tuple[int, ...], kept: tuple[int, ...]) -> tuple[int, ...]:
    path = f"{NODE}/node{node}/distance"
    row = tree.parsed(path, parse.numbers, "a row of distances")
    if row is None:
        return ()
    if len(row) != len(nodes):
        tree.note(f"{path}: {len(row)} distances where {len(nodes)} are due; they are left out")
        return ()
    return tuple(distance for other, distance in zip(nodes, row, strict=True) if other in kept)


def _with_initiators(tree: Tree, cell: Cell, with_cpus: set[int]) -> Cell:
    if cell.cpus:
        return cell
    for name in INITIATORS:
        matches = (NODE_FOLDER.fullmatch(entry) for entry in tree.names(f"{NODE}/node{cell.id}/{name}"))
        nearest = tuple(sorted({int(match[1]) for match in matches if match} & with_cpus))
        if nearest:
            return Cell(
                id=cell.id, memory_bytes=cell.memory_bytes, pages=cell.pages, distances=cell.distances, initiators=nearest
            )  # fmt: skip
    return cell
