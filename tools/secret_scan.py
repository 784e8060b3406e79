"""Looks through every tracked file for what must not be there: secrets, places of one person's machine, hosts of private registries.

A finding that is none is allowed by the words `scan: allowed` and a reason on the same line.
"""

from __future__ import annotations

import math
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
ALLOWED = re.compile(r"scan: allowed\s*[-:,]?\s*\S+")
FILE_BYTES_MAX = 4 * 1024 * 1024
ENTROPY_LEAST = 4.4
LOOKS_RANDOM = re.compile(r"(?<![\w/+.-])(?=[\w+/=-]*[A-Z])(?=[\w+/=-]*[a-z])(?=[\w+/=-]*[0-9])[A-Za-z0-9+/_-]{32,200}={0,2}(?![\w/+.-])")
PATTERNS = {
    "a private key": re.compile(r"-----BEGIN (?:[A-Z ]+ )?PRIVATE KEY"),
    "a cloud key": re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|\bAIza[0-9A-Za-z_-]{35}\b"),
    "a forge or chat token": re.compile(r"\b(?:gh[pousr]_[0-9A-Za-z]{30,}|glpat-[0-9A-Za-z_-]{18,}|xox[abprs]-[0-9A-Za-z-]{10,}|pypi-[0-9A-Za-z_-]{40,})"),
    "a signed token": re.compile(r"\beyJ[0-9A-Za-z_-]{10,}\.[0-9A-Za-z_-]{10,}\.[0-9A-Za-z_-]{5,}"),
    "a password in an address": re.compile(r"[a-z][a-z0-9+.-]*://[^\s/:@{}<>\"']+:[^\s/@{}<>\"']+@"),
    "a password in an assignment": re.compile(r"(?i)\b(?:password|passwd|secret|token|api_?key)\b[\"']?\s*[:=]\s*[\"'][^\"'\s{}<>]{8,}[\"']"),
    "a workplace's path": re.compile(r"/wor[k]/(?:main|shared)\b|/tm[p]/plan\b|/op[t]/(?:pypi|wheels)|/hom[e]/(?!alice|bob|USER)[a-z]\w+/(?:src|git|work|code)"),
    "a private registry": re.compile(r"https?://(?!pypi\.org|files\.pythonhosted\.org)[^\s/\"']*(?:pypi|artifactory|nexus|registry|mirror)[^\s/\"']*"),
}  # fmt: skip


class Found(NamedTuple):
    """Something that looks like what must not be there; the text itself is not repeated."""

    path: str
    line: int
    what: str


def entropy(text: str) -> float:
    """Return the Shannon entropy of a text's letters, in bits a letter."""
    counts = Counter(text)
    return -sum(n / len(text) * math.log2(n / len(text)) for n in counts.values())


def scan_text(path: str, text: str) -> Iterator[Found]:
    """Yield what a text holds that it must not."""
    for number, line in enumerate(text.splitlines(), start=1):
        if ALLOWED.search(line):
            continue
        for what, pattern in PATTERNS.items():
            if pattern.search(line):
                yield Found(path, number, what)
        if any(entropy(match[0]) >= ENTROPY_LEAST for match in LOOKS_RANDOM.finditer(line)):
            yield Found(path, number, "a string that looks random")


def tracked(root: Path) -> list[str]:
    """Return the files that git tracks; in a tree without git, all files that are not hidden."""
    if (root / ".git").exists():
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, check=True, capture_output=True).stdout.decode()
        return sorted(name for name in listed.split("\0") if name)
    inside = (path.relative_to(root) for path in root.rglob("*") if path.is_file())
    return sorted(str(path) for path in inside if not any(part.startswith(".") for part in path.parts))


def scan(root: Path) -> list[Found]:
    """Return everything found in the tracked files of a tree."""
    found: list[Found] = []
    for name in tracked(root):
        path = root / name
        if path.is_symlink() or not path.is_file():
            continue
        if path.stat().st_size > FILE_BYTES_MAX:
            found.append(Found(name, 0, f"a file above {FILE_BYTES_MAX} bytes, which is not looked through"))
            continue
        found.extend(scan_text(name, path.read_bytes().decode("utf-8", "replace")))
    return found


def main() -> int:
    """Print what was found; return 1 if anything was."""
    found = scan(ROOT)
    for item in found:
        print(f"{item.path}:{item.line}: {item.what}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
