"""Moves on the command line: both legs side by side, each end said once, twice and late, and the figures of the scenarios."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from tests.cli.conftest import Line
from tests.cli.lives import BOTH, HOST, LARGE, NOTHING, SMALL, L, S, both, run_steps, two_nodes
from tests.cli.test_commands import shaped

from earmark.cli import output, output_lives
from earmark.testing import bench


@pytest.fixture
def two() -> Iterator[Line]:
    """Give a command line on two nodes, with web on n1."""
    with two_nodes() as line:
        line.good(f"claim {SMALL} --consumer web --owner alice")
        yield line


def ended(line: Line, words: str) -> Any:
    """Return the decoded LifeOut of a command that must end with 0."""
    return shaped(line.good(f"{words} --json"), output_lives.LifeOut)


# --- the scenarios, step by step ----------------------------------------------------------------------------------------------------


@pytest.mark.rule("S11", "M1", "M15")
def test_a_resize_elsewhere_is_confirmed(two: Line) -> None:
    """S11: both nodes are charged until confirm, which may be said twice; the delete frees what is left."""
    run_steps(two, [
        ("instance state web active", (S, NOTHING)),
        (f"move resize web --to n2 {LARGE} --id m-0011", (S, L)),
        ("instance state web active --task resize_migrating", (S, L)),
        ("move finish web", (S, L)),
        ("instance state web resized", (S, L)),
        ("move finish web", (S, L)),
        ("move confirm web", (NOTHING, L)),
        ("instance state web active", (NOTHING, L)),
        ("move confirm m-0011", (NOTHING, L)),
        ("move revert web", (NOTHING, L)),
        ("move abort web", (NOTHING, L)),
        ("instance delete web", (NOTHING, NOTHING)),
        ("instance delete web", (NOTHING, NOTHING)),
        ("move confirm web", (NOTHING, NOTHING)),
    ])  # fmt: skip


@pytest.mark.rule("S12", "M16")
def test_a_resize_elsewhere_is_reverted(two: Line) -> None:
    """S12: the revert frees the destination at once and the source is never without its claim."""
    run_steps(two, [
        (f"move resize web --to n2 {LARGE}", (S, L)),
        ("move finish web", (S, L)),
        ("instance state web resized", (S, L)),
        ("move revert web", (S, NOTHING)),
        ("instance state web active", (S, NOTHING)),
        ("move revert web", (S, NOTHING)),
        ("move confirm web", (S, NOTHING)),
        ("instance delete web", (NOTHING, NOTHING)),
    ])  # fmt: skip


@pytest.mark.rule("S13", "M5", "M6")
def test_a_resize_on_one_node_is_confirmed(two: Line) -> None:
    """S13: both sizes count until confirm; a delete right after it frees all."""
    run_steps(two, [
        (f"move resize web {LARGE}", (BOTH, NOTHING)),
        ("move finish web", (BOTH, NOTHING)),
        ("move confirm web", (L, NOTHING)),
        ("instance delete web", (NOTHING, NOTHING)),
    ])  # fmt: skip


@pytest.mark.rule("S14")
def test_a_resize_on_one_node_is_reverted(two: Line) -> None:
    """S14: the revert leaves exactly what there was, and a delete right after it frees all."""
    run_steps(two, [
        (f"move resize web {LARGE}", (BOTH, NOTHING)),
        ("move finish web", (BOTH, NOTHING)),
        ("move revert web", (S, NOTHING)),
        ("instance delete web", (NOTHING, NOTHING)),
    ])  # fmt: skip


@pytest.mark.rule("S15", "M17")
def test_a_resize_is_aborted_twice(two: Line) -> None:
    """S15: the second abort is an answer and takes nothing below zero."""
    run_steps(two, [
        (f"move resize web --to n2 {LARGE}", (S, L)),
        ("move abort web", (S, NOTHING)),
        ("move abort web", (S, NOTHING)),
    ])  # fmt: skip


@pytest.mark.rule("S16")
def test_a_cold_migration_is_confirmed(two: Line) -> None:
    """S16: the same size on both nodes until confirm."""
    run_steps(two, [("move migrate web --to n2", (S, S)), ("move finish web", (S, S)), ("move confirm web", (NOTHING, S))])


@pytest.mark.rule("S20", "M23", "M25")
@pytest.mark.parametrize("state", ["active", "paused", "error"])
def test_a_live_migration_counts_in_every_state(two: Line, state: str) -> None:
    """S20: whatever state is reported meanwhile, both nodes are charged until the migration is completed."""
    run_steps(two, [
        ("move live-migrate web --to n2", (S, S)),
        (f"instance state web {state} --task migrating", (S, S)),
        ("move confirm web", (NOTHING, S)),
        ("move confirm web", (NOTHING, S)),
    ])  # fmt: skip


@pytest.mark.rule("S18", "M20", "M21")
def test_an_evacuated_host_is_kept_back_until_it_came_back(two: Line) -> None:
    """S18: what the guest held on the old host is free only when that host is said to be back; saying it twice is an answer."""
    two.good("move evacuate web --to n2")
    said = two("move confirm web")
    assert "drains: it keeps" in said.out
    assert "earmark move came-back n1" in said.err
    assert both(two) == (S, S)
    assert "n1 is back; freed: c-" in two.good("move came-back n1")
    assert both(two) == (NOTHING, S)
    assert "nothing was left there by an evacuation" in two.good("move came-back n1")
    assert not shaped(two.good("move came-back n1 --json"), output.AnswerOut).changed


@pytest.mark.rule("S23", "M31")
def test_a_delete_in_the_middle_says_what_it_freed_on_both_nodes(two: Line) -> None:
    """S23: deleted while resized, both legs are free at once, and each is named with its node."""
    two.good(f"move resize web --to n2 {LARGE}")
    two.good("move finish web")
    two.good("instance state web resized")
    out = two.good("instance delete web")
    assert "freed on n1: 2 shared vCPUs, 2 GiB, 20 GiB disk" in out
    assert "freed on n2: 4 shared vCPUs, 4 GiB, 40 GiB disk" in out
    assert both(two) == (NOTHING, NOTHING)
    assert "was deleted already" in two.good("move confirm web")


# --- what is printed ----------------------------------------------------------------------------------------------------------------


def test_both_legs_stand_side_by_side(two: Line) -> None:
    """Opening a move and its status show node, claim, CPUs, memory, disk and devices of both legs, and what may be said next."""
    said = two(f"move resize web --to n2 {LARGE} --ttl 30m --id m-0001")
    rows = {line.split("  ")[1].strip(): line for line in said.out.splitlines()[2:]}
    assert said.out.startswith("m-0001  resize of web: preparing, begun ")
    for label, source, destination in (
        ("node", "n1", "n2"),
        ("CPUs", "2", "4"),
        ("memory", "2 GiB", "4 GiB"),
        ("disk", "20 GiB", "40 GiB"),
    ):
        assert rows[label].split(label)[1].split("   ", 1)[0].strip() in ("", source)
        assert source in rows[label]
        assert rows[label].endswith(destination)
    assert "held, until" in rows["state"]
    assert "next: earmark move finish m-0001" in said.err
    assert two.good("move status m-0001") == two.good("move status") == two.good("move status web") == said.out
    assert "next: earmark move confirm m-0001" in two("move finish web").err


def test_a_move_can_be_opened_again_under_its_id(two: Line) -> None:
    """The same command with the same id is answered; another one under that id, or a second move, is a conflict."""
    words = f"move resize web --to n2 {LARGE} --id m-0001"
    two.good(words)
    assert two.good(words) == "m-0001 was opened already\n"
    assert two.good(f"{words} -q") == "m-0001\n"
    assert both(two) == (S, L)
    assert two("move migrate web --to n2 --id m-0001").code == 4
    assert two("move migrate web --to n2").code == 4
    assert two(f"move resize web --to n2 {LARGE} --id nonsense").code == 2


def test_late_ends_say_what_became_of_the_move(two: Line) -> None:
    """Each end that comes late names the true outcome and ends with 0."""
    two.good("move migrate web --to n2 --id m-0001")
    assert two.good("move confirm web").splitlines()[0] == "m-0001 of web confirmed"
    assert two.good("move confirm web") == "m-0001 of web was confirmed already\n"
    for late, outcome in (("revert", "reverted"), ("abort", "aborted")):
        assert two.good(f"move {late} web") == f"m-0001 of web was confirmed already; nothing is {outcome}\n"
    assert two.good("move finish web") == "m-0001 of web was confirmed already\n"
    assert two.good("move drop m-0001 --leg source") == "m-0001 of web was confirmed already\n"
    assert not ended(two, "move confirm web").changed


@pytest.mark.parametrize(("leg", "outcome", "books"), [("source", "confirmed", (NOTHING, S)), ("destination", "reverted", (S, NOTHING))])
def test_a_leg_is_dropped(two: Line, leg: str, outcome: str, books: tuple[str, str]) -> None:
    """Dropping the source confirms, dropping the destination reverts; twice is an answer."""
    two.good("move migrate web --to n2")
    assert ended(two, f"move drop web --leg {leg}").outcome == outcome
    assert both(two) == books
    assert not ended(two, f"move drop web --leg {leg}").changed
    assert two("move drop web --leg left").code == two("move drop web").code == 2


@pytest.mark.rule("M16")
def test_a_move_that_was_given_up_stays_so_in_the_list(two: Line) -> None:
    """When the source leaves by a later move, the earlier one is still told as aborted."""
    two.good("move migrate web --to n2 --id m-0001")
    two.good("move abort web")
    two.good("move migrate web --to n2 --id m-0002")
    assert "m-0001" not in two.good("move list")
    two.good("move confirm web")
    listed = {line.split()[0]: line for line in two.good("move list --all").splitlines()}
    assert "aborted" in listed["m-0001"]
    assert "confirmed" in listed["m-0002"]
    assert two("move list").err == "no move is open\n"
    assert two("move status").err == "no move is open\n"
    assert "aborted" in two.good("move status m-0001")


@pytest.mark.rule("M15")
def test_a_confirmed_move_stays_so_whatever_comes_after(two: Line) -> None:
    """Moved on, evacuated, shelved and deleted later, every earlier move is still told as it ended, at each step."""
    ended_as = {}
    for number, (words, outcome) in enumerate((
        ("migrate web --to n2", "confirm"), (f"resize web --to n1 {LARGE}", "revert"), (f"resize web {LARGE}", "confirm"),
        ("migrate web --to n1", "confirm"), ("evacuate web --to n2", "confirm"), ("migrate web --to n1", "abort"),
    )):  # fmt: skip
        move = f"m-000{number}"
        two.good(f"move {words} --id {move}")
        two.good(f"move {outcome} {move}")
        ended_as[move] = {"confirm": "confirmed", "revert": "reverted", "abort": "aborted"}[outcome]
        assert {each["id"]: each["status"] for each in two("move list --all --json").json()} == ended_as
    for words in ("move came-back n1", "instance state web shelved_offloaded", "instance unshelve web", "instance delete web"):
        two.good(words)
        assert {each["id"]: each["status"] for each in two("move list --all --json").json()} == ended_as, words


def test_a_refused_move_names_the_reasons_and_changes_nothing(two: Line) -> None:
    """What does not fit at the destination exits 3 with every reason, in words and in JSON, and no leg is open."""
    said = two("move resize web --to n2 --cpus 99:dedicated")
    assert (said.code, said.out) == (3, "")
    assert said.err.startswith("earmark: refused: resize of web: 99 dedicated CPUs on n2\n")
    assert "short" in said.err
    refused = two("move resize web --to n2 --cpus 99:dedicated --json")
    assert refused.code == 3
    assert not shaped(refused.out, output.FitOut).fits
    assert "allow_migrate_to_same_host" in two("move migrate web").err
    assert both(two) == (S, NOTHING)
    assert two("move list").out == ""


@pytest.mark.rule("M26")
def test_a_device_that_cannot_be_live_migrated_is_named() -> None:
    """A live migration with a GPU is refused until its kind is among those that can move while in use."""
    with two_nodes() as line:
        line.good("claim --cpus 1 --gpus 1 --consumer web")
        said = line("move live-migrate web --to n2")
        assert said.code == 3
        assert "live_migratable_kinds" in said.err


def test_a_move_of_nothing_is_an_error(two: Line) -> None:
    """Unknown consumers, moves, nodes and files, a resize without a size, and an impossible kind exit 2 and name what was given."""
    for words in (
        "move migrate nope --to n2", "move migrate web --to nope", "move resize web --to n2", "move confirm nope", "move status nope",
        "move came-back nope", "move finish web", "move live-migrate web", "move evacuate web", "move resize web --grant /no/such/file",
        "move confirm m-ffff", "move out nope --kind migration", "move in nonsense", "move migrate web --to n2 --ttl 0s",
        "move migrate web --to n2 --pid 0", "move out web --kind resize",
    ):  # fmt: skip
        said = two(words)
        assert said.code == 2, words
        assert said.err.startswith("earmark: "), words
        assert len(said.err.splitlines()) == 1, words
    assert both(two) == (S, NOTHING)


def test_a_resize_says_what_it_leaves_out(two: Line) -> None:
    """A resource that the instance had and the new size does not name is told, since it will be gone."""
    said = two("move resize web --to n2 --cpus 4")
    assert "the new size has no memory, no disk" in said.err
    two.good("move abort web")
    assert "no memory" not in two(f"move resize web --to n2 {LARGE}").err


def test_a_prescribed_destination_is_judged(two: Line) -> None:
    """--grant says exactly where the main claim goes; the same CPUs are refused to a second guest."""
    answer = two("fit --cpus 2:dedicated --node n2 --json").json()
    grant = json.dumps(answer["grant"])
    two.good("claim --cpus 2:dedicated --consumer db")
    assert two("move migrate db --to n2 --grant -", stdin=grant).code == 0
    assert two("move resize web --to n2 --cpus 2:dedicated --grant -", stdin=grant).code == 3
    assert two("move resize web --to n2 --cpus 2 --grant -", stdin="{").code == 2


@pytest.mark.rule("S40", "W24")
def test_an_unchanged_device_passes_and_is_told_so() -> None:
    """A GPU asked for again on the same node stays in the source's row, is said to pass, and is not told as freed on confirm."""
    with two_nodes() as line:
        line.good("claim --cpus 2 --gpus 1 --consumer web")
        page = line.good("move resize web --cpus 4 --gpus 1 --id m-0001")
        assert "will take over gpu:GPU-0" in line.good("log gpu:GPU-0")
        assert "gpu:GPU-0 (passes unchanged)" in page
        leg = shaped(line.good("move status web --json"), output_lives.MoveOut).legs[0]
        assert (leg.source.devices, leg.destination.devices, leg.destination.passes) == (["gpu:GPU-0"], [], ["gpu:GPU-0"])
        assert "takes it over when the move is confirmed" in line.good("who GPU-0")
        assert f"takes over  {leg.destination.passes[0]}" in line.good(f"show {leg.destination.claim}")
        out = line.good("move confirm web")
        assert "freed on n1: 2 shared vCPUs (c-" in out
        assert "gpu" not in out
        assert leg.destination.claim in line.good("who GPU-0")


