"""Formats for other launchers: read back by a real shell, with hostile names."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from earmark.core.fit.free import Free
from earmark.core.fit.layout import build_layout
from earmark.core.ledger.state import NodeState
from earmark.core.model.claim import Claim
from earmark.core.model.grant import AmountRow, Grant, GrantCell, Pin, UnitRow
from earmark.core.model.ids import ClaimId, ConsumerId, NodeId, Owner, PoolId, UnitId
from earmark.core.model.node import NodeSettings
from earmark.core.model.request import Request
from earmark.core.model.topology import Cell, Cpu, Device, Machine, PagePool
from earmark.errors import InvalidRequest
from earmark.launch.formats import FORMATS, render

GIB = 1 << 30
MIB = 1 << 20
UUID_A = "GPU-8e94a1c2-0001-4000-8000-00000000000a"
UUID_B = "GPU-8e94a1c2-0001-4000-8000-00000000000b"
HOSTILE = [
    "'; touch pwned; '",
    "$(touch pwned)",
    "`touch pwned`",
    "a b",
    'say "hi"',
    "%h %% %n",
    "$HOME ${HOME}",
    "\x1b[31mred",
    "a\nb\n",
    "-rf",
    "*",
    "~",
    "\\",
    "éü東",
    "=;&|<>#!",
]


def machine(devices: tuple[Device, ...] = ()) -> Machine:
    """Return a machine of two cells with four CPUs and 8 GiB each, 2 GiB of it in huge pages."""
    return Machine(
        cpus=tuple(Cpu(id=cpu, core=cpu, cell=cpu // 4) for cpu in range(8)),
        cells=tuple(
            Cell(id=cell, cpus=tuple(range(4 * cell, 4 * cell + 4)), memory_bytes=8 * GIB, pages=(PagePool(size_kib=2048, total=1024),))
            for cell in (0, 1)
        ),
        devices=devices,
    )


def state_with(claim: Claim, *others: Claim, devices: tuple[Device, ...] = ()) -> NodeState:
    """Return a node on which some claims live."""
    found = machine(devices)
    layout = build_layout(found, NodeSettings())
    live = [claim, *others]
    return NodeState(
        node=claim.node, name="gpu1", machine=found, layout=layout, free=Free.recompute([(each.id, each.grant) for each in live])
    )


def claim_of(grant: Grant, consumer: str = "job-1", claim: str = "c-7f3a") -> Claim:
    """Return a confirmed claim with a grant."""
    return Claim(
        id=ClaimId(claim),
        node=NodeId("00000000-0000-4000-8000-000000000001"),
        consumer=ConsumerId(consumer),
        owner=Owner("alice"),
        request=Request(),
        grant=grant,
    )


def units(*names: str, use: str = "vcpu") -> tuple[UnitRow, ...]:
    """Return unit rows of one use."""
    return tuple(UnitRow(unit=UnitId(name), use="vcpu" if use == "vcpu" else "device") for name in names)


DEDICATED = Grant(
    units=units("cpu:4", "cpu:5", "cpu:6"),
    amounts=(AmountRow(pool=PoolId("pages:1:4"), amount=GIB // 4096),),
    cells=(GrantCell(guest_cell=0, host_cell=1, pins=(Pin(vcpu=0, cpu=4), Pin(vcpu=1, cpu=5), Pin(vcpu=2, cpu=6)), memory_bytes=GIB),),
)


def words(name: str, claim: Claim, state: NodeState) -> list[str]:
    """Return the words of a format as a shell splits them."""
    return shlex.split(render(name, claim, state).text)


def after(found: list[str], option: str) -> list[str]:
    """Return the values that follow each occurrence of an option."""
    return [found[index + 1] for index, word in enumerate(found) if word == option]


def test_systemd_names_cpus_cells_and_memory() -> None:
    """A dedicated claim becomes a scope with AllowedCPUs, AllowedMemoryNodes and MemoryMax, ready for a command."""
    claim = claim_of(DEDICATED)
    found = words("systemd", claim, state_with(claim))
    assert found[:2] == ["systemd-run", "--scope"]
    assert found[-1] == "--"
    assert after(found, "-p") == ["AllowedCPUs=4-6", "AllowedMemoryNodes=1", f"MemoryMax={GIB}"]
    assert "--setenv=OMP_NUM_THREADS=3" in found
    assert "--setenv=EARMARK_CLAIM=c-7f3a" in found


@pytest.mark.parametrize("program", ["docker", "podman"])
def test_containers_get_cpuset_memory_and_label(program: str) -> None:
    """A dedicated claim becomes --cpuset-cpus, --cpuset-mems, --memory and the label by which an audit finds the container."""
    claim = claim_of(DEDICATED)
    found = words(program, claim, state_with(claim))
    assert found[:2] == [program, "run"]
    assert after(found, "--cpuset-cpus") == ["4-6"]
    assert after(found, "--cpuset-mems") == ["1"]
    assert after(found, "--memory") == [f"{GIB}b"]
    assert after(found, "--label") == ["earmark.claim=c-7f3a", "earmark.consumer=job-1"]


def test_qm_pins_and_binds_the_guest() -> None:
    """A dedicated claim with huge pages becomes affinity, cores, memory in MiB, hugepages, numa0 and hostpci0."""
    device = Device(unit=UnitId("gpu:" + UUID_A), kind="gpu", address="0000:41:00.0", vendor_id="10de")
    grant = Grant(
        units=DEDICATED.units + units(device.unit, use="device"),
        amounts=(AmountRow(pool=PoolId("pages:1:2048"), amount=512),),
        cells=(GrantCell(guest_cell=0, host_cell=1, pins=DEDICATED.cells[0].pins, memory_bytes=GIB, page_kib=2048),),
    )
    claim = claim_of(grant, consumer="104")
    found = words("qm", claim, state_with(claim, devices=(device,)))
    assert found[:3] == ["qm", "set", "104"]
    options = dict(zip(found[3::2], found[4::2], strict=True))
    assert options == {
        "--affinity": "4-6",
        "--sockets": "1",
        "--cores": "3",
        "--memory": "1024",
        "--hugepages": "2",
        "--numa": "1",
        "--numa0": "cpus=0-2,hostnodes=1,memory=1024,policy=bind",
        "--hostpci0": "0000:41:00.0",
    }


def test_qm_asks_for_the_number_of_a_vm_that_it_does_not_know(tmp_path: Path) -> None:
    """A consumer that is no VM number is never taken for one: the line uses $VMID, and stops where that is not set."""
    claim = claim_of(DEDICATED, consumer="104; rm -rf /")
    line = render("qm", claim, state_with(claim)).text
    stub(tmp_path, "qm")
    assert run_line(tmp_path, line, VMID="12")[1:3] == ["set", "12"]
    done = subprocess.run(["/bin/sh", "-c", line], env={"PATH": str(tmp_path)}, capture_output=True, check=False)
    assert done.returncode != 0


def test_gpus_go_by_uuid_and_devices_by_address() -> None:
    """NVIDIA's and AMD's variables hold UUIDs in the grant's order; HIP counts what ROCR leaves; addresses stand beside."""
    devices = (
        Device(unit=UnitId("gpu:" + UUID_A), kind="gpu", address="0000:41:00.0", vendor_id="10de"),
        Device(unit=UnitId("gpu:" + UUID_B), kind="gpu", address="0000:81:00.0", vendor_id="0x1002"),
        Device(unit=UnitId("pci:0000:c1:00.0"), kind="nvme", address="0000:c1:00.0"),
    )
    claim = claim_of(Grant(units=units(*(device.unit for device in devices), use="device")))
    told = json.loads(render("json", claim, state_with(claim, devices=devices)).text)["environment"]
    assert told["CUDA_VISIBLE_DEVICES"] == told["NVIDIA_VISIBLE_DEVICES"] == UUID_A
    assert told["ROCR_VISIBLE_DEVICES"] == UUID_B
    assert told["HIP_VISIBLE_DEVICES"] == "0"
    assert told["EARMARK_PCI"] == "0000:41:00.0,0000:81:00.0,0000:c1:00.0"
    assert "OMP_NUM_THREADS" not in told


