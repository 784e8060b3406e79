"""Nodes: entered, found again, run by a host, disabled, retired and restored; each with its own stream and its own time."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from msgspec.structs import replace
from tests.nodes.worlds import GOLD, SMALL, bare_metal, figures_by_host, held

import earmark
from earmark.core.ledger.codec import Batch, Stamp
from earmark.core.ledger.events import NodeRegistered, NodeRestored
from earmark.core.ledger.state import STATUS_DISABLED
from earmark.core.model.claim import Holder
from earmark.core.model.ids import NodeId, Trait, node_stream
from earmark.core.model.inventory import Inventory
from earmark.core.model.node import NodeSettings
from earmark.core.model.refusal import Refusal
from earmark.core.model.request import Request
from earmark.core.model.shape import machine_of
from earmark.core.model.topology import Machine
from earmark.errors import InvalidRequest, LedgerUnavailable, UnknownNode
from earmark.settings import Settings
from earmark.stores.memory import MemoryStore
from earmark.stores.sqlite.store import SqliteStore
from earmark.testing import UNRESERVED, Bench, FaultyStore, bench, on

OTHER = "00000000-0000-4000-8000-0000000000aa"
HOST_H = "16c 32G disk:200G"


# --- entering and finding again -----------------------------------------------------------------------------------------------------


@pytest.mark.rule("A10", "A12")
def test_a_node_is_entered_with_all_that_is_known_in_one_append() -> None:
    """Name, host, machine and settings of a new node stand in its stream after one command, and claims on it are its own."""
    with bench() as made:
        answer = made.tracker.register("n2", host="h2", machine=machine_of(HOST_H), settings=UNRESERVED)
        assert (answer.outcome, answer.changed) == ("registered", True)
        assert len({envelope.command for _, envelope, _ in made.tracker.events("n2")}) == 1
        held(made, SMALL, "n2")
        node = made.tracker.node("n2")
        assert (node.node, node.runs_on, len(node.claims), len(made.tracker.node().claims)) == (answer.node, "h2", 1, 0)


@pytest.mark.rule("A10")
def test_settings_that_come_with_a_machine_are_judged_on_it() -> None:
    """A node reported again with more CPUs and sets that name them is answered; sets that its new machine has not are refused."""
    sets = replace(UNRESERVED, cpu_policy="split", cpu_shared_set=(0, 17))
    with bench() as made:
        made.tracker.register("n2", uuid=OTHER, host="h2", machine=machine_of(HOST_H), settings=UNRESERVED)
        made.tracker.register("n2", uuid=OTHER, host="h2", machine=machine_of("18c 32G disk:200G"), settings=sets)
        assert made.tracker.node("n2").settings == sets
        with pytest.raises(InvalidRequest, match="cpu_shared_set names CPU 17"):
            made.tracker.register(
                "n2", uuid=OTHER, host="h2", machine=machine_of(HOST_H), settings=replace(sets, cpu_allocation_ratio=2000)
            )


@pytest.mark.rule("A10", "S28")
def test_a_node_is_found_again_by_its_uuid() -> None:
    """The same uuid reported again is answered and changes nothing; what is held stays held."""
    with bench() as made:
        first = made.tracker.register("n2", uuid=OTHER, host="h2", machine=machine_of(HOST_H), settings=UNRESERVED)
        held(made, SMALL, "n2")
        again = made.tracker.register("n2", uuid=OTHER, host="h2", machine=machine_of(HOST_H))
        assert (again.node, again.changed, again.message) == (first.node, False, "is in the ledger already")
        assert figures_by_host(made) == {"h2": (2, 2048, 20), "n1": (0, 0, 0)}


@pytest.mark.rule("A10")
def test_a_name_is_one_nodes() -> None:
    """A second node of a known name is refused with the uuid of the first, and one uuid has one name."""
    with bench() as made:
        first = made.tracker.register("n2")
        with pytest.raises(InvalidRequest, match=f"there is a node 'n2' already, with the uuid {first.node}"):
            made.tracker.register("n2")
        with pytest.raises(InvalidRequest, match="a node keeps its name"):
            made.tracker.register("n3", uuid=first.node)
        with pytest.raises(InvalidRequest, match="form of a uuid"):
            made.tracker.register(OTHER)
        assert [node.name for node in made.tracker.nodes()] == ["n1", "n2"]


def test_two_processes_cannot_enter_one_name(tmp_path: Path) -> None:
    """The second of two trackers on one file is refused, although it had looked before the first one wrote."""
    with closing(SqliteStore(tmp_path / "l.db")) as mine, closing(SqliteStore(tmp_path / "l.db")) as theirs, bench(store=mine) as made:
        other = made.reopened(theirs)
        with pytest.raises(UnknownNode):
            other.tracker.node("n2")
        made.tracker.register("n2")
        with pytest.raises(InvalidRequest, match="already"):
            other.tracker.register("n2")
        assert other.tracker.node("n2").name == "n2"


def test_a_failed_entry_leaves_no_name_behind() -> None:
    """Where a commit fails its node is not there, its name is free, and entering it again succeeds."""

    def fails() -> None:
        raise LedgerUnavailable("the disk says no")

    store = FaultyStore(MemoryStore())
    with bench(store=store.as_store()) as made:
        store.before_commit = fails
        with pytest.raises(LedgerUnavailable):
            made.tracker.register("n2")
        store.before_commit = int
        assert made.tracker.register("n2").changed


@pytest.mark.rule("A11", "S28")
def test_another_host_takes_nothing_over_until_it_is_told() -> None:
    """Reported by host B a node of host A stays A's, with its guests; rehomed it is B's, same uuid, guests and all."""
    with bench() as made:
        made.tracker.register("n2", uuid=OTHER, host="A", machine=machine_of(HOST_H), settings=UNRESERVED)
        held(made, SMALL, "n2")
        answer = made.tracker.register("n2", uuid=OTHER, host="B")
        assert not answer.changed
        assert "run by host A" in answer.message
        assert figures_by_host(made) == {"A": (2, 2048, 20), "n1": (0, 0, 0)}
        assert made.tracker.rehome_node("n2", "B", "A is gone").changed
        assert figures_by_host(made) == {"B": (2, 2048, 20), "n1": (0, 0, 0)}
        assert not made.tracker.rehome_node("n2", "B", "again").changed
        assert made.tracker.node("n2").node == OTHER


# --- retired and restored -----------------------------------------------------------------------------------------------------------


@pytest.mark.rule("A13", "S28")
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_claims_of_a_removed_node_are_orphans_not_dropped(kind: str, tmp_path: Path) -> None:
    """A retired node lists what is left on it, here and at every audit, grants nothing new, and can still be emptied."""
    with closing(SqliteStore(tmp_path / "l.db") if kind == "sqlite" else MemoryStore()) as store, bench(store=store) as made:
        made.tracker.register("n2", machine=machine_of(HOST_H), settings=UNRESERVED)
        claim = held(made, SMALL, "n2")
        answer = made.tracker.retire("n2", "sold")
        assert answer.touched == (claim,)
        assert "1 claim left on it" in answer.message
        for _ in range(2):
            assert [(found.code, found.severity, found.claim) for found in made.tracker.audit()] == [("orphan", "warning", claim)]
        refusal = made.tracker.hold(SMALL, node="n2")
        assert isinstance(refusal, Refusal)
        assert [(reason.code, reason.detail) for reason in refusal.reasons] == [("node_closed", "retired: sold")]
        assert isinstance(made.tracker.fit(SMALL, node="n2"), Refusal)
        again = made.tracker.retire("n2", "sold twice")
        assert (again.changed, again.touched) == (False, (claim,))
        made.tracker.release(claim)
        assert made.tracker.audit() == ()


@pytest.mark.rule("A10", "S28", "X5")
@pytest.mark.parametrize("how", ["reported", "restored"])
def test_a_retired_node_comes_back_as_it_was(how: str) -> None:
    """Destroyed and reported again a node has the same uuid and 2/2048/20, also after a restart; so it has if a person restores it."""
    with bench() as made:
        made.tracker.register("n2", uuid=OTHER, host="h2", machine=machine_of(HOST_H), settings=UNRESERVED)
        held(made, SMALL, "n2")
        made.tracker.retire("n2", "destroyed")
        answer = made.tracker.register("n2", uuid=OTHER, host="h2") if how == "reported" else made.tracker.restore("n2", "found")
        assert (answer.outcome, answer.changed, answer.node) == ("restored", True, OTHER)
        assert not made.tracker.restore("n2").changed
        for each in (made, made.reopened()):
            assert figures_by_host(each)["h2"] == (2, 2048, 20)
        held(made, SMALL, "n2")


@pytest.mark.rule("A10", "S28")
def test_another_hosts_word_does_not_restore_a_retired_node() -> None:
    """A node that host A retired stays retired when host B reports it: rehome it first."""
    with bench() as made:
        made.tracker.register("n2", uuid=OTHER, host="A")
        made.tracker.retire("n2", "gone")
        answer = made.tracker.register("n2", uuid=OTHER, host="B")
        assert not answer.changed
        assert made.tracker.node("n2").retired == "gone"
        assert not any(isinstance(event, NodeRestored) for _, _, event in made.tracker.events("n2"))


# --- disabled -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("R4")
def test_a_disabled_node_has_the_trait_and_grants_nothing() -> None:
    """COMPUTE_STATUS_DISABLED follows disable and enable, is no part of the machine, and keeps requests away."""
    with bench() as made:
        machine = made.tracker.node().machine
        claim = held(made, SMALL)
        made.tracker.disable("firmware")
        state = made.tracker.node()
        assert STATUS_DISABLED in state.traits
        assert state.machine == machine
        assert set(state.claims) == {claim}
        refusal = made.tracker.fit(Request(vcpus=1, forbidden_traits=(STATUS_DISABLED,)))
        assert isinstance(refusal, Refusal)
        assert refusal.reasons[0].detail == "cordoned: firmware"
        assert not made.tracker.disable("firmware").changed
        made.tracker.enable()
        assert STATUS_DISABLED not in made.tracker.node().traits
        assert not made.tracker.enable().changed
        assert not isinstance(made.tracker.fit(Request(vcpus=1, forbidden_traits=(STATUS_DISABLED,))), Refusal)
        needed = made.tracker.fit(Request(vcpus=1, required_traits=(STATUS_DISABLED,)))
        assert isinstance(needed, Refusal)
        assert [reason.code for reason in needed.reasons] == ["trait"]


# --- bare metal ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("A16", "W3", "S26")
def test_hundreds_of_bare_metal_nodes_of_one_host_are_books_apart() -> None:
    """Each node is one unit of its class with its own stream; claims, releases and maintenance of one change no other."""
    with bench() as made:
        for number in range(300):
            bare_metal(made, f"bm{number}")
        streams = made.store.heads()
        assert sum(stream.startswith("node:") for stream in streams) == 301
        first, second = held(made, GOLD, "bm7"), held(made, GOLD, "bm8")
        assert isinstance(made.tracker.hold(GOLD, node="bm7"), Refusal)
        made.tracker.audit()
        made.tracker.release(first)
        made.tracker.release(first)
        assert (len(made.tracker.node("bm7").claims), set(made.tracker.node("bm8").claims)) == (0, {second})
        reserved = NodeSettings(inventories=(Inventory(resource_class=GOLD.resources[0].resource_class, total=1, reserved=1),))
        made.tracker.configure(reserved, node="bm9")
        refusal = made.tracker.hold(GOLD, node="bm9")
        assert isinstance(refusal, Refusal)
        assert (refusal.reasons[0].free, refusal.reasons[0].short) == (0, 1)
        made.tracker.configure(reserved, node="bm8")
        assert [finding.code for finding in made.tracker.audit()] == ["overage"]
        assert len(made.tracker.hosts()["rack1"]) == 300


@pytest.mark.rule("S26", "W3")
def test_two_nodes_of_one_host_do_not_share_their_books() -> None:
    """An audit of one node and an abort on the other leave 1/1024/10 on the first and nothing on the second."""
    with bench() as made:
        for name in ("n2", "n3"):
            made.tracker.register(name, host="h", machine=machine_of(HOST_H), settings=UNRESERVED)
        held(made, Request(vcpus=1, memory_bytes=1 << 30, disk_bytes=10 << 30), "n2")
        answer = made.tracker.hold(SMALL, node="n3")
        assert not isinstance(answer, Refusal)
        assert answer.claim_id is not None
        made.tracker.sweep("n2")
        made.tracker.audit()
        made.tracker.abort(answer.claim_id)
        by_name = {state.name: len(state.claims) for state in made.tracker.nodes()}
        assert (by_name["n2"], by_name["n3"]) == (1, 0)
        assert figures_by_host(made)["h"] == (1, 1024, 10)


def test_a_name_is_found_without_folding_every_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fresh process that names one of many nodes folds that one alone, and the second time reads not even the names."""
    with bench() as made:
        for number in range(40):
            bare_metal(made, f"bm{number}")
        fresh = made.reopened()
        folded = set(fresh.tracker._writer._states)
        assert fresh.tracker.node("bm17").name == "bm17"
        assert {state.name for stream, state in fresh.tracker._writer._states.items() if stream not in folded} == {"bm17"}
        monkeypatch.setattr(type(made.store), "heads", None)
        assert fresh.tracker.node("bm18").name == "bm18"


