"""Where the ledger is, and whose it is.

Rules of this file: a place is one user's (0700/0600) or a group's (2770/0660); who can write a ledger's file can rewrite it, so the modes
say who that is. A ledger that other users of the machine cannot find is private. `root` stands for / in tests and images.
"""

import grp
import os
import re
import stat
from pathlib import Path
from typing import Literal

from earmark.core.model.value import Value
from earmark.errors import InvalidSetting, UnsafePlace
from earmark.settings import Settings
from earmark.stores.announce import Announcement, announce_shared, announce_system, announced_ledgers, may_use
from earmark.stores.safe_files import flush_folder, judge_ancestors, judge_file, judge_folder, make_folder, opened, set_access, translated

LEDGER_NAME = "ledger.db"
MODE_FOLDER, MODE_FILE = 0o700, 0o600
MODE_GROUP_FOLDER, MODE_GROUP_FILE = 0o2770, 0o660

Kind = Literal["named", "machine", "shared", "user"]


class Place(Value, frozen=True):
    """Where a ledger is. `named`: by flag or setting; `machine`: announced by root; `shared`: announced by a user; `user`: one's own.

    `gid` is the group that shares it, None if it is one user's. `passed_over` are announced ledgers that this user may not use,
    `doubts` say which announcements are not believed and why.
    """

    path: Path
    kind: Kind
    gid: int | None = None
    announced: bool = False
    passed_over: tuple[Path, ...] = ()
    doubts: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """The folder that holds the ledger and the small files beside it."""
        return self.path.parent


def resolve(settings: Settings) -> Place:
    """Return the place of the ledger: the one named, else the machine's, else the one shared with this user, else the user's own.

    Nothing is made. Raises UnsafePlace where several shared ledgers could be meant or the machine's announcement is not safe.
    """
    survey = announced_ledgers(Path(settings.machine_root))
    if settings.ledger is not None:
        path = Path(settings.ledger).absolute()
        known = next((item for item in survey.believed if same_file(item.ledger, path)), None)
        gid = known.gid if known else group_of(path)
        return Place(path=path, kind="named", gid=gid, announced=known is not None, doubts=survey.doubts)
    usable = [item for item in survey.believed if may_use(item)]
    passed_over = tuple(item.ledger for item in survey.believed if item not in usable)
    if usable:
        first = usable[0]
        if not first.system and len(usable) > 1:
            names = ", ".join(f"{item.ledger} (of uid {item.uid})" for item in usable)
            raise UnsafePlace(f"several ledgers are shared with you on this machine: {names}; choose one with --ledger", ledgers=names)
        kind: Kind = "machine" if first.system else "shared"
        return Place(path=first.ledger, kind=kind, gid=first.gid, announced=True, passed_over=passed_over, doubts=survey.doubts)
    own = Path(settings.state_home, "earmark", LEDGER_NAME)
    return Place(path=own, kind="user", passed_over=passed_over, doubts=survey.doubts)


def is_private(place: Place) -> bool:
    """Say whether other users of the machine cannot find this ledger."""
    return not place.announced


def other_announced(place: Place, root: Path = Path("/")) -> Announcement | None:
    """Return the announced ledger beside which exclusive grants of this one are unsafe; None if there is none.

    That is any other one if this is private, and the machine's own if this is a user's.
    """
    others = [item for item in announced_ledgers(root).believed if not same_file(item.ledger, place.path)]
    return next((item for item in others if item.system or not place.announced), None)


def prepare(place: Place) -> Path:
    """Make the folder and an empty ledger with their modes if they are missing, judge them if they are there; return the file.

    Raises UnsafePlace if anyone else could write or exchange them.
    """
    owners = {0, os.geteuid()}
    grouped = place.gid is not None
    if not make_folder(place.folder, mode=MODE_GROUP_FOLDER if grouped else MODE_FOLDER, gid=place.gid):
        judge_folder(place.folder, owners=owners, gid=place.gid, chosen=place.kind == "named")
    mode = MODE_GROUP_FILE if grouped else MODE_FILE
    with translated("open the ledger", place.path):
        try:
            with opened(place.path, os.O_RDWR | os.O_CREAT | os.O_EXCL) as descriptor:
                set_access(descriptor, mode, place.gid)
            flush_folder(place.folder)
        except FileExistsError:
            check(place)
    return place.path


