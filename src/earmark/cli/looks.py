"""Looking: the picture, list, show and who; each also at an earlier time (`earmark at TIME …`)."""

from __future__ import annotations

import click

from earmark.cli import phrases
from earmark.cli.claim import FORMAT_NAMES
from earmark.cli.output import EndedOut, WhoOut
from earmark.cli.picture import Tile, picture_of, unit_tile
from earmark.cli.session import Session
from earmark.cli.times import clock, until
from earmark.cli.units import unit_named
from earmark.cli.verb import Verb
from earmark.cli.views import claim_out, list_out, machine_out, who_out
from earmark.core.ledger.state import NodeState
from earmark.core.model.claim import Claim
from earmark.core.model.cpuset import format_cpu_list
from earmark.core.model.ids import ClaimId, UnitId
from earmark.core.model.units import THOUSAND, counted, format_bytes
from earmark.errors import InvalidRequest, UnknownClaim, UnknownInstance, UnknownUnit

MATCHES_SHOWN_MAX = 5


def picture(session: Session, node: str | None) -> int:
    """Print the picture of a node (None: this machine)."""
    state = session.state(node)
    seen = picture_of(state)
    if session.json:
        session.emit(machine_out(seen, session.now_ms, session.place, session.tracker.observation(state.node)))
        return 0
    from rich.text import Text  # noqa: PLC0415 - only where something is drawn

    from earmark.cli import drawing  # noqa: PLC0415 - as above
    from earmark.cli.machine_map import machine_map  # noqa: PLC0415 - as above

    sheet = drawing.sheet(colour=session.draws_colour)
    lines = machine_map(seen, width=sheet.width, glyphs=sheet.glyphs, now_ms=session.now_ms)
    if session.at_ms is not None:
        lines.insert(0, Text(f" as it was at {phrases.moment(session.at_ms)}", "bold"))
    if not session.quiet:
        words = f"{phrases.clean(session.place.place)} ({phrases.clean(session.place.note)})"
        lines += drawing.wrapped(
            [Text(word, drawing.DIM) for word in words.split(" ")], sheet.width, 9, Text(" ledger:", drawing.DIM), gap=" "
        )
        others = [each.name for each in session.states() if each.node != state.node]
        if others:
            named = ", ".join(phrases.name(each) for each in others[:MATCHES_SHOWN_MAX])
            lines.append(Text(f" {counted(len(others), 'more node')} in this ledger: {named}: earmark node list", drawing.DIM))
    sheet.draw(lines)
    return 0


@click.command(cls=Verb, name="list")
@click.option("--node", metavar="NODE", help="Only this node; else all of the ledger.")
@click.option("--owner", metavar="NAME", help="Only claims of this owner.")
@click.option("--consumer", metavar="ID", help="Only claims of this consumer.")
@click.pass_obj
def list_claims(session: Session, *, node: str | None, owner: str | None, consumer: str | None) -> int:
    """List what is claimed, by whom, until when."""
    states = session.states(node)
    found = list_out(states, session.now_ms)
    wanted = {one.id for one in found.claims if owner in (None, one.owner) and consumer in (None, one.consumer)}
    kept = [one for one in found.quarantines if owner in (None, one.owner) and consumer in (None, one.consumer)]
    if session.json:
        claims = [one for one in found.claims if one.id in wanted]
        session.emit(type(found)(at=found.at, claims=claims, quarantines=kept))
        return 0
    rows = []
    now_ms = session.now_ms
    for state in states:
        for claim in picture_of(state).claims:
            if claim.id in wanted:
                row = [claim.id, phrases.consumer_of(claim.consumer, claim.id), phrases.name(claim.owner), phrases.name(state.name)]
                rows.append(
                    [*row, clock(claim.held_at_ms, now_ms), phrases.phase_and_leg(claim, now_ms), phrases.what_is_held(claim.grant)]
                )
    for each in kept:
        row = [each.claim, phrases.consumer_of(each.consumer, each.claim), phrases.name(each.owner), phrases.name(each.node_name)]
        rows.append([*row, clock(each.since.ms, now_ms), "quarantined", phrases.clean(each.holds)])
    if not rows:
        session.note("nothing is held")
        return 0
    heads = ["claim", "consumer", "owner", "node", "since", "state", "holds"]
    if len(states) == 1:
        heads.pop(3)
        for one in rows:
            one.pop(3)
    from earmark.cli import drawing  # noqa: PLC0415 - only where something is drawn

    sheet = drawing.sheet(colour=session.draws_colour, wide=True)
    sheet.draw(drawing.table(heads, rows, sheet.width))
    return 0


