"""`earmark node add`, `observe`, `disable`, `enable`, `retire`, `restore`, `rehome`, `providers`: the life of nodes."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from earmark.cli import phrases
from earmark.cli.life import tell
from earmark.cli.node_settings import NUMBER, changed
from earmark.cli.output_machine import ProvidedOut, ProvidersOut
from earmark.cli.session import Session
from earmark.cli.verb import Verb
from earmark.core.model.ids import resource_class
from earmark.core.model.inventory import Inventory
from earmark.core.model.node import NodeSettings
from earmark.core.model.topology import Machine
from earmark.errors import InvalidRequest, UnknownNode

reason_option = click.option("--reason", required=True, metavar="TEXT", help="Why; kept in the ledger.")
shape_option = click.option("--shape", metavar="TEXT", help="Its machine in one line: '2x8c/2t 64G 2M:1024 disk:200G gpu:2'.")
machine_option = click.option("--machine", metavar="FILE", help="Its machine, as 'earmark discover --json' printed it there.")


@click.command(
    cls=Verb,
    examples=(
        "earmark node add n2 --shape '2x8c/2t 64G disk:200G'",
        "earmark node add n3 --machine n3.json --host n3.example cpu_allocation_ratio=4",
        "earmark node add bm17 --host rack4 --class CUSTOM_BAREMETAL_GOLD",
    ),
)
@click.argument("name", metavar="NAME")
@click.argument("pairs", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--uuid", metavar="UUID", help="The node's uuid; one that is known already is found again, a retired one restored.")
@click.option("--host", metavar="NAME", help="The host that runs it; else it is a host of its own.")
@shape_option
@machine_option
@click.option("--class", "classes", multiple=True, metavar="CUSTOM_X[=N]", help="A resource class that it offers, N (1) of it; repeatable.")
@click.pass_obj
def add(
    session: Session, *, name: str, pairs: tuple[str, ...], uuid: str | None, host: str | None, shape: str | None, machine: str | None,
    classes: tuple[str, ...],
) -> int:  # fmt: skip
    """Enter a node, or find one again by its uuid.

    A node of --class alone is whole: one machine handed out as one thing, as bare metal is.
    """
    seen = machine_given(shape, machine)
    settings = None
    if pairs or classes:
        old = settings_of(session, uuid)
        settings = changed(msgspec.structs.replace(old, inventories=with_classes(old, classes)), pairs)
    if seen is None and classes:
        seen = Machine()
    answer = session.tracker.register(name, uuid=uuid, host=host, machine=seen, settings=settings)
    if machine is not None:
        session.tracker.observe(
            node=answer.node, machine=seen
        )  # what changes by itself, such as free disk space, is kept beside the ledger
    tell(session, answer, what=f"node {phrases.name(name)} ({answer.node})")
    return 0


@click.command(cls=Verb)
@click.argument("name", metavar="NODE")
@shape_option
@machine_option
@click.pass_obj
def observe(session: Session, *, name: str, shape: str | None, machine: str | None) -> int:
    """Record what is reported of the machine of a node that is not this machine."""
    seen = machine_given(shape, machine)
    if seen is None:
        raise InvalidRequest("node observe needs one of --shape TEXT and --machine FILE", found=name)
    state = session.tracker.node(name)
    answer = session.tracker.observe(node=state.node, machine=seen)
    tell(session, answer, what=f"node {phrases.name(state.name)}")
    return 0


@click.command(cls=Verb)
@click.argument("name", required=False, metavar="[NODE]")
@reason_option
@click.pass_obj
def disable(session: Session, *, name: str | None, reason: str) -> int:
    """Give no new grants of a node; what is held stays held, and the node carries COMPUTE_STATUS_DISABLED."""
    state = session.tracker.node(name)
    tell(session, session.tracker.disable(reason, node=state.node), what=f"node {phrases.name(state.name)}")
    return 0


@click.command(cls=Verb)
@click.argument("name", required=False, metavar="[NODE]")
@click.pass_obj
def enable(session: Session, *, name: str | None) -> int:
    """End what disable began."""
    state = session.tracker.node(name)
    tell(session, session.tracker.enable(node=state.node), what=f"node {phrases.name(state.name)}")
    return 0


@click.command(cls=Verb)
@click.argument("name", metavar="NODE")
@reason_option
@click.pass_obj
def retire(session: Session, *, name: str, reason: str) -> int:
    """Say that a node is gone: nothing new is granted; claims that are left on it are listed as orphans, here and by audit."""
    state = session.tracker.node(name)
    answer = session.tracker.retire(state.node, reason)
    tell(session, answer, what=f"node {phrases.name(state.name)}")
    if not session.json and not session.quiet:
        session.out([f"  orphan {phrases.clean(claim)}" for claim in answer.touched])
    return 0


@click.command(cls=Verb)
@click.argument("name", metavar="NODE")
@click.option("--reason", default="", metavar="TEXT", help="Why; kept in the ledger.")
@click.pass_obj
def restore(session: Session, *, name: str, reason: str) -> int:
    """Take a retired node back, with everything that was held on it."""
    state = session.tracker.node(name)
    tell(session, session.tracker.restore(state.node, reason), what=f"node {phrases.name(state.name)}")
    return 0


@click.command(cls=Verb)
@click.argument("name", required=False, metavar="[NODE]")
@click.option("--host", metavar="NAME", help="The host that runs NODE from now on.")
@reason_option
@click.pass_obj
def rehome(session: Session, *, name: str | None, host: str | None, reason: str) -> int:
    """Say that another host runs NODE; without NODE: that this copied ledger now belongs to this machine."""
    if (name is None) != (host is None):
        raise InvalidRequest("node rehome takes NODE and --host together, or neither for the ledger itself", found=name or host)
    if name is None or host is None:
        tell(session, session.tracker.rehome(reason), what="this ledger")
        return 0
    state = session.tracker.node(name)
    tell(session, session.tracker.rehome_node(state.node, host, reason), what=f"node {phrases.name(state.name)}")
    return 0


@click.command(cls=Verb, examples=("earmark node providers /etc/nova/provider_config", "earmark node providers --check *.yaml"))
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--check", is_flag=True, help="Only say what loading would do.")
@click.pass_obj
def providers(session: Session, *, files: tuple[str, ...], check: bool) -> int:
    """Load provider configuration files: custom inventories and traits of nodes.

    A folder stands for its *.yaml files. All of them are read and checked before anything is changed; together they are the whole
    configuration, so what an earlier load added and they do not is taken away.
    """
    from earmark.core.ledger.decide_node import kept_of  # noqa: PLC0415 - as below
    from earmark.core.model.provider import NodeNamed, resolved  # noqa: PLC0415 - as below
    from earmark.wiring import read_providers  # noqa: PLC0415 - YAML is loaded only here

    read = read_providers([Path(name) for name in files])
    states = {state.node: state for state in session.tracker.nodes()}
    wanted = resolved(read.entries, [NodeNamed(state.node, state.name) for state in states.values()])
    notes = [*read.notes, *wanted.notes]
    rows = []
    for node, provided in wanted.provided.items():
        state = states[node]
        kept, left_out = kept_of(state, provided)
        fresh = kept != state.provided
        if fresh and not check:
            left_out = session.tracker.provide(provided, node=node).differences
        notes += [f"node {state.name}: {note}" for note in left_out]
        rows.append(ProvidedOut(node=node, name=state.name, changed=fresh, provided=kept))
    if session.json:
        session.emit(ProvidersOut(checked_only=check, nodes=rows, notes=notes))
        return 0
    for note in notes:
        session.note(f"earmark: {phrases.clean(note)}")
    session.out([provided_line(row, check=check) for row in rows if row.changed] or "nothing changes: every node has this already")
    return 0


def provided_line(row: ProvidedOut, *, check: bool) -> str:
    """Return what a node gets, in a line."""
    names = [f"{each.resource_class} {each.total}" for each in row.provided.inventories] + list(row.provided.traits)
    return f"node {phrases.name(row.name)} {'would get' if check else 'got'} {', '.join(names) or 'nothing any more'}"


def machine_given(shape: str | None, path: str | None) -> Machine | None:
    """Return the machine that a shape or a file describes, None for neither; raises InvalidRequest, InvalidRecord."""
    if shape is not None and path is not None:
        raise InvalidRequest("--shape and --machine are two descriptions of one machine: choose one", found=shape)
    if shape is not None:
        from earmark.core.model.shape import machine_of  # noqa: PLC0415 - beside its only use

        return machine_of(shape)
    if path is not None:
        from earmark.cli.machine_file import machine_in  # noqa: PLC0415 - beside its only use

        return machine_in(Path(path)).machine
    return None


def settings_of(session: Session, uuid: str | None) -> NodeSettings:
    """Return the settings of a known node, or those that a new one is made with."""
    fresh = session.tracker.terms.fresh
    if uuid is None:
        return fresh
    try:
        return session.tracker.node(uuid).settings
    except UnknownNode:  # it is about to be entered
        return fresh


def with_classes(settings: NodeSettings, classes: tuple[str, ...]) -> tuple[Inventory, ...]:
    """Return the settings' inventories with classes given as CUSTOM_X or CUSTOM_X=N; raises InvalidRequest."""
    found = {each.resource_class: each for each in settings.inventories}
    for text in classes:
        name, equals, number = text.partition("=")
        if equals and not NUMBER.fullmatch(number):
            raise InvalidRequest(f"--class {text!r} is not CUSTOM_X or CUSTOM_X=N", found=text)
        one = resource_class(name)
        found[one] = Inventory(resource_class=one, total=int(number) if equals else 1)
    return tuple(found[name] for name in sorted(found))
