"""The floors are laid as ARCHITECTURE.md says, and a wrong import is caught."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.house.sources import ROOT

WRONG = {
    "earmark/core/model/wrong_up.py": "from earmark.settings import Settings\n",
    "earmark/core/model/wrong_inner.py": "from earmark.core.ledger.events import Event\n",
    "earmark/core/fit/wrong_world.py": "import time\n",
    "earmark/core/fit/wrong_disk.py": "from pathlib import Path\n",
    "earmark/stores/wrong_sibling.py": "from earmark.drivers.contract import Observation\n",
    "earmark/tracker/wrong_store.py": "from earmark.stores.sqlite.store import SqliteStore\n",
    "earmark/tracker/wrong_place.py": "from earmark.stores.place import Place\n",
    "earmark/drivers/wrong_heavy.py": "import structlog\n",
    "earmark/tracker/wrong_database.py": "import apsw\n",
    "earmark/unlisted.py": "",
}
BROKEN = [
    "The floors",
    "Inside core",
    "core touches nothing of the world",
    "Only the composition root knows",
    "The tracker is told where the ledger is",
    "Heavy libraries stay",
    "One database library",
]


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run import-linter with the project's contracts on the package in a folder."""
    command: list[str | Path] = [
        Path(sys.executable).with_name("lint-imports"),
        "--config",
        ROOT / "pyproject.toml",
        "--no-cache",
        "--no-logo",
    ]
    return subprocess.run(command, cwd=folder, env={"PYTHONPATH": str(folder), "PATH": ""}, capture_output=True, text=True, check=False)


@pytest.mark.long
@pytest.mark.rule("W3")
def test_the_floors_hold() -> None:
    """The project's imports look down only."""
    done = lint(ROOT / "src")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.long
def test_wrong_imports_are_caught(tmp_path: Path) -> None:
    """In a copy with one wrong import for each contract, every contract is broken and every wrong file is named."""
    shutil.copytree(ROOT / "src/earmark", tmp_path / "earmark", ignore=shutil.ignore_patterns("__pycache__"))
    for name, text in WRONG.items():
        (tmp_path / name).write_text(text)
    done = lint(tmp_path)
    assert done.returncode == 1
    kept = [contract for contract in BROKEN if not any(line.startswith(contract) and "BROKEN" in line for line in done.stdout.splitlines())]
    assert kept == [], done.stdout
    unnamed = [name for name in WRONG if name.removesuffix(".py").replace("/", ".") not in done.stdout and name != "earmark/unlisted.py"]
    assert unnamed == [], done.stdout
    assert "unlisted" in done.stdout
