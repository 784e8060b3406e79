"""What a program sees of GPUs: those of its claim by UUID, instances and shares too, and none of a vendor of which it was given none."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from msgspec.structs import replace
from tests.drivers.roots import Root, two_sockets
from tests.drivers.test_sysfs_shared import expected, unpacked

from earmark.core.fit.free import Free
from earmark.core.fit.layout import build_layout
from earmark.core.ledger.state import NodeState
from earmark.core.model.claim import Claim
from earmark.core.model.grant import AmountRow, Grant, UnitRow
from earmark.core.model.ids import ClaimId, ConsumerId, NodeId, Owner, UnitId, share_pool
from earmark.core.model.node import NodeSettings
from earmark.core.model.request import Request
from earmark.core.model.topology import MIG, Cell, Cpu, Device, Machine
from earmark.launch.formats import render, run_environment
from earmark.launch.portion import gpu_uuid, portion_of

A, B = "GPU-8e94a1c2-0001-4000-8000-00000000000a", "GPU-8e94a1c2-0001-4000-8000-00000000000b"
CUT = "MIG-8e94a1c2-0001-5000-8000-00000000000c"
NOTHING_OF_NVIDIA = {"CUDA_VISIBLE_DEVICES": "", "NVIDIA_VISIBLE_DEVICES": "void"}
NOTHING_OF_AMD = {"ROCR_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": "-1"}


def nvidia(name: str, kind: str = "gpu") -> Device:
    """Return a device of NVIDIA whose name is its UUID."""
    return Device(unit=UnitId(f"gpu:{name}"), kind=kind, vendor_id="10de")


AMD = Device(unit=UnitId("gpu:amd-0123456789abcdef"), kind="accelerator", vendor_id="1002", address="0000:c1:00.0")


def claim_on(devices: tuple[Device, ...], *amounts: AmountRow, whole: tuple[Device, ...] = ()) -> tuple[Claim, NodeState]:
    """Return a claim of the devices `whole` and some amounts, on a node that has `devices`."""
    rows = tuple(UnitRow(unit=device.unit, use="device") for device in whole)
    claim = Claim(
        id=ClaimId("c-7f3a"),
        node=NodeId("00000000-0000-4000-8000-000000000001"),
        consumer=ConsumerId("job-1"),
        owner=Owner("alice"),
        request=Request(),
        grant=Grant(units=rows, amounts=amounts),
    )
    machine = Machine(cpus=(Cpu(id=0, core=0, cell=0),), cells=(Cell(id=0, cpus=(0,)),), devices=devices)
    free = Free.recompute([(claim.id, claim.grant)])
    return claim, NodeState(node=claim.node, name="gpu1", machine=machine, layout=build_layout(machine, NodeSettings()), free=free)


def seen_by_run(claim: Claim, state: NodeState) -> dict[str, str]:
    """Return the variables about GPUs that a command of `run` gets."""
    return {name: value for name, value in run_environment(portion_of(claim, state)).items() if "VISIBLE" in name or "GPU" in name}


def test_a_run_without_gpus_sees_none() -> None:
    """A claim without GPUs sets every vendor's variable so that nothing is visible, in each tool's own way; formats leave them alone."""
    claim, state = claim_on((nvidia(A), AMD))
    assert seen_by_run(claim, state) == NOTHING_OF_NVIDIA | NOTHING_OF_AMD
    assert "VISIBLE" not in render("env", claim, state).text


def test_a_run_sees_the_gpus_of_its_claim_and_no_others() -> None:
    """Whole GPUs and instances go by UUID in the grant's order, and nothing of the other vendor is visible."""
    both = (nvidia(B), nvidia(CUT, MIG))
    claim, state = claim_on((nvidia(A), *both, AMD), whole=both)
    assert seen_by_run(claim, state) == {"CUDA_VISIBLE_DEVICES": f"{B},{CUT}", "NVIDIA_VISIBLE_DEVICES": f"{B},{CUT}"} | NOTHING_OF_AMD
    claim, state = claim_on((nvidia(A), AMD), whole=(AMD,))
    assert seen_by_run(claim, state) == {"ROCR_VISIBLE_DEVICES": "GPU-0123456789abcdef", "HIP_VISIBLE_DEVICES": "0"} | NOTHING_OF_NVIDIA


def test_a_share_shows_its_gpu_and_says_how_much() -> None:
    """A share's GPU is visible like a whole one, in run and in every format; how much of it stands beside, and that nothing enforces it."""
    claim, state = claim_on((nvidia(A), nvidia(B)), AmountRow(pool=share_pool(nvidia(B).unit), amount=250))
    found = seen_by_run(claim, state)
    assert (found["CUDA_VISIBLE_DEVICES"], found["EARMARK_GPU_SHARES"]) == (B, f"{B}=250")
    assert f"export CUDA_VISIBLE_DEVICES={B}" in render("env", claim, state).text
    assert f'"device={B}"' in shlex.split(render("docker", claim, state).text)
    assert f"nvidia.com/gpu={B}" in shlex.split(render("podman", claim, state).text)
    assert f"--setenv=CUDA_VISIBLE_DEVICES={B}" in shlex.split(render("systemd", claim, state).text)
    told = json.loads(render("json", claim, state).text)
    assert [device["share"] for device in told["devices"]] == [250]
    assert any("250/1000" in note for note in told["notes"])


