"""Device policy files: what they say, in three forms, and that what is wrong with one is told with its place."""

from __future__ import annotations

import json
import os
import random
import re
import time
from pathlib import Path

import msgspec
import pytest
from tests.mutations import mutated

from earmark.core.fit.devices.policy import check_policy
from earmark.core.fit.layout import build_layout
from earmark.core.model.device_rule import DeviceRule, NamedResource
from earmark.core.model.ids import ResourceClass, Trait, UnitId
from earmark.core.model.node import NetworkCells, NodeSettings
from earmark.drivers import device_policy
from earmark.drivers.device_policy import DevicePolicy, read_device_policy
from earmark.errors import InvalidRecord, InvalidRequest
from earmark.testing import machine

YAML = """\
version: 1
keep_iommu_groups: true
rules:
  - address: 0000:41:00.*
    vendor_id: 10de
    product_id: 2331
    mdev_type: nvidia-35
    max_instances: 4
    live_migratable: true
  - dev_type: VF
    kind: fast-nic
    tags: {physical_network: physnet1, trusted: true}
    traits: [CUSTOM_FAST]
    resource_class: CUSTOM_VF
  - units: ["gpu:GPU-1", "pci:0000:42:00.0"]
    shares: true
  - observed_kind: nvme
    one_time_use: true
  - hand_out: false
named_resources:
  CUSTOM_LICENCE: [dongle-1, {name: dongle-2, cell: 0}]
  CUSTOM_PMEM_NAMESPACE_4GB: [ns0]
network_cells: {physnet1: [1, 0, 1], physnet2: []}
tunnel_cells: [0]
"""
TREE = {
    "version": 1,
    "keep_iommu_groups": True,
    "rules": [
        {
            "address": "0000:41:00.*", "vendor_id": "10de", "product_id": "2331", "mdev_type": "nvidia-35", "max_instances": 4,
            "live_migratable": True,
        },
        {
            "dev_type": "VF", "kind": "fast-nic", "tags": {"physical_network": "physnet1", "trusted": "true"}, "traits": ["CUSTOM_FAST"],
            "resource_class": "CUSTOM_VF",
        },
        {"units": ["gpu:GPU-1", "pci:0000:42:00.0"], "shares": True},
        {"observed_kind": "nvme", "one_time_use": True},
        {"hand_out": False},
    ],
    "named_resources": {"CUSTOM_LICENCE": ["dongle-1", {"name": "dongle-2", "cell": 0}], "CUSTOM_PMEM_NAMESPACE_4GB": ["ns0"]},
    "network_cells": {"physnet1": [1, 0, 1], "physnet2": []},
    "tunnel_cells": [0],
}  # fmt: skip
TOML = """\
version = 1
keep_iommu_groups = true
tunnel_cells = [0]
[[rules]]
address = "0000:41:00.*"
vendor_id = "10de"
product_id = "2331"
mdev_type = "nvidia-35"
max_instances = 4
live_migratable = true
[[rules]]
dev_type = "VF"
kind = "fast-nic"
tags = {physical_network = "physnet1", trusted = "true"}
traits = ["CUSTOM_FAST"]
resource_class = "CUSTOM_VF"
[[rules]]
units = ["gpu:GPU-1", "pci:0000:42:00.0"]
shares = true
[[rules]]
observed_kind = "nvme"
one_time_use = true
[[rules]]
hand_out = false
[named_resources]
CUSTOM_LICENCE = ["dongle-1", {name = "dongle-2", cell = 0}]
CUSTOM_PMEM_NAMESPACE_4GB = ["ns0"]
[network_cells]
physnet1 = [1, 0, 1]
physnet2 = []
"""
FORMS = {"yaml": YAML, "yml": YAML, "json": json.dumps(TREE, indent=1), "toml": TOML}
LICENCE, SPACE = ResourceClass("CUSTOM_LICENCE"), ResourceClass("CUSTOM_PMEM_NAMESPACE_4GB")
POLICY = DevicePolicy(
    rules=(
        DeviceRule(
            address="0000:41:00.*", vendor_id="10de", product_id="2331", mdev_type="nvidia-35", max_instances=4, live_migratable=True
        ),
        DeviceRule(
            dev_type="VF", kind="fast-nic", tags={"physical_network": "physnet1", "trusted": "true"}, traits=(Trait("CUSTOM_FAST"),),
            resource_class=ResourceClass("CUSTOM_VF"),
        ),
        DeviceRule(units=(UnitId("gpu:GPU-1"), UnitId("pci:0000:42:00.0")), shares=True),
        DeviceRule(observed_kind="nvme", one_time_use=True),
        DeviceRule(hand_out=False),
    ),
    named_resources=(
        NamedResource(resource_class=LICENCE, name="dongle-1"), NamedResource(resource_class=LICENCE, name="dongle-2", cell=0),
        NamedResource(resource_class=SPACE, name="ns0"),
    ),
    network_cells=(
        NetworkCells(network="", cells=(0,)), NetworkCells(network="physnet1", cells=(0, 1)), NetworkCells(network="physnet2", cells=()),
    ),
    keep_iommu_groups=True,
)  # fmt: skip


