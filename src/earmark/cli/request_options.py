"""The one request language of claim, run, fit and why-not: options, or a file with the Request struct or with a flavor.

Rules of this file: a wish is parsed once, strictly; a file is not mixed with options that say the same thing. A bare `--cpus N` means what
the command says (dedicated for run, shared elsewhere).
"""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast, get_args

import click
import msgspec

from earmark.core.model import ids
from earmark.core.model.cpuset import parse_cpu_list
from earmark.core.model.request import CpuPolicy, DeviceRequest, EmulatorPolicy, PageWish, Placement, Request, ResourceAmount, ThreadPolicy
from earmark.core.model.units import KIB, parse_bytes, parse_duration_ms
from earmark.errors import InvalidRecord, InvalidRequest

R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., Any])

REQUEST_BYTES_MAX = 4 * 1024 * 1024
COUNT_MAX = 1 << 20
NUMBER = re.compile(r"[0-9]{1,19}")
TUNNEL = "tunnel"
"""How a guest says that it has tunnelled networks (N21)."""
TRAIT = re.compile(r"[A-Z][A-Z0-9_]{0,254}")

WISHES = (
    "cpus", "threads", "emulator", "network", "mem", "pages", "cells", "disk", "gpus", "gpu_memory", "linked", "gpu", "gpu_share", "device", "resource", "trait", "placement",
)  # fmt: skip
"""The options that a request file replaces."""
NOTHING = "nothing is asked for: say --cpus, --mem, --disk, --gpus, --device, --resource, --request FILE or --flavor FILE"
FILES = ("request", "flavor")
"""The options that name a file which says all of it; how to choose among fits may stand beside a flavor, which cannot say it."""
ADDRESS = ("node", "consumer", "owner", "ttl")
"""The options that say where and for whom; they may stand beside a file."""


class Asked(NamedTuple):
    """What a command line asks for: the request, and where, for whom and how long (None: not said; `ttl_ms` in milliseconds)."""

    request: Request
    node: str | None
    consumer: str | None
    owner: str | None
    ttl_ms: int | None

    @property
    def empty(self) -> bool:
        """Whether no resource is asked for."""
        wish = self.request
        return not (wish.vcpus or wish.memory_bytes or wish.disk_bytes or wish.resources or wish.devices or wish.guest_cells)


def request_options(
    default_cpu_policy: CpuPolicy, *, required: bool = True, address: tuple[str, ...] = ADDRESS
) -> Callable[[Callable[..., R]], Callable[..., R]]:  # fmt: skip
    """Give a click command the options of the request language; it receives them as one argument, `asked: Asked`.

    `default_cpu_policy` is what a bare `--cpus N` means. With `required`, a command line that asks for nothing raises InvalidRequest.
    `address` are those of the options of ADDRESS that the command has.
    """

    def decorate(command: Callable[..., R]) -> Callable[..., R]:
        @functools.wraps(command)
        def parsed(*args: Any, **options: Any) -> R:
            words = {name: options.pop("ask_" + name, None) for name in (*WISHES, *ADDRESS, *FILES)}
            asked = asked_from(words, default_cpu_policy)
            if required and asked.empty:
                raise InvalidRequest(NOTHING)
            return command(*args, asked=asked, **options)

        for option in reversed([*_options(default_cpu_policy), *(_address()[name] for name in ADDRESS if name in address)]):
            option(parsed)
        return parsed

    return decorate


def _options(bare: CpuPolicy) -> list[Callable[[F], F]]:
    return [
        click.option("--cpus", "ask_cpus", metavar="N[:POLICY]", help=f"vCPUs: 4:dedicated, 4:shared, 4:mixed=0-1; a bare N is {bare}."),
        click.option("--threads", "ask_threads", type=click.Choice(get_args(ThreadPolicy)), help="What to do about SMT siblings."),
        click.option("--mem", "ask_mem", metavar="SIZE", help="Memory: 8GiB, 512M."),
        click.option("--pages", "ask_pages", metavar="SIZE|small|large|any", help="Page size of the memory: 1GiB, 2MiB, large."),
        click.option(
            "--emulator", "ask_emulator", type=click.Choice(get_args(EmulatorPolicy)), help="isolate: one more CPU for the emulator."
        ),
        click.option("--network", "ask_network", multiple=True, metavar="NAME", help="A physical network of the guest, or tunnel."),
        click.option("--cells", "ask_cells", type=click.IntRange(1, 64), metavar="N", help="Guest NUMA cells."),
        click.option("--disk", "ask_disk", metavar="SIZE", help="Disk space."),
        click.option("--gpus", "ask_gpus", type=click.IntRange(0, 1024), metavar="N", help="GPUs; the same as --device gpu=N."),
        click.option("--gpu-memory", "ask_gpu_memory", metavar="SIZE", help="So much memory on each GPU at least: 40G."),
        click.option("--linked", "ask_linked", is_flag=True, default=None, help="GPUs that are all linked to each other (NVLink)."),
        click.option("--gpu", "ask_gpu", multiple=True, metavar="UUID", help="This GPU or MIG instance; with --gpus N, N of those named."),
        click.option("--gpu-share", "ask_gpu_share", metavar="PART", help="A part of one GPU: 0.25, or 250 thousandths."),
        click.option(
            "--device",
            "ask_device",
            multiple=True,
            metavar="KIND=N[,KEY=VALUE]",
            help="Devices: vf=2, gpu=1,memory=40G, vf,tag=x:required.",
        ),
        click.option("--resource", "ask_resource", multiple=True, metavar="CLASS=N", help="A plain resource class: CUSTOM_LICENCE=1."),
        click.option("--trait", "ask_trait", multiple=True, metavar="[!]TRAIT", help="A trait that the node must (or !not) have."),
        click.option("--spread", "ask_placement", flag_value="spread", help="Use the emptiest place that fits."),
        click.option("--pack", "ask_placement", flag_value="pack", help="Use the fullest place that fits (the default)."),
        click.option("--request", "ask_request", metavar="FILE", help="The request as JSON, from a file or - (instead of the above)."),
        click.option("--flavor", "ask_flavor", metavar="FILE", help="A flavor as YAML or JSON, from a file or - (instead of the above)."),
    ]


