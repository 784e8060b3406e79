"""The world in which a scenario runs: where its ledger rests, a clock, a host for each node, processes, and the tracker on all of it.

Rules of this file: everything is given and nothing is real; a crash leaves the open ledger as it is and opens it anew; the ledger is the
scenario's own and never a user's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from msgspec.structs import replace

from earmark.core.ledger.commands import Answer
from earmark.core.ledger.consumer import ConsumerState
from earmark.core.ledger.state import NodeState
from earmark.core.model import ids
from earmark.core.model.claim import Claim
from earmark.core.model.guest import Guest
from earmark.core.model.ids import ClaimId, ConsumerId, NodeId
from earmark.core.model.node import NodeSettings
from earmark.core.model.request import Request
from earmark.core.model.topology import Device, Machine
from earmark.errors import HostUnavailable, InvalidRequest, LedgerUnavailable
from earmark.scenario.given import FaultyStore, GivenClock, GivenHost, GivenProcesses
from earmark.scenario.outer import OuterLedger, Publisher
from earmark.stores.contract import Store
from earmark.tracker.leases import Leases
from earmark.tracker.questions import Terms
from earmark.tracker.tracker import Tracker
from earmark.tracker.writer import Writer

UNRESERVED = NodeSettings(reserved_host_memory_bytes=0, reserved_host_disk_bytes=0)
"""What a node of a scenario keeps back unless it says otherwise: nothing."""
HOLD_TIMEOUT_MS = 600_000
DRAIN_GRACE_MS = 60_000
ACTOR = "scenario"

Settle = Callable[[NodeSettings, Iterable[str]], NodeSettings]
"""How KEY=VALUE becomes settings of a node: `earmark node set` has one."""


class Opener(NamedTuple):
    """Where the ledger of a scenario rests: `open` opens it, the same one each time; `lasting` if it outlives being closed."""

    open: Callable[[], Store]
    lasting: bool


class Died(BaseException):
    """The program dies here: nobody is to catch it but the scenario."""


class Book(FaultyStore):
    """The store of a scenario: it lets the program die around a commit, and fails to read after some reads."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.reads_left: int | None = None

    def __getattr__(self, name: str) -> Any:
        self._count(name)
        return getattr(self.inner, name)

    @contextmanager
    def reading(self) -> Iterator[Any]:
        """Enter the inner store's view; reading from it is counted too."""
        self._count("reading")
        with self.inner.reading() as reader:
            yield _Counted(reader, self._count)

    def _count(self, name: str) -> None:
        if self.reads_left is None or name in ("name", "writable"):
            return
        if self.reads_left <= 0:
            raise LedgerUnavailable(f"{name} of the ledger fails in this scenario")
        self.reads_left -= 1


class _Counted:
    """A reader whose reads are counted."""

    def __init__(self, inner: Any, count: Callable[[str], None]) -> None:
        self._inner = inner
        self._count = count

    def __getattr__(self, name: str) -> Any:
        self._count(name)
        return getattr(self._inner, name)


