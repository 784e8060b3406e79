"""Fit against a search that tries everything, and against its own laws, on small random nodes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.fit.brute import broken_cores, cpu_choices, device_choices, possible
from tests.fit.worlds import SEEDS, World, device_cases, random, requests, shuffled, worlds

from earmark.core.fit.fit import answered, fit
from earmark.core.fit.free import Free
from earmark.core.fit.hints import proposals
from earmark.core.fit.proof.judge import judge
from earmark.core.fit.proof.recheck import check_refusal
from earmark.core.model.grant import Grant
from earmark.core.model.refusal import Refusal
from earmark.core.model.request import Request

pytestmark = pytest.mark.long


@settings(max_examples=1000)
@given(worlds(), requests())
@pytest.mark.rule("W12", "W13", "W23")
def test_fits_exactly_when_some_placement_exists(world: World, request_: Request) -> None:
    """Fit says yes if and only if an exhaustive search over cells, CPUs and devices finds a placement."""
    answer = fit(request_, world.supply)
    assert isinstance(answer, Grant) == possible(request_, world), answer


@settings(max_examples=500)
@given(device_cases())
@pytest.mark.rule("W23")
def test_nested_devices_are_found_exactly_when_some_set_of_them_exists(case: tuple[World, Request]) -> None:
    """Parents and children of any kinds: a set without any exclusion is found if there is one, and the judge agrees with it."""
    world, wish = case
    answer = fit(wish, world.supply)
    assert isinstance(answer, Grant) == possible(wish, world)
    if isinstance(answer, Grant):
        assert judge(answer, world.supply, wish) is None
    else:
        assert check_refusal(answer, wish, world.supply) == []


@settings(max_examples=500)
@given(worlds(), requests())
@pytest.mark.long
def test_what_fit_gives_is_one_of_the_possible_placements(world: World, request_: Request) -> None:
    """A grant's CPUs and devices are among those that the exhaustive search lists, the judge has nothing against it."""
    supply = world.supply
    answer = fit(request_, supply)
    if isinstance(answer, Refusal):
        return
    assert judge(answer, supply, request_) is None
    given_devices = sorted(row.unit for row in answer.units if row.use == "device")
    assert any(sorted(d.unit for d in some) == given_devices for some in device_choices(request_, world))
    for cell in answer.cells:
        assert frozenset(answer.cpus) in cpu_choices(request_, cell.host_cell, world)


@settings(max_examples=500)
@given(worlds(), requests())
def test_breaks_no_core_that_could_stay_whole(world: World, request_: Request) -> None:
    """On the chosen cell no other choice takes less of CPU 0's core, or as much and breaks fewer whole cores."""
    answer = fit(replace(request_, cpu_policy="dedicated", vcpus=max(1, request_.vcpus)), world.supply)
    if isinstance(answer, Refusal):
        return
    choices = cpu_choices(replace(request_, cpu_policy="dedicated", vcpus=len(answer.cpus)), answer.cells[0].host_cell, world)
    assert broken_cores(frozenset(answer.cpus), world) == min(broken_cores(cpus, world) for cpus in choices)


@settings(max_examples=500)
@given(worlds(), requests())
def test_each_reason_of_a_refusal_holds_when_checked_again(world: World, request_: Request) -> None:
    """The numbers of every reason are found again by other means, and every hint is a request that fits."""
    supply = world.supply
    answer = fit(request_, supply)
    if isinstance(answer, Grant):
        return
    assert check_refusal(answer, request_, supply) == []
    said = proposals(request_, supply, answer.reasons, lambda other: isinstance(answered(other, supply), Grant))
    assert tuple(each.text for each in said) == answer.fits_if
    for hint in said:
        assert isinstance(answered(hint.request, supply), Grant), hint


@given(worlds(), requests(), SEEDS)
@pytest.mark.rule("W39")
def test_the_order_in_which_a_driver_lists_things_does_not_matter(world: World, request_: Request, seed: int) -> None:
    """Cells, CPUs, devices and pages listed in another order give the same layout and the same answer, each time."""
    other = world._replace(machine=shuffled(world.machine, random(seed)), grants=tuple(reversed(world.grants)))
    assert other.supply.layout == world.supply.layout
    assert fit(request_, world.supply) == fit(request_, other.supply) == fit(request_, world.supply)


@given(worlds(), requests())
def test_inputs_are_never_changed(world: World, request_: Request) -> None:
    """Neither request nor supply differs after fit and judge from an equal pair that was never used."""
    supply, before = world.supply, repr(request_)
    answer = fit(request_, supply)
    if isinstance(answer, Grant):
        judge(answer, supply, request_)
    assert supply == world.supply
    assert repr(request_) == before
    assert fit(request_, supply) == answer


@settings(max_examples=300)
@given(worlds(), requests())
def test_freeing_never_turns_a_yes_into_a_no(world: World, request_: Request) -> None:
    """Whatever fits on a node fits when any of its grants is gone or its cordons are lifted."""
    if isinstance(fit(request_, world.supply), Refusal):
        return
    for index in range(len(world.grants)):
        freer = world._replace(grants=world.grants[:index] + world.grants[index + 1 :])
        assert isinstance(fit(request_, freer.supply), Grant)
    assert isinstance(fit(request_, world._replace(blocked_cpus=0, blocked_units=frozenset()).supply), Grant)


@settings(max_examples=300)
@given(worlds(), requests())
def test_asking_for_less_never_turns_a_yes_into_a_no(world: World, request_: Request) -> None:
    """Fewer vCPUs, less disk, less floating or whole-paged memory, fewer devices and traits fit where more did."""
    supply = world.supply
    if isinstance(fit(request_, supply), Refusal):
        return
    less = [replace(request_, required_traits=())]
    if request_.vcpus > 1:
        less.append(replace(request_, vcpus=request_.vcpus - 1))
    if request_.disk_bytes:
        less.append(replace(request_, disk_bytes=request_.disk_bytes - 1))
    if request_.memory_bytes > 1 and request_.page_kib is None:
        less.append(replace(request_, memory_bytes=request_.memory_bytes - 1))
    if isinstance(request_.page_kib, int) and request_.memory_bytes > request_.page_kib * 1024:
        less.append(replace(request_, memory_bytes=request_.memory_bytes - request_.page_kib * 1024))
    if len(request_.devices) > 1:
        less.append(replace(request_, devices=request_.devices[1:]))
    for smaller in less:
        assert isinstance(fit(smaller, supply), Grant), smaller


@settings(max_examples=60)
@given(worlds(), st.lists(requests(), max_size=8))
def test_grants_that_follow_each_other_never_overlap(world: World, wishes: list[Request]) -> None:
    """Granting one request after the other never gives a unit twice, and the index stays equal to its recomputation."""
    current = world
    free = world.supply.free
    for wish in wishes:
        answer = fit(wish, current.supply)
        if isinstance(answer, Refusal):
            continue
        current = current.with_grant(answer)
        free = free.take(current.grants[-1][0], answer)
        assert free == Free.recompute(current.grants)
        assert judge(answer, current.supply, None) is not None or not answer.units
