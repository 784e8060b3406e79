"""How large the file systems of the configured paths are.

Rules of this file: only the running host's file systems are asked, never those below another root; space that two names share (one file
system, subvolumes of one btrfs, data sets of one ZFS pool) counts once, under the name that comes first.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from earmark.core.model.topology import Disk
from earmark.drivers.sysfs.tree import Tree

MOUNTINFO = "/proc/self/mountinfo"
SUBDIVIDED = {"btrfs": lambda source: source, "zfs": lambda source: source.split("/")[0]}
"""File systems whose parts look like file systems of their own, and what of their source names the whole."""


def read_disks(tree: Tree, paths: Iterable[tuple[str, str | os.PathLike[str]]]) -> tuple[Disk, ...]:
    """Return the disks of (name, path) pairs, sorted by name; a path that cannot be asked is noted and left out."""
    if not tree.is_host:
        return ()
    wholes = _wholes(tree)
    disks: dict[str, Disk] = {}
    seen: dict[object, str] = {}
    for name, path in paths:
        try:
            found = os.statvfs(path)
            device = os.stat(path).st_dev  # noqa: PTH116 - a path of the settings, followed as the kernel follows it
        except (OSError, ValueError) as error:
            tree.note(f"disk {name}: {path}: {error}")
            continue
        space = wholes.get(f"{os.major(device)}:{os.minor(device)}", device)
        if space in seen:
            tree.note(f"disk {name}: {path} shares its space with disk {seen[space]} and is not counted twice")
            continue
        seen[space] = name
        disks[name] = Disk(name=name, total_bytes=found.f_blocks * found.f_frsize, free_bytes=found.f_bavail * found.f_frsize)
    return tuple(disks[name] for name in sorted(disks))


def _wholes(tree: Tree) -> dict[str, tuple[str, str]]:
    """The file system and source that a mounted "major:minor" is a part of, for those that are subdivided."""
    wholes: dict[str, tuple[str, str]] = {}
    for line in (tree.text(MOUNTINFO) or "").splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if len(fields) > 2 and len(kind) > 1 and kind[0] in SUBDIVIDED:  # noqa: PLR2004 - field 3 is major:minor
            wholes[fields[2]] = (kind[0], SUBDIVIDED[kind[0]](kind[1]))
    return wholes
