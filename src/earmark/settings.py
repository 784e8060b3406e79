"""The one loader of settings: defaults, then the machine's file, the user's file, the environment, and flags; the last one wins.

Rules of this file: strict, nothing is guessed and nothing ignored: an unknown key, a wrong type, a value out of bounds or an impossible
combination is InvalidSetting with the source and the key. Only this module reads the environment. A file that others may write is
refused. Each field says what it does and what it means for security (docs/reference/settings.md is made from it).
"""

import errno
import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec import Meta

from earmark.core.model.inventory import RATIO_ONE
from earmark.core.model.node import Ratio
from earmark.core.model.units import format_duration, parse_duration_ms, parse_ratio
from earmark.core.model.value import Value
from earmark.errors import InvalidRequest, InvalidSetting

LogLevel = Literal["debug", "info", "warning", "error", "off"]
LogFormat = Literal["console", "json"]
Colour = Literal["auto", "always", "never"]
Asking = Literal["auto", "always", "never"]

PREFIX = "EARMARK_"
NOT_SETTINGS = re.compile(r"EARMARK_(CLAIM|CPUS|CELLS|NODE|PCI|GPU_SHARES|TEST_\w+)")
"""What `earmark run` and `--format env` tell a child; a child that calls earmark again must not stumble over it."""
ONLY_OUTSIDE_FILES = frozenset({"machine_root"})
FILE_BYTES_MAX = 64 * 1024
DISKS_MAX = 16
DAY_MS = 24 * 3600 * 1000
MINUTE_MS = 60 * 1000

DISK_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")
NO_RATIO = frozenset({"none", "0", "0.0"})
"""What stands for a ratio that is not configured (Nova 34, conf/compute.py: None and 0.0)."""
TEXTS_OF_BOOL = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}


class DiskPath(Value, frozen=True):
    """A path whose file system is handed out as the pool `disk:NAME`."""

    name: str
    path: str