# --- time and trouble on every node ---------------------------------------------------------------------------------------------------


def test_what_is_due_on_another_node_does_not_stand_in_the_way() -> None:
    """A hold that expired on a node nobody swept is not held against the next one there."""
    with bench() as made:
        bare_metal(made, "bm1")
        made.tracker.hold(GOLD, node="bm1", ttl_ms=1000)
        assert isinstance(made.tracker.hold(GOLD, node="bm1"), Refusal)
        made.clock.move(1_000_000)
        first = made.tracker.hold(GOLD, node="bm1")
        assert isinstance(first, Refusal), "the expired claim drains first: nothing proves that its unit is unused"
        made.clock.move(1_000_000)
        made.tracker.sweep("bm1")
        assert [kept.reason for kept in made.tracker.node("bm1").quarantines.values()]


def test_a_dead_holder_on_another_node_of_this_host_frees_what_it_held() -> None:
    """A local process that held a bare-metal node and died is found when somebody else wants the node."""
    with bench() as made:
        bare_metal(made, "bm1")
        holder = made.processes.identify(77)
        made.tracker.hold(GOLD, node="bm1", confirm=True, holders=[holder])
        assert isinstance(made.tracker.hold(GOLD, node="bm1"), Refusal)
        made.processes.fates[77] = "dead"
        assert not isinstance(made.tracker.hold(GOLD, node="bm1"), Refusal)


