"""Looks at an environment into which only `pip install .` was done: the command works, and nothing of the development is there."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata, resources
from pathlib import Path

DEVELOPMENT = ("hypothesis", "import-linter", "mypy", "pytest", "PyYAML", "ruff", "types-PyYAML")


def main() -> int:
    """Print what is wrong with the installed package; return 1 if anything is."""
    wrong = [f"{name} came with the base" for name in DEVELOPMENT if any(d.name == name for d in metadata.distributions())]
    package = resources.files("earmark")
    wrong += [f"{name} is not in the wheel" for name in ("py.typed",) if not package.joinpath(name).is_file()]
    if not any(str(file).endswith(".sql") for file in metadata.files("earmark") or ()):
        wrong.append("no numbered migration (.sql) is in the wheel")
    done = subprocess.run([Path(sys.executable).with_name("earmark"), "--version"], capture_output=True, text=True, check=False)
    if done.returncode != 0 or metadata.version("earmark") not in done.stdout:
        wrong.append(f"earmark --version ended with {done.returncode} and said {done.stdout!r} {done.stderr!r}")
    for line in wrong:
        print(line)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
