"""What a move costs, opened and confirmed, against two claims and two releases; with the events and commits of each."""

from __future__ import annotations

import itertools
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from earmark.core.ledger.commands import Answer
from earmark.core.ledger.life_commands import LifeAnswer
from earmark.core.model.request import Request
from earmark.core.model.units import MIB
from earmark.stores.sqlite.store import SqliteStore
from earmark.testing import UNRESERVED, FaultyStore, bench, machine
from ground import microseconds, quick, report, spread

TIMES = 10 if quick() else 200
ROUNDS = 1 if quick() else 5
SHAPE = "2x8c 64G"
WISH = Request(vcpus=2, cpu_policy="dedicated", memory_bytes=MIB)


def counted(store: FaultyStore, step: Callable[[], object]) -> dict[str, int]:
    """Return how many events one step appends, in how many commits."""
    commits, position = store.commits, store.inner.last_position()
    step()
    return {"events": store.inner.last_position() - position, "commits": store.commits - commits}


def main() -> None:
    """Measure and report, the two in turn."""
    with (
        tempfile.TemporaryDirectory(prefix="earmark-bench-") as name,
        SqliteStore(Path(name, "ledger.db")) as file,
    ):
        store = FaultyStore(file)
        with bench(SHAPE, store=store.as_store(), check=False) as world:
            tracker = world.tracker
            nodes = [str(tracker.node().node), str(tracker.register("second", machine=machine(SHAPE), settings=UNRESERVED).node)]
            held = tracker.hold(WISH, consumer="vm", node=nodes[0], confirm=True)
            if not isinstance(held, Answer):
                raise TypeError(f"refused: {held}")
            destination = itertools.cycle(nodes[::-1])

            def move() -> None:
                opened = tracker.open_move("vm", "migration", to=next(destination))
                if not isinstance(opened, LifeAnswer) or opened.move is None:
                    raise TypeError(f"refused: {opened}")
                tracker.confirm_move(opened.move.id)

            def claims() -> None:
                answers = [tracker.hold(WISH, node=node, confirm=True) for node in nodes]
                for answer in answers:
                    if not isinstance(answer, Answer) or answer.claim_id is None:
                        raise TypeError(f"refused: {answer}")
                    tracker.release(answer.claim_id)

            move()
            claims()
            rows: list[dict[str, Any]] = [{"what": step.__name__, **counted(store, step)} for step in (claims, move)]
            taken: dict[str, list[list[float]]] = {"claims": [], "move": []}
            for _ in range(ROUNDS):
                for step in (claims, move):
                    taken[step.__name__].append(microseconds(step, TIMES))
            for row in rows:
                row["us"] = spread([sample for samples in taken[row["what"]] for sample in samples])
            ratio = statistics.median(
                statistics.median(one) / statistics.median(other) for one, other in zip(taken["move"], taken["claims"], strict=True)
            )
    report("moves", {"goal": "a move within twice the time of two claims and two releases", "ratio": round(ratio, 2), "rows": rows})


if __name__ == "__main__":
    main()
