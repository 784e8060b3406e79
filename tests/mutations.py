"""Files that are nearly right, for those who read files."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence


def mutated(text: str, scraps: Sequence[str], luck: random.Random) -> bytes:
    """Return a text after one to four random changes, some of them scraps put in, as bytes that need not be UTF-8."""
    for _ in range(luck.randint(1, 4)):
        at, end = sorted((luck.randint(0, len(text)), luck.randint(0, len(text))))
        lines = text.splitlines(keepends=True) or [""]
        line = luck.randrange(len(lines))
        match luck.randrange(7):
            case 0:
                text = text[:at] + text[min(end, at + luck.randint(1, 9)) :]
            case 1 | 2:
                text = text[:at] + luck.choice(scraps) + text[at:]
            case 3:
                text = "".join([*lines[:line], lines[line], *lines[line:]])
            case 4:
                text = "".join([*lines[:line], *lines[line + 1 :]])
            case 5:
                text = "".join([*lines[:line], " " * luck.randint(0, 8) + lines[line].lstrip(" "), *lines[line + 1 :]])
            case _:
                text = re.sub(r"\d+", lambda _: luck.choice(("0", "-5", "2147483648", "1.5", "''", "true")), text, count=luck.randint(1, 3))
    raw = text.encode("utf-8", "surrogatepass")
    if luck.random() < 0.05:
        raw = raw[: len(raw) // 2] + bytes([luck.randrange(128, 256)]) + raw[len(raw) // 2 :]
    return raw
