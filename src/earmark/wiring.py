"""The composition root: the only place where contracts meet their implementations.

Rules of this file: nothing is decided here; it resolves where the ledger is, opens it, finds out which node this machine is, and hands all of it
to a tracker.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from earmark.clock import Clock, SystemClock
from earmark.core.ledger.commands import RegisterNode
from earmark.core.ledger.state import NodeState
from earmark.core.model.ids import NodeId, node_stream
from earmark.core.model.ratios import Ratios, settings_under
from earmark.drivers.contract import GpuDriver, HostDriver, Monitor, Observation
from earmark.drivers.processes import SystemProcesses
from earmark.drivers.sysfs.observe import SysfsDriver
from earmark.errors import InvalidRecord, InvalidRequest, LedgerBroken, LedgerForeign
from earmark.logs import configure, log
from earmark.settings import Settings, load
from earmark.stores import identity, place
from earmark.stores.contract import Store
from earmark.stores.sqlite.store import SqliteStore
from earmark.tracker.leases import Leases
from earmark.tracker.questions import Terms
from earmark.tracker.tracker import Tracker
from earmark.tracker.writer import Writer

if TYPE_CHECKING:
    from earmark.drivers.device_policy import DevicePolicy
    from earmark.drivers.provider_files import ProviderFiles


def open_tracker(
    path: str | os.PathLike[str] | None = None, *, private: bool = False, observe: bool = False, settings: Settings | None = None
) -> Tracker:
    """Open the ledger of this machine, or the one at `path`, and return its tracker; make both if they are new.

    The machine is looked at if it is new, was rebooted, or `observe` is given. Claims whose holders are gone, and deadlines that have
    passed, take effect now. Raises an Invalid…, …Unavailable or LedgerBroken; nothing is left open then.
    """
    if settings is None:
        settings = load({"ledger": os.fspath(path) if path is not None else None, "private": True if private else None})
    where = place.resolve(settings)
    configure(settings, key=lambda: identity.log_key(where))
    place.prepare(where)
    host = SysfsDriver(disks=tuple((disk.name, Path(disk.path)) for disk in settings.disks), gpus=gpus_of(settings))
    store = SqliteStore(where.path, gid=where.gid)
    try:
        return tracker_on(store, where, host, settings, SystemClock(), observe=observe, monitor=host)
    except BaseException:
        store.close()
        raise


def look_at(settings: Settings, root: Path | None = None) -> tuple[Observation, dict[str, object]]:
    """Look at this host, or at the one whose files stand below `root`; return what was seen and the same as discover shows it."""
    from earmark.drivers.sysfs.discovery import discovery_json  # noqa: PLC0415 - only discover shows it

    own = tuple((disk.name, Path(disk.path)) for disk in settings.disks)
    seen = (SysfsDriver(disks=own, gpus=gpus_of(settings)) if root is None else SysfsDriver(root)).observe()
    return seen, discovery_json(seen)


def gpus_of(settings: Settings) -> Callable[[], GpuDriver] | None:
    """Return what makes the driver that is asked for this machine's GPUs, None if none is to be."""
    if settings.nvml == "never":
        return None

    def driver() -> GpuDriver:
        from earmark.drivers.nvml.driver import NvmlDriver  # noqa: PLC0415 - most commands do not look at the machine

        return NvmlDriver(always=settings.nvml == "always")

    return driver


def read_providers(paths: Iterable[Path]) -> ProviderFiles:
    """Return what provider configuration files say; raises InvalidRecord with the place of what is wrong."""
    from earmark.drivers.provider_files import read_provider_files  # noqa: PLC0415 - YAML is loaded only where it is read

    return read_provider_files(paths)


def read_policy(path: Path) -> DevicePolicy:
    """Return what a device policy file says; raises InvalidRecord with the place of what is wrong."""
    from earmark.drivers.device_policy import read_device_policy  # noqa: PLC0415 - its forms are loaded only where they are read

    return read_device_policy(path)


def open_store(settings: Settings) -> SqliteStore:
    """Open the ledger that the settings name as a bare store, made if it is new: no node is registered in it (for import)."""
    where = place.resolve(settings)
    configure(settings, key=lambda: identity.log_key(where))
    place.prepare(where)
    return SqliteStore(where.path, gid=where.gid)


def memory_store() -> Store:
    """Return an empty ledger in memory: for scenarios and what-if."""
    from earmark.stores.memory import MemoryStore  # noqa: PLC0415 - no command that claims needs it

    return MemoryStore()


def file_store(path: Path) -> Store:
    """Open a ledger file that nobody announced, made if it is new: for scenarios, in a folder of their own."""
    return SqliteStore(path)


