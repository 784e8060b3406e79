"""`--flavor FILE`: YAML and JSON, what is wrong with a file, and what works without PyYAML."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.cli.conftest import Line

from earmark.cli.flavor_file import FlavorFile, read_file, read_flavor
from earmark.cli.main import cli
from earmark.core.flavor.unread import READ
from earmark.core.model.request import DeviceRequest, Request
from earmark.core.model.units import GIB, MIB
from earmark.errors import Invalid, InvalidFlavor, InvalidRecord
from earmark.testing import bench

ROOT = Path(__file__).resolve().parents[2]
YAML = """\
# a pinned guest with a virtual function
flavor:
  name: pinned
  vcpus: 2
  memory_mb: 1024
  root_gb: 20
  ephemeral_gb: 1
  swap_mb: 512
  extra_specs:
    hw:cpu_policy: dedicated
    hw:cpu_realtime: no
    hw:numa_nodes: 1
    hw:cpu_realtime_mask: 0-1
    pci_passthrough:alias: vf:1
image:
  properties: {hw_cpu_thread_policy: prefer, os_type: ~x}
boot_from_volume: true
aliases:
  - {name: vf, vendor_id: 8086, product_id: 154c, device_type: VF, traits: [CUSTOM_A]}
"""
SAME = {
    "flavor": {
        "name": "pinned", "vcpus": 2, "memory_mb": 1024, "root_gb": 20, "ephemeral_gb": 1, "swap_mb": 512,
        "extra_specs": {
            "hw:cpu_policy": "dedicated", "hw:cpu_realtime": False, "hw:numa_nodes": 1, "hw:cpu_realtime_mask": "0-1",
            "pci_passthrough:alias": "vf:1",
        },
    },
    "image": {"properties": {"hw_cpu_thread_policy": "prefer", "os_type": "~x"}},
    "boot_from_volume": True,
    "aliases": [{"name": "vf", "vendor_id": "8086", "product_id": "154c", "device_type": "VF", "traits": ["CUSTOM_A"]}],
}  # fmt: skip
PLAIN = '{"flavor": {"vcpus": 2, "memory_mb": 1024}}'
REAL_TIME = {"hw:cpu_policy": "dedicated", "hw:cpu_realtime": "yes", "hw:emulator_threads_policy": "share"}
CELL = {"hw:numa_nodes": "1", "hw:numa_cpus.0": "0", "hw:numa_mem.0": "64"}


@pytest.fixture
def earmark() -> Iterator[Line]:
    """Give a command line on two cells of eight cores."""
    with bench("2x8c 32G") as made:
        yield Line(made)


def test_yaml_and_json_say_the_same() -> None:
    """Both forms give one request; what YAML would take for numbers or truth values are the texts that stand there."""
    wish = read_flavor(YAML.encode(), "f.yaml").request
    assert wish == read_flavor(json.dumps(SAME).encode(), "f.json").request
    assert wish == Request(
        vcpus=2, cpu_policy="dedicated", thread_policy="prefer", memory_bytes=GIB, cells=1, disk_bytes=GIB + 512 * MIB,
        devices=(
            DeviceRequest(
                kind="pci", match=({"dev_type": "VF", "vendor_id": "8086", "product_id": "154c"},), affinity="legacy", alias="vf",
                required_traits=("CUSTOM_A",),  # type: ignore[arg-type]  # plain text for a NewType
            ),
        ),
    )  # fmt: skip
    assert read_file(YAML.encode(), "f").flavor.extra_specs["hw:cpu_realtime"] == "no"


def test_a_flavor_is_claimed_and_fitted(earmark: Line, tmp_path: Path) -> None:
    """A claim by a flavor takes what the flavor says, from a file or from standard input, and fit and why-not ask the same."""
    path = tmp_path / "flavor.yaml"
    path.write_text("flavor: {vcpus: 2, memory_mb: 1024, extra_specs: {'hw:cpu_policy': dedicated}}\n")
    assert "fits on n1: 2 dedicated CPUs" in earmark.good("fit --flavor", str(path))
    assert "fits" in earmark.good("why-not --flavor -", stdin=PLAIN)
    claim = earmark.good("claim -q --consumer vm-1 --flavor", str(path)).strip()
    grant = earmark.bench.tracker.node().claims[claim].grant  # type: ignore[index]  # plain text for a NewType
    assert len(grant.cpus) == 2
    assert earmark.good("claim -q --consumer vm-2 --flavor -", stdin=PLAIN)


def test_how_to_choose_may_stand_beside_a_flavor(earmark: Line) -> None:
    """--spread may be said beside a flavor, which has no word for it; all else is said by the file alone."""
    answer = json.loads(earmark.good("fit --json --spread --flavor -", stdin=PLAIN))
    assert answer["request"]["placement"] == "spread"
    for words in ("fit --cpus 1 --flavor f", "fit --request r --flavor f", "claim --gpus 1 --flavor f"):
        said = earmark(words)
        assert said.code == 2
        assert "were both given: the file says all of it" in said.err


def test_every_command_of_the_request_language_takes_a_flavor() -> None:
    """What takes --request takes --flavor."""

    def commands(group: click.Group) -> Iterator[click.Command]:
        for name in group.list_commands(click.Context(group)):
            command = group.get_command(click.Context(group), name)
            if isinstance(command, click.Group):
                yield from commands(command)
            elif command is not None:
                yield command

    taking = {
        option: sorted(str(command.name) for command in commands(cli) if any(option in each.opts for each in command.params))
        for option in ("--request", "--flavor")
    }
    assert taking["--request"] == taking["--flavor"]
    assert {"claim", "run", "fit", "why-not"} <= set(taking["--flavor"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "f:1:1: is empty"),
        ("flavor: [1", r"f:\d+:\d+: is not YAML: "),
        ("flavor: {vcpus: 2, vcpus: 3}", "f:1:20: 'vcpus' stands twice"),
        ("flavor: !!python/name:os.system {}", r"f:1:9: the tag '.*' is not followed"),
        ("flavor: &a {vcpus: 2}\nimage: *a", r"f:2:8: aliases of YAML \(\*name\) are not followed"),
        ("flavor: " + "[" * 40 + "]" * 40, "is nested deeper than 16"),
        ("? [a]\n: b", "a key is not a text"),
        ("flavor: {vcpus: 2}\n---\nflavor: {}", "is not YAML: "),
        ("flavor: \x07", "a character that YAML does not allow"),
        ("just a text", r"f:1:1: Expected `object`"),
        ("flavor:\n  vcpus: two", r"f:2:10: Expected `int`, got `str` - at `\$\.flavor\.vcpus`"),
        ("flavor: {vcpus: -1}", r"\$\.flavor\.vcpus"),
        ("flavor: {cpus: 2}", r"^f:1:16: Object contains unknown field `cpus` - at `\$\.flavor`; there are: vcpus, memory_mb, root_gb, "),
        ('{"vcpus": 2}', "^flavor f: Object contains unknown field `vcpus`; there are: flavor, image, boot_from_volume, aliases$"),
        ("flavor: {vcpus: 2}\nimage: {hw_x: 1}", r"unknown field `hw_x` - at `\$\.image`; there are: properties$"),
        ("flavor: {vcpus: 2}\naliases: [{vendor: 1}]", r"unknown field `vendor` - at `\$\.aliases\[0\]`; there are: name, vendor_id, "),
        ("flavor:\n  extra_specs:\n    b: c\n    hw:a: ", r"^f:4:10: Expected `str`, got `null` - at `\$\.flavor\.extra_specs\['hw:a'\]`"),
        ("flavor: {vcpus: 2}\nimage: {properties: {a: [1]}}", r"Expected `str`, got `array` - at `\$\.image\.properties\['a'\]`"),
        ("image: {}", "missing required field `flavor`"),
        (
            "flavor: {vcpus: 2}\naliases: [{name: a, numa_policy: near}]",
            r"value 'near' - at `\$\.aliases\[0\]\.numa_policy`; there are: required, ",
        ),
        ("{", "f: is not JSON: "),
        ('{"flavor": {"vcpus": 2, "vcpus": 3}}', "is not JSON: 'vcpus' stands twice"),
        ('{"flavor": {"vcpus": NaN}}', "is not JSON: NaN is no value"),
        ('{"flavor": {"vcpus": 1.5}}', r"\$\.flavor\.vcpus"),
        ('{"flavor": ' * 100_000, "is not JSON: "),
        ('{"flavor": {"vcpus": ' + "9" * 5000 + "}}", "is not JSON: "),
    ],
)
def test_what_is_wrong_with_a_file_is_said(text: str, message: str) -> None:
    """A file that is not understood is an error that names it, with line and column in YAML and the path in both forms."""
    with pytest.raises(InvalidRecord, match=message):
        read_flavor(text.encode(), "f")


def test_a_flavor_that_contradicts_itself_ends_with_2(earmark: Line) -> None:
    """What a flavor says wrong is the caller's fault, in words; with --json the kind is a fact of the problem."""
    wrong = '{"flavor": {"vcpus": 3, "memory_mb": 1024, "extra_specs": {"hw:numa_nodes": "2"}}}'
    said = earmark("claim --flavor -", stdin=wrong)
    assert said.code == 2
    assert said.err == "earmark: flavor: hw:numa_nodes = 2: 3 vCPUs and 1024 MiB cannot be split evenly\n"
    said = earmark("claim --json --flavor -", stdin=wrong)
    assert json.loads(said.err)["facts"]["kind"] == "ImageNUMATopologyAsymmetric"
    with pytest.raises(InvalidRecord, match="is not UTF-8"):
        read_flavor(b"\xff", "f")


