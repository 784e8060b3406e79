"""What all tests share: an environment of their own, and how hard hypothesis works.

Rules of this file: no test reads or writes the ledger, settings or announcements of the person who runs it; no fixture here knows
anything of one room.
"""

from __future__ import annotations

import gc
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from earmark.stores.sqlite.store import SqliteStore
from earmark.tracker.history import audit, verify

SQLITE = b"SQLite format 3\0"
SHARED = Path(__file__).resolve().parents[2] / "shared"

READ_ONLY = {} if os.access(Path.cwd(), os.W_OK) else {"database": None}
"""Where the checkout cannot be written, failing examples are not kept (hypothesis would warn, and a warning is an error)."""
settings.register_profile("default", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow], **READ_ONLY)
settings.register_profile("thorough", deadline=None, max_examples=1000, suppress_health_check=[HealthCheck.too_slow], **READ_ONLY)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


def pytest_configure(config: pytest.Config) -> None:
    """Give the whole run (and every program that it starts) a home, settings and a machine root of its own."""
    for name in [name for name in os.environ if name.startswith("EARMARK_") and not name.startswith("EARMARK_TEST_")]:
        del os.environ[name]
    home = tempfile.TemporaryDirectory(prefix="earmark-tests-")
    config.add_cleanup(home.cleanup)
    for name, folder in (("XDG_STATE_HOME", "state"), ("XDG_CONFIG_HOME", "config"), ("EARMARK_MACHINE_ROOT", "machine")):
        path = Path(home.name, folder)
        path.mkdir(mode=0o700)
        os.environ[name] = str(path)
    os.environ["NO_COLOR"] = "1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, with the reason, what reads ../shared where that is absent."""
    if SHARED.is_dir():
        return
    for item in items:
        if item.get_closest_marker("shared"):
            item.add_marker(pytest.mark.skip(reason="../shared is not beside this checkout"))


def pytest_collection_finish() -> None:
    """Leave what the collection made (four thousand tests and their modules) out of every later garbage collection."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the folder ../shared; only for tests marked `shared`."""
    return SHARED


@pytest.fixture(autouse=True)
def auditor(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let the auditor look, after each test, at every ledger that the test left in its folder; `damaged` tests spoil theirs on purpose."""
    folder = request.getfixturevalue("tmp_path") if "tmp_path" in request.fixturenames else None
    yield
    if folder is None or request.node.get_closest_marker("damaged"):
        return
    for path in sorted(folder.rglob("*.db")):
        if path.is_file() and path.read_bytes()[:16] == SQLITE:
            status = path.stat()
            with SqliteStore(path, gid=status.st_gid if status.st_mode & stat.S_IWGRP else None, create=False) as store:
                errors = [finding for finding in (*audit(store), *verify(store).findings) if finding.severity == "error"]
            assert not errors, f"{path.name}: {errors}"
