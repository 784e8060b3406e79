"""Reads the report of a test run and says which tests were skipped and why; fails on a reason that is not expected in CI."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

EXPECTED = {
    r"^\.\./shared is not beside this checkout$": "the folder of captured machines is no part of the project",
    r"^needs two CPUs|^one CPU only": "a machine with one CPU has no races to show",
    r"^no writable cgroup|^no (memory|cpuset) cgroup can be had|^/\S*cgroup\S*: ": "containers seldom let one write cgroups",
    r"^cgroups are writable here and cannot be made read-only": "the other way round, and no mount namespace to hide them",
    r"^this system does not let us make namespaces|^no time namespaces here": "containers and old kernels",
    r"^mounting is not allowed here": "containers seldom let one mount",
    r"^this kernel has no pidfd": "seccomp filters of old containers refuse pidfd_open",
    r"^this machine has no machine id": "minimal images have none",
}
"""The reasons that a CI machine may give. CI runs as root on a machine with all programs: what is skipped for want of those fails it."""


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