def test_what_nothing_is_made_of_is_said(earmark: Line) -> None:
    """An extra spec of the spoken namespaces that no request depends on is named, as it may be misspelled; others are not."""
    specs = '{"hw:cpu_polcy": "dedicated", "hw:watchdog_action": "reset", "quota:cpu_shares": "1", "hw:cpu_threads": "1"}'
    said = earmark("fit --flavor -", stdin=f'{{"flavor": {{"vcpus": 1, "extra_specs": {specs}}}}}')
    assert said.code == 0
    assert said.err == "earmark: flavor standard input: passed over, as no request depends on it: hw:cpu_polcy, hw:watchdog_action\n"
    assert earmark("fit --flavor -", stdin=PLAIN).err == ""
    many = ", ".join(f'"hw:x{number}": ""' for number in range(9))
    assert earmark("fit --flavor -", stdin=f'{{"flavor": {{"vcpus": 1, "extra_specs": {{{many}}}}}}}').err.endswith("hw:x7, …\n")


@pytest.mark.parametrize(
    ("specs", "image", "passed"),
    [
        ({"hw:numa_cpus.0": "0", "hw:numa_mem.0": "64"}, {}, "hw:numa_cpus.0, hw:numa_mem.0"),
        (CELL | {"hw:numa_cpus.00": "0", "hw:numa_mem.2": "1"}, {}, "hw:numa_cpus.00, hw:numa_mem.2"),
        ({"hw:numa_nodes": "1"}, {"hw_numa_cpus.1": "0"}, "hw_numa_cpus.1 of the image"),
        (CELL, {"hw_numa_mem.1": "1"}, "hw_numa_mem.1 of the image"),
        ({"hw_numa_nodes": "2", "HW:CPU_POLICY": "x", " hw:pmem": "A"}, {}, "' hw:pmem', HW:CPU_POLICY, hw_numa_nodes"),
        ({"resource:VGPU": "1", "Trait:CUSTOM_A": "required", "resource_class": "x"}, {}, "Trait:CUSTOM_A, resource:VGPU, resource_class"),
        ({}, {"hw:numa_nodes": "2", "hw_cpu_polcy": "x", "hw_disk_bus": "virtio"}, "hw:numa_nodes of the image, hw_cpu_polcy of the image"),
        ({}, {"hw_cpu_dedicated_mask": "1", "resources:VGPU": "1"}, "hw_cpu_dedicated_mask of the image, resources:VGPU of the image"),
        ({"hw:cpu_realtime": "no", "hw:cpu_realtime_mask": "0"}, {"hw_cpu_realtime_mask": "0"}, "hw:cpu_realtime_mask"),
        (REAL_TIME | {"hw:cpu_realtime_mask": "0"}, {"hw_cpu_realtime_mask": "^1"}, "hw:cpu_realtime_mask"),
        (REAL_TIME | {"hw:cpu_realtime_mask": "0"}, {"hw_cpu_realtime_mask": "0"}, None),
        (REAL_TIME | {"hw:cpu_realtime_mask": "0"}, {}, None),
        ({"hw:mem_encryption_model": "amd-sev"}, {"hw_mem_encryption_model": "amd-sev"}, "hw:mem_encryption_model"),
        (
            {"hw:tpm_version": "2.0", "os:secure_boot": "required"},
            {"hw_tpm_version": "2.0", "os_secure_boot": "required"},
            "hw:tpm_version",
        ),
        ({"group_polcy": "none", "same_subtree": "_A,_B", "in_tree": "x"}, {}, "group_polcy, same_subtree"),
        (
            CELL | {"group_policy": "none", "hw:cpu_policy": "shared", "resources1:DISK_GB": "0", "trait:HW_A": "required"},
            {"trait:HW_B": "required"},
            None,
        ),
    ],
)
def test_what_is_idle_or_misspelled_is_said(specs: dict[str, str], image: dict[str, str], passed: str | None) -> None:
    """What looks like a word of the language and changes nothing is named: a cell behind a gap, another case, the other's spelling."""
    file = {"flavor": {"vcpus": 1, "memory_mb": 64, "extra_specs": specs}, "image": {"properties": image}}
    notes = read_flavor(json.dumps(file).encode(), "f").notes
    assert notes == (() if passed is None else (f"flavor f: passed over, as no request depends on it: {passed}",))


