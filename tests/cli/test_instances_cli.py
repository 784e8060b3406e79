"""Instances on the command line: the record, reported states and what they free, attached claims, shelving."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from tests.cli.conftest import Line
from tests.cli.lives import NOTHING, SMALL, S, both, run_steps, two_nodes
from tests.cli.test_commands import shaped

from earmark.cli import output, output_lives


@pytest.fixture
def two() -> Iterator[Line]:
    """Give a command line on two nodes."""
    with two_nodes() as line:
        yield line


@pytest.mark.rule("S01", "L9", "L12")
def test_states_that_hold_say_so_and_only_two_free(two: Line) -> None:
    """S01: every state keeps 2/2048/20 with a clean audit after each; deleted frees it and says what."""
    two.good(f"claim {SMALL} --consumer web")
    for state in ("active", "paused", "suspended", "stopped", "rescued", "resized", "soft_deleted", "error", "shelved", "building"):
        assert two.good(f"instance state web {state}") == f"web is {state.replace('_', ' ')}; what it holds is kept\n"
        assert both(two) == (S, NOTHING)
    out = two.good("instance state web deleted")
    assert out.startswith("web is deleted\n  freed on n1: 2 shared vCPUs, 2 GiB, 20 GiB disk (c-")
    assert both(two) == (NOTHING, NOTHING)


@pytest.mark.rule("S10", "L8", "L10")
def test_an_offloaded_instance_is_unshelved_elsewhere(two: Line) -> None:
    """S10: shelved holds, offloaded frees, unshelved on the other node holds there what it held before, and goes on as active."""
    two.good(f"claim {SMALL} --consumer web --owner alice")
    run_steps(two, [
        ("instance state web shelved", (S, NOTHING)),
        ("instance state web shelved_offloaded", (NOTHING, NOTHING)),
        ("instance state web shelved_offloaded", (NOTHING, NOTHING)),
        ("instance unshelve web --to n2", (NOTHING, S)),
        ("instance unshelve web --to n2", (NOTHING, S)),
        ("instance state web active", (NOTHING, S)),
    ])  # fmt: skip
    assert two("list --json").json()["claims"][0]["owner"] == "alice"


@pytest.mark.rule("S10")
def test_an_unshelve_that_fails_gives_its_claim_back(two: Line) -> None:
    """S10, the variant: the guest does not start, the claim is released, the instance stays offloaded and is tried again."""
    two.good(f"claim {SMALL} --consumer web")
    two.good("instance state web shelved_offloaded")
    two.good("instance unshelve web --to n2")
    assert "shelved offloaded (spawning)" in two.good("instance list")
    run_steps(two, [
        ("release web", (NOTHING, NOTHING)),
        ("instance unshelve web --cpus 2 --mem 2GiB --disk 20GiB --hold --ttl 5m", (S, NOTHING)),
        ("abort web", (NOTHING, NOTHING)),
    ])  # fmt: skip


def test_an_unshelve_is_refused_or_makes_no_sense(two: Line) -> None:
    """One that does not fit exits 3 and changes nothing; of a running instance it is answered, of one in another state a conflict."""
    two.good("claim --cpus 2 --mem 20GiB --consumer web")
    assert "holds already, on n1" in two.good("instance state web active") + two.good("instance unshelve web --to n2")
    two.good("instance state web shelved_offloaded")
    two.good("claim --mem 20GiB --consumer other")
    said = two("instance unshelve web")
    assert said.code == 3
    assert said.err.startswith("earmark: refused: unshelve of web: 2 shared vCPUs, 20 GiB memory on n1")
    assert not shaped(two("instance unshelve web --json").out, output.FitOut).fits
    two.good("instance state web error")
    assert two("instance unshelve web --to n2").code == 4
    assert two("instance unshelve nope").code == 2
    two.good("instance create new")
    two.good("instance state new shelved_offloaded")
    assert "the ledger does not say what 'new' held" in two("instance unshelve new").err


@pytest.mark.rule("L13")
def test_a_report_about_a_consumer_that_never_claimed_changes_no_figures(two: Line) -> None:
    """Whatever state is reported of it, freeing ones too, nothing is charged and nothing is freed; it has a record from then on."""
    for state in ("active", "stopped", "shelved_offloaded", "deleted"):
        found = shaped(two.good(f"instance state ghost {state} --json"), output_lives.LifeOut)
        assert (found.changed, found.freed) == (True, [])
        assert both(two) == (NOTHING, NOTHING)
    assert "ghost" in two.good("instance list --all")


@pytest.mark.rule("S24")
def test_a_record_gone_while_its_host_was_down(two: Line) -> None:
    """S24: deleted without its host being asked, its VF and figures are free and the audit is clean."""
    two.good(f"claim {SMALL} --device vf=1 --consumer web")
    two.good("instance delete web --reason", "deleted while its host was down")
    assert both(two) == (NOTHING, NOTHING)
    assert "is free" in two.good("who pci:0000:0a:00.1")


def test_an_instance_is_created_once_and_found_by_three_names(two: Line) -> None:
    """The same description again is an answer, another one a conflict; consumer, name and uuid all name it."""
    uuid = "11111111-2222-4333-8444-555555555555"
    words = f"instance create i-1 --uuid {uuid} --name web --owner alice --kind container --label tier=front --label site=a"
    out = two.good(words)
    assert out == f"i-1 created: container web, uuid {uuid}\n"
    assert two.good(words) == "i-1 was created so already\n"
    assert two(words + " --label more=x").code == 4
    two.good("claim --mem 1GiB --consumer i-1 --owner alice")
    pages = {two.good(f"instance show {name}") for name in ("i-1", "web", uuid)}
    assert len(pages) == 1
    page = pages.pop()
    for part in ("uuid      " + uuid, "name      web", "owner     alice", "kind      container", "site=a, tier=front", "main on n1: 1 GiB"):
        assert part in page
    assert two.good("instance state web active") == "i-1 is active; what it holds is kept\n"
    assert "freed on n1: 1 GiB" in two.good(f"instance delete {uuid}")
    found = shaped(two.good("instance show i-1 --json"), output_lives.InstanceOut)
    assert (found.state, found.labels, found.claims) == ("deleted", {"tier": "front", "site": "a"}, [])
    assert two("instance state i-1 active").code == 4
    assert "i-1 created" in two.good("instance create i-1")


@pytest.mark.parametrize(
    "words",
    ["create x --uuid nonsense", "create x --label a", "create x --label =b", "create x --label a=1 --label a=2", "create x --name ''",
     "create x --owner ''", "state nope gone", "state web", "show nope", "delete", "list --state gone", "list --node nope", "rebuild nope",
     "attach nope --gpus 1", "attach web", "detach web nope", "detach nope 3", "state x active --task ''"],
)  # fmt: skip
def test_what_makes_no_sense_is_one_line(two: Line, words: str) -> None:
    """Unknown names and states, impossible uuids and labels exit 2 with one line, and make no record."""
    two.good("claim --mem 1MiB --consumer web")
    said = two(f"instance {words}")
    assert said.code == 2, said
    assert said.err.startswith("earmark: ")
    assert len(said.err.splitlines()) == 1
    assert two.good("instance list --all") == ""


def test_the_list_is_filtered(two: Line) -> None:
    """By owner, kind, state and node; deleted ones only where they are asked for."""
    for name, owner, kind, node in (("a", "ann", "instance", "n1"), ("b", "bob", "container", "n2"), ("c", "bob", "instance", "n2")):
        two.good(f"instance create {name} --owner {owner} --kind {kind}")
        two.good(f"claim --mem 1MiB --consumer {name} --owner {owner} --node {node}")
    two.good("instance state a active --task spawning")
    two.good("instance delete c")

    def names(words: str) -> list[str]:
        return [each["consumer"] for each in two(f"instance list --json {words}").json()]

    assert names("") == ["a", "b"]
    assert names("--all") == ["a", "b", "c"]
    assert names("--owner bob") == names("--kind container") == names("--node n2") == names("--state building") == ["b"]
    assert names("--state deleted") == ["c"]
    assert names("--owner nobody") == []
    lines = two.good("instance list").splitlines()
    assert lines[0].split() == ["instance", "name", "owner", "kind", "state", "node", "move"]
    assert "active (spawning)" in lines[1]
    for each in two("instance list --json").json():
        shaped(json.dumps(each), output_lives.InstanceOut)
    assert two("instance list --owner nobody").err == "no such instance is known\n"


def test_show_mentions_the_instance_and_its_move(two: Line) -> None:
    """`earmark show CONSUMER` names the instance and its state beside the claim, and shows an instance that holds nothing."""
    two.good("claim --mem 1GiB --consumer web")
    assert "instance" not in two.good("show web")
    two.good("instance create web")
    two.good("instance state web active --task rebuilding")
    assert "instance    web, active (rebuilding): earmark instance show web" in two.good("show web")
    two.good("move migrate web --to n2 --id m-0001")
    assert "move        source leg of m-0001" in two.good("show web")
    assert "move      m-0001  migration n1 → n2, preparing since" in two.good("instance show web")
    two.good("instance delete web")
    assert two.good("show web") == two.good("instance show web")
    assert "moved     m-0001  migration n1 → n2, deleted" in two.good("show web")
    assert two("show nobody").code == 2


@pytest.mark.rule("L15")
def test_a_rebuild_in_place_claims_nothing(two: Line) -> None:
    """The claim stays the same one; only the task is told."""
    two.good(f"claim {SMALL} --consumer web")
    before = two("list --json").json()["claims"]
    assert two.good("instance rebuild web") == "web is active (rebuilding); what it holds is kept\n"
    assert two("list --json").json()["claims"] == before


@pytest.mark.rule("L16")
def test_attached_claims_come_and_go(two: Line) -> None:
    """A VF is attached on the node of the main claim, named by show, and detached by unit or claim, twice without harm."""
    two.good("claim --cpus 2 --consumer web --owner alice --node n2")
    first = two.good("instance attach web --device vf=1").split()
    assert two.good(f"who {first[1]} --node n2").startswith(f"{first[1]} is held by web of alice ({first[0]})")
    assert "attach on n2" in (two.good("instance state web active") and two.good("instance show web"))
    assert two.good(f"instance detach web {first[1]}") == f"{first[0]} released\n"
    assert two.good(f"instance detach web {first[1]}") == f"{first[1]} is not attached to web\n"
    assert not shaped(two.good(f"instance detach web {first[1]} --json"), output.AnswerOut).changed
    assert two.good(f"instance detach web {first[0]}") == f"{first[0]} had ended already (released)\n"
    both_gpus = two.good("instance attach web --gpus 2 -q").strip()
    said = two("instance detach web gpu:GPU-0")
    assert said.code == 2
    assert "name the claim to give all of it back" in said.err
    assert two.good(f"instance detach web {both_gpus}") == f"{both_gpus} released\n"
    main = two("list --json").json()["claims"][0]["id"]
    assert two(f"instance detach web {main}").code == 2


def test_what_cannot_be_attached_is_refused(two: Line) -> None:
    """More than there is exits 3; nothing is attached while a move is open."""
    two.good("claim --cpus 2 --consumer web")
    said = two("instance attach web --gpus 9")
    assert said.code == 3
    assert said.err.startswith("earmark: refused: attach to web: 9 gpu on n1")
    two.good("move migrate web --to n2 --id m-0001")
    said = two("instance attach web --gpus 1")
    assert said.code == 4
    assert "m-0001" in said.err


def test_answers_in_json_have_their_documented_shape(two: Line) -> None:
    """Create, state, rebuild and delete answer with the whole instance, what was freed, and whether anything changed."""
    two.good(f"claim {SMALL} --consumer web")
    for words, outcome in (
        ("create web", "created"),
        ("state web active", "reported"),
        ("rebuild web", "reported"),
        ("delete web", "deleted"),
    ):
        found = shaped(two.good(f"instance {words} --json"), output_lives.LifeOut)
        assert (found.outcome, found.changed, found.consumer) == (outcome, True, "web")
        assert found.instance is not None
        assert len(found.freed) == (outcome == "deleted")
    assert two.good("instance delete web web -q") == ""
    lines = two.good("instance delete web web --json").splitlines()
    assert [shaped(line, output_lives.LifeOut).changed for line in lines] == [False, False]


@pytest.mark.rule("S05", "L7", "T4")
def test_a_build_goes_on_elsewhere(two: Line, capfd: pytest.CaptureFixture[str]) -> None:
    """S05: a command that fails on n1 aborts its claim and counts there, n2 builds; a later success on n1 resets the count."""
    script = 'echo "$EARMARK_NODE"; test "$EARMARK_NODE" = n2'
    said = two(f"instance build web --on n1 --on n2 {SMALL} --owner alice -- sh -c", script)
    assert said.code == 0, said
    assert "web was not built on n1: exit status 1" in said.err
    assert capfd.readouterr().out.split() == ["n1", "n2"]
    assert (both(two), two.bench.tracker.node("n1").failed_builds) == ((NOTHING, S), 1)
    assert "web of alice · confirmed, no end" in said.out
    two.good("instance build db --on n1 --on n2 --cpus 2 --mem 2GiB --disk 20GiB")
    assert (both(two), two.bench.tracker.node("n1").failed_builds) == ((S, S), 0)


@pytest.mark.rule("L7")
def test_a_build_that_succeeds_nowhere_leaves_nothing(two: Line) -> None:
    """The last exit status is returned; where no node grants it, every node's reasons are told; an unknown node is known before."""
    assert two(f"instance build web --on n1 --on n2 {SMALL} -- sh -c", "exit 7").code == 7
    assert two(f"instance build web --on n1 {SMALL} -- /no/such/program").code == 127
    said = two("instance build web --on n1 --on n2 --cpus 99:dedicated")
    assert said.code == 3
    assert said.err.startswith("earmark: refused: build of web: 99 dedicated CPUs\n")
    assert said.err.count("99 CPUs asked") == 4
    assert two(f"instance build web --on n1 --on nope {SMALL}").code == two("instance build web --on n1").code == 2
    assert both(two) == (NOTHING, NOTHING)
