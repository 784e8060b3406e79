"""What runs and what is in progress, counted from the states: by the rules, and against a count done by hand after any life."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from earmark.core.ledger.codec import Batch, Stamp
from earmark.core.ledger.events import MoveEnded
from earmark.core.ledger.statistics import IO_TASKS, UNREPORTED, NodeStatistics, Statistics
from earmark.core.model.ids import ConsumerId, MoveId, consumer_stream
from earmark.core.model.instance import InstanceState
from earmark.core.model.refusal import Refusal
from earmark.core.model.request import Request
from earmark.core.model.shape import machine_of
from earmark.core.model.units import GIB, MIB
from earmark.errors import EarmarkError
from earmark.testing import UNRESERVED, Bench, bench

SMALL = Request(vcpus=2, memory_bytes=2048 * MIB, disk_bytes=20 * GIB)
LARGE = Request(vcpus=4, memory_bytes=4 * GIB, disk_bytes=40 * GIB)
HOST = "16c 32G disk:200G"


def two(made: Bench) -> None:
    """Enter a second node like the first."""
    made.tracker.register("n2", machine=machine_of(HOST), settings=UNRESERVED)


def held(made: Bench, consumer: str, *, node: str | None = None, confirm: bool = True, request: Request = SMALL, owner: str = "ann") -> str:
    """Claim and return the claim's id."""
    answer = made.tracker.hold(request, consumer=consumer, node=node, confirm=confirm, owner=owner)
    assert not isinstance(answer, Refusal), answer
    assert answer.claim_id is not None
    return answer.claim_id


def on(made: Bench, name: str) -> NodeStatistics:
    """Return the statistics of a node."""
    (found,) = made.tracker.statistics(name).nodes
    return found


@pytest.mark.rule("S01", "T1", "L9", "L11")
def test_every_state_is_counted_once_and_only_freeing_ones_end_it() -> None:
    """One instance goes through all states: each is the only one counted, and it holds 2/2048/20 until it is deleted."""
    with bench(HOST) as made:
        held(made, "s")
        made.tracker.create("s", owner="ann", kind="vm")
        seen: list[InstanceState] = ["active", "paused", "suspended", "stopped", "rescued", "resized", "soft_deleted", "error", "shelved"]
        for state in seen:
            made.tracker.report("s", state)
            found = on(made, "n1")
            assert (found.population.instances, found.population.by_state, found.figures.text) == (1, ((state, 1),), "2/2048/20")
            assert (found.population.by_owner, found.population.by_kind) == ((("ann", 1),), (("vm", 1),))
        made.tracker.report("s", "deleted")
        found = on(made, "n1")
        assert (found.population.instances, found.population.by_state, found.figures.text) == (0, (), "0/0/0")
        assert made.tracker.statistics().fleet.nowhere.instances == 0


@pytest.mark.rule("S05", "T4", "L7")
def test_failed_builds_are_counted_once_each_and_forgotten_by_a_success() -> None:
    """An aborted build counts one, aborted again still one; another makes two; a build that succeeds makes none."""
    with bench(HOST) as made:
        first = held(made, "s", confirm=False)
        assert on(made, "n1").workload.builds == 1
        counted = []
        for claim in (first, first, None):
            made.tracker.abort(claim if claim is not None else held(made, "t", confirm=False))
            counted.append(on(made, "n1").failed_builds)
        made.tracker.confirm(held(made, "u", confirm=False))
        counted.append(on(made, "n1").failed_builds)
        assert counted == [1, 1, 2, 0]
        assert on(made, "n1").figures.text == "2/2048/20"


@pytest.mark.rule("T2", "T3")
@pytest.mark.parametrize("task", sorted(IO_TASKS))
def test_the_tasks_that_load_disks_and_network(task: str) -> None:
    """Each of Nova's seven counts as I/O work and as a task, once; any other task only as a task; the next report forgets it."""
    with bench(HOST) as made:
        held(made, "s")
        held(made, "t")
        made.tracker.report("s", "active", task=task)
        made.tracker.report("t", "active", task="powering-off")
        found = on(made, "n1")
        assert (found.workload.io, found.workload.io_workload, found.workload.tasks) == (((task, 1),), 1, 2)
        assert found.population.by_task == tuple(sorted([(task, 1), ("powering-off", 1)]))
        made.tracker.report("s", "active")
        assert (on(made, "n1").workload.io_workload, on(made, "n1").workload.tasks) == (0, 1)


