"""The life of a claim over the tracker: taken once, kept, ended with proof, answered when said twice."""

from __future__ import annotations

import os

import pytest

from earmark.core.ledger.commands import Answer
from earmark.core.model.claim import Claim
from earmark.core.model.grant import AmountRow, Grant, UnitRow
from earmark.core.model.ids import MEMORY, VCPU, PoolId, ResourceClass, UnitId
from earmark.core.model.inventory import Inventory
from earmark.core.model.node import NodeSettings
from earmark.core.model.refusal import Refusal
from earmark.core.model.request import Request, ResourceAmount
from earmark.core.model.units import GIB, MIB
from earmark.errors import Conflict, GenerationConflict, InvalidRequest, KeyReused, Refused, UnknownClaim, UnknownNode
from earmark.testing import UNRESERVED, Bench, bench, machine

SMALL = Request(vcpus=2, memory_bytes=2 * GIB, disk_bytes=20 * GIB)
OWN = Request(vcpus=2, cpu_policy="dedicated", memory_bytes=2 * GIB)


def granted(result: Answer | Refusal) -> Claim:
    """Return the claim of an answer that must be a yes."""
    assert isinstance(result, Answer), result
    assert result.claim is not None
    return result.claim


def used(world: Bench) -> tuple[int, int, int]:
    """Return (vCPUs, MiB, GiB of disk rounded up) that the claims of the node hold."""
    free = world.tracker.node().free
    base = sum(n * 4096 for pool, n in free.used.items() if pool.startswith("pages:"))
    disk = free.used.get(PoolId("disk:root"), 0)
    return free.used.get(VCPU, 0) + free.taken_cpus.bit_count(), (free.used.get(MEMORY, 0) + base) // MIB, -(-disk // GIB)


def test_a_claim_is_counted_until_it_is_released() -> None:
    """Claiming takes exactly the vector, releasing gives exactly that back, and saying it again is an answer."""
    with bench() as world:
        claim = granted(world.tracker.hold(SMALL, confirm=True))
        assert used(world) == (2, 2048, 20)
        first = world.tracker.release(claim.id)
        assert (first.outcome, first.changed, used(world)) == ("released", True, (0, 0, 0))
        again = world.tracker.release(claim.id)
        assert (again.outcome, again.changed, again.cause) == ("released", False, "released")


@pytest.mark.rule("W1", "L6")
def test_an_abort_said_twice_adds_nothing() -> None:
    """Build, abort, abort: the second abort is an answer and the node stays empty (Nova adds the claim again)."""
    with bench() as world:
        claim = granted(world.tracker.hold(SMALL))
        assert world.tracker.abort(claim.id).changed
        second = world.tracker.abort(claim.id)
        assert (second.changed, second.cause, used(world)) == (False, "aborted", (0, 0, 0))


@pytest.mark.rule("S06", "W7")
def test_a_late_refusal_changes_nothing() -> None:
    """A claim that is refused for its last resource leaves no trace of the first ones."""
    with bench() as world:
        wish = Request(vcpus=2, memory_bytes=GIB, resources=(ResourceAmount(resource_class=ResourceClass("CUSTOM_X"), amount=1),))
        answer = world.tracker.hold(wish, consumer="vm")
        assert isinstance(answer, Refusal)
        assert used(world) == (0, 0, 0)
        assert world.store.main_claim(granted(world.tracker.hold(SMALL, consumer="vm")).consumer) is not None


@pytest.mark.rule("S08", "L2")
def test_an_unknown_node_is_named() -> None:
    """A claim on a node that is not in the ledger says which."""
    with bench() as world, pytest.raises(UnknownNode, match="'x'"):
        world.tracker.hold(SMALL, node="x")


@pytest.mark.rule("S02", "C10", "C12")
def test_reserved_and_ratio_give_exact_figures() -> None:
    """With 1 CPU, 512 MiB and 1500 MB kept back and a ratio of 4 the 60th vCPU is granted and the 61st refused."""
    kept = NodeSettings(
        reserved_host_cpus=1, reserved_host_memory_bytes=512 * MIB, reserved_host_disk_bytes=1500 * 1000 * 1000, cpu_allocation_ratio=4000
    )
    with bench("16c 32G disk:200G", settings=kept) as world:
        for _ in range(4):
            granted(world.tracker.hold(Request(vcpus=15), confirm=True))
        refusal = world.tracker.hold(Request(vcpus=1))
        assert isinstance(refusal, Refusal)
        assert (refusal.reasons[0].asked, refusal.reasons[0].free, refusal.reasons[0].short) == (1, 0, 1)
        assert len(refusal.reasons[0].holders) == 4


