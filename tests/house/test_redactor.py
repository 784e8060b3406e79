"""The redactor and the log lines: nothing hostile, secret or identifying gets through, and lines still correlate."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import msgspec.inspect as mi
import pytest
from hypothesis import given
from hypothesis import strategies as st

from earmark import logs
from earmark.core.ledger import codec, commands, events
from earmark.core.model import claim, refusal
from earmark.core.model.grant import AmountRow, Grant, UnitRow
from earmark.core.model.ids import ClaimId, ConsumerId, NodeId, Owner, PoolId, ResourceClass, Slot, StreamId, Trait, UnitId
from earmark.core.model.request import DeviceRequest, Request, ResourceAmount
from earmark.core.model.topology import Cell, Device, Disk, Machine
from earmark.errors import LedgerBusy, WrongUse
from earmark.redactor import DEPTH_MAX, FIELDS, Redactor, vocabulary
from earmark.settings import Settings

KEY = b"k" * 32
PLANTED = "hunter2-Zq9"
HOSTILE = [
    PLANTED, f"'; DROP TABLE claims; -- {PLANTED}", f"$(curl {PLANTED})", f"<domain><name>{PLANTED}</name></domain>", f"\x1b[31m{PLANTED}\x1b[0m",
    f"[bold]{PLANTED}[/bold]", f"line\n{PLANTED}\nclaim.held", f"</script><script>{PLANTED}", f"/home/{PLANTED}/x", f"Bearer {PLANTED}",
    f"qemu-system-x86_64 -name {PLANTED}", f"cpu:{PLANTED}", f"pci:{PLANTED}", f"disk:{PLANTED}", f"HW_{PLANTED}", f"c-{PLANTED}", f"node:{PLANTED}",
    f"{PLANTED}\u202e\u200b", f"{PLANTED}\ud800",
]  # fmt: skip


class Captured(NamedTuple):
    """Where log lines went."""

    stream: io.StringIO

    def lines(self) -> list[str]:
        """Return the lines written so far."""
        return self.stream.getvalue().splitlines()


@pytest.fixture
def captured() -> Iterator[Captured]:
    """Log everything, redacted, as JSON, into memory; put the old way back afterwards."""
    before = logs._lines
    stream = io.StringIO()
    logs.configure(Settings(log_level="debug", log_format="json"), key=lambda: KEY, stream=stream)
    yield Captured(stream)
    logs._lines = before


@pytest.mark.rule("W42")
@pytest.mark.parametrize("value", HOSTILE)
@pytest.mark.parametrize("form", ["console", "json"])
def test_no_hostile_value_reaches_a_line(value: str, form: logs.Form) -> None:
    """A hostile value in every field that there is, and in one that there is not, leaves no trace of itself on the line."""
    before, stream = logs._lines, io.StringIO()
    try:
        logs.configure(Settings(log_level="debug", log_format=form), key=lambda: KEY, stream=stream)
        fields: dict[str, Any] = dict.fromkeys(FIELDS, value) | {
            "unheard_of": value,
            "password": value,
            "nested": {value: [value, (value,)]},
        }
        fields = {name: fields[name] for name in fields if name != "level"}
        for name, content in fields.items():
            logs.log("claim.held", **{name: content})
        logs.log("claim.refused", error=LedgerBusy(value, path=value), reason=ValueError(value), other=value.encode("utf-8", "replace"))
    finally:
        logs._lines = before
    text = stream.getvalue()
    assert PLANTED not in text
    assert "\x1b" not in text
    assert len(text.splitlines()) == len(fields) + 1


@pytest.mark.rule("W42")
@given(st.text(min_size=5, max_size=60), st.sampled_from([*FIELDS, "unheard_of"]))
def test_no_text_passes_unless_it_is_ours(text: str, field: str) -> None:
    """Any text in any field is a word of our own, the plain name of a unit, or gone."""
    said = Redactor(KEY).scrub(text, field)
    if text not in vocabulary():
        assert said != text or FIELDS.get(field) in ("unit", "pool", "class", "trait", "hardware")


@pytest.mark.rule("W42")
def test_equal_identities_correlate_and_keys_separate() -> None:
    """One owner has one pseudonym in all fields and lines of a key; under another key it is another."""
    one, again, other = Redactor(KEY), Redactor(KEY), Redactor(b"x" * 32)
    assert one.scrub("alice", "owner") == again.scrub("alice", "actor") == one.scrub("alice", "consumer")
    assert one.scrub("alice", "owner") != one.scrub("bob", "owner")
    assert one.scrub("alice", "owner") != other.scrub("alice", "owner")
    assert one.scrub(1000, "uid") != 1000


def test_what_is_plain_stays() -> None:
    """Numbers, words of the program, ordinary units, pools and classes pass, so that a line still says what happened."""
    redactor = Redactor(KEY)
    for field, value in (
        ("amount", 4), ("at_ms", 17), ("changed", True), ("cause", "released"), ("phase", "held"), ("unit", "cpu:12"), ("cpus", [1, 2]),
        ("unit", "pci:0000:41:00.0"), ("pool", "pages:0:2048"), ("pool", "memory"), ("resource_class", "VCPU"), ("type", "claim.held"),
        ("vendor_id", "0x10de"), ("traits", ["HW_CPU_X86_AVX2"]), ("outcome", "held"), ("code", "short"), ("deadline_ms", None),
    ):  # fmt: skip
        assert redactor.scrub(value, field) == value
    assert redactor.scrub(LedgerBusy("alice holds it"), "error") == "ledger-busy"


def test_the_depth_is_bounded() -> None:
    """A value that holds itself, or is very deep, ends in a dropped mark."""
    deep: list[object] = []
    deep.append(deep)
    assert "[dropped]" in json.dumps(Redactor(KEY).scrub(deep, "cpus"))
    assert json.dumps(Redactor(KEY).scrub(deep, "cpus")).count("[") <= DEPTH_MAX + 2


def test_the_default_level_writes_nothing_and_imports_nothing() -> None:
    """A command that logs decisions below the level does not import structlog."""
    script = "import sys; from earmark import logs; logs.log('claim.held', claim='c-abcd'); print('structlog' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("False\n", "")


def test_loosening_is_itself_logged() -> None:
    """With the redactor off the first line says so; control characters are still escaped."""
    before, stream = logs._lines, io.StringIO()
    try:
        logs.configure(Settings(log_scrub=False, log_level="info"), stream=stream)
        logs.log("claim.held", consumer="al\x1b[31mice\nforged.line")
    finally:
        logs._lines = before
    first, second = stream.getvalue().splitlines()
    assert "log.loosened" in first
    assert "log_scrub" in first
    assert "al\\x1b[31mice\\nforged.line" in second


def test_lines_of_one_ledger_correlate_over_processes(tmp_path: Path) -> None:
    """Two commands on one ledger log the same pseudonym for one consumer; on another ledger it is another one."""
    said = []
    for ledger, name in ((tmp_path / "a", "one"), (tmp_path / "a", "two"), (tmp_path / "b", "one")):
        ledger.mkdir(exist_ok=True, mode=0o700)
        environment = {**os.environ, "EARMARK_LEDGER": str(ledger / "ledger.db"), "EARMARK_LOG_LEVEL": "info", "EARMARK_LOG_FORMAT": "json"}
        run = [sys.executable, "-m", "earmark.cli.main", "claim", "--cpus", "1", "--consumer", name, "--mem", "1MiB"]
        done = subprocess.run(run, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        lines = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
        said.append(next(line["node"] for line in lines if "node" in line))
    assert said[0] == said[1] != said[2]


def test_an_event_is_named_noun_verb(captured: Captured) -> None:
    """Prose in the place of an event's name is a fault of the caller."""
    with pytest.raises(WrongUse, match=r"noun\.verb"):
        logs.log("Claim c-abcd of alice was held")
    logs.log("claim.held", event="x", level="info")
    assert json.loads(captured.lines()[-1])["event"] == "claim.held"