class World:
    """All that a course of a scenario holds in its hand; made for one course and dropped after it."""

    def __init__(self, opener: Opener, settle: Settle) -> None:
        self.opener = opener
        self.settle = settle
        self.clock = GivenClock()
        self.processes = GivenProcesses()
        self.hosts: dict[str, GivenHost] = {}
        self.ids: dict[str, NodeId] = {}
        self.claims: dict[str, ClaimId] = {}
        self.moves: dict[str, str] = {}
        self.remembered: dict[str, tuple[str, ...]] = {}
        self.guests: dict[str, dict[str, Request]] = {}
        self.outer = OuterLedger()
        self.opened: list[Store] = []
        self.book = Book(self._open())
        self._tracker: Tracker | None = None
        self._publisher: Publisher | None = None
        self._numbers = 0

    # --- the program ----------------------------------------------------------------------------------------------------------------

    @property
    def tracker(self) -> Tracker:
        """The tracker; raises InvalidRequest before the first node is there."""
        if self._tracker is None:
            raise InvalidRequest("a scenario begins with a node")
        return self._tracker

    @property
    def ready(self) -> bool:
        """Whether the first node is there."""
        return self._tracker is not None

    def reopen(self, *, orderly: bool = False) -> None:
        """Let the program end, or die with its ledger open, and begin again on the same ledger."""
        if orderly and self.opener.lasting:
            self.tracker.close()
        self.book = Book(self._open())
        self._tracker = self.second()
        self._publisher = None
        self._tracker.sweep()

    @property
    def publisher(self) -> Publisher:
        """Who tells the outer ledger; a new one after each opening."""
        if self._publisher is None:
            self._publisher = Publisher(self.tracker, self.outer)
        return self._publisher

    def second(self) -> Tracker:
        """Return another tracker on the same ledger, as another process would have it: it knows nothing but the ledger."""
        home = next(iter(self.ids))
        host = self.hosts[home]
        store = self.book.as_store()
        writer = Writer(store, self.clock, actor=ACTOR, epoch=1, boot_id=host.boot, timeout_s=10.0)
        terms = Terms(actor=ACTOR, hold_timeout_ms=HOLD_TIMEOUT_MS, default_ttl_ms=None, drain_grace_ms=DRAIN_GRACE_MS)
        return Tracker(store, writer, Leases(self.processes), host, self.clock, home=self.ids[home], terms=terms)

    def close(self) -> None:
        """Close every ledger that was opened, those left open by a crash too."""
        for store in self.opened:
            store.close()

    def _open(self) -> Store:
        store = self.opener.open()
        if store not in self.opened:
            self.opened.append(store)
        return store

    # --- nodes ----------------------------------------------------------------------------------------------------------------------

    def enter(self, name: str, machine: Machine, settings: Iterable[str], host: str | None) -> Answer:
        """Register a node with its machine and settings; its host reports the same again if it is there already."""
        wanted = self.settle(UNRESERVED, settings)
        if name not in self.ids:
            self.ids[name] = NodeId(f"00000000-0000-4000-8000-{len(self.ids) + 1:012d}")
        self.hosts[name] = GivenHost(machine, name=host or name, ref=f"machine-of-{host or name}")
        if self._tracker is None:
            self._tracker = self.second()
        return self.tracker.register(name, uuid=self.ids[name], host=host or name, machine=machine, settings=wanted)

    def rehome(self, name: str, host: str, reason: str) -> Answer:
        """Let another host run a node."""
        self.host(name).name = host
        return self.tracker.rehome_node(self.ids[name], host, reason or "as the scenario says")

    def see_guests(self, name: str) -> None:
        """Tell the tracker which guests the host of a node runs, if the scenario says so of any."""
        if name not in self.guests:
            return
        seen = tuple(
            Guest(consumer=ConsumerId(guest), vcpus=each.vcpus, memory_bytes=each.memory_bytes, disk_bytes=each.disk_bytes)
            for guest, each in sorted(self.guests[name].items())
        )
        self.tracker.guests_seen(self.ids[name], seen, complete=True)

    def report(self, name: str, host: str | None = None) -> Answer:
        """Let a node's host, or another one, report it again, as when its service starts."""
        own = self.host(name)
        return self.tracker.register(name, uuid=self.ids[name], host=host or own.name, machine=own.seen)

    def look(self, name: str) -> Answer:
        """Let a node's driver look at its machine; raises HostUnavailable."""
        host = self.host(name)
        return self.tracker.register(name, uuid=self.ids[name], host=host.name, machine=host.observe().machine)

    def host(self, name: str) -> GivenHost:
        """Return the host of a node; raises InvalidRequest for one that the scenario has none of."""
        if name not in self.hosts:
            raise InvalidRequest(f"the scenario has no node {name}")
        return self.hosts[name]

    def node(self, name: str) -> NodeState:
        """Return a node as the ledger has it now."""
        return self.tracker.node(self.ids.get(name, name))

    def states(self) -> dict[str, NodeState]:
        """Return all nodes by name."""
        return {name: self.tracker.node(node) for name, node in self.ids.items()}

    def plug(self, name: str, kind: str) -> str:
        """Put another device of a kind into a machine and return its unit."""
        host = self.host(name)
        known = [device for device in host.seen.devices if device.kind == kind]
        first = known[0] if known else None
        number = len(known) + 1
        address = f"0000:{0x0A if kind == 'vf' else 0xC0:02x}:{number // 8:02x}.{number % 8}"
        unit = ids.unit_id(f"pci:{address}" if kind == "vf" else f"{kind}:new-{number}")
        made = Device(unit=unit, kind=kind, address=address, cell=first.cell if first else None, parent=first.parent if first else None)
        host.seen = replace(host.seen, devices=(*host.seen.devices, made))
        return unit

    def unplug(self, name: str, unit: str) -> None:
        """Take a device out of a machine; raises InvalidRequest if it is not there."""
        host = self.host(name)
        left = tuple(device for device in host.seen.devices if device.unit != unit)
        if len(left) == len(host.seen.devices):
            raise InvalidRequest(f"the machine of node {name} has no {unit}")
        host.seen = replace(host.seen, devices=left)

    def fail_driver(self, name: str, *, fails: bool) -> None:
        """Let the looks at a machine fail from now on, or succeed again."""
        self.host(name).fault = HostUnavailable(f"the driver of node {name} fails in this scenario") if fails else None

    # --- consumers ------------------------------------------------------------------------------------------------------------------

    def new_claim(self, name: str) -> ClaimId:
        """Return a claim id that the scenario calls `name`."""
        self._numbers += 1
        self.claims[name] = ClaimId(f"c-{self._numbers:04d}")
        return self.claims[name]

    def new_move(self, name: str) -> str:
        """Return a move id that the scenario calls `name`."""
        self._numbers += 1
        self.moves[name] = f"m-{self._numbers:04d}"
        return self.moves[name]

    def claim_named(self, name: str) -> str:
        """Return the claim that a name means: a consumer's main claim, else the one last called so; the name itself if none was."""
        row = self.tracker.store.main_claim(ConsumerId(name))
        if row is not None:
            self.claims[name] = row.claim
        return self.claims.get(name, name)

    def move_named(self, name: str) -> str:
        """Return the move id of a name; a consumer's own where no move has that name."""
        return self.moves.get(name, name)

    def holder(self, name: str, *, is_move: bool) -> str:
        """Return under which name an outer ledger knows a consumer or a move."""
        return self.move_named(name) if is_move else name

    def held_by(self, consumer: str) -> tuple[Claim, ...]:
        """Return the live claims of a consumer on all nodes."""
        return self.tracker.claims_of(ConsumerId(consumer))

    def consumer(self, name: str) -> ConsumerState:
        """Return what is known of a consumer; raises UnknownInstance."""
        return self.tracker.instance(name)


def memory_ledger() -> Opener:
    """Return an opener of one ledger in memory."""
    from earmark.wiring import memory_store  # noqa: PLC0415 - only where one is wanted

    store = memory_store()
    return Opener(lambda: store, lasting=False)


def file_ledger(path: Path) -> Opener:
    """Return an opener of one ledger in a file that is a scenario's own."""
    from earmark.wiring import file_store  # noqa: PLC0415 - only where one is wanted

    return Opener(lambda: file_store(path), lasting=True)
