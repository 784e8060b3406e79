"""Events as people read them: one line each, past tense, the claim first."""

from __future__ import annotations

from earmark.core.ledger import events as e
from earmark.core.model.cpuset import format_cpu_list
from earmark.core.model.grant import AmountRow, Grant
from earmark.core.model.topology import BASE_PAGE_KIB
from earmark.core.model.units import THOUSAND, format_bytes

LINE_UNITS_MAX = 12


def line(event: e.Event) -> str:  # noqa: C901, PLR0912 - one case for each event is the whole function
    """Return what happened in one line, without time and actor."""
    match event:
        case e.NodeRegistered():
            return f"node {event.name} was entered"
        case e.NodeRehomed():
            return f"the ledger was given to this machine: {event.reason}"
        case e.MachineObserved():
            return f"inventory {event.inventory_version}: " + ("; ".join(event.differences) or "first seen")
        case e.NodeConfigured():
            return f"settings changed; policy {event.settings.cpu_policy}"
        case e.Cordoned():
            return f"{event.cordon.unit or 'the node'} was cordoned: {event.cordon.reason}"
        case e.Uncordoned():
            return f"{event.unit or 'the node'} is open again ({event.cause})"
        case e.ClaimHeld():
            return f"{event.claim} held {describe(event.grant)} for {event.consumer}{_role(event)}"
        case e.ClaimConfirmed():
            return f"{event.claim} was confirmed"
        case e.ClaimBound():
            return f"{event.claim} was bound to pid " + ", ".join(str(holder.pid) for holder in event.holders)
        case e.ClaimRenewed():
            return f"{event.claim} was renewed"
        case e.ClaimDraining():
            return f"{event.claim} began to drain ({event.cause}): {event.evidence}"
        case e.ClaimEnded():
            return f"{event.claim} ended ({event.cause}){', its units are in quarantine' if event.quarantined else ''}: {event.evidence}"
        case e.UnitsReturned():
            return f"{', '.join(event.units) or 'everything'} of {event.claim} was returned from quarantine: {event.reason}"
        case e.UnitsRetained():
            return f"{', '.join(event.units)} of {event.claim} stayed in quarantine: {event.reason}"
        case e.UnitsPassed():
            return f"{', '.join(event.units)} passed from {event.source} to {event.target}"
        case e.UnitsNamed():
            return f"{event.target} will take over {', '.join(event.units)} from {event.source}"
        case e.LegOpened():
            return f"{event.claim} became the source leg of move {event.move}"
        case e.LegClosed():
            return f"{event.claim} " + (
                f"was left behind by move {event.move}" if event.purpose == "leg" else f"is the {event.purpose} claim"
            )
        case e.NodeRetired():
            return f"the node was retired: {event.reason}"
        case e.NodeRestored():
            return "the node was restored" + (f": {event.reason}" if event.reason else "")
        case e.NodeHosted():
            return f"host {event.host} runs the node" + (f": {event.reason}" if event.reason else "")
        case e.NodeProvided():
            added = [each.resource_class for each in event.provided.inventories] + list(event.provided.traits)
            return "provider configuration adds " + (", ".join(added) or "nothing")
        case e.FindingsChanged():
            return f"{len(event.findings)} findings of the {event.source}" + (f": {event.findings[0].detail}" if event.findings else "")
        case e.InstanceCreated():
            return f"{event.kind} {event.name} was created for {event.owner}"
        case e.StateReported():
            return f"was reported {event.state}" + (f", {event.task}" if event.task else "") + (f": {event.reason}" if event.reason else "")
        case e.MoveOpened():
            pair = event.legs[0]
            legs = " → ".join("another ledger" if leg is None else leg.claim for leg in (pair.source, pair.destination))
            return f"{event.kind.replace('_', ' ')} {event.move} began: {legs}"
        case e.MoveEnded():
            return f"move {event.move} was {event.outcome}"
        case e.UnknownEvent():
            return f"an event {event.found_type} v{event.found_version} that this program does not know"
        case _:
            return event.type


def _role(event: e.ClaimHeld) -> str:
    """Return what a claim is for that is not a consumer's main one."""
    if event.move is not None:
        return f", the {event.leg or 'other'} leg of move {event.move}"
    return "" if event.purpose == "main" else f", purpose {event.purpose}"


def describe(grant: Grant) -> str:
    """Return what a grant holds in a few words: "cpu 4-7, 8 GiB, pci:0000:41:00.0"."""
    parts = []
    for use, word in (("vcpu", "cpu"), ("emulator", "emulator cpu"), ("withheld", "withheld cpu")):
        cpus = [int(row.unit[4:]) for row in grant.units if row.use == use and row.unit.startswith("cpu:")]
        if cpus:
            parts.append(f"{word} {format_cpu_list(cpus)}")
    parts += [amount_words(row) for row in grant.amounts]
    devices = [row.unit for row in grant.units if not row.unit.startswith("cpu:")]
    parts += devices[:LINE_UNITS_MAX]
    if len(devices) > LINE_UNITS_MAX:
        parts.append(f"{len(devices) - LINE_UNITS_MAX} more devices")
    return ", ".join(parts) or "nothing"


def amount_words(row: AmountRow) -> str:
    """Return an amount row as a person reads it: "4 shared vCPUs", "8 GiB", "512 pages of 2 MiB on cell 0"."""
    kind, _, rest = row.pool.partition(":")
    plural = "" if row.amount == 1 else "s"
    if kind == "vcpu":
        return f"{row.amount} shared vCPU{plural}" + (f" on cell {rest}" if rest else "")
    if kind == "memory":
        return format_bytes(row.amount)
    if kind == "share":
        return f"{row.amount}/{THOUSAND} of {rest}"
    if kind == "disk":
        return f"{format_bytes(row.amount)} disk" + (f" on {rest}" if rest != "root" else "")
    if kind == "pages":
        cell, _, size = rest.partition(":")
        if int(size) == BASE_PAGE_KIB:
            return f"{format_bytes(row.amount * int(size) * 1024)} on cell {cell}"
        return f"{row.amount} page{plural} of {format_bytes(int(size) * 1024)} on cell {cell}"
    return f"{row.amount} {rest or row.pool}"