def all_fields(kind: mi.Type, seen: set[type]) -> Iterator[str]:
    """Yield the names of all fields of a struct and of the structs below it."""
    match kind:
        case mi.StructType(cls=cls, fields=fields):
            if cls not in seen:
                seen.add(cls)
                for field in fields:
                    yield field.name
                    yield from all_fields(field.type, seen)
        case mi.UnionType(types=types):
            for each in types:
                yield from all_fields(each, seen)
        case mi.VarTupleType(item_type=item) | mi.ListType(item_type=item):
            yield from all_fields(item, seen)
        case mi.Metadata(type=inner):
            yield from all_fields(inner, seen)


def test_every_field_of_every_event_has_a_rule() -> None:
    """A field that is added to an event, answer or refusal must be given a rule of the redactor."""
    seen: set[type] = set()
    kinds = [*events.EVENTS, commands.Answer, refusal.Refusal, codec.Envelope]
    names = {name for kind in kinds for name in all_fields(mi.type_info(kind), seen)}
    assert names - set(FIELDS) == set()


CLAIM, NODE, OWNER = ClaimId("c-secretclaim1"), NodeId("01234567-89ab-cdef-0123-456789abcdef"), Owner("alice")
HELD = events.ClaimHeld(
    claim=CLAIM, consumer=ConsumerId("alices-vm"), owner=OWNER,
    request=Request(vcpus=2, resources=(ResourceAmount(resource_class=ResourceClass("CUSTOM_ALICE"), amount=1),), required_traits=(Trait("CUSTOM_ALICE"),),
                    devices=(DeviceRequest(kind="gpu", match=({"alice": "alice"},)),)),
    grant=Grant(units=(UnitRow(unit=UnitId("cpu:3"), use="vcpu"), UnitRow(unit=UnitId("gpu:GPU-alice"), use="device", slots=(Slot("gpu:GPU-alice"),))),
                amounts=(AmountRow(pool=PoolId("disk:alice"), amount=5), AmountRow(pool=PoolId("class:CUSTOM_ALICE"), amount=1))),
    holders=(claim.Holder(boot_id="01234567-89ab-cdef-0123-456789abcdee", pid_namespace=1, pid=2, start_ticks=3, cgroup="/user.slice/alice"),),
)  # fmt: skip
OBSERVED = events.MachineObserved(
    machine=Machine(
        cells=(Cell(id=0, cpus=(0, 1), memory_bytes=5),), disks=(Disk(name="alice", total_bytes=4),), model="alice's CPU", notes=("alice",),
        devices=(Device(unit=UnitId("pci:0000:41:00.0"), kind="gpu", address="0000:41:00.0", vendor_id="0x10de", identity="serial-alice", name="alice"),),
    ),
    inventory_version=1, differences=("alice's GPU came",),
)  # fmt: skip


