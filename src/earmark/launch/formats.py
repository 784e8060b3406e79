"""A claim written for other launchers: shell environment, systemd-run, docker, podman, Proxmox's qm, JSON.

Rules of this file: pure; one line that a POSIX shell reads back as exactly the words meant (`eval "$(earmark show C --format docker) IMAGE
COMMAND"`); a name from outside stands only inside `shlex.quote`, never in a list that the target program splits again. What a format
cannot say is a note beside it, never left out in silence.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import msgspec

from earmark.core.ledger.state import NodeState
from earmark.core.model.claim import Claim
from earmark.core.model.cpuset import format_cpu_list
from earmark.core.model.topology import MIG
from earmark.core.model.units import MIB, THOUSAND, format_bytes
from earmark.errors import InvalidRequest
from earmark.launch.portion import AMD, NVIDIA, GivenDevice, Portion, portion_of

KIB = 1024
VMID_DIGITS_MAX = 9
QM_NUMA_MAX = 8
QM_HOSTPCI_MAX = 16
NO_GPU = {
    NVIDIA: {"CUDA_VISIBLE_DEVICES": "", "NVIDIA_VISIBLE_DEVICES": "void"},
    AMD: {"ROCR_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": "-1"},
}
"""The variables with which a program sees no GPU of a vendor."""
QM_HUGE_PAGES = {2 * KIB: "2", KIB * KIB: "1024"}
"""Page size in KiB to the value of qm's `hugepages` (MiB; Proxmox VE 8, qm.conf)."""


class Rendering(NamedTuple):
    """A claim in some format: `text` for the launcher, `notes` for a person (what the format could not say)."""

    text: str
    notes: tuple[str, ...] = ()


def render(name: str, claim: Claim, state: NodeState) -> Rendering:
    """Return a claim in the format `name` (one of FORMATS); raises InvalidRequest for another name."""
    write = FORMATS.get(name)
    if write is None:
        raise InvalidRequest(f"there is no format {name!r}: {', '.join(FORMATS)} are", found=name)
    return write(portion_of(claim, state))


def environment(portion: Portion) -> dict[str, str]:
    """Return the variables that tell a program what it was given, in a fixed order.

    GPUs go by UUID, since indices change from program to program: CUDA_VISIBLE_DEVICES and NVIDIA_VISIBLE_DEVICES (CUDA programming
    guide, environment variables; NVIDIA container toolkit), ROCR_VISIBLE_DEVICES (ROCm, GPU isolation). HIP_VISIBLE_DEVICES takes only
    indices, and they count what ROCR_VISIBLE_DEVICES has left: 0 to n-1.
    """
    told = {"EARMARK_CLAIM": portion.claim}
    if portion.cpus:
        told["EARMARK_CPUS"] = format_cpu_list(portion.cpus)
    if portion.memory_cells:
        told["EARMARK_CELLS"] = format_cpu_list(portion.memory_cells)
    if portion.vcpus:
        told["OMP_NUM_THREADS"] = str(portion.vcpus)
    addresses = [device.address for device in portion.devices if device.address]
    if addresses:
        told["EARMARK_PCI"] = ",".join(addresses)
    nvidia, amd = gpu_uuids(portion, NVIDIA), gpu_uuids(portion, AMD)
    if nvidia:
        told["CUDA_VISIBLE_DEVICES"] = told["NVIDIA_VISIBLE_DEVICES"] = ",".join(nvidia)
    if amd:
        told["ROCR_VISIBLE_DEVICES"] = ",".join(amd)
        told["HIP_VISIBLE_DEVICES"] = ",".join(str(index) for index in range(len(amd)))
    shares = [f"{device.uuid or device.unit}={device.share}" for device in portion.devices if device.share is not None]
    if shares:
        told["EARMARK_GPU_SHARES"] = ",".join(shares)
    return told


def run_environment(portion: Portion) -> dict[str, str]:
    """Return the variables for a command that `run` starts: those of `environment`, and of a vendor of which it was given no GPU it sees none.

    Nothing is visible with CUDA_VISIBLE_DEVICES and ROCR_VISIBLE_DEVICES empty (ROCR-Runtime, amd_filter_device), NVIDIA_VISIBLE_DEVICES
    `void` (NVIDIA container toolkit), HIP_VISIBLE_DEVICES -1 (ROCm CLR, rocdevice: an empty one counts as not set). A GPU whose UUID is not
    known leaves its vendor's variables as they were.
    """
    vendors = {device.vendor or NVIDIA for device in portion.devices if device.is_gpu}
    hidden: dict[str, str] = {}
    for vendor, nothing in NO_GPU.items():
        if vendor not in vendors:
            hidden |= nothing
    return hidden | environment(portion)


