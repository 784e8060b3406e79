"""The sockets, cores and threads that a guest is shown (N24). A shape takes nothing from the host.

Rules of this file: of all factorings of the vCPUs within the limits, that is best which agrees with most of the preferred numbers; then
that with fewest threads, then that with most sockets. Source: Nova 34, virt/hardware.py get_cpu_topology_constraints.
"""

from collections.abc import Iterator
from math import isqrt
from typing import NamedTuple

from earmark.core.flavor.texts import Texts, invalid, whole
from earmark.core.model.request import GuestTopology

UNLIMITED = 65536
PARTS = ("sockets", "cores", "threads")


class Numbers(NamedTuple):
    """Numbers of sockets, cores and threads; 0 where nothing is said."""

    sockets: int
    cores: int
    threads: int

    def exceed(self, limit: "Numbers") -> bool:
        """Say whether any of them is above a limit, where there is a limit."""
        return any(most and number > most for number, most in zip(self, limit, strict=True))

    def __str__(self) -> str:
        return ":".join(str(number) for number in self)


def guest_shape(texts: Texts, vcpus: int) -> GuestTopology | None:
    """Return what the guest is to be shown, None if neither flavor nor image says anything of it; raises InvalidFlavor."""
    most_of_flavor, most_of_image = _numbers(texts, "cpu_max_")
    of_flavor, of_image = _numbers(texts, "cpu_")
    if not any((*most_of_flavor, *most_of_image, *of_flavor, *of_image)) or not vcpus:
        return None
    if most_of_image.exceed(most_of_flavor):
        why = f"above the flavor's {most_of_flavor}"
        raise invalid("ImageVCPULimitsRangeExceeded", "hw_cpu_max_sockets:cores:threads", str(most_of_image), why)
    most = Numbers(*(image or flavor or UNLIMITED for image, flavor in zip(most_of_image, most_of_flavor, strict=True)))
    if of_image.exceed(most):
        raise invalid("ImageVCPUTopologyRangeExceeded", "hw_cpu_sockets:cores:threads", str(of_image), f"above the limits {most}")
    if of_flavor.exceed(most):
        of_flavor = Numbers(0, 0, 0)
    wanted = of_image if any(of_image) else of_flavor
    possible = [each for each in _factorings(vcpus) if not each.exceed(most)]
    if not possible:
        why = f"{vcpus} vCPUs cannot be made of so many"
        raise invalid("ImageVCPULimitsRangeImpossible", "cpu_max_sockets:cores:threads", str(most), why)
    best = max(possible, key=lambda each: (_agreement(each, wanted), -each.threads, each.sockets))
    return GuestTopology(sockets=best.sockets, cores=best.cores, threads=best.threads)


def _numbers(texts: Texts, prefix: str) -> tuple[Numbers, Numbers]:
    """Return the numbers that flavor and image give; raises InvalidFlavor (InvalidRequest)."""
    found = [texts.both(prefix + part) for part in PARTS]
    flavor = (whole(text or "0", f"hw:{prefix}{part}", "InvalidRequest") for part, (text, _) in zip(PARTS, found, strict=True))
    image = (whole(text or "0", f"hw_{prefix}{part}", "InvalidRequest") for part, (_, text) in zip(PARTS, found, strict=True))
    return Numbers(*flavor), Numbers(*image)


def _factorings(vcpus: int) -> Iterator[Numbers]:
    """Yield every way to write a number of vCPUs as a product of sockets, cores and threads."""
    for threads in _divisors(vcpus):
        for cores in _divisors(vcpus // threads):
            yield Numbers(vcpus // threads // cores, cores, threads)


def _divisors(number: int) -> list[int]:
    low = [divisor for divisor in range(1, isqrt(number) + 1) if number % divisor == 0]
    return low + [number // divisor for divisor in reversed(low) if divisor * divisor != number]


def _agreement(each: Numbers, wanted: Numbers) -> int:
    """Return how many of the preferred numbers a factoring has."""
    return sum(bool(want) and number == want for number, want in zip(each, wanted, strict=True))
