"""The figures of a node: what the trade writes as 2/2048/20, against the scenarios and against a sum done by hand."""

from __future__ import annotations

import immutables
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from earmark.core.fit.free import Free
from earmark.core.fit.layout import build_layout
from earmark.core.ledger.figures import Figures, figures
from earmark.core.ledger.state import NodeState
from earmark.core.model.claim import Claim, Phase, Purpose, Quarantine
from earmark.core.model.grant import AmountRow, Grant, UnitRow, Use
from earmark.core.model.ids import ClaimId, ConsumerId, NodeId, Owner, PoolId, UnitId
from earmark.core.model.node import NodeSettings, ReservedPages
from earmark.core.model.refusal import Refusal
from earmark.core.model.request import Request
from earmark.core.model.shape import machine_of
from earmark.core.model.units import GIB, KIB, MIB
from earmark.testing import Bench, bench

NODE = NodeId("00000000-0000-4000-8000-000000000001")
SMALL = Request(vcpus=2, memory_bytes=2048 * MIB, disk_bytes=20 * GIB)
HOST = "16c 32G disk:200G"


def shown(made: Bench) -> str:
    """Return the three figures of the machine."""
    return figures(made.tracker.node()).text


def claimed(made: Bench, request: Request, consumer: str) -> str:
    """Claim and return the claim's id."""
    answer = made.tracker.hold(request, consumer=consumer, confirm=True)
    assert not isinstance(answer, Refusal), answer
    assert answer.claim_id is not None
    return answer.claim_id


@pytest.mark.rule("S02", "C1", "C2", "C10")
def test_what_is_reserved_is_in_the_figures_and_not_in_the_capacity() -> None:
    """An empty node that keeps 1 CPU, 512 MB and 1500 MB shows 1/512/2; a guest makes it 3/2560/22; the 61st vCPU is refused."""
    settings = NodeSettings(
        reserved_host_cpus=1, reserved_host_memory_bytes=512 * MIB, reserved_host_disk_bytes=1500 * MIB, cpu_allocation_ratio=4000
    )
    with bench("16c 512G disk:200G", settings=settings) as made:
        assert shown(made) == "1/512/2"
        guest = claimed(made, SMALL, "s")
        assert shown(made) == "3/2560/22"
        made.tracker.release(guest)
        found = figures(made.tracker.node())
        assert (found.text, found.reserved.text, found.quarantined.text) == ("1/512/2", "1/512/2", "0/0/0")
        vcpu = found.room("VCPU")
        assert vcpu is not None
        assert (vcpu.capacity, vcpu.used, vcpu.free) == (60, 0, 60)
        for number in range(60):
            claimed(made, Request(vcpus=1), f"vm-{number}")
        assert isinstance(made.tracker.hold(Request(vcpus=1), consumer="vm-60"), Refusal)
        assert figures(made.tracker.node()).vcpus == 61


@pytest.mark.rule("S03", "C3")
def test_disk_is_exact_and_rounded_up_once_per_node() -> None:
    """10 GB and 1536 MB of swap: one guest shows 12, two show 23, none 0; beside a guest of 10 GB one of 10.5 shows 21, then 10."""
    swap = Request(vcpus=1, memory_bytes=GIB, disk_bytes=10 * GIB + 1536 * MIB)
    with bench(HOST) as made:
        seen = []
        one, two = claimed(made, swap, "one"), claimed(made, swap, "two")
        seen.append(figures(made.tracker.node()).disk_gib)
        made.tracker.release(two)
        seen.append(figures(made.tracker.node()).disk_gib)
        assert figures(made.tracker.node()).disk_bytes == 11 * GIB + GIB // 2
        made.tracker.release(one)
        seen.append(figures(made.tracker.node()).disk_gib)
        claimed(made, replace(swap, disk_bytes=10 * GIB), "other")
        three = claimed(made, replace(swap, disk_bytes=10 * GIB + 512 * MIB), "three")
        seen.append(figures(made.tracker.node()).disk_gib)
        made.tracker.release(three)
        seen.append(figures(made.tracker.node()).disk_gib)
    assert seen == [23, 12, 0, 21, 10]


@pytest.mark.rule("C1", "W27", "S01")
def test_dedicated_and_shared_vcpus_are_one_figure_and_two_stocks() -> None:
    """A host that is fully dedicated shows all its CPUs as used, no negative VCPU, and its pins one by one."""
    with bench("1x4c 8G disk:10G") as made:
        claimed(made, Request(vcpus=1), "shared")
        claimed(made, Request(vcpus=3, cpu_policy="dedicated"), "own")
        found = figures(made.tracker.node())
        vcpu, pcpu = found.room("VCPU"), found.room("PCPU")
        assert vcpu is not None
        assert pcpu is not None
        assert (found.vcpus, found.cpus_total, len(found.pins), found.emulator_cpus) == (4, 4, 3, ())
        assert (vcpu.used, vcpu.free, pcpu.used, pcpu.free) == (1, 0, 3, 1)
        assert found.text == "4/0/0"