def gpu_uuids(portion: Portion, vendor: str) -> list[str]:
    """Return the UUIDs of a claim's GPUs of one PCI vendor; a GPU of no known vendor counts as NVIDIA's (its names begin with GPU-, MIG-)."""
    found = [device.uuid for device in portion.devices if device.uuid and (device.vendor or NVIDIA) == vendor]
    return list(dict.fromkeys(found))


def notes_on(portion: Portion) -> Iterator[str]:
    """Yield what no format can say of a portion, in words."""
    if portion.cpus and not portion.exclusive:
        yield f"CPUs {format_cpu_list(portion.cpus)} are shared with others, as of now: a dedicated claim made later may take some of them"
    for device in portion.devices:
        if device.device is None:
            yield f"{device.unit} is not on the machine any more"
        elif device.is_gpu and not device.uuid:
            yield f"{device.unit}: the GPU's UUID is not known, so no *_VISIBLE_DEVICES names it"
        if device.share is not None:
            yield f"{device.unit}: {device.share}/{THOUSAND} of it is a promise among claims; nothing holds the program to it"
    instances = sum(device.device is not None and device.device.kind == MIG for device in portion.devices)
    if instances > 1:
        yield f"{instances} MIG instances: a CUDA program uses only the first that it is shown (NVIDIA MIG user guide)"


def env(portion: Portion) -> Rendering:
    """Return shell lines `export NAME='value'`, safe for eval."""
    lines = [f"export {name}={shlex.quote(value)}" for name, value in environment(portion).items()]
    return Rendering("\n".join(lines) + "\n", tuple(notes_on(portion)))


def systemd(portion: Portion) -> Rendering:
    """Return `systemd-run --scope … --`, to be followed by the command.

    The properties are those of systemd.resource-control(5), as systemctl set-property takes them. Nothing is doubled for systemd: values
    travel over D-Bus as they are, and the service manager escapes specifiers itself when it writes the transient unit
    (systemd 252, src/core/dbus-unit.c, UNIT_ESCAPE_SPECIFIERS); a scope's command and --setenv are used by systemd-run as they are.
    """
    words = [
        "systemd-run",
        "--scope",
        f"--unit=earmark-{portion.claim}",
        f"--description=earmark claim {portion.claim} of {portion.consumer}",
    ]
    if portion.cpus:
        words += ["-p", f"AllowedCPUs={format_cpu_list(portion.cpus)}"]
    if portion.memory_cells:
        words += ["-p", f"AllowedMemoryNodes={format_cpu_list(portion.memory_cells)}"]
    if portion.memory_bytes:
        words += ["-p", f"MemoryMax={portion.memory_bytes}"]
    words += [f"--setenv={name}={value}" for name, value in environment(portion).items()]
    notes = [f"{device.unit}: a scope cannot be limited to devices" for device in portion.devices]
    return line([*words, "--"], [*notes_on(portion), *notes])


def docker(portion: Portion) -> Rendering:
    """Return `docker run …`, to be followed by the image and the command."""
    words = container_words("docker", portion)
    gpus = gpu_uuids(portion, NVIDIA)
    if gpus:
        words += ["--gpus", f'"device={",".join(gpus)}"']
    return line([*words, *vfio_words(portion)], [*notes_on(portion), *container_notes(portion)])


def podman(portion: Portion) -> Rendering:
    """Return `podman run …`, to be followed by the image and the command; GPUs by their CDI names (nvidia.com/gpu=UUID)."""
    words = container_words("podman", portion)
    for uuid in gpu_uuids(portion, NVIDIA):
        words += ["--device", f"nvidia.com/gpu={uuid}"]
    return line([*words, *vfio_words(portion)], [*notes_on(portion), *container_notes(portion)])


def container_words(program: str, portion: Portion) -> list[str]:
    """Return what docker and podman have in common; --memory is in bytes (suffix b), labels and variables are NAME=VALUE, split once."""
    words = [program, "run", "--label", f"earmark.claim={portion.claim}", "--label", f"earmark.consumer={portion.consumer}"]
    if portion.cpus:
        words += ["--cpuset-cpus", format_cpu_list(portion.cpus)]
    if portion.memory_cells:
        words += ["--cpuset-mems", format_cpu_list(portion.memory_cells)]
    if portion.memory_bytes:
        words += ["--memory", f"{portion.memory_bytes}b"]
    for name, value in environment(portion).items():
        words += ["--env", f"{name}={value}"]
    return words


def vfio_group(device: GivenDevice) -> str | None:
    """Return the device file of an IOMMU group that is bound to vfio-pci, None if it is not (Linux, Documentation/driver-api/vfio.rst)."""
    known = device.device
    return f"/dev/vfio/{known.iommu_group}" if known and known.driver == "vfio-pci" and known.iommu_group is not None else None


def vfio_words(portion: Portion) -> list[str]:
    """Return --device options for what is bound to vfio-pci."""
    groups = sorted({path for device in portion.devices if (path := vfio_group(device))})
    return [word for path in (["/dev/vfio/vfio", *groups] if groups else []) for word in ("--device", path)]


