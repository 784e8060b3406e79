"""What runs and what is in progress, on each node and altogether.

Rules of this file: counted from the states each time and kept nowhere, so that nothing can drift or leak (W35, W44); what a count is of stands
in its name, and nothing is listed of which there is none. An instance is on the node where its main claim is, without claims it is on none.
Names of workload as in Nova 34, compute/stats.py (T1-T4).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from earmark.core.ledger.consumer import ConsumerState
from earmark.core.ledger.figures import Amounts, Counts, Figures, counted_by, figures
from earmark.core.ledger.state import NodeState
from earmark.core.model.claim import Claim
from earmark.core.model.ids import ConsumerId, NodeId
from earmark.core.model.instance import FREEING, Move
from earmark.core.model.value import Value

IO_TASKS = frozenset({
    "resize_migrating", "rebuilding", "resize_prep", "image_snapshot", "image_backup", "rescuing", "unshelving",
})  # fmt: skip
"""The reported tasks that load disks and network (T2)."""
UNREPORTED = "unreported"
"""The state and the kind of an instance of which nobody reported anything: there is only its claim."""


class Workload(Value, frozen=True):
    """What is in progress.

    `io` counts instances by what loads disks and network (T2): their reported task, else `building` (reported so, or a main claim that is
    held), else `unshelving` (an offloaded one that holds a new claim). `tasks` is the number of instances with any task (T3). `moves_in`
    and `moves_out` are open moves by kind that come here and leave here; a move on one host is both.
    """

    io: Counts = ()
    tasks: int = 0
    builds: int = 0
    moves_in: Counts = ()
    moves_out: Counts = ()

    @property
    def io_workload(self) -> int:
        """Nova's io_workload (T2): each instance once."""
        return sum(count for _, count in self.io)


class Population(Value, frozen=True):
    """How many instances there are, and of which kind each. `by_task` lists those with a task."""

    instances: int = 0
    by_state: Counts = ()
    by_task: Counts = ()
    by_owner: Counts = ()
    by_kind: Counts = ()


class NodeStatistics(Value, frozen=True):
    """One node. `population.instances` is Nova's running_vms (C6): all that are here, whatever their state.

    `failed_builds` counts those since the last build that succeeded (T4).
    """

    node: NodeId
    name: str
    host: str
    figures: Figures
    population: Population
    workload: Workload
    failed_builds: int = 0
    disabled: str | None = None
    retired: str | None = None


class FleetStatistics(Value, frozen=True):
    """All nodes together. `nowhere` are instances, not deleted, that have no main claim in this ledger; open moves are counted once each."""

    nodes: int = 0
    used: Amounts = Amounts()
    total: Amounts = Amounts()
    claims: int = 0
    quarantines: int = 0
    population: Population = Population()
    nowhere: Population = Population()
    workload: Workload = Workload()
    moves: Counts = ()
    failed_builds: int = 0


class Statistics(Value, frozen=True):
    """Each node by name, and all of them together."""

    nodes: tuple[NodeStatistics, ...]
    fleet: FleetStatistics


class Placed(NamedTuple):
    """An instance on a node: its main claim, and what is known of it beyond."""

    claim: Claim
    known: ConsumerState | None

    @property
    def state(self) -> str:
        """The reported state."""
        return UNREPORTED if self.known is None else self.known.instance.state

    @property
    def task(self) -> str | None:
        """What is being done to it."""
        return None if self.known is None else self.known.instance.task

    @property
    def owner(self) -> str:
        """Whose it is."""
        return self.claim.owner if self.known is None else self.known.instance.owner

    @property
    def kind(self) -> str:
        """What it is."""
        return UNREPORTED if self.known is None else self.known.instance.kind

    @property
    def building(self) -> bool:
        """Whether its main claim waits to be confirmed: what max_concurrent_builds counts (L17)."""
        return self.claim.phase == "held"

    @property
    def io(self) -> str | None:
        """What it loads disks and network with, if it does (T2)."""
        if self.task in IO_TASKS:
            return self.task
        if self.building and self.state in FREEING:
            return "unshelving"
        return "building" if self.building or self.state == "building" else None


