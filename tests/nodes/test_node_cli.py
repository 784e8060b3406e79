"""`earmark node …`: entering, listing, disabling, retiring, rehoming; machines from files; provider configuration."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace
from tests.cli.conftest import Line
from tests.nodes.test_provider_files import GOOD

from earmark.cli.machine_file import machine_from
from earmark.core.model.node import NodeSettings
from earmark.core.model.shape import machine_of
from earmark.core.model.topology import Disk
from earmark.core.model.units import GIB
from earmark.drivers.contract import Observation
from earmark.drivers.sysfs.discovery import discovery_json
from earmark.errors import InvalidRecord
from earmark.testing import bench

OTHER = "00000000-0000-4000-8000-0000000000aa"


@pytest.fixture
def earmark() -> object:
    """Give a command line on two cells of eight cores; the auditor looks at the end."""
    with bench("2x8c 32G 2M:1024 gpu:2") as made:
        yield Line(made)


# --- nodes --------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("A10", "S28")
def test_a_node_is_entered_claimed_and_found_again(earmark: Line) -> None:
    """`node add` with a shape makes a node that claims can name; the same uuid again is answered."""
    words = earmark.good(f"node add n2 --uuid {OTHER} --host h2 --shape '2x8c/2t 64G 2M:1024 disk:200G gpu:2' cpu_allocation_ratio=4")
    assert f"node n2 ({OTHER}) registered" in words
    earmark.good("claim --node n2 --cpus 30 --consumer vm-1")
    again = earmark.good(f"node add n2 --uuid {OTHER} --host h2")
    assert "is in the ledger already" in again
    said = earmark("node add n2")
    assert (said.code, "already, with the uuid" in said.err) == (2, True)
    listed = {one["name"]: one for one in earmark("node list --json").json()}
    assert (listed["n2"]["host"], listed["n2"]["state"], listed["n2"]["claims"]) == ("h2", "open", 1)
    assert listed["n1"]["host"] == "n1"


@pytest.mark.rule("A16")
def test_a_bare_metal_node_is_one_class(earmark: Line) -> None:
    """`node add --class` makes a node that is handed out whole, once."""
    earmark.good("node add bm1 --host rack4 --class CUSTOM_BAREMETAL_GOLD")
    earmark.good("claim --node bm1 --resource CUSTOM_BAREMETAL_GOLD=1")
    assert earmark("claim --node bm1 --resource CUSTOM_BAREMETAL_GOLD=1").code == 3
    earmark.good("node add bm2 --class CUSTOM_BAREMETAL_GOLD=1 inventory.CUSTOM_BAREMETAL_GOLD=1,reserved=1")
    assert earmark("claim --node bm2 --resource CUSTOM_BAREMETAL_GOLD=1").code == 3
    assert earmark("node add bm3 --class nonsense").code == 2
    assert "rack4" in earmark.good("node list")
    earmark.good("node show bm1")


@pytest.mark.rule("R4")
def test_disabled_retired_and_back(earmark: Line) -> None:
    """Each state is listed with its reason, repeated commands are answered, and orphans are named."""
    earmark.good("node add n2 --shape '8c 16G'")
    claim = json.loads(earmark.good("claim --node n2 --cpus 2 --json"))["claim_id"]
    earmark.good("node disable n2 --reason firmware")
    shown = earmark("node show n2 --json").json()
    assert (shown["state"], shown["reason"], shown["traits"]) == ("disabled", "firmware", ["COMPUTE_STATUS_DISABLED"])
    assert "disabled" in earmark.good("node list")
    earmark.good("node enable n2")
    retired = earmark.good("node retire n2 --reason sold")
    assert f"orphan {claim}" in retired
    assert "was retired already" in earmark.good("node retire n2 --reason again")
    said = earmark("claim --node n2 --cpus 1")
    assert (said.code, "retired: sold" in said.err) == (3, True)
    assert earmark("audit").code == 1
    assert "orphan" in earmark("audit").out
    earmark.good("node restore n2 --reason found")
    assert "is not retired" in earmark.good("node restore n2")
    assert earmark("audit").code == 0


@pytest.mark.rule("A11")
def test_a_node_is_rehomed_and_so_is_a_ledger(earmark: Line) -> None:
    """NODE and --host go together; without both the copied ledger is meant, as before."""
    earmark.good("node add n2 --host A")
    assert "not taken over by B" in earmark.good(f"node add n2 --host B --uuid {uuid_of(earmark, 'n2')}")
    assert "hosted" in earmark.good("node rehome n2 --host B --reason moved")
    assert "host B already" in earmark.good("node rehome n2 --host B --reason moved")
    assert earmark("node rehome n2 --reason moved").code == 2
    assert earmark("node rehome --host B --reason moved").code == 2
    assert "at home here already" in earmark.good("node rehome --reason moved")
    assert "host B runs the node: moved" in earmark.good("log --node n2")


def uuid_of(earmark: Line, name: str) -> str:
    """Return a node's uuid."""
    found = [one["node"] for one in earmark("node list --json").json() if one["name"] == name]
    return str(found[0])


