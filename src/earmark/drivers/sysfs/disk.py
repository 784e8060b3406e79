"""How large the file systems of the configured paths are.

Rules of this file: only the running host's file systems are asked, never those below another root; one file system named twice counts
once, under the name that comes first.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from earmark.core.model.topology import Disk
from earmark.drivers.sysfs.tree import Tree


def read_disks(tree: Tree, paths: Iterable[tuple[str, str | os.PathLike[str]]]) -> tuple[Disk, ...]:
    """Return the disks of (name, path) pairs, sorted by name; a path that cannot be asked is noted and left out."""
    if not tree.is_host:
        return ()
    disks: dict[str, Disk] = {}
    seen: dict[int, str] = {}
    for name, path in paths:
        try:
            found = os.statvfs(path)
            device = os.stat(path).st_dev  # noqa: PTH116 - a path of the settings, followed as the kernel follows it
        except (OSError, ValueError) as error:
            tree.note(f"disk {name}: {path}: {error}")
            continue
        if device in seen:
            tree.note(f"disk {name}: {path} is on the file system of disk {seen[device]} and is not counted twice")
            continue
        seen[device] = name
        disks[name] = Disk(name=name, total_bytes=found.f_blocks * found.f_frsize, free_bytes=found.f_bavail * found.f_frsize)
    return tuple(disks[name] for name in sorted(disks))
