"""A scenario file: its title, its flavors, its courses; read strictly, line by line, to frozen steps.

Rules of this file: one step a line, in the trade's own words (docs/reference/scenario-language.md); what is not understood is InvalidRecord
with file, line and column; a file, its lines and its steps are bounded. Nothing is carried out here.
"""

from __future__ import annotations

import re
from typing import cast, get_args

from msgspec.structs import replace

from earmark.errors import InvalidRecord
from earmark.scenario import steps as s
from earmark.scenario.verbs import VERBS, Reading
from earmark.scenario.words import ARROW, Words, bare

FILE_BYTES_MAX = 1 << 20
STEPS_MAX = 2000
VARIANTS_MAX = 64
RACERS_MAX = 16
ID = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,31}")
VERDICTS = cast("tuple[str, ...]", get_args(s.Verdict))
HEADS = ("scenario", "nova", "variant", "flavor")


def parse(text: str, source: str = "scenario") -> s.Scenario:
    """Return the scenario that a text describes; `source` is how messages call the file. Raises InvalidRecord."""
    if len(text) > FILE_BYTES_MAX:
        raise InvalidRecord(f"{source}: a scenario is larger than {FILE_BYTES_MAX} characters", source=source)
    book = Book(source)
    for number, line in enumerate(text.splitlines(), 1):
        book.read(bare(line), number)
    return book.closed()


class Book:
    """A scenario as it is read; made for one file and dropped after it."""

    def __init__(self, source: str) -> None:
        self.reading = Reading(source)
        self.source = source
        self.head: tuple[str, str] | None = None
        self.nova = ""
        self.opening: list[s.Step] = []
        self.courses: list[tuple[str, list[s.Step]]] = []
        self.last_line = 1

    def read(self, line: str, number: int) -> None:
        """Read one line without its comment."""
        self.last_line = number
        if not line.strip():
            return
        column = len(line) - len(line.lstrip()) + 1
        text = line.strip()
        first = text.split(maxsplit=1)[0].rstrip(":")
        if first in ("scenario", "nova", "variant"):
            self._heading(first, text, number, column)
            return
        words = Words(text, self.source, number, column)
        if self.head is None:
            words.wrong("a file begins with its title: scenario ID: TITLE", column)
        if words.maybe("flavor"):
            self.reading.flavor(words)
            return
        steps = self.courses[-1][1] if self.courses else self.opening
        if len(self.opening) + len(steps) >= STEPS_MAX:
            words.wrong(f"a course has more than {STEPS_MAX} steps", column)
        steps.append(step_of(self.reading, words, text))

    def _heading(self, first: str, text: str, number: int, column: int) -> None:
        """Read `scenario ID: TITLE`, `nova: TEXT` or `variant: TITLE`."""
        words = Words("", self.source, number, column)
        head, colon, title = text.partition(":")
        title = title.strip()
        if not colon or not title or not title.isprintable():
            words.wrong(f"{first!r} is followed by a colon and a text", column)
        if first == "scenario":
            id_ = head.removeprefix("scenario").strip()
            if self.head is not None:
                words.wrong("a file holds one scenario", column)
            if not ID.fullmatch(id_):
                words.wrong(f"{id_!r} is not the id of a scenario, as S11 is", column)
            self.head = (id_, title)
            return
        if head != first:
            words.wrong(f"{head!r} is not {first!r}", column)
        if self.head is None:
            words.wrong("a file begins with its title: scenario ID: TITLE", column)
        if first == "nova":
            self.nova = f"{self.nova} {title}".strip()
        elif len(self.courses) >= VARIANTS_MAX or any(title == known for known, _ in self.courses):
            words.wrong(f"variant {title!r} stands here twice, or there are more than {VARIANTS_MAX}", column)
        else:
            self.courses.append((title, []))

    def closed(self) -> s.Scenario:
        """Return the scenario that was read; raises InvalidRecord if it has no title or no steps."""
        if self.head is None:
            raise InvalidRecord(
                f"{self.source}:{self.last_line}:1: a file begins with its title: scenario ID: TITLE",
                source=self.source,
                line=self.last_line,
                column=1,
            )
        courses = self.courses or [("", [])]
        for title, steps in courses:
            if not self.opening and not steps:
                where = f"variant {title!r}" if title else "the scenario"
                raise InvalidRecord(
                    f"{self.source}:{self.last_line}:1: {where} has no steps", source=self.source, line=self.last_line, column=1
                )
        return s.Scenario(
            id=self.head[0], title=self.head[1], nova=self.nova, source=self.source, flavors=tuple(self.reading.flavors.values()),
            variants=tuple(s.Variant(title=title, steps=(*self.opening, *steps)) for title, steps in courses),
        )  # fmt: skip


def step_of(reading: Reading, words: Words, text: str) -> s.Step:
    """Return the step that a line describes."""
    if words.maybe("race"):
        racers = [_one(reading, words)]
        while words.maybe("|"):
            racers.append(_one(reading, words))
        if not 1 < len(racers) <= RACERS_MAX:
            words.wrong(f"a race is between 2 and {RACERS_MAX} steps, with | between them")
        words.keyword(ARROW)
        count = words.number("number of steps that are granted")
        words.keyword("granted")
        words.end()
        return s.Race(line=words.line, text=text, steps=tuple(racers), result=s.Granted(count=count))
    step = replace(_one(reading, words), text=text)
    if words.maybe(ARROW):
        if isinstance(step, s.Expect | s.Remember):
            words.wrong("what is expected leads to nothing", words.column)
        step = replace(step, result=_result(words))
    words.end()
    return step


def _one(reading: Reading, words: Words) -> s.Step:
    """Read one step up to a sign or the end."""
    start = words.column
    verb = words.take("a step")
    rule = None if verb.quoted else VERBS.get(verb.text)
    if rule is None:
        words.wrong(f"{verb.text!r} begins no step: {', '.join(sorted((*VERBS, 'race', *HEADS)))} do", start)
    return rule(reading, words, verb.text)


def _result(words: Words) -> s.Result:
    """Read what a step is to lead to."""
    kind = words.one_of("result", ("already", "refused", "error", "crash", *VERDICTS))
    if kind in VERDICTS:
        return s.Judged(kind=cast("s.Verdict", kind), text=words.quoted() or "")
    if kind == "already":
        return s.Already(text=words.quoted() or "")
    if kind == "refused":
        return s.Refused(code=words.name("code of a reason"), text=words.quoted() or "")
    if kind == "error":
        return s.Failed(code=words.name("code of an error"), text=words.quoted() or "")
    when = words.one_of("when it dies", ("before", "after"))
    words.keyword("append")
    return s.Dies(when="before" if when == "before" else "after")
