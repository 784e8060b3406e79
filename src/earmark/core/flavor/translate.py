"""A flavor, its image and the PCI aliases, made into a Request.

Rules of this file: pure and total: any texts give a Request that stands on its own feet, or InvalidFlavor with Nova's name for what is
wrong. The checks come in Nova's order (virt/hardware.py numa_get_constraints), so that of two faults the same one is named; what only
the scheduler and the aliases look at comes last. No key depends on the order of the keys. Source: Nova 34.
"""

from collections.abc import Iterable

from earmark.core.flavor.affinity import affinity_of
from earmark.core.flavor.alias import PciAlias, alias_requests, defined
from earmark.core.flavor.cells import Cells, cell_count, guest_cells
from earmark.core.flavor.classes import read_classes
from earmark.core.flavor.cpus import cpu_wish
from earmark.core.flavor.flavor import Flavor, Image
from earmark.core.flavor.groups import Groups, read_groups
from earmark.core.flavor.memory import encrypted, encryption_trait, locked, page_wish, pmem_amounts
from earmark.core.flavor.shape import guest_shape
from earmark.core.flavor.texts import Texts, invalid
from earmark.core.flavor.vcpus import numbers_of
from earmark.core.model.request import DEVICE_REQUESTS_MAX, Request
from earmark.core.model.units import GIB, MIB

VCPUS_MAX = 1 << 20
BYTES_MAX = 1 << 60
ENCRYPTION = "MEM_ENCRYPTION_CONTEXT"


def translate(
    flavor: Flavor, image: Image | None = None, *, boot_from_volume: bool = False, aliases: Iterable[PciAlias] = ()
) -> Request:  # fmt: skip
    """Return the request for one guest of a flavor and an image; raises InvalidFlavor.

    Without an image nothing is known of it, and what an image must have is not looked for. `boot_from_volume`: the root disk is a
    volume, and takes nothing of the node (C5). `aliases` are the definitions of the names in pci_passthrough:alias.
    """
    request = read(flavor, image, boot_from_volume=boot_from_volume, aliases=aliases)
    _stands(request)
    return request


def read(flavor: Flavor, image: Image | None, *, boot_from_volume: bool, aliases: Iterable[PciAlias]) -> Request:
    """Return the request as `translate` does, before it is looked at as a whole."""
    texts = Texts(flavor.extra_specs, image.properties if image is not None else {})
    groups = read_groups(texts)
    cpus = cpu_wish(flavor, texts, groups)
    count = cell_count(texts)
    page = page_wish(texts)
    pmem, fault = pmem_amounts(texts)
    lock = locked(texts)
    bound = count is not None or page is not None or bool(pmem) or cpus.policy != "shared"
    cells = guest_cells(flavor, texts, count or 1, cpus.dedicated) if bound else None
    affinity = affinity_of(texts)
    for each in (*groups.faults, *([fault] if fault is not None else [])):
        raise each
    encrypt = encrypted(texts, image_known=image is not None)
    trait = encryption_trait(texts) if encrypt else None
    more = {**pmem, **({ENCRYPTION: 1} if encrypt else {})}
    classes = read_classes(texts, groups, more, (trait,) if trait is not None else ())
    devices = (*alias_requests(texts, defined(aliases), affinity), *classes.units)
    vcpus, shape = _vcpus(flavor, groups, cells), guest_shape(texts, flavor.vcpus)
    return Request(
        vcpus=vcpus,
        cpu_policy=cpus.policy,
        thread_policy=cpus.threads,
        dedicated_vcpus=numbers_of(cpus.dedicated) if cpus.policy == "mixed" else (),
        realtime_vcpus=numbers_of(cpus.realtime),
        emulator_policy=cpus.emulator,
        memory_bytes=_memory_bytes(flavor, groups, cells),
        page_kib=page,
        locked_memory=lock or encrypt,
        cells=None if cells is None else cells.number,
        guest_cells=() if cells is None else cells.own or (),
        topology=shape if vcpus == flavor.vcpus else None,
        disk_bytes=disk_bytes(flavor, groups, boot_from_volume=boot_from_volume),
        resources=classes.resources,
        devices=devices,
        required_traits=classes.required,
        forbidden_traits=classes.forbidden,
    )


def disk_bytes(flavor: Flavor, groups: Groups, *, boot_from_volume: bool) -> int:
    """Return the disk space of a guest, exact in bytes; resources:DISK_GB replaces it (C4). Placement rounds swap up to whole GiB."""
    said = groups.total("DISK_GB")
    if said is not None:
        return _bounded("resources:DISK_GB", said, GIB)
    return ((0 if boot_from_volume else flavor.root_gb) + flavor.ephemeral_gb) * GIB + flavor.swap_mb * MIB


def _vcpus(flavor: Flavor, groups: Groups, cells: Cells | None) -> int:
    """Return the number of vCPUs: with cells the flavor's, else what resources:VCPU says, where it says something."""
    said = groups.total("VCPU") if cells is None else None
    if said is None:
        return flavor.vcpus
    if said > VCPUS_MAX:
        raise invalid("BeyondBounds", "resources:VCPU", said, f"more than {VCPUS_MAX}")
    return said


def _memory_bytes(flavor: Flavor, groups: Groups, cells: Cells | None) -> int:
    """Return the memory: with cells the flavor's, else what resources:MEMORY_MB says, where it says something."""
    said = groups.total("MEMORY_MB") if cells is None else None
    return flavor.memory_mb * MIB if said is None else _bounded("resources:MEMORY_MB", said, MIB)


def _bounded(key: str, amount: int, unit: int) -> int:
    if amount * unit > BYTES_MAX:
        raise invalid("BeyondBounds", key, amount, "more than 2^60 bytes")
    return amount * unit


def _stands(request: Request) -> None:
    """Raise InvalidFlavor for what no request may be."""
    if not (request.vcpus or request.memory_bytes or request.disk_bytes or request.resources or request.devices):
        raise invalid("InvalidRequest", "vcpus", request.vcpus, "the flavor asks for nothing")
    if not request.vcpus and request.cpu_policy != "shared":
        raise invalid("InvalidRequest", "vcpus", request.vcpus, f"CPU policy {request.cpu_policy} without a vCPU")
    if not request.memory_bytes and request.page_kib is not None:
        raise invalid("InvalidRequest", "memory_mb", 0, f"pages of {request.page_kib} without memory")
    if len(request.devices) > DEVICE_REQUESTS_MAX:
        raise invalid("BeyondBounds", "devices", len(request.devices), f"more than {DEVICE_REQUESTS_MAX} wishes for devices")
