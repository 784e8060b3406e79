"""Flavors beside the judge of ../shared: every recorded request, and thousands of random ones, are read as it reads them."""

from __future__ import annotations

import gzip
import json
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.flavor.flavors import as_read, as_translated, judge, random_request

from earmark.core.fit.request import check_request
from earmark.core.flavor.flavor import Flavor, Image
from earmark.core.flavor.translate import translate

REQUESTS = 20_000


def cases(shared: Path) -> Iterator[dict[str, Any]]:
    """Yield the recorded cases."""
    with gzip.open(shared / "oracle" / "fit-dev.jsonl.gz", "rt") as file:
        for line in file:
            yield json.loads(line)


@pytest.mark.long
@pytest.mark.shared
@pytest.mark.rule("N1", "N2", "N3", "N4", "N5", "N6", "N7", "H1", "H6", "P16")
def test_every_recorded_request_is_read_as_nova_reads_it(shared: Path) -> None:
    """Each invalid request of the recorded cases has the error that Nova has, each valid one the guest that the judge reads."""
    check = judge(shared)
    kinds: Counter[object] = Counter()
    for case in cases(shared):
        request, nova = case["request"], case["nova"]
        translated = as_translated(request)
        if nova["stage"] == "constraints":
            assert translated == nova["error"], case["id"]
            kinds[translated] += 1
        else:
            assert translated == as_read(check, request), case["id"]
            assert not isinstance(translated, str), case["id"]
            wish = translate(
                Flavor(vcpus=request["vcpus"], memory_mb=request["memory_mb"], extra_specs=request["extra_specs"]),
                Image(properties=request["image_properties"]),
            )
            check_request(wish)
    assert sum(kinds.values()) == 220
    assert len(kinds) == 24


@pytest.mark.long
@pytest.mark.shared
@pytest.mark.rule("N1", "N2", "N3", "N4", "N5", "N6", "N7", "H1", "H6", "P16")
def test_random_requests_are_read_as_the_judge_reads_them(shared: Path) -> None:
    """Random texts have the error, or the guest, that the judge finds, but for where it looks at the emulator's policy.

    The judge does so before the masks; Nova (virt/hardware.py numa_get_constraints) after the mask of dedicated vCPUs and amid the
    real-time ones, which is the order here. Beside that the judge is looser than Nova: it takes hw:numa_nodes of "02", and ends with
    another error than its own where an amount of memory is no number; no such text is made here.
    """
    check = judge(shared)
    dice = random.Random(4)  # noqa: S311 - no secret is made of it
    count: Counter[str] = Counter()
    for _ in range(REQUESTS):
        request = random_request(dice)
        read, translated = as_read(check, request), as_translated(request)
        if read == "InvalidEmulatorThreadsPolicy" and isinstance(translated, str):
            masks = ("Invalid", "InvalidMixedInstanceDedicatedMask", "RealtimeMaskNotFoundOrInvalid")
            assert translated in (read, *masks), request
            continue
        assert translated == read, request
        count["fault" if isinstance(read, str) else "guest" if isinstance(read, tuple) and read[0] else "floating"] += 1
    assert min(count.values()) > REQUESTS // 50, count
