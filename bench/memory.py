"""How much memory a live claim costs the process, next to what its stored events weigh. The goal is under 2 KiB a claim."""

from __future__ import annotations

import gc
import tracemalloc

from earmark.core.ledger.commands import Answer
from earmark.core.ledger.state import NodeState
from earmark.core.model.node import NodeSettings
from earmark.core.model.request import Request
from earmark.core.model.units import MIB
from earmark.stores.memory import MemoryStore
from earmark.testing import bench
from ground import quick, report

CLAIMS = 200 if quick() else 10_000
SETTINGS = NodeSettings(reserved_host_memory_bytes=0, reserved_host_disk_bytes=0, cpu_allocation_ratio=1_000_000)
WISHES = {
    "shared": Request(vcpus=1, memory_bytes=16 * MIB),
    "dedicated": Request(vcpus=1, cpu_policy="dedicated", memory_bytes=16 * MIB),
}
SHAPES = {"shared": "2x64c 512G", "dedicated": "8x1024c 8T"}


def kept(kind: str, claims: int) -> dict[str, float]:
    """Return the bytes per claim that the tracker's state keeps, and those of its events."""
    from earmark.core.ledger.state import decode_image, encode_image  # noqa: PLC0415 - beside its only use

    with bench(SHAPES[kind], store=MemoryStore(), settings=SETTINGS, check=False) as world:
        empty = encode_image(world.tracker.node())
        for _ in range(claims):
            answer = world.tracker.hold(WISHES[kind], confirm=True)
            if not isinstance(answer, Answer):
                raise TypeError(f"refused: {answer}")
        full = encode_image(world.tracker.node())
        events = sum(len(stored.raw) for stored in world.store.all_events()) / claims
    gc.collect()
    tracemalloc.start()
    states: list[NodeState] = []
    sizes = []
    for image in (empty, full):
        before = tracemalloc.get_traced_memory()[0]
        states.append(decode_image(image))
        gc.collect()
        sizes.append(tracemalloc.get_traced_memory()[0] - before)
    tracemalloc.stop()
    each = (sizes[1] - sizes[0]) / claims
    return {
        "claims": claims,
        "state_bytes_per_claim": round(each),
        "event_bytes_per_claim": round(events),
        "ratio": round(each / events, 2),
    }


def main() -> None:
    """Measure and report."""
    report(
        "memory", {"goal": "under 2048 bytes a claim", "shared": kept("shared", CLAIMS), "dedicated": kept("dedicated", min(CLAIMS, 8_000))}
    )


if __name__ == "__main__":
    main()
