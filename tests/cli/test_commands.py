"""The commands on the memory store: what they print, their JSON, their exit codes."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from click import Context
from tests.cli.conftest import Line

from earmark.cli import output, output_machine
from earmark.cli.claim import FORMAT_NAMES
from earmark.cli.main import SECTIONS, Earmark, cli
from earmark.core.model.grant import Grant
from earmark.core.model.node import NodeSettings
from earmark.launch.formats import FORMATS


def shaped(text: str, shape: type[output.Out]) -> Any:
    """Decode JSON strictly as one of the documented shapes: no key more, no key less."""
    decoded = msgspec.json.decode(text, type=shape)
    assert set(json.loads(text)) == set(shape.__struct_fields__)
    return decoded


def test_claim_says_what_was_given_and_release_gives_it_back(earmark: Line) -> None:
    """A claim prints its id, CPUs and end; the CPU is then held; after the release it is free, and a second release is an answer."""
    out = earmark.good("claim --cpus 2:dedicated --mem 4GiB --consumer vm-1 --owner alice --ttl 2h")
    claim = out.split()[0]
    assert "cpu " in out
    assert "vm-1 of alice · confirmed, until" in out
    cpu = earmark.bench.tracker.node().claims[claim].grant.cpus[0]  # type: ignore[index]  # plain text for a NewType
    assert f"held by vm-1 of alice ({claim})" in earmark.good(f"who {cpu}")
    assert earmark.good(f"release {claim}") == f"{claim} released\n"
    assert earmark.good(f"who cpu:{cpu}") == f"cpu:{cpu} is free\n"
    assert earmark.good(f"release {claim}") == f"{claim} had ended already (released)\n"


def test_a_release_by_name_says_what_its_consumer_still_holds(earmark: Line) -> None:
    """The name stands for the main claim; the others are named on standard error, and a release by id says nothing of them."""
    earmark.good("claim --mem 1GiB --consumer vm-1")
    port = earmark.good("-q claim --mem 1MiB --consumer vm-1 --purpose attach").strip()
    said = earmark("release vm-1")
    assert (said.code, said.err) == (0, f"vm-1 still holds {port}: earmark release {port}\n")
    assert earmark(f"release {port}").err == ""
    assert earmark("release vm-1").err == ""


def test_quiet_claim_prints_only_its_id(earmark: Line) -> None:
    """With -q, before or after the command, the output is the claim's id and nothing else."""
    for words in ("-q claim --mem 1MiB", "claim --mem 1MiB -q", "claim -q --mem 1MiB"):
        said = earmark(words)
        assert said.err == ""
        assert said.out.strip() in earmark.bench.tracker.node().claims


def test_a_refused_claim_names_every_reason_and_ends_with_3(earmark: Line) -> None:
    """A claim that does not fit changes nothing, says on standard error what is short and who holds it, and exits 3."""
    earmark.good("claim --cpus 7:dedicated --consumer vm-1 --owner alice")
    earmark.good("claim --cpus 7:dedicated --consumer vm-2 --owner bob")
    before = earmark.bench.tracker.node().sequence
    said = earmark("claim --cpus 4:dedicated")
    assert (said.code, said.out) == (3, "")
    assert said.err.startswith("earmark: refused: 4 dedicated CPUs on n1\n")
    assert "short" in said.err
    assert "held by vm-1 of alice (c-" in said.err
    assert "vm-2 of bob" in said.err
    assert earmark.bench.tracker.node().sequence == before


def test_a_refused_claim_in_json_is_an_answer(earmark: Line) -> None:
    """With --json a refusal is on standard output in its documented shape, with the same exit code."""
    said = earmark("claim --cpus 99:dedicated --json")
    assert said.code == 3
    answer = shaped(said.out, output.FitOut)
    assert not answer.fits
    assert answer.reasons
    assert all(reason.text for reason in answer.reasons)


def test_fit_and_why_not_write_nothing(earmark: Line) -> None:
    """What-if answers with a place or with reasons; the ledger's sequence does not move."""
    before = earmark.bench.tracker.node().sequence
    assert "fits on n1: 2 dedicated CPUs" in earmark.good("fit --cpus 2:dedicated")
    said = earmark("fit --mem 1TiB")
    assert said.code == 3
    assert said.out.startswith("does not fit on n1: 1 TiB memory")
    assert "short" in earmark.good("why-not --mem 1TiB")
    assert "fits on n1" in earmark.good("why-not --mem 1GiB")
    assert shaped(earmark.good("fit --mem 1GiB --json"), output.FitOut).fits
    assert earmark.bench.tracker.node().sequence == before


