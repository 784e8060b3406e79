"""A no in plain lines: why no placement can exist, what is short, who holds it, what would make it fit.

Rules of this file: of a certificate a person reads guest cells, cells of the host, devices and networks, never the names of requirements.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from earmark.cli.phrases import HOLDERS_SHOWN_MAX, clean, device_words, holding, name, reason_line
from earmark.core.fit.devices.match import policy_of
from earmark.core.fit.guest import is_bound
from earmark.core.model.refusal import Certificate, Holding, Reason, Refusal
from earmark.core.model.request import Request
from earmark.core.model.units import counted


def refusal_lines(refusal: Refusal, now_ms: int, request: Request | None = None) -> list[str]:
    """Return why nothing fits: the certificate, the reasons, each with its holders below it, then what would make it fit."""
    proof = "" if refusal.certificate is None else certificate_words(refusal.certificate, request)
    lines = ["  " + clean(proof)] if proof else []
    for reason in refusal.reasons:
        if proof and reason.code in ("hall", "together"):
            continue
        lines.append("  " + reason_line(reason if request is None else _of_several(reason, request)))
        lines += ["      held by " + holding(one, now_ms) for one in reason.holders[:HOLDERS_SHOWN_MAX]]
        more = reason.holders_left_out + max(0, len(reason.holders) - HOLDERS_SHOWN_MAX)
        if more:
            lines.append(f"      and {counted(more, 'more claim')}")
    lines += ["  fits " + ("" if change.startswith("without ") else "if ") + clean(change) for change in refusal.fits_if]
    return lines + ending_lines(refusal.fits_after, now_ms)


def _of_several(reason: Reason, request: Request) -> Reason:
    """Return a reason about devices with the wishes that it counts as one, where they are several: "wishes for 1 and 3"."""
    counts = [wish.count for wish in request.devices if reason.resource == f"device:{wish.kind}"]
    if reason.code != "short" or len(counts) == 1 or sum(counts) != reason.asked:
        return reason
    return replace(reason, detail=f"wishes for {_listed([str(count) for count in counts])} are counted together; {reason.detail}")


def ending_lines(ends: Sequence[Holding], now_ms: int) -> list[str]:
    """Return which claims must end for it to fit, and when they do: one line, or one for each."""
    if len(ends) == 1:
        return ["  fits when this claim ends: " + holding(ends[0], now_ms)]
    lines = [f"  fits when these {len(ends)} claims have ended:"] if ends else []
    lines += ["      " + holding(one, now_ms) for one in ends[:HOLDERS_SHOWN_MAX]]
    return lines + ([f"      and {counted(len(ends) - HOLDERS_SHOWN_MAX, 'more claim')}"] if len(ends) > HOLDERS_SHOWN_MAX else [])


def certificate_words(certificate: Certificate, request: Request | None = None) -> str:
    """Return a certificate as one sentence; "" where the reasons say all of it. Device wishes are named as the request has them."""
    match certificate.kind:
        case "shortfall":
            several = request is None or (request.cells or len(request.guest_cells)) > 1
            if not certificate.guest_cells or not several:
                return ""
            return f"no cell of the host can serve {_numbered('guest cell', certificate.guest_cells)}"
        case "hall":
            return _hall(certificate)
        case "together":
            things = [_thing(name, request) for name in certificate.requirements]
            if not things:
                return "the guest has more cells than the host"
            if len(things) == 1:
                return f"{things[0]} cannot be had{_near(certificate.requirements[0], request)}, whatever else is asked for"
            return f"{_listed(things)} cannot be had at once; without any one of them the rest can"


def _near(name: str, request: Request | None) -> str:
    """Return of how many cells the guest is where a device wish depends on it, in words; "" where it does not."""
    kind, _, number = name.partition(":")
    if request is None or kind != "device" or int(number) >= len(request.devices):
        return ""
    if not is_bound(request) or policy_of(request.devices[int(number)]) == "preferred":
        return ""
    return f" near a guest of {counted(request.cells or len(request.guest_cells) or 1, 'cell')}"


def _hall(certificate: Certificate) -> str:
    guests, hosts = certificate.guest_cells, certificate.host_cells
    need = f"{_numbered('guest cell', guests)} together need {len(guests)} cells of the host"
    if not hosts:
        return f"{need}, none can serve them"
    return f"{need}, only {_numbered('cell', hosts)} can serve them"


def _numbered(what: str, numbers: Sequence[int]) -> str:
    """Return things by number: "cell 3", "cells 0, 1 and 5"."""
    return f"{what}{'s' if len(numbers) != 1 else ''} {_listed([str(number) for number in numbers])}"


def _listed(words: Sequence[str]) -> str:
    """Return words as a list in a sentence: "a, b and c"."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _thing(requirement: str, request: Request | None) -> str:
    """Return one requirement as a person calls it."""
    kind, _, which = requirement.partition(":")
    if kind == "cell":
        alone = request is not None and (request.cells or len(request.guest_cells) or 1) == 1
        return "the guest's CPUs and memory" if alone else f"guest cell {which}"
    if kind == "network":
        return f"network {name(which)}" if which else "tunnelled networks"
    if kind == "device":
        return _device(int(which), request)
    return "the CPUs that those who share keep" if kind == "cpus" else "the node's ordinary memory"


def _device(number: int, request: Request | None) -> str:
    if request is None:
        return f"device wish {number}"
    if number >= len(request.devices):  # units of a resource class: the node knows which classes have them
        return "units of " + (request.resources[0].resource_class if len(request.resources) == 1 else "a resource class")
    return device_words(request.devices[number])
