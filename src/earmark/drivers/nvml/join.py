"""What NVML says, joined with what the kernel's files say of the same machine.

Rules of this file: pure; the PCI address says which device is meant. NVML knows more of its GPUs (UUID, memory, links, instances), the
kernel where they sit. What was not told is a note and is in `unread`, never a guess; a GPU that its driver calls broken has a fault.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from msgspec.structs import replace

from earmark.core.model.ids import UnitId
from earmark.core.model.topology import MIG, MIG_PARENT, Device, Machine
from earmark.drivers.nvml.facts import DRIVER_NOT_LOADED, LIBRARY_NOT_FOUND, LOST, NO_BINDING, Failure, Gpu, Instance, Seen

NVIDIA = "10de"
DRIVER = "nvidia"
GPU_KINDS = ("gpu", "accelerator")
IDENTITY_PARTS = 4
UNKNOWN = "-"
PROFILE = re.compile(r".* MIG ((?:[1-9]c\.)?[1-9]g\.[1-9][0-9]{0,3}gb(?:[+-][a-z0-9.]{1,16}){0,2})")
"""An instance's name ends in how it is cut: NVIDIA A100-SXM4-40GB MIG 1g.5gb (NVIDIA MIG user guide, device names)."""
PARTS = frozenset({"handle", "MIG mode", "MIG instances", "MIG instance", "MIG UUID"})
"""What was asked where an error leaves open which instances a GPU has (`look.py` names them)."""
INSTALL = "pip install 'earmark[gpu]'"


def driven(machine: Machine) -> tuple[Device, ...]:
    """Return the GPUs that are bound to NVIDIA's own driver."""
    return tuple(
        device for device in machine.devices if device.vendor_id == NVIDIA and device.kind in GPU_KINDS and device.driver == DRIVER
    )


def joined(machine: Machine, seen: Seen) -> Machine:
    """Return the machine with what NVML says of its GPUs."""
    if seen.failure is not None:
        return _not_asked(machine, seen)
    there = {device.address: device for device in machine.devices if device.address is not None}
    cells = frozenset(cell.id for cell in machine.cells)
    told = {gpu.address: gpu for gpu in seen.gpus if gpu.address is not None}
    twice = {uuid for uuid, count in Counter(gpu.uuid for gpu in told.values()).items() if count > 1}
    whole = {address: _whole(there.get(address), gpu, cells, named=gpu.uuid not in twice) for address, gpu in told.items()}
    units = {address: device.unit for address, device in whole.items()}
    links = _links(told, units)
    found = {address: replace(device, links=links[address]) for address, device in whole.items()}
    renamed = {there[address].unit: unit for address, unit in units.items() if address in there}
    devices = [_parented(found.get(device.address or "", device), renamed) for device in machine.devices]
    devices += [device for address, device in found.items() if address not in there]
    devices += [_instance(each, found[address]) for address, gpu in told.items() if gpu.mig for each in gpu.instances]
    lost, missing = _without_address(machine, seen, told)
    devices = [replace(device, fault=lost[device.unit]) if device.unit in lost else device for device in devices]
    notes = [*_notes(seen, units, twice), *(f"{unit}: {fault}; it is not handed out" for unit, fault in sorted(lost.items()))]
    notes += [f"{unit}: NVML does not list it here; what was known of it stands" for unit in missing]
    partly = [units[gpu.address] for gpu in told.values() if gpu.address is not None and not _knows_parts(gpu)]
    unread = {*machine.unread, *missing, *lost, *partly}
    return replace(
        machine,
        devices=tuple(sorted(devices, key=lambda device: device.unit)),
        notes=(*machine.notes, *notes),
        unread=tuple(sorted(unread)),
    )


def _not_asked(machine: Machine, seen: Seen) -> Machine:
    """Return the machine where NVML could not be asked at all: what was known of its GPUs stands."""
    failure = seen.failure
    units = tuple(device.unit for device in driven(machine))
    if failure is None or (failure.code == DRIVER_NOT_LOADED and not units):
        return machine
    if failure.code == NO_BINDING:
        note = f"NVIDIA GPUs: memory, links, MIG instances and faults are not known: {INSTALL}"
    elif failure.code == LIBRARY_NOT_FOUND:
        note = "NVIDIA GPUs: memory, links, MIG instances and faults are not known: libnvidia-ml.so.1, a part of the driver, is not there"
    else:
        note = f"NVIDIA GPUs: memory, links, MIG instances and faults are not known: {failure.text} (NVML {failure.code}, {failure.what})"
    return replace(machine, notes=(*machine.notes, note), unread=tuple(sorted({*machine.unread, *units})))