def test_a_prescribed_grant_is_judged(earmark: Line) -> None:
    """What fit answers can be prescribed; a second claim of the same units is refused and names them."""
    answer = shaped(earmark.good("fit --cpus 1:dedicated --json"), output.FitOut)
    text = msgspec.json.encode(answer.grant).decode()
    assert earmark("claim --cpus 1:dedicated --grant -", stdin=text).code == 0
    said = earmark("claim --cpus 1:dedicated --grant -", stdin=text)
    assert said.code == 3
    assert "cpu" in said.err
    assert earmark("claim --grant -", stdin="{}x").code == 2
    assert isinstance(answer.grant, Grant)


def test_a_held_claim_is_confirmed_or_aborted(earmark: Line) -> None:
    """--hold holds with a deadline; confirm keeps it, abort gives it up, and a confirmed one is not aborted."""
    first = earmark.good("claim -q --mem 1MiB --hold").strip()
    assert "held, until" in earmark.good(f"show {first}")
    assert "is confirmed" in earmark.good(f"confirm {first} --ttl 1h")
    assert earmark(f"abort {first}").code == 4
    second = earmark.good("claim -q --mem 1MiB --hold").strip()
    assert earmark.good(f"abort {second}").startswith(f"{second} released (aborted)")


def test_renew_moves_the_end(earmark: Line) -> None:
    """Renew gives a claim a new end or none; it needs one of both."""
    claim = earmark.good("claim -q --mem 1MiB --ttl 10m").strip()
    answer = shaped(earmark.good(f"renew {claim} --ttl 2h --json"), output.AnswerOut)
    assert answer.claim.until.ms == earmark.bench.clock.now_ms() + 7_200_000
    assert "no end" in earmark.good(f"renew {claim} --no-end")
    assert earmark(f"renew {claim}").code == earmark(f"renew {claim} --ttl 1h --no-end").code == 2


def test_a_claim_bound_to_a_process_drains_while_it_lives(earmark: Line) -> None:
    """A claim bound to a living process drains on release and keeps its units; when the process is gone they are free."""
    claim = earmark.good("claim -q --cpus 1:dedicated --pid 4711").strip()
    assert "is draining: still bound to pid 4711" in earmark.good(f"release {claim}")
    assert "draining (released)" in earmark.good("list")
    earmark.bench.processes.fates[4711] = "dead"
    assert "released" in earmark.good(f"release {claim}")
    assert earmark.bench.tracker.node().claims.get(claim) is None  # type: ignore[call-overload]  # plain text for a NewType


def test_quarantined_units_are_shown_and_returned(earmark: Line) -> None:
    """A forced claim ends in quarantine after the grace time; who says so, and return gives the units back with a reason."""
    claim = earmark.good("claim -q --cpus 1:dedicated --consumer vm-9 --owner dan").strip()
    cpu = earmark.bench.tracker.node().claims[claim].grant.cpus[0]  # type: ignore[index]  # plain text for a NewType
    assert "is draining" in earmark.good(f"release --force {claim}")
    earmark.bench.clock.move(61_000)
    earmark.bench.tracker.sweep()
    said = earmark.good(f"who {cpu}")
    assert f"cpu:{cpu} is in quarantine since" in said
    assert "vm-9 of dan" in said
    assert shaped(earmark.good(f"who {cpu} --json"), output.WhoOut).state == "quarantined"
    assert "quarantined" in earmark.good("list")
    assert earmark(f"return cpu:{cpu}").code == 2
    assert "returned" in earmark.good(f"return {cpu} --reason", "the guest was seen to be off")
    assert earmark.good(f"who {cpu}") == f"cpu:{cpu} is free\n"


def test_the_same_key_claims_once(earmark: Line) -> None:
    """A claim repeated under its key gets the first answer; another claim under that key is an error."""
    first = earmark.good("claim -q --mem 1MiB --key job-1")
    assert earmark.good("claim -q --mem 1MiB --key job-1") == first
    said = earmark("claim --mem 2MiB --key job-1")
    assert said.code == 2
    assert said.err.startswith("earmark: ")


