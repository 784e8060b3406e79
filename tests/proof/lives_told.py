"""How a walk says things to a tracker: with commits that fail before or after, programs that die, and everything said again."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from tests.proof.lives_opinion import (
    PLAIN,
    SETTINGS,
    SHAPES,
    Opinion,
)

from earmark.core.ledger.commands import ConfigureNode, ObserveMachine, RegisterNode
from earmark.core.model.ids import NodeId
from earmark.errors import Conflict, EarmarkError, InvalidRequest, LedgerUnavailable, UnknownClaim, UnknownMove
from earmark.stores.contract import Store
from earmark.testing import FaultyStore, GivenClock, GivenHost, GivenProcesses, machine, on
from earmark.tracker.leases import Leases
from earmark.tracker.tracker import Tracker
from earmark.tracker.writer import Writer


class Died(BaseException):
    """The program dies here."""


class Told:
    """A ledger of three nodes, the tracker that is open on it now, and what was said to it."""

    def __init__(self, seed: int, store: Store) -> None:
        self.seed = seed
        self.rnd = Random(seed)  # noqa: S311 - a test case, not a secret
        self.store = store
        self.faulty = FaultyStore(store)
        self.clock, self.processes = GivenClock(), GivenProcesses()
        self.host = GivenHost(machine(SHAPES["n1"]))
        self.world = on(self.faulty.as_store(), self.host, self.clock, self.processes, SETTINGS)
        self.ids: dict[str, NodeId] = {"n1": self.world.tracker.home}
        for number, name in enumerate(("plain", "tiny"), 2):
            self.ids[name] = NodeId(f"00000000-0000-4000-8000-{number:012d}")
            for command in (
                RegisterNode(node=self.ids[name], name=name),
                ObserveMachine(node=self.ids[name], machine=machine(SHAPES[name])),
                ConfigureNode(node=self.ids[name], settings=PLAIN),
            ):
                self.world.tracker._writer.submit(command)
        self.opinion = Opinion()
        self.number = 0
        self.steps = 0
        self.trace: list[str] = []
        self.serials: dict[str, int] = {}

    @property
    def tracker(self) -> Any:
        """The tracker that is open now."""
        return self.world.tracker

    def said(self, text: str) -> None:
        """Write down what a step does."""
        self.trace[-1] += " " + text

    def say(self, command: Callable[[], Any]) -> tuple[Any, bool]:
        """Say a command whose commit may fail or kill the program, then again; returns its answer or error, and whether it is the first one."""
        fault = self.rnd.choices(("", "before", "after"), (8, 1, 1))[0]
        if not fault:
            return self.answer(command), True
        before = self.heads()
        dies = self.rnd.random() < 0.4
        self.said(f"[{'dies' if dies else 'fails'} {fault} the commit]")

        def strike() -> None:
            self.faulty.before_commit = self.faulty.after_commit = int
            if dies:
                raise Died
            raise LedgerUnavailable("the disk fails in this test")

        if fault == "before":
            self.faulty.before_commit = strike
        else:
            self.faulty.after_commit = strike
        struck = False
        found: Any = None
        try:
            found = self.answer(command, (LedgerUnavailable,))
        except Died:
            struck = True
            self.begin_anew()
        struck = struck or isinstance(found, LedgerUnavailable)
        self.faulty.before_commit = self.faulty.after_commit = int
        if not struck:
            return found, True
        first = self.heads() == before
        assert first or fault == "after", "a commit that failed has changed something"
        return self.answer(command), first

    def begin_anew(self) -> None:
        """Let another program open the ledger, which knows nothing but that."""
        self.faulty = FaultyStore(self.store)
        store = self.faulty.as_store()
        old = self.tracker
        writer = Writer(store, self.clock, actor="tester", epoch=1, boot_id=self.host.boot, timeout_s=10.0)
        tracker = Tracker(store, writer, Leases(self.processes), self.host, self.clock, home=old.home, terms=old.terms, monitor=self.host)
        self.world = self.world._replace(tracker=tracker, store=store)

    def answer(self, command: Callable[[], Any], more: tuple[type[EarmarkError], ...] = ()) -> Any:
        """Return the answer, or the error that is an answer too."""
        try:
            return command()
        except EarmarkError as error:
            if not isinstance(error, (Conflict, InvalidRequest, UnknownClaim, UnknownMove, *more)):
                raise
            return error

    def heads(self) -> dict[str, int]:
        """Return how far each stream is."""
        return {stream: head.sequence for stream, head in self.store.heads().items()}

    def unchanged(self, command: Callable[[], Any]) -> Any:
        """Say something that is so already: an answer that changes nothing (I4)."""
        before = self.heads()
        found = self.answer(command)
        assert self.heads() == before
        assert not getattr(found, "changed", False)
        return found
