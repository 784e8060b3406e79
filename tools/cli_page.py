"""Makes docs/reference/cli.md from the commands and docs/reference/json.md from the structs of --json; --check says whether they are up to date."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import click
import msgspec
from tools.made import written

from earmark.cli import output as o
from earmark.cli import output_cases as cases
from earmark.cli import output_devices as devices
from earmark.cli import output_lives as lives
from earmark.cli import output_machine as m
from earmark.cli import output_scenario as book
from earmark.cli import output_statistics as statistics
from earmark.cli.drawing import CROSS
from earmark.cli.flavor_file import FlavorFile
from earmark.cli.main import SECTIONS, cli
from earmark.cli.node_settings import ALIASES, DEFAULTS, OPTIONS
from earmark.cli.run import RunOut
from earmark.cli.verb import common_options
from earmark.core.model.grant import Grant
from earmark.core.model.node import NodeSettings
from earmark.core.model.request import Request

FOLDER = Path(__file__).resolve().parents[1] / "docs/reference"
CLI, JSON, SCHEMA = FOLDER / "cli.md", FOLDER / "json.md", FOLDER / "json-schema.json"
COMMON = {option.name for option in common_options()}
BLOCK = re.compile(r"\x08\n(.*?)(?:\n\n|\Z)", re.DOTALL)
"""What click prints as it stands: examples."""

CLI_HEAD = """# Command line

<!-- made by tools/cli_page.py from the commands; do not edit -->

`earmark` without a command prints the picture of this machine. Every command takes `--json` (the shapes: [JSON](json.md)), `--ledger PATH`
and `-q`, before or after its name. Exit codes: [exit codes](exit-codes.md). Settings: [settings](settings.md).

**Sizes** are `512MiB`, `8GiB`, `1.5TiB` (K, M, G, T mean the same: binary). **Durations** are `90s`, `10m`, `2h`, `1h30m`, `7d`. **Times** are
`-2h`, `14:30`, `yesterday 02:00`, `2026-03-01`, `2026-03-01T02:00Z` or seconds since 1970; without a zone they are local.
**Claims** go by id, by the beginning of one, or by consumer. **Units** are `cpu:3` (or `3`), a device's name or the beginning of it, or
a PCI address.

"""
PICTURE = """## The picture

| mark | meaning |
|---|---|
| `·` | free |
| `A` … `z` | held by the claim of that letter, listed below; `*` are claims after the fifty-second |
| `~` | free and for shared vCPUs only (policy split) |
| `=` | kept for the host |
| `-` | not allowed to this process (affinity, cpuset) |
| `{cross}` | cordoned (`%` where the terminal has no such character) |
| `!` | quarantined: its claim ended without proof that it is unused |
| `?` | missing: held, and the machine no longer has it |

The threads of a core stand side by side, the cores of a last-level cache together, else in fours. A bar's letters are the claims that
hold it. More CPUs than fit are folded into ranges. Colours are added on a terminal; `NO_COLOR` and the setting `color` are
honoured, and nothing is said by colour alone.

""".replace("{cross}", CROSS)
REQUEST = """## The request language