def test_container_engines_take_gpus_in_their_own_way() -> None:
    """Docker takes --gpus with a quoted device list, podman the CDI names, and both the vfio groups."""
    devices = (
        Device(unit=UnitId("gpu:" + UUID_A), kind="gpu", vendor_id="10de"),
        Device(unit=UnitId("gpu:" + UUID_B), kind="gpu", vendor_id="10de"),
        Device(unit=UnitId("pci:0000:c1:00.0"), kind="nvme", address="0000:c1:00.0", driver="vfio-pci", iommu_group=7),
    )
    claim = claim_of(Grant(units=units(*(device.unit for device in devices), use="device")))
    state = state_with(claim, devices=devices)
    assert after(words("docker", claim, state), "--gpus") == [f'"device={UUID_A},{UUID_B}"']
    assert after(words("docker", claim, state), "--device") == ["/dev/vfio/vfio", "/dev/vfio/7"]
    assert after(words("podman", claim, state), "--device")[:2] == [f"nvidia.com/gpu={UUID_A}", f"nvidia.com/gpu={UUID_B}"]


def test_what_a_format_cannot_say_is_a_note() -> None:
    """A GPU without a UUID, a device that is gone and shared CPUs are named beside the text, never left out in silence."""
    gpu = Device(unit=UnitId("pci:0000:41:00.0"), kind="gpu", address="0000:41:00.0", vendor_id="10de")
    grant = Grant(units=units(gpu.unit, "pci:0000:99:00.0", use="device"), amounts=(AmountRow(pool=PoolId("vcpu"), amount=2),))
    claim = claim_of(grant)
    notes = " / ".join(render("docker", claim, state_with(claim, devices=(gpu,))).notes)
    assert "pci:0000:41:00.0: the GPU's UUID is not known" in notes
    assert "pci:0000:99:00.0 is not on the machine any more" in notes
    assert "shared with others" in notes


