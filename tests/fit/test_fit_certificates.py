"""The check of certificates: true ones are accepted, false ones are not, by the word of a search that tries everything."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from hypothesis import given, settings
from msgspec.structs import replace
from tests.fit.brute_ground import pair_ways, possible, small
from tests.fit.grounds import Case, random, random_case
from tests.fit.worlds import SEEDS

from earmark.core.fit.ground import DeviceStock, Ground, HostCell, PageOffer
from earmark.core.fit.guest import Guest, GuestNeed
from earmark.core.fit.proof import certify
from earmark.core.fit.proof.certify import NOT_CHECKED, check
from earmark.core.model.ids import UnitId
from earmark.core.model.refusal import Certificate
from earmark.core.model.request import DeviceRequest
from earmark.core.model.topology import Device

CASES = 250


def true(certificate: Certificate, case: Case) -> bool:
    """Say whether a certificate holds, by trying everything."""
    if certificate.kind == "together":
        named = certificate.requirements
        fewer = [tuple(other for other in named if other != name) for name in named]
        return not possible(*limited(case, named)) and all(possible(*limited(case, names)) for names in fewer)
    if case.guest is None:
        return False
    outside = [cell for cell in case.ground.cells if cell.id not in certificate.host_cells]
    needs = [need for need in case.guest.cells if need.number in certificate.guest_cells]
    nowhere = not any(pair_ways(need, cell, case.guest, case.ground) for need in needs for cell in outside)
    return nowhere and (certificate.kind == "shortfall" or len(certificate.host_cells) < len(needs))


def limited(case: Case, names: tuple[str, ...]) -> Case:
    """Return a case with only some requirements, the guest cells that are left out waived."""
    guest, ground, requests = case
    if guest is not None:
        guest = replace(guest, cells=tuple(n if f"cell:{n.number}" in names else replace(n, waived=True) for n in guest.cells))
    networks = tuple(each for each in ground.networks if f"network:{each[0]}" in names)
    ground = replace(ground, networks=networks)
    if "cpus" not in names:
        ground = replace(ground, leaving_max=None)
    if "memory" not in names:
        ground = replace(ground, ordinary_max=None)
    return Case(guest, ground, tuple(each for number, each in enumerate(requests) if f"device:{number}" in names))


def named(case: Case) -> list[str]:
    """Return all requirements of a case."""
    names = [f"device:{number}" for number in range(len(case.requests))]
    if case.guest is None:
        return names
    names += [f"cell:{need.number}" for need in case.guest.cells] + [f"network:{name}" for name, _ in case.ground.networks]
    names += ["cpus"] if case.ground.leaving_max is not None else []
    return names + (["memory"] if case.ground.ordinary_max is not None else [])


def least(case: Case) -> tuple[str, ...] | None:
    """Return an irreducible set of requirements that cannot be met, None if all can, or none need be for a no."""
    kept = tuple(named(case))
    if possible(*limited(case, kept)) or not possible(*limited(case, ())):
        return None
    for name in named(case):
        fewer = tuple(other for other in kept if other != name)
        if not possible(*limited(case, fewer)):
            kept = fewer
    return kept


def mutants(certificate: Certificate, case: Case, seed: int) -> list[Certificate]:
    """Return certificates that differ from a given one by one name more, one less, or another."""
    rnd = random(seed)
    if certificate.kind == "together":
        own, every = certificate.requirements, named(case)
        others = [name for name in every if name not in own]
        less = [tuple(other for other in own if other != name) for name in own]
        more = [(*own, name) for name in others] + [(*some, name) for some in less for name in others[:2]]
        return [replace(certificate, requirements=some) for some in rnd.sample([*less, *more], min(4, len(less) + len(more)))]
    ids = [cell.id for cell in case.ground.cells]
    numbers = [need.number for need in case.guest.cells] if case.guest is not None else []
    made = [replace(certificate, guest_cells=tuple(rnd.sample(numbers, rnd.randint(0, len(numbers))))) for _ in range(3)]
    if certificate.kind == "hall":
        made += [replace(certificate, host_cells=tuple(rnd.sample(ids, rnd.randint(0, len(ids))))) for _ in range(3)]
        made += [replace(certificate, host_cells=certificate.host_cells[1:], guest_cells=certificate.guest_cells[1:])]
    return made


def drawn(case: Case, seed: int) -> list[Certificate]:
    """Return certificates of all kinds for a case, true ones where there are any, and false ones."""
    rnd = random(seed)
    found = [] if (names := least(case)) is None else [Certificate(kind="together", requirements=names)]
    if case.guest is not None:
        lies = {
            need.number: frozenset(cell.id for cell in case.ground.cells if pair_ways(need, cell, case.guest, case.ground))
            for need in case.guest.cells
        }
        found += [Certificate(kind="shortfall", guest_cells=(number,)) for number in lies]
        some = tuple(rnd.sample(sorted(lies), rnd.randint(1, len(lies))))
        serving = frozenset().union(*(lies[number] for number in some))
        found.append(Certificate(kind="hall", guest_cells=some, host_cells=tuple(sorted(serving))))
    return [*found, *(mutant for certificate in found for mutant in mutants(certificate, case, seed))]


@pytest.mark.long
def test_a_certificate_is_accepted_exactly_when_it_is_true() -> None:
    """Over some hundred random cases, certificates of each kind and their mutants are judged as the search through everything judges them."""
    seen: dict[tuple[str, bool], int] = {}
    for seed in range(CASES):
        case = random_case(seed)
        assert small(case.guest, case.ground)
        for certificate in drawn(case, seed):
            wrong, holds = check(certificate, *case), true(certificate, case)
            assert (wrong == []) == holds, (seed, certificate, wrong)
            seen[certificate.kind, holds] = seen.get((certificate.kind, holds), 0) + 1
    assert all(seen[kind, holds] >= 30 for kind in ("shortfall", "hall", "together") for holds in (True, False)), seen


@settings(max_examples=300)
@given(SEEDS)
def test_the_search_of_the_check_is_exact(seed: int) -> None:
    """The check's own search says yes exactly when some permutation, set of CPUs and set of devices is a placement."""
    case = random_case(seed)
    assert certify.possible(*case) == possible(*case)


