"""`earmark stats`: what is used of each node, what runs there, what is in progress."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import click

from earmark.cli import output_statistics as o
from earmark.cli import phrases
from earmark.cli.session import Session
from earmark.cli.verb import Verb
from earmark.cli.views_statistics import stats_out
from earmark.core.model.units import counted, format_bytes
from earmark.errors import InvalidRequest

LABEL_WIDTH = 16
NAMES_SHOWN_MAX = 20
NODE_HEADS = (
    "node", "used", "VCPU", "PCPU", "memory", "disk", "devices", "instances", "claims", "I/O work", "failed builds", "state",
)  # fmt: skip
AMOUNT_CLASSES = frozenset({"MEMORY_BYTES", "DISK_BYTES"})


@click.command(cls=Verb, examples=("earmark stats", "earmark stats --node n1", "earmark stats --fleet --json"))
@click.option("--node", metavar="NODE", help="Only this node, with its stocks; else all of the ledger.")
@click.option("--fleet", is_flag=True, help="Only all nodes together.")
@click.pass_obj
def stats(session: Session, *, node: str | None, fleet: bool) -> int:
    """Say what is used of each node, what runs there and what is in progress.

    Used is what is reserved, all live claims and what stands in quarantine. An instance is on the node of its main claim.
    """
    if node is not None and fleet:
        raise InvalidRequest("--fleet is all nodes together, --node is one of them: only one of both can be asked for", found=node)
    for broken, error in session.tracker.survey().broken.items():
        session.note(f"earmark: node {broken} cannot be read and is left out: {phrases.clean(error.message)}; 'earmark verify' says more")
    found = stats_out(session.tracker.statistics(node), session.now_ms, fleet=node is None)
    if fleet:
        found = o.StatsOut(at=found.at, nodes=[], fleet=found.fleet)
    if session.json:
        session.emit(found)
        return 0
    if found.nodes:
        _draw(session, NODE_HEADS, [node_row(one) for one in found.nodes])
    if node is not None:
        one = found.nodes[0]
        _draw(
            session,
            ("stock", "class", "total", "reserved", "capacity", "used", "free"),
            [room_row(each) for each in one.rooms if each.total or each.used],
            gap=True,
        )
        session.out(["", *node_lines(one)])
    elif found.fleet is not None:
        session.out(([""] if found.nodes else []) + fleet_lines(found.fleet))
    return 0


def _draw(session: Session, heads: Iterable[str], rows: list[list[str]], *, gap: bool = False) -> None:
    from earmark.cli import drawing  # noqa: PLC0415 - only where something is drawn

    if gap:
        session.out("")
    sheet = drawing.sheet(colour=session.draws_colour, wide=True)
    sheet.draw(drawing.table(list(heads), rows, sheet.width))


def node_row(one: o.NodeStatsOut) -> list[str]:
    """Return a node's row: used of what there is (VCPU and PCPU of the capacity, each for itself), and what runs on it."""
    return [
        phrases.name(one.name), one.used.text, stock(one, "VCPU"), stock(one, "PCPU"),
        share(one.used.memory_bytes, one.total.memory_bytes), share(one.used.disk_bytes, one.total.disk_bytes),
        str(len(one.devices) + len(one.named)),
        str(one.population.instances), str(one.claims), str(one.workload.io_workload), str(one.failed_builds),
        "" if one.state == "open" else one.state,
    ]  # fmt: skip


def stock(one: o.NodeStatsOut, name: str) -> str:
    """Return what is used of a class of CPUs, of how many that could be; "-" on a node that was never observed."""
    rooms = [each for each in one.rooms if each.resource_class == name]
    return f"{rooms[0].used}/{rooms[0].capacity}" if rooms else "-"


def room_row(one: o.RoomOut) -> list[str]:
    """Return the row of a stock; bytes are shown as people read them."""
    numbers = [one.total, one.reserved, one.capacity, one.used, one.free]
    shown = [format_bytes(number) if one.resource_class in AMOUNT_CLASSES else str(number) for number in numbers]
    return [phrases.clean(one.pool), phrases.clean(one.resource_class), *shown]


def share(used: int, total: int) -> str:
    """Return an amount of bytes and what it is of."""
    return f"{format_bytes(used)} of {format_bytes(total)}"


def node_lines(one: o.NodeStatsOut) -> list[str]:
    """Return what runs on a node, a line each."""
    lines = [line("used", one.used.text), line("of that", _parts(reserved=one.reserved.text, quarantined=one.quarantined.text))]
    lines += people_lines(one.population) + work_lines(one.workload)
    lines += [line("moves", moves_words(one.workload))]
    lines += [line("claims", phases_words(one)), line("failed builds", str(one.failed_builds))]
    return lines


def _parts(**figures: str) -> str:
    return ", ".join(f"{figure} {name}" for name, figure in figures.items())


def phases_words(one: o.NodeStatsOut) -> str:
    """Return the claims of a node by phase and purpose."""
    kept = f", {counted(one.quarantines, 'quarantine')}" if one.quarantines else ""
    purposes = f" ({by(one.claims_by_purpose)})" if one.claims else ""
    return f"{by(one.claims_by_phase)}{purposes}{kept}"


def moves_words(work: o.WorkloadOut) -> str:
    """Return the open moves of a node by the side on which it is."""
    sides = [f"{name}: {by(moves)}" for name, moves in (("coming", work.moves_in), ("leaving", work.moves_out)) if moves]
    return "; ".join(sides) or "none"


def fleet_lines(fleet: o.FleetStatsOut) -> list[str]:
    """Return all nodes together, a line each."""
    lines = [line("nodes", str(fleet.nodes)), line("vCPUs", f"{fleet.used.vcpus} of {fleet.total.vcpus}")]
    lines.append(line("memory", share(fleet.used.memory_bytes, fleet.total.memory_bytes)))
    lines.append(line("disk", share(fleet.used.disk_bytes, fleet.total.disk_bytes)))
    lines += people_lines(fleet.population)
    if fleet.nowhere.instances:
        lines.append(line("on no node", f"{fleet.nowhere.instances}: {by(fleet.nowhere.by_state)}"))
    lines += work_lines(fleet.workload)
    lines += [line("moves", by(fleet.moves)), line("claims", str(fleet.claims)), line("failed builds", str(fleet.failed_builds))]
    return lines


def people_lines(found: o.PopulationOut) -> list[str]:
    """Return the instances by state, owner, kind and task, a line each."""
    lines = [line("instances", str(found.instances))]
    if found.instances:
        lines += [line("  by state", by(found.by_state)), line("  by owner", by(found.by_owner)), line("  by kind", by(found.by_kind))]
    return [*lines, line("  by task", by(found.by_task))] if found.by_task else lines


def work_lines(work: o.WorkloadOut) -> list[str]:
    """Return what is in progress, a line each."""
    parts = f"{work.io_workload}: {by(work.io)}" if work.io_workload else "0"
    return [line("I/O work", parts), line("with a task", str(work.current_workload)), line("builds", str(work.builds))]


def by(counts: Mapping[str, int]) -> str:
    """Return counts by name, the most first; "none" for none, and of very many only the first."""
    order = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    shown = ", ".join(f"{phrases.name(name)} {count}" for name, count in order[:NAMES_SHOWN_MAX])
    left = len(order) - NAMES_SHOWN_MAX
    return (shown + (f", and {left} more" if left > 0 else "")) or "none"


def line(label: str, text: str) -> str:
    """Return a labelled line."""
    return f"{label:<{LABEL_WIDTH}}{text}"
