"""What is true of one node: the value that its events fold to.

Rules of this file: a state is never changed, only followed by another; everything derived (layout, free index, blocked units) can be
recomputed from the rest and is compared with that at every audit. `StateImage` is the part that snapshots keep.
"""

from collections.abc import Iterator

import immutables
import msgspec

from earmark.core.fit.devices.policy import MDEV, NAMED, parent_local
from earmark.core.fit.free import CPU_PREFIX, EMPTY, Free, Supply
from earmark.core.fit.layout import Layout, build_layout
from earmark.core.ledger.codec import NOT_JSON, Head
from earmark.core.model.claim import Claim, Cordon, Quarantine
from earmark.core.model.finding import Finding
from earmark.core.model.grant import Grant, UnitRow
from earmark.core.model.ids import ClaimId, NodeId, Trait, UnitId, shared_unit
from earmark.core.model.node import NodeSettings, Provided
from earmark.core.model.topology import Device, Machine, identities_contradict
from earmark.core.model.value import Value
from earmark.errors import InvalidRecord, InvalidRequest, LedgerBroken

FOLD_VERSION = 3
FOLDS_READ = frozenset({1, 2, FOLD_VERSION})
"""Versions whose images can still be opened, where nothing else is left to fold from: what a later fold added has its default in them."""
NODE_CORDON = ""
"""The key of the node's own cordon in `NodeState.cordons`."""


STATUS_DISABLED = Trait("COMPUTE_STATUS_DISABLED")
"""The trait of a node that gets no new grants (os-traits 3; Nova 34, compute/resource_tracker.py)."""


class NodeState(msgspec.Struct, frozen=True, kw_only=True):
    """One node at one sequence of its stream.

    `failed_builds` counts main claims that ended without ever being confirmed, since the last one that was (T4). `retired` is the reason
    for which the node was retired, None while it is not. `host` is the host that runs the node, None where none was ever named;
    `provided` what provider configuration files add.
    `findings` is what each source found last. `identities` say what the devices were of which shares were held when the machine was looked
    at last; of one that is given whole the grant says it.
    `layout` is None until the machine was observed. `unknown` names an event that this program does not understand: the stream may then
    be read and not written. `boot_id` is the boot under which the machine was last observed.
    """

    node: NodeId
    name: str
    head: Head = Head()
    machine_ref: str | None = None
    boot_id: str | None = None
    machine: Machine | None = None
    inventory_version: int = 0
    settings: NodeSettings = NodeSettings()
    layout: Layout | None = None
    free: Free = EMPTY
    claims: immutables.Map[ClaimId, Claim] = immutables.Map()
    quarantines: immutables.Map[ClaimId, Quarantine] = immutables.Map()
    cordons: immutables.Map[str, Cordon] = immutables.Map()
    failed_builds: int = 0
    findings: immutables.Map[str, tuple[Finding, ...]] = immutables.Map()
    retired: str | None = None
    host: str | None = None
    provided: Provided = Provided()
    identities: immutables.Map[UnitId, str] = immutables.Map()
    unknown: str | None = None

    @property
    def sequence(self) -> int:
        """The sequence of the last event folded in."""
        return self.head.sequence

    @property
    def at_ms(self) -> int:
        """The time of the last event folded in."""
        return self.head.at_ms

    @property
    def supply(self) -> Supply | None:
        """What fit needs to know; None until the machine was observed."""
        if self.layout is None:
            return None
        cpus, units = blocked(self.cordons)
        layout = self.layout
        if self.disabled is not None:
            layout = msgspec.structs.replace(layout, traits=self.traits)
        return Supply(layout=layout, free=self.free, blocked_cpus=cpus, blocked_units=units)

    @property
    def disabled(self) -> str | None:
        """Why the node gets no new grants although it is not retired, None while it is open: the reason of its own cordon."""
        cordon = self.cordons.get(NODE_CORDON)
        return None if cordon is None else cordon.reason

    @property
    def traits(self) -> frozenset[Trait]:
        """The traits of the node: its machine's, those of provider configuration, and COMPUTE_STATUS_DISABLED while it is disabled (R4)."""
        own = self.layout.traits if self.layout is not None else frozenset(self.provided.traits)
        return frozenset(Trait(trait) for trait in own) | ({STATUS_DISABLED} if self.disabled is not None else set())

    @property
    def runs_on(self) -> str:
        """The host that runs the node: a node of which none was named is a host of its own."""
        return self.host or self.name

    @property
    def present(self) -> frozenset[UnitId]:
        """The exclusive units that the node has: CPUs that are online, devices, mediated devices, named resources."""
        if self.machine is None or self.layout is None:
            return frozenset()
        return present_units(self.machine) | frozenset(self.layout.known)

    @property
    def missing(self) -> frozenset[UnitId]:
        """Units that are held or quarantined and that the machine no longer has, or has as another card than was given."""
        if self.machine is None or self.layout is None:
            return frozenset()
        known, present = self.layout.known, self.present
        locals_ = frozenset(device.unit.partition(":")[2] for device in self.machine.devices)
        rows = {(row.unit, row.identity) for row in self._rows()} | {(unit, self.identities.get(unit)) for unit in self._shared()}
        return frozenset(unit for unit, identity in rows if _is_missing(unit, identity, known.get(unit), present, locals_))

    @property
    def withdrawn(self) -> frozenset[UnitId]:
        """Units that are held and that the node's device policy has no more: named resources, mediated devices of a parent that is there."""
        if self.layout is None:
            return frozenset()
        held = frozenset(row.unit for row in self._rows() if row.unit.startswith((NAMED, MDEV)))
        return held - frozenset(self.layout.known) - self.missing

    @property
    def held_devices(self) -> dict[UnitId, str | None]:
        """The devices that are held or quarantined, whole or in shares, each with what it was when it was given (None: not known)."""
        shared = {unit: self.identities.get(unit) for unit in self._shared()}
        return shared | {row.unit: row.identity for row in self._rows() if not row.unit.startswith((CPU_PREFIX, NAMED))}

    def _shared(self) -> Iterator[UnitId]:
        """Yield the devices of which shares are held."""
        return (unit for pool in self.free.used if (unit := shared_unit(pool)) is not None)

    def _rows(self) -> Iterator[UnitRow]:
        return (row for _, grant in self.grants() for row in grant.units)

    def grants(self) -> list[tuple[ClaimId, Grant]]:
        """All grants that occupy something, live claims and quarantines, by claim id."""
        held = [(claim.id, claim.grant) for claim in self.claims.values()]
        kept = [(quarantine.claim, quarantine.grant) for quarantine in self.quarantines.values()]
        return sorted(held + kept, key=lambda pair: pair[0])

    def live(self) -> list[Claim]:
        """The live claims by id."""
        return sorted(self.claims.values(), key=lambda claim: claim.id)