@pytest.mark.parametrize(("word", "root"), [("yes", 0), ("no", 1), ("True", 0), ("on", 0), ("0", 1)])
def test_boot_from_volume_is_said_in_any_word(word: str, root: int) -> None:
    """YAML's words for true and false do as well as true and false; another word is an error."""
    text = "flavor: {vcpus: 1, root_gb: 1}\nboot_from_volume: "
    assert read_flavor(f"{text}{word}\n".encode(), "f").request.disk_bytes == root * GIB
    with pytest.raises(InvalidFlavor, match="boot_from_volume = 'maybe': neither true nor false"):
        read_flavor(f"{text}maybe\n".encode(), "f")


def test_every_key_that_is_read_is_on_the_page() -> None:
    """The page of the language names each extra spec that is read, and the sources read each of them."""
    page = (ROOT / "docs/reference/flavors.md").read_text().replace("`_cores`, `_threads`", "")
    sources = "".join(path.read_text() for path in (ROOT / "src/earmark/core/flavor").glob("*.py") if path.stem != "unread")
    for key in READ:
        name = key.removeprefix("hw:")
        short = re.sub("_(cores|threads)$", "_sockets", name) if name.startswith(("cpu_max", "cpu_cores", "cpu_threads")) else name
        assert f"`hw:{short}`" in page or f"`{key}`" in page, key
        assert key in sources or f'"{name}"' in sources or short in ("cpu_sockets", "cpu_max_sockets"), key


