"""Where this process stands in the cgroup hierarchies, and a child group made there.

Rules of this file: no policy; files are read and written through `Kernel`, so that a test can stand in for it; an OSError leaves as
NotObtained, which says what was tried, on what, and what the kernel answered. Sources: cgroups(7), proc(5), Linux
Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/cpusets.rst.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import NamedTuple

GROUP_PREFIX = "earmark-"
LEFTOVER_AGE_S = 600.0
LEFTOVERS_MAX = 256
MOUNT_FIELDS_LEAST = 10


class NotObtained(Exception):
    """Something that confinement tried was not to be had; the message says what, on what, and why."""


class Kernel:
    """The files of the cgroup and proc file systems, as they are."""

    def read(self, path: Path) -> str:
        """Return a file's text; raises NotObtained."""
        try:
            return path.read_text("utf-8", "replace")
        except OSError as error:
            raise NotObtained(f"{path} cannot be read: {error.strerror}") from error

    def write(self, path: Path, text: str) -> None:
        """Write a text to an existing file in one write; raises NotObtained."""
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(descriptor, text.encode())
            finally:
                os.close(descriptor)
        except OSError as error:
            raise NotObtained(f"{text!r} cannot be written to {path}: {error.strerror}") from error

    def mkdir(self, path: Path) -> None:
        """Make a group; raises NotObtained."""
        try:
            path.mkdir(mode=0o755)
        except OSError as error:
            raise NotObtained(f"group {path} cannot be made: {error.strerror}") from error

    def rmdir(self, path: Path) -> None:
        """Remove an empty group, no error if it is gone; raises NotObtained."""
        try:
            path.rmdir()
        except FileNotFoundError:
            return
        except OSError as error:
            raise NotObtained(f"group {path} cannot be removed: {error.strerror}") from error

    def groups_below(self, path: Path) -> list[tuple[Path, float]]:
        """Return the groups of Earmark in a group with their ages in seconds, by name, 256 at most; raises NotObtained."""
        try:
            found = sorted(entry for entry in path.iterdir() if entry.name.startswith(GROUP_PREFIX))
            return [(entry, time.time() - entry.stat().st_mtime) for entry in found[:LEFTOVERS_MAX]]
        except OSError as error:
            raise NotObtained(f"group {path} cannot be listed: {error.strerror}") from error


class Places(NamedTuple):
    """This process's own groups: in the v2 hierarchy, and in the v1 hierarchies of cpuset and memory (None: there is none to be seen)."""

    unified: Path | None = None
    cpuset: Path | None = None
    memory: Path | None = None


def places(kernel: Kernel, root: Path) -> Places:
    """Return where this process stands; raises NotObtained if /proc cannot be read.

    A process that itself stands in a claim's group counts as standing above it: the groups of two claims are beside each other, since
    neither has the other's CPUs.
    """
    own = own_groups(kernel.read(root / "proc/self/cgroup"))
    found: dict[str, Path] = {}
    for mount_root, point, kind, options in cgroup_mounts(kernel.read(root / "proc/self/mountinfo")):
        wanted = [""] if kind == "cgroup2" else [controller for controller in ("cpuset", "memory") if controller in options]
        for controller in wanted:
            folder = folder_of(root, mount_root, point, own[controller]) if controller in own else None
            if folder is not None:
                found.setdefault(controller, folder)
    return Places(found.get(""), found.get("cpuset"), found.get("memory"))


def offered(kernel: Kernel, folder: Path) -> list[str]:
    """Return the controllers that a v2 group offers, none if they cannot be read (cgroup2 mounted without its files)."""
    try:
        return kernel.read(folder / "cgroup.controllers").split()
    except NotObtained:
        return []


def own_groups(text: str) -> dict[str, str]:
    """Return controller → path of a /proc/self/cgroup; the v2 hierarchy is the controller ""."""
    found: dict[str, str] = {}
    for entry in text.splitlines():
        number, colon, rest = entry.partition(":")
        controllers, second, path = rest.partition(":")
        if not (colon and second and number.isdecimal() and path.startswith("/")):
            continue
        for controller in controllers.split(","):
            found[controller] = path
    return found