@pytest.mark.rule("L16")
def test_attached_claims_are_shown_with_their_move(two: Line) -> None:
    """What was attached moves along, each with both its legs on the page."""
    two.good("instance attach web --device vf=1")
    page = two.good("move migrate web --to n2")
    assert "attached" in page
    found = shaped(two.good("move status web --json"), output_lives.MoveOut)
    assert [pair.purpose for pair in found.legs] == ["main", "attach"]
    assert "pci:" in page.split("attached")[1]
    two.good("move confirm web")
    assert "attach on n2" in two.good("instance show web")


def test_list_who_and_show_mark_claims_in_a_move() -> None:
    """A leg is recognised in the list, in the picture, by who and by show, while the move is open and not after it."""
    with two_nodes() as line:
        line.good("claim --cpus 2:dedicated --consumer web")
        line.good("move migrate web --to n2 --id m-0001")
        rows = [row for row in line.good("list").splitlines() if "web" in row]
        assert sum("m-0001 →" in row for row in rows) == sum("→ m-0001" in row for row in rows) == 1
        assert "m-0001 →" in line.good("show n1")
        assert "→ m-0001" in line.good("show n2")
        cpu = line("list --json --consumer web").json()["claims"][0]["cpus"][0]
        assert "it is the source leg of m-0001" in line.good(f"who {cpu}")
        assert "source leg of m-0001: earmark move status m-0001" in line.good("show web")
        line.bench.clock.move(60_000)
        line.good("move confirm web")
        assert "m-0001" not in line.good("list") + line.good("show web")
        assert "m-0001 →" in line.good("at -30s list")
        assert "held, no end · → m-0001, then confirmed, no end" in line.good("diff -30s --node n2")


