"""One line per decision on standard error.

Rules of this file: a line is a fixed noun.verb and fields, no prose; every line passes the redactor unless the setting `log_scrub` is off,
and that it is off is itself the first line. Control characters never reach a terminal. structlog is imported with the first line that is
really written, so that a command that logs nothing does not pay for it.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, TextIO

from earmark.clock import Clock, SystemClock
from earmark.errors import WrongUse

if TYPE_CHECKING:
    from earmark.redactor import Redactor

Level = Literal["debug", "info", "warning", "error"]
Form = Literal["console", "json"]

RANKS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "off": 100}
EVENT = re.compile(r"[a-z][a-z_]{0,30}(\.[a-z][a-z_]{0,30}){1,2}")
FLEETING_KEY_BYTES = 32
OWN_FIELDS = ("event", "level", "at_ms")
LINE_FIELDS_MAX = 64
TEXT_LENGTH_MAX = 2000


class Wishes(Protocol):
    """The settings that logging reads."""

    @property
    def log_level(self) -> str:
        """The least level that is written."""

    @property
    def log_format(self) -> Form:
        """For people or for machines."""

    @property
    def log_scrub(self) -> bool:
        """Whether the redactor is on."""


class Lines(NamedTuple):
    """How lines are written: the least rank, their form, where the redactor's key comes from, whether it is on, where to, what clock.

    `stream` None is standard error.
    """

    rank: int
    form: Form
    key: Callable[[], bytes]
    scrub: bool = True
    stream: TextIO | None = None
    clock: Clock = SystemClock()


def fleeting_key() -> bytes:
    """Return a key that lives as long as this process: pseudonyms are equal within it only."""
    return _fleeting_key


_fleeting_key = os.urandom(FLEETING_KEY_BYTES)
_lines = Lines(RANKS["warning"], "console", fleeting_key)


def configure(wishes: Wishes, *, key: Callable[[], bytes] = fleeting_key, stream: TextIO | None = None, clock: Clock | None = None) -> None:
    """Set how lines are written from now on. `key` is asked for 32 bytes at the first line that is really written.

    With the key that lies beside the ledger pseudonyms are equal over processes. Where the redactor is off a line says so at once.
    """
    global _lines  # noqa: PLW0603 - one reference to an immutable value, exchanged whole
    _lines = Lines(RANKS[wishes.log_level], wishes.log_format, key, wishes.log_scrub, stream, clock or SystemClock())
    if not wishes.log_scrub:
        log("log.loosened", level="warning", setting="log_scrub", value=False)


def log(noun_verb: str, *, level: Level = "info", **fields: object) -> None:
    """Write one line about a decision, named noun.verb, with its fields; nothing below the level that is set.

    A field's name says what it holds (`earmark.redactor.FIELDS`); a name that is not listed there is written without its value.
    Raises WrongUse for an event that is not noun.verb.
    """
    lines = _lines
    if RANKS[level] < lines.rank:
        return
    if not EVENT.fullmatch(noun_verb):
        raise WrongUse(f"a log line is named noun.verb, not {noun_verb[:60]!r}", found=noun_verb[:60])
    shown = dict(list(fields.items())[:LINE_FIELDS_MAX])
    values = _redactor(lines).fields(shown) if lines.scrub else {name: plain(value) for name, value in shown.items()}
    writer(lines)(noun_verb, level, values)


def redactor() -> Redactor:
    """Return the redactor of the lines, whether or not it is on for them."""
    return _redactor(_lines)


def _redactor(lines: Lines) -> Redactor:
    from earmark.redactor import Redactor  # noqa: PLC0415 - a command that logs nothing does not pay for it

    return Redactor(lines.key())


def scrub_envelope(raw: bytes) -> bytes:
    """Return a stored event without identities, secrets and free text, for `export --scrub`; raises InvalidRecord."""
    return redactor().envelope(raw)


def plain(value: object) -> object:
    """Return a value as an unredacted line shows it: text bounded, anything but numbers as text."""
    if value is None or isinstance(value, bool | int | float):
        return value
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= TEXT_LENGTH_MAX else text[:TEXT_LENGTH_MAX] + "…"


def printable(value: object) -> object:
    """Return a text with every character that a terminal could obey written as an escape; other values as they are."""
    if not isinstance(value, str) or value.isprintable():
        return value
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape", "backslashreplace").decode() for letter in value)


def writer(lines: Lines) -> Callable[[str, Level, dict[str, object]], None]:
    """Return what writes one line with structlog, in the form and to the stream that are set."""
    import structlog  # noqa: PLC0415 - costs 100 ms: only a line that is really written pays

    stamp_ms = lines.clock.now_ms()
    renderer: structlog.typing.Processor
    if lines.form == "json":
        renderer = structlog.processors.JSONRenderer(sort_keys=True)
    else:
        renderer = structlog.dev.ConsoleRenderer(colors=False, pad_event_to=0, sort_keys=True)
    logger = structlog.wrap_logger(
        structlog.WriteLogger(lines.stream or sys.stderr),
        processors=[structlog.processors.add_log_level, renderer],
        wrapper_class=structlog.BoundLogger,
        cache_logger_on_first_use=False,
    )

    def write(noun_verb: str, level: Level, values: dict[str, object]) -> None:
        shown = {f"{name}_" if name in OWN_FIELDS else str(printable(name)): printable(value) for name, value in values.items()}
        getattr(logger, level)(noun_verb, at_ms=stamp_ms, **shown)

    return write