def check(place: Place) -> None:
    """Raise UnsafePlace unless the ledger's file is there, regular, believed, and written by nobody else."""
    # O_PATH: closing any other descriptor would drop the locks that SQLite holds on the file for a store of this process (POSIX).
    with translated("open the ledger", place.path), opened(place.path, os.O_PATH) as descriptor:
        judge_file(place.path, os.fstat(descriptor), owners={0, os.geteuid()}, gid=place.gid)


def init_system(root: Path = Path("/"), group: str | None = None) -> Place:
    """Make and announce the machine's ledger, /var/lib/earmark/ledger.db; for root (who owns `root`). May be repeated.

    Raises UnsafePlace if it cannot be made safely, InvalidSetting for an unknown group or a user who is not the machine's owner.
    """
    lord = root.stat().st_uid
    if os.geteuid() != lord:
        raise InvalidSetting(
            f"only uid {lord} can make the machine's ledger, you are {os.geteuid()}; see init --shared", found=os.geteuid()
        )
    gid = group_id(group)
    place = Place(path=root / "var/lib/earmark" / LEDGER_NAME, kind="machine", gid=gid, announced=True)
    prepare(place)
    for folder in (root / "etc/earmark",):
        if not make_folder(folder, mode=0o755):
            judge_folder(folder, owners={lord}, gid=None)
    announce_system(root, place.path, gid)
    return place


def init_shared(folder: Path, group: str, root: Path = Path("/")) -> Place:
    """Make a ledger in `folder` for the members of `group` and announce it in /var/tmp; needs no root. May be repeated.

    Raises UnsafePlace if it cannot be made safely or another ledger of the machine is announced, InvalidSetting for a group that is
    unknown or not the user's.
    """
    gid = group_id(group)
    if gid not in {os.getegid(), *os.getgroups()} and os.geteuid() != 0:
        raise InvalidSetting(f"you are not a member of group {group!r}, so you cannot share a ledger with it", key="group", found=group)
    place = Place(path=folder.resolve() / LEDGER_NAME, kind="shared", gid=gid, announced=True)
    for item in announced_ledgers(root).believed:
        if not same_file(item.ledger, place.path):
            raise UnsafePlace(f"{item.ledger} is announced on this machine already (by uid {item.uid}): one machine, one ledger")
    open_to_group(place.folder, gid)
    prepare(place)
    judge_ancestors(place.folder, owners={root.stat().st_uid, os.geteuid()}, gid=gid)
    announce_shared(root, place.path, gid)
    return place


def open_to_group(folder: Path, gid: int | None) -> None:
    """Give a folder that is there already to the group that is to share it, if it is the user's own and empty (or was given already).

    Members must be able to make files in it (SQLite's log, the writers' lock). Raises UnsafePlace, changing nothing, for a folder that
    holds anything else: what lies in it would become the group's too.
    """
    if gid is None or not folder.is_dir():
        return
    with translated("look at", folder), opened(folder, os.O_RDONLY | os.O_DIRECTORY) as descriptor:
        status = os.fstat(descriptor)
        if status.st_gid == gid and stat.S_IMODE(status.st_mode) == MODE_GROUP_FOLDER:
            return
        if status.st_uid != os.geteuid() or os.listdir(descriptor):  # noqa: PTH208 - the open descriptor, not the name, is judged
            raise UnsafePlace(
                f"{folder} is there already, with mode {stat.S_IMODE(status.st_mode):04o} and group {status.st_gid}, and not yours and empty:"
                f" name a folder that is not there, or make this one the group's (chgrp {gid}, chmod 2770)",
                path=str(folder),
            )
        set_access(descriptor, MODE_GROUP_FOLDER, gid)


def group_of(path: Path) -> int | None:
    """Return the group that may write an existing ledger, None if only its owner may or it does not exist yet."""
    try:
        status = path.lstat()
    except OSError:
        return None
    return status.st_gid if stat.S_ISREG(status.st_mode) and status.st_mode & stat.S_IWGRP else None


def group_id(group: str | None) -> int | None:
    """Return the id of a group given by name or number, None for None; raises InvalidSetting."""
    if group is None:
        return None
    if re.fullmatch("[0-9]{1,10}", group):
        return int(group)
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError as error:
        raise InvalidSetting(f"there is no group {group!r} on this machine", key="group", found=group) from error


def same_file(one: Path, other: Path) -> bool:
    """Say whether two paths lead to one file, whether it exists or not."""
    try:
        return one.samefile(other)
    except OSError:
        return os.path.realpath(one) == os.path.realpath(other)