def tracker_on(
    store: Store, where: place.Place, host: HostDriver, settings: Settings, clock: Clock, *, observe: bool, monitor: Monitor | None = None
) -> Tracker:  # fmt: skip
    """Return a tracker on an open store, with this machine's node registered, observed where that is due, and swept."""
    machine_ref = host.machine_ref()
    _recall(store, where, machine_ref, host.hostname())
    known = identity.identity(where, machine_ref, hostname=host.hostname())
    boot_id = host.boot_id()
    terms = Terms(
        actor=actor(), hold_timeout_ms=settings.hold_timeout_ms, default_ttl_ms=settings.default_ttl_ms,
        drain_grace_ms=settings.drain_grace_ms, rival=None if settings.private else _rival(where, settings),
        stranger=_stranger(store, copied=known.copied), fresh=settings_under(ratios_of(settings), None),
    )  # fmt: skip
    writer = Writer(store, clock, actor=terms.actor, epoch=settings.epoch, boot_id=boot_id, timeout_s=settings.busy_timeout_ms / 1000)
    tracker = Tracker(
        store, writer, Leases(SystemProcesses()), host, clock, home=NodeId(known.uuid), terms=terms, monitor=monitor,
        rebind=lambda: identity.rebind(where, machine_ref, hostname=host.hostname()),
    )  # fmt: skip
    state = writer.state(node_stream(known.uuid))
    if not store.writable or terms.stranger is not None:
        if state is None:
            raise LedgerForeign(f"{store.name} does not hold this machine's node and cannot be written", ledger=store.name)
        return tracker
    if state is None:
        free = not writer.names.named(store, known.name)
        name = known.name if free else f"{known.name}-{known.uuid[:8]}"  # another node of this ledger has the machine's name
        writer.submit(RegisterNode(node=NodeId(known.uuid), name=name, machine_ref=machine_ref, settings=terms.fresh))
        state = tracker.node()
    else:
        _configured(tracker, state, settings)
    due = state.machine is None or (boot_id and state.boot_id != boot_id)
    if observe or (due and state.unknown is None):
        tracker.observe()
    tracker.sweep()
    return tracker


def ratios_of(settings: Settings) -> Ratios:
    """Return the allocation ratios that the settings name."""
    return Ratios(
        cpu=settings.cpu_allocation_ratio_milli, ram=settings.ram_allocation_ratio_milli, disk=settings.disk_allocation_ratio_milli,
        initial_cpu=settings.initial_cpu_allocation_ratio_milli, initial_ram=settings.initial_ram_allocation_ratio_milli,
        initial_disk=settings.initial_disk_allocation_ratio_milli,
    )  # fmt: skip


def _configured(tracker: Tracker, state: NodeState, settings: Settings) -> None:
    """Give this machine's node the configured ratios (C8); ratios that are impossible on it are told, and what it has stands."""
    wanted = settings_under(ratios_of(settings), state.settings)
    if wanted == state.settings or state.unknown is not None:
        return
    try:
        tracker.configure(wanted)
    except InvalidRequest as error:
        log("node.ratios_impossible", level="warning", node=state.node, code=error.code, error=error.message)


def _recall(store: Store, where: place.Place, machine_ref: str | None, hostname: str) -> None:
    """Write node.json again where a ledger was restored or imported without it: for this machine's node, else for its only one.

    The file gets the machine that the ledger names, so that a ledger of another machine is still noticed as a copy. Nodes that were only
    entered have no machine of that kind; a stream that cannot be read is passed over.
    """
    if not store.writable or identity.read(where) is not None:
        return
    from earmark.tracker.history import replay  # noqa: PLC0415 - only where the file is missing

    with store.reading() as reader:
        nodes = []
        for stream in sorted(reader.heads()):
            if not stream.startswith("node:"):
                continue
            try:
                state = replay(reader, stream)
            except (InvalidRecord, LedgerBroken) as error:
                log("node.unreadable", level="error", stream=stream, code=error.code)
                continue
            if isinstance(state, NodeState):
                nodes.append(state)
    machines = [state for state in nodes if state.machine_ref is not None] or nodes
    mine = (
        [state for state in machines if machine_ref is not None and state.machine_ref == machine_ref]
        or (machines if len(machines) == 1 else [])
        or [state for state in machines if state.name == hostname]
    )
    if mine:
        identity.identity(where, mine[0].machine_ref, hostname=mine[0].name, uuid=mine[0].node)


def _stranger(store: Store, *, copied: bool) -> str | None:
    if not copied:
        return None
    return f"{store.name} was made on another machine: if it is to be this machine's now, say so with `earmark node rehome --reason …`"


def _rival(where: place.Place, settings: Settings) -> str | None:
    other = place.other_announced(where, Path(settings.machine_root))
    return None if other is None else str(other.ledger)


def actor() -> str:
    """Return who acts: the user's name, or uid:N where the machine has none for it."""
    uid = os.getuid()
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid:{uid}"