@pytest.mark.rule("C2", "H3")
def test_pages_are_memory_too() -> None:
    """Memory in huge pages counts in bytes beside ordinary memory; the node's memory is both; pages kept back stand in their stock."""
    settings = NodeSettings(
        reserved_host_memory_bytes=0, reserved_host_disk_bytes=0, reserved_huge_pages=(ReservedPages(cell=0, size_kib=2048, count=24),)
    )
    with bench("1x4c 8G 2M:1024 disk:10G", settings=settings) as made:
        claimed(made, Request(vcpus=1, memory_bytes=GIB, page_kib=2048), "huge")
        claimed(made, Request(vcpus=1, memory_bytes=GIB), "plain")
        found = figures(made.tracker.node())
        assert (found.memory_mib, found.memory_total_bytes, found.memory_free_bytes) == (2048, 8 * GIB, 6 * GIB)
        pages = found.room("pages:0:2048")
        assert pages is not None
        assert (pages.total, pages.reserved, pages.used, pages.free) == (1024, 24, 512, 488)


@pytest.mark.rule("C6", "S45")
def test_what_is_left_may_be_negative() -> None:
    """A ratio that goes from 4 to 1 with 32 vCPUs of 16 leaves usage as it is and -16 free; memory that shrank is less than what is used."""
    with bench(HOST, settings=NodeSettings(reserved_host_memory_bytes=0, cpu_allocation_ratio=4000)) as made:
        for number in range(8):
            claimed(made, Request(vcpus=4, memory_bytes=4 * GIB), f"vm-{number}")
        made.tracker.configure(NodeSettings(reserved_host_memory_bytes=0, cpu_allocation_ratio=1000))
        made.host.seen = machine_of("16c 16G disk:200G")
        made.tracker.observe()
        found = figures(made.tracker.node())
        vcpu = found.room("VCPU")
        assert vcpu is not None
        assert (found.vcpus, vcpu.free, found.memory_free_bytes) == (32, -16, -16 * GIB)


def test_quarantined_grants_are_used_and_said_apart() -> None:
    """What nobody proved unused stays in the figures, and they say which part of them that is."""
    with bench("1x4c 8G disk:10G") as made:
        holder = made.tracker.hold(
            Request(vcpus=2, cpu_policy="dedicated"), consumer="job", confirm=True, holders=[made.processes.identify(7)]
        )
        assert not isinstance(holder, Refusal)
        assert holder.claim_id is not None
        made.processes.fates[7] = "unknown"
        made.tracker.release(holder.claim_id, force=True)
        made.clock.move(120_000)
        made.tracker.sweep()
        found = figures(made.tracker.node())
        assert (found.claims, found.quarantines) == (0, 1)
        assert (found.text, found.quarantined.text, len(found.pins)) == ("2/0/0", "2/0/0", 2)


def test_a_node_that_was_never_observed_has_figures() -> None:
    """It has no totals and no stocks; nothing is used and nothing reserved."""
    found = figures(NodeState(node=NODE, name="n1"))
    assert (found.text, found.cpus_total, found.rooms, found.room("VCPU")) == ("0/0/0", 0, (), None)


# --- against a sum done by hand -------------------------------------------------------------------------------------------------------

USES: st.SearchStrategy[Use] = st.sampled_from(["vcpu", "vcpu", "emulator", "withheld"])
POOLS = st.sampled_from(
    ["vcpu", "vcpu:0", "vcpu:1", "memory", "pages:0:4", "pages:0:2048", "pages:1:1048576", "disk:root", "disk:fast", "class:CUSTOM_X"]
)
PURPOSES: st.SearchStrategy[Purpose] = st.sampled_from(["main", "attach", "leg", "foreign"])
PHASES: st.SearchStrategy[Phase] = st.sampled_from(["held", "confirmed", "draining"])
OTHERS = [UnitId("pci:0000:41:00.0"), UnitId("gpu:GPU-1"), UnitId("named:CUSTOM_X/ns0")]


