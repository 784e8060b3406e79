"""Where the ledger is, who is believed about it, and which node it belongs to."""

from __future__ import annotations

import json
import multiprocessing
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from earmark.errors import InvalidRecord, InvalidSetting, UnsafePlace
from earmark.settings import Settings
from earmark.stores.announce import announced_ledgers
from earmark.stores.identity import FILE_NAME, identity, rebind, scrub_key
from earmark.stores.place import Place, check, init_shared, init_system, is_private, other_announced, prepare, resolve

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="runs as root only: it becomes other users")
ALICE, BOB, MALLORY, LAB, OTHERS = 61001, 61002, 61003, 62001, 62002


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """Return a machine root with a sticky /var/tmp and folders above it that everybody may enter."""
    for folder, mode in (("etc", 0o755), ("var", 0o755), ("var/tmp", 0o1777), ("srv", 0o1777), ("home", 0o1777)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder).chmod(mode)
    above = tmp_path
    while above != Path("/"):
        if above.stat().st_uid == os.geteuid():
            above.chmod(above.stat().st_mode & 0o7777 | 0o055)
        above = above.parent
        if above == Path("/tmp"):
            break
    return tmp_path


def settings(machine: Path, ledger: str | None = None) -> Settings:
    """Return settings of a user whose state is below the machine root."""
    return Settings(ledger=ledger, machine_root=str(machine), state_home=str(machine / f"home/{os.geteuid()}"))


def mode_of(path: Path) -> int:
    """Return the permission bits of a path."""
    return stat.S_IMODE(path.stat().st_mode)


def as_user(uid: int, groups: list[int], act: Callable[[], object]) -> str:
    """Do something as another user in a child process; return what it returned or raised, as text."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups(groups)
            os.setresgid(groups[0], groups[0], groups[0])
            os.setresuid(uid, uid, uid)
            os.umask(0o077)
            answer = str(act())
        except BaseException as error:  # noqa: BLE001 - a child may only leave through _exit; the parent sees the text
            answer = f"{type(error).__name__}: {error}"
        os.write(writing, answer.encode()[:4000])
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as file:
        answer = file.read()
    os.waitpid(child, 0)
    return answer


def test_without_any_word_the_ledger_is_the_users_own(machine: Path) -> None:
    """The user's state directory is the place of last resort: 0700, 0600, and private."""
    place = resolve(settings(machine))
    assert place.kind == "user"
    assert is_private(place)
    assert other_announced(place, machine) is None
    path = prepare(place)
    assert (mode_of(path), mode_of(path.parent)) == (0o600, 0o700)
    assert prepare(place) == path


def test_the_modes_do_not_depend_on_the_umask(machine: Path) -> None:
    """With an open umask the ledger is still closed."""
    before = os.umask(0)
    try:
        path = prepare(resolve(settings(machine)))
    finally:
        os.umask(before)
    assert (mode_of(path), mode_of(path.parent), mode_of(path.parent.parent) & 0o022) == (0o600, 0o700, 0)


def test_the_machines_ledger_is_found_by_default(machine: Path) -> None:
    """After init --system everybody who may use that ledger gets it; a ledger named otherwise is private beside it."""
    made = init_system(machine)
    assert made == init_system(machine)
    place = resolve(settings(machine))
    assert (place.kind, place.path, is_private(place)) == ("machine", made.path, False)
    assert other_announced(place, machine) is None
    named = resolve(settings(machine, str(machine / "home/mine.db")))
    assert (named.kind, is_private(named)) == ("named", True)
    other = other_announced(named, machine)
    assert other is not None
    assert other.ledger == made.path
    same = resolve(settings(machine, str(made.path)))
    assert (same.announced, other_announced(same, machine)) == (True, None)


@as_root
def test_a_shared_ledger_needs_no_root(machine: Path) -> None:
    """A user shares a ledger with a group: members find it and may write it, others and root do not use it, but are told."""
    (machine / "srv/lab").mkdir(mode=0o755)
    os.chown(machine / "srv/lab", ALICE, LAB)
    made = as_user(ALICE, [LAB], lambda: init_shared(machine / "srv/lab/earmark", str_gid(LAB), machine).path)
    ledger = machine / "srv/lab/earmark/ledger.db"
    assert made == str(ledger), made
    assert (mode_of(ledger), mode_of(ledger.parent), ledger.stat().st_gid) == (0o660, 0o2770, LAB)
    member = as_user(BOB, [LAB], lambda: (resolve(settings(machine)).kind, prepare(resolve(settings(machine)))))
    assert member == str(("shared", ledger))
    stranger = as_user(MALLORY, [OTHERS], lambda: look(machine))
    assert stranger == str(("user", str(ledger), [str(ledger)]))
    assert look(machine) == ("user", str(ledger), [str(ledger)])