class StateImage(Value, frozen=True):
    """The part of a state that is kept; the rest is derived again on opening."""

    node: NodeId
    name: str
    sequence: int
    epoch: int
    at_ms: int
    hash: str
    machine_ref: str | None = None
    boot_id: str | None = None
    machine: Machine | None = None
    inventory_version: int = 0
    settings: NodeSettings = NodeSettings()
    claims: tuple[Claim, ...] = ()
    quarantines: tuple[Quarantine, ...] = ()
    cordons: tuple[Cordon, ...] = ()
    failed_builds: int = 0
    findings: tuple[tuple[str, tuple[Finding, ...]], ...] = ()
    retired: str | None = None
    host: str | None = None
    provided: Provided = Provided()
    identities: tuple[tuple[UnitId, str], ...] = ()
    unknown: str | None = None


_images = msgspec.json.Decoder(StateImage)


def present_units(machine: Machine) -> frozenset[UnitId]:
    """Return the exclusive units that a machine has: CPUs online or offline are not the same, only online ones count."""
    return frozenset([UnitId(f"cpu:{cpu.id}") for cpu in machine.cpus] + [device.unit for device in machine.devices])


def _is_missing(
    unit: UnitId, identity: str | None, device: Device | None, present: frozenset[UnitId], parents: frozenset[str]
) -> bool:  # fmt: skip
    """Say whether a held unit is not there; `parents` are the local names of all devices."""
    if unit.startswith(NAMED):
        return False
    if device is not None:
        return identities_contradict(identity, device.identity)
    return unit not in present and not (unit.startswith(MDEV) and parent_local(unit) in parents)


def blocked(cordons: immutables.Map[str, Cordon]) -> tuple[int, frozenset[UnitId]]:
    """Return the mask of cordoned CPUs and the set of other cordoned units."""
    mask = 0
    units = set()
    for cordon in cordons.values():
        if cordon.unit is None:
            continue
        if cordon.unit.startswith("cpu:"):
            mask |= 1 << int(cordon.unit[4:])
        else:
            units.add(cordon.unit)
    return mask, frozenset(units)


def image_of(state: NodeState) -> StateImage:
    """Return what a snapshot keeps of a state."""
    return StateImage(
        node=state.node, name=state.name, sequence=state.head.sequence, epoch=state.head.epoch, at_ms=state.head.at_ms,
        hash=state.head.hash, machine_ref=state.machine_ref, boot_id=state.boot_id, machine=state.machine,
        inventory_version=state.inventory_version, settings=state.settings, claims=tuple(state.live()),
        quarantines=tuple(sorted(state.quarantines.values(), key=lambda q: q.claim)),
        cordons=tuple(sorted(state.cordons.values(), key=lambda c: c.unit or NODE_CORDON)), failed_builds=state.failed_builds, findings=tuple(sorted(state.findings.items())),
        retired=state.retired, host=state.host, provided=state.provided, identities=tuple(sorted(state.identities.items())),
        unknown=state.unknown,
    )  # fmt: skip


def state_of(image: StateImage) -> NodeState:
    """Return the state of an image, everything derived computed anew."""
    state = NodeState(
        node=image.node, name=image.name, head=Head(image.sequence, image.epoch, image.at_ms, image.hash), machine_ref=image.machine_ref,
        boot_id=image.boot_id, machine=image.machine, inventory_version=image.inventory_version, settings=image.settings,
        layout=build_layout(image.machine, image.settings, image.provided, strict=False) if image.machine is not None else None,
        claims=immutables.Map((claim.id, claim) for claim in image.claims),
        quarantines=immutables.Map((quarantine.claim, quarantine) for quarantine in image.quarantines),
        cordons=immutables.Map((cordon.unit or NODE_CORDON, cordon) for cordon in image.cordons),
        failed_builds=image.failed_builds, findings=immutables.Map(image.findings), retired=image.retired, host=image.host,
        provided=image.provided, identities=immutables.Map(image.identities), unknown=image.unknown,
    )  # fmt: skip
    return msgspec.structs.replace(state, free=Free.recompute(state.grants()))


def encode_image(state: NodeState) -> bytes:
    """Return a state's image as JSON."""
    return msgspec.json.encode(image_of(state))


def decode_image(raw: bytes) -> NodeState:
    """Return the state of an encoded image; raises InvalidRecord if it is none, or of no possible node."""
    try:
        return state_of(_images.decode(raw))
    except (*NOT_JSON, InvalidRequest, LedgerBroken) as error:
        raise InvalidRecord(f"a snapshot of {len(raw)} bytes is not the image of a node: {error}") from error