@pytest.mark.rule("S45", "C10", "X6", "W40")
def test_shrunk_capacity_is_legal_and_stays_visible() -> None:
    """A ratio lowered below use keeps every claim, refuses new ones, and accepts releases; nothing is clamped."""
    with bench(
        "16c 32G", settings=NodeSettings(reserved_host_memory_bytes=0, reserved_host_disk_bytes=0, cpu_allocation_ratio=4000)
    ) as world:
        claims = [granted(world.tracker.hold(Request(vcpus=16), confirm=True)) for _ in range(2)]
        world.tracker.configure(UNRESERVED)
        assert world.tracker.node().free.used[VCPU] == 32
        refusal = world.tracker.hold(Request(vcpus=1))
        assert isinstance(refusal, Refusal)
        assert refusal.reasons[0].free == -16
        assert [finding.code for finding in world.tracker.audit()] == ["overage"]
        world.tracker.release(claims[0].id)
        assert world.tracker.node().free.used[VCPU] == 16


def test_one_consumer_has_one_main_claim() -> None:
    """A second main claim of a consumer is refused, naming the first; one with another purpose is granted."""
    with bench() as world:
        first = granted(world.tracker.hold(SMALL, consumer="vm", confirm=True))
        refusal = world.tracker.hold(SMALL, consumer="vm")
        assert isinstance(refusal, Refusal)
        assert (refusal.reasons[0].code, refusal.reasons[0].holders[0].claim) == ("consumer_has_main", first.id)
        granted(world.tracker.hold(SMALL, consumer="vm", purpose="attach"))
        world.tracker.release(first.id)
        granted(world.tracker.hold(SMALL, consumer="vm"))


def test_a_key_gives_the_first_answer_again() -> None:
    """The same call under a key is answered once; another call under it is an error; a refusal is not remembered."""
    with bench() as world:
        first = granted(world.tracker.hold(SMALL, key="k1", confirm=True))
        assert granted(world.tracker.hold(SMALL, key="k1", confirm=True)).id == first.id
        assert used(world) == (2, 2048, 20)
        with pytest.raises(KeyReused):
            world.tracker.hold(OWN, key="k1", confirm=True)
        large = Request(vcpus=99)
        assert isinstance(world.tracker.hold(large, key="k2"), Refusal)
        world.tracker.configure(NodeSettings(reserved_host_memory_bytes=0, cpu_allocation_ratio=16000))
        assert isinstance(world.tracker.hold(Request(vcpus=3), key="k2"), Answer)


def test_a_key_is_kept_for_seven_days() -> None:
    """After a week a key stands for nothing."""
    with bench() as world:
        granted(world.tracker.hold(SMALL, key="k", confirm=True))
        world.clock.move(7 * 24 * 3600 * 1000 + 1)
        granted(world.tracker.hold(OWN, key="k", confirm=True))


def test_a_held_claim_expires_into_draining_then_quarantine() -> None:
    """A hold without processes drains at its deadline, goes to quarantine after the grace, and is free only when a person returns it."""
    with bench() as world:
        claim = granted(world.tracker.hold(OWN))
        world.clock.move(600_000)
        answer = world.tracker.sweep()
        assert answer is not None
        assert answer.touched == (claim.id,)
        state = world.tracker.node()
        assert (state.claims[claim.id].phase, state.claims[claim.id].cause) == ("draining", "expired")
        assert used(world)[0] == 2
        world.clock.move(60_000)
        world.tracker.sweep()
        assert world.tracker.node().quarantines[claim.id].reason.startswith("expired")
        assert used(world)[0] == 2
        unit = claim.grant.units[0].unit
        world.tracker.give_back(unit, "looked at it")
        assert used(world)[0] == 1
        world.tracker.give_back(claim.id, "all well")
        assert (used(world), len(world.tracker.node().quarantines)) == ((0, 0, 0), 0)
        assert not world.tracker.give_back(unit, "again").changed


def test_quarantined_units_are_not_given_out() -> None:
    """While units are in quarantine nobody gets them."""
    with bench("2c 8G") as world:
        granted(world.tracker.hold(OWN))
        for step in (600_000, 60_000):
            world.clock.move(step)
            world.tracker.sweep()
        refusal = world.tracker.hold(Request(vcpus=1, cpu_policy="dedicated"))
        assert isinstance(refusal, Refusal)


