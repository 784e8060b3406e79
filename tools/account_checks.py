"""What the parts of a recorded sequence must agree on before any of it is used.

Rules of this file: nodes, flavors, cells, CPUs, pages and devices that are named must be there; a sequence begins with empty nodes.
"""

from __future__ import annotations

from collections.abc import Mapping

from tools.account_format import CLAIMING, OF_NODES, Flavor, Host, Node, NovaBook, Op, Placed, RightBook, Sequence


class Disagrees(ValueError):
    """Parts of a sequence contradict each other; `place` says where."""

    def __init__(self, place: str, message: str) -> None:
        super().__init__(message)
        self.place = place


def check(sequence: Sequence) -> None:
    """Raise Disagrees at the first thing in a sequence that contradicts another."""
    nodes = {node.name: node for node in sequence.nodes}
    if len(nodes) != len(sequence.nodes):
        raise Disagrees("nodes", "two nodes have one name")
    for number, node in enumerate(sequence.nodes):
        _check_host(node.host, f"nodes[{number}].host")
    if set(sequence.start) != set(nodes):
        raise Disagrees("start", f"has the nodes {sorted(sequence.start)}, the sequence has {sorted(nodes)}")
    for name, book in sequence.start.items():
        _check_book(book, nodes[name], f"start.{name}")
        if book.vcpus_used or book.local_gb_used or book.memory_mb_used != nodes[name].reserved_memory_mb:
            raise Disagrees(f"start.{name}", "a sequence begins with empty nodes")
    for number, op in enumerate(sequence.ops):
        _check_op(op, nodes, sequence.flavors, f"ops[{number}]")


def _check_host(host: Host, place: str) -> None:
    cells = {cell.id for cell in host.cells}
    if len(cells) != len(host.cells):
        raise Disagrees(f"{place}.cells", "two cells have one id")
    owner: dict[int, int] = {}
    for number, cell in enumerate(host.cells):
        here = f"{place}.cells[{number}]"
        cpus = {*cell.cpus.shared, *cell.cpus.dedicated}
        for cpu in (*cpus, *(cpu for core in cell.siblings for cpu in core)):
            if owner.setdefault(cpu, cell.id) != cell.id:
                raise Disagrees(here, f"CPU {cpu} is in cell {owner[cpu]} too")
        threads = [cpu for core in cell.siblings for cpu in core]
        if len(threads) != len(set(threads)) or not set(threads) <= cpus:
            raise Disagrees(f"{here}.siblings", "a CPU is in two cores, or in none of the cell's sets")
        if len({each.size_kb for each in cell.pages}) != len(cell.pages):
            raise Disagrees(f"{here}.pages", "a page size is named twice")
        if cell.used.memory_mb or cell.used.pinned_cpus or cell.used.shared_vcpus or any(each.used for each in cell.pages):
            raise Disagrees(f"{here}.used", "a sequence begins with empty hosts")
        if host.cpu_mode != "default" and {*cell.cpus.shared} & {*cell.cpus.dedicated}:
            raise Disagrees(f"{here}.cpus", f"a CPU is in both sets, which only cpu_mode default has, found {host.cpu_mode}")
    addresses = {device.address for device in host.pci}
    if len(addresses) != len(host.pci):
        raise Disagrees(f"{place}.pci", "two devices have one address")
    for number, device in enumerate(host.pci):
        if device.parent is not None and device.parent not in addresses:
            raise Disagrees(f"{place}.pci[{number}].parent", f"no device has the address {device.parent}")
        if device.status != "available" or device.owner is not None:
            raise Disagrees(f"{place}.pci[{number}].status", "a sequence begins with free devices")


def _check_book(book: NovaBook | RightBook, node: Node, place: str) -> None:
    cells = {str(cell.id): {str(each.size_kb) for each in cell.pages} for cell in node.host.cells}
    if set(book.cells) != set(cells):
        raise Disagrees(f"{place}.cells", f"has the cells {sorted(book.cells)}, the host has {sorted(cells)}")
    for name, cell in book.cells.items():
        if set(cell.pages) != cells[name]:
            raise Disagrees(f"{place}.cells.{name}.pages", f"has the sizes {sorted(cell.pages)}, the host has {sorted(cells[name])}")
    unknown = set(book.pci) - {device.address for device in node.host.pci}
    if unknown:
        raise Disagrees(f"{place}.pci", f"the host has no device {min(unknown)}")