class Settings(Value, frozen=True):
    """How this program runs. Times are milliseconds here and durations ("10m") outside, ratios thousandths here and decimals outside."""

    ledger: Annotated[
        str | None,
        Meta(
            description="The ledger file. Unset: the machine's announced ledger, else the user's own.",
            extra={"security": "Whoever can write this file can rewrite who holds what. A file elsewhere than the announced ledger is private: its claims bind only those who use the same file."},
        ),
    ] = None  # fmt: skip
    private: Annotated[
        bool,
        Meta(
            description="Grant exclusive units from a private ledger although another ledger of this machine is announced.",
            extra={"security": "The users of the announced ledger do not see such grants, so a CPU or device can be given twice."},
        ),
    ] = False  # fmt: skip
    state_home: Annotated[
        str,
        Meta(
            description="The folder under which a user's own ledger stands, as earmark/ledger.db. Default: $XDG_STATE_HOME, else ~/.local/state.",
            extra={"security": "The folder earmark/ in it must belong to the user and be closed to others (0700); anything else is refused."},
        ),
    ] = ""  # fmt: skip
    hold_timeout_ms: Annotated[
        int,
        Meta(
            ge=1000,
            le=7 * DAY_MS,
            description="How long a held claim waits to be confirmed before it expires.",
            extra={"security": "Long: a caller that died keeps units from others. Short: a slow start loses its hold and the units go to another."},
        ),
    ] = 10 * MINUTE_MS  # fmt: skip
    default_ttl_ms: Annotated[
        Annotated[int, Meta(ge=1000, le=10 * 366 * DAY_MS)] | None,
        Meta(
            description='The life of a confirmed claim that names none ("none" in files: unset). Unset: until it is released.',
            extra={"security": "Unset, a forgotten claim keeps its units for ever; `earmark list` shows it."},
        ),
    ] = None
    drain_grace_ms: Annotated[
        int,
        Meta(
            ge=0,
            le=DAY_MS,
            description="How long an ended claim may go without proof that its units are unused before they are quarantined.",
            extra={"security": "Units are never freed without proof, whatever the value; it only says when a person is needed."},
        ),
    ] = MINUTE_MS
    busy_timeout_ms: Annotated[
        int,
        Meta(
            ge=1,
            le=10 * MINUTE_MS,
            description="How long a writer waits for another writer of the same ledger before it answers LedgerBusy.",
            extra={"security": "None; the error names the process that is in the way."},
        ),
    ] = 10_000
    epoch: Annotated[
        int,
        Meta(
            ge=1,
            le=1 << 53,
            description="The epoch that this writer puts on its events.",
            extra={"security": "Raising it shuts out every writer with a lower one: that is what it is for."},
        ),
    ] = 1
    disks: Annotated[
        tuple[DiskPath, ...],
        Meta(
            max_length=DISKS_MAX,
            description='The paths whose file systems are handed out, by name ("root=/,scratch=/srv/scratch"; in a file the table [disks]).',
            extra={"security": "The size of a named path is read and recorded; nothing is written there."},
        ),
    ] = (DiskPath(name="root", path="/"),)
    nvml: Annotated[
        Asking,
        Meta(
            description="Whether NVIDIA's library is asked about GPUs when the machine is looked at: where there are such GPUs (auto), always or never.",
            extra={"security": "The library is loaded from where the system's loader finds it, in a process of its own with your rights and a time limit."},
        ),
    ] = "auto"  # fmt: skip
    cpu_allocation_ratio_milli: Annotated[
        Ratio | None,
        Meta(
            description="The ratio (shared vCPUs per shared CPU) that this machine's node has, whatever it had before. Unset (or 0): what it has is kept.",
            extra={"security": "Above 1.0, claims share what there is: a guest can be starved by its neighbours, never given what another holds alone."},
        ),
    ] = None  # fmt: skip
    ram_allocation_ratio_milli: Annotated[
        Ratio | None,
        Meta(
            description="The ratio (ordinary memory handed out per memory) that this machine's node has, whatever it had before. Unset (or 0): what it has is kept.",
            extra={"security": "Above 1.0, claims share what there is: a guest can be starved by its neighbours, never given what another holds alone."},
        ),
    ] = None  # fmt: skip
    disk_allocation_ratio_milli: Annotated[
        Ratio | None,
        Meta(
            description="The ratio (disk space handed out per space) that this machine's node has, whatever it had before. Unset (or 0): what it has is kept.",
            extra={"security": "Above 1.0, claims share what there is: a guest can be starved by its neighbours, never given what another holds alone."},
        ),
    ] = None  # fmt: skip
    initial_cpu_allocation_ratio_milli: Annotated[
        Ratio,
        Meta(
            description="The cpu_allocation_ratio that a new node is made with where that is unset.",
            extra={"security": "Above 1.0, claims share what there is: a guest can be starved by its neighbours, never given what another holds alone."},
        ),
    ] = RATIO_ONE  # fmt: skip
    initial_ram_allocation_ratio_milli: Annotated[
        Ratio,
        Meta(
            description="The ram_allocation_ratio that a new node is made with where that is unset.",
            extra={"security": "Above 1.0, claims share what there is: a guest can be starved by its neighbours, never given what another holds alone."},
        ),
    ] = RATIO_ONE  # fmt: skip
    initial_disk_allocation_ratio_milli: Annotated[
        Ratio,
        Meta(
            description="The disk_allocation_ratio that a new node is made with where that is unset.",
            extra={"security": "Above 1.0, claims share what there is: a guest can be starved by its neighbours, never given what another holds alone."},
        ),
    ] = RATIO_ONE  # fmt: skip
    log_level: Annotated[
        LogLevel,
        Meta(
            description="The least level of log lines on standard error.",
            extra={"security": "Lower levels say more about what happens; the redactor works on all of them."},
        ),
    ] = "warning"
    log_format: Annotated[
        LogFormat,
        Meta(
            description="Log lines for people (console) or for machines (json).", extra={"security": "None; both are redacted and escaped."}
        ),
    ] = "console"
    log_scrub: Annotated[
        bool,
        Meta(
            description="Redact log lines: identities become keyed pseudonyms, secrets and free text are dropped.",
            extra={"security": "Off, log lines name consumers, owners and claims. That it is off is itself logged."},
        ),
    ] = True
    color: Annotated[
        Colour,
        Meta(
            description="Colours: on a terminal only (auto), always or never. A NO_COLOR that is set and not empty means never.",
            extra={"security": "None; values from outside are escaped with and without colours."},
        ),
    ] = "auto"  # fmt: skip
    machine_root: Annotated[
        str,
        Meta(
            description="The folder that stands for / when announcements and the machine's settings are looked for; for tests and images. Not in files.",
            extra={"security": "Whoever sets it chooses which announced ledger is believed, for their own commands only."},
        ),
    ] = "/"  # fmt: skip

    @property
    def busy_timeout_s(self) -> float:
        """The busy time-out in seconds."""
        return self.busy_timeout_ms / 1000


class Source(NamedTuple):
    """Where some settings come from: what messages call it, and its keys with their values as found."""

    name: str
    values: Mapping[str, object]


class Loaded(NamedTuple):
    """Settings, and for each key the source that decided it ("default" where none did)."""

    settings: Settings
    origins: Mapping[str, str]


def load(flags: Mapping[str, object] | None = None, *, environ: Mapping[str, str] | None = None) -> Settings:
    """Return the settings in force; `flags` are key → value (None: not given), `environ` stands for the process's environment.

    Raises InvalidSetting.
    """
    return explain(flags, environ=environ).settings