@as_root
def test_a_folder_that_is_there_becomes_the_groups_if_it_is_empty(machine: Path) -> None:
    """A member must be able to write in the folder: the user's own empty one is opened to the group, one with other things is refused."""
    for name in ("empty", "full"):
        (machine / f"srv/{name}").mkdir(mode=0o755)
        os.chown(machine / f"srv/{name}", ALICE, ALICE)
    (machine / "srv/full/thesis.txt").write_text("mine")
    refused = as_user(ALICE, [LAB], lambda: init_shared(machine / "srv/full", str_gid(LAB), machine))
    assert "chmod 2770" in refused, refused
    assert mode_of(machine / "srv/full") == 0o755
    made = as_user(ALICE, [LAB], lambda: init_shared(machine / "srv/empty", str_gid(LAB), machine).path)
    assert (mode_of(machine / "srv/empty"), (machine / "srv/empty").stat().st_gid) == (0o2770, LAB), made
    assert as_user(ALICE, [LAB], lambda: init_shared(machine / "srv/empty", str_gid(LAB), machine).path) == made
    member = as_user(BOB, [LAB], lambda: (resolve(settings(machine)).kind, prepare(resolve(settings(machine)))))
    assert member == str(("shared", machine / "srv/empty/ledger.db"))


def str_gid(gid: int) -> str:
    """Return a group that has no name in the way a user would give it."""
    return str(gid)


def look(machine: Path) -> tuple[str, str, list[str]]:
    """Return the kind of place that this user gets, the other announced ledger, and those passed over."""
    place = resolve(settings(machine))
    other = other_announced(place, machine)
    return place.kind, str(other.ledger if other else None), [str(path) for path in place.passed_over]


def plant(machine: Path, uid: int, ledger: Path, gid: int | None, *, owner: int | None = None, mode: int = 0o644) -> Path:
    """Put an announcement for a uid into /var/tmp, owned by `owner`."""
    path = machine / f"var/tmp/earmark-ledger-{uid}.json"
    path.write_text(json.dumps({"ledger": str(ledger), "gid": gid} if gid is not None else {"ledger": str(ledger)}))
    path.chmod(mode)
    os.chown(path, uid if owner is None else owner, -1)
    return path


def lab(machine: Path, uid: int = ALICE, gid: int = LAB, mode: int = 0o2770) -> Path:
    """Make a folder that a user shares with a group; return the ledger in it."""
    folder = machine / f"srv/of-{uid}"
    folder.mkdir()
    os.chown(folder, uid, gid)
    folder.chmod(mode)
    return folder / "ledger.db"


def become_pipe(path: Path) -> None:
    """Put a named pipe of the same owner in the place of a file."""
    owner = path.stat().st_uid
    path.unlink()
    os.mkfifo(path, 0o600)
    os.chown(path, owner, -1)


@as_root
@pytest.mark.parametrize(
    ("spoil", "doubt"),
    [
        (lambda machine, path, ledger: os.chown(path, MALLORY, -1), "belongs to uid"),
        (lambda machine, path, ledger: path.chmod(0o666), "may be written by others"),
        (lambda machine, path, ledger: (path.rename(machine / "x"), path.symlink_to(machine / "x")), "cannot read"),
        (lambda machine, path, ledger: os.link(path, machine / "var/tmp/second"), "hard links"),
        (lambda machine, path, ledger: become_pipe(path), "not a regular file"),
        (lambda machine, path, ledger: path.write_text('{"ledger": "relative"}'), "no announcement"),
        (lambda machine, path, ledger: path.write_text('{"ledger": "/x", "more": 1}'), "no announcement"),
        (lambda machine, path, ledger: path.write_text("{" * 9000), "larger than"),
        (lambda machine, path, ledger: os.chown(ledger.parent, MALLORY, -1), "belongs to uid"),
        (lambda machine, path, ledger: os.chown(ledger.parent, -1, OTHERS), "may be written by others"),
        (lambda machine, path, ledger: path.write_text(json.dumps({"ledger": str(ledger)})), "may be written by others"),
        (lambda machine, path, ledger: ledger.parent.chmod(0o2777), "may be written by others"),
        (lambda machine, path, ledger: (machine / "srv").chmod(0o777), "may be changed by others"),
        (lambda machine, path, ledger: ledger.parent.rmdir(), "cannot look at"),
        (lambda machine, path, ledger: (ledger.parent.rename(machine / "y"), ledger.parent.symlink_to(machine / "y")), "not a folder"),
    ],
)  # fmt: skip
def test_a_planted_announcement_is_not_believed(machine: Path, spoil: Callable[[Path, Path, Path], object], doubt: str) -> None:
    """In /var/tmp anybody can write; what could be another user's doing is passed over, and why is said."""
    ledger = lab(machine)
    path = plant(machine, ALICE, ledger, LAB)
    assert [item.ledger for item in announced_ledgers(machine).believed] == [ledger]
    spoil(machine, path, ledger)
    survey = announced_ledgers(machine)
    assert survey.believed == ()
    assert doubt in " ".join(survey.doubts)


