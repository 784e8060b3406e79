"""Any looks at GPUs beside any claims: what is given is what was last told, and a GPU and its instances are never two claims'."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.gpu.boxes_of_gpus import box, unit
from tests.gpu.test_nvml_ledger import CUT, LOST, UNASKED, asked, gpu, look, told

from earmark.core.model.ids import UnitId
from earmark.core.model.topology import MIG
from earmark.drivers.nvml.facts import Gpu, Seen
from earmark.testing import bench

GPUS = 2
TELLINGS = st.sampled_from(["whole", "cut", "lost", "nowhere", "unlisted"])
LOOKS = st.one_of(st.just(None), st.tuples(TELLINGS, TELLINGS))
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("look"), LOOKS),
        st.tuples(st.just("claim"), st.tuples(st.sampled_from(["gpu", MIG]), st.integers(0, GPUS - 1))),
        st.tuples(st.just("release"), st.integers(0, 3)),
    ),
    max_size=14,
)


def telling(number: int, how: str) -> Gpu | None:
    """Return what NVML tells of a GPU that is whole, cut, lost with or without its address, or not listed."""
    match how:
        case "whole":
            return gpu(number)
        case "cut":
            parts = tuple(replace(part, uuid=part.uuid.replace("-8e94a1c2-", f"-8e94a1c{number + 4}-")) for part in CUT)
            return gpu(number, parts=parts)
        case "lost":
            return gpu(number, failures=(LOST,), uuid=None, memory_bytes=None, mig=None, peers=())
        case "nowhere":
            return gpu(number, failures=(LOST,), uuid=None, memory_bytes=None, mig=None, peers=(), address=None)
    return None


def seen_in(hows: tuple[str, str] | None) -> Seen:
    """Return what NVML tells of all GPUs, or that it was not asked."""
    if hows is None:
        return UNASKED
    return told(each for number, how in enumerate(hows) if (each := telling(number, how)) is not None)


@pytest.mark.long
@settings(max_examples=60)
@given(STEPS)
def test_what_is_given_is_what_was_told_last(steps: list[tuple[str, object]]) -> None:
    """A whole GPU is given only if it was told whole when it was told last, an instance only if it was told; neither of a lost one.

    The auditor at the end sees that no two claims have hardware in common.
    """
    with tempfile.TemporaryDirectory() as folder, bench() as made:
        root = box(Path(folder) / "root", GPUS)
        look(made, root, seen_in(("whole", "whole")))
        known = ["whole", "whole"]
        for word, what in steps:
            if word == "look":
                hows = what if isinstance(what, tuple) else None
                look(made, root, seen_in(hows))
                lost_somewhere = hows is not None and "nowhere" in hows and "unlisted" not in hows
                for number, how in enumerate(hows or ()):
                    if how in ("whole", "cut", "lost") or (how == "nowhere" and lost_somewhere):
                        known[number] = how
            elif word == "claim" and isinstance(what, tuple):
                kind, number = what
                given_units = asked(made, kind=kind, within=(UnitId(unit(number)),))
                assert given_units is None or known[number] == ("whole" if kind == "gpu" else "cut")
            else:
                claims = sorted(made.tracker.node().claims)
                if claims and isinstance(what, int):
                    made.tracker.release(claims[what % len(claims)])
