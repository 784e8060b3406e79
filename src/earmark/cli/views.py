"""From the model to the shapes of `--json`.

Rules of this file: nothing is decided or dropped here; amounts and names pass unchanged.
"""

from __future__ import annotations

from earmark.cli import output as o
from earmark.cli import output_machine as m
from earmark.cli.phrases import reason_line
from earmark.cli.picture import Picture, Tile, page_size, picture_of
from earmark.cli.refusals import certificate_words
from earmark.cli.times import iso
from earmark.cli.views_nodes import closed_for, disks_out, standing
from earmark.cli.where import Where
from earmark.core.ledger.commands import Answer
from earmark.core.ledger.state import NodeState
from earmark.core.ledger.story import describe
from earmark.core.model.claim import Claim, Cordon, Quarantine
from earmark.core.model.grant import Grant
from earmark.core.model.ids import UnitId, shared_unit
from earmark.core.model.refusal import Certificate, Holding, Reason, Refusal
from earmark.core.model.request import Request
from earmark.drivers.contract import Observation


def when(at_ms: int) -> o.When:
    """Return a moment."""
    return o.When(ms=at_ms, iso=iso(at_ms))


def maybe(at_ms: int | None) -> o.When | None:
    """Return a moment, None for None."""
    return None if at_ms is None else when(at_ms)


def claim_out(claim: Claim, node_name: str) -> o.ClaimOut:
    """Return a claim."""
    return o.ClaimOut(
        id=claim.id, node=claim.node, node_name=node_name, consumer=claim.consumer, owner=claim.owner, phase=claim.phase,
        purpose=claim.purpose, move=claim.move, leg=claim.leg, passes=list(claim.named), generation=claim.generation, held_at=when(claim.held_at_ms), until=maybe(claim.deadline_ms),
        draining_since=maybe(claim.draining_since_ms), cause=claim.cause, holds=describe(claim.grant), cpus=list(claim.grant.cpus),
        cells=sorted({cell.host_cell for cell in claim.grant.cells}), units=list(claim.grant.units), amounts=list(claim.grant.amounts),
        grant=claim.grant, request=claim.request, holders=list(claim.holders),
    )  # fmt: skip


def quarantine_out(kept: Quarantine, state: NodeState) -> o.QuarantineOut:
    """Return a quarantine."""
    return o.QuarantineOut(
        claim=kept.claim, node=state.node, node_name=state.name, consumer=kept.consumer, owner=kept.owner, since=when(kept.since_ms),
        reason=kept.reason, holds=describe(kept.grant), units=list(kept.grant.units), amounts=list(kept.grant.amounts),
    )  # fmt: skip


def cordon_out(cordon: Cordon) -> o.CordonOut:
    """Return a cordon."""
    return o.CordonOut(unit=cordon.unit, reason=cordon.reason, since=when(cordon.since_ms), until=maybe(cordon.until_ms))


def answer_out(answer: Answer, node_name: str, notices: list[str]) -> o.AnswerOut:
    """Return the answer to a change."""
    return o.AnswerOut(
        outcome=answer.outcome, changed=answer.changed, node=answer.node, claim_id=answer.claim_id, cause=answer.cause,
        message=answer.message, differences=list(answer.differences), touched=list(answer.touched),
        claim=None if answer.claim is None else claim_out(answer.claim, node_name), notices=notices,
    )  # fmt: skip


def holding_out(one: Holding) -> o.HoldingOut:
    """Return what a claim holds."""
    return o.HoldingOut(
        claim=one.claim, consumer=one.consumer, owner=one.owner, amount=one.amount, what=one.what, until=maybe(one.until_ms)
    )  # fmt: skip


def reason_out(reason: Reason) -> o.ReasonOut:
    """Return one reason of a refusal."""
    return o.ReasonOut(
        code=reason.code, resource=reason.resource, asked=reason.asked, free=reason.free, short=reason.short, cell=reason.cell,
        guest_cell=reason.guest_cell, unit=reason.unit, detail=reason.detail, text=reason_line(reason),
        holders=[holding_out(one) for one in reason.holders], holders_left_out=reason.holders_left_out,
    )  # fmt: skip


def proof_out(certificate: Certificate, request: Request, *, verified: bool | None) -> o.ProofOut:
    """Return a certificate."""
    return o.ProofOut(
        kind=certificate.kind, guest_cells=list(certificate.guest_cells), host_cells=list(certificate.host_cells),
        requirements=list(certificate.requirements), text=certificate_words(certificate, request), verified=verified,
    )  # fmt: skip


