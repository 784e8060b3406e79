"""Hostile values through every door: each is refused with an Invalid…, or comes back unchanged; nothing else, ever."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.ledger.steps import BASE, STREAM, Life
from tests.ledger.values import values_of
from tests.proof.worlds import OWN, granted, made

from earmark.core.ledger import events as e
from earmark.core.ledger.codec import Batch, Head, Stamp, open_envelope, seal
from earmark.core.ledger.commands import Answer
from earmark.core.ledger.story import line
from earmark.core.model.claim import Holder
from earmark.core.model.grant import Grant
from earmark.core.model.ids import ClaimId
from earmark.core.model.node import NodeSettings
from earmark.core.model.refusal import Refusal
from earmark.core.model.request import Request
from earmark.core.model.topology import Machine
from earmark.core.model.units import GIB
from earmark.errors import Conflict, Invalid, InvalidRecord, LedgerBroken
from earmark.stores.contract import Store
from earmark.stores.lines import FORMAT_VERSION, EventLine, ExportEnd, ExportHeader, encode_line, stream_end
from earmark.stores.memory import MemoryStore
from earmark.stores.transfer import import_lines
from earmark.testing import Bench, GivenClock, GivenHost, GivenProcesses, assert_sound, bench, machine, on
from earmark.tracker.history import Replay, audit, verify
from earmark.tracker.writer import Writer

pytestmark = pytest.mark.long

TEXTS = (
    "", " ", "x", "a b", "'; DROP TABLE events; --", '"', "\\", "a\nb", "a\rb", "\x00", "a\x00b", "\x1b[31mred\x1b[0m", "\x1b]0;title\x07",
    "[bold red]x[/]", "[/]", "{0}", "%s%n", "${HOME}", "$(id)", "`id`", "../../etc/passwd", "/dev/null", "\u202egnp.exe", "e\u0301",
    "\u200b", "\ufeff", "名前", "💥", "\ud800", "\udcff", "x" * 128, "x" * 129, "x" * 100_000, "c-", "c-1234", "c-\u0967\u0968", "node:x", "-1", "--help", "*", "%", "_",
    "NaN", "null", "1e999",
)  # fmt: skip
NUMBERS = (-1, 0, 1, 1 << 31, 1 << 53, 1 << 60, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, 1 << 64, 10**40, -(1 << 63), -(10**40))


@pytest.fixture(params=["memory", "sqlite"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    """Return a tracker on each store; audited at the end."""
    store: Store = made(request.param, tmp_path)
    opened = on(store, GivenHost(machine("2x4c 32G 2M:64 gpu:1 vf:2")), GivenClock(), GivenProcesses())
    yield opened
    assert_sound(opened.tracker)
    store.close()


def answered(say: Callable[[], object]) -> object:
    """Say something hostile: the answer, or None if it is refused as the caller's fault or as impossible now."""
    try:
        return say()
    except (Invalid, Conflict) as error:
        msgspec.json.encode(error.problem(), enc_hook=repr)
        return None


def test_a_name_comes_back_or_is_refused(world: Bench) -> None:
    """As consumer, owner and key: stored and found again letter for letter, or an Invalid… before anything is written."""
    taken = [text for text in TEXTS if name_comes_back(world, text)]
    assert {"x", "'; DROP TABLE events; --", "[bold red]x[/]", "名前", "x" * 128} <= set(taken)
    assert {"", " ", "a\nb", "\x00", "\x1b[31mred\x1b[0m", "\u202egnp.exe", "\ud800", "x" * 129}.isdisjoint(taken)


def name_comes_back(world: Bench, text: str) -> bool:
    """Use a text as a name; say whether it was taken."""
    before = world.store.last_position()
    answer = answered(partial(world.tracker.hold, OWN, consumer=text, owner=text, key=text, confirm=True))
    if answer is None:
        assert world.store.last_position() == before
        return False
    claim = granted(answer)
    assert (claim.consumer, claim.owner) == (text, text)
    assert world.reopened().tracker.node().claims[claim.id].consumer == text
    assert world.tracker.find(text) == world.tracker.find(claim.id) or text.startswith("c-")
    assert granted(world.tracker.hold(OWN, consumer=text, owner=text, key=text, confirm=True)).id == claim.id
    assert all("\n" not in line(event) for _, _, event in world.tracker.events())
    world.tracker.release(claim.id)
    return True


