"""The request language: every option, the file, and what is refused."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from earmark.cli.request_options import ADDRESS, WISHES, Asked, asked_from, parse_cpus, parse_pages, request_options
from earmark.core.model.request import CpuPolicy, DeviceRequest, Request, ResourceAmount
from earmark.core.model.units import GIB
from earmark.errors import Invalid, InvalidRecord, InvalidRequest


def asked(*arguments: str, bare: CpuPolicy = "shared", required: bool = True, stdin: str | None = None) -> Asked:
    """Return what a command with the request language receives."""
    received: list[Asked] = []

    @click.command()
    @request_options(bare, required=required)
    def command(*, asked: Asked) -> None:
        received.append(asked)

    result = CliRunner().invoke(command, list(arguments), input=stdin)
    if result.exception is not None:
        raise result.exception
    return received[0]


def test_every_option_has_its_field() -> None:
    """All options together give the Request that they say."""
    found = asked(
        "--cpus", "4:dedicated", "--threads", "isolate", "--mem", "8GiB", "--pages", "1GiB", "--cells", "2", "--disk", "20G",
        "--gpus", "2", "--device", "vf=3", "--device", "nvme", "--resource", "CUSTOM_LICENCE=5", "--trait", "HW_CPU_X86_AVX2",
        "--trait", "!CUSTOM_SLOW", "--spread", "--node", "n1", "--consumer", "vm-1", "--owner", "alice", "--ttl", "1h30m",
    )  # fmt: skip
    assert found == Asked(
        request=Request(
            vcpus=4, cpu_policy="dedicated", thread_policy="isolate", memory_bytes=8 * GIB, page_kib=1024 * 1024, cells=2,
            disk_bytes=20 * GIB, resources=(ResourceAmount(resource_class="CUSTOM_LICENCE", amount=5),),  # type: ignore[arg-type]  # plain text for a NewType
            devices=(DeviceRequest(kind="gpu", count=2), DeviceRequest(kind="vf", count=3), DeviceRequest(kind="nvme")),
            required_traits=("HW_CPU_X86_AVX2",), forbidden_traits=("CUSTOM_SLOW",), placement="spread",  # type: ignore[arg-type]  # plain text for a NewType
        ),
        node="n1", consumer="vm-1", owner="alice", ttl_ms=5_400_000,
    )  # fmt: skip


@pytest.mark.parametrize(("bare", "policy"), [("shared", "shared"), ("dedicated", "dedicated")])
def test_a_bare_number_means_what_the_command_says(bare: CpuPolicy, policy: str) -> None:
    """`--cpus 4` is dedicated for run and shared elsewhere; a policy that is named always counts."""
    assert asked("--cpus", "4", bare=bare).request.cpu_policy == policy
    assert asked("--cpus", "4:shared", bare=bare).request.cpu_policy == "shared"
    assert asked("--cpus", "4:dedicated", bare=bare).request.cpu_policy == "dedicated"


def test_page_sizes_are_sizes_or_words() -> None:
    """2MiB is 2048 KiB; small, large and any are kept as words."""
    assert parse_pages("2MiB") == 2048
    assert [parse_pages(word) for word in ("small", "large", "any")] == ["small", "large", "any"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("--cpus", "four"), ("--cpus", "-1"), ("--cpus", "4:"), ("--cpus", "4:mixed"), ("--cpus", "1048577"), ("--cpus", "٤"),
        ("--mem", "8 giga"), ("--mem", "-1"), ("--mem", "1.5B"), ("--mem", "1GiB", "--pages", "3"), ("--mem", "1GiB", "--pages", "0"),
        ("--pages", "large", "--cpus", "1"), ("--cpus", "2", "--threads", "require"), ("--device", "gpu=0"), ("--device", "=2"),
        ("--device", "GPU=1"), ("--device", "gpu=1025"), ("--resource", "licence=1"), ("--resource", "CUSTOM_X"), ("--resource", "CUSTOM_X=0"),
        ("--trait", "avx2"), ("--cpus", "1", "--trait", "HW_A", "--trait", "!HW_A"), ("--cpus", "1", "--ttl", "2 hours"),
        ("--cpus", "1", "--ttl", "0s"), ("--cpus", "1", "--consumer", "a\nb"), ("--cpus", "1", "--owner", "\x1b[31m"),
        ("--cpus", "1", "--node", " n1"), ("--disk", "many"), (),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_an_error(arguments: tuple[str, ...]) -> None:
    """A word that is not understood is refused with the word itself, never guessed."""
    with pytest.raises(Invalid):
        asked(*arguments)


def test_nothing_asked_for_is_allowed_only_where_it_makes_sense() -> None:
    """A command that needs no request accepts an empty one."""
    assert asked(required=False).empty
    assert not asked("--gpus", "1", required=False).empty


def test_a_request_file_is_the_struct(tmp_path: Path) -> None:
    """A request written as JSON comes back as it was, from a file and from standard input, and goes with an address."""
    request = Request(vcpus=3, memory_bytes=GIB, devices=(DeviceRequest(kind="gpu", match=({"vendor": "10de"},)),), placement="spread")
    text = msgspec.json.encode(request).decode()
    file = tmp_path / "request.json"
    file.write_text(text)
    assert asked("--request", str(file), "--consumer", "x").request == request
    assert asked("--request", "-", stdin=text).request == request


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"vcpu": 4}', '{"vcpus": "4"}', '{"vcpus": -1}', '{"vcpus": 1e99}', '{"cpu_policy": "x"}', "\xff"]
)
def test_a_wrong_request_file_is_refused(tmp_path: Path, text: str) -> None:
    """A file is decoded strictly: an unknown key, a wrong type or a number out of bounds is an error that names the place."""
    file = tmp_path / "request.json"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(InvalidRecord, match="is not a Request"):
        asked("--request", str(file))


def test_a_file_and_options_are_not_mixed(tmp_path: Path) -> None:
    """A request file beside an option that says a wish is an error that names the option."""
    file = tmp_path / "request.json"
    file.write_text('{"vcpus": 1}')
    for option in (("--cpus", "2"), ("--spread",), ("--trait", "HW_X"), ("--gpus", "0")):
        with pytest.raises(InvalidRequest, match=option[0]):
            asked("--request", str(file), *option)


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    """A missing file, a folder and a name with a zero byte are refused with the reason."""
    for source in (str(tmp_path / "none"), str(tmp_path)):
        with pytest.raises(InvalidRecord, match="cannot be read"):
            asked("--request", source)
    with pytest.raises(InvalidRecord, match="cannot be read"):
        asked_from({**dict.fromkeys([*WISHES, *ADDRESS]), "request": "a\0b", "device": (), "resource": (), "trait": ()}, "shared")


@given(st.text(max_size=20))
def test_any_text_for_cpus_is_read_or_refused(text: str) -> None:
    """No text leads to anything but a number with a policy, or InvalidRequest."""
    try:
        number, policy, _ = parse_cpus(text, "shared")
    except InvalidRequest:
        return
    assert 0 <= number <= 1 << 20
    assert policy in ("shared", "dedicated")
    assert text.partition(":")[0].isdigit()
