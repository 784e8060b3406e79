"""Allocation ratios: what is configured, what a node was made with, what it has (C8, C9); what overcommit leaves behind (S02, S45)."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.nodes.worlds import held

import earmark
from earmark.core.ledger.audit import audit_node
from earmark.core.ledger.figures import figures
from earmark.core.model.node import NodeSettings
from earmark.core.model.ratios import Ratios, inventory_ratio, ratio_of, settings_under
from earmark.core.model.refusal import Refusal
from earmark.core.model.request import Request
from earmark.core.model.units import GIB, MIB
from earmark.errors import InvalidSetting
from earmark.settings import Settings, load
from earmark.testing import UNRESERVED, bench

RATIO = st.integers(1, 1_000_000)


@pytest.mark.rule("C8")
@given(configured=st.none() | RATIO, initial=RATIO, known=st.none() | RATIO)
def test_a_ratio_is_the_configured_else_the_known_else_the_initial(configured: int | None, initial: int, known: int | None) -> None:
    """The precedence of Nova's record: configuration, then what the record has, then the initial ratio."""
    expected = configured if configured is not None else known if known is not None else initial
    assert ratio_of(configured, initial, known) == expected


@pytest.mark.rule("C8")
def test_a_record_keeps_what_it_has_once_the_configuration_is_unset() -> None:
    """A new node gets the initial ratios, a configured one replaces them, and unset later leaves what the record has."""
    first = settings_under(Ratios(initial_cpu=4000), None)
    assert (first.cpu_allocation_ratio, first.ram_allocation_ratio, first.disk_allocation_ratio) == (4000, 1000, 1000)
    second = settings_under(Ratios(cpu=2000, initial_cpu=4000), first)
    third = settings_under(Ratios(initial_cpu=8000, initial_ram=1500), second)
    assert (second.cpu_allocation_ratio, third.cpu_allocation_ratio, third.ram_allocation_ratio) == (2000, 2000, 1000)


@pytest.mark.rule("C9")
def test_an_inventory_follows_the_same_precedence_and_pcpu_is_always_one() -> None:
    """VCPU, memory and disk follow configuration, inventory, initial; PCPU, devices and plain classes are handed out once."""
    ratios = Ratios(cpu=4000, disk=3000, initial_ram=1500)
    assert inventory_ratio("VCPU", ratios, 1000) == 4000
    assert [inventory_ratio(name, ratios, None) for name in ("MEMORY_MB", "MEMORY_BYTES", "DISK_GB")] == [1500, 1500, 3000]
    assert inventory_ratio("MEMORY_MB", ratios, 1200) == 1200
    assert {inventory_ratio(name, ratios, 5000) for name in ("PCPU", "VGPU", "PCI_DEVICE", "CUSTOM_X")} == {1000}


@pytest.mark.rule("C8", "K4", "W48")
def test_this_machines_node_has_the_configured_ratios(tmp_path: Path) -> None:
    """Each opening gives the node what is configured then; an unset key later changes nothing."""

    def ratios(**given: int) -> tuple[int, int]:
        settings = replace(Settings(ledger=str(tmp_path / "l.db"), state_home=str(tmp_path), machine_root=str(tmp_path)), **given)
        with earmark.open(settings=settings) as tracker:
            found = tracker.node().settings
            return found.cpu_allocation_ratio, found.ram_allocation_ratio

    assert ratios(initial_cpu_allocation_ratio_milli=4000) == (4000, 1000)
    assert ratios() == (4000, 1000)
    assert ratios(cpu_allocation_ratio_milli=2000, ram_allocation_ratio_milli=1500) == (2000, 1500)
    assert ratios(initial_cpu_allocation_ratio_milli=9000) == (2000, 1500)


@pytest.mark.rule("C8", "C14", "W48")
def test_an_impossible_configured_ratio_is_told_and_stops_nothing(tmp_path: Path) -> None:
    """A ram ratio above 1 beside file-backed memory leaves the record as it is, and the ledger open."""
    plain = Settings(ledger=str(tmp_path / "l.db"), state_home=str(tmp_path), machine_root=str(tmp_path), log_level="off")
    with earmark.open(settings=plain) as tracker:
        tracker.configure(replace(tracker.node().settings, file_backed_memory_bytes=8 * GIB))
    with earmark.open(settings=replace(plain, ram_allocation_ratio_milli=1500)) as tracker:
        assert tracker.node().settings.ram_allocation_ratio == 1000


@pytest.mark.rule("K4")
@pytest.mark.parametrize(("text", "expected"), [("4", 4000), ("1.5", 1500), ("0.0", None), ("0", None), ("none", None)])
def test_ratios_are_written_as_decimals(text: str, expected: int | None, tmp_path: Path) -> None:
    """Outside, a ratio is a decimal, and 0 or none is unset as in Nova."""
    environ = {"HOME": str(tmp_path), "EARMARK_MACHINE_ROOT": str(tmp_path), "EARMARK_CPU_ALLOCATION_RATIO": text}
    assert load(environ=environ).cpu_allocation_ratio_milli == expected