@pytest.mark.long
@settings(max_examples=300)
@given(SEEDS)
def test_the_search_for_sets_of_cells_is_exact(seed: int) -> None:
    """Where no limit of the whole node counts, the check looks at sets of cells only, and is as right as the search through everything."""
    case = random_case(seed)
    case = case._replace(ground=replace(case.ground, leaving_max=None, ordinary_max=None))
    assert certify.possible(*case) == possible(*case)


# --- what a certificate may not say -------------------------------------------------------------------------------------------------

PLAIN = Guest(cells=tuple(GuestNeed(number=n, dedicated=(2 * n, 2 * n + 1)) for n in range(2)), policy="dedicated")
FULL = HostCell(id=0, free=0b1111, cores=(0b11, 0b1100), own=(0b1100,), zero=0b11)
EMPTY = HostCell(id=1)


@pytest.mark.parametrize(
    ("certificate", "text"),
    [
        (Certificate(kind="shortfall", guest_cells=(0,)), "guest cell 0 fits on cell 0"),
        (Certificate(kind="shortfall", guest_cells=(7,)), "there is no guest cell 7"),
        (Certificate(kind="hall", guest_cells=(0, 0), host_cells=(0,)), "a guest cell is named twice"),
        (Certificate(kind="hall", guest_cells=(0, 1), host_cells=(0, 1)), "2 host cells are not fewer than 2 guest cells"),
        (Certificate(kind="hall", guest_cells=(0, 1), host_cells=(1,)), "guest cell 0 fits on cell 0 too"),
        (Certificate(kind="hall", guest_cells=(0, 1), host_cells=(5,)), "there is no host cell 5"),
        (Certificate(kind="together", requirements=("cell:0", "cpus")), "there is no requirement cpus"),
        (Certificate(kind="together", requirements=("device:0",)), "there is no requirement device:0"),
        (Certificate(kind="together", requirements=("cell:0", "cell:0")), "a requirement is named twice"),
        (Certificate(kind="together", requirements=("cell:0",)), "the requirements can all be met at once"),
        (Certificate(kind="together", requirements=("cell:0", "cell:1")), None),
    ],
)
def test_what_is_wrong_with_a_certificate_is_said_in_words(certificate: Certificate, text: str | None) -> None:
    """Names that are not there, counts that do not add up and cells that do serve are each named."""
    wrong = check(certificate, PLAIN, Ground(cells=(FULL, EMPTY)))
    assert wrong == [] if text is None else text in wrong