`claim`, `run`, `fit` and `why-not` take the same words for what is wanted. A bare `--cpus N` means dedicated CPUs for `run` and shared vCPUs
elsewhere. Instead of the words, `--request FILE` (`-` is standard input) takes the struct [Request](json.md#request) as JSON, and
`--flavor FILE` a [flavor with its image and aliases](flavors.md) as YAML or JSON; file and words are not mixed, but `--node`, `--consumer`,
`--owner` and `--ttl` may stand beside a file, and `--spread` beside a flavor. `instance attach`, `build` and `unshelve`, `move resize` and
`move out` take the wishes too; whom they are for and where is said by arguments of their own.

"""
JSON_HEAD = """# JSON

<!-- made by tools/cli_page.py from src/earmark/cli/output.py; do not edit -->

With `--json` a command prints one JSON value on one line (`log`: one line an event; `release` and `abort`: one line a claim; `instance delete`: one line an instance). Every key is always
there; a key may be added in a later version, none changes its meaning. Moments are `{"ms": …, "iso": "…"}`, amounts are in base units
(bytes, pages, CPUs). Names stand as they are in the ledger.

An error is a problem+json object (RFC 9457) on standard error: `type` (ends in the error's code), `title`, `detail`, `facts`. A refusal is an
answer, on standard output, in the shape of `fit`.

The same as JSON Schema 2020-12: [json-schema.json](json-schema.json), each shape under `$defs`.

"""

ANSWERS: tuple[tuple[str, type[msgspec.Struct]], ...] = (
    ("earmark, show, node show", m.MachineOut),
    ("list", o.ListOut),
    ("show CLAIM", o.ClaimOut),
    ("show CLAIM, of one that has ended", o.EndedOut),
    ("who", o.WhoOut),
    ("fit, why-not, a refused claim", o.FitOut),
    ("fit --cases, a line a case", cases.CaseOut),
    (
        "claim, confirm, abort, renew, release, return, instance attach, detach, unshelve, move came-back, node add, observe, set, disable, enable, retire, restore, cordon, uncordon, rehome",
        o.AnswerOut,
    ),
    ("instance create, state, delete, rebuild; move resize … evacuate, finish, confirm, revert, abort, drop, out, in", lives.LifeOut),
    ("instance show, instance list (a list of these)", lives.InstanceOut),
    ("move status, move list (a list of these)", lives.MoveOut),
    ("story", lives.StoryOut),
    ("receive", lives.ReceivedOut),
    ("node list (a list of these)", m.NodeOut),
    ("node set, without KEY=VALUE", NodeSettings),
    ("node providers", m.ProvidersOut),
    ("node power", m.PowerOut),
    ("node devices", devices.NodeDevicesOut),
    ("node devices --policy", devices.DevicePolicyOut),
    ("log", o.EventOut),
    ("diff", o.DiffOut),
    ("stats", statistics.StatsOut),
    ("monitor, a line a sample", statistics.SampleOut),
    ("audit", o.AuditOut),
    ("verify", o.VerifyOut),
    ("init, backup, export, import, archive", o.FileOut),
    ("scenario", book.ScenarioOut),
    ("scenario --list", book.BookOut),
    ("selftest", o.SelftestOut),
    ("discover", m.DiscoverOut),
    ("completion", o.CompletionOut),
)
"""Which command answers in which shape."""


def usage(command: click.Command, path: str) -> str:
    """Return a command's usage line."""
    context = click.Context(command, info_name=path)
    return " ".join([path, *command.collect_usage_pieces(context)])


def text_of(command: click.Command) -> str:
    """Return a command's help as paragraphs."""
    paragraphs = re.sub(BLOCK, "", command.help or "")
    return "\n\n".join(" ".join(part.split()) for part in paragraphs.split("\n\n") if part.strip())


def examples_of(command: click.Command) -> list[str]:
    """Return the example lines of a command."""
    blocks = BLOCK.findall(command.help or "")
    return [*getattr(command, "examples", ()), *(line.strip() for block in blocks for line in block.splitlines() if line.strip())]


def options_of(command: click.Command, leave: set[str | None]) -> list[str]:
    """Return a row of a table for each option."""
    context = click.Context(command)
    rows = []
    for parameter in command.params:
        if not isinstance(parameter, click.Option) or parameter.name in leave:
            continue
        record = parameter.get_help_record(context)
        if record is not None:
            option, words = (text.replace("|", "\\|") for text in record)
            rows.append(f"| `{option}` | {words} |")
    return rows


def section(command: click.Command, path: str, depth: int, leave: set[str | None]) -> list[str]:
    """Return a command's part of the page, and those of its commands."""
    parts = [f"{'#' * depth} {path}\n", f"    {usage(command, path)}\n", text_of(command) + "\n"]
    rows = options_of(command, leave)
    if any("ask_" + word in {parameter.name for parameter in command.params} for word in ("cpus",)):
        parts.append("And [the request language](#the-request-language).\n")
    if rows:
        parts.append("| option | |\n|---|---|\n" + "\n".join(rows) + "\n")
    examples = examples_of(command)
    if examples:
        parts.append("\n".join("    " + line for line in examples) + "\n")
    if isinstance(command, click.Group):
        for name in command.list_commands(click.Context(command)):
            inner = command.get_command(click.Context(command), name)
            if inner is not None:
                parts += section(inner, f"{path} {name}", depth + 1, leave)
    return parts


def cli_page() -> str:
    """Return docs/reference/cli.md."""
    if not isinstance(cli, click.Group):
        raise TypeError("earmark is a group of commands")
    claim = cli.get_command(click.Context(cli), "claim")
    if claim is None:
        raise TypeError("earmark has the command claim")
    asked = {parameter.name for parameter in claim.params if (parameter.name or "").startswith("ask_")}
    others: set[str | None] = {parameter.name for parameter in claim.params if parameter.name not in asked}
    words = options_of(claim, others)
    parts = [CLI_HEAD, PICTURE, REQUEST, "| option | |\n|---|---|\n" + "\n".join(words) + "\n\n"]
    for title, commands in SECTIONS:
        parts.append(f"## {title}\n\n")
        for name, _, _ in commands:
            command = cli.get_command(click.Context(cli), name)
            if command is not None:
                parts.append("\n".join(section(command, f"earmark {name}", 3, {*COMMON, *asked, "help"})) + "\n")
    parts.append("## Settings of a node\n\nWhat `earmark node set KEY=VALUE` takes; `KEY=default` gives a setting its default back.\n\n")
    parts.append("| key | default | |\n|---|---|---|\n")
    for key, option in OPTIONS.items():
        default = option.show(getattr(DEFAULTS, option.field)) if key not in ALIASES else ""
        parts.append(f"| `{key}` | {default} | {option.help} |\n")
    parts.append(
        "| `inventory.CLASS` | none | a plain resource class: `8`, or `8,reserved=1,ratio=2.0,min_unit=1,max_unit=4,step_size=1`; 0 drops it |\n"
    )
    return re.sub(r"\n{3,}", "\n\n", "".join(parts)).rstrip() + "\n"


def shapes() -> list[tuple[str, type]]:
    """Return which command answers, or takes, which struct."""
    return [
        *ANSWERS,
        ("run, on standard error", RunOut),
        ("--request FILE", Request),
        ("--flavor FILE", FlavorFile),
        ("--grant FILE", Grant),
    ]


def json_page() -> str:
    """Return docs/reference/json.md."""
    _, schemas = msgspec.json.schema_components([shape for _, shape in shapes()], ref_template="{name}")
    parts = [JSON_HEAD, "| command | shape |\n|---|---|\n"]
    parts += [f"| {command} | [{shape.__name__}](#{shape.__name__.lower()}) |\n" for command, shape in shapes()]
    for name in sorted(schemas, key=str.lower):
        schema: dict[str, Any] = schemas[name]
        words = " ".join(str(schema.get("description", "")).split())
        needed = schema.get("required", [])
        rows = [f"| `{key}` | {kind(value)}{'' if key in needed else ', may be left out'} |" for key, value in schema["properties"].items()]
        parts.append(f"\n## {name}\n\n{words}\n\n| key | value |\n|---|---|\n" + "\n".join(rows) + "\n")
    return "".join(parts)


def kind(schema: dict[str, Any]) -> str:
    """Return a schema in words: "list of [CpuOut](#cpuout)", "integer or null"."""
    if "$ref" in schema:
        return f"[{schema['$ref']}](#{schema['$ref'].lower()})"
    if "anyOf" in schema:
        return " or ".join(kind(each) for each in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(f"`{json_text(each)}`" for each in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {kind(schema['items'])}" if schema.get("items") else "list"
    if schema.get("type") == "object":
        inner = schema.get("additionalProperties")
        return f"object of {kind(inner)}" if isinstance(inner, dict) and inner else "object"
    bounds = [f"{word} {schema[key]}" for key, word in (("minimum", "from"), ("maximum", "to")) if key in schema]
    return " ".join([str(schema.get("type", "any")), *bounds])


def json_text(value: object) -> str:
    """Return a value as JSON."""
    return msgspec.json.encode(value).decode()


def schema_file() -> str:
    """Return docs/reference/json-schema.json: all shapes as JSON Schema."""
    _, schemas = msgspec.json.schema_components([shape for _, shape in shapes()], ref_template="#/$defs/{name}")
    whole = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "earmark --json", "$defs": dict(sorted(schemas.items()))}
    return msgspec.json.format(msgspec.json.encode(whole), indent=1).decode() + "\n"


if __name__ == "__main__":
    sys.exit(written({CLI: cli_page(), JSON: json_page(), SCHEMA: schema_file()}, sys.argv[1:]))
