"""The life of an instance over the tracker: states that hold and free, moves of every kind, said once, twice and late."""

from __future__ import annotations

import pytest

from earmark.core.ledger.commands import Answer, ConfigureNode, ObserveMachine, RegisterNode
from earmark.core.ledger.life_commands import LifeAnswer
from earmark.core.ledger.state import NodeState
from earmark.core.model.claim import Claim
from earmark.core.model.ids import MEMORY, VCPU, NodeId, PoolId
from earmark.core.model.instance import FREEING, InstanceState, MoveKind
from earmark.core.model.node import NodeSettings
from earmark.core.model.refusal import Refusal
from earmark.core.model.request import DeviceRequest, Request
from earmark.core.model.units import GIB, MIB
from earmark.errors import Conflict, InvalidRequest, Refused, UnknownClaim, UnknownMove
from earmark.testing import UNRESERVED, Bench, assert_sound, bench, machine

S = Request(vcpus=2, memory_bytes=2 * GIB, disk_bytes=20 * GIB)
L = Request(vcpus=4, memory_bytes=4 * GIB, disk_bytes=40 * GIB)
OWN = Request(vcpus=2, cpu_policy="dedicated", memory_bytes=2 * GIB)
HOST = "2x8c 32G disk:200G"
B = NodeId("00000000-0000-4000-8000-00000000000b")
STATES: tuple[InstanceState, ...] = (
    "building", "active", "paused", "suspended", "stopped", "rescued", "resized", "error", "shelved", "soft_deleted",
)  # fmt: skip


def with_second(world: Bench, shape: str = HOST, settings: NodeSettings = UNRESERVED) -> Bench:
    """Return a world with a second node, B."""
    for command in (
        RegisterNode(node=B, name="B"),
        ObserveMachine(node=B, machine=machine(shape)),
        ConfigureNode(node=B, settings=settings),
    ):
        world.tracker._writer.submit(command)
    return world