@given(st.one_of(st.binary(max_size=60), st.text(max_size=60)))
def test_any_bytes_are_read_or_refused(content: bytes | str) -> None:
    """Whatever stands in a file is read, or is the caller's fault."""
    raw = content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")
    try:
        assert isinstance(read_file(raw, "f"), FlavorFile)
    except Invalid as error:
        assert isinstance(error, InvalidRecord | InvalidFlavor)


def test_json_needs_no_yaml(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without PyYAML a JSON file is read, and for a YAML file it is said what is missing."""
    for name in [name for name in sys.modules if name == "yaml" or name.startswith("yaml.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "earmark.drivers.plain_yaml", raising=False)
    monkeypatch.setitem(sys.modules, "yaml", None)
    assert read_flavor(PLAIN.encode(), "f").request.vcpus == 2
    with pytest.raises(InvalidRecord, match=r"PyYAML is not installed: pip install 'earmark\[yaml\]', or write it as JSON"):
        read_flavor(b"flavor: {vcpus: 1}", "f")
    monkeypatch.undo()
    importlib.import_module("earmark.drivers.plain_yaml")


def test_without_a_flavor_its_language_is_not_loaded() -> None:
    """A claim in the other words imports nothing of flavors."""
    script = "import sys, earmark.cli.claim; print([name for name in sys.modules if 'flavor' in name or name in ('yaml', 'json')])"
    done: Any = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
