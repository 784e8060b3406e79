"""Makes docs/explanation/fits-that-nova-misses.md from a file of recorded cases; --check says whether it is up to date.

    .venv/bin/python -m tools.fits_page FILE.jsonl[.gz] [--check]

Every case is answered here, the answers are held against Nova's verdict and the recording's exact search, and what differs is sorted by what the
case has; the smallest case of each sort is the example.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from earmark.core.fit.cases.answers import answer
from earmark.core.fit.cases.format import read_case
from earmark.core.model.units import counted

Made = dict[str, Any]
PAGE = Path(__file__).resolve().parents[1] / "docs/explanation/fits-that-nova-misses.md"
WISHES = ("small", "large", "any")
PLACES = re.compile(r"Earmark: [^|\n]*")
"""Which of several good places is given is the ranking's business: --check looks past it."""


class Compared(NamedTuple):
    """One recorded case beside our answer; `sort` is what the difference is, "" where there is none."""

    case: Made
    ours: Made
    sort: str


HEAD = """# Fits that Nova misses, and some that it should

<!-- made by tools/fits_page.py from a file of recorded cases; do not edit -->

{total} recorded cases (a host as it is used, a request, the verdict of the real Nova 34, and whether any placement exists, by an exact search) were
answered by Earmark ([how](../howto/fit-cases.md)). Rules and defects are named by their ids in [rules](../reference/rules.md).

| cases | Nova | Earmark |
|---|---|---|
{agreement}
"""
MISSED = """
## What Nova refuses although it fits

The sorts are told apart by what the cases have; the defects beside them are those that are known to refuse such cases.

| cases | what they have in common | why Nova refuses | example |
|---|---|---|---|
{rows}
"""
WRONG = """
## What Nova accepts although it does not fit that way

In {total} cases Nova's own placement breaks a rule that Nova has; {several} are guests of several cells. The search writes into the request while
it tries, and remembers tries under numbers that it has changed (W6). A case counts in each line that applies. In {else_} of them another placement exists, and
Earmark gives that one; it refuses the others.

| cases | what is wrong with Nova's placement | example |
|---|---|---|
{rows}

A guest that is placed so runs without CPUs that it was promised, or on memory and CPUs that are somebody else's.
"""

WHY = {
    "isolate": (
        "`isolate` on cores with siblings, on a host whose CPU sets are configured",
        "N18: there Nova isolates only on cores of one thread; a sibling that is kept idle serves as well",
    ),
    "cells": (
        "several guest cells",
        "W6: what was tried is remembered under numbers that the try itself has changed, and good cells are passed over",
    ),
    "cells and pages": (
        "several guest cells, and a page size to be chosen (`small`, `large`, `any`) that is not the same on all host cells",
        "W6, W21: as above, and the size found at the first try stays in the request",
    ),
    "pages": (
        "one guest cell, and a page size to be chosen that is not the same on all host cells",
        "W21: the size that answers on the first host cell tried is written into the request, and asked of all others",
    ),
    "dropped": (
        "one guest cell, and a card or VDPA device that has all that is asked for but its type",
        "W22: it is counted as an answer while the nearest devices are chosen, and dropped afterwards",
    ),
    "greedy": (
        "device requests that can be met together, though not one after the other",
        "W23: each request takes the first devices that answer it, and leaves nothing for the next",
    ),
    "claim": (
        "device requests of which one could take a card and another its functions",
        "W23: what is promised is counted without this, what is claimed is not: the claim raises PciDeviceRequestFailed",
    ),
    "no pages": ("host cells without page information", "W12: the test passed, counting the guest afterwards raised IndexError"),
    "emulator": (
        "`isolate` with an isolated emulator thread, on a host where nothing is configured",
        "it is refused, or the test passes and counting the guest raises CPUPinningInvalid",
    ),
    "raised": ("guests of unequal cells, one of them without vCPUs", "the search itself raised ValueError"),
}  # fmt: skip
"""For each sort of a missed fit: what the cases have in common, and why Nova refuses."""


