"""The answer to a case: a placement, or a refusal with a certificate that was checked, or what is wrong with the request.

Rules of this file: a no is said only with a certificate that another program text has checked (`proof/certify.py`); a search that stopped at a bound,
or a certificate that does not hold, is no answer, and says so. A guest without cells needs room on the whole host, and devices wherever
they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from earmark.core.fit.cases.format import Case, CaseName, Limits, limit_of
from earmark.core.fit.cases.ground import device_requests, ground_of_case, said_texts
from earmark.core.fit.cases.passed_over import ALIASES, passed_over
from earmark.core.fit.devices.flow import Undecided
from earmark.core.fit.ground import Ground
from earmark.core.fit.guest import Guest, guest_of, is_bound
from earmark.core.fit.proof import certify
from earmark.core.fit.refusal import broken_rule, short
from earmark.core.fit.search.find import Found, Placed, find
from earmark.core.flavor.affinity import pci_affinity
from earmark.core.flavor.flavor import Flavor, Image
from earmark.core.flavor.translate import translate
from earmark.core.model.ids import MEMORY, VCPU
from earmark.core.model.refusal import Certificate, Reason, Refusal
from earmark.core.model.request import Affinity, DeviceRequest, Request
from earmark.core.model.units import MIB
from earmark.errors import InvalidFlavor, InvalidRecord

MALFORMED = "MalformedCase"
"""The error of a line that is no case."""


class PlacedCell(msgspec.Struct, frozen=True):
    """One guest cell on its host cell: which vCPUs on which CPUs, the size of its pages (None: none was asked for), CPUs of the emulator."""

    guest_cell: int
    host_cell: int
    vcpus: tuple[int, ...]
    shared_vcpus: tuple[int, ...]
    cpu_pinning: dict[str, int]
    pcpus: tuple[int, ...]
    memory_mb: int
    pagesize_kb: int | None
    cpuset_reserved: tuple[int, ...]


class Answer(NamedTuple):
    """The answer to one case.

    `fits` None: not known (the search stopped at its bound, or the line is no case). `error` is the name of what is wrong with the
    request, `message` the words for it. `cells` are None for a guest without cells, `pci` has the addresses for each request.
    `verified`: the certificate was checked and holds (None: there is none). `passed_over` are words of the request that no case has
    a stock for, or that nothing is made of: they were not looked at.
    """

    id: CaseName | None
    fits: bool | None
    error: str | None = None
    message: str = ""
    cells: tuple[PlacedCell, ...] | None = None
    pci: tuple[tuple[str, ...], ...] | None = None
    refusal: Refusal | None = None
    verified: bool | None = None
    passed_over: tuple[str, ...] = ()


def answer(case: Case) -> Answer:
    """Answer a case."""
    flavor, image = _flavor(case)
    try:
        request = translate(flavor, image)
        override = pci_affinity(flavor, image)
    except InvalidFlavor as error:
        return Answer(case.id, fits=False, error=error.kind, message=error.message)
    return _answer(case, request, override)._replace(passed_over=passed_over(case, flavor, image, request))


def _answer(case: Case, request: Request, override: Affinity | None) -> Answer:
    """Answer a case whose request is valid."""
    pack = case.config is None or case.config.pack_cells
    request = msgspec.structs.replace(request, placement="pack" if pack else "spread")
    guest = guest_of(request) if is_bound(request) else None
    requests = device_requests(case.request.pci_requests, override)
    ground = ground_of_case(case, guest)
    full = capacity_reasons(case) if guest is None else []
    try:
        found = find(guest, ground, requests)
    except Undecided as bound:
        found = _unknown(str(bound))
    if isinstance(found, Refusal) and _is_undecided(found) and not full:
        return Answer(case.id, fits=None, refusal=found)
    if full:
        reasons = (*full, *(found.reasons if isinstance(found, Refusal) else ()))
        refusal = Refusal(reasons=reasons, certificate=Certificate(kind="shortfall"))
        return Answer(case.id, fits=False, refusal=refusal, verified=is_full(case, full))
    if isinstance(found, Refusal):
        return _refused(case, found, guest, ground, requests)
    cells = None if guest is None else tuple(_placed(each) for each in found.placed)
    return Answer(case.id, fits=True, cells=cells, pci=_addresses(case, found))


def malformed(name: CaseName | None, error: InvalidRecord) -> Answer:
    """Return the answer to a line that is no case."""
    return Answer(name, fits=None, error=MALFORMED, message=error.message)


def _flavor(case: Case) -> tuple[Flavor, Image]:
    wish = case.request
    flavor = Flavor(vcpus=wish.vcpus, memory_mb=wish.memory_mb, extra_specs=said_texts(wish.extra_specs, (ALIASES,)))
    return flavor, Image(properties=said_texts(wish.image_properties))


def _refused(case: Case, refusal: Refusal, guest: Guest | None, ground: Ground, requests: Sequence[DeviceRequest]) -> Answer:
    """Return a no if its certificate holds."""
    certificate = refusal.certificate
    if certificate is None:
        return Answer(case.id, fits=None, refusal=refusal)
    wrong = certify.check(certificate, guest, ground, requests)
    if not wrong:
        return Answer(case.id, fits=False, refusal=refusal, verified=True)
    if wrong[0].startswith(certify.NOT_CHECKED):
        return Answer(case.id, fits=False, refusal=refusal, verified=False)
    return Answer(case.id, fits=None, message=wrong[0], refusal=refusal, verified=False)


def _is_undecided(refusal: Refusal) -> bool:
    return any(reason.code == "undecided" for reason in refusal.reasons)


def _unknown(why: str) -> Refusal:
    return Refusal(reasons=(Reason(code="undecided", resource="search", detail=why),))


def _placed(each: Placed) -> PlacedCell:
    pins = dict(zip(map(str, each.need.dedicated), each.choice.pins, strict=True))
    return PlacedCell(
        guest_cell=each.need.number,
        host_cell=each.cell.id,
        vcpus=tuple(sorted((*each.need.dedicated, *each.need.shared))),
        shared_vcpus=each.need.shared,
        cpu_pinning=pins,
        pcpus=tuple(sorted(each.choice.pins)),
        memory_mb=each.need.memory_bytes // MIB,
        pagesize_kb=each.offer.size_kib if each.offer is not None and each.offer.named else None,
        cpuset_reserved=each.choice.emulator,
    )


def _addresses(case: Case, found: Found) -> tuple[tuple[str, ...], ...]:
    """Return the addresses for each request of a case; one for no device has none."""
    given = iter(found.devices)
    return tuple(tuple(device.address or "" for device in next(given)) if each.count else () for each in case.request.pci_requests)


# --- guests without cells -----------------------------------------------------------------------------------------------------------


def capacity_reasons(case: Case) -> list[Reason]:
    """Return why the whole host has no room for a guest without cells, nothing if it has (the rule of Placement, C10 and N14)."""
    limits, wish, used = case.limits, case.request, case.host.used
    if limits is None:
        return []
    shared, memory = _totals(case)
    reasons = []
    if wish.vcpus > shared:
        detail = f"a guest never has more vCPUs than the host has shared CPUs, {shared}"
        reasons.append(broken_rule(VCPU, wish.vcpus, detail, code="self_overcommit"))
    if wish.memory_mb > memory:
        reasons.append(short(MEMORY, wish.memory_mb * MIB, memory * MIB, detail="a guest never has more memory than the host"))
    vcpus = used.vcpus + (used.pcpus if case.host.cpu_mode == "default" else 0)
    room = limit_of(shared, limits.cpu_allocation_ratio) - vcpus
    if wish.vcpus > room:
        reasons.append(short(VCPU, wish.vcpus, room, detail=f"of {shared} shared CPUs at a ratio of {limits.cpu_allocation_ratio}"))
    space = limit_of(memory, limits.ram_allocation_ratio) - used.memory_mb
    if wish.memory_mb > space:
        detail = f"of {memory} MiB at a ratio of {limits.ram_allocation_ratio}"
        reasons.append(short(MEMORY, wish.memory_mb * MIB, space * MIB, detail=detail))
    return reasons


def is_full(case: Case, reasons: Sequence[Reason]) -> bool:
    """Say whether each of some reasons that the host is full can be read off the case: what would be used then is too much."""
    limits = case.limits
    return limits is not None and bool(reasons) and all(_is_short(case, limits, reason) for reason in reasons)


def _is_short(case: Case, limits: Limits, reason: Reason) -> bool:
    host, wish = case.host, case.request
    if reason.resource == VCPU:
        there = sum(len(cell.cpus.shared) for cell in host.cells)
        then = wish.vcpus + host.used.vcpus + host.used.pcpus * (host.cpu_mode == "default")
        return wish.vcpus > there or then > limit_of(there, limits.cpu_allocation_ratio)
    there = sum(cell.memory_mb for cell in host.cells)
    return wish.memory_mb > there or wish.memory_mb + host.used.memory_mb > limit_of(there, limits.ram_allocation_ratio)


def _totals(case: Case) -> tuple[int, int]:
    """Return the host's shared CPUs and its memory in MiB."""
    return sum(len(cell.cpus.shared) for cell in case.host.cells), sum(cell.memory_mb for cell in case.host.cells)