@click.command(cls=Verb)
@click.argument("what", required=False, metavar="[CLAIM|UNIT|NODE]")
@click.option("--node", metavar="NODE", help="The node on which a unit is; else this machine.")
@click.option("--format", "form", type=click.Choice(FORMAT_NAMES), help="Print a claim for another launcher.")
@click.pass_obj
def show(session: Session, *, what: str | None, node: str | None, form: str | None) -> int:
    """Show the machine, a claim, a unit or a node.

    A claim is named by its id, the beginning of one, or its consumer; a unit as in cpu:3, 3 or a PCI address.
    """
    if what is None and form is None:
        return picture(session, node)
    if what is None:
        raise InvalidRequest(f"--format {form} needs a claim to print", found=form)
    found = find_claim(session, what)
    if found is not None:
        return _show_claim(session, *found, form)
    if form is not None:
        raise UnknownClaim(f"{what!r} is no live claim, so nothing can be printed as {form}", found=what)
    try:
        return _show_unit(session, session.state(node), what)
    except UnknownUnit as error:
        if any(what in (state.name, state.node) for state in session.states()):
            return picture(session, what)
        ended = session.tracker.find(what) if what.startswith("c-") else None
        if ended is not None and ended.cause is not None:
            if session.json:
                session.emit(EndedOut(id=ended.claim, consumer=ended.consumer, purpose=ended.purpose, cause=ended.cause))
            else:
                session.out(f"{ended.claim} has ended ({ended.cause}); what it was: earmark log {ended.claim}")
            return 0
        if session.at_ms is None and _show_instance(session, what):
            return 0
        raise UnknownClaim(f"{what!r} is neither a live claim or consumer, nor a unit, nor a node of this ledger", found=what) from error


def _show_instance(session: Session, text: str) -> bool:
    """Show an instance that holds nothing under this name, and say whether there is one."""
    from earmark.cli import instances, views_lives  # noqa: PLC0415 - few looks are for those

    try:
        known = session.tracker.instance(text)
    except (UnknownInstance, InvalidRequest):
        return False
    instances.show_found(session, views_lives.instance_out(session, known))
    return True


@click.command(cls=Verb)
@click.argument("unit", metavar="UNIT")
@click.option("--node", metavar="NODE", help="The node, by name or uuid; else this machine.")
@click.pass_obj
def who(session: Session, *, unit: str, node: str | None) -> int:
    """Say who holds a unit.

    UNIT is cpu:3 (or 3), a device such as gpu:GPU-8e94 (or its beginning), or a PCI address.
    """
    return _show_unit(session, session.state(node), unit)


# --- claims -------------------------------------------------------------------------------------------------------------------------


def find_claim(session: Session, text: str) -> tuple[Claim, NodeState] | None:
    """Return the live claim (at the moment looked at) named by id, the beginning of one, or consumer; raises UnknownClaim for several."""
    live = [(claim, state) for state in session.states() for claim in state.live()]
    exact = [pair for pair in live if pair[0].id == text or (pair[0].consumer == text and pair[0].purpose == "main")]
    found = exact or [pair for pair in live if text.startswith("c-") and pair[0].id.startswith(text)]
    if len(found) > 1:
        names = ", ".join(claim.id for claim, _ in found[:MATCHES_SHOWN_MAX])
        raise UnknownClaim(f"{text!r} could be {names}", found=text)
    return found[0] if found else None


def _show_claim(session: Session, claim: Claim, state: NodeState, form: str | None) -> int:
    if form is not None:
        from earmark.launch.formats import render  # noqa: PLC0415 - only for those who ask for a format

        rendering = render(form, claim, state)
        click.echo(rendering.text, nl=False)
        for note in rendering.notes:
            session.note(f"earmark: {phrases.clean(note)}")
        return 0
    if session.json:
        session.emit(claim_out(claim, state.name))
    else:
        session.out([*claim_page(claim, state, session.now_ms), *_instance_line(session, claim)])
    return 0


def _instance_line(session: Session, claim: Claim) -> list[str]:
    """Return what is reported of the instance that a claim is for, nothing where none is known or an earlier time is looked at."""
    known = session.tracker.instance_or_none(claim.consumer) if session.at_ms is None else None
    if known is None:
        return []
    task = f" ({phrases.name(known.instance.task)})" if known.instance.task else ""
    name = phrases.name(known.instance.name)
    return [
        f"  {'instance':<11} {name}, {known.instance.state.replace('_', ' ')}{task}: earmark instance show {phrases.name(claim.consumer)}"
    ]