def test_a_text_is_no_way_in(world: Bench) -> None:
    """As node, claim, unit, reason and id of a claim: nothing but an answer or an Invalid…, and no claim comes of it."""
    tracker = world.tracker
    before = world.tracker.node().claims
    doors: tuple[Callable[[str], object], ...] = (
        tracker.node, tracker.find, tracker.release, tracker.abort, tracker.confirm, tracker.uncordon, tracker.rehome,
        lambda text: tracker.renew(text, 1000), lambda text: tracker.bind(text, ()), lambda text: tracker.give_back(text, "x"),
        lambda text: tracker.give_back("cpu:1", text), lambda text: tracker.cordon(text, "x"), lambda text: tracker.cordon("cpu:1", text),
        lambda text: tracker.hold(OWN, node=text), lambda text: tracker.at(0, text), lambda text: list(tracker.events(text)),
        lambda text: tracker.take_ticket(OWN, tracker.holder(7), owner=text, node=text),
        lambda text: tracker.take_ticket(OWN, tracker.holder(7), owner=text),
    )  # fmt: skip
    for text in TEXTS:
        for say in doors:
            answered(partial(say, text))
    assert tracker.node().claims == before


def test_a_claim_id_is_checked(world: Bench) -> None:
    """An id that the caller chose is of the known form, or refused."""
    for text in TEXTS:
        answer = answered(partial(world.tracker.hold, OWN, claim_id=ClaimId(text)))
        assert (answer is not None) == (text == "c-1234"), text


@pytest.mark.parametrize("number", NUMBERS, ids=str)
def test_a_number_is_bounded(world: Bench, number: int) -> None:
    """As a time to live, an end, a generation, an amount, a count: an answer or an Invalid…, and every state can still be shown."""
    tracker = world.tracker
    claim = granted(tracker.hold(OWN, confirm=True)).id
    doors: tuple[Callable[[], object], ...] = (
        lambda: tracker.hold(OWN, ttl_ms=number), lambda: tracker.renew(claim, number), lambda: tracker.confirm(claim, ttl_ms=number),
        lambda: tracker.cordon("cpu:1", "x", until_ms=number), lambda: tracker.confirm(claim, generation=number),
        lambda: tracker.hold(Request(vcpus=number)), lambda: tracker.hold(Request(memory_bytes=number)),
        lambda: tracker.hold(Request(disk_bytes=number)), lambda: tracker.hold(Request(memory_bytes=GIB, page_kib=number)),
        lambda: tracker.hold(Request(vcpus=1, cells=number)), lambda: tracker.hold(Request(vcpus=1, cpu_policy="dedicated", memory_bytes=number)),
        lambda: tracker.configure(NodeSettings(cpu_shared_set=(number,), cpu_policy="split")),
        lambda: tracker.configure(NodeSettings(reserved_host_cpus=number)), lambda: tracker.configure(NodeSettings(cpu_allocation_ratio=number)),
        lambda: tracker.bind(claim, [Holder(boot_id="boot-1", pid_namespace=number, pid=number, start_ticks=number)]),
        lambda: tracker.at(number), lambda: tracker.fit(Request(vcpus=number)),
    )  # fmt: skip
    for say in doors:
        answered(say)
    state = world.tracker.node()
    assert msgspec.json.encode(list(state.live()))
    assert state == world.reopened().tracker.node()


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"null", b"[]", b"1", b'"x"', b"{", b'{"vcpus":"1"}', b'{"vcpus":1.5}', b'{"vcpus":true}', b'{"vcpus":-1}', b'{"vcpus":1e400}',
        b'{"vcpus":' + b"9" * 4000 + b"}", b'{"vcpus":1,"vcpu":2}', b'{"cpu_policy":"SHARED"}', b'{"cpu_policy":null}', b'{"resources":{}}',
        b'{"resources":[{"resource_class":"a b","amount":1}]}', b'{"resources":[{"resource_class":"CUSTOM_X","amount":0}]}',
        b'{"devices":[{"kind":""}]}', b'{"devices":[{"kind":"gpu","count":99999}]}', b'{"devices":[{"kind":"gpu","match":[{"a":1}]}]}',
        b'{"page_kib":0}', b'{"page_kib":"huge"}', b'{"required_traits":"X"}', b'{"guest_cells":[' + b"{}," * 70 + b"{}]}", b"\xff", b'{"vcpus":1}x',
        b'{"resources":' + b"[" * 50_000, b"[" * 100_000, b'{"devices":[{"kind":"gpu","match":' + b"[" * 20_000 + b"]" * 20_000 + b"}]}",
    ],
    ids=lambda raw: ascii(raw[:40].decode("latin-1")),
)  # fmt: skip
def test_a_request_that_is_none_is_refused(raw: bytes, tmp_path: Path) -> None:
    """Request files of wrong types, unknown keys, huge numbers and nesting without end raise InvalidRecord or ask for nothing that makes sense."""
    from earmark.cli.request_options import read_request

    file = tmp_path / "request.json"
    file.write_bytes(raw)
    with pytest.raises(Invalid), bench("2c 8G") as world:
        world.tracker.hold(read_request(str(file)))


