"""Where exactly does a request fit on a node, or why not.

Rules of this file: pure and total; the same request and supply give the same answer everywhere; never a no where a placement exists. A request
that wants CPUs of its own, a page size or cells is bound to host cells and searched for (`core.fit.search`); any other floats over the node.
"""

from collections.abc import Iterable, Sequence

from earmark.core.fit.devices.match import CLASS_PREFIX, wanted
from earmark.core.fit.devices.rows import amount_rows, device_rows, kept_out, stock_of
from earmark.core.fit.free import Supply
from earmark.core.fit.ground import DeviceStock
from earmark.core.fit.guest import is_bound
from earmark.core.fit.layout import ROOT_DISK
from earmark.core.fit.live_ground import Question, question_of
from earmark.core.fit.request import check_request
from earmark.core.fit.search.find import Found, Placed, find, placeable
from earmark.core.fit.search.pairs import pages_of
from earmark.core.fit.shortfalls import floating_reasons, node_reasons, plain_reasons
from earmark.core.model.cpuset import iterate
from earmark.core.model.grant import AmountRow, Grant, GrantCell, Pin, UnitRow, Use
from earmark.core.model.ids import MEMORY, VCPU, class_pool, cpu_unit, disk_pool
from earmark.core.model.refusal import Certificate, Reason, Refusal
from earmark.core.model.request import DeviceRequest, Request

NO_CELLS = Found((), ())
"""Nothing to look for: neither cells nor devices."""


def fit(request: Request, supply: Supply) -> Grant | Refusal:
    """Return the best grant for a request on a node, or the reasons why there is none.

    Raises InvalidRequest on a request that is empty or contradicts itself.
    """
    check_request(request)
    answer = answered(request, supply)
    if isinstance(answer, Grant):
        return answer
    return Refusal(reasons=answer.reasons, certificate=answer.certificate, fits_if=_fits_if(request, supply, answer.reasons))


def _fits_if(request: Request, supply: Supply, reasons: Sequence[Reason]) -> tuple[str, ...]:
    """Return the changes to a refused request with which it does fit, in words."""
    from earmark.core.fit.hints import proposals  # noqa: PLC0415 - only for those who are refused

    stock = stock_of(supply) if wanted(request, supply.layout) else None
    found = proposals(request, supply, reasons, lambda other: has_room(other, supply, stock))
    return tuple(each.text for each in found)


def has_room(request: Request, supply: Supply, stock: DeviceStock | None = None) -> bool:
    """Say whether a checked request surely fits; what would be granted is not asked, so it is quicker. `stock`: the supply's, if it is known."""
    question = question_of(request, supply, stock)
    if any(_whole_node(request, question, supply)):
        return False
    return (question.guest is None and not question.wishes) or placeable(*question)


def answered(request: Request, supply: Supply) -> Grant | Refusal:
    """Return the best grant for a checked request, or the refusal without its hints."""
    question = question_of(request, supply)
    plain, overall = _whole_node(request, question, supply)
    found = find(*question) if question.guest is not None or question.wishes else NO_CELLS
    if isinstance(found, Found):
        if plain or overall:
            return Refusal(reasons=(*plain, *overall), certificate=Certificate(kind="shortfall"))
        return _grant(request, supply, question.wishes, found)
    rest = tuple(reason for reason in found.reasons if not _told(reason, overall))
    return Refusal(reasons=(*plain, *overall, *rest, *kept_out(question.wishes, supply)), certificate=found.certificate)


def _whole_node(request: Request, question: Question, supply: Supply) -> tuple[list[Reason], list[Reason]]:
    """Return what the node as a whole is short of: plain stock and traits; then CPUs, memory and pages."""
    plain = plain_reasons(request, supply, of_units(question.wishes))
    guest = question.guest
    return plain, floating_reasons(request, supply) if guest is None else node_reasons(request, guest, supply)


def _told(reason: Reason, overall: Sequence[Reason]) -> bool:
    """Say whether a reason of the search says again what one about the whole node says."""
    if reason.cell is None:
        return any(reason.code == other.code and reason.resource == other.resource for other in overall)
    size = reason.resource.rpartition(":")[2]
    return reason.code == "units_rule" and any(other.code == reason.code and other.resource == f"pages:{size}" for other in overall)


def of_units(wishes: Iterable[DeviceRequest]) -> frozenset[str]:
    """Return the resource classes that a node counts in units (V4), of those that are wished for."""
    return frozenset(wish.kind.removeprefix(CLASS_PREFIX) for wish in wishes if wish.kind.startswith(CLASS_PREFIX))


def _grant(request: Request, supply: Supply, wishes: tuple[DeviceRequest, ...], found: Found) -> Grant:
    """Return the rows of a placement that fits, in a fixed order: CPUs, devices; vCPUs, memory, disk, classes, shares."""
    uses: dict[int, Use] = {}
    amounts: list[AmountRow] = []
    if not is_bound(request):
        if request.vcpus:
            amounts.append(AmountRow(pool=VCPU, amount=request.vcpus))
        if request.memory_bytes:
            amounts.append(AmountRow(pool=MEMORY, amount=request.memory_bytes))
    for placed in found.placed:
        if placed.need.shared and placed.cell.vcpu_pool is not None:
            amounts.append(AmountRow(pool=placed.cell.vcpu_pool, amount=len(placed.need.shared)))
        uses.update(dict.fromkeys(placed.choice.pins, "vcpu"))
        uses.update(dict.fromkeys(placed.choice.emulator, "emulator"))
        uses.update(dict.fromkeys(iterate(placed.choice.withheld), "withheld"))
    for placed in found.placed:
        offer = placed.offer
        if offer is not None and offer.pool is not None and placed.need.memory_bytes:
            amounts.append(AmountRow(pool=offer.pool, amount=pages_of(placed.need.memory_bytes, offer)))
    if request.disk_bytes:
        amounts.append(AmountRow(pool=disk_pool(ROOT_DISK), amount=request.disk_bytes))
    units = of_units(wishes)
    classes = sorted((item for item in request.resources if item.resource_class not in units), key=lambda item: item.resource_class)
    amounts += [AmountRow(pool=class_pool(item.resource_class), amount=item.amount) for item in classes]
    rows = [UnitRow(unit=cpu_unit(cpu), use=uses[cpu]) for cpu in sorted(uses)]
    return Grant(
        units=(*rows, *device_rows(wishes, found.devices, supply)),
        amounts=(*amounts, *amount_rows(wishes, found.devices)),
        cells=tuple(_grant_cell(placed) for placed in found.placed),
    )


def _grant_cell(placed: Placed) -> GrantCell:
    need, choice, offer = placed.need, placed.choice, placed.offer
    return GrantCell(
        guest_cell=need.number,
        host_cell=placed.cell.id,
        pins=tuple(Pin(vcpu=vcpu, cpu=cpu) for vcpu, cpu in zip(need.dedicated, choice.pins, strict=True)),
        shared_vcpus=need.shared,
        emulator_cpus=choice.emulator,
        memory_bytes=need.memory_bytes,
        page_kib=offer.size_kib if offer is not None and offer.named else None,
    )