def explain(flags: Mapping[str, object] | None = None, *, environ: Mapping[str, str] | None = None) -> Loaded:
    """Return the settings in force and where each comes from; raises InvalidSetting."""
    env = os.environ if environ is None else environ
    given = {key: value for key, value in (flags or {}).items() if value is not None}
    values: dict[str, object] = {"state_home": state_home(env)}
    origins = dict.fromkeys(keys(), "default")
    for source in sources(env, given):
        for key, found in source.values.items():
            field, value = check_key(source.name, key, found)
            values[field] = value
            origins[key] = source.name
    settings = msgspec.convert(values, Settings)
    check_whole(settings, origins)
    return Loaded(settings, origins)


def sources(env: Mapping[str, str], flags: Mapping[str, object]) -> Iterator[Source]:
    """Yield what speaks on settings, the weakest first."""
    root = str(flags.get("machine_root") or env.get(PREFIX + "MACHINE_ROOT") or "/")
    config_home = env.get("XDG_CONFIG_HOME") or ""
    if not config_home.startswith("/"):
        config_home = f"{home(env)}/.config"
    for path in (Path(root, "etc/earmark/earmark.toml"), Path(config_home, "earmark/earmark.toml")):
        table = read_file(path)
        if table is not None:
            yield Source(str(path), table)
    if env.get("NO_COLOR"):
        yield Source("NO_COLOR", {"color": "never"})
    yield Source("environment", dict(from_environment(env)))
    yield Source("flags", flags)


def keys() -> tuple[str, ...]:
    """Return the names of all settings as they are written outside, in the order of the struct."""
    return tuple(field.removesuffix("_ms").removesuffix("_milli") for field in Settings.__struct_fields__)


def check_key(source: str, key: str, found: object) -> tuple[str, object]:
    """Return the field of a key and its checked value; raises InvalidSetting."""
    fields = dict(zip(keys(), Settings.__struct_fields__, strict=True))
    field = fields.get(key)
    if field is None:
        raise InvalidSetting(f"{source}: there is no setting {key!r}", source=source, key=key)
    default = getattr(Settings(), field)
    try:
        if field.endswith("_milli") and isinstance(found, int | float) and not isinstance(found, bool):
            found = str(found)
        value = from_text(field, found, default) if isinstance(found, str) else found
        if isinstance(default, tuple) and isinstance(value, Mapping):
            value = [{"name": name, "path": path} for name, path in value.items()]
        elif field.endswith("_ms") and not isinstance(found, str):
            raise InvalidSetting(f'{source}: {key} = {found!r} is not a duration in quotes such as "10m"', source=source, key=key)
        return field, getattr(msgspec.convert({field: value}, Settings), field)
    except (msgspec.ValidationError, InvalidRequest, ValueError) as error:
        raise InvalidSetting(f"{source}: {key} = {found!r}: {error}", source=source, key=key, found=found) from error


def from_text(field: str, text: str, default: object) -> object:
    """Return a text from a file, the environment or a flag as the kind of value that the field has; raises ValueError, InvalidRequest."""
    if field.endswith("_ms"):
        return None if default is None and text == "none" else parse_duration_ms(text)
    if field.endswith("_milli"):
        return None if default is None and text in NO_RATIO else parse_ratio(text)
    if isinstance(default, bool):
        if text.lower() not in TEXTS_OF_BOOL:
            raise ValueError("true or false is expected")
        return TEXTS_OF_BOOL[text.lower()]
    if isinstance(default, int):
        if not re.fullmatch(r"[0-9]{1,18}", text):
            raise ValueError("a whole number is expected")
        return int(text)
    if isinstance(default, tuple):
        pairs = [item.partition("=") for item in text.split(",") if item]
        if len({name for name, _, _ in pairs}) != len(pairs):
            raise ValueError("a name stands twice")
        return {name.strip(): path.strip() for name, _, path in pairs}
    return text


