"""Which extra specs a flavor has that nothing is made of: what only a hypervisor reads, and what is misspelled.

Rules of this file: only the namespaces that this language speaks are looked at, hw: and pci_passthrough:. A test holds the names against
the page of the language.
"""

import re

from earmark.core.flavor.flavor import Flavor

NAMESPACES = ("hw:", "pci_passthrough:")
READ = frozenset({
    "hw:cpu_policy", "hw:cpu_thread_policy", "hw:cpu_dedicated_mask", "hw:cpu_realtime", "hw:cpu_realtime_mask", "hw:emulator_threads_policy",
    "hw:cpu_sockets", "hw:cpu_cores", "hw:cpu_threads", "hw:cpu_max_sockets", "hw:cpu_max_cores", "hw:cpu_max_threads",
    "hw:numa_nodes", "hw:mem_page_size", "hw:locked_memory", "hw:mem_encryption", "hw:mem_encryption_model", "hw:pmem",
    "hw:pci_numa_affinity_policy", "pci_passthrough:alias",
})  # fmt: skip
NUMBERED = re.compile(r"hw:numa_(cpus|mem)\.[0-9]{1,3}")


def unread(flavor: Flavor) -> tuple[str, ...]:
    """Return the extra specs of the spoken namespaces that no request depends on, in order."""
    keys = (key for key in flavor.extra_specs if key.startswith(NAMESPACES))
    return tuple(sorted(key for key in keys if key not in READ and not NUMBERED.fullmatch(key)))
