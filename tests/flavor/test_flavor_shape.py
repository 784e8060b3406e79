"""The sockets, cores and threads that a guest is shown (N24)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.flavor.flavors import kind_of, made

from earmark.core.model.request import GuestTopology

NUMBERS = st.integers(0, 6)
TRIPLE = st.tuples(NUMBERS, NUMBERS, NUMBERS)
PARTS = ("sockets", "cores", "threads")
ENDLESS = 65536


def shape(specs: dict[str, str], image: dict[str, str] | None = None, vcpus: int = 8) -> tuple[int, int, int] | None:
    """Return the sockets, cores and threads of a guest of eight vCPUs."""
    found = made(specs, image, vcpus=vcpus).topology
    return None if found is None else (found.sockets, found.cores, found.threads)


def texts(prefix: str, numbers: tuple[int, int, int]) -> dict[str, str]:
    """Return numbers of sockets, cores and threads under their keys, 0 for nothing said."""
    return {prefix + part: str(number) for part, number in zip(PARTS, numbers, strict=True) if number}


@pytest.mark.rule("N24")
@pytest.mark.parametrize(
    ("specs", "image", "shown"),
    [
        ({}, {}, None),
        ({"hw:cpu_sockets": "0"}, {}, None),
        ({"hw:cpu_max_sockets": "2"}, {}, (2, 4, 1)),
        ({"hw:cpu_max_sockets": "1", "hw:cpu_max_cores": "4"}, {}, (1, 4, 2)),
        ({"hw:cpu_cores": "4"}, {}, (2, 4, 1)),
        ({"hw:cpu_threads": "2"}, {}, (4, 1, 2)),
        ({"hw:cpu_sockets": "3"}, {}, (8, 1, 1)),
        ({"hw:cpu_sockets": "2", "hw:cpu_threads": "2"}, {}, (2, 2, 2)),
        ({"hw:cpu_sockets": "2"}, {"hw_cpu_cores": "2"}, (4, 2, 1)),
        ({"hw:cpu_sockets": "8"}, {"hw_cpu_max_sockets": "2"}, (2, 4, 1)),
        ({"hw:cpu_max_sockets": "4"}, {"hw_cpu_max_sockets": "2", "hw_cpu_threads": "2"}, (2, 2, 2)),
        ({"hw:cpu_max_threads": "1"}, {"hw_cpu_max_sockets": "1"}, (1, 8, 1)),
    ],
)
def test_the_shape_of_a_guest(specs: dict[str, str], image: dict[str, str], shown: tuple[int, int, int] | None) -> None:
    """Preferred numbers, the image's before the flavor's as a whole, within the lower of the limits; fewest threads, most sockets."""
    assert shape(specs, image) == shown


@pytest.mark.rule("N24")
@given(vcpus=st.integers(1, 48), wanted=TRIPLE, of_image=TRIPLE, most=TRIPLE, most_of_image=TRIPLE)
def test_the_shape_is_the_best_of_all(
    vcpus: int, wanted: tuple[int, int, int], of_image: tuple[int, int, int], most: tuple[int, int, int], most_of_image: tuple[int, int, int]
) -> None:  # fmt: skip
    """The shape is what trying all triples in order of preference gives, and each fault is the one that the rule names."""
    specs = {**texts("hw:cpu_", wanted), **texts("hw:cpu_max_", most)}
    image = {**texts("hw_cpu_", of_image), **texts("hw_cpu_max_", most_of_image)}
    limit = [i or f or ENDLESS for f, i in zip(most, most_of_image, strict=True)]
    if not specs and not image:
        assert made(specs, image, vcpus=vcpus).topology is None
    elif any(f and i > f for f, i in zip(most, most_of_image, strict=True)):
        assert kind_of(specs, image, vcpus=vcpus) == "ImageVCPULimitsRangeExceeded"
    elif any(number > end for number, end in zip(of_image, limit, strict=True)):
        assert kind_of(specs, image, vcpus=vcpus) == "ImageVCPUTopologyRangeExceeded"
    else:
        liked = wanted if all(number <= end for number, end in zip(wanted, limit, strict=True)) else (0, 0, 0)
        liked = of_image if any(of_image) else liked
        found = [
            (s, c, t)
            for t in range(1, vcpus + 1)
            for s in range(vcpus, 0, -1)
            for c in range(1, vcpus + 1)
            if s * c * t == vcpus and s <= limit[0] and c <= limit[1] and t <= limit[2]
        ]
        if not found:
            assert kind_of(specs, image, vcpus=vcpus) == "ImageVCPULimitsRangeImpossible"
            return
        score = [sum(want == have for want, have in zip(liked, each, strict=True)) for each in found]
        best = found[score.index(max(score))]
        assert made(specs, image, vcpus=vcpus).topology == GuestTopology(sockets=best[0], cores=best[1], threads=best[2])


@pytest.mark.rule("N24")
def test_a_guest_whose_vcpus_are_replaced_has_no_shape() -> None:
    """Where resources:VCPU says another number than the flavor, the request has no shape, which would be of the flavor's."""
    assert shape({"resources:VCPU": "2", "hw:cpu_sockets": "4"}) is None
    assert shape({"resources:VCPU": "8", "hw:cpu_sockets": "4"}) == (4, 2, 1)
    assert shape({"resources:VCPU": "2", "hw:cpu_sockets": "4", "hw:numa_nodes": "1"}) == (4, 2, 1)


def test_a_shape_takes_nothing() -> None:
    """A guest that is shown sockets floats as before."""
    assert made({"hw:cpu_sockets": "2"}).cells is None


def test_many_vcpus_are_factored_at_once() -> None:
    """The largest number of vCPUs has its best shape without trying all triples."""
    assert shape({"hw:cpu_max_sockets": "1024", "hw:cpu_max_threads": "2"}, vcpus=1 << 20) == (1024, 1024, 1)