def cgroup_mounts(text: str) -> list[tuple[str, str, str, list[str]]]:
    """Return (root in the hierarchy, mount point, file system, super options) of the cgroup mounts in a /proc/self/mountinfo."""
    found = []
    for entry in text.splitlines():
        fields = entry.split(" ")
        if "-" not in fields or len(fields) < MOUNT_FIELDS_LEAST:
            continue
        dash = fields.index("-")
        if fields[dash + 1] in ("cgroup", "cgroup2"):
            found.append((unescape(fields[3]), unescape(fields[4]), fields[dash + 1], fields[-1].split(",")))
    return found


def unescape(text: str) -> str:
    r"""Return a field of mountinfo without its octal escapes (\040 is a space; proc(5))."""
    for code in ("\\040", "\\011", "\\012", "\\134"):
        text = text.replace(code, chr(int(code[1:], 8)))
    return text


def folder_of(root: Path, mount_root: str, point: str, own: str) -> Path | None:
    """Return the folder of a group below a mount, None if the mount does not show it (another cgroup namespace)."""
    if mount_root == "/":
        rest = own
    elif own == mount_root or own.startswith(mount_root + "/"):
        rest = own[len(mount_root) :]
    else:
        return None
    parts = rest.strip("/").split("/")
    if ".." in parts:
        return None
    while parts and parts[-1].startswith(GROUP_PREFIX):
        parts.pop()
    return root.joinpath(point.lstrip("/"), *parts)


def remove_leftovers(kernel: Kernel, folder: Path) -> None:
    """Remove groups of Earmark that nobody is in and that are older than ten minutes; the kernel refuses those in use."""
    for group, age_s in kernel.groups_below(folder):
        if age_s > LEFTOVER_AGE_S:
            try:
                kernel.rmdir(group)
            except NotObtained:
                continue  # somebody is in it: it is no leftover


def enter_v1(kernel: Kernel, folder: Path, name: str) -> Path:
    """Make a v1 group below this process's own; raises NotObtained."""
    group = folder / name
    kernel.mkdir(group)
    return group


class Group2(NamedTuple):
    """A v2 group: the controllers that work in it, those that had to be handed down for it, and what was not obtained."""

    folder: Path
    controllers: frozenset[str]
    handed_down: tuple[str, ...]
    notes: tuple[str, ...]


def enter_v2(kernel: Kernel, place: Path, name: str, wanted: tuple[str, ...]) -> Group2:
    """Make a v2 group below this process's own, with as many of the wanted controllers as can be had; raises NotObtained if with none at all.

    A controller works in a child if the parent hands it down (cgroup.subtree_control). Where it does not yet, that is tried. The kernel
    refuses it for memory while the parent has processes of its own ("no internal processes"); cpuset it allows, and the parent then
    becomes the root of a threaded subtree, so the child has to be made threaded (cgroup-v2.rst, "Threads").
    """
    group, control = place / name, place / "cgroup.subtree_control"
    kernel.mkdir(group)
    notes: list[str] = []
    handed: list[str] = []
    try:
        present = set(offered(kernel, place))
        working = set(kernel.read(control).split())
        for controller in sorted(wanted, reverse=True):  # memory before cpuset: a threaded subtree cannot have it afterwards
            if controller in working:
                continue
            if controller not in present:
                notes.append(f"{place} does not offer the {controller} controller")
                continue
            try:
                kernel.write(control, f"+{controller}")
            except NotObtained as refused:
                notes.append(str(refused))
                continue
            handed.append(controller)
            working.add(controller)
        if kernel.read(group / "cgroup.type").strip() == "domain invalid":
            kernel.write(group / "cgroup.type", "threaded")
            working.discard("memory")
    except NotObtained:
        leave_v2(kernel, group, tuple(handed))
        raise
    return Group2(group, frozenset(working & set(wanted)), tuple(handed), tuple(notes))


def leave_v2(kernel: Kernel, group: Path, handed_down: tuple[str, ...]) -> None:
    """Remove a v2 group and, if it was the last of its place, take back what was handed down for it; raises NotObtained."""
    kernel.rmdir(group)
    place = group.parent
    if handed_down and not kernel.groups_below(place):
        for controller in handed_down:
            kernel.write(place / "cgroup.subtree_control", f"-{controller}")
