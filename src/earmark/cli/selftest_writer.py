"""The writer that selftest kills: claims and releases as fast as it can, and says each answer aloud only after it has it.

Rules of this file: a line on standard output is an acknowledgement: `+ CLAIM` held, `- CLAIM` released. What was said must be in the ledger
whatever happens to this process afterwards.
"""

from __future__ import annotations

import sys
from typing import NoReturn

import earmark
from earmark.core.model.refusal import Refusal
from earmark.core.model.request import Request

EXCLUSIVE = Request(vcpus=1, cpu_policy="dedicated", memory_bytes=4096)
ORDINARY = Request(memory_bytes=4096)


def write(ledger: str) -> NoReturn:
    """Claim and release on a ledger until killed."""
    with earmark.open(ledger, private=True) as tracker:
        while True:
            answer = tracker.hold(EXCLUSIVE, confirm=True)
            if isinstance(answer, Refusal):
                answer = tracker.hold(ORDINARY, confirm=True)
            if isinstance(answer, Refusal):
                raise SystemExit(f"the ledger of the test is full: {answer.reasons[0]}")
            say("+", str(answer.claim_id))
            tracker.release(str(answer.claim_id))
            say("-", str(answer.claim_id))


def say(sign: str, claim: str) -> None:
    """Acknowledge one answer."""
    sys.stdout.write(f"{sign} {claim}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    write(sys.argv[1])
