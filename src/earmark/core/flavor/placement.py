"""What Nova's scheduler would ask Placement for the same flavor: whole units, two classes of CPUs, traits for policies (C4, C13, P16).

Rules of this file: it says the same wish in Placement's words and decides nothing; the ledger's own figures are in the request. They
differ in two ways: Placement counts disk in GiB, swap rounded up, and it is told the traits that Nova needs of its own hosts.
Source: Nova 34, scheduler/utils.py ResourceRequest.
"""

from typing import NamedTuple

from earmark.core.flavor.affinity import affinity_of
from earmark.core.flavor.flavor import Flavor, Image
from earmark.core.flavor.groups import HYPERTHREADING, Groups, read_groups
from earmark.core.flavor.texts import Texts
from earmark.core.flavor.translate import read
from earmark.core.model.ids import ResourceClass, Trait
from earmark.core.model.request import Request

MIB_OF_GIB = 1024
SOCKET_TRAIT = Trait("COMPUTE_SOCKET_PCI_NUMA_AFFINITY")


class PlacementWish(NamedTuple):
    """Amounts by resource class, in order, none of them 0; and the traits required and forbidden of the node."""

    amounts: dict[ResourceClass, int]
    required: tuple[Trait, ...]
    forbidden: tuple[Trait, ...]


def placement_wish(flavor: Flavor, image: Image | None = None, *, boot_from_volume: bool = False) -> PlacementWish:
    """Return what Placement would be asked for, all groups added up, PCI aliases left out; raises InvalidFlavor."""
    bare = {key: text for key, text in flavor.extra_specs.items() if key != "pci_passthrough:alias"}
    texts = Texts(bare, image.properties if image is not None else {})
    groups = read_groups(texts)
    request = read(Flavor(vcpus=flavor.vcpus, memory_mb=flavor.memory_mb, extra_specs=bare), image, boot_from_volume=True, aliases=())
    amounts = {item.resource_class: item.amount for item in request.resources}
    for each in request.devices:
        name = ResourceClass(each.kind.removeprefix("class:"))
        amounts[name] = amounts.get(name, 0) + each.count
    amounts.update(_of_the_node(flavor, request, groups, boot_from_volume=boot_from_volume))
    required, forbidden = list(request.required_traits), list(request.forbidden_traits)
    if request.thread_policy in ("isolate", "require"):
        (forbidden if request.thread_policy == "isolate" else required).append(Trait(HYPERTHREADING))
    if affinity_of(texts) == "socket":
        required.append(SOCKET_TRAIT)
    return PlacementWish(
        {name: amounts[name] for name in sorted(amounts) if amounts[name]}, tuple(sorted(required)), tuple(sorted(forbidden))
    )


def _of_the_node(flavor: Flavor, request: Request, groups: Groups, *, boot_from_volume: bool) -> dict[ResourceClass, int]:
    """Return the amounts of CPUs, memory and disk: what the extra specs say where they say it, else the flavor's own."""
    said = {name: groups.total(name) for name in ("VCPU", "PCPU", "MEMORY_MB", "DISK_GB")}
    swap_gb = -(-flavor.swap_mb // MIB_OF_GIB)
    amounts = {
        "VCPU": said["VCPU"],
        "PCPU": said["PCPU"],
        "MEMORY_MB": flavor.memory_mb if said["MEMORY_MB"] is None else said["MEMORY_MB"],
        "DISK_GB": said["DISK_GB"],
    }
    if said["DISK_GB"] is None:
        amounts["DISK_GB"] = (0 if boot_from_volume else flavor.root_gb) + flavor.ephemeral_gb + swap_gb
    if not said["PCPU"] and request.cpu_policy != "shared":
        pinned = flavor.vcpus if request.cpu_policy == "dedicated" else len(request.dedicated_vcpus)
        amounts["PCPU"] = pinned + (request.emulator_policy == "isolate")
        amounts["VCPU"] = flavor.vcpus - pinned
    elif said["VCPU"] is None and said["PCPU"] is None:
        amounts["VCPU"] = flavor.vcpus
    return {ResourceClass(name): amount or 0 for name, amount in amounts.items()}