@as_root
def test_an_open_var_tmp_is_not_believed_at_all(machine: Path) -> None:
    """Without the sticky bit anybody could exchange an announcement."""
    plant(machine, ALICE, lab(machine), LAB)
    (machine / "var/tmp").chmod(0o777)
    assert announced_ledgers(machine).believed == ()
    with pytest.raises(UnsafePlace, match="nothing can be announced"):
        init_shared(machine / "srv/z", str_gid(os.getegid()), machine)


@as_root
def test_two_shared_ledgers_are_not_guessed_between(machine: Path) -> None:
    """A member of two sharing groups must say which ledger is meant, and a second one cannot be announced by init."""
    plant(machine, ALICE, lab(machine), LAB)
    plant(machine, MALLORY, lab(machine, MALLORY, OTHERS), OTHERS)
    assert "choose one with --ledger" in as_user(BOB, [LAB, OTHERS], lambda: resolve(settings(machine)))
    assert "one machine, one ledger" in as_user(BOB, [LAB], lambda: init_shared(machine / "srv/bob", str_gid(LAB), machine))


@as_root
def test_the_machines_ledger_comes_before_a_users(machine: Path) -> None:
    """What root announced is used by its group before any user's announcement, which is then the other one."""
    plant(machine, ALICE, lab(machine), LAB)
    made = init_system(machine, str_gid(LAB))
    assert as_user(BOB, [LAB], lambda: (resolve(settings(machine)).kind, resolve(settings(machine)).path)) == str(("machine", made.path))
    assert (mode_of(made.path), mode_of(made.path.parent)) == (0o660, 0o2770)
    users = Place(path=machine / f"srv/of-{ALICE}/ledger.db", kind="named", announced=True)
    other = other_announced(users, machine)
    assert other is not None
    assert other.system


@as_root
def test_only_the_owner_of_the_machine_makes_its_ledger(machine: Path) -> None:
    """An ordinary user is sent to init --shared; a group that is not theirs is refused."""
    assert "see init --shared" in as_user(BOB, [LAB], lambda: init_system(machine))
    assert "not a member of group" in as_user(BOB, [LAB], lambda: init_shared(machine / "srv/b", str_gid(OTHERS), machine))


def test_an_unknown_group_is_an_invalid_setting(machine: Path) -> None:
    """A group that this machine does not know is refused by name."""
    with pytest.raises(InvalidSetting, match="no group 'nobody-has-this'"):
        init_system(machine, "nobody-has-this")


def test_a_wrong_word_of_the_machines_owner_is_an_error(machine: Path) -> None:
    """The machine's own announcement must be right: it is not silently passed over."""
    init_system(machine)
    (machine / "etc/earmark/ledger").write_text("ledger = /var/lib\n")
    with pytest.raises(InvalidRecord, match="no announcement"):
        resolve(settings(machine))
    (machine / "etc/earmark/ledger").chmod(0o666)
    with pytest.raises(UnsafePlace, match="may be written by others"):
        resolve(settings(machine))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: path.chmod(0o666), "may be written by others"),
        (lambda path: path.chmod(0o620), "may be written by others"),
        (lambda path: (path.rename(path.with_name("x")), path.symlink_to(path.with_name("x"))), "not a regular file"),
        (lambda path: (path.unlink(), path.mkdir()), "not a regular file"),
        (become_pipe, "not a regular file"),
        (lambda path: os.link(path, path.with_name("y")), "hard links"),
        (lambda path: path.parent.chmod(0o777), "may be written by others"),
        (lambda path: path.parent.chmod(0o770), "may be written by others"),
        (lambda path: (path.parent.rename(path.parent.with_name("z")), path.parent.symlink_to(path.parent.with_name("z"))), "not a folder"),
    ],
)  # fmt: skip
def test_an_unsafe_ledger_is_refused(machine: Path, spoil: Callable[[Path], object], said: str) -> None:
    """A link, a special file, a second name, or a mode that lets others write: refused, saying what was found."""
    place = resolve(settings(machine))
    spoil(prepare(place))
    with pytest.raises(UnsafePlace) as caught:
        prepare(place)
    assert said in caught.value.message