def _check_op(op: Op, nodes: Mapping[str, Node], flavors: Mapping[str, Flavor], place: str) -> None:
    wanted: dict[str, object] = {"node": op.node} if op.op in OF_NODES else {"instance": op.instance}
    if op.op in CLAIMING:
        wanted |= {"node": op.node, "flavor": op.flavor, "result": op.result, "placement": op.placement if op.done else "none"}
    for name, value in wanted.items():
        if value is None:
            raise Disagrees(place, f"{op.op} needs the field `{name}`")
    for name, value in (("node", op.node), ("from", op.source), ("to", op.to)):
        if value is not None and value not in nodes:
            raise Disagrees(f"{place}.{name}", f"the sequence has no node {value!r}")
    if op.flavor is not None and op.flavor not in flavors:
        raise Disagrees(f"{place}.flavor", f"the sequence has no flavor {op.flavor!r}")
    for field, names in (
        ("after", op.after),
        ("ledger", op.ledger),
        ("ledger_differs", op.ledger_differs),
        ("ledger_cause", op.ledger_cause),
    ):
        for name in names:
            if name not in nodes:
                raise Disagrees(f"{place}.{field}", f"the sequence has no node {name!r}")
    for name, book in op.after.items():
        _check_book(book, nodes[name], f"{place}.after.{name}")
    for name, right in op.ledger.items():
        _check_book(right, nodes[name], f"{place}.ledger.{name}")
    if set(op.ledger) != set(op.ledger_differs):
        raise Disagrees(f"{place}.ledger", "names other nodes than ledger_differs")
    if op.op in CLAIMING and op.placement is not None and op.node is not None and op.flavor is not None:
        _check_placed(op.placement, nodes[op.node].host, flavors[op.flavor], f"{place}.placement")


def _check_placed(placed: Placed, host: Host, flavor: Flavor, place: str) -> None:
    cells = {cell.id: cell for cell in host.cells}
    for number, cell in enumerate(placed.cells or ()):
        here = f"{place}.cells[{number}]"
        there = cells.get(cell.host_cell)
        if there is None:
            raise Disagrees(f"{here}.host_cell", f"the host has no cell {cell.host_cell}")
        outside = {*cell.pcpus, *cell.cpuset_reserved} - {*there.cpus.shared, *there.cpus.dedicated}
        if outside:
            raise Disagrees(here, f"host cell {cell.host_cell} has no CPU {min(outside)}")
        if sorted(cell.pcpus) != sorted(cell.cpu_pinning.values()):
            raise Disagrees(f"{here}.pcpus", "other CPUs than in cpu_pinning")
        vcpus = sorted(str(vcpu) for vcpu in cell.vcpus)
        if sorted((*cell.cpu_pinning, *map(str, cell.shared_vcpus))) != vcpus:
            raise Disagrees(f"{here}.vcpus", "not the vCPUs of cpu_pinning and shared_vcpus")
        if cell.pagesize_kb is not None and cell.pagesize_kb not in {each.size_kb for each in there.pages}:
            raise Disagrees(f"{here}.pagesize_kb", f"host cell {cell.host_cell} has no such pages")
    if placed.cells is not None:
        vcpus_there = sorted(vcpu for cell in placed.cells for vcpu in cell.vcpus)
        if vcpus_there != list(range(flavor.vcpus)):
            raise Disagrees(f"{place}.cells", f"the cells do not name each of the flavor's {flavor.vcpus} vCPUs once")
        if sum(cell.memory_mb for cell in placed.cells) != flavor.memory_mb:
            raise Disagrees(f"{place}.cells", f"the cells' memory is not the flavor's {flavor.memory_mb} MB")
    unknown = set(placed.pci) - {device.address for device in host.pci}
    if unknown:
        raise Disagrees(f"{place}.pci", f"the host has no device {min(unknown)}")
    if len(set(placed.pci)) != len(placed.pci):
        raise Disagrees(f"{place}.pci", "a device is named twice")
