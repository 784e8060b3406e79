"""Words for people: names made safe for a terminal, claims, refusals and answers in plain lines.

Rules of this file: nothing that came from outside reaches a terminal without `clean`; no drawing library is needed here, so that claim
starts fast.
"""

from __future__ import annotations

from earmark.cli.times import local, until
from earmark.core.ledger.story import amount_words, describe
from earmark.core.model.claim import Claim, Holder
from earmark.core.model.cpuset import format_cpu_list
from earmark.core.model.grant import AmountRow, Grant
from earmark.core.model.ids import PoolId
from earmark.core.model.refusal import Holding, Reason
from earmark.core.model.request import DeviceRequest, Request
from earmark.core.model.topology import NO_CELL
from earmark.core.model.units import THOUSAND, counted, format_bytes

NAME_SHOWN_MAX = 60
LINE_SHOWN_MAX = 2000
HOLDERS_SHOWN_MAX = 8
COUNTED_RESOURCES = ("cores", "threads", "cells")
BYTES_RESOURCES = ("memory", "disk", "memory_bytes", "disk_bytes")


def clean(text: str, limit: int = LINE_SHOWN_MAX) -> str:
    r"""Return a text that changes nothing on a terminal: unprintable characters (escapes, newlines, direction marks) as \x1b, the end as ….

    Source: a terminal obeys C0 and C1 controls (ECMA-48); Unicode's bidirectional marks reorder what a person reads (UTS 55).
    """
    if not text.isprintable():
        text = "".join(each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in text)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def name(text: str) -> str:
    """Return a name as it is shown: clean and at most 60 characters."""
    return clean(text, NAME_SHOWN_MAX)


def moment(at_ms: int) -> str:
    """Return a moment as local date and time to the second."""
    return f"{local(at_ms):%Y-%m-%d %H:%M:%S %z}"


def consumer_of(consumer: str, claim: str) -> str:
    """Return a consumer's name, "-" where it was made up from the claim's id."""
    return "-" if consumer == claim else name(consumer)


def whose(consumer: str, owner: str, claim: str) -> str:
    """Return whose a claim is: "vm-db of bob (c-7f3a)"."""
    return f"{name(owner)} ({claim})" if consumer == claim else f"{name(consumer)} of {name(owner)} ({claim})"


def pages(size_kib: int) -> str:
    """Return a page size without a space: "2MiB", "1GiB"."""
    return format_bytes(size_kib * 1024).replace(" ", "")


def amount(resource: str, number: int) -> str:
    """Return an amount of a resource or pool as a person reads it: "8 GiB", "4 shared vCPUs", "2 gpu"."""
    kind, _, rest = resource.partition(":")
    known = kind.lower()
    if known in ("cpu", "pcpu"):
        return counted(number, "CPU")
    if known == "vcpu":
        return counted(number, "shared vCPU")
    if known in COUNTED_RESOURCES:
        return counted(number, known.removesuffix("s"))
    if known in BYTES_RESOURCES:
        return format_bytes(number)
    if known == "share":
        return f"{number}/{THOUSAND} of {name(rest)}"
    if known == "pages" and rest:
        cell, _, size = rest.partition(":")
        if size.isdigit():
            return amount_words(AmountRow(pool=PoolId(f"pages:{cell}:{size}"), amount=number)).removesuffix(f" on cell {cell}")
    return f"{number} {name(rest.removeprefix('class:') or kind)}"


def what_is_held(grant: Grant) -> str:
    """Return what a grant holds: "cpu 4-7, 8 GiB"."""
    return clean(describe(grant))


def where(grant: Grant) -> str:
    """Return the host cells of a grant: "cell 0", "cells 0,1", "" where it is bound to none."""
    cells = sorted({cell.host_cell for cell in grant.cells if cell.pins or cell.page_kib is not None} | _pool_cells(grant))
    if not cells:
        return ""
    return ("cell " if len(cells) == 1 else "cells ") + format_cpu_list(cells)


def _pool_cells(grant: Grant) -> set[int]:
    rests = [row.pool.partition(":")[2] for row in grant.amounts if row.pool.startswith(("pages:", "vcpu:"))]
    return {int(rest.partition(":")[0]) for rest in rests if rest.partition(":")[0].isdigit()}


def placed(grant: Grant) -> str:
    """Return what a grant holds and where: "cpu 2-3, 8 GiB (cell 0)"."""
    held, place = what_is_held(grant), where(grant)
    return f"{held} ({place})" if place and " on cell " not in held else held


def phase(claim: Claim, now_ms: int) -> str:
    """Return a claim's phase and end: "confirmed, until 17:40 (2h)", "draining (released) since 14:02"."""
    if claim.phase == "draining":
        return f"draining ({claim.cause})" if claim.cause else "draining"
    return f"{claim.phase}, {until(claim.deadline_ms, now_ms)}"


def leg(claim: Claim) -> str:
    """Return which leg of which move a claim is: "m-12ab →" of the source, "→ m-12ab" of the destination, "" for none."""
    if claim.move is None:
        return ""
    return f"{name(claim.move)} →" if claim.leg == "source" else f"→ {name(claim.move)}"


def phase_and_leg(claim: Claim, now_ms: int) -> str:
    """Return a claim's phase and end, and the move that it is in: "confirmed, no end · m-12ab →"."""
    return " · ".join(part for part in (phase(claim, now_ms), leg(claim)) if part)