def test_a_move_is_not_refused_for_what_a_dead_process_held() -> None:
    """The destination of a move is swept before the move is refused there, as it is for a claim."""
    with bench() as made:
        for name in ("n2", "n3"):
            made.tracker.register(name, host="n1", machine=machine_of("2c 4G"), settings=UNRESERVED)
        wish = Request(vcpus=2, cpu_policy="dedicated")
        answer = made.tracker.hold(wish, consumer="vm-1", node="n2", confirm=True)
        assert not isinstance(answer, Refusal)
        taken = made.tracker.hold(wish, node="n3", confirm=True, holders=[made.processes.identify(77)])
        assert not isinstance(taken, Refusal)
        assert isinstance(made.tracker.open_move("vm-1", "migration", to="n3"), Refusal)
        made.processes.fates[77] = "dead"
        assert not isinstance(made.tracker.open_move("vm-1", "migration", to="n3"), Refusal)


def test_nobody_is_dead_on_another_host_because_the_boot_differs() -> None:
    """A holder of another boot proves nothing on a node that another host runs: its claim stays."""
    with bench() as made:
        bare_metal(made, "bm1")
        far = Holder(boot_id="boot-of-another-machine", pid_namespace=1, pid=9, start_ticks=1)
        claim = made.tracker.hold(GOLD, node="bm1", confirm=True, holders=[far])
        assert not isinstance(claim, Refusal)
        assert made.tracker.sweep("bm1") is None
        assert isinstance(made.tracker.hold(GOLD, node="bm1"), Refusal)