@pytest.mark.parametrize("name", FORMAT_NAMES)
def test_a_claim_is_printed_for_other_launchers(earmark: Line, name: str) -> None:
    """Each format comes from claim itself and from show, the same both times."""
    assert tuple(FORMATS) == FORMAT_NAMES
    first = earmark.good(f"claim --cpus 2:dedicated --mem 1GiB --consumer vm-7 --format {name}")
    assert first == earmark.good(f"show vm-7 --format {name}")
    assert first.endswith("\n")


def test_list_filters_and_its_json_is_complete(earmark: Line) -> None:
    """List shows consumer, owner, holdings and end, filtered by owner or consumer; its JSON has the documented shape."""
    earmark.good("claim --mem 1GiB --consumer vm-1 --owner alice")
    earmark.good("claim --gpus 1 --consumer vm-2 --owner bob --ttl 1h")
    lines = earmark.good("list").splitlines()
    assert lines[0].split() == ["claim", "consumer", "owner", "since", "state", "holds"]
    assert len(lines) == 3
    assert "vm-2" not in earmark.good("list --owner alice")
    found = shaped(earmark.good("list --json --consumer vm-2"), output.ListOut)
    assert [(claim.consumer, claim.owner) for claim in found.claims] == [("vm-2", "bob")]
    assert found.claims[0].until.iso.endswith("Z")


def test_list_of_nothing_is_empty(tiny: Line) -> None:
    """Where nothing is held, list prints nothing on standard output and says so beside it."""
    said = tiny("list")
    assert (said.code, said.out, said.err) == (0, "", "nothing is held\n")


def test_show_finds_claims_units_and_nodes(earmark: Line) -> None:
    """Show takes a claim's id, its beginning, a consumer, a unit, a node; another word is an error that says what it could have been."""
    claim = earmark.good("claim -q --cpus 1:dedicated --mem 1GiB --consumer vm-1").strip()
    for word in (claim, claim[:9], "vm-1"):
        assert earmark.good(f"show {word}").startswith(f"{claim}\n  node        n1\n")
    assert shaped(earmark.good(f"show {claim} --json"), output.ClaimOut).id == claim
    assert earmark.good("show cpu:9").startswith("cpu:9 is free")
    assert earmark.good("show n1") == earmark.good("show") == earmark.good("")
    assert earmark("show nothing-of-the-kind").code == 2
    earmark.good(f"release {claim}")
    assert "has ended (released)" in earmark.good(f"show {claim}")
    assert shaped(earmark.good(f"show {claim} --json"), output.EndedOut).cause == "released"


def test_units_have_more_than_one_name(earmark: Line) -> None:
    """A CPU is 3, cpu3 or cpu:3; a device goes by unit, by the beginning of its name where that is unique, and by PCI address."""
    for word in ("3", "cpu3", "cpu:3"):
        assert earmark.good(f"who {word}") == "cpu:3 is free\n"
    assert earmark.good("who GPU-0").startswith("gpu:GPU-0 is free")
    assert earmark.good("who 0000:40:00.0").startswith("gpu:GPU-0 is free")
    assert earmark.good("who 40:00.0").startswith("gpu:GPU-0 is free")
    for word in ("GPU-", "99", "gpu:none", "0000:ff:00.0", "x" * 500):
        assert earmark(f"who {word}").code == 2


def test_who_names_those_who_share_a_cpu(earmark: Line) -> None:
    """A free CPU of the pool may run shared vCPUs: who names the claims; a dedicated one is nobody else's."""
    earmark.good("claim --cpus 3 --consumer web --owner alice")
    claim = earmark.good("claim -q --cpus 1:dedicated").strip()
    cpu = earmark.bench.tracker.node().claims[claim].grant.cpus[0]  # type: ignore[index]  # plain text for a NewType
    free = next(number for number in range(16) if number != cpu)
    assert "shared by web of alice" in earmark.good(f"who {free}")
    assert "shared by" not in earmark.good(f"who {cpu}")


def test_the_machine_in_json_is_complete(earmark: Line) -> None:
    """`earmark --json` has every CPU, cell, pool and device with its state and holder."""
    claim = earmark.good("claim -q --cpus 2:dedicated --mem 1GiB --gpus 1").strip()
    found = shaped(earmark.good("--json"), output_machine.MachineOut)
    assert len(found.cpus) == 16
    assert [cpu.claim for cpu in found.cpus if cpu.state == "taken"] == [claim, claim]
    assert [cell.bound_bytes for cell in found.cells if cell.bound_bytes] == [1 << 30]
    assert [device.state for device in found.devices if device.kind == "gpu"].count("taken") == 1
    pools = {pool.pool: pool for pool in found.pools}
    assert (pools["memory"].used, pools["cpu"].used) == (1 << 30, 2)
    assert pools["pages:0:2048"].page_kib == 2048


