"""What an operator has: a flavor and an image, in Nova's words and units.

Rules of this file: texts are kept as they were written; what they mean is found by `core.flavor.translate` alone.
"""

from typing import Annotated

import msgspec
from msgspec import Meta

from earmark.core.model.request import Count
from earmark.core.model.value import Value

Mebibytes = Annotated[int, Meta(ge=0, le=1 << 38)]
Gibibytes = Annotated[int, Meta(ge=0, le=1 << 28)]


class Flavor(Value, frozen=True):
    """A flavor: vCPUs, memory and swap in MiB, the root and the ephemeral disk in GiB, and its extra specs."""

    vcpus: Count = 0
    memory_mb: Mebibytes = 0
    root_gb: Gibibytes = 0
    ephemeral_gb: Gibibytes = 0
    swap_mb: Mebibytes = 0
    extra_specs: dict[str, str] = msgspec.field(default_factory=dict)
    name: str | None = None


class Image(Value, frozen=True):
    """What an image says of the guests that are made of it: its properties."""

    properties: dict[str, str] = msgspec.field(default_factory=dict)