def test_a_dead_holder_is_proof() -> None:
    """A claim whose process is gone ends with a record of why, at the next sweep, without a new claim having to come."""
    with bench() as world:
        holder = world.tracker.holder(4711)
        claim = granted(world.tracker.hold(OWN, confirm=True, holders=[holder]))
        assert world.tracker.sweep() is None
        world.processes.fates[4711] = "dead"
        world.tracker.sweep()
        assert used(world)[0] == 0
        row = world.store.claim(claim.id)
        assert row is not None
        assert row.cause == "holder_gone"


def test_unknown_is_not_dead() -> None:
    """A holder that cannot be judged keeps its claim, even after a deadline: it drains and goes to quarantine, never to free."""
    with bench() as world:
        holder = world.tracker.holder(4711)
        claim = granted(world.tracker.hold(OWN, confirm=True, holders=[holder], ttl_ms=1000))
        world.processes.fates[4711] = "unknown"
        assert world.tracker.sweep() is None
        world.clock.move(1000)
        world.tracker.sweep()
        world.clock.move(60_000)
        world.tracker.sweep()
        assert claim.id in world.tracker.node().quarantines
        assert used(world)[0] == 2


def test_an_expired_claim_in_use_keeps_draining() -> None:
    """Past its deadline a claim whose process lives drains as long as that takes; its end is the proof."""
    with bench() as world:
        claim = granted(world.tracker.hold(OWN, confirm=True, holders=[world.tracker.holder(4711)], ttl_ms=1000))
        world.clock.move(1000)
        world.tracker.sweep()
        world.clock.move(3_600_000)
        world.tracker.sweep()
        assert world.tracker.node().claims[claim.id].phase == "draining"
        world.processes.fates[4711] = "dead"
        world.tracker.sweep()
        assert used(world)[0] == 0


def test_a_reboot_ends_what_processes_held() -> None:
    """After a reboot a claim bound to a process is over, one bound to nothing stays."""
    with bench() as world:
        bound = granted(world.tracker.hold(OWN, confirm=True, holders=[world.tracker.holder(4711)]))
        free = granted(world.tracker.hold(OWN, confirm=True))
        world.processes.boot = world.host.boot = "boot-2"
        after = world.reopened().tracker.node()
        assert (bound.id in after.claims, free.id in after.claims) == (False, True)


def test_release_waits_for_the_processes() -> None:
    """A release while a bound process lives drains; the claim ends when the process does."""
    with bench() as world:
        claim = granted(world.tracker.hold(OWN, confirm=True, holders=[world.tracker.holder(4711)]))
        answer = world.tracker.release(claim.id)
        assert (answer.outcome, used(world)[0]) == ("draining", 2)
        assert not world.tracker.release(claim.id).changed
        world.processes.fates[4711] = "dead"
        world.tracker.sweep()
        assert used(world)[0] == 0


def test_force_is_not_free() -> None:
    """A forced release without proof drains and ends in quarantine."""
    with bench() as world:
        claim = granted(world.tracker.hold(OWN, confirm=True))
        assert world.tracker.release(claim.id, force=True).outcome == "draining"
        assert used(world)[0] == 2
        world.clock.move(60_000)
        world.tracker.sweep()
        assert claim.id in world.tracker.node().quarantines


def test_with_confirms_when_the_block_ends_well() -> None:
    """A claim taken by `with` is held inside and confirmed after it, without the process as its holder."""
    with bench() as world:
        with world.tracker.claim(OWN, consumer="vm") as held:
            inside = world.tracker.node().claims[held.id]
            assert (inside.phase, inside.holders[0].pid) == ("held", os.getpid())
        after = world.tracker.node().claims[held.id]
        assert (after.phase, after.holders, after.deadline_ms) == ("confirmed", (), None)


@pytest.mark.rule("L5")
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_with_rolls_back_on_any_exception(error: type[BaseException]) -> None:
    """Whatever is raised inside the block, everything is given back and that error is the one that comes out."""
    with bench() as world:
        with pytest.raises(error), world.tracker.claim(OWN):
            raise error
        assert used(world) == (0, 0, 0)


def test_a_failed_rollback_keeps_the_first_error() -> None:
    """If the rollback fails too, the first error is raised with a note, and the lease ends the claim."""
    with bench(check=False) as world:
        with pytest.raises(ValueError, match="first") as caught, world.tracker.claim(OWN):
            _close_and_raise(world)
        assert "could not be rolled back" in caught.value.__notes__[0]


