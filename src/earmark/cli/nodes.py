"""`earmark node`: list, show, set, cordon, uncordon; what becomes of nodes stands in node_life."""

from __future__ import annotations

import click

from earmark.cli import node_devices, node_life, node_power, phrases
from earmark.cli.life import tell
from earmark.cli.looks import picture
from earmark.cli.node_settings import changed, listing
from earmark.cli.session import Session
from earmark.cli.times import parse_time
from earmark.cli.units import unit_named
from earmark.cli.verb import VerbGroup
from earmark.cli.views import node_out
from earmark.cli.views_nodes import node_lines
from earmark.core.model.units import counted, format_bytes, format_ratio
from earmark.errors import InvalidRequest

node_option = click.option("--node", metavar="NODE", help="The node, by name or uuid; else this machine.")


@click.group(cls=VerbGroup)
def node() -> None:
    """List, show, set, cordon nodes."""


@node.command(name="list")
@click.pass_obj
def list_nodes(session: Session) -> int:
    """List the nodes of the ledger."""
    states = session.states()
    for node, error in session.tracker.survey().broken.items():
        session.note(f"earmark: node {node} cannot be read: {phrases.clean(error.message)}; 'earmark verify' says more")
    if session.json:
        session.emit([node_out(state) for state in states])
        return 0
    rows = []
    for state in states:
        one = node_out(state)
        blocked = counted(one.cordons, "cordon") if one.state == "open" and one.cordons else one.state if one.state != "open" else ""
        held = f"{one.cpus_held} of {one.cpus}"
        name, host = phrases.name(one.name), phrases.name(one.host)
        rows.append([name, one.node, host, held, str(one.cells), format_bytes(one.memory_bytes), str(one.claims), blocked])
    from earmark.cli import drawing  # noqa: PLC0415 - only where something is drawn

    sheet = drawing.sheet(colour=session.draws_colour, wide=True)
    sheet.draw(drawing.table(["node", "uuid", "host", "CPUs held", "cells", "memory", "claims", "state"], rows, sheet.width))
    return 0


@node.command(name="show")
@click.argument("name", required=False, metavar="[NODE]")
@click.pass_obj
def show_node(session: Session, *, name: str | None) -> int:
    """Show the picture of a node, and its settings."""
    code = picture(session, name)
    if not session.json and not session.quiet:
        state = session.state(name)
        session.out("")
        session.out(node_lines(state, session.tracker.observation(state.node)))
        session.out("")
        session.out(setting_lines(session, name))
    return code


@node.command(
    name="set",
    examples=(
        "earmark node set reserved_host_cpus=2 reserved_host_memory=4GiB",
        "earmark node set cpu_policy=split cpu_shared_set=0-3 cpu_dedicated_set=4-15",
        "earmark node set inventory.CUSTOM_LICENCE=8 cpu_allocation_ratio=4",
    ),
)
@click.argument("pairs", nargs=-1, metavar="[KEY=VALUE]...")
@node_option
@click.pass_obj
def set_node(session: Session, *, pairs: tuple[str, ...], node: str | None) -> int:
    """Set how a node is run; without KEY=VALUE: list the settings, their defaults and what they mean."""
    state = session.tracker.node(node)
    if not pairs:
        if session.json:
            session.emit(state.settings)
        else:
            session.out(setting_lines(session, node))
        return 0
    settings = changed(state.settings, pairs)
    answer = session.tracker.configure(settings, node=state.node)
    tell(session, answer, what=f"node {phrases.name(state.name)}")
    if settings.cpu_policy == "overlap" and answer.changed:
        session.note("earmark: policy overlap: a dedicated CPU may also run shared vCPUs; it is exclusive only among dedicated claims")
    for name in ("cpu", "ram", "disk") if state.node == session.tracker.home else ():
        configured = getattr(session.settings, f"{name}_allocation_ratio_milli")
        if configured not in (None, getattr(settings, f"{name}_allocation_ratio")):
            key = f"{name}_allocation_ratio"
            session.note(f"earmark: {key} is {format_ratio(configured)} by the settings of this machine, and will be so again next time")
    return 0


@node.command()
@click.argument("unit", required=False, metavar="[UNIT]")
@click.option("--reason", required=True, metavar="TEXT", help="Why; shown to whoever is refused.")
@click.option("--for", "duration", metavar="TIME", help="For how long: 2h.")
@click.option("--until", "end", metavar="TIME", help="Until when: 18:00, 2026-03-01.")
@node_option
@click.pass_obj
def cordon(session: Session, *, unit: str | None, reason: str, duration: str | None, end: str | None, node: str | None) -> int:
    """Give no new grants of a unit, or, without UNIT, of the node; whoever holds it keeps it."""
    if duration is not None and end is not None:
        raise InvalidRequest("--for and --until are two ends of one cordon: choose one", found=end)
    now_ms = session.clock.now_ms()
    until_ms = None
    if duration is not None:
        from earmark.core.model.units import parse_duration_ms  # noqa: PLC0415 - beside its only use

        until_ms = now_ms + parse_duration_ms(duration, what="--for")
    elif end is not None:
        until_ms = parse_time(end, now_ms)
    state = session.tracker.node(node)
    named = None if unit is None else unit_named(state, unit)
    answer = session.tracker.cordon(named, reason, until_ms, node=state.node)
    tell(session, answer, what=named or f"node {phrases.name(state.name)}")
    return 0


@node.command()
@click.argument("unit", required=False, metavar="[UNIT]")
@node_option
@click.pass_obj
def uncordon(session: Session, *, unit: str | None, node: str | None) -> int:
    """End a cordon of a unit, or, without UNIT, of the node."""
    state = session.tracker.node(node)
    named = None if unit is None else unit_named(state, unit)
    tell(session, session.tracker.uncordon(named, node=state.node), what=named or f"node {phrases.name(state.name)}")
    return 0


for command in (node_life.add, node_life.observe, node_life.disable, node_life.enable, node_life.retire, node_life.restore):
    node.add_command(command)
node.add_command(node_life.rehome)
node.add_command(node_life.providers)
node.add_command(node_devices.devices)
node.add_command(node_power.power)


def setting_lines(session: Session, node: str | None) -> list[str]:
    """Return a node's settings, a line each."""
    rows = listing(session.state(node).settings)
    key_width = max(len(key) for key, _, _, _ in rows)
    value_width = max(len(value) for _, value, _, _ in rows)
    lines = []
    for key, value, default, words in rows:
        mark = " " if value == default else "*"
        lines.append(
            f"{mark} {key:<{key_width}}  {phrases.clean(value):<{value_width}}  {words}"
            + ("" if value == default else f" (default {default})")
        )
    return lines