def test_shared_claims_stay_off_dedicated_cpus() -> None:
    """A claim of shared vCPUs may use what no dedicated claim holds, and is told how many threads it asked for."""
    shared = claim_of(Grant(amounts=(AmountRow(pool=PoolId("vcpu"), amount=2), AmountRow(pool=PoolId("memory"), amount=5 * MIB))))
    pinned = claim_of(DEDICATED, claim="c-aaaa")
    found = json.loads(render("json", shared, state_with(shared, pinned)).text)
    assert found["cpus"] == [0, 1, 2, 3, 7]
    assert found["exclusive"] is False
    assert found["environment"]["OMP_NUM_THREADS"] == "2"
    assert found["memory_bytes"] == 5 * MIB
    assert found["memory_cells"] == []


def test_huge_pages_are_not_part_of_the_memory_limit() -> None:
    """Memory in huge pages is not counted by a memory limit: 1 GiB of them gives no MemoryMax, and says its cell and size."""
    grant = Grant(units=DEDICATED.units, amounts=(AmountRow(pool=PoolId("pages:1:2048"), amount=512),))
    claim = claim_of(grant)
    found = json.loads(render("json", claim, state_with(claim)).text)
    assert found["memory_bytes"] == 0
    assert found["memory_cells"] == [1]
    assert found["pages"] == [{"cell": 1, "size_kib": 2048, "number": 512}]
    assert not [word for word in words("systemd", claim, state_with(claim)) if "MemoryMax" in word]


def test_another_format_is_refused_with_the_list() -> None:
    """An unknown format is the caller's error, and the message lists the known ones."""
    claim = claim_of(DEDICATED)
    with pytest.raises(InvalidRequest, match="env, systemd, docker, podman, qm, json"):
        render("xml", claim, state_with(claim))


# --- hostile values, through a real shell ---------------------------------------------------------------------------------------------


