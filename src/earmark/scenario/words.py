"""A line of a scenario as words with their places, taken one after the other.

Rules of this file: whatever is not understood is InvalidRecord with file, line, column and the text found; every length has a bound.
"""

from __future__ import annotations

import re
from typing import NamedTuple, NoReturn

from earmark.core.model.units import parse_bytes, parse_duration_ms
from earmark.errors import InvalidRecord, InvalidRequest

LINE_LENGTH_MAX = 1000
NUMBER_MAX = 1 << 53
WORD = re.compile(r'"(?P<quoted>[^"]*)"|(?:[^\s",|]|,(?=[^\s",|]))+|[,|]')
"""A text in quotes, a word (a comma inside it is a part of it), or a sign."""
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,62}")
FIGURE = re.compile(r"([0-9]{1,12})/([0-9]{1,12})/([0-9]{1,12})")
NUMBER = re.compile(r"[0-9]{1,16}")
ARROW = "=>"


class Word(NamedTuple):
    """A word, its column (from 1), and whether it stood in quotes."""

    text: str
    column: int
    quoted: bool = False


def bare(line: str) -> str:
    """Return a line without its comment: from a `#` at its beginning or after a space, outside quotes."""
    quoted = False
    for at, sign in enumerate(line):
        if sign == '"':
            quoted = not quoted
        elif sign == "#" and not quoted and (at == 0 or line[at - 1].isspace()):
            return line[:at].rstrip()
    return line.rstrip()


class Words:
    """The words of one line, read from the left; `source` and `line` say where it stands."""

    def __init__(self, text: str, source: str, line: int, column: int = 1) -> None:
        self.source = source
        self.line = line
        self.text = text
        self._end = column + len(text)
        self._at = 0
        self._words: list[Word] = []
        if len(text) > LINE_LENGTH_MAX:
            self.wrong(f"a line is longer than {LINE_LENGTH_MAX} characters", column)
        place = 0
        while place < len(text):
            if text[place].isspace():
                place += 1
                continue
            match = WORD.match(text, place)
            if match is None:
                self.wrong(f"{text[place:][:40]!r} has no closing quote", column + place)
            quoted = match["quoted"]
            found = quoted if quoted is not None else match[0]
            if not found.isprintable():
                self.wrong(f"{found!r} has signs that cannot be printed", column + place)
            self._words.append(Word(found, column + place, quoted is not None))
            place = match.end()

    # --- where it stands ------------------------------------------------------------------------------------------------------------

    @property
    def over(self) -> bool:
        """Whether all words were read."""
        return self._at >= len(self._words)

    @property
    def column(self) -> int:
        """The column of the next word, or of the end."""
        return self._end if self.over else self._words[self._at].column

    def wrong(self, problem: str, column: int | None = None) -> NoReturn:
        """Raise InvalidRecord for what stands here."""
        at = self.column if column is None else column
        raise InvalidRecord(f"{self.source}:{self.line}:{at}: {problem}", source=self.source, line=self.line, column=at)

    def peek(self) -> str | None:
        """Return the next word without reading it, None at the end; a quoted one is no keyword."""
        if self.over or self._words[self._at].quoted:
            return None
        return self._words[self._at].text

    # --- reading --------------------------------------------------------------------------------------------------------------------

    def take(self, what: str) -> Word:
        """Read the next word, whatever it is."""
        if self.over:
            self.wrong(f"{what} is missing")
        word = self._words[self._at]
        self._at += 1
        return word

    def maybe(self, *words: str) -> bool:
        """Read these words if they come next, all of them."""
        coming = self._words[self._at : self._at + len(words)]
        if len(coming) < len(words) or any(word.quoted or word.text != wanted for word, wanted in zip(coming, words, strict=True)):
            return False
        self._at += len(words)
        return True

    def keyword(self, wanted: str) -> None:
        """Read one certain word."""
        if not self.maybe(wanted):
            self.wrong(f"{wanted!r} is missing" if self.over else f"{wanted!r} is expected here, not {self._words[self._at].text!r}")

    def one_of(self, what: str, choices: tuple[str, ...]) -> str:
        """Read one of some words."""
        word = self.take(what)
        if word.quoted or word.text not in choices:
            self.wrong(f"{what} {word.text!r} is none of {', '.join(choices)}", word.column)
        return word.text

    def name(self, what: str) -> str:
        """Read a name: a letter, then letters, digits and . _ -."""
        word = self.take(what)
        if word.quoted or not NAME.fullmatch(word.text):
            self.wrong(f"{what} {word.text!r} is not a name: a letter, then letters, digits, '.', '_' or '-'", word.column)
        return word.text

    def number(self, what: str) -> int:
        """Read a whole number."""
        word = self.take(what)
        if word.quoted or not NUMBER.fullmatch(word.text) or int(word.text) > NUMBER_MAX:
            self.wrong(f"{what} {word.text!r} is not a whole number", word.column)
        return int(word.text)

    def signed(self, what: str) -> int:
        """Read a whole number that may be negative, as what is free may be."""
        word = self.take(what)
        if word.quoted or not NUMBER.fullmatch(word.text.removeprefix("-")):
            self.wrong(f"{what} {word.text!r} is not a whole number", word.column)
        return int(word.text)

    def figure(self, what: str) -> tuple[int, int, int]:
        """Read vCPUs/MB/GB."""
        word = self.take(what)
        match = FIGURE.fullmatch(word.text)
        if word.quoted or match is None:
            self.wrong(f"{what} {word.text!r} is not vCPUs/MB/GB, as in 2/2048/20", word.column)
        return int(match[1]), int(match[2]), int(match[3])

    def is_figure(self) -> bool:
        """Say whether vCPUs/MB/GB come next."""
        return FIGURE.fullmatch(self.peek() or "") is not None

    def pair(self, what: str) -> tuple[str, str] | None:
        """Read KEY=VALUE if it comes next."""
        word = self.peek()
        key, equals, value = (word or "").partition("=")
        if not equals or not key or word == ARROW:
            return None
        at = self.column
        self._at += 1
        if not value:
            self.wrong(f"{what} {word!r} has no value", at)
        return key, value

    def quoted(self) -> str | None:
        """Read a text in quotes if one comes next."""
        if self.over or not self._words[self._at].quoted:
            return None
        return self.take("a text").text

    def duration_ms(self, what: str) -> int:
        """Read a span of time such as 90s or 10m, in milliseconds."""
        word = self.take(what)
        try:
            return parse_duration_ms(word.text, what=what)
        except InvalidRequest as error:
            self.wrong(error.message, word.column)

    def bytes(self, what: str) -> int:
        """Read a size such as 2M or 1GiB, in bytes."""
        word = self.take(what)
        try:
            return parse_bytes(word.text, what=what)
        except InvalidRequest as error:
            self.wrong(error.message, word.column)

    def rest(self) -> list[Word]:
        """Read all words that are left before a result."""
        found = []
        while not self.over and self.peek() != ARROW:
            found.append(self.take("a word"))
        return found

    def end(self) -> None:
        """Raise InvalidRecord if words are left."""
        if not self.over:
            self.wrong(f"{self._words[self._at].text!r} is not expected here")
