"""Small files and folders that other users must not be able to plant, follow or tear.

Rules of this file: no link is followed at the last step; what is judged is the open descriptor, not the name; a file appears whole or
not at all and is durable when the call returns; every OSError becomes UnsafePlace here, with the cause kept.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from earmark.errors import InvalidRecord, UnsafePlace

NO_TRICKS = os.O_NOFOLLOW | os.O_CLOEXEC
OTHERS_WRITE = stat.S_IWOTH
GROUP_WRITES = stat.S_IWGRP


@contextmanager
def translated(tried: str, path: Path) -> Iterator[None]:
    """Turn an OSError inside the block into UnsafePlace that says what was tried on which path."""
    try:
        yield
    except OSError as error:
        raise UnsafePlace(f"cannot {tried} {path}: {error.strerror}", path=str(path), errno=error.errno) from error


@contextmanager
def opened(path: Path, flags: int, mode: int = 0o600) -> Iterator[int]:
    """Open a descriptor without following a link at the end of the path, and close it when the block ends; raises OSError."""
    descriptor = os.open(path, flags | NO_TRICKS, mode)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def read_small(path: Path, *, owners: Collection[int], gid: int | None, bytes_max: int, one_name: bool = True) -> bytes | None:
    """Return what a small file holds, None if it is not there.

    `owners` are the uids whose file is believed; with `gid` a file of that group is too. Raises UnsafePlace for a link, a special file,
    one with several names (unless `one_name` is off), one that others could write, and one that cannot be read; InvalidRecord for one
    above `bytes_max`.
    """
    with translated("read", path):
        try:
            with opened(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY) as descriptor:
                judge_file(path, os.fstat(descriptor), owners=owners, gid=gid, one_name=one_name)
                content = os.read(descriptor, bytes_max + 1)
        except FileNotFoundError:
            return None
    if len(content) > bytes_max:
        raise InvalidRecord(f"{path} is larger than {bytes_max} bytes", path=str(path))
    return content


def judge_file(path: Path, status: os.stat_result, *, owners: Collection[int], gid: int | None, one_name: bool = True) -> None:
    """Raise UnsafePlace unless a file is regular, has one name, and is believed: of an owner or of the group, written by no other."""
    mode = stat.S_IMODE(status.st_mode)
    of_group = gid is not None and status.st_gid == gid
    if not stat.S_ISREG(status.st_mode):
        raise UnsafePlace(f"{path} is not a regular file", path=str(path))
    if one_name and status.st_nlink != 1:
        raise UnsafePlace(f"{path} has {status.st_nlink} names (hard links), one is expected", path=str(path), links=status.st_nlink)
    if status.st_uid not in owners and not of_group:
        raise UnsafePlace(f"{path} belongs to uid {status.st_uid}, not to you", path=str(path), uid=status.st_uid)
    if mode & OTHERS_WRITE or (mode & GROUP_WRITES and not of_group):
        raise UnsafePlace(f"{path} may be written by others (mode {mode:04o}): chmod go-w it", path=str(path), mode=mode)


def create_once(path: Path, content: bytes, *, mode: int, gid: int | None = None) -> bool:
    """Make a file whole and durable if it is not there; return False, changing nothing, if it is. Of two racing processes one makes it."""
    with translated("make", path), _beside(path, content, mode, gid) as temporary:
        try:
            os.link(temporary, path, follow_symlinks=False)
        except FileExistsError:
            return False
        finally:
            temporary.unlink()
        flush_folder(path.parent)
    return True


def replace_file(path: Path, content: bytes, *, mode: int, gid: int | None = None) -> None:
    """Put a file in the place of another, whole and durable; raises UnsafePlace."""
    with translated("write", path), _beside(path, content, mode, gid) as temporary:
        temporary.replace(path)
        flush_folder(path.parent)


@contextmanager
def _beside(path: Path, content: bytes, mode: int, gid: int | None) -> Iterator[Path]:
    """Write a new file beside `path` and yield its name; it is removed if the block fails."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(6).hex()}")
    try:
        with opened(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as descriptor:
            set_access(descriptor, mode, gid)
            written = 0
            while written < len(content):
                written += os.write(descriptor, content[written:])
            os.fsync(descriptor)
        yield temporary
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def set_access(descriptor: int, mode: int, gid: int | None) -> None:
    """Give an open file or folder its group and mode, whatever the umask; raises OSError."""
    if gid is not None:
        os.fchown(descriptor, -1, gid)
    os.fchmod(descriptor, mode)


def make_folder(folder: Path, *, mode: int, gid: int | None = None) -> bool:
    """Make a folder with exactly this mode (its parents 0755); return False if it was there. Raises UnsafePlace."""
    with translated("make the folder", folder):
        for above in reversed(folder.parents):
            if not above.exists():
                above.mkdir(mode=0o755, exist_ok=True)
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:
            return False
        with opened(folder, os.O_RDONLY | os.O_DIRECTORY) as descriptor:
            set_access(descriptor, mode, gid)
        flush_folder(folder.parent)
    return True


def judge_folder(folder: Path, *, owners: Collection[int], gid: int | None, chosen: bool = False) -> None:
    """Raise UnsafePlace unless `folder` is one, of an owner or of the group, and no other could put a file there.

    A folder that the user has `chosen` by name may be a link, sticky like /tmp, or open to its own group: the files in it are judged.
    """
    with translated("look at", folder):
        status = folder.stat() if chosen else folder.lstat()
    mode = stat.S_IMODE(status.st_mode)
    of_group = gid is not None and status.st_gid == gid
    if not stat.S_ISDIR(status.st_mode):
        raise UnsafePlace(f"{folder} is not a folder", path=str(folder))
    sticky = chosen and bool(mode & stat.S_ISVTX)
    if status.st_uid not in owners and not of_group and not sticky:
        raise UnsafePlace(f"{folder} belongs to uid {status.st_uid}, not to you", path=str(folder), uid=status.st_uid)
    if (mode & OTHERS_WRITE and not sticky) or (mode & GROUP_WRITES and not of_group and not chosen):
        raise UnsafePlace(f"{folder} may be written by others (mode {mode:04o}): chmod go-w it", path=str(folder), mode=mode)


def judge_ancestors(folder: Path, *, owners: Collection[int], gid: int | None) -> None:
    """Raise UnsafePlace if a folder above `folder` is a link, or lets anyone but the owners, and who owns /, exchange what is below it."""
    believed = {*owners, Path("/").stat().st_uid}
    for above in folder.parents:
        with translated("look at", above):
            status = above.lstat()
        of_group = gid is not None and status.st_gid == gid
        open_to_others = status.st_mode & OTHERS_WRITE or (status.st_mode & GROUP_WRITES and not of_group)
        if not stat.S_ISDIR(status.st_mode):
            raise UnsafePlace(f"{above}, above {folder}, is not a folder", path=str(above))
        if status.st_uid not in believed or (open_to_others and not status.st_mode & stat.S_ISVTX):
            raise UnsafePlace(f"{above}, above {folder}, may be changed by others", path=str(above), uid=status.st_uid)


def flush_folder(folder: Path) -> None:
    """Make the names in a folder durable; raises OSError."""
    with opened(folder, os.O_RDONLY | os.O_DIRECTORY) as descriptor:
        os.fsync(descriptor)