def test_time_travel(earmark: Line) -> None:
    """At an earlier time list, show, who and the picture are as they were then; the future and other commands are refused."""
    clock = earmark.bench.clock
    claim = earmark.good("claim -q --cpus 1:dedicated --consumer vm-1").strip()
    cpu = earmark.bench.tracker.node().claims[claim].grant.cpus[0]  # type: ignore[index]  # plain text for a NewType
    clock.move(3_600_000)
    earmark.good(f"release {claim}")
    clock.move(3_600_000)
    for moment in ("-90m", f"{clock.now_ms() - 5_400_000}"):
        assert claim in earmark.good(f"at {moment} list")
        assert f"is held by vm-1 of tester ({claim})" in earmark.good(f"at {moment} who {cpu}")
        assert earmark.good(f"at {moment} show vm-1").startswith(claim)
        assert earmark.good(f"at {moment}").startswith(" as it was at ")
    assert earmark("at -30m list").out == ""
    assert shaped(earmark.good(f"at -90m who {cpu} --json"), output.WhoOut).at.ms == clock.now_ms() - 5_400_000
    assert earmark("at -1000h list").code == 0
    assert earmark("at -1000h").code == 2
    for words in (f"at {clock.now_ms() + 60_000} list", "at -1h claim --mem 1MiB", "at soon list", "at"):
        assert earmark(words).code == 2


def test_diff_says_what_changed(earmark: Line) -> None:
    """Between two times: claims that came and went, cordons, settings; nothing is said where nothing changed."""
    clock = earmark.bench.clock
    gone = earmark.good("claim -q --mem 1MiB --consumer old").strip()
    clock.move(60_000)
    new = earmark.good("claim -q --mem 2MiB --consumer new").strip()
    earmark.good(f"release {gone}")
    earmark.good("node cordon 3 --reason", "fan [red]broken")
    earmark.good("node set reserved_host_cpus=1")
    out = earmark.good("diff -30s")
    assert f"- old of tester ({gone}): 1 MiB" in out
    assert f"+ new of tester ({new}): 2 MiB" in out
    assert "+ cordon of cpu:3: fan [red]broken" in out
    assert "~ reserved_host_cpus: 0 → 1" in out
    assert shaped(earmark.good("diff -30s --json"), output.DiffOut).changes
    assert earmark("diff now").out == ""
    assert earmark("diff now -1h").code == 2


def test_log_tells_the_story_of_a_claim_and_of_a_unit(earmark: Line) -> None:
    """The log is oldest first, bounded by number and time, and follows a claim, a consumer or a unit; JSON is one event a line."""
    first = earmark.good("claim -q --cpus 1:dedicated --consumer vm-1").strip()
    cpu = earmark.bench.tracker.node().claims[first].grant.cpus[0]  # type: ignore[index]  # plain text for a NewType
    earmark.good(f"release {first}")
    other = earmark.good("claim -q --mem 1MiB").strip()
    for what in (first, first[:8], "vm-1", f"cpu:{cpu}", str(cpu)):
        lines = earmark.good(f"log {what} --all").splitlines()
        assert len(lines) == 3
        assert all(first in line for line in lines)
    assert other in earmark.good("log -n 1")
    assert len(earmark.good("log -n 2").splitlines()) == 2
    assert earmark.good(f"log --since {earmark.bench.clock.now_ms() + 1000}") == ""
    whole = earmark.good("log --all")
    assert earmark.good("log --since -1000h") == whole
    assert earmark.good("log --until -1000h --all") == ""
    events = [shaped(line, output.EventOut) for line in earmark.good("log --all --json").splitlines()]
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert events[0].type == "node.registered"


