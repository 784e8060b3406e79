"""A no in words: certificates, hints and endings as why-not, fit and a refused claim say them, for people and as JSON."""

from __future__ import annotations

import json

import pytest
from tests.cli.conftest import Line
from tests.cli.holdings import holding

from earmark.cli.refusals import certificate_words, refusal_lines
from earmark.core.model.ids import ResourceClass
from earmark.core.model.refusal import Certificate, Reason, Refusal
from earmark.core.model.request import DeviceRequest, Request, ResourceAmount

NOW = 1_750_000_000_000
TWO = Request(vcpus=8, cpu_policy="dedicated", cells=2)
NEAR = Request(vcpus=2, cpu_policy="dedicated", devices=(DeviceRequest(kind="nvme", count=2, affinity="required"),))


@pytest.mark.parametrize(
    ("certificate", "request_", "words"),
    [
        (Certificate(kind="shortfall"), TWO, ""),
        (Certificate(kind="shortfall", guest_cells=(0,)), NEAR, ""),
        (Certificate(kind="shortfall", guest_cells=(1,)), TWO, "no cell of the host can serve guest cell 1"),
        (
            Certificate(kind="hall", guest_cells=(0, 1), host_cells=(3,)),
            TWO,
            "guest cells 0 and 1 together need 2 cells of the host, only cell 3 can serve them",
        ),
        (
            Certificate(kind="hall", guest_cells=(0, 1, 2), host_cells=(3, 5)),
            TWO,
            "guest cells 0, 1 and 2 together need 3 cells of the host, only cells 3 and 5 can serve them",
        ),
        (
            Certificate(kind="hall", guest_cells=(0, 1)),
            None,
            "guest cells 0 and 1 together need 2 cells of the host, none can serve them",
        ),
        (
            Certificate(kind="together", requirements=("cell:0", "device:0")),
            NEAR,
            "the guest's CPUs and memory and 2 nvme (required affinity) cannot be had at once; without any one of them the rest can",
        ),
        (
            Certificate(kind="together", requirements=("cell:1", "network:blue", "network:", "cpus", "memory")),
            TWO,
            "guest cell 1, network blue, tunnelled networks, the CPUs that those who share keep and the node's ordinary memory cannot be had at once; without any one of them the rest can",
        ),
        (
            Certificate(kind="together", requirements=("device:0",)),
            NEAR,
            "2 nvme (required affinity) cannot be had near a guest of 1 cell, whatever else is asked for",
        ),
        (
            Certificate(kind="together", requirements=("device:0",)),
            Request(resources=(ResourceAmount(resource_class=ResourceClass("CUSTOM_X"), amount=1),)),
            "units of CUSTOM_X cannot be had, whatever else is asked for",
        ),
        (Certificate(kind="together", requirements=("device:0",)), None, "device wish 0 cannot be had, whatever else is asked for"),
        (Certificate(kind="together"), TWO, "the guest has more cells than the host"),
    ],
)
def test_a_certificate_is_one_sentence(certificate: Certificate, request_: Request | None, words: str) -> None:
    """Each kind of certificate reads as what is wanted and what there is; where the reasons say all of it nothing is said twice."""
    assert certificate_words(certificate, request_) == words


def test_the_certificate_stands_first_and_is_not_said_twice() -> None:
    """The sentence of a Hall set replaces the reason that says the same; reasons name the guest cell they are about."""
    reasons = (
        Reason(code="hall", resource="cells", asked=2, free=1, short=1, detail="guest cells 0, 1 can lie only on 1 host cell: 3"),
        Reason(code="short", resource="cores", asked=2, free=1, short=1, cell=0, guest_cell=1),
    )
    lines = refusal_lines(Refusal(reasons=reasons, certificate=Certificate(kind="hall", guest_cells=(0, 1), host_cells=(3,))), NOW, TWO)
    assert lines == [
        "  guest cells 0 and 1 together need 2 cells of the host, only cell 3 can serve them",
        "  guest cell 1 on cell 0: 2 cores asked · 1 core free · 1 core short",
    ]
    assert refusal_lines(Refusal(reasons=reasons[:1]), NOW) == ["  cells: guest cells 0, 1 can lie only on 1 host cell: 3"]


