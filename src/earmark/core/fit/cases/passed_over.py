"""Which words of a case's request were not looked at: the host of a case has CPUs, memory and PCI devices, but no other stock.

Rules of this file: nothing here decides; a yes stays a yes, but who reads it learns what it does not speak of.
"""

from __future__ import annotations

from earmark.core.fit.cases.format import Case
from earmark.core.fit.guest import is_bound
from earmark.core.flavor.flavor import Flavor, Image
from earmark.core.flavor.unread import unread
from earmark.core.model.request import Request
from earmark.core.model.units import MIB

ALIASES = "pci_passthrough:alias"
"""The extra spec that a case has translated already: into its pci_requests."""


def passed_over(case: Case, flavor: Flavor, image: Image, request: Request) -> tuple[str, ...]:
    """Return what the answer to a case does not speak of, in order: classes and traits, an alias without devices, misspelled keys.

    Of a guest without cells the vCPUs and the memory are the case's own, whatever `resources:VCPU` and `resources:MEMORY_MB` say.
    """
    wish = case.request
    words = {f"resources:{item.resource_class}" for item in request.resources}
    words |= {f"trait:{trait}" for trait in (*request.required_traits, *request.forbidden_traits)}
    for each in request.devices:
        words |= {
            f"resources:{each.kind.partition(':')[2]}",
            *(f"trait:{trait}" for trait in (*each.required_traits, *each.forbidden_traits)),
        }
    if request.disk_bytes:
        words.add("resources:DISK_GB")
    if not is_bound(request):
        words |= {"resources:VCPU"} if request.vcpus != wish.vcpus else set()
        words |= {"resources:MEMORY_MB"} if request.memory_bytes != wish.memory_mb * MIB else set()
    if wish.extra_specs.get(ALIASES) and not wish.pci_requests:
        words.add(ALIASES)
    return (*sorted(words), *unread(flavor, image, request))