def check_whole(settings: Settings, origins: Mapping[str, str]) -> None:
    """Check what single keys cannot show; raises InvalidSetting."""
    if settings.hold_timeout_ms <= settings.busy_timeout_ms:
        raise InvalidSetting(
            f"hold_timeout {format_duration(settings.hold_timeout_ms)} ({origins['hold_timeout']}) is not above "
            f"busy_timeout {format_duration(settings.busy_timeout_ms)} ({origins['busy_timeout']}): "
            "a hold could expire before its answer arrives",
            key="hold_timeout",
        )
    names = [disk.name for disk in settings.disks]
    paths = [os.path.normpath(disk.path) for disk in settings.disks]
    for disk in settings.disks:
        if not DISK_NAME.fullmatch(disk.name) or not disk.path.startswith("/"):
            raise InvalidSetting(f"{origins['disks']}: disks: {disk.name!r} = {disk.path!r} is not name=/absolute/path", key="disks")
    if len(set(names)) != len(names) or len(set(paths)) != len(paths):
        raise InvalidSetting(f"{origins['disks']}: disks: a name or a path stands twice: {', '.join(names)}", key="disks")
    for key, path in (("ledger", settings.ledger), ("state_home", settings.state_home), ("machine_root", settings.machine_root)):
        if path is None:
            continue
        if not path or "\0" in path or any("\ud800" <= letter <= "\udfff" for letter in path):
            raise InvalidSetting(f"{origins[key]}: {key} = {path!r} is not a path in UTF-8", key=key)
        may_be_relative = key == "ledger" and origins[key] in ("environment", "flags")
        if not path.startswith("/") and not may_be_relative:
            raise InvalidSetting(f"{origins[key]}: {key} = {path!r} is not an absolute path", key=key)


def from_environment(env: Mapping[str, str]) -> Iterator[tuple[str, object]]:
    """Yield key and text of every EARMARK_ variable that is a setting; raises InvalidSetting for one that is nothing known."""
    known = keys()
    for variable in sorted(env):
        if not variable.startswith(PREFIX):
            continue
        key = variable.removeprefix(PREFIX).lower()
        if key in known and variable == PREFIX + key.upper():
            yield key, env[variable]
        elif not NOT_SETTINGS.fullmatch(variable):
            raise InvalidSetting(f"environment: {variable} is no setting", source="environment", key=variable)


def read_file(path: Path) -> Mapping[str, object] | None:
    """Return the keys of a settings file, None if there is none.

    Raises InvalidSetting if it cannot be read, is larger than 64 KiB, is not TOML, holds a key that may not stand in a file, or if it or
    its folder could be written by anyone but its owner, who must be root or the user.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return None
        raise InvalidSetting(f"settings file {path} cannot be read: {error.strerror}", source=str(path)) from error
    try:
        check_owner(path, os.fstat(descriptor))
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            raw = file.read(FILE_BYTES_MAX + 1)
    finally:
        os.close(descriptor)
    if len(raw) > FILE_BYTES_MAX:
        raise InvalidSetting(f"settings file {path} is larger than {FILE_BYTES_MAX} bytes", source=str(path))
    import tomllib  # noqa: PLC0415 - only where a settings file exists; the command line starts faster without

    try:
        table = tomllib.loads(raw.decode())
    except (UnicodeDecodeError, RecursionError, tomllib.TOMLDecodeError) as error:
        raise InvalidSetting(f"settings file {path} is not TOML: {error}", source=str(path)) from error
    for key in table:
        if key in ONLY_OUTSIDE_FILES or key not in keys():
            kind = "may not stand in a file" if key in ONLY_OUTSIDE_FILES else "is no setting"
            raise InvalidSetting(f"{path}, line {line_of(raw, key)}: {key!r} {kind}", source=str(path), key=key)
    return table


def check_owner(path: Path, found: os.stat_result) -> None:
    """Raise InvalidSetting unless a settings file and its folder belong to root or the user and no other may write them."""
    for what, status in ((path, found), (path.parent, path.parent.stat())):
        if status.st_uid not in (0, os.geteuid()):
            raise InvalidSetting(f"{what} belongs to uid {status.st_uid}, neither to root nor to you", source=str(path))
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise InvalidSetting(
                f"{what} may be written by others (mode {stat.S_IMODE(status.st_mode):04o}): chmod go-w it", source=str(path)
            )
    if not stat.S_ISREG(found.st_mode):
        raise InvalidSetting(f"settings file {path} is not a regular file", source=str(path))


def line_of(raw: bytes, key: str) -> int:
    """Return the line on which a top-level key or table first stands, 1 if it is not found."""
    for number, line in enumerate(raw.decode().splitlines(), start=1):
        if re.match(rf"\s*\[*\s*[\"']?{re.escape(key)}[\"']?\s*[\].=]", line):
            return number
    return 1


def home(env: Mapping[str, str]) -> str:
    """Return the user's home: $HOME if absolute, else what the password database says, else "/"."""
    if env.get("HOME", "").startswith("/"):
        return env["HOME"]
    import pwd  # noqa: PLC0415 - only where HOME is not set

    try:
        return pwd.getpwuid(os.geteuid()).pw_dir
    except KeyError:
        return "/"


def state_home(env: Mapping[str, str]) -> str:
    """Return the user's state directory (XDG base directory specification 0.8: a relative path is ignored)."""
    found = env.get("XDG_STATE_HOME", "")
    return found if found.startswith("/") else f"{home(env)}/.local/state"
