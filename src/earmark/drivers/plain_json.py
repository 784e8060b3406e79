"""JSON as people write it into files: every key stands once, and there is no NaN.

Rules of this file: the reader is the standard library's; what it lets pass and a person did not mean is refused here.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any


def read_plain(text: str, *, parse_float: Callable[[str], Any] | None = None) -> Any:
    """Return the value of a JSON text; raises ValueError (JSONDecodeError where a place is known) or RecursionError."""
    return json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant, parse_float=parse_float)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object whose keys stand once."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"{key!r} stands twice in one object")
        found[key] = value
    return found


def _no_constant(text: str) -> None:
    raise ValueError(f"{text} is no value")