def stub(folder: Path, name: str) -> None:
    """Write a program that prints its own name and arguments, each ended by a NUL."""
    program = folder / name
    program.write_text(f"#!/bin/sh\nprintf '%s\\0' {name} \"$@\"\n")
    program.chmod(0o755)


def run_line(folder: Path, line: str, **environment: str) -> list[str]:
    """Return the words that a program got when a shell ran `eval` on a line, as a person would."""
    done = subprocess.run(
        ["/bin/sh", "-c", 'eval "$LINE"'],
        env={"PATH": str(folder), "LINE": line, **environment},
        cwd=folder,
        capture_output=True,
        check=True,
    )
    return done.stdout.decode().split("\0")[:-1]


@pytest.mark.parametrize("consumer", HOSTILE)
@pytest.mark.parametrize("name", ["systemd", "docker", "podman"])
def test_hostile_names_reach_the_launcher_as_they_are(tmp_path: Path, name: str, consumer: str) -> None:
    """Whatever a consumer is called, the launcher gets exactly that text, nothing is run, and no word is split."""
    claim = claim_of(DEDICATED, consumer=consumer)
    rendering = render(name, claim, state_with(claim))
    program = shlex.split(rendering.text)[0]
    stub(tmp_path, program)
    got = run_line(tmp_path, rendering.text)
    assert got == shlex.split(rendering.text)
    expected = f"--description=earmark claim c-7f3a of {consumer}" if name == "systemd" else f"earmark.consumer={consumer}"
    assert expected in got
    assert [path.name for path in tmp_path.iterdir()] == [program]


@settings(max_examples=40)
@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40))
def test_any_text_survives_quoting_and_a_real_shell(text: str) -> None:
    """For any text without NUL, what a shell's eval sets is the text."""
    line = f"export EARMARK_X={shlex.quote(text)}"
    done = subprocess.run(["/bin/sh", "-c", 'eval "$LINE"; printf %s "$EARMARK_X"'], env={"LINE": line}, capture_output=True, check=True)
    assert done.stdout == text.encode()


@settings(max_examples=25)
@given(st.lists(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=30), min_size=1, max_size=3, unique=True))
def test_hostile_device_names_never_reach_a_variable(locals_of_units: list[str]) -> None:
    """A unit whose name is no UUID and no address stands in no *_VISIBLE_DEVICES and no --gpus; env stays evaluable."""
    assume(not any(local.startswith(("GPU-", "MIG-")) for local in locals_of_units))
    names = [f"gpu:{local}" for local in locals_of_units]
    devices = tuple(Device(unit=UnitId(name), kind="gpu", address="$(touch pwned)", vendor_id="10de") for name in sorted(names))
    claim = claim_of(Grant(units=units(*sorted(names), use="device")))
    state = state_with(claim, devices=devices)
    script = render("env", claim, state).text + "env"
    done = subprocess.run(["/bin/sh", "-c", script], env={"PATH": "/usr/bin:/bin"}, capture_output=True, check=True)
    assert not [line for line in done.stdout.decode().splitlines() if "VISIBLE" in line or "PCI" in line]
    assert after(words("docker", claim, state), "--gpus") == []


def test_json_escapes_what_a_terminal_would_obey() -> None:
    """The JSON is one line without control characters, and decodes to the very name."""
    claim = claim_of(DEDICATED, consumer="\x1b]0;title\x07\n\x9b")
    text = render("json", claim, state_with(claim)).text
    assert text.endswith("}\n")
    assert "\x1b" not in text
    assert text.count("\n") == 1
    assert json.loads(text)["consumer"] == claim.consumer


def test_every_format_renders_an_empty_claim() -> None:
    """A claim of nothing but a named class renders in every format, and names the claim."""
    claim = claim_of(Grant(amounts=(AmountRow(pool=PoolId("class:CUSTOM_LICENCE"), amount=1),)))
    state = state_with(claim)
    for name in FORMATS:
        assert render(name, claim, state).text
        assert name == "qm" or "c-7f3a" in render(name, claim, state).text
