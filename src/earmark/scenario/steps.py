"""What a scenario is made of: one frozen struct for each kind of step, and for each thing that can be expected.

Rules of this file: a step is what its line says and nothing else; names are as written, and looked up when it is carried out.
"""

from typing import Literal

from earmark.core.model.instance import InstanceState, MoveKind
from earmark.core.model.request import Request
from earmark.core.model.topology import Machine
from earmark.core.model.value import Value

Figure = tuple[int, int, int]
"""vCPUs, MB, GB, as the trade writes them: 2/2048/20."""
UnitWord = Literal["pins", "emulator", "devices", "cells", "pages"]
NodeWord = Literal["enabled", "disabled", "retired", "same", "home"]
NodeHow = Literal["disable", "enable", "retire", "restore", "report", "rehome", "came-back"]
ClaimHow = Literal["claim", "build", "attach", "unshelve"]
EndHow = Literal["confirm", "abort", "release", "detach"]
MoveEnd = Literal["finish", "confirm", "revert", "abort", "drop source", "drop destination"]
Verdict = Literal["stale", "contradictory", "unknown", "invalid"]
OuterHow = Literal["away", "back", "publish", "holds", "heal"]


class Flavor(Value, frozen=True, kw_only=True):
    """What an instance of a name asks for."""

    name: str
    request: Request


# --- what a step is to lead to --------------------------------------------------------------------------------------------------------


class Done(Value, frozen=True, tag="done"):
    """It is carried out and changes something: what a step says that says nothing."""


class Already(Value, frozen=True, tag="already"):
    """It is answered and changes nothing; the answer contains `text`."""

    text: str = ""


class Refused(Value, frozen=True, tag="refused"):
    """It is refused; one of the reasons has this code, and one says `text`."""

    code: str
    text: str = ""


class Failed(Value, frozen=True, tag="failed"):
    """It ends with an error of this code (`unknown-node`), whose message contains `text`."""

    code: str
    text: str = ""


class Dies(Value, frozen=True, tag="dies"):
    """The program dies before the append is committed, or after it and before anybody is told; then it is opened again."""

    when: Literal["before", "after"]


class Granted(Value, frozen=True, tag="granted"):
    """Of the racing steps exactly so many are granted, the others refused."""

    count: int


class Judged(Value, frozen=True, kw_only=True, tag="judged"):
    """A record from outside is found to be this, and nothing changes; the reason contains `text`."""

    kind: Verdict
    text: str = ""


Result = Done | Already | Refused | Failed | Dies | Granted | Judged

# --- what can be expected -------------------------------------------------------------------------------------------------------------


class NodeFigure(Value, frozen=True, tag="figure"):
    """The figures of a node: reserved and all live claims; disk rounded up once."""

    node: str
    figure: Figure


class HostFigure(Value, frozen=True, kw_only=True, tag="host"):
    """The figures of a host: those of all nodes that it runs."""

    host: str
    figure: Figure


class NodeCount(Value, frozen=True, tag="count"):
    """A number of a node: `what` is pins, failed_builds, devices, claims, or a resource class in use."""

    node: str
    what: str
    count: int


class NodeFree(Value, frozen=True, tag="free"):
    """How many devices of a kind, or how much of a class, a node could still give."""

    node: str
    what: str
    count: int


class NodeIs(Value, frozen=True, tag="node"):
    """A node is enabled, disabled or retired, of a host, or the one it was (uuid)."""

    node: str
    what: NodeWord


class ConsumerOn(Value, frozen=True, tag="on"):
    """Where a consumer's main claim is (None: nowhere): its host, as Nova says."""

    consumer: str
    node: str | None


class ConsumerState(Value, frozen=True, tag="state"):
    """The reported state of a consumer."""

    consumer: str
    state: InstanceState


class Units(Value, frozen=True, tag="units"):
    """The CPUs or devices that a consumer holds on a node (None: anywhere): so many, exactly these, or the remembered ones."""

    consumer: str
    what: UnitWord
    node: str | None = None
    count: int | None = None
    units: tuple[str, ...] | None = None
    remembered: str | None = None
    differ: bool = False


class Disjoint(Value, frozen=True, tag="disjoint"):
    """Two consumers hold no unit together, and each holds something."""

    consumers: tuple[str, ...]


class MoveIs(Value, frozen=True, tag="move"):
    """The status of a move, as its legs tell it."""

    move: str
    status: str


class Found(Value, frozen=True, tag="finding"):
    """The last audit found this (`code` None: nothing at all)."""

    code: str | None
    node: str | None = None


class Allocated(Value, frozen=True, kw_only=True, tag="allocation"):
    """What a consumer or move has at a node (None: at no node) as an outer ledger would be told, or (`outer`) as it has it.

    `amounts` by resource class; None: whatever it is.
    """

    holder: str
    is_move: bool = False
    outer: bool = False
    node: str | None = None
    amounts: tuple[tuple[str, int], ...] | None = None