def test_the_hall_set_of_two_cells_on_one_is_accepted() -> None:
    """Two guest cells of which only one host cell can serve either are a true Hall set."""
    assert check(Certificate(kind="hall", guest_cells=(0, 1), host_cells=(0,)), PLAIN, Ground(cells=(FULL, EMPTY))) == []


def test_a_shortfall_of_the_node_is_left_to_its_reasons() -> None:
    """A shortfall without guest cells says nothing that this check could refute."""
    assert check(Certificate(kind="shortfall"), PLAIN, Ground(cells=(FULL,))) == []
    assert check(Certificate(kind="shortfall", guest_cells=(0,)), None, Ground(cells=(FULL,))) == ["there is no guest cell 0"]


# --- large ones ---------------------------------------------------------------------------------------------------------------------


def _large(vcpus: int, cells: int = 64) -> Ground:
    """Return a node of many cells, each with so many free CPUs, a device on every eighth cell and a socket for every four."""
    hosts = tuple(
        HostCell(id=n, free=((1 << vcpus) - 1) << 8 * n, cores=tuple(0b11 << 8 * n + 2 * k for k in range(4))) for n in range(cells)
    )
    devices = tuple(
        Device(unit=UnitId(f"pci:0000:{n:02x}:00.0"), kind="nvme", address=f"0000:{n:02x}:00.0", cell=n) for n in range(0, cells, 8)
    )
    return Ground(cells=hosts, stock=DeviceStock(devices=devices, sockets={n: n // 4 for n in range(cells)}), leaving_max=4 * 16 - 1)


def _wide(count: int = 16) -> Guest:
    return Guest(
        cells=tuple(GuestNeed(number=n, dedicated=tuple(range(4 * n, 4 * n + 4))) for n in range(count)),
        policy="dedicated",
        threads="require",
    )


def test_sixteen_cells_on_sixty_four_are_checked() -> None:
    """Requirements of a guest of 16 cells on a node of 64 are confirmed and refuted: CPUs of the whole node, and devices near its cells."""
    guest, ground = _wide(), _large(6)
    every = tuple(f"cell:{n}" for n in range(16))
    assert check(Certificate(kind="together", requirements=("cpus", *every)), guest, ground) == []
    assert check(Certificate(kind="together", requirements=("cpus", *every[1:])), guest, ground) == [
        "the requirements can all be met at once"
    ]
    near = (DeviceRequest(kind="pci", count=8, affinity="required"), DeviceRequest(kind="nvme", count=1, affinity="required"))
    assert check(Certificate(kind="together", requirements=("device:0", "device:1")), guest, ground, near) == []
    assert check(Certificate(kind="together", requirements=("device:0",)), guest, ground, near) == [
        "the requirements can all be met at once"
    ]
    short = replace(ground, cells=tuple(replace(cell, free=0) if cell.id % 8 == 0 and cell.id > 24 else cell for cell in ground.cells))
    five = (DeviceRequest(kind="pci", count=5, affinity="required"),)
    assert check(Certificate(kind="together", requirements=("device:0", *every)), guest, short, five) == []
    assert check(Certificate(kind="together", requirements=("device:0", *every[1:])), guest, short, five) != []


def test_many_devices_by_socket_are_checked() -> None:
    """More devices than the richest sockets have are refused at once, on 32 sockets that are all different; as many as they have are not."""
    guest = _wide(6)
    large = _large(6)
    devices = tuple(
        Device(unit=UnitId(f"pci:{n:04x}:00:00.0"), kind="nvme", address=f"{n:04x}:00:00.0", cell=n % 64)
        for n in (*range(0, 64, 2), 65, 67)
    )
    ground = replace(large, stock=DeviceStock(devices=devices, sockets={n: n // 2 for n in range(64)}), leaving_max=None)
    many = Certificate(kind="together", requirements=("device:0",))
    assert check(many, guest, ground, (DeviceRequest(kind="pci", count=9, affinity="socket"),)) == []
    assert check(many, guest, ground, (DeviceRequest(kind="pci", count=8, affinity="socket"),)) == [
        "the requirements can all be met at once"
    ]


def test_devices_on_cells_that_cannot_be_used_at_once_are_checked() -> None:
    """Sixteen guest cells that are all different: half of them can lie only on the same cells without devices, so the others must reach them."""
    kinds = tuple(GuestNeed(number=n, dedicated=tuple(range(n // 8 * 2 + 1)), memory_bytes=n + 1) for n in range(16))
    guest = Guest(cells=kinds, policy="dedicated")
    offers = (PageOffer(size_kib=1, free=1, whole=False),)
    cells = tuple(HostCell(id=n, free=(0b111 if n % 2 else 0b1) << 4 * n, cores=(0b1111 << 4 * n,), offers=offers) for n in range(64))
    devices = tuple(
        Device(unit=UnitId(f"pci:0000:{n:02x}:00.0"), kind="nvme", address=f"0000:{n:02x}:00.0", cell=n) for n in range(0, 64, 2)
    )
    ground = Ground(cells=cells, stock=DeviceStock(devices=devices, sockets={n: n for n in range(64)}))
    every = tuple(f"cell:{n}" for n in range(8, 16))
    nine = (DeviceRequest(kind="pci", count=9, affinity="required"),)
    assert check(Certificate(kind="together", requirements=("device:0", *every)), guest, ground, nine) == []
    assert check(Certificate(kind="together", requirements=("device:0", *every[1:])), guest, ground, nine) == [
        "the requirements can all be met at once"
    ]


def test_beyond_its_bounds_the_check_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is too large to be looked through is neither confirmed nor refuted."""
    monkeypatch.setattr("earmark.core.fit.proof.certify_devices.WAYS_MAX", 2000)
    guest, ground = _wide(2), _large(6, cells=300)
    wrong = check(Certificate(kind="together", requirements=("cpus",)), guest, ground)
    assert [text.startswith(NOT_CHECKED) for text in wrong] == [True]
    units = [UnitId(f"gpu:{n}") for n in range(17)]
    linked = tuple(Device(unit=unit, kind="gpu", links=tuple(other for other in units if other != unit)) for unit in units)
    alone = tuple(Device(unit=UnitId(f"gpu:{n}"), kind="gpu") for n in range(17, 40))
    large = _large(6, cells=16)
    ground = replace(large, stock=replace(large.stock, devices=(*linked, *alone)))
    nine = (DeviceRequest(kind="gpu", count=9, linked=True),) * 2
    wrong = check(Certificate(kind="together", requirements=("device:0", "device:1")), _wide(1), ground, nine)
    assert [text.startswith(NOT_CHECKED) for text in wrong] == [True]


def test_the_check_shares_nothing_with_the_search() -> None:
    """What checks certificates imports of fit only the nouns of the question: guest and ground."""
    folder = Path(certify.__file__).parent
    parts = ("certify", "certify_cells", "certify_devices")
    trees = [ast.parse((folder / f"{part}.py").read_text()) for part in parts]
    used = {node.module for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    own = {name.removeprefix("earmark.core.fit.") for name in used if name.startswith("earmark.core.fit.")}
    assert own == {"guest", "ground", "proof.certify_cells", "proof.certify_devices"}