def _close_and_raise(world: Bench) -> None:
    """Take the ledger away and fail."""
    world.store.close()
    raise ValueError("first")


def test_with_raises_refused() -> None:
    """A block that cannot start raises Refused with the reasons as data."""
    with bench() as world, pytest.raises(Refused) as caught, world.tracker.claim(Request(vcpus=99)):
        pytest.fail("the block must not run")
    assert isinstance(caught.value.refusal, Refusal)


def test_borrow_always_gives_back() -> None:
    """A borrowed claim is over at the end of its block, well or not."""
    with bench() as world:
        with world.tracker.borrow(OWN) as held:
            assert len(held.cpus) == 2
            assert world.tracker.node().claims[held.id].phase == "confirmed"
        assert used(world) == (0, 0, 0)
        with pytest.raises(ValueError, match="x"), world.tracker.borrow(OWN):
            raise ValueError("x")
        assert used(world) == (0, 0, 0)


def test_a_generation_guards_a_release() -> None:
    """A stale caller cannot end what has moved on since it looked."""
    with bench() as world:
        claim = granted(world.tracker.hold(OWN))
        world.tracker.confirm(claim.id)
        with pytest.raises(GenerationConflict):
            world.tracker.release(claim.id, generation=claim.generation)
        assert world.tracker.release(claim.id, generation=claim.generation + 1).changed


def test_confirming_what_has_ended_is_a_conflict() -> None:
    """A confirmation that comes too late says so; one that comes twice is an answer."""
    with bench() as world:
        claim = granted(world.tracker.hold(OWN))
        assert world.tracker.confirm(claim.id).changed
        assert not world.tracker.confirm(claim.id).changed
        with pytest.raises(Conflict, match="confirmed"):
            world.tracker.abort(claim.id)
        world.tracker.release(claim.id)
        with pytest.raises(Conflict, match="released"):
            world.tracker.confirm(claim.id)
        with pytest.raises(UnknownClaim):
            world.tracker.release("c-nothing")


def test_a_hold_needs_a_deadline_in_the_future() -> None:
    """A claim cannot be held for no time, and a held one cannot be renewed without end."""
    with bench() as world:
        with pytest.raises(InvalidRequest):
            world.tracker.hold(OWN, ttl_ms=0)
        claim = granted(world.tracker.hold(OWN))
        with pytest.raises(InvalidRequest, match="deadline"):
            world.tracker.renew(claim.id, None)
        renewed = world.tracker.renew(claim.id, 3_600_000)
        assert renewed.claim is not None
        assert renewed.claim.deadline_ms == world.clock.now_ms() + 3_600_000


def test_a_prescribed_grant_is_judged() -> None:
    """A grant that names its units is given exactly if they are free, and refused with the holder if not."""
    with bench("4c 8G") as world:
        wish = Request(vcpus=1, cpu_policy="dedicated")
        one = Grant(units=(UnitRow(unit=UnitId("cpu:3"), use="vcpu"),))
        first = granted(world.tracker.hold(wish, grant=one))
        assert first.grant == one
        refusal = world.tracker.hold(wish, grant=one)
        assert isinstance(refusal, Refusal)
        assert refusal.reasons[0].holders[0].claim == first.id
        assert isinstance(world.tracker.hold(wish, grant=Grant(units=(UnitRow(unit=UnitId("cpu:9"), use="vcpu"),))), Refusal)
        assert isinstance(world.tracker.hold(wish, grant=Grant(amounts=(AmountRow(pool=PoolId("class:CUSTOM_Y"), amount=1),))), Refusal)


def test_a_cordon_blocks_new_grants_and_keeps_the_holder() -> None:
    """A cordoned CPU gets no new claim; who holds it keeps it; the cordon ends by itself at its time."""
    with bench("2c 8G") as world:
        claim = granted(world.tracker.hold(Request(vcpus=1, cpu_policy="dedicated"), confirm=True))
        held = claim.grant.units[0].unit
        other = "cpu:0" if held == "cpu:1" else "cpu:1"
        world.tracker.cordon(other, "sick", until_ms=world.clock.now_ms() + 1000)
        world.tracker.cordon(held, "sick")
        assert isinstance(world.tracker.hold(Request(vcpus=1, cpu_policy="dedicated")), Refusal)
        assert claim.id in world.tracker.node().claims
        world.clock.move(1000)
        world.tracker.sweep()
        granted(world.tracker.hold(Request(vcpus=1, cpu_policy="dedicated")))
        world.tracker.cordon(None, "closed")
        refusal = world.tracker.hold(Request(vcpus=1))
        assert isinstance(refusal, Refusal)
        assert refusal.reasons[0].code == "node_closed"


