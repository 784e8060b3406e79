"""The recorded cases: each is answered as the exact search of the recordings, and every placement passes their judge."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

Made = dict[str, Any]
pytestmark = [pytest.mark.shared, pytest.mark.long]


@pytest.fixture(scope="module")
def recorded(shared: Path) -> list[Made]:
    """Give the recorded cases."""
    with gzip.open(shared / "oracle/fit-dev.jsonl.gz") as lines:
        return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def answered(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the file of answers that `earmark fit --cases FILE --json` printed."""
    done = subprocess.run(
        [sys.executable, "-m", "earmark.cli.main", "fit", "--cases", str(shared / "oracle/fit-dev.jsonl.gz"), "--json", "--jobs", "2"],
        capture_output=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")
    path = tmp_path_factory.mktemp("answers") / "answers.jsonl"
    path.write_bytes(done.stdout)
    return path


def test_the_judge_of_the_recordings_finds_nothing_wrong(shared: Path, answered: Path) -> None:
    """fit_check.py accepts every placement, and nothing is refused that is possible."""
    judge = [
        sys.executable,
        str(shared / "oracle/fit_check.py"),
        "--in",
        str(shared / "oracle/fit-dev.jsonl.gz"),
        "--answers",
        str(answered),
    ]
    said = subprocess.run(judge, capture_output=True, check=False, text=True)
    assert said.returncode == 0, said.stdout
    assert "WRONG" not in said.stdout
    assert "refused though possible" not in said.stdout
    assert "refused, as Nova (isolate on SMT)" not in said.stdout
    assert "unanswered" not in said.stdout


def test_every_answer_is_the_exact_one(recorded: list[Made], answered: Path) -> None:
    """What is possible fits, what is not is refused with a checked certificate, an invalid request has Nova's name for it."""
    answers = [json.loads(line) for line in answered.read_text().splitlines()]
    assert [answer["id"] for answer in answers] == [case["id"] for case in recorded]
    trouble = []
    for case, answer in zip(recorded, answers, strict=True):
        error = case["nova"]["error"] if case["nova"]["stage"] == "constraints" else None
        feasible = case["exact"]["feasible"] if case["exact"] is not None else False
        proof = answer["certificate"]
        if (answer["fits"], answer["error"]) != (feasible, error):
            trouble.append(f"{case['id']}: {answer['fits']} {answer['error']}, expected {feasible} {error}")
        elif not feasible and not error and not (proof is not None and proof["verified"] and answer["reasons"]):
            trouble.append(f"{case['id']}: a no without proof")
        elif error and not answer["reasons"]:
            trouble.append(f"{case['id']}: an error without a word")
    assert not trouble, "\n".join(trouble)