Check = (
    NodeFigure | HostFigure | NodeCount | NodeFree | NodeIs | ConsumerOn | ConsumerState | Units | Disjoint | MoveIs | Found | Allocated
)  # fmt: skip

# --- the steps ------------------------------------------------------------------------------------------------------------------------


class Step(Value, frozen=True, kw_only=True):
    """One line: where it stands, what it says, and what it is to lead to."""

    line: int
    text: str
    result: Result = Done()


class MakeNode(Step, frozen=True, kw_only=True):
    """A node enters the ledger with its machine and settings; a node that is there already is reported again."""

    node: str
    machine: Machine
    settings: tuple[str, ...] = ()
    host: str | None = None


class SetNode(Step, frozen=True, kw_only=True):
    """Settings of a node change."""

    node: str
    settings: tuple[str, ...]


class KeepNode(Step, frozen=True, kw_only=True):
    """A node is disabled, enabled, retired, restored, reported again, taken to another host, or back after an evacuation."""

    how: NodeHow
    node: str
    reason: str = ""
    host: str | None = None


class Claim(Step, frozen=True, kw_only=True):
    """A consumer claims on a node. `build`: the claim is confirmed and the instance reported active."""

    consumer: str
    node: str
    request: Request
    name: str
    how: ClaimHow = "claim"
    ttl_ms: int | None = None
    pid: int | None = None


class EndClaim(Step, frozen=True, kw_only=True):
    """A claim is confirmed, aborted, released or detached. `what` is its name, or its consumer's."""

    how: EndHow
    what: str


class ReportState(Step, frozen=True, kw_only=True):
    """Whoever runs an instance says what state it is in."""

    consumer: str
    state: InstanceState
    task: str | None = None


class OpenMove(Step, frozen=True, kw_only=True):
    """A move begins. `to` None: on the node where it is."""

    kind: MoveKind
    consumer: str
    to: str | None
    request: Request | None
    name: str
    ttl_ms: int | None = None


class EndMove(Step, frozen=True, kw_only=True):
    """A move is finished, confirmed, reverted, aborted, or one side of it dropped. `what` is its name, or its consumer's."""

    how: MoveEnd
    what: str


class Audit(Step, frozen=True, kw_only=True):
    """Every node (or one) is looked at and the ledger held against itself; `fails` where a reading fails half-way."""

    node: str | None = None
    fails: Literal["driver", "store", "publication"] | None = None


class Hardware(Step, frozen=True, kw_only=True):
    """A device leaves a machine, or a new one of a kind comes into it; what the tracker knows of it, it learns at the next audit."""

    node: str
    what: str
    there: bool


class Guest(Step, frozen=True, kw_only=True):
    """The host of a node runs a guest that the ledger may not know; `request` None: it runs it no more."""

    guest: str
    node: str
    request: Request | None


class Record(Step, frozen=True, kw_only=True):
    """A compute service says something of an instance or a move: fields as written."""

    kind: Literal["instance", "move"]
    name: str
    fields: tuple[tuple[str, str], ...]


class Listing(Step, frozen=True, kw_only=True):
    """A compute service lists all instances that it has on a node."""

    node: str
    consumers: tuple[str, ...]


class Outer(Step, frozen=True, kw_only=True):
    """The outer ledger goes away, is back, is told what it was not told of yet, has an allocation of somebody else, or is healed."""

    how: OuterHow
    holder: str = ""
    is_move: bool = False
    node: str = ""
    first: bool = False


class Wait(Step, frozen=True, kw_only=True):
    """Time passes, then what is due takes effect."""

    ms: int


class Dead(Step, frozen=True, kw_only=True):
    """A process is gone."""

    pid: int


class Reopen(Step, frozen=True, kw_only=True):
    """The program dies and is opened again; with `orderly` it is closed before."""

    orderly: bool = False


class Race(Step, frozen=True, kw_only=True):
    """Several steps at once, each in a thread of its own."""

    steps: tuple[Step, ...]


class Remember(Step, frozen=True, kw_only=True):
    """Keep the CPUs or devices of a consumer under a name."""

    what: UnitWord
    consumer: str
    name: str


class Expect(Step, frozen=True, kw_only=True):
    """What must be true now."""

    checks: tuple[Check, ...]


# --- the whole ------------------------------------------------------------------------------------------------------------------------


class Variant(Value, frozen=True, kw_only=True):
    """One course of a scenario, from an empty ledger; `title` "" where a scenario has one course only."""

    title: str
    steps: tuple[Step, ...]


class Scenario(Value, frozen=True, kw_only=True):
    """A scenario file: `id` (S11), its title, what Nova does instead ("" if it does not say), and its courses."""

    id: str
    title: str
    nova: str
    source: str
    variants: tuple[Variant, ...]
    flavors: tuple[Flavor, ...] = ()
