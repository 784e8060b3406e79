"""Pages that are made from the program: written, or with --check only looked at."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def written(pages: Mapping[Path, str], arguments: list[str]) -> int:
    """Write the pages, or with --check among the arguments name those that are not up to date; return how many those are."""
    stale = 0
    for page, text in pages.items():
        if "--check" not in arguments:
            page.write_text(text)
        elif not page.exists() or page.read_text() != text:
            print(f"{page.name} is not up to date: make docs")
            stale += 1
    return stale