def statistics(states: Iterable[NodeState], consumers: Iterable[ConsumerState]) -> Statistics:
    """Return what runs and what is in progress on some nodes; of several streams of one consumer, or states of one node, the last counts."""
    nodes = sorted({state.node: state for state in states}.values(), key=lambda state: (state.name, state.node))
    known = {state.consumer: state for state in consumers}
    placed = {state.node: placed_on(state, known) for state in nodes}
    here = frozenset(placed)
    moves = [state.move for _, state in sorted(known.items()) if state.move is not None]
    found = tuple(_node(state, placed[state.node], moves) for state in nodes)
    everyone = [one for listed in placed.values() for one in listed]
    away = _away(known, frozenset(one.claim.consumer for one in everyone))
    fleet = FleetStatistics(
        nodes=len(found), used=_sum(one.figures for one in found), total=_sum(one.figures.total for one in found),
        claims=sum(one.figures.claims for one in found), quarantines=sum(one.figures.quarantines for one in found),
        population=population(everyone), nowhere=away, workload=_workload(everyone, _kinds(moves, "in", here), _kinds(moves, "out", here)),
        moves=counted_by(move.kind for move in moves if here.intersection(move.nodes)),
        failed_builds=sum(one.failed_builds for one in found),
    )  # fmt: skip
    return Statistics(nodes=found, fleet=fleet)


def placed_on(state: NodeState, known: Mapping[ConsumerId, ConsumerState]) -> list[Placed]:
    """Return the instances on a node: its main claims. An open move's destination is none, and nothing that an evacuation left behind."""
    return [Placed(claim, _speaks_of(claim, known.get(claim.consumer))) for claim in state.live() if claim.purpose == "main"]


def population(placed: Iterable[Placed]) -> Population:
    """Return how many instances there are, by state, task, owner and kind (T1)."""
    listed = list(placed)
    return Population(
        instances=len(listed), by_state=counted_by(one.state for one in listed),
        by_task=counted_by(one.task for one in listed if one.task is not None), by_owner=counted_by(one.owner for one in listed),
        by_kind=counted_by(one.kind for one in listed),
    )  # fmt: skip


def _speaks_of(claim: Claim, known: ConsumerState | None) -> ConsumerState | None:
    """Return what is known of an instance, None if that is only that an earlier one of the name was deleted."""
    if known is None or (known.instance.state == "deleted" and claim.phase != "draining"):
        return None
    return known


def _node(state: NodeState, placed: list[Placed], moves: list[Move]) -> NodeStatistics:
    here = frozenset({state.node})
    return NodeStatistics(
        node=state.node, name=state.name, host=state.runs_on, figures=figures(state), population=population(placed),
        workload=_workload(placed, _kinds(moves, "in", here), _kinds(moves, "out", here)), failed_builds=state.failed_builds,
        disabled=state.disabled, retired=state.retired,
    )  # fmt: skip


def _workload(placed: list[Placed], moves_in: Counts, moves_out: Counts) -> Workload:
    return Workload(
        io=counted_by(one.io for one in placed if one.io is not None), tasks=sum(1 for one in placed if one.task is not None),
        builds=sum(1 for one in placed if one.building), moves_in=moves_in, moves_out=moves_out,
    )  # fmt: skip


def _kinds(moves: Iterable[Move], way: str, nodes: frozenset[NodeId]) -> Counts:
    """Return the open moves by kind that come to some nodes, or leave them."""
    return counted_by(move.kind for move in moves if (move.destination if way == "in" else move.source) in nodes)


def _away(known: Mapping[ConsumerId, ConsumerState], placed: frozenset[ConsumerId]) -> Population:
    """Return the instances that are on none of the nodes."""
    listed = [state.instance for consumer, state in known.items() if consumer not in placed and state.instance.state != "deleted"]
    return Population(
        instances=len(listed), by_state=counted_by(one.state for one in listed),
        by_task=counted_by(one.task for one in listed if one.task is not None), by_owner=counted_by(one.owner for one in listed),
        by_kind=counted_by(one.kind for one in listed),
    )  # fmt: skip


def _sum(amounts: Iterable[Amounts]) -> Amounts:
    total = Amounts()
    for one in amounts:
        total = total.plus(one)
    return total
