"""The search over cells, devices and networks: right for every small case, the same each time, and right about the cases that Nova gets wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import immutables
import pytest
from hypothesis import given, settings
from msgspec.structs import replace
from tests.fit.brute_ground import possible, small
from tests.fit.ground_judge import problems
from tests.fit.grounds import Case, random, random_case, random_large_case
from tests.fit.worlds import SEEDS

from earmark.core.fit.ground import DeviceStock, Ground, HostCell, PageOffer
from earmark.core.fit.guest import Guest, GuestNeed
from earmark.core.fit.proof.certify import NOT_CHECKED, check
from earmark.core.fit.search.find import Found, find
from earmark.core.model.cpuset import mask_of
from earmark.core.model.ids import UnitId
from earmark.core.model.refusal import Certificate, Refusal
from earmark.core.model.request import DeviceRequest, ThreadPolicy
from earmark.core.model.topology import Device
from earmark.core.model.units import GIB, MIB

K = TypeVar("K")
V = TypeVar("V")
CASES = 1500
LARGE = 80
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.rule("W6", "W12", "N11", "N12", "N13", "N14", "N15", "N16", "N18", "N19", "N21", "H1", "H2", "P11", "P12", "P13", "P14", "P15")
@pytest.mark.long
def test_says_yes_exactly_when_a_placement_exists_and_proves_each_no() -> None:
    """Over 1,500 random cases the search agrees with the one that tries everything, its placements are valid, its certificates are true."""
    seen: Counter[str] = Counter()
    for seed in range(CASES):
        case = random_case(seed)
        assert small(case.guest, case.ground)
        kind, wrong = judged(case)
        assert not wrong, (seed, kind, wrong)
        seen[kind] += 1
        if case.guest is not None and len(case.guest.cells) > 1:
            seen[f"{kind}, several cells"] += 1
    assert all(seen[kind] >= 100 for kind in ("yes", "shortfall", "hall", "together")), seen
    assert all(seen[f"{kind}, several cells"] >= 75 for kind in ("yes", "shortfall", "hall", "together")), seen


@settings(max_examples=200)
@given(SEEDS)
def test_says_yes_exactly_when_a_placement_exists_whatever_the_case(seed: int) -> None:
    """The same for cases that are new in each run."""
    _, wrong = judged(random_case(seed))
    assert not wrong


def judged(case: Case) -> tuple[str, list[str]]:
    """Return what the search said of a case (yes, or the kind of its certificate), and what is wrong with that."""
    answer = find(*case)
    if isinstance(answer, Found):
        return "yes", problems(answer, case)
    if answer.certificate is None:
        return "undecided", ["no certificate"]
    wrong = ["it fits"] if possible(*case) else []
    wrong += [] if answer.reasons else ["no reason"]
    return answer.certificate.kind, wrong + check(answer.certificate, *case)


@settings(max_examples=200)
@given(SEEDS)
@pytest.mark.rule("W6", "W21")
def test_a_search_changes_nothing_and_remembers_nothing(seed: int) -> None:
    """Inputs are as before, and the same question has the same answer after others were asked."""
    case, before = random_case(seed), repr(random_case(seed))
    first = find(*case)
    find(*random_case(seed + 1))
    find(case.guest, random_case(seed + 2).ground, case.requests)
    assert repr(case) == before
    assert find(*case) == first
    assert repr(find(*random_case(seed))) == repr(first)


@settings(max_examples=200)
@given(SEEDS)
@pytest.mark.rule("W39")
def test_what_has_no_order_gives_none(seed: int) -> None:
    """Maps and sets that were filled in another order give the same answer."""
    case, rnd = random_case(seed), random(seed)
    stock = case.ground.stock

    def mixed(listed: Mapping[K, V]) -> Mapping[K, V]:
        return immutables.Map(rnd.sample(list(listed.items()), len(listed)))

    other = DeviceStock(stock.devices, mixed(stock.slots), mixed(stock.sockets), mixed(stock.shares), mixed(stock.addresses))
    networks = tuple((name, frozenset(sorted(cells, reverse=True))) for name, cells in case.ground.networks)
    assert find(case.guest, replace(case.ground, stock=other, networks=networks), case.requests) == find(*case)


@pytest.mark.rule("W39")
def test_the_answer_does_not_depend_on_the_seed_of_hashes() -> None:
    """Two interpreters with other hash seeds give the same placements, devices and certificates, byte for byte."""
    script = (
        "import hashlib; from tests.fit.grounds import random_case; from earmark.core.fit.search.find import find\n"
        "print(hashlib.sha256(repr([find(*random_case(seed)) for seed in range(300)]).encode()).hexdigest())"
    )
    said = set()
    for seed in ("1", "77"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}"}
        done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
        said.add(done.stdout)
    assert len(said) == 1


@settings(max_examples=200)
@given(SEEDS)
def test_more_host_cells_never_turn_a_yes_into_a_no(seed: int) -> None:
    """What fits on a node fits on it with one cell more."""
    case = random_case(seed)
    if isinstance(find(*case), Refusal):
        return
    more = HostCell(id=max((cell.id for cell in case.ground.cells), default=0) + 1)
    cells = tuple(replace(cell, distances=()) for cell in case.ground.cells)
    assert isinstance(find(case.guest, replace(case.ground, cells=(*cells, more)), case.requests), Found)


@pytest.mark.rule("W33")
@pytest.mark.long
def test_large_cases_are_answered_with_valid_placements_and_true_certificates() -> None:
    """Up to 16 guest cells on up to 64 host cells with a hundred devices: no answer is wrong, next to none is left open."""
    seen: Counter[str] = Counter()
    for seed in range(LARGE):
        case = random_large_case(seed)
        answer = find(*case)
        if isinstance(answer, Found):
            assert problems(answer, case) == [], seed
            seen["yes"] += 1
        elif answer.certificate is None:
            seen["open"] += 1
        else:
            wrong = check(answer.certificate, *case)
            assert wrong == [] or wrong[0].startswith(NOT_CHECKED), (seed, wrong)
            seen[answer.certificate.kind] += 1
            seen["open"] += bool(wrong)
    assert all(seen[kind] >= 5 for kind in ("yes", "shortfall", "hall", "together")), seen
    assert seen["open"] <= LARGE // 20, seen


# --- named cases --------------------------------------------------------------------------------------------------------------------


def host(
    number: int, cores: list[list[int]], memory: int = 0, *, free: set[int] | None = None, offers: tuple[PageOffer, ...] = ()
) -> HostCell:
    """Return a host cell with cores, free CPUs (None: all), and so many MiB without pages or these pages."""
    cpus = {cpu for core in cores for cpu in core}
    here = cpus if free is None else free
    return HostCell(
        id=number,
        free=mask_of(here),
        cores=tuple(mask_of(core) for core in cores),
        own=tuple(mask_of(core) for core in cores if 0 not in core),
        zero=next((mask_of(core) for core in cores if 0 in core), 0),
        busy=mask_of(cpus - here),
        offers=offers or (PageOffer(size_kib=1024, free=memory, whole=False, named=False),),
    )


def flat(*cells: tuple[int, int]) -> Ground:
    """Return a ground of cells with so many CPUs and MiB each, one thread a core."""
    return Ground(cells=tuple(host(n, [[16 * n + cpu] for cpu in range(cpus)], memory) for n, (cpus, memory) in enumerate(cells)))


def guest(*cells: tuple[int, int], threads: ThreadPolicy | None = None) -> Guest:
    """Return a dedicated guest of cells with so many vCPUs and MiB each."""
    needs = []
    first = 0
    for number, (vcpus, memory) in enumerate(cells):
        needs.append(GuestNeed(number=number, dedicated=tuple(range(first, first + vcpus)), memory_bytes=memory * MIB))
        first += vcpus
    return Guest(cells=tuple(needs), policy="dedicated", threads=threads)


def spots(answer: Found | Refusal) -> list[int]:
    """Return the host cell of each guest cell."""
    assert isinstance(answer, Found), answer
    return [placed.cell.id for placed in answer.placed]


@pytest.mark.rule("S36", "W6")
def test_asymmetric_guests_are_placed_where_they_fit() -> None:
    """Guest cells of different sizes find the host cells that are large enough, whichever was tried before, with a CPU for each vCPU."""
    assert spots(find(guest((2, 1024), (3, 3072)), flat((2, 4096), (5, 4096), (1, 3072)))) == [0, 1]
    wide = guest((3, 1024), (1, 3072), (4, 3072))
    answer = find(wide, flat((5, 4096), (3, 3072), (2, 4096)))
    assert spots(answer) == [1, 2, 0]
    assert isinstance(answer, Found)
    assert len({cpu for placed in answer.placed for cpu in placed.choice.pins}) == 8
    assert problems(answer, Case(wide, flat((5, 4096), (3, 3072), (2, 4096)))) == []


@pytest.mark.rule("S36", "W6")
def test_an_asymmetric_guest_that_fits_nowhere_is_refused_with_proof() -> None:
    """A guest cell of three vCPUs has no place on cells of one and two CPUs: the certificate names it."""
    ground = flat((1, 4096), (2, 4096), (1, 4096))
    narrow = guest((1, 2048), (1, 1024), (3, 1024))
    answer = find(narrow, ground)
    assert isinstance(answer, Refusal)
    assert answer.certificate == Certificate(kind="shortfall", guest_cells=(2,))
    assert check(answer.certificate, narrow, ground) == []


def _paged(size_kib: int, free: int) -> tuple[PageOffer, ...]:
    return (PageOffer(size_kib=size_kib, free=free),)


@pytest.mark.rule("S35", "W21")
def test_a_page_size_does_not_stick_to_the_next_cell() -> None:
    """A cell of 1 GiB pages that lacks a core with two free threads does not fix the page size for the cell that has one."""
    single = host(0, [[0, 1], [2, 3]], free={0, 2}, offers=_paged(1 << 20, 4))
    paired = host(1, [[4, 5], [6, 7]], offers=_paged(2048, 1024))
    answer = find(guest((2, 1024), threads="require"), Ground(cells=(single, paired)))
    assert spots(answer) == [1]
    assert isinstance(answer, Found)
    assert [placed.offer for placed in answer.placed] == list(_paged(2048, 1024))


@pytest.mark.rule("S35", "W21")
def test_a_page_size_does_not_stick_to_the_next_node() -> None:
    """A guest that was placed on pages of 1 GiB is placed on pages of 2 MiB by the next node, and the guest is as it was."""
    mover = guest((2, 1024))
    huge, small_pages = (Ground(cells=(host(0, [[0], [1]], offers=_paged(*offer)),)) for offer in ((1 << 20, 1), (2048, GIB // (2 * MIB))))
    before = repr(mover)
    assert spots(find(mover, huge)) == spots(find(mover, small_pages)) == [0]
    assert repr(mover) == before


@pytest.mark.parametrize(
    ("cores", "free", "count", "threads", "fits"),
    [
        ([[0, 1], [2, 3], [4, 5], [6, 7]], {0, 1, 2, 4, 6}, 2, "require", True),
        ([[0, 1], [2, 3], [4, 5], [6, 7]], {0, 1, 2, 4, 6}, 3, "require", False),  # a core with one free thread is no core for require
        ([[0, 1], [2, 3]], {0, 1, 2}, 3, "require", False),
        ([[0, 1], [2, 3]], {0, 1, 2, 3}, 3, "require", True),
        ([[0, 1], [2, 3]], {0, 1, 2, 3}, 3, "require-strict", False),
        ([[0, 1, 2, 3], [4, 5, 6, 7]], {0, 1, 2, 4, 5}, 5, "require", True),  # cores that give different numbers of threads
        ([[0, 1, 2, 3], [4, 5, 6, 7]], {0, 1, 2, 4, 5}, 5, "require-strict", True),
        ([[0, 1, 2], [3, 4, 5]], {0, 1, 2, 3, 4, 5}, 5, "require-strict", True),
        ([[0, 1, 2], [3, 4, 5]], {0, 1, 2, 3, 4, 5}, 1, "require-strict", False),
    ],
)
@pytest.mark.rule("W38", "N17")
def test_cores_may_give_different_numbers_of_threads(
    cores: list[list[int]], free: set[int], count: int, threads: ThreadPolicy, fits: bool
) -> None:
    """Thread policy require counts the threads of each core for itself; a no is proven."""
    ground = Ground(cells=(host(0, cores, free=free),))
    answer = find(guest((count, 0), threads=threads), ground)
    assert isinstance(answer, Found) == fits
    assert isinstance(answer, Found) or answer.certificate == Certificate(kind="shortfall", guest_cells=(0,))


@pytest.mark.rule("W38")
def test_the_least_core_is_broken_and_the_smallest_page_taken() -> None:
    """Among fits the one that leaves whole cores whole and large pages free is taken."""
    offers = (PageOffer(size_kib=2048, free=512), PageOffer(size_kib=1 << 20, free=1))
    ground = Ground(cells=(host(0, [[2, 3], [4, 5]]), host(1, [[6, 7], [8, 9]], free={6, 8, 9}, offers=offers)))
    answer = find(guest((1, 1024)), replace(ground, cells=ground.cells[1:]))
    assert isinstance(answer, Found)
    assert answer.placed[0].choice.pins == (6,)
    assert answer.placed[0].offer == offers[0]


@pytest.mark.rule("W13")
def test_a_node_without_cells_refuses_with_a_reason() -> None:
    """Dedicated CPUs on a host whose topology is not known are refused, never given unpinned."""
    answer = find(guest((2, 0)), Ground(cells=()))
    assert isinstance(answer, Refusal)
    assert answer.reasons
    assert answer.certificate is not None
    assert check(answer.certificate, guest((2, 0)), Ground(cells=())) == []


def test_an_irreducible_set_names_what_is_in_each_others_way() -> None:
    """CPUs on one cell, the only card near the other: the cell and the device are named, and nothing else."""
    card = Device(unit=UnitId("pci:0000:81:00.0"), kind="nvme", address="0000:81:00.0", cell=1)
    near = DeviceRequest(kind="nvme", affinity="required")
    ground = replace(flat((4, 8), (0, 8)), stock=DeviceStock(devices=(card,)), networks=(("blue", frozenset((0, 1))),))
    answer = find(guest((2, 4)), ground, (near,))
    assert isinstance(answer, Refusal)
    assert answer.certificate == Certificate(kind="together", requirements=("cell:0", "device:0"))
    assert check(answer.certificate, guest((2, 4)), ground, (near,)) == []


def test_a_network_of_one_cell_names_one_cell_and_a_network_of_two_names_cells() -> None:
    """Two networks, one on each side: a guest of one cell cannot have both, and the words are right for one cell and for more."""
    ground = replace(flat((4, 8), (4, 8), (4, 8)), networks=(("blue", frozenset((0,))), ("red", frozenset((1, 2)))))
    answer = find(guest((2, 4)), ground, ())
    assert isinstance(answer, Refusal)
    assert {reason.detail for reason in answer.reasons if reason.code == "network"} == {"attached to cell 0", "attached to cells 1, 2"}


def test_devices_spread_over_more_cells_than_the_guest_has_are_refused_with_a_reason() -> None:
    """Three cards near three cells, a guest of two: the certificate names the wish, and there is a reason in words."""
    cards = tuple(Device(unit=UnitId(f"pci:0000:8{n}:00.0"), kind="nvme", address=f"0000:8{n}:00.0", cell=n) for n in range(3))
    near = DeviceRequest(kind="nvme", count=3, affinity="required")
    ground = replace(flat((4, 8), (4, 8), (4, 8)), stock=DeviceStock(devices=cards))
    answer = find(guest((2, 4), (2, 4)), ground, (near,))
    assert isinstance(answer, Refusal)
    assert answer.certificate == Certificate(kind="together", requirements=("device:0",))
    assert [reason.detail for reason in answer.reasons] == ["device:0: cannot be met from any 2 host cells"]
    assert spots(find(guest((2, 4), (2, 4), (1, 0)), ground, (near,))) == [0, 1, 2]