def claim_page(claim: Claim, state: NodeState, now_ms: int) -> list[str]:
    """Return everything about a claim, a line each."""
    facts = [
        ("node", phrases.name(state.name)),
        ("consumer", phrases.name(claim.consumer)),
        ("owner", phrases.name(claim.owner)),
        ("state", phrases.phase(claim, now_ms)),
        ("since", phrases.moment(claim.held_at_ms)),
        ("purpose", claim.purpose if claim.purpose != "main" else ""),
        ("move", f"{claim.leg} leg of {phrases.name(claim.move)}: earmark move status {phrases.name(claim.move)}" if claim.move else ""),
        ("takes over", ", ".join(phrases.clean(unit) for unit in claim.named)),
        ("asked for", phrases.request_words(claim.request)),
        ("holds", phrases.what_is_held(claim.grant)),
        ("kept by", ", ".join(phrases.holder(one) for one in claim.holders) or "its owner's word"),
        ("generation", str(claim.generation)),
    ]
    lines = [claim.id] + [f"  {label:<11} {text}" for label, text in facts if text]
    for cell in claim.grant.cells:
        pins = ", ".join(f"{pin.vcpu}→{pin.cpu}" for pin in cell.pins)
        size = "" if cell.page_kib is None else f" in {phrases.pages(cell.page_kib)} pages"
        memory = f"{format_bytes(cell.memory_bytes)}{size}" if cell.memory_bytes else ""
        floating = f"shared vCPU {format_cpu_list(cell.shared_vcpus)}" if cell.shared_vcpus else ""
        emulator = f"emulator on cpu {format_cpu_list(cell.emulator_cpus)}" if cell.emulator_cpus else ""
        parts = "; ".join(part for part in (f"vCPU→CPU {pins}" if pins else "", floating, emulator, memory) if part)
        lines.append(f"  {f'cell {cell.guest_cell}':<11} on host cell {cell.host_cell}: {parts}")
    return lines


# --- units --------------------------------------------------------------------------------------------------------------------------


def _show_unit(session: Session, state: NodeState, text: str) -> int:
    unit = unit_named(state, text)
    tile = unit_tile(state, unit)
    if tile is None:
        raise UnknownUnit(f"node {state.name} has no unit {text!r}", node=state.node, unit=text)
    found = who_out(state, unit, tile if unit.startswith("cpu:") else _of_device(state, unit, tile), session.now_ms)
    if session.json:
        session.emit(found)
    else:
        session.out(who_lines(found, session.now_ms))
    return 0


def _of_device(state: NodeState, unit: UnitId, tile: Tile) -> Tile:
    """Return the tile of a device, with what only the list of devices tells apart from free and taken."""
    from earmark.cli.node_devices import device_row  # noqa: PLC0415 - only where a device is looked at

    row = device_row(state, unit)
    if row is None or row.state not in ("shared", "excluded", "faulty"):
        return tile
    return Tile(row.state, ClaimId(row.claim) if row.claim is not None else None)


def who_lines(found: WhoOut, now_ms: int) -> list[str]:
    """Return who holds a unit in one line, and what else there is to say of it below."""
    unit = phrases.clean(found.unit)
    parts = sum(each.thousandths for each in found.shared_by)
    first = {
        "free": f"{unit} is free", "taken": f"{unit} is held", "reserved": f"{unit} is kept for the host",
        "unusable": f"{unit} may not be used by this process (affinity or cpuset)", "missing": f"{unit} is missing from the machine",
        "quarantined": f"{unit} is in quarantine", "cordoned": f"{unit} is cordoned", "foreign": f"{unit} is used by others",
        "faulty": f"{unit} is faulty", "shared": f"{unit} is shared, {parts} of {THOUSAND} are held",
        "excluded": f"{unit} is excluded: " + ("what it goes with is held" if found.claim is not None else "what it goes with cannot be given"),
    }[found.state]  # fmt: skip
    lines = []
    if found.claim is not None:
        end = until(found.claim.until.ms if found.claim.until else None, now_ms)
        state = f"draining ({found.claim.cause})" if found.claim.phase == "draining" else end
        first += f" by {phrases.whose(found.claim.consumer, found.claim.owner, found.claim.id)}, {state}"
        lines.append(f"  with {phrases.clean(found.claim.holds)}, since {clock(found.claim.held_at.ms, now_ms)}")
        if found.claim.move is not None:
            lines.append(f"  it is the {found.claim.leg} leg of {phrases.name(found.claim.move)}")
    if found.passes_to is not None:
        lines.append(f"  {found.passes_to} takes it over when the move is confirmed")
    if found.quarantine is not None:
        kept = found.quarantine
        first += f" since {clock(kept.since.ms, now_ms)}, after {phrases.whose(kept.consumer, kept.owner, kept.claim)}"
        lines += [f"  {phrases.clean(kept.reason)}", f"  give it back: earmark return {unit} --reason …"]
    if not found.offered and found.state in ("free", "cordoned"):
        first += ", and not handed out"
        lines.append(f"  to hand it out: earmark node set device_units={unit}")
    if found.cordon is not None:
        end = f", {until(found.cordon.until.ms, now_ms)}" if found.cordon.until else ""
        lines.append(f"  cordoned: {phrases.clean(found.cordon.reason)}{end}")
    lines += [f"  faulty: {phrases.clean(found.fault)}"] if found.fault is not None else []
    for one in found.shared_by:
        part = f"{one.thousandths}/{THOUSAND}" if one.thousandths else counted(one.vcpus, "vCPU")
        lines.append(f"  shared by {phrases.whose(one.consumer, one.owner, one.claim)}: {part}")
    return [first, *lines]