def _address() -> dict[str, Callable[[F], F]]:
    return {
        "node": click.option("--node", "ask_node", metavar="NODE", help="The node, by name or uuid; else this machine."),
        "consumer": click.option("--consumer", "ask_consumer", metavar="ID", help="What is to hold the claim; else a name is made up."),
        "owner": click.option("--owner", "ask_owner", metavar="NAME", help="Whose claim it is; else the user's name."),
        "ttl": click.option("--ttl", "ask_ttl", metavar="TIME", help="How long at most: 2h, 90s."),
    }


def asked_from(words: Mapping[str, Any], default_cpu_policy: CpuPolicy) -> Asked:
    """Return what options say; `words` are the options by name. Raises InvalidRequest or InvalidRecord."""
    request = request_from(words, default_cpu_policy)
    consumer, owner, node, ttl = words["consumer"], words["owner"], words["node"], words["ttl"]
    return Asked(
        request=request,
        node=None if node is None else ids.name(node, "node"),
        consumer=None if consumer is None else ids.name(consumer, "consumer"),
        owner=None if owner is None else ids.name(owner, "owner"),
        ttl_ms=None if ttl is None else parse_duration_ms(ttl, what="--ttl"),
    )


def request_from(words: Mapping[str, Any], default_cpu_policy: CpuPolicy) -> Request:
    """Return the Request that options, or the file that they name, describe; raises InvalidRequest or InvalidRecord."""
    named = [name for name in FILES if words.get(name) is not None]
    if named:
        beside = [name for name in WISHES if words[name] not in (None, ()) and not (named == ["flavor"] and name == "placement")]
        if beside or len(named) > 1:
            mixed = [*named[1:], *beside]
            options = ", ".join("--" + (words["placement"] if name == "placement" else name.replace("_", "-")) for name in mixed)
            raise InvalidRequest(f"--{named[0]} {words[named[0]]} and {options} were both given: the file says all of it", found=mixed)
        return read_request(words["request"]) if named == ["request"] else read_flavor(words["flavor"], words["placement"])
    vcpus, policy, own = parse_cpus(words["cpus"], default_cpu_policy)
    threads = cast("ThreadPolicy | None", words["threads"])
    if threads is not None and policy == "shared":
        raise InvalidRequest(f"--threads {threads} needs dedicated CPUs: say --cpus {vcpus or 'N'}:dedicated", found=threads)
    emulator = cast("EmulatorPolicy | None", words["emulator"])
    if emulator == "isolate" and policy == "shared":
        raise InvalidRequest(f"--emulator isolate needs dedicated CPUs: say --cpus {vcpus or 'N'}:dedicated", found=emulator)
    memory_bytes = parse_bytes(words["mem"], what="--mem") if words["mem"] is not None else 0
    page_kib = parse_pages(words["pages"]) if words["pages"] is not None else None
    if page_kib is not None and not memory_bytes:
        raise InvalidRequest(f"--pages {words['pages']} says how memory is made up, and no --mem is asked for", found=words["pages"])
    required, forbidden = parse_traits(words["trait"])
    return Request(
        vcpus=vcpus, cpu_policy=policy, thread_policy=threads, dedicated_vcpus=own, emulator_policy=emulator,
        memory_bytes=memory_bytes, page_kib=page_kib, cells=words["cells"],
        networks=tuple(sorted({name for name in words["network"] if name != TUNNEL})), tunnel=TUNNEL in words["network"],
        disk_bytes=parse_bytes(words["disk"], what="--disk") if words["disk"] is not None else 0,
        devices=_devices(words),
        resources=tuple(parse_resource(text) for text in words["resource"]),
        required_traits=required, forbidden_traits=forbidden,
        placement=cast("Placement", words["placement"] or "pack"),
    )  # fmt: skip