def test_a_leg_is_ended_by_its_move_only(two: Line) -> None:
    """Release and abort of a leg are conflicts that name the move."""
    two.good("move migrate web --to n2 --id m-0001")
    for claim in [each["id"] for each in two("list --json").json()["claims"]]:
        said = two(f"release {claim}")
        assert said.code == 4
        assert "m-0001" in said.err
    assert both(two) == (S, S)


@pytest.mark.parametrize(
    "command", ["list", "move list", "move status", "move status web", "move migrate web --to n2 --ttl 10m --id m-0002"]
)
def test_a_destination_leg_expires_and_its_source_stays(two: Line, command: str) -> None:
    """Whoever looks first after its --ttl, or begins another move, finds the destination free; confirming it late is an answer."""
    two.good("move migrate web --to n2 --ttl 10m --id m-0001")
    two.bench.clock.move(601_000)
    two.good(command)
    assert "was expired already; nothing is confirmed" in two.good("move confirm m-0001")
    assert "ended (expired): its deadline has passed" in two.good("story m-0001")
    two.good("move abort web")
    assert both(two) == (S, NOTHING)


def test_the_json_of_moves_has_its_documented_shape(two: Line) -> None:
    """Every command of the group answers in the shape that the reference says, before, during and after a move."""
    assert json.loads(two.good("move list --json")) == json.loads(two.good("move status --json")) == []
    opened = ended(two, f"move resize web --to n2 {LARGE} --id m-0001")
    assert (opened.outcome, opened.changed, opened.move.status, len(opened.touched)) == ("opened", True, "preparing", 2)
    assert [shaped(json.dumps(row), output_lives.MoveOut).id for row in json.loads(two.good("move list --json"))] == ["m-0001"]
    assert ended(two, "move finish web").move.status == "finished"
    over = ended(two, "move confirm web")
    assert [(each.node_name, each.state, each.holds) for each in over.freed] == [("n1", "ended", "2 shared vCPUs, 2 GiB, 20 GiB disk")]
    found = shaped(two.good("move status m-0001 --json"), output_lives.MoveOut)
    source, destination = found.legs[0].source, found.legs[0].destination
    assert (found.status, source.state, source.cause, source.vcpus) == ("confirmed", "ended", "moved", None)
    assert (destination.state, destination.vcpus, destination.memory_bytes, destination.disk_bytes) == ("confirmed", 4, 4 << 30, 40 << 30)