@pytest.mark.rule("A14")
def test_one_broken_node_stands_in_no_others_way() -> None:
    """A node whose stream contradicts itself is reported; all others are listed, found, claimed and audited."""
    store = MemoryStore()
    with bench(store=store, check=False) as made:
        bare_metal(made, "bm1")
        bare_metal(made, "bm2")
        broken = made.tracker.node("bm1").node
        break_stream(made, broken)
        fresh = made.reopened()
        survey = fresh.tracker.survey()
        assert [state.name for state in survey.nodes] == ["bm2", "n1"]
        assert set(survey.broken) == {broken}
        assert not isinstance(fresh.tracker.hold(GOLD, node="bm2"), Refusal)
        assert [finding.code for finding in fresh.tracker.audit()] == ["chain"]


def break_stream(made: Bench, node: NodeId) -> None:
    """Append an event that contradicts the stream of a node."""
    stream = node_stream(node)
    stamp = Stamp(actor="x", command="x@1", now_ms=made.clock.now_ms(), correlation="", epoch=1, boot_id="b")
    made.store.append([Batch(stream, made.store.head(stream).sequence, (NodeRegistered(node=node, name="twice"),))], stamp)


def test_a_program_that_stays_sweeps_all_the_nodes_that_it_uses() -> None:
    """While a program watches, a dead holder on a bare-metal node of this host frees it without anybody asking."""
    with bench() as made:
        bare_metal(made, "bm1", host="n1")
        claim = made.tracker.hold(GOLD, node="bm1", confirm=True, holders=[made.processes.identify(77)])
        assert not isinstance(claim, Refusal)
        made.processes.fates[77] = "dead"
        made.tracker.sweep_used()
        assert len(made.tracker.node("bm1").claims) == 0