def books(state: NodeState) -> tuple[int, int, int]:
    """Return (vCPUs, MiB, GiB of disk) that the claims of a node hold."""
    used = state.free.used
    base = sum(pages * 4096 for pool, pages in used.items() if pool.startswith("pages:"))
    return (
        used.get(VCPU, 0) + state.free.taken_cpus.bit_count(),
        (used.get(MEMORY, 0) + base) // MIB,
        -(-used.get(PoolId("disk:root"), 0) // GIB),
    )


def here(world: Bench) -> tuple[int, int, int]:
    """Return the books of the first node."""
    return books(world.tracker.node())


def there(world: Bench) -> tuple[int, int, int]:
    """Return the books of node B."""
    return books(world.tracker.node("B"))


def built(world: Bench, consumer: str = "i", request: Request = S) -> Claim:
    """Return the main claim of a consumer that runs on the first node."""
    answer = world.tracker.hold(request, consumer=consumer, confirm=True)
    assert isinstance(answer, Answer), answer
    assert answer.claim is not None
    return answer.claim


def opened(answer: LifeAnswer | Refusal) -> LifeAnswer:
    """Return an answer that must be a yes."""
    assert isinstance(answer, LifeAnswer), answer
    return answer


@pytest.mark.rule("L9", "L12", "S01")
@pytest.mark.parametrize("state", STATES)
def test_a_state_that_does_not_free_keeps_everything(state: InstanceState) -> None:
    """Whatever is reported, the claim stays as it is, and saying it twice writes nothing."""
    assert state not in FREEING
    with bench(HOST) as world:
        built(world)
        world.tracker.report("i", state)
        assert here(world) == (2, 2048, 20)
        assert not world.tracker.report("i", state).changed


@pytest.mark.rule("L10", "L11", "L14")
def test_offloaded_and_deleted_free_everything() -> None:
    """Both give all back; a second report is an answer."""
    with bench(HOST) as world:
        built(world)
        first = world.tracker.report("i", "shelved_offloaded")
        assert (here(world), len(first.touched)) == ((0, 0, 0), 1)
        built(world)
        assert not world.tracker.report("i", "shelved_offloaded").changed
        assert here(world) == (2, 2048, 20)
        assert world.tracker.delete("i").outcome == "deleted"
        assert here(world) == (0, 0, 0)
        assert not world.tracker.delete("i").changed


@pytest.mark.rule("L8", "S10")
def test_an_unshelved_instance_holds_on_its_new_node() -> None:
    """While it is still reported offloaded, its new claim counts, and a repeated report does not take it away."""
    with bench(HOST) as world:
        with_second(world)
        built(world)
        world.tracker.report("i", "shelved_offloaded")
        assert isinstance(world.tracker.hold(S, consumer="i", node="B"), Answer)
        world.tracker.report("i", "shelved_offloaded", task="spawning")
        assert (here(world), there(world)) == ((0, 0, 0), (2, 2048, 20))


@pytest.mark.rule("M1", "M4", "M7", "M8", "M10", "M11", "M15", "M19", "W1", "W2", "W16")
def test_a_resize_elsewhere_confirmed() -> None:
    """Both legs count with their own vector until confirm; every later command is answered."""
    with bench(HOST) as world:
        with_second(world)
        built(world)
        move = opened(world.tracker.open_move("i", "resize", to="B", request=L))
        assert (move.status, here(world), there(world)) == ("preparing", (2, 2048, 20), (4, 4096, 40))
        world.tracker.report("i", "resized")
        assert world.tracker.finish_move("i").status == "finished"
        assert not world.tracker.finish_move("i").changed
        done = world.tracker.confirm_move("i")
        assert (done.status, here(world), there(world)) == ("confirmed", (0, 0, 0), (4, 4096, 40))
        for late in (world.tracker.confirm_move, world.tracker.revert_move, world.tracker.abort_move, world.tracker.finish_move):
            answer = late("i")
            assert (answer.changed, answer.outcome, there(world)) == (False, "confirmed", (4, 4096, 40))
        world.tracker.delete("i")
        assert there(world) == (0, 0, 0)


@pytest.mark.rule("M16", "M17", "M18", "W5", "W17")
@pytest.mark.parametrize("how", ["revert_move", "abort_move"])
def test_a_move_given_up_leaves_the_source_as_it_was(how: str) -> None:
    """Revert and abort free the destination; a confirm that comes too late confirms nothing."""
    with bench(HOST) as world:
        with_second(world)
        before = built(world)
        opened(world.tracker.open_move("i", "resize", to="B", request=L))
        answer = getattr(world.tracker, how)("i")
        assert (answer.changed, here(world), there(world)) == (True, (2, 2048, 20), (0, 0, 0))
        assert world.tracker.confirm_move("i").message.endswith("nothing is confirmed")
        (left,) = world.tracker.claims_of("i")
        assert (left.id, left.purpose, left.move, left.leg) == (before.id, "main", None, None)


@pytest.mark.rule("M5", "M6", "M9", "W4")
def test_a_resize_on_one_node_counts_both_until_it_ends() -> None:
    """S13 and S14 in figures, and nothing is left after an immediate delete."""
    with bench(HOST) as world:
        built(world)
        opened(world.tracker.open_move("i", "resize", request=L))
        assert here(world) == (6, 6144, 60)
        world.tracker.revert_move("i")
        assert here(world) == (2, 2048, 20)
        opened(world.tracker.open_move("i", "resize", request=L))
        world.tracker.confirm_move("i")
        assert here(world) == (4, 4096, 40)
        world.tracker.delete("i")
        assert here(world) == (0, 0, 0)


@pytest.mark.rule("M31", "S23")
def test_a_delete_in_the_middle_frees_both_legs() -> None:
    """The move is over with outcome deleted, and confirm says so."""
    with bench(HOST) as world:
        with_second(world)
        built(world)
        opened(world.tracker.open_move("i", "resize", to="B", request=L))
        world.tracker.finish_move("i")
        world.tracker.delete("i")
        assert (here(world), there(world)) == ((0, 0, 0), (0, 0, 0))
        assert world.tracker.confirm_move("i").outcome == "deleted"


@pytest.mark.rule("M32", "S17", "W15")
def test_a_failed_finish_holds_both_legs_until_somebody_ends_the_move() -> None:
    """An instance in error keeps source and destination; which state it is in decides nothing."""
    with bench(HOST) as world:
        with_second(world)
        built(world)
        opened(world.tracker.open_move("i", "resize", to="B", request=L))
        world.tracker.report("i", "error")
        assert (here(world), there(world)) == ((2, 2048, 20), (4, 4096, 40))
        world.tracker.revert_move("i")
        assert (here(world), there(world)) == ((2, 2048, 20), (0, 0, 0))


@pytest.mark.rule("M20", "M21", "S18")
def test_an_evacuated_host_keeps_what_it_held_until_it_is_back() -> None:
    """The source drains: nobody gets its CPUs while its guest may still run; time alone never frees it."""
    with bench(HOST) as world:
        with_second(world)
        built(world, request=OWN)
        world.tracker.cordon(None, "is down")
        opened(world.tracker.open_move("i", "evacuation", to="B"))
        world.tracker.confirm_move("i")
        world.clock.move(10_000_000)
        world.tracker.sweep()
        assert (here(world), there(world)) == ((2, 2048, 0), (2, 2048, 0))
        world.tracker.delete("i")
        assert (here(world), there(world)) == ((2, 2048, 0), (0, 0, 0))
        assert len(world.tracker.came_back(world.tracker.home).touched) == 1
        assert here(world) == (0, 0, 0)
        assert world.tracker.came_back(world.tracker.home).touched == ()


@pytest.mark.rule("M24", "M23", "M25", "W13", "W18", "S21")
def test_a_live_migration_of_a_pinned_guest() -> None:
    """Both sides hold their own CPUs; other pages and hosts without cells are refused, and a rollback frees the destination."""
    paged = Request(vcpus=2, cpu_policy="dedicated", memory_bytes=2 * GIB, page_kib=2048)
    with bench("2x8c 32G 2M:2048") as world:
        with_second(world, "2x8c 32G 2M:2048")
        built(world, request=paged)
        opened(world.tracker.open_move("i", "live_migration", to="B"))
        assert [state.free.taken_cpus.bit_count() for state in world.tracker.nodes()] == [2, 2]
        world.tracker.abort_move("i")
        assert [state.free.taken_cpus.bit_count() for state in sorted(world.tracker.nodes(), key=lambda each: each.node)] == [2, 0]
        with pytest.raises(InvalidRequest):
            world.tracker.open_move("i", "live_migration", to="B", request=OWN)
        with pytest.raises(InvalidRequest):
            world.tracker.open_move("i", "live_migration")
        world.tracker._writer.submit(ObserveMachine(node=B, machine=machine("2x8c 32G")))
        assert isinstance(world.tracker.open_move("i", "live_migration", to="B"), Refusal)


@pytest.mark.rule("M26", "M27")
def test_devices_move_while_in_use_only_if_they_can() -> None:
    """A kind that is not live-migratable is refused by name; one that is has a device on each side until the end."""
    vf = Request(vcpus=1, memory_bytes=GIB, devices=(DeviceRequest(kind="vf"),))
    with bench("1x4c 8G vf:2") as world:
        with_second(world, "1x4c 8G vf:2")
        built(world, request=vf)
        refused = world.tracker.open_move("i", "live_migration", to="B")
        assert isinstance(refused, Refusal)
        assert refused.reasons[0].code == "not_live_migratable"
        settings = NodeSettings(reserved_host_memory_bytes=0, reserved_host_disk_bytes=0, live_migratable_kinds=("vf",))
        world.tracker.configure(settings)
        opened(world.tracker.open_move("i", "live_migration", to="B"))
        claims = world.tracker.claims_of("i")
        legs = {claim.leg: [row.unit for row in claim.grant.units if row.use == "device"] for claim in claims}
        assert world.tracker.device_pairs(world.tracker.find_move("i")) == ((legs["source"][0], legs["destination"][0]),)


@pytest.mark.rule("M2", "W24", "S40")
def test_an_unchanged_device_stays_in_one_row_and_passes() -> None:
    """A resize on one node with the same device needs no second one; confirm passes it on, revert leaves it."""
    small = Request(vcpus=1, memory_bytes=GIB, devices=(DeviceRequest(kind="vf"),))
    large = Request(vcpus=2, memory_bytes=2 * GIB, devices=(DeviceRequest(kind="vf"),))
    with bench("1x4c 8G vf:1") as world:
        first = built(world, request=small)
        device = next(row.unit for row in first.grant.units if row.use == "device")
        for end, holder in (("revert_move", "source"), ("confirm_move", "destination")):
            move = opened(world.tracker.open_move("i", "resize", request=large)).move
            assert move is not None
            legs = {claim.leg: claim for claim in world.tracker.claims_of("i")}
            assert legs["destination"].named == (device,)
            assert world.tracker.device_pairs(move) == ((device, device),)
            assert sum(row.unit == device for claim in legs.values() for row in claim.grant.units) == 1
            getattr(world.tracker, end)(move.id)
            (left,) = world.tracker.claims_of("i")
            assert left.id == legs["source" if holder == "source" else "destination"].id
            assert [row.unit for row in left.grant.units] == [device]
            assert left.named == ()


@pytest.mark.rule("M28")
def test_a_move_on_one_node_is_a_setting() -> None:
    """Resize on one node is on by default, migration off; both are refused by the setting's name."""
    with bench(HOST) as world:
        built(world)
        refused = world.tracker.open_move("i", "migration")
        assert isinstance(refused, Refusal)
        assert "allow_migrate_to_same_host" in refused.reasons[0].detail
        world.tracker.configure(
            NodeSettings(
                reserved_host_memory_bytes=0, reserved_host_disk_bytes=0, allow_resize_to_same_host=False, allow_migrate_to_same_host=True
            )
        )
        opened(world.tracker.open_move("i", "migration"))
        world.tracker.abort_move("i")
        assert isinstance(world.tracker.open_move("i", "resize", request=L), Refusal)


@pytest.mark.rule("M30")
def test_a_finished_resize_confirms_itself_after_the_window() -> None:
    """Not before, and only if the window is set."""
    settings = NodeSettings(reserved_host_memory_bytes=0, reserved_host_disk_bytes=0, resize_confirm_window_s=60)
    with bench(HOST, settings=settings) as world:
        built(world)
        move = opened(world.tracker.open_move("i", "resize", request=L)).move
        assert move is not None
        world.clock.move(120_000)
        world.tracker.sweep()
        assert world.tracker.move_status(move) == "preparing"
        world.tracker.finish_move("i")
        world.clock.move(59_000)
        world.tracker.sweep()
        assert world.tracker.move_status(move) == "finished"
        world.clock.move(2_000)
        world.tracker.sweep()
        assert (world.tracker.move_status(move), here(world)) == ("confirmed", (4, 4096, 40))


@pytest.mark.rule("M12", "M13", "W14")
def test_one_consumer_is_in_one_move() -> None:
    """A second move is refused naming the first; the same one asked for again is answered."""
    with bench(HOST) as world:
        with_second(world)
        built(world)
        first = opened(world.tracker.open_move("i", "resize", to="B", request=L)).move
        assert first is not None
        with pytest.raises(Conflict, match=first.id):
            world.tracker.open_move("i", "resize", request=L)
        assert not opened(world.tracker.open_move("i", "resize", to="B", request=L, move_id=first.id)).changed
        with pytest.raises(Conflict):
            world.tracker.release(first.legs[0].source.claim if first.legs[0].source else "")
        with pytest.raises(UnknownMove):
            world.tracker.confirm_move("m-never0")


@pytest.mark.rule("M3", "M14")
def test_what_a_move_may_change() -> None:
    """Only a resize asks for something else; a move carries its own vectors and needs no flavor to be found."""
    with bench(HOST) as world:
        with_second(world)
        built(world)
        kinds: tuple[MoveKind, ...] = ("migration", "live_migration", "evacuation")
        for kind in kinds:
            with pytest.raises(InvalidRequest):
                world.tracker.open_move("i", kind, to="B", request=L)
        opened(world.tracker.open_move("i", "migration", to="B"))
        assert {claim.request for claim in world.tracker.claims_of("i")} == {S}


@pytest.mark.rule("L16", "M2")
def test_attached_claims_move_along() -> None:
    """They get a leg of their own elsewhere, are attached still after confirm, and can be detached there."""
    extra = Request(devices=(DeviceRequest(kind="vf"),))
    with bench("1x4c 8G vf:2") as world:
        with_second(world, "1x4c 8G vf:2")
        built(world, request=Request(vcpus=1, memory_bytes=GIB))
        assert isinstance(world.tracker.attach("i", extra), Answer)
        opened(world.tracker.open_move("i", "migration", to="B"))
        assert sorted((claim.purpose, str(claim.leg)) for claim in world.tracker.claims_of("i")) == [
            ("attach", "source"), ("leg", "destination"), ("leg", "destination"), ("main", "source"),
        ]  # fmt: skip
        world.tracker.confirm_move("i")
        left = {claim.purpose: claim for claim in world.tracker.claims_of("i")}
        assert {claim.node for claim in left.values()} == {B}
        assert sorted(left) == ["attach", "main"]
        unit = left["attach"].grant.units[0].unit
        assert world.tracker.detach("i", unit).changed
        with pytest.raises(UnknownClaim):
            world.tracker.detach("i", unit)


@pytest.mark.rule("L7", "T4", "S05")
def test_a_build_goes_on_elsewhere() -> None:
    """A refusing node is passed over, a failing one counts a failed build, the next one gets it; a success counts from nothing."""
    with bench("1x1c 1G disk:200G") as world:
        with_second(world)
        world.tracker._writer.submit(RegisterNode(node=NodeId(B[:-1] + "c"), name="C"))
        home = world.tracker.node().name
        tried = []
        for attempt in world.tracker.building(S, consumer="i", nodes=(home, "C", "B", "B")):
            with attempt as claim:
                tried.append(attempt.node)
                assert claim.grant.amounts
                if len(tried) == 1:
                    raise OSError("spawn failed")
        assert (tried, there(world), world.tracker.node("B").failed_builds) == (["B", "B"], (2, 2048, 20), 0)


@pytest.mark.rule("L7")
def test_a_build_that_fails_everywhere_says_why() -> None:
    """The last failure is raised, an instance with a record is in error, and nothing is held; refusals are joined."""
    with bench(HOST) as world:
        home = world.tracker.node().name
        world.tracker.create("i")
        with pytest.raises(OSError, match="spawn failed"):  # noqa: PT012 - the loop is what is tested
            for attempt in world.tracker.building(S, consumer="i", nodes=(home,)):
                with attempt:
                    raise OSError("spawn failed")
        assert (here(world), world.tracker.node().failed_builds) == ((0, 0, 0), 1)
        assert world.tracker.instance("i").instance.state == "error"
        with pytest.raises(Refused, match="no node builds"):
            list(world.tracker.building(Request(vcpus=99), consumer="i", nodes=(home,)))


@pytest.mark.rule("L17")
def test_builds_in_progress_are_bounded() -> None:
    """As many held main claims as the setting says; a confirmed one is no build any more."""
    settings = NodeSettings(reserved_host_memory_bytes=0, reserved_host_disk_bytes=0, max_concurrent_builds=1)
    with bench(HOST, settings=settings) as world:
        first = world.tracker.hold(S, consumer="a")
        assert isinstance(first, Answer)
        second = world.tracker.hold(S, consumer="b")
        assert isinstance(second, Refusal)
        assert second.reasons[0].code == "too_many_builds"
        world.tracker.confirm("a")
        assert isinstance(world.tracker.hold(S, consumer="b"), Answer)


@pytest.mark.rule("L15")
def test_a_rebuild_in_place_claims_nothing() -> None:
    """Its claim stays as it is; another shape is a resize."""
    with bench(HOST) as world:
        before = built(world)
        world.tracker.rebuild("i")
        assert world.tracker.claims_of("i") == (before,)
        with pytest.raises(Conflict):
            world.tracker.rebuild("i", L)


@pytest.mark.rule("S45")
def test_a_smaller_size_is_taken_on_an_overcommitted_node() -> None:
    """Where the ratio shrank below what is held, a resize that does not ask for more is granted; one that does is refused."""
    wide = NodeSettings(reserved_host_memory_bytes=0, reserved_host_disk_bytes=0, cpu_allocation_ratio=4000)
    with bench("1x16c 64G disk:200G", settings=wide) as world:
        for name in "abcd":
            built(world, name, Request(vcpus=8, memory_bytes=GIB))
        world.tracker.configure(UNRESERVED)
        assert here(world)[0] == 32
        assert isinstance(world.tracker.hold(S, consumer="e"), Refusal)
        assert isinstance(world.tracker.open_move("a", "resize", request=Request(vcpus=9, memory_bytes=GIB)), Refusal)
        opened(world.tracker.open_move("a", "resize", request=Request(vcpus=4, memory_bytes=GIB)))
        world.tracker.confirm_move("a")
        assert here(world)[0] == 28


def test_a_move_in_a_block_is_aborted_by_any_exception() -> None:
    """The destination leg ends, the error is the block's own; a block that ends well leaves the move open for confirm."""
    with bench(HOST) as world:
        with_second(world)
        built(world)
        with pytest.raises(KeyError), world.tracker.move("i", "migration", to="B") as move:  # noqa: PT012 - what is seen in the block counts
            assert (move.status, move.source.leg, move.destination.node) == ("preparing", "source", B)
            raise KeyError
        assert (there(world), world.tracker.moves()) == ((0, 0, 0), ())
        with world.tracker.move("i", "migration", to="B") as move:
            move.finish()
        assert (there(world), [each.id for each in world.tracker.moves()]) == ((2, 2048, 20), [move.id])
        move.confirm()
        assert here(world) == (0, 0, 0)
        with pytest.raises(Refused), world.tracker.move("i", "resize", request=Request(vcpus=999)):
            pass


@pytest.mark.rule("M29")
def test_two_ledgers_tie_their_legs_by_a_token() -> None:
    """Each knows its half; the destination expires unless its guest is seen, the source never does."""
    with bench(HOST) as left, bench(HOST) as right:
        built(left)
        out = left.tracker.move_out("i", "migration")
        assert out.move is not None
        assert out.move.token is not None
        again = left.tracker.move_out("i", "migration").move
        assert again == out.move
        holder = right.tracker.holder(77)
        came = opened(right.tracker.move_in(out.move.token, ttl_ms=1000, holders=[holder]))
        assert (came.status, here(left), here(right)) == ("preparing", (2, 2048, 20), (2, 2048, 20))
        left.clock.move(10_000_000)
        right.clock.move(10_000_000)
        left.tracker.sweep()
        right.tracker.sweep()
        assert (here(left), here(right)) == ((2, 2048, 20), (2, 2048, 20))
        right.processes.fates[77] = "unknown"
        right.tracker.sweep()
        assert here(right) == (2, 2048, 20) or right.tracker.claims_of("i")[0].phase == "draining"
        assert_sound(left.tracker)
        assert_sound(right.tracker)


def pins(claims: tuple[Claim, ...]) -> list[int]:
    """Return the CPUs of some claims, as many times as they are held."""
    return [cpu for claim in claims for cpu in claim.grant.cpus]


@pytest.mark.rule("S29", "W4", "W39")
@pytest.mark.parametrize("kind", ["resize", "migration"])
def test_a_pinned_guest_moves_on_one_node_beside_a_competitor(kind: MoveKind) -> None:
    """Old and new CPUs are distinct, the competitor gets neither, and confirm frees just the old ones."""
    small = Request(vcpus=2, cpu_policy="dedicated", memory_bytes=2 * GIB, disk_bytes=20 * GIB)
    large = Request(vcpus=4, cpu_policy="dedicated", memory_bytes=4 * GIB, disk_bytes=40 * GIB)
    settings = NodeSettings(reserved_host_memory_bytes=0, reserved_host_disk_bytes=0, allow_migrate_to_same_host=True)
    with bench(HOST, settings=settings) as world:
        first = built(world, request=small)
        opened(world.tracker.open_move("i", kind, request=large if kind == "resize" else None))
        assert_sound(world.tracker)
        other = built(world, "y", small)
        held = pins((*world.tracker.claims_of("i"), other))
        assert len(held) == len(set(held)) == (8 if kind == "resize" else 6)
        world.tracker.confirm_move("i")
        left = pins((*world.tracker.claims_of("i"), other))
        assert set(left) == set(held) - set(first.grant.cpus)


@pytest.mark.rule("S30", "W5")
def test_a_pinned_revert_beside_a_competitor() -> None:
    """While the move is being reverted nobody gets the source's CPUs; afterwards they are the instance's own."""
    small = Request(vcpus=2, cpu_policy="dedicated", memory_bytes=2 * GIB, disk_bytes=20 * GIB)
    with bench(HOST) as world:
        with_second(world)
        first = built(world, request=small)
        opened(world.tracker.open_move("i", "migration", to="B"))
        world.tracker.finish_move("i")
        world.tracker.revert_move("i")
        assert_sound(world.tracker)
        other = built(world, "y", small)
        assert set(other.grant.cpus).isdisjoint(first.grant.cpus)
        assert here(world) == (4, 4096, 40)


def test_a_late_release_by_the_consumers_name_is_answered() -> None:
    """Release, abort and detach of what has ended change nothing and say so; a name that never was is unknown."""
    with bench(HOST) as world:
        built(world)
        assert world.tracker.release("i").changed
        for late in (world.tracker.release, world.tracker.abort):
            answer = late("i")
            assert (answer.changed, answer.cause) == (False, "released")
        with pytest.raises(UnknownClaim):
            world.tracker.release("nobody")


@pytest.mark.rule("S17", "W15")
def test_deaths_end_a_move_only_before_it_is_finished() -> None:
    """While the destination is being prepared the end of its process aborts the move; a finished one waits for confirm or revert."""
    with bench(HOST) as world:
        with_second(world)
        built(world)
        for finished, status in ((False, "aborted"), (True, "finished")):
            pid = 50 + finished
            move = opened(world.tracker.open_move("i", "migration", to="B", holders=[world.tracker.holder(pid)])).move
            assert move is not None
            if finished:
                world.tracker.finish_move("i")
            world.processes.fates[pid] = "dead"
            world.tracker.sweep("B")
            assert (world.tracker.move_status(move), here(world)) == (status, (2, 2048, 20))


@pytest.mark.rule("W24", "S40")
def test_devices_of_one_kind_named_in_two_places_stay() -> None:
    """Each request that the resize leaves as it was is answered from what the source leg holds; one more is asked for anew."""
    first = Request(vcpus=1, memory_bytes=GIB, devices=(DeviceRequest(kind="vf"), DeviceRequest(kind="vf")))
    more = Request(vcpus=1, memory_bytes=GIB, devices=(DeviceRequest(kind="vf"), DeviceRequest(kind="vf", count=2)))
    for second, held in ((first, 2), (more, 3)):
        with bench("1x4c 8G vf:4") as world:
            built(world, request=first)
            opened(world.tracker.open_move("i", "resize", request=second))
            legs = {claim.leg: claim for claim in world.tracker.claims_of("i")}
            assert sorted(legs["destination"].named) == sorted(row.unit for row in legs["source"].grant.units)
            assert len({row.unit for claim in legs.values() for row in claim.grant.units}) == held


def test_a_second_main_claim_names_the_first_on_another_node() -> None:
    """The refusal says whose the first claim is and until when, although it is on a node that was not asked."""
    with bench(HOST) as world:
        with_second(world)
        first = world.tracker.hold(S, consumer="i", owner="ann", confirm=True, ttl_ms=60_000)
        assert isinstance(first, Answer)
        assert first.claim is not None
        second = world.tracker.hold(S, consumer="i", owner="bob", node="B", confirm=True)
        assert isinstance(second, Refusal)
        (held,) = second.reasons[0].holders
        assert (held.claim, held.owner, held.until_ms) == (first.claim.id, "ann", first.claim.deadline_ms)
        assert "on another node" in second.reasons[0].detail
        assert there(world) == (0, 0, 0)
