"""A program that writes to a ledger until it is killed or has done its turns; it prints each append once it is acknowledged.

Usage: python -m tests.stores.writer_process LEDGER NAME TURNS [inside]. With `inside` it says "inside" in a transaction and stays there.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from tests.stores.making import A, B, ended, held, registered, stamp

from earmark.core.ledger.codec import Batch
from earmark.stores.sqlite.store import SqliteStore


def say(text: str) -> None:
    """Tell the test that started this."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main(path: Path, name: str, turns: int, *, inside: bool) -> None:
    """Hold and end claims on two nodes in turns."""
    with SqliteStore(path) as store:
        if inside:
            with store.transaction(purpose="a stopped hold"):
                say("inside")
                time.sleep(60)
        say("open")
        for turn in range(turns):
            with store.transaction(purpose=f"turn {turn}", timeout_s=30) as tx:
                for stream in (A, B):
                    claim = f"c-{name}x{turn:05}{stream[-1]}"
                    first = [registered(stream[-1])] if tx.head(stream).sequence == 0 else []
                    events = [*first, held(claim, [f"{name}:{turn % 7}"]), ended(claim)]
                    tx.append([Batch(stream, tx.head(stream).sequence, events)], stamp())
            say(str(turn))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), inside="inside" in sys.argv)