def test_containers_get_instances_by_uuid() -> None:
    """Docker and podman take a MIG instance by its UUID; of several a CUDA program uses the first, which is said."""
    cut = tuple(nvidia(f"{CUT[:-1]}{digit}", MIG) for digit in "cd")
    claim, state = claim_on(cut, whole=cut)
    names = [device.unit[4:] for device in cut]
    assert f'"device={",".join(names)}"' in shlex.split(render("docker", claim, state).text)
    assert [f"nvidia.com/gpu={name}" for name in names] == [
        word for word in shlex.split(render("podman", claim, state).text) if "nvidia.com" in word
    ]
    assert any("only the first" in note for note in render("env", claim, state).notes)


def test_a_gpu_that_was_known_by_its_address_is_visible_by_its_uuid() -> None:
    """A GPU keeps the name that it was first seen under; its UUID is found in its identity."""
    device = Device(
        unit=UnitId("pci:0000:41:00.0"), kind="gpu", address="0000:41:00.0", vendor_id="10de", identity=f"10de:2330:10de:16c1:{A}"
    )
    claim, state = claim_on((device,), whole=(device,))
    assert seen_by_run(claim, state)["CUDA_VISIBLE_DEVICES"] == A


def test_a_gpu_without_uuid_hides_nothing_of_its_vendor() -> None:
    """A GPU whose UUID nobody knows leaves its vendor's variables as they were: empty ones would take it from the command."""
    device = Device(unit=UnitId("pci:0000:41:00.0"), kind="gpu", address="0000:41:00.0", vendor_id="10de")
    claim, state = claim_on((device,), whole=(device,))
    assert seen_by_run(claim, state) == NOTHING_OF_AMD


def test_a_serial_of_another_device_is_no_gpu() -> None:
    """Only a GPU's own serial becomes visible: a disk whose serial reads like a UUID does not."""
    disk = Device(unit=UnitId("nvme:X"), kind="nvme", vendor_id="144d", identity=f"144d:a80a:144d:a801:{A}")
    claim, state = claim_on((disk,), whole=(disk,))
    assert seen_by_run(claim, state) == NOTHING_OF_NVIDIA | NOTHING_OF_AMD
    assert gpu_uuid("amd-0123") is None


def mi300(root: Root) -> Device:
    """Put an AMD Instinct card (class 12, processing accelerator) on a machine and return what the driver sees of it."""
    root.device("0000:c1:00.0", "120000", "1002", "74a1", numa_node="1", unique_id="0123456789abcdef")
    return next(device for device in root.machine().devices if device.address == "0000:c1:00.0")


def test_an_amd_card_is_an_accelerator_that_rocm_finds(tmp_path: Path) -> None:
    """A card of AMD is handed out by default, is named by its unique id, and is what ROCR_VISIBLE_DEVICES names."""
    device = mi300(two_sockets(Root(tmp_path)))
    assert (device.unit, device.kind, device.cell) == (AMD.unit, "accelerator", 1)
    claim, state = claim_on((device,), whole=(device,))
    assert state.layout is not None
    assert device.unit in state.layout.grantable
    assert seen_by_run(claim, state)["ROCR_VISIBLE_DEVICES"] == "GPU-0123456789abcdef"
    unnamed = replace(device, unit=UnitId("pci:0000:c1:00.0"))
    claim, state = claim_on((unnamed,), whole=(unnamed,))
    assert seen_by_run(claim, state)["ROCR_VISIBLE_DEVICES"] == "GPU-0123456789abcdef"


@pytest.mark.long
@pytest.mark.shared
def test_an_amd_card_in_a_recorded_machine(shared: Path, tmp_path: Path) -> None:
    """On a recorded machine with eight accelerators of NEC, an AMD card beside them gets ROCm's variables, and those of NEC get none."""
    name = "32intel64-2p8co2t+8ve"
    root = Root(unpacked(shared, name, expected(shared)[name]["root"], tmp_path))
    card = mi300(root)
    machine = root.machine()
    others = tuple(device for device in machine.devices if device.kind == "accelerator" and device.unit != card.unit)
    assert len(others) == 8
    claim, state = claim_on(machine.devices, whole=(card, *others))
    assert seen_by_run(claim, state) == {"ROCR_VISIBLE_DEVICES": "GPU-0123456789abcdef", "HIP_VISIBLE_DEVICES": "0"} | NOTHING_OF_NVIDIA
