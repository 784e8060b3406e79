"""Each expectation held against what is true: what was found, in the words in which it was expected."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from earmark.core.fit.devices.rows import stock_of
from earmark.core.ledger.allocations import allocations
from earmark.core.ledger.figures import Amounts, figures
from earmark.core.model.claim import Claim
from earmark.core.model.finding import Finding
from earmark.core.model.units import KIB, format_bytes
from earmark.scenario import steps as s
from earmark.scenario.world import World


class Checked(NamedTuple):
    """One expectation and what was found; `ok` if they are the same."""

    expected: str
    found: str

    @property
    def ok(self) -> bool:
        """Whether it is so."""
        return self.expected == self.found


def check(world: World, what: s.Check, findings: Sequence[Finding]) -> Checked:
    """Return what is expected and what is found; `findings` are those of the last audit."""
    if isinstance(what, s.Found):
        return _findings(world, what, findings)
    return CHECKS[type(what)](world, what)


def _figure(world: World, what: s.NodeFigure) -> Checked:
    return Checked(f"{what.node} {shown(what.figure)}", f"{what.node} {figures(world.node(what.node)).text}")


def _host(world: World, what: s.HostFigure) -> Checked:
    found = Amounts()
    for state in world.tracker.hosts().get(what.host, ()):
        found = found.plus(figures(state))
    return Checked(f"host {what.host} {shown(what.figure)}", f"host {what.host} {found.text}")


def shown(figure: s.Figure) -> str:
    """Return a figure as the trade writes it."""
    return "/".join(str(number) for number in figure)


def _count(world: World, what: s.NodeCount) -> Checked:
    state = world.node(what.node)
    match what.what:
        case "pins":
            found = len(figures(state).pins)
        case "devices":
            found = len(figures(state).devices)
        case "claims":
            found = len(state.claims)
        case "failed_builds":
            found = state.failed_builds
        case _:
            found = sum(room.used for room in figures(state).rooms if room.resource_class == what.what)
    return Checked(f"{what.node} {what.what} {what.count}", f"{what.node} {what.what} {found}")


def _free(world: World, what: s.NodeFree) -> Checked:
    state = world.node(what.node)
    if what.what.isupper():
        found = sum(room.free for room in figures(state).rooms if room.resource_class == what.what)
    else:
        found = 0 if state.supply is None else sum(device.kind == what.what for device in stock_of(state.supply).devices)
    return Checked(f"{what.node} free {what.what} {what.count}", f"{what.node} free {what.what} {found}")


def _node_is(world: World, what: s.NodeIs) -> Checked:
    state = world.node(what.node)
    match what.what:
        case "enabled":
            true = state.disabled is None and state.retired is None
        case "disabled":
            true = state.disabled is not None and "COMPUTE_STATUS_DISABLED" in state.traits
        case "retired":
            true = state.retired is not None
        case "same":
            true = state.node == world.ids[what.node] and [each.name for each in world.tracker.nodes()].count(state.name) == 1
        case _:
            true = state.runs_on == world.host(what.node).name
    return _truth(f"{what.node} is {what.what}", f"{what.node} is not {what.what}", true=true)


def _truth(yes: str, no: str, *, true: bool) -> Checked:
    return Checked(yes, yes if true else no)


def _on(world: World, what: s.ConsumerOn) -> Checked:
    names = {node: name for name, node in world.ids.items()}
    mains = [names[claim.node] for claim in world.held_by(what.consumer) if claim.purpose == "main" and claim.phase != "draining"]
    return Checked(
        f"{what.consumer} on {what.node}" if what.node else f"{what.consumer} nowhere",
        f"{what.consumer} on {' and '.join(mains)}" if mains else f"{what.consumer} nowhere",
    )


def _state(world: World, what: s.ConsumerState) -> Checked:
    return Checked(f"{what.consumer} {what.state}", f"{what.consumer} {world.consumer(what.consumer).instance.state}")


def pins_of(claim: Claim) -> tuple[str, ...]:
    """Return the CPUs that a claim holds alone, whatever their use: vCPUs, the emulator, or withheld as siblings."""
    return tuple(row.unit for row in claim.grant.units if row.unit.startswith("cpu:"))


def emulator_of(claim: Claim) -> tuple[str, ...]:
    """Return the CPUs that a claim holds for its emulator."""
    return tuple(row.unit for row in claim.grant.units if row.use == "emulator" and row.unit.startswith("cpu:"))


def devices_of(claim: Claim) -> tuple[str, ...]:
    """Return the devices that a claim holds."""
    return tuple(row.unit for row in claim.grant.units if row.use == "device")


def cells_of(claim: Claim) -> tuple[str, ...]:
    """Return the cells of the host that a claim's guest is on."""
    return tuple(f"cell:{cell.host_cell}" for cell in claim.grant.cells)


def pages_of(claim: Claim) -> tuple[str, ...]:
    """Return the pages of each cell of a claim's guest, as a machine's are written: size and number; small ones are not named."""
    cells = [(cell.page_kib * KIB, cell.memory_bytes) for cell in claim.grant.cells if cell.page_kib is not None]
    return tuple(f"{format_bytes(size).replace(' ', '')}:{memory // size}" for size, memory in cells)