@pytest.mark.rule("S27", "X5")
def test_a_restart_gives_the_same_state() -> None:
    """Three dedicated guests, the second deleted: a second tracker folds to the same CPUs."""
    with bench() as world:
        claims = [granted(world.tracker.hold(OWN, consumer=f"vm{n}", confirm=True)) for n in range(3)]
        world.tracker.release(claims[1].id)
        before = world.tracker.node()
        after = world.reopened().tracker.node()
        assert after == before
        assert {row.unit for claim in after.live() for row in claim.grant.units} == {
            row.unit for claim in (claims[0], claims[2]) for row in claim.grant.units
        }


def test_what_if_cannot_write() -> None:
    """A dry run gives the grant that a claim would get and leaves not even a refusal behind."""
    with bench() as world:
        before = world.store.last_position()
        would = world.tracker.fit(OWN)
        assert isinstance(would, Grant)
        assert isinstance(world.tracker.fit(Request(vcpus=99)), Refusal)
        assert (world.store.last_position(), list(world.store.refusals())) == (before, [])
        assert granted(world.tracker.hold(OWN)).grant == would


@pytest.mark.rule("S43")
def test_a_plain_class_is_counted() -> None:
    """Three of a class: the fourth is refused with its holders; released ones are had again."""
    own = Inventory(resource_class=ResourceClass("CUSTOM_LICENCE"), total=3)
    wish = Request(resources=(ResourceAmount(resource_class=ResourceClass("CUSTOM_LICENCE"), amount=1),))
    with bench(settings=NodeSettings(inventories=(own,))) as world:
        claims = [granted(world.tracker.hold(wish)) for _ in range(3)]
        refusal = world.tracker.hold(wish)
        assert isinstance(refusal, Refusal)
        assert [holding.claim for holding in refusal.reasons[0].holders] == sorted(claim.id for claim in claims)
        world.tracker.release(claims[0].id)
        granted(world.tracker.hold(wish))


def test_time_travel_shows_what_was() -> None:
    """The node at an earlier time has the claims of that time."""
    with bench() as world:
        claim = granted(world.tracker.hold(OWN, confirm=True))
        then = world.clock.now_ms()
        world.clock.move(5000)
        world.tracker.release(claim.id)
        assert claim.id in world.tracker.at(then).claims
        assert claim.id not in world.tracker.at(then + 5000).claims
        with pytest.raises(UnknownNode):
            world.tracker.at(then - 1)


def test_a_clock_that_goes_back_never_takes_time_back() -> None:
    """Events carry times that never fall, whatever the clock does, and a deadline counts from the ledger's time."""
    with bench() as world:
        granted(world.tracker.hold(OWN, confirm=True))
        world.clock.move(-10 * 365 * 86_400_000)
        claim = granted(world.tracker.hold(OWN))
        assert claim.deadline_ms is not None
        assert claim.deadline_ms > world.tracker.node().at_ms


def test_a_vanished_unit_stays_held() -> None:
    """A CPU that goes away under its holder is missing, not free and not forgotten; the ledger stays open and says what changed."""
    with bench("4c 8G") as world:
        claim = granted(world.tracker.hold(Request(vcpus=4, cpu_policy="dedicated"), confirm=True))
        world.host.seen = machine("3c 8G")
        answer = world.tracker.observe()
        assert answer.changed
        assert answer.differences
        state = world.tracker.node()
        assert state.missing == {UnitId("cpu:3")}
        assert claim.id in state.claims
        assert "missing" in [finding.code for finding in world.tracker.audit()]
        assert not world.tracker.observe().changed


def test_a_block_may_name_its_node_first() -> None:
    """`claim(request)` is for this machine, `claim(node, request)` for the node named; anything else is said to be wrong."""
    with bench() as world:
        with world.tracker.claim(world.host.name, OWN, consumer="a") as held:
            assert held.taken.node == world.tracker.home
        with world.tracker.borrow(None, OWN), world.tracker.borrow(OWN, node=world.tracker.home):
            assert used(world)[0] == 6
        with pytest.raises(UnknownNode), world.tracker.claim("elsewhere", OWN):
            pytest.fail("the block must not run")
        with pytest.raises(InvalidRequest, match="a request"):
            world.tracker.claim("n1")
        with pytest.raises(InvalidRequest, match="a request"):
            world.tracker.claim("n1", OWN, node="n1")