def test_the_log_since_a_time_begins_with_the_first_event_then(earmark: Line) -> None:
    """However many events there are, --since begins exactly at the first one of that time, and -n takes the last of them."""
    for number in range(12):
        earmark.bench.clock.move(60_000)
        earmark.good(f"claim --mem 1KiB --consumer vm-{number}")
    for back in range(12):
        lines = earmark.good(f"log --since -{60 * back}s" if back else "log --since now").splitlines()
        assert len(lines) == 2 * (back + 1)
        assert f"for vm-{11 - back}" in lines[0]
    assert len(earmark.good("log --since -1h -n 3").splitlines()) == 3


def test_a_node_is_listed_set_cordoned_and_opened(earmark: Line) -> None:
    """Settings by Nova's names in human units, cordons with reason and end, and each refused grant names the cordon."""
    assert "n1" in earmark.good("node list")
    assert [shaped(json.dumps(row), output_machine.NodeOut).name for row in json.loads(earmark.good("node list --json"))] == ["n1"]
    earmark.good(
        "node set reserved_host_cpus=2 reserved_host_memory_mb=1024 cpu_allocation_ratio=4.5 inventory.CUSTOM_LICENCE=8,reserved=1"
    )
    settings = earmark.bench.tracker.node().settings
    assert (settings.reserved_host_cpus, settings.reserved_host_memory_bytes, settings.cpu_allocation_ratio) == (2, 1 << 30, 4500)
    out = earmark.good("node set")
    assert "* reserved_host_cpus 2 CPUs kept for the host" in " ".join(out.split())
    assert "inventory.CUSTOM_LICENCE 8, reserved 1" in " ".join(out.split())
    earmark.good("claim --resource CUSTOM_LICENCE=7")
    assert earmark("claim --resource CUSTOM_LICENCE=1").code == 3
    earmark.good("node cordon --for 2h --reason", "kernel update")
    said = earmark("claim --mem 1MiB")
    assert said.code == 3
    assert "kernel update" in said.err
    earmark.good("node uncordon")
    earmark.good("claim --mem 1MiB")
    assert earmark("node cordon 3 --for 1h --until 20:00 --reason x").code == 2
    assert "settings" in json.loads(earmark.good("node show n1 --json"))


@pytest.mark.parametrize(
    "pair",
    ["reserved_host_cpus", "reserved_host_cpus=-1", "reserved_host_cpus=x", "cpu_policy=some", "cpu_shared_set=1-", "nothing=1",
     "cpu_allocation_ratio=0", "reserved_huge_pages=1:2", "inventory.x=1", "inventory.CUSTOM_X=1,size=2", "inventory.VCPU=3",
     "device_kinds=GPU", "device_units=x", "cpu_dedicated_set=0-3", "reserved_host_memory=lots"],
)  # fmt: skip
def test_impossible_settings_are_refused(earmark: Line, pair: str) -> None:
    """A setting that is unknown, malformed or contradicts the others changes nothing and exits 2."""
    before = earmark.bench.tracker.node().settings
    assert earmark("node set", pair).code == 2
    assert earmark.bench.tracker.node().settings == before


@pytest.mark.rule("K4")
@pytest.mark.parametrize(
    ("pair", "field", "value", "default"),
    [
        ("reserved_host_cpus=2", "reserved_host_cpus", 2, 0),
        ("reserved_host_memory_mb=2048", "reserved_host_memory_bytes", 2 << 30, None),
        ("reserved_host_disk_mb=512", "reserved_host_disk_bytes", 512 << 20, 1 << 30),
        ("cpu_allocation_ratio=16.0", "cpu_allocation_ratio", 16000, 1000),
        ("ram_allocation_ratio=1.5", "ram_allocation_ratio", 1500, 1000),
        ("disk_allocation_ratio=0.9", "disk_allocation_ratio", 900, 1000),
        ("reserved_huge_pages=0:2MiB:64,1:2048KiB:2", "reserved_huge_pages", ((0, 2048, 64), (1, 2048, 2)), ()),
    ],
)
def test_novas_options_go_by_their_names(earmark: Line, pair: str, field: str, value: object, default: object) -> None:
    """Each of Nova's options is taken by its name and unit, and `default` brings the safe default back."""
    earmark.good("node set", pair)
    found = getattr(earmark.bench.tracker.node().settings, field)
    assert (tuple((each.cell, each.size_kib, each.count) for each in found) if field == "reserved_huge_pages" else found) == value
    earmark.good("node set", pair.partition("=")[0] + "=default")
    assert getattr(earmark.bench.tracker.node().settings, field) == default
    assert getattr(NodeSettings(), field) == default