@pytest.mark.rule("T2", "L17")
def test_builds_are_seen_without_any_report() -> None:
    """A main claim that is held is a build, reported or not, and no more once it is confirmed; a reported build counts once."""
    with bench(HOST) as made:
        bare = held(made, "bare", confirm=False)
        held(made, "told", confirm=False)
        made.tracker.create("told", owner="ann")
        found = on(made, "n1")
        assert (found.workload.io, found.workload.builds) == ((("building", 2),), 2)
        assert found.population.by_state == (("building", 1), (UNREPORTED, 1))
        made.tracker.confirm(bare)
        made.tracker.report("told", "active", task="spawning")
        assert on(made, "n1").workload.io == (("building", 1),)


@pytest.mark.rule("S10", "T2")
def test_an_offloaded_instance_is_on_no_node_and_back_while_it_unshelves() -> None:
    """Shelved and offloaded it is nowhere; its new claim is an unshelving on the node where it is held; active it is an instance."""
    with bench(HOST) as made:
        two(made)
        held(made, "s")
        made.tracker.report("s", "shelved_offloaded")
        fleet = made.tracker.statistics().fleet
        assert (fleet.population.instances, fleet.nowhere.by_state) == (0, (("shelved_offloaded", 1),))
        again = held(made, "s", node="n2", confirm=False)
        found = on(made, "n2")
        assert (found.population.by_state, found.workload.io) == ((("shelved_offloaded", 1),), (("unshelving", 1),))
        assert made.tracker.statistics().fleet.nowhere.instances == 0
        made.tracker.confirm(again)
        made.tracker.report("s", "active")
        assert (on(made, "n2").population.by_state, on(made, "n2").workload.io) == ((("active", 1),), ())


def test_a_name_used_again_is_not_what_was_deleted() -> None:
    """A bare claim of a consumer that was deleted is an instance of which nothing was reported."""
    with bench(HOST) as made:
        held(made, "s")
        made.tracker.report("s", "deleted")
        held(made, "s", owner="bob")
        found = on(made, "n1").population
        assert (found.by_state, found.by_owner, found.by_kind) == (((UNREPORTED, 1),), (("bob", 1),), ((UNREPORTED, 1),))


@pytest.mark.rule("S11", "T1", "T2")
def test_an_instance_that_moves_is_counted_once() -> None:
    """Until it is confirmed it is on the source, though both nodes' figures hold it; then on the destination; the move is open meanwhile."""
    with bench(HOST) as made:
        two(made)
        held(made, "s")
        made.tracker.report("s", "active")
        made.tracker.open_move("s", "resize", to="n2", request=LARGE)
        found = made.tracker.statistics()
        one, other = found.nodes
        assert (one.figures.text, other.figures.text) == ("2/2048/20", "4/4096/40")
        assert (one.population.instances, other.population.instances, found.fleet.population.instances) == (1, 0, 1)
        assert (one.workload.moves_out, one.workload.moves_in) == ((("resize", 1),), ())
        assert (other.workload.moves_out, other.workload.moves_in) == ((), (("resize", 1),))
        assert found.fleet.moves == (("resize", 1),)
        made.tracker.confirm_move("s")
        found = made.tracker.statistics()
        one, other = found.nodes
        assert (one.figures.text, other.figures.text) == ("0/0/0", "4/4096/40")
        assert (one.population.instances, other.population.instances, found.fleet.moves) == (0, 1, ())