def test_which_claims_must_end_is_said_with_their_ends() -> None:
    """One claim in one line, several below each other; more than eight are counted."""
    one = refusal_lines(Refusal(reasons=(), fits_after=(holding(1, NOW + 3_600_000),)), NOW)
    assert len(one) == 1
    assert one[0].startswith("  fits when this claim ends: vm-1 of bob (c-0001): cpu 4-5, until ")
    many = refusal_lines(Refusal(reasons=(), fits_after=tuple(holding(n) for n in range(10))), NOW)
    assert many[0] == "  fits when these 10 claims have ended:"
    assert many[1] == "      vm-0 of bob (c-0000): cpu 4-5, no end"
    assert many[-1] == "      and 2 more claims"
    assert len(many) == 10


def test_hostile_names_in_a_certificate_are_clean() -> None:
    """A network or a kind of device cannot bring an escape to the terminal."""
    certificate = Certificate(kind="together", requirements=("network:\x1b[2J", "device:0"))
    request = Request(devices=(DeviceRequest(kind="\x1b[31m"),))
    assert all(line.isprintable() for line in refusal_lines(Refusal(reasons=(), certificate=certificate), NOW, request))


def test_wishes_that_a_reason_counts_as_one_are_named() -> None:
    """Where two wishes for one thing are short together, the sentence about one of them and the numbers of both do not seem to disagree."""
    wishes = Request(devices=(DeviceRequest(kind="gpu"), DeviceRequest(kind="gpu", count=3)))
    reason = Reason(code="short", resource="device:gpu", asked=4, free=2, short=2, detail="2 of this kind can be given now")
    refusal = Refusal(reasons=(reason,), certificate=Certificate(kind="together", requirements=("device:1",)), fits_if=("without gpu",))
    assert refusal_lines(refusal, NOW, wishes) == [
        "  3 gpu cannot be had, whatever else is asked for",
        "  4 gpu asked · 2 gpu free · 2 gpu short · wishes for 1 and 3 are counted together; 2 of this kind can be given now",
        "  fits without gpu",
    ]
    one = refusal_lines(refusal, NOW, Request(devices=(DeviceRequest(kind="gpu", count=4),)))
    assert one[1] == "  4 gpu asked · 2 gpu free · 2 gpu short · 2 of this kind can be given now"


def test_why_not_names_certificate_hints_and_endings(earmark: Line) -> None:
    """On two cells of eight cores of which one is taken: what the guest's cells need, what smaller wish fits, and when it will."""
    earmark.good("claim --consumer db --cpus 6:dedicated --ttl 2h")
    said = earmark.good("why-not --cpus 14:dedicated --cells 2")
    assert "guest cells 0 and 1 together need 2 cells of the host, only cell " in said
    assert "fits if 4 vCPUs instead of 14" in said or "fits if 12 vCPUs instead of 14" in said
    assert "fits when this claim ends: db of " in said


def test_the_certificate_is_in_the_json_and_was_checked(earmark: Line) -> None:
    """Fit and why-not have the certificate checked by other means and say so; a refused claim says that nobody looked."""
    earmark.good("claim --consumer db --cpus 6:dedicated --ttl 2h")
    asked = "--cpus 14:dedicated --cells 2"
    for words, code, verified in ((f"fit {asked}", 3, True), (f"why-not {asked}", 0, True), (f"claim {asked}", 3, None)):
        done = earmark(f"--json {words}")
        assert done.code == code
        answer = json.loads(done.out)
        assert answer["certificate"]["kind"] == "hall"
        assert answer["certificate"]["guest_cells"] == [0, 1]
        assert answer["certificate"]["verified"] is verified
        assert "together need 2 cells" in answer["certificate"]["text"]
        assert [each["consumer"] for each in answer["fits_after"]] == ([] if verified is None else ["db"])
    granted = json.loads(earmark.good("--json fit --cpus 1:dedicated"))
    assert (granted["certificate"], granted["fits_after"]) == (None, [])