# --- names from outside -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["[red]x[/red]", "$(reboot)", "`id`", "虚拟机", "x" * 128, "m-0001", "--help"])
def test_odd_names_are_only_text(name: str) -> None:
    """Whatever printable text names a consumer, its move is opened, shown and ended, and nothing of it is obeyed."""
    with two_nodes() as line:
        assert line("claim --mem 1MiB --consumer", name).code == 0
        for words in ("move migrate --to n2", "move status", "move finish", "move confirm", "instance show", "story"):
            said = line(words, "--", name)
            assert said.code == 0, (words, said)
            assert "\x1b" not in said.out


@pytest.mark.parametrize("name", ["a\x1b[31m", "a\nb", "\u202egnp", " x", ""])
def test_unprintable_names_are_refused(two: Line, name: str) -> None:
    """A name that a terminal would obey is an error of one clean line."""
    for words in ("move migrate --to n2", "move status", "move confirm", "move out --kind migration", "instance show", "story"):
        said = two(words, "--", name)
        assert said.code == 2, (words, said)
        assert said.err.count("\n") == 1
        assert "\x1b" not in said.err


# --- two ledgers --------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def far() -> Iterator[Line]:
    """Give a command line on another ledger."""
    with bench(HOST) as made:
        yield Line(made)


@pytest.mark.rule("M29")
def test_a_token_ties_two_ledgers(two: Line, far: Line) -> None:
    """Out prints only the token, in takes it as a word or from standard input, each ledger ends its own half."""
    said = two("move out web --kind migration")
    token = said.out.strip()
    assert len(said.out.splitlines()) == 1
    assert "there: earmark move in TOKEN" in said.err
    assert two.good("move out web --kind migration").strip() == token
    page = far("move in -", stdin=said.out)
    assert page.code == 0, page
    assert "in another ledger" in page.out
    assert "was opened already" in far.good(f"move in {token}")
    assert "in another ledger" in two.good("move status web")
    assert "(another ledger)" in two.good("move list")
    assert "freed on n1" in two.good("move confirm web")
    far.good("move confirm web")
    assert both(two) == (NOTHING, NOTHING)
    assert "2 shared vCPUs" in far.good("show web")
    assert "was confirmed already" in far.good("move revert web")


