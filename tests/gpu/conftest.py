"""The stand-in for NVIDIA's library: built once, and described by a text for each test."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

STUB = Path(__file__).with_name("nvml_stub.c")
Describe = Callable[[str], None]


@pytest.fixture(scope="session")
def stub_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build libnvidia-ml.so.1 from its source in this folder; skipped where there is no C compiler."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler here: the stand-in for NVIDIA's library cannot be built (apt-get install gcc libc6-dev)")
    folder = tmp_path_factory.mktemp("nvml")
    command = [compiler, "-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-fvisibility=hidden"]
    subprocess.run([*command, "-o", str(folder / "libnvidia-ml.so.1"), str(STUB)], check=True, timeout=60)
    return folder


@pytest.fixture
def describe(stub_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Describe:
    """Return what describes the GPUs of this machine from now on, in the words of nvml_stub.c."""
    answers = tmp_path / "gpus.txt"
    monkeypatch.setenv("LD_LIBRARY_PATH", str(stub_folder))
    monkeypatch.setenv("EARMARK_TEST_NVML", str(answers))

    def write(text: str) -> None:
        answers.write_text(text)

    return write
