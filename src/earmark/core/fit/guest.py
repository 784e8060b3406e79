"""A guest as the search sees it: its cells, and what each needs of one host cell.

Rules of this file: nothing says where. The request's own numbers, translated once; `guest_of` is total over checked requests.
"""

from __future__ import annotations

import msgspec

from earmark.core.model.request import CpuPolicy, PageWish, Placement, Request, ThreadPolicy

Kind = tuple[int, int, int, int, bool]
"""All that tells one guest cell from another where it may lie: how many dedicated and shared vCPUs, emulator CPUs, bytes; waived."""


class GuestNeed(msgspec.Struct, frozen=True):
    """What one guest cell needs: vCPUs on CPUs of their own, vCPUs that share, CPUs for the emulator, memory in bytes.

    A `waived` cell lies on a host cell of its own as the others do, but needs nothing of it: so a certificate leaves it out.
    """

    number: int
    dedicated: tuple[int, ...] = ()
    shared: tuple[int, ...] = ()
    emulator: int = 0
    memory_bytes: int = 0
    waived: bool = False

    @property
    def kind(self) -> Kind:
        """What it needs, whatever its number and those of its vCPUs."""
        return (len(self.dedicated), len(self.shared), self.emulator, self.memory_bytes, self.waived)


class Guest(msgspec.Struct, frozen=True):
    """A guest that must lie on host cells, each of its cells on another one. Policies and the page wish hold for all of them."""

    cells: tuple[GuestNeed, ...]
    policy: CpuPolicy = "shared"
    threads: ThreadPolicy | None = None
    placement: Placement = "pack"
    page_kib: int | PageWish | None = None


def is_bound(request: Request) -> bool:
    """Say whether a request must lie on host cells (N1): CPUs of its own, a page size, or cells are asked for."""
    return request.cpu_policy != "shared" or request.page_kib is not None or request.cells is not None or bool(request.guest_cells)


def guest_of(request: Request) -> Guest:
    """Return the guest that a bound request describes: its own cells, or equal ones with consecutive vCPUs (N2)."""
    own = {"shared": frozenset[int](), "dedicated": frozenset(range(request.vcpus)), "mixed": frozenset(request.dedicated_vcpus)}
    dedicated = own[request.cpu_policy]
    if request.guest_cells:
        shapes = [(cell.vcpus, cell.memory_bytes) for cell in request.guest_cells]
    else:
        count = request.cells or 1
        each = request.vcpus // count
        shapes = [(tuple(range(n * each, (n + 1) * each)), request.memory_bytes // count) for n in range(count)]
    emulator = 1 if request.emulator_policy == "isolate" else 0
    cells = tuple(
        GuestNeed(
            number=number,
            dedicated=tuple(vcpu for vcpu in vcpus if vcpu in dedicated),
            shared=tuple(vcpu for vcpu in vcpus if vcpu not in dedicated),
            emulator=emulator if number == 0 else 0,
            memory_bytes=memory,
        )
        for number, (vcpus, memory) in enumerate(shapes)
    )
    return Guest(
        cells=cells,
        policy=request.cpu_policy,
        threads=request.thread_policy,
        placement=request.placement,
        page_kib=request.page_kib,
    )
