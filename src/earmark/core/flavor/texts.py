"""The two texts that speak of one thing, the flavor's and the image's, and how single values in them are read.

Rules of this file: a value is read once, strictly; what cannot be read is an InvalidFlavor that names the key, the value and what would do.
An empty text is no answer. Source: Nova 34, virt/hardware.py (_get_flavor_image_meta), oslo_utils strutils.bool_from_string.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

from earmark.errors import InvalidFlavor

WHOLE = re.compile(r"\s*\+?([0-9]{1,18})\s*")
YES = ("1", "t", "true", "on", "y", "yes")
NO = ("0", "f", "false", "off", "n", "no")
SHOWN_MAX = 120


class Texts(NamedTuple):
    """The extra specs of a flavor and the properties of its image."""

    specs: Mapping[str, str]
    image: Mapping[str, str]

    def both(self, name: str) -> tuple[str | None, str | None]:
        """Return what the flavor (hw:NAME) and the image (hw_NAME) say, None for nothing or an empty text."""
        return self.specs.get("hw:" + name) or None, self.image.get("hw_" + name) or None

    def source(self, name: str) -> str:
        """Return the key under which a name is answered: the image's if only it has one, else the flavor's."""
        return "hw_" + name if self.image.get("hw_" + name) and not self.specs.get("hw:" + name) else "hw:" + name


def invalid(kind: str, key: str, found: object, why: str) -> InvalidFlavor:
    """Return the error that `why` says of what was found under a key; `kind` is the name of Nova's exception."""
    text = repr(found)
    shown = text if len(text) <= SHOWN_MAX else text[:SHOWN_MAX] + "…"
    return InvalidFlavor(f"flavor: {key} = {shown}: {why}", kind=kind, key=key, found=shown)


def conflict(kind: str, name: str, flavor: str, image: str, why: str) -> InvalidFlavor:
    """Return the error that a flavor and its image contradict each other."""
    return invalid(kind, f"hw:{name} = {flavor[:SHOWN_MAX]!r} of the flavor and hw_{name}", image, why)


def whole(text: str, key: str, kind: str) -> int:
    """Return a whole number of at most 18 digits; raises InvalidFlavor of that kind."""
    match = WHOLE.fullmatch(text)
    if not match or not text.isascii():
        raise invalid(kind, key, text, "not a whole number from 0 on")
    return int(match[1])


def truth(text: str | None, key: str, kind: str = "ValidationError") -> bool | None:
    """Return what yes or no means, None for no text; raises InvalidFlavor of that kind for other words."""
    if text is None:
        return None
    word = text.strip().lower()
    if word in YES:
        return True
    if word in NO:
        return False
    raise invalid(kind, key, text, "neither true nor false")


def one_of(text: str | None, allowed: tuple[str, ...], key: str, kind: str) -> str | None:
    """Return the text if it is one of those allowed or None; raises InvalidFlavor of that kind."""
    if text is not None and text not in allowed:
        raise invalid(kind, key, text, f"not one of {', '.join(allowed)}")
    return text
