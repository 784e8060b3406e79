"""What the search stands on: the host cells as they are now, the devices that could be given, and what the whole node allows.

Rules of this file: plain numbers and masks, nothing of where they come from. A live node and a case of a bulk what-if are made into the same
ground (`live_ground.py`, `cases/ground.py`), so that both are answered by the same search. Everything is sorted by id.
"""

from __future__ import annotations

from collections.abc import Mapping

import immutables
import msgspec

from earmark.core.model.ids import PoolId, Slot, UnitId
from earmark.core.model.topology import Device

WHOLE = 1000
"""A whole device in thousandths."""


class PageOffer(msgspec.Struct, frozen=True):
    """One way in which a host cell can give a guest cell its memory: `free` pages of `size_kib` KiB.

    `whole`: the memory must be a whole number of them, else it is rounded up. `named`: the grant says the size. `ordinary`: the pages
    count against the node's ordinary memory. `pool` is what the grant takes them from (None in a case). A cell without pages offers
    one of size_kib 1024 that is not named.
    """

    size_kib: int
    free: int
    whole: bool = True
    named: bool = True
    ordinary: bool = False
    pool: PoolId | None = None


class HostCell(msgspec.Struct, frozen=True):
    """One host cell now.

    CPUs are masks: `free` may become somebody's own; `cores` are the cell's cores with all their CPUs that are known here, whoever has
    them, `own` the parts of them that are for dedicated use, without CPU 0's core, which is `zero` (0: not here); `busy` are CPUs on
    which something else runs or may run: an isolated vCPU has no neighbour there. `caches` are the domains of the last-level cache,
    () where there is only one. `devices` is the number of devices near to it that may be handed out. `shared_cpus` shared CPUs carry `shared_used` vCPUs of at most `cpu_ratio` thousandths
    (None: no limit). `offers` answer the request's page wish, the smallest sufficient size first. `memory_limit` are the bytes that may
    still be promised to guests that share (None: no limit). `distances` are those to each cell of the ground, in order; () if unknown.
    """

    id: int
    free: int = 0
    cores: tuple[int, ...] = ()
    own: tuple[int, ...] = ()
    busy: int = 0
    zero: int = 0
    caches: tuple[int, ...] = ()
    shared_cpus: int = 0
    shared_used: int = 0
    cpu_ratio: int | None = None
    vcpu_pool: PoolId | None = None
    offers: tuple[PageOffer, ...] = ()
    memory_limit: int | None = None
    socket: int | None = None
    devices: int = 0
    distances: tuple[int, ...] = ()


class DeviceStock(msgspec.Struct, frozen=True):
    """The devices that could be given now (free, not blocked, to be handed out), in order of address, and what each occupies.

    `sockets` is the socket of each host cell, None where it has none or several. `shares` are the thousandths that are left of each
    device of which shares are given. `addresses` are those of parents, also of such as are not here.
    """

    devices: tuple[Device, ...] = ()
    slots: Mapping[UnitId, tuple[Slot, ...]] = immutables.Map()
    sockets: Mapping[int, int | None] = immutables.Map()
    shares: Mapping[UnitId, int] = immutables.Map()
    addresses: Mapping[UnitId, str] = immutables.Map()


class Ground(msgspec.Struct, frozen=True):
    """A node as the search sees it.

    `leaving_max`: so many CPUs may leave the shared set of the whole node (None: as many as there are). `shrinks`: a CPU of somebody's own
    leaves the shared set of its cell. `strict`: ratios are looked at also where nothing is added (a case's rule). `ordinary_max`: bytes of
    ordinary memory that the node has left (None: no limit beyond its cells). `networks` names each network of the guest's with the cells
    it is attached to; the guest needs one of them (N21).
    """

    cells: tuple[HostCell, ...]
    stock: DeviceStock = DeviceStock()
    leaving_max: int | None = None
    shrinks: bool = False
    strict: bool = False
    ordinary_max: int | None = None
    networks: tuple[tuple[str, frozenset[int]], ...] = ()
