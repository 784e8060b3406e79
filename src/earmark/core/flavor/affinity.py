"""How near to the guest's cells its PCI devices must be, where flavor or image say so (P16).

Source: Nova 34, virt/hardware.py get_pci_numa_policy_constraint.
"""

from typing import cast, get_args

from earmark.core.flavor.flavor import Flavor, Image
from earmark.core.flavor.texts import Texts, conflict, one_of
from earmark.core.model.request import Affinity

AFFINITIES = get_args(Affinity)


def pci_affinity(flavor: Flavor, image: Image | None = None) -> Affinity | None:
    """Return the policy that replaces that of each alias, None where nothing is said; raises InvalidFlavor."""
    return affinity_of(Texts(flavor.extra_specs, image.properties if image is not None else {}))


def affinity_of(texts: Texts) -> Affinity | None:
    """Return the same for texts that are at hand."""
    flavor, image = texts.both("pci_numa_affinity_policy")
    if flavor is not None and image is not None and flavor != image:
        raise conflict("ImagePCINUMAPolicyForbidden", "pci_numa_affinity_policy", flavor, image, "they must be equal")
    policy = one_of(flavor or image, AFFINITIES, texts.source("pci_numa_affinity_policy"), "InvalidPCINUMAAffinity")
    return cast("Affinity | None", policy)
