"""Live refusals: each certificate is confirmed by other means, each hint is a request that fits, each ending does help."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings
from msgspec.structs import replace
from tests.fit.brute_ground import possible
from tests.fit.worlds import BARE, KINDS, SEEDS, World, machine, random, random_world, sriov, units

from earmark.core.fit.fit import answered, fit, has_room
from earmark.core.fit.hints import TRIES_MAX, WALK_MAX, groups, proposals
from earmark.core.fit.live_ground import question_of
from earmark.core.fit.proof.certify import check
from earmark.core.fit.proof.question import confirmed
from earmark.core.fit.request import check_request
from earmark.core.model.grant import Grant
from earmark.core.model.refusal import Certificate, Refusal
from earmark.core.model.request import CpuPolicy, DeviceRequest, GuestCell, Request
from earmark.core.model.units import GIB, MIB
from earmark.errors import InvalidRequest

CASES = 800


def bound_request(rnd: Random) -> Request:
    """Return a request that must lie on cells: several of them, thread policies, mixed, an emulator CPU, pages, devices near them."""
    policy: CpuPolicy = rnd.choice(("shared", "dedicated", "dedicated", "mixed"))
    cells = rnd.choice((1, 1, 2, 2, 3))
    vcpus = cells * rnd.choice((1, 1, 2, 3))
    if policy == "mixed" and vcpus == 1:
        vcpus = 2 * cells
    memory = rnd.choice((0, 0, 2 * MIB, 4 * MIB)) * cells
    own = policy != "shared"
    wish = tuple(
        DeviceRequest(
            kind=rnd.choice(KINDS),
            count=rnd.choice((1, 1, 2)),
            affinity=rnd.choice((None, "required", "legacy", "preferred")),
            memory_bytes=rnd.choice((None, None, 1, 30 * MIB, 80 * MIB)),
        )
        for _ in range(rnd.choice((0, 0, 0, 1, 2)))
    )
    request = Request(
        vcpus=vcpus,
        cpu_policy=policy,
        thread_policy=rnd.choice((None, "prefer", "isolate", "require", "require-strict")) if own else None,
        emulator_policy=rnd.choice((None, "share", "isolate")) if own else None,
        dedicated_vcpus=tuple(range(rnd.randint(1, vcpus - 1))) if policy == "mixed" else (),
        memory_bytes=memory,
        page_kib=rnd.choice((None, None, "small", "large", "any", 2048)) if memory else None,
        cells=cells,
        devices=wish,
        placement=rnd.choice(("pack", "spread")),
    )
    return ragged(request, rnd) if rnd.random() < 0.4 else request


def ragged(request: Request, rnd: Random) -> Request:
    """Return the request with cells of its own, of any sizes."""
    count = request.cells or 1
    owner = [rnd.randrange(count) for _ in range(request.vcpus)]
    weights = [rnd.choice((0, 1, 1, 2)) for _ in range(count)]
    memory = [weight * 2 * MIB if request.memory_bytes else 0 for weight in weights]
    if not sum(memory):
        request = replace(request, page_kib=None)
    cells = tuple(
        GuestCell(vcpus=tuple(v for v, cell in enumerate(owner) if cell == number), memory_bytes=memory[number]) for number in range(count)
    )
    return replace(request, cells=None, guest_cells=cells, memory_bytes=sum(memory))


@pytest.mark.long
def test_every_certificate_of_a_live_refusal_is_confirmed() -> None:
    """Over 800 random nodes and guests a no is right, has a reason and a certificate that holds; all kinds of certificates occur."""
    seen: Counter[str] = Counter()
    for seed in range(CASES):
        rnd = random(seed)
        world, request = random_world(rnd), bound_request(rnd)
        check_request(request)
        supply = world.supply
        answer, question = fit(request, supply), question_of(request, supply)
        if isinstance(answer, Grant):
            assert possible(*question), seed
            seen["yes"] += 1
            continue
        assert answer.reasons, seed
        assert answer.certificate is not None, seed
        seen[answer.certificate.kind] += 1
        if answer.certificate == Certificate(kind="shortfall"):
            assert possible(*question), seed
            seen["node"] += 1
            continue
        assert not possible(*question), seed
        assert check(answer.certificate, *question) == [], (seed, answer.certificate)
        assert confirmed(answer.certificate, request, supply), seed
    assert all(seen[kind] >= 15 for kind in ("yes", "shortfall", "hall", "together")), seen


@settings(max_examples=150)
@given(SEEDS)
def test_whether_there_is_room_is_what_the_whole_answer_says(seed: int) -> None:
    """The quick question, which chooses nothing, has the same yes and no as the answer with its placement, bound guests and floating ones."""
    rnd = random(seed)
    world, request = random_world(rnd), bound_request(rnd)
    floating = Request(vcpus=request.vcpus, memory_bytes=request.memory_bytes, devices=request.devices)
    for asked in (request, floating):
        assert has_room(asked, world.supply) == isinstance(answered(asked, world.supply), Grant)


@settings(max_examples=150)
@given(SEEDS)
def test_hints_are_requests_that_make_sense_and_fit(seed: int) -> None:
    """Every change that is said was tried: it is a request without contradiction, and it fits; the tries are bounded."""
    rnd = random(seed)
    world, request = random_world(rnd), bound_request(rnd)
    answer = fit(request, world.supply)
    if isinstance(answer, Grant):
        return
    tried: list[Request] = []

    def fits(other: Request) -> bool:
        check_request(other)
        tried.append(other)
        return isinstance(answered(other, world.supply), Grant)

    said = proposals(request, world.supply, answer.reasons, fits)
    assert len(tried) <= TRIES_MAX
    assert tuple(each.text for each in said) == answer.fits_if
    assert all(each.request in tried and fits(each.request) for each in said)
    single = [
        group.requests[n] for group in groups(request, world.supply, answer.reasons) for n in range(min(WALK_MAX, len(group.requests)))
    ]
    if not said:
        assert not any(makes_sense(other) and fits(other) for other in single[:TRIES_MAX])


def makes_sense(request: Request) -> bool:
    """Say whether a request is without contradiction."""
    try:
        check_request(request)
    except InvalidRequest:
        return False
    return True


def hints(request: Request, world: World) -> tuple[str, ...]:
    """Return what is said to make a request fit."""
    answer = fit(request, world.supply)
    assert isinstance(answer, Refusal)
    return answer.fits_if


SPLIT = replace(BARE, cpu_policy="split", cpu_dedicated_set=tuple(range(8)), cpu_shared_set=())
TWO_CELLS = World(machine(cells=2, cores=2, threads=2, pages={2048: 512}), SPLIT)


@pytest.mark.parametrize(
    ("request_", "hint"),
    [
        (Request(vcpus=6, cpu_policy="dedicated"), "2 guest cells instead of 1"),
        (Request(vcpus=6, cpu_policy="dedicated"), "4 vCPUs instead of 6"),
        (Request(vcpus=12, cpu_policy="dedicated", cells=2), "8 vCPUs instead of 12"),
        (Request(vcpus=3, cpu_policy="dedicated", thread_policy="isolate"), "thread policy prefer instead of isolate"),
        (Request(vcpus=3, cpu_policy="dedicated", thread_policy="isolate"), "2 vCPUs instead of 3"),
        (Request(vcpus=1, cpu_policy="dedicated", thread_policy="require-strict"), "thread policy require instead of require-strict"),
        (Request(vcpus=4, cpu_policy="dedicated", emulator_policy="isolate"), "emulator policy share instead of isolate"),
        (Request(vcpus=4, cpu_policy="dedicated", emulator_policy="isolate"), "3 vCPUs instead of 4"),
        (Request(vcpus=2, cpu_policy="dedicated", memory_bytes=2 * GIB, page_kib=2048), "ordinary memory instead of pages of 2 MiB"),
        (Request(vcpus=2, cpu_policy="dedicated", memory_bytes=2 * GIB, page_kib=2048), "2 guest cells instead of 1"),
        (Request(vcpus=6, cpu_policy="dedicated", cells=3), "2 guest cells instead of 3"),
        (
            Request(vcpus=6, cpu_policy="dedicated", guest_cells=(GuestCell(vcpus=(0, 2, 3, 4, 5)), GuestCell(vcpus=(1,)))),
            "4 vCPUs instead of 5 in guest cell 0",
        ),
        (
            Request(
                vcpus=2, cpu_policy="dedicated", memory_bytes=4 * GIB, page_kib=2048,
                guest_cells=(GuestCell(vcpus=(0,), memory_bytes=3 * GIB), GuestCell(vcpus=(1,), memory_bytes=GIB)),
            ),
            "1 GiB of memory instead of 3 GiB in guest cell 0",
        ),
    ],
)  # fmt: skip
def test_what_would_make_it_fit_is_named(request_: Request, hint: str) -> None:
    """Fewer vCPUs, milder policies, other pages, other numbers of cells: each is named where it helps."""
    assert hint in hints(request_, TWO_CELLS)


def test_a_device_that_may_be_farther_away_is_named() -> None:
    """A card on the cell that is full: it would fit if the card might be anywhere."""
    world = World(replace(TWO_CELLS.machine, devices=sriov(2, cell=0)), replace(SPLIT, device_kinds=("vf", "nic")))
    full = world.with_grant(units(range(4)))
    near = Request(vcpus=2, cpu_policy="dedicated", devices=(DeviceRequest(kind="vf", affinity="required"),))
    assert "vf wherever it is (affinity preferred instead of required)" in hints(near, full)
    both = replace(near, devices=(*near.devices, DeviceRequest(kind="vf", affinity="legacy")))
    assert "devices wherever they are (affinity preferred)" in hints(both, full)
    many = Request(devices=(DeviceRequest(kind="vf", count=3),))
    assert "2 vf devices instead of 3" in hints(many, world)


def test_a_mixed_guest_may_share_all_of_its_cpus() -> None:
    """Where no CPU of one's own is left, shared ones are proposed to a mixed guest."""
    world = World(TWO_CELLS.machine, replace(BARE, cpu_policy="split", cpu_dedicated_set=(0,), cpu_shared_set=tuple(range(1, 8))))
    wish = Request(vcpus=3, cpu_policy="mixed", dedicated_vcpus=(0, 1))
    assert "shared CPUs instead of mixed ones" in hints(wish, world)


def test_guest_cells_that_fight_for_one_host_cell_are_each_explained() -> None:
    """A Hall set of two unlike guest cells: the refusal says of either why it lies on no other host cell."""
    world = World(machine(cells=2, cores=2, threads=2), SPLIT).with_grant(units((5, 6, 7)))
    wish = Request(vcpus=5, cpu_policy="dedicated", guest_cells=(GuestCell(vcpus=(0, 1)), GuestCell(vcpus=(2, 3, 4))))
    answer = fit(wish, world.supply)
    assert isinstance(answer, Refusal)
    assert answer.certificate == Certificate(kind="hall", guest_cells=(0, 1), host_cells=(0,))
    told = {(reason.guest_cell, reason.cell, reason.asked, reason.free) for reason in answer.reasons if reason.code == "short"}
    assert told == {(0, 1, 2, 1), (1, 1, 3, 1)}