def test_a_half_that_is_given_up(two: Line, far: Line) -> None:
    """The destination half expires or is reverted; the source half is not touched by that, and is reverted by its own ledger."""
    token = two("move out web --kind resize --cpus 4 --mem 4GiB").out.strip()
    found = ended(far, f"move in {token} --ttl 10m")
    assert (found.move.legs[0].destination.vcpus, found.move.legs[0].source.state) == (4, "in another ledger")
    far.bench.clock.move(601_000)
    far.bench.tracker.sweep()
    assert far("list").out == ""
    two.bench.clock.move(10**9)
    two.bench.tracker.sweep()
    assert both(two) == (S, NOTHING)
    assert "reverted" in two.good("move revert web")
    assert both(two) == (S, NOTHING)


def test_a_token_is_checked(two: Line, far: Line) -> None:
    """A damaged token, and one that comes back to its own ledger, are errors; a refused half exits 3 with reasons."""
    token = two("move out web --kind migration").out.strip()
    damaged = token[:-1] + ("1" if token.endswith("0") else "0")
    assert far(f"move in {damaged}").code == far("move in", "x" * 100_000).code == far("move in -", stdin="é").code == 2
    assert two(f"move in {token}").code == 2
    far.good("claim --mem 31GiB")
    said = far(f"move in {token}")
    assert said.code == 3
    assert said.err.startswith("earmark: refused: migration of web: 2 shared vCPUs")
    assert shaped(two.good("move out web --kind migration --json"), output_lives.LifeOut).move.token == token


@pytest.mark.parametrize("words", [
    "move confirm", "move status", "move came-back", "move in", "move out --kind migration", "move migrate --to n2", "move drop --leg source",
    "move resize --cpus 1", "instance show", "instance delete", "instance create", "instance unshelve", "story", "move migrate web --to",
    "move migrate web --id", "instance state web", "instance list --node", "instance build x --cpus 1 --on", "instance detach web",
])  # fmt: skip
@pytest.mark.parametrize("text", ["\udcff", "m-\udcff", "c-\udcff", "\x00"])
def test_bytes_that_are_no_text_are_an_error(two: Line, words: str, text: str) -> None:
    """An argument that is no UTF-8 exits 2 with one clean line, or a problem in JSON, and changes nothing."""
    said = two(words, text)
    assert said.code == 2, said
    assert said.err.count("\n") == 1
    assert said.err[:-1].isprintable()
    assert json.loads(two(f"{words} --json", text).err if not words.endswith(("--to", "--id", "--node", "--on")) else "{}") is not None
    assert both(two) == (S, NOTHING)
