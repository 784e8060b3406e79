"""The id of this boot, as far as the kernel itself gives it."""

from __future__ import annotations

from pathlib import Path

from earmark.drivers.sysfs.parse import uuid
from earmark.drivers.sysfs.tree import Tree

BOOT_ID = "sys/kernel/random/boot_id"


def read_boot_id(proc_root: Path = Path("/proc")) -> str:
    """Return the uuid of this boot, "" where there is none.

    A container manager may lay a file of its own over the kernel's (LXC does); such an id says nothing about the host's boots, and so
    counts as none.
    """
    tree = Tree(proc_root)
    text = tree.text(BOOT_ID)
    if text is None or uuid(text) is None or _covered(tree):
        return ""
    return text


def _covered(tree: Tree) -> bool:
    mounts = tree.text("self/mountinfo") or ""
    return any(len(fields) > 4 and fields[4].endswith("/" + BOOT_ID) for fields in map(str.split, mounts.splitlines()))  # noqa: PLR2004 - field 5 of proc_pid_mountinfo(5)