@pytest.mark.rule("S18", "M21")
def test_an_evacuated_instance_is_where_it_went() -> None:
    """What an evacuation leaves on a host that is down is in its figures, and no instance of it."""
    with bench(HOST) as made:
        two(made)
        held(made, "s")
        made.tracker.report("s", "active")
        made.tracker.open_move("s", "evacuation", to="n2")
        made.tracker.confirm_move("s")
        one, other = made.tracker.statistics().nodes
        assert (one.figures.text, one.population.instances) == ("2/2048/20", 0)
        assert (other.figures.text, other.population.instances, other.population.by_state) == ("2/2048/20", 1, (("active", 1),))


@pytest.mark.rule("C6")
def test_the_fleet_is_the_sum_of_its_nodes() -> None:
    """Used, totals, claims, instances and failed builds add up; a node alone is told with the same fleet."""
    with bench(HOST) as made:
        two(made)
        for number in range(5):
            held(made, f"vm-{number}", node="n1" if number % 2 else "n2", owner=f"o{number % 3}")
        made.tracker.hold(Request(vcpus=1), consumer="vm-0", purpose="attach", node="n2", confirm=True)
        made.tracker.abort(held(made, "never", confirm=False, node="n2"))
        found = made.tracker.statistics()
        fleet = found.fleet
        assert (fleet.nodes, fleet.claims, fleet.population.instances, fleet.failed_builds) == (2, 6, 5, 1)
        assert (fleet.used.text, fleet.total.text) == ("11/10240/100", "32/65536/400")
        assert fleet.population.by_owner == (("o0", 2), ("o1", 2), ("o2", 1))
        assert found.nodes[1].figures.claims_by_purpose == (("attach", 1), ("main", 3))
        alone = made.tracker.statistics("n2")
        assert ([one.name for one in alone.nodes], alone.fleet) == (["n2"], fleet)
        assert made.tracker.statistics() == found


@pytest.mark.rule("W44")
def test_nothing_is_listed_of_which_there_is_none() -> None:
    """After a hundred lives of a hundred owners no key, no count and no instance is left in the statistics."""
    with bench(HOST) as made:
        empty = made.tracker.statistics()
        for number in range(100):
            held(made, f"vm-{number}", owner=f"owner-{number}")
            made.tracker.report(f"vm-{number}", "active", task=f"task-{number}")
            made.tracker.delete(f"vm-{number}")
        assert made.tracker.statistics() == empty


@pytest.mark.rule("W35")
def test_statistics_are_asked_for_while_others_claim() -> None:
    """Four threads hold and release while a fifth counts: every answer is of one moment of each node, and no answer is an error."""
    with bench(HOST) as made:
        wrong: list[str] = []
        over = threading.Event()

        def live(name: str) -> None:
            for _ in range(25):
                made.tracker.release(held(made, name))

        def look() -> None:
            while not over.is_set():
                (node,) = made.tracker.statistics().nodes
                sums = {sum(count for _, count in counts) for counts in (node.population.by_state, node.population.by_owner)}
                if sums != {node.population.instances} or node.figures.vcpus != 2 * node.figures.claims:
                    wrong.append(str(node))

        threads = [threading.Thread(target=live, args=(f"vm-{number}",)) for number in range(4)]
        looker = threading.Thread(target=look)
        for thread in (*threads, looker):
            thread.start()
        for thread in threads:
            thread.join()
        over.set()
        looker.join()
        assert not wrong


@pytest.mark.rule("W11")
def test_a_broken_record_stops_nobodys_statistics() -> None:
    """An instance whose stream contradicts itself counts by its claim; the others are counted as ever, and the auditor names the stream."""
    with bench(HOST, check=False) as made:
        for name in ("x", "y"):
            held(made, name)
            made.tracker.report(name, "active")
        stream = consumer_stream(ConsumerId("x"))
        stamp = Stamp(now_ms=made.clock.now_ms(), actor="tester", command="spoil", epoch=1, boot_id=made.host.boot)
        never = MoveEnded(move=MoveId("m-aaaa"), outcome="aborted")
        made.store.append([Batch(stream, made.store.head(stream).sequence, [never])], stamp)
        found = made.reopened().tracker.statistics().fleet
        assert (found.population.by_state, found.nowhere.instances) == ((("active", 1), (UNREPORTED, 1)), 0)
        assert any("consumer:x" in finding.detail for finding in made.tracker.audit())