def _devices(words: Mapping[str, Any]) -> tuple[DeviceRequest, ...]:
    if not any(words[name] is not None and words[name] != () for name in ("gpus", "gpu_memory", "linked", "gpu", "gpu_share", "device")):
        return ()
    from earmark.cli.device_wishes import device_wishes  # noqa: PLC0415 - only for those who ask for devices

    return device_wishes(words)


def read_request(source: str) -> Request:
    """Return the Request in a JSON file (`-`: standard input); raises InvalidRecord with the path of what is wrong."""
    raw = read_limited(source, "request")
    try:
        return msgspec.json.decode(raw, type=Request)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRecord(f"request {shown(source)} is not a Request: {error}", source=source) from error


def read_flavor(source: str, placement: Placement | None = None) -> Request:
    """Return the request for the flavor in a YAML or JSON file (`-`: standard input); raises InvalidRecord or InvalidFlavor."""
    from earmark.cli import flavor_file, phrases  # noqa: PLC0415 - the language of flavors costs time that others need not wait for

    read = flavor_file.read_flavor(read_limited(source, "flavor"), "standard input" if source == "-" else source)
    for note in read.notes:
        click.echo(f"earmark: {phrases.clean(note)}", err=True)
    return read.request if placement is None else msgspec.structs.replace(read.request, placement=placement)


def read_limited(source: str, what: str) -> bytes:
    """Return the bytes of a file (`-`: standard input), up to 4 MiB; raises InvalidRecord if they cannot be read or are more."""
    try:
        if source == "-":
            raw = sys.stdin.buffer.read(REQUEST_BYTES_MAX + 1)
        else:
            with Path(source).open("rb") as file:
                raw = file.read(REQUEST_BYTES_MAX + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InvalidRecord(f"{what} {source!r} cannot be read: {reason}", source=source) from error
    if len(raw) > REQUEST_BYTES_MAX:
        raise InvalidRecord(f"{what} {shown(source)} is larger than {REQUEST_BYTES_MAX} bytes", source=source)
    return raw


def shown(source: str) -> str:
    """Return how messages call a source."""
    return "from standard input" if source == "-" else repr(source)


def parse_cpus(text: str | None, default: CpuPolicy) -> tuple[int, CpuPolicy, tuple[int, ...]]:
    """Return the number of vCPUs, their policy, and which are dedicated of "4", "4:shared" or "4:mixed=0-1"; raises InvalidRequest."""
    if text is None:
        return 0, "shared", ()
    number, colon, rest = text.partition(":")
    policy, equals, own = rest.partition("=")
    known = policy in get_args(CpuPolicy) and (policy == "mixed") == bool(equals)
    if not NUMBER.fullmatch(number) or int(number) > COUNT_MAX or (colon and not known):
        raise InvalidRequest(f"--cpus {text!r} is not a number of CPUs: 4, 4:dedicated, 4:shared or 4:mixed=0-1 is", found=text)
    return int(number), cast("CpuPolicy", policy or default), parse_cpu_list(own, what="--cpus") if equals else ()


def parse_pages(text: str) -> int | PageWish:
    """Return a page size in KiB, or the named choice; raises InvalidRequest."""
    if text in get_args(PageWish):
        return cast("PageWish", text)
    size = parse_bytes(text, what="--pages")
    if size == 0 or size % KIB:
        raise InvalidRequest(f"--pages {text!r} is not a page size: 2MiB, 1GiB, small, large or any is", found=text)
    return size // KIB


def parse_resource(text: str) -> ResourceAmount:
    """Return the amount in "CUSTOM_LICENCE=2"; raises InvalidRequest."""
    name, equals, number = text.partition("=")
    if not equals or not NUMBER.fullmatch(number) or not 1 <= int(number) <= 1 << 60:
        raise InvalidRequest(f"--resource {text!r} is not a class and an amount: CUSTOM_LICENCE=2 is", found=text)
    return ResourceAmount(resource_class=ids.resource_class(name), amount=int(number))


def parse_traits(texts: tuple[str, ...]) -> tuple[tuple[ids.Trait, ...], tuple[ids.Trait, ...]]:
    """Return the required and the forbidden traits of "T" and "!T", each sorted; raises InvalidRequest."""
    required: set[ids.Trait] = set()
    forbidden: set[ids.Trait] = set()
    for text in texts:
        name = text.removeprefix("!")
        if not TRAIT.fullmatch(name):
            raise InvalidRequest(f"--trait {text!r} is not a trait: HW_CPU_X86_AVX2 or !CUSTOM_SLOW is", found=text)
        (forbidden if text.startswith("!") else required).add(ids.Trait(name))
    both = sorted(required & forbidden)
    if both:
        raise InvalidRequest(f"--trait {both[0]} is both required and forbidden", found=both)
    return tuple(sorted(required)), tuple(sorted(forbidden))