def container_notes(portion: Portion) -> Iterator[str]:
    """Yield what the command lines of docker and podman cannot say of a portion."""
    named = {*gpu_uuids(portion, NVIDIA)}
    for device in portion.devices:
        if device.device is not None and device.uuid not in named and not vfio_group(device):
            yield f"{device.unit}: its device file is not known here; add it with --device"
    for row in portion.pages:
        size = format_bytes(row.size_kib * KIB)
        yield f"{row.number} pages of {size} on cell {row.cell} are reached through a hugetlbfs mount, and are not part of --memory"


def qm(portion: Portion) -> Rendering:
    """Return the command of Proxmox VE 8 that sets a VM up; its number is the consumer if that is one, else $VMID.

    The guest's memory is all of the claim's, in whole MiB; cells are given where the claim's memory is bound to cells of the host.
    """
    notes = list(notes_on(portion))
    words = ["qm", "set"]
    if portion.cpus:
        words += ["--affinity", format_cpu_list(portion.cpus)]
    if portion.vcpus:
        words += ["--sockets", "1", "--cores", str(portion.vcpus)]
    total = portion.memory_bytes + sum(row.number * row.size_kib * KIB for row in portion.pages)
    if total:
        words += ["--memory", str(total // MIB)]
        if total % MIB:
            notes.append(f"the memory of {total} bytes is not a whole number of MiB: {total // MIB} MiB are used")
    sizes = sorted({row.size_kib for row in portion.pages})
    if len(sizes) == 1 and sizes[0] in QM_HUGE_PAGES:
        words += ["--hugepages", QM_HUGE_PAGES[sizes[0]]]
    elif sizes:
        notes.append(f"qm knows pages of 2 MiB and 1 GiB only, not {', '.join(format_bytes(size * KIB) for size in sizes)}")
    if portion.memory_cells and portion.cells:
        words += ["--numa", "1", *numa_words(portion, notes)]
    addresses = [device.address for device in portion.devices if device.address]
    notes += [f"{device.unit} has no PCI address, so no hostpci" for device in portion.devices if not device.address]
    notes += [f"{address}: qm takes {QM_HOSTPCI_MAX} devices at most" for address in addresses[QM_HOSTPCI_MAX:]]
    for index, address in enumerate(addresses[:QM_HOSTPCI_MAX]):
        words += [f"--hostpci{index}", address]
    text = line(words, notes).text
    numeric = portion.consumer.isascii() and portion.consumer.isdigit() and len(portion.consumer) <= VMID_DIGITS_MAX
    vmid = portion.consumer if numeric else '"${VMID:?the number of the VM}"'
    return Rendering(text.replace("qm set", f"qm set {vmid}", 1), tuple(notes))


def numa_words(portion: Portion, notes: list[str]) -> Iterator[str]:
    """Yield --numaN options: the guest's CPUs, memory in MiB and host cell of each guest cell."""
    for index, cell in enumerate(portion.cells):
        if index >= QM_NUMA_MAX:
            notes.append(f"guest cell {cell.guest_cell}: qm takes {QM_NUMA_MAX} cells at most")
            continue
        vcpus = format_cpu_list([*(pin.vcpu for pin in cell.pins), *cell.shared_vcpus]).replace(",", ";")
        parts = [f"cpus={vcpus}", f"hostnodes={cell.host_cell}", f"memory={cell.memory_bytes // MIB}", "policy=bind"]
        yield from (f"--numa{index}", ",".join(parts))


def json(portion: Portion) -> Rendering:
    """Return the portion as one JSON object on one line; amounts in bytes, page sizes in KiB."""
    told: Mapping[str, object] = {
        "claim": portion.claim,
        "consumer": portion.consumer,
        "owner": portion.owner,
        "node": portion.node,
        "cpus": list(portion.cpus),
        "cpu_list": format_cpu_list(portion.cpus),
        "exclusive": portion.exclusive,
        "vcpus": portion.vcpus,
        "memory_bytes": portion.memory_bytes,
        "memory_cells": list(portion.memory_cells),
        "pages": [row._asdict() for row in portion.pages],
        "devices": [
            {"unit": each.unit, "uuid": each.uuid, "address": each.address, "present": each.device is not None, "share": each.share}
            for each in portion.devices
        ],
        "guest_cells": list(portion.cells),
        "environment": environment(portion),
        "notes": list(notes_on(portion)),
    }
    return Rendering(msgspec.json.encode(told).decode() + "\n", tuple(notes_on(portion)))


def line(words: list[str], notes: list[str]) -> Rendering:
    """Return words as one shell line with its notes."""
    return Rendering(" ".join(shlex.quote(word) for word in words) + "\n", tuple(notes))


FORMATS: Mapping[str, Callable[[Portion], Rendering]] = {
    "env": env,
    "systemd": systemd,
    "docker": docker,
    "podman": podman,
    "qm": qm,
    "json": json,
}
