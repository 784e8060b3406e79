"""What the pages say is run: every block of README, tutorial and how-to that is marked so, and every example."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tools import doc_pages

from earmark.wiring import actor

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted(path for path in (ROOT / "examples").iterdir() if path.suffix in (".sh", ".py") and path.stem != "first_run")
WORDS_FOUND_LEAST = 0.6
EXACT = "<!-- exact: "
CHANGING = (
    (r"\b[cm]-[0-9a-f]{12}\b", "ID"),
    (r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", "UUID"),
    (r"\b((Mon|Tue|Wed|Thu|Fri|Sat|Sun) )?\d\d:\d\d(:\d\d)?\b", "TIME"),
    (r"\b\d{4}-\d\d-\d\d\b", "DATE"),
    (r"\b\d+\.\d s of work|with \d+\.\d ms", "SO LONG"),
    (r"\bCPUs [\d,-]+|(EARMARK_CPUS=|--cpuset-cpus )[\d,-]+", "CPUS"),
    (r"[ ─]+", " "),
)
"""What differs from run to run, and what the box of a page has of the machine that runs it."""
needs_two_cpus = pytest.mark.skipif(
    not {0, 1} <= os.sched_getaffinity(0), reason="needs two CPUs, 0 and 1: the pages claim one of them and share the other"
)


def words(text: str) -> set[str]:
    """Return the words of a text that do not depend on the machine: lower case, four letters or more."""
    return set(re.findall(r"(?<![\w/.-])[a-z]{4,}(?![\w/.-])", text))


def same_lines(text: str, home: Path) -> list[str]:
    """Return the lines of what was printed, in any order, without what differs from run to run."""
    text = re.sub(rf"\b{re.escape(actor())}\b", "ann", text.replace("/home/ann", str(home)))
    for pattern, word in CHANGING:
        text = re.sub(pattern, word, text)
    return sorted(line.strip() for line in text.splitlines() if str(home) not in line)


@needs_two_cpus
@pytest.mark.long
@pytest.mark.parametrize("page", [page for page in doc_pages.pages() if doc_pages.steps(page.read_text())], ids=lambda page: page.stem)
def test_a_page_is_true(page: Path, tmp_path: Path) -> None:
    """Each command of a page ends as the page says, and prints most of the words that the page shows.

    A page that is marked exact plays on a machine that is written down: it shows every line as it is printed.
    """
    text = page.read_text()
    done = doc_pages.play(text, tmp_path)
    assert len(done) == len(doc_pages.steps(text)), f"the shell of {page.name} stopped early"
    for item in done:
        assert item.status == item.step.status, f"{page.name}:{item.step.line}: {item.step.command}\n{item.printed}"
        shown = words(item.step.shown)
        if EXACT in text:
            assert same_lines(item.step.shown, tmp_path) == same_lines(item.printed, tmp_path), (
                f"{page.name}:{item.step.line}: {item.step.command}"
            )
        missing = shown - words(item.printed)
        assert len(missing) <= (1 - WORDS_FOUND_LEAST) * len(shown), (
            f"{page.name}:{item.step.line}: {item.step.command} prints no {sorted(missing)}:\n{item.printed}"
        )


@pytest.mark.parametrize("page", doc_pages.pages(), ids=lambda page: page.stem)
def test_every_block_is_run_or_says_why_not(page: Path) -> None:
    """No block of commands stands in these pages without being run or a reason."""
    bare = [block.line for block in doc_pages.blocks(page.read_text()) if block.language in doc_pages.SHOWN and not block.mark]
    assert bare == []
    wrong = [block.line for block in doc_pages.blocks(page.read_text()) if block.mark == "runs" and block.language == "sh"]
    assert wrong == [], "an sh block is never run: write it as console"


@pytest.mark.long
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_an_example_runs(example: Path, tmp_path: Path) -> None:
    """Each example ends with 0 in a home folder of its own and leaves no scratch folder behind."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    env = {key: value for key, value in os.environ.items() if key not in ("XDG_STATE_HOME", "EARMARK_LEDGER")}
    env |= {"HOME": str(tmp_path), "TMPDIR": str(scratch), "PATH": f"{Path(sys.executable).parent}:{env['PATH']}"}
    program = [sys.executable] if example.suffix == ".py" else ["/bin/bash"]
    ended = subprocess.run([*program, str(example)], env=env, capture_output=True, timeout=120, check=False, cwd=tmp_path)
    assert ended.returncode == 0, ended.stdout.decode() + ended.stderr.decode()
    assert list(scratch.iterdir()) == []


@pytest.mark.long
def test_the_first_run_shows_the_main_job(tmp_path: Path) -> None:
    """examples/first_run.sh shows the machine, who holds a CPU, a refusal, a confined command, a drained claim and a clean ledger."""
    env = os.environ | {"TMPDIR": str(tmp_path), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    ended = subprocess.run(["/bin/bash", str(ROOT / "examples/first_run.sh")], env=env, capture_output=True, timeout=120, check=True)
    said = ended.stdout.decode()
    for part in (
        "is held by db",
        "does not fit",
        "Cpus_allowed_list",
        "draining (holder_gone)",
        "its processes are gone",
        "clean:",
        "every link holds",
    ):
        assert part in said, f"{part!r} is not in\n{said}"
    assert list(tmp_path.iterdir()) == [], "the scratch ledger is left behind"


@needs_two_cpus
@pytest.mark.long
def test_the_first_run_works_on_one_cpu(tmp_path: Path) -> None:
    """Confined to one CPU, the first run still claims, runs, kills and ends with 0."""
    one = min(os.sched_getaffinity(0))
    env = os.environ | {"TMPDIR": str(tmp_path), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    script = f"import os; os.sched_setaffinity(0, {{{one}}}); os.execv('/bin/bash', ['bash', {str(ROOT / 'examples/first_run.sh')!r}])"
    ended = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stdout.decode() + ended.stderr.decode()
    assert "not allowed to this process" in ended.stdout.decode()