# --- against a count done by hand -----------------------------------------------------------------------------------------------------

NAMES = ("a", "b", "c", "d")
STATES: tuple[InstanceState, ...] = ("building", "active", "stopped", "error", "shelved_offloaded", "deleted")


def life(made: Bench, dice: random.Random) -> None:
    """Do any one thing, right or wrong."""
    who = dice.choice(NAMES)
    tracker = made.tracker
    steps: list[Callable[[], Any]] = [
        lambda: tracker.hold(
            SMALL, consumer=who, node=dice.choice(("n1", "n2")), owner=dice.choice(("ann", "bob")), confirm=dice.random() < 0.5
        ),
        lambda: tracker.hold(Request(vcpus=1), consumer=who, node=dice.choice(("n1", "n2")), purpose="attach", confirm=True),
        lambda: tracker.report(who, dice.choice(STATES), task=dice.choice((None, "rescuing", "spawning"))),
        lambda: tracker.open_move(who, dice.choice(("resize", "migration", "evacuation")), to=dice.choice(("n1", "n2")), request=LARGE),
        lambda: dice.choice((tracker.confirm_move, tracker.revert_move, tracker.abort_move))(who),
        lambda: dice.choice((tracker.confirm, tracker.release, tracker.abort))(tracker.claims_of(who)[0].id),
    ]
    try:
        dice.choice(steps)()
    except (EarmarkError, IndexError):  # it was not the time for that: then nothing has changed
        return


def by_hand(made: Bench) -> dict[str, Any]:
    """Count from the raw rows of the store and the records, with nothing of what is tested."""
    open_rows = [row for row in made.store.claims_like("", 1000) if row.cause is None]
    mains = {row.consumer: row.stream for row in open_rows if row.purpose == "main"}
    records = {state.consumer: state for state in made.tracker.instances()}
    per_node = Counter(mains.values())
    away = [state for name, state in records.items() if name not in mains and state.instance.state != "deleted"]
    tasks = [
        records[name].instance.task
        for name in mains
        if name in records and (records[name].instance.state != "deleted" or _drains(made, name))
    ]
    return {
        "instances": sum(per_node.values()),
        "per_node": {stream.removeprefix("node:"): count for stream, count in per_node.items()},
        "claims": len(open_rows),
        "nowhere": len(away),
        "tasks": sum(task is not None for task in tasks),
        "moves": sum(state.move is not None for state in records.values()),
    }


def _drains(made: Bench, consumer: str) -> bool:
    return any(claim.phase == "draining" for claim in made.tracker.claims_of(consumer) if claim.purpose == "main")


def told(found: Statistics) -> dict[str, Any]:
    """Return the same from the statistics."""
    return {
        "instances": found.fleet.population.instances,
        "per_node": {node.node: node.population.instances for node in found.nodes if node.population.instances},
        "claims": found.fleet.claims,
        "nowhere": found.fleet.nowhere.instances,
        "tasks": found.fleet.workload.tasks,
        "moves": sum(count for _, count in found.fleet.moves),
    }


@pytest.mark.long
@pytest.mark.rule("T1", "T3", "W35")
@settings(max_examples=40)
@given(st.randoms(use_true_random=False), st.integers(1, 40))
def test_statistics_equal_a_count_by_hand_after_any_life(dice: random.Random, steps: int) -> None:
    """Whatever is held, reported and moved, right or wrong: the statistics are what the open claims and the records add up to."""
    with bench(HOST) as made:
        two(made)
        for _ in range(steps):
            life(made, dice)
        found = made.tracker.statistics()
        assert told(found) == by_hand(made)
        for population in (*(node.population for node in found.nodes), found.fleet.population):
            for counts in (population.by_state, population.by_owner, population.by_kind):
                assert sum(count for _, count in counts) == population.instances
                assert all(count > 0 for _, count in counts)
                assert list(counts) == sorted(counts)
        assert msgspec.json.decode(msgspec.json.encode(found), type=Statistics) == found
        assert made.reopened().tracker.statistics() == found
