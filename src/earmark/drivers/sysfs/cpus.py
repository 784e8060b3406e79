"""The CPUs of a host: which are online, and how they share cores, caches, dies and packages.

Rules of this file: the kernel's masks decide (Documentation/admin-guide/cputopology.rst, Linux 6.12); CPUs with the same mask are one
group, named by its lowest CPU; where no file names the cores, each CPU is a core, and that is said.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import msgspec

from earmark.core.model.cpuset import CPU_MAX, cpus_of, format_cpu_list, mask_of
from earmark.core.model.topology import CPUS_MAX
from earmark.drivers.sysfs import parse
from earmark.drivers.sysfs.tree import Tree
from earmark.errors import HostUnavailable

CPU = "/sys/devices/system/cpu"
CPU_FOLDER = re.compile(r"cpu([0-9]{1,4})")
CACHE_FOLDER = re.compile(r"index[0-9]{1,2}")
PROCESSOR = re.compile(r"^(?:processor[ \t]*:[ \t]*|processor[ \t]+)([0-9]{1,4})\b", re.MULTILINE)
STAT_CPU = re.compile(r"^cpu([0-9]{1,4})[ \t]", re.MULTILINE)
LAST_LEVEL = "3"

THREADS = ("core_cpus_list", "thread_siblings_list", "core_cpus", "thread_siblings")
PACKAGES = ("package_cpus_list", "core_siblings_list", "package_cpus", "core_siblings")
SHARED_BY = ("shared_cpu_list", "shared_cpu_map")
HYBRID = (
    ("/sys/devices/cpu_core/cpus", "performance"),
    ("/sys/devices/cpu_atom/cpus", "efficiency"),
    ("/sys/devices/cpu_lowpower/cpus", "efficiency"),
)
STRENGTHS = ("cpu_capacity", "acpi_cppc/nominal_perf")
"""What differs only between kinds of cores; highest_perf also differs between equal cores of one die."""


class Grouping(msgspec.Struct, frozen=True, kw_only=True):
    """Where one online CPU belongs: each field as in `core.model.topology.Cpu`."""

    core: int
    package: int | None
    die: int | None
    l3: int | None
    kind: str | None
    isolated: bool


class CpuFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The online CPUs with their groups, the CPUs that are there but offline, and whether the kernel names the cores."""

    online: tuple[int, ...]
    offline: tuple[int, ...]
    groups: Mapping[int, Grouping]
    cores_named: bool


def read_cpus(tree: Tree) -> CpuFacts:
    """Return the CPUs of a host; raises HostUnavailable if not even one can be found."""
    folders = _folders(tree)
    online = _online(tree, folders)
    if not online:
        raise HostUnavailable(
            f"no CPU can be found below {tree.root}: neither {CPU}/online nor {CPU}/cpu* nor /proc/stat nor /proc/cpuinfo names one",
            root=str(tree.root),
            notes=tree.notes,
        )
    within = mask_of(online)
    topology = {cpu: f"{CPU}/cpu{cpu}/topology" for cpu in online}
    cores = _grouped(tree, _masks(tree, topology, THREADS, within, "core"), "core")
    packages = _packages(tree, topology, within)
    kinds = _kinds(tree, online)
    l3 = _last_level(tree, online, within)
    isolated = set(tree.parsed(f"{CPU}/isolated", parse.cpu_list, "a CPU list") or ())
    groups = {
        cpu: Grouping(core=cores.get(cpu, cpu), package=packages.get(cpu), die=_die(tree, cpu), l3=l3.get(cpu), kind=kinds.get(cpu), isolated=cpu in isolated)
        for cpu in online
    }  # fmt: skip
    return CpuFacts(
        online=online,
        offline=tuple(sorted(_present(tree, folders) - set(online))),
        groups=groups,
        cores_named=_say_unnamed(tree, online, cores),
    )


def _folders(tree: Tree) -> tuple[int, ...]:
    matches = (CPU_FOLDER.fullmatch(name) for name in tree.names(CPU))
    return tuple(sorted({int(match[1]) for match in matches if match and int(match[1]) <= CPU_MAX}))


def _online(tree: Tree, folders: tuple[int, ...]) -> tuple[int, ...]:
    """The kernel's own list, else the folders that do not say 0, else what /proc counts, each said."""
    online = tree.parsed(f"{CPU}/online", parse.cpu_list, "a CPU list")
    if online:
        return online[:CPUS_MAX]
    if folders:
        tree.note(f"{CPU}/online: absent or empty; the CPUs are those with a folder there that is not switched off")
        return tuple(cpu for cpu in folders if tree.text(f"{CPU}/cpu{cpu}/online") != "0")
    for path, pattern in (("/proc/stat", STAT_CPU), ("/proc/cpuinfo", PROCESSOR)):
        found = {int(text) for text in pattern.findall(tree.text(path) or "")}
        if found:
            tree.note(f"{CPU}: absent; the CPUs are those of {path}")
            return tuple(sorted(cpu for cpu in found if cpu <= CPU_MAX))
    return ()


def _present(tree: Tree, folders: tuple[int, ...]) -> set[int]:
    present = tree.parsed(f"{CPU}/present", parse.cpu_list, "a CPU list")
    return set(folders if present is None else present[:CPUS_MAX])


