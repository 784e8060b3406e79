"""`earmark claim` starts fast: what it imports is counted, and nothing heavy is among it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

IMPORTS_MAX = 250
"""A bare Python imports about 30; `earmark claim` stays under ten times the time of `python3 -c pass` with about 220."""
HEAVY = {
    "aiohttp", "asyncio", "concurrent", "ctypes", "dataclasses", "email", "fastapi", "http", "httpx", "logging", "multiprocessing",
    "numpy", "packaging", "pkg_resources", "psycopg", "pydantic", "pygments", "requests", "rich", "selectors", "setuptools",
    "socket", "sqlalchemy", "sqlite3", "ssl", "starlette", "structlog", "subprocess", "tempfile", "tomllib", "unittest",
    "urllib3", "uvicorn", "xml", "yaml",
}  # fmt: skip
START = "import sys; from earmark.cli.main import main; sys.argv = sys.argv[1:]; main()"


def imported_by(tmp_path: Path, *command: str) -> list[str]:
    """Return the modules that a command line imports, in order, with a ledger that exists and a machine that is known."""
    environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path)}
    run = [sys.executable, "-X", "importtime", "-c", START, *command]
    subprocess.run([sys.executable, "-c", START, "earmark", "list"], env=environment, check=True, capture_output=True)
    done = subprocess.run(run, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [line.rsplit("|", 1)[1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")]
    return [line for line in lines if line != "imported package"]


@pytest.mark.long
def test_a_claim_imports_nothing_heavy(tmp_path: Path) -> None:
    """The path of `earmark claim` imports none of the libraries that cost more than they give, and few modules in all."""
    modules = imported_by(tmp_path, "earmark", "claim", "--cpus", "1", "--consumer", "x")
    heavy = sorted({module for module in modules if module.split(".")[0] in HEAVY})
    assert heavy == []
    assert len(modules) <= IMPORTS_MAX, f"{len(modules)} modules: {' '.join(modules)}"
    assert any(module == "earmark.stores.sqlite.store" for module in modules), "it did not even open the ledger"