def fit_out(found: Grant | Refusal, request: Request, node_name: str, *, verified: bool | None = None) -> o.FitOut:
    """Return a grant or a refusal as the answer to what was asked; `verified`: what the check of its certificate said."""
    if isinstance(found, Refusal):
        return o.FitOut(
            fits=False, node=node_name, request=request, grant=None, holds="", reasons=[reason_out(reason) for reason in found.reasons],
            fits_if=list(found.fits_if), fits_after=[holding_out(one) for one in found.fits_after],
            certificate=None if found.certificate is None else proof_out(found.certificate, request, verified=verified),
        )  # fmt: skip
    return o.FitOut(
        fits=True,
        node=node_name,
        request=request,
        grant=found,
        holds=describe(found),
        reasons=[],
        fits_if=[],
        fits_after=[],
        certificate=None,
    )


def who_out(state: NodeState, unit: UnitId, tile: Tile, at_ms: int) -> o.WhoOut:
    """Return who holds a unit, and what its driver says is wrong with it."""
    claim = state.claims.get(tile.claim) if tile.claim is not None else None
    kept = state.quarantines.get(tile.claim) if tile.claim is not None else None
    cordon = state.cordons.get(unit)
    device = state.layout.known.get(unit) if state.layout is not None else None
    taker = next((each.id for each in state.live() if unit in each.named), None)
    return o.WhoOut(
        unit=unit, node=state.node, node_name=state.name, at=when(at_ms), state=tile.state,
        offered=unit.startswith("cpu:") or (state.layout is not None and unit in state.layout.grantable),
        claim=None if claim is None else claim_out(claim, state.name), passes_to=taker, quarantine=None if kept is None else quarantine_out(kept, state),
        cordon=None if cordon is None else cordon_out(cordon), shared_by=sharers(state, unit, tile), fault=None if device is None else device.fault,
    )  # fmt: skip


def sharers(state: NodeState, unit: UnitId, tile: Tile) -> list[o.SharerOut]:
    """Return who shares a unit, oldest first: claims whose shared vCPUs may run on a CPU, none where it is held alone; who has a part of a device."""
    layout = state.layout
    if not unit.startswith("cpu:"):
        return _part_holders(state, unit)
    if layout is None or not layout.shared >> int(unit[4:]) & 1 or (layout.exclusive and tile.claim is not None):
        return []
    cells = {cell.vcpu_pool: cell.cpus for cell in layout.cells}
    found = []
    for claim in sorted(state.claims.values(), key=lambda each: (each.held_at_ms, each.id)):
        here = [row.amount for row in claim.grant.amounts if row.pool == "vcpu" or cells.get(row.pool, 0) >> int(unit[4:]) & 1]
        if here:
            found.append(o.SharerOut(claim=claim.id, consumer=claim.consumer, owner=claim.owner, vcpus=sum(here), thousandths=0))
    return found


def _part_holders(state: NodeState, unit: UnitId) -> list[o.SharerOut]:
    """Return who has thousandths of a device, oldest first, what is in quarantine last."""
    claims = sorted(state.claims.values(), key=lambda each: (each.held_at_ms, each.id))
    kept = sorted(state.quarantines.values(), key=lambda each: (each.since_ms, each.claim))
    holders = [(each.id, each.consumer, each.owner, each.grant) for each in claims]
    holders += [(each.claim, each.consumer, each.owner, each.grant) for each in kept]
    return [
        o.SharerOut(claim=claim, consumer=consumer, owner=owner, vcpus=0, thousandths=part)
        for claim, consumer, owner, grant in holders
        if (part := sum(row.amount for row in grant.amounts if shared_unit(row.pool) == unit))
    ]


def list_out(states: list[NodeState], at_ms: int) -> o.ListOut:
    """Return the live claims and quarantines of some nodes."""
    claims, kept = [], []
    for state in states:
        picture = picture_of(state)
        claims += [claim_out(claim, state.name) for claim in picture.claims]
        kept += [quarantine_out(each, state) for each in picture.quarantines]
    return o.ListOut(at=when(at_ms), claims=claims, quarantines=kept)


