"""Which extra specs and image properties nothing is made of: what only a hypervisor reads, what is idle, and what is misspelled.

Rules of this file: only what looks like a word of this language is named: any case, any of : and _, spaces around it. An image has many
properties of its own, so of those only what begins as a spoken one does. A test holds the names against the page of the language.
"""

import re
from collections.abc import Iterator, Mapping

from earmark.core.flavor.flavor import Flavor, Image
from earmark.core.flavor.groups import KEY
from earmark.core.model.request import Request

READ = frozenset({
    "hw:cpu_policy", "hw:cpu_thread_policy", "hw:cpu_dedicated_mask", "hw:cpu_realtime", "hw:cpu_realtime_mask", "hw:emulator_threads_policy",
    "hw:cpu_sockets", "hw:cpu_cores", "hw:cpu_threads", "hw:cpu_max_sockets", "hw:cpu_max_cores", "hw:cpu_max_threads",
    "hw:numa_nodes", "hw:mem_page_size", "hw:locked_memory", "hw:mem_encryption", "hw:mem_encryption_model", "hw:pmem",
    "hw:pci_numa_affinity_policy", "pci_passthrough:alias", "group_policy",
})  # fmt: skip
MASK = "hw:cpu_realtime_mask"
FLAVORS_ALONE = frozenset({"hw:cpu_dedicated_mask", "hw:cpu_realtime", "hw:emulator_threads_policy", "hw:pmem"})
READ_OF_IMAGES = frozenset(key.replace(":", "_") for key in READ - FLAVORS_ALONE)
LIKE_A_SPEC = ("hw_", "pci_passthrough_", "resource", "trait", "group", "same_subtree")
LIKE_A_PROPERTY = ("hw_cpu_", "hw_numa_", "hw_mem_", "hw_locked_", "hw_emulator_", "hw_pmem", "hw_pci_", *LIKE_A_SPEC[1:])
NUMBERED = re.compile(r"hw[:_]numa_(cpus|mem)\.([1-9][0-9]*|0)")


def unread(flavor: Flavor, image: Image | None, request: Request) -> tuple[str, ...]:
    """Return the keys that look like words of the language and on which the request that was made does not depend, in order."""
    specs, properties = flavor.extra_specs, image.properties if image is not None else {}
    idle = set()
    if not request.realtime_vcpus or (properties.get("hw_cpu_realtime_mask") or specs.get(MASK)) != specs.get(MASK):
        idle.add(MASK)
    if not any(item.resource_class == "MEM_ENCRYPTION_CONTEXT" for item in request.resources):
        idle.add("hw:mem_encryption_model")
    found = [key for key in _like(specs, LIKE_A_SPEC) if (key not in READ or key in idle) and not KEY.fullmatch(key)]
    of_image = [key for key in _like(properties, LIKE_A_PROPERTY) if key not in READ_OF_IMAGES and not key.startswith("trait:")]
    cells = len(request.guest_cells)
    return (
        *sorted(key if key == key.strip() else repr(key) for key in found if not _numbered(key, "hw:", cells, specs)),
        *sorted(f"{key} of the image" for key in of_image if not _numbered(key, "hw_", cells, properties)),
    )


def _like(texts: Mapping[str, str], beginnings: tuple[str, ...]) -> Iterator[str]:
    """Yield the keys that begin so if case, spaces and the mark after the namespace do not count."""
    return (key for key in texts if key.strip().lower().replace(":", "_").startswith(beginnings))


def _numbered(key: str, sign: str, cells: int, texts: Mapping[str, str]) -> bool:
    """Say whether a key is the list or the memory of one of the guest's own cells: below their number, and numbered from 0 on."""
    match = NUMBERED.fullmatch(key)
    return match is not None and key.startswith(sign) and int(match[2][:9]) < cells and f"{sign}numa_{match[1]}.0" in texts
