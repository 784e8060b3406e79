"""`earmark node power`: what a power manager of a node's CPUs may do now."""

from __future__ import annotations

import click

from earmark.cli import phrases
from earmark.cli.output_machine import PowerOut
from earmark.cli.session import Session
from earmark.cli.verb import Verb
from earmark.core.ledger.power import power_hints
from earmark.core.model.cpuset import format_cpu_list


@click.command(cls=Verb, examples=("earmark node power", "earmark node power --json"))
@click.argument("name", required=False, metavar="[NODE]")
@click.pass_obj
def power(session: Session, *, name: str | None) -> int:
    """Say which dedicated CPUs must stay awake and which may sleep.

    Only where 'earmark node set cpu_power_management=cpu_state' (or governor) says so. Nothing is powered by this program.
    """
    state = session.tracker.node(name)
    hints = power_hints(state)
    if session.json:
        session.emit(PowerOut(node=state.name, strategy=hints.strategy, awake=list(hints.awake), asleep=list(hints.asleep)))
        return 0
    session.out(f"node {phrases.name(state.name)}: cpu_power_management {hints.strategy}")
    if hints.strategy != "none":
        session.out(f"  awake   {format_cpu_list(hints.awake) or 'none'}")
        session.out(f"  asleep  {format_cpu_list(hints.asleep) or 'none'}")
    return 0