@st.composite
def nodes(draw: st.DrawFn) -> NodeState:
    """A node on which claims and quarantines hold distinct units and any amounts."""
    machine = machine_of("2x8c 16G 2M:64 disk:100G")
    settings = draw(st.sampled_from([NodeSettings(), NodeSettings(reserved_host_cpus=2, reserved_host_disk_bytes=3 * GIB + 1)]))
    units = draw(st.permutations([*(UnitId(f"cpu:{n}") for n in range(16)), *OTHERS]))
    holders: list[Grant] = []
    while units and len(holders) < 6:
        count = draw(st.integers(0, 5))
        mine, units = units[:count], units[count:]
        rows = tuple(UnitRow(unit=unit, use=draw(USES) if unit.startswith("cpu:") else "device") for unit in mine)
        pools = draw(st.lists(POOLS, max_size=4, unique=True))
        amounts = tuple(AmountRow(pool=PoolId(pool), amount=draw(st.integers(1, 1 << 33))) for pool in pools)
        holders.append(Grant(units=rows, amounts=amounts))
    claims, kept = {}, {}
    for number, grant in enumerate(holders):
        claim, who = ClaimId(f"c-{number:04}"), ConsumerId(f"vm-{number}")
        if draw(st.integers(0, 3)):
            claims[claim] = Claim(
                id=claim, node=NODE, consumer=who, owner=Owner("ann"), request=Request(vcpus=1), grant=grant, purpose=draw(PURPOSES),
                phase=draw(PHASES),
            )  # fmt: skip
        else:
            kept[claim] = Quarantine(claim=claim, consumer=who, owner=Owner("ann"), grant=grant, since_ms=1, reason="no proof")
    state = NodeState(
        node=NODE, name="n1", machine=machine, settings=settings, layout=build_layout(machine, settings),
        claims=immutables.Map(claims), quarantines=immutables.Map(kept),
    )  # fmt: skip
    return replace(state, free=Free.recompute(state.grants()))


def by_hand(state: NodeState) -> Figures:
    """Add everything up row by row, the other way round: from the text of each row, with no call of what is tested."""
    assert state.layout is not None
    sums = {"vcpus": state.layout.reserved.bit_count(), "memory": state.layout.memory.reserved}
    sums["disk"] = sum(disk.reserved for disk in state.layout.disks.values())
    pins: set[int] = set()
    units: set[UnitId] = set()
    for _, grant in state.grants():
        for row in grant.units:
            if row.unit[:4] == "cpu:":
                pins.add(int(row.unit[4:]))
                sums["vcpus"] += row.use == "vcpu"
            else:
                units.add(row.unit)
        for amount in grant.amounts:
            words = amount.pool.split(":")
            factor = int(words[2]) * KIB if words[0] == "pages" else 1
            name = {"vcpu": "vcpus", "memory": "memory", "pages": "memory", "disk": "disk"}.get(words[0])
            if name is not None:
                sums[name] += amount.amount * factor
    return Figures(
        vcpus=sums["vcpus"], memory_bytes=sums["memory"], disk_bytes=sums["disk"], pins=tuple(sorted(pins)),
        devices=tuple(sorted(unit for unit in units if unit[:6] != "named:")), named=tuple(sorted(unit for unit in units if unit[:6] == "named:")),
        claims=len(state.claims), quarantines=len(state.quarantines),
    )  # fmt: skip


@given(nodes())
def test_figures_equal_a_sum_over_the_grants(state: NodeState) -> None:
    """Whatever is held, in whatever phase and for whatever purpose: the figures are what is reserved and the sum of the rows."""
    found, hand = figures(state), by_hand(state)
    assert (found.vcpus, found.memory_bytes, found.disk_bytes) == (hand.vcpus, hand.memory_bytes, hand.disk_bytes)
    assert (found.pins, found.devices, found.named) == (hand.pins, hand.devices, hand.named)
    assert (found.claims, found.quarantines) == (hand.claims, hand.quarantines)
    assert sum(count for _, count in found.claims_by_phase) == sum(count for _, count in found.claims_by_purpose) == found.claims
    assert found.text == f"{hand.vcpus}/{-(-hand.memory_bytes // MIB)}/{-(-hand.disk_bytes // GIB)}"


@pytest.mark.rule("W35", "W44")
@given(nodes())
def test_figures_equal_the_kept_index(state: NodeState) -> None:
    """The index that fit keeps up to date and the sum over the grants say the same of every stock."""
    found = figures(state)
    assert found.pins == tuple(n for n in range(16) if state.free.taken_cpus >> n & 1)
    for room in found.rooms:
        if room.resource_class in ("DISK_BYTES", "PAGES"):
            held = sum(grant.amount(PoolId(room.pool)) for _, grant in state.grants())
            assert (room.used, room.free) == (held, room.capacity - held)
    assert figures(state) == found
