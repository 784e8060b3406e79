"""Provider configuration files of any kind: what is wrong with one is always the documented error, with its place, and soon."""

from __future__ import annotations

import random
import re
import time
from pathlib import Path

import pytest
from tests.mutations import mutated
from tests.nodes.test_provider_files import GOOD

from earmark.core.model.ids import NodeId
from earmark.core.model.provider import NodeNamed, resolved
from earmark.drivers.provider_files import read_provider_files
from earmark.errors import InvalidRecord
from earmark.testing import bench

MUTATIONS = 2500
SECONDS_MOST = 2.0
PLACE = re.compile(r".*\.yaml(:\d+:\d+)?: .+", re.DOTALL)
SCRAPS = (
    "'", '"', "{", "}", "[", "]", ":", ": ", "- ", "&a ", "*a", "!!int ", "!x ", "|\n", ">\n", "%", "@", "`", "#", "\t", "\n", "\n---\n", "...\n", "<<: ",
    "null", "~", "1e400", "-1", "99999999999999999999", "0x1F", "1_000", "12:30:45", "2001-01-01", ".inf", "\0", "\x85", "\u2028", "\ufeff", "\U0001f600",
    "CUSTOM_", "VCPU", "$COMPUTE_NODE", "total", "schema_version", "? ", "=", "yes", "a" * 300,
)  # fmt: skip


@pytest.mark.long
@pytest.mark.rule("K1", "W28")
def test_a_mutated_file_is_read_or_refused_with_its_place(tmp_path: Path) -> None:
    """2,500 files near a good one end with entries that a node can take, or with InvalidRecord that names the file and the place."""
    luck = random.Random(20261122)  # noqa: S311 - a test that can be repeated
    path = tmp_path / "x.yaml"
    nodes = [
        NodeNamed(NodeId("00000000-0000-4000-8000-000000000001"), "n1"),
        NodeNamed(NodeId("00000000-0000-4000-8000-00000000000b"), "n2"),
    ]
    good = 0
    with bench() as made:
        for number in range(MUTATIONS):
            path.write_bytes(mutated(GOOD, SCRAPS, luck))
            began = time.monotonic()
            try:
                found = resolved(read_provider_files([path]).entries, nodes)
            except InvalidRecord as error:
                assert PLACE.fullmatch(error.message), (number, error.message)
            else:
                good += 1
                made.tracker.provide(found.provided[nodes[0].node])
            assert time.monotonic() - began < SECONDS_MOST, number
    assert 0.02 * MUTATIONS < good < 0.9 * MUTATIONS, good
