"""The worker of `Tracker.auditing`: holds one ledger against itself and says what it finds (`python -m earmark.auditor DESCRIPTOR`).

Rules of this file: it reads one view of the ledger and writes nothing but lines of JSON on standard output, the last of which says that it
is complete; it gives way to everybody else; it ends when its time is over or when nobody waits for it any more.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from earmark.core.ledger.consumer import ConsumerState
    from earmark.core.ledger.rows import SlotRow
    from earmark.core.ledger.state import NodeState
    from earmark.core.model.finding import Finding
    from earmark.core.model.ids import ClaimId, StreamId
    from earmark.stores.contract import ClaimRow
    from earmark.tracker.aside import Errand, Line

NICENESS = 10
"""Added to the niceness of whoever starts it: claims and guests come first."""
LOOK_MS = 1000
"""How often the parent is looked for, should its end of the pipe live on in another process."""
ALONE = 3
"""The exit status of a worker that nobody waits for."""


class Given:
    """The rows of a ledger without a file, as they were given."""

    def __init__(self, errand: Errand) -> None:
        self._slots = {each.stream: each.slots for each in errand.images}
        self._rows = {row.claim: row for row in errand.rows}

    def slots(self, stream: StreamId) -> Sequence[SlotRow]:
        """Return the guard rows of a node."""
        return self._slots.get(stream, ())

    def claim(self, claim: ClaimId) -> ClaimRow | None:
        """Return the row of a claim, None if it was not given."""
        return self._rows.get(claim)


def main(descriptor: int) -> None:
    """Carry out the errand that stands in an open file."""
    os.nice(NICENESS)  # before anything is loaded
    import msgspec  # noqa: PLC0415 - see above

    from earmark.errors import EarmarkError  # noqa: PLC0415 - see above
    from earmark.tracker.aside import Ended, Errand, Failed, Found  # noqa: PLC0415 - see above

    with os.fdopen(descriptor, "rb") as file:
        errand = msgspec.json.decode(file.read(), type=Errand)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGALRM])
    signal.setitimer(signal.ITIMER_REAL, errand.timeout_ms / 1000)
    threading.Thread(target=watch, args=(errand.parent,), daemon=True).start()
    count = 0
    try:
        for count, finding in enumerate(found_on(errand), 1):  # noqa: B007 - how many is the last line
            tell(Found(finding=finding))
    except EarmarkError as error:
        tell(Failed(code=error.code, message=error.message))
    else:
        tell(Ended(findings=count))


def found_on(errand: Errand) -> Iterator[Finding]:
    """Yield what is found; raises what keeps the ledger from being read."""
    from earmark.tracker.history import findings, judged  # noqa: PLC0415 - only once this process gives way

    if errand.path is None:
        yield from judged(Given(errand), states_of(errand))
        return
    from pathlib import Path  # noqa: PLC0415 - only for a ledger in a file

    from earmark.stores.sqlite.store import SqliteStore  # noqa: PLC0415 - only for a ledger in a file

    with SqliteStore(Path(errand.path), gid=errand.gid, create=False, write=False) as store:
        yield from findings(store)


def states_of(errand: Errand) -> Iterator[tuple[StreamId, NodeState | ConsumerState]]:
    """Yield the states of the given images; raises InvalidRecord."""
    from earmark.tracker.snapshots import state_in  # noqa: PLC0415 - only once this process gives way

    for each in errand.images:
        yield each.stream, state_in(each.stream, each.image)


def tell(line: Line) -> None:
    """Say one line."""
    import msgspec  # noqa: PLC0415 - only once this process gives way

    sys.stdout.buffer.write(msgspec.json.encode(line) + b"\n")
    sys.stdout.buffer.flush()


def watch(parent: int) -> None:
    """End this process at once when nobody waits for it: the pipe to its parent is closed, or it has another parent."""
    poll = select.poll()
    poll.register(0, select.POLLHUP)
    while os.getppid() == parent and not poll.poll(LOOK_MS):
        pass
    os._exit(ALONE)


if __name__ == "__main__":
    main(int(sys.argv[1]))
