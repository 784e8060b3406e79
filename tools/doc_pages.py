"""The blocks of README.md, docs/tutorial and docs/howto that are run, and the recording of what they print.

A fenced block of `console`, `sh` or `python` has a comment on the line before it: `<!-- runs -->`, or `<!-- not run: why -->`. The blocks of a page
run in order, in one shell with a home folder of their own. In a console block a line that begins with "$ " is a command, which
ends with 0 unless it says "# exits N"; the other lines are what it printed. What a python block prints stands in the block after it,
under `<!-- printed -->`. `tools/doc_pages.py PAGE…` runs pages here and writes what they print into them.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MARK = re.compile(r"<!-- (runs|printed|not run: [^\n]+?) -->\n\Z")
EXITS = re.compile(r"# exits (\d+)")
OWN_WORDS = re.compile(r"^\S*\.page\.sh: line \d+: +\d+ Killed .*\n", re.MULTILINE)
SHOWN = ("console", "python", "sh")
PAGE_TIMEOUT_S = 240
CPUS_OF_A_PAGE = 2
"""The pages claim and refuse as on a machine with two CPUs, whatever machine runs them."""
EDGE = "\x1e"


class Block(NamedTuple):
    """A fenced block: its language, text, the mark before it ("" for none), and where the text begins in the page."""

    language: str
    text: str
    mark: str
    start: int
    line: int


class Step(NamedTuple):
    """One command of a page (or a whole python block): where it stands, what is run, the exit status that it says, what is shown of it."""

    line: int
    command: str
    status: int
    shown: str


class Done(NamedTuple):
    """A step that was run: its exit status and what it printed."""

    step: Step
    status: int
    printed: str


def pages() -> list[Path]:
    """Return the pages whose blocks must be marked."""
    return [ROOT / "README.md", *sorted((ROOT / "docs/tutorial").glob("*.md")), *sorted((ROOT / "docs/howto").glob("*.md"))]


def blocks(text: str) -> Iterator[Block]:
    """Yield the fenced blocks of a page in order."""
    for match in FENCE.finditer(text):
        mark = MARK.search(text, 0, match.start())
        yield Block(match[1], match[2], mark[1] if mark else "", match.start(2), text.count("\n", 0, match.start()) + 1)


def steps(text: str) -> list[Step]:
    """Return what is run of a page, in order."""
    found: list[Step] = []
    waiting: Step | None = None
    for block in blocks(text):
        if block.mark == "printed" and waiting is not None:
            found[-1] = waiting._replace(shown=block.text)
        waiting = None
        if block.mark != "runs":
            continue
        if block.language == "python":
            waiting = Step(block.line, f"{sys.executable} - <<'PAGE'\n{block.text}PAGE", 0, "")
            found.append(waiting)
        elif block.language == "console":
            found.extend(commands(block))
    return found


def commands(block: Block) -> Iterator[Step]:
    """Yield the commands of a console block."""
    for part in re.split(r"^(?=\$ )", block.text, flags=re.MULTILINE):
        if not part.startswith("$ "):
            continue
        match = re.match(r"\$ ((?:[^\n]*\\\n)*[^\n]*)\n", part)
        if match is None:
            raise ValueError(f"line {block.line}: a command without an end")
        exits = EXITS.search(match[1])
        yield Step(block.line, match[1], int(exits[1]) if exits else 0, part[match.end() :])


def play(text: str, home: Path, environ: Mapping[str, str] | None = None) -> list[Done]:
    """Run the steps of a page in one shell whose home is `home`, and return what became of each; raises TimeoutExpired."""
    wanted = steps(text)
    env = {
        key: value
        for key, value in (environ or os.environ).items()
        if key not in ("XDG_STATE_HOME", "XDG_CONFIG_HOME", "EARMARK_LEDGER", "CDPATH")
    }
    env |= {"HOME": str(home), "PATH": f"{Path(sys.executable).parent}:{env.get('PATH', '/usr/bin:/bin')}", "COLUMNS": "100"}
    lines = ["exec 2>&1 </dev/null", f"cd '{home}'", "trap 'kill -9 $(jobs -p) 2>/dev/null' EXIT"]
    for step in wanted:
        lines += [step.command, f"printf '{EDGE}%s{EDGE}' $?"]
    two = sorted(os.sched_getaffinity(0))[:CPUS_OF_A_PAGE]
    pinned = f"import os; os.sched_setaffinity(0, {set(two)}); os.execv('/bin/bash', ['bash', os.environ['PAGE']])"
    script = home / ".page.sh"
    env["PAGE"] = str(script)
    script.write_text("\n".join(lines) + "\n")
    ended = subprocess.run([sys.executable, "-c", pinned], env=env, stdout=subprocess.PIPE, timeout=PAGE_TIMEOUT_S, check=False, cwd=home)
    parts = ended.stdout.decode().split(EDGE)
    return [
        Done(step, int(status), OWN_WORDS.sub("", printed)) for step, printed, status in zip(wanted, parts[0::2], parts[1::2], strict=False)
    ]


def recorded(text: str, done: list[Done]) -> str:
    """Return a page with what its steps printed in place of what it shows."""
    left = iter(done)
    parts: list[str] = []
    at = 0
    after: Done | None = None
    for block in blocks(text):
        body = block.text
        if block.mark == "printed" and after is not None:
            body = after.printed
        after = None
        if block.mark == "runs" and block.language == "python":
            after = next(left)
        elif block.mark == "runs" and block.language == "console":
            body = "".join(f"$ {step.command}\n{next(left).printed}" for step in commands(block))
        parts += [text[at : block.start], re.sub(r"[ \t]+$", "", body, flags=re.MULTILINE)]
        at = block.start + len(block.text)
    return "".join([*parts, text[at:]])


def main(arguments: list[str]) -> int:
    """Record the pages that are named; return 1, and leave a page as it is, if a command of it did not end as it says."""
    wrong = 0
    for name in arguments:
        path = Path(name)
        text = path.read_text()
        with tempfile.TemporaryDirectory(prefix="earmark-page-") as scratch:
            done = play(text, Path(os.environ.get("PAGE_HOME") or scratch))
        bad = [item for item in done if item.status != item.step.status]
        for item in bad:
            print(f"{path}:{item.step.line}: {item.step.command}: exit {item.status}\n{item.printed}")
        if not bad and len(done) == len(steps(text)):
            path.write_text(recorded(text, done))
        else:
            wrong += 1
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