@as_root
def test_a_file_of_another_user_is_refused(machine: Path) -> None:
    """A ledger in the user's own place that belongs to somebody else was put there by them."""
    place = resolve(settings(machine))
    os.chown(prepare(place), MALLORY, -1)
    with pytest.raises(UnsafePlace, match=f"belongs to uid {MALLORY}"):
        check(place)


def test_a_named_ledger_may_stand_in_an_ordinary_folder(machine: Path) -> None:
    """A ledger named by the user may be in a folder that others read, or in /tmp; the file itself is closed."""
    for folder in ("home", "srv/lab"):
        (machine / folder).mkdir(exist_ok=True)
        place = resolve(settings(machine, str(machine / folder / "mine.db")))
        assert mode_of(prepare(place)) == 0o600


def test_the_identity_is_made_once(machine: Path) -> None:
    """The first call makes node.json (0600), later ones read it; the host may be renamed without becoming another node."""
    place = resolve(settings(machine))
    prepare(place)
    first = identity(place, "ref-a", hostname="box")
    assert identity(place, "ref-a", hostname="renamed") == first
    assert (first.name, first.copied) == ("box", False)
    assert mode_of(place.folder / FILE_NAME) == 0o600
    known = "01234567-89ab-cdef-0123-456789abcdef"
    (place.folder / FILE_NAME).unlink()
    assert identity(place, "ref-a", hostname="box", uuid=known).uuid == known


@pytest.mark.rule("A10", "A12")
def test_a_copied_ledger_is_noticed_and_rebound_on_purpose(machine: Path) -> None:
    """Another machine id says copied; rebind keeps the uuid and takes this machine; an unknown machine id says nothing."""
    place = resolve(settings(machine))
    prepare(place)
    first = identity(place, "ref-a", hostname="box")
    assert identity(place, "ref-b", hostname="other").copied
    assert not identity(place, None, hostname="other").copied
    assert rebind(place, "ref-b", hostname="other") == first._replace(name="other")
    assert not identity(place, "ref-b", hostname="other").copied


@pytest.mark.rule("A12")
@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"[]", b"\xff\xfe", b'{"uuid":"x","name":"box"}', b'{"uuid":"01234567-89AB-cdef-0123-456789abcdef","name":"box"}',
     b'{"uuid":"01234567-89ab-cdef-0123-456789abcdef","name":""}', b'{"uuid":"01234567-89ab-cdef-0123-456789abcdef","name":"a\\nb"}',
     b'{"uuid":"01234567-89ab-cdef-0123-456789abcdef","name":"box","machine_ref":""}',
     b'{"uuid":"01234567-89ab-cdef-0123-456789abcdef","name":"box","format":2}',
     b'{"uuid":"01234567-89ab-cdef-0123-456789abcdef","name":"box","other":1}', b" " * 5000],
)  # fmt: skip
def test_an_identity_that_is_not_understood_is_never_replaced(machine: Path, content: bytes) -> None:
    """A torn, foreign or newer node.json is an error and stays as it is."""
    place = resolve(settings(machine))
    prepare(place)
    path = place.folder / FILE_NAME
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(InvalidRecord):
        identity(place, "ref-a", hostname="box")
    assert path.read_bytes() == content


def make_identity(place: Place, gate: multiprocessing.synchronize.Barrier, answers: multiprocessing.queues.Queue[str]) -> None:
    """Wait for the others, then ask for the identity."""
    gate.wait(20)
    answers.put(identity(place, "ref-a", hostname="box").uuid + scrub_key(place).hex())


def test_of_racing_processes_one_makes_the_identity(machine: Path) -> None:
    """Eight processes that ask at once get one uuid and one key, and nothing is left beside the files."""
    place = resolve(settings(machine))
    prepare(place)
    context = multiprocessing.get_context("fork")
    gate, answers = context.Barrier(8), context.Queue()
    children = [context.Process(target=make_identity, args=(place, gate, answers)) for _ in range(8)]
    for child in children:
        child.start()
    found = {answers.get(timeout=20) for _ in children}
    for child in children:
        child.join(20)
    assert len(found) == 1
    assert sorted(path.name for path in place.folder.iterdir()) == ["ledger.db", "node.json", "scrub.key"]


def test_the_key_of_the_redactor_is_kept_beside_the_ledger(machine: Path) -> None:
    """The key is 32 bytes in a 0600 file; one that is torn or open to others is refused."""
    place = resolve(settings(machine))
    prepare(place)
    key = scrub_key(place)
    path = place.folder / "scrub.key"
    assert (scrub_key(place), len(key), mode_of(path)) == (key, 32, 0o600)
    path.chmod(0o666)
    with pytest.raises(UnsafePlace):
        scrub_key(place)
    path.chmod(0o600)
    path.write_bytes(b"short")
    with pytest.raises(InvalidRecord, match="has 5 bytes"):
        scrub_key(place)