@pytest.mark.rule("A12")
def test_this_machine_is_found_again_among_many_nodes(tmp_path: Path) -> None:
    """A ledger with entered nodes whose node.json is lost is still this machine's, under the same uuid."""
    settings = Settings(ledger=str(tmp_path / "l.db"), state_home=str(tmp_path), machine_root=str(tmp_path))
    with earmark.open(settings=settings) as tracker:
        home = tracker.home
        for name in ("a", "z"):
            tracker.register(name, machine=Machine())
    lost = list(tmp_path.rglob("*node.json"))
    assert len(lost) == 1
    lost[0].unlink()
    with earmark.open(settings=settings) as tracker:
        assert tracker.home == home
        assert len(tracker.nodes()) == 3


def test_the_name_of_an_archived_node_is_found(tmp_path: Path) -> None:
    """A node whose first events are in an archive is still found by its name, by a process that never saw it."""
    with closing(SqliteStore(tmp_path / "l.db")) as store, bench(store=store) as made:
        bare_metal(made, "bm1")
        held(made, GOLD, "bm1")
        assert made.tracker.archive(tmp_path / "bm1.archive", "bm1") > 0
        assert made.reopened().tracker.node("bm1").name == "bm1"
        with pytest.raises(InvalidRequest, match="already"):
            made.reopened().tracker.register("bm1")


def test_the_machine_of_another_node_is_only_reported() -> None:
    """This machine cannot look at another node: its machine is given, recorded when it differs, and kept with its free disk space."""
    with bench() as made:
        made.tracker.register("n2", host="h2")
        with pytest.raises(InvalidRequest, match="only what is reported"):
            made.tracker.observe(node="n2")
        assert made.tracker.observe(node="n2", machine=machine_of(HOST_H)).changed
        assert not made.tracker.observe(node="n2", machine=machine_of(HOST_H)).changed
        seen = made.tracker.observation("n2")
        assert seen is not None
        assert (seen.hostname, seen.machine) == ("h2", machine_of(HOST_H))
        assert made.tracker.observation() is None


def test_a_node_without_machine_says_so() -> None:
    """A node that was entered without a machine refuses until one is reported."""
    with bench() as made:
        made.tracker.register("n2")
        refusal = made.tracker.hold(SMALL, node="n2")
        assert isinstance(refusal, Refusal)
        assert refusal.reasons[0].detail == "its machine was never observed"


def test_traits_are_the_machines_and_the_states() -> None:
    """The traits of a node are those of its machine while nothing else is said."""
    with bench() as made:
        made.tracker.register("n2", machine=replace(Machine(), traits=("HW_CPU_X86_AVX2",)))
        assert made.tracker.node("n2").traits == {Trait("HW_CPU_X86_AVX2")}


def test_a_machine_keeps_its_name_where_another_node_has_it() -> None:
    """`on` is how every test opens a ledger: its node is found again by uuid although others were entered since."""
    with bench() as made:
        made.tracker.register("n9")
        again = on(made.store, made.host, made.clock, made.processes)
        assert again.tracker.node().name == "n1"