def main(arguments: list[str] | None = None) -> int:
    """Make the page, or compare it; return the status."""
    parser = argparse.ArgumentParser(prog="tools.fits_page", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--check", action="store_true")
    asked = parser.parse_args(arguments)
    made = page(compared(asked.file))
    if not asked.check:
        PAGE.write_text(made, encoding="utf-8")
        return 0
    if PLACES.sub("", PAGE.read_text(encoding="utf-8")) == PLACES.sub("", made):
        return 0
    print(f"{PAGE.name} is not what tools/fits_page.py makes of {asked.file}", file=sys.stderr)
    return 1


def compared(file: Path) -> Iterator[Compared]:
    """Yield each case of a file beside our answer."""
    with file.open("rb") as plain:
        lines = gzip.GzipFile(fileobj=plain) if file.suffix == ".gz" else plain
        for line in lines:
            case = json.loads(line)
            found = answer(read_case(line))
            ours = json.loads(msgspec.json.encode({"fits": found.fits, "error": found.error, "cells": found.cells, "pci": found.pci}))
            yield Compared(case, ours, sort_of(case, ours) if ours["fits"] and not case["nova"]["fits"] else "")


def sort_of(case: Made, ours: Made) -> str:
    """Return which sort of missed fit a case is: a key of WHY."""
    nova, specs = case["nova"], case["request"]["extra_specs"]
    if nova["stage"] in ("pci_claim", "pci"):
        return "claim" if nova["stage"] == "pci_claim" else "greedy"
    if nova["stage"] == "usage" and "no-page-info" in case["tags"]:
        return "no pages"
    if nova["error"] == "ValueError":
        return "raised"
    if not case["exact"]["feasible_as_nova_reads_isolate"]:
        return "isolate"
    if nova["stage"] != "usage" and has_several_cells(case):
        return "cells and pages" if sizes_differ(case, ours) else "cells"
    if any(is_dropped(device, request["spec"]) for request in case["request"]["pci_requests"] for device in case["host"]["pci"]):
        return "dropped"
    if sizes_differ(case, ours):
        return "pages"
    return "emulator" if specs.get("hw:emulator_threads_policy") == "isolate" and not case["request"]["pci_requests"] else "greedy"


def sizes_differ(case: Made, ours: Made) -> bool:
    """Say whether a page size is to be chosen for a guest cell, and the largest that suffices is not the same on each host cell."""
    wish = next((tag.removeprefix("page:") for tag in case["tags"] if tag.startswith("page:")), "")
    if wish not in WISHES:
        return False
    for placed in ours["cells"] or ():
        found = set()
        for cell in case["host"]["cells"]:
            sizes = {"small": cell["pages"][:1], "large": cell["pages"][1:], "any": cell["pages"]}[wish]
            kib = placed["memory_mb"] * 1024
            able = [
                each["size_kb"]
                for each in sizes
                if not kib % each["size_kb"] and kib // each["size_kb"] <= each["total"] - each["reserved"] - each["used"]
            ]
            found |= set(able[-1:])
        if len(found) > 1:
            return True
    return False


def has_several_cells(case: Made) -> bool:
    """Say whether the guest has several cells."""
    return any(re.fullmatch(r"guest-cells:([2-9]|[0-9]{2,})", tag) for tag in case["tags"])


def is_dropped(device: Made, spec: list[Made]) -> bool:
    """Say whether a device has all that is asked for but is a card or VDPA device, which must be asked for by type (P9)."""
    has = {**device["tags"], "vendor_id": device["vendor_id"], "product_id": device["product_id"], "dev_type": device["type"]}
    answers = [one for one in spec if all(str(has.get(key)).lower() == str(want).lower() for key, want in one.items())]
    return device["type"] in ("PF", "VDPA") and bool(answers) and not any(one.get("dev_type") == device["type"] for one in spec)


# --- the page -----------------------------------------------------------------------------------------------------------------------


def page(all_of_them: Iterable[Compared]) -> str:
    """Return the page."""
    cases = list(all_of_them)
    total = f"{len(cases):,}"
    return HEAD.format(total=total, agreement="\n".join(_agreement(cases))) + _missed(cases) + _wrong(cases)


def _agreement(cases: list[Compared]) -> Iterator[str]:
    counts: dict[tuple[str, str], int] = {}
    for each in cases:
        nova, exact = each.case["nova"], each.case["exact"]
        if exact is None:
            verdict, mine = "invalid request", "the same name for it" if each.ours["error"] == nova["error"] else "DIFFERS"
        else:
            verdict = "fits" if nova["valid"] else "fits, by a placement that breaks its rules" if nova["fits"] else "does not fit"
            mine = "fits" if each.ours["fits"] else "does not fit, with a certificate"
            mine = mine if each.ours["fits"] is exact["feasible"] else "DIFFERS"
        counts[verdict, mine] = counts.get((verdict, mine), 0) + 1
    for (verdict, mine), count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        yield f"| {count:,} | {verdict} | {mine} |"


def _missed(cases: list[Compared]) -> str:
    rows = []
    for sort, (common, why) in WHY.items():
        found = [each for each in cases if each.sort == sort]
        if found:
            rows.append((len(found), f"| {len(found)} | {common} | {why} | {example(smallest(found))} |"))
    rows.sort(key=lambda row: -row[0])
    return MISSED.format(rows="\n".join(text for _, text in rows))


def _wrong(cases: list[Compared]) -> str:
    broken = [each for each in cases if each.case["nova"]["fits"] and not each.case["nova"]["valid"]]
    kinds: dict[str, list[Compared]] = {}
    for each in broken:
        for kind in sorted({plain(text) for text in each.case["nova"]["violations"]}):
            kinds.setdefault(kind, []).append(each)
    rows = []
    for kind, found in sorted(kinds.items(), key=lambda item: (-len(item[1]), item[0])):
        one = smallest(found)
        said = next(text for text in one.case["nova"]["violations"] if plain(text) == kind)
        rows.append(f"| {len(found)} | {kind} | `{one.case['id']}`: {wish(one.case)}; Nova: {said} |")
    otherwise = sum(1 for each in broken if each.ours["fits"])
    several = sum(1 for each in broken if has_several_cells(each.case))
    return WRONG.format(rows="\n".join(rows), else_=otherwise, total=len(broken), several="all" if several == len(broken) else several)


def plain(violation: str) -> str:
    """Return a violation without its numbers."""
    return re.sub(r" (of )?(cell )?-?[0-9]+( KiB)?", "", re.sub(r"^cell -?\d+ on \d+: ", "", violation))


def smallest(found: list[Compared]) -> Compared:
    """Return the case that is the least to read."""
    return min(
        found, key=lambda each: (len(each.ours["cells"] or ()), len(each.case["host"]["cells"]), each.case["request"]["vcpus"], each.case["id"])
    )  # fmt: skip


def example(one: Compared) -> str:
    """Return a case and our placement in a few words."""
    cells = [
        f"guest cell {each['guest_cell']} on {each['host_cell']}{' (CPUs ' + ', '.join(map(str, each['pcpus'])) + ')' if each['pcpus'] else ''}"
        for each in one.ours["cells"] or ()
    ]
    devices = [", ".join(group) for group in one.ours["pci"]]
    placed = "; ".join([*cells, *devices])
    return f"`{one.case['id']}`: {wish(one.case)}. Earmark: {placed}"


def wish(case: Made) -> str:
    """Return what a case asks for, and of which host."""
    request, host = case["request"], case["host"]
    words = sorted({**request["extra_specs"], **request["image_properties"]}.items())
    said = " ".join(f"{key.removeprefix('hw:').removeprefix('hw_')}={value}" for key, value in words)
    asked = [f"{each['count']} of {'/'.join(' '.join(map(str, one.values())) for one in each['spec'])}" for each in request["pci_requests"]]
    devices = f", devices {' + '.join(asked)}" if asked else ""
    return f"{counted(request['vcpus'], 'vCPU')}, {request['memory_mb']} MiB, `{said or 'no extra specs'}`{devices}, on a host of {counted(len(host['cells']), 'cell')} ({host['shape']}, {host['cpu_mode']})"


if __name__ == "__main__":
    sys.exit(main())
