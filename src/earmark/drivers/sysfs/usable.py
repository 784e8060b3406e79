"""What this process may use of the host: its affinity, and the CPUs and memory of its cgroups.

Rules of this file: limits are those of every ancestor that can be seen, the tightest counts; what is not mounted here limits nothing
that can be known, and is not guessed. Sources: cgroup-v2.rst, cgroup-v1/{cpusets,memory}.rst (Linux 6.12), proc_pid_mountinfo(5).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import NamedTuple

from earmark.core.model.cpuset import mask_of
from earmark.drivers.sysfs import parse
from earmark.drivers.sysfs.tree import Tree

CGROUP = "/proc/self/cgroup"
MOUNTINFO = "/proc/self/mountinfo"
DEPTH_MAX = 64
NO_LIMIT_BYTES = 1 << 62
"""cgroup v1 writes "no limit" as the largest number of whole pages below 2^63."""
OCTAL = re.compile(r"\\([0-7]{3})")

CPUSET_FILES = ("cpuset.cpus.effective", "cpuset.effective_cpus", "cpuset.cpus")
MEMORY_FILES = ("memory.max", "memory.limit_in_bytes")


class Limits(NamedTuple):
    """The CPUs that a process may use (None: nothing limits them) and the bytes of memory (None: no limit)."""

    cpus: tuple[int, ...] | None = None
    memory_bytes: int | None = None


class Mount(NamedTuple):
    """One mounted cgroup hierarchy: which folder of it is mounted where, and its controllers (none: version 2)."""

    root: str
    point: str
    controllers: frozenset[str]


def read_limits(tree: Tree, affinity: frozenset[int] | None = None) -> Limits:
    """Return the limits of the process whose /proc/self the tree shows; `affinity` are the CPUs that its scheduler allows."""
    folders = _folders(tree)
    masks = [mask_of(affinity)] if affinity is not None else []
    memory: list[int] = []
    for controller in ("cpuset", "memory"):
        for lineage in folders.get(controller, ()):
            if controller == "cpuset":
                masks.extend(_cpuset(tree, lineage))
            else:
                memory.extend(_memory(tree, lineage))
    cpus = None
    if masks:
        mask = masks[0]
        for other in masks[1:]:
            mask &= other
        cpus = tuple(cpu for cpu in range(mask.bit_length()) if mask >> cpu & 1)
    return Limits(cpus, min(memory, default=None))


def own_affinity(tree: Tree) -> frozenset[int] | None:
    """Return the CPUs on which the scheduler may run this process; None, with a note, if the kernel does not say."""
    try:
        return frozenset(os.sched_getaffinity(0))
    except OSError as error:
        tree.note(f"sched_getaffinity: {error}")
        return None


def _folders(tree: Tree) -> dict[str, list[tuple[str, ...]]]:
    """For "cpuset" and "memory": the folders of each hierarchy that can hold a limit, from the process's own up to the mount."""
    found: dict[str, list[tuple[str, ...]]] = {"cpuset": [], "memory": []}
    text = tree.text(CGROUP)
    if not text:
        return found
    mounts = tuple(_mounts(tree))
    for line in text.splitlines():
        number, _, rest = line.partition(":")
        names, colon, path = rest.partition(":")
        if not number.isdigit() or not colon or not path.startswith("/"):
            tree.note(f"{CGROUP}: {line[:40]!r} is not a line of three fields")
            continue
        controllers = frozenset(names.split(",")) - {""}
        serving = [mount for mount in mounts if controllers & mount.controllers or (not controllers and not mount.controllers)]
        wanted = [controller for controller in found if not controllers or controller in controllers]
        if wanted and serving:
            lineage = _lineage(tree, next((mount for mount in serving if _holds(mount, path)), serving[0]), path)
            for controller in wanted:
                found[controller].append(lineage)
    return found


def _mounts(tree: Tree) -> Iterator[Mount]:
    for line in (tree.text(MOUNTINFO) or "").splitlines():
        before, dash, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if not dash or len(fields) < 5 or len(kind) < 1 or kind[0] not in ("cgroup", "cgroup2"):  # noqa: PLR2004 - fields 4 and 5: root and mount point
            continue
        options = frozenset(kind[2].split(",")) if len(kind) > 2 and kind[0] == "cgroup" else frozenset()  # noqa: PLR2004 - the options of the file system
        if kind[0] == "cgroup" and not options:
            continue
        yield Mount(_plain(fields[3]), _plain(fields[4]), options - {"rw", "ro"})


def _plain(text: str) -> str:
    """Undo the octal escapes of mountinfo."""
    return OCTAL.sub(lambda match: chr(int(match[1], 8)), text)


def _lineage(tree: Tree, mount: Mount, path: str) -> tuple[str, ...]:
    """The process's folder and its ancestors as they are mounted; only the mount point where the folder lies outside of it."""
    if not _holds(mount, path):
        tree.note(f"{CGROUP}: {path} lies outside of what is mounted at {mount.point}; limits above or beside it are not known")
        return (mount.point,)
    parts = [part for part in path[len(mount.root.rstrip("/")) :].split("/") if part][:DEPTH_MAX]
    return tuple("/".join([mount.point.rstrip("/"), *parts[:length]]) for length in range(len(parts), -1, -1))


def _holds(mount: Mount, path: str) -> bool:
    return ".." not in path.split("/") and (path + "/").startswith(mount.root.rstrip("/") + "/")


def _cpuset(tree: Tree, lineage: tuple[str, ...]) -> Iterator[int]:
    """The effective CPUs of the nearest folder that states some: they already lie within those of its ancestors."""
    for folder in lineage:
        for name in CPUSET_FILES:
            cpus = tree.parsed(f"{folder}/{name}", parse.cpu_list, "a CPU list")
            if cpus:
                yield mask_of(cpus)
                return


def _memory(tree: Tree, lineage: tuple[str, ...]) -> Iterator[int]:
    for folder in lineage:
        for name in MEMORY_FILES:
            text = tree.text(f"{folder}/{name}")
            if text is None or text == "max":
                continue
            limit = parse.count(text)
            if limit is None:
                tree.note(f"{folder}/{name}: {text[:40]!r} is not a limit in bytes")
            elif limit < NO_LIMIT_BYTES:
                yield limit