@settings(max_examples=150)
@given(values_of(Request), st.one_of(st.none(), values_of(Grant)))
@pytest.mark.long
def test_any_request_and_any_grant_is_answered(request: Request, grant: Grant | None) -> None:
    """Whatever the structs can hold: fit and judge answer with a grant, a refusal with reasons, or an Invalid… error."""
    with bench("2x2c/2t 8G 2M:64 gpu:1 vf:2", check=False) as world:
        would = answered(lambda: world.tracker.fit(request, grant=grant))
        answer = answered(lambda: world.tracker.hold(request, grant=grant, confirm=True))
        assert (would is None) == (answer is None)
        assert isinstance(would, Refusal) == isinstance(answer, Refusal)
        if isinstance(would, Refusal):
            assert would.reasons
            msgspec.json.encode(would)


@settings(max_examples=60)
@given(values_of(NodeSettings))
def test_any_settings_are_answered(wish: NodeSettings) -> None:
    """Whatever the settings of a node: taken and kept, or an Invalid…; before its machine was seen too."""
    store = MemoryStore()
    writer = Writer(store, GivenClock(), actor="t", epoch=1, boot_id="b", timeout_s=10.0)
    from earmark.core.ledger.commands import ConfigureNode, ObserveMachine, RegisterNode
    from earmark.testing import NODE_ONE

    writer.submit(RegisterNode(node=NODE_ONE, name="n1"))
    for _ in range(2):
        answered(lambda: writer.submit(ConfigureNode(node=NODE_ONE, settings=wish)))
        assert isinstance(writer.submit(ObserveMachine(node=NODE_ONE, machine=BASE)), Answer)
        assert Writer(store, GivenClock(), actor="t", epoch=1, boot_id="b", timeout_s=10.0).state(STREAM) == writer.state(STREAM)


@settings(max_examples=60)
@given(values_of(Machine))
def test_any_machine_is_answered(seen: Machine) -> None:
    """Whatever a driver may see: taken, and the ledger opens with it, or an Invalid… error."""
    with bench("2c 8G") as world:
        world.host.seen = seen
        answered(world.tracker.observe)
        granted_or_refused = answered(lambda: world.tracker.hold(OWN))
        assert granted_or_refused is None or isinstance(granted_or_refused, Answer | Refusal)
        assert world.reopened().tracker.node() == world.tracker.node()


# --- imports ------------------------------------------------------------------------------------------------------------------------


def exported(events: list[e.Event], *, first: int = 0) -> list[bytes]:
    """Return an export of events with a chain that holds, whatever they say."""
    stamp = Stamp(actor="mallory", command="m", now_ms=1000)
    head = Head()
    lines = [encode_line(ExportHeader(version=FORMAT_VERSION, ledger="00000000-0000-4000-8000-000000000009"))]
    for event in events:
        sealed, head = seal(Batch(STREAM, head.sequence, (event,)), head, stamp)
        sequence, raw, digest = sealed[0]
        lines.append(encode_line(EventLine(position=sequence + first, hash=digest, event=msgspec.Raw(raw))))
    return [*lines, encode_line(ExportEnd(events=len(events), streams={STREAM: stream_end(head)} if events else {}))]


@settings(max_examples=120)
@given(st.lists(st.one_of([values_of(kind) for kind in e.EVENTS]), max_size=4), st.integers(0, 30))
def test_an_import_of_anything_opens_or_is_refused(events: list[e.Event], after: int) -> None:
    """Events that are well formed and chained but make no sense: the import refuses them whole, or the ledger opens and can be audited."""
    first = [open_of(stored.raw) for stored in Life().live(range(after)).stored]
    store = MemoryStore()
    try:
        import_lines(exported([*first, *events]), store, check=Replay())
    except InvalidRecord:
        assert store.last_position() == 0
        return
    audit(store)
    verify(store)
    Writer(store, GivenClock(), actor="t", epoch=1, boot_id="b", timeout_s=10.0).state(STREAM)


