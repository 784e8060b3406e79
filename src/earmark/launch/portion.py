"""What a claim gives to whoever uses it, worked out once from grant and machine for every format and for `run`.

Rules of this file: pure; figures come from the grant's rows, which are the books. Memory in huge pages is not ordinary memory: a memory
limit (cgroup v2 memory.max) does not count it. A claim without CPUs of its own may run on the CPUs that are shared now.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from earmark.core.ledger.state import NodeState
from earmark.core.model.claim import Claim
from earmark.core.model.cpuset import cpus_of
from earmark.core.model.grant import GrantCell
from earmark.core.model.ids import MEMORY, VCPU, UnitId, shared_unit
from earmark.core.model.topology import BASE_PAGE_KIB, Device

KIB = 1024
GPU_UUID = re.compile(r"(?:GPU|MIG)-[0-9A-Za-z][0-9A-Za-z-]{1,120}(?:/[0-9]{1,3}){0,2}")
AMD_SERIAL = re.compile(r"amd-([0-9a-f]{16})")
IDENTITY_PARTS = 4
PCI_ADDRESS = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
NVIDIA = "10de"
AMD = "1002"


class GivenPages(NamedTuple):
    """Pages of one size on one cell: `number` pages of `size_kib` KiB."""

    cell: int
    size_kib: int
    number: int


class GivenDevice(NamedTuple):
    """A device of the claim. `uuid` is a GPU's own name, `address` its PCI address, `device` what the machine says (None: it is gone).

    `share` are the thousandths of it that the claim has, None if it has all of it.
    """

    unit: UnitId
    uuid: str | None
    address: str | None
    device: Device | None
    share: int | None = None

    @property
    def is_gpu(self) -> bool:
        """Whether the *_VISIBLE_DEVICES variables are about it: a GPU, an instance of one, an accelerator of NVIDIA or AMD."""
        if self.unit.startswith("gpu:"):
            return True
        return self.device is not None and (
            self.device.kind == "gpu" or (self.device.kind == "accelerator" and self.vendor in (NVIDIA, AMD))
        )

    @property
    def vendor(self) -> str:
        """The PCI vendor as four hexadecimal digits, "" if it is not known."""
        known = ((self.device.vendor_id if self.device else None) or "").lower().removeprefix("0x")
        return known or (AMD if self.unit.startswith("gpu:amd-") else "")


class Portion(NamedTuple):
    """A claim's part of its node.

    `cpus` are where it may run (`exclusive`: its own; else the CPUs that are shared now), `vcpus` how many it was given, `memory_cells`
    the cells that its memory is bound to (empty: not bound), `memory_bytes` its ordinary memory, `pages` its huge pages.
    """

    claim: str
    consumer: str
    owner: str
    node: str
    cpus: tuple[int, ...]
    exclusive: bool
    vcpus: int
    memory_cells: tuple[int, ...]
    memory_bytes: int
    pages: tuple[GivenPages, ...]
    devices: tuple[GivenDevice, ...]
    cells: tuple[GrantCell, ...]


def portion_of(claim: Claim, state: NodeState) -> Portion:
    """Return what a claim gives on its node as the state knows it."""
    grant = claim.grant
    base_kib = state.machine.base_page_kib if state.machine else BASE_PAGE_KIB
    rows = tuple(sorted(pages_of(claim)))
    floating = sum(row.amount for row in grant.amounts if row.pool == VCPU or row.pool.startswith("vcpu:"))
    exclusive = bool(grant.cpus)
    return Portion(
        claim=claim.id,
        consumer=claim.consumer,
        owner=claim.owner,
        node=state.name,
        cpus=grant.cpus if exclusive and not floating else tuple(sorted({*grant.cpus, *shared_cpus(claim, state)})),
        exclusive=exclusive and not floating,
        vcpus=sum(1 for row in grant.units if row.use == "vcpu" and row.unit.startswith("cpu:")) + floating,
        memory_cells=tuple(sorted({row.cell for row in rows})),
        memory_bytes=grant.amount(MEMORY) + sum(row.number * row.size_kib * KIB for row in rows if row.size_kib == base_kib),
        pages=tuple(row for row in rows if row.size_kib != base_kib),
        devices=tuple(devices_of(claim, state)),
        cells=grant.cells,
    )


def pages_of(claim: Claim) -> Iterator[GivenPages]:
    """Yield the rows of page pools (`pages:CELL:SIZE_KIB`) in a claim's grant, base pages included."""
    for row in claim.grant.amounts:
        kind, _, rest = row.pool.partition(":")
        cell, _, size = rest.partition(":")
        if kind == "pages" and cell.isdecimal() and size.isdecimal():
            yield GivenPages(int(cell), int(size), row.amount)


def devices_of(claim: Claim, state: NodeState) -> Iterator[GivenDevice]:
    """Yield the devices of a claim: those that are all its own, then those of which it has a share."""
    yield from (given(row.unit, state) for row in claim.grant.units if row.use == "device")
    for row in claim.grant.amounts:
        unit = shared_unit(row.pool)
        if unit is not None:
            yield given(unit, state)._replace(share=row.amount)


def shared_cpus(claim: Claim, state: NodeState) -> tuple[int, ...]:
    """Return the CPUs that floating vCPUs of a claim may use now: the node's shared CPUs, on the claim's cells where it is bound to some."""
    if state.layout is None:
        return ()
    mask = state.layout.shared & ~state.free.taken_cpus if state.settings.cpu_policy == "pool" else state.layout.shared
    bound = {int(row.pool[5:]) for row in claim.grant.amounts if row.pool.startswith("vcpu:")}
    cells = {cpu.id: cpu.cell for cpu in state.machine.cpus} if state.machine else {}
    return tuple(cpu for cpu in cpus_of(mask) if not bound or cells.get(cpu) in bound)


def given(unit: UnitId, state: NodeState) -> GivenDevice:
    """Return a unit of a grant with what is known of the device behind it."""
    devices = state.machine.devices if state.machine else ()
    device = next((each for each in devices if each.unit == unit), None)
    if device is None and state.layout is not None:
        device = state.layout.known.get(unit)  # what the device policy adds: mediated devices, named resources
    kind, _, local = unit.partition(":")
    uuid = gpu_uuid(local) if kind == "gpu" else None
    if uuid is None and device is not None and device.identity is not None and device.kind in ("gpu", "accelerator"):
        uuid = gpu_uuid(":".join(device.identity.split(":")[IDENTITY_PARTS:]))  # a GPU that was first known by its address keeps that name
    address = device.address if device and device.address else local if kind == "pci" else None
    return GivenDevice(unit, uuid, address if address and PCI_ADDRESS.fullmatch(address) else None, device)


def gpu_uuid(serial: str) -> str | None:
    """Return a GPU's serial as its vendor's programs accept it, None if it is none.

    NVIDIA: GPU-UUID and MIG-UUID (CUDA programming guide, CUDA_VISIBLE_DEVICES). AMD: GPU- and the 16 digits of its unique id (ROCm, GPU
    isolation).
    """
    if GPU_UUID.fullmatch(serial):
        return serial
    match = AMD_SERIAL.fullmatch(serial)
    return f"GPU-{match[1]}" if match else None