@pytest.mark.rule("L17", "M30", "C14")
def test_the_settings_of_lives_and_memory_are_set_by_name(earmark: Line) -> None:
    """Each has Nova's option name, human units, a default to go back to, and a strict reader."""
    earmark.good(
        "node set max_concurrent_builds=10 allow_resize_to_same_host=false allow_migrate_to_same_host=true live_migratable_kinds=vf,gpu"
        " resize_confirm_window=24h file_backed_memory=64GiB"
    )
    settings = msgspec.convert(earmark("node set --json").json(), NodeSettings)
    assert (settings.max_concurrent_builds, settings.allow_resize_to_same_host, settings.allow_migrate_to_same_host) == (10, False, True)
    assert (settings.live_migratable_kinds, settings.resize_confirm_window_s) == (("gpu", "vf"), 86400)
    assert settings.file_backed_memory_bytes == 64 * GIB
    assert "1d" in earmark.good("node set")
    earmark.good("node set resize_confirm_window=90 allow_resize_to_same_host=default file_backed_memory=default")
    settings = msgspec.convert(earmark("node set --json").json(), NodeSettings)
    assert (settings.resize_confirm_window_s, settings.allow_resize_to_same_host, settings.file_backed_memory_bytes) == (90, True, 0)
    for wrong in ("allow_resize_to_same_host=yes", "resize_confirm_window=1500ms", "max_concurrent_builds=-1", "live_migratable_kinds=A"):
        assert earmark(f"node set {wrong}").code == 2
    said = earmark("node set file_backed_memory=1GiB ram_allocation_ratio=2")
    assert (said.code, "it must be 1.0" in said.err) == (2, True)


@pytest.mark.rule("C8")
def test_a_ratio_that_the_settings_override_is_said(earmark: Line) -> None:
    """Set on the node while the machine's settings say otherwise, a ratio holds until the next opening, and that is said."""
    said = earmark("node set cpu_allocation_ratio=2", env={"EARMARK_CPU_ALLOCATION_RATIO": "4"})
    assert (said.code, "cpu_allocation_ratio is 4 by the settings" in said.err) == (0, True)
    assert "by the settings" not in earmark("node set cpu_allocation_ratio=4", env={"EARMARK_CPU_ALLOCATION_RATIO": "4"}).err


# --- machines from files ------------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("C15")
def test_a_machine_of_another_host_comes_from_a_file(earmark: Line, tmp_path: Path) -> None:
    """What discover printed there is the node's machine here; its free disk space stands beside the ledger's exact figure."""
    far = replace(machine_of("2x4c/2t 16G 2M:512 gpu:2 vf:3"), disks=(Disk(name="root", total_bytes=100 * GIB, free_bytes=37 * GIB),))
    path = tmp_path / "far.json"
    path.write_bytes(msgspec.json.encode(discovery_json(Observation(machine=far, hostname="far", boot_id="b"))))
    earmark.good(f"node add far --machine {path}")
    earmark.good("claim --node far --disk 10GiB")
    shown = earmark("node show far --json").json()
    disk = shown["disks"][0]
    assert (disk["total_bytes"], disk["used_bytes"], disk["free_bytes"], disk["seen_free_bytes"]) == (
        100 * GIB, 10 * GIB, 89 * GIB, 37 * GIB,
    )  # fmt: skip
    assert "root: 89 GiB free in the ledger; its file system had 37 GiB free when last seen" in earmark.good("node show far")
    path.write_bytes(path.read_bytes().replace(str(37 * GIB).encode(), str(5 * GIB).encode()))
    assert "nothing has changed" in earmark.good(f"node observe far --machine {path}")
    assert earmark("node show far --json").json()["disks"][0]["seen_free_bytes"] == 5 * GIB
    assert earmark("node observe far").code == 2
    assert earmark(f"node observe far --machine {path} --shape 8c").code == 2


def test_discover_and_the_machine_in_its_file_are_one() -> None:
    """A machine that was printed and read again is the same but for what discover does not print."""
    for shape in ("2x8c/2t 64G 2M:1024 1G:2 gpu:2 vf:4", "16c 32G", "4x2c 8G"):
        machine = machine_of(shape)
        raw = msgspec.json.encode(discovery_json(Observation(machine=machine, hostname="h", boot_id="b")))
        found = machine_from(raw, "x").machine
        assert found == replace(machine, devices=tuple(sorted(machine.devices, key=lambda device: device.unit)))