def open_of(raw: bytes) -> e.Event:
    """Return the event of stored bytes."""
    from earmark.core.ledger.codec import open_event

    return open_event(open_envelope(raw))


@settings(max_examples=200)
@given(st.integers(0, 100_000), st.binary(min_size=1, max_size=3))
def test_a_damaged_export_is_refused_whole(place: int, bytes_put: bytes) -> None:
    """Bytes put anywhere into an export: refused with the line, and the ledger stays empty (or the damage changed nothing)."""
    lines = exported([open_of(stored.raw) for stored in Life().live(range(8)).stored])
    whole = b"".join(lines)
    at = place % len(whole)
    damaged = whole[:at] + bytes_put + whole[at + len(bytes_put) :]
    store = MemoryStore()
    try:
        import_lines(damaged.splitlines(keepends=True), store, check=Replay())
    except InvalidRecord as error:
        assert "line" in error.message or "header" in error.message
        assert (store.last_position(), store.heads()) == (0, {})
        return
    assert [(s.raw, s.hash) for s in store.all_events()] == [(hashed, digest) for hashed, digest in bytes_of(lines)]


def bytes_of(lines: list[bytes]) -> list[tuple[bytes, str]]:
    """Return the bytes and hashes of the events of an export."""
    found = []
    for each in lines[1:-1]:
        decoded = msgspec.json.decode(each, type=EventLine)
        found.append((bytes(decoded.event), hashlib.sha256(bytes(decoded.event)).hexdigest()))
    return found


@pytest.mark.parametrize("depth", [500, 100_000])
def test_an_export_nested_without_end_is_refused(depth: int) -> None:
    """Nesting is refused as a line that is none, not as a crash."""
    nested = b'{"type":"event","position":1,"hash":"","event":' + b"[" * depth + b"]" * depth + b"}\n"
    with pytest.raises(InvalidRecord):
        import_lines([encode_line(ExportHeader(version=FORMAT_VERSION, ledger="x")), nested], MemoryStore(), check=Replay())


def test_an_import_that_nothing_can_follow_from_is_refused() -> None:
    """A chain that holds over events that contradict each other is refused with the line of the first contradiction."""
    events = [open_of(stored.raw) for stored in Life().live(range(8)).stored]
    bad = exported([*events, e.Uncordoned(unit=None)])
    store = MemoryStore()
    with pytest.raises(InvalidRecord, match=rf"line {len(events) + 2}: .*not cordoned") as caught:
        import_lines(bad, store, check=Replay())
    assert isinstance(caught.value.__cause__, LedgerBroken)
    assert store.last_position() == 0


# --- the command line ---------------------------------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize("as_json", [False, True], ids=["plain", "json"])
@pytest.mark.parametrize(
    "words",
    [
        ["claim", "--cpus", "1", "--consumer", "a\udcff"], ["claim", "--cpus", "1", "--owner", "\x1b[31m"], ["show", "c-\udcff"],
        ["release", "\udcff"], ["who", "\udcff"], ["claim", "--request", "\udcff"], ["--ledger", "/tmp/\udcff/l.db", "list"],
        ["claim", "--cpus", "9" * 400], ["claim", "--mem", "9" * 400], ["claim", "--mem", "1e9"], ["claim", "--ttl", "-1s"],
        ["claim", "--resource", "CUSTOM_X=" + "9" * 40], ["claim", "--device", "\n=1"], ["claim", "--trait", "!\n"],
        ["at", "99999999999999999999", "list"], ["node", "set", "cpu_shared_set=0-99999999999"],
        ["node", "set", "cpu_allocation_ratio=" + "9" * 50], ["cordon", "\x1b[2J"], ["return", "cpu:1", "--reason", "\x1b[2J"],
    ],
    ids=lambda words: ascii(" ".join(words))[:50],
)  # fmt: skip
def test_hostile_words_on_the_command_line(words: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str], *, as_json: bool) -> None:
    """Arguments that are no UTF-8, no number, no name: an error with its own exit code, never a traceback, nothing raw on the terminal."""
    from earmark.cli.main import cli

    ledger = [] if words[0] == "--ledger" else ["--ledger", str(tmp_path / "l" / "ledger.db")]
    with pytest.raises(SystemExit) as ended:
        cli.main([*(["--json"] if as_json else []), *ledger, *words])
    out, err = capfd.readouterr()
    assert ended.value.code in (2, 3, 5)
    assert "Traceback" not in out + err
    assert "fault of Earmark" not in out + err
    assert "\x1b" not in out + err