@pytest.mark.rule("K4")
def test_the_cpu_sets_go_by_novas_names(earmark: Line) -> None:
    """cpu_shared_set and cpu_dedicated_set take Nova's notation, exclusions included, and are unset by default."""
    assert (NodeSettings().cpu_shared_set, NodeSettings().cpu_dedicated_set) == (None, None)
    earmark.good("node set cpu_policy=split cpu_shared_set=0-3,^1 cpu_dedicated_set=4-15")
    settings = earmark.bench.tracker.node().settings
    assert (settings.cpu_shared_set, settings.cpu_dedicated_set) == ((0, 2, 3), tuple(range(4, 16)))
    earmark.good("node set cpu_policy=pool cpu_shared_set=none cpu_dedicated_set=none")
    assert earmark.bench.tracker.node().settings.cpu_shared_set is None


@pytest.mark.rule("L2", "S08")
@pytest.mark.parametrize(
    "words",
    ["claim --mem 1MiB --node nope", "fit --mem 1MiB --node nope", "who 3 --node nope", "list --node nope", "log --node nope", "diff -1h --node nope",
     "node set reserved_host_cpus=1 --node nope", "node cordon 3 --reason x --node nope", "node show nope"],
)  # fmt: skip
def test_an_unknown_node_is_refused_by_name(earmark: Line, words: str) -> None:
    """A node that is not in the ledger is named in the error; nothing is written."""
    before = earmark.bench.tracker.node().sequence
    said = earmark(words)
    assert said.code == 2
    assert "'nope'" in said.err
    assert earmark.bench.tracker.node().sequence == before


def test_a_setting_gets_its_default_back(earmark: Line) -> None:
    """`default` (and auto for the reserved memory) undoes a setting; a class of total 0 goes."""
    earmark.good("node set reserved_host_memory=1GiB device_kinds=gpu,nic inventory.CUSTOM_X=1")
    earmark.good("node set reserved_host_memory=auto device_kinds=default inventory.CUSTOM_X=0")
    settings = earmark.bench.tracker.node().settings
    assert (settings.reserved_host_memory_bytes, settings.device_kinds, settings.inventories) == (
        None,
        ("accelerator", "gpu", "mig", "vf"),
        (),
    )
    earmark.good("node set device_kinds=none")
    assert earmark.bench.tracker.node().settings.device_kinds == ()


def test_audit_and_verify_answer_by_exit_code(earmark: Line) -> None:
    """A sound ledger is clean and exits 0, in words and in JSON; a warning is a finding and exits 1."""
    earmark.good("claim --cpus 4:dedicated --mem 1GiB")
    assert earmark.good("audit") == "clean: 1 node, 1 live claim, no findings\n"
    assert "every link holds" in earmark.good("verify")
    assert shaped(earmark.good("audit --json"), output.AuditOut).clean
    assert shaped(earmark.good("verify --json"), output.VerifyOut).clean
    earmark.good("node set reserved_host_memory=32GiB")
    said = earmark("audit")
    assert said.code == 1
    assert said.out.startswith("warning: overage: ")
    assert earmark("audit --errors-only").code == 0


def test_completion_is_printed_for_each_shell(earmark: Line) -> None:
    """The three shells get a script that calls earmark back."""
    for shell in ("bash", "zsh", "fish"):
        assert "_EARMARK_COMPLETE" in earmark.good(f"completion {shell}")
    assert earmark("completion tcsh").code == 2


def test_every_command_has_help_that_its_table_repeats(earmark: Line) -> None:
    """The short help of the command table is the first sentence of each command's own help."""
    assert isinstance(cli, Earmark)
    for _, commands in SECTIONS:
        for name, _, text in commands:
            command = cli.get_command(Context(cli), name)
            assert command is not None
            assert (command.name, command.get_short_help_str(200)) == (name, text)
            assert earmark.good(f"{name} --help").startswith(f"Usage: earmark {name} ")
    assert "Take and give back:" in earmark.good("--help")


@pytest.mark.parametrize("words", ["init --group g", "init --system --shared d", "foo", "claim --foo", "who"])
def test_what_contradicts_itself_is_refused(earmark: Line, words: str) -> None:
    """Options that exclude each other, unknown commands and missing arguments exit 2 with one line."""
    said = earmark(words)
    assert said.code == 2
    assert said.err.startswith("earmark: ")
    assert len(said.err.splitlines()) == 1