def _whole(known: Device | None, gpu: Gpu, cells: frozenset[int], *, named: bool) -> Device:
    """Return a GPU as a device: NVML's facts, the kernel's where there are such."""
    vendor, product = NVIDIA, gpu.product_id
    base = known or Device(
        unit=UnitId(f"pci:{gpu.address}"), kind="gpu", address=gpu.address, vendor_id=vendor, product_id=product, subsystem=gpu.subsystem,
        driver=DRIVER, identity=":".join((vendor, product or UNKNOWN, gpu.subsystem or f"{UNKNOWN}:{UNKNOWN}")),
    )  # fmt: skip
    near = [cell for cell in gpu.cells if cell in cells]
    named = named and gpu.uuid is not None
    parts = (base.identity or "").split(":")[:IDENTITY_PARTS]
    return replace(
        base,
        unit=UnitId(f"gpu:{gpu.uuid}") if named else base.unit,
        kind=MIG_PARENT if gpu.mig else base.kind,
        cell=near[0] if base.cell is None and len(near) == 1 else base.cell,
        identity=":".join([*parts, gpu.uuid or ""]) if named and len(parts) == IDENTITY_PARTS else base.identity,
        name=gpu.name or base.name,
        memory_bytes=gpu.memory_bytes,
        fault=gpu.fault,
    )


def _instance(part: Instance, parent: Device) -> Device:
    """Return a MIG instance as a device; it has no address and no ids of its own: rules about its GPU's model are not about it."""
    profile = PROFILE.fullmatch(part.name or "")
    return Device(
        unit=UnitId(f"gpu:{part.uuid}"), kind=MIG, driver=parent.driver, cell=parent.cell, parent=parent.unit, name=part.name,
        memory_bytes=part.memory_bytes, fault=parent.fault, profile=profile[1] if profile is not None else None,
    )  # fmt: skip


def _parented(device: Device, renamed: Mapping[UnitId, UnitId]) -> Device:
    """Return a device whose parent has the name that NVML gives it."""
    return replace(device, parent=renamed.get(device.parent, device.parent)) if device.parent is not None else device


def _links(told: Mapping[str, Gpu], units: Mapping[str, UnitId]) -> dict[str, tuple[UnitId, ...]]:
    """Return, by address, the GPUs that each is linked to: directly, or by a switch that both reach; a link that one side tells is there.

    A GPU that is cut into instances is linked to nothing: an instance has no NVLink (NVIDIA MIG user guide, application considerations).
    """
    ends = {address: {peer.address for peer in gpu.peers if peer.kind == "gpu"} for address, gpu in told.items()}
    switches = {address: {peer.address for peer in gpu.peers if peer.kind == "switch"} for address, gpu in told.items()}
    whole = [address for address, gpu in told.items() if not gpu.mig]
    return {
        one: tuple(sorted(units[other] for other in whole if one != other and (other in ends[one] or one in ends[other] or switches[one] & switches[other])))
        if one in whole
        else ()
        for one in told
    }  # fmt: skip


def _without_address(machine: Machine, seen: Seen, told: Mapping[str, Gpu]) -> tuple[dict[UnitId, str], list[UnitId]]:
    """Return the driven GPUs of which NVML told no address: those it calls lost with its words, and those it does not list.

    NVML tells the address of a lost GPU only sometimes; where as many are lost as are missing, they are the same.
    """
    missing = [device.unit for device in driven(machine) if device.address not in told]
    lost = [gpu.fault for gpu in seen.gpus if gpu.address is None and gpu.fault is not None]
    if lost and len(lost) == len(missing) and seen.cut is None:
        return {unit: lost[0] if len(set(lost)) == 1 else "a GPU is lost" for unit in missing}, []
    return {}, missing


def _notes(seen: Seen, units: Mapping[str, UnitId], twice: Iterable[str | None]) -> list[str]:
    """Return what is odd or could not be read, in NVML's order."""
    notes = []
    for gpu in seen.gpus:
        what = units.get(gpu.address or "", f"GPU {gpu.index} of NVML")
        if gpu.fault is not None:
            notes.append(f"{what}: {gpu.fault}; it is not handed out")
        else:
            notes += [f"{what}: its {failure.what} could not be read: {failure.text} (NVML {failure.code})" for failure in _first(gpu)]
        if gpu.mig and not gpu.instances:
            notes.append(f"{what}: MIG is on and there is no instance: nothing of it can be handed out")
        if gpu.mig is not None and gpu.mig_next is not None and gpu.mig != gpu.mig_next:
            notes.append(f"{what}: MIG goes {'on' if gpu.mig_next else 'off'} when the GPU is reset next")
    notes += [f"several GPUs have the UUID {uuid}; they are named by their addresses" for uuid in sorted(each for each in twice if each)]
    if seen.cut is not None:
        notes.append(f"NVML told {len(seen.gpus)} of {seen.count if seen.count is not None else 'unknown'} GPUs: {seen.cut}")
    return notes


def _knows_parts(gpu: Gpu) -> bool:
    """Say whether NVML told all of a GPU's instances, or that it has none."""
    return gpu.fault is None and not any(failure.what in PARTS for failure in gpu.failures)


def _first(gpu: Gpu) -> Sequence[Failure]:
    """Return the failures of a GPU, each thing once."""
    return list({failure.what: failure for failure in gpu.failures if failure.code not in LOST}.values())