def _masks(tree: Tree, folders: Mapping[int, str], names: tuple[str, ...], within: int, what: str) -> dict[int, int]:
    """The online CPUs that share a thing with each CPU, by the first of some files in its folder that names the CPU itself."""
    masks: dict[int, int] = {}
    odd: list[int] = []
    for cpu, folder in folders.items():
        for name in names:
            cpus = tree.parsed(f"{folder}/{name}", parse.cpu_list if name.endswith("_list") else parse.cpu_mask, "a set of CPUs")
            if cpus is None:
                continue
            mask = mask_of(cpus) & within
            if mask >> cpu & 1:
                masks[cpu] = mask
                break
            odd.append(cpu)
    if odd:
        tree.note(f"{CPU}: a file of the {what} does not name the CPU itself on CPUs {format_cpu_list(odd)}; it was not used there")
    return masks


def _grouped(tree: Tree, masks: Mapping[int, int], what: str) -> dict[int, int]:
    """The lowest CPU among those with the same mask."""
    lowest: dict[int, int] = {}
    for cpu in sorted(masks):
        lowest.setdefault(masks[cpu], cpu)
    odd = [cpu for cpu, mask in masks.items() if any(masks.get(other) != mask for other in cpus_of(mask))]
    if odd:
        tree.note(
            f"{CPU}: the masks of the {what} contradict each other on CPUs {format_cpu_list(odd)}; CPUs with the same mask were put together"
        )
    return {cpu: lowest[mask] for cpu, mask in masks.items()}


def _packages(tree: Tree, topology: Mapping[int, str], within: int) -> dict[int, int]:
    """The kernel's physical_package_id where that tells the packages apart, else the lowest CPU of each package."""
    masks = _masks(tree, topology, PACKAGES, within, "package")
    ids: dict[int, int] = {}
    groups: dict[tuple[int | None, int | None], list[int]] = {}
    for cpu, folder in topology.items():
        number = tree.parsed(f"{folder}/physical_package_id", parse.identifier, "the number of a package")
        if number is not None and number >= 0:
            ids[cpu] = number
        if cpu in ids or cpu in masks:
            groups.setdefault((ids.get(cpu), masks.get(cpu)), []).append(cpu)
    told_apart = len({number for number, _ in groups}) == len(groups) and all(number is not None for number, _ in groups)
    if groups and not told_apart:
        tree.note(f"{CPU}: physical_package_id does not tell the {len(groups)} packages apart; they are numbered by their lowest CPU")
    return {cpu: number if told_apart and number is not None else cpus[0] for (number, _), cpus in groups.items() for cpu in cpus}


def _die(tree: Tree, cpu: int) -> int | None:
    die = tree.parsed(f"{CPU}/cpu{cpu}/topology/die_id", parse.identifier, "the number of a die")
    return None if die is None or die < 0 else die


def _last_level(tree: Tree, online: tuple[int, ...], within: int) -> dict[int, int]:
    """The lowest CPU with the same level 3 cache; a cache whose file names nobody is the CPU's own."""
    folders: dict[int, str] = {}
    for cpu in online:
        cache = f"{CPU}/cpu{cpu}/cache"
        for name in tree.names(cache):
            if CACHE_FOLDER.fullmatch(name) and tree.text(f"{cache}/{name}/level") == LAST_LEVEL:
                folders[cpu] = f"{cache}/{name}"
                break
    masks = _masks(tree, folders, SHARED_BY, within, "L3 cache")
    return _grouped(tree, {cpu: masks.get(cpu, 1 << cpu) for cpu in folders}, "L3 cache")


def _kinds(tree: Tree, online: tuple[int, ...]) -> dict[int, str]:
    """Performance and efficiency cores, by the hybrid PMUs of x86 or by strengths that differ; none where all cores are of one kind."""
    kinds: dict[int, str] = {}
    for path, kind in HYBRID:
        for cpu in tree.parsed(path, parse.cpu_list, "a CPU list") or ():
            kinds[cpu] = kind
    if len(set(kinds.values())) > 1:
        return kinds
    for name in STRENGTHS:
        read = {cpu: tree.parsed(f"{CPU}/cpu{cpu}/{name}", parse.count, "a strength") for cpu in online}
        known = {cpu: strength for cpu, strength in read.items() if strength is not None}
        if len(known) == len(online) and len(set(known.values())) > 1:
            best = max(known.values())
            return {cpu: "performance" if strength == best else "efficiency" for cpu, strength in known.items()}
    return {}


def _say_unnamed(tree: Tree, online: Iterable[int], cores: Mapping[int, int]) -> bool:
    """Note the CPUs whose core no file names; return False if there are topology files and none names a core."""
    unnamed = [cpu for cpu in online if cpu not in cores]
    if not unnamed:
        return True
    tree.note(f"{CPU}/cpu*/topology: no file names the core of CPUs {format_cpu_list(unnamed)}; each of them counts as a core")
    return bool(cores) or not any(tree.exists(f"{CPU}/cpu{cpu}/topology") for cpu in unnamed)