def file(folder: Path, name: str, text: str | bytes) -> Path:
    """Write a policy file that only its owner may write."""
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(0o644)
    return path


def fault(folder: Path, name: str, text: str | bytes) -> str:
    """Return what is said of a file that must be refused, without the folder."""
    with pytest.raises(InvalidRecord) as caught:
        read_device_policy(file(folder, name, text))
    return caught.value.message.removeprefix(f"{folder}/")


@pytest.mark.rule("P18", "V1", "V6")
@pytest.mark.parametrize("name", ["a.yaml", "a.YML", "a.json", "a.toml"])
def test_three_forms_say_the_same(tmp_path: Path, name: str) -> None:
    """YAML, JSON and TOML of one policy are read alike."""
    assert read_device_policy(file(tmp_path, name, FORMS[name.lower().partition(".")[2]])) == POLICY


def test_a_policy_stands_in_the_place_of_the_one_before(tmp_path: Path) -> None:
    """What a file does not say is not said any more; every other setting stays."""
    empty = read_device_policy(file(tmp_path, "a.json", '{"version": 1}'))
    before = POLICY.over(NodeSettings(reserved_host_cpus=2))
    assert before.device_rules == POLICY.rules
    assert empty.over(before) == NodeSettings(reserved_host_cpus=2)


WRONG: list[tuple[str, str, str]] = [
    ("a.yaml", "version: 2", "a.yaml:1:10: version: Invalid enum value 2"),
    ("a.yaml", "rules: []", "a.yaml:1:1: Object missing required field `version`"),
    ("a.yaml", "version: 1\nrules:\n  - kind: gpu\n    colour: red", "a.yaml:3:5: rules[0]: Object contains unknown field `colour`"),
    ("a.yaml", "version: 1\nrules:\n  - max_instances: many", "a.yaml:3:20: rules[0].max_instances: Expected `int | null`, got `str`"),
    ("a.yaml", "version: 1\nrules:\n  - hand_out: perhaps", "a.yaml:3:15: rules[0].hand_out: Expected `bool`, got `str`"),
    (
        "a.yaml",
        "version: 1\nrules:\n  - {}\n  - vendor_id: intel",
        "a.yaml:4:5: device rule 2: vendor_id 'intel' is not four hexadecimal digits or *",
    ),
    (
        "a.yaml",
        "version: 1\nrules:\n  - {}\n  - address: '*'",
        "a.yaml:4:5: device rule 2 matches exactly what rule 1 matches: it would never count",
    ),
    ("a.yaml", "version: 1\nnamed_resources:\n  CUSTOM_X: [a, a]", "a.yaml:3:3: named_resources: named resource CUSTOM_X/a is there twice"),
    ("a.yaml", "version: 1\nrules: [!!python/object {}]", "a.yaml:2:9: the tag"),
    ("a.yaml", "version: 1\nrules: &x []\nnetwork_cells: *x", "a.yaml:3:16: aliases of YAML"),
    ("a.yaml", "version: 1\nversion: 1", "a.yaml:2:1: 'version' stands twice"),
    ("a.yaml", "", "a.yaml:1:1: is empty"),
    ("a.yaml", "version: 1\nrules: {", "a.yaml:2:9: is not YAML"),
    ("a.json", '{"version": 1, "rules": [{"vendor_id": 8086}]}', "a.json: rules[0].vendor_id: Expected `str | null`, got `int`"),
    ("a.json", '{"version": 1, "rules": [{"hand_out": 1}]}', "a.json: rules[0].hand_out: Expected `bool`, got `int`"),
    ("a.json", '{"version": 1, "version": 1}', "a.json: is not JSON: 'version' stands twice"),
    ("a.json", '{"version": NaN}', "a.json: is not JSON: NaN is no value"),
    ("a.json", '{"version": 1,\n}', "a.json:2:1: is not JSON"),
    ("a.json", "[" * 100_000, "a.json: is not JSON"),
    ("a.json", '{"version": 1, "tunnel_cells": [-1]}', "a.json: tunnel_cells[0]: Expected `int` >= 0"),
    ("a.toml", "version = 1\nversion = 1", "a.toml: is not TOML"),
    ("a.toml", "version = 1\n[[rules]]\nvendor_id = 0x10de", "a.toml: rules[0].vendor_id: Expected `str | null`, got `int`"),
    ("a.toml", "version = 1\nkeep_iommu_groups = 2026-01-01", "a.toml: keep_iommu_groups: Expected `bool`"),
    ("a.txt", "version: 1", "a.txt: a device policy file ends in one of .yaml, .yml, .json, .toml"),
]


