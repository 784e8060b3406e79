"""How the users of a machine find its shared ledger, and what of it can be believed.

Rules of this file: `/etc/earmark/ledger` is the word of the machine's owner (who owns /) and must be right. In /var/tmp, where anybody
may write, `earmark-ledger-UID.json` is believed only if it belongs to that uid, no other may write it, /var/tmp is sticky and the machine
owner's, and the ledger's folder is of the same uid with nothing above it that others could exchange. A member of the folder's group
then uses it by default: only a member can have given the folder to the group (chown(2)). Root uses only what root announced.
"""

import os
import re
import stat
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta

from earmark.core.model.value import Value
from earmark.errors import EarmarkError, InvalidRecord, InvalidSetting, UnsafePlace
from earmark.stores.safe_files import judge_ancestors, judge_folder, read_small, replace_file

ANNOUNCEMENTS_MAX = 256
ENTRIES_MAX = 65536
ANNOUNCEMENT_BYTES_MAX = 8192
MODE_ANNOUNCEMENT = 0o1644
"""Readable by all; sticky, since systemd-tmpfiles(8) leaves a sticky file in /var/tmp whatever its age."""
MODE_SYSTEM = 0o644
SHARED_NAME = re.compile(r"earmark-ledger-(0|[1-9][0-9]{0,9})\.json")


class AnnouncementFile(Value, frozen=True):
    """What an announcement's file holds: the ledger's absolute path, and the group that shares it (None: its owner alone)."""

    ledger: Annotated[str, Meta(pattern=r"^/[^\x00]*$", max_length=4096)]
    gid: Annotated[int, Meta(ge=0, le=1 << 32)] | None = None


class Announcement(NamedTuple):
    """A ledger of this machine that its users can find: announced by `uid`, shared with `gid`; `system`: by the machine's owner."""

    ledger: Path
    uid: int
    gid: int | None
    system: bool


class Survey(NamedTuple):
    """The announcements that are believed, the machine's first, then users' by uid; and why others are not."""

    believed: tuple[Announcement, ...]
    doubts: tuple[str, ...]


def announced_ledgers(root: Path = Path("/")) -> Survey:
    """Return what is announced on this machine.

    Raises InvalidSetting if there is no such root, InvalidRecord or UnsafePlace if the machine owner's own announcement is wrong; what users announce wrongly is only a doubt.
    """
    believed: list[Announcement] = []
    doubts: list[str] = []
    try:
        lord = root.stat().st_uid
    except OSError as error:
        raise InvalidSetting(f"machine_root {root} cannot be read: {error.strerror}", key="machine_root", path=str(root)) from error
    system = read_announcement(root / "etc/earmark/ledger", owners={lord})
    if system is not None:
        believed.append(Announcement(Path(system.ledger), lord, system.gid, system=True))
    for uid, path in user_announcements(root, lord):
        try:
            found = read_announcement(path, owners={uid})
            if found is None:
                continue
            announcement = Announcement(Path(found.ledger), uid, found.gid, system=False)
            judge_ledger(announcement, lord)
        except EarmarkError as error:
            doubts.append(error.message)
        else:
            believed.append(announcement)
    return Survey(tuple(believed), tuple(doubts))


def user_announcements(root: Path, lord: int) -> list[tuple[int, Path]]:
    """Return (uid, file) of the files in /var/tmp that are named like announcements, by uid; none where /var/tmp is not to be trusted."""
    spot = root / "var/tmp"
    if not is_safe_spot(spot, lord):
        return []
    found = []
    with os.scandir(spot) as entries:
        for seen, entry in enumerate(entries):
            match = SHARED_NAME.fullmatch(entry.name)
            if match:
                found.append((int(match[1]), spot / entry.name))
            if seen >= ENTRIES_MAX or len(found) >= ANNOUNCEMENTS_MAX:
                break
    return sorted(found)


def is_safe_spot(spot: Path, lord: int) -> bool:
    """Say whether a folder is the machine owner's and nobody can remove or replace another's file in it."""
    try:
        status = spot.lstat()
    except OSError:
        return False
    open_to_others = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return stat.S_ISDIR(status.st_mode) and status.st_uid == lord and (not open_to_others or bool(status.st_mode & stat.S_ISVTX))


def judge_ledger(announcement: Announcement, lord: int) -> None:
    """Raise UnsafePlace unless the announced ledger's folder belongs to who announced it and nobody else could have put it there."""
    folder = announcement.ledger.parent
    owners = {announcement.uid, lord}
    judge_folder(folder, owners={announcement.uid}, gid=None if announcement.gid is None else announcement.gid)
    status = folder.lstat()
    if status.st_uid != announcement.uid or (announcement.gid is not None and status.st_gid != announcement.gid):
        raise UnsafePlace(
            f"{folder} is announced by uid {announcement.uid} for group {announcement.gid}, "
            f"but belongs to uid {status.st_uid} and group {status.st_gid}",
            path=str(folder),
        )
    judge_ancestors(folder, owners=owners, gid=announcement.gid)


def read_announcement(path: Path, *, owners: set[int]) -> AnnouncementFile | None:
    """Return an announcement, None if there is none; raises UnsafePlace or InvalidRecord if it cannot be believed or understood."""
    content = read_small(path, owners=owners, gid=None, bytes_max=ANNOUNCEMENT_BYTES_MAX)
    if content is None:
        return None
    try:
        return msgspec.json.decode(content, type=AnnouncementFile)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRecord(f"{path} is no announcement of a ledger: {error}", path=str(path)) from error


def may_use(announcement: Announcement) -> bool:
    """Say whether this process takes an announced ledger for its own: root only the system's, others what their uid or group may write."""
    euid = os.geteuid()
    if euid == 0:
        return announcement.system
    if announcement.uid == euid:
        return True
    return announcement.gid is not None and announcement.gid in {os.getegid(), *os.getgroups()}


def announce_system(root: Path, ledger: Path, gid: int | None) -> None:
    """Write the machine owner's announcement; raises UnsafePlace."""
    content = msgspec.json.encode(AnnouncementFile(ledger=str(ledger), gid=gid)) + b"\n"
    replace_file(root / "etc/earmark/ledger", content, mode=MODE_SYSTEM)


def announce_shared(root: Path, ledger: Path, gid: int | None) -> None:
    """Announce this user's shared ledger in /var/tmp; raises UnsafePlace where that is no safe spot or another file has the name.

    Raises InvalidSetting if the user already announces another ledger that exists.
    """
    uid, lord = os.geteuid(), root.stat().st_uid
    spot = root / "var/tmp"
    if not is_safe_spot(spot, lord):
        raise UnsafePlace(f"{spot} is not a sticky folder of the machine's owner: nothing can be announced there", path=str(spot))
    path = spot / f"earmark-ledger-{uid}.json"
    before = read_announcement(path, owners={uid})
    if before is not None and before.ledger != str(ledger) and Path(before.ledger).exists():
        raise InvalidSetting(f"you already announce {before.ledger}; remove {path} first to announce {ledger}", found=before.ledger)
    content = msgspec.json.encode(AnnouncementFile(ledger=str(ledger), gid=gid)) + b"\n"
    replace_file(path, content, mode=MODE_ANNOUNCEMENT)