@pytest.mark.parametrize("event", [HELD, OBSERVED, events.NodeRegistered(node=NODE, name="alice-host", machine="f" * 64)])
def test_a_scrubbed_event_is_still_an_event(event: events.Event) -> None:
    """A scrubbed envelope decodes to an event of the same type with the same units, amounts and times, and names nobody."""
    batch = codec.Batch(StreamId("node:" + NODE), 0, [event])
    stamp = codec.Stamp(actor="alice", command="alice-1", now_ms=99)
    ((_, raw, _),), _ = codec.seal(batch, codec.Head(), stamp)
    scrubbed = Redactor(KEY).envelope(raw)
    for name in (b"alice", b"ALICE", b"secretclaim", NODE.encode()):
        assert name not in scrubbed
    envelope = codec.open_envelope(scrubbed)
    opened = codec.open_event(envelope)
    assert (envelope.at_ms, envelope.sequence, envelope.type) == (99, 1, event.type)
    assert type(opened) is type(event)
    if isinstance(opened, events.ClaimHeld):
        assert opened.grant.units[0].unit == "cpu:3"
        assert [row.amount for row in opened.grant.amounts] == [5, 1]
    if isinstance(opened, events.MachineObserved):
        assert opened.machine.devices[0].address == "0000:41:00.0"
        assert opened.machine.cells[0].id == 0


@pytest.mark.long
@given(
    st.recursive(
        st.none() | st.integers() | st.text(min_size=4),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(min_size=4), inner),
        max_leaves=12,
    )
)
def test_any_json_object_is_scrubbed_whole(value: object) -> None:
    """Every text of an arbitrary envelope, key or value, is replaced unless it is a word of ours."""
    raw = msgspec.json.encode({"data": value})
    scrubbed = msgspec.json.decode(Redactor(KEY).envelope(raw))

    def texts(item: object) -> Iterator[str]:
        if isinstance(item, str):
            yield item
        elif isinstance(item, list):
            for each in item:
                yield from texts(each)
        elif isinstance(item, dict):
            for key, each in item.items():
                yield from (key, *texts(each))

    ours = {*vocabulary(), *FIELDS, "[dropped]", ""}
    for text in texts(scrubbed):
        assert (
            text in ours
            or text.startswith(("field-", "name-", "c-", "/path-", "CUSTOM_", "unit:", "pool:"))
            or text not in set(texts({"data": value}))
        )
