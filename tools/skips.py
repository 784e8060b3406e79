"""Reads the report of a test run and says which tests were skipped and why; fails on a reason that is not expected in CI."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

EXPECTED = {
    r"^\.\./shared is not beside this checkout$": "the folder of captured machines is no part of the project",
    r"^needs two CPUs": "a machine with one CPU has no races to show",
    r"^no writable cgroup": "containers seldom let one write cgroups",
    r"^this kernel has no pidfd": "seccomp filters of old containers refuse pidfd_open",
    r"^may not make namespaces": "containers seldom let one make namespaces",
    r"^may not mount": "containers seldom let one mount",
    r"^runs as root only": "needs root to become two other users",
    r"^runs as an ordinary user only": "root passes every permission check",
    r"^no SMT|^one NUMA cell|^no huge pages": "a fact of the machine that runs the tests",
}
"""The reasons that a CI machine may give; what needs an installed program or more rights than root is not among them."""


def skipped(report: Path) -> list[tuple[str, str]]:
    """Return (test, reason) of the tests that a JUnit report lists as skipped."""
    tree = ET.parse(report)  # noqa: S314 - pytest of this very run wrote it
    return sorted(
        (f"{case.get('classname')}.{case.get('name')}", re.sub(r"^Skipped: ", "", skip.get("message") or ""))
        for case in tree.iter("testcase")
        for skip in case.iter("skipped")
    )


def main(report: str) -> int:
    """Print each skip with its reason; return 1 if one is not expected."""
    strange = 0
    for test, reason in skipped(Path(report)):
        why = next((note for pattern, note in EXPECTED.items() if re.search(pattern, reason)), None)
        strange += why is None
        print(f"skipped {'   ' if why else '!! '}{test}: {reason}{'' if why else '   <- not an expected reason'}")
    return 1 if strange else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
