"""The library in one page: claim, borrow, a question, a refusal, a process that keeps a claim alive.

python examples/library.py        (works on a ledger in a scratch folder)
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import earmark
from earmark.core.model.units import format_bytes
from earmark.errors import Refused

MIB = 1 << 20


def start_the_service() -> None:
    """Fail, as services sometimes do."""
    raise OSError("the service did not start")


def main() -> None:
    """Take, keep, give back."""
    with (
        tempfile.TemporaryDirectory(prefix="earmark-library-") as scratch,
        earmark.open(Path(scratch, "ledger.db"), private=True) as tracker,
    ):
        node = tracker.node()
        print(f"{node.name}: {len(node.machine.cpus) if node.machine else 0} CPUs")
        cpu = earmark.Request(vcpus=1, cpu_policy="dedicated", memory_bytes=16 * MIB)

        # borrow: for the length of the block, whatever happens in it
        with tracker.borrow(cpu, consumer="training") as claim:
            print(f"borrowed CPU {claim.cpuset} on cell {claim.mems}; {len(tracker.node().claims)} claim lives")
        print(f"after the block {len(tracker.node().claims)} claims live")

        # claim: kept if the block ends well, gone if it does not
        try:
            with tracker.claim(cpu, consumer="service"):
                start_the_service()
        except OSError as error:
            print(f"{error}: {len(tracker.node().claims)} claims live")
        with tracker.claim(cpu, consumer="service", ttl_ms=3_600_000) as kept:
            print(f"the service may start on CPU {kept.cpuset}")

        # a question takes nothing; the answer is where, or why not
        answer = tracker.fit(earmark.Request(vcpus=1, memory_bytes=1 << 55))
        if isinstance(answer, earmark.Refusal):
            for reason in answer.reasons:
                print(f"no: {format_bytes(reason.short)} of {reason.resource} short, held by {[h.consumer for h in reason.holders]}")

        # a second main claim of one consumer is refused, and a block that cannot start raises
        try:
            with tracker.borrow(cpu, consumer="service"):
                print("never reached")
        except Refused as refused:
            print(
                f"refused: {[reason.code for reason in refused.refusal.reasons] if isinstance(refused.refusal, earmark.Refusal) else refused}"
            )
        print(f"release: {tracker.release('service').outcome}, and again: {tracker.release(kept.id).message}")

        # a claim that lives as long as a process: the proof of its end is the end of the process
        with tracker.claim(cpu, consumer="worker") as claim:
            worker = subprocess.Popen(["sleep", "60"])
            claim.bind(worker.pid)
        print(f"while it lives, release says: {tracker.release(claim.id).outcome}")
        worker.kill()
        worker.wait()
        tracker.sweep()
        print(f"after its end {len(tracker.node().claims)} claims live, {len(tracker.audit())} findings")


if __name__ == "__main__":
    main()