@pytest.mark.parametrize("raw", [b"", b"[]", b"{}", b"\xff", b"[" * 3000])
def test_a_file_that_is_no_machine_is_named(raw: bytes) -> None:
    """What discover did not print is an error that names the file."""
    with pytest.raises(InvalidRecord, match=r"^x\.json is not what"):
        machine_from(raw, "x.json")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("cpus", [0, 0]), ("cpus", [-1]), ("cores", [[0, 1], [1]]), ("cores", [[0]]), ("sockets", [[99]]), ("offline", [1 << 40]),
        ("devices", [{"unit": "gpu:1"}]), ("disks", [{"name": "root"}]), ("cells", [{"id": 0}]), ("memory_limit_bytes", -1),
    ],
)  # fmt: skip
def test_an_impossible_machine_is_refused(key: str, value: object) -> None:
    """Groups of CPUs that contradict each other, and parts that are none, are errors."""
    shown = discovery_json(Observation(machine=machine_of("4c 8G"), hostname="h", boot_id="b"))
    shown[key] = value
    with pytest.raises(InvalidRecord):
        machine_from(msgspec.json.encode(shown), "x.json")


# --- provider configuration -----------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("K1", "K2", "K3", "W28")
def test_provider_files_are_checked_loaded_and_loaded_again(earmark: Line, tmp_path: Path) -> None:
    """--check changes nothing; loading adds to every node but the named one; the second load changes nothing; absence is noted."""
    (tmp_path / "p.yaml").write_text(GOOD + "  - identification: {name: absent}\n    traits: {additional: [CUSTOM_X]}\n")
    earmark.good("node add n2 --shape '8c 16G'")
    checked = earmark("node providers --check", str(tmp_path))
    assert (checked.code, "node n2 would get CUSTOM_LICENCE 8" in checked.out, "'absent' is not in" in checked.err) == (0, True, True)
    assert earmark("claim --node n2 --resource CUSTOM_LICENCE=1").code == 3
    loaded = earmark("node providers", str(tmp_path / "p.yaml"))
    assert loaded.out.splitlines() == ["node n1 got CUSTOM_EXPLICIT", "node n2 got CUSTOM_LICENCE 8, CUSTOM_FAST, CUSTOM_RACK_7"]
    earmark.good("claim --node n2 --resource CUSTOM_LICENCE=1")
    assert "nothing changes" in earmark.good("node providers", str(tmp_path))
    shown = earmark("node show n2 --json").json()
    assert shown["traits"] == ["CUSTOM_FAST", "CUSTOM_RACK_7"]
    assert earmark("node providers --json", str(tmp_path)).json()["nodes"][1]["changed"] is False
    (tmp_path / "p.yaml").write_text("meta: {schema_version: '1.0'}\nproviders: []\n")
    earmark.good("node providers", str(tmp_path))
    assert "withdrawn" in earmark("audit").out


@pytest.mark.rule("K1", "K2")
def test_one_bad_file_of_many_changes_nothing(earmark: Line, tmp_path: Path) -> None:
    """All files are read before anything is changed: the error has file, line and column, and no node has anything new."""
    (tmp_path / "a.yaml").write_text(GOOD)
    (tmp_path / "b.yaml").write_text("meta: {schema_version: '1.0'}\nproviders:\n  - identification: {name: x, uuid: y}\n")
    said = earmark("node providers", str(tmp_path))
    assert said.code == 2
    assert f"{tmp_path}/b.yaml:3:21: identification is by uuid or by name" in said.err
    assert earmark("node show --json").json()["provided"] == {}


@pytest.mark.rule("S43", "S45", "C6")
def test_what_is_withdrawn_while_it_is_used_can_still_be_looked_at(earmark: Line) -> None:
    """Huge pages, a disk, a cell with everything bound to it and a class that are gone stand in the picture with what is used of them."""
    made = earmark.bench
    earmark.good("node set inventory.CUSTOM_X=2")
    earmark.good("claim --cpus 2:dedicated --mem 1GiB --pages 2MiB --disk 10GiB --resource CUSTOM_X=2")
    earmark.good("claim --cpus 2:shared --mem 1GiB --cells 1")
    earmark.good("node set inventory.CUSTOM_X=0 file_backed_memory=8GiB")
    machine = made.tracker.node().machine
    assert machine is not None
    made.host.seen = replace(machine, disks=(), cells=machine.cells[1:], cpus=machine.cpus[8:], devices=())
    made.tracker.observe()
    for words in ("", "node show", "list", "audit", "node list", "fit --cpus 1"):
        assert earmark(words).code in (0, 1, 3), words
    pools = {each["pool"]: each for each in earmark("node show --json").json()["pools"]}
    assert {pool: (each["total"], each["used"]) for pool, each in pools.items() if not each["total"] and each["used"]} == {
        "class:CUSTOM_X": (0, 2), "disk:root": (0, 10 * GIB), "pages:0:2048": (0, 512), "pages:0:4": (0, GIB // 4096),
        "vcpu:0": (0, 2),
    }  # fmt: skip
    assert sum(finding["code"] == "withdrawn" for finding in earmark("audit --json").json()["findings"]) == 5
