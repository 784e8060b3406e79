"""All measurements, one after the other, each in a process of its own; then the page of results."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
BENCHES = (
    "fit_latency",
    "exact_fit",
    "durable",
    "live_claims",
    "audit_beside",
    "many_nodes",
    "moves",
    "open_time",
    "memory",
    "command_line",
)


def main() -> int:
    """Run every bench; return how many failed."""
    failed = 0
    for name in BENCHES:
        failed += subprocess.run([sys.executable, str(HERE / f"{name}.py")], check=False).returncode != 0
    (HERE / "results" / "README.md").write_text(page(), encoding="utf-8")
    return failed


def page() -> str:
    """Return the kept results as a page: what was measured, its goal, and the figures."""
    lines = [
        "# Measurements",
        "",
        "Made by `make bench`. Ratios are against a reference of the same run; absolute times are this machine's.",
        "",
    ]
    for name in BENCHES:
        path = HERE / "results" / f"{name}.json"
        if not path.exists():
            continue
        kept = json.loads(path.read_text(encoding="utf-8"))
        where = f"{kept['machine']}, kernel {kept['kernel']}, Python {kept['python']}, commit {kept['commit']}, {kept['day']}"
        lines += [f"## {name}", "", f"{first_line(name)} Goal: {kept.get('goal', 'none')}.", "", f"On {where}:", ""]
        known = {"bench", "machine", "kernel", "python", "commit", "day", "goal"}
        lines += [f"- {words(key, value)}" for key, value in kept.items() if key not in known | {"rows"}]
        lines += [f"- {', '.join(words(key, value) for key, value in row.items())}" for row in kept.get("rows", ())]
        lines.append("")
    return "\n".join(lines)


def first_line(name: str) -> str:
    """Return what a bench says that it measures."""
    text = ast.get_docstring(ast.parse((HERE / f"{name}.py").read_text(encoding="utf-8")))
    return (text or name).split("\n", maxsplit=1)[0]


def words(key: str, value: object) -> str:
    """Return one figure in words."""
    if isinstance(value, dict):
        return f"{key.replace('_', ' ')}: " + ", ".join(words(inner, figure) for inner, figure in value.items())
    return f"{key.replace('_', ' ')} {value}"


if __name__ == "__main__":
    sys.exit(main())
