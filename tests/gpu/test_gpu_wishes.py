"""GPUs on the command line: whole ones, linked ones, named ones, parts, and devices with what they must match."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from earmark.cli.device_wishes import gpu_unit, gpu_wishes, parse_device, parse_share
from earmark.cli.phrases import device_words
from earmark.cli.request_options import request_options
from earmark.core.model.ids import UnitId
from earmark.core.model.request import DeviceRequest
from earmark.core.model.units import GIB
from earmark.errors import InvalidRequest

A, B = "GPU-8e94a1c2-0001-4000-8000-00000000000a", "GPU-8e94a1c2-0001-4000-8000-00000000000b"
CUT = "MIG-8e94a1c2-0001-5000-8000-00000000000c"


def units(*names: str) -> tuple[UnitId, ...]:
    """Return the units of GPUs that are named by their UUIDs."""
    return tuple(UnitId(f"gpu:{name}") for name in names)


def wish(
    count: int | None = None, *names: str, share: str | None = None, memory: str | None = None, linked: bool = False
) -> tuple[DeviceRequest, ...]:
    """Return what the options for GPUs ask for."""
    return gpu_wishes(count, names, share, memory, linked=linked)


def test_options_for_gpus_become_one_wish() -> None:
    """A number, linked ones, all that are named, some of those named, a part, and instances are each one DeviceRequest."""
    assert wish() == wish(0) == ()
    assert wish(2) == (DeviceRequest(kind="gpu", count=2),)
    assert wish(2, linked=True) == (DeviceRequest(kind="gpu", count=2, linked=True),)
    assert wish(None, A, B, A) == (DeviceRequest(kind="gpu", count=2, within=units(A, B)),)
    assert wish(1, A, B) == (DeviceRequest(kind="gpu", count=1, within=units(A, B)),)
    assert wish(None, A, B, linked=True) == (DeviceRequest(kind="gpu", count=2, linked=True, within=units(A, B)),)
    assert wish(share="0.25") == (DeviceRequest(kind="gpu", share=250),)
    assert wish(None, A, B, share="500") == (DeviceRequest(kind="gpu", share=500, within=units(A, B)),)
    assert wish(None, CUT) == (DeviceRequest(kind="mig", within=units(CUT)),)
    assert wish(None, "pci:0000:41:00.0") == (DeviceRequest(kind="gpu", within=(UnitId("pci:0000:41:00.0"),)),)


def test_memory_is_asked_of_each_gpu() -> None:
    """`--gpu-memory` stands beside all that asks for GPUs, and `memory=` in `--device`; both are binary units, as everywhere."""
    assert wish(2, memory="40G", linked=True) == (DeviceRequest(kind="gpu", count=2, linked=True, memory_bytes=40 * GIB),)
    assert wish(None, A, memory="0.5GiB") == (DeviceRequest(kind="gpu", within=units(A), memory_bytes=GIB // 2),)
    assert wish(share="0.5", memory="20GiB") == (DeviceRequest(kind="gpu", share=500, memory_bytes=20 * GIB),)
    assert wish(None, CUT, memory="1") == (DeviceRequest(kind="mig", within=units(CUT), memory_bytes=1),)
    assert (
        parse_device("gpu=2,memory=40GiB") == parse_device("gpu=2,memory=40G") == DeviceRequest(kind="gpu", count=2, memory_bytes=40 * GIB)
    )
    assert parse_device("mig,profile=1g.10gb") == DeviceRequest(kind="mig", match=({"profile": "1g.10gb"},))
    assert parse_device("gpu,vendor_id=10de,memory=1G:socket") == DeviceRequest(
        kind="gpu", match=({"vendor_id": "10de"},), affinity="socket", memory_bytes=GIB
    )


@pytest.mark.parametrize("count", [None, 0])
def test_memory_of_no_gpu_is_refused(count: int | None) -> None:
    """Memory of GPUs without GPUs is an error that says what is missing."""
    with pytest.raises(InvalidRequest, match="say --gpus 1"):
        wish(count, memory="40G")


@pytest.mark.parametrize("size", ["", "0", "much", "-1", "40 X", "1.00000000001G"])
def test_what_is_no_memory_is_refused(size: str) -> None:
    """No size, none at all and no whole number of bytes are errors that name the option."""
    with pytest.raises(InvalidRequest, match="--gpu-memory"):
        wish(1, memory=size)
    with pytest.raises(InvalidRequest, match="--device"):
        parse_device(f"gpu,memory={size}")


@pytest.mark.parametrize(
    ("count", "names", "share", "linked", "words"),
    [
        (2, (), "0.5", False, "one GPU"),
        (1, (), None, True, "several GPUs"),
        (None, (), None, True, "several GPUs"),
        (3, (A, B), None, False, "of the 2"),
        (0, (A,), None, False, "of the 1"),
        (None, (A, CUT), None, False, "instances"),
        (None, ("0",), None, False, "UUID"),
        (None, ("",), None, False, "UUID"),
        (None, ("GPU 1",), None, False, "UUID"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_words(
    count: int | None, names: tuple[str, ...], share: str | None, linked: bool, words: str
) -> None:
    """A part of two GPUs, one linked GPU, three of two, whole GPUs beside instances, and an index are errors that say what would do."""
    with pytest.raises(InvalidRequest, match=words):
        wish(count, *names, share=share, linked=linked)


def test_a_name_is_a_uuid_or_a_unit() -> None:
    """`--gpu` takes the UUID that nvidia-smi shows and the unit that earmark shows."""
    assert gpu_unit(A) == gpu_unit(f"gpu:{A}") == f"gpu:{A}"
    assert gpu_unit("amd-0123456789abcdef") == "gpu:amd-0123456789abcdef"


@pytest.mark.parametrize(
    ("text", "thousandths"), [("0.25", 250), ("0.5", 500), ("0.125", 125), ("250", 250), ("1.0", 1000), ("1000", 1000), ("2", 2)]
)
def test_a_part_is_a_fraction_or_thousandths(text: str, thousandths: int) -> None:
    """A part of a GPU is written as a fraction with a point or as thousandths."""
    assert parse_share(text) == thousandths


@pytest.mark.parametrize("text", ["", "0", "0.0", "1", "1.5", "1001", "2.0", "-1", "0.1234", "half", ".5", "25%", "٣٠٠"])
def test_what_is_no_part_is_refused(text: str) -> None:
    """Nothing, more than one GPU, and the 1 that could mean either are errors."""
    with pytest.raises(InvalidRequest, match="not a part"):
        parse_share(text)


def test_a_device_says_what_it_must_match_and_how_near_it_must_be() -> None:
    """Pairs of key and value become one alternative, and only an affinity behind the last colon is one: addresses have colons."""
    assert parse_device("vf") == DeviceRequest(kind="vf")
    assert parse_device("vf=2,vendor_id=8086,physical_network=net 1:required") == DeviceRequest(
        kind="vf", count=2, match=({"vendor_id": "8086", "physical_network": "net 1"},), affinity="required"
    )
    assert parse_device("pci,address=0000:41:00.0") == DeviceRequest(kind="pci", match=({"address": "0000:41:00.0"},))
    assert parse_device("gpu=2:socket") == DeviceRequest(kind="gpu", count=2, affinity="socket")


@pytest.mark.parametrize(
    "text", ["", "=2", "vf=", "vf=0", "vf=1025", "VF", "vf=2,", "vf,x", "vf,x=", "vf,x=1,x=2", "vf:near", "vf,=1", "vf,x=a\nb"]
)
def test_what_is_no_device_is_refused(text: str) -> None:
    """A number that is none, a pair without key or value, a key twice and an unknown affinity are errors."""
    with pytest.raises(InvalidRequest, match="--device"):
        parse_device(text)


def test_wishes_are_told_in_words() -> None:
    """A refusal names what was asked for: linked, a part, of which ones, how near."""
    assert device_words(DeviceRequest(kind="gpu", count=2, linked=True)) == "2 linked gpu"
    assert device_words(DeviceRequest(kind="gpu", share=250)) == "250/1000 of a gpu"
    assert device_words(DeviceRequest(kind="gpu", within=units(A))) == f"1 gpu of gpu:{A}"
    assert device_words(parse_device("vf=2,tag=a:required")) == "2 vf with tag=a (required affinity)"
    assert device_words(DeviceRequest(kind="gpu", count=2, memory_bytes=40 * GIB)) == "2 gpu with 40 GiB"
    assert device_words(parse_device("mig,profile=1g.10gb,memory=8G")) == "1 mig with 8 GiB and profile=1g.10gb"


@pytest.mark.parametrize("option", [("--linked",), ("--gpu", A), ("--gpu-share", "0.5"), ("--gpu-memory", "40G")])
def test_a_request_file_is_not_mixed_with_options_for_gpus(option: tuple[str, ...]) -> None:
    """A file says all of the request: beside it, an option for GPUs is an error that names it."""

    @click.command()
    @request_options("shared")
    def command(*, asked: object) -> None:
        """Take a request and do nothing."""

    done = CliRunner().invoke(command, ["--request", "nowhere.json", *option])
    assert isinstance(done.exception, InvalidRequest)
    assert option[0] in str(done.exception)