def holder(one: Holder) -> str:
    """Return a holder in a few words: "child pid 4711"."""
    return f"{one.role} pid {one.pid}"


def claim_lines(claim: Claim, now_ms: int) -> list[str]:
    """Return a fresh or stepped claim in two lines."""
    holder_of_it = whose(claim.consumer, claim.owner, claim.id).removesuffix(f" ({claim.id})")
    return [f"{claim.id}  {placed(claim.grant)}", f"  {holder_of_it} · {phase(claim, now_ms)}"]


def request_words(request: Request) -> str:
    """Return a request in a few words: "4 dedicated CPUs, 8 GiB in 1GiB pages"."""
    parts = []
    if request.vcpus:
        policy = {"dedicated": "dedicated CPU", "shared": "shared vCPU", "mixed": "mixed vCPU"}[request.cpu_policy]
        own = [f"{len(request.dedicated_vcpus)} dedicated"] if request.cpu_policy == "mixed" and request.dedicated_vcpus else []
        own += [f"{request.thread_policy} threads"] if request.thread_policy else []
        own += [f"{len(request.realtime_vcpus)} real-time"] if request.realtime_vcpus else []
        parts.append(counted(request.vcpus, policy) + (f" ({', '.join(own)})" if own else ""))
        parts += ["a CPU for the emulator"] if request.emulator_policy == "isolate" else []
    if request.memory_bytes:
        size = request.page_kib
        how = "" if size is None else f" in {pages(size)} pages" if isinstance(size, int) else f" in {size} pages"
        parts.append(f"{format_bytes(request.memory_bytes)} {'locked ' if request.locked_memory else ''}memory{how}")
    if request.cells or request.guest_cells:
        parts.append("over " + counted(request.cells or len(request.guest_cells), "guest cell"))
    if request.disk_bytes:
        parts.append(f"{format_bytes(request.disk_bytes)} disk")
    parts += [device_words(device) for device in request.devices]
    parts += [f"{each.amount} {each.resource_class}" for each in request.resources]
    parts += [f"on {name(network)}" for network in request.networks] + (["on tunnelled networks"] if request.tunnel else [])
    parts += [f"with {trait}" for trait in request.required_traits] + [f"without {trait}" for trait in request.forbidden_traits]
    return ", ".join(parts) or "nothing"


def device_words(wish: DeviceRequest) -> str:
    """Return a wish for devices in a few words: "2 linked gpu", "250/1000 of a gpu", "1 of gpu:GPU-8e94…"."""
    what = name(wish.kind)
    said = [format_bytes(wish.memory_bytes)] if wish.memory_bytes is not None else []
    if wish.match:
        said.append(" or ".join(name(" ".join(f"{key}={value}" for key, value in sorted(each.items()))) for each in wish.match))
    what += f" with {' and '.join(said)}" if said else ""
    if wish.within:
        what += f" of {', '.join(name(unit) for unit in wish.within[:HOLDERS_SHOWN_MAX])}"
        what += ", …" if len(wish.within) > HOLDERS_SHOWN_MAX else ""
    near = f" ({wish.affinity} affinity)" if wish.affinity else ""
    if wish.share is not None:
        return f"{wish.share}/{THOUSAND} of a {what}{near}"
    return f"{wish.count} {'linked ' if wish.linked else ''}{what}{near}"


# --- a no --------------------------------------------------------------------------------------------------------------------------


def holding(one: Holding, now_ms: int) -> str:
    """Return who holds something and until when: "vm-db of bob (c-7f3a): cpu 4-7, until 17:40 (2h)"."""
    held = f": {clean(one.what)}" if one.what else ""
    return f"{whose(one.consumer, one.owner, one.claim)}{held}, {until(one.until_ms, now_ms)}"


def reason_line(reason: Reason) -> str:
    """Return one reason in one line: what was asked, what is free, how much is short."""
    whose_cell = f"guest cell {reason.guest_cell} on " if reason.guest_cell is not None else ""
    cell = "" if reason.cell is None else "CPUs of no cell: " if reason.cell == NO_CELL else f"cell {reason.cell}: "
    place = f"{whose_cell}{cell}" if cell else ""
    if reason.code == "short":
        kept = reason.detail.startswith("kept for ")  # CPUs that stay with those who share are short of dedicated ones
        asked, free, short = (amount("cpu" if kept else reason.resource, number) for number in (reason.asked, reason.free, reason.short))
        tail = f" · {clean(reason.detail)}" if reason.detail else ""
        return f"{place}{asked} asked · {free} free · {short} short{tail}"
    words = reason.code.replace("_", " ")
    subject = clean(reason.unit) if reason.unit else _subject(reason.resource)
    return f"{place}{subject}: {clean(reason.detail) or words}"


def _subject(resource: str) -> str:
    """Return what a reason is about as a person calls it: "shared vCPUs", "pages of 1 GiB", else the resource's own name."""
    kind, _, rest = resource.partition(":")
    size = rest.rpartition(":")[2]
    if kind == "pages" and size:
        return f"pages of {format_bytes(int(size) * 1024)}" if size.isdigit() else f"{name(size)} pages"
    return {"vcpu": "shared vCPUs", "network:": "tunnelled networks"}.get(kind if kind == "vcpu" else resource, name(resource))