@pytest.mark.rule("K4")
def test_a_ratio_in_a_file_may_be_a_number(tmp_path: Path) -> None:
    """A TOML number is a ratio too; nonsense is refused with its source."""
    folder = tmp_path / "earmark"
    folder.mkdir(mode=0o755)
    environ = {"HOME": str(tmp_path), "EARMARK_MACHINE_ROOT": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    (folder / "earmark.toml").write_text("cpu_allocation_ratio = 1.5\ninitial_disk_allocation_ratio = 2\n")
    settings = load(environ=environ)
    assert (settings.cpu_allocation_ratio_milli, settings.initial_disk_allocation_ratio_milli) == (1500, 2000)
    for wrong in ("cpu_allocation_ratio = -1", "cpu_allocation_ratio = true", "initial_cpu_allocation_ratio = 0"):
        (folder / "earmark.toml").write_text(wrong + "\n")
        with pytest.raises(InvalidSetting, match=r"earmark\.toml: (initial_)?cpu_allocation_ratio"):
            load(environ=environ)


@pytest.mark.rule("C8")
def test_an_entered_node_gets_the_ratios_of_new_nodes() -> None:
    """`register` without settings makes a node with what is configured for new ones; a known node keeps its own."""
    with bench() as made:
        made.tracker.terms = made.tracker.terms._replace(fresh=settings_under(Ratios(initial_cpu=4000), None))
        answer = made.tracker.register("n2")
        assert made.tracker.node("n2").settings.cpu_allocation_ratio == 4000
        made.tracker.configure(NodeSettings(cpu_allocation_ratio=2000), node="n2")
        made.tracker.register("n2", uuid=answer.node)
        assert made.tracker.node("n2").settings.cpu_allocation_ratio == 2000


# --- what is reserved, and what shrinks -------------------------------------------------------------------------------------------------


@pytest.mark.rule("S02", "C6", "C10", "C12")
def test_what_is_reserved_is_in_the_figures_and_not_in_the_capacity() -> None:
    """Reserved 1 CPU, 512 MB, 1500 MB: 1/512/2 empty, 3/2560/22 with s; under a ratio of 4 the 60th vCPU is granted, the 61st refused."""
    settings = NodeSettings(
        reserved_host_cpus=1, reserved_host_memory_bytes=512 * MIB, reserved_host_disk_bytes=1500 * MIB, cpu_allocation_ratio=4000
    )
    with bench("16c 32G disk:200G", settings=settings) as made:

        def shown() -> tuple[int, int, int]:
            found = figures(made.tracker.node())
            return found.vcpus, found.memory_mib, found.disk_gib

        assert shown() == (1, 512, 2)
        claim = held(made, Request(vcpus=2, memory_bytes=2048 * MIB, disk_bytes=20 * GIB))
        assert shown() == (3, 2560, 22)
        made.tracker.release(claim)
        assert shown() == (1, 512, 2)
        for _ in range(4):
            held(made, Request(vcpus=15))
        refusal = made.tracker.hold(Request(vcpus=1))
        assert isinstance(refusal, Refusal)
        assert [(reason.resource, reason.free) for reason in refusal.reasons] == [("vcpu", 0)]


@pytest.mark.rule("S45", "C6", "C10")
def test_shrunk_capacity_leaves_usage_and_shows_what_is_missing() -> None:
    """VCPU ratio 4 to 1 with 32 of 16 used: still 32, free is -16 in the refusal, new claims are refused, and giving back is free."""
    with bench("16c 32G disk:200G", settings=replace(UNRESERVED, cpu_allocation_ratio=4000)) as made:
        claims = [held(made, Request(vcpus=8)) for _ in range(4)]
        made.tracker.configure(UNRESERVED)
        assert figures(made.tracker.node()).vcpus == 32
        for _ in range(2):
            assert [finding.code for finding in audit_node(made.tracker.node())] == ["overage"]
        refusal = made.tracker.hold(Request(vcpus=1))
        assert isinstance(refusal, Refusal)
        assert [(reason.resource, reason.free, reason.short) for reason in refusal.reasons] == [("vcpu", -16, 17)]
        made.tracker.release(claims[0])
        assert figures(made.tracker.node()).vcpus == 24
        assert isinstance(made.tracker.hold(Request(vcpus=1)), Refusal)
        for claim in claims[1:3]:
            made.tracker.release(claim)
        assert audit_node(made.tracker.node()) == ()
        held(made, Request(vcpus=8))
