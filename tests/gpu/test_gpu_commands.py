"""The command line on a machine whose GPUs are described to NVML: claim, run, discover, and what a command sees."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.gpu.boxes_of_gpus import lines, pairs, unit, uuid
from tests.gpu.conftest import Describe

pytestmark = pytest.mark.long
START = "import sys; from earmark.cli.main import main; sys.argv = ['earmark', *sys.argv[1:]]; main()"
SHOW = "import os; print({name: value for name, value in sorted(os.environ.items()) if 'VISIBLE' in name})"


def earmark(folder: Path, *words: str, nvml: str = "always") -> subprocess.CompletedProcess[str]:
    """Run one command with a ledger of its own in a folder."""
    environment = {**os.environ, "XDG_STATE_HOME": str(folder), "EARMARK_NVML": nvml}
    return subprocess.run([sys.executable, "-c", START, *words], env=environment, capture_output=True, text=True, check=False, timeout=60)


def seen_by(folder: Path, *words: str) -> dict[str, str]:
    """Return the variables that a command of `earmark run` sees."""
    done = earmark(folder, "run", *words, "--", sys.executable, "-c", SHOW)
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout.replace("'", '"'))
    return found


def test_a_command_sees_its_gpus_by_uuid_and_no_others(describe: Describe, tmp_path: Path) -> None:
    """Of four GPUs a command sees the pair that it claimed, another the one that it named, and one that claimed none sees none."""
    describe(lines(4) + pairs(4))
    both = seen_by(tmp_path, "--gpus", "2", "--linked")
    assert both["CUDA_VISIBLE_DEVICES"] in {f"{uuid(0)},{uuid(1)}", f"{uuid(2)},{uuid(3)}"}
    assert both["NVIDIA_VISIBLE_DEVICES"] == both["CUDA_VISIBLE_DEVICES"]
    assert (both["ROCR_VISIBLE_DEVICES"], both["HIP_VISIBLE_DEVICES"]) == ("", "-1")
    assert seen_by(tmp_path, "--gpu", uuid(3))["CUDA_VISIBLE_DEVICES"] == uuid(3)
    none = seen_by(tmp_path, "--cpus", "1")
    assert (none["CUDA_VISIBLE_DEVICES"], none["NVIDIA_VISIBLE_DEVICES"]) == ("", "void")


def test_an_instance_is_claimed_and_seen_by_its_uuid(describe: Describe, tmp_path: Path) -> None:
    """`--device mig` and `--gpu MIG-…` give instances, and `--gpus` no GPU that is cut."""
    describe(lines(1) + f"mig 0 1 1\npart 0 {uuid(7, 'MIG')} 10737418240 NVIDIA_H100_MIG_1g.10gb\n")
    assert seen_by(tmp_path, "--device", "mig=1")["CUDA_VISIBLE_DEVICES"] == uuid(7, "MIG")
    assert seen_by(tmp_path, "--gpu", uuid(7, "MIG"))["CUDA_VISIBLE_DEVICES"] == uuid(7, "MIG")
    assert seen_by(tmp_path, "--device", "mig=1,profile=1g.10gb,memory=10G")["CUDA_VISIBLE_DEVICES"] == uuid(7, "MIG")
    assert earmark(tmp_path, "run", "--device", "mig=1,profile=2g.20gb", "--", "true").returncode == 3
    assert f"{unit(7, 'MIG')}  free" in (listed := earmark(tmp_path, "node", "devices").stdout)
    assert "10 GiB  -       profile=1g.10gb" in listed
    refused = earmark(tmp_path, "run", "--gpus", "1", "--", "true")
    assert refused.returncode == 3


def test_a_gpu_is_claimed_by_its_memory(describe: Describe, tmp_path: Path) -> None:
    """`--gpu-memory` gives GPUs that have so much, and says no with what the others have; the list of devices shows it."""
    describe(lines(1) + f"gpu 0000:42:00.0 {uuid(1)} 25769803776 NVIDIA_L4\nmig 0 0 0\n")
    listed = earmark(tmp_path, "node", "devices")
    assert [words for line in listed.stdout.splitlines() if (words := line.split())[:1] == [unit(1)]] == [
        [unit(1), "free", "gpu", "-", "24", "GiB", "-", "-"]
    ]
    told = {row["unit"]: row["memory_bytes"] for row in json.loads(earmark(tmp_path, "node", "devices", "--json").stdout)["devices"]}
    assert (told[unit(0)], told[unit(1)]) == (80 << 30, 24 << 30)
    assert seen_by(tmp_path, "--gpus", "1", "--gpu-memory", "24G")["CUDA_VISIBLE_DEVICES"] == uuid(1)
    assert seen_by(tmp_path, "--gpus", "1", "--gpu-memory", "25G")["CUDA_VISIBLE_DEVICES"] == uuid(0)
    refused = earmark(tmp_path, "why-not", "--gpus", "2", "--gpu-memory", "40G")
    assert "1 of this kind can be given now (at least 40 GiB each); the others have 24 GiB" in refused.stdout
    assert "fits if gpu with 24 GiB instead of 40 GiB" in refused.stdout


def test_a_share_is_claimed_and_its_gpu_is_seen(describe: Describe, tmp_path: Path) -> None:
    """A GPU whose shares are declared is given in parts until they are used up."""
    describe(lines(1))
    policy = tmp_path / "devices.yaml"
    policy.write_text("version: 1\nrules:\n  - units: [" + unit(0) + "]\n    shares: true\n")
    told = earmark(tmp_path, "node", "devices", "--policy", str(policy))
    assert told.returncode == 0, told.stderr
    first = earmark(tmp_path, "claim", "--gpu-share", "0.75", "--format", "env")
    assert f"CUDA_VISIBLE_DEVICES={uuid(0)}" in first.stdout, first.stderr
    assert f"EARMARK_GPU_SHARES={uuid(0)}=750" in first.stdout
    assert earmark(tmp_path, "claim", "--gpu-share", "0.5").returncode == 3
    assert seen_by(tmp_path, "--gpu-share", "250")["CUDA_VISIBLE_DEVICES"] == uuid(0)


def test_discover_says_what_nvml_could_not(describe: Describe, tmp_path: Path) -> None:
    """A lost GPU is a note of `discover`, with the words of the driver; asked never, nothing of NVML is said."""
    describe(lines(2) + "error 1 15 memory\n")
    said = earmark(tmp_path, "discover", "--json")
    told = json.loads(said.stdout)
    assert [device["fault"] for device in told["devices"] if device["kind"] == "gpu"] == [None, "GPU is lost (NVML 15, memory)"]
    assert any("GPU is lost" in note for note in told["notes"])
    quiet = json.loads(earmark(tmp_path, "discover", "--json", nvml="never").stdout)
    assert not [note for note in quiet["notes"] if "NVML" in note]