@pytest.mark.rule("W48")
@pytest.mark.parametrize(("name", "text", "said"), WRONG)
def test_what_is_wrong_is_told_with_its_place(tmp_path: Path, name: str, text: str, said: str) -> None:
    """The file, the place in it and what was found; nothing of a wrong file is used."""
    assert fault(tmp_path, name, text).startswith(said)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    """What is not UTF-8 is told with its line; a byte order mark is passed over."""
    assert fault(tmp_path, "a.yaml", b"version: 1\n# \xff").startswith("a.yaml:2:1: is not UTF-8")
    assert read_device_policy(file(tmp_path, "a.yaml", b"\xef\xbb\xbfversion: 1")).rules == ()


@pytest.mark.rule("W48")
def test_only_a_file_that_nobody_else_can_write_is_read(tmp_path: Path) -> None:
    """A file of others, one that others may write, a folder, a pipe, a file that is too large or absent are refused; a link is followed."""
    path = file(tmp_path, "a.json", '{"version": 1}')
    (tmp_path / "link.json").symlink_to(path)
    assert read_device_policy(tmp_path / "link.json").rules == ()
    for mode in (0o664, 0o646):
        path.chmod(mode)
        with pytest.raises(InvalidRecord, match=f"may be written by others .mode {mode:04o}.: chmod go-w it"):
            read_device_policy(path)
    (tmp_path / "folder.json").mkdir()
    os.mkfifo(tmp_path / "pipe.json", 0o600)
    for name, words in (
        ("folder.json", "is not a regular file|cannot be read"),
        ("pipe.json", "is not a regular file"),
        ("none.json", "cannot be read"),
    ):
        with pytest.raises(InvalidRecord, match=words):
            read_device_policy(tmp_path / name)
    assert (
        fault(tmp_path, "b.json", b" " * (device_policy.FILE_BYTES_MAX + 1))
        == f"b.json: is larger than {device_policy.FILE_BYTES_MAX} bytes"
    )
    if os.geteuid() == 0:
        os.chown(path, 65534, 65534)
        path.chmod(0o644)
        with pytest.raises(InvalidRecord, match="belongs to uid 65534, neither to root nor to you"):
            read_device_policy(path)


# --- any file -------------------------------------------------------------------------------------------------------------------------

MUTATIONS = 1500
SECONDS_MOST = 2.0
PLACE = re.compile(r"[^\n]*\.(yaml|json|toml)(:\d+:\d+)?: .+", re.DOTALL)
SCRAPS = (
    "'", '"', "{", "}", "[", "]", ":", ": ", "- ", "&a ", "*a", "!!int ", "|\n", "%", "#", "\t", "\n", "\n---\n", "<<: ", "null", "~", "1e400", "-1",
    "99999999999999999999", "0x1F", "2001-01-01", ".inf", "\0", "\x85", "\ufeff", "\U0001f600", "VCPU", "mdev_type", "units", "rules", "true", "*", "a" * 300,
)  # fmt: skip


@pytest.mark.long
@pytest.mark.rule("P18", "W48")
@pytest.mark.parametrize("name", ["x.yaml", "x.json", "x.toml"])
def test_a_mutated_file_is_read_or_refused_with_its_place(tmp_path: Path, name: str) -> None:
    """Thousands of files near a good one end with a policy that a node can have, or with InvalidRecord that names the file; and soon."""
    luck = random.Random(20261123)  # noqa: S311 - a test that can be repeated
    text = FORMS[name.removeprefix("x.")]
    box = machine("2x4c 8G gpu:2 vf:3")
    good = 0
    for number in range(MUTATIONS):
        path = file(tmp_path, name, mutated(text, SCRAPS, luck))
        began = time.monotonic()
        try:
            settings = read_device_policy(path).over(NodeSettings())
        except InvalidRecord as error:
            assert PLACE.fullmatch(error.message), (number, error.message)
        else:
            good += 1
            assert msgspec.json.decode(msgspec.json.encode(settings), type=NodeSettings) == settings
            try:
                check_policy(box, settings)
                build_layout(box, settings)
            except InvalidRequest as error:
                assert "cell" in error.message, (number, error.message)
        assert time.monotonic() - began < SECONDS_MOST, number
    assert 0.02 * MUTATIONS < good < 0.9 * MUTATIONS, good
