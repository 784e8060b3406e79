"""What a process may leave behind: the processes of its cgroup or of its session.

Rules of this file: empty needs proof. A cgroup's folder that is gone proves it only where the cgroup file system itself can be seen;
a session is empty only if every process of the namespace was shown and none belongs to it. A session misses whoever left it (setsid).
"""

from __future__ import annotations

import errno
from pathlib import Path

from earmark.core.model.claim import Liveness
from earmark.drivers.procfs import ProcFolder, Stat, Unseen

GROUPS_MAX = 10_000
FILE_BYTES_MAX = 1 << 20
SCANS = 2
"""How often all processes are looked at before a session counts as empty: one that forks while we look may be missed once."""
GONE = frozenset({errno.ENOENT, errno.ENODEV})
"""ENODEV is the answer of a group that was removed while its file was open."""
PROCS, THREADS, EVENTS = "cgroup.procs", "cgroup.threads", "cgroup.events"


def cgroup_life(path: str) -> Liveness:
    """Say whether any process is in a cgroup (absolute path of its folder) or in the groups below it."""
    folder = Path(path)
    if not folder.is_absolute() or ".." in folder.parts or "\0" in path:
        return "unknown"
    try:
        populated = _events(folder)
        if populated is not None:
            return "alive" if populated else "dead"
        return _walk(folder)
    except OSError as error:  # what cannot be read may hold anybody
        return "dead" if error.errno in GONE and _seen_from_above(folder) else "unknown"


def session_life(proc: ProcFolder, session: int, leader_ticks: int | None = None) -> Liveness:
    """Say whether any process is in a session (numbers of our own pid namespace).

    `leader_ticks` is when the session's first leader began (as this /proc shows it), None if that is not known: a number that another process bears now
    was free before, and the kernel frees the number of a session only when nobody is in it.
    """
    if not proc.view.ours or not proc.shows_all():
        return "unknown"
    leader = proc.stat(session)
    if leader_ticks is not None and isinstance(leader, Stat) and leader.start_ticks != leader_ticks:
        return "dead"
    for _ in range(SCANS):
        found = _scan(proc, session)
        if found != "dead":
            return found
    return "dead"


def _events(folder: Path) -> bool | None:
    """The word of cgroup v2 on the whole subtree; None where there is no such file (v1, and the root)."""
    try:
        lines = _text(folder / EVENTS).splitlines()
    except FileNotFoundError:
        return None
    words = [line.split() for line in lines]
    return next((word[1] != "0" for word in words if len(word) == 2 and word[0] == "populated"), None)  # noqa: PLR2004 - a key and its value


def _walk(top: Path) -> Liveness:
    """Read the processes of every group from the top down; raises OSError."""
    waiting, seen = [top], 0
    while waiting:
        folder = waiting.pop()
        seen += 1
        if seen > GROUPS_MAX:
            return "unknown"
        try:
            if _members(folder):
                return "alive"
            waiting.extend(entry for entry in folder.iterdir() if entry.is_dir() and not entry.is_symlink())
        except OSError as error:
            if error.errno not in GONE or folder == top or folder.exists():
                raise  # else a group below went away while we looked, and nobody was in it
    return "dead"


def _members(folder: Path) -> bool:
    try:
        return bool(_text(folder / PROCS).strip())
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        return bool(_text(folder / THREADS).strip())  # a threaded group lists its threads only


def _seen_from_above(folder: Path) -> bool:
    """Say whether the nearest folder above that exists is a cgroup: only then is the absence of those below it a fact."""
    above = next((parent for parent in folder.parents if parent.exists()), None)
    return not folder.exists() and above is not None and (above / PROCS).exists()


def _text(path: Path) -> str:
    with path.open("rb", buffering=0) as file:
        return file.read(FILE_BYTES_MAX).decode("latin-1")


def _scan(proc: ProcFolder, session: int) -> Liveness:
    complete = True
    try:
        for pid in proc.pids():
            seen = proc.stat(pid)
            if seen is Unseen.DENIED:
                complete = False
            elif isinstance(seen, Stat) and seen.session == session and not seen.ended:
                return "alive"
    except OSError:  # a list that breaks off proves nothing
        return "unknown"
    return "dead" if complete else "unknown"
