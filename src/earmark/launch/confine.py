"""Confinement of a command to its claim: what could be obtained, and what could not, said plainly.

Rules of this file: CPUs by a cgroup v2 cpuset, else a v1 cpuset, else sched_setaffinity; memory by a cgroup only. Nothing is assumed:
what was written is read back. What is not obtained becomes a note and the next way is tried. No process is ever killed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from earmark.core.model.cpuset import format_cpu_list, parse_cpu_list
from earmark.core.model.units import format_bytes
from earmark.errors import InvalidRequest
from earmark.launch.cgroups import GROUP_PREFIX, Group2, Kernel, NotObtained, enter_v1, enter_v2, leave_v2, places, remove_leftovers

Way = Literal["cgroup v2 cpuset", "cgroup v1 cpuset", "affinity", "none"]

ROOT = Path("/")


def confine(
    claim: str,
    cpus: Sequence[int],
    *,
    memory_cells: Sequence[int] = (),
    memory_limit_bytes: int | None = None,
    root: Path = ROOT,
    kernel: Kernel | None = None,
) -> Confinement:
    """Obtain a confinement to some CPUs, cells and bytes of memory; processes enter it by `add`.

    Never fails: what cannot be had here is noted and said by `describe`. No CPUs (or None bytes): that part is not confined.
    `root` stands for the file system's root, `kernel` for its cgroup files.
    """
    made = Confinement(claim, cpus, memory_cells, memory_limit_bytes, kernel or Kernel())
    made.obtain(root)
    return made


class Confinement:
    """What was obtained for one claim; as a context manager it is removed at the end if nobody is left in it.

    `way` is how CPUs are confined and `cpus` to which, as read back; `memory_limit_bytes` is the limit in force (None: none);
    `notes` are what was not obtained, and why. It is final after the first `add`.
    """

    def __init__(
        self, claim: str, cpus: Sequence[int], memory_cells: Sequence[int], memory_limit_bytes: int | None, kernel: Kernel
    ) -> None:
        self.claim = claim
        self.wanted_cpus = tuple(sorted(cpus))
        self.wanted_cells = tuple(sorted(memory_cells))
        self.wanted_bytes = memory_limit_bytes
        self.kernel = kernel
        self.way: Way = "none"
        self.cpus: tuple[int, ...] = ()
        self.memory_cells: tuple[int, ...] = ()
        self.memory_limit_bytes: int | None = None
        self.notes: list[str] = []
        self._unified: Group2 | None = None
        self._cpuset: Path | None = None
        self._memory: Path | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.remove()

    def _groups(self) -> list[Path]:
        found = [self._cpuset, self._unified.folder if self._unified else None, self._memory]
        return [group for group in found if group is not None]

    @property
    def cgroup(self) -> str | None:
        """The absolute path of a group that all processes of the claim stand in; None if there is none."""
        groups = self._groups()
        return str(groups[0]) if groups else None

    @property
    def groups(self) -> tuple[str, ...]:
        """The folders of all groups that were made for the claim."""
        return tuple(str(group) for group in self._groups())

    # --- obtaining ------------------------------------------------------------------------------------------------------------------

    def obtain(self, root: Path) -> None:
        """Make the groups and set their limits; what fails is noted."""
        try:
            stand = places(self.kernel, root)
        except NotObtained as refused:
            self.notes.append(str(refused))
            return
        name = GROUP_PREFIX + self.claim
        if stand.unified is not None:
            self._attempt(self._obtain_v2, stand.unified, name)
        if self.way == "none" and self.wanted_cpus and stand.cpuset is not None:
            self._attempt(self._obtain_v1_cpuset, stand.cpuset, name)
        if self.memory_limit_bytes is None and self.wanted_bytes is not None and stand.memory is not None:
            self._attempt(self._obtain_v1_memory, stand.memory, name)
        if self._unified and not self._unified.controllers and (self._cpuset or self._memory):
            self._drop(self._unified.folder)

    def _attempt(self, step: Callable[[Path, str], None], place: Path, name: str) -> None:
        try:
            remove_leftovers(self.kernel, place)
            step(place, name)
        except NotObtained as refused:
            self.notes.append(str(refused))

    def _obtain_v2(self, place: Path, name: str) -> None:
        wanted = [*(["cpuset"] if self.wanted_cpus else []), *(["memory"] if self.wanted_bytes is not None else [])]
        group = self._unified = enter_v2(self.kernel, place, name, tuple(wanted))
        self.notes.extend(group.notes)
        if "memory" in group.controllers:
            self._limit_memory(group.folder / "memory.max")
        if "cpuset" in group.controllers:
            if self.wanted_cells:
                self._attempt_cells(group.folder)
            self.kernel.write(group.folder / "cpuset.cpus", format_cpu_list(self.wanted_cpus))
            self._take_cpus("cgroup v2 cpuset", group.folder / "cpuset.cpus.effective")

    def _attempt_cells(self, group: Path) -> None:
        try:
            self.kernel.write(group / "cpuset.mems", format_cpu_list(self.wanted_cells))
            self.memory_cells = self._read_list(group / "cpuset.mems.effective")
        except NotObtained as refused:
            self.notes.append(str(refused))

    def _obtain_v1_cpuset(self, place: Path, name: str) -> None:
        group = enter_v1(self.kernel, place, name)
        try:
            self._set_v1_cells(place, group)
            self.kernel.write(group / "cpuset.cpus", format_cpu_list(self.wanted_cpus))
            self._take_cpus("cgroup v1 cpuset", group / "cpuset.cpus")
        except NotObtained:
            self.memory_cells = ()
            self.kernel.rmdir(group)
            raise
        self._cpuset = group

    def _set_v1_cells(self, place: Path, group: Path) -> None:
        """A v1 cpuset takes nobody before it has cells: the claim's, else all of its parent's (cpusets.rst 1.4)."""
        if self.wanted_cells:
            try:
                self.kernel.write(group / "cpuset.mems", format_cpu_list(self.wanted_cells))
            except NotObtained as refused:
                self.notes.append(str(refused))
            else:
                self.memory_cells = self.wanted_cells
                return
        self.kernel.write(group / "cpuset.mems", self.kernel.read(place / "cpuset.mems").strip())

    def _obtain_v1_memory(self, place: Path, name: str) -> None:
        group = enter_v1(self.kernel, place, name)
        try:
            self._limit_memory(group / "memory.limit_in_bytes")
        except NotObtained:
            self.kernel.rmdir(group)
            raise
        self._memory = group

    def _limit_memory(self, file: Path) -> None:
        self.kernel.write(file, str(self.wanted_bytes))
        found = self.kernel.read(file).strip()
        if not found.isdecimal():
            raise NotObtained(f"{file} was set to {self.wanted_bytes} and says {found!r}")
        self.memory_limit_bytes = int(found)

    def _take_cpus(self, way: Way, file: Path) -> None:
        """Believe what the kernel says is in force: it must be CPUs, and none but the claim's."""
        found = self._read_list(file)
        if not found or not set(found) <= set(self.wanted_cpus):
            raise NotObtained(
                f"{file.parent} was to have CPUs {format_cpu_list(self.wanted_cpus)} and has {format_cpu_list(found) or 'none'}"
            )
        self.way, self.cpus = way, found

    def _read_list(self, file: Path) -> tuple[int, ...]:
        text = self.kernel.read(file).strip()
        try:
            return parse_cpu_list(text, what=str(file))
        except InvalidRequest as error:
            raise NotObtained(error.message) from error

    # --- using ----------------------------------------------------------------------------------------------------------------------

    def add(self, pid: int) -> None:
        """Put a process (and what it starts later) under the confinement; a group that it cannot enter is given up and noted.

        The affinity is set too: the process may have come with a narrower or wider one than its cpuset.
        """
        for group in self._groups():
            try:
                self.kernel.write(group / "cgroup.procs", str(pid))
            except NotObtained as refused:
                self.notes.append(str(refused))
                self._drop(group)
        if self.wanted_cpus:
            self._bind(pid)

    def _bind(self, pid: int) -> None:
        wanted = format_cpu_list(self.wanted_cpus)
        try:
            os.sched_setaffinity(pid, self.wanted_cpus)
            found = tuple(sorted(os.sched_getaffinity(pid)))
        except OSError as error:
            self.notes.append(f"process {pid} cannot be bound to CPUs {wanted}: {error.strerror}")
            return
        if not set(found) <= set(self.wanted_cpus):
            self.notes.append(f"process {pid} was to be bound to CPUs {wanted} and is bound to {format_cpu_list(found)}")
            return
        self.cpus = found
        if self.way == "none":
            self.way = "affinity"

    def _drop(self, group: Path) -> None:
        """Give up a group, and what it was to bring."""
        if self._unified and self._unified.folder == group:
            cpus, memory = self.way == "cgroup v2 cpuset", "memory" in self._unified.controllers
        else:
            cpus, memory = group == self._cpuset, group == self._memory
        if cpus:
            self.way, self.cpus, self.memory_cells = "none", (), ()
        if memory:
            self.memory_limit_bytes = None
        self._leave(group)
        self._forget(group)

    def _leave(self, group: Path) -> bool:
        """Remove a group if nobody is in it; says whether it is gone."""
        try:
            if self._unified and self._unified.folder == group:
                leave_v2(self.kernel, group, self._unified.handed_down)
            else:
                self.kernel.rmdir(group)
        except NotObtained as refused:
            self.notes.append(str(refused))
            return False
        return True

    def _forget(self, group: Path) -> None:
        self._unified = None if self._unified and self._unified.folder == group else self._unified
        self._cpuset = None if self._cpuset == group else self._cpuset
        self._memory = None if self._memory == group else self._memory

    def remove(self) -> bool:
        """Remove the groups that nobody is left in; says whether all are gone. May be repeated."""
        for group in self._groups():
            if self._leave(group):
                self._forget(group)
        return not self._groups()

    # --- saying ---------------------------------------------------------------------------------------------------------------------

    def summary(self) -> str:
        """Say in a few words what was obtained, and what was wanted and is not."""
        words = []
        if self.wanted_cpus:
            words.append("CPUs not confined" if self.way == "none" else f"by {self.way}")
            if self.way != "none" and self.cpus != self.wanted_cpus:
                words.append(f"only CPUs {format_cpu_list(self.cpus)}")
        if self.wanted_cells and self.memory_cells != self.wanted_cells:
            words.append("memory cells not bound")
        if self.wanted_bytes is not None:
            limit = self.memory_limit_bytes
            words.append("memory not limited" if limit is None else f"memory limited to {format_bytes(limit)}")
        return ", ".join(words) or "nothing to confine"

    def describe(self) -> tuple[str, ...]:
        """Say what was obtained: the summary, the group, and each thing that was tried and not had."""
        group = [f"cgroup {self.cgroup}"] if self.cgroup else []
        return (self.summary(), *group, *self.notes)