HELD: dict[s.UnitWord, Callable[[Claim], tuple[str, ...]]] = {
    "pins": pins_of,
    "emulator": emulator_of,
    "devices": devices_of,
    "cells": cells_of,
    "pages": pages_of,
}


def units_of(world: World, consumer: str, what: s.UnitWord, node: str | None = None) -> tuple[str, ...]:
    """Return the CPUs or devices that a consumer holds, on one node or anywhere, sorted."""
    chosen = HELD[what]
    claims = [claim for claim in world.held_by(consumer) if node is None or claim.node == world.ids[node]]
    return tuple(sorted(unit for claim in claims for unit in chosen(claim)))


def _units(world: World, what: s.Units) -> Checked:
    found = units_of(world, what.consumer, what.what, what.node)
    where = f" on {what.node}" if what.node else ""
    begin = f"{what.consumer} {what.what}{where}"
    if what.count is not None:
        return Checked(f"{begin} {what.count}", f"{begin} {len(found)}")
    if what.remembered is not None:
        kept = world.remembered.get(what.remembered)
        if kept is None:
            return Checked(f"{begin} as {what.remembered}", f"nothing is remembered as {what.remembered}")
        yes = f"{begin}{' not' if what.differ else ''} as {what.remembered}"
        return _truth(yes, f"{begin} {listed(found)}, {what.remembered} is {listed(kept)}", true=(found == kept) is not what.differ)
    return Checked(f"{begin} {listed(what.units or ())}", f"{begin} {listed(found)}")


def listed(units: Sequence[str]) -> str:
    """Return units with spaces between."""
    return " ".join(units) or "none"


def _disjoint(world: World, what: s.Disjoint) -> Checked:
    names = {node: name for name, node in world.ids.items()}
    holders: dict[tuple[str, str], str] = {}
    shared: list[str] = []
    yes = f"disjoint {' '.join(what.consumers)}"
    for consumer in what.consumers:
        held = [(names[claim.node], row.unit) for claim in world.held_by(consumer) for row in claim.grant.units]
        if not held:
            return Checked(yes, f"{consumer} holds no unit")
        shared += [f"{unit} of {node} is held by {holders[node, unit]} and {consumer}" for node, unit in held if (node, unit) in holders]
        holders |= dict.fromkeys(held, consumer)
    return _truth(yes, "; ".join(shared), true=not shared)


def _move(world: World, what: s.MoveIs) -> Checked:
    move = world.tracker.find_move(world.move_named(what.move))
    return Checked(f"move {what.move} {what.status}", f"move {what.move} {world.tracker.move_status(move)}")


def _allocated(world: World, what: s.Allocated) -> Checked:
    """Hold what an outer ledger would be told, or has, of one holder against what is expected."""
    holder = world.holder(what.holder, is_move=what.is_move)
    found: dict[str, dict[str, int] | None] = {}
    if what.outer:
        for name, node in world.ids.items():
            held = world.outer.holders(node)
            if holder in held:
                told_last = held[holder]
                found[name] = None if told_last is None else dict(told_last)
    else:
        names = {node: name for name, node in world.ids.items()}
        told = allocations(world.states().values(), world.tracker.instances())
        found = {names[each.node]: dict(each.amounts) for each in told if each.holder == holder}
    begin = f"{'outer' if what.outer else 'allocation'} {'move ' if what.is_move else ''}{what.holder}"
    if what.node is None:
        return Checked(f"{begin} nowhere", f"{begin} {'on ' + ' and '.join(found) if found else 'nowhere'}")
    if what.node not in found:
        return Checked(f"{begin} on {what.node}{_classes(what.amounts)}", f"{begin} {'on ' + ' and '.join(found) if found else 'nowhere'}")
    amounts = found[what.node]
    shown_amounts = _classes(None if amounts is None or what.amounts is None else tuple(sorted(amounts.items())))
    return Checked(f"{begin} on {what.node}{_classes(what.amounts)}", f"{begin} on {what.node}{shown_amounts}")


def _classes(amounts: tuple[tuple[str, int], ...] | None) -> str:
    return "".join(f" {name}={amount}" for name, amount in amounts or ())


def _findings(world: World, what: s.Found, findings: Sequence[Finding]) -> Checked:
    if what.code is None:
        return Checked("no findings", "; ".join(f"finding {one.code}: {one.detail}" for one in findings) or "no findings")
    node = None if what.node is None else world.ids[what.node]
    where = f" on {what.node}" if what.node else ""
    true = any(one.code == what.code and node in (None, one.node) for one in findings)
    others = ", ".join(sorted({one.code for one in findings})) or "none"
    return _truth(f"finding {what.code}{where}", f"no finding {what.code}{where} (findings: {others})", true=true)


Rule = Callable[[World, Any], Checked]
CHECKS: dict[type, Rule] = {
    s.NodeFigure: _figure,
    s.HostFigure: _host,
    s.NodeCount: _count,
    s.NodeFree: _free,
    s.NodeIs: _node_is,
    s.ConsumerOn: _on,
    s.ConsumerState: _state,
    s.Units: _units,
    s.Disjoint: _disjoint,
    s.MoveIs: _move,
    s.Allocated: _allocated,
}
