"""`earmark fit --cases FILE`: a file of hosts and requests is answered, one line a case. It needs no ledger and takes nothing.

Rules of this file: the answers come in the order of the lines; the last word is what became of the file as a whole.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator

from earmark.cli.case_lines import MALFORMED, OUTCOMES, UNKNOWN, Done, answers, lines_of, opened
from earmark.cli.ledgers import EXIT_FINDINGS
from earmark.cli.phrases import clean
from earmark.cli.session import Session
from earmark.core.model.units import counted
from earmark.errors import Invalid

KINDS_SHOWN_MAX = 40
FAULTS_SHOWN_MAX = 20
"""So many lines that are no case are said with what is wrong with them."""
PASSED_OVER = "not looked at"
WORDS_MAX, OTHER_WORDS = 1000, "other words"
"""So many different words that were not looked at are counted one by one, the rest as one."""
SHOWN_EVERY = 50
"""On a terminal so many lines go by between two looks."""


class Tally:
    """What became of the lines so far."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.kinds: dict[str, Counter[str]] = {}
        self.slowest: Done | None = None
        self.took_us = 0
        self.words: Counter[str] = Counter()

    def add(self, done: Done) -> None:
        """Count one more line."""
        self.outcomes[done.outcome] += 1
        self.kinds.setdefault(done.outcome, Counter()).update(done.kinds)
        self.took_us += done.took_us
        for word in done.passed_over:
            self.words[word if word in self.words or len(self.words) < WORDS_MAX else OTHER_WORDS] += 1
        if self.slowest is None or done.took_us > self.slowest.took_us:
            self.slowest = done

    @property
    def exit_code(self) -> int:
        """0: every line was answered; 1: some answer is not known; 2: some line is no case."""
        if self.outcomes[UNKNOWN]:
            return EXIT_FINDINGS
        return Invalid.exit_code if self.outcomes[MALFORMED] else 0


def fit_cases(session: Session, source: str, jobs: int) -> int:
    """Answer a file of cases; return the exit code."""
    tally = Tally()
    watched = sys.stderr.isatty() and not session.quiet and not session.json
    with opened(source) as stream:
        for done in answers(lines_of(stream, source), jobs=jobs, texts=session.json):
            tally.add(done)
            if session.json:
                session.out(done.text.decode("utf-8"))
            elif done.fault and tally.outcomes[MALFORMED] <= FAULTS_SHOWN_MAX:
                session.note(f"line {done.line} is no case: {clean(done.fault)}")
            elif watched and tally.outcomes.total() % SHOWN_EVERY == 0:
                _progress(tally)
    if watched:
        sys.stderr.write("\r\x1b[K")
    more = tally.outcomes[MALFORMED] - FAULTS_SHOWN_MAX
    if more > 0 and not session.json:
        session.note(f"and {counted(more, 'more line')} that {'is' if more == 1 else 'are'} no case")
    if not session.json:
        _draw(session, tally)
    return tally.exit_code


def _progress(tally: Tally) -> None:
    so_far = ", ".join(f"{tally.outcomes[outcome]} {outcome}" for outcome in OUTCOMES if tally.outcomes[outcome])
    sys.stderr.write(f"\r\x1b[K{tally.outcomes.total()} cases: {so_far}")
    sys.stderr.flush()


def _draw(session: Session, tally: Tally) -> None:
    """Print what became of the cases, by outcome and by kind."""
    from earmark.cli.drawing import sheet, table  # noqa: PLC0415 - only where it is drawn

    total = tally.outcomes.total()
    on = sheet(colour=session.draws_colour)
    rows = [
        [str(tally.outcomes[outcome]), outcome, f"{100 * tally.outcomes[outcome] / total:.1f} %"]
        for outcome in OUTCOMES
        if tally.outcomes[outcome]
    ]
    on.draw(table(("CASES", "OUTCOME", "SHARE"), rows, on.width))
    for title, counts in (*((outcome, tally.kinds.get(outcome, Counter())) for outcome in OUTCOMES), (PASSED_OVER, tally.words)):
        kinds = list(_rows(counts))
        if kinds:
            session.out("")
            on.draw(table(("CASES", title.upper()), kinds, on.width))
    session.out("")
    slow = tally.slowest
    tail = f", slowest {clean(slow.name)} with {slow.took_us / 1000:.1f} ms" if slow is not None else ""
    session.out(f"{counted(total, 'case')} in {tally.took_us / 1_000_000:.1f} s of work{tail}")


def _rows(kinds: Counter[str]) -> Iterator[list[str]]:
    """Yield the kinds of one outcome, the most frequent first; a case counts under each of its kinds."""
    order = sorted(kinds.items(), key=lambda item: (-item[1], item[0]))
    yield from ([str(count), clean(kind)] for kind, count in order[:KINDS_SHOWN_MAX])
    if len(order) > KINDS_SHOWN_MAX:
        yield ["", f"and {counted(len(order) - KINDS_SHOWN_MAX, 'more kind')}"]