def node_out(state: NodeState) -> m.NodeOut:
    """Return one line about a node."""
    machine = state.machine
    held = sum(1 for _, grant in state.grants() for row in grant.units if row.unit.startswith("cpu:"))
    return m.NodeOut(
        node=state.node, name=state.name, host=state.runs_on, state=standing(state), reason=closed_for(state), cpus=0 if machine is None else len(machine.cpus), cpus_held=held,
        cells=0 if machine is None else len(machine.cells), memory_bytes=0 if machine is None else sum(c.memory_bytes for c in machine.cells),
        claims=len(state.claims), quarantines=len(state.quarantines), cordons=len(state.cordons), sequence=state.sequence,
        at=when(state.at_ms),
    )  # fmt: skip


def machine_out(picture: Picture, at_ms: int, where: Where, seen: Observation | None = None) -> m.MachineOut:
    """Return the whole node; `seen` is the last look at it."""
    state, machine = picture.state, picture.state.machine
    return m.MachineOut(
        node=state.node, name=state.name, at=when(at_ms), sequence=state.sequence, model=machine.model if machine else None,
        inventory_version=state.inventory_version, observed=machine is not None,
        ledger=m.LedgerOut(place=where.place, kind=where.kind, private=where.private, note=where.note), host=state.runs_on,
        state=standing(state), reason=closed_for(state), traits=sorted(state.traits), settings=state.settings, provided=state.provided,
        disks=disks_out(state, seen),
        cpus=_cpus(picture), offline_cpus=list(machine.offline_cpus) if machine else [], cells=_cells(picture), pools=_pools(picture),
        devices=_devices(picture), claims=[claim_out(claim, state.name) for claim in picture.claims],
        quarantines=[quarantine_out(each, state) for each in picture.quarantines],
        cordons=[cordon_out(state.cordons[key]) for key in sorted(state.cordons)], missing=[unit for unit, _ in picture.missing],
        notes=list(machine.notes) if machine else [],
    )  # fmt: skip


def _cpus(picture: Picture) -> list[m.CpuOut]:
    machine = picture.state.machine
    return [
        m.CpuOut(
            id=cpu.id,
            core=cpu.core,
            cell=cpu.cell,
            package=cpu.package,
            kind=cpu.kind,
            isolated=cpu.isolated,
            state=picture.cpus[cpu.id].state,
            claim=picture.cpus[cpu.id].claim,
        )
        for cpu in (machine.cpus if machine else ())
    ]


def _cells(picture: Picture) -> list[m.CellOut]:
    layout = picture.state.layout
    base_kib = layout.base_page_kib if layout else 0
    used: dict[int, int] = {}
    pools: dict[int, list[m.PageOut]] = {}
    for pool in picture.pools.values():
        size, cell = page_size(pool), pool.stock.cell
        if size is None or cell is None:
            continue
        if size == base_kib:
            used[cell] = pool.stock.used * base_kib * 1024
        else:
            stock = pool.stock
            pools.setdefault(cell, []).append(m.PageOut(size_kib=size, total=stock.total, capacity=stock.capacity, used=stock.used))
    return [
        m.CellOut(
            id=each.cell.id,
            cpus=list(each.cell.cpus),
            memory_bytes=each.cell.memory_bytes,
            ordinary_bytes=each.cell.ordinary_bytes,
            bound_bytes=used.get(each.cell.id, 0),
            distances=list(each.cell.distances),
            pages=pools.get(each.cell.id, []),
        )
        for each in picture.cells
    ]


def _pools(picture: Picture) -> list[m.PoolOut]:
    return [
        m.PoolOut(
            resource_class=pool.stock.resource_class,
            pool=pool.stock.pool,
            cell=pool.stock.cell,
            page_kib=page_size(pool),
            total=pool.stock.total,
            reserved=pool.stock.reserved,
            ratio=pool.stock.ratio,
            capacity=pool.stock.capacity,
            used=pool.stock.used,
        )
        for pool in picture.pools.values()
    ]


def _devices(picture: Picture) -> list[m.DeviceOut]:
    return [
        m.DeviceOut(
            unit=each.device.unit,
            kind=each.device.kind,
            name=each.device.name,
            address=each.device.address,
            cell=each.device.cell,
            driver=each.device.driver,
            iommu_group=each.device.iommu_group,
            parent=each.device.parent,
            memory_bytes=each.device.memory_bytes,
            profile=each.device.profile,
            links=list(each.device.links),
            fault=each.device.fault,
            offered=each.offered,
            state=each.tile.state,
            claim=each.tile.claim,
        )
        for each in picture.devices
    ]
